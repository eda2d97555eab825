//! The sweep: plan, schedule, execute, finish.
//!
//! [`Plan`] turns an experiment into targets, runs and units; [`run`] is the loop of rank 0 and
//! [`work`] that of every other rank; the [`scheduler`] between them is a pure state machine. The
//! wire is [`crate::comm`]'s business.

mod boards;
mod chosen;
pub mod costs;
mod describe;
mod execute;
mod fault;
mod files;
mod finish;
mod graph;
mod manager;
mod memory;
mod options;
pub mod pivot;
mod plan;
mod proposer;
mod ranks;
mod report;
mod results;
mod run_table;
pub mod scheduler;
mod slots;
mod source;
mod survey;
mod tensorboard;
mod unit;
mod watch;
mod worker;
mod writer;

use std::path::PathBuf;

pub use boards::{Boards, write_boards};
pub use describe::{describe, judge, lay_out};
pub use fault::is_understood as fault_is_understood;
pub use files::{INTERNAL, read_analysis};
pub use graph::{SweepGraph, UnitKind};
pub use manager::{SlotStatus, Status, dismiss, part, run, run_and_grow, status_path};
pub use options::Options;
pub use plan::{Plan, PlannedRun, PlannedTarget};
pub use proposer::{Partial, Proposer};
pub use ranks::RankPlace;
pub use report::{Cut, Interruption, Observer, Progress, RunReport, RunState, Summary};
pub use results::{gather, gather_again, list};
pub use run_table::{RunTable, Setting, write_tables};
pub use source::WorkSource;
pub use unit::Failure;
pub use worker::work;

use crate::comm::CommError;
use crate::config::Place;
use crate::device::{Arith, UnknownArith};
use crate::io::IoError;
use crate::store::StoreError;
use crate::target::TargetError;

/// Who can read a checkpoint: this build in the present arithmetic.
fn context() -> String {
    format!("{} ({}) with {}", crate::VERSION, crate::GIT_SHA, Arith::current())
}

/// Exit code of a sweep that was stopped on the way (`EX_TEMPFAIL` of sysexits.h).
pub const INTERRUPTED: u8 = 75;

/// The rank that manages.
pub const MANAGER: usize = 0;

/// What ends a sweep. (What ends a run is a [`Failure`].)
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// A file of an `external` target.
    #[error("{place}: targets[{index}].{key}: {}: {why}; `problem: external` needs an npz with X, Y and one with W0, b0, … or flat, layer_shapes", path.display())]
    External {
        /// Where the target stands.
        place: Place,
        /// Its index.
        index: usize,
        /// `data` or `params`.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A choice of parameters that a target does not allow.
    #[error("{place}: posterior.parameters on {label}: {why}")]
    Parameters {
        /// Where the target stands.
        place: Place,
        /// The target.
        label: String,
        /// What is wrong.
        why: String,
    },
    /// A sampler whose state on a target is larger than may be.
    #[error("{place}: samplers[{index}].overrides.{key}: on {label}, {why}")]
    Oversized {
        /// Where the sampler stands.
        place: Place,
        /// Its index.
        index: usize,
        /// The target.
        label: String,
        /// The key that does it.
        key: &'static str,
        /// What it amounts to, and what to do.
        why: String,
    },
    /// The same target twice.
    #[error(
        "{place}: targets[{second}] ({label}) is the same target as targets[{first}]: their files have the same content; remove one"
    )]
    Twins {
        /// Where the second stands.
        place: Place,
        /// Index of the first.
        first: usize,
        /// Index of the second.
        second: usize,
        /// Its label.
        label: String,
    },
    /// A target that cannot be what it is asked to be.
    #[error("{place}: targets[{index}]: {source}")]
    Target {
        /// Where the target stands.
        place: Place,
        /// Its index.
        index: usize,
        /// What is wrong.
        source: Box<TargetError>,
    },
    /// An arithmetic that some rank lacks.
    #[error("--arith {asked}: some rank has only {common}; leave the option away or ask for {common}")]
    Arith {
        /// What was asked for.
        asked: Arith,
        /// What every rank has.
        common: Arith,
    },
    /// Ranks whose devices would not give the same bits.
    #[error(
        "rank 0 has a device of arithmetic {expected}, and that of rank {rank} on {host} is {has}: ask for one kind of \
         GPU, one for every rank, or compute with --device cpu"
    )]
    Device {
        /// The rank.
        rank: usize,
        /// Its machine.
        host: String,
        /// What it has.
        has: String,
        /// What rank 0 has.
        expected: String,
    },
    /// An arithmetic by a wrong name.
    #[error(transparent)]
    UnknownArith(#[from] UnknownArith),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file's content.
    #[error("{0}; the store may be damaged: `lambda-hat-mpi artifacts verify` tells")]
    Io(#[from] IoError),
    /// Messages between ranks.
    #[error(transparent)]
    Comm(#[from] CommError),
    /// A message that cannot be read.
    #[error("a message or record cannot be read ({0}): are all ranks the same version?")]
    Wire(#[from] postcard::Error),
    /// A JSON file that cannot be read or written.
    #[error("a JSON record is malformed: {0}; `lambda-hat-mpi artifacts verify` tells which")]
    Json(#[from] serde_json::Error),
    /// A record of the store that is not what this version writes.
    #[error("the record of {id}: {what}; `lambda-hat-mpi artifacts rm {id}` forgets it")]
    Record {
        /// Whose record.
        id: String,
        /// What is wrong.
        what: String,
    },
    /// Threads could not be started.
    #[error("cannot start a worker thread: {0}; ask for fewer with --workers")]
    Thread(#[from] std::io::Error),
    /// What proposes runs cannot go on.
    #[error("{why}")]
    Proposer {
        /// Why.
        why: String,
        /// Whether the user's input is at fault.
        usage: bool,
    },
    /// Nothing computes any more.
    #[error(
        "no worker slot answers any more; start the same command again: what is finished or saved is kept"
    )]
    NoSlots,
    /// The writer ended early.
    #[error("the writer thread ended early: this is a bug, please report it")]
    WriterGone,
}

impl SweepError {
    /// The exit code that the program ends with: 2 for the user's input, 3 for the surroundings.
    pub fn exit_code(&self) -> u8 {
        match self {
            SweepError::External { .. }
            | SweepError::Twins { .. }
            | SweepError::Target { .. }
            | SweepError::Parameters { .. }
            | SweepError::Oversized { .. }
            | SweepError::Arith { .. }
            | SweepError::UnknownArith(_)
            | SweepError::Proposer { usage: true, .. } => 2,
            _ => 3,
        }
    }
}
