//! Which slot gets which unit: a pure state machine, events in and actions out.
//!
//! It does no I/O and has no clock, so that the manager, the tests and simulations drive the same
//! code. Ready units go out longest-expected-first (ties by unit number); a slot of another rank
//! holds one unit beyond the one it works on, so that it never waits for a message's round trip.
//! Prefetching stops while there are fewer ready units than slots: near the end a unit must go to
//! whichever slot is free first.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Number of a unit within a sweep.
pub type UnitId = u32;

/// A worker slot: a thread of a rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// The rank it belongs to.
    pub rank: usize,
    /// Its number on that rank.
    pub index: usize,
}

/// What happens to the scheduler.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// A slot offers itself.
    SlotUp(Slot),
    /// A unit may run; its expected cost in any one unit of work.
    Ready {
        /// The unit.
        unit: UnitId,
        /// Expected cost.
        cost: f64,
    },
    /// A slot is lost, with what it holds.
    SlotDown(Slot),
    /// A unit is to run again, better not on `avoid`.
    Retry {
        /// The unit.
        unit: UnitId,
        /// Expected cost.
        cost: f64,
        /// Where it failed.
        avoid: Slot,
    },
    /// A slot has finished a unit, well or badly.
    Finished {
        /// The slot.
        slot: Slot,
        /// The unit.
        unit: UnitId,
    },
}

/// What the scheduler wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Give the unit to the slot, which works its units off in the order given.
    Assign {
        /// The slot.
        slot: Slot,
        /// The unit.
        unit: UnitId,
    },
}

#[derive(Debug, PartialEq)]
struct Ready {
    cost: f64,
    unit: UnitId,
}

impl Eq for Ready {}

impl Ord for Ready {
    fn cmp(&self, other: &Self) -> Ordering {
        self.cost.total_cmp(&other.cost).then(other.unit.cmp(&self.unit))
    }
}

impl PartialOrd for Ready {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[derive(Debug)]
struct SlotState {
    slot: Slot,
    held: Vec<UnitId>,
}

/// The scheduler's state.
#[derive(Debug)]
pub struct Scheduler {
    /// The manager's rank: its slots are reached without a message and prefetch nothing.
    home: usize,
    slots: Vec<SlotState>,
    ready: BinaryHeap<Ready>,
}

impl Scheduler {
    /// A scheduler without slots or units, run by rank `home`.
    pub fn new(home: usize) -> Self {
        Self { home, slots: Vec::new(), ready: BinaryHeap::new() }
    }

    /// Takes one event and returns what is to be done because of it.
    pub fn on_event(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::SlotUp(slot) => {
                if self.slots.iter().all(|s| s.slot != slot) {
                    self.slots.push(SlotState { slot, held: Vec::new() });
                    self.slots.sort_by_key(|s| (s.slot.index, s.slot.rank));
                }
            }
            Event::Ready { unit, cost } | Event::Retry { unit, cost, .. } => {
                self.ready.push(Ready { cost, unit });
            }
            Event::SlotDown(slot) => self.slots.retain(|s| s.slot != slot),
            Event::Finished { slot, unit } => {
                // A report that comes twice, or from a slot that never held the unit, is ignored.
                if let Some(state) = self.slots.iter_mut().find(|s| s.slot == slot) {
                    state.held.retain(|&u| u != unit);
                }
            }
        }
        self.assign()
    }

    /// Units that slots hold, running or prefetched.
    pub fn in_flight(&self) -> usize {
        self.slots.iter().map(|s| s.held.len()).sum()
    }

    fn assign(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        for held in 0..2 {
            for state in &mut self.slots {
                let prefetching = held == 1;
                if prefetching && (state.slot.rank == self.home || self.ready.len() < 2) {
                    continue;
                }
                if state.held.len() == held {
                    let Some(next) = self.ready.pop() else { return actions };
                    state.held.push(next.unit);
                    actions.push(Action::Assign { slot: state.slot, unit: next.unit });
                }
            }
            if self.ready.len() < self.slots.len() {
                break;
            }
        }
        actions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(rank: usize) -> Slot {
        Slot { rank, index: 0 }
    }

    fn units(actions: &[Action]) -> Vec<(usize, UnitId)> {
        actions.iter().map(|Action::Assign { slot, unit }| (slot.rank, *unit)).collect()
    }

    #[test]
    fn the_longest_unit_goes_first_and_ties_go_by_number() {
        let mut s = Scheduler::new(0);
        for (unit, cost) in [(0, 1.0), (1, 5.0), (2, 5.0), (3, 9.0)] {
            assert!(s.on_event(Event::Ready { unit, cost }).is_empty());
        }
        assert_eq!(units(&s.on_event(Event::SlotUp(slot(0)))), [(0, 3)]);
        assert_eq!(units(&s.on_event(Event::Finished { slot: slot(0), unit: 3 })), [(0, 1)]);
        assert_eq!(units(&s.on_event(Event::Finished { slot: slot(0), unit: 1 })), [(0, 2)]);
    }

    #[test]
    fn other_ranks_prefetch_one_unit_while_there_is_plenty() {
        let mut s = Scheduler::new(0);
        for rank in 0..2 {
            s.on_event(Event::SlotUp(slot(rank)));
        }
        let given: Vec<_> =
            (0..6).flat_map(|unit| units(&s.on_event(Event::Ready { unit, cost: 1.0 }))).collect();
        // Two start, the third and fourth wait to be plenty, then rank 1 gets one ahead.
        assert_eq!(given, [(0, 0), (1, 1), (1, 2)]);
        assert_eq!(s.in_flight(), 3);
    }

    #[test]
    fn no_unit_is_lost_or_given_twice_whatever_the_order_of_events() {
        let mut s = Scheduler::new(0);
        let (ranks, total) = (3, 50);
        let mut running: Vec<(usize, UnitId)> = Vec::new();
        let mut seen = vec![0; total as usize];
        for rank in 0..ranks {
            s.on_event(Event::SlotUp(slot(rank)));
        }
        let mut pending = Vec::new();
        for unit in 0..total {
            pending.extend(units(&s.on_event(Event::Ready { unit, cost: f64::from(unit % 7) })));
        }
        let mut turn = 0;
        loop {
            for (rank, unit) in pending.drain(..) {
                seen[unit as usize] += 1;
                running.push((rank, unit));
            }
            if running.is_empty() {
                break;
            }
            turn += 5;
            let (rank, unit) = running.remove(turn % running.len());
            pending = units(&s.on_event(Event::Finished { slot: slot(rank), unit }));
            // A late duplicate of the same report changes nothing.
            pending.extend(units(&s.on_event(Event::Finished { slot: slot(rank), unit })));
        }
        assert!(seen.iter().all(|&n| n == 1), "{seen:?}");
        assert_eq!(s.in_flight(), 0);
    }
}
