//! Settings of variational inference.

use serde::{Deserialize, Serialize};

/// Settings of VI: the optimisation of the ELBO, the draws after it, and the approximation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vi {
    /// Kept draws a chain from its optimised approximation, ≥ 1.
    pub draws: usize,
    /// Steps of each chain's optimisation, ≥ 1.
    pub steps: u64,
    /// Rows a gradient, drawn with replacement; the full gradient where n is not larger.
    pub batch_size: usize,
    /// Step size of Adam in whitened coordinates, > 0.
    pub lr: f64,
    /// How it falls; `None`: constant.
    pub lr_schedule: Option<LrSchedule>,
    /// Share of the steps over which it rises from 0, in [0, 1).
    pub lr_warmup_frac: f64,
    /// Largest norm of a gradient in whitened coordinates, a root of the number of parameters.
    pub clip_global_norm: Option<f64>,
    /// Steps over which ELBO values are averaged before they are compared, ≥ 1.
    pub eval_every: u64,
    /// Draws of an evaluation of the ELBO on the full data, ≥ 2.
    pub eval_samples: usize,
    /// What scales coordinates in the optimisation.
    pub whitening_mode: Whitening,
    /// Decay of the running second moment, in [0, 1).
    pub whitening_decay: f64,
    /// The family of approximations.
    pub approximation: Approximation,
}

/// Families of approximations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Approximation {
    /// Mixture of factor analysers.
    Mfa(Mfa),
    /// Flow in a few dimensions, lifted.
    Flow(LatentFlow),
}

/// Settings of a mixture of factor analysers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mfa {
    /// M, components, ≥ 1; `None`: chosen by ELBO.
    #[serde(rename = "M")]
    pub components: Option<usize>,
    /// r, factors a component; `None`: chosen by ELBO.
    #[serde(rename = "r")]
    pub rank: Option<usize>,
    /// Factors of each component, in the place of M and r.
    pub r_per_component: Option<Vec<usize>>,
    /// What the factors are added to.
    pub family: FactorFamily,
    /// Weights are softmax(logits/temperature), > 0.
    pub alpha_temperature: f64,
    /// α of the Dirichlet prior on the weights, > 0; `None`: none.
    pub alpha_dirichlet_prior: Option<f64>,
    /// How much of the weights' entropy is added to the objective, ≥ 0.
    pub entropy_bonus: f64,
}

/// What a factor analyser's low-rank part is added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FactorFamily {
    /// A diagonal covariance.
    Covariance,
    /// A diagonal precision.
    Precision,
}

/// Settings of a lifted flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatentFlow {
    /// Dimensions of the flow, ≥ 1; at most d are used.
    pub d_latent: usize,
    /// Standard deviation of the other directions, > 0, in units of the curvature's scales; `None`: learned,
    /// and those scales too.
    pub sigma_perp: Option<f64>,
    /// Layers, ≥ 1.
    pub flow_depth: usize,
    /// Widths of the hidden layers of each layer's network.
    pub flow_hidden: Vec<usize>,
    /// Kind of layer.
    pub flow_type: FlowType,
}

/// Layers of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowType {
    /// Affine coupling.
    Realnvp,
    /// Masked autoregressive, affine.
    Maf,
    /// Masked autoregressive, rational-quadratic splines.
    NsfAr,
}

/// How a learning rate falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LrSchedule {
    /// Half a cosine, to 0.
    Cosine,
    /// A line, to 0.
    LinearDecay,
}

/// What scales coordinates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whitening {
    /// The curvature at w* alone.
    None,
    /// The running second moment of the gradient, starting from that.
    Rmsprop,
    /// The same starting from 0, corrected for its start.
    Adam,
}
