//! The shared warmup of the Hamiltonian samplers: step size and metric by Stan's windows.

use serde::{Deserialize, Serialize};

use super::adapt::{DualAveraging, Variances, Windows};
use super::chain::Scratch;
use super::leapfrog::{Leapfrog, State, Trajectory};
use super::posterior::Posterior;
use super::{Adapted, SamplerError};
use crate::device::Element;
use crate::num::rng::Key;
use crate::resume::{Desk, Progress};

/// What the windows adapt.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Iterations.
    pub warmup: usize,
    /// The first step size.
    pub step_size: f64,
    /// Mean acceptance that dual averaging aims at.
    pub target_acceptance: f64,
    /// Points are kept from this iteration on, every so many.
    pub points: Option<(usize, usize)>,
}

/// A warmup on its way.
#[derive(Serialize, Deserialize)]
struct Walk<T> {
    iteration: usize,
    step_size: f64,
    metric: Vec<f64>,
    averaging: DualAveraging,
    variances: Variances,
    state: State<T>,
    /// Searches for a first step use iterations of their own, far beyond any warmup's.
    search: u64,
    points: Vec<State<T>>,
}

/// Adapts step size and metric once for all chains: a stage at `desk`. `transition` is the sampler's
/// iteration. Returns the points that the schedule asks for, too.
pub fn warmup<T: Element>(
    schedule: Schedule,
    posterior: &Posterior<'_, T>,
    key: &Key,
    scratch: &mut Scratch<T>,
    desk: &mut Desk<'_>,
    transition: impl FnMut(&Leapfrog<T>, &mut State<T>, u64, &mut Scratch<T>) -> Trajectory,
) -> Result<(Adapted, Vec<State<T>>), SamplerError> {
    if schedule.warmup == 0 {
        let inverse_mass = vec![1.0; posterior.dim()];
        let adapted = Adapted { step_size: schedule.step_size, inverse_mass, ..Adapted::default() };
        return Ok((adapted, Vec::new()));
    }
    desk.stage(|desk| walk(schedule, posterior, key, scratch, desk, transition))
}

fn walk<T: Element>(
    schedule: Schedule,
    posterior: &Posterior<'_, T>,
    key: &Key,
    scratch: &mut Scratch<T>,
    desk: &mut Desk<'_>,
    mut transition: impl FnMut(&Leapfrog<T>, &mut State<T>, u64, &mut Scratch<T>) -> Trajectory,
) -> Result<(Adapted, Vec<State<T>>), SamplerError> {
    let Schedule { warmup, target_acceptance, points, .. } = schedule;
    let d = posterior.dim();
    let windows = Windows::new(warmup);
    let mut at = match desk.part()? {
        Some(walk) => walk,
        None => begin(schedule, posterior, key, scratch)?,
    };
    let mut leapfrog = Leapfrog::<T>::new(at.step_size, &at.metric);
    while at.iteration < warmup {
        let iteration = at.iteration;
        let t = transition(&leapfrog, &mut at.state, iteration as u64, scratch);
        at.averaging.update(t.acceptance);
        leapfrog.step_size = at.averaging.step();
        if points
            .is_some_and(|(first, every)| iteration >= first && (iteration - first).is_multiple_of(every))
        {
            at.points.push(at.state.clone());
        }
        if windows.collects(iteration) {
            at.variances.push(at.state.w.iter().map(|w| w.to_f64()));
        }
        if windows.ends_after(iteration) {
            if let Some(metric) = at.variances.regularised() {
                leapfrog = Leapfrog::new(at.averaging.average(), &metric);
                at.metric = metric;
                leapfrog.step_size =
                    first_step(&leapfrog, posterior, &mut at.state, key, &mut at.search, scratch);
                at.averaging = DualAveraging::new(leapfrog.step_size, target_acceptance);
            }
            at.variances = Variances::new(d);
        }
        at.step_size = leapfrog.step_size;
        at.iteration += 1;
        let progress = Progress { iteration: at.iteration as u64, total: warmup as u64 };
        desk.pulse(progress, &at)?;
    }
    let step_size = at.averaging.average();
    if !(step_size.is_finite() && step_size > 0.0) {
        return Err(SamplerError::StepSize { step_size });
    }
    let fge = at.state.fge;
    Ok((Adapted { step_size, inverse_mass: at.metric, fge, ..Adapted::default() }, at.points))
}

fn begin<T: Element>(
    schedule: Schedule,
    posterior: &Posterior<'_, T>,
    key: &Key,
    scratch: &mut Scratch<T>,
) -> Result<Walk<T>, SamplerError> {
    let d = posterior.dim();
    let metric = vec![1.0; d];
    let leapfrog = Leapfrog::<T>::new(schedule.step_size, &metric);
    let mut state = State::start(posterior, scratch)?;
    let mut search = 1 << 39;
    let step_size = first_step(&leapfrog, posterior, &mut state, key, &mut search, scratch);
    let averaging = DualAveraging::new(step_size, schedule.target_acceptance);
    let (variances, points) = (Variances::new(d), Vec::new());
    Ok(Walk { iteration: 0, step_size, metric, averaging, variances, state, search, points })
}

/// A step whose single leapfrog step is accepted with probability near 0.8, by doubling or halving
/// from the present one (Hoffman & Gelman 2014, algorithm 4).
fn first_step<T: Element>(
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
