//! Jobs on a real SLURM: a controller and a node that each test starts and ends
//! (`scripts/slurm-single-node.sh`). Where it cannot be had, a test says SKIPPED; with
//! `LAMBDA_HAT_NEEDS_SLURM=1` that is a failure.

mod support;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use support::{Ran, deterministic_files, directory_with, lambda_hat, program, repository};

/// Whatever a job does here, it does within this.
const PATIENCE: Duration = Duration::from_secs(80);

/// After this a node has forgotten a job that was queued again.
const FORGETTING: Duration = Duration::from_secs(4);

/// A SLURM of one node, and the directory of its jobs.
struct Slurm {
    dir: tempfile::TempDir,
    port: u16,
    started: Instant,
}

impl Slurm {
    /// Starts one, or says why not.
    fn start() -> Option<Self> {
        // Its sockets have short names: the system's own directory, whatever TMPDIR says.
        let dir = tempfile::Builder::new().prefix("lh").tempdir_in("/tmp").expect("a temporary directory");
        let slurm = Self { dir, port: free_ports(), started: Instant::now() };
        let ran = slurm.script(&["up", "8"]);
        if ran.code == 77 {
            assert!(std::env::var_os("LAMBDA_HAT_NEEDS_SLURM").is_none(), "{ran:?}");
            eprintln!("SKIPPED: {}", ran.err.trim());
            return None;
        }
        assert_eq!(ran.code, 0, "{ran:?}");
        Some(slurm)
    }

    fn script(&self, args: &[&str]) -> Ran {
        let mut command = Command::new(repository("scripts/slurm-single-node.sh"));
        command
            .args(args)
            .env("LAMBDA_HAT_SLURM_DIR", self.dir.path().join("slurm"))
            .env("LAMBDA_HAT_SLURM_PORT", self.port.to_string())
            .env("LAMBDA_HAT_SLURM_INSTALL", "no");
        command.output().expect("the script starts").into()
    }

    /// A command that sees this SLURM, in the directory of its jobs.
    fn command(&self, name: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Command {
        let mut command = Command::new(name);
        command
            .args(args)
            .current_dir(self.dir.path())
            .env("SLURM_CONF", self.dir.path().join("slurm/slurm.conf"))
            .env_remove("LAMBDA_HAT_HOME")
            .env_remove("LAMBDA_HAT_EXPERIMENT")
            // More ranks than cores.
            .env("OMPI_MCA_mpi_yield_when_idle", "1");
        command
    }

    fn run(&self, name: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Ran {
        self.command(name, args).output().expect("the command starts").into()
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).expect("writable");
        path
    }

    /// `slurm submit` with `args`, in place of the program, if `fake`, the shell script `fake`.
    fn submit(&self, args: &[&str], fake: Option<&str>) -> String {
        let args: Vec<&str> = ["slurm", "submit"].into_iter().chain(args.iter().copied()).collect();
        let mut command = self.command(program(), &args);
        if let Some(text) = fake {
            use std::os::unix::fs::PermissionsExt as _;
            let path = self.write("fake.sh", &format!("#!/bin/bash\n{text}"));
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
            command.env("LAMBDA_HAT_PROGRAM", path);
        }
        let ran: Ran = command.output().expect("the program starts").into();
        assert_eq!(ran.code, 0, "{ran:?}");
        let id = ran.out.trim_end();
        assert!(!id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()), "the id alone: {ran:?}");
        id.to_owned()
    }

    /// One field of `scontrol show job`.
    fn field(&self, job: &str, name: &str) -> String {
        let ran = self.run("scontrol", &["show", "job", job]);
        let mut fields = ran.out.split_whitespace().filter_map(|f| f.split_once('='));
        fields.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).unwrap_or_default()
    }

    /// Waits until a job is in one of `states`. One that is queued again need not wait its two minutes, but the
    /// node has to have forgotten its first life, or it answers "already killed, do not launch".
    fn wait_for(&self, job: &str, states: &[&str]) -> String {
        let start = Instant::now();
        let mut queued = None;
        loop {
            let state = self.field(job, "JobState");
            if states.contains(&state.as_str()) {
                return state;
            }
            if state != "PENDING" {
                queued = None;
            } else if queued.get_or_insert_with(Instant::now).elapsed() > FORGETTING {
                self.run("scontrol", &["update", &format!("jobid={job}"), "StartTime=now"]);
            }
            assert!(start.elapsed() < PATIENCE, "job {job} is {state}; it said\n{}", self.said(job));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until a job has said `words`.
    fn hear(&self, job: &str, words: &str) {
        let start = Instant::now();
        while !self.said(job).contains(words) {
            assert!(start.elapsed() < PATIENCE, "no {words:?} in\n{}", self.said(job));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn said(&self, job: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(format!("slurm-{job}.out"))).unwrap_or_default()
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        self.script(&["down"]);
    }
}

/// Two ports in a row that nobody listens on.
fn free_ports() -> u16 {
    loop {
        let first = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = first.local_addr().expect("its number").port();
        if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return port;
        }
    }
}

const CARD: &str = "{ ntasks_per_node: 4, walltime: 10 }";

fn tiny() -> String {
    repository("tests/data/sweep/tiny.yaml").to_string_lossy().into_owned()
}

fn bits_of_one_process(file: &str) -> std::collections::BTreeMap<String, String> {
    let root = tempfile::tempdir().expect("a temporary directory");
    let ran = lambda_hat(root.path(), &[file, "-q"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    deterministic_files(root.path())
}

#[test]
fn srun_of_four_ranks_gives_the_bits_of_one_process() {
    let Some(slurm) = Slurm::start() else { return };
    if cfg!(not(feature = "mpi")) {
        eprintln!("SKIPPED: built without MPI");
        return;
    }
    let (file, program) = (tiny(), program());
    let root = slurm.dir.path().join("root");
    std::fs::create_dir(&root).expect("writable");
    let (program, root_arg) = (program.display().to_string(), root.display().to_string());
    let ran = slurm.run("srun", &["-n", "4", "--mpi=pmix", &program, &file, "--root", &root_arg, "-v"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    for rank in 0..4 {
        let words = format!("node-local rank {rank}: cpu, cpu-");
        assert!(ran.err.contains(&words), "{words} in {}", ran.err);
    }
    assert_eq!(deterministic_files(&root), bits_of_one_process(&file));
    let manifest = std::fs::read(directory_with(&root, "run_hmc").join("manifest.json")).expect("written");
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
    assert_eq!(manifest["provenance"]["ranks"].as_array().map(Vec::len), Some(4));
}

/// The walltime's signal reaches the ranks; their 75 queues the job again; the second start ends it. The
/// program is a stand-in that does what is asked of the real one: stop on USR1, and return 75.
#[test]
fn a_job_that_meets_its_walltime_queues_itself_again_and_ends() {
    let Some(slurm) = Slurm::start() else { return };
    let fake = r#"
echo "rank $SLURM_PROCID start ${SLURM_RESTART_COUNT:-0} ends $SLURM_JOB_END_TIME"
if [ "${SLURM_RESTART_COUNT:-0}" = 1 ]; then
  [ "$SLURM_PROCID" != 0 ] || printf 'argument <%s>\n' "$@"
  exit 0
fi
trap 'echo "rank $SLURM_PROCID hears"; [ "$SLURM_PROCID" = 0 ] && exit 75; exit 0' USR1
while :; do sleep 0.05; done
"#;
    std::fs::create_dir(slurm.dir.path().join("a dir")).expect("writable");
    std::fs::copy(tiny(), slurm.dir.path().join("a dir/tiny.yaml")).expect("copied");
    slurm.write("card.yaml", CARD);
    let args = ["--card", "card.yaml", "a dir/tiny.yaml", "--set", "walltime=1", "--set", "signal_lead=50"];
    let job = slurm.submit(&args, Some(fake));
    assert_eq!(slurm.wait_for(&job, &["COMPLETED", "FAILED", "TIMEOUT", "CANCELLED"]), "COMPLETED");
    let said = slurm.said(&job);
    assert_eq!(slurm.field(&job, "Restarts"), "1", "{said}");
    for rank in 0..4 {
        for words in ["start 0 ends 1", "hears", "start 1 ends 1"] {
            assert!(said.contains(&format!("rank {rank} {words}")), "{rank} {words} in {said}");
        }
    }
    assert!(said.contains("queues itself again, requeue 1"), "{said}");
    let file = slurm.dir.path().join("a dir/tiny.yaml").display().to_string();
    assert!(said.contains(&format!("argument <run>\nargument <{file}>\nargument <--root>")), "{said}");
}

#[test]
fn other_ends_of_a_job_are_left_as_they_are() {
    let Some(slurm) = Slurm::start() else { return };
    slurm.write("card.yaml", CARD);
    let args = ["--card", "card.yaml", &tiny()];
    let until_told = r#"
trap '[ "$SLURM_PROCID" = 0 ] && exit 75; exit 0' USR1 TERM
echo "rank $SLURM_PROCID waits"
while :; do sleep 0.05; done
"#;

    // A failure is a failure, with its code.
    let job = slurm.submit(&args, Some("[ $SLURM_PROCID = 0 ] && exit 3; exit 0\n"));
    assert_eq!(slurm.wait_for(&job, &["FAILED", "COMPLETED"]), "FAILED");
    assert_eq!(slurm.field(&job, "ExitCode"), "3:0");

    // What is cancelled stays cancelled, though its ranks return 75.
    let job = slurm.submit(&args, Some(until_told));
    slurm.hear(&job, "rank 3 waits");
    slurm.run("scancel", &[&job]);
    slurm.hear(&job, "cancelled or preempted; what is done is kept");
    assert_eq!(slurm.wait_for(&job, &["CANCELLED"]), "CANCELLED");
    assert_eq!(slurm.field(&job, "Restarts"), "0");

    // A signal that reaches the batch shell alone is passed on to the ranks. Without requeue, 75 is the end.
    let no_requeue = [&args[..], &["--set", "requeue=false"]].concat();
    let job = slurm.submit(&no_requeue, Some(until_told));
    slurm.hear(&job, "rank 3 waits");
    slurm.run("scancel", &["--batch", "--signal=USR1", &job]);
    assert_eq!(slurm.wait_for(&job, &["FAILED", "COMPLETED"]), "FAILED");
    assert_eq!(slurm.field(&job, "ExitCode"), "75:0");
    assert!(slurm.said(&job).contains("submit it again to do the rest"), "{}", slurm.said(&job));

    // A job that gets nowhere ends.
    let once = [&args[..], &["--set", "max_requeues=1"]].concat();
    let job = slurm.submit(&once, Some("[ $SLURM_PROCID = 0 ] && exit 75; exit 0\n"));
    assert_eq!(slurm.wait_for(&job, &["FAILED", "COMPLETED"]), "FAILED");
    let ended = (slurm.field(&job, "Restarts"), slurm.field(&job, "ExitCode"));
    assert_eq!(ended, ("1".into(), "75:0".into()), "{}", slurm.said(&job));
    assert!(slurm.said(&job).contains("once more after 1 requeues"), "{}", slurm.said(&job));
}

/// Sbatch reads a card's values as they were written.
#[test]
fn sbatch_reads_values_as_they_are_in_the_card() {
    let Some(slurm) = Slurm::start() else { return };
    let odd = r#"a "b" \c $(touch pwned) 'd' # e"#;
    let card = serde_json::json!({
        "walltime": "1-02:03:00", "nodes": 1, "cpus_per_task": 2, "mem": "10M",
        "scheduler_options": ["--hold", format!("--comment={odd}")],
    });
    slurm.write("card.yaml", &card.to_string());
    let job = slurm.submit(&["--card", "card.yaml", &tiny(), "--experiment", "dev"], None);
    let shown = slurm.run("scontrol", &["show", "job", &job]).out;
    for field in
        ["JobName=dev", "TimeLimit=1-02:03:00", "CPUs/Task=2", "Requeue=1", &format!("Comment={odd}")]
    {
        assert!(shown.contains(field), "{field} in {shown}");
    }
    slurm.run("scancel", &[&job]);
    // Sbatch's own refusal is passed on.
    slurm.write("nowhere.yaml", "{ walltime: 10, partition: nowhere }");
    let ran = slurm.run(program(), &["slurm", "submit", "--card", "nowhere.yaml", &tiny()]);
    assert_eq!((ran.code, ran.out.as_str()), (3, ""), "{ran:?}");
    assert!(ran.err.contains("sbatch refused the job") && ran.err.contains("partition"), "{}", ran.err);
    assert!(!Path::new(&slurm.dir.path().join("pwned")).exists());
}

/// The promise itself: a sweep that is longer than its walltime is interrupted, queued again, and ends with the
/// bits of a sweep that nobody interrupted.
#[test]
fn a_sweep_longer_than_its_walltime_ends_with_the_same_bits() {
    let Some(slurm) = Slurm::start() else { return };
    if cfg!(not(feature = "mpi")) {
        eprintln!("SKIPPED: built without MPI");
        return;
    }
    let file = repository("tests/data/sweep/walltime.yaml").display().to_string();
    let alone = std::thread::spawn({
        let file = file.clone();
        move || bits_of_one_process(&file)
    });
    // SLURM looks at time limits every 30 s from its start on: the first look shall find the job at work.
    while slurm.started.elapsed() < Duration::from_secs(24) {
        std::thread::sleep(Duration::from_millis(100));
    }
    slurm.write("card.yaml", "{ ntasks_per_node: 4, walltime: 1, signal_lead: 50 }");
    let root = slurm.dir.path().join("root").display().to_string();
    let job = slurm.submit(&["--card", "card.yaml", &file, "--root", &root], None);
    let state = slurm.wait_for(&job, &["COMPLETED", "FAILED", "TIMEOUT", "CANCELLED"]);
    assert_eq!(state, "COMPLETED", "{}", slurm.said(&job));
    assert_ne!(slurm.field(&job, "Restarts"), "0", "{}", slurm.said(&job));
    assert!(slurm.said(&job).contains("queues itself again, requeue 1"), "{}", slurm.said(&job));
    let expected = alone.join().expect("the sweep of one process ends");
    assert_eq!(deterministic_files(Path::new(&root)), expected);
}
