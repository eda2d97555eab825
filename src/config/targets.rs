//! Target entries.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::error::{Fault, Place, Report, advise};
use super::keys::{DATA, MODEL, POSTERIOR, TARGETS, TEACHER, TRAINING};
use super::network::{self, network};
use super::posterior::{Level, loss};
use super::preset::Presets;
use super::section::Section;
use super::table::{Table, check_map};
use super::tree::{Node, Value, join};
use super::*;

/// What target entries are resolved with.
pub(super) struct Context<'a> {
    pub report: &'a Report,
    pub presets: &'a Presets,
    /// Posterior and loss of the top level.
    pub top: &'a Level<'a>,
    /// Precision of builds.
    pub dtype: Dtype,
    /// Where relative paths in the file start.
    pub base: Option<&'a Path>,
}

/// A target entry with the posterior keys it names.
pub(super) struct Resolved<'a> {
    /// `None` when it has errors (reported).
    pub entry: Option<TargetEntry>,
    pub level: Level<'a>,
}

/// The table of an entry: of those in `tables`, the one whose key `tag` allows the entry's value.
pub(super) fn table_of(
    tables: &[&'static Table],
    tag: &str,
    what: &str,
    node: &Node,
    path: &str,
    report: &Report,
) -> Option<&'static Table> {
    use super::table::{Default, Kind};
    let Value::Map(_) = &node.value else {
        let fault = Fault::Unexpected { expected: "a mapping".to_owned(), found: node.value.to_string() };
        report.add(&node.place, path, fault);
        return None;
    };
    let names_of = |table: &'static Table| match table.key(tag).map(|k| k.kind) {
        Some(Kind::Choice(names)) => names,
        _ => &[],
    };
    let all: Vec<&str> = tables.iter().flat_map(|t| names_of(t)).copied().collect();
    let Some(named) = node.get(tag) else {
        let default = tables.iter().find(|t| t.key(tag).is_some_and(|k| k.default != Default::Required));
        if default.is_none() {
            let expected = format!("the name of a {what}: {}", all.join(", "));
            report.add(&node.place, join(path, tag), Fault::Missing { expected });
        }
        return default.copied();
    };
    let table = named.text().and_then(|name| tables.iter().find(|t| names_of(t).contains(&name)));
    if table.is_none() {
        let fault = match named.text() {
            Some(name) => Fault::UnknownName {
                what: what.to_owned(),
                found: name.to_owned(),
                advice: advise(name, &all),
            },
            None => Fault::Unexpected {
                expected: format!("the name of a {what}: {}", all.join(", ")),
                found: named.value.to_string(),
            },
        };
        report.add(&named.place, join(path, tag), fault);
    }
    table.copied()
}

/// Resolves one target entry. `None` when it is not a mapping or its problem is unknown (reported).
pub(super) fn target<'a>(node: &'a Node, path: &str, context: &Context<'a>) -> Option<Resolved<'a>> {
    let report = context.report;
    let table = table_of(&TARGETS, "problem", "problem", node, path, report)?;
    check_map(table, node.entries(), path, report);
    let level = Level::of(&POSTERIOR, node, path, report);
    let mut section = Section::new(table, &node.place, path, report);
    section.add(node.entries(), path, true);
    let problem = match table.name {
        "dln_target" => dln(&section),
        "quadratic_target" => quadratic(&section),
        "normal_crossing_target" => normal_crossing(&section),
        "external_target" => external(&section, &level, context),
        _ => mlp(node, path, &section, &level, context),
    };
    let seed = match table.key("seed") {
        Some(_) => section.int("seed"),
        None => Some(DEFAULT_SEED),
    };
    let entry = match (problem, seed) {
        (Some((problem, label)), Some(seed)) => {
            let spec = TargetSpec { problem, seed, dtype: context.dtype };
            Some(TargetEntry { spec, label, place: node.place.clone() })
        }
        _ => None,
    };
    Some(Resolved { entry, level })
}

/// The seed in the specification (and id) of targets that draw nothing.
const DEFAULT_SEED: u64 = 42;

/// A section of an mlp target: the preset or mapping under `name`, then `overrides.name`.
struct Part<'a> {
    preset: Option<Rc<Node>>,
    given: Option<&'a Node>,
    overrides: Option<&'a Node>,
    path: String,
    overrides_path: String,
    place: Place,
    /// For the label.
    name: String,
}

impl<'a> Part<'a> {
    /// Finds the part's layers. `None` when its preset does not exist (reported).
    fn find(
        name: &str,
        default: Option<&str>,
        node: &'a Node,
        path: &str,
        context: &Context,
    ) -> Option<Self> {
        let given = node.get(name).filter(|n| matches!(n.value, Value::Text(_) | Value::Map(_)));
        let path = join(path, name);
        let place = given.map_or(&node.place, |n| &n.place).clone();
        let preset_name = match given {
            Some(node) => node.text(),
            None => default,
        };
        let preset = match preset_name {
            Some(preset) => Some(context.presets.find(name, preset, &place, &path, context.report)?),
            None => None,
        };
        Some(Part {
            preset,
            given,
            overrides: node.get("overrides").and_then(|o| o.get(name)),
            overrides_path: path.replace(&format!(".{name}"), &format!(".overrides.{name}")),
            path,
            place,
            name: preset_name.unwrap_or("custom").to_owned(),
        })
    }

    fn section<'s>(&'s self, table: &'static Table, report: &'s Report) -> Section<'s> {
        let mut section = Section::new(table, &self.place, &self.path, report);
        if let Some(preset) = &self.preset {
            section.check_and_add(preset, "", false);
        }
        if let Some(given) = self.given {
            section.add(given.entries(), &self.path, true);
        }
        if let Some(overrides) = self.overrides {
            section.add(overrides.entries(), &self.overrides_path, true);
        }
        section
    }
}

fn mlp(
    node: &Node,
    path: &str,
    section: &Section,
    level: &Level,
    context: &Context,
) -> Option<(Problem, String)> {
    let report = context.report;
    section.require(&["model", "data"]);
    let model_part = Part::find("model", None, node, path, context);
    let data_part = Part::find("data", None, node, path, context);
    let teacher_part = Part::find("teacher", Some("_null"), node, path, context);

    let no_overrides = Node { value: Value::Null, place: node.place.clone() };
    let overrides = node.get("overrides").unwrap_or(&no_overrides);
    let mut training_section =
        Section::new(&TRAINING, &node.place, &join(path, "overrides.training"), report);
    if let Some(training) = overrides.get("training") {
        training_section.add(training.entries(), &join(path, "overrides.training"), true);
    }
    let training = training(&training_section);

    let (model, init, dims) = match model_part.as_ref().filter(|p| p.given.is_some()) {
        Some(part) => {
            let section = part.section(&MODEL, report);
            let dims = (section.size("in_dim"), section.size("out_dim"));
            let init = section.text("init").as_deref().and_then(network::init);
            (network(&section, dims.0, dims.1), init, dims)
        }
        None => (None, None, (None, None)),
    };
    let data = data_part
        .as_ref()
        .filter(|p| p.given.is_some())
        .and_then(|part| data(&part.section(&DATA, report), dims.0));
    let teacher = teacher_part.as_ref().and_then(|part| teacher(part, dims, report));
    let loss = loss(&[level, context.top], data.as_ref().map(|d| d.noise_scale));

    let changed = if overrides.entries().is_empty() { "" } else { "*" };
    let label = format!("{}/{}/{}{changed}", model_part?.name, data_part?.name, teacher_part?.name);
    let mlp =
        Mlp { model: model?, init: init?, data: data?, teacher: teacher?, training: training?, loss: loss? };
    Some((Problem::Mlp(mlp), label))
}

/// `Some(None)` for preset `_null`.
fn teacher(part: &Part, dims: (Option<usize>, Option<usize>), report: &Report) -> Option<Option<Teacher>> {
    let section = part.section(&TEACHER, report);
    if part.preset.as_ref().is_some_and(|p| p.value == Value::Null) {
        if let Some(first) = part.overrides.and_then(|o| o.entries().first()) {
            let text = format!(
                "has no effect with teacher {}, which has the model's architecture; name a teacher of its own size",
                part.name
            );
            report.add(&first.place, join(&part.overrides_path, &first.key), Fault::Conflict(text));
            return None;
        }
        return Some(None);
    }
    let (network, dropout) = (network(&section, dims.0, dims.1), section.float("dropout"));
    Some(Some(Teacher { network: network?, dropout: dropout? }))
}

fn data(section: &Section, in_dim: Option<usize>) -> Option<Data> {
    const X_KEYS: [(&str, &[&str]); 5] = [
        ("gauss_iso", &[]),
        ("gauss_aniso", &["x_condition"]),
        ("mixture", &["components", "spread"]),
        ("lowdim_manifold", &["latent_dim"]),
        ("heavy_tail", &["x_df"]),
    ];
    const NOISE_KEYS: [(&str, &[&str]); 4] = [
        ("gauss", &[]),
        ("hetero", &[]),
        ("student_t", &["noise_df"]),
        ("outliers", &["outlier_fraction", "outlier_scale"]),
    ];
    let (x_dist, noise_model) = (section.text("x_dist"), section.text("noise_model"));
    for (tag, value, kinds) in
        [("x_dist", &x_dist, &X_KEYS[..]), ("noise_model", &noise_model, &NOISE_KEYS[..])]
    {
        if let Some(value) = value {
            for (name, keys) in kinds.iter().filter(|(name, _)| name != value) {
                section.refuse_idle(keys, &format!("with `{tag}: {value}` (it belongs to `{tag}: {name}`)"));
            }
        }
    }
    let (n_data, noise_scale) = (section.size("n_data"), section.float("noise_scale"));
    let x = x_dist.and_then(|kind| {
        Some(match kind.as_str() {
            "gauss_aniso" => Inputs::GaussAniso { condition: section.float("x_condition")? },
            "mixture" => {
                Inputs::Mixture { components: section.size("components")?, spread: section.float("spread")? }
            }
            "lowdim_manifold" => {
                let dim = section.size("latent_dim")?;
                if in_dim.is_some_and(|inputs| dim > inputs) {
                    section.conflict(
                        "latent_dim",
                        format!("expected at most the model's in_dim ({}), found {dim}", in_dim.unwrap_or(0)),
                    );
                    return None;
                }
                Inputs::LowdimManifold { dim }
            }
            "heavy_tail" => Inputs::HeavyTail { df: section.float("x_df")? },
            _ => Inputs::GaussIso,
        })
    });
    let noise = noise_model.and_then(|kind| {
        Some(match kind.as_str() {
            "hetero" => Noise::Hetero,
            "student_t" => Noise::StudentT { df: section.float("noise_df")? },
            "outliers" => Noise::Outliers {
                fraction: section.float("outlier_fraction")?,
                scale: section.float("outlier_scale")?,
            },
            _ => Noise::Gauss,
        })
    });
    Some(Data { n_data: n_data?, x: x?, noise: noise?, noise_scale: noise_scale? })
}

fn training(section: &Section) -> Option<Training> {
    let optimizer = match section.text("optimizer")?.as_str() {
        "adamw" => Optimizer::Adamw,
        "sgd" => Optimizer::Sgd,
        _ => Optimizer::Adam,
    };
    if optimizer != Optimizer::Adamw {
        section.refuse_idle(&["weight_decay"], "without `optimizer: adamw`");
    }
    if optimizer != Optimizer::Sgd {
        section.refuse_idle(&["momentum"], "without `optimizer: sgd`");
    }
    let batch_size =
        if section.has("batch_size") { section.size("batch_size").map(Some) } else { Some(None) };
    // What the optimiser does not read is 0, so that it tells no two targets apart.
    let only = |wanted: bool, name| if wanted { section.float(name) } else { Some(0.0) };
    let (lr, steps, early_stop_tol) =
        (section.float("lr"), section.int("steps"), section.float("early_stop_tol"));
    let weight_decay = only(optimizer == Optimizer::Adamw, "weight_decay");
    let momentum = only(optimizer == Optimizer::Sgd, "momentum");
    Some(Training {
        optimizer,
        lr: lr?,
        steps: steps?,
        batch_size: batch_size?,
        early_stop_tol: early_stop_tol?,
        weight_decay: weight_decay?,
        momentum: momentum?,
    })
}

fn dln(section: &Section) -> Option<(Problem, String)> {
    let (widths, rank, n_data) = (section.sizes("widths"), section.size("rank"), section.size("n_data"));
    let (point, whiten) = (section.text("point"), section.bool("whiten"));
    let (widths, rank, n_data, whiten) = (widths?, rank?, n_data?, whiten?);
    let least = widths.iter().copied().min()?;
    let point = match point?.as_str() {
        "full" => Point::Full,
        "random" => Point::Random,
        _ => Point::Minimal,
    };
    let mut ok = true;
    if rank > least {
        section.conflict("rank", format!("expected at most the least of `widths` ({least}), found {rank}"));
        ok = false;
    } else if point == Point::Full && rank != least {
        section.conflict(
            "point",
            format!("a full-rank point needs `rank` equal to the least of `widths` ({least}), found {rank}"),
        );
        ok = false;
    }
    if whiten && n_data < *widths.first()? {
        section.conflict(
            "n_data",
            format!(
                "whitening (XᵀX = n·I) needs at least as many rows as inputs ({}), found {n_data}; raise it or set `whiten: false`",
                widths[0]
            ),
        );
        ok = false;
    }
    let label = format!("dln {}", dashed(&widths));
    ok.then_some((Problem::Dln(Dln { widths, rank, point, whiten, n_data }), label))
}

fn dashed<T: ToString>(numbers: &[T]) -> String {
    numbers.iter().map(T::to_string).collect::<Vec<_>>().join("-")
}

fn quadratic(section: &Section) -> Option<(Problem, String)> {
    let eigenvalues = match (section.has("eigenvalues"), section.has("quad_dim")) {
        (true, true) => {
            section.conflict("quad_dim", "excludes `eigenvalues`; give one of them");
            None
        }
        (true, false) => section.floats("eigenvalues"),
        (false, true) => section.size("quad_dim").map(|d| vec![1.0; d]),
        (false, false) => {
            section.conflict("eigenvalues", "missing; give `eigenvalues` or `quad_dim`");
            None
        }
    };
    let offset = if section.has("offset") { section.floats("offset").map(Some) } else { Some(None) };
    let n_data = section.size("n_data");
    let (eigenvalues, offset, n_data) = (eigenvalues?, offset?, n_data?);
    let d = eigenvalues.len();
    let offset = offset.unwrap_or_else(|| vec![0.0; d]);
    if offset.len() != d {
        section
            .conflict("offset", format!("expected {d} numbers (one an eigenvalue), found {}", offset.len()));
        return None;
    }
    Some((Problem::Quadratic(Quadratic { eigenvalues, offset, n_data }), format!("quadratic d={d}")))
}

fn normal_crossing(section: &Section) -> Option<(Problem, String)> {
    let (exponents, n_data) = (section.sizes("exponents"), section.size("n_data"));
    let exponents: Vec<u32> = exponents?.into_iter().map(|k| u32::try_from(k).ok()).collect::<Option<_>>()?;
    let label = format!("normal_crossing {}", dashed(&exponents));
    Some((Problem::NormalCrossing(NormalCrossing { exponents, n_data: n_data? }), label))
}

fn external(section: &Section, level: &Level, context: &Context) -> Option<(Problem, String)> {
    let path = |name| -> Option<PathBuf> {
        let path = PathBuf::from(section.text(name)?);
        let in_file = matches!(section.given(name)?.node.place, Place::At { .. });
        Some(match context.base {
            Some(base) if in_file => base.join(path),
            _ => path,
        })
    };
    let (data, params) = (path("data"), path("params"));
    let activation = section.text("activation").as_deref().and_then(network::activation);
    let loss = loss(&[level, context.top], None);
    let (data, params) = (data?, params?);
    let stem = params.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let external = External { data, params, activation: activation?, loss: loss? };
    Some((Problem::External(external), format!("external {stem}")))
}
