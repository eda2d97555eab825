//! The three phases in which MCLMC finds its step size, its scales and L.

use serde::{Deserialize, Serialize};

use super::{State, Walk, start};
use crate::config::Mclmc;
use crate::device::Element;
use crate::num::rng::Key;
use crate::resume::{Desk, Progress};
use crate::sampler::SamplerError;
use crate::sampler::adapt::{DualAveraging, Variances};
use crate::sampler::chain::Scratch;
use crate::sampler::leapfrog::{DIVERGENT, has_diverged};
use crate::sampler::posterior::Posterior;
use crate::stats;

/// L in units of the distance between effective draws (Robnik et al. 2023, section 5).
const LENGTH_FACTOR: f64 = 0.4;
/// Factor on the largest step allowed, after a step that ended in no number.
const BACK_OFF: f64 = 0.8;
/// Least factor on the step size after the third phase.
const LEAST_SHRINK: f64 = 0.2;
/// Coordinates whose autocorrelation is looked at.
const WATCHED: usize = 256;

/// The step size whose energy errors have the wanted variance a dimension: each step votes for
/// ε·(ΔE²/(d·wanted))^(−1/6), since that variance grows as ε⁶, the less the farther off it is (Robnik
/// et al. 2023, section 5).
#[derive(Debug, Serialize, Deserialize)]
struct EnergyAverage {
    weighted: f64,
    weight: f64,
    largest: f64,
}

impl EnergyAverage {
    fn update(&mut self, spec: &Mclmc, dims: f64, error: f64, step_size: f64) -> f64 {
        if has_diverged(error.abs()) {
            self.largest = BACK_OFF * step_size;
            return self.largest;
        }
        let xi = error * error / (dims * spec.desired_energy_var) + 1e-8;
        let off = libm::log(xi) / (6.0 * spec.trust_in_estimate);
        let weight = libm::exp(-0.5 * off * off);
        let memory = (spec.num_effective_samples - 1.0) / (spec.num_effective_samples + 1.0);
        self.weighted = memory * self.weighted + weight * xi / step_size.powi(6);
        self.weight = memory * self.weight + weight;
        if self.weight < f64::MIN_POSITIVE || self.weighted < f64::MIN_POSITIVE {
            return step_size;
        }
        libm::pow(self.weighted / self.weight, -1.0 / 6.0).min(self.largest)
    }
}

/// Adapts the step size, or follows it where there is nothing to adapt.
#[derive(Debug, Serialize, Deserialize)]
enum StepRule {
    Energy(EnergyAverage),
    Acceptance(DualAveraging),
}

/// A tuning on its way.
#[derive(Serialize, Deserialize)]
struct Tuning<T> {
    walk: Walk<T>,
    rule: StepRule,
    state: State<T>,
    iteration: usize,
    variances: Variances,
    /// Once the second phase has been judged: the steps by which preconditioning makes it longer.
    again: Option<usize>,
    /// Whether the step size is final but for what acceptance still teaches.
    fixed: bool,
    /// Paths of some coordinates through the third phase.
    paths: Vec<Vec<f64>>,
    /// Sum of the squared energy errors of its steps.
    squares: f64,
}

impl Mclmc {
    /// Runs the phases and returns where the walk ended up.
    pub(super) fn tune<T: Element>(
        &self,
        posterior: &Posterior<'_, T>,
        key: &Key,
        scratch: &mut Scratch<T>,
        desk: &mut Desk<'_>,
    ) -> Result<(Walk<T>, State<T>), SamplerError> {
        let d = posterior.dim();
        let adjusted = self.is_adjusted(d);
        let [first, second, third] = self.phases();
        let watched: Vec<usize> = (0..d.min(WATCHED)).map(|i| i * d / d.min(WATCHED)).collect();
        let mut t = match desk.part()? {
            Some(tuning) => tuning,
            None => Tuning {
                walk: Walk {
                    integrator: self.integrator,
                    step_size: self.step_size,
                    length: self.l.unwrap_or((d as f64).sqrt()),
                    scales: vec![T::ONE; d],
                },
                rule: self.rule(adjusted, self.step_size),
                state: start(posterior, scratch)?,
                iteration: 0,
                variances: Variances::new(d),
                again: None,
                fixed: false,
                paths: vec![Vec::with_capacity(third); watched.len()],
                squares: 0.0,
            },
        };
        loop {
            if t.iteration == first + second && t.again.is_none() {
                t.again = Some(self.judge(&mut t, (first, second), d));
            }
            let begun = first + second + t.again.unwrap_or(0);
            if t.iteration == begun && !t.fixed {
                t.fixed = true;
                if let StepRule::Acceptance(averaging) = &t.rule
                    && first + second > 0
                {
                    t.walk.step_size = averaging.average();
                }
            }
            if t.iteration == begun + third && t.fixed {
                break;
            }
            self.advance(&mut t, posterior, key, scratch);
            if t.again.is_none() && t.iteration >= first {
                t.variances.push(t.state.w.iter().map(|w| w.to_f64()));
            }
            if t.fixed {
                for (path, &i) in t.paths.iter_mut().zip(&watched) {
                    path.push(t.state.w[i].to_f64());
                }
            }
            t.iteration += 1;
            let total = (begun + third) as u64;
            desk.pulse(Progress { iteration: t.iteration as u64, total }, &t)?;
        }
        let Tuning { mut walk, rule, state, paths, squares, .. } = t;
        if third > 0 && !adjusted {
            // The average votes with the last few steps alone, and hardly hears the largest errors: on a singular
            // posterior it may end on a step with several times the variance that is wanted.
            let variance = squares / (third * d) as f64;
            let shrink = libm::pow(self.desired_energy_var / variance, 1.0 / 6.0).clamp(LEAST_SHRINK, 1.0);
            let effective: Vec<f64> =
                paths.iter().map(|path| stats::ess_mean(&[path])).filter(|ess| ess.is_finite()).collect();
            // Steps an effective draw, in the mean over coordinates.
            let apart =
                third as f64 * effective.iter().map(|ess| 1.0 / ess).sum::<f64>() / effective.len() as f64;
            if apart.is_finite() && apart > 0.0 {
                walk.length = LENGTH_FACTOR * walk.step_size * apart;
            }
            walk.step_size *= shrink;
        }
        if let StepRule::Acceptance(averaging) = &rule
            && first + second + third > 0
        {
            walk.step_size = averaging.average();
        }
        if !(walk.step_size.is_finite() && walk.step_size > 0.0 && walk.length.is_finite()) {
            return Err(SamplerError::StepSize { step_size: walk.step_size });
        }
        Ok((walk, state))
    }

    /// One step of the walk, and what it teaches about the step size.
    fn advance<T: Element>(
        &self,
        t: &mut Tuning<T>,
        posterior: &Posterior<'_, T>,
        key: &Key,
        scratch: &mut Scratch<T>,
    ) {
        let Tuning { walk, rule, state, iteration, fixed, squares, .. } = t;
        let at = *iteration as u64;
        match rule {
            StepRule::Energy(average) => {
                let error = walk.unadjusted(posterior, state, at, key, scratch);
                if *fixed {
                    // A divergence, and no number, count as an error at the limit.
                    let error = error.abs().min(DIVERGENT);
                    *squares += error * error;
                } else {
                    walk.step_size = average.update(self, posterior.dim() as f64, error, walk.step_size);
                }
            }
            StepRule::Acceptance(averaging) => {
                let acceptance = walk.adjusted(posterior, state, at, key, scratch);
                averaging.update(acceptance);
                walk.step_size = averaging.step();
            }
        }
    }

    /// Length and scales from the variances of the second phase; the steps by which preconditioning makes
    /// the phase longer.
    fn judge<T: Element>(&self, t: &mut Tuning<T>, (first, second): (usize, usize), d: usize) -> usize {
        let Some(variances) = t.variances.regularised() else { return 0 };
        t.walk.length = variances.iter().sum::<f64>().sqrt();
        if !self.diagonal_preconditioning {
            return 0;
        }
        t.walk.length = (d as f64).sqrt();
        // A step as long as before in the new coordinates.
        let mean = variances.iter().sum::<f64>() / d as f64;
        t.walk.step_size /= mean.sqrt();
        t.walk.scales = variances.iter().map(|v| T::from_f64(v.sqrt())).collect();
        t.rule = self.rule(self.is_adjusted(d), t.walk.step_size);
        first.max(second)
    }

    fn rule(&self, adjusted: bool, step_size: f64) -> StepRule {
        if adjusted {
            StepRule::Acceptance(DualAveraging::new(step_size, self.target_acceptance))
        } else {
            StepRule::Energy(EnergyAverage { weighted: 0.0, weight: 0.0, largest: f64::INFINITY })
        }
    }
}
