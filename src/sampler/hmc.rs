//! Hamiltonian Monte Carlo with step size and trajectory length jittered every iteration.
//!
//! Kinetic energy ½ pᵀM⁻¹p with a diagonal metric M⁻¹; the leapfrog integrator and accept/reject of
//! Duane et al. 1987 (Neal 2011, §5.3). Each iteration integrates with ε·U(0.2, 1) for a number of
//! steps uniform on {1, …, 2L−1}, of mean L = `num_integration_steps`.

use super::chain::{Iterations, Kernel, Scratch};
use super::leapfrog::{Leapfrog, SHORTEST, State, Trajectory, burn_in, control_draws, layout};
use super::posterior::Posterior;
use super::windowed::{self, Schedule};
use super::{Adapted, Method, Role, SamplerError, Work};
use crate::config::Hmc;
use crate::device::Element;
use crate::num::rng::{Key, Purpose, index, uniform};
use crate::resume::Desk;
use crate::trace::Column;

/// HMC ready to run one chain.
#[derive(Debug)]
pub struct HmcKernel<T> {
    pub(super) leapfrog: Leapfrog<T>,
    pub(super) steps: usize,
    pub(super) iterations: Iterations,
}

impl<T: Element> HmcKernel<T> {
    /// The kernel of one chain; the control chain takes half the step and twice as many of them.
    pub fn new(spec: &Hmc, adapted: &Adapted, role: Role) -> Self {
        let (shrink, steps, draws) = match role {
            Role::Main => (1.0, spec.num_integration_steps, spec.draws),
            Role::Control => (0.5, 2 * spec.num_integration_steps, control_draws(spec.draws)),
        };
        let iterations = Iterations::dropping(burn_in(spec.warmup), draws);
        Self { leapfrog: Leapfrog::adapted(adapted, shrink), steps, iterations }
    }
}

fn transition<T: Element>(
    leapfrog: &Leapfrog<T>,
    steps: usize,
    posterior: &Posterior<'_, T>,
    state: &mut State<T>,
    iteration: u64,
    key: &Key,
    scratch: &mut Scratch<T>,
) -> Trajectory {
    let mut rng = key.at(iteration);
    let step = leapfrog.step_size * (SHORTEST + (1.0 - SHORTEST) * uniform(&mut rng));
    let count = 1 + index(&mut rng, 2 * steps - 1);
    let threshold = uniform(&mut rng);
    leapfrog.propose(posterior, state, &mut rng, (step, count), threshold, scratch)
}

impl<T: Element> Kernel<T> for HmcKernel<T> {
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
        State::start(posterior, scratch)
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
        let t = transition(&self.leapfrog, self.steps, posterior, state, iteration, key, scratch);
        t.fill(posterior, state, row);
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

impl Method for Hmc {
    type Kernel<T: Element> = HmcKernel<T>;

    fn layout(&self) -> Vec<Column> {
        layout()
    }

    fn is_exact(&self, _dim: usize) -> bool {
        true
    }

    fn bias_at_half_step(&self) -> Option<f64> {
        Some(0.0)
    }

    fn work(&self, _rows: usize, _dim: usize) -> Work {
        let steps = self.num_integration_steps as f64;
        let burn_in = burn_in(self.warmup) as f64;
        Work {
            warmup: steps * self.warmup as f64,
            chain: steps * (burn_in + self.draws as f64),
            control: 2.0 * steps * (burn_in + control_draws(self.draws) as f64),
        }
    }

    fn warmup<T: Element>(
        &self,
        posterior: &Posterior<'_, T>,
        id: [u8; 32],
        desk: &mut Desk<'_>,
    ) -> Result<Adapted, SamplerError> {
        let key = Key::new(id, Purpose::Warmup, 0);
        let schedule = Schedule {
            warmup: self.warmup,
            step_size: self.step_size,
            target_acceptance: self.target_acceptance,
            points: None,
        };
        let mut scratch = Scratch::plain(posterior);
        let steps = self.num_integration_steps;
        let walk = |leapfrog: &_, state: &mut _, iteration, scratch: &mut _| {
            transition(leapfrog, steps, posterior, state, iteration, &key, scratch)
        };
        windowed::warmup(schedule, posterior, &key, &mut scratch, desk, walk).map(|(adapted, _)| adapted)
    }

    fn kernel<T: Element>(&self, _: &Posterior<'_, T>, adapted: &Adapted, role: Role) -> HmcKernel<T> {
        HmcKernel::new(self, adapted, role)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::testing::Quadratic;

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
        let adapted = spec.warmup(&posterior, [1; 32], &mut Desk::unwatched()).expect("adapts");
        for (v, h) in adapted.inverse_mass.iter().zip([1.0, 100.0, 10_000.0]) {
            let exact = 1.0 / (10.0 * h + 1.0);
            // The last window has 950 − 450 doubled draws; a variance from 500 has an error of 6 %.
            assert!((v / exact - 1.0).abs() < 4.0 * 0.09, "{v} {exact}");
        }
    }
}
