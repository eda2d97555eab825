//! Runs that join a job on the way are as good as runs of its plan.

use std::path::Path;
use std::sync::Arc;

use lambda_hat::comm;
use lambda_hat::config::{self, LoadOptions};
use lambda_hat::store::Store;
use lambda_hat::sweep::{
    self, Observer, Options, Plan, PlannedRun, Progress, Proposer, RunReport, RunState, Summary, SweepError,
};

const TARGETS: &str = "experiment: grow\ntargets:\n  - { problem: quadratic, eigenvalues: [1, 10], n_data: 100 }\n  \
                       - { problem: dln, widths: [2, 1, 2], rank: 1 }\n";

fn plan(samplers: &str) -> Plan {
    let text = format!("{TARGETS}samplers:\n{samplers}");
    Plan::new(&config::parse(&text, "grow.yaml", &LoadOptions::default()).expect("parses")).expect("plans")
}

fn hmc(seed: usize) -> String {
    format!("  - {{ name: hmc, seed: {seed}, overrides: {{ draws: 50, warmup: 50, chains: 2 }} }}\n")
}

struct Silent;

impl Observer for Silent {
    fn progress(&mut self, _: &Progress<'_>) {}
}

/// Proposes one run a round on each target, the next when both have ended.
struct Rounds {
    left: Vec<Vec<PlannedRun>>,
    under_way: usize,
    told: Vec<(String, f64)>,
}

impl Rounds {
    fn of(rounds: usize) -> Self {
        let round = |seed: usize| {
            let known = plan(&hmc(seed));
            let again = |run: &Arc<PlannedRun>| {
                known.run_on(run.target, &run.sampler, &run.posterior).expect("is no larger than it was")
            };
            known.runs.iter().map(again).collect()
        };
        Self { left: (1..=rounds).rev().map(round).collect(), under_way: 0, told: Vec::new() }
    }
}

impl Proposer for Rounds {
    fn propose(&mut self, _: &Plan) -> Result<Vec<PlannedRun>, SweepError> {
        if self.under_way > 0 {
            return Ok(Vec::new());
        }
        let round = self.left.pop().unwrap_or_default();
        self.under_way = round.len();
        Ok(round)
    }

    fn ended(&mut self, plan: &Plan, index: usize, report: &RunReport) -> Result<(), SweepError> {
        self.under_way -= 1;
        let RunState::Done(analysis) = &report.state else { panic!("{report:?}") };
        self.told.push((plan.runs[index].id.to_string(), analysis.llc_mean.expect("is finite")));
        Ok(())
    }
}

fn launch(root: &Path, plan: Plan, proposer: Option<&mut dyn Proposer>) -> Summary {
    let store = Arc::new(Store::open(root).expect("opens"));
    let mut comm = comm::connect(true).expect("needs no ranks");
    sweep::run_and_grow(&Arc::new(plan), &store, comm.as_mut(), &Options::of(2), &mut Silent, proposer)
        .expect("ends well")
}

fn estimates(told: &[(String, f64)]) -> Vec<(String, f64)> {
    let mut sorted = told.to_vec();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    sorted
}

#[test]
fn runs_that_join_are_those_of_a_plan_and_are_not_done_twice() {
    let planned = tempfile::tempdir().expect("a directory");
    let all: String = (1..=3).map(hmc).collect();
    let whole = launch(planned.path(), plan(&all), None);
    let expected: Vec<(String, f64)> = whole
        .plan
        .runs
        .iter()
        .zip(&whole.runs)
        .map(|(run, report)| match &report.state {
            RunState::Done(a) => (run.id.to_string(), a.llc_mean.expect("is finite")),
            other => panic!("{other:?}"),
        })
        .collect();

    let grown = tempfile::tempdir().expect("a directory");
    let mut rounds = Rounds::of(3);
    // The plan has the run of the first round on both targets: what is proposed again is there.
    let summary = launch(grown.path(), plan(&hmc(1)), Some(&mut rounds));
    assert_eq!(estimates(&rounds.told), estimates(&[&expected[..], &[]].concat()));
    assert_eq!(summary.plan.runs.len(), summary.runs.len());
    let again: Vec<bool> = summary.runs.iter().map(|run| run.executed).collect();
    assert_eq!(again.iter().filter(|executed| **executed).count(), 6, "{again:?}");

    // To the bit, control chains included.
    let objects = |root: &Path| -> Vec<_> {
        let store = Store::open(root).expect("opens");
        let ours = store.list_refs(lambda_hat::store::RUN).expect("lists");
        ours.into_iter().map(|record| (record.id, record.objects)).collect()
    };
    assert_eq!(objects(planned.path()), objects(grown.path()));

    let mut rounds = Rounds::of(3);
    let second = launch(grown.path(), plan(&hmc(1)), Some(&mut rounds));
    assert_eq!(second.executed, 0);
    assert_eq!(estimates(&rounds.told), estimates(&expected));
}
