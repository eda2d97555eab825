//! Matrix kernels for blocks of rows held feature-major.
//!
//! A block holds the activations of some rows as a matrix of one line a feature: entry (feature f,
//! row b) stands at `f·ld + b`. Rows are the vector axis of every kernel. `ld` is odd in units of
//! cache lines (see [`lanes`]), so that the lines of neighbouring features fall into different
//! cache sets. Row counts are multiples of [`lanes`].
//!
//! Orders of summation are part of the contract: [`matmul`] sums over k in ascending order, one
//! chain an entry; [`accumulate_outer`] and [`accumulate_row_sums`] sum each of 64 bytes' worth of
//! lanes in ascending order, then the lanes as [`Pack::sum`] does; [`accumulate_lagged`] says its own. Tile shapes differ between
//! instruction sets and change no bit.

mod lagged;
mod outer;
mod product;

pub use lagged::accumulate_lagged;
pub use outer::{accumulate_outer, accumulate_row_sums};
pub use product::{End, Product, Start, Weights, matmul, pack_transposed, packed_len};

use super::Arith;
use super::machine::{Element, Pack};
use crate::num::Real;

/// Number of lanes of `T` in 64 bytes: 16 (`f32`) or 8 (`f64`).
pub const fn lanes<T: Real>() -> usize {
    64 / size_of::<T>()
}

/// Runs `$body` with `$p` standing for the pack of `$t` on `$arith`.
macro_rules! with_pack {
    ($arith:expr, $t:ty, $p:ident => $body:expr) => {
        match $arith {
            Arith::Generic => {
                type $p<T> = <T as Element>::Generic;
                $body
            }
            Arith::Avx2 => $arith.run(
                #[inline(always)]
                || {
                    type $p<T> = <T as Element>::Avx2;
                    $body
                },
            ),
            Arith::Avx512 => $arith.run(
                #[inline(always)]
                || {
                    type $p<T> = <T as Element>::Avx512;
                    $body
                },
            ),
        }
    };
}
pub(super) use with_pack;

/// The part of a block that is in use.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// Leading dimension.
    pub ld: usize,
    /// Rows, a multiple of [`lanes`] and at most `ld`.
    pub count: usize,
}

/// z → max(z, 0) in place, NaN staying NaN, for a block of `m` features.
///
/// Written in packs because a loop over numbers, of which some stay as they are, compiles to
/// masked stores, several times as slow.
pub fn relu<T: Element>(arith: Arith, z: &mut [T], m: usize, ld: usize, rows: usize) {
    with_pack!(arith, T, P => relu_lines::<T, P<T>>(z, m, ld, rows));
}

#[inline(always)]
fn relu_lines<T: Element, P: Pack<T>>(z: &mut [T], m: usize, ld: usize, rows: usize) {
    for f in 0..m {
        for chunk in z[f * ld..f * ld + rows].chunks_exact_mut(P::LANES) {
            P::load(chunk).relu().store(chunk);
        }
    }
}

#[cfg(test)]
mod tests;
