//! What a search leaves for people: a table of all trials, the best settings as presets, figures.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::conduct::{Conductor, StudyState, trials_dir};
use super::importance::importance;
use super::objective::names;
use super::reference::Reference;
use super::space::Axis;
use super::study::{End, Outcome, Study, Trial};
use crate::config::tune::{Cost, Domain, Objective, Scalar, TuneExperiment, preset_text};
use crate::io::csv::write_csv;
use crate::io::table::{ColumnData, read_parquet, write_parquet};
use crate::plot::{self, Figure};
use crate::store::Store;
use crate::sweep::{Plan, SweepError};

/// The table of trials.
const TRIALS: &str = "results/optuna_trials.parquet";

type Columns = Vec<(String, ColumnData)>;

/// Writes `results/optuna_trials.{parquet,csv}`, `results/best/` and `results/studies/figures/`.
///
/// # Errors
/// The disk refuses.
pub fn write(
    store: &Store,
    tune: &TuneExperiment,
    plan: &Plan,
    conductor: &Conductor<'_>,
    presets: Option<&Path>,
) -> Result<(), SweepError> {
    let columns = with_other_studies(store, table(store, tune, conductor)?)?;
    let columns: Vec<(&str, ColumnData)> = columns.iter().map(|(n, c)| (n.as_str(), c.clone())).collect();
    store.write_file(Path::new(TRIALS), &write_parquet(&columns)?)?;
    store.write_file(Path::new("results/optuna_trials.csv"), &write_csv(&columns)?)?;
    for state in conductor.studies() {
        write_best(store, tune, plan, conductor, state, presets)?;
        if let Some(study) = &state.study {
            for figure in
                figures(study, &tune.problems[state.problem].label, &tune.methods[state.method].method)
            {
                write_figure(store, &state.name, &figure)?;
            }
        }
    }
    Ok(())
}

/// A row a settled trial, study by study.
fn table(store: &Store, tune: &TuneExperiment, conductor: &Conductor<'_>) -> Result<Columns, SweepError> {
    let mut rows: Vec<(&StudyState, &Trial, Value)> = Vec::new();
    for state in conductor.studies() {
        let Some(study) = &state.study else { continue };
        let dir = trials_dir(conductor.problem(state.problem).0, &tune.methods[state.method].method);
        for trial in &study.trials()[..study.settled()] {
            let bytes = store.read_file(&dir.join(&trial.id).join("metrics.json"))?;
            let metrics = bytes.and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or(Value::Null);
            rows.push((state, trial, metrics));
        }
    }
    let text = |pick: &dyn Fn(&StudyState, &Trial) -> Option<String>| {
        ColumnData::Str(rows.iter().map(|(state, trial, _)| pick(state, trial)).collect())
    };
    let note = |trial: &Trial, key: &str| trial.outcome.as_ref().and_then(|o| o.notes.get(key).cloned());
    let number = |key: &str| {
        ColumnData::F64(rows.iter().map(|(_, trial, _)| note(trial, key).and_then(|v| v.as_f64())).collect())
    };
    let value = |i: usize| {
        let of = |trial: &Trial| match &trial.outcome.as_ref()?.end {
            End::Complete(values) => values.get(i).copied(),
            End::Pruned if i == 0 => trial.outcome.as_ref()?.value(),
            _ => None,
        };
        ColumnData::F64(rows.iter().map(|(_, trial, _)| of(trial)).collect())
    };
    let mut columns = vec![
        ("study", text(&|state, _| Some(state.name.clone()))),
        ("problem", text(&|state, _| Some(conductor.problem(state.problem).0.to_owned()))),
        ("target", text(&|state, _| Some(tune.problems[state.problem].label.clone()))),
        ("method", text(&|state, _| Some(tune.methods[state.method].method.clone()))),
        ("number", ColumnData::I64(rows.iter().map(|(_, t, _)| Some(t.number as i64)).collect())),
        ("trial_id", text(&|_, trial| Some(trial.id.clone()))),
        ("same_as", ColumnData::I64(rows.iter().map(|(_, t, _)| t.twin.map(|n| n as i64)).collect())),
        (
            "state",
            text(&|_, trial| {
                Some(match &trial.outcome.as_ref()?.end {
                    End::Complete(_) => "complete".to_owned(),
                    End::Pruned => "pruned".to_owned(),
                    End::Failed(_) => "failed".to_owned(),
                })
            }),
        ),
        (
            "reason",
            text(&|_, trial| match &trial.outcome.as_ref()?.end {
                End::Failed(reason) => Some(reason.clone()),
                _ => None,
            }),
        ),
        ("objective", text(&|_, _| Some(names(&tune.study.objective).join("; ")))),
        ("value", value(0)),
    ];
    if tune.study.objective.values() > 1 {
        let by_clock = matches!(tune.study.objective, Objective::Pareto { cost: Cost::Seconds, .. });
        columns.push((if by_clock { "value_seconds" } else { "value_fge" }, value(1)));
    }
    for key in ["llc", "llc_mcse", "error", "r_hat", "ess", "fge", "expected_fge"] {
        columns.push((key, number(key)));
    }
    let of_reference = |pick: &dyn Fn(super::objective::Estimate) -> f64| {
        ColumnData::F64(rows.iter().map(|(state, ..)| state.reference.map(pick)).collect())
    };
    columns.push(("reference_llc", of_reference(&|r| r.llc)));
    columns.push(("reference_mcse", of_reference(&|r| r.mcse)));
    columns.push((
        "run_id",
        text(&|_, trial| note(trial, "run_id").and_then(|v| v.as_str().map(str::to_owned))),
    ));
    columns.push(("cut", text(&|_, trial| note(trial, "cut").map(|v| v.to_string()))));
    columns.push((
        "intermediate_values",
        text(&|_, trial| {
            let steps = trial.outcome.as_ref().map(|o| &o.steps).filter(|steps| !steps.is_empty())?;
            Some(json!(steps).to_string())
        }),
    ));
    let repeats = rows.iter().map(|(state, ..)| Some(state.reproducible)).collect();
    columns.push(("reproducible", ColumnData::Bool(repeats)));
    let seconds = rows.iter().map(|(_, _, metrics)| metrics["seconds"].as_f64()).collect();
    columns.push(("seconds", ColumnData::F64(seconds)));
    let mut columns: Vec<(String, ColumnData)> =
        columns.into_iter().map(|(name, data)| (name.to_owned(), data)).collect();
    let mut names: Vec<&String> =
        tune.methods.iter().flat_map(|m| m.dimensions.iter().map(|d| &d.name)).collect();
    names.sort();
    names.dedup();
    for name in names {
        let values: Vec<Option<&Scalar>> = rows.iter().map(|(_, trial, _)| trial.params.get(name)).collect();
        columns.push((format!("param_{name}"), typed(&values)));
    }
    Ok(columns)
}

/// Below the rows that the table on disk has of other studies, searched under this root from other files.
fn with_other_studies(store: &Store, new: Columns) -> Result<Columns, SweepError> {
    let Some(bytes) = store.read_file(Path::new(TRIALS))? else { return Ok(new) };
    let Ok(old) = read_parquet(&bytes) else {
        log::warn!("{TRIALS} cannot be read and is written anew");
        return Ok(new);
    };
    let studies = |columns: &Columns| match columns.iter().find(|(name, _)| name == "study") {
        Some((_, ColumnData::Str(names))) => names.clone(),
        _ => Vec::new(),
    };
    let ours: BTreeSet<Option<String>> = studies(&new).into_iter().collect();
    let keep: Vec<usize> =
        (0..).zip(studies(&old)).filter(|(_, s)| !ours.contains(s)).map(|(i, _)| i).collect();
    if keep.is_empty() {
        return Ok(new);
    }
    let rows = studies(&new).len();
    let mut names: Vec<String> = new.iter().map(|(name, _)| name.clone()).collect();
    names.extend(old.iter().map(|(name, _)| name.clone()).filter(|name| new.iter().all(|(n, _)| n != name)));
    let column =
        |columns: &Columns, name: &str| columns.iter().find(|(n, _)| n == name).map(|(_, data)| data.clone());
    let joined = names.into_iter().map(|name| {
        let kept = column(&old, &name).map(|data| data.rows(&keep));
        let data = ColumnData::join((kept, keep.len()), (column(&new, &name), rows));
        (name, data)
    });
    Ok(joined.collect())
}

/// Values as a column of the type that all of them have.
fn typed(values: &[Option<&Scalar>]) -> ColumnData {
    let all = |is: fn(&Scalar) -> bool| values.iter().flatten().all(|v| is(v));
    if all(|v| matches!(v, Scalar::Int(_))) {
        let int = |v: &Scalar| if let Scalar::Int(i) = v { Some(*i) } else { None };
        ColumnData::I64(values.iter().map(|v| v.and_then(int)).collect())
    } else if all(|v| matches!(v, Scalar::Int(_) | Scalar::Float(_))) {
        let float = |v: &Scalar| match v {
            Scalar::Int(i) => Some(*i as f64),
            Scalar::Float(x) => Some(*x),
            _ => None,
        };
        ColumnData::F64(values.iter().map(|v| v.and_then(float)).collect())
    } else if all(|v| matches!(v, Scalar::Bool(_))) {
        let bool = |v: &Scalar| if let Scalar::Bool(b) = v { Some(*b) } else { None };
        ColumnData::Bool(values.iter().map(|v| v.and_then(bool)).collect())
    } else {
        ColumnData::Str(values.iter().map(|v| v.map(Scalar::to_string)).collect())
    }
}

/// Where the best settings on a problem lie: a directory for `--presets`.
pub fn best_dir(problem: &str) -> PathBuf {
    Path::new("results/best").join(problem)
}

/// `results/best/p_…/sampler/<method>.yaml`, and beside `sampler/` what is known of it in `<method>.json`.
fn write_best(
    store: &Store,
    tune: &TuneExperiment,
    plan: &Plan,
    conductor: &Conductor<'_>,
    state: &StudyState,
    presets: Option<&Path>,
) -> Result<(), SweepError> {
    let (Some(winner), Some(reference)) = (state.winner(), state.reference) else { return Ok(()) };
    let Some(mut settings) = conductor.settings_of(plan, state, &winner.params) else { return Ok(()) };
    let method = &tune.methods[state.method].method;
    if let Some(precision) = tune.precision {
        settings.insert("dtype".to_owned(), Scalar::Text(precision.name().to_owned()));
    }
    let usage = |e: crate::config::ConfigErrors| SweepError::Proposer { why: e.to_string(), usage: true };
    let chosen = if tune.study.objective.values() > 1 { "least in error" } else { "best" };
    let text = format!(
        "# The {chosen} of {} trials of {method} on {} ({}, trial {}).\n{}",
        state.counts().0,
        tune.problems[state.problem].label.replace(char::is_control, " "),
        state.name,
        winner.number,
        preset_text(method, &settings, presets).map_err(usage)?
    );
    let dir = best_dir(conductor.problem(state.problem).0);
    store.write_file(&dir.join("sampler").join(format!("{method}.yaml")), text.as_bytes())?;
    let fresh = state.fresh_estimate();
    let newest = conductor.problem(state.problem).1.map_or(reference, Reference::estimate);
    let values = match winner.outcome.as_ref().map(|o| &o.end) {
        Some(End::Complete(values)) => json!(values),
        _ => Value::Null,
    };
    let known = json!({
        "study": state.name, "trial": winner.number, "trial_id": winner.id, "settings": settings,
        "objective": names(&tune.study.objective).join("; "), "values": values,
        "reference_llc": reference.llc, "reference_mcse": reference.mcse, "reference_rough": state.rough,
        "newest_reference_llc": newest.llc, "newest_reference_mcse": newest.mcse,
        "fresh_runs": state.fresh.iter().flatten().map(|f| f.as_ref().ok().map(|f| f.llc)).collect::<Vec<_>>(),
        "fresh_values": state.fresh.iter().flatten().map(|f| f.as_ref().ok().map(|f| &f.values)).collect::<Vec<_>>(),
        "fresh_mean_values": state.fresh_values().map(|v| v.iter().map(|v| v.0).collect::<Vec<_>>()),
        "fresh_half_widths": state.fresh_values().map(|v| v.iter().map(|v| v.1).collect::<Vec<_>>()),
        "fresh_llc": fresh.map(|f| f.0), "fresh_half_width": fresh.map(|f| f.1),
        "fresh_relative_error": state.off(newest),
    });
    let mut bytes = serde_json::to_vec_pretty(&known)?;
    bytes.push(b'\n');
    store.write_file(&dir.join(format!("{method}.json")), &bytes)?;
    Ok(())
}

/// The figures of a study.
pub fn figures(study: &Study, target: &str, method: &str) -> Vec<Figure> {
    let shares = importance(study, 0);
    let params: Vec<plot::Param> = study
        .space()
        .dimensions()
        .iter()
        .map(|d| plot::Param {
            name: d.name.clone(),
            log: matches!(d.domain, Domain::Float { log: true, .. } | Domain::Int { log: true, .. }),
            choices: match &d.domain {
                Domain::Categorical { choices } => choices.iter().map(Scalar::to_string).collect(),
                _ => Vec::new(),
            },
        })
        .collect();
    let trial = |t: &Trial| {
        let outcome = t.outcome.as_ref();
        let (state, value) = match outcome.map(|o| &o.end) {
            Some(End::Complete(values)) => (plot::TrialState::Complete, values.first().copied()),
            Some(End::Pruned) => (plot::TrialState::Pruned, outcome.and_then(Outcome::value)),
            _ => (plot::TrialState::Failed, None),
        };
        let work = || outcome.and_then(|o| o.notes.get("fge")).and_then(Value::as_f64);
        let cost = match outcome.map(|o| &o.end) {
            Some(End::Complete(values)) if values.len() > 1 => Some(values[1]),
            _ => work(),
        };
        plot::Trial { number: t.number, state, value, cost, params: t.point().to_vec() }
    };
    let title = format!("{method} on {target}");
    let objective = names(&study.spec().objective);
    let settled = &study.trials()[..study.settled()];
    let is_searched = |key: &String| study.space().dimensions().iter().any(|d| d.name == *key);
    let is_cut = |t: &&Trial| match t.outcome.as_ref().and_then(|o| o.notes.get("cut")) {
        Some(Value::Object(cut)) => cut.keys().any(is_searched),
        _ => false,
    };
    let shown = plot::Trials {
        study: &title,
        objective: objective[0],
        cost: objective.get(1).copied().unwrap_or("work (FGE)"),
        params,
        trials: settled.iter().map(trial).collect(),
        shortened: settled.iter().filter(is_cut).count(),
        importance: shares.iter().map(|i| (i.name.clone(), i.share)).collect(),
        importance_method: "fANOVA",
    };
    // The two that matter most, of those that count always where there are two.
    let place = |name: &str| study.space().dimensions().iter().position(|d| d.name == name);
    let mut order: Vec<usize> = shares.iter().filter_map(|i| place(&i.name)).collect();
    order.extend((0..study.space().axes().len()).filter(|i| !order.contains(i)).collect::<Vec<_>>());
    let choice = |i: &usize| matches!(study.space().axes()[*i], Axis::Choice(_));
    order.sort_by_key(|i| (!study.space().dimensions()[*i].when.is_empty(), choice(i)));
    let (first, second) = (order.first().copied().unwrap_or(0), order.get(1).copied().unwrap_or(usize::MAX));
    vec![
        plot::optimization_history(&shown),
        plot::param_importance(&shown),
        plot::parallel_coordinate(&shown),
        plot::contour(&shown, first, second),
        plot::pareto(&shown),
    ]
}

fn write_figure(store: &Store, study: &str, figure: &Figure) -> Result<(), SweepError> {
    let dir = Path::new("results/studies/figures").join(study.replace(':', "-"));
    let stem = figure.name().stem();
    store.write_file(&dir.join(format!("{stem}.svg")), figure.svg().as_bytes())?;
    match figure.png() {
        Ok(png) => store.write_file(&dir.join(format!("{stem}.png")), &png)?,
        Err(error) => log::warn!("{study}: {stem}.png is not drawn: {error}"),
    }
    Ok(())
}
