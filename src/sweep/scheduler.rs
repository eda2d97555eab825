//! Which slot gets which unit: a pure state machine, events in and actions out.
//!
//! It does no I/O and has no clock, so that the manager, the tests and the simulation
//! (`make bench-schedule`) drive the same code. An event costs O(log n) in units and slots.
//!
//! **Order.** Critical path first. A unit's priority is the least time from its start to the end of
//! all that depends on it, on P slots:
//!
//! > priority = cost + max(longest path of what depends on it, all work that depends on it / P)
//!
//! The second term is what counts for builds: a target with many runs goes before one with few, even
//! where no single run of it is long. Priorities within 4.4 % are equal; among
//! equals a rank takes a unit whose run it does not work on already, then one whose target it holds,
//! then the one of the smallest number. A slot is never idle for the sake of either.
//!
//! **Prefetch.** A slot of another rank may hold one unit beyond the one it works on, so that it need
//! not wait for a message's round trip. That binds the second unit to the slot, so it is done only
//! where it cannot matter: when what the slot works on, and then all that depends on the second
//! unit, end before the slots can be through with what waits:
//!
//! > cost(first) + priority(second) ≤ work that waits / P
//!
//! **Losses.** A slot that goes down gives its units back ([`Action::Lost`]); it is for the manager to
//! retry them. A retried unit goes to another rank than the one to be avoided, or, on a single rank,
//! to another slot; the slot itself gets it only where it is the only one.

mod waiting;

use std::collections::{BTreeSet, HashMap};

use waiting::{Class, Waiting, class_of};

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

/// A unit that may run, and what is expected of it. Costs are in any one unit of work, seconds by
/// choice; they change the order of things and nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// The unit.
    pub unit: UnitId,
    /// Its own expected cost.
    pub cost: f64,
    /// The longest expected path of what depends on it.
    pub path: f64,
    /// All expected work that depends on it.
    pub dependent: f64,
    /// The run it belongs to: units of a run go to different ranks.
    pub run: Option<u32>,
    /// The target that must be at hand.
    pub target: Option<u32>,
}

/// What happens to the scheduler.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// A slot offers itself.
    SlotUp(Slot),
    /// A slot is lost. What it held comes back as [`Action::Lost`].
    SlotDown(Slot),
    /// A unit may run. A second time it is ignored.
    Ready(Work),
    /// A unit that a slot has failed or lost may run again.
    Retry {
        /// The unit.
        unit: UnitId,
        /// Where it had better not run.
        avoid: Slot,
    },
    /// A unit that a slot has put down may go on, anywhere.
    Resume {
        /// The unit.
        unit: UnitId,
    },
    /// A slot has finished a unit, well or badly, or put it down. From a slot that does not hold it, it is ignored.
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
    /// The slot was lost with this unit. Retry the unit or give it up: the scheduler forgets it.
    Lost {
        /// The slot.
        slot: Slot,
        /// The unit.
        unit: UnitId,
    },
}

/// Candidates looked at for one choice among equals.
const PROBES: usize = 8;
/// Waiting retries looked at for one slot. A slot that as many of them avoid is best left alone.
const RETRY_PROBES: usize = 32;
/// Targets that a rank is remembered to hold.
const REMEMBERED: usize = 4;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Never heard of, finished or lost.
    #[default]
    Out,
    Waiting,
    Held(Slot),
}

#[derive(Clone, Copy, Debug, Default)]
struct Unit {
    work: Work,
    class: Class,
    place: Place,
    avoid: Option<Slot>,
    known: bool,
}

/// At most two units: the one that runs and the one that is next.
type Held = [Option<UnitId>; 2];

/// The scheduler's state.
#[derive(Debug)]
pub struct Scheduler {
    /// The manager's rank: its slots are reached without a message and prefetch nothing.
    home: usize,
    units: Vec<Unit>,
    slots: HashMap<Slot, Held>,
    /// Number of slots of each rank.
    ranks: HashMap<usize, usize>,
    /// Slots that hold nothing, by index and rank: work spreads over ranks before it fills them.
    idle: BTreeSet<(usize, usize)>,
    /// Slots that may be given a unit ahead, those with the shortest unit first.
    single: BTreeSet<(Class, Slot)>,
    waiting: Waiting,
    retries: Waiting,
    /// Waiting units with all that depends on them, in units of cost.
    waiting_work: f64,
    in_flight: usize,
    /// Units that each rank holds of a run.
    of_run: HashMap<(u32, usize), u32>,
    /// Targets that came to a rank last.
    targets: HashMap<usize, Vec<u32>>,
    /// Ranks that a target came to last.
    holders: HashMap<u32, Vec<usize>>,
}

impl Scheduler {
    /// A scheduler without slots or units, run by rank `home`.
    pub fn new(home: usize) -> Self {
        Self {
            home,
            units: Vec::new(),
            slots: HashMap::new(),
            ranks: HashMap::new(),
            idle: BTreeSet::new(),
            single: BTreeSet::new(),
            waiting: Waiting::default(),
            retries: Waiting::default(),
            waiting_work: 0.0,
            in_flight: 0,
            of_run: HashMap::new(),
            targets: HashMap::new(),
            holders: HashMap::new(),
        }
    }

    /// Takes one event and returns what is to be done because of it.
    pub fn on_event(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::SlotUp(slot) => self.slot_up(slot),
            Event::SlotDown(slot) => self.slot_down(slot, &mut actions),
            Event::Ready(work) => self.ready(work),
            Event::Retry { unit, avoid } => self.again(unit, Some(avoid)),
            Event::Resume { unit } => self.again(unit, None),
            Event::Finished { slot, unit } => self.finished(slot, unit),
        }
        self.fill_idle(&mut actions);
        self.prefetch(&mut actions);
        actions
    }

    /// Units that slots hold, running or prefetched.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Slots that are up.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    fn slot_up(&mut self, slot: Slot) {
        if self.slots.contains_key(&slot) {
            return;
        }
        self.slots.insert(slot, [None; 2]);
        *self.ranks.entry(slot.rank).or_default() += 1;
        self.idle.insert((slot.index, slot.rank));
    }

    fn slot_down(&mut self, slot: Slot, actions: &mut Vec<Action>) {
        let Some(&held) = self.slots.get(&slot) else { return };
        self.unfile(slot);
        self.slots.remove(&slot);
        for unit in held.into_iter().flatten() {
            self.release(slot, unit);
            actions.push(Action::Lost { slot, unit });
        }
        if let Some(count) = self.ranks.get_mut(&slot.rank) {
            *count -= 1;
            if *count == 0 {
                self.ranks.remove(&slot.rank);
                // A rank of this number that comes back later is another process.
                for target in self.targets.remove(&slot.rank).unwrap_or_default() {
                    if let Some(holders) = self.holders.get_mut(&target) {
                        holders.retain(|&rank| rank != slot.rank);
                    }
                }
            }
        }
    }

    fn ready(&mut self, work: Work) {
        let index = work.unit as usize;
        if index >= self.units.len() {
            self.units.resize(index + 1, Unit::default());
        }
        if self.units[index].known {
            return;
        }
        let sound = |x: f64| if x > 0.0 && x.is_finite() { x } else { 0.0 };
        let (cost, path, dependent) = (sound(work.cost), sound(work.path), sound(work.dependent));
        let work = Work { cost, path, dependent, ..work };
        let priority = self.priority(&work);
        self.units[index] =
            Unit { work, class: class_of(priority), place: Place::Waiting, avoid: None, known: true };
        self.enqueue(work.unit);
    }

    fn again(&mut self, unit: UnitId, avoid: Option<Slot>) {
        let Some(state) = self.units.get_mut(unit as usize) else { return };
        if !state.known || state.place != Place::Out {
            return;
        }
        state.avoid = avoid;
        state.place = Place::Waiting;
        self.enqueue(unit);
    }

    fn finished(&mut self, slot: Slot, unit: UnitId) {
        if self.units.get(unit as usize).is_none_or(|u| u.place != Place::Held(slot)) {
            return;
        }
        self.unfile(slot);
        self.release(slot, unit);
        if let Some(held) = self.slots.get_mut(&slot) {
            *held = match *held {
                [Some(first), second] if first == unit => [second, None],
                [first, _] => [first, None],
            };
        }
        self.file(slot);
    }

    fn priority(&self, work: &Work) -> f64 {
        work.cost + work.path.max(work.dependent / self.slots.len().max(1) as f64)
    }

    fn queue_of(&mut self, unit: UnitId) -> &mut Waiting {
        if self.units[unit as usize].avoid.is_some() { &mut self.retries } else { &mut self.waiting }
    }

    fn enqueue(&mut self, unit: UnitId) {
        let Unit { work, class, .. } = self.units[unit as usize];
        self.queue_of(unit).insert(class, unit, work.target);
        self.waiting_work += work.cost + work.dependent;
    }

    /// A unit leaves the slot that held it.
    fn release(&mut self, slot: Slot, unit: UnitId) {
        self.in_flight -= 1;
        let state = &mut self.units[unit as usize];
        state.place = Place::Out;
        if let Some(run) = state.work.run
            && let Some(count) = self.of_run.get_mut(&(run, slot.rank))
        {
            *count -= 1;
            if *count == 0 {
                self.of_run.remove(&(run, slot.rank));
            }
        }
    }

    /// Enters a slot where slots are looked for, by what it holds.
    fn file(&mut self, slot: Slot) {
        match self.slots.get(&slot) {
            Some([None, _]) => {
                self.idle.insert((slot.index, slot.rank));
            }
            Some([Some(first), None]) if slot.rank != self.home => {
                self.single.insert((class_of(self.units[*first as usize].work.cost), slot));
            }
            _ => {}
        }
    }

    fn unfile(&mut self, slot: Slot) {
        match self.slots.get(&slot) {
            Some([None, _]) => {
                self.idle.remove(&(slot.index, slot.rank));
            }
            Some([Some(first), None]) if slot.rank != self.home => {
                self.single.remove(&(class_of(self.units[*first as usize].work.cost), slot));
            }
            _ => {}
        }
    }

    fn give(&mut self, slot: Slot, unit: UnitId, actions: &mut Vec<Action>) {
        let Unit { work, class, .. } = self.units[unit as usize];
        self.queue_of(unit).remove(class, unit, work.target);
        self.waiting_work -= work.cost + work.dependent;
        if self.waiting.is_empty() && self.retries.is_empty() {
            // Sums of floats leave dust.
            self.waiting_work = 0.0;
        }
        self.unfile(slot);
        if let Some(held) = self.slots.get_mut(&slot) {
            *held = match *held {
                [None, _] => [Some(unit), None],
                [first, _] => [first, Some(unit)],
            };
        }
        self.file(slot);
        self.in_flight += 1;
        self.units[unit as usize].place = Place::Held(slot);
        if let Some(run) = work.run {
            *self.of_run.entry((run, slot.rank)).or_default() += 1;
        }
        if let Some(target) = work.target {
            self.remember(slot.rank, target);
        }
        actions.push(Action::Assign { slot, unit });
    }

    fn remember(&mut self, rank: usize, target: u32) {
        let targets = self.targets.entry(rank).or_default();
        if targets.contains(&target) {
            return;
        }
        if targets.len() == REMEMBERED {
            let forgotten = targets.remove(0);
            if let Some(holders) = self.holders.get_mut(&forgotten) {
                holders.retain(|&holder| holder != rank);
            }
        }
        targets.push(target);
        let holders = self.holders.entry(target).or_default();
        if holders.len() == PROBES {
            holders.remove(0);
        }
        holders.push(rank);
    }

    fn fill_idle(&mut self, actions: &mut Vec<Action>) {
        while !(self.waiting.is_empty() && self.retries.is_empty()) {
            let choice = match self.idle.len() {
                0 => return,
                1 => self.idle.first().copied().and_then(|(index, rank)| {
                    let slot = Slot { rank, index };
                    Some((slot, self.unit_for(slot)?))
                }),
                _ => self.unit_and_slot(),
            };
            let Some((slot, unit)) = choice else { return };
            self.give(slot, unit, actions);
        }
    }

    fn prefetch(&mut self, actions: &mut Vec<Action>) {
        while let Some(&(_, slot)) = self.single.first() {
            let Some([Some(first), None]) = self.slots.get(&slot) else { return };
            let (slots, first) = (self.slots.len() as f64, self.units[*first as usize].work.cost);
            if self.waiting_work <= 0.0 || first * slots > self.waiting_work {
                return;
            }
            let Some(unit) = self.unit_for(slot) else { return };
            if (first + self.priority(&self.units[unit as usize].work)) * slots > self.waiting_work {
                return;
            }
            self.give(slot, unit, actions);
        }
    }

    /// Whether a unit had better not run on a slot.
    fn shuns(&self, unit: UnitId, slot: Slot) -> bool {
        self.units[unit as usize].avoid.is_some_and(|avoid| {
            if self.ranks.len() > 1 { avoid.rank == slot.rank } else { avoid == slot && self.slots.len() > 1 }
        })
    }

    /// Whether a rank holds a unit of the same run, and whether it lacks the target: false is better.
    fn drawbacks(&self, unit: UnitId, rank: usize) -> (bool, bool) {
        let work = &self.units[unit as usize].work;
        let same_run = work.run.is_some_and(|run| self.of_run.contains_key(&(run, rank)));
        let lacking =
            work.target.is_some_and(|t| !self.targets.get(&rank).is_some_and(|known| known.contains(&t)));
        (same_run, lacking)
    }

    /// The unit that a slot should take next.
    fn unit_for(&self, slot: Slot) -> Option<UnitId> {
        let top = self.waiting.iter().next();
        let retry = self.retries.iter().take(RETRY_PROBES).find(|&(_, unit)| !self.shuns(unit, slot));
        let class = match (top, retry) {
            // What has failed once holds its run up: it goes first among equals.
            (Some((class, _)), Some((again, unit))) if again >= class => return Some(unit),
            (None, Some((_, unit))) => return Some(unit),
            (Some((class, _)), _) => class,
            (None, None) => return None,
        };
        let known = self.targets.get(&slot.rank).map_or(&[][..], Vec::as_slice);
        let of_known = known.iter().flat_map(|&t| self.waiting.of_target(t, class).take(PROBES));
        let first = self.waiting.iter().take(PROBES).take_while(|&(c, _)| c == class).map(|(_, unit)| unit);
        let mut best = None;
        for unit in first.chain(of_known) {
            let key = (self.drawbacks(unit, slot.rank), unit);
            if best.is_none_or(|b| key < b) {
                best = Some(key);
            }
            if key.0 == (false, false) {
                break;
            }
        }
        best.map(|(_, unit)| unit)
    }

    /// The first unit, and the best of several idle slots for it.
    fn unit_and_slot(&self) -> Option<(Slot, UnitId)> {
        let top = self.waiting.iter().next();
        let again = self.retries.iter().next();
        let first = match (top, again) {
            (Some((class, _)), Some((again, retried))) if again >= class => retried,
            (Some((_, unit)), _) | (None, Some((_, unit))) => unit,
            (None, None) => return None,
        };
        if let Some(slot) = self.slot_for(first) {
            return Some((slot, first));
        }
        // No idle slot is good enough for that retry; another unit may find one.
        let others = self.retries.iter().take(RETRY_PROBES).chain(top);
        others.into_iter().find_map(|(_, unit)| Some((self.slot_for(unit)?, unit)))
    }

    fn slot_for(&self, unit: UnitId) -> Option<Slot> {
        let target = self.units[unit as usize].work.target;
        let holders = target.and_then(|t| self.holders.get(&t)).map_or(&[][..], Vec::as_slice);
        // Of a holder with several slots the first index that is idle is wanted; most have one.
        let held = holders.iter().filter_map(|&rank| {
            (0..self.ranks.get(&rank).copied().unwrap_or(0).min(PROBES))
                .map(|index| (index, rank))
                .find(|place| self.idle.contains(place))
        });
        let first = self.idle.iter().copied();
        let free = |&(index, rank): &(usize, usize)| !self.shuns(unit, Slot { rank, index });
        let probed = held.filter(free).chain(first.filter(free).take(PROBES));
        let best = probed.min_by_key(|&(index, rank)| {
            let (same_run, lacking) = self.drawbacks(unit, rank);
            (same_run, index, lacking, rank)
        });
        best.map(|(index, rank)| Slot { rank, index })
    }
}

#[cfg(test)]
mod tests;
