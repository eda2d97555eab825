//! Gradients of the families against central differences of an ELBO with common random numbers.

use super::flow::LiftedFlow;
use super::guide::{Guide, Unfit};
use super::lift::Lift;
use super::mixture::Mixture;
use crate::config::{FactorFamily, FlowType, LatentFlow, Mfa};
use crate::num::rng::{Key, Purpose, fill_normal};

/// A target that is not Gaussian: ln π and its gradient at δ.
fn target(delta: &[f64], grad: &mut [f64]) -> f64 {
    let sum: f64 = delta.iter().sum();
    let mut log = -0.5 * sum * sum;
    for (i, (g, x)) in grad.iter_mut().zip(delta).enumerate() {
        let (a, b) = (1.0 + i as f64, 0.3 * (i as f64 - 1.0));
        log -= 0.5 * a * x * x + 0.1 * x.powi(4) + b * x;
        *g = -(sum + a * x + 0.4 * x.powi(3) + b);
    }
    log
}

fn buffers(guide: &dyn Guide) -> Vec<Vec<f64>> {
    guide.lengths().into_iter().map(|n| vec![f64::NAN; n]).collect()
}

fn key() -> Key {
    Key::new([8; 32], Purpose::Probe, 0)
}

/// Parameters of random size, as far from special as any.
fn parameters(guide: &dyn Guide, size: f64) -> Vec<f64> {
    let mut phi = vec![0.0; guide.parameters()];
    fill_normal(&mut key().at(1), &mut phi);
    phi.iter_mut().for_each(|x| *x *= size);
    phi
}

/// Largest difference between `gradient` and central differences of `f`, relative to the largest entry.
fn difference(phi: &[f64], gradient: &[f64], f: impl Fn(&[f64]) -> f64) -> f64 {
    let h = 1e-5;
    let largest = gradient.iter().fold(1.0f64, |m, g| m.max(g.abs()));
    let off = |i: usize| {
        let shifted = |step: f64| {
            let mut phi = phi.to_vec();
            phi[i] += step;
            f(&phi)
        };
        ((shifted(h) - shifted(-h)) / (2.0 * h) - gradient[i]).abs() / largest
    };
    (0..phi.len()).map(off).fold(0.0, f64::max)
}

/// The gradient of a step at `phi`.
fn gradient_of(guide: &dyn Guide, phi: &[f64], dim: usize) -> Vec<f64> {
    let mut work = buffers(guide);
    guide.prepare(phi, &mut work).unwrap();
    let mut rng = key().at(2);
    let (mut delta, mut grad) = (vec![0.0; dim], vec![0.0; dim]);
    let mut out = vec![0.0; phi.len()];
    let mut differences = Vec::new();
    for stratum in 0..guide.strata() {
        let log_q = guide.draw(phi, &mut work, stratum, &mut rng, &mut delta);
        differences.push(target(&delta, &mut grad) - log_q);
        let weight = guide.weight(&work, stratum);
        guide.pull(phi, &mut work, stratum, &delta, &mut grad, weight, &mut out);
    }
    guide.weigh(&work, &differences, &mut out);
    out
}

/// Sticking the landing is the derivative of the ELBO with q's own parameters held, which is what is
/// differenced here: means, scales, factors and, as Σ π_m f_m with prior and bonus, weights.
#[test]
fn gradients_of_mixtures_are_those_of_the_elbo() {
    let dim = 4;
    for family in [FactorFamily::Covariance, FactorFamily::Precision] {
        for ranks in [vec![0], vec![2], vec![2, 0, 3]] {
            let settings = Mfa {
                components: None,
                rank: None,
                r_per_component: Some(ranks.clone()),
                family,
                alpha_temperature: 0.7,
                alpha_dirichlet_prior: Some(1.4),
                entropy_bonus: 0.3,
            };
            let mixture = Mixture::new(dim, &settings, 0, 0);
            let phi = parameters(&mixture, 0.5);
            let gradient = gradient_of(&mixture, &phi, dim);
            let mut held = buffers(&mixture);
            mixture.prepare(&phi, &mut held).unwrap();
            let held = std::cell::RefCell::new(held);
            let objective = |at: &[f64]| {
                let mut work = buffers(&mixture);
                mixture.prepare(at, &mut work).unwrap();
                let mut rng = key().at(2);
                let (mut delta, mut grad) = (vec![0.0; dim], vec![0.0; dim]);
                let mut elbo = 0.0;
                for m in 0..ranks.len() {
                    mixture.draw(at, &mut work, m, &mut rng, &mut delta);
                    let log_q = mixture.log_density(&phi, &mut held.borrow_mut(), &delta);
                    let weight = mixture.weight(&work, m);
                    elbo += weight * (target(&delta, &mut grad) - log_q);
                    elbo += 0.4 * weight.ln() - 0.3 * weight * weight.ln();
                }
                elbo
            };
            let off = difference(&phi, &gradient, objective);
            // h² times third derivatives of order 10, and rounding 1e-16/h.
            assert!(off < 1e-7, "{family:?} {ranks:?}: {off:e}");
        }
    }
}

#[test]
fn gradients_of_flows_are_those_of_the_elbo() {
    let dim = 5;
    let rotation = |k: usize, angle: f64| {
        // Orthonormal rows: two coordinates each, turned.
        let mut row = vec![0.0; dim];
        (row[k], row[(k + 3) % dim]) = (angle.cos(), angle.sin());
        row
    };
    for flow_type in [FlowType::Realnvp, FlowType::Maf, FlowType::NsfAr] {
        for (latent, sigma_perp) in [(3, None), (2, Some(0.7)), (1, None), (5, None)] {
            let basis = match latent {
                5 => (0..5).flat_map(|k| (0..5).map(move |i| f64::from(u8::from(i == k)))).collect(),
                _ => (0..latent).flat_map(|k| rotation(k, if k < 2 { 0.4 } else { 0.0 })).collect(),
            };
            let lift = Lift {
                scales: vec![0.5, 1.0, 0.8, 1.2, 0.3],
                basis,
                precisions: vec![1.0; latent],
                across: 1.0,
            };
            let settings = LatentFlow {
                d_latent: latent,
                sigma_perp,
                flow_depth: 3,
                flow_hidden: vec![5, 4],
                flow_type,
            };
            let flow = LiftedFlow::new(lift, &settings);
            let phi = parameters(&flow, 0.4);
            let gradient = gradient_of(&flow, &phi, dim);
            let objective = |at: &[f64]| {
                let mut work = buffers(&flow);
                flow.prepare(at, &mut work).unwrap();
                let mut rng = key().at(2);
                let (mut delta, mut grad) = (vec![0.0; dim], vec![0.0; dim]);
                let log_q = flow.draw(at, &mut work, 0, &mut rng, &mut delta);
                target(&delta, &mut grad) - log_q
            };
            let off = difference(&phi, &gradient, objective);
            // As for mixtures; a spline's second derivatives jump at knots, which no point here is near.
            assert!(off < 1e-7, "{flow_type:?} {latent}: {off:e}");
        }
    }
}

/// ln q of a flow in one direction, integrated over that direction, is 1: its determinant is right.
#[test]
fn densities_of_flows_are_normalised() {
    for flow_type in [FlowType::Realnvp, FlowType::Maf, FlowType::NsfAr] {
        let lift = Lift { scales: vec![0.5], basis: vec![1.0], precisions: vec![1.0], across: 1.0 };
        let settings =
            LatentFlow { d_latent: 1, sigma_perp: None, flow_depth: 3, flow_hidden: vec![5], flow_type };
        let flow = LiftedFlow::new(lift, &settings);
        let phi = parameters(&flow, 0.4);
        let mut work = buffers(&flow);
        flow.prepare(&phi, &mut work).unwrap();
        let mut points: Vec<(f64, f64)> = (0..4000)
            .map(|i| {
                let mut delta = [0.0];
                let log_q = flow.draw(&phi, &mut work, 0, &mut key().at(100 + i), &mut delta);
                (delta[0], log_q)
            })
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let integral: f64 =
            points.windows(2).map(|p| 0.5 * (p[1].0 - p[0].0) * (p[0].1.exp() + p[1].1.exp())).sum();
        // The tails beyond 4,000 draws hold 1/2000 or so; the trapezium errs by less.
        assert!((integral - 1.0).abs() < 2e-3, "{flow_type:?}: {integral}");
    }
}

#[test]
fn parameters_of_no_density_are_refused() {
    let settings = Mfa {
        components: None,
        rank: None,
        r_per_component: Some(vec![1, 2]),
        family: FactorFamily::Precision,
        alpha_temperature: 1.0,
        alpha_dirichlet_prior: None,
        entropy_bonus: 0.0,
    };
    let mixture = Mixture::new(3, &settings, 0, 0);
    let mut work = buffers(&mixture);
    let mut phi = parameters(&mixture, 0.5);
    assert_eq!(mixture.prepare(&phi, &mut work), Ok(()));
    // A factor so long that its square overflows: C = I + VᵀV has no Cholesky factor.
    if let Some(last) = phi.last_mut() {
        *last = 1e200;
    }
    assert_eq!(mixture.prepare(&phi, &mut work), Err(Unfit::Capacitance(1)));
    let lift = Lift { scales: vec![1.0; 2], basis: vec![1.0, 0.0], precisions: vec![1.0], across: 1.0 };
    let settings = LatentFlow {
        d_latent: 1,
        sigma_perp: None,
        flow_depth: 1,
        flow_hidden: vec![3],
        flow_type: FlowType::Realnvp,
    };
    let flow = LiftedFlow::new(lift, &settings);
    let mut work = buffers(&flow);
    let mut phi = parameters(&flow, 0.5);
    assert_eq!(flow.prepare(&phi, &mut work), Ok(()));
    phi[0] = 1e4;
    assert_eq!(flow.prepare(&phi, &mut work), Err(Unfit::Width));
}
