//! Chains on a device: all chains of a run in every launch, many steps a launch.
//!
//! What is drawn goes into the columns of the CPU's sampler, and states are those of the CPU's kernel; random numbers are
//! of another generator (Philox, in the kernel), so that λ̂ agrees with the CPU's within its error, not in bits. A chain's
//! bits depend on neither the chains that run beside it nor on where launches, checkpoints and kills fall.
//!
//! Chains run in groups. A group that the device's memory does not hold is cut in two halves, which run one after the
//! other.

mod sgld;

use serde::{Deserialize, Serialize};

use super::chain::Iterations;
use super::sgld::State;
use super::{Adapted, ChainOutcome, Role, SamplerError};
use crate::config::{Algo, Dtype, Loss, Network, SamplerSpec, Sgld};
use crate::device::gpu::{Buffer, DeviceError, Number, Place};
use crate::device::{Element, SharedMemory};
use crate::num::Real;
use crate::num::rng::Purpose;
use crate::resume::{Desk, Progress};
use crate::target::{DeviceNetwork, DeviceNetworkError, NetworkPlan, PlanError};
use crate::trace::ChainTrace;

/// Chains that one launch takes at most: a grid's second side.
const MOST_CHAINS: usize = 65_535;

/// The posterior of a network as a device is given it.
#[derive(Clone, Copy, Debug)]
pub struct DeviceTarget<'a, T> {
    /// The network.
    pub network: &'a Network,
    /// Its loss.
    pub loss: &'a Loss,
    /// X, n × inputs, and Y, n × outputs, row-major.
    pub data: (&'a [T], &'a [T]),
    /// w*, length d.
    pub centre: &'a [T],
    /// nβ > 0
    pub nbeta: f64,
    /// γ ≥ 0
    pub gamma: f64,
    /// L0; `None`: L_n(w*) as the device has it.
    pub l0: Option<f64>,
}

/// Why a sampler does not run on a device with so much shared memory; `None` where it does.
pub fn stays_on_cpu(
    spec: &SamplerSpec,
    network: Option<(&Network, &Loss)>,
    rows: usize,
    memory: SharedMemory,
) -> Option<String> {
    let Algo::Sgld(sgld) = &spec.algo else {
        return Some(format!("{} has no kernel for a device", spec.algo.name()));
    };
    if sgld.gamma_term {
        return Some("gamma_term needs Hessian-vector products, which have no kernel".to_owned());
    }
    let Some((network, loss)) = network else {
        return Some("the target has no network".to_owned());
    };
    let fits = match spec.dtype {
        Dtype::F32 => fits::<f32>(sgld, network, loss, rows, memory),
        Dtype::F64 => fits::<f64>(sgld, network, loss, rows, memory),
    };
    match fits {
        Ok(true) => None,
        Ok(false) => {
            Some("the weights do not fit into shared memory beside the activations of a minibatch".to_owned())
        }
        Err(e) => Some(e.to_string()),
    }
}

/// Whether weights fit beside a minibatch's activations, as the kernel of many steps needs it.
fn fits<T: Real>(
    sgld: &Sgld,
    network: &Network,
    loss: &Loss,
    rows: usize,
    memory: SharedMemory,
) -> Result<bool, PlanError> {
    // The kernels count rows as C's int.
    let counted = [rows, sgld.batch_size].iter().all(|&rows| i32::try_from(rows).is_ok());
    NetworkPlan::new::<T>(network, loss, rows, memory)?;
    Ok(counted && NetworkPlan::for_batch::<T>(network, loss, sgld.batch_size, memory)?.weights_are_shared())
}

/// What a place of a run's random numbers is named by: the stream's id, and whose chains.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// The run's stream id.
    pub id: [u8; 32],
    /// Chains of the run, or its control chain.
    pub role: Role,
}

impl Stream {
    /// The key of Philox: the first eight bytes.
    fn key(&self) -> [u32; 2] {
        let [a, b, c, d, e, f, g, h, ..] = self.id;
        [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
    }

    fn purpose(&self) -> u32 {
        match self.role {
            Role::Main => Purpose::Chain as u32,
            Role::Control => Purpose::Control as u32,
        }
    }
}

/// A run on its way: serialise it, and it goes on from there with the same bits.
#[derive(Debug, Serialize, Deserialize)]
struct Saved<T> {
    /// On what it was begun.
    arithmetic: String,
    /// In order of their chains.
    groups: Vec<Group<T>>,
}

/// Neighbouring chains that run together.
#[derive(Debug, Serialize, Deserialize)]
struct Group<T> {
    /// Number of the first.
    first: u32,
    /// Iterations done.
    iteration: u64,
    chains: Vec<Chain<T>>,
}

/// One of them. Its state is that of the last look at the device.
#[derive(Debug, Serialize, Deserialize)]
struct Chain<T> {
    state: State<T>,
    trace: ChainTrace,
}

impl<T> Saved<T> {
    fn progress(&self, total: u64) -> Progress {
        let sum = |of: &dyn Fn(&Group<T>) -> u64| {
            self.groups.iter().map(|group| of(group) * group.chains.len() as u64).sum()
        };
        Progress { iteration: sum(&|group| group.iteration), total: sum(&|_| total) }
    }

    /// Cuts a group in two.
    fn halve(&mut self, at: usize) {
        let group = &mut self.groups[at];
        let chains = group.chains.split_off(group.chains.len().div_ceil(2));
        let first = group.first + group.chains.len() as u32;
        let half = Group { first, iteration: group.iteration, chains };
        self.groups.insert(at + 1, half);
    }
}

/// Runs chains `0 .. chains` from w*, or from where `desk` has them, to their end; their outcomes, and L0.
///
/// # Errors
/// A loss that is not finite; [`SamplerError::Device`] where the device fails, or holds not even one chain.
pub fn run_chains<T: Element + Number>(
    place: &dyn Place,
    spec: &SamplerSpec,
    target: &DeviceTarget<'_, T>,
    adapted: &Adapted,
    (stream, chains): (Stream, usize),
    desk: &mut Desk<'_>,
) -> Result<(Vec<ChainOutcome>, f64), SamplerError> {
    let Algo::Sgld(settings) = &spec.algo else {
        let what = "sampler without a kernel for a device";
        return Err(DeviceError::Length { what, expected: 0, given: chains }.into());
    };
    let method = sgld::Method::new(settings, target, adapted, stream);
    let Iterations { total, .. } = method.iterations();
    let l0 = match target.l0 {
        Some(l0) => l0,
        None => loss_at_centre(place, target)?,
    };
    let arithmetic = place.info().arithmetic();
    let mut saved = match desk.part::<Saved<T>>()? {
        Some(saved) if saved.arithmetic == arithmetic => saved,
        before => {
            if let Some(Saved { arithmetic: other, .. }) = before {
                log::warn!("a checkpoint from {other} does not go on on {arithmetic}: the chains start over");
            }
            let starts: Vec<u32> = (0..chains as u32).step_by(MOST_CHAINS).collect();
            let group = |&first: &u32| Group {
                first,
                iteration: 0,
                chains: (first as usize..chains.min(first as usize + MOST_CHAINS))
                    .map(|_| Chain { state: method.start(), trace: method.empty_trace() })
                    .collect(),
            };
            Saved { groups: starts.iter().map(group).collect(), arithmetic }
        }
    };
    while let Some(at) = saved.groups.iter().position(|group| group.iteration < total) {
        let together = saved.groups[at].chains.len();
        let live = match method.open(place, &saved.groups[at]) {
            Err(SamplerError::Device(DeviceNetworkError::Device(DeviceError::OutOfMemory { bytes })))
                if together > 1 =>
            {
                saved.halve(at);
                let fewer = saved.groups[at].chains.len();
                log::warn!(
                    "{}: no room for {bytes} bytes of {together} chains in the device's memory; {fewer} run at a time",
                    place.info().name
                );
                continue;
            }
            opened => opened?,
        };
        let mut pace = sgld::Pace::default();
        while saved.groups[at].iteration < total {
            live.advance(&mut saved.groups[at], l0, &mut pace)?;
            desk.pulse_with(saved.progress(total), || {
                live.fetch(&mut saved.groups[at])?;
                Ok::<_, SamplerError>(postcard::to_stdvec(&saved)?)
            })?;
        }
        live.fetch(&mut saved.groups[at])?;
    }
    let outcomes = saved.groups.into_iter().flat_map(|group| group.chains);
    let outcomes = outcomes.map(|Chain { state, trace }| {
        let (fge_warmup, fge_sampling) = method.work(&trace);
        Ok(ChainOutcome { final_state: postcard::to_stdvec(&state)?, trace, fge_warmup, fge_sampling })
    });
    Ok((outcomes.collect::<Result<_, SamplerError>>()?, l0))
}

/// L_n(w*) in the device's own arithmetic.
fn loss_at_centre<T: Element + Number>(
    place: &dyn Place,
    target: &DeviceTarget<'_, T>,
) -> Result<f64, SamplerError> {
    let there = DeviceNetwork::new(place, target.network, target.data, target.loss, 1)?;
    let loss = there.loss(&Buffer::of(place, target.centre)?, 1)?[0];
    if loss.is_finite() { Ok(loss) } else { Err(SamplerError::Centre { loss }) }
}
