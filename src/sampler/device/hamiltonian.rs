//! HMC and MALA on a device: leapfrog paths, accepted or rejected (`kernels/hamiltonian.cuh`).

use super::rounds::{Course, ROW, Sampler, Walk};
use crate::config::{Hmc, Mala};
use crate::device::Element;
use crate::device::gpu::Kernel;
use crate::sampler::hmc::HmcKernel;
use crate::sampler::leapfrog::{State, layout};
use crate::sampler::mala::{self, MalaKernel};
use crate::sampler::{Adapted, Role};

/// One of the two.
pub struct Hamiltonian<T> {
    course: Course<T>,
    /// The CPU's state of a chain that is done.
    finish: fn(State<T>) -> Result<Vec<u8>, postcard::Error>,
}

impl<T: Element> Hamiltonian<T> {
    pub fn hmc(spec: &Hmc, adapted: &Adapted, role: Role) -> Self {
        let HmcKernel { leapfrog, steps, iterations } = HmcKernel::new(spec, adapted, role);
        let step_size = leapfrog.step_size;
        let scale = leapfrog.inverse_mass;
        let course = Course { iterations, thin: 1, step_size, length: 0.0, steps, scale };
        Self { course, finish: |state| postcard::to_stdvec(&state) }
    }

    /// A path of MALA is one step, of size √ε.
    pub fn mala(spec: &Mala, adapted: &Adapted, role: Role) -> Self {
        let MalaKernel { leapfrog, thin, iterations } = MalaKernel::new(spec, adapted, role);
        let step_size = leapfrog.step_size;
        let scale = leapfrog.inverse_mass;
        let course = Course { iterations, thin, step_size, length: 0.0, steps: 1, scale };
        Self { course, finish: |state| postcard::to_stdvec(&mala::State::after_draw(state)) }
    }
}

impl<T: Element> Sampler<T> for Hamiltonian<T> {
    const KERNELS: [Kernel; 2] = [Kernel::HamiltonianRound, Kernel::HamiltonianRounds];

    fn course(&self) -> &Course<T> {
        &self.course
    }

    fn columns(&self) -> usize {
        layout().len()
    }

    fn draw(&self, llc: f64, &[loss, acceptance, energy, diverged, steps, fge]: &[f64; ROW]) -> Vec<f64> {
        vec![llc, loss, acceptance, energy, diverged, steps, fge]
    }

    fn final_state(&self, walk: Walk<T>) -> Result<Vec<u8>, postcard::Error> {
        (self.finish)(walk.end().0)
    }
}
