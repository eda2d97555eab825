//! Tune files: what good ones mean, and what is said about bad ones.
//!
//! Each `tests/data/tune/errors/NAME.yaml` is refused with exactly the text of `NAME.txt` beside it.
//! Leading comment lines `# --set a.b=c` are options. `UPDATE_EXPECT=1` rewrites the texts and the schema.

use std::fs;
use std::path::{Path, PathBuf};

use lambda_hat::config::tune::{
    Condition, Domain, Objective, Pruner, Scalar, TuneExperiment, TuneSampler, Units, load_tune, parse_tune,
    trial_sampler,
};
use lambda_hat::config::{Algo, LoadOptions, tune_json_schema, tune_keys};
use lambda_hat::num::rng::{Key, Purpose};
use lambda_hat::tune::space::Space;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn options(set: &[&str]) -> LoadOptions {
    LoadOptions { set: set.iter().map(|s| (*s).to_owned()).collect(), ..LoadOptions::default() }
}

fn parsed(text: &str, set: &[&str]) -> TuneExperiment {
    parse_tune(text, "f.yaml", &options(set)).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn every_bad_file_is_refused_in_the_words_on_record() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let mut files: Vec<PathBuf> =
        fs::read_dir(root().join("tests/data/tune/errors")).unwrap().map(|f| f.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "yaml"));
    files.sort();
    assert!(files.len() >= 15, "only {} cases", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let set: Vec<&str> = text.lines().map_while(|l| l.strip_prefix("# --set ")).collect();
        let name = file.file_name().unwrap().to_str().unwrap();
        let found = format!("{}\n", parse_tune(&text, name, &options(&set)).expect_err(name));
        let on_record = file.with_extension("txt");
        if update {
            fs::write(&on_record, &found).unwrap();
        }
        let expected = fs::read_to_string(&on_record).unwrap_or_default();
        if found != expected {
            wrong.push(format!("{}\nexpected:\n{expected}found:\n{found}", file.display()));
        }
        for line in found.lines() {
            let place = line.split(": ").next().unwrap();
            assert!(place.starts_with(&format!("{name}:")) || place.starts_with("--set "), "{line}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const SMALL: &str = "problems: [{ model: small, data: small, teacher: _null }]\n";

#[test]
fn older_files_mean_the_same() {
    let newer = "search_space: {sgld: {step_size: {dist: float, low: 1.0e-6, high: 0.1, log: true}, \
                 batch_size: {dist: categorical, choices: [32, 64]}}}\n\
                 methods: [sgld]\ntune: {max_trials_per_method: 20, sampler: {seed: 7}}\n";
    let older = "search_space: {sgld: {eta0: {type: float, low: 1.0e-6, high: 0.1, log: true}, \
                 batch: {type: categorical, choices: [32, 64]}}}\n\
                 methods: [sgld]\noptuna: {max_trials_per_method: 20, sampler: {seed: 7}}\n\
                 execution: {parsl_card: local}\nstore: {root: x}\njax_enable_x64: true\n";
    let newer = parsed(&format!("{SMALL}{newer}precision: f64\n"), &[]);
    let older = parsed(&format!("{}{older}", SMALL.replace("problems", "targets")), &[]);
    assert_eq!(newer.notices, Vec::<String>::new());
    let said = older.notices.join("\n");
    for part in [
        "eta0 is read as step_size",
        "batch is read as batch_size",
        "optuna is read as tune",
        "parsl_card",
        "store",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!((&newer.methods, &newer.study), (&older.methods, &older.study));
    let spec = |e: &TuneExperiment| e.targets[e.problems[0].target].spec.clone();
    assert_eq!(newer.problems[0].posterior, older.problems[0].posterior);
    assert_eq!(
        spec(&newer),
        spec(&parsed(
            &format!("{SMALL}search_space: {{hmc: {{draws: {{dist: int, low: 1, high: 9}}}}}}"),
            &[]
        ))
    );
}

#[test]
fn options_go_before_the_file_under_either_name() {
    let space = "search_space: {hmc: {draws: {dist: int, low: 10, high: 90}}}\n";
    for name in ["tune", "optuna"] {
        let text = format!(
            "{SMALL}{space}{name}: {{max_trials_per_method: 20, sampler: {{seed: 7, points: 4, type: grid}}}}"
        );
        let set = ["tune.max_trials_per_method=24", "tune.sampler.seed=8", "search_space.hmc.draws.high=80"];
        let found = parsed(&text, &set);
        assert_eq!((found.study.max_trials, found.study.seed), (24, 8));
        assert_eq!(found.study.sampler, TuneSampler::Grid { points: 4 });
        let domain = &found.methods[0].dimensions[0].domain;
        assert_eq!(*domain, Domain::Int { low: 10, high: 80, log: false, step: 1 });
    }
}

#[test]
fn defaults_are_those_of_the_tables() {
    let found =
        parsed(&format!("{SMALL}search_space: {{hmc: {{draws: {{dist: int, low: 10, high: 90}}}}}}"), &[]);
    let study = found.study;
    assert_eq!((study.max_trials, study.batch_size, study.seed), (50, 8, 42));
    assert_eq!(study.sampler, TuneSampler::Tpe(lambda_hat::config::tune::TpeSettings::default()));
    assert_eq!(study.pruner, Pruner::Median { n_startup_trials: 5, n_warmup_steps: 1, interval_steps: 1 });
    assert_eq!(study.objective, Objective::Abs { units: Units::Llc });
    assert_eq!(found.budget, lambda_hat::config::tune::Budget::default());
    // Nothing is compared half-way where there are two objectives.
    let two = format!(
        "{SMALL}search_space: {{hmc: {{draws: {{dist: int, low: 10, high: 90}}}}}}\ntune: {{objective: {{type: pareto}}}}"
    );
    assert_eq!(parsed(&two, &[]).study.pruner, Pruner::None);
}

#[test]
fn the_files_that_come_with_the_program_are_good_and_their_trials_can_run() {
    for (file, methods) in [("demo", 3), ("default", 8)] {
        let path = root().join(format!("config/tune/{file}.yaml"));
        let found = load_tune(&path, &LoadOptions::default()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(found.methods.len(), methods);
        assert_eq!(found.notices, Vec::<String>::new());
        for method in &found.methods {
            let space = Space::new(&method.dimensions).unwrap();
            let key = Key::new([2; 32], Purpose::Proposal, 0);
            for number in 0..100 {
                let params = space.params(&space.random(&mut key.at(number)));
                let spec = trial_sampler(&method.method, &params, 1, found.precision, None);
                let spec = spec.unwrap_or_else(|e| panic!("{file}, {}: {params:?}\n{e}", method.method));
                assert_eq!(spec.algo.name(), method.method);
            }
        }
    }
    let demo = load_tune(&root().join("config/tune/demo.yaml"), &LoadOptions::default()).unwrap();
    let mclmc = demo.methods.iter().find(|m| m.method == "mclmc").unwrap();
    let when = Condition { parent: "adjusted".into(), values: vec![Scalar::Bool(false)] };
    assert_eq!(mclmc.dimensions.last().unwrap().when, [when]);
    assert_eq!(demo.budget.trial_fge, Some(1e6));
}

#[test]
fn a_trial_has_its_settings_and_is_refused_where_an_experiment_would_be() {
    let params = |pairs: &[(&str, Scalar)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
    let spec = trial_sampler(
        "sgld",
        &params(&[("step_size", Scalar::Float(1e-4)), ("steps", Scalar::Int(123_456))]),
        9,
        None,
        None,
    );
    let spec = spec.unwrap();
    let Algo::Sgld(sgld) = spec.algo else { panic!() };
    assert_eq!((sgld.step_size, sgld.steps, spec.seed), (Some(1e-4), 123_456, 9));
    let error = trial_sampler("sgld", &params(&[("steps", Scalar::Int(10))]), 9, None, None).unwrap_err();
    assert!(error.to_string().contains("warmup"), "{error}");
}

#[test]
fn the_checked_in_schema_is_this_programs() {
    let path = root().join("config/tune/schema.json");
    let text = serde_json::to_string_pretty(&tune_json_schema()).unwrap() + "\n";
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, &text).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap() == text,
        "rewrite config/tune/schema.json with UPDATE_EXPECT=1"
    );
    assert!(tune_keys().iter().all(|key| key.doc.ends_with('.')));
}
