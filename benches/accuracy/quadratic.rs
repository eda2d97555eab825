//! What a quadratic posterior says of samplers in closed form, and the bars that follow from it.

use lambda_hat::config::{Algo, SamplerSpec};

use crate::cell::Cell;
use crate::rows::Row;

/// Standard errors that a sampler may be off.
const LIMIT: f64 = 4.0;
/// What unadjusted MCLMC may be off besides.
const MCLMC_BIAS: f64 = 0.01;
/// Largest gap between the ELBO and ln Z where the family contains the posterior, in nats.
const GAP: f64 = 0.01;

/// Mean and standard deviation of λ̂ as SGLD without gradient noise estimates it, in finite time.
///
/// Every mode is w ← ρw + √ε·ξ from w = 0, with ρ = 1 − εa/2 and a = nβh + γ: Gaussian with variance
/// v_t = ε(1 − ρ²ᵗ)/(1 − ρ²) and covariance v_s·ρ^(t−s), so that cov(w_s², w_t²) = 2(v_s·ρ^(t−s))².
pub fn sgld(row: &Row, step: f64, (steps, warmup, every): (u64, u64, u64), chains: usize) -> (f64, f64) {
    let (mut mean, mut variance) = (0.0, 0.0);
    for h in &row.eigenvalues {
        let rho = 1.0 - 0.5 * step * (row.nbeta * h + row.gamma);
        let stationary = step / (1.0 - rho * rho);
        let forget = rho.powi(2 * every as i32);
        let (mut sum, mut spread, mut carried, mut draws) = (0.0, 0.0, 0.0, 0.0);
        let mut at = warmup / every + 1;
        while at * every <= steps {
            let v = stationary * (1.0 - rho.powf(2.0 * (at * every) as f64));
            spread += 2.0 * v * v + 4.0 * carried;
            carried = (carried + v * v) * forget;
            sum += v;
            draws += 1.0;
            at += 1;
        }
        let weight = 0.5 * row.nbeta * h / draws;
        mean += weight * sum;
        variance += weight * weight * spread;
    }
    (mean, (variance / chains as f64).sqrt())
}

/// ln ∫ exp(−nβL − γ/2·w²) dw
fn log_normaliser(row: &Row) -> f64 {
    let each = |h: &f64| 0.5 * (2.0 * std::f64::consts::PI).ln() - 0.5 * (row.nbeta * h + row.gamma).ln();
    row.eigenvalues.iter().map(each).sum()
}

/// What of a cell's bar does not hold.
pub fn shortfall(row: &Row, spec: &SamplerSpec, cell: &Cell, exact: f64) -> Option<String> {
    let (Some(mean), Some(mcse)) = (cell.mean, cell.mcse) else {
        return Some(cell.failure.clone().unwrap_or_else(|| "no estimate".into()));
    };
    let within = |of: f64, limit: f64, what: &str| {
        let distance = (mean - of).abs();
        (distance.is_nan() || distance > limit)
            .then(|| format!("{mean:.5} is not {of:.5} ± {limit:.5}: {what}"))
    };
    match &spec.algo {
        Algo::Hmc(_) | Algo::Nuts(_) | Algo::Mala(_) => within(exact, LIMIT * mcse, "4 MCSE"),
        Algo::Mclmc(_) if row.centre.len() < 10 => within(exact, LIMIT * mcse, "4 MCSE, adjusted"),
        Algo::Mclmc(_) => within(exact, LIMIT * mcse + MCLMC_BIAS * exact, "4 MCSE + 1 %"),
        Algo::Sgld(s) => {
            let lengths = (s.steps, s.warmup, s.eval_every);
            let (of, sd) = sgld(row, cell.step_size?, lengths, spec.chains);
            within(of, LIMIT * sd, "4 sd of the closed form with its step")
        }
        Algo::Vi(_) => {
            let gap = log_normaliser(row) - cell.elbo?;
            if gap.abs() <= GAP {
                within(exact, LIMIT * mcse, "4 MCSE")
            } else {
                Some(format!("ELBO {gap:.4} nats below ln Z"))
            }
        }
        // Reported, not judged: what their steps do to quadratics is proved in tests/sampler_exact.rs.
        Algo::Sghmc(_) | Algo::Sgnht(_) => None,
    }
}
