//! What figures are drawn from, and what comes out.

use std::borrow::Cow;

use super::raster;
use crate::diagnostics::{Analysis, Verdict};
use crate::trace::Trace;

/// Which figure: the stem of its file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum FigureName {
    Trace,
    Rank,
    Energy,
    Autocorr,
    RunningLlc,
    Convergence,
    Wnv,
    Comparison,
    LossCurve,
    PredTrain,
    PredTest,
    OptimizationHistory,
    ParamImportance,
    ParallelCoordinate,
    Contour,
    ParetoFront,
}

impl FigureName {
    /// Stem of the file's name: `"trace"` of `trace.png` and `trace.svg`.
    pub fn stem(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Rank => "rank",
            Self::Energy => "energy",
            Self::Autocorr => "autocorr",
            Self::RunningLlc => "running_llc",
            Self::Convergence => "llc_convergence_combined",
            Self::Wnv => "wnv",
            Self::Comparison => "llc_comparison",
            Self::LossCurve => "loss_curve",
            Self::PredTrain => "target_pred_vs_teacher_train",
            Self::PredTest => "target_pred_vs_teacher_test",
            Self::OptimizationHistory => "optimization_history",
            Self::ParamImportance => "param_importance",
            Self::ParallelCoordinate => "parallel_coordinate",
            Self::Contour => "contour",
            Self::ParetoFront => "pareto_front",
        }
    }

    /// A few words for a heading or a document's title.
    pub fn what(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Rank => "ranks",
            Self::Energy => "energy",
            Self::Autocorr => "autocorrelation",
            Self::RunningLlc => "running llc",
            Self::Convergence => "convergence",
            Self::Wnv => "work-normalised variance",
            Self::Comparison => "comparison of samplers",
            Self::LossCurve => "training loss",
            Self::PredTrain => "predictions on training data",
            Self::PredTest => "predictions on test data",
            Self::OptimizationHistory => "optimisation history",
            Self::ParamImportance => "importance of parameters",
            Self::ParallelCoordinate => "parallel coordinates",
            Self::Contour => "contour",
            Self::ParetoFront => "Pareto front",
        }
    }
}

/// A finished figure: 800 × 500 CSS px on white. The same input gives the same bytes.
#[derive(Clone, Debug)]
pub struct Figure {
    name: FigureName,
    caption: String,
    svg: String,
}

/// Why a picture could not be made of an SVG.
#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    /// The rasteriser does not read it.
    #[error("figure {name}: the rasteriser rejects the SVG ({reason}); the SVG itself may still be of use")]
    Svg {
        /// Stem of the figure's name.
        name: &'static str,
        /// What it says.
        reason: String,
    },
    /// No memory, or the encoder failed.
    #[error("figure {name}: no PNG could be made ({reason}); ask for SVG alone, or free memory")]
    Png {
        /// Stem of the figure's name.
        name: &'static str,
        /// What it says.
        reason: String,
    },
}

impl Figure {
    pub(super) fn new(name: FigureName, caption: String, svg: String) -> Self {
        Self { name, caption, svg }
    }

    /// Which figure it is.
    pub fn name(&self) -> FigureName {
        self.name
    }

    /// One sentence on what it shows: a caption, and an alternative text.
    pub fn caption(&self) -> &str {
        &self.caption
    }

    /// The SVG document: text as text, no scripts, no links, UTF-8.
    pub fn svg(&self) -> &str {
        &self.svg
    }

    /// The picture as PNG, 1600 × 1000 px (two device px a CSS px), opaque.
    ///
    /// # Errors
    /// [`PlotError`], where memory runs out.
    pub fn png(&self) -> Result<Vec<u8>, PlotError> {
        raster::png(self.name.stem(), &self.svg)
    }
}

/// One run: a sampler's draws of llc on a target, and what an analysis said of them.
///
/// What is `None` is left out of the figures, or computed from the draws where it can be.
#[derive(Clone, Debug, Default)]
pub struct RunSeries<'a> {
    /// The target's name, as people know it.
    pub target: &'a str,
    /// The sampler's.
    pub sampler: &'a str,
    /// `chains[chain][draw]`: llc = nβ·(L_n(w) − L0), in nats. Lengths may differ.
    pub chains: Vec<&'a [f64]>,
    /// `energy[chain][draw]`: the Hamiltonian at each draw in nats, of samplers that have one.
    pub energy: Option<Vec<&'a [f64]>>,
    /// Work before the first draw in full-data gradient evaluations, all chains.
    pub fge_warmup: f64,
    /// Work of the draws, likewise.
    pub fge_sampling: f64,
    /// Wall time before the first draw in seconds.
    pub seconds_warmup: Option<f64>,
    /// Wall time of the draws.
    pub seconds_sampling: Option<f64>,
    /// λ̂.
    pub mean: Option<f64>,
    /// Its Monte-Carlo standard error.
    pub mcse: Option<f64>,
    /// Its 95 % interval.
    pub interval: Option<(f64, f64)>,
    /// Effective sample size for the mean, all chains.
    pub ess: Option<f64>,
    /// Rank-normalised split R-hat.
    pub r_hat: Option<f64>,
    /// What a perfect sampler would measure: E(llc) of the posterior, where it is known.
    pub exact_llc: Option<f64>,
    /// λ, where it is known.
    pub exact_lambda: Option<f64>,
    /// Whether the estimate may be taken as it stands.
    pub verdict: Option<Verdict>,
}

impl<'a> RunSeries<'a> {
    /// From a run's trace (columns `llc`, and `energy` where it has one) and its analysis; times are
    /// not in either and stay `None`.
    pub fn new(target: &'a str, trace: &'a Trace, analysis: &'a Analysis) -> Self {
        Self {
            target,
            sampler: &analysis.sampler,
            chains: trace.column("llc").unwrap_or_default(),
            energy: trace.column("energy"),
            fge_warmup: analysis.fge_warmup,
            fge_sampling: analysis.fge_sampling,
            seconds_warmup: None,
            seconds_sampling: None,
            mean: analysis.llc_mean,
            mcse: analysis.llc_mcse,
            interval: analysis.llc_ci_low.zip(analysis.llc_ci_high),
            ess: analysis.ess_mean,
            r_hat: analysis.r_hat,
            exact_llc: analysis.exact_llc,
            exact_lambda: analysis.exact_lambda,
            verdict: Some(analysis.verdict),
        }
    }
}

/// How a target was trained, and what it predicts.
#[derive(Clone, Debug, Default)]
pub struct TargetCurves<'a> {
    /// The target's name.
    pub target: &'a str,
    /// What the loss is: `mse`, `t_regression`.
    pub loss: &'a str,
    /// (optimiser step, loss on the training rows)
    pub train: Cow<'a, [(f64, f64)]>,
    /// (optimiser step, loss on held-out rows); empty where there are none.
    pub validation: Cow<'a, [(f64, f64)]>,
    /// L0, the loss at w*, drawn as a line where given.
    pub l0: Option<f64>,
}

/// Outputs of a trained network beside its teacher's, on rows of one data set.
#[derive(Clone, Debug, Default)]
pub struct Predictions<'a> {
    /// The target's name.
    pub target: &'a str,
    /// Whether the rows are held out.
    pub held_out: bool,
    /// (teacher's output, prediction), one pair a row and output.
    pub pairs: Cow<'a, [(f64, f64)]>,
    /// Whether the first of a pair is the noisy observation, for want of a teacher.
    pub observed: bool,
}

/// What became of a trial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrialState {
    /// It has a value.
    #[default]
    Complete,
    /// Stopped early as hopeless; the value, if any, is its last.
    Pruned,
    /// It has none.
    Failed,
}

/// One trial of a study.
#[derive(Clone, Debug, Default)]
pub struct Trial {
    /// Its number.
    pub number: usize,
    /// What became of it.
    pub state: TrialState,
    /// The objective; smaller is better.
    pub value: Option<f64>,
    /// Its cost, in the unit of [`Trials::cost`].
    pub cost: Option<f64>,
    /// One a parameter; the position in `choices` for a categorical one. `None` where the trial has not got it.
    pub params: Vec<Option<f64>>,
}

/// One parameter that a study varies.
#[derive(Clone, Debug, Default)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// Whether its axis is logarithmic.
    pub log: bool,
    /// The choices of a categorical one, in order; empty for a number.
    pub choices: Vec<String>,
}

/// A study: trials of one method on one problem.
#[derive(Clone, Debug, Default)]
pub struct Trials<'a> {
    /// What was tuned, in a few words: problem and method.
    pub study: &'a str,
    /// The objective with its unit, as an axis says it: `|λ̂ − λ_ref|`.
    pub objective: &'a str,
    /// What a trial costs with its unit: `work (FGE)`.
    pub cost: &'a str,
    /// The parameters.
    pub params: Vec<Param>,
    /// The trials, in order of their number.
    pub trials: Vec<Trial>,
    /// How many of them were run with a shorter length than was proposed, which is what is drawn.
    pub shortened: usize,
    /// (parameter, share of the objective's variance that it explains, in [0, 1]).
    pub importance: Vec<(String, f64)>,
    /// How the importance was found, a few words: `fANOVA`.
    pub importance_method: &'a str,
}
