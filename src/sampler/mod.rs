//! Samplers of the local posterior: kernels, their adaptation, and the driver of chains.
//!
//! A sampler sees a target through [`Potential`](crate::target::Potential) only. A kernel is
//! serialisable state plus a step whose random numbers are a pure function of (key, iteration);
//! [`ChainRun`] drives any kernel and can be stopped and resumed at every iteration.

mod adapt;
mod bias;
mod chain;
mod hmc;
mod posterior;
mod sgld;
#[cfg(test)]
mod testing;

use serde::{Deserialize, Serialize};

pub use chain::{ChainRun, Iterations, Kernel, Scratch};
pub use hmc::HmcKernel;
pub use posterior::{Energy, Posterior};
pub use sgld::SgldKernel;

use crate::config::{Algo, SamplerSpec};
use crate::num::Real;
use crate::num::rng::{Key, Purpose};
use crate::trace::{ChainTrace, Column};

/// Why a sampler cannot go on: its numbers, so that a repetition would end the same.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SamplerError {
    /// The loss or its gradient at w* is not finite.
    #[error(
        "the loss or its gradient at w* is not finite (loss {loss}): check the target, or sample it in f64"
    )]
    Centre {
        /// L_n(w*)
        loss: f64,
    },
    /// The loss overflowed on the way.
    #[error(
        "the loss became {loss} at step {step} with step_size {step_size:e}: the chain blew up; use a smaller step_size"
    )]
    Overflow {
        /// The iteration.
        step: u64,
        /// The step size.
        step_size: f64,
        /// The loss.
        loss: f64,
    },
    /// Adaptation found no step size.
    #[error(
        "warmup ended at step size {step_size:e}: no step is accepted; check the target, or sample it in f64"
    )]
    StepSize {
        /// Where it ended.
        step_size: f64,
    },
    /// A state that does not serialise.
    #[error("the state of a chain cannot be stored: {0}")]
    State(#[from] postcard::Error),
}

/// What a run's shared warmup found; the chains take it from there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Adapted {
    /// Step size.
    pub step_size: f64,
    /// Diagonal of the inverse mass matrix; empty for samplers without one.
    pub inverse_mass: Vec<f64>,
    /// Work in full gradients.
    pub fge: f64,
    /// Relative bias of λ̂, where it can be predicted.
    pub predicted_bias: Option<f64>,
}

/// Whether a chain's draws count, or check those that do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// A chain of the run.
    Main,
    /// A shorter chain at half the step.
    Control,
}

/// How far a chain has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Iterations done.
    pub iteration: u64,
    /// Iterations in all.
    pub total: u64,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// Stop here.
    Stop,
}

/// A chain from start to end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChainOutcome {
    /// Its draws.
    pub trace: ChainTrace,
    /// The kernel's last state (postcard), from which more draws continue.
    pub final_state: Vec<u8>,
    /// Work of the burn-in in full gradients.
    pub fge_warmup: f64,
    /// Work of the draws.
    pub fge_sampling: f64,
}

/// Expected work of a run in full gradients.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ExpectedFge {
    /// Shared warmup.
    pub warmup: f64,
    /// One chain.
    pub chain: f64,
    /// The control chain.
    pub control: f64,
    /// Warmup and all chains.
    pub total: f64,
}

/// Columns of the sampler's trace.
pub fn layout(spec: &SamplerSpec) -> Vec<Column> {
    match &spec.algo {
        Algo::Hmc(_) => hmc::layout(),
        Algo::Sgld(_) => sgld::layout(),
    }
}

/// Whether chains need what [`warmup`] finds.
pub fn needs_warmup(spec: &SamplerSpec) -> bool {
    match &spec.algo {
        Algo::Hmc(_) | Algo::Sgld(_) => true,
    }
}

/// Whether the sampler's stationary law is the posterior itself.
pub fn is_exact(spec: &SamplerSpec) -> bool {
    matches!(spec.algo, Algo::Hmc(_))
}

/// Expected work of a run on a target with `rows` rows.
pub fn expected_fge(spec: &SamplerSpec, rows: usize) -> ExpectedFge {
    let (warmup, chain, control) = match &spec.algo {
        Algo::Hmc(h) => {
            let steps = h.num_integration_steps as f64;
            let burn_in = hmc::burn_in(h) as f64;
            let control = 2.0 * steps * (burn_in + hmc::control_draws(h) as f64);
            (steps * h.warmup as f64, steps * (burn_in + h.draws as f64), control)
        }
        Algo::Sgld(s) => {
            let batch = if rows == 0 { 1.0 } else { s.batch_size as f64 / rows as f64 };
            let draws = ((s.steps - s.warmup) / s.eval_every) as f64;
            (bias::PILOT.min(s.steps) as f64 * batch, s.steps as f64 * batch + draws / 3.0, 0.0)
        }
    };
    ExpectedFge { warmup, chain, control, total: warmup + spec.chains as f64 * chain }
}

/// Adapts a sampler once for all chains of a run. `id` is the run's stream id.
pub fn warmup<T: Real>(
    spec: &SamplerSpec,
    posterior: &Posterior<'_, T>,
    id: [u8; 32],
) -> Result<Adapted, SamplerError> {
    let key = Key::new(id, Purpose::Warmup, 0);
    match &spec.algo {
        Algo::Hmc(h) => hmc::warmup(h, posterior, &key),
        Algo::Sgld(s) => bias::predict(s, posterior, &key, &Key::new(id, Purpose::Probe, 0)),
    }
}

/// Runs one chain from w* to its end. `observe` is asked now and then whether to go on.
pub fn run_chain<T: Real>(
    spec: &SamplerSpec,
    posterior: &Posterior<'_, T>,
    adapted: &Adapted,
    id: [u8; 32],
    chain: u32,
    role: Role,
    observe: &mut dyn FnMut(Progress) -> Flow,
) -> Result<ChainOutcome, SamplerError> {
    let purpose = match role {
        Role::Main => Purpose::Chain,
        Role::Control => Purpose::Control,
    };
    let key = Key::new(id, purpose, chain);
    match &spec.algo {
        Algo::Hmc(h) => drive(&HmcKernel::new(h, adapted, role), posterior, &key, observe),
        Algo::Sgld(s) => drive(&SgldKernel::new(s, posterior), posterior, &key, observe),
    }
}

fn drive<T: Real, K: Kernel<T>>(
    kernel: &K,
    posterior: &Posterior<'_, T>,
    key: &Key,
    observe: &mut dyn FnMut(Progress) -> Flow,
) -> Result<ChainOutcome, SamplerError> {
    let mut scratch = Scratch::new(posterior, kernel.batch());
    let mut row = vec![0.0; kernel.layout().len()];
    let mut run = ChainRun::start(kernel, posterior, &mut scratch)?;
    run.advance(kernel, posterior, key, &mut scratch, &mut row, observe)?;
    let fge = kernel.fge(&run.state);
    Ok(ChainOutcome {
        final_state: postcard::to_stdvec(&run.state)?,
        fge_warmup: run.fge_warmup,
        fge_sampling: fge - run.fge_warmup,
        trace: run.trace,
    })
}
