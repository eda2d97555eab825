//! `slurm`: a sweep as a batch job.

use std::path::{Path, PathBuf};

use super::args::{RunArgs, SlurmArgs, SlurmCommand};
use super::{Quit, start_log};
use crate::config::{self, LoadOptions};
use crate::launch::{self, Card, Job};
use crate::sweep::Plan;

/// Prints or submits the job.
pub fn run(args: SlurmArgs) -> Result<u8, Quit> {
    match args.command {
        SlurmCommand::Render(args) => {
            start_log(&args.run.common);
            say!("{}", script(&args.card, &args.run)?.trim_end());
        }
        SlurmCommand::Submit(args) => {
            start_log(&args.run.common);
            submit(&args.card, &args.run)?;
        }
    }
    Ok(0)
}

/// Submits a sweep and prints the job's id.
pub fn submit(card: &Path, args: &RunArgs) -> Result<(), Quit> {
    if crate::comm::launched() {
        let text = "every rank would submit a job: run it without mpirun or srun".to_owned();
        return Err(Quit::Usage(text));
    }
    say!("{}", launch::submit(&script(card, args)?)?);
    Ok(())
}

/// The script of a sweep; card and experiment are checked whole.
fn script(card: &Path, args: &RunArgs) -> Result<String, Quit> {
    for (given, name) in [(args.dry_run, "--dry-run"), (args.local, "--local")] {
        if given {
            return Err(Quit::Usage(format!(
                "{name} is for a sweep that runs here; `slurm render` prints a job and runs nothing"
            )));
        }
    }
    let (card, notice) = launch::find(card);
    if let Some(notice) = notice {
        log::warn!("{notice}");
    }
    let path = match card {
        Card::Slurm(path) => path,
        Card::Local(path) => {
            let path = path.display();
            return Err(Quit::Usage(format!(
                "{path} is the card of one machine: name one such as config/slurm/cpu.yaml"
            )));
        }
    };
    let (of_card, of_experiment): (Vec<String>, Vec<String>) =
        args.set.iter().cloned().partition(|set| config::is_card_setting(set));
    let card = config::load_slurm_card(&path, &of_card).map_err(|e| Quit::Usage(e.to_string()))?;
    if card.gpus_per_node > 0 && !cfg!(feature = "cuda") {
        log::warn!(
            "{}: the job asks for GPUs, and this program was built without them (feature cuda): it computes on the CPU \
             only",
            path.display()
        );
    }
    let options = LoadOptions {
        presets: args.presets.clone(),
        set: of_experiment.clone(),
        experiment: args.experiment.clone(),
    };
    let experiment = config::load(&args.file, &options).map_err(|e| Quit::Usage(e.to_string()))?;
    for notice in &experiment.notices {
        log::warn!("{notice}");
    }
    Plan::new(&experiment)?;
    let root = args.common.root.clone().or(experiment.root).unwrap_or_else(|| PathBuf::from("."));
    let program = std::env::current_exe()
        .map_err(|e| Quit::Environment(format!("cannot tell where this program is: {e}")))?;
    let arguments = arguments(args, &root, &of_experiment, card.workers)?;
    let job = Job { name: experiment.name, program: absolute(&program)?, arguments };
    Ok(launch::script(&card, &job))
}

/// The command line of the job's ranks: what was asked for here, by paths that hold everywhere.
fn arguments(args: &RunArgs, root: &Path, set: &[String], workers: u64) -> Result<Vec<String>, Quit> {
    // Every option is either passed on or not: a new one has to be looked at.
    let RunArgs { file, set: _, presets, experiment, dry_run: _, workers: asked, local: _, .. } = args;
    let RunArgs { arith, retry_failed, strict, parsl_card: _, common, checkpoint_dir, time_limit, .. } = args;
    let mut words = vec!["run".to_owned(), absolute(file)?, "--root".to_owned(), absolute(root)?];
    let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
    option("--workers", asked.map_or(workers, u64::from).to_string());
    for set in set {
        option("--set", one_line(set)?);
    }
    if let Some(presets) = presets {
        option("--presets", absolute(presets)?);
    }
    if let Some(experiment) = experiment {
        option("--experiment", experiment.clone());
    }
    if let Some(arith) = arith {
        option("--arith", arith.name().to_owned());
    }
    if let Some(device) = args.device {
        option("--device", device.name().to_owned());
    }
    if let Some(dir) = checkpoint_dir {
        option("--checkpoint-dir", absolute(dir)?);
    }
    if let Some(limit) = time_limit {
        option("--time-limit", limit.as_secs_f64().to_string());
    }
    if let Some(every) = args.checkpoint_every {
        option("--checkpoint-every", every.as_secs_f64().to_string());
    }
    if let Some(timeout) = args.unit_timeout {
        option("--unit-timeout", timeout.as_secs_f64().to_string());
    }
    if let Some(retries) = args.retries {
        option("--retries", retries.to_string());
    }
    let flags = [(*retry_failed, "--retry-failed"), (*strict, "--strict"), (common.json, "--json")];
    let flags = flags.into_iter().chain([(common.quiet, "--quiet")]);
    words.extend(flags.filter(|(given, _)| *given).map(|(_, name)| name.to_owned()));
    words.extend(std::iter::repeat_n("--verbose".to_owned(), common.verbose.into()));
    Ok(words)
}

/// A path that means the same on every node.
fn absolute(path: &Path) -> Result<String, Quit> {
    let shown = path.display();
    let whole = std::path::absolute(path).map_err(|e| Quit::Usage(format!("{shown}: {e}")))?;
    match whole.to_str() {
        Some(text) => one_line(text),
        None => Err(Quit::Usage(format!("{shown}: a job script needs a path in UTF-8"))),
    }
}

fn one_line(text: &str) -> Result<String, Quit> {
    if text.contains(char::is_control) {
        return Err(Quit::Usage(format!(
            "{text:?}: a line end or control character does not fit into a job script"
        )));
    }
    Ok(text.to_owned())
}
