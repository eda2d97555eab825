//! Every key of an experiment file: type, range, default, meaning. One definition a key; those of
//! a sampler alone stand in its file of [`samplers`](mod@super::samplers).

mod cards;
mod targets;
mod tune;

pub(super) use cards::{LOCAL_CARD, SLURM_CARD};
pub(super) use targets::{
    DATA, DLN, EXTERNAL, MLP, MODEL, NORMAL_CROSSING, QUADRATIC, TARGET_OVERRIDES, TEACHER, TRAINING,
};
pub(super) use tune::{
    SEARCH, TUNE, TUNE_BUDGET, TUNE_CONCURRENCY, TUNE_EXECUTION, TUNE_FILE, TUNE_OBJECTIVE, TUNE_PRUNER,
    TUNE_SAMPLER, tune_tables,
};

use super::samplers::{DEFINITIONS, ENTRIES};
use super::table::{Default, Key, Kind, Range, Table};

use Default::{Absent, Required};

/// Largest width, dimension or list entry: a bound that only typing errors exceed.
pub(super) const MAX_DIM: u64 = 1_000_000;
/// Rows are counted in 32 bits.
const MAX_ROWS: u64 = u32::MAX as u64;
/// Rows of a minibatch: a bound that only typing errors exceed.
pub(super) const MAX_BATCH: u64 = 1 << 24;
/// Iterations of a random stream are counted in 40 bits.
pub(super) const MAX_STEPS: u64 = (1 << 40) - 1;
/// Draws, warmup iterations and other counts that memory bounds anyway.
pub(super) const MAX_COUNT: u64 = 1_000_000_000;
/// Chains of a run.
const MAX_CHAINS: u64 = 65_536;

pub(super) const fn key(name: &'static str, kind: Kind, default: Default, doc: &'static str) -> Key {
    Key { name, kind, default, doc, aliases: &[] }
}

const DTYPES: &[&str] = &["f32", "f64"];
const ACTIVATION_KIND: Kind = Kind::Choice(&["relu", "tanh", "gelu", "identity"]);

// Keys that several tables share.

const SEED: Key =
    key("seed", Kind::Int(0, u64::MAX), Default::Int(42), "Seed of every random part of the target.");
const PROBLEM_DOC: &str = "Kind of target: mlp, dln, quadratic, normal_crossing or external.";
const ROWS_FOR_BETA: Key =
    key("n_data", Kind::Int(1, MAX_ROWS), Default::Int(1000), "n, which enters β = β0/ln n only.");
const DEPTH: Key = key(
    "depth",
    Kind::Int(1, 1000),
    Default::Int(2),
    "Number of hidden layers, when widths are inferred from `target_params`.",
);
const TARGET_PARAMS: Key = key(
    "target_params",
    Kind::Int(1, MAX_COUNT),
    Absent("give `target_params` or `widths`"),
    "Parameter budget P: all hidden layers get the width h that is the positive root of (L−1)h² + (in+L+out)h = P, rounded down, L = depth; for L = 1, (P − out)/(in + 1 + out); at least 1.",
);
const WIDTHS: Key = key(
    "widths",
    Kind::Ints(1, MAX_DIM, 0),
    Absent("inferred from `target_params`"),
    "Width of each hidden layer, instead of `depth` and `target_params`; [] is a linear model.",
);
const ACTIVATION: Key =
    key("activation", ACTIVATION_KIND, Default::Text("relu"), "Activation after each hidden layer.");
const BIAS: Key = key("bias", Kind::Bool, Default::Bool(true), "Biases in every layer.");
const LAYERNORM: Key =
    key("layernorm", Kind::Bool, Default::Bool(false), "Layer normalisation before each hidden activation.");
const SKIP: Key = key(
    "skip_connections",
    Kind::Bool,
    Default::Bool(false),
    "Residual connections between hidden layers of equal width.",
);
const RESIDUAL_PERIOD: Key = key(
    "residual_period",
    Kind::Int(1, 1000),
    Default::Int(2),
    "With skip_connections: hidden layers between residual connections.",
);

pub(super) const BETA_MODE: Key = key(
    "beta_mode",
    Kind::Choice(&["1_over_log_n", "fixed"]),
    Default::Text("1_over_log_n"),
    "β = beta0/ln(max(n, 3)), or β = beta0.",
);
pub(super) const BETA0: Key =
    key("beta0", Kind::Float(Range::POSITIVE), Default::Float(1.0), "β0 of `beta_mode`.");
pub(super) const GAMMA: Key = key(
    "gamma",
    Kind::Float(Range::NON_NEGATIVE),
    Default::Float(1.0),
    "γ of the localising term −(γ/2)‖w − w*‖².",
);
/// Squares of radii are numbers, and so is γ.
const RADII: Range = Range { low: 1e-100, low_open: false, high: 1e100, high_open: false };
pub(super) const PRIOR_RADIUS: Key = key(
    "prior_radius",
    Kind::Maybe(&Kind::Float(RADII)),
    Absent("`gamma` is used"),
    "ρ; γ = d/ρ² replaces `gamma`.",
);
const L0: Key = key(
    "l0",
    Kind::Choice(&["w_star", "trained_minimum"]),
    Default::Text("w_star"),
    "What llc is measured from: L(w*), or the smallest loss that descent from w* finds.",
);
const PARAMETERS_KEY: Key = key(
    "parameters",
    Kind::Map(&PARAMETERS),
    Absent("all are sampled"),
    "The parameters that are sampled, the rest being held at w* (restricted LLC).",
);
const LOSS: Key = key(
    "loss",
    Kind::Choice(&["mse", "t_regression"]),
    Default::Text("mse"),
    "L_n: mean squared error, or ½(ν+1)·ln(1 + r²/(νs²)).",
);
const STUDENT_DF: Key =
    key("student_df", Kind::Float(Range::POSITIVE), Default::Float(4.0), "ν of loss t_regression.");
const LOSS_SCALE: Key = key(
    "noise_scale",
    Kind::Float(Range::POSITIVE),
    Absent("the data's noise_scale"),
    "s of loss t_regression.",
);

pub(super) const CHAINS: Key =
    key("chains", Kind::Int(1, MAX_CHAINS), Default::Int(4), "Independent chains; a verdict needs 2.");
pub(super) const DTYPE: Key =
    key("dtype", Kind::Choice(DTYPES), Absent("`precision`, else the preset's"), "Arithmetic of the chains.");
pub(super) const ALLOW_CAST: Key =
    key("allow_cast", Kind::Bool, Default::Bool(false), "Allows a `dtype` that differs from `precision`.");
pub(super) const SAMPLER_SEED: Key =
    key("seed", Kind::Int(0, u64::MAX), Default::Int(12345), "Seed of the sampler.");
pub(super) const SAMPLER_POSTERIOR: Key = key(
    "posterior",
    Kind::Map(&POSTERIOR_OF_SAMPLER),
    Absent("the target's, else the top level's"),
    "Posterior of this entry; nearest wins, key by key.",
);
const TARGET_POSTERIOR: Key = key(
    "posterior",
    Kind::Map(&POSTERIOR),
    Absent("the top level's"),
    "Posterior of this entry; nearest wins, key by key.",
);

const LOSS_IS_THE_TARGETS: &str = "it belongs to the target (it defines L_n and w*): set it on the target entry or under the top-level `posterior`";
pub(super) const LOSS_ADVICE: [(&str, &str); 3] = [
    ("loss", LOSS_IS_THE_TARGETS),
    ("student_df", LOSS_IS_THE_TARGETS),
    ("noise_scale", LOSS_IS_THE_TARGETS),
];
const NO_SEED: (&str, &str) =
    ("seed", "nothing in this target is random; repeat runs with the sampler's seed");

/// The posterior, where a loss may be named: at the top and on targets.
pub(super) static POSTERIOR: Table = Table {
    name: "posterior",
    doc: "The tempered, localised posterior and the loss.",
    keys: &[LOSS, BETA_MODE, BETA0, GAMMA, PRIOR_RADIUS, STUDENT_DF, LOSS_SCALE, L0, PARAMETERS_KEY],
    advice: &[("beta", "write `beta_mode: fixed` and `beta0`")],
};

/// The posterior on a sampler entry.
pub(super) static POSTERIOR_OF_SAMPLER: Table = Table {
    name: "sampler_posterior",
    doc: "The posterior of one sampler entry.",
    keys: &[BETA_MODE, BETA0, GAMMA, PRIOR_RADIUS, L0, PARAMETERS_KEY],
    advice: &LOSS_ADVICE,
};

/// Which parameters are sampled.
pub(super) static PARAMETERS: Table = Table {
    name: "parameters",
    doc: "The parameters that are sampled, the rest being held at w*: `layers` or `mask`.",
    keys: &[
        key(
            "layers",
            Kind::Ints(0, MAX_DIM, 1),
            Absent("`mask`"),
            "Whole layers, counted from 0, the output layer last.",
        ),
        key(
            "mask",
            Kind::Text("the path of an npz file"),
            Absent("`layers`"),
            "npz with an array `mask` of d numbers: not 0 where a parameter is sampled.",
        ),
    ],
    advice: &[],
};

/// The tables of target entries, by `problem`.
pub(super) static TARGETS: [&Table; 5] = [&MLP, &DLN, &QUADRATIC, &NORMAL_CROSSING, &EXTERNAL];

/// How a sweep is carried out.
pub(super) static EXECUTION: Table = Table {
    name: "execution",
    doc: "How the sweep is carried out: options of `run`, which win where both are given. They change no result.",
    keys: &[
        key(
            "checkpoint_every",
            Kind::Float(SECONDS),
            Absent("30"),
            "Seconds between two checkpoints of a unit that takes longer.",
        ),
        key(
            "checkpoint_dir",
            Kind::Text("a path"),
            Absent("rank 0 writes checkpoints into the store"),
            "Directory that every rank sees, where each writes its own checkpoints.",
        ),
        key(
            "retries",
            Kind::Int(0, 1000),
            Absent("1"),
            "How often a unit that failed by its surroundings is tried again elsewhere.",
        ),
        key(
            "unit_timeout",
            Kind::Float(SECONDS),
            Absent("3600"),
            "Seconds without a sign after which a unit is given up and tried elsewhere; 0: never.",
        ),
    ],
    advice: &[
        ("workers", "workers belong to --workers, or to the card of a machine"),
        ("device", "the device belongs to the card of a machine"),
        ("parsl_card", "give the card to the command: slurm submit --card CARD"),
    ],
};

/// Seconds, of a year at most.
const SECONDS: Range = Range { low: 0.0, low_open: false, high: 31_557_600.0, high_open: false };

/// An experiment file.
pub(super) static EXPERIMENT: Table = Table {
    name: "experiment",
    doc: "An experiment: every sampler on every target.",
    keys: &[
        key(
            "experiment",
            Kind::Name,
            Absent("the file's name without its ending"),
            "Names `results/<experiment>.*`.",
        ),
        key(
            "store_root",
            Kind::Text("a path"),
            Absent("`--root`"),
            "Root directory; older files name it, `--root` is the better place.",
        ),
        key(
            "precision",
            Kind::Choice(DTYPES),
            Absent("f64 builds, the presets' dtypes"),
            "Precision of target builds and of every preset.",
        ),
        key(
            "jax_enable_x64",
            Kind::Bool,
            Absent("`precision`"),
            "Older spelling of `precision`: true is f64, false f32.",
        ),
        key("targets", Kind::Entries(&TARGETS), Required, "The targets."),
        key("samplers", Kind::Entries(&ENTRIES), Required, "The samplers, each run on every target."),
        key(
            "posterior",
            Kind::Map(&POSTERIOR),
            Absent("its keys' defaults"),
            "Posterior and loss of every run; target and sampler entries may say otherwise.",
        ),
        key(
            "execution",
            Kind::Map(&EXECUTION),
            Absent("the options' defaults"),
            "How the sweep is carried out.",
        ),
        LOSS,
        BETA_MODE,
        BETA0,
        GAMMA,
        PRIOR_RADIUS,
        STUDENT_DF,
    ],
    advice: &[
        ("dtype", "did you mean precision?"),
        ("name", "did you mean experiment?"),
        ("root", "did you mean store_root? (or the option --root)"),
        ("seed", "seeds belong to the entries of targets and samplers"),
    ],
};

/// The tables in reading order, for documentation.
pub(super) fn all_tables() -> impl Iterator<Item = &'static Table> {
    let targets = [
        &EXPERIMENT,
        &EXECUTION,
        &POSTERIOR,
        &MLP,
        &TARGET_OVERRIDES,
        &MODEL,
        &DATA,
        &TEACHER,
        &TRAINING,
        &DLN,
        &QUADRATIC,
        &NORMAL_CROSSING,
        &EXTERNAL,
    ];
    let samplers = DEFINITIONS.iter().flat_map(|d| [d.entry, d.overrides]);
    targets.into_iter().chain(samplers).chain([&POSTERIOR_OF_SAMPLER, &PARAMETERS])
}

/// Documentation of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDoc {
    /// The section it stands in, such as `hmc_overrides`.
    pub section: &'static str,
    /// The key.
    pub name: &'static str,
    /// Type and range, in words.
    pub expected: String,
    /// Default, in words; `None` for a key that must be given.
    pub default: Option<String>,
    /// Meaning.
    pub doc: &'static str,
}

/// Every key of an experiment file with its type, default and meaning, section by section.
pub fn keys() -> Vec<KeyDoc> {
    describe(all_tables())
}

/// Every key of the profile cards, as [`keys`] has those of experiments.
pub fn card_keys() -> Vec<KeyDoc> {
    describe([&LOCAL_CARD, &SLURM_CARD].into_iter())
}

/// Every key of a tune file that an experiment file does not have, as [`keys`] has those of experiments.
pub fn tune_keys() -> Vec<KeyDoc> {
    describe(tune_tables())
}

fn describe(tables: impl Iterator<Item = &'static Table>) -> Vec<KeyDoc> {
    tables
        .flat_map(|table| {
            table.keys.iter().map(|key| KeyDoc {
                section: table.name,
                name: key.name,
                expected: key.kind.to_string(),
                default: match key.default {
                    Required => None,
                    Absent(words) => Some(words.to_owned()),
                    Default::Bool(b) => Some(b.to_string()),
                    Default::Int(i) => Some(i.to_string()),
                    Default::Float(x) => Some(format!("{x:?}")),
                    Default::Text(text) => Some(text.to_owned()),
                },
                doc: key.doc,
            })
        })
        .collect()
}
