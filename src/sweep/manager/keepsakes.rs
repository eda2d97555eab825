//! Products of finished units that wait to be kept until their run is on disk: many small ones make one
//! file.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::sweep::unit::{Product, UnitName};

/// No product waits longer.
const LONGEST: Duration = Duration::from_millis(50);
/// More bytes do not wait.
const MOST: usize = 1 << 20;

/// A file of products.
#[derive(Debug)]
pub struct File {
    /// The run.
    pub owner: [u8; 32],
    /// Its name.
    pub name: String,
    /// Each unit's part and product.
    pub products: Vec<(String, Product)>,
}

/// Products by the run that they belong to, then by the unit.
#[derive(Debug, Default)]
pub struct Keepsakes {
    waiting: BTreeMap<[u8; 32], Vec<(String, Product)>>,
    bytes: usize,
    since: Option<Instant>,
}

impl Keepsakes {
    /// One more.
    pub fn add(&mut self, name: UnitName, product: Product, now: Instant) {
        self.bytes += product.output.bytes();
        self.since.get_or_insert(now);
        self.waiting.entry(name.owner).or_default().push((name.part, product));
    }

    /// A run is on its way to the disk as a whole.
    pub fn forget(&mut self, run: [u8; 32]) {
        self.waiting.remove(&run);
    }

    /// Whether it is time to keep them.
    pub fn are_due(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| now.duration_since(since) >= LONGEST || self.bytes >= MOST)
    }

    /// A file each run: its owner, name, and products. It is called by its first unit, which no other file
    /// holds, and by the number of the others.
    pub fn take(&mut self) -> Vec<File> {
        (self.bytes, self.since) = (0, None);
        let file = |(owner, products): ([u8; 32], Vec<(String, Product)>)| {
            let name = match products.len() {
                1 => format!("{}.done", products[0].0),
                n => format!("{}_and_{}.done", products[0].0, n - 1),
            };
            File { owner, name, products }
        };
        std::mem::take(&mut self.waiting).into_iter().map(file).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::Adapted;
    use crate::sweep::unit::Output;

    #[test]
    fn products_wait_a_little_and_come_out_a_run_each() {
        let start = Instant::now();
        let name = |owner: u8, part: &str| UnitName { owner: [owner; 32], part: part.to_owned() };
        let product = |numbers: usize| {
            let adapted = Adapted { inverse_mass: vec![1.0; numbers], ..Adapted::default() };
            Product { output: Output::Adapted(adapted.into()), seconds: 0.0, host: String::new() }
        };
        let mut kept = Keepsakes::default();
        assert!(!kept.are_due(start + LONGEST));
        kept.add(name(1, "chain-0"), product(1), start);
        kept.add(name(2, "warmup"), product(1), start);
        kept.add(name(1, "chain-2"), product(1), start);
        kept.add(name(3, "warmup"), product(1), start);
        kept.forget([3; 32]);
        assert!(!kept.are_due(start) && kept.are_due(start + LONGEST));
        let files = kept.take();
        let names: Vec<(u8, &str)> = files.iter().map(|f| (f.owner[0], f.name.as_str())).collect();
        assert_eq!(names, [(1, "chain-0_and_1.done"), (2, "warmup.done")]);
        assert!(!kept.are_due(start + LONGEST) && kept.take().is_empty());
        kept.add(name(1, "chain-3"), product(MOST / size_of::<f64>()), start);
        assert!(kept.are_due(start));
    }
}
