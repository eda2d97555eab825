//! The samplers' settings: the presets', longer where a posterior is singular.

use lambda_hat::config::{LoadOptions, SamplerSpec, parse};

/// How much is asked of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// One run, of at most 2 minutes.
    Long,
    /// The same with scales a million apart: mala has to learn them from steps as small as the smallest.
    Wide,
    /// The same on thousands of parameters.
    Heavy,
    /// One of hundreds.
    Short,
    /// The same where curvatures lie a factor of 1000 and more apart, so that steps are small beside
    /// the softest mode.
    Stiff,
}

impl Effort {
    /// What a single run on so many parameters may cost.
    pub fn of(dim: usize) -> Self {
        if dim > 1000 { Effort::Heavy } else { Effort::Long }
    }
}

/// Every sampler, by its name and the overrides of its preset.
pub fn samplers(effort: Effort) -> Vec<SamplerSpec> {
    let overrides: &[(&str, &str)] = match effort {
        Effort::Long | Effort::Wide => &[
            ("hmc", "draws: 10000, warmup: 1000, num_integration_steps: 20, target_acceptance: 0.95"),
            ("nuts", "draws: 4000, warmup: 1000, target_acceptance: 0.95"),
            ("mala", "draws: 6000, warmup: 6000, thin: 50"),
            ("mclmc", "draws: 20000, num_steps: 5000"),
            ("sgld", "steps: 2000000, warmup: 100000, batch_size: 16"),
            ("sghmc", "steps: 1000000, warmup: 50000, eval_every: 50, batch_size: 16"),
            ("sgnht", "steps: 1000000, warmup: 50000, eval_every: 50, batch_size: 16"),
            ("vi", "draws: 4000, batch_size: 16"),
        ],
        Effort::Heavy => &[
            ("hmc", "draws: 1000, warmup: 500"),
            ("nuts", "draws: 500, warmup: 500"),
            ("mala", "draws: 2000, warmup: 1000, thin: 10"),
            ("mclmc", "draws: 2000, num_steps: 5000"),
            ("sgld", "steps: 100000, warmup: 10000, batch_size: 64"),
            ("sghmc", "steps: 100000, warmup: 10000, eval_every: 50, batch_size: 64"),
            ("sgnht", "steps: 100000, warmup: 10000, eval_every: 50, batch_size: 64"),
            ("vi", "draws: 500, steps: 1000, M: 1, batch_size: 64"),
        ],
        Effort::Short => &[
            ("hmc", "draws: 500, warmup: 500"),
            ("nuts", "draws: 500, warmup: 500"),
            ("mala", "draws: 500, warmup: 500, thin: 10"),
            ("mclmc", "draws: 500"),
            ("sgld", "steps: 30000, warmup: 3000, eval_every: 30, batch_size: 64"),
            ("sghmc", "steps: 20000, warmup: 2000, eval_every: 20, batch_size: 64"),
            ("sgnht", "steps: 20000, warmup: 2000, eval_every: 20, batch_size: 64"),
            ("vi", "draws: 500, steps: 500, M: 1, r: 10, batch_size: 64"),
        ],
        Effort::Stiff => &[
            ("hmc", "draws: 500, warmup: 500"),
            ("nuts", "draws: 500, warmup: 500"),
            ("mala", "draws: 500, warmup: 500, thin: 10"),
            ("mclmc", "draws: 500"),
            ("sgld", "steps: 2000000, warmup: 200000, eval_every: 2000"),
            ("sghmc", "steps: 400000, warmup: 40000, eval_every: 400"),
            ("sgnht", "steps: 400000, warmup: 40000, eval_every: 400"),
            ("vi", "draws: 500, steps: 500, M: 1, r: 10"),
        ],
    };
    let mala = |name: &str| effort == Effort::Wide && name == "mala";
    let of = |&(name, overrides): &(&'static str, &'static str)| {
        sampler(name, if mala(name) { "draws: 6000, warmup: 20000, thin: 50" } else { overrides })
    };
    overrides.iter().map(of).collect()
}

/// MCLMC at several energy variances, by which they are named; the preset's is the last.
pub fn energy_variances() -> Vec<(&'static str, SamplerSpec)> {
    let spec = |variance| {
        let keys = format!("draws: 20000, num_steps: 5000, adjusted: false, desired_energy_var: {variance}");
        (variance, sampler("mclmc", &keys))
    };
    ["5e-3", "5e-4", "5e-5"].map(spec).into()
}

/// What stands in where there is no formula: NUTS at a small step.
pub fn reference() -> SamplerSpec {
    sampler("nuts", "draws: 2000, warmup: 1000, target_acceptance: 0.98")
}

fn sampler(name: &str, overrides: &str) -> SamplerSpec {
    let text = format!(
        "precision: f64\ntargets: [{{ problem: quadratic, quad_dim: 2 }}]\nsamplers: [{{ name: {name}, overrides: {{ {overrides} }} }}]\n"
    );
    let experiment = parse(&text, name, &LoadOptions::default()).expect("a valid entry");
    experiment.runs[0].sampler.clone()
}
