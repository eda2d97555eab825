//! The shared warmup of the Hamiltonian samplers: step size and metric by Stan's windows.

use super::adapt::{DualAveraging, Variances, Windows};
use super::chain::Scratch;
use super::leapfrog::{Leapfrog, State, Trajectory};
use super::posterior::Posterior;
use super::{Adapted, SamplerError};
use crate::num::Real;
use crate::num::rng::Key;

/// What the windows adapt.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Iterations.
    pub warmup: usize,
    /// The first step size.
    pub step_size: f64,
    /// Mean acceptance that dual averaging aims at.
    pub target_acceptance: f64,
}

/// Adapts step size and metric once for all chains. `transition` is the sampler's iteration.
pub fn warmup<T: Real>(
    schedule: Schedule,
    posterior: &Posterior<'_, T>,
    key: &Key,
    scratch: &mut Scratch<T>,
    mut transition: impl FnMut(&Leapfrog<T>, &mut State<T>, u64, &mut Scratch<T>) -> Trajectory,
) -> Result<Adapted, SamplerError> {
    let Schedule { warmup, step_size, target_acceptance } = schedule;
    let d = posterior.dim();
    let mut adapted = Adapted { step_size, inverse_mass: vec![1.0; d], ..Adapted::default() };
    if warmup == 0 {
        return Ok(adapted);
    }
    let mut leapfrog = Leapfrog::<T>::new(step_size, &adapted.inverse_mass);
    let mut state = State::start(posterior, scratch)?;
    let windows = Windows::new(warmup);
    let mut variances = Variances::new(d);
    // Searches for a first step use iterations of their own, far beyond any warmup's.
    let mut search = 1 << 39;
    leapfrog.step_size = first_step(&leapfrog, posterior, &mut state, key, &mut search, scratch);
    let mut averaging = DualAveraging::new(leapfrog.step_size, target_acceptance);
    for iteration in 0..warmup {
        let t = transition(&leapfrog, &mut state, iteration as u64, scratch);
        averaging.update(t.acceptance);
        leapfrog.step_size = averaging.step();
        if windows.collects(iteration) {
            variances.push(state.w.iter().map(|w| w.to_f64()));
        }
        if windows.ends_after(iteration) {
            if let Some(metric) = variances.regularised() {
                leapfrog = Leapfrog::new(averaging.average(), &metric);
                adapted.inverse_mass = metric;
                leapfrog.step_size = first_step(&leapfrog, posterior, &mut state, key, &mut search, scratch);
                averaging = DualAveraging::new(leapfrog.step_size, target_acceptance);
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
    leapfrog: &Leapfrog<T>,
    posterior: &Posterior<'_, T>,
    state: &mut State<T>,
    key: &Key,
    search: &mut u64,
    scratch: &mut Scratch<T>,
) -> f64 {
    let mut step = leapfrog.step_size;
    let mut direction = 0.0;
    for _ in 0..60 {
        let mut rng = key.at(*search);
        *search += 1;
        let flight = leapfrog.fly(posterior, state, &mut rng, (step, 1), scratch);
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
