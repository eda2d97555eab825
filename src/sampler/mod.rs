//! Samplers of the local posterior: kernels, their adaptation, and the driver of chains.
//!
//! A sampler sees a target through [`Potential`](crate::target::Potential) only. A kernel is
//! serialisable state plus a step whose random numbers are a pure function of (key, iteration);
//! [`ChainRun`] drives any kernel and can be stopped and resumed at every iteration.

mod adapt;
mod calibrate;
mod chain;
mod curvature;
mod descent;
mod device;
mod hmc;
mod leapfrog;
mod mala;
mod mclmc;
mod microcanonical;
mod nuts;
mod posterior;
mod sghmc;
mod sgld;
mod sgnht;
mod stochastic;
#[cfg(test)]
mod testing;
mod vi;
mod windowed;

use serde::{Deserialize, Serialize};

pub use chain::{ChainRun, Iterations, Kernel, Scratch};
pub use device::{DeviceTarget, Stream, run_chains as run_chains_on_device, stays_on_cpu};
pub use posterior::{Energy, Posterior};
pub use vi::{Curve, Hessian, Lift, ViKernel, curves as vi_curves};

use crate::config::{Algo, Hmc, Mala, Mclmc, SamplerSpec};
use crate::device::Element;
use crate::device::gpu::DeviceError;
use crate::num::rng::{Key, Purpose};
use crate::resume::{Desk, Interruption};
use crate::target::DeviceNetworkError;
use crate::trace::{ChainTrace, Column};

/// A sampler as a sweep knows it; implemented by its settings.
pub trait Method {
    /// What runs one chain.
    type Kernel<T: Element>: Kernel<T>;

    /// Columns of the trace.
    fn layout(&self) -> Vec<Column>;

    /// Whether the stationary law in `dim` dimensions is the posterior itself.
    fn is_exact(&self, _dim: usize) -> bool {
        false
    }

    /// The share of the step size's bias that is left at half the step, where a run on a posterior that
    /// may be singular gets a control chain at half the step; `None`: it gets none.
    fn bias_at_half_step(&self) -> Option<f64>;

    /// What a verdict says where the bias is not known.
    fn unknown_bias(&self) -> &'static str {
        "step-size bias not assessed"
    }

    /// Expected work on a target with `rows` rows and `dim` parameters.
    fn work(&self, rows: usize, dim: usize) -> Work;

    /// Which key makes a chain's state in `dim` dimensions larger than may be, what it amounts to, and
    /// what to do; `None` where it is not.
    fn oversized(&self, _dim: usize) -> Option<(&'static str, String)> {
        None
    }

    /// Adapts once for all chains of a run; `id` is the run's stream id.
    fn warmup<T: Element>(
        &self,
        posterior: &Posterior<'_, T>,
        id: [u8; 32],
        desk: &mut Desk<'_>,
    ) -> Result<Adapted, SamplerError>;

    /// The kernel of one chain.
    fn kernel<T: Element>(
        &self,
        posterior: &Posterior<'_, T>,
        adapted: &Adapted,
        role: Role,
    ) -> Self::Kernel<T>;
}

/// Evaluates an expression on the settings of whichever sampler it is: the one list of them.
macro_rules! with_method {
    ($algo:expr, $method:ident => $body:expr) => {
        match $algo {
            Algo::Hmc($method) => $body,
            Algo::Nuts($method) => $body,
            Algo::Mala($method) => $body,
            Algo::Mclmc($method) => $body,
            Algo::Sgld($method) => $body,
            Algo::Sghmc($method) => $body,
            Algo::Sgnht($method) => $body,
            Algo::Vi($method) => $body,
        }
    };
}

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
    /// A sampler that needs more dimensions.
    #[error("{sampler} needs at least 2 parameters, and this target has {dim}: use hmc or nuts")]
    Dimension {
        /// The sampler.
        sampler: &'static str,
        /// d
        dim: usize,
    },
    /// Adaptation found no step size.
    #[error(
        "warmup ended at step size {step_size:e}: no step is accepted; check the target, or sample it in f64"
    )]
    StepSize {
        /// Where it ended.
        step_size: f64,
    },
    /// An approximation that came apart in its optimisation, or has draws that cannot be used.
    #[error("the approximation broke down at step {step} (lr {lr:e}): {reason}; use a smaller lr, or f64")]
    Approximation {
        /// The iteration.
        step: u64,
        /// The learning rate.
        lr: f64,
        /// What happened.
        reason: String,
    },
    /// Second derivatives that are no numbers.
    #[error("the Hessian of the loss at w* is not finite: check the target, or sample it in f64")]
    Hessian,
    /// A device that failed or has no room, or a network that its kernels do not take.
    #[error(transparent)]
    Device(#[from] DeviceNetworkError),
    /// A state that does not serialise.
    #[error("the state of a chain cannot be stored: {0}")]
    State(#[from] postcard::Error),
    /// Not by its numbers: it was asked to stop, or its state cannot be stored.
    #[error(transparent)]
    Interrupted(#[from] Interruption),
}

impl From<DeviceError> for SamplerError {
    fn from(e: DeviceError) -> Self {
        Self::Device(e.into())
    }
}

/// What a run's shared warmup found; the chains take it from there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Adapted {
    /// Step size.
    pub step_size: f64,
    /// Diagonal of the inverse mass matrix; empty for samplers without one.
    #[serde(with = "crate::wire::floats")]
    pub inverse_mass: Vec<f64>,
    /// Distance over which a momentum's direction is forgotten (mclmc).
    pub length: Option<f64>,
    /// Work in full gradients.
    pub fge: f64,
    /// What the step size adds to λ̂, where it can be predicted; `None` for exact samplers.
    pub bias: Option<f64>,
    /// Largest relative bias over the posterior's modes: an upper bound on that of λ̂.
    pub bias_bound: Option<f64>,
    /// The smallest loss that descent from w* finds.
    pub lowest_loss: f64,
    /// Mean Metropolis acceptance, on the full loss, of a Langevin proposal at this step size.
    pub mala_acceptance: Option<f64>,
    /// M, components of the mixture, where vi chose it.
    pub components: Option<usize>,
    /// r, factors a component, where vi chose it.
    pub rank: Option<usize>,
    /// The loss near w* to second order (vi).
    pub hessian: Option<Box<Hessian>>,
    /// The directions that a flow acts in (vi).
    pub lift: Option<Box<Lift>>,
}

/// Whether a chain's draws count, or check those that do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// A chain of the run.
    Main,
    /// A shorter chain at half the step.
    Control,
}

/// A chain from start to end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChainOutcome {
    /// Its draws.
    pub trace: ChainTrace,
    /// The kernel's last state (postcard), from which more draws continue.
    #[serde(with = "serde_bytes")]
    pub final_state: Vec<u8>,
    /// Work of the burn-in in full gradients.
    pub fge_warmup: f64,
    /// Work of the draws.
    pub fge_sampling: f64,
}

impl ChainOutcome {
    /// Bytes that it travels as, at most.
    pub fn bytes(&self) -> usize {
        let columns = self.trace.values.iter().map(|column| size_of_val(column.as_slice()) + 10);
        columns.sum::<usize>() + self.final_state.len() + 64
    }
}

/// A chain that waits at a place where it was told to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pause {
    /// The checkpoint from which it goes on.
    #[serde(with = "serde_bytes")]
    pub state: Vec<u8>,
    /// Its column `llc` so far.
    #[serde(with = "crate::wire::floats")]
    pub llc: Vec<f64>,
    /// Its work so far in full gradients.
    pub fge: f64,
}

/// How far a chain came.
#[derive(Clone, Debug, PartialEq)]
pub enum Run {
    /// To its end.
    Whole(ChainOutcome),
    /// To a pause.
    Paused(Pause),
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
    /// Warmup, all chains and the control chain.
    pub total: f64,
}

/// Expected work in full gradients: the shared warmup, one chain, the control chain.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// The shared warmup.
    pub warmup: f64,
    /// One chain.
    pub chain: f64,
    /// The control chain.
    pub control: f64,
}

/// Columns of the sampler's trace.
pub fn layout(spec: &SamplerSpec) -> Vec<Column> {
    with_method!(&spec.algo, m => m.layout())
}

/// Whether the sampler's stationary law in `dim` dimensions is the posterior itself.
pub fn is_exact(spec: &SamplerSpec, dim: usize) -> bool {
    with_method!(&spec.algo, m => m.is_exact(dim))
}

/// The share of the step size's bias that a control chain at half the step has; `None` for a sampler
/// that has no step to halve.
pub fn bias_at_half_step(spec: &SamplerSpec) -> Option<f64> {
    with_method!(&spec.algo, m => m.bias_at_half_step())
}

/// What a verdict says where the sampler's bias is not known.
pub fn unknown_bias(spec: &SamplerSpec) -> &'static str {
    with_method!(&spec.algo, m => m.unknown_bias())
}

/// Expected work of a run on a target with `rows` rows and `dim` parameters, with a control chain or
/// without. Searches that may end early are counted whole: the descent for L0, and vi's for a width.
pub fn expected_fge(spec: &SamplerSpec, rows: usize, dim: usize, with_control: bool) -> ExpectedFge {
    let Work { warmup, chain, control } = with_method!(&spec.algo, m => m.work(rows, dim));
    let control = if with_control { control } else { 0.0 };
    let warmup = warmup + descent::GRADIENTS as f64;
    ExpectedFge { warmup, chain, control, total: warmup + spec.chains as f64 * chain + control }
}

/// The key, and why, where a chain's state in `dim` dimensions would be larger than any machine's share.
pub fn oversized(spec: &SamplerSpec, dim: usize) -> Option<(&'static str, String)> {
    with_method!(&spec.algo, m => m.oversized(dim))
}

/// Adapts a sampler once for all chains of a run, saving its work at `desk`. `id` is the run's stream id.
pub fn warmup<T: Element>(
    spec: &SamplerSpec,
    posterior: &Posterior<'_, T>,
    id: [u8; 32],
    desk: &mut Desk<'_>,
) -> Result<Adapted, SamplerError> {
    let mut adapted = with_method!(&spec.algo, m => m.warmup(posterior, id, desk))?;
    let (lowest, work) = desk.stage(|_| Ok::<_, SamplerError>(descent::lowest_loss(posterior)))?;
    adapted.lowest_loss = lowest;
    adapted.fge += work;
    Ok(adapted)
}

/// Numbers that the trace of a chain will hold.
pub fn trace_numbers<T: Element>(
    spec: &SamplerSpec,
    posterior: &Posterior<'_, T>,
    adapted: &Adapted,
    role: Role,
) -> u64 {
    let draws =
        with_method!(&spec.algo, m => Kernel::<T>::iterations(&m.kernel(posterior, adapted, role)).draws);
    (draws as u64).saturating_mul(layout(spec).len() as u64)
}

/// Numbers that the trace of a chain on a device will hold.
pub fn device_trace_numbers(spec: &SamplerSpec) -> u64 {
    let draws = match &spec.algo {
        Algo::Sgld(spec) => sgld::lengths(spec).iterations().draws,
        Algo::Sghmc(spec) => sghmc::lengths(spec).iterations().draws,
        Algo::Sgnht(spec) => sgnht::lengths(spec).iterations().draws,
        Algo::Hmc(Hmc { draws, .. }) | Algo::Mala(Mala { draws, .. }) | Algo::Mclmc(Mclmc { draws, .. }) => {
            leapfrog::control_draws(*draws).max(*draws)
        }
        _ => 0,
    };
    (draws as u64).saturating_mul(layout(spec).len() as u64)
}

/// Runs one chain from w*, or from where `desk` has it, to its end.
pub fn run_chain<T: Element>(
    spec: &SamplerSpec,
    posterior: &Posterior<'_, T>,
    adapted: &Adapted,
    id: [u8; 32],
    chain: u32,
    role: Role,
    desk: &mut Desk<'_>,
) -> Result<ChainOutcome, SamplerError> {
    match run_chain_to_pause(spec, posterior, adapted, (id, chain, role), &[], desk)? {
        Run::Whole(outcome) => Ok(outcome),
        // It was told of none.
        Run::Paused(_) => unreachable!("a chain without pauses has paused"),
    }
}

/// [`run_chain`], which ends early at the first of `pauses`, numbers of draws in ascending order, that is not
/// behind the place where `desk` has it. With the [state](Pause::state) that it gives it goes on with the same
/// bits.
///
/// # Errors
/// As [`run_chain`].
pub fn run_chain_to_pause<T: Element>(
    spec: &SamplerSpec,
    posterior: &Posterior<'_, T>,
    adapted: &Adapted,
    (id, chain, role): ([u8; 32], u32, Role),
    pauses: &[usize],
    desk: &mut Desk<'_>,
) -> Result<Run, SamplerError> {
    let purpose = match role {
        Role::Main => Purpose::Chain,
        Role::Control => Purpose::Control,
    };
    let key = Key::new(id, purpose, chain);
    with_method!(&spec.algo, m => drive(&m.kernel(posterior, adapted, role), posterior, &key, pauses, desk))
}

fn drive<T: Element, K: Kernel<T>>(
    kernel: &K,
    posterior: &Posterior<'_, T>,
    key: &Key,
    pauses: &[usize],
    desk: &mut Desk<'_>,
) -> Result<Run, SamplerError> {
    let mut scratch = Scratch::of(kernel, posterior);
    let mut row = vec![0.0; kernel.layout().len()];
    let mut run = match desk.part()? {
        Some(run) => run,
        None => ChainRun::start(kernel, posterior, &mut scratch)?,
    };
    let pause = pauses.iter().copied().find(|&draws| draws >= run.trace.draws());
    run.advance_to_draw(pause.unwrap_or(usize::MAX), kernel, posterior, key, &mut scratch, &mut row, desk)?;
    let fge = kernel.fge(&run.state);
    if run.iteration < kernel.iterations().total {
        let column = kernel.layout().iter().position(|column| column.name == "llc");
        let llc = column.map(|column| run.trace.values[column].clone()).unwrap_or_default();
        let state = desk.put_down(&run).map_err(Interruption::from)?;
        return Ok(Run::Paused(Pause { state, llc, fge }));
    }
    Ok(Run::Whole(ChainOutcome {
        final_state: postcard::to_stdvec(&run.state)?,
        fge_warmup: run.fge_warmup,
        fge_sampling: fge - run.fge_warmup,
        trace: run.trace,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Approximation, Dtype, FactorFamily, Mfa, Vi, Whitening};

    /// A chain of vi of one step on L = ½ Σ w², all of whose work is known but for the search for a width.
    #[test]
    fn expected_work_counts_the_searches_that_precede_sampling() {
        let mixture = Mfa {
            components: Some(1),
            rank: Some(1),
            r_per_component: None,
            family: FactorFamily::Precision,
            alpha_temperature: 1.0,
            alpha_dirichlet_prior: None,
            entropy_bonus: 0.0,
        };
        let vi = Vi {
            draws: 1,
            steps: 1,
            batch_size: 1,
            lr: 1e-3,
            lr_schedule: None,
            lr_warmup_frac: 0.0,
            clip_global_norm: None,
            eval_every: 1,
            eval_samples: 2,
            whitening_mode: Whitening::None,
            whitening_decay: 0.99,
            approximation: Approximation::Mfa(mixture),
        };
        let spec = SamplerSpec { algo: Algo::Vi(vi), seed: 1, chains: 1, dtype: Dtype::F64 };
        let (target, centre) = (testing::Quadratic::new(&[1.0; 3]), [0.0; 3]);
        let posterior = Posterior::new(&target, &centre, 100.0, 1.0).expect("finite");
        let expected = expected_fge(&spec, 0, 3, false);
        let adapted = warmup(&spec, &posterior, [1; 32], &mut Desk::unwatched()).expect("adapts");
        let slack = descent::GRADIENTS as f64;
        assert!((0.0..slack).contains(&(expected.warmup - adapted.fge)), "{expected:?} {}", adapted.fge);
        let mut desk = Desk::unwatched();
        let chain = run_chain(&spec, &posterior, &adapted, [1; 32], 0, Role::Main, &mut desk).expect("runs");
        let spent = chain.fge_warmup + chain.fge_sampling;
        // Two widths at least are tried, 12 at most, of 8 losses each.
        let unspent = expected.chain - spent;
        assert!((-1e-9..10.0 * 8.0 / 3.0 + 1e-9).contains(&unspent), "{expected:?} {spent}");
    }
}
