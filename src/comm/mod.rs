//! Ordered byte messages between the ranks of a job; what they mean is the caller's business.
//!
//! [`Comm`] is the whole interface. [`SoloComm`] is a job of one process, [`MpiComm`] a job that
//! `mpirun` or `srun` started; [`connect`] chooses between them. MPI is initialised only where a
//! launcher's environment is seen ([`launched`]): in a plain process `MPI_Init` costs most of a
//! second and may fail for reasons that do not concern a single process.
//!
//! Only the thread that called [`MpiComm::init`] talks to MPI (`MPI_THREAD_FUNNELED`). It never
//! blocks inside MPI while it waits: it tests, and sleeps between tests, so that the cores belong
//! to the threads that compute.

#[cfg(feature = "mpi")]
mod mpi_comm;
mod panic;
mod solo;

#[cfg(feature = "mpi")]
pub use mpi_comm::MpiComm;
pub use panic::{PANIC_CODE, Panic, abort_on_panic, catch_panic};
pub use solo::SoloComm;

use std::time::Duration;

/// What can go wrong between ranks.
#[derive(Debug, thiserror::Error)]
pub enum CommError {
    /// A message to a rank that does not exist.
    #[error(
        "message to rank {to}, but the job has {size} rank(s), numbered from 0: send to an existing rank"
    )]
    NoSuchRank {
        /// The receiver asked for.
        to: usize,
        /// Ranks in the job.
        size: usize,
    },
    /// MPI was initialised before, and MPI allows that once a process.
    #[error(
        "MPI is already initialised in this process: connect once and pass the connection on, or use --local"
    )]
    AlreadyInitialised,
    /// The MPI library cannot be called from a program with threads.
    #[error(
        "the MPI library grants thread level {granted}, Funneled is needed: use an MPI built with threads, or --local"
    )]
    Threading {
        /// The level granted.
        granted: String,
    },
    /// The launcher of one MPI started a program built against another.
    #[error(
        "{variable} says {expected} ranks, but {library} sees {world}: the launcher does not belong to the MPI \
         that this program was built with, and every process would be a job of its own. Use that MPI's mpirun, \
         or another `srun --mpi=` plugin (`srun --mpi=list`)"
    )]
    Split {
        /// The environment variable that gave `expected`.
        variable: &'static str,
        /// Ranks that the launcher started.
        expected: usize,
        /// Ranks that MPI sees.
        world: usize,
        /// The MPI library.
        library: String,
    },
    /// A launcher started several copies of a program that has no MPI in it.
    #[error(
        "{variable} says that a launcher started this program, but it was built without MPI: build with the \
         feature `mpi`, start it without mpirun or srun, or use --local"
    )]
    BuiltWithoutMpi {
        /// The environment variable that tells of the launcher.
        variable: &'static str,
    },
}

/// A rank's end of the job: ordered messages to and from every rank, itself included.
///
/// Messages from one rank arrive in the order in which that rank sent them; between senders there
/// is no order. A message may be empty and may exceed 2³¹ bytes.
pub trait Comm {
    /// This process's number, `0..size`.
    fn rank(&self) -> usize;

    /// Number of processes in the job, ≥ 1.
    fn size(&self) -> usize;

    /// Sends `bytes` to rank `to` and returns once the buffer may be used again. While it waits it
    /// takes in what arrives (for [`poll`](Comm::poll) to find), so that ranks which send large
    /// messages to each other at the same time do not wait for ever.
    fn send(&mut self, to: usize, bytes: &[u8]) -> Result<(), CommError>;

    /// The next message and its sender, if one has arrived in full; never waits.
    fn poll(&mut self) -> Result<Option<(usize, Vec<u8>)>, CommError>;

    /// From now on a message that its receiver does not take within `patience` ends the job with `code`:
    /// the receiver is gone, and MPI has no other way out of the send. `None`: wait for ever.
    fn set_patience(&mut self, _patience: Option<Duration>, _code: u8) {}

    /// Waits, asleep, until every rank is here. Messages that arrive meanwhile are kept for
    /// [`poll`](Comm::poll).
    fn barrier(&mut self);

    /// Ends every process of the job at once; the launcher returns `code` where it can.
    fn abort(&mut self, code: i32) -> !;

    /// Library and size for people, such as `Open MPI 4.1.4, 4 ranks`.
    fn describe(&self) -> String;

    /// This process's number on its machine, and how many of the job's processes run there.
    fn node_local(&self) -> (usize, usize);
}

/// Joins the job: through MPI where a launcher started this process and `local` is false, else as
/// a single process.
///
/// # Errors
/// [`CommError::BuiltWithoutMpi`] where a launcher is seen but the feature `mpi` is off, and what
/// `MpiComm::init` answers.
pub fn connect(local: bool) -> Result<Box<dyn Comm>, CommError> {
    if local {
        return Ok(Box::new(SoloComm::new()));
    }
    match launcher(|name| std::env::var(name).ok()) {
        None => Ok(Box::new(SoloComm::new())),
        #[cfg(feature = "mpi")]
        Some(_) => Ok(Box::new(MpiComm::init()?)),
        #[cfg(not(feature = "mpi"))]
        Some(variable) => Err(CommError::BuiltWithoutMpi { variable }),
    }
}

/// Did an MPI launcher start this process, going by its environment?
pub fn launched() -> bool {
    launcher(|name| std::env::var(name).ok()).is_some()
}

/// This process's rank as the launcher's environment has it, without initialising MPI.
pub fn launched_rank() -> Option<usize> {
    ["OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok()?.trim().parse().ok())
}

/// The variable that tells of a launcher: Open MPI's, PMI's and PMIx's own; then SLURM's, which
/// also marks a shell in an allocation, so that only a step of several tasks counts.
fn launcher(variable: impl Fn(&str) -> Option<String>) -> Option<&'static str> {
    let direct = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"];
    if let Some(name) = direct.into_iter().find(|name| variable(name).is_some()) {
        return Some(name);
    }
    let name = "SLURM_STEP_NUM_TASKS";
    variable(name)?.trim().parse::<usize>().ok().filter(|&tasks| tasks > 1).map(|_| name)
}

/// How many ranks the launcher says it started, and which variable says so. The launcher nearest
/// to the process comes first: `mpirun -n 2` inside a larger SLURM step is a job of 2.
#[cfg(any(feature = "mpi", test))]
fn expected_size(variable: impl Fn(&str) -> Option<String>) -> Option<(&'static str, usize)> {
    ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"]
        .into_iter()
        .find_map(|name| Some((name, variable(name)?.trim().parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_string())
    }

    #[test]
    fn a_launcher_is_told_by_its_environment() {
        type Case<'a> = (&'a [(&'a str, &'a str)], Option<&'a str>, Option<usize>);
        let cases: &[Case] = &[
            (&[], None, None),
            (&[("OMPI_COMM_WORLD_SIZE", "1")], Some("OMPI_COMM_WORLD_SIZE"), Some(1)),
            (&[("PMI_SIZE", "4")], Some("PMI_SIZE"), Some(4)),
            (&[("PMIX_RANK", "0")], Some("PMIX_RANK"), None),
            // sbatch's own shell: an allocation, but not a step of several tasks.
            (&[("SLURM_NTASKS", "8")], None, None),
            (&[("SLURM_NTASKS", "8"), ("SLURM_STEP_NUM_TASKS", "1")], None, Some(1)),
            (&[("SLURM_STEP_NUM_TASKS", "8")], Some("SLURM_STEP_NUM_TASKS"), Some(8)),
            (&[("SLURM_STEP_NUM_TASKS", "many")], None, None),
            // mpirun -n 2 inside a larger step.
            (
                &[("SLURM_STEP_NUM_TASKS", "8"), ("OMPI_COMM_WORLD_SIZE", "2")],
                Some("OMPI_COMM_WORLD_SIZE"),
                Some(2),
            ),
        ];
        for (pairs, name, size) in cases {
            assert_eq!(launcher(environment(pairs)), *name, "{pairs:?}");
            assert_eq!(expected_size(environment(pairs)).map(|(_, size)| size), *size, "{pairs:?}");
        }
    }
}
