//! The way back: from the resolved specification of one run to an experiment file that means it.

use serde_json::{Map, Value, json};

use super::error::Fault;
use super::resolve::{LoadOptions, parse};
use super::samplers::DEFINITIONS;
use super::spec::{Loss, Mlp, Network, PosteriorSpec, Problem, TargetSpec};
use super::table::Kind;
use super::{Algo, SamplerSpec};

/// How often keys that have no effect beside others are taken out again.
const MOST_ROUNDS: usize = 4;

/// An experiment file of one target and one sampler, every key written out, that resolves to exactly this
/// target, sampler and posterior, and so (files of an external target or mask being as they were) to the
/// same id. `None` where no file does: the specification is of another version of the program.
///
/// ```
/// use lambda_hat::config::{LoadOptions, parse, written};
/// let text = "experiment: a\ntargets: [{problem: quadratic, quad_dim: 2}]\nsamplers: [{name: hmc}]\n";
/// let first = parse(text, "a.yaml", &LoadOptions::default()).unwrap();
/// let run = &first.runs[0];
/// let again = written("b", &first.targets[0].spec, &run.sampler, &run.posterior).unwrap();
/// let second = parse(&again, "b.yaml", &LoadOptions::default()).unwrap();
/// assert_eq!((&second.targets[0].spec, &second.runs[0].sampler), (&first.targets[0].spec, &run.sampler));
/// ```
pub fn written(
    name: &str,
    target: &TargetSpec,
    sampler: &SamplerSpec,
    posterior: &PosteriorSpec,
) -> Option<String> {
    let mut file = json!({
        "experiment": name,
        "precision": target.dtype.name(),
        "targets": [target_entry(target)],
        "samplers": [sampler_entry(target, sampler)],
        "posterior": posterior_entry(posterior, loss_of(&target.problem)),
    });
    for _ in 0..MOST_ROUNDS {
        let text = yaml(&file);
        match parse(&text, "written.yaml", &LoadOptions::default()) {
            Ok(found) => {
                let run = found.runs.first()?;
                let same = found.targets.first()?.spec == *target
                    && run.sampler == *sampler
                    && run.posterior == *posterior;
                return same.then_some(text);
            }
            Err(errors) => {
                let conflicts = errors.0.iter().filter(|e| matches!(e.fault, Fault::Conflict(_)));
                let removed: Vec<bool> = conflicts.map(|e| remove(&mut file, &e.key)).collect();
                if !removed.contains(&true) {
                    return None;
                }
            }
        }
    }
    None
}

/// Takes out the value at a path such as `samplers[0].overrides.beta1`.
fn remove(file: &mut Value, path: &str) -> bool {
    let pointer: String =
        path.replace('[', ".").replace(']', "").split('.').map(|part| format!("/{part}")).collect();
    let Some((parent, key)) = pointer.rsplit_once('/') else { return false };
    match file.pointer_mut(parent) {
        Some(Value::Object(map)) => map.remove(key).is_some(),
        _ => false,
    }
}

/// The specification types are plain data: they always have a JSON form.
fn as_map<T: serde::Serialize>(spec: &T) -> Map<String, Value> {
    match serde_json::to_value(spec) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

fn target_entry(target: &TargetSpec) -> Value {
    let mut entry = match &target.problem {
        Problem::Mlp(mlp) => mlp_entry(mlp),
        Problem::Dln(dln) => as_map(dln),
        Problem::Quadratic(quadratic) => as_map(quadratic),
        Problem::NormalCrossing(crossing) => as_map(crossing),
        Problem::External(external) => {
            let mut entry = as_map(external);
            entry.remove("loss");
            entry
        }
    };
    entry.insert("problem".into(), target.problem.name().into());
    if matches!(target.problem, Problem::Mlp(_) | Problem::Dln(_)) {
        entry.insert("seed".into(), target.seed.into());
    }
    Value::Object(entry)
}

fn mlp_entry(mlp: &Mlp) -> Map<String, Value> {
    let mut model = network(&mlp.model);
    model.insert("init".into(), json!(mlp.init));
    let mut data = as_map(&mlp.data);
    // `{"x": {"mixture": {"components": 4, …}}}` is `x_dist: mixture` and the keys of a mixture.
    let renamed = |key: &str| match key {
        "condition" => "x_condition".to_owned(),
        "dim" => "latent_dim".to_owned(),
        "fraction" | "scale" => format!("outlier_{key}"),
        other => other.to_owned(),
    };
    for (from, to, degrees) in [("x", "x_dist", "x_df"), ("noise", "noise_model", "noise_df")] {
        match data.remove(from) {
            Some(Value::Object(choice)) => {
                for (kind, values) in choice {
                    data.insert(to.into(), kind.into());
                    for (key, value) in as_map(&values) {
                        let key = if key == "df" { degrees.to_owned() } else { renamed(&key) };
                        data.insert(key, value);
                    }
                }
            }
            Some(kind) => drop(data.insert(to.into(), kind)),
            None => {}
        }
    }
    let mut entry = Map::new();
    entry.insert("model".into(), Value::Object(model));
    entry.insert("data".into(), Value::Object(data));
    let teacher = match &mlp.teacher {
        Some(teacher) => {
            let mut keys = network(&teacher.network);
            // A teacher's inputs and outputs are its student's.
            keys.remove("in_dim");
            keys.remove("out_dim");
            keys.insert("dropout".into(), teacher.dropout.into());
            Value::Object(keys)
        }
        None => "_null".into(),
    };
    entry.insert("teacher".into(), teacher);
    entry.insert("overrides".into(), json!({ "training": mlp.training }));
    entry
}

fn network(network: &Network) -> Map<String, Value> {
    let mut keys = as_map(network);
    if let Some(hidden) = keys.remove("hidden") {
        keys.insert("widths".into(), hidden);
    }
    keys.insert("skip_connections".into(), network.residual_period.is_some().into());
    if network.residual_period.is_none() {
        keys.remove("residual_period");
    }
    keys
}

fn sampler_entry(target: &TargetSpec, sampler: &SamplerSpec) -> Value {
    let name = sampler.algo.name();
    let mut overrides = match &sampler.algo {
        Algo::Vi(vi) => {
            let mut keys = as_map(vi);
            if let Some(Value::Object(choice)) = keys.remove("approximation") {
                for (kind, values) in choice {
                    keys.insert("algo".into(), kind.into());
                    keys.extend(as_map(&values));
                }
            }
            keys
        }
        algo => match as_map(algo).remove(name) {
            Some(Value::Object(keys)) => keys,
            _ => Map::new(),
        },
    };
    let table = DEFINITIONS.into_iter().find(|d| d.name == name).map(|d| d.overrides);
    for (key, value) in &mut overrides {
        let automatic = table.and_then(|t| t.key(key)).is_some_and(|k| matches!(k.kind, Kind::Auto(_)));
        if value.is_null() && automatic {
            *value = "auto".into();
        }
    }
    overrides.insert("chains".into(), sampler.chains.into());
    overrides.insert("dtype".into(), sampler.dtype.name().into());
    if sampler.dtype != target.dtype {
        overrides.insert("allow_cast".into(), true.into());
    }
    json!({ "name": name, "seed": sampler.seed, "overrides": overrides })
}

fn loss_of(problem: &Problem) -> Option<&Loss> {
    match problem {
        Problem::Mlp(mlp) => Some(&mlp.loss),
        Problem::External(external) => Some(&external.loss),
        _ => None,
    }
}

fn posterior_entry(posterior: &PosteriorSpec, loss: Option<&Loss>) -> Value {
    let mut keys = as_map(posterior);
    keys.retain(|_, value| !value.is_null());
    if posterior.prior_radius.is_some() {
        keys.remove("gamma");
    }
    match loss {
        Some(Loss::TRegression { student_df, noise_scale }) => {
            keys.insert("loss".into(), "t_regression".into());
            keys.insert("student_df".into(), (*student_df).into());
            keys.insert("noise_scale".into(), (*noise_scale).into());
        }
        Some(Loss::Mse) => drop(keys.insert("loss".into(), "mse".into())),
        None => {}
    }
    Value::Object(keys)
}

/// A value as YAML: mappings in blocks, lists of plain values on one line.
pub fn yaml(value: &Value) -> String {
    let mut text = String::new();
    block(value, 0, &mut text);
    text
}

/// What stands first in a mapping; the rest follows in the order of the alphabet.
const FIRST: [&str; 7] = ["experiment", "precision", "name", "problem", "algo", "targets", "samplers"];

fn block(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            let rank = |key: &str| FIRST.iter().position(|first| *first == key).unwrap_or(FIRST.len());
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_by(|a, b| (rank(a), a).cmp(&(rank(b), b)));
            for (i, key) in keys.into_iter().enumerate() {
                if i > 0 {
                    text.push_str(&" ".repeat(indent));
                }
                text.push_str(&scalar(&Value::String(key.clone())));
                text.push(':');
                child(&map[key], indent + 2, text);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    text.push_str(&" ".repeat(indent));
                }
                text.push_str("- ");
                block(item, indent + 2, text);
            }
        }
        other => {
            text.push_str(&scalar(other));
            text.push('\n');
        }
    }
}

fn child(value: &Value, indent: usize, text: &mut String) {
    let nested = match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => items.iter().any(Value::is_object),
        _ => false,
    };
    if nested {
        text.push('\n');
        text.push_str(&" ".repeat(indent));
    } else {
        text.push(' ');
    }
    block(value, indent, text);
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(word) => {
            let letters = |c: char| c.is_ascii_alphanumeric() || "_.-/".contains(c);
            let plain = word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && word.chars().all(letters)
                && !["null", "true", "false", "yes", "no", "on", "off", "nan", "inf", "y", "n"]
                    .contains(&word.to_ascii_lowercase().as_str());
            if plain { word.clone() } else { value.to_string() }
        }
        Value::Array(items) => format!("[{}]", items.iter().map(scalar).collect::<Vec<_>>().join(", ")),
        // Not nested further in any specification; JSON is YAML.
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every kind of target with every sampler, and the settings that exclude each other.
    const TARGETS: [&str; 9] = [
        "{ model: small, data: small, teacher: _null, seed: 43 }",
        "{ model: base, data: base, teacher: base, overrides: { training: { optimizer: adamw }, model: { skip_connections: true, layernorm: true }, data: { x_dist: mixture, components: 3, noise_model: outliers } } }",
        "{ model: small, data: small, overrides: { training: { optimizer: sgd, momentum: 0.5, batch_size: 8 }, data: { x_dist: gauss_aniso, x_condition: 7, noise_model: student_t, noise_df: 3 } }, loss: t_regression, student_df: 5 }",
        "{ model: small, data: small, overrides: { data: { x_dist: lowdim_manifold, latent_dim: 2, noise_model: hetero } } }",
        "{ model: { in_dim: 2, widths: [] }, data: { n_data: 9, x_dist: heavy_tail, x_df: 4.5 } }",
        "{ problem: dln, widths: [3, 1, 3], rank: 0, n_data: 1000, seed: 18446744073709551615 }",
        "{ problem: quadratic, eigenvalues: [0, 0.05, 1e-7, 1e22], offset: [1, -2, 0.1, 0], n_data: 1000 }",
        "{ problem: normal_crossing, exponents: [1, 2], n_data: 50 }",
        "{ problem: external, data: \"a b/null.npz\", params: p.npz, activation: tanh }",
    ];
    const SAMPLERS: [&str; 17] = [
        "{ name: hmc }",
        "{ name: hmc, seed: 1, overrides: { warmup: 0, dtype: f32, draws: 7, chains: 2 } }",
        "{ name: nuts }",
        "{ name: mala }",
        "{ name: mala, overrides: { step_size: 0.001 } }",
        "{ name: mclmc }",
        "{ name: mclmc, overrides: { num_steps: 0, adjusted: false, L: auto, thin: 3 } }",
        "{ name: mclmc, overrides: { adjusted: true } }",
        "{ name: sgld }",
        "{ name: sgld, overrides: { step_size: 6e-5, precond: rmsprop, freeze_precond: true } }",
        "{ name: sgld, overrides: { step_size: 1e-300, precond: adam, eps: 1e-5 } }",
        "{ name: sghmc }",
        "{ name: sgnht, overrides: { friction: 0.05 } }",
        "{ name: vi }",
        "{ name: vi, overrides: { M: 1, clip_global_norm: null, lr_schedule: cosine } }",
        "{ name: vi, overrides: { r_per_component: [1, 3], whitening_mode: adam } }",
        "{ name: vi, overrides: { algo: flow, sigma_perp: auto, flow_type: nsf_ar } }",
    ];
    const POSTERIORS: [&str; 3] = [
        "{ }",
        "{ gamma: 0, beta_mode: fixed, beta0: 0.25, l0: trained_minimum }",
        "{ prior_radius: 3, parameters: { layers: [0, 1] } }",
    ];

    #[test]
    fn what_is_written_means_the_same_run() {
        let mut seen = 0;
        for posterior in POSTERIORS {
            for target in TARGETS {
                for sampler in SAMPLERS {
                    let text =
                        format!("targets: [{target}]\nsamplers: [{sampler}]\nposterior: {posterior}\n");
                    let found = parse(&text, "x.yaml", &LoadOptions::default())
                        .unwrap_or_else(|e| panic!("{text}: {e}"));
                    let (spec, run) = (&found.targets[0].spec, &found.runs[0]);
                    let again = written("x", spec, &run.sampler, &run.posterior);
                    assert!(again.is_some(), "{text}");
                    seen += 1;
                }
            }
        }
        assert_eq!(seen, POSTERIORS.len() * TARGETS.len() * SAMPLERS.len());
    }

    #[test]
    fn a_specification_that_no_file_gives_has_no_file() {
        let text = "targets: [{problem: quadratic, quad_dim: 2}]\nsamplers: [{name: hmc}]\n";
        let found = parse(text, "x.yaml", &LoadOptions::default()).unwrap();
        let run = &found.runs[0];
        let mut target = found.targets[0].spec.clone();
        // Nothing in a quadratic is random: a file cannot give it a seed.
        target.seed = 7;
        assert_eq!(written("x", &target, &run.sampler, &run.posterior), None);
    }

    #[test]
    fn words_that_mean_something_else_in_yaml_are_quoted() {
        let text = yaml(&json!({"experiment": "a", "x": ["no", "1e3", "a: b", 1e-7], "y": "<script>"}));
        assert_eq!(text, "experiment: a\nx: [\"no\", \"1e3\", \"a: b\", 1e-7]\n\"y\": \"<script>\"\n");
    }
}
