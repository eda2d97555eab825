//! How a rank's running units are watched: asked to stop, and asked for checkpoints.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::resume::{Flow, Progress, Watch};

/// Milliseconds between two checkpoints of a unit, at least.
const SHORTEST: u64 = 5;
/// A step so long may not end before a job that is stopped has to: the state before it is held ready.
const LONG: Duration = Duration::from_millis(250);

/// What all slots of a rank look at.
#[derive(Debug)]
pub struct Control {
    stop: AtomicBool,
    /// Milliseconds between two checkpoints of a unit.
    every: AtomicU64,
    seats: Vec<Seat>,
}

/// What is kept of one slot.
#[derive(Debug, Default)]
struct Seat {
    /// Its last checkpoint is still on its way.
    pending: AtomicBool,
    /// Steps that its units have made: a sign of life.
    steps: AtomicU64,
    /// Of a unit with long steps: the state before the present one, should it be asked to stop in its middle.
    held: Mutex<Option<(u32, Vec<u8>)>>,
    /// Units given to it that nobody wants any more.
    cancelled: Mutex<Vec<u32>>,
    /// Whether there are any.
    any_cancelled: AtomicBool,
}

impl Control {
    /// For `slots` slots, with a checkpoint every so often.
    pub fn new(slots: usize, every: Duration) -> Self {
        let seats = (0..slots).map(|_| Seat::default()).collect();
        let control = Self { stop: AtomicBool::new(false), every: AtomicU64::new(0), seats };
        control.set_every(every);
        control
    }

    /// Changes the time between two checkpoints.
    pub fn set_every(&self, every: Duration) {
        let every = u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
        self.every.store(every.max(SHORTEST), Ordering::Relaxed);
    }

    /// Asks every unit to stop at its next step.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether units are to stop.
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Asks one unit to stop.
    pub fn cancel(&self, slot: usize, unit: u32) {
        if let Some(seat) = self.seats.get(slot) {
            seat.cancelled.lock().unwrap_or_else(PoisonError::into_inner).push(unit);
            seat.any_cancelled.store(true, Ordering::Release);
        }
    }

    /// Whether a unit was asked to.
    pub fn is_cancelled(&self, slot: usize, unit: u32) -> bool {
        self.seats.get(slot).is_some_and(|seat| {
            seat.any_cancelled.load(Ordering::Acquire)
                && seat.cancelled.lock().unwrap_or_else(PoisonError::into_inner).contains(&unit)
        })
    }

    /// A slot's checkpoint has been passed on: the next may be made.
    pub fn passed_on(&self, slot: usize) {
        if let Some(seat) = self.seats.get(slot) {
            seat.pending.store(false, Ordering::Relaxed);
        }
    }

    /// Steps that units on a slot have made so far.
    pub fn steps(&self, slot: usize) -> u64 {
        self.seats.get(slot).map_or(0, |seat| seat.steps.load(Ordering::Relaxed))
    }

    /// A unit on a slot has ended: what is held of it is of no use any more.
    pub fn release(&self, slot: usize) {
        if let Some(seat) = self.seats.get(slot) {
            *seat.held.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// The states that slots hold of units whose steps are long: (slot, unit, state).
    pub fn take_held(&self) -> Vec<(usize, u32, Vec<u8>)> {
        let taken = |(slot, seat): (usize, &Seat)| {
            let (unit, state) = seat.held.lock().unwrap_or_else(PoisonError::into_inner).take()?;
            Some((slot, unit, state))
        };
        self.seats.iter().enumerate().filter_map(taken).collect()
    }

    fn every(&self) -> Duration {
        Duration::from_millis(self.every.load(Ordering::Relaxed))
    }
}

/// Watches one unit on one slot; checkpoints go to `keep`, as they come or as `pack` makes them.
pub struct Watcher<'a, P, K> {
    control: &'a Control,
    slot: usize,
    unit: u32,
    due: Instant,
    last: Instant,
    pack: P,
    keep: K,
}

impl<'a, P: FnMut(Vec<u8>) -> Vec<u8>, K: FnMut(Vec<u8>)> Watcher<'a, P, K> {
    /// From now on.
    pub fn new(control: &'a Control, (slot, unit): (usize, u32), pack: P, keep: K) -> Self {
        control.release(slot);
        let now = Instant::now();
        Self { control, slot, unit, due: now + control.every(), last: now, pack, keep }
    }

    fn is_due(&self, now: Instant) -> bool {
        now >= self.due && !self.control.seats[self.slot].pending.load(Ordering::Relaxed)
    }
}

impl<P: FnMut(Vec<u8>) -> Vec<u8>, K: FnMut(Vec<u8>)> Watch for Watcher<'_, P, K> {
    fn flow(&mut self, _: Progress) -> Flow {
        self.control.seats[self.slot].steps.fetch_add(1, Ordering::Relaxed);
        if self.control.is_stopping() || self.control.is_cancelled(self.slot, self.unit) {
            return Flow::Stop;
        }
        let now = Instant::now();
        let step = now - std::mem::replace(&mut self.last, now);
        if step >= LONG || self.is_due(now) { Flow::Save } else { Flow::Continue }
    }

    fn keep(&mut self, checkpoint: Vec<u8>) {
        let state = (self.pack)(checkpoint);
        let seat = &self.control.seats[self.slot];
        let mut held = seat.held.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_due(Instant::now()) || self.control.is_stopping() {
            *held = None;
            drop(held);
            seat.pending.store(true, Ordering::Relaxed);
            (self.keep)(state);
            self.due = Instant::now() + self.control.every();
        } else {
            *held = Some((self.unit, state));
        }
    }
}

/// Lets checkpoints of all ranks through at a bounded rate: whoever has one asks, and sends it when told.
#[derive(Debug)]
pub struct Tokens<T> {
    waiting: std::collections::VecDeque<(T, usize)>,
    free: Instant,
}

impl<T> Tokens<T> {
    /// Bytes a second of all checkpoints together.
    const RATE: f64 = 200e6;

    /// Nobody waits.
    pub fn new(now: Instant) -> Self {
        Self { waiting: std::collections::VecDeque::new(), free: now }
    }

    /// `who` has a checkpoint of so many bytes.
    pub fn ask(&mut self, who: T, bytes: usize) {
        self.waiting.push_back((who, bytes));
    }

    /// The next that may send.
    pub fn grant(&mut self, now: Instant) -> Option<T> {
        if now < self.free {
            return None;
        }
        let (who, bytes) = self.waiting.pop_front()?;
        self.free = now + Duration::from_secs_f64(bytes as f64 / Self::RATE);
        Some(who)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_waits_for_the_one_before_it() {
        let control = Control::new(1, Duration::ZERO);
        let mut kept = 0;
        let mut watcher = Watcher::new(&control, (0, 7), |state| state, |_| kept += 1);
        let at = Progress::default();
        let wait = || std::thread::sleep(Duration::from_millis(SHORTEST + 1));
        wait();
        assert_eq!(watcher.flow(at), Flow::Save);
        watcher.keep(vec![1]);
        wait();
        assert_eq!(watcher.flow(at), Flow::Continue);
        // One that is handed over out of turn is held.
        watcher.keep(vec![2]);
        assert_eq!(control.take_held(), [(0, 7, vec![2])]);
        assert!(control.take_held().is_empty());
        control.passed_on(0);
        assert_eq!(watcher.flow(at), Flow::Save);
        control.stop();
        assert_eq!(watcher.flow(at), Flow::Stop);
        watcher.keep(vec![3]);
        assert_eq!((kept, control.steps(0)), (2, 4));
    }

    #[test]
    fn tokens_keep_to_the_rate() {
        let start = Instant::now();
        let mut tokens = Tokens::new(start);
        for who in 0..3 {
            tokens.ask(who, 100_000_000);
        }
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        assert_eq!(tokens.grant(at(0.0)), Some(0));
        assert_eq!(tokens.grant(at(0.4)), None);
        assert_eq!(tokens.grant(at(0.5)), Some(1));
        assert_eq!(tokens.grant(at(0.9)), None);
        assert_eq!(tokens.grant(at(5.0)), Some(2));
        assert_eq!(tokens.grant(at(9.0)), None);
    }
}
