//! Small dense symmetric matrices in place: Cholesky factors and eigenpairs. Row-major slices of
//! length n²; none of the functions allocates.

/// Replaces the lower triangle of the symmetric positive definite `a` (n × n) by its Cholesky factor
/// L, a = L·Lᵀ, and returns ln det a. `None` where a pivot is not positive and finite.
pub fn cholesky(a: &mut [f64], n: usize) -> Option<f64> {
    let mut log_det = 0.0;
    for j in 0..n {
        for i in j..n {
            let (row_i, row_j) = (&a[i * n..i * n + j], &a[j * n..j * n + j]);
            let sum: f64 = row_i.iter().zip(row_j).map(|(x, y)| x * y).sum();
            let rest = a[i * n + j] - sum;
            if i == j {
                if !(rest > 0.0 && rest.is_finite()) {
                    return None;
                }
                log_det += libm::log(rest);
                a[j * n + j] = rest.sqrt();
            } else {
                a[i * n + j] = rest / a[j * n + j];
            }
        }
    }
    Some(log_det)
}

/// x ← (L·Lᵀ)⁻¹ x for the factor that [`cholesky`] left in `l`.
pub fn cholesky_solve(l: &[f64], n: usize, x: &mut [f64]) {
    for i in 0..n {
        let sum: f64 = (0..i).map(|k| l[i * n + k] * x[k]).sum();
        x[i] = (x[i] - sum) / l[i * n + i];
    }
    for i in (0..n).rev() {
        let sum: f64 = (i + 1..n).map(|k| l[k * n + i] * x[k]).sum();
        x[i] = (x[i] - sum) / l[i * n + i];
    }
}

/// Sweeps after which the rotations of [`eigen`] have long converged (quadratically, from about the
/// fifth on).
const SWEEPS: usize = 60;

/// Eigenpairs of the symmetric `a` (n × n) by cyclic Jacobi rotations (Golub & Van Loan 2013, §8.5):
/// the eigenvalues come to stand on a's diagonal, row k of `vectors` is the eigenvector of the k-th.
pub fn eigen(a: &mut [f64], vectors: &mut [f64], n: usize) {
    vectors.fill(0.0);
    (0..n).for_each(|i| vectors[i * n + i] = 1.0);
    let size: f64 = a.iter().map(|x| x * x).sum();
    for _ in 0..SWEEPS {
        let off: f64 =
            (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| a[i * n + j].powi(2)).sum();
        if off <= 1e-32 * size {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                rotate(a, vectors, n, p, q);
            }
        }
    }
}

fn rotate(a: &mut [f64], vectors: &mut [f64], n: usize, p: usize, q: usize) {
    let apq = a[p * n + q];
    if apq == 0.0 {
        return;
    }
    let theta = (a[q * n + q] - a[p * n + p]) / (2.0 * apq);
    let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
    let c = 1.0 / (t * t + 1.0).sqrt();
    let s = t * c;
    for k in 0..n {
        let (x, y) = (a[k * n + p], a[k * n + q]);
        (a[k * n + p], a[k * n + q]) = (c * x - s * y, s * x + c * y);
    }
    for k in 0..n {
        let (x, y) = (a[p * n + k], a[q * n + k]);
        (a[p * n + k], a[q * n + k]) = (c * x - s * y, s * x + c * y);
    }
    for k in 0..n {
        let (x, y) = (vectors[p * n + k], vectors[q * n + k]);
        (vectors[p * n + k], vectors[q * n + k]) = (c * x - s * y, s * x + c * y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::rng::{Key, Purpose, fill_normal};

    fn symmetric(n: usize, shift: f64) -> Vec<f64> {
        let mut b = vec![0.0; n * n];
        fill_normal(&mut Key::new([5; 32], Purpose::Probe, n as u32).at(0), &mut b);
        let entry = |i: usize, j: usize| (0..n).map(|k| b[i * n + k] * b[j * n + k]).sum::<f64>();
        (0..n * n).map(|ij| entry(ij / n, ij % n) + if ij / n == ij % n { shift } else { 0.0 }).collect()
    }

    #[test]
    fn a_factor_solves_and_tells_the_determinant() {
        for n in [1, 2, 7] {
            let a = symmetric(n, 0.5);
            let mut l = a.clone();
            let log_det = cholesky(&mut l, n).unwrap();
            let truth: Vec<f64> = (0..n).map(|i| i as f64 - 1.5).collect();
            let mut x: Vec<f64> = (0..n).map(|i| (0..n).map(|j| a[i * n + j] * truth[j]).sum()).collect();
            cholesky_solve(&l, n, &mut x);
            // Condition numbers below 1e3 here.
            assert!(x.iter().zip(&truth).all(|(x, t)| (x - t).abs() < 1e-12), "{x:?}");
            let (mut d, mut v) = (a, vec![0.0; n * n]);
            eigen(&mut d, &mut v, n);
            let sum: f64 = (0..n).map(|i| d[i * n + i].ln()).sum();
            assert!((sum - log_det).abs() < 1e-12);
        }
        assert_eq!(cholesky(&mut [1.0, 2.0, 2.0, 1.0], 2), None);
        assert_eq!(cholesky(&mut [f64::NAN], 1), None);
    }

    #[test]
    fn eigenpairs_satisfy_their_equation() {
        for n in [1, 2, 6, 40] {
            let a = symmetric(n, -3.0);
            let (mut d, mut v) = (a.clone(), vec![0.0; n * n]);
            eigen(&mut d, &mut v, n);
            let size = a.iter().fold(0.0f64, |m, x| m.max(x.abs()));
            for k in 0..n {
                let e = &v[k * n..(k + 1) * n];
                assert!((e.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-13);
                for i in 0..n {
                    let ae: f64 = (0..n).map(|j| a[i * n + j] * e[j]).sum();
                    assert!((ae - d[k * n + k] * e[i]).abs() < 1e-13 * size * n as f64);
                }
            }
        }
    }
}
