//! Runs as rows of the summary, and what the rows say together.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::words::{self, count, interval, meaning, number, seconds, setting, whole, with_error};
use crate::config::canonical_json;
use crate::diagnostics::{Analysis, Verdict};
use crate::promote::{ExperimentRun, FoundRun, RunsRoot, Trouble};

/// Bytes of a log that are read.
const MOST_LOG: u64 = 1 << 16;

/// One run of the experiment, whatever became of it.
pub(super) struct Subject<'a> {
    pub listed: &'a ExperimentRun,
    pub found: Option<&'a FoundRun>,
    /// What the tree lacks of it.
    pub troubles: Vec<Trouble>,
    pub state: State,
}

/// What became of a run, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Ok,
    Check,
    Failed,
    /// Files are damaged or gone.
    Missing,
}

impl<'a> Subject<'a> {
    pub fn new(found: &'a RunsRoot, listed: &'a ExperimentRun) -> Self {
        let run = found.run(&listed.run_id);
        let troubles: Vec<Trouble> = match run {
            Some(run) => found.troubles().iter().filter(|t| t.dir == run.dir).cloned().collect(),
            None if listed.status == "done" => vec![absent(found, listed)],
            None => Vec::new(),
        };
        let state = match run.map(|run| run.analysis.as_ref()) {
            Some(Some(analysis)) if analysis.verdict == Verdict::Ok => State::Ok,
            Some(Some(_)) => State::Check,
            None if listed.status != "done" => State::Failed,
            _ => State::Missing,
        };
        Self { listed, found: run, troubles, state }
    }

    pub fn analysis(&self) -> Option<&'a Analysis> {
        self.found?.analysis.as_ref()
    }

    /// `run-befb6430`
    pub fn anchor(&self) -> String {
        format!("run-{}", short(&self.listed.run_id, 8))
    }
}

/// What is wrong with a run of an experiment that the tree does not have.
fn absent(found: &RunsRoot, run: &ExperimentRun) -> Trouble {
    let ending = format!("run_{}_{}", run.sampler, short(&run.run_id, 8));
    let begins = |t: &&Trouble| t.dir.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&ending));
    found.troubles().iter().find(begins).cloned().unwrap_or_else(|| {
        let target = format!("tgt_{}", short(&run.target_id, 12));
        let dir = found.home().join("runs/targets").join(target).join(ending);
        Trouble::new(&dir, "the run's directory", "is missing")
    })
}

/// The first `digits` characters.
pub(super) fn short(id: &str, digits: usize) -> String {
    id.chars().take(digits).collect()
}

/// A cell of the summary.
#[derive(Debug, Serialize)]
pub(super) struct Cell {
    pub text: String,
    /// What it is sorted by; nothing where it is missing, which comes last.
    pub value: String,
    /// All digits, where `text` has fewer.
    pub full: String,
}

impl Cell {
    fn new(text: String, value: Option<f64>) -> Self {
        let value = value.filter(|v| v.is_finite()).map(|v| v.to_string()).unwrap_or_default();
        Self { text, full: value.clone(), value }
    }
}

/// Why a verdict is what it is.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Reason {
    pub text: String,
    /// In plain words.
    pub meaning: &'static str,
}

/// A row of the summary.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub anchor: String,
    pub state: State,
    pub rank: usize,
    pub target: String,
    pub sampler: String,
    /// Settings in which runs of this sampler differ.
    pub settings: String,
    pub cells: Vec<Cell>,
    pub reasons: Vec<Reason>,
}

/// Headings of [`Row::cells`], with what they mean.
pub(super) const COLUMNS: [(&str, &str); 12] = [
    ("λ̂ ± MCSE", "estimate and its Monte-Carlo standard error"),
    ("95 % interval", "bias-corrected interval of the estimate; sorted by its lower end"),
    ("exact λ̂", "what a perfect sampler would measure at this nβ and γ, where it is known"),
    ("λ", "the learning coefficient itself, where it is known"),
    ("off", "λ̂ against the exact λ̂, in per cent and in standard errors; sorted by size"),
    ("R-hat", "agreement of the chains; 1 is perfect, above 1.01 is not to be trusted"),
    ("ESS bulk", "effective draws for the middle of the distribution; at least 400 are wanted"),
    ("ESS tail", "effective draws for its tails; at least 400 are wanted"),
    ("FGE", "work in full-data gradient evaluations, warmup included"),
    ("time", "wall time of all units together"),
    ("ESS/s", "effective draws for the mean a second"),
    ("WNV", "work-normalised variance, MCSE² × FGE: less is better"),
];

impl Row {
    pub fn new(subject: &Subject, target: String, settings: String, failure: Option<String>) -> Self {
        let analysis = subject.analysis();
        let timing = subject.found.and_then(|run| run.timing.as_ref());
        let take = |read: fn(&Analysis) -> Option<f64>| analysis.and_then(read);
        let (mean, mcse) = (take(|a| a.llc_mean), take(|a| a.llc_mcse));
        let (low, high) = (take(|a| a.llc_ci_low), take(|a| a.llc_ci_high));
        let exact = take(|a| a.exact_llc);
        let error = mean.zip(exact).map(|(mean, exact)| mean - exact);
        let relative = error.zip(exact).map(|(error, exact)| error / exact.abs()).filter(|r| r.is_finite());
        let off = match (relative, error.zip(mcse).filter(|(_, mcse)| *mcse > 0.0)) {
            (Some(relative), Some((error, mcse))) => {
                format!("{:+.1} % ({:.1} MCSE)", 100.0 * relative, (error / mcse).abs()).replace('-', "−")
            }
            (Some(relative), None) => format!("{:+.1} %", 100.0 * relative).replace('-', "−"),
            _ => words::NONE.into(),
        };
        let (fge, time) = (take(|a| Some(work(a))), timing.map(|t| t.seconds));
        let rate = timing.and_then(|t| t.ess_per_second);
        let (r_hat, bulk, tail) = (take(|a| a.r_hat), take(|a| a.ess_bulk), take(|a| a.ess_tail));
        let (lambda, wnv) = (take(|a| a.exact_lambda), take(|a| a.wnv_fge));
        let r_hat_text = r_hat.map_or_else(|| words::NONE.into(), |r| format!("{r:.3}"));
        let cells = vec![
            Cell::new(with_error(mean, mcse), mean),
            Cell::new(interval(low, high, mcse), low),
            Cell::new(number(exact), exact),
            Cell::new(number(lambda), lambda),
            Cell::new(off, relative.map(f64::abs)),
            Cell::new(r_hat_text, r_hat),
            Cell::new(whole(bulk), bulk),
            Cell::new(whole(tail), tail),
            Cell::new(whole(fge), fge),
            Cell::new(seconds(time), time),
            Cell::new(number(rate), rate),
            Cell::new(number(wnv), wnv),
        ];
        let reason = |text: &String| Reason { meaning: meaning(text), text: text.clone() };
        let mut reasons: Vec<Reason> = analysis.iter().flat_map(|a| &a.reasons).map(reason).collect();
        reasons.extend(failure.map(|text| Reason { meaning: "", text }));
        reasons.extend(
            subject.troubles.iter().map(|t| Reason { meaning: "", text: format!("{} {}", t.file, t.what) }),
        );
        Self {
            anchor: subject.anchor(),
            state: subject.state,
            rank: subject.state as usize,
            target,
            sampler: subject.listed.sampler.clone(),
            settings,
            cells,
            reasons,
        }
    }
}

/// FGE of a run, warmup included.
fn work(analysis: &Analysis) -> f64 {
    analysis.fge_warmup + analysis.fge_sampling
}

/// Why a run failed, from the log that its sweep left beside `runs/`.
pub(super) fn failure(found: &RunsRoot, run: &ExperimentRun) -> String {
    let target = short(&run.target_id, 12);
    let logs = [
        format!("logs/run_sampler/tgt_{target}_{}_{}.log", run.sampler, short(&run.run_id, 8)),
        format!("logs/build_target/tgt_{target}.log"),
    ];
    let told = logs.iter().find_map(|name| {
        let text = read_log(found.home(), name)?;
        let line = text.lines().rev().find_map(|line| line.strip_prefix("failed: "))?;
        Some(line.to_owned())
    });
    told.unwrap_or_else(|| format!("failed, and why is not in this copy: {} is missing", logs[0]))
}

/// The end of a log below `home`, links that lead out of it aside.
fn read_log(home: &Path, name: &str) -> Option<String> {
    let (home, path) = (home.canonicalize().ok()?, home.join(name).canonicalize().ok()?);
    if !path.starts_with(&home) || !path.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MOST_LOG).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// For each run (by id) the settings in which it differs from other runs of its sampler, and `f32` where
/// the sampler computes in another precision than the target.
pub(super) fn settings_that_vary(subjects: &[Subject]) -> BTreeMap<String, String> {
    let runs = || subjects.iter().filter_map(|s| s.found);
    let mut values: BTreeMap<(&str, String), BTreeSet<String>> = BTreeMap::new();
    for run in runs() {
        for (key, value) in flat(run) {
            values.entry((&run.manifest.sampler, key)).or_default().insert(value);
        }
    }
    let of_run = |run: &FoundRun| {
        let m = &run.manifest;
        let varies =
            |key: &String| values.get(&(m.sampler.as_str(), key.clone())).is_some_and(|v| v.len() > 1);
        let mut said: Vec<String> = Vec::new();
        if m.precision.cast {
            said.push(m.precision.sampler.clone());
        }
        let differing = flat(run).into_iter().filter(|(key, _)| varies(key) && key != "dtype");
        said.extend(differing.map(|(key, value)| format!("{key}={value}")));
        (m.run_id.clone(), said.join(", "))
    };
    runs().map(of_run).collect()
}

/// A run's settings by their last name, posterior and sampler together.
fn flat(run: &FoundRun) -> Vec<(String, String)> {
    fn walk(name: &str, value: &Value, into: &mut Vec<(String, String)>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| walk(key, value, into)),
            other => into.push((name.to_owned(), setting(other))),
        }
    }
    let mut found = Vec::new();
    walk("", &run.manifest.config, &mut found);
    found.sort();
    found
}

/// What a reader takes from the runs of one target under one posterior.
#[derive(Debug, Serialize)]
pub(super) struct Lesson {
    pub target: String,
    /// What tells it from the other posteriors on this target.
    pub posterior: String,
    pub best: Option<Best>,
    /// How many runs there are, and how they agree.
    pub more: String,
}

/// The best of several runs.
#[derive(Debug, Serialize)]
pub(super) struct Best {
    pub anchor: String,
    pub sampler: String,
    pub settings: String,
    pub estimate: String,
    pub exact: String,
    pub wnv: String,
    pub work: String,
}

/// Per target and posterior: among runs with verdict ok the one with the least MCSE² × FGE.
pub(super) fn lessons(subjects: &[Subject], rows: &[Row]) -> Vec<Lesson> {
    let mut groups: Vec<((&str, String), Vec<usize>)> = Vec::new();
    for (i, subject) in subjects.iter().enumerate() {
        let posterior = subject.found.map(|run| canonical_json(&run.manifest.config["posterior"]));
        let target = subject.listed.target_id.as_str();
        // A run that is not there joins the first group of its target.
        let place =
            groups.iter().position(|((t, p), _)| *t == target && posterior.as_ref().is_none_or(|q| q == p));
        match place {
            Some(place) => groups[place].1.push(i),
            None => groups.push(((target, posterior.unwrap_or_default()), vec![i])),
        }
    }
    let several = |target: &str| groups.iter().filter(|((t, _), _)| *t == target).count() > 1;
    groups
        .iter()
        .map(|((target, _), members)| {
            let ok: Vec<(usize, &Analysis)> = members
                .iter()
                .filter(|i| subjects[**i].state == State::Ok)
                .filter_map(|i| Some((*i, subjects[*i].analysis()?)))
                .collect();
            let ranked = ok.iter().filter_map(|(i, a)| Some((*i, *a, a.wnv_fge.filter(|w| w.is_finite())?)));
            let best = ranked.min_by(|a, b| a.2.total_cmp(&b.2)).map(|(i, a, wnv)| Best {
                anchor: rows[i].anchor.clone(),
                sampler: rows[i].sampler.clone(),
                settings: rows[i].settings.clone(),
                estimate: with_error(a.llc_mean, a.llc_mcse),
                exact: if a.exact_llc.is_some() { number(a.exact_llc) } else { String::new() },
                wnv: number(Some(wnv)),
                work: whole(Some(work(a))),
            });
            let posterior = members.first().and_then(|i| subjects[*i].found).filter(|_| several(target));
            Lesson {
                target: rows[members[0]].target.clone(),
                posterior: posterior.map(posterior_words).unwrap_or_default(),
                best,
                more: agreement(members.len(), &ok),
            }
        })
        .collect()
}

fn posterior_words(run: &FoundRun) -> String {
    let Value::Object(map) = &run.manifest.config["posterior"] else { return String::new() };
    let said = map.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| format!("{k} {}", setting(v)));
    said.collect::<Vec<_>>().join(", ")
}

/// `2 of 3 runs are ok and agree within 1.2 joint standard errors.`
fn agreement(members: usize, ok: &[(usize, &Analysis)]) -> String {
    let are = if ok.len() == 1 { "is" } else { "are" };
    let mut text = format!("{} of {} {are} ok", ok.len(), count(members, "run"));
    let mut farthest: Option<f64> = None;
    for (i, (_, a)) in ok.iter().enumerate() {
        for (_, b) in &ok[i + 1..] {
            let apart = (|| {
                let joint = (a.llc_mcse?.powi(2) + b.llc_mcse?.powi(2)).sqrt();
                Some((a.llc_mean? - b.llc_mean?).abs() / joint).filter(|z| z.is_finite())
            })();
            farthest = match (farthest, apart) {
                (Some(a), Some(b)) => Some(a.max(b)),
                (a, b) => a.or(b),
            };
        }
    }
    match farthest {
        Some(z) if z <= 3.0 => text.push_str(&format!(" and agree within {z:.1} joint standard errors")),
        Some(z) => text.push_str(&format!(
            ", yet two of them are {z:.1} joint standard errors apart: they can hardly both be right"
        )),
        None => {}
    }
    text.push('.');
    text
}
