//! Sampler entries: one file a sampler with its keys and what they mean together.

mod hmc;
mod mala;
mod mclmc;
mod nuts;
mod sghmc;
mod sgld;
mod sgnht;
mod stochastic;
mod vi;

use super::algo::{Algo, SamplerSpec};
use super::error::{Fault, Report};
use super::keys::{
    ALLOW_CAST, BETA_MODE, BETA0, CHAINS, DTYPE, GAMMA, POSTERIOR_OF_SAMPLER, PRIOR_RADIUS,
    SAMPLER_POSTERIOR, SAMPLER_SEED, key,
};
use super::posterior::Level;
use super::preset::Presets;
use super::section::Section;
use super::spec::Dtype;
use super::table::{Default, Key, Kind, Table, check_map};
use super::targets::table_of;
use super::tree::{Node, join};

/// A sampler as configurations know it.
pub(super) struct Definition {
    pub name: &'static str,
    /// What a preset may hold.
    pub settings: &'static Table,
    /// What `overrides` may hold: the settings and the entry's posterior.
    pub overrides: &'static Table,
    /// The entry itself.
    pub entry: &'static Table,
    /// The settings together. `None` where some are wrong (reported).
    pub resolve: fn(&Section) -> Option<Algo>,
}

/// Every sampler.
pub(super) static DEFINITIONS: [&Definition; 8] = [
    &hmc::DEFINITION,
    &nuts::DEFINITION,
    &mala::DEFINITION,
    &mclmc::DEFINITION,
    &sgld::DEFINITION,
    &sghmc::DEFINITION,
    &sgnht::DEFINITION,
    &vi::DEFINITION,
];

/// The tables of sampler entries, in the order of [`DEFINITIONS`].
pub(super) static ENTRIES: [&Table; DEFINITIONS.len()] = {
    let mut tables = [DEFINITIONS[0].entry; DEFINITIONS.len()];
    let mut i = 0;
    while i < tables.len() {
        tables[i] = DEFINITIONS[i].entry;
        i += 1;
    }
    tables
};

/// The names of all samplers.
pub fn sampler_names() -> impl Iterator<Item = &'static str> {
    DEFINITIONS.iter().map(|d| d.name)
}

/// Declares `DEFINITION` and its three tables from a sampler's own keys and advice; keys and advice
/// that all samplers share are added.
macro_rules! definition {
    ($name:literal, $doc:literal, $resolve:path, [$($key:expr),* $(,)?], [$($advice:expr),* $(,)?]) => {
        static ADVICE: &[(&str, &str)] = &[
            $($advice,)*
            ("num_chains", "did you mean chains?"),
            ("precision", "did you mean dtype?"),
            ("seed", "stands beside `overrides`"),
            ("posterior", "stands beside `overrides`"),
            $crate::config::keys::LOSS_ADVICE[0],
            $crate::config::keys::LOSS_ADVICE[1],
            $crate::config::keys::LOSS_ADVICE[2],
        ];
        static SETTINGS: $crate::config::table::Table = $crate::config::table::Table {
            name: $name,
            doc: concat!($doc, " (preset kind `sampler`)."),
            keys: &[$($key,)* super::CHAINS, super::DTYPE],
            advice: ADVICE,
        };
        static OVERRIDES: $crate::config::table::Table = $crate::config::table::Table {
            name: concat!($name, "_overrides"),
            doc: concat!("Settings of ", $name, ", and this entry's posterior."),
            keys: &[
                $($key,)*
                super::CHAINS,
                super::DTYPE,
                super::ALLOW_CAST,
                super::BETA_MODE,
                super::BETA0,
                super::GAMMA,
                super::PRIOR_RADIUS,
            ],
            advice: ADVICE,
        };
        static ENTRY: $crate::config::table::Table = $crate::config::table::Table {
            name: concat!($name, "_entry"),
            doc: concat!($name, " on every target."),
            keys: &[
                super::key(
                    "name",
                    $crate::config::table::Kind::Choice(&[$name]),
                    $crate::config::table::Default::Required,
                    "The sampler.",
                ),
                super::SAMPLER_SEED,
                super::key(
                    "overrides",
                    $crate::config::table::Kind::Map(&OVERRIDES),
                    $crate::config::table::Default::Absent("nothing"),
                    "Values that replace the preset's.",
                ),
                super::SAMPLER_POSTERIOR,
                super::BETA_MODE,
                super::BETA0,
                super::GAMMA,
                super::PRIOR_RADIUS,
            ],
            advice: &[
                $(($key.name, super::UNDER_OVERRIDES),)*
                ("chains", super::UNDER_OVERRIDES),
                ("dtype", super::UNDER_OVERRIDES),
                ("allow_cast", super::UNDER_OVERRIDES),
                $crate::config::keys::LOSS_ADVICE[0],
                $crate::config::keys::LOSS_ADVICE[1],
                $crate::config::keys::LOSS_ADVICE[2],
            ],
        };
        /// This sampler's tables and their meaning.
        pub(super) static DEFINITION: super::Definition = super::Definition {
            name: $name,
            settings: &SETTINGS,
            overrides: &OVERRIDES,
            entry: &ENTRY,
            resolve: $resolve,
        };
    };
}
use definition;

const UNDER_OVERRIDES: &str = "belongs under `overrides`";

// Keys that several samplers share.

const DRAWS: Key =
    key("draws", Kind::Int(1, super::keys::MAX_COUNT), Default::Int(1000), "Kept draws a chain.");
const TARGET_ACCEPTANCE: Key = key(
    "target_acceptance",
    Kind::Float(super::table::Range::OPEN_UNIT),
    Default::Float(0.9),
    "Mean acceptance that the adaptation aims at.",
);
/// What stands in the specification where nothing is adapted by acceptance; it is in ids, so it stays when
/// the default changes.
const UNUSED_TARGET_ACCEPTANCE: f64 = 0.9;
const SHARED_WARMUP: Key = key(
    "warmup",
    Kind::Int(0, super::keys::MAX_COUNT),
    Default::Int(200),
    "Iterations of the shared warmup.",
);

/// Draws that every sampler drops or checks by, whatever its settings.
const FEWEST_DRAWS: usize = 100;

/// Reports chains, or control chains at half the step, of more steps than random numbers are counted for.
/// `burn_in` is in draws of `thin` steps each.
fn refuse_endless(settings: &Section, draws: usize, burn_in: usize, thin: usize) {
    let control = 2 * (burn_in as u128 + (draws / 2).max(FEWEST_DRAWS) as u128);
    let steps = thin as u128 * control.max(burn_in as u128 + draws as u128);
    if steps > u128::from(super::keys::MAX_STEPS) {
        let auto = if settings.auto_size("thin") == Some(None) { "auto, which may be " } else { "" };
        // Where the entry itself says something, not where the preset does.
        let key = if settings.own("thin") { "thin" } else { "draws" };
        settings.conflict(
            key,
            format!(
                "with `thin` {auto}{thin}, {draws} draws make a chain of up to {steps} steps, of which at most {} are \
                 counted; lower `thin` or `draws`",
                super::keys::MAX_STEPS
            ),
        );
    }
}

/// A sampler entry with the posterior keys it names.
pub(super) struct Resolved<'a> {
    /// `None` when it has errors (reported).
    pub spec: Option<SamplerSpec>,
    pub level: Level<'a>,
    /// Whether TensorBoard events are written; no part of the specification, for it changes no number.
    pub tensorboard: bool,
}

/// The key that asks for events, where a sampler has it.
const TENSORBOARD_KEY: &str = "tensorboard";

/// `f32` or `f64`.
pub(super) fn dtype(name: &str) -> Dtype {
    if name == "f32" { Dtype::F32 } else { Dtype::F64 }
}

/// Resolves one sampler entry under the file's `precision`. `None` when it is not a mapping or
/// names no sampler (reported).
pub(super) fn sampler<'a>(
    node: &'a Node,
    path: &str,
    precision: Option<Dtype>,
    presets: &Presets,
    report: &'a Report,
) -> Option<Resolved<'a>> {
    let table = table_of(&ENTRIES, "name", "sampler", node, path, report)?;
    let definition = DEFINITIONS.into_iter().find(|d| std::ptr::eq(d.entry, table))?;
    let entry_ok = check_map(table, node.entries(), path, report);
    let level = Level::of(&POSTERIOR_OF_SAMPLER, node, path, report);
    let mut entry = Section::new(table, &node.place, path, report);
    entry.add(node.entries(), path, true);

    // The preset is checked with its own table: it may not hold what only an entry may say.
    let preset = presets.find("sampler", definition.name, &node.place, &join(path, "name"), report);
    let mut settings = Section::new(definition.overrides, &node.place, &join(path, "overrides"), report);
    let preset_ok = preset.as_ref().is_some_and(|p| check_map(definition.settings, p.entries(), "", report));
    if let Some(preset) = &preset {
        settings.add(preset.entries(), "", false);
    }
    if let Some(overrides) = node.get("overrides") {
        settings.add(overrides.entries(), &join(path, "overrides"), true);
    }

    let algo = (definition.resolve)(&settings);
    let (seed, chains) = (entry.int("seed"), settings.size("chains"));
    let dtype = chain_dtype(&settings, precision);
    let spec = match (algo, seed, chains, dtype) {
        (Some(algo), Some(seed), Some(chains), Some(dtype)) if entry_ok && preset_ok => {
            Some(SamplerSpec { algo, seed, chains, dtype })
        }
        _ => None,
    };
    let events = definition.overrides.key(TENSORBOARD_KEY).is_some();
    let tensorboard = events && settings.bool(TENSORBOARD_KEY) == Some(true);
    Some(Resolved { spec, level, tensorboard })
}

/// The precision guard: `precision` sets every preset's dtype; an entry's own `dtype` may differ
/// from it only with `allow_cast: true`.
fn chain_dtype(settings: &Section, precision: Option<Dtype>) -> Option<Dtype> {
    let own = settings.own("dtype");
    let allow_cast = settings.bool("allow_cast")?;
    let named = match settings.given("dtype") {
        Some(_) => dtype(&settings.text("dtype")?),
        None => Dtype::F64,
    };
    match precision {
        Some(precision) if !own => Some(precision),
        Some(precision) if named != precision && !allow_cast => {
            let text = format!(
                "{} differs from the file's precision ({}); remove it, or say `allow_cast: true` beside it",
                named.name(),
                precision.name()
            );
            settings.conflict("dtype", text);
            None
        }
        _ => Some(named),
    }
}

/// Reports two entries that describe the same run on some target.
pub(super) fn refuse_duplicate(nodes: &[Node], first: usize, second: usize, report: &Report) {
    let fault = Fault::Duplicate {
        what: "run",
        other: format!("samplers[{first}]"),
        first: nodes[first].place.clone(),
    };
    report.add(&nodes[second].place, format!("samplers[{second}]"), fault);
}
