//! `run`: the main job.

use std::path::PathBuf;
use std::sync::Arc;

use comfy_table::CellAlignment::{Left, Right};
use serde_json::{Value, json};

use super::args::RunArgs;
use super::progress::Display;
use super::table::{number, seconds, table, with_error};
use super::{Quit, start_log};
use crate::comm::{self, Comm};
use crate::config::{self, Experiment, LoadOptions};
use crate::device::{Arith, fma_peak};
use crate::diagnostics::Verdict;
use crate::store::Store;
use crate::sweep::costs::Model;
use crate::sweep::{self, MANAGER, Plan, RunState, Summary, UnitKind};

/// Cores that a single process uses unless told otherwise.
const MOST_SLOTS: usize = 8;

/// Runs the sweep; the exit code is 0, or 1 when a run failed (or, with `--strict`, is in doubt).
pub fn run(args: RunArgs) -> Result<u8, Quit> {
    start_log(&args.common);
    comm::abort_on_panic();
    if args.dry_run && comm::launched_rank().is_some_and(|rank| rank > 0) {
        // One plan is enough.
        return Ok(0);
    }
    let mut comm = comm::connect(args.local || args.dry_run)?;
    let comm = comm.as_mut();
    if comm.rank() == MANAGER {
        let result = manage(&args, comm);
        comm.barrier();
        return result;
    }
    let slots = slots(&args, true);
    match sweep::work(comm, slots, args.arith.unwrap_or_else(Arith::best)) {
        // Only rank 0 reports, and returns a code that is not 0.
        Ok(()) => {
            comm.barrier();
            Ok(0)
        }
        // A rank whose messages broke cannot meet the others any more.
        Err(error) => {
            complain!("error: rank {}: {error}", comm.rank());
            comm.abort(3)
        }
    }
}

/// Rank 0's part. Whatever goes wrong before the sweep, the other ranks are sent home.
fn manage(args: &RunArgs, comm: &mut dyn Comm) -> Result<u8, Quit> {
    match prepare(args) {
        Ok(Some((plan, store))) => conduct(args, &Arc::new(plan), &Arc::new(store), comm),
        Ok(None) => sweep::dismiss(comm).map(|()| 0).map_err(Quit::from),
        Err(quit) => {
            sweep::dismiss(comm)?;
            Err(quit)
        }
    }
}

/// The plan and its store, or `None` after a dry run.
fn prepare(args: &RunArgs) -> Result<Option<(Plan, Store)>, Quit> {
    let options = LoadOptions {
        presets: args.presets.clone(),
        set: args.set.clone(),
        experiment: args.experiment.clone(),
    };
    let experiment = config::load(&args.file, &options).map_err(|e| Quit::Usage(e.to_string()))?;
    for notice in &experiment.notices {
        log::warn!("{notice}");
    }
    let plan = Plan::new(&experiment)?;
    if args.dry_run {
        let arith = args.arith.unwrap_or_else(Arith::current);
        // Half of the peak is what the network pass reaches on middling shapes.
        let guess = 0.5 * fma_peak::<f64>(Arith::current(), 3);
        let costs = Model::peek(&root(args, &experiment), arith).with_speed(guess);
        print_plan(&plan, &costs, args.common.json);
        return Ok(None);
    }
    Ok(Some((plan, Store::open(&root(args, &experiment))?)))
}

fn root(args: &RunArgs, experiment: &Experiment) -> PathBuf {
    args.common.root.clone().or_else(|| experiment.root.clone()).unwrap_or_else(|| PathBuf::from("."))
}

/// Worker slots of a rank: one under MPI, else a core each.
fn slots(args: &RunArgs, launched: bool) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from).min(MOST_SLOTS);
    args.workers.map_or_else(|| if launched { 1 } else { cores() }, usize::from)
}

fn conduct(args: &RunArgs, plan: &Arc<Plan>, store: &Arc<Store>, comm: &mut dyn Comm) -> Result<u8, Quit> {
    let options = sweep::Options {
        slots: slots(args, comm.size() > 1),
        arith: args.arith,
        retry_failed: args.retry_failed,
    };
    let mut display = Display::new(args.common.quiet);
    let summary = sweep::run(plan, store, comm, &options, &mut display);
    display.clear();
    let summary = summary?;
    sweep::gather(plan, store, &summary)?;
    print_summary(plan, &summary, args.common.json);
    let failed = !summary.failed_targets.is_empty()
        || summary.runs.iter().any(|r| matches!(r.state, RunState::Failed(_)));
    let doubtful =
        summary.runs.iter().any(|r| matches!(&r.state, RunState::Done(a) if a.verdict == Verdict::Check));
    Ok(u8::from(failed || (args.strict && doubtful)))
}

fn print_plan(plan: &Plan, costs: &Model, as_json: bool) {
    let mut shown = table(&[
        ("target", Left),
        ("", Left),
        ("d", Right),
        ("n", Right),
        ("sampler", Left),
        ("chains", Right),
        ("units", Right),
        ("FGE", Right),
        ("core time", Right),
    ]);
    let mut rows = Vec::new();
    let mut total = 0.0;
    for (index, target) in plan.targets.iter().enumerate() {
        let cost = UnitKind::Build(index).expected_seconds(plan, costs);
        total += cost;
        shown.add_row([
            format!("tgt_{}", target.id.short(12)),
            target.label.clone(),
            target.dim.to_string(),
            target.n_data.to_string(),
            "(build)".into(),
            String::new(),
            "1".into(),
            number(target.build_fge),
            seconds(cost),
        ]);
        rows.push(json!({ "target_id": target.id.to_string(), "label": target.label, "d": target.dim,
            "n": target.n_data, "sampler": null, "units": 1, "fge": target.build_fge, "core_seconds": cost }));
    }
    for (index, run) in plan.runs.iter().enumerate() {
        let target = &plan.targets[run.target];
        let cost: f64 = plan.units_of_run(index).map(|unit| unit.expected_seconds(plan, costs)).sum();
        total += cost;
        shown.add_row([
            format!("tgt_{}", target.id.short(12)),
            target.label.clone(),
            target.dim.to_string(),
            target.n_data.to_string(),
            run.sampler.algo.name().into(),
            run.sampler.chains.to_string(),
            run.units().to_string(),
            number(run.fge.total),
            seconds(cost),
        ]);
        rows.push(json!({ "target_id": target.id.to_string(), "run_id": run.id.to_string(),
            "label": target.label, "d": target.dim, "n": target.n_data, "sampler": run.sampler.algo.name(),
            "chains": run.sampler.chains, "units": run.units(), "fge": run.fge.total, "core_seconds": cost }));
    }
    if as_json {
        say!(
            "{}",
            json!({ "experiment": plan.name, "units": plan.units(), "core_seconds": total, "plan": rows })
        );
        return;
    }
    say!("{shown}");
    say!(
        "{}: {} targets, {} runs, {} units, about {} of one core; nothing was run",
        plan.name,
        plan.targets.len(),
        plan.runs.len(),
        plan.units(),
        seconds(total)
    );
}

fn print_summary(plan: &Plan, summary: &Summary, as_json: bool) {
    if as_json {
        let rows: Vec<Value> = plan
            .runs
            .iter()
            .zip(&summary.runs)
            .map(|(run, report)| match &report.state {
                RunState::Done(analysis) => json!(analysis),
                RunState::Failed(failure) => json!({
                    "target_id": plan.targets[run.target].id.to_string(), "run_id": run.id.to_string(),
                    "sampler": run.sampler.algo.name(), "verdict": "failed", "reasons": [failure.reason] }),
            })
            .collect();
        say!("{}", json!({ "experiment": plan.name, "executed_units": summary.executed, "runs": rows }));
        return;
    }
    let mut shown = table(&[
        ("target", Left),
        ("sampler", Left),
        ("llc ± MCSE", Right),
        ("exact", Right),
        ("R-hat", Right),
        ("ESS", Right),
        ("FGE", Right),
        ("verdict", Left),
    ]);
    let mut notes = Vec::new();
    for (index, failure) in &summary.failed_targets {
        notes.push(format!("target {} FAILED: {}", plan.targets[*index].label, failure.reason));
    }
    for (index, (run, report)) in plan.runs.iter().zip(&summary.runs).enumerate() {
        let target = &plan.targets[run.target];
        let label = target.label.clone();
        let mut sampler = plan.sampler_name(index).to_owned();
        if run.sampler.dtype != target.spec.dtype {
            // A cast: built in one precision, sampled in another.
            sampler.push(' ');
            sampler.push_str(run.sampler.dtype.name());
        }
        match &report.state {
            RunState::Done(a) => {
                let or_dash = |x: Option<f64>, f: &dyn Fn(f64) -> String| x.map_or("–".to_owned(), f);
                let exact = match (a.exact_llc, a.exact_lambda) {
                    (Some(llc), _) => number(llc),
                    (None, Some(lambda)) => format!("λ {}", number(lambda)),
                    (None, None) => "–".to_owned(),
                };
                if !a.reasons.is_empty() {
                    notes.push(format!("{label} {sampler}: {}", a.reasons.join("; ")));
                }
                shown.add_row([
                    label,
                    sampler,
                    with_error(a.llc_mean.unwrap_or(f64::NAN), a.llc_mcse.unwrap_or(f64::NAN)),
                    exact,
                    or_dash(a.r_hat, &|r| format!("{r:.3}")),
                    or_dash(a.ess_bulk, &|e| format!("{e:.0}")),
                    number(a.fge_warmup + a.fge_sampling),
                    a.verdict.to_string(),
                ]);
            }
            RunState::Failed(failure) => {
                notes.push(format!("{label} {sampler}: {}", failure.reason));
                let dash = || "–".to_owned();
                shown.add_row([label, sampler, dash(), dash(), dash(), dash(), dash(), "FAILED".into()]);
            }
        }
    }
    say!("{shown}");
    for note in notes {
        say!("  {note}");
    }
    let again = if summary.executed == 0 { " (all was done before)" } else { "" };
    say!("{}: {} units executed{again}", plan.name, summary.executed);
}
