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
        // Thirty-two registers hold four packs a line, of which each takes one.
        Arith::Avx512 => with_pack!(arith, T, P => widths::<T, P<T>, 8, 4, 4>(product, a, c, rows)),
        _ => with_pack!(arith, T, P => widths::<T, P<T>, 4, 2, 1>(product, a, c, rows)),
    }
}

/// Tiles of one feature are `W1` packs wide, of two or three `W3`, all others `W`.
///
/// Where one tile is as high as C, which tile that is is decided once, not a column: in narrow
/// networks that would take as long as the products.
#[inline(always)]
fn widths<T: Element, P: Pack<T>, const W1: usize, const W3: usize, const W: usize>(
    product: Product<'_, T>,
    a: &[T],
    c: &mut [T],
    rows: Rows,
) {
    match product.size.0 {
        1 => row_of_tiles::<T, P, 1, W1>(product, a, c, rows),
        2 => row_of_tiles::<T, P, 2, W3>(product, a, c, rows),
        3 => row_of_tiles::<T, P, 3, W3>(product, a, c, rows),
        4 => row_of_tiles::<T, P, 4, W>(product, a, c, rows),
        5 => row_of_tiles::<T, P, 5, W>(product, a, c, rows),
        TALL => row_of_tiles::<T, P, TALL, W>(product, a, c, rows),
        _ => {
            let mut row = 0;
            while row + W * P::LANES <= rows.count {
                column_of_tiles::<T, P, W>(product, a, c, rows.ld, row);
                row += W * P::LANES;
            }
            while row < rows.count {
                column_of_tiles::<T, P, 1>(product, a, c, rows.ld, row);
                row += P::LANES;
            }
        }
    }
}

/// C of `M` features, by tiles `N` packs of rows wide as long as there are as many.
#[inline(always)]
fn row_of_tiles<T: Element, P: Pack<T>, const M: usize, const N: usize>(
    product: Product<'_, T>,
    a: &[T],
    c: &mut [T],
    rows: Rows,
) {
    let mut row = 0;
    while row + N * P::LANES <= rows.count {
        tile::<T, P, M, N>(product.at(row), &a[row..], &mut c[row..], rows.ld);
        row += N * P::LANES;
    }
    while row < rows.count {
        tile::<T, P, M, 1>(product.at(row), &a[row..], &mut c[row..], rows.ld);
        row += P::LANES;
    }
}

/// `N` packs of rows of C, where C has more features than a tile.
#[inline(always)]
fn column_of_tiles<T: Element, P: Pack<T>, const N: usize>(
    product: Product<'_, T>,
    a: &[T],
    c: &mut [T],
    ld: usize,
    row: usize,
) {
    let (a, m) = (&a[row..], product.size.0);
    let mut first = 0;
    while first < m {
        let height = height(m, first);
        let at = first * ld + row;
        let (product, c) = (product.lines(first, height).at(at), &mut c[at..]);
        match height {
            3 => tile::<T, P, 3, N>(product, a, c, ld),
            4 => tile::<T, P, 4, N>(product, a, c, ld),
            5 => tile::<T, P, 5, N>(product, a, c, ld),
            _ => tile::<T, P, TALL, N>(product, a, c, ld),
        }
        first += height;
    }
}

impl<T> Product<'_, T> {
    /// The product for the part of C that starts at `at` of its slice.
    #[inline(always)]
    fn at(mut self, at: usize) -> Self {
        if let End::Where(gate) = &mut self.end {
            *gate = &gate[at..];
        }
        self
    }

    /// The product for `height` features of C.
    #[inline(always)]
    fn lines(mut self, first: usize, height: usize) -> Self {
        let (Weights::Plain(w) | Weights::Packed(w)) = &mut self.weights;
        *w = &w[first * self.size.1..][..height * self.size.1];
        if let Start::Bias(bias) = &mut self.start {
            *bias = &bias[first..][..height];
        }
        self
    }
}

/// `M` features by `N` packs of rows of C, in registers: where one of them is reached through an
/// iterator, the compiler keeps all in memory, and the product takes twice as long.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
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
                let line = &c[i * ld..][..N * P::LANES];
                for j in 0..N {
                    acc[i][j] = P::load(&line[j * P::LANES..]);
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
            for j in 0..k {
                let values = &a[j * ld..];
                let mut weights = [T::ZERO; M];
                for i in 0..M {
                    weights[i] = lines[i][j];
                }
                step::<T, P, M, N>(&mut acc, &weights, values);
            }
        }
        Weights::Packed(w) => {
            for (j, weights) in w.as_chunks::<M>().0[..k].iter().enumerate() {
                step::<T, P, M, N>(&mut acc, weights, &a[j * ld..]);
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
                let line = &gate[i * ld..][..N * P::LANES];
                for j in 0..N {
                    acc[i][j] = acc[i][j].where_positive(P::load(&line[j * P::LANES..]));
                }
            }
        }
    }
    for i in 0..M {
        let line = &mut c[i * ld..][..N * P::LANES];
        for j in 0..N {
            acc[i][j].store(&mut line[j * P::LANES..]);
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
