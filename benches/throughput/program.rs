//! Rows of the real program, run as a user runs it: one process, no MPI.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::measure::{median, peak_memory, print_figure, print_time, spins};

const QUADRATIC: &str = "experiment: startup
targets: [{ problem: quadratic, eigenvalues: [1], n_data: 100 }]
samplers: [{ name: hmc, overrides: { draws: 10, warmup: 0, chains: 1 } }]
";

/// Peak memory does not depend on how long anything runs, so everything is short.
const BASE: &str = "experiment: memory
targets: [{ model: base, data: base, teacher: _null, seed: 43, overrides: { training: { steps: 10 } } }]
samplers:
  - { name: hmc, overrides: { draws: 4, warmup: 0, num_integration_steps: 1 } }
  - { name: sgld, overrides: { steps: 200, warmup: 50, eval_every: 50, precond: rmsprop, step_size: 1e-6 } }
";

/// Chains of one length on a target that is built before; each round draws anew from `SEED` on.
const BALANCED: &str = "experiment: slots
targets: [{ model: base, data: base, teacher: _null, seed: 43, overrides: { training: { steps: 10 } } }]
samplers:
  - { name: sgld, seed: SEED, overrides: { chains: 8, steps: STEPS, warmup: 100, eval_every: 100, precond: rmsprop, step_size: 1e-6 } }
";
/// Steps a chain of a round: seconds of work, beside which start-up and the last writes are little.
const LONG: u32 = 8000;
/// Rounds that the gain of a second slot is the median of; odd.
const ROUNDS: usize = 7;

/// From the start of the process to the first unit on its way: until the line that says so.
pub fn startup() -> Result<(), String> {
    let times = repeat(11, || {
        let root = fresh_root()?;
        let file = root.path().join("startup.yaml");
        std::fs::write(&file, QUADRATIC).map_err(|e| e.to_string())?;
        let start = Instant::now();
        let mut child = launch(root.path(), &file, &[], Stdio::piped())?;
        let mut lines = BufReader::new(child.stderr.take().ok_or("no standard error")?);
        let mut first = String::new();
        lines.read_line(&mut first).map_err(|e| e.to_string())?;
        let seconds = start.elapsed().as_secs_f64();
        if !first.contains("units to do") {
            return Err(format!("the program began with '{}'", first.trim()));
        }
        let mut rest = String::new();
        lines.read_to_string(&mut rest).map_err(|e| e.to_string())?;
        let (_, kib) = finish(child, start)?;
        Ok((seconds, kib))
    })?;
    print_time("start-up to the first unit", Some(times.0), None);
    Ok(())
}

/// The whole of config/quickstart.yaml in a fresh directory.
pub fn quickstart(workers: &str) -> Result<(), String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/quickstart.yaml");
    let (seconds, kib) = repeat(3, || {
        let root = fresh_root()?;
        let start = Instant::now();
        finish(launch(root.path(), &file, &["--workers", workers], Stdio::null())?, start)
    })?;
    let title = format!("quickstart.yaml cold, {workers} worker{}", if workers == "1" { "" } else { "s" });
    print_time(&title, Some(seconds), kib);
    Ok(())
}

/// What a second slot gains, over what a second thread gains on registers alone, in rounds that alternate.
pub fn slots() -> Result<(), String> {
    let root = fresh_root()?;
    let mut seed = 0;
    let mut sweep = |workers: &str, steps: u32| {
        seed += 1;
        let file = root.path().join("slots.yaml");
        let text = BALANCED.replace("SEED", &seed.to_string()).replace("STEPS", &steps.to_string());
        std::fs::write(&file, text).map_err(|e| e.to_string())?;
        let start = Instant::now();
        finish(launch(root.path(), &file, &["--workers", workers], Stdio::null())?, start).map(|f| f.0)
    };
    sweep("2", 200)?;
    let (mut ours, mut registers) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (one_thread, one) = (spins(1), sweep("1", LONG)?);
        let (two_threads, two) = (spins(2), sweep("2", LONG)?);
        ours.push(one / two);
        registers.push(two_threads / one_thread);
    }
    let (ours, registers) = (median(ours), median(registers));
    print_figure("2 worker slots over 1, SGLD base f64", &format!("{ours:.2} ×"));
    print_figure("  2 threads over 1, registers alone", &format!("{registers:.2} ×"));
    print_figure("  ratio", &format!("{:.3}", ours / registers));
    Ok(())
}

/// A sweep of both samplers on base/base, for its memory.
pub fn memory() -> Result<(), String> {
    let (_, kib) = repeat(1, || {
        let root = fresh_root()?;
        let file = root.path().join("memory.yaml");
        std::fs::write(&file, BASE).map_err(|e| e.to_string())?;
        finish(launch(root.path(), &file, &["--workers", "2"], Stdio::null())?, Instant::now())
    })?;
    print_time("base/base, HMC and SGLD, 2 workers", None, kib);
    Ok(())
}

type Figures = (f64, Option<f64>);

/// Median seconds and the largest peak of memory.
fn repeat(times: usize, run: impl Fn() -> Result<Figures, String>) -> Result<Figures, String> {
    let figures = (0..times).map(|_| run()).collect::<Result<Vec<_>, _>>()?;
    let kib = figures.iter().filter_map(|f| f.1).reduce(f64::max);
    Ok((median(figures.iter().map(|f| f.0).collect()), kib))
}

fn fresh_root() -> Result<TempDir, String> {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).map_err(|e| format!("a directory to run in: {e}"))
}

fn launch(root: &Path, file: &Path, args: &[&str], errors: Stdio) -> Result<Child, String> {
    Command::new(env!("CARGO_BIN_EXE_lambda-hat-mpi"))
        .arg(file)
        .arg("--local")
        .arg("--root")
        .arg(root)
        .args(args)
        .env_remove("LAMBDA_HAT_EXPERIMENT")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn()
        .map_err(|e| format!("lambda-hat-mpi did not start: {e}"))
}

/// Waits for the end, asking for the peak of memory (which only grows) every two milliseconds.
fn finish(mut child: Child, start: Instant) -> Result<Figures, String> {
    let process = child.id().to_string();
    let mut kib = None;
    loop {
        kib = peak_memory(&process).or(kib);
        if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
            let seconds = start.elapsed().as_secs_f64();
            return if status.success() {
                Ok((seconds, kib))
            } else {
                Err(format!("lambda-hat-mpi ended with {status}"))
            };
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
