//! Sums of products of a sequence with itself, shifted.

use super::with_pack;
use crate::device::Arith;
use crate::device::machine::{Element, Pack};

/// Packs of lags that are summed side by side: twelve registers of AVX2.
const WIDE: usize = 6;

/// Adds Σ_i x_i·x_{i+from+j} to `out[j]`, for every j of `out`: one chain of fused operations over ascending
/// i, then one addition.
pub fn accumulate_lagged<T: Element>(arith: Arith, x: &[T], from: usize, out: &mut [T]) {
    with_pack!(arith, T, P => {
        let mut from = from;
        for out in out.chunks_mut(WIDE * P::<T>::LANES) {
            match out.len().div_ceil(P::<T>::LANES) {
                1 => add::<T, P<T>, 1>(x, from, out),
                2 => add::<T, P<T>, 2>(x, from, out),
                3 => add::<T, P<T>, 3>(x, from, out),
                4 => add::<T, P<T>, 4>(x, from, out),
                5 => add::<T, P<T>, 5>(x, from, out),
                _ => add::<T, P<T>, WIDE>(x, from, out),
            }
            from += out.len();
        }
    });
}

/// At most `PACKS` packs of lags.
#[inline(always)]
fn add<T: Element, P: Pack<T>, const PACKS: usize>(x: &[T], from: usize, out: &mut [T]) {
    let shifted = x.get(from..).unwrap_or_default();
    let lags = PACKS * P::LANES;
    let mut sums = [P::splat(T::ZERO); PACKS];
    let whole = shifted.len().saturating_sub(lags - 1);
    for (&a, window) in x.iter().zip(shifted.windows(lags)) {
        let a = P::splat(a);
        for (k, sum) in sums.iter_mut().enumerate() {
            *sum = a.mul_add(P::load(&window[k * P::LANES..]), *sum);
        }
    }
    for (k, out) in out.chunks_mut(P::LANES).enumerate() {
        let mut lanes = [T::ZERO; 16];
        sums[k].store(&mut lanes);
        for (j, (total, mut sum)) in out.iter_mut().zip(lanes).enumerate() {
            let late = shifted.get(whole + k * P::LANES + j..).unwrap_or_default();
            for (&a, &b) in x.iter().skip(whole).zip(late) {
                sum = a.mul_add(b, sum);
            }
            *total += sum;
        }
    }
}
