//! Targets given by a formula: no data, no rows, no scratch.

use super::potential::Potential;
use crate::num::Real;

/// L(w) = ½ Σ hᵢwᵢ².
pub struct QuadraticPotential {
    eigenvalues: Vec<f64>,
}

impl QuadraticPotential {
    /// `eigenvalues` are the hᵢ ≥ 0.
    pub fn new(eigenvalues: &[f64]) -> Self {
        Self { eigenvalues: eigenvalues.to_vec() }
    }
}

impl<T: Real> Potential<T> for QuadraticPotential {
    fn dim(&self) -> usize {
        self.eigenvalues.len()
    }

    fn rows(&self) -> usize {
        0
    }

    fn scratch_len(&self) -> usize {
        0
    }

    fn batch_scratch_len(&self, _batch: usize) -> usize {
        0
    }

    fn hvp(&self, _w: &[T], v: &[T], _rows: Option<&[u32]>, hv: &mut [T], _scratch: &mut [T]) {
        for ((hv, h), v) in hv.iter_mut().zip(&self.eigenvalues).zip(v) {
            *hv = T::from_f64(h * v.to_f64());
        }
    }

    fn hvp_scratch_len(&self) -> usize {
        0
    }

    fn loss(&self, w: &[T], _scratch: &mut [T]) -> f64 {
        0.5 * self.eigenvalues.iter().zip(w).map(|(h, w)| h * w.to_f64() * w.to_f64()).sum::<f64>()
    }

    fn loss_grad(&self, w: &[T], grad: &mut [T], scratch: &mut [T]) -> f64 {
        for ((g, h), w) in grad.iter_mut().zip(&self.eigenvalues).zip(w) {
            *g = T::from_f64(h * w.to_f64());
        }
        self.loss(w, scratch)
    }

    fn batch_loss_grad(&self, w: &[T], _rows: &[u32], grad: &mut [T], scratch: &mut [T]) -> f64 {
        self.loss_grad(w, grad, scratch)
    }
}

/// L(w) = Π wᵢ^(2kᵢ).
pub struct NormalCrossingPotential {
    exponents: Vec<u32>,
}

impl NormalCrossingPotential {
    /// `exponents` are the kᵢ ≥ 1.
    pub fn new(exponents: &[u32]) -> Self {
        Self { exponents: exponents.to_vec() }
    }
}

/// wᵏ by repeated squaring.
fn power(mut w: f64, mut k: u64) -> f64 {
    let mut out = 1.0;
    while k > 0 {
        if k & 1 == 1 {
            out *= w;
        }
        w *= w;
        k >>= 1;
    }
    out
}

/// A factor w^(2k) and its first two derivatives.
struct Factor {
    value: f64,
    first: f64,
    second: f64,
}

impl Factor {
    fn at(w: f64, k: u32) -> Self {
        let twice = 2 * u64::from(k);
        let even = power(w, twice - 2);
        let second = (twice * (twice - 1)) as f64 * even;
        Self { value: even * w * w, first: twice as f64 * even * w, second }
    }

    /// A product and its derivative along v, with this factor in it.
    fn times(&self, (product, along): (f64, f64), v: f64) -> (f64, f64) {
        (product * self.value, along * self.value + product * self.first * v)
    }
}

impl<T: Real> Potential<T> for NormalCrossingPotential {
    fn dim(&self) -> usize {
        self.exponents.len()
    }

    fn rows(&self) -> usize {
        0
    }

    fn scratch_len(&self) -> usize {
        0
    }

    fn batch_scratch_len(&self, _batch: usize) -> usize {
        0
    }

    /// The derivative of the gradient along v: ∂ᵢL = f'ᵢ·B·A, with fᵢ = wᵢ^(2kᵢ), B the product of the
    /// factors before i and A of those after, each carried with its derivative along v. No division, so that
    /// it is right at zeros too.
    fn hvp(&self, w: &[T], v: &[T], _rows: Option<&[u32]>, hv: &mut [T], scratch: &mut [T]) {
        let factor = |i: usize| Factor::at(w[i].to_f64(), self.exponents[i]);
        let d = self.exponents.len();
        let (before, before_along) = scratch[..2 * d].split_at_mut(d);
        let mut product = (1.0, 0.0);
        for i in 0..d {
            (before[i], before_along[i]) = (T::from_f64(product.0), T::from_f64(product.1));
            product = factor(i).times(product, v[i].to_f64());
        }
        let mut product = (1.0, 0.0);
        for i in (0..d).rev() {
            let (f, v) = (factor(i), v[i].to_f64());
            let (b, b_along) = (before[i].to_f64(), before_along[i].to_f64());
            let (a, a_along) = product;
            hv[i] = T::from_f64(f.second * v * b * a + f.first * (b_along * a + b * a_along));
            product = f.times(product, v);
        }
    }

    fn hvp_scratch_len(&self) -> usize {
        2 * self.exponents.len()
    }

    fn loss(&self, w: &[T], _scratch: &mut [T]) -> f64 {
        self.exponents.iter().zip(w).map(|(&k, w)| power(w.to_f64(), 2 * u64::from(k))).product()
    }

    fn loss_grad(&self, w: &[T], grad: &mut [T], _scratch: &mut [T]) -> f64 {
        // ∂ᵢL = 2kᵢwᵢ^(2kᵢ−1)·(product of the factors before i)·(product of those after i): no
        // division, so that it is right at zeros too.
        let mut before = 1.0;
        for ((g, &k), w) in grad.iter_mut().zip(&self.exponents).zip(w) {
            let (w, k) = (w.to_f64(), u64::from(k));
            let odd = power(w, 2 * k - 1);
            *g = T::from_f64(2.0 * k as f64 * odd * before);
            before *= odd * w;
        }
        let mut after = 1.0;
        for ((g, &k), w) in grad.iter_mut().zip(&self.exponents).zip(w).rev() {
            *g = T::from_f64(g.to_f64() * after);
            after *= power(w.to_f64(), 2 * u64::from(k));
        }
        before
    }

    fn batch_loss_grad(&self, w: &[T], _rows: &[u32], grad: &mut [T], scratch: &mut [T]) -> f64 {
        self.loss_grad(w, grad, scratch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest distance between the gradient and central differences of the loss.
    fn gradient_error(potential: &dyn Potential<f64>, w: &[f64]) -> f64 {
        let h = 1e-5;
        let mut grad = vec![f64::NAN; w.len()];
        let loss = potential.loss_grad(w, &mut grad, &mut []);
        assert!((loss - potential.loss(w, &mut [])).abs() <= 1e-14 * loss.abs());
        let shifted = |i: usize, step: f64| {
            let mut w = w.to_vec();
            w[i] += step;
            potential.loss(&w, &mut [])
        };
        let error = |i: usize| ((shifted(i, h) - shifted(i, -h)) / (2.0 * h) - grad[i]).abs();
        (0..w.len()).map(error).fold(0.0, f64::max)
    }

    #[test]
    fn losses_and_gradients_are_those_of_the_formulas() {
        let quadratic = QuadraticPotential::new(&[2.0, 0.0, 8.0]);
        assert_eq!(quadratic.loss(&[3.0, 100.0, 0.5], &mut []), 9.0 + 1.0);
        assert!(gradient_error(&quadratic, &[3.0, 100.0, 0.5]) < 1e-9);
        let crossing = NormalCrossingPotential::new(&[1, 2, 3]);
        assert_eq!(crossing.loss(&[3.0, -2.0, 1.0], &mut []), 9.0 * 16.0);
        // Central differences err by h²·L‴/6, L‴ below 1e4 here.
        assert!(gradient_error(&crossing, &[0.7, -0.9, 1.1]) < 1e-6);
    }

    #[test]
    fn hessian_vector_products_are_differences_of_gradients() {
        let quadratic = QuadraticPotential::new(&[2.0, 0.0, 8.0]);
        let crossing = NormalCrossingPotential::new(&[1, 2, 3]);
        let (w, v, h) = ([0.7, 0.0, 1.1], [0.3, -1.2, 0.5], 1e-6);
        for potential in [&quadratic as &dyn Potential<f64>, &crossing] {
            let mut hv = [f64::NAN; 3];
            potential.hvp(&w, &v, None, &mut hv, &mut [0.0; 6]);
            let gradient = |step: f64| {
                let w: Vec<f64> = w.iter().zip(&v).map(|(w, v)| w + step * v).collect();
                let mut grad = vec![0.0; 3];
                potential.loss_grad(&w, &mut grad, &mut []);
                grad
            };
            let (ahead, behind) = (gradient(h), gradient(-h));
            for i in 0..3 {
                // Differences err by ε/h and h²: 1e-10 and 1e-11 of numbers of order 10.
                assert!((hv[i] - (ahead[i] - behind[i]) / (2.0 * h)).abs() < 1e-8);
            }
        }
    }

    /// Hᵢⱼ by its formula, the factors' derivatives multiplied anew for every pair.
    fn dense_product(exponents: &[u32], w: &[f64], v: &[f64]) -> Vec<f64> {
        let factor = |i: usize, derivatives: usize| {
            let twice = 2 * u64::from(exponents[i]);
            match derivatives {
                0 => power(w[i], twice),
                1 => twice as f64 * power(w[i], twice - 1),
                _ => (twice * (twice - 1)) as f64 * power(w[i], twice - 2),
            }
        };
        let d = exponents.len();
        let entry = |i: usize, j: usize| -> f64 {
            (0..d).map(|k| factor(k, usize::from(k == i) + usize::from(k == j))).product()
        };
        (0..d).map(|i| (0..d).map(|j| entry(i, j) * v[j]).sum()).collect()
    }

    #[test]
    fn the_crossings_product_is_its_dense_hessians_at_zeros_too() {
        let exponents = [1, 2, 1, 3, 1];
        let crossing = NormalCrossingPotential::new(&exponents);
        let v = [0.3, -1.2, 0.5, 2.0, -0.7];
        for zeros in [&[] as &[usize], &[0], &[1], &[4], &[0, 2], &[2, 4], &[0, 2, 4], &[0, 1, 2, 3, 4]] {
            let mut w = [0.7, -0.9, 1.1, 0.8, -1.3];
            zeros.iter().for_each(|&i| w[i] = 0.0);
            let mut hv = [f64::NAN; 5];
            crossing.hvp(&w, &v, None, &mut hv, &mut [f64::NAN; 10]);
            for (found, dense) in hv.iter().zip(dense_product(&exponents, &w, &v)) {
                assert!((found - dense).abs() <= 1e-13 * dense.abs(), "{zeros:?}: {found} {dense}");
            }
        }
        // Ten thousand factors, of which the dense formula would take 10¹² products.
        let many = NormalCrossingPotential::new(&[1; 10_000]);
        let mut hv = vec![f64::NAN; 10_000];
        many.hvp(&vec![1.0; 10_000], &vec![1.0; 10_000], None, &mut hv, &mut vec![0.0; 20_000]);
        // fᵢ = 1, f'ᵢ = f''ᵢ = 2: Hᵢᵢ = 2 and Hᵢⱼ = 4.
        assert!(hv.iter().all(|h| *h == 2.0 + 4.0 * 9_999.0));
    }

    #[test]
    fn a_zero_factor_leaves_the_other_gradients_right() {
        let crossing = NormalCrossingPotential::new(&[1, 1]);
        let mut grad = [f64::NAN; 2];
        assert_eq!(crossing.loss_grad(&[0.0, 3.0], &mut grad, &mut []), 0.0);
        assert_eq!(grad, [0.0, 0.0]);
        let mut grad = [f32::NAN; 2];
        assert_eq!(crossing.loss_grad(&[2.0f32, 3.0], &mut grad, &mut []), 36.0);
        assert_eq!(grad, [36.0, 24.0]);
    }
}
