//! The network pass on a device: loss and gradient for a batch of chains at once.

use super::network_plan::{NetworkPlan, PlanError};
use crate::config::{Loss, Network};
use crate::device::Element;
use crate::device::gpu::{Buffer, DeviceError, Kernel, Launch, Number, Parameter, Place};

/// Threads of a block that packs or sums.
const THREADS: usize = 256;

/// The empirical loss of a network on a data set that lies on a device; the twin of [`NetworkPotential`](super::NetworkPotential).
///
/// A chain's loss and gradient have the same bits whatever chains run beside it, on one kind of device.
pub struct DeviceNetwork<'p, T: Element + Number> {
    place: &'p dyn Place,
    plan: NetworkPlan,
    rows: usize,
    outputs: usize,
    x: Buffer<'p, T>,
    y: Buffer<'p, T>,
    packed: Buffer<'p, T>,
    /// Sums of segments; nothing where gradients are not asked for.
    grads: Buffer<'p, T>,
    losses: Buffer<'p, f64>,
    loss: Buffer<'p, f64>,
    chains: usize,
}

/// Why a network is not on a device.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DeviceNetworkError {
    /// It does not fit the kernels.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The device has no room, or failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl<'p, T: Element + Number> DeviceNetwork<'p, T> {
    /// As [`NetworkPotential::new`](super::NetworkPotential::new), with room for the losses of `chains` chains at a time.
    ///
    /// # Errors
    /// The network does not fit the kernels, there is no room, or the device failed.
    pub fn new(
        place: &'p dyn Place,
        network: &Network,
        (x, y): (&[T], &[T]),
        loss: &Loss,
        chains: usize,
    ) -> Result<Self, DeviceNetworkError> {
        let rows = x.len() / network.in_dim;
        let plan = NetworkPlan::new::<T>(network, loss, rows, place.info().shared)?;
        let packed = if plan.weights_are_shared() { 0 } else { chains * plan.packed_len() };
        let segments = rows.div_ceil(plan.segment());
        Ok(Self {
            rows,
            outputs: network.out_dim,
            x: Buffer::of(place, x)?,
            y: Buffer::of(place, y)?,
            packed: Buffer::zeros(place, packed)?,
            grads: Buffer::zeros(place, 0)?,
            losses: Buffer::zeros(place, chains * segments)?,
            loss: Buffer::zeros(place, chains)?,
            place,
            plan,
            chains,
        })
    }

    /// The same with room for their gradients.
    ///
    /// # Errors
    /// There is no room, or the device failed.
    pub fn with_gradients(self) -> Result<Self, DeviceError> {
        let numbers = self.chains * self.segments() * self.plan.dim();
        Ok(Self { grads: Buffer::zeros(self.place, numbers)?, ..self })
    }

    /// The plan that the kernels follow.
    pub fn plan(&self) -> &NetworkPlan {
        &self.plan
    }

    /// X and Y.
    pub fn data(&self) -> (&Buffer<'p, T>, &Buffer<'p, T>) {
        (&self.x, &self.y)
    }

    /// Rows n.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// L_n of `chains` chains; `w` holds them one after the other.
    ///
    /// # Errors
    /// More chains than there is room for, or the device failed.
    pub fn loss(&self, w: &Buffer<'_, T>, chains: usize) -> Result<Vec<f64>, DeviceError> {
        self.pass(w, chains, None, (&self.loss, 0))?;
        self.loss.front(chains)
    }

    /// [`loss`](Self::loss), left on the device at place `at.1` of `at.0`; nothing is waited for.
    ///
    /// # Errors
    /// As [`loss`](Self::loss).
    pub fn loss_into(
        &self,
        w: &Buffer<'_, T>,
        chains: usize,
        at: (&Buffer<'_, f64>, usize),
    ) -> Result<(), DeviceError> {
        self.pass(w, chains, None, at)
    }

    /// L_n of `chains` chains; `grad` is overwritten with their gradients.
    ///
    /// # Errors
    /// More chains than there is room for, no room for gradients, or the device failed.
    pub fn loss_grad(
        &self,
        w: &Buffer<'_, T>,
        chains: usize,
        grad: &mut Buffer<'_, T>,
    ) -> Result<Vec<f64>, DeviceError> {
        self.pass(w, chains, Some(grad), (&self.loss, 0))?;
        self.loss.front(chains)
    }

    /// [`loss_grad`](Self::loss_grad), the losses left on the device at place `at.1` of `at.0`; nothing is waited for.
    ///
    /// # Errors
    /// As [`loss_grad`](Self::loss_grad).
    pub fn loss_grad_into(
        &self,
        w: &Buffer<'_, T>,
        chains: usize,
        grad: &mut Buffer<'_, T>,
        at: (&Buffer<'_, f64>, usize),
    ) -> Result<(), DeviceError> {
        self.pass(w, chains, Some(grad), at)
    }

    /// What the kernels take for passes over all rows at `w`, beside the plan.
    pub fn arguments(&self, w: &Buffer<'_, T>) -> Parameter {
        Parameter::array(&self.x)
            .and_array(&self.y)
            .and_array(w)
            .and_array(&self.packed)
            .and_none()
            .and_int(self.rows)
            .and_int(self.segments())
            .and_array(&self.grads)
            .and_array(&self.losses)
    }

    /// Segments that the rows are cut into.
    pub fn segments(&self) -> usize {
        self.rows.div_ceil(self.plan.segment())
    }

    fn pass(
        &self,
        w: &Buffer<'_, T>,
        chains: usize,
        grad: Option<&mut Buffer<'_, T>>,
        (to, at): (&Buffer<'_, f64>, usize),
    ) -> Result<(), DeviceError> {
        let (plan, dim, segments) = (&self.plan, self.plan.dim(), self.segments());
        self.loss.holds("chains", chains)?;
        w.holds("parameters", chains * dim)?;
        to.holds("losses", at + chains)?;
        if let Some(grad) = &grad {
            grad.holds("gradients", chains * dim)?;
            self.grads.holds("gradients of segments", chains * segments * dim)?;
        }
        let launch = |kernel, grid, threads, shared_bytes, parameters: &[Parameter]| {
            let double = size_of::<T>() == size_of::<f64>();
            self.place.launch(&Launch { kernel, double, grid, threads, shared_bytes, parameters })
        };
        let structure = Parameter::bytes(&plan.to_bytes());
        if !plan.weights_are_shared() {
            let parameters = [structure.clone(), Parameter::array(w), Parameter::array(&self.packed)];
            launch(Kernel::NetworkPack, (1, chains), THREADS, 0, &parameters)?;
        }
        let args = self.arguments(w);
        let kernel = match (grad.is_some(), plan.weights_are_shared()) {
            (true, true) => Kernel::NetworkGradient,
            (false, true) => Kernel::NetworkLoss,
            (true, false) => Kernel::NetworkGradientWide,
            (false, false) => Kernel::NetworkLossWide,
        };
        launch(kernel, (segments, chains), plan.threads(), plan.shared_bytes(), &[structure, args])?;
        let (sums, grad) = match grad.as_deref() {
            Some(grad) => (Parameter::array(&self.grads), Parameter::array(grad)),
            None => (Parameter::none(), Parameter::none()),
        };
        let parameters = [
            Parameter::int(dim),
            Parameter::int(segments),
            Parameter::double(1.0 / (self.rows * self.outputs) as f64),
            sums,
            Parameter::array(&self.losses),
            grad,
            Parameter::array_at(to, at),
        ];
        // Of a loss alone nothing is done beyond the first block.
        let columns = if kernel == Kernel::NetworkLoss || kernel == Kernel::NetworkLossWide {
            1
        } else {
            dim.div_ceil(THREADS)
        };
        launch(Kernel::Reduce, (columns, chains), THREADS, 0, &parameters)
    }
}
