//! What a family of approximations q(w) offers to the optimisation and to the draws.

use rand_chacha::ChaCha8Rng;

use super::hessian::Hessian;

/// Why parameters stand for no density.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum Unfit {
    #[error("the capacitance matrix of component {0} is singular")]
    Capacitance(usize),
    #[error("a width of the approximation is not finite")]
    Width,
}

/// The posterior near w* to second order: U(w* + δ) ≈ nβ(gᵀδ + ½δᵀHδ) + (γ/2)‖δ‖².
pub struct Local<'a> {
    pub nbeta: f64,
    pub gamma: f64,
    pub hessian: &'a Hessian,
}

/// Smallest posterior precision that is started from, as a share of the largest.
const FLATTEST: f64 = 1e-9;

impl Local<'_> {
    /// γ + nβ·h for the entries of a diagonal of H; kept above 0 where γ is 0.
    pub fn precisions(&self, diagonal: &[f64]) -> Vec<f64> {
        let largest = diagonal.iter().fold(0.0, |m: f64, h| m.max(self.nbeta * h)).max(self.gamma);
        let least = if largest > 0.0 { FLATTEST * largest } else { 1.0 };
        diagonal.iter().map(|h| (self.gamma + self.nbeta * h).max(least)).collect()
    }

    /// Standard deviations 1/√(γ + nβ·H_ii): the scale of coordinates.
    pub fn scales(&self) -> Vec<f64> {
        let diagonal = self.hessian.diagonal_beyond(0);
        self.precisions(&diagonal).into_iter().map(|a| 1.0 / a.sqrt()).collect()
    }

    /// δᵀ(nβH + γ)δ, H by `product`.
    pub fn bend(&self, delta: &[f64], product: Product, out: &mut [f64]) -> f64 {
        product(delta, out);
        self.nbeta * super::hessian::dot(delta, out) + self.gamma * super::hessian::dot(delta, delta)
    }
}

/// out = H·v.
pub type Product<'a> = &'a mut dyn FnMut(&[f64], &mut [f64]);

/// A parametric density over δ = w − w* that can be drawn from in strata of known weight: the
/// components of a mixture, or one stratum alone.
///
/// Methods take the parameters φ and buffers of the lengths that [`lengths`](Guide::lengths) names;
/// [`prepare`](Guide::prepare) fills what depends on φ alone, and is called after every change of φ.
/// Only [`start`](Guide::start) may allocate.
pub trait Guide {
    /// Number of parameters.
    fn parameters(&self) -> usize;

    /// Lengths of the buffers.
    fn lengths(&self) -> Vec<usize>;

    /// Strata, ≥ 1.
    fn strata(&self) -> usize {
        1
    }

    /// Draws of each stratum that a step of the optimisation makes.
    fn draws_a_step(&self) -> usize {
        1
    }

    /// Where the optimisation starts.
    fn start(&self, phi: &mut [f64], local: &Local, rng: &mut ChaCha8Rng, product: Product);

    /// Multiplies the width of the approximation around its centre by `factor`.
    fn widen(&self, phi: &mut [f64], factor: f64);

    /// The size of a step of 1 in each parameter where coordinates have the scales `scales`.
    fn units(&self, scales: &[f64], out: &mut [f64]);

    /// Fills the buffers from φ.
    ///
    /// # Errors
    /// Where φ stands for no density, with the reason.
    fn prepare(&self, phi: &[f64], work: &mut [Vec<f64>]) -> Result<(), Unfit>;

    /// Weight of a stratum.
    fn weight(&self, work: &[Vec<f64>], stratum: usize) -> f64;

    /// A stratum, drawn by weight from a uniform variate.
    fn pick(&self, work: &[Vec<f64>], uniform: f64) -> usize {
        let mut sum = 0.0;
        for stratum in 0..self.strata() {
            sum += self.weight(work, stratum);
            if uniform < sum {
                return stratum;
            }
        }
        self.strata() - 1
    }

    /// A draw of the stratum, into `delta`; returns ln q(w) of the whole density.
    fn draw(
        &self,
        phi: &[f64],
        work: &mut [Vec<f64>],
        stratum: usize,
        rng: &mut ChaCha8Rng,
        delta: &mut [f64],
    ) -> f64;

    /// After a draw: adds `factor` times the gradient by φ of ln π(w(φ)) − ln q(w(φ)), an unbiased
    /// one of E[ln π − ln q] over the stratum. `delta` is the draw, `target` holds ∇ ln π there, and is
    /// spoilt.
    #[expect(clippy::too_many_arguments, reason = "a reverse pass takes all that the forward one made")]
    fn pull(
        &self,
        phi: &[f64],
        work: &mut [Vec<f64>],
        stratum: usize,
        delta: &[f64],
        target: &mut [f64],
        factor: f64,
        out: &mut [f64],
    );

    /// Adds the gradient of Σ_m weight_m·f_m by the weights' parameters, `differences` holding f_m =
    /// ln π − ln q at a draw of each stratum, and that of the penalties on weights.
    fn weigh(&self, _work: &[Vec<f64>], _differences: &[f64], _out: &mut [f64]) {}

    /// The control variate of the last draw before its mean is taken off: nβ(gᵀδ̂ + ½δ̂ᵀH̃δ̂), where
    /// δ̂ is the draw, or one whose first two moments are known in its place.
    fn quadratic(&self, phi: &[f64], work: &mut [Vec<f64>], local: &Local, delta: &[f64]) -> f64;

    /// Its exact mean under q.
    fn quadratic_mean(&self, phi: &[f64], work: &mut [Vec<f64>], local: &Local) -> f64;
}
