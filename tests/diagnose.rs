//! `diagnose` and its relatives on real sweeps, whole and damaged.

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lambda_hat::diagnostics::{Diagnosis, Mode, diagnose};
use lambda_hat::io::{netcdf, npz};
use lambda_hat::promote::{RunsRoot, TargetDiagnosis};
use lambda_hat::stats;
use lambda_hat::trace::{ChainTrace, Column, Kind, Trace};
use serde_json::Value;
use support::{Ran, directory_with, lambda_hat, repository, under_mpirun};

/// A sweep of three targets and two samplers.
fn swept() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a temporary directory");
    let file = repository("tests/data/sweep/tiny.yaml").to_string_lossy().into_owned();
    let ran = lambda_hat(root.path(), &[&file, "-q"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    root
}

fn of_experiment(root: &Path, more: &[&str]) -> Ran {
    let args: Vec<&str> =
        ["diagnose-experiment", "--experiment", "tiny"].into_iter().chain(more.iter().copied()).collect();
    lambda_hat(root, &args)
}

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {ran:?}"))
}

/// Every file that diagnoses left, by its path below the root.
fn made(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![root.join("runs")];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).expect("a directory").flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if dir.ends_with("diagnostics") {
                let short = path.strip_prefix(root).expect("below the root").to_path_buf();
                found.push((short, fs::read(&path).expect("a readable file")));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn every_run_is_diagnosed_the_same_on_any_number_of_threads_and_ranks() {
    let root = swept();
    let root = root.path();
    let ran = of_experiment(root, &["--json"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    let report = json(&ran);
    assert_eq!(report["runs"].as_array().map(Vec::len), Some(6));
    let ran = lambda_hat(root, &["diagnose-targets", "--json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let report = json(&ran);
    assert_eq!(report["targets"].as_array().map(Vec::len), Some(1));
    assert_eq!(report["without_teacher"].as_array().map(Vec::len), Some(2));
    let first = made(root);
    // Six diagnoses, two files on the teacher, and figures as PNG and SVG: 5 of a run with an energy, 4 of one
    // without, 3 of a target and 3 more of the trained one.
    assert_eq!(
        first.len(),
        6 + 2 + 2 * (3 * 5 + 3 * 4 + 3 * 3 + 3),
        "{:?}",
        first.iter().map(|(p, _)| p).collect::<Vec<_>>()
    );

    for (path, bytes) in first.iter().filter(|(path, _)| path.ends_with("diagnosis.json")) {
        let diagnosis: Diagnosis = serde_json::from_slice(bytes).expect("a diagnosis");
        let dir = root.join(path).ancestors().nth(2).expect("a run's directory").to_path_buf();
        let bytes = fs::read(dir.join("trace.nc")).expect("a trace");
        let (trace, _) = netcdf::read_trace(&bytes).expect("a trace");
        assert_eq!(diagnosis, diagnose(&trace, Mode::Full, 1));
        let analysis: Value =
            serde_json::from_slice(&fs::read(dir.join("analysis.json")).expect("an analysis")).expect("JSON");
        let llc = diagnosis.quantity("llc").expect("llc");
        // The sweep's own numbers, to the last bit.
        for (key, value) in [
            ("llc_mean", llc.mean),
            ("llc_mcse", llc.mcse_mean),
            ("r_hat", llc.r_hat),
            ("ess_tail", llc.ess_tail),
        ] {
            assert_eq!(analysis[key].as_f64(), value, "{key} of {}", dir.display());
        }
    }

    let ways: &[usize] = if cfg!(feature = "mpi") { &[0, 2, 3] } else { &[0] };
    for &ranks in ways {
        for (path, _) in &first {
            fs::remove_file(root.join(path)).expect("removable");
        }
        let commands: [&[&str]; 2] =
            [&["diagnose-experiment", "--experiment", "tiny"], &["diagnose-targets"]];
        for command in commands {
            let ran = if ranks == 0 {
                lambda_hat(root, &[command, &["--workers", "3"]].concat())
            } else {
                under_mpirun(root, ranks, command)
            };
            assert_eq!(ran.code, 0, "{ranks} ranks: {ran:?}");
            assert!(ran.out.lines().all(|line| line.chars().count() <= 80), "{}", ran.out);
        }
        assert_eq!(made(root), first, "{ranks} ranks");
    }
}

#[test]
fn a_damaged_tree_is_told_of_and_the_rest_is_done() {
    let root = swept();
    let root = root.path();
    let found = RunsRoot::open(root).expect("a tree");
    assert_eq!((found.targets().len(), found.runs().len(), found.troubles()), (3, 6, &[][..]));
    let dirs: Vec<PathBuf> = found.runs().iter().map(|run| run.dir.clone()).collect();
    // What is no run is passed over.
    fs::create_dir_all(root.join("runs/targets/promotion")).expect("made");
    fs::create_dir_all(dirs[0].with_file_name("promotion")).expect("made");
    fs::write(dirs[0].with_file_name("run_notes.txt"), "a user's").expect("written");
    assert_eq!(RunsRoot::open(root).expect("a tree").troubles(), []);

    // Half copied: one run lacks its trace, one its end, one its manifest, one has an edited analysis.
    fs::remove_file(dirs[0].join("trace.nc")).expect("removable");
    let whole = fs::read(dirs[1].join("trace.nc")).expect("a trace");
    fs::remove_file(dirs[1].join("trace.nc")).expect("removable");
    fs::write(dirs[1].join("trace.nc"), &whole[..whole.len() / 2]).expect("written");
    fs::remove_file(dirs[2].join("manifest.json")).expect("removable");
    fs::remove_file(dirs[3].join("analysis.json")).expect("removable");
    fs::write(dirs[3].join("analysis.json"), "{}").expect("written");
    fs::write(dirs[4].join("timing.json"), "{ \"seconds\": ").expect("written");
    let ran = of_experiment(root, &["--json"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let report = json(&ran);
    assert_eq!(report["runs"].as_array().map(Vec::len), Some(3), "{report}");
    let troubles: Vec<(String, String, String)> = report["troubles"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|t| ["dir", "file", "what"].map(|k| t[k].as_str().expect("text").to_owned()).into())
        .collect();
    let expected = [
        (0, "trace.nc", "is missing"),
        (1, "trace.nc", "is damaged or edited"),
        (2, "manifest.json", "is missing"),
        (3, "analysis.json", "is damaged or edited"),
        (4, "timing.json", "is damaged (EOF"),
    ];
    assert_eq!(troubles.len(), expected.len(), "{troubles:?}");
    for (index, file, what) in expected {
        let dir = dirs[index].to_string_lossy();
        let told = |(d, f, w): &(String, String, String)| *d == dir && f == file && w.starts_with(what);
        assert!(troubles.iter().any(told), "{dir}: {file} {what} in {troubles:?}");
        assert!(ran.err.contains(file), "{}", ran.err);
    }
    // Without its store and results the rest can still be looked at, run by run.
    fs::remove_dir_all(root.join("store")).expect("removable");
    let dir = dirs[5].to_string_lossy().into_owned();
    let ran = lambda_hat(root, &["diagnose", "--run-dir", &dir, "--mode", "light"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("95 % quantile") && !ran.out.contains("autocorrelation"), "{}", ran.out);
    assert!(!root.join("store").exists(), "looking makes no store");
    // A directory that is gone altogether.
    fs::remove_dir_all(&dirs[5]).expect("removable");
    let ran = of_experiment(root, &[]);
    assert!(ran.code == 1 && ran.err.contains("is missing"), "{ran:?}");
}

#[test]
fn links_out_of_the_tree_are_not_followed() {
    let root = swept();
    let root = root.path();
    let other = tempfile::tempdir().expect("a temporary directory");
    let run = directory_with(root, "run_hmc");
    let secret = other.path().join("secret.json");
    fs::rename(run.join("manifest.json"), &secret).expect("moved");
    symlink(&secret, run.join("manifest.json")).expect("linked");
    let target = run.parent().expect("a target's directory");
    symlink(other.path(), target.join("run_elsewhere_00000000")).expect("linked");
    let found = RunsRoot::open(root).expect("a tree");
    assert_eq!(found.runs().len(), 5);
    let told: Vec<&str> = found.troubles().iter().map(|t| t.what.as_str()).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|what| what.starts_with("is a link that leaves")), "{told:?}");

    // Nor is anything written through one.
    fs::remove_file(run.join("manifest.json")).expect("removable");
    fs::rename(&secret, run.join("manifest.json")).expect("moved");
    symlink(other.path(), run.join("diagnostics")).expect("linked");
    let ran = lambda_hat(root, &["diagnose", "--run-dir", &run.to_string_lossy()]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert_eq!(fs::read_dir(other.path()).expect("a directory").count(), 0);
}

#[test]
fn what_there_is_not_is_answered_with_what_there_is() {
    let root = swept();
    let root = root.path();
    let target = directory_with(root, "tgt_");
    let target = target.file_name().expect("a name").to_string_lossy().into_owned();
    let cases: [(&[&str], &str); 6] = [
        (&["diagnose-experiment", "--experiment", "other"], "there is tiny"),
        (&["diagnose-experiment", "--experiment", "tiny", "--samplers", "hmc,vi"], "has hmc, sgld"),
        (&["diagnose-target", "--target", "tgt_0123"], target.as_str()),
        (&["diagnose-targets", "--experiment", "../tiny"], "there is tiny"),
        (&["diagnose-targets", "--root", "/proc"], "--root"),
        (&["diagnose", "--run-dir", "/proc"], "manifest.json is missing"),
    ];
    for (args, expected) in cases {
        let ran = lambda_hat(root, args);
        assert_eq!(ran.code, 2, "{args:?}: {ran:?}");
        assert!(ran.err.contains(expected), "{args:?}: '{}' lacks '{expected}'", ran.err);
    }
    let ran = of_experiment(root, &["--samplers", "hmc", "--json"]);
    assert_eq!(json(&ran)["runs"].as_array().map(Vec::len), Some(3));
    let newest = RunsRoot::open(root).expect("a tree");
    let run = newest.runs().first().expect("a run");
    let again = newest.newest(&run.manifest.target_id, &run.manifest.sampler).expect("itself");
    assert_eq!(again.manifest.run_id, run.manifest.run_id);
}

#[test]
fn newest_is_what_the_manifest_says() {
    let root = swept();
    let root = root.path();
    let run = directory_with(root, "run_hmc");
    let copy = run.with_file_name("run_hmc_older");
    fs::create_dir(&copy).expect("made");
    // The copy's files are younger; its manifest says that it ended before.
    let mut manifest: Value =
        serde_json::from_slice(&fs::read(run.join("manifest.json")).expect("readable")).expect("JSON");
    let id = manifest["run_id"].as_str().expect("an id").to_owned();
    manifest["provenance"]["when"] = "2001-01-01T00:00:00Z".into();
    manifest["run_id"] = "f".repeat(64).into();
    fs::write(copy.join("manifest.json"), manifest.to_string()).expect("written");
    let found = RunsRoot::open(root).expect("a tree");
    let target = &manifest["target_id"].as_str().expect("an id").to_owned();
    assert_eq!(found.runs_of(target).count(), 3);
    assert_eq!(found.newest(target, "hmc").expect("a run").manifest.run_id, id);

    // Within a second the fraction tells; a time in whole seconds is that of the second's begin.
    let mut own: Value =
        serde_json::from_slice(&fs::read(run.join("manifest.json")).expect("readable")).expect("JSON");
    let when = own["provenance"]["when"].as_str().expect("a time").to_owned();
    assert!(when.len() == "2026-01-01T00:00:00.000Z".len() && when.ends_with('Z'), "{when}");
    for (ours, copys) in [
        ("2026-01-01T00:00:00.250Z", "2026-01-01T00:00:00.249Z"),
        ("2026-01-01T00:00:00.001Z", "2026-01-01T00:00:00Z"),
        ("2026-01-01T00:00:01Z", "2026-01-01T00:00:00.999Z"),
    ] {
        for (dir, manifest, when) in [(&run, &mut own, ours), (&copy, &mut manifest, copys)] {
            manifest["provenance"]["when"] = when.into();
            fs::remove_file(dir.join("manifest.json")).expect("removable");
            fs::write(dir.join("manifest.json"), manifest.to_string()).expect("written");
        }
        let found = RunsRoot::open(root).expect("a tree");
        assert_eq!(found.newest(target, "hmc").expect("a run").manifest.run_id, id, "{ours} {copys}");
    }
}

#[test]
fn students_are_compared_with_their_teachers() {
    let root = swept();
    let root = root.path();
    let found = RunsRoot::open(root).expect("a tree");
    let target = found.targets().iter().find(|t| t.meta.problem == "mlp").expect("a network");
    let ran = lambda_hat(root, &["diagnose-target", "--target", &target.name()]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let folder = target.dir.join("diagnostics");
    let bytes = fs::read(folder.join("target.json")).expect("a diagnosis");
    let diagnosis: TargetDiagnosis = serde_json::from_slice(&bytes).expect("a diagnosis");
    // The student's loss on its training rows is L0, which the build has computed.
    let l0 = diagnosis.train.student_loss.expect("a number");
    assert!((l0 / target.meta.l0 - 1.0).abs() < 1e-6, "{l0} against {}", target.meta.l0);
    let arrays =
        npz::read(&fs::read(folder.join("predictions.npz")).expect("an archive")).expect("an archive");
    for (set, rows) in [("train", &diagnosis.train), ("test", &diagnosis.test)] {
        let of = |what: &str| arrays[&format!("{set}_{what}")].values.to_f64().expect("numbers");
        let (student, teacher, y) = (of("student"), of("teacher"), of("y"));
        assert_eq!(y.len(), rows.rows.min(2000));
        let mse = |a: &[f64], b: &[f64]| {
            a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>() / a.len() as f64
        };
        // All rows are kept here, one output each: losses and fits follow from the pairs.
        let n = y.len() as f64;
        let spread = stats::variance(&y) * (n - 1.0) / n;
        for (told, expected) in [
            (rows.student_loss, mse(&student, &y)),
            (rows.teacher_loss, mse(&teacher, &y)),
            (rows.student_r2, 1.0 - mse(&student, &y) / spread),
            (rows.teacher_r2, 1.0 - mse(&teacher, &y) / spread),
        ] {
            let told = told.expect("a number");
            assert!(
                (told - expected).abs() < 1e-9 * expected.abs().max(1.0),
                "{set}: {told} against {expected}"
            );
        }
        // The noise of this data set has standard deviation 0.1: a mean of n squares of it.
        let noise = rows.teacher_loss.expect("a number") / 0.01;
        assert!((noise - 1.0).abs() < 4.0 * (2.0 / n).sqrt(), "{set}: {noise}");
    }
}

#[test]
fn absurd_sizes_in_a_damaged_configuration_are_told() {
    let root = swept();
    let root = root.path();
    let found = RunsRoot::open(root).expect("a tree");
    let target = found.targets().iter().find(|t| t.meta.problem == "mlp").expect("a network");
    let file = target.dir.join("meta.json");
    let whole: Value = serde_json::from_slice(&fs::read(&file).expect("readable")).expect("JSON");
    let taught = serde_json::json!({ "network": whole["config"]["problem"]["mlp"]["model"], "dropout": 0.0 });
    let huge = u64::MAX / 2;
    for (at, value) in [
        ("/model/hidden", serde_json::json!([huge, huge])),
        ("/model/hidden", serde_json::json!([1u64 << 40])),
        ("/model/in_dim", huge.into()),
        ("/model/in_dim", 0.into()),
        ("/model/out_dim", (1u64 << 50).into()),
        ("/teacher/network/hidden", serde_json::json!([1u64 << 60, 1u64 << 60])),
        ("/teacher/network/hidden", serde_json::json!([(1u64 << 20) + 1])),
        ("/teacher/network/out_dim", 3.into()),
    ] {
        let mut meta = whole.clone();
        let problem = &mut meta["config"]["problem"]["mlp"];
        if at.starts_with("/teacher") {
            problem["teacher"] = taught.clone();
        }
        *problem.pointer_mut(at).expect("a size") = value.clone();
        fs::remove_file(&file).expect("removable");
        fs::write(&file, meta.to_string()).expect("written");
        let ran = lambda_hat(root, &["diagnose-target", "--target", &target.name()]);
        assert_eq!(ran.code, 1, "{at} {value}: {ran:?}");
        assert!(ran.err.contains("data.npz") && ran.err.contains("meta.json"), "{at} {value}: {ran:?}");
    }
}

/// A run directory whose trace has 64 chains of 10⁵ draws in the columns that hmc writes.
fn long_run(root: &Path) -> PathBuf {
    let (chains, draws) = (64u64, 100_000);
    let layout = vec![
        Column::posterior("llc"),
        Column::posterior("L"),
        Column::stat("acceptance_rate", Kind::Float),
        Column::stat("energy", Kind::Float),
        Column::stat("diverging", Kind::Bool),
        Column::stat("n_steps", Kind::Int),
        Column::stat("cumulative_fge", Kind::Float),
    ];
    let one = |c: u64| {
        let mut chain = ChainTrace::with_capacity(layout.len(), draws);
        // Marsaglia's xorshift64: quick, and no statistics hang on it.
        let mut state = 0x9E37_79B9_7F4A_7C15 ^ (c + 1);
        let mut uniform = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 * (-53f64).exp2()
        };
        let mut llc = 0.0;
        for i in 0..draws {
            // A sum of four uniforms, centred: autocorrelation 0.8 to the lag.
            let e = uniform() + uniform() + uniform() + uniform() - 2.0;
            llc = 0.8 * llc + e;
            let loss = 0.5 + (llc + 10.0) / 25.0;
            chain.push(&[25.0 * (loss - 0.5), loss, 0.9, llc + uniform(), 0.0, 10.0, 10.0 * (i + 1) as f64]);
        }
        chain
    };
    let trace = Trace { chains: (0..chains).map(one).collect(), layout };
    let bytes = netcdf::write_trace(&trace, None, &[]).expect("a trace");
    let dir = root.join("run_hmc_long");
    fs::create_dir(&dir).expect("made");
    let manifest = serde_json::json!({
        "run_id": "0".repeat(64), "urn": "", "target_id": "1".repeat(64), "target": "long", "sampler": "hmc",
        "config": null, "precision": { "target": "f64", "sampler": "f64", "cast": false }, "stream_id": "",
        "files": { "trace.nc": blake3::hash(&bytes).to_string() },
        "provenance": { "when": "", "version": "", "git_sha": "", "arithmetic": "", "launch": "", "hosts": [],
            "seconds": 0.0 },
    });
    fs::write(dir.join("trace.nc"), &bytes).expect("written");
    fs::write(dir.join("manifest.json"), manifest.to_string()).expect("written");
    dir
}

/// Most memory that a process has held, in MiB.
fn peak_mib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib / 1024)
}

#[test]
#[ignore = "a timing, for a machine that does nothing else: cargo test --release --test diagnose -- --ignored"]
fn a_long_trace_is_diagnosed_in_seconds() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let dir = long_run(root.path());
    let begun = Instant::now();
    let mut child = std::process::Command::new(support::program())
        .args(["diagnose", "--mode", "full", "--run-dir"])
        .arg(&dir)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the program starts");
    let mut peak = 0;
    let status = loop {
        peak = peak.max(peak_mib(child.id()).unwrap_or(0));
        match child.try_wait().expect("a child") {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let took = begun.elapsed();
    eprintln!("{took:?}, {peak} MiB");
    // 1: it has no analysis.json and no timing.json.
    assert_eq!(status.code(), Some(1));
    let bytes = fs::read(dir.join("diagnostics/diagnosis.json")).expect("a diagnosis");
    let diagnosis: Diagnosis = serde_json::from_slice(&bytes).expect("a diagnosis");
    let ess = diagnosis.quantity("llc").and_then(|q| q.ess_mean).expect("a number");
    // τ = (1 + φ)/(1 − φ) = 9; its estimate is as good as a window of some 100 lags allows.
    let error = (2.0 * 201.0 / 6.4e6f64).sqrt();
    assert!((ess * 9.0 / 6.4e6 - 1.0).abs() < 4.0 * error, "{ess}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert!(peak < 1024, "{peak} MiB");
}
