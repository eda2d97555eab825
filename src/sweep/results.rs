//! What a sweep leaves for analysis: all its runs in one HDF5 file, a table of all runs of the
//! store, and the manifest that says which runs belong to the experiment.

use serde_json::{Map, Value, json};

use super::SweepError;
use super::files;
use super::plan::Plan;
use super::report::{RunState, Summary};
use crate::diagnostics::Analysis;
use crate::io::Attr;
use crate::io::gathered::{GatheredRun, write_gathered};
use crate::io::netcdf;
use crate::io::table::{ColumnData, write_parquet};
use crate::store::{RUN, Ref, Status, Store, experiment_manifest, results_path};
use crate::trace::Trace;

/// Keys of an analysis that the table holds as floating-point columns.
const NUMBERS: [&str; 22] = [
    "llc_mean",
    "llc_mcse",
    "llc_sd",
    "llc_bias",
    "llc_ci_low",
    "llc_ci_high",
    "ess_mean",
    "ess_bulk",
    "ess_tail",
    "r_hat",
    "fge_warmup",
    "fge_sampling",
    "beta",
    "gamma",
    "nbeta",
    "l0",
    "exact_lambda",
    "exact_llc",
    "e_bfmi",
    "drift_z",
    "control_llc",
    "control_mcse",
];

/// Keys of an analysis that are whole numbers.
const COUNTS: [&str; 4] = ["n_chains", "n_draws", "divergences", "exact_multiplicity"];

/// Writes `results/<experiment>.h5`, `results/<experiment>.manifest.json` and
/// `results/llc_runs.parquet`, and brings the catalogue up to date.
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
    store.write_file(&results_path("llc_runs.parquet")?, &run_table(store)?)?;
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

fn join(reasons: &[Value]) -> String {
    reasons.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; ")
}

/// One row a finished run of the store: the keys of its analysis, its target's label, its seconds.
fn run_table(store: &Store) -> Result<Vec<u8>, SweepError> {
    let mut rows: Vec<(Ref, Map<String, Value>)> = Vec::new();
    for record in store.list_refs(RUN)? {
        if !matches!(record.status, Status::Done) {
            continue;
        }
        // A damaged object is the next sweep's business; the table shows what is whole.
        let Ok(bytes) = files::object(store, &record, "analysis.json") else { continue };
        if let Value::Object(map) = serde_json::from_slice(&bytes)? {
            rows.push((record, map));
        }
    }
    rows.sort_by_key(|row| row.0.id);
    type Pick<'a> = &'a dyn Fn(&Ref, &Map<String, Value>) -> Option<String>;
    let text = |pick: Pick<'_>| ColumnData::Str(rows.iter().map(|(r, m)| pick(r, m)).collect());
    let detail = |name: &'static str| text(&move |r, _| r.details[name].as_str().map(str::to_owned));
    let mut columns: Vec<(&str, ColumnData)> = vec![
        ("run_id", text(&|r, _| Some(r.id.to_string()))),
        ("target_id", detail("target_id")),
        ("target", detail("label")),
        ("sampler", detail("sampler")),
    ];
    for name in NUMBERS {
        let values = rows.iter().map(|(_, m)| m.get(name).and_then(Value::as_f64)).collect();
        columns.push((name, ColumnData::F64(values)));
    }
    for name in COUNTS {
        let values = rows.iter().map(|(_, m)| m.get(name).and_then(Value::as_i64)).collect();
        columns.push((name, ColumnData::I64(values)));
    }
    columns.push(("verdict", text(&|_, m| m.get("verdict").and_then(Value::as_str).map(str::to_owned))));
    columns.push(("reasons", text(&|_, m| m.get("reasons").and_then(Value::as_array).map(|r| join(r)))));
    let seconds = rows.iter().map(|(r, _)| r.details["provenance"]["seconds"].as_f64()).collect();
    columns.push(("seconds", ColumnData::F64(seconds)));
    columns.push(("settings", text(&|r, _| Some(r.config.to_string()))));
    Ok(write_parquet(&columns)?)
}
