//! The units that wait for a slot, in the order of their priority.
//!
//! Priorities are expectations, good to a few per cent at best. They are compared in classes of
//! 1/16 octave (4.4 %): units of one class are equals, and among equals the scheduler may choose by
//! what a rank holds already.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::UnitId;

/// Class of a priority; a larger one goes first.
pub type Class = i32;

/// Classes an octave.
const PER_OCTAVE: f64 = 16.0;

/// The class of a priority. What is not a positive number goes last.
pub fn class_of(priority: f64) -> Class {
    match priority {
        // The range of exponents times 16 is far from the ends of an i32.
        p if p > 0.0 && p < f64::INFINITY => (p.log2() * PER_OCTAVE).floor() as Class,
        f64::INFINITY => Class::MAX,
        _ => Class::MIN,
    }
}

type Key = (Reverse<Class>, UnitId);

/// An ordered set of units, found by class or by class and target.
#[derive(Debug, Default)]
pub struct Waiting {
    all: BTreeSet<Key>,
    by_target: BTreeSet<(u32, Reverse<Class>, UnitId)>,
}

impl Waiting {
    /// Adds a unit.
    pub fn insert(&mut self, class: Class, unit: UnitId, target: Option<u32>) {
        self.all.insert((Reverse(class), unit));
        if let Some(target) = target {
            self.by_target.insert((target, Reverse(class), unit));
        }
    }

    /// Takes a unit out.
    pub fn remove(&mut self, class: Class, unit: UnitId, target: Option<u32>) {
        self.all.remove(&(Reverse(class), unit));
        if let Some(target) = target {
            self.by_target.remove(&(target, Reverse(class), unit));
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Units with their classes, first things first.
    pub fn iter(&self) -> impl Iterator<Item = (Class, UnitId)> + '_ {
        self.all.iter().map(|&(Reverse(class), unit)| (class, unit))
    }

    /// The units of one target and class.
    pub fn of_target(&self, target: u32, class: Class) -> impl Iterator<Item = UnitId> + '_ {
        self.by_target
            .range((target, Reverse(class), 0)..=(target, Reverse(class), UnitId::MAX))
            .map(|&(_, _, unit)| unit)
    }
}
