//! `artifacts export`, `import` and `tb`: an experiment for another machine, and for TensorBoard.

use std::path::Path;

use serde_json::json;

use super::Quit;
use super::table::{note, printable};
use crate::store::{Bundle, Store, StoreError, size};
use crate::sweep::{self, INTERNAL};

/// Packs an experiment into one file.
pub fn export(store: &Store, experiment: &str, out: &Path, as_json: bool) -> Result<u8, Quit> {
    let report = store.export(experiment, out)?;
    if as_json {
        say!("{}", json!(report));
        return Ok(0);
    }
    for (unit, why) in &report.left_out {
        say!("{}", note(&format!("left out: {unit}: {why}")));
    }
    say!(
        "{}: {} targets, {} runs, {} objects, {}",
        report.path.display(),
        report.targets,
        report.runs,
        report.objects,
        size(report.bytes)
    );
    Ok(0)
}

/// Checks a bundle and makes it part of the store under `root`.
pub fn import(root: &Path, file: &Path, as_json: bool) -> Result<u8, Quit> {
    // Before the root is touched at all.
    let bundle = Bundle::open(file)?;
    bundle.judge(sweep::judge)?;
    let store = Store::open_exclusive(root)?;
    let report = match store.import(&bundle, &INTERNAL) {
        Err(e @ StoreError::Conflict { .. }) => {
            complain!("error: {}", printable(&e.to_string()));
            return Ok(1);
        }
        report => report?,
    };
    let experiment = store.experiment(bundle.experiment())?;
    sweep::lay_out(&store, &experiment)?;
    sweep::gather_again(&store, &experiment)?;
    if as_json {
        say!("{}", json!(report));
        return Ok(0);
    }
    say!(
        "{}: {} targets and runs are new, {} were here",
        report.experiment,
        report.new.len(),
        report.kept.len()
    );
    say!(
        "{} objects written ({}), {} were here; runs/ and results/ are up to date",
        report.objects,
        size(report.bytes),
        report.shared
    );
    Ok(0)
}

/// Makes an experiment's event files and says how to look at them.
pub fn boards(store: &Store, experiment: &str, as_json: bool) -> Result<u8, Quit> {
    let boards = sweep::write_boards(store, experiment)?;
    let dir = store.at(&boards.dir);
    if as_json {
        say!(
            "{}",
            json!({ "logdir": dir, "targets": boards.targets, "runs": boards.runs, "left_out": boards.left_out })
        );
        return Ok(0);
    }
    for (unit, why) in &boards.left_out {
        complain!("{}", note(&format!("left out: {unit}: {why}")));
    }
    if boards.targets + boards.runs == 0 {
        return Err(Quit::Usage(format!("{experiment}: no member has a curve: run the sweep again")));
    }
    say!("{}", dir.display());
    say!("tensorboard --logdir {}", quoted(&dir.display().to_string()));
    Ok(0)
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}
