//! `artifacts verify`: everything re-hashed, everything that refs name looked for.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Serialize;

use super::refs::{Found, inspect};
use super::{Hash, ObjectState, Ref, Status, Store, StoreError, urn};

/// What a full check found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct VerifyReport {
    /// Objects re-hashed.
    pub checked: usize,
    /// Objects that were damaged, now in `store/quarantine/`.
    pub damaged: Vec<Hash>,
    /// What refs name and the store lacks, the damaged included: URN of the unit and name of the file.
    pub missing: Vec<(String, String)>,
    /// URNs of units that a repair has marked: they lack files, say so, and are made again by the next
    /// sweep.
    pub pending: Vec<String>,
    /// Objects that no ref names: left by killed sweeps, or by one that runs now.
    pub orphans: Vec<Hash>,
    /// Refs that cannot be used.
    pub bad_refs: Vec<Unreadable>,
    /// Files in the place of objects that are none.
    pub foreign: Vec<PathBuf>,
}

/// A ref that cannot be used.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Unreadable {
    /// URN of the unit.
    pub urn: String,
    /// What is wrong with it.
    pub why: String,
    /// Was it damaged, and is now in `store/quarantine/`? Else it is of another version.
    pub quarantined: bool,
}

impl VerifyReport {
    /// Is all that refs name there and intact? (Orphans and foreign files harm nothing.)
    pub fn is_sound(&self) -> bool {
        self.damaged.is_empty() && self.missing.is_empty() && self.bad_refs.is_empty()
    }
}

impl Store {
    /// Re-hashes every object and looks for every object that a ref names. Damaged objects and refs
    /// are quarantined; the next sweep that needs them rebuilds them.
    ///
    /// # Errors
    /// [`StoreError::Io`] where the disk refuses; what is merely wrong is in the report.
    pub fn verify(&self) -> Result<VerifyReport, StoreError> {
        let (objects, foreign) = self.objects()?;
        let mut report = VerifyReport { checked: objects.len(), foreign, ..VerifyReport::default() };
        let mut intact = BTreeSet::new();
        for hash in objects {
            match self.check(&hash)? {
                ObjectState::Intact => drop(intact.insert(hash)),
                ObjectState::Damaged => report.damaged.push(hash),
                // Another process removed it since it was listed.
                ObjectState::Missing => {}
            }
        }
        let mut named = BTreeSet::new();
        for kind in self.ref_kinds()? {
            for id in self.ref_ids(&kind)? {
                let urn = urn(&kind, &id);
                let path = self.ref_path(&kind, &id);
                match inspect(&path, &kind, &id) {
                    Ok(Found::Nothing) => {}
                    Ok(Found::Good(unit)) => {
                        let mut missing = Vec::new();
                        let Ref { objects, status, .. } = *unit;
                        for (name, hash) in objects {
                            named.insert(hash);
                            // A sweep that runs now may have put it after the listing above.
                            if !intact.contains(&hash) && self.check(&hash)? != ObjectState::Intact {
                                missing.push((urn.clone(), name));
                            }
                        }
                        match status {
                            Status::Done => report.missing.append(&mut missing),
                            Status::Failed { .. } if !missing.is_empty() => report.pending.push(urn),
                            Status::Failed { .. } => {}
                        }
                    }
                    Ok(Found::Damaged(why)) => {
                        self.quarantine(&path, &format!("{kind}-{id}.json"))?;
                        report.bad_refs.push(Unreadable { urn, why, quarantined: true });
                    }
                    Err(e @ StoreError::Io { .. }) => return Err(e),
                    Err(e) => {
                        report.bad_refs.push(Unreadable { urn, why: e.to_string(), quarantined: false });
                    }
                }
            }
        }
        report.orphans = intact.difference(&named).copied().collect();
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::RUN;
    use serde_json::Value;
    use std::fs;

    #[test]
    fn everything_wrong_is_found_once_and_then_gone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let unit = |name: &str, objects: &[(&str, Hash)]| Ref {
            kind: RUN.into(),
            id: Hash::of(name.as_bytes()),
            dir: None,
            status: Status::Done,
            when: String::new(),
            config: Value::Null,
            objects: objects.iter().map(|(name, hash)| (name.to_string(), *hash)).collect(),
            details: Value::Null,
        };
        let [good, bad, orphan] = [b"good", b"bad ", b"left"].map(|bytes| store.put(bytes).unwrap());
        let absent = Hash::of(b"never put");
        let whole = unit("whole", &[("a", good)]);
        let broken = unit("broken", &[("a", good), ("b", bad), ("c", absent)]);
        let spoiled = unit("spoiled", &[]);
        for r in [&whole, &broken, &spoiled] {
            store.write_ref(r).unwrap();
        }
        let clean = unit("broken", &[]);
        fs::remove_file(store.object_path(&bad)).unwrap();
        fs::write(store.object_path(&bad), "BAD ").unwrap();
        fs::write(store.ref_path(RUN, &spoiled.id), "{").unwrap();
        let stray = store.object_path(&good).with_file_name("README");
        fs::write(&stray, "hello").unwrap();

        let report = store.verify().unwrap();
        assert_eq!(report.checked, 3);
        assert_eq!(report.damaged, [bad]);
        assert_eq!(report.missing, ["b", "c"].map(|name| (broken.urn(), name.to_string())));
        assert_eq!(report.orphans, [orphan]);
        assert_eq!(report.bad_refs.iter().map(|r| &r.urn).collect::<Vec<_>>(), [&spoiled.urn()]);
        assert_eq!(report.foreign, [stray]);
        assert!(!report.is_sound());

        // What was quarantined stays found as missing until it is rebuilt.
        store.put(b"bad ").unwrap();
        let report = store.verify().unwrap();
        assert_eq!((report.damaged.len(), report.bad_refs.len()), (0, 0));
        assert_eq!(report.missing, [(broken.urn(), "c".to_string())]);
        store.write_ref(&clean).unwrap();
        assert!(store.verify().unwrap().is_sound());
    }
}
