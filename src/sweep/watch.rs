//! How a rank's running units are watched: asked to stop, and asked for checkpoints.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::resume::{Flow, Progress, Watch};

/// What all slots of a rank look at.
#[derive(Debug)]
pub struct Control {
    stop: AtomicBool,
    /// Milliseconds between two checkpoints of a unit.
    every: AtomicU64,
    /// A flag a slot: its last checkpoint is still on its way.
    pending: Vec<AtomicBool>,
}

impl Control {
    /// For `slots` slots, with a checkpoint every so often.
    pub fn new(slots: usize, every: Duration) -> Self {
        let pending = (0..slots).map(|_| AtomicBool::new(false)).collect();
        let control = Self { stop: AtomicBool::new(false), every: AtomicU64::new(0), pending };
        control.set_every(every);
        control
    }

    /// Changes the time between two checkpoints.
    pub fn set_every(&self, every: Duration) {
        self.every.store(every.as_millis() as u64, Ordering::Relaxed);
    }

    /// Asks every unit to stop at its next step.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether units are to stop.
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// A slot's checkpoint has been passed on: the next may be made.
    pub fn passed_on(&self, slot: usize) {
        if let Some(pending) = self.pending.get(slot) {
            pending.store(false, Ordering::Relaxed);
        }
    }

    fn every(&self) -> Duration {
        Duration::from_millis(self.every.load(Ordering::Relaxed))
    }
}

/// Watches one unit on one slot; checkpoints go to `keep`.
pub struct Watcher<'a, K> {
    control: &'a Control,
    slot: usize,
    due: Instant,
    keep: K,
}

impl<'a, K: FnMut(Vec<u8>)> Watcher<'a, K> {
    /// From now on.
    pub fn new(control: &'a Control, slot: usize, keep: K) -> Self {
        Self { control, slot, due: Instant::now() + control.every(), keep }
    }
}

impl<K: FnMut(Vec<u8>)> Watch for Watcher<'_, K> {
    fn flow(&mut self, _: Progress) -> Flow {
        if self.control.is_stopping() {
            return Flow::Stop;
        }
        let on_its_way = || self.control.pending[self.slot].load(Ordering::Relaxed);
        if Instant::now() >= self.due && !on_its_way() { Flow::Save } else { Flow::Continue }
    }

    fn keep(&mut self, checkpoint: Vec<u8>) {
        self.control.pending[self.slot].store(true, Ordering::Relaxed);
        (self.keep)(checkpoint);
        self.due = Instant::now() + self.control.every();
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
        let mut watcher = Watcher::new(&control, 0, |_| kept += 1);
        let at = Progress::default();
        assert_eq!(watcher.flow(at), Flow::Save);
        watcher.keep(Vec::new());
        assert_eq!(watcher.flow(at), Flow::Continue);
        control.passed_on(0);
        assert_eq!(watcher.flow(at), Flow::Save);
        control.stop();
        assert_eq!(watcher.flow(at), Flow::Stop);
        assert_eq!(kept, 1);
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
