//! Microcanonical Langevin Monte Carlo (Robnik, De Luca, Silverstein & Seljak 2023; Robnik & Seljak
//! 2023): isokinetic steps whose direction is partly forgotten after each, over a distance L.
//!
//! Without accept/reject it is biased by its step size, which is chosen so that the energy error of a
//! step has a given variance a dimension: a criterion for many dimensions. With `adjusted`, whole
//! trajectories of mean length 0.6·L are accepted or rejected by their energy error (Riou-Durand & Vogrinc
//! 2022; Robnik, Cohn-Gordon & Seljak 2025), from a fresh direction: exact, and the default below 10
//! dimensions.
//!
//! Adaptation, in three phases of `frac_tune·num_steps` steps: the step size; the step size and the
//! variances of the coordinates, which give L = √(Σ var) (or, with preconditioning, the scales, and
//! L = √d); the autocorrelation, which gives L = 0.4·(distance a step)·(steps an effective draw), in rounds
//! with shorter steps until the energy errors are as wanted. In the end the step is such that by the spectrum
//! of the Hessian no mode's variance is off by more than a tenth.

mod tuning;

use serde::{Deserialize, Serialize};

use super::chain::{Iterations, Kernel, Scratch};
use super::curvature::spectrum;
use super::leapfrog::{SHORTEST, control_draws, has_diverged};
use super::microcanonical::{
    Walker, draw_direction, gradients, kept_share, refresh, step as isokinetic_step, variance_excess,
};
use super::posterior::{Energy, Posterior};
use super::{Adapted, Method, Role, SamplerError, Work, leapfrog};
use crate::config::{Integrator, Mclmc};
use crate::device::Element;
use crate::num::rng::{Key, Purpose, index, uniform};
use crate::resume::Desk;
use crate::trace::{Column, Kind};

/// Below so many dimensions `adjusted: auto` means yes: the energy criterion needs many.
const FEW_DIMENSIONS: usize = 10;
/// Fewest steps of a phase that is not skipped.
const SHORTEST_PHASE: usize = 100;
/// Fewest draws, times their steps, that a chain drops at its start.
const BURN_IN_DRAWS: usize = 100;
/// Most that the variance of a mode may be off by after an adaptation: near the limit of stability it
/// grows without bounds, and the curvature is measured at one point alone.
const MOST_EXCESS: f64 = 0.1;
/// Factor on a step that leaves more, and how often it is applied at most.
const SHORTEN: f64 = 0.9;
const MOST_SHORTENINGS: usize = 20;
/// Steps a draw, for expected work.
const TYPICAL_THIN: usize = 8;

/// MCLMC ready to run one chain.
#[derive(Debug)]
pub struct MclmcKernel<T> {
    pub(super) walk: Walk<T>,
    pub(super) thin: usize,
    adjusted: bool,
    pub(super) iterations: Iterations,
}

impl<T: Element> MclmcKernel<T> {
    /// The kernel of one chain in `dim` dimensions; the control chain takes half the step.
    pub fn new(spec: &Mclmc, adapted: &Adapted, role: Role, dim: usize) -> Self {
        let adjusted = spec.is_adjusted(dim);
        let (shrink, draws) = match role {
            Role::Main => (1.0, spec.draws),
            Role::Control => (0.5, control_draws(spec.draws)),
        };
        let thin = match (adjusted, role) {
            (true, _) => 1,
            (false, Role::Main) => spec.thin(adapted),
            (false, Role::Control) => 2 * spec.thin(adapted),
        };
        Self {
            walk: Walk {
                integrator: spec.integrator,
                step_size: shrink * adapted.step_size,
                length: adapted.length.unwrap_or((dim as f64).sqrt()),
                scales: adapted.inverse_mass.iter().map(|v| T::from_f64(v.sqrt())).collect(),
            },
            thin,
            adjusted,
            iterations: Iterations::dropping(BURN_IN_DRAWS, draws).thinned(thin),
        }
    }
}

/// How far a step goes, and in which scales.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Walk<T> {
    pub(super) integrator: Integrator,
    pub(super) step_size: f64,
    pub(super) length: f64,
    pub(super) scales: Vec<T>,
}

/// Where a chain is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State<T> {
    w: Vec<T>,
    /// Direction, of length 1; zeros before the first step.
    u: Vec<T>,
    grad: Vec<T>,
    energy: f64,
    loss: f64,
    fge: f64,
    /// Energy errors since the last draw.
    error: f64,
    /// Whether the last step was taken back.
    diverged: bool,
}

impl<T> State<T> {
    /// A chain right after a draw, with direction `u`.
    pub(super) fn after_draw(at: leapfrog::State<T>, u: Vec<T>, diverged: bool) -> Self {
        let leapfrog::State { w, grad, energy, loss, fge } = at;
        Self { w, u, grad, energy, loss, fge, error: 0.0, diverged }
    }
}

impl<T: Element> Walk<T> {
    /// One unadjusted step with its refreshment. A step that ends in no number, or far off the energy,
    /// is taken back and the direction drawn anew; returns the energy error.
    fn unadjusted(
        &self,
        posterior: &Posterior<'_, T>,
        state: &mut State<T>,
        iteration: u64,
        key: &Key,
        scratch: &mut Scratch<T>,
    ) -> f64 {
        let mut rng = key.at(iteration);
        if iteration == 0 || state.diverged {
            draw_direction(&mut rng, &mut state.u);
        }
        scratch.w.copy_from_slice(&state.w);
        scratch.grad.copy_from_slice(&state.grad);
        let energy = Energy { potential: state.energy, loss: state.loss };
        let mut walker = Walker { w: &mut scratch.w, u: &mut state.u, grad: &mut scratch.grad, energy };
        let by = (self.integrator, self.step_size);
        let error = isokinetic_step(posterior, &mut walker, &self.scales, by, &mut scratch.potential);
        let energy = walker.energy;
        state.fge += gradients(self.integrator);
        state.diverged = has_diverged(error.abs());
        if !state.diverged {
            std::mem::swap(&mut state.w, &mut scratch.w);
            std::mem::swap(&mut state.grad, &mut scratch.grad);
            (state.energy, state.loss) = (energy.potential, energy.loss);
            refresh(&mut rng, &mut state.u, &mut scratch.p, self.step_size, self.length);
        }
        error
    }

    /// One trajectory from a fresh direction, accepted or rejected; returns its acceptance
    /// probability. Step and length are drawn anew, as in `hmc`.
    fn adjusted(
        &self,
        posterior: &Posterior<'_, T>,
        state: &mut State<T>,
        iteration: u64,
        key: &Key,
        scratch: &mut Scratch<T>,
    ) -> f64 {
        let mut rng = key.at(iteration);
        draw_direction(&mut rng, &mut state.u);
        // Steps of mean 0.6·ε, L/ε of them in the mean: as long as 0.6·L in the mean.
        let steps = (self.length / self.step_size).round().clamp(1.0, 1e4) as usize;
        let step = self.step_size * (SHORTEST + (1.0 - SHORTEST) * uniform(&mut rng));
        let count = 1 + index(&mut rng, 2 * steps - 1);
        let threshold = uniform(&mut rng);
        scratch.w.copy_from_slice(&state.w);
        scratch.grad.copy_from_slice(&state.grad);
        let energy = Energy { potential: state.energy, loss: state.loss };
        let mut walker = Walker { w: &mut scratch.w, u: &mut state.u, grad: &mut scratch.grad, energy };
        let (error, taken) = self.fly(posterior, &mut walker, (step, count), &mut scratch.potential);
        let energy = walker.energy;
        state.fge += gradients(self.integrator) * taken as f64;
        state.error = error;
        state.diverged = has_diverged(error);
        // Beyond the bound of a divergence the exponential is 0 in any case.
        let acceptance = if state.diverged { 0.0 } else { libm::exp(-error).min(1.0) };
        if threshold < acceptance {
            std::mem::swap(&mut state.w, &mut scratch.w);
            std::mem::swap(&mut state.grad, &mut scratch.grad);
            (state.energy, state.loss) = (energy.potential, energy.loss);
        }
        acceptance
    }

    /// `count` steps of length `step`; returns the energy error of the whole and the steps taken.
    ///
    /// It ends early only where the error is no number: the same points are then met from the other end, so
    /// that neither end proposes the other. A large error on the way is no reason: from the other end it
    /// is another error, and stopping at a bound would let one end propose what the other does not.
    fn fly(
        &self,
        posterior: &Posterior<'_, T>,
        walker: &mut Walker<'_, T>,
        (step, count): (f64, usize),
        scratch: &mut [T],
    ) -> (f64, usize) {
        let (mut error, mut taken) = (0.0, 0);
        while taken < count && f64::is_finite(error) {
            error += isokinetic_step(posterior, walker, &self.scales, (self.integrator, step), scratch);
            taken += 1;
        }
        (error, taken)
    }
}

fn start<T: Element>(
    posterior: &Posterior<'_, T>,
    scratch: &mut Scratch<T>,
) -> Result<State<T>, SamplerError> {
    if posterior.dim() < 2 {
        return Err(SamplerError::Dimension { sampler: "mclmc", dim: posterior.dim() });
    }
    let at = leapfrog::State::start(posterior, scratch)?;
    let u = vec![T::ZERO; at.w.len()];
    Ok(State::after_draw(at, u, false))
}

impl<T: Element> Kernel<T> for MclmcKernel<T> {
    type State = State<T>;

    fn layout(&self) -> Vec<Column> {
        layout()
    }

    fn iterations(&self) -> Iterations {
        self.iterations
    }

    fn start(
        &self,
        posterior: &Posterior<'_, T>,
        scratch: &mut Scratch<T>,
    ) -> Result<State<T>, SamplerError> {
        start(posterior, scratch)
    }

    fn step(
        &self,
        posterior: &Posterior<'_, T>,
        state: &mut State<T>,
        iteration: u64,
        key: &Key,
        scratch: &mut Scratch<T>,
        row: &mut [f64],
    ) -> Result<bool, SamplerError> {
        let mut fill = |state: &State<T>, acceptance: f64, diverged: bool| {
            let marks = f64::from(u8::from(diverged));
            row.copy_from_slice(&[
                posterior.llc(state.loss),
                state.loss,
                acceptance,
                state.error,
                marks,
                state.fge,
            ]);
        };
        if self.adjusted {
            let acceptance = self.walk.adjusted(posterior, state, iteration, key, scratch);
            fill(state, acceptance, state.diverged);
            return Ok(true);
        }
        let error = self.walk.unadjusted(posterior, state, iteration, key, scratch);
        state.error += error;
        let kept = (iteration + 1).is_multiple_of(self.thin as u64);
        if kept {
            // Every move is kept; a draw is marked where some step since the last was taken back.
            fill(state, 1.0, has_diverged(state.error.abs()));
            state.error = 0.0;
        }
        Ok(kept)
    }

    fn fge(&self, state: &State<T>) -> f64 {
        state.fge
    }
}

/// Columns of the trace; `energy_error` is the sum over the steps of a draw, or a trajectory's.
pub(super) fn layout() -> Vec<Column> {
    vec![
        Column::posterior("llc"),
        Column::posterior("L"),
        Column::stat("acceptance_rate", Kind::Float),
        Column::stat("energy_error", Kind::Float),
        Column::stat("diverging", Kind::Bool),
        Column::stat("cumulative_fge", Kind::Float),
    ]
}

impl Mclmc {
    pub(super) fn is_adjusted(&self, dim: usize) -> bool {
        self.adjusted.unwrap_or(dim < FEW_DIMENSIONS)
    }

    /// Steps of the three phases.
    fn phases(&self) -> [usize; 3] {
        [self.frac_tune1, self.frac_tune2, self.frac_tune3].map(|frac| match self.num_steps {
            0 => 0,
            _ if frac == 0.0 => 0,
            steps => ((frac * steps as f64).ceil() as usize).max(SHORTEST_PHASE),
        })
    }

    fn thin(&self, adapted: &Adapted) -> usize {
        let length = adapted.length.unwrap_or(adapted.step_size);
        self.thin.unwrap_or_else(|| (0.5 * length / adapted.step_size).round().clamp(1.0, 1e4) as usize)
    }
}

impl Method for Mclmc {
    type Kernel<T: Element> = MclmcKernel<T>;

    fn layout(&self) -> Vec<Column> {
        layout()
    }

    fn is_exact(&self, dim: usize) -> bool {
        self.is_adjusted(dim)
    }

    /// The bias is of second order in the step.
    fn bias_at_half_step(&self) -> Option<f64> {
        Some(0.25)
    }

    fn work(&self, _rows: usize, dim: usize) -> Work {
        let a_step = gradients(self.integrator);
        let steps = self.thin.unwrap_or(TYPICAL_THIN) as f64 * a_step;
        let tuning = self.phases().iter().sum::<usize>() as f64;
        let control = 2.0 * steps;
        Work {
            warmup: tuning * if self.is_adjusted(dim) { steps } else { a_step },
            chain: steps * (BURN_IN_DRAWS + self.draws) as f64,
            control: control * (BURN_IN_DRAWS + control_draws(self.draws)) as f64,
        }
    }

    fn warmup<T: Element>(
        &self,
        posterior: &Posterior<'_, T>,
        id: [u8; 32],
        desk: &mut Desk<'_>,
    ) -> Result<Adapted, SamplerError> {
        let d = posterior.dim();
        let mut scratch = Scratch::plain(posterior);
        let key = Key::new(id, Purpose::Warmup, 0);
        let (walk, state) = desk.stage(|desk| self.tune(posterior, &key, &mut scratch, desk))?;
        let mut adapted = Adapted {
            step_size: walk.step_size,
            length: Some(walk.length),
            inverse_mass: walk.scales.iter().map(|s| s.to_f64() * s.to_f64()).collect(),
            fge: state.fge,
            ..Adapted::default()
        };
        if !self.is_adjusted(d) {
            let probe = Key::new(id, Purpose::Probe, 0);
            let (nodes, work) = desk.stage(|_| {
                Ok::<_, SamplerError>(spectrum(posterior, &state.w, &walk.scales, &probe, 0, &mut scratch))
            })?;
            adapted.fge += work;
            // γ in the scaled coordinates, in the mean: they are all one where the scales are.
            let gamma = posterior.gamma() * adapted.inverse_mass.iter().sum::<f64>() / d as f64;
            let left = |step: f64| {
                let time = step * step / d as f64;
                let modes: Vec<(f64, f64)> =
                    nodes.iter().map(|(h, weight)| (time * (h.max(0.0) + gamma), *weight)).collect();
                variance_excess(walk.integrator, &modes, kept_share(step, walk.length))
            };
            let size = |e: &f64| if e.is_finite() { e.abs() } else { f64::INFINITY };
            let worst = |excess: &[f64]| excess.iter().map(size).fold(0.0, f64::max);
            let mut excess = left(adapted.step_size);
            for _ in 0..MOST_SHORTENINGS {
                if self.num_steps == 0 || worst(&excess) <= MOST_EXCESS {
                    break;
                }
                adapted.step_size *= SHORTEN;
                excess = left(adapted.step_size);
            }
            adapted.bias_bound = Some(worst(&excess));
            let share = |h: f64| h.max(0.0) / (h.max(0.0) + gamma).max(f64::MIN_POSITIVE);
            let sum: f64 = excess.iter().zip(&nodes).map(|(e, (h, weight))| e * weight * share(*h)).sum();
            adapted.bias = Some(0.5 * d as f64 * sum);
        }
        Ok(adapted)
    }

    fn kernel<T: Element>(
        &self,
        posterior: &Posterior<'_, T>,
        adapted: &Adapted,
        role: Role,
    ) -> MclmcKernel<T> {
        MclmcKernel::new(self, adapted, role, posterior.dim())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Potential;

    /// L = w₀⁴.
    struct Valley;

    impl Potential<f64> for Valley {
        fn dim(&self) -> usize {
            101
        }
        fn rows(&self) -> usize {
            0
        }
        fn scratch_len(&self) -> usize {
            0
        }
        fn batch_scratch_len(&self, _: usize) -> usize {
            0
        }
        fn hvp(&self, w: &[f64], v: &[f64], _: Option<&[u32]>, hv: &mut [f64], _: &mut [f64]) {
            hv.fill(0.0);
            hv[0] = 12.0 * w[0] * w[0] * v[0];
        }
        fn hvp_scratch_len(&self) -> usize {
            0
        }
        fn loss(&self, w: &[f64], _: &mut [f64]) -> f64 {
            w[0].powi(4)
        }
        fn loss_grad(&self, w: &[f64], grad: &mut [f64], scratch: &mut [f64]) -> f64 {
            grad.fill(0.0);
            grad[0] = 4.0 * w[0].powi(3);
            self.loss(w, scratch)
        }
        fn batch_loss_grad(&self, w: &[f64], _: &[u32], grad: &mut [f64], scratch: &mut [f64]) -> f64 {
            self.loss_grad(w, grad, scratch)
        }
    }

    /// A flight of three steps from w₀ = `from` straight across the valley: its error and steps taken.
    fn across(from: f64) -> (f64, usize) {
        let centre = [0.0; 101];
        let posterior = Posterior::new(&Valley, &centre, 1e3, 1e-9).expect("finite");
        let (mut w, mut u, mut grad) = (vec![0.0; 101], vec![0.0; 101], vec![0.0; 101]);
        (w[0], u[0]) = (from, 1.0);
        let energy = posterior.energy_grad(&w, &mut grad, &mut []);
        let mut walker = Walker { w: &mut w, u: &mut u, grad: &mut grad, energy };
        let integrator = Integrator::IsokineticVelocityVerlet;
        let walk = Walk { integrator, step_size: 1.0, length: 3.0, scales: vec![1.0; 101] };
        walk.fly(&posterior, &mut walker, (1.0, 3), &mut [])
    }

    /// From −1.5 to −0.5 the kicks add ½·nβ·(|L'(−1.5)| + |L'(−0.5)|) = 7000 and the loss takes nβ·5 =
    /// 5000 away: an error of 2000, which the mirrored third step undoes.
    #[test]
    fn an_adjusted_trajectory_goes_on_past_an_error_that_mends() {
        let (error, taken) = across(-1.5);
        assert_eq!(taken, 3);
        assert!(error.abs() < 1e-6, "{error}");
        let (error, taken) = across(f64::MAX);
        assert_eq!(taken, 1);
        assert!(!error.is_finite() && has_diverged(error), "{error}");
    }
}
