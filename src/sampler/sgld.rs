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
//! Local Posterior Sampling"; Welling & Teh 2011 for the plain form). No correction term for the
//! change of the preconditioner is added: rmsprop and adam are biased however small the step.

use serde::{Deserialize, Serialize};

use super::chain::{Iterations, Kernel, Scratch};
use super::{Posterior, SamplerError};
use crate::config::{Precond, Sgld};
use crate::num::Real;
use crate::num::rng::{Key, fill_index, fill_normal};
use crate::trace::{Column, Kind};

/// Work of a loss without gradient, in gradients.
const LOSS_COST: f64 = 1.0 / 3.0;

/// SGLD ready to run one chain.
#[derive(Debug)]
pub struct SgldKernel<T> {
    spec: Sgld,
    half_step: T,
    root_step: T,
    beta1: T,
    beta2: T,
    eps: T,
    nbeta: T,
    gamma: T,
    batch_cost: f64,
}

/// Where a chain is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State<T> {
    w: Vec<T>,
    /// M and V; empty where the preconditioner has none.
    first: Vec<T>,
    second: Vec<T>,
    /// β1ᵗ and β2ᵗ.
    powers: (f64, f64),
    fge: f64,
}

impl<T: Real> State<T> {
    /// The present parameters.
    pub fn w(&self) -> &[T] {
        &self.w
    }
}

impl<T: Real> SgldKernel<T> {
    /// The kernel for a posterior.
    pub fn new(spec: &Sgld, posterior: &Posterior<'_, T>) -> Self {
        Self {
            spec: spec.clone(),
            half_step: T::from_f64(0.5 * spec.step_size),
            root_step: T::from_f64(spec.step_size.sqrt()),
            beta1: T::from_f64(spec.beta1),
            beta2: T::from_f64(spec.beta2),
            eps: T::from_f64(spec.eps),
            nbeta: T::from_f64(posterior.nbeta()),
            gamma: T::from_f64(posterior.gamma()),
            batch_cost: posterior.potential().batch_cost(spec.batch_size),
        }
    }

    /// The gradient of a minibatch, into `scratch.grad`, and the noise, into `scratch.p`.
    fn draw(
        &self,
        posterior: &Posterior<'_, T>,
        w: &[T],
        iteration: u64,
        key: &Key,
        scratch: &mut Scratch<T>,
    ) -> f64 {
        let mut rng = key.at(iteration);
        let rows = posterior.potential().rows();
        fill_index(&mut rng, rows, &mut scratch.rows);
        fill_normal(&mut rng, &mut scratch.p);
        posterior.potential().batch_loss_grad(w, &scratch.rows, &mut scratch.grad, &mut scratch.potential)
    }

    fn update(&self, posterior: &Posterior<'_, T>, state: &mut State<T>, scratch: &Scratch<T>) {
        let centre = posterior.centre();
        let parameters = state.w.iter_mut().zip(centre).zip(&scratch.grad).zip(&scratch.p);
        if self.spec.precond == Precond::None {
            for (((w, &c), &g), &eta) in parameters {
                let drift = self.gamma * (*w - c) + self.nbeta * g;
                *w = *w - self.half_step * drift + self.root_step * eta;
            }
            return;
        }
        state.powers.0 *= self.spec.beta1;
        state.powers.1 *= self.spec.beta2;
        let correct = |power: f64| if self.spec.bias_correction { 1.0 / (1.0 - power) } else { 1.0 };
        let (scale1, scale2) = (T::from_f64(correct(state.powers.0)), T::from_f64(correct(state.powers.1)));
        let adam = self.spec.precond == Precond::Adam;
        // rmsprop keeps no first moment: its own second moment stands in, unread.
        for (i, (((w, &c), &g), &eta)) in parameters.enumerate() {
            let v = &mut state.second[i];
            *v = self.beta2 * *v + (T::ONE - self.beta2) * g * g;
            let shrink = T::ONE / ((*v * scale2).sqrt() + self.eps);
            let direction = if adam {
                let m = &mut state.first[i];
                *m = self.beta1 * *m + (T::ONE - self.beta1) * g;
                *m * scale1
            } else {
                g
            };
            let drift = self.gamma * (*w - c) + self.nbeta * direction;
            *w = *w - self.half_step * shrink * drift + self.root_step * shrink.sqrt() * eta;
        }
    }
}

impl<T: Real> Kernel<T> for SgldKernel<T> {
    type State = State<T>;

    fn layout(&self) -> Vec<Column> {
        layout()
    }

    fn batch(&self) -> usize {
        self.spec.batch_size
    }

    fn iterations(&self) -> Iterations {
        let Sgld { steps, warmup, eval_every, .. } = self.spec;
        Iterations {
            burn_in: warmup,
            total: steps,
            draws: (steps / eval_every - warmup / eval_every) as usize,
        }
    }

    fn start(&self, posterior: &Posterior<'_, T>, _: &mut Scratch<T>) -> Result<State<T>, SamplerError> {
        let d = posterior.dim();
        let moments = |needed: bool, value: T| if needed { vec![value; d] } else { Vec::new() };
        Ok(State {
            w: posterior.centre().to_vec(),
            first: moments(self.spec.precond == Precond::Adam, T::ZERO),
            second: moments(self.spec.precond != Precond::None, T::ONE),
            powers: (1.0, 1.0),
            fge: 0.0,
        })
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
        let batch_loss = self.draw(posterior, &state.w, iteration, key, scratch);
        state.fge += self.batch_cost;
        let overflow =
            |loss: f64| SamplerError::Overflow { step: iteration, step_size: self.spec.step_size, loss };
        if !batch_loss.is_finite() {
            return Err(overflow(batch_loss));
        }
        self.update(posterior, state, scratch);
        let kept = (iteration + 1).is_multiple_of(self.spec.eval_every) && iteration >= self.spec.warmup;
        if kept {
            let loss = posterior.potential().loss(&state.w, &mut scratch.potential);
            if !loss.is_finite() {
                return Err(overflow(loss));
            }
            state.fge += LOSS_COST;
            row.copy_from_slice(&[posterior.llc(loss), loss, batch_loss, state.fge]);
        }
        Ok(kept)
    }

    fn fge(&self, state: &State<T>) -> f64 {
        state.fge
    }
}

/// Columns of an SGLD trace. `batch_loss` is the loss of the last minibatch before the draw.
pub fn layout() -> Vec<Column> {
    vec![
        Column::posterior("llc"),
        Column::posterior("L"),
        Column::stat("batch_loss", Kind::Float),
        Column::stat("cumulative_fge", Kind::Float),
    ]
}
