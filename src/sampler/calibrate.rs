//! What unadjusted samplers learn in their warmup: how stiff the posterior is where it has its mass
//! and how noisy minibatch gradients are, hence the step size and the bias it leaves.
//!
//! On a quadratic mode of curvature a = nβh + γ, Langevin dynamics with step ε and minibatch gradients
//! of variance V is stationary at variance (1 + (ε/4)(nβ)²V)/(a(1 − εa/4)) instead of 1/a. The largest
//! curvature bounds the relative excess of any mode. The excess of λ̂ itself, ½Σ nβh_i·Δvar_i, is to
//! first order (ε/8)·(nβ·tr H + (nβ)²·Σ s_iV_i), s_i = nβh_i/a_i, where Σ s_iV_i is at most the whole
//! variance of the gradient.

use super::chain::Scratch;
use super::curvature::{largest, spectrum, trace};
use super::leapfrog::{Leapfrog, State};
use super::posterior::Posterior;
use super::windowed::{self, Schedule};
use super::{Adapted, SamplerError};
use crate::device::Element;
use crate::num::rng::{Key, Purpose, fill_index, index, uniform};
use crate::num::sum_of;
use crate::resume::Desk;

/// The pilot: a short HMC run that finds typical points, since at a singular w* the curvature may be
/// 0. Iterations, mean leapfrog steps of one, and target acceptance.
const PILOT: usize = 250;
const PILOT_STEPS: usize = 10;
const PILOT_ACCEPTANCE: f64 = 0.9;
/// From this iteration on, every so many give a point. (Many: where a posterior is singular, its
/// stiffest places are rare.)
const FIRST_POINT: usize = 79;
const POINT_EVERY: usize = 7;
/// Every so many points, the trace and the noise are measured too.
const THOROUGH: usize = 3;
/// Minibatches that the noise is measured on, a point.
const BATCHES: usize = 16;
/// Langevin proposals a point that the acceptance is measured on.
const PROPOSALS: u64 = 2;
/// Smallest mean Metropolis acceptance of a Langevin proposal at a chosen step.
const LEAST_ACCEPTANCE: f64 = 0.9;
/// Largest relative bias of a mode at a chosen step.
const LARGEST_BIAS: f64 = 0.03;
/// Factor between steps that are tried, and how many are.
const SHRINK: f64 = 0.7;
const TRIES: usize = 60;

/// Expected work of a calibration in gradients.
pub const WORK: f64 = (PILOT * PILOT_STEPS) as f64 + 25.0 * 40.0 + 9.0 * 40.0;

/// The posterior as a pilot run saw it.
pub struct Landscape<T> {
    points: Vec<State<T>>,
    /// Largest nβh + γ over the points.
    pub stiffest: f64,
    /// Mean of nβ·tr ∇²L over the points.
    pub trace: f64,
    /// (nβ)²·variance of a minibatch gradient along the stiffest direction, the largest of the points.
    pub noise_along: f64,
    /// (nβ)²·total variance of a minibatch gradient, the mean over the points.
    pub noise: f64,
    /// Mean of s_i = nβh_i/(nβh_i + γ) over all dimensions, at the last point.
    pub share: f64,
    /// Work so far.
    pub fge: f64,
}

/// How a step size acts on a mode, to be solved for the step.
pub trait StepRule {
    /// Relative excess of the variance of a mode of curvature `stiff` under gradient noise of
    /// variance `noise` (both in units of U): at least 0, infinite where the step is unstable.
    fn mode_bias(&self, step: f64, stiff: f64, noise: f64) -> f64;

    /// Excess of λ̂, to first order; `share` is the mean of s_i.
    fn excess(&self, step: f64, trace: f64, noise: f64, share: f64) -> f64;

    /// The ε of a Langevin proposal that moves as far in one step.
    fn langevin_step(&self, step: f64) -> f64;
}

impl<T: Element> Landscape<T> {
    /// Runs the pilot and measures. `batch` 0 stands for full gradients.
    pub fn survey(
        posterior: &Posterior<'_, T>,
        batch: usize,
        id: [u8; 32],
        desk: &mut Desk<'_>,
    ) -> Result<Self, SamplerError> {
        let (key, probe) = (Key::new(id, Purpose::Warmup, 0), Key::new(id, Purpose::Probe, 0));
        let mut scratch = Scratch::batched(posterior, batch);
        let schedule = Schedule {
            warmup: PILOT,
            step_size: 0.01,
            target_acceptance: PILOT_ACCEPTANCE,
            points: Some((FIRST_POINT, POINT_EVERY)),
        };
        let walk = |leapfrog: &Leapfrog<T>, state: &mut State<T>, i, scratch: &mut Scratch<T>| {
            let mut rng = key.at(i);
            let step = leapfrog.step_size * uniform(&mut rng);
            let count = 1 + index(&mut rng, 2 * PILOT_STEPS - 1);
            let threshold = uniform(&mut rng);
            leapfrog.propose(posterior, state, &mut rng, (step, count), threshold, scratch)
        };
        let (pilot, points) = windowed::warmup(schedule, posterior, &key, &mut scratch, desk, walk)?;
        let mut found = Self {
            points,
            stiffest: 0.0,
            trace: 0.0,
            noise_along: 0.0,
            noise: 0.0,
            share: 0.0,
            fge: pilot.fge,
        };
        let count = found.points.len().div_ceil(THOROUGH) as f64;
        for (i, point) in found.points.iter().enumerate() {
            let stream = 3 * i as u64;
            let (top, work, thorough) = desk.stage(|_| {
                let (top, direction, work) = largest(posterior, &point.w, &probe, stream, &mut scratch);
                let thorough = i.is_multiple_of(THOROUGH).then(|| {
                    let traced = trace(posterior, &point.w, &probe, stream + 1, &mut scratch);
                    let noise =
                        noise(batch, posterior, &point.w, &direction, &probe, stream + 2, &mut scratch);
                    (traced, noise)
                });
                Ok::<_, SamplerError>((top, work, thorough))
            })?;
            found.stiffest = found.stiffest.max(top + posterior.gamma());
            found.fge += work;
            if let Some(((sum, more), (along, total, batches))) = thorough {
                found.trace += sum / count;
                found.noise_along = found.noise_along.max(along);
                found.noise += total / count;
                found.fge += more + batches;
            }
        }
        if let Some(point) = found.points.last() {
            let ones = vec![T::ONE; posterior.dim()];
            let (nodes, work) = desk.stage(|_| {
                Ok::<_, SamplerError>(spectrum(
                    posterior,
                    &point.w,
                    &ones,
                    &probe,
                    u64::MAX >> 32,
                    &mut scratch,
                ))
            })?;
            let stiff = |h: f64| h.max(0.0) / (h.max(0.0) + posterior.gamma()).max(f64::MIN_POSITIVE);
            found.share = nodes.iter().map(|(h, weight)| weight * stiff(*h)).sum();
            found.fge += work;
        }
        Ok(found)
    }

    /// The step that was given with the bias it has, or the largest that is allowed: the relative bias
    /// of every mode within 3 % and a Metropolis acceptance of at least 0.9.
    pub fn adapt(
        mut self,
        posterior: &Posterior<'_, T>,
        given: Option<f64>,
        rule: &impl StepRule,
        id: [u8; 32],
        desk: &mut Desk<'_>,
    ) -> Result<Adapted, SamplerError> {
        let key = Key::new(id, Purpose::Probe, 1);
        let step = match given {
            Some(step) => step,
            None => self.choose(posterior, rule, &key, desk)?,
        };
        let acceptance = self.acceptance(posterior, rule.langevin_step(step), &key, desk)?;
        let bound = rule.mode_bias(step, self.stiffest, self.noise_along);
        let excess = rule.excess(step, self.trace, self.noise, self.share);
        Ok(Adapted {
            step_size: step,
            fge: self.fge,
            bias: Some(if bound.is_finite() { excess } else { f64::INFINITY }),
            bias_bound: Some(bound),
            mala_acceptance: Some(acceptance),
            ..Adapted::default()
        })
    }

    fn choose(
        &mut self,
        posterior: &Posterior<'_, T>,
        rule: &impl StepRule,
        key: &Key,
        desk: &mut Desk<'_>,
    ) -> Result<f64, SamplerError> {
        // By bisection of log step: the bias grows with the step.
        let (mut low, mut high) = (-700.0, 700.0);
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            let bias = rule.mode_bias(libm::exp(middle), self.stiffest, self.noise_along);
            if bias <= LARGEST_BIAS { low = middle } else { high = middle }
        }
        let mut step = libm::exp(low);
        for _ in 0..TRIES {
            if self.acceptance(posterior, rule.langevin_step(step), key, desk)? >= LEAST_ACCEPTANCE {
                return Ok(step);
            }
            step *= SHRINK;
        }
        Err(SamplerError::StepSize { step_size: step })
    }

    /// Mean acceptance of Langevin proposals of step `step` from the points, on the full loss.
    fn acceptance(
        &mut self,
        posterior: &Posterior<'_, T>,
        step: f64,
        key: &Key,
        desk: &mut Desk<'_>,
    ) -> Result<f64, SamplerError> {
        self.fge += self.points.len() as f64 * PROPOSALS as f64;
        desk.stage(|_| Ok(self.measure_acceptance(posterior, step, key)))
    }

    fn measure_acceptance(&mut self, posterior: &Posterior<'_, T>, step: f64, key: &Key) -> f64 {
        let leapfrog = Leapfrog::new(1.0, &vec![1.0; posterior.dim()]);
        let mut scratch = Scratch::plain(posterior);
        let mut sum = 0.0;
        let count = self.points.len() as f64 * PROPOSALS as f64;
        for (i, point) in self.points.iter_mut().enumerate() {
            for proposal in 0..PROPOSALS {
                let mut rng = key.at(i as u64 * PROPOSALS + proposal);
                let flight = leapfrog.fly(posterior, point, &mut rng, (step.sqrt(), 1), &mut scratch);
                let error = flight.after - flight.before;
                sum += if error.is_finite() { libm::exp(-error).min(1.0) } else { 0.0 };
            }
        }
        sum / count
    }
}

/// Variance of a minibatch gradient along `direction`, its total variance, in units of U, and the
/// work.
fn noise<T: Element>(
    batch: usize,
    posterior: &Posterior<'_, T>,
    w: &[T],
    direction: &[T],
    probe: &Key,
    stream: u64,
    scratch: &mut Scratch<T>,
) -> (f64, f64, f64) {
    let potential = posterior.potential();
    if potential.rows() == 0 || batch == 0 {
        return (0.0, 0.0, 0.0);
    }
    let mut rng = probe.at(stream);
    let mut full = vec![T::ZERO; w.len()];
    potential.loss_grad(w, &mut full, &mut scratch.potential);
    let (mut along, mut total) = (0.0, 0.0);
    for _ in 0..BATCHES {
        fill_index(&mut rng, potential.rows(), &mut scratch.rows);
        let Scratch { grad, rows, potential: own, .. } = &mut *scratch;
        potential.batch_loss_grad(w, rows, grad, own);
        grad.iter_mut().zip(&full).for_each(|(g, &f)| *g -= f);
        let part = sum_of(grad, direction, |g, v| g * v);
        along += part * part / BATCHES as f64;
        total += sum_of(grad, grad, |g, _| g * g) / BATCHES as f64;
    }
    let scale = posterior.nbeta() * posterior.nbeta();
    (scale * along, scale * total, 1.0 + BATCHES as f64 * potential.batch_cost(batch))
}
