//! `artifacts gc`: what nothing needs any more, removed beside whatever else runs.
//!
//! What a ref names is kept, always. Of the rest, what is younger than the time to live is kept.
//! The root stays shared, so that sweeps run and start meanwhile; what they are about to name is
//! kept because it is younger than they are: an object that a sweep puts is new, or, where it was
//! there before, touched ([`Store::put`]), and `gc` removes nothing that has changed since the oldest
//! process now on this root, or `gc` itself, opened it. Touching and removing exclude each other by
//! the lock `store/gc.lock`. All times are the file system's own, so clocks of hosts do not matter.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::atomic::entries;
use super::disk::{self, Owner};
use super::refs::{Found, inspect};
use super::sign::seconds;
use super::{Hash, RUN, Status, Store, StoreError, TARGET, TREES};

/// Youngest age at which a temporary file of an unknown process or another host counts as left.
const TEMPORARY_AGE: Duration = Duration::from_secs(3600);
/// Allowance for clocks where the start of a process is not known by the file system's.
const SKEW: u64 = 300;

/// How much of one sort was removed (or would be).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Freed {
    /// Number of files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl Freed {
    fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }
}

/// What a collection did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Collected {
    /// Was it only to be said, not done?
    pub dry_run: bool,
    /// Objects that no ref names.
    pub objects: Freed,
    /// Damaged files that had been put aside.
    pub quarantined: Freed,
    /// What killed processes left half-written.
    pub temporaries: Freed,
    /// Checkpoints of units that are done or were given up.
    pub checkpoints: Freed,
    /// Bytes of all of them.
    pub bytes: u64,
    /// What no ref names, but is too young, or may be wanted by a process that runs now.
    pub kept: Freed,
    /// Other processes that had the root open.
    pub beside: Vec<String>,
}

/// What decides over a file's life.
struct Rule {
    now: SystemTime,
    ttl: Duration,
    /// What has changed since then (seconds since 1970) may be wanted by someone.
    start: u64,
    dry_run: bool,
}

impl Rule {
    fn is_old(&self, about: &Metadata) -> bool {
        let Ok(changed) = about.modified() else { return false };
        let age = self.now.duration_since(changed).unwrap_or_default();
        age >= self.ttl && seconds(changed) < self.start
    }
}

impl Store {
    /// Removes objects that no ref names, quarantined files, what killed processes left half-written,
    /// and checkpoints of units that are done, if they have not changed for `ttl`; also checkpoints of
    /// unfinished units older than that, unless another process has the root open. With `dry_run`
    /// nothing is removed.
    ///
    /// # Errors
    /// [`StoreError::Unmarked`] where a ref cannot be read, because what it names would not be known;
    /// [`StoreError::RefFormat`]; [`StoreError::Locked`] on a file system without locks while anyone
    /// else has the root open; [`StoreError::Io`]. Nothing that is needed is removed then either.
    pub fn collect(&self, ttl: Duration, dry_run: bool, now: SystemTime) -> Result<Collected, StoreError> {
        let others = self.lock.others(now)?;
        let beside: Vec<String> = others.iter().map(|sign| sign.describe(now)).collect();
        if !self.lock.has_flocks() && !beside.is_empty() {
            let what = format!("the root {}", self.root().display());
            return Err(StoreError::Locked { what, by: beside.join(" and ") });
        }
        let own = self.lock.since().unwrap_or(seconds(now).saturating_sub(SKEW));
        // A version that does not say since when holds everything.
        let start = others.iter().map(|sign| sign.since.unwrap_or(0)).fold(own, u64::min);
        let rule = Rule { now, ttl, start, dry_run };
        // The objects first: one that is named by a ref written after this is not among them, or was
        // touched after `start`.
        let (objects, _) = self.objects()?;
        let named = self.named()?;
        let mut report = Collected { dry_run, beside, ..Collected::default() };
        for hash in objects.iter().filter(|hash| !named.contains(hash)) {
            self.collect_object(hash, &rule, &mut report)?;
        }
        for entry in entries(&self.root().join("store/quarantine"))? {
            let Some(about) = metadata(&entry.path())?.filter(|about| about.is_file()) else { continue };
            if rule.is_old(&about) {
                remove(&entry.path(), &rule)?;
                report.quarantined.add(about.len());
            } else {
                report.kept.add(about.len());
            }
        }
        for dir in TREES {
            collect_temporaries(&self.root().join(dir), &rule, &mut report)?;
        }
        self.collect_checkpoints(&rule, &mut report)?;
        let parts = [report.objects, report.quarantined, report.temporaries, report.checkpoints];
        report.bytes = parts.iter().map(|part| part.bytes).sum();
        Ok(report)
    }

    /// Every object that a ref names, of units done or not.
    fn named(&self) -> Result<BTreeSet<Hash>, StoreError> {
        let mut named = BTreeSet::new();
        for kind in self.ref_kinds()? {
            for id in self.ref_ids(&kind)? {
                let path = self.ref_path(&kind, &id);
                match inspect(&path, &kind, &id)? {
                    Found::Nothing => {}
                    Found::Good(unit) => named.extend(unit.objects.values().copied()),
                    Found::Damaged(why) => return Err(StoreError::Unmarked { path, why }),
                }
            }
        }
        Ok(named)
    }

    fn collect_object(&self, hash: &Hash, rule: &Rule, report: &mut Collected) -> Result<(), StoreError> {
        let path = self.object_path(hash);
        let _excluded = self.lock_collection(false)?;
        let Some(about) = metadata(&path)? else { return Ok(()) };
        if rule.is_old(&about) {
            remove(&path, rule)?;
            report.objects.add(about.len());
        } else {
            report.kept.add(about.len());
        }
        Ok(())
    }

    fn collect_checkpoints(&self, rule: &Rule, report: &mut Collected) -> Result<(), StoreError> {
        for entry in entries(&self.root().join("store/checkpoints"))? {
            let path = entry.path();
            let mut files = Vec::new();
            list_files(&path, &mut files)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let done = match name.parse::<Hash>() {
                Ok(id) => self.is_done(&id)?,
                Err(_) => false,
            };
            let old = files.iter().all(|(_, about)| rule.is_old(about))
                && metadata(&path)?.is_some_and(|about| rule.is_old(&about));
            let untouched =
                files.iter().all(|(_, about)| about.modified().is_ok_and(|t| seconds(t) < rule.start));
            // A sweep that runs now may be about to go on from a checkpoint, however old.
            let goes = if report.beside.is_empty() { done || old } else { done && untouched };
            for (_, about) in &files {
                let part = if goes { &mut report.checkpoints } else { &mut report.kept };
                part.add(about.len());
            }
            if goes && !rule.dry_run {
                let removed = if path.is_dir() { disk::remove_tree(&path) } else { disk::remove(&path) };
                unless_gone(removed).map_err(StoreError::io("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Is the target or run of this id recorded as done, with all that it names there?
    fn is_done(&self, id: &Hash) -> Result<bool, StoreError> {
        for kind in [TARGET, RUN] {
            if let Found::Good(unit) = inspect(&self.ref_path(kind, id), kind, id)?
                && unit.status == Status::Done
            {
                return Ok(unit.objects.values().all(|hash| self.object_path(hash).is_file()));
            }
        }
        Ok(false)
    }

    /// Keeps a collection from removing (`shared`), or others from touching, an object meanwhile. A
    /// collection on a file system without locks has the root to itself.
    pub(super) fn lock_collection(&self, shared: bool) -> Result<Option<File>, StoreError> {
        if !self.lock.has_flocks() {
            return Ok(None);
        }
        let path = self.root().join("store/gc.lock");
        let lock = || {
            let file = disk::open_lock(&path)?;
            if shared { file.lock_shared() } else { file.lock() }.map(|()| file)
        };
        lock().map(Some).map_err(StoreError::io("lock", &path))
    }
}

/// Temporary files in `dir` and below whose process is gone.
fn collect_temporaries(dir: &Path, rule: &Rule, report: &mut Collected) -> Result<(), StoreError> {
    for entry in entries(dir)? {
        let path = entry.path();
        let Some(about) = metadata(&path)? else { continue };
        if about.is_dir() {
            collect_temporaries(&path, rule, report)?;
        } else if let Some(owner) = disk::owner(&entry.file_name().to_string_lossy()) {
            let aged = |age| Rule { ttl: rule.ttl.max(age), ..*rule }.is_old(&about);
            let left = match owner {
                Owner::Process { pid, host } if host == disk::host() => {
                    !disk::process_runs(pid) && aged(Duration::ZERO)
                }
                _ => aged(TEMPORARY_AGE),
            };
            if left {
                remove(&path, rule)?;
                report.temporaries.add(about.len());
            }
        }
    }
    Ok(())
}

fn list_files(path: &Path, files: &mut Vec<(PathBuf, Metadata)>) -> Result<(), StoreError> {
    let Some(about) = metadata(path)? else { return Ok(()) };
    if !about.is_dir() {
        files.push((path.into(), about));
        return Ok(());
    }
    for entry in entries(path)? {
        list_files(&entry.path(), files)?;
    }
    Ok(())
}

/// What is known of a file itself, not of what it may link to; `None` where it has just gone.
fn metadata(path: &Path) -> Result<Option<Metadata>, StoreError> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        about => about.map(Some).map_err(StoreError::io("look at", path)),
    }
}

fn remove(path: &Path, rule: &Rule) -> Result<(), StoreError> {
    if rule.dry_run {
        return Ok(());
    }
    unless_gone(disk::remove(path)).map_err(StoreError::io("remove", path))
}

/// Someone else may have been quicker.
fn unless_gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Ref, urn};
    use serde_json::Value;

    const DAY: Duration = Duration::from_secs(86400);

    fn unit(name: &str, status: Status, objects: &[Hash]) -> Ref {
        Ref {
            kind: RUN.into(),
            id: Hash::of(name.as_bytes()),
            dir: None,
            status,
            when: String::new(),
            config: Value::Null,
            objects: objects.iter().enumerate().map(|(i, hash)| (i.to_string(), *hash)).collect(),
            details: Value::Null,
        }
    }

    /// Makes a file look as old as that.
    fn age(path: &Path, age: Duration) {
        File::open(path).unwrap().set_modified(SystemTime::now() - age).unwrap();
    }

    /// A store with something of every sort, all of it `old`.
    fn filled(old: Duration) -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let [a, b, lost, broken] = [&b"aa"[..], b"bb", b"orphan", b"broken"].map(|x| store.put(x).unwrap());
        store.write_ref(&unit("done", Status::Done, &[a])).unwrap();
        let failed = Status::Failed { reason: "lost".into(), settled: false };
        store.write_ref(&unit("failed", failed, &[b])).unwrap();
        store.quarantine(&store.object_path(&broken), "broken").unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("runs/x")).unwrap();
        fs::write(at("runs/x/.tmp-unknown"), "half").unwrap();
        fs::write(at(&format!("store/.tmp-4999999-0-{}", disk::host())), "dead").unwrap();
        fs::write(at(&format!("store/.tmp-{}-7-{}", std::process::id(), disk::host())), "mine").unwrap();
        for (name, part) in [("done", "chain-0"), ("failed", "chain-0"), ("begun", "warmup")] {
            let id = Hash::of(name.as_bytes());
            let dir = at(&format!("store/checkpoints/{id}"));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join(part), "12345678").unwrap();
            age(&dir.join(part), old);
            age(&dir, old);
        }
        for path in [store.object_path(&a), store.object_path(&b), store.object_path(&lost)] {
            age(&path, old);
        }
        for entry in entries(&at("store")).unwrap().iter().chain(&entries(&at("runs/x")).unwrap()) {
            if entry.path().is_file() {
                age(&entry.path(), old);
            }
        }
        age(&at("store/quarantine/broken"), old);
        (dir, store)
    }

    #[test]
    fn what_nothing_names_goes_when_it_is_old_enough_and_nothing_else() {
        let (dir, store) = filled(8 * DAY);
        let now = SystemTime::now();
        let objects = store.objects().unwrap().0.len();
        let planned = store.collect(7 * DAY, true, now).unwrap();
        assert_eq!(store.objects().unwrap().0.len(), objects, "a dry run removes nothing");
        let done = store.collect(7 * DAY, false, now).unwrap();
        assert_eq!(Collected { dry_run: false, ..planned }, done);
        assert_eq!(done.objects, Freed { files: 1, bytes: 6 });
        assert_eq!(done.quarantined, Freed { files: 1, bytes: 6 });
        assert_eq!(done.temporaries, Freed { files: 2, bytes: 8 });
        assert_eq!(done.checkpoints, Freed { files: 3, bytes: 24 });
        assert_eq!((done.bytes, done.kept), (44, Freed::default()));
        for kept in [&b"aa"[..], b"bb"] {
            assert_eq!(store.get(&Hash::of(kept)).unwrap(), kept);
        }
        let mine = format!("store/.tmp-{}-7-{}", std::process::id(), disk::host());
        assert!(dir.path().join(mine).exists(), "of a process that lives");
        assert!(store.verify().unwrap().orphans.is_empty());
        let again = store.collect(7 * DAY, false, now).unwrap();
        assert_eq!(again, Collected::default());
    }

    #[test]
    fn what_is_young_stays_but_checkpoints_of_what_is_done() {
        let (dir, store) = filled(6 * DAY);
        let report = store.collect(7 * DAY, false, SystemTime::now()).unwrap();
        assert_eq!(report.checkpoints, Freed { files: 1, bytes: 8 });
        assert_eq!(report.bytes, 8);
        assert_eq!(report.kept, Freed { files: 4, bytes: 28 });
        let checkpoint =
            |name: &str| dir.path().join(format!("store/checkpoints/{}", Hash::of(name.as_bytes())));
        assert!(!checkpoint("done").exists() && checkpoint("begun").exists());
        // With no time to live all of it goes.
        let report = store.collect(Duration::ZERO, false, SystemTime::now()).unwrap();
        assert_eq!((report.kept, report.objects.files), (Freed::default(), 1));
    }

    #[test]
    fn what_a_process_beside_may_be_about_to_name_stays() {
        let (dir, store) = filled(8 * DAY);
        let sweep = Store::open(dir.path()).unwrap();
        let fresh = sweep.put(b"fresh").unwrap();
        // There before, and put again: not yet named, and still wanted.
        let again = sweep.put(b"orphan").unwrap();
        let report = store.collect(Duration::ZERO, false, SystemTime::now()).unwrap();
        assert_eq!(report.beside.len(), 1);
        assert_eq!(report.objects, Freed::default());
        sweep.write_ref(&unit("late", Status::Done, &[fresh, again])).unwrap();
        assert!(sweep.verify().unwrap().is_sound());
        // It may be about to go on from a checkpoint.
        assert_eq!(report.checkpoints, Freed { files: 1, bytes: 8 });
        drop(sweep);
        let report = store.collect(Duration::ZERO, false, SystemTime::now()).unwrap();
        assert_eq!((report.objects, report.checkpoints.files), (Freed::default(), 2));
    }

    #[test]
    fn without_certainty_about_what_is_named_nothing_goes() {
        let (dir, store) = filled(8 * DAY);
        let id = Hash::of(b"spoiled");
        store.write_ref(&unit("spoiled", Status::Done, &[Hash::of(b"orphan")])).unwrap();
        fs::write(store.ref_path(RUN, &id), "{").unwrap();
        let refused = store.collect(Duration::ZERO, false, SystemTime::now()).unwrap_err().to_string();
        assert!(refused.contains("verify --repair") && refused.contains(&id.to_string()), "{refused}");
        assert_eq!(store.get(&Hash::of(b"orphan")).unwrap(), b"orphan");
        assert_eq!(store.verify().unwrap().bad_refs[0].urn, urn(RUN, &id));
        drop(store);

        // Without locks it needs the root to itself, and says who has it.
        let _disk = crate::store::faults::Disk::without_locks();
        let store = Store::open(dir.path()).unwrap();
        let sweep = Store::open(dir.path()).unwrap();
        let refused = store.collect(DAY, false, SystemTime::now()).unwrap_err();
        assert!(matches!(&refused, StoreError::Locked { by, .. } if by.starts_with("process ")), "{refused}");
        drop(sweep);
        assert_eq!(store.collect(DAY, false, SystemTime::now()).unwrap().objects.files, 1);
    }
}
