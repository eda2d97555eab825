//! Which card a path means.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

/// A card by its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Card {
    /// Of this machine: the sweep runs here.
    Local(PathBuf),
    /// Of a cluster.
    Slurm(PathBuf),
}

/// The card that is read by a single process unless told otherwise, if it is there.
pub fn local_default(dir: &Path) -> Option<PathBuf> {
    Some(dir.join("config/local.yaml")).filter(|path| path.is_file())
}

/// The card that `path` means, and what to tell the user. `config/parsl/…`, where older cards stood, means the
/// card of the same name without `parsl`, unless only the older file is there. A file named `local` is the
/// card of a machine.
pub fn find(path: &Path) -> (Card, Option<String>) {
    let (path, notice) = match without_parsl(path) {
        Some(new) if new.is_file() || !path.is_file() => {
            let notice = format!("{} is read as {}", path.display(), new.display());
            (new, Some(notice))
        }
        _ => (path.to_owned(), None),
    };
    let card = match path.file_stem() {
        Some(stem) if stem == "local" => Card::Local(path),
        _ => Card::Slurm(path),
    };
    (card, notice)
}

/// `…/config/parsl/X` as `…/config/X`.
fn without_parsl(path: &Path) -> Option<PathBuf> {
    let parts: Vec<Component> = path.components().collect();
    let is = |part: &Component, name: &str| part.as_os_str() == OsStr::new(name);
    let at = parts.windows(2).rposition(|pair| is(&pair[0], "config") && is(&pair[1], "parsl"))?;
    Some(parts.iter().enumerate().filter(|(i, _)| *i != at + 1).map(|(_, part)| part).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_older_cards_mean_the_new_ones() {
        for (path, card) in [
            ("config/slurm/cpu.yaml", Card::Slurm("config/slurm/cpu.yaml".into())),
            ("config/parsl/slurm/cpu.yaml", Card::Slurm("config/slurm/cpu.yaml".into())),
            ("/a/config/parsl/slurm/gpu-a100.yaml", Card::Slurm("/a/config/slurm/gpu-a100.yaml".into())),
            ("config/parsl/local.yaml", Card::Local("config/local.yaml".into())),
            ("parsl/cpu.yaml", Card::Slurm("parsl/cpu.yaml".into())),
        ] {
            let (found, notice) = find(Path::new(path));
            assert_eq!(found, card);
            assert_eq!(notice.is_some(), path.contains("config/parsl"), "{notice:?}");
        }
    }

    #[test]
    fn an_older_card_that_is_there_alone_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let old = dir.path().join("config/parsl/cpu.yaml");
        std::fs::create_dir_all(dir.path().join("config/parsl")).unwrap();
        std::fs::write(&old, "").unwrap();
        assert_eq!(find(&old), (Card::Slurm(old.clone()), None));
        let new = dir.path().join("config/cpu.yaml");
        std::fs::write(&new, "").unwrap();
        assert_eq!(find(&old).0, Card::Slurm(new));
    }
}
