//! From a file to an [`Experiment`]: parse, `--set`, check, resolve.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::error::{ConfigErrors, Fault, Place, Report};
use super::keys::{EXECUTION, EXPERIMENT, POSTERIOR};
use super::posterior::{self, Level};
use super::preset::{Presets, read_bounded};
use super::samplers::{self, sampler};
use super::section::Section;
use super::table::{check_map, is_name};
use super::targets::{self, Context, target};
use super::tree::{self, Node, Value};
use super::{Dtype, Execution, Experiment, RunEntry, TargetEntry};

/// What the command line adds to a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// A directory of presets (`model/ data/ teacher/ sampler/`) that add to the embedded ones.
    pub presets: Option<PathBuf>,
    /// `a.b=c` each, applied in order before anything is checked.
    pub set: Vec<String>,
    /// Replaces the file's `experiment`.
    pub experiment: Option<String>,
}

/// Reads an experiment file. Relative paths in it start at its directory.
///
/// # Errors
/// Everything that is wrong with it, each error with file, line, key, what was expected and what
/// was found. Nothing of an invalid file is used.
pub fn load(path: &Path, options: &LoadOptions) -> Result<Experiment, ConfigErrors> {
    load_with(path, options, experiment)
}

/// Makes something of a checked tree: the root, the file's name, where relative paths start, options.
type Make<T> = fn(&Node, &str, Option<&Path>, &LoadOptions, &Report) -> Option<T>;

/// Reads a file and makes something of it.
pub(super) fn load_with<T>(path: &Path, options: &LoadOptions, make: Make<T>) -> Result<T, ConfigErrors> {
    let file = path.display().to_string();
    match read_bounded(path) {
        Ok(text) => parse_with(&text, &file, path.parent(), options, make),
        Err(error) => {
            let report = Report::default();
            report.add(&Place::File(file.into()), "", Fault::Unreadable(error.to_string()));
            Err(report.into_errors())
        }
    }
}

/// Reads an experiment from text; `file` is what messages call it, and its stem is the default
/// name of the experiment. Relative paths stay as they are.
///
/// # Errors
/// As [`load`].
pub fn parse(text: &str, file: &str, options: &LoadOptions) -> Result<Experiment, ConfigErrors> {
    parse_with(text, file, None, options, experiment)
}

/// Parses text, applies `--set`, and makes something of it.
pub(super) fn parse_with<T>(
    text: &str,
    file: &str,
    base: Option<&Path>,
    options: &LoadOptions,
    make: Make<T>,
) -> Result<T, ConfigErrors> {
    let report = Report::default();
    let made = match tree::parse(text, &file.into()) {
        Ok(mut root) => {
            tree::expand(&mut root, "", &report);
            for set in &options.set {
                super::set::apply(&mut root, set, &report);
            }
            make(&root, file, base, options, &report)
        }
        Err(error) => {
            report.add(&error.place, error.key, error.fault);
            None
        }
    };
    match made {
        Some(made) if report.is_empty() => Ok(made),
        _ => {
            debug_assert!(!report.is_empty(), "a value was refused without a reason");
            Err(report.into_errors())
        }
    }
}

fn experiment(
    root: &Node,
    file: &str,
    base: Option<&Path>,
    options: &LoadOptions,
    report: &Report,
) -> Option<Experiment> {
    if !matches!(root.value, Value::Map(_) | Value::Null) {
        let expected = "a mapping with `targets` and `samplers`".to_owned();
        report.add(&root.place, "", Fault::Unexpected { expected, found: root.value.to_string() });
        return None;
    }
    check_map(&EXPERIMENT, root.entries(), "", report);
    let mut section = Section::new(&EXPERIMENT, &root.place, "", report);
    section.add(root.entries(), "", true);
    section.require(&["targets", "samplers"]);

    let mut notices = Vec::new();
    let name = name(&section, file, options, report);
    let precision = precision(&section, &mut notices);
    let root_dir = section.has("store_root").then(|| section.text("store_root")).flatten().map(PathBuf::from);
    if root_dir.is_some() {
        notices.push("store_root is read as --root; the option wins where both are given".to_owned());
    }

    let presets = Presets::open(options.presets.as_deref(), report);
    let top = Level::of(&POSTERIOR, root, "", report);
    let built_in = precision.unwrap_or(Dtype::F64);
    let context = Context { report, presets: &presets, top: &top, dtype: built_in, base };
    let target_nodes = items(root, "targets");
    let targets: Vec<Option<targets::Resolved>> =
        target_nodes.iter().enumerate().map(|(i, n)| target(n, &format!("targets[{i}]"), &context)).collect();
    let sampler_nodes = items(root, "samplers");
    let samplers: Vec<Option<samplers::Resolved>> = sampler_nodes
        .iter()
        .enumerate()
        .map(|(i, n)| sampler(n, &format!("samplers[{i}]"), precision, &presets, report))
        .collect();

    refuse_equal_targets(target_nodes, &targets, report);
    let runs = runs(sampler_nodes, &targets, &samplers, (&top, base), report);
    if precision.is_none() {
        note_casts(&samplers, built_in, &mut notices);
    }
    let targets: Option<Vec<TargetEntry>> = targets.into_iter().map(|t| t?.entry).collect();
    let execution = execution(&section);
    Some(Experiment { name: name?, targets: targets?, runs: runs?, root: root_dir, execution, notices })
}

fn execution(section: &Section<'_>) -> Execution {
    section.inner("execution", &EXECUTION).map(|inner| execution_of(&inner)).unwrap_or_default()
}

/// The keys of a section that has them.
pub(super) fn execution_of(inner: &Section<'_>) -> Execution {
    let has = |name: &str| inner.has(name);
    Execution {
        checkpoint_every: has("checkpoint_every").then(|| inner.float("checkpoint_every")).flatten(),
        checkpoint_dir: has("checkpoint_dir")
            .then(|| inner.text("checkpoint_dir"))
            .flatten()
            .map(PathBuf::from),
        retries: has("retries").then(|| inner.int("retries")).flatten().map(|n| n as u32),
        unit_timeout: has("unit_timeout").then(|| inner.float("unit_timeout")).flatten(),
    }
}

fn items<'a>(root: &'a Node, key: &str) -> &'a [Node] {
    match root.get(key) {
        Some(Node { value: Value::List(items), .. }) => items,
        _ => &[],
    }
}

/// `--experiment`, else the key, else the file's stem.
pub(super) fn name(section: &Section, file: &str, options: &LoadOptions, report: &Report) -> Option<String> {
    let (place, name) = match (&options.experiment, section.has("experiment")) {
        (Some(name), _) => (Place::Option(format!("--experiment {name}").into()), name.clone()),
        (None, true) => return section.text("experiment"),
        (None, false) => {
            let stem = Path::new(file).file_stem().map(|s| s.to_string_lossy().into_owned());
            (Place::File(file.into()), stem.unwrap_or_default())
        }
    };
    if !is_name(&name) {
        let expected = super::table::Kind::Name.to_string();
        let found = format!("\"{}\" (set the key `experiment`, or --experiment)", name.escape_debug());
        report.add(&place, "experiment", Fault::Unexpected { expected, found });
        return None;
    }
    Some(name)
}

/// `precision`, or its older spelling `jax_enable_x64`.
pub(super) fn precision(section: &Section, notices: &mut Vec<String>) -> Option<Dtype> {
    let named =
        section.has("precision").then(|| section.text("precision")).flatten().map(|p| samplers::dtype(&p));
    let flag = section.has("jax_enable_x64").then(|| section.bool("jax_enable_x64")).flatten();
    let flagged = flag.map(|x64| if x64 { Dtype::F64 } else { Dtype::F32 });
    if let Some(flagged) = flagged {
        notices.push(format!("jax_enable_x64 is read as precision: {}", flagged.name()));
    }
    match (named, flagged) {
        (Some(a), Some(b)) if a != b => {
            section.conflict(
                "jax_enable_x64",
                format!("means precision {}, but `precision` is {}; remove one", b.name(), a.name()),
            );
            None
        }
        _ => named.or(flagged),
    }
}

/// Reports targets that are the same after resolution.
fn refuse_equal_targets(nodes: &[Node], targets: &[Option<targets::Resolved>], report: &Report) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (second, target) in targets.iter().enumerate() {
        let Some(entry) = target.as_ref().and_then(|t| t.entry.as_ref()) else { continue };
        // Equal text is equal specification; paths of external files included.
        let Ok(text) = serde_json::to_string(&entry.spec) else { continue };
        if let Some(&first) = seen.get(&text) {
            let fault = Fault::Duplicate {
                what: "target",
                other: format!("targets[{first}]"),
                first: nodes[first].place.clone(),
            };
            report.add(&nodes[second].place, format!("targets[{second}]"), fault);
        } else {
            seen.insert(text, second);
        }
    }
}

/// Every sampler on every target. `None` when a part of one has errors (reported).
fn runs(
    nodes: &[Node],
    targets: &[Option<targets::Resolved>],
    samplers: &[Option<samplers::Resolved>],
    (top, base): (&Level, Option<&Path>),
    report: &Report,
) -> Option<Vec<RunEntry>> {
    let mut runs = Vec::with_capacity(targets.len() * samplers.len());
    let mut complete = true;
    for (t, target) in targets.iter().enumerate() {
        let mut seen: Vec<RunEntry> = Vec::with_capacity(samplers.len());
        for (s, sampler) in samplers.iter().enumerate() {
            let (Some(target), Some(sampler)) = (target, sampler) else {
                complete = false;
                continue;
            };
            let posterior = posterior::resolve(&[&sampler.level, &target.level, top], base);
            let (Some(posterior), Some(spec)) = (posterior, &sampler.spec) else {
                complete = false;
                continue;
            };
            let (place, tensorboard) = (nodes[s].place.clone(), sampler.tensorboard);
            let run = RunEntry { target: t, entry: s, place, sampler: spec.clone(), posterior, tensorboard };
            let same = |other: &&RunEntry| other.sampler == run.sampler && other.posterior == run.posterior;
            if let Some(first) = seen.iter().find(same) {
                samplers::refuse_duplicate(nodes, first.entry, s, report);
                complete = false;
            }
            seen.push(run);
        }
        runs.extend(seen);
    }
    complete.then_some(runs)
}

/// Names the samplers whose dtype is not that of the targets they run on.
fn note_casts(samplers: &[Option<samplers::Resolved>], built_in: Dtype, notices: &mut Vec<String>) {
    for (i, sampler) in samplers.iter().enumerate() {
        if let Some(spec) = sampler.as_ref().and_then(|s| s.spec.as_ref())
            && spec.dtype != built_in
        {
            notices.push(format!(
                "samplers[{i}] ({}) runs in {} on targets built in {}; set `precision` for one precision throughout",
                spec.algo.name(),
                spec.dtype.name(),
                built_in.name()
            ));
        }
    }
}
