//! When a trial is given up on the way: rules made when it is proposed, from what was known then.
//!
//! A [`Rule`] is plain data that travels with the trial. It knows nothing of trials that end later, so that
//! what is given up does not depend on who was faster.

use serde::{Deserialize, Serialize};

use crate::config::tune::Pruner;
use crate::num::rng::{Key, Purpose, index};

/// An intermediate value and its step.
pub type Step = (u64, f64);

/// A trial that a rule is made from.
#[derive(Clone, Copy, Debug)]
pub struct Past<'a> {
    /// Its number.
    pub number: usize,
    /// Whether it ran to its end.
    pub complete: bool,
    /// Its intermediate values, by ascending step.
    pub steps: &'a [Step],
}

/// When one trial is given up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Rule {
    /// Never.
    Never,
    /// At a step, when the least value so far is above the step's threshold.
    Above(Vec<Step>),
    /// At a rung, unless the value is among the best of those that came there.
    Rungs {
        /// Steps of the rungs and the values that others had there, ascending.
        rungs: Vec<(u64, Vec<f64>)>,
        /// One of so many goes on.
        factor: u64,
    },
}

impl Rule {
    /// Whether a trial with these intermediate values, the last one just found, is given up.
    /// A value that is no number is given up wherever a finite one could be.
    pub fn stops(&self, steps: &[Step]) -> bool {
        let Some(&(step, value)) = steps.last() else { return false };
        match self {
            Rule::Never => false,
            Rule::Above(thresholds) => {
                let Some((_, threshold)) = thresholds.iter().find(|(at, _)| *at == step) else {
                    return false;
                };
                let least = steps.iter().map(|(_, v)| *v).fold(f64::NAN, f64::min);
                value.is_nan() || least.is_nan() || least > *threshold
            }
            Rule::Rungs { rungs, factor } => {
                let before = steps.len().checked_sub(2).map(|i| steps[i].0);
                // Rungs that this step is the first to reach.
                let reached =
                    rungs.iter().filter(|(at, _)| *at <= step && before.is_none_or(|before| before < *at));
                reached.into_iter().any(|(_, others)| {
                    let places = (others.len() as u64 + 1) / factor;
                    let better = others.iter().filter(|other| **other < value).count() as u64;
                    value.is_nan() || better >= places.max(1)
                })
            }
        }
    }
}

/// The rule for trial `number` of the study `id`, from the trials it knows.
pub fn rule(pruner: &Pruner, id: [u8; 32], number: usize, past: &[Past<'_>]) -> Rule {
    match *pruner {
        Pruner::None => Rule::Never,
        Pruner::Median { n_startup_trials, n_warmup_steps, interval_steps } => {
            let complete: Vec<&Past> = past.iter().filter(|trial| trial.complete).collect();
            if complete.len() < n_startup_trials.max(1) {
                return Rule::Never;
            }
            let mut steps: Vec<u64> = complete.iter().flat_map(|t| t.steps.iter().map(|s| s.0)).collect();
            steps.sort_unstable();
            steps.dedup();
            let looked_at =
                |s: &u64| *s >= n_warmup_steps && (s - n_warmup_steps).is_multiple_of(interval_steps.max(1));
            let threshold = |step: u64| {
                let at = |t: &&Past| t.steps.iter().find(|s| s.0 == step).map(|s| s.1);
                let mut values: Vec<f64> = complete.iter().filter_map(at).filter(|v| !v.is_nan()).collect();
                values.sort_by(f64::total_cmp);
                Some((step, median(&values)?))
            };
            Rule::Above(steps.into_iter().filter(looked_at).filter_map(threshold).collect())
        }
        Pruner::Hyperband { min_resource, max_resource, reduction_factor } => {
            let (min, max, factor) =
                (min_resource.max(1), max_resource.max(min_resource.max(1)), reduction_factor.max(2));
            let brackets = brackets(min, max, factor);
            let own = bracket(id, number, &brackets);
            let rungs = (own as u32..).map_while(|power| {
                let step = factor.checked_pow(power)?.checked_mul(min)?;
                (step < max).then_some(step)
            });
            let others = |step: u64| {
                let mut values: Vec<f64> = past
                    .iter()
                    .filter(|trial| bracket(id, trial.number, &brackets) == own)
                    .filter_map(|trial| trial.steps.iter().find(|s| s.0 >= step).map(|s| s.1))
                    .filter(|value| !value.is_nan())
                    .collect();
                values.sort_by(f64::total_cmp);
                (step, values)
            };
            Rule::Rungs { rungs: rungs.map(others).collect(), factor }
        }
    }
}

/// The middle of ascending values, halfway between two; `None` of none.
fn median(values: &[f64]) -> Option<f64> {
    let n = values.len();
    match n {
        0 => None,
        _ if n % 2 == 1 => Some(values[n / 2]),
        _ => Some(0.5 * (values[n / 2 - 1] + values[n / 2])),
    }
}

/// Shares of the trials in each bracket: with S + 1 = ⌊log_η(max/min)⌋ + 1 of them, bracket b, whose first
/// rung lies at min·ηᵇ, gets ⌈(S + 1) ηˢ/(s + 1)⌉, s = S − b (Li et al. 2018, algorithm 1).
fn brackets(min: u64, max: u64, factor: u64) -> Vec<u64> {
    let (mut count, mut reach) = (1, min);
    while let Some(next) = reach.checked_mul(factor).filter(|next| *next <= max) {
        (reach, count) = (next, count + 1);
    }
    (0..count).map(|b| (count * factor.pow((count - 1 - b) as u32)).div_ceil(count - b)).collect()
}

/// The bracket of a trial, a pure function of its number.
fn bracket(id: [u8; 32], number: usize, shares: &[u64]) -> usize {
    let total: u64 = shares.iter().sum();
    let mut rng = Key::new(id, Purpose::Bracket, 0).at(number as u64);
    let mut at = index(&mut rng, total as usize) as u64;
    for (bracket, share) in shares.iter().enumerate() {
        if at < *share {
            return bracket;
        }
        at -= share;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(steps: &[Vec<Step>]) -> Vec<Past<'_>> {
        steps.iter().enumerate().map(|(number, s)| Past { number, complete: true, steps: s }).collect()
    }

    #[test]
    fn the_median_of_completed_trials_decides_from_the_warmup_on() {
        let steps: Vec<Vec<Step>> =
            (1..=5).map(|i| (0..6).map(|s| (s, f64::from(i) / (s + 1) as f64)).collect()).collect();
        let pruner = Pruner::Median { n_startup_trials: 5, n_warmup_steps: 1, interval_steps: 2 };
        let mut seen = past(&steps);
        let made = rule(&pruner, [0; 32], 9, &seen);
        assert_eq!(made, Rule::Above(vec![(1, 1.5), (3, 0.75), (5, 0.5)]));
        assert!(!made.stops(&[(0, 99.0)]), "warmup");
        assert!(!made.stops(&[(0, 99.0), (1, 1.5)]), "the median itself");
        assert!(made.stops(&[(0, 99.0), (1, 1.6)]));
        assert!(!made.stops(&[(0, 1.0), (1, 1.6)]), "its least value counts");
        assert!(!made.stops(&[(0, 99.0), (2, 99.0)]), "between the intervals");
        assert!(made.stops(&[(1, f64::NAN)]));
        assert!(!made.stops(&[]));
        seen[0].complete = false;
        assert_eq!(rule(&pruner, [0; 32], 9, &seen), Rule::Never, "four are too few");
    }

    #[test]
    fn rungs_keep_one_of_three_and_the_first() {
        let pruner = Pruner::Hyperband { min_resource: 1, max_resource: 9, reduction_factor: 3 };
        assert_eq!(brackets(1, 9, 3), [9, 5, 3]);
        let steps: Vec<Vec<Step>> = (0..300).map(|i| vec![(1, f64::from(i)), (3, f64::from(-i))]).collect();
        let seen = past(&steps);
        let rules: Vec<Rule> = (300..600).map(|n| rule(&pruner, [0; 32], n, &seen)).collect();
        let mut of = [0.0; 3];
        for rule in &rules {
            let Rule::Rungs { rungs, factor: 3 } = rule else { panic!("{rule:?}") };
            of[2 - rungs.len()] += 1.0;
            let first = [1, 3];
            assert_eq!(rungs.iter().map(|r| r.0).collect::<Vec<_>>(), first[2 - rungs.len()..]);
            if let Some((1, others)) = rungs.first() {
                let third = others[others.len() / 3 - 1];
                assert!(!rule.stops(&[(1, third - 0.5)]));
                assert!(rule.stops(&[(1, others[others.len() / 3 + 1])]));
                assert!(rule.stops(&[(1, f64::NAN)]));
                assert!(!rule.stops(&[(1, -1.0), (2, 1e9)]), "no rung at 2");
                assert!(rule.stops(&[(1, -1.0), (4, 1e9)]), "4 reaches the rung at 3");
            }
        }
        // Within four standard errors of 9, 5 and 3 of 17.
        for (found, share) in of.iter().zip([9.0, 5.0, 3.0]) {
            let p: f64 = share / 17.0;
            assert!((found / 300.0 - p).abs() < 4.0 * (p * (1.0 - p) / 300.0).sqrt(), "{of:?}");
        }
        let alone = Rule::Rungs { rungs: vec![(1, vec![])], factor: 3 };
        assert!(!alone.stops(&[(1, 5.0)]));
        let second = Rule::Rungs { rungs: vec![(1, vec![4.0])], factor: 3 };
        assert!(second.stops(&[(1, 5.0)]));
        assert!(!second.stops(&[(1, 3.0)]));
    }
}
