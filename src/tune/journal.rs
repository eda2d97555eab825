//! Studies on disk, in the format of Optuna's `JournalFileBackend`: one JSON object a line.
//!
//! `optuna.storages.JournalStorage(JournalFileBackend(path))` opens such a file, and so does
//! optuna-dashboard. A file holds one study. A trial is proposed by one line (operation 4, with its
//! parameters, their distributions and its id), and settled by lines that are written together: its
//! intermediate values (7), what is known of it (8), its state and values (6). Lines are appended by
//! [`crate::store`]'s rules, so a kill leaves whole lines; a trial whose last line is missing is run again.
//! But for `datetime_*` the same study gives the same bytes.

mod read;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use thiserror::Error;

use super::differences::differences;
use super::objective::names;
use super::space::{Axis, Space};
use super::study::{End, Event, Outcome, Study, StudyError, Trial};
use crate::config::tune::{Dimension, Domain, Objective, StudySpec};
use crate::store::{Appender, Store, StoreError};
use read::{Found, read};

/// Operations, by the numbers that Optuna gave them.
mod operation {
    pub const CREATE_STUDY: u64 = 0;
    pub const DELETE_STUDY: u64 = 1;
    pub const STUDY_ATTRIBUTE: u64 = 2;
    pub const STUDY_SYSTEM_ATTRIBUTE: u64 = 3;
    pub const CREATE_TRIAL: u64 = 4;
    pub const PARAMETER: u64 = 5;
    pub const STATE: u64 = 6;
    pub const INTERMEDIATE: u64 = 7;
    pub const TRIAL_ATTRIBUTE: u64 = 8;
}

/// States of a trial.
mod state {
    pub const RUNNING: u64 = 0;
    pub const COMPLETE: u64 = 1;
    pub const PRUNED: u64 = 2;
    pub const FAIL: u64 = 3;
}

/// Optuna's number for a value that is minimised.
const MINIMIZE: u64 = 1;
/// Who wrote a line; Optuna compares it with its own.
const WORKER: &str = "lambda-hat-mpi";
/// Study attribute: hash of what its proposals depend on.
const IDENTITY: &str = "study_id";
/// Study attribute: those things themselves.
const SETTINGS: &str = "settings";
/// What Optuna calls the values of several objectives by, as its `Study.set_metric_names` writes it.
const METRIC_NAMES: &str = "study:metric_names";
/// Trial attributes.
const TRIAL_ID: &str = "trial_id";
const TWIN: &str = "same_as";
const REASON: &str = "reason";

/// Why a journal cannot be gone on with.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The study.
    #[error("{path}: {source}")]
    Study {
        /// The file.
        path: PathBuf,
        /// Why.
        source: StudyError,
    },
    /// A line that is none.
    #[error("{path}:{line}: {why}; move the file away to start the study again (finished runs are kept)")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Why.
        why: String,
    },
    /// The file holds something else.
    #[error(
        "{path}: {why}; go back to what it was made with, move the file away, or search under another --root"
    )]
    Other {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// The journal of one study, open for writing.
#[derive(Debug)]
pub struct Journal {
    file: Appender,
    /// Optuna's numbers of the trials, which count all trials of a file.
    ids: Vec<u64>,
    /// The next such number.
    next: u64,
    /// Optuna's number of the study.
    study: u64,
    /// What is written of the study for its readers.
    attributes: BTreeMap<String, Value>,
}

/// Where the journal of the study `name` lies: `results/studies/<name>.journal.log`, `:` written as `-`.
pub fn journal_path(name: &str) -> PathBuf {
    Path::new("results/studies").join(format!("{}.journal.log", name.replace(':', "-")))
}

impl Journal {
    /// Opens or begins the journal at `path` below the store's root, and takes up the study as it stands
    /// there. `attributes` of a study that begins are written for its readers.
    ///
    /// # Errors
    /// The disk refuses, a line is no JSON of this format, or the file holds another study: one made with
    /// another space, sampler, pruner, objective, batch or seed, or with trials of another program.
    pub fn open(
        store: &Store,
        path: &Path,
        name: &str,
        space: Space,
        spec: &StudySpec,
        attributes: &Map<String, Value>,
    ) -> Result<(Self, Study), JournalError> {
        let file = store.appender(path)?;
        let shown = store.root().join(path);
        let bytes = store.read_file(path)?.unwrap_or_default();
        let study_error = |source| JournalError::Study { path: shown.clone(), source };
        let other = |why: String| JournalError::Other { path: shown.clone(), why };
        let blank = Study::new(name, space.clone(), spec).map_err(study_error)?;
        let found = read(&bytes, name, &space).map_err(|(line, why)| JournalError::Damaged {
            path: shown.clone(),
            line,
            why,
        })?;
        let Found { study, next, identity, attributes: known, trials, objectives } = found;
        let ids = trials.iter().map(|t| t.id).collect();
        let mut journal = Self { file, ids, next, study: study.unwrap_or(0), attributes: known };
        let own = blank.id().to_string();
        match (study, &identity) {
            (None, _) if next > 0 || !bytes.is_empty() => {
                return Err(other(format!("it holds no study called {name}")));
            }
            (None, _) => journal.begin(name, &spec.objective)?,
            (Some(_), Some(found)) if *found != own => {
                let differences = differences(journal.attribute(SETTINGS), &blank.settings());
                return Err(other(format!(
                    "the study {name} in it was made with other settings{differences}"
                )));
            }
            (Some(_), None) if !trials.is_empty() => {
                return Err(other(format!("the study {name} in it was made by another program")));
            }
            (Some(_), _) if objectives != spec.objective.values() => {
                return Err(other(format!("the study {name} in it has {objectives} objectives")));
            }
            _ => {}
        }
        if identity.is_none() {
            // The last of the attributes: a study without it has no trials yet.
            for (key, value) in attributes {
                if !journal.attributes.contains_key(key) {
                    journal.study_attribute(key, value)?;
                }
            }
            journal.study_attribute(SETTINGS, &blank.settings())?;
            journal.study_attribute(IDENTITY, &json!(own))?;
        }
        let mut recorded = Vec::with_capacity(trials.len());
        for (number, trial) in trials.into_iter().enumerate() {
            if trial.known.as_deref() != Some(&super::study::trial_id(name, &trial.recorded.params)) {
                return Err(other(format!("trial {number} in it was made by another program")));
            }
            recorded.push(trial.recorded);
        }
        let mut study = Study::resume(name, space, spec, &recorded).map_err(study_error)?;
        journal.write(&mut study)?;
        Ok((journal, study))
    }

    /// Writes what happened in the study since the last call. To be called after every
    /// [`Study::tell`], before a proposal of it is handed out.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write(&mut self, study: &mut Study) -> Result<(), StoreError> {
        for event in study.events() {
            match event {
                Event::Proposed(number) => self.proposed(&study.trials()[number], study.space())?,
                Event::Settled(number) => self.settled(&study.trials()[number])?,
            }
        }
        Ok(())
    }

    fn begin(&mut self, name: &str, objective: &Objective) -> Result<(), StoreError> {
        let names = names(objective);
        let directions = vec![MINIMIZE; names.len()];
        let mut lines =
            vec![line(operation::CREATE_STUDY, json!({"study_name": name, "directions": directions}))];
        // Of one objective Optuna's table would call the column `value` otherwise.
        if names.len() > 1 {
            let fields = json!({"study_id": self.study, "system_attr": {METRIC_NAMES: names}});
            lines.push(line(operation::STUDY_SYSTEM_ATTRIBUTE, fields));
        }
        self.append(&lines)
    }

    fn study_attribute(&mut self, key: &str, value: &Value) -> Result<(), StoreError> {
        let id = self.study;
        self.append(&[line(operation::STUDY_ATTRIBUTE, json!({"study_id": id, "user_attr": {key: value}}))])?;
        self.attributes.insert(key.to_owned(), value.clone());
        Ok(())
    }

    /// Changes what is written of the study.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn set_attribute(&mut self, key: &str, value: &Value) -> Result<(), StoreError> {
        self.study_attribute(key, value)
    }

    /// What is written of the study: when it began, unless it was [changed](Self::set_attribute).
    pub fn attribute(&self, key: &str) -> Option<&Value> {
        self.attributes.get(key)
    }

    fn proposed(&mut self, trial: &Trial, space: &Space) -> Result<(), StoreError> {
        let mut distributions = Map::new();
        let mut params = Map::new();
        let dimensions = space.dimensions().iter().zip(space.axes());
        for ((dimension, axis), number) in dimensions.zip(trial.point()) {
            if let Some(number) = number {
                distributions
                    .insert(dimension.name.clone(), distribution(dimension, axis).to_string().into());
                params.insert(dimension.name.clone(), internal(dimension, *number));
            }
        }
        let mut attributes = Map::from_iter([(TRIAL_ID.to_owned(), json!(trial.id))]);
        if let Some(twin) = trial.twin {
            attributes.insert(TWIN.to_owned(), json!(twin));
        }
        self.append(&[line(
            operation::CREATE_TRIAL,
            json!({
                "study_id": self.study,
                "datetime_start": now(),
                "state": state::RUNNING,
                "value": null,
                "values": null,
                "distributions": distributions,
                "params": params,
                "user_attrs": attributes,
                "system_attrs": {},
                "intermediate_values": {},
            }),
        )])?;
        self.ids.push(self.next);
        self.next += 1;
        Ok(())
    }

    fn settled(&mut self, trial: &Trial) -> Result<(), StoreError> {
        let (Some(outcome), Some(&id)) = (&trial.outcome, self.ids.get(trial.number)) else { return Ok(()) };
        self.append(&outcome_lines(id, outcome))
    }

    /// Appends lines by one write.
    fn append(&mut self, lines: &[Value]) -> Result<(), StoreError> {
        let text: Vec<String> = lines.iter().map(Value::to_string).collect();
        self.file.append(&text.join("\n"))
    }
}

fn line(operation: u64, mut fields: Value) -> Value {
    fields["op_code"] = operation.into();
    fields["worker_id"] = WORKER.into();
    fields
}

fn outcome_lines(id: u64, outcome: &Outcome) -> Vec<Value> {
    let mut lines: Vec<Value> = outcome
        .steps
        .iter()
        .map(|(step, value)| {
            let fields = json!({"trial_id": id, "step": step, "intermediate_value": value});
            line(operation::INTERMEDIATE, fields)
        })
        .collect();
    let attribute = |key: &str, value: &Value| {
        line(operation::TRIAL_ATTRIBUTE, json!({"trial_id": id, "user_attr": {key: value}}))
    };
    lines.extend(outcome.notes.iter().map(|(key, value)| attribute(key, value)));
    let (state, values) = match &outcome.end {
        End::Complete(values) => (state::COMPLETE, json!(values)),
        // As Optuna: its last value on the way.
        End::Pruned => (state::PRUNED, json!(outcome.value().map(|value| vec![value]))),
        End::Failed(reason) => {
            lines.push(attribute(REASON, &json!(reason)));
            (state::FAIL, Value::Null)
        }
    };
    let fields = json!({"trial_id": id, "state": state, "values": values, "datetime_complete": now()});
    lines.push(line(operation::STATE, fields));
    lines
}

/// Now, as Optuna writes it.
fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6f+00:00").to_string()
}

/// A domain as Optuna's distribution, up to the last value that its axis has.
fn distribution(dimension: &Dimension, axis: &Axis) -> Value {
    let last = |high: f64| if let Axis::Number { high, .. } = axis { *high } else { high };
    match &dimension.domain {
        Domain::Float { low, high, log, step } => json!({
            "name": "FloatDistribution",
            "attributes": {"low": low, "high": last(*high), "log": log, "step": step},
        }),
        Domain::Int { low, high, log, step } => json!({
            "name": "IntDistribution",
            "attributes": {"low": low, "high": last(*high as f64) as i64, "log": log, "step": step},
        }),
        Domain::Categorical { choices } => {
            json!({"name": "CategoricalDistribution", "attributes": {"choices": choices}})
        }
    }
}

/// A value as Optuna keeps it: whole numbers and indices without a fraction.
fn internal(dimension: &Dimension, number: f64) -> Value {
    match dimension.domain {
        Domain::Float { .. } => json!(number),
        _ => json!(number as i64),
    }
}

#[cfg(test)]
mod tests;
