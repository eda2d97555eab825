//! Searches from the command line: the same trials whoever runs them and however often they are killed.

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::{Ran, executed, job_of, lambda_hat, repository, under_mpirun};

const TRIALS: usize = 16;

fn config() -> String {
    repository("tests/data/tune/tiny.yaml").to_string_lossy().into_owned()
}

fn temp() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// The table of trials without its clocks, a line a row.
fn trials(root: &Path) -> Vec<String> {
    let path = root.join("results/optuna_trials.parquet");
    let columns =
        lambda_hat::io::table::read_parquet(&std::fs::read(path).expect("a table")).expect("is one");
    let columns: Vec<_> = columns.into_iter().filter(|(name, _)| name != "seconds").collect();
    let cell = |data: &lambda_hat::io::table::ColumnData, row: usize| {
        use lambda_hat::io::table::ColumnData::{Bool, F64, I64, Str};
        match data {
            Str(v) => format!("{:?}", v[row]),
            F64(v) => format!("{:?}", v[row].map(f64::to_bits)),
            I64(v) => format!("{:?}", v[row]),
            Bool(v) => format!("{:?}", v[row]),
        }
    };
    let rows = columns.first().map_or(0, |(_, data)| data.len());
    (0..rows)
        .map(|row| columns.iter().map(|(n, d)| format!("{n}={}", cell(d, row))).collect::<Vec<_>>().join(" "))
        .collect()
}

fn searched(root: &Path, workers: &str) -> Ran {
    let ran = lambda_hat(root, &["tune", &config(), "--local", "--workers", workers, "--json", "-q"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    ran
}

/// Ids that journals propose and settle: each once.
fn nothing_is_doubled(root: &Path) {
    for entry in std::fs::read_dir(root.join("results/studies")).expect("studies").flatten() {
        let Ok(text) = std::fs::read_to_string(entry.path()) else { continue };
        let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
        let of = |code: u64| lines.iter().filter(move |l| l["op_code"] == code);
        let proposed: BTreeSet<&str> = of(4).filter_map(|l| l["user_attrs"]["trial_id"].as_str()).collect();
        let settled: BTreeSet<u64> = of(6).filter_map(|l| l["trial_id"].as_u64()).collect();
        assert_eq!((of(4).count(), proposed.len()), (TRIALS / 2, TRIALS / 2), "{}", entry.path().display());
        assert_eq!((of(6).count(), settled.len()), (TRIALS / 2, TRIALS / 2), "{}", entry.path().display());
    }
}

#[test]
fn trials_are_the_same_for_any_number_of_workers_and_ranks_and_are_not_run_again() {
    let one = temp();
    searched(one.path(), "1");
    let expected = trials(one.path());
    assert_eq!(expected.len(), TRIALS);
    nothing_is_doubled(one.path());
    let again = searched(one.path(), "1");
    assert_eq!(executed(&again), 0);
    assert_eq!(trials(one.path()), expected);

    let four = temp();
    searched(four.path(), "4");
    assert_eq!(trials(four.path()), expected);
    if cfg!(feature = "mpi") {
        let ranks = temp();
        let ran = under_mpirun(ranks.path(), 2, &["tune", &config(), "--json", "-q"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert_eq!(trials(ranks.path()), expected);
    } else {
        eprintln!("built without the feature mpi: ranks are not tried");
    }
}

#[test]
fn what_blows_up_is_a_failed_trial_with_its_reason() {
    let root = temp();
    searched(root.path(), "2");
    let failed: Vec<String> =
        trials(root.path()).into_iter().filter(|row| row.contains("state=Some(\"failed\")")).collect();
    assert!(!failed.is_empty());
    for row in failed {
        assert!(row.contains("the chain blew up") && row.contains(" value=None "), "{row}");
    }
}

#[test]
fn a_search_that_was_killed_comes_to_the_same_table() {
    let whole = temp();
    searched(whole.path(), "2");
    let expected = trials(whole.path());
    let arguments = ["tune", &config(), "--local", "--workers", "2", "-q"];
    for n in [1, 2, 5, 9, 16, 25, 40] {
        let root = temp();
        let fault = format!("write:{n}");
        let died = job_of(root.path(), 0).args(arguments).env("LAMBDA_HAT_FAULT", &fault).output();
        assert_ne!(Ran::from(died.expect("starts")).code, 0, "{fault}: it was to die");
        searched(root.path(), "2");
        assert_eq!(trials(root.path()), expected, "{fault}");
        nothing_is_doubled(root.path());
    }
    for milliseconds in [20, 60, 120, 250] {
        let root = temp();
        let mut command: Command = job_of(root.path(), 0);
        let mut job =
            command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
        std::thread::sleep(Duration::from_millis(milliseconds));
        let _ = job.kill();
        let _ = job.wait();
        searched(root.path(), "2");
        assert_eq!(trials(root.path()), expected, "killed after {milliseconds} ms");
        nothing_is_doubled(root.path());
    }
}

#[test]
fn the_best_settings_are_a_preset_that_a_sweep_finds() {
    let root = temp();
    let ran = searched(root.path(), "2");
    let told: Value = serde_json::from_str(&ran.out).expect("JSON");
    let study = told["studies"][0]["study"].as_str().expect("a name");
    let best = root.path().join("results/best").join(study.split(':').next().expect("a problem"));
    let file = root.path().join("e.yaml");
    std::fs::write(
        &file,
        "targets: [{ problem: dln, widths: [2, 1, 2], rank: 1 }]\nsamplers: [{ name: hmc }]\n",
    )
    .expect("writes");
    let options = lambda_hat::config::LoadOptions { presets: Some(best), ..Default::default() };
    let experiment = lambda_hat::config::load(&file, &options).expect("is valid");
    let lambda_hat::config::Algo::Hmc(hmc) = &experiment.runs[0].sampler.algo else { panic!("hmc") };
    let params = &told["studies"][0]["best_params"];
    assert_eq!(Some(hmc.target_acceptance), params["target_acceptance"].as_f64());
    assert_eq!(Some(hmc.draws as u64), params["draws"].as_u64());
}

#[test]
fn bad_files_and_rough_references_are_refused() {
    let root = temp();
    let file = root.path().join("bad.yaml");
    let text = std::fs::read_to_string(config()).expect("is there");
    std::fs::write(&file, text.replace("low: 0.6, high", "low: 0.99, high")).expect("writes");
    let file = file.to_string_lossy().into_owned();
    let ran = lambda_hat(root.path(), &["tune", &file, "--local"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(
        ran.err.contains("bad.yaml:") && ran.err.contains("search_space.hmc.target_acceptance"),
        "{ran:?}"
    );

    let rough = ["tune", &config(), "--local", "-q", "--set", "execution.budget.hmc_fge=1"];
    let ran = lambda_hat(root.path(), &rough);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.contains("--allow-rough-reference"), "{ran:?}");
    let ran = lambda_hat(root.path(), &[&rough[..], &["--allow-rough-reference"]].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
}
