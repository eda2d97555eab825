//! The store as users and disks mistreat it, through the program.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use support::{Ran, deterministic_files, executed, lambda_hat, program, repository};

fn tiny() -> String {
    repository("tests/data/sweep/tiny.yaml").to_string_lossy().into_owned()
}

fn sweep(root: &Path, more: &[&str]) -> Ran {
    let file = tiny();
    let args: Vec<&str> =
        [file.as_str(), "--json", "-q", "--workers", "2"].into_iter().chain(more.iter().copied()).collect();
    lambda_hat(root, &args)
}

/// A sweep that runs while the test goes on; it is killed if the test fails.
struct Running(Option<Child>);

impl Running {
    fn start(root: &Path, more: &[&str]) -> Self {
        let child = Command::new(program())
            .args([tiny().as_str(), "--json", "-q", "--workers", "1"])
            .args(more)
            .env("LAMBDA_HAT_HOME", root)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        Self(Some(child.expect("the program starts")))
    }

    fn child(&mut self) -> &mut Child {
        self.0.as_mut().expect("not ended yet")
    }

    fn runs(&mut self) -> bool {
        self.child().try_wait().expect("a child").is_none()
    }

    fn end(mut self) -> Ran {
        self.0.take().expect("not ended yet").wait_with_output().expect("it ends").into()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

fn temp() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn json(ran: &Ran) -> serde_json::Value {
    serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {ran:?}"))
}

fn object(root: &Path, hash: &str) -> PathBuf {
    root.join("store/objects/blake3").join(&hash[..2]).join(&hash[2..])
}

/// Puts other bytes in a file's place, as a bad disk does.
fn spoil(path: &Path) {
    std::fs::remove_file(path).expect("removable");
    std::fs::write(path, "spoiled").expect("writable");
}

/// Kind, file and content of every record.
fn records(root: &Path) -> Vec<(String, PathBuf, serde_json::Value)> {
    let mut found = Vec::new();
    for kind in ["target", "run"] {
        for entry in std::fs::read_dir(root.join("store/refs").join(kind)).expect("records").flatten() {
            let text = std::fs::read(entry.path()).expect("a record");
            let value: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
            found.push((kind.to_owned(), entry.path(), value["ref"].clone()));
        }
    }
    found.sort_by(|a, b| a.1.cmp(&b.1));
    found
}

fn hash_of<'a>(record: &'a serde_json::Value, name: &str) -> &'a str {
    record["objects"][name].as_str().unwrap_or_else(|| panic!("{name} in {record}"))
}

#[test]
fn a_repair_and_a_launch_make_everything_sound_again() {
    let root = temp();
    let root = root.path();
    assert_eq!(sweep(root, &[]).code, 0);
    let before = deterministic_files(root);
    let catalog = std::fs::read(root.join("runs/targets/_catalog.jsonl")).expect("a catalogue");
    let clean = lambda_hat(root, &["artifacts", "verify", "--repair"]);
    assert_eq!(clean.code, 0, "{clean:?}");
    assert!(clean.out.contains("the store is sound") && !clean.out.contains("laid out"), "{clean:?}");

    let records = records(root);
    let of = |kind: &str, i: usize| &records.iter().filter(|r| r.0 == kind).nth(i).expect("a record").2;
    // Lost with no copy; lost with a copy; a record; copies, one edited and one removed; listings.
    spoil(&object(root, hash_of(of("run", 0), "state.bin")));
    spoil(&object(root, hash_of(of("run", 1), "trace.nc")));
    std::fs::remove_file(object(root, hash_of(of("target", 0), "data.npz"))).expect("removable");
    let bad = records.iter().filter(|r| r.0 == "run").nth(2).expect("a third run");
    spoil(&bad.1);
    let dir = |record: &serde_json::Value| root.join(record["dir"].as_str().expect("a directory"));
    spoil(&dir(of("run", 3)).join("analysis.json"));
    std::fs::remove_file(dir(of("run", 3)).join("trace.nc")).expect("removable");
    spoil(&root.join("runs/targets/_catalog.jsonl"));
    std::fs::write(root.join("store/refs/run/.tmp-1-1-x"), "half").expect("writable");

    let verify = lambda_hat(root, &["artifacts", "verify"]);
    assert_eq!(verify.code, 3, "{verify:?}");
    assert!(
        verify.out.contains("verify --repair") && verify.out.contains("run the sweep again"),
        "{verify:?}"
    );
    let repair = lambda_hat(root, &["artifacts", "verify", "--repair"]);
    assert_eq!(repair.code, 0, "{repair:?}");
    for words in ["healed: object", "marked to be made again: urn:lh:run:", "laid out again: runs/targets/"] {
        assert!(repair.out.contains(words), "{words}: {repair:?}");
    }
    assert!(
        repair.out.contains("removed: 1 half-written files") && repair.out.contains("run the sweep again"),
        "{repair:?}"
    );
    assert_eq!(std::fs::read(root.join("runs/targets/_catalog.jsonl")).expect("a catalogue"), catalog);
    let pending = lambda_hat(root, &["artifacts", "verify"]);
    assert_eq!(pending.code, 0, "{pending:?}");
    assert!(pending.out.contains("to be made again: urn:lh:run:"), "{pending:?}");
    let listed = lambda_hat(root, &["artifacts", "ls"]);
    // A note, broken between words.
    let said: Vec<&str> = listed.out.split_whitespace().collect();
    assert!(said.join(" ").contains("damaged or lost"), "{listed:?}");

    // Two runs of at most 3 chains, a warmup and a control chain each.
    let again = sweep(root, &[]);
    assert_eq!(again.code, 0, "{again:?}");
    assert!((6..=10).contains(&executed(&again)), "{again:?}");
    assert_eq!(deterministic_files(root), before);
    let verify = lambda_hat(root, &["artifacts", "verify", "--json"]);
    assert_eq!((verify.code, &json(&verify)["pending"]), (0, &serde_json::json!([])), "{verify:?}");
    let clean = lambda_hat(root, &["artifacts", "verify", "--repair"]);
    assert!(clean.out.contains("the store is sound") && !clean.out.contains("laid out"), "{clean:?}");
    assert_eq!(executed(&sweep(root, &[])), 0);
}

#[test]
fn what_is_made_again_after_a_repair_must_be_what_was_recorded() {
    let root = temp();
    let root = root.path();
    let file = root.join("one.yaml");
    let text = "targets: [{ problem: quadratic, eigenvalues: [1, 2], n_data: 10 }]\n\
                samplers: [{ name: hmc, overrides: { draws: 10, warmup: 0, chains: 1 } }]\n";
    std::fs::write(&file, text).expect("writable");
    let file = file.to_string_lossy().into_owned();
    assert_eq!(lambda_hat(root, &[&file]).code, 0);
    // As if another version had made it: the record names another trace than this one makes.
    let (_, path, mut record) = records(root).into_iter().find(|r| r.0 == "run").expect("a run");
    record["objects"]["trace.nc"] = serde_json::json!("ab".repeat(32));
    let rest = format!("\",\n\"format\":1,\n\"ref\":{record}}}\n");
    let hash = blake3::hash(rest.as_bytes());
    std::fs::write(&path, format!("{{\"blake3\":\"{hash}{rest}")).expect("writable");
    let repair = lambda_hat(root, &["artifacts", "verify", "--repair"]);
    assert_eq!(repair.code, 0, "{repair:?}");
    assert!(repair.out.contains("marked to be made again"), "{repair:?}");
    let again = lambda_hat(root, &[&file]);
    assert_eq!(again.code, 1, "{again:?}");
    assert!(again.out.contains("other content than recorded"), "{again:?}");
}

#[test]
fn collecting_in_a_loop_beside_sweeps_takes_nothing_from_them() {
    let reference = temp();
    assert_eq!(sweep(reference.path(), &[]).code, 0);
    let expected = deterministic_files(reference.path());

    let root = temp();
    let root = root.path();
    let gc = |more: &[&str]| {
        let ran = lambda_hat(root, &[&["artifacts", "gc", "--json", "--ttl-days", "0"], more].concat());
        assert_eq!(ran.code, 0, "{ran:?}");
        json(&ran)
    };
    let (mut beside, mut objects) = (0, 0);
    // The second sweep finds objects of runs that were removed; the third one everything.
    for round in 0..3 {
        let mut running = Running::start(root, &[]);
        while !root.join("store/refs").is_dir() && running.runs() {
            std::thread::yield_now();
        }
        while running.runs() {
            let report = gc(&[]);
            beside += usize::from(report["beside"] != serde_json::json!([]));
            objects += report["objects"]["files"].as_u64().expect("a number");
        }
        let ran = running.end();
        assert_eq!(ran.code, 0, "round {round}: {ran:?}");
        assert_eq!(deterministic_files(root), expected, "round {round}");
        let verify = lambda_hat(root, &["artifacts", "verify"]);
        assert_eq!(verify.code, 0, "round {round}: {verify:?}");
        if round == 0 {
            for (_, path, _) in records(root).iter().filter(|r| r.0 == "run") {
                std::fs::remove_file(path).expect("removable");
            }
        }
    }
    assert!(beside >= 3, "gc ran beside a sweep {beside} times only");
    assert_eq!(executed(&sweep(root, &[])), 0);
    eprintln!("gc ran beside sweeps {beside} times and removed {objects} objects, none of them needed");

    // What it is for: an old orphan goes, a young one stays for its time to live.
    let orphan = object(root, blake3::hash(b"orphan").to_hex().as_str());
    std::fs::create_dir_all(orphan.parent().expect("a parent")).expect("writable");
    std::fs::write(&orphan, b"orphan").expect("writable");
    assert_eq!(json(&lambda_hat(root, &["artifacts", "gc", "--json"]))["kept"]["files"], 1);
    let old = SystemTime::now() - Duration::from_secs(8 * 86400);
    std::fs::File::open(&orphan).expect("readable").set_modified(old).expect("owned");
    let dry = lambda_hat(root, &["artifacts", "gc", "--dry-run"]);
    assert!(dry.out.contains("would remove: 1 objects") && dry.out.contains("6 bytes"), "{dry:?}");
    assert!(orphan.exists());
    let done = lambda_hat(root, &["artifacts", "gc"]);
    assert!(done.out.contains("removed: 1 objects that nothing names (6 bytes)"), "{done:?}");
    assert!(!orphan.exists());
}

#[test]
fn a_second_job_on_the_same_sweep_is_told_of_the_first() {
    let root = temp();
    let root = root.path();
    // Long enough never to end before the test does.
    let long =
        ["--set", "samplers.sgld.overrides.steps=400000000", "--set", "samplers.hmc.overrides.draws=300"];
    let mut first = Running::start(root, &long);
    let pid = first.child().id();
    let locks = || std::fs::read_dir(root.join("store/locks")).map_or(0, Iterator::count);
    while locks() < 4 {
        assert!(first.runs(), "{:?}", first.end());
        std::thread::yield_now();
    }
    let second = sweep(root, &long);
    assert_eq!(second.code, 3, "{second:?}");
    for words in [&*format!("in use by process {pid} on "), "(last sign of life ", " s ago)", "wait until"] {
        assert!(second.err.contains(words), "{words}: {second:?}");
    }
    for alone in [&["artifacts", "verify", "--repair"][..], &["artifacts", "rm", "run_hmc"]] {
        let refused = lambda_hat(root, alone);
        assert_eq!(refused.code, 3, "{refused:?}");
        assert!(refused.err.contains(&format!("in use by process {pid} on ")), "{refused:?}");
    }
    // Killed, it holds nothing any more.
    drop(first);
    let third = sweep(root, &["--set", "samplers.hmc.overrides.draws=300"]);
    assert_eq!(third.code, 0, "{third:?}");
    let repair = lambda_hat(root, &["artifacts", "verify", "--repair"]);
    assert_eq!(repair.code, 0, "{repair:?}");
}

/// A file system of its own, unmounted afterwards.
struct Mount(tempfile::TempDir);

impl Mount {
    /// `None` where this user may not mount.
    fn new(bytes: u64) -> Option<Self> {
        let dir = temp();
        let options = format!("size={bytes}");
        let args = ["-t", "tmpfs", "-o", &options, "tmpfs"];
        let ran = Command::new("mount").args(args).arg(dir.path()).output();
        ran.is_ok_and(|ran| ran.status.success()).then(|| Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let ran = Command::new("mount").args(["-o", &options]).arg(self.path()).output().expect("mount");
        assert!(ran.status.success(), "{ran:?}");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(self.0.path()).output().ok();
    }
}

/// Bytes that a directory takes on a tmpfs.
fn pages(dir: &Path) -> u64 {
    let size = |entry: std::fs::DirEntry| match entry.path().is_dir() {
        true => pages(&entry.path()),
        false => entry.metadata().map_or(0, |m| m.len().div_ceil(4096) * 4096),
    };
    std::fs::read_dir(dir).expect("a directory").flatten().map(size).sum()
}

#[test]
fn a_full_disk_ends_the_sweep_with_advice_and_loses_nothing() {
    let reference = temp();
    assert_eq!(sweep(reference.path(), &[]).code, 0);
    let expected = deterministic_files(reference.path());
    let whole = pages(reference.path());
    let mut kept = BTreeMap::new();
    for percent in [10, 40, 70, 95] {
        let Some(disk) = Mount::new(whole * percent / 100) else {
            eprintln!("SKIPPED: only root may mount the small disk that this test fills");
            return;
        };
        let root = disk.path();
        let full = sweep(root, &[]);
        assert_eq!(full.code, 3, "{percent} %: {full:?}");
        for words in ["No space left", "free on that disk", "artifacts gc", "the same command goes on"] {
            assert!(full.err.contains(words), "{percent} %, {words}: {full:?}");
        }
        assert!(!full.err.contains("panicked"), "{full:?}");
        disk.remount("size=100%");
        let verify = lambda_hat(root, &["artifacts", "verify"]);
        assert_eq!(verify.code, 0, "{percent} %: {verify:?}");
        for (path, hash) in deterministic_files(root) {
            assert_eq!(expected.get(&path), Some(&hash), "{percent} %: {path}");
        }
        let again = sweep(root, &[]);
        assert_eq!(again.code, 0, "{percent} %: {again:?}");
        assert_eq!(deterministic_files(root), expected, "{percent} %");
        kept.insert(percent, executed(&again));
    }
    assert!(kept[&95] < kept[&10], "what was finished is not done again: {kept:?}");
}

#[test]
fn a_root_that_cannot_be_written_ends_the_sweep_with_advice() {
    if let Some(disk) = Mount::new(64 << 20) {
        // Empty, and with a finished sweep in it.
        disk.remount("ro");
        let refused = sweep(disk.path(), &[]);
        disk.remount("rw");
        assert_eq!(sweep(disk.path(), &[]).code, 0);
        disk.remount("ro");
        let more = sweep(disk.path(), &["--set", "samplers.hmc.overrides.draws=300"]);
        for ran in [refused, more] {
            assert_eq!(ran.code, 3, "{ran:?}");
            for words in ["mounted read-only", "--root", "the same command"] {
                assert!(ran.err.contains(words), "{words}: {ran:?}");
            }
        }
        disk.remount("rw");
        assert_eq!(executed(&sweep(disk.path(), &[])), 0);
        return;
    }
    // Not root: a directory without the right to write does the same.
    use std::os::unix::fs::PermissionsExt;
    let root = temp();
    let mode = |mode| std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(mode));
    mode(0o555).expect("one's own");
    let ran = sweep(root.path(), &[]);
    mode(0o755).expect("one's own");
    if ran.code == 0 {
        eprintln!("SKIPPED: root may write everywhere, and may not mount a disk read-only here");
        return;
    }
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.err.contains("Make it writable") && ran.err.contains("the same command"), "{ran:?}");
}
