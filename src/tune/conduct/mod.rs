//! Studies as runs of one job: references first, then trials, then the winners with fresh seeds.
//!
//! A [`Conductor`] proposes runs to [`sweep::run_and_grow`](crate::sweep::run_and_grow). Everything it does
//! follows from the studies' journals and from what runs came to, so that a job which was killed goes on where
//! it was: a run that the store has is told at once, a trial that its journal has is not asked for.

mod references;
mod trials;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

pub use self::references::TRIALS;
use self::trials::OpenTrial;
use super::journal::Journal;
use super::objective::Estimate;
use super::reference::{FIRST_DRAWS, Next, Reference, Rounds};
use super::space::Params;
use super::study::{End, Outcome, Study, Trial};
use super::trial::Method;
use crate::config::tune::{StudySpec, TuneExperiment};
use crate::config::{Experiment, canonical_json, posterior_json};
use crate::store::{Guard, Hash, RUN, Ref, Store};
use crate::sweep::{Cut, Partial, Plan, PlannedRun, Proposer, RunReport, RunState, SweepError};

/// Runs of a winner with fresh seeds.
pub const FRESH_RUNS: usize = 4;
/// Study attribute: whether the same file would give the same trials again.
const REPRODUCIBLE: &str = "reproducible";

/// What the command says beside the file.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Relative standard error that a reference must come to.
    pub accuracy: f64,
    /// Go on with a reference that did not.
    pub allow_rough: bool,
    /// Presets of the user's.
    pub presets: Option<PathBuf>,
}

/// What a run is for.
#[derive(Clone, Debug)]
enum Job {
    /// A round of a problem's reference, of so many draws.
    Reference(usize, usize),
    /// A study's trial.
    Trial(usize, Box<OpenTrial>),
    /// A study's winner again.
    Fresh(usize, usize),
}

/// How far a problem's reference is.
#[derive(Clone, Debug)]
enum Search {
    /// A round of so many draws is to be proposed.
    Wanted(Rounds, usize),
    /// It is under way.
    Waiting(Rounds),
    /// It is there.
    Found(Box<Reference>),
    /// There is none.
    Refused,
}

#[derive(Debug)]
struct ProblemState {
    /// `p_` and 12 hex digits.
    name: String,
    search: Search,
}

/// A run of a winner's settings with a fresh seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Fresh {
    /// λ̂
    pub llc: f64,
    /// The study's objectives.
    pub values: Vec<f64>,
}

/// A study and what it needs.
#[derive(Debug)]
pub struct StudyState {
    /// `p_<12>:<method>`.
    pub name: String,
    /// Index of the problem.
    pub problem: usize,
    /// Index of the method.
    pub method: usize,
    /// The study; `None` until its reference is there.
    pub study: Option<Study>,
    /// What trials are compared with: the problem's reference when the study began.
    pub reference: Option<Estimate>,
    /// Why that is rough, where it is.
    pub rough: Option<String>,
    /// Most expected work of a trial.
    pub cap: Option<f64>,
    /// Core seconds of a full-data gradient evaluation, as the study has them from its beginning.
    pub rate: Option<f64>,
    /// Seconds of a trial's budget, as the file had them when the study began.
    pub trial_sec: Option<f64>,
    /// Whether the file has another budget by now than the study keeps.
    pub keeps_budget: bool,
    /// Whether the same file and rate would give the same trials again: no other clock has decided anything.
    pub reproducible: bool,
    /// What the winner's settings come to with fresh seeds, or why there is nothing.
    pub fresh: Vec<Option<Result<Fresh, String>>>,
    /// Work of those runs in full-data gradient evaluations.
    pub fresh_fge: f64,
    /// Why it could not begin or be finished.
    pub trouble: Option<String>,
    journal: Option<Journal>,
    /// Nobody else writes the journal.
    guard: Option<Guard>,
    fresh_asked: bool,
}

impl StudyState {
    /// The completed trial that is best: with two objectives the one of least error.
    pub fn winner(&self) -> Option<&Trial> {
        let study = self.study.as_ref()?;
        study.best().or_else(|| {
            let error = |trial: &Trial| match trial.outcome.as_ref().map(|o| &o.end) {
                Some(End::Complete(values)) => values[0],
                _ => f64::INFINITY,
            };
            study.front().into_iter().min_by(|a, b| error(a).total_cmp(&error(b)))
        })
    }

    /// Mean λ̂ of the fresh runs, and half the width of its 95 % interval.
    pub fn fresh_estimate(&self) -> Option<(f64, f64)> {
        self.fresh_mean(|run| Some(run.llc))
    }

    /// How far that mean is from a reference, relative to it.
    pub fn off(&self, reference: Estimate) -> Option<f64> {
        self.fresh_estimate().map(|(llc, _)| (llc - reference.llc).abs() / reference.llc.abs())
    }

    /// Work of its trials and fresh runs in full-data gradient evaluations.
    pub fn work(&self) -> f64 {
        let Some(study) = &self.study else { return 0.0 };
        let of = |trial: &Trial| {
            let outcome = trial.outcome.as_ref().filter(|_| trial.twin.is_none())?;
            outcome.notes.get("fge").and_then(Value::as_f64)
        };
        study.trials()[..study.settled()].iter().filter_map(of).sum::<f64>() + self.fresh_fge
    }

    /// The same of their objectives: what the best value would be without having been chosen for it.
    pub fn fresh_values(&self) -> Option<Vec<(f64, f64)>> {
        let count = self.study.as_ref()?.spec().objective.values();
        (0..count).map(|i| self.fresh_mean(|run| run.values.get(i).copied())).collect()
    }

    /// Of a figure of the fresh runs the mean and t·s/√K by the scatter of the K runs alone, which no choice among
    /// trials has touched. `None` before all of them have ended well.
    fn fresh_mean(&self, figure: impl Fn(&Fresh) -> Option<f64>) -> Option<(f64, f64)> {
        /// 97.5 % quantile of Student's t with 3 degrees of freedom.
        const T: f64 = 3.182_446_305_284_263;
        let runs: Vec<f64> =
            self.fresh.iter().map(|f| figure(f.as_ref()?.as_ref().ok()?)).collect::<Option<_>>()?;
        if runs.len() != FRESH_RUNS {
            return None;
        }
        let k = runs.len() as f64;
        let mean = runs.iter().sum::<f64>() / k;
        let variance = runs.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (k - 1.0);
        Some((mean, T * (variance / k).sqrt()))
    }

    /// Reasons of failed trials with how often each came up, the most frequent first. Those that differ in their
    /// numbers only are one, as the first has it.
    pub fn reasons(&self) -> Vec<(&str, usize)> {
        let mut counts: BTreeMap<String, (&str, usize)> = BTreeMap::new();
        for trial in self.study.iter().flat_map(|study| &study.trials()[..study.settled()]) {
            if let Some(End::Failed(reason)) = trial.outcome.as_ref().map(|o| &o.end) {
                let words = reason.replace(|c: char| c.is_ascii_digit() || "+-.".contains(c), "");
                counts.entry(words).or_insert((reason, 0)).1 += 1;
            }
        }
        let mut found: Vec<_> = counts.into_values().collect();
        found.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        found
    }

    /// Trials settled, and those among them that failed and that were given up.
    pub fn counts(&self) -> (usize, usize, usize) {
        let Some(study) = &self.study else { return (0, 0, 0) };
        let settled = &study.trials()[..study.settled()];
        let failed = |t: &&Trial| matches!(t.outcome.as_ref().map(|o| &o.end), Some(End::Failed(_)));
        let pruned = |t: &&Trial| matches!(t.outcome.as_ref().map(|o| &o.end), Some(End::Pruned));
        (settled.len(), settled.iter().filter(failed).count(), settled.iter().filter(pruned).count())
    }
}

/// Carries out all studies of a tune file.
#[derive(Debug)]
pub struct Conductor<'a> {
    store: &'a Store,
    tune: &'a TuneExperiment,
    settings: &'a Settings,
    spec: StudySpec,
    problems: Vec<ProblemState>,
    studies: Vec<StudyState>,
    jobs: BTreeMap<usize, Job>,
}

/// Where trials of a study lie below the root: `artifacts/runs/p_…/<method>`.
pub fn trials_dir(problem: &str, method: &str) -> PathBuf {
    Path::new("artifacts/runs").join(problem).join(method)
}

/// The plan of a tune file's targets, without runs.
///
/// # Errors
/// As [`Plan::new`], and a posterior that samples some parameters only, which tuning does not understand.
pub fn plan(tune: &TuneExperiment) -> Result<Plan, SweepError> {
    for (index, problem) in tune.problems.iter().enumerate() {
        if problem.posterior.parameters.is_some() {
            let why = format!(
                "{}: problems[{index}].posterior.parameters: `tune` samples all parameters; remove it",
                problem.place
            );
            return Err(SweepError::Proposer { why, usage: true });
        }
    }
    Plan::new(&Experiment {
        name: tune.name.clone(),
        targets: tune.targets.clone(),
        runs: Vec::new(),
        root: tune.root.clone(),
        execution: tune.execution.clone(),
        notices: Vec::new(),
    })
}

/// `p_` and 12 hex digits of a problem: a hash of its target's id and its posterior.
pub fn problem_name(tune: &TuneExperiment, plan: &Plan, index: usize) -> String {
    let posterior = posterior_json(&tune.problems[index].posterior, None);
    let target = &plan.targets[tune.problems[index].target];
    let text = canonical_json(&json!([target.id.to_string(), posterior]));
    format!("p_{}", Hash::of(text.as_bytes()).short(12))
}

impl<'a> Conductor<'a> {
    /// Before anything is run.
    pub fn new(store: &'a Store, tune: &'a TuneExperiment, plan: &Plan, settings: &'a Settings) -> Self {
        let mut problems = Vec::new();
        let mut studies = Vec::new();
        for index in 0..tune.problems.len() {
            let name = problem_name(tune, plan, index);
            for (method, space) in tune.methods.iter().enumerate() {
                studies.push(StudyState {
                    name: format!("{name}:{}", space.method),
                    problem: index,
                    method,
                    study: None,
                    reference: None,
                    rough: None,
                    cap: None,
                    rate: None,
                    trial_sec: None,
                    keeps_budget: false,
                    reproducible: true,
                    fresh: vec![None; FRESH_RUNS],
                    fresh_fge: 0.0,
                    trouble: None,
                    journal: None,
                    guard: None,
                    fresh_asked: false,
                });
            }
            let rounds = Rounds::new(settings.accuracy, tune.budget);
            problems.push(ProblemState { name, search: Search::Wanted(rounds, FIRST_DRAWS) });
        }
        Self { store, tune, settings, spec: tune.study.clone(), problems, studies, jobs: BTreeMap::new() }
    }

    /// All studies, problem by problem.
    pub fn studies(&self) -> &[StudyState] {
        &self.studies
    }

    /// A problem's name and its reference, where there is one.
    pub fn problem(&self, index: usize) -> (&str, Option<&Reference>) {
        let problem = &self.problems[index];
        match &problem.search {
            Search::Found(reference) => (&problem.name, Some(reference)),
            _ => (&problem.name, None),
        }
    }

    /// Settings of a study's trial as they were run: its parameters, and what the budget lowered.
    pub fn settings_of(&self, plan: &Plan, study: &StudyState, params: &Params) -> Option<Params> {
        self.method(plan, study).run(params, "settings").ok().map(|run| run.settings)
    }

    /// A clock has decided something in a study: it is not the same another time.
    fn by_clock(&mut self, s: usize) -> Result<(), SweepError> {
        let state = &mut self.studies[s];
        if let Some(journal) = state.journal.as_mut().filter(|_| std::mem::take(&mut state.reproducible)) {
            journal.set_attribute(REPRODUCIBLE, &Value::Bool(false))?;
        }
        Ok(())
    }

    fn method<'b>(&'b self, plan: &'b Plan, study: &'b StudyState) -> Method<'b> {
        let target = &plan.targets[self.tune.problems[study.problem].target];
        Method {
            study: &study.name,
            method: &self.tune.methods[study.method].method,
            precision: self.tune.precision,
            presets: self.settings.presets.as_deref(),
            target,
            cap: study.cap,
        }
    }
}

/// Core seconds of a run on record.
fn seconds_of(record: Option<&Ref>) -> Option<f64> {
    record.and_then(|record| record.details["provenance"]["seconds"].as_f64())
}

impl Proposer for Conductor<'_> {
    fn propose(&mut self, plan: &Plan) -> Result<Vec<PlannedRun>, SweepError> {
        self.begin(plan)?;
        let mut found = Vec::new();
        for p in 0..self.problems.len() {
            let Search::Wanted(rounds, draws) = &self.problems[p].search else { continue };
            let rounds = rounds.clone();
            match self.round(plan, p, &rounds, *draws) {
                Ok((draws, run)) => {
                    found.push((Job::Reference(p, draws), run));
                    self.problems[p].search = Search::Waiting(rounds);
                }
                Err(why) => self.refuse(p, format!("its reference cannot be run: {why}")),
            }
        }
        for s in 0..self.studies.len() {
            self.ask(plan, s, &mut found)?;
        }
        let (jobs, runs): (Vec<Job>, Vec<PlannedRun>) = found.into_iter().unzip();
        self.jobs.extend(jobs.into_iter().enumerate().map(|(k, job)| (plan.runs.len() + k, job)));
        Ok(runs)
    }

    fn passes(&mut self, plan: &Plan, index: usize, partial: &Partial<'_>) -> Result<bool, SweepError> {
        match self.jobs.get(&index) {
            Some(Job::Trial(s, open)) => {
                let (s, open) = (*s, open.clone());
                self.goes_on(plan, index, (s, &open), partial)
            }
            Some(&Job::Reference(p, _)) => Ok(self.affords(p, index, partial)),
            _ => Ok(true),
        }
    }

    fn ended(&mut self, plan: &Plan, index: usize, report: &RunReport) -> Result<(), SweepError> {
        let Some(job) = self.jobs.remove(&index) else { return Ok(()) };
        let record = self.store.read_ref(RUN, &Hash(plan.runs[index].id.0))?;
        match job {
            Job::Reference(p, draws) => {
                let Search::Waiting(rounds) = &self.problems[p].search else { return Ok(()) };
                let mut rounds = rounds.clone();
                let next = match &report.state {
                    RunState::Done(analysis) => {
                        let name = self.problems[p].name.clone();
                        rounds.after(&name, draws, analysis, seconds_of(record.as_ref()))
                    }
                    RunState::Failed(failure) => Err(failure.reason.clone()),
                    RunState::Cut(Cut::Late(seconds)) => Err(format!(
                        "a round took {seconds:.3} s, more than three times the {} s of its budget; raise \
                         execution.budget.hmc_sec",
                        self.tune.budget.hmc_sec.unwrap_or_default()
                    )),
                    // Told when it was given up.
                    RunState::Cut(Cut::AtGate(_)) => return Ok(()),
                };
                match next {
                    Ok(Next::Round(draws)) => self.problems[p].search = Search::Wanted(rounds, draws),
                    Ok(Next::Reference(reference)) => self.refer(plan, p, *reference)?,
                    Err(why) => self.refuse(p, format!("its reference failed: {why}")),
                }
            }
            Job::Trial(s, open) => {
                let run_id = plan.runs[index].id.to_string();
                let outcome = match &report.state {
                    RunState::Done(analysis) => self.outcome(plan, s, &open, analysis, record.as_ref())?,
                    RunState::Failed(failure) if failure.settled => {
                        Outcome { notes: open.notes(&run_id), ..Outcome::failed(failure.reason.clone()) }
                    }
                    RunState::Cut(Cut::Late(seconds)) => {
                        self.by_clock(s)?;
                        let reason = format!(
                            "timed_out: {seconds:.3} s, more than three times the {} s of its budget",
                            self.studies[s].trial_sec.unwrap_or_default()
                        );
                        Outcome { notes: open.notes(&run_id), ..Outcome::failed(reason) }
                    }
                    RunState::Failed(failure) => {
                        // Not its numbers: the next launch tries it again, and the study waits for it.
                        let why =
                            format!("trial {} failed by its surroundings: {}", open.number, failure.reason);
                        self.studies[s].trouble = Some(why);
                        return Ok(());
                    }
                    // Told when it was given up.
                    RunState::Cut(Cut::AtGate(_)) => return Ok(()),
                };
                let seconds = seconds_of(record.as_ref()).or(Some(report.seconds)).filter(|s| *s > 0.0);
                self.settle(s, open.number, outcome, seconds)?;
            }
            Job::Fresh(s, k) => {
                let fresh = match &report.state {
                    RunState::Done(analysis) => {
                        self.studies[s].fresh_fge += analysis.fge_warmup + analysis.fge_sampling;
                        self.fresh(s, analysis, record.as_ref())?
                    }
                    RunState::Failed(failure) => Err(failure.reason.clone()),
                    RunState::Cut(why) => Err(why.to_string()),
                };
                self.studies[s].fresh[k] = Some(fresh);
            }
        }
        Ok(())
    }
}
