//! Every combination of some values of each parameter.

use rand_chacha::ChaCha8Rng;

use super::space::{Axis, Point, Space};
use crate::num::rng::index;

/// Largest grid: one that no study works through anyway.
pub const LARGEST: usize = 100_000;

/// Values of a parameter: all of them where there are at most `points` or it is a choice, else `points` of
/// them, evenly spaced in its coordinate, both ends included (the middle where `points` is 1).
fn values(axis: &Axis, points: usize) -> Vec<f64> {
    let points = points.max(1);
    match (axis, axis.count()) {
        (Axis::Choice(n), _) => (0..*n).map(|k| k as f64).collect(),
        (Axis::Number { low, step, .. }, Some(count)) if count <= points as u64 => {
            (0..count).map(|k| low + step * k as f64).collect()
        }
        (Axis::Number { low, high, .. }, _) => {
            let (low, high) = (axis.coordinate(*low), axis.coordinate(*high));
            let at = |k: usize| match points {
                1 => 0.5 * (low + high),
                _ => low + (high - low) * k as f64 / (points - 1) as f64,
            };
            let mut values: Vec<f64> = (0..points).map(|k| axis.value(at(k))).collect();
            values.dedup();
            values
        }
    }
}

/// The points of the grid, the last parameter running fastest; `None` where there are more than
/// [`LARGEST`].
pub fn grid(space: &Space, points: usize) -> Option<Vec<Point>> {
    let mut grid: Vec<Point> = vec![Vec::new()];
    for (i, axis) in space.axes().iter().enumerate() {
        let values = values(axis, points);
        let mut longer = Vec::with_capacity(grid.len());
        for point in grid {
            if space.counts(i, &point) {
                let with = |value: &f64| point.iter().copied().chain([Some(*value)]).collect();
                longer.extend(values.iter().map(with));
            } else {
                longer.push(point.iter().copied().chain([None]).collect());
            }
            if longer.len() > LARGEST {
                return None;
            }
        }
        grid = longer;
    }
    Some(grid)
}

/// Puts the points into a random order (Fisher & Yates).
pub fn shuffle(grid: &mut [Point], rng: &mut ChaCha8Rng) {
    for i in (1..grid.len()).rev() {
        grid.swap(i, index(rng, i + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tune::{Condition, Dimension, Domain, Scalar};

    #[test]
    fn a_grid_has_every_combination_once_and_children_only_where_they_count() {
        let choices = vec![Scalar::Bool(true), Scalar::Bool(false)];
        let when = vec![Condition { parent: "on".into(), values: vec![Scalar::Bool(true)] }];
        let space = Space::new(&[
            Dimension { name: "on".into(), domain: Domain::Categorical { choices }, when: vec![] },
            Dimension {
                name: "x".into(),
                domain: Domain::Float { low: 1e-4, high: 1.0, log: true, step: None },
                when,
            },
            Dimension {
                name: "n".into(),
                domain: Domain::Int { low: 1, high: 2, log: false, step: 1 },
                when: vec![],
            },
        ])
        .unwrap();
        let points = grid(&space, 3).unwrap();
        let rows: Vec<Vec<f64>> =
            points.iter().map(|p| p.iter().map(|v| v.unwrap_or(-1.0)).collect()).collect();
        let expected = [
            [0.0, 1e-4, 1.0],
            [0.0, 1e-4, 2.0],
            [0.0, 1e-2, 1.0],
            [0.0, 1e-2, 2.0],
            [0.0, 1.0, 1.0],
            [0.0, 1.0, 2.0],
            [1.0, -1.0, 1.0],
            [1.0, -1.0, 2.0],
        ];
        assert_eq!(rows.len(), expected.len());
        for (row, expected) in rows.iter().zip(expected) {
            for (a, b) in row.iter().zip(expected) {
                assert!((a - b).abs() <= 1e-15 * b.abs(), "{row:?}");
            }
        }
        assert_eq!(grid(&space, 60_000), None);
    }
}
