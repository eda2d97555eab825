//! One unit, start to end, on the thread of a slot.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use super::unit::{End, Failure, Outcome, Output, RunIndex, RunShare, Sampling, TargetIndex, Task};
use super::{fault, memory};
use crate::comm::catch_panic;
use crate::config::{Dtype, L0};
use crate::device::Element;
use crate::device::gpu::{DeviceError, Number, ThreadDevice};
use crate::resume::{Desk, Interruption, StateError};
use crate::sampler::{self, Pause, Posterior, Run, SamplerError, run_chain_to_pause};
use crate::target::{DeviceNetworkError, Potential, RestrictedPotential, Target, TargetError, build_at};

/// A target with its potentials, made when first asked for and shared by the rank's slots.
pub struct Loaded {
    target: Target,
    f32: OnceLock<Box<dyn Potential<f32>>>,
    f64: OnceLock<Box<dyn Potential<f64>>>,
}

impl Loaded {
    /// A target whose potentials nobody has asked for yet.
    pub fn new(target: Target) -> Self {
        Self { target, f32: OnceLock::new(), f64: OnceLock::new() }
    }
}

/// What a rank holds for units to name, by its number in the plan.
pub struct Shelf<T>(Mutex<HashMap<u32, Arc<T>>>);

impl<T> Shelf<T> {
    /// Holds a thing from now on.
    pub fn insert(&self, index: u32, thing: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(index, Arc::new(thing));
    }

    /// Lets go of a thing.
    pub fn remove(&self, index: u32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&index);
    }

    fn get(&self, index: u32) -> Option<Arc<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&index).cloned()
    }
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// What a rank holds.
#[derive(Default)]
pub struct Cache {
    /// Targets.
    pub targets: Shelf<Loaded>,
    /// What chains of a run share.
    pub shares: Shelf<RunShare>,
}

/// Runs a unit at its desk, with what the rank holds and the thread's device; `part` and `attempt` say which it is. A
/// panic, or a device that fails, becomes a failure by surroundings; bad numbers one by its numbers.
pub fn execute(
    task: Task,
    (cache, device): (&Cache, &ThreadDevice),
    desk: Result<Desk<'_>, StateError>,
    (part, attempt): (&str, u32),
) -> Outcome {
    let start = Instant::now();
    let mut desk = desk.unwrap_or_else(|e| {
        log::warn!("{part}: {e}; it starts over");
        Desk::unwatched()
    });
    let result = catch_panic(|| {
        fault::befall(part, attempt);
        run(task, cache, device, &mut desk)
    });
    let end = match result {
        Ok(Ok(Made::Output(output))) => End::Done(output),
        Ok(Ok(Made::Part(pause))) => End::Paused(pause),
        Ok(Err(Ended::Failed(failure))) => End::Failed(failure),
        Ok(Err(Ended::Interrupted)) => End::Interrupted,
        Err(panic) => {
            let reason = format!("the program panicked: {}. This is a bug; please report it", panic.message);
            End::Failed(Failure { backtrace: Some(panic.backtrace), ..Failure::by_surroundings(reason) })
        }
    };
    Outcome { end, seconds: start.elapsed().as_secs_f64(), host: host_name(), attempt }
}

/// What a unit has made.
enum Made {
    Output(Output),
    Part(Pause),
}

/// Why a unit has no product.
enum Ended {
    Failed(Failure),
    Interrupted,
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Ended::Failed(failure)
    }
}

impl From<Interruption> for Ended {
    fn from(why: Interruption) -> Self {
        match why {
            Interruption::Stopped(_) => Ended::Interrupted,
            Interruption::State(e) => Ended::Failed(Failure::by_surroundings(e.to_string())),
        }
    }
}

impl From<SamplerError> for Ended {
    fn from(e: SamplerError) -> Self {
        match e {
            SamplerError::Interrupted(why) => why.into(),
            SamplerError::Device(DeviceNetworkError::Device(e)) => e.into(),
            e => Ended::Failed(Failure::by_numbers(e.to_string())),
        }
    }
}

impl From<DeviceError> for Ended {
    fn from(e: DeviceError) -> Self {
        Ended::Failed(Failure::by_surroundings(format!("on {}: {e}", host_name())))
    }
}

impl From<TargetError> for Ended {
    fn from(e: TargetError) -> Self {
        match e {
            TargetError::Interrupted(why) => why.into(),
            e => Ended::Failed(Failure::by_numbers(e.to_string())),
        }
    }
}

/// The name of this machine.
pub fn host_name() -> String {
    gethostname::gethostname().to_string_lossy().into_owned()
}

fn run(task: Task, cache: &Cache, device: &ThreadDevice, desk: &mut Desk<'_>) -> Result<Made, Ended> {
    match task {
        Task::Build { id, spec, external, bytes } => {
            // Built in double precision, copied into the potential and onto the wire.
            memory::check("building the target", bytes.saturating_mul(4))?;
            let target = build_at(&spec, id, external.as_ref(), desk)?;
            Ok(Made::Output(Output::Target(Box::new(target))))
        }
        Task::Warmup(sampling) => {
            let loaded = held(cache, sampling.target)?;
            match sampling.sampler.dtype {
                Dtype::F32 => warmup(&sampling, &loaded.target, f32_potential(&loaded), desk),
                Dtype::F64 => warmup(&sampling, &loaded.target, f64_potential(&loaded), desk),
            }
        }
        Task::Chain { run, chain, role, pauses } => {
            let share = share(cache, run)?;
            let loaded = held(cache, share.sampling.target)?;
            let order = Order { share: &share, chain, role, pauses: &pauses };
            match share.sampling.sampler.dtype {
                Dtype::F32 => order.run(&loaded.target, f32_potential(&loaded), desk),
                Dtype::F64 => order.run(&loaded.target, f64_potential(&loaded), desk),
            }
        }
        Task::OnDevice { run, chains, role } => {
            let share = share(cache, run)?;
            let loaded = held(cache, share.sampling.target)?;
            let run = match share.sampling.sampler.dtype {
                Dtype::F32 => on_device::<f32>,
                Dtype::F64 => on_device::<f64>,
            };
            let made = run(&share, &loaded.target, (chains, role), device, desk);
            if matches!(made, Err(Ended::Failed(Failure { settled: false, .. }))) {
                // What failed may be the device: the next unit opens it anew.
                device.close();
            }
            made
        }
    }
}

fn held(cache: &Cache, index: TargetIndex) -> Result<Arc<Loaded>, Ended> {
    let reason = || format!("target {index} did not reach this rank; start the sweep again");
    cache.targets.get(index).ok_or_else(|| Ended::Failed(Failure::by_surroundings(reason())))
}

fn share(cache: &Cache, run: RunIndex) -> Result<Arc<RunShare>, Ended> {
    let reason = || format!("what run {run} shares did not reach this rank; start the sweep again");
    cache.shares.get(run).ok_or_else(|| Ended::Failed(Failure::by_surroundings(reason())))
}

fn f32_potential(loaded: &Loaded) -> &dyn Potential<f32> {
    loaded.f32.get_or_init(|| loaded.target.potential()).as_ref()
}

fn f64_potential(loaded: &Loaded) -> &dyn Potential<f64> {
    loaded.f64.get_or_init(|| loaded.target.potential()).as_ref()
}

/// Hands `work` the posterior of a run's chosen parameters, or of all.
fn on_posterior<T: Element, R>(
    sampling: &Sampling,
    target: &Target,
    potential: &dyn Potential<T>,
    work: impl FnOnce(Posterior<'_, T>) -> Result<R, Ended>,
) -> Result<R, Ended> {
    let whole = target.centre::<T>();
    let nbeta = target.n_data as f64 * sampling.posterior.beta(target.n_data);
    let on = |potential: &dyn Potential<T>, centre: &[T]| {
        let gamma = sampling.posterior.gamma(centre.len());
        work(Posterior::new(potential, centre, nbeta, gamma)?)
    };
    match &sampling.chosen {
        None => on(potential, &whole),
        Some(chosen) => {
            let restricted = RestrictedPotential::new(potential, whole.clone(), chosen);
            on(&restricted, &restricted.choose(&whole))
        }
    }
}

fn warmup<T: Element>(
    sampling: &Sampling,
    target: &Target,
    potential: &dyn Potential<T>,
    desk: &mut Desk<'_>,
) -> Result<Made, Ended> {
    on_posterior(sampling, target, potential, |posterior| {
        let adapted = sampler::warmup(&sampling.sampler, &posterior, sampling.stream, desk)?;
        Ok(Made::Output(Output::Adapted(Arc::new(adapted))))
    })
}

/// All chains of a run, or its control chain, on the thread's device.
fn on_device<T: Element + Number>(
    RunShare { sampling, adapted }: &RunShare,
    target: &Target,
    (chains, role): (usize, sampler::Role),
    device: &ThreadDevice,
    desk: &mut Desk<'_>,
) -> Result<Made, Ended> {
    let none = "the target has no network, and was put on a device: this is a bug, please report it";
    let network = target.network.as_ref().ok_or_else(|| Failure::by_surroundings(none))?;
    let (x, y) = target.data::<T>();
    let centre = target.centre::<T>();
    let on = sampler::DeviceTarget {
        network,
        loss: target.spec.problem.loss(),
        data: (&x, &y),
        centre: &centre,
        nbeta: target.n_data as f64 * sampling.posterior.beta(target.n_data),
        gamma: sampling.posterior.gamma(centre.len()),
        l0: match sampling.posterior.l0 {
            L0::WStar => None,
            L0::TrainedMinimum => Some(adapted.lowest_loss),
        },
    };
    let place = device.get()?;
    let numbers = sampler::device_trace_numbers(&sampling.sampler).saturating_mul(chains as u64);
    memory::check("the traces of all chains", numbers.saturating_mul(3 * 8))?;
    let which = (sampler::Stream { id: sampling.stream, role }, chains);
    let (mut outcomes, l0) =
        sampler::run_chains_on_device(place.as_ref(), &sampling.sampler, &on, adapted, which, desk)?;
    Ok(Made::Output(match (role, outcomes.pop()) {
        (sampler::Role::Control, Some(outcome)) => Output::Chain { outcome: Arc::new(outcome), l0 },
        (_, last) => {
            outcomes.extend(last);
            Output::Chains { outcomes: outcomes.into_iter().map(Arc::new).collect(), l0 }
        }
    }))
}

struct Order<'a> {
    share: &'a RunShare,
    chain: u32,
    role: sampler::Role,
    pauses: &'a [usize],
}

impl Order<'_> {
    fn run<T: Element>(
        &self,
        target: &Target,
        potential: &dyn Potential<T>,
        desk: &mut Desk<'_>,
    ) -> Result<Made, Ended> {
        let RunShare { sampling, adapted } = self.share;
        let spec = &sampling.sampler;
        on_posterior(sampling, target, potential, |posterior| {
            let posterior = match sampling.posterior.l0 {
                L0::WStar => posterior,
                L0::TrainedMinimum => posterior.with_l0(adapted.lowest_loss),
            };
            // The trace, its copy on the wire and in a checkpoint.
            let numbers = sampler::trace_numbers(spec, &posterior, adapted, self.role);
            memory::check("the trace of a chain", numbers.saturating_mul(3 * 8))?;
            let which = (sampling.stream, self.chain, self.role);
            Ok(match run_chain_to_pause(spec, &posterior, adapted, which, self.pauses, desk)? {
                Run::Whole(outcome) => {
                    Made::Output(Output::Chain { outcome: Arc::new(outcome), l0: posterior.l0() })
                }
                Run::Paused(pause) => Made::Part(pause),
            })
        })
    }
}
