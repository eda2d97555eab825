//! `artifacts verify --repair`: everything wrong is put aside, healed from copies, or marked for the
//! next sweep.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde::Serialize;

use super::{Hash, Ref, Status, Store, StoreError, VerifyReport};

/// What a repair found and did.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Repaired {
    /// What was wrong before.
    pub found: VerifyReport,
    /// Objects that were damaged or missing and that a copy in `runs/` gave back.
    pub healed: Vec<Hash>,
    /// URNs of units that lack objects still: the next sweep makes them again.
    pub marked: Vec<String>,
    /// Directories in `runs/` with files that were missing or differed, laid out again.
    pub laid_out: Vec<PathBuf>,
    /// Half-written files of processes that are gone.
    pub temporaries: usize,
}

impl Repaired {
    /// Is nothing left that this version cannot mend?
    pub fn is_sound(&self) -> bool {
        self.found.bad_refs.iter().all(|bad| bad.quarantined)
    }
}

impl Store {
    /// Verifies the store and mends what is wrong: damaged objects and refs are quarantined, lost
    /// objects are taken back from copies in `runs/` that have their hash, units that lack objects
    /// still are recorded as failed by their surroundings, with the hashes that they must come out
    /// with, files in `runs/` are laid out again (but for `internal` ones, which are not laid out),
    /// and the listings are rebuilt.
    ///
    /// # Errors
    /// [`StoreError::NeedsExclusive`] unless the root was opened with
    /// [`open_exclusive`](Store::open_exclusive); [`StoreError::Io`] where the disk refuses. A repair
    /// that was stopped is done again from the start.
    pub fn repair(&self, internal: &[&str]) -> Result<Repaired, StoreError> {
        self.need_exclusive()?;
        let temporaries = self.swept + self.sweep_temporaries()?;
        let found = self.verify()?;
        let mut report = Repaired { temporaries, ..Repaired::default() };
        let mut healed = BTreeSet::new();
        // Refs that cannot be read are in what was found.
        let units = self.readable_refs()?;
        for unit in &units {
            self.heal(unit, &mut healed)?;
        }
        for unit in units.into_iter().filter(|unit| unit.status == Status::Done) {
            let absent = unit.objects.values().filter(|hash| !self.object_path(hash).is_file()).count();
            if absent > 0 {
                report.marked.push(self.mark(unit, absent)?);
                continue;
            }
            report.laid_out.extend(self.lay_out(&unit, internal)?);
        }
        if found.bad_refs.iter().all(|bad| bad.quarantined) {
            self.rebuild_catalog()?;
        }
        report.healed = healed.into_iter().collect();
        report.found = found;
        Ok(report)
    }

    /// Lays a unit's files out in `runs/`, but for `internal` ones; its directory, if something was to
    /// be written.
    pub(super) fn lay_out(&self, unit: &Ref, internal: &[&str]) -> Result<Option<PathBuf>, StoreError> {
        let Some(dir) = &unit.dir else { return Ok(None) };
        let mut files = unit.objects.clone();
        files.retain(|name, _| !internal.contains(&name.as_str()));
        Ok((self.materialise(dir, &files)? > 0).then(|| dir.clone()))
    }

    /// Puts objects back that the unit's directory still has a copy of.
    fn heal(&self, unit: &Ref, healed: &mut BTreeSet<Hash>) -> Result<(), StoreError> {
        let Some(dir) = &unit.dir else { return Ok(()) };
        for (name, hash) in &unit.objects {
            if self.object_path(hash).is_file() {
                continue;
            }
            let Ok(bytes) = fs::read(self.at(dir).join(name)) else { continue };
            if Hash::of(&bytes) == *hash {
                self.put(&bytes)?;
                healed.insert(*hash);
            }
        }
        Ok(())
    }

    /// Records that a unit has to be done again, and must then give the objects it had.
    fn mark(&self, unit: Ref, absent: usize) -> Result<String, StoreError> {
        let reason = format!(
            "{absent} of its {} files were damaged or lost; the next sweep makes them again",
            unit.objects.len()
        );
        let marked = Ref { status: Status::Failed { reason, settled: false }, ..unit };
        self.write_ref(&marked)?;
        Ok(marked.urn())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{RUN, TARGET};
    use serde_json::Value;
    use std::path::Path;

    fn unit(store: &Store, kind: &str, dir: &str, files: &[(&str, &str)]) -> Ref {
        let objects: std::collections::BTreeMap<String, Hash> = files
            .iter()
            .map(|(name, text)| (name.to_string(), store.put(text.as_bytes()).unwrap()))
            .collect();
        let unit = Ref {
            kind: kind.into(),
            id: Hash::of(dir.as_bytes()),
            dir: Some(dir.into()),
            status: Status::Done,
            when: "2026-01-01T00:00:00Z".into(),
            config: Value::Null,
            objects: objects.clone(),
            details: Value::Null,
        };
        store.write_ref(&unit).unwrap();
        let mut laid_out = objects;
        laid_out.remove("state.bin");
        store.materialise(Path::new(dir), &laid_out).unwrap();
        unit
    }

    fn spoil(path: &Path) {
        fs::remove_file(path).unwrap();
        fs::write(path, "spoiled").unwrap();
    }

    #[test]
    fn all_that_is_wrong_is_mended_or_marked_and_a_second_repair_finds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        drop(Store::open(root).unwrap());
        let store = Store::open(root).unwrap();
        let target = unit(&store, TARGET, "runs/targets/tgt_a", &[("data.npz", "data")]);
        let run_dir = "runs/targets/tgt_a/run_1";
        let run = unit(&store, RUN, run_dir, &[("trace.nc", "draws"), ("state.bin", "state")]);
        let other = unit(&store, RUN, "runs/targets/tgt_a/run_2", &[("trace.nc", "more draws")]);
        store.rebuild_catalog().unwrap();
        let catalog = fs::read(root.join("runs/targets/_catalog.jsonl")).unwrap();
        assert!(matches!(store.repair(&["state.bin"]), Err(StoreError::NeedsExclusive { .. })));
        drop(store);

        // The target's object is spoiled and its copy is whole; a run's hidden object is spoiled; the
        // other run's copy was edited, its record is spoiled; a listing is; a write was cut short.
        let store = Store::open(root).unwrap();
        spoil(&store.object_path(&target.objects["data.npz"]));
        spoil(&store.object_path(&run.objects["state.bin"]));
        fs::write(root.join(run_dir).join("trace.nc"), "edited").unwrap();
        spoil(&store.ref_path(RUN, &other.id));
        spoil(&root.join("runs/targets/_catalog.jsonl"));
        fs::write(root.join("runs/.tmp-1"), "half").unwrap();
        drop(store);

        let store = Store::open_exclusive(root).unwrap();
        let report = store.repair(&["state.bin"]).unwrap();
        assert_eq!(report.found.damaged.len(), 2);
        assert_eq!(report.healed, [target.objects["data.npz"]]);
        assert_eq!(report.marked, [run.urn()]);
        assert_eq!(report.laid_out, Vec::<PathBuf>::new(), "a marked run is laid out when it is made again");
        assert_eq!((report.temporaries, report.found.bad_refs.len()), (1, 1));
        assert!(report.is_sound());
        assert_eq!(fs::read(root.join("runs/targets/_catalog.jsonl")).unwrap(), catalog);
        let marked = store.read_ref(RUN, &run.id).unwrap().unwrap();
        assert_eq!(marked.objects, run.objects, "what it must come out with");
        assert!(matches!(marked.status, Status::Failed { settled: false, .. }));
        let sound = store.verify().unwrap();
        assert!(sound.is_sound(), "{sound:?}");
        assert_eq!(sound.pending, [run.urn()]);

        // The sweep makes it again.
        store.put(b"state").unwrap();
        store.write_ref(&run).unwrap();
        let again = store.repair(&["state.bin"]).unwrap();
        assert_eq!(again.laid_out, [Path::new(run_dir)]);
        assert_eq!(fs::read(root.join(run_dir).join("trace.nc")).unwrap(), b"draws");
        let clean = store.repair(&["state.bin"]).unwrap();
        assert!(clean.is_sound() && clean.laid_out.is_empty() && clean.marked.is_empty());
        assert!(clean.found.damaged.is_empty() && clean.found.bad_refs.is_empty());
    }
}
