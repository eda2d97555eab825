//! What a record tells by itself, without the experiment file that it came from.

use serde_json::{Value, json};

use super::{SweepError, files};
use crate::config::{Dtype, SamplerSpec};
use crate::diagnostics::Analysis;
use crate::io::{netcdf, npz};
use crate::store::{Experiment, Hash, Ref, Status, Store, TARGET};

fn wrong(record: &Ref, what: &str) -> SweepError {
    SweepError::Record { id: record.id.to_string(), what: what.to_owned() }
}

/// A text among a record's details; empty where there is none.
pub fn detail<'a>(record: &'a Ref, name: &str) -> &'a str {
    record.details[name].as_str().unwrap_or_default()
}

/// The record of the target that a run is on.
pub fn target_of(store: &Store, run: &Ref) -> Result<Ref, SweepError> {
    let id: Hash = detail(run, "target_id").parse()?;
    store.read_ref(TARGET, &id)?.ok_or_else(|| wrong(run, "the record of its target is gone"))
}

/// All that is known of a unit that is done: the content of a target's meta.json, or of a run's
/// manifest.json with its `analysis` and `timing`. Of one that failed, its status and reason.
///
/// # Errors
/// [`SweepError::Store`] for an object that is damaged or missing, [`SweepError::Record`] and
/// [`SweepError::Json`] for a record that this version does not understand.
pub fn describe(store: &Store, record: &Ref) -> Result<Value, SweepError> {
    let mut known = match (&record.status, record.kind.as_str()) {
        (Status::Done, TARGET) => meta(store, record)?,
        (Status::Done, _) => {
            let mut known = manifest(store, record)?;
            known["analysis"] = serde_json::from_slice(&files::object(store, record, "analysis.json")?)?;
            known["timing"] = record.details["timing"].clone();
            known
        }
        (Status::Failed { .. }, _) => {
            json!({ "config": record.config, "provenance": record.details["provenance"] })
        }
    };
    known["kind"] = json!(record.kind);
    known["id"] = json!(record.id);
    known["urn"] = json!(record.urn());
    known["dir"] = json!(record.dir);
    known["status"] = json!(record.status);
    known["when"] = json!(record.when);
    Ok(known)
}

fn meta(store: &Store, record: &Ref) -> Result<Value, SweepError> {
    let mut params = npz::read(&files::object(store, record, "params.npz")?)?;
    let dim = params.remove("flat").map(|flat| flat.shape.iter().product());
    let dim = dim.ok_or_else(|| wrong(record, "params.npz has no array flat"))?;
    files::meta(store, record, detail(record, "label"), &record.config, dim)
}

fn manifest(store: &Store, record: &Ref) -> Result<Value, SweepError> {
    let sampler: SamplerSpec = serde_json::from_value(record.config["sampler"].clone())?;
    let target: Dtype = serde_json::from_value(target_of(store, record)?.config["dtype"].clone())?;
    let names = (record.details["target_id"].clone(), detail(record, "label"), detail(record, "sampler"));
    Ok(files::manifest(record, names, target, sampler.dtype))
}

/// Writes the files in the `runs/` tree that are no objects (meta.json, manifest.json, timing.json) for all
/// finished members of an experiment: what a sweep does for its own, for records that came from elsewhere.
pub fn lay_out(store: &Store, experiment: &Experiment) -> Result<(), SweepError> {
    for record in members(store, experiment)? {
        let Some(dir) = record.dir.as_ref().filter(|_| record.status == Status::Done) else { continue };
        if record.kind == TARGET {
            store.write_file(&dir.join("meta.json"), &files::pretty(&meta(store, &record)?)?)?;
        } else {
            store.write_file(&dir.join("manifest.json"), &files::pretty(&manifest(store, &record)?)?)?;
            store.write_file(&dir.join("timing.json"), &files::pretty(&record.details["timing"])?)?;
        }
    }
    Ok(())
}

/// Records of the members of an experiment that have one: targets, then runs.
pub fn members(store: &Store, experiment: &Experiment) -> Result<Vec<Ref>, SweepError> {
    let mut records = Vec::new();
    for (kind, ids) in [(TARGET, &experiment.targets), (crate::store::RUN, &experiment.runs)] {
        for id in ids {
            records.extend(store.read_ref(kind, id)?);
        }
    }
    Ok(records)
}

/// Whether an object from elsewhere is what its name says: arrays, draws, an analysis, a build.
///
/// # Errors
/// What is wrong with it.
pub fn judge(name: &str, bytes: &[u8]) -> Result<(), String> {
    let told = |e: &dyn std::fmt::Display| format!("is no {name}: {e}");
    match name {
        "analysis.json" => serde_json::from_slice::<Analysis>(bytes).map(drop).map_err(|e| told(&e)),
        "build.json" => files::is_build(bytes).map_err(|e| told(&e)),
        "trace.nc" => netcdf::read_trace(bytes).map(drop).map_err(|e| told(&e)),
        _ if name.ends_with(".npz") => npz::read(bytes).map(drop).map_err(|e| told(&e)),
        _ => Ok(()),
    }
}
