//! Jobs for a batch system: which card is meant, the sbatch script made from it, and its submission.
//!
//! A card (of [`crate::config`]) says what a job asks for; [`script`] writes the job so that a time limit
//! costs nothing: the ranks are told in time, and what they leave undone is queued again.

mod cards;
mod quote;
mod slurm;
mod submit;

pub use cards::{Card, find, local_default};
pub use quote::shell;
pub use slurm::{Job, script};
pub use submit::submit;

/// What can go wrong on the way to a job.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// There is no sbatch.
    #[error(
        "sbatch does not start ({0}): submit on a login node of the cluster, or take the script that `slurm render` prints"
    )]
    NoSbatch(std::io::Error),
    /// Sbatch refused the job.
    #[error("sbatch refused the job: {0}")]
    Refused(String),
    /// Sbatch said something that is no job id.
    #[error("sbatch answered {0:?}, which is no job id: look with squeue whether the job is there")]
    NoId(String),
}
