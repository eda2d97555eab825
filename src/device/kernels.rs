//! Matrix kernels for blocks of rows held feature-major.
//!
//! A block holds the activations of some rows as a matrix of one line a feature: entry (feature f,
//! row b) stands at `f·ld + b`. Rows are the vector axis of every kernel. `ld` is odd in units of
//! cache lines (see [`lanes`]), so that the lines of neighbouring features fall into different
//! cache sets. Row counts are multiples of [`lanes`].
//!
//! Orders of summation are part of the contract: [`matmul`] sums over k in ascending order, one
//! chain an entry; [`accumulate_outer`] and [`accumulate_row_sums`] sum each of 64 bytes' worth of
//! lanes in ascending order, then the lanes as [`Pack::sum`] does. Tile shapes differ between
//! instruction sets and change no bit.

use super::Arith;
use super::machine::{Element, Pack};
use crate::num::Real;

/// Rows of a panel of packed weights.
const PANEL: usize = 6;

/// Number of lanes of `T` in 64 bytes: 16 (`f32`) or 8 (`f64`).
pub const fn lanes<T: Real>() -> usize {
    64 / size_of::<T>()
}

/// Length of a packed matrix of `m` rows and `k` columns.
pub const fn packed_len(m: usize, k: usize) -> usize {
    m.div_ceil(PANEL) * PANEL * k
}

/// Packs the row-major `m × k` matrix `w` into panels for [`matmul`].
pub fn pack_rows<T: Real>(w: &[T], m: usize, k: usize, packed: &mut [T]) {
    pack(m, k, packed, |i, j| w[i * k + j]);
}

/// Packs the transpose of the row-major `k × m` matrix `w`, an `m × k` matrix, into panels.
pub fn pack_transposed<T: Real>(w: &[T], m: usize, k: usize, packed: &mut [T]) {
    pack(m, k, packed, |i, j| w[j * m + i]);
}

#[inline(always)]
fn pack<T: Real>(m: usize, k: usize, packed: &mut [T], entry: impl Fn(usize, usize) -> T) {
    for (p, panel) in packed[..packed_len(m, k)].chunks_exact_mut((PANEL * k).max(1)).enumerate() {
        let first = p * PANEL;
        let height = PANEL.min(m - first);
        for (j, column) in panel.chunks_exact_mut(PANEL).enumerate() {
            for (i, x) in column.iter_mut().enumerate() {
                *x = if i < height { entry(first + i, j) } else { T::ZERO };
            }
        }
    }
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

/// What a [`matmul`] starts from.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a, T> {
    /// 0
    Zero,
    /// One number a feature.
    Bias(&'a [T]),
    /// What C holds.
    Keep,
}

/// `C = start + W·A`.
///
/// `w` is an `m × k` matrix from [`pack_rows`] or [`pack_transposed`], `a` a block of `k` features,
/// `c` a block of `m` features, both with leading dimension `ld` and `rows` rows.
#[allow(clippy::too_many_arguments)]
pub fn matmul<T: Element>(
    arith: Arith,
    w: &[T],
    (m, k): (usize, usize),
    a: &[T],
    c: &mut [T],
    ld: usize,
    rows: usize,
    start: Start<'_, T>,
) {
    debug_assert!(rows.is_multiple_of(lanes::<T>()) && rows <= ld);
    match arith {
        // Thirty-two registers hold two packs a line.
        Arith::Avx512 => {
            with_pack!(arith, T, P => columns_of_tiles::<T, P<T>, 2>(w, (m, k), a, c, ld, rows, start))
        }
        _ => with_pack!(arith, T, P => columns_of_tiles::<T, P<T>, 1>(w, (m, k), a, c, ld, rows, start)),
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn columns_of_tiles<T: Element, P: Pack<T>, const N: usize>(
    w: &[T],
    (m, k): (usize, usize),
    a: &[T],
    c: &mut [T],
    ld: usize,
    rows: usize,
    start: Start<'_, T>,
) {
    let mut row = 0;
    while row + N * P::LANES <= rows {
        column_of_tiles::<T, P, N>(w, (m, k), a, c, ld, row, start);
        row += N * P::LANES;
    }
    while row < rows {
        column_of_tiles::<T, P, 1>(w, (m, k), a, c, ld, row, start);
        row += P::LANES;
    }
}

#[inline(always)]
fn column_of_tiles<T: Element, P: Pack<T>, const N: usize>(
    w: &[T],
    (m, k): (usize, usize),
    a: &[T],
    c: &mut [T],
    ld: usize,
    row: usize,
    start: Start<'_, T>,
) {
    let a = &a[row..];
    for (p, panel) in w[..packed_len(m, k)].chunks_exact((PANEL * k).max(1)).enumerate() {
        let first = p * PANEL;
        let c = &mut c[first * ld + row..];
        let start = match start {
            Start::Bias(bias) => Start::Bias(&bias[first..]),
            other => other,
        };
        match m - first {
            1 => tile::<T, P, 1, N>(panel, a, c, ld, start),
            2 => tile::<T, P, 2, N>(panel, a, c, ld, start),
            3 => tile::<T, P, 3, N>(panel, a, c, ld, start),
            4 => tile::<T, P, 4, N>(panel, a, c, ld, start),
            5 => tile::<T, P, 5, N>(panel, a, c, ld, start),
            _ => tile::<T, P, PANEL, N>(panel, a, c, ld, start),
        }
    }
}

/// `M` features by `N` packs of rows of C, in registers.
#[inline(always)]
fn tile<T: Element, P: Pack<T>, const M: usize, const N: usize>(
    panel: &[T],
    a: &[T],
    c: &mut [T],
    ld: usize,
    start: Start<'_, T>,
) {
    let mut acc = [[P::splat(T::ZERO); N]; M];
    match start {
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
    for (weight, line) in panel.as_chunks::<PANEL>().0.iter().zip(a.chunks(ld)) {
        let line = &line[..N * P::LANES];
        let mut values = [P::splat(T::ZERO); N];
        for j in 0..N {
            values[j] = P::load(&line[j * P::LANES..]);
        }
        for i in 0..M {
            let w = P::splat(weight[i]);
            for j in 0..N {
                acc[i][j] = w.mul_add(values[j], acc[i][j]);
            }
        }
    }
    for i in 0..M {
        for j in 0..N {
            acc[i][j].store(&mut c[i * ld + j * P::LANES..]);
        }
    }
}

/// `G += D·Aᵀ`: `g` is row-major `m × k`, `d` a block of `m` features, `a` a block of `k` features.
pub fn accumulate_outer<T: Element>(
    arith: Arith,
    d: &[T],
    a: &[T],
    g: &mut [T],
    (m, k): (usize, usize),
    ld: usize,
    rows: usize,
) {
    match arith {
        Arith::Avx512 => with_pack!(arith, T, P => outer::<T, P<T>, 4, 4>(d, a, g, (m, k), ld, rows)),
        _ => with_pack!(arith, T, P => outer::<T, P<T>, 3, 2>(d, a, g, (m, k), ld, rows)),
    }
}

#[inline(always)]
fn outer<T: Element, P: Pack<T>, const R: usize, const C: usize>(
    d: &[T],
    a: &[T],
    g: &mut [T],
    (m, k): (usize, usize),
    ld: usize,
    rows: usize,
) {
    let mut i = 0;
    while i < m {
        let tall = i + R <= m;
        let mut j = 0;
        while j < k {
            let wide = j + C <= k;
            let (d, a, g) = (&d[i * ld..], &a[j * ld..], &mut g[i * k + j..]);
            match (tall, wide) {
                (true, true) => outer_tile::<T, P, R, C>(d, a, g, k, ld, rows),
                (true, false) => outer_tile::<T, P, R, 1>(d, a, g, k, ld, rows),
                (false, true) => outer_tile::<T, P, 1, C>(d, a, g, k, ld, rows),
                (false, false) => outer_tile::<T, P, 1, 1>(d, a, g, k, ld, rows),
            }
            j += if wide { C } else { 1 };
        }
        i += if tall { R } else { 1 };
    }
}

#[inline(always)]
fn outer_tile<T: Element, P: Pack<T>, const R: usize, const C: usize>(
    d: &[T],
    a: &[T],
    g: &mut [T],
    k: usize,
    ld: usize,
    rows: usize,
) {
    let mut acc = [[P::splat(T::ZERO); C]; R];
    let mut b = 0;
    while b < rows {
        let mut column = [P::splat(T::ZERO); C];
        for j in 0..C {
            column[j] = P::load(&a[j * ld + b..]);
        }
        for i in 0..R {
            let line = P::load(&d[i * ld + b..]);
            for j in 0..C {
                acc[i][j] = line.mul_add(column[j], acc[i][j]);
            }
        }
        b += P::LANES;
    }
    for i in 0..R {
        for j in 0..C {
            g[i * k + j] += acc[i][j].sum();
        }
    }
}

/// `g[f] += Σ_b d[f][b]` for `m` features.
pub fn accumulate_row_sums<T: Element>(arith: Arith, d: &[T], g: &mut [T], m: usize, ld: usize, rows: usize) {
    with_pack!(arith, T, P => row_sums::<T, P<T>>(d, g, m, ld, rows));
}

#[inline(always)]
fn row_sums<T: Element, P: Pack<T>>(d: &[T], g: &mut [T], m: usize, ld: usize, rows: usize) {
    for f in 0..m {
        let mut acc = P::splat(T::ZERO);
        for chunk in d[f * ld..f * ld + rows].chunks_exact(P::LANES) {
            acc = acc.add(P::load(chunk));
        }
        g[f] += acc.sum();
    }
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
mod tests {
    use super::*;
    use crate::num::rng::{Key, Purpose, fill_normal};

    fn normals<T: Real>(n: usize, stream: u32) -> Vec<T> {
        let mut x = vec![T::ZERO; n];
        fill_normal(&mut Key::new([1; 32], Purpose::Probe, stream).at(0), &mut x);
        x
    }

    /// Every shape that takes another path: tails of panels and tiles, single rows and columns.
    const SHAPES: [(usize, usize, usize); 7] =
        [(1, 1, 1), (4, 4, 2), (6, 3, 1), (7, 5, 3), (13, 62, 8), (62, 32, 7), (3, 1, 5)];

    fn check<T: Element>(relative: f64) {
        for (m, k, blocks) in SHAPES {
            let rows = blocks * lanes::<T>();
            let ld = rows + lanes::<T>();
            let w: Vec<T> = normals(m * k, 0);
            let (a, bias): (Vec<T>, Vec<T>) = (normals(k * ld, 1), normals(m, 2));
            let mut packed = vec![T::ZERO; packed_len(m, k)];
            pack_rows(&w, m, k, &mut packed);
            let mut first: Option<(Vec<T>, Vec<T>, Vec<T>)> = None;
            for arith in Arith::ALL.into_iter().filter(|a| a.is_available()) {
                let mut c = vec![T::ZERO; m * ld];
                matmul(arith, &packed, (m, k), &a, &mut c, ld, rows, Start::Bias(&bias));
                for i in 0..m {
                    for b in 0..rows {
                        let terms: Vec<f64> =
                            (0..k).map(|j| w[i * k + j].to_f64() * a[j * ld + b].to_f64()).collect();
                        let exact: f64 = bias[i].to_f64() + terms.iter().sum::<f64>();
                        let size: f64 = bias[i].to_f64().abs() + terms.iter().map(|t| t.abs()).sum::<f64>();
                        let got = c[i * ld + b].to_f64();
                        assert!(
                            (got - exact).abs() <= relative * size,
                            "{arith} ({m},{k},{rows}) {got} {exact}"
                        );
                    }
                }
                let mut g = vec![T::ONE; m * k];
                accumulate_outer(arith, &c, &a, &mut g, (m, k), ld, rows);
                for i in 0..m {
                    for j in 0..k {
                        let terms: Vec<f64> =
                            (0..rows).map(|b| c[i * ld + b].to_f64() * a[j * ld + b].to_f64()).collect();
                        let exact = 1.0 + terms.iter().sum::<f64>();
                        let size = 1.0 + terms.iter().map(|t| t.abs()).sum::<f64>();
                        let got = g[i * k + j].to_f64();
                        assert!((got - exact).abs() <= relative * size, "{arith} outer {got} {exact}");
                    }
                }
                let mut s = vec![T::ZERO; m];
                accumulate_row_sums(arith, &c, &mut s, m, ld, rows);
                for i in 0..m {
                    let exact: f64 = (0..rows).map(|b| c[i * ld + b].to_f64()).sum();
                    let size: f64 = (0..rows).map(|b| c[i * ld + b].to_f64().abs()).sum();
                    assert!((s[i].to_f64() - exact).abs() <= relative * size);
                }
                match &first {
                    None => first = Some((c, g, s)),
                    Some(same) => assert!(*same == (c, g, s), "{arith} gives other bits"),
                }
            }
        }
    }

    #[test]
    fn kernels_equal_plain_sums_and_each_other_to_the_bit() {
        // Worst-case rounding of a sum of at most 128 products is 128 ulp of the sum of magnitudes.
        check::<f32>(128.0 * f64::from(f32::EPSILON));
        check::<f64>(128.0 * f64::EPSILON);
    }

    fn check_relu<T: Element>() {
        let special = [f64::NAN, -0.0, 0.0, f64::INFINITY, f64::NEG_INFINITY, -1.5, 1.5].map(T::from_f64);
        let (m, rows) = (3, 2 * lanes::<T>());
        let ld = rows + lanes::<T>();
        let before: Vec<T> = (0..m * ld).map(|i| special[i % special.len()]).collect();
        for arith in Arith::ALL.into_iter().filter(|a| a.is_available()) {
            let mut z = before.clone();
            relu(arith, &mut z, m, ld, rows);
            for (i, (z, x)) in z.iter().zip(&before).enumerate() {
                let expected = if i % ld < rows && *x < T::ZERO { T::ZERO } else { *x };
                // The text tells −0 from 0, and NaN is equal to itself.
                assert_eq!(z.to_string(), expected.to_string(), "{arith} entry {i} of {}", T::NAME);
            }
        }
    }

    #[test]
    fn relu_stops_negative_numbers_only() {
        check_relu::<f32>();
        check_relu::<f64>();
    }

    #[test]
    fn a_transposed_matrix_is_packed_as_its_transpose() {
        let (m, k) = (7, 5);
        let w: Vec<f64> = normals(k * m, 4);
        let transposed: Vec<f64> = (0..m * k).map(|e| w[(e % k) * m + e / k]).collect();
        let (mut a, mut b) = (vec![0.0; packed_len(m, k)], vec![0.0; packed_len(m, k)]);
        pack_rows(&transposed, m, k, &mut a);
        pack_transposed(&w, m, k, &mut b);
        assert_eq!(a, b);
    }
}
