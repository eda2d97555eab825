//! The command line: one file a command; progress display; exit codes.

/// Prints a line on standard output. A reader that has gone away (`| head`) is no error.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

/// The same on standard error.
macro_rules! complain {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}

mod args;
mod artifacts;
mod bundle;
mod compare;
mod diagnose;
mod info;
mod listing;
mod manual;
mod progress;
mod promote;
mod reference;
mod report;
mod run;
mod signals;
mod slurm;
mod status;
mod table;
mod tune;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};

/// Why a command ends badly, and with which code.
#[derive(Debug, thiserror::Error)]
enum Quit {
    /// Bad usage or configuration.
    #[error("{0}")]
    Usage(String),
    /// The environment: no MPI, disk full, store damaged or locked.
    #[error("{0}")]
    Environment(String),
}

impl Quit {
    fn code(&self) -> u8 {
        match self {
            Quit::Usage(_) => 2,
            Quit::Environment(_) => 3,
        }
    }
}

impl From<crate::sweep::SweepError> for Quit {
    fn from(e: crate::sweep::SweepError) -> Self {
        if e.exit_code() == 2 { Quit::Usage(e.to_string()) } else { Quit::Environment(e.to_string()) }
    }
}

impl From<crate::store::StoreError> for Quit {
    fn from(e: crate::store::StoreError) -> Self {
        use crate::store::StoreError::{Ambiguous, Bundle, Experiment, Name, NotFound};
        match e {
            NotFound { .. } | Ambiguous { .. } | Bundle { .. } | Experiment { .. } | Name { .. } => {
                Quit::Usage(e.to_string())
            }
            _ => Quit::Environment(e.to_string()),
        }
    }
}

impl From<crate::launch::LaunchError> for Quit {
    fn from(e: crate::launch::LaunchError) -> Self {
        Quit::Environment(e.to_string())
    }
}

impl From<crate::comm::CommError> for Quit {
    fn from(e: crate::comm::CommError) -> Self {
        Quit::Environment(e.to_string())
    }
}

/// Runs the program and returns its exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse_from(tune::older_names(std::env::args_os()));
    crate::device::use_one_blas_thread();
    let result = match cli.command {
        None => run::run(cli.run),
        Some(Command::Run(args)) => run::run(args),
        Some(Command::Workflow(args)) => {
            let mut run = args.run;
            if let Some(config) = args.config {
                run.file = config;
            }
            run::run(run)
        }
        Some(Command::Tune(args)) => tune::run(*args),
        Some(Command::Slurm(args)) => slurm::run(args),
        Some(Command::Artifacts(args)) => artifacts::run(args),
        Some(Command::Compare(args)) => compare::run(&args),
        Some(Command::Diagnose(args)) => diagnose::run(&args),
        Some(Command::DiagnoseExperiment(args)) => diagnose::experiment(&args),
        Some(Command::DiagnoseTarget(args)) => diagnose::target(&args),
        Some(Command::DiagnoseTargets(args)) => diagnose::targets(&args),
        Some(Command::Promote(args)) => promote::run(&args),
        Some(Command::Status(args)) => status::run(&args),
        Some(Command::Schema) => info::schema(),
        Some(Command::Info) => info::info(),
        Some(Command::Completions(args)) => manual::completions(&args),
        Some(Command::Man(args)) => manual::man(&args),
        Some(Command::Reference(args)) => reference::run(&args),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(quit) => {
            complain!("error: {}", table::printable(&quit.to_string()));
            ExitCode::from(quit.code())
        }
    }
}

/// Sets up messages on standard error: warnings, or more with `-v`.
fn start_log(common: &args::Common) {
    let level = match (common.quiet, common.verbose) {
        (true, _) => log::LevelFilter::Error,
        (_, 0) => log::LevelFilter::Warn,
        (_, 1) => log::LevelFilter::Info,
        _ => log::LevelFilter::Debug,
    };
    let _ = env_logger::Builder::new()
        .filter_level(log::LevelFilter::Warn)
        .filter_module("lambda_hat", level)
        .format_target(false)
        .try_init();
}
