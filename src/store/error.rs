//! What can go wrong with a store, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use super::Hash;

/// Errors of the store. All but [`Name`](StoreError::Name), [`Urn`](StoreError::Urn),
/// [`NotFound`](StoreError::NotFound) and [`Ambiguous`](StoreError::Ambiguous), which a command
/// line can cause, are errors of the surroundings.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("cannot {action} {}: {source}{}", path.display(), remedy(source))]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Names become paths, so their letters are limited.
    #[error("name {name:?}: use 1 to {longest} of the letters A-Z a-z 0-9 . _ - and no dot in front")]
    Name {
        /// The name as given.
        name: String,
        /// Letters allowed.
        longest: usize,
    },
    /// A path that leaves the root or enters the store.
    #[error("path {}: give a path below the root (no `..`, not absolute) and outside store/", path.display())]
    Path {
        /// The path as given.
        path: PathBuf,
    },
    /// Not a hash or URN.
    #[error("{text:?} is no id: give 64 hexadecimal digits, or urn:lh:<type>:blake3: and 64 of them")]
    Urn {
        /// The text as given.
        text: String,
    },
    /// No such object.
    #[error("object {hash} is not in the store: run the sweep again, which rebuilds it")]
    Missing {
        /// The object.
        hash: Hash,
    },
    /// An object whose content is not what its name says.
    #[error(
        "object {hash} is damaged; what was left of it is now {}: run the sweep again, which rebuilds it, and check the disk",
        quarantined.display()
    )]
    Damaged {
        /// The object.
        hash: Hash,
        /// Where the damaged content lies now.
        quarantined: PathBuf,
    },
    /// A ref in a form that this version does not know.
    #[error(
        "{} has another format than this version reads ({why}): use the version that wrote it, or another --root",
        path.display()
    )]
    RefFormat {
        /// The ref's file.
        path: PathBuf,
        /// What is unknown.
        why: String,
    },
    /// Someone else uses the root or the unit.
    #[error("{what} is in use by {by}: wait until it has finished, or end it")]
    Locked {
        /// The root or the unit.
        what: String,
        /// Process and host, as far as known.
        by: String,
    },
    /// Deleting needs the root to itself.
    #[error("{} was opened for sharing: open it exclusively to remove things from it", root.display())]
    NeedsExclusive {
        /// The root.
        root: PathBuf,
    },
    /// Nothing goes by that name.
    #[error("nothing in the store is called {what:?}{}", nearest(near))]
    NotFound {
        /// The name as given.
        what: String,
        /// What comes nearest.
        near: Vec<String>,
    },
    /// More than one thing goes by that name.
    #[error("{what:?} may be any of {}: give more of the name", candidates.join(", "))]
    Ambiguous {
        /// The name as given.
        what: String,
        /// All that it may mean.
        candidates: Vec<String>,
    },
}

impl StoreError {
    /// An [`Io`](StoreError::Io) error on `path`.
    pub(super) fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StoreError + 'a {
        move |source| StoreError::Io { action, path: path.into(), source }
    }
}

/// What helps against the usual refusals of a file system.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => {
            ". Free space there or choose another --root; finished work is kept, the same command goes on"
        }
        io::ErrorKind::QuotaExceeded => {
            ". Delete files of yours there or choose another --root; finished work is kept, the same command goes on"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ". Make it writable or choose another --root (or LAMBDA_HAT_HOME)"
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory | io::ErrorKind::AlreadyExists => {
            ". Something else is in the way: move it or choose another --root"
        }
        _ => "",
    }
}

/// The end of a not-found message.
fn nearest(near: &[String]) -> String {
    match near {
        [] => ": `artifacts ls` shows what there is".into(),
        near => format!(": the nearest are {}", near.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_the_file_system_name_path_and_remedy() {
        // ENOSPC, EDQUOT, EACCES, EROFS.
        for (code, words) in [
            (28, "Free space"),
            (122, "Delete files"),
            (13, "Make it writable"),
            (30, "Make it writable"),
            (20, "in the way"),
        ] {
            let error = StoreError::io("write", Path::new("/data/x"))(io::Error::from_raw_os_error(code));
            let text = error.to_string();
            assert!(text.starts_with("cannot write /data/x: ") && text.contains(words), "{text}");
            assert!(text.contains("--root"), "{text}");
        }
    }
}
