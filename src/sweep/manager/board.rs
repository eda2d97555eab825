//! What the manager knows of every slot: what it holds, since when, and when it last gave a sign.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::sweep::ranks::RankPlace;
use crate::sweep::scheduler::{Slot, UnitId};

/// A slot as the manager sees it.
#[derive(Debug)]
pub struct Seat {
    /// The slot.
    pub slot: Slot,
    /// Units that it holds; the first is the one it works on.
    pub held: VecDeque<UnitId>,
    /// When it began the first.
    pub since: Instant,
    /// The last report or checkpoint.
    pub last_sign: Instant,
    /// The last checkpoint of the unit that it works on.
    pub saved: Option<Instant>,
    /// Time spent on units that have ended.
    pub busy: Duration,
    /// It has stopped to answer.
    pub lost: bool,
}

/// All slots.
#[derive(Debug, Default)]
pub struct Board {
    seats: Vec<Seat>,
    /// Position of the first slot of each rank.
    first: Vec<usize>,
}

impl Board {
    /// The slots of `ranks`, in order of rank.
    pub fn new(ranks: &[RankPlace], now: Instant) -> Self {
        let mut board = Self::default();
        for &RankPlace { rank, slots, .. } in ranks {
            board.first.push(board.seats.len());
            board.seats.extend((0..slots).map(|index| Seat {
                slot: Slot { rank, index },
                held: VecDeque::new(),
                since: now,
                last_sign: now,
                saved: None,
                busy: Duration::ZERO,
                lost: false,
            }));
        }
        board
    }

    /// Every slot.
    pub fn seats(&self) -> &[Seat] {
        &self.seats
    }

    fn seat(&mut self, slot: Slot) -> Option<&mut Seat> {
        let first = *self.first.get(slot.rank)?;
        self.seats.get_mut(first + slot.index).filter(|seat| seat.slot == slot)
    }

    /// A slot is given a unit.
    pub fn give(&mut self, slot: Slot, unit: UnitId, now: Instant) {
        if let Some(seat) = self.seat(slot) {
            if seat.held.is_empty() {
                (seat.since, seat.last_sign, seat.saved) = (now, now, None);
            }
            seat.held.push_back(unit);
        }
    }

    /// A slot has handed over a checkpoint.
    pub fn saved(&mut self, slot: Slot, now: Instant) {
        if let Some(seat) = self.seat(slot) {
            (seat.last_sign, seat.saved) = (now, Some(now));
        }
    }

    /// A slot has made steps.
    pub fn sign(&mut self, slot: Slot, now: Instant) {
        if let Some(seat) = self.seat(slot) {
            seat.last_sign = now;
        }
    }

    /// A slot has a new thread.
    pub fn revive(&mut self, slot: Slot, now: Instant) {
        if let Some(seat) = self.seat(slot) {
            (seat.lost, seat.since, seat.last_sign, seat.saved) = (false, now, now, None);
        }
    }

    /// The manager itself was stopped for so long: nobody is to blame for it.
    pub fn excuse(&mut self, pause: Duration) {
        self.seats.iter_mut().for_each(|seat| seat.last_sign += pause);
    }

    /// A slot has ended a unit.
    pub fn take(&mut self, slot: Slot, unit: UnitId, now: Instant) {
        if let Some(seat) = self.seat(slot)
            && let Some(place) = seat.held.iter().position(|&u| u == unit)
        {
            seat.held.remove(place);
            seat.busy += now - seat.since;
            (seat.since, seat.last_sign, seat.saved) = (now, now, None);
        }
    }

    /// Units that slots hold which still answer.
    pub fn in_flight(&self) -> usize {
        self.seats.iter().filter(|seat| !seat.lost).map(|seat| seat.held.len()).sum()
    }

    /// Ranks whose slots hold a unit like that.
    pub fn ranks_with(&self, is_like: impl Fn(UnitId) -> bool) -> BTreeSet<usize> {
        let holds = |seat: &&Seat| seat.held.iter().any(|&unit| is_like(unit));
        self.seats.iter().filter(holds).map(|seat| seat.slot.rank).collect()
    }

    /// Slots that still answer.
    pub fn answering(&self) -> usize {
        self.seats.iter().filter(|seat| !seat.lost).count()
    }

    /// Slots that hold units and have given no sign for `patience`, with what they hold; they count as
    /// lost from now on.
    pub fn newly_lost(&mut self, now: Instant, patience: Duration) -> Vec<(Slot, Vec<UnitId>)> {
        let silent = |seat: &&mut Seat| {
            !seat.lost && !seat.held.is_empty() && now.duration_since(seat.last_sign) > patience
        };
        self.seats
            .iter_mut()
            .filter(silent)
            .map(|seat| {
                seat.lost = true;
                (seat.slot, seat.held.drain(..).collect())
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_without_a_sign_is_lost_once_with_all_that_it_holds() {
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let place = |rank, slots| RankPlace::new(rank, "host".into(), rank, slots);
        let mut board = Board::new(&[place(0, 1), place(1, 2)], start);
        let slot = |rank, index| Slot { rank, index };
        board.give(slot(0, 0), 7, at(0));
        board.give(slot(1, 1), 8, at(0));
        board.give(slot(1, 1), 9, at(0));
        board.saved(slot(0, 0), at(50));
        assert_eq!(board.in_flight(), 3);
        assert!(board.newly_lost(at(60), Duration::from_secs(60)).is_empty());
        assert_eq!(board.newly_lost(at(61), Duration::from_secs(60)), [(slot(1, 1), vec![8, 9])]);
        assert!(board.newly_lost(at(62), Duration::from_secs(60)).is_empty());
        assert_eq!((board.in_flight(), board.answering()), (1, 2));
        board.take(slot(0, 0), 7, at(70));
        assert_eq!(board.seats()[0].busy, Duration::from_secs(70));
        // What a slot never held is no event.
        board.take(slot(0, 0), 7, at(80));
        board.take(slot(5, 0), 7, at(80));
        assert_eq!(board.in_flight(), 0);
    }
}
