//! The plain definition of a network's output, loss and gradient: straight loops in `f64`, one row
//! at a time. The fast pass is tested against it; teachers and builds use its forward pass.
//!
//! With a_0 = x, hidden layer l computes z = W a_{l−1} + b; with layer normalisation
//! z ← scale·(z − mean z)/√(var z + 1e-5) + shift (Ba, Kiros & Hinton 2016; biased variance over the
//! layer's units); then a_l = mask·φ(z), plus the skip that [`layers`] describes. The output layer is
//! f = W a + b.

use super::layout::{Layer, layers, param_count};
use crate::config::{Activation, Loss, Network};
use crate::num::Real;

/// Added to the variance by layer normalisation.
pub const LAYERNORM_EPS: f64 = 1e-5;

const INV_SQRT_2PI: f64 = 0.398_942_280_401_432_7;

/// φ(z) and φ′(z).
pub fn activate(activation: Activation, z: f64) -> (f64, f64) {
    match activation {
        Activation::Relu => {
            if z > 0.0 {
                (z, 1.0)
            } else {
                (0.0, 0.0)
            }
        }
        Activation::Tanh => {
            let t = Real::tanh(z);
            (t, 1.0 - t * t)
        }
        Activation::Gelu => {
            let cdf = 0.5 * (1.0 + Real::erf(z * std::f64::consts::FRAC_1_SQRT_2));
            (z * cdf, cdf + z * INV_SQRT_2PI * Real::exp(-0.5 * z * z))
        }
        Activation::Identity => (z, 1.0),
    }
}

/// ℓ(r) and ℓ′(r) of one residual r = f − y.
pub fn residual_loss(loss: &Loss, r: f64) -> (f64, f64) {
    match *loss {
        Loss::Mse => (r * r, 2.0 * r),
        Loss::TRegression { student_df: df, noise_scale: s } => {
            let width = df * s * s;
            (0.5 * (df + 1.0) * Real::ln_1p(r * r / width), (df + 1.0) * r / (width + r * r))
        }
    }
}

/// A network with the offsets of its layers, ready to be evaluated row by row.
#[derive(Clone, Debug)]
pub struct Reference {
    network: Network,
    layers: Vec<Layer>,
}

/// What the forward pass leaves behind for the backward pass, a vector a layer.
#[derive(Clone, Debug, Default)]
struct Tape {
    /// a_0 = x, a_1, …, f
    activations: Vec<Vec<f64>>,
    /// φ′(z) times the mask.
    slopes: Vec<Vec<f64>>,
    /// (z − mean)/√(var + ε) and 1/√(var + ε), where there is layer normalisation.
    normed: Vec<(Vec<f64>, f64)>,
}

impl Reference {
    /// Prepares a network.
    pub fn new(network: &Network) -> Self {
        Self { network: network.clone(), layers: layers(network) }
    }

    /// Number of parameters d.
    pub fn dim(&self) -> usize {
        param_count(&self.network)
    }

    /// The network's output for one row `x` (inputs long). `mask`, one factor a hidden unit in the
    /// order of the layers, multiplies activations before the skip is added (dropout: 0 or
    /// 1/(1 − p)).
    pub fn forward(&self, w: &[f64], x: &[f64], mask: Option<&[f64]>) -> Vec<f64> {
        self.tape(w, x, mask).activations.pop().unwrap_or_default()
    }

    /// L_n(w) over the rows of `x` (n × in) and `y` (n × out): the mean over rows and outputs.
    pub fn loss(&self, w: &[f64], x: &[f64], y: &[f64], loss: &Loss) -> f64 {
        let total: f64 = self
            .rows(x, y)
            .map(|(x, y)| {
                let f = self.forward(w, x, None);
                f.iter().zip(y).map(|(f, y)| residual_loss(loss, f - y).0).sum::<f64>()
            })
            .sum();
        total / y.len() as f64
    }

    /// L_n(w) and ∇L_n(w).
    pub fn loss_grad(&self, w: &[f64], x: &[f64], y: &[f64], loss: &Loss) -> (f64, Vec<f64>) {
        let mut grad = vec![0.0; self.dim()];
        let mut total = 0.0;
        for (x, y) in self.rows(x, y) {
            let tape = self.tape(w, x, None);
            let output = &tape.activations[self.layers.len()];
            let (terms, slopes): (Vec<f64>, Vec<f64>) =
                output.iter().zip(y).map(|(f, y)| residual_loss(loss, f - y)).unzip();
            total += terms.iter().sum::<f64>();
            self.backward(w, &tape, slopes, &mut grad);
        }
        let scale = 1.0 / y.len() as f64;
        grad.iter_mut().for_each(|g| *g *= scale);
        (total * scale, grad)
    }

    fn rows<'a>(&self, x: &'a [f64], y: &'a [f64]) -> impl Iterator<Item = (&'a [f64], &'a [f64])> {
        x.chunks_exact(self.network.in_dim).zip(y.chunks_exact(self.network.out_dim))
    }

    fn tape(&self, w: &[f64], x: &[f64], mask: Option<&[f64]>) -> Tape {
        let mut tape = Tape { activations: vec![x.to_vec()], ..Tape::default() };
        let mut unit = 0;
        for layer in &self.layers {
            let input = tape.activations.last().map_or(x, Vec::as_slice);
            let mut z: Vec<f64> = (0..layer.outputs)
                .map(|i| {
                    let row = &w[layer.weight + i * layer.inputs..][..layer.inputs];
                    let dot: f64 = row.iter().zip(input).map(|(w, a)| w * a).sum();
                    dot + layer.bias.map_or(0.0, |b| w[b + i])
                })
                .collect();
            if let Some(norm) = layer.norm {
                let width = layer.outputs as f64;
                let mean = z.iter().sum::<f64>() / width;
                let variance = z.iter().map(|z| (z - mean) * (z - mean)).sum::<f64>() / width;
                let inv_sd = 1.0 / (variance + LAYERNORM_EPS).sqrt();
                z.iter_mut().for_each(|z| *z = (*z - mean) * inv_sd);
                tape.normed.push((z.clone(), inv_sd));
                for (i, z) in z.iter_mut().enumerate() {
                    *z = w[norm + i] * *z + w[norm + layer.outputs + i];
                }
            }
            if layer.hidden {
                let mut slopes = Vec::with_capacity(layer.outputs);
                for (i, z) in z.iter_mut().enumerate() {
                    let (value, slope) = activate(self.network.activation, *z);
                    let keep = mask.map_or(1.0, |m| m[unit + i]);
                    let skip = layer.skip_from.map_or(0.0, |from| tape.activations[from][i]);
                    *z = keep * value + skip;
                    slopes.push(keep * slope);
                }
                tape.slopes.push(slopes);
                unit += layer.outputs;
            }
            tape.activations.push(z);
        }
        tape
    }

    /// Adds to `grad` what one row gives, from ∂ℓ/∂f.
    fn backward(&self, w: &[f64], tape: &Tape, output_slopes: Vec<f64>, grad: &mut [f64]) {
        // ∂ℓ/∂a_l of every layer; skips add to layers further down before these are reached.
        let mut deltas: Vec<Vec<f64>> = tape.activations.iter().map(|a| vec![0.0; a.len()]).collect();
        deltas[self.layers.len()] = output_slopes;
        for (l, layer) in self.layers.iter().enumerate().rev() {
            let mut dz = std::mem::take(&mut deltas[l + 1]);
            if let Some(from) = layer.skip_from {
                deltas[from].iter_mut().zip(&dz).for_each(|(d, s)| *d += s);
            }
            if layer.hidden {
                dz.iter_mut().zip(&tape.slopes[l]).for_each(|(d, s)| *d *= s);
            }
            if let Some(norm) = layer.norm {
                layernorm_backward(&w[norm..], &mut grad[norm..], &tape.normed[l], &mut dz);
            }
            if let Some(bias) = layer.bias {
                grad[bias..].iter_mut().zip(&dz).for_each(|(g, d)| *g += d);
            }
            for (i, d) in dz.iter().enumerate() {
                let row = layer.weight + i * layer.inputs;
                for (j, a) in tape.activations[l].iter().enumerate() {
                    grad[row + j] += d * a;
                    deltas[l][j] += d * w[row + j];
                }
            }
        }
    }
}

/// Turns ∂ℓ/∂(normalised z) into ∂ℓ/∂z in place and adds the gradient of scale and shift (both
/// start at the front of `params` and `grad`). With ẑ = (z − mean)/sd and g = scale·∂ℓ:
/// ∂ℓ/∂z = (g − mean g − ẑ·mean(g ẑ))/sd.
fn layernorm_backward(params: &[f64], grad: &mut [f64], (normed, inv_sd): &(Vec<f64>, f64), dz: &mut [f64]) {
    let width = dz.len();
    let (mut mean, mut mean_with_normed) = (0.0, 0.0);
    for (i, d) in dz.iter_mut().enumerate() {
        grad[i] += *d * normed[i];
        grad[width + i] += *d;
        *d *= params[i];
        mean += *d / width as f64;
        mean_with_normed += *d * normed[i] / width as f64;
    }
    for (d, n) in dz.iter_mut().zip(normed) {
        *d = (*d - mean - n * mean_with_normed) * inv_sd;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::rng::{Key, Purpose, fill_normal};

    fn normals(count: usize, seed: u8) -> Vec<f64> {
        let mut x = vec![0.0; count];
        fill_normal(&mut Key::new([seed; 32], Purpose::Probe, 0).at(0), &mut x);
        x
    }

    fn relative_distance(a: &[f64], b: &[f64]) -> f64 {
        let square = |v: f64| v * v;
        let distance: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
        (distance / b.iter().copied().map(square).sum::<f64>()).sqrt()
    }

    #[test]
    fn gradients_agree_with_central_differences_in_every_setting() {
        let losses = [Loss::Mse, Loss::TRegression { student_df: 3.0, noise_scale: 0.7 }];
        let activations = [Activation::Relu, Activation::Tanh, Activation::Gelu, Activation::Identity];
        for activation in activations {
            for flags in 0..4 {
                for residual_period in [None, Some(1), Some(2)] {
                    let network = Network {
                        in_dim: 3,
                        hidden: vec![3, 4, 4, 4],
                        out_dim: 2,
                        activation,
                        bias: flags & 1 == 1,
                        layernorm: flags & 2 == 2,
                        residual_period,
                    };
                    let reference = Reference::new(&network);
                    let w = normals(reference.dim(), 1);
                    let (x, y) = (normals(5 * 3, 2), normals(5 * 2, 3));
                    for loss in &losses {
                        let (value, grad) = reference.loss_grad(&w, &x, &y, loss);
                        assert!((value - reference.loss(&w, &x, &y, loss)).abs() <= 1e-14 * value.abs());
                        let h = 1e-5;
                        let differences: Vec<f64> = (0..w.len())
                            .map(|i| {
                                let shifted = |step: f64| {
                                    let mut w = w.clone();
                                    w[i] += step;
                                    reference.loss(&w, &x, &y, loss)
                                };
                                (shifted(h) - shifted(-h)) / (2.0 * h)
                            })
                            .collect();
                        // Central differences err by h²·L‴/6 + ε·L/h ≈ 1e-10 of these gradients.
                        let distance = relative_distance(&differences, &grad);
                        assert!(distance < 1e-7, "{distance:e} for {network:?} {loss:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_skip_adds_the_activation_that_entered_the_block_if_it_fits() {
        let network = Network {
            in_dim: 2,
            hidden: vec![2, 2, 3],
            out_dim: 1,
            activation: Activation::Relu,
            bias: false,
            layernorm: false,
            residual_period: Some(1),
        };
        let skips: Vec<_> = layers(&network).iter().map(|l| l.skip_from).collect();
        assert_eq!(skips, [Some(0), Some(1), None, None]);
        // a1 = relu(x) + x = (2, -1), a2 = relu(-a1) + a1 = (0, 1) + (2, -1), a3 = relu of
        // (2, 0, -2), f = 5·2.
        let w = [1.0, 0.0, 0.0, 1.0, -1.0, 0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 1.0, -1.0, 0.0, 5.0, 7.0, 11.0];
        let network2 = Network { residual_period: Some(2), ..network.clone() };
        assert_eq!(Reference::new(&network).forward(&w, &[1.0, -1.0], None), [10.0]);
        // Period 2: a1 = (1, 0), a2 = relu(-a1) + x = (1, -1), a3 = (1, 0, 0), f = 5.
        assert_eq!(Reference::new(&network2).forward(&w, &[1.0, -1.0], None), [5.0]);
    }

    #[test]
    fn a_mask_multiplies_hidden_units() {
        let network = Network {
            in_dim: 1,
            hidden: vec![2],
            out_dim: 1,
            activation: Activation::Identity,
            bias: false,
            layernorm: false,
            residual_period: None,
        };
        let w = [3.0, 5.0, 1.0, 1.0];
        assert_eq!(Reference::new(&network).forward(&w, &[1.0], Some(&[0.0, 2.0])), [10.0]);
    }
}
