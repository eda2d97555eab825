//! Samplers against exact values. Tolerances are 4 Monte-Carlo standard errors of the chain itself.

#[path = "support/potentials.rs"]
mod potentials;

use std::sync::atomic::{AtomicUsize, Ordering};

use lambda_hat::config::{Algo, Dtype, Hmc, Precond, SamplerSpec, Sgld};
use lambda_hat::sampler::{Flow, Posterior, Role, run_chain, warmup};
use lambda_hat::stats;
use lambda_hat::target::Potential;
use potentials::{crossing, cusp, quadratic, quartic, two_layers};

/// λ̂ and its MCSE from all chains of a run.
fn estimate(
    spec: &SamplerSpec,
    potential: &dyn Potential<f64>,
    (nbeta, gamma): (f64, f64),
    id: [u8; 32],
    role: Role,
) -> (f64, f64) {
    let centre = vec![0.0; potential.dim()];
    estimate_at(spec, potential, &centre, (nbeta, gamma), id, role)
}

fn estimate_at(
    spec: &SamplerSpec,
    potential: &dyn Potential<f64>,
    centre: &[f64],
    (nbeta, gamma): (f64, f64),
    id: [u8; 32],
    role: Role,
) -> (f64, f64) {
    let posterior = Posterior::new(potential, centre, nbeta, gamma).expect("finite at the centre");
    let adapted = warmup(spec, &posterior, id).expect("adapts");
    let llc: Vec<Vec<f64>> = (0..spec.chains as u32)
        .map(|chain| {
            let outcome = run_chain(spec, &posterior, &adapted, id, chain, role, &mut |_| Flow::Continue);
            outcome.expect("runs").trace.values.swap_remove(0)
        })
        .collect();
    let chains: Vec<&[f64]> = llc.iter().map(Vec::as_slice).collect();
    (stats::mean(&llc.concat()), stats::mcse_mean(&chains))
}

fn hmc(draws: usize, target_acceptance: f64) -> SamplerSpec {
    // Trajectories of 20 steps on average: with 10 the chains wander along the arms of singular
    // posteriors for so long that their MCSE is too small by half (no bias: the mean over many
    // seeds, four times the draws and half the step agree with the exact value).
    let hmc = Hmc { draws, warmup: 1000, num_integration_steps: 20, step_size: 0.01, target_acceptance };
    SamplerSpec { algo: Algo::Hmc(hmc), seed: 1, chains: 4, dtype: Dtype::F64 }
}

fn sgld(steps: u64, step_size: f64, precond: Precond, beta2: f64) -> SamplerSpec {
    let sgld = Sgld {
        steps,
        warmup: steps / 10,
        batch_size: 1,
        step_size,
        eval_every: 1,
        precond,
        beta1: 0.9,
        beta2,
        eps: 1e-8,
        bias_correction: true,
    };
    SamplerSpec { algo: Algo::Sgld(sgld), seed: 1, chains: 4, dtype: Dtype::F64 }
}

fn seed(byte: u8) -> [u8; 32] {
    [byte; 32]
}

/// Runs the cases on two threads and collects what went wrong.
fn all<C: Sync>(cases: &[C], check: impl Fn(&C) -> Result<(), String> + Sync) {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut wrong = Vec::new();
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            wrong.extend(check(case).err());
        }
        wrong
    };
    let wrong: Vec<String> = std::thread::scope(|s| {
        let other = s.spawn(work);
        let mut wrong = work();
        wrong.extend(other.join().expect("no panic"));
        wrong
    });
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

fn within(what: &str, (mean, mcse): (f64, f64), exact: f64) -> Result<(), String> {
    let z = (mean - exact) / mcse;
    if z.abs() <= 4.0 {
        Ok(())
    } else {
        Err(format!("{what}: {mean} ± {mcse}, exact {exact}: {z:.1} MCSE off"))
    }
}

#[test]
fn hmc_is_exact_on_quadratics() {
    let mut cases = Vec::new();
    for h in [vec![0.0, 3.0], vec![1.0; 10], vec![0.0, 0.01, 0.1, 1.0, 10.0, 100.0, 5.0, 7.0, 0.3, 0.0]] {
        for (nbeta, gamma) in [(10.0, 1.0), (1000.0, 10.0), (100.0, 0.01)] {
            for offset in [0.0, 0.3] {
                cases.push((h.clone(), nbeta, gamma, offset));
            }
        }
    }
    all(&cases, |(h, nbeta, gamma, offset)| {
        let centre = vec![*offset; h.len()];
        let exact: f64 = h
            .iter()
            .map(|h| {
                let a = nbeta * h + gamma;
                0.5 * nbeta * h / a - 0.5 * nbeta * h * offset * offset * (1.0 - gamma * gamma / (a * a))
            })
            .sum();
        let potential = quadratic(h);
        let got =
            estimate_at(&hmc(2000, 0.9), potential.as_ref(), &centre, (*nbeta, *gamma), seed(3), Role::Main);
        within(&format!("{h:?} nβ {nbeta} γ {gamma} offset {offset}"), got, exact)
    });
}

#[test]
fn sgld_has_the_stationary_law_of_its_step_size_on_quadratics() {
    let mut cases = Vec::new();
    for (h, nbeta, gamma) in
        [(vec![1.0, 3.0], 10.0, 1.0), (vec![0.5; 10], 100.0, 10.0), (vec![0.0, 2.0], 50.0, 1.0)]
    {
        for largest in [0.05, 0.4, 1.2] {
            cases.push((h.clone(), nbeta, gamma, largest));
        }
    }
    all(&cases, |(h, nbeta, gamma, largest)| {
        let curvature: Vec<f64> = h.iter().map(|h| nbeta * h + gamma).collect();
        let step = largest / curvature.iter().copied().fold(0.0, f64::max);
        let exact: f64 =
            h.iter().zip(&curvature).map(|(h, a)| 0.5 * nbeta * h / a / (1.0 - 0.25 * step * a)).sum();
        let potential = quadratic(h);
        let spec = sgld(100_000, step, Precond::None, 0.999);
        let got = estimate(&spec, potential.as_ref(), (*nbeta, *gamma), seed(4), Role::Main);
        within(&format!("{h:?} nβ {nbeta} γ {gamma} εa {largest}"), got, exact)
    });
}

/// With the full gradient, β2 = 0 and bias correction the preconditioner is 1/|g|: no closed form.
/// What is known is the limit of small steps at fixed β2 (twice the truth on axis-aligned quadratics).
#[test]
fn rmsprop_and_adam_show_the_known_bias_of_small_steps() {
    let (h, nbeta, gamma) = ([1.0; 4], 100.0, 1.0);
    let truth = 0.5 * 4.0 * 100.0 / 101.0;
    for precond in [Precond::Rmsprop, Precond::Adam] {
        let potential = quadratic(&h);
        // √V̂ ≈ |g| ≈ 0.1: a relaxation time of 1/(ε a/(2·0.1)) = 200 steps, 20 times that of V at β2 = 0.9.
        let spec = sgld(2_000_000, 1e-5, precond, 0.9);
        let (mean, mcse) = estimate(&spec, potential.as_ref(), (nbeta, gamma), seed(5), Role::Main);
        let ratio = mean / truth;
        assert!(ratio > 1.8 && ratio < 2.1, "{precond:?}: {mean} ± {mcse} is {ratio} of {truth}");
    }
}

/// A row of finite_n.csv: its text, potential, nβ, γ and exact λ̂.
type Row = (String, Box<dyn Potential<f64>>, f64, f64, f64);

fn finite_rows() -> Vec<Row> {
    let text = include_str!("data/exact/finite_n.csv");
    let mut rows: Vec<Row> = Vec::new();
    for line in text.lines().skip(1) {
        // The first field may be quoted and hold commas.
        let (name, rest) = match line.strip_prefix('"') {
            Some(quoted) => quoted.split_once("\",").expect("a closing quote"),
            None => line.split_once(',').expect("fields"),
        };
        let fields: Vec<&str> = rest.split(',').collect();
        let number = |i: usize| fields[i].parse::<f64>().expect("a number");
        let (nbeta, gamma, exact) = (number(2), number(3), number(4));
        let potential: Box<dyn Potential<f64>> = if name.starts_with("L=1/2 sum") {
            quadratic(&[0.0, 0.01, 0.1, 1.0, 10.0, 100.0])
        } else if name == "L=(w1*w2)^2" {
            crossing()
        } else if name == "L=(x^2-y^3)^2" {
            cusp()
        } else if name == "L=w^4" {
            quartic()
        } else {
            let shape = name.strip_prefix("DLN ").and_then(|n| n.split(',').next()).expect("a shape");
            let w: Vec<usize> = shape.split('-').map(|w| w.parse().expect("a width")).collect();
            two_layers(w[0], w[1], w[2])
        };
        assert_eq!(potential.dim() as f64, number(0), "{name}");
        rows.push((format!("{name} nβ {nbeta} γ {gamma}"), potential, nbeta, gamma, exact));
    }
    assert_eq!(rows.len(), 46);
    rows
}

#[test]
fn hmc_measures_the_exact_finite_n_value_of_singular_potentials() {
    let rows: Vec<Row> = finite_rows().into_iter().filter(|row| row.2 <= 1e4).collect();
    let cases: Vec<(&Row, u8)> = rows.iter().flat_map(|row| [11, 12, 13].map(|s| (row, s))).collect();
    all(&cases, |((name, potential, nbeta, gamma, exact), s)| {
        let got = estimate(&hmc(10_000, 0.95), potential.as_ref(), (*nbeta, *gamma), seed(*s), Role::Main);
        within(&format!("{name} seed {s}"), got, *exact)
    });
}
