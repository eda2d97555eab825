//! The worker slots of one rank: threads that execute units.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use super::execute::{TargetCache, execute};
use super::scheduler::UnitId;
use super::unit::{Outcome, Task};

/// A unit that a slot has ended.
#[derive(Debug)]
pub struct Done {
    /// The slot's number on this rank.
    pub slot: usize,
    /// The unit.
    pub unit: UnitId,
    /// Its end.
    pub outcome: Outcome,
}

/// Threads that work off units in the order given, each its own queue.
pub struct SlotPool {
    /// The targets that units name.
    pub cache: Arc<TargetCache>,
    queues: Vec<Sender<(UnitId, Task)>>,
    threads: Vec<JoinHandle<()>>,
}

impl SlotPool {
    /// Starts `slots` threads; each unit's end is handed to `report`.
    pub fn start<F>(slots: usize, report: F) -> std::io::Result<Self>
    where
        F: Fn(Done) + Clone + Send + 'static,
    {
        let cache = Arc::new(TargetCache::default());
        let (mut queues, mut threads) = (Vec::with_capacity(slots), Vec::with_capacity(slots));
        for slot in 0..slots {
            let (queue, units) = channel::<(UnitId, Task)>();
            let (cache, report) = (Arc::clone(&cache), report.clone());
            let thread = std::thread::Builder::new().name(format!("slot-{slot}")).spawn(move || {
                for (unit, task) in units {
                    report(Done { slot, unit, outcome: execute(task, &cache) });
                }
            })?;
            queues.push(queue);
            threads.push(thread);
        }
        Ok(Self { cache, queues, threads })
    }

    /// Number of slots.
    pub fn len(&self) -> usize {
        self.queues.len()
    }

    /// Queues a unit on a slot. A slot whose thread is gone loses it, which its own panic explains.
    pub fn give(&self, slot: usize, unit: UnitId, task: Task) {
        if let Some(queue) = self.queues.get(slot) {
            let _ = queue.send((unit, task));
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
