//! The statistics of long traces, where copies and full transforms of millions of draws would take
//! most of a minute: one sort serves all ranks and quantiles, chains are transformed as they are read,
//! and autocovariances are computed up to the lag that is asked for.
//!
//! The definitions are those of `convergence`; last bits differ, since sums are taken in another order.

use std::cmp::Ordering;
use std::sync::Arc;

use super::autocorrelation::paired_autocovariance;
use super::convergence::{RESOLUTION, autocorrelation_time, reduction, size_of};
use super::moments::{mean, sum, variance};
use super::rank::{ascending, draw, normal_score, scores_in_order};
use crate::device::{Arith, accumulate_lagged};

/// Chains of one length without NaN, seen as split halves.
#[derive(Clone, Copy)]
pub(super) struct Halves<'a> {
    chains: &'a [&'a [f64]],
    draws: usize,
}

impl<'a> Halves<'a> {
    /// `chains` must be such as `Table::gather` takes.
    pub fn new(chains: &'a [&'a [f64]]) -> Self {
        Self { chains, draws: chains.first().map_or(0, |c| c.len()) }
    }

    /// Sequences.
    pub fn count(&self) -> usize {
        2 * self.chains.len()
    }

    /// Draws in all, those of no sequence too.
    fn total(&self) -> usize {
        self.chains.len() * self.draws
    }

    /// Draws a sequence.
    pub fn len(&self) -> usize {
        self.draws / 2
    }

    /// Index of the first draw of a sequence, draws counted through all chains.
    fn start(&self, row: usize) -> usize {
        let chains = self.chains.len();
        let inside = if row < chains { 0 } else { self.draws - self.len() };
        row % chains * self.draws + inside
    }

    /// The draws of a sequence.
    fn row(&self, row: usize) -> &'a [f64] {
        let chains = self.chains.len();
        let inside = if row < chains { 0 } else { self.draws - self.len() };
        &self.chains[row % chains][inside..][..self.len()]
    }

    /// Effective sample size of `f` of the draws.
    pub fn size_of(&self, f: impl Fn(f64) -> f64) -> f64 {
        let fill = |row: usize, out: &mut [f64]| {
            out.iter_mut().zip(self.row(row)).for_each(|(o, &x)| *o = f(x));
        };
        effective_size(self.count(), self.len(), fill)
    }

    /// Effective sample size of values by index, such as scores.
    pub fn size_of_values(&self, values: &[f64]) -> f64 {
        let fill = |row: usize, out: &mut [f64]| out.copy_from_slice(&values[self.start(row)..][..out.len()]);
        effective_size(self.count(), self.len(), fill)
    }

    /// √(V̂/W) of values by index.
    pub fn reduction_of(&self, values: &[f64]) -> f64 {
        let row = |row| &values[self.start(row)..][..self.len()];
        let means: Vec<f64> = (0..self.count()).map(|r| mean(row(r))).collect();
        let variances: Vec<f64> = (0..self.count()).map(|r| variance(row(r))).collect();
        reduction(self.len(), &means, &variances)
    }

    /// Whether a half holds the draw of this index: the middle draws of odd chains belong to none.
    fn holds(&self, index: u32) -> bool {
        self.draws.is_multiple_of(2) || index as usize % self.draws != self.len()
    }
}

/// Draws in ascending order, and where they stand.
pub(super) struct Sorted {
    /// Indices, draws counted through all chains.
    pub order: Arc<Vec<u32>>,
    /// Values.
    pub values: Vec<f64>,
}

impl Sorted {
    /// Sorts.
    pub fn new(chains: &[&[f64]]) -> Self {
        let order = ascending(chains);
        let values = in_order(chains, &order);
        Self { order: Arc::new(order), values }
    }

    /// Without sorting, where the order of `like` is good for these chains too: that of a quantity which rises with
    /// this one is. `values` are theirs in that order.
    pub fn like(like: &Sorted, values: Vec<f64>) -> Option<Self> {
        let fits = values.len() == like.order.len() && values.is_sorted();
        fits.then(|| Self { order: Arc::clone(&like.order), values })
    }

    /// Whether the ranks of all draws are those of `other`, ties included.
    pub fn ranks_like(&self, other: &Sorted) -> bool {
        let tied = |values: &[f64], k: usize| values[k] == values[k + 1];
        (Arc::ptr_eq(&self.order, &other.order) || self.order == other.order)
            && (0..self.values.len().saturating_sub(1))
                .all(|k| tied(&self.values, k) == tied(&other.values, k))
    }

    /// Normal scores of the draws that are in halves, by index.
    pub fn scores(&self, halves: &Halves<'_>) -> Vec<f64> {
        let count = self.order.len();
        if halves.draws.is_multiple_of(2) {
            return scores_in_order(count, count, |k| self.order[k], |k| self.values[k]);
        }
        let (order, values) = self.inside(halves);
        scores_in_order(count, order.len(), |k| order[k], |k| values[k])
    }

    /// What distances from the median are in order: that of `like`, where it has one that is good for these too,
    /// as it is for a quantity that rises with it in a straight line.
    pub fn folded(&self, halves: &Halves<'_>, like: Option<Folded>) -> Folded {
        if halves.draws.is_multiple_of(2) {
            return Folded::of(&self.order, &self.values, halves, like);
        }
        let (order, values) = self.inside(halves);
        Folded::of(&order, &values, halves, like)
    }

    /// Without the middle draws of odd chains.
    fn inside(&self, halves: &Halves<'_>) -> (Vec<u32>, Vec<f64>) {
        self.order.iter().zip(&self.values).filter(|(i, _)| halves.holds(**i)).unzip()
    }
}

/// The draws of chains of one length at these indices, counted through all chains.
pub(super) fn in_order(chains: &[&[f64]], order: &[u32]) -> Vec<f64> {
    order.iter().map(|&i| draw(chains, i)).collect()
}

/// Distances of draws from their median, in order.
pub(super) struct Folded {
    /// Where each stands among the sorted draws, by distance; nothing where a distance is undefined.
    places: Vec<u32>,
    /// Those that have the distance of the next, but for the first: the two draws in the middle are equally far from
    /// a median between them, or nearly, as it is rounded.
    tied: Vec<u32>,
    /// Normal scores of distances, by index.
    scores: Vec<f64>,
    /// √(V̂/W) of the scores.
    pub reduction: f64,
}

impl Folded {
    /// Of `values` in ascending order, at least one, with the index of each. Those of `like` are taken, where
    /// it has them in the same order.
    fn of(order: &[u32], values: &[f64], halves: &Halves<'_>, like: Option<Self>) -> Self {
        let n = values.len();
        let middle = n / 2;
        let median = if n % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        let distance = |k: u32| (values[k as usize] - median).abs();
        if distance(0).is_nan() || distance(n as u32 - 1).is_nan() {
            return Self { places: Vec::new(), tied: Vec::new(), scores: Vec::new(), reduction: f64::NAN };
        }
        if let Some(mut like) = like.filter(|like| like.puts_in_order(n, distance)) {
            let [a, b] = [like.places[0], like.places[1]];
            let ranks = match distance(a).total_cmp(&distance(b)) {
                Ordering::Less => [1.0, 2.0],
                Ordering::Equal => [1.5, 1.5],
                Ordering::Greater => [2.0, 1.0],
            };
            for (k, rank) in [a, b].into_iter().zip(ranks) {
                like.scores[order[k as usize] as usize] = normal_score(rank, n);
            }
            like.reduction = halves.reduction_of(&like.scores);
            return like;
        }
        // Distances rise to both sides of the median: the two sides are merged.
        let mut low = values.partition_point(|v| *v < median) as u32;
        let mut high = low;
        let mut places = Vec::with_capacity(n);
        while places.len() < n {
            let left = low > 0 && (high as usize == n || distance(low - 1) <= distance(high));
            if left {
                low -= 1;
                places.push(low);
            } else {
                places.push(high);
                high += 1;
            }
        }
        let (index, value) = (|k: usize| order[places[k] as usize], |k: usize| distance(places[k]));
        let scores = scores_in_order(halves.total(), n, index, value);
        let pairs = places.windows(2).skip(2);
        let tied = pairs.filter(|pair| distance(pair[0]) == distance(pair[1])).map(|pair| pair[0]).collect();
        let reduction = halves.reduction_of(&scores);
        Self { places, tied, scores, reduction }
    }

    /// Whether these `n` distances have the same ranks, ties included, but for those of the first two.
    fn puts_in_order(&self, n: usize, distance: impl Fn(u32) -> f64) -> bool {
        let &[a, b, c, ..] = self.places.as_slice() else { return false };
        let mut tied = self.tied.iter();
        let mut next = tied.next();
        self.places.len() == n
            && distance(a).max(distance(b)) < distance(c)
            && self.places[2..].windows(2).all(|pair| {
                let (here, beyond) = (distance(pair[0]), distance(pair[1]));
                if next == Some(&pair[0]) {
                    next = tied.next();
                    here == beyond
                } else {
                    here < beyond
                }
            })
    }

    /// Where its order lies: of one that was taken from another, the same.
    #[cfg(test)]
    pub fn address(&self) -> *const u32 {
        self.places.as_ptr()
    }
}

/// Mean of all draws of chains of one length, and Σ f(x − mean) over them; a copy of one chain at a
/// time is in memory.
pub(super) fn pooled(chains: &[&[f64]], f: impl Fn(f64) -> f64) -> (f64, f64) {
    let means: Vec<f64> = chains.iter().map(|c| mean(c)).collect();
    let centre = mean(&means);
    let mut buffer = Vec::new();
    let sums: Vec<f64> = chains
        .iter()
        .map(|chain| {
            buffer.clear();
            buffer.extend(chain.iter().map(|x| f(x - centre)));
            sum(&buffer)
        })
        .collect();
    (centre, sum(&sums))
}

/// Effective sample size of `count` sequences of `n` values, at least 2, that `fill` writes.
fn effective_size(count: usize, n: usize, fill: impl Fn(usize, &mut [f64])) -> f64 {
    /// Lags that are summed directly before a transform gives all.
    const STEPS: [usize; 4] = [48, 96, 144, 240];
    let mut row = vec![0.0; n];
    let mut means = vec![0.0; count];
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    let mut covariance: Vec<f64> = Vec::new();
    let total_count = (count * n) as f64;
    for lags in STEPS {
        let from = covariance.len();
        covariance.resize(lags, 0.0);
        for (r, centre) in means.iter_mut().enumerate() {
            fill(r, &mut row);
            if from == 0 {
                (low, high) = row.iter().fold((low, high), |(l, h), &x| (l.min(x), h.max(x)));
                if row.iter().any(|x| x.is_nan()) {
                    return f64::NAN;
                }
                *centre = mean(&row);
            }
            row.iter_mut().for_each(|x| *x -= *centre);
            accumulate_lagged(Arith::current(), &row, from, &mut covariance[from..]);
        }
        if high - low < RESOLUTION {
            return total_count;
        }
        if !(high - low).is_finite() {
            return f64::NAN;
        }
        let scaled = |t: usize| covariance[t] / total_count;
        if let Some(tau) = time(n, lags.min(n), &means, scaled) {
            return size_of(total_count, tau);
        }
    }
    let centred = |r: usize, out: &mut [f64]| {
        fill(r, out);
        out.iter_mut().for_each(|x| *x -= means[r]);
    };
    let covariance = paired_autocovariance(count, n, centred);
    size_of(total_count, time(n, n, &means, |t| covariance[t]).unwrap_or(f64::NAN))
}

/// τ from the mean autocovariance of sequences with `means`.
fn time(n: usize, known: usize, means: &[f64], covariance: impl Fn(usize) -> f64) -> Option<f64> {
    let length = n as f64;
    let within = covariance(0) * length / (length - 1.0);
    let mut total = within * (length - 1.0) / length;
    if means.len() > 1 {
        total += variance(means);
    }
    autocorrelation_time(n, known, |t| 1.0 - (within - covariance(t)) / total)
}
