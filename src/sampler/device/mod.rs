//! Chains on a device: all chains of a run in every launch, many steps a launch.
//!
//! What is drawn goes into the columns of the CPU's sampler, and states are those of the CPU's kernel; random numbers are
//! of another generator (Philox, in the kernel), so that λ̂ agrees with the CPU's within its error, not in bits. A chain's
//! bits depend on neither the chains that run beside it nor on where launches, checkpoints and kills fall.
//!
//! Chains run in groups. A group that the device's memory does not hold is cut in two halves, which run one after the
//! other. `drive` has what all samplers share; `minibatch` is for those on minibatches (`sgld`, `momentum`), `rounds` for
//! those on gradients over all rows (`hamiltonian`, `microcanonical`).

mod drive;
mod hamiltonian;
mod microcanonical;
mod minibatch;
mod momentum;
mod rounds;
mod sgld;

use super::{Adapted, ChainOutcome, Role, SamplerError};
use crate::config::{Algo, Dtype, Loss, Network, SamplerSpec, Sghmc, Sgld, Sgnht};
use crate::device::gpu::{Buffer, DeviceError, Number, Place};
use crate::device::{Element, SharedMemory};
use crate::num::Real;
use crate::num::rng::Purpose;
use crate::resume::Desk;
use crate::target::{DeviceNetwork, NetworkPlan, PlanError, param_count};

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
    let batch = match &spec.algo {
        Algo::Hmc(_) | Algo::Mala(_) | Algo::Mclmc(_) => None,
        Algo::Sgld(Sgld { gamma_term: true, .. }) => {
            return Some("gamma_term needs Hessian-vector products, which have no kernel".to_owned());
        }
        Algo::Sgld(Sgld { batch_size, .. })
        | Algo::Sghmc(Sghmc { batch_size, .. })
        | Algo::Sgnht(Sgnht { batch_size, .. }) => Some(*batch_size),
        other => return Some(format!("{} has no kernel for a device", other.name())),
    };
    let Some((network, loss)) = network else {
        return Some("the target has no network".to_owned());
    };
    if let Algo::Mclmc(mclmc) = &spec.algo
        && let Some(why) = microcanonical::has_no_kernel(mclmc, param_count(network))
    {
        return Some(why);
    }
    // The kernels count rows as C's int.
    if let Some(rows) = [Some(rows), batch].into_iter().flatten().find(|&rows| i32::try_from(rows).is_err()) {
        return Some(format!("{rows} rows are more than the kernels count"));
    }
    let fits = match spec.dtype {
        Dtype::F32 => fits::<f32>(network, loss, (rows, batch), memory),
        Dtype::F64 => fits::<f64>(network, loss, (rows, batch), memory),
    };
    fits.err().map(|e| e.to_string())
}

/// Whether the network fits the kernels, with all rows and with a minibatch.
fn fits<T: Real>(
    network: &Network,
    loss: &Loss,
    (rows, batch): (usize, Option<usize>),
    memory: SharedMemory,
) -> Result<(), PlanError> {
    NetworkPlan::new::<T>(network, loss, rows, memory)?;
    batch.map_or(Ok(()), |batch| NetworkPlan::for_batch::<T>(network, loss, batch, memory).map(|_| ()))
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

/// What a sampler is given, whichever it is.
#[derive(Clone, Copy)]
struct Setting<'a, T> {
    target: &'a DeviceTarget<'a, T>,
    l0: f64,
    stream: Stream,
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
    let l0 = match target.l0 {
        Some(l0) => l0,
        None => loss_at_centre(place, target)?,
    };
    let setting = Setting { target, l0, stream };
    let role = stream.role;
    let outcomes = match &spec.algo {
        Algo::Sgld(spec) => {
            let sampler = sgld::Langevin::new(spec, adapted, role);
            drive::drive(place, &minibatch::Method::new(sampler, setting), chains, desk)
        }
        Algo::Sghmc(spec) => {
            let sampler = momentum::Friction::new(spec, adapted, role);
            drive::drive(place, &minibatch::Method::new(sampler, setting), chains, desk)
        }
        Algo::Sgnht(spec) => {
            let slope = slope_at_centre(place, target)?;
            let sampler = momentum::Thermostat::new(spec, adapted, role, target.nbeta, &slope);
            drive::drive(place, &minibatch::Method::new(sampler, setting), chains, desk)
        }
        Algo::Hmc(spec) => {
            let sampler = hamiltonian::Hamiltonian::hmc(spec, adapted, role);
            drive::drive(place, &rounds::Method::new(sampler, setting), chains, desk)
        }
        Algo::Mala(spec) => {
            let sampler = hamiltonian::Hamiltonian::mala(spec, adapted, role);
            drive::drive(place, &rounds::Method::new(sampler, setting), chains, desk)
        }
        Algo::Mclmc(spec) => {
            let sampler = microcanonical::Microcanonical::new(spec, adapted, role, target.centre.len());
            drive::drive(place, &rounds::Method::new(sampler, setting), chains, desk)
        }
        _ => {
            let what = "sampler without a kernel for a device";
            return Err(DeviceError::Length { what, expected: 0, given: chains }.into());
        }
    };
    Ok((outcomes?, l0))
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

/// ∇L_n(w*) in the device's own arithmetic.
fn slope_at_centre<T: Element + Number>(
    place: &dyn Place,
    target: &DeviceTarget<'_, T>,
) -> Result<Vec<T>, SamplerError> {
    let there = DeviceNetwork::new(place, target.network, target.data, target.loss, 1)?.with_gradients()?;
    let mut slope = Buffer::zeros(place, target.centre.len())?;
    there.loss_grad(&Buffer::of(place, target.centre)?, 1, &mut slope)?;
    Ok(slope.front(target.centre.len())?)
}
