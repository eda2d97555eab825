//! Sampler entries.

use super::error::{Fault, Report};
use super::keys::{HMC, HMC_OVERRIDES, POSTERIOR_OF_SAMPLER, SAMPLERS, SGLD, SGLD_OVERRIDES};
use super::posterior::Level;
use super::preset::Presets;
use super::section::Section;
use super::table::check_map;
use super::targets::table_of;
use super::tree::{Node, join};
use super::{Algo, Dtype, Hmc, Precond, SamplerSpec, Sgld};

/// A sampler entry with the posterior keys it names.
pub(super) struct Resolved<'a> {
    /// `None` when it has errors (reported).
    pub spec: Option<SamplerSpec>,
    pub level: Level<'a>,
}

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
    let table = table_of(&SAMPLERS, "name", "sampler", node, path, report)?;
    let entry_ok = check_map(table, node.entries(), path, report);
    let level = Level::of(&POSTERIOR_OF_SAMPLER, node, path, report);
    let mut entry = Section::new(table, &node.place, path, report);
    entry.add(node.entries(), path, true);

    let name = entry.text("name")?;
    // The preset is checked with its own table: it may not hold what only an entry may say.
    let (settings_table, overrides_table) =
        if name == "sgld" { (&SGLD, &SGLD_OVERRIDES) } else { (&HMC, &HMC_OVERRIDES) };
    let preset = presets.find("sampler", &name, &node.place, &join(path, "name"), report);
    let mut settings = Section::new(overrides_table, &node.place, &join(path, "overrides"), report);
    let preset_ok = preset.as_ref().is_some_and(|p| check_map(settings_table, p.entries(), "", report));
    if let Some(preset) = &preset {
        settings.add(preset.entries(), "", false);
    }
    if let Some(overrides) = node.get("overrides") {
        settings.add(overrides.entries(), &join(path, "overrides"), true);
    }

    let algo = if name == "sgld" { sgld(&settings) } else { hmc(&settings) };
    let (seed, chains) = (entry.int("seed"), settings.size("chains"));
    let dtype = chain_dtype(&settings, precision);
    let spec = match (algo, seed, chains, dtype) {
        (Some(algo), Some(seed), Some(chains), Some(dtype)) if entry_ok && preset_ok => {
            Some(SamplerSpec { algo, seed, chains, dtype })
        }
        _ => None,
    };
    Some(Resolved { spec, level })
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

fn hmc(settings: &Section) -> Option<Algo> {
    let (draws, warmup) = (settings.size("draws"), settings.size("warmup"));
    let (steps, step_size) = (settings.size("num_integration_steps"), settings.float("step_size"));
    let target_acceptance = settings.float("target_acceptance");
    Some(Algo::Hmc(Hmc {
        draws: draws?,
        warmup: warmup?,
        num_integration_steps: steps?,
        step_size: step_size?,
        target_acceptance: target_acceptance?,
    }))
}

fn sgld(settings: &Section) -> Option<Algo> {
    let (steps, warmup, eval_every) =
        (settings.int("steps"), settings.int("warmup"), settings.int("eval_every"));
    let (batch_size, step_size) = (settings.size("batch_size"), settings.float("step_size"));
    let precond = settings.text("precond").map(|name| match name.as_str() {
        "rmsprop" => Precond::Rmsprop,
        "adam" => Precond::Adam,
        _ => Precond::None,
    });
    let moments = precond.and_then(|p| moments(settings, p));
    let (steps, warmup, eval_every) = (steps?, warmup?, eval_every?);
    if warmup >= steps {
        settings.conflict("warmup", format!("expected fewer than `steps` ({steps}), found {warmup}"));
        return None;
    }
    if steps - warmup < eval_every {
        settings.conflict(
            "eval_every",
            format!(
                "no draw would be kept: expected at most steps − warmup ({}), found {eval_every}",
                steps - warmup
            ),
        );
        return None;
    }
    let (beta1, beta2, eps, bias_correction) = moments?;
    Some(Algo::Sgld(Sgld {
        steps,
        warmup,
        batch_size: batch_size?,
        step_size: step_size?,
        eval_every,
        precond: precond?,
        beta1,
        beta2,
        eps,
        bias_correction,
    }))
}

/// β1, β2, ε and bias correction. Those that the preconditioner does not read are refused in the
/// entry, and are the defaults in the specification so that they tell no two runs apart.
fn moments(settings: &Section, precond: Precond) -> Option<(f64, f64, f64, bool)> {
    let because = |name| format!("with `precond: {name}`");
    let beta1 = match precond {
        Precond::None => {
            settings.refuse_idle(&["beta1", "beta2", "eps", "bias_correction"], &because("none"));
            return Some(UNUSED_MOMENTS);
        }
        Precond::Rmsprop => {
            settings.refuse_idle(&["beta1"], &because("rmsprop"));
            Some(UNUSED_MOMENTS.0)
        }
        Precond::Adam => settings.float("beta1"),
    };
    let (beta2, eps) = (settings.float("beta2"), settings.float("eps"));
    let bias_correction = settings.bool("bias_correction");
    Some((beta1?, beta2?, eps?, bias_correction?))
}

/// The defaults of today; they are in ids, so they stay when the defaults change.
const UNUSED_MOMENTS: (f64, f64, f64, bool) = (0.9, 0.999, 1e-8, true);

/// Reports two entries that describe the same run on some target.
pub(super) fn refuse_duplicate(nodes: &[Node], first: usize, second: usize, report: &Report) {
    let fault = Fault::Duplicate {
        what: "run",
        other: format!("samplers[{first}]"),
        first: nodes[first].place.clone(),
    };
    report.add(&nodes[second].place, format!("samplers[{second}]"), fault);
}
