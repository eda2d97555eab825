//! What unfinished work has left: files beside the objects, named by whose work it is.
//!
//! `store/checkpoints/<64 hex of a run or target>/<part>.<state>`: 8 bytes of magic, the BLAKE3 of the
//! rest, the length of the context (4 bytes, little-endian), the context, the content. The context says
//! who can read the content, such as version and arithmetic, and whose it is; one of another context is
//! left alone.
//!
//! Unlike objects these are a convenience: one that is damaged or not ours is left where it is, with a
//! warning, and the work is done again.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::atomic::{entries, write_file, write_volatile};
use super::disk;
use super::{Hash, Store, StoreError, check_name};

const MAGIC: &[u8; 8] = b"LHCKPT02";
const HEAD: usize = 8 + 32 + 4;

/// A file of unfinished work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its name within the directory of its owner.
    pub name: String,
    /// What was written.
    pub content: Vec<u8>,
    /// When.
    pub modified: SystemTime,
}

/// A context with whose part it is of.
fn about(context: &str, owner: &Hash, name: &str) -> String {
    format!("{context}, {name} of {owner}")
}

/// A file's bytes for a content in a context.
fn seal(context: &str, content: &[u8]) -> Vec<u8> {
    let mut rest = Vec::with_capacity(4 + context.len() + content.len());
    rest.extend_from_slice(&(context.len() as u32).to_le_bytes());
    rest.extend_from_slice(context.as_bytes());
    rest.extend_from_slice(content);
    let mut bytes = Vec::with_capacity(40 + rest.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(blake3::hash(&rest).as_bytes());
    bytes.extend_from_slice(&rest);
    bytes
}

/// The content of a file, or why it is none for `context`.
fn unseal<'a>(bytes: &'a [u8], context: &str) -> Result<&'a [u8], String> {
    if bytes.len() < HEAD || bytes[..8] != *MAGIC {
        return Err("is no checkpoint, or one of another version".into());
    }
    if blake3::hash(&bytes[40..]).as_bytes() != &bytes[8..40] {
        return Err("is damaged".into());
    }
    let length = u32::from_le_bytes([bytes[40], bytes[41], bytes[42], bytes[43]]) as usize;
    let Some((theirs, content)) = bytes[HEAD..].split_at_checked(length) else {
        return Err("is damaged".into());
    };
    if theirs != context.as_bytes() {
        let theirs = String::from_utf8_lossy(theirs);
        return Err(format!("was written by {theirs}, this is {context}"));
    }
    Ok(content)
}

/// Puts a file of unfinished work under `dir`. With `durable` it survives a power cut; without, only the
/// end of the process.
///
/// # Errors
/// [`StoreError`] where the disk refuses it.
pub fn keep(
    dir: &Path,
    (owner, name): (&Hash, &str),
    context: &str,
    content: &[u8],
    durable: bool,
) -> Result<(), StoreError> {
    check_name(name)?;
    let path = dir.join(owner.to_string()).join(name);
    let bytes = seal(&about(context, owner, name), content);
    if durable {
        return write_file(&path, 0o644, |file| file.write_all(&bytes));
    }
    write_volatile(&path, &bytes)
}

/// Everything that is kept under `dir` of an owner's unfinished work, as far as it is for `context`, in
/// the order of names.
pub fn kept(dir: &Path, owner: &Hash, context: &str) -> Vec<Kept> {
    let mut found = Vec::new();
    let owned = dir.join(owner.to_string());
    let list = entries(&owned).unwrap_or_else(|e| {
        log::warn!("{e}; the work is done again");
        Vec::new()
    });
    for entry in list {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let content = match fs::read(&path) {
            Ok(bytes) => unseal(&bytes, &about(context, owner, &name)).map(<[u8]>::to_vec),
            Err(e) => Err(format!("cannot be read ({e})")),
        };
        match content {
            Ok(content) => {
                let modified = entry.metadata().and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
                found.push(Kept { name, content, modified });
            }
            Err(why) => log::warn!("the checkpoint {} {why}; its work is done again", path.display()),
        }
    }
    found
}

/// Lets go of what is kept under `dir` of an owner's work.
///
/// # Errors
/// [`StoreError`] where the disk refuses it.
pub fn let_go(dir: &Path, owner: &Hash) -> Result<(), StoreError> {
    let path = dir.join(owner.to_string());
    match disk::remove_tree(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("remove", &path)(e)),
        _ => Ok(()),
    }
}

/// Makes sure that files can be written under `dir`, which is made if missing.
///
/// # Errors
/// Why they cannot.
pub fn probe(dir: &Path) -> std::io::Result<()> {
    if !dir.is_dir() {
        disk::make_dir(dir)?;
    }
    // Removed again when it is dropped.
    disk::Temporary::create(dir, 0o644).map(drop)
}

impl Store {
    /// Where this store keeps unfinished work.
    pub fn checkpoints(&self) -> PathBuf {
        self.root().join("store/checkpoints")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (owner, other) = (Hash::of(b"run"), Hash::of(b"other"));
        for durable in [true, false] {
            keep(dir.path(), (&owner, "chain-1.part"), "v1 avx2", b"halfway", durable).unwrap();
            keep(dir.path(), (&owner, "chain-0.done"), "v1 avx2", b"", durable).unwrap();
            let all = kept(dir.path(), &owner, "v1 avx2");
            let names: Vec<&str> = all.iter().map(|k| k.name.as_str()).collect();
            assert_eq!(names, ["chain-0.done", "chain-1.part"]);
            assert_eq!(all[1].content, b"halfway");
        }
        // A file in another's place is none.
        let at = |owner: &Hash, name: &str| dir.path().join(owner.to_string()).join(name);
        fs::copy(at(&owner, "chain-1.part"), at(&owner, "chain-2.part")).unwrap();
        assert_eq!(kept(dir.path(), &owner, "v1 avx2").len(), 2);
        assert!(kept(dir.path(), &owner, "v1 avx512").is_empty());
        assert!(kept(dir.path(), &other, "v1 avx2").is_empty());
        let_go(dir.path(), &owner).unwrap();
        let_go(dir.path(), &owner).unwrap();
        assert!(kept(dir.path(), &owner, "v1 avx2").is_empty());
    }

    #[test]
    fn a_file_cut_or_flipped_anywhere_is_none() {
        let whole = seal("c", b"content");
        assert_eq!(unseal(&whole, "c"), Ok(&b"content"[..]));
        for i in 0..whole.len() {
            assert!(unseal(&whole[..i], "c").is_err(), "cut at {i}");
            let mut flipped = whole.clone();
            flipped[i] ^= 1;
            assert!(unseal(&flipped, "c").is_err(), "flipped at {i}");
        }
    }
}
