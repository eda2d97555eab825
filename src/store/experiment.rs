//! Which targets and runs belong to an experiment: what `results/<experiment>.manifest.json` says.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::atomic::entries;
use super::{Hash, Ref, Store, StoreError, TARGET, experiment_manifest};

/// An experiment's members, as its manifest names them.
#[derive(Clone, Debug, PartialEq)]
pub struct Experiment {
    /// Its name.
    pub name: String,
    /// Ids of its targets.
    pub targets: BTreeSet<Hash>,
    /// Ids of its runs.
    pub runs: BTreeSet<Hash>,
    /// The same in the order of the experiment file.
    pub order: Vec<Hash>,
    /// The manifest's bytes.
    pub(super) manifest: Vec<u8>,
}

#[derive(Deserialize)]
struct Manifest {
    experiment: String,
    targets: Vec<Target>,
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Target {
    target_id: Hash,
}

#[derive(Deserialize)]
struct Run {
    run_id: Hash,
}

impl Experiment {
    /// Reads a manifest; why it is none.
    pub(super) fn parse(manifest: Vec<u8>) -> Result<Self, String> {
        let parsed: Manifest =
            serde_json::from_slice(&manifest).map_err(|e| format!("no manifest of an experiment ({e})"))?;
        let order: Vec<Hash> = parsed.runs.into_iter().map(|run| run.run_id).collect();
        Ok(Self {
            name: parsed.experiment,
            targets: parsed.targets.into_iter().map(|target| target.target_id).collect(),
            runs: order.iter().copied().collect(),
            order,
            manifest,
        })
    }

    /// Does the unit belong to it?
    pub fn has(&self, kind: &str, id: &Hash) -> bool {
        if kind == TARGET { self.targets.contains(id) } else { self.runs.contains(id) }
    }

    /// Does the unit belong to it?
    pub fn holds(&self, unit: &Ref) -> bool {
        self.has(&unit.kind, &unit.id)
    }

    /// Are all members of `other` members of this one?
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.targets.is_superset(&other.targets) && self.runs.is_superset(&other.runs)
    }
}

impl Store {
    /// The members of the experiment `name`.
    ///
    /// # Errors
    /// [`StoreError::Name`]; [`StoreError::Experiment`] where there is no such manifest, with the names
    /// of those that there are, or where it cannot be read; [`StoreError::Io`].
    pub fn experiment(&self, name: &str) -> Result<Experiment, StoreError> {
        let path = experiment_manifest(name)?;
        let told = |why: String| StoreError::Experiment { path: self.at(&path), why };
        let Some(bytes) = self.read_file(&path)? else {
            let known = self.experiments()?;
            let which = match known.as_slice() {
                [] => "none has finished here yet: run its sweep first".to_owned(),
                known => format!("name one of {}", known.join(", ")),
            };
            return Err(told(format!("there is no experiment {name:?}; {which}")));
        };
        let remedy = "run the sweep again, which writes it anew";
        let experiment = Experiment::parse(bytes).map_err(|why| told(format!("{why}; {remedy}")))?;
        if experiment.name != name {
            return Err(told(format!("it is the manifest of {:?}; {remedy}", experiment.name)));
        }
        Ok(experiment)
    }

    /// Names of the experiments that have a manifest, sorted.
    pub fn experiments(&self) -> Result<Vec<String>, StoreError> {
        let names = entries(&self.at(Path::new("results")))?;
        let names = names.iter().map(|entry| PathBuf::from(entry.file_name()).display().to_string());
        Ok(names.filter_map(|name| name.strip_suffix(".manifest.json").map(str::to_owned)).collect())
    }
}
