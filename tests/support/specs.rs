//! Settings of every sampler, for tests that only vary a few.
#![allow(dead_code)]

use lambda_hat::config::{Hmc, Integrator, Mala, Mclmc, Nuts, Precond, Sghmc, Sgld, Sgnht};

pub fn hmc(draws: usize) -> Hmc {
    Hmc { draws, warmup: 0, num_integration_steps: 4, step_size: 0.05, target_acceptance: 0.9 }
}

pub fn nuts(draws: usize) -> Nuts {
    Nuts { draws, warmup: 0, step_size: 0.05, target_acceptance: 0.9, max_tree_depth: 5 }
}

pub fn mala(draws: usize) -> Mala {
    Mala { draws, warmup: 0, thin: 3, step_size: Some(1e-3), target_acceptance: 0.9 }
}

/// The preset, but for draws and steps a draw.
pub fn mclmc(draws: usize, adjusted: Option<bool>) -> Mclmc {
    Mclmc {
        draws,
        thin: Some(3),
        l: Some(1.0),
        step_size: 0.1,
        num_steps: 500,
        frac_tune1: 0.1,
        frac_tune2: 0.1,
        frac_tune3: 0.1,
        desired_energy_var: 5e-5,
        trust_in_estimate: 1.0,
        num_effective_samples: 150.0,
        diagonal_preconditioning: false,
        integrator: Integrator::IsokineticMclachlan,
        adjusted,
        target_acceptance: 0.9,
    }
}

pub fn sgld(steps: u64, precond: Precond) -> Sgld {
    Sgld {
        steps,
        warmup: steps / 10,
        batch_size: 40,
        step_size: Some(1e-3),
        eval_every: 3,
        precond,
        beta1: 0.9,
        beta2: 0.99,
        eps: 1e-8,
        bias_correction: true,
        gamma_term: false,
        freeze_precond: false,
    }
}

/// The ways in which sgld can be preconditioned.
pub fn sglds(steps: u64) -> Vec<Sgld> {
    let rmsprop = sgld(steps, Precond::Rmsprop);
    vec![
        sgld(steps, Precond::None),
        sgld(steps, Precond::Adam),
        Sgld { gamma_term: true, ..rmsprop.clone() },
        Sgld { freeze_precond: true, ..rmsprop.clone() },
        rmsprop,
    ]
}

pub fn sghmc(steps: u64) -> Sghmc {
    Sghmc { steps, warmup: steps / 10, batch_size: 40, step_size: Some(1e-3), friction: 0.1, eval_every: 3 }
}

pub fn sgnht(steps: u64) -> Sgnht {
    Sgnht { steps, warmup: steps / 10, batch_size: 40, step_size: Some(1e-3), friction: 0.1, eval_every: 3 }
}
