//! Unadjusted MCLMC on a device: isokinetic steps (`kernels/microcanonical.cuh`).

use super::rounds::{Course, ROW, Sampler, Walk};
use crate::config::Mclmc;
use crate::device::Element;
use crate::device::gpu::Kernel;
use crate::sampler::mclmc::{MclmcKernel, State, layout};
use crate::sampler::microcanonical::gradients;
use crate::sampler::{Adapted, Role};

/// Fewest dimensions of a direction that turns.
const FEWEST_DIMENSIONS: usize = 2;

/// Why there is no kernel for the settings in `dim` dimensions; `None` where there is one.
pub fn has_no_kernel(spec: &Mclmc, dim: usize) -> Option<String> {
    if spec.is_adjusted(dim) {
        return Some("adjusted trajectories of mclmc have no kernel for a device".to_owned());
    }
    (dim < FEWEST_DIMENSIONS).then(|| format!("mclmc needs at least {FEWEST_DIMENSIONS} parameters"))
}

/// The unadjusted variant.
pub struct Microcanonical<T>(Course<T>);

impl<T: Element> Microcanonical<T> {
    pub fn new(spec: &Mclmc, adapted: &Adapted, role: Role, dim: usize) -> Self {
        let MclmcKernel { walk, thin, iterations, .. } = MclmcKernel::new(spec, adapted, role, dim);
        Self(Course {
            iterations,
            thin: thin as u64,
            step_size: walk.step_size,
            length: walk.length,
            steps: gradients(walk.integrator) as usize,
            scale: walk.scales,
        })
    }
}

impl<T: Element> Sampler<T> for Microcanonical<T> {
    const KERNELS: [Kernel; 2] = [Kernel::MicrocanonicalRound, Kernel::MicrocanonicalRounds];

    fn course(&self) -> &Course<T> {
        &self.0
    }

    fn columns(&self) -> usize {
        layout().len()
    }

    /// Every move is kept: its acceptance is 1.
    fn draw(&self, llc: f64, &[loss, error, diverged, fge, ..]: &[f64; ROW]) -> Vec<f64> {
        vec![llc, loss, 1.0, error, diverged, fge]
    }

    fn final_state(&self, walk: Walk<T>) -> Result<Vec<u8>, postcard::Error> {
        let (at, direction, diverged) = walk.end();
        postcard::to_stdvec(&State::after_draw(at, direction, diverged))
    }
}
