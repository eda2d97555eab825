//! What may befall a job besides being killed: signals, time limits, panics, silence, damage.

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::{
    Ran, deterministic_files, ended, executed, job_of, lambda_hat, program, repository, run_to_end,
};

/// Exit code of a job that was stopped on the way.
const INTERRUPTED: i32 = 75;

fn config(name: &str) -> String {
    repository(&format!("tests/data/sweep/{name}.yaml")).to_string_lossy().into_owned()
}

fn temp() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// A job of one process, or of several ranks, with `more` arguments.
fn job(root: &Path, ranks: usize, file: &str, more: &[&str]) -> Command {
    let mut command = job_of(root, if ranks == 1 { 0 } else { ranks });
    command.args([&config(file), "--json"]).args(more);
    command
}

fn spawn(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts")
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
    assert!(sent.expect("kill runs").success(), "{name}");
}

/// Waits until the job has saved something, so that it is in the middle of its work.
fn is_working(root: &Path) {
    let until = Instant::now() + Duration::from_secs(60);
    let saved = || {
        let owners = std::fs::read_dir(root.join("store/checkpoints")).into_iter().flatten().flatten();
        owners.flat_map(|o| std::fs::read_dir(o.path()).into_iter().flatten().flatten()).count()
    };
    while saved() == 0 {
        assert!(Instant::now() < until, "nothing was saved within a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn finish(root: &Path, ranks: usize, file: &str) -> Ran {
    let ran = run_to_end(job(root, ranks, file, &[]));
    assert_eq!(ran.code, 0, "{ran:?}");
    ran
}

#[test]
fn a_signal_stops_a_job_which_goes_on_with_the_same_bits() {
    let whole = temp();
    let units = executed(&finish(whole.path(), 1, "torture"));
    let expected = deterministic_files(whole.path());
    for name in ["TERM", "INT", "USR1"] {
        let root = temp();
        let child = spawn(job(root.path(), 1, "torture", &["--checkpoint-every", "0.05"]));
        is_working(root.path());
        signal(&child, name);
        let ran = ended(child);
        assert_eq!(ran.code, INTERRUPTED, "{name}: {ran:?}");
        let said = format!("stopped by SIG{name}");
        assert!(ran.err.contains(&said) && ran.err.contains("the same command"), "{ran:?}");
        assert!(executed(&finish(root.path(), 1, "torture")) < units, "{name}");
        assert_eq!(deterministic_files(root.path()), expected, "{name}");
    }
    // What mpirun passes on.
    if cfg!(feature = "mpi") {
        let root = temp();
        let child = spawn(job(root.path(), 2, "torture", &["--checkpoint-every", "0.05"]));
        is_working(root.path());
        signal(&child, "USR1");
        let ran = ended(child);
        assert_eq!(ran.code, INTERRUPTED, "under mpirun: {ran:?}");
        finish(root.path(), 2, "torture");
        assert_eq!(deterministic_files(root.path()), expected, "under mpirun");
    }
}

#[test]
fn a_second_ctrl_c_ends_a_job_at_once_and_loses_nothing_that_was_saved() {
    let whole = temp();
    finish(whole.path(), 1, "torture");
    let root = temp();
    let mut command = job(root.path(), 1, "torture", &["--workers", "2"]);
    // Slots that do not stop: the job would wait for them for 0.4 s.
    command.env("LAMBDA_HAT_FAULT", "hang:warmup:99");
    let child = spawn(command);
    let targets = || std::fs::read_dir(root.path().join("store/refs/target")).into_iter().flatten().count();
    let until = Instant::now() + Duration::from_secs(60);
    while targets() < 2 {
        assert!(Instant::now() < until, "no target was built within a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
    // Warmups follow at once.
    std::thread::sleep(Duration::from_millis(200));
    signal(&child, "INT");
    std::thread::sleep(Duration::from_millis(50));
    signal(&child, "INT");
    let ran = ended(child);
    assert_eq!(ran.code, 130, "{ran:?}");
    finish(root.path(), 1, "torture");
    assert_eq!(deterministic_files(root.path()), deterministic_files(whole.path()));
}

#[test]
fn a_time_limit_stops_a_job_in_time() {
    let root = temp();
    let begun = Instant::now();
    // A limit of 1 s: work stops after 0.8 s at the latest, and none begins after that.
    let args = ["--time-limit", "1", "--set", "samplers.hmc.overrides.draws=100000000"];
    let ran = run_to_end(job(root.path(), 1, "torture", &args));
    assert_eq!(ran.code, INTERRUPTED, "{ran:?}");
    assert!(ran.err.contains("the time limit"), "{ran:?}");
    // Far from what the chain would take, which is hours.
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_unit_that_panics_is_tried_again_and_then_fails_its_run_alone() {
    let whole = temp();
    finish(whole.path(), 1, "tiny");
    // Once: the retry makes up for it.
    let root = temp();
    let ran = run_to_end(job(root.path(), 1, "tiny", &[]).env("LAMBDA_HAT_FAULT", "panic:chain-1:1"));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(deterministic_files(root.path()), deterministic_files(whole.path()));
    // Always: its runs fail, with reason and log, and no other.
    let root = temp();
    let ran = run_to_end(job(root.path(), 1, "tiny", &[]).env("LAMBDA_HAT_FAULT", "panic:chain-2:99"));
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.contains("panicked") && ran.out.contains("logs/run_sampler"), "{ran:?}");
    let report: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    let failed = report["runs"].as_array().expect("runs").iter().filter(|r| r["verdict"] == "failed").count();
    assert_eq!(failed, 3, "every hmc run has a chain 2, no sgld run has: {report}");
    let logs = std::fs::read_dir(root.path().join("logs/run_sampler")).expect("logs").flatten();
    let texts: Vec<String> = logs.filter_map(|l| std::fs::read_to_string(l.path()).ok()).collect();
    assert!(texts.iter().any(|t| t.contains("panicked") && t.contains("befall")), "a backtrace: {texts:?}");
    // By its surroundings: another launch tries again.
    finish(root.path(), 1, "tiny");
    assert_eq!(deterministic_files(root.path()), deterministic_files(whole.path()));
}

#[test]
fn a_slot_that_is_silent_is_given_up_and_its_unit_done_elsewhere() {
    let whole = temp();
    finish(whole.path(), 1, "tiny");
    for ranks in [1, 2] {
        if ranks > 1 && !cfg!(feature = "mpi") {
            eprintln!("built without the feature mpi: no rank is there to be silent");
            continue;
        }
        let root = temp();
        // One unit hangs in its first attempt; there are two slots.
        let mut command = job(root.path(), ranks, "tiny", &["--unit-timeout", "3", "--workers", "4"]);
        let ran = run_to_end(command.env("LAMBDA_HAT_FAULT", "hang:warmup:1"));
        // All warmups hang once, on slots that get new threads; every rank still answers.
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.err.contains("--unit-timeout"), "{ran:?}");
        assert_eq!(deterministic_files(root.path()), deterministic_files(whole.path()), "{ranks} ranks");
    }
}

#[test]
fn checkpoints_that_are_damaged_or_not_ours_are_left_alone() {
    let whole = temp();
    let units = executed(&finish(whole.path(), 1, "torture"));
    let root = temp();
    let mut command = job(root.path(), 1, "torture", &["--checkpoint-every", "0.02"]);
    command.env("LAMBDA_HAT_FAULT", "write:40");
    assert_ne!(run_to_end(command).code, 0);
    let mut damaged = 0;
    for owner in std::fs::read_dir(root.path().join("store/checkpoints")).expect("checkpoints").flatten() {
        for file in std::fs::read_dir(owner.path()).expect("files").flatten() {
            let mut bytes = std::fs::read(file.path()).expect("a file");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
            std::fs::write(file.path(), bytes).expect("writable");
            damaged += 1;
        }
    }
    assert!(damaged > 0);
    let ran = run_to_end(
        Command::new(program()).args([&config("torture"), "--json"]).env("LAMBDA_HAT_HOME", root.path()),
    );
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.err.contains("is damaged"), "{ran:?}");
    assert!(executed(&ran) <= units);
    assert_eq!(deterministic_files(root.path()), deterministic_files(whole.path()));
}

#[test]
fn every_rank_may_write_its_own_checkpoints() {
    let whole = temp();
    finish(whole.path(), 1, "torture");
    let (root, dir) = (temp(), temp());
    let path = dir.path().to_string_lossy().into_owned();
    let args = ["--checkpoint-every", "0.02", "--checkpoint-dir", &path];
    let ranks = if cfg!(feature = "mpi") { 2 } else { 1 };
    let mut command = job(root.path(), ranks, "torture", &args);
    command.env("LAMBDA_HAT_FAULT", "write:24");
    assert_ne!(run_to_end(command).code, 0);
    assert!(std::fs::read_dir(dir.path()).expect("a directory").count() > 0);
    let ran = run_to_end(job(root.path(), ranks, "torture", &args));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(deterministic_files(root.path()), deterministic_files(whole.path()));
    assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 0, "nothing is left");
}

#[test]
fn a_running_sweep_shows_how_it_stands() {
    let root = temp();
    let args = ["--set", "samplers.hmc.overrides.draws=100000000"];
    let child = spawn(job(root.path(), 1, "torture", &args));
    let until = Instant::now() + Duration::from_secs(60);
    let status = loop {
        let ran = lambda_hat(root.path(), &["status", "torture"]);
        if ran.code == 0 {
            break ran.out;
        }
        assert!(Instant::now() < until, "{ran:?}");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(status.starts_with("torture: running") && status.contains("rank"), "{status}");
    assert!(status.lines().all(|line| line.chars().count() <= 80), "{status}");
    let json = lambda_hat(root.path(), &["status", "--json"]).out;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["state"], "running");
    signal(&child, "TERM");
    let ran = ended(child);
    assert_eq!(ran.code, INTERRUPTED, "{ran:?}");
    let status = lambda_hat(root.path(), &["status"]).out;
    assert!(status.starts_with("torture: stopped: SIGTERM"), "{status}");
}

#[test]
fn a_unit_that_no_machine_has_memory_for_is_refused_and_no_other() {
    let root = temp();
    // 10⁹ draws make a trace of 180 GB; of 8 GB of address space the other samplers need little.
    let args = ["--set", "samplers.hmc.overrides.draws=1000000000"];
    let command = job(root.path(), 1, "tiny", &args);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -v 8000000 && exec \"$@\"", "sh"]).arg(command.get_program());
    limited.args(command.get_args()).env("LAMBDA_HAT_HOME", root.path());
    let ran = run_to_end(limited);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.contains("of memory") && ran.out.contains("are free on"), "{ran:?}");
    let report: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    let verdicts: Vec<&str> =
        report["runs"].as_array().expect("runs").iter().filter_map(|r| r["verdict"].as_str()).collect();
    assert_eq!(verdicts.iter().filter(|v| **v == "failed").count(), 3, "{verdicts:?}");
}

#[test]
fn a_unit_that_always_hangs_fails_its_run_and_no_other() {
    let root = temp();
    let mut command = job(root.path(), 1, "tiny", &["--unit-timeout", "2", "--workers", "2"]);
    let ran = run_to_end(command.env("LAMBDA_HAT_FAULT", "hang:chain-2:99"));
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.contains("no step within 2 s"), "{ran:?}");
    let report: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    let failed = report["runs"].as_array().expect("runs").iter().filter(|r| r["verdict"] == "failed").count();
    assert_eq!(failed, 3, "every hmc run has a chain 2, no sgld run has: {report}");
}

#[test]
fn steps_are_signs_of_life_however_rare_checkpoints_are() {
    let root = temp();
    let dir = temp();
    let path = dir.path().to_string_lossy().into_owned();
    // Far longer than the timeout without a checkpoint; then with checkpoints that rank 0 never sees.
    let long = "samplers.hmc.overrides.draws=100000000";
    for more in
        [&["--checkpoint-every", "3000"][..], &["--checkpoint-every", "0.1", "--checkpoint-dir", &path]]
    {
        let args = [&["--unit-timeout", "1", "--time-limit", "5", "--set", long][..], more].concat();
        let ran = run_to_end(job(root.path(), 1, "torture", &args));
        assert_eq!(ran.code, INTERRUPTED, "{ran:?}");
        assert!(!ran.err.contains("given up"), "{ran:?}");
    }
}

#[test]
fn a_retry_goes_on_from_the_checkpoint() {
    let whole = temp();
    finish(whole.path(), 1, "torture");
    let root = temp();
    let child = spawn(job(root.path(), 1, "torture", &["--checkpoint-every", "0.02"]));
    is_working(root.path());
    std::thread::sleep(Duration::from_millis(300));
    // Units in progress write a checkpoint when the job stops, after all that are done.
    signal(&child, "TERM");
    let stopped = ended(child);
    if stopped.code == 0 {
        eprintln!("the job was over before the signal: nothing to go on from");
        return;
    }
    assert_eq!(stopped.code, INTERRUPTED, "{stopped:?}");
    let parts = || {
        let owners = std::fs::read_dir(root.path().join("store/checkpoints")).into_iter().flatten().flatten();
        let files = owners.flat_map(|o| std::fs::read_dir(o.path()).into_iter().flatten().flatten());
        // The newest: of units that are done the last checkpoint may still lie there.
        files
            .filter(|f| f.file_name().to_string_lossy().ends_with(".part"))
            .max_by_key(|f| f.metadata().and_then(|m| m.modified()).ok())
            .map(|f| f.file_name().to_string_lossy().into_owned())
    };
    let Some(part) = parts() else {
        eprintln!("the job was between two units when it was stopped: nothing to go on from");
        return;
    };
    let unit = part.trim_end_matches(".part").to_owned();
    let mut command = job(root.path(), 1, "torture", &["-v"]);
    let ran = run_to_end(command.env("LAMBDA_HAT_FAULT", format!("panic:{unit}:1")));
    assert_eq!(ran.code, 0, "{ran:?}");
    // Once in the attempt that panics, once in the next.
    let resumed = ran.err.matches(&format!("{unit} goes on from its checkpoint")).count();
    assert!(resumed >= 2, "{unit}: {}", ran.err);
    assert_eq!(deterministic_files(root.path()), deterministic_files(whole.path()));
}

#[test]
fn a_rank_that_is_frozen_does_not_keep_the_job_from_its_end() {
    if !cfg!(feature = "mpi") {
        eprintln!("built without the feature mpi: there is no rank to freeze");
        return;
    }
    let root = temp();
    let long = "samplers.hmc.overrides.draws=100000000";
    let child = spawn(job(root.path(), 2, "torture", &["--checkpoint-every", "0.05", "--set", long]));
    is_working(root.path());
    std::thread::sleep(Duration::from_millis(300));
    let ranks = support::ranks_below(child.id());
    assert_eq!(ranks.len(), 2);
    let rank_of = |pid: u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let text = String::from_utf8_lossy(&environment).into_owned();
        text.split('\0').find_map(|v| v.strip_prefix("OMPI_COMM_WORLD_RANK=").map(str::to_owned))
    };
    let of = |rank: &str| *ranks.iter().find(|&&pid| rank_of(pid).as_deref() == Some(rank)).expect("a rank");
    let send = |pid: u32, name: &str| {
        Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().expect("kill runs");
    };
    send(of("1"), "STOP");
    send(of("0"), "USR1");
    let begun = Instant::now();
    let ran = ended(child);
    assert!(begun.elapsed() < Duration::from_secs(60), "{ran:?}");
    assert_eq!(ran.code, INTERRUPTED, "{ran:?}");
    assert!(ran.err.contains("stopped by SIGUSR1") && ran.err.contains("do not answer"), "{ran:?}");
}
