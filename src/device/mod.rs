//! Where arithmetic runs: the instruction set of a process and the micro-kernels built for it.
//!
//! Kernels are written once, in plain Rust with explicit fused multiply–adds and explicit lanes,
//! and compiled for every instruction set. Rust never reorders floating-point operations, so all
//! instruction sets give the same bits; what they differ in is speed.

mod arith;
#[cfg(feature = "cuda")]
pub mod cuda;
mod elementary;
pub mod gpu;
mod kernels;
mod machine;
mod normal;
mod peak;
mod shared;

pub use arith::{Arith, UnknownArith};
pub use elementary::Elementary;
pub use kernels::{
    End, Product, Rows, Start, Weights, accumulate_lagged, accumulate_outer, accumulate_row_sums, lanes,
    matmul, pack_transposed, packed_len, relu,
};
pub use machine::{Element, Pack, use_one_blas_thread};
pub use normal::{Normal, fill_normal};
pub use peak::fma_peak;
pub use shared::SharedMemory;
