//! References: cached, or found in rounds; and the studies that begin once they are there.

use serde_json::{Map, Value, json};

use super::{Conductor, REPRODUCIBLE, Search};
use crate::config::canonical_json;
use crate::config::tune::trial_sampler;
use crate::store::{Hash, StoreError};
use crate::sweep::{Plan, SweepError};
use crate::tune::differences::differences;
use crate::tune::journal::{Journal, JournalError, journal_path};
use crate::tune::objective::{Estimate, names};
use crate::tune::reference::{FIRST_DRAWS, Reference, fge_of};
use crate::tune::space::{Params, Space};
use crate::tune::steps::by_clock;

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
            ("problem".to_owned(), json!(plan.targets[self.studies[s].problem].label)),
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
        Ok(())
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
