//! Running the program as a user does.

use std::borrow::BorrowMut;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The program under test.
pub fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_lambda-hat-mpi"))
}

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// What a command printed and returned.
#[allow(dead_code)]
#[derive(Debug)]
pub struct Ran {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl From<Output> for Ran {
    fn from(o: Output) -> Self {
        Self {
            code: o.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&o.stdout).into_owned(),
            err: String::from_utf8_lossy(&o.stderr).into_owned(),
        }
    }
}

/// Runs the program with `args`, its store under `root`.
pub fn lambda_hat(root: &Path, args: &[&str]) -> Ran {
    let mut command = Command::new(program());
    command.args(args).env("LAMBDA_HAT_HOME", root).env_remove("LAMBDA_HAT_EXPERIMENT");
    command.output().expect("the program starts").into()
}

/// The program's command: alone, or under `mpirun` with so many ranks on however many cores there are.
#[allow(dead_code)]
pub fn job_of(root: &Path, ranks: usize) -> Command {
    let mut command = if ranks == 0 { Command::new(program()) } else { Command::new("mpirun") };
    if ranks > 0 {
        command.args(["-n", &ranks.to_string()]).arg(program());
    }
    command
        .env("LAMBDA_HAT_HOME", root)
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        .env("OMPI_MCA_rmaps_base_oversubscribe", "1")
        .env("OMPI_MCA_mpi_yield_when_idle", "1")
        .env("OMPI_MCA_plm_rsh_agent", "/bin/false");
    command
}

/// Runs it under `mpirun` with `args`.
#[allow(dead_code)]
pub fn under_mpirun(root: &Path, ranks: usize, args: &[&str]) -> Ran {
    run_to_end(job_of(root, ranks).args(args))
}

/// Runs a job to its end.
#[allow(dead_code)]
pub fn run_to_end(mut command: impl BorrowMut<Command>) -> Ran {
    let command = command.borrow_mut().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    ended(command.spawn().expect("it starts; what is needed: scripts/bootstrap.sh"))
}

/// What a job whose output is piped came to.
#[allow(dead_code)]
pub fn ended(mut child: Child) -> Ran {
    fn read(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(mut pipe) = pipe {
                pipe.read_to_end(&mut text).expect("a pipe");
            }
            text
        })
    }
    let (out, err) = (read(child.stdout.take()), read(child.stderr.take()));
    let status = end_of(&mut child);
    let [stdout, stderr] = [out, err].map(|thread| thread.join().expect("read"));
    Output { status, stdout, stderr }.into()
}

/// Waits for a job. After the death of a rank `mpirun` of some versions (PMIx 4.2.2) can wait without end for a lock of
/// its own: one that has no rank left for ten seconds is killed, and that is said.
#[allow(dead_code)]
pub fn end_of(child: &mut Child) -> ExitStatus {
    let mut with_ranks = Instant::now();
    let mut looked = with_ranks;
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return status;
        }
        std::thread::sleep(Duration::from_millis(5));
        if looked.elapsed() < Duration::from_secs(1) {
            continue;
        }
        looked = Instant::now();
        if !ranks_below(child.id()).is_empty() {
            with_ranks = looked;
        } else if with_ranks.elapsed() > Duration::from_secs(10) {
            eprintln!("mpirun (process {}) has no rank left and does not end: it is killed", child.id());
            let _ = child.kill();
        }
    }
}

/// Every file below `root/runs` whose content may not depend on clock, host or launch, with its hash.
#[allow(dead_code)]
pub fn deterministic_files(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.join("runs")];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).expect("a directory").flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() {
                open.push(path);
            } else if ["data.npz", "params.npz", "trace.nc", "analysis.json"].contains(&name.as_str()) {
                let hash = blake3::hash(&std::fs::read(&path).expect("a readable file"));
                let short = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
                found.insert(short, hash.to_string());
            }
        }
    }
    found
}

/// The number of units that a sweep says it executed.
#[allow(dead_code)]
pub fn executed(ran: &Ran) -> usize {
    let report: serde_json::Value = serde_json::from_str(&ran.out).expect("--json prints JSON");
    report["executed_units"].as_u64().expect("a number of units") as usize
}

/// The only directory below `root/runs/targets` and below it that holds `name` and fits `part`.
#[allow(dead_code)]
pub fn directory_with(root: &Path, part: &str) -> PathBuf {
    let mut open = vec![root.join("runs/targets")];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).expect("a directory").flatten() {
            let path = entry.path();
            if path.is_dir() {
                if entry.file_name().to_string_lossy().contains(part) {
                    return path;
                }
                open.push(path);
            }
        }
    }
    panic!("no directory with {part} below {}", root.display());
}

/// Processes that are `parent` or its children and run the program.
#[allow(dead_code)]
pub fn ranks_below(parent: u32) -> Vec<u32> {
    let program = program().canonicalize().expect("the program");
    let exe = |pid: u32| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    let parent_of = |pid: u32| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok())
        .filter(|&pid| exe(pid).as_ref() == Some(&program))
        .filter(|&pid| pid == parent || parent_of(pid) == Some(parent))
        .collect()
}
