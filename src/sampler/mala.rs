//! The Metropolis-adjusted Langevin algorithm (Roberts & Tweedie 1996).
//!
//! Proposal w' = w − (ε/2)M⁻¹∇U + √ε·M^(−½)ξ: a single leapfrog step of size √ε from a fresh
//! momentum, which is how it is computed. Each step draws √ε anew, as the other exact samplers do.

use serde::{Deserialize, Serialize};

use super::chain::{Iterations, Kernel, Scratch};
use super::leapfrog::{self, Leapfrog, SHORTEST, Trajectory, burn_in, control_draws, layout};
use super::posterior::Posterior;
use super::windowed::{self, Schedule};
use super::{Adapted, Method, Role, SamplerError, Work};
use crate::config::Mala;
use crate::device::Element;
use crate::num::rng::{Key, Purpose, uniform};
use crate::resume::Desk;
use crate::trace::Column;

/// Where the adaptation of ε starts.
const FIRST_STEP: f64 = 0.01;

/// MALA ready to run one chain.
#[derive(Debug)]
pub struct MalaKernel<T> {
    pub(super) leapfrog: Leapfrog<T>,
    pub(super) thin: u64,
    pub(super) iterations: Iterations,
}

impl<T: Element> MalaKernel<T> {
    /// The kernel of one chain; the control chain takes half the step √ε and twice as many steps a draw.
    pub fn new(spec: &Mala, adapted: &Adapted, role: Role) -> Self {
        let (shrink, thin, draws) = match role {
            Role::Main => (1.0, spec.thin, spec.draws),
            Role::Control => (0.5, 2 * spec.thin, control_draws(spec.draws)),
        };
        let iterations = Iterations::dropping(burn_in(spec.warmup), draws).thinned(thin);
        let leapfrog = Leapfrog::new(shrink * adapted.step_size.sqrt(), &adapted.inverse_mass);
        Self { leapfrog, thin: thin as u64, iterations }
    }
}

/// Where a chain is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State<T> {
    at: leapfrog::State<T>,
    /// Since the last draw: whether a step diverged, and the sum of acceptance probabilities.
    diverged: bool,
    acceptance: f64,
}

impl<T> State<T> {
    /// A chain right after a draw.
    pub(super) fn after_draw(at: leapfrog::State<T>) -> Self {
        Self { at, diverged: false, acceptance: 0.0 }
    }
}

fn transition<T: Element>(
    leapfrog: &Leapfrog<T>,
    posterior: &Posterior<'_, T>,
    state: &mut leapfrog::State<T>,
    iteration: u64,
    key: &Key,
    scratch: &mut Scratch<T>,
) -> Trajectory {
    let mut rng = key.at(iteration);
    let step = leapfrog.step_size * (SHORTEST + (1.0 - SHORTEST) * uniform(&mut rng));
    let threshold = uniform(&mut rng);
    leapfrog.propose(posterior, state, &mut rng, (step, 1), threshold, scratch)
}

impl<T: Element> Kernel<T> for MalaKernel<T> {
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
        leapfrog::State::start(posterior, scratch).map(State::after_draw)
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
        let mut t = transition(&self.leapfrog, posterior, &mut state.at, iteration, key, scratch);
        state.diverged |= t.diverged;
        state.acceptance += t.acceptance;
        let kept = (iteration + 1).is_multiple_of(self.thin);
        if kept {
            (t.diverged, t.acceptance) = (state.diverged, state.acceptance / self.thin as f64);
            t.fill(posterior, &state.at, row);
            (state.diverged, state.acceptance) = (false, 0.0);
        }
        Ok(kept)
    }

    fn fge(&self, state: &State<T>) -> f64 {
        state.at.fge
    }
}

impl Method for Mala {
    type Kernel<T: Element> = MalaKernel<T>;

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
        let length = |draws: usize, thin: usize| (thin * (burn_in(self.warmup) + draws)) as f64;
        Work {
            warmup: if self.step_size.is_none() { self.warmup as f64 } else { 0.0 },
            chain: length(self.draws, self.thin),
            control: length(control_draws(self.draws), 2 * self.thin),
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
            warmup: if self.step_size.is_some() { 0 } else { self.warmup },
            step_size: self.step_size.unwrap_or(FIRST_STEP).sqrt(),
            target_acceptance: self.target_acceptance,
            points: None,
        };
        let mut scratch = Scratch::plain(posterior);
        let (adapted, _) = windowed::warmup(
            schedule,
            posterior,
            &key,
            &mut scratch,
            desk,
            |leapfrog, state, iteration, scratch| {
                transition(leapfrog, posterior, state, iteration, &key, scratch)
            },
        )?;
        Ok(Adapted { step_size: adapted.step_size * adapted.step_size, ..adapted })
    }

    fn kernel<T: Element>(&self, _: &Posterior<'_, T>, adapted: &Adapted, role: Role) -> MalaKernel<T> {
        MalaKernel::new(self, adapted, role)
    }
}
