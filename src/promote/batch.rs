//! Runs and targets that are diagnosed and drawn together: which they are, and the work on them.

use std::collections::BTreeSet;
use std::path::Path;

use super::figures::{self, RunCard, TargetCard};
use super::spread::{self, Files, Job, Made, SpreadError};
use super::{ExperimentManifest, ExperimentRun, FoundRun, FoundTarget, RunsRoot, Trouble};
use crate::comm::Comm;
use crate::diagnostics::Mode;
use crate::store::StoreError;

/// What is looked at.
#[derive(Clone, Debug)]
pub enum Subject {
    /// A run: `diagnosis.json` and its figures.
    Run(Box<FoundRun>),
    /// A target and those runs on it that its figures compare: `target.json`, `predictions.npz`, figures.
    Target(Box<FoundTarget>, Vec<FoundRun>),
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Runs and targets.
    pub subjects: Vec<Subject>,
    /// What is known to be wrong already.
    pub troubles: Vec<Trouble>,
    /// How much is worked out, and drawn, of each run.
    pub mode: Mode,
    /// Whether figures are drawn.
    pub figures: bool,
}

/// What became of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The JSON files of each subject, in order; none where that is told as a trouble.
    pub records: Vec<Option<Files>>,
    /// Figures that were put on disk, each as PNG and SVG.
    pub figures: usize,
    /// What was wrong, by directory and file.
    pub troubles: Vec<Trouble>,
    /// A disk that refused.
    pub refused: Option<StoreError>,
}

impl Batch {
    /// The finished runs of an experiment, or those of them that `wanted` takes by their sampler's name.
    pub fn of_experiment(
        found: &RunsRoot,
        manifest: &ExperimentManifest,
        wanted: impl Fn(&str) -> bool,
        mode: Mode,
    ) -> Self {
        let mut batch = Self { subjects: Vec::new(), troubles: Vec::new(), mode, figures: true };
        for run in manifest.runs.iter().filter(|run| wanted(&run.sampler)) {
            match found.run(&run.run_id) {
                Some(there) => {
                    batch.troubles.extend(found.troubles_in(&there.dir).cloned());
                    batch.subjects.push(Subject::Run(Box::new(there.clone())));
                }
                None if run.status == "done" => batch.troubles.push(absent(found, run)),
                // A run that failed has no trace, which the sweep has told.
                None => log::info!("run {} failed in the sweep and is passed over", run.run_id),
            }
        }
        batch
    }

    /// All targets, or those of an experiment; each with the newest run of every setting on it (of the
    /// experiment's runs, where one is named).
    pub fn of_targets(found: &RunsRoot, manifest: Option<&ExperimentManifest>) -> Self {
        let mut batch = Self { subjects: Vec::new(), troubles: Vec::new(), mode: Mode::Full, figures: true };
        let is_target =
            |t: &Trouble| t.dir.file_name().is_some_and(|n| n.to_string_lossy().starts_with("tgt_"));
        let of_tree = |t: &&Trouble| t.file == "meta.json" || t.file == "." && is_target(t);
        batch.troubles = found.troubles().iter().filter(of_tree).cloned().collect();
        let mut targets: Vec<&FoundTarget> = found.targets().iter().collect();
        let runs: Option<BTreeSet<&str>> =
            manifest.map(|m| m.runs.iter().map(|run| run.run_id.as_str()).collect());
        if let Some(manifest) = manifest {
            let wanted: BTreeSet<&str> = manifest.runs.iter().map(|run| run.target_id.as_str()).collect();
            targets.retain(|t| wanted.contains(t.meta.target_id.as_str()));
            let of_these = |t: &Trouble| {
                let dir = t.dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
                wanted.iter().any(|id| id.starts_with(dir.trim_start_matches("tgt_")))
            };
            batch.troubles.retain(of_these);
            for id in wanted {
                let short: String = id.chars().take(12).collect();
                let name = format!("tgt_{short}");
                if found.target(id).is_none() && !batch.troubles.iter().any(|t| t.dir.ends_with(&name)) {
                    let dir = found.home().join("runs/targets").join(name);
                    batch.troubles.push(Trouble::new(&dir, "the target's directory", "is missing"));
                }
            }
        }
        for target in targets {
            batch.add_target(found, target, &|run| runs.as_ref().is_none_or(|ids| ids.contains(run)));
        }
        batch
    }

    /// One target, with the newest run of every setting on it.
    pub fn of_target(found: &RunsRoot, target: &FoundTarget) -> Self {
        let mut batch = Self { subjects: Vec::new(), troubles: Vec::new(), mode: Mode::Full, figures: true };
        batch.add_target(found, target, &|_| true);
        batch
    }

    fn add_target(&mut self, found: &RunsRoot, target: &FoundTarget, wanted: &dyn Fn(&str) -> bool) {
        let runs = found.runs_of(&target.meta.target_id).filter(|run| wanted(&run.manifest.run_id));
        let runs = figures::newest_of_each_setting(runs).into_iter().cloned().collect();
        self.subjects.push(Subject::Target(Box::new(target.clone()), runs));
    }

    /// Does it on `threads` threads and all other ranks, and writes each answer into the `diagnostics/` of
    /// its subject.
    ///
    /// # Errors
    /// [`SpreadError`]: the connection between ranks failed.
    pub fn carry_out(&self, comm: &mut dyn Comm, threads: usize) -> Result<Outcome, SpreadError> {
        let mut records: Vec<Option<Files>> = self.subjects.iter().map(|_| None).collect();
        let mut loading = Vec::new();
        let mut working = Vec::new();
        let mut refused = None;
        let mut drawn = 0;
        let mut load = |index: usize| self.subjects[index].load(self, &mut loading);
        let mut done = |index: usize, answer: Result<Made, String>| {
            let subject = &self.subjects[index];
            match answer {
                Ok(Made { mut files, problems }) => {
                    for (name, bytes) in &files {
                        if let Err(error) = subject.write(name, bytes) {
                            refused.get_or_insert(error);
                        }
                    }
                    drawn += files.iter().filter(|(name, _)| name.ends_with(".png")).count();
                    // Pictures are on disk now, and would fill the memory.
                    files.retain(|(name, _)| name.ends_with(".json"));
                    records[index] = Some(files);
                    for (file, what, remedy) in problems {
                        working.push(Trouble { dir: subject.dir().into(), file, what, remedy });
                    }
                }
                Err(what) => working.push(Trouble::new(subject.dir(), subject.main_file(), what)),
            }
        };
        spread::conduct(comm, threads, self.subjects.len(), &mut load, &mut done)?;
        let mut troubles = self.troubles.clone();
        for trouble in loading.into_iter().chain(working) {
            if !troubles.iter().any(|t| t.dir == trouble.dir && t.file == trouble.file) {
                troubles.push(trouble);
            }
        }
        troubles.sort_by(|a, b| (&a.dir, &a.file).cmp(&(&b.dir, &b.file)));
        Ok(Outcome { records, figures: drawn, troubles, refused })
    }
}

/// What is wrong with a run of an experiment that the tree does not have: its directory is damaged, or
/// gone.
fn absent(found: &RunsRoot, run: &ExperimentRun) -> Trouble {
    let digits: String = run.run_id.chars().take(8).collect();
    let ending = format!("run_{}_{digits}", run.sampler);
    let begins = |t: &&Trouble| t.dir.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&ending));
    found.troubles().iter().find(begins).cloned().unwrap_or_else(|| {
        let target: String = run.target_id.chars().take(12).collect();
        let dir = found.home().join("runs/targets").join(format!("tgt_{target}")).join(ending);
        Trouble::new(&dir, "the run's directory", "is missing")
    })
}

impl Subject {
    fn dir(&self) -> &Path {
        match self {
            Subject::Run(run) => &run.dir,
            Subject::Target(target, _) => &target.dir,
        }
    }

    fn main_file(&self) -> &'static str {
        match self {
            Subject::Run(_) => "trace.nc",
            Subject::Target(..) => "data.npz",
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        match self {
            Subject::Run(run) => run.write(name, bytes),
            Subject::Target(target, _) => target.write(name, bytes),
        }
    }

    /// What is to be computed, from files that are whole; the others go among the troubles.
    fn load(&self, batch: &Batch, troubles: &mut Vec<Trouble>) -> Option<Job> {
        let mut told = |trouble: Trouble| troubles.push(trouble);
        match self {
            Subject::Run(run) => {
                let trace = run.trace_bytes().map_err(told).ok()?;
                let card = batch.figures.then(|| Box::new(RunCard::of(run)));
                Some(Job::Run { trace, mode: batch.mode, card })
            }
            Subject::Target(target, runs) => {
                let rows = target.rows().map_err(&mut told).ok().map(Box::new);
                let mut card = None;
                let mut traces = Vec::new();
                if batch.figures {
                    card = Some(Box::new(TargetCard::of(target)));
                    let shown: Vec<&FoundRun> = runs.iter().collect();
                    for (run, sampler) in runs.iter().zip(figures::setting_names(&shown)) {
                        match run.trace_bytes() {
                            Ok(bytes) => traces.push((RunCard { sampler, ..RunCard::of(run) }, bytes)),
                            Err(trouble) => told(trouble),
                        }
                    }
                }
                (rows.is_some() || card.is_some()).then_some(Job::Target { rows, card, traces })
            }
        }
    }
}
