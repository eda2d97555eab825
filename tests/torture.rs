//! Jobs that are killed anywhere and go on: the results are the bits of a job that was never touched, and
//! what was finished is not done again.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use support::{
    deterministic_files, end_of, executed, job_of, lambda_hat, program, ranks_below, repository, run_to_end,
};

fn config() -> String {
    repository("tests/data/sweep/torture.yaml").to_string_lossy().into_owned()
}

fn temp() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// Units of the whole sweep, and the files that an undisturbed one leaves.
fn undisturbed() -> &'static (usize, BTreeMap<String, String>) {
    static FILES: OnceLock<(usize, BTreeMap<String, String>)> = OnceLock::new();
    FILES.get_or_init(|| {
        let root = temp();
        let ran = lambda_hat(root.path(), &[&config(), "--json", "-q"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(!root.path().join("store/checkpoints").exists() || kept(root.path()).is_empty());
        (executed(&ran), deterministic_files(root.path()))
    })
}

/// A job of `ranks` ranks that saves its work all the time, and dies as `fault` says.
fn job(root: &Path, ranks: usize, fault: &str) -> Command {
    let mut command = job_of(root, if ranks == 1 { 0 } else { ranks });
    command
        .args([&config(), "--json", "-q", "--checkpoint-every", "0.02"])
        .env("OMPI_MCA_orte_abort_print_stack", "0")
        .env("LAMBDA_HAT_FAULT", fault);
    command
}

/// Names of the files of finished units of unfinished runs, by the id of the run.
fn kept(root: &Path) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    for owner in std::fs::read_dir(root.join("store/checkpoints")).into_iter().flatten().flatten() {
        let files = std::fs::read_dir(owner.path()).into_iter().flatten().flatten();
        let names = files.map(|f| f.file_name().to_string_lossy().into_owned());
        let done: Vec<String> = names.filter(|name| name.ends_with(".done")).collect();
        if !done.is_empty() {
            found.insert(owner.file_name().to_string_lossy().into_owned(), done);
        }
    }
    found
}

/// A file is called by its first unit and the number of the others: `chain-0_and_3.done`.
fn units_in(name: &str) -> usize {
    let more =
        name.trim_end_matches(".done").split_once("_and_").and_then(|(_, more)| more.parse::<usize>().ok());
    1 + more.unwrap_or(0)
}

/// Units whose products are on disk.
fn finished(root: &Path) -> usize {
    let plan = lambda_hat(root, &[&config(), "--dry-run", "--json"]);
    let plan: serde_json::Value = serde_json::from_str(&plan.out).expect("a plan");
    let kept = kept(root);
    let done = |kind: &str, id: &str| root.join(format!("store/refs/{kind}/{id}.json")).exists();
    let mut units = 0;
    for row in plan["plan"].as_array().expect("rows") {
        units += match row["run_id"].as_str() {
            None => usize::from(done("target", row["target_id"].as_str().expect("an id"))),
            Some(id) if done("run", id) => row["units"].as_u64().expect("units") as usize,
            Some(id) => kept.get(id).into_iter().flatten().map(|name| units_in(name)).sum(),
        };
    }
    units
}

/// Finishes what a killed job has left, and checks that nothing was lost or done twice.
fn goes_on(root: &Path, ranks: usize, told: &str) {
    let (units, expected) = undisturbed();
    let before = finished(root);
    let ran = run_to_end(job(root, ranks, ""));
    assert_eq!(ran.code, 0, "{told}: {ran:?}");
    assert_eq!(executed(&ran), units - before, "{told}: {before} of {units} units were finished");
    assert_eq!(&deterministic_files(root), expected, "{told}");
    let verified = lambda_hat(root, &["artifacts", "verify"]);
    assert_eq!(verified.code, 0, "{told}: {verified:?}");
    assert!(kept(root).is_empty(), "{told}: parts of finished runs are left");
}

/// Kills a job at `fault`, several times where `again` is more than 0, and lets it finish.
fn dies_and_goes_on(ranks: usize, fault: &str, again: usize) {
    let root = temp();
    for _ in 0..=again {
        let ran = run_to_end(job(root.path(), ranks, fault));
        if ran.code == 0 {
            // It was over before it came to that.
            break;
        }
    }
    goes_on(root.path(), ranks, fault);
}

#[test]
fn a_job_killed_at_the_nth_write_goes_on_with_the_same_bits() {
    for (ranks, fault) in
        [(1, "write:1"), (2, "write:4"), (1, "write:9"), (1, "write:16"), (2, "write:27"), (1, "write:60")]
    {
        dies_and_goes_on(ranks, fault, usize::from(fault == "write:16"));
    }
}

#[test]
fn a_job_killed_at_the_nth_message_goes_on_with_the_same_bits() {
    if !cfg!(feature = "mpi") {
        eprintln!("built without the feature mpi: there are no messages to be killed at");
        return;
    }
    for fault in ["message:1", "message:3", "message:6", "message:11", "message:20", "message:37"] {
        dies_and_goes_on(2, fault, 0);
    }
}

fn kill(pid: u32) {
    let _ = Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
}

/// A small generator for instants and victims; the seed is printed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Waits for the end of a job, or until `until`, when one or all of its ranks are killed. Whether it was.
fn killed(mut child: Child, until: Instant, dice: &mut Dice) -> bool {
    while Instant::now() < until {
        if child.try_wait().expect("a child").is_some() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let victims = ranks_below(child.id());
    match victims.len() {
        0 => kill(child.id()),
        n if dice.roll(2) == 0 => kill(victims[dice.roll(n as u64) as usize]),
        _ => victims.iter().for_each(|&pid| kill(pid)),
    }
    // mpirun ends what is left; a single process is gone.
    end_of(&mut child);
    for pid in victims {
        while Path::new(&format!("/proc/{pid}")).exists() && exists_as_program(pid) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    true
}

fn exists_as_program(pid: u32) -> bool {
    let exe: Option<PathBuf> = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    exe == program().canonicalize().ok()
}

#[test]
#[ignore = "minutes: `make torture`, N=200 instants unless told otherwise"]
fn a_job_killed_at_any_instant_goes_on_with_the_same_bits() {
    let wanted: usize = std::env::var("LAMBDA_HAT_TORTURE").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    let seed = std::env::var("LAMBDA_HAT_TORTURE_SEED").ok().and_then(|n| n.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |d| d.as_secs())
    });
    eprintln!("seed {seed}: LAMBDA_HAT_TORTURE_SEED={seed} kills at the same instants");
    let mut dice = Dice(seed);
    let mut kills = 0;
    let mut jobs = 0;
    while kills < wanted {
        let root = temp();
        let ranks = 1 + dice.roll(3) as usize;
        let most = 1 + dice.roll(6);
        for _ in 0..most {
            let mut command = job(root.path(), ranks, "");
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let until = Instant::now() + Duration::from_millis(50 + dice.roll(2500));
            if !killed(command.spawn().expect("starts"), until, &mut dice) {
                break;
            }
            kills += 1;
        }
        jobs += 1;
        goes_on(root.path(), ranks, &format!("seed {seed}, job {jobs}, {ranks} ranks"));
    }
    eprintln!("{kills} kills in {jobs} jobs: every one went on with the same bits");
}
