//! Data of teacher–student problems: inputs, a teacher's outputs, noise.
//!
//! Every row has its own streams: row i of X comes from (id, Inputs, chain 0, i), its dropout mask
//! from (id, Teacher, chain 1, i), its noise from (id, Noise, chain 0, i). What all rows share (the
//! mixture's means, the manifold's basis) comes from (id, Inputs, chain 1, 0), parameters of layer l
//! from iteration l of (id, Teacher or Init, chain 0).

use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StudentT};

use super::error::TargetError;
use super::layout::{layers, param_count};
use super::matrix::random_orthonormal;
use super::reference::Reference;
use crate::config::{Dtype, Init, Inputs, Network, Noise};
use crate::num::Real;
use crate::num::rng::{Key, Purpose, fill_normal, index, uniform};

/// Standard deviation of the noise around a low-dimensional manifold.
const MANIFOLD_NOISE: f64 = 0.01;

/// Rounds values to the precision of a build.
pub fn round_to(dtype: Dtype, values: &mut [f64]) {
    if dtype == Dtype::F32 {
        values.iter_mut().for_each(|v| *v = f64::from(*v as f32));
    }
}

/// Random parameters: normal weights of the variance that `init` says, biases and layer
/// normalisation's shifts 0, its scales 1.
pub fn initial_parameters(network: &Network, init: Init, id: [u8; 32], purpose: Purpose) -> Vec<f64> {
    let key = Key::new(id, purpose, 0);
    let mut w = vec![0.0; param_count(network)];
    for (l, layer) in layers(network).iter().enumerate() {
        let (fan_in, fan_out) = (layer.inputs as f64, layer.outputs as f64);
        let variance = match init {
            Init::He => 2.0 / fan_in,
            Init::Xavier => 2.0 / (fan_in + fan_out),
            Init::Lecun => 1.0 / fan_in,
        };
        let weights = &mut w[layer.weight..][..layer.outputs * layer.inputs];
        fill_normal(&mut key.at(l as u64), weights);
        weights.iter_mut().for_each(|v| *v *= variance.sqrt());
        if let Some(norm) = layer.norm {
            w[norm..][..layer.outputs].fill(1.0);
        }
    }
    w
}

/// X, `rows × in_dim`, row-major.
///
/// # Errors
/// [`TargetError::OutOfRange`] for parameters outside their range.
pub fn draw_inputs(kind: &Inputs, rows: usize, in_dim: usize, id: [u8; 32]) -> Result<Vec<f64>, TargetError> {
    draw_more_inputs(kind, rows, in_dim, id, id)
}

/// Rows of the distribution that `id` has (its mixture's means, its manifold), from the streams of `own`.
///
/// # Errors
/// As [`draw_inputs`].
pub fn draw_more_inputs(
    kind: &Inputs,
    rows: usize,
    in_dim: usize,
    id: [u8; 32],
    own: [u8; 32],
) -> Result<Vec<f64>, TargetError> {
    let sampler = RowSampler::new(kind, in_dim, &mut Key::new(id, Purpose::Inputs, 1).at(0))?;
    let key = Key::new(own, Purpose::Inputs, 0);
    let mut x = vec![0.0; rows * in_dim];
    for (i, row) in x.chunks_exact_mut(in_dim).enumerate() {
        sampler.fill(&mut key.at(i as u64), row);
    }
    Ok(x)
}

/// A distribution of rows with what all rows share.
enum RowSampler {
    Gauss,
    /// Standard deviation of each coordinate.
    Scaled(Vec<f64>),
    /// Means, one row a component.
    Mixture(Vec<Vec<f64>>),
    /// Columns of A.
    Manifold(Vec<Vec<f64>>),
    /// A t distribution and the factor to unit variance.
    StudentT(StudentT<f64>, f64),
}

impl RowSampler {
    fn new(kind: &Inputs, in_dim: usize, rng: &mut ChaCha8Rng) -> Result<Self, TargetError> {
        Ok(match *kind {
            Inputs::GaussIso => Self::Gauss,
            Inputs::GaussAniso { condition } => {
                check(
                    condition >= 1.0 && condition.is_finite(),
                    "data.x.condition",
                    condition,
                    "at least 1",
                )?;
                let last = (in_dim.max(2) - 1) as f64;
                let ln_sd = -0.5 * libm::log(condition);
                Self::Scaled((0..in_dim).map(|i| libm::exp(ln_sd * i as f64 / last)).collect())
            }
            Inputs::Mixture { components, spread } => {
                check(components >= 1, "data.x.components", components, "at least 1")?;
                super::build::check_size("the mixture's means", components, in_dim, "data.x.components")?;
                check(spread >= 0.0 && spread.is_finite(), "data.x.spread", spread, "at least 0")?;
                let mut mean = || {
                    let mut mean = vec![0.0; in_dim];
                    fill_normal(rng, &mut mean);
                    mean.iter_mut().for_each(|m| *m *= spread);
                    mean
                };
                Self::Mixture((0..components).map(|_| mean()).collect())
            }
            Inputs::LowdimManifold { dim } => {
                let expected = format!("from 1 to the number of inputs ({in_dim})");
                check((1..=in_dim).contains(&dim), "data.x.dim", dim, expected)?;
                let scale = (in_dim as f64 / dim as f64).sqrt();
                let basis = random_orthonormal(rng, in_dim, dim);
                Self::Manifold(basis.columns().into_iter().map(|c| (&c * scale).to_vec()).collect())
            }
            Inputs::HeavyTail { df } => {
                check(df > 2.0 && df.is_finite(), "data.x.df", df, "above 2")?;
                Self::StudentT(student_t(df, "data.x.df")?, ((df - 2.0) / df).sqrt())
            }
        })
    }

    fn fill(&self, rng: &mut ChaCha8Rng, row: &mut [f64]) {
        match self {
            Self::Gauss => fill_normal(rng, row),
            Self::Scaled(sd) => {
                fill_normal(rng, row);
                row.iter_mut().zip(sd).for_each(|(x, s)| *x *= s);
            }
            Self::Mixture(means) => {
                let mean = &means[index(rng, means.len())];
                fill_normal(rng, row);
                row.iter_mut().zip(mean).for_each(|(x, m)| *x += m);
            }
            Self::Manifold(columns) => {
                fill_normal(rng, row);
                row.iter_mut().for_each(|x| *x *= MANIFOLD_NOISE);
                for column in columns {
                    let z = f64::standard_normal(rng);
                    row.iter_mut().zip(column).for_each(|(x, a)| *x += z * a);
                }
            }
            Self::StudentT(t, scale) => row.iter_mut().for_each(|x| *x = scale * t.sample(rng)),
        }
    }
}

/// A teacher's outputs for the rows of `x`, with each hidden unit dropped with probability `dropout`
/// in each row and the others scaled by 1/(1 − dropout).
///
/// # Errors
/// [`TargetError::OutOfRange`] unless 0 ≤ dropout < 1.
pub fn teach(
    network: &Network,
    w: &[f64],
    dropout: f64,
    x: &[f64],
    id: [u8; 32],
) -> Result<Vec<f64>, TargetError> {
    check((0.0..1.0).contains(&dropout), "teacher.dropout", dropout, "at least 0 and below 1")?;
    let teacher = Reference::new(network);
    let key = Key::new(id, Purpose::Teacher, 1);
    let mut mask = vec![1.0; network.hidden.iter().sum()];
    let mut y = Vec::with_capacity(x.len() / network.in_dim * network.out_dim);
    for (i, row) in x.chunks_exact(network.in_dim).enumerate() {
        let factors = if dropout > 0.0 {
            let mut rng = key.at(i as u64);
            let keep = 1.0 / (1.0 - dropout);
            mask.iter_mut().for_each(|m| *m = if uniform(&mut rng) < dropout { 0.0 } else { keep });
            Some(mask.as_slice())
        } else {
            None
        };
        y.extend(teacher.forward(w, row, factors));
    }
    Ok(y)
}

/// Adds noise of the given kind and scale s to Y, whose rows belong to those of X.
///
/// # Errors
/// [`TargetError::OutOfRange`] for parameters outside their range.
pub fn add_noise(
    kind: &Noise,
    scale: f64,
    x: &[f64],
    in_dim: usize,
    y: &mut [f64],
    out_dim: usize,
    id: [u8; 32],
) -> Result<(), TargetError> {
    check(scale >= 0.0 && scale.is_finite(), "data.noise_scale", scale, "at least 0")?;
    let mut t = None;
    match *kind {
        Noise::Gauss | Noise::Hetero => {}
        Noise::StudentT { df } => {
            check(df > 0.0 && df.is_finite(), "data.noise.df", df, "above 0")?;
            t = Some(student_t(df, "data.noise.df")?);
        }
        Noise::Outliers { fraction, scale } => {
            check((0.0..=1.0).contains(&fraction), "data.noise.fraction", fraction, "from 0 to 1")?;
            check(scale > 0.0 && scale.is_finite(), "data.noise.scale", scale, "above 0")?;
        }
    }
    let key = Key::new(id, Purpose::Noise, 0);
    let rows = x.chunks_exact(in_dim).zip(y.chunks_exact_mut(out_dim));
    for (i, (x, y)) in rows.enumerate() {
        let mut rng = key.at(i as u64);
        let mean_square = x.iter().map(|x| x * x).sum::<f64>() / in_dim as f64;
        for y in y {
            *y += scale
                * match (kind, &t) {
                    (Noise::StudentT { .. }, Some(t)) => t.sample(&mut rng),
                    (Noise::Hetero, _) => f64::standard_normal(&mut rng) * (0.5 * (1.0 + mean_square)).sqrt(),
                    (&Noise::Outliers { fraction, scale }, _) => {
                        let factor = if uniform(&mut rng) < fraction { scale } else { 1.0 };
                        factor * f64::standard_normal(&mut rng)
                    }
                    (Noise::Gauss | Noise::StudentT { .. }, _) => f64::standard_normal(&mut rng),
                };
        }
    }
    Ok(())
}

fn student_t(df: f64, field: &'static str) -> Result<StudentT<f64>, TargetError> {
    StudentT::new(df).map_err(|_| TargetError::range(field, df, "above 0"))
}

fn check(
    holds: bool,
    field: &'static str,
    value: impl ToString,
    expected: impl Into<String>,
) -> Result<(), TargetError> {
    if holds { Ok(()) } else { Err(TargetError::range(field, value, expected)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Activation;

    const ID: [u8; 32] = [3; 32];

    /// Mean of x_i x_j over rows.
    fn covariance(x: &[f64], dim: usize, i: usize, j: usize) -> f64 {
        let rows = x.chunks_exact(dim);
        let n = rows.len() as f64;
        rows.map(|r| r[i] * r[j]).sum::<f64>() / n
    }

    #[test]
    fn inputs_have_the_covariance_that_is_documented() {
        // A variance of n normal draws errs by √(2/n) relative.
        let (n, four_sigma) = (40_000, 4.0 * (2.0 / 40_000.0_f64).sqrt());
        let draw = |kind, dim| draw_inputs(&kind, n, dim, ID).unwrap();
        let aniso = draw(Inputs::GaussAniso { condition: 100.0 }, 3);
        for (i, truth) in [1.0, 0.1, 0.01].into_iter().enumerate() {
            assert!((covariance(&aniso, 3, i, i) / truth - 1.0).abs() < four_sigma);
        }
        let gauss = draw(Inputs::GaussIso, 2);
        assert!((covariance(&gauss, 2, 0, 0) - 1.0).abs() < four_sigma);
        assert!(covariance(&gauss, 2, 0, 1).abs() < four_sigma);
        // Fourth moment of a t with df 10, unit variance: 3 + 6/(df − 4) = 4, so √(3/n).
        let heavy = draw(Inputs::HeavyTail { df: 10.0 }, 1);
        assert!((covariance(&heavy, 1, 0, 0) - 1.0).abs() < 4.0 * (3.0 / n as f64).sqrt());
        let fourth = heavy.iter().map(|x| x.powi(4)).sum::<f64>() / n as f64;
        assert!(fourth > 3.4, "tails are not heavy: fourth moment {fourth}");
        let manifold = draw(Inputs::LowdimManifold { dim: 2 }, 5);
        let trace: f64 = (0..5).map(|i| covariance(&manifold, 5, i, i)).sum();
        // tr A Aᵀ = 5 from two modes of 5/2 each: variance of the mean 2·2·(5/2)²/n.
        assert!((trace - 5.0 * (1.0 + 1e-4)).abs() < 4.0 * (25.0 / n as f64).sqrt());
    }

    #[test]
    fn a_manifold_is_flat_and_a_mixture_has_its_components() {
        let x = draw_inputs(&Inputs::LowdimManifold { dim: 1 }, 500, 3, ID).unwrap();
        // One direction a with ‖a‖² = 3; the rest is noise of 0.01.
        let first = (0..3).map(|j| x[j] / x[0]).collect::<Vec<_>>();
        let norm = first.iter().map(|v| v * v).sum::<f64>();
        let inside = x.iter().map(|x| x * x).sum::<f64>() / 500.0;
        let along =
            x.chunks(3).map(|r| r.iter().zip(&first).map(|(a, b)| a * b).sum::<f64>().powi(2)).sum::<f64>();
        assert!(inside - along / norm / 500.0 < 0.02 && inside > 2.0, "{inside}");
        // Far apart, components are told by rounding: both halves of about n/2 rows.
        let x = draw_inputs(&Inputs::Mixture { components: 2, spread: 1e6 }, 1_000, 1, ID).unwrap();
        let middle =
            (x.iter().copied().fold(f64::MAX, f64::min) + x.iter().copied().fold(f64::MIN, f64::max)) / 2.0;
        let (low, high): (Vec<f64>, Vec<f64>) = x.iter().partition(|&&x| x < middle);
        assert!((low.len() as f64 - 500.0).abs() < 4.0 * 250.0_f64.sqrt());
        for half in [low, high] {
            let n = half.len() as f64;
            let mean = half.iter().sum::<f64>() / n;
            let variance = half.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
            assert!((variance - 1.0).abs() < 4.0 * (2.0 / n).sqrt());
        }
    }

    #[test]
    fn a_row_does_not_depend_on_how_many_there_are() {
        let kind = Inputs::Mixture { components: 3, spread: 2.0 };
        let long = draw_inputs(&kind, 100, 4, ID).unwrap();
        assert_eq!(long[..40], draw_inputs(&kind, 10, 4, ID).unwrap());
        assert_ne!(long, draw_inputs(&kind, 100, 4, [4; 32]).unwrap());
    }

    #[test]
    fn noise_has_its_variance() {
        let n = 40_000;
        let x: Vec<f64> = (0..n).map(|i| if i % 2 == 0 { 0.0 } else { 3.0 }).collect();
        let squares = |kind, rows: usize| {
            let mut y = vec![0.0; n];
            add_noise(&kind, 0.1, &x, 1, &mut y, 1, ID).unwrap();
            100.0 * y.iter().skip(rows).step_by(2).map(|y| y * y).sum::<f64>() / (n / 2) as f64
        };
        // Relative errors: √((kurtosis − 1)/rows), kurtosis 3 unless said.
        let rows = (n / 2) as f64;
        let sigma = (2.0 / rows).sqrt();
        assert!((squares(Noise::Gauss, 0) - 1.0).abs() < 4.0 * sigma);
        assert!((squares(Noise::Hetero, 0) / 0.5 - 1.0).abs() < 4.0 * sigma);
        assert!((squares(Noise::Hetero, 1) / 5.0 - 1.0).abs() < 4.0 * sigma);
        // t with 12 degrees of freedom: variance 1.2, kurtosis 3 + 6/8.
        let t = squares(Noise::StudentT { df: 12.0 }, 0);
        assert!((t / 1.2 - 1.0).abs() < 4.0 * (2.75 / rows).sqrt());
        // 0.9·1 + 0.1·25 = 3.4; fourth moment 3·(0.9 + 0.1·625).
        let outliers = squares(Noise::Outliers { fraction: 0.1, scale: 5.0 }, 0);
        assert!((outliers - 3.4).abs() < 4.0 * ((3.0 * 63.4 - 3.4 * 3.4) / rows).sqrt());
    }

    #[test]
    fn dropout_drops_its_share_and_keeps_the_mean() {
        // f = 2000 · mean over units of m·a with a = 1 and m = 0 or 1/(1 − p).
        let network = Network {
            in_dim: 1,
            hidden: vec![2_000],
            out_dim: 1,
            activation: Activation::Identity,
            bias: false,
            layernorm: false,
            residual_period: None,
        };
        let w = vec![1.0; param_count(&network)];
        let y = teach(&network, &w, 0.25, &[1.0, 1.0], ID).unwrap();
        for y in &y {
            let kept = y * 0.75;
            assert!((kept - kept.round()).abs() < 1e-9, "units are dropped whole");
            assert!((kept - 1_500.0).abs() < 4.0 * (2_000.0_f64 * 0.25 * 0.75).sqrt());
        }
        assert_ne!(y[0], y[1]);
        assert_eq!(teach(&network, &w, 0.0, &[1.0, 1.0], ID).unwrap(), [2_000.0; 2]);
    }

    #[test]
    fn initial_weights_have_the_variance_of_their_scheme() {
        let network = Network {
            in_dim: 300,
            hidden: vec![100],
            out_dim: 1,
            activation: Activation::Relu,
            bias: true,
            layernorm: true,
            residual_period: None,
        };
        for (init, variance) in
            [(Init::He, 2.0 / 300.0), (Init::Xavier, 2.0 / 400.0), (Init::Lecun, 1.0 / 300.0)]
        {
            let w = initial_parameters(&network, init, ID, Purpose::Init);
            let first = &w[..30_000];
            let found = first.iter().map(|w| w * w).sum::<f64>() / 30_000.0;
            assert!((found / variance - 1.0).abs() < 4.0 * (2.0 / 30_000.0_f64).sqrt());
            assert_eq!(w[30_000..30_100], [0.0; 100]);
            assert_eq!(w[30_100..30_200], [1.0; 100]);
            assert_eq!(w[30_200..30_300], [0.0; 100]);
            assert_ne!(w, initial_parameters(&network, init, ID, Purpose::Teacher));
        }
    }

    #[test]
    fn parameters_out_of_range_are_named() {
        let message = |kind| draw_inputs(&kind, 2, 3, ID).unwrap_err().to_string();
        assert_eq!(message(Inputs::HeavyTail { df: 2.0 }), "data.x.df is 2; it must be above 2");
        assert!(message(Inputs::LowdimManifold { dim: 4 }).contains("from 1 to the number of inputs (3)"));
        assert!(message(Inputs::GaussAniso { condition: f64::NAN }).contains("data.x.condition"));
        let noise = add_noise(&Noise::Gauss, -1.0, &[0.0], 1, &mut [0.0], 1, ID);
        assert!(noise.unwrap_err().to_string().contains("data.noise_scale"));
    }
}
