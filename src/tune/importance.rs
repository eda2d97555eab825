//! Which parameters matter: functional analysis of variance on a random forest (fANOVA: Hutter, Hoos &
//! Leyton-Brown 2014).
//!
//! A forest of regression trees is fitted to the completed trials. Of each tree the variance of its
//! prediction over the whole space (uniform in coordinates and choices) is V, and that of its mean over all
//! other parameters, as a function of parameter i alone, is Vᵢ; both follow exactly from the boxes of the
//! tree's leaves. The importance of i is the mean of Vᵢ/V over trees, scaled to sum 1. A parameter that
//! does not count in a trial stands there at a value of its own beside the domain, so that importance of
//! conditional parameters includes whether they count.

use super::space::{Axis, Space};
use super::study::{End, Study};
use crate::num::rng::{Key, Purpose, index};
use rand_chacha::ChaCha8Rng;

/// Trees of the forest.
const TREES: usize = 64;
/// Trials that a node must have to be split.
const SPLIT: usize = 2;
/// Deepest node.
const DEPTH: usize = 64;
/// Trials that a forest is fitted to, the latest: more change little and cost time.
const MOST: usize = 2000;

/// How much a parameter matters.
#[derive(Clone, Debug, PartialEq)]
pub struct Importance {
    /// The parameter.
    pub name: String,
    /// Share of the variance that it explains alone, of what all explain alone; they sum to 1.
    pub share: f64,
}

/// Importances by falling share, from the `objective`-th value (from 0) of the study's completed trials.
/// Empty where fewer than two trials were completed, or all with the same value.
pub fn importance(study: &Study, objective: usize) -> Vec<Importance> {
    let trials = study.trials()[..study.settled()].iter().filter_map(|trial| match &trial.outcome {
        Some(outcome) => match &outcome.end {
            End::Complete(values) => Some((trial.point(), *values.get(objective)?)),
            _ => None,
        },
        None => None,
    });
    let trials: Vec<(&[Option<f64>], f64)> = trials.collect();
    let latest = &trials[trials.len().saturating_sub(MOST)..];
    let rows: Vec<Vec<f64>> = latest.iter().map(|(point, _)| row(study.space(), point)).collect();
    let values: Vec<f64> = latest.iter().map(|(_, value)| *value).collect();
    let shares = shares(study.space(), &rows, &values, study.id().0);
    let names = study.space().dimensions().iter().map(|d| d.name.clone());
    let mut found: Vec<Importance> =
        names.zip(shares).map(|(name, share)| Importance { name, share }).collect();
    found.sort_by(|a, b| b.share.total_cmp(&a.share));
    found
}

/// Coordinates scaled to [0, 1]; a choice is its index; −1 where the parameter does not count.
fn row(space: &Space, point: &[Option<f64>]) -> Vec<f64> {
    let scaled = |(axis, value): (&Axis, &Option<f64>)| match (axis, value) {
        (_, None) => ABSENT,
        (Axis::Choice(_), Some(k)) => *k,
        (axis, Some(value)) => {
            let (low, high) = axis.edges();
            if high > low { (axis.coordinate(*value) - low) / (high - low) } else { 0.5 }
        }
    };
    space.axes().iter().zip(point).map(scaled).collect()
}

const ABSENT: f64 = -1.0;

/// What a parameter may be, as trees see it: an interval, or some choices; and whether it may be absent.
#[derive(Clone, Debug)]
struct Side {
    /// Interval of scaled coordinates; empty once only absence is left.
    interval: (f64, f64),
    /// The choices that are left.
    choices: Vec<bool>,
    absent: bool,
}

/// Where a node's trials are parted.
enum Cut {
    Below(f64),
    /// These choices go left.
    Among(Vec<bool>),
    /// Absent goes left.
    Absent,
}

impl Cut {
    fn left(&self, value: f64) -> bool {
        match self {
            Cut::Below(at) => value != ABSENT && value < *at,
            Cut::Among(choices) => value != ABSENT && choices[value as usize],
            Cut::Absent => value == ABSENT,
        }
    }

    fn sides(&self, side: &Side) -> (Side, Side) {
        let (mut left, mut right) = (side.clone(), side.clone());
        match self {
            Cut::Below(at) => {
                left.interval.1 = *at;
                right.interval.0 = *at;
            }
            Cut::Among(choices) => {
                for (k, goes_left) in choices.iter().enumerate() {
                    if *goes_left { right.choices[k] = false } else { left.choices[k] = false }
                }
            }
            Cut::Absent => {
                left.interval = (0.0, 0.0);
                left.choices.iter_mut().for_each(|c| *c = false);
                right.absent = false;
                return (left, right);
            }
        }
        // What is absent goes right.
        left.absent = false;
        (left, right)
    }
}

/// A leaf: its box and its mean.
struct Leaf {
    sides: Vec<Side>,
    mean: f64,
}

/// Shares of the variance of a forest's mean that each parameter explains; empty where nothing varies.
fn shares(space: &Space, rows: &[Vec<f64>], values: &[f64], id: [u8; 32]) -> Vec<f64> {
    let axes = space.axes();
    let varies = values.iter().any(|v| *v != values[0]);
    if rows.len() < 2 || !varies || axes.is_empty() {
        return Vec::new();
    }
    // Probability that each parameter is absent, by the trials.
    let absent: Vec<f64> = (0..axes.len())
        .map(|i| rows.iter().filter(|row| row[i] == ABSENT).count() as f64 / rows.len() as f64)
        .collect();
    let root: Vec<Side> = axes
        .iter()
        .zip(&absent)
        .map(|(axis, absent)| Side {
            interval: (0.0, 1.0),
            choices: match axis {
                Axis::Choice(n) => vec![true; *n],
                Axis::Number { .. } => Vec::new(),
            },
            absent: *absent > 0.0,
        })
        .collect();
    let mut sums = vec![0.0; axes.len()];
    for tree in 0..TREES {
        let mut rng = Key::new(id, Purpose::Forest, 0).at(tree as u64);
        let sample: Vec<usize> = (0..rows.len()).map(|_| index(&mut rng, rows.len())).collect();
        let mut leaves = Vec::new();
        grow(&Data { rows, values, axes }, sample, root.clone(), 0, &mut rng, &mut leaves);
        let alone = explained(&leaves, axes, &absent);
        for (sum, share) in sums.iter_mut().zip(alone) {
            *sum += share;
        }
    }
    let total: f64 = sums.iter().sum();
    if total > 0.0 { sums.into_iter().map(|s| s / total).collect() } else { Vec::new() }
}

struct Data<'a> {
    rows: &'a [Vec<f64>],
    values: &'a [f64],
    axes: &'a [Axis],
}

/// Grows a tree below a node and collects its leaves. Every cut is the one, over all parameters, that
/// leaves the least sum of squares.
fn grow(
    data: &Data<'_>,
    members: Vec<usize>,
    sides: Vec<Side>,
    depth: usize,
    rng: &mut ChaCha8Rng,
    leaves: &mut Vec<Leaf>,
) {
    let mean = members.iter().map(|&m| data.values[m]).sum::<f64>() / members.len() as f64;
    let cut = (members.len() >= SPLIT && depth < DEPTH).then(|| best_cut(data, &members, rng)).flatten();
    let Some((i, cut)) = cut else {
        leaves.push(Leaf { sides, mean });
        return;
    };
    let (left, right): (Vec<usize>, Vec<usize>) = members.iter().partition(|&&m| cut.left(data.rows[m][i]));
    let (left_side, right_side) = cut.sides(&sides[i]);
    let with = |side| {
        let mut sides = sides.clone();
        sides[i] = side;
        sides
    };
    grow(data, left, with(left_side), depth + 1, rng, leaves);
    grow(data, right, with(right_side), depth + 1, rng, leaves);
}

/// The best cut of a node; ties go to the parameter that a random order puts first.
fn best_cut(data: &Data<'_>, members: &[usize], rng: &mut ChaCha8Rng) -> Option<(usize, Cut)> {
    let n = data.axes.len();
    let mut order: Vec<usize> = (0..n).collect();
    for k in (1..n).rev() {
        order.swap(k, index(rng, k + 1));
    }
    let mut best: Option<(f64, usize, Cut)> = None;
    let mut offer = |gain: f64, i: usize, cut: Cut| {
        if gain > best.as_ref().map_or(1e-300, |b| b.0) {
            best = Some((gain, i, cut));
        }
    };
    for i in order {
        let present: Vec<usize> = members.iter().copied().filter(|&m| data.rows[m][i] != ABSENT).collect();
        let value = |m: usize| data.values[m];
        let total: f64 = members.iter().map(|&m| value(m)).sum();
        let count = members.len() as f64;
        // What a cut takes off the sum of squares, left having `k` members of this sum.
        let gain = |sum: f64, k: usize| {
            let k = k as f64;
            if k == 0.0 || k == count {
                return 0.0;
            }
            let difference = sum / k - (total - sum) / (count - k);
            difference * difference * k * (count - k) / count
        };
        let absent_sum = total - present.iter().map(|&m| value(m)).sum::<f64>();
        if present.len() < members.len() {
            offer(gain(absent_sum, members.len() - present.len()), i, Cut::Absent);
        }
        match data.axes[i] {
            Axis::Choice(choices) => {
                // For squares the best of all subsets is among those of the choices in the order of
                // their means (Fisher 1958).
                let mut means: Vec<(f64, usize, usize, f64)> = (0..choices)
                    .filter_map(|k| {
                        let of: Vec<f64> = present
                            .iter()
                            .filter(|&&m| data.rows[m][i] as usize == k)
                            .map(|&m| value(m))
                            .collect();
                        let sum: f64 = of.iter().sum();
                        (!of.is_empty()).then(|| (sum / of.len() as f64, k, of.len(), sum))
                    })
                    .collect();
                means.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                let (mut sum, mut k, mut left) = (0.0, 0, vec![false; choices]);
                for (_, choice, members_of, sum_of) in means.iter().take(means.len().saturating_sub(1)) {
                    sum += sum_of;
                    k += members_of;
                    left[*choice] = true;
                    offer(gain(sum, k), i, Cut::Among(left.clone()));
                }
            }
            Axis::Number { .. } => {
                let mut sorted = present;
                sorted.sort_by(|&a, &b| data.rows[a][i].total_cmp(&data.rows[b][i]).then(a.cmp(&b)));
                let mut sum = 0.0;
                for (k, pair) in sorted.windows(2).enumerate() {
                    sum += value(pair[0]);
                    let (a, b) = (data.rows[pair[0]][i], data.rows[pair[1]][i]);
                    if a < b {
                        offer(gain(sum, k + 1), i, Cut::Below(0.5 * (a + b)));
                    }
                }
            }
        }
    }
    best.map(|(_, i, cut)| (i, cut))
}

/// Vᵢ/V of one tree for each parameter.
fn explained(leaves: &[Leaf], axes: &[Axis], absent: &[f64]) -> Vec<f64> {
    let weight = |side: &Side, i: usize| {
        let present = match axes[i] {
            Axis::Choice(n) => side.choices.iter().filter(|c| **c).count() as f64 / n as f64,
            Axis::Number { .. } => side.interval.1 - side.interval.0,
        };
        present * (1.0 - absent[i]) + if side.absent { absent[i] } else { 0.0 }
    };
    let weights: Vec<Vec<f64>> = leaves
        .iter()
        .map(|leaf| leaf.sides.iter().enumerate().map(|(i, side)| weight(side, i)).collect())
        .collect();
    let volumes: Vec<f64> = weights.iter().map(|w| w.iter().product()).collect();
    let total: f64 = volumes.iter().sum();
    let mean: f64 = leaves.iter().zip(&volumes).map(|(l, v)| l.mean * v).sum::<f64>() / total;
    let variance: f64 =
        leaves.iter().zip(&volumes).map(|(l, v)| (l.mean - mean).powi(2) * v).sum::<f64>() / total;
    if variance <= 0.0 || variance.is_nan() {
        return vec![0.0; axes.len()];
    }
    let alone = |i: usize| {
        // The mean over the others at a value of i: the leaves whose box holds it, by their other weights.
        let others = |k: usize| {
            weights[k].iter().enumerate().filter(|(j, _)| *j != i).map(|(_, w)| w).product::<f64>()
        };
        let at = |holds: &dyn Fn(&Side) -> bool| {
            let (mut sum, mut volume) = (0.0, 0.0);
            for (k, leaf) in leaves.iter().enumerate() {
                if holds(&leaf.sides[i]) {
                    let w = others(k);
                    sum += leaf.mean * w;
                    volume += w;
                }
            }
            if volume > 0.0 { sum / volume } else { mean }
        };
        let mut pieces: Vec<(f64, f64)> = Vec::new();
        let present = 1.0 - absent[i];
        match axes[i] {
            Axis::Choice(n) => {
                for k in 0..n {
                    pieces.push((present / n as f64, at(&|side: &Side| side.choices[k])));
                }
            }
            Axis::Number { .. } => {
                let mut ends: Vec<f64> =
                    leaves.iter().flat_map(|l| [l.sides[i].interval.0, l.sides[i].interval.1]).collect();
                ends.extend([0.0, 1.0]);
                ends.sort_by(f64::total_cmp);
                ends.dedup();
                for pair in ends.windows(2) {
                    let middle = 0.5 * (pair[0] + pair[1]);
                    let holds = |side: &Side| side.interval.0 <= middle && middle < side.interval.1;
                    pieces.push((present * (pair[1] - pair[0]), at(&holds)));
                }
            }
        }
        if absent[i] > 0.0 {
            pieces.push((absent[i], at(&|side: &Side| side.absent)));
        }
        let centre: f64 = pieces.iter().map(|(w, m)| w * m).sum();
        pieces.iter().map(|(w, m)| w * (m - centre).powi(2)).sum::<f64>() / variance
    };
    (0..axes.len()).map(alone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tune::{
        Condition, Dimension, Domain, Objective, Pruner, Scalar, StudySpec, TuneSampler, Units,
    };
    use crate::tune::space::Params;
    use crate::tune::study::Outcome;

    fn float(name: &str) -> Dimension {
        let domain = Domain::Float { low: 0.0, high: 1.0, log: false, step: None };
        Dimension { name: name.into(), domain, when: vec![] }
    }

    fn shares_of(dimensions: &[Dimension], trials: usize, f: impl Fn(&Params) -> f64) -> Vec<(String, f64)> {
        let spec = StudySpec {
            max_trials: trials,
            batch_size: 1,
            sampler: TuneSampler::Random,
            seed: 3,
            pruner: Pruner::None,
            objective: Objective::Abs { units: Units::Llc },
        };
        let mut study = Study::new("p_1:m", Space::new(dimensions).unwrap(), &spec).unwrap();
        while let Some(proposal) = study.ask() {
            study.tell(proposal.number, Outcome::complete(&[f(&proposal.params)])).unwrap();
        }
        assert_eq!(importance(&study, 1), []);
        let found = importance(&study, 0);
        assert!(found.is_empty() || (found.iter().map(|i| i.share).sum::<f64>() - 1.0).abs() < 1e-12);
        found.into_iter().map(|i| (i.name, i.share)).collect()
    }

    fn x(params: &Params, name: &str) -> f64 {
        match params.get(name) {
            Some(Scalar::Float(x)) => *x,
            _ => f64::NAN,
        }
    }

    #[test]
    fn a_sum_is_parted_by_the_variances_of_its_terms() {
        // Uniform x: the variances of 4a, 2b, c are in the proportion 16 : 4 : 1, and d has none.
        let names = ["a", "b", "c", "d"].map(float);
        let found = shares_of(&names, 400, |p| 4.0 * x(p, "a") + 2.0 * x(p, "b") + x(p, "c"));
        assert_eq!(found.iter().map(|f| f.0.as_str()).collect::<Vec<_>>(), ["a", "b", "c", "d"]);
        // A forest of 400 points smooths: a tenth of the whole is allowed.
        for ((name, share), exact) in found.iter().zip([16.0 / 21.0, 4.0 / 21.0, 1.0 / 21.0, 0.0]) {
            assert!((share - exact).abs() < 0.1, "{name}: {share} for {exact}");
        }
    }

    #[test]
    fn choices_and_what_counts_only_beside_them_are_told_apart() {
        let choices = (0..4).map(Scalar::Int).collect();
        let c = Dimension { name: "c".into(), domain: Domain::Categorical { choices }, when: vec![] };
        let when = vec![Condition { parent: "c".into(), values: vec![Scalar::Int(0), Scalar::Int(1)] }];
        let child = Dimension { when, ..float("child") };
        let f = |p: &Params| if p["c"] == Scalar::Int(2) { 3.0 } else { 0.0 } + 0.1 * x(p, "a");
        let found = shares_of(&[c, child, float("a")], 300, f);
        assert_eq!(found[0].0, "c");
        assert!(found[0].1 > 0.6, "{found:?}");
        let least = found.iter().find(|f| f.0 == "a").unwrap();
        assert!(least.1 < 0.1, "{found:?}");
    }

    #[test]
    fn nothing_is_important_where_nothing_varies() {
        assert_eq!(shares_of(&[float("a")], 10, |_| 1.0), []);
        assert_eq!(shares_of(&[float("a")], 1, |p| x(p, "a")), []);
    }
}
