//! `artifacts rm`: a unit by any of its names, with its directory and what only it named.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::atomic::sync_dir;
use super::{Hash, Ref, Store, StoreError, disk, parse_urn};

/// Shortest beginning of an id that is taken for one.
const PREFIX: usize = 4;
/// Names offered when nothing fits.
const OFFERED: usize = 3;

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Removed {
    /// URNs of the units, the one asked for first.
    pub units: Vec<String>,
    /// Directories that were there, relative to the root.
    pub dirs: Vec<PathBuf>,
    /// Objects that no other unit names.
    pub objects: Vec<Hash>,
    /// Bytes of those objects.
    pub bytes: u64,
}

impl Store {
    /// The unit that goes by `what`: a URN, an id or the beginning of one (4 digits at least), the
    /// name of its directory (`tgt_…`, `run_…`) or the beginning of it, or the directory's path.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] with the nearest names, [`StoreError::Ambiguous`] with all that fit.
    pub fn find(&self, what: &str) -> Result<Ref, StoreError> {
        let units = self.all_refs()?;
        self.choose(&units, what).cloned()
    }

    fn choose<'a>(&self, units: &'a [Ref], what: &str) -> Result<&'a Ref, StoreError> {
        let path = Path::new(what);
        let path = path.strip_prefix(self.root()).unwrap_or(path);
        let whole = |unit: &Ref| match parse_urn(what) {
            Ok((kind, id)) => (&kind, id) == (&unit.kind, unit.id),
            Err(_) => {
                unit.id.to_string() == what || unit.dir.as_deref() == Some(path) || dir_name(unit) == what
            }
        };
        let part = |unit: &Ref| {
            what.len() >= PREFIX
                && (unit.id.to_string().starts_with(what)
                    // `tgt_` alone would fit every target.
                    || (what.len() > PREFIX && dir_name(unit).starts_with(what)))
        };
        // A name that fits whole wins over longer names that begin with it.
        let mut fits: Vec<&Ref> = units.iter().filter(|unit| whole(unit)).collect();
        if fits.is_empty() {
            fits = units.iter().filter(|unit| part(unit)).collect();
        }
        match fits.as_slice() {
            [one] => Ok(one),
            [] => Err(StoreError::NotFound { what: what.into(), near: nearest(units, what) }),
            many => Err(StoreError::Ambiguous {
                what: what.into(),
                candidates: many.iter().map(|unit| shown(unit)).collect(),
            }),
        }
    }

    /// Removes the unit that goes by `what` (see [`find`](Store::find)) and, of a target, its runs:
    /// their refs, their directories, and the objects that no other unit names. The next sweep that
    /// wants them does them again. Listings are rebuilt; logs and gathered results stay.
    ///
    /// # Errors
    /// [`StoreError::NeedsExclusive`] unless the root was opened with
    /// [`open_exclusive`](Store::open_exclusive); those of `find`.
    pub fn remove(&self, what: &str) -> Result<Removed, StoreError> {
        self.need_exclusive()?;
        let units = self.all_refs()?;
        let chosen = match self.choose(&units, what) {
            Err(e @ StoreError::NotFound { .. }) => {
                // It may have been removed by a process that was killed before it came to the listings.
                self.rebuild_catalog()?;
                return Err(e);
            }
            chosen => chosen?,
        };
        let inside = |unit: &Ref| match (&unit.dir, &chosen.dir) {
            (Some(dir), Some(chosen_dir)) => dir.starts_with(chosen_dir) && dir != chosen_dir,
            _ => false,
        };
        let (doomed, kept): (Vec<&Ref>, Vec<&Ref>) =
            units.iter().partition(|unit| std::ptr::eq(*unit, chosen) || inside(unit));
        let mut removed = Removed::default();
        // The directory first: if this stops half-way, it is laid out again, or the repetition goes on.
        // Then refs, before their objects: what is left is rubbish, which `gc` finds, not a ref to
        // nothing. Runs before their target, so that a repetition still finds it.
        if let Some(dir) = &chosen.dir
            && remove_dir(&self.at(dir))?
        {
            removed.dirs.push(dir.clone());
        }
        let others = doomed.iter().filter(|unit| !std::ptr::eq(**unit, chosen));
        for unit in others.chain([&chosen]) {
            self.remove_ref(&unit.kind, &unit.id)?;
            removed.units.insert(0, unit.urn());
        }
        let objects = |units: &[&Ref]| -> BTreeSet<Hash> {
            units.iter().flat_map(|unit| unit.objects.values().copied()).collect()
        };
        for hash in objects(&doomed).difference(&objects(&kept)) {
            let path = self.object_path(hash);
            let Ok(size) = fs::metadata(&path).map(|m| m.len()) else { continue };
            disk::remove(&path).map_err(StoreError::io("remove", &path))?;
            removed.objects.push(*hash);
            removed.bytes += size;
        }
        self.rebuild_catalog()?;
        Ok(removed)
    }
}

/// Removes a directory and all in it; was it there?
fn remove_dir(path: &Path) -> Result<bool, StoreError> {
    match disk::remove_tree(path) {
        Ok(()) => path.parent().map_or(Ok(()), sync_dir).map(|()| true),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(StoreError::io("remove", path)(e)),
    }
}

/// The last name of a unit's directory; empty for none.
fn dir_name(unit: &Ref) -> &str {
    unit.dir.as_deref().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default()
}

/// How a unit is called in messages.
fn shown(unit: &Ref) -> String {
    unit.dir.as_ref().map_or_else(|| unit.urn(), |dir| dir.display().to_string())
}

/// Names of the units that come nearest to `what`, as far as any comes near.
fn nearest(units: &[Ref], what: &str) -> Vec<String> {
    const NEAR: f64 = 0.7;
    let score = |unit: &Ref| {
        let id = unit.id.short(what.len().max(PREFIX));
        let names = [dir_name(unit), &id];
        names.iter().map(|name| strsim::jaro_winkler(name, what)).fold(0.0, f64::max)
    };
    let mut scored: Vec<(f64, String)> = units.iter().map(|unit| (score(unit), shown(unit))).collect();
    scored.retain(|(score, _)| *score >= NEAR);
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    scored.into_iter().take(OFFERED).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{ObjectState, RUN, Status, TARGET};
    use serde_json::Value;

    /// Two targets with two runs each; every unit has an object of its own and one that all share.
    fn filled() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_exclusive(dir.path()).unwrap();
        let add = |kind: &str, id: Hash, dir: PathBuf| {
            let own = store.put(dir.to_string_lossy().as_bytes()).unwrap();
            let shared = store.put(b"shared").unwrap();
            let unit = Ref {
                kind: kind.into(),
                id,
                dir: Some(dir.clone()),
                status: Status::Done,
                when: String::new(),
                config: Value::Null,
                objects: [("own".into(), own), ("shared".into(), shared)].into(),
                details: Value::Null,
            };
            store.write_ref(&unit).unwrap();
            store.materialise(&dir, &unit.objects).unwrap();
        };
        for t in [0xa1u8, 0xa2] {
            let target = Hash([t; 32]);
            add(TARGET, target, store.target_dir(&target).unwrap());
            for r in [1u8, 2] {
                let run = Hash([t.wrapping_mul(16) + r; 32]);
                add(RUN, run, store.run_dir(&target, "hmc", &run).unwrap());
            }
        }
        (dir, store)
    }

    #[test]
    fn a_run_goes_and_what_others_share_stays() {
        let (root, store) = filled();
        let dir = Path::new("runs/targets/tgt_a1a1a1a1a1a1/run_hmc_11111111");
        let own = Hash::of(dir.to_string_lossy().as_bytes());
        let removed = store.remove("run_hmc_11111111").unwrap();
        assert_eq!(removed.units, [format!("urn:lh:run:blake3:{}", "11".repeat(32))]);
        assert_eq!(removed.dirs, [dir]);
        assert_eq!(removed.objects, [own]);
        assert_eq!(removed.bytes, dir.to_string_lossy().len() as u64);
        assert!(!root.path().join(dir).exists());
        assert_eq!(store.check(&own).unwrap(), ObjectState::Missing);
        assert_eq!(store.get(&Hash::of(b"shared")).unwrap(), b"shared");
        assert_eq!(store.list_refs(RUN).unwrap().len(), 3);
        assert_eq!(store.list_refs(TARGET).unwrap().len(), 2);
        assert!(store.verify().unwrap().is_sound());
        let runs = root.path().join("runs/targets/tgt_a1a1a1a1a1a1/_runs.jsonl");
        assert_eq!(fs::read_to_string(runs).unwrap().lines().count(), 1);
        assert!(matches!(store.remove("run_hmc_11111111"), Err(StoreError::NotFound { .. })));
    }

    #[test]
    fn a_target_takes_its_runs_along_and_the_last_user_takes_the_shared_object() {
        let (root, store) = filled();
        let removed = store.remove(&format!("urn:lh:target:blake3:{}", "a1".repeat(32))).unwrap();
        assert_eq!((removed.units.len(), removed.objects.len()), (3, 3));
        assert!(removed.units[0].starts_with("urn:lh:target:"));
        assert!(!root.path().join("runs/targets/tgt_a1a1a1a1a1a1").exists());
        assert!(root.path().join("runs/targets/tgt_a2a2a2a2a2a2/run_hmc_21212121/own").exists());
        assert!(store.verify().unwrap().is_sound());
        let removed = store.remove("tgt_a2").unwrap();
        assert!(removed.objects.contains(&Hash::of(b"shared")));
        assert_eq!(store.verify().unwrap(), Default::default());
    }

    #[test]
    fn units_are_found_by_every_name_they_have() {
        let (root, store) = filled();
        let id = "11".repeat(32);
        let dir = "runs/targets/tgt_a1a1a1a1a1a1/run_hmc_11111111";
        let absolute = root.path().join(dir).to_string_lossy().into_owned();
        for name in [
            &format!("urn:lh:run:blake3:{id}"),
            &id,
            &id[..4],
            "run_hmc_11111111",
            "run_hmc_11",
            dir,
            &format!("{dir}/"),
            &absolute,
        ] {
            assert_eq!(store.find(name).map(|unit| unit.id.to_string()).unwrap(), id, "{name}");
        }
    }

    #[test]
    fn names_that_fit_nothing_or_too_much_are_told_what_there_is() {
        let (_root, store) = filled();
        let refused = store.find("run_hmc_").unwrap_err();
        assert!(
            matches!(&refused, StoreError::Ambiguous { candidates, .. } if candidates.len() == 4),
            "{refused}"
        );
        let refused = store.find("run_hmc_11111112").unwrap_err();
        let StoreError::NotFound { near, .. } = &refused else { panic!("{refused}") };
        assert!(near[0].ends_with("run_hmc_11111111"), "{refused}");
        for nothing in ["", "11", "tgt_", "zzzz", "urn:lh:target:blake3:1111", "/", "..", "runs"] {
            assert!(matches!(store.find(nothing), Err(StoreError::NotFound { .. })), "{nothing:?}");
        }
        // A URN of the right id but another kind is not the unit.
        let other_kind = format!("urn:lh:target:blake3:{}", "11".repeat(32));
        assert!(matches!(store.find(&other_kind), Err(StoreError::NotFound { .. })));
    }
}
