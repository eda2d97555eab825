//! What valid files mean.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;

const TARGET: &str = "targets: [{ model: small, data: small }]\n";
const HMC: &str = "samplers: [{ name: hmc }]\n";

fn read(text: &str) -> Experiment {
    parse(text, "dev.yaml", &LoadOptions::default()).unwrap_or_else(|e| panic!("{text}\n{e}"))
}

fn shipped(name: &str) -> Experiment {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
    load(&path, &LoadOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

fn mlp(entry: &TargetEntry) -> &Mlp {
    match &entry.spec.problem {
        Problem::Mlp(mlp) => mlp,
        other => panic!("not an mlp: {other:?}"),
    }
}

/// Parameters of a network without layer normalisation.
fn dim(network: &Network) -> usize {
    let mut widths = vec![network.in_dim];
    widths.extend(&network.hidden);
    widths.push(network.out_dim);
    widths.windows(2).map(|w| (w[0] + usize::from(network.bias)) * w[1]).sum()
}

#[test]
fn the_shipped_experiment_has_the_values_of_its_presets() {
    let experiment = shipped("experiments.yaml");
    assert_eq!(experiment.name, "dev");
    assert_eq!(experiment.targets.len(), 3);
    assert_eq!(experiment.runs.len(), 12);
    let places: Vec<(usize, &str)> =
        experiment.runs.iter().map(|r| (r.target, r.sampler.algo.name())).collect();
    let names = ["hmc", "sgld", "mclmc", "vi"];
    assert_eq!(places, [0, 1, 2].map(|t| names.map(|n| (t, n))).concat());

    let network = |in_dim, hidden, activation| Network {
        in_dim,
        hidden,
        out_dim: 1,
        activation,
        bias: true,
        layernorm: false,
        residual_period: None,
    };
    let small = Mlp {
        model: network(4, vec![4, 4], Activation::Relu),
        init: Init::He,
        data: Data { n_data: 100, x: Inputs::GaussIso, noise: Noise::Gauss, noise_scale: 0.1 },
        teacher: None,
        training: Training {
            optimizer: Optimizer::Adam,
            lr: 1e-3,
            steps: 5000,
            batch_size: None,
            early_stop_tol: 1e-6,
            weight_decay: 0.0,
            momentum: 0.0,
        },
        loss: Loss::Mse,
    };
    assert_eq!(experiment.targets[0].label, "small/small/_null");
    let spec = TargetSpec { problem: Problem::Mlp(small.clone()), seed: 42, dtype: Dtype::F64 };
    assert_eq!(experiment.targets[0].spec, spec);
    assert_eq!(dim(&small.model), 45);

    let base = mlp(&experiment.targets[1]);
    // (L − 1) h² + (in + L + out) h = 10000 with L = 8: h = (−41 + √(41² + 280000))/14 = 34.98.
    assert_eq!(base.model, network(32, vec![34; 8], Activation::Gelu));
    assert_eq!((base.data.n_data, base.training.steps), (20_000, 10_000));
    let wide = mlp(&experiment.targets[2]);
    assert_eq!((wide.model.hidden.as_slice(), wide.data.n_data), ([125, 125].as_slice(), 100_000));

    let hmc =
        Hmc { draws: 1000, warmup: 200, num_integration_steps: 10, step_size: 0.01, target_acceptance: 0.9 };
    let hmc = SamplerSpec { algo: Algo::Hmc(hmc), seed: 12345, chains: 4, dtype: Dtype::F64 };
    assert_eq!(experiment.runs[0].sampler, hmc);
    let sgld = Sgld {
        steps: 781_250,
        warmup: 50_000,
        batch_size: 256,
        step_size: Some(1e-6),
        eval_every: 50,
        precond: Precond::None,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        bias_correction: true,
        gamma_term: false,
        freeze_precond: false,
    };
    let sgld = SamplerSpec { algo: Algo::Sgld(sgld), seed: 12345, chains: 4, dtype: Dtype::F32 };
    assert_eq!(experiment.runs[1].sampler, sgld);
    for run in &experiment.runs {
        // The entry of vi has a posterior of its own.
        let gamma = if run.sampler.algo.name() == "vi" { 0.001 } else { 1.0 };
        assert_eq!(run.posterior, PosteriorSpec { gamma, ..PosteriorSpec::default() });
    }
}

#[test]
fn base_infers_the_golden_width() {
    let experiment = read(&format!("targets: [{{ model: base, data: base, teacher: base }}]\n{HMC}"));
    let base = mlp(&experiment.targets[0]);
    assert_eq!(base.model.hidden, [62, 62, 62]);
    assert_eq!(dim(&base.model), 9921);
    let teacher = base.teacher.as_ref().unwrap();
    // 2h² + (32 + 3 + 1)h = 100: h = 2.44.
    assert_eq!((teacher.network.hidden.as_slice(), teacher.dropout), ([2, 2, 2].as_slice(), 0.1));
    assert_eq!((teacher.network.in_dim, teacher.network.out_dim), (32, 1));
}

#[test]
fn the_quickstart_is_valid_and_has_the_exact_targets() {
    let experiment = shipped("quickstart.yaml");
    assert_eq!(experiment.name, "quickstart");
    let labels: Vec<&str> = experiment.targets.iter().map(|t| t.label.as_str()).collect();
    assert_eq!(labels, ["small/small/_null", "dln 3-1-3", "quadratic d=6"]);
    assert_eq!(experiment.runs.len(), 6);
}

#[test]
fn spellings_of_one_thing_are_one_thing() {
    let plain = "targets: [{ model: small, data: small, overrides: { data: { noise_scale: 0.05, n_data: 1000 }, model: { depth: 3 } } }]
samplers: [{ name: sgld, overrides: { batch_size: 64, step_size: 0.001 } }]
posterior: { gamma: 2 }\n";
    let others = [
        // Dotted keys, an alias of a key, floats for whole numbers, whole numbers for floats.
        "targets: [{ model: small, data: small, overrides: { data.noise_scale: 5e-2, data.n_data: 1e3, model.depth: 3.0 } }]
samplers: [{ name: sgld, overrides: { batch: 64, step_size: 1e-3 } }]
posterior.gamma: 2.0\n",
        // Anchors, aliases, merge keys, sections left empty.
        "posterior: { beta0: &one 1, gamma: 2 }
samplers: [{ name: sgld, posterior: { beta0: *one }, overrides: { batch: 64, step_size: 0.001 } }]
targets:
  - <<: &base { model: small, data: small }
    problem: mlp
    overrides: { teacher: , data: { <<: { n_data: 1000 }, noise_scale: 0.05 }, model.depth: 3 }\n",
        // A mapping for a preset's name.
        "targets: [{ model: { in_dim: 4, depth: 3, target_params: 50 }, data: { n_data: 1000, noise_scale: 0.05 } }]
samplers: [{ name: sgld, overrides: { batch: 64, step_size: 0.001 } }]
gamma: 2\n",
    ];
    let expected = read(plain);
    for text in others {
        let found = read(text);
        assert_eq!(found.targets[0].spec, expected.targets[0].spec, "{text}");
        assert_eq!(found.runs, expected.runs, "{text}");
    }
    let set =
        ["targets.0.overrides.data={n_data: 1000, noise_scale: 0.05}", "targets[0].overrides.model.depth=3"];
    let set = set.into_iter().chain([
        "samplers.sgld.overrides.batch_size=64",
        "samplers.0.overrides.step_size=0.001",
        "posterior.gamma=2",
    ]);
    let options = LoadOptions { set: set.map(str::to_owned).collect(), ..LoadOptions::default() };
    let found = parse(&format!("{TARGET}samplers: [{{ name: sgld }}]\n"), "dev.yaml", &options).unwrap();
    assert_eq!((found.targets, found.runs), (expected.targets, expected.runs));
}

#[test]
fn the_precision_guard_decides_every_dtype() {
    use Dtype::{F32, F64};
    // (top-level line, overrides, build, chains, notices)
    let cases: [(&str, &str, Dtype, Dtype, usize); 9] = [
        ("", "", F64, F32, 1),
        ("", "dtype: f64", F64, F64, 0),
        ("", "dtype: f32", F64, F32, 1),
        ("precision: f64", "", F64, F64, 0),
        ("precision: f32", "", F32, F32, 0),
        ("precision: f32", "dtype: f32", F32, F32, 0),
        ("precision: f64", "dtype: f32, allow_cast: true", F64, F32, 0),
        ("jax_enable_x64: false", "", F32, F32, 1),
        ("jax_enable_x64: true\nprecision: f64", "", F64, F64, 1),
    ];
    for (top, overrides, build, chains, notices) in cases {
        let text = format!("{top}\n{TARGET}samplers: [{{ name: sgld, overrides: {{ {overrides} }} }}]\n");
        let found = read(&text);
        assert_eq!(found.targets[0].spec.dtype, build, "{text}");
        assert_eq!(found.runs[0].sampler.dtype, chains, "{text}");
        assert_eq!(found.notices.len(), notices, "{text}: {:?}", found.notices);
    }
}

#[test]
fn the_nearest_posterior_key_wins() {
    // (top, target, sampler) → (fixed, beta0, gamma, prior_radius)
    type Posterior = (bool, f64, f64, Option<f64>);
    let cases: [(&str, &str, &str, Posterior); 9] = [
        ("", "", "", (false, 1.0, 1.0, None)),
        ("posterior: { gamma: 2, beta0: 3 }", "", "", (false, 3.0, 2.0, None)),
        ("posterior: { gamma: 2, beta0: 3 }", "gamma: 4", "", (false, 3.0, 4.0, None)),
        (
            "posterior: { gamma: 2 }",
            "posterior: { gamma: 4 }",
            "overrides: { gamma: 5 }",
            (false, 1.0, 5.0, None),
        ),
        ("", "posterior: { beta_mode: fixed, beta0: 7 }", "beta0: 8", (true, 8.0, 1.0, None)),
        ("", "", "posterior: { beta_mode: fixed }, overrides: { beta0: 9 }", (true, 9.0, 1.0, None)),
        ("posterior: { prior_radius: 2 }", "", "", (false, 1.0, 1.0, Some(2.0))),
        ("posterior: { prior_radius: 2 }", "gamma: 3", "", (false, 1.0, 3.0, None)),
        ("posterior: { gamma: 6 }", "prior_radius: 3", "prior_radius: null", (false, 1.0, 6.0, None)),
    ];
    for (top, target, sampler, (fixed, beta0, gamma, prior_radius)) in cases {
        let text = format!(
            "{top}\ntargets: [{{ model: small, data: small, {target} }}]\nsamplers: [{{ name: hmc, {sampler} }}]\n"
        );
        let beta_mode = if fixed { BetaMode::Fixed } else { BetaMode::OneOverLogN };
        let expected = PosteriorSpec { beta_mode, beta0, gamma, prior_radius, ..PosteriorSpec::default() };
        assert_eq!(read(&text).runs[0].posterior, expected, "{text}");
    }
}

#[test]
fn the_loss_is_the_targets() {
    let t = |student_df, noise_scale| Loss::TRegression { student_df, noise_scale };
    let cases = [
        ("", "", Loss::Mse),
        ("posterior: { loss: t_regression }", "", t(4.0, 0.1)),
        ("loss: t_regression", "loss: mse", Loss::Mse),
        ("", "loss: t_regression, overrides: { data.noise_scale: 0.3 }", t(4.0, 0.3)),
        ("student_df: 7", "posterior: { loss: t_regression, noise_scale: 2 }", t(7.0, 2.0)),
    ];
    for (top, target, loss) in cases {
        let text = format!("{top}\ntargets: [{{ model: small, data: small, {target} }}]\n{HMC}");
        assert_eq!(mlp(&read(&text).targets[0]).loss, loss, "{text}");
    }
}

#[test]
fn every_kind_of_target_has_its_defaults() {
    let problem =
        |entry: &str| read(&format!("targets: [{{ {entry} }}]\n{HMC}")).targets[0].spec.problem.clone();
    let dln = Dln { widths: vec![4, 2, 3], rank: 1, point: Point::Minimal, whiten: true, n_data: 1000 };
    assert_eq!(problem("problem: dln, widths: [4, 2, 3], rank: 1"), Problem::Dln(dln));
    let quadratic = Quadratic { eigenvalues: vec![1.0; 3], offset: vec![0.0; 3], n_data: 1000 };
    assert_eq!(problem("problem: quadratic, quad_dim: 3"), Problem::Quadratic(quadratic));
    let quadratic = Quadratic { eigenvalues: vec![0.0, 2.0], offset: vec![0.5, -1.0], n_data: 10 };
    let entry = "problem: quadratic, eigenvalues: [0, 2], offset: [0.5, -1], n_data: 10";
    assert_eq!(problem(entry), Problem::Quadratic(quadratic));
    let crossing = NormalCrossing { exponents: vec![1, 2], n_data: 1000 };
    assert_eq!(problem("problem: normal_crossing, exponents: [1, 2]"), Problem::NormalCrossing(crossing));
    let external = External {
        data: "d.npz".into(),
        params: "p.npz".into(),
        activation: Activation::Relu,
        loss: Loss::Mse,
    };
    assert_eq!(problem("problem: external, data: d.npz, params: p.npz"), Problem::External(external));
}

#[test]
fn data_kinds_take_their_own_keys() {
    let data = |keys: &str| {
        let text = format!("targets: [{{ model: small, data: {{ n_data: 10, {keys} }} }}]\n{HMC}");
        let data = mlp(&read(&text).targets[0]).data.clone();
        (data.x, data.noise)
    };
    let cases = [
        ("x_dist: gauss_aniso, x_condition: 20", Inputs::GaussAniso { condition: 20.0 }),
        ("x_dist: mixture, components: 3, spread: 1", Inputs::Mixture { components: 3, spread: 1.0 }),
        ("x_dist: lowdim_manifold, latent_dim: 4", Inputs::LowdimManifold { dim: 4 }),
        ("x_dist: heavy_tail, x_df: 3", Inputs::HeavyTail { df: 3.0 }),
    ];
    for (keys, x) in cases {
        assert_eq!(data(keys), (x, Noise::Gauss), "{keys}");
    }
    let cases = [
        ("noise_model: hetero", Noise::Hetero),
        ("noise_model: student_t, noise_df: 3", Noise::StudentT { df: 3.0 }),
        (
            "noise_model: outliers, outlier_fraction: 0.1, outlier_scale: 5",
            Noise::Outliers { fraction: 0.1, scale: 5.0 },
        ),
    ];
    for (keys, noise) in cases {
        assert_eq!(data(keys), (Inputs::GaussIso, noise), "{keys}");
    }
}

#[test]
fn networks_are_given_or_inferred_whichever_is_nearer() {
    let hidden = |model: &str, overrides: &str| {
        let text = format!(
            "targets: [{{ model: {model}, data: small, overrides: {{ model: {{ {overrides} }} }} }}]\n{HMC}"
        );
        mlp(&read(&text).targets[0]).model.clone()
    };
    assert_eq!(hidden("small", "widths: [7, 3]").hidden, [7, 3]);
    assert_eq!(hidden("small", "widths: []").hidden, [0; 0]);
    assert_eq!(hidden("{ in_dim: 4, widths: [7] }", "target_params: 50").hidden, [4, 4]);
    assert_eq!(hidden("small", "depth: 1, target_params: 61").hidden, [10]);
    assert_eq!(hidden("small", "skip_connections: true").residual_period, Some(2));
    assert_eq!(hidden("small", "skip_connections: true, residual_period: 1").residual_period, Some(1));
}

#[test]
fn a_directory_of_presets_adds_and_wins() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("model/tiny.yaml", "in_dim: 1\nwidths: [2]\n");
    write("data/small.yaml", "n_data: 7\n");
    write("sampler/hmc.yaml", "draws: 11\ndtype: f32\n");
    write("teacher/bad.yaml", "depth: 2\ntarget_parms: 50\n");
    let options = LoadOptions { presets: Some(dir.path().into()), ..LoadOptions::default() };
    let text = format!("targets: [{{ model: tiny, data: small }}]\n{HMC}");
    let found = parse(&text, "dev.yaml", &options).unwrap();
    assert_eq!(
        (mlp(&found.targets[0]).model.hidden.as_slice(), mlp(&found.targets[0]).data.n_data),
        ([2].as_slice(), 7)
    );
    let sampler = &found.runs[0].sampler;
    assert!(matches!(&sampler.algo, Algo::Hmc(hmc) if hmc.draws == 11 && hmc.warmup == 200));
    assert_eq!(sampler.dtype, Dtype::F32);

    let text = format!(
        "targets: [{{ model: tiny, data: small, teacher: bad }}, {{ model: tini, data: base }}]\n{HMC}"
    );
    let errors = parse(&text, "dev.yaml", &options).unwrap_err().to_string();
    let bad = dir.path().join("teacher/bad.yaml").display().to_string();
    assert!(
        errors.contains(&format!("{bad}:2:1: target_parms: unknown key; did you mean target_params?")),
        "{errors}"
    );
    assert!(errors.contains("did you mean tiny? (there are: base, small, tiny, wide)"), "{errors}");

    let options = LoadOptions { presets: Some(dir.path().join("nowhere")), ..LoadOptions::default() };
    let errors = parse(&text, "dev.yaml", &options).unwrap_err().to_string();
    assert!(errors.contains("nowhere: cannot read it: not a directory"), "{errors}");
}

#[test]
fn names_come_from_the_option_the_key_or_the_file() {
    let name = |key: &str, option: Option<&str>, file: &str| {
        let options = LoadOptions { experiment: option.map(str::to_owned), ..LoadOptions::default() };
        parse(&format!("{key}\n{TARGET}{HMC}"), file, &options).map(|e| e.name).map_err(|e| e.to_string())
    };
    assert_eq!(name("", None, "config/night.yaml"), Ok("night".to_owned()));
    assert_eq!(name("experiment: a", None, "config/night.yaml"), Ok("a".to_owned()));
    assert_eq!(name("experiment: a", Some("b"), "night.yaml"), Ok("b".to_owned()));
    let error = name("experiment: a", Some("b/c"), "night.yaml").unwrap_err();
    assert!(error.starts_with("--experiment b/c: experiment: expected a name"), "{error}");
    let error = name("", None, "my night.yaml").unwrap_err();
    assert!(error.contains("set the key `experiment`"), "{error}");
}

#[test]
fn paths_start_at_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.yaml");
    let text =
        format!("store_root: out\ntargets: [{{ problem: external, data: a/d.npz, params: /p.npz }}]\n{HMC}");
    fs::write(&file, text).unwrap();
    let paths = |set: &[&str]| {
        let set = set.iter().map(|s| (*s).to_owned()).collect();
        let found = load(&file, &LoadOptions { set, ..LoadOptions::default() }).unwrap();
        assert_eq!(found.root, Some(PathBuf::from("out")));
        assert_eq!(found.notices.len(), 1);
        match found.targets[0].spec.problem.clone() {
            Problem::External(external) => (external.data, external.params),
            other => panic!("not external: {other:?}"),
        }
    };
    assert_eq!(paths(&[]), (dir.path().join("a/d.npz"), PathBuf::from("/p.npz")));
    // What is typed at the terminal starts where the user is.
    assert_eq!(paths(&["targets.0.data=b.npz"]).0, PathBuf::from("b.npz"));
}

#[test]
fn the_checked_in_schema_is_this_programs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/schema.json");
    let text = serde_json::to_string_pretty(&json_schema()).unwrap() + "\n";
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, &text).unwrap();
    }
    assert!(fs::read_to_string(&path).unwrap() == text, "rewrite config/schema.json with UPDATE_EXPECT=1");
}

#[test]
fn every_key_is_documented_once_in_its_section() {
    let keys = keys();
    assert!(keys.iter().all(|k| !k.doc.is_empty() && !k.expected.is_empty()));
    let mut names: Vec<(&str, &str)> = keys.iter().map(|k| (k.section, k.name)).collect();
    names.sort_unstable();
    let before = names.len();
    names.dedup();
    assert_eq!(names.len(), before);
    let step = keys.iter().find(|k| (k.section, k.name) == ("sgld_overrides", "step_size")).unwrap();
    assert_eq!((step.expected.as_str(), step.default.as_deref()), ("a number > 0, or auto", Some("auto")));
}

#[test]
fn embedded_presets_hold_the_tables_defaults() {
    // A preset that a user's directory replaces in part falls back on the tables: they must agree.
    let experiment = |presets: Option<PathBuf>| {
        let options = LoadOptions { presets, ..LoadOptions::default() };
        let samplers: String = sampler_names().map(|name| format!("  - {{ name: {name} }}\n")).collect();
        let text = format!("precision: f64\n{TARGET}samplers:\n{samplers}");
        parse(&text, "dev.yaml", &options).unwrap()
    };
    let dir = tempfile::tempdir().unwrap();
    let samplers = sampler_names().map(|name| (format!("sampler/{name}.yaml"), "{}"));
    let parts = [
        ("data/small.yaml".to_owned(), "n_data: 100"),
        ("model/small.yaml".to_owned(), "in_dim: 4\ntarget_params: 50"),
    ];
    for (name, text) in samplers.chain(parts) {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    assert_eq!(experiment(Some(dir.path().into())), experiment(None));
}

mod hostile {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

        /// No text panics; what is refused is refused with at least one error.
        #[test]
        fn damaged_files_are_read_or_refused(
            cuts in proptest::collection::vec((0usize..1200, 0usize..12, "[\\[\\]{}:,&*#\"'|>~.0-9a-z \n-]{0,6}"), 1..4),
        ) {
            let mut text: Vec<char> = include_str!("../../config/quickstart.yaml").chars().collect();
            for (at, length, new) in cuts {
                let at = at.min(text.len());
                let end = (at + length).min(text.len());
                text.splice(at..end, new.chars());
            }
            let text: String = text.into_iter().collect();
            if let Err(errors) = parse(&text, "dev.yaml", &LoadOptions::default()) {
                prop_assert!(!errors.0.is_empty());
            }
        }
    }
}

#[test]
fn execution_is_read_and_enters_no_id() {
    let file = |more: &str| {
        format!("targets: [{{ problem: quadratic, quad_dim: 2 }}]\nsamplers: [{{ name: hmc }}]\n{more}")
    };
    let plain = read(&file(""));
    let given =
        read(&file("execution: { checkpoint_every: 0.5, retries: 3, unit_timeout: 0, checkpoint_dir: /x }"));
    assert_eq!(plain.execution, Execution::default());
    let Execution { checkpoint_every, checkpoint_dir, retries, unit_timeout } = &given.execution;
    assert_eq!((*checkpoint_every, *retries, *unit_timeout), (Some(0.5), Some(3), Some(0.0)));
    assert_eq!(checkpoint_dir.as_deref(), Some(Path::new("/x")));
    assert_eq!((plain.targets, plain.runs), (given.targets, given.runs));
}
