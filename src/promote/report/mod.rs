//! The report: one HTML file that holds all of an experiment, and needs nothing else.
//!
//! Script, style and figures stand in the file itself, and its content security policy lets nothing else
//! be loaded. Everything that comes from a user or a disk is escaped by the template engine. The same tree
//! gives the same bytes.

mod citation;
mod encode;
mod figures;
mod rows;
mod view;
mod words;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Value};
use serde_json::json;

use self::figures::Picture;
use self::rows::{COLUMNS, Row, State, Subject, failure, lessons, settings_that_vary, short};
use self::view::{TargetView, diagnosis_view, distinct, run_view, target_config, target_facts};
use self::words::count;
use super::figures::{RUN_FIGURES, RunCard, TARGET_FIGURES, setting_names, target_figures};
use super::{FoundRun, PromoteError, RunsRoot, Trouble};
use crate::diagnostics::{Mode, diagnose};

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Runs beyond which the figures of each single run are left out unless asked for.
pub const MOST_WITH_FIGURES: usize = 64;

/// A finished report.
#[derive(Debug)]
pub struct Report {
    /// The file, UTF-8.
    pub html: String,
    /// Runs of the experiment.
    pub runs: usize,
    /// What is damaged or missing; the page says it, too.
    pub troubles: Vec<Trouble>,
    /// Whether the figures of single runs were left out.
    pub without_run_figures: bool,
}

/// Makes the report of an experiment from what is on disk.
///
/// Of each target: estimates, exact values, checks and work of its runs; the best sampler by the rule
/// "verdict ok, then least MCSE² × FGE"; figures; of each run its diagnosis, configuration, provenance, and
/// the file that makes it again. With more than [`MOST_WITH_FIGURES`] runs the figures of single runs are
/// left out unless `all_figures`.
///
/// # Errors
/// [`PromoteError::NoExperiment`] and [`PromoteError::Experiment`]; [`PromoteError::Page`] where the page
/// cannot be put together. What is wrong with single runs is among [`Report::troubles`].
pub fn report(found: &RunsRoot, experiment: &str, all_figures: bool) -> Result<Report, PromoteError> {
    let manifest = found.experiment(experiment)?;
    let subjects: Vec<Subject> = manifest.runs.iter().map(|run| Subject::new(found, run)).collect();
    let with_figures = all_figures || subjects.len() <= MOST_WITH_FIGURES;
    let mut troubles: Vec<Trouble> = subjects.iter().flat_map(|s| s.troubles.clone()).collect();

    let settings = settings_that_vary(&subjects);
    let rows: Vec<Row> = subjects
        .iter()
        .map(|subject| {
            let why = (subject.state == State::Failed).then(|| failure(found, subject.listed));
            let settings = settings.get(&subject.listed.run_id).cloned().unwrap_or_default();
            Row::new(subject, label(found, &subject.listed.target_id), settings, why)
        })
        .collect();

    let mut targets = Vec::new();
    for id in distinct(subjects.iter().map(|s| s.listed.target_id.as_str())) {
        targets.push(target_view(found, experiment, &id, &subjects, with_figures, &mut troubles));
    }
    troubles.sort_by(|a, b| (&a.dir, &a.file).cmp(&(&b.dir, &b.file)));
    troubles.dedup();
    let html = page(found, experiment, &subjects, &rows, &targets, &troubles, with_figures)?;
    Ok(Report { html, runs: subjects.len(), troubles, without_run_figures: !with_figures })
}

/// What people call a target, or its directory's name where nothing is left of it.
fn label(found: &RunsRoot, target_id: &str) -> String {
    let of_run = || found.runs_of(target_id).next().map(|run| run.manifest.target.clone());
    let known = found.target(target_id).map(|t| t.meta.label.clone()).or_else(of_run);
    known.unwrap_or_else(|| format!("tgt_{}", short(target_id, 12)))
}

fn target_view(
    found: &RunsRoot,
    experiment: &str,
    id: &str,
    subjects: &[Subject],
    with_figures: bool,
    troubles: &mut Vec<Trouble>,
) -> TargetView {
    let (label, target) = (label(found, id), found.target(id));
    let members: Vec<usize> = (0..subjects.len()).filter(|i| subjects[*i].listed.target_id == id).collect();
    if target.is_none() && members.iter().any(|i| subjects[*i].listed.status == "done") {
        let dir = found.home().join("runs/targets").join(format!("tgt_{}", short(id, 12)));
        let known = found.troubles().iter().find(|t| t.dir.file_name() == dir.file_name()).cloned();
        troubles.push(known.unwrap_or_else(|| Trouble::new(&dir, "the target's directory", "is missing")));
    }
    let runs: Vec<&FoundRun> = members.iter().filter_map(|i| subjects[*i].found).collect();
    let mut names = setting_names(&runs).into_iter();
    let mut views = Vec::new();
    let mut lacking = Vec::new();
    for i in members {
        let mut view = run_view(found, experiment, i, &subjects[i], target);
        if let Some(run) = subjects[i].found {
            let sampler = names.next().unwrap_or_default();
            match run.load_trace() {
                Ok(trace) => {
                    let mode = if with_figures { Mode::Full } else { Mode::Light };
                    view.diagnosis = Some(diagnosis_view(&diagnose(&trace, mode, 1), run));
                    if with_figures {
                        let figures = RunCard { sampler, ..RunCard::of(run) }.figures(&trace, &RUN_FIGURES);
                        view.pictures = figures.into_iter().map(Picture::from).collect();
                    }
                }
                Err(trouble) => lacking.push(trouble),
            }
        }
        views.push(view);
    }
    let mut pictures = Vec::new();
    if let Some(target) = target {
        let (drawn, others) = target_figures(target, &runs, &TARGET_FIGURES);
        pictures.extend(drawn.into_iter().map(Picture::from));
        lacking.extend(others);
    }
    for trouble in lacking {
        if !troubles.iter().any(|t| t.dir == trouble.dir && t.file == trouble.file) {
            troubles.push(trouble);
        }
    }
    TargetView {
        anchor: format!("tgt-{}", short(id, 12)),
        label,
        facts: target.map(|t| target_facts(found, t)).unwrap_or_default(),
        config: target.map(target_config).unwrap_or_default(),
        pictures,
        runs: views,
    }
}

fn page(
    found: &RunsRoot,
    experiment: &str,
    subjects: &[Subject],
    rows: &[Row],
    targets: &[TargetView],
    troubles: &[Trouble],
    with_figures: bool,
) -> Result<String, PromoteError> {
    let made = || subjects.iter().filter_map(|s| s.found).map(|run| &run.manifest.provenance);
    let mut whens: Vec<&str> = made().map(|p| p.when.as_str()).collect();
    whens.sort_unstable();
    let versions: Vec<String> = made().map(|p| format!("{} ({})", p.version, p.git_sha)).collect();
    let versions = distinct(versions.iter().map(String::as_str));
    let day = whens.last().and_then(|when| when.get(..10)).unwrap_or_default();
    let of_state = |state: State| subjects.iter().filter(|s| s.state == state).count();
    let samplers = distinct(rows.iter().map(|row| row.sampler.as_str()));
    let mut sentence = format!(
        "{} of {} on {}: {} ok, {} to be checked, {} failed",
        count(subjects.len(), "run"),
        count(samplers.len(), "sampler"),
        count(targets.len(), "target"),
        of_state(State::Ok),
        of_state(State::Check),
        of_state(State::Failed)
    );
    match of_state(State::Missing) {
        0 => sentence.push('.'),
        n => sentence.push_str(&format!(", {n} damaged or missing in this copy.")),
    }
    // Best first, in the order of the plan.
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|i| rows[*i].state);
    let distrusted: Vec<&Row> = rows.iter().filter(|row| row.state != State::Ok).collect();
    let facts = [
        (
            "finished",
            match (whens.first(), whens.last()) {
                (Some(first), Some(last)) if first != last => format!("{first} to {last}"),
                (Some(only), _) => (*only).to_owned(),
                _ => words::NONE.into(),
            },
        ),
        ("program", format!("lambda-hat-mpi {}", versions.join("; "))),
        ("arithmetic", distinct(made().map(|p| p.arithmetic.as_str())).join(", ")),
        ("hosts", distinct(made().flat_map(|p| p.hosts.iter().map(String::as_str))).join(", ")),
    ];
    let troubles: Vec<_> = troubles.iter().map(|trouble| view::told(found, trouble)).collect();
    let content = json!({
        "experiment": experiment,
        "sentence": sentence,
        "facts": facts,
        "columns": COLUMNS,
        "rows": rows,
        "order": order,
        "distrusted": distrusted,
        "samplers": samplers,
        "lessons": lessons(subjects, rows),
        "labels": distinct(rows.iter().map(|row| row.target.as_str())),
        "states": [State::Ok, State::Check, State::Failed, State::Missing],
        "troubles": troubles,
        "left_out": !with_figures,
        "most": MOST_WITH_FIGURES,
        "targets": targets,
        "bibtex": citation::bibtex(experiment, day, &versions, subjects),
        "urns": citation::urns(subjects),
        "style": STYLE,
        "script": SCRIPT,
        "script_hash": encode::base64(&encode::sha256(SCRIPT.as_bytes())),
    });
    rendered(content).map_err(|e| PromoteError::Page { why: format!("{e:#}") })
}

/// The template filled in; everything is escaped but what the template itself calls safe: style, script,
/// its hash, and the data URIs of figures.
fn rendered(content: serde_json::Value) -> Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.render_str(PAGE, Value::from(Serde(content)))
}
