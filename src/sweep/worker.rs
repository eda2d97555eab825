//! The loop of a rank that is not the manager: messages in, units to slots, outcomes back.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use super::execute::host_name;
use super::slots::{Done, SlotPool};
use super::unit::{ToManager, ToWorker};
use super::{MANAGER, SweepError};
use crate::comm::Comm;
use crate::device::Arith;

/// Serves the manager until it says stop.
pub fn work(comm: &mut dyn Comm, slots: usize, arith: Arith) -> Result<(), SweepError> {
    let (report, inbox) = channel();
    let pool = SlotPool::start(slots, move |done| {
        let _ = report.send(done);
    })?;
    let (node_rank, _) = comm.node_local();
    let up =
        ToManager::Up { arith: arith.name().to_owned(), slots: pool.len(), host: host_name(), node_rank };
    comm.send(MANAGER, &postcard::to_stdvec(&up)?)?;
    let mut pause = Backoff::new();
    loop {
        while let Some((_, bytes)) = comm.poll()? {
            pause.reset();
            match postcard::from_bytes(&bytes)? {
                ToWorker::Start { arith } => arith.parse::<Arith>()?.set_current()?,
                ToWorker::Target { index, target } => pool.cache.insert(index, *target),
                ToWorker::Forget { index } => pool.cache.remove(index),
                ToWorker::Run { slot, unit, task } => pool.give(slot, unit, *task),
                // Threads that still run end with the process.
                ToWorker::Abandon => return Ok(()),
                ToWorker::Stop => {
                    pool.stop();
                    return Ok(());
                }
            }
        }
        if let Some(done) = pause.wait(&inbox) {
            pause.reset();
            let Done { slot, unit, outcome } = done;
            let done = ToManager::Done { slot, unit, outcome: Box::new(outcome) };
            comm.send(MANAGER, &postcard::to_stdvec(&done)?)?;
        }
    }
}

/// Waits for something in an inbox, ever longer while nothing happens: an idle rank costs no core.
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_micros(20);
    const LAST: Duration = Duration::from_millis(2);

    /// Starts with the shortest wait.
    pub fn new() -> Self {
        Self { next: Self::FIRST }
    }

    /// Something happened: the next wait is short again.
    pub fn reset(&mut self) {
        self.next = Self::FIRST;
    }

    /// What arrives within the present wait, if anything does.
    pub fn wait<M>(&mut self, inbox: &Receiver<M>) -> Option<M> {
        match inbox.recv_timeout(self.next) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => {
                self.next = (self.next * 2).min(Self::LAST);
                None
            }
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(self.next);
                None
            }
        }
    }
}
