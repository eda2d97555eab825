//! `tune`: studies of settings, their trials on all ranks.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use comfy_table::CellAlignment::{Left, Right};
use serde_json::{Value, json};

use super::args::{Common, TuneArgs, TuneCommand};
use super::progress::Display;
use super::run::{Reins, interrupted, on_ranks, options, refuse_odd_faults, root};
use super::table::{name, note, number, seconds, table, unbroken, with_error};
use super::{Quit, start_log};
use crate::config::tune::{TuneExperiment, load_tune};
use crate::config::{Device, LoadOptions};
use crate::launch;
use crate::store::Store;
use crate::sweep::{self, Plan};
use crate::tune::conduct::{Conductor, Settings, StudyState, TRIALS, plan, problem_name};
use crate::tune::objective::names;
use crate::tune::outputs;
use crate::tune::reference::Reference;

/// `workflow tune` and `workflow optuna` are `tune`.
pub fn older_names(mut words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut found: Vec<OsString> = words.by_ref().take(3).collect();
    if found.len() == 3 && found[1] == "workflow" && (found[2] == "tune" || found[2] == "optuna") {
        found.truncate(1);
        found.push("tune".into());
    }
    found.extend(words);
    found
}

/// Runs the studies; the exit code is 0, or 1 when a study could not be finished.
pub fn run(mut args: TuneArgs) -> Result<u8, Quit> {
    if let Some(TuneCommand::Status { what, common }) = &args.command {
        start_log(common);
        return status(what.as_deref(), common);
    }
    start_log(&args.run.common);
    if args.run.parsl_card.is_some() {
        return Err(Quit::Usage(
            "tune has no --parsl-card: start it from a job's script, by srun or mpirun".into(),
        ));
    }
    if args.run.strict {
        return Err(Quit::Usage("--strict is for sweeps; a study asks for no verdicts".into()));
    }
    if args.run.device == Some(Device::Cuda) {
        return Err(Quit::Usage("--device cuda is for sweeps: trials run on the CPU".into()));
    }
    args.run.device = Some(Device::Cpu);
    if let Some(file) = args.config.take() {
        args.run.file = file;
    }
    let card = if args.run.dry_run { None } else { launch::local_default(Path::new(".")) };
    on_ranks(
        &args.run,
        card.as_deref(),
        |_| prepare(&args),
        |prepared, reins| conduct(&args, &prepared, reins),
    )
}

struct Prepared {
    tune: TuneExperiment,
    plan: Arc<Plan>,
    store: Arc<Store>,
}

/// The file as the options change it.
fn load(args: &TuneArgs) -> Result<TuneExperiment, Quit> {
    let mut set = args.run.set.clone();
    let mut option =
        |key: &str, value: Option<String>| set.extend(value.map(|value| format!("{key}={value}")));
    option("tune.max_trials_per_method", args.max_trials.map(|n| n.to_string()));
    option("tune.concurrency.batch_size", args.batch_size.map(|n| n.to_string()));
    let budget = |time: Option<Duration>| time.map(|t| format!("{:?}", t.as_secs_f64()));
    option("execution.budget.hmc_sec", budget(args.hmc_budget));
    option("execution.budget.trial_sec", budget(args.method_budget));
    let options =
        LoadOptions { presets: args.run.presets.clone(), set, experiment: args.run.experiment.clone() };
    let tune = load_tune(&args.run.file, &options).map_err(|e| Quit::Usage(e.to_string()))?;
    for notice in &tune.notices {
        log::warn!("{notice}");
    }
    Ok(tune)
}

fn prepare(args: &TuneArgs) -> Result<Option<Prepared>, Quit> {
    let tune = load(args)?;
    refuse_odd_faults()?;
    let plan = plan(&tune)?;
    if args.run.dry_run {
        print_plan(&tune, &plan, args.run.common.json);
        return Ok(None);
    }
    let store = Store::open(&root(&args.run, tune.root.as_ref()))?;
    Ok(Some(Prepared { tune, plan: Arc::new(plan), store: Arc::new(store) }))
}

fn print_plan(tune: &TuneExperiment, plan: &Plan, as_json: bool) {
    let mut shown = table(&[
        ("study", Left),
        ("target", Left),
        ("d", Right),
        ("n", Right),
        ("parameters", Right),
        ("trials", Right),
    ]);
    let mut rows = Vec::new();
    for (index, target) in plan.targets.iter().enumerate() {
        for space in &tune.methods {
            let study = format!("{}:{}", problem_name(tune, plan, index), space.method);
            let (parameters, trials) = (space.dimensions.len(), tune.study.max_trials);
            shown.add_row([
                study.clone(),
                name(&target.label),
                target.dim.to_string(),
                target.n_data.to_string(),
                parameters.to_string(),
                trials.to_string(),
            ]);
            rows.push(json!({ "study": study, "target": target.label, "target_id": target.id.to_string(),
                "d": target.dim, "n": target.n_data, "parameters": parameters, "trials": trials }));
        }
    }
    if as_json {
        say!("{}", json!({ "experiment": tune.name, "studies": rows }));
        return;
    }
    say!("{shown}");
    say!(
        "{}: {} problems, {} studies of at most {} trials; nothing was run",
        tune.name,
        plan.targets.len(),
        rows.len(),
        tune.study.max_trials
    );
}

fn conduct(args: &TuneArgs, prepared: &Prepared, reins: Reins<'_>) -> Result<u8, Quit> {
    let Prepared { tune, plan, store } = prepared;
    let options = options(&args.run, &tune.execution, (reins.slots, None), reins.signal)?;
    let settings = Settings {
        accuracy: args.reference_error,
        allow_rough: args.allow_rough_reference,
        presets: args.run.presets.clone(),
    };
    let mut conductor = Conductor::new(store, tune, plan, &settings);
    let mut display = Display::new(args.run.common.quiet);
    let summary = sweep::run_and_grow(plan, store, reins.comm, &options, &mut display, Some(&mut conductor));
    display.clear();
    let summary = summary?;
    if let Some(code) = interrupted(&summary) {
        return Ok(code);
    }
    sweep::list(&summary.plan, store, &summary)?;
    outputs::write(store, tune, plan, &conductor, settings.presets.as_deref())?;
    print_summary(tune, plan, &conductor, summary.executed, args.run.common.json);
    let unfinished = |state: &StudyState| {
        let runs_failed = state.fresh.iter().flatten().any(Result::is_err);
        state.trouble.is_some() || state.winner().is_none() || runs_failed
    };
    Ok(u8::from(conductor.studies().iter().any(unfinished)))
}

/// Work of a study's trials, and of its fresh runs.
fn work(state: &StudyState) -> f64 {
    let Some(study) = &state.study else { return 0.0 };
    let of = |trial: &crate::tune::study::Trial| {
        let outcome = trial.outcome.as_ref().filter(|_| trial.twin.is_none())?;
        outcome.notes.get("fge").and_then(Value::as_f64)
    };
    study.trials()[..study.settled()].iter().filter_map(of).sum::<f64>() + state.fresh_fge
}

fn print_summary(
    tune: &TuneExperiment,
    plan: &Plan,
    conductor: &Conductor<'_>,
    executed: usize,
    as_json: bool,
) {
    let mut shown = table(&[
        ("study", Left),
        ("trials", Right),
        ("best", Right),
        ("again", Right),
        ("fresh ± 95 %", Right),
        ("off", Right),
    ]);
    unbroken(&mut shown, 0);
    let (mut rows, mut notes) = (Vec::new(), Vec::new());
    let mut whole = 0.0;
    let dash = || "–".to_owned();
    let objective = names(&tune.study.objective).join("; ");
    for state in conductor.studies() {
        let (settled, failed, pruned) = state.counts();
        let winner = state.winner();
        let best = winner.and_then(|trial| match &trial.outcome.as_ref()?.end {
            crate::tune::study::End::Complete(values) => values.first().copied(),
            _ => None,
        });
        let (fresh, reference) = (state.fresh_estimate(), state.reference);
        let newest = conductor.problem(state.problem).1;
        let off = fresh.zip(newest).map(|((llc, _), r)| (llc - r.llc).abs() / r.llc.abs());
        let exact = newest.is_some_and(|r| r.exact);
        let again = state.fresh_values();
        let ends = [(pruned, "pruned"), (failed, "failed")];
        let ends = ends.iter().filter(|(n, _)| *n > 0).map(|(n, how)| format!("{n} {how}"));
        let ends = ends.collect::<Vec<_>>().join(", ");
        shown.add_row([
            if ends.is_empty() { state.name.clone() } else { format!("{}\n  {ends}", state.name) },
            settled.to_string(),
            best.map_or_else(dash, number),
            again.as_ref().map_or_else(dash, |values| number(values[0].0)),
            fresh.map_or_else(dash, |(llc, half)| with_error(llc, half)),
            off.map_or_else(dash, |off| format!("{:.1} %", 100.0 * off)),
        ]);
        whole += work(state);
        if let Some(trouble) = &state.trouble {
            notes.push(format!("{}: {trouble}", state.name));
        } else if winner.is_none() {
            let why = match state.reasons().first() {
                Some((reason, count)) if *count == settled => format!("; all {count} failed: {reason}"),
                Some((reason, count)) => format!("; {count} of {settled} failed: {reason}"),
                None => String::new(),
            };
            notes.push(format!("{}: no trial came to an end{why}", state.name));
        }
        if let Some(reason) = &state.rough {
            notes.push(format!("{}: its reference is rough: {reason}", state.name));
        }
        if let Some((was, now)) =
            reference.zip(newest.map(Reference::estimate)).filter(|(was, now)| was != now)
        {
            notes.push(format!(
                "{}: its trials are measured against {}, the reference when it began, which its journal keeps; \"off\" \
                 against today's, {}. Move its journal away to search against that",
                state.name,
                with_error(was.llc, was.mcse),
                with_error(now.llc, now.mcse)
            ));
        }
        if state.keeps_budget {
            let cap = state.cap.map_or("none".to_owned(), |cap| format!("{cap:.4e} FGE"));
            notes.push(format!(
                "{}: the budget of its trials stays what it began with ({cap}), not what the file says by now. Move \
                 its journal away to search with that",
                state.name
            ));
        }
        let by_rate = state.trial_sec.zip(state.rate).map(|(seconds, rate)| seconds / rate);
        if let Some(cap) = state.cap.filter(|cap| by_rate == Some(*cap)) {
            let text = format!(
                "{}: trials have {cap:.4e} FGE, their seconds at this machine's speed; `trial_fge: {cap}` gives another \
                 search the same trials",
                conductor.problem(state.problem).0
            );
            if !notes.contains(&text) {
                notes.push(text);
            }
        }
        if !state.reproducible {
            notes.push(format!(
                "{}: a clock decided something in it; it may come out otherwise another time",
                state.name
            ));
        }
        for why in state.fresh.iter().flatten().filter_map(|fresh| fresh.as_ref().err()) {
            notes.push(format!("{}: a run of the best settings with a fresh seed failed: {why}", state.name));
        }
        rows.push(json!({
            "study": state.name, "target": plan.targets[state.problem].label, "trials": settled, "pruned": pruned, "failed": failed,
            "best": best, "best_trial": winner.map(|t| t.number), "best_params": winner.map(|t| &t.params),
            "fresh_llc": fresh.map(|f| f.0), "fresh_half_width": fresh.map(|f| f.1), "relative_error": off,
            "reference_llc": reference.map(|r| r.llc), "reference_mcse": reference.map(|r| r.mcse),
            "reference_exact": exact, "reference_rough": state.rough, "newest_reference_llc": newest.map(|r| r.llc),
            "fresh_values": again.as_ref().map(|v| v.iter().map(|v| v.0).collect::<Vec<_>>()),
            "fresh_values_half_width": again.as_ref().map(|v| v.iter().map(|v| v.1).collect::<Vec<_>>()),
            "trial_fge": state.cap, "trial_sec": state.trial_sec,
            "newest_reference_mcse": newest.map(|r| r.mcse), "objective": objective, "reasons": state.reasons(),
            "fge": work(state), "reproducible": state.reproducible, "trouble": state.trouble,
        }));
    }
    if as_json {
        say!("{}", json!({ "experiment": tune.name, "executed_units": executed, "studies": rows }));
        return;
    }
    say!("{shown}");
    let of_several = if tune.study.objective.values() > 1 { " (of the least in the first)" } else { "" };
    say!("  best, and again with fresh seeds (mean of 4){of_several}: {objective}");
    for index in 0..plan.targets.len() {
        let (problem, reference) = conductor.problem(index);
        if let Some(r) = reference {
            let (value, how) =
                if r.exact { (number(r.llc), "exact") } else { (with_error(r.llc, r.mcse), "nuts") };
            say!("  reference of {problem} ({}): {value}, {how}", name(&plan.targets[index].label));
        }
    }
    for text in notes {
        say!("{}", note(&text));
    }
    let again = if executed == 0 { " (all was done before)" } else { "" };
    let found = match conductor.studies().iter().any(|state| state.winner().is_some()) {
        true => "best settings are in results/best",
        false => "no study has a trial to take settings from",
    };
    say!("  trials and fresh runs: {} FGE", number(whole));
    say!("{}: {executed} units executed{again}; {found}", tune.name);
}

/// Prints how the studies of a root stand, by their journals alone.
fn status(what: Option<&str>, common: &Common) -> Result<u8, Quit> {
    let root = common.root.clone().unwrap_or_else(|| ".".into());
    let wanted: Option<Vec<String>> = match what {
        Some(file) if Path::new(file).is_file() => {
            let tune = load_tune(Path::new(file), &LoadOptions::default())
                .map_err(|e| Quit::Usage(e.to_string()))?;
            let plan = plan(&tune)?;
            let studies = (0..plan.targets.len()).flat_map(|i| {
                let problem = problem_name(&tune, &plan, i);
                tune.methods.iter().map(move |m| format!("{problem}:{}", m.method)).collect::<Vec<_>>()
            });
            Some(studies.collect())
        }
        Some(name) => Some(vec![name.to_owned()]),
        None => None,
    };
    let dir = root.join("results/studies");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        let Some(stem) = file.strip_suffix(".journal.log") else { continue };
        let study = stem.replacen('-', ":", 1);
        let is_meant = |wanted: &String| {
            *wanted == study
                || *wanted == stem
                || study.strip_prefix(wanted.as_str()).is_some_and(|s| s.starts_with(':'))
        };
        if wanted.as_ref().is_none_or(|wanted| wanted.iter().any(is_meant)) {
            match std::fs::read_to_string(entry.path()) {
                Ok(text) => found.push((study, standing(&text))),
                Err(e) => log::warn!("{}: {e}", entry.path().display()),
            }
        }
    }
    if found.is_empty() {
        let which = what.map_or_else(String::new, |what| format!(" of {what}"));
        return Err(Quit::Usage(format!(
            "{} holds no study{which}: name the directory of a search with --root; one that is young has none yet",
            dir.display()
        )));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    if common.json {
        let rows: Vec<Value> = found.iter().map(|(study, s)| s.json(study)).collect();
        say!("{}", json!(rows));
        return Ok(0);
    }
    let mut shown = table(&[
        ("study", Left),
        ("target", Left),
        ("ended", Right),
        ("pruned", Right),
        ("failed", Right),
        ("best", Right),
        ("last sign", Right),
    ]);
    unbroken(&mut shown, 0);
    for (study, s) in &found {
        shown.add_row([
            study.clone(),
            name(&s.target),
            format!("{}/{}", s.complete + s.pruned + s.failed, s.asked),
            s.pruned.to_string(),
            s.failed.to_string(),
            s.best.map_or_else(|| "–".to_owned(), number),
            s.age().map_or_else(|| "–".to_owned(), |age| format!("{} ago", seconds(age))),
        ]);
    }
    say!("{shown}");
    let mut objectives: Vec<&str> =
        found.iter().map(|(_, s)| s.objective.as_str()).filter(|o| !o.is_empty()).collect();
    objectives.sort_unstable();
    objectives.dedup();
    if !objectives.is_empty() {
        say!("  best: {}", objectives.join(" or "));
    }
    for (study, reason) in found.iter().filter_map(|(study, s)| Some((study, s.rough.as_ref()?))) {
        say!("{}", note(&format!("{study}: its reference is rough: {reason}")));
    }
    for (study, _) in found.iter().filter(|(_, s)| s.by_clock) {
        say!("{}", note(&format!("{study}: not reproducible, a clock decided something in it")));
    }
    Ok(0)
}

/// How a study stands.
#[derive(Debug, Default)]
struct Standing {
    target: String,
    /// Trials that were asked for; of a journal that does not say, those proposed.
    asked: usize,
    proposed: usize,
    complete: usize,
    /// What is minimised, with its unit.
    objective: String,
    /// Why its reference is rough, where it is.
    rough: Option<String>,
    pruned: usize,
    failed: usize,
    /// A clock has decided something in it.
    by_clock: bool,
    best: Option<f64>,
    last: Option<jiff::Timestamp>,
}

impl Standing {
    fn age(&self) -> Option<f64> {
        self.last.map(|last| (jiff::Timestamp::now().as_second() - last.as_second()).max(0) as f64)
    }

    fn json(&self, study: &str) -> Value {
        json!({ "study": study, "target": self.target, "asked": self.asked, "proposed": self.proposed, "objective": self.objective, "reference_rough": self.rough, "complete": self.complete,
            "pruned": self.pruned, "reproducible": !self.by_clock, "failed": self.failed, "best": self.best, "last": self.last.map(|t| t.to_string()) })
    }
}

/// Reads a journal; lines that are none are passed over, one may just be being written.
fn standing(text: &str) -> Standing {
    let mut standing = Standing::default();
    for line in text.lines() {
        let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
        match line["op_code"].as_u64() {
            Some(2) => {
                if let Some(target) = line["user_attr"]["problem"].as_str() {
                    standing.target = target.to_owned();
                }
                if let Some(objective) = line["user_attr"]["objective"].as_str() {
                    standing.objective = objective.to_owned();
                }
                if let Some(reason) = line["user_attr"]["reference_rough"].as_str() {
                    standing.rough = Some(reason.to_owned());
                }
                if let Some(trials) = line["user_attr"][TRIALS].as_u64() {
                    standing.asked = trials as usize;
                }
                if let Some(reproducible) = line["user_attr"]["reproducible"].as_bool() {
                    standing.by_clock = !reproducible;
                }
            }
            Some(4) => standing.proposed += 1,
            Some(6) => {
                match line["state"].as_u64() {
                    Some(1) => standing.complete += 1,
                    Some(2) => standing.pruned += 1,
                    Some(3) => standing.failed += 1,
                    _ => {}
                }
                if let (Some(1), Some(value)) = (line["state"].as_u64(), line["values"][0].as_f64()) {
                    standing.best = Some(standing.best.map_or(value, |best| best.min(value)));
                }
            }
            _ => {}
        }
        for key in ["datetime_start", "datetime_complete"] {
            if let Some(time) = line[key].as_str().and_then(|time| time.parse().ok()) {
                standing.last = Some(time);
            }
        }
    }
    standing.asked = standing.asked.max(standing.proposed);
    standing
}
