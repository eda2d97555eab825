//! Small dense matrices for building targets: products, orthonormal columns, ranks.
//!
//! What decides the bits of a target (products, orthonormal columns) is written as plain loops, so
//! that it does not depend on the kernels that a BLAS picks; ranks are whole numbers and come from
//! LAPACK's singular values.

use ndarray::{Array2, s};
use ndarray_linalg::SVD;
use rand_chacha::ChaCha8Rng;

use crate::num::rng::fill_normal;

/// A·B.
pub fn product(a: &Array2<f64>, b: &Array2<f64>) -> Array2<f64> {
    let mut out = Array2::zeros((a.nrows(), b.ncols()));
    for (a_row, mut out_row) in a.rows().into_iter().zip(out.rows_mut()) {
        for (&factor, b_row) in a_row.iter().zip(b.rows()) {
            out_row.iter_mut().zip(b_row).for_each(|(o, &b)| *o += factor * b);
        }
    }
    out
}

/// `rows × cols` (cols ≤ rows) with orthonormal columns: standard normals, orthonormalised.
pub fn random_orthonormal(rng: &mut ChaCha8Rng, rows: usize, cols: usize) -> Array2<f64> {
    let mut transposed = Array2::zeros((cols, rows));
    if let Some(values) = transposed.as_slice_mut() {
        fill_normal(rng, values);
    }
    orthonormalise_rows(&mut transposed);
    transposed.reversed_axes().as_standard_layout().into_owned()
}

/// Gram–Schmidt on the rows, each projected out twice, which suffices for orthogonality to
/// rounding (Giraud, Langou, Rozložník & van den Eshof 2005). Rows must be independent.
pub fn orthonormalise_rows(a: &mut Array2<f64>) {
    let (rows, cols) = a.dim();
    let Some(values) = a.as_slice_mut() else { return };
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    for i in 0..rows {
        let (done, rest) = values.split_at_mut(i * cols);
        let row = &mut rest[..cols];
        for _ in 0..2 {
            for q in done.chunks_exact(cols) {
                let along = dot(q, row);
                row.iter_mut().zip(q).for_each(|(r, q)| *r -= along * q);
            }
        }
        let inverse = 1.0 / dot(row, row).sqrt();
        row.iter_mut().for_each(|r| *r *= inverse);
    }
}

/// An orthonormal basis of the column space, `rows × rank`, the rank being the number of singular
/// values above 1e-9 of the largest. `None` when LAPACK fails.
pub fn column_space(a: &Array2<f64>) -> Option<Array2<f64>> {
    if a.iter().all(|&v| v == 0.0) {
        return Some(Array2::zeros((a.nrows(), 0)));
    }
    let (vectors, values, _) = a.svd(true, false).ok()?;
    let largest = values.iter().copied().fold(0.0, f64::max);
    let rank = values.iter().filter(|&&v| v > 1e-9 * largest).count();
    Some(vectors?.slice(s![.., ..rank]).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::rng::{Key, Purpose};

    #[test]
    fn orthonormal_columns_are_so_to_rounding() {
        let mut rng = Key::new([1; 32], Purpose::Probe, 0).at(0);
        for (rows, cols) in [(1, 1), (5, 5), (300, 40)] {
            let q = random_orthonormal(&mut rng, rows, cols);
            let gram = product(&q.t().as_standard_layout().into_owned(), &q);
            let error = (&gram - &Array2::<f64>::eye(cols)).iter().fold(0.0, |m: f64, v| m.max(v.abs()));
            // Dot products of `rows` terms: at most rows·ε, and in practice √rows·ε.
            assert!(error < 4.0 * (rows as f64).sqrt() * f64::EPSILON, "{error:e}");
        }
    }

    #[test]
    fn column_spaces_have_the_rank_that_was_made() {
        let mut rng = Key::new([2; 32], Purpose::Probe, 0).at(0);
        for (rows, cols, inner) in [(6, 4, 4), (6, 4, 2), (3, 9, 1)] {
            let a = random_orthonormal(&mut rng, rows, inner);
            let b = random_orthonormal(&mut rng, cols, inner).reversed_axes();
            let whole = product(&a, &b.as_standard_layout().into_owned());
            let space = column_space(&whole).unwrap();
            assert_eq!(space.dim(), (rows, inner));
            // Projected onto its column space it is unchanged.
            let inside = product(&space, &product(&space.t().to_owned(), &whole));
            assert!((&inside - &whole).iter().all(|d| d.abs() < 1e-14));
        }
        assert_eq!(column_space(&Array2::zeros((3, 2))).unwrap().dim(), (3, 0));
    }
}
