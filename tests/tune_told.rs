//! What a search says of its trials, budgets, references and objectives.

#[path = "support/searches.rs"]
mod searches;
mod support;

use lambda_hat::io::table::ColumnData;
use searches::{column, config, numbers, searched, searched_by, temp, texts};
use serde_json::Value;
use support::{Ran, lambda_hat};

#[test]
fn what_a_trial_is_expected_to_cost_is_what_it_costs() {
    let root = temp();
    searched(root.path(), "2");
    let (fge, expected) = (column(root.path(), "fge"), numbers(column(root.path(), "expected_fge")));
    let ColumnData::F64(fge) = fge else { panic!("{fge:?}") };
    let mut seen = 0;
    for (fge, expected) in fge.iter().zip(expected) {
        // One that blows up ends early. The descent for L0 is counted whole and may end early; how long a
        // trajectory is, and how many trials of a first step there are, is up to chance.
        if let Some(fge) = fge {
            assert!((0.9 * expected..=1.03 * expected).contains(fge), "{fge} of {expected} FGE");
            seen += 1;
        }
    }
    assert!(seen >= 8, "{seen} trials ended");
}

/// Of the only study of that method in what a search printed as JSON.
fn told(ran: &Ran, method: &str) -> Value {
    let all: Value = serde_json::from_str(&ran.out).expect("JSON");
    let mut studies = all["studies"].as_array().expect("studies").iter();
    let of_method = |s: &&Value| s["study"].as_str().is_some_and(|name| name.ends_with(method));
    studies.find(of_method).cloned().expect("its study")
}

#[test]
fn a_reference_that_is_made_anew_is_not_passed_off_as_the_study_s() {
    let (root, config) = (temp(), config());
    let few = ["--set", "search_space.sgld.step_size.high=1e-3"];
    // A short first round, by what is expected of it.
    let rough = ["--set", "execution.budget.hmc_fge=4e4", "--allow-rough-reference"];
    let first = searched_by(root.path(), &[&[config.as_str()], &few[..], &rough[..]].concat());
    let first = told(&first, "hmc");
    let reason = first["reference_rough"].as_str().expect("a reason");
    assert!(reason.contains("(wanted: 1.00 %)"), "{reason}");
    assert_eq!(first["reference_llc"], first["newest_reference_llc"]);

    let second = searched_by(root.path(), &[&[config.as_str()], &few[..]].concat());
    assert_eq!(second.code, 0, "{second:?}");
    let second = told(&second, "hmc");
    assert_eq!(second["reference_llc"], first["reference_llc"], "what trials are measured against stays");
    assert_ne!(second["newest_reference_llc"], first["newest_reference_llc"]);
    let newest = second["newest_reference_llc"].as_f64().expect("a number");
    let off = (second["fresh_llc"].as_f64().expect("a number") - newest).abs() / newest;
    assert!((second["relative_error"].as_f64().expect("a number") - off).abs() < 1e-12);

    let arguments = [&["tune", config.as_str(), "--local", "-q"], &few[..]].concat();
    let table = lambda_hat(root.path(), &arguments).out;
    assert!(table.contains("its trials are measured against"), "{table}");
    assert!(table.contains("its reference is rough: its standard error is"), "{table}");
    let status = lambda_hat(root.path(), &["tune", "status"]).out;
    assert!(status.contains("8/8") && status.contains("its reference is rough"), "{status}");
    // The reference's file says what was found of its chains.
    let dir = std::fs::read_dir(root.path().join("artifacts/problems")).expect("references");
    let file = dir.flatten().next().expect("one").path().join("ref.json");
    let kept: Value = serde_json::from_slice(&std::fs::read(file).expect("is there")).expect("JSON");
    assert_eq!((kept["verdict"].as_str(), kept["converged"].as_bool()), (Some("ok"), Some(true)), "{kept}");
    assert!(kept["divergences"].is_u64() && kept["drift_z"].is_f64(), "{kept}");
}

#[test]
fn a_journal_of_other_settings_is_refused_by_their_names() {
    let root = temp();
    searched(root.path(), "2");
    let (seed, low) = ("tune.sampler.seed=2", "search_space.hmc.draws.low=300");
    let ran = lambda_hat(root.path(), &["tune", &config(), "--local", "--set", seed, "--set", low]);
    assert_eq!(ran.code, 2, "{ran:?}");
    for part in ["seed: 1 there, 2 now", "search_space.draws.domain.int.low: 200 there, 300 now", "--root"] {
        assert!(ran.err.contains(part), "{part}: {}", ran.err);
    }
    assert!(!ran.err.contains("all done before"), "{}", ran.err);
    let ran = lambda_hat(root.path(), &["tune", &config(), "--local", "--hmc-budget", "-1"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("--hmc-budget") && ran.err.contains("expected seconds from 0"), "{}", ran.err);
}

#[test]
fn objectives_are_called_by_their_names_and_units() {
    let root = temp();
    let pareto = ["--set", "tune.objective.type=pareto", "--set", "tune.objective.cost=seconds"];
    let ran = searched_by(root.path(), &[&[config().as_str(), "--workers", "2"], &pareto[..]].concat());
    let names = "|λ̂ − λ_ref|; time (s)";
    assert_eq!(told(&ran, "hmc")["objective"], names);
    assert!(texts(column(root.path(), "objective")).iter().all(|name| name == names));
    let seconds = numbers(column(root.path(), "value_seconds"));
    // Failed trials have none.
    assert!(seconds.iter().all(|s| s.is_nan() || *s > 0.0) && seconds.iter().any(|s| *s > 0.0));
    let dir = std::fs::read_dir(root.path().join("results/studies")).expect("studies");
    for entry in dir.flatten().filter(|e| e.path().extension().is_some_and(|e| e == "log")) {
        let text = std::fs::read_to_string(entry.path()).expect("a journal");
        let system = text.lines().map(|l| serde_json::from_str::<Value>(l).expect("JSON"));
        let named =
            system.filter(|l| l["op_code"] == 3).map(|l| l["system_attr"]["study:metric_names"].clone());
        assert_eq!(named.collect::<Vec<_>>(), [serde_json::json!(["|λ̂ − λ_ref|", "time (s)"])]);
    }
}

#[test]
fn a_second_search_leaves_the_rows_of_the_first() {
    let root = temp();
    searched(root.path(), "2");
    let first = texts(column(root.path(), "study"));
    let file = root.path().join("other.yaml");
    let text = std::fs::read_to_string(config()).expect("is there");
    let text = text.replace("widths: [2, 1, 2], rank: 1", "widths: [2, 2], rank: 1");
    std::fs::write(&file, text).expect("writes");
    searched_by(root.path(), &[&file.to_string_lossy(), "--allow-rough-reference"]);
    let both = texts(column(root.path(), "study"));
    assert_eq!(both.len(), 2 * first.len());
    assert_eq!(both[..first.len()], first[..]);
    assert!(both[first.len()..].iter().all(|study| !first.contains(study)));
    // Its own rows are not doubled.
    searched_by(root.path(), &[&file.to_string_lossy(), "--allow-rough-reference"]);
    assert_eq!(texts(column(root.path(), "study")).len(), both.len());
}

/// A search of `nuts` on a singular target, whose trees nobody knows before.
fn trees(cap: f64) -> String {
    format!(
        "problems: [{{ problem: dln, widths: [2, 1, 2], rank: 0 }}]
methods: [nuts]
tune:
  max_trials_per_method: 6
  sampler: {{ type: random, seed: 1 }}
  pruner: {{ type: none }}
search_space:
  nuts:
    max_tree_depth: {{ dist: int, low: 2, high: 10 }}
    target_acceptance: {{ dist: float, low: 0.6, high: 0.99 }}
execution: {{ budget: {{ trial_fge: {cap} }} }}
"
    )
}

#[test]
fn a_trial_that_takes_more_than_its_budget_fails_on_the_way() {
    let root = temp();
    let file = root.path().join("trees.yaml");
    let name = file.to_string_lossy().into_owned();
    std::fs::write(&file, trees(80_000.0)).expect("writes");
    let ran = lambda_hat(root.path(), &["tune", &name, "--local", "--json", "-q"]);
    let states = texts(column(root.path(), "state"));
    let (reasons, fge) = (texts(column(root.path(), "reason")), numbers(column(root.path(), "fge")));
    let mut over = 0;
    for ((state, reason), fge) in states.iter().zip(&reasons).zip(&fge) {
        if state == "failed" {
            assert!(reason.starts_with("over_budget: more than 1.1 times its 8.000e4 FGE"), "{reason}");
            over += 1;
        } else {
            assert!(*fge <= 88_000.0, "{fge} FGE of a trial that {state}");
        }
    }
    assert!(over > 0, "none took more: {ran:?}");
    // The same with another budget: what was begun stays, and that is said.
    std::fs::write(&file, trees(1e6)).expect("writes");
    let again = lambda_hat(root.path(), &["tune", &name, "--local"]);
    let words: Vec<&str> = again.out.split_whitespace().collect();
    assert!(words.join(" ").contains("the budget of its trials stays what it began with"), "{}", again.out);
    assert_eq!(texts(column(root.path(), "state")), states);
}

#[test]
fn the_best_value_is_told_beside_what_its_settings_come_to_again() {
    let root = temp();
    let work = ["--set", "tune.objective.type=work_to_accuracy", "--set", "tune.objective.accuracy=0.1"];
    let ran = searched_by(root.path(), &[&[config().as_str()], &work[..]].concat());
    let told = told(&ran, "hmc");
    let (best, again) = (told["best"].as_f64().expect("a number"), told["fresh_values"][0].as_f64());
    // Chosen as the least of eight, it is less than what the same settings take on average.
    assert!(again.expect("a number") > best, "{told}");
    assert!(told["fresh_values_half_width"][0].as_f64().expect("a number") > 0.0);
    assert_eq!(told["objective"], "FGE to accuracy");
    let table = lambda_hat(root.path(), &[&["tune", &config(), "--local", "-q"], &work[..]].concat()).out;
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
}

#[test]
fn a_budget_in_seconds_says_what_it_is_in_gradients() {
    let root = temp();
    let budget = ["--method-budget", "20", "--set", "execution.budget.trial_fge=1e12"];
    let ran = lambda_hat(root.path(), &[&["tune", &config(), "--local", "-q"], &budget[..]].concat());
    let words: Vec<&str> = ran.out.split_whitespace().collect();
    assert!(words.join(" ").contains("FGE, their seconds at this machine's speed; `trial_fge: "), "{ran:?}");
    let status = lambda_hat(root.path(), &["tune", "status", "--json"]).out;
    let status: Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!((&status[0]["asked"], &status[0]["objective"]), (&8.into(), &"|λ̂ − λ_ref|".into()));
}

#[test]
fn one_target_under_two_posteriors_is_two_problems() {
    let root = temp();
    let file = root.path().join("two.yaml");
    let text = std::fs::read_to_string(config()).expect("is there");
    let problem = "{ problem: dln, widths: [2, 1, 2], rank: 1, n_data: 100";
    let second = format!("{problem} }}\n  - {problem}, posterior: {{ gamma: 5.0 }} }}");
    let text = text.replacen(&format!("{problem} }}"), &second, 1);
    let text = text.replace("methods: [hmc, sgld]", "methods: [hmc]");
    let sgld = text.find("  sgld:").expect("stands there")..text.find("execution:").expect("stands there");
    let text = text.replace(&text[sgld], "").replace("max_trials_per_method: 8", "max_trials_per_method: 3");
    std::fs::write(&file, text).expect("writes");
    let file = file.to_string_lossy().into_owned();
    let plan = lambda_hat(root.path(), &["tune", &file, "--dry-run"]);
    assert!(plan.out.contains("(problems[0])") && plan.out.contains("(problems[1])"), "{}", plan.out);

    let ran = searched_by(root.path(), &[&file, "--workers", "2"]);
    let all: Value = serde_json::from_str(&ran.out).expect("JSON");
    let studies = all["studies"].as_array().expect("studies");
    assert_eq!(studies.len(), 2, "{all}");
    let of = |i: usize, key: &str| studies[i][key].as_f64().expect("a number");
    assert_ne!(studies[0]["study"], studies[1]["study"]);
    assert_ne!(of(0, "reference_llc"), of(1, "reference_llc"));
    for i in [0, 1] {
        assert!(of(i, "relative_error") < 0.2, "{all}");
    }
    let status = lambda_hat(root.path(), &["tune", "status", &file]).out;
    assert!(status.contains("(problems[0])") && status.contains("(problems[1])"), "{status}");
    // A preset that cannot be read is what is told, not the spaces that it belongs to.
    let ran = lambda_hat(root.path(), &["tune", &file, "--presets", "nope", "--dry-run"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("--presets nope") && !ran.err.contains("takes no settings"), "{ran:?}");
    // The target is built once for both.
    assert_eq!(std::fs::read_dir(root.path().join("artifacts/problems")).expect("references").count(), 2);
    assert_eq!(std::fs::read_dir(root.path().join("store/refs/target")).expect("targets").count(), 1);
}

#[test]
fn files_of_trials_that_are_lost_are_written_again() {
    let root = temp();
    searched(root.path(), "2");
    let mut files = Vec::new();
    for problem in std::fs::read_dir(root.path().join("artifacts/runs")).expect("trials").flatten() {
        for id in std::fs::read_dir(problem.path().join("sgld")).expect("trials").flatten() {
            files.extend(["manifest.json", "metrics.json"].map(|name| id.path().join(name)));
        }
    }
    assert_eq!(files.len(), 16);
    let read = |path: &std::path::PathBuf| {
        let mut value: Value = serde_json::from_slice(&std::fs::read(path).expect("is there")).expect("JSON");
        // How long it took is lost.
        value["seconds"] = Value::Null;
        value
    };
    let before: Vec<Value> = files.iter().map(read).collect();
    files.iter().for_each(|file| std::fs::remove_file(file).expect("goes"));
    // What is there and cannot be read is as lost.
    std::fs::write(&files[0], "{").expect("writes");
    let again = searched(root.path(), "2");
    assert_eq!(support::executed(&again), 0);
    assert_eq!(files.iter().map(read).collect::<Vec<_>>(), before);
}
