//! What a sweep tells while it runs and when it is over.

use super::plan::Plan;
use super::ranks::RankPlace;
use super::unit::Failure;
use std::sync::Arc;

use crate::diagnostics::Analysis;

/// A run's end.
#[derive(Clone, Debug)]
pub enum RunState {
    /// There are results.
    Done(Box<Analysis>),
    /// There are none, and why.
    Failed(Failure),
    /// It was given up on the way and is on record nowhere.
    Cut(Cut),
}

/// Why a run was given up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cut {
    /// At a gate, after so many draws a chain.
    AtGate(usize),
    /// By the clock, after so many seconds.
    Late(f64),
}

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtGate(draws) => write!(f, "given up after {draws} draws a chain"),
            Self::Late(seconds) => write!(f, "given up after {seconds:.1} s, more than it may have"),
        }
    }
}

/// A run in the summary.
#[derive(Clone, Debug)]
pub struct RunReport {
    /// How it ended.
    pub state: RunState,
    /// Whether this sweep did the work, or found it done.
    pub executed: bool,
    /// Wall seconds of all its units together.
    pub seconds: f64,
}

impl RunReport {
    /// A run that was in the store already.
    pub fn found(state: RunState) -> Self {
        Self { state, executed: false, seconds: 0.0 }
    }

    /// A run that nobody reported on.
    pub fn lost() -> Self {
        let reason = "its units were never executed: start the sweep again".to_owned();
        Self::found(RunState::Failed(Failure::by_surroundings(reason)))
    }
}

/// What happens while a sweep runs.
#[derive(Debug)]
pub enum Progress<'a> {
    /// Units are about to go out.
    Planned {
        /// The plan.
        plan: &'a Plan,
        /// Units that are left to do.
        units: usize,
        /// What each rank got.
        ranks: &'a [RankPlace],
        /// Whether runs join on the way: what is left to do now is not all.
        grows: bool,
    },
    /// A target is built and on disk.
    Target {
        /// The plan.
        plan: &'a Plan,
        /// The target's index.
        index: usize,
        /// Wall seconds of the build.
        seconds: f64,
    },
    /// A target could not be built.
    TargetFailed {
        /// The plan.
        plan: &'a Plan,
        /// The target's index.
        index: usize,
        /// Why.
        failure: &'a Failure,
    },
    /// A run is finished and on disk.
    Run {
        /// The plan.
        plan: &'a Plan,
        /// The run's index.
        index: usize,
        /// How it ended.
        report: &'a RunReport,
    },
    /// A unit has ended.
    Unit {
        /// Units ended so far.
        done: usize,
        /// Units in all.
        total: usize,
    },
}

/// Whoever shows a sweep's progress.
pub trait Observer {
    /// Is told everything as it happens.
    fn progress(&mut self, progress: &Progress<'_>);
}

/// A sweep's end: every run of the plan, in order.
#[derive(Clone, Debug)]
pub struct Summary {
    /// What was run: the plan, with the runs that joined it.
    pub plan: Arc<Plan>,
    /// Units executed.
    pub executed: usize,
    /// Targets that could not be built, or not as recorded, by their index in the plan.
    pub failed_targets: Vec<(usize, Failure)>,
    /// Every run.
    pub runs: Vec<RunReport>,
    /// Where the sweep was stopped on the way.
    pub interruption: Option<Interruption>,
}

/// A sweep that was stopped on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interruption {
    /// A signal, or the time limit.
    pub why: String,
    /// Units that are left to do.
    pub left: usize,
    /// Units whose last step was too long to wait for: they go on from an earlier checkpoint.
    pub late: usize,
}
