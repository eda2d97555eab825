//! The loss's curvature at a point, from Hessian-vector products.

use super::chain::Scratch;
use super::posterior::Posterior;
use crate::num::rng::{Key, fill_normal};
use crate::num::{Real, sum_of};

/// Work of a Hessian-vector product in gradients.
pub const HVP_COST: f64 = 2.0;
/// Power iterations; the estimate is within a few percent well before.
const POWER_ITERATIONS: usize = 20;
/// Dimensions up to which a trace is summed up, beyond which it is sampled.
const EXACT_TRACE: usize = 64;
/// Random vectors of a sampled trace.
const PROBES: usize = 16;

/// The eigenvalue of nβ∇²L_n at `w` that is largest in size, with its direction (of length 1), by
/// power iteration from a random start. Returns the work too.
pub fn largest<T: Real>(
    posterior: &Posterior<'_, T>,
    w: &[T],
    probe: &Key,
    stream: u64,
    scratch: &mut Scratch<T>,
) -> (f64, Vec<T>, f64) {
    let mut direction = vec![T::ZERO; w.len()];
    fill_normal(&mut probe.at(stream), &mut direction);
    normalise(&mut direction);
    let mut eigenvalue = 0.0;
    for done in 1..=POWER_ITERATIONS {
        let Scratch { grad, potential, .. } = &mut *scratch;
        posterior.potential().hvp(w, &direction, None, grad, potential);
        direction.copy_from_slice(grad);
        eigenvalue = normalise(&mut direction);
        if eigenvalue == 0.0 {
            return (0.0, direction, HVP_COST * done as f64);
        }
    }
    (posterior.nbeta() * eigenvalue, direction, HVP_COST * POWER_ITERATIONS as f64)
}

/// The trace of nβ∇²L_n at `w`, summed up in few dimensions, in many by Hutchinson's estimate
/// (1990): the mean of zᵀHz over random signs z. Returns the work too.
pub fn trace<T: Real>(
    posterior: &Posterior<'_, T>,
    w: &[T],
    probe: &Key,
    stream: u64,
    scratch: &mut Scratch<T>,
) -> (f64, f64) {
    let d = w.len();
    let mut z = vec![T::ZERO; d];
    let mut quadratic = |z: &[T]| {
        let Scratch { grad, potential, .. } = &mut *scratch;
        posterior.potential().hvp(w, z, None, grad, potential);
        sum_of(z, grad, |z, h| z * h)
    };
    let (sum, products) = if d <= EXACT_TRACE {
        let mut sum = 0.0;
        for i in 0..d {
            z.fill(T::ZERO);
            z[i] = T::ONE;
            sum += quadratic(&z);
        }
        (sum, d)
    } else {
        let mut rng = probe.at(stream);
        let mut sum = 0.0;
        for _ in 0..PROBES {
            signs(&mut rng, &mut z);
            sum += quadratic(&z) / PROBES as f64;
        }
        (sum, PROBES)
    };
    (posterior.nbeta() * sum, HVP_COST * products as f64)
}

/// Fills `z` with random signs.
pub fn signs<T: Real>(rng: &mut rand_chacha::ChaCha8Rng, z: &mut [T]) {
    for chunk in z.chunks_mut(64) {
        let mut bits = rand::Rng::next_u64(rng);
        for x in chunk {
            *x = if bits & 1 == 1 { T::ONE } else { -T::ONE };
            bits >>= 1;
        }
    }
}

/// Scales to length 1 and returns the length before.
fn normalise<T: Real>(v: &mut [T]) -> f64 {
    let length = sum_of(v, v, |x, _| x * x).sqrt();
    if length > 0.0 {
        let scale = T::from_f64(1.0 / length);
        v.iter_mut().for_each(|x| *x *= scale);
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::rng::Purpose;
    use crate::sampler::testing::Quadratic;

    #[test]
    fn a_quadratic_has_the_curvature_of_its_eigenvalues() {
        for d in [3, 100] {
            let mut h: Vec<f64> = (0..d).map(|i| 1.0 + i as f64 / d as f64).collect();
            h[1] = 40.0;
            let target = Quadratic::new(&h);
            let centre = vec![0.0; d];
            let posterior = Posterior::new(&target, &centre, 10.0, 1.0).expect("finite");
            let mut scratch = Scratch::plain(&posterior);
            let probe = Key::new([2; 32], Purpose::Probe, 0);
            let (top, direction, _) = largest(&posterior, &centre, &probe, 0, &mut scratch);
            assert!((top / 400.0 - 1.0).abs() < 1e-6, "{top}");
            assert!((direction[1].abs() - 1.0).abs() < 1e-6);
            // Signs make the estimate exact where H is diagonal.
            let (sum, _) = trace(&posterior, &centre, &probe, 1, &mut scratch);
            assert!((sum / (10.0 * h.iter().sum::<f64>()) - 1.0).abs() < 1e-12);
        }
    }
}
