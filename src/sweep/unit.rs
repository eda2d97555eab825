//! Units of work as they travel: what a slot is given and what it gives back.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::{PosteriorSpec, SamplerSpec, TargetSpec};
use crate::sampler::{Adapted, ChainOutcome, Pause, Role};
use crate::target::{ExternalArrays, Target};

/// Position of a target in the plan; ranks cache targets under it.
pub type TargetIndex = u32;

/// Position of a run in the plan; ranks cache what its chains share under it.
pub type RunIndex = u32;

/// One unit of work with everything it needs, but for what ranks hold: targets, and what chains of a run share.
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
        /// Bytes of its data and parameters, about.
        bytes: u64,
    },
    /// Adapt a sampler once for all chains of a run.
    Warmup(Sampling),
    /// One chain.
    Chain {
        /// The run it belongs to.
        run: RunIndex,
        /// Its number.
        chain: u32,
        /// A chain of the run, or its control.
        role: Role,
        /// Numbers of draws, ascending, at which it waits to be told to go on.
        pauses: Vec<usize>,
    },
    /// All chains of a run, or its control chain, on the rank's device.
    OnDevice {
        /// The run that they belong to.
        run: RunIndex,
        /// Chains 0 … `chains` − 1.
        chains: usize,
        /// Chains of the run, or its control.
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

/// What all chains of a run share: a mass matrix, or a variational approximation's Hessian, can be larger than their
/// target.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunShare {
    /// What all units of the run share.
    pub sampling: Sampling,
    /// What its warmup found.
    pub adapted: Arc<Adapted>,
}

/// What a unit produced.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Output {
    /// Of a build.
    Target(Box<Target>),
    /// Of a warmup.
    Adapted(Arc<Adapted>),
    /// Of a chain.
    Chain {
        /// Draws, final state, work.
        outcome: Arc<ChainOutcome>,
        /// L(w*) in the sampler's own arithmetic.
        l0: f64,
    },
    /// Of all chains of a run.
    Chains {
        /// Of each its draws, final state, work.
        outcomes: Vec<Arc<ChainOutcome>>,
        /// L(w*) in the sampler's own arithmetic.
        l0: f64,
    },
}

impl Output {
    /// Bytes that it travels as, about.
    pub fn bytes(&self) -> usize {
        let numbers = match self {
            Self::Target(target) => target.x.len() + target.y.len() + target.w_star.len(),
            Self::Adapted(adapted) => adapted.inverse_mass.len(),
            Self::Chain { outcome, .. } => return outcome.bytes(),
            Self::Chains { outcomes, .. } => return outcomes.iter().map(|outcome| outcome.bytes()).sum(),
        };
        size_of::<f64>() * numbers + 1024
    }
}

/// Why a unit failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// For the user: what happened and what to do.
    pub reason: String,
    /// Failed by its numbers: the same unit would fail again. Otherwise by its surroundings.
    pub settled: bool,
    /// Where a panic came from.
    pub backtrace: Option<String>,
}

impl Failure {
    /// By its numbers: again, it would fail again.
    pub fn by_numbers(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), settled: true, backtrace: None }
    }

    /// By its surroundings: it may work another time.
    pub fn by_surroundings(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), settled: false, backtrace: None }
    }
}

/// How a unit ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum End {
    /// With a product.
    Done(Output),
    /// Without one.
    Failed(Failure),
    /// At a place where it was to wait.
    Paused(Pause),
    /// As it was asked to, on the way.
    Interrupted,
}

/// A unit's end: what came out, how long it took, where it ran.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// Wall seconds.
    pub seconds: f64,
    /// Host name.
    pub host: String,
    /// Which attempt at it this was, from 0.
    pub attempt: u32,
}

impl Outcome {
    /// Of a unit that was not begun.
    pub fn interrupted() -> Self {
        Self { end: End::Interrupted, seconds: 0.0, host: String::new(), attempt: 0 }
    }
}

/// Whose part a unit is; its files are called by it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UnitName {
    /// Id of the run or target.
    pub owner: [u8; 32],
    /// `build`, `warmup`, `chain-3`, `chains` or `control`.
    pub part: String,
}

impl UnitName {
    /// The file of its state on the way.
    pub fn checkpoint(&self) -> String {
        format!("{}.part", self.part)
    }
}

/// What a finished unit leaves until its run is on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Product {
    /// What it produced.
    pub output: Output,
    /// Wall seconds.
    pub seconds: f64,
    /// Host name.
    pub host: String,
}

impl Product {
    /// Its bytes in a file of products.
    pub fn pack(&self) -> Result<Vec<u8>, postcard::Error> {
        // With room from the start, so that nothing large is copied twice.
        let room = Vec::with_capacity(self.output.bytes() + self.host.len() + 64);
        postcard::to_extend(self, room)
    }
}

/// What a slot is given.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    /// The unit's number.
    pub unit: u32,
    /// Its name.
    pub name: UnitName,
    /// What to do.
    pub task: Box<Task>,
    /// How often it was tried before in this sweep.
    pub attempt: u32,
    /// The checkpoint to go on from.
    #[serde(with = "serde_bytes")]
    pub resume: Option<Vec<u8>>,
}

/// From the manager to a rank.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToWorker {
    /// The sweep's arithmetic is fixed.
    Start {
        /// Its name.
        arith: String,
        /// Milliseconds between two checkpoints of a unit.
        every: u64,
        /// Where ranks write checkpoints themselves.
        dir: Option<std::path::PathBuf>,
    },
    /// Send the checkpoint of this slot of yours.
    Send {
        /// The slot.
        slot: usize,
    },
    /// Stop at the next step, and send checkpoints.
    Drain,
    /// Stop this unit, which nobody wants any more, without a checkpoint.
    Cancel {
        /// On this slot of yours.
        slot: usize,
        /// The unit.
        unit: u32,
    },
    /// Put a new thread in the place of the slot's.
    Replace {
        /// The slot.
        slot: usize,
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
    /// Hold what this run's chains share: units will name it.
    Share {
        /// Its number.
        run: RunIndex,
        /// What they share.
        share: Box<RunShare>,
    },
    /// Let go of what this run's chains share: no unit will name it any more.
    Unshare {
        /// Its number.
        run: RunIndex,
    },
    /// Run this unit.
    Run {
        /// On this slot of yours.
        slot: usize,
        /// The unit.
        order: Order,
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
        /// Its device, for people, and the device's arithmetic.
        device: Option<(String, String)>,
    },
    /// The rank has heard that there is no more work.
    Bye,
    /// A signal has reached the rank.
    Signal {
        /// Its number.
        signal: usize,
    },
    /// There is a checkpoint, to be sent when told.
    Waiting {
        /// The slot.
        slot: usize,
        /// Its size.
        bytes: usize,
    },
    /// Units on a slot have made steps, or it has written a checkpoint itself.
    Sign {
        /// The slot.
        slot: usize,
        /// Whether a checkpoint is on disk.
        saved: bool,
    },
    /// A slot has a new thread.
    Replaced {
        /// The slot.
        slot: usize,
    },
    /// A checkpoint.
    Saved {
        /// The slot.
        slot: usize,
        /// The unit.
        unit: u32,
        /// Its state.
        #[serde(with = "serde_bytes")]
        state: Vec<u8>,
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
