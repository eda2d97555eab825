//! Units of work as they travel: what a slot is given and what it gives back.

use serde::{Deserialize, Serialize};

use crate::config::{PosteriorSpec, SamplerSpec, TargetSpec};
use crate::sampler::{Adapted, ChainOutcome, Role};
use crate::target::{ExternalArrays, Target};

/// Position of a target in the plan; ranks cache targets under it.
pub type TargetIndex = u32;

/// One unit of work with everything it needs, but for targets, which ranks hold.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Task {
    /// Make a target: data, w*, L0.
    Build {
        /// Identity, which keys its random numbers.
        id: [u8; 32],
        /// What to build.
        spec: TargetSpec,
        /// Contents of the user's files.
        external: Option<ExternalArrays>,
    },
    /// Adapt a sampler once for all chains of a run.
    Warmup(Sampling),
    /// One chain.
    Chain {
        /// The run it belongs to.
        sampling: Sampling,
        /// What the run's warmup found.
        adapted: Adapted,
        /// Its number.
        chain: u32,
        /// A chain of the run, or its control.
        role: Role,
    },
}

/// What all units of a run share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// The target to sample.
    pub target: TargetIndex,
    /// The sampler.
    pub sampler: SamplerSpec,
    /// The posterior.
    pub posterior: PosteriorSpec,
    /// Keys the random numbers.
    pub stream: [u8; 32],
    /// Places of the parameters that are sampled; `None`: all.
    pub chosen: Option<Vec<u32>>,
}

/// What a unit produced.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Output {
    /// Of a build.
    Target(Box<Target>),
    /// Of a warmup.
    Adapted(Adapted),
    /// Of a chain.
    Chain {
        /// Draws, final state, work.
        outcome: ChainOutcome,
        /// L(w*) in the sampler's own arithmetic.
        l0: f64,
    },
}

/// Why a unit failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// For the user: what happened and what to do.
    pub reason: String,
    /// Failed by its numbers: the same unit would fail again. Otherwise by its surroundings.
    pub settled: bool,
}

/// A unit's end: what came out, how long it took, where it ran.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// The product, or why there is none.
    pub result: Result<Output, Failure>,
    /// Wall seconds.
    pub seconds: f64,
    /// Host name.
    pub host: String,
}

/// From the manager to a rank.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToWorker {
    /// The sweep's arithmetic is fixed.
    Start {
        /// Its name.
        arith: String,
    },
    /// Hold this target: units will name it.
    Target {
        /// Its number.
        index: TargetIndex,
        /// The target.
        target: Box<Target>,
    },
    /// Let go of this target: no unit will name it any more.
    Forget {
        /// Its number.
        index: TargetIndex,
    },
    /// Run this unit.
    Run {
        /// On this slot of yours.
        slot: usize,
        /// The unit's number.
        unit: u32,
        /// The unit.
        task: Box<Task>,
    },
    /// There is no more work.
    Stop,
    /// The sweep has failed: leave what is running.
    Abandon,
}

/// From a rank to the manager.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToManager {
    /// The rank is there.
    Up {
        /// The best arithmetic it has.
        arith: String,
        /// Slots it offers.
        slots: usize,
        /// Host name.
        host: String,
        /// Its number on that host.
        node_rank: usize,
    },
    /// A unit has ended.
    Done {
        /// The slot.
        slot: usize,
        /// The unit.
        unit: u32,
        /// Its end.
        outcome: Box<Outcome>,
    },
}
