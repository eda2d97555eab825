//! A potential for the tests of samplers.

use crate::target::Potential;

/// L = ½ Σ h_i w_i².
pub struct Quadratic(Vec<f64>);

impl Quadratic {
    pub fn new(eigenvalues: &[f64]) -> Self {
        Self(eigenvalues.to_vec())
    }
}

impl Potential<f64> for Quadratic {
    fn dim(&self) -> usize {
        self.0.len()
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
    fn hvp(&self, _: &[f64], v: &[f64], _: Option<&[u32]>, hv: &mut [f64], _: &mut [f64]) {
        hv.iter_mut().zip(&self.0).zip(v).for_each(|((out, h), v)| *out = h * v);
    }
    fn hvp_scratch_len(&self) -> usize {
        0
    }
    fn loss(&self, w: &[f64], _: &mut [f64]) -> f64 {
        0.5 * self.0.iter().zip(w).map(|(h, w)| h * w * w).sum::<f64>()
    }
    fn loss_grad(&self, w: &[f64], grad: &mut [f64], scratch: &mut [f64]) -> f64 {
        for ((g, h), w) in grad.iter_mut().zip(&self.0).zip(w) {
            *g = h * w;
        }
        self.loss(w, scratch)
    }
    fn batch_loss_grad(&self, w: &[f64], _: &[u32], grad: &mut [f64], scratch: &mut [f64]) -> f64 {
        self.loss_grad(w, grad, scratch)
    }
}
