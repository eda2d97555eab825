//! Studies as runs of one job: references first, then trials, then the winners with fresh seeds.
//!
//! A [`Conductor`] proposes runs to [`sweep::run_and_grow`](crate::sweep::run_and_grow). Everything it does
//! follows from the studies' journals and from what runs came to, so that a job which was killed goes on where
//! it was: a run that the store has is told at once, a trial that its journal has is not asked for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::journal::{Journal, JournalError, journal_path};
use super::objective::{Estimate, Measured, values};
use super::reference::{FIRST_DRAWS, Next, Reference, Rounds, fge_of};
use super::space::{Params, Space};
use super::study::{End, Outcome, Proposal, Study, Trial};
use super::trial::{Method, TrialRun, way};
use crate::config::tune::{Cost, Objective, Pruner, Scalar, StudySpec, TuneExperiment, trial_sampler};
use crate::config::{Experiment, canonical_json, posterior_json};
use crate::diagnostics::Analysis;
use crate::io::netcdf;
use crate::store::{Hash, RUN, Ref, Store};
use crate::sweep::{Plan, PlannedRun, Proposer, RunReport, RunState, SweepError};

/// Runs of a winner with fresh seeds.
pub const FRESH_RUNS: usize = 4;
/// Study attributes.
const BASE: &str = "preset";
const REFERENCE: &str = "reference_llc";
const REFERENCE_MCSE: &str = "reference_mcse";
const CAP: &str = "trial_fge";

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
    Trial(usize, Box<(usize, TrialRun)>),
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

/// A study and what it needs.
#[derive(Debug)]
pub struct StudyState {
    /// `p_<12>:<method>`.
    pub name: String,
    /// Index of the problem, which is that of its target in the plan.
    pub problem: usize,
    /// Index of the method.
    pub method: usize,
    /// The study; `None` until its reference is there.
    pub study: Option<Study>,
    /// What trials are compared with.
    pub reference: Option<Estimate>,
    /// Most expected work of a trial.
    pub cap: Option<f64>,
    /// λ̂ of the winner's settings with fresh seeds, or why there is none.
    pub fresh: Vec<Option<Result<f64, String>>>,
    /// Work of those runs in full-data gradient evaluations.
    pub fresh_fge: f64,
    /// Why it could not begin or be finished.
    pub trouble: Option<String>,
    journal: Option<Journal>,
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

    /// Mean λ̂ of the fresh runs, and half the width of its 95 % interval: t·s/√K by the scatter of the K runs
    /// alone, which no choice among trials has touched. `None` before all of them have ended well.
    pub fn fresh_estimate(&self) -> Option<(f64, f64)> {
        /// 97.5 % quantile of Student's t with 3 degrees of freedom.
        const T: f64 = 3.182_446_305_284_263;
        let runs: Vec<f64> =
            self.fresh.iter().map(|f| f.as_ref()?.as_ref().ok().copied()).collect::<Option<_>>()?;
        if runs.len() != FRESH_RUNS {
            return None;
        }
        let k = runs.len() as f64;
        let mean = runs.iter().sum::<f64>() / k;
        let variance = runs.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (k - 1.0);
        Some((mean, T * (variance / k).sqrt()))
    }

    /// Trials settled, and those among them that failed.
    pub fn counts(&self) -> (usize, usize) {
        let Some(study) = &self.study else { return (0, 0) };
        let settled = &study.trials()[..study.settled()];
        let failed = |t: &&Trial| matches!(t.outcome.as_ref().map(|o| &o.end), Some(End::Failed(_)));
        (settled.len(), settled.iter().filter(failed).count())
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
                problem.target.place
            );
            return Err(SweepError::Proposer { why, usage: true });
        }
    }
    Plan::new(&Experiment {
        name: tune.name.clone(),
        targets: tune.problems.iter().map(|p| p.target.clone()).collect(),
        runs: Vec::new(),
        root: tune.root.clone(),
        execution: tune.execution.clone(),
        notices: Vec::new(),
    })
}

/// `p_` and 12 hex digits of a problem: a hash of its target's id and its posterior.
pub fn problem_name(tune: &TuneExperiment, plan: &Plan, index: usize) -> String {
    let posterior = posterior_json(&tune.problems[index].posterior, None);
    let text = canonical_json(&json!([plan.targets[index].id.to_string(), posterior]));
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
                    cap: None,
                    fresh: vec![None; FRESH_RUNS],
                    fresh_fge: 0.0,
                    trouble: None,
                    journal: None,
                    fresh_asked: false,
                });
            }
            let rounds = Rounds::new(settings.accuracy, tune.budget);
            problems.push(ProblemState { name, search: Search::Wanted(rounds, FIRST_DRAWS) });
        }
        // Trials are run whole.
        let spec = StudySpec { pruner: Pruner::None, ..tune.study.clone() };
        Self { store, tune, settings, spec, problems, studies, jobs: BTreeMap::new() }
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

    fn method<'b>(&'b self, plan: &Plan, study: &'b StudyState) -> Method<'b> {
        let target = &plan.targets[study.problem];
        Method {
            study: &study.name,
            method: &self.tune.methods[study.method].method,
            precision: self.tune.precision,
            presets: self.settings.presets.as_deref(),
            rows: target.rows,
            dim: target.dim,
            cap: study.cap,
        }
    }

    /// The reference of a problem, cached or in its first round.
    fn begin(&mut self, plan: &Plan) -> Result<(), SweepError> {
        for p in 0..self.problems.len() {
            if !matches!(self.problems[p].search, Search::Wanted(_, FIRST_DRAWS)) {
                continue;
            }
            let bytes = self.store.read_file(&Reference::path(&self.problems[p].name))?;
            let known = bytes.and_then(|bytes| serde_json::from_slice::<Reference>(&bytes).ok());
            let id = plan.targets[p].id.to_string();
            if let Some(known) = known.filter(|r| r.target_id == id && r.serves(self.settings.accuracy)) {
                self.refer(plan, p, known)?;
            }
        }
        Ok(())
    }

    /// A problem has its reference: its studies begin or go on.
    fn refer(&mut self, plan: &Plan, p: usize, reference: Reference) -> Result<(), SweepError> {
        let mut bytes = serde_json::to_vec_pretty(&reference)?;
        bytes.push(b'\n');
        self.store.write_file(&Reference::path(&self.problems[p].name), &bytes)?;
        if let Some(reason) = reference.reason.as_ref().filter(|_| !reference.converged) {
            if !self.settings.allow_rough {
                let why = format!(
                    "its reference is too rough: {reason}; raise execution.budget (hmc_fge or hmc_sec), or accept it \
                     with --allow-rough-reference"
                );
                self.refuse(p, why);
                return Ok(());
            }
            log::warn!("{}: the reference is rough: {reason}", self.problems[p].name);
        }
        for s in 0..self.studies.len() {
            if self.studies[s].problem == p {
                self.open(plan, s, &reference)?;
            }
        }
        self.problems[p].search = Search::Found(Box::new(reference));
        Ok(())
    }

    fn refuse(&mut self, p: usize, why: String) {
        for study in self.studies.iter_mut().filter(|study| study.problem == p) {
            study.trouble = Some(why.clone());
        }
        self.problems[p].search = Search::Refused;
    }

    /// Opens a study's journal. What was written there of its reference and budget stays.
    fn open(&mut self, plan: &Plan, s: usize, reference: &Reference) -> Result<(), SweepError> {
        let budget = self.tune.budget;
        let cap = fge_of(budget.trial_fge, budget.trial_sec, reference.seconds_per_fge);
        let (name, method) = (self.studies[s].name.clone(), &self.tune.methods[self.studies[s].method]);
        let base = trial_sampler(
            &method.method,
            &Params::new(),
            0,
            self.tune.precision,
            self.settings.presets.as_deref(),
        );
        let base = base
            .map_or(Value::Null, |spec| Hash::of(canonical_json(&json!(spec)).as_bytes()).short(12).into());
        let attributes = Map::from_iter([
            ("problem".to_owned(), json!(plan.targets[self.studies[s].problem].label)),
            ("target_id".to_owned(), json!(reference.target_id)),
            ("method".to_owned(), json!(method.method)),
            (BASE.to_owned(), base.clone()),
            (REFERENCE.to_owned(), json!(reference.llc)),
            (REFERENCE_MCSE.to_owned(), json!(reference.mcse)),
            ("reference_exact".to_owned(), json!(reference.exact)),
            ("seconds_per_fge".to_owned(), json!(reference.seconds_per_fge)),
            (CAP.to_owned(), json!(cap)),
            ("reproducible".to_owned(), json!(!by_clock(&self.spec.objective))),
        ]);
        let refused = |why: String| SweepError::Proposer { why, usage: true };
        let space = Space::new(&method.dimensions)
            .map_err(|e| refused(format!("search_space.{}: {e}", method.method)))?;
        let opened = Journal::open(self.store, &journal_path(&name), &name, space, &self.spec, &attributes);
        let (journal, study) = opened.map_err(journal_error)?;
        if journal.attribute(BASE) != Some(&base) {
            return Err(refused(format!(
                "{}: the study {name} in it was made with another preset of {} or another precision; move the file \
                 away, or go back to those",
                journal_path(&name).display(),
                method.method
            )));
        }
        let number = |key: &str| journal.attribute(key).and_then(Value::as_f64);
        let state = &mut self.studies[s];
        state.reference =
            number(REFERENCE).zip(number(REFERENCE_MCSE)).map(|(llc, mcse)| Estimate { llc, mcse });
        state.cap = number(CAP);
        (state.journal, state.study) = (Some(journal), Some(study));
        Ok(())
    }

    /// Tells a study, and writes what follows.
    fn tell(&mut self, s: usize, number: usize, outcome: Outcome) -> Result<(), SweepError> {
        let state = &mut self.studies[s];
        let (Some(study), Some(journal)) = (&mut state.study, &mut state.journal) else { return Ok(()) };
        let told = study.tell(number, outcome);
        told.map_err(|e| SweepError::Proposer { why: format!("{}: {e}", state.name), usage: false })?;
        Ok(journal.write(study)?)
    }

    /// The runs that study `s` wants now.
    fn ask(&mut self, plan: &Plan, s: usize, found: &mut Vec<(Job, PlannedRun)>) -> Result<(), SweepError> {
        while let Some(proposal) = self.studies[s].study.as_mut().and_then(Study::ask) {
            let state = &self.studies[s];
            let posterior = &self.tune.problems[state.problem].posterior;
            let trial = self.method(plan, state).run(&proposal.params, &format!("trial {}", proposal.number));
            let run = trial.and_then(|trial| {
                let run = plan.run_on(state.problem, &trial.sampler, posterior).map_err(|e| e.to_string())?;
                Ok((trial, run))
            });
            match run {
                Ok((trial, run)) => {
                    self.write_manifest(plan, s, &proposal, &trial, &run)?;
                    found.push((Job::Trial(s, Box::new((proposal.number, trial))), run));
                }
                Err(reason) => {
                    let outcome = Outcome::failed(reason);
                    self.write_metrics(s, &proposal.id, &outcome, None)?;
                    self.tell(s, proposal.number, outcome)?;
                }
            }
        }
        let state = &self.studies[s];
        if state.study.as_ref().is_some_and(Study::is_done) && !state.fresh_asked {
            if let Some(winner) = state.winner() {
                let posterior = &self.tune.problems[state.problem].posterior;
                for k in 0..FRESH_RUNS {
                    let what = format!("fresh {k} of {}", winner.id);
                    let run = self.method(plan, state).run(&winner.params, &what).map_err(|why| {
                        SweepError::Proposer { why: format!("{}: {why}", state.name), usage: false }
                    })?;
                    found.push((Job::Fresh(s, k), plan.run_on(state.problem, &run.sampler, posterior)?));
                }
            }
            self.studies[s].fresh_asked = true;
        }
        Ok(())
    }

    fn write_manifest(
        &self,
        plan: &Plan,
        s: usize,
        proposal: &Proposal,
        trial: &TrialRun,
        run: &PlannedRun,
    ) -> Result<(), SweepError> {
        let state = &self.studies[s];
        let manifest = json!({
            "trial_id": proposal.id, "study": state.name, "number": proposal.number,
            "problem": self.problems[state.problem].name, "target_id": plan.targets[run.target].id.to_string(),
            "target": plan.targets[run.target].label, "method": self.tune.methods[state.method].method,
            "params": proposal.params, "cut": trial.cut, "sampler": trial.sampler, "run_id": run.id.to_string(),
            "expected_fge": trial.expected_fge, "trial_fge": state.cap,
        });
        self.write_json(s, &proposal.id, "manifest.json", &manifest)
    }

    fn write_metrics(
        &self,
        s: usize,
        id: &str,
        outcome: &Outcome,
        seconds: Option<f64>,
    ) -> Result<(), SweepError> {
        let (state, values, reason) = match &outcome.end {
            End::Complete(values) => ("complete", json!(values), Value::Null),
            End::Pruned => ("pruned", Value::Null, Value::Null),
            End::Failed(reason) => ("failed", Value::Null, json!(reason)),
        };
        let reference = self.studies[s].reference;
        let mut metrics = json!({
            "state": state, "values": values, "reason": reason, "seconds": seconds,
            "reference_llc": reference.map(|r| r.llc), "reference_mcse": reference.map(|r| r.mcse),
            "trial_fge": self.studies[s].cap,
        });
        for (key, value) in &outcome.notes {
            metrics[key] = value.clone();
        }
        self.write_json(s, id, "metrics.json", &metrics)
    }

    fn write_json(&self, s: usize, id: &str, name: &str, value: &Value) -> Result<(), SweepError> {
        let state = &self.studies[s];
        let dir = trials_dir(&self.problems[state.problem].name, &self.tune.methods[state.method].method);
        let mut bytes = serde_json::to_vec_pretty(value)?;
        bytes.push(b'\n');
        Ok(self.store.write_file(&dir.join(id).join(name), &bytes)?)
    }

    /// What a trial's run is worth.
    fn outcome(
        &self,
        s: usize,
        trial: &TrialRun,
        analysis: &Analysis,
        record: Option<&Ref>,
    ) -> Result<Outcome, SweepError> {
        let objective = &self.spec.objective;
        let work = analysis.fge_warmup + analysis.fge_sampling;
        let seconds = seconds_of(record);
        let mut notes = BTreeMap::new();
        let mut note = |key: &str, value: Value| {
            if !value.is_null() {
                notes.insert(key.to_owned(), value);
            }
        };
        note("llc", json!(analysis.llc_mean));
        note("llc_mcse", json!(analysis.llc_mcse));
        note("r_hat", json!(analysis.r_hat));
        note("ess", json!(analysis.ess_mean));
        note("fge", json!(work));
        note("expected_fge", json!(trial.expected_fge));
        note("verdict", json!(analysis.verdict.to_string()));
        note("run_id", json!(analysis.run_id));
        if !trial.cut.is_empty() {
            note("cut", json!(trial.cut));
        }
        let failed = |reason: String, notes| Outcome { notes, ..Outcome::failed(reason) };
        let (Some(llc), Some(reference)) = (analysis.llc_mean, self.studies[s].reference) else {
            return Ok(failed("its λ̂ is no number".to_owned(), notes));
        };
        notes.insert("error".to_owned(), json!(llc - reference.llc));
        let mut path = Vec::new();
        if let (Objective::WorkToAccuracy { cost, .. }, Some(hash)) =
            (objective, record.and_then(|r| r.objects.get("trace.nc")))
        {
            let (trace, _) = netcdf::read_trace(&self.store.get(hash)?)?;
            path = way(&trace, analysis.fge_warmup, analysis.fge_sampling);
            if let (Cost::Seconds, Some(seconds)) = (cost, seconds) {
                path.iter_mut().for_each(|p| p.cost *= seconds / work);
            }
        }
        let measured = Measured {
            estimate: Estimate { llc, mcse: analysis.llc_mcse.unwrap_or(f64::NAN) },
            fge: work,
            seconds: seconds.unwrap_or(f64::NAN),
            way: &path,
        };
        Ok(match values(objective, &measured, reference) {
            Ok(values) => Outcome { notes, ..Outcome::complete(&values) },
            Err(error) => failed(error.to_string(), notes),
        })
    }
}

/// Whether no two runs of the study agree, its objective being a clock's.
fn by_clock(objective: &Objective) -> bool {
    matches!(
        objective,
        Objective::WorkToAccuracy { cost: Cost::Seconds, .. } | Objective::Pareto { cost: Cost::Seconds, .. }
    )
}

/// Core seconds of a run on record.
fn seconds_of(record: Option<&Ref>) -> Option<f64> {
    record.and_then(|record| record.details["provenance"]["seconds"].as_f64())
}

fn journal_error(error: JournalError) -> SweepError {
    match error {
        JournalError::Store(error) => SweepError::Store(error),
        JournalError::Damaged { .. } => SweepError::Proposer { why: error.to_string(), usage: false },
        JournalError::Other { .. } | JournalError::Study { .. } => {
            SweepError::Proposer { why: error.to_string(), usage: true }
        }
    }
}

impl Proposer for Conductor<'_> {
    fn propose(&mut self, plan: &Plan) -> Result<Vec<PlannedRun>, SweepError> {
        self.begin(plan)?;
        let mut found = Vec::new();
        for p in 0..self.problems.len() {
            let Search::Wanted(rounds, draws) = &self.problems[p].search else { continue };
            let draws = *draws;
            let params = Params::from([("draws".to_owned(), Scalar::Int(draws as i64))]);
            let name = &self.problems[p].name;
            let seed = super::trial::seed(name, "reference");
            let rounds = rounds.clone();
            // The built-in preset: a reference depends on no preset of the user's.
            let run = trial_sampler("nuts", &params, seed, None, None).map_err(|e| e.to_string()).and_then(
                |spec| plan.run_on(p, &spec, &self.tune.problems[p].posterior).map_err(|e| e.to_string()),
            );
            match run {
                Ok(run) => {
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
                };
                match next {
                    Ok(Next::Round(draws)) => self.problems[p].search = Search::Wanted(rounds, draws),
                    Ok(Next::Reference(reference)) => self.refer(plan, p, *reference)?,
                    Err(why) => self.refuse(p, format!("its reference failed: {why}")),
                }
            }
            Job::Trial(s, trial) => {
                let (number, trial) = *trial;
                let outcome = match &report.state {
                    RunState::Done(analysis) => self.outcome(s, &trial, analysis, record.as_ref())?,
                    RunState::Failed(failure) if failure.settled => {
                        let notes = [("expected_fge".to_owned(), json!(trial.expected_fge))].into();
                        Outcome { notes, ..Outcome::failed(failure.reason.clone()) }
                    }
                    RunState::Failed(failure) => {
                        // Not its numbers: the next launch tries it again, and the study waits for it.
                        let why = format!("trial {number} failed by its surroundings: {}", failure.reason);
                        self.studies[s].trouble = Some(why);
                        return Ok(());
                    }
                };
                let id = self.studies[s].study.as_ref().map(|study| study.trials()[number].id.clone());
                self.write_metrics(s, &id.unwrap_or_default(), &outcome, seconds_of(record.as_ref()))?;
                self.tell(s, number, outcome)?;
            }
            Job::Fresh(s, k) => {
                let state = &mut self.studies[s];
                state.fresh[k] = Some(match &report.state {
                    RunState::Done(analysis) => {
                        state.fresh_fge += analysis.fge_warmup + analysis.fge_sampling;
                        analysis.llc_mean.ok_or_else(|| "its λ̂ is no number".to_owned())
                    }
                    RunState::Failed(failure) => Err(failure.reason.clone()),
                });
            }
        }
        Ok(())
    }
}
