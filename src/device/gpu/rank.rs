//! Which device a rank has.

use std::cell::RefCell;
use std::rc::Rc;

use super::host::HostKernels;
use super::{DeviceError, DeviceInfo, Place};

/// The device of a rank: its number among the ranks of its node, modulo the devices that are visible.
pub fn ordinal_of(node_local_rank: usize, devices: u32) -> Option<u32> {
    (node_local_rank as u64).checked_rem(u64::from(devices)).map(|ordinal| ordinal as u32)
}

/// The device of this rank. Every thread that uses it opens it for itself.
#[derive(Clone, Debug)]
pub struct RankDevice {
    info: DeviceInfo,
    way: Way,
}

#[derive(Clone, Debug)]
enum Way {
    Host(HostKernels),
    #[cfg(feature = "cuda")]
    Gpu {
        node_local_rank: usize,
    },
}

impl RankDevice {
    /// The device of a rank by its number among the ranks of its node; the host's kernels where
    /// `LAMBDA_HAT_HOST_KERNELS` names their program.
    ///
    /// # Errors
    /// There is none, or none that works.
    pub fn find(node_local_rank: usize) -> Result<Self, DeviceError> {
        if let Some(kernels) = HostKernels::of_environment()? {
            return Ok(Self::of_host(kernels));
        }
        #[cfg(feature = "cuda")]
        {
            let gpu = crate::device::cuda::Gpu::open(node_local_rank)?;
            Ok(Self { info: gpu.info().clone(), way: Way::Gpu { node_local_rank } })
        }
        #[cfg(not(feature = "cuda"))]
        {
            let _ = node_local_rank;
            Err(DeviceError::NoFeature)
        }
    }

    /// The kernels built for the host, as a device.
    pub fn of_host(kernels: HostKernels) -> Self {
        Self { info: kernels.info(), way: Way::Host(kernels) }
    }

    /// What it says of itself.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// Opens it for the thread that asks.
    ///
    /// # Errors
    /// The driver failed.
    pub fn open(&self) -> Result<Box<dyn Place>, DeviceError> {
        match &self.way {
            Way::Host(kernels) => Ok(Box::new(kernels.start()?)),
            #[cfg(feature = "cuda")]
            Way::Gpu { node_local_rank } => Ok(Box::new(crate::device::cuda::Gpu::open(*node_local_rank)?)),
        }
    }
}

/// The device as one thread has it: opened when first used, and again after it has failed.
#[derive(Default)]
pub struct ThreadDevice {
    device: Option<RankDevice>,
    open: RefCell<Option<Rc<dyn Place>>>,
}

impl ThreadDevice {
    /// Of a rank that has one, or none.
    pub fn new(device: Option<RankDevice>) -> Self {
        Self { device, open: RefCell::default() }
    }

    /// The device.
    ///
    /// # Errors
    /// The rank has none, or it cannot be opened.
    pub fn get(&self) -> Result<Rc<dyn Place>, DeviceError> {
        if let Some(place) = &*self.open.borrow() {
            return Ok(Rc::clone(place));
        }
        let device = self.device.as_ref().ok_or(DeviceError::NoDevice)?;
        let place: Rc<dyn Place> = device.open()?.into();
        *self.open.borrow_mut() = Some(Rc::clone(&place));
        Ok(place)
    }

    /// Lets go of a device that has failed.
    pub fn close(&self) {
        *self.open.borrow_mut() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_take_devices_in_turn() {
        let ordinals: Vec<_> = (0..6).map(|rank| ordinal_of(rank, 4)).collect();
        assert_eq!(ordinals, [Some(0), Some(1), Some(2), Some(3), Some(0), Some(1)]);
        assert_eq!(ordinal_of(0, 0), None);
    }
}
