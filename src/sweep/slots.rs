//! The worker slots of one rank: threads that execute units.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::execute::{Cache, execute};
use super::unit::{End, Order, Outcome, UnitName};
use super::watch::{Control, Watcher};
use crate::device::gpu::{RankDevice, ThreadDevice};
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
    /// A checkpoint of the unit that it works on is on disk.
    Written {
        /// The slot's number on this rank.
        slot: usize,
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
    /// What units name.
    pub cache: Arc<Cache>,
    /// What the slots look at.
    pub control: Arc<Control>,
    files: Arc<Mutex<Option<OwnFiles>>>,
    queues: Vec<Sender<Order>>,
    threads: Vec<JoinHandle<()>>,
    device: Option<RankDevice>,
    report: Box<dyn Fn() -> Box<dyn Fn(Report) + Send>>,
}

impl SlotPool {
    /// Starts `slots` threads that save their work `every` so often, and that may use `device`; what they have to tell
    /// is handed to `report`.
    pub fn start<F>(
        slots: usize,
        every: Duration,
        device: Option<RankDevice>,
        report: F,
    ) -> std::io::Result<Self>
    where
        F: Fn(Report) + Clone + Send + 'static,
    {
        let mut pool = Self {
            cache: Arc::new(Cache::default()),
            control: Arc::new(Control::new(slots, every)),
            files: Arc::new(Mutex::new(None)),
            queues: Vec::with_capacity(slots),
            threads: Vec::with_capacity(slots),
            device,
            report: Box::new(move || Box::new(report.clone())),
        };
        for slot in 0..slots {
            let (queue, thread) = pool.thread(slot)?;
            pool.queues.push(queue);
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    fn thread(&self, slot: usize) -> std::io::Result<(Sender<Order>, JoinHandle<()>)> {
        let (queue, orders) = channel::<Order>();
        let bench = Bench {
            slot,
            cache: Arc::clone(&self.cache),
            control: Arc::clone(&self.control),
            files: Arc::clone(&self.files),
        };
        let (report, device) = ((self.report)(), self.device.clone());
        let thread = std::thread::Builder::new().name(format!("slot-{slot}")).spawn(move || {
            let device = ThreadDevice::new(device);
            let mut brisk = false;
            while let Some(order) = next(&orders, brisk) {
                let begun = Instant::now();
                bench.work(order, &device, &report);
                brisk = begun.elapsed() < BRISK;
            }
        })?;
        Ok((queue, thread))
    }

    /// Puts a new thread in the place of one that does not answer. The old one, should it wake up, ends after
    /// the unit that it is at.
    pub fn replace(&mut self, slot: usize) -> std::io::Result<()> {
        let (queue, thread) = self.thread(slot)?;
        if let (Some(old), Some(of)) = (self.queues.get_mut(slot), self.threads.get_mut(slot)) {
            (*old, *of) = (queue, thread);
        }
        Ok(())
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

/// After a unit as short as that the next is looked for without sleeping, for as long again: to wake a core that
/// has gone idle takes longer.
const BRISK: Duration = Duration::from_micros(200);

/// The next order, or none where there will be no more.
fn next(orders: &Receiver<Order>, brisk: bool) -> Option<Order> {
    let begun = Instant::now();
    while brisk && begun.elapsed() < BRISK {
        match orders.try_recv() {
            Ok(order) => return Some(order),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => std::thread::yield_now(),
        }
    }
    orders.recv().ok()
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
    cache: Arc<Cache>,
    control: Arc<Control>,
    files: Arc<Mutex<Option<OwnFiles>>>,
}

impl Bench {
    fn work(&self, order: Order, device: &ThreadDevice, report: &impl Fn(Report)) {
        let Order { unit, name, task, attempt, resume } = order;
        let slot = self.slot;
        if self.control.is_stopping() || self.control.is_cancelled(slot, unit) {
            return report(Report::Done { slot, unit, outcome: Outcome::interrupted() });
        }
        let (before, resume) = resume.as_deref().and_then(unpack).unzip();
        let before: f64 = before.unwrap_or(0.0);
        if resume.is_some() {
            log::info!("{} goes on from its checkpoint: {before:.1} s of work are kept", name.part);
        }
        let begun = Instant::now();
        let seconds = || before + begun.elapsed().as_secs_f64();
        let keep = |state: Vec<u8>| match self.written(&name, &state) {
            true => {
                self.control.passed_on(slot);
                report(Report::Written { slot });
            }
            false => report(Report::Saved { slot, unit, state }),
        };
        self.control.passed_on(slot);
        let watcher = Watcher::new(&self.control, (slot, unit), |state| pack(seconds(), &state), keep);
        let rank = (&*self.cache, device);
        let mut outcome = execute(*task, rank, Desk::new(watcher, resume), (&name.part, attempt));
        outcome.seconds += before;
        if let End::Paused(pause) = &mut outcome.end {
            pause.state = pack(outcome.seconds, &pause.state);
        }
        outcome.attempt = attempt;
        self.control.release(slot);
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
