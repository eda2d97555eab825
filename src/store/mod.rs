//! What is kept: content-addressed objects, the refs that give them meaning, the `runs/` tree that
//! people look at, and the locks on all three. What is inside an object the store never knows.
//!
//! Everything lies under one root:
//!
//! ```text
//! store/objects/blake3/<2>/<62>      immutable files (0444), named by the BLAKE3 of their bytes
//! store/refs/<kind>/<64 hex>.json    the only index: configuration, object hashes, status, when
//! store/checkpoints/<64 hex>/        what unfinished runs and targets have left
//! store/costs.json                   hints that may be lost: how long units take
//! store/quarantine/                  damaged objects and refs, for whoever wants to look
//! store/locks/  store/lock           who has the root open, units being worked on; the root itself
//! runs/ results/ logs/ tb/           derived: copies for people, rebuilt from the two above
//! ```
//!
//! What the rest of the program relies on:
//! - nothing half-written is ever visible, and a finished write survives a power cut;
//! - bytes that come back are the bytes that went in, or an error says they are not;
//! - a ref is written after its objects, so that a ref that can be read is finished work;
//! - everything outside `store/` can be deleted and comes back.
//!
//! Paths that the store hands out and takes are relative to the root; [`Store::at`] makes them
//! absolute. Letters of names are limited ([`check_name`]), so that no name leaves the root.

mod atomic;
mod bundle;
mod catalog;
mod checkpoints;
#[cfg(test)]
mod crash;
mod disk;
mod error;
mod experiment;
mod export;
#[cfg(test)]
mod faults;
mod gc;
mod hash;
mod import;
mod lock;
mod notes;
mod objects;
mod refs;
mod remove;
mod repair;
mod sign;
mod tree;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

pub use atomic::Appender;
pub use bundle::Bundle;
pub use catalog::{Row, Totals};
pub use checkpoints::{Kept, keep, kept, let_go, probe};
pub use error::{StoreError, size};
pub use experiment::Experiment;
pub use export::Exported;
pub use gc::{Collected, Freed};
pub use hash::{Hash, parse_urn, urn};
pub use import::Imported;
pub use lock::Guard;
pub use notes::peek_note;
pub use objects::ObjectState;
pub use refs::{RUN, Ref, Status, TARGET};
pub use remove::Removed;
pub use repair::Repaired;
pub use tree::{build_log, experiment_manifest, results_path, run_log, write_below, write_out};
pub use verify::{Unreadable, VerifyReport};

/// An open root. Cheap calls, safe to share between threads; the lock on the root lasts until it
/// is dropped.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    lock: lock::RootLock,
    /// Ids of the refs of a kind, once they were listed, with those written since: so that names of
    /// directories can be told apart without a listing for each.
    known: Mutex<BTreeMap<String, BTreeSet<Hash>>>,
    /// Temporary files that were removed when it was opened.
    swept: usize,
}

impl Store {
    /// Opens the store under `root`, making what is missing, and shares it with other sweeps.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while someone holds the root alone; [`StoreError::Io`] where the
    /// root cannot be written.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        Self::take(root, false)
    }

    /// Opens the store under `root` for one process alone, which deleting needs. Temporary files
    /// that killed processes left are removed.
    ///
    /// # Errors
    /// [`StoreError::Locked`], naming every holder, while anyone has the root open.
    pub fn open_exclusive(root: &Path) -> Result<Self, StoreError> {
        let mut store = Self::take(root, true)?;
        store.swept = store.sweep_temporaries()?;
        store.lock.tidy()?;
        Ok(store)
    }

    fn take(root: &Path, alone: bool) -> Result<Self, StoreError> {
        let root = Self::prepare(root)?;
        let lock = lock::RootLock::take(&root, alone, SystemTime::now())?;
        Ok(Self { root, lock, known: Mutex::default(), swept: 0 })
    }

    fn prepare(root: &Path) -> Result<PathBuf, StoreError> {
        let root = std::path::absolute(root).map_err(StoreError::io("find", root))?;
        for dir in ["store/objects/blake3", "store/refs", "store/locks"] {
            atomic::make_dir(&root.join(dir))?;
        }
        Ok(root)
    }

    /// The root, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path relative to the root, made absolute.
    pub fn at(&self, relative: &Path) -> PathBuf {
        self.root.join(relative)
    }

    /// Takes the lock on one unit of work, so that two sweeps on one root do not do the same.
    ///
    /// # Errors
    /// [`StoreError::Locked`], naming process and host, while someone else holds it.
    pub fn lock_unit(&self, kind: &str, id: &Hash) -> Result<Guard, StoreError> {
        check_name(kind)?;
        let what = format!("{kind} {} in {}", id.short(12), self.root.display());
        self.lock.take_unit(&format!("{kind}-{id}.lock"), &what, SystemTime::now())
    }

    /// Removes temporary files that killed processes left; returns how many. Only for a root that
    /// no one else uses.
    fn sweep_temporaries(&self) -> Result<usize, StoreError> {
        let mut removed = 0;
        for dir in TREES {
            removed += atomic::sweep_temporaries(&self.root.join(dir))?;
        }
        Ok(removed)
    }

    /// Deleting needs the root alone: another sweep may be about to name what no ref names yet.
    fn need_exclusive(&self) -> Result<(), StoreError> {
        if self.lock.is_exclusive() {
            return Ok(());
        }
        Err(StoreError::NeedsExclusive { root: self.root.clone() })
    }
}

/// Directories below the root that files are written in.
const TREES: [&str; 5] = ["store", "runs", "results", "logs", "tb"];

/// Longest name that a user may choose.
const NAME: usize = 64;
/// Longest component of a path that the store makes of names and hashes; file systems allow 255.
const COMPONENT: usize = 200;

/// Checks a name that becomes part of a path: 1 to 64 of the letters `A-Z a-z 0-9 . _ -`, the first
/// of them no dot.
pub fn check_name(name: &str) -> Result<(), StoreError> {
    check_letters(name, NAME)
}

fn check_letters(name: &str, longest: usize) -> Result<(), StoreError> {
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let fits = (1..=longest).contains(&name.len()) && !name.starts_with('.') && name.chars().all(letter);
    fits.then_some(()).ok_or_else(|| StoreError::Name { name: name.into(), longest })
}

/// Checks a path relative to the root: plain names all the way, and not into `store/`.
fn check_relative(path: &Path) -> Result<(), StoreError> {
    let wrong = || StoreError::Path { path: path.into() };
    let mut names = 0;
    for component in path.components() {
        let Component::Normal(name) = component else { return Err(wrong()) };
        let name = name.to_str().ok_or_else(wrong)?;
        check_letters(name, COMPONENT)?;
        if names == 0 && name == "store" {
            return Err(wrong());
        }
        names += 1;
    }
    if names == 0 { Err(wrong()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_cannot_leave_the_root() {
        for good in ["a", "hmc", "small.v2_x-1", &"n".repeat(64)] {
            check_name(good).unwrap();
        }
        for bad in ["", ".", "..", ".hidden", "a/b", "a b", "ä", "a\n", "a\0", &"n".repeat(65)] {
            assert!(matches!(check_name(bad), Err(StoreError::Name { .. })), "{bad:?}");
        }
        for good in ["runs/targets/tgt_ab/x.nc", "results/x.h5", "storeroom"] {
            check_relative(Path::new(good)).unwrap();
        }
        for bad in ["", "/etc/passwd", "../x", "runs/../../x", "store/refs/x", "store", "runs/.x", "a b"] {
            assert!(check_relative(Path::new(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_root_is_shared_or_held_alone() {
        let dir = tempfile::tempdir().unwrap();
        let first = Store::open(dir.path()).unwrap();
        let second = Store::open(dir.path()).unwrap();
        let refused = Store::open_exclusive(dir.path()).unwrap_err().to_string();
        let us = format!("process {}", std::process::id());
        assert_eq!(refused.matches(&us).count(), 2, "both holders are named: {refused}");
        assert!(matches!(first.remove("x"), Err(StoreError::NeedsExclusive { .. })));
        drop((first, second));
        let alone = Store::open_exclusive(dir.path()).unwrap();
        let refused = Store::open(dir.path()).unwrap_err();
        assert!(matches!(&refused, StoreError::Locked { by, .. } if by.starts_with(&us)), "{refused}");
        drop(alone);
        Store::open(dir.path()).unwrap();
    }

    #[test]
    fn units_are_locked_by_kind_and_id() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let other = Store::open(dir.path()).unwrap();
        let id = Hash::of(b"a unit");
        let _held = store.lock_unit(RUN, &id).unwrap();
        let refused = other.lock_unit(RUN, &id).unwrap_err().to_string();
        assert!(refused.contains(&format!("run {}", id.short(12))), "{refused}");
        let _other_kind = other.lock_unit(TARGET, &id).unwrap();
        let _other_id = other.lock_unit(RUN, &Hash::of(b"another")).unwrap();
    }

    #[test]
    fn a_root_that_cannot_be_written_is_told_with_its_remedy() {
        // The kernel refuses new directories to everyone, root included, under /sys with a remedy of
        // ours; a bare chroot has no /sys, only a /proc.
        let sys = Path::new("/sys/kernel").exists();
        let root = Path::new(if sys { "/sys/lambda" } else { "/proc/lambda" });
        let refused = Store::open(root).unwrap_err().to_string();
        assert!(refused.contains(&root.display().to_string()), "{refused}");
        assert!(!sys || refused.contains("--root"), "{refused}");
        // A file where the root should be.
        let file = tempfile::NamedTempFile::new().unwrap();
        let refused = Store::open(file.path()).unwrap_err().to_string();
        assert!(refused.contains("in the way"), "{refused}");
    }

    #[test]
    fn temporaries_are_swept_when_the_root_is_taken_alone() {
        let dir = tempfile::tempdir().unwrap();
        drop(Store::open(dir.path()).unwrap());
        let left = dir.path().join("store/objects/blake3/.tmp-x");
        std::fs::write(&left, "half").unwrap();
        drop(Store::open_exclusive(dir.path()).unwrap());
        assert!(!left.exists());
    }
}
