//! What an experiment file means once presets are merged, overrides applied and every value
//! checked: the *scientific* description of targets, samplers and posteriors, and nothing else.
//!
//! These types travel between ranks (postcard) and are hashed into ids (canonical JSON), so their
//! serialised form is part of the format: enums are externally tagged, no field is skipped.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::algo::SamplerSpec;
use super::error::Place;

/// Floating-point type of a build or a sampler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// 32-bit.
    F32,
    /// 64-bit.
    F64,
}

impl Dtype {
    /// `f32` or `f64`, as in files and messages.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::F64 => "f64",
        }
    }
}

/// One target: a problem, its seed and the precision it is built in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetSpec {
    /// What is built.
    pub problem: Problem,
    /// Seed of every random part (default 42).
    pub seed: u64,
    /// Precision of data, training and L0.
    pub dtype: Dtype,
}

/// The kinds of target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "a sweep holds few, and none is moved in a loop")]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// Teacher–student regression, trained to w*.
    Mlp(Mlp),
    /// Deep linear network at a known true parameter.
    Dln(Dln),
    /// L = ½ Σ hᵢ wᵢ².
    Quadratic(Quadratic),
    /// L = Π wᵢ^(2kᵢ).
    NormalCrossing(NormalCrossing),
    /// The user's own data and trained parameters.
    External(External),
}

impl Problem {
    /// The loss of its network, where it has one.
    pub fn loss(&self) -> &Loss {
        match self {
            Problem::Mlp(problem) => &problem.loss,
            Problem::External(problem) => &problem.loss,
            _ => &Loss::Mse,
        }
    }
}

/// Teacher–student regression.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mlp {
    /// The student.
    pub model: Network,
    /// How the student's initial parameters are drawn.
    pub init: Init,
    /// Inputs, outputs and noise.
    pub data: Data,
    /// The teacher; `None` (preset `_null`) is the student's architecture with its own random parameters.
    pub teacher: Option<Teacher>,
    /// How w* is found.
    pub training: Training,
    /// L_n.
    pub loss: Loss,
}

/// A fully connected network: `hidden.len()` hidden layers and a linear output layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Inputs.
    pub in_dim: usize,
    /// Width of each hidden layer (may be empty: a linear model).
    pub hidden: Vec<usize>,
    /// Outputs.
    pub out_dim: usize,
    /// After each hidden layer.
    pub activation: Activation,
    /// Biases in every layer.
    pub bias: bool,
    /// Layer normalisation (with learned scale and shift) before each hidden activation.
    pub layernorm: bool,
    /// A residual connection is added every so many hidden layers of equal width; `None`: none.
    pub residual_period: Option<usize>,
}

/// Activation functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// max(0, x), derivative 0 at 0.
    Relu,
    /// tanh x
    Tanh,
    /// x Φ(x), exact (Hendrycks & Gimpel 2016), not the tanh approximation.
    Gelu,
    /// x
    Identity,
}

/// Initial weights; biases start at 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// N(0, 2/fan_in) (He et al. 2015).
    He,
    /// N(0, 2/(fan_in + fan_out)) (Glorot & Bengio 2010).
    Xavier,
    /// N(0, 1/fan_in) (LeCun et al. 1998).
    Lecun,
}

/// A teacher of its own size (inputs and outputs are the student's).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Teacher {
    /// The teacher's network.
    pub network: Network,
    /// Probability that a hidden unit's output is dropped (and the rest scaled up) while Y is made.
    pub dropout: f64,
}

/// Data set of a teacher–student problem.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// Rows n.
    pub n_data: usize,
    /// Distribution of the inputs.
    pub x: Inputs,
    /// Distribution of the noise.
    pub noise: Noise,
    /// Standard deviation (scale, for student_t) of the noise; 0 allowed.
    pub noise_scale: f64,
}

/// Distribution of a row of X.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Inputs {
    /// N(0, I).
    GaussIso,
    /// N(0, diag(σᵢ²)), σᵢ² falling geometrically from 1 to 1/condition.
    GaussAniso {
        /// Condition number of the covariance, ≥ 1.
        condition: f64,
    },
    /// Equal-weight mixture of N(mₖ, I), the mₖ drawn from N(0, spread² I).
    Mixture {
        /// Number of components, ≥ 1.
        components: usize,
        /// Standard deviation of the component means.
        spread: f64,
    },
    /// x = A z + 0.01·N(0, I), z ~ N(0, I_dim), A with orthonormal columns scaled to unit mean square input.
    LowdimManifold {
        /// Latent dimension, 1 ≤ dim ≤ inputs.
        dim: usize,
    },
    /// Independent Student-t coordinates scaled to unit variance.
    HeavyTail {
        /// Degrees of freedom, > 2.
        df: f64,
    },
}

/// Distribution of the noise on Y.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Noise {
    /// N(0, s²).
    Gauss,
    /// N(0, s²(1 + ‖x‖²/in)/2): grows with the input.
    Hetero,
    /// s·t(df).
    StudentT {
        /// Degrees of freedom, > 0.
        df: f64,
    },
    /// N(0, s²), and with probability `fraction` N(0, (scale·s)²) instead.
    Outliers {
        /// Probability of an outlier, 0–1.
        fraction: f64,
        /// Factor on the standard deviation, > 0.
        scale: f64,
    },
}

/// Optimiser to w*.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// Which update.
    pub optimizer: Optimizer,
    /// Learning rate, > 0.
    pub lr: f64,
    /// Largest number of steps (0 leaves the initial parameters).
    pub steps: u64,
    /// Rows a step, drawn with replacement; `None`: the full batch.
    pub batch_size: Option<usize>,
    /// Stops once the best loss has improved by less than this fraction over the last 10 % of
    /// `steps` (at least 100); 0 never stops early.
    pub early_stop_tol: f64,
    /// Decoupled weight decay (adamw only), ≥ 0.
    pub weight_decay: f64,
    /// Momentum (sgd only), 0 ≤ m < 1.
    pub momentum: f64,
}

/// Training updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Optimizer {
    /// Kingma & Ba 2015, β = (0.9, 0.999), ε = 1e-8.
    Adam,
    /// Loshchilov & Hutter 2019.
    Adamw,
    /// With heavy-ball momentum.
    Sgd,
}

/// The empirical loss L_n, a mean over rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// Mean over rows and outputs of (f − y)², no factor ½.
    Mse,
    /// Mean over rows and outputs of ½(ν+1)·ln(1 + r²/(νs²)).
    TRegression {
        /// ν > 0.
        student_df: f64,
        /// s > 0.
        noise_scale: f64,
    },
}

/// Deep linear network y = W_L … W_1 x, no bias, noiseless, at a true parameter; loss is mse.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dln {
    /// H0, …, HL: input first; at least 2.
    pub widths: Vec<usize>,
    /// Rank of the true map, ≤ min width.
    pub rank: usize,
    /// Which of the true parameters w* is.
    pub point: Point,
    /// XᵀX = n·I exactly (needs n ≥ H0).
    pub whiten: bool,
    /// Rows.
    pub n_data: usize,
}

/// Choice of w* among a deep linear network's true parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Point {
    /// Every partial product has rank exactly r: the formula's λ and multiplicity hold.
    Minimal,
    /// A generic point with r = min H: formula exact, multiplicity 1.
    Full,
    /// Layers cut to random ranks: only bounds on λ are known.
    Random,
}

/// L(w) = ½ Σ hᵢ (wᵢ)², centre at `offset`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quadratic {
    /// hᵢ ≥ 0.
    pub eigenvalues: Vec<f64>,
    /// w* (same length), zeros by default.
    pub offset: Vec<f64>,
    /// n, which enters β = β0/ln n only.
    pub n_data: usize,
}

/// L(w) = Π wᵢ^(2kᵢ), centre 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NormalCrossing {
    /// kᵢ ≥ 1.
    pub exponents: Vec<u32>,
    /// n, which enters β = β0/ln n only.
    pub n_data: usize,
}

/// The user's own data and parameters, from npz files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct External {
    /// npz with X (n, in) and Y (n, out). The path is not hashed; the content is.
    #[serde(with = "super::path_text")]
    pub data: PathBuf,
    /// npz with W0, b0, W1, b1, … (W is out × in) or `flat` with `layer_shapes`.
    #[serde(with = "super::path_text")]
    pub params: PathBuf,
    /// Between the layers.
    pub activation: Activation,
    /// L_n.
    pub loss: Loss,
}

/// The tempered, localised posterior: log π(w) = −nβ L_n(w) − (γ/2)‖w − w*‖².
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PosteriorSpec {
    /// How β follows from β0.
    pub beta_mode: BetaMode,
    /// β0 > 0.
    pub beta0: f64,
    /// γ ≥ 0.
    pub gamma: f64,
    /// When set, γ = d/ρ² replaces `gamma`, d the number of parameters that are sampled.
    pub prior_radius: Option<f64>,
    /// What llc is measured from.
    pub l0: L0,
    /// The parameters that are sampled, the rest being held at w*; `None`: all.
    pub parameters: Option<Parameters>,
}

impl Default for PosteriorSpec {
    fn default() -> Self {
        Self {
            beta_mode: BetaMode::OneOverLogN,
            beta0: 1.0,
            gamma: 1.0,
            prior_radius: None,
            l0: L0::WStar,
            parameters: None,
        }
    }
}

/// The loss that llc is measured from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum L0 {
    /// L_n(w*)
    WStar,
    /// The smallest loss that descent from w* finds.
    TrainedMinimum,
}

/// A choice of parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Parameters {
    /// All parameters of these layers, counted from 0, the output layer last.
    Layers(Vec<usize>),
    /// Those that an npz file marks in its array `mask` (d numbers, not 0 where chosen). The path is
    /// not hashed; the content is.
    Mask(#[serde(with = "super::path_text")] PathBuf),
}

/// β from β0 and n.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaMode {
    /// β = β0 / ln(max(n, 3)).
    #[serde(rename = "1_over_log_n")]
    OneOverLogN,
    /// β = β0.
    Fixed,
}

impl PosteriorSpec {
    /// β for a data set of `n` rows.
    pub fn beta(&self, n: usize) -> f64 {
        match self.beta_mode {
            BetaMode::OneOverLogN => self.beta0 / libm::log(n.max(3) as f64),
            BetaMode::Fixed => self.beta0,
        }
    }

    /// γ for `d` parameters.
    pub fn gamma(&self, d: usize) -> f64 {
        self.prior_radius.map_or(self.gamma, |rho| d as f64 / (rho * rho))
    }
}

/// Everything one file describes, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Experiment {
    /// Names `results/<name>.*`.
    pub name: String,
    /// Targets in the order of the file.
    pub targets: Vec<TargetEntry>,
    /// Runs: every sampler on every target, target by target.
    pub runs: Vec<RunEntry>,
    /// `store_root` of older files.
    pub root: Option<PathBuf>,
    /// How the sweep is carried out.
    pub execution: Execution,
    /// Things the user should hear of: older spellings, casts, keys read and ignored.
    pub notices: Vec<String>,
}

/// What a file says about how its sweep is carried out; options win over it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Execution {
    /// Seconds between two checkpoints of a unit.
    pub checkpoint_every: Option<f64>,
    /// Where every rank writes its own checkpoints.
    pub checkpoint_dir: Option<PathBuf>,
    /// How often a unit that failed by its surroundings is tried again.
    pub retries: Option<u32>,
    /// Seconds that a slot may give no sign; 0: any number.
    pub unit_timeout: Option<f64>,
}

/// A target with what is said about it in tables.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetEntry {
    /// The target.
    pub spec: TargetSpec,
    /// Short description for tables, such as `small/small/_null` or `dln 3-1-3`.
    pub label: String,
    /// Where the entry stands, for messages.
    pub place: Place,
}

/// A run: one sampler on one target.
#[derive(Clone, Debug, PartialEq)]
pub struct RunEntry {
    /// Index into [`Experiment::targets`].
    pub target: usize,
    /// Index of the sampler's entry.
    pub entry: usize,
    /// Where that entry stands, for messages.
    pub place: Place,
    /// The sampler.
    pub sampler: SamplerSpec,
    /// The posterior that the nearest of sampler entry, target entry and top level gives.
    pub posterior: PosteriorSpec,
    /// Whether TensorBoard events are written beside its files.
    pub tensorboard: bool,
}
