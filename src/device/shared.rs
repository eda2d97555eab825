/// Shared memory that a GPU's processor gives to one block of threads, and to all blocks that it runs at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedMemory {
    /// Bytes of one block.
    pub block: usize,
    /// Bytes that the blocks of a multiprocessor share.
    pub multiprocessor: usize,
}

impl SharedMemory {
    /// Compute capability 8.0 (A100): 163 of 164 KiB.
    pub const SM_80: Self = Self { block: 163 << 10, multiprocessor: 164 << 10 };
    /// Compute capability 9.0 (H100): 227 of 228 KiB.
    pub const SM_90: Self = Self { block: 227 << 10, multiprocessor: 228 << 10 };
}
