//! The table of all finished runs of a store: a row a run, with a column for every setting that varies.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::describe::detail;
use super::{SweepError, files};
use crate::io::csv::write_csv;
use crate::io::table::{ColumnData, write_parquet};
use crate::store::{RUN, Ref, Status, Store, TARGET, results_path};

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

/// Settings that become columns of the written tables at most; all of them stand in `settings`.
const MOST_SETTINGS: usize = 128;

/// Columns of one length, a row a run in the order of ids.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunTable {
    /// What every run has: names, estimates, work, verdict.
    pub columns: Vec<(String, ColumnData)>,
    /// Every configuration key that some run has, by name.
    pub settings: Vec<Setting>,
    /// What each run's random numbers come from: runs of one stream share draws.
    pub streams: Vec<String>,
}

/// A configuration key as a column.
///
/// Keys are dotted paths into the run's `sampler` and `posterior` and its target's configuration:
/// `sampler.step_size`, `posterior.gamma`, `target.model.depth`. Numbers, texts and truth values keep
/// their type where all runs that have the key agree on it; else, and for lists, the column holds the
/// values as JSON. A run without the key has a null.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// The key.
    pub name: String,
    /// Its values.
    pub data: ColumnData,
    /// Do runs that have the key differ in its value?
    pub varies: bool,
}

impl RunTable {
    /// The finished runs of `store` that `chosen` takes. Runs whose analysis is damaged are left out: the
    /// next sweep makes them again.
    ///
    /// # Errors
    /// [`SweepError::Store`] where the disk refuses.
    pub fn of(store: &Store, chosen: impl Fn(&Ref) -> bool) -> Result<Self, SweepError> {
        let mut rows: Vec<Row> = Vec::new();
        let mut targets = BTreeMap::new();
        for target in store.list_refs(TARGET)? {
            targets.insert(target.id.to_string(), target.config);
        }
        for record in store.list_refs(RUN)? {
            if !matches!(record.status, Status::Done) || !chosen(&record) {
                continue;
            }
            let Ok(bytes) = files::object(store, &record, "analysis.json") else { continue };
            let Ok(Value::Object(analysis)) = serde_json::from_slice(&bytes) else {
                log::warn!("run {}: its analysis.json is none; it is left out", record.id.short(12));
                continue;
            };
            let settings = settings_of(&record, targets.get(detail(&record, "target_id")));
            rows.push(Row { record, analysis, settings });
        }
        rows.sort_by_key(|row| row.record.id);
        let streams = rows.iter().map(|row| detail(&row.record, "stream_id").to_owned()).collect();
        Ok(Self { columns: columns(&rows), settings: settings(&rows), streams })
    }

    /// Number of runs.
    pub fn len(&self) -> usize {
        self.columns.first().map_or(0, |(_, data)| data.len())
    }

    /// Is there no run?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The columns that are written: those of every run, then the settings that vary.
    fn written(&self) -> Vec<(&str, ColumnData)> {
        let varying = self.settings.iter().filter(|setting| setting.varies);
        let count = varying.clone().count();
        if count > MOST_SETTINGS {
            log::warn!(
                "results/llc_runs: {count} settings vary; the first {MOST_SETTINGS} by name have columns, and all \
                 are in the column settings"
            );
        }
        let all = self.columns.iter().map(|(name, data)| (name.as_str(), data));
        let varying = varying.take(MOST_SETTINGS).map(|setting| (setting.name.as_str(), &setting.data));
        all.chain(varying).map(|(name, data)| (name, data.clone())).collect()
    }
}

/// Writes `results/llc_runs.parquet` and `results/llc_runs.csv`: all finished runs of the store.
///
/// # Errors
/// As [`RunTable::of`].
pub fn write_tables(store: &Store) -> Result<(), SweepError> {
    let table = RunTable::of(store, |_| true)?;
    let columns = table.written();
    store.write_file(&results_path("llc_runs.parquet")?, &write_parquet(&columns)?)?;
    store.write_file(&results_path("llc_runs.csv")?, &write_csv(&columns)?)?;
    Ok(())
}

struct Row {
    record: Ref,
    analysis: Map<String, Value>,
    settings: BTreeMap<String, Value>,
}

fn columns(rows: &[Row]) -> Vec<(String, ColumnData)> {
    type Pick<'a> = &'a dyn Fn(&Row) -> Option<String>;
    let text = |pick: Pick<'_>| ColumnData::Str(rows.iter().map(pick).collect());
    let details = |name: &'static str| text(&move |row| row.record.details[name].as_str().map(str::to_owned));
    let mut columns = vec![
        ("run_id", text(&|row| Some(row.record.id.to_string()))),
        ("target_id", details("target_id")),
        ("target", details("label")),
        ("sampler", details("sampler")),
    ];
    for name in NUMBERS {
        let values = rows.iter().map(|row| row.analysis.get(name).and_then(Value::as_f64)).collect();
        columns.push((name, ColumnData::F64(values)));
    }
    for name in COUNTS {
        let values = rows.iter().map(|row| row.analysis.get(name).and_then(Value::as_i64)).collect();
        columns.push((name, ColumnData::I64(values)));
    }
    columns.push(("verdict", text(&|row| row.analysis.get("verdict")?.as_str().map(str::to_owned))));
    columns.push(("reasons", text(&|row| row.analysis.get("reasons")?.as_array().map(|r| join(r)))));
    let seconds = rows.iter().map(|row| row.record.details["provenance"]["seconds"].as_f64()).collect();
    columns.push(("seconds", ColumnData::F64(seconds)));
    columns.push(("settings", text(&|row| Some(row.record.config.to_string()))));
    columns.into_iter().map(|(name, data)| (name.to_owned(), data)).collect()
}

/// Reasons as one text.
pub fn join(reasons: &[Value]) -> String {
    reasons.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; ")
}

/// The settings of one run, flat. The levels that name a kind (`algo.sgld`, `problem.mlp`) are left out of
/// the keys: the kind of target has a key of its own, `target.problem`, and the sampler a column.
fn settings_of(record: &Ref, target: Option<&Value>) -> BTreeMap<String, Value> {
    let mut flat = BTreeMap::new();
    let null = Value::Null;
    for (part, value, tag) in [
        ("sampler", &record.config["sampler"], "algo"),
        ("posterior", &record.config["posterior"], ""),
        ("target", target.unwrap_or(&null), "problem"),
    ] {
        let Value::Object(map) = value else { continue };
        for (key, value) in map {
            match value {
                Value::Object(kinds) if key == tag && kinds.len() == 1 => {
                    for (kind, inner) in kinds {
                        if part == "target" {
                            flat.insert(format!("{part}.{key}"), Value::from(kind.as_str()));
                        }
                        flatten(part, inner, &mut flat);
                    }
                }
                value => flatten(&format!("{part}.{key}"), value, &mut flat),
            }
        }
    }
    flat
}

fn flatten(prefix: &str, value: &Value, flat: &mut BTreeMap<String, Value>) {
    if let Value::Object(map) = value {
        for (key, value) in map {
            flatten(&format!("{prefix}.{key}"), value, flat);
        }
    } else {
        flat.insert(prefix.to_owned(), value.clone());
    }
}

fn settings(rows: &[Row]) -> Vec<Setting> {
    let names: BTreeSet<&String> = rows.iter().flat_map(|row| row.settings.keys()).collect();
    names
        .into_iter()
        .map(|name| {
            let values: Vec<Option<&Value>> = rows.iter().map(|row| row.settings.get(name)).collect();
            let distinct: BTreeSet<String> = values.iter().flatten().map(|value| value.to_string()).collect();
            Setting { name: name.clone(), data: typed(&values), varies: distinct.len() > 1 }
        })
        .collect()
}

/// Values as a column of the type that all of them have.
fn typed(values: &[Option<&Value>]) -> ColumnData {
    let there = || values.iter().flatten().filter(|value| !value.is_null());
    // Numbers that neither fit an i64 nor are fractions are seeds: as text they stay exact.
    let number = |value: &Value| value.is_i64() || value.is_f64();
    if there().all(|value| value.is_boolean()) {
        ColumnData::Bool(values.iter().map(|value| value.and_then(Value::as_bool)).collect())
    } else if there().all(|value| value.is_i64()) {
        ColumnData::I64(values.iter().map(|value| value.and_then(Value::as_i64)).collect())
    } else if there().all(|value| number(value)) {
        ColumnData::F64(values.iter().map(|value| value.and_then(Value::as_f64)).collect())
    } else {
        let text = |value: &Value| match value {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        ColumnData::Str(values.iter().map(|value| value.and_then(text)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Hash;
    use serde_json::json;

    /// A store with one target and one run a configuration.
    fn filled(runs: &[Value]) -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let record = |kind: &str, name: &str, config: Value, objects| Ref {
            kind: kind.into(),
            id: Hash::of(name.as_bytes()),
            dir: None,
            status: Status::Done,
            when: "2026-01-01T00:00:00Z".into(),
            config,
            objects,
            details: json!({ "target_id": Hash::of(b"t"), "label": "=t", "sampler": "sgld",
                "provenance": { "seconds": 1.5 } }),
        };
        let target = json!({ "problem": { "mlp": { "model": { "depth": 2 } } }, "seed": 42 });
        store.write_ref(&record(TARGET, "t", target, BTreeMap::new())).unwrap();
        for (i, config) in runs.iter().enumerate() {
            let analysis = json!({ "llc_mean": i, "llc_mcse": null, "verdict": "ok", "reasons": [] });
            let hash = store.put(analysis.to_string().as_bytes()).unwrap();
            let objects = [("analysis.json".to_owned(), hash)].into();
            store.write_ref(&record(RUN, &i.to_string(), config.clone(), objects)).unwrap();
        }
        (dir, store)
    }

    fn run(algo: Value, gamma: Value) -> Value {
        json!({ "sampler": { "algo": { "sgld": algo }, "seed": 1 }, "posterior": { "gamma": gamma } })
    }

    #[test]
    fn what_varies_is_a_column_of_its_type() {
        let runs = [
            run(
                json!({ "step_size": 0.1, "steps": 10, "precond": "none", "hidden": [1], "only": true }),
                json!(1),
            ),
            run(
                json!({ "step_size": 1, "steps": 20, "precond": "adam", "hidden": [2], "seedy": u64::MAX }),
                json!("auto"),
            ),
            run(
                json!({ "step_size": 1, "steps": 20, "precond": "adam", "hidden": [2], "seedy": 1 }),
                json!(null),
            ),
        ];
        let (_dir, store) = filled(&runs);
        let table = RunTable::of(&store, |_| true).unwrap();
        let of = |name: &str| table.settings.iter().find(|s| s.name == name).unwrap();
        let varying: Vec<&str> =
            table.settings.iter().filter(|s| s.varies).map(|s| s.name.as_str()).collect();
        let expected = [
            "posterior.gamma",
            "sampler.hidden",
            "sampler.precond",
            "sampler.seedy",
            "sampler.step_size",
            "sampler.steps",
        ];
        assert_eq!(varying, expected);
        // Rows are in the order of ids.
        let first = |data: &ColumnData| match data {
            ColumnData::F64(v) => v.iter().flatten().filter(|x| **x == 0.1).count(),
            ColumnData::I64(v) => v.iter().flatten().filter(|x| **x == 10).count(),
            ColumnData::Str(v) => v
                .iter()
                .flatten()
                .filter(|x| ["auto", "none", "[1]", "18446744073709551615"].contains(&x.as_str()))
                .count(),
            ColumnData::Bool(v) => v.iter().flatten().count(),
        };
        for name in expected {
            assert_eq!(first(&of(name).data), 1, "{name}: {:?}", of(name).data);
        }
        assert!(matches!(of("sampler.step_size").data, ColumnData::F64(_)));
        assert!(matches!(of("sampler.steps").data, ColumnData::I64(_)));
        assert!(matches!(of("sampler.only").data, ColumnData::Bool(_)));
        assert!(matches!(&of("posterior.gamma").data, ColumnData::Str(v) if v.iter().flatten().count() == 2));
        assert!(matches!(&of("target.problem").data, ColumnData::Str(v) if v[0].as_deref() == Some("mlp")));
        assert!(matches!(&of("target.model.depth").data, ColumnData::I64(v) if v[0] == Some(2)));
        assert_eq!(RunTable::of(&store, |record| record.id == Hash::of(b"0")).unwrap().len(), 1);

        write_tables(&store).unwrap();
        let csv =
            String::from_utf8(store.read_file(&results_path("llc_runs.csv").unwrap()).unwrap().unwrap())
                .unwrap();
        let mut lines = csv.lines();
        let head = lines.next().unwrap();
        assert!(
            head.starts_with("run_id,target_id,target,sampler,llc_mean,")
                && head.ends_with(",sampler.step_size,sampler.steps")
        );
        assert!(lines.clone().count() == 3 && lines.all(|line| line.contains(",'=t,sgld,")), "{csv}");
        let parquet = store.read_file(&results_path("llc_runs.parquet").unwrap()).unwrap().unwrap();
        let names: Vec<String> =
            crate::io::table::read_parquet(&parquet).unwrap().into_iter().map(|c| c.0).collect();
        assert_eq!(names.join(","), head);
    }
}
