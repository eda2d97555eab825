//! `promote report` on real sweeps, whole and damaged, on disk and in a browser.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::{Ran, directory_with, lambda_hat, repository};

/// Exit code of `tests/python/test_report.py` where there is no browser.
const NO_BROWSER: i32 = 77;

/// One sweep whose second sampler blows up, on two targets.
const SWEEP: &str = "experiment: shown
targets:
  - { problem: quadratic, eigenvalues: [0.05, 0.2, 1, 2, 5], n_data: 1000 }
  - { model: small, data: small, overrides: { training: { steps: 300 } } }
samplers:
  - { name: hmc, overrides: { draws: 400, warmup: 100 } }
  - { name: hmc, seed: 7, overrides: { draws: 50, warmup: 50 } }
  - { name: sgld, overrides: { steps: 3000, warmup: 1000, step_size: 1000, batch_size: 64, eval_every: 100 } }
";

fn swept() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a temporary directory");
    let file = root.path().join("shown.yaml");
    fs::write(&file, SWEEP).expect("a file");
    let ran = lambda_hat(root.path(), &[&file.to_string_lossy(), "-q"]);
    assert_eq!(ran.code, 1, "a sampler blows up: {ran:?}");
    root
}

fn report(root: &Path) -> (Ran, PathBuf) {
    let out = root.join("out");
    let ran = lambda_hat(
        root,
        &["promote", "report", "--experiment", "shown", "--outdir", &out.to_string_lossy(), "--json"],
    );
    (ran, out.join("shown.html"))
}

fn page(path: &Path) -> String {
    fs::read_to_string(path).expect("the report")
}

/// The text between HTML tags as a reader sees it.
fn unescaped(text: &str) -> String {
    [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#x27;", "'"), ("&#x2f;", "/"), ("&amp;", "&")]
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[test]
fn the_file_that_a_report_gives_means_the_same_run() {
    let root = swept();
    let (ran, path) = report(root.path());
    assert_eq!(ran.code, 0, "{ran:?}");
    let text = page(&path);
    let mut again = 0;
    for block in text.split("<details class=\"run\" id=\"run-").skip(1) {
        let digits = &block[..8];
        let Some((_, rest)) = block.split_once("END&#x27;\n") else { continue };
        let (yaml, _) = rest.split_once("END\n").expect("the end of the file");
        let file = root.path().join("again.yaml");
        fs::write(&file, unescaped(yaml)).expect("a file");
        let ran = lambda_hat(root.path(), &[&file.to_string_lossy(), "--dry-run", "--json"]);
        let plan: Value = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {ran:?}"));
        let ids: Vec<&str> = plan["plan"]
            .as_array()
            .expect("a plan")
            .iter()
            .filter_map(|unit| unit["run_id"].as_str())
            .collect();
        assert_eq!(ids.len(), 1, "{plan}");
        assert!(ids[0].starts_with(digits), "{digits}: {plan}");
        again += 1;
    }
    assert_eq!(again, 4);
    // The two that blew up say why.
    assert_eq!(text.matches("the chain blew up").count(), 2 * 3, "lessons, table, details");
    let (_, twice) = report(root.path());
    assert_eq!(page(&twice), text, "the same tree gives the same bytes");
}

#[test]
fn a_damaged_tree_is_reported_as_far_as_it_is_whole() {
    let root = swept();
    let run = directory_with(root.path(), "run_hmc_");
    fs::remove_file(run.join("trace.nc")).expect("a trace");
    let (ran, path) = report(root.path());
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("trace.nc is missing"), "{ran:?}");
    let text = page(&path);
    let (_, trouble) = text.split_once("id=\"troubles\"").expect("a box");
    assert!(trouble.contains("trace.nc is missing") && !trouble.contains("/tmp/"), "{trouble:.300}");
    fs::remove_dir_all(&run).expect("a run");
    let (ran, path) = report(root.path());
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(page(&path).contains("badge missing"));
}

#[test]
fn an_unknown_experiment_is_bad_usage() {
    let root = swept();
    let out = root.path().join("out").to_string_lossy().into_owned();
    let ran = lambda_hat(root.path(), &["promote", "report", "--experiment", "<script>", "--outdir", &out]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("shown"), "{ran:?}");
}

/// Sorting, filtering, keyboard, widths, dark mode, escaping: tests/python/test_report.py.
#[test]
fn a_browser_shows_the_report() {
    let Some(python) = std::env::var_os("LAMBDA_HAT_PYTHON") else {
        eprintln!("SKIPPED: set LAMBDA_HAT_PYTHON (`make test` does) to look at the report in a browser");
        return;
    };
    let root = swept();
    // Names and messages that would be markup: a target's label and a reason of a failure.
    let evil = "<script>alert(1)</script><img src=x onerror=alert(2)>";
    let targets = root.path().join("runs/targets");
    for target in fs::read_dir(&targets).expect("targets").flatten() {
        let meta = target.path().join("meta.json");
        let Ok(text) = fs::read_to_string(&meta) else { continue };
        if text.contains("\"mlp\"") {
            let mut value: Value = serde_json::from_str(&text).expect("JSON");
            value["label"] = evil.into();
            fs::write(&meta, value.to_string()).expect("a file");
        }
    }
    for log in fs::read_dir(root.path().join("logs/run_sampler")).expect("logs").flatten() {
        let text = fs::read_to_string(log.path()).expect("a log");
        fs::write(log.path(), text.replace("failed: ", &format!("failed: {evil} "))).expect("a log");
    }
    let (ran, path) = report(root.path());
    assert_eq!(ran.code, 0, "{ran:?}");
    let ran: Ran = Command::new(python)
        .arg(repository("tests/python/test_report.py"))
        .arg(&path)
        .output()
        .expect("LAMBDA_HAT_PYTHON can be started")
        .into();
    if ran.code == NO_BROWSER {
        eprintln!("SKIPPED: {}", ran.err.trim());
        return;
    }
    assert_eq!(ran.code, 0, "{}\n{}", ran.out, ran.err);
    eprintln!("browser: {}", ran.out.trim());
}
