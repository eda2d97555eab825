//! The posteriors whose λ̂ is known, or computed once by a long independent run.

use lambda_hat::config::{Dln, Dtype, Loss, NormalCrossing, Point, Problem, TargetSpec, run_id, target_id};
use lambda_hat::num::rng::{Key, Purpose, fill_normal};
use lambda_hat::target::{NetworkPotential, Potential, build};

use crate::potentials::{finite_rows, quadratic};
use crate::settings::Effort;

/// What a row's λ̂ is compared with.
pub enum Truth {
    /// A closed form or quadrature.
    Known(f64),
    /// NUTS at half its step, run by the benchmark itself.
    LongRun,
}

/// One posterior.
pub struct Row {
    pub name: String,
    pub potential: Box<dyn Potential<f64>>,
    pub centre: Vec<f64>,
    pub nbeta: f64,
    pub gamma: f64,
    pub truth: Truth,
    /// Exact samplers get a control chain, as in a sweep.
    pub singular: bool,
    /// h of a quadratic, else empty.
    pub eigenvalues: Vec<f64>,
    /// How long chains are, where it does not follow from the part.
    pub effort: Option<Effort>,
}

impl Row {
    fn stiff(self) -> Self {
        Row { effort: Some(Effort::Stiff), ..self }
    }
}

fn quadratic_row(name: String, h: &[f64], nbeta: f64, gamma: f64) -> Row {
    let exact = h.iter().map(|h| 0.5 * nbeta * h / (nbeta * h + gamma)).sum();
    let centre = vec![0.0; h.len()];
    Row {
        name,
        potential: quadratic(h),
        centre,
        nbeta,
        gamma,
        truth: Truth::Known(exact),
        singular: false,
        eigenvalues: h.to_vec(),
        effort: None,
    }
}

/// Eigenvalues from 1 down to 1/condition, in equal ratios.
fn spectrum(d: usize, condition: f64) -> Vec<f64> {
    (0..d).map(|i| condition.powf(-(i as f64) / (d.max(2) - 1) as f64)).collect()
}

/// d 2 to 1000, condition numbers 1 to 10⁶, γ small and large.
pub fn quadratics() -> Vec<Row> {
    let mut rows = Vec::new();
    for d in [2, 10, 100, 1000] {
        for condition in [1.0, 1e3, 1e6] {
            for gamma in [0.01, 100.0] {
                let name = format!("quadratic d {d} condition {condition:.0e} γ {gamma}");
                rows.push(quadratic_row(name, &spectrum(d, condition), 1e4, gamma));
            }
        }
    }
    rows
}

/// finite_n.csv but for its quadratics, normal crossings, and deep linear networks.
pub fn singular() -> Vec<Row> {
    let mut rows: Vec<Row> = finite_rows()
        .into_iter()
        .filter(|row| !row.name.starts_with("L=1/2 sum"))
        .map(|row| Row {
            name: row.name,
            centre: vec![0.0; row.potential.dim()],
            potential: row.potential,
            nbeta: row.nbeta,
            gamma: row.gamma,
            truth: Truth::Known(row.exact),
            singular: true,
            eigenvalues: Vec::new(),
            effort: None,
        })
        .collect();
    for exponents in [vec![2, 1], vec![1, 1, 1], vec![2, 2]] {
        rows.push(target(Problem::NormalCrossing(NormalCrossing { exponents, n_data: 1000 })));
    }
    for (widths, rank) in [
        (vec![5, 2, 3], 0),
        (vec![5, 3, 5], 0),
        (vec![5, 3, 5], 2),
        (vec![10, 5, 10], 2),
        (vec![4, 4, 4, 4], 1),
        (vec![12, 12, 12], 4),
        (vec![100, 2, 80], 0),
        (vec![100, 100], 10),
    ] {
        // Inputs with XᵀX = n·I exactly: a few rows say all there is to say.
        let n_data = 2 * widths[0];
        rows.push(target(Problem::Dln(Dln { widths, rank, point: Point::Minimal, whiten: true, n_data })));
    }
    rows
}

/// A target as a sweep builds it, at the nβ of 1000 rows and γ = 1.
fn target(problem: Problem) -> Row {
    let name = match &problem {
        Problem::Dln(d) => format!("DLN {:?} rank {}", d.widths, d.rank),
        Problem::NormalCrossing(c) => format!("normal crossing {:?}", c.exponents),
        other => other.name().to_owned(),
    };
    let spec = TargetSpec { problem, seed: 42, dtype: Dtype::F64 };
    let built = build(&spec, target_id(&spec, &[]).0, None).expect("a target");
    let (nbeta, gamma) = (1000.0 / f64::ln(1000.0), 1.0);
    let truth = built.exact.llc(nbeta, gamma).map_or(Truth::LongRun, Truth::Known);
    let (potential, centre) = (built.potential(), built.w_star);
    Row {
        name,
        potential,
        centre,
        nbeta,
        gamma,
        truth,
        singular: true,
        eigenvalues: Vec::new(),
        effort: None,
    }
}

/// Where the bias of unadjusted MCLMC is seen to fall with the energy variance it is told to keep.
pub fn energy_variance() -> Vec<Row> {
    let row =
        |d: usize| quadratic_row(format!("quadratic d {d} condition 1e1 γ 1"), &spectrum(d, 10.0), 1e4, 1.0);
    [10, 100].map(row).into()
}

/// Eight regular posteriors, three of them with rows, and so with noise in minibatch gradients.
pub fn regular() -> Vec<Row> {
    let half_flat: Vec<f64> = (0..20).map(|i| if i < 10 { 0.0 } else { 1.0 + f64::from(i) }).collect();
    vec![
        quadratic_row("quadratic d 2".into(), &[1.0, 10.0], 1000.0, 1.0),
        quadratic_row("quadratic d 6 of finite_n".into(), &[0.0, 0.01, 0.1, 1.0, 10.0, 100.0], 100.0, 1.0)
            .stiff(),
        quadratic_row("quadratic d 10 condition 1000".into(), &spectrum(10, 1e3), 1e5, 1.0).stiff(),
        quadratic_row("quadratic d 20 half flat".into(), &half_flat, 100.0, 1.0),
        quadratic_row("quadratic d 50".into(), &[1.0; 50], 1000.0, 10.0),
        regression(5, 1, 200, 0.3),
        regression(20, 1, 500, 0.3),
        regression(7, 5, 300, 0.0),
    ]
}

/// Linear regression with XᵀX = n·I and noise orthogonal to the columns of X, so that w* is the
/// minimum and L = ‖w − w*‖²/outputs + const.
fn regression(inputs: usize, outputs: usize, n: usize, noise: f64) -> Row {
    let widths = vec![inputs, outputs];
    let dln = Dln { widths, rank: outputs.min(inputs), point: Point::Minimal, whiten: true, n_data: n };
    let spec = TargetSpec { problem: Problem::Dln(dln), seed: 7, dtype: Dtype::F64 };
    let built = build(&spec, target_id(&spec, &[]).0, None).expect("a target");
    let (x, mut y) = (built.x.clone(), built.y.clone());
    for out in 0..outputs {
        let mut e = vec![0.0; n];
        fill_normal(&mut Key::new([5; 32], Purpose::Noise, out as u32).at(0), &mut e);
        for j in 0..inputs {
            let along: f64 = (0..n).map(|r| x[r * inputs + j] * e[r]).sum::<f64>() / n as f64;
            (0..n).for_each(|r| e[r] -= along * x[r * inputs + j]);
        }
        (0..n).for_each(|r| y[r * outputs + out] += noise * e[r]);
    }
    let network = built.network.as_ref().expect("a network");
    let potential = NetworkPotential::new(network, &x, &y, &Loss::Mse);
    let (nbeta, gamma) = (n as f64 / (n as f64).ln(), 1.0);
    let curvature = 2.0 * nbeta / outputs as f64;
    let exact = 0.5 * (inputs * outputs) as f64 * curvature / (curvature + gamma);
    Row {
        name: format!("regression {inputs}-{outputs} n {n} noise {noise}"),
        potential: Box::new(potential),
        centre: built.w_star,
        nbeta,
        gamma,
        truth: Truth::Known(exact),
        singular: false,
        eigenvalues: Vec::new(),
        effort: None,
    }
}

/// Keys the random numbers of a cell.
pub fn cell_id(row: &Row, sampler: &lambda_hat::config::SamplerSpec, repetition: u64) -> [u8; 32] {
    let spec = lambda_hat::config::SamplerSpec { seed: repetition, ..sampler.clone() };
    let posterior = lambda_hat::config::PosteriorSpec {
        beta_mode: lambda_hat::config::BetaMode::Fixed,
        beta0: row.nbeta,
        gamma: row.gamma,
        ..lambda_hat::config::PosteriorSpec::default()
    };
    let name = lambda_hat::config::Id(*blake3::hash(row.name.as_bytes()).as_bytes());
    run_id(&name, &spec, &posterior, None).0
}
