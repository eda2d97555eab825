//! Exact Hessian-vector products of a network's loss: the gradient pass differentiated forward
//! along a direction v (Pearlmutter 1994, "Fast exact multiplication by the Hessian").
//!
//! A dot marks the derivative along v. With z = Wa + b: ż = Ẇa + Wȧ + ḃ, where Ẇ and ḃ are v's
//! entries; with δ the gradient with respect to z: Hv of W is δ̇aᵀ + δȧᵀ. Blocks, panels and the order
//! of sums are those of the gradient.

use super::plan::block_rows;
use super::{NetworkPotential, rows_of};
use crate::config::Activation;
use crate::device::{Element, End, Product, Start, Weights, accumulate_outer, accumulate_row_sums, matmul};
use crate::num::Real;
use crate::target::elementwise::NORM_EPSILON;
use crate::target::layout::Layer;

/// Number of block regions: a, ȧ, φ', φ''ż, ẑ, its derivative, δ, δ̇.
const REGIONS: usize = 8;

/// The scratch slice of a product, cut into its regions; every block region holds all layers.
struct Tangent<'s, T> {
    out: &'s mut [T],
    out_dot: &'s mut [T],
    slope: &'s mut [T],
    bend: &'s mut [T],
    hat: &'s mut [T],
    hat_dot: &'s mut [T],
    delta: &'s mut [T],
    delta_dot: &'s mut [T],
    /// 1/σ and its derivative, a layer each.
    rstd: &'s mut [T],
    rstd_dot: &'s mut [T],
    dz: &'s mut [T],
    dz_dot: &'s mut [T],
    batch: &'s mut [T],
    packed: &'s mut [T],
    packed_dot: &'s mut [T],
}

impl<T: Element> NetworkPotential<T> {
    pub(super) fn tangent_scratch_len(&self) -> usize {
        self.plan.tangent_len(REGIONS, self.inputs() + self.outputs())
    }

    fn cut<'s>(&self, scratch: &'s mut [T]) -> Tangent<'s, T> {
        let plan = &self.plan;
        let (blocks, norms, widest) = (plan.blocks_len, plan.block.len() * plan.ld, plan.widest * plan.ld);
        let mut take = plan.cutter(scratch);
        Tangent {
            out: take(blocks),
            out_dot: take(blocks),
            slope: take(blocks),
            bend: take(blocks),
            hat: take(blocks),
            hat_dot: take(blocks),
            delta: take(blocks),
            delta_dot: take(blocks),
            rstd: take(norms),
            rstd_dot: take(norms),
            dz: take(widest),
            dz_dot: take(widest),
            batch: take((self.inputs() + self.outputs()) * plan.ld),
            packed: take(plan.packed_len),
            packed_dot: take(plan.packed_len),
        }
    }

    /// Floating-point operations of a Hessian-vector product over all rows: in the first layer z, ż
    /// and δ̇aᵀ, in all others eight products of 2·n·in·out.
    pub fn hvp_flops(&self) -> f64 {
        let products: usize = self.layers.iter().map(|l| l.inputs * l.outputs).sum();
        let first = self.layers[0].inputs * self.layers[0].outputs;
        self.n as f64 * (16 * products - 10 * first) as f64
    }

    /// `hv` = ∇²L(w)·v over the chosen rows, or all.
    pub(super) fn tangent(&self, w: &[T], v: &[T], rows: Option<&[u32]>, hv: &mut [T], scratch: &mut [T]) {
        hv.fill(T::ZERO);
        let mut t = self.cut(scratch);
        self.pack(w, t.packed);
        self.pack(v, t.packed_dot);
        let (xs, ys) = (self.inputs() * self.plan.ld, self.outputs() * self.plan.ld);
        let weight = |rows: usize| T::from_f64(1.0 / (rows * self.outputs()) as f64);
        match rows {
            None => {
                for (i, (x, y)) in self.x.chunks_exact(xs).zip(self.y.chunks_exact(ys)).enumerate() {
                    let used = block_rows::<T>().min(self.n - i * block_rows::<T>());
                    self.tangent_block((w, v), (x, y), hv, &mut t, used, weight(self.n));
                }
            }
            Some(rows) => {
                let batch = std::mem::take(&mut t.batch);
                let (x, y) = batch.split_at_mut(xs);
                for chosen in rows.chunks(block_rows::<T>()) {
                    self.gather(chosen, x, y);
                    self.tangent_block((w, v), (x, y), hv, &mut t, chosen.len(), weight(rows.len()));
                }
            }
        }
    }

    fn tangent_block(
        &self,
        (w, v): (&[T], &[T]),
        (x, y): (&[T], &[T]),
        hv: &mut [T],
        t: &mut Tangent<'_, T>,
        used: usize,
        weight: T,
    ) {
        self.tangent_forward(w, v, x, t, used);
        let last = self.layers.len() - 1;
        let top = self.plan.block[last].clone();
        let (ld, count) = (self.plan.ld, self.shape(self.outputs(), used).rows);
        for f in 0..self.outputs() {
            let line = top.start + f * ld..top.start + f * ld + count;
            let (delta, dot) = (&mut t.delta[line.clone()], &mut t.delta_dot[line.clone()]);
            let values = t.out[line.clone()].iter().zip(&t.out_dot[line]).zip(&y[f * ld..]);
            for (b, ((out, out_dot), y)) in values.enumerate() {
                let (slope, bend) = self.loss.slopes(*out - *y);
                let scale = if b < used { weight } else { T::ZERO };
                (delta[b], dot[b]) = (scale * slope, scale * bend * *out_dot);
            }
        }
        self.tangent_backward(w, v, x, hv, t, used);
    }

    fn tangent_forward(&self, w: &[T], v: &[T], x: &[T], t: &mut Tangent<'_, T>, used: usize) {
        let (plan, arith) = (&self.plan, self.arith);
        let last = self.layers.len() - 1;
        for (l, layer) in self.layers.iter().enumerate() {
            let shape = self.shape(layer.outputs, used);
            let block = plan.block[l].clone();
            let (ld, rows) = (shape.ld, shape.rows);
            let (below, here) = t.out.split_at_mut(block.start);
            let (below_dot, here_dot) = t.out_dot.split_at_mut(block.start);
            let (out, out_dot) = (&mut here[..block.len()], &mut here_dot[..block.len()]);
            let input = if l == 0 { x } else { &below[plan.block[l - 1].clone()] };
            let at_once = layer.hidden && layer.norm.is_none() && self.gated(layer);
            let product = |of, start, end| {
                let weights = Weights::Plain(layer.weights(of));
                Product { weights, size: (layer.outputs, layer.inputs), start, end }
            };
            let bias = |of| layer.bias.map_or(Start::Zero, |b| Start::Bias(bias_of(of, b, layer)));
            let end = if at_once { End::Relu } else { End::Plain };
            matmul(arith, product(w, bias(w), end), input, out, rows_of(shape));
            let end = if at_once { End::Where(&*out) } else { End::Plain };
            if l == 0 {
                matmul(arith, product(v, bias(v), end), input, out_dot, rows_of(shape));
            } else {
                matmul(arith, product(v, bias(v), End::Plain), input, out_dot, rows_of(shape));
                let input_dot = &below_dot[plan.block[l - 1].clone()];
                matmul(arith, product(w, Start::Keep, end), input_dot, out_dot, rows_of(shape));
            }
            if at_once {
                continue;
            }
            if l == last {
                break;
            }
            if let Some(norm) = layer.norm {
                let at = l * ld..(l + 1) * ld;
                normalise(
                    (out, out_dot),
                    (&mut t.hat[block.clone()], &mut t.hat_dot[block.clone()]),
                    (&mut t.rstd[at.clone()], &mut t.rstd_dot[at]),
                    (&w[norm..], &v[norm..]),
                    (layer.outputs, rows, ld),
                );
            }
            let (slope, bend) = (&mut t.slope[block.clone()], &mut t.bend[block]);
            for line in 0..layer.outputs {
                for b in line * ld..line * ld + rows {
                    let (value, first, second) = activate(self.activation, out[b]);
                    out[b] = value;
                    slope[b] = first;
                    bend[b] = second * out_dot[b];
                    out_dot[b] *= first;
                }
            }
            match layer.skip_from {
                Some(0) => out.iter_mut().zip(x).for_each(|(a, &s)| *a += s),
                Some(h) => {
                    let from = plan.block[h - 1].clone();
                    out.iter_mut().zip(&below[from.clone()]).for_each(|(a, &s)| *a += s);
                    out_dot.iter_mut().zip(&below_dot[from]).for_each(|(a, &s)| *a += s);
                }
                None => {}
            }
        }
    }

    fn tangent_backward(&self, w: &[T], v: &[T], x: &[T], hv: &mut [T], t: &mut Tangent<'_, T>, used: usize) {
        let (plan, arith) = (&self.plan, self.arith);
        for (l, layer) in self.layers.iter().enumerate().rev() {
            let (m, k) = (layer.outputs, layer.inputs);
            let shape = self.shape(m, used);
            let rows = rows_of(shape);
            let block = plan.block[l].clone();
            let (below, here) = t.delta.split_at_mut(block.start);
            let (below_dot, here_dot) = t.delta_dot.split_at_mut(block.start);
            let (delta, delta_dot) = (&mut here[..block.len()], &mut here_dot[..block.len()]);
            if let Some(h @ 1..) = layer.skip_from {
                let from = plan.block[h - 1].clone();
                below[from.clone()].copy_from_slice(delta);
                below_dot[from].copy_from_slice(delta_dot);
            }
            let (dz, dz_dot) = if !layer.hidden || self.gated(layer) {
                (delta, delta_dot)
            } else {
                let (dz, dz_dot) = (&mut t.dz[..block.len()], &mut t.dz_dot[..block.len()]);
                let (slope, bend) = (&t.slope[block.clone()], &t.bend[block.clone()]);
                for line in 0..m {
                    for b in line * shape.ld..line * shape.ld + shape.rows {
                        dz[b] = delta[b] * slope[b];
                        dz_dot[b] = delta_dot[b] * slope[b] + delta[b] * bend[b];
                    }
                }
                (dz, dz_dot)
            };
            if let Some(norm) = layer.norm {
                let at = l * shape.ld..(l + 1) * shape.ld;
                normalise_gradient(
                    (dz, dz_dot),
                    (&t.hat[block.clone()], &t.hat_dot[block]),
                    (&t.rstd[at.clone()], &t.rstd_dot[at]),
                    (&w[norm..], &v[norm..]),
                    &mut hv[norm..],
                    (m, shape.rows, shape.ld),
                );
            }
            if let Some(bias) = layer.bias {
                accumulate_row_sums(arith, dz_dot, &mut hv[bias..][..m], m, rows);
            }
            let weights = &mut hv[layer.weight..][..m * k];
            if l == 0 {
                accumulate_outer(arith, dz_dot, x, weights, (m, k), rows);
                break;
            }
            let source = plan.block[l - 1].clone();
            let input = &t.out[source.clone()];
            accumulate_outer(arith, dz_dot, input, weights, (m, k), rows);
            accumulate_outer(arith, dz, &t.out_dot[source.clone()], weights, (m, k), rows);
            let shared = self.layers[l..].iter().any(|a| a.skip_from == Some(l));
            let first = if shared { Start::Keep } else { Start::Zero };
            let last = if self.gated(&self.layers[l - 1]) { End::Where(input) } else { End::Plain };
            let product =
                |packed, start, end| Product { weights: Weights::Packed(packed), size: (k, m), start, end };
            let range = plan.packed[l].clone();
            let (above, above_dot) = (&t.packed[range.clone()], &t.packed_dot[range]);
            matmul(arith, product(above, first, last), dz, &mut below[source.clone()], rows);
            let below_dot = &mut below_dot[source];
            matmul(arith, product(above, first, End::Plain), dz_dot, below_dot, rows);
            matmul(arith, product(above_dot, Start::Keep, last), dz, below_dot, rows);
        }
    }
}

fn bias_of<'w, T>(w: &'w [T], start: usize, layer: &Layer) -> &'w [T] {
    &w[start..][..layer.outputs]
}

/// φ, φ' and φ'' at z.
fn activate<T: Real>(activation: Activation, z: T) -> (T, T, T) {
    match activation {
        Activation::Identity => (z, T::ONE, T::ZERO),
        // NaN passes through.
        Activation::Relu if z < T::ZERO => (T::ZERO, T::ZERO, T::ZERO),
        Activation::Relu => (z, if z > T::ZERO { T::ONE } else { T::ZERO }, T::ZERO),
        Activation::Tanh => {
            let value = z.tanh();
            let slope = T::ONE - value * value;
            (value, slope, -(value + value) * slope)
        }
        Activation::Gelu => {
            let half = T::from_f64(0.5);
            let cdf = half + half * (z * T::from_f64(std::f64::consts::FRAC_1_SQRT_2)).erf();
            let density = T::from_f64(0.398_942_280_401_432_7) * (-half * z * z).exp();
            (z * cdf, cdf + z * density, density * (T::ONE + T::ONE - z * z))
        }
    }
}

/// Layer normalisation and its derivative, row by row: with r = 1/σ, ṙ = −r²·mean(ẑż) and
/// ẑ̇ = r(ż − mean ż) − ẑ·r·mean(ẑż). `params` are scale and shift, then their dots.
fn normalise<T: Real>(
    (z, z_dot): (&mut [T], &mut [T]),
    (hat, hat_dot): (&mut [T], &mut [T]),
    (rstd, rstd_dot): (&mut [T], &mut [T]),
    (params, params_dot): (&[T], &[T]),
    (features, rows, ld): (usize, usize, usize),
) {
    let count = T::from_f64(features as f64);
    for b in 0..rows {
        let at = |f: usize| f * ld + b;
        let (mut mean, mut mean_dot, mut square) = (T::ZERO, T::ZERO, T::ZERO);
        for f in 0..features {
            mean += z[at(f)];
            mean_dot += z_dot[at(f)];
        }
        mean /= count;
        mean_dot /= count;
        for f in 0..features {
            square += (z[at(f)] - mean) * (z[at(f)] - mean);
        }
        let r = T::ONE / (square / count + T::from_f64(NORM_EPSILON)).sqrt();
        let mut along = T::ZERO;
        for f in 0..features {
            hat[at(f)] = (z[at(f)] - mean) * r;
            along += hat[at(f)] * z_dot[at(f)];
        }
        along /= count;
        rstd[b] = r;
        rstd_dot[b] = -(r * r * along);
        for f in 0..features {
            let (scale, scale_dot) = (params[f], params_dot[f]);
            let (h, i) = (hat[at(f)], at(f));
            hat_dot[i] = r * (z_dot[i] - mean_dot) - h * r * along;
            z_dot[i] = scale_dot * h + scale * hat_dot[i] + params_dot[features + f];
            z[i] = scale * h + params[features + f];
        }
    }
}

/// The derivative of the gradient through [`normalise`], in place; that of scale and shift is added
/// to `hv`.
fn normalise_gradient<T: Real>(
    (dz, dz_dot): (&mut [T], &mut [T]),
    (hat, hat_dot): (&[T], &[T]),
    (rstd, rstd_dot): (&[T], &[T]),
    (scale, scale_dot): (&[T], &[T]),
    hv: &mut [T],
    (features, rows, ld): (usize, usize, usize),
) {
    let count = T::from_f64(features as f64);
    for b in 0..rows {
        let (mut mean, mut along, mut mean_dot, mut along_dot) = (T::ZERO, T::ZERO, T::ZERO, T::ZERO);
        for f in 0..features {
            let i = f * ld + b;
            hv[f] += dz_dot[i] * hat[i] + dz[i] * hat_dot[i];
            hv[features + f] += dz_dot[i];
            let g = scale[f] * dz[i];
            let g_dot = scale_dot[f] * dz[i] + scale[f] * dz_dot[i];
            (dz[i], dz_dot[i]) = (g, g_dot);
            mean += g;
            mean_dot += g_dot;
            along += g * hat[i];
            along_dot += g_dot * hat[i] + g * hat_dot[i];
        }
        (mean, mean_dot) = (mean / count, mean_dot / count);
        (along, along_dot) = (along / count, along_dot / count);
        for f in 0..features {
            let i = f * ld + b;
            let plain = dz[i] - mean - hat[i] * along;
            let dot = dz_dot[i] - mean_dot - hat_dot[i] * along - hat[i] * along_dot;
            dz[i] = plain * rstd[b];
            dz_dot[i] = dot * rstd[b] + plain * rstd_dot[b];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{losses, networks, normals};
    use super::*;
    use crate::target::{Potential, Reference, param_count};

    /// Largest difference between Hv and a central difference of the plain definition's gradient,
    /// relative to the largest entry.
    #[test]
    fn products_are_the_derivatives_of_the_gradient_along_the_direction() {
        for (i, network) in networks().iter().enumerate() {
            for loss in losses() {
                let (n, stream) = (140, 500 + 10 * i as u32);
                let (x, y): (Vec<f64>, Vec<f64>) = (normals(n * 3, stream), normals(n * 2, stream + 1));
                let d = param_count(network);
                let w: Vec<f64> = normals::<f64>(d, stream + 2).iter().map(|x| 0.4 * x).collect();
                let v: Vec<f64> = normals(d, stream + 3);
                let potential = NetworkPotential::new(network, &x, &y, &loss);
                let rows: Vec<u32> = (0..131u32).map(|r| (r * 37) % n as u32).collect();
                let pick = |m: &[f64], k: usize| {
                    rows.iter().flat_map(|&r| m[r as usize * k..][..k].to_vec()).collect::<Vec<f64>>()
                };
                let plain = Reference::new(network);
                let mut scratch = vec![f64::NAN; potential.hvp_scratch_len()];
                let mut hv = vec![f64::NAN; d];
                for (chosen, x, y) in
                    [(None, x.clone(), y.clone()), (Some(&rows[..]), pick(&x, 3), pick(&y, 2))]
                {
                    potential.hvp(&w, &v, chosen, &mut hv, &mut scratch);
                    let h = 1e-6;
                    let gradient = |step: f64| {
                        let w: Vec<f64> = w.iter().zip(&v).map(|(w, v)| w + step * v).collect();
                        plain.loss_grad(&w, &x, &y, &loss).1
                    };
                    let expected: Vec<f64> =
                        gradient(h).iter().zip(&gradient(-h)).map(|(a, b)| (a - b) / (2.0 * h)).collect();
                    let scale = expected.iter().fold(0.0, |m: f64, e| m.max(e.abs()));
                    let error = hv.iter().zip(&expected).fold(0.0, |m: f64, (a, b)| m.max((a - b).abs()));
                    // h²·third derivative and ε/h·gradient are both near 1e-10; kinks of relu within
                    // h of a row's pre-activation do not occur here.
                    assert!(error <= 1e-6 * scale, "{network:?} {loss:?}: {error:e} of {scale:e}");
                }
            }
        }
    }
}
