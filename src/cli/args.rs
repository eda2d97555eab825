//! The command line: each option is defined here once.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::promote::PromoteArgs;
use crate::config::Device;
use crate::device::Arith;
use crate::promote::gallery::Plot;

/// Estimates the Local Learning Coefficient of trained models in bulk.
///
/// Exit codes: 0 all done, 1 some runs failed, 2 bad usage or configuration, 3 environment
/// (no MPI, disk full, store damaged or locked), 75 stopped on the way: the same command goes on.
#[derive(Debug, Parser)]
#[command(name = "lambda-hat-mpi", version = crate::VERSION, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub run: RunArgs,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the sweep of an experiment file (what happens without a command, too)
    Run(RunArgs),
    /// The names that older scripts call `run` by
    #[command(hide = true)]
    Workflow(WorkflowArgs),
    /// Search settings of methods by trials on all ranks; `tune status` shows how a search stands
    Tune(Box<TuneArgs>),
    /// Run a sweep as a job of a SLURM cluster
    Slurm(SlurmArgs),
    /// Look after the store: list, check and mend, clean up, remove
    Artifacts(ArtifactsArgs),
    /// Set finished runs side by side: estimates, errors, work, verdicts
    Compare(CompareArgs),
    /// What a finished run tells of itself: R-hat, ESS, errors, E-BFMI, drift, burn-in
    Diagnose(DiagnoseArgs),
    /// The same of all runs of an experiment
    DiagnoseExperiment(DiagnoseExperimentArgs),
    /// A target's student against its teacher, on training rows and fresh ones
    DiagnoseTarget(DiagnoseTargetArgs),
    /// The same of all targets, or of those of an experiment
    DiagnoseTargets(DiagnoseTargetsArgs),
    /// Figures of finished runs for others to see: galleries and the report
    Promote(PromoteArgs),
    /// How a sweep stands: units done and running, time left, slots
    Status(StatusArgs),
    /// Print the JSON Schema of experiment files, for editors
    Schema,
    /// Print version, arithmetic, libraries and presets
    Info,
    /// Print the completions of a shell
    Completions(CompletionsArgs),
    /// Print the manual page, or write one a command
    Man(ManArgs),
    /// Print a page of the documentation that is made from the program
    #[command(hide = true)]
    Reference(ReferenceArgs),
}

/// No span of time is longer.
const YEAR: Duration = Duration::from_secs(31_557_600);

/// Seconds, whole or not.
fn duration(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected seconds, such as 30 or 0.5".to_owned())?;
    let seconds = Duration::try_from_secs_f64(seconds).ok().filter(|s| *s <= YEAR);
    seconds.ok_or_else(|| "expected seconds from 0 up to those of a year".to_owned())
}

#[derive(Debug, Args)]
pub struct Common {
    /// Where store, runs, results and logs live [default: the current directory]
    #[arg(long, env = "LAMBDA_HAT_HOME", value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Print tables as JSON
    #[arg(long)]
    pub json: bool,
    /// Say more; twice: everything
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Only warnings and the final table
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// The pages of `docs/reference`.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum ReferenceOf {
    Cli,
    Configuration,
}

#[derive(Debug, Args)]
pub struct ReferenceArgs {
    /// Which page
    #[arg(value_enum)]
    pub of: ReferenceOf,
}

#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write a page of every command into this directory
    #[arg(long, value_name = "DIR")]
    pub outdir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Experiment file
    #[arg(value_name = "FILE", default_value = "config/experiments.yaml")]
    pub file: PathBuf,
    /// Override a key, such as posterior.gamma=2 or samplers.hmc.overrides.draws=5000; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Directory with presets of your own: {model,data,teacher,sampler}/NAME.yaml
    #[arg(long, value_name = "DIR")]
    pub presets: Option<PathBuf>,
    /// Name of the experiment, in place of the file's
    #[arg(long, env = "LAMBDA_HAT_EXPERIMENT", value_name = "NAME")]
    pub experiment: Option<String>,
    /// Print the plan and run nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Worker slots of this rank [default: 1 under MPI, else the number of cores, at most 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub workers: Option<u16>,
    /// One process, even under a launcher: MPI is not initialised
    #[arg(long)]
    pub local: bool,
    /// Compute with cpu-generic, cpu-avx2 or cpu-avx512 [default: the best that every rank has]
    #[arg(long, value_name = "NAME")]
    pub arith: Option<Arith>,
    /// auto, cpu or cuda: chains of samplers that have kernels run on a GPU; each rank takes one of its node's (docs/gpu.md)
    /// [default: auto]
    #[arg(long, value_name = "NAME")]
    pub device: Option<Device>,
    /// Seconds between two checkpoints of a unit that takes longer [default: 30]
    #[arg(long, value_name = "SECONDS", value_parser = duration)]
    pub checkpoint_every: Option<Duration>,
    /// Directory that every rank sees, where each writes its own checkpoints [default: rank 0 writes
    /// them into the store]
    #[arg(long, value_name = "DIR")]
    pub checkpoint_dir: Option<PathBuf>,
    /// How often a unit that failed by its surroundings is tried again elsewhere [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=1000))]
    pub retries: Option<u32>,
    /// Seconds without a sign after which a unit is given up and tried elsewhere; 0: never [default: 3600]
    #[arg(long, value_name = "SECONDS", value_parser = duration)]
    pub unit_timeout: Option<Duration>,
    /// Stop in time for a job that ends in so many seconds [default: what SLURM says, else none]
    #[arg(long, value_name = "SECONDS", value_parser = duration)]
    pub time_limit: Option<Duration>,
    /// Run again what failed by its numbers
    #[arg(long)]
    pub retry_failed: bool,
    /// Exit with 1 when a verdict is `check`
    #[arg(long)]
    pub strict: bool,
    /// At the end, diagnose and draw all runs and targets, and make a gallery in runs/promotion/NAME
    #[arg(long)]
    pub promote: bool,
    /// Figures of that gallery [default: llc_comparison.png,running_llc.png,trace.png]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', requires = "promote")]
    pub promote_plots: Vec<Plot>,
    /// The name that older scripts call `slurm submit --card` by
    #[arg(long, value_name = "CARD", hide = true)]
    pub parsl_card: Option<PathBuf>,
    #[command(flatten)]
    pub common: Common,
}

/// A share, above 0 and below 1.
fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|x: &f64| *x > 0.0 && *x < 1.0);
    share.ok_or_else(|| "expected a number above 0 and below 1, such as 0.01".to_owned())
}

/// Searches settings of methods by trials, which are runs on all ranks (docs/tuning.md).
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    mut_arg("file", |arg| arg.default_value("config/tune/default.yaml").help("Tune file")),
    mut_arg("strict", |arg| arg.hide(true)),
    mut_arg("device", |arg| arg.hide(true)),
    mut_arg("set", |arg| arg.help("Override a key, such as tune.max_trials_per_method=24; may be repeated"))
)]
pub struct TuneArgs {
    #[command(subcommand)]
    pub command: Option<TuneCommand>,
    /// Trials of a study, in place of tune.max_trials_per_method
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_trials: Option<u32>,
    /// Trials of a study in flight, in place of tune.concurrency.batch_size
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub batch_size: Option<u32>,
    /// Seconds that a reference may take, in place of execution.budget.hmc_sec
    #[arg(long, value_name = "SECONDS", value_parser = duration, allow_negative_numbers = true)]
    pub hmc_budget: Option<Duration>,
    /// Seconds that a trial may take, in place of execution.budget.trial_sec
    #[arg(long, value_name = "SECONDS", value_parser = duration, allow_negative_numbers = true)]
    pub method_budget: Option<Duration>,
    /// Relative standard error that a reference must come to
    #[arg(long, value_name = "SHARE", value_parser = share, default_value = "0.01")]
    pub reference_error: f64,
    /// Go on with a reference that its budget left rougher than that
    #[arg(long)]
    pub allow_rough_reference: bool,
    /// The way older scripts name the file
    #[arg(long, value_name = "FILE", hide = true)]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub run: RunArgs,
}

#[derive(Debug, Subcommand)]
pub enum TuneCommand {
    /// How the studies of a root stand: trials, best values
    Status {
        /// Tune file or name of a study [default: all studies]
        #[arg(value_name = "FILE|NAME")]
        what: Option<String>,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Args)]
pub struct SlurmArgs {
    #[command(subcommand)]
    pub command: SlurmCommand,
}

#[derive(Debug, Subcommand)]
pub enum SlurmCommand {
    /// Print the sbatch script; nothing is run. --set reaches the card's keys too: --set walltime=04:00:00
    Render(CardArgs),
    /// Hand the script to sbatch and print the job's id. --set as for render
    Submit(CardArgs),
}

#[derive(Debug, Args)]
pub struct CardArgs {
    /// What the job asks the cluster for, such as config/slurm/cpu.yaml
    #[arg(long, value_name = "CARD")]
    pub card: PathBuf,
    #[command(flatten)]
    pub run: RunArgs,
}

#[derive(Debug, Args)]
pub struct WorkflowArgs {
    /// llc or sample
    #[arg(value_parser = ["llc", "sample"])]
    pub what: String,
    /// Experiment file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub run: RunArgs,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Name of the experiment [default: the one that wrote last]
    #[arg(value_name = "NAME")]
    pub experiment: Option<String>,
    /// Again every two seconds, until the sweep is over (or, with exit code 3, silent for a minute)
    #[arg(short, long)]
    pub watch: bool,
    #[command(flatten)]
    pub common: Common,
}

/// How much a diagnosis works out.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum ModeArg {
    /// The numbers of the summary
    Light,
    /// Autocorrelations, running estimate and burn-in too
    Full,
}

impl From<ModeArg> for crate::diagnostics::Mode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Light => Self::Light,
            ModeArg::Full => Self::Full,
        }
    }
}

/// Work that is spread over threads, or over the ranks of a job.
#[derive(Debug, Args)]
pub struct Spread {
    /// Threads of this rank [default: 1 under MPI, else the number of cores, at most 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub workers: Option<u16>,
    /// One process, even under a launcher: MPI is not initialised
    #[arg(long)]
    pub local: bool,
    #[command(flatten)]
    pub common: Common,
}

/// What is drawn.
#[derive(Debug, Args)]
pub struct Drawing {
    /// Numbers alone, no pictures
    #[arg(long)]
    pub no_figures: bool,
}

#[derive(Debug, Args)]
pub struct DiagnoseArgs {
    /// Directory of the run: runs/targets/tgt_…/run_…
    #[arg(long, value_name = "DIR")]
    pub run_dir: PathBuf,
    /// How much is worked out
    #[arg(long, value_enum, default_value_t = ModeArg::Full)]
    pub mode: ModeArg,
    #[command(flatten)]
    pub drawing: Drawing,
    #[command(flatten)]
    pub spread: Spread,
}

#[derive(Debug, Args)]
pub struct DiagnoseExperimentArgs {
    /// Name of the experiment
    #[arg(long, env = "LAMBDA_HAT_EXPERIMENT", value_name = "NAME")]
    pub experiment: String,
    /// Only runs of these samplers
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    pub samplers: Vec<String>,
    /// How much is worked out
    #[arg(long, value_enum, default_value_t = ModeArg::Full)]
    pub mode: ModeArg,
    #[command(flatten)]
    pub drawing: Drawing,
    #[command(flatten)]
    pub spread: Spread,
}

#[derive(Debug, Args)]
pub struct DiagnoseTargetArgs {
    /// The target: its directory's name, id, URN, or the beginning of its id
    #[arg(long, value_name = "TARGET")]
    pub target: String,
    #[command(flatten)]
    pub drawing: Drawing,
    #[command(flatten)]
    pub spread: Spread,
}

#[derive(Debug, Args)]
pub struct DiagnoseTargetsArgs {
    /// Only targets of this experiment
    #[arg(long, env = "LAMBDA_HAT_EXPERIMENT", value_name = "NAME")]
    pub experiment: Option<String>,
    #[command(flatten)]
    pub drawing: Drawing,
    #[command(flatten)]
    pub spread: Spread,
}

#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Columns that groups are made by: of results/llc_runs.csv, or settings such as step_size
    #[arg(long, value_name = "KEY,…", value_delimiter = ',', default_value = "target,sampler")]
    pub by: Vec<String>,
    /// Only runs of this experiment
    #[arg(long, env = "LAMBDA_HAT_EXPERIMENT", value_name = "NAME")]
    pub experiment: Option<String>,
    /// The column that is compared
    #[arg(long, value_name = "COLUMN", default_value = crate::sweep::pivot::VALUE)]
    pub value: String,
    /// Of two keys, the second one across
    #[arg(long)]
    pub pivot: bool,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, Args)]
pub struct ArtifactsArgs {
    #[command(subcommand)]
    pub command: ArtifactsCommand,
}

#[derive(Debug, Subcommand)]
pub enum ArtifactsCommand {
    /// List targets and runs: sampler, status, age, size, and what sharing saves
    Ls {
        /// Only what belongs to this experiment
        #[arg(long, env = "LAMBDA_HAT_EXPERIMENT", value_name = "NAME")]
        experiment: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// All that is known of a target or run: configuration, files, provenance, estimate
    Show {
        /// URN, id, unique prefix or directory name
        #[arg(value_name = "WHAT")]
        what: String,
        #[command(flatten)]
        common: Common,
    },
    /// Make an experiment's TensorBoard files and print their directory
    Tb {
        /// Name of the experiment
        #[arg(long, env = "LAMBDA_HAT_EXPERIMENT", value_name = "NAME")]
        experiment: String,
        #[command(flatten)]
        common: Common,
    },
    /// Pack an experiment into one file that another machine imports
    Export {
        /// Name of the experiment
        #[arg(long, env = "LAMBDA_HAT_EXPERIMENT", value_name = "NAME")]
        experiment: String,
        /// The file, such as sweep.tar
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        #[command(flatten)]
        common: Common,
    },
    /// Check a file that `export` made, whole, and add what it holds; needs the root to itself
    Import {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        common: Common,
    },
    /// Hash every object again and report what is damaged or missing
    Verify {
        /// Mend it: heal from copies in runs/, mark what the next sweep has to make again, lay files
        /// out again, rebuild listings; needs the root to itself
        #[arg(long)]
        repair: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Remove what no target and no run needs; may run beside sweeps
    Gc {
        /// Keep what has changed within this many days
        #[arg(long, value_name = "N", default_value_t = 7)]
        ttl_days: u32,
        /// Say what would be removed, and remove nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Remove a target or run, by URN, id, unique prefix or directory name
    Rm {
        /// What to remove
        #[arg(value_name = "WHAT", required = true)]
        what: Vec<String>,
        #[command(flatten)]
        common: Common,
    },
}
