//! A potential in some of its parameters, the rest held at w*.

use super::potential::Potential;
use crate::num::Real;

/// L as a function of the chosen parameters.
///
/// Its scratch is that of the whole potential, then a whole w, and a whole gradient or product.
pub struct RestrictedPotential<'a, T: Real> {
    whole: &'a dyn Potential<T>,
    w_star: Vec<T>,
    chosen: &'a [u32],
}

impl<'a, T: Real> RestrictedPotential<'a, T> {
    /// `chosen` are places in w, ascending; the others stay as in `w_star`.
    pub fn new(whole: &'a dyn Potential<T>, w_star: Vec<T>, chosen: &'a [u32]) -> Self {
        debug_assert!(chosen.iter().all(|&i| (i as usize) < w_star.len()));
        Self { whole, w_star, chosen }
    }

    /// The chosen entries of a whole vector.
    pub fn choose(&self, whole: &[T]) -> Vec<T> {
        self.chosen.iter().map(|&i| whole[i as usize]).collect()
    }

    /// The scratch slice cut into the whole potential's, w, and two more vectors of its length.
    fn cut<'s>(&self, w: &[T], scratch: &'s mut [T]) -> (&'s mut [T], &'s mut [T], &'s mut [T], &'s mut [T]) {
        let d = self.w_star.len();
        let (own, rest) = scratch.split_at_mut(scratch.len() - 3 * d);
        let (full, rest) = rest.split_at_mut(d);
        let (first, second) = rest.split_at_mut(d);
        full.copy_from_slice(&self.w_star);
        self.scatter(w, full);
        (own, full, first, second)
    }

    fn scatter(&self, from: &[T], to: &mut [T]) {
        for (&i, &x) in self.chosen.iter().zip(from) {
            to[i as usize] = x;
        }
    }

    fn gather(&self, from: &[T], to: &mut [T]) {
        for (&i, x) in self.chosen.iter().zip(to) {
            *x = from[i as usize];
        }
    }
}

impl<T: Real> Potential<T> for RestrictedPotential<'_, T> {
    fn dim(&self) -> usize {
        self.chosen.len()
    }

    fn rows(&self) -> usize {
        self.whole.rows()
    }

    fn scratch_len(&self) -> usize {
        self.whole.scratch_len() + 3 * self.w_star.len()
    }

    fn batch_scratch_len(&self, batch: usize) -> usize {
        self.whole.batch_scratch_len(batch) + 3 * self.w_star.len()
    }

    fn hvp_scratch_len(&self) -> usize {
        self.whole.hvp_scratch_len() + 3 * self.w_star.len()
    }

    fn loss(&self, w: &[T], scratch: &mut [T]) -> f64 {
        let (own, full, ..) = self.cut(w, scratch);
        self.whole.loss(full, own)
    }

    fn loss_grad(&self, w: &[T], grad: &mut [T], scratch: &mut [T]) -> f64 {
        let (own, full, all, _) = self.cut(w, scratch);
        let loss = self.whole.loss_grad(full, all, own);
        self.gather(all, grad);
        loss
    }

    fn batch_loss_grad(&self, w: &[T], rows: &[u32], grad: &mut [T], scratch: &mut [T]) -> f64 {
        let (own, full, all, _) = self.cut(w, scratch);
        let loss = self.whole.batch_loss_grad(full, rows, all, own);
        self.gather(all, grad);
        loss
    }

    fn hvp(&self, w: &[T], v: &[T], rows: Option<&[u32]>, hv: &mut [T], scratch: &mut [T]) {
        let (own, full, along, product) = self.cut(w, scratch);
        along.fill(T::ZERO);
        self.scatter(v, along);
        self.whole.hvp(full, along, rows, product, own);
        self.gather(product, hv);
    }

    fn batch_cost(&self, batch: usize) -> f64 {
        self.whole.batch_cost(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::QuadraticPotential;

    #[test]
    fn the_others_stay_where_they_are() {
        let whole = QuadraticPotential::new(&[1.0, 10.0, 100.0]);
        let restricted = RestrictedPotential::new(&whole, vec![0.0, 2.0, 3.0], &[0, 2]);
        let mut scratch = vec![f64::NAN; restricted.scratch_len()];
        let mut grad = [f64::NAN; 2];
        assert_eq!(restricted.choose(&[0.0, 2.0, 3.0]), [0.0, 3.0]);
        // ½(1·16 + 10·4 + 100·25)
        assert_eq!(restricted.loss_grad(&[4.0, 5.0], &mut grad, &mut scratch), 1278.0);
        assert_eq!(grad, [4.0, 500.0]);
        restricted.hvp(&[4.0, 5.0], &[1.0, -1.0], None, &mut grad, &mut scratch);
        assert_eq!(grad, [1.0, -100.0]);
    }
}
