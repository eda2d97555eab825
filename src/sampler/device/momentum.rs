//! SGHMC and SGNHT on a device: what their steps go by, and their states.

use super::minibatch::{Numbers, Parts, Sampler};
use crate::config::{Sghmc, Sgnht};
use crate::device::Element;
use crate::device::gpu::Kernel;
use crate::sampler::stochastic::{Lengths, step_of};
use crate::sampler::{Adapted, Role, sghmc, sgnht};

/// Stochastic-gradient Hamiltonian Monte Carlo.
pub struct Friction<'a> {
    spec: &'a Sghmc,
    step_size: f64,
}

impl<'a> Friction<'a> {
    pub fn new(spec: &'a Sghmc, adapted: &Adapted, role: Role) -> Self {
        Self { spec, step_size: step_of(role, adapted.step_size) }
    }
}

impl<T: Element> Sampler<T> for Friction<'_> {
    type State = sghmc::State<T>;

    const KERNELS: [Kernel; 2] = [Kernel::SghmcSteps, Kernel::SghmcStepsWide];
    const START: f64 = 0.0;

    fn lengths(&self) -> Lengths {
        sghmc::lengths(self.spec)
    }

    fn batch_size(&self) -> usize {
        self.spec.batch_size
    }

    fn numbers(&self) -> Numbers {
        Numbers { step_size: self.step_size, friction: self.spec.friction, ..Numbers::default() }
    }

    fn start(&self, centre: &[T]) -> sghmc::State<T> {
        sghmc::State::at(centre)
    }

    /// `first` is the velocity.
    fn parts<'s>(&self, state: &'s sghmc::State<T>) -> Parts<&'s [T]> {
        Parts { w: &state.w, first: &state.v, second: &[], numbers: [0.0; 2] }
    }

    fn take(&self, state: &mut sghmc::State<T>, parts: &Parts<&[T]>, fge: f64) {
        state.w.copy_from_slice(parts.w);
        state.v.copy_from_slice(parts.first);
        state.fge = fge;
    }
}

/// The stochastic-gradient Nosé–Hoover thermostat.
pub struct Thermostat<'a, T> {
    spec: &'a Sgnht,
    step_size: f64,
    /// ∇U(w*), which the first half kick takes.
    force: Vec<T>,
}

impl<'a, T: Element> Thermostat<'a, T> {
    /// `slope` is ∇L(w*), where the localiser pulls nowhere.
    pub fn new(spec: &'a Sgnht, adapted: &Adapted, role: Role, nbeta: f64, slope: &[T]) -> Self {
        let force = slope.iter().map(|&g| T::from_f64(nbeta) * g).collect();
        Self { spec, step_size: step_of(role, adapted.step_size), force }
    }
}

impl<T: Element> Sampler<T> for Thermostat<'_, T> {
    type State = sgnht::State<T>;

    const KERNELS: [Kernel; 2] = [Kernel::SgnhtSteps, Kernel::SgnhtStepsWide];
    /// The gradient at w*.
    const START: f64 = 1.0;

    fn lengths(&self) -> Lengths {
        sgnht::lengths(self.spec)
    }

    fn batch_size(&self) -> usize {
        self.spec.batch_size
    }

    fn numbers(&self) -> Numbers {
        Numbers { step_size: self.step_size, friction: self.spec.friction, ..Numbers::default() }
    }

    fn start(&self, centre: &[T]) -> sgnht::State<T> {
        sgnht::State::at(centre, self.force.clone(), self.spec)
    }

    /// `first` is the momentum, `second` the last force; the number is the friction.
    fn parts<'s>(&self, state: &'s sgnht::State<T>) -> Parts<&'s [T]> {
        let sgnht::State { w, p, force, friction, .. } = state;
        Parts { w, first: p, second: force, numbers: [*friction, 0.0] }
    }

    fn take(&self, state: &mut sgnht::State<T>, parts: &Parts<&[T]>, fge: f64) {
        state.w.copy_from_slice(parts.w);
        state.p.copy_from_slice(parts.first);
        state.force.copy_from_slice(parts.second);
        (state.friction, state.fge) = (parts.numbers[0], fge);
    }
}
