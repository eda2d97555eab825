//! What the Hamiltonian samplers share: their state, the diagonal metric and the leapfrog integrator.

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::chain::Scratch;
use super::posterior::{Energy, Posterior};
use super::{Adapted, SamplerError};
use crate::device::{Element, fill_normal};
use crate::num::sum_of;
use crate::trace::{Column, Kind};

/// Energy error beyond which a trajectory has diverged (Stan's value).
pub const DIVERGENT: f64 = 1000.0;
/// Whether an energy error is beyond that, or no number.
pub fn has_diverged(error: f64) -> bool {
    !error.is_finite() || error > DIVERGENT
}

/// Smallest factor on the step size, which every iteration draws anew: a fixed step never enters the
/// stiff arms of singular posteriors, and passes every check of mixing while it does not.
pub const SHORTEST: f64 = 0.2;
/// Fewest iterations that a chain drops at its start: it starts at w*, the least typical point.
const SHORTEST_BURN_IN: usize = 100;

/// Iterations dropped at the start of each chain after a shared warmup of so many.
pub fn burn_in(warmup: usize) -> usize {
    (warmup / 2).max(SHORTEST_BURN_IN)
}

/// Draws of a control chain.
pub fn control_draws(draws: usize) -> usize {
    (draws / 2).max(100)
}

/// Where a chain is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State<T> {
    pub w: Vec<T>,
    /// ∇U(w)
    pub grad: Vec<T>,
    pub energy: f64,
    pub loss: f64,
    pub fge: f64,
}

impl<T: Element> State<T> {
    /// The state at w*.
    pub fn start(posterior: &Posterior<'_, T>, scratch: &mut Scratch<T>) -> Result<Self, SamplerError> {
        let w = posterior.centre().to_vec();
        let mut grad = vec![T::ZERO; w.len()];
        let Energy { potential, loss } = posterior.energy_grad(&w, &mut grad, &mut scratch.potential);
        if !(potential.is_finite() && grad.iter().all(|g| g.is_finite())) {
            return Err(SamplerError::Centre { loss });
        }
        Ok(Self { w, grad, energy: potential, loss, fge: 1.0 })
    }
}

/// What one iteration did.
pub struct Trajectory {
    pub acceptance: f64,
    /// The Hamiltonian of the state that was kept, with the momentum it was kept with, as in Stan's
    /// `energy__`.
    pub energy: f64,
    pub diverged: bool,
    pub steps: usize,
}

impl Trajectory {
    /// The draw that it ends in, in the order of [`layout`].
    pub fn fill<T: Element>(&self, posterior: &Posterior<'_, T>, state: &State<T>, row: &mut [f64]) {
        row.copy_from_slice(&[
            posterior.llc(state.loss),
            state.loss,
            self.acceptance,
            self.energy,
            f64::from(u8::from(self.diverged)),
            self.steps as f64,
            state.fge,
        ]);
    }
}

/// Columns of a Hamiltonian sampler's trace.
pub fn layout() -> Vec<Column> {
    vec![
        Column::posterior("llc"),
        Column::posterior("L"),
        Column::stat("acceptance_rate", Kind::Float),
        Column::stat("energy", Kind::Float),
        Column::stat("diverging", Kind::Bool),
        Column::stat("n_steps", Kind::Int),
        Column::stat("cumulative_fge", Kind::Float),
    ]
}

/// One integration: total energy at both ends, the potential's part at the far one, steps taken.
pub struct Flight {
    pub before: f64,
    pub after: f64,
    pub end: Energy,
    pub steps: usize,
}

/// Kinetic energy ½ pᵀM⁻¹p with a diagonal M⁻¹, and a step size.
#[derive(Debug)]
pub struct Leapfrog<T> {
    pub step_size: f64,
    /// Diagonal of M⁻¹ and of M^½.
    pub inverse_mass: Vec<T>,
    root_mass: Vec<T>,
}

impl<T: Element> Leapfrog<T> {
    pub fn new(step_size: f64, inverse_mass: &[f64]) -> Self {
        Self {
            step_size,
            inverse_mass: inverse_mass.iter().map(|&v| T::from_f64(v)).collect(),
            root_mass: inverse_mass.iter().map(|&v| T::from_f64(1.0 / v.sqrt())).collect(),
        }
    }

    /// As adapted, with a step shorter by `shrink`.
    pub fn adapted(adapted: &Adapted, shrink: f64) -> Self {
        Self::new(adapted.step_size * shrink, &adapted.inverse_mass)
    }

    pub fn kinetic(&self, p: &[T]) -> f64 {
        0.5 * sum_of(p, &self.inverse_mass, |p, m| p * p * m)
    }

    pub fn draw_momentum(&self, rng: &mut ChaCha8Rng, p: &mut [T]) {
        fill_normal(rng, p);
        for (p, &r) in p.iter_mut().zip(&self.root_mass) {
            *p *= r;
        }
    }

    /// Integrates `count` steps from (w, p) with gradient `grad`, in place; stops early where the
    /// energy is no longer finite. Returns the last energy and the steps taken. A negative `step`
    /// goes backward.
    pub fn integrate(
        &self,
        posterior: &Posterior<'_, T>,
        (w, p, grad): (&mut [T], &mut [T], &mut [T]),
        step: f64,
        count: usize,
        scratch: &mut [T],
    ) -> (Energy, usize) {
        let (step, half) = (T::from_f64(step), T::from_f64(0.5 * step));
        let mut energy = Energy { potential: f64::NAN, loss: f64::NAN };
        for taken in 1..=count {
            for (((w, p), &g), &m) in w.iter_mut().zip(p.iter_mut()).zip(grad.iter()).zip(&self.inverse_mass)
            {
                *p -= half * g;
                *w += step * m * *p;
            }
            energy = posterior.energy_grad(w, grad, scratch);
            for (p, &g) in p.iter_mut().zip(grad.iter()) {
                *p -= half * g;
            }
            if !energy.potential.is_finite() {
                return (energy, taken);
            }
        }
        (energy, count)
    }

    /// Draws a momentum and integrates from the state into the scratch's point.
    pub fn fly(
        &self,
        posterior: &Posterior<'_, T>,
        state: &mut State<T>,
        rng: &mut ChaCha8Rng,
        (step, count): (f64, usize),
        scratch: &mut Scratch<T>,
    ) -> Flight {
        self.draw_momentum(rng, &mut scratch.p);
        let before = state.energy + self.kinetic(&scratch.p);
        scratch.w.copy_from_slice(&state.w);
        scratch.grad.copy_from_slice(&state.grad);
        let path = (&mut scratch.w[..], &mut scratch.p[..], &mut scratch.grad[..]);
        let (end, steps) = self.integrate(posterior, path, step, count, &mut scratch.potential);
        state.fge += steps as f64;
        Flight { before, after: end.potential + self.kinetic(&scratch.p), end, steps }
    }

    /// Flies, and accepts or rejects the end (Metropolis et al. 1953; Duane et al. 1987).
    pub fn propose(
        &self,
        posterior: &Posterior<'_, T>,
        state: &mut State<T>,
        rng: &mut ChaCha8Rng,
        path: (f64, usize),
        threshold: f64,
        scratch: &mut Scratch<T>,
    ) -> Trajectory {
        let Flight { before, after, end, steps } = self.fly(posterior, state, rng, path, scratch);
        let error = after - before;
        // An energy of −∞ is as wild as one of +∞: accepted, it would never be left.
        let diverged = has_diverged(error);
        let acceptance = if diverged { 0.0 } else { libm::exp(-error).min(1.0) };
        if threshold < acceptance {
            std::mem::swap(&mut state.w, &mut scratch.w);
            std::mem::swap(&mut state.grad, &mut scratch.grad);
            (state.energy, state.loss) = (end.potential, end.loss);
            return Trajectory { acceptance, energy: after, diverged, steps };
        }
        Trajectory { acceptance, energy: before, diverged, steps }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::testing::Quadratic;

    /// A trajectory of `count` steps of size `step` from a fixed point; the energy error at its end.
    fn error(step: f64, count: usize) -> f64 {
        let target = Quadratic::new(&[0.5, 3.0, 10.0]);
        let centre = [0.0; 3];
        let posterior = Posterior::new(&target, &centre, 1.0, 0.3).expect("finite");
        let leapfrog = Leapfrog::new(0.1, &[0.7; 3]);
        let (mut w, mut p) = (vec![0.3, -0.4, 0.2], vec![0.5, 0.1, -0.7]);
        let mut grad = vec![0.0; 3];
        let start = posterior.energy_grad(&w, &mut grad, &mut []).potential + leapfrog.kinetic(&p);
        let (end, _) = leapfrog.integrate(&posterior, (&mut w, &mut p, &mut grad), step, count, &mut []);
        end.potential + leapfrog.kinetic(&p) - start
    }

    #[test]
    fn the_energy_error_of_leapfrog_is_of_second_order() {
        let ratio = error(0.02, 50) / error(0.01, 100);
        assert!((ratio - 4.0).abs() < 0.1, "{ratio}");
    }

    #[test]
    fn leapfrog_is_reversible() {
        let target = Quadratic::new(&[0.5, 3.0, 10.0]);
        let centre = [0.0; 3];
        let posterior = Posterior::new(&target, &centre, 1.0, 0.3).expect("finite");
        let leapfrog = Leapfrog::new(0.1, &[0.7; 3]);
        let (w0, p0) = (vec![0.3, -0.4, 0.2], vec![0.5, 0.1, -0.7]);
        let (mut w, mut p, mut grad) = (w0.clone(), p0.clone(), vec![0.0; 3]);
        posterior.energy_grad(&w, &mut grad, &mut []);
        leapfrog.integrate(&posterior, (&mut w, &mut p, &mut grad), 0.1, 100, &mut []);
        p.iter_mut().for_each(|p| *p = -*p);
        leapfrog.integrate(&posterior, (&mut w, &mut p, &mut grad), 0.1, 100, &mut []);
        for i in 0..3 {
            assert!((w[i] - w0[i]).abs() < 1e-10 && (p[i] + p0[i]).abs() < 1e-10);
        }
    }
}
