//! Parzen estimators: mixtures with a kernel for each trial and one for the prior.
//!
//! A kernel is a product over parameters. Of a number with coordinate μ and width σ it is the normal
//! density N(μ, σ²) truncated to the domain's edges, and where values lie on a grid its integral over the
//! value's cell; of a choice, the observed one has weight 1 + w/K and every other w/K before they are
//! scaled to sum 1 (K kernels, w the prior's weight; after Aitchison & Aitken 1976). The prior's kernel
//! has μ in the middle, σ the whole width, and equal choices.

use std::collections::HashMap;

use rand_chacha::ChaCha8Rng;

use crate::config::tune::{Bandwidth, TpeSettings};
use crate::num::Real;
use crate::num::rng::uniform;
use crate::tune::space::Axis;

use super::normal::{HALF_LN_TWO_PI, log_mass};

/// Trials that count in full; those before them fade linearly (Bergstra, Yamins & Cox 2013).
const IN_FULL: usize = 25;
/// A kernel e⁻⁴⁵ below the highest adds less than rounding does, however many there are.
const NEGLIGIBLE: f64 = -45.0;
/// Width of multivariate kernels by Scott's rule, as a share of the domain.
const SCOTT: f64 = 0.2;

/// A mixture over some parameters jointly.
pub(super) struct Mixture<'a> {
    axes: Vec<&'a Axis>,
    /// Running sums of the kernels' weights, the last being 1.
    cumulated: Vec<f64>,
    pub(super) log_weights: Vec<f64>,
    factors: Vec<Factor>,
}

/// The kernels' parts for one parameter; the last is the prior's.
enum Factor {
    Number {
        mu: Vec<f64>,
        sigma: Vec<f64>,
        edges: (f64, f64),
    },
    Choice {
        /// One fewer than kernels.
        observed: Vec<usize>,
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
    /// The estimator of `observed` values (a row a trial, an entry a parameter) with these weights.
    pub(super) fn new(
        axes: Vec<&'a Axis>,
        observed: &[Vec<f64>],
        weights: &[f64],
        settings: &TpeSettings,
    ) -> Self {
        let n = observed.len();
        // Kernels of choices alone are as good as one where they are equal.
        let merged =
            axes.iter().all(|axis| matches!(axis, Axis::Choice(_))).then(|| merge(observed, weights));
        let (observed, weights) = match &merged {
            Some((rows, weights)) => (rows.as_slice(), weights.as_slice()),
            None => (observed, weights),
        };
        let prior = if n == 0 { 1.0 } else { settings.prior_weight };
        let total: f64 = weights.iter().sum::<f64>() + prior;
        let shares = weights.iter().chain([&prior]).map(|w| w / total);
        let mut sum = 0.0;
        let cumulated = shares.clone().map(|share| {
            sum += share;
            sum
        });
        let factor = |(k, axis): (usize, &&Axis)| {
            let column: Vec<f64> = observed.iter().map(|row| row[k]).collect();
            Factor::new(axis, &column, (n, axes.len()), settings)
        };
        Self {
            cumulated: cumulated.collect(),
            log_weights: shares.map(libm::log).collect(),
            factors: axes.iter().enumerate().map(factor).collect(),
            axes,
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
        let kernels = self.log_weights.len();
        let mut logs: Vec<f64> = points.iter().flat_map(|_| &self.log_weights).copied().collect();
        for (k, (factor, axis)) in self.factors.iter().zip(&self.axes).enumerate() {
            let values: Vec<f64> = points.iter().map(|point| point[k]).collect();
            factor.add_log_density(axis, &values, &mut logs);
        }
        logs.chunks(kernels).map(log_sum).collect()
    }
}

/// Rows that are equal as one of their weights' sum, in the order of their first.
fn merge(observed: &[Vec<f64>], weights: &[f64]) -> (Vec<Vec<f64>>, Vec<f64>) {
    let mut at: HashMap<Vec<u64>, usize> = HashMap::new();
    let (mut rows, mut sums): (Vec<Vec<f64>>, Vec<f64>) = (Vec::new(), Vec::new());
    for (row, weight) in observed.iter().zip(weights) {
        let bits: Vec<u64> = row.iter().map(|value| value.to_bits()).collect();
        let k = *at.entry(bits).or_insert(rows.len());
        match sums.get_mut(k) {
            Some(sum) => *sum += weight,
            None => {
                rows.push(row.clone());
                sums.push(*weight);
            }
        }
    }
    (rows, sums)
}

/// ln Σ exp
fn log_sum(logs: &[f64]) -> f64 {
    let highest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if highest == f64::NEG_INFINITY {
        return highest;
    }
    let sum: f64 = logs.iter().map(|log| log - highest).filter(|log| *log > NEGLIGIBLE).map(libm::exp).sum();
    highest + libm::log(sum)
}

impl Factor {
    /// The part for one parameter of a mixture made from `n` trials in so many dimensions.
    fn new(axis: &Axis, observed: &[f64], (n, dimensions): (usize, usize), settings: &TpeSettings) -> Self {
        if let Axis::Choice(count) = *axis {
            // Without trials the only kernel is the prior's.
            let other = settings.prior_weight / (n + 1) as f64;
            let log_total = libm::log(1.0 + count as f64 * other);
            return Factor::Choice {
                observed: observed.iter().map(|&value| value as usize).collect(),
                log_same: libm::log(1.0 + other) - log_total,
                log_other: libm::log(other) - log_total,
                count,
            };
        }
        let edges = axis.edges();
        let (low, high) = edges;
        let width = high - low;
        let mut mu: Vec<f64> = observed.iter().map(|&value| axis.coordinate(value)).collect();
        let mut sigma = match settings.bandwidth {
            Bandwidth::Neighbours => neighbours(&mu, low, high),
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
        Factor::Number { mu, sigma, edges }
    }

    fn draw(&self, kernel: usize, rng: &mut ChaCha8Rng) -> f64 {
        match self {
            Factor::Number { mu, sigma, edges: (low, high) } => {
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

    /// Adds to `logs` (points × kernels).
    fn add_log_density(&self, axis: &Axis, values: &[f64], logs: &mut [f64]) {
        match self {
            Factor::Choice { observed, log_same, log_other, count } => {
                let equal = -libm::log(*count as f64);
                for (logs, value) in logs.chunks_mut(observed.len() + 1).zip(values) {
                    for (log, &choice) in logs.iter_mut().zip(observed) {
                        *log += if choice == *value as usize { *log_same } else { *log_other };
                    }
                    if let Some(prior) = logs.last_mut() {
                        *prior += equal;
                    }
                }
            }
            Factor::Number { mu, sigma, edges } => {
                if matches!(axis, Axis::Number { step, .. } if *step > 0.0) {
                    add_cells(axis, (mu, sigma), *edges, values, logs);
                } else {
                    add_normals(axis, (mu, sigma), *edges, values, logs);
                }
            }
        }
    }
}

/// The larger of the distances to the values on both sides, edges included only where there is one value.
fn neighbours(mu: &[f64], low: f64, high: f64) -> Vec<f64> {
    let n = mu.len();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| mu[a].total_cmp(&mu[b]).then(a.cmp(&b)));
    let mut sigma = vec![0.0; n];
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

/// ln of the truncated normal density for every value and kernel.
fn add_normals(
    axis: &Axis,
    (mu, sigma): (&[f64], &[f64]),
    (low, high): (f64, f64),
    values: &[f64],
    logs: &mut [f64],
) {
    let scale: Vec<(f64, f64)> = mu
        .iter()
        .zip(sigma)
        .map(|(mu, sigma)| {
            let inside = log_mass((low - mu) / sigma, (high - mu) / sigma);
            (1.0 / sigma, -libm::log(*sigma) - HALF_LN_TWO_PI - inside)
        })
        .collect();
    for (logs, value) in logs.chunks_mut(mu.len()).zip(values) {
        let x = axis.coordinate(*value);
        for ((log, mu), (inverse, constant)) in logs.iter_mut().zip(mu).zip(&scale) {
            let z = (x - mu) * inverse;
            *log += constant - 0.5 * z * z;
        }
    }
}

/// ln of the probability of the value's cell under the truncated normal, for every value and kernel. Trials
/// on a grid have few different kernels, and candidates few different values: each pair is worked out once.
fn add_cells(
    axis: &Axis,
    (mu, sigma): (&[f64], &[f64]),
    (low, high): (f64, f64),
    values: &[f64],
    logs: &mut [f64],
) {
    let mut order: Vec<usize> = (0..mu.len()).collect();
    order.sort_unstable_by(|&a, &b| mu[a].total_cmp(&mu[b]).then(sigma[a].total_cmp(&sigma[b])));
    let mut kinds: Vec<(f64, f64)> = Vec::new();
    let mut kind_of = vec![0u32; mu.len()];
    for i in order {
        if kinds.last() != Some(&(mu[i], sigma[i])) {
            kinds.push((mu[i], sigma[i]));
        }
        kind_of[i] = kinds.len() as u32 - 1;
    }
    let inside: Vec<f64> =
        kinds.iter().map(|(mu, sigma)| log_mass((low - mu) / sigma, (high - mu) / sigma)).collect();
    let mut known: Vec<(f64, Vec<f64>)> = Vec::new();
    for (logs, value) in logs.chunks_mut(mu.len()).zip(values) {
        let at = known.iter().position(|(other, _)| other == value).unwrap_or_else(|| {
            let (left, right) = axis.cell(*value);
            let masses = kinds
                .iter()
                .zip(&inside)
                .map(|((mu, sigma), inside)| log_mass((left - mu) / sigma, (right - mu) / sigma) - inside);
            known.push((*value, masses.collect()));
            known.len() - 1
        });
        for (log, kind) in logs.iter_mut().zip(&kind_of) {
            *log += known[at].1[*kind as usize];
        }
    }
}
