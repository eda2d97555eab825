//! The numbers of a run, and the flat record that files and tables hold.

use serde::{Deserialize, Serialize};

use super::control_variate::adjust;
use super::verdict::{Control, Evidence, Verdict, objections};
use crate::stats;
use crate::trace::Trace;

/// How far the law that the draws follow is off the posterior.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bias {
    /// Not at all: the sampler accepts or rejects.
    Exact,
    /// By a known amount: E(llc) under the draws' law less E(llc) under the posterior.
    Predicted(f64),
    /// Nobody can say.
    Unknown,
}

/// What a run's warmup chose and found, for the record.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tuning {
    /// Step size of the chains.
    pub step_size: Option<f64>,
    /// Distance over which a momentum's direction is forgotten (mclmc's L).
    pub momentum_length: Option<f64>,
    /// Mean Metropolis acceptance of a Langevin proposal at the step size, on the full loss.
    pub mala_acceptance: Option<f64>,
    /// Largest relative bias over the posterior's modes.
    pub bias_bound: Option<f64>,
    /// The smallest loss that descent from w* found.
    pub lowest_loss: Option<f64>,
    /// Components of a variational mixture, and the rank of their factors.
    pub components: Option<usize>,
    /// The rank of their factors.
    pub rank: Option<usize>,
}

/// What an analysis needs beside the draws.
#[derive(Clone, Debug)]
pub struct Context<'a> {
    /// Identity of the target.
    pub target_id: &'a str,
    /// Identity of the run.
    pub run_id: &'a str,
    /// Name of the sampler.
    pub sampler: &'a str,
    /// Inverse temperature β.
    pub beta: f64,
    /// Strength γ of the localiser (γ/2)·‖w − w*‖².
    pub gamma: f64,
    /// nβ
    pub nbeta: f64,
    /// L0 = L_n(w*), by the sampler's own arithmetic.
    pub l0: f64,
    /// λ, where it is known.
    pub exact_lambda: Option<f64>,
    /// Its multiplicity.
    pub exact_multiplicity: Option<u32>,
    /// What a perfect sampler would measure at this nβ and γ.
    pub exact_llc: Option<f64>,
    /// Work of the warmup in full-data gradient evaluations, all chains.
    pub fge_warmup: f64,
    /// Work of the draws, likewise.
    pub fge_sampling: f64,
    /// Bias of the draws' law.
    pub bias: Bias,
    /// What the warmup chose and found.
    pub tuning: Tuning,
    /// llc draws of a short chain at half the step, where one ran.
    pub control: Option<&'a [f64]>,
    /// Whether the verdict needs such a chain: on targets that may be singular.
    pub needs_control: bool,
    /// The share of the bias that such a chain has.
    pub bias_at_half_step: f64,
    /// What is said where nobody knows the bias.
    pub unknown_bias: &'static str,
}

/// One run's estimate and what it is worth: `analysis.json`.
///
/// Serialises to one flat object whose keys stand in this order; `None` (null) is what is
/// undefined or not finite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Analysis {
    /// Identity of the target.
    pub target_id: String,
    /// Identity of the run.
    pub run_id: String,
    /// Name of the sampler.
    pub sampler: String,
    /// λ̂: mean llc over all draws of all chains, as drawn (no bias taken off).
    pub llc_mean: Option<f64>,
    /// Monte-Carlo standard error of `llc_mean`: `llc_sd`/√`ess_mean`.
    pub llc_mcse: Option<f64>,
    /// Standard deviation of llc over all draws.
    pub llc_sd: Option<f64>,
    /// Predicted bias of `llc_mean`: what to take off for an unbiased estimate. 0 for exact
    /// samplers, null where unknown.
    pub llc_bias: Option<f64>,
    /// Lower end of the bias-corrected 95 % interval, centred at `llc_mean` − `llc_bias`.
    ///
    /// `llc_mean` − `llc_bias` ± t·`llc_mcse`: the bias is 0 for exact samplers, and an unknown one
    /// counts as 0, which the verdict says; t is the 97.5 % quantile of Student's t with
    /// `ess_mean` − 1 degrees of freedom, nearly 1.96 for chains that mixed, wider where a few
    /// effective draws are all there is. Disagreement between chains enters through `ess_mean`.
    pub llc_ci_low: Option<f64>,
    /// Upper end of that interval.
    pub llc_ci_high: Option<f64>,
    /// Effective sample size for the mean: split chains, not rank-normalised.
    pub ess_mean: Option<f64>,
    /// Rank-normalised bulk ESS.
    pub ess_bulk: Option<f64>,
    /// Tail ESS: the smaller for the 5 % and 95 % quantiles.
    pub ess_tail: Option<f64>,
    /// Rank-normalised split R-hat. Null for one chain, and where it is infinite.
    pub r_hat: Option<f64>,
    /// Number of chains.
    pub n_chains: usize,
    /// Draws a chain, after warmup.
    pub n_draws: usize,
    /// Divergent draws, all chains; null for a sampler that reports none.
    pub divergences: Option<u64>,
    /// Work of the warmup in full-data gradient evaluations.
    pub fge_warmup: f64,
    /// Work of the draws, likewise.
    pub fge_sampling: f64,
    /// Inverse temperature β.
    pub beta: f64,
    /// Strength of the localiser.
    pub gamma: f64,
    /// L0 = L_n(w*).
    pub l0: Option<f64>,
    /// λ, where it is known.
    pub exact_lambda: Option<f64>,
    /// Its multiplicity.
    pub exact_multiplicity: Option<u32>,
    /// What a perfect sampler would measure at this nβ and γ.
    pub exact_llc: Option<f64>,
    /// Whether the estimate may be taken as it stands.
    pub verdict: Verdict,
    /// Why not, a short sentence each.
    pub reasons: Vec<String>,
    /// nβ
    pub nbeta: f64,
    /// Smallest E-BFMI over the chains; null for a sampler without an energy.
    pub e_bfmi: Option<f64>,
    /// Means of the first halves less those of the second, in joint standard errors.
    pub drift_z: Option<f64>,
    /// Mean llc of the control chain at half the step.
    pub control_llc: Option<f64>,
    /// Its standard error.
    pub control_mcse: Option<f64>,
    /// Standard error of `llc_mean` from the scatter of the chains' means alone: their standard
    /// deviation over √chains. Far above `llc_mcse_within`: the chains are in different places.
    pub llc_mcse_between: Option<f64>,
    /// Standard error from the scatter within the chains alone: √(Σ MCSE²)/chains.
    pub llc_mcse_within: Option<f64>,
    /// Work-normalised variance: `llc_mcse`² × work in full-data gradient evaluations, warmup included.
    pub wnv_fge: Option<f64>,
    /// `ess_mean` over that work.
    pub ess_per_fge: Option<f64>,
    /// Step size of the chains, given or adapted.
    pub step_size: Option<f64>,
    /// mclmc's L.
    pub momentum_length: Option<f64>,
    /// Mean Metropolis acceptance, on the full loss, of a Langevin proposal at the step size.
    pub mala_acceptance: Option<f64>,
    /// Largest relative bias that the step size gives any mode of the posterior: an upper bound on
    /// that of λ̂.
    pub bias_bound: Option<f64>,
    /// What λ̂ owes to w* not being at the bottom: nβ·(L0 − the smallest loss that descent from w*
    /// found). λ̂ would be higher by this if llc were measured from there (`l0: trained_minimum`).
    pub l0_gap: Option<f64>,
    /// λ̂ with the control variate of the trace put to use, where it has one; the coefficient of each
    /// chain is fitted on the others, so that it stays unbiased.
    pub llc_cv_mean: Option<f64>,
    /// Its standard error.
    pub llc_cv_mcse: Option<f64>,
    /// Share of the variance of llc that the control variate took away.
    pub cv_variance_removed: Option<f64>,
    /// Components of a variational mixture.
    pub components: Option<usize>,
    /// The rank of their factors.
    pub rank: Option<usize>,
}

/// Analyses the `llc` column of `trace`, and `energy` and `diverging` where it has them.
pub fn analyse(trace: &Trace, context: &Context) -> Analysis {
    let chains = trace.column("llc").unwrap_or_default();
    let draws = chains.concat();
    let mean = stats::mean(&draws);
    let sd = stats::sd(&draws);
    let ess_mean = stats::ess_mean(&chains);
    let mcse = sd / ess_mean.sqrt();
    let bias = match context.bias {
        Bias::Exact => Some(0.0),
        Bias::Predicted(bias) if bias.is_finite() => Some(bias),
        Bias::Predicted(_) | Bias::Unknown => None,
    };
    let reach = stats::t_quantile_975(ess_mean - 1.0) * mcse;
    let corrected = |end: f64| end - bias.unwrap_or(0.0);
    let work = context.fge_warmup + context.fge_sampling;
    let (between, within) = parts_of_error(&chains);
    let tuning = context.tuning;
    let adjusted = trace.column("control_variate").and_then(|control| adjust(&chains, &control));
    let slices = adjusted.as_ref().map(|a| a.chains.iter().map(Vec::as_slice).collect::<Vec<&[f64]>>());
    let control = context.control.map(|llc| (stats::mean(llc), stats::mcse_mean(&[llc])));

    let evidence = Evidence {
        chains: trace.chains.len(),
        draws: draws.len(),
        not_finite: draws.iter().filter(|x| !x.is_finite()).count(),
        mean,
        mcse,
        r_hat: stats::r_hat(&chains),
        ess_bulk: stats::ess_bulk(&chains),
        ess_tail: stats::ess_tail(&chains),
        e_bfmi: trace.column("energy").map(|chains| least_e_bfmi(&chains)),
        divergences: trace.column("diverging").map(|chains| count_divergences(&chains)),
        drift_z: drift(&chains),
        bias,
        unknown_bias: context.unknown_bias,
        control: match control {
            // Both without the bias that is predicted of them.
            Some((mean, mcse)) => Control::Ran {
                mean: mean + (1.0 - context.bias_at_half_step) * bias.unwrap_or(0.0),
                mcse,
                // A bias of first order needs it; one of second is small where energies are conserved.
                must_be_precise: context.bias != Bias::Exact && context.bias_at_half_step >= 0.5,
            },
            None if context.needs_control => Control::Missing,
            None => Control::NotNeeded,
        },
    };
    let reasons = objections(&evidence);

    Analysis {
        target_id: context.target_id.into(),
        run_id: context.run_id.into(),
        sampler: context.sampler.into(),
        llc_mean: finite(mean),
        llc_mcse: finite(mcse),
        llc_sd: finite(sd),
        llc_bias: bias.and_then(finite),
        llc_ci_low: finite(corrected(mean - reach)),
        llc_ci_high: finite(corrected(mean + reach)),
        ess_mean: finite(ess_mean),
        ess_bulk: finite(evidence.ess_bulk),
        ess_tail: finite(evidence.ess_tail),
        r_hat: finite(evidence.r_hat),
        n_chains: trace.chains.len(),
        n_draws: trace.draws(),
        divergences: evidence.divergences,
        fge_warmup: context.fge_warmup,
        fge_sampling: context.fge_sampling,
        beta: context.beta,
        gamma: context.gamma,
        l0: finite(context.l0),
        exact_lambda: context.exact_lambda.and_then(finite),
        exact_multiplicity: context.exact_multiplicity,
        exact_llc: context.exact_llc.and_then(finite),
        verdict: if reasons.is_empty() { Verdict::Ok } else { Verdict::Check },
        reasons,
        nbeta: context.nbeta,
        e_bfmi: evidence.e_bfmi.and_then(finite),
        drift_z: finite(evidence.drift_z),
        control_llc: control.and_then(|(mean, _)| finite(mean)),
        control_mcse: control.and_then(|(_, mcse)| finite(mcse)),
        llc_mcse_between: finite(between),
        llc_mcse_within: finite(within),
        wnv_fge: finite(mcse * mcse * work),
        ess_per_fge: finite(ess_mean / work),
        step_size: tuning.step_size.and_then(finite),
        momentum_length: tuning.momentum_length.and_then(finite),
        mala_acceptance: tuning.mala_acceptance.and_then(finite),
        bias_bound: tuning.bias_bound.and_then(finite),
        llc_cv_mean: adjusted.as_ref().and_then(|a| finite(stats::mean(&a.chains.concat()))),
        llc_cv_mcse: slices.and_then(|s| finite(stats::mcse_mean(&s))),
        cv_variance_removed: adjusted.as_ref().and_then(|a| finite(a.variance_removed)),
        components: tuning.components,
        rank: tuning.rank,
        l0_gap: tuning.lowest_loss.map(|l| context.nbeta * (context.l0 - l)).and_then(finite),
    }
}

/// Whether the verdict misled: `ok`, and yet |λ̂ − `exact`| is above both 4 MCSE and 5 % of `exact`.
pub fn is_wrong(analysis: &Analysis, exact: f64) -> bool {
    const STANDARD_ERRORS: f64 = 4.0;
    const RELATIVE: f64 = 0.05;
    let (Some(mean), Some(mcse)) = (analysis.llc_mean, analysis.llc_mcse) else {
        // An `ok` without numbers would be the worst of verdicts.
        return analysis.verdict == Verdict::Ok;
    };
    analysis.verdict == Verdict::Ok
        && (mean - exact).abs() > (STANDARD_ERRORS * mcse).max(RELATIVE * exact.abs())
}

fn finite(x: f64) -> Option<f64> {
    x.is_finite().then_some(x)
}

/// Standard errors of the mean of all draws from the scatter between the chains' means, and from
/// that within the chains.
fn parts_of_error(chains: &[&[f64]]) -> (f64, f64) {
    let count = chains.len() as f64;
    let means: Vec<f64> = chains.iter().map(|c| stats::mean(c)).collect();
    let squares: f64 = chains.iter().map(|c| stats::mcse_mean(&[c]).powi(2)).sum();
    (stats::sd(&means) / count.sqrt(), squares.sqrt() / count)
}

/// The smallest over the chains; NaN if it is undefined in any.
fn least_e_bfmi(chains: &[&[f64]]) -> f64 {
    let each = chains.iter().map(|energy| stats::e_bfmi(energy));
    each.reduce(|least, x| if least.is_nan() || least <= x { least } else { x }).unwrap_or(f64::NAN)
}

/// Draws marked as divergent; a NaN mark counts.
fn count_divergences(chains: &[&[f64]]) -> u64 {
    chains.iter().flat_map(|c| c.iter()).filter(|&&mark| mark != 0.0).count() as u64
}

/// Mean of all first halves less that of all second halves, in joint standard errors. Where
/// nothing varies it is 0 or ±∞. Halves below 4 draws have none: NaN.
fn drift(chains: &[&[f64]]) -> f64 {
    let summary = |halves: Vec<&[f64]>| (stats::mean(&halves.concat()), stats::mcse_mean(&halves));
    let (first, first_mcse) = summary(chains.iter().map(|c| &c[..c.len() / 2]).collect());
    let (second, second_mcse) = summary(chains.iter().map(|c| &c[c.len() - c.len() / 2..]).collect());
    let difference = first - second;
    let joint = (first_mcse * first_mcse + second_mcse * second_mcse).sqrt();
    if difference == 0.0 && joint == 0.0 { 0.0 } else { difference / joint }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::rng::{Key, Purpose, fill_normal};
    use crate::trace::{ChainTrace, Column, Kind};

    const CONTEXT: Context = Context {
        target_id: "tgt_a",
        run_id: "run_b",
        sampler: "hmc",
        beta: 0.25,
        gamma: 1.0,
        nbeta: 25.0,
        l0: 0.5,
        exact_lambda: Some(2.0),
        exact_multiplicity: Some(1),
        exact_llc: None,
        fge_warmup: 100.0,
        fge_sampling: 4000.0,
        bias: Bias::Exact,
        tuning: Tuning {
            step_size: None,
            momentum_length: None,
            mala_acceptance: None,
            bias_bound: None,
            lowest_loss: None,
            components: None,
            rank: None,
        },
        control: None,
        needs_control: false,
        bias_at_half_step: 0.5,
        unknown_bias: "step-size bias not assessed",
    };

    fn normals(chain: u32, draws: usize, iteration: u64) -> Vec<f64> {
        let mut x = vec![0.0f64; draws];
        fill_normal(&mut Key::new([3; 32], Purpose::Probe, chain).at(iteration), &mut x);
        x
    }

    /// Columns llc ~ N(2, ¼), energy ~ N(0, 1), diverging = 0, all independent.
    fn independent(chains: u32, draws: usize) -> Trace {
        let chain = |c| {
            let llc = normals(c, draws, 0).iter().map(|e| 2.0 + 0.5 * e).collect();
            ChainTrace { values: vec![llc, normals(c, draws, 1), vec![0.0; draws]] }
        };
        let layout = vec![
            Column::posterior("llc"),
            Column::stat("energy", Kind::Float),
            Column::stat("diverging", Kind::Bool),
        ];
        Trace { layout, chains: (0..chains).map(chain).collect() }
    }

    #[test]
    fn independent_normals_give_their_closed_forms_and_pass() {
        let control = normals(99, 300, 0).iter().map(|e| 2.0 + 0.5 * e).collect::<Vec<_>>();
        let context = Context { control: Some(&control), needs_control: true, ..CONTEXT };
        let a = analyse(&independent(4, 1000), &context);
        assert_eq!((a.verdict, a.reasons.len()), (Verdict::Ok, 0), "{:?}", a.reasons);
        let n: f64 = 4000.0;
        let (mean, sd, mcse) = (a.llc_mean.unwrap(), a.llc_sd.unwrap(), a.llc_mcse.unwrap());
        assert!((mean - 2.0).abs() < 4.0 * 0.5 / n.sqrt());
        // Relative standard error of a standard deviation: 1/√(2n).
        assert!((sd / 0.5 - 1.0).abs() < 4.0 / (2.0 * n).sqrt());
        assert!((mcse - sd / a.ess_mean.unwrap().sqrt()).abs() < 1e-15);
        let (low, high) = (a.llc_ci_low.unwrap(), a.llc_ci_high.unwrap());
        assert!(((low + high) / 2.0 - mean).abs() < 1e-14);
        // 3,999 degrees of freedom or so: within 0.1 % of the normal's 1.96.
        assert!(((high - low) / (2.0 * 1.959_964 * mcse) - 1.0).abs() < 1e-3);
        assert_eq!((a.llc_bias, a.divergences, a.n_chains, a.n_draws), (Some(0.0), Some(0), 4, 1000));
        assert!(a.drift_z.unwrap().abs() < 3.0);
        assert!((a.e_bfmi.unwrap() - 2.0).abs() < 4.0 * (2.0 / 1000f64).sqrt() * 2.0);
    }

    #[test]
    fn intervals_corrected_for_bias_cover_the_truth_95_times_in_100() {
        // The truth is 2; the draws' law is 0.2 high and, in `phi`, autocorrelated.
        let context = Context { bias: Bias::Predicted(0.2), ..CONTEXT };
        let repetitions = 1000;
        for phi in [0.0, 0.6] {
            let mut covered = 0;
            for repetition in 0..repetitions {
                let chain = |c| {
                    let mut x = normals(c, 300, 10 + repetition);
                    x[0] /= f64::sqrt(1.0 - phi * phi);
                    for i in 1..x.len() {
                        x[i] += phi * x[i - 1];
                    }
                    ChainTrace { values: vec![x.iter().map(|e| 2.2 + 0.5 * e).collect()] }
                };
                let trace =
                    Trace { layout: vec![Column::posterior("llc")], chains: (0..4).map(chain).collect() };
                let a = analyse(&trace, &context);
                covered += u32::from(a.llc_ci_low.unwrap() <= 2.0 && 2.0 <= a.llc_ci_high.unwrap());
            }
            // Binomial error, and 1 % for the noise of the ESS itself: 10 % more or less of it in an
            // interval moves its share by 2·φ(1.96)·1.96·5 % = 1 %.
            let error = (0.95 * 0.05 / repetitions as f64).sqrt();
            let share = f64::from(covered) / repetitions as f64;
            assert!((share - 0.95).abs() < 4.0 * error + 0.01, "φ = {phi}: {share}");
        }
    }

    #[test]
    fn every_way_of_going_wrong_is_seen_in_a_trace() {
        let scale = |x: &mut Vec<f64>, by: f64| x.iter_mut().for_each(|v| *v = 2.0 + (*v - 2.0) * by);
        let shift = |x: &mut [f64], by: f64| x.iter_mut().for_each(|v| *v += by);
        let sum_up = |x: &mut Vec<f64>| (1..x.len()).for_each(|i| x[i] += x[i - 1]);
        type Change<'a> = &'a dyn Fn(&mut Trace);
        let cases: [(&str, Change, &[&str]); 8] = [
            ("nothing", &|_| {}, &[]),
            ("one chain", &|t| t.chains.truncate(1), &["1 chain < 2"]),
            ("few draws", &|t| *t = independent(4, 60), &["bulk ESS", "tail ESS"]),
            (
                "a chain elsewhere",
                &|t| shift(&mut t.chains[2].values[0], 2.0),
                &["R-hat", "bulk ESS", "tail ESS"],
            ),
            ("a chain of another width", &|t| scale(&mut t.chains[0].values[0], 3.0), &["R-hat", "tail ESS"]),
            (
                "all chains drift together",
                &|t| t.chains.iter_mut().for_each(|c| shift(&mut c.values[0][500..], 0.08)),
                &["drift"],
            ),
            ("an energy that creeps", &|t| sum_up(&mut t.chains[1].values[1]), &["E-BFMI"]),
            ("divergences", &|t| t.chains[3].values[2][..5].fill(1.0), &["5 divergences in 4000 draws"]),
        ];
        for (name, change, expected) in cases {
            let mut trace = independent(4, 1000);
            change(&mut trace);
            let a = analyse(&trace, &CONTEXT);
            assert_eq!(a.verdict == Verdict::Ok, expected.is_empty(), "{name}: {:?}", a.reasons);
            // One fault can show in several checks; those that must see it are named.
            for start in expected {
                assert!(a.reasons.iter().any(|r| r.starts_with(start)), "{name}: {:?}", a.reasons);
            }
        }
    }

    #[test]
    fn draws_that_are_not_numbers_are_named_once() {
        for bad in [f64::NAN, f64::INFINITY] {
            let mut trace = independent(4, 1000);
            trace.chains[0].values[0][7] = bad;
            let a = analyse(&trace, &CONTEXT);
            assert_eq!(a.reasons, ["llc is not finite in 1 of 4000 draws"]);
            assert_eq!((a.llc_mean, a.llc_mcse, a.llc_bias), (None, None, Some(0.0)));
        }
    }

    #[test]
    fn bias_and_control_enter_the_verdict() {
        let near = vec![1.9, 2.1, 2.0, 2.05, 1.95, 2.02, 1.98, 2.01];
        let far: Vec<f64> = near.iter().map(|x| x + 1.0).collect();
        let not_assessed = Some("step-size bias not assessed");
        let cases = [
            (Context { bias: Bias::Predicted(0.03), ..CONTEXT }, None),
            (Context { bias: Bias::Predicted(0.06), ..CONTEXT }, Some("size of the predicted bias")),
            (Context { bias: Bias::Predicted(f64::INFINITY), ..CONTEXT }, not_assessed),
            (Context { bias: Bias::Predicted(f64::NAN), ..CONTEXT }, not_assessed),
            (Context { bias: Bias::Unknown, ..CONTEXT }, not_assessed),
            (Context { needs_control: true, ..CONTEXT }, Some("no control chain")),
            (Context { needs_control: true, control: Some(&near), ..CONTEXT }, None),
            (Context { needs_control: true, control: Some(&far), ..CONTEXT }, Some("control chain")),
            (Context { needs_control: true, control: Some(&near[..2]), ..CONTEXT }, Some("control chain")),
        ];
        for (i, (context, reason)) in cases.iter().enumerate() {
            let a = analyse(&independent(4, 1000), context);
            assert_eq!(a.reasons.len(), usize::from(reason.is_some()), "case {i}: {:?}", a.reasons);
            if let (Some(said), Some(start)) = (a.reasons.first(), reason) {
                assert!(said.starts_with(start), "case {i}: {said}");
            }
        }
        let a = analyse(&independent(4, 1000), &cases[1].0);
        let unbiased = a.llc_mean.unwrap() - a.llc_bias.unwrap();
        assert!((unbiased + 0.06 - a.llc_mean.unwrap()).abs() < 1e-14);
    }

    #[test]
    fn json_is_one_flat_object_in_the_stable_order() {
        let keys = "target_id run_id sampler llc_mean llc_mcse llc_sd llc_bias llc_ci_low llc_ci_high ess_mean \
                    ess_bulk ess_tail r_hat n_chains n_draws divergences fge_warmup fge_sampling beta gamma l0 \
                    exact_lambda exact_multiplicity exact_llc verdict reasons nbeta e_bfmi drift_z control_llc \
                    control_mcse llc_mcse_between llc_mcse_within wnv_fge ess_per_fge step_size momentum_length \
                    mala_acceptance bias_bound l0_gap llc_cv_mean llc_cv_mcse cv_variance_removed components rank";
        let context = Context { bias: Bias::Unknown, l0: f64::INFINITY, exact_lambda: None, ..CONTEXT };
        let layout = vec![Column::posterior("llc")];
        let stuck = ChainTrace { values: vec![vec![1.0; 10]] };
        let degenerate = [
            Trace { layout: Vec::new(), chains: Vec::new() },
            Trace { layout: layout.clone(), chains: Vec::new() },
            Trace { layout: layout.clone(), chains: vec![ChainTrace { values: vec![Vec::new()] }; 2] },
            Trace { layout: layout.clone(), chains: vec![ChainTrace { values: vec![vec![f64::NAN; 9]] }; 2] },
            Trace {
                layout: layout.clone(),
                chains: vec![ChainTrace { values: vec![vec![f64::INFINITY; 9]] }; 2],
            },
            Trace { layout, chains: vec![stuck; 2] },
            independent(1, 3),
            independent(2, 1000),
        ];
        for trace in degenerate {
            let a = analyse(&trace, &context);
            let text = serde_json::to_string_pretty(&a).unwrap();
            // A line a key, at one depth; the reasons alone hold further lines.
            let found: Vec<&str> = text
                .lines()
                .filter_map(|line| line.strip_prefix("  \"")?.split_once("\": "))
                .map(|(key, _)| key)
                .collect();
            assert_eq!(found.join(" "), keys);
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert!(value["l0"].is_null() && value["llc_bias"].is_null() && value["exact_lambda"].is_null());
            assert_eq!(value["verdict"], "check");
            assert_eq!(serde_json::from_str::<Analysis>(&text).unwrap(), a);
        }
        let good = serde_json::to_value(analyse(&independent(4, 1000), &CONTEXT)).unwrap();
        assert_eq!(good["verdict"], "ok");
        assert_eq!(good["reasons"], serde_json::json!([]));
        assert_eq!((&good["n_draws"], &good["divergences"]), (&1000.into(), &0.into()));
    }

    #[test]
    fn chains_that_never_move_are_not_believed() {
        let stuck = |at: f64| ChainTrace { values: vec![vec![at; 1000]] };
        let layout = vec![Column::posterior("llc")];
        let same = Trace { layout: layout.clone(), chains: vec![stuck(1.0), stuck(1.0)] };
        let a = analyse(&same, &CONTEXT);
        assert_eq!(a.reasons, ["R-hat undefined"]);
        assert_eq!((a.r_hat, a.drift_z), (None, Some(0.0)));
        let apart = Trace { layout, chains: vec![stuck(1.0), stuck(2.0)] };
        let a = analyse(&apart, &CONTEXT);
        assert!(a.reasons[0].starts_with("R-hat") && a.verdict == Verdict::Check, "{:?}", a.reasons);
    }

    #[test]
    fn a_wrong_verdict_is_ok_far_from_the_truth() {
        let mut a = analyse(&independent(4, 1000), &CONTEXT);
        (a.llc_mean, a.llc_mcse) = (Some(2.0), Some(0.01));
        // 5 % of 1.9 is 0.095: the difference 0.1 exceeds it and 4 × 0.01.
        assert!(is_wrong(&a, 1.9) && is_wrong(&a, 2.2));
        assert!(!is_wrong(&a, 1.91) && !is_wrong(&a, 2.1));
        a.llc_mcse = Some(0.03);
        assert!(!is_wrong(&a, 1.9));
        (a.llc_mcse, a.verdict) = (Some(0.01), Verdict::Check);
        assert!(!is_wrong(&a, 1.0));
    }
}
