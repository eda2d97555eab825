//! What a sweep leaves for analysis: all its runs in one HDF5 file, a table of all runs of the
//! store, and the manifest that says which runs belong to the experiment.

use serde_json::{Value, json};

use super::SweepError;
use super::describe::detail;
use super::files;
use super::plan::Plan;
use super::report::{RunState, Summary};
use super::run_table::{join, write_tables};
use crate::diagnostics::Analysis;
use crate::io::Attr;
use crate::io::gathered::{GatheredRun, write_gathered};
use crate::io::netcdf;
use crate::store::{Experiment, RUN, Ref, Status, Store, experiment_manifest, results_path};

/// Writes `results/<experiment>.h5`, `results/<experiment>.manifest.json`,
/// `results/llc_runs.parquet` and `results/llc_runs.csv`, and brings the catalogue up to date.
pub fn gather(plan: &Plan, store: &Store, summary: &Summary) -> Result<(), SweepError> {
    let mut done = Vec::new();
    for (run, report) in plan.runs.iter().zip(&summary.runs) {
        if matches!(report.state, RunState::Done(_)) {
            done.extend(store.read_ref(RUN, &files::key(&run.id))?);
        }
    }
    write_runs(store, &plan.name, &done)?;
    list(plan, store, summary)
}

/// All that [`gather`] writes but `results/<experiment>.h5`, which holds every draw of every run.
///
/// # Errors
/// As [`gather`].
pub fn list(plan: &Plan, store: &Store, summary: &Summary) -> Result<(), SweepError> {
    let manifest = json!({
        "experiment": plan.name,
        "targets": plan.targets.iter().map(|t| json!({ "target_id": t.id.to_string(), "label": t.label })).collect::<Vec<_>>(),
        "runs": plan.runs.iter().zip(&summary.runs).map(|(run, report)| json!({
            "run_id": run.id.to_string(),
            "target_id": plan.targets[run.target].id.to_string(),
            "sampler": run.sampler.algo.name(),
            "status": match &report.state { RunState::Done(_) => "done", RunState::Failed(_) => "failed",
                RunState::Cut(_) => "given up" },
        })).collect::<Vec<_>>(),
    });
    let mut text = serde_json::to_vec_pretty(&manifest)?;
    text.push(b'\n');
    store.write_file(&experiment_manifest(&plan.name)?, &text)?;
    write_tables(store)?;
    store.rebuild_catalog()?;
    Ok(())
}

/// Writes `results/<experiment>.h5` from records of finished runs, in their order.
fn write_runs(store: &Store, experiment: &str, records: &[Ref]) -> Result<(), SweepError> {
    let mut runs = Vec::with_capacity(records.len());
    for record in records {
        let (trace, _) = netcdf::read_trace(&files::object(store, record, "trace.nc")?)?;
        runs.push((record.id.to_string(), trace, attributes(&files::read_analysis(store, record)?)?));
    }
    let mut gathered = Vec::with_capacity(runs.len());
    for (record, (run_id, trace, attrs)) in records.iter().zip(&runs) {
        let (target_id, sampler) = (detail(record, "target_id"), detail(record, "sampler"));
        gathered.push(GatheredRun { run_id, target_id, sampler, trace, attrs: attrs.clone() });
    }
    store.write_file(&results_path(&format!("{experiment}.h5"))?, &write_gathered(&gathered)?)?;
    Ok(())
}

/// Brings `results/` up to date with an experiment whose records came from elsewhere.
///
/// # Errors
/// [`SweepError::Store`] for a disk that refuses, or an object that is damaged or missing.
pub fn gather_again(store: &Store, experiment: &Experiment) -> Result<(), SweepError> {
    let mut done = Vec::new();
    for id in &experiment.order {
        done.extend(store.read_ref(RUN, id)?.filter(|record| record.status == Status::Done));
    }
    write_runs(store, &experiment.name, &done)?;
    write_tables(store)
}

fn attributes(analysis: &Analysis) -> Result<Vec<(String, Attr)>, SweepError> {
    let Value::Object(map) = serde_json::to_value(analysis)? else { return Ok(Vec::new()) };
    let attrs = map
        .into_iter()
        .filter(|(key, _)| !["run_id", "target_id", "sampler"].contains(&key.as_str()))
        .filter_map(|(key, value)| {
            let attr = match value {
                Value::String(s) => Attr::Str(s),
                Value::Number(n) => n.as_i64().map(Attr::I64).or_else(|| n.as_f64().map(Attr::F64))?,
                Value::Array(reasons) => Attr::Str(join(&reasons)),
                _ => return None,
            };
            Some((key, attr))
        })
        .collect();
    Ok(attrs)
}
