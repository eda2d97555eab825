//! What a target and a run leave on disk: their files' content, their records, their logs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::finish::Finished;
use super::plan::{PlannedRun, PlannedTarget};
use super::ranks::{Launch, RankPlace};
use super::unit::Failure;
use super::{SweepError, tensorboard};
use crate::config::{Dtype, Id, PosteriorSpec, Problem};
use crate::device::Arith;
use crate::diagnostics::Analysis;
use crate::io::npz::{self, Array, Values};
use crate::store::{Hash, RUN, Ref, Status, Store, StoreError, TARGET, build_log, run_log, urn};
use crate::target::{Exact, ExternalArrays, Target, Tensor, layers};

/// Objects that stay in the store and are not laid out in the `runs/` tree.
pub const INTERNAL: [&str; 2] = ["build.json", "state.bin"];

/// When, where, and by what something was made: everything that is no content.
#[derive(Clone, Debug, Serialize)]
pub struct Provenance {
    /// End of the work, RFC 3339 with milliseconds, UTC.
    pub when: String,
    /// Version of the program.
    pub version: &'static str,
    /// Commit of the program.
    pub git_sha: &'static str,
    /// Instruction set.
    pub arithmetic: &'static str,
    /// Arithmetic of the device that chains ran on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// How the job was launched.
    pub launch: String,
    /// Machines that did the work.
    pub hosts: Vec<String>,
    /// What the ranks on those machines got.
    pub ranks: Vec<RankPlace>,
    /// Wall seconds of all units together.
    pub seconds: f64,
}

impl Provenance {
    /// Provenance of work that ends now.
    pub fn now(launch: &Launch, seconds: f64, hosts: Vec<String>) -> Self {
        Self {
            when: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string(),
            version: crate::VERSION,
            git_sha: crate::GIT_SHA,
            arithmetic: Arith::current().name(),
            device: None,
            launch: launch.by.clone(),
            ranks: launch.on(&hosts),
            hosts,
            seconds,
        }
    }

    /// The same of chains that ran on a device.
    pub fn on_device(self, arithmetic: Option<String>) -> Self {
        Self { device: arithmetic, ..self }
    }
}

/// The hash that an id is stored under.
pub fn key(id: &Id) -> Hash {
    Hash(id.0)
}

/// The part of a built target that is neither data nor parameters.
#[derive(Serialize, Deserialize)]
struct Build {
    target: Target,
}

/// Whether `bytes` are a `build.json`.
pub fn is_build(bytes: &[u8]) -> Result<(), serde_json::Error> {
    serde_json::from_slice::<Build>(bytes).map(drop)
}

/// Stores a target's content and returns its record.
pub fn target_ref(
    store: &Store,
    planned: &PlannedTarget,
    target: &Target,
    provenance: &Provenance,
) -> Result<Ref, SweepError> {
    let numbers = |values: &[f64], shape: Vec<usize>| Array {
        shape,
        values: match target.spec.dtype {
            Dtype::F32 => Values::F32(values.iter().map(|&x| x as f32).collect()),
            Dtype::F64 => Values::F64(values.to_vec()),
        },
    };
    let rows = target.x.len().checked_div(target.in_dim).unwrap_or(0);
    let data = npz::write(&[
        ("X", numbers(&target.x, vec![rows, target.in_dim])),
        ("Y", numbers(&target.y, vec![rows, target.out_dim])),
    ])?;
    let shapes = Array::text(serde_json::to_string(&layer_shapes(target, planned.dim))?);
    let params = npz::write(&[
        ("flat", numbers(&target.w_star, vec![target.w_star.len()])),
        ("layer_shapes", shapes),
    ])?;
    let mut lean = Target { x: Vec::new(), y: Vec::new(), w_star: Vec::new(), ..target.clone() };
    if let Problem::External(external) = &mut lean.spec.problem {
        // Content is hashed, and where the user keeps it is no content.
        (external.data, external.params) = (PathBuf::new(), PathBuf::new());
    }
    let mut objects = BTreeMap::new();
    for (name, bytes) in [
        ("data.npz", data),
        ("params.npz", params),
        ("build.json", serde_json::to_vec(&Build { target: lean })?),
    ] {
        objects.insert(name.to_owned(), store.put(&bytes)?);
    }
    Ok(Ref {
        kind: TARGET.to_owned(),
        id: key(&planned.id),
        dir: Some(store.target_dir(&key(&planned.id))?),
        status: Status::Done,
        when: provenance.when.clone(),
        config: json!(planned.spec),
        objects,
        details: json!({ "label": planned.label, "provenance": provenance }),
    })
}

/// Reads a target back from its record.
pub fn read_target(store: &Store, planned: &PlannedTarget, record: &Ref) -> Result<Target, SweepError> {
    let build: Build = serde_json::from_slice(&object(store, record, "build.json")?)?;
    let mut target = build.target;
    target.spec = planned.spec.clone();
    let mut data = npz::read(&object(store, record, "data.npz")?)?;
    let mut params = npz::read(&object(store, record, "params.npz")?)?;
    let take = |from: &mut BTreeMap<String, Array>, name: &str| {
        from.remove(name).and_then(|a| a.values.to_f64()).ok_or_else(|| SweepError::Record {
            id: planned.id.to_string(),
            what: format!("array {name} is missing or not numeric"),
        })
    };
    target.x = take(&mut data, "X")?;
    target.y = take(&mut data, "Y")?;
    target.w_star = take(&mut params, "flat")?;
    Ok(target)
}

/// Reads a target that is in the store.
pub fn find_target(store: &Store, planned: &PlannedTarget) -> Result<Target, SweepError> {
    read_target(store, planned, &target_record(store, planned)?)
}

fn target_record(store: &Store, planned: &PlannedTarget) -> Result<Ref, SweepError> {
    let gone =
        || SweepError::Record { id: planned.id.to_string(), what: "the target's record is gone".to_owned() };
    store.read_ref(TARGET, &key(&planned.id))?.ok_or_else(gone)
}

/// The exact values of a stored target.
pub fn exact_of(store: &Store, planned: &PlannedTarget) -> Result<Exact, SweepError> {
    let record = target_record(store, planned)?;
    let build: Build = serde_json::from_slice(&object(store, &record, "build.json")?)?;
    Ok(build.target.exact)
}

/// Stores a run's files and returns its record.
pub fn run_ref(
    store: &Store,
    run: &PlannedRun,
    target: &PlannedTarget,
    finished: &Finished,
    provenance: &Provenance,
) -> Result<Ref, SweepError> {
    let mut objects = BTreeMap::new();
    for (name, bytes) in &finished.files {
        objects.insert((*name).to_owned(), store.put(bytes)?);
    }
    Ok(Ref {
        kind: RUN.to_owned(),
        id: key(&run.id),
        dir: Some(run_dir(store, run, target)?),
        status: Status::Done,
        when: provenance.when.clone(),
        config: run_config(run),
        objects,
        details: json!({
            "target_id": target.id.to_string(), "label": target.label, "sampler": run.sampler.algo.name(),
            "stream_id": run.stream.to_string(), "provenance": provenance, "timing": finished.timing,
        }),
    })
}

/// A run's part of its record: what it was asked to be, and the kind of device, where there is one.
fn run_config(run: &PlannedRun) -> Value {
    let mut config = json!({ "sampler": run.sampler, "posterior": run.posterior });
    if let Some(device) = run.device {
        config["device"] = device.into();
    }
    config
}

/// The record of something that failed.
pub fn failed_ref(kind: &str, id: &Id, failure: &Failure, provenance: &Provenance) -> Ref {
    Ref {
        kind: kind.to_owned(),
        id: key(id),
        dir: None,
        status: Status::Failed { reason: failure.reason.clone(), settled: failure.settled },
        when: provenance.when.clone(),
        config: Value::Null,
        objects: BTreeMap::new(),
        details: json!({ "provenance": provenance }),
    }
}

/// The analysis of a stored run.
pub fn read_analysis(store: &Store, record: &Ref) -> Result<Analysis, SweepError> {
    Ok(serde_json::from_slice(&object(store, record, "analysis.json")?)?)
}

/// One object of a record.
pub fn object(store: &Store, record: &Ref, name: &str) -> Result<Vec<u8>, SweepError> {
    let hash = record.objects.get(name).ok_or_else(|| SweepError::Record {
        id: record.id.to_string(),
        what: format!("the record names no {name}"),
    })?;
    Ok(store.get(hash)?)
}

/// A unit's files that are laid out in the `runs/` tree.
pub fn laid_out(record: &Ref) -> BTreeMap<String, Hash> {
    record
        .objects
        .iter()
        .filter(|(name, _)| !INTERNAL.contains(&name.as_str()))
        .map(|(n, h)| (n.clone(), *h))
        .collect()
}

fn run_dir(store: &Store, run: &PlannedRun, target: &PlannedTarget) -> Result<PathBuf, StoreError> {
    store.run_dir(&key(&target.id), run.sampler.algo.name(), &key(&run.id))
}

/// Puts a target's files into the `runs/` tree.
pub fn lay_out_target(store: &Store, planned: &PlannedTarget, record: &Ref) -> Result<(), SweepError> {
    let dir = store.target_dir(&record.id)?;
    store.materialise(&dir, &laid_out(record))?;
    let meta = meta(store, record, &planned.label, &json!(planned.spec), planned.dim)?;
    store.write_file(&dir.join("meta.json"), &pretty(&meta)?)?;
    Ok(())
}

/// The content of a target's meta.json.
pub fn meta(
    store: &Store,
    record: &Ref,
    label: &str,
    config: &Value,
    dim: usize,
) -> Result<Value, SweepError> {
    let target = built(store, record)?;
    Ok(json!({
        "target_id": record.id, "urn": urn(TARGET, &record.id), "label": label,
        "problem": target.spec.problem.name(), "config": config, "d": dim, "n": target.n_data,
        "widths": target.network.as_ref().map(|n| n.hidden.clone()), "layer_shapes": layer_shapes(&target, dim),
        "l0": target.l0, "precision": target.spec.dtype.name(),
        "exact_lambda": target.exact.lambda, "exact_multiplicity": target.exact.multiplicity,
        "lambda_lower_bound": target.exact.lower_bound, "exact_llc": exact_llc(&target), "training": target.training,
        "files": laid_out(record), "provenance": record.details["provenance"],
    }))
}

/// A stored target without its data and parameters.
pub fn built(store: &Store, record: &Ref) -> Result<Target, SweepError> {
    let build: Build = serde_json::from_slice(&object(store, record, "build.json")?)?;
    Ok(build.target)
}

/// Largest file of a user's that is read: what a target may hold at most, in numbers of 8 bytes.
const MAX_FILE: u64 = 16 << 30;

/// A user's file, whole; the reason in words where it cannot be read or is too large.
pub fn read_bounded(path: &Path) -> Result<Vec<u8>, String> {
    let about = std::fs::metadata(path).map_err(|e| e.to_string())?;
    if !about.is_file() {
        return Err("not a file".to_owned());
    }
    if about.len() > MAX_FILE {
        return Err(format!("{} bytes, more than the {MAX_FILE} that are read", about.len()));
    }
    std::fs::read(path).map_err(|e| e.to_string())
}

/// What a perfect sampler measures at the default posterior (β = 1/ln n, γ = 1); a run's own value is
/// in its analysis.json. Null where there is no closed form.
fn exact_llc(target: &Target) -> serde_json::Value {
    let posterior = PosteriorSpec::default();
    let nbeta = target.n_data as f64 * posterior.beta(target.n_data);
    let llc = target.exact.llc(nbeta, posterior.gamma);
    llc.map_or(serde_json::Value::Null, |llc| json!({ "nbeta": nbeta, "gamma": posterior.gamma, "llc": llc }))
}

/// Puts a run's files into the `runs/` tree.
pub fn lay_out_run(
    store: &Store,
    run: &PlannedRun,
    target: &PlannedTarget,
    record: &Ref,
) -> Result<(), SweepError> {
    let dir = match &record.dir {
        Some(dir) => dir.clone(),
        None => run_dir(store, run, target)?,
    };
    store.materialise(&dir, &laid_out(record))?;
    let names = (json!(target.id), target.label.as_str(), run.sampler.algo.name());
    let manifest = manifest(record, names, target.spec.dtype, run.sampler.dtype);
    if let Some((name, events)) = tensorboard::events(store, run, record)? {
        store.write_file(&dir.join(name), &events)?;
    }
    store.write_file(&dir.join("manifest.json"), &pretty(&manifest)?)?;
    store.write_file(&dir.join("timing.json"), &pretty(&record.details["timing"])?)?;
    Ok(())
}

/// The content of a run's manifest.json; `names` are the target's id and label and the sampler.
pub fn manifest(record: &Ref, names: (Value, &str, &str), target: Dtype, sampler: Dtype) -> Value {
    json!({
        "run_id": record.id, "urn": urn(RUN, &record.id), "target_id": names.0,
        "target": names.1, "sampler": names.2, "config": record.config,
        "precision": { "target": target, "sampler": sampler, "cast": target != sampler },
        "stream_id": record.details["stream_id"], "files": laid_out(record),
        "provenance": record.details["provenance"],
    })
}

/// Shapes of the parts of `flat`, in order: W (out, in), b (out), scale and shift (out) a layer.
fn layer_shapes(target: &Target, dim: usize) -> Vec<Vec<usize>> {
    let Some(network) = &target.network else { return vec![vec![dim]] };
    let mut shapes = Vec::new();
    for layer in layers(network) {
        shapes.push(vec![layer.outputs, layer.inputs]);
        let vectors = usize::from(layer.bias.is_some()) + 2 * usize::from(layer.norm.is_some());
        shapes.extend(std::iter::repeat_n(vec![layer.outputs], vectors));
    }
    shapes
}

/// JSON for people, with the end of its last line.
pub fn pretty(value: &Value) -> Result<Vec<u8>, SweepError> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Writes the log of a build.
pub fn log_build(
    store: &Store,
    planned: &PlannedTarget,
    provenance: &Provenance,
    lines: &[String],
) -> Result<(), SweepError> {
    let head = format!("target {} ({})", planned.id, planned.label);
    let path = build_log(&store.target_dir(&key(&planned.id))?);
    store.write_file(&path, log_text(&head, provenance, lines).as_bytes())?;
    Ok(())
}

/// The log of a run, relative to the root.
pub fn run_log_path(store: &Store, run: &PlannedRun, target: &PlannedTarget) -> Result<PathBuf, SweepError> {
    Ok(run_log(&run_dir(store, run, target)?))
}

/// Writes the log of a run.
pub fn log_run(
    store: &Store,
    run: &PlannedRun,
    target: &PlannedTarget,
    provenance: &Provenance,
    lines: &[String],
) -> Result<(), SweepError> {
    let name = run.sampler.algo.name();
    let head = format!("run {} ({name} on {}, target {})", run.id, target.label, target.id);
    let path = run_log_path(store, run, target)?;
    store.write_file(&path, log_text(&head, provenance, lines).as_bytes())?;
    Ok(())
}

fn log_text(head: &str, provenance: &Provenance, lines: &[String]) -> String {
    let p = provenance;
    // What failed before it was written up has no hosts.
    let places = if p.hosts.is_empty() { String::new() } else { format!(", on {}", p.hosts.join(", ")) };
    let mut text = format!(
        "{head}\n{} lambda-hat-mpi {} ({}), {}, {}{places}\n",
        p.when, p.version, p.git_sha, p.arithmetic, p.launch
    );
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// The arrays of the user's two files, as targets take them. Arrays of text are left out, but for
/// `layer_shapes`.
pub fn external_arrays(data: BTreeMap<String, Array>, mut params: BTreeMap<String, Array>) -> ExternalArrays {
    let layer_shapes = match params.remove("layer_shapes").map(|a| a.values) {
        Some(Values::Str(text)) => Some(text),
        _ => None,
    };
    let numeric = |arrays: BTreeMap<String, Array>| {
        arrays
            .into_iter()
            .filter_map(|(name, a)| Some((name, Tensor { values: a.values.to_f64()?, shape: a.shape })))
            .collect()
    };
    ExternalArrays { data: numeric(data), params: numeric(params), layer_shapes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_names_hosts_where_there_are_some() {
        let log = |hosts: &[&str]| {
            let hosts = hosts.iter().map(|h| (*h).to_owned()).collect();
            let launch = Launch { by: "one process".into(), ranks: Vec::new(), device: None };
            log_text("run x", &Provenance::now(&launch, 0.0, hosts), &["failed".to_owned()])
        };
        assert!(log(&["a", "b"]).contains(", one process, on a, b\nfailed\n"), "{}", log(&["a", "b"]));
        assert!(log(&[]).contains(", one process\nfailed\n"), "{}", log(&[]));
    }
}
