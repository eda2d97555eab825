//! Variational inference against closed forms. On a quadratic target the posterior is Gaussian, and so
//! are its best approximations: their ELBO and their λ̂ are known.

#[path = "support/dense.rs"]
mod dense;
#[path = "support/specs.rs"]
mod specs;

use dense::Dense;
use lambda_hat::config::{
    Activation, Approximation, FactorFamily, FlowType, Loss, LrSchedule, Mfa, Network, Vi, Whitening,
};
use lambda_hat::device::Element;
use lambda_hat::diagnostics::adjust;
use lambda_hat::num::rng::{Key, Purpose, fill_normal};
use lambda_hat::resume::Desk;
use lambda_hat::sampler::{
    Adapted, ChainRun, Kernel, Method, Posterior, Role, SamplerError, Scratch, ViKernel,
};
use lambda_hat::stats;
use lambda_hat::target::{
    NetworkPotential, NormalCrossingPotential, Potential, QuadraticPotential, param_count,
};
use specs::{flow, mfa};

/// The chains of a run.
struct Run {
    /// By chain, column, draw.
    chains: Vec<Vec<Vec<f64>>>,
    adapted: Adapted,
    fge: f64,
}

fn start<T: Element>(settings: &Vi, posterior: &Posterior<'_, T>, chains: u32) -> Result<Run, SamplerError> {
    let id = [17; 32];
    let adapted = settings.warmup(posterior, id, &mut Desk::unwatched())?;
    let kernel: ViKernel = settings.kernel(posterior, &adapted, Role::Main);
    let mut fge = adapted.fge;
    let chain = |chain| {
        let mut scratch = Scratch::of(&kernel, posterior);
        let mut row = vec![0.0; settings.layout().len()];
        let mut run = ChainRun::start(&kernel, posterior, &mut scratch)?;
        let key = Key::new(id, Purpose::Chain, chain);
        run.advance(&kernel, posterior, &key, &mut scratch, &mut row, &mut Desk::unwatched())?;
        fge += Kernel::<T>::fge(&kernel, &run.state);
        Ok(run.trace.values)
    };
    let chains = (0..chains).map(chain).collect::<Result<_, SamplerError>>()?;
    Ok(Run { chains, adapted, fge })
}

fn run(settings: &Vi, potential: &dyn Potential<f64>, (nbeta, gamma): (f64, f64)) -> Run {
    let centre = vec![0.0; potential.dim()];
    let posterior = Posterior::new(potential, &centre, nbeta, gamma).expect("finite");
    start(settings, &posterior, 4).expect("runs")
}

/// Mean and its standard error.
type Estimate = (f64, f64);

impl Run {
    fn estimate(&self, of: impl Fn(&[Vec<f64>]) -> Vec<f64>) -> Estimate {
        let all: Vec<Vec<f64>> = self.chains.iter().map(|c| of(c)).collect();
        let slices: Vec<&[f64]> = all.iter().map(Vec::as_slice).collect();
        (stats::mean(&all.concat()), stats::mcse_mean(&slices))
    }

    fn column(&self, i: usize) -> Vec<&[f64]> {
        self.chains.iter().map(|c| c[i].as_slice()).collect()
    }

    fn llc(&self) -> Estimate {
        self.estimate(|c| c[0].clone())
    }

    fn elbo(&self) -> Estimate {
        self.estimate(|c| c[3].iter().zip(&c[2]).map(|(p, q)| p - q).collect())
    }

    /// λ̂ with the control variate taken off, and the share of variance that it removed.
    fn adjusted(&self) -> (Estimate, f64) {
        let adjusted = adjust(&self.column(0), &self.column(4)).expect("varies");
        let slices: Vec<&[f64]> = adjusted.chains.iter().map(Vec::as_slice).collect();
        let estimate = (stats::mean(&adjusted.chains.concat()), stats::mcse_mean(&slices));
        (estimate, adjusted.variance_removed)
    }
}

/// A Gaussian posterior: ln ∫exp(−U) and λ̂ from the eigenvalues of H.
struct Gaussian {
    log_normaliser: f64,
    llc: f64,
    /// Standard deviation of llc.
    sd: f64,
}

fn gaussian(eigenvalues: &[f64], (nbeta, gamma): (f64, f64)) -> Gaussian {
    let two_pi = 2.0 * std::f64::consts::PI;
    let share = |h: &f64| nbeta * h / (nbeta * h + gamma);
    Gaussian {
        log_normaliser: eigenvalues.iter().map(|h| 0.5 * (two_pi / (nbeta * h + gamma)).ln()).sum(),
        llc: 0.5 * eigenvalues.iter().map(share).sum::<f64>(),
        sd: (0.5 * eigenvalues.iter().map(|h| share(h).powi(2)).sum::<f64>()).sqrt(),
    }
}

fn assert_within(what: &str, (mean, mcse): Estimate, exact: f64, allowance: f64) {
    let off = (mean - exact).abs();
    assert!(off <= 4.0 * mcse + allowance, "{what}: {mean} ± {mcse}, exact {exact} (+ {allowance})");
}

/// The ELBO reaches ln ∫exp(−U) to 0.01 nats, never from above, and λ̂ is the posterior's. What is
/// missing in the ELBO is the divergence KL, and to first order E(llc) is off by at most sd(llc)·√(2KL)
/// (Cauchy–Schwarz on the density ratio); without the noise that the control variate takes off, this is
/// all the error there is.
fn assert_reached(what: &str, run: &Run, exact: &Gaussian) {
    let (elbo, error) = run.elbo();
    let gap = exact.log_normaliser - elbo;
    assert!(gap.abs() <= 0.01 + 4.0 * error && gap > -4.0 * error - 1e-9, "{what}: {gap} ± {error}");
    let allowance = exact.sd * (2.0 * (gap + 4.0 * error).max(0.0)).sqrt();
    assert_within(what, run.llc(), exact.llc, 0.0);
    assert_within(what, run.adjusted().0, exact.llc, allowance);
}

/// H = 11ᵀ in 6 dimensions: one stiff direction, five flat ones.
const AT: (f64, f64) = (100.0, 1.0);

fn ones() -> Dense {
    Dense::new(6, vec![1.0; 36])
}

fn ones_exact() -> Gaussian {
    gaussian(&[6.0, 0.0, 0.0, 0.0, 0.0, 0.0], AT)
}

#[test]
fn a_covariance_needs_as_many_factors_as_there_are_flat_directions() {
    for (rank, exact) in [2.970, 2.476, 1.981, 1.487, 0.992, 0.499].into_iter().enumerate() {
        let found = run(&mfa(FactorFamily::Covariance, 1, rank), &ones(), AT);
        // The values above are rounded to 5e-4.
        assert_within(&format!("rank {rank}"), found.llc(), exact, 5e-4);
    }
}

#[test]
fn families_that_contain_the_posterior_find_it() {
    let cases = [
        (FactorFamily::Precision, 1, 1),
        (FactorFamily::Precision, 2, 1),
        (FactorFamily::Precision, 8, 2),
        (FactorFamily::Covariance, 1, 5),
        (FactorFamily::Covariance, 2, 5),
    ];
    for (family, components, rank) in cases {
        let found = run(&mfa(family, components, rank), &ones(), AT);
        assert_reached(&format!("{family:?} M {components} r {rank}"), &found, &ones_exact());
    }
}

#[test]
fn no_setting_of_the_optimiser_moves_the_optimum() {
    let base = mfa(FactorFamily::Precision, 2, 2);
    let cases = [
        Vi { whitening_mode: Whitening::Rmsprop, ..base.clone() },
        Vi { whitening_mode: Whitening::Adam, whitening_decay: 0.9, ..base.clone() },
        Vi { lr_schedule: Some(LrSchedule::Cosine), ..base.clone() },
        Vi { lr_schedule: Some(LrSchedule::LinearDecay), clip_global_norm: None, ..base.clone() },
        Vi { lr_warmup_frac: 0.0, clip_global_norm: Some(0.5), eval_every: 1, ..base },
    ];
    for settings in cases {
        assert_reached(&format!("{settings:?}"), &run(&settings, &ones(), AT), &ones_exact());
    }
}

/// Condition number 1e6 in 100 dimensions, more than the warmup has eigenpairs for.
#[test]
fn scales_from_the_localiser_to_the_stiffest_need_no_tuning() {
    let h: Vec<f64> = (0..100).map(|i| 10f64.powf(-3.0 + 6.0 * f64::from(i) / 99.0)).collect();
    let potential = QuadraticPotential::new(&h);
    for settings in [
        mfa(FactorFamily::Precision, 1, 2),
        mfa(FactorFamily::Precision, 8, 2),
        mfa(FactorFamily::Covariance, 1, 2),
        flow(FlowType::Realnvp, 8, 2),
    ] {
        let what = format!("{:?}", settings.approximation);
        assert_reached(&what, &run(&settings, &potential, AT), &gaussian(&h, AT));
    }
}

#[test]
fn flows_find_the_posterior_and_their_density_is_normalised() {
    for kind in [FlowType::Realnvp, FlowType::Maf, FlowType::NsfAr] {
        let found = run(&flow(kind, 3, 2), &ones(), AT);
        assert_reached(&format!("{kind:?}"), &found, &ones_exact());
        // E_q(posterior/q) = 1, were ln q off by a Jacobian or a constant it would not be.
        let log_z = ones_exact().log_normaliser;
        let ratio = found.estimate(|c| c[3].iter().zip(&c[2]).map(|(p, q)| (p - q - log_z).exp()).collect());
        assert_within(&format!("{kind:?} weights"), ratio, 1.0, 0.0);
    }
}

#[test]
fn a_given_sigma_perp_is_kept() {
    let mut settings = flow(FlowType::Realnvp, 1, 1);
    let Approximation::Flow(flow) = &mut settings.approximation else { unreachable!() };
    // 0.5 in units of 1/√γ in the five flat directions, the stiff one being the flow's.
    flow.sigma_perp = Some(0.5);
    let found = run(&settings, &ones(), AT);
    let square = 0.25f64;
    let exact = ones_exact().log_normaliser - 2.5 * (square - 1.0 - square.ln());
    assert_within("ELBO", found.elbo(), exact, 0.01);
}

#[test]
fn control_variates_have_mean_0_and_remove_the_noise() {
    let singular = NormalCrossingPotential::new(&[1, 1]);
    let dense = ones();
    let cases: [(Vi, &dyn Potential<f64>, f64); 5] = [
        (mfa(FactorFamily::Precision, 2, 1), &dense, 0.9),
        (mfa(FactorFamily::Covariance, 1, 0), &dense, 0.9),
        (mfa(FactorFamily::Covariance, 3, 2), &dense, 0.9),
        // A nonlinear flow of the noise is not followed by the Gaussian part all the way.
        (flow(FlowType::Realnvp, 3, 2), &dense, 0.2),
        // H = 0 at w*: the control variate is 0, and takes nothing off.
        (mfa(FactorFamily::Precision, 2, 1), &singular, 0.0),
    ];
    for (settings, potential, least) in cases {
        let found = run(&settings, potential, AT);
        let control = found.estimate(|c| c[4].clone());
        if least == 0.0 {
            assert_eq!(control.0, 0.0);
            continue;
        }
        let what = format!("{:?}", settings.approximation);
        assert_within(&what, control, 0.0, 0.0);
        let removed = found.adjusted().1;
        assert!(removed > least, "{what}: {removed}");
    }
}

/// No mixture contains the cross of (w1w2)². The ELBO orders them: more components come nearer, and none
/// exceeds ln ∫exp(−U).
#[test]
fn mixtures_come_nearer_to_a_singular_posterior() {
    let potential = NormalCrossingPotential::new(&[1, 1]);
    let elbo = |components| run(&mfa(FactorFamily::Precision, components, 1), &potential, AT).elbo();
    let (one, eight) = (elbo(1), elbo(8));
    assert!(eight.0 - one.0 > 0.4, "{one:?} {eight:?}");
    // By quadrature over one coordinate, the other being Gaussian given it.
    let step = 1e-3;
    let inner = |x: f64| (2.0 * std::f64::consts::PI / (2.0 * AT.0 * x * x + AT.1)).sqrt();
    let integral: f64 = (-20_000..20_000)
        .map(|i| (f64::from(i) + 0.5) * step)
        .map(|x| step * (-0.5 * AT.1 * x * x).exp() * inner(x))
        .sum();
    assert!(eight.0 < integral.ln() + 4.0 * eight.1, "{eight:?} {}", integral.ln());
}

#[test]
fn m_and_r_are_chosen_by_elbo() {
    let auto = |family, components, rank| {
        let mut settings = mfa(family, 1, 1);
        let Approximation::Mfa(mfa) = &mut settings.approximation else { unreachable!() };
        *mfa = Mfa { components, rank, ..mfa.clone() };
        settings
    };
    let chosen = |settings: &Vi, potential: &dyn Potential<f64>| {
        let found = run(settings, potential, AT);
        assert!(found.adapted.fge > 100.0, "it is counted");
        (found.adapted.components, found.adapted.rank)
    };
    // One stiff direction: one factor of a precision, one component.
    assert_eq!(chosen(&auto(FactorFamily::Precision, None, None), &ones()), (Some(1), Some(1)));
    // Of a covariance as many as may be.
    assert_eq!(chosen(&auto(FactorFamily::Covariance, Some(1), None), &ones()), (None, Some(4)));
    let cross = NormalCrossingPotential::new(&[1, 1]);
    let (components, rank) = chosen(&auto(FactorFamily::Precision, None, Some(1)), &cross);
    assert!(components > Some(1) && rank.is_none(), "{components:?}");
}

/// A linear network on exact data: a quadratic loss whose minibatch gradients are noisy everywhere but at
/// w*, in both precisions.
#[test]
fn minibatches_leave_the_optimum_where_it_is() {
    fn check<T: Element>() {
        let network = Network {
            in_dim: 3,
            hidden: vec![],
            out_dim: 1,
            activation: Activation::Identity,
            bias: true,
            layernorm: false,
            residual_period: None,
        };
        let rows = 1000;
        let mut x = vec![T::ZERO; 3 * rows];
        fill_normal(&mut Key::new([2; 32], Purpose::Probe, 0).at(0), &mut x);
        let centre = vec![T::ZERO; param_count(&network)];
        let potential = NetworkPotential::new(&network, &x, &vec![T::ZERO; rows], &Loss::Mse);
        let posterior = Posterior::new(&potential, &centre, AT.0, AT.1).expect("finite");
        for settings in [mfa(FactorFamily::Precision, 2, 2), flow(FlowType::Maf, 4, 2)] {
            let settings = Vi { batch_size: 200, ..settings };
            let found = start(&settings, &posterior, 4).expect("runs");
            let hessian = found.adapted.hessian.clone().expect("measured");
            let exact = gaussian(&hessian.eigenvalues, AT);
            assert_reached(&format!("{} {:?}", T::NAME, settings.approximation), &found, &exact);
            // 8 draws a step of a fifth of the rows, the start, and a third a draw.
            let work = settings.work(rows, centre.len());
            let expected = work.warmup + 4.0 * work.chain;
            assert!((found.fge / expected - 1.0).abs() < 0.01, "{} {expected}", found.fge);
        }
    }
    check::<f32>();
    check::<f64>();
}

/// L = ½ Σ w² + ¼ Σ w⁴ or NaN beyond a radius.
struct Cliff(f64);

impl Potential<f64> for Cliff {
    fn dim(&self) -> usize {
        3
    }
    fn rows(&self) -> usize {
        0
    }
    fn scratch_len(&self) -> usize {
        0
    }
    fn batch_scratch_len(&self, _: usize) -> usize {
        0
    }
    fn loss(&self, w: &[f64], _: &mut [f64]) -> f64 {
        self.loss_grad(w, &mut [0.0; 3], &mut [])
    }
    fn loss_grad(&self, w: &[f64], grad: &mut [f64], _: &mut [f64]) -> f64 {
        grad.iter_mut().zip(w).for_each(|(g, w)| *g = w + w.powi(3));
        if w.iter().any(|w| w.abs() > self.0) {
            return f64::NAN;
        }
        w.iter().map(|w| 0.5 * w * w + 0.25 * w.powi(4)).sum()
    }
    fn batch_loss_grad(&self, w: &[f64], _: &[u32], grad: &mut [f64], _: &mut [f64]) -> f64 {
        self.loss_grad(w, grad, &mut [])
    }
    fn hvp(&self, w: &[f64], v: &[f64], _: Option<&[u32]>, hv: &mut [f64], _: &mut [f64]) {
        hv.iter_mut().zip(w).zip(v).for_each(|((h, w), v)| *h = (1.0 + 3.0 * w * w) * v);
    }
    fn hvp_scratch_len(&self) -> usize {
        0
    }
}

#[test]
fn bad_numbers_end_with_their_reason() {
    let fails = |settings: &Vi, potential: &dyn Potential<f64>| -> String {
        let centre = vec![0.0; potential.dim()];
        let posterior = Posterior::new(potential, &centre, AT.0, AT.1).expect("finite");
        match start(settings, &posterior, 1) {
            Ok(_) => "runs".to_owned(),
            Err(error) => error.to_string(),
        }
    };
    let mixture = mfa(FactorFamily::Covariance, 2, 1);
    let coupled = flow(FlowType::Realnvp, 2, 2);
    // A loss that is NaN a standard deviation away, and one that is NaN right beside w*.
    for settings in [&mixture, &coupled] {
        let text = fails(settings, &Cliff(0.1));
        assert!(text.contains("became NaN") && text.contains("smaller lr"), "{text}");
        let text = fails(settings, &Cliff(0.0));
        assert!(text.contains("not finite anywhere around w*"), "{text}");
    }
    for settings in [mixture, coupled, flow(FlowType::NsfAr, 2, 2), mfa(FactorFamily::Precision, 2, 1)] {
        let text = fails(&Vi { lr: 1e3, ..settings.clone() }, &Cliff(f64::INFINITY));
        assert!(text.contains("broke down at step"), "{:?}: {text}", settings.approximation);
    }
}

/// In 10⁵ dimensions nothing is a matrix: the peak is a number of vectors.
#[test]
fn a_hundred_thousand_dimensions_take_vectors_only() {
    let d = 100_000;
    let h: Vec<f64> = (0..d).map(|i| if i % 1000 == 0 { 10.0 } else { 0.01 }).collect();
    let potential = QuadraticPotential::new(&h);
    let centre = vec![0.0f32; d];
    for settings in [flow(FlowType::Realnvp, 8, 2), mfa(FactorFamily::Precision, 2, 2)] {
        let settings = Vi { steps: 4, draws: 3, eval_samples: 2, ..settings };
        let posterior = Posterior::new(&potential, &centre, 100.0, 1.0).expect("finite");
        let peak = allocation_counter::measure(|| {
            let found = start(&settings, &posterior, 1).expect("runs");
            assert!(found.chains[0].iter().flatten().all(|x| x.is_finite()));
        })
        .bytes_max;
        let vectors = peak as f64 / (8 * d) as f64;
        assert!(vectors < 150.0, "{vectors}");
    }
}
