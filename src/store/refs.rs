//! Refs: one small file for each finished or failed unit, the only index there is.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::atomic::{entries, sync_dir, write_bytes};
use super::{Hash, Store, StoreError, check_name, check_relative, disk, urn};

/// Kind of the refs of targets.
pub const TARGET: &str = "target";
/// Kind of the refs of runs.
pub const RUN: &str = "run";

/// Version of the file's form.
const FORMAT: u64 = 1;
/// A ref's file begins with the hash of all that follows these bytes and the hash's digits.
const HEAD: &str = "{\"blake3\":\"";

/// What is known of one unit of work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ref {
    /// [`TARGET`], [`RUN`], or any other name.
    pub kind: String,
    /// The unit's id.
    pub id: Hash,
    /// Its directory in the tree, relative to the root; `None` for a unit without one.
    pub dir: Option<PathBuf>,
    /// How it ended.
    pub status: Status,
    /// When it ended (RFC 3339). The store has no clock: the caller says.
    pub when: String,
    /// The scientific configuration that the id is the hash of.
    pub config: Value,
    /// File name in the unit's directory (`/` separates directories) → object.
    pub objects: BTreeMap<String, Hash>,
    /// Whatever else belongs to it: parents, timing, provenance.
    pub details: Value,
}

/// How a unit ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Status {
    /// Finished; its objects are all there were.
    Done,
    /// Failed.
    Failed {
        /// Why, for people.
        reason: String,
        /// Failed by its own numbers, so that doing it again gives the same: redone only on request.
        settled: bool,
    },
}

impl Ref {
    /// `urn:lh:<kind>:blake3:<id>`.
    pub fn urn(&self) -> String {
        urn(&self.kind, &self.id)
    }

    /// Are all names in it fit to become paths?
    fn check(&self) -> Result<(), StoreError> {
        check_name(&self.kind)?;
        if let Some(dir) = &self.dir {
            check_relative(dir)?;
            if dir.components().count() < 2 {
                return Err(StoreError::Path { path: dir.clone() });
            }
        }
        self.objects.keys().try_for_each(|name| check_relative(Path::new(name)))
    }
}

/// The outer form of a ref's file.
#[derive(Deserialize)]
struct Envelope {
    format: u64,
    #[serde(rename = "ref")]
    body: Value,
}

/// What reading a ref's file found.
pub(super) enum Found {
    Nothing,
    Good(Box<Ref>),
    /// The file is not as it was written; why.
    Damaged(String),
}

impl Store {
    pub(super) fn ref_path(&self, kind: &str, id: &Hash) -> PathBuf {
        self.root().join("store/refs").join(kind).join(format!("{id}.json"))
    }

    /// Writes a ref, replacing the one before. Its objects must have been put before, so that no
    /// ref names what is not there.
    ///
    /// # Errors
    /// [`StoreError::Name`] or [`StoreError::Path`] for names unfit to be paths; [`StoreError::Io`].
    pub fn write_ref(&self, unit: &Ref) -> Result<(), StoreError> {
        unit.check()?;
        let path = self.ref_path(&unit.kind, &unit.id);
        // A Ref has string keys and no numbers that JSON lacks, so this does not fail; if ever it
        // does, it is told like a failed write.
        let body = serde_json::to_string_pretty(unit)
            .map_err(|e| StoreError::io("write", &path)(std::io::Error::other(e)))?;
        let rest = format!("\",\n\"format\":{FORMAT},\n\"ref\":{body}}}\n");
        let text = format!("{HEAD}{}{rest}", Hash::of(rest.as_bytes()));
        self.write_ref_bytes(&unit.kind, &unit.id, text.as_bytes())
    }

    /// Puts the bytes of a ref's file, which [`understand`] has passed, where they belong.
    pub(super) fn write_ref_bytes(&self, kind: &str, id: &Hash, bytes: &[u8]) -> Result<(), StoreError> {
        write_bytes(&self.ref_path(kind, id), 0o644, bytes)?;
        if let Some(ids) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get_mut(kind) {
            ids.insert(*id);
        }
        Ok(())
    }

    /// A unit's ref, if there is one. A ref that was damaged counts as none: it is moved to
    /// `store/quarantine/`, a warning is logged, and the unit is done again.
    ///
    /// # Errors
    /// [`StoreError::RefFormat`] for a ref of another version of the program; [`StoreError::Io`].
    pub fn read_ref(&self, kind: &str, id: &Hash) -> Result<Option<Ref>, StoreError> {
        check_name(kind)?;
        let path = self.ref_path(kind, id);
        match inspect(&path, kind, id)? {
            Found::Nothing => Ok(None),
            Found::Good(unit) => Ok(Some(*unit)),
            Found::Damaged(why) => {
                let place = self.quarantine(&path, &format!("{kind}-{id}.json"))?;
                log::warn!(
                    "the record of {} is damaged ({why}); it now lies in {}, and the unit will be done again",
                    urn(kind, id),
                    place.display()
                );
                Ok(None)
            }
        }
    }

    /// Removes a unit's ref; was there one? Its objects and directory stay.
    pub fn remove_ref(&self, kind: &str, id: &Hash) -> Result<bool, StoreError> {
        check_name(kind)?;
        let path = self.ref_path(kind, id);
        match disk::remove(&path) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(StoreError::io("remove", &path)(e)),
        }
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(kind);
        path.parent().map_or(Ok(()), sync_dir)?;
        Ok(true)
    }

    /// All refs of a kind, in the order of their ids; damaged ones are dealt with as by
    /// [`read_ref`](Store::read_ref).
    pub fn list_refs(&self, kind: &str) -> Result<Vec<Ref>, StoreError> {
        let ids = self.ref_ids(kind)?;
        ids.iter().filter_map(|id| self.read_ref(kind, id).transpose()).collect()
    }

    /// Ids of all refs of a kind, sorted; nothing is read.
    pub(super) fn ref_ids(&self, kind: &str) -> Result<Vec<Hash>, StoreError> {
        check_name(kind)?;
        let files = entries(&self.root().join("store/refs").join(kind))?;
        let names = files.iter().map(|entry| entry.file_name().to_string_lossy().into_owned());
        Ok(names.filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect())
    }

    /// Kinds that have refs, sorted.
    pub(super) fn ref_kinds(&self) -> Result<Vec<String>, StoreError> {
        let dirs = entries(&self.root().join("store/refs"))?;
        let names = dirs.iter().map(|entry| entry.file_name().to_string_lossy().into_owned());
        Ok(names.filter(|name| check_name(name).is_ok()).collect())
    }

    /// All refs of all kinds.
    pub(super) fn all_refs(&self) -> Result<Vec<Ref>, StoreError> {
        let lists =
            self.ref_kinds()?.iter().map(|kind| self.list_refs(kind)).collect::<Result<Vec<_>, _>>()?;
        Ok(lists.into_iter().flatten().collect())
    }

    /// All refs of all kinds that can be read; the others are left alone.
    pub(super) fn readable_refs(&self) -> Result<Vec<Ref>, StoreError> {
        let mut units = Vec::new();
        for kind in self.ref_kinds()? {
            for id in self.ref_ids(&kind)? {
                match inspect(&self.ref_path(&kind, &id), &kind, &id) {
                    Ok(Found::Good(unit)) => units.push(*unit),
                    Err(e @ StoreError::Io { .. }) => return Err(e),
                    _ => {}
                }
            }
        }
        Ok(units)
    }
}

/// Reads a ref's file and checks it, without touching it.
pub(super) fn inspect(path: &Path, kind: &str, id: &Hash) -> Result<Found, StoreError> {
    match fs::read(path) {
        Ok(bytes) => understand(&bytes, path, kind, id),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Found::Nothing),
        Err(e) => Err(StoreError::io("read", path)(e)),
    }
}

/// The ref that the content of a file at `path` is.
pub(super) fn understand(bytes: &[u8], path: &Path, kind: &str, id: &Hash) -> Result<Found, StoreError> {
    let parts = bytes.strip_prefix(HEAD.as_bytes()).and_then(|text| text.split_at_checked(64));
    let Some((digits, rest)) = parts else { return Ok(Found::Damaged("its beginning is wrong".into())) };
    let recorded = std::str::from_utf8(digits).ok().and_then(|hex| hex.parse::<Hash>().ok());
    if recorded != Some(Hash::of(rest)) {
        return Ok(Found::Damaged("its content does not match its hash".into()));
    }
    // From here on the bytes are as someone wrote them: what cannot be read is not damage.
    let other = |why: String| StoreError::RefFormat { path: path.into(), why };
    let outer: Envelope = serde_json::from_slice(bytes).map_err(|e| other(e.to_string()))?;
    if outer.format != FORMAT {
        return Err(other(format!("format {}", outer.format)));
    }
    let unit: Ref = serde_json::from_value(outer.body).map_err(|e| other(e.to_string()))?;
    if (unit.kind.as_str(), unit.id) != (kind, *id) {
        return Ok(Found::Damaged(format!("it is the record of {}", unit.urn())));
    }
    unit.check()?;
    Ok(Found::Good(Box::new(unit)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn example(store: &Store, name: &str) -> Ref {
        Ref {
            kind: RUN.into(),
            id: Hash::of(name.as_bytes()),
            dir: Some("runs/targets/tgt_x/run_hmc_y".into()),
            status: Status::Done,
            when: "2026-01-02T03:04:05Z".into(),
            config: json!({"step_size": 0.1, "seed": u64::MAX, "tiny": 5e-324, "z": [1, null, "ä\n"]}),
            objects: [("trace.nc".into(), store.put(name.as_bytes()).unwrap())].into(),
            details: json!({"seconds": 1.25}),
        }
    }

    #[test]
    fn refs_come_back_and_are_plain_json_for_others() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut unit = example(&store, "a");
        assert_eq!(store.read_ref(RUN, &unit.id).unwrap(), None);
        store.write_ref(&unit).unwrap();
        assert_eq!(store.read_ref(RUN, &unit.id).unwrap().as_ref(), Some(&unit));
        let text = fs::read(store.ref_path(RUN, &unit.id)).unwrap();
        let value: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(value["ref"]["objects"]["trace.nc"], Hash::of(b"a").to_string());

        unit.status = Status::Failed { reason: "loss is NaN at iteration 3".into(), settled: true };
        store.write_ref(&unit).unwrap();
        assert_eq!(store.read_ref(RUN, &unit.id).unwrap().as_ref(), Some(&unit));
        let second = example(&store, "b");
        store.write_ref(&second).unwrap();
        let mut both = vec![unit.clone(), second];
        both.sort_by_key(|unit| unit.id);
        assert_eq!(store.list_refs(RUN).unwrap(), both);
        assert_eq!(store.list_refs(TARGET).unwrap(), []);
        assert!(store.remove_ref(RUN, &unit.id).unwrap());
        assert!(!store.remove_ref(RUN, &unit.id).unwrap());
    }

    #[test]
    fn any_damage_to_a_ref_is_found_and_the_ref_counts_as_missing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let unit = example(&store, "a");
        store.write_ref(&unit).unwrap();
        let path = store.ref_path(RUN, &unit.id);
        let whole = fs::read(&path).unwrap();
        let flipped = (0..whole.len()).step_by(7).map(|i| {
            let mut bytes = whole.clone();
            bytes[i] ^= 4;
            bytes
        });
        let cut = [0, 5, 70, 80, whole.len() - 1].map(|length| whole[..length].to_vec());
        let other = [b"not json".to_vec(), b"{}".to_vec(), vec![0xff; 300]];
        for bytes in flipped.chain(cut).chain(other) {
            fs::write(&path, &bytes).unwrap();
            assert_eq!(store.read_ref(RUN, &unit.id).unwrap(), None);
            assert!(!path.exists());
            let place = dir.path().join(format!("store/quarantine/run-{}.json", unit.id));
            assert_eq!(fs::read(place).unwrap(), bytes);
        }
        // The record of another unit under this one's name.
        let second = example(&store, "b");
        store.write_ref(&second).unwrap();
        fs::rename(store.ref_path(RUN, &second.id), &path).unwrap();
        assert_eq!(store.list_refs(RUN).unwrap(), []);
    }

    #[test]
    fn a_ref_of_a_later_version_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let id = Hash::of(b"later");
        let rest = "\",\n\"format\":2,\n\"ref\":{\"new\":1}}\n";
        let text = format!("{HEAD}{}{rest}", Hash::of(rest.as_bytes()));
        let path = store.ref_path(RUN, &id);
        write_bytes(&path, 0o644, text.as_bytes()).unwrap();
        let refused = store.read_ref(RUN, &id).unwrap_err();
        assert!(refused.to_string().contains("format 2"), "{refused}");
        assert!(path.exists());
    }

    #[test]
    fn refs_with_names_that_leave_the_root_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let good = example(&store, "a");
        let hash = Hash::of(b"a");
        let cases = [
            Ref { kind: "../x".into(), ..good.clone() },
            Ref { dir: Some("/tmp/x".into()), ..good.clone() },
            Ref { dir: Some("store/refs".into()), ..good.clone() },
            Ref { dir: Some("runs".into()), ..good.clone() },
            Ref { objects: [("../../x".into(), hash)].into(), ..good.clone() },
        ];
        for bad in cases {
            assert!(store.write_ref(&bad).is_err(), "{bad:?}");
        }
    }
}
