//! Reading a journal back: the state that its lines come to, by Optuna's rules.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{IDENTITY, REASON, TRIAL_ID, TWIN, operation, state};
use crate::tune::space::{Point, Space};
use crate::tune::study::{End, Outcome, Recorded};

/// What a journal holds of one study.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Optuna's number of the study; `None` where it is not there.
    pub study: Option<u64>,
    /// Number of trials of all studies.
    pub next: u64,
    pub identity: Option<String>,
    pub attributes: BTreeMap<String, Value>,
    pub objectives: usize,
    pub trials: Vec<FoundTrial>,
}

/// A trial on record.
#[derive(Debug)]
pub(super) struct FoundTrial {
    /// Optuna's number.
    pub id: u64,
    /// Our id, as recorded.
    pub known: Option<String>,
    pub recorded: Recorded,
}

/// A trial while its lines are read.
struct Open {
    id: u64,
    point: Point,
    state: u64,
    values: Vec<f64>,
    steps: BTreeMap<u64, f64>,
    attributes: BTreeMap<String, Value>,
}

/// Reads the lines of a journal. Lines of other studies are passed over.
///
/// # Errors
/// The number of a line, from 1, and why it is none of this format.
pub(super) fn read(bytes: &[u8], name: &str, space: &Space) -> Result<Found, (usize, String)> {
    let mut found = Found::default();
    let mut studies: Vec<Option<String>> = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    for (number, text) in bytes.split_inclusive(|b| *b == b'\n').enumerate() {
        let fault = |why: String| (number + 1, why);
        let line: Value = serde_json::from_slice(text).map_err(|e| fault(format!("not JSON: {e}")))?;
        let whole = |key: &str| {
            line[key].as_u64().ok_or_else(|| fault(format!("`{key}` is {}, not a whole number", line[key])))
        };
        match whole("op_code")? {
            operation::CREATE_STUDY => {
                let study = line["study_name"].as_str().map(str::to_owned);
                if study.is_some() && !studies.contains(&study) {
                    if study.as_deref() == Some(name) {
                        found.study = Some(studies.len() as u64);
                        found.objectives = line["directions"].as_array().map_or(0, Vec::len);
                    }
                    studies.push(study);
                }
            }
            operation::DELETE_STUDY => {
                let id = whole("study_id")?;
                if let Some(study) = studies.get_mut(id as usize) {
                    *study = None;
                }
                if found.study == Some(id) {
                    open.clear();
                    found = Found { next: found.next, ..Found::default() };
                }
            }
            operation::STUDY_ATTRIBUTE if found.study == Some(whole("study_id")?) => {
                for (key, value) in line["user_attr"].as_object().into_iter().flatten() {
                    if key == IDENTITY {
                        found.identity = value.as_str().map(str::to_owned);
                    }
                    found.attributes.insert(key.clone(), value.clone());
                }
            }
            operation::CREATE_TRIAL => {
                let study = whole("study_id")?;
                if studies.get(study as usize).is_some_and(Option::is_some) {
                    if found.study == Some(study) {
                        open.push(created(&line, found.next, space).map_err(fault)?);
                    }
                    found.next += 1;
                }
            }
            operation::PARAMETER
            | operation::STATE
            | operation::INTERMEDIATE
            | operation::TRIAL_ATTRIBUTE => {
                let id = whole("trial_id")?;
                let unsettled = |t: &&mut Open| t.id == id && t.state == state::RUNNING;
                if let Some(trial) = open.iter_mut().rev().find(unsettled) {
                    update(trial, &line, space).map_err(fault)?;
                }
            }
            // Attributes of the system, and what is yet to be invented.
            _ => {}
        }
    }
    found.trials = open.into_iter().map(|trial| close(trial, space)).collect();
    Ok(found)
}

fn created(line: &Value, id: u64, space: &Space) -> Result<Open, String> {
    let mut trial = Open {
        id,
        point: vec![None; space.axes().len()],
        state: line["state"].as_u64().unwrap_or(state::RUNNING),
        values: numbers(&line["values"]),
        steps: BTreeMap::new(),
        attributes: BTreeMap::new(),
    };
    for (name, value) in line["params"].as_object().into_iter().flatten() {
        set(&mut trial.point, name, value, space)?;
    }
    for (key, value) in line["user_attrs"].as_object().into_iter().flatten() {
        trial.attributes.insert(key.clone(), value.clone());
    }
    for (step, value) in line["intermediate_values"].as_object().into_iter().flatten() {
        if let (Ok(step), Some(value)) = (step.parse(), value.as_f64()) {
            trial.steps.insert(step, value);
        }
    }
    Ok(trial)
}

fn update(trial: &mut Open, line: &Value, space: &Space) -> Result<(), String> {
    match line["op_code"].as_u64() {
        Some(operation::PARAMETER) => {
            let name = line["param_name"].as_str().unwrap_or_default();
            set(&mut trial.point, name, &line["param_value_internal"], space)?;
        }
        Some(operation::INTERMEDIATE) => {
            if let (Some(step), Some(value)) = (line["step"].as_u64(), line["intermediate_value"].as_f64()) {
                trial.steps.insert(step, value);
            }
        }
        Some(operation::TRIAL_ATTRIBUTE) => {
            for (key, value) in line["user_attr"].as_object().into_iter().flatten() {
                trial.attributes.insert(key.clone(), value.clone());
            }
        }
        _ => {
            trial.state = line["state"].as_u64().ok_or("`state` is no whole number")?;
            trial.values = numbers(&line["values"]);
        }
    }
    Ok(())
}

fn set(point: &mut Point, name: &str, value: &Value, space: &Space) -> Result<(), String> {
    let i = space.dimensions().iter().position(|d| d.name == name);
    let i = i.ok_or_else(|| format!("{name} is no parameter of the search space"))?;
    point[i] = Some(value.as_f64().ok_or_else(|| format!("{name} is {value}, not a number"))?);
    Ok(())
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
}

fn close(trial: Open, space: &Space) -> FoundTrial {
    let Open { id, point, state, values, steps, mut attributes } = trial;
    let known = attributes.remove(TRIAL_ID).and_then(|v| v.as_str().map(str::to_owned));
    attributes.remove(TWIN);
    let end = match state {
        state::COMPLETE => Some(End::Complete(values)),
        state::PRUNED => Some(End::Pruned),
        state::FAIL => {
            let reason = attributes.remove(REASON).and_then(|v| v.as_str().map(str::to_owned));
            Some(End::Failed(reason.unwrap_or_else(|| "no reason is recorded".to_owned())))
        }
        _ => None,
    };
    let outcome = end.map(|end| Outcome { end, steps: steps.into_iter().collect(), notes: attributes });
    FoundTrial { id, known, recorded: Recorded { params: space.params(&point), outcome } }
}
