//! A trial as a run: its seed, its settings, what its budget leaves of it, and what it found.

use std::path::Path;

use thiserror::Error;

use super::objective::Progress;
use super::space::Params;
use crate::config::Dtype;
use crate::config::tune::{Scalar, trial_sampler};
use crate::config::{Algo, SamplerSpec};
use crate::store::Hash;
use crate::sweep::PlannedTarget;
use crate::trace::Trace;

/// Steps in which a trial is shortened.
const SHARES: u32 = 1000;
/// Places at which the running estimate is looked at.
const PLACES: usize = 64;

/// What trials of one method have in common.
#[derive(Clone, Debug)]
pub struct Method<'a> {
    /// The study's name.
    pub study: &'a str,
    /// The sampler's name.
    pub method: &'a str,
    /// The file's `precision`.
    pub precision: Option<Dtype>,
    /// Presets of the user's.
    pub presets: Option<&'a Path>,
    /// The target, of which all parameters are sampled.
    pub target: &'a PlannedTarget,
    /// Most expected work of a run in full-data gradient evaluations.
    pub cap: Option<f64>,
}

/// The run that a trial is.
#[derive(Clone, Debug, PartialEq)]
pub struct TrialRun {
    /// The sampler.
    pub sampler: SamplerSpec,
    /// Settings over the preset's: the trial's parameters and what the budget lowered.
    pub settings: Params,
    /// What the budget lowered.
    pub cut: Params,
    /// Expected work in full-data gradient evaluations.
    pub expected_fge: f64,
}

/// Why parameters make no run.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum TrialError {
    /// They exclude each other.
    #[error("{0}")]
    Settings(String),
    /// No length brings their work under the cap.
    #[error(
        "its budget of {cap:.3e} FGE is too small: {expected:.3e} are expected, and no shorter run fits; raise \
         execution.budget.trial_fge or trial_sec, and move the study's journal away, which keeps its budget"
    )]
    TooSmall {
        /// The cap.
        cap: f64,
        /// Expected work at full length.
        expected: f64,
    },
}

/// The seed of what is run under this name in the study: 32 bits of a hash of both.
pub fn seed(study: &str, what: &str) -> u64 {
    let hash = Hash::of(format!("{study}\n{what}").as_bytes());
    u64::from(u32::from_be_bytes([hash.0[0], hash.0[1], hash.0[2], hash.0[3]]))
}

impl Method<'_> {
    /// The run of these parameters. Where its expected work is above the cap, draws (of stochastic gradients:
    /// steps and burn-in alike; of vi: steps of the optimiser) are lowered by a common factor, to thousandths.
    ///
    /// # Errors
    /// Settings that exclude each other, or work that no length brings under the cap.
    pub fn run(&self, params: &Params, what: &str) -> Result<TrialRun, TrialError> {
        let seed = seed(self.study, what);
        let sampler = |params: &Params| {
            trial_sampler(self.method, params, seed, self.precision, self.presets)
                .map_err(|e| TrialError::Settings(e.to_string()))
        };
        let work = |spec: &SamplerSpec| self.target.expected_fge(spec).total;
        let whole = sampler(params)?;
        let full = work(&whole);
        let Some(cap) = self.cap.filter(|cap| full > *cap) else {
            return Ok(TrialRun {
                sampler: whole,
                settings: params.clone(),
                cut: Params::new(),
                expected_fge: full,
            });
        };
        let lengths = lengths(&whole.algo);
        let cut = |share: u32| -> Params {
            let part = |n: u64| (n as f64 * f64::from(share) / f64::from(SHARES)) as i64;
            lengths.iter().map(|(key, n)| ((*key).to_owned(), Scalar::Int(part(*n)))).collect()
        };
        let with = |cut: &Params| -> Params { params.clone().into_iter().chain(cut.clone()).collect() };
        // The largest share whose work is within the cap; one too short to be valid counts as such.
        let (mut fits, mut over) = (0, SHARES);
        while over - fits > 1 {
            let middle = fits + (over - fits) / 2;
            match sampler(&with(&cut(middle))) {
                Ok(spec) if work(&spec) > cap => over = middle,
                _ => fits = middle,
            }
        }
        let cut = cut(fits);
        let settings = with(&cut);
        let short = TrialError::TooSmall { cap, expected: full };
        let Ok(spec) = sampler(&settings) else { return Err(short) };
        let expected = work(&spec);
        if expected > cap {
            return Err(short);
        }
        Ok(TrialRun { sampler: spec, settings, cut, expected_fge: expected })
    }
}

/// The keys that say how long a run is.
fn lengths(algo: &Algo) -> Vec<(&'static str, u64)> {
    match algo {
        Algo::Hmc(a) => vec![("draws", a.draws as u64)],
        Algo::Nuts(a) => vec![("draws", a.draws as u64)],
        Algo::Mala(a) => vec![("draws", a.draws as u64)],
        Algo::Mclmc(a) => vec![("draws", a.draws as u64)],
        Algo::Sgld(a) => vec![("steps", a.steps), ("warmup", a.warmup)],
        Algo::Sghmc(a) => vec![("steps", a.steps), ("warmup", a.warmup)],
        Algo::Sgnht(a) => vec![("steps", a.steps), ("warmup", a.warmup)],
        Algo::Vi(a) => vec![("steps", a.steps)],
    }
}

/// The running estimate of a trace at up to 64 places: the mean llc of the first draws of all chains, and the
/// work up to there, `sampling` in equal parts a draw after `warmup`.
pub fn way(trace: &Trace, warmup: f64, sampling: f64) -> Vec<Progress> {
    let Some(chains) = trace.column("llc") else { return Vec::new() };
    let n = chains.iter().map(|chain| chain.len()).min().unwrap_or(0);
    let (mut sum, mut from, mut way) = (0.0, 0, Vec::new());
    for place in 1..=PLACES {
        let to = n * place / PLACES;
        if to == from {
            continue;
        }
        sum += chains.iter().flat_map(|chain| &chain[from..to]).sum::<f64>();
        from = to;
        let cost = warmup + sampling * to as f64 / n as f64;
        way.push(Progress { cost, llc: sum / (to * chains.len()) as f64 });
    }
    way
}
