//! The stochastic-gradient Nosé–Hoover thermostat (Ding et al. 2014): the friction ξ itself moves,
//! so that the kinetic energy is right whatever noise the gradients carry.
//!
//! dw = p dt, dp = −∇Ũ dt − ξp dt + √(2A) dB, dξ = (pᵀp/d − 1)dt/μ, integrated by the symmetric
//! splitting BADODAB of Leimkuhler & Shang 2016: half a kick, half a drift, half a change of ξ, the
//! exact Ornstein–Uhlenbeck step, and back; one gradient a step, since both half kicks at a point use
//! the same. At fixed ξ it samples quadratic modes without error at every stable step. In units of a
//! step: h² is `step_size`, A·h `friction`, and μ is such that ξ settles in 100 steps.

use serde::{Deserialize, Serialize};

use super::calibrate::{self, Landscape, StepRule};
use super::chain::{Iterations, Kernel, Scratch};
use super::posterior::Posterior;
use super::stochastic::{self, Lengths, batch_cost, layout};
use super::{Adapted, Method, Role, SamplerError, Work};
use crate::config::Sgnht;
use crate::device::{Element, fill_normal};
use crate::num::rng::Key;
use crate::num::sum_of;
use crate::resume::Desk;
use crate::trace::Column;

/// Steps in which the friction settles.
const SETTLING_STEPS: f64 = 100.0;

/// SGNHT ready to run one chain.
#[derive(Debug)]
pub struct SgnhtKernel<T> {
    spec: Sgnht,
    step_size: f64,
    /// h/2
    half: T,
    nbeta: T,
    gamma: T,
    step_cost: f64,
}

/// Where a chain is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State<T> {
    pub(super) w: Vec<T>,
    pub(super) p: Vec<T>,
    /// The last minibatch's ∇Ũ(w).
    pub(super) force: Vec<T>,
    /// ξ·h
    pub(super) friction: f64,
    pub(super) fge: f64,
}

impl<T: Element> State<T> {
    /// A chain at w*, where ∇U is `force`.
    pub(super) fn at(centre: &[T], force: Vec<T>, spec: &Sgnht) -> Self {
        let p = vec![T::ZERO; centre.len()];
        Self { w: centre.to_vec(), p, force, friction: spec.friction, fge: 1.0 }
    }
}

impl<T: Element> SgnhtKernel<T> {
    /// Half a change of the friction.
    fn warm(&self, state: &mut State<T>) {
        let temperature = sum_of(&state.p, &state.p, |p, _| p * p) / state.p.len() as f64;
        state.friction += 0.5 * self.spec.friction / SETTLING_STEPS * (temperature - 1.0);
    }

    fn kick(&self, state: &mut State<T>) {
        state.p.iter_mut().zip(&state.force).for_each(|(p, &f)| *p -= self.half * f);
    }

    fn drift(&self, state: &mut State<T>) {
        state.w.iter_mut().zip(&state.p).for_each(|(w, &p)| *w += self.half * p);
    }
}

impl<T: Element> Kernel<T> for SgnhtKernel<T> {
    type State = State<T>;

    fn layout(&self) -> Vec<Column> {
        layout()
    }

    fn batch(&self) -> usize {
        self.spec.batch_size
    }

    fn iterations(&self) -> Iterations {
        lengths(&self.spec).iterations()
    }

    fn start(
        &self,
        posterior: &Posterior<'_, T>,
        scratch: &mut Scratch<T>,
    ) -> Result<State<T>, SamplerError> {
        let mut force = vec![T::ZERO; posterior.dim()];
        posterior.energy_grad(posterior.centre(), &mut force, &mut scratch.potential);
        Ok(State::at(posterior.centre(), force, &self.spec))
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
        let mut rng = key.at(iteration);
        stochastic::draw_rows(posterior, &mut rng, scratch);
        fill_normal(&mut rng, &mut scratch.p);
        self.kick(state);
        self.drift(state);
        self.warm(state);
        let x = state.friction;
        // (A/ξ)(1 − e^(−2ξh)), which is 2Ah where ξ vanishes.
        let spread = if x.abs() > 1e-12 { -libm::expm1(-2.0 * x) / x } else { 2.0 };
        let (keep, noise) = (T::from_f64(libm::exp(-x)), T::from_f64((self.spec.friction * spread).sqrt()));
        state.p.iter_mut().zip(&scratch.p).for_each(|(p, &xi)| *p = keep * *p + noise * xi);
        self.warm(state);
        self.drift(state);
        let at = (iteration, self.step_size);
        let batch_loss = stochastic::gradient(posterior, &state.w, at, scratch)?;
        state.fge += self.step_cost;
        let places = state.force.iter_mut().zip(&scratch.grad).zip(state.w.iter().zip(posterior.centre()));
        for ((force, &g), (&w, &c)) in places {
            *force = self.gamma * (w - c) + self.nbeta * g;
        }
        self.kick(state);
        let kept = lengths(&self.spec).keeps(iteration);
        if kept {
            stochastic::fill(posterior, (&state.w, batch_loss, &mut state.fge), at, scratch, row)?;
        }
        Ok(kept)
    }

    fn fge(&self, state: &State<T>) -> f64 {
        state.fge
    }
}

pub(super) fn lengths(spec: &Sgnht) -> Lengths {
    Lengths { steps: spec.steps, warmup: spec.warmup, eval_every: spec.eval_every }
}

/// Curvature is integrated without error up to the stability limit h²a = 4, which the rule keeps as
/// far away as a leapfrog step's energy would; noise is taken up by the friction but for what its
/// directions have above the mean, at most ηV/(2α). The field is α.
struct Rule(f64);

impl StepRule for Rule {
    fn mode_bias(&self, step: f64, stiff: f64, noise: f64) -> f64 {
        let shrink = 1.0 - 0.25 * step * stiff;
        if shrink > 0.0 { (1.0 + 0.5 * step * noise / self.0) / shrink - 1.0 } else { f64::INFINITY }
    }

    /// With V̄ the mean of the directions' noise, the friction leaves Σ s_i(V_i − V̄)·η/(4α); the noise
    /// is where the curvature is, so that Σ s_iV_i is about all of it, and Σ s_iV̄ the share of the stiff
    /// directions.
    fn excess(&self, step: f64, _trace: f64, noise: f64, share: f64) -> f64 {
        0.25 * step * noise * (1.0 - share) / self.0
    }

    fn langevin_step(&self, step: f64) -> f64 {
        step
    }
}

impl Method for Sgnht {
    type Kernel<T: Element> = SgnhtKernel<T>;

    fn layout(&self) -> Vec<Column> {
        layout()
    }

    /// The bias is of first order in the step.
    fn bias_at_half_step(&self) -> Option<f64> {
        Some(0.5)
    }

    fn work(&self, rows: usize, _dim: usize) -> Work {
        lengths(self).work(batch_cost(self.batch_size, rows), calibrate::WORK)
    }

    fn warmup<T: Element>(
        &self,
        posterior: &Posterior<'_, T>,
        id: [u8; 32],
        desk: &mut Desk<'_>,
    ) -> Result<Adapted, SamplerError> {
        let landscape = Landscape::survey(posterior, self.batch_size, id, desk)?;
        landscape.adapt(posterior, self.step_size, &Rule(self.friction), id, desk)
    }

    fn kernel<T: Element>(
        &self,
        posterior: &Posterior<'_, T>,
        adapted: &Adapted,
        role: Role,
    ) -> SgnhtKernel<T> {
        let step_size = stochastic::step_of(role, adapted.step_size);
        SgnhtKernel {
            spec: self.clone(),
            step_size,
            half: T::from_f64(0.5 * step_size.sqrt()),
            nbeta: T::from_f64(posterior.nbeta()),
            gamma: T::from_f64(posterior.gamma()),
            step_cost: posterior.potential().batch_cost(self.batch_size),
        }
    }
}
