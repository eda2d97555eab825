use std::hint::black_box;
use std::time::Instant;

use super::Arith;
use super::kernels::with_pack;
use super::machine::{Element, Pack};

/// Measured peak of this core in flop/s: fused multiply–adds on registers only, nothing loaded.
///
/// Twelve independent accumulator registers hide the latency of the multiply–add on every core
/// with two FMA units of up to six cycles. The best of `rounds` rounds counts.
pub fn fma_peak<T: Element>(arith: Arith, rounds: usize) -> f64 {
    const STEPS: usize = 200_000;
    let mut best = f64::INFINITY;
    for _ in 0..rounds.max(1) {
        let (a, b) = (black_box(T::from_f64(0.999_999)), black_box(T::from_f64(1e-6)));
        let start = Instant::now();
        // A pack takes two registers on AVX2, one on AVX-512.
        let packs = match arith {
            Arith::Avx512 => {
                black_box(with_pack!(arith, T, P => spin::<T, P<T>, 12>(a, b, STEPS)));
                12
            }
            _ => {
                black_box(with_pack!(arith, T, P => spin::<T, P<T>, 6>(a, b, STEPS)));
                6
            }
        };
        let flops = 2 * STEPS * packs * super::lanes::<T>();
        best = best.min(start.elapsed().as_secs_f64() / flops as f64);
    }
    1.0 / best
}

#[inline(always)]
fn spin<T: Element, P: Pack<T>, const N: usize>(a: T, b: T, steps: usize) -> T {
    let (a, b) = (P::splat(a), P::splat(b));
    let mut acc = [P::splat(T::ONE); N];
    for _ in 0..steps {
        for x in &mut acc {
            *x = x.mul_add(a, b);
        }
    }
    let mut total = P::splat(T::ZERO);
    for x in acc {
        total = total.add(x);
    }
    total.sum()
}
