//! Sums over the rows of blocks: outer products, and single features.

use super::{Rows, with_pack};
use crate::device::Arith;
use crate::device::machine::{Element, Pack};

/// `G += D·Aᵀ`: `g` is row-major `m × k`, `d` a block of `m` features, `a` a block of `k` features.
pub fn accumulate_outer<T: Element>(
    arith: Arith,
    d: &[T],
    a: &[T],
    g: &mut [T],
    (m, k): (usize, usize),
    rows: Rows,
) {
    match (arith, m) {
        (Arith::Avx512, 1) => with_pack!(arith, T, P => tiles::<T, P<T>, 1, 8>(d, a, g, (m, k), rows)),
        (Arith::Avx512, _) => with_pack!(arith, T, P => tiles::<T, P<T>, 4, 4>(d, a, g, (m, k), rows)),
        (_, 1) => with_pack!(arith, T, P => tiles::<T, P<T>, 1, 4>(d, a, g, (m, k), rows)),
        _ => with_pack!(arith, T, P => tiles::<T, P<T>, 3, 2>(d, a, g, (m, k), rows)),
    }
}

#[inline(always)]
fn tiles<T: Element, P: Pack<T>, const R: usize, const C: usize>(
    d: &[T],
    a: &[T],
    g: &mut [T],
    (m, k): (usize, usize),
    rows: Rows,
) {
    let mut i = 0;
    while i < m {
        let (d, g) = (&d[i * rows.ld..], &mut g[i * k..]);
        match m - i {
            1 if R > 1 => row_of_tiles::<T, P, 1, C>(d, a, g, k, rows),
            2 if R > 2 => row_of_tiles::<T, P, 2, C>(d, a, g, k, rows),
            3 if R > 3 => row_of_tiles::<T, P, 3, C>(d, a, g, k, rows),
            _ => row_of_tiles::<T, P, R, C>(d, a, g, k, rows),
        }
        i += R;
    }
}

#[inline(always)]
fn row_of_tiles<T: Element, P: Pack<T>, const R: usize, const C: usize>(
    d: &[T],
    a: &[T],
    g: &mut [T],
    k: usize,
    rows: Rows,
) {
    let mut j = 0;
    while j < k {
        let (a, g) = (&a[j * rows.ld..], &mut g[j..]);
        match k - j {
            1 if C > 1 => tile::<T, P, R, 1>(d, a, g, k, rows),
            2 if C > 2 => tile::<T, P, R, 2>(d, a, g, k, rows),
            3 if C > 3 => tile::<T, P, R, 3>(d, a, g, k, rows),
            4 if C > 4 => tile::<T, P, R, 4>(d, a, g, k, rows),
            5 if C > 5 => tile::<T, P, R, 5>(d, a, g, k, rows),
            6 if C > 6 => tile::<T, P, R, 6>(d, a, g, k, rows),
            7 if C > 7 => tile::<T, P, R, 7>(d, a, g, k, rows),
            _ => tile::<T, P, R, C>(d, a, g, k, rows),
        }
        j += C;
    }
}

/// `R` lines by `C` columns of G, in registers.
#[inline(always)]
fn tile<T: Element, P: Pack<T>, const R: usize, const C: usize>(
    d: &[T],
    a: &[T],
    g: &mut [T],
    k: usize,
    Rows { ld, count }: Rows,
) {
    let mut acc = [[P::splat(T::ZERO); C]; R];
    let (mut left, mut right) = ([&d[..0]; R], [&a[..0]; C]);
    for i in 0..R {
        left[i] = &d[i * ld..][..count];
    }
    for j in 0..C {
        right[j] = &a[j * ld..][..count];
    }
    let mut b = 0;
    while b + P::LANES <= count {
        let mut column = [P::splat(T::ZERO); C];
        for j in 0..C {
            column[j] = P::load(&right[j][b..]);
        }
        for i in 0..R {
            let line = P::load(&left[i][b..]);
            for j in 0..C {
                acc[i][j] = line.mul_add(column[j], acc[i][j]);
            }
        }
        b += P::LANES;
    }
    // Two lines together where they fill their packs, the others alone.
    let pairs = if C > 2 { R / 2 } else { 0 };
    for pair in 0..pairs {
        let i = 2 * pair;
        for group in 0..C.div_ceil(4) {
            let first = 4 * group;
            let mut packs = [[P::splat(T::ZERO); 4]; 2];
            for j in 0..4 {
                if first + j < C {
                    packs[0][j] = acc[i][first + j];
                    packs[1][j] = acc[i + 1][first + j];
                }
            }
            let sums = P::pairs_of_sums(packs[0], packs[1]);
            for (line, sums) in sums.iter().enumerate() {
                let g = &mut g[(i + line) * k + first..][..(C - first).min(4)];
                g.iter_mut().zip(sums).for_each(|(g, sum)| *g += *sum);
            }
        }
    }
    for i in 2 * pairs..R {
        let g = &mut g[i * k..][..C];
        for group in 0..C.div_ceil(4) {
            let first = 4 * group;
            let mut four = [P::splat(T::ZERO); 4];
            for (j, pack) in four.iter_mut().enumerate() {
                if first + j < C {
                    *pack = acc[i][first + j];
                }
            }
            for (g, sum) in g[first..].iter_mut().zip(P::sums(four)) {
                *g += sum;
            }
        }
    }
}

/// `g[f] += Σ_b d[f][b]` for `m` features.
pub fn accumulate_row_sums<T: Element>(arith: Arith, d: &[T], g: &mut [T], m: usize, rows: Rows) {
    with_pack!(arith, T, P => row_sums::<T, P<T>>(d, &mut g[..m], rows));
}

#[inline(always)]
fn row_sums<T: Element, P: Pack<T>>(d: &[T], g: &mut [T], Rows { ld, count }: Rows) {
    for (four, g) in d.chunks(4 * ld).zip(g.chunks_mut(4)) {
        let mut acc = [P::splat(T::ZERO); 4];
        for (acc, line) in acc.iter_mut().zip(four.chunks(ld)).take(g.len()) {
            for chunk in line[..count].chunks_exact(P::LANES) {
                *acc = acc.add(P::load(chunk));
            }
        }
        for (g, sum) in g.iter_mut().zip(P::sums(acc)) {
            *g += sum;
        }
    }
}
