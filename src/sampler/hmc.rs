//! Hamiltonian Monte Carlo with step size and trajectory length jittered every iteration.
//!
//! Kinetic energy ½ pᵀM⁻¹p with a diagonal metric M⁻¹; the leapfrog integrator and accept/reject of
//! Duane et al. 1987 (Neal 2011, §5.3). Each iteration integrates with ε·U(0.2, 1) for a number of
//! steps uniform on {1, …, 2L−1}, of mean L = `num_integration_steps`: a fixed step never enters
//! the stiff arms of singular posteriors, and passes every check of mixing while it does not.

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::adapt::{DualAveraging, Variances, Windows};
use super::chain::{Iterations, Kernel, Scratch};
use super::posterior::{Energy, Posterior};
use super::{Adapted, Role, SamplerError};
use crate::config::Hmc;
use crate::num::rng::{Key, fill_normal, index, uniform};
use crate::num::{Real, sum_of};
use crate::trace::{Column, Kind};

/// Smallest factor on the step size.
const SHORTEST: f64 = 0.2;
/// Energy error beyond which a trajectory has diverged (Stan's value).
const DIVERGENT: f64 = 1000.0;
/// Fewest iterations that a chain drops at its start: it starts at w*, the least typical point.
const SHORTEST_BURN_IN: usize = 100;

/// HMC ready to run one chain.
#[derive(Debug)]
pub struct HmcKernel<T> {
    step_size: f64,
    /// Diagonal of M⁻¹ and of M^½.
    inverse_mass: Vec<T>,
    root_mass: Vec<T>,
    steps: usize,
    iterations: Iterations,
}

/// Where a chain is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State<T> {
    w: Vec<T>,
    /// ∇U(w)
    grad: Vec<T>,
    energy: f64,
    loss: f64,
    fge: f64,
}

/// What one trajectory did.
struct Trajectory {
    acceptance: f64,
    energy: f64,
    diverged: bool,
    steps: usize,
}

/// One integration: total energy at both ends, the potential's part at the far one, steps taken.
struct Flight {
    before: f64,
    after: f64,
    end: Energy,
    steps: usize,
}

/// Iterations dropped at the start of each chain.
pub fn burn_in(spec: &Hmc) -> usize {
    (spec.warmup / 2).max(SHORTEST_BURN_IN)
}

/// Draws of the control chain.
pub fn control_draws(spec: &Hmc) -> usize {
    (spec.draws / 2).max(100)
}

impl<T: Real> HmcKernel<T> {
    /// The kernel of one chain; the control chain takes half the step and twice as many of them.
    pub fn new(spec: &Hmc, adapted: &Adapted, role: Role) -> Self {
        let (shrink, steps, draws) = match role {
            Role::Main => (1.0, spec.num_integration_steps, spec.draws),
            Role::Control => (0.5, 2 * spec.num_integration_steps, control_draws(spec)),
        };
        let burn_in = burn_in(spec);
        let iterations = Iterations { burn_in: burn_in as u64, total: (burn_in + draws) as u64, draws };
        Self::with_metric(adapted.step_size * shrink, &adapted.inverse_mass, steps, iterations)
    }

    fn with_metric(step_size: f64, inverse_mass: &[f64], steps: usize, iterations: Iterations) -> Self {
        Self {
            step_size,
            inverse_mass: inverse_mass.iter().map(|&v| T::from_f64(v)).collect(),
            root_mass: inverse_mass.iter().map(|&v| T::from_f64(1.0 / v.sqrt())).collect(),
            steps,
            iterations,
        }
    }

    fn kinetic(&self, p: &[T]) -> f64 {
        0.5 * sum_of(p, &self.inverse_mass, |p, m| p * p * m)
    }

    /// Integrates `count` leapfrog steps from (w, p) with gradient `grad`, in place; stops early
    /// where the energy is no longer finite. Returns the last energy and the steps taken.
    fn leapfrog(
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
    fn fly(
        &self,
        posterior: &Posterior<'_, T>,
        state: &mut State<T>,
        rng: &mut ChaCha8Rng,
        (step, count): (f64, usize),
        scratch: &mut Scratch<T>,
    ) -> Flight {
        fill_normal(rng, &mut scratch.p);
        for (p, &r) in scratch.p.iter_mut().zip(&self.root_mass) {
            *p *= r;
        }
        let before = state.energy + self.kinetic(&scratch.p);
        scratch.w.copy_from_slice(&state.w);
        scratch.grad.copy_from_slice(&state.grad);
        let path = (&mut scratch.w[..], &mut scratch.p[..], &mut scratch.grad[..]);
        let (end, steps) = self.leapfrog(posterior, path, step, count, &mut scratch.potential);
        state.fge += steps as f64;
        Flight { before, after: end.potential + self.kinetic(&scratch.p), end, steps }
    }

    fn transition(
        &self,
        posterior: &Posterior<'_, T>,
        state: &mut State<T>,
        iteration: u64,
        key: &Key,
        scratch: &mut Scratch<T>,
    ) -> Trajectory {
        let mut rng = key.at(iteration);
        let step = self.step_size * (SHORTEST + (1.0 - SHORTEST) * uniform(&mut rng));
        let count = 1 + index(&mut rng, 2 * self.steps - 1);
        let threshold = uniform(&mut rng);
        let Flight { before, after, end, steps } =
            self.fly(posterior, state, &mut rng, (step, count), scratch);
        let error = after - before;
        // An energy of −∞ is as wild as one of +∞: accepted, it would never be left.
        let diverged = !error.is_finite() || error > DIVERGENT;
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

impl<T: Real> Kernel<T> for HmcKernel<T> {
    type State = State<T>;

    fn layout(&self) -> Vec<Column> {
        layout()
    }

    fn iterations(&self) -> Iterations {
        self.iterations
    }

    fn start(
        &self,
        posterior: &Posterior<'_, T>,
        scratch: &mut Scratch<T>,
    ) -> Result<State<T>, SamplerError> {
        let w = posterior.centre().to_vec();
        let mut grad = vec![T::ZERO; w.len()];
        let Energy { potential, loss } = posterior.energy_grad(&w, &mut grad, &mut scratch.potential);
        if !(potential.is_finite() && grad.iter().all(|g| g.is_finite())) {
            return Err(SamplerError::Centre { loss });
        }
        Ok(State { w, grad, energy: potential, loss, fge: 1.0 })
    }

    fn step(
        &self,
        posterior: &Posterior<'_, T>,
        state: &mut State<T>,
        iteration: u64,
        key: &Key,
        scratch: &mut Scratch<T>,
        row: &mut [f64],
    ) -> Result<bool, SamplerError> {
        let t = self.transition(posterior, state, iteration, key, scratch);
        row.copy_from_slice(&[
            posterior.llc(state.loss),
            state.loss,
            t.acceptance,
            t.energy,
            f64::from(u8::from(t.diverged)),
            t.steps as f64,
            state.fge,
        ]);
        Ok(true)
    }

    fn fge(&self, state: &State<T>) -> f64 {
        state.fge
    }

    /// An iteration is a trajectory of many gradients.
    fn stride(&self) -> u64 {
        1
    }
}

/// Columns of an HMC trace. `energy` is the Hamiltonian of the state that was kept, with the
/// momentum it was kept with, as in Stan's `energy__`.
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

/// Adapts step size and metric once for all chains, by Stan's windows.
pub fn warmup<T: Real>(spec: &Hmc, posterior: &Posterior<'_, T>, key: &Key) -> Result<Adapted, SamplerError> {
    let d = posterior.dim();
    let none = Iterations { burn_in: 0, total: 0, draws: 0 };
    let mut kernel =
        HmcKernel::<T>::with_metric(spec.step_size, &vec![1.0; d], spec.num_integration_steps, none);
    let mut adapted =
        Adapted { step_size: spec.step_size, inverse_mass: vec![1.0; d], fge: 0.0, predicted_bias: None };
    if spec.warmup == 0 {
        return Ok(adapted);
    }
    let mut scratch = Scratch::new(posterior, 0);
    let mut state = kernel.start(posterior, &mut scratch)?;
    let windows = Windows::new(spec.warmup);
    let mut variances = Variances::new(d);
    // Searches for a first step use iterations of their own, far beyond any warmup's.
    let mut search = 1 << 39;
    kernel.step_size = first_step(&mut kernel, posterior, &mut state, key, &mut search, &mut scratch);
    let mut averaging = DualAveraging::new(kernel.step_size, spec.target_acceptance);
    for iteration in 0..spec.warmup {
        let t = kernel.transition(posterior, &mut state, iteration as u64, key, &mut scratch);
        averaging.update(t.acceptance);
        kernel.step_size = averaging.step();
        if windows.collects(iteration) {
            variances.push(state.w.iter().map(|w| w.to_f64()));
        }
        if windows.ends_after(iteration) {
            if let Some(metric) = variances.regularised() {
                kernel =
                    HmcKernel::with_metric(averaging.average(), &metric, spec.num_integration_steps, none);
                adapted.inverse_mass = metric;
                kernel.step_size =
                    first_step(&mut kernel, posterior, &mut state, key, &mut search, &mut scratch);
                averaging = DualAveraging::new(kernel.step_size, spec.target_acceptance);
            }
            variances = Variances::new(d);
        }
    }
    adapted.step_size = averaging.average();
    adapted.fge = state.fge;
    if !(adapted.step_size.is_finite() && adapted.step_size > 0.0) {
        return Err(SamplerError::StepSize { step_size: adapted.step_size });
    }
    Ok(adapted)
}

/// A step whose single leapfrog step is accepted with probability near 0.8, by doubling or halving
/// from the present one (Hoffman & Gelman 2014, algorithm 4).
fn first_step<T: Real>(
    kernel: &mut HmcKernel<T>,
    posterior: &Posterior<'_, T>,
    state: &mut State<T>,
    key: &Key,
    search: &mut u64,
    scratch: &mut Scratch<T>,
) -> f64 {
    let mut step = kernel.step_size;
    let mut direction = 0.0;
    for _ in 0..60 {
        let mut rng = key.at(*search);
        *search += 1;
        let flight = kernel.fly(posterior, state, &mut rng, (step, 1), scratch);
        let up = flight.before - flight.after > libm::log(0.8);
        let wanted = if up { 1.0 } else { -1.0 };
        if direction == 0.0 {
            direction = wanted;
        } else if wanted != direction {
            break;
        }
        step *= if up { 2.0 } else { 0.5 };
    }
    step
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::rng::Purpose;
    use crate::sampler::testing::Quadratic;

    fn kernel(d: usize) -> HmcKernel<f64> {
        HmcKernel::with_metric(0.1, &vec![0.7; d], 5, Iterations { burn_in: 0, total: 0, draws: 0 })
    }

    /// A trajectory of 20 steps of size `step` from a fixed point; the energy error at its end.
    fn error(step: f64, count: usize) -> f64 {
        let target = Quadratic::new(&[0.5, 3.0, 10.0]);
        let centre = [0.0; 3];
        let posterior = Posterior::new(&target, &centre, 1.0, 0.3).expect("finite");
        let kernel = kernel(3);
        let (mut w, mut p) = (vec![0.3, -0.4, 0.2], vec![0.5, 0.1, -0.7]);
        let mut grad = vec![0.0; 3];
        let start = posterior.energy_grad(&w, &mut grad, &mut []).potential + kernel.kinetic(&p);
        let (end, _) = kernel.leapfrog(&posterior, (&mut w, &mut p, &mut grad), step, count, &mut []);
        end.potential + kernel.kinetic(&p) - start
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
        let kernel = kernel(3);
        let (w0, p0) = (vec![0.3, -0.4, 0.2], vec![0.5, 0.1, -0.7]);
        let (mut w, mut p, mut grad) = (w0.clone(), p0.clone(), vec![0.0; 3]);
        posterior.energy_grad(&w, &mut grad, &mut []);
        kernel.leapfrog(&posterior, (&mut w, &mut p, &mut grad), 0.1, 100, &mut []);
        p.iter_mut().for_each(|p| *p = -*p);
        kernel.leapfrog(&posterior, (&mut w, &mut p, &mut grad), 0.1, 100, &mut []);
        for i in 0..3 {
            assert!((w[i] - w0[i]).abs() < 1e-10 && (p[i] + p0[i]).abs() < 1e-10);
        }
    }

    #[test]
    fn warmup_finds_the_scales_of_a_quadratic() {
        let target = Quadratic::new(&[1.0, 100.0, 10_000.0]);
        let centre = [0.0; 3];
        let posterior = Posterior::new(&target, &centre, 10.0, 1.0).expect("finite");
        let spec = Hmc {
            draws: 1,
            warmup: 2000,
            num_integration_steps: 10,
            step_size: 0.01,
            target_acceptance: 0.9,
        };
        let adapted = warmup(&spec, &posterior, &Key::new([1; 32], Purpose::Warmup, 0)).expect("adapts");
        for (v, h) in adapted.inverse_mass.iter().zip([1.0, 100.0, 10_000.0]) {
            let exact = 1.0 / (10.0 * h + 1.0);
            // The last window has 950 − 450 doubled draws; a variance from 500 has an error of 6 %.
            assert!((v / exact - 1.0).abs() < 4.0 * 0.09, "{v} {exact}");
        }
    }
}
