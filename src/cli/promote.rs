//! `promote`: figures of finished runs for others to see. Reads the tree alone; MPI is not initialised.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::args::Common;
use super::report::{self, ReportArgs};
use super::table::note;
use super::{Quit, start_log};
use crate::comm::SoloComm;
use crate::diagnostics::Mode;
use crate::plot::FigureName;
use crate::promote::gallery::{self, Gallery, Plot};
use crate::promote::{Batch, FoundRun, RunsRoot, Trouble};
use crate::store::{self, StoreError};

/// Figures that `run --promote` puts into its gallery unless told otherwise.
const DEFAULT_PLOTS: [Plot; 3] =
    [Plot::png(FigureName::Comparison), Plot::png(FigureName::RunningLlc), Plot::png(FigureName::Trace)];
/// The Markdown page of a gallery unless another is named.
const PAGE: &str = "gallery.md";
/// Threads that draw, at most.
const MOST_THREADS: usize = 8;

#[derive(Debug, Args)]
pub struct PromoteArgs {
    #[command(subcommand)]
    pub command: PromoteCommand,
}

#[derive(Debug, Subcommand)]
pub enum PromoteCommand {
    /// A figure of the newest run of each sampler on each target, with a Markdown page that shows them
    Gallery(GalleryArgs),
    /// A figure of one run
    Single(SingleArgs),
    /// One HTML file of an experiment: table of runs, figures, diagnoses, configurations, citation
    Report(ReportArgs),
}

#[derive(Debug, Args)]
pub struct GalleryArgs {
    /// The runs/ directory of a sweep, or the directory that holds it [default: --root]
    #[arg(long, value_name = "DIR")]
    pub runs_root: Option<PathBuf>,
    /// Only runs of these samplers
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    pub samplers: Vec<String>,
    /// Where the pictures go
    #[arg(long, value_name = "DIR")]
    pub outdir: PathBuf,
    /// The Markdown page, with links from there to the pictures [default: OUTDIR/gallery.md]
    #[arg(long, value_name = "FILE")]
    pub snippet_out: Option<PathBuf>,
    /// The figure: trace, running_llc, rank, autocorr or energy of each run; llc_comparison,
    /// llc_convergence_combined, wnv, loss_curve or target_pred_vs_teacher_{train,test} of each target;
    /// as .png or .svg
    #[arg(long, value_name = "NAME", default_value = "trace.png")]
    pub plot_name: Plot,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, Args)]
pub struct SingleArgs {
    /// Directory of the run: runs/targets/tgt_…/run_…
    #[arg(long, value_name = "DIR")]
    pub run_dir: PathBuf,
    /// Where the picture goes
    #[arg(long, value_name = "DIR")]
    pub outdir: PathBuf,
    /// The figure, as for `gallery`; one of a target shows the newest runs of its samplers
    #[arg(long, value_name = "NAME", default_value = "trace.png")]
    pub plot_name: Plot,
    #[command(flatten)]
    pub common: Common,
}

/// Does what the command says; the exit code is 0, or 1 where something was lacking.
pub fn run(args: &PromoteArgs) -> Result<u8, Quit> {
    match &args.command {
        PromoteCommand::Gallery(args) => of_tree(args),
        PromoteCommand::Single(args) => of_run(args),
        PromoteCommand::Report(args) => report::run(args),
    }
}

fn of_tree(args: &GalleryArgs) -> Result<u8, Quit> {
    start_log(&args.common);
    let root = args.runs_root.as_ref().or(args.common.root.as_ref());
    let found = RunsRoot::open(root.map_or(Path::new("."), PathBuf::as_path))?;
    let known: BTreeSet<&str> = found.runs().iter().map(|run| run.manifest.sampler.as_str()).collect();
    let known: Vec<&str> = known.into_iter().collect();
    let names = || if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    if let Some(other) = args.samplers.iter().find(|s| !known.contains(&s.as_str())) {
        return Err(Quit::Usage(format!(
            "--samplers {other}: {} has no run of it; there is {}",
            found.home().join("runs").display(),
            names()
        )));
    }
    if known.is_empty() && found.troubles().is_empty() {
        return Err(Quit::Usage(format!(
            "{} has no finished runs: run a sweep first",
            found.home().join("runs").display()
        )));
    }
    let runs = newest(&found, &args.samplers);
    let mut made = gallery::draw(&found, &runs, &[args.plot_name], &args.outdir, threads())?;
    made.troubles = with_those_of(&found, &runs, made.troubles);
    let page = args.snippet_out.clone().unwrap_or_else(|| args.outdir.join(PAGE));
    write_page(&made, &args.outdir, &page)?;
    Ok(report(&args.common, &made, &args.outdir, Some(&page)))
}

/// The newest run of each of the samplers (of all, where none is named) on each target.
fn newest<'a>(found: &'a RunsRoot, samplers: &[String]) -> Vec<&'a FoundRun> {
    let mut chosen: Vec<&FoundRun> = Vec::new();
    for run in found.runs() {
        let (target, sampler) = (&run.manifest.target_id, &run.manifest.sampler);
        let seen =
            |other: &&FoundRun| other.manifest.target_id == *target && other.manifest.sampler == *sampler;
        if (samplers.is_empty() || samplers.contains(sampler)) && !chosen.iter().any(seen) {
            chosen.extend(found.newest(target, sampler));
        }
    }
    chosen
}

/// Adds the troubles of the tree that may have cost a picture: all but those of readable runs that were not
/// asked for.
fn with_those_of(found: &RunsRoot, runs: &[&FoundRun], mut troubles: Vec<Trouble>) -> Vec<Trouble> {
    let others = |t: &&Trouble| {
        let of = |run: &FoundRun| run.dir == t.dir;
        !found.runs().iter().any(of) || runs.iter().any(|run| of(run))
    };
    troubles.extend(found.troubles().iter().filter(others).cloned());
    troubles.sort_by(|a, b| (&a.dir, &a.file).cmp(&(&b.dir, &b.file)));
    troubles.dedup();
    troubles
}

fn of_run(args: &SingleArgs) -> Result<u8, Quit> {
    start_log(&args.common);
    let unfit = |what: String| Quit::Usage(format!("--run-dir {}: {what}", args.run_dir.display()));
    let (run, troubles) = FoundRun::at(&args.run_dir)
        .map_err(|t| unfit(format!("{} {}; name a directory run_… of the runs/ tree", t.file, t.what)))?;
    let real = args.run_dir.canonicalize().map_err(|e| unfit(format!("cannot be found ({e})")))?;
    // A run that was copied away alone has no target and no neighbours.
    let found = real.ancestors().nth(2).and_then(|targets| RunsRoot::open(targets).ok());
    let there = found.as_ref().and_then(|found| found.run(&run.manifest.run_id));
    let mut made = match (&found, there) {
        (Some(found), Some(there)) if !args.plot_name.is_of_run() => {
            let mut runs = newest(found, &[]);
            runs.retain(|other| other.manifest.target_id == there.manifest.target_id);
            gallery::draw(found, &runs, &[args.plot_name], &args.outdir, threads())?
        }
        _ if !args.plot_name.is_of_run() => {
            let what = "this figure shows a whole target, and the directory is not in a runs/ tree; name one that \
                        is, or a figure of a run, such as trace.png";
            return Err(unfit(what.into()));
        }
        _ => gallery::draw_one(&run, args.plot_name, &args.outdir)?,
    };
    if args.plot_name.is_of_run() {
        made.troubles.extend(troubles);
        made.troubles.sort_by(|a, b| a.file.cmp(&b.file));
        made.troubles.dedup();
    }
    Ok(report(&args.common, &made, &args.outdir, None))
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS)
}

fn write_page(made: &Gallery, outdir: &Path, page: &Path) -> Result<(), Quit> {
    if page.file_name().is_none() || page.is_dir() {
        return Err(Quit::Usage(format!(
            "--snippet-out {}: is a directory; name a file, such as gallery.md",
            page.display()
        )));
    }
    // The parent of a plain name is the empty path.
    let page = std::path::absolute(page).unwrap_or_else(|_| page.into());
    let text = gallery::page(made, outdir, page.parent().unwrap_or(Path::new("/")));
    Ok(store::write_out(&page, text.as_bytes())?)
}

fn report(common: &Common, made: &Gallery, outdir: &Path, page: Option<&Path>) -> u8 {
    if common.json {
        say!(
            "{}",
            json!({ "outdir": outdir, "page": page, "figures": made.entries, "troubles": made.troubles })
        );
    } else if !common.quiet {
        for entry in &made.entries {
            say!("{}", outdir.join(&entry.file).display());
        }
        if let Some(page) = page {
            say!("{}", page.display());
        }
    }
    if made.entries.is_empty() && made.troubles.is_empty() {
        complain!("{}", note("there is no such figure of these: they have no data for it"));
    }
    for trouble in &made.troubles {
        complain!("{}", note(&trouble.to_string()));
    }
    u8::from(!made.troubles.is_empty())
}

/// What `run --promote` adds to a sweep: diagnoses and figures of the experiment's runs and targets, and a
/// gallery in `runs/promotion/<experiment>`. Whether all of it could be made; what could not is told.
pub fn after_sweep(root: &Path, experiment: &str, plots: &[Plot], threads: usize, silent: bool) -> bool {
    match promote(root, experiment, plots, threads) {
        Ok(Promoted { figures, page, troubles, refused }) => {
            if !silent {
                say!("{figures} figures in diagnostics/ of runs and targets; gallery: {}", page.display());
            }
            for trouble in &troubles {
                complain!("{}", note(&trouble.to_string()));
            }
            if let Some(error) = &refused {
                complain!("error: {error}");
            }
            troubles.is_empty() && refused.is_none()
        }
        Err(quit) => {
            complain!("error: figures could not be made: {quit}");
            false
        }
    }
}

struct Promoted {
    figures: usize,
    page: PathBuf,
    troubles: Vec<Trouble>,
    /// A disk that refused.
    refused: Option<StoreError>,
}

fn promote(root: &Path, experiment: &str, plots: &[Plot], threads: usize) -> Result<Promoted, Quit> {
    let found = RunsRoot::open(root)?;
    let manifest = found.experiment(experiment)?;
    let runs = Batch::of_experiment(&found, &manifest, |_| true, Mode::Full);
    let mut batch = Batch::of_targets(&found, Some(&manifest));
    batch.subjects.extend(runs.subjects);
    batch.troubles.extend(runs.troubles);
    let outcome = batch.carry_out(&mut SoloComm::new(), threads)?;
    let ours: Vec<&FoundRun> = manifest.runs.iter().filter_map(|run| found.run(&run.run_id)).collect();
    let plots = if plots.is_empty() { &DEFAULT_PLOTS } else { plots };
    let outdir = root.join("runs/promotion").join(experiment);
    let made = gallery::draw(&found, &ours, plots, &outdir, threads)?;
    let page = outdir.join(PAGE);
    write_page(&made, &outdir, &page)?;
    let mut troubles = outcome.troubles;
    troubles.extend(made.troubles);
    troubles.sort_by(|a, b| (&a.dir, &a.file).cmp(&(&b.dir, &b.file)));
    troubles.dedup();
    Ok(Promoted { figures: outcome.figures, page, troubles, refused: outcome.refused })
}
