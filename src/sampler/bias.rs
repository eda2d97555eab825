//! The bias of plain SGLD, predicted from the posterior's curvature and the gradient's noise.
//!
//! On a quadratic mode of curvature a = nβh + γ, SGLD with step ε and minibatch gradients of
//! variance V is stationary at variance (1 + (ε/4)(nβ)²V)/(a(1 − εa/4)) instead of 1/a. With the
//! largest curvature a_max and the noise along its direction, the relative excess is an upper bound
//! on that of λ̂, which weighs the modes by their share nβh/a.

use super::chain::{ChainRun, Kernel, Scratch};
use super::sgld::SgldKernel;
use super::{Adapted, Flow, Posterior, SamplerError};
use crate::config::{Precond, Sgld};
use crate::num::Real;
use crate::num::rng::{Key, fill_index, fill_normal};

/// Steps of the pilot chain that finds a typical point: at a singular w* the curvature may be 0.
pub const PILOT: u64 = 2000;
/// Power iterations; the estimate is within a few percent well before.
const POWER_ITERATIONS: usize = 20;
/// Minibatches that the noise is measured on.
const BATCHES: usize = 32;

/// Predicts the relative bias of the run that `spec` describes. Preconditioned chains are left
/// without a prediction.
pub fn predict<T: Real>(
    spec: &Sgld,
    posterior: &Posterior<'_, T>,
    warmup: &Key,
    probe: &Key,
) -> Result<Adapted, SamplerError> {
    let mut adapted =
        Adapted { step_size: spec.step_size, inverse_mass: Vec::new(), fge: 0.0, predicted_bias: None };
    if spec.precond != Precond::None {
        return Ok(adapted);
    }
    let pilot = Sgld { steps: PILOT.min(spec.steps), warmup: 0, eval_every: PILOT, ..spec.clone() };
    let kernel = SgldKernel::new(&pilot, posterior);
    let mut scratch = Scratch::new(posterior, spec.batch_size);
    let mut run = ChainRun::start(&kernel, posterior, &mut scratch)?;
    let mut row = vec![0.0; kernel.layout().len()];
    run.advance(&kernel, posterior, warmup, &mut scratch, &mut row, &mut |_| Flow::Continue)?;
    adapted.fge += kernel.fge(&run.state);
    let mut worst: f64 = 0.0;
    for (point, w) in [posterior.centre(), run.state.w()].into_iter().enumerate() {
        let (curvature, direction) = largest_curvature(posterior, w, probe, point as u64, &mut scratch);
        adapted.fge += 2.0 * POWER_ITERATIONS as f64;
        let noise =
            noise_along(spec.batch_size, posterior, w, &direction, probe, 2 + point as u64, &mut scratch);
        adapted.fge += BATCHES as f64 * posterior.potential().batch_cost(spec.batch_size);
        let quarter = 0.25 * spec.step_size;
        let nbeta = posterior.nbeta();
        let shrink = 1.0 - quarter * (curvature + posterior.gamma());
        let excess =
            if shrink > 0.0 { (1.0 + quarter * nbeta * nbeta * noise) / shrink - 1.0 } else { f64::INFINITY };
        worst = if excess.is_nan() { f64::INFINITY } else { worst.max(excess) };
    }
    adapted.predicted_bias = Some(worst);
    Ok(adapted)
}

/// The largest eigenvalue of nβ∇²L_n at `w` and its direction, by power iteration on differences
/// of gradients.
fn largest_curvature<T: Real>(
    posterior: &Posterior<'_, T>,
    w: &[T],
    probe: &Key,
    stream: u64,
    scratch: &mut Scratch<T>,
) -> (f64, Vec<f64>) {
    let d = w.len();
    let mut direction = vec![0.0; d];
    fill_normal(&mut probe.at(stream), &mut direction);
    normalise(&mut direction);
    // A difference over h has relative errors of order h² and ε/h: their balance is ε^(1/3).
    let unit = if T::NAME == "f32" { 5e-3 } else { 6e-6 };
    let size = w.iter().map(|w| w.to_f64() * w.to_f64()).sum::<f64>().sqrt().max(1.0);
    let h = unit * size;
    let mut ahead = vec![T::ZERO; d];
    let mut eigenvalue = 0.0;
    for _ in 0..POWER_ITERATIONS {
        let gradient_at = |sign: f64, out: &mut [T], scratch: &mut Scratch<T>| {
            for ((x, &w), &v) in scratch.w.iter_mut().zip(w).zip(&direction) {
                *x = w + T::from_f64(sign * h * v);
            }
            posterior.potential().loss_grad(&scratch.w, out, &mut scratch.potential);
        };
        gradient_at(1.0, &mut ahead, scratch);
        let mut behind = std::mem::take(&mut scratch.grad);
        gradient_at(-1.0, &mut behind, scratch);
        for ((v, &a), &b) in direction.iter_mut().zip(&ahead).zip(&behind) {
            *v = (a.to_f64() - b.to_f64()) / (2.0 * h);
        }
        scratch.grad = behind;
        eigenvalue = normalise(&mut direction);
        if eigenvalue == 0.0 {
            break;
        }
    }
    (posterior.nbeta() * eigenvalue, direction)
}

/// The variance of a minibatch gradient along `direction`.
fn noise_along<T: Real>(
    batch: usize,
    posterior: &Posterior<'_, T>,
    w: &[T],
    direction: &[f64],
    probe: &Key,
    stream: u64,
    scratch: &mut Scratch<T>,
) -> f64 {
    let rows = posterior.potential().rows();
    if rows == 0 || batch == 0 {
        return 0.0;
    }
    let mut rng = probe.at(stream);
    let along: Vec<f64> = (0..BATCHES)
        .map(|_| {
            fill_index(&mut rng, rows, &mut scratch.rows);
            let Scratch { grad, rows, potential, .. } = &mut *scratch;
            posterior.potential().batch_loss_grad(w, rows, grad, potential);
            grad.iter().zip(direction).map(|(g, v)| g.to_f64() * v).sum()
        })
        .collect();
    crate::stats::variance(&along)
}

/// Scales to length 1 and returns the length before.
fn normalise(v: &mut [f64]) -> f64 {
    let length = v.iter().map(|x| x * x).sum::<f64>().sqrt();
    if length > 0.0 {
        v.iter_mut().for_each(|x| *x /= length);
    }
    length
}
