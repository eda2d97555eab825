//! `promote report`: one HTML file of an experiment.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::args::Common;
use super::table::printable;
use super::{Quit, start_log};
use crate::promote::{self, RunsRoot};
use crate::store::write_out;

#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Name of the experiment
    #[arg(long, env = "LAMBDA_HAT_EXPERIMENT", value_name = "NAME")]
    pub experiment: String,
    /// Directory that the page, EXPERIMENT.html, is written into
    #[arg(long, value_name = "DIR")]
    pub outdir: PathBuf,
    /// Figures of every single run, however many runs there are
    #[arg(long)]
    pub all_figures: bool,
    #[command(flatten)]
    pub common: Common,
}

/// Writes `OUTDIR/<experiment>.html`. 1 where something of the experiment is damaged or missing.
pub fn run(args: &ReportArgs) -> Result<u8, Quit> {
    start_log(&args.common);
    let root = args.common.root.clone().unwrap_or_else(|| PathBuf::from("."));
    let found = RunsRoot::open(&root)?;
    let report = promote::report(&found, &args.experiment, args.all_figures)?;
    let path = args.outdir.join(format!("{}.html", args.experiment));
    write_out(&path, report.html.as_bytes())?;
    for trouble in &report.troubles {
        complain!("{}", printable(&trouble.to_string()));
    }
    if args.common.json {
        let troubles: Vec<String> = report.troubles.iter().map(ToString::to_string).collect();
        say!(
            "{}",
            json!({
                "file": path, "bytes": report.html.len(), "runs": report.runs,
                "run_figures": !report.without_run_figures, "troubles": troubles,
            })
        );
    } else {
        let runs = format!("{} run{}", report.runs, if report.runs == 1 { "" } else { "s" });
        let megabytes = report.html.len() as f64 / 1e6;
        say!("{}: {runs}, {megabytes:.1} MB", printable(&path.display().to_string()));
        if report.without_run_figures {
            say!("figures of single runs are left out; --all-figures puts them in");
        }
    }
    Ok(u8::from(!report.troubles.is_empty()))
}
