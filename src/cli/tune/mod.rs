//! `tune`: studies of settings, their trials on all ranks.

mod status;
mod summary;

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use comfy_table::CellAlignment::{Left, Right};
use serde_json::json;

use super::args::{TuneArgs, TuneCommand};
use super::progress::Display;
use super::run::{Reins, interrupted, on_ranks, options, refuse_odd_faults, root};
use super::table::{name, table};
use super::{Quit, start_log};
use crate::config::tune::{TuneExperiment, load_tune};
use crate::config::{Device, LoadOptions};
use crate::launch;
use crate::store::Store;
use crate::sweep::{self, Plan};
use crate::tune::conduct::{Conductor, Settings, StudyState, plan, problem_name};
use crate::tune::outputs;

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
        return status::print(what.as_deref(), common);
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
    for (index, problem) in tune.problems.iter().enumerate() {
        let target = &plan.targets[problem.target];
        for space in &tune.methods {
            let study = format!("{}:{}", problem_name(tune, plan, index), space.method);
            let (parameters, trials) = (space.dimensions.len(), tune.study.max_trials);
            shown.add_row([
                study.clone(),
                name(&problem.label),
                target.dim.to_string(),
                target.n_data.to_string(),
                parameters.to_string(),
                trials.to_string(),
            ]);
            rows.push(json!({ "study": study, "target": problem.label, "target_id": target.id.to_string(),
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
        tune.problems.len(),
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
    summary::print(tune, &conductor, summary.executed, args.run.common.json);
    let unfinished = |state: &StudyState| {
        let runs_failed = state.fresh.iter().flatten().any(Result::is_err);
        state.trouble.is_some() || state.winner().is_none() || runs_failed
    };
    Ok(u8::from(conductor.studies().iter().any(unfinished)))
}
