//! The worker slots of one rank: threads that execute units.

use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::execute::{TargetCache, execute};
use super::unit::{Order, Outcome, UnitName};
use super::watch::{Control, Watcher};
use crate::resume::Desk;
use crate::store::{self, Hash};

/// What a slot reports.
#[derive(Debug)]
pub enum Report {
    /// A checkpoint of the unit that it works on.
    Saved {
        /// The slot's number on this rank.
        slot: usize,
        /// The unit.
        unit: u32,
        /// The state.
        state: Vec<u8>,
    },
    /// A unit's end.
    Done {
        /// The slot's number on this rank.
        slot: usize,
        /// The unit.
        unit: u32,
        /// Its end.
        outcome: Outcome,
    },
}

/// Where this rank writes checkpoints itself, in what context.
#[derive(Clone, Debug)]
pub struct OwnFiles {
    /// The directory.
    pub dir: PathBuf,
    /// Who can read them.
    pub context: String,
}

/// Threads that work off units in the order given, each its own queue.
pub struct SlotPool {
    /// The targets that units name.
    pub cache: Arc<TargetCache>,
    /// What the slots look at.
    pub control: Arc<Control>,
    files: Arc<Mutex<Option<OwnFiles>>>,
    queues: Vec<Sender<Order>>,
    threads: Vec<JoinHandle<()>>,
}

impl SlotPool {
    /// Starts `slots` threads that save their work `every` so often; what they have to tell is handed to
    /// `report`.
    pub fn start<F>(slots: usize, every: Duration, report: F) -> std::io::Result<Self>
    where
        F: Fn(Report) + Clone + Send + 'static,
    {
        let cache = Arc::new(TargetCache::default());
        let control = Arc::new(Control::new(slots, every));
        let files = Arc::new(Mutex::new(None));
        let (mut queues, mut threads) = (Vec::with_capacity(slots), Vec::with_capacity(slots));
        for slot in 0..slots {
            let (queue, orders) = channel::<Order>();
            let desk = Bench {
                slot,
                cache: Arc::clone(&cache),
                control: Arc::clone(&control),
                files: Arc::clone(&files),
            };
            let report = report.clone();
            let thread = std::thread::Builder::new().name(format!("slot-{slot}")).spawn(move || {
                for order in orders {
                    desk.work(order, &report);
                }
            })?;
            queues.push(queue);
            threads.push(thread);
        }
        Ok(Self { cache, control, files, queues, threads })
    }

    /// Number of slots.
    pub fn len(&self) -> usize {
        self.queues.len()
    }

    /// From now on this rank writes checkpoints itself.
    pub fn write_to(&self, files: OwnFiles) {
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = Some(files);
    }

    /// Queues a unit on a slot. A slot whose thread is gone loses it, which its own panic explains.
    pub fn give(&self, slot: usize, order: Order) {
        if let Some(queue) = self.queues.get(slot) {
            let _ = queue.send(order);
        }
    }

    /// Lets every slot finish what it holds and ends its thread.
    pub fn stop(self) {
        drop(self.queues);
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

/// A checkpoint: the seconds that went into it (8 bytes, little-endian), and the state.
fn pack(seconds: f64, state: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + state.len());
    bytes.extend_from_slice(&seconds.to_le_bytes());
    bytes.extend_from_slice(state);
    bytes
}

fn unpack(bytes: &[u8]) -> Option<(f64, &[u8])> {
    let (seconds, state) = bytes.split_first_chunk::<8>()?;
    Some((f64::from_le_bytes(*seconds), state))
}

/// One slot's place of work.
struct Bench {
    slot: usize,
    cache: Arc<TargetCache>,
    control: Arc<Control>,
    files: Arc<Mutex<Option<OwnFiles>>>,
}

impl Bench {
    fn work(&self, order: Order, report: &impl Fn(Report)) {
        let Order { unit, name, task, attempt, resume } = order;
        let slot = self.slot;
        if self.control.is_stopping() {
            return report(Report::Done { slot, unit, outcome: Outcome::interrupted() });
        }
        let (before, resume) = resume.as_deref().and_then(unpack).unzip();
        let before: f64 = before.unwrap_or(0.0);
        if resume.is_some() {
            log::info!("{} goes on from its checkpoint: {before:.1} s of work are kept", name.part);
        }
        let begun = Instant::now();
        let watcher = Watcher::new(&self.control, slot, |state: Vec<u8>| {
            let state = pack(before + begun.elapsed().as_secs_f64(), &state);
            match self.written(&name, &state) {
                true => self.control.passed_on(slot),
                false => report(Report::Saved { slot, unit, state }),
            }
        });
        self.control.passed_on(slot);
        let mut outcome = execute(*task, &self.cache, Desk::new(watcher, resume), (&name.part, attempt));
        outcome.seconds += before;
        report(Report::Done { slot, unit, outcome });
    }

    /// Writes a checkpoint where this rank does that itself; whether it is written.
    fn written(&self, name: &UnitName, state: &[u8]) -> bool {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(OwnFiles { dir, context }) = files else { return false };
        let kept = store::keep(&dir, (&Hash(name.owner), &name.checkpoint()), &context, state, true);
        if let Err(e) = &kept {
            log::warn!("{e}; the checkpoint goes to rank 0");
        }
        kept.is_ok()
    }
}
