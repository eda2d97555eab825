//! A normalising flow in a few directions, lifted to all of them:
//!
//! w = w* + s∘(Uᵀz + (I − UᵀU)·σ·ξ),  z = b + e^a∘F(ε),  ε ~ N(0, I_k), ξ ~ N(0, I_d),
//!
//! U with k orthonormal rows (see [`Lift`]). F is a chain of layers of one kind, each transforming every
//! coordinate by a map whose parameters a masked network makes of other coordinates: affine coupling
//! (realnvp, Dinh et al. 2017), affine autoregressive (maf: the transform of Papamakarios et al. 2017 in
//! the direction that is fast to draw from, Kingma et al. 2016) or autoregressive rational-quadratic
//! splines (nsf_ar, Durkan et al. 2019). All start as the identity, so that q starts as the Gaussian of
//! the curvature at w*. No d × d matrix is formed: memory and work are O(d·k).
//!
//! ln q(w) = ln N(ε) − ln|det F'| − Σa − ½(d−k)·ln(2πσ²) − ½|(I − UᵀU)ξ|² − Σ ln s. Gradients are of
//! ln π − ln q in full, through F and its determinant. Parameters: b, a, layers, and where σ is not given
//! ln σ and ln s: the Hessian at w* knows the scales of coordinates only where the posterior is narrow.

use rand_chacha::ChaCha8Rng;

use super::conditioner::{Conditioner, Order};
use super::guide::{Guide, Local, Product, Unfit};
use super::hessian::dot;
use super::lift::Lift;
use super::spline::{AFFINE, SPLINE, affine, affine_back, spline, spline_back};
use crate::config::{FlowType, LatentFlow};
use crate::device::fill_normal;

/// Draws that a step's gradient is averaged over.
pub const DRAWS_A_STEP: usize = 8;
const LN_2PI: f64 = 1.837_877_066_409_345_5;
/// Dimensions beyond which ln σ takes shorter steps: its optimum is the sharper the more it serves.
const UNIT_SPREAD: f64 = 64.0;

/// The lifted flow.
pub struct LiftedFlow {
    lift: Lift,
    fixed_sigma: Option<f64>,
    kind: FlowType,
    layers: Vec<Conditioner>,
}

/// Places of the buffers: what the layers keep, one after another.
const KEPT: usize = 0;
/// ε, F(ε) and cotangents of z.
const LATENT: usize = 1;
/// (I − UᵀU)σξ of the draw.
const ACROSS: usize = 2;
/// δ̂ of the control variate; else what is needed along the way.
const POINT: usize = 3;
/// Cotangents inside a network, and as much room again.
const INSIDE: usize = 4;
/// s, and behind it Σ ln s.
const SCALES: usize = 5;

/// Weights and biases of all layers' networks, by formula: they may be too many to make.
pub fn layer_numbers(settings: &LatentFlow, dim: usize) -> f64 {
    let k = settings.d_latent.min(dim);
    let each = if settings.flow_type == FlowType::NsfAr { SPLINE } else { AFFINE };
    let ends = settings.flow_hidden.iter().copied().chain([k * each]);
    let mut before = k as f64;
    let mut numbers = 0.0;
    for width in ends {
        numbers += (before + 1.0) * width as f64;
        before = width as f64;
    }
    settings.flow_depth as f64 * numbers
}

impl LiftedFlow {
    /// The flow on a frame.
    pub fn new(lift: Lift, settings: &LatentFlow) -> Self {
        let k = lift.precisions.len();
        let each = if settings.flow_type == FlowType::NsfAr { SPLINE } else { AFFINE };
        let layers = (0..settings.flow_depth)
            .map(|layer| {
                let odd = layer % 2 == 1;
                let order = match settings.flow_type {
                    FlowType::Realnvp => Order::Coupling { odd: !odd },
                    FlowType::Maf | FlowType::NsfAr => Order::Autoregressive { reversed: odd },
                };
                Conditioner::new(k, &settings.flow_hidden, each, &order)
            })
            .collect();
        Self { lift, fixed_sigma: settings.sigma_perp, kind: settings.flow_type, layers }
    }

    fn dim(&self) -> usize {
        self.lift.scales.len()
    }

    fn latent(&self) -> usize {
        self.lift.precisions.len()
    }

    /// Directions that the flow does not act in.
    fn orthogonal(&self) -> usize {
        self.dim() - self.latent()
    }

    /// 1 where ln σ is a parameter.
    fn learned(&self) -> usize {
        usize::from(self.fixed_sigma.is_none() && self.orthogonal() > 0)
    }

    /// Where ln s is among the parameters; empty where it is none.
    fn log_scales(&self) -> std::ops::Range<usize> {
        let end = self.parameters();
        end - if self.fixed_sigma.is_none() { self.dim() } else { 0 }..end
    }

    fn log_sigma(&self, phi: &[f64]) -> f64 {
        match self.fixed_sigma {
            Some(sigma) => libm::log(sigma),
            None if self.learned() == 1 => phi[0],
            None => 0.0,
        }
    }

    /// b and a.
    fn outer<'a>(&self, phi: &'a [f64]) -> (&'a [f64], &'a [f64]) {
        let k = self.latent();
        let outer = &phi[self.learned()..self.learned() + 2 * k];
        outer.split_at(k)
    }

    fn outer_mut<'a>(&self, phi: &'a mut [f64]) -> (&'a mut [f64], &'a mut [f64]) {
        let (k, learned) = (self.latent(), self.learned());
        phi[learned..learned + 2 * k].split_at_mut(k)
    }

    /// Each layer with where its parameters start in φ and what it keeps among all that is kept.
    fn placed(&self) -> impl DoubleEndedIterator<Item = (&Conditioner, usize, usize)> {
        let (size, kept) = self.layers.first().map_or((0, 0), |l| (l.parameters(), l.kept()));
        let first = self.learned() + 2 * self.latent();
        self.layers.iter().enumerate().map(move |(i, l)| (l, first + i * size, i * kept))
    }

    fn each(&self) -> usize {
        if self.kind == FlowType::NsfAr { SPLINE } else { AFFINE }
    }

    fn map(&self, raw: &[f64], x: f64) -> (f64, f64) {
        if self.kind == FlowType::NsfAr { spline(raw, x) } else { affine(raw, x) }
    }

    /// F(ε): ε stands in the latent buffer, F(ε) is put behind it; returns ln|det F'|.
    fn forward(&self, phi: &[f64], work: &mut [Vec<f64>]) -> f64 {
        let (k, each) = (self.latent(), self.each());
        let (kept, rest) = work.split_at_mut(LATENT);
        let (epsilon, rest) = rest[0].split_at_mut(k);
        let values = &mut rest[..k];
        values.copy_from_slice(epsilon);
        let mut log_det = 0.0;
        for (layer, theta, start) in self.placed() {
            let kept = &mut kept[KEPT][start..start + layer.kept()];
            kept[..k].copy_from_slice(values);
            layer.forward(&phi[theta..theta + layer.parameters()], kept);
            let raw = &kept[layer.outputs()];
            for (value, raw) in values.iter_mut().zip(raw.chunks_exact(each)) {
                let (y, log) = self.map(raw, *value);
                *value = y;
                log_det += log;
            }
        }
        log_det
    }

    /// From the cotangents of F(ε), which stand third in the latent buffer, and 1 for ln|det F'|: adds
    /// `factor` times the parameters' to `out`.
    fn backward(&self, phi: &[f64], work: &mut [Vec<f64>], factor: f64, out: &mut [f64]) {
        let (k, each) = (self.latent(), self.each());
        let (kept, rest) = work.split_at_mut(LATENT);
        let (latent, rest) = rest.split_at_mut(1);
        let inside = &mut rest[INSIDE - ACROSS];
        let widest = inside.len() / 2;
        let (cotangents, room) = inside.split_at_mut(widest);
        let by_values = &mut latent[0][2 * k..3 * k];
        for (layer, theta, start) in self.placed().rev() {
            let kept = &kept[KEPT][start..start + layer.kept()];
            let raws = kept[layer.outputs()].chunks_exact(each);
            for (i, raw) in raws.enumerate() {
                let by_raw = &mut cotangents[i * each..(i + 1) * each];
                let by = (by_values[i], factor);
                by_values[i] = if self.kind == FlowType::NsfAr {
                    spline_back(raw, kept[i], by, by_raw)
                } else {
                    affine_back(raw, kept[i], by, by_raw)
                };
            }
            let parameters = theta..theta + layer.parameters();
            layer.backward(&phi[parameters.clone()], kept, cotangents, room, &mut out[parameters], by_values);
        }
    }
}

impl Guide for LiftedFlow {
    fn parameters(&self) -> usize {
        let layers: usize = self.layers.iter().map(Conditioner::parameters).sum();
        let scales = if self.fixed_sigma.is_none() { self.dim() } else { 0 };
        self.learned() + 2 * self.latent() + layers + scales
    }

    fn lengths(&self) -> Vec<usize> {
        let kept = self.layers.iter().map(Conditioner::kept).sum();
        let widest = self.layers.iter().map(Conditioner::widest).max().unwrap_or(0);
        vec![kept, 3 * self.latent(), self.dim(), self.dim(), 2 * widest, self.dim() + 1]
    }

    fn draws_a_step(&self) -> usize {
        DRAWS_A_STEP
    }

    fn start(&self, phi: &mut [f64], _: &Local, rng: &mut ChaCha8Rng, _: Product) {
        if self.learned() == 1 {
            phi[0] = -0.5 * libm::log(self.lift.across);
        }
        let (shift, log_scale) = self.outer_mut(phi);
        shift.fill(0.0);
        for (a, precision) in log_scale.iter_mut().zip(&self.lift.precisions) {
            *a = -0.5 * libm::log(*precision);
        }
        for (layer, theta, _) in self.placed() {
            layer.start(&mut phi[theta..theta + layer.parameters()], rng);
        }
        let log_scales = phi[self.log_scales()].iter_mut();
        log_scales.zip(&self.lift.scales).for_each(|(l, s)| *l = libm::log(*s));
    }

    fn widen(&self, phi: &mut [f64], factor: f64) {
        let log = libm::log(factor);
        if self.learned() == 1 {
            phi[0] += log;
        }
        let (shift, log_scale) = self.outer_mut(phi);
        shift.iter_mut().for_each(|b| *b *= factor);
        log_scale.iter_mut().for_each(|a| *a += log);
    }

    fn units(&self, _: &[f64], out: &mut [f64]) {
        if self.learned() == 1 {
            out[0] = (UNIT_SPREAD / self.orthogonal() as f64).sqrt().min(1.0);
        }
        let (shift, log_scale) = self.outer_mut(out);
        shift.iter_mut().zip(&self.lift.precisions).for_each(|(b, p)| *b = 1.0 / p.sqrt());
        log_scale.fill(1.0);
        for (layer, theta, _) in self.placed() {
            layer.units(&mut out[theta..theta + layer.parameters()]);
        }
        out[self.log_scales()].fill(1.0);
    }

    fn prepare(&self, phi: &[f64], work: &mut [Vec<f64>]) -> Result<(), Unfit> {
        let (scales, sum) = work[SCALES].split_at_mut(self.dim());
        sum[0] = 0.0;
        if self.fixed_sigma.is_none() {
            for (s, l) in scales.iter_mut().zip(&phi[self.log_scales()]) {
                *s = libm::exp(*l);
                sum[0] += l;
            }
        } else {
            scales.copy_from_slice(&self.lift.scales);
            sum[0] = scales.iter().map(|s| libm::log(*s)).sum();
        }
        let widths = self.outer(phi).1.iter().copied().chain([self.log_sigma(phi)]);
        if widths.map(libm::exp).all(|w| w > 0.0 && w.is_finite()) { Ok(()) } else { Err(Unfit::Width) }
    }

    fn weight(&self, _: &[Vec<f64>], _: usize) -> f64 {
        1.0
    }

    fn draw(
        &self,
        phi: &[f64],
        work: &mut [Vec<f64>],
        _: usize,
        rng: &mut ChaCha8Rng,
        delta: &mut [f64],
    ) -> f64 {
        let (d, k) = (self.dim(), self.latent());
        fill_normal(rng, &mut work[LATENT][..k]);
        let log_det = self.forward(phi, work);
        let log_sigma = self.log_sigma(phi);
        let across = &mut work[ACROSS];
        let mut square = 0.0;
        if self.orthogonal() > 0 {
            fill_normal(rng, across);
            for u in self.lift.basis.chunks_exact(d) {
                let along = dot(u, across);
                across.iter_mut().zip(u).for_each(|(x, u)| *x -= along * u);
            }
            square = dot(across, across);
            let sigma = libm::exp(log_sigma);
            across.iter_mut().for_each(|x| *x *= sigma);
        } else {
            across.fill(0.0);
        }
        delta.copy_from_slice(&work[ACROSS]);
        let (shift, log_scale) = self.outer(phi);
        let latent = &work[LATENT];
        for (i, u) in self.lift.basis.chunks_exact(d).enumerate() {
            let z = shift[i] + libm::exp(log_scale[i]) * latent[k + i];
            delta.iter_mut().zip(u).for_each(|(x, u)| *x += z * u);
        }
        delta.iter_mut().zip(&work[SCALES]).for_each(|(x, s)| *x *= s);
        let epsilon = &latent[..k];
        let normals = -0.5 * (d as f64 * LN_2PI + dot(epsilon, epsilon) + square);
        let widths =
            log_scale.iter().sum::<f64>() + self.orthogonal() as f64 * log_sigma + work[SCALES][self.dim()];
        normals - log_det - widths
    }

    fn pull(
        &self,
        phi: &[f64],
        work: &mut [Vec<f64>],
        _: usize,
        delta: &[f64],
        target: &mut [f64],
        factor: f64,
        out: &mut [f64],
    ) {
        let (d, k) = (self.dim(), self.latent());
        for ((out, g), delta) in out[self.log_scales()].iter_mut().zip(target.iter()).zip(delta) {
            *out += factor * (g * delta + 1.0);
        }
        // The cotangent of x = δ/s.
        target.iter_mut().zip(&work[SCALES]).for_each(|(g, s)| *g *= factor * s);
        if self.learned() == 1 {
            out[0] += dot(&work[ACROSS], target) + factor * self.orthogonal() as f64;
        }
        let log_scale = self.outer(phi).1;
        let (by_shift, by_log_scale) = self.outer_mut(out);
        let latent = &mut work[LATENT];
        for (i, u) in self.lift.basis.chunks_exact(d).enumerate() {
            let by_z = dot(u, target);
            let by_value = by_z * libm::exp(log_scale[i]);
            by_shift[i] += by_z;
            by_log_scale[i] += by_value * latent[k + i] + factor;
            latent[2 * k + i] = by_value;
        }
        self.backward(phi, work, factor, out);
    }

    /// Of the draw that b, a and σ alone would have made of the same ε and ξ: its mean and covariance are
    /// known, whatever F does.
    fn quadratic(&self, phi: &[f64], work: &mut [Vec<f64>], local: &Local, _: &[f64]) -> f64 {
        let d = self.dim();
        let mut point = std::mem::take(&mut work[POINT]);
        point.copy_from_slice(&work[ACROSS]);
        let (shift, log_scale) = self.outer(phi);
        for (i, u) in self.lift.basis.chunks_exact(d).enumerate() {
            let z = shift[i] + libm::exp(log_scale[i]) * work[LATENT][i];
            point.iter_mut().zip(u).for_each(|(x, u)| *x += z * u);
        }
        point.iter_mut().zip(&work[SCALES]).for_each(|(x, s)| *x *= s);
        let quadratic = local.hessian.quadratic(local.nbeta, &point);
        work[POINT] = point;
        quadratic
    }

    fn quadratic_mean(&self, phi: &[f64], work: &mut [Vec<f64>], local: &Local) -> f64 {
        let d = self.dim();
        let (shift, log_scale) = self.outer(phi);
        let mut point = std::mem::take(&mut work[POINT]);
        point.fill(0.0);
        for (u, b) in self.lift.basis.chunks_exact(d).zip(shift) {
            point.iter_mut().zip(u).for_each(|(x, u)| *x += b * u);
        }
        point.iter_mut().zip(&work[SCALES]).for_each(|(x, s)| *x *= s);
        let mut mean = local.hessian.quadratic(local.nbeta, &point);
        let variance = if self.orthogonal() > 0 { libm::exp(2.0 * self.log_sigma(phi)) } else { 0.0 };
        for (eigenvalue, e) in local.hessian.pairs() {
            point.iter_mut().zip(e).zip(&work[SCALES]).for_each(|((x, e), s)| *x = s * e);
            let mut spread = variance * dot(&point, &point);
            for (u, a) in self.lift.basis.chunks_exact(d).zip(log_scale) {
                spread += dot(u, &point).powi(2) * (libm::exp(2.0 * a) - variance);
            }
            mean += 0.5 * local.nbeta * eigenvalue * spread;
        }
        work[POINT] = point;
        mean
    }
}
