//! The `runs/` tree, read from disk alone.
//!
//! A target is a directory `tgt_…` with `meta.json`; a run is a directory `run_…` inside it with
//! `manifest.json`, `trace.nc`, `analysis.json`, `timing.json`. Whatever else lies there (`promotion/`,
//! notes, pictures) is passed over. What is damaged or missing is told as a [`Trouble`], and the rest is
//! read. Links are followed where they stay below the directory that was opened, and are a trouble
//! otherwise.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::PromoteError;
use crate::config::TargetSpec;
use crate::diagnostics::Analysis;
use crate::io::netcdf;
use crate::io::npz::{self, Array};
use crate::store::{Hash, StoreError, write_below};
use crate::target::TrainingOutcome;
use crate::trace::Trace;

/// Largest JSON file that is read.
const MAX_JSON: u64 = 256 << 20;
/// Largest trace or array file that is read.
const MAX_FILE: u64 = 16 << 30;
/// The remedy for most troubles.
pub(super) const AGAIN: &str =
    "copy the directory again, or run the sweep again, which lays its files out from the store";

/// Something that one directory lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{}: {file} {what}; {remedy}", dir.display())]
pub struct Trouble {
    /// The directory of the run or target.
    pub dir: PathBuf,
    /// The file in question.
    pub file: String,
    /// What is wrong with it: `is missing`, `is damaged (…)`.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl Trouble {
    /// One with the usual remedy.
    pub fn new(dir: &Path, file: &str, what: impl Into<String>) -> Self {
        Self { dir: dir.into(), file: file.into(), what: what.into(), remedy: AGAIN.into() }
    }
}

/// `manifest.json` of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunManifest {
    /// 64 hexadecimal digits.
    pub run_id: String,
    /// `urn:lh:run:blake3:<run id>`
    pub urn: String,
    /// Id of the target.
    pub target_id: String,
    /// Label of the target, for people.
    pub target: String,
    /// Name of the sampler.
    pub sampler: String,
    /// Resolved settings: `{ "sampler": …, "posterior": … }`.
    pub config: Value,
    /// Number formats of target and sampler.
    pub precision: Precision,
    /// The run id without the number of chains and draws.
    pub stream_id: String,
    /// BLAKE3 of the files that hold content, by name.
    pub files: BTreeMap<String, String>,
    /// When, where and by what it was made.
    pub provenance: Provenance,
}

/// Number formats: `f32` or `f64`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Precision {
    /// Of the target's build.
    pub target: String,
    /// Of the sampler.
    pub sampler: String,
    /// Whether they differ.
    pub cast: bool,
}

/// When, where and by what something was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// End of the work, RFC 3339, UTC: with milliseconds, or in whole seconds where an older version wrote it.
    pub when: String,
    /// Version of the program.
    pub version: String,
    /// Commit of the program.
    pub git_sha: String,
    /// Instruction set.
    pub arithmetic: String,
    /// How the job was launched.
    pub launch: String,
    /// Machines that did the work.
    pub hosts: Vec<String>,
    /// Wall seconds of all units together.
    pub seconds: f64,
    /// What the ranks on those machines got.
    #[serde(default)]
    pub ranks: Vec<Value>,
}

/// `timing.json` of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Wall seconds of all units together, warmup and control chain included.
    pub seconds: f64,
    /// MCSE² × seconds.
    pub wnv_time: Option<f64>,
    /// Effective draws for the mean a second.
    pub ess_per_second: Option<f64>,
    /// Each unit.
    pub units: Vec<UnitTime>,
}

/// How long a unit took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnitTime {
    /// `warmup`, `chain <index>` or `control`.
    pub unit: String,
    /// Wall seconds.
    pub seconds: f64,
    /// The machine.
    pub host: String,
}

impl Timing {
    /// Wall seconds of the units before the chains, if there was any.
    pub fn warmup_seconds(&self) -> f64 {
        self.units.iter().filter(|u| u.unit == "warmup").map(|u| u.seconds).sum()
    }

    /// Wall seconds of each chain, in the order of the chains.
    pub fn chain_seconds(&self) -> Vec<f64> {
        let index = |u: &UnitTime| u.unit.strip_prefix("chain ")?.parse::<usize>().ok();
        let mut chains: Vec<(usize, f64)> =
            self.units.iter().filter_map(|u| Some((index(u)?, u.seconds))).collect();
        chains.sort_unstable_by_key(|(index, _)| *index);
        chains.into_iter().map(|(_, seconds)| seconds).collect()
    }
}

/// `meta.json` of a target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetMeta {
    /// 64 hexadecimal digits.
    pub target_id: String,
    /// `urn:lh:target:blake3:<target id>`
    pub urn: String,
    /// For people.
    pub label: String,
    /// Kind of problem: `mlp`, `dln`, ….
    pub problem: String,
    /// Resolved configuration.
    pub config: TargetSpec,
    /// Parameters.
    pub d: usize,
    /// Rows.
    pub n: usize,
    /// Widths of hidden layers, where there is a network.
    pub widths: Option<Vec<usize>>,
    /// L_n(w*), in the build's arithmetic.
    pub l0: f64,
    /// `f32` or `f64`
    pub precision: String,
    /// λ, where known.
    pub exact_lambda: Option<f64>,
    /// Its multiplicity.
    pub exact_multiplicity: Option<u32>,
    /// How training went: reason, best loss, (step, loss) pairs.
    pub training: Option<TrainingOutcome>,
    /// BLAKE3 of `data.npz` and `params.npz`.
    pub files: BTreeMap<String, String>,
    /// When, where and by what it was made.
    pub provenance: Provenance,
}

/// `results/<experiment>.manifest.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExperimentManifest {
    /// Its name.
    pub experiment: String,
    /// Its runs, in the order of its plan.
    pub runs: Vec<ExperimentRun>,
}

/// A run of an experiment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExperimentRun {
    /// Id of the run.
    pub run_id: String,
    /// Id of its target.
    pub target_id: String,
    /// Name of the sampler.
    pub sampler: String,
    /// `done` or `failed`
    pub status: String,
}

/// A directory that nothing is read or written outside of.
#[derive(Clone, Debug)]
struct Fence {
    /// Canonical.
    root: PathBuf,
}

impl Fence {
    /// Reads `dir/name`, at most `limit` bytes, checked against `hash` where there is one.
    fn read(&self, dir: &Path, name: &str, limit: u64, hash: Option<&str>) -> Result<Vec<u8>, Trouble> {
        let trouble = |what: String| Trouble::new(dir, name, what);
        let path = dir.join(name);
        let real = path.canonicalize().map_err(|e| match e.kind() {
            ErrorKind::NotFound => trouble("is missing".into()),
            _ => trouble(format!("cannot be read ({e})")),
        })?;
        if !real.starts_with(&self.root) {
            return Err(trouble(format!("is a link that leaves {}", self.root.display())));
        }
        let unreadable = |e: std::io::Error| trouble(format!("cannot be read ({e})"));
        let about = fs::metadata(&real).map_err(unreadable)?;
        if !about.is_file() {
            return Err(trouble("is no file".into()));
        }
        if about.len() > limit {
            return Err(trouble(format!("has {} bytes, more than the {limit} that are read", about.len())));
        }
        let bytes = fs::read(&real).map_err(unreadable)?;
        match hash {
            Some(hash) if Hash::of(&bytes).to_string() != hash => {
                Err(trouble("is damaged or edited (its hash is not the recorded one)".into()))
            }
            _ => Ok(bytes),
        }
    }

    fn json<T: DeserializeOwned>(&self, dir: &Path, name: &str, hash: Option<&str>) -> Result<T, Trouble> {
        let bytes = self.read(dir, name, MAX_JSON, hash)?;
        serde_json::from_slice(&bytes).map_err(|e| Trouble::new(dir, name, format!("is damaged ({e})")))
    }

    /// Writes `dir/diagnostics/name`.
    fn write(&self, dir: &Path, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let folder = dir.join("diagnostics");
        // A link of a user's to another place is not written through.
        if folder.canonicalize().is_ok_and(|real| !real.starts_with(&self.root)) {
            return Err(StoreError::Path { path: folder });
        }
        write_below(dir, &Path::new("diagnostics").join(name), bytes)
    }
}

/// A target on disk.
#[derive(Clone, Debug)]
pub struct FoundTarget {
    /// Its directory.
    pub dir: PathBuf,
    /// Its `meta.json`.
    pub meta: TargetMeta,
    fence: Fence,
}

impl FoundTarget {
    /// Reads the target in the directory `dir` alone.
    ///
    /// # Errors
    /// The [`Trouble`] with `meta.json`.
    pub fn at(dir: &Path) -> Result<Self, Trouble> {
        Self::read(dir, &fence(dir)?)
    }

    fn read(dir: &Path, fence: &Fence) -> Result<Self, Trouble> {
        let meta = fence.json(dir, "meta.json", None)?;
        Ok(Self { dir: dir.into(), meta, fence: fence.clone() })
    }

    /// Name of the directory, `tgt_…`.
    pub fn name(&self) -> String {
        last_name(&self.dir)
    }

    /// The arrays of `data.npz` (X, Y) or `params.npz` (flat), checked against the recorded hash.
    ///
    /// # Errors
    /// The [`Trouble`] with that file.
    pub fn arrays(&self, file: &str) -> Result<BTreeMap<String, Array>, Trouble> {
        let bytes =
            self.fence.read(&self.dir, file, MAX_FILE, self.meta.files.get(file).map(String::as_str))?;
        npz::read(&bytes).map_err(|e| Trouble::new(&self.dir, file, format!("is damaged ({e})")))
    }

    /// Puts a file into the target's `diagnostics/`, whole or not at all.
    ///
    /// # Errors
    /// [`StoreError::Io`] where the disk refuses, [`StoreError::Path`] where `diagnostics/` is a link to
    /// elsewhere.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.fence.write(&self.dir, name, bytes)
    }
}

/// A run on disk.
#[derive(Clone, Debug)]
pub struct FoundRun {
    /// Its directory.
    pub dir: PathBuf,
    /// Its `manifest.json`.
    pub manifest: RunManifest,
    /// Its `analysis.json`, where that is whole.
    pub analysis: Option<Analysis>,
    /// Its `timing.json`, likewise.
    pub timing: Option<Timing>,
    fence: Fence,
}

impl FoundRun {
    /// Reads the run in the directory `dir` alone, with what it lacks beside the manifest.
    ///
    /// # Errors
    /// The [`Trouble`] with `manifest.json`, without which there is no run.
    pub fn at(dir: &Path) -> Result<(Self, Vec<Trouble>), Trouble> {
        Self::read(dir, &fence(dir)?)
    }

    fn read(dir: &Path, fence: &Fence) -> Result<(Self, Vec<Trouble>), Trouble> {
        let manifest: RunManifest = fence.json(dir, "manifest.json", None)?;
        let mut troubles = Vec::new();
        let mut kept = |result: Result<(), Trouble>| troubles.extend(result.err());
        let hash = |name: &str| manifest.files.get(name).map(String::as_str);
        let mut analysis = None;
        kept(fence.json(dir, "analysis.json", hash("analysis.json")).map(|found| analysis = Some(found)));
        let mut timing = None;
        kept(fence.json(dir, "timing.json", None).map(|found| timing = Some(found)));
        if !dir.join("trace.nc").exists() {
            kept(Err(Trouble::new(dir, "trace.nc", "is missing")));
        }
        Ok((Self { dir: dir.into(), manifest, analysis, timing, fence: fence.clone() }, troubles))
    }

    /// Name of the directory, `run_<sampler>_…`.
    pub fn name(&self) -> String {
        last_name(&self.dir)
    }

    /// The bytes of `trace.nc`, checked against the recorded hash.
    ///
    /// # Errors
    /// The [`Trouble`] with it.
    pub fn trace_bytes(&self) -> Result<Vec<u8>, Trouble> {
        let hash = self.manifest.files.get("trace.nc").map(String::as_str);
        if hash.is_none() {
            // The library that reads it is not made for files that nobody vouches for.
            return Err(Trouble::new(&self.dir, "manifest.json", "records no hash of trace.nc"));
        }
        self.fence.read(&self.dir, "trace.nc", MAX_FILE, hash)
    }

    /// The draws.
    ///
    /// # Errors
    /// The [`Trouble`] with `trace.nc`.
    pub fn load_trace(&self) -> Result<Trace, Trouble> {
        let read = netcdf::read_trace(&self.trace_bytes()?);
        read.map(|(trace, _)| trace)
            .map_err(|e| Trouble::new(&self.dir, "trace.nc", format!("is damaged ({e})")))
    }

    /// What a later run is later by: finish time, and the id where two finished at once. A time that cannot be read
    /// was before all others.
    pub(super) fn age(&self) -> (Option<Timestamp>, &str) {
        (self.manifest.provenance.when.parse().ok(), &self.manifest.run_id)
    }

    /// Puts a file into the run's `diagnostics/`, whole or not at all.
    ///
    /// # Errors
    /// As [`FoundTarget::write`].
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.fence.write(&self.dir, name, bytes)
    }
}

/// All targets and runs below a root.
#[derive(Clone, Debug)]
pub struct RunsRoot {
    /// Where `results/` would lie.
    home: PathBuf,
    targets: Vec<FoundTarget>,
    runs: Vec<FoundRun>,
    troubles: Vec<Trouble>,
}

impl RunsRoot {
    /// Reads every manifest and analysis below `path`: the root of a sweep, its `runs/`, or its
    /// `runs/targets/`. Traces stay on disk.
    ///
    /// # Errors
    /// [`PromoteError::NoRuns`] where there is no such tree, [`PromoteError::List`] where it cannot be
    /// listed. What is wrong further down is among [`troubles`](Self::troubles).
    pub fn open(path: &Path) -> Result<Self, PromoteError> {
        let up = |n: usize| {
            let full = path.canonicalize().unwrap_or_else(|_| path.into());
            full.ancestors().nth(n).unwrap_or(path).to_path_buf()
        };
        let (tree, home) = if path.join("runs/targets").is_dir() {
            (path.join("runs/targets"), path.to_path_buf())
        } else if path.join("targets").is_dir() {
            (path.join("targets"), up(1))
        } else if directories(path, "tgt_").is_ok_and(|found| !found.is_empty()) {
            (path.to_path_buf(), up(2))
        } else {
            return Err(PromoteError::NoRuns { path: path.into() });
        };
        let listed = |dir: &Path, prefix| {
            directories(dir, prefix).map_err(|source| PromoteError::List { path: dir.into(), source })
        };
        let root = tree.canonicalize().map_err(|source| PromoteError::List { path: tree.clone(), source })?;
        let fence = Fence { root };
        let mut found = Self { home, targets: Vec::new(), runs: Vec::new(), troubles: Vec::new() };
        for dir in listed(&tree, "tgt_")? {
            if let Err(trouble) = found.take_target(&dir, &fence) {
                found.troubles.push(trouble);
            }
        }
        Ok(found)
    }

    fn take_target(&mut self, dir: &Path, fence: &Fence) -> Result<(), Trouble> {
        let outside = |dir: &Path| {
            let leaves = dir.canonicalize().map_or(true, |real| !real.starts_with(&fence.root));
            leaves.then(|| Trouble::new(dir, ".", format!("is a link that leaves {}", fence.root.display())))
        };
        if let Some(trouble) = outside(dir) {
            return Err(trouble);
        }
        match FoundTarget::read(dir, fence) {
            Ok(target) => self.targets.push(target),
            Err(trouble) => self.troubles.push(trouble),
        }
        let runs = directories(dir, "run_");
        for run in runs.map_err(|e| Trouble::new(dir, ".", format!("cannot be listed ({e})")))? {
            match outside(&run).map_or_else(|| FoundRun::read(&run, fence), Err) {
                Ok((run, troubles)) => {
                    self.troubles.extend(troubles);
                    self.runs.push(run);
                }
                Err(trouble) => self.troubles.push(trouble),
            }
        }
        Ok(())
    }

    /// The directory that holds `runs/` (and `results/`, where there is one).
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Every target with a `meta.json` that can be read, by name of directory.
    pub fn targets(&self) -> &[FoundTarget] {
        &self.targets
    }

    /// Every run with a manifest that can be read, by names of directories.
    pub fn runs(&self) -> &[FoundRun] {
        &self.runs
    }

    /// What is damaged or missing, and where.
    pub fn troubles(&self) -> &[Trouble] {
        &self.troubles
    }

    /// Those of one directory.
    pub fn troubles_in<'a>(&'a self, dir: &'a Path) -> impl Iterator<Item = &'a Trouble> {
        self.troubles.iter().filter(move |trouble| trouble.dir == dir)
    }

    /// The target with this id.
    pub fn target(&self, target_id: &str) -> Option<&FoundTarget> {
        self.targets.iter().find(|t| t.meta.target_id == target_id)
    }

    /// The target that `name` means: its directory's name, its id or URN, or the beginning of one that
    /// no other target shares.
    pub fn target_named(&self, name: &str) -> Option<&FoundTarget> {
        let digits = name.rsplit(':').next().unwrap_or(name).trim_start_matches("tgt_");
        let mut fitting = self
            .targets
            .iter()
            .filter(|t| t.name() == name || !digits.is_empty() && t.meta.target_id.starts_with(digits));
        let first = fitting.next()?;
        if self.targets.iter().any(|t| t.name() == name) {
            return self.targets.iter().find(|t| t.name() == name);
        }
        fitting.next().is_none().then_some(first)
    }

    /// The runs on one target.
    pub fn runs_of<'a>(&'a self, target_id: &'a str) -> impl Iterator<Item = &'a FoundRun> {
        self.runs.iter().filter(move |run| run.manifest.target_id == target_id)
    }

    /// The run with this id.
    pub fn run(&self, run_id: &str) -> Option<&FoundRun> {
        self.runs.iter().find(|run| run.manifest.run_id == run_id)
    }

    /// Of all runs of one sampler on one target, that which finished last, by its manifest.
    pub fn newest(&self, target_id: &str, sampler: &str) -> Option<&FoundRun> {
        let fitting = |m: &RunManifest| m.target_id == target_id && m.sampler == sampler;
        self.runs.iter().filter(|run| fitting(&run.manifest)).max_by(|a, b| a.age().cmp(&b.age()))
    }

    /// Names of the experiments whose manifests lie in `results/`.
    pub fn experiments(&self) -> Vec<String> {
        let entries = fs::read_dir(self.home.join("results")).into_iter().flatten().flatten();
        let name = |e: fs::DirEntry| Some(e.file_name().to_str()?.strip_suffix(".manifest.json")?.to_owned());
        let mut names: Vec<String> = entries.filter_map(name).collect();
        names.sort_unstable();
        names
    }

    /// The manifest of an experiment.
    ///
    /// # Errors
    /// [`PromoteError::NoExperiment`], with those that there are; [`PromoteError::Experiment`] for one
    /// that cannot be read.
    pub fn experiment(&self, name: &str) -> Result<ExperimentManifest, PromoteError> {
        let dir = self.home.join("results");
        let known = self.experiments();
        if !known.iter().any(|k| k == name) {
            return Err(PromoteError::NoExperiment { name: name.into(), dir, known });
        }
        let file = format!("{name}.manifest.json");
        let path = dir.join(&file);
        let home = self.home.canonicalize().unwrap_or_else(|_| self.home.clone());
        let read = Fence { root: home }.json(&dir, &file, None);
        read.map_err(|trouble| PromoteError::Experiment { path, why: trouble.what })
    }
}

/// A fence around one directory.
fn fence(dir: &Path) -> Result<Fence, Trouble> {
    let root = dir.canonicalize().map_err(|e| Trouble::new(dir, ".", format!("cannot be found ({e})")))?;
    if !root.is_dir() {
        return Err(Trouble::new(dir, ".", "is no directory"));
    }
    Ok(Fence { root })
}

/// Directories (or links to some) in `dir` whose names begin with `prefix`, in the order of their names.
fn directories(dir: &Path, prefix: &str) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) && entry.path().is_dir() {
            found.push(entry.path());
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn last_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
