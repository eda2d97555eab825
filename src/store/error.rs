//! What can go wrong with a store, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use super::{Hash, disk};

/// Errors of the store. All but [`Name`](StoreError::Name), [`Urn`](StoreError::Urn),
/// [`NotFound`](StoreError::NotFound) and [`Ambiguous`](StoreError::Ambiguous), which a command
/// line can cause, are errors of the surroundings.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("cannot {action} {}: {source}{}", path.display(), remedy(source, *needed, *left))]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
        /// Bytes that were to be written, where known.
        needed: Option<u64>,
        /// Bytes that were free there, where that is the matter and known.
        left: Option<u64>,
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
    /// A ref that cannot be read, so that what it names is not known.
    #[error(
        "{} is damaged ({why}), so it is not known which objects are needed: nothing was removed; run \
         `lambda-hat-mpi artifacts verify --repair` first",
        path.display()
    )]
    Unmarked {
        /// The ref's file.
        path: PathBuf,
        /// What is wrong with it.
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
    /// No experiment of that name, or its manifest is not one.
    #[error("{}: {why}", path.display())]
    Experiment {
        /// The manifest.
        path: PathBuf,
        /// What is wrong, and the remedy.
        why: String,
    },
    /// A bundle that is not as `export` makes them.
    #[error(
        "{}: {entry}: {why}. Nothing of it is used: have the bundle exported and copied again, and \
         distrust its source if that does not help",
        path.display()
    )]
    Bundle {
        /// The bundle.
        path: PathBuf,
        /// The part of it.
        entry: String,
        /// What is wrong with it.
        why: String,
    },
    /// A bundle that contradicts what is there.
    #[error("{}: nothing was imported, because the store has something else: {}", path.display(), what.join("; "))]
    Conflict {
        /// The bundle.
        path: PathBuf,
        /// Each entry, what stands against it, and the remedy.
        what: Vec<String>,
    },
    /// An object that cannot be exported.
    #[error(
        "{name} of {urn} is {state}, so that nothing was exported: run the sweep again, which makes it anew"
    )]
    Unfit {
        /// The file.
        name: String,
        /// URN of the unit that it belongs to.
        urn: String,
        /// `missing` or `damaged`.
        state: &'static str,
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
        move |source| {
            let left = if is_full(&source) { disk::space_left(path) } else { None };
            StoreError::Io { action, path: path.into(), source, needed: None, left }
        }
    }

    /// Is it that nothing more can be written?
    pub(super) fn is_full(&self) -> bool {
        matches!(self, StoreError::Io { source, .. } if is_full(source))
    }

    /// The same error, where `bytes` were to be written.
    pub(super) fn needing(mut self, bytes: u64) -> Self {
        if let StoreError::Io { needed, .. } = &mut self {
            *needed = Some(bytes);
        }
        self
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What helps against the usual refusals of a file system.
fn remedy(error: &io::Error, needed: Option<u64>, left: Option<u64>) -> String {
    let kept = "what is finished is kept, and the same command goes on from there";
    let numbers = match (needed, left) {
        _ if !is_full(error) => String::new(),
        (Some(needed), Some(left)) => {
            format!(" ({} to write, {} free on that disk)", size(needed), size(left))
        }
        (Some(needed), None) => format!(" ({} to write)", size(needed)),
        (None, Some(left)) => format!(" ({} free on that disk)", size(left)),
        (None, None) => String::new(),
    };
    match error.kind() {
        io::ErrorKind::StorageFull => format!(
            "{numbers}. Free space there (`lambda-hat-mpi artifacts gc` removes what no result needs) or choose \
             another --root; {kept}"
        ),
        io::ErrorKind::QuotaExceeded => format!(
            "{numbers}. Your quota is used up: delete files of yours there (`lambda-hat-mpi artifacts gc` removes \
             what no result needs) or choose another --root; {kept}"
        ),
        io::ErrorKind::PermissionDenied => {
            format!(". Make it writable for you or choose another --root (or LAMBDA_HAT_HOME); {kept}")
        }
        io::ErrorKind::ReadOnlyFilesystem => format!(
            ". The disk is mounted read-only: have it remounted for writing or choose another --root (or \
             LAMBDA_HAT_HOME); {kept}"
        ),
        io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory | io::ErrorKind::AlreadyExists => {
            ". Something else is in the way: move it or choose another --root".into()
        }
        _ => String::new(),
    }
}

/// A number of bytes for people.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} bytes");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
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
        // ENOSPC, EDQUOT, EACCES, EROFS, ENOTDIR.
        for (code, words) in [
            (28, ["Free space", "the same command", "free on that disk"]),
            (122, ["quota", "the same command", "free on that disk"]),
            (13, ["Make it writable", "the same command", "LAMBDA_HAT_HOME"]),
            (30, ["mounted read-only", "the same command", "LAMBDA_HAT_HOME"]),
            (20, ["in the way", "move it", "--root"]),
        ] {
            let error = StoreError::io("write", Path::new("/data/x"))(io::Error::from_raw_os_error(code));
            let text = error.needing(1_234_567).to_string();
            assert!(text.starts_with("cannot write /data/x: ") && text.contains("--root"), "{text}");
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
            assert_eq!(text.contains("(1.2 MB to write, "), matches!(code, 28 | 122), "{text}");
        }
    }

    #[test]
    fn sizes_are_said_in_the_unit_that_fits() {
        for (bytes, text) in [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (999_960, "1.0 MB")] {
            assert_eq!(size(bytes), text);
        }
    }
}
