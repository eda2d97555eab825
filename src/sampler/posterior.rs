use super::SamplerError;
use crate::num::{Real, sum_of};
use crate::target::Potential;

/// The tempered, localised posterior of a target: log π(w) = −U(w) + const with
/// U(w) = nβ·(L_n(w) − L0) + (γ/2)‖w − w*‖².
pub struct Posterior<'a, T: Real> {
    potential: &'a dyn Potential<T>,
    centre: &'a [T],
    nbeta: f64,
    gamma: f64,
    l0: f64,
}

/// U, its parts, at one point.
#[derive(Clone, Copy, Debug)]
pub struct Energy {
    /// U(w)
    pub potential: f64,
    /// L_n(w)
    pub loss: f64,
}

impl<'a, T: Real> Posterior<'a, T> {
    /// The posterior around `centre` (length d) with inverse temperature `nbeta` = nβ > 0 and
    /// localiser `gamma` ≥ 0. L0 = L_n(centre) is computed here, in this arithmetic.
    ///
    /// # Errors
    /// [`SamplerError::Centre`] where the loss at the centre is not finite.
    pub fn new(
        potential: &'a dyn Potential<T>,
        centre: &'a [T],
        nbeta: f64,
        gamma: f64,
    ) -> Result<Self, SamplerError> {
        let mut scratch = vec![T::ZERO; potential.scratch_len()];
        let l0 = potential.loss(centre, &mut scratch);
        if !l0.is_finite() {
            return Err(SamplerError::Centre { loss: l0 });
        }
        Ok(Self { potential, centre, nbeta, gamma, l0 })
    }

    /// The same with llc measured from another loss.
    pub fn with_l0(self, l0: f64) -> Self {
        Self { l0, ..self }
    }

    /// L0, which llc is measured from: L_n(w*) in the sampler's arithmetic unless it was set.
    pub fn l0(&self) -> f64 {
        self.l0
    }

    /// Number of parameters d.
    pub fn dim(&self) -> usize {
        self.centre.len()
    }

    /// w*
    pub fn centre(&self) -> &[T] {
        self.centre
    }

    /// nβ
    pub fn nbeta(&self) -> f64 {
        self.nbeta
    }

    /// γ
    pub fn gamma(&self) -> f64 {
        self.gamma
    }

    /// The target's loss.
    pub fn potential(&self) -> &dyn Potential<T> {
        self.potential
    }

    /// llc = nβ·(L − L0)
    pub fn llc(&self, loss: f64) -> f64 {
        self.nbeta * (loss - self.l0)
    }

    /// U(w); `grad` becomes ∇U(w) = nβ ∇L_n(w) + γ(w − w*).
    pub fn energy_grad(&self, w: &[T], grad: &mut [T], scratch: &mut [T]) -> Energy {
        let loss = self.potential.loss_grad(w, grad, scratch);
        let (nbeta, gamma) = (T::from_f64(self.nbeta), T::from_f64(self.gamma));
        for ((g, &w), &c) in grad.iter_mut().zip(w).zip(self.centre) {
            *g = nbeta * *g + gamma * (w - c);
        }
        let square = sum_of(w, self.centre, |w, c| (w - c) * (w - c));
        Energy { potential: self.llc(loss) + 0.5 * self.gamma * square, loss }
    }
}
