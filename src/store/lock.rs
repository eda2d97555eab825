//! Locks: a root is shared by sweeps and taken whole by what deletes; a unit is worked on once.
//!
//! They are `flock` locks, so the kernel releases them when their process ends, however it ends.
//! What their files say (see [`Sign`]) is for the message that others get. On a file system without
//! locks the files themselves are the locks: made with `O_EXCL`, and taken over from a holder that is
//! gone. There, everyone signs first and looks at the others then: of two that come at the same
//! moment at least one sees the other and withdraws.

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use super::StoreError;
use super::atomic::entries;
use super::disk::{self, is_at, process_runs};
use super::sign::{Heartbeat, Sign, seconds};

/// How the entries of those who have a root open begin.
const ENTRY: &str = "root-";

/// A lock's file, held until dropped.
#[derive(Debug)]
#[must_use = "the lock is released when the guard is dropped"]
pub struct Guard {
    path: PathBuf,
    // Closing it releases the lock; the file is removed before that.
    file: Arc<File>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Taken over by others, the file is theirs. One that stays behind is no lock and harms nothing.
        if is_at(&self.file, &self.path) {
            disk::remove(&self.path).ok();
        }
    }
}

/// The lock on a whole root.
#[derive(Debug)]
pub(super) struct RootLock {
    root: PathBuf,
    // Dropped in this order: the last sign of life, the entry, the lock.
    _heartbeat: Option<Heartbeat>,
    entry: Option<Guard>,
    _file: File,
    alone: bool,
    /// Has the file system locks?
    flocks: bool,
    since: Option<u64>,
}

impl RootLock {
    /// Takes the lock on `root`, alone or with other sharers.
    pub(super) fn take(root: &Path, alone: bool, now: SystemTime) -> Result<Self, StoreError> {
        let path = root.join("store/lock");
        let file = disk::open_lock(&path).map_err(StoreError::io("open the lock", &path))?;
        let locked = |by: Vec<Sign>| {
            let by: Vec<String> = by.iter().map(|sign| sign.describe(now)).collect();
            let by = if by.is_empty() { "another process".to_owned() } else { by.join(" and ") };
            StoreError::Locked { what: format!("the root {}", root.display()), by }
        };
        let flocks = match disk::try_lock(&file, !alone) {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => {
                let mut by = holders(root, None, true, now)?;
                by.retain(|sign| alone || sign.alone);
                return Err(locked(by));
            }
            Err(TryLockError::Error(e)) if lacks_locks(&e) => {
                log::warn!(
                    "{}: this file system has no locks ({e}): jobs tell by signs of life whether another one \
                     uses this root, and one that stands still for two minutes counts as gone",
                    root.display()
                );
                false
            }
            Err(TryLockError::Error(e)) => return Err(StoreError::io("lock", &path)(e)),
        };
        let mut lock = Self {
            root: root.into(),
            _heartbeat: None,
            entry: None,
            _file: file,
            alone,
            flocks,
            since: None,
        };
        match lock.enter(now) {
            Ok(()) => {}
            // A full disk must be opened to be cleaned up, and the lock holds without an entry.
            Err(e) if flocks && e.is_full() => log::debug!("no entry in store/locks: {e}"),
            Err(e) => return Err(e),
        }
        if !flocks {
            let mut others = lock.others(now)?;
            others.retain(|other| alone || other.alone);
            if !others.is_empty() {
                return Err(locked(others));
            }
        }
        Ok(lock)
    }

    /// Makes this holder's entry and keeps it up to date.
    fn enter(&mut self, now: SystemTime) -> Result<(), StoreError> {
        static OPENED: AtomicU64 = AtomicU64::new(0);
        let count = OPENED.fetch_add(1, Ordering::Relaxed);
        let name = format!("{ENTRY}{}-{}-{count}.lock", disk::host(), std::process::id());
        let path = locks(&self.root).join(name);
        let mut sign = Sign::own(self.alone, now);
        let entry = if self.flocks {
            let entry = Guard { path: path.clone(), file: Arc::new(take_own(&path)?) };
            // The lock holds without it.
            sign.write(&entry.file).ok();
            entry
        } else {
            take(&path, "", &sign, false, now)?
        };
        // By the clock that all others see: `gc` compares it with times of files.
        let made = entry.file.metadata().and_then(|about| about.modified()).ok();
        sign.since = made.map(seconds).or(sign.since);
        self.since = made.map(seconds);
        sign.write(&entry.file).ok();
        self._heartbeat = Some(Heartbeat::start(sign, Arc::clone(&entry.file), &path));
        self.entry = Some(entry);
        Ok(())
    }

    /// Takes the lock on a unit.
    pub(super) fn take_unit(&self, name: &str, what: &str, now: SystemTime) -> Result<Guard, StoreError> {
        let entry = self.entry.as_ref().and_then(|entry| entry.path.file_name());
        let entry = entry.map(|name| name.to_string_lossy().into_owned());
        let own = Sign::own(false, now);
        let sign = if entry.is_some() { Sign { entry, beat: None, since: None, ..own } } else { own };
        take(&locks(&self.root).join(name), what, &sign, self.flocks, now)
    }

    /// Everyone else who has the root open; entries of those who are gone are removed.
    pub(super) fn others(&self, now: SystemTime) -> Result<Vec<Sign>, StoreError> {
        let own = self.entry.as_ref().map(|entry| entry.path.as_path());
        holders(&self.root, own, self.flocks, now)
    }

    /// Removes what killed processes left in `store/locks`: nothing there is held while the root is
    /// held alone.
    pub(super) fn tidy(&self) -> Result<(), StoreError> {
        let own = self.entry.as_ref().map(|entry| entry.path.as_path());
        for entry in entries(&locks(&self.root))? {
            let path = entry.path();
            if self.alone && own != Some(&path) {
                disk::remove(&path).map_err(StoreError::io("remove", &path))?;
            }
        }
        Ok(())
    }

    /// When this holder came, in seconds since 1970 by the file system's clock.
    pub(super) fn since(&self) -> Option<u64> {
        self.since
    }

    pub(super) fn is_exclusive(&self) -> bool {
        self.alone
    }

    /// Has the file system locks?
    pub(super) fn has_flocks(&self) -> bool {
        self.flocks
    }
}

fn locks(root: &Path) -> PathBuf {
    root.join("store/locks")
}

/// Takes the lock file at `path` and signs it; `what` is its name in messages.
fn take(path: &Path, what: &str, sign: &Sign, flocks: bool, now: SystemTime) -> Result<Guard, StoreError> {
    let file = if flocks { take_flock(path, what, now)? } else { take_file(path, what, now)? };
    let guard = Guard { path: path.into(), file: Arc::new(file) };
    match sign.write(&guard.file) {
        // The lock holds without it; where the file is the lock, others must be able to judge it.
        Err(e) if !flocks => Err(StoreError::io("sign the lock", path)(e)),
        _ => Ok(guard),
    }
}

fn take_flock(path: &Path, what: &str, now: SystemTime) -> Result<File, StoreError> {
    take_found(path, |file| match disk::try_lock(file, false) {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(held(path, what, now)),
        Err(TryLockError::Error(e)) => Err(StoreError::io("lock", path)(e)),
    })
}

/// The entry of this holder, whose name no one else uses. Another process may have found it before we
/// locked it, and holds it for the moment in which it finds out that nobody does (see [`holders`]).
fn take_own(path: &Path) -> Result<File, StoreError> {
    take_found(path, |file| file.lock().map_err(StoreError::io("lock", path)))
}

fn take_found(path: &Path, lock: impl Fn(&File) -> Result<(), StoreError>) -> Result<File, StoreError> {
    loop {
        let file = disk::open_lock(path).map_err(StoreError::io("open the lock", path))?;
        lock(&file)?;
        // The holder before may have removed the file between our opening and locking it: then
        // this lock is on a file that no one else will find.
        if is_at(&file, path) {
            // What the holder before wrote may be longer.
            disk::cut(&file, path, 0).ok();
            return Ok(file);
        }
    }
}

fn take_file(path: &Path, what: &str, now: SystemTime) -> Result<File, StoreError> {
    loop {
        match disk::create_new(path, 0o644) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            file => return file.map_err(StoreError::io("make the lock", path)),
        }
        let Some(sign) = judged(path) else { continue };
        if !sign.is_stale(now, process_runs) {
            return Err(held(path, what, now));
        }
        take_away(path, &sign, now)?;
    }
}

/// Removes the lock file of a holder that is gone. It is moved aside first, so that of several that
/// find it only one removes it; a lock that someone has taken meanwhile is put back.
fn take_away(path: &Path, stale: &Sign, now: SystemTime) -> Result<(), StoreError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = path.with_file_name(format!("gone-{}-{name}", std::process::id()));
    match disk::rename(path, &aside) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        moved => moved.map_err(StoreError::io("take over", path))?,
    }
    if judged(&aside).is_some_and(|found| found != *stale) {
        return disk::rename(&aside, path).map_err(StoreError::io("put back", path));
    }
    log::warn!("{}: taken over from {}, which is gone", path.display(), stale.describe(now));
    disk::remove(&aside).map_err(StoreError::io("remove", &aside))
}

/// The sign in a lock's file, with the signs of life of its holder; `None` where it has just gone.
fn judged(path: &Path) -> Option<Sign> {
    let mut sign = Sign::read(path).ok()?;
    if let Some(entry) = &sign.entry {
        // A holder whose entry is gone has closed the root.
        let beat = Sign::read(&path.with_file_name(entry)).map_or(Some(0), |entry| entry.beat);
        sign.beat = beat;
    }
    Some(sign)
}

fn held(path: &Path, what: &str, now: SystemTime) -> StoreError {
    let mut sign = judged(path).unwrap_or_default();
    // No sign of life at all says nothing in a message.
    sign.beat = sign.beat.filter(|beat| *beat > 0);
    StoreError::Locked { what: what.into(), by: sign.describe(now) }
}

/// Who has the root open now, `own` aside; entries of processes that are gone are removed.
fn holders(root: &Path, own: Option<&Path>, flocks: bool, now: SystemTime) -> Result<Vec<Sign>, StoreError> {
    let mut holders = Vec::new();
    for entry in entries(&locks(root))? {
        let path = entry.path();
        if !entry.file_name().to_string_lossy().starts_with(ENTRY) || own == Some(&path) {
            continue;
        }
        let Some(sign) = judged(&path) else { continue };
        if flocks {
            match take_flock(&path, "", now) {
                Ok(file) => drop(Guard { path, file: Arc::new(file) }),
                Err(StoreError::Locked { .. }) => holders.push(sign),
                Err(e) => return Err(e),
            }
        } else if sign.is_stale(now, process_runs) {
            take_away(&path, &sign, now)?;
        } else {
            holders.push(sign);
        }
    }
    Ok(holders)
}

/// Some parallel file systems are mounted without locks. Other errors stay errors.
fn lacks_locks(error: &io::Error) -> bool {
    const ENOLCK: i32 = 37;
    error.kind() == ErrorKind::Unsupported || error.raw_os_error() == Some(ENOLCK)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::super::faults::Disk;
    use super::super::sign::{SILENCE, beat};
    use super::*;

    fn root() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(locks(dir.path())).unwrap();
        dir
    }

    fn us() -> String {
        format!("process {} on {}", std::process::id(), disk::host())
    }

    fn after(now: SystemTime, seconds: u64) -> SystemTime {
        now + Duration::from_secs(seconds)
    }

    /// Both ways of locking must do all of this.
    fn with_and_without_flocks(test: impl Fn(&Path)) {
        test(root().path());
        let _disk = Disk::without_locks();
        test(root().path());
    }

    #[test]
    fn a_unit_is_locked_once_and_free_again_afterwards() {
        with_and_without_flocks(|root| {
            let now = SystemTime::now();
            let lock = RootLock::take(root, false, now).unwrap();
            let guard = lock.take_unit("run-00.lock", "run 00", now).unwrap();
            let refused = lock.take_unit("run-00.lock", "run 00", after(now, 3)).unwrap_err().to_string();
            let expected = format!("run 00 is in use by {} (last sign of life 3 s ago)", us());
            assert!(refused.starts_with(&expected), "{refused}");
            let path = guard.path.clone();
            drop(guard);
            assert!(!path.exists());
            let _again = lock.take_unit("run-00.lock", "run 00", now).unwrap();
        });
    }

    #[test]
    fn a_root_is_shared_or_held_alone_and_says_by_whom() {
        with_and_without_flocks(|root| {
            let now = SystemTime::now();
            let first = RootLock::take(root, false, now).unwrap();
            let second = RootLock::take(root, false, now).unwrap();
            assert_eq!(second.others(now).unwrap().len(), 1);
            let refused = RootLock::take(root, true, after(now, 7)).unwrap_err().to_string();
            assert_eq!(refused.matches(&us()).count(), 2, "{refused}");
            assert!(refused.contains("(last sign of life 7 s ago)"), "{refused}");
            drop((first, second));
            let alone = RootLock::take(root, true, now).unwrap();
            for asked_alone in [false, true] {
                let refused = RootLock::take(root, asked_alone, now).unwrap_err().to_string();
                assert_eq!(refused.matches(&us()).count(), 1, "{refused}");
            }
            drop(alone);
            assert_eq!(entries(&locks(root)).unwrap().len(), 0);
            drop(RootLock::take(root, false, now).unwrap());
        });
    }

    #[test]
    fn without_locks_the_silent_and_the_dead_are_succeeded() {
        let root = root();
        let root = root.path();
        let _disk = Disk::without_locks();
        let now = SystemTime::now();
        let first = RootLock::take(root, true, now).unwrap();
        let unit = first.take_unit("run-00.lock", "run 00", now).unwrap();
        // A sign of life keeps it, however long ago it was taken.
        let entry = first.entry.as_ref().unwrap();
        assert!(beat(&Sign::own(true, now), &entry.file, &entry.path, after(now, SILENCE)));
        let refused = RootLock::take(root, false, after(now, 2 * SILENCE)).unwrap_err().to_string();
        assert!(refused.contains(&format!("(last sign of life {SILENCE} s ago)")), "{refused}");
        let late = after(now, 2 * SILENCE + 1);
        let second = RootLock::take(root, false, late).unwrap();
        let taken = second.take_unit("run-00.lock", "run 00", late).unwrap();
        // The first wakes up and ends: what is the second's stays.
        let (lost, kept) = (entry.path.clone(), taken.path.clone());
        drop((unit, first));
        assert!(!lost.exists() && kept.exists());
        drop((taken, second));

        // A process of this host that is no more; pids end below 2^22.
        let left = locks(root).join(format!("{ENTRY}left.lock"));
        fs::write(&left, format!("process 4999999 on {}\nmode alone\nbeat {:020}\n", disk::host(), u64::MAX))
            .unwrap();
        let _third = RootLock::take(root, true, now).unwrap();
        assert!(!left.exists());
    }

    /// `gc` looks for holders in a loop while a sweep comes: its look must not pass for a holder.
    #[test]
    fn one_who_comes_while_others_look_is_let_in() {
        let root = root();
        let root = root.path();
        let come = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !come.load(Ordering::SeqCst) {
                        holders(root, None, true, SystemTime::now()).unwrap();
                    }
                });
            }
            let refused = (0..2000)
                .filter_map(|_| RootLock::take(root, false, SystemTime::now()).err())
                .map(|refused| refused.to_string())
                .collect::<Vec<_>>();
            come.store(true, Ordering::SeqCst);
            assert_eq!(refused, Vec::<String>::new());
        });
    }

    #[test]
    fn threads_that_race_for_a_lock_never_hold_it_together() {
        for flocks in [true, false] {
            let root = root();
            let path = locks(root.path()).join("x.lock");
            let holders = AtomicU64::new(0);
            let taken = AtomicU64::new(0);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for _ in 0..300 {
                            let now = SystemTime::now();
                            if let Ok(_guard) = take(&path, "x", &Sign::own(false, now), flocks, now) {
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
}
