use super::*;
use crate::config::tune::{Bandwidth, Dimension, Domain, Scalar};
use crate::num::rng::{Key, Purpose, uniform};

fn rng(number: u64) -> ChaCha8Rng {
    Key::new([5; 32], Purpose::Proposal, 0).at(number)
}

fn axes() -> [Axis; 5] {
    [
        Axis::Number { low: -2.0, high: 3.0, log: false, step: 0.0 },
        Axis::Number { low: 1e-4, high: 1.0, log: true, step: 0.0 },
        Axis::Number { low: 3.0, high: 18.0, log: false, step: 3.0 },
        Axis::Number { low: 1.0, high: 20.0, log: true, step: 1.0 },
        Axis::Choice(4),
    ]
}

/// All cells of an axis, as (value, width in coordinates); a continuum is cut into 4000.
fn cells(axis: &Axis) -> Vec<(f64, f64)> {
    if let Some(count) = axis.count() {
        let value = |k: u64| match axis {
            Axis::Number { low, step, .. } => low + step * k as f64,
            Axis::Choice(_) => k as f64,
        };
        return (0..count).map(|k| (value(k), 1.0)).collect();
    }
    let (low, high) = axis.edges();
    let width = (high - low) / 4000.0;
    (0..4000).map(|k| (axis.value(low + (f64::from(k) + 0.5) * width), width)).collect()
}

#[test]
fn estimators_are_densities_and_draws_follow_them() {
    for (number, axis) in axes().into_iter().enumerate() {
        for bandwidth in [Bandwidth::Neighbours, Bandwidth::Scott] {
            let settings = TpeSettings { bandwidth, ..TpeSettings::default() };
            for n in [0, 1, 2, 7, 40] {
                let mut rng = rng(number as u64);
                let observed: Vec<Vec<f64>> = (0..n).map(|_| vec![axis.at(uniform(&mut rng))]).collect();
                let mixture = Mixture::new(&[(0, &axis)], &observed.concat(), &weights(n), &settings);
                let cells = cells(&axis);
                let points: Vec<Vec<f64>> = cells.iter().map(|(value, _)| vec![*value]).collect();
                let shares: Vec<f64> = mixture
                    .log_density(&points)
                    .iter()
                    .zip(&cells)
                    .map(|(log, (_, width))| log.exp() * width)
                    .collect();
                let total: f64 = shares.iter().sum();
                // The midpoint rule on 4000 cells; sums over grids are exact.
                assert!((total - 1.0).abs() < 1e-4, "{axis:?} {n}: {total}");
                // Draws in the lower half of the cells against their share, within four standard errors.
                let half = cells[cells.len() / 2].0;
                let expected: f64 =
                    shares.iter().zip(&cells).filter(|(_, cell)| cell.0 < half).map(|(s, _)| s).sum();
                let draws = 20_000;
                let below = (0..draws).filter(|_| mixture.draw(&mut rng)[0] < half).count();
                let found = below as f64 / f64::from(draws);
                let bar = 4.0 * (expected * (1.0 - expected) / f64::from(draws)).sqrt() + 1e-3;
                assert!((found - expected).abs() < bar, "{axis:?} {n}: {found} for {expected}");
            }
        }
    }
}

#[test]
fn a_joint_estimator_is_the_mixture_of_products() {
    let axes = axes();
    let mut rng = rng(9);
    let row = |rng: &mut ChaCha8Rng| axes.iter().map(|a| a.at(uniform(rng))).collect::<Vec<f64>>();
    let observed: Vec<Vec<f64>> = (0..6).map(|_| row(&mut rng)).collect();
    let settings = TpeSettings::default();
    let joint = Mixture::new(
        &axes.iter().enumerate().collect::<Vec<_>>(),
        &observed.concat(),
        &weights(6),
        &settings,
    );
    let point = row(&mut rng);
    // Kernel by kernel: the estimator with one trial's weight only, in one parameter.
    let mut expected = 0.0;
    for kernel in 0..=6 {
        let mut product = 1.0 / 7.0;
        for (k, axis) in axes.iter().enumerate() {
            if let Axis::Choice(_) = axis {
                // Seven kernels, four choices: weights 1 + 1/7 and 1/7, of a sum of 1 + 4/7.
                product *= match observed.get(kernel) {
                    None => 0.25,
                    Some(row) if row[k] == point[k] => (8.0 / 7.0) / (11.0 / 7.0),
                    Some(_) => (1.0 / 7.0) / (11.0 / 7.0),
                };
                continue;
            }
            let column: Vec<f64> = observed.iter().map(|row| row[k]).collect();
            let mut of_kernel = Mixture::new(&[(k, axis)], &column, &weights(6), &settings);
            of_kernel.shares = (0..7).map(|i| if i == kernel { 1.0 } else { 0.0 }).collect();
            product *= of_kernel.log_density(&[vec![point[k]]])[0].exp();
        }
        expected += product;
    }
    let found = joint.log_density(&[point])[0].exp();
    assert!((found / expected - 1.0).abs() < 1e-12, "{found} {expected}");
}

#[test]
fn weights_rise_to_one_and_the_last_25_count_in_full() {
    assert_eq!(weights(0), Vec::<f64>::new());
    assert_eq!(weights(24), vec![1.0; 24]);
    let many = weights(100);
    assert_eq!(many[0], 0.01);
    assert!(many.is_sorted());
    assert_eq!(many[74..], [1.0; 26]);
    assert_eq!(weights(26)[0], 1.0 / 26.0);
}

fn float(name: &str) -> Dimension {
    let domain = Domain::Float { low: 0.0, high: 1.0, log: false, step: None };
    Dimension { name: name.into(), domain, when: vec![] }
}

#[test]
fn proposals_gather_where_good_trials_are_and_keep_off_liars() {
    let space = Space::new(&[float("x"), float("y")]).unwrap();
    let points: Vec<Point> = (0..60).map(|i| space.random(&mut rng(i))).collect();
    let values: Vec<[f64; 1]> =
        points.iter().map(|p| [(p[0].unwrap() - 0.3).powi(2) + (p[1].unwrap() - 0.8).powi(2)]).collect();
    let mut seen: Vec<Seen> =
        points.iter().zip(&values).map(|(point, v)| Seen { point, end: End::Complete(v) }).collect();
    let settings = TpeSettings::default();
    let away = |seen: &[Seen], x: f64, y: f64| {
        let distance = |number| {
            let p = propose(&space, seen, &settings, (0, &mut rng(1000 + number)), &rng(0), &|_| true);
            ((p[0].unwrap() - x).powi(2) + (p[1].unwrap() - y).powi(2)).sqrt()
        };
        (0..200u64).map(distance).sum::<f64>() / 200.0
    };
    let before = away(&seen, 0.3, 0.8);
    // A uniform point is 0.52 away on average.
    assert!(before < 0.2, "{before}");
    let pending: Vec<Point> = vec![vec![Some(0.3), Some(0.8)]; 30];
    seen.extend(pending.iter().map(|point| Seen { point, end: End::Pending }));
    let after = away(&seen, 0.3, 0.8);
    assert!(after > 1.2 * before, "{after} {before}");
}

#[test]
fn a_grid_is_exhausted_before_anything_is_proposed_again() {
    let choices = (0..3).map(Scalar::Int).collect();
    let c = Dimension { name: "c".into(), domain: Domain::Categorical { choices }, when: vec![] };
    let domain = Domain::Int { low: 1, high: 7, log: false, step: 1 };
    let n = Dimension { name: "n".into(), domain, when: vec![] };
    let space = Space::new(&[c, n]).unwrap();
    let mut points: Vec<Point> = Vec::new();
    let mut values: Vec<[f64; 1]> = Vec::new();
    for number in 0..21 {
        let seen: Vec<Seen> =
            points.iter().zip(&values).map(|(point, v)| Seen { point, end: End::Complete(v) }).collect();
        let is_new = |p: &[Option<f64>]| !points.iter().any(|other| other == p);
        let point = propose(&space, &seen, &TpeSettings::default(), (0, &mut rng(number)), &rng(0), &is_new);
        assert!(is_new(&point), "{number}");
        values.push([point[1].unwrap()]);
        points.push(point);
    }
}

#[test]
fn on_a_grid_the_latest_are_not_wide_in_all_parameters_at_once() {
    // Twelve trials a value: two of them reach to the neighbours, the other ten have the least width. By
    // number the latest of the value would always be one of the two.
    let axis = axes()[2];
    let observed: Vec<f64> = (0..72).map(|i| 3.0 * f64::from(i % 6) + 3.0).collect();
    let settings = TpeSettings::default();
    let wide = |parameter: usize| {
        let mixture = Mixture::new(&[(parameter, &axis)], &observed, &weights(72), &settings);
        // Of the kernels of the last round.
        (66..72).filter(|i| mixture.width(*i) > 2.0).count()
    };
    let parameters = 200;
    let found = (0..parameters).map(wide).sum::<usize>() as f64 / (6 * parameters) as f64;
    // A sixth at each value between the ends and a twelfth at the ends, within four standard errors of 1200
    // draws; 5/6 by number.
    let expected: f64 = (4.0 / 6.0 + 2.0 / 12.0) / 6.0;
    let bar = 4.0 * (expected * (1.0 - expected) / 1200.0).sqrt();
    assert!((found - expected).abs() < bar, "{found} for {expected}");
}
