//! Summaries of draws and how far to trust them: effective sample sizes, Monte-Carlo errors,
//! R-hat, quantiles, autocorrelation. Plain slices in, plain numbers out.
//!
//! Definitions are those of Vehtari, Gelman, Simpson, Carpenter & Bürkner, "Rank-normalization,
//! folding, and localization: an improved R-hat", Bayesian Analysis 16:667 (2021), with the
//! truncation of Geyer, Statistical Science 7:473 (1992). Where the paper leaves a choice open
//! (odd lengths, ties, constants, the smallest admissible τ), the choice is that of ArviZ 0.23, so
//! that a user who opens a trace in ArviZ reads the same numbers; `tests/data/stats` holds its
//! answers on some 250 traces.
//!
//! `chains` are slices of equal length, one a chain. What cannot be computed (NaN among the draws,
//! fewer than 4 draws a chain, chains of different lengths) is NaN, never a panic.

mod autocorrelation;
mod beta;
mod convergence;
mod moments;
mod quick;
mod rank;
mod summary;
mod table;
mod transient;

#[cfg(test)]
mod arviz_tests;

pub use autocorrelation::{autocorrelation, autocorrelation_to};
pub use convergence::{
    e_bfmi, ess_bulk, ess_mean, ess_quantile, ess_sd, ess_tail, mcse_mean, mcse_quantile, mcse_sd, r_hat,
};
pub use moments::{mean, median, quantile, sd, sum, t_quantile_975, variance};
pub use rank::normal_quantile;
pub(crate) use summary::{Order, Turn, in_parallel, summarise_ordered};
pub use summary::{QuantileSummary, Summary, summarise};
pub use transient::{
    BurnIn, DRIFT_LIMIT, RunningPoint, burn_in, drift_from_end, geweke, geweke_and_burn_in, mser5,
    running_mean,
};
