use std::hint::black_box;
use std::time::Instant;

use super::Arith;
use crate::num::Real;

/// Measured peak of this core in flop/s: fused multiply–adds on registers only, nothing loaded.
///
/// Twelve independent accumulators of 64 bytes hide the latency of the multiply–add on every
/// core with two FMA units of up to four cycles. The best of `rounds` rounds counts.
pub fn fma_peak<T: Real>(arith: Arith, rounds: usize) -> f64 {
    match size_of::<T>() {
        4 => measure::<T, 16>(arith, rounds),
        _ => measure::<T, 8>(arith, rounds),
    }
}

fn measure<T: Real, const L: usize>(arith: Arith, rounds: usize) -> f64 {
    const STEPS: usize = 200_000;
    let mut best = f64::INFINITY;
    // On AVX2 a 64-byte accumulator takes two registers: six of them leave four registers spare.
    let many = arith == Arith::Avx512;
    for _ in 0..rounds.max(1) {
        let (a, b) = (black_box(T::from_f64(0.999_999)), black_box(T::from_f64(1e-6)));
        let start = Instant::now();
        let total =
            arith.run(|| if many { spin::<T, L, 12>(a, b, STEPS) } else { spin::<T, L, 6>(a, b, STEPS) });
        black_box(total);
        let accumulators = if many { 12 } else { 6 };
        best = best.min(start.elapsed().as_secs_f64() / (2 * STEPS * accumulators * L) as f64);
    }
    1.0 / best
}

#[inline(always)]
fn spin<T: Real, const L: usize, const N: usize>(a: T, b: T, steps: usize) -> T {
    let mut acc = [[T::ONE; L]; N];
    for _ in 0..steps {
        for row in &mut acc {
            for x in row.iter_mut() {
                *x = x.mul_add(a, b);
            }
        }
    }
    let mut total = T::ZERO;
    for row in acc {
        for x in row {
            total += x;
        }
    }
    total
}
