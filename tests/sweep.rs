//! The main job, run as a user runs it.

mod support;

use std::path::Path;

use lambda_hat::io::npz::{self, Array, Values};
use support::{Ran, deterministic_files, directory_with, executed, lambda_hat, repository, under_mpirun};

fn tiny() -> String {
    repository("tests/data/sweep/tiny.yaml").to_string_lossy().into_owned()
}

fn sweep(root: &Path, more: &[&str]) -> Ran {
    let file = tiny();
    let args: Vec<&str> = [file.as_str(), "--json", "-q"].into_iter().chain(more.iter().copied()).collect();
    lambda_hat(root, &args)
}

fn temp() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// 3 builds, and on each of 3 targets: hmc 1 warmup + 3 chains, sgld 1 warmup + 2 chains; and a
/// control chain of each on the two targets that may be singular.
const UNITS: usize = 3 + 3 * (4 + 3) + 2 * 2;

#[test]
fn results_are_the_same_bits_for_any_number_of_workers_and_ranks() {
    let reference = temp();
    let ran = sweep(reference.path(), &["--workers", "1"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(executed(&ran), UNITS);
    let expected = deterministic_files(reference.path());
    assert_eq!(expected.len(), 3 * 2 + 6 * 2, "{expected:?}");

    let four = temp();
    assert_eq!(sweep(four.path(), &["--workers", "4"]).code, 0);
    assert_eq!(deterministic_files(four.path()), expected, "4 workers");

    let file = tiny();
    // Built without the feature `mpi` there is no job of several ranks to compare with.
    let jobs: &[usize] = if cfg!(feature = "mpi") { &[1, 2, 4] } else { &[] };
    for &ranks in jobs {
        let root = temp();
        let ran = under_mpirun(root.path(), ranks, &[&file, "-q"]);
        assert_eq!(ran.code, 0, "{ranks} ranks: {ran:?}");
        assert_eq!(deterministic_files(root.path()), expected, "{ranks} ranks");
    }
    for arith in ["cpu-generic", "cpu-avx2"] {
        let root = temp();
        let ran = sweep(root.path(), &["--arith", arith, "--set", "samplers.hmc.overrides.draws=20"]);
        if ran.err.contains("does not have it") || ran.err.contains("some rank has only") {
            eprintln!("{arith}: not on this processor, not compared");
            continue;
        }
        let other = temp();
        assert_eq!(sweep(other.path(), &["--set", "samplers.hmc.overrides.draws=20"]).code, 0);
        assert_eq!(deterministic_files(root.path()), deterministic_files(other.path()), "{arith}");
    }
}

#[test]
fn finished_work_is_never_redone_and_lost_work_is() {
    let root = temp();
    let root = root.path();
    assert_eq!(executed(&sweep(root, &[])), UNITS);
    let before = deterministic_files(root);
    assert_eq!(executed(&sweep(root, &[])), 0, "a second launch");

    // A directory that is gone comes back from the store.
    let run = directory_with(root, "run_hmc");
    std::fs::remove_dir_all(&run).expect("removable");
    assert_eq!(executed(&sweep(root, &[])), 0, "a deleted directory");
    assert_eq!(deterministic_files(root), before);
    for name in ["manifest.json", "timing.json"] {
        assert!(run.join(name).is_file(), "{name} came back");
    }

    // A run that is removed is done again, and nothing else is.
    let name = run.file_name().expect("a name").to_string_lossy().into_owned();
    let removed = lambda_hat(root, &["artifacts", "rm", &name]);
    assert_eq!(removed.code, 0, "{removed:?}");
    assert!(!run.exists());
    let again = executed(&sweep(root, &[]));
    assert!((4..=5).contains(&again), "one hmc run is 1 warmup, 3 chains and perhaps a control, not {again}");
    assert_eq!(deterministic_files(root), before);

    // One flipped byte of an object is found, and what it belonged to is made again.
    let hash =
        before.iter().find(|(k, _)| k.contains("run_sgld") && k.ends_with("trace.nc")).expect("a trace").1;
    let object = root.join("store/objects/blake3").join(&hash[..2]).join(&hash[2..]);
    let mut bytes = std::fs::read(&object).expect("the object");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::remove_file(&object).expect("removable");
    std::fs::write(&object, bytes).expect("writable");
    let verify = lambda_hat(root, &["artifacts", "verify"]);
    assert_eq!(verify.code, 3, "{verify:?}");
    assert!(verify.out.contains(hash.as_str()) || verify.err.contains(hash.as_str()), "{verify:?}");
    let again = executed(&sweep(root, &[]));
    assert!(
        (3..=4).contains(&again),
        "one sgld run is 1 warmup, 2 chains and perhaps a control, not {again}"
    );
    assert_eq!(deterministic_files(root), before);
    assert_eq!(lambda_hat(root, &["artifacts", "verify"]).code, 0);
    assert_eq!(executed(&sweep(root, &[])), 0);
}

#[test]
fn a_sampler_that_blows_up_fails_its_run_and_no_other() {
    let root = temp();
    let root = root.path();
    let ran = sweep(root, &["--set", "samplers.sgld.overrides.step_size=1e6"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let report: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    let runs = report["runs"].as_array().expect("runs");
    assert_eq!(runs.len(), 6);
    for run in runs {
        if run["sampler"] == "sgld" {
            assert_eq!(run["verdict"], "failed");
            let reason = run["reasons"][0].as_str().expect("a reason");
            assert!(reason.contains("step"), "{reason}");
        } else {
            assert!(run["llc_mean"].is_number(), "{run}");
        }
    }
    // Failed by its numbers: reported again, not done again; unless asked for.
    let again = sweep(root, &["--set", "samplers.sgld.overrides.step_size=1e6"]);
    assert_eq!((again.code, executed(&again)), (1, 0));
    let retried = sweep(root, &["--set", "samplers.sgld.overrides.step_size=1e6", "--retry-failed"]);
    assert_eq!(retried.code, 1);
    assert!(executed(&retried) > 0);
}

#[test]
fn a_bad_configuration_runs_nothing_and_leaves_nothing() {
    let root = temp();
    let bad = root.path().join("bad.yaml");
    std::fs::write(
        &bad,
        "targets:\n  - { problem: quadratic, eigenvalues: [1] }\nsamplers:\n  - { name: hcm }\n",
    )
    .expect("writable");
    let file = bad.to_string_lossy().into_owned();
    let mut attempts = vec![lambda_hat(root.path(), &[&file])];
    if cfg!(feature = "mpi") {
        attempts.push(under_mpirun(root.path(), 2, &[&file]));
    }
    for ran in attempts {
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.err.contains("bad.yaml:4"), "{}", ran.err);
        assert!(ran.err.contains("hmc"), "{}", ran.err);
    }
    assert!(!root.path().join("store").exists() && !root.path().join("runs").exists());
}

#[test]
fn two_sweeps_on_one_root_do_not_do_the_same_work() {
    let root = temp();
    let file = tiny();
    let args = [&file, "--json", "-q", "--workers", "1", "--set", "samplers.sgld.overrides.steps=400000"];
    let first = std::process::Command::new(support::program())
        .args(args)
        .env("LAMBDA_HAT_HOME", root.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the program starts");
    // The second starts while the first works, or after it: either way nothing is done twice.
    while std::fs::read_dir(root.path().join("store/locks")).map_or(0, Iterator::count) < 4 {
        std::thread::yield_now();
    }
    let second = lambda_hat(root.path(), &args);
    let first: Ran = first.wait_with_output().expect("it ends").into();
    assert_eq!(first.code, 0, "{first:?}");
    match second.code {
        3 => assert!(second.err.contains("in use by process"), "{second:?}"),
        0 => assert_eq!(executed(&second), 0, "{second:?}"),
        _ => panic!("{second:?}"),
    }
}

/// Whatever ends the manager, the other ranks must not wait for it: the job ends, with the reason.
#[test]
fn a_sweep_that_cannot_write_ends_the_whole_job() {
    let file = tiny();
    let mut attempts = vec![1];
    if cfg!(feature = "mpi") {
        attempts.push(2);
    }
    for ranks in attempts {
        let root = temp();
        std::fs::write(root.path().join("runs"), "a file where the tree should be").expect("writable");
        let ran = match ranks {
            1 => lambda_hat(root.path(), &[&file]),
            _ => under_mpirun(root.path(), ranks, &[&file]),
        };
        assert_eq!(ran.code, 3, "{ranks} ranks: {ran:?}");
        assert!(ran.err.contains("in the way"), "{}", ran.err);
    }
}

#[test]
fn runs_that_would_read_the_same_carry_their_ids() {
    let root = temp();
    let file = root.path().join("twice.yaml");
    let text = "targets: [{ problem: quadratic, eigenvalues: [1, 2], n_data: 10 }]\n\
                samplers:\n  - { name: hmc, overrides: { draws: 10, warmup: 0, chains: 1 } }\n  \
                - { name: hmc, overrides: { draws: 10, warmup: 0, chains: 2 } }\n";
    std::fs::write(&file, text).expect("writable");
    let ran = lambda_hat(root.path(), &[&file.to_string_lossy()]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let ids = ran.out.lines().filter(|l| l.contains("hmc_") && l.contains("check")).count();
    assert_eq!(ids, 2, "{}", ran.out);
}

#[test]
fn a_dry_run_prints_the_plan_and_writes_nothing() {
    let root = temp();
    let ran = lambda_hat(root.path(), &[&tiny(), "--dry-run"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    for word in ["dln 3-1-3", "quadratic", "hmc", "sgld", "nothing was run"] {
        assert!(ran.out.contains(word), "{word} in {}", ran.out);
    }
    assert_eq!(std::fs::read_dir(root.path()).expect("a directory").count(), 0);
}

/// Real ArviZ, xarray, numpy, h5py, pandas, polars and TensorBoard read a finished sweep, and the examples of
/// docs/formats.md run on it (tests/python/test_files.py).
#[test]
fn python_reads_what_a_sweep_leaves() {
    let Some(python) = std::env::var_os("LAMBDA_HAT_PYTHON") else {
        eprintln!("SKIPPED: set LAMBDA_HAT_PYTHON (`make test` does) to read the files with Python");
        return;
    };
    let root = temp();
    assert_eq!(sweep(root.path(), &[]).code, 0);
    let bundle = root.path().join("tiny.tar").display().to_string();
    for more in [&["tb"][..], &["export", "--out", &bundle]] {
        let args = [&["artifacts"], more, &["--experiment", "tiny"]].concat();
        let ran = lambda_hat(root.path(), &args);
        assert_eq!(ran.code, 0, "{ran:?}");
    }
    let ran: Ran = std::process::Command::new(python)
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
        .arg(repository("tests/python/test_files.py"))
        .env("LAMBDA_HAT_ROOT", root.path())
        .output()
        .expect("Python starts")
        .into();
    assert_eq!(ran.code, 0, "{}\n{}", ran.out, ran.err);
    // How many there were.
    eprintln!("Python: {}", ran.out.lines().last().unwrap_or_default());
}

#[test]
fn a_restricted_posterior_is_that_of_the_chosen_parameters() {
    let root = temp();
    let root = root.path();
    let mask = Array { shape: vec![4], values: Values::F64(vec![0.0, 1.0, 1.0, 0.0]) };
    std::fs::write(root.join("mask.npz"), npz::write(&[("mask", mask)]).expect("an npz")).expect("writable");
    let file = |name: &str, parameters: &str| {
        let path = root.join(name);
        let text = format!(
            "targets: [{{ problem: quadratic, eigenvalues: [1000, 0.5, 0.02, 1], n_data: 1000 }}]\n\
             samplers: [{{ name: hmc, overrides: {{ draws: 2000 }} }}]\nposterior: {{ parameters: {parameters} }}\n"
        );
        std::fs::write(&path, text).expect("writable");
        path.display().to_string()
    };
    let ran = lambda_hat(root, &[&file("two.yaml", "{ mask: mask.npz }"), "--json", "-q"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let analysis = directory_with(root, "run_hmc").join("analysis.json");
    let text = std::fs::read_to_string(analysis).expect("written");
    let a: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let number = |key: &str| a[key].as_f64().expect(key);
    let nbeta = 1000.0 / f64::ln(1000.0);
    let exact: f64 = [0.5, 0.02].iter().map(|h| 0.5 * nbeta * h / (nbeta * h + 1.0)).sum();
    assert!((number("llc_mean") - exact).abs() < 4.0 * number("llc_mcse"), "{exact} {text}");
    assert!(a["exact_llc"].is_null(), "what is known is of all parameters");
    for (parameters, words) in [
        ("{ layers: [0] }", "no layers"),
        ("{ mask: other.npz }", "other.npz"),
        ("{ mask: mask.npz, layers: [0] }", "either `layers` or `mask`"),
    ] {
        let ran = lambda_hat(root, &[&file("bad.yaml", parameters)]);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.err.contains(words) && ran.err.contains("bad.yaml:"), "{ran:?}");
    }
}

#[test]
fn approximations_that_no_memory_holds_are_refused_by_the_plan() {
    let root = temp();
    let cases = [
        ("M: 1024, r: 1024", "overrides.M: on quadratic d=1000, 1024 components of rank up to 1024 on 1000"),
        ("M: auto, r: 1024, alpha_temperature: 2", ""),
        ("r_per_component: [900, 1000, 800, 700]", ""),
        (
            "algo: flow, d_latent: 1024, flow_hidden: [4096, 4096], flow_depth: 64",
            "overrides.flow_hidden: on",
        ),
        ("algo: flow, d_latent: 1024", ""),
    ];
    for (settings, refused) in cases {
        let file = root.path().join("vi.yaml");
        let text = format!(
            "targets: [{{ problem: quadratic, quad_dim: 1000 }}]\nsamplers:\n  - {{ name: vi, overrides: {{ {settings} }} }}\n"
        );
        std::fs::write(&file, text).expect("writable");
        let ran = lambda_hat(root.path(), &[&file.to_string_lossy(), "--dry-run"]);
        let place = format!("vi.yaml:3:5: samplers[0].{refused}");
        let told = ran.code == 2 && ran.err.contains(&place) && ran.err.contains("; lower ");
        assert!(if refused.is_empty() { ran.code == 0 } else { told }, "{settings}: {ran:?}");
    }
}

/// The contents of the records of an event file.
fn records(mut file: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while !file.is_empty() {
        let length = u64::from_le_bytes(file[..8].try_into().expect("8 bytes")) as usize;
        all.push(file[12..12 + length].to_vec());
        file = &file[16 + length..];
    }
    all
}

#[test]
fn tensorboard_changes_no_number_and_shows_finished_runs_too() {
    let (asked, later) = (temp(), temp());
    let file = asked.path().join("vi.yaml");
    let text = "targets: [{ problem: quadratic, eigenvalues: [1, 2, 3] }]\nsamplers:\n  \
                - { name: vi, overrides: { M: 1, steps: 40, eval_every: 10, draws: 20, chains: 2 } }\n";
    std::fs::write(&file, text).expect("writable");
    let file = file.to_string_lossy().into_owned();
    let events = ["--set", "samplers.vi.overrides.tensorboard=true"];
    let run = |root: &Path, more: &[&str]| {
        let args: Vec<&str> =
            [file.as_str(), "--json", "-q"].into_iter().chain(more.iter().copied()).collect();
        executed(&lambda_hat(root, &args))
    };
    assert_eq!(run(asked.path(), &events), 1 + 1 + 2);
    assert_eq!(run(later.path(), &[]), 1 + 1 + 2);
    let written = |root: &Path| {
        let dir = directory_with(root, "run_vi").join("tensorboard");
        let mut files: Vec<_> =
            std::fs::read_dir(dir).into_iter().flatten().flatten().map(|f| f.path()).collect();
        assert!(files.len() <= 1, "{files:?}");
        files
            .pop()
            .map(|file| (file.file_name().map(ToOwned::to_owned), std::fs::read(file).expect("readable")))
    };
    assert_eq!(written(later.path()), None);
    assert_eq!(run(later.path(), &events), 0, "nothing is drawn again");
    let (name, content) = written(asked.path()).expect("events");
    assert_eq!(written(later.path()), Some((name.clone(), content.clone())));
    assert!(name.is_some_and(|n| n.to_string_lossy().contains("tfevents")));
    // The version; in each of 2 chains 4 averages and their errors, and 6 columns of 20 draws.
    let records = records(&content);
    assert_eq!(records.len(), 1 + 2 * (2 * 4 + 6 * 20));
    let tagged =
        |tag: &str| records.iter().filter(|r| r.windows(tag.len()).any(|w| w == tag.as_bytes())).count();
    assert_eq!((tagged("chain_1/elbo_error"), tagged("chain_0/llc")), (4, 20));
    let plain = |root| {
        let mut files = deterministic_files(root);
        files.retain(|name, _| !name.contains("tensorboard"));
        files
    };
    assert_eq!(plain(asked.path()), plain(later.path()));
}

#[test]
fn what_is_printed_fits_80_columns_and_holds_no_control_characters() {
    let root = temp();
    let plan = lambda_hat(root.path(), &[&tiny(), "--dry-run"]);
    let ran = lambda_hat(root.path(), &[&tiny(), "-q"]);
    let list = lambda_hat(root.path(), &["artifacts", "ls"]);
    for (what, ran) in [("plan", plan), ("table", ran), ("list", list)] {
        assert!(ran.code == 0 && ran.out.lines().count() > 5, "{what}: {ran:?}");
        assert!(ran.out.lines().all(|line| line.chars().count() <= 80), "{what}:\n{}", ran.out);
    }
    let file = root.path().join("bell.yaml");
    let text = "targets: [{ model: \"a\\e[31mb\\a\", data: small }]\nsamplers: [{ name: hmc }]\n";
    std::fs::write(&file, text).expect("writable");
    let ran = lambda_hat(root.path(), &[&file.to_string_lossy()]);
    assert!(ran.code == 2 && ran.err.contains("`a\\u{1b}[31mb\\u{7}`"), "{ran:?}");
    assert!(!ran.err.contains(['\u{1b}', '\u{7}']), "{ran:?}");
}
