//! Everything that changes a disk, one function an operation, and nothing else in the program does.
//!
//! Outside of tests each function is the call it names. In the library's own tests, `store::faults`
//! stands between: it counts the operations of a thread, makes one fail or the process "die" there,
//! takes back what a power cut would, and panics over a rename of what was not flushed before.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(test)]
use super::faults::around;

/// How temporary names begin; no checked name begins with a dot.
const TEMPORARY: &str = ".tmp-";

/// One operation, as the fault layer sees it.
#[cfg_attr(not(test), allow(dead_code, reason = "only the fault layer of the tests looks inside"))]
pub(super) enum Step<'a> {
    MakeDir(&'a Path),
    Create(&'a Path),
    Write {
        file: &'a File,
        path: &'a Path,
        bytes: &'a [u8],
    },
    Copy {
        file: &'a File,
        path: &'a Path,
        from: &'a Path,
    },
    Cut(&'a Path),
    Sign,
    Sync(&'a Path),
    SyncDir(&'a Path),
    /// What is not flushed may be gone after a power cut; `sealed` content tells so itself.
    Rename {
        from: &'a Path,
        to: &'a Path,
        sealed: bool,
    },
    Remove(&'a Path),
    RemoveDir,
    Touch,
}

#[cfg(not(test))]
#[inline(always)]
fn around<T>(_: &Step<'_>, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    work()
}

/// Makes one directory.
pub(super) fn make_dir(path: &Path) -> io::Result<()> {
    around(&Step::MakeDir(path), || fs::DirBuilder::new().mode(0o777).create(path))
}

/// Flushes a directory's entries.
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    around(&Step::SyncDir(path), || File::open(path)?.sync_all())
}

/// Moves a file within the file system, replacing what was there.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    around(&Step::Rename { from, to, sealed: false }, || fs::rename(from, to))
}

/// Removes a file.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    around(&Step::Remove(path), || fs::remove_file(path))
}

/// Removes a directory and all in it. Files that go meanwhile are no error.
pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let gone =
            if entry.file_type()?.is_dir() { remove_tree(&entry.path()) } else { remove(&entry.path()) };
        match gone {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    around(&Step::RemoveDir, || fs::remove_dir(path))
}

/// Opens a file for reading and writing, made if missing; a lock's, whose name need not survive.
pub(super) fn open_lock(path: &Path) -> io::Result<File> {
    let open = |create| OpenOptions::new().read(true).write(true).create(create).truncate(false).open(path);
    match open(false) {
        Err(e) if e.kind() == ErrorKind::NotFound => around(&Step::Create(path), || open(true)),
        file => file,
    }
}

/// Makes a file that must not be there yet.
pub(super) fn create_new(path: &Path, mode: u32) -> io::Result<File> {
    around(&Step::Create(path), || {
        OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path)
    })
}

/// Opens a file for reading and appending; one that has to be made has a durable name afterwards.
pub(super) fn open_append(path: &Path) -> io::Result<File> {
    let open = |create| OpenOptions::new().read(true).append(true).create(create).open(path);
    match open(false) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let file = around(&Step::Create(path), || open(true))?;
            sync_dir(path.parent().unwrap_or(Path::new(".")))?;
            Ok(file)
        }
        file => file,
    }
}

/// Overwrites the beginning of a lock's file in one write. A power cut may take it: no lock outlives one.
pub(super) fn sign(file: &File, bytes: &[u8]) -> io::Result<()> {
    around(&Step::Sign, || file.write_all_at(bytes, 0))
}

/// Cuts a file.
pub(super) fn cut(file: &File, path: &Path, length: u64) -> io::Result<()> {
    around(&Step::Cut(path), || file.set_len(length))
}

/// Flushes a file's content, and what is needed to find it.
pub(super) fn sync(file: &File, path: &Path) -> io::Result<()> {
    around(&Step::Sync(path), || file.sync_all())
}

/// Sets a file's time of change to now, by the file system's clock.
pub(super) fn touch(path: &Path) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, utimensat};
    let time = |what| Timespec { tv_sec: 0, tv_nsec: what };
    let times = Timestamps { last_access: time(UTIME_OMIT), last_modification: time(UTIME_NOW) };
    around(&Step::Touch, || Ok(utimensat(CWD, path, &times, AtFlags::empty())?))
}

/// Tries to take the lock on a file.
pub(super) fn try_lock(file: &File, shared: bool) -> Result<(), TryLockError> {
    #[cfg(test)]
    super::faults::lock_call().map_err(TryLockError::Error)?;
    if shared { file.try_lock_shared() } else { file.try_lock() }
}

/// A file that is written to through the fault layer.
pub(super) struct Output<'a> {
    pub(super) file: &'a File,
    pub(super) path: &'a Path,
}

impl Output<'_> {
    /// Appends the content of another file, by `copy_file_range(2)` on Linux, which shares blocks
    /// where it can.
    pub(super) fn copy(&mut self, from: &Path) -> io::Result<()> {
        let Output { mut file, path } = *self;
        around(&Step::Copy { file, path, from }, || io::copy(&mut File::open(from)?, &mut file).map(drop))
    }
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Output { mut file, path } = *self;
        around(&Step::Write { file, path, bytes }, || file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A new file under a name of this process's own, removed unless it is given its final name.
pub(super) struct Temporary {
    path: PathBuf,
    file: File,
    kept: bool,
}

impl Temporary {
    /// Makes one in `dir`; `mode` is subject to the process's umask.
    pub(super) fn create(dir: &Path, mode: u32) -> io::Result<Self> {
        static MADE: AtomicU64 = AtomicU64::new(0);
        loop {
            let count = MADE.fetch_add(1, Ordering::Relaxed);
            let path = dir.join(format!("{TEMPORARY}{}-{count}-{}", std::process::id(), host()));
            match create_new(&path, mode) {
                // Left by a process of the same number.
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                file => return Ok(Self { file: file?, path, kept: false }),
            }
        }
    }

    /// Where its content is written.
    pub(super) fn output(&self) -> Output<'_> {
        Output { file: &self.file, path: &self.path }
    }

    /// Flushes it and gives it its final name, which the directory has still to be flushed for.
    pub(super) fn persist(mut self, path: &Path) -> io::Result<()> {
        sync(&self.file, &self.path)?;
        rename(&self.path, path)?;
        self.kept = true;
        Ok(())
    }

    /// Gives it its final name without flushing it: for what is worth nothing after a power cut, or tells
    /// by a checksum that it was spoilt by one.
    pub(super) fn persist_unflushed(mut self, path: &Path) -> io::Result<()> {
        let step = Step::Rename { from: &self.path, to: path, sealed: true };
        around(&step, || fs::rename(&self.path, path))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.kept {
            remove(&self.path).ok();
        }
    }
}

/// Whose temporary file is called so; `None` for names that are no temporary's.
pub(super) fn owner(name: &str) -> Option<Owner> {
    let mut parts = name.strip_prefix(TEMPORARY)?.splitn(3, '-');
    let pid = parts.next().and_then(|pid| pid.parse().ok());
    Some(match (pid, parts.next(), parts.next()) {
        (Some(pid), Some(_), Some(host)) => Owner::Process { pid, host: host.to_owned() },
        _ => Owner::Unknown,
    })
}

/// The process that made a temporary file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Process { pid: u32, host: String },
    Unknown,
}

/// This machine's name in the letters that file names are made of.
pub(super) fn host() -> String {
    let host = gethostname::gethostname().to_string_lossy().into_owned();
    host.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(64).collect()
}

/// Is `file` still what `path` names?
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// Does a process of this number run on this machine? Where that cannot be told: yes.
pub(super) fn process_runs(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    // A process of another user's may not be signalled, but is there.
    pid.is_none_or(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

/// Bytes that this user may still write on the file system of `path` or of what is there above it.
pub(super) fn space_left(path: &Path) -> Option<u64> {
    let about = path.ancestors().find_map(|path| rustix::fs::statvfs(path).ok())?;
    Some(about.f_bavail.saturating_mul(about.f_frsize))
}
