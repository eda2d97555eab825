//! Settings of every sampler, for tests that only vary a few.
#![allow(dead_code)]

use lambda_hat::config::{
    Approximation, FactorFamily, FlowType, Hmc, Integrator, LatentFlow, Mala, Mclmc, Mfa, Nuts, Precond,
    Sghmc, Sgld, Sgnht, Vi, Whitening,
};

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

/// Settings of vi as in the preset, with the approximation given.
pub fn vi(approximation: Approximation) -> Vi {
    Vi {
        draws: 1000,
        steps: 5000,
        batch_size: 256,
        lr: 0.01,
        lr_schedule: None,
        lr_warmup_frac: 0.05,
        clip_global_norm: Some(5.0),
        eval_every: 50,
        eval_samples: 64,
        whitening_mode: Whitening::None,
        whitening_decay: 0.99,
        approximation,
    }
}

/// A mixture of `components` components of `rank` factors.
pub fn mfa(family: FactorFamily, components: usize, rank: usize) -> Vi {
    vi(Approximation::Mfa(Mfa {
        components: Some(components),
        rank: Some(rank),
        r_per_component: None,
        family,
        alpha_temperature: 1.0,
        alpha_dirichlet_prior: None,
        entropy_bonus: 0.0,
    }))
}

/// A flow of `flow_depth` layers.
pub fn flow(flow_type: FlowType, d_latent: usize, flow_depth: usize) -> Vi {
    vi(Approximation::Flow(LatentFlow {
        d_latent,
        sigma_perp: None,
        flow_depth,
        flow_hidden: vec![16, 16],
        flow_type,
    }))
}

/// Short runs of every approximation of vi, on minibatches of 40 rows.
pub fn vis(steps: u64, draws: usize) -> Vec<Vi> {
    let mut all = vec![mfa(FactorFamily::Covariance, 2, 2), mfa(FactorFamily::Precision, 3, 1)];
    all.extend([FlowType::Realnvp, FlowType::Maf, FlowType::NsfAr].map(|kind| flow(kind, 3, 2)));
    all[0].whitening_mode = Whitening::Rmsprop;
    all[1].whitening_mode = Whitening::Adam;
    let short = |vi| Vi { steps, draws, batch_size: 40, eval_every: 7, eval_samples: 8, lr: 1e-3, ..vi };
    all.into_iter().map(short).collect()
}
