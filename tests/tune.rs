//! Searches from the command line: the same trials whoever runs them and however often they are killed.

#[path = "support/searches.rs"]
mod searches;
mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lambda_hat::io::table::ColumnData;
use searches::{column, config, file, numbers, searched, searched_by, temp, texts, trials};
use serde_json::Value;
use support::{Ran, executed, job_of, lambda_hat, under_mpirun};

const TRIALS: usize = 16;

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
fn a_search_without_a_winner_names_no_settings() {
    let root = temp();
    // A budget in which no trial can end.
    let ran = lambda_hat(root.path(), &["tune", &config(), "--method-budget", "0.001", "--local"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.contains("no study has a trial to take settings from"), "{}", ran.out);
    assert!(!ran.out.contains("results/best") && !root.path().join("results/best").exists(), "{}", ran.out);
    // Why, and what the trials would have taken.
    assert!(ran.out.contains("all 8 failed: its budget of"), "{}", ran.out);
    let expected = numbers(column(root.path(), "expected_fge"));
    assert!(expected.iter().all(|fge| *fge > 100.0), "{expected:?}");
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

    // Not even the shortest first round is within it.
    let none = ["tune", &config(), "--local", "-q", "--allow-rough-reference", "--set"];
    let ran = lambda_hat(root.path(), &[&none[..], &["execution.budget.hmc_fge=1e4"]].concat());
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.out.contains("its budget of 1.000e4 FGE is") && ran.out.contains("100 draws a chain"),
        "{ran:?}"
    );
    assert!(!root.path().join("store/refs/run").exists(), "nothing was run for it");

    let rough = ["tune", &config(), "--local", "-q", "--set", "execution.budget.hmc_fge=4e4"];
    let ran = lambda_hat(root.path(), &rough);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.contains("--allow-rough-reference"), "{ran:?}");
    let ran = lambda_hat(root.path(), &[&rough[..], &["--allow-rough-reference"]].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[test]
fn what_is_given_up_is_the_same_for_any_number_of_workers_and_ranks_and_after_a_kill() {
    let one = temp();
    let file = file("prune");
    searched_by(one.path(), &[&file, "--workers", "1"]);
    let expected = trials(one.path());
    let states = texts(column(one.path(), "state"));
    let pruned = states.iter().filter(|state| *state == "pruned").count();
    assert!(pruned >= 4 && states.iter().any(|state| state == "complete"), "{states:?}");
    let again = searched_by(one.path(), &[&file, "--workers", "1"]);
    assert_eq!((executed(&again), trials(one.path())), (0, expected.clone()));

    let four = temp();
    searched_by(four.path(), &[&file, "--workers", "4"]);
    assert_eq!(trials(four.path()), expected);
    if cfg!(feature = "mpi") {
        let ranks = temp();
        let ran = under_mpirun(ranks.path(), 2, &["tune", &file, "--json", "-q"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert_eq!(trials(ranks.path()), expected);
    }
    for n in [17, 77, 130] {
        let root = temp();
        let fault = format!("write:{n}");
        let arguments = ["tune", &file, "--local", "--workers", "2", "-q"];
        let died = job_of(root.path(), 0).args(arguments).env("LAMBDA_HAT_FAULT", &fault).output();
        assert_ne!(Ran::from(died.expect("starts")).code, 0, "{fault}: it was to die");
        searched_by(root.path(), &[&file, "--workers", "3"]);
        assert_eq!(trials(root.path()), expected, "{fault}");
    }
    // Nothing is left of what was given up; of what failed its warmup is, for `--retry-failed`.
    for (id, state) in texts(column(one.path(), "run_id")).iter().zip(&states) {
        let kept = one.path().join("store/checkpoints").join(id).exists();
        assert!(state != "pruned" || !kept, "{id}");
    }
}

/// The same trials with and without a pruner: those that are not given up come to the same bits, and the others
/// cost a part of what they would have.
#[test]
fn a_pruner_saves_work_and_changes_nothing_else() {
    let (with, without) = (temp(), temp());
    let file = file("prune");
    searched_by(with.path(), &[&file]);
    searched_by(without.path(), &[&file, "--set", "tune.pruner={type: none}"]);
    let of = |root: &Path| {
        let [fge, llc] = ["fge", "llc"].map(|name| numbers(column(root, name)));
        let [id, state, steps] =
            ["trial_id", "state", "intermediate_values"].map(|name| texts(column(root, name)));
        (fge, llc, id, state, steps)
    };
    let (pruned, whole) = (of(with.path()), of(without.path()));
    // A grid knows of no outcomes.
    assert_eq!(pruned.2, whole.2);
    for trial in 0..pruned.2.len() {
        let steps: Vec<(u64, f64)> = serde_json::from_str(&pruned.4[trial]).unwrap_or_default();
        assert!(whole.4[trial].is_empty());
        if pruned.3[trial] == "pruned" {
            // One that would have blown up later has no work on record.
            assert!(whole.3[trial] == "failed" || pruned.0[trial] < 0.75 * whole.0[trial], "trial {trial}");
            assert!((1..=3).contains(&steps.len()), "{steps:?}");
            let value = numbers(column(with.path(), "value"))[trial];
            assert_eq!(steps.last().map(|step| step.1), Some(value));
        } else {
            assert_eq!(pruned.3[trial], whole.3[trial]);
            assert_eq!(pruned.0[trial].to_bits(), whole.0[trial].to_bits(), "trial {trial}");
            assert_eq!(pruned.1[trial].to_bits(), whole.1[trial].to_bits(), "trial {trial}");
            assert!(steps.is_empty() || steps.last().map(|step| step.0) == Some(3), "{steps:?}");
        }
    }
    let sum = |fge: &[f64]| fge.iter().filter(|fge| fge.is_finite()).sum::<f64>();
    let saved = 1.0 - sum(&pruned.0) / sum(&whole.0);
    assert!(saved > 0.2, "{saved}");
    println!("{:.0} % of the work is saved", 100.0 * saved);
    // Runs that the store has whole are worth what they would have been, on their way too: the study again, with
    // a pruner, on what was run without one.
    std::fs::remove_dir_all(without.path().join("results/studies")).expect("is there");
    searched_by(without.path(), &[&file]);
    let again = of(without.path());
    for trial in (0..pruned.3.len()).filter(|&trial| whole.3[trial] != "failed") {
        assert_eq!((&again.3[trial], &again.4[trial]), (&pruned.3[trial], &pruned.4[trial]), "trial {trial}");
    }
}

#[test]
fn brackets_give_trials_up_at_their_rungs() {
    let (one, four) = (temp(), temp());
    for (root, workers) in [(&one, "1"), (&four, "4")] {
        let set =
            ["--set", "tune.pruner={type: hyperband, min_resource: 1, max_resource: 9, reduction_factor: 3}"];
        searched_by(root.path(), &[&[file("prune").as_str(), "--workers", workers], &set[..]].concat());
    }
    assert_eq!(trials(one.path()), trials(four.path()));
    let states = texts(column(one.path(), "state"));
    assert!(states.iter().any(|state| state == "pruned"), "{states:?}");
    for (state, steps) in states.iter().zip(texts(column(one.path(), "intermediate_values"))) {
        let steps: Vec<(u64, f64)> = serde_json::from_str(&steps).unwrap_or_default();
        let at: Vec<u64> = steps.iter().map(|step| step.0).collect();
        match state.as_str() {
            "pruned" => assert!(at == [1] || at == [1, 3], "{at:?}"),
            _ => assert!(at == [1, 3, 9] || at.is_empty(), "{state}: {at:?}"),
        }
    }
}

#[test]
fn what_takes_three_times_its_seconds_has_timed_out() {
    let root = temp();
    let file = file("prune");
    let set =
        ["--set", "execution.budget={trial_sec: 0.3}", "--set", "search_space.sgld.step_size.high=3e-3"];
    let arguments = [&["tune", &file, "--local", "--workers", "2", "--json", "-q"], &set[..]].concat();
    // No chain is done in time, the reference's apart.
    let ran = job_of(root.path(), 0).args(&arguments).env("LAMBDA_HAT_FAULT", "slow:chain-0:1500").output();
    let ran = Ran::from(ran.expect("starts"));
    assert_eq!(ran.code, 1, "{ran:?}");
    let told: Value = serde_json::from_str(&ran.out).expect("JSON");
    let late = told["studies"][0].clone();
    assert_eq!((&late["reproducible"], &late["failed"]), (&Value::Bool(false), &Value::from(14)), "{ran:?}");
    for reason in texts(column(root.path(), "reason")) {
        assert!(reason.starts_with("timed_out: "), "{reason}");
    }
    let ColumnData::Bool(repeats) = column(root.path(), "reproducible") else { panic!("bool") };
    assert!(repeats.iter().all(|repeats| *repeats == Some(false)));
    let status = lambda_hat(
        root.path(),
        &["tune", "status", "--json", "--root", "."].map(|word| match word {
            "." => root.path().to_str().expect("UTF-8"),
            word => word,
        }),
    );
    let status: Value = serde_json::from_str(&status.out).expect("JSON");
    assert_eq!(status[0]["reproducible"], false, "{status}");
}

#[test]
fn a_study_is_written_by_one_command_at_a_time() {
    let root = temp();
    let file = file("prune");
    let mut first = job_of(root.path(), 0)
        .args(["tune", &file, "--local", "--workers", "1", "-q"])
        .env("LAMBDA_HAT_FAULT", "slow:warmup:400")
        .stdout(Stdio::null())
        .spawn()
        .expect("starts");
    let journal = || {
        let studies = std::fs::read_dir(root.path().join("results/studies")).into_iter().flatten().flatten();
        studies.into_iter().any(|entry| entry.path().extension().is_some_and(|e| e == "log"))
    };
    while !journal() {
        assert!(first.try_wait().expect("is ours").is_none(), "it ended early");
        std::thread::sleep(Duration::from_millis(10));
    }
    let second = lambda_hat(root.path(), &["tune", &file, "--local", "-q"]);
    assert_eq!(second.code, 3, "{second:?}");
    assert!(second.err.contains("in use by process"), "{second:?}");
    let _ = first.kill();
    let _ = first.wait();
}

/// Jobs killed at random instants, `kills` of them in all, each study until it is done; the instants follow from
/// `seed`.
fn killed_at_random(name: &str, kills: usize, seed: u64) {
    let file = file(name);
    let whole = temp();
    let begun = Instant::now();
    searched_by(whole.path(), &[&file, "--workers", "2"]);
    let (expected, length) = (trials(whole.path()), begun.elapsed());
    let mut state = seed;
    let mut share = || {
        // Knuth's linear congruential generator; its upper bits are good enough for instants.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1u64 << 24) as f64
    };
    let (mut killed, mut studies) = (0, 0);
    while killed < kills {
        let root = temp();
        loop {
            let mut command = job_of(root.path(), 0);
            command.args(["tune", &file, "--local", "--workers", "2", "-q", "--checkpoint-every", "0.02"]);
            let mut job = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
            let end = Instant::now() + length.mul_f64(0.8 * share());
            while Instant::now() < end && job.try_wait().expect("is ours").is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            if let Some(status) = job.try_wait().expect("is ours") {
                assert!(status.success(), "{status}");
                break;
            }
            let _ = job.kill();
            let _ = job.wait();
            killed += 1;
            if killed == kills {
                searched_by(root.path(), &[&file, "--workers", "2"]);
                break;
            }
        }
        studies += 1;
        assert_eq!(trials(root.path()), expected, "{name}, {killed} kills, seed {seed}");
        once(root.path());
    }
    println!("{name}: {killed} kills in {studies} studies; the table was always the same");
}

/// Every trial is proposed once and settled once.
fn once(root: &Path) {
    for entry in std::fs::read_dir(root.join("results/studies")).expect("studies").flatten() {
        let Ok(text) = std::fs::read_to_string(entry.path()) else { continue };
        let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
        let proposed = lines.iter().filter(|line| line["op_code"] == 4).count() as u64;
        let mut settled: Vec<u64> =
            lines.iter().filter(|l| l["op_code"] == 6).filter_map(|l| l["trial_id"].as_u64()).collect();
        settled.sort_unstable();
        assert_eq!(settled, (0..proposed).collect::<Vec<u64>>(), "{}", entry.path().display());
    }
}

#[test]
fn a_few_kills_at_random_instants_change_nothing() {
    killed_at_random("prune", 3, 1);
}

/// `make torture N=…`.
#[test]
#[ignore = "takes minutes; make torture"]
fn kills_at_random_instants_change_nothing() {
    let kills = std::env::var("LAMBDA_HAT_TORTURE").ok().and_then(|n| n.parse().ok()).unwrap_or(50);
    killed_at_random("prune", kills - kills / 2, 2);
    killed_at_random("tiny", kills / 2, 3);
}
