//! NVIDIA GPUs: which one is ours, memory on it, launches of the kernels of `kernels/`.
//!
//! The kernels travel inside the program as one fat binary (code for compute capability 8.0 and 9.0, PTX for later
//! ones). No library of the driver is linked: where there is none, [`Gpu::open`] says [`GpuError::NoDevice`] and
//! everything else of the program works.
//!
//! Everything of one [`Gpu`] happens in order, on one stream. A kernel sees memory of the device alone, and all that
//! lies there are plain numbers, of which any bits are valid: a wrong kernel makes wrong numbers or a device error,
//! never undefined behaviour of the program. So launches are safe functions; what the driver reads of ours, the
//! parameters, is checked against each kernel's own.

mod driver;
mod kernel;

use thiserror::Error;

pub use driver::{Buffer, DeviceNumber, Gpu};
pub use kernel::{Kernel, Parameter};

use super::SharedMemory;

/// Oldest compute capability that the kernels are compiled for.
const OLDEST: (i32, i32) = (8, 0);

/// What a device says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuInfo {
    /// Its number among the visible devices (`CUDA_VISIBLE_DEVICES`).
    pub ordinal: u32,
    /// As the driver names it.
    pub name: String,
    /// Bytes of memory.
    pub memory: usize,
    /// Compute capability: major, minor.
    pub capability: (i32, i32),
    /// PCI address: domain, bus and device, hexadecimal.
    pub bus: String,
    /// What a block may take.
    pub shared: SharedMemory,
}

/// Why something on a device did not work.
#[derive(Debug, Error)]
pub enum GpuError {
    /// Neither driver nor device.
    #[error(
        "no NVIDIA driver or no device here: ask for a GPU (SLURM: --gpus-per-task=1), or compute on the CPU"
    )]
    NoDevice,
    /// Older than the kernels.
    #[error("{name} has compute capability {}.{}, but {}.{} is the oldest that works", capability.0, capability.1, OLDEST.0, OLDEST.1)]
    TooOld {
        /// The device.
        name: String,
        /// What it has.
        capability: (i32, i32),
    },
    /// No room for a buffer.
    #[error("no room for {bytes} bytes in the device's memory: run fewer chains at a time")]
    OutOfMemory {
        /// What was asked for.
        bytes: usize,
    },
    /// Parameters that are not the kernel's.
    #[error("kernel {kernel} takes parameters of {expected:?} bytes and was given {given:?}: this is a bug")]
    Parameters {
        /// Its name.
        kernel: String,
        /// Sizes of its parameters.
        expected: Vec<usize>,
        /// Sizes of what was given.
        given: Vec<usize>,
    },
    /// Lengths that do not fit each other.
    #[error("{what}: {given} numbers where {expected} belong: this is a bug")]
    Length {
        /// Which array.
        what: &'static str,
        /// Numbers that there should be.
        expected: usize,
        /// Numbers that there are.
        given: usize,
    },
    /// Anything else that the driver reports.
    #[error("the GPU driver could not {doing}: {reason}")]
    Driver {
        /// What was tried.
        doing: &'static str,
        /// What the driver said.
        reason: cust::error::CudaError,
    },
}

/// The device of a rank: its number among the ranks of its node, modulo the devices that are visible.
pub fn ordinal_of(node_local_rank: usize, devices: u32) -> Option<u32> {
    (node_local_rank as u64).checked_rem(u64::from(devices)).map(|ordinal| ordinal as u32)
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
