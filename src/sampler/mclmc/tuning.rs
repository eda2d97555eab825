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
/// Least factor on the step size after a round of the third phase.
const LEAST_SHRINK: f64 = 0.7;
/// Variance of the energy errors, in units of what is wanted, above which a round is repeated.
const EXCESSIVE: f64 = 2.0;
/// Rounds of the third phase at most.
const MOST_ROUNDS: usize = 10;
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
    /// Where the third phase, or its present round, began. The step size is fixed in it but for what
    /// acceptance still teaches.
    begun: Option<usize>,
    /// Rounds of the third phase that have ended.
    rounds: usize,
    /// Whether L is what the third phase has found.
    measured: bool,
    /// Paths of some coordinates through the present round.
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
                begun: None,
                rounds: 0,
                measured: false,
                paths: vec![Vec::with_capacity(third); watched.len()],
                squares: 0.0,
            },
        };
        loop {
            if t.iteration == first + second && t.again.is_none() {
                t.again = Some(self.judge(&mut t, (first, second), d));
            }
            if t.iteration == first + second + t.again.unwrap_or(0) && t.begun.is_none() {
                t.begun = Some(t.iteration);
                if let StepRule::Acceptance(averaging) = &t.rule
                    && first + second > 0
                {
                    t.walk.step_size = averaging.average();
                }
            }
            if t.begun.is_some_and(|begun| t.iteration == begun + third) && self.settle(&mut t, third, d) {
                break;
            }
            self.advance(&mut t, posterior, key, scratch);
            if t.again.is_none() && t.iteration >= first {
                t.variances.push(t.state.w.iter().map(|w| w.to_f64()));
            }
            if t.begun.is_some() {
                for (path, &i) in t.paths.iter_mut().zip(&watched) {
                    path.push(t.state.w[i].to_f64());
                }
            }
            t.iteration += 1;
            let begun = t.begun.unwrap_or(first + second + t.again.unwrap_or(0));
            let total = (begun + third) as u64;
            desk.pulse(Progress { iteration: t.iteration as u64, total }, &t)?;
        }
        let Tuning { mut walk, rule, state, .. } = t;
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

    /// What a round of the third phase says of L and the step size; whether it was the last.
    ///
    /// The averages of the first two phases vote with the last few steps alone, and hardly hear the largest
    /// errors: on a singular posterior they may end on a step with several times the variance that is
    /// wanted. And a longer memory of the direction lets errors add up in stiff modes that a shorter one
    /// damps. So the variance must be right at the step and the L that chains will use.
    fn settle<T>(&self, t: &mut Tuning<T>, third: usize, d: usize) -> bool {
        if third == 0 || matches!(t.rule, StepRule::Acceptance(_)) {
            return true;
        }
        t.rounds += 1;
        let excess = t.squares / (third * d) as f64 / self.desired_energy_var;
        let mut last = true;
        if excess <= EXCESSIVE && !t.measured {
            t.measured = true;
            let length = effective_length(&t.paths, t.walk.step_size).unwrap_or(t.walk.length);
            last = length <= t.walk.length;
            t.walk.length = length;
        }
        last &= excess <= EXCESSIVE;
        // Errors of a step grow with its third power.
        t.walk.step_size *= libm::pow(excess, -1.0 / 6.0).clamp(LEAST_SHRINK, 1.0);
        if last || t.rounds == MOST_ROUNDS {
            return true;
        }
        t.begun = Some(t.iteration);
        t.squares = 0.0;
        t.paths.iter_mut().for_each(Vec::clear);
        false
    }

    /// One step of the walk, and what it teaches about the step size.
    fn advance<T: Element>(
        &self,
        t: &mut Tuning<T>,
        posterior: &Posterior<'_, T>,
        key: &Key,
        scratch: &mut Scratch<T>,
    ) {
        let Tuning { walk, rule, state, iteration, begun, squares, .. } = t;
        let at = *iteration as u64;
        match rule {
            StepRule::Energy(average) => {
                let error = walk.unadjusted(posterior, state, at, key, scratch);
                if begun.is_some() {
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

/// L from paths of coordinates at steps of length `step_size`: 0.4 of the way between effective draws, in
/// the mean over coordinates.
fn effective_length(paths: &[Vec<f64>], step_size: f64) -> Option<f64> {
    let effective: Vec<f64> =
        paths.iter().map(|path| stats::ess_mean(&[path])).filter(|ess| ess.is_finite()).collect();
    let steps = paths.first().map_or(0, Vec::len) as f64;
    let apart = steps * effective.iter().map(|ess| 1.0 / ess).sum::<f64>() / effective.len() as f64;
    (apart.is_finite() && apart > 0.0).then_some(LENGTH_FACTOR * step_size * apart)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Integrator;

    const WANTED: f64 = 1e-3;
    const STEPS: usize = 100;
    const DIMS: usize = 10;

    fn mclmc() -> Mclmc {
        Mclmc {
            draws: 1,
            thin: None,
            l: Some(1.0),
            step_size: 0.1,
            num_steps: 500,
            frac_tune1: 0.1,
            frac_tune2: 0.1,
            frac_tune3: 0.1,
            desired_energy_var: WANTED,
            trust_in_estimate: 1.0,
            num_effective_samples: 150.0,
            diagonal_preconditioning: false,
            integrator: Integrator::IsokineticMclachlan,
            adjusted: Some(false),
            target_acceptance: 0.9,
        }
    }

    /// A third phase whose energy errors had `excess` times the wanted variance, and whose coordinates
    /// took `apart` steps to turn, up and down.
    fn phase(excess: f64, apart: usize, length: f64) -> Tuning<f64> {
        let path: Vec<f64> =
            (0..STEPS).map(|i| if (i / apart).is_multiple_of(2) { 1.0 } else { -1.0 }).collect();
        Tuning {
            walk: Walk {
                integrator: Integrator::IsokineticMclachlan,
                step_size: 1.0,
                length,
                scales: vec![1.0; DIMS],
            },
            rule: mclmc().rule(false, 1.0),
            state: State::after_draw(
                crate::sampler::leapfrog::State { w: vec![], grad: vec![], energy: 0.0, loss: 0.0, fge: 0.0 },
                vec![],
                false,
            ),
            iteration: 300,
            variances: Variances::new(DIMS),
            again: Some(0),
            begun: Some(200),
            rounds: 0,
            measured: false,
            paths: vec![path],
            squares: excess * WANTED * (STEPS * DIMS) as f64,
        }
    }

    #[test]
    fn a_step_is_shortened_until_its_errors_are_as_wanted() {
        let (mut t, spec) = (phase(1e6, 10, 100.0), mclmc());
        assert!(!spec.settle(&mut t, STEPS, DIMS));
        assert_eq!((t.walk.step_size, t.walk.length, t.rounds), (LEAST_SHRINK, 100.0, 1));
        assert_eq!((t.begun, t.squares, t.paths[0].len(), t.measured), (Some(300), 0.0, 0, false));
        // As wanted: the length is measured, shorter than the one that the errors were measured with.
        t = Tuning { walk: t.walk, rounds: t.rounds, ..phase(1.5, 10, 0.0) };
        assert!(spec.settle(&mut t, STEPS, DIMS));
        assert!(t.walk.length < 100.0 && t.measured, "{}", t.walk.length);
        assert!((t.walk.step_size - LEAST_SHRINK * 1.5f64.powf(-1.0 / 6.0)).abs() < 1e-12);
    }

    #[test]
    fn a_longer_memory_is_tried_before_it_is_used() {
        let (mut t, spec) = (phase(0.5, 10, 0.1), mclmc());
        assert!(!spec.settle(&mut t, STEPS, DIMS));
        assert!(t.walk.length > 0.1 && t.walk.step_size == 1.0);
        let length = t.walk.length;
        // It does harm: the step is shortened, and the length stays.
        t = Tuning { walk: t.walk, measured: true, ..phase(50.0, 20, 0.0) };
        assert!(!spec.settle(&mut t, STEPS, DIMS));
        assert_eq!((t.walk.step_size, t.walk.length), (LEAST_SHRINK, length));
        t = Tuning { walk: t.walk, measured: true, ..phase(1.0, 20, 0.0) };
        assert!(spec.settle(&mut t, STEPS, DIMS));
        assert_eq!((t.walk.step_size, t.walk.length), (LEAST_SHRINK, length));
    }

    #[test]
    fn rounds_come_to_an_end() {
        let spec = mclmc();
        let mut t = Tuning { rounds: MOST_ROUNDS - 1, ..phase(f64::INFINITY, 1, 1.0) };
        assert!(spec.settle(&mut t, STEPS, DIMS));
        assert!(spec.settle(&mut phase(1.0, 1, 1.0), 0, DIMS));
    }

    #[test]
    fn a_length_is_four_tenths_of_the_way_between_effective_draws() {
        // Blocks of ten steps, each an independent normal: ten steps are one effective draw.
        let key = crate::num::rng::Key::new([3; 32], crate::num::rng::Purpose::Probe, 0);
        let paths: Vec<Vec<f64>> = (0..64)
            .map(|i| {
                let mut values = vec![0.0f64; 400];
                crate::device::fill_normal(&mut key.at(i), &mut values);
                values.iter().flat_map(|v| [*v; 10]).collect()
            })
            .collect();
        let length = effective_length(&paths, 0.5).expect("finite");
        assert!((length / (LENGTH_FACTOR * 0.5 * 10.0) - 1.0).abs() < 0.1, "{length}");
        assert_eq!(effective_length(&[], 0.5), None);
    }
}
