//! The loss's curvature at a point, from Hessian-vector products.

use super::chain::Scratch;
use super::posterior::Posterior;
use crate::device::{Element, fill_normal};
use crate::num::rng::Key;
use crate::num::sum_of;

/// Work of a Hessian-vector product in gradients.
pub const HVP_COST: f64 = 2.0;
/// Power iterations; the estimate is within a few percent well before.
const POWER_ITERATIONS: usize = 20;
/// Dimensions up to which a trace is summed up, beyond which it is sampled.
const EXACT_TRACE: usize = 64;
/// Random vectors of a sampled trace.
const PROBES: usize = 16;

/// Lanczos steps and random vectors of a spectrum.
const LANCZOS_STEPS: usize = 12;
const LANCZOS_PROBES: usize = 4;
/// Sweeps of Jacobi's rotations: convergence is quadratic, so that ten are ample.
const JACOBI_SWEEPS: usize = 10;

/// The eigenvalue of nβ∇²L_n at `w` that is largest in size, with its direction (of length 1), by
/// power iteration from a random start. Returns the work too.
pub fn largest<T: Element>(
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
pub fn trace<T: Element>(
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

/// A node of a spectral density: an eigenvalue and the share of dimensions near it.
pub type Node = (f64, f64);

/// The spectrum of S·nβ∇²L_n·S at `w`, S the diagonal of `scales`, as nodes with weights of sum 1:
/// stochastic Lanczos quadrature (Golub & Meurant 1994; Ubaru, Chen & Saad 2017), the mean over random
/// signs of the Gauss rule that a few Lanczos steps give. Returns the work too.
pub fn spectrum<T: Element>(
    posterior: &Posterior<'_, T>,
    w: &[T],
    scales: &[T],
    probe: &Key,
    stream: u64,
    scratch: &mut Scratch<T>,
) -> (Vec<Node>, f64) {
    let d = w.len();
    let steps = LANCZOS_STEPS.min(d);
    let mut rng = probe.at(stream);
    let mut nodes = Vec::with_capacity(LANCZOS_PROBES * steps);
    let mut products = 0;
    for _ in 0..LANCZOS_PROBES {
        let mut z = vec![T::ZERO; d];
        signs(&mut rng, &mut z);
        normalise(&mut z);
        let mut basis: Vec<Vec<T>> = vec![z];
        let mut matrix = vec![vec![0.0; steps]; steps];
        let mut size = 0;
        for k in 0..steps {
            let mut next: Vec<T> = basis[k].iter().zip(scales).map(|(&v, &s)| s * v).collect();
            let Scratch { grad, potential, .. } = &mut *scratch;
            posterior.potential().hvp(w, &next, None, grad, potential);
            products += 1;
            next.iter_mut().zip(grad.iter()).zip(scales).for_each(|((n, &g), &s)| *n = s * g);
            matrix[k][k] = sum_of(&next, &basis[k], |a, b| a * b);
            size = k + 1;
            // Twice, against all before it: Lanczos vectors lose each other otherwise.
            for _ in 0..2 {
                for before in &basis {
                    let along = T::from_f64(sum_of(&next, before, |a, b| a * b));
                    next.iter_mut().zip(before).for_each(|(n, &b)| *n -= along * b);
                }
            }
            let length = normalise(&mut next);
            if size == steps || length <= 1e-10 * matrix[0][0].abs() {
                break;
            }
            (matrix[k][k + 1], matrix[k + 1][k]) = (length, length);
            basis.push(next);
        }
        for (value, first) in symmetric_eigen(matrix, size) {
            nodes.push((posterior.nbeta() * value, first * first / LANCZOS_PROBES as f64));
        }
    }
    (nodes, HVP_COST * products as f64)
}

/// Eigenvalues of the leading `size` rows and columns of a symmetric matrix, each with the first entry
/// of its eigenvector, by Jacobi's rotations.
fn symmetric_eigen(mut a: Vec<Vec<f64>>, size: usize) -> Vec<(f64, f64)> {
    let mut first: Vec<f64> = (0..size).map(|i| if i == 0 { 1.0 } else { 0.0 }).collect();
    for _ in 0..JACOBI_SWEEPS {
        for p in 0..size {
            for q in p + 1..size {
                if a[p][q] == 0.0 {
                    continue;
                }
                let ratio = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
                let t = ratio.signum() / (ratio.abs() + (ratio * ratio + 1.0).sqrt());
                let c = 1.0 / (t * t + 1.0).sqrt();
                let s = t * c;
                for row in a.iter_mut().take(size) {
                    (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
                }
                let (above, below) = a.split_at_mut(q);
                for (x, y) in above[p].iter_mut().zip(&mut below[0]) {
                    (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
                }
                (first[p], first[q]) = (c * first[p] - s * first[q], s * first[p] + c * first[q]);
            }
        }
    }
    (0..size).map(|i| (a[i][i], first[i])).collect()
}

/// Fills `z` with random signs.
pub fn signs<T: Element>(rng: &mut rand_chacha::ChaCha8Rng, z: &mut [T]) {
    for chunk in z.chunks_mut(64) {
        let mut bits = rand::Rng::next_u64(rng);
        for x in chunk {
            *x = if bits & 1 == 1 { T::ONE } else { -T::ONE };
            bits >>= 1;
        }
    }
}

/// Scales to length 1 and returns the length before.
fn normalise<T: Element>(v: &mut [T]) -> f64 {
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
            let (nodes, _) = spectrum(&posterior, &centre, &vec![1.0; d], &probe, 2, &mut scratch);
            let moment = |k: i32| nodes.iter().map(|(value, weight)| weight * value.powi(k)).sum::<f64>();
            let exact = |k: i32| h.iter().map(|h| (10.0 * h).powi(k)).sum::<f64>() / d as f64;
            // A Gauss rule of 12 nodes is exact in the first 23 moments of each random vector, and
            // signs have every diagonal moment exactly; rounding is all that is left.
            for k in 0..5 {
                assert!((moment(k) / exact(k) - 1.0).abs() < 1e-9, "moment {k}: {}", moment(k));
            }
            // Signs make the estimate exact where H is diagonal.
            let (sum, _) = trace(&posterior, &centre, &probe, 1, &mut scratch);
            assert!((sum / (10.0 * h.iter().sum::<f64>()) - 1.0).abs() < 1e-12);
        }
    }
}
