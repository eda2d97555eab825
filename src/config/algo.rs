//! What a sampler entry means: kernels and their settings. Part of the hashed format, as
//! everything in [`spec`](mod@super::spec).

use serde::{Deserialize, Serialize};

use super::spec::Dtype;
use super::vi::Vi;

/// One sampler with its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SamplerSpec {
    /// Kernel and its settings.
    pub algo: Algo,
    /// Seed (default 12345).
    pub seed: u64,
    /// Chains, ≥ 1.
    pub chains: usize,
    /// Arithmetic of the chains.
    pub dtype: Dtype,
}

/// The samplers there are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algo {
    /// Hamiltonian Monte Carlo.
    Hmc(Hmc),
    /// The no-U-turn sampler.
    Nuts(Nuts),
    /// Metropolis-adjusted Langevin.
    Mala(Mala),
    /// Microcanonical Langevin.
    Mclmc(Mclmc),
    /// Stochastic-gradient Langevin dynamics.
    Sgld(Sgld),
    /// Stochastic-gradient Hamiltonian Monte Carlo.
    Sghmc(Sghmc),
    /// The stochastic-gradient Nosé–Hoover thermostat.
    Sgnht(Sgnht),
    /// Variational inference.
    Vi(Vi),
}

impl Algo {
    /// The name used in files, ids and messages.
    pub fn name(&self) -> &'static str {
        match self {
            Algo::Hmc(_) => "hmc",
            Algo::Nuts(_) => "nuts",
            Algo::Mala(_) => "mala",
            Algo::Mclmc(_) => "mclmc",
            Algo::Sgld(_) => "sgld",
            Algo::Sghmc(_) => "sghmc",
            Algo::Sgnht(_) => "sgnht",
            Algo::Vi(_) => "vi",
        }
    }

    /// Raised when the numbers of this sampler change; part of the id.
    pub fn revision(&self) -> u32 {
        match self {
            Algo::Hmc(_)
            | Algo::Nuts(_)
            | Algo::Mala(_)
            | Algo::Sgld(_)
            | Algo::Sghmc(_)
            | Algo::Sgnht(_)
            | Algo::Vi(_) => 2,
            Algo::Mclmc(_) => 3,
        }
    }

    /// The key that says how long a chain is: more of it continues a run.
    pub fn length_key(&self) -> &'static str {
        match self {
            Algo::Hmc(_) | Algo::Nuts(_) | Algo::Mala(_) | Algo::Mclmc(_) | Algo::Vi(_) => "draws",
            Algo::Sgld(_) | Algo::Sghmc(_) | Algo::Sgnht(_) => "steps",
        }
    }
}

/// Settings of HMC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hmc {
    /// Kept draws a chain, ≥ 1.
    pub draws: usize,
    /// Iterations of the shared warmup.
    pub warmup: usize,
    /// Mean number of leapfrog steps an iteration, ≥ 1.
    pub num_integration_steps: usize,
    /// Starting value of the step-size adaptation (the step itself when `warmup` is 0), > 0.
    pub step_size: f64,
    /// Mean acceptance that dual averaging aims at, in (0, 1).
    pub target_acceptance: f64,
}

/// Settings of NUTS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Nuts {
    /// Kept draws a chain, ≥ 1.
    pub draws: usize,
    /// Iterations of the shared warmup.
    pub warmup: usize,
    /// Starting value of the step-size adaptation (the step itself when `warmup` is 0), > 0.
    pub step_size: f64,
    /// Mean acceptance that dual averaging aims at, in (0, 1).
    pub target_acceptance: f64,
    /// A trajectory has at most 2 to this power − 1 leapfrog steps.
    pub max_tree_depth: usize,
}

/// Settings of MALA.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mala {
    /// Kept draws a chain, ≥ 1.
    pub draws: usize,
    /// Iterations of the shared warmup.
    pub warmup: usize,
    /// Steps a kept draw, ≥ 1.
    pub thin: usize,
    /// ε of the proposal w − (ε/2)∇U + √ε ξ; `None`: adapted with the metric.
    pub step_size: Option<f64>,
    /// Mean acceptance that dual averaging aims at, in (0, 1).
    pub target_acceptance: f64,
}

/// Settings of MCLMC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mclmc {
    /// Kept draws a chain, ≥ 1.
    pub draws: usize,
    /// Steps a kept draw; `None`: half of L/ε.
    pub thin: Option<usize>,
    /// Distance over which the direction of the momentum is forgotten, > 0; `None`: √d at first.
    #[serde(rename = "L")]
    pub l: Option<f64>,
    /// Length of a step, > 0.
    pub step_size: f64,
    /// What the three `frac_tune` are fractions of; 0: nothing is adapted.
    pub num_steps: usize,
    /// Steps that adapt the step size to `desired_energy_var`.
    pub frac_tune1: f64,
    /// Steps that go on with it and measure the coordinates' variances.
    pub frac_tune2: f64,
    /// Steps that measure the autocorrelation, which gives L.
    pub frac_tune3: f64,
    /// Variance of the energy error a step and dimension that the step size aims at, > 0.
    pub desired_energy_var: f64,
    /// How broadly energy errors are averaged, > 0.
    pub trust_in_estimate: f64,
    /// Memory of that average, in steps, > 1.
    pub num_effective_samples: f64,
    /// Scale every coordinate by its standard deviation.
    pub diagonal_preconditioning: bool,
    /// Integrator of the isokinetic dynamics.
    pub integrator: Integrator,
    /// Accept or reject trajectories; `None`: below 10 dimensions.
    pub adjusted: Option<bool>,
    /// Mean acceptance that the adjusted variant aims at, in (0, 1).
    pub target_acceptance: f64,
}

/// Integrators of MCLMC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Integrator {
    /// Two-stage, minimal norm (McLachlan 1995): two gradients a step.
    IsokineticMclachlan,
    /// Velocity Verlet: one gradient a step.
    IsokineticVelocityVerlet,
}

/// Settings of SGLD.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sgld {
    /// Steps a chain, warmup included.
    pub steps: u64,
    /// Steps dropped at the start of each chain, < steps.
    pub warmup: u64,
    /// Rows a gradient, drawn with replacement (may exceed n).
    pub batch_size: usize,
    /// ε of the update w ← w − (ε/2) ∇U + √ε ξ, > 0; `None`: found in warmup.
    pub step_size: Option<f64>,
    /// The full loss is evaluated, and a draw kept, every so many steps.
    pub eval_every: u64,
    /// Preconditioner.
    pub precond: Precond,
    /// Decay of the first moment (adam), 0 ≤ β1 < 1.
    pub beta1: f64,
    /// Decay of the second moment (rmsprop, adam), 0 ≤ β2 < 1.
    pub beta2: f64,
    /// Added to the root of the second moment, > 0.
    pub eps: f64,
    /// Divide the moments by 1 − βᵗ.
    pub bias_correction: bool,
    /// Add the drift that a state-dependent preconditioner calls for (rmsprop).
    pub gamma_term: bool,
    /// Keep the preconditioner of the end of the burn-in from there on (rmsprop).
    pub freeze_precond: bool,
}

/// Preconditioners of SGLD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precond {
    /// Identity.
    None,
    /// Root of the running second moment.
    Rmsprop,
    /// The same, with a running first moment in the drift.
    Adam,
}

/// Settings of SGHMC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sghmc {
    /// Steps a chain, warmup included.
    pub steps: u64,
    /// Steps dropped at the start of each chain, < steps.
    pub warmup: u64,
    /// Rows a gradient, drawn with replacement (may exceed n).
    pub batch_size: usize,
    /// η of the update v ← (1 − α)v − η∇U + √(2αη) ξ, > 0; `None`: found in warmup.
    pub step_size: Option<f64>,
    /// α, in (0, 1].
    pub friction: f64,
    /// The full loss is evaluated, and a draw kept, every so many steps.
    pub eval_every: u64,
}

/// Settings of SGNHT.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sgnht {
    /// Steps a chain, warmup included.
    pub steps: u64,
    /// Steps dropped at the start of each chain, < steps.
    pub warmup: u64,
    /// Rows a gradient, drawn with replacement (may exceed n).
    pub batch_size: usize,
    /// h², h the time of a step, > 0; `None`: found in warmup.
    pub step_size: Option<f64>,
    /// Friction a step, A·h, > 0: what the thermostat starts from and noise is added for.
    pub friction: f64,
    /// The full loss is evaluated, and a draw kept, every so many steps.
    pub eval_every: u64,
}
