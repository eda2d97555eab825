//! References: cached, or found in rounds; and the studies that begin once they are there.

use serde_json::{Map, Value, json};

use super::trials::{LATE, OVER};
use super::{Conductor, REPRODUCIBLE, Search};
use crate::config::canonical_json;
use crate::config::tune::{Scalar, trial_sampler};
use crate::store::{Hash, StoreError};
use crate::sweep::{Partial, Plan, PlannedRun, SweepError};
use crate::tune::differences::differences;
use crate::tune::journal::{Journal, JournalError, journal_path};
use crate::tune::objective::{Estimate, names};
use crate::tune::reference::{FEWEST_DRAWS, Reference, Rounds, fge_of};
use crate::tune::space::{Params, Space};
use crate::tune::steps::{Ladder, by_clock, draws as draws_of};
use crate::tune::trial::{Method, TrialError};

/// Study attributes.
const BASE: &str = "preset";
const REFERENCE: &str = "reference_llc";
const REFERENCE_MCSE: &str = "reference_mcse";
const ROUGH: &str = "reference_rough";
const OBJECTIVE: &str = "objective";
/// The trials that were asked for last.
pub const TRIALS: &str = "max_trials";
const CAP: &str = "trial_fge";
const RATE: &str = "seconds_per_fge";
/// What the file said when the study began.
const BUDGET: &str = "trial_budget";
const PRESET_SETTINGS: &str = "preset_settings";

impl Conductor<'_> {
    /// The reference of a problem, cached or in its first round.
    pub(super) fn begin(&mut self, plan: &Plan) -> Result<(), SweepError> {
        for p in 0..self.problems.len() {
            if !matches!(&self.problems[p].search, Search::Wanted(rounds, _) if rounds.is_first()) {
                continue;
            }
            let bytes = self.store.read_file(&Reference::path(&self.problems[p].name))?;
            let known = bytes.and_then(|bytes| serde_json::from_slice::<Reference>(&bytes).ok());
            let id = plan.targets[self.tune.problems[p].target].id.to_string();
            if let Some(known) = known.filter(|r| r.target_id == id && r.serves(self.settings.accuracy)) {
                self.refer(plan, p, known)?;
            }
        }
        Ok(())
    }

    /// The run of a reference's next round, and its draws a chain; else why there can be none.
    pub(super) fn round(
        &self,
        plan: &Plan,
        p: usize,
        rounds: &Rounds,
        draws: usize,
    ) -> Result<(usize, PlannedRun), String> {
        let problem = &self.tune.problems[p];
        let mut params = Params::from([("draws".to_owned(), Scalar::Int(draws as i64))]);
        let acceptance = rounds.target_acceptance().map(Scalar::Float);
        params.extend(acceptance.map(|value| ("target_acceptance".to_owned(), value)));
        let cap = self.tune.budget.hmc_fge;
        // The built-in preset: a reference depends on no preset of the user's.
        let method = Method {
            study: &self.problems[p].name,
            method: "nuts",
            precision: None,
            presets: None,
            target: &plan.targets[problem.target],
            // Later rounds are as long as the first one's work allows.
            cap: cap.filter(|_| rounds.is_first()),
        };
        let (spec, draws) = match method.run(&params, "reference") {
            Ok(trial) => {
                let draws = draws_of(&trial.sampler.algo).unwrap_or(draws);
                (Some(trial.sampler), draws)
            }
            Err(TrialError::TooSmall { .. }) => (None, 0),
            Err(error) => return Err(error.to_string()),
        };
        let Some(spec) = spec.filter(|_| draws >= FEWEST_DRAWS) else {
            params.insert("draws".to_owned(), Scalar::Int(FEWEST_DRAWS as i64));
            let least =
                Method { cap: None, ..method }.run(&params, "reference").map_err(|e| e.to_string())?;
            return Err(format!(
                "its budget of {:.3e} FGE is too small: {FEWEST_DRAWS} draws a chain and the warmup before them take about \
                 {:.3e}; raise execution.budget.hmc_fge",
                cap.unwrap_or_default(),
                least.expected_fge
            ));
        };
        let mut run = plan.run_on(problem.target, &spec, &problem.posterior).map_err(|e| e.to_string())?;
        if rounds.is_first() && cap.is_some() {
            run.gates = Ladder::halvings(Some(draws)).draws();
        }
        run.most_seconds = self.tune.budget.hmc_sec.map(|seconds| LATE * seconds);
        Ok((draws, run))
    }

    /// Whether the first round of a reference, at a gate, is within its budget.
    pub(super) fn affords(&mut self, p: usize, index: usize, partial: &Partial<'_>) -> bool {
        let Some(cap) = self.tune.budget.hmc_fge.filter(|cap| partial.fge > OVER * cap) else { return true };
        let draws = partial.llc.first().map_or(0, |chain| chain.len());
        self.jobs.remove(&index);
        self.refuse(
            p,
            format!(
                "its reference was given up: {draws} draws a chain and the warmup before them took {:.3e} FGE, of {cap:.3e} \
                 in its budget; raise execution.budget.hmc_fge",
                partial.fge
            ),
        );
        false
    }

    /// A problem has its reference: its studies begin or go on.
    pub(super) fn refer(&mut self, plan: &Plan, p: usize, reference: Reference) -> Result<(), SweepError> {
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

    pub(super) fn refuse(&mut self, p: usize, why: String) {
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
        let preset = base.map_or(Value::Null, |spec| json!(spec));
        let base = match &preset {
            Value::Null => Value::Null,
            spec => Hash::of(canonical_json(spec).as_bytes()).short(12).into(),
        };
        let attributes = Map::from_iter([
            ("problem".to_owned(), json!(self.tune.problems[self.studies[s].problem].label)),
            ("target_id".to_owned(), json!(reference.target_id)),
            ("method".to_owned(), json!(method.method)),
            (BASE.to_owned(), base.clone()),
            (PRESET_SETTINGS.to_owned(), preset.clone()),
            (BUDGET.to_owned(), json!({"trial_fge": budget.trial_fge, "trial_sec": budget.trial_sec})),
            (REFERENCE.to_owned(), json!(reference.llc)),
            (REFERENCE_MCSE.to_owned(), json!(reference.mcse)),
            ("reference_exact".to_owned(), json!(reference.exact)),
            (ROUGH.to_owned(), json!(reference.reason)),
            (OBJECTIVE.to_owned(), json!(names(&self.spec.objective).join("; "))),
            (RATE.to_owned(), json!(reference.seconds_per_fge)),
            (CAP.to_owned(), json!(cap)),
            (REPRODUCIBLE.to_owned(), json!(!by_clock(&self.spec.objective))),
        ]);
        let refused = |why: String| SweepError::Proposer { why, usage: true };
        let space = Space::new(&method.dimensions)
            .map_err(|e| refused(format!("search_space.{}: {e}", method.method)))?;
        let guard = self.store.lock_unit("study", &Hash::of(name.as_bytes())).map_err(|e| match e {
            // Its name says more than the hash that it is locked by.
            StoreError::Locked { by, .. } => StoreError::Locked { what: format!("the study {name}"), by },
            e => e,
        })?;
        let opened = Journal::open(self.store, &journal_path(&name), &name, space, &self.spec, &attributes);
        let (mut journal, study) = opened.map_err(journal_error)?;
        if journal.attribute(BASE) != Some(&base) {
            return Err(refused(format!(
                "{}: the study {name} in it was made with another preset of {} or another precision{}; go back to those, \
                 move the file away, or search under another --root",
                self.store.root().join(journal_path(&name)).display(),
                method.method,
                differences(journal.attribute(PRESET_SETTINGS), &preset)
            )));
        }
        // More may be asked for later.
        let trials = json!(study.last());
        if journal.attribute(TRIALS) != Some(&trials) {
            journal.set_attribute(TRIALS, &trials)?;
        }
        let number = |key: &str| journal.attribute(key).and_then(Value::as_f64);
        let state = &mut self.studies[s];
        state.reference =
            number(REFERENCE).zip(number(REFERENCE_MCSE)).map(|(llc, mcse)| Estimate { llc, mcse });
        state.rough = journal.attribute(ROUGH).and_then(Value::as_str).map(str::to_owned);
        state.cap = number(CAP);
        state.rate = number(RATE);
        let began_with = journal.attribute(BUDGET).cloned();
        state.trial_sec = match &began_with {
            Some(began) => began["trial_sec"].as_f64(),
            None => budget.trial_sec,
        };
        let asked = attributes.get(BUDGET);
        state.keeps_budget = began_with.is_some_and(|began| Some(&began) != asked);
        state.reproducible = journal.attribute(REPRODUCIBLE) != Some(&Value::Bool(false));
        (state.journal, state.study, state.guard) = (Some(journal), Some(study), Some(guard));
        self.mend_files(plan, s)
    }
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
