//! The tree-structured Parzen estimator (Bergstra et al. 2011; Bergstra, Yamins & Cox 2013; Watanabe 2023).
//!
//! Trials are split into good and bad ones; l and g are the Parzen estimators of either. Candidates are
//! drawn from l, and the one with the largest l/g is proposed, which maximises the expected improvement
//! where good trials are those below a quantile. Parameters that count under the same conditions are
//! estimated jointly (Falkner, Klein & Hutter 2018), in groups, or each by itself. A point that was
//! proposed before is not proposed again while there are others: trials are deterministic.

mod density;
mod normal;
mod parzen;
mod split;

use rand_chacha::ChaCha8Rng;

use crate::config::tune::TpeSettings;

use super::space::{Axis, Point, Space};
use parzen::{Mixture, weights};
use split::split;

/// A trial as a proposal sees it.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Its parameters.
    pub point: &'a [Option<f64>],
    /// How it ended.
    pub end: End<'a>,
}

/// How a trial ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End<'a> {
    /// With these values, one an objective, finite.
    Complete(&'a [f64]),
    /// Given up, with the last intermediate value and its step.
    Pruned(Option<(u64, f64)>),
    /// Without values.
    Failed,
    /// Not yet.
    Pending,
}

/// So often a proposal that is no new point is drawn again.
const ATTEMPTS: usize = 2;

/// The next point after the trials `seen`, in the order of their numbers. `is_new` says whether a point
/// was not proposed before; where no new one is found, one that is not comes back.
///
/// Until `n_startup_trials` of them were completed or pruned, it is the `number`-th of the points that
/// [`Space::spread`] spreads from `start`, the same generator for all of a study.
pub fn propose(
    space: &Space,
    seen: &[Seen<'_>],
    settings: &TpeSettings,
    (number, rng): (u64, &mut ChaCha8Rng),
    start: &ChaCha8Rng,
    is_new: &dyn Fn(&[Option<f64>]) -> bool,
) -> Point {
    let ended = seen.iter().filter(|t| matches!(t.end, End::Complete(_) | End::Pruned(_))).count();
    if ended < settings.n_startup_trials.max(1) {
        let point = space.spread(number, &mut start.clone());
        return if is_new(&point) { point } else { fresh(space, rng, is_new) };
    }
    let (good, bad) = split(seen, settings.constant_liar);
    let groups: Vec<Group> = groups(space, settings.multivariate)
        .into_iter()
        .map(|members| Group::new(space, members, seen, (&good, &bad), settings))
        .collect();
    for _ in 0..ATTEMPTS {
        if let Some(point) = attempt(space, &groups, settings, rng, is_new) {
            return point;
        }
    }
    fresh(space, rng, is_new)
}

/// A random point, a new one where one is found in as many attempts as seem worth it.
pub(crate) fn fresh(space: &Space, rng: &mut ChaCha8Rng, is_new: &dyn Fn(&[Option<f64>]) -> bool) -> Point {
    let mut point = space.random(rng);
    for _ in 0..64 {
        if is_new(&point) {
            break;
        }
        point = space.random(rng);
    }
    point
}

/// Groups of parameters that have more than one value.
fn groups(space: &Space, joint: bool) -> Vec<Vec<usize>> {
    let open = |i: &usize| space.axes()[*i].count() != Some(1);
    let groups = space.groups().into_iter().map(|g| g.into_iter().filter(open).collect::<Vec<_>>());
    let groups = groups.filter(|group| !group.is_empty());
    if joint {
        return groups.collect();
    }
    let mut singles: Vec<usize> = groups.flatten().collect();
    // Parents before children.
    singles.sort_unstable();
    singles.into_iter().map(|i| vec![i]).collect()
}

/// The two estimators of a group.
struct Group<'a> {
    members: Vec<usize>,
    good: Mixture<'a>,
    bad: Mixture<'a>,
}

impl<'a> Group<'a> {
    fn new(
        space: &'a Space,
        members: Vec<usize>,
        seen: &[Seen<'_>],
        (good, bad): (&[usize], &[usize]),
        settings: &TpeSettings,
    ) -> Self {
        let mixture = |trials: &[usize], equal: bool| {
            // Members of a group count together.
            let rows: Vec<f64> =
                trials.iter().flat_map(|&i| members.iter().filter_map(move |&m| seen[i].point[m])).collect();
            let n = rows.len() / members.len();
            let weights = if equal { vec![1.0; n] } else { weights(n) };
            let parameters: Vec<(usize, &Axis)> = members.iter().map(|&m| (m, &space.axes()[m])).collect();
            Mixture::new(&parameters, &rows, &weights, settings)
        };
        let two = seen.iter().any(|t| matches!(t.end, End::Complete(values) if values.len() == 2));
        Self { good: mixture(good, two), bad: mixture(bad, false), members }
    }

    /// Candidates, the most promising first.
    fn candidates(&self, count: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<f64>> {
        let drawn: Vec<Vec<f64>> = (0..count.max(1)).map(|_| self.good.draw(rng)).collect();
        let (good, bad) = (self.good.log_density(&drawn), self.bad.log_density(&drawn));
        let mut order: Vec<usize> = (0..drawn.len()).collect();
        order.sort_by(|&a, &b| (good[b] - bad[b]).total_cmp(&(good[a] - bad[a])).then(a.cmp(&b)));
        order.into_iter().map(|i| drawn[i].clone()).collect()
    }
}

/// One point, group by group, of the best candidates. Where it is not new, one group after the other, from
/// the last, takes its other candidates in turn.
fn attempt(
    space: &Space,
    groups: &[Group<'_>],
    settings: &TpeSettings,
    rng: &mut ChaCha8Rng,
    is_new: &dyn Fn(&[Option<f64>]) -> bool,
) -> Option<Point> {
    let mut point: Point = vec![None; space.axes().len()];
    let mut drawn: Vec<(&Group<'_>, Vec<Vec<f64>>)> = Vec::new();
    fill(space, &mut point);
    for group in groups {
        if !space.counts(group.members[0], &point) {
            continue;
        }
        let candidates = group.candidates(settings.n_ei_candidates, rng);
        place(&mut point, &group.members, &candidates[0]);
        fill(space, &mut point);
        drawn.push((group, candidates));
    }
    if is_new(&point) {
        return Some(point);
    }
    drawn.iter().rev().find_map(|(group, candidates)| {
        candidates[1..].iter().find_map(|candidate| {
            let mut other = point.clone();
            place(&mut other, &group.members, candidate);
            // A candidate that changes what counts belongs to another attempt.
            let whole = (0..other.len()).all(|i| other[i].is_some() == space.counts(i, &other));
            (whole && is_new(&other)).then_some(other)
        })
    })
}

/// Gives parameters that count and have one value only that value.
fn fill(space: &Space, point: &mut Point) {
    for (i, axis) in space.axes().iter().enumerate() {
        if axis.count() == Some(1) && point[i].is_none() && space.counts(i, point) {
            point[i] = Some(axis.at(0.0));
        }
    }
}

fn place(point: &mut Point, members: &[usize], values: &[f64]) {
    for (&i, &value) in members.iter().zip(values) {
        point[i] = Some(value);
    }
}

#[cfg(test)]
mod tests;
