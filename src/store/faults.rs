//! A disk that fails, for tests: it counts the operations of one thread, and from the k-th on the
//! process counts as killed, or the disk as full.
//!
//! After a kill everything written stays, a torn prefix of the last write included. After a power
//! cut, what was not flushed may be lost as well: content without fsync, and names made, replaced or
//! removed in a directory that was not flushed since. [`Disk::power_cut`] takes those back.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::disk::Step;

/// ENOSPC.
const FULL: i32 = 28;
/// ENOLCK.
const NO_LOCKS: i32 = 37;

/// What happens at the chosen operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing: operations are counted.
    None,
    /// This operation and all later ones fail, as if the process had been killed.
    Kill(usize),
    /// From this operation on there is no space: making and writing fails, the rest goes on.
    Full(usize),
}

/// What a power cut takes of what was not flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    Nothing,
    Everything,
    /// Every other change: a disk writes in an order of its own.
    Half,
}

/// How a change of names is taken back.
enum Undo {
    Unmake(PathBuf),
    Restore { path: PathBuf, bytes: Vec<u8>, mode: u32, changed: SystemTime },
    Unrename { from: PathBuf, to: PathBuf, old: Option<(Vec<u8>, u32)> },
}

impl Undo {
    fn place(&self) -> &Path {
        match self {
            Undo::Unmake(path) | Undo::Restore { path, .. } | Undo::Unrename { to: path, .. } => path,
        }
    }
}

struct Watch {
    fault: Fault,
    count: usize,
    dead: bool,
    locks: bool,
    /// Length that was flushed of files that were written to since.
    dirty: BTreeMap<PathBuf, u64>,
    undo: Vec<Undo>,
}

thread_local! {
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

/// The fault layer of this thread, while it is alive.
pub(super) struct Disk(());

impl Disk {
    pub(super) fn with(fault: Fault) -> Self {
        let watch =
            Watch { fault, count: 0, dead: false, locks: true, dirty: BTreeMap::new(), undo: Vec::new() };
        WATCH.set(Some(watch));
        Self(())
    }

    /// A file system mounted without locks.
    pub(super) fn without_locks() -> Self {
        let disk = Self::with(Fault::None);
        WATCH.with_borrow_mut(|watch| watch.as_mut().unwrap().locks = false);
        disk
    }

    /// Operations so far.
    pub(super) fn count(&self) -> usize {
        WATCH.with_borrow(|watch| watch.as_ref().unwrap().count)
    }

    /// Did the fault happen?
    pub(super) fn is_dead(&self) -> bool {
        WATCH.with_borrow(|watch| watch.as_ref().unwrap().dead)
    }

    /// Ends the layer, and takes back what `loss` says.
    pub(super) fn power_cut(self, loss: Loss) {
        let watch = WATCH.take().unwrap();
        let lost = |i: usize| match loss {
            Loss::Nothing => false,
            Loss::Everything => true,
            Loss::Half => i.is_multiple_of(2),
        };
        for (i, (path, length)) in watch.dirty.iter().enumerate() {
            if lost(i) && path.is_file() {
                let mode = fs::metadata(path).unwrap().permissions();
                fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
                fs::OpenOptions::new().write(true).open(path).unwrap().set_len(*length).unwrap();
                fs::set_permissions(path, mode).unwrap();
            }
        }
        for (i, undo) in watch.undo.into_iter().enumerate().rev() {
            if lost(i) {
                take_back(undo);
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        WATCH.take();
    }
}

fn take_back(undo: Undo) {
    let put = |path: &Path, bytes: &[u8], mode| {
        // Its directory may have been taken back before.
        if fs::write(path, bytes).is_ok() {
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
    };
    match undo {
        Undo::Unmake(path) if path.is_dir() => fs::remove_dir_all(path).unwrap(),
        Undo::Unmake(path) => drop(fs::remove_file(path)),
        Undo::Restore { path, bytes, mode, changed } => {
            put(&path, &bytes, mode);
            drop(fs::File::open(path).and_then(|file| file.set_modified(changed)));
        }
        Undo::Unrename { from, to, old } => {
            drop(fs::rename(&to, from));
            if let Some((bytes, mode)) = old {
                put(&to, &bytes, mode);
            }
        }
    }
}

/// Called where a lock is taken.
pub(super) fn lock_call() -> io::Result<()> {
    let locks = WATCH.with_borrow(|watch| watch.as_ref().is_none_or(|watch| watch.locks));
    if locks { Ok(()) } else { Err(io::Error::from_raw_os_error(NO_LOCKS)) }
}

/// Called around every operation.
pub(super) fn around<T>(step: &Step<'_>, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let Some(refused) = WATCH.with_borrow_mut(|watch| watch.as_mut().map(|watch| watch.admit(step))) else {
        return work();
    };
    if let Some(error) = refused {
        return Err(error);
    }
    let undo = before(step);
    let value = work()?;
    WATCH.with_borrow_mut(|watch| watch.as_mut().unwrap().done(step, undo));
    Ok(value)
}

impl Watch {
    /// Counts the operation; why it may not happen.
    fn admit(&mut self, step: &Step<'_>) -> Option<io::Error> {
        self.count += 1;
        match self.fault {
            Fault::Kill(at) if self.count >= at => {
                if !std::mem::replace(&mut self.dead, true) {
                    self.tear(step);
                }
                Some(io::Error::other("this process has been killed"))
            }
            Fault::Full(at)
                if self.count >= at
                    && matches!(
                        step,
                        Step::MakeDir(_)
                            | Step::Create(_)
                            | Step::Write { .. }
                            | Step::Copy { .. }
                            | Step::Sign
                    ) =>
            {
                self.dead = true;
                self.tear(step);
                Some(io::Error::from_raw_os_error(FULL))
            }
            _ => {
                if let Step::Rename { from, sealed: false, .. } = step {
                    assert!(
                        !self.dirty.contains_key(*from),
                        "{} is renamed before it was flushed: a power cut would empty it",
                        from.display()
                    );
                }
                None
            }
        }
    }

    /// Lets half of a write happen.
    fn tear(&mut self, step: &Step<'_>) {
        let read;
        let (mut file, path, bytes) = match step {
            Step::Write { file, path, bytes } => (*file, path, *bytes),
            Step::Copy { file, path, from } => {
                read = fs::read(from).unwrap();
                (*file, path, read.as_slice())
            }
            _ => return,
        };
        self.soil(path);
        file.write_all(&bytes[..bytes.len() / 2]).unwrap();
    }

    /// Remembers what of a file is on the disk before it is written to.
    fn soil(&mut self, path: &Path) {
        let length = fs::metadata(path).map_or(0, |m| m.len());
        self.dirty.entry(path.into()).or_insert(length);
    }

    fn done(&mut self, step: &Step<'_>, undo: Option<Undo>) {
        self.undo.extend(undo);
        match step {
            Step::Sync(path) => drop(self.dirty.remove(*path)),
            Step::SyncDir(dir) => self.undo.retain(|undo| undo.place().parent() != Some(dir)),
            Step::Remove(path) => drop(self.dirty.remove(*path)),
            _ => {}
        }
    }
}

/// What has to be known before an operation in order to take it back.
fn before(step: &Step<'_>) -> Option<Undo> {
    let content = |path: &Path| {
        let mode = fs::metadata(path).ok()?.permissions().mode();
        Some((fs::read(path).ok()?, mode))
    };
    match step {
        Step::MakeDir(path) | Step::Create(path) => Some(Undo::Unmake(path.to_path_buf())),
        Step::Rename { from, to, .. } => {
            Some(Undo::Unrename { from: from.to_path_buf(), to: to.to_path_buf(), old: content(to) })
        }
        Step::Remove(path) => {
            let changed = fs::metadata(path).and_then(|about| about.modified()).ok()?;
            let (bytes, mode) = content(path)?;
            Some(Undo::Restore { path: path.to_path_buf(), bytes, mode, changed })
        }
        Step::Write { path, .. } | Step::Copy { path, .. } | Step::Cut(path) => {
            WATCH.with_borrow_mut(|watch| watch.as_mut().unwrap().soil(path));
            None
        }
        Step::RemoveDir | Step::Sign | Step::Sync(_) | Step::SyncDir(_) | Step::Touch => None,
    }
}

#[test]
#[should_panic(expected = "before it was flushed")]
fn a_rename_of_what_was_not_flushed_is_a_bug_that_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let _disk = Disk::with(Fault::None);
    let path = dir.path().join("x");
    let file = super::disk::create_new(&path, 0o644).unwrap();
    super::disk::Output { file: &file, path: &path }.write_all(b"content").unwrap();
    super::disk::rename(&path, &dir.path().join("y")).unwrap();
}

#[test]
fn a_power_cut_takes_back_what_was_not_flushed_and_only_that() {
    use super::disk::{Output, create_new, make_dir, remove, rename, sync, sync_dir};
    for flushed in [false, true] {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for name in ["old", "gone"] {
            fs::write(at(name), name).unwrap();
        }
        let disk = Disk::with(Fault::None);
        let file = create_new(&at("new"), 0o600).unwrap();
        Output { file: &file, path: &at("new") }.write_all(b"content").unwrap();
        sync(&file, &at("new")).unwrap();
        rename(&at("new"), &at("old")).unwrap();
        remove(&at("gone")).unwrap();
        make_dir(&at("dir")).unwrap();
        if flushed {
            sync_dir(root.path()).unwrap();
        }
        assert_eq!(disk.count(), if flushed { 7 } else { 6 });
        disk.power_cut(Loss::Everything);
        assert_eq!(fs::read_to_string(at("old")).unwrap(), if flushed { "content" } else { "old" });
        assert_eq!((at("gone").exists(), at("dir").exists()), (!flushed, flushed));
    }
}
