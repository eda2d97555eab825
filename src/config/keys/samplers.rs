//! Keys of sampler entries and of sampler presets.

use super::super::table::{Default, Key, Kind, Range, Table};
use super::*;

/// The preset of hmc.
pub(in crate::config) static HMC: Table = Table {
    name: "hmc",
    doc: "Hamiltonian Monte Carlo (preset kind `sampler`).",
    keys: &[DRAWS, HMC_WARMUP, INTEGRATION_STEPS, HMC_STEP, TARGET_ACCEPTANCE, CHAINS, DTYPE],
    advice: HMC_ADVICE,
};

/// `overrides` of an hmc entry.
pub(in crate::config) static HMC_OVERRIDES: Table = Table {
    name: "hmc_overrides",
    doc: "Settings of hmc, and this entry's posterior.",
    keys: &[
        DRAWS,
        HMC_WARMUP,
        INTEGRATION_STEPS,
        HMC_STEP,
        TARGET_ACCEPTANCE,
        CHAINS,
        DTYPE,
        ALLOW_CAST,
        BETA_MODE,
        BETA0,
        GAMMA,
        PRIOR_RADIUS,
    ],
    advice: HMC_ADVICE,
};

const DRAWS: Key = key("draws", Kind::Int(1, MAX_COUNT), Default::Int(1000), "Kept draws a chain.");
const HMC_WARMUP: Key =
    key("warmup", Kind::Int(0, MAX_COUNT), Default::Int(200), "Iterations of the shared warmup.");
const INTEGRATION_STEPS: Key = key(
    "num_integration_steps",
    Kind::Int(1, MAX_DIM),
    Default::Int(10),
    "Mean number of leapfrog steps an iteration.",
);
const HMC_STEP: Key = key(
    "step_size",
    Kind::Float(Range::POSITIVE),
    Default::Float(0.01),
    "Starting value of the step-size adaptation.",
);
const TARGET_ACCEPTANCE: Key = key(
    "target_acceptance",
    Kind::Float(Range::OPEN_UNIT),
    Default::Float(0.9),
    "Mean acceptance that the adaptation aims at.",
);

const HMC_ADVICE: &[(&str, &str)] = &[
    ("num_samples", "did you mean draws?"),
    ("num_draws", "did you mean draws?"),
    ("num_warmup", "did you mean warmup?"),
    ("num_chains", "did you mean chains?"),
    ("max_tree_depth", "did you mean num_integration_steps?"),
    ("num_steps", "did you mean num_integration_steps?"),
    ("steps", "did you mean draws?"),
    ("target_accept", "did you mean target_acceptance?"),
    ("precision", "did you mean dtype?"),
    ("seed", "stands beside `overrides`"),
    ("posterior", "stands beside `overrides`"),
    LOSS_ADVICE[0],
    LOSS_ADVICE[1],
    LOSS_ADVICE[2],
];

/// The preset of sgld.
pub(in crate::config) static SGLD: Table = Table {
    name: "sgld",
    doc: "Stochastic-gradient Langevin dynamics (preset kind `sampler`).",
    keys: &[
        STEPS,
        SGLD_WARMUP,
        BATCH,
        SGLD_STEP,
        EVAL_EVERY,
        PRECOND,
        BETA1,
        BETA2,
        EPS,
        BIAS_CORRECTION,
        CHAINS,
        DTYPE,
    ],
    advice: SGLD_ADVICE,
};

/// `overrides` of an sgld entry.
pub(in crate::config) static SGLD_OVERRIDES: Table = Table {
    name: "sgld_overrides",
    doc: "Settings of sgld, and this entry's posterior.",
    keys: &[
        STEPS,
        SGLD_WARMUP,
        BATCH,
        SGLD_STEP,
        EVAL_EVERY,
        PRECOND,
        BETA1,
        BETA2,
        EPS,
        BIAS_CORRECTION,
        CHAINS,
        DTYPE,
        ALLOW_CAST,
        BETA_MODE,
        BETA0,
        GAMMA,
        PRIOR_RADIUS,
    ],
    advice: SGLD_ADVICE,
};

const STEPS: Key =
    key("steps", Kind::Int(1, MAX_STEPS), Default::Int(781_250), "Steps a chain, warmup included.");
const SGLD_WARMUP: Key = key(
    "warmup",
    Kind::Int(0, MAX_STEPS),
    Default::Int(50_000),
    "Steps dropped at the start of each chain, fewer than `steps`.",
);
const BATCH: Key = Key {
    aliases: &["batch"],
    ..key(
        "batch_size",
        Kind::Int(1, MAX_ROWS),
        Default::Int(256),
        "Rows a gradient, drawn with replacement (may exceed n).",
    )
};
const SGLD_STEP: Key =
    key("step_size", Kind::Float(Range::POSITIVE), Default::Float(1e-6), "ε of w ← w − (ε/2)∇U + √ε ξ.");
const EVAL_EVERY: Key = key(
    "eval_every",
    Kind::Int(1, MAX_STEPS),
    Default::Int(100),
    "A draw is kept, and the full loss evaluated, every so many steps.",
);
const PRECOND: Key =
    key("precond", Kind::Choice(&["none", "rmsprop", "adam"]), Default::Text("none"), "Preconditioner.");
const BETA1: Key =
    key("beta1", Kind::Float(Range::BELOW_ONE), Default::Float(0.9), "adam: decay of the first moment.");
const BETA2: Key = key(
    "beta2",
    Kind::Float(Range::BELOW_ONE),
    Default::Float(0.999),
    "rmsprop, adam: decay of the second moment.",
);
const EPS: Key = key(
    "eps",
    Kind::Float(Range { high: 1.0, high_open: false, ..Range::POSITIVE }),
    Default::Float(1e-8),
    "rmsprop, adam: added to the root of the second moment.",
);
const BIAS_CORRECTION: Key =
    key("bias_correction", Kind::Bool, Default::Bool(true), "rmsprop, adam: divide the moments by 1 − βᵗ.");

const SGLD_ADVICE: &[(&str, &str)] = &[
    ("draws", "did you mean steps? (sgld keeps a draw every eval_every steps)"),
    ("num_samples", "did you mean steps? (sgld keeps a draw every eval_every steps)"),
    ("num_steps", "did you mean steps?"),
    ("num_warmup", "did you mean warmup?"),
    ("num_chains", "did you mean chains?"),
    ("max_tree_depth", "did you mean steps? (no sampler here builds trees)"),
    ("lr", "did you mean step_size?"),
    ("learning_rate", "did you mean step_size?"),
    ("preconditioner", "did you mean precond?"),
    ("precision", "did you mean dtype?"),
    ("seed", "stands beside `overrides`"),
    ("posterior", "stands beside `overrides`"),
    LOSS_ADVICE[0],
    LOSS_ADVICE[1],
    LOSS_ADVICE[2],
];

const UNDER_OVERRIDES: &str = "belongs under `overrides`";
const ENTRY_ADVICE: &[(&str, &str)] = &[
    ("draws", UNDER_OVERRIDES),
    ("steps", UNDER_OVERRIDES),
    ("warmup", UNDER_OVERRIDES),
    ("step_size", UNDER_OVERRIDES),
    ("batch_size", UNDER_OVERRIDES),
    ("batch", UNDER_OVERRIDES),
    ("eval_every", UNDER_OVERRIDES),
    ("precond", UNDER_OVERRIDES),
    ("num_integration_steps", UNDER_OVERRIDES),
    ("target_acceptance", UNDER_OVERRIDES),
    ("chains", UNDER_OVERRIDES),
    ("dtype", UNDER_OVERRIDES),
    ("allow_cast", UNDER_OVERRIDES),
    LOSS_ADVICE[0],
    LOSS_ADVICE[1],
    LOSS_ADVICE[2],
];

/// An hmc entry.
pub(in crate::config) static HMC_ENTRY: Table = Table {
    name: "hmc_entry",
    doc: "hmc on every target.",
    keys: &[
        key("name", Kind::Choice(&["hmc"]), Required, "The sampler."),
        SAMPLER_SEED,
        key("overrides", Kind::Map(&HMC_OVERRIDES), Absent("nothing"), "Values that replace the preset's."),
        SAMPLER_POSTERIOR,
        BETA_MODE,
        BETA0,
        GAMMA,
        PRIOR_RADIUS,
    ],
    advice: ENTRY_ADVICE,
};

/// An sgld entry.
pub(in crate::config) static SGLD_ENTRY: Table = Table {
    name: "sgld_entry",
    doc: "sgld on every target.",
    keys: &[
        key("name", Kind::Choice(&["sgld"]), Required, "The sampler."),
        SAMPLER_SEED,
        key("overrides", Kind::Map(&SGLD_OVERRIDES), Absent("nothing"), "Values that replace the preset's."),
        SAMPLER_POSTERIOR,
        BETA_MODE,
        BETA0,
        GAMMA,
        PRIOR_RADIUS,
    ],
    advice: ENTRY_ADVICE,
};
