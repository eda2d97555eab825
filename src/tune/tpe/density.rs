//! Densities of mixtures at candidates: as many logarithms as there are kernels for each of them, of which
//! few matter.
//!
//! What does not depend on the candidate is worked out once a mixture. Loops over kernels are plain
//! arithmetic on slices, which compilers vectorise without moving a bit.

use crate::tune::space::Axis;

use super::normal::{HALF_LN_TWO_PI, log_mass};
use super::parzen::Factor;

/// A kernel e⁻⁴⁵ below the highest adds less than rounding does, however many there are.
const NEGLIGIBLE: f64 = -45.0;
/// With up to so many different kernels on a grid each is worked out once a value.
const FEW: usize = 512;

/// ln Σₖ shareₖ Πⱼ fₖⱼ(xⱼ) at each of the points.
pub(super) fn log_density(
    axes: &[&Axis],
    factors: &[Factor],
    shares: &[f64],
    points: &[Vec<f64>],
) -> Vec<f64> {
    let mut base: Vec<f64> = shares.iter().map(|share| libm::log(*share)).collect();
    let mut parts: Vec<Part<'_>> =
        factors.iter().zip(axes).map(|(factor, axis)| Part::new(factor, axis, &mut base)).collect();
    let mut logs = base.clone();
    let at = |point: &Vec<f64>| {
        logs.copy_from_slice(&base);
        for (part, value) in parts.iter_mut().zip(point) {
            part.add(*value, &mut logs);
        }
        log_sum(&logs, |kernel| {
            logs[kernel] + parts.iter().zip(point).map(|(part, value)| part.rest(*value, kernel)).sum::<f64>()
        })
    };
    points.iter().map(at).collect()
}

/// ln Σ exp of what `exact` gives for each of `bounds`, none of which is below it. The last is the prior's,
/// which is never far off.
fn log_sum(bounds: &[f64], exact: impl Fn(usize) -> f64) -> f64 {
    let mut lanes = [f64::NEG_INFINITY; 8];
    let (chunks, rest) = bounds.as_chunks::<8>();
    let larger = |lane: &mut f64, bound: f64| *lane = if bound > *lane { bound } else { *lane };
    for chunk in chunks {
        for (lane, bound) in lanes.iter_mut().zip(chunk) {
            larger(lane, *bound);
        }
    }
    for bound in rest {
        larger(&mut lanes[0], *bound);
    }
    let highest = lanes.into_iter().fold(f64::NEG_INFINITY, f64::max);
    let Some(first) = bounds.iter().position(|bound| *bound == highest) else { return highest };
    let floor = exact(first).max(exact(bounds.len() - 1)) + NEGLIGIBLE;
    let kept: Vec<f64> =
        bounds.iter().enumerate().filter(|(_, bound)| **bound > floor).map(|(k, _)| exact(k)).collect();
    let highest = kept.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if highest == f64::NEG_INFINITY {
        return highest;
    }
    highest + libm::log(kept.iter().map(|log| libm::exp(log - highest)).sum())
}

/// What one parameter adds.
enum Part<'a> {
    /// A truncated normal density.
    Normal { axis: &'a Axis, mu: &'a [f64], inverse: Vec<f64> },
    /// The probability of a cell, of few different kernels: values that were asked for, and a number a kind.
    Cells { axis: &'a Axis, kinds: &'a [(f64, f64)], kind_of: &'a [u32], known: Vec<(f64, Vec<f64>)> },
    /// The same of many different ones: at first a bound that costs little.
    Far { axis: &'a Axis, mu: &'a [f64], sigma: &'a [f64], inverse: Vec<f64> },
    /// A choice.
    Choice { observed: &'a [f64], same: f64, other: f64, equal: f64 },
}

impl<'a> Part<'a> {
    /// The part of a factor; what it adds at every point is added to `base`.
    fn new(factor: &'a Factor, axis: &'a Axis, base: &mut [f64]) -> Self {
        match factor {
            Factor::Choice { observed, log_same, log_other, count } => Part::Choice {
                observed,
                same: *log_same,
                other: *log_other,
                equal: -libm::log(*count as f64),
            },
            Factor::Number { mu, sigma, edges: (low, high), kinds } => {
                let inside = |mu: f64, sigma: f64| log_mass((low - mu) / sigma, (high - mu) / sigma);
                if let Some((kinds, kind_of)) = kinds.as_ref().filter(|(kinds, _)| kinds.len() <= FEW) {
                    let inside: Vec<f64> = kinds.iter().map(|(mu, sigma)| inside(*mu, *sigma)).collect();
                    for (base, kind) in base.iter_mut().zip(kind_of) {
                        *base -= inside[*kind as usize];
                    }
                    return Part::Cells { axis, kinds, kind_of, known: Vec::new() };
                }
                // Most kernels have the least width: its logarithm is kept.
                let (mut width, mut log_width) = (1.0, 0.0);
                for ((base, mu), sigma) in base.iter_mut().zip(mu).zip(sigma) {
                    *base -= inside(*mu, *sigma);
                    if kinds.is_none() {
                        if *sigma != width {
                            (width, log_width) = (*sigma, libm::log(*sigma));
                        }
                        *base -= log_width + HALF_LN_TWO_PI;
                    }
                }
                let inverse = sigma.iter().map(|sigma| 1.0 / sigma).collect();
                match kinds {
                    Some(_) => Part::Far { axis, mu, sigma, inverse },
                    None => Part::Normal { axis, mu, inverse },
                }
            }
        }
    }

    /// Adds the logarithm for every kernel, or a bound of it.
    fn add(&mut self, value: f64, logs: &mut [f64]) {
        match self {
            Part::Choice { observed, same, other, equal } => {
                for (log, choice) in logs.iter_mut().zip(*observed) {
                    *log += if *choice == value { *same } else { *other };
                }
                if let Some(prior) = logs.last_mut() {
                    *prior += *equal;
                }
            }
            Part::Normal { axis, mu, inverse } => {
                let x = axis.coordinate(value);
                for ((log, mu), inverse) in logs.iter_mut().zip(*mu).zip(inverse.iter()) {
                    let z = (x - mu) * inverse;
                    *log -= 0.5 * z * z;
                }
            }
            Part::Cells { axis, kinds, kind_of, known } => {
                let at = known.iter().position(|(other, _)| *other == value).unwrap_or_else(|| {
                    let (left, right) = axis.cell(value);
                    let mass = |(mu, sigma): &(f64, f64)| log_mass((left - mu) / sigma, (right - mu) / sigma);
                    known.push((value, kinds.iter().map(mass).collect()));
                    known.len() - 1
                });
                let masses = &known[at].1;
                for (log, kind) in logs.iter_mut().zip(*kind_of) {
                    *log += masses[*kind as usize];
                }
            }
            Part::Far { axis, mu, inverse, .. } => {
                let cell = axis.cell(value);
                for ((log, mu), inverse) in logs.iter_mut().zip(*mu).zip(inverse.iter()) {
                    *log += bound(cell, *mu, *inverse);
                }
            }
        }
    }

    /// What a bound is too large by, at most 0.
    fn rest(&self, value: f64, kernel: usize) -> f64 {
        let Part::Far { axis, mu, sigma, inverse } = self else { return 0.0 };
        let (left, right) = axis.cell(value);
        let (mu, sigma) = (mu[kernel], sigma[kernel]);
        log_mass((left - mu) / sigma, (right - mu) / sigma) - bound((left, right), mu, inverse[kernel])
    }
}

/// Not less than the logarithm of a cell's probability: beyond z the normal distribution has less than
/// e^(−z²/2).
fn bound((left, right): (f64, f64), mu: f64, inverse: f64) -> f64 {
    let (below, above) = (left - mu, mu - right);
    let gap = if below > above { below } else { above };
    let z = if gap > 0.0 { gap } else { 0.0 } * inverse;
    -0.5 * z * z
}
