//! Stochastic-gradient Hamiltonian Monte Carlo (Chen, Fox & Guestrin 2014, eq. 15, with β̂ = 0).
//!
//! v ← (1 − α)v − η∇Ũ(w) + √(2αη)·ξ, w ← w + v; η is `step_size`, α `friction`.
//!
//! On a mode of curvature a with gradients of variance V this is an AR(2) process of variance
//! (1/a)·(1 + ηV/(2α))/(1 − ηa/(2(2 − α))): noise counts as in Langevin dynamics with ε = 2η/α, which
//! moves as fast, curvature less.

use serde::{Deserialize, Serialize};

use super::calibrate::{self, Landscape, StepRule};
use super::chain::{Iterations, Kernel, Scratch};
use super::posterior::Posterior;
use super::stochastic::{self, Lengths, batch_cost, layout};
use super::{Adapted, Method, Role, SamplerError, Work};
use crate::config::Sghmc;
use crate::device::{Element, fill_normal};
use crate::num::rng::Key;
use crate::resume::Desk;
use crate::trace::Column;

/// SGHMC ready to run one chain.
#[derive(Debug)]
pub struct SghmcKernel<T> {
    spec: Sghmc,
    step_size: f64,
    step: T,
    keep: T,
    noise: T,
    nbeta: T,
    gamma: T,
    step_cost: f64,
}

/// Where a chain is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State<T> {
    pub(super) w: Vec<T>,
    pub(super) v: Vec<T>,
    pub(super) fge: f64,
}

impl<T: Element> State<T> {
    /// A chain at w*.
    pub(super) fn at(centre: &[T]) -> Self {
        Self { w: centre.to_vec(), v: vec![T::ZERO; centre.len()], fge: 0.0 }
    }
}

impl<T: Element> Kernel<T> for SghmcKernel<T> {
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

    fn start(&self, posterior: &Posterior<'_, T>, _: &mut Scratch<T>) -> Result<State<T>, SamplerError> {
        Ok(State::at(posterior.centre()))
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
        let at = (iteration, self.step_size);
        let batch_loss = stochastic::gradient(posterior, &state.w, at, scratch)?;
        state.fge += self.step_cost;
        let places = state.w.iter_mut().zip(&mut state.v).zip(posterior.centre());
        for (((w, v), &c), (&g, &xi)) in places.zip(scratch.grad.iter().zip(&scratch.p)) {
            let force = self.gamma * (*w - c) + self.nbeta * g;
            *v = self.keep * *v - self.step * force + self.noise * xi;
            *w += *v;
        }
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

pub(super) fn lengths(spec: &Sghmc) -> Lengths {
    Lengths { steps: spec.steps, warmup: spec.warmup, eval_every: spec.eval_every }
}

/// The AR(2) process of a mode; α is the field.
struct Rule(f64);

impl StepRule for Rule {
    fn mode_bias(&self, step: f64, stiff: f64, noise: f64) -> f64 {
        let shrink = 1.0 - 0.5 * step * stiff / (2.0 - self.0);
        if shrink > 0.0 { (1.0 + 0.5 * step * noise / self.0) / shrink - 1.0 } else { f64::INFINITY }
    }

    fn excess(&self, step: f64, trace: f64, noise: f64, _share: f64) -> f64 {
        0.25 * step * (trace / (2.0 - self.0) + noise / self.0)
    }

    fn langevin_step(&self, step: f64) -> f64 {
        step
    }
}

impl Method for Sghmc {
    type Kernel<T: Element> = SghmcKernel<T>;

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
    ) -> SghmcKernel<T> {
        let step_size = stochastic::step_of(role, adapted.step_size);
        SghmcKernel {
            spec: self.clone(),
            step_size,
            step: T::from_f64(step_size),
            keep: T::from_f64(1.0 - self.friction),
            noise: T::from_f64((2.0 * self.friction * step_size).sqrt()),
            nbeta: T::from_f64(posterior.nbeta()),
            gamma: T::from_f64(posterior.gamma()),
            step_cost: posterior.potential().batch_cost(self.batch_size),
        }
    }
}
