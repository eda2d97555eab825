//! What a tune file means once every value is checked.

use serde::{Deserialize, Serialize};

use super::Dimension;

/// How the next trial is chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TuneSampler {
    /// Tree-structured Parzen estimator.
    Tpe(TpeSettings),
    /// Uniform draws.
    Random,
    /// Every combination, in a random order where there are more than trials.
    Grid {
        /// Values of a parameter that has more (or a continuum), evenly spaced; at least 1.
        points: usize,
    },
}

/// Settings of the tree-structured Parzen estimator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TpeSettings {
    /// Trials drawn at random until so many have ended.
    pub n_startup_trials: usize,
    /// Candidates a proposal, at least 1.
    pub n_ei_candidates: usize,
    /// Parameters that count under the same conditions are drawn jointly.
    pub multivariate: bool,
    /// Trials that have not ended stand among the bad ones.
    pub constant_liar: bool,
    /// Weight of the prior, a trial's being 1; > 0.
    pub prior_weight: f64,
    /// Kernels are no narrower than the domain divided by min(100, number of kernels + 1).
    pub magic_clip: bool,
    /// Width of the kernels.
    pub bandwidth: Bandwidth,
}

/// How wide the kernels of a Parzen estimator are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bandwidth {
    /// The larger of the distances to the neighbours (Bergstra et al. 2011).
    Neighbours,
    /// 0.2·n^(−1/(d + 4)) of the domain, n kernels in d dimensions (after Scott 1992).
    Scott,
}

impl Default for TpeSettings {
    fn default() -> Self {
        Self {
            n_startup_trials: 10,
            n_ei_candidates: 24,
            multivariate: true,
            constant_liar: true,
            prior_weight: 1.0,
            magic_clip: true,
            bandwidth: Bandwidth::Neighbours,
        }
    }
}

/// When a trial is given up on the way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pruner {
    /// Never.
    None,
    /// Its best value so far is above the median of completed trials at the same step.
    Median {
        /// Completed trials before any is given up.
        n_startup_trials: usize,
        /// No trial is given up before this step.
        n_warmup_steps: u64,
        /// It is looked at every so many steps after that; at least 1.
        interval_steps: u64,
    },
    /// Successive halving in brackets (Li et al. 2018).
    Hyperband {
        /// Steps of the first rung, at least 1.
        min_resource: u64,
        /// Steps of a whole trial, at least `min_resource`.
        max_resource: u64,
        /// One of so many goes on from a rung; at least 2.
        reduction_factor: u64,
    },
}

/// What is minimised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// |λ̂ − λ_ref|
    Abs {
        /// In units of what.
        units: Units,
    },
    /// Huber's loss of λ̂ − λ_ref: e²/2 up to δ, then δ(|e| − δ/2).
    Huber {
        /// δ > 0, in the same units.
        delta: f64,
        /// In units of what.
        units: Units,
    },
    /// |λ̂ − λ_ref| / |λ_ref|
    Relative,
    /// Work or seconds until the error stays below `accuracy`·|λ_ref|.
    WorkToAccuracy {
        /// Relative error, > 0.
        accuracy: f64,
        /// What is counted.
        cost: Cost,
    },
    /// Two objectives: |λ̂ − λ_ref|, and what it cost.
    Pareto {
        /// In units of what the error is.
        units: Units,
        /// What is counted.
        cost: Cost,
    },
}

impl Objective {
    /// Number of values that are minimised.
    pub fn values(&self) -> usize {
        if matches!(self, Objective::Pareto { .. }) { 2 } else { 1 }
    }
}

/// Units of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Units {
    /// Of λ itself.
    Llc,
    /// Of √(MCSE² + MCSE_ref²).
    StandardErrors,
}

/// What a trial costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cost {
    /// Full-data gradient evaluations.
    Fge,
    /// Seconds, which no two machines agree on.
    Seconds,
}

/// How studies are carried out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudySpec {
    /// Trials of a study, at least 1.
    pub max_trials: usize,
    /// Trials in flight, at least 1. A proposal knows what ended `batch_size` trials before it.
    pub batch_size: usize,
    /// How trials are chosen.
    pub sampler: TuneSampler,
    /// Seed of what is random in that.
    pub seed: u64,
    /// When trials are given up.
    pub pruner: Pruner,
    /// What is minimised.
    pub objective: Objective,
}

/// Bounds on what a reference and a trial may cost; `None`: no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// Seconds of the reference.
    pub hmc_sec: Option<f64>,
    /// Seconds of a trial.
    pub trial_sec: Option<f64>,
    /// Full-data gradient evaluations of the reference.
    pub hmc_fge: Option<f64>,
    /// Full-data gradient evaluations of a trial.
    pub trial_fge: Option<f64>,
}

/// A method and what is searched of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MethodSpace {
    /// The sampler's name.
    pub method: String,
    /// Its parameters; none: one trial with the preset's settings.
    pub dimensions: Vec<Dimension>,
}
