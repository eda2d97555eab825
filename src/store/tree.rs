//! The tree for people: names of directories and files, and the copies in them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use super::atomic::{Appender, write_bytes, write_file, write_volatile};
use super::{Hash, ObjectState, RUN, Store, StoreError, TARGET, check_name, check_relative};

/// Hexadecimal digits of a target's id in its directory's name.
const TARGET_DIGITS: usize = 12;
/// Hexadecimal digits of a run's id in its directory's name.
const RUN_DIGITS: usize = 8;
/// Mode of the copies that people may edit.
const COPY_MODE: u32 = 0o644;

impl Store {
    /// A target's directory, `runs/targets/tgt_<12 hex>`: the one that its ref names, else a new
    /// name, lengthened where another target's begins the same. Nothing is made.
    ///
    /// The caller records the answer in the target's ref, which keeps it the target's for good.
    pub fn target_dir(&self, id: &Hash) -> Result<PathBuf, StoreError> {
        match self.recorded_dir(TARGET, id)? {
            Some(dir) => Ok(dir),
            None => {
                self.free_dir((TARGET, id), TARGET_DIGITS, |short| format!("runs/targets/tgt_{short}").into())
            }
        }
    }

    /// A run's directory, `run_<sampler>_<8 hex>` inside its target's; otherwise as
    /// [`target_dir`](Store::target_dir).
    pub fn run_dir(&self, target: &Hash, sampler: &str, run: &Hash) -> Result<PathBuf, StoreError> {
        check_name(sampler)?;
        match self.recorded_dir(RUN, run)? {
            Some(dir) => Ok(dir),
            None => {
                let target = self.target_dir(target)?;
                self.free_dir((RUN, run), RUN_DIGITS, |short| target.join(format!("run_{sampler}_{short}")))
            }
        }
    }

    fn recorded_dir(&self, kind: &str, id: &Hash) -> Result<Option<PathBuf>, StoreError> {
        Ok(self.read_ref(kind, id)?.and_then(|unit| unit.dir))
    }

    /// A directory's name with as many digits, at least `least`, as tell its unit from all others of its
    /// kind that are recorded. Names that others have already are shorter or differ within these digits,
    /// so the new name is free.
    fn free_dir(
        &self,
        (kind, id): (&str, &Hash),
        least: usize,
        named: impl Fn(&str) -> PathBuf,
    ) -> Result<PathBuf, StoreError> {
        let dir = |others: &BTreeSet<Hash>| named(&id.short(least.max(digits_apart(others, id))));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(dir) = known.get(kind).map(&dir)
            && !self.at(&dir).exists()
        {
            return Ok(dir);
        }
        // What is there may be another process's, and recorded since the last listing.
        let listed = self.ref_ids(kind)?.into_iter().collect();
        let dir = dir(&listed);
        known.insert(kind.to_owned(), listed);
        Ok(dir)
    }

    /// Makes the directory `dir` hold copies of `files` (name → object; `/` in a name separates
    /// directories) and returns how many had to be written.
    ///
    /// A file that has the object's content is left alone. One that was edited is written anew:
    /// the tree is derived, what is kept is in the store. Other files in `dir` stay. Where the file
    /// system shares blocks between files (Btrfs, XFS), the copy costs no space.
    ///
    /// # Errors
    /// [`StoreError::Missing`] or [`StoreError::Damaged`] for an object that cannot be copied; the
    /// files before it are in place then.
    pub fn materialise(&self, dir: &Path, files: &BTreeMap<String, Hash>) -> Result<usize, StoreError> {
        check_relative(dir)?;
        let mut written = 0;
        for (name, hash) in files {
            check_relative(Path::new(name))?;
            let copy = self.at(dir).join(name);
            if Hash::of_file(&copy).is_ok_and(|found| found == *hash) {
                continue;
            }
            match self.check(hash)? {
                ObjectState::Intact => {}
                ObjectState::Missing => return Err(StoreError::Missing { hash: *hash }),
                ObjectState::Damaged => {
                    let quarantined = self.root().join("store/quarantine").join(hash.to_string());
                    return Err(StoreError::Damaged { hash: *hash, quarantined });
                }
            }
            let object = self.object_path(hash);
            write_file(&copy, COPY_MODE, |file| file.copy(&object))?;
            written += 1;
        }
        Ok(written)
    }

    /// Puts `bytes` at a path relative to the root, whole or not at all.
    pub fn write_file(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        check_relative(path)?;
        write_bytes(&self.at(path), COPY_MODE, bytes)
    }

    /// The same for what is of the moment: a power cut may lose it.
    pub fn write_volatile(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        check_relative(path)?;
        write_volatile(&self.at(path), bytes)
    }

    /// A file's content at a path relative to the root; `None` where there is none.
    pub fn read_file(&self, path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
        check_relative(path)?;
        match fs::read(self.at(path)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StoreError::io("read", &self.at(path))(e)),
        }
    }

    /// Opens a file that grows by lines, at a path relative to the root.
    pub fn appender(&self, path: &Path) -> Result<Appender, StoreError> {
        check_relative(path)?;
        Appender::open(&self.at(path))
    }

    /// Appends one line to a file at a path relative to the root.
    pub fn append_line(&self, path: &Path, line: &str) -> Result<(), StoreError> {
        self.appender(path)?.append(line)
    }
}

/// Digits that tell `id` from all of `others`: one more than it shares with either neighbour.
fn digits_apart(others: &BTreeSet<Hash>, id: &Hash) -> usize {
    let before = others.range(..id).next_back();
    let after = others.range((Bound::Excluded(id), Bound::Unbounded)).next();
    before.into_iter().chain(after).map(|other| other.common_digits(id) + 1).max().unwrap_or(0)
}

/// Puts `bytes` at `name` below `dir`, whole or not at all: for what is added to a tree of runs that may
/// have been copied away from its store. `name` is a relative path of plain names.
///
/// # Errors
/// [`StoreError::Path`] for another `name`, [`StoreError::Io`] where the disk refuses.
pub fn write_below(dir: &Path, name: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    check_relative(name)?;
    write_bytes(&dir.join(name), COPY_MODE, bytes)
}

/// Puts `bytes` into the file `path` that a user named, whole or not at all; makes its directory.
///
/// # Errors
/// [`StoreError::Io`] where the disk refuses.
pub fn write_out(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    write_bytes(path, COPY_MODE, bytes)
}

/// `results/<name>`, such as `dev.h5` or `llc_runs.parquet`.
pub fn results_path(name: &str) -> Result<PathBuf, StoreError> {
    let path = Path::new("results").join(name);
    check_relative(&path).map(|()| path)
}

/// `results/<experiment>.manifest.json`: which runs belong to the experiment.
pub fn experiment_manifest(experiment: &str) -> Result<PathBuf, StoreError> {
    check_name(experiment)?;
    results_path(&format!("{experiment}.manifest.json"))
}

/// `logs/build_target/tgt_….log` of the target with this directory.
pub fn build_log(target_dir: &Path) -> PathBuf {
    Path::new("logs/build_target").join(format!("{}.log", last_name(target_dir)))
}

/// `logs/run_sampler/tgt_…_<sampler>_<8 hex>.log` of the run with this directory.
pub fn run_log(run_dir: &Path) -> PathBuf {
    let target = run_dir.parent().map(last_name).unwrap_or_default();
    let run = last_name(run_dir);
    let run = run.strip_prefix("run_").unwrap_or(&run);
    Path::new("logs/run_sampler").join(format!("{target}_{run}.log"))
}

fn last_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Ref, Status};
    use serde_json::Value;
    use std::os::unix::fs::MetadataExt;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        (dir, store)
    }

    fn record(store: &Store, kind: &str, id: Hash, dir: &Path) {
        let unit = Ref {
            kind: kind.into(),
            id,
            dir: Some(dir.into()),
            status: Status::Done,
            when: String::new(),
            config: Value::Null,
            objects: BTreeMap::new(),
            details: Value::Null,
        };
        store.write_ref(&unit).unwrap();
    }

    /// An id that begins with the given bytes.
    fn id(start: &[u8]) -> Hash {
        let mut bytes = [0; 32];
        bytes[..start.len()].copy_from_slice(start);
        Hash(bytes)
    }

    #[test]
    fn directories_are_named_by_short_ids_that_lengthen_on_a_clash() {
        let (_dir, store) = store();
        let first = id(&[0xab, 0xcd, 0xef, 1, 2, 3, 0x40]);
        let second = id(&[0xab, 0xcd, 0xef, 1, 2, 3, 0x4f, 9]);
        let short = store.target_dir(&first).unwrap();
        assert_eq!(short, Path::new("runs/targets/tgt_abcdef010203"));
        record(&store, TARGET, first, &short);
        let long = store.target_dir(&second).unwrap();
        assert_eq!(long, Path::new("runs/targets/tgt_abcdef0102034f"));
        record(&store, TARGET, second, &long);
        // Both keep what they have.
        assert_eq!(store.target_dir(&first).unwrap(), short);
        assert_eq!(store.target_dir(&second).unwrap(), long);

        let run = id(&[1, 2, 3, 4, 5]);
        let dir = store.run_dir(&first, "hmc", &run).unwrap();
        assert_eq!(dir, short.join("run_hmc_01020304"));
        record(&store, RUN, run, &dir);
        let other = id(&[1, 2, 3, 4, 6]);
        let other = store.run_dir(&second, "sgld", &other).unwrap();
        assert_eq!(other, long.join("run_sgld_0102030406"));
        assert!(store.run_dir(&first, "../x", &id(&[7])).is_err());

        assert_eq!(build_log(&short), Path::new("logs/build_target/tgt_abcdef010203.log"));
        assert_eq!(run_log(&dir), Path::new("logs/run_sampler/tgt_abcdef010203_hmc_01020304.log"));
        assert_eq!(results_path("dev.h5").unwrap(), Path::new("results/dev.h5"));
        assert_eq!(experiment_manifest("dev").unwrap(), Path::new("results/dev.manifest.json"));
        assert!(results_path("../dev.h5").is_err());
    }

    #[test]
    fn names_of_another_process_are_not_taken() {
        let (root, store) = store();
        let other = Store::open(root.path()).unwrap();
        // What this one has listed, and what it writes itself.
        for (last, dir) in [(1, "tgt_abcdef010203"), (2, "tgt_abcdef0102030002")] {
            let id = id(&[0xab, 0xcd, 0xef, 1, 2, 3, 0, last]);
            let free = store.target_dir(&id).unwrap();
            assert_eq!(free, Path::new("runs/targets").join(dir));
            record(&store, TARGET, id, &free);
        }
        // What the other one has recorded and laid out meanwhile.
        let theirs = id(&[0x77; 9]);
        let taken = other.target_dir(&theirs).unwrap();
        record(&other, TARGET, theirs, &taken);
        fs::create_dir_all(root.path().join(&taken)).unwrap();
        let free = store.target_dir(&id(&[0x77; 8])).unwrap();
        assert_eq!(
            (free, taken),
            ("runs/targets/tgt_77777777777777770".into(), "runs/targets/tgt_777777777777".into())
        );
        // What is removed gives its name back.
        let id = id(&[0xab, 0xcd, 0xef, 1, 2, 3, 0, 3]);
        assert_eq!(store.target_dir(&id).unwrap(), Path::new("runs/targets/tgt_abcdef0102030003"));
        for last in [1, 2] {
            store.remove_ref(TARGET, &super::tests::id(&[0xab, 0xcd, 0xef, 1, 2, 3, 0, last])).unwrap();
        }
        assert_eq!(store.target_dir(&id).unwrap(), Path::new("runs/targets/tgt_abcdef010203"));
    }

    #[test]
    fn copies_are_made_mended_and_left_alone() {
        let (root, store) = store();
        let files: BTreeMap<String, Hash> = [
            ("trace.nc".to_string(), store.put(b"draws").unwrap()),
            ("diagnostics/trace.png".to_string(), store.put(b"picture").unwrap()),
        ]
        .into();
        let dir = Path::new("runs/targets/tgt_x/run_y");
        assert_eq!(store.materialise(dir, &files).unwrap(), 2);
        let trace = root.path().join(dir).join("trace.nc");
        let inode = || fs::metadata(&trace).unwrap().ino();
        let before = inode();
        fs::write(root.path().join(dir).join("notes.txt"), "the user's own").unwrap();
        assert_eq!(store.materialise(dir, &files).unwrap(), 0);
        assert_eq!(inode(), before);

        // An edit of the copy harms no object, and is undone.
        fs::write(&trace, b"edits").unwrap();
        assert_eq!(store.get(&files["trace.nc"]).unwrap(), b"draws");
        assert_eq!(store.materialise(dir, &files).unwrap(), 1);
        assert_eq!(fs::read(&trace).unwrap(), b"draws");
        assert!(root.path().join(dir).join("notes.txt").exists());

        fs::remove_dir_all(root.path().join("runs")).unwrap();
        assert_eq!(store.materialise(dir, &files).unwrap(), 2);
        assert_eq!(fs::read(root.path().join(dir).join("diagnostics/trace.png")).unwrap(), b"picture");

        let absent: BTreeMap<_, _> = [("x".to_string(), Hash::of(b"never put"))].into();
        assert!(matches!(store.materialise(dir, &absent), Err(StoreError::Missing { .. })));
        let outside: BTreeMap<_, _> = [("../../../x".to_string(), files["trace.nc"])].into();
        assert!(matches!(store.materialise(dir, &outside), Err(StoreError::Path { .. })));
    }

    #[test]
    fn files_and_lines_are_written_below_the_root_only() {
        let (root, store) = store();
        store.write_file(Path::new("results/a.json"), b"{}").unwrap();
        assert_eq!(store.read_file(Path::new("results/a.json")).unwrap().as_deref(), Some(&b"{}"[..]));
        assert_eq!(store.read_file(Path::new("results/b.json")).unwrap(), None);
        store.append_line(Path::new("logs/a.log"), "one").unwrap();
        store.append_line(Path::new("logs/a.log"), "two").unwrap();
        assert_eq!(fs::read_to_string(root.path().join("logs/a.log")).unwrap(), "one\ntwo\n");
        for bad in ["../x", "/tmp/x", "store/lock"] {
            assert!(store.write_file(Path::new(bad), b"x").is_err());
            assert!(store.append_line(Path::new(bad), "x").is_err());
            assert!(write_below(root.path(), Path::new(bad), b"x").is_err());
        }
        write_below(root.path(), Path::new("diagnostics/a.json"), b"{}").unwrap();
        assert_eq!(fs::read(root.path().join("diagnostics/a.json")).unwrap(), b"{}");
    }
}
