//! One unit, start to end, on the thread of a slot.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use super::unit::{End, Failure, Outcome, Output, Sampling, TargetIndex, Task};
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

/// The targets that a rank holds, by their number in the plan.
#[derive(Default)]
pub struct TargetCache(Mutex<HashMap<TargetIndex, Arc<Loaded>>>);

impl TargetCache {
    /// Holds a target from now on.
    pub fn insert(&self, index: TargetIndex, target: Target) {
        let loaded = Loaded { target, f32: OnceLock::new(), f64: OnceLock::new() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(index, Arc::new(loaded));
    }

    /// Lets go of a target.
    pub fn remove(&self, index: TargetIndex) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&index);
    }

    fn get(&self, index: TargetIndex) -> Option<Arc<Loaded>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&index).cloned()
    }
}

/// Runs a unit at its desk, with the rank's targets and the thread's device; `part` and `attempt` say which it is. A
/// panic, or a device that fails, becomes a failure by surroundings; bad numbers one by its numbers.
pub fn execute(
    task: Task,
    (cache, device): (&TargetCache, &ThreadDevice),
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

fn run(task: Task, cache: &TargetCache, device: &ThreadDevice, desk: &mut Desk<'_>) -> Result<Made, Ended> {
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
        Task::Chain { sampling, adapted, chain, role, pauses } => {
            let loaded = held(cache, sampling.target)?;
            let order = Order { sampling: &sampling, adapted: &adapted, chain, role, pauses: &pauses };
            match sampling.sampler.dtype {
                Dtype::F32 => order.run(&loaded.target, f32_potential(&loaded), desk),
                Dtype::F64 => order.run(&loaded.target, f64_potential(&loaded), desk),
            }
        }
        Task::OnDevice { sampling, adapted, chains, role } => {
            let loaded = held(cache, sampling.target)?;
            let run = match sampling.sampler.dtype {
                Dtype::F32 => on_device::<f32>,
                Dtype::F64 => on_device::<f64>,
            };
            let made = run(&sampling, &loaded.target, &adapted, (chains, role), device, desk);
            if matches!(made, Err(Ended::Failed(Failure { settled: false, .. }))) {
                // What failed may be the device: the next unit opens it anew.
                device.close();
            }
            made
        }
    }
}

fn held(cache: &TargetCache, index: TargetIndex) -> Result<Arc<Loaded>, Ended> {
    let reason = || format!("target {index} did not reach this rank; start the sweep again");
    cache.get(index).ok_or_else(|| Ended::Failed(Failure::by_surroundings(reason())))
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
        Ok(Made::Output(Output::Adapted(adapted)))
    })
}

/// All chains of a run, or its control chain, on the thread's device.
fn on_device<T: Element + Number>(
    sampling: &Sampling,
    target: &Target,
    adapted: &sampler::Adapted,
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
        (sampler::Role::Control, Some(outcome)) => Output::Chain { outcome, l0 },
        (_, last) => {
            outcomes.extend(last);
            Output::Chains { outcomes, l0 }
        }
    }))
}

struct Order<'a> {
    sampling: &'a Sampling,
    adapted: &'a sampler::Adapted,
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
        let (spec, stream) = (&self.sampling.sampler, self.sampling.stream);
        on_posterior(self.sampling, target, potential, |posterior| {
            let posterior = match self.sampling.posterior.l0 {
                L0::WStar => posterior,
                L0::TrainedMinimum => posterior.with_l0(self.adapted.lowest_loss),
            };
            // The trace, its copy on the wire and in a checkpoint.
            let numbers = sampler::trace_numbers(spec, &posterior, self.adapted, self.role);
            memory::check("the trace of a chain", numbers.saturating_mul(3 * 8))?;
            let which = (stream, self.chain, self.role);
            Ok(match run_chain_to_pause(spec, &posterior, self.adapted, which, self.pauses, desk)? {
                Run::Whole(outcome) => Made::Output(Output::Chain { outcome, l0: posterior.l0() }),
                Run::Paused(pause) => Made::Part(pause),
            })
        })
    }
}
