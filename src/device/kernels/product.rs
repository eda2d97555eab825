//! Products of a weight matrix and a block.

use super::{Rows, with_pack};
use crate::device::Arith;
use crate::device::machine::{Element, Pack};
use crate::num::Real;

/// Most features of a tile.
const TALL: usize = 6;

/// Features of the tile that starts at feature `first` of `m`.
///
/// Tiles are [`TALL`], and the last two share what is left, so that none has one or two features
/// unless there are no more: so few accumulators would not cover the latency of the multiply–add.
const fn height(m: usize, first: usize) -> usize {
    match m - first {
        7 | 8 => 4,
        rest if rest < TALL => rest,
        _ => TALL,
    }
}

/// Length of a packed matrix of `m` rows and `k` columns.
pub const fn packed_len(m: usize, k: usize) -> usize {
    m * k
}

/// Packs the transpose of the row-major `k × m` matrix `w`, an `m × k` matrix, for [`matmul`]: panel
/// by panel as high as a tile, in each panel column by column.
pub fn pack_transposed<T: Real>(w: &[T], m: usize, k: usize, packed: &mut [T]) {
    let (mut first, mut rest) = (0, &mut packed[..packed_len(m, k)]);
    while first < m {
        let height = height(m, first);
        let (panel, after) = rest.split_at_mut(height * k);
        let from = &w[first..];
        match height {
            1 => pack_panel::<T, 1>(from, m, panel),
            2 => pack_panel::<T, 2>(from, m, panel),
            3 => pack_panel::<T, 3>(from, m, panel),
            4 => pack_panel::<T, 4>(from, m, panel),
            5 => pack_panel::<T, 5>(from, m, panel),
            _ => pack_panel::<T, TALL>(from, m, panel),
        }
        (first, rest) = (first + height, after);
    }
}

#[inline(always)]
fn pack_panel<T: Real, const M: usize>(from: &[T], stride: usize, panel: &mut [T]) {
    for (column, line) in panel.as_chunks_mut::<M>().0.iter_mut().zip(from.chunks(stride)) {
        column.copy_from_slice(&line[..M]);
    }
}

/// The matrix W of a product.
#[derive(Clone, Copy, Debug)]
pub enum Weights<'a, T> {
    /// As it is, row-major.
    Plain(&'a [T]),
    /// From [`pack_transposed`].
    Packed(&'a [T]),
}

/// What the sums of a product start from.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a, T> {
    /// 0
    Zero,
    /// One number a feature.
    Bias(&'a [T]),
    /// What C holds.
    Keep,
}

/// What is done to the sums of a product before they are written.
#[derive(Clone, Copy, Debug)]
pub enum End<'a, T> {
    /// Nothing.
    Plain,
    /// z → max(z, 0), NaN staying NaN.
    Relu,
    /// z where the entry of this block, laid out as C, is above 0; 0 elsewhere.
    Where(&'a [T]),
}

/// A product C = end(start + W·A) but for its blocks.
#[derive(Clone, Copy, Debug)]
pub struct Product<'a, T> {
    /// W, `m × k`.
    pub weights: Weights<'a, T>,
    /// (m, k)
    pub size: (usize, usize),
    /// What sums start from.
    pub start: Start<'a, T>,
    /// What becomes of them.
    pub end: End<'a, T>,
}

/// C = end(start + W·A), where `a` is a block of k features, `c` one of m.
pub fn matmul<T: Element>(arith: Arith, product: Product<'_, T>, a: &[T], c: &mut [T], rows: Rows) {
    debug_assert!(rows.count.is_multiple_of(super::lanes::<T>()) && rows.count <= rows.ld);
    match arith {
        // Thirty-two registers hold two packs a line, of which each takes one.
        Arith::Avx512 => with_pack!(arith, T, P => widths::<T, P<T>, 8, 4, 2>(product, a, c, rows)),
        _ => with_pack!(arith, T, P => widths::<T, P<T>, 4, 2, 1>(product, a, c, rows)),
    }
}

/// Tiles of one feature are `W1` packs wide, of two or three `W3`, all others `W`.
#[inline(always)]
fn widths<T: Element, P: Pack<T>, const W1: usize, const W3: usize, const W: usize>(
    product: Product<'_, T>,
    a: &[T],
    c: &mut [T],
    rows: Rows,
) {
    let mut row = 0;
    match product.size.0 {
        1 => columns::<T, P, 1, W1>(product, a, c, rows, &mut row),
        2 | 3 => columns::<T, P, 3, W3>(product, a, c, rows, &mut row),
        _ => {}
    }
    columns::<T, P, TALL, W>(product, a, c, rows, &mut row);
    columns::<T, P, TALL, 1>(product, a, c, rows, &mut row);
}

/// Columns of tiles, `N` packs of rows wide and at most `MAX` high, as long as rows last.
#[inline(always)]
fn columns<T: Element, P: Pack<T>, const MAX: usize, const N: usize>(
    product: Product<'_, T>,
    a: &[T],
    c: &mut [T],
    rows: Rows,
    row: &mut usize,
) {
    while *row + N * P::LANES <= rows.count {
        column::<T, P, MAX, N>(product, &a[*row..], c, rows.ld, *row);
        *row += N * P::LANES;
    }
}

#[inline(always)]
fn column<T: Element, P: Pack<T>, const MAX: usize, const N: usize>(
    product: Product<'_, T>,
    a: &[T],
    c: &mut [T],
    ld: usize,
    row: usize,
) {
    let (m, k) = product.size;
    let mut first = 0;
    while first < m {
        let height = height(m, first);
        let weights = match product.weights {
            Weights::Plain(w) => Weights::Plain(&w[first * k..(first + height) * k]),
            Weights::Packed(w) => Weights::Packed(&w[first * k..(first + height) * k]),
        };
        let start = match product.start {
            Start::Bias(bias) => Start::Bias(&bias[first..first + height]),
            other => other,
        };
        let at = first * ld + row;
        let end = match product.end {
            End::Where(gate) => End::Where(&gate[at..]),
            other => other,
        };
        let tile = Product { weights, size: (height, k), start, end };
        let c = &mut c[at..];
        match height {
            1 => self::tile::<T, P, 1, N>(tile, a, c, ld),
            2 if MAX >= 2 => self::tile::<T, P, 2, N>(tile, a, c, ld),
            3 if MAX >= 3 => self::tile::<T, P, 3, N>(tile, a, c, ld),
            4 if MAX >= 4 => self::tile::<T, P, 4, N>(tile, a, c, ld),
            5 if MAX >= 5 => self::tile::<T, P, 5, N>(tile, a, c, ld),
            _ if MAX >= TALL => self::tile::<T, P, TALL, N>(tile, a, c, ld),
            _ => unreachable!("a tile is at most {MAX} features high"),
        }
        first += height;
    }
}

/// `M` features by `N` packs of rows of C, in registers.
#[inline(always)]
fn tile<T: Element, P: Pack<T>, const M: usize, const N: usize>(
    product: Product<'_, T>,
    a: &[T],
    c: &mut [T],
    ld: usize,
) {
    let k = product.size.1;
    let mut acc = [[P::splat(T::ZERO); N]; M];
    match product.start {
        Start::Zero => {}
        Start::Bias(bias) => {
            for i in 0..M {
                acc[i] = [P::splat(bias[i]); N];
            }
        }
        Start::Keep => {
            for i in 0..M {
                for j in 0..N {
                    acc[i][j] = P::load(&c[i * ld + j * P::LANES..]);
                }
            }
        }
    }
    match product.weights {
        Weights::Plain(w) => {
            let mut lines = [&w[..0]; M];
            for i in 0..M {
                lines[i] = &w[i * k..][..k];
            }
            for (j, values) in a.chunks(ld).take(k).enumerate() {
                let mut weights = [T::ZERO; M];
                for i in 0..M {
                    weights[i] = lines[i][j];
                }
                step::<T, P, M, N>(&mut acc, &weights, values);
            }
        }
        Weights::Packed(w) => {
            for (weights, values) in w.as_chunks::<M>().0.iter().zip(a.chunks(ld)) {
                step::<T, P, M, N>(&mut acc, weights, values);
            }
        }
    }
    match product.end {
        End::Plain => {}
        End::Relu => {
            for i in 0..M {
                for j in 0..N {
                    acc[i][j] = acc[i][j].relu();
                }
            }
        }
        End::Where(gate) => {
            for i in 0..M {
                for j in 0..N {
                    acc[i][j] = acc[i][j].where_positive(P::load(&gate[i * ld + j * P::LANES..]));
                }
            }
        }
    }
    for i in 0..M {
        for j in 0..N {
            acc[i][j].store(&mut c[i * ld + j * P::LANES..]);
        }
    }
}

/// One column of W times one line of A.
#[inline(always)]
fn step<T: Element, P: Pack<T>, const M: usize, const N: usize>(
    acc: &mut [[P; N]; M],
    weights: &[T; M],
    line: &[T],
) {
    let line = &line[..N * P::LANES];
    let mut values = [P::splat(T::ZERO); N];
    for j in 0..N {
        values[j] = P::load(&line[j * P::LANES..]);
    }
    for i in 0..M {
        let w = P::splat(weights[i]);
        for j in 0..N {
            acc[i][j] = w.mul_add(values[j], acc[i][j]);
        }
    }
}
