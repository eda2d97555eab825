//! Which device a rank has.

use std::fmt;
use std::str::FromStr;

use super::host::HostKernels;
use super::{DeviceError, DeviceInfo, Place};

/// What is to compute: `--device`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// A GPU where there is one and a run can use it, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU, or nothing.
    Cuda,
}

/// A device by a name that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is none of auto, cpu and cuda")]
pub struct UnknownChoice(String);

impl Choice {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Choice {
    type Err = UnknownChoice;

    fn from_str(text: &str) -> Result<Self, UnknownChoice> {
        let all = [Self::Auto, Self::Cpu, Self::Cuda];
        all.into_iter().find(|choice| choice.name() == text).ok_or_else(|| UnknownChoice(text.to_owned()))
    }
}

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
    Gpu { node_local_rank: usize },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_take_devices_in_turn() {
        let ordinals: Vec<_> = (0..6).map(|rank| ordinal_of(rank, 4)).collect();
        assert_eq!(ordinals, [Some(0), Some(1), Some(2), Some(3), Some(0), Some(1)]);
        assert_eq!(ordinal_of(0, 0), None);
    }

    #[test]
    fn choices_have_their_names() {
        for choice in [Choice::Auto, Choice::Cpu, Choice::Cuda] {
            assert_eq!(choice.name().parse(), Ok(choice));
        }
        assert_eq!("gpu".parse::<Choice>().unwrap_err().to_string(), "gpu is none of auto, cpu and cuda");
    }
}
