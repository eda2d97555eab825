//! Small files of the store that hold hints, not results: `store/<name>.json`. Losing one costs
//! nothing but what it hinted at.

use std::fs;
use std::path::{Path, PathBuf};

use super::atomic::write_bytes;
use super::{Store, StoreError, check_name};

/// No note is longer; what is longer is not read.
const LONGEST: u64 = 4 << 20;
const MODE: u32 = 0o644;

fn path(root: &Path, name: &str) -> Result<PathBuf, StoreError> {
    check_name(name)?;
    Ok(root.join("store").join(format!("{name}.json")))
}

impl Store {
    /// Keeps a note, whole or not at all.
    pub fn write_note(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        write_bytes(&path(self.root(), name)?, MODE, bytes)
    }

    /// What a note says; `None` where there is none that can be read.
    pub fn read_note(&self, name: &str) -> Option<Vec<u8>> {
        peek_note(self.root(), name)
    }
}

/// A note of a root that is not opened, and not made where it does not exist.
pub fn peek_note(root: &Path, name: &str) -> Option<Vec<u8>> {
    let path = path(root, name).ok()?;
    if fs::metadata(&path).ok()?.len() > LONGEST {
        return None;
    }
    fs::read(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_kept_and_peeking_makes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(peek_note(dir.path(), "costs"), None);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.read_note("costs"), None);
        store.write_note("costs", b"{}").unwrap();
        assert_eq!(peek_note(dir.path(), "costs").as_deref(), Some(&b"{}"[..]));
        assert!(store.write_note("../costs", b"{}").is_err());
    }
}
