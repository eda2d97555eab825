//! Figures of runs, targets and studies: plain data in, SVG and PNG out.
//!
//! Every function takes data and gives a [`Figure`]; none reads a file, a clock or the system's
//! fonts, and none fails on odd data: what cannot be drawn (no draws, one chain, NaN, a constant) is
//! said in a sentence inside the figure. `docs/figures.md` says how to read each of them.
//!
//! SVG is written by hand: an axis whose labels are measured before they are placed, text that stays
//! text, and a gap where a value is missing are most of a figure here. PNG is that same SVG through
//! `resvg` with DejaVu Sans from this program.

mod data;
mod font;
mod page;
mod rank;
mod raster;
mod run;
mod scale;
mod series;
mod study;
mod style;
mod svg;
mod target;
mod training;

#[cfg(test)]
mod tests;

pub use data::{
    Figure, FigureName, Param, PlotError, Predictions, RunSeries, TargetCurves, Trial, TrialState, Trials,
};
pub use rank::rank;
pub use run::{autocorr, energy, running_llc, trace};
pub use scale::with_error;
pub use study::{contour, optimization_history, parallel_coordinate, param_importance, pareto};
pub use target::{comparison, convergence, wnv};
pub use training::{loss_curve, pred_vs_teacher};
