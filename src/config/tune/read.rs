//! From a tune file to a [`TuneExperiment`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::algo::SamplerSpec;
use super::super::error::{ConfigErrors, Fault, Place, Report, advise};
use super::super::keys::{
    POSTERIOR, TUNE, TUNE_BUDGET, TUNE_CONCURRENCY, TUNE_EXECUTION, TUNE_FILE, TUNE_OBJECTIVE, TUNE_PRUNER,
    TUNE_SAMPLER,
};
use super::super::posterior::{self, Level};
use super::super::preset::Presets;
use super::super::resolve::{self, LoadOptions};
use super::super::samplers::{sampler, sampler_names};
use super::super::section::Section;
use super::super::table::check_map;
use super::super::targets::{self, Context, target};
use super::super::tree::{Entry, Node, Value, join};
use super::super::{Dtype, Execution, PosteriorSpec, TargetEntry};
use super::*;

/// Everything one tune file describes, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct TuneExperiment {
    /// Names results.
    pub name: String,
    /// The targets of the problems, no two the same.
    pub targets: Vec<TargetEntry>,
    /// The problems in the order of the file.
    pub problems: Vec<Problem>,
    /// The methods, each searched on every problem.
    pub methods: Vec<MethodSpace>,
    /// How each study is carried out.
    pub study: StudySpec,
    /// What a reference and a trial may cost.
    pub budget: Budget,
    /// How the work is carried out.
    pub execution: Execution,
    /// `precision`, where the file names one.
    pub precision: Option<Dtype>,
    /// `store_root` of older files.
    pub root: Option<PathBuf>,
    /// Things the user should hear of: other spellings, keys read and ignored.
    pub notices: Vec<String>,
}

/// A problem: a target and the posterior on it that every method is to match.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// Index into [`TuneExperiment::targets`].
    pub target: usize,
    /// The target's label; of a target of several problems, with the place in the list.
    pub label: String,
    /// The posterior.
    pub posterior: PosteriorSpec,
    /// Where the entry stands, for messages.
    pub place: Place,
}

/// Reads a tune file. Relative paths in it start at its directory.
///
/// # Errors
/// Everything that is wrong with it, as [`super::super::load`] tells it.
pub fn load_tune(path: &Path, options: &LoadOptions) -> Result<TuneExperiment, ConfigErrors> {
    resolve::load_with(path, options, experiment)
}

/// Reads a tune file from text; `file` is what messages call it.
///
/// # Errors
/// As [`load_tune`].
pub fn parse_tune(text: &str, file: &str, options: &LoadOptions) -> Result<TuneExperiment, ConfigErrors> {
    resolve::parse_with(text, file, None, options, experiment)
}

/// The sampler of a trial: the method's preset, and these settings over it.
///
/// # Errors
/// Settings that are each allowed but not together, as the same settings in an experiment file are refused.
pub fn trial_sampler(
    method: &str,
    params: &BTreeMap<String, Scalar>,
    seed: u64,
    precision: Option<Dtype>,
    presets: Option<&Path>,
) -> Result<SamplerSpec, ConfigErrors> {
    let report = Report::default();
    let place = Place::Option(format!("trial of {method}").into());
    let node = |value| Node { value, place: place.clone() };
    let entry = |key: &str, value| Entry { key: key.to_owned(), place: place.clone(), node: node(value) };
    let overrides = params.iter().map(|(name, value)| entry(name, space::value(value))).collect();
    let node = node(Value::Map(vec![
        entry("name", Value::Text(method.to_owned())),
        entry("seed", Value::Int(seed.into())),
        entry("overrides", Value::Map(overrides)),
    ]));
    let presets = Presets::open(presets, &report);
    let spec = sampler(&node, "trial", precision, &presets, &report).and_then(|resolved| resolved.spec);
    match spec {
        Some(spec) if report.is_empty() => Ok(spec),
        _ => Err(report.into_errors()),
    }
}

fn experiment(
    root: &Node,
    file: &str,
    base: Option<&Path>,
    options: &LoadOptions,
    report: &Report,
) -> Option<TuneExperiment> {
    if !matches!(root.value, Value::Map(_) | Value::Null) {
        let expected = "a mapping with `problems` and `search_space`".to_owned();
        report.add(&root.place, "", Fault::Unexpected { expected, found: root.value.to_string() });
        return None;
    }
    check_map(&TUNE_FILE, root.entries(), "", report);
    let mut section = Section::new(&TUNE_FILE, &root.place, "", report);
    section.add(root.entries(), "", true);
    section.require(&["problems", "search_space"]);

    let mut notices = Vec::new();
    let name = resolve::name(&section, file, options, report);
    let precision = resolve::precision(&section, &mut notices);
    let store_root =
        section.has("store_root").then(|| section.text("store_root")).flatten().map(PathBuf::from);
    if store_root.is_some() {
        notices.push("store_root is read as --root; the option wins where both are given".to_owned());
    }
    if section.has("store") {
        notices.push("store is not read; --root names the root".to_owned());
    }
    let problems = problems(root, &section, precision, base, options, report);
    let methods = methods(&section, (precision, options.presets.as_deref()), &mut notices, report);
    let study = study(&section, &mut notices, report);
    let (budget, execution) = execution(&section, &mut notices);
    let (targets, problems) = problems?;
    Some(TuneExperiment {
        name: name?,
        targets,
        problems,
        methods: methods?,
        study: study?,
        budget,
        execution,
        precision,
        root: store_root,
        notices,
    })
}

fn problems(
    root: &Node,
    section: &Section<'_>,
    precision: Option<Dtype>,
    base: Option<&Path>,
    options: &LoadOptions,
    report: &Report,
) -> Option<(Vec<TargetEntry>, Vec<Problem>)> {
    let given = section.given("problems")?;
    let Value::List(nodes) = &given.node.value else { return None };
    let presets = Presets::open(options.presets.as_deref(), report);
    let top = Level::of(&POSTERIOR, root, "", report);
    let context =
        Context { report, presets: &presets, top: &top, dtype: precision.unwrap_or(Dtype::F64), base };
    let path = |i: usize| format!("{}[{i}]", given.path);
    let found: Vec<Option<targets::Resolved>> =
        nodes.iter().enumerate().map(|(i, node)| target(node, &path(i), &context)).collect();
    // All of them, so that every error is told.
    let posterior = |resolved: &targets::Resolved| posterior::resolve(&[&resolved.level, &top], base);
    let posteriors: Vec<_> = found.iter().map(|resolved| resolved.as_ref().and_then(posterior)).collect();
    let (mut targets, mut problems): (Vec<TargetEntry>, Vec<Problem>) = (Vec::new(), Vec::new());
    let mut complete = true;
    for (i, (resolved, posterior)) in found.into_iter().zip(posteriors).enumerate() {
        let (Some(entry), Some(posterior)) = (resolved.and_then(|r| r.entry), posterior) else {
            complete = false;
            continue;
        };
        let place = entry.place.clone();
        let target = targets.iter().position(|known| known.spec == entry.spec).unwrap_or_else(|| {
            targets.push(entry);
            targets.len() - 1
        });
        if let Some(first) = problems.iter().position(|p| p.target == target && p.posterior == posterior) {
            let fault = Fault::Duplicate {
                what: "target under the same posterior",
                other: path(first),
                first: nodes[first].place.clone(),
            };
            report.add(&nodes[i].place, path(i), fault);
            complete = false;
        }
        problems.push(Problem { target, label: targets[target].label.clone(), posterior, place });
    }
    let shares = |p: &Problem| problems.iter().filter(|other| other.target == p.target).count() > 1;
    let shared: Vec<bool> = problems.iter().map(shares).collect();
    for (i, problem) in problems.iter_mut().enumerate().filter(|(i, _)| shared[*i]) {
        problem.label.push_str(&format!(" ({})", path(i)));
    }
    complete.then_some((targets, problems))
}

/// The methods and their spaces.
fn methods(
    section: &Section<'_>,
    (precision, presets): (Option<Dtype>, Option<&Path>),
    notices: &mut Vec<String>,
    report: &Report,
) -> Option<Vec<MethodSpace>> {
    let spaces = section.given("search_space")?;
    let all: Vec<&str> = sampler_names().collect();
    let mut complete = true;
    let mut unknown = |place: &Place, path: String, name: &str| {
        let known = all.contains(&name);
        if !known {
            let fault = Fault::UnknownName {
                what: "method".to_owned(),
                found: name.to_owned(),
                advice: advise(name, &all),
            };
            report.add(place, path, fault);
        }
        complete &= known;
        !known
    };
    // The method, and where it is named.
    let mut named: Vec<(String, &Place, String)> = Vec::new();
    match section.given("methods").map(|given| (given.path, &given.node.value)) {
        Some((path, Value::List(items))) => {
            for (i, item) in items.iter().enumerate() {
                let path = format!("{path}[{i}]");
                let Some(name) = item.text() else { continue };
                if unknown(&item.place, path.clone(), name) {
                    continue;
                }
                match named.iter().find(|(other, ..)| other == name) {
                    Some((_, first, _)) => {
                        report.add(&item.place, path, Fault::GivenTwice { first: (*first).clone() });
                    }
                    None => named.push((name.to_owned(), &item.place, path)),
                }
            }
            if items.is_empty() {
                section.conflict(
                    "methods",
                    "expected at least one method; remove the key to take those of search_space",
                );
            }
            for entry in spaces.node.entries() {
                let path = join(&spaces.path, &entry.key);
                if !unknown(&entry.place, path.clone(), &entry.key)
                    && !named.iter().any(|(name, ..)| *name == entry.key)
                {
                    let why = format!("{} is not among `methods`; add it there, or remove this", entry.key);
                    report.add(&entry.place, path, Fault::Conflict(why));
                }
            }
        }
        _ => {
            for entry in spaces.node.entries() {
                let path = join(&spaces.path, &entry.key);
                if !unknown(&entry.place, path.clone(), &entry.key) {
                    named.push((entry.key.clone(), &entry.place, path));
                }
            }
            if spaces.node.entries().is_empty() && matches!(spaces.node.value, Value::Map(_) | Value::Null) {
                section.conflict("search_space", "expected at least one method with its parameters");
            }
        }
    }
    let mut found = Vec::new();
    for (method, place, path) in named {
        let Some(node) = spaces.node.get(&method) else {
            let expected = format!("the parameters of {method} under `search_space.{method}`");
            report.add(place, path, Fault::Missing { expected });
            complete = false;
            continue;
        };
        let path = join(&spaces.path, &method);
        let Some(dimensions) = space::dimensions(&method, node, &path, notices, report) else {
            complete = false;
            continue;
        };
        let takes = |params: &_| trial_sampler(&method, params, 0, precision, presets).map(|_| ());
        if let Some(why) = probe::refused_throughout(&dimensions, takes) {
            // The preset itself may be what is wrong.
            match trial_sampler(&method, &BTreeMap::new(), 0, precision, presets) {
                Err(errors) => report.extend(errors),
                Ok(_) => {
                    let why = format!("{method} takes no settings of this space: {why}");
                    report.add(&node.place, path, Fault::Conflict(why));
                }
            }
            complete = false;
        }
        found.push(MethodSpace { method, dimensions });
    }
    complete.then_some(found)
}

/// `tune`, or `optuna` in older files; what the command line puts into `tune` goes before either.
fn study(section: &Section<'_>, notices: &mut Vec<String>, report: &Report) -> Option<StudySpec> {
    let (older, newer) = (section.given("optuna"), section.given("tune"));
    if older.is_some() {
        notices.push("optuna is read as tune".to_owned());
    }
    let from_file = |place: &Place| !matches!(place, Place::Option(_));
    if let (Some(older), Some(newer)) = (&older, &newer)
        && from_file(&newer.node.place)
    {
        let line = |place: &Place| if let Place::At { line, .. } = place { *line } else { 0 };
        let mut both = [older, newer];
        both.sort_by_key(|given| line(given.place));
        let [first, second] = both;
        report.add(second.place, &second.path, Fault::GivenTwice { first: first.place.clone() });
        return None;
    }
    let layers: Vec<_> = older.iter().chain(&newer).collect();
    let place = layers.last().map_or(&layers_place(section), |given| &given.node.place).clone();
    let mut tune = Section::new(&TUNE, &place, "tune", report);
    for given in &layers {
        tune.add(given.node.entries(), &given.path, true);
    }
    // Each mapping below, its layers one over the other.
    let part = |name: &str, table| {
        let mut part = Section::new(table, &place, &join("tune", name), report);
        for given in &layers {
            if let Some(node) = given.node.get(name) {
                part.add(node.entries(), &join(&given.path, name), true);
            }
        }
        part
    };
    let (max_trials, batch) =
        (tune.size("max_trials_per_method"), part("concurrency", &TUNE_CONCURRENCY).size("batch_size"));
    let objective = objective(&part("objective", &TUNE_OBJECTIVE));
    let sampler_part = part("sampler", &TUNE_SAMPLER);
    let (seed, sampler) = (sampler_part.int("seed"), chosen_sampler(&sampler_part));
    let pruner_part = part("pruner", &TUNE_PRUNER);
    let mut pruner = pruner(&pruner_part);
    if objective.as_ref().is_some_and(|o| o.values() > 1) && !matches!(pruner, Some(Pruner::None)) {
        if layers.iter().any(|given| given.node.get("pruner").is_some()) {
            let text = "excludes two objectives; set `pruner: {type: none}`";
            pruner_part.conflict("type", text);
        }
        pruner = Some(Pruner::None);
    }
    Some(StudySpec {
        max_trials: max_trials?,
        batch_size: batch?,
        sampler: sampler?,
        seed: seed?,
        pruner: pruner?,
        objective: objective?,
    })
}

/// Where keys of a mapping that is not there are reported; none is required.
fn layers_place(section: &Section<'_>) -> Place {
    section.given("search_space").map_or(Place::File("".into()), |given| given.node.place.clone())
}

fn chosen_sampler(part: &Section<'_>) -> Option<TuneSampler> {
    let kind = part.text("type")?;
    let because = format!("with `type: {kind}`");
    if kind != "tpe" {
        part.refuse_idle(
            &[
                "n_startup_trials",
                "n_ei_candidates",
                "multivariate",
                "constant_liar",
                "prior_weight",
                "magic_clip",
                "bandwidth",
            ],
            &because,
        );
    }
    if kind != "grid" {
        part.refuse_idle(&["points"], &because);
    }
    match kind.as_str() {
        "random" => Some(TuneSampler::Random),
        "grid" => Some(TuneSampler::Grid { points: part.size("points")? }),
        _ => Some(TuneSampler::Tpe(TpeSettings {
            n_startup_trials: part.size("n_startup_trials")?,
            n_ei_candidates: part.size("n_ei_candidates")?,
            multivariate: part.bool("multivariate")?,
            constant_liar: part.bool("constant_liar")?,
            prior_weight: part.float("prior_weight")?,
            magic_clip: part.bool("magic_clip")?,
            bandwidth: match part.text("bandwidth")?.as_str() {
                "scott" => Bandwidth::Scott,
                _ => Bandwidth::Neighbours,
            },
        })),
    }
}

fn pruner(part: &Section<'_>) -> Option<Pruner> {
    let kind = part.text("type")?;
    let because = format!("with `type: {kind}`");
    if kind != "median" {
        part.refuse_idle(&["n_startup_trials", "n_warmup_steps", "interval_steps"], &because);
    }
    if kind != "hyperband" {
        part.refuse_idle(&["min_resource", "max_resource", "reduction_factor"], &because);
    }
    match kind.as_str() {
        "none" => Some(Pruner::None),
        "hyperband" => {
            let (min_resource, max_resource) = (part.int("min_resource")?, part.int("max_resource")?);
            if min_resource > max_resource {
                part.conflict(
                    "min_resource",
                    format!("{min_resource} is above `max_resource` ({max_resource})"),
                );
                return None;
            }
            Some(Pruner::Hyperband {
                min_resource,
                max_resource,
                reduction_factor: part.int("reduction_factor")?,
            })
        }
        _ => Some(Pruner::Median {
            n_startup_trials: part.size("n_startup_trials")?,
            n_warmup_steps: part.int("n_warmup_steps")?,
            interval_steps: part.int("interval_steps")?,
        }),
    }
}

fn objective(part: &Section<'_>) -> Option<Objective> {
    let kind = part.text("type")?;
    let because = format!("with `type: {kind}`");
    let reads: &[&str] = match kind.as_str() {
        "abs" => &["units"],
        "huber" => &["units", "delta"],
        "work_to_accuracy" => &["accuracy", "cost"],
        "pareto" => &["units", "cost"],
        _ => &[],
    };
    for name in ["units", "delta", "accuracy", "cost"] {
        if !reads.contains(&name) {
            part.refuse_idle(&[name], &because);
        }
    }
    let units = match part.text("units")?.as_str() {
        "standard_errors" => Units::StandardErrors,
        _ => Units::Llc,
    };
    let cost = match part.text("cost")?.as_str() {
        "seconds" => Cost::Seconds,
        _ => Cost::Fge,
    };
    Some(match kind.as_str() {
        "huber" => Objective::Huber { delta: part.float("delta")?, units },
        "relative" => Objective::Relative,
        "work_to_accuracy" => Objective::WorkToAccuracy { accuracy: part.float("accuracy")?, cost },
        "pareto" => Objective::Pareto { units, cost },
        _ => Objective::Abs { units },
    })
}

fn execution(section: &Section<'_>, notices: &mut Vec<String>) -> (Budget, Execution) {
    let Some(inner) = section.inner("execution", &TUNE_EXECUTION) else {
        return (Budget::default(), Execution::default());
    };
    if inner.has("parsl_card") {
        notices.push(
            "execution.parsl_card is not read; give the card to the command: slurm submit --card CARD"
                .to_owned(),
        );
    }
    let budget = inner.inner("budget", &TUNE_BUDGET).map(|budget| {
        let bound = |name: &str| budget.has(name).then(|| budget.float(name)).flatten();
        Budget {
            hmc_sec: bound("hmc_sec"),
            trial_sec: bound("trial_sec"),
            hmc_fge: bound("hmc_fge"),
            trial_fge: bound("trial_fge"),
        }
    });
    (budget.unwrap_or_default(), resolve::execution_of(&inner))
}
