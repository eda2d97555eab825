//! Against Optuna: how good proposals are, by stored results, and whether it reads our journals.

#[path = "../benches/tune/compare.rs"]
mod compare;
#[path = "../benches/tune/functions.rs"]
mod functions;

use std::path::Path;
use std::process::Command;

use compare::{Comparison, Reference, best, variants};
use functions::functions;
use lambda_hat::config::tune::{
    Condition, Cost, Dimension, Domain, Objective, Pruner, Scalar, StudySpec, TpeSettings, TuneSampler, Units,
};
use lambda_hat::store::Store;
use lambda_hat::tune::importance::importance;
use lambda_hat::tune::journal::{Journal, journal_path};
use lambda_hat::tune::space::Space;
use lambda_hat::tune::study::{End, Outcome, Proposal, Study};
use serde_json::{Map, json};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn reference() -> Reference {
    let text = std::fs::read_to_string(root().join("tests/data/tune/optuna.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn the_functions_are_those_that_optuna_had() {
    let reference = reference();
    for function in functions() {
        let points = &reference.points[function.name];
        assert_eq!(points.len(), 5);
        for point in points {
            let value = (function.value)(&point.params);
            let off = (value - point.value).abs() / point.value.abs().max(1.0);
            assert!(off < 1e-12, "{}: {value} for {}", function.name, point.value);
            function.space().point(&point.params).unwrap();
        }
    }
}

/// Ten seeds of three functions; `make bench-tune` has fifty of all.
#[test]
fn proposals_are_no_worse_than_optunas() {
    let reference = reference();
    for (variant, settings, batched) in variants() {
        let batch = if batched { reference.batch } else { 1 };
        let mut ranks = [0.0; 2];
        for name in ["hartmann6", "mixed", "conditional"] {
            let function = functions().into_iter().find(|f| f.name == name).unwrap();
            let ours: Vec<f64> =
                (0..10).map(|seed| best(&function, &settings, reference.trials, batch, seed)).collect();
            let found = Comparison::of(&ours, &reference.best[variant][name]);
            assert!(!found.is_worse(), "{variant} {name}: {:?}, p = {}", found.medians, found.p);
            ranks = [ranks[0] + found.ranks[0], ranks[1] + found.ranks[1]];
        }
        // Random search would be told from it: its ranks are well above.
        let random = TpeSettings { n_startup_trials: 1000, ..settings };
        let function = functions().into_iter().find(|f| f.name == "conditional").unwrap();
        let blind: Vec<f64> =
            (0..10).map(|seed| best(&function, &random, reference.trials, batch, seed)).collect();
        assert!(Comparison::of(&blind, &reference.best[variant]["conditional"]).is_worse());
    }
}

fn space() -> Space {
    let text = |t: &str| Scalar::Text(t.into());
    let when = vec![Condition { parent: "precond".into(), values: vec![text("adam"), Scalar::Null] }];
    let dimension = |name: &str, domain| Dimension { name: name.into(), domain, when: vec![] };
    Space::new(&[
        dimension("step_size", Domain::Float { low: 1e-6, high: 0.1, log: true, step: None }),
        dimension("decay", Domain::Float { low: 0.0, high: 1.0, log: false, step: Some(0.125) }),
        dimension("steps", Domain::Int { low: 5000, high: 20_000, log: false, step: 1000 }),
        dimension("rank", Domain::Int { low: 1, high: 64, log: true, step: 1 }),
        dimension(
            "precond",
            Domain::Categorical {
                choices: vec![text("adam"), text("rmsprop"), Scalar::Null, Scalar::Bool(true)],
            },
        ),
        Dimension {
            when,
            ..dimension("beta1", Domain::Float { low: 0.5, high: 0.99, log: false, step: None })
        },
    ])
    .unwrap()
}

fn run(proposal: &Proposal, two: bool) -> Outcome {
    let number = |name: &str| match proposal.params.get(name) {
        Some(Scalar::Float(x)) => *x,
        Some(Scalar::Int(i)) => *i as f64,
        _ => 0.0,
    };
    let error = (number("step_size").log10() + 3.0).abs() + 0.3 * number("decay") + 0.1 * number("beta1");
    if number("step_size") > 0.01 {
        return Outcome::failed("a chain left the reach of numbers at step 17");
    }
    let mut outcome = Outcome::complete(&[error]);
    if two {
        outcome.end = End::Complete(vec![error, number("steps")]);
    }
    outcome.notes.insert("fge".into(), json!(number("steps") * 0.25));
    for step in 1..=4u64 {
        outcome.steps.push((step, error + 1.0 / step as f64));
        if proposal.rule.stops(&outcome.steps) {
            outcome.end = End::Pruned;
            break;
        }
    }
    outcome
}

/// A study of 40 trials, the last two of which are still running.
fn write_study(store: &Store, name: &str, two: bool) -> Study {
    let spec = StudySpec {
        max_trials: 40,
        batch_size: 4,
        sampler: TuneSampler::Tpe(TpeSettings::default()),
        seed: 42,
        pruner: if two {
            Pruner::None
        } else {
            Pruner::Median { n_startup_trials: 5, n_warmup_steps: 1, interval_steps: 1 }
        },
        objective: if two {
            Objective::Pareto { units: Units::Llc, cost: Cost::Fge }
        } else {
            Objective::Abs { units: Units::Llc }
        },
    };
    let attributes = Map::from_iter([("method".to_owned(), json!("sgld"))]);
    let (mut journal, mut study) =
        Journal::open(store, &journal_path(name), name, space(), &spec, &attributes).unwrap();
    while let Some(proposal) = study.ask() {
        if proposal.number < 38 {
            study.tell(proposal.number, run(&proposal, two)).unwrap();
            journal.write(&mut study).unwrap();
        }
    }
    study
}

/// Set `LAMBDA_HAT_PYTHON` to a Python with the packages of `tests/python/requirements.txt`.
#[test]
fn optuna_reads_the_journals() {
    let Some(python) = std::env::var_os("LAMBDA_HAT_PYTHON") else {
        eprintln!("SKIPPED: set LAMBDA_HAT_PYTHON (`make test` does) to read journals with Optuna");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let expected: Map<String, serde_json::Value> = [
        ("p_0123456789ab:sgld", false),
        ("p_0123456789ab:two", true),
    ]
    .into_iter()
    .map(|(name, two)| {
        let study = write_study(&store, name, two);
        let trials: Vec<_> = study
            .trials()
            .iter()
            .map(|trial| {
                let (state, values, reason) = match trial.outcome.as_ref().map(|o| &o.end) {
                    None => ("RUNNING", None, None),
                    Some(End::Complete(values)) => ("COMPLETE", Some(values.clone()), None),
                    Some(End::Pruned) => {
                        let last = trial.outcome.as_ref().and_then(Outcome::value);
                        ("PRUNED", last.map(|value| vec![value]), None)
                    }
                    Some(End::Failed(reason)) => ("FAIL", None, Some(reason.clone())),
                };
                json!({
                    "id": trial.id,
                    "params": trial.params,
                    "state": state,
                    "values": values,
                    "reason": reason,
                    "steps": trial.outcome.as_ref().map(|o| o.steps.clone()).unwrap_or_default(),
                })
            })
            .collect();
        let study = json!({
            "path": store.root().join(journal_path(name)),
            "trials": trials,
            "best": study.best().map(|t| t.number),
            "front": study.front().iter().map(|t| t.number).collect::<Vec<_>>(),
            "importance": importance(&study, 0).iter().map(|i| (i.name.clone(), i.share)).collect::<Vec<_>>(),
        });
        (name.to_owned(), study)
    })
    .collect();
    let states = |state: &str| {
        let trials = expected["p_0123456789ab:sgld"]["trials"].as_array().unwrap();
        trials.iter().filter(|t| t["state"] == state).count()
    };
    assert!(states("FAIL") > 0 && states("PRUNED") > 0 && states("RUNNING") == 2, "all states are in it");
    let file = dir.path().join("expected.json");
    std::fs::write(&file, serde_json::to_string(&expected).unwrap()).unwrap();
    let status = Command::new(python)
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
        .arg(root().join("tests/python/test_tune.py"))
        .env("LAMBDA_HAT_STUDIES", &file)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .status()
        .expect("LAMBDA_HAT_PYTHON can be started");
    assert!(status.success());
}
