use proptest::prelude::*;

use super::*;
use crate::config::tune::{Condition, Dimension, Domain, Objective, Pruner, Scalar, TpeSettings, Units};

fn space() -> Space {
    let text = |t: &str| Scalar::Text(t.into());
    let when = vec![Condition { parent: "kind".into(), values: vec![text("b")] }];
    Space::new(&[
        Dimension {
            name: "x".into(),
            domain: Domain::Float { low: 0.0, high: 1.0, log: false, step: None },
            when: vec![],
        },
        Dimension {
            name: "kind".into(),
            domain: Domain::Categorical { choices: vec![text("a"), text("b")] },
            when: vec![],
        },
        Dimension { name: "n".into(), domain: Domain::Int { low: 1, high: 9, log: true, step: 1 }, when },
    ])
    .unwrap()
}

/// Six points.
fn small() -> Space {
    let domain = Domain::Int { low: 1, high: 6, log: false, step: 1 };
    Space::new(&[Dimension { name: "n".into(), domain, when: vec![] }]).unwrap()
}

fn spec(batch_size: usize) -> StudySpec {
    StudySpec {
        max_trials: 30,
        batch_size,
        sampler: TuneSampler::Tpe(TpeSettings { n_startup_trials: 5, ..TpeSettings::default() }),
        seed: 42,
        pruner: Pruner::Median { n_startup_trials: 3, n_warmup_steps: 0, interval_steps: 1 },
        objective: Objective::Abs { units: Units::Llc },
    }
}

/// What a trial comes to: a pure function of the proposal, with failures and pruning in it.
fn run(proposal: &Proposal) -> Outcome {
    let number = |name: &str| match proposal.params.get(name) {
        Some(Scalar::Float(x)) => *x,
        Some(Scalar::Int(i)) => *i as f64,
        _ => 0.0,
    };
    let value = (number("x") - 0.4).powi(2) + 0.1 * number("n");
    if value > 0.9 {
        return Outcome::failed("it diverged");
    }
    let mut outcome = Outcome::complete(&[value]);
    for step in 0..3u64 {
        outcome.steps.push((step, value + 1.0 / (step + 1) as f64));
        if proposal.rule.stops(&outcome.steps) {
            outcome.end = End::Pruned;
            break;
        }
    }
    outcome
}

/// Runs a study to its end; `pick` says which of the trials in flight ends next.
fn drive(mut study: Study, mut pick: impl FnMut(usize) -> usize) -> (Study, Vec<Event>) {
    let mut flying: Vec<Proposal> = Vec::new();
    let mut events = Vec::new();
    loop {
        while let Some(proposal) = study.ask() {
            flying.push(proposal);
        }
        events.extend(study.events());
        if flying.is_empty() {
            assert!(study.is_done());
            return (study, events);
        }
        let proposal = flying.remove(pick(flying.len()));
        study.tell(proposal.number, run(&proposal)).unwrap();
    }
}

#[test]
fn a_study_ends_with_its_trials_and_its_best() {
    let (study, events) = drive(Study::new("p_1:m", space(), &spec(1)).unwrap(), |_| 0);
    assert_eq!(study.trials().len(), 30);
    assert_eq!(events.len(), 60);
    let best = study.best().unwrap();
    let End::Complete(values) = &best.outcome.as_ref().unwrap().end else { panic!() };
    assert!(values[0] < 0.01, "{values:?}");
    let ends: Vec<&End> = study.trials().iter().map(|t| &t.outcome.as_ref().unwrap().end).collect();
    assert!(ends.iter().any(|e| matches!(e, End::Pruned)));
    assert!(ends.iter().any(|e| matches!(e, End::Failed(reason) if reason == "it diverged")));
    assert!(study.trials().iter().all(|t| t.id.len() == 14 && t.id.starts_with("r_")));
}

#[test]
fn a_window_holds_as_many_as_the_batch_and_no_proposal_overtakes_it() {
    let mut study = Study::new("p_1:m", space(), &spec(4)).unwrap();
    let first: Vec<Proposal> = std::iter::from_fn(|| study.ask()).collect();
    assert_eq!(first.iter().map(|p| p.number).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(first[3].liars, [0, 1, 2]);
    for number in [3, 1, 2] {
        study.tell(number, run(&first[number])).unwrap();
        assert_eq!((study.ask(), study.settled()), (None, 0));
    }
    study.tell(0, run(&first[0])).unwrap();
    let next: Vec<Proposal> = std::iter::from_fn(|| study.ask()).collect();
    assert_eq!(next.iter().map(|p| p.number).collect::<Vec<_>>(), [4, 5, 6, 7]);
    // 4 was made from trial 0 alone, though four were told when it was handed out.
    assert_eq!(next[0].liars, [1, 2, 3]);
    assert_eq!(study.tell(0, run(&first[0])), Err(StudyError::Told(0)));
    assert_eq!(study.tell(99, run(&first[0])), Err(StudyError::Unknown(99)));
}

#[test]
fn values_that_are_no_numbers_are_failures_with_their_reason() {
    let mut study = Study::new("p_1:m", space(), &spec(1)).unwrap();
    for (values, reason) in [
        (vec![f64::NAN], "the objective is NaN"),
        (vec![f64::INFINITY], "the objective is inf"),
        (vec![1.0, 2.0], "2 values for 1 objectives"),
    ] {
        let number = study.ask().unwrap().number;
        let mut outcome = Outcome::complete(&values);
        outcome.steps = vec![(2, 1.0), (1, f64::NAN), (0, 3.0)];
        study.tell(number, outcome).unwrap();
        let outcome = study.trials()[number].outcome.clone().unwrap();
        assert_eq!(outcome.end, End::Failed(reason.into()));
        assert_eq!(outcome.steps, [(0, 3.0), (2, 1.0)]);
    }
    assert_eq!(study.best(), None);
}

#[test]
fn no_parameters_are_run_twice() {
    for sampler in [TuneSampler::Random, spec(1).sampler] {
        let spec = StudySpec { sampler, ..spec(3) };
        let mut study = Study::new("p_1:m", small(), &spec).unwrap();
        let mut ran: Vec<String> = Vec::new();
        while let Some(proposal) = study.ask() {
            assert!(!ran.contains(&proposal.id));
            ran.push(proposal.id.clone());
            study.tell(proposal.number, run(&proposal)).unwrap();
        }
        assert_eq!(ran.len(), 6);
        assert!(study.is_done() && study.trials().len() == 30);
        for trial in study.trials() {
            if let Some(twin) = trial.twin {
                assert_eq!(trial.outcome, study.trials()[twin].outcome);
                assert_eq!(trial.id, study.trials()[twin].id);
            }
        }
    }
}

#[test]
fn a_grid_is_worked_through_once() {
    let spec = StudySpec { sampler: TuneSampler::Grid { points: 3 }, ..spec(2) };
    let (study, _) = drive(Study::new("p_1:m", space(), &spec).unwrap(), |_| 0);
    // x three, and for kind b three of n.
    assert_eq!(study.trials().len(), 12);
    assert!(study.trials().iter().all(|t| t.twin.is_none()));
    let short = StudySpec { max_trials: 5, ..spec };
    let (study, _) = drive(Study::new("p_1:m", space(), &short).unwrap(), |_| 0);
    assert_eq!(study.trials().len(), 5);
    let large = StudySpec { sampler: TuneSampler::Grid { points: 100_000 }, ..short };
    assert!(matches!(Study::new("p_1:m", space(), &large), Err(StudyError::Grid)));
}

#[test]
fn two_objectives_give_a_front() {
    let spec = StudySpec {
        objective: Objective::Pareto { units: Units::Llc, cost: crate::config::tune::Cost::Fge },
        pruner: Pruner::None,
        ..spec(1)
    };
    let mut study = Study::new("p_1:m", space(), &spec).unwrap();
    while let Some(proposal) = study.ask() {
        let Some(Scalar::Float(x)) = proposal.params.get("x") else { panic!() };
        let penalty = if proposal.params["kind"] == Scalar::Text("a".into()) { 0.0 } else { 1.0 };
        study.tell(proposal.number, Outcome::complete(&[x + penalty, 1.0 - x + penalty])).unwrap();
    }
    let front = study.front();
    assert!(front.iter().all(|t| t.params["kind"] == Scalar::Text("a".into())));
    // What is on the front was found more often than by chance, which is half.
    assert!(front.len() >= 20, "{}", front.len());
    assert_eq!(study.best(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_order_of_arrival_changes_nothing(
        picks in proptest::collection::vec(0usize..1000, 64), batch in 1usize..9
    ) {
        let new = || Study::new("p_1:m", space(), &spec(batch)).unwrap();
        let (expected, events) = drive(new(), |_| 0);
        let mut at = 0;
        let (study, order) = drive(new(), |n| {
            at += 1;
            picks[at % picks.len()] % n
        });
        prop_assert_eq!(study.trials(), expected.trials());
        prop_assert_eq!(order, events);
    }

    #[test]
    fn a_study_taken_up_again_ends_the_same(cut in 0usize..60, batch in 1usize..9) {
        let new = || Study::new("p_1:m", space(), &spec(batch)).unwrap();
        let (expected, events) = drive(new(), |_| 0);
        // What a journal holds after so many events.
        let mut recorded: Vec<Recorded> = Vec::new();
        for event in &events[..cut] {
            match event {
                Event::Proposed(k) => {
                    recorded.push(Recorded { params: expected.trials()[*k].params.clone(), outcome: None });
                }
                Event::Settled(k) => recorded[*k].outcome = expected.trials()[*k].outcome.clone(),
            }
        }
        let study = Study::resume("p_1:m", space(), &spec(batch), &recorded).unwrap();
        let (study, rest) = drive(study, |n| n - 1);
        prop_assert_eq!(study.trials(), expected.trials());
        prop_assert_eq!(rest, &events[cut..]);
    }
}
