//! Profile cards, job scripts and launchers that need no cluster.

mod support;

use std::path::Path;
use std::process::Command;

use support::{Ran, deterministic_files, directory_with, lambda_hat, program, repository};

fn temp() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn tiny() -> String {
    repository("tests/data/sweep/tiny.yaml").to_string_lossy().into_owned()
}

/// The program in the directory `dir`.
fn inside(dir: &Path, args: &[&str]) -> Ran {
    let mut command = Command::new(program());
    command.args(args).current_dir(dir).env_remove("LAMBDA_HAT_HOME").env_remove("LAMBDA_HAT_EXPERIMENT");
    command.output().expect("the program starts").into()
}

fn bash_accepts(script: &str) {
    let dir = temp();
    let file = dir.path().join("job.sh");
    std::fs::write(&file, script).expect("writable");
    let ran: Ran = Command::new("bash").arg("-n").arg(&file).output().expect("bash starts").into();
    assert_eq!(ran.code, 0, "{}\n{script}", ran.err);
}

/// Each card of `config/slurm` gives the script on file. `UPDATE_EXPECT=1` rewrites it.
#[test]
fn cards_give_the_scripts_on_file() {
    for card in ["cpu", "gpu-a100", "gpu-h200"] {
        let path = repository(&format!("config/slurm/{card}.yaml"));
        let ran = lambda_hat(
            Path::new("/root/of/it"),
            &["slurm", "render", "--card", &path.display().to_string(), &tiny()],
        );
        assert_eq!(ran.code, 0, "{ran:?}");
        bash_accepts(&ran.out);
        let here = repository("").display().to_string();
        let shown = ran.out.replace(&program().display().to_string(), "/bin/lambda-hat-mpi");
        let shown = shown.replace(here.trim_end_matches('/'), "/repository");
        let on_file = repository(&format!("tests/data/launch/{card}.sh"));
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&on_file, &shown).expect("writable");
        }
        assert_eq!(shown, std::fs::read_to_string(&on_file).unwrap_or_default(), "{card}");
        // No promise that this version cannot keep.
        let told = card != "cpu" && !cfg!(feature = "cuda");
        assert_eq!(ran.err.contains("computes on the CPU only"), told, "{}", ran.err);
    }
}

#[test]
fn a_script_quotes_what_a_shell_would_take_apart() {
    let dir = temp();
    let home = dir.path().join("it's a $(touch pwned) dir");
    std::fs::create_dir_all(home.join("config/slurm")).expect("writable");
    std::fs::copy(tiny(), home.join("my sweep.yaml")).expect("copied");
    std::fs::write(
        home.join("config/slurm/cpu.yaml"),
        "{ account: \"a b; $(touch pwned) 'x\", walltime: 10, prologue: [\"echo raw $HOME\"] }",
    )
    .expect("writable");
    let args = ["slurm", "render", "--card", "config/parsl/slurm/cpu.yaml", "my sweep.yaml"];
    let more =
        ["--experiment", "dev", "--set", "walltime=04:00:00", "--set", "posterior.gamma=2", "--strict"];
    let args: Vec<&str> = args.into_iter().chain(more).collect();
    let ran = inside(&home, &args);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.err.contains("config/parsl/slurm/cpu.yaml is read as config/slurm/cpu.yaml"), "{}", ran.err);
    bash_accepts(&ran.out);
    for line in [
        "#SBATCH --job-name=dev",
        "#SBATCH \"--account=a b; $(touch pwned) 'x\"",
        "#SBATCH --time=04:00:00",
        "#SBATCH --signal=USR1@120",
        "echo raw $HOME",
    ] {
        assert!(ran.out.lines().any(|l| l == line), "{line} in {}", ran.out);
    }
    // What the ranks would be given, as bash reads it: everything up to where the job begins.
    let words = ran.out.lines().find(|l| l.starts_with("arguments=(")).expect("the arguments");
    let read: Ran = Command::new("bash")
        .args(["-c", &format!("{words}; printf '%s\\n' \"${{arguments[@]}}\"")])
        .current_dir(&home)
        .output()
        .expect("bash starts")
        .into();
    let file = home.join("my sweep.yaml").display().to_string();
    let root = home.display().to_string();
    let expected = ["run", &file, "--root", root.as_str(), "--workers", "1", "--set", "posterior.gamma=2"];
    let expected: Vec<&str> = expected.into_iter().chain(["--experiment", "dev", "--strict"]).collect();
    assert_eq!(read.out.lines().collect::<Vec<_>>(), expected);
    assert!(!home.join("pwned").exists());
}

#[test]
fn nothing_is_rendered_or_submitted_from_what_is_wrong() {
    let dir = temp();
    let root = dir.path();
    std::fs::write(root.join("card.yaml"), "walltime: 10\nacount: me\n").expect("writable");
    std::fs::write(root.join("lines.yaml"), "walltime: 10\naccount: \"me\\n#SBATCH --uid=0\"\n")
        .expect("writable");
    std::fs::write(root.join("good.yaml"), "walltime: 10\n").expect("writable");
    std::fs::write(root.join("bad.yaml"), "targets: []\nsampler: []\n").expect("writable");
    let tiny = tiny();
    for what in ["render", "submit"] {
        for (args, words) in [
            (vec!["--card", "card.yaml", &tiny], "card.yaml:2:1: acount: unknown key; did you mean account?"),
            (vec!["--card", "lines.yaml", &tiny], "lines.yaml:2:10: account: expected"),
            (vec!["--card", "good.yaml", "bad.yaml"], "bad.yaml:2:1: sampler: unknown key"),
            (vec!["--card", "none.yaml", &tiny], "none.yaml: cannot read it"),
            (vec!["--card", "good.yaml", "none.yaml"], "none.yaml: cannot read it"),
            (
                vec!["--card", "good.yaml", &tiny, "--set", "waltime=5"],
                "--set waltime=5: waltime: unknown key",
            ),
            (vec!["--card", "good.yaml", &tiny, "--set", "postrior.gamma=5"], "did you mean posterior?"),
            (vec!["--card", "good.yaml", &tiny, "--root", "a\nb"], "does not fit into a job script"),
            (vec!["--card", "config/local.yaml", &tiny], "the card of one machine"),
            (vec!["--card", "good.yaml", &tiny, "--dry-run"], "--dry-run is for a sweep that runs here"),
        ] {
            let args: Vec<&str> = ["slurm", what].into_iter().chain(args).collect();
            let ran = inside(root, &args);
            assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{args:?}: {ran:?}");
            assert!(ran.err.contains(words), "{words} in {}", ran.err);
        }
    }
    let missing = Command::new(program())
        .args(["run", "--parsl-card", "good.yaml", &tiny])
        .current_dir(root)
        .env("PATH", root)
        .output();
    let missing: Ran = missing.expect("the program starts").into();
    assert_eq!(missing.code, 3, "{missing:?}");
    assert!(missing.err.contains("read as slurm submit --card good.yaml"), "{}", missing.err);
    assert!(missing.err.contains("sbatch does not start"), "{}", missing.err);
    assert!(!root.join("store").exists());
}

#[test]
fn a_single_process_reads_the_card_of_its_machine() {
    let dir = temp();
    let root = dir.path();
    std::fs::create_dir_all(root.join("config")).expect("writable");
    let card = root.join("config/local.yaml");
    let file = tiny();
    let slots = |more: &[&str]| {
        let args: Vec<&str> =
            [file.as_str(), "-v", "--json"].into_iter().chain(more.iter().copied()).collect();
        let ran = inside(root, &args);
        assert_eq!(ran.code, 0, "{ran:?}");
        let banner = ran.err.lines().find(|l| l.contains("rank 0 on ")).expect("a banner").to_owned();
        assert!(banner.contains("node-local rank 0: cpu, cpu-"), "{banner}");
        banner.rsplit(", ").next().map(str::to_owned).expect("slots")
    };
    std::fs::write(&card, "max_workers: 3\ndevice: cpu\n").expect("writable");
    assert_eq!(slots(&[]), "3 slots");
    assert_eq!(slots(&["--workers", "1"]), "1 slot");
    assert_eq!(slots(&["--parsl-card", "config/parsl/local.yaml"]), "3 slots");

    // What the ranks got stays with what they made.
    let manifest = std::fs::read(directory_with(root, "run_hmc").join("manifest.json")).expect("written");
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
    let ranks = manifest["provenance"]["ranks"].as_array().expect("ranks");
    assert_eq!(ranks.len(), 1);
    assert_eq!((&ranks[0]["slots"], &ranks[0]["device"]), (&3.into(), &"cpu".into()));

    for (text, words) in [
        ("workers: 0\n", "config/local.yaml:1:10: workers: expected a whole number from 1 to 4096, or auto"),
        (
            "device: gpu\n",
            "config/local.yaml:1:9: device: unknown choice `gpu`; did you mean cpu? (there are: auto, cpu, cuda)",
        ),
        ("partition: x\n", "config/local.yaml:1:1: partition: unknown key"),
    ] {
        std::fs::write(&card, text).expect("writable");
        let ran = inside(root, &[&file]);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.err.contains(words), "{words} in {}", ran.err);
    }
}

#[test]
fn scripts_of_other_launchers_are_sound_and_mpirun_runs() {
    for script in ["pbs.sh", "mpirun-hostfile.sh", "slurm-single-node.sh", "bootstrap.sh"] {
        bash_accepts(&std::fs::read_to_string(repository(&format!("scripts/{script}"))).expect("a script"));
    }
    let script = |args: &[&str], root: &Path| -> Ran {
        let mut command = Command::new(repository("scripts/mpirun-hostfile.sh"));
        command.args(args).env("LAMBDA_HAT_PROGRAM", program()).env("LAMBDA_HAT_HOME", root);
        command.output().expect("the script starts").into()
    };
    let dir = temp();
    assert_eq!(script(&["no-such-hostfile", "x.yaml"], dir.path()).code, 2);
    if cfg!(not(feature = "mpi")) {
        return;
    }
    let hosts = dir.path().join("hosts");
    std::fs::write(&hosts, "localhost slots=3\n").expect("writable");
    let (root, alone) = (temp(), temp());
    let ran = script(&[&hosts.display().to_string(), &tiny(), "-v"], root.path());
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.err.contains("rank 2 on "), "{}", ran.err);
    assert_eq!(lambda_hat(alone.path(), &[&tiny(), "-q"]).code, 0);
    assert_eq!(deterministic_files(root.path()), deterministic_files(alone.path()));
}

/// The script of a PBS job without PBS: only `qrerun` and the program are stand-ins.
#[test]
fn a_pbs_job_stops_before_its_limit_and_queues_itself_again() {
    if cfg!(not(feature = "mpi")) {
        return;
    }
    use std::os::unix::fs::PermissionsExt as _;
    let dir = temp();
    let stand_in = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, format!("#!/bin/bash\n{text}\n")).expect("writable");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
        path
    };
    stand_in("qrerun", "echo \"qrerun <$*>\"");
    let fake = stand_in(
        "fake",
        "trap '[ \"$OMPI_COMM_WORLD_RANK\" = 0 ] && exit 75; exit 0' USR1\necho \"argument <$*>\"\n\
         while :; do sleep 0.05; done",
    );
    let path = std::env::var("PATH").unwrap_or_default();
    let ran: Ran = Command::new("bash")
        .arg(repository("scripts/pbs.sh"))
        .env("PATH", format!("{}:{path}", dir.path().display()))
        .env("PBS_O_WORKDIR", dir.path())
        .env("PBS_JOBID", "7.server")
        .env("PBS_WALLTIME", "4")
        .env("FILE", "/a/b.yaml")
        .env("OPTIONS", "--root /r -v")
        .env("LAMBDA_HAT_PROGRAM", fake)
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        .env("OMPI_MCA_plm_rsh_agent", "/bin/false")
        .output()
        .expect("bash starts")
        .into();
    assert_eq!(ran.code, 75, "{ran:?}");
    assert!(ran.out.contains("argument <run /a/b.yaml --root /r -v>"), "{}", ran.out);
    assert!(ran.out.contains("qrerun <7.server>"), "{}", ran.out);
}

#[test]
fn the_document_of_cards_has_every_key() {
    let text = std::fs::read_to_string(repository("docs/clusters.md")).expect("docs/clusters.md");
    for key in lambda_hat::config::card_keys() {
        assert!(text.contains(&format!("`{}`", key.name)), "{} of the {}", key.name, key.section);
    }
}
