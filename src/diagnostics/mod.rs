//! From a trace to λ̂: its error, bias and work, and a verdict on whether to believe it.
//!
//! λ̂ is the mean of the `llc` column, llc(w) = nβ·(L_n(w) − L0), over the draws of all chains.
//! Chains that did not mix still have a mean, so a mean never goes out without its [`Verdict`]:
//! [`analyse`] computes the numbers, the clauses of the verdict are in one list in `verdict`.
//! [`diagnose`] tells afterwards, from the trace alone, all that there is to know of its mixing.

mod analysis;
mod control_variate;
mod diagnosis;
mod verdict;

pub use analysis::{Analysis, Bias, Context, Tuning, analyse, is_wrong};
pub use control_variate::{Adjusted, adjust};
pub use diagnosis::{
    BurnIn, COLUMNS, Diagnosis, Energy, Estimate, Full, Mode, Quantile, Quantity, Running, diagnose,
};
pub(crate) use diagnosis::{FIRST, diagnose_beside};
pub use verdict::{MAX_DIVERGENT, Verdict};
