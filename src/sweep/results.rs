//! What a sweep leaves for analysis: all its runs in one HDF5 file, a table of all runs of the
//! store, and the manifest that says which runs belong to the experiment.

use serde_json::{Value, json};

use super::SweepError;
use super::files;
use super::plan::Plan;
use super::report::{RunState, Summary};
use super::run_table::{join, write_tables};
use crate::diagnostics::Analysis;
use crate::io::Attr;
use crate::io::gathered::{GatheredRun, write_gathered};
use crate::io::netcdf;
use crate::store::{RUN, Store, experiment_manifest, results_path};
use crate::trace::Trace;

/// Writes `results/<experiment>.h5`, `results/<experiment>.manifest.json`,
/// `results/llc_runs.parquet` and `results/llc_runs.csv`, and brings the catalogue up to date.
pub fn gather(plan: &Plan, store: &Store, summary: &Summary) -> Result<(), SweepError> {
    let mut traces: Vec<(usize, Trace, &Analysis)> = Vec::new();
    for (index, (run, report)) in plan.runs.iter().zip(&summary.runs).enumerate() {
        let RunState::Done(analysis) = &report.state else { continue };
        let Some(record) = store.read_ref(RUN, &files::key(&run.id))? else { continue };
        let (trace, _) = netcdf::read_trace(&files::object(store, &record, "trace.nc")?)?;
        traces.push((index, trace, analysis));
    }
    let ids: Vec<(String, String)> = traces
        .iter()
        .map(|(i, ..)| (plan.runs[*i].id.to_string(), plan.targets[plan.runs[*i].target].id.to_string()))
        .collect();
    let mut gathered = Vec::with_capacity(traces.len());
    for ((index, trace, analysis), (run_id, target_id)) in traces.iter().zip(&ids) {
        gathered.push(GatheredRun {
            run_id,
            target_id,
            sampler: plan.runs[*index].sampler.algo.name(),
            trace,
            attrs: attributes(analysis)?,
        });
    }
    store.write_file(&results_path(&format!("{}.h5", plan.name))?, &write_gathered(&gathered)?)?;
    let manifest = json!({
        "experiment": plan.name,
        "targets": plan.targets.iter().map(|t| json!({ "target_id": t.id.to_string(), "label": t.label })).collect::<Vec<_>>(),
        "runs": plan.runs.iter().zip(&summary.runs).map(|(run, report)| json!({
            "run_id": run.id.to_string(),
            "target_id": plan.targets[run.target].id.to_string(),
            "sampler": run.sampler.algo.name(),
            "status": match &report.state { RunState::Done(_) => "done", RunState::Failed(_) => "failed" },
        })).collect::<Vec<_>>(),
    });
    let mut text = serde_json::to_vec_pretty(&manifest)?;
    text.push(b'\n');
    store.write_file(&experiment_manifest(&plan.name)?, &text)?;
    write_tables(store)?;
    store.rebuild_catalog()?;
    Ok(())
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
