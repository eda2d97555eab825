//! The documents: their commands run, their links lead somewhere, what is generated is not stale, manual pages and
//! completions work.
//!
//! Blocks of README.md and docs/ marked `sh`, `console`, `python` or `yaml` run in order in one directory that holds
//! two finished small sweeps, `quickstart` and `dev`; its config/quickstart.yaml and config/experiments.yaml are small
//! files in place of the long ones. `tgt_…` and `run_hmc_…` stand for the directories of one run there. Of a `console`
//! block the lines after `$ ` run; where it shows an `error:`, they must fail. A `yaml` block with targets and samplers
//! goes through `--dry-run`. `<!-- not run: reason -->` before a block keeps it from running; the test prints the reasons.

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Ran, lambda_hat, program, repository};

const SMALL: &str = "\
targets:
  - { model: small, data: small, teacher: _null, overrides: { training: { steps: 300 } } }
  - { problem: quadratic, eigenvalues: [0, 0.1, 1, 10], n_data: 1000 }
samplers:
  - { name: hmc, overrides: { draws: 150, warmup: 200, chains: 2 } }
  - { name: sgld, overrides: { steps: 6000, warmup: 1000, step_size: 1e-4, batch_size: 64, eval_every: 20, chains: 2 } }
";

/// README.md and everything below docs/.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![repository("docs")];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).expect("a directory").flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    found.insert(0, repository("README.md"));
    found
}

fn short(path: &Path) -> String {
    path.strip_prefix(repository("")).expect("in the repository").display().to_string()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A fenced block.
struct Block {
    line: usize,
    language: String,
    text: String,
    not_run: Option<String>,
}

/// The fenced blocks of a document. The marker of one that does not run may stand up to a blank line before it.
fn blocks(text: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let (mut open, mut marker) = (false, None);
    for (at, line) in text.lines().enumerate() {
        let fence = line.trim_start().strip_prefix("```");
        match (open, fence) {
            (false, Some(info)) => {
                let language = info.trim().to_owned();
                found.push(Block { line: at + 1, language, text: String::new(), not_run: marker.take() });
                open = true;
            }
            (true, Some(_)) => open = false,
            (true, None) => {
                let block = found.last_mut().expect("a block is open");
                block.text += line;
                block.text += "\n";
            }
            (false, None) => {
                if let Some(reason) = line.strip_prefix("<!-- not run:").and_then(|l| l.strip_suffix("-->")) {
                    assert!(!reason.trim().is_empty(), "line {}: a marker without a reason", at + 1);
                    marker = Some(reason.trim().to_owned());
                } else if !line.trim().is_empty() {
                    marker = None;
                }
            }
        }
    }
    assert!(!open, "a block is not closed");
    found
}

/// The directory that all blocks run in.
struct Sandbox {
    dir: tempfile::TempDir,
    target: String,
    run: String,
}

impl Sandbox {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path();
        let make = |name: &str| std::fs::create_dir_all(root.join(name)).expect("a directory");
        make("bin");
        make("config/slurm");
        std::os::unix::fs::symlink(program(), root.join("bin/lambda-hat-mpi")).expect("a link");
        std::os::unix::fs::symlink(repository("scripts"), root.join("scripts")).expect("a link");
        for name in ["quickstart.yaml", "experiments.yaml"] {
            let ran = lambda_hat(
                root,
                &[&repository(&format!("config/{name}")).display().to_string(), "--dry-run"],
            );
            assert_eq!(ran.code, 0, "{name}: {}", ran.err);
        }
        for (file, experiment) in [("quickstart", "quickstart"), ("experiments", "dev")] {
            let text = format!("experiment: {experiment}\n{SMALL}");
            std::fs::write(root.join(format!("config/{file}.yaml")), text).expect("written");
            let ran = lambda_hat(
                root,
                &[&root.join(format!("config/{file}.yaml")).display().to_string(), "--local"],
            );
            assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
        }
        for card in ["cpu.yaml", "gpu-a100.yaml", "gpu-h200.yaml"] {
            std::fs::copy(repository(&format!("config/slurm/{card}")), root.join("config/slurm").join(card))
                .expect("copied");
        }
        std::fs::write(root.join("hosts"), "localhost slots=2\n").expect("written");
        std::fs::write(root.join("bad.yaml"), SMALL.replace("step_size", "stepsize")).expect("written");
        let named = |dir: &Path, part: &str| -> Option<String> {
            let mut names: Vec<String> = std::fs::read_dir(dir)
                .ok()?
                .flatten()
                .map(|e| e.file_name().to_string_lossy().into_owned())
                .filter(|name| name.starts_with(part))
                .collect();
            names.sort();
            names.into_iter().next()
        };
        // The target that has a network: its files serve as somebody's own, too.
        let targets = root.join("runs/targets");
        let has_rows = |name: &str| {
            let meta = read(&targets.join(name).join("meta.json"));
            let meta: serde_json::Value = serde_json::from_str(&meta).expect("JSON");
            meta["problem"] == "mlp"
        };
        let target = std::fs::read_dir(&targets)
            .expect("targets")
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .find(|name| name.starts_with("tgt_") && has_rows(name))
            .expect("a network among the targets");
        let run = named(&targets.join(&target), "run_hmc_").expect("a run of hmc");
        for name in ["data", "params"] {
            std::fs::copy(
                targets.join(&target).join(format!("{name}.npz")),
                root.join(format!("my_{name}.npz")),
            )
            .expect("copied");
        }
        Self { dir, target, run }
    }

    fn real(&self, text: &str) -> String {
        text.replace("tgt_…", &self.target).replace("run_hmc_…", &self.run)
    }

    fn run(&self, program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Ran {
        let path = std::env::var("PATH").unwrap_or_default();
        let bin = self.dir.path().join("bin");
        Command::new(program)
            .args(args)
            .current_dir(self.dir.path())
            .env("PATH", format!("{}:{path}", bin.display()))
            .env("LAMBDA_HAT_PROGRAM", bin.join("lambda-hat-mpi"))
            .env_remove("LAMBDA_HAT_HOME")
            .env_remove("LAMBDA_HAT_EXPERIMENT")
            .env("MPLBACKEND", "Agg")
            .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
            .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
            .env("OMPI_MCA_rmaps_base_oversubscribe", "1")
            .env("OMPI_MCA_mpi_yield_when_idle", "1")
            .env("OMPI_MCA_plm_rsh_agent", "/bin/false")
            .output()
            .unwrap_or_else(|e| panic!("{e}"))
            .into()
    }

    /// Runs a block of shell; what is wrong with it, if anything.
    fn shell(&self, text: &str) -> Option<String> {
        let ran = self.run("bash", &["-euo", "pipefail", "-c", &self.real(text)]);
        (ran.code != 0).then(|| format!("exit code {}\n{}{}", ran.code, ran.out, ran.err))
    }

    fn console(&self, text: &str) -> Option<String> {
        let commands: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("$ ")).collect();
        if commands.is_empty() {
            return Some("no line begins with `$ `".to_owned());
        }
        let wrong = self.shell(&commands.join("\n"));
        let must_fail = text.lines().any(|l| l.starts_with("error:"));
        match (wrong, must_fail) {
            (None, true) => Some("shows an error, and succeeds".to_owned()),
            (Some(said), true) if said.contains("error:") => None,
            (wrong, _) => wrong,
        }
    }

    fn yaml(&self, text: &str) -> Option<String> {
        std::fs::write(self.dir.path().join("block.yaml"), text).expect("written");
        let ran = self.run(program(), &["block.yaml", "--dry-run"]);
        (ran.code != 0).then_some(ran.err)
    }
}

/// Words that only a command begins with.
fn is_command(line: &str) -> bool {
    let line = line.trim_start();
    ["lambda-hat-mpi ", "mpirun ", "srun ", "sbatch ", "cargo ", "make "].iter().any(|w| line.starts_with(w))
}

#[test]
fn every_command_of_the_documents_runs() {
    let started = std::time::Instant::now();
    let sandbox = Sandbox::new();
    let python = std::env::var_os("LAMBDA_HAT_PYTHON");
    let (mut ran, mut wrong, mut not_run) = (0, Vec::new(), Vec::new());
    for path in documents() {
        let name = short(&path);
        let generated = name.starts_with("docs/reference/");
        // Python blocks in a row go through one interpreter: a later one may use the names of an earlier one.
        let mut snippets = String::new();
        let flush = |snippets: &mut String, wrong: &mut Vec<String>| {
            if let (Some(python), false) = (&python, snippets.is_empty()) {
                let answer = sandbox.run(python, &["-c", &sandbox.real(snippets)]);
                if answer.code != 0 {
                    wrong.push(format!("{name}, Python: {}", answer.err));
                }
            }
            snippets.clear();
        };
        for block in blocks(&read(&path)) {
            let place = format!("{name}:{}", block.line);
            let kind = block.language.as_str();
            if let Some(reason) = block.not_run {
                not_run.push(format!("{place}: {reason}"));
                continue;
            }
            if kind != "python" {
                flush(&mut snippets, &mut wrong);
            }
            let answer = match kind {
                "sh" => sandbox.shell(&block.text),
                "console" => sandbox.console(&block.text),
                "yaml"
                    if ["targets:", "samplers:"]
                        .iter()
                        .all(|key| block.text.lines().any(|l| l.starts_with(key))) =>
                {
                    sandbox.yaml(&block.text)
                }
                "yaml" => {
                    not_run.push(format!("{place}: a part of a file"));
                    continue;
                }
                // tests/python/test_files.py runs these.
                "python" if name == "docs/formats.md" => continue,
                "python" if python.is_none() => {
                    not_run.push(format!("{place}: SKIPPED: set LAMBDA_HAT_PYTHON (`make test` does)"));
                    continue;
                }
                "python" => {
                    snippets += &format!("# {place}\n{}\n", block.text);
                    ran += 1;
                    continue;
                }
                _ if !generated
                    && block
                        .text
                        .lines()
                        .any(|l| l.starts_with("$ ") || kind.is_empty() && is_command(l)) =>
                {
                    Some("has a command: mark the block sh or console".to_owned())
                }
                _ => continue,
            };
            ran += 1;
            wrong.extend(answer.map(|a| format!("{place}: {a}")));
        }
        flush(&mut snippets, &mut wrong);
    }
    eprintln!("{ran} blocks ran in {:.1} s, {} did not:", started.elapsed().as_secs_f64(), not_run.len());
    not_run.iter().for_each(|line| eprintln!("  {line}"));
    assert!(ran > 0 && wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A heading's anchor, as GitHub makes it: lower case, letters, digits, hyphens and underscores kept, spaces to hyphens.
fn slug(heading: &str) -> String {
    let plain =
        heading.trim_start_matches('#').trim().replace("&lt;", "<").replace("&gt;", ">").to_lowercase();
    let kept = plain.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    let mut code = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        code ^= line.trim_start().starts_with("```");
        if !code && line.starts_with('#') {
            found.insert(slug(line));
        }
    }
    found
}

/// What `](…)` holds outside code.
fn links(text: &str) -> Vec<String> {
    let mut code = false;
    let mut found = Vec::new();
    for line in text.lines() {
        code ^= line.trim_start().starts_with("```");
        let plain: String = line.split('`').step_by(2).collect();
        if !code {
            let after = plain.split("](").skip(1);
            found.extend(after.filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())));
        }
    }
    found
}

#[test]
fn links_between_the_documents_lead_somewhere() {
    let mut files = documents();
    files.extend(["ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(repository));
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for path in files {
        for link in links(&read(&path)) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            checked += 1;
            let (file, anchor) = link.split_once('#').map_or((link.as_str(), ""), |(f, a)| (f, a));
            let there =
                if file.is_empty() { path.clone() } else { path.parent().expect("a file").join(file) };
            if !there.exists() {
                wrong.push(format!("{}: {link}: no such file", short(&path)));
            } else if !anchor.is_empty() && !anchors(&read(&there)).contains(anchor) {
                wrong.push(format!("{}: {link}: no such heading", short(&path)));
            }
        }
    }
    assert!(checked > 0 && wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_index_has_every_document() {
    let index = read(&repository("docs/index.md"));
    let linked: BTreeSet<String> = links(&index).into_iter().collect();
    for path in documents().iter().skip(1).filter(|p| !p.ends_with("docs/index.md")) {
        let name = path.strip_prefix(repository("docs")).expect("below docs").display().to_string();
        assert!(linked.contains(&name), "docs/index.md has no link to {name}");
    }
}

#[test]
fn generated_pages_are_those_of_this_program() {
    for page in ["cli", "configuration"] {
        let path = repository(&format!("docs/reference/{page}.md"));
        let ran: Ran = Command::new(program()).args(["reference", page]).output().expect("it starts").into();
        assert_eq!(ran.code, 0, "{ran:?}");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&path, &ran.out).expect("written");
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(there == ran.out, "docs/reference/{page}.md is stale: rewrite it with UPDATE_EXPECT=1");
    }
}

#[test]
fn the_configuration_reference_has_every_key() {
    let page = read(&repository("docs/reference/configuration.md"));
    for key in lambda_hat::config::keys().iter().chain(&lambda_hat::config::card_keys()) {
        assert!(page.contains(&format!("| `{}`", key.name)), "{}.{}", key.section, key.name);
    }
}

fn print_of(args: &[&str]) -> String {
    let ran: Ran = Command::new(program()).args(args).output().expect("it starts").into();
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.out
}

#[test]
fn bash_completes_commands_and_options() {
    let dir = tempfile::tempdir().expect("a directory");
    let script = dir.path().join("completion");
    std::fs::write(&script, print_of(&["completions", "bash"])).expect("written");
    let complete = |words: &str, at: usize| -> String {
        let text = format!(
            "source {}; function=$(complete -p lambda-hat-mpi | sed -n 's/.* -F \\([^ ]*\\).*/\\1/p')\n\
             COMP_WORDS=({words}); COMP_CWORD={at}; \"$function\" lambda-hat-mpi \"${{COMP_WORDS[{at}]}}\" x\n\
             echo \"${{COMPREPLY[@]}}\"",
            script.display()
        );
        let ran: Ran =
            Command::new("bash").args(["--norc", "-c", &text]).output().expect("bash starts").into();
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.out.trim().to_owned()
    };
    assert_eq!(complete("lambda-hat-mpi art", 1), "artifacts");
    assert_eq!(complete("lambda-hat-mpi artifacts ver", 2), "verify");
    assert_eq!(complete("lambda-hat-mpi run --dry", 2), "--dry-run");
}

#[test]
fn every_shell_has_completions() {
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let text = print_of(&["completions", shell]);
        assert!(text.contains("artifacts") && text.contains("dry-run"), "{shell}");
    }
}

/// A page of every command that is not hidden; `man` renders them without a warning where it is installed, else their
/// sections are looked for.
#[test]
fn manual_pages_are_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    print_of(&["man", "--outdir", &dir.path().display().to_string()]);
    let pages: Vec<PathBuf> =
        std::fs::read_dir(dir.path()).expect("pages").flatten().map(|e| e.path()).collect();
    for name in ["lambda-hat-mpi.1", "lambda-hat-mpi-run.1", "lambda-hat-mpi-artifacts-gc.1"] {
        assert!(dir.path().join(name).exists(), "{name}");
    }
    assert!(!dir.path().join("lambda-hat-mpi-workflow.1").exists());
    assert_eq!(read(&dir.path().join("lambda-hat-mpi.1")), print_of(&["man"]));
    let has_man = Command::new("man").arg("--version").output().is_ok_and(|o| o.status.success());
    if !has_man {
        eprintln!("SKIPPED: no man here; pages are checked by their sections alone");
    }
    for page in pages {
        let text = read(&page);
        for part in [".TH", ".SH NAME", ".SH SYNOPSIS", ".SH \"EXIT STATUS\"", ".SH ENVIRONMENT"] {
            let bare = text.replace(".SH \"ENVIRONMENT\"", ".SH ENVIRONMENT");
            assert!(bare.contains(part), "{}: {part}", page.display());
        }
        if has_man {
            let ran: Ran = Command::new("man")
                .args(["--warnings=mac", "-l"])
                .arg(&page)
                .env("MANWIDTH", "100")
                .env("LC_ALL", "C.UTF-8")
                .output()
                .expect("man starts")
                .into();
            assert!(ran.code == 0 && ran.err.is_empty() && ran.out.contains("EXIT STATUS"), "{ran:?}");
        }
    }
}

/// `make install` below DESTDIR, and `make uninstall` leaves nothing of it.
#[test]
fn an_installation_is_whole_and_goes_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let make = |target: &str| {
        let ran: Ran = Command::new("make")
            .arg("-C")
            .arg(repository(""))
            .args([target, "PREFIX=/usr"])
            .arg(format!("DESTDIR={}", dir.path().display()))
            .arg(format!("BIN={}", program().display()))
            .output()
            .expect("make starts")
            .into();
        assert_eq!(ran.code, 0, "{ran:?}");
    };
    let files = || -> BTreeSet<String> {
        let (mut open, mut found) = (vec![dir.path().to_owned()], BTreeSet::new());
        while let Some(at) = open.pop() {
            for entry in std::fs::read_dir(&at).expect("a directory").flatten() {
                let path = entry.path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    found.insert(path.strip_prefix(dir.path()).expect("below").display().to_string());
                }
            }
        }
        found
    };
    make("install");
    let there = files();
    for name in [
        "usr/bin/lambda-hat-mpi",
        "usr/share/man/man1/lambda-hat-mpi.1",
        "usr/share/man/man1/lambda-hat-mpi-run.1",
        "usr/share/bash-completion/completions/lambda-hat-mpi",
        "usr/share/zsh/site-functions/_lambda-hat-mpi",
        "usr/share/fish/vendor_completions.d/lambda-hat-mpi.fish",
        "usr/share/doc/lambda-hat-mpi/LICENSE-MIT",
        "usr/share/doc/lambda-hat-mpi/LICENSE-APACHE",
    ] {
        assert!(there.contains(name), "{name} is not among {there:?}");
    }
    let ran: Ran = Command::new(dir.path().join("usr/bin/lambda-hat-mpi"))
        .arg("--version")
        .output()
        .expect("runs")
        .into();
    assert_eq!(ran.code, 0);
    make("uninstall");
    assert_eq!(files(), BTreeSet::new());
}
