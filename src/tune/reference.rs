//! What trials are compared with: the exact λ̂ where it is known, else NUTS run until it is sure enough.
//!
//! A reference is made in rounds. Each is an ordinary run of the `nuts` preset with more draws than the one
//! before: after a round of n draws with standard error s, wanted a·|λ̂|, the next has
//! n·1.3·(s/(a·|λ̂|))², at least 2n and at most 16n. It ends once s ≤ a·|λ̂| and nothing speaks against the estimate
//! (the run's verdict is `ok`: R-hat, effective sample sizes, drift, energies, divergences), or when the budget leaves
//! no worthwhile round. After a round with too many divergences the next ones take shorter steps: a target acceptance
//! of 0.95, then of 0.99. The first round is run even where λ̂ is known exactly: it tells the exact value at this nβ
//! and γ, and how many seconds a full gradient takes. It has 1,000 draws a chain, fewer where its expected work is above
//! the budget, and 100 at least.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::objective::Estimate;
use crate::config::tune::Budget;
use crate::diagnostics::{Analysis, MAX_DIVERGENT, Verdict};

/// Draws a chain of the first round.
pub const FIRST_DRAWS: usize = 1000;
/// Fewest of them: with less there is no standard error worth the name.
pub const FEWEST_DRAWS: usize = 100;
/// Most draws a chain.
const MOST_DRAWS: usize = 200_000;
/// Target acceptances above the preset's, for rounds after one that diverged.
const ACCEPTANCES: [f64; 2] = [0.95, 0.99];
/// A round that is not longer by this factor is not worth its work.
const WORTHWHILE: f64 = 1.2;

/// A problem's reference; the content of `artifacts/problems/p_…/ref.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// `p_` and 12 hex digits.
    pub problem: String,
    /// The target's id.
    pub target_id: String,
    /// λ_ref.
    pub llc: f64,
    /// Its standard error; 0 for an exact one.
    pub mcse: f64,
    /// Whether it is a closed form.
    pub exact: bool,
    /// Whether it is as sure as was asked for.
    pub converged: bool,
    /// Relative standard error that was asked for.
    pub accuracy: f64,
    /// Why it did not come to that.
    pub reason: Option<String>,
    /// Verdict on the last round; absent in files of older versions, which are made again.
    #[serde(default)]
    pub verdict: Option<Verdict>,
    /// What speaks against it, a short sentence each.
    #[serde(default)]
    pub objections: Vec<String>,
    /// Divergent draws of the last round, all chains.
    #[serde(default)]
    pub divergences: Option<u64>,
    /// Drift between the halves of its chains in joint standard errors.
    #[serde(default)]
    pub drift_z: Option<f64>,
    /// Its target acceptance, where that was raised above the preset's.
    #[serde(default)]
    pub target_acceptance: Option<f64>,
    /// Rank-normalised split R-hat of the last round.
    pub r_hat: Option<f64>,
    /// Effective sample size of the last round.
    pub ess: Option<f64>,
    /// λ̂ of the last round, which `llc` is unless it is exact.
    pub sampled_llc: Option<f64>,
    /// Standard error of that.
    pub sampled_mcse: Option<f64>,
    /// Draws a chain of the last round.
    pub draws: usize,
    /// Rounds.
    pub rounds: usize,
    /// Work of all rounds in full-data gradient evaluations.
    pub fge: f64,
    /// Core seconds of a full-data gradient evaluation, by the first round; null where no clock was kept.
    pub seconds_per_fge: Option<f64>,
    /// The run of the last round.
    pub run_id: String,
}

impl Reference {
    /// λ_ref and its standard error.
    pub fn estimate(&self) -> Estimate {
        Estimate { llc: self.llc, mcse: self.mcse }
    }

    /// Where the reference of a problem lies below the root.
    pub fn path(problem: &str) -> PathBuf {
        Path::new("artifacts/problems").join(problem).join("ref.json")
    }

    /// Whether it will do where a relative standard error of `accuracy` is wanted.
    pub fn serves(&self, accuracy: f64) -> bool {
        let sound = self.converged && self.verdict == Some(Verdict::Ok);
        self.exact || (sound && self.mcse <= accuracy * self.llc.abs())
    }
}

/// The rounds of one reference so far.
#[derive(Clone, Debug)]
pub struct Rounds {
    accuracy: f64,
    budget: Budget,
    spent: f64,
    rounds: usize,
    seconds_per_fge: Option<f64>,
    /// Rounds that diverged.
    diverged: usize,
}

/// What follows a round.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Another one, of so many draws a chain.
    Round(usize),
    /// Nothing: this is the reference.
    Reference(Box<Reference>),
}

impl Rounds {
    /// Before the first round.
    pub fn new(accuracy: f64, budget: Budget) -> Self {
        Self { accuracy, budget, spent: 0.0, rounds: 0, seconds_per_fge: None, diverged: 0 }
    }

    /// Whether none has been run yet.
    pub fn is_first(&self) -> bool {
        self.rounds == 0
    }

    /// The next round's target acceptance; `None`: the preset's.
    pub fn target_acceptance(&self) -> Option<f64> {
        ACCEPTANCES.get(self.diverged.checked_sub(1)?.min(ACCEPTANCES.len() - 1)).copied()
    }

    /// Most work in full-data gradient evaluations; infinite where there is no bound.
    fn cap(&self) -> f64 {
        fge_of(self.budget.hmc_fge, self.budget.hmc_sec, self.seconds_per_fge).unwrap_or(f64::INFINITY)
    }

    /// After a round of `draws` draws a chain that took `seconds` of one core, where that is known.
    ///
    /// # Errors
    /// An estimate that is no number, in words.
    pub fn after(
        &mut self,
        problem: &str,
        draws: usize,
        analysis: &Analysis,
        seconds: Option<f64>,
    ) -> Result<Next, String> {
        let work = analysis.fge_warmup + analysis.fge_sampling;
        self.spent += work;
        self.rounds += 1;
        if self.rounds == 1 {
            self.seconds_per_fge = seconds.map(|s| s / work).filter(|rate| rate.is_finite() && *rate > 0.0);
        }
        let mut reference = Reference {
            problem: problem.to_owned(),
            target_id: analysis.target_id.clone(),
            llc: f64::NAN,
            mcse: 0.0,
            exact: true,
            converged: true,
            accuracy: self.accuracy,
            reason: None,
            verdict: Some(analysis.verdict),
            objections: analysis.reasons.clone(),
            divergences: analysis.divergences,
            drift_z: analysis.drift_z,
            target_acceptance: self.target_acceptance(),
            r_hat: analysis.r_hat,
            ess: analysis.ess_mean,
            sampled_llc: analysis.llc_mean,
            sampled_mcse: analysis.llc_mcse,
            draws,
            rounds: self.rounds,
            fge: self.spent,
            seconds_per_fge: self.seconds_per_fge,
            run_id: analysis.run_id.clone(),
        };
        if let Some(exact) = analysis.exact_llc {
            reference.llc = exact;
            return Ok(Next::Reference(Box::new(reference)));
        }
        let (Some(llc), Some(mcse)) = (analysis.llc_mean, analysis.llc_mcse) else {
            return Err("its λ̂ or standard error is no number".to_owned());
        };
        (reference.llc, reference.mcse, reference.exact) = (llc, mcse, false);
        let off = mcse / (self.accuracy * llc.abs());
        if off <= 1.0 && analysis.verdict == Verdict::Ok {
            return Ok(Next::Reference(Box::new(reference)));
        }
        let draws_in_all = (analysis.n_draws * analysis.n_chains) as f64;
        if analysis.divergences.is_some_and(|n| n as f64 > MAX_DIVERGENT * draws_in_all) {
            self.diverged += 1;
        }
        let wanted = (1.3 * off * off).clamp(2.0, 16.0);
        let fge_of_draws = analysis.fge_sampling.max(1.0) / draws as f64;
        let affordable = (self.cap() - self.spent - analysis.fge_warmup) / fge_of_draws;
        let most = affordable.min(MOST_DRAWS as f64);
        let next = (draws as f64 * wanted).min(most);
        if next < WORTHWHILE * draws as f64 {
            reference.converged = false;
            let mut against = analysis.reasons.join("; ");
            if !against.is_empty() {
                against.insert_str(0, "; ");
            }
            reference.reason = Some(format!(
                "its standard error is {:.2} % of λ̂ (wanted: {:.2} %){against}, after {:.3e} FGE, {}",
                100.0 * mcse / llc.abs(),
                100.0 * self.accuracy,
                self.spent,
                match affordable < MOST_DRAWS as f64 {
                    true => format!("its budget being {:.3e}", self.cap()),
                    false => "and as many draws as it may have".to_owned(),
                },
            ));
            return Ok(Next::Reference(Box::new(reference)));
        }
        Ok(Next::Round(next as usize))
    }
}

/// A bound in full-data gradient evaluations: the smaller of `fge` and what `seconds` are worth.
pub fn fge_of(fge: Option<f64>, seconds: Option<f64>, seconds_per_fge: Option<f64>) -> Option<f64> {
    let timed = seconds.zip(seconds_per_fge).map(|(seconds, rate)| seconds / rate);
    match (fge, timed) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
