//! `run`: the main job.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use comfy_table::CellAlignment::{Left, Right};
use serde_json::{Value, json};

use super::args::RunArgs;
use super::progress::Display;
use super::table::{name, note, number, seconds, table, unbroken, with_error};
use super::{Quit, promote, signals, start_log};
use crate::comm::{self, Comm};
use crate::config::{self, Device, Execution, LoadOptions};
use crate::device::gpu::{DeviceError, RankDevice};
use crate::device::{Arith, fma_peak};
use crate::diagnostics::Verdict;
use crate::launch::{self, Card};
use crate::store::{self, Store};
use crate::sweep::costs::Model;
use crate::sweep::{self, INTERRUPTED, MANAGER, Plan, RunState, Summary, UnitKind};

/// Cores that a single process uses unless told otherwise.
const MOST_SLOTS: usize = 8;

/// Runs the sweep; the exit code is 0, or 1 when a run failed (or, with `--strict`, is in doubt).
pub fn run(args: RunArgs) -> Result<u8, Quit> {
    start_log(&args.common);
    // The plan of a sweep is the same wherever it runs.
    let card = match args.parsl_card.as_deref().filter(|_| !args.dry_run).map(launch::find) {
        Some((Card::Slurm(_), _)) => return submit_instead(&args),
        Some((Card::Local(path), notice)) => {
            log::warn!("{}", notice.unwrap_or_else(|| format!("{} is read", path.display())));
            Some(path)
        }
        None => launch::local_default(Path::new(".")),
    };
    let swept = Cell::new(None);
    let result = on_ranks(
        &args,
        card.as_deref(),
        |device| prepare(&args, device),
        |prepared, job| {
            let slots = job.slots;
            let result = conduct(&args, &prepared, job);
            swept.set(Some((prepared, slots)));
            result
        },
    );
    match swept.into_inner().filter(|_| args.promote && matches!(result, Ok(code) if code != INTERRUPTED)) {
        // Rank 0, once the others are done.
        Some((Prepared { plan, store, .. }, slots)) => {
            let silent = args.common.quiet || args.common.json;
            let whole = promote::after_sweep(store.root(), &plan.name, &args.promote_plots, slots, silent);
            result.map(|code| if whole { code } else { code.max(1) })
        }
        None => result,
    }
}

/// What rank 0 conducts a job with.
pub(super) struct Reins<'a> {
    /// Worker slots of this rank.
    pub slots: usize,
    pub comm: &'a mut dyn Comm,
    pub signal: Arc<AtomicUsize>,
    /// The device of this rank, where it uses one.
    pub device: Option<RankDevice>,
}

/// Connects the ranks: the first prepares, with the device that it has found, and conducts (nothing after a dry run,
/// which prepares nothing), the others work for it. All meet at the end.
pub(super) fn on_ranks<P>(
    args: &RunArgs,
    card: Option<&Path>,
    prepare: impl FnOnce(Option<&RankDevice>) -> Result<Option<P>, Quit>,
    conduct: impl FnOnce(P, Reins<'_>) -> Result<u8, Quit>,
) -> Result<u8, Quit> {
    comm::abort_on_panic();
    if args.dry_run && comm::launched_rank().is_some_and(|rank| rank > 0) {
        // One plan is enough.
        return Ok(0);
    }
    let signal =
        signals::listen().map_err(|e| Quit::Environment(format!("cannot listen to signals: {e}")))?;
    let mut comm = comm::connect(args.local || args.dry_run)?;
    let comm = comm.as_mut();
    if comm.rank() == MANAGER {
        let got = own_share(args, card, comm);
        let End { result, lost_ranks } = manage(got, comm, signal, prepare, conduct);
        if lost_ranks {
            // They would be waited for without end.
            complain!("some ranks do not answer: the job is ended from here");
            let code = result.unwrap_or_else(|quit| {
                complain!("error: {quit}");
                quit.code()
            });
            comm.abort(i32::from(code));
        }
        comm.barrier();
        return result;
    }
    // Where this rank has none and rank 0 has, rank 0 says so.
    let found = find_device(args.device.unwrap_or_default(), comm.node_local().0);
    let device = found.unwrap_or_else(|why| {
        log::debug!("rank {}: {why}", comm.rank());
        None
    });
    match sweep::work(comm, slots(args, true), args.arith.unwrap_or_else(Arith::best), device, &signal) {
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

/// `run --parsl-card CARD` is `slurm submit --card CARD`.
fn submit_instead(args: &RunArgs) -> Result<u8, Quit> {
    let card = args.parsl_card.as_deref().unwrap_or(Path::new(""));
    log::warn!("run --parsl-card is read as slurm submit --card {}", card.display());
    super::slurm::submit(card, args).map(|()| 0)
}

/// The end of rank 0's part.
struct End {
    result: Result<u8, Quit>,
    lost_ranks: bool,
}

/// Rank 0's part. Whatever goes wrong before the sweep, the other ranks are sent home.
fn manage<P>(
    got: Result<Share, Quit>,
    comm: &mut dyn Comm,
    signal: Arc<AtomicUsize>,
    prepare: impl FnOnce(Option<&RankDevice>) -> Result<Option<P>, Quit>,
    conduct: impl FnOnce(P, Reins<'_>) -> Result<u8, Quit>,
) -> End {
    let result = match got.and_then(|got| Ok(prepare(got.device.as_ref())?.map(|prepared| (got, prepared)))) {
        Ok(Some((Share { slots, device }, prepared))) => {
            let result = conduct(prepared, Reins { slots, comm, signal, device });
            let lost_ranks = sweep::part(comm).unwrap_or(true);
            return End { result, lost_ranks };
        }
        Ok(None) => Ok(0),
        Err(quit) => Err(quit),
    };
    let lost_ranks = sweep::dismiss(comm).unwrap_or(true);
    End { result, lost_ranks }
}

/// What a sweep needs.
struct Prepared {
    plan: Arc<Plan>,
    store: Arc<Store>,
    execution: Execution,
}

/// The plan and its store, or `None` after a dry run.
fn prepare(args: &RunArgs, device: Option<&RankDevice>) -> Result<Option<Prepared>, Quit> {
    let options = LoadOptions {
        presets: args.presets.clone(),
        set: args.set.clone(),
        experiment: args.experiment.clone(),
    };
    let experiment = config::load(&args.file, &options).map_err(|e| Quit::Usage(e.to_string()))?;
    for notice in &experiment.notices {
        log::warn!("{notice}");
    }
    refuse_odd_faults()?;
    let plan = Plan::on(&experiment, device.map(RankDevice::info))?;
    if args.dry_run {
        let arith = args.arith.unwrap_or_else(Arith::current);
        // Half of the peak is what the network pass reaches on middling shapes.
        let guess = 0.5 * fma_peak::<f64>(Arith::current(), 3);
        let costs = Model::peek(&root(args, experiment.root.as_ref()), arith).with_speed(guess);
        print_plan(&plan, &costs, args.common.json);
        return Ok(None);
    }
    let (store, execution) = (Store::open(&root(args, experiment.root.as_ref()))?, experiment.execution);
    Ok(Some(Prepared { plan: Arc::new(plan), store: Arc::new(store), execution }))
}

/// What `LAMBDA_HAT_FAULT` says must be understood.
pub(super) fn refuse_odd_faults() -> Result<(), Quit> {
    if sweep::fault_is_understood() {
        return Ok(());
    }
    Err(Quit::Usage("LAMBDA_HAT_FAULT is none of write:N, message:N, panic:PART:K, hang:PART:K".into()))
}

/// The root: the option's, the file's, or the current directory.
pub(super) fn root(args: &RunArgs, of_file: Option<&PathBuf>) -> PathBuf {
    args.common.root.clone().or_else(|| of_file.cloned()).unwrap_or_else(|| PathBuf::from("."))
}

/// Worker slots of a rank: one under MPI, else a core each.
fn slots(args: &RunArgs, launched: bool) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from).min(MOST_SLOTS);
    args.workers.map_or_else(|| if launched { 1 } else { cores() }, usize::from)
}

/// What rank 0 computes with.
struct Share {
    slots: usize,
    device: Option<RankDevice>,
}

/// What rank 0 computes with. A single process asks the machine's card before it counts cores and looks for a device.
fn own_share(args: &RunArgs, card: Option<&Path>, comm: &dyn Comm) -> Result<Share, Quit> {
    let launched = comm.size() > 1;
    let card = match card.filter(|_| !launched) {
        Some(path) => Some(config::load_local_card(path).map_err(|e| Quit::Usage(e.to_string()))?),
        None => None,
    };
    let workers = card.as_ref().and_then(|card| card.workers).filter(|_| args.workers.is_none());
    let wanted = args.device.or(card.map(|card| card.device)).unwrap_or_default();
    let device = find_device(wanted, comm.node_local().0);
    let device = device.map_err(|why| Quit::Environment(format!("--device cuda: {why}")))?;
    Ok(Share { slots: workers.unwrap_or_else(|| slots(args, launched)), device })
}

/// The device of a rank, where it is to use one. `auto` says why it finds none.
fn find_device(wanted: Device, node_local_rank: usize) -> Result<Option<RankDevice>, DeviceError> {
    if wanted == Device::Cpu {
        return Ok(None);
    }
    match RankDevice::find(node_local_rank) {
        Ok(device) => Ok(Some(device)),
        Err(why) if wanted == Device::Cuda => Err(why),
        // What was built without can have none.
        Err(DeviceError::NoFeature) => {
            log::info!("computes on the CPU: {}", DeviceError::NoFeature);
            Ok(None)
        }
        Err(why) => {
            if comm::launched_rank().is_none_or(|rank| rank == MANAGER) {
                log::warn!("computes on the CPU: {why}");
            }
            Ok(None)
        }
    }
}

/// How the job is to be run, by options and file.
pub(super) fn options(
    args: &RunArgs,
    execution: &Execution,
    (slots, device): (usize, Option<RankDevice>),
    signal: Arc<AtomicUsize>,
) -> Result<sweep::Options, Quit> {
    let seconds = Duration::from_secs_f64;
    let defaults = sweep::Options::of(slots);
    let every = args.checkpoint_every.or(execution.checkpoint_every.map(seconds));
    let timeout = args.unit_timeout.or(execution.unit_timeout.map(seconds));
    Ok(sweep::Options {
        arith: args.arith,
        retry_failed: args.retry_failed,
        signal,
        checkpoint_every: every.unwrap_or(defaults.checkpoint_every),
        checkpoint_dir: checkpoint_dir(args, execution)?,
        retries: args.retries.or(execution.retries).unwrap_or(defaults.retries),
        unit_timeout: timeout.or(defaults.unit_timeout).filter(|t| !t.is_zero()),
        deadline: deadline(args),
        device,
        ..defaults
    })
}

fn conduct(args: &RunArgs, prepared: &Prepared, job: Reins<'_>) -> Result<u8, Quit> {
    let Prepared { plan, store, execution } = prepared;
    let options = options(args, execution, (job.slots, job.device), job.signal)?;
    let mut display = Display::new(args.common.quiet);
    let summary = sweep::run(plan, store, job.comm, &options, &mut display);
    display.clear();
    let summary = summary?;
    if let Some(code) = interrupted(&summary) {
        return Ok(code);
    }
    sweep::gather(plan, store, &summary)?;
    print_summary(plan, &summary, args.common.json);
    let failed = !summary.failed_targets.is_empty()
        || summary.runs.iter().any(|r| matches!(r.state, RunState::Failed(_)));
    let doubtful =
        summary.runs.iter().any(|r| matches!(&r.state, RunState::Done(a) if a.verdict == Verdict::Check));
    Ok(u8::from(failed || (args.strict && doubtful)))
}

/// Says that a job was stopped on the way, where it was; the exit code of that.
pub(super) fn interrupted(summary: &Summary) -> Option<u8> {
    let stopped = summary.interruption.as_ref()?;
    complain!(
        "stopped by {}: {} units are left; the same command goes on from here",
        stopped.why,
        stopped.left
    );
    if stopped.late > 0 {
        complain!(
            "{} of them were in a step too long to wait for, and go on from an earlier checkpoint",
            stopped.late
        );
    }
    Some(INTERRUPTED)
}

/// Where every rank writes checkpoints: an absolute path, for ranks may work elsewhere, that can be
/// written to.
fn checkpoint_dir(args: &RunArgs, execution: &Execution) -> Result<Option<PathBuf>, Quit> {
    let Some(dir) = args.checkpoint_dir.as_ref().or(execution.checkpoint_dir.as_ref()) else {
        return Ok(None);
    };
    let told = |e: std::io::Error| {
        Quit::Environment(format!(
            "--checkpoint-dir {}: {e}; name a directory that every rank can write to",
            dir.display()
        ))
    };
    let dir = std::path::absolute(dir).map_err(told)?;
    store::probe(&dir).map_err(told)?;
    Ok(Some(dir))
}

/// When the job will be ended from outside: as the option says, else SLURM.
fn deadline(args: &RunArgs) -> Option<Instant> {
    let left = args.time_limit.or_else(|| {
        let end: u64 = std::env::var("SLURM_JOB_END_TIME").ok()?.trim().parse().ok()?;
        // One that has passed leaves no time.
        Some((UNIX_EPOCH + Duration::from_secs(end)).duration_since(SystemTime::now()).unwrap_or_default())
    })?;
    Instant::now().checked_add(left)
}

/// Digits of an id in the plan's table: enough to tell targets apart, and to name one to `artifacts`.
const PLANNED_DIGITS: usize = 8;

fn print_plan(plan: &Plan, costs: &Model, as_json: bool) {
    let mut shown = table(&[
        ("target", Left),
        ("", Left),
        ("d", Right),
        ("n", Right),
        ("sampler", Left),
        ("chains", Right),
        ("FGE", Right),
        ("time", Right),
    ]);
    unbroken(&mut shown, 0);
    let mut rows = Vec::new();
    let mut total = 0.0;
    for (index, target) in plan.targets.iter().enumerate() {
        let cost = UnitKind::Build(index).expected_seconds(plan, costs);
        total += cost;
        shown.add_row([
            format!("tgt_{}", target.id.short(PLANNED_DIGITS)),
            name(&target.label),
            target.dim.to_string(),
            target.n_data.to_string(),
            "(build)".into(),
            String::new(),
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
        let sampler = run.sampler.algo.name();
        shown.add_row([
            format!("tgt_{}", target.id.short(PLANNED_DIGITS)),
            name(&target.label),
            target.dim.to_string(),
            target.n_data.to_string(),
            run.device.map_or_else(|| sampler.to_owned(), |device| format!("{sampler} {device}")),
            run.sampler.chains.to_string(),
            number(run.fge.total),
            seconds(cost),
        ]);
        rows.push(json!({ "target_id": target.id.to_string(), "run_id": run.id.to_string(),
            "label": target.label, "d": target.dim, "n": target.n_data, "sampler": sampler,
            "device": run.device.unwrap_or("cpu"), "chains": run.sampler.chains, "units": run.units(), "fge": run.fge.total, "core_seconds": cost }));
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
                RunState::Cut(why) => json!({
                    "target_id": plan.targets[run.target].id.to_string(), "run_id": run.id.to_string(),
                    "sampler": run.sampler.algo.name(), "verdict": "given up", "reasons": [why.to_string()] }),
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
        notes.push(format!("target {} FAILED: {}", name(&plan.targets[*index].label), failure.reason));
    }
    for (index, (run, report)) in plan.runs.iter().zip(&summary.runs).enumerate() {
        let target = &plan.targets[run.target];
        let label = name(&target.label);
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
            RunState::Cut(why) => notes.push(format!("{label} {sampler}: {why}")),
            RunState::Failed(failure) => {
                notes.push(format!("{label} {sampler}: {}", failure.reason));
                let dash = || "–".to_owned();
                shown.add_row([label, sampler, dash(), dash(), dash(), dash(), dash(), "FAILED".into()]);
            }
        }
    }
    say!("{shown}");
    for text in notes {
        say!("{}", note(&text));
    }
    let again = if summary.executed == 0 { " (all was done before)" } else { "" };
    say!("{}: {} units executed{again}", plan.name, summary.executed);
}
