//! Trials: asked for as runs, looked at on their way, and what they came to.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Conductor, FRESH_RUNS, Fresh, Job, seconds_of, trials_dir};
use crate::config::tune::{Cost, Objective};
use crate::diagnostics::Analysis;
use crate::io::netcdf;
use crate::store::Ref;
use crate::sweep::{Partial, Plan, PlannedRun, SweepError};
use crate::trace::Trace;
use crate::tune::objective::{Estimate, Measured, ObjectiveError, names, values};
use crate::tune::pruner::{Rule, Step};
use crate::tune::space::Params;
use crate::tune::steps::{Ladder, Yardstick, draws, is_a_guess};
use crate::tune::study::{End, Outcome, Study};
use crate::tune::trial::{TrialError, TrialRun, way};

/// A trial may take so many times the seconds of its budget.
pub(super) const LATE: f64 = 3.0;
/// A trial may take so many times the work of its budget: how long a trajectory is is up to chance.
pub(super) const OVER: f64 = 1.1;

/// A trial under way.
#[derive(Clone, Debug)]
pub(super) struct OpenTrial {
    pub(super) number: usize,
    pub(super) trial: TrialRun,
    rule: Rule,
    ladder: Ladder,
}

impl OpenTrial {
    /// What is known of it before it has run.
    pub(super) fn notes(&self, run_id: &str) -> BTreeMap<String, Value> {
        let mut notes = BTreeMap::from([
            ("expected_fge".to_owned(), json!(self.trial.expected_fge)),
            ("run_id".to_owned(), json!(run_id)),
        ]);
        if !self.trial.cut.is_empty() {
            notes.insert("cut".to_owned(), json!(self.trial.cut));
        }
        notes
    }
}

impl Conductor<'_> {
    /// Tells a study, and writes what follows.
    pub(super) fn tell(&mut self, s: usize, number: usize, outcome: Outcome) -> Result<(), SweepError> {
        let state = &mut self.studies[s];
        let (Some(study), Some(journal)) = (&mut state.study, &mut state.journal) else { return Ok(()) };
        let told = study.tell(number, outcome);
        told.map_err(|e| SweepError::Proposer { why: format!("{}: {e}", state.name), usage: false })?;
        Ok(journal.write(study)?)
    }

    /// The runs that study `s` wants now.
    pub(super) fn ask(
        &mut self,
        plan: &Plan,
        s: usize,
        found: &mut Vec<(Job, PlannedRun)>,
    ) -> Result<(), SweepError> {
        while let Some(proposal) = self.studies[s].study.as_mut().and_then(Study::ask) {
            match self.planned(plan, s, proposal.number, &proposal.params) {
                Ok((trial, mut run)) => {
                    let state = &self.studies[s];
                    let ladder = Ladder::of(&self.spec.pruner, draws(&trial.sampler.algo));
                    run.gates = ladder.draws();
                    if run.gates.is_empty() && state.cap.is_some() && is_a_guess(&trial.sampler.algo) {
                        run.gates = Ladder::halvings(draws(&trial.sampler.algo)).draws();
                    }
                    run.most_seconds = state.trial_sec.map(|seconds| LATE * seconds);
                    let (number, rule) = (proposal.number, proposal.rule);
                    let named = (number, proposal.id.as_str(), &proposal.params);
                    self.write_manifest(plan, s, named, (&trial, &run))?;
                    found.push((Job::Trial(s, Box::new(OpenTrial { number, trial, rule, ladder })), run));
                }
                Err(error) => {
                    let mut outcome = Outcome::failed(error.to_string());
                    if let TrialError::TooSmall { expected, .. } = error {
                        outcome.notes.insert("expected_fge".to_owned(), json!(expected));
                    }
                    self.write_metrics(s, &proposal.id, &outcome, None)?;
                    self.tell(s, proposal.number, outcome)?;
                }
            }
        }
        let state = &self.studies[s];
        if state.study.as_ref().is_some_and(Study::is_done) && !state.fresh_asked {
            if let Some(winner) = state.winner() {
                let problem = &self.tune.problems[state.problem];
                for k in 0..FRESH_RUNS {
                    let what = format!("fresh {k} of {}", winner.id);
                    let run = self.method(plan, state).run(&winner.params, &what).map_err(|why| {
                        SweepError::Proposer { why: format!("{}: {why}", state.name), usage: false }
                    })?;
                    let run = plan.run_on(problem.target, &run.sampler, &problem.posterior)?;
                    found.push((Job::Fresh(s, k), run));
                }
            }
            self.studies[s].fresh_asked = true;
        }
        Ok(())
    }

    /// A trial as a run.
    fn planned(
        &self,
        plan: &Plan,
        s: usize,
        number: usize,
        params: &Params,
    ) -> Result<(TrialRun, PlannedRun), TrialError> {
        let state = &self.studies[s];
        let problem = &self.tune.problems[state.problem];
        let trial = self.method(plan, state).run(params, &format!("trial {number}"))?;
        let run = plan.run_on(problem.target, &trial.sampler, &problem.posterior);
        Ok((trial, run.map_err(|e| TrialError::Settings(e.to_string()))?))
    }

    /// Writes what is missing or damaged of the files of a study's settled trials; how long they took is lost with
    /// them.
    pub(super) fn mend_files(&self, plan: &Plan, s: usize) -> Result<(), SweepError> {
        let Some(study) = &self.studies[s].study else { return Ok(()) };
        for trial in &study.trials()[..study.settled()] {
            let Some(outcome) = trial.outcome.as_ref().filter(|_| trial.twin.is_none()) else { continue };
            let dir = self.dir(s).join(&trial.id);
            let is_lost = |name: &str| {
                let bytes = self.store.read_file(&dir.join(name))?;
                Ok::<_, SweepError>(
                    bytes.is_none_or(|bytes| serde_json::from_slice::<Value>(&bytes).is_err()),
                )
            };
            if is_lost("metrics.json")? {
                self.write_metrics(s, &trial.id, outcome, None)?;
            }
            // One that no settings could be made of has none.
            if is_lost("manifest.json")?
                && let Ok((of, run)) = self.planned(plan, s, trial.number, &trial.params)
            {
                self.write_manifest(plan, s, (trial.number, &trial.id, &trial.params), (&of, &run))?;
            }
        }
        Ok(())
    }

    fn write_manifest(
        &self,
        plan: &Plan,
        s: usize,
        (number, id, params): (usize, &str, &Params),
        (trial, run): (&TrialRun, &PlannedRun),
    ) -> Result<(), SweepError> {
        let state = &self.studies[s];
        let manifest = json!({
            "trial_id": id, "study": state.name, "number": number,
            "problem": self.problems[state.problem].name, "target_id": plan.targets[run.target].id.to_string(),
            "target": self.tune.problems[state.problem].label, "method": self.tune.methods[state.method].method,
            "params": params, "cut": trial.cut, "sampler": trial.sampler, "run_id": run.id.to_string(),
            "expected_fge": trial.expected_fge, "trial_fge": state.cap,
        });
        self.write_json(s, id, "manifest.json", &manifest)
    }

    pub(super) fn write_metrics(
        &self,
        s: usize,
        id: &str,
        outcome: &Outcome,
        seconds: Option<f64>,
    ) -> Result<(), SweepError> {
        let (state, values, reason) = match &outcome.end {
            End::Complete(values) => ("complete", json!(values), Value::Null),
            End::Pruned => ("pruned", json!(outcome.value().into_iter().collect::<Vec<_>>()), Value::Null),
            End::Failed(reason) => ("failed", Value::Null, json!(reason)),
        };
        let reference = self.studies[s].reference;
        let mut metrics = json!({
            "state": state, "objective": names(&self.spec.objective), "values": values, "reason": reason, "seconds": seconds,
            "reference_llc": reference.map(|r| r.llc), "reference_mcse": reference.map(|r| r.mcse),
            "trial_fge": self.studies[s].cap,
            "intermediate_values": outcome.steps,
        });
        for (key, value) in &outcome.notes {
            metrics[key] = value.clone();
        }
        self.write_json(s, id, "metrics.json", &metrics)
    }

    fn write_json(&self, s: usize, id: &str, name: &str, value: &Value) -> Result<(), SweepError> {
        let mut bytes = serde_json::to_vec_pretty(value)?;
        bytes.push(b'\n');
        Ok(self.store.write_file(&self.dir(s).join(id).join(name), &bytes)?)
    }

    /// Where a study's trials lie.
    fn dir(&self, s: usize) -> PathBuf {
        let state = &self.studies[s];
        trials_dir(&self.problems[state.problem].name, &self.tune.methods[state.method].method)
    }

    /// What a trial's run is worth.
    pub(super) fn outcome(
        &self,
        plan: &Plan,
        s: usize,
        open: &OpenTrial,
        analysis: &Analysis,
        record: Option<&Ref>,
    ) -> Result<Outcome, SweepError> {
        let objective = &self.spec.objective;
        let work = analysis.fge_warmup + analysis.fge_sampling;
        let seconds = seconds_of(record);
        let mut notes = open.notes(&analysis.run_id);
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
        note("verdict", json!(analysis.verdict.to_string()));
        let failed = |reason: String, notes| Outcome { notes, ..Outcome::failed(reason) };
        let (Some(llc), Some(reference)) = (analysis.llc_mean, self.studies[s].reference) else {
            return Ok(failed("its λ̂ is no number".to_owned(), notes));
        };
        notes.insert("error".to_owned(), json!(llc - reference.llc));
        if let Some(reason) = self.over_budget(s, open, work) {
            return Ok(failed(reason, notes));
        }
        let by_cost = matches!(objective, Objective::WorkToAccuracy { .. });
        let trace = match record.and_then(|r| r.objects.get("trace.nc")) {
            Some(hash) if by_cost || !open.ladder.gates.is_empty() => {
                Some(netcdf::read_trace(&self.store.get(hash)?)?.0)
            }
            _ => None,
        };
        let mut steps = Vec::new();
        if let Some(llc) = trace.as_ref().and_then(|trace| trace.column("llc")) {
            let (seen, stops) = self.steps(plan, s, open, usize::MAX - 1, &llc);
            if stops {
                // The store had the run whole, from elsewhere: it is worth what it would have been. A control chain
                // follows the last gate.
                let draws = open.ladder.gates[seen.len() - 1].1;
                let first: Vec<&[f64]> = llc.iter().map(|chain| &chain[..draws]).collect();
                let share = draws as f64 / llc[0].len() as f64;
                let target = &plan.targets[self.tune.problems[self.studies[s].problem].target];
                let control = target.expected_fge(&open.trial.sampler).control;
                let fge = analysis.fge_warmup - control + analysis.fge_sampling * share;
                return Ok(self.pruned(s, open, &analysis.run_id, seen, &first, fge));
            }
            steps = seen;
        }
        Ok(match self.worth((llc, reference), analysis, seconds, trace.as_ref()) {
            Ok(values) => {
                if !open.ladder.gates.is_empty() {
                    steps.push((open.ladder.last, values[0]));
                }
                Outcome { notes, steps, ..Outcome::complete(&values) }
            }
            Err(error) => failed(error.to_string(), notes),
        })
    }

    /// What is said of a trial that has taken more work than it may.
    fn over_budget(&self, s: usize, open: &OpenTrial, fge: f64) -> Option<String> {
        let cap = self.studies[s].cap.filter(|cap| fge > OVER * cap)?;
        Some(format!(
            "over_budget: more than {OVER} times its {cap:.3e} FGE, of which {:.3e} were expected: how many gradients a \
             draw takes shows on the way",
            open.trial.expected_fge
        ))
    }

    /// What a run of the winner's settings is worth.
    pub(super) fn fresh(
        &self,
        s: usize,
        analysis: &Analysis,
        record: Option<&Ref>,
    ) -> Result<Result<Fresh, String>, SweepError> {
        let (Some(llc), Some(reference)) = (analysis.llc_mean, self.studies[s].reference) else {
            return Ok(Err("its λ̂ is no number".to_owned()));
        };
        let trace = match record.and_then(|r| r.objects.get("trace.nc")) {
            Some(hash) if matches!(self.spec.objective, Objective::WorkToAccuracy { .. }) => {
                Some(netcdf::read_trace(&self.store.get(hash)?)?.0)
            }
            _ => None,
        };
        let values = self.worth((llc, reference), analysis, seconds_of(record), trace.as_ref());
        Ok(values.map(|values| Fresh { llc, values }).map_err(|e| e.to_string()))
    }

    /// The objectives of a run.
    fn worth(
        &self,
        (llc, reference): (f64, Estimate),
        analysis: &Analysis,
        seconds: Option<f64>,
        trace: Option<&Trace>,
    ) -> Result<Vec<f64>, ObjectiveError> {
        let objective = &self.spec.objective;
        let work = analysis.fge_warmup + analysis.fge_sampling;
        let mut path = Vec::new();
        if let (Objective::WorkToAccuracy { cost, .. }, Some(trace)) = (objective, trace) {
            path = way(trace, analysis.fge_warmup, analysis.fge_sampling);
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
        values(objective, &measured, reference)
    }

    /// [`Yardstick::steps`] of a trial.
    fn steps(
        &self,
        plan: &Plan,
        s: usize,
        open: &OpenTrial,
        upto: usize,
        llc: &[&[f64]],
    ) -> (Vec<Step>, bool) {
        let state = &self.studies[s];
        let (Some(reference), Some(draws)) = (state.reference, draws(&open.trial.sampler.algo)) else {
            return (Vec::new(), false);
        };
        let work = plan.targets[self.tune.problems[state.problem].target].expected_fge(&open.trial.sampler);
        // A run's record counts its control chain as warmup.
        let before = work.warmup + work.control;
        let work = (before, work.total - before);
        let yardstick =
            Yardstick { objective: &self.spec.objective, reference, work, draws, rate: state.rate };
        yardstick.steps(&open.ladder, upto, llc, &open.rule)
    }

    /// A trial that was given up after these draws, and this work.
    fn pruned(
        &self,
        s: usize,
        open: &OpenTrial,
        run_id: &str,
        steps: Vec<Step>,
        llc: &[&[f64]],
        fge: f64,
    ) -> Outcome {
        let mut notes = open.notes(run_id);
        notes.insert("fge".to_owned(), json!(fge));
        let llc = Yardstick::llc(llc);
        if let Some(reference) = self.studies[s].reference.filter(|_| llc.is_finite()) {
            notes.insert("llc".to_owned(), json!(llc));
            notes.insert("error".to_owned(), json!(llc - reference.llc));
        }
        Outcome { end: End::Pruned, steps, notes }
    }

    /// Whether a trial at a gate goes on. One that does not is told to its study.
    pub(super) fn goes_on(
        &mut self,
        plan: &Plan,
        index: usize,
        (s, open): (usize, &OpenTrial),
        partial: &Partial<'_>,
    ) -> Result<bool, SweepError> {
        if let Some(reason) = self.over_budget(s, open, partial.fge) {
            let run_id = plan.runs[index].id.to_string();
            let mut notes = open.notes(&run_id);
            notes.insert("fge".to_owned(), json!(partial.fge));
            self.jobs.remove(&index);
            self.settle(s, open.number, Outcome { notes, ..Outcome::failed(reason) }, Some(partial.seconds))?;
            return Ok(false);
        }
        if open.ladder.gates.is_empty() {
            return Ok(true);
        }
        let (steps, stops) = self.steps(plan, s, open, partial.gate, &partial.llc);
        if !stops {
            return Ok(true);
        }
        let run_id = plan.runs[index].id.to_string();
        let outcome = self.pruned(s, open, &run_id, steps, &partial.llc, partial.fge);
        self.jobs.remove(&index);
        self.settle(s, open.number, outcome, Some(partial.seconds))?;
        Ok(false)
    }

    /// Writes what a trial came to, and tells its study.
    pub(super) fn settle(
        &mut self,
        s: usize,
        number: usize,
        outcome: Outcome,
        seconds: Option<f64>,
    ) -> Result<(), SweepError> {
        let id = self.studies[s].study.as_ref().map(|study| study.trials()[number].id.clone());
        self.write_metrics(s, &id.unwrap_or_default(), &outcome, seconds)?;
        self.tell(s, number, outcome)
    }
}
