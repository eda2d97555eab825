//! The only code that writes files: whole and durable, or not at all.
//!
//! A file is written under a temporary name in its own directory, flushed to the disk, renamed,
//! and the directory is flushed too: after a crash there is the old file or the new one. Append-only
//! files grow by whole lines, and a line that a crash cut short is dropped when they are opened.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::StoreError;
use super::disk::{self, Output, Temporary};

/// The directory that `path` is in; of a bare name the current one.
pub(super) fn dir_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes `path` and what is missing above it, durably.
pub(super) fn make_dir(path: &Path) -> Result<(), StoreError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_dir(parent)?;
    }
    match disk::make_dir(path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(e) => Err(StoreError::io("make the directory", path)(e)),
        Ok(()) => sync_dir(dir_of(path)),
    }
}

/// Flushes a directory's entries to the disk.
pub(super) fn sync_dir(path: &Path) -> Result<(), StoreError> {
    disk::sync_dir(path).map_err(StoreError::io("flush the directory", path))
}

/// Puts a file at `path` with the content that `fill` writes, replacing what was there. `mode` is
/// subject to the process's umask.
pub(super) fn write_file(
    path: &Path,
    mode: u32,
    fill: impl FnOnce(&mut Output<'_>) -> io::Result<()>,
) -> Result<(), StoreError> {
    let dir = dir_of(path);
    make_dir(dir)?;
    let write = || -> io::Result<()> {
        let temporary = Temporary::create(dir, mode)?;
        fill(&mut temporary.output())?;
        temporary.persist(path)
    };
    write().map_err(StoreError::io("write", path))?;
    sync_dir(dir)
}

/// Puts `bytes` at `path`, whole or not at all as far as processes can see; a power cut may lose it.
pub(super) fn write_volatile(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let dir = dir_of(path);
    make_dir(dir)?;
    let write = || -> io::Result<()> {
        let temporary = Temporary::create(dir, 0o644)?;
        temporary.output().write_all(bytes)?;
        temporary.persist_unflushed(path)
    };
    write().map_err(StoreError::io("write", path))
}

/// Puts `bytes` at `path`, unless that is what the file holds already.
pub(super) fn write_bytes(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), StoreError> {
    if same_length(path, bytes.len()) && fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    write_file(path, mode, |file| file.write_all(bytes)).map_err(|e| e.needing(bytes.len() as u64))
}

/// Is `path` a regular file of this length?
fn same_length(path: &Path, length: usize) -> bool {
    fs::symlink_metadata(path).is_ok_and(|m| m.is_file() && m.len() == length as u64)
}

/// Removes temporary files that a killed process left in `dir` and below; returns how many. Only
/// for a root that no one else uses.
pub(super) fn sweep_temporaries(dir: &Path) -> Result<usize, StoreError> {
    let mut removed = 0;
    for entry in entries(dir)? {
        let name = entry.file_name();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_dir {
            removed += sweep_temporaries(&entry.path())?;
        } else if disk::owner(&name.to_string_lossy()).is_some() {
            disk::remove(&entry.path()).map_err(StoreError::io("remove", &entry.path()))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Entries of a directory in the order of their names; none where there is no directory.
pub(super) fn entries(dir: &Path) -> Result<Vec<fs::DirEntry>, StoreError> {
    let list = match fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        list => list.and_then(|list| list.collect::<io::Result<Vec<_>>>()),
    };
    let mut list = list.map_err(StoreError::io("list", dir))?;
    list.sort_by_key(fs::DirEntry::file_name);
    Ok(list)
}

/// A file that grows by whole lines.
///
/// Several processes may append to one file: each takes a lock on it for the moment of writing.
#[derive(Debug)]
pub struct Appender {
    path: PathBuf,
    file: File,
}

impl Appender {
    /// Opens `path` for appending, made if missing; a last line without its end is cut off.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        make_dir(dir_of(path))?;
        let open = || -> io::Result<File> {
            let file = disk::open_append(path)?;
            let torn = locked(&file, || cut_torn_tail(&file, path))?;
            if torn > 0 {
                log::warn!("{}: cut {torn} bytes of an unfinished line", path.display());
            }
            Ok(file)
        };
        let file = open().map_err(StoreError::io("open for appending", path))?;
        Ok(Self { path: path.into(), file })
    }

    /// Appends `line` and its end in one write, and flushes it to the disk. Text of several lines
    /// is allowed, but after a crash only its first lines may be there.
    pub fn append(&mut self, line: &str) -> Result<(), StoreError> {
        let mut bytes = line.trim_end_matches('\n').to_string().into_bytes();
        bytes.push(b'\n');
        let file = &self.file;
        let write = || -> io::Result<()> {
            let before = file.metadata()?.len();
            Output { file, path: &self.path }.write_all(&bytes).inspect_err(|_| {
                // What a full disk took of the line would spoil the next one.
                disk::cut(file, &self.path, before).ok();
            })?;
            disk::sync(file, &self.path)
        };
        let appended = locked(file, write).map_err(StoreError::io("append to", &self.path));
        appended.map_err(|e| e.needing(bytes.len() as u64))
    }
}

/// Runs `work` while holding the lock on `file`, where the file system has locks.
fn locked<T>(file: &File, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let held = file.lock().is_ok();
    let result = work();
    if held {
        file.unlock()?;
    }
    result
}

/// Cuts what follows the last line end; returns its length.
fn cut_torn_tail(mut file: &File, path: &Path) -> io::Result<u64> {
    const BLOCK: u64 = 4096;
    let length = file.metadata()?.len();
    let mut keep = 0;
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        let mut block = Vec::new();
        file.seek(SeekFrom::Start(start))?;
        file.take(end - start).read_to_end(&mut block)?;
        if let Some(i) = block.iter().rposition(|&byte| byte == b'\n') {
            keep = start + i as u64 + 1;
            break;
        }
        end = start;
    }
    if keep < length {
        disk::cut(file, path, keep)?;
        disk::sync(file, path)?;
    }
    Ok(length - keep)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_line_is_cut_and_whole_lines_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b.log");
        let long = "x".repeat(10_000);
        let cases: &[(&str, &str)] = &[
            ("", ""),
            ("one\n", "one\n"),
            ("one\ntw", "one\n"),
            ("torn from the start", ""),
            (&format!("one\n{long}"), "one\n"),
            (&long, ""),
            (&format!("{long}\n"), &format!("{long}\n")),
        ];
        for (before, kept) in cases {
            make_dir(path.parent().unwrap()).unwrap();
            fs::write(&path, before).unwrap();
            let mut file = Appender::open(&path).unwrap();
            file.append("next").unwrap();
            file.append("last\n").unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{kept}next\nlast\n"));
        }
    }

    #[test]
    fn lines_of_several_writers_stay_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let path = &path;
                scope.spawn(move || {
                    for i in 0..20 {
                        let mut file = Appender::open(path).unwrap();
                        file.append(&format!("{writer} {i} {}", "y".repeat(5000))).unwrap();
                    }
                });
            }
        });
        let text = fs::read_to_string(&path).unwrap();
        let mut lines: Vec<_> = text.lines().map(|l| l.split_once(" y").unwrap()).collect();
        assert!(lines.iter().all(|(_, rest)| rest.len() == 4999));
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), 80);
    }

    #[test]
    fn a_full_disk_is_told_with_its_remedy() {
        // /dev/full accepts opening and refuses every write with ENOSPC.
        let refused = Appender::open(Path::new("/dev/full")).unwrap().append("x").unwrap_err();
        assert!(matches!(&refused, StoreError::Io { source, .. } if source.kind() == ErrorKind::StorageFull));
        assert!(refused.to_string().contains("Free space"), "{refused}");
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        write_bytes(&path, 0o644, b"old").unwrap();
        let refused = write_file(&path, 0o644, |file| {
            file.write_all(b"half of the n")?;
            Err(io::Error::from(ErrorKind::StorageFull))
        });
        assert!(refused.unwrap_err().to_string().contains("Free space"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(entries(dir.path()).unwrap().len(), 1);
        write_bytes(&path, 0o644, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn temporaries_of_killed_processes_are_swept() {
        let dir = tempfile::tempdir().unwrap();
        make_dir(&dir.path().join("a/b")).unwrap();
        for name in ["a/b/.tmp-1", ".tmp-2", "a/kept"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        assert_eq!(sweep_temporaries(dir.path()).unwrap(), 2);
        assert!(dir.path().join("a/kept").exists());
    }
}
