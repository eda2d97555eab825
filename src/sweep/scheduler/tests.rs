use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn slot(rank: usize) -> Slot {
    Slot { rank, index: 0 }
}

fn plain(unit: UnitId, cost: f64) -> Event {
    Event::Ready(Work { unit, cost, ..Work::default() })
}

fn of_run(unit: UnitId, cost: f64, run: u32, target: u32) -> Event {
    Event::Ready(Work { unit, cost, run: Some(run), target: Some(target), ..Work::default() })
}

fn units(actions: &[Action]) -> Vec<(usize, UnitId)> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Assign { slot, unit } => Some((slot.rank, *unit)),
            Action::Lost { .. } => None,
        })
        .collect()
}

fn with_ranks(ranks: usize) -> Scheduler {
    let mut s = Scheduler::new(0);
    for rank in 0..ranks {
        s.on_event(Event::SlotUp(slot(rank)));
    }
    s
}

#[test]
fn the_longest_unit_goes_first_and_ties_go_by_number() {
    let mut s = Scheduler::new(0);
    for (unit, cost) in [(0, 1.0), (1, 5.0), (2, 5.0), (3, 9.0)] {
        assert!(s.on_event(plain(unit, cost)).is_empty());
    }
    assert_eq!(units(&s.on_event(Event::SlotUp(slot(0)))), [(0, 3)]);
    assert_eq!(units(&s.on_event(Event::Finished { slot: slot(0), unit: 3 })), [(0, 1)]);
    assert_eq!(units(&s.on_event(Event::Finished { slot: slot(0), unit: 1 })), [(0, 2)]);
}

#[test]
fn what_holds_up_most_goes_first() {
    let mut s = with_ranks(2);
    for unit in 0..2 {
        s.on_event(plain(unit, 100.0));
    }
    let short_with_long_path = Work { unit: 2, cost: 1.0, path: 50.0, ..Work::default() };
    let short_with_much_work = Work { unit: 3, cost: 1.0, path: 10.0, dependent: 400.0, ..Work::default() };
    s.on_event(plain(4, 20.0));
    s.on_event(Event::Ready(short_with_long_path));
    s.on_event(Event::Ready(short_with_much_work));
    let mut order = Vec::new();
    let mut unit = 0;
    for _ in 0..3 {
        unit = units(&s.on_event(Event::Finished { slot: slot(0), unit }))[0].1;
        order.push(unit);
    }
    assert_eq!(order, [3, 2, 4]);
}

#[test]
fn other_ranks_prefetch_one_unit_while_there_is_plenty() {
    let mut s = with_ranks(2);
    let given: Vec<_> = (0..6).flat_map(|unit| units(&s.on_event(plain(unit, 1.0)))).collect();
    // Two start, three wait to be plenty, then rank 1 gets one ahead.
    assert_eq!(given, [(0, 0), (1, 1), (1, 2)]);
    assert_eq!(s.in_flight(), 3);
}

#[test]
fn nothing_is_bound_behind_a_unit_that_ends_when_all_else_is_done() {
    let mut s = with_ranks(3);
    s.on_event(plain(0, 100.0));
    s.on_event(plain(1, 100.0));
    s.on_event(plain(2, 1.0));
    // 60 units of 1 wait: the three slots need 20, but the long ones 100.
    let given: Vec<_> = (3..63).flat_map(|unit| units(&s.on_event(plain(unit, 1.0)))).collect();
    let ahead: Vec<usize> = given.iter().map(|(rank, _)| *rank).collect();
    assert_eq!(ahead, [2], "only the slot with a short unit holds another");
}

#[test]
fn chains_of_a_run_go_to_different_ranks() {
    let mut s = Scheduler::new(0);
    for index in 0..2 {
        for rank in 0..3 {
            s.on_event(Event::SlotUp(Slot { rank, index }));
        }
    }
    let given: Vec<_> = (0..6).flat_map(|unit| units(&s.on_event(of_run(unit, 1.0, unit / 3, 0)))).collect();
    for run in 0..2 {
        let ranks: HashSet<usize> = given.iter().filter(|(_, u)| u / 3 == run).map(|(r, _)| *r).collect();
        assert_eq!(ranks.len(), 3, "{given:?}");
    }
    // With equals waiting, a slot takes the one whose run its rank does not work on.
    for (unit, run) in [(6, 0), (7, 7)] {
        assert!(s.on_event(of_run(unit, 1.0, run, 0)).is_empty());
    }
    let (rank, unit) = given[0];
    let index = usize::from(unit >= 3);
    let next = units(&s.on_event(Event::Finished { slot: Slot { rank, index: 1 - index }, unit: 99 }));
    assert!(next.is_empty(), "a unit that is not held there");
    let next = units(&s.on_event(Event::Finished { slot: Slot { rank, index }, unit }));
    assert_eq!(next.len(), 1);
    let other = given.iter().find(|(r, u)| *r == rank && *u != unit).map(|(_, u)| u / 3);
    assert_eq!(next[0].1, if other == Some(0) { 7 } else { 6 });
}

#[test]
fn a_rank_that_holds_the_target_is_preferred_but_no_slot_waits_for_it() {
    let mut s = with_ranks(3);
    for (unit, target) in [(0, 10), (1, 11), (2, 12)] {
        s.on_event(of_run(unit, 1.0, unit, target));
    }
    for unit in [1, 2] {
        assert!(s.on_event(Event::Finished { slot: slot(unit as usize), unit }).is_empty());
    }
    // Ranks 1 and 2 are idle; 2 holds target 12.
    assert_eq!(units(&s.on_event(of_run(3, 1.0, 3, 12))), [(2, 3)]);
    assert_eq!(units(&s.on_event(of_run(4, 1.0, 4, 12))), [(1, 4)], "idle, so it takes what there is");
    // Among equals a slot takes what its rank holds.
    for (unit, target) in [(5, 10), (6, 11), (7, 12)] {
        s.on_event(of_run(unit, 1.0, unit, target));
    }
    assert_eq!(units(&s.on_event(Event::Finished { slot: slot(2), unit: 3 })), [(2, 7)]);
}

#[test]
fn a_lost_slot_gives_back_what_it_held() {
    let mut s = with_ranks(2);
    let given: Vec<_> = (0..9).flat_map(|unit| units(&s.on_event(plain(unit, 1.0)))).collect();
    let held: Vec<UnitId> = given.iter().filter(|(rank, _)| *rank == 1).map(|(_, unit)| *unit).collect();
    assert_eq!(held.len(), 2);
    let lost: Vec<Action> = held.iter().map(|&unit| Action::Lost { slot: slot(1), unit }).collect();
    assert_eq!(s.on_event(Event::SlotDown(slot(1))), lost);
    assert!(s.on_event(Event::SlotDown(slot(1))).is_empty(), "down once");
    assert!(s.on_event(Event::Finished { slot: slot(1), unit: held[0] }).is_empty(), "too late");
    assert_eq!((s.in_flight(), s.slots()), (1, 1));
}

#[test]
fn a_retry_avoids_its_rank_where_there_is_another_and_its_slot_where_there_is_none() {
    let failed = |s: &mut Scheduler, at: Slot, unit| {
        s.on_event(Event::Finished { slot: at, unit });
        units(&s.on_event(Event::Retry { unit, avoid: at }))
    };
    // Two ranks, the other busy: it waits for the other.
    let mut s = with_ranks(2);
    s.on_event(plain(0, 1.0));
    s.on_event(plain(1, 1.0));
    assert!(failed(&mut s, slot(1), 1).is_empty());
    assert_eq!(units(&s.on_event(plain(2, 0.1))), [(1, 2)], "other units still go there");
    assert_eq!(units(&s.on_event(Event::Finished { slot: slot(0), unit: 0 })), [(0, 1)]);
    // The other rank is lost: better there than never.
    assert!(failed(&mut s, slot(0), 1).is_empty());
    s.on_event(Event::SlotDown(slot(1)));
    assert_eq!(s.in_flight(), 1, "it runs on the only slot");
    // One rank with two slots.
    let mut s = with_ranks(1);
    s.on_event(Event::SlotUp(Slot { rank: 0, index: 1 }));
    s.on_event(plain(0, 1.0));
    let actions = s.on_event(Event::Finished { slot: slot(0), unit: 0 });
    assert!(actions.is_empty());
    let actions = s.on_event(Event::Retry { unit: 0, avoid: slot(0) });
    assert_eq!(actions, [Action::Assign { slot: Slot { rank: 0, index: 1 }, unit: 0 }]);
    assert!(s.on_event(Event::Retry { unit: 0, avoid: slot(0) }).is_empty(), "it is held");
}

/// What a random job does next.
#[derive(Clone, Debug)]
enum Step {
    Up(usize, usize),
    Down(usize),
    Ready {
        cost: f64,
        dependent: f64,
        run: u32,
    },
    /// A slot ends its first unit: well, or to be retried.
    End(usize, bool),
    /// A report that came before comes again, or one that was never due.
    Stray(usize, u32),
    StrayRetry(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..5_usize, 0..3_usize).prop_map(|(rank, index)| Step::Up(rank, index)),
        1 => (0..99_usize).prop_map(Step::Down),
        8 => (0..4_u8, 0.0..9.0, 0..6_u32).prop_map(|(kind, x, run)| match kind {
            0 => Step::Ready { cost: x, dependent: 30.0 * x, run },
            1 => Step::Ready { cost: f64::NAN, dependent: 0.0, run },
            _ => Step::Ready { cost: x.floor(), dependent: 0.0, run },
        }),
        8 => (0..99_usize, any::<bool>()).prop_map(|(i, well)| Step::End(i, well)),
        2 => (0..99_usize, 0..60_u32).prop_map(|(i, unit)| Step::Stray(i, unit)),
        1 => (0..60_u32).prop_map(Step::StrayRetry),
    ]
}

/// The world that a scheduler acts on: it knows who holds what, and complains.
#[derive(Default)]
struct World {
    queues: Vec<(Slot, Vec<UnitId>)>,
    waiting: HashSet<UnitId>,
    over: HashSet<UnitId>,
    lost: Vec<(UnitId, Slot)>,
}

impl World {
    fn obey(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Assign { slot, unit } => {
                    assert!(self.waiting.remove(&unit), "{unit} was given, but does not wait");
                    let queue = self.queues.iter_mut().find(|(s, _)| *s == slot).expect("a slot that is up");
                    queue.1.push(unit);
                    assert!(queue.1.len() <= if slot.rank == 0 { 1 } else { 2 }, "{queue:?}");
                }
                Action::Lost { slot, unit } => self.lost.push((unit, slot)),
            }
        }
    }

    /// No slot is idle while a unit waits that nothing speaks against.
    fn check(&self, s: &Scheduler, retried: &HashSet<UnitId>) {
        assert_eq!(s.in_flight(), self.queues.iter().map(|(_, q)| q.len()).sum::<usize>());
        if self.queues.iter().any(|(_, q)| q.is_empty()) {
            let fresh: Vec<_> = self.waiting.difference(retried).collect();
            assert!(fresh.is_empty(), "{fresh:?} wait beside an idle slot");
        }
    }
}

proptest! {
    /// Whatever the order of events, each unit is given, retried and finished as often as it should be.
    #[test]
    fn no_unit_is_lost_or_doubled(steps in prop::collection::vec(step(), 1..160)) {
        let mut s = Scheduler::new(0);
        let mut world = World::default();
        let mut retried = HashSet::new();
        let mut made = 0;
        for step in steps {
            match step {
                Step::Up(rank, index) => {
                    let slot = Slot { rank, index };
                    if world.queues.iter().all(|(s, _)| *s != slot) {
                        world.queues.push((slot, Vec::new()));
                    }
                    let actions = s.on_event(Event::SlotUp(slot));
                    world.obey(actions);
                }
                Step::Down(i) if !world.queues.is_empty() => {
                    let (slot, held) = world.queues.swap_remove(i % world.queues.len());
                    let actions = s.on_event(Event::SlotDown(slot));
                    world.obey(actions);
                    let lost: Vec<UnitId> = world.lost.iter().map(|(unit, _)| *unit).collect();
                    prop_assert_eq!(lost, held);
                    for (unit, avoid) in std::mem::take(&mut world.lost) {
                        world.waiting.insert(unit);
                        retried.insert(unit);
                        let actions = s.on_event(Event::Retry { unit, avoid });
                        world.obey(actions);
                    }
                }
                Step::Ready { cost, dependent, run } => {
                    let work = Work {
                        unit: made, cost, path: 0.0, dependent, run: Some(run), target: Some(run / 2),
                    };
                    made += 1;
                    world.waiting.insert(work.unit);
                    let actions = s.on_event(Event::Ready(work));
                    world.obey(actions);
                    let again = s.on_event(Event::Ready(work));
                    world.obey(again);
                }
                Step::End(i, well) if !world.queues.is_empty() => {
                    let i = i % world.queues.len();
                    let (slot, queue) = &mut world.queues[i];
                    let slot = *slot;
                    if queue.is_empty() {
                        continue;
                    }
                    let unit = queue.remove(0);
                    let actions = s.on_event(Event::Finished { slot, unit });
                    world.obey(actions);
                    if well {
                        world.over.insert(unit);
                    } else {
                        world.waiting.insert(unit);
                        retried.insert(unit);
                        let actions = s.on_event(Event::Retry { unit, avoid: slot });
                        world.obey(actions);
                    }
                }
                Step::Stray(i, unit) if !world.queues.is_empty() => {
                    let (slot, queue) = &world.queues[i % world.queues.len()];
                    if !queue.contains(&unit) {
                        let actions = s.on_event(Event::Finished { slot: *slot, unit });
                        world.obey(actions);
                    }
                }
                Step::StrayRetry(unit) if !world.over.contains(&unit) => {
                    let actions = s.on_event(Event::Retry { unit, avoid: slot(1) });
                    world.obey(actions);
                }
                _ => {}
            }
            world.check(&s, &retried);
        }
        // Let it run out: everything that was ever made ready ends once.
        let last = Slot { rank: 7, index: 0 };
        world.queues.push((last, Vec::new()));
        let actions = s.on_event(Event::SlotUp(last));
        world.obey(actions);
        while let Some(i) = world.queues.iter().position(|(_, q)| !q.is_empty()) {
            let (slot, unit) = (world.queues[i].0, world.queues[i].1.remove(0));
            prop_assert!(world.over.insert(unit), "unit {} ended twice", unit);
            let actions = s.on_event(Event::Finished { slot, unit });
            world.obey(actions);
        }
        prop_assert_eq!(world.over.len(), made as usize);
        prop_assert_eq!(s.in_flight(), 0);
    }
}
