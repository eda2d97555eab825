//! Sweeps whose chains run on a device: the kernels built for the host in the place of a GPU, everything else as there.

#[path = "cuda_host/host.rs"]
#[allow(dead_code)]
mod host;
#[allow(dead_code)]
mod support;

use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{Ran, deterministic_files, executed, job_of};

const EXPERIMENT: &str = "\
experiment: device
targets:
  - { model: small, data: small, teacher: _null, overrides: { training: { steps: 300 } } }
  - { problem: quadratic, eigenvalues: [0.1, 1, 10], n_data: 100 }
samplers:
  - { name: hmc, overrides: { draws: 800, warmup: 300, chains: 2 } }
  - { name: mala, overrides: { draws: 800, warmup: 600, chains: 2 } }
  - { name: mclmc, overrides: { draws: 800, adjusted: false, thin: 10, chains: 2 } }
  - { name: sghmc, overrides: { steps: 6000, warmup: 1000, eval_every: 10, batch_size: 32, chains: 2 } }
  - { name: sgnht, overrides: { steps: 6000, warmup: 1000, eval_every: 10, batch_size: 32, chains: 2 } }
  - { name: nuts, overrides: { draws: 100, warmup: 100, chains: 2 } }
  - { name: sgld, overrides: { steps: 12000, warmup: 2000, step_size: 1e-3, eval_every: 10, batch_size: 32, chains: 6 } }
";

/// Those of its samplers that have kernels.
const ON_DEVICE: [&str; 6] = ["hmc", "mala", "mclmc", "sgld", "sghmc", "sgnht"];

/// A root with the experiment in it.
struct Job {
    root: tempfile::TempDir,
    kernels: String,
}

impl Job {
    fn new(kernels: &str) -> Self {
        let root = tempfile::tempdir().expect("a directory");
        std::fs::write(root.path().join("device.yaml"), EXPERIMENT).expect("writable");
        Self { root, kernels: kernels.to_owned() }
    }

    fn path(&self) -> &Path {
        self.root.path()
    }

    fn run_by(&self, ranks: usize, fault: &str, args: &[&str]) -> Ran {
        let mut command = job_of(self.path(), ranks);
        command.arg(self.path().join("device.yaml")).args(args).current_dir(self.path());
        command.env("LAMBDA_HAT_HOST_KERNELS", &self.kernels).env("LAMBDA_HAT_FAULT", fault);
        command.output().expect("the program starts").into()
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.run_by(0, "", args)
    }

    /// Manifest and analysis of the runs of a sampler.
    fn runs_of(&self, sampler: &str) -> Vec<(Value, Value)> {
        let read = |path: PathBuf| -> Value {
            serde_json::from_slice(&std::fs::read(&path).expect("a file")).expect("JSON")
        };
        let all = deterministic_files(self.path());
        let run = format!("run_{sampler}_");
        let dirs = all.keys().filter(|f| f.contains(&run) && f.ends_with("analysis.json"));
        let of = |file: &String| {
            let dir = self.path().join(Path::new(file).parent().expect("a directory"));
            (read(dir.join("manifest.json")), read(dir.join("analysis.json")))
        };
        dirs.map(of).collect()
    }
}

/// The kernels' program; `None` where there is no compiler.
fn kernels() -> Option<String> {
    host::host(false).map(|program| program.display().to_string())
}

#[test]
fn chains_with_a_kernel_run_on_the_device_and_the_others_stay() {
    let Some(kernels) = kernels() else { return };
    let job = Job::new(&kernels);
    let plan = job.run(&["--device", "cuda", "--dry-run", "--json"]);
    let plan: Value = serde_json::from_str(&plan.out).expect("JSON");
    let devices = |name: &str| -> Vec<&str> {
        let of = plan["plan"].as_array().expect("rows").iter().filter(|row| row["sampler"] == name);
        of.map(|row| row["device"].as_str().expect("a name")).collect()
    };
    for sampler in ON_DEVICE {
        assert_eq!(devices(sampler), ["host-kernels", "cpu"], "{sampler}");
    }
    assert_eq!(devices("nuts"), ["cpu", "cpu"]);

    let ran = job.run(&["--device", "cuda", "--json"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    for said in [
        "kernels built for the host (1.0 GiB, no device, host-kernels-sm80)",
        "chains of 6 of 14 runs on the device; the rest on the CPU",
        "nuts has no kernel for a device",
        "the target has no network",
    ] {
        assert!(ran.err.contains(said), "{said}: {}", ran.err);
    }
    // Two builds; on the device warmup, chains, control; of the others a unit a chain.
    assert_eq!(executed(&ran), 2 + 6 * 3 + (1 + 2 + 1) + 6 * (1 + 2) + (1 + 6), "{}", ran.err);
    let on_device: Vec<(Value, Value)> = ON_DEVICE
        .into_iter()
        .map(|sampler| {
            let is_there = |(m, _): &(Value, Value)| m["config"]["device"] == "host-kernels";
            let (manifest, there) =
                job.runs_of(sampler).into_iter().find(is_there).expect("a run on the device");
            let provenance = &manifest["provenance"];
            assert_eq!(provenance["device"], "host-kernels-sm80");
            let place = provenance["ranks"][0]["device"].as_str().expect("a text");
            assert!(place.starts_with("kernels built for the host"), "{place}");
            (manifest, there)
        })
        .collect();
    assert_eq!(executed(&job.run(&["--device", "cuda", "--json"])), 0, "finished work is never redone");
    assert_eq!(executed(&job.run(&["--json"])), 0, "auto is the device where there is one");

    // On the CPU they are other runs, of the same λ̂.
    let ran = job.run(&["--device", "cpu", "--json"]);
    assert_eq!((ran.code, executed(&ran)), (0, 5 * (1 + 2 + 1) + (1 + 6 + 1)), "{}", ran.err);
    for (sampler, (manifest, there)) in ON_DEVICE.into_iter().zip(on_device) {
        let runs = job.runs_of(sampler);
        let of_target = |m: &Value| m["target_id"] == manifest["target_id"];
        let on_cpu = runs.iter().find(|(m, _)| of_target(m) && m["config"].get("device").is_none());
        let (other, here) = on_cpu.expect("a run on the CPU");
        assert_ne!(other["run_id"], manifest["run_id"]);
        let number = |analysis: &Value, key: &str| analysis[key].as_f64().unwrap_or_else(|| panic!("{key}"));
        let apart = number(&there, "llc_mean") - number(here, "llc_mean");
        let error = number(&there, "llc_mcse").hypot(number(here, "llc_mcse"));
        println!("{sampler}: λ̂ {} and {}, {error} together", there["llc_mean"], here["llc_mean"]);
        assert!(apart.abs() < 4.0 * error, "{sampler} {apart} {error}");
        assert!(number(&there, "llc_mcse") < 0.3 * number(&there, "llc_mean").abs(), "{sampler}");
    }
}

/// Everything deterministic that a sweep leaves.
fn whole(kernels: &str) -> std::collections::BTreeMap<String, String> {
    let job = Job::new(kernels);
    let ran = job.run(&["--device", "cuda"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    deterministic_files(job.path())
}

#[test]
fn bits_are_the_same_for_any_launch_after_kills_in_turns_and_after_failures() {
    let Some(kernels) = kernels() else { return };
    let expected = whole(&kernels);

    let job = Job::new(&kernels);
    let ran = job.run_by(2, "", &["--device", "cuda"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(deterministic_files(job.path()) == expected, "two ranks");

    // Dies on the way, with a checkpoint every few milliseconds, until it does not.
    let job = Job::new(&kernels);
    let args = ["--device", "cuda", "--workers", "1", "--checkpoint-every", "0.002", "-v"];
    let mut kept = false;
    for _ in 0..40 {
        let ran = job.run_by(0, "write:23", &args);
        kept |= ran.err.contains("chains goes on from its checkpoint");
        if ran.code == 0 {
            break;
        }
    }
    assert_eq!(job.run(&args).code, 0);
    assert!(kept, "no checkpoint of the chains was taken up");
    assert!(deterministic_files(job.path()) == expected, "after kills");

    // No room for six chains of sgld at a time, nor for two of hmc with the draws that wait for a look.
    let job = Job::new(&format!("{kernels},memory=22000"));
    let ran = job.run(&["--device", "cuda"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    for said in
        ["of 6 chains in the device's memory; 3 run at a time", "of 2 chains in the device's memory; 1 run"]
    {
        assert!(ran.err.contains(said), "{said}: {}", ran.err);
    }
    assert!(deterministic_files(job.path()) == expected, "in turns");

    // A launch fails: the unit is tried again, and goes on.
    let job = Job::new(&format!("{kernels},fail=100"));
    let ran = job.run(&["--device", "cuda"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.err.contains("a failure on demand; it is tried again"), "{}", ran.err);
    assert!(deterministic_files(job.path()) == expected, "after a failure");
}

#[test]
fn a_device_that_fails_fails_the_run_alone_and_the_next_launch_tries_again() {
    let Some(kernels) = kernels() else { return };
    let mut job = Job::new(&format!("{kernels},memory=100"));
    let ran = job.run(&["--device", "cuda", "--json"]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    let report: Value = serde_json::from_str(&ran.out).expect("JSON");
    let failed: Vec<&Value> =
        report["runs"].as_array().expect("runs").iter().filter(|r| r["verdict"] == "failed").collect();
    assert_eq!(failed.len(), ON_DEVICE.len(), "{report}");
    let reason = failed[0]["reasons"][0].as_str().expect("a reason");
    assert!(reason.contains("no room for") && reason.contains("device's memory"), "{reason}");
    job.kernels = kernels;
    assert_eq!(job.run(&["--device", "cuda"]).code, 0);
    for sampler in ON_DEVICE {
        assert_eq!(job.runs_of(sampler).len(), 2, "{sampler}");
    }
}

#[test]
fn without_a_device_auto_is_the_cpu_and_cuda_an_error() {
    let root = tempfile::tempdir().expect("a directory");
    let experiment = root.path().join("device.yaml");
    std::fs::write(&experiment, EXPERIMENT).expect("writable");
    let run = |args: &[&str]| -> Ran {
        let mut command = job_of(root.path(), 0);
        command.arg(&experiment).args(args).current_dir(root.path()).env_remove("LAMBDA_HAT_HOST_KERNELS");
        // No device even where there is one.
        command.env("CUDA_VISIBLE_DEVICES", "").output().expect("the program starts").into()
    };
    let told = if cfg!(feature = "cuda") { "no NVIDIA driver or no device" } else { "feature `cuda`" };
    for args in [&["--device", "cuda"][..], &["--device", "cuda", "--dry-run"]] {
        let ran = run(args);
        assert_eq!(ran.code, 3, "{}", ran.err);
        assert!(ran.err.contains(told) && ran.err.contains("--device cpu"), "{}", ran.err);
    }
    let ran = run(&["--device", "auto", "--dry-run", "-v"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(ran.err.matches("computes on the CPU").count(), 1, "{}", ran.err);
    let ran = run(&["--device", "gpu", "--dry-run"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("none of auto, cpu and cuda"), "{}", ran.err);
    // The card of the machine says so, and the option wins.
    std::fs::create_dir(root.path().join("config")).expect("writable");
    std::fs::write(root.path().join("config/local.yaml"), "device: cuda\n").expect("writable");
    assert_eq!(run(&[]).code, 3);
    assert_eq!(run(&["--device", "cpu", "--dry-run"]).code, 0);
}

#[test]
fn ranks_whose_devices_differ_are_told_apart_before_anything_runs() {
    let Some(kernels) = kernels() else { return };
    let job = Job::new(&kernels);
    let program = support::program();
    let mut command = std::process::Command::new("mpirun");
    command.args(["-n", "1", "env", &format!("LAMBDA_HAT_HOST_KERNELS={kernels}")]);
    command.arg(&program).arg("device.yaml").args([":", "-n", "1"]).arg(&program).arg("device.yaml");
    // The variables that a job has, without that of the kernels.
    for (name, value) in job_of(job.path(), 2).get_envs() {
        value.into_iter().for_each(|value| {
            command.env(name, value);
        });
    }
    command.current_dir(job.path()).env_remove("LAMBDA_HAT_HOST_KERNELS").env("CUDA_VISIBLE_DEVICES", "");
    let ran: Ran = command.output().expect("mpirun is installed: scripts/bootstrap.sh").into();
    assert_eq!(ran.code, 3, "{}", ran.err);
    assert!(ran.err.contains("that of rank 1 on ") && ran.err.contains(" is none: ask for"), "{}", ran.err);
    assert!(!job.path().join("runs/targets").exists());
}
