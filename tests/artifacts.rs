//! The artifact commands and `compare`, as a user runs them on a finished sweep.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use lambda_hat::store::{RUN, Store, TARGET};
use serde_json::Value;
use support::{Ran, deterministic_files, executed, lambda_hat, repository};

/// One sweep for all tests: nothing here changes it but for files of its own name.
static SWEEP: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let root = temp();
    let ran = sweep(root.path());
    assert_eq!(ran.code, 0, "{ran:?}");
    root
});

fn temp() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn sweep(root: &Path) -> Ran {
    let file = repository("tests/data/sweep/tiny.yaml").to_string_lossy().into_owned();
    lambda_hat(root, &[&file, "--json", "-q"])
}

fn artifacts(root: &Path, args: &[&str]) -> Ran {
    lambda_hat(root, &[&["artifacts"], args].concat())
}

fn json(ran: &Ran) -> Value {
    assert_eq!(ran.code, 0, "{ran:?}");
    serde_json::from_str(&ran.out).expect("--json prints JSON")
}

fn fits(ran: &Ran) -> &str {
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.lines().all(|line| line.chars().count() <= 80), "{}", ran.out);
    assert!(!ran.out.contains(|c: char| c.is_control() && c != '\n'), "{ran:?}");
    &ran.out
}

/// All files below a directory with their content.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).expect("a directory").flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else {
                let short = path.strip_prefix(dir).expect("below it").to_path_buf();
                found.insert(short, fs::read(&path).expect("readable"));
            }
        }
    }
    found
}

#[test]
fn ls_lists_units_their_sizes_and_what_sharing_saves() {
    let root = SWEEP.path();
    let out = fits(&artifacts(root, &["ls"])).to_owned();
    assert_eq!(out.lines().filter(|line| line.contains("run_hmc_")).count(), 3, "{out}");
    for word in
        ["tgt_", "dln 3-1-3", "hmc", "sgld", "done", " s ", "kB", "3 targets, 6 runs", "saved by sharing"]
    {
        assert!(out.contains(word), "{word} in {out}");
    }
    let listed = json(&artifacts(root, &["ls", "--json", "--experiment", "tiny"]));
    let units = listed["units"].as_array().expect("units");
    assert_eq!(units.len(), 9);
    assert!(units.iter().all(|unit| unit["age_seconds"].is_u64() && unit["label"].is_string()));
    let sum = |of: &dyn Fn(&Value) -> Option<u64>| units.iter().filter_map(of).sum::<u64>();
    let named = sum(&|unit| unit["bytes"].as_u64());
    let totals = &listed["totals"];
    let disk: u64 = files(&root.join("store/objects")).values().map(|content| content.len() as u64).sum();
    assert_eq!(totals["bytes"].as_u64(), Some(disk));
    assert_eq!(totals["saved"].as_u64(), Some(named - disk));
    let unknown = artifacts(root, &["ls", "--experiment", "tyni"]);
    assert!(unknown.code == 2 && unknown.err.contains("name one of tiny"), "{unknown:?}");
}

#[test]
fn show_tells_all_of_a_target_and_of_a_run_by_any_name() {
    let root = SWEEP.path();
    let listed = json(&artifacts(root, &["ls", "--json"]));
    for unit in listed["units"].as_array().expect("units") {
        let (urn, id) = (unit["urn"].as_str().expect("text"), unit["id"].as_str().expect("text"));
        let dir = Path::new(unit["dir"].as_str().expect("text"));
        let name = dir.file_name().expect("a name").to_string_lossy().into_owned();
        let shown = json(&artifacts(root, &["show", urn, "--json"]));
        for other in [id, &id[..12], &name] {
            assert_eq!(json(&artifacts(root, &["show", other, "--json"])), shown, "{other}");
        }
        for file in shown["files"].as_object().expect("files").values() {
            let hash = file["blake3"].as_str().expect("a hash");
            let object = root.join("store/objects/blake3").join(&hash[..2]).join(&hash[2..]);
            assert_eq!(file["bytes"].as_u64(), object.metadata().ok().map(|about| about.len()));
        }
        let read = |name: &str| -> Value {
            serde_json::from_slice(&fs::read(root.join(dir).join(name)).expect("readable")).expect("JSON")
        };
        let text = fits(&artifacts(root, &["show", &name])).to_owned();
        let (written, words) = match unit["kind"].as_str() {
            Some("target") => (read("meta.json"), ["d, n", "L0", "exact λ", "data.npz"]),
            _ => {
                assert_eq!(shown["analysis"], read("analysis.json"));
                assert_eq!(shown["timing"], read("timing.json"));
                (read("manifest.json"), ["λ̂", " ± ", "verdict", "trace.nc"])
            }
        };
        assert!(
            words.iter().chain(&["git_sha", "configuration", "seed: "]).all(|word| text.contains(word)),
            "{text}"
        );
        for (key, value) in written.as_object().expect("an object") {
            assert!(key == "files" || shown[key] == *value, "{key}: {shown}");
        }
    }
    let unknown = artifacts(root, &["show", "run_hmc_zzzzzzzz"]);
    assert!(unknown.code == 2 && unknown.err.contains("run_hmc_"), "{unknown:?}");
    // What failed says why.
    let other = temp();
    let file = repository("tests/data/sweep/tiny.yaml").to_string_lossy().into_owned();
    let ran = lambda_hat(other.path(), &[&file, "-q", "--set", "samplers.sgld.overrides.step_size=1e6"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let listed = json(&artifacts(other.path(), &["ls", "--json"]));
    let failed = listed["units"].as_array().expect("units").iter().find(|u| u["status"]["state"] == "failed");
    let urn = failed.expect("one that failed")["urn"].as_str().expect("text").to_owned();
    let shown = artifacts(other.path(), &["show", &urn]);
    assert!(fits(&shown).contains("failed, 20") && shown.out.contains("step"), "{shown:?}");
    let bundle = other.path().join("x.tar").display().to_string();
    assert_eq!(artifacts(other.path(), &["export", "--experiment", "tiny", "--out", &bundle]).code, 0);
    let root = temp();
    let imported = json(&artifacts(root.path(), &["import", &bundle, "--json"]));
    assert_eq!(imported["new"].as_array().map(Vec::len), Some(9), "failures are results too: {imported}");
    assert_eq!(json(&artifacts(root.path(), &["ls", "--json"]))["units"].as_array().map(Vec::len), Some(9));
}

#[test]
fn event_files_are_the_same_bytes_each_time() {
    let root = temp();
    assert_eq!(sweep(root.path()).code, 0);
    let made = artifacts(root.path(), &["tb", "--experiment", "tiny"]);
    assert_eq!(made.code, 0, "{made:?}");
    let dir = root.path().join("tb/tiny");
    let lines: Vec<&str> = made.out.lines().collect();
    assert_eq!(lines, [dir.display().to_string(), format!("tensorboard --logdir {}", dir.display())]);
    let before = files(&dir);
    // Six runs, and the one target that was trained.
    assert_eq!(before.len(), 7, "{:?}", before.keys());
    fs::remove_dir_all(root.path().join("tb")).expect("removable");
    let again = json(&artifacts(root.path(), &["tb", "--experiment", "tiny", "--json"]));
    assert_eq!((again["runs"].as_u64(), again["targets"].as_u64()), (Some(6), Some(1)));
    assert!(files(&dir) == before);
}

#[test]
fn a_bundle_makes_another_root_the_same_and_leaves_nothing_to_do() {
    let (root, there) = (SWEEP.path(), temp());
    let bundle = there.path().join("sweep.tar");
    let file = bundle.display().to_string();
    let exported = artifacts(root, &["export", "--experiment", "tiny", "--out", &file]);
    assert!(exported.code == 0 && exported.out.contains("3 targets, 6 runs"), "{exported:?}");
    let other = there.path().join("other");
    let imported = artifacts(&other, &["import", &file]);
    assert!(imported.code == 0 && imported.out.contains("9 targets and runs are new"), "{imported:?}");
    let again = artifacts(&other, &["import", &file]);
    assert!(again.code == 0 && again.out.contains("0 targets and runs are new, 9 were here"), "{again:?}");
    let same = |a: BTreeMap<PathBuf, Vec<u8>>, b: BTreeMap<PathBuf, Vec<u8>>| {
        let names = a.keys().chain(b.keys());
        let differ: Vec<_> = names.filter(|name| a.get(*name) != b.get(*name)).collect();
        assert!(differ.is_empty() && !a.is_empty(), "{differ:?} differ");
    };
    same(files(&other.join("runs")), files(&root.join("runs")));
    let results = |root: &Path| {
        let mut found = files(&root.join("results"));
        found.retain(|name, _| !name.to_string_lossy().ends_with(".status.json"));
        found
    };
    same(results(&other), results(root));
    assert_eq!(artifacts(&other, &["verify"]).code, 0);
    assert_eq!(deterministic_files(&other), deterministic_files(root));
    assert_eq!(executed(&sweep(&other)), 0, "the sweep has nothing left to do");

    // Flipped, cut short, none at all: refused before the root is touched.
    let whole = fs::read(&bundle).expect("readable");
    let mut flipped = whole.clone();
    let data = flipped.windows(4).position(|w| w == b"PK\x03\x04").expect("an npz");
    flipped[data + 20] ^= 1;
    for (bytes, words) in
        [(&flipped[..], "has the hash"), (&whole[..whole.len() / 2], "cut short"), (b"", "empty")]
    {
        fs::write(&bundle, bytes).expect("writable");
        let fresh = there.path().join("fresh");
        let refused = artifacts(&fresh, &["import", &file]);
        assert!(
            refused.code == 2 && refused.err.contains(words) && refused.err.contains(&file),
            "{refused:?}"
        );
        assert!(!fresh.exists());
    }
    let none = artifacts(&other, &["import", &there.path().join("no.tar").display().to_string()]);
    assert!(none.code == 3 && none.err.contains("no.tar"), "{none:?}");

    // A run that came out otherwise here is not overwritten.
    fs::write(&bundle, &whole).expect("writable");
    let clash = temp();
    let tiny = repository("tests/data/sweep/tiny.yaml").to_string_lossy().into_owned();
    assert_eq!(lambda_hat(clash.path(), &[&tiny, "-q"]).code, 0);
    let same = artifacts(clash.path(), &["import", &file]);
    assert!(same.code == 0 && same.out.contains("9 were here"), "made twice with the same content: {same:?}");
    let manifest = clash.path().join("results/tiny.manifest.json");
    let text = fs::read_to_string(&manifest).expect("readable");
    let run = text.find("\"run_id\": \"").expect("a run") + 11;
    fs::write(&manifest, format!("{}{}{}", &text[..run], "0".repeat(64), &text[run + 64..]))
        .expect("writable");
    let refused = artifacts(clash.path(), &["import", &file]);
    assert!(refused.code == 1 && refused.err.contains("names other runs"), "{refused:?}");
}

#[test]
fn objects_that_are_not_what_their_names_say_are_refused_before_anything_is_written() {
    let root = temp();
    sweep(root.path());
    let kinds = [(RUN, "analysis.json"), (RUN, "trace.nc"), (TARGET, "build.json"), (TARGET, "params.npz")];
    for (kind, name) in kinds {
        // All hashes are right.
        let store = Store::open(root.path()).expect("opens");
        let whole = store.list_refs(kind).expect("lists").swap_remove(0);
        let mut other = whole.clone();
        other.objects.insert(name.into(), store.put(b"neither this nor that").expect("is written"));
        store.write_ref(&other).expect("is written");
        let place = temp();
        let file = place.path().join("tiny.tar").display().to_string();
        assert_eq!(
            artifacts(root.path(), &["export", "--experiment", "tiny", "--out", &file]).code,
            0,
            "{name}"
        );
        let fresh = temp();
        let ran = artifacts(fresh.path(), &["import", &file]);
        assert!(ran.code == 2 && ran.err.contains(&format!("is no {name}")), "{name}: {ran:?}");
        assert!(files(fresh.path()).is_empty(), "{name}");
        store.write_ref(&whole).expect("is written");
    }
}

#[test]
fn compare_groups_finished_runs() {
    let root = SWEEP.path();
    let shown = lambda_hat(root, &["compare"]);
    let out = fits(&shown);
    assert!(["λ̂", "R-hat", "ESS", "FGE", "WNV", "/1", "hmc"].iter().all(|word| out.contains(word)), "{out}");
    assert_eq!(out.lines().filter(|line| line.contains(" ± ")).count(), 6, "{out}");
    let found = json(&lambda_hat(root, &["compare", "--by", "step_size", "--experiment", "tiny", "--json"]));
    assert_eq!(found["by"][0], "sampler.step_size");
    let groups = found["groups"].as_array().expect("groups");
    assert_eq!(groups.len(), 2, "{found}");
    for group in groups {
        assert_eq!(group["runs"], 3);
        let sampler = if group["keys"]["sampler.step_size"] == 1e-4 { "sgld" } else { "hmc" };
        let mut means = Vec::new();
        for path in files(&root.join("runs")).into_iter().filter(|(path, _)| path.ends_with("analysis.json"))
        {
            let analysis: Value = serde_json::from_slice(&path.1).expect("JSON");
            if analysis["sampler"] == sampler {
                means.push((
                    analysis["llc_mean"].as_f64().expect("λ̂"),
                    analysis["llc_mcse"].as_f64().expect("error"),
                ));
            }
        }
        let mean = means.iter().map(|(mean, _)| mean).sum::<f64>() / 3.0;
        let error = means.iter().map(|(_, error)| error * error).sum::<f64>().sqrt() / 3.0;
        let near =
            |value: &Value, expected: f64| (value.as_f64().expect("a number") / expected - 1.0).abs() < 1e-12;
        assert!(near(&group["mean"], mean) && near(&group["error"], error), "{group}");
    }
    let pivot = lambda_hat(root, &["compare", "--by", "target,sampler", "--pivot"]);
    let heading = fits(&pivot).lines().find(|line| line.contains("hmc")).expect("a heading");
    assert!(heading.contains("sgld") && heading.starts_with("target"), "{}", pivot.out);
    for (args, words) in [
        (&["--by", "stepsize"][..], &["did you mean sampler.step_size?", "target.problem"][..]),
        (&["--by", "seed"], &["sampler.seed", "target.seed", "whole name"]),
        (&["--value", "verdict"], &["no numbers"]),
        (&["--pivot", "--by", "target"], &["needs two keys"]),
        (&["--experiment", "tyni"], &["name one of tiny"]),
    ] {
        let refused = lambda_hat(root, &[&["compare"], args].concat());
        assert!(
            refused.code == 2 && words.iter().all(|word| refused.err.contains(word)),
            "{args:?}: {refused:?}"
        );
    }
    let none = temp();
    assert!(lambda_hat(none.path(), &["compare"]).err.contains("holds no store"));
}
