//! What the shared warmup learns of the Hessian H of L_n at w*: where the optimisation starts, and
//! the quadratic of the control variate.

use serde::{Deserialize, Serialize};

use super::dense::eigen;
use crate::device::{Element, fill_normal};
use crate::num::rng::Key;
use crate::resume::{Desk, Interruption};
use crate::sampler::chain::Scratch;
use crate::sampler::curvature::{HVP_COST, signs as signs_of};
use crate::sampler::{Posterior, SamplerError};

/// Largest dimension at which the whole Hessian is formed, by d products with unit vectors.
const WHOLE: usize = 64;
/// Eigenpairs kept beyond it.
const PAIRS: usize = 16;
/// Lanczos steps beyond it: three times the pairs and some, so that the outer pairs have settled.
const LANCZOS: usize = 3 * PAIRS + 10;
/// Numbers that a Lanczos basis may hold: fewer steps in very many dimensions.
const BASIS: usize = 4_000_000;
/// Numbers that the kept eigenvectors may hold.
const KEPT: usize = 1_600_000;
/// Probes of the diagonal that the kept pairs leave.
const PROBES: usize = 16;

/// L_n near w* to second order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hessian {
    /// Eigenvalues of H, those of largest size first: all of them up to 64 dimensions, 16 beyond.
    pub eigenvalues: Vec<f64>,
    /// Their unit eigenvectors, d numbers each.
    pub vectors: Vec<f64>,
    /// Estimate of the diagonal of H − Σ λ_k e_k e_kᵀ (0 where all pairs are kept), ≥ 0.
    pub residual: Vec<f64>,
    /// ∇L_n(w*)
    pub gradient: Vec<f64>,
}

impl Hessian {
    /// Measures it. Returns the work in full gradients beside it.
    pub fn measure<T: Element>(
        posterior: &Posterior<'_, T>,
        key: &Key,
        scratch: &mut Scratch<T>,
        desk: &mut Desk<'_>,
    ) -> Result<(Self, f64), SamplerError> {
        let d = posterior.dim();
        let loss =
            posterior.potential().loss_grad(posterior.centre(), &mut scratch.grad, &mut scratch.potential);
        let gradient: Vec<f64> = scratch.grad.iter().map(|g| g.to_f64()).collect();
        if !(loss.is_finite() && gradient.iter().all(|g| g.is_finite())) {
            return Err(SamplerError::Centre { loss });
        }
        let mut fge = 1.0;
        let mut interrupted = None;
        // Each product is a stage; after an interruption the rest is zeros, and thrown away.
        let mut product = |v: &[f64], out: &mut [f64]| {
            fge += HVP_COST;
            if interrupted.is_some() {
                return out.fill(0.0);
            }
            let made: Result<Vec<f64>, Interruption> = desk.stage(|_| {
                hessian_product(posterior, v, out, scratch);
                Ok(out.to_vec())
            });
            match made {
                Ok(made) => out.copy_from_slice(&made),
                Err(why) => interrupted = Some(why),
            }
        };
        let mut hessian = if d <= WHOLE { whole(d, &mut product) } else { lanczos(d, key, &mut product) };
        if let Some(why) = interrupted {
            return Err(why.into());
        }
        hessian.gradient = gradient;
        let numbers = hessian.eigenvalues.iter().chain(&hessian.residual).chain(&hessian.vectors);
        if !numbers.into_iter().all(|x| x.is_finite()) {
            return Err(SamplerError::Hessian);
        }
        Ok((hessian, fge))
    }

    /// The kept pairs (λ_k, e_k).
    pub fn pairs(&self) -> impl Iterator<Item = (f64, &[f64])> {
        let d = self.gradient.len().max(1);
        self.eigenvalues.iter().copied().zip(self.vectors.chunks_exact(d))
    }

    /// The kept pairs of positive eigenvalue, largest first.
    pub fn stiff(&self) -> impl Iterator<Item = (f64, &[f64])> {
        self.pairs().filter(|(eigenvalue, _)| *eigenvalue > 0.0)
    }

    /// Diagonal of H without the `skipped` stiffest pairs, clipped at 0.
    pub fn diagonal_beyond(&self, skipped: usize) -> Vec<f64> {
        let mut diagonal = self.residual.clone();
        for (eigenvalue, e) in self.stiff().skip(skipped) {
            diagonal.iter_mut().zip(e).for_each(|(h, e)| *h += eigenvalue * e * e);
        }
        diagonal
    }

    /// The quadratic nβ(gᵀδ + ½ Σ λ_k (e_kᵀδ)²).
    pub fn quadratic(&self, nbeta: f64, delta: &[f64]) -> f64 {
        let bent: f64 = self.pairs().map(|(eigenvalue, e)| eigenvalue * dot(e, delta).powi(2)).sum();
        nbeta * (dot(&self.gradient, delta) + 0.5 * bent)
    }
}

/// Work of [`Hessian::measure`] in `d` dimensions.
pub fn work(d: usize) -> f64 {
    1.0 + HVP_COST * if d <= WHOLE { d as f64 } else { (lanczos_steps(d) + PROBES) as f64 }
}

/// H·v at w*, all rows.
pub fn hessian_product<T: Element>(
    posterior: &Posterior<'_, T>,
    v: &[f64],
    out: &mut [f64],
    scratch: &mut Scratch<T>,
) {
    let Scratch { grad, p, potential, .. } = scratch;
    p.iter_mut().zip(v).for_each(|(p, &v)| *p = T::from_f64(v));
    posterior.potential().hvp(posterior.centre(), p, None, grad, potential);
    out.iter_mut().zip(grad.iter()).for_each(|(o, g)| *o = g.to_f64());
}

/// aᵀb with the terms of eight lanes added by halving.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    crate::num::sum_of(a, b, |a, b| a * b)
}

fn whole(d: usize, product: &mut dyn FnMut(&[f64], &mut [f64])) -> Hessian {
    let (mut h, mut unit) = (vec![0.0; d * d], vec![0.0; d]);
    for (i, row) in h.chunks_exact_mut(d).enumerate() {
        unit[i] = 1.0;
        product(&unit, row);
        unit[i] = 0.0;
    }
    for i in 0..d {
        for j in 0..i {
            let mean = 0.5 * (h[i * d + j] + h[j * d + i]);
            (h[i * d + j], h[j * d + i]) = (mean, mean);
        }
    }
    let mut vectors = vec![0.0; d * d];
    if h.iter().all(|x| x.is_finite()) {
        eigen(&mut h, &mut vectors, d);
    }
    let pairs = (0..d).map(|k| (h[k * d + k], k)).collect();
    let mut hessian = Hessian { residual: vec![0.0; d], ..Hessian::default() };
    hessian.keep(pairs, d, d, |k, out| out.copy_from_slice(&vectors[k * d..(k + 1) * d]));
    hessian
}

fn lanczos_steps(d: usize) -> usize {
    LANCZOS.min((BASIS / d).max(4))
}

/// Lanczos with full reorthogonalisation (Golub & Van Loan 2013, §10.3): an exhausted Krylov space
/// is left for a new random direction, so that repeated eigenvalues are found too.
fn lanczos(d: usize, key: &Key, product: &mut dyn FnMut(&[f64], &mut [f64])) -> Hessian {
    let steps = lanczos_steps(d);
    let mut basis: Vec<f64> = Vec::with_capacity(steps * d);
    let mut tridiagonal = vec![0.0; steps * steps];
    let (mut next, mut size) = (vec![0.0; d], 0.0f64);
    let mut link = 0.0;
    for j in 0..steps {
        if link <= 1e-7 * size {
            fill_normal(&mut key.at(j as u64), &mut next);
            reduce(&basis, &mut next);
            link = 0.0;
        }
        let length = dot(&next, &next).sqrt();
        if j > 0 {
            (tridiagonal[j * steps + j - 1], tridiagonal[(j - 1) * steps + j]) = (link, link);
        }
        basis.extend(next.iter().map(|x| x / length));
        product(&basis[j * d..], &mut next);
        tridiagonal[j * steps + j] = dot(&basis[j * d..], &next);
        size = size.max(dot(&next, &next).sqrt());
        reduce(&basis, &mut next);
        link = dot(&next, &next).sqrt();
    }
    let mut ritz = vec![0.0; steps * steps];
    if tridiagonal.iter().all(|x| x.is_finite()) {
        eigen(&mut tridiagonal, &mut ritz, steps);
    }
    let pairs = (0..steps).map(|k| (tridiagonal[k * steps + k], k)).collect();
    let mut hessian = Hessian::default();
    let kept = PAIRS.min(KEPT / d).max(1);
    hessian.keep(pairs, kept, d, |k, out| {
        for (weight, q) in ritz[k * steps..(k + 1) * steps].iter().zip(basis.chunks_exact(d)) {
            out.iter_mut().zip(q).for_each(|(o, q)| *o += weight * q);
        }
    });
    hessian.residual = hessian.probe(d, key, product);
    hessian
}

/// Takes the orthonormal rows of `basis` out of `v`, twice.
fn reduce(basis: &[f64], v: &mut [f64]) {
    for _ in 0..2 {
        for q in basis.chunks_exact(v.len()) {
            let along = dot(q, v);
            v.iter_mut().zip(q).for_each(|(v, q)| *v -= along * q);
        }
    }
}

impl Hessian {
    /// Keeps the `kept` pairs of largest size; `write` adds the vector of a pair to zeros.
    fn keep(
        &mut self,
        mut pairs: Vec<(f64, usize)>,
        kept: usize,
        d: usize,
        write: impl Fn(usize, &mut [f64]),
    ) {
        pairs.sort_by(|a, b| b.0.abs().total_cmp(&a.0.abs()));
        pairs.truncate(kept);
        self.eigenvalues = pairs.iter().map(|p| p.0).collect();
        self.vectors = vec![0.0; pairs.len() * d];
        for ((_, k), out) in pairs.iter().zip(self.vectors.chunks_exact_mut(d)) {
            write(*k, out);
        }
    }

    /// The diagonal of what the pairs leave of H, from products with signs (Bekas, Kokiopoulou & Saad
    /// 2007). An entry's estimate has the noise of its whole row: it is drawn towards the mean of all (but
    /// by a standard error at most) by the share that its squared standard error has in its square.
    fn probe(&self, d: usize, key: &Key, product: &mut dyn FnMut(&[f64], &mut [f64])) -> Vec<f64> {
        let (mut signs, mut out) = (vec![0.0; d], vec![0.0; d]);
        let (mut sum, mut squares) = (vec![0.0; d], vec![0.0; d]);
        for probe in 0..PROBES {
            signs_of(&mut key.at((LANCZOS + probe) as u64), &mut signs);
            product(&signs, &mut out);
            let vectors = self.vectors.chunks_exact(d);
            for (eigenvalue, e) in self.eigenvalues.iter().zip(vectors) {
                let along = eigenvalue * dot(e, &signs);
                out.iter_mut().zip(e).for_each(|(o, e)| *o -= along * e);
            }
            for (((sum, square), o), s) in sum.iter_mut().zip(&mut squares).zip(&out).zip(&signs) {
                *sum += o * s;
                *square += o * o;
            }
        }
        let n = PROBES as f64;
        let mean = (sum.iter().sum::<f64>() / (d as f64 * n)).max(0.0);
        let settle = |(sum, square): (&f64, &f64)| {
            let h = (sum / n).max(0.0);
            let error = ((square - sum * sum / n) / (n * (n - 1.0))).max(0.0);
            let trust = if error > 0.0 { h * h / (h * h + error) } else { 1.0 };
            trust * h + (1.0 - trust) * mean.min(h + error.sqrt())
        };
        sum.iter().zip(&squares).map(settle).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::rng::Purpose;
    use crate::target::QuadraticPotential;

    fn measured(h: &[f64]) -> (Hessian, f64) {
        let potential = QuadraticPotential::new(h);
        let centre = vec![0.0f64; h.len()];
        let posterior = Posterior::new(&potential, &centre, 10.0, 1.0).unwrap();
        let mut scratch = Scratch::plain(&posterior);
        let key = Key::new([1; 32], Purpose::Probe, 0);
        Hessian::measure(&posterior, &key, &mut scratch, &mut Desk::unwatched()).unwrap()
    }

    #[test]
    fn small_hessians_are_known_whole() {
        let (hessian, fge) = measured(&[2.0, 0.0, 8.0]);
        assert_eq!(fge, 1.0 + 3.0 * 2.0);
        assert_eq!(hessian.eigenvalues, [8.0, 2.0, 0.0]);
        assert_eq!(hessian.diagonal_beyond(0), [2.0, 0.0, 8.0]);
        assert_eq!(hessian.diagonal_beyond(1), [2.0, 0.0, 0.0]);
        assert_eq!(hessian.quadratic(10.0, &[1.0, 5.0, 0.5]), 10.0 * (1.0 + 1.0));
    }

    #[test]
    fn the_stiff_pairs_of_large_ones_are_found_repeated_or_not() {
        let h: Vec<f64> = (0..300)
            .map(|i| {
                if i < 3 {
                    50.0
                } else if i < 6 {
                    20.0 - i as f64
                } else {
                    0.1
                }
            })
            .collect();
        let (hessian, fge) = measured(&h);
        assert_eq!(fge, 1.0 + 2.0 * (LANCZOS + PROBES) as f64);
        for (found, exact) in hessian.eigenvalues.iter().zip([50.0, 50.0, 50.0, 17.0, 16.0, 15.0]) {
            assert!((found - exact).abs() < 1e-9, "{:?}", hessian.eigenvalues);
        }
        // What is left is 0.1 in 284 of the 294 flat directions: 10 are among the pairs.
        let left = hessian.residual.iter().sum::<f64>();
        assert!((left / (0.1 * 284.0) - 1.0).abs() < 0.05, "{left}");
    }
}
