//! Places where the kernels of `kernels/` run, seen without the driver: memory, launches, what went wrong.
//!
//! Everything above launches speaks to a [`Place`]. Two there are: an NVIDIA GPU (`device::cuda`, feature `cuda`), and
//! the same kernels compiled as plain C++, in a process of their own ([`HostKernels`]), by which tests run everything
//! where there is no GPU. Which one a rank has is a [`RankDevice`].

mod buffer;
mod host;
mod kernel;
mod rank;

use thiserror::Error;

pub use buffer::{Buffer, Number};
pub use host::HostKernels;
pub use kernel::{Kernel, Parameter};
pub use rank::{RankDevice, ThreadDevice, ordinal_of};

use super::SharedMemory;

/// What a device says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// As its maker names it.
    pub name: String,
    /// Bytes of memory.
    pub memory: usize,
    /// Compute capability: major, minor.
    pub capability: (i32, i32),
    /// PCI address: domain, bus and device, hexadecimal.
    pub bus: String,
    /// What a block may take.
    pub shared: SharedMemory,
    /// Part of the identity of a run on it: `cuda`, or `host-kernels` where no device is behind it.
    pub kind: &'static str,
}

impl DeviceInfo {
    /// What bits depend on: `cuda-sm90`. Runs on devices of one arithmetic have the same bits.
    pub fn arithmetic(&self) -> String {
        format!("{}-sm{}{}", self.kind, self.capability.0, self.capability.1)
    }
}

impl std::fmt::Display for DeviceInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let gib = self.memory as f64 / f64::from(1 << 30);
        write!(f, "{} ({gib:.1} GiB, {}, {})", self.name, self.bus, self.arithmetic())
    }
}

/// Why something on a device did not work.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum DeviceError {
    /// A program that was built without GPUs.
    #[error(
        "this program was built without GPUs: build it with `make build-cuda` (feature `cuda`), or compute with --device cpu"
    )]
    NoFeature,
    /// Neither driver nor device.
    #[error(
        "no NVIDIA driver or no device here: ask for a GPU (SLURM: --gpus-per-task=1), or compute with --device cpu"
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
    #[error("no room for {bytes} bytes in the device's memory")]
    OutOfMemory {
        /// What was asked for.
        bytes: usize,
    },
    /// Parameters that are not the kernel's.
    #[error("kernel {kernel} takes parameters of {expected:?} bytes and was given {given:?}: this is a bug")]
    Parameters {
        /// Its name.
        kernel: &'static str,
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
    #[error("the device could not {doing}: {reason}")]
    Failed {
        /// What was tried.
        doing: &'static str,
        /// What the driver said.
        reason: String,
    },
}

/// Oldest compute capability that the kernels are compiled for.
pub const OLDEST: (i32, i32) = (8, 0);

/// A launch of a kernel.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// Which.
    pub kernel: Kernel,
    /// Whether its numbers are `f64`, else `f32`.
    pub double: bool,
    /// Blocks: columns, chains.
    pub grid: (usize, usize),
    /// Threads of a block.
    pub threads: usize,
    /// Shared memory of a block, in bytes.
    pub shared_bytes: usize,
    /// Its parameters.
    pub parameters: &'a [Parameter],
}

impl Launch<'_> {
    /// Whether the parameters are the kernel's, by their sizes.
    ///
    /// # Errors
    /// [`DeviceError::Parameters`].
    pub fn check(&self) -> Result<(), DeviceError> {
        let given: Vec<usize> = self.parameters.iter().map(Parameter::len).collect();
        let expected = self.kernel.parameters();
        if given == expected {
            return Ok(());
        }
        Err(DeviceError::Parameters { kernel: self.kernel.name(), expected: expected.to_vec(), given })
    }
}

/// Where kernels run. Everything happens in order; what a launch does wrong may show at a later call.
///
/// Memory is named by the address of its first byte, which means something to kernels alone. [`Buffer`] is how it is
/// used.
pub trait Place {
    /// What it says of itself.
    fn info(&self) -> &DeviceInfo;

    /// So many bytes of zeros.
    fn allocate(&self, bytes: usize) -> Result<u64, DeviceError>;

    /// Gives back what was allocated.
    fn free(&self, address: u64);

    /// Overwrites the front of what was allocated.
    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), DeviceError>;

    /// Reads the front of what was allocated, once all that was launched before is done.
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), DeviceError>;

    /// Launches a kernel.
    fn launch(&self, launch: &Launch<'_>) -> Result<(), DeviceError>;
}
