//! Locks: a root is shared by sweeps and taken whole by what deletes; a unit is worked on once.
//!
//! They are `flock` locks, so the kernel releases them when their process ends, however it ends.
//! A lock's file holds the process and host for the message that others get.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::StoreError;
use super::atomic::entries;

/// A unit's lock, held until dropped.
#[derive(Debug)]
#[must_use = "the lock is released when the guard is dropped"]
pub struct Guard {
    path: PathBuf,
    // Closing it releases the lock; the file is removed before that.
    _file: File,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // A file that stays behind is no lock and harms nothing.
        fs::remove_file(&self.path).ok();
    }
}

/// Takes the lock file at `path`; `what` is its name in messages.
pub(super) fn take(path: &Path, what: &str) -> Result<Guard, StoreError> {
    loop {
        let mut file = open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Locked { what: what.into(), by: written_in(&mut file) });
            }
            Err(TryLockError::Error(e)) => without_locks(path, e)?,
        }
        // The holder before may have removed the file between our opening and locking it: then
        // this lock is on a file that no one else will find.
        if !is_at(&file, path) {
            continue;
        }
        sign(&mut file);
        return Ok(Guard { path: path.into(), _file: file });
    }
}

/// The lock on a whole root.
#[derive(Debug)]
pub(super) struct RootLock {
    file: File,
    exclusive: bool,
    // A sharer's entry in the list of those who hold the root.
    _sharer: Option<Guard>,
}

impl RootLock {
    /// Shares the root with other sharers.
    pub(super) fn shared(root: &Path, path: &Path, sharers: &Path) -> Result<Self, StoreError> {
        static OPENED: AtomicU64 = AtomicU64::new(0);
        let mut file = open(path)?;
        match file.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Locked { what: name(root), by: written_in(&mut file) });
            }
            Err(TryLockError::Error(e)) => without_locks(path, e)?,
        }
        let count = OPENED.fetch_add(1, Ordering::Relaxed);
        let entry = format!("root-{}-{}-{count}.lock", host(), std::process::id());
        // For messages only: the lock holds without it.
        let sharer = take(&sharers.join(entry), &name(root)).ok();
        Ok(Self { file, exclusive: false, _sharer: sharer })
    }

    /// Takes the root alone.
    pub(super) fn exclusive(root: &Path, path: &Path, sharers: &Path) -> Result<Self, StoreError> {
        let mut file = open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut by = live(sharers)?;
                if by.is_empty() {
                    by.push(written_in(&mut file));
                }
                return Err(StoreError::Locked { what: name(root), by: by.join(" and ") });
            }
            Err(TryLockError::Error(e)) => without_locks(path, e)?,
        }
        sign(&mut file);
        Ok(Self { file, exclusive: true, _sharer: None })
    }

    pub(super) fn is_exclusive(&self) -> bool {
        self.exclusive
    }
}

impl Drop for RootLock {
    fn drop(&mut self) {
        if self.exclusive {
            // Only so that a later message names no one who is gone.
            self.file.set_len(0).ok();
        }
    }
}

/// Who holds the root as a sharer now; entries of processes that are gone are removed.
fn live(sharers: &Path) -> Result<Vec<String>, StoreError> {
    let mut live = Vec::new();
    for entry in entries(sharers)? {
        if entry.file_name().to_string_lossy().starts_with("root-") {
            match take(&entry.path(), "") {
                Ok(gone) => drop(gone),
                Err(StoreError::Locked { by, .. }) => live.push(by),
                Err(e) => return Err(e),
            }
        }
    }
    Ok(live)
}

fn name(root: &Path) -> String {
    format!("the root {}", root.display())
}

fn host() -> String {
    let host = gethostname::gethostname().to_string_lossy().into_owned();
    host.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(64).collect()
}

fn open(path: &Path) -> Result<File, StoreError> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    file.map_err(StoreError::io("open the lock", path))
}

/// Is `file` still what `path` names?
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// Writes this process's name into its lock, for messages: the lock holds without it.
fn sign(file: &mut File) {
    let text = format!("process {} on {}", std::process::id(), host());
    let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()));
    written.ok();
}

/// Whom a lock that is held names.
fn written_in(file: &mut File) -> String {
    let mut text = String::new();
    match file.take(256).read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => text.trim().into(),
        _ => "another process".into(),
    }
}

/// Some parallel file systems are mounted without locks: the user is told and goes on, because
/// refusing would make the program useless there. Other errors stay errors.
fn without_locks(path: &Path, error: io::Error) -> Result<(), StoreError> {
    const ENOLCK: i32 = 37;
    if error.kind() == ErrorKind::Unsupported || error.raw_os_error() == Some(ENOLCK) {
        log::warn!(
            "{}: this file system has no locks ({error}); start one sweep at a time on this root",
            path.display()
        );
        return Ok(());
    }
    Err(StoreError::io("lock", path)(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_locked_once_and_free_again_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run-00.lock");
        let guard = take(&path, "run 00").unwrap();
        let refused = take(&path, "run 00").unwrap_err().to_string();
        let us = format!("process {} on {}", std::process::id(), host());
        assert!(refused.starts_with(&format!("run 00 is in use by {us}")), "{refused}");
        drop(guard);
        assert!(!path.exists());
        let _again = take(&path, "run 00").unwrap();
    }

    #[test]
    fn threads_that_race_for_a_lock_never_hold_it_together() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.lock");
        let holders = AtomicU64::new(0);
        let taken = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        if let Ok(_guard) = take(&path, "x") {
                            assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0);
                            taken.fetch_add(1, Ordering::SeqCst);
                            holders.fetch_sub(1, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        assert!(taken.load(Ordering::SeqCst) > 0);
    }
}
