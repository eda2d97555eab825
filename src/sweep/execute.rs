//! One unit, start to end, on the thread of a slot.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use super::unit::{Failure, Outcome, Output, Sampling, TargetIndex, Task};
use crate::comm::catch_panic;
use crate::config::{Dtype, L0};
use crate::device::Element;
use crate::sampler::{self, Posterior, SamplerError};
use crate::target::{Potential, RestrictedPotential, Target, build};

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

/// Runs a unit. A panic becomes a failure by surroundings; bad numbers one by its numbers.
pub fn execute(task: Task, cache: &TargetCache) -> Outcome {
    let start = Instant::now();
    let result = catch_panic(|| run(task, cache)).unwrap_or_else(|panic| {
        let reason = format!("the program panicked: {panic}. This is a bug; please report it");
        Err(Failure { reason, settled: false })
    });
    Outcome { result, seconds: start.elapsed().as_secs_f64(), host: host_name() }
}

/// The name of this machine.
pub fn host_name() -> String {
    gethostname::gethostname().to_string_lossy().into_owned()
}

fn run(task: Task, cache: &TargetCache) -> Result<Output, Failure> {
    match task {
        Task::Build { id, spec, external } => build(&spec, id, external.as_ref())
            .map(|target| Output::Target(Box::new(target)))
            .map_err(|e| Failure { reason: e.to_string(), settled: true }),
        Task::Warmup(sampling) => {
            let loaded = held(cache, sampling.target)?;
            match sampling.sampler.dtype {
                Dtype::F32 => warmup(&sampling, &loaded.target, f32_potential(&loaded)),
                Dtype::F64 => warmup(&sampling, &loaded.target, f64_potential(&loaded)),
            }
        }
        Task::Chain { sampling, adapted, chain, role } => {
            let loaded = held(cache, sampling.target)?;
            let order = Order { sampling: &sampling, adapted: &adapted, chain, role };
            match sampling.sampler.dtype {
                Dtype::F32 => order.run(&loaded.target, f32_potential(&loaded)),
                Dtype::F64 => order.run(&loaded.target, f64_potential(&loaded)),
            }
        }
    }
}

fn held(cache: &TargetCache, index: TargetIndex) -> Result<Arc<Loaded>, Failure> {
    cache.get(index).ok_or_else(|| Failure {
        reason: format!("target {index} did not reach this rank; start the sweep again"),
        settled: false,
    })
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
    work: impl FnOnce(Posterior<'_, T>) -> Result<R, SamplerError>,
) -> Result<R, Failure> {
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
    .map_err(by_numbers)
}

fn by_numbers(e: SamplerError) -> Failure {
    Failure { reason: e.to_string(), settled: true }
}

fn warmup<T: Element>(
    sampling: &Sampling,
    target: &Target,
    potential: &dyn Potential<T>,
) -> Result<Output, Failure> {
    on_posterior(sampling, target, potential, |posterior| {
        sampler::warmup(&sampling.sampler, &posterior, sampling.stream).map(Output::Adapted)
    })
}

struct Order<'a> {
    sampling: &'a Sampling,
    adapted: &'a sampler::Adapted,
    chain: u32,
    role: sampler::Role,
}

impl Order<'_> {
    fn run<T: Element>(&self, target: &Target, potential: &dyn Potential<T>) -> Result<Output, Failure> {
        let (spec, stream) = (&self.sampling.sampler, self.sampling.stream);
        on_posterior(self.sampling, target, potential, |posterior| {
            let posterior = match self.sampling.posterior.l0 {
                L0::WStar => posterior,
                L0::TrainedMinimum => posterior.with_l0(self.adapted.lowest_loss),
            };
            let mut go_on = |_| sampler::Flow::Continue;
            let outcome = sampler::run_chain(
                spec,
                &posterior,
                self.adapted,
                stream,
                self.chain,
                self.role,
                &mut go_on,
            )?;
            Ok(Output::Chain { outcome, l0: posterior.l0() })
        })
    }
}
