//! Ids: pinned, indifferent to what is not scientific, sensitive to all that is.

use std::fs;
use std::path::Path;

use lambda_hat::config::*;
use serde_json::{Value, json};

const HASH: [(&str, [u8; 32]); 2] = [("data", [1; 32]), ("params", [2; 32])];

fn read(text: &str) -> Experiment {
    parse(text, "ids.yaml", &LoadOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

/// Targets and runs of many kinds.
const MANY: &str = "
targets:
  - { model: small, data: small }
  - { model: base, data: base, teacher: base, seed: 43, overrides: { training: { optimizer: adamw, batch_size: 64 } } }
  - { model: small, data: small, loss: t_regression, overrides: { data: { x_dist: mixture, noise_model: outliers }, model: { layernorm: true, skip_connections: true } } }
  - { problem: dln, widths: [3, 1, 3], rank: 0 }
  - { problem: dln, widths: [4, 3, 4], rank: 3, point: full, whiten: false, seed: 7 }
  - { problem: quadratic, eigenvalues: [0, 0.01, 0.1, 1, 10, 100] }
  - { problem: quadratic, quad_dim: 3, offset: [0.1, -0.2, 1e-9], n_data: 50 }
  - { problem: normal_crossing, exponents: [1, 1] }
  - { problem: external, data: d.npz, params: p.npz, activation: tanh }
samplers:
  - { name: hmc }
  - { name: hmc, seed: 1, overrides: { draws: 50, chains: 2, dtype: f32, prior_radius: 0.5 } }
  - { name: sgld }
  - { name: sgld, overrides: { precond: adam, step_size: 1e-4, beta_mode: fixed, beta0: 10 } }
";

fn content(spec: &TargetSpec) -> &'static [(&'static str, [u8; 32])] {
    if matches!(spec.problem, Problem::External(_)) { &HASH } else { &[] }
}

#[test]
fn twenty_ids_are_pinned() {
    let experiment = read(MANY);
    let targets: Vec<Id> = experiment.targets.iter().map(|t| target_id(&t.spec, content(&t.spec))).collect();
    let mut lines: Vec<String> =
        experiment.targets.iter().zip(&targets).map(|(t, id)| format!("{id} target {}", t.label)).collect();
    // The four samplers on the first target, three of them on others, and their streams.
    for (i, run) in experiment.runs.iter().enumerate().filter(|(i, _)| *i < 4 || [13, 23, 34].contains(i)) {
        let id = run_id(&targets[run.target], &run.sampler, &run.posterior, None);
        lines.push(format!("{id} run {i} {}", run.sampler.algo.name()));
    }
    for (i, run) in experiment.runs.iter().enumerate().take(4) {
        let id = stream_id(&targets[run.target], &run.sampler, &run.posterior, None);
        lines.push(format!("{id} stream {i} {}", run.sampler.algo.name()));
    }
    let found = lines.join("\n") + "\n";
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/ids.txt");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&file, &found).unwrap();
    }
    assert_eq!(lines.len(), 20);
    let expected = fs::read_to_string(file).unwrap();
    assert_eq!(
        found, expected,
        "ids are promises to users: a new key needs its introduction default, not new ids"
    );
    let mut unique: Vec<&str> = lines.iter().map(|l| &l[..64]).collect();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), 20);
}

#[test]
fn an_id_is_the_hash_of_canonical_json() {
    let experiment = read(
        "targets: [{ problem: quadratic, eigenvalues: [0.25, 1], n_data: 9 }]\nsamplers: [{ name: hmc }]\n",
    );
    let text = "{\"content\":{},\"format\":1,\"revision\":1,\"spec\":{\"dtype\":\"f64\",\"problem\":{\"quadratic\":\
                {\"eigenvalues\":[2.5e-1,1e0],\"n_data\":9,\"offset\":[0e0,0e0]}},\"seed\":42},\"type\":\"target\"}";
    let target = target_id(&experiment.targets[0].spec, &[]);
    assert_eq!(target.0, *blake3::hash(text.as_bytes()).as_bytes());

    let run = &experiment.runs[0];
    let text = |kind, chains, draws| {
        format!(
            "{{\"format\":1,\"posterior\":{{\"beta0\":1e0,\"beta_mode\":\"1_over_log_n\",\"gamma\":1e0,\"prior_radius\":null}},\
             \"revision\":2,\"sampler\":{{\"algo\":{{\"hmc\":{{{draws}\"num_integration_steps\":10,\"step_size\":1e-2,\
             \"target_acceptance\":9e-1,\"warmup\":200}}}},{chains}\"dtype\":\"f64\",\"seed\":12345}},\"target\":\"{target}\",\"type\":\"{kind}\"}}"
        )
    };
    let hash = |text: String| *blake3::hash(text.as_bytes()).as_bytes();
    let id = run_id(&target, &run.sampler, &run.posterior, None);
    assert_eq!(id.0, hash(text("run", "\"chains\":4,", "\"draws\":1000,")));
    let id = stream_id(&target, &run.sampler, &run.posterior, None);
    assert_eq!(id.0, hash(text("stream", "", "")));
}

#[test]
fn ids_ignore_names_roots_and_paths() {
    let id = |text: &str, content: &[(&str, [u8; 32])]| target_id(&read(text).targets[0].spec, content);
    let tail = "samplers: [{ name: hmc }]\n";
    let small = "targets: [{ model: small, data: small }]\n";
    let plain = id(&format!("{small}{tail}"), &[]);
    assert_eq!(id(&format!("experiment: other\nstore_root: /elsewhere\n{small}{tail}"), &[]), plain);
    let external = |data: &str, hashes| {
        id(&format!("targets: [{{ problem: external, data: {data}, params: p.npz }}]\n{tail}"), hashes)
    };
    assert_eq!(external("a.npz", &HASH), external("moved/b.npz", &HASH));
    assert_ne!(external("a.npz", &HASH), external("a.npz", &[("data", [3; 32]), HASH[1]]));
    assert_ne!(external("a.npz", &HASH), external("a.npz", &[("data", HASH[1].1), ("params", HASH[0].1)]));
}

#[test]
fn settings_that_are_not_read_do_not_tell_apart() {
    let specs = |sampler: &str| {
        let e = read(&format!(
            "targets: [{{ problem: quadratic, quad_dim: 1 }}]\nsamplers: [{{ name: sgld, {sampler} }}]\n"
        ));
        run_id(&Id([0; 32]), &e.runs[0].sampler, &e.runs[0].posterior, None)
    };
    assert_eq!(specs("overrides: { prior_radius: 2 }"), specs("prior_radius: 2.0"));
    assert_eq!(specs("overrides: { precond: none }"), specs("seed: 12345"));
}

/// Presets of a user's own may hold any value of a key that the entry then leaves unread.
#[test]
fn idle_values_of_a_preset_do_not_tell_runs_apart() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("sampler")).unwrap();
    let id = |sampler: &str, preset: &str, overrides: &str| {
        fs::write(dir.path().join(format!("sampler/{sampler}.yaml")), preset).unwrap();
        let options = LoadOptions { presets: Some(dir.path().to_owned()), ..LoadOptions::default() };
        let text = format!(
            "targets: [{{ problem: quadratic, quad_dim: 1 }}]\nsamplers: [{{ name: {sampler}, overrides: {{ {overrides} }} }}]\n"
        );
        let e = parse(&text, "ids.yaml", &options).unwrap_or_else(|e| panic!("{e}"));
        run_id(&Id([0; 32]), &e.runs[0].sampler, &e.runs[0].posterior, None)
    };
    let energy = "desired_energy_var: 1e-3\ntrust_in_estimate: 2.0\nnum_effective_samples: 99\n";
    let fracs = "frac_tune1: 0.3\nfrac_tune2: 0.4\nfrac_tune3: 0.2\n";
    for (sampler, preset, overrides) in [
        ("hmc", "target_acceptance: 0.7\n", "warmup: 0"),
        ("nuts", "target_acceptance: 0.7\n", "warmup: 0"),
        ("mala", "target_acceptance: 0.7\n", "step_size: 0.1"),
        ("mala", "target_acceptance: 0.7\n", "warmup: 0"),
        ("mclmc", &format!("{energy}{fracs}target_acceptance: 0.7\n"), "num_steps: 0"),
        ("mclmc", "diagonal_preconditioning: true\n", "frac_tune2: 0"),
        ("mclmc", "num_steps: 77\n", "frac_tune1: 0, frac_tune2: 0, frac_tune3: 0"),
        ("mclmc", energy, "frac_tune1: 0, frac_tune2: 0"),
        ("mclmc", &format!("{energy}thin: 3\n"), "adjusted: true, frac_tune3: 0"),
        ("mclmc", "target_acceptance: 0.7\n", "adjusted: false"),
        ("vi", "alpha_temperature: 2.0\nalpha_dirichlet_prior: 3.0\nentropy_bonus: 0.5\n", "M: 1"),
        ("vi", "M: 4\nd_latent: 3\nflow_depth: 2\n", "r_per_component: [2, 2, 2]"),
        ("vi", "M: 4\nfamily: covariance\nwhitening_mode: adam\n", "algo: flow"),
    ] {
        let plain = id(sampler, "{}\n", overrides);
        assert_eq!(id(sampler, preset, overrides), plain, "{sampler} {overrides}");
        // The same values in an entry that reads them.
        assert_ne!(id(sampler, preset, ""), id(sampler, "{}\n", ""), "{sampler} {preset}");
    }
    assert_eq!(id("vi", "{}\n", "M: 3, r: 2"), id("vi", "{}\n", "r_per_component: [2, 2, 2]"));
}

/// Every leaf of `value`, changed: (path, changed value).
fn changes(value: &Value) -> Vec<(String, Value)> {
    let leaf = |new: Vec<Value>| new.into_iter().map(|v| (String::new(), v)).collect();
    match value {
        Value::Null => leaf(vec![json!(3), json!(0.5)]),
        Value::Bool(b) => leaf(vec![json!(!b)]),
        Value::Number(n) if n.is_f64() => leaf(vec![json!(n.as_f64().unwrap() * 0.75 + 0.01)]),
        Value::Number(n) => leaf(vec![json!(n.as_u64().unwrap() + 1)]),
        // Every name of any choice; those that do not fit are refused when read back.
        Value::String(_) => leaf(
            [
                "f32",
                "f64",
                "relu",
                "tanh",
                "he",
                "lecun",
                "adam",
                "sgd",
                "rmsprop",
                "none",
                "mse",
                "minimal",
                "random",
                "fixed",
                "1_over_log_n",
                "gauss",
                "hetero",
                "gauss_iso",
            ]
            .map(|s| json!(s))
            .to_vec(),
        ),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .flat_map(|(i, item)| {
                changes(item).into_iter().map(move |(path, new)| {
                    let mut changed = items.clone();
                    changed[i] = new;
                    (format!("[{i}]{path}"), Value::Array(changed))
                })
            })
            .collect(),
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, item)| {
                changes(item).into_iter().map(move |(path, new)| {
                    let mut changed = map.clone();
                    changed[key] = new;
                    (format!(".{key}{path}"), Value::Object(changed))
                })
            })
            .collect(),
    }
}

/// Checks `id` on every change of one leaf of `spec`; returns the paths of the leaves changed.
fn assert_sensitive<T>(spec: &T, keeps: &[&str], id: impl Fn(&T) -> Id) -> Vec<String>
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq,
{
    let mut paths = Vec::new();
    for (path, value) in changes(&serde_json::to_value(spec).unwrap()) {
        let Ok(changed) = serde_json::from_value::<T>(value) else { continue };
        if changed == *spec {
            continue;
        }
        let kept = keeps.iter().any(|k| path.ends_with(k));
        assert_eq!(id(&changed) == id(spec), kept, "{path}");
        paths.push(path);
    }
    paths.dedup();
    paths
}

#[test]
fn ids_change_with_every_scientific_key() {
    let experiment = read(MANY);
    let mut leaves = 0;
    for target in &experiment.targets {
        let paths =
            assert_sensitive(&target.spec, &["external.data", "external.params"], |s| target_id(s, &[]));
        assert!(paths.contains(&".seed".to_owned()) && paths.contains(&".dtype".to_owned()));
        leaves += paths.len();
    }
    let zero = Id([0; 32]);
    for run in &experiment.runs[..4] {
        leaves += assert_sensitive(&run.sampler, &[], |s| run_id(&zero, s, &run.posterior, None)).len();
        leaves += assert_sensitive(&run.posterior, &[], |p| run_id(&zero, &run.sampler, p, None)).len();
        let length = if run.sampler.algo.name() == "sgld" { ".steps" } else { ".draws" };
        assert_sensitive(&run.sampler, &[".chains", length], |s| stream_id(&zero, s, &run.posterior, None));
        assert_sensitive(&run.posterior, &[], |p| stream_id(&zero, &run.sampler, p, None));
        assert_ne!(
            run_id(&zero, &run.sampler, &run.posterior, None),
            run_id(&Id([1; 32]), &run.sampler, &run.posterior, None)
        );
    }
    // A fifth of what there is, so that a walk that finds nothing cannot pass.
    assert!(leaves > 120, "{leaves}");
}
