//! Listings, all of them rebuilt from refs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use super::{Hash, RUN, Ref, Status, Store, StoreError, TARGET};

/// One line of `artifacts ls`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Kind of the unit.
    pub kind: String,
    /// Its id.
    pub id: Hash,
    /// Its URN.
    pub urn: String,
    /// Its directory, relative to the root.
    pub dir: Option<PathBuf>,
    /// How it ended.
    pub status: Status,
    /// When it ended (RFC 3339).
    pub when: String,
    /// Number of its objects.
    pub objects: usize,
    /// Their bytes, shared ones included; absent ones count 0.
    pub bytes: u64,
    /// Whatever else its ref says.
    #[serde(skip)]
    pub details: Value,
}

/// What the objects of some units come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Distinct objects.
    pub objects: usize,
    /// Their bytes on disk.
    pub bytes: u64,
    /// Bytes that the same units would take beyond that if each had its own copies.
    pub saved: u64,
}

impl Store {
    /// Every unit there is, by kind, then directory, then id.
    pub fn list(&self) -> Result<Vec<Row>, StoreError> {
        let mut rows: Vec<Row> = self.all_refs()?.into_iter().map(|unit| self.row(unit)).collect();
        rows.sort_by(|a, b| (&a.kind, &a.dir, a.id).cmp(&(&b.kind, &b.dir, b.id)));
        Ok(rows)
    }

    /// What the objects that the units with `chosen` kind and id name come to; absent ones count nothing.
    pub fn totals(&self, chosen: impl Fn(&str, &Hash) -> bool) -> Result<Totals, StoreError> {
        let mut sizes: BTreeMap<Hash, u64> = BTreeMap::new();
        let mut named = 0;
        for unit in self.all_refs()?.iter().filter(|unit| chosen(&unit.kind, &unit.id)) {
            for hash in unit.objects.values() {
                let known = sizes.get(hash).copied();
                let Some(size) = known.or_else(|| self.object_size(hash)) else { continue };
                sizes.insert(*hash, size);
                named += size;
            }
        }
        let bytes: u64 = sizes.values().sum();
        Ok(Totals { objects: sizes.len(), bytes, saved: named - bytes })
    }

    /// The size of an object, if it is there.
    pub fn object_size(&self, hash: &Hash) -> Option<u64> {
        fs::metadata(self.object_path(hash)).ok().map(|about| about.len())
    }

    fn row(&self, unit: Ref) -> Row {
        let size = |hash| self.object_size(hash).unwrap_or(0);
        Row {
            urn: unit.urn(),
            bytes: unit.objects.values().map(size).sum(),
            objects: unit.objects.len(),
            kind: unit.kind,
            id: unit.id,
            dir: unit.dir,
            status: unit.status,
            when: unit.when,
            details: unit.details,
        }
    }

    /// Writes `runs/targets/_catalog.jsonl` (every target built) and `_runs.jsonl` in every target's
    /// directory (its runs, failed ones too), one JSON object a line in the order of ids. The same
    /// refs give the same bytes; files that hold them already are not touched.
    ///
    /// It reads every ref: call it at the end of a sweep and now and then, not after every unit.
    pub fn rebuild_catalog(&self) -> Result<(), StoreError> {
        let targets = self.list_refs(TARGET)?;
        let mut dirs: BTreeSet<PathBuf> = targets.iter().filter_map(|unit| unit.dir.clone()).collect();
        let mut runs: BTreeMap<PathBuf, Vec<Value>> = BTreeMap::new();
        for unit in self.list_refs(RUN)? {
            if let Some(dir) = unit.dir.as_deref().and_then(Path::parent) {
                dirs.insert(dir.into());
                runs.entry(dir.into()).or_default().push(line("run_id", &unit));
            }
        }
        let built = targets.iter().filter(|unit| unit.status == Status::Done);
        let built: Vec<Value> = built.map(|unit| line("target_id", unit)).collect();
        self.write_file(Path::new("runs/targets/_catalog.jsonl"), &lines(&built))?;
        // A directory that the user deleted comes back with its files, not with a listing alone.
        for dir in dirs.iter().filter(|dir| self.at(dir).is_dir()) {
            let list = runs.get(dir).map(Vec::as_slice).unwrap_or_default();
            self.write_file(&dir.join("_runs.jsonl"), &lines(list))?;
        }
        Ok(())
    }
}

/// A unit as one object of a listing.
fn line(id_key: &str, unit: &Ref) -> Value {
    let mut value = json!({
        "urn": unit.urn(),
        "dir": unit.dir,
        "status": unit.status,
        "when": unit.when,
        "config": unit.config,
    });
    value[id_key] = json!(unit.id);
    value
}

fn lines(values: &[Value]) -> Vec<u8> {
    values.iter().flat_map(|value| format!("{value}\n").into_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(kind: &str, name: &str, dir: &str, status: Status) -> Ref {
        Ref {
            kind: kind.into(),
            id: Hash::of(name.as_bytes()),
            dir: Some(dir.into()),
            status,
            when: "2026-01-01T00:00:00Z".into(),
            config: json!({ "name": name }),
            objects: BTreeMap::new(),
            details: Value::Null,
        }
    }

    #[test]
    fn listings_follow_from_the_refs_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let failed = || Status::Failed { reason: "NaN".into(), settled: true };
        let object = store.put(b"12345").unwrap();
        let mut first = unit(TARGET, "a", "runs/targets/tgt_a", Status::Done);
        first.objects = [("data.npz".into(), object), ("params.npz".into(), object)].into();
        store.write_ref(&first).unwrap();
        store.write_ref(&unit(TARGET, "b", "runs/targets/tgt_b", Status::Done)).unwrap();
        store.write_ref(&unit(TARGET, "c", "runs/targets/tgt_c", failed())).unwrap();
        store.write_ref(&unit(RUN, "1", "runs/targets/tgt_a/run_1", Status::Done)).unwrap();
        store.write_ref(&unit(RUN, "2", "runs/targets/tgt_a/run_2", failed())).unwrap();
        for name in ["tgt_a", "tgt_b"] {
            fs::create_dir_all(dir.path().join("runs/targets").join(name)).unwrap();
        }
        store.rebuild_catalog().unwrap();
        let read = |path: &str| fs::read_to_string(dir.path().join("runs/targets").join(path)).unwrap();
        let parse = |text: String| -> Vec<Value> {
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        let names = |lines: &[Value], key: &str| -> Vec<String> {
            assert!(lines.is_sorted_by_key(|line| line[key].as_str().unwrap().to_string()));
            let mut names: Vec<_> =
                lines.iter().map(|l| l["config"]["name"].as_str().unwrap().to_string()).collect();
            names.sort();
            names
        };
        let catalog = parse(read("_catalog.jsonl"));
        assert_eq!(names(&catalog, "target_id"), ["a", "b"]);
        let runs = parse(read("tgt_a/_runs.jsonl"));
        assert_eq!(names(&runs, "run_id"), ["1", "2"]);
        assert_eq!(runs.iter().filter(|run| run["status"]["state"] == "failed").count(), 1);
        assert_eq!(read("tgt_b/_runs.jsonl"), "");
        assert!(!dir.path().join("runs/targets/tgt_c").exists());

        // Deleted or spoiled listings come back with the same bytes.
        let before = (read("_catalog.jsonl"), read("tgt_a/_runs.jsonl"));
        fs::remove_file(dir.path().join("runs/targets/_catalog.jsonl")).unwrap();
        fs::write(dir.path().join("runs/targets/tgt_a/_runs.jsonl"), "spoiled").unwrap();
        store.rebuild_catalog().unwrap();
        assert_eq!((read("_catalog.jsonl"), read("tgt_a/_runs.jsonl")), before);

        let rows = store.list().unwrap();
        assert_eq!(
            rows.iter().map(|row| row.kind.as_str()).collect::<Vec<_>>(),
            [RUN, RUN, TARGET, TARGET, TARGET]
        );
        let row = rows.iter().find(|row| row.id == first.id).unwrap();
        assert_eq!((row.objects, row.bytes), (2, 10));
        let totals = store.totals(|_, _| true).unwrap();
        assert_eq!(totals, Totals { objects: 1, bytes: 5, saved: 5 });
        assert_eq!(store.totals(|kind, _| kind == RUN).unwrap(), Totals::default());
    }
}
