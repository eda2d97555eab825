use std::fs;

use super::*;
use crate::config::tune::{Condition, Objective, Pruner, Scalar, TpeSettings, TuneSampler, Units};
use crate::tune::study::Proposal;

const NAME: &str = "p_0123456789ab:vi";

fn space() -> Space {
    let choices = vec![Scalar::Null, Scalar::Bool(true), Scalar::Int(3), Scalar::Text("ü".into())];
    let when = vec![Condition { parent: "c".into(), values: vec![Scalar::Null, Scalar::Int(3)] }];
    let dimension = |name: &str, domain| Dimension { name: name.into(), domain, when: vec![] };
    Space::new(&[
        dimension("x", Domain::Float { low: 1e-6, high: 1.0, log: true, step: None }),
        dimension("c", Domain::Categorical { choices }),
        Dimension { when, ..dimension("n", Domain::Int { low: 2, high: 11, log: false, step: 3 }) },
    ])
    .unwrap()
}

fn spec() -> StudySpec {
    StudySpec {
        max_trials: 20,
        batch_size: 3,
        sampler: TuneSampler::Tpe(TpeSettings { n_startup_trials: 5, ..TpeSettings::default() }),
        seed: 1,
        pruner: Pruner::Median { n_startup_trials: 2, n_warmup_steps: 0, interval_steps: 1 },
        objective: Objective::Abs { units: Units::Llc },
    }
}

fn open(store: &Store, spec: &StudySpec) -> Result<(Journal, Study), JournalError> {
    let attributes = Map::from_iter([("method".to_owned(), json!("vi"))]);
    Journal::open(store, &journal_path(NAME), NAME, space(), spec, &attributes)
}

fn run(proposal: &Proposal) -> Outcome {
    let Some(Scalar::Float(x)) = proposal.params.get("x") else { panic!() };
    if *x > 0.3 {
        return Outcome::failed("loss is NaN\nat step 3");
    }
    let value = (x.log10() + 3.0).abs() / 3.0;
    let mut outcome = Outcome::complete(&[value]);
    outcome.notes.insert("fge".into(), json!(1200.5));
    for step in 0..3 {
        outcome.steps.push((step, value + 0.1));
        if proposal.rule.stops(&outcome.steps) {
            outcome.end = End::Pruned;
        }
    }
    outcome
}

/// Tells up to `most` outcomes.
fn go_on(journal: &mut Journal, study: &mut Study, most: usize) {
    for _ in 0..most {
        let Some(proposal) = study.ask() else { return };
        study.tell(proposal.number, run(&proposal)).unwrap();
        journal.write(study).unwrap();
    }
}

/// The file without its times.
fn timeless(store: &Store) -> Vec<Value> {
    let text = fs::read_to_string(store.root().join(journal_path(NAME))).unwrap();
    let line = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        for key in ["datetime_start", "datetime_complete"] {
            if let Some(time) = line.as_object_mut().unwrap().get_mut(key) {
                assert_eq!(time.as_str().unwrap().len(), "2026-01-01T00:00:00.000000+00:00".len());
                *time = Value::Null;
            }
        }
        line
    };
    text.lines().map(line).collect()
}

#[test]
fn a_study_cut_after_any_line_is_taken_up_and_ends_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (mut journal, mut study) = open(&store, &spec()).unwrap();
    go_on(&mut journal, &mut study, 100);
    assert!(study.is_done());
    let expected = timeless(&store);
    let path = dir.path().join(journal_path(NAME));
    let whole = fs::read(&path).unwrap();
    let ends: Vec<usize> = (0..whole.len()).filter(|i| whole[*i] == b'\n').map(|i| i + 1).collect();
    for (k, end) in [0].into_iter().chain(ends).enumerate() {
        // Half a line more: it is cut off.
        fs::write(&path, &whole[..(end + 20 * (k % 2)).min(whole.len())]).unwrap();
        let (mut journal, mut again) = open(&store, &spec()).unwrap();
        go_on(&mut journal, &mut again, 100);
        assert_eq!(again.trials(), study.trials());
        let mut found = timeless(&store);
        // Of a trial that was killed while it was settled, some lines stand there twice.
        found.dedup();
        let mut rest = expected.iter();
        assert!(found.iter().filter(|line| !expected.contains(line)).count() == 0, "{k}");
        let settled =
            |line: &&Value| line["op_code"] == operation::STATE || line["op_code"] == operation::CREATE_TRIAL;
        for line in found.iter().filter(settled) {
            assert!(rest.any(|other| other == line), "{k}: {line}");
        }
    }
    // What is finished is not begun again.
    let before = fs::read(&path).unwrap();
    assert!(open(&store, &spec()).unwrap().1.ask().is_none());
    assert_eq!(fs::read(&path).unwrap(), before);
    // More trials go on from there.
    let (mut journal, mut longer) = open(&store, &StudySpec { max_trials: 25, ..spec() }).unwrap();
    go_on(&mut journal, &mut longer, 100);
    assert_eq!(longer.trials()[..20], study.trials()[..]);
    assert_eq!(longer.settled(), 25);
}

#[test]
fn files_that_hold_something_else_are_refused_with_a_remedy() {
    let refused = |prepare: &dyn Fn(&Store, &Path)| {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let path = dir.path().join(journal_path(NAME));
        {
            let (mut journal, mut study) = open(&store, &spec()).unwrap();
            go_on(&mut journal, &mut study, 4);
        }
        prepare(&store, &path);
        let error = open(&store, &spec()).unwrap_err().to_string();
        assert!(error.contains("move the file away") && error.contains("journal.log"), "{error}");
        error
    };
    let text = |path: &Path| fs::read_to_string(path).unwrap();
    let error =
        refused(&|_, path| fs::write(path, text(path).replace("\"op_code\":4", "op_code:4")).unwrap());
    assert!(error.contains(".journal.log:5: not JSON"), "{error}");
    let error = refused(&|_, path| fs::write(path, text(path).replace("\"x\":", "\"y\":")).unwrap());
    assert!(error.contains("y is no parameter"), "{error}");
    let error = refused(&|_, path| fs::write(path, text(path).replace("\"r_", "\"q_")).unwrap());
    assert!(error.contains("trial 0 in it was made by another program"), "{error}");
    let error = refused(&|_, path| fs::write(path, text(path).replace(NAME, "other")).unwrap());
    assert!(error.contains("holds no study called p_0123456789ab:vi"), "{error}");
    let error = refused(&|store, path| {
        fs::remove_file(path).unwrap();
        open(store, &StudySpec { seed: 2, ..spec() }).unwrap();
    });
    assert!(error.contains("made with other settings"), "{error}");
}
