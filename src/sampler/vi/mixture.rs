//! A mixture of factor analysers: q(w) = Σ_m π_m N(w; w* + μ_m, Σ_m), with
//!
//! | family | | |
//! |---|---|---|
//! | covariance | Σ_m = D_m + U_mU_mᵀ | suits posteriors with few wide directions |
//! | precision | Σ_m⁻¹ = D_m⁻¹ + U_mU_mᵀ | suits posteriors with few stiff directions: singular ones |
//!
//! D_m = S_m² diagonal, U_m of r_m columns (Ghahramani & Hinton 1996 for the first form; Ong, Nott &
//! Smith 2018 for its use in variational inference). With V = S⁻¹U (covariance) or SU (precision)
//! both are S(I + VVᵀ)^(±1)S, and everything goes through the capacitance C = I + VᵀV, r × r:
//!
//! - draws: δ = μ + S·y with y = ε + Vη (covariance), or y = ε + Vk, k = C⁻¹(η − Vᵀε) (precision: y is
//!   (I + VVᵀ)⁻¹(ε + Vη), whose covariance is (I + VVᵀ)⁻¹), ε and η standard normal;
//! - density (Woodbury), u = S⁻¹(δ − μ), t = Vᵀu: the form is |u|² − tᵀC⁻¹t or |u|² + |t|²; the
//!   determinant |Σ| is |S|²·|C|^(±1).
//!
//! A density costs O(M·d·r). Parameters: the weights' logits, then μ, ln S, U of each component.

use rand_chacha::ChaCha8Rng;

use super::dense::{cholesky, cholesky_solve};
use super::guide::{Guide, Local, Product, Unfit};
use super::hessian::{Hessian, dot};
use crate::config::{FactorFamily, Mfa};
use crate::device::fill_normal;

const LN_2PI: f64 = 1.837_877_066_409_345_5;
/// Norm of factors that start without a direction to take, relative to 1/S or S.
const FAINT: f64 = 0.1;
/// Largest distance of a further component's start from the first's, in standard deviations: over
/// all coordinates together, and in one.
const APART: (f64, f64) = (0.2, 0.2);
/// A step of a column of U has at most this squared length, whatever the dimension: the factors of a
/// covariance, which start at random, and those of a precision, which start as eigenvectors. There is
/// little that holds the latter: too stiff a direction costs only the logarithm of its excess.
const LONGEST_STEP: (f64, f64) = (64.0, 1.0);

/// Draws a step that few components share: each gets several.
const DRAWS_A_STEP: usize = 8;

/// Draws of each of `components` components a step.
pub fn draws_of_each(components: usize) -> usize {
    DRAWS_A_STEP.div_ceil(components.max(1))
}

/// The mixture in `dim` dimensions.
pub struct Mixture {
    dim: usize,
    /// Factors of each component.
    ranks: Vec<usize>,
    family: FactorFamily,
    temperature: f64,
    dirichlet: Option<f64>,
    entropy_bonus: f64,
}

/// Places of the buffers.
const FACTORS: usize = 0;
const SCALES: usize = 1;
const CAPACITANCES: usize = 2;
/// Four numbers a component: π, ln π − ½ln|2πΣ|, ln of π times the density at the draw, its share.
const COMPONENTS: usize = 3;
/// C⁻¹t or −t of every component at the draw.
const COEFFICIENTS: usize = 4;
/// y of the draw.
const DEVIATE: usize = 5;
/// η (covariance) or k (precision) of the draw, and room for as many.
const LATENT: usize = 6;
const U: usize = 7;
const SCORE: usize = 8;

impl Mixture {
    /// `components` components of `rank` factors each, where `r_per_component` does not say otherwise;
    /// ranks above `dim` count as `dim`.
    pub fn new(dim: usize, settings: &Mfa, components: usize, rank: usize) -> Self {
        let ranks = match &settings.r_per_component {
            Some(ranks) => ranks.iter().map(|&r| r.min(dim)).collect(),
            None => vec![rank.min(dim); components],
        };
        Self {
            dim,
            ranks,
            family: settings.family,
            temperature: settings.alpha_temperature,
            dirichlet: settings.alpha_dirichlet_prior,
            entropy_bonus: settings.entropy_bonus,
        }
    }

    fn precision(&self) -> bool {
        self.family == FactorFamily::Precision
    }

    /// Factors of the components before `m`.
    fn before(&self, m: usize) -> usize {
        self.ranks[..m].iter().sum()
    }

    /// Where component `m` starts in φ.
    fn offset(&self, m: usize) -> usize {
        self.ranks.len() + self.dim * (2 * m + self.before(m))
    }

    /// μ, ln S and U of component `m`.
    fn component<'a>(&self, phi: &'a [f64], m: usize) -> (&'a [f64], &'a [f64], &'a [f64]) {
        let d = self.dim;
        let rest = &phi[self.offset(m)..self.offset(m) + d * (2 + self.ranks[m])];
        (&rest[..d], &rest[d..2 * d], &rest[2 * d..])
    }

    fn component_mut<'a>(
        &self,
        phi: &'a mut [f64],
        m: usize,
    ) -> (&'a mut [f64], &'a mut [f64], &'a mut [f64]) {
        let d = self.dim;
        let (offset, rank) = (self.offset(m), self.ranks[m]);
        let rest = &mut phi[offset..offset + d * (2 + rank)];
        let (mean, rest) = rest.split_at_mut(d);
        let (log_scale, factors) = rest.split_at_mut(d);
        (mean, log_scale, factors)
    }

    fn factors<'a>(&self, work: &'a [Vec<f64>], m: usize) -> &'a [f64] {
        &work[FACTORS][self.dim * self.before(m)..self.dim * (self.before(m) + self.ranks[m])]
    }

    fn scales<'a>(&self, work: &'a [Vec<f64>], m: usize) -> &'a [f64] {
        &work[SCALES][self.dim * m..self.dim * (m + 1)]
    }

    fn capacitance(&self, m: usize) -> std::ops::Range<usize> {
        let start: usize = self.ranks[..m].iter().map(|r| r * r).sum();
        start..start + self.ranks[m] * self.ranks[m]
    }

    /// Size of a step of 1 in an entry of U, relative to that of its coordinate.
    fn column_unit(&self) -> f64 {
        let longest = if self.precision() { LONGEST_STEP.1 } else { LONGEST_STEP.0 };
        (longest / self.dim as f64).sqrt().min(1.0)
    }

    /// u = S⁻¹(δ − μ) of component `m`, into its buffer.
    fn standardise(&self, phi: &[f64], work: &mut [Vec<f64>], m: usize, delta: &[f64]) {
        let (mean, ..) = self.component(phi, m);
        let mut u = std::mem::take(&mut work[U]);
        let scales = self.scales(work, m);
        for (((u, delta), mean), scale) in u.iter_mut().zip(delta).zip(mean).zip(scales) {
            *u = (delta - mean) / scale;
        }
        work[U] = u;
    }

    /// ln q(w* + δ); the components' coefficients and shares stay in the buffers for [`score`].
    ///
    /// [`score`]: Mixture::score
    pub fn log_density(&self, phi: &[f64], work: &mut [Vec<f64>], delta: &[f64]) -> f64 {
        let mut largest = f64::NEG_INFINITY;
        for m in 0..self.ranks.len() {
            self.standardise(phi, work, m, delta);
            let (rank, before) = (self.ranks[m], self.before(m));
            let mut coefficients = std::mem::take(&mut work[COEFFICIENTS]);
            let t = &mut coefficients[before..before + rank];
            for (t, v) in t.iter_mut().zip(self.factors(work, m).chunks_exact(self.dim)) {
                *t = dot(v, &work[U]);
            }
            let plain = dot(&work[U], &work[U]);
            let form = if self.precision() {
                let square = dot(t, t);
                t.iter_mut().for_each(|t| *t = -*t);
                plain + square
            } else {
                let mut square = 0.0;
                // tᵀC⁻¹t, from the solution and a second pass over t.
                let (latent, capacitance) = (&mut work[LATENT], self.capacitance(m));
                let room = latent.len() / 2;
                latent[room..room + rank].copy_from_slice(t);
                cholesky_solve(&work[CAPACITANCES][capacitance], rank, t);
                for (t, c) in work[LATENT][room..].iter().zip(t.iter()) {
                    square += t * c;
                }
                plain - square
            };
            work[COEFFICIENTS] = coefficients;
            let log = work[COMPONENTS][4 * m + 1] - 0.5 * form;
            work[COMPONENTS][4 * m + 2] = log;
            largest = largest.max(log);
        }
        let components = work[COMPONENTS].as_chunks_mut::<4>().0;
        let sum: f64 = components.iter().map(|c| libm::exp(c[2] - largest)).sum();
        let log_density = largest + libm::log(sum);
        components.iter_mut().for_each(|c| c[3] = libm::exp(c[2] - log_density));
        log_density
    }

    /// ∇ ln q at the point of the last [`log_density`](Mixture::log_density), into its buffer.
    fn score(&self, phi: &[f64], work: &mut [Vec<f64>], delta: &[f64]) {
        let mut score = std::mem::take(&mut work[SCORE]);
        score.fill(0.0);
        for m in 0..self.ranks.len() {
            let share = work[COMPONENTS][4 * m + 3];
            if share == 0.0 {
                continue;
            }
            self.standardise(phi, work, m, delta);
            let mut u = std::mem::take(&mut work[U]);
            let coefficients = &work[COEFFICIENTS][self.before(m)..];
            for (c, v) in coefficients.iter().zip(self.factors(work, m).chunks_exact(self.dim)) {
                u.iter_mut().zip(v).for_each(|(u, v)| *u -= c * v);
            }
            for ((score, u), scale) in score.iter_mut().zip(&u).zip(self.scales(work, m)) {
                *score -= share * u / scale;
            }
            work[U] = u;
        }
        work[SCORE] = score;
    }

    /// Factors for directions that are flat beside what D holds: random ones, of which the stiff
    /// eigenvectors are taken out and which are then given the length that is best for the ELBO.
    fn wide_factor(
        &self,
        local: &Local,
        precisions: &[f64],
        rng: &mut ChaCha8Rng,
        product: Product,
        out: &mut [f64],
        earlier: &[f64],
    ) {
        let mut bent = vec![0.0; self.dim];
        fill_normal(rng, out);
        for (eigenvalue, e) in local.hessian.stiff() {
            let stiff = local.nbeta * eigenvalue;
            let along = stiff / (stiff + local.gamma) * dot(e, out);
            out.iter_mut().zip(e).for_each(|(o, e)| *o -= along * e);
        }
        for column in earlier.chunks_exact(self.dim) {
            let along = dot(column, out) / dot(column, column);
            out.iter_mut().zip(column).for_each(|(o, c)| *o -= along * c);
        }
        let bend = local.bend(out, product, &mut bent);
        let inside: f64 = out.iter().zip(precisions).map(|(o, a)| o * o * a).sum();
        // −½c²·bend + ½ln(1 + c²·inside) is largest at c² = 1/bend − 1/inside.
        let faint = (FAINT * FAINT) / inside;
        let square = if bend > 0.0 { (1.0 / bend - 1.0 / inside).max(faint) } else { faint };
        out.iter_mut().for_each(|o| *o *= square.sqrt());
    }

    /// eᵀΣ_m e.
    fn variance_along(&self, work: &mut [Vec<f64>], m: usize, e: &[f64]) -> f64 {
        let rank = self.ranks[m];
        let mut se = std::mem::take(&mut work[U]);
        se.iter_mut().zip(e).zip(self.scales(work, m)).for_each(|((se, e), s)| *se = s * e);
        let mut latent = std::mem::take(&mut work[LATENT]);
        let room = latent.len() / 2;
        let (t, c) = latent.split_at_mut(room);
        let (t, c) = (&mut t[..rank], &mut c[..rank]);
        for (t, v) in t.iter_mut().zip(self.factors(work, m).chunks_exact(self.dim)) {
            *t = dot(v, &se);
        }
        let plain = dot(&se, &se);
        let variance = if self.precision() {
            c.copy_from_slice(t);
            cholesky_solve(&work[CAPACITANCES][self.capacitance(m)], rank, c);
            plain - dot(t, c)
        } else {
            plain + dot(t, t)
        };
        (work[U], work[LATENT]) = (se, latent);
        variance
    }
}

impl Guide for Mixture {
    fn parameters(&self) -> usize {
        self.offset(self.ranks.len())
    }

    fn lengths(&self) -> Vec<usize> {
        let (d, components, factors) = (self.dim, self.ranks.len(), self.before(self.ranks.len()));
        let largest = self.ranks.iter().copied().max().unwrap_or(0);
        let capacitances = self.ranks.iter().map(|r| r * r).sum();
        vec![d * factors, d * components, capacitances, 4 * components, factors, d, 2 * largest, d, d]
    }

    fn strata(&self) -> usize {
        self.ranks.len()
    }

    fn draws_a_step(&self) -> usize {
        draws_of_each(self.ranks.len())
    }

    /// Every component at w*, further ones a little apart. Precision: the stiffest eigenvectors of H as
    /// factors, the diagonal of the rest in D. Covariance: the best diagonal, and random flat
    /// directions as factors.
    fn start(&self, phi: &mut [f64], local: &Local, rng: &mut ChaCha8Rng, product: Product) {
        let d = self.dim;
        let scales = local.scales();
        let jitter = APART.1.min(APART.0 / (d as f64).sqrt());
        let faint = FAINT / (d as f64).sqrt();
        phi[..self.ranks.len()].fill(0.0);
        for m in 0..self.ranks.len() {
            let rank = self.ranks[m];
            let (mean, log_scale, factors) = self.component_mut(phi, m);
            fill_normal(rng, mean);
            let jitter = if m == 0 { 0.0 } else { jitter };
            mean.iter_mut().zip(&scales).for_each(|(mean, s)| *mean *= jitter * s);
            let skipped = if self.precision() { rank } else { 0 };
            let precisions = local.precisions(&local.hessian.diagonal_beyond(skipped));
            log_scale.iter_mut().zip(&precisions).for_each(|(l, a)| *l = -0.5 * libm::log(*a));
            let mut stiff = local.hessian.stiff();
            for k in 0..rank {
                let (earlier, column) = factors.split_at_mut(k * d);
                let column = &mut column[..d];
                if !self.precision() {
                    self.wide_factor(local, &precisions, rng, product, column, earlier);
                } else if let Some((eigenvalue, e)) = stiff.next() {
                    let root = (local.nbeta * eigenvalue).sqrt();
                    column.iter_mut().zip(e).for_each(|(u, e)| *u = root * e);
                } else {
                    fill_normal(rng, column);
                    column.iter_mut().zip(&precisions).for_each(|(u, a)| *u *= faint * a.sqrt());
                }
            }
        }
    }

    fn widen(&self, phi: &mut [f64], factor: f64) {
        let log = libm::log(factor);
        let on_factors = if self.precision() { 1.0 / factor } else { factor };
        for m in 0..self.ranks.len() {
            let (mean, log_scale, factors) = self.component_mut(phi, m);
            mean.iter_mut().for_each(|x| *x *= factor);
            log_scale.iter_mut().for_each(|x| *x += log);
            factors.iter_mut().for_each(|x| *x *= on_factors);
        }
    }

    fn units(&self, scales: &[f64], out: &mut [f64]) {
        let column = self.column_unit();
        out[..self.ranks.len()].fill(1.0);
        for m in 0..self.ranks.len() {
            let (mean, log_scale, factors) = self.component_mut(out, m);
            mean.copy_from_slice(scales);
            log_scale.fill(1.0);
            for unit in factors.chunks_exact_mut(self.dim) {
                for (unit, s) in unit.iter_mut().zip(scales) {
                    *unit = if self.precision() { column / s } else { column * s };
                }
            }
        }
    }

    fn prepare(&self, phi: &[f64], work: &mut [Vec<f64>]) -> Result<(), Unfit> {
        let (d, count) = (self.dim, self.ranks.len());
        let logits = &phi[..count];
        let largest = logits.iter().fold(f64::NEG_INFINITY, |m: f64, l| m.max(*l));
        let sum: f64 = logits.iter().map(|l| libm::exp((l - largest) / self.temperature)).sum();
        for m in 0..count {
            let (_, log_scale, factors) = self.component(phi, m);
            let scales = &mut work[SCALES][d * m..d * (m + 1)];
            scales.iter_mut().zip(log_scale).for_each(|(s, l)| *s = libm::exp(*l));
            let (rank, before) = (self.ranks[m], self.before(m));
            let (v, rest) = work.split_at_mut(SCALES);
            let scales = &rest[0][d * m..d * (m + 1)];
            let v = &mut v[FACTORS][d * before..d * (before + rank)];
            for (v, u) in v.chunks_exact_mut(d).zip(factors.chunks_exact(d)) {
                for ((v, u), s) in v.iter_mut().zip(u).zip(scales) {
                    *v = if self.precision() { u * s } else { u / s };
                }
            }
            let mut capacitances = std::mem::take(&mut work[CAPACITANCES]);
            let c = &mut capacitances[self.capacitance(m)];
            let v = self.factors(work, m);
            for i in 0..rank {
                for j in 0..=i {
                    let inner = dot(&v[i * d..(i + 1) * d], &v[j * d..(j + 1) * d]);
                    c[i * rank + j] = inner + if i == j { 1.0 } else { 0.0 };
                }
            }
            let log_det = cholesky(c, rank);
            work[CAPACITANCES] = capacitances;
            let log_det = log_det.ok_or(Unfit::Capacitance(m))?;
            let signed = if self.precision() { -log_det } else { log_det };
            let spread: f64 = log_scale.iter().sum();
            let log_weight = (logits[m] - largest) / self.temperature - libm::log(sum);
            let component = &mut work[COMPONENTS][4 * m..];
            component[0] = libm::exp(log_weight);
            component[1] = log_weight - 0.5 * (d as f64 * LN_2PI + signed) - spread;
        }
        Ok(())
    }

    fn weight(&self, work: &[Vec<f64>], stratum: usize) -> f64 {
        work[COMPONENTS][4 * stratum]
    }

    fn draw(
        &self,
        phi: &[f64],
        work: &mut [Vec<f64>],
        m: usize,
        rng: &mut ChaCha8Rng,
        delta: &mut [f64],
    ) -> f64 {
        let rank = self.ranks[m];
        let (mut y, mut latent) = (std::mem::take(&mut work[DEVIATE]), std::mem::take(&mut work[LATENT]));
        fill_normal(rng, &mut y);
        let k = &mut latent[..rank];
        fill_normal(rng, k);
        let v = self.factors(work, m);
        if self.precision() {
            for (k, v) in k.iter_mut().zip(v.chunks_exact(self.dim)) {
                *k -= dot(v, &y);
            }
            cholesky_solve(&work[CAPACITANCES][self.capacitance(m)], rank, k);
        }
        for (k, v) in k.iter().zip(v.chunks_exact(self.dim)) {
            y.iter_mut().zip(v).for_each(|(y, v)| *y += k * v);
        }
        let (mean, ..) = self.component(phi, m);
        for (((delta, mean), s), y) in delta.iter_mut().zip(mean).zip(self.scales(work, m)).zip(&y) {
            *delta = mean + s * y;
        }
        (work[DEVIATE], work[LATENT]) = (y, latent);
        self.log_density(phi, work, delta)
    }

    /// The path derivative: ln q's own parameters are held ("sticking the landing", Roeder, Wu &
    /// Duvenaud 2017), which leaves out a term of mean 0 and with it all noise where q is the target.
    fn pull(
        &self,
        phi: &[f64],
        work: &mut [Vec<f64>],
        m: usize,
        delta: &[f64],
        target: &mut [f64],
        factor: f64,
        out: &mut [f64],
    ) {
        let (d, rank) = (self.dim, self.ranks[m]);
        self.score(phi, work, delta);
        let (out_mean, out_log_scale, out_factors) = self.component_mut(out, m);
        for (((g, score), out), s) in
            target.iter_mut().zip(&work[SCORE]).zip(out_mean).zip(self.scales(work, m))
        {
            *g = factor * (*g - score);
            *out += *g;
            // From here on the cotangent of y.
            *g *= s;
        }
        let (v, y, scales) = (self.factors(work, m), &work[DEVIATE], self.scales(work, m));
        for ((out, h), y) in out_log_scale.iter_mut().zip(target.iter()).zip(y) {
            *out += h * y;
        }
        let room = work[LATENT].len() / 2;
        let k = &work[LATENT][..rank];
        if !self.precision() {
            let columns = out_factors.chunks_exact_mut(d).zip(v.chunks_exact(d));
            for ((out, v), k) in columns.zip(k) {
                let parts = out.iter_mut().zip(v).zip(target.iter()).zip(scales).zip(&mut *out_log_scale);
                for ((((out, v), h), s), out_log_scale) in parts {
                    *out += h * k / s;
                    *out_log_scale -= h * k * v;
                }
            }
            return;
        }
        // a = (I + VVᵀ)⁻¹h and b = Vᵀa = C⁻¹Vᵀh give ∂V = a·kᵀ − y·bᵀ.
        let mut latent = std::mem::take(&mut work[LATENT]);
        let (k, b) = latent.split_at_mut(room);
        let (k, b) = (&k[..rank], &mut b[..rank]);
        let v = self.factors(work, m);
        for (b, v) in b.iter_mut().zip(v.chunks_exact(d)) {
            *b = dot(v, target);
        }
        cholesky_solve(&work[CAPACITANCES][self.capacitance(m)], rank, b);
        for (b, v) in b.iter().zip(v.chunks_exact(d)) {
            target.iter_mut().zip(v).for_each(|(h, v)| *h -= b * v);
        }
        let (y, scales) = (&work[DEVIATE], self.scales(work, m));
        let columns = out_factors.chunks_exact_mut(d).zip(v.chunks_exact(d));
        for ((out, v), (k, b)) in columns.zip(k.iter().zip(b.iter())) {
            let given = v.iter().zip(target.iter()).zip(y).zip(scales);
            for ((out, (((v, a), y), s)), out_log_scale) in out.iter_mut().zip(given).zip(&mut *out_log_scale)
            {
                let by_v = a * k - y * b;
                *out += s * by_v;
                *out_log_scale += by_v * v;
            }
        }
        work[LATENT] = latent;
    }

    fn weigh(&self, work: &[Vec<f64>], differences: &[f64], out: &mut [f64]) {
        let components = work[COMPONENTS].as_chunks::<4>().0;
        let mean: f64 = components.iter().zip(differences).map(|(c, f)| c[0] * f).sum();
        let ln = |weight: f64| libm::log(weight.max(f64::MIN_POSITIVE));
        let entropy: f64 = -components.iter().map(|c| c[0] * ln(c[0])).sum::<f64>();
        let count = components.len() as f64;
        for ((out, c), f) in out.iter_mut().zip(components).zip(differences) {
            let weight = c[0];
            let bonus = -self.entropy_bonus * weight * (ln(weight) + entropy);
            let prior = self.dirichlet.map_or(0.0, |alpha| (alpha - 1.0) * (1.0 - count * weight));
            *out += (weight * (f - mean) + bonus + prior) / self.temperature;
        }
    }

    fn quadratic(&self, _: &[f64], _: &mut [Vec<f64>], local: &Local, delta: &[f64]) -> f64 {
        local.hessian.quadratic(local.nbeta, delta)
    }

    fn quadratic_mean(&self, phi: &[f64], work: &mut [Vec<f64>], local: &Local) -> f64 {
        let hessian: &Hessian = local.hessian;
        let mut mean = 0.0;
        for m in 0..self.ranks.len() {
            let weight = self.weight(work, m);
            let (centre, ..) = self.component(phi, m);
            mean += weight * hessian.quadratic(local.nbeta, centre);
            for (eigenvalue, e) in hessian.pairs() {
                mean += weight * 0.5 * local.nbeta * eigenvalue * self.variance_along(work, m, e);
            }
        }
        mean
    }
}
