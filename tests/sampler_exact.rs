//! Samplers against exact values. Tolerances are 4 Monte-Carlo standard errors of the chain itself.

#[path = "support/potentials.rs"]
mod potentials;
#[path = "support/specs.rs"]
mod specs;

use std::sync::atomic::{AtomicUsize, Ordering};

use lambda_hat::config::{Algo, Dtype, Hmc, Mala, Mclmc, Nuts, Precond, SamplerSpec, Sghmc, Sgld, Sgnht};
use lambda_hat::device::Element;
use lambda_hat::num::Real;
use lambda_hat::num::rng::{Key, Purpose, fill_normal};
use lambda_hat::resume::Desk;
use lambda_hat::sampler::{Adapted, ChainRun, Kernel, Method, Posterior, Role, Scratch, run_chain, warmup};
use lambda_hat::stats;
use lambda_hat::target::Potential;
use potentials::{FiniteRow, finite_rows, quadratic};

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

fn estimate_at<T: Element>(
    spec: &SamplerSpec,
    potential: &dyn Potential<T>,
    centre: &[T],
    (nbeta, gamma): (f64, f64),
    id: [u8; 32],
    role: Role,
) -> (f64, f64) {
    let posterior = Posterior::new(potential, centre, nbeta, gamma).expect("finite at the centre");
    let adapted = warmup(spec, &posterior, id, &mut Desk::unwatched()).expect("adapts");
    let llc: Vec<Vec<f64>> = (0..spec.chains as u32)
        .map(|chain| {
            let outcome = run_chain(spec, &posterior, &adapted, id, chain, role, &mut Desk::unwatched());
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
    four_chains(Algo::Hmc(hmc))
}

fn four_chains(algo: Algo) -> SamplerSpec {
    SamplerSpec { algo, seed: 1, chains: 4, dtype: Dtype::F64 }
}

/// Every sampler that accepts or rejects, with `draws` draws.
fn exact_samplers(draws: usize, target_acceptance: f64) -> Vec<SamplerSpec> {
    let nuts =
        Nuts { warmup: 1000, step_size: 0.01, target_acceptance, max_tree_depth: 10, ..specs::nuts(draws) };
    let mala = Mala { warmup: 2000, thin: 20, step_size: None, target_acceptance, ..specs::mala(draws) };
    let mclmc = Mclmc {
        num_steps: 5000,
        diagonal_preconditioning: true,
        target_acceptance,
        ..specs::mclmc(draws, Some(true))
    };
    vec![
        hmc(draws, target_acceptance),
        four_chains(Algo::Nuts(nuts)),
        four_chains(Algo::Mala(mala)),
        four_chains(Algo::Mclmc(mclmc)),
    ]
}

fn sgld(steps: u64, step_size: f64, precond: Precond, beta2: f64) -> SamplerSpec {
    let sgld = Sgld {
        steps,
        warmup: steps / 10,
        batch_size: 1,
        step_size: Some(step_size),
        eval_every: 1,
        precond,
        beta1: 0.9,
        beta2,
        eps: 1e-8,
        bias_correction: true,
        gamma_term: false,
        freeze_precond: false,
    };
    four_chains(Algo::Sgld(sgld))
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
fn samplers_that_accept_or_reject_are_exact_on_quadratics() {
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
        for spec in exact_samplers(2000, 0.9) {
            let got = estimate_at(&spec, potential.as_ref(), &centre, (*nbeta, *gamma), seed(3), Role::Main);
            let name = spec.algo.name();
            within(&format!("{name} {h:?} nβ {nbeta} γ {gamma} offset {offset}"), got, exact)?;
        }
        Ok(())
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

/// One parameter, rows at ±spread with a parabola each: the full loss has curvature h and its
/// minimum at 0, and a batch of b rows a gradient of variance h²·spread²/b.
struct Rows {
    h: f64,
    spread: f64,
    half: usize,
}

impl<T: Real> Potential<T> for Rows {
    fn dim(&self) -> usize {
        1
    }
    fn rows(&self) -> usize {
        2 * self.half
    }
    fn scratch_len(&self) -> usize {
        0
    }
    fn batch_scratch_len(&self, _: usize) -> usize {
        0
    }
    fn hvp(&self, _: &[T], v: &[T], _: Option<&[u32]>, hv: &mut [T], _: &mut [T]) {
        hv[0] = T::from_f64(self.h * v[0].to_f64());
    }
    fn hvp_scratch_len(&self) -> usize {
        0
    }
    fn loss(&self, w: &[T], _: &mut [T]) -> f64 {
        0.5 * self.h * (w[0].to_f64().powi(2) + self.spread.powi(2))
    }
    fn loss_grad(&self, w: &[T], grad: &mut [T], scratch: &mut [T]) -> f64 {
        grad[0] = T::from_f64(self.h * w[0].to_f64());
        self.loss(w, scratch)
    }
    fn batch_loss_grad(&self, w: &[T], rows: &[u32], grad: &mut [T], scratch: &mut [T]) -> f64 {
        let above = rows.iter().filter(|&&r| (r as usize) < self.half).count() as f64;
        let mean = self.spread * (2.0 * above / rows.len() as f64 - 1.0);
        grad[0] = T::from_f64(self.h * (w[0].to_f64() - mean));
        self.loss(w, scratch)
    }
}

/// The AR(2) law of SGHMC with gradient noise, and SGNHT's: its friction takes the noise up, and the
/// rest is exact at every stable step.
#[test]
fn momentum_samplers_have_their_stationary_laws() {
    let (h, nbeta, gamma, batch) = (2.0, 200.0, 5.0, 8);
    let a: f64 = nbeta * h + gamma;
    let cases: Vec<(f64, f64, f64)> = [0.0, 0.1]
        .into_iter()
        .flat_map(|spread| [(0.1, 0.1), (0.5, 0.3), (1.0, 0.2)].map(|(ea, alpha)| (spread, ea, alpha)))
        .collect();
    all(&cases, |&(spread, ea, friction)| {
        let step = ea / a;
        let noise = (nbeta * h * spread).powi(2) / batch as f64;
        let rows = Rows { h, spread, half: 10 };
        let (steps, warmup, step_size) = (400_000, 40_000, Some(step));
        let sghmc = Sghmc { steps, warmup, batch_size: batch, step_size, friction, eval_every: 3 };
        let exact =
            0.5 * nbeta * h / a * (1.0 + 0.5 * step * noise / friction) / (1.0 - 0.5 * ea / (2.0 - friction));
        let spec = four_chains(Algo::Sghmc(sghmc));
        let got = estimate_at(&spec, &rows, &[0.0], (nbeta, gamma), seed(6), Role::Main);
        within(&format!("sghmc spread {spread} ηa {ea} α {friction}"), got, exact)?;
        let sgnht = Sgnht { steps, warmup, batch_size: batch, step_size, friction, eval_every: 3 };
        let spec = four_chains(Algo::Sgnht(sgnht));
        let got = estimate_at(&spec, &rows, &[0.0], (nbeta, gamma), seed(7), Role::Main);
        if spread == 0.0 {
            within(&format!("sgnht h²a {ea} A·h {friction}"), got, 0.5 * nbeta * h / a)?;
        }
        Ok(())
    });
}

/// `step_size: auto`: the bias that is predicted is the bias that is there.
#[test]
fn chosen_steps_leave_the_bias_that_they_predict() {
    let h = [0.0, 0.3, 1.0, 5.0, 5.0, 20.0];
    let (nbeta, gamma) = (100.0, 1.0);
    let exact: f64 = h.iter().map(|h| 0.5 * nbeta * h / (nbeta * h + gamma)).sum();
    let steps = 400_000;
    let specs = [
        Algo::Sgld(Sgld { step_size: None, ..specs::sgld(steps, Precond::None) }),
        Algo::Sghmc(Sghmc { step_size: None, ..specs::sghmc(steps) }),
        Algo::Sgnht(Sgnht { step_size: None, ..specs::sgnht(steps) }),
    ];
    all(&specs, |algo| {
        let spec = four_chains(algo.clone());
        let potential = quadratic(&h);
        let centre = [0.0; 6];
        let posterior = Posterior::new(potential.as_ref(), &centre, nbeta, gamma).expect("finite");
        let adapted = warmup(&spec, &posterior, seed(8), &mut Desk::unwatched()).expect("calibrates");
        let (bias, bound) = (adapted.bias.expect("predicted"), adapted.bias_bound.expect("bounded"));
        let name = algo.name();
        if !(bound <= 0.030_001 && bias / exact <= bound && adapted.mala_acceptance >= Some(0.9)) {
            return Err(format!("{name}: {adapted:?}"));
        }
        let got = estimate(&spec, potential.as_ref(), (nbeta, gamma), seed(8), Role::Main);
        // The prediction is of first order in the step; the second is the square of the bound.
        let second = exact * bound * bound;
        within(name, (got.0, got.1.hypot(second / 4.0)), exact + bias)
    });
}

/// In many dimensions the preset's criterion leaves less than 1 %, and less the smaller it is.
#[test]
fn unadjusted_mclmc_is_near_the_truth_in_many_dimensions() {
    let cases: Vec<(usize, f64)> = [(10, 1.0), (100, 100.0), (1000, 1.0)].into();
    all(&cases, |&(d, condition)| {
        let h: Vec<f64> = (0..d).map(|i| libm::pow(condition, -(i as f64) / d as f64)).collect();
        let (nbeta, gamma) = (1000.0, 1.0);
        let exact: f64 = h.iter().map(|h| 0.5 * nbeta * h / (nbeta * h + gamma)).sum();
        let spec = four_chains(Algo::Mclmc(Mclmc { thin: None, ..specs::mclmc(4000, Some(false)) }));
        let (mean, mcse) = estimate(&spec, quadratic(&h).as_ref(), (nbeta, gamma), seed(9), Role::Main);
        if (mean - exact).abs() <= 4.0 * mcse + 0.01 * exact {
            Ok(())
        } else {
            Err(format!("d {d} condition {condition}: {mean} ± {mcse}, exact {exact}"))
        }
    });
}

/// A few stiff modes among many soft ones: what the energy errors of all say little about.
#[test]
fn adaptation_of_mclmc_keeps_stiff_modes_in_bounds() {
    let cases: Vec<(usize, f64, f64)> =
        [(2, 100.0, 5e-5), (2, 1e4, 5e-5), (1, 1e6, 5e-5), (4, 100.0, 5e-2), (1, 1e4, 5e-1)].into();
    all(&cases, |&(stiff, condition, wanted)| {
        let d = 200;
        let h: Vec<f64> = (0..d).map(|i| if i < stiff { 1.0 } else { 1.0 / condition }).collect();
        let (nbeta, gamma) = (1e6, 1.0);
        let (potential, centre) = (quadratic(&h), vec![0.0; d]);
        let posterior =
            Posterior::new(potential.as_ref(), &centre, nbeta, gamma).map_err(|e| e.to_string())?;
        let draws = 4000;
        let mclmc = Mclmc { thin: Some(1), desired_energy_var: wanted, ..specs::mclmc(draws, Some(false)) };
        let spec = four_chains(Algo::Mclmc(mclmc));
        let adapted =
            warmup(&spec, &posterior, seed(12), &mut Desk::unwatched()).map_err(|e| e.to_string())?;
        let of = format!("{stiff} stiff of condition {condition}, wanted {wanted}");
        let bound = adapted.bias_bound.unwrap_or(f64::NAN);
        if bound.is_nan() || bound > 0.1 {
            return Err(format!("{of}: a mode is off by {bound}"));
        }
        let run = run_chain(&spec, &posterior, &adapted, seed(12), 0, Role::Main, &mut Desk::unwatched());
        let values = run.map_err(|e| e.to_string())?.trace.values;
        let squares: Vec<f64> = values[3].iter().map(|e| e * e / (d as f64 * wanted)).collect();
        let (mean, error) = (stats::mean(&squares), stats::mcse_mean(&[&squares]));
        if mean <= 2.0 + 4.0 * error {
            Ok(())
        } else {
            Err(format!("{of}: energy errors of {mean} ± {error} times the wanted variance"))
        }
    });
}

/// One mode: llc is ½nβh·w², so that its mean tells the stationary variance.
#[test]
fn sgld_has_the_stationary_variance_of_minibatch_noise() {
    fn check<T: Element>(spread: f64, quarter: f64) -> Result<(), String> {
        let (h, nbeta, gamma, batch) = (2.0, 200.0, 5.0, 8);
        let a = nbeta * h + gamma;
        let step = 4.0 * quarter / a;
        let noise = h * h * spread * spread / batch as f64;
        let exact =
            0.5 * nbeta * h * (1.0 + 0.25 * step * nbeta * nbeta * noise) / (a * (1.0 - 0.25 * step * a));
        let mut spec = sgld(400_000, step, Precond::None, 0.999);
        if let Algo::Sgld(s) = &mut spec.algo {
            (s.batch_size, s.eval_every) = (batch, 3);
        }
        let rows = Rows { h, spread, half: 10 };
        let got = estimate_at(&spec, &rows, &[T::ZERO], (nbeta, gamma), seed(6), Role::Main);
        within(&format!("{} spread {spread} εa/4 {quarter}", T::NAME), got, exact)
    }
    all(&[(0.0, 0.2), (0.1, 0.05), (0.3, 0.01), (0.3, 0.2)], |&(spread, quarter)| {
        check::<f64>(spread, quarter)?;
        check::<f32>(spread, quarter)
    });
}

/// Without its divergence term, a step of ε/(|g| + eps) has density (|g| + eps)·exp(−U) as ε → 0
/// (β2 = 0: V is the present g²). In units of the posterior's standard deviation σ, with
/// c = eps/(hσ): E w² = (2 + c√(π/2))/(1 + c√(π/2)), twice the truth for small eps.
#[test]
fn rmsprop_has_the_law_that_its_missing_divergence_term_leaves() {
    let (h, nbeta, gamma) = (1.0, 100.0, 1e-3);
    let a: f64 = nbeta * h + gamma;
    let sigma = 1.0 / a.sqrt();
    let cases: Vec<(Precond, f64)> =
        [Precond::Rmsprop, Precond::Adam].into_iter().flat_map(|p| [0.2, 0.5, 3.0].map(|c| (p, c))).collect();
    all(&cases, |&(precond, c)| {
        // ε_t·a, the relative change a step, is at most 1/250.
        let mut spec = sgld(2_000_000, 0.004 * c * h * sigma / a, precond, 0.0);
        if let Algo::Sgld(s) = &mut spec.algo {
            (s.beta1, s.eps, s.eval_every) = (0.0, c * h * sigma, 100);
        }
        let share = c * (std::f64::consts::PI / 2.0).sqrt();
        let exact = 0.5 * nbeta * h / a * (2.0 + share) / (1.0 + share);
        let potential = quadratic(&[h]);
        let got = estimate(&spec, potential.as_ref(), (nbeta, gamma), seed(5), Role::Main);
        within(&format!("{precond:?} c {c}"), got, exact)
    });
}

/// With the drift that a moving preconditioner calls for, and with one that has stopped moving, the
/// law is the posterior's.
#[test]
fn corrected_rmsprop_has_the_posterior_law() {
    let (h, nbeta, gamma) = (1.0, 100.0, 1e-3);
    let a: f64 = nbeta * h + gamma;
    let sigma = 1.0 / a.sqrt();
    let cases: Vec<(f64, f64)> =
        [0.0, 0.9].into_iter().flat_map(|beta2| [0.5, 3.0].map(|c| (beta2, c))).collect();
    all(&cases, |&(beta2, c)| {
        let mut spec = sgld(2_000_000, 0.004 * c * h * sigma / a, Precond::Rmsprop, beta2);
        if let Algo::Sgld(s) = &mut spec.algo {
            (s.eps, s.eval_every, s.gamma_term) = (c * h * sigma, 100, true);
        }
        let potential = quadratic(&[h]);
        let got = estimate(&spec, potential.as_ref(), (nbeta, gamma), seed(5), Role::Main);
        within(&format!("gamma_term β2 {beta2} c {c}"), got, 0.5 * nbeta * h / a)
    });
}

#[test]
fn samplers_measure_the_exact_finite_n_value_of_singular_potentials() {
    let rows: Vec<FiniteRow> = finite_rows().into_iter().filter(|row| row.nbeta <= 1e4).collect();
    let cases: Vec<(&FiniteRow, u8)> = rows.iter().flat_map(|row| [11, 12, 13].map(|s| (row, s))).collect();
    all(&cases, |(row, s)| {
        let spec = hmc(10_000, 0.95);
        let got = estimate(&spec, row.potential.as_ref(), (row.nbeta, row.gamma), seed(*s), Role::Main);
        within(&format!("{} seed {s}", row.name), got, row.exact)
    });
}

/// Detailed balance, seen from outside: started from the posterior itself, one iteration of a
/// reversible kernel leaves (before, after) exchangeable. Without a localiser the centre is only where
/// the chain starts, so that every repetition starts from a draw of its own.
#[test]
fn kernels_that_accept_or_reject_are_reversible() {
    fn joint<M: Method>(method: &M, adapted: &Adapted) -> Vec<(f64, f64)> {
        let (h, nbeta) = ([0.5, 2.0, 10.0], 8.0);
        let potential = quadratic(&h);
        let mut pairs = Vec::new();
        for repetition in 0..40_000 {
            let mut centre = [0.0; 3];
            fill_normal(&mut Key::new([1; 32], Purpose::Centre, 0).at(repetition), &mut centre);
            centre.iter_mut().zip(h).for_each(|(w, h)| *w /= f64::sqrt(nbeta * h));
            let posterior = Posterior::new(potential.as_ref(), &centre, nbeta, 0.0).expect("finite");
            let kernel = method.kernel::<f64>(&posterior, adapted, Role::Main);
            let (mut scratch, mut row) = (Scratch::of(&kernel, &posterior), vec![0.0; kernel.layout().len()]);
            let mut run = ChainRun::start(&kernel, &posterior, &mut scratch).expect("starts");
            let key = Key::new([2; 32], Purpose::Chain, 0);
            // Each repetition takes random numbers of its own: another iteration of the same stream.
            run.iteration = repetition;
            kernel.step(&posterior, &mut run.state, repetition, &key, &mut scratch, &mut row).expect("steps");
            pairs.push((nbeta * posterior.l0(), nbeta * row[1]));
        }
        pairs
    }
    let adapted = Adapted {
        step_size: 0.25,
        inverse_mass: vec![1.0, 0.3, 0.1],
        length: Some(1.0),
        ..Adapted::default()
    };
    let kernels = [
        ("hmc", joint(&specs::hmc(1), &adapted)),
        ("nuts", joint(&specs::nuts(1), &adapted)),
        ("mala", joint(&Mala { thin: 1, ..specs::mala(1) }, &adapted)),
        ("mclmc", joint(&specs::mclmc(1, Some(true)), &adapted)),
    ];
    for (name, pairs) in kernels {
        let n = pairs.len() as f64;
        let moved = pairs.iter().filter(|(a, b)| a != b).count() as f64 / n;
        assert!(moved > 0.3, "{name} moves in {moved} of the repetitions");
        // U is half a χ² of 3 degrees: mean and variance 3/2. Antisymmetric functions have mean 0.
        type Test = (&'static str, fn(f64, f64) -> f64);
        let tests: [Test; 4] = [
            ("mean", |_, b| b - 1.5),
            ("variance", |_, b| (b - 1.5) * (b - 1.5) - 1.5),
            ("a²b − ab²", |a, b| a * a * b - a * b * b),
            ("e⁻ᵃ b − a e⁻ᵇ", |a, b| (-a).exp() * b - a * (-b).exp()),
        ];
        for (what, f) in tests {
            let values: Vec<f64> = pairs.iter().map(|&(a, b)| f(a, b)).collect();
            let z = stats::mean(&values) / (stats::sd(&values) / n.sqrt());
            assert!(z.abs() < 4.0, "{name}: {what} is {z:.1} standard errors off");
        }
    }
}
