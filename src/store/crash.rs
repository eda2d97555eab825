//! Every way of writing, killed at every step.
//!
//! A [`Case`] is done once undisturbed. Then, from the same start, the process dies at its first
//! operation on the disk, at its second, and so on until it completes; each time once as by a kill and
//! twice as by a power cut. Whatever is left must be sound, every file must be the old one or the new
//! one, and doing it again must end as if nothing had happened. Then the same with a disk that is full
//! from the k-th operation on, where also no space may stay taken.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::atomic::entries;
use super::checkpoints::{keep, let_go};
use super::disk;
use super::faults::{Disk, Fault, Loss};
use super::{Hash, RUN, Ref, Status, Store, StoreError, TARGET};

const TARGET_DIR: &str = "runs/targets/tgt_a";
const RUN_DIR: &str = "runs/targets/tgt_a/run_hmc_1";

/// One way of writing.
pub(super) struct Case {
    pub(super) name: &'static str,
    /// What is there before.
    pub(super) before: fn(&Path),
    /// What is done, by a process of its own: it opens the store.
    pub(super) work: fn(&Path) -> Result<(), StoreError>,
    /// Is the store sound before, so that it must be at every moment?
    pub(super) sound: bool,
}

/// Files by their path, but for locks, what was put aside, and temporaries.
type Files = BTreeMap<PathBuf, Vec<u8>>;

fn files(root: &Path) -> Files {
    fn walk(root: &Path, dir: &Path, found: &mut Files) {
        for entry in entries(dir).unwrap() {
            let (path, name) = (entry.path(), entry.file_name());
            let short = path.strip_prefix(root).unwrap().to_path_buf();
            let volatile = ["store/locks", "store/lock", "store/gc.lock", "store/quarantine"];
            if volatile.iter().any(|volatile| short == Path::new(volatile)) {
                continue;
            }
            if path.is_dir() {
                walk(root, &path, found);
            } else if disk::owner(&name.to_string_lossy()).is_none() {
                found.insert(short, fs::read(&path).unwrap());
            }
        }
    }
    let mut found = Files::new();
    walk(root, root, &mut found);
    found
}

fn temporaries(dir: &Path) -> usize {
    let count = |entry: &fs::DirEntry| match entry.path().is_dir() {
        true => temporaries(&entry.path()),
        false => usize::from(disk::owner(&entry.file_name().to_string_lossy()).is_some()),
    };
    entries(dir).unwrap().iter().map(count).sum()
}

/// In memory where there is such a place: it is the steps that count, not the disk.
fn root(case: &Case) -> tempfile::TempDir {
    let shm = Path::new("/dev/shm");
    let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.unwrap();
    (case.before)(dir.path());
    dir
}

/// Kills a case everywhere; returns the number of its operations.
pub(super) fn survives(case: &Case) -> usize {
    let undisturbed = root(case);
    let old = files(undisturbed.path());
    let watch = Disk::with(Fault::None);
    (case.work)(undisturbed.path()).unwrap();
    let count = watch.count();
    drop(watch);
    let new = files(undisturbed.path());
    for loss in [Loss::Nothing, Loss::Everything, Loss::Half] {
        for k in 1.. {
            let at = format!("{}, killed at operation {k} of {count}, loss: {loss:?}", case.name);
            let root = root(case);
            let watch = Disk::with(Fault::Kill(k));
            let done = (case.work)(root.path());
            if !watch.is_dead() {
                assert_eq!((k, done.is_ok()), (count + 1, true), "{at}");
                break;
            }
            watch.power_cut(loss);
            recovers(case, root.path(), &old, &new, &at);
        }
    }
    for k in 1..=count {
        let at = format!("{}, full from operation {k} of {count} on", case.name);
        let root = root(case);
        let watch = Disk::with(Fault::Full(k));
        let done = (case.work)(root.path());
        let was_full = watch.is_dead();
        drop(watch);
        if let Err(e) = done {
            assert!(was_full && e.to_string().contains("Free space"), "{at}: {e}");
            assert!(
                matches!(&e, StoreError::Io { source, .. } if source.kind() == ErrorKind::StorageFull),
                "{at}"
            );
        }
        assert_eq!(temporaries(root.path()), 0, "{at}: space stays taken");
        recovers(case, root.path(), &old, &new, &at);
    }
    count
}

fn recovers(case: &Case, root: &Path, old: &Files, new: &Files, at: &str) {
    for (path, bytes) in files(root) {
        let known = [old, new].iter().any(|files| files.get(&path) == Some(&bytes));
        // What grows by lines ends with a torn one until it is opened again; listings and files in
        // between states are whole lines of JSON.
        let torn = path.extension().is_some_and(|e| e == "log")
            && new.get(&path).is_some_and(|new| new.starts_with(&bytes));
        let listing = path.extension().is_some_and(|e| e == "jsonl")
            && String::from_utf8(bytes).unwrap().lines().all(|l| serde_json::from_str::<Value>(l).is_ok());
        assert!(known || torn || listing, "{at}: {} is neither the old nor the new one", path.display());
    }
    if case.sound {
        let report = Store::open(root).unwrap().verify().unwrap();
        assert!(report.is_sound() && report.foreign.is_empty(), "{at}: {report:?}");
    }
    (case.work)(root).unwrap_or_else(|e| panic!("{at}, again: {e}"));
    let again = files(root);
    let differ: Vec<&PathBuf> =
        new.keys().chain(again.keys()).filter(|path| new.get(*path) != again.get(*path)).collect();
    assert!(differ.is_empty(), "{at}, again: {differ:?} differ");
    // Whoever takes the root alone cleans up.
    drop(Store::open_exclusive(root).unwrap());
    assert_eq!(temporaries(root), 0, "{at}");
    let locks = entries(&root.join("store/locks")).unwrap();
    let shown: Vec<_> = locks.iter().map(fs::DirEntry::file_name).collect();
    assert!(shown.is_empty(), "{at}: {shown:?}");
    let report = Store::open(root).unwrap().verify().unwrap();
    assert!(report.is_sound(), "{at}: {report:?}");
}

fn unit(store: &Store, kind: &str, dir: &str, objects: &[(&str, &str)]) -> Result<Ref, StoreError> {
    let mut map = BTreeMap::new();
    for (name, text) in objects {
        map.insert((*name).to_owned(), store.put(text.as_bytes())?);
    }
    Ok(Ref {
        kind: kind.into(),
        id: Hash::of(dir.as_bytes()),
        dir: Some(dir.into()),
        status: Status::Done,
        when: "2026-01-01T00:00:00Z".into(),
        config: serde_json::json!({ "draws": 10 }),
        objects: map,
        details: Value::Null,
    })
}

/// All that a sweep writes for a target or run: objects, record, tree, log, listings, results.
fn finish(store: &Store, kind: &str, dir: &str, objects: &[(&str, &str)]) -> Result<(), StoreError> {
    let unit = unit(store, kind, dir, objects)?;
    let _held = store.lock_unit(TARGET, &unit.id)?;
    store.write_ref(&unit)?;
    store.materialise(Path::new(dir), &unit.objects)?;
    store.write_file(&Path::new(dir).join("manifest.json"), b"{}\n")?;
    store.write_file(&Path::new("logs").join(format!("{kind}.txt")), b"done\n")?;
    store.write_file(Path::new("results/llc_runs.parquet"), dir.as_bytes())?;
    store.rebuild_catalog()
}

const TARGET_FILES: [(&str, &str); 2] = [("data.npz", "the data"), ("params.npz", "the parameters")];
const RUN_FILES: [(&str, &str); 3] =
    [("trace.nc", "the draws"), ("diagnostics/trace.png", "a picture"), ("copy.npz", "the data")];

fn nothing(_: &Path) {}

fn finished(root: &Path) {
    let store = Store::open(root).unwrap();
    finish(&store, TARGET, TARGET_DIR, &TARGET_FILES).unwrap();
    finish(&store, RUN, RUN_DIR, &RUN_FILES).unwrap();
}

fn spoil(path: &Path) {
    fs::remove_file(path).unwrap();
    fs::write(path, "spoiled").unwrap();
}

fn keep_state(root: &Path, state: &[u8]) -> Result<(), StoreError> {
    let dir = Store::open(root)?.checkpoints();
    keep(&dir, (&Hash::of(b"a run"), "chain-0.part"), "this version", state, true)
}

fn kept_before(root: &Path) {
    keep_state(root, b"state").unwrap();
}

#[test]
fn objects_and_records() {
    let case = |name, before, work| Case { name, before, work, sound: true };
    let counts = [
        case("opening a root", nothing, |root| Store::open(root).map(drop)),
        case("putting an object", nothing, |root| Store::open(root)?.put(b"content of it").map(drop)),
        case("putting an object again", finished, |root| Store::open(root)?.put(b"the data").map(drop)),
        case("replacing a record", finished, |root| {
            let store = Store::open(root)?;
            let unit = unit(&store, RUN, RUN_DIR, &[("trace.nc", "other draws")])?;
            store.write_ref(&Ref { details: Value::from(1), ..unit })
        }),
        case("keeping a checkpoint over an older one", kept_before, |root| keep_state(root, b"later")),
        case("letting go of checkpoints", kept_before, |root| {
            let_go(&Store::open(root)?.checkpoints(), &Hash::of(b"a run"))
        }),
        case("results over older ones", finished, |root| {
            Store::open(root)?.write_file(Path::new("results/llc_runs.parquet"), &[7; 3000])
        }),
    ]
    .map(|case| survives(&case));
    assert!(counts.iter().all(|count| *count > 3), "{counts:?}");
    let healing = Case {
        name: "putting an object over a damaged one",
        before: |root| {
            finished(root);
            let store = Store::open(root).unwrap();
            spoil(&store.object_path(&Hash::of(b"the data")));
        },
        work: |root| Store::open(root)?.put(b"the data").map(drop),
        sound: false,
    };
    survives(&healing);
}

#[test]
fn a_target_and_a_run_from_objects_to_results() {
    let target = Case {
        name: "a target",
        before: nothing,
        work: |root| finish(&Store::open(root)?, TARGET, TARGET_DIR, &TARGET_FILES),
        sound: true,
    };
    assert!(survives(&target) > 40);
    let run = Case {
        name: "a run",
        before: |root| {
            finish(&Store::open(root).unwrap(), TARGET, TARGET_DIR, &TARGET_FILES).unwrap();
        },
        work: |root| finish(&Store::open(root)?, RUN, RUN_DIR, &RUN_FILES),
        sound: true,
    };
    assert!(survives(&run) > 40);
}

#[test]
fn removing_collecting_and_repairing() {
    let rm = Case {
        name: "rm",
        before: finished,
        work: |root| {
            let store = Store::open_exclusive(root)?;
            match store.remove(RUN_DIR) {
                // What the killed one had come to: its record is gone, the rest is rubbish.
                Ok(_) | Err(StoreError::NotFound { .. }) => {}
                Err(e) => return Err(e),
            }
            for orphan in store.verify()?.orphans {
                File::open(store.object_path(&orphan)).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
            }
            store.collect(Duration::ZERO, false, SystemTime::now()).map(drop)
        },
        sound: true,
    };
    survives(&rm);
    let gc = Case {
        name: "gc",
        before: |root| {
            finished(root);
            let store = Store::open(root).unwrap();
            let orphan = store.object_path(&store.put(b"orphan").unwrap());
            let id = Hash::of(RUN_DIR.as_bytes());
            let checkpoint = root.join(format!("store/checkpoints/{id}"));
            fs::create_dir_all(&checkpoint).unwrap();
            fs::create_dir_all(root.join("store/quarantine")).unwrap();
            let left = [orphan, checkpoint.join("chain-0"), root.join("store/quarantine/x")];
            for path in &left[1..] {
                fs::write(path, "1234").unwrap();
            }
            for path in left.iter().chain([&checkpoint]) {
                File::open(path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
            }
        },
        work: |root| {
            let done = Store::open(root)?.collect(Duration::ZERO, false, SystemTime::now());
            done.map(|report| assert_eq!(report.kept.files, 0))
        },
        sound: true,
    };
    survives(&gc);
    let repair = Case {
        name: "repair",
        before: |root| {
            finished(root);
            let store = Store::open(root).unwrap();
            // One that a copy heals, one that is lost with its copy, a copy, a listing.
            spoil(&store.object_path(&Hash::of(b"the parameters")));
            spoil(&store.object_path(&Hash::of(b"a picture")));
            spoil(&root.join(RUN_DIR).join("diagnostics/trace.png"));
            spoil(&root.join(TARGET_DIR).join("data.npz"));
            fs::write(root.join("runs/targets/_catalog.jsonl"), "{}\n").unwrap();
        },
        work: |root| Store::open_exclusive(root)?.repair(&[]).map(drop),
        sound: false,
    };
    survives(&repair);
}

#[test]
fn lines_are_whole_and_in_order_wherever_it_dies() {
    let shm = Path::new("/dev/shm");
    for loss in [Loss::Nothing, Loss::Everything, Loss::Half] {
        for k in 1.. {
            let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.unwrap();
            let path = Path::new("logs/x.log");
            let lines = |from: usize, to: usize| -> Result<usize, StoreError> {
                let store = Store::open(dir.path())?;
                let mut file = store.appender(path)?;
                for i in from..to {
                    if let Err(e) = file.append(&format!("line {i}")) {
                        return if i == from { Err(e) } else { Ok(i) };
                    }
                }
                Ok(to)
            };
            let watch = Disk::with(Fault::Kill(k));
            let written = lines(0, 4).unwrap_or(0);
            let dead = watch.is_dead();
            watch.power_cut(loss);
            // Opened again, it ends with a whole line: all that were reported written, and at most one more.
            drop(Store::open(dir.path()).unwrap().appender(path).unwrap());
            let text = fs::read_to_string(dir.path().join(path)).unwrap();
            let count = text.lines().count();
            assert!((written..=written + 1).contains(&count), "{k} {loss:?}: {written} reported, {text:?}");
            lines(count, 6).unwrap();
            let text = fs::read_to_string(dir.path().join(path)).unwrap();
            assert_eq!(text, (0..6).map(|i| format!("line {i}\n")).collect::<String>(), "{k} {loss:?}");
            if !dead {
                assert!(k > 8, "{k}");
                break;
            }
        }
    }
}

/// What the tests above prove holds for the program because all its writing goes through `disk`.
#[test]
fn nothing_else_in_the_program_changes_a_disk() {
    fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in entries(dir).unwrap() {
            let path = entry.path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&source, &mut found);
    assert!(found.len() > 50);
    for path in found {
        let short = path.strip_prefix(&source).unwrap();
        let tests = ["store/disk.rs", "store/faults.rs", "store/crash.rs"];
        if tests.iter().any(|allowed| short == Path::new(allowed)) || short.ends_with("tests.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let program = text.split("#[cfg(test)]\nmod").next().unwrap();
        for call in
            ["fs::write(", "fs::rename", "fs::remove", "fs::create", "fs::copy", "File::create", ".set_len("]
        {
            assert!(!program.contains(call), "{}: {call} belongs into store/disk.rs", short.display());
        }
    }
}
