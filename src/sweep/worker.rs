//! The loop of a rank that is not the manager: messages in, units to slots, outcomes back.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::execute::{Loaded, host_name};
use super::fault::{self, Count};
use super::slots::{OwnFiles, Report, SlotPool};
use super::unit::{ToManager, ToWorker};
use super::{MANAGER, SweepError, context};
use crate::comm::Comm;
use crate::device::Arith;
use crate::device::gpu::RankDevice;

/// How long rank 0, once it has told all to stop, waits for slots.
pub const PATIENCE: Duration = Duration::from_millis(400);

/// Serves the manager until it says stop. `device` is the rank's, where it may use one; `signal` is set by signals that
/// reach this process.
pub fn work(
    comm: &mut dyn Comm,
    slots: usize,
    arith: Arith,
    device: Option<RankDevice>,
    signal: &AtomicUsize,
) -> Result<(), SweepError> {
    let (report, inbox) = channel();
    // Until rank 0 says how often work is saved, there is none.
    let described = device.as_ref().map(|device| (device.info().to_string(), device.info().arithmetic()));
    let pool = SlotPool::start(slots, Duration::MAX, device, move |told| {
        let _ = report.send(told);
    })?;
    let (node_rank, _) = comm.node_local();
    let up = ToManager::Up {
        arith: arith.name().to_owned(),
        slots: pool.len(),
        host: host_name(),
        node_rank,
        device: described,
    };
    tell(comm, &up)?;
    let mut worker = Worker {
        steps: vec![0; pool.len()],
        pool,
        waiting: BTreeMap::new(),
        draining: None,
        told_of_signal: false,
        sent_held: false,
        last_sign: Instant::now(),
    };
    let mut pause = Backoff::new();
    loop {
        while let Some((_, bytes)) = comm.poll()? {
            pause.reset();
            if worker.hear(comm, postcard::from_bytes(&bytes)?)? {
                return Ok(());
            }
        }
        let signal = signal.load(Ordering::Relaxed);
        if signal != 0 && !std::mem::replace(&mut worker.told_of_signal, true) {
            tell(comm, &ToManager::Signal { signal })?;
        }
        if let Some(report) = pause.wait(&inbox) {
            pause.reset();
            worker.pass_on(comm, report)?;
        }
        worker.give_signs(comm)?;
    }
}

fn tell(comm: &mut dyn Comm, message: &ToManager) -> Result<(), SweepError> {
    fault::count(Count::Message);
    Ok(comm.send(MANAGER, &postcard::to_stdvec(message)?)?)
}

struct Worker {
    pool: SlotPool,
    /// The checkpoint of each slot that waits to be sent.
    waiting: BTreeMap<usize, (u32, Vec<u8>)>,
    draining: Option<Instant>,
    told_of_signal: bool,
    /// Whether what slots hold ready has been sent.
    sent_held: bool,
    /// Steps of every slot at the last sign.
    steps: Vec<u64>,
    last_sign: Instant,
}

/// Time between two signs of life of a slot.
const SIGN: Duration = Duration::from_secs(1);
/// After this long a rank that was told to stop sends what its slots hold ready.
pub const READY: Duration = Duration::from_millis(250);

impl Worker {
    /// Tells which slots have made steps; and, late in a stop, hands over what they hold ready.
    fn give_signs(&mut self, comm: &mut dyn Comm) -> Result<(), SweepError> {
        if self.last_sign.elapsed() >= SIGN {
            self.last_sign = Instant::now();
            for slot in 0..self.steps.len() {
                let steps = self.pool.control.steps(slot);
                if steps != std::mem::replace(&mut self.steps[slot], steps) {
                    tell(comm, &ToManager::Sign { slot, saved: false })?;
                }
            }
        }
        if self.draining.is_some_and(|since| since.elapsed() > READY)
            && !std::mem::replace(&mut self.sent_held, true)
        {
            for (slot, unit, state) in self.pool.control.take_held() {
                tell(comm, &ToManager::Saved { slot, unit, state })?;
            }
        }
        Ok(())
    }

    /// Does what the manager says; whether that is to end.
    fn hear(&mut self, comm: &mut dyn Comm, message: ToWorker) -> Result<bool, SweepError> {
        match message {
            ToWorker::Start { arith, every, dir } => self.start(&arith, every, dir)?,
            ToWorker::Target { index, target } => self.pool.cache.targets.insert(index, Loaded::new(*target)),
            ToWorker::Forget { index } => self.pool.cache.targets.remove(index),
            ToWorker::Share { run, share } => self.pool.cache.shares.insert(run, *share),
            ToWorker::Unshare { run } => self.pool.cache.shares.remove(run),
            ToWorker::Run { slot, order } => self.pool.give(slot, order),
            ToWorker::Send { slot } => {
                if let Some((unit, state)) = self.waiting.remove(&slot) {
                    tell(comm, &ToManager::Saved { slot, unit, state })?;
                    self.pool.control.passed_on(slot);
                }
            }
            ToWorker::Drain => {
                self.pool.control.stop();
                self.draining = Some(Instant::now());
                for (slot, (unit, state)) in std::mem::take(&mut self.waiting) {
                    tell(comm, &ToManager::Saved { slot, unit, state })?;
                }
            }
            ToWorker::Cancel { slot, unit } => self.pool.control.cancel(slot, unit),
            ToWorker::Replace { slot } => {
                self.pool.replace(slot)?;
                tell(comm, &ToManager::Replaced { slot })?;
            }
            // Threads that still run end with the process.
            ToWorker::Abandon | ToWorker::Stop => {
                tell(comm, &ToManager::Bye)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn start(&self, arith: &str, every: u64, dir: Option<PathBuf>) -> Result<(), SweepError> {
        arith.parse::<Arith>()?.set_current()?;
        self.pool.control.set_every(Duration::from_millis(every));
        if let Some(dir) = dir {
            self.pool.write_to(OwnFiles { dir, context: context() });
        }
        Ok(())
    }

    fn pass_on(&mut self, comm: &mut dyn Comm, report: Report) -> Result<(), SweepError> {
        match report {
            Report::Written { slot } => tell(comm, &ToManager::Sign { slot, saved: true }),
            Report::Saved { slot, unit, state } if self.draining.is_some() => {
                tell(comm, &ToManager::Saved { slot, unit, state })
            }
            Report::Saved { slot, unit, state } => {
                let bytes = state.len();
                // One that waits already is replaced by the newer one.
                if self.waiting.insert(slot, (unit, state)).is_none() {
                    tell(comm, &ToManager::Waiting { slot, bytes })?;
                }
                Ok(())
            }
            Report::Done { slot, unit, outcome } => {
                if self.waiting.get(&slot).is_some_and(|(waiting, _)| *waiting == unit) {
                    self.waiting.remove(&slot);
                }
                tell(comm, &ToManager::Done { slot, unit, outcome: Box::new(outcome) })
            }
        }
    }
}

/// Waits for something in an inbox: a quarter of the time between the last two things that happened, and ever longer
/// while nothing happens, until looking takes no more than a hundredth of a core, or 4 ms: an idle rank costs nothing,
/// and answers within 1 ms where to wake costs 10 µs.
///
/// Where something happened [`Backoff::ROW`] times in a row within [`Backoff::BRISK`] each, it looks without
/// sleeping for as long again: to wake a core that has gone idle takes longer than most units of such a sweep.
pub struct Backoff {
    next: Duration,
    longest: Duration,
    looks: u32,
    computed: Duration,
    last: Instant,
    row: u32,
    awake_until: Instant,
}

impl Backoff {
    const FIRST: Duration = Duration::from_micros(20);
    const LONG: Duration = Duration::from_millis(1);
    const LONGEST: Duration = Duration::from_millis(4);
    /// Part of a core that looking may take: one in so many.
    const SHARE: u32 = 100;
    /// What a look costs is learnt from so many.
    const LOOKS: u32 = 64;
    const BRISK: Duration = Duration::from_micros(200);
    const ROW: u32 = 8;

    /// Starts with the shortest wait.
    pub fn new() -> Self {
        let now = Instant::now();
        Self {
            next: Self::FIRST,
            longest: Self::LONG,
            looks: 0,
            computed: computed(),
            last: now,
            row: 0,
            awake_until: now,
        }
    }

    /// Something happened: the next wait is short again where that is likely to go on.
    pub fn reset(&mut self) {
        let now = Instant::now();
        let since = now - std::mem::replace(&mut self.last, now);
        self.next = (since / 4).clamp(Self::FIRST, self.longest);
        let soon = since < Self::BRISK;
        self.row = if soon { self.row.saturating_add(1) } else { 0 };
        if self.row >= Self::ROW {
            self.awake_until = now + Self::BRISK;
        }
    }

    /// What arrives within the present wait, if anything does.
    pub fn wait<M>(&mut self, inbox: &Receiver<M>) -> Option<M> {
        if Instant::now() < self.awake_until {
            let message = inbox.try_recv().ok();
            if message.is_none() {
                std::thread::yield_now();
            }
            return message;
        }
        self.learn();
        match inbox.recv_timeout(self.next) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => {
                self.next = (self.next * 4).min(self.longest);
                None
            }
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(self.next);
                None
            }
        }
    }

    /// Takes the longest wait from what looks have cost.
    fn learn(&mut self) {
        self.looks += 1;
        if self.looks == Self::LOOKS {
            let now = computed();
            let look = now.saturating_sub(std::mem::replace(&mut self.computed, now)) / Self::LOOKS;
            self.longest = (look * Self::SHARE).clamp(Self::LONG, Self::LONGEST);
            self.looks = 0;
        }
    }
}

/// Time that this thread has had on a core.
fn computed() -> Duration {
    Duration::try_from(rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime)).unwrap_or_default()
}
