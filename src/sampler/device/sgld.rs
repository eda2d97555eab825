//! SGLD on a device: what its steps go by, and its state.

use super::minibatch::{Numbers, Parts, Sampler};
use crate::config::{Precond, Sgld};
use crate::device::Element;
use crate::device::gpu::Kernel;
use crate::sampler::Adapted;
use crate::sampler::Role;
use crate::sampler::sgld::{State, lengths};
use crate::sampler::stochastic::{Lengths, step_of};

/// SGLD, plain or preconditioned, without `gamma_term`.
pub struct Langevin<'a> {
    spec: &'a Sgld,
    step_size: f64,
}

impl<'a> Langevin<'a> {
    pub fn new(spec: &'a Sgld, adapted: &Adapted, role: Role) -> Self {
        Self { spec, step_size: step_of(role, adapted.step_size) }
    }
}

impl<T: Element> Sampler<T> for Langevin<'_> {
    type State = State<T>;

    const KERNELS: [Kernel; 2] = [Kernel::SgldSteps, Kernel::SgldStepsWide];
    const START: f64 = 0.0;

    fn lengths(&self) -> Lengths {
        lengths(self.spec)
    }

    fn batch_size(&self) -> usize {
        self.spec.batch_size
    }

    fn numbers(&self) -> Numbers {
        let Sgld { beta1, beta2, eps, bias_correction, precond, freeze_precond, warmup, .. } = *self.spec;
        Numbers {
            step_size: self.step_size,
            beta1,
            beta2,
            eps,
            friction: 0.0,
            precond: match precond {
                Precond::None => 0,
                Precond::Rmsprop => 1,
                Precond::Adam => 2,
            },
            bias_correction,
            frozen_from: freeze_precond.then_some(warmup),
        }
    }

    fn start(&self, centre: &[T]) -> State<T> {
        State::at(centre, self.spec)
    }

    /// `first` and `second` are the moments M and V; the numbers β1ᵗ and β2ᵗ.
    fn parts<'s>(&self, state: &'s State<T>) -> Parts<&'s [T]> {
        let State { w, first, second, powers, .. } = state;
        Parts { w, first, second, numbers: [powers.0, powers.1] }
    }

    fn take(&self, state: &mut State<T>, parts: &Parts<&[T]>, fge: f64) {
        state.w.copy_from_slice(parts.w);
        state.first.copy_from_slice(parts.first);
        state.second.copy_from_slice(parts.second);
        (state.powers, state.fge) = ((parts.numbers[0], parts.numbers[1]), fge);
    }
}
