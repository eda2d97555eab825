//! Diagnoses spread over threads and ranks: rank 0 reads and writes disks and hands out work, everyone
//! computes. What a job answers does not depend on who does it.

use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::compare_with_teacher;
use crate::comm::{Comm, CommError, catch_panic};
use crate::config::TargetSpec;
use crate::diagnostics::{COLUMNS, Mode, diagnose};
use crate::io::netcdf;

/// Time between two looks for answers.
const PAUSE: Duration = Duration::from_millis(1);
/// The rank that reads, writes and hands out.
const ROOT: usize = 0;

/// A piece of work, with all it needs.
#[derive(Debug, Serialize, Deserialize)]
pub enum Job {
    /// Diagnoses a trace.
    Run {
        /// The bytes of `trace.nc`, their hash checked.
        trace: Vec<u8>,
        /// How much.
        mode: Mode,
    },
    /// Compares a target's student with its teacher.
    Target {
        /// Resolved configuration of the target.
        spec: Box<TargetSpec>,
        /// Its id.
        id: [u8; 32],
        /// Rows × inputs.
        x: Vec<f64>,
        /// Rows × outputs.
        y: Vec<f64>,
        /// Parameters.
        w: Vec<f64>,
    },
}

/// Files for a directory's `diagnostics/`, by name.
pub type Files = Vec<(String, Vec<u8>)>;

/// What ends the whole of the work.
#[derive(Debug, thiserror::Error)]
pub enum SpreadError {
    /// Messages between ranks.
    #[error(transparent)]
    Comm(#[from] CommError),
    /// A message that cannot be read.
    #[error("a message between ranks cannot be read ({0}): are all ranks the same version?")]
    Wire(#[from] postcard::Error),
}

impl Job {
    /// Does it, on at most `threads` threads. A run gives `diagnosis.json`; a target `target.json` and
    /// `predictions.npz`, or nothing where it has no teacher.
    ///
    /// # Errors
    /// What is wrong, in words that go on from the name of the file or directory.
    pub fn work(self, threads: usize) -> Result<Files, String> {
        catch_panic(move || self.attempt(threads))
            .unwrap_or_else(|panic| Err(format!("made a bug show: {}", panic.message)))
    }

    fn attempt(self, threads: usize) -> Result<Files, String> {
        match self {
            Job::Run { trace: bytes, mode } => {
                let read = netcdf::read_columns(&bytes, &|name| COLUMNS.contains(&name));
                let trace = read.map_err(|e| format!("is damaged ({e})"))?;
                // A long trace is large twice over.
                drop(bytes);
                Ok(vec![("diagnosis.json".into(), pretty(&diagnose(&trace, mode, threads))?)])
            }
            Job::Target { spec, id, x, y, w } => match compare_with_teacher(&spec, id, &x, &y, &w)? {
                Some((diagnosis, predictions)) => Ok(vec![
                    ("target.json".into(), pretty(&diagnosis)?),
                    ("predictions.npz".into(), predictions),
                ]),
                None => Ok(Vec::new()),
            },
        }
    }
}

fn pretty<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|e| e.to_string())?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Rank 0's part: `count` jobs, each made by `load` when somebody is free (`None`: there is nothing to
/// do for it), each answer given to `done` with its index, in the order of their ends. Works on `threads`
/// threads here beside all other ranks, and sends these home at the end.
///
/// At most one job a thread and a rank is in memory at a time.
///
/// # Errors
/// [`SpreadError`]: the connection failed; ranks must then be ended by [`Comm::abort`].
pub fn conduct(
    comm: &mut dyn Comm,
    threads: usize,
    count: usize,
    load: &mut dyn FnMut(usize) -> Option<Job>,
    done: &mut dyn FnMut(usize, Result<Files, String>),
) -> Result<(), SpreadError> {
    let threads = threads.max(1);
    let here = if comm.size() > 1 { threads } else { threads.min(count.max(1)) };
    // Threads that have no job of their own help with those of the others.
    let each = (threads / here).max(1);
    let (give, take) = mpsc::channel::<(usize, Job)>();
    let (answer, answers) = mpsc::channel::<(usize, Result<Files, String>)>();
    let take = Mutex::new(take);
    std::thread::scope(|scope| {
        let mut free_here = 0;
        for _ in 0..here {
            let (answer, take) = (answer.clone(), &take);
            let next = move || take.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let work = move || {
                while let Ok((index, job)) = next() {
                    if answer.send((index, job.work(each))).is_err() {
                        break;
                    }
                }
            };
            free_here += usize::from(std::thread::Builder::new().spawn_scoped(scope, work).is_ok());
        }
        let alone = free_here == 0 && comm.size() == 1;
        let mut free_ranks: Vec<usize> = (ROOT + 1..comm.size()).collect();
        let (mut next, mut out) = (0, 0);
        while next < count || out > 0 {
            let mut idle = true;
            while next < count && (alone || free_here > 0 || !free_ranks.is_empty()) {
                let index = next;
                next += 1;
                idle = false;
                let Some(job) = load(index) else { continue };
                if alone {
                    done(index, job.work(1));
                } else if let Some(rank) = free_ranks.pop() {
                    comm.send(rank, &postcard::to_stdvec(&(index, job))?)?;
                    out += 1;
                } else {
                    // The threads live as long as this end of the channel.
                    let _ = give.send((index, job));
                    free_here -= 1;
                    out += 1;
                }
            }
            while let Ok((index, result)) = answers.try_recv() {
                (free_here, out, idle) = (free_here + 1, out - 1, false);
                done(index, result);
            }
            while let Some((rank, bytes)) = comm.poll()? {
                let (index, result) = postcard::from_bytes(&bytes)?;
                free_ranks.push(rank);
                (out, idle) = (out - 1, false);
                done(index, result);
            }
            if idle {
                std::thread::sleep(PAUSE);
            }
        }
        drop(give);
        (ROOT + 1..comm.size()).try_for_each(|rank| comm.send(rank, &[]))?;
        Ok(())
    })
}

/// The part of every other rank: does what it is sent until it is sent home.
///
/// # Errors
/// As [`conduct`].
pub fn serve(comm: &mut dyn Comm) -> Result<(), SpreadError> {
    loop {
        match comm.poll()? {
            None => std::thread::sleep(PAUSE),
            Some((_, bytes)) if bytes.is_empty() => return Ok(()),
            Some((_, bytes)) => {
                let (index, job): (usize, Job) = postcard::from_bytes(&bytes)?;
                drop(bytes);
                let answer = (index, job.work(1));
                comm.send(ROOT, &postcard::to_stdvec(&answer)?)?;
            }
        }
    }
}

/// Sends all other ranks home, where there turns out to be nothing to do.
///
/// # Errors
/// As [`conduct`].
pub fn dismiss(comm: &mut dyn Comm) -> Result<(), SpreadError> {
    (ROOT + 1..comm.size()).try_for_each(|rank| comm.send(rank, &[])).map_err(SpreadError::from)
}
