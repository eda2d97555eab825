//! Real numbers, random streams, and small numeric helpers: the ground everything stands on.

mod real;
pub mod rng;

pub use real::Real;

/// Σ f(aᵢ, bᵢ) in `f64`, over the shorter of the two.
///
/// Eight partial sums, of every eighth term each, are added by halving: a fixed order that
/// vectorises.
#[inline]
pub fn sum_of<T: Real>(a: &[T], b: &[T], f: impl Fn(f64, f64) -> f64) -> f64 {
    let mut lanes = [0.0; 8];
    let (a, a_rest) = a.as_chunks::<8>();
    let (b, b_rest) = b.as_chunks::<8>();
    for (a, b) in a.iter().zip(b) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += f(a.to_f64(), b.to_f64());
        }
    }
    for ((lane, a), b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
        *lane += f(a.to_f64(), b.to_f64());
    }
    let [l0, l1, l2, l3, l4, l5, l6, l7] = lanes;
    ((l0 + l4) + (l2 + l6)) + ((l1 + l5) + (l3 + l7))
}
