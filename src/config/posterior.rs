//! Posteriors: the top level, a target entry and a sampler entry may each name keys; for every key
//! the nearest of them wins (sampler before target before top before default).

use std::path::{Path, PathBuf};

use super::error::{Fault, Report};
use super::keys::PARAMETERS;
use super::section::Section;
use super::table::Table;
use super::tree::{Node, Value, join};
use super::{BetaMode, L0, Loss, Parameters, PosteriorSpec};

/// The posterior keys of one entry: under `posterior:`, beside it, or in a sampler's `overrides`.
pub(super) struct Level<'a> {
    section: Section<'a>,
}

impl<'a> Level<'a> {
    /// The level of an entry at `path`, whose values were checked with the entry's table. `table`
    /// says which keys the entry may name.
    pub fn of(table: &'static Table, entry: &'a Node, path: &str, report: &'a Report) -> Self {
        let mut section = Section::new(table, &entry.place, path, report);
        section.add(entry.entries(), path, true);
        for key in ["overrides", "posterior"] {
            if let Some(Node { value: Value::Map(entries), .. }) = entry.get(key) {
                section.add(entries, &join(path, key), true);
            }
        }
        for key in table.keys {
            if let [.., second, first] = &section.all(key.name)[..] {
                let fault = Fault::GivenTwice { first: first.node.place.clone() };
                report.add(&second.node.place, &second.path, fault);
            }
        }
        Level { section }
    }

    fn has(&self, name: &str) -> bool {
        self.section.given(name).is_some()
    }
}

/// The nearest of `levels` (nearest first) that gives `name`; the farthest if none does, whose
/// getters then answer with the default.
fn nearest<'l, 'a>(levels: &[&'l Level<'a>], name: &str) -> Option<&'l Section<'a>> {
    let level = levels.iter().find(|l| l.has(name)).or(levels.last());
    level.map(|l| &l.section)
}

/// The posterior that `levels`, nearest first, describe. `None` when a value is wrong (reported).
///
/// `base` is where relative paths in the file start.
pub(super) fn resolve(levels: &[&Level], base: Option<&Path>) -> Option<PosteriorSpec> {
    let beta_mode = match nearest(levels, "beta_mode")?.text("beta_mode")?.as_str() {
        "fixed" => BetaMode::Fixed,
        _ => BetaMode::OneOverLogN,
    };
    let beta0 = nearest(levels, "beta0")?.float("beta0")?;
    // A nearer gamma replaces a farther prior_radius, and the reverse.
    let prior_radius = match levels.iter().find(|l| l.has("gamma") || l.has("prior_radius")) {
        Some(level) if level.section.has("prior_radius") => {
            if level.has("gamma") {
                level.section.conflict("prior_radius", "replaces `gamma` (γ = d/ρ²); give one of them");
                return None;
            }
            Some(level.section.float("prior_radius")?)
        }
        _ => None,
    };
    let gamma = match prior_radius {
        // Unused then: one value, so that it tells no two posteriors apart.
        Some(_) => UNUSED_GAMMA,
        None => nearest(levels, "gamma")?.float("gamma")?,
    };
    let l0 = match nearest(levels, "l0")?.text("l0")?.as_str() {
        "trained_minimum" => L0::TrainedMinimum,
        _ => L0::WStar,
    };
    let parameters = match nearest(levels, "parameters")? {
        section if section.has("parameters") => Some(parameters(section, base)?),
        _ => None,
    };
    Some(PosteriorSpec { beta_mode, beta0, gamma, prior_radius, l0, parameters })
}

/// `parameters: {layers: […]}` or `{mask: FILE}`.
fn parameters(section: &Section, base: Option<&Path>) -> Option<Parameters> {
    let inner = section.inner("parameters", &PARAMETERS)?;
    match (inner.has("layers"), inner.has("mask")) {
        (true, false) => {
            let mut layers = inner.sizes("layers")?;
            layers.sort_unstable();
            layers.dedup();
            Some(Parameters::Layers(layers))
        }
        (false, true) => {
            let path = PathBuf::from(inner.text("mask")?);
            Some(Parameters::Mask(base.map_or(path.clone(), |base| base.join(path))))
        }
        _ => {
            section.conflict("parameters", "expected either `layers` or `mask`");
            None
        }
    }
}

/// In ids beside every `prior_radius`: it stays when the default of `gamma` changes.
const UNUSED_GAMMA: f64 = 1.0;

/// The loss of a target; `levels` are the target's and the top's. `data_scale` is the default of
/// t_regression's `noise_scale`.
pub(super) fn loss(levels: &[&Level], data_scale: Option<f64>) -> Option<Loss> {
    if nearest(levels, "loss")?.text("loss")? == "mse" {
        // On the target itself these would be idle; at the top they may serve other targets.
        if let Some(target) = levels.first() {
            for name in ["student_df", "noise_scale"] {
                if levels.len() > 1 && target.has(name) {
                    target.section.conflict(
                        name,
                        "has no effect with `loss: mse`; remove it or set `loss: t_regression`",
                    );
                }
            }
        }
        return Some(Loss::Mse);
    }
    let student_df = nearest(levels, "student_df")?.float("student_df");
    let scale = nearest(levels, "noise_scale")?;
    let noise_scale = match (scale.has("noise_scale"), data_scale) {
        (true, _) => scale.float("noise_scale"),
        (false, Some(s)) if s > 0.0 => Some(s),
        (false, _) => {
            let text = "missing; `loss: t_regression` needs a scale > 0 (the data's noise_scale is 0 or unknown): set `posterior: {noise_scale: …}`";
            levels.first()?.section.conflict("noise_scale", text);
            None
        }
    };
    Some(Loss::TRegression { student_df: student_df?, noise_scale: noise_scale? })
}
