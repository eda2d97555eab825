//! Stochastic-gradient Langevin dynamics, plain and preconditioned.
//!
//! With g_t the gradient of the minibatch mean loss (rows drawn with replacement):
//!
//! Δw = −(ε_t/2)·(γ(w − w*) + nβ·ĝ_t) + √ε_t·η,  η ~ N(0, I)
//!
//! | precond | ε_t | ĝ_t |
//! |---|---|---|
//! | none | ε | g_t |
//! | rmsprop | ε/(√V̂_t + a) | g_t |
//! | adam | ε/(√V̂_t + a) | M̂_t |
//!
//! V_t = β2 V_{t−1} + (1−β2) g_t², V₀ = 1; M_t = β1 M_{t−1} + (1−β1) g_t, M₀ = 0; with bias
//! correction V̂_t = V_t/(1−β2ᵗ), M̂_t = M_t/(1−β1ᵗ). Moments are of the loss gradient only, not of
//! the localiser's (Hitchcock & Hoogland 2025, "From Global to Local: A Scalable Benchmark for
//! Local Posterior Sampling"; Welling & Teh 2011 for the plain form). Without the drift that a
//! preconditioner which depends on w calls for, rmsprop and adam are biased however small the step.
//!
//! `gamma_term` adds that drift (Li et al. 2016, eq. 7): (ε/2)·∂G_i/∂w_i with G = 1/(√V̂ + a), where
//! ∂V_i/∂w_i is the running mean of 2g_iH_ii, H_ii estimated as z_i(Hz)_i over random signs z. The
//! running mean follows w, so that its whole derivative counts, not only the newest term's share.
//! `freeze_precond` keeps V̂ as it is at the end of the burn-in.

use serde::{Deserialize, Serialize};

use super::calibrate::{self, Landscape, StepRule};
use super::chain::{Iterations, Kernel, Scratch};
use super::curvature::{HVP_COST, signs};
use super::posterior::Posterior;
use super::stochastic::{self, Lengths, batch_cost, layout};
use super::{Adapted, Method, Role, SamplerError, Work};
use crate::config::{Precond, Sgld};
use crate::device::{Arith, Element, fill_normal};
use crate::num::rng::Key;
use crate::resume::Desk;
use crate::trace::Column;

/// SGLD ready to run one chain.
#[derive(Debug)]
pub struct SgldKernel<T> {
    spec: Sgld,
    step_size: f64,
    half_step: T,
    root_step: T,
    beta1: T,
    beta2: T,
    eps: T,
    nbeta: T,
    gamma: T,
    step_cost: f64,
}

/// Where a chain is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State<T> {
    pub(super) w: Vec<T>,
    /// M and V; empty where the preconditioner has none.
    pub(super) first: Vec<T>,
    pub(super) second: Vec<T>,
    /// Running mean of g_i·H_ii; empty without `gamma_term`.
    cross: Vec<T>,
    /// β1ᵗ and β2ᵗ.
    pub(super) powers: (f64, f64),
    pub(super) fge: f64,
}

impl<T: Element> State<T> {
    /// A chain at w*.
    pub(super) fn at(centre: &[T], spec: &Sgld) -> Self {
        let moments = |needed: bool, value: T| if needed { vec![value; centre.len()] } else { Vec::new() };
        Self {
            w: centre.to_vec(),
            first: moments(spec.precond == Precond::Adam, T::ZERO),
            second: moments(spec.precond != Precond::None, T::ONE),
            cross: moments(spec.gamma_term, T::ZERO),
            powers: (1.0, 1.0),
            fge: 0.0,
        }
    }
}

impl<T: Element> SgldKernel<T> {
    /// The kernel for a posterior, with the step size that the settings give or warmup found.
    pub fn new(spec: &Sgld, step_size: f64, posterior: &Posterior<'_, T>) -> Self {
        let batch = posterior.potential().batch_cost(spec.batch_size);
        Self {
            spec: spec.clone(),
            step_size,
            half_step: T::from_f64(0.5 * step_size),
            root_step: T::from_f64(step_size.sqrt()),
            beta1: T::from_f64(spec.beta1),
            beta2: T::from_f64(spec.beta2),
            eps: T::from_f64(spec.eps),
            nbeta: T::from_f64(posterior.nbeta()),
            gamma: T::from_f64(posterior.gamma()),
            step_cost: if spec.gamma_term { (1.0 + HVP_COST) * batch } else { batch },
        }
    }

    #[inline(always)]
    fn update(&self, posterior: &Posterior<'_, T>, state: &mut State<T>, scratch: &Scratch<T>, frozen: bool) {
        let centre = posterior.centre();
        let parameters = state.w.iter_mut().zip(centre).zip(&scratch.grad).zip(&scratch.p);
        if self.spec.precond == Precond::None {
            for (((w, &c), &g), &eta) in parameters {
                let drift = self.gamma * (*w - c) + self.nbeta * g;
                *w = *w - self.half_step * drift + self.root_step * eta;
            }
            return;
        }
        if !frozen {
            state.powers.0 *= self.spec.beta1;
            state.powers.1 *= self.spec.beta2;
        }
        let correct = |power: f64| if self.spec.bias_correction { 1.0 / (1.0 - power) } else { 1.0 };
        let (scale1, scale2) = (T::from_f64(correct(state.powers.0)), T::from_f64(correct(state.powers.1)));
        let adam = self.spec.precond == Precond::Adam;
        for (i, (((w, &c), &g), &eta)) in parameters.enumerate() {
            let v = &mut state.second[i];
            if !frozen {
                *v = self.beta2 * *v + (T::ONE - self.beta2) * g * g;
            }
            let root = (*v * scale2).sqrt();
            let shrink = T::ONE / (root + self.eps);
            let direction = if adam {
                let m = &mut state.first[i];
                *m = self.beta1 * *m + (T::ONE - self.beta1) * g;
                *m * scale1
            } else {
                g
            };
            let mut drift = shrink * (self.gamma * (*w - c) + self.nbeta * direction);
            if let Some(cross) = state.cross.get_mut(i) {
                let [z, hz] = [scratch.extra[0][i], scratch.extra[1][i]];
                *cross = self.beta2 * *cross + (T::ONE - self.beta2) * g * z * hz;
                if root > T::ZERO {
                    drift += shrink * shrink * *cross * scale2 / root;
                }
            }
            *w = *w - self.half_step * drift + self.root_step * shrink.sqrt() * eta;
        }
    }
}

impl<T: Element> Kernel<T> for SgldKernel<T> {
    type State = State<T>;

    fn layout(&self) -> Vec<Column> {
        layout()
    }

    fn batch(&self) -> usize {
        self.spec.batch_size
    }

    fn extra(&self, dim: usize) -> Vec<usize> {
        vec![if self.spec.gamma_term { dim } else { 0 }; 2]
    }

    fn iterations(&self) -> Iterations {
        lengths(&self.spec).iterations()
    }

    fn start(&self, posterior: &Posterior<'_, T>, _: &mut Scratch<T>) -> Result<State<T>, SamplerError> {
        Ok(State::at(posterior.centre(), &self.spec))
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
        if self.spec.gamma_term {
            let Scratch { extra, rows, potential, .. } = &mut *scratch;
            if let [z, hz] = &mut extra[..] {
                signs(&mut rng, z);
                posterior.potential().hvp(&state.w, z, Some(rows), hz, potential);
            }
        }
        state.fge += self.step_cost;
        let frozen = self.spec.freeze_precond && iteration >= self.spec.warmup;
        Arith::current().run(
            #[inline(always)]
            || self.update(posterior, state, scratch, frozen),
        );
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

pub(super) fn lengths(spec: &Sgld) -> Lengths {
    Lengths { steps: spec.steps, warmup: spec.warmup, eval_every: spec.eval_every }
}

/// Langevin dynamics without a preconditioner.
struct Rule;

impl StepRule for Rule {
    fn mode_bias(&self, step: f64, stiff: f64, noise: f64) -> f64 {
        let shrink = 1.0 - 0.25 * step * stiff;
        if shrink > 0.0 { (1.0 + 0.25 * step * noise) / shrink - 1.0 } else { f64::INFINITY }
    }

    fn excess(&self, step: f64, trace: f64, noise: f64, _share: f64) -> f64 {
        0.125 * step * (trace + noise)
    }

    fn langevin_step(&self, step: f64) -> f64 {
        step
    }
}

impl Method for Sgld {
    type Kernel<T: Element> = SgldKernel<T>;

    fn layout(&self) -> Vec<Column> {
        layout()
    }

    /// The bias is of first order in the step.
    fn bias_at_half_step(&self) -> Option<f64> {
        Some(0.5)
    }

    fn work(&self, rows: usize, _dim: usize) -> Work {
        let cost = batch_cost(self.batch_size, rows) * if self.gamma_term { 1.0 + HVP_COST } else { 1.0 };
        lengths(self).work(cost, if self.precond == Precond::None { calibrate::WORK } else { 0.0 })
    }

    /// Preconditioned chains are left without a prediction of their bias.
    fn warmup<T: Element>(
        &self,
        posterior: &Posterior<'_, T>,
        id: [u8; 32],
        desk: &mut Desk<'_>,
    ) -> Result<Adapted, SamplerError> {
        if let (Some(step_size), Precond::Rmsprop | Precond::Adam) = (self.step_size, self.precond) {
            return Ok(Adapted { step_size, ..Adapted::default() });
        }
        let landscape = Landscape::survey(posterior, self.batch_size, id, desk)?;
        landscape.adapt(posterior, self.step_size, &Rule, id, desk)
    }

    fn kernel<T: Element>(
        &self,
        posterior: &Posterior<'_, T>,
        adapted: &Adapted,
        role: Role,
    ) -> SgldKernel<T> {
        SgldKernel::new(self, stochastic::step_of(role, adapted.step_size), posterior)
    }
}
