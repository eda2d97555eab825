//! Studies of the functions, what Optuna reached on them, and whether the difference is one.

use std::collections::{BTreeMap, VecDeque};

use lambda_hat::config::tune::{Objective, Pruner, Scalar, StudySpec, TpeSettings, TuneSampler, Units};
use lambda_hat::num::Real;
use lambda_hat::num::rng::{Key, Purpose};
use lambda_hat::tune::study::{Outcome, Study};
use serde::Deserialize;

use super::functions::Function;

/// What Optuna reached, as `optuna_reference.py` wrote it.
#[derive(Deserialize)]
pub struct Reference {
    #[allow(dead_code, reason = "the tests do not print it")]
    pub optuna: String,
    pub trials: usize,
    pub batch: usize,
    /// Variant → function → the best value of each seed.
    pub best: BTreeMap<String, BTreeMap<String, Vec<f64>>>,
    /// Function → points and their values; the tests read them.
    #[allow(dead_code, reason = "the benchmark leaves them to the tests")]
    pub points: BTreeMap<String, Vec<PointOf>>,
}

/// A point and its value.
#[derive(Deserialize)]
#[allow(dead_code, reason = "the benchmark leaves them to the tests")]
pub struct PointOf {
    pub params: BTreeMap<String, Scalar>,
    pub value: f64,
}

/// The variants: name, settings and whether trials run in batches.
pub fn variants() -> [(&'static str, TpeSettings, bool); 3] {
    let joint = TpeSettings::default();
    let single = TpeSettings { multivariate: false, ..joint.clone() };
    [("multivariate", joint.clone(), false), ("univariate", single, false), ("batch", joint, true)]
}

/// The noise-free value of the trial that looks best after `trials` of them, `batch` in flight.
pub fn best(function: &Function, settings: &TpeSettings, trials: usize, batch: usize, seed: u64) -> f64 {
    let spec = StudySpec {
        max_trials: trials,
        batch_size: batch,
        sampler: TuneSampler::Tpe(settings.clone()),
        seed,
        pruner: Pruner::None,
        objective: Objective::Abs { units: Units::Llc },
    };
    let mut study = Study::new(function.name, function.space(), &spec).expect("a study");
    let noise = Key::new(study.id().0, Purpose::Probe, 0);
    let mut values = Vec::with_capacity(trials);
    let mut flying = VecDeque::new();
    loop {
        while let Some(proposal) = study.ask() {
            flying.push_back(proposal);
        }
        let Some(proposal) = flying.pop_front() else { break };
        let value = (function.value)(&proposal.params);
        let z = f64::standard_normal(&mut noise.at(proposal.number as u64));
        study.tell(proposal.number, Outcome::complete(&[value + function.noise * z])).expect("a trial");
        values.resize(values.len().max(proposal.number + 1), value);
        values[proposal.number] = value;
    }
    values[study.best().expect("a completed trial").number]
}

/// Two samples compared by ranks.
pub struct Comparison {
    /// Median of ours and of theirs.
    pub medians: [f64; 2],
    /// Mean rank of ours and of theirs, from 1, both together.
    pub ranks: [f64; 2],
    /// Two-sided p of the Mann–Whitney test (normal approximation with ties and continuity).
    pub p: f64,
}

impl Comparison {
    pub fn of(ours: &[f64], theirs: &[f64]) -> Self {
        let mut all: Vec<(f64, usize)> =
            ours.iter().map(|v| (*v, 0)).chain(theirs.iter().map(|v| (*v, 1))).collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (mut sums, mut ties, mut at) = ([0.0; 2], 0.0, 0);
        while at < all.len() {
            let end = at + all[at..].iter().take_while(|(v, _)| *v == all[at].0).count();
            let rank = (at + 1 + end) as f64 / 2.0;
            for (_, side) in &all[at..end] {
                sums[*side] += rank;
            }
            let t = (end - at) as f64;
            ties += t * t * t - t;
            at = end;
        }
        let (n, m) = (ours.len() as f64, theirs.len() as f64);
        let u = sums[0] - n * (n + 1.0) / 2.0;
        let total = n + m;
        let variance = n * m / 12.0 * (total + 1.0 - ties / (total * (total - 1.0)));
        let z = ((u - n * m / 2.0).abs() - 0.5).max(0.0) / variance.sqrt();
        let p = if variance > 0.0 { libm::erfc(z / std::f64::consts::SQRT_2) } else { 1.0 };
        Self { medians: [median(ours), median(theirs)], ranks: [sums[0] / n, sums[1] / m], p }
    }

    /// Ours are larger, beyond chance at 1 %.
    pub fn is_worse(&self) -> bool {
        self.p < 0.01 && self.ranks[0] > self.ranks[1]
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let n = values.len();
    0.5 * (values[(n - 1) / 2] + values[n / 2])
}
