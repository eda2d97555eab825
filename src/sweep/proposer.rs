//! Runs that no plan knows when a job starts.

use super::SweepError;
use super::plan::{Plan, PlannedRun};
use super::report::RunReport;

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

    /// The run `index` of `plan` has ended and is on disk, well or badly.
    ///
    /// # Errors
    /// What ends the job.
    fn ended(&mut self, plan: &Plan, index: usize, report: &RunReport) -> Result<(), SweepError>;
}
