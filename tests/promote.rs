//! Figures and galleries of a real sweep, whole and damaged.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use lambda_hat::diagnostics::Analysis;
use lambda_hat::promote::{FoundRun, RunsRoot};
use serde_json::Value;
use support::{Ran, deterministic_files, lambda_hat, program, repository};

const RUN: [&str; 4] = ["trace", "running_llc", "rank", "autocorr"];
const COMPARING: [&str; 3] = ["llc_comparison", "llc_convergence_combined", "wnv"];
const TRAINED: [&str; 3] = ["loss_curve", "target_pred_vs_teacher_train", "target_pred_vs_teacher_test"];

/// A sweep of three targets and two samplers, with what `more` adds to its command line.
fn swept_with(more: &[&str]) -> (tempfile::TempDir, Ran) {
    let root = tempfile::tempdir().expect("a temporary directory");
    let file = repository("tests/data/sweep/tiny.yaml").to_string_lossy().into_owned();
    let ran = lambda_hat(root.path(), &[&[file.as_str()], more].concat());
    (root, ran)
}

fn swept() -> tempfile::TempDir {
    let (root, ran) = swept_with(&["-q"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    root
}

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {ran:?}"))
}

/// Width and height, where the bytes are a PNG from its signature to its last chunk.
fn png_size(bytes: &[u8]) -> (u32, u32) {
    assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n");
    assert_eq!(&bytes[12..16], b"IHDR");
    assert_eq!(&bytes[bytes.len() - 8..bytes.len() - 4], b"IEND");
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    (number(16), number(20))
}

/// Every picture below `dir` with its bytes, by path; that PNGs are whole and as large as they should be.
fn pictures(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).expect("a directory").flatten() {
            let path = entry.path();
            let ending = path.extension().map(|e| e.to_string_lossy().into_owned());
            if path.is_dir() {
                open.push(path);
            } else if let Some("png" | "svg") = ending.as_deref() {
                let bytes = fs::read(&path).expect("readable");
                if ending.as_deref() == Some("png") {
                    assert_eq!(png_size(&bytes), (1600, 1000), "{}", path.display());
                }
                found.insert(path.strip_prefix(dir).expect("below it").to_path_buf(), bytes);
            }
        }
    }
    found
}

/// Stems of the pictures in the `diagnostics/` of `dir`, each there as PNG and as SVG.
fn stems(dir: &Path) -> Vec<String> {
    let folder = dir.join("diagnostics");
    let all = if folder.is_dir() { pictures(&folder) } else { BTreeMap::new() };
    let stem = |path: &PathBuf| path.file_stem().map(|s| s.to_string_lossy().into_owned());
    let mut stems: Vec<String> = all.keys().filter_map(stem).collect();
    stems.sort_unstable();
    for pair in stems.chunks(2) {
        assert_eq!(pair.first(), pair.last(), "PNG and SVG: {stems:?}");
    }
    stems.dedup();
    stems
}

fn sorted<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut names: Vec<String> = names.into_iter().map(str::to_owned).collect();
    names.sort_unstable();
    names
}

/// `promote gallery` of `runs` into `out`, with `more`.
fn gallery(runs: &Path, out: &Path, more: &[&str]) -> Ran {
    let [runs_root, outdir] = [runs, out].map(|p| p.to_string_lossy().into_owned());
    let args = ["promote", "gallery", "--json", "--runs-root", &runs_root, "--outdir", &outdir];
    lambda_hat(Path::new("/nowhere"), &[&args[..], more].concat())
}

fn troubles(report: &Value) -> Vec<(PathBuf, String)> {
    let text = |t: &Value, key: &str| t[key].as_str().expect("text").to_owned();
    let list = report["troubles"].as_array().expect("a list");
    list.iter().map(|t| (text(t, "dir").into(), text(t, "file"))).collect()
}

#[test]
fn diagnoses_draw_the_figures_that_there_is_data_for() {
    let root = swept();
    let root = root.path();
    let ran = lambda_hat(root, &["diagnose-experiment", "--experiment", "tiny", "--mode", "light"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let found = RunsRoot::open(root).expect("a tree");
    for run in found.runs() {
        assert_eq!(stems(&run.dir), sorted(["trace", "running_llc"]), "{}", run.dir.display());
        fs::remove_dir_all(run.dir.join("diagnostics")).expect("removable");
    }
    let quiet = ["diagnose-experiment", "--experiment", "tiny", "--no-figures"];
    assert_eq!(lambda_hat(root, &quiet).code, 0);
    assert_eq!(lambda_hat(root, &["diagnose-targets", "--no-figures"]).code, 0);
    assert!(found.runs().iter().all(|run| stems(&run.dir).is_empty()));
    assert!(found.targets().iter().all(|target| stems(&target.dir).is_empty()));

    let mut first = None;
    for workers in ["1", "3"] {
        for command in [&["diagnose-experiment", "--experiment", "tiny"][..], &["diagnose-targets"]] {
            let ran = lambda_hat(root, &[command, &["--workers", workers]].concat());
            assert_eq!(ran.code, 0, "{ran:?}");
        }
        for run in found.runs() {
            let energy = (run.manifest.sampler == "hmc").then_some("energy");
            assert_eq!(stems(&run.dir), sorted(RUN.into_iter().chain(energy)), "{}", run.dir.display());
        }
        for target in found.targets() {
            let trained = target.meta.problem == "mlp";
            let more = TRAINED.into_iter().filter(|_| trained);
            assert_eq!(
                stems(&target.dir),
                sorted(COMPARING.into_iter().chain(more)),
                "{}",
                target.meta.label
            );
        }
        let all = pictures(root);
        // The same bytes whoever draws them.
        assert_eq!(first.get_or_insert_with(|| all.clone()), &all);
        for run in found.runs() {
            fs::remove_dir_all(run.dir.join("diagnostics")).expect("removable");
        }
    }
}

#[test]
fn a_gallery_shows_the_newest_run_of_each_sampler_by_its_manifest() {
    let root = swept();
    let root = root.path();
    let file = repository("tests/data/sweep/tiny.yaml").to_string_lossy().into_owned();
    // The same with more draws: newer runs of the same targets.
    let longer =
        [file.as_str(), "--set", "samplers.hmc.overrides.draws=260", "--set", "experiment=longer", "-q"];
    assert_eq!(lambda_hat(root, &longer).code, 0);
    let found = RunsRoot::open(root).expect("a tree");
    assert_eq!(found.runs().len(), 9);
    // Both sweeps may have ended in the same second, which is all that manifests tell apart.
    let dated = |run: &FoundRun, when: &str| {
        let manifest = run.dir.join("manifest.json");
        let text = fs::read_to_string(&manifest).expect("readable");
        fs::remove_file(&manifest).expect("removable");
        fs::write(&manifest, text.replace(run.manifest.provenance.when.as_str(), when)).expect("written");
    };
    let is_longer = |run: &&FoundRun| run.analysis.as_ref().is_some_and(|a| a.n_draws == 260);
    assert_eq!(found.runs().iter().filter(is_longer).count(), 3);
    found.runs().iter().filter(is_longer).for_each(|run| dated(run, "2998-01-01T00:00:00Z"));
    let before = deterministic_files(root);
    let out = tempfile::tempdir().expect("a temporary directory");
    let page = out.path().join("pages/summary.md");
    let page_name = page.to_string_lossy().into_owned();
    let images = out.path().join("images & more");
    let ran = gallery(&root.join("runs"), &images, &["--snippet-out", &page_name]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    let report = json(&ran);
    let figures = report["figures"].as_array().expect("a list");
    assert_eq!(figures.len(), 6);
    assert_eq!(pictures(&images).len(), 6);
    let text = fs::read_to_string(&page).expect("a page");
    for figure in figures {
        let shown = |key: &str| figure[key].as_str().expect("text").to_owned();
        let run = found.run(&shown("run_id")).expect("a run");
        let analysis: &Analysis = run.analysis.as_ref().expect("an analysis");
        assert_eq!(analysis.n_draws, if run.manifest.sampler == "hmc" { 260 } else { analysis.n_draws });
        assert!(shown("file").ends_with(&format!("_{}_trace.png", run.manifest.sampler)), "{figure}");
        let link = format!("](../images%20%26%20more/{})", shown("file"));
        assert!(text.contains(&link), "{link} in {text}");
        assert!(shown("caption").contains(": λ̂ = ") && shown("caption").contains(" ± "), "{figure}");
        assert!(shown("caption").ends_with(&format!(", {}", analysis.verdict)), "{figure}");
    }
    assert!(text.contains("small/small/\\_null"), "{text}");
    // Nothing of the sweep's own was touched.
    assert_eq!(deterministic_files(root), before);

    // An older file time does not make an old run, nor a newer one a new one.
    let old = |draws: usize| {
        let mut of = found.runs().iter().filter(|run| run.manifest.sampler == "hmc");
        of.find(|run| run.analysis.as_ref().is_some_and(|a| a.n_draws == draws)).expect("a run")
    };
    let (shorter, longer) = (old(200), old(260));
    assert_eq!(shorter.manifest.target_id, found.runs()[0].manifest.target_id);
    let mut touch = Command::new("touch");
    touch.arg(shorter.dir.join("manifest.json")).arg(shorter.dir.join("trace.nc"));
    assert!(touch.status().expect("touch is there").success());
    let again = gallery(root, &images, &["--snippet-out", &page_name, "--samplers", "hmc"]);
    assert_eq!(again.code, 0, "{again:?}");
    let ids = |report: &Value| -> Vec<String> {
        let list = report["figures"].as_array().expect("a list").iter();
        list.map(|f| f["run_id"].as_str().expect("an id").to_owned()).collect()
    };
    assert!(ids(&json(&again)).contains(&longer.manifest.run_id));
    assert_eq!(ids(&json(&again)).len(), 3);
    // The manifest does.
    dated(shorter, "2999-01-01T00:00:00Z");
    let shown = ids(&json(&gallery(root, &images, &["--snippet-out", &page_name])));
    assert!(shown.contains(&shorter.manifest.run_id) && !shown.contains(&longer.manifest.run_id));
}

#[test]
fn galleries_and_single_figures_have_every_plot() {
    let root = swept();
    let root = root.path();
    let found = RunsRoot::open(root).expect("a tree");
    let out = tempfile::tempdir().expect("a temporary directory");
    for (plot, count) in RUN
        .iter()
        .map(|plot| (*plot, 6))
        .chain([("energy.svg", 3)])
        .chain(COMPARING.iter().map(|plot| (*plot, 3)))
        .chain(TRAINED.iter().map(|plot| (*plot, 1)))
    {
        let ran = gallery(root, &out.path().join(plot), &["--plot-name", plot]);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{plot}: {ran:?}");
        assert_eq!(pictures(&out.path().join(plot)).len(), count, "{plot}");
        let page = fs::read_to_string(out.path().join(plot).join("gallery.md")).expect("a page");
        assert_eq!(page.matches("![").count(), count, "{page}");
        let one = out.path().join(format!("one {plot}"));
        let [dir, one_text] = [&found.runs()[0].dir, &one].map(|p| p.to_string_lossy().into_owned());
        let args = ["promote", "single", "--run-dir", &dir, "--outdir", &one_text, "--plot-name", plot];
        let ran = lambda_hat(root, &args);
        assert_eq!(ran.code, 0, "{plot}: {ran:?}");
        let label = &found.runs()[0].manifest.target;
        let trained = found.target(&found.runs()[0].manifest.target_id).is_some_and(|t| t.has_teacher());
        // Where there is nothing to draw there is no directory either.
        let made = if one.is_dir() { pictures(&one) } else { BTreeMap::new() };
        for (name, bytes) in &made {
            assert_eq!(pictures(&out.path().join(plot)).get(name), Some(bytes), "{}", name.display());
        }
        let expected = usize::from(!TRAINED.contains(&plot) || trained);
        assert_eq!(made.len(), expected, "{plot} of {label}");
    }
    // A run that was copied away alone.
    let copy = tempfile::tempdir().expect("a temporary directory");
    let alone = copy.path().join("run");
    fs::create_dir(&alone).expect("made");
    for name in ["manifest.json", "trace.nc", "analysis.json", "timing.json"] {
        fs::copy(found.runs()[0].dir.join(name), alone.join(name)).expect("copied");
    }
    let [dir, to] = [&alone, &copy.path().join("out")].map(|p| p.to_string_lossy().into_owned());
    let args = ["promote", "single", "--run-dir", &dir, "--outdir", &to];
    assert_eq!(lambda_hat(root, &args).code, 0);
    assert_eq!(pictures(&copy.path().join("out")).len(), 1);
    let ran = lambda_hat(root, &[&args[..], &["--plot-name", "wnv.png"]].concat());
    assert!(ran.code == 2 && ran.err.contains("shows a whole target"), "{ran:?}");
}

#[test]
fn a_damaged_tree_is_told_of_and_the_rest_is_drawn() {
    let root = swept();
    let root = root.path();
    let found = RunsRoot::open(root).expect("a tree");
    let dirs: Vec<PathBuf> = found.runs().iter().map(|run| run.dir.clone()).collect();
    let targets: Vec<PathBuf> = found.targets().iter().map(|target| target.dir.clone()).collect();
    for command in [&["diagnose-experiment", "--experiment", "tiny"][..], &["diagnose-targets"]] {
        assert_eq!(lambda_hat(root, command).code, 0);
    }
    let whole = pictures(root);
    // What `promote` makes is no run, and no picture is taken from what lies in diagnostics/.
    fs::create_dir_all(root.join("runs/promotion/tgt_0/run_hmc_0")).expect("made");
    fs::create_dir_all(root.join("runs/targets/promotion/run_hmc_0")).expect("made");
    let cut = dirs[5].join("diagnostics/trace.png");
    let bytes = fs::read(&cut).expect("readable");
    fs::write(&cut, &bytes[..100]).expect("written");
    let out = tempfile::tempdir().expect("a temporary directory");
    let ran = gallery(&root.join("runs"), &out.path().join("whole"), &[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(pictures(&out.path().join("whole")).values().any(|made| *made == bytes));

    fs::remove_file(dirs[0].join("trace.nc")).expect("removable");
    fs::remove_file(dirs[1].join("analysis.json")).expect("removable");
    fs::write(dirs[1].join("analysis.json"), "{ \"llc").expect("written");
    fs::remove_file(dirs[2].join("manifest.json")).expect("removable");
    fs::remove_file(targets[2].join("meta.json")).expect("removable");
    let elsewhere = tempfile::tempdir().expect("a temporary directory");
    let moved = elsewhere.path().join("run");
    fs::rename(&dirs[4], &moved).expect("movable");
    symlink(&moved, &dirs[4]).expect("a link");
    let lacking = [
        (dirs[0].clone(), "trace.nc"),
        (dirs[1].clone(), "analysis.json"),
        (dirs[2].clone(), "manifest.json"),
        (dirs[4].clone(), "."),
        (targets[2].clone(), "meta.json"),
    ];
    let ran = gallery(root, &out.path().join("rest"), &[]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let report = json(&ran);
    let mut expected: Vec<(PathBuf, String)> =
        lacking.iter().map(|(dir, file)| (dir.clone(), (*file).to_owned())).collect();
    expected.sort();
    assert_eq!(troubles(&report), expected);
    for (dir, file) in &lacking {
        let words = ran.err.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(&format!("{}: {file}", dir.display())), "{}", ran.err);
    }
    // Runs 1 (without its numbers), 3 and 5 are left.
    assert_eq!(pictures(&out.path().join("rest")).len(), 3);
    let captions: Vec<&str> =
        report["figures"].as_array().expect("a list").iter().filter_map(|f| f["caption"].as_str()).collect();
    assert_eq!(captions.iter().filter(|c| c.ends_with("its analysis.json cannot be read")).count(), 1);

    // A target's figure leaves out what is gone.
    let ran = gallery(root, &out.path().join("compared"), &["--plot-name", "llc_comparison"]);
    assert_eq!((ran.code, pictures(&out.path().join("compared")).len()), (1, 2), "{ran:?}");
    // Diagnoses put the cut picture right again.
    let ran = lambda_hat(root, &["diagnose-experiment", "--experiment", "tiny", "--json"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert_eq!(fs::read(&cut).expect("readable"), bytes);
    let ran = lambda_hat(root, &["diagnose-targets", "--json"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(troubles(&json(&ran)).contains(&(dirs[0].clone(), "trace.nc".into())), "{ran:?}");
    let short = cut.strip_prefix(root).expect("below the root");
    assert_eq!(whole.get(short), Some(&bytes));
}

#[test]
fn what_is_not_there_is_a_mistake_in_the_command() {
    let root = swept();
    let root = root.path();
    let out = tempfile::tempdir().expect("a temporary directory");
    for (more, said) in [
        (&["--samplers", "nuts"][..], "hmc, sgld"),
        (&["--plot-name", "picture.png"], "running_llc"),
        (&["--plot-name", "trace.pdf"], ".png or .svg"),
    ] {
        let ran = gallery(root, out.path(), more);
        assert!(ran.code == 2 && ran.err.contains(said), "{more:?}: {ran:?}");
    }
    let ran = gallery(&root.join("results"), out.path(), &[]);
    assert!(ran.code == 2 && ran.err.contains("runs/targets"), "{ran:?}");
    let ran = gallery(root, out.path(), &["--snippet-out", &out.path().to_string_lossy()]);
    assert!(ran.code == 2 && ran.err.contains("is a directory"), "{ran:?}");
    let file = repository("tests/data/sweep/tiny.yaml").to_string_lossy().into_owned();
    let ran = lambda_hat(root, &[&file, "--promote", "--promote-plots", "trace.png,nothing.png"]);
    assert!(ran.code == 2 && ran.err.contains("no such figure"), "{ran:?}");
}

#[test]
fn a_sweep_promotes_its_own_runs() {
    let (root, ran) = swept_with(&["--promote", "--workers", "2"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let root = root.path();
    assert!(ran.out.contains("runs/promotion/tiny/gallery.md"), "{}", ran.out);
    let found = RunsRoot::open(root).expect("a tree");
    assert_eq!((found.runs().len(), found.troubles()), (6, &[][..]));
    assert!(found.runs().iter().all(|run| run.dir.join("diagnostics/diagnosis.json").is_file()));
    assert!(found.targets().iter().all(|target| stems(&target.dir).len() >= COMPARING.len()));
    let gallery = root.join("runs/promotion/tiny");
    assert_eq!(pictures(&gallery).len(), 3 + 2 * 6);
    let page = fs::read_to_string(gallery.join("gallery.md")).expect("a page");
    assert_eq!(page.matches("![").count(), 15, "{page}");

    // Once more with plots of one's own, where a target's figures cannot be written.
    let target = &found.targets()[0].dir;
    fs::remove_dir_all(target.join("diagnostics")).expect("removable");
    let elsewhere = tempfile::tempdir().expect("a temporary directory");
    symlink(elsewhere.path(), target.join("diagnostics")).expect("a link");
    let file = repository("tests/data/sweep/tiny.yaml").to_string_lossy().into_owned();
    let args = [file.as_str(), "--json", "--promote", "--promote-plots", "wnv.svg,energy.png"];
    let ran = lambda_hat(root, &args);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("diagnostics"), "{ran:?}");
    assert_eq!(json(&ran)["executed_units"], 0);
    assert_eq!(fs::read_dir(elsewhere.path()).expect("a directory").count(), 0);
}

#[test]
fn promoting_never_starts_mpi() {
    let root = swept();
    let out = tempfile::tempdir().expect("a temporary directory");
    let [runs_root, outdir] = [root.path(), out.path()].map(|p| p.to_string_lossy().into_owned());
    // The environment of a rank whose launcher is not there: initialising would fail or wait.
    let mut command = Command::new(program());
    command.args(["promote", "gallery", "--runs-root", &runs_root, "--outdir", &outdir]);
    command.env("OMPI_COMM_WORLD_SIZE", "4").env("OMPI_COMM_WORLD_RANK", "3").env("PMIX_RANK", "3");
    command.env("PMIX_NAMESPACE", "gone").env("PMIX_SERVER_URI2", "gone;tcp4://127.0.0.1:1");
    let ran: Ran = command.output().expect("the program starts").into();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(pictures(out.path()).len(), 6);
}
