//! Keys of tune files.

use super::super::table::{Default, Key, Kind, Range, Table};
use super::{Absent, EXECUTION, MAX_COUNT, POSTERIOR, Required, TARGETS, key};

const KINDS: &[&str] = &["tpe", "random", "grid"];
const PRUNERS: &[&str] = &["median", "none", "hyperband"];
const OBJECTIVES: &[&str] = &["abs", "huber", "relative", "work_to_accuracy", "pareto"];

/// How the next trial is chosen.
pub(in super::super) static TUNE_SAMPLER: Table = Table {
    name: "tune_sampler",
    doc: "How the next trial is chosen.",
    keys: &[
        key(
            "type",
            Kind::Choice(KINDS),
            Default::Text("tpe"),
            "Tree-structured Parzen estimator, random draws, or a grid.",
        ),
        key("seed", Kind::Int(0, u64::MAX), Default::Int(42), "Seed of the study."),
        key(
            "n_startup_trials",
            Kind::Int(0, MAX_COUNT),
            Default::Int(10),
            "tpe: random trials before the first estimate.",
        ),
        key("n_ei_candidates", Kind::Int(1, 100_000), Default::Int(24), "tpe: candidates a proposal."),
        key(
            "multivariate",
            Kind::Bool,
            Default::Bool(true),
            "tpe: parameters that count under the same conditions are drawn jointly.",
        ),
        key(
            "constant_liar",
            Kind::Bool,
            Default::Bool(true),
            "tpe: trials in flight stand among the bad ones.",
        ),
        key(
            "prior_weight",
            Kind::Float(Range::POSITIVE),
            Default::Float(1.0),
            "tpe: weight of the prior, a trial's being 1.",
        ),
        key(
            "magic_clip",
            Kind::Bool,
            Default::Bool(true),
            "tpe: kernels are no narrower than the domain divided by min(100, trials + 2).",
        ),
        key(
            "bandwidth",
            Kind::Choice(&["neighbours", "scott"]),
            Default::Text("neighbours"),
            "tpe: width of kernels, by the distance to neighbours or by the number of trials.",
        ),
        key("points", Kind::Int(1, 100_000), Default::Int(5), "grid: values of a parameter that has more."),
    ],
    advice: &[
        ("name", "did you mean type?"),
        ("group", "multivariate estimators are always grouped; remove it"),
    ],
};

/// When a trial is given up.
pub(in super::super) static TUNE_PRUNER: Table = Table {
    name: "tune_pruner",
    doc: "When a trial is given up on the way.",
    keys: &[
        key(
            "type",
            Kind::Choice(PRUNERS),
            Default::Text("median"),
            "Against the median of completed trials, never, or in brackets of successive halving.",
        ),
        key(
            "n_startup_trials",
            Kind::Int(0, MAX_COUNT),
            Default::Int(5),
            "median: completed trials before any is given up.",
        ),
        key(
            "n_warmup_steps",
            Kind::Int(0, MAX_COUNT),
            Default::Int(1),
            "median: first step at which a trial may be given up.",
        ),
        key("interval_steps", Kind::Int(1, MAX_COUNT), Default::Int(1), "median: steps between two looks."),
        key("min_resource", Kind::Int(1, MAX_COUNT), Default::Int(1), "hyperband: step of the first rung."),
        key("max_resource", Kind::Int(1, MAX_COUNT), Default::Int(16), "hyperband: steps of a whole trial."),
        key(
            "reduction_factor",
            Kind::Int(2, 1000),
            Default::Int(3),
            "hyperband: one of so many goes on from a rung.",
        ),
    ],
    advice: &[("name", "did you mean type?")],
};

/// What is minimised.
pub(in super::super) static TUNE_OBJECTIVE: Table = Table {
    name: "tune_objective",
    doc: "What is minimised; e = λ̂ − λ_ref.",
    keys: &[
        key(
            "type",
            Kind::Choice(OBJECTIVES),
            Default::Text("abs"),
            "|e|, Huber's loss of e, |e|/|λ_ref|, what it costs until the error stays small, or error and cost together.",
        ),
        key(
            "units",
            Kind::Choice(&["llc", "standard_errors"]),
            Default::Text("llc"),
            "abs, huber, pareto: units of e, those of λ or √(MCSE² + MCSE_ref²).",
        ),
        key(
            "delta",
            Kind::Float(Range::POSITIVE),
            Default::Float(1.0),
            "huber: from where on the loss is linear.",
        ),
        key(
            "accuracy",
            Kind::Float(Range::OPEN_UNIT),
            Default::Float(0.05),
            "work_to_accuracy: the relative error.",
        ),
        key(
            "cost",
            Kind::Choice(&["fge", "seconds"]),
            Default::Text("fge"),
            "work_to_accuracy, pareto: full-data gradient evaluations, or seconds (which no two runs agree on).",
        ),
    ],
    advice: &[("name", "did you mean type?")],
};

static CONCURRENCY_KEYS: [Key; 1] = [key(
    "batch_size",
    Kind::Int(1, 65_536),
    Default::Int(8),
    "Trials of a study in flight; a proposal knows what ended so many trials before it.",
)];

/// How many at once.
pub(in super::super) static TUNE_CONCURRENCY: Table = Table {
    name: "tune_concurrency",
    doc: "How many trials run at once.",
    keys: &CONCURRENCY_KEYS,
    advice: &[("n_jobs", "did you mean batch_size?"), ("workers", "workers belong to --workers")],
};

/// How studies are carried out.
pub(in super::super) static TUNE: Table = Table {
    name: "tune",
    doc: "How studies are carried out.",
    keys: &[
        key("max_trials_per_method", Kind::Int(1, 1_000_000), Default::Int(50), "Trials of each study."),
        key(
            "concurrency",
            Kind::Map(&TUNE_CONCURRENCY),
            Absent("its keys' defaults"),
            "How many trials run at once.",
        ),
        key(
            "sampler",
            Kind::Map(&TUNE_SAMPLER),
            Absent("its keys' defaults"),
            "How the next trial is chosen.",
        ),
        key(
            "pruner",
            Kind::Map(&TUNE_PRUNER),
            Absent("median; none with two objectives"),
            "When a trial is given up.",
        ),
        key("objective", Kind::Map(&TUNE_OBJECTIVE), Absent("its keys' defaults"), "What is minimised."),
    ],
    advice: &[
        ("n_trials", "did you mean max_trials_per_method?"),
        ("max_trials", "did you mean max_trials_per_method?"),
        ("batch_size", "belongs under `concurrency`"),
        ("seed", "belongs under `sampler`"),
    ],
};

/// What a reference and a trial may cost.
pub(in super::super) static TUNE_BUDGET: Table = Table {
    name: "tune_budget",
    doc: "What a reference and a trial may cost.",
    keys: &[
        key("hmc_sec", Kind::Float(Range::POSITIVE), Absent("no bound"), "Seconds of the reference."),
        key(
            "trial_sec",
            Kind::Float(Range::POSITIVE),
            Absent("no bound"),
            "Seconds of a trial; one that is cut may differ from run to run.",
        ),
        key(
            "hmc_fge",
            Kind::Float(Range::POSITIVE),
            Absent("no bound"),
            "Full-data gradient evaluations of the reference.",
        ),
        key(
            "trial_fge",
            Kind::Float(Range::POSITIVE),
            Absent("no bound"),
            "Full-data gradient evaluations of a trial.",
        ),
    ],
    advice: &[],
};

/// How the work is carried out.
pub(in super::super) static TUNE_EXECUTION: Table = Table {
    name: "tune_execution",
    doc: "How the work is carried out.",
    keys: &[
        key("budget", Kind::Map(&TUNE_BUDGET), Absent("no bounds"), "What a reference and a trial may cost."),
        key(
            "parsl_card",
            Kind::Text("a name"),
            Absent("nothing"),
            "Older files name a card; it is given to the command instead.",
        ),
        EXECUTION.keys[0],
        EXECUTION.keys[1],
        EXECUTION.keys[2],
        EXECUTION.keys[3],
    ],
    advice: EXECUTION.advice,
};

const DISTS: [&[&str]; 3] = [&["float"], &["int"], &["categorical"]];
const WHEN: Key = key(
    "when",
    Kind::Mapping("a mapping of another parameter to a value or a list of values"),
    Absent("always"),
    "The parameter counts only where others have these values.",
);
const LOG: Key = key("log", Kind::Bool, Default::Bool(false), "Equal ratios count alike.");

const fn dist(names: &'static [&'static str]) -> Key {
    Key { aliases: &["type"], ..key("dist", Kind::Choice(names), Required, "The kind of parameter.") }
}

const fn bound(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    key(name, kind, Required, doc)
}

const NUMBER: Kind = Kind::Float(Range::ANY);
const WHOLE: Kind = Kind::Int(0, 1 << 53);
const DOMAIN_ADVICE: &[(&str, &str)] =
    &[("min", "did you mean low?"), ("max", "did you mean high?"), ("q", "did you mean step?")];

static FLOAT: Table = Table {
    name: "search_float",
    doc: "A number.",
    keys: &[
        dist(DISTS[0]),
        bound("low", NUMBER, "Smallest value."),
        bound("high", NUMBER, "Largest value."),
        LOG,
        key("step", Kind::Float(Range::POSITIVE), Absent("a continuum"), "Only low + k·step; not with log."),
        WHEN,
    ],
    advice: DOMAIN_ADVICE,
};

static INT: Table = Table {
    name: "search_int",
    doc: "A whole number.",
    keys: &[
        dist(DISTS[1]),
        bound("low", WHOLE, "Smallest value."),
        bound("high", WHOLE, "Largest value."),
        LOG,
        key("step", Kind::Int(1, 1 << 53), Default::Int(1), "Only low + k·step; 1 with log."),
        WHEN,
    ],
    advice: DOMAIN_ADVICE,
};

static CATEGORICAL: Table = Table {
    name: "search_categorical",
    doc: "One of several values.",
    keys: &[dist(DISTS[2]), key("choices", Kind::Scalars, Required, "The values."), WHEN],
    advice: &[("values", "did you mean choices?"), ("options", "did you mean choices?")],
};

/// The tables of parameters, by `dist`.
pub(in super::super) static SEARCH: [&Table; 3] = [&FLOAT, &INT, &CATEGORICAL];

/// A tune file.
pub(in super::super) static TUNE_FILE: Table = Table {
    name: "tune_file",
    doc: "Every method on every problem, each a study over the method's search space.",
    keys: &[
        key("experiment", Kind::Name, Absent("the file's name without its ending"), "Names results."),
        key(
            "store_root",
            Kind::Text("a path"),
            Absent("`--root`"),
            "Root directory; `--root` is the better place.",
        ),
        key(
            "precision",
            Kind::Choice(&["f32", "f64"]),
            Absent("f64 builds, the presets' dtypes"),
            "Precision of builds and of every preset.",
        ),
        key("jax_enable_x64", Kind::Bool, Absent("`precision`"), "Older spelling of `precision`."),
        Key {
            aliases: &["targets"],
            ..key(
                "problems",
                Kind::Entries(&TARGETS),
                Required,
                "The problems, as the targets of an experiment.",
            )
        },
        key(
            "methods",
            Kind::Lines("the name of a sampler"),
            Absent("those of search_space"),
            "The samplers whose settings are searched.",
        ),
        key(
            "search_space",
            Kind::Mapping("a mapping of methods to their parameters"),
            Required,
            "The parameters of each method.",
        ),
        key("tune", Kind::Map(&TUNE), Absent("its keys' defaults"), "How studies are carried out."),
        key("optuna", Kind::Map(&TUNE), Absent("`tune`"), "Older spelling of `tune`."),
        key(
            "posterior",
            Kind::Map(&POSTERIOR),
            Absent("its keys' defaults"),
            "Posterior and loss of every problem; a problem may say otherwise.",
        ),
        key(
            "execution",
            Kind::Map(&TUNE_EXECUTION),
            Absent("the options' defaults"),
            "How the work is carried out.",
        ),
        key(
            "store",
            Kind::Mapping("a mapping"),
            Absent("nothing"),
            "Older files describe the store; --root names it instead.",
        ),
    ],
    advice: &[
        ("samplers", "did you mean methods? (with search_space)"),
        ("sampler", "belongs under `tune`"),
        ("objective", "belongs under `tune`"),
        ("budget", "belongs under `execution`"),
    ],
};

/// The tables in reading order.
pub(in super::super) fn tune_tables() -> impl Iterator<Item = &'static Table> {
    [
        &TUNE_FILE,
        &TUNE,
        &TUNE_CONCURRENCY,
        &TUNE_SAMPLER,
        &TUNE_PRUNER,
        &TUNE_OBJECTIVE,
        &TUNE_EXECUTION,
        &TUNE_BUDGET,
    ]
    .into_iter()
    .chain(SEARCH)
}
