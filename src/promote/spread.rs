//! Diagnoses spread over threads and ranks: rank 0 reads and writes disks and hands out work, everyone
//! computes. What a job answers does not depend on who does it.

use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Rows;
use super::figures::{self, RunCard, Sheet, TargetCard};
use super::runs::AGAIN;
use crate::comm::{Comm, CommError, catch_panic};
use crate::diagnostics::{COLUMNS, Estimate, FIRST, Mode, diagnose_beside};
use crate::io::netcdf;
use crate::plot::{Figure, PlotError};
use crate::stats::{Order, Turn, in_parallel};
use crate::trace::{ChainTrace, Trace};

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
        /// How much, and which figures.
        mode: Mode,
        /// What figures say beside the draws; without it there are none.
        card: Option<Box<RunCard>>,
    },
    /// Compares a target's student with its teacher, and the runs on it with each other.
    Target {
        /// Rows and parameters, where they can be read.
        rows: Option<Box<Rows>>,
        /// What figures say of the target; without it there are none.
        card: Option<Box<TargetCard>>,
        /// What figures say of each run, and the bytes of its `trace.nc`.
        traces: Vec<(RunCard, Vec<u8>)>,
    },
}

/// Files for a directory's `diagnostics/`, by name.
pub type Files = Vec<(String, Vec<u8>)>;

/// What a job made.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Made {
    /// The files.
    pub files: Files,
    /// What could not be made: the file, what is wrong with it, what to do.
    pub problems: Vec<(String, String, String)>,
}

impl Made {
    /// Adds figures as PNG and SVG.
    fn add(&mut self, drawn: impl IntoIterator<Item = Option<Drawn>>) {
        for (figure, png) in drawn.into_iter().flatten() {
            let file = |ending: &str| format!("{}.{ending}", figure.name().stem());
            match png {
                Ok(png) => self.files.push((file("png"), png)),
                Err(error) => self.problems.push((
                    format!("diagnostics/{}", file("png")),
                    format!("cannot be made ({error})"),
                    "the SVG beside it shows the same; free memory and try again".into(),
                )),
            }
            self.files.push((file("svg"), figure.svg().as_bytes().to_vec()));
        }
    }
}

/// A figure and its pixels.
type Drawn = (Figure, Result<Vec<u8>, PlotError>);

/// A figure is drawn on one thread, others of the same subject beside it.
fn drawing<'a>(figure: impl FnOnce() -> Option<Figure> + Send + 'a) -> Turn<'a, Option<Drawn>> {
    Box::new(move || {
        let figure = figure()?;
        let png = figure.png();
        Some((figure, png))
    })
}

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
    /// Does it, on at most `threads` threads. A run gives `diagnosis.json` and its figures; a target
    /// figures, and `target.json` and `predictions.npz` where it has a teacher.
    ///
    /// # Errors
    /// What is wrong, in words that go on from the name of the file or directory.
    pub fn work(self, threads: usize) -> Result<Made, String> {
        catch_panic(move || self.attempt(threads))
            .unwrap_or_else(|panic| Err(format!("made a bug show: {}", panic.message)))
    }

    fn attempt(self, threads: usize) -> Result<Made, String> {
        let mut made = Made::default();
        match self {
            Job::Run { trace: bytes, mode, card } => {
                let (trace, order) = unpack(bytes, threads)?;
                let drawings = |estimate: Estimate| -> Vec<Turn<'_, Option<Drawn>>> {
                    let names =
                        card.iter().flat_map(|card| figures::of_mode(mode).iter().map(move |n| (card, *n)));
                    let trace = &trace;
                    names
                        .map(|(card, name)| drawing(move || card.figure(trace, Some(&estimate), name)))
                        .collect()
                };
                let (diagnosis, drawn) = diagnose_beside(&trace, mode, threads, order, drawings);
                made.files.push(("diagnosis.json".into(), pretty(&diagnosis)?));
                made.add(drawn);
            }
            Job::Target { rows, card, traces } => {
                let compared = rows.map_or(Ok(None), |rows| rows.compare());
                let mut predictions = None;
                match compared {
                    Ok(Some((diagnosis, bytes))) => {
                        made.files.push(("target.json".into(), pretty(&diagnosis)?));
                        predictions = Some(bytes);
                    }
                    Ok(None) => {}
                    // Without figures there is nothing else to make.
                    Err(what) if card.is_none() => return Err(what),
                    Err(what) => made.problems.push(("data.npz".into(), what, AGAIN.into())),
                }
                if let Some(card) = card {
                    let mut sheets = Vec::new();
                    for (card, bytes) in traces {
                        let sampler = card.sampler.clone();
                        match Sheet::read(card, &bytes) {
                            Ok(sheet) => sheets.push(sheet),
                            Err(what) => {
                                made.problems.push((format!("trace.nc of {sampler}"), what, AGAIN.into()))
                            }
                        }
                    }
                    let (card, sheets, pairs) = (&card, &sheets, predictions.as_deref());
                    let drawings = figures::TARGET_FIGURES
                        .iter()
                        .map(|name| drawing(move || card.figure(sheets, pairs, *name)))
                        .collect();
                    made.add(in_parallel(drawings, threads));
                }
                made.files.extend(predictions.map(|bytes| ("predictions.npz".to_owned(), bytes)));
            }
        }
        Ok(made)
    }
}

/// The columns of a trace that are looked at. One comes first, and its draws are put in order while the others are
/// unpacked, which one thread does alone.
fn unpack(bytes: Vec<u8>, threads: usize) -> Result<(Trace, Option<Order>), String> {
    let looked_at = |name: &str| COLUMNS.contains(&name);
    netcdf::with_columns(&bytes, |columns| {
        if threads < 2 {
            return Ok((columns.read(&looked_at)?, None));
        }
        let first = columns.read(&|name| name == FIRST)?;
        let chains = first.column(FIRST).unwrap_or_default();
        let (rest, order) = std::thread::scope(|scope| {
            // Where no thread can be had, a summary sorts.
            let sorting = std::thread::Builder::new().spawn_scoped(scope, || Order::of(&chains)).ok();
            let rest = columns.read(&|name| name != FIRST && looked_at(name));
            (rest, sorting.and_then(|thread| thread.join().ok()).flatten())
        });
        let mut trace = rest?;
        trace.layout.extend(first.layout);
        trace.chains.resize_with(first.chains.len().max(trace.chains.len()), ChainTrace::default);
        for (chain, column) in trace.chains.iter_mut().zip(first.chains) {
            chain.values.extend(column.values);
        }
        Ok((trace, order))
    })
    .map_err(|e| format!("is damaged ({e})"))
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
    done: &mut dyn FnMut(usize, Result<Made, String>),
) -> Result<(), SpreadError> {
    let threads = threads.max(1);
    let here = if comm.size() > 1 { threads } else { threads.min(count.max(1)) };
    // Threads that have no job of their own help with those of the others.
    let each = (threads / here).max(1);
    let (give, take) = mpsc::channel::<(usize, Job)>();
    let (answer, answers) = mpsc::channel::<(usize, Result<Made, String>)>();
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
