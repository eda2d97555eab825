//! What is seen of a trial on its way: at which draws it is looked at, and what it is worth there.
//!
//! Both follow from its settings and its draws alone, so that what is given up is the same whoever ran it and
//! however often that was killed.

use super::objective::{Estimate, Measured, values};
use super::pruner::{Rule, Step};
use crate::config::Algo;
use crate::config::tune::{Cost, Objective, Pruner, Units};
use crate::stats::mcse_mean;

/// Of a study with the median rule: shares of a trial's draws at its steps 0, 1, 2. Step 3 is its end.
const HALVINGS: [usize; 3] = [8, 4, 2];

/// Places at which a trial is looked at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ladder {
    /// Steps and the draws a chain that they stand for, ascending.
    pub gates: Vec<(u64, usize)>,
    /// The step of the whole trial.
    pub last: u64,
}

/// Draws that a chain keeps; `None` where they say nothing before the last: those of vi are all made from what its
/// optimisation ends with.
pub fn draws(algo: &Algo) -> Option<usize> {
    let every = |steps: u64, warmup: u64, every: u64| (steps / every).saturating_sub(warmup / every) as usize;
    match algo {
        Algo::Hmc(a) => Some(a.draws),
        Algo::Nuts(a) => Some(a.draws),
        Algo::Mala(a) => Some(a.draws),
        Algo::Mclmc(a) => Some(a.draws),
        Algo::Sgld(a) => Some(every(a.steps, a.warmup, a.eval_every)),
        Algo::Sghmc(a) => Some(every(a.steps, a.warmup, a.eval_every)),
        Algo::Sgnht(a) => Some(every(a.steps, a.warmup, a.eval_every)),
        Algo::Vi(_) => None,
    }
}

/// Whether the work of a run is only guessed before it: of trees that double until they turn, and of distances that
/// are found while it is tuned.
pub fn is_a_guess(algo: &Algo) -> bool {
    match algo {
        Algo::Nuts(_) => true,
        Algo::Mclmc(a) => a.thin.is_none(),
        _ => false,
    }
}

impl Ladder {
    /// An eighth, a quarter, a half of so many draws a chain.
    pub fn halvings(draws: Option<usize>) -> Self {
        let gates = draws.into_iter().flat_map(|draws| HALVINGS.map(|part| draws / part));
        let gates: Vec<(u64, usize)> = (0..).zip(gates).filter(|(_, draws)| *draws > 0).collect();
        Self { gates, last: HALVINGS.len() as u64 }
    }

    /// For a trial that keeps so many draws a chain. `median`: an eighth, a quarter, a half; `hyperband`: resource r
    /// is the share r/`max_resource`, and the steps are the resources at which brackets have rungs.
    pub fn of(pruner: &Pruner, draws: Option<usize>) -> Self {
        let Some(draws) = draws else { return Self::default() };
        let (gates, last): (Vec<(u64, usize)>, u64) = match *pruner {
            Pruner::None => return Self::default(),
            Pruner::Median { .. } => return Self::halvings(Some(draws)),
            Pruner::Hyperband { min_resource, max_resource, reduction_factor } => {
                let (min, factor) = (min_resource.max(1), reduction_factor.max(2));
                let max = max_resource.max(min);
                let rungs =
                    std::iter::successors(Some(min), |r| r.checked_mul(factor)).take_while(|r| *r < max);
                let share = |r: u64| (draws as u128 * u128::from(r) / u128::from(max)) as usize;
                (rungs.map(|r| (r, share(r))).collect(), max)
            }
        };
        Self { gates: gates.into_iter().filter(|(_, draws)| *draws > 0).collect(), last }
    }

    /// Numbers of draws at which its chains wait.
    pub fn draws(&self) -> Vec<usize> {
        self.gates.iter().map(|(_, draws)| *draws).collect()
    }
}

/// What a trial's first draws are compared by.
#[derive(Clone, Debug)]
pub struct Yardstick<'a> {
    /// What is minimised.
    pub objective: &'a Objective,
    /// What trials are compared with.
    pub reference: Estimate,
    /// Expected work of the warmup, and of all chains to their end.
    pub work: (f64, f64),
    /// Draws a chain to its end.
    pub draws: usize,
    /// Seconds of a full-data gradient evaluation.
    pub rate: Option<f64>,
}

impl Yardstick<'_> {
    /// λ̂ of the first draws of all chains: their mean.
    pub fn llc(llc: &[&[f64]]) -> f64 {
        let count: usize = llc.iter().map(|chain| chain.len()).sum();
        llc.iter().flat_map(|chain| chain.iter()).sum::<f64>() / count as f64
    }

    /// What the objective would be if the trial ended there. The cost up to there is the share of its expected
    /// work, by the rate of the study where it is counted in seconds: clocks decide nothing.
    fn value(&self, llc: &[&[f64]]) -> f64 {
        let share = llc.first().map_or(0, |chain| chain.len()) as f64 / self.draws.max(1) as f64;
        let fge = self.work.0 + self.work.1 * share;
        let by_errors = matches!(
            self.objective,
            Objective::Abs { units: Units::StandardErrors }
                | Objective::Huber { units: Units::StandardErrors, .. }
        );
        let mcse = if by_errors { mcse_mean(llc) } else { 0.0 };
        let measured = Measured {
            estimate: Estimate { llc: Self::llc(llc), mcse },
            fge,
            seconds: fge * self.rate.unwrap_or(1.0),
            way: &[],
        };
        values(self.objective, &measured, self.reference).map_or(f64::NAN, |values| values[0])
    }

    /// The steps of a trial up to the gate `upto`, counted from 0, from draws that reach as far, and whether `rule`
    /// gives it up at the last of them or did before: then they end where it did.
    pub fn steps(&self, ladder: &Ladder, upto: usize, llc: &[&[f64]], rule: &Rule) -> (Vec<Step>, bool) {
        let mut steps = Vec::new();
        for &(step, draws) in ladder.gates.iter().take(upto + 1) {
            let first: Option<Vec<&[f64]>> = llc.iter().map(|chain| chain.get(..draws)).collect();
            let Some(first) = first else { break };
            steps.push((step, self.value(&first)));
            if rule.stops(&steps) {
                return (steps, true);
            }
        }
        (steps, false)
    }
}

/// Whether no two runs of the study agree, its objective being a clock's.
pub fn by_clock(objective: &Objective) -> bool {
    matches!(
        objective,
        Objective::WorkToAccuracy { cost: Cost::Seconds, .. } | Objective::Pareto { cost: Cost::Seconds, .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ladders_halve_or_follow_the_resources() {
        let median = Pruner::Median { n_startup_trials: 5, n_warmup_steps: 1, interval_steps: 1 };
        let ladder = Ladder::of(&median, Some(1000));
        assert_eq!((ladder.gates, ladder.last), (vec![(0, 125), (1, 250), (2, 500)], 3));
        assert_eq!(Ladder::of(&median, Some(5)).gates, [(1, 1), (2, 2)], "no place without draws");
        let hyperband = Pruner::Hyperband { min_resource: 1, max_resource: 16, reduction_factor: 3 };
        let ladder = Ladder::of(&hyperband, Some(1600));
        assert_eq!((ladder.gates, ladder.last), (vec![(1, 100), (3, 300), (9, 900)], 16));
        assert_eq!(Ladder::of(&Pruner::None, Some(1000)), Ladder::default());
        assert_eq!(Ladder::of(&median, None), Ladder::default());
    }

    #[test]
    fn a_trial_is_worth_what_its_first_draws_say_and_ends_where_its_rule_ends_it() {
        let median = Pruner::Median { n_startup_trials: 5, n_warmup_steps: 0, interval_steps: 1 };
        let ladder = Ladder::of(&median, Some(8));
        let yardstick = Yardstick {
            objective: &Objective::Abs { units: Units::Llc },
            reference: Estimate { llc: 2.0, mcse: 0.0 },
            work: (10.0, 80.0),
            draws: 8,
            rate: None,
        };
        let chains: [&[f64]; 2] = [&[1.0, 3.0, 5.0, 5.0, 9.0], &[2.0, 2.0, 2.0, 2.0]];
        let steps = yardstick.steps(&ladder, 9, &chains, &Rule::Never);
        assert_eq!(steps, (vec![(0, 0.5), (1, 0.0), (2, 0.75)], false));
        let short: [&[f64]; 2] = [&[1.0, 3.0, 5.0, 5.0], &[2.0, 2.0]];
        assert_eq!(yardstick.steps(&ladder, 9, &short, &Rule::Never).0.len(), 2, "not all have come so far");
        let rule = Rule::Above(vec![(0, 0.4), (1, 0.1)]);
        assert_eq!(yardstick.steps(&ladder, 2, &chains, &rule), (vec![(0, 0.5)], true));
        assert_eq!(yardstick.steps(&ladder, 0, &chains, &Rule::Above(vec![(1, 0.1)])).0, [(0, 0.5)]);
        // Half the draws: 10 + 80/2, off by 0.75 where 0.2 may be.
        let objective = Objective::WorkToAccuracy { accuracy: 0.1, cost: Cost::Seconds };
        let timed = Yardstick { objective: &objective, rate: Some(2.0), ..yardstick };
        let (steps, _) = timed.steps(&ladder, 2, &chains, &Rule::Never);
        assert!((steps[2].1 - 100.0 * (0.75_f64 / 0.2).powi(2)).abs() < 1e-9, "{steps:?}");
    }
}
