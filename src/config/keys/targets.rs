//! Keys of target entries and of what they are made of.

use super::super::table::{Default, Key, Kind, Range, Table};
use super::*;

/// A student network.
pub(in crate::config) static MODEL: Table = Table {
    name: "model",
    doc: "The student network (preset kind `model`).",
    keys: &[
        key("in_dim", Kind::Int(1, MAX_DIM), Required, "Inputs."),
        key("out_dim", Kind::Int(1, MAX_DIM), Default::Int(1), "Outputs."),
        DEPTH,
        TARGET_PARAMS,
        WIDTHS,
        ACTIVATION,
        BIAS,
        LAYERNORM,
        SKIP,
        RESIDUAL_PERIOD,
        key(
            "init",
            Kind::Choice(&["he", "xavier", "lecun"]),
            Default::Text("he"),
            "Initial weights: variance 2/in, 2/(in+out) or 1/in.",
        ),
    ],
    advice: &[("hidden", "write `widths`"), ("dropout", "a student has none; it is a key of the teacher")],
};

/// A teacher network.
pub(in crate::config) static TEACHER: Table = Table {
    name: "teacher",
    doc: "A teacher of its own size (preset kind `teacher`); inputs and outputs are the model's.",
    keys: &[
        DEPTH,
        TARGET_PARAMS,
        WIDTHS,
        ACTIVATION,
        BIAS,
        LAYERNORM,
        SKIP,
        RESIDUAL_PERIOD,
        key(
            "dropout",
            Kind::Float(Range::BELOW_ONE),
            Default::Float(0.0),
            "Probability that a hidden unit is dropped while Y is made.",
        ),
    ],
    advice: &[
        ("in_dim", "inputs and outputs are the model's"),
        ("out_dim", "inputs and outputs are the model's"),
    ],
};

/// A data set of a teacher–student problem.
pub(in crate::config) static DATA: Table = Table {
    name: "data",
    doc: "Inputs, noise and size of the data set (preset kind `data`).",
    keys: &[
        key("n_data", Kind::Int(1, MAX_ROWS), Required, "Rows n."),
        key(
            "x_dist",
            Kind::Choice(&["gauss_iso", "gauss_aniso", "mixture", "lowdim_manifold", "heavy_tail"]),
            Default::Text("gauss_iso"),
            "Distribution of the inputs.",
        ),
        key(
            "x_condition",
            Kind::Float(Range::AT_LEAST_ONE),
            Default::Float(10.0),
            "gauss_aniso: condition number of the covariance.",
        ),
        key("components", Kind::Int(1, MAX_DIM), Default::Int(4), "mixture: number of components."),
        key(
            "spread",
            Kind::Float(Range::NON_NEGATIVE),
            Default::Float(2.0),
            "mixture: standard deviation of the component means.",
        ),
        key(
            "latent_dim",
            Kind::Int(1, MAX_DIM),
            Default::Int(2),
            "lowdim_manifold: latent dimension, at most the inputs.",
        ),
        key("x_df", Kind::Float(Range::ABOVE_TWO), Default::Float(5.0), "heavy_tail: degrees of freedom."),
        key(
            "noise_model",
            Kind::Choice(&["gauss", "hetero", "student_t", "outliers"]),
            Default::Text("gauss"),
            "Distribution of the noise on Y.",
        ),
        key(
            "noise_scale",
            Kind::Float(Range::NON_NEGATIVE),
            Default::Float(0.1),
            "Standard deviation (student_t: scale) of the noise.",
        ),
        key("noise_df", Kind::Float(Range::POSITIVE), Default::Float(4.0), "student_t: degrees of freedom."),
        key(
            "outlier_fraction",
            Kind::Float(Range::UNIT),
            Default::Float(0.05),
            "outliers: probability of an outlier.",
        ),
        key(
            "outlier_scale",
            Kind::Float(Range::POSITIVE),
            Default::Float(10.0),
            "outliers: factor on the standard deviation.",
        ),
    ],
    advice: &[("n", "write `n_data`"), ("n_samples", "write `n_data`")],
};

/// Training to w*.
pub(in crate::config) static TRAINING: Table = Table {
    name: "training",
    doc: "How w* is found.",
    keys: &[
        key("optimizer", Kind::Choice(&["adam", "adamw", "sgd"]), Default::Text("adam"), "Update rule."),
        Key {
            aliases: &["learning_rate"],
            ..key("lr", Kind::Float(Range::POSITIVE), Default::Float(1e-3), "Learning rate.")
        },
        key(
            "steps",
            Kind::Int(0, MAX_COUNT),
            Default::Int(5000),
            "Largest number of steps; 0 keeps the initial parameters.",
        ),
        key(
            "batch_size",
            Kind::Maybe(&Kind::Int(1, MAX_BATCH)),
            Absent("the full batch"),
            "Rows a step, drawn with replacement; null is the full batch.",
        ),
        key(
            "early_stop_tol",
            Kind::Float(Range::BELOW_ONE),
            Default::Float(1e-6),
            "Stops when the best loss has improved by less than this fraction over the last tenth of the steps; 0 never.",
        ),
        key(
            "weight_decay",
            Kind::Float(Range::NON_NEGATIVE),
            Default::Float(0.01),
            "adamw: decoupled weight decay.",
        ),
        key("momentum", Kind::Float(Range::BELOW_ONE), Default::Float(0.0), "sgd: heavy-ball momentum."),
    ],
    advice: &[("erm_steps", "write `steps`")],
};

/// `overrides` of an mlp target.
pub(in crate::config) static TARGET_OVERRIDES: Table = Table {
    name: "target_overrides",
    doc: "Values that replace the presets'; dotted keys (`data.noise_scale`) are accepted.",
    keys: &[
        key("model", Kind::Map(&MODEL), Absent("the preset's values"), "Replaces values of the model."),
        key("data", Kind::Map(&DATA), Absent("the preset's values"), "Replaces values of the data."),
        key("teacher", Kind::Map(&TEACHER), Absent("the preset's values"), "Replaces values of the teacher."),
        key("training", Kind::Map(&TRAINING), Absent("the defaults"), "Replaces values of the training."),
    ],
    advice: &[
        ("seed", "stands beside `overrides`"),
        ("posterior", "stands beside `overrides`"),
        ("gamma", "stands beside `overrides`"),
    ],
};

const UNDER_DATA: &str = "belongs to the data: `overrides: {data: {…}}`";
const UNDER_MODEL: &str = "belongs to the model: `overrides: {model: {…}}`";

/// A teacher–student target.
pub(in crate::config) static MLP: Table = Table {
    name: "mlp_target",
    doc: "Teacher–student regression, trained to w*.",
    keys: &[
        key("problem", Kind::Choice(&["mlp"]), Default::Text("mlp"), PROBLEM_DOC),
        key("model", Kind::Preset("model", &MODEL), Required, "Model preset, or its keys."),
        key("data", Kind::Preset("data", &DATA), Required, "Data preset, or its keys."),
        key(
            "teacher",
            Kind::Maybe(&Kind::Preset("teacher", &TEACHER)),
            Default::Text("_null"),
            "Teacher preset, or its keys; _null has the model's architecture with its own random parameters.",
        ),
        SEED,
        key(
            "overrides",
            Kind::Map(&TARGET_OVERRIDES),
            Absent("nothing"),
            "Values that replace the presets'.",
        ),
        TARGET_POSTERIOR,
        LOSS,
        BETA_MODE,
        BETA0,
        GAMMA,
        PRIOR_RADIUS,
        STUDENT_DF,
    ],
    advice: &[
        ("training", "belongs under `overrides`"),
        ("n_data", UNDER_DATA),
        ("noise_scale", UNDER_DATA),
        ("x_dist", UNDER_DATA),
        ("noise_model", UNDER_DATA),
        ("depth", UNDER_MODEL),
        ("widths", "set `problem: dln`, or `overrides: {model: {widths: […]}}`"),
        ("target_params", UNDER_MODEL),
        ("activation", UNDER_MODEL),
        ("dtype", "targets are built in the top-level `precision`"),
        ("eigenvalues", "set `problem: quadratic`"),
        ("quad_dim", "set `problem: quadratic`"),
        ("exponents", "set `problem: normal_crossing`"),
        ("params", "set `problem: external`"),
        ("rank", "set `problem: dln`"),
    ],
};

/// A deep linear network.
pub(in crate::config) static DLN: Table = Table {
    name: "dln_target",
    doc: "Deep linear network at a known true parameter; loss is mse.",
    keys: &[
        key("problem", Kind::Choice(&["dln"]), Required, PROBLEM_DOC),
        key("widths", Kind::Ints(1, MAX_DIM, 2), Required, "H0, …, HL: input first."),
        key("rank", Kind::Int(0, MAX_DIM), Required, "Rank of the true map, at most the least width."),
        key(
            "point",
            Kind::Choice(&["minimal", "full", "random"]),
            Default::Text("minimal"),
            "Which true parameter w* is: minimal rank (exact λ), full rank (needs rank = least width), or random (bounds).",
        ),
        key("whiten", Kind::Bool, Default::Bool(true), "XᵀX = n·I exactly; needs n_data ≥ H0."),
        key("n_data", Kind::Int(1, MAX_ROWS), Default::Int(1000), "Rows."),
        SEED,
        TARGET_POSTERIOR,
        BETA_MODE,
        BETA0,
        GAMMA,
        PRIOR_RADIUS,
    ],
    advice: &[("loss", "a dln's loss is mse, for which λ is known")],
};

/// A quadratic potential.
pub(in crate::config) static QUADRATIC: Table = Table {
    name: "quadratic_target",
    doc: "L(w) = ½ Σ hᵢ wᵢ², centre at `offset`.",
    keys: &[
        key("problem", Kind::Choice(&["quadratic"]), Required, PROBLEM_DOC),
        key(
            "eigenvalues",
            Kind::Floats(Range::NON_NEGATIVE),
            Absent("give `eigenvalues` or `quad_dim`"),
            "hᵢ.",
        ),
        key(
            "quad_dim",
            Kind::Int(1, MAX_DIM),
            Absent("give `eigenvalues` or `quad_dim`"),
            "d eigenvalues of 1.",
        ),
        key("offset", Kind::Floats(Range::ANY), Absent("zeros"), "The centre w*, one number an eigenvalue."),
        ROWS_FOR_BETA,
        TARGET_POSTERIOR,
        BETA_MODE,
        BETA0,
        GAMMA,
        PRIOR_RADIUS,
    ],
    advice: &[NO_SEED, ("loss", "a quadratic target is its own loss")],
};

/// A normal-crossing potential.
pub(in crate::config) static NORMAL_CROSSING: Table = Table {
    name: "normal_crossing_target",
    doc: "L(w) = Π wᵢ^(2kᵢ), centre 0.",
    keys: &[
        key("problem", Kind::Choice(&["normal_crossing"]), Required, PROBLEM_DOC),
        key("exponents", Kind::Ints(1, 1000, 1), Required, "kᵢ."),
        ROWS_FOR_BETA,
        TARGET_POSTERIOR,
        BETA_MODE,
        BETA0,
        GAMMA,
        PRIOR_RADIUS,
    ],
    advice: &[NO_SEED, ("loss", "a normal crossing is its own loss")],
};

/// The user's own model.
pub(in crate::config) static EXTERNAL: Table = Table {
    name: "external_target",
    doc: "The user's own data and trained parameters; paths are relative to the file that names them.",
    keys: &[
        key("problem", Kind::Choice(&["external"]), Required, PROBLEM_DOC),
        key(
            "data",
            Kind::Text("the path of an npz file with X (n, in) and Y (n, out)"),
            Required,
            "npz with X (n, in) and Y (n, out).",
        ),
        key(
            "params",
            Kind::Text("the path of an npz file with the parameters"),
            Required,
            "npz with W0, b0, W1, b1, … (W is out × in), or flat with layer_shapes.",
        ),
        key("activation", ACTIVATION_KIND, Default::Text("relu"), "Activation between the layers."),
        TARGET_POSTERIOR,
        LOSS,
        BETA_MODE,
        BETA0,
        GAMMA,
        PRIOR_RADIUS,
        STUDENT_DF,
        LOSS_SCALE,
    ],
    advice: &[NO_SEED],
};
