//! The frame of a latent flow: which few directions it acts in, and the scales of all coordinates.
//!
//! With A = nβH + γI the posterior's precision at w*, coordinates are scaled by s_i = A'_ii^(−1/2), A'
//! being A without the stiffest eigenpairs, x = δ/s. Where A' is diagonal, x has precision I in all
//! directions but the span of s∘e_k: that is what the basis U holds first. Directions that remain are
//! random: a random basis alone would know nothing of the stiff directions, and the one variance of all
//! orthogonal ones would have to be that of the stiffest.

use serde::{Deserialize, Serialize};

use super::dense::eigen;
use super::guide::Local;
use super::hessian::{Hessian, dot, hessian_product};
use crate::device::{Element, fill_normal};
use crate::num::rng::Key;
use crate::sampler::chain::Scratch;
use crate::sampler::curvature::{HVP_COST, signs};
use crate::sampler::{Posterior, SamplerError};

/// Probes of the mean precision of the orthogonal directions.
const PROBES: usize = 4;
/// Eigenpairs whose nβλ is below this share of γ are as flat as any direction.
const STIFF: f64 = 0.01;
/// Smallest precision that is started from, the scaled ones being of order 1.
const FLATTEST: f64 = 1e-6;

/// Orthonormal directions in scaled coordinates, in which the posterior's precision is diagonal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lift {
    /// s, one a coordinate.
    pub scales: Vec<f64>,
    /// U: orthonormal rows of d numbers.
    pub basis: Vec<f64>,
    /// Precision of x along each row.
    pub precisions: Vec<f64>,
    /// Mean precision of x over the orthogonal directions; 1 where there are none.
    pub across: f64,
}

/// Work of [`Lift::measure`].
pub fn work(dim: usize, latent: usize) -> f64 {
    HVP_COST * (latent.min(dim) + if latent < dim { PROBES } else { 0 }) as f64
}

impl Lift {
    /// A frame of `latent` directions (at most d). Returns the work in full gradients beside it.
    pub fn measure<T: Element>(
        posterior: &Posterior<'_, T>,
        hessian: &Hessian,
        latent: usize,
        key: &Key,
        scratch: &mut Scratch<T>,
    ) -> Result<(Self, f64), SamplerError> {
        let d = posterior.dim();
        let latent = latent.min(d);
        let local = Local { nbeta: posterior.nbeta(), gamma: posterior.gamma(), hessian };
        let stiff: Vec<&[f64]> = hessian
            .stiff()
            .take(latent)
            .filter(|(eigenvalue, _)| local.nbeta * eigenvalue > STIFF * local.gamma)
            .map(|(_, e)| e)
            .collect();
        let diagonal = hessian.diagonal_beyond(stiff.len());
        let scales: Vec<f64> = local.precisions(&diagonal).into_iter().map(|a| 1.0 / a.sqrt()).collect();
        let mut basis: Vec<f64> = Vec::with_capacity(latent * d);
        let mut rng = key.at(0);
        let mut row = vec![0.0; d];
        for k in 0..latent {
            match stiff.get(k) {
                Some(e) => row.iter_mut().zip(*e).zip(&scales).for_each(|((r, e), s)| *r = s * e),
                None => fill_normal(&mut rng, &mut row),
            }
            orthonormalise(&basis, &mut row);
            basis.extend_from_slice(&row);
        }
        // B·u with B = S·A·S.
        let mut fge = 0.0;
        let (mut bent, mut product) = (vec![0.0; d], vec![0.0; d]);
        let mut apply = |u: &[f64], out: &mut [f64]| {
            fge += HVP_COST;
            bent.iter_mut().zip(u).zip(&scales).for_each(|((b, u), s)| *b = s * u);
            hessian_product(posterior, &bent, out, scratch);
            for ((out, b), s) in out.iter_mut().zip(&bent).zip(&scales) {
                *out = s * (local.nbeta * *out + local.gamma * b);
            }
        };
        let mut within = vec![0.0; latent * latent];
        for (k, u) in basis.chunks_exact(d).enumerate() {
            apply(u, &mut product);
            basis.chunks_exact(d).enumerate().for_each(|(j, u)| within[k * latent + j] = dot(u, &product));
        }
        let mut trace = 0.0;
        if latent < d {
            for _ in 0..PROBES {
                signs(&mut rng, &mut row);
                for u in basis.chunks_exact(d) {
                    let along = dot(u, &row);
                    row.iter_mut().zip(u).for_each(|(r, u)| *r -= along * u);
                }
                apply(&row, &mut product);
                trace += dot(&row, &product) / dot(&row, &row) / PROBES as f64;
            }
        }
        if !within.iter().chain([&trace]).all(|x| x.is_finite()) {
            return Err(SamplerError::Hessian);
        }
        symmetrise(&mut within, latent);
        let mut rotation = vec![0.0; latent * latent];
        eigen(&mut within, &mut rotation, latent);
        let mut rotated = vec![0.0; latent * d];
        for (weights, out) in rotation.chunks_exact(latent.max(1)).zip(rotated.chunks_exact_mut(d)) {
            for (weight, u) in weights.iter().zip(basis.chunks_exact(d)) {
                out.iter_mut().zip(u).for_each(|(o, u)| *o += weight * u);
            }
        }
        let precisions = (0..latent).map(|k| within[k * latent + k].max(FLATTEST)).collect();
        let across = if latent < d { trace.max(FLATTEST) } else { 1.0 };
        Ok((Self { scales, basis: rotated, precisions, across }, fge))
    }
}

/// Gram–Schmidt against the rows of `basis`, twice, and length 1.
fn orthonormalise(basis: &[f64], row: &mut [f64]) {
    for _ in 0..2 {
        let before = dot(row, row).sqrt();
        row.iter_mut().for_each(|r| *r /= before);
        for u in basis.chunks_exact(row.len()) {
            let along = dot(u, row);
            row.iter_mut().zip(u).for_each(|(r, u)| *r -= along * u);
        }
    }
    let length = dot(row, row).sqrt();
    row.iter_mut().for_each(|r| *r /= length);
}

fn symmetrise(a: &mut [f64], n: usize) {
    for i in 0..n {
        for j in 0..i {
            let mean = 0.5 * (a[i * n + j] + a[j * n + i]);
            (a[i * n + j], a[j * n + i]) = (mean, mean);
        }
    }
}
