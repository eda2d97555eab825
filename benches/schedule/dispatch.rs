//! Units through rank 0, measured on real ranks: the program's own loops on a real sweep.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use lambda_hat::comm::{self, Comm};
use lambda_hat::config::{self, LoadOptions};
use lambda_hat::device::Arith;
use lambda_hat::store::Store;
use lambda_hat::sweep::{self, MANAGER, Observer, Options, Plan, Progress};

use crate::measure::median;

/// What the units of a job are.
#[derive(Clone, Copy)]
pub enum Units {
    /// One step of one dimension without a burn-in, which the samplers with a Metropolis test always have:
    /// nothing but dispatch.
    Empty,
    /// A thousand draws on the preset `small`, some 15 ms.
    Small,
}

/// What a job showed.
#[derive(Clone, Copy)]
pub struct Shown {
    /// Units a second.
    pub rate: f64,
    /// Processor seconds of rank 0's managing thread a unit.
    pub managing: f64,
}

/// Medians over `jobs` jobs of `ranks` ranks.
pub fn median_job(units: Units, ranks: usize, jobs: usize) -> Result<Shown, String> {
    let shown: Vec<Shown> = (0..jobs).map(|_| job(units, ranks)).collect::<Result<_, _>>()?;
    let of = |pick: fn(&Shown) -> f64| median(shown.iter().map(pick).collect());
    Ok(Shown { rate: of(|s| s.rate), managing: of(|s| s.managing) })
}

/// Runs one job.
pub fn job(units: Units, ranks: usize) -> Result<Shown, String> {
    let here = std::env::current_exe().map_err(|e| format!("this benchmark's own path: {e}"))?;
    let word = match units {
        Units::Empty => "empty",
        Units::Small => "small",
    };
    let mut mpirun = Command::new("mpirun");
    mpirun.args(["-n", &ranks.to_string()]).arg(here).args(["rank", word]);
    for (key, value) in [
        ("OMPI_ALLOW_RUN_AS_ROOT", "1"),
        ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"),
        ("OMPI_MCA_rmaps_base_oversubscribe", "1"),
        ("OMPI_MCA_mpi_yield_when_idle", "1"),
        ("OMPI_MCA_plm_rsh_agent", "/bin/false"),
        ("MPIEXEC_TIMEOUT", "100"),
    ] {
        mpirun.env(key, value);
    }
    let output = mpirun.stdin(Stdio::null()).output().map_err(|e| format!("mpirun did not start: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let figure = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    let shown = figure("rate:").zip(figure("managing:"));
    shown.map(|(rate, managing)| Shown { rate, managing }).ok_or_else(|| {
        format!("{ranks} ranks: no figure came back: {text}{}", String::from_utf8_lossy(&output.stderr))
    })
}

/// What each rank of the job does.
pub fn rank(word: &str) -> Result<(), String> {
    let mut comm = comm::connect(false).map_err(|e| e.to_string())?;
    play(word, comm.as_mut()).map_err(|e| e.to_string()).inspect_err(|e| {
        // The others would wait for this rank.
        eprintln!("rank {}: {e}", comm.rank());
        comm.abort(1)
    })
}

fn play(word: &str, comm: &mut dyn Comm) -> Result<(), Box<dyn std::error::Error>> {
    if comm.rank() != MANAGER {
        sweep::work(comm, 1, Arith::best(), None, &AtomicUsize::new(0))?;
        comm.barrier();
        return Ok(());
    }
    let experiment = config::parse(&yaml(word), "dispatch.yaml", &LoadOptions::default())?;
    let plan = Arc::new(Plan::new(&experiment)?);
    let root = tempfile::tempdir()?;
    let store = Arc::new(Store::open(root.path())?);
    let options = Options::of(1);
    let mut clock = Clock::default();
    sweep::run(&plan, &store, comm, &options, &mut clock)?;
    comm.barrier();
    clock.tell();
    Ok(())
}

/// Few runs of many chains: finishing a run is the writer's business, and of the empty ones none is finished
/// while the clock runs.
fn yaml(word: &str) -> String {
    let (target, sampler, settings, runs) = match word {
        "empty" => (
            "problem: quadratic, eigenvalues: [1], n_data: 10",
            "sgld",
            "steps: 1, warmup: 0, eval_every: 1, step_size: 0.001, dtype: f64, chains: 4000",
            8,
        ),
        _ => (
            "model: small, data: small, teacher: _null, overrides: { training: { steps: 100 } }",
            "hmc",
            "draws: 1000, warmup: 0, chains: 100",
            3,
        ),
    };
    let samplers: String = (0..runs)
        .map(|seed| format!("  - {{ name: {sampler}, seed: {seed}, overrides: {{ {settings} }} }}\n"))
        .collect();
    format!("experiment: dispatch\ntargets: [{{ {target} }}]\nsamplers:\n{samplers}")
}

/// When units ended, and what the managing thread had computed by then.
#[derive(Default)]
struct Clock {
    ends: Vec<(Instant, f64)>,
}

impl Observer for Clock {
    fn progress(&mut self, progress: &Progress<'_>) {
        if let Progress::Unit { done, .. } = progress {
            // Reading a thread's clock costs as much as a unit.
            let computed = if done % 20 == 0 { self.computed() } else { f64::NAN };
            self.ends.push((Instant::now(), computed));
        }
    }
}

impl Clock {
    /// Nanoseconds on a core of this thread, in seconds (proc(5), `schedstat`).
    fn computed(&self) -> f64 {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).map_or(f64::NAN, |ns| ns * 1e-9)
    }

    /// Over the middle of the job: neither the build nor the last stragglers.
    fn tell(&self) {
        let twenties = self.ends.len() / 20;
        // The n-th end is at n − 1.
        let at = |share: f64| (share * twenties as f64).floor() as usize * 20 - 1;
        let (from, to) = (at(0.15), at(0.9));
        let units = (to - from) as f64;
        let seconds = (self.ends[to].0 - self.ends[from].0).as_secs_f64();
        println!("rate: {}", units / seconds);
        println!("managing: {}", (self.ends[to].1 - self.ends[from].1) / units);
    }
}
