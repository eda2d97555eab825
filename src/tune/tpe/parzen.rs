//! Parzen estimators: mixtures with a kernel for each trial and one for the prior.
//!
//! A kernel is a product over parameters. Of a number with coordinate μ and width σ it is the normal
//! density N(μ, σ²) truncated to the domain's edges, and where values lie on a grid its integral over the
//! value's cell; of a choice, the observed one has weight 1 + w/K and every other w/K before they are
//! scaled to sum 1 (K kernels, w the prior's weight; after Aitchison & Aitken 1976). The prior's kernel
//! has μ in the middle, σ the whole width, and equal choices.

use rand_chacha::ChaCha8Rng;

use crate::config::tune::{Bandwidth, TpeSettings};
use crate::num::Real;
use crate::num::rng::uniform;
use crate::tune::space::Axis;

use super::density::log_density;

/// Trials that count in full; those before them fade linearly (Bergstra, Yamins & Cox 2013).
const IN_FULL: usize = 25;
/// Width of multivariate kernels by Scott's rule, as a share of the domain.
const SCOTT: f64 = 0.2;

/// A mixture over some parameters jointly.
pub(super) struct Mixture<'a> {
    axes: Vec<&'a Axis>,
    /// Running sums of the kernels' weights, the last being 1.
    cumulated: Vec<f64>,
    /// The kernels' weights, of sum 1.
    pub(super) shares: Vec<f64>,
    factors: Vec<Factor>,
}

/// Different pairs of coordinate and width, and which of them each kernel has.
type Kinds = (Vec<(f64, f64)>, Vec<u32>);

/// The kernels' parts for one parameter; the last is the prior's.
pub(super) enum Factor {
    Number {
        mu: Vec<f64>,
        sigma: Vec<f64>,
        edges: (f64, f64),
        /// Where values lie on a grid.
        kinds: Option<Kinds>,
    },
    Choice {
        /// One fewer than kernels.
        observed: Vec<f64>,
        log_same: f64,
        log_other: f64,
        count: usize,
    },
}

/// Weights of `n` trials in the order of their numbers: 1 for the last 25, before them rising linearly
/// from 1/n.
pub(super) fn weights(n: usize) -> Vec<f64> {
    let fading = n.saturating_sub(IN_FULL);
    let first = 1.0 / n.max(1) as f64;
    let ramp = (0..fading).map(|i| match fading {
        1 => first,
        _ => first + (1.0 - first) * i as f64 / (fading - 1) as f64,
    });
    ramp.chain((fading..n).map(|_| 1.0)).collect()
}

impl<'a> Mixture<'a> {
    /// The estimator of trials with these weights, of parameters with their numbers; `observed` has the values,
    /// one trial after the other.
    pub(super) fn new(
        parameters: &[(usize, &'a Axis)],
        observed: &[f64],
        weights: &[f64],
        settings: &TpeSettings,
    ) -> Self {
        let prior = if weights.is_empty() { 1.0 } else { settings.prior_weight };
        let total: f64 = weights.iter().sum::<f64>() + prior;
        let shares: Vec<f64> = weights.iter().chain([&prior]).map(|w| w / total).collect();
        let mut sum = 0.0;
        let cumulated = shares.iter().map(|share| {
            sum += share;
            sum
        });
        let d = parameters.len();
        let factor = |(k, (parameter, axis)): (usize, &(usize, &Axis))| {
            let column = observed.iter().skip(k).step_by(d).copied().collect();
            Factor::new(axis, column, (*parameter, d), settings)
        };
        Self {
            cumulated: cumulated.collect(),
            factors: parameters.iter().enumerate().map(factor).collect(),
            axes: parameters.iter().map(|(_, axis)| *axis).collect(),
            shares,
        }
    }

    /// The width of a kernel in the first parameter.
    #[cfg(test)]
    pub(super) fn width(&self, kernel: usize) -> f64 {
        match &self.factors[0] {
            Factor::Number { sigma, .. } => sigma[kernel],
            Factor::Choice { .. } => 0.0,
        }
    }

    /// A point of the mixture.
    pub(super) fn draw(&self, rng: &mut ChaCha8Rng) -> Vec<f64> {
        let u = uniform(rng);
        let kernel = self.cumulated.partition_point(|&sum| sum <= u).min(self.cumulated.len() - 1);
        self.factors
            .iter()
            .zip(&self.axes)
            .map(|(factor, axis)| axis.value(factor.draw(kernel, rng)))
            .collect()
    }

    /// Logarithm of the density at each of the points (a probability where values lie on grids).
    pub(super) fn log_density(&self, points: &[Vec<f64>]) -> Vec<f64> {
        // Of one parameter kernels that are equal are as good as one.
        if let [factor] = self.factors.as_slice()
            && let Some((factor, shares)) = factor.merged(&self.shares)
        {
            return log_density(&self.axes, &[factor], &shares, points);
        }
        log_density(&self.axes, &self.factors, &self.shares, points)
    }
}

impl Factor {
    /// The part for this parameter, one of so many that are estimated jointly.
    fn new(
        axis: &Axis,
        observed: Vec<f64>,
        (parameter, dimensions): (usize, usize),
        settings: &TpeSettings,
    ) -> Self {
        let n = observed.len();
        if let Axis::Choice(count) = *axis {
            // Without trials the only kernel is the prior's.
            let other = settings.prior_weight / (n + 1) as f64;
            let log_total = libm::log(1.0 + count as f64 * other);
            return Factor::Choice {
                observed,
                log_same: libm::log(1.0 + other) - log_total,
                log_other: libm::log(other) - log_total,
                count,
            };
        }
        let edges = axis.edges();
        let (low, high) = edges;
        let width = high - low;
        let mut mu: Vec<f64> = observed.iter().map(|&value| axis.coordinate(value)).collect();
        let grid = matches!(axis, Axis::Number { step, .. } if *step > 0.0);
        let order = sorted(&mu, grid.then_some(parameter));
        let mut sigma = match settings.bandwidth {
            Bandwidth::Neighbours => neighbours(&mu, &order, edges),
            Bandwidth::Scott => {
                let exponent = -1.0 / (dimensions as f64 + 4.0);
                vec![SCOTT * width * libm::pow(n.max(1) as f64, exponent); n]
            }
        };
        let least = if settings.magic_clip { width / (n as f64 + 2.0).min(100.0) } else { 1e-12 * width };
        for s in &mut sigma {
            *s = s.clamp(least, width);
        }
        mu.push(0.5 * (low + high));
        sigma.push(width);
        let kinds = grid.then(|| kinds(&mu, &sigma, &order));
        Factor::Number { mu, sigma, edges, kinds }
    }

    fn draw(&self, kernel: usize, rng: &mut ChaCha8Rng) -> f64 {
        match self {
            Factor::Number { mu, sigma, edges: (low, high), .. } => {
                // μ lies between the edges and σ is at most their distance, so that one draw in three at
                // least is kept.
                for _ in 0..1000 {
                    let x = mu[kernel] + sigma[kernel] * f64::standard_normal(rng);
                    if (*low..=*high).contains(&x) {
                        return x;
                    }
                }
                mu[kernel]
            }
            Factor::Choice { observed, log_same, log_other, count } => {
                let u = uniform(rng);
                let Some(&same) = observed.get(kernel) else {
                    return libm::floor(u * *count as f64);
                };
                let same = same as usize;
                let (p_same, p_other) = (libm::exp(*log_same), libm::exp(*log_other));
                let mut sum = 0.0;
                for choice in 0..*count {
                    sum += if choice == same { p_same } else { p_other };
                    if u < sum {
                        return choice as f64;
                    }
                }
                same as f64
            }
        }
    }

    /// The different kernels and the sums of their shares; nothing in a continuum.
    fn merged(&self, shares: &[f64]) -> Option<(Factor, Vec<f64>)> {
        let sums = |kinds: usize, kind_of: &mut dyn Iterator<Item = usize>| {
            let mut sums = vec![0.0; kinds];
            for (kind, share) in kind_of.zip(shares) {
                sums[kind] += share;
            }
            sums
        };
        match self {
            Factor::Choice { observed, log_same, log_other, count } => {
                let kind_of = observed.iter().map(|choice| *choice as usize).chain([*count]);
                let sums = sums(count + 1, &mut { kind_of });
                let observed = (0..*count).map(|choice| choice as f64).collect();
                let (log_same, log_other, count) = (*log_same, *log_other, *count);
                Some((Factor::Choice { observed, log_same, log_other, count }, sums))
            }
            Factor::Number { edges, kinds, .. } => {
                let (kinds, kind_of) = kinds.as_ref()?;
                let sums = sums(kinds.len(), &mut kind_of.iter().map(|kind| *kind as usize));
                let (mu, sigma) = kinds.iter().copied().unzip();
                let each = (0..kinds.len() as u32).collect();
                Some((Factor::Number { mu, sigma, edges: *edges, kinds: Some((kinds.clone(), each)) }, sums))
            }
        }
    }
}

/// Positions of coordinates by their size.
///
/// Which of equal ones gets a width is up to their order. On a grid they belong to different points: by number,
/// the latest of each value would be wide in all parameters at once, those in flight first of all, and hold
/// off the proposals from far more than their surroundings. There the order looks random, another for each
/// parameter. In a continuum they are one point again and again, which is to be wide in all parameters.
fn sorted(mu: &[f64], scatter: Option<usize>) -> Vec<usize> {
    // The bits of numbers as whole numbers of the same order.
    let key = |x: f64| {
        let bits = x.to_bits();
        if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
    };
    let tie = |i| scatter.map_or(0, |parameter| scattered(i, parameter));
    let mut order: Vec<(u64, u32, u32)> =
        mu.iter().enumerate().map(|(i, x)| (key(*x), tie(i), i as u32)).collect();
    order.sort_unstable();
    order.into_iter().map(|(_, _, i)| i as usize).collect()
}

/// A number that looks random (the finaliser of SplitMix64; Steele, Lea & Flood 2014).
fn scattered(i: usize, parameter: usize) -> u32 {
    let seed = (parameter as u64) << 32 | i as u64;
    let mut z = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 32) as u32
}

/// The larger of the distances to the values on both sides, edges included only where there is one value.
fn neighbours(mu: &[f64], order: &[usize], (low, high): (f64, f64)) -> Vec<f64> {
    let mut sigma = vec![0.0; mu.len()];
    for (at, &i) in order.iter().enumerate() {
        let left = at.checked_sub(1).map(|before| mu[i] - mu[order[before]]);
        let right = order.get(at + 1).map(|&after| mu[after] - mu[i]);
        sigma[i] = match (left, right) {
            (None, None) => (mu[i] - low).max(high - mu[i]),
            (left, right) => left.unwrap_or(0.0).max(right.unwrap_or(0.0)),
        };
    }
    sigma
}

/// The different pairs of coordinate and width, the prior's last, and which each kernel has. Among kernels of
/// one coordinate there are few widths.
fn kinds(mu: &[f64], sigma: &[f64], order: &[usize]) -> Kinds {
    let mut kinds: Vec<(f64, f64)> = Vec::new();
    let mut kind_of = vec![0; mu.len()];
    let mut first = 0;
    for &i in order.iter().chain([&(mu.len() - 1)]) {
        if kinds.last().is_some_and(|(last, _)| *last != mu[i]) {
            first = kinds.len();
        }
        let same = kinds[first..].iter().position(|(_, other)| *other == sigma[i]);
        kind_of[i] = (first + same.unwrap_or(kinds.len() - first)) as u32;
        if same.is_none() {
            kinds.push((mu[i], sigma[i]));
        }
    }
    (kinds, kind_of)
}
