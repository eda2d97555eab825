//! Runs that no plan knows when a job starts.

use super::SweepError;
use super::plan::{Plan, PlannedRun};
use super::report::RunReport;

/// A run at a gate.
#[derive(Clone, Debug)]
pub struct Partial<'a> {
    /// Number of the gate, from 0.
    pub gate: usize,
    /// The column `llc` of every chain up to the gate.
    pub llc: Vec<&'a [f64]>,
    /// Work so far in full gradients: the shared warmup and all chains.
    pub fge: f64,
    /// Wall seconds of all units so far.
    pub seconds: f64,
}

/// Proposes runs while others are under way, such as the trials of a tuning study.
///
/// The manager asks once every target of its plan is built or has failed, and again whenever a run has
/// ended; where it proposes nothing and nothing is under way, the job is done. What is proposed joins the plan: the same slots, checkpoints, retries and store as any run. A
/// run that the store has already is told at once and not done again.
pub trait Proposer {
    /// Runs to begin now, on targets of `plan`; none while others must end first. They are numbered on from
    /// `plan.runs.len()`, in their order.
    ///
    /// # Errors
    /// What ends the job.
    fn propose(&mut self, plan: &Plan) -> Result<Vec<PlannedRun>, SweepError>;

    /// Every chain of the run `index` of `plan` stands at one of its [gates](PlannedRun::gates) or beyond: whether
    /// it goes on. Where it does not, it has ended, and [`ended`](Self::ended) is not called for it.
    ///
    /// # Errors
    /// What ends the job.
    fn passes(&mut self, _plan: &Plan, _index: usize, _partial: &Partial<'_>) -> Result<bool, SweepError> {
        Ok(true)
    }

    /// The run `index` of `plan` has ended, well or badly, and is on disk; one that was [given up by the
    /// clock](super::Cut::Late) is not.
    ///
    /// # Errors
    /// What ends the job.
    fn ended(&mut self, plan: &Plan, index: usize, report: &RunReport) -> Result<(), SweepError>;
}
