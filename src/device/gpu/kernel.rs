//! The kernels' names, and what they take.

use super::buffer::{Buffer, Number};

/// Bytes of `NetworkPlan`, `NetworkArgs`, `StepArgs` and `RoundArgs` of the kernels' sources.
const PLAN: usize = 18 * 4 + 2 * 8 + 24 * 14 * 4;
const ARGS: usize = 7 * 8 + 2 * 4;
const STEP: usize = 6 * 4 + 6 * 8 + 7 * 8 + 6 * 4;
const ROUND: usize = 4 * 4 + 3 * 8 + 11 * 8 + 5 * 8 + 4 * 4;

/// A kernel of `kernels/kernels.cu`; each is there for `f32` and for `f64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Loss and gradient of segments, weights in shared memory.
    NetworkGradient,
    /// Loss of segments, weights in shared memory.
    NetworkLoss,
    /// Loss and gradient of segments, packed weights in global memory.
    NetworkGradientWide,
    /// Loss of segments, packed weights in global memory.
    NetworkLossWide,
    /// Packs weights into global memory.
    NetworkPack,
    /// Sums segments.
    Reduce,
    /// Steps of SGLD chains, weights in shared memory.
    SgldSteps,
    /// The same, packed weights in global memory.
    SgldStepsWide,
    /// Steps of SGHMC chains.
    SghmcSteps,
    /// The same, packed weights in global memory.
    SghmcStepsWide,
    /// Steps of SGNHT chains.
    SgnhtSteps,
    /// The same, packed weights in global memory.
    SgnhtStepsWide,
    /// One round of Hamiltonian chains, after the gradients where their paths are.
    HamiltonianRound,
    /// Rounds of Hamiltonian chains, gradients included.
    HamiltonianRounds,
    /// One round of microcanonical chains, after the gradients where their paths are.
    MicrocanonicalRound,
    /// Rounds of microcanonical chains, gradients included.
    MicrocanonicalRounds,
}

impl Kernel {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::NetworkGradient,
        Self::NetworkLoss,
        Self::NetworkGradientWide,
        Self::NetworkLossWide,
        Self::NetworkPack,
        Self::Reduce,
        Self::SgldSteps,
        Self::SgldStepsWide,
        Self::SghmcSteps,
        Self::SghmcStepsWide,
        Self::SgnhtSteps,
        Self::SgnhtStepsWide,
        Self::HamiltonianRound,
        Self::HamiltonianRounds,
        Self::MicrocanonicalRound,
        Self::MicrocanonicalRounds,
    ];

    /// Its name without the number type.
    pub fn name(self) -> &'static str {
        match self {
            Self::NetworkGradient => "network_gradient",
            Self::NetworkLoss => "network_loss",
            Self::NetworkGradientWide => "network_gradient_wide",
            Self::NetworkLossWide => "network_loss_wide",
            Self::NetworkPack => "network_pack",
            Self::Reduce => "reduce",
            Self::SgldSteps => "sgld_steps",
            Self::SgldStepsWide => "sgld_steps_wide",
            Self::SghmcSteps => "sghmc_steps",
            Self::SghmcStepsWide => "sghmc_steps_wide",
            Self::SgnhtSteps => "sgnht_steps",
            Self::SgnhtStepsWide => "sgnht_steps_wide",
            Self::HamiltonianRound => "hamiltonian_round",
            Self::HamiltonianRounds => "hamiltonian_rounds",
            Self::MicrocanonicalRound => "microcanonical_round",
            Self::MicrocanonicalRounds => "microcanonical_rounds",
        }
    }

    /// Bytes of each of its parameters.
    pub fn parameters(self) -> &'static [usize] {
        match self {
            Self::NetworkPack => &[PLAN, 8, 8],
            Self::Reduce => &[4, 4, 8, 8, 8, 8, 8],
            Self::SgldSteps
            | Self::SgldStepsWide
            | Self::SghmcSteps
            | Self::SghmcStepsWide
            | Self::SgnhtSteps
            | Self::SgnhtStepsWide => &[PLAN, ARGS, STEP, 8, 4],
            Self::HamiltonianRound | Self::MicrocanonicalRound => &[ROUND],
            Self::HamiltonianRounds | Self::MicrocanonicalRounds => &[PLAN, ARGS, ROUND, 4],
            _ => &[PLAN, ARGS],
        }
    }
}

/// One parameter of a kernel, put together field by field. Fields are not padded.
#[derive(Clone, Debug, Default)]
pub struct Parameter(Vec<u8>);

impl Parameter {
    /// Bytes as they are.
    pub fn bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// An `int`.
    pub fn int(value: usize) -> Self {
        Self::default().and_int(value)
    }

    /// A `double`.
    pub fn double(value: f64) -> Self {
        Self(value.to_ne_bytes().to_vec())
    }

    /// The address of an array.
    pub fn array<T: Number>(array: &Buffer<'_, T>) -> Self {
        Self::default().and_array(array)
    }

    /// The address of number `offset` of an array.
    pub fn array_at<T: Number>(array: &Buffer<'_, T>, offset: usize) -> Self {
        Self::default().and_array_at(array, offset)
    }

    /// The address of no array.
    pub fn none() -> Self {
        Self::default().and_none()
    }

    /// Then an `int`, which must be below 2³¹.
    pub fn and_int(mut self, value: usize) -> Self {
        debug_assert!(value <= i32::MAX as usize);
        self.0.extend((value as i32).to_ne_bytes());
        self
    }

    /// Then an `unsigned`.
    pub fn and_word(mut self, value: u32) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    /// Then an `unsigned long long`.
    pub fn and_long(mut self, value: u64) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    /// Then a `double`.
    pub fn and_double(mut self, value: f64) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    /// Then the address of an array.
    pub fn and_array<T: Number>(self, array: &Buffer<'_, T>) -> Self {
        self.and_array_at(array, 0)
    }

    /// Then the address of number `offset` of an array.
    pub fn and_array_at<T: Number>(self, array: &Buffer<'_, T>, offset: usize) -> Self {
        self.and_long(array.address_of(offset))
    }

    /// Then the address of no array.
    pub fn and_none(self) -> Self {
        self.and_long(0)
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was put into it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes.
    pub(in crate::device) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes in memory that is aligned for any field.
    #[cfg(feature = "cuda")]
    pub(in crate::device) fn words(&self) -> Vec<u64> {
        let word = |chunk: &[u8]| {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            u64::from_ne_bytes(bytes)
        };
        self.0.chunks(8).map(word).collect()
    }
}
