//! How long a unit will take: expected work × what work of its kind has taken before.
//!
//! > seconds = FGE × (flops of a gradient) × (seconds a flop)
//!
//! Seconds a flop are learnt from units that have finished, apart for every arithmetic, number type,
//! kind of unit and size of gradient (classes of a factor 4), as an exponentially weighted mean of
//! logarithms. They are kept in the store as `store/costs.json`. They order units and are shown by
//! `--dry-run`; no result depends on them, so that a file that is lost or damaged costs no more than
//! a worse order.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config::Dtype;
use crate::device::Arith;
use crate::store::{Store, StoreError, peek_note};

/// Name of the note in the store.
const NOTE: &str = "costs";
/// Version of the note; another one is not read.
const FORMAT: u32 = 1;
/// Weight of a new unit once there are many: about the last twenty count.
const WEIGHT: f64 = 0.1;
/// One unit moves the estimate as if it had been at most this factor off.
const SURPRISE: f64 = 16.0;
/// Seconds a flop that are believed at all: from 100 Tflop/s to a thousand flop/s.
const BOUNDS: (f64, f64) = (1e-14, 1e-3);
/// Most kinds that are kept; the program knows some twenty in two types of number.
const MOST_KINDS: usize = 1024;
/// Units shorter than this say more about the clock and the cache than about their kind.
const SHORTEST: f64 = 1e-5;

/// What a unit does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Makes a target.
    Build,
    /// Adapts a sampler.
    Warmup,
    /// A chain; control chains do the same.
    Chain,
}

/// A kind of unit: what it does, with what, in what numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind<'a> {
    /// What it does.
    pub step: Step,
    /// The sampler's name, or the problem's for builds.
    pub of: &'a str,
    /// The type of number.
    pub dtype: Dtype,
    /// Whether it runs on a device.
    pub on_device: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Rate {
    seconds_per_flop: f64,
    units: u64,
}

impl Rate {
    fn is_sound(&self) -> bool {
        (BOUNDS.0..=BOUNDS.1).contains(&self.seconds_per_flop)
    }
}

/// Rates of one kind by class of size.
type Rates = BTreeMap<i32, Rate>;

#[derive(Debug, Serialize, Deserialize)]
struct Note {
    format: u32,
    rates: BTreeMap<String, Rates>,
}

/// What is known of units' speeds on one arithmetic.
#[derive(Clone, Debug)]
pub struct Model {
    arith: Arith,
    /// Flops a second of 64-bit numbers where nothing is known; 32-bit ones are twice as fast.
    speed: f64,
    rates: BTreeMap<String, Rates>,
}

impl Model {
    /// Seconds of a gradient that are not arithmetic, where nothing is known: a small network's
    /// gradient takes 1.3 µs (docs/benchmarks.md), most of them of this kind.
    const OVERHEAD: f64 = 1e-6;
    /// Half of what the network pass of the base model reaches on a core of 2026.
    const SPEED: f64 = 1.6e10;

    /// Knows nothing yet.
    pub fn new(arith: Arith) -> Self {
        Self { arith, speed: Self::SPEED, rates: BTreeMap::new() }
    }

    /// With another guess, in flops a second, where nothing is known.
    pub fn with_speed(self, speed: f64) -> Self {
        Self { speed, ..self }
    }

    /// What the store knows; nothing if its note is missing or damaged.
    pub fn load(store: &Store, arith: Arith) -> Self {
        Self::new(arith).with_note(store.read_note(NOTE))
    }

    /// As [`load`](Self::load), of a root that is not opened and need not exist.
    pub fn peek(root: &Path, arith: Arith) -> Self {
        Self::new(arith).with_note(peek_note(root, NOTE))
    }

    fn with_note(mut self, note: Option<Vec<u8>>) -> Self {
        let Some(bytes) = note else { return self };
        match serde_json::from_slice::<Note>(&bytes) {
            Ok(note) if note.format == FORMAT => {
                self.rates = note.rates.into_iter().take(MOST_KINDS).collect();
                for rates in self.rates.values_mut() {
                    rates.retain(|_, rate| rate.is_sound());
                }
            }
            Ok(_) => {
                log::debug!("store/{NOTE}.json is of another version; its units' speeds are learnt anew")
            }
            Err(e) => log::warn!("store/{NOTE}.json cannot be read ({e}); units' speeds are learnt anew"),
        }
        self
    }

    /// Keeps what is known in the store.
    pub fn save(&self, store: &Store) -> Result<(), StoreError> {
        let note = Note { format: FORMAT, rates: self.rates.clone() };
        // Plain numbers under plain names always have a JSON form.
        let text = serde_json::to_vec_pretty(&note).unwrap_or_default();
        store.write_note(NOTE, &text)
    }

    /// Seconds that a unit of `fge` full gradients of `flops` operations each is expected to take.
    pub fn expected(&self, kind: Kind<'_>, fge: f64, flops: f64) -> f64 {
        let size = size_of(flops);
        let known = self.rates.get(&self.key(kind)).and_then(|rates| {
            // The nearest size that is known, the larger of two.
            let above = rates.range(size..).next();
            let below = rates.range(..size).next_back();
            [above, below].into_iter().flatten().min_by_key(|(s, _)| (*s - size).abs()).map(|(_, rate)| rate)
        });
        fge * match known {
            Some(rate) => flops * rate.seconds_per_flop,
            None => flops / self.guess(kind.dtype) + Self::OVERHEAD,
        }
    }

    /// Learns from a unit that ran from start to end: a resumed one tells nothing.
    pub fn observe(&mut self, kind: Kind<'_>, fge: f64, flops: f64, seconds: f64) {
        let work = fge * flops;
        let usable = work > 0.0 && work.is_finite() && seconds >= SHORTEST && seconds.is_finite();
        if !usable || self.rates.len() >= MOST_KINDS {
            return;
        }
        let seen = (seconds / work).clamp(BOUNDS.0, BOUNDS.1);
        let rates = self.rates.entry(self.key(kind)).or_default();
        let rate = rates.entry(size_of(flops)).or_insert(Rate { seconds_per_flop: seen, units: 0 });
        rate.units += 1;
        let weight = WEIGHT.max(1.0 / rate.units as f64);
        let surprise = (seen / rate.seconds_per_flop).clamp(1.0 / SURPRISE, SURPRISE);
        rate.seconds_per_flop *= surprise.powf(weight);
    }

    fn guess(&self, dtype: Dtype) -> f64 {
        match dtype {
            Dtype::F32 => 2.0 * self.speed,
            Dtype::F64 => self.speed,
        }
    }

    fn key(&self, Kind { step, of, dtype, on_device }: Kind<'_>) -> String {
        let step = match step {
            Step::Build => "build",
            Step::Warmup => "warmup",
            Step::Chain => "chain",
        };
        let place = if on_device { "device" } else { self.arith.name() };
        format!("{place} {} {of} {step}", dtype.name())
    }
}

/// Class of a gradient's size: a factor of 4 each.
fn size_of(flops: f64) -> i32 {
    (flops.max(1.0).log2() / 2.0).floor() as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    const HMC: Kind<'_> = Kind { step: Step::Chain, of: "hmc", dtype: Dtype::F64, on_device: false };

    fn model() -> Model {
        Model::new(Arith::best())
    }

    #[test]
    fn a_kind_is_learnt_and_others_are_not() {
        let mut m = model();
        let before = m.expected(HMC, 1000.0, 1e6);
        m.observe(HMC, 1000.0, 1e6, 7.0 * before);
        assert!((m.expected(HMC, 2000.0, 1e6) / before / 14.0 - 1.0).abs() < 1e-12);
        // A size that nothing is known of goes by the nearest one.
        assert!((m.expected(HMC, 1000.0, 1e9) / before / 7e3 - 1.0).abs() < 1e-12);
        let warmup = Kind { step: Step::Warmup, ..HMC };
        for other in [warmup, Kind { of: "nuts", ..HMC }, Kind { dtype: Dtype::F32, ..HMC }] {
            assert!(m.expected(other, 1000.0, 1e6) <= before, "{other:?}");
        }
    }

    #[test]
    fn it_follows_a_change_and_bears_an_outlier() {
        let mut m = model();
        for _ in 0..100 {
            m.observe(HMC, 1.0, 1e9, 1.0);
        }
        m.observe(HMC, 1.0, 1e9, 1e9);
        // 16^0.1
        assert!(m.expected(HMC, 1.0, 1e9) < 1.33);
        for _ in 0..60 {
            m.observe(HMC, 1.0, 1e9, 3.0);
        }
        assert!((m.expected(HMC, 1.0, 1e9) / 3.0 - 1.0).abs() < 0.01);
    }

    #[test]
    fn nonsense_teaches_nothing() {
        let mut m = model();
        let before = m.expected(HMC, 1.0, 1e9);
        for (fge, flops, seconds) in [
            (0.0, 1e9, 1.0),
            (1.0, 1e9, 0.0),
            (f64::NAN, 1e9, 1.0),
            (1.0, 1e9, f64::INFINITY),
            (1.0, 1e9, -1.0),
        ] {
            m.observe(HMC, fge, flops, seconds);
            assert_eq!(m.expected(HMC, 1.0, 1e9), before);
        }
    }

    #[test]
    fn what_is_learnt_survives_in_the_store_and_damage_does_not_matter() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut m = Model::load(&store, Arith::best());
        let unknown = m.expected(HMC, 1.0, 1e9);
        m.observe(HMC, 1.0, 1e9, 5.0);
        m.save(&store).unwrap();
        for again in [Model::load(&store, Arith::best()), Model::peek(dir.path(), Arith::best())] {
            assert_eq!(again.expected(HMC, 1.0, 1e9), 5.0);
        }
        let good = String::from_utf8(store.read_note(NOTE).unwrap()).unwrap();
        let rate = "\"seconds_per_flop\": 5e-9";
        assert!(good.contains(rate), "{good}");
        for damaged in [
            "",
            "{",
            "[]",
            &good[..good.len() / 2],
            &good.replace("\"format\": 1", "\"format\": 2"),
            &good.replace(rate, "\"seconds_per_flop\": -1.0"),
            &good.replace(rate, "\"seconds_per_flop\": 1e300"),
        ] {
            store.write_note(NOTE, damaged.as_bytes()).unwrap();
            assert_eq!(Model::load(&store, Arith::best()).expected(HMC, 1.0, 1e9), unknown, "{damaged}");
        }
    }
}
