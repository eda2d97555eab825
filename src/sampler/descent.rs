//! How far below w* the loss goes: what L0 is worth.

use super::chain::Scratch;
use super::posterior::Posterior;
use crate::device::Element;
use crate::num::sum_of;

/// Gradients spent on it.
pub const GRADIENTS: usize = 60;
/// Factor on a step that went up.
const SHORTER: f64 = 0.25;

/// The smallest loss that gradient descent from w* finds with steps of Barzilai & Borwein (1988, first
/// form), shortened where the loss would rise; and the gradients it took. At a w* that is a minimum
/// this is L(w*), after one gradient.
pub fn lowest_loss<T: Element>(posterior: &Posterior<'_, T>) -> (f64, f64) {
    let potential = posterior.potential();
    let mut scratch = Scratch::plain(posterior);
    let mut w = posterior.centre().to_vec();
    let mut grad = vec![T::ZERO; w.len()];
    let mut loss = potential.loss_grad(&w, &mut grad, &mut scratch.potential);
    let mut step: Option<f64> = None;
    let mut spent = 1;
    while spent < GRADIENTS {
        let square = sum_of(&grad, &grad, |g, _| g * g);
        // A drop below rounding is none.
        let length = step.unwrap_or(loss.abs().max(f64::MIN_POSITIVE) / square);
        if !(square.is_finite() && length * square > 1e-14 * loss.abs() && square > 0.0) {
            break;
        }
        for ((next, &w), &g) in scratch.w.iter_mut().zip(&w).zip(&grad) {
            *next = w - T::from_f64(length) * g;
        }
        let after = potential.loss_grad(&scratch.w, &mut scratch.grad, &mut scratch.potential);
        spent += 1;
        if after.is_nan() || after > loss {
            step = Some(SHORTER * length);
            continue;
        }
        // sᵀs/sᵀy with s = −length·g and y the change of the gradient.
        let along = square - sum_of(&grad, &scratch.grad, |g, next| g * next);
        step = Some(if along > 0.0 { length * square / along } else { 2.0 * length });
        std::mem::swap(&mut w, &mut scratch.w);
        std::mem::swap(&mut grad, &mut scratch.grad);
        loss = after;
    }
    (loss.min(posterior.l0()), spent as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::testing::Quadratic;

    #[test]
    fn descent_finds_the_bottom_and_stays_where_it_is_there() {
        let target = Quadratic::new(&[1.0, 3.0, 10.0]);
        let off = [0.3, -0.2, 0.1];
        let posterior = Posterior::new(&target, &off, 100.0, 1.0).expect("finite");
        let (lowest, _) = lowest_loss(&posterior);
        assert!(lowest < 1e-9 * posterior.l0(), "{lowest}");
        let bottom = [0.0; 3];
        let posterior = Posterior::new(&target, &bottom, 100.0, 1.0).expect("finite");
        assert_eq!(lowest_loss(&posterior), (0.0, 1.0));
    }
}
