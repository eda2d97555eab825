//! `diagnose`, `diagnose-experiment`, `diagnose-target`, `diagnose-targets`: what finished runs tell of
//! themselves.

use std::collections::BTreeSet;
use std::path::PathBuf;

use comfy_table::CellAlignment::{Left, Right};
use serde_json::{Value, json};

use super::args::{DiagnoseArgs, DiagnoseExperimentArgs, DiagnoseTargetArgs, DiagnoseTargetsArgs, Spread};
use super::table::{name, note, number, table, unbroken, with_error};
use super::{Quit, start_log};
use crate::comm;
use crate::diagnostics::{Diagnosis, Mode, Quantity};
use crate::promote::{
    self, Batch, Files, FoundRun, FoundTarget, Outcome, PromoteError, RunsRoot, SpreadError, Subject,
    TargetDiagnosis,
};

/// Threads of a single process unless told otherwise.
const MOST_THREADS: usize = 8;

impl From<PromoteError> for Quit {
    fn from(e: PromoteError) -> Self {
        match e {
            PromoteError::NoRuns { .. } | PromoteError::NoExperiment { .. } => Quit::Usage(e.to_string()),
            PromoteError::List { .. } | PromoteError::Experiment { .. } | PromoteError::Page { .. } => {
                Quit::Environment(e.to_string())
            }
        }
    }
}

impl From<SpreadError> for Quit {
    fn from(e: SpreadError) -> Self {
        Quit::Environment(e.to_string())
    }
}

/// What a command is about.
struct Chosen {
    batch: Batch,
    /// Of a single run more is shown.
    in_detail: bool,
}

/// `diagnose --run-dir D`
pub fn run(args: &DiagnoseArgs) -> Result<u8, Quit> {
    job(&args.spread, || {
        let is_run = args.run_dir.file_name().is_some_and(|n| n.to_string_lossy().starts_with("run_"));
        let (subjects, troubles) = match FoundRun::at(&args.run_dir) {
            Ok((run, troubles)) => (vec![Subject::Run(Box::new(run))], troubles),
            // A run, but damaged.
            Err(trouble) if is_run && args.run_dir.is_dir() => (Vec::new(), vec![trouble]),
            Err(trouble) => {
                return Err(Quit::Usage(format!(
                    "--run-dir {}: {} {}; name a directory run_… of the runs/ tree",
                    args.run_dir.display(),
                    trouble.file,
                    trouble.what
                )));
            }
        };
        let batch = Batch { subjects, troubles, mode: args.mode.into(), figures: !args.drawing.no_figures };
        Ok(Chosen { batch, in_detail: true })
    })
}

/// `diagnose-experiment --experiment E`
pub fn experiment(args: &DiagnoseExperimentArgs) -> Result<u8, Quit> {
    job(&args.spread, || {
        let found = RunsRoot::open(&root(&args.spread))?;
        let manifest = found.experiment(&args.experiment)?;
        let known: BTreeSet<&str> = manifest.runs.iter().map(|run| run.sampler.as_str()).collect();
        let known: Vec<&str> = known.into_iter().collect();
        if let Some(other) = args.samplers.iter().find(|s| !known.contains(&s.as_str())) {
            return Err(Quit::Usage(format!(
                "--samplers {other}: the experiment {} has {}",
                args.experiment,
                known.join(", ")
            )));
        }
        let wanted = |sampler: &str| args.samplers.is_empty() || args.samplers.iter().any(|s| s == sampler);
        let mut batch = Batch::of_experiment(&found, &manifest, wanted, args.mode.into());
        if batch.subjects.is_empty() && batch.troubles.is_empty() {
            return Err(Quit::Usage(format!(
                "the experiment {} has no finished run{}",
                args.experiment,
                if args.samplers.is_empty() { "" } else { " of these samplers" }
            )));
        }
        batch.figures = !args.drawing.no_figures;
        Ok(Chosen { batch, in_detail: false })
    })
}

/// `diagnose-target --target tgt_…`
pub fn target(args: &DiagnoseTargetArgs) -> Result<u8, Quit> {
    job(&args.spread, || {
        let found = RunsRoot::open(&root(&args.spread))?;
        let Some(target) = found.target_named(&args.target) else {
            let digits = args.target.trim_start_matches("tgt_");
            let damaged = found.troubles().iter().find(|t| t.dir.ends_with(format!("tgt_{digits}")));
            if let Some(trouble) = damaged {
                let troubles = vec![trouble.clone()];
                let batch = Batch { subjects: Vec::new(), troubles, mode: Mode::Light, figures: false };
                return Ok(Chosen { batch, in_detail: false });
            }
            let known: Vec<String> = found.targets().iter().map(FoundTarget::name).collect();
            return Err(Quit::Usage(format!(
                "--target {}: not the name of one target; there is {}",
                args.target,
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            )));
        };
        let batch = Batch { figures: !args.drawing.no_figures, ..Batch::of_target(&found, target) };
        Ok(Chosen { batch, in_detail: false })
    })
}

/// `diagnose-targets [--experiment E]`
pub fn targets(args: &DiagnoseTargetsArgs) -> Result<u8, Quit> {
    job(&args.spread, || {
        let found = RunsRoot::open(&root(&args.spread))?;
        let manifest = args.experiment.as_ref().map(|name| found.experiment(name)).transpose()?;
        let batch = Batch::of_targets(&found, manifest.as_ref());
        if batch.subjects.is_empty() && batch.troubles.is_empty() {
            return Err(Quit::Usage(format!("{} has no targets: run a sweep first", found.home().display())));
        }
        let batch = Batch { figures: !args.drawing.no_figures, ..batch };
        Ok(Chosen { batch, in_detail: false })
    })
}

fn root(spread: &Spread) -> PathBuf {
    spread.common.root.clone().unwrap_or_else(|| PathBuf::from("."))
}

/// The whole of a command, on every rank: rank 0 chooses, reads, writes and prints; all compute.
fn job(spread: &Spread, choose: impl FnOnce() -> Result<Chosen, Quit>) -> Result<u8, Quit> {
    start_log(&spread.common);
    comm::abort_on_panic();
    let mut comm = comm::connect(spread.local)?;
    let comm = comm.as_mut();
    if comm.rank() > 0 {
        if let Err(error) = promote::serve(comm) {
            complain!("error: rank {}: {error}", comm.rank());
            comm.abort(3);
        }
        comm.barrier();
        return Ok(0);
    }
    let threads = threads(spread, comm.size());
    let result = match choose() {
        Ok(chosen) => match chosen.batch.carry_out(comm, threads) {
            Ok(outcome) => Ok(report(spread, &chosen, outcome)),
            // The other ranks would wait for ever.
            Err(error) if comm.size() > 1 => {
                complain!("error: {error}");
                comm.abort(3)
            }
            Err(error) => return Err(error.into()),
        },
        Err(quit) => promote::dismiss(comm).map_err(Quit::from).and(Err(quit)),
    };
    comm.barrier();
    result
}

fn threads(spread: &Spread, ranks: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
    spread.workers.map_or(if ranks > 1 { 1 } else { cores }, usize::from)
}

/// Prints it all; the exit code.
fn report(spread: &Spread, chosen: &Chosen, outcome: Outcome) -> u8 {
    let Outcome { records: files, figures, troubles, refused } = outcome;
    let runs: Vec<(&FoundRun, Diagnosis)> = each(chosen, &files, "diagnosis.json", |subject| match subject {
        Subject::Run(run) => Some(run.as_ref()),
        Subject::Target(..) => None,
    });
    let targets: Vec<(&FoundTarget, TargetDiagnosis)> =
        each(chosen, &files, "target.json", |subject| match subject {
            Subject::Target(target, _) => Some(target.as_ref()),
            Subject::Run(_) => None,
        });
    let without: Vec<&FoundTarget> = chosen
        .batch
        .subjects
        .iter()
        .filter_map(|subject| match subject {
            Subject::Target(target, _) if !target.has_teacher() => Some(target.as_ref()),
            _ => None,
        })
        .collect();
    if spread.common.json {
        let runs: Vec<Value> = runs
            .iter()
            .map(|(run, diagnosis)| {
                json!({ "dir": run.dir, "run_id": run.manifest.run_id, "target_id": run.manifest.target_id,
                    "target": run.manifest.target, "sampler": run.manifest.sampler, "diagnosis": diagnosis })
            })
            .collect();
        let targets: Vec<Value> = targets
            .iter()
            .map(|(target, diagnosis)| {
                json!({ "dir": target.dir, "target_id": target.meta.target_id, "target": target.meta.label,
                    "diagnosis": diagnosis })
            })
            .collect();
        let without: Vec<String> = without.iter().map(|t| t.meta.target_id.clone()).collect();
        say!(
            "{}",
            json!({ "runs": runs, "targets": targets, "without_teacher": without, "figures": figures,
                "troubles": troubles })
        );
    } else {
        match (&runs[..], chosen.in_detail) {
            ([(run, diagnosis)], true) => print_in_detail(run, diagnosis),
            ([], _) => {}
            _ => print_runs(&runs),
        }
        if !targets.is_empty() {
            print_targets(&targets);
        }
        if !without.is_empty() {
            let names: Vec<String> = without.iter().map(|t| name(&t.meta.label)).collect();
            say!("{}", note(&format!("without a teacher to compare with: {}", names.join(", "))));
        }
        if figures > 0 {
            say!("{}", note(&format!("{figures} figures, as PNG and SVG, in diagnostics/ beside them")));
        }
    }
    for trouble in &troubles {
        complain!("{}", note(&trouble.to_string()));
    }
    if let Some(error) = refused {
        complain!("error: {error}");
        return 3;
    }
    u8::from(!troubles.is_empty())
}

/// What was made of the subjects that `pick` takes, read back from the file of this name.
fn each<'a, S, T: serde::de::DeserializeOwned>(
    chosen: &'a Chosen,
    files: &[Option<Files>],
    file: &str,
    pick: impl Fn(&'a Subject) -> Option<&'a S>,
) -> Vec<(&'a S, T)> {
    let made = |files: &Option<Files>| {
        let (_, bytes) = files.as_ref()?.iter().find(|(name, _)| name == file)?;
        serde_json::from_slice(bytes).ok()
    };
    chosen.batch.subjects.iter().zip(files).filter_map(|(s, f)| Some((pick(s)?, made(f)?))).collect()
}

fn or_dash(x: Option<f64>, shown: impl Fn(f64) -> String) -> String {
    x.map_or_else(|| "–".to_owned(), shown)
}

fn whole(x: f64) -> String {
    format!("{x:.0}")
}

/// The draws that the burn-in check would drop.
fn burn_in(quantity: &Quantity) -> String {
    match quantity.full.as_ref().map(|full| full.burn_in.needed) {
        None => String::new(),
        Some(None) => "?".to_owned(),
        Some(Some(cut)) => cut.to_string(),
    }
}

fn print_runs(runs: &[(&FoundRun, Diagnosis)]) {
    let mut shown = table(&[
        ("target", Left),
        ("sampler", Left),
        ("llc ± MCSE", Right),
        ("R-hat", Right),
        ("bulk", Right),
        ("tail", Right),
        ("E-BFMI", Right),
        ("z", Right),
        ("cut", Right),
    ]);
    unbroken(&mut shown, 1);
    let mut notes = Vec::new();
    for (run, diagnosis) in runs {
        let (label, sampler) = (name(&run.manifest.target), name(&run.manifest.sampler));
        if !diagnosis.findings.is_empty() {
            notes.push(format!(
                "{label} {sampler} ({}): {}",
                name(&run.name()),
                diagnosis.findings.join("; ")
            ));
        }
        let Some(q) = diagnosis.quantity("llc").or(diagnosis.quantities.first()) else { continue };
        shown.add_row([
            label,
            sampler,
            with_error(q.mean.unwrap_or(f64::NAN), q.mcse_mean.unwrap_or(f64::NAN)),
            or_dash(q.r_hat, |r| format!("{r:.3}")),
            or_dash(q.ess_bulk, whole),
            or_dash(q.ess_tail, whole),
            or_dash(diagnosis.energy.as_ref().and_then(|e| e.least), |e| format!("{e:.2}")),
            or_dash(q.geweke_z, |z| format!("{z:.1}")),
            burn_in(q),
        ]);
    }
    say!("{shown}");
    for text in notes {
        say!("{}", note(&text));
    }
}

fn print_in_detail(run: &FoundRun, diagnosis: &Diagnosis) {
    say!(
        "{} on {}: {} chains of {} draws",
        name(&run.manifest.sampler),
        name(&run.manifest.target),
        diagnosis.n_chains,
        diagnosis.n_draws
    );
    let mut shown = table(&[("", Left), ("of", Left), ("estimate", Right), ("MCSE", Right), ("ESS", Right)]);
    for q in &diagnosis.quantities {
        let mut row = |what: String, value: Option<f64>, mcse: Option<f64>, ess: Option<f64>| {
            let [value, mcse] = [value, mcse].map(|x| or_dash(x, number));
            shown.add_row([q.name.clone(), what, value, mcse, or_dash(ess, whole)]);
        };
        row("mean".into(), q.mean, q.mcse_mean, q.ess_mean);
        row("standard deviation".into(), q.sd, q.mcse_sd, q.ess_sd);
        for quantile in &q.quantiles {
            let what = format!("{:.0} % quantile", 100.0 * quantile.q);
            row(what, quantile.value, quantile.mcse, quantile.ess);
        }
    }
    say!("{shown}");
    for q in &diagnosis.quantities {
        let r_hat = or_dash(q.r_hat, |r| format!("{r:.4}"));
        let [bulk, tail] = [q.ess_bulk, q.ess_tail].map(|ess| or_dash(ess, whole));
        let z = or_dash(q.geweke_z, |z| format!("{z:.2}"));
        let worst = q.geweke_z_chains.iter().flatten().copied().map(f64::abs).reduce(f64::max);
        let worst = or_dash(worst, |z| format!("{z:.2}"));
        say!("{}: R-hat {r_hat}, ESS {bulk} in the bulk and {tail} in the tails", q.name);
        say!("{}: Geweke z {z}, the largest of a chain {worst}", q.name);
    }
    let chains = |values: &[Option<f64>]| {
        values.iter().take(8).map(|x| or_dash(*x, |x| format!("{x:.2}"))).collect::<Vec<_>>().join(" ")
    };
    let more = if diagnosis.n_chains > 8 { " …" } else { "" };
    if let Some(energy) = &diagnosis.energy {
        say!("E-BFMI by chain: {}{more}", chains(&energy.e_bfmi));
    }
    if let Some(acceptance) = &diagnosis.acceptance {
        say!("acceptance by chain: {}{more}", chains(acceptance));
    }
    if let Some(divergences) = &diagnosis.divergences {
        say!("divergent draws: {}", divergences.iter().sum::<u64>());
    }
    if let Some(full) = diagnosis.quantity("llc").and_then(|q| q.full.as_ref()) {
        let lag = |t: usize| {
            let at: Vec<f64> = full.autocorrelation.iter().filter_map(|c| *c.get(t)?).collect();
            let mean = at.iter().sum::<f64>() / at.len() as f64;
            or_dash(mean.is_finite().then_some(mean), |r| format!("{r:.2}"))
        };
        say!("autocorrelation of llc at lags 1, 10, 100: {}, {}, {}", lag(1), lag(10), lag(100));
        let shift = or_dash(full.burn_in.shift_in_mcse, |s| format!("{s:.1}"));
        let mser = full.burn_in.mser5.map_or_else(|| "–".to_owned(), |cut| cut.to_string());
        match full.burn_in.needed {
            Some(0) => say!("warmup was long enough (MSER-5 would drop {mser} draws, none need be)"),
            Some(cut) => {
                say!("warmup was {cut} draws too short: without them llc moves by {shift} standard errors")
            }
            None => say!("how much warmup was needed cannot be told: the chains drift, or are too short"),
        }
    }
    for finding in &diagnosis.findings {
        say!("{}", note(&format!("check: {finding}")));
    }
    say!("{}", note(&format!("written to {}", run.dir.join("diagnostics/diagnosis.json").display())));
}

fn print_targets(targets: &[(&FoundTarget, TargetDiagnosis)]) {
    let mut shown = table(&[
        ("target", Left),
        ("rows", Left),
        ("n", Right),
        ("L", Right),
        ("teacher", Right),
        ("R²", Right),
        ("teacher", Right),
        ("of teacher", Right),
    ]);
    unbroken(&mut shown, 0);
    unbroken(&mut shown, 1);
    for (target, diagnosis) in targets {
        for (which, set) in [("train", &diagnosis.train), ("test", &diagnosis.test)] {
            let r2 = |x: Option<f64>| or_dash(x, |x| format!("{x:.4}"));
            let label = if which == "train" { name(&target.meta.label) } else { String::new() };
            shown.add_row([
                label,
                which.to_owned(),
                set.rows.to_string(),
                or_dash(set.student_loss, number),
                or_dash(set.teacher_loss, number),
                r2(set.student_r2),
                r2(set.teacher_r2),
                r2(set.student_r2_of_teacher),
            ]);
        }
    }
    say!("{shown}");
    say!("{}", note("L and R² of the student and of its teacher; R² of the student as a fit to its teacher"));
}
