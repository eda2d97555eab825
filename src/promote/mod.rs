//! What is made afterwards from what is on disk: diagnoses, galleries, the report. Nothing here
//! samples, and nothing needs the store or the job that made the runs: a copied `runs/` tree is enough.
//!
//! [`RunsRoot`] reads the tree; a [`Batch`] of it is diagnosed and drawn into `diagnostics/`, and
//! [`gallery`] copies chosen figures out.

mod batch;
pub mod figures;
pub mod gallery;
mod report;
mod runs;
mod spread;
mod teacher;

pub use batch::{Batch, Outcome, Subject};
pub use report::{MOST_WITH_FIGURES, Report, report};
pub use runs::{
    ExperimentManifest, ExperimentRun, FoundRun, FoundTarget, Precision, Provenance, RunManifest, RunsRoot,
    TargetMeta, Timing, Trouble, UnitTime,
};
pub use spread::{Files, Job, Made, SpreadError, conduct, dismiss, serve};
pub use teacher::{RowSet, Rows, TargetDiagnosis, compare_with_teacher};

use std::path::PathBuf;

/// What keeps a tree of runs from being read at all. (What is wrong with one run is a [`Trouble`].)
#[derive(Debug, thiserror::Error)]
pub enum PromoteError {
    /// No tree there.
    #[error(
        "{} holds no runs/targets: name the directory of a sweep with --root, or its runs/ directory",
        path.display()
    )]
    NoRuns {
        /// The path as given.
        path: PathBuf,
    },
    /// A directory that cannot be listed.
    #[error("cannot list {}: {source}; check its permissions and the disk", path.display())]
    List {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// No such experiment.
    #[error("no experiment {name:?} in {}: there is {}", dir.display(), if known.is_empty() { "none".to_owned() } else { known.join(", ") })]
    NoExperiment {
        /// The name as given.
        name: String,
        /// Where manifests of experiments lie.
        dir: PathBuf,
        /// Those that there are.
        known: Vec<String>,
    },
    /// The manifest of an experiment that cannot be read.
    #[error("{}: {why}; run the sweep again, which writes it anew", path.display())]
    Experiment {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A page that cannot be put together: a mistake in its template.
    #[error("the report cannot be put together ({why}): this is a bug of lambda-hat-mpi")]
    Page {
        /// What the template engine says.
        why: String,
    },
}
