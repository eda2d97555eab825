//! The network pass on a GPU: loss and gradient for a batch of chains at once.

use super::network_plan::{NetworkPlan, PlanError};
use crate::config::{Loss, Network};
use crate::device::Element;
use crate::device::cuda::{Buffer, DeviceNumber, Gpu, GpuError, Kernel, Parameter};

/// Threads of a block that packs or sums.
const THREADS: usize = 256;

/// The empirical loss of a network on a data set that lies on a GPU; the twin of [`NetworkPotential`](super::NetworkPotential).
///
/// A chain's loss and gradient have the same bits whatever chains run beside it, on one kind of device.
pub struct DeviceNetwork<'g, T: Element + DeviceNumber> {
    gpu: &'g Gpu,
    plan: NetworkPlan,
    rows: usize,
    outputs: usize,
    x: Buffer<'g, T>,
    y: Buffer<'g, T>,
    packed: Buffer<'g, T>,
    grads: Buffer<'g, T>,
    losses: Buffer<'g, f64>,
    loss: Buffer<'g, f64>,
    chains: usize,
}

/// Why a network is not on a device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceNetworkError {
    /// It does not fit the kernels.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The device has no room, or failed.
    #[error(transparent)]
    Gpu(#[from] GpuError),
}

impl<'g, T: Element + DeviceNumber> DeviceNetwork<'g, T> {
    /// As [`NetworkPotential::new`](super::NetworkPotential::new), with room for `chains` chains at a time.
    pub fn new(
        gpu: &'g Gpu,
        network: &Network,
        (x, y): (&[T], &[T]),
        loss: &Loss,
        chains: usize,
    ) -> Result<Self, DeviceNetworkError> {
        let rows = x.len() / network.in_dim;
        let plan = NetworkPlan::new::<T>(network, loss, rows, gpu.info().shared)?;
        let segments = rows.div_ceil(plan.segment());
        let packed = if plan.weights_are_shared() { 0 } else { chains * plan.packed_len() };
        Ok(Self {
            rows,
            outputs: network.out_dim,
            x: gpu.upload(x)?,
            y: gpu.upload(y)?,
            packed: gpu.zeros(packed)?,
            grads: gpu.zeros(chains * segments * plan.dim())?,
            losses: gpu.zeros(chains * segments)?,
            loss: gpu.zeros(chains)?,
            gpu,
            plan,
            chains,
        })
    }

    /// The plan that the kernels follow.
    pub fn plan(&self) -> &NetworkPlan {
        &self.plan
    }

    /// L_n of `chains` chains; `w` holds them one after the other.
    pub fn loss(&self, w: &Buffer<'_, T>, chains: usize) -> Result<Vec<f64>, GpuError> {
        self.pass(w, chains, None)
    }

    /// L_n of `chains` chains; `grad` is overwritten with their gradients.
    pub fn loss_grad(
        &self,
        w: &Buffer<'_, T>,
        chains: usize,
        grad: &mut Buffer<'_, T>,
    ) -> Result<Vec<f64>, GpuError> {
        self.pass(w, chains, Some(grad))
    }

    fn pass(
        &self,
        w: &Buffer<'_, T>,
        chains: usize,
        grad: Option<&mut Buffer<'_, T>>,
    ) -> Result<Vec<f64>, GpuError> {
        let (plan, dim) = (&self.plan, self.plan.dim());
        let enough = |what, expected, given| {
            if given < expected { Err(GpuError::Length { what, expected, given }) } else { Ok(()) }
        };
        enough("chains", chains, self.chains)?;
        enough("parameters", chains * dim, w.len())?;
        if let Some(grad) = &grad {
            enough("gradients", chains * dim, grad.len())?;
        }
        let segments = self.rows.div_ceil(plan.segment());
        let structure = plan.to_bytes();
        if !plan.weights_are_shared() {
            let parameters = [
                Parameter::bytes(&structure),
                Parameter::array(Some(w)),
                Parameter::array(Some(&self.packed)),
            ];
            self.gpu.launch::<T>(Kernel::NetworkPack, (1, chains), THREADS, 0, &parameters)?;
        }
        let args = Parameter::array(Some(&self.x))
            .and_array(Some(&self.y))
            .and_array(Some(w))
            .and_array(Some(&self.packed))
            .and_array::<u32>(None)
            .and_int(self.rows)
            .and_int(segments)
            .and_array(Some(&self.grads))
            .and_array(Some(&self.losses));
        let kernel = match (grad.is_some(), plan.weights_are_shared()) {
            (true, true) => Kernel::NetworkGradient,
            (false, true) => Kernel::NetworkLoss,
            (true, false) => Kernel::NetworkGradientWide,
            (false, false) => Kernel::NetworkLossWide,
        };
        let grid = (segments, chains);
        let parameters = [Parameter::bytes(&structure), args];
        self.gpu.launch::<T>(kernel, grid, plan.threads(), plan.shared_bytes(), &parameters)?;
        let grad = grad.as_deref();
        let parameters = [
            Parameter::int(dim),
            Parameter::int(segments),
            Parameter::double(1.0 / (self.rows * self.outputs) as f64),
            Parameter::array(grad.is_some().then_some(&self.grads)),
            Parameter::array(Some(&self.losses)),
            Parameter::array(grad),
            Parameter::array(Some(&self.loss)),
        ];
        self.gpu.launch::<T>(Kernel::Reduce, (dim.div_ceil(THREADS), chains), THREADS, 0, &parameters)?;
        let mut losses = vec![0.0; chains];
        self.gpu.read(&self.loss, &mut losses)?;
        Ok(losses)
    }
}
