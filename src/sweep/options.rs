//! How a sweep is to be run.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use crate::device::Arith;
use crate::device::gpu::RankDevice;

/// How a sweep is to be run; nothing here changes a result.
#[derive(Clone, Debug)]
pub struct Options {
    /// Slots on this rank.
    pub slots: usize,
    /// Arithmetic asked for; otherwise the best that every rank has.
    pub arith: Option<Arith>,
    /// Run again what failed by its numbers.
    pub retry_failed: bool,
    /// Number of a signal that asks to stop; 0: none yet.
    pub signal: Arc<AtomicUsize>,
    /// Time between two checkpoints of a unit.
    pub checkpoint_every: Duration,
    /// Where every rank writes checkpoints itself; `None`: rank 0 does, in the store.
    pub checkpoint_dir: Option<PathBuf>,
    /// How often a unit that failed by its surroundings is tried again.
    pub retries: u32,
    /// How long a slot may give no sign.
    pub unit_timeout: Option<Duration>,
    /// When the job will be ended from outside.
    pub deadline: Option<Instant>,
    /// The device of this rank, where it uses one.
    pub device: Option<RankDevice>,
}

impl Options {
    /// The defaults, for so many slots on this rank.
    pub fn of(slots: usize) -> Self {
        Self {
            slots,
            arith: None,
            retry_failed: false,
            signal: Arc::new(AtomicUsize::new(0)),
            checkpoint_every: Duration::from_secs(30),
            checkpoint_dir: None,
            retries: 1,
            unit_timeout: Some(Duration::from_secs(3600)),
            deadline: None,
            device: None,
        }
    }
}
