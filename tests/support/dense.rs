//! A target with a Hessian that is not diagonal.

use lambda_hat::num::Real;
use lambda_hat::target::Potential;

/// ½ wᵀHw.
pub struct Dense {
    dim: usize,
    h: Vec<f64>,
}

impl Dense {
    /// `h` is symmetric, row by row.
    pub fn new(dim: usize, h: Vec<f64>) -> Self {
        assert_eq!(h.len(), dim * dim);
        Self { dim, h }
    }
}

impl<T: Real> Potential<T> for Dense {
    fn dim(&self) -> usize {
        self.dim
    }
    fn rows(&self) -> usize {
        0
    }
    fn scratch_len(&self) -> usize {
        self.dim
    }
    fn batch_scratch_len(&self, _: usize) -> usize {
        self.dim
    }
    fn loss(&self, w: &[T], scratch: &mut [T]) -> f64 {
        let grad = &mut scratch[..self.dim];
        self.loss_grad(w, grad, &mut [])
    }
    fn loss_grad(&self, w: &[T], grad: &mut [T], _: &mut [T]) -> f64 {
        let mut loss = 0.0;
        for ((row, g), wi) in self.h.chunks_exact(self.dim).zip(grad).zip(w) {
            let hw: f64 = row.iter().zip(w).map(|(h, w)| h * w.to_f64()).sum();
            *g = T::from_f64(hw);
            loss += 0.5 * hw * wi.to_f64();
        }
        loss
    }
    fn batch_loss_grad(&self, w: &[T], _: &[u32], grad: &mut [T], _: &mut [T]) -> f64 {
        self.loss_grad(w, grad, &mut [])
    }
    fn hvp(&self, _: &[T], v: &[T], _: Option<&[u32]>, hv: &mut [T], _: &mut [T]) {
        self.loss_grad(v, hv, &mut []);
    }
    fn hvp_scratch_len(&self) -> usize {
        0
    }
}
