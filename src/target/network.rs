//! The network pass: L_n(w) and its gradient for fully connected networks.
//!
//! Rows are taken in blocks small enough for all layers' activations to stay in the second-level
//! cache. A block is feature-major (see [`crate::device`]): rows are the vector axis throughout,
//! so that layers of any width run at full speed and no width needs padding. Rows beyond the data
//! in the last block are computed and given zero weight. Weights are packed once a pass; gradients
//! are summed over blocks in order, losses within a block by lanes and over blocks in `f64`.

mod tangent;

use std::ops::Range;

use super::elementwise::{self as el, RowLoss, Shape};
use super::layout::{Layer, layers};
use super::potential::Potential;
use crate::config::{Activation, Loss, Network};
use crate::device::{
    Arith, Element, Start, accumulate_outer, accumulate_row_sums, lanes, matmul, pack_rows, pack_transposed,
    packed_len,
};

/// Rows of a block: 128 rows of a few 64-wide layers in `f64` fill half of a 512 KiB cache.
const BLOCK: usize = 128;

/// The empirical loss of a network on a data set.
pub struct NetworkPotential<T: Element> {
    layers: Vec<Layer>,
    dim: usize,
    activation: Activation,
    loss: RowLoss<T>,
    n: usize,
    /// All rows as blocks of inputs and of outputs, feature-major.
    x: Vec<T>,
    y: Vec<T>,
    /// Rows of X and Y side by side, for minibatches.
    rows: Vec<T>,
    plan: Plan,
    arith: Arith,
}

/// Where each layer's part stands in the regions of a scratch slice, and the regions' lengths.
#[derive(Clone, Debug, Default)]
struct Plan {
    /// Leading dimension of every block.
    ld: usize,
    packed: Vec<Range<usize>>,
    packed_t: Vec<Range<usize>>,
    /// Blocks of one layer: output, kept derivative, ẑ; the same offsets in each region.
    block: Vec<Range<usize>>,
    packed_len: usize,
    packed_t_len: usize,
    blocks_len: usize,
    widest: usize,
    keeps: bool,
    norm: bool,
}

/// A scratch slice cut into its regions.
struct Regions<'s, T> {
    packed: &'s mut [T],
    packed_t: &'s mut [T],
    /// Output of each layer.
    out: &'s mut [T],
    /// φ' of each layer, where it cannot be told from the output.
    kept: &'s mut [T],
    /// ẑ of each layer.
    hat: &'s mut [T],
    /// 1/σ of each row, a layer.
    rstd: &'s mut [T],
    /// Gradient with respect to each layer's output.
    delta: &'s mut [T],
    /// Gradient with respect to one pre-activation.
    dz: &'s mut [T],
    /// A gathered block of inputs and outputs.
    batch: &'s mut [T],
}

impl Plan {
    fn new<T: Element>(layers: &[Layer], activation: Activation) -> Self {
        // An odd number of cache lines keeps neighbouring features out of each other's cache sets.
        let ld = BLOCK + lanes::<T>();
        let mut plan = Plan { ld, ..Plan::default() };
        for layer in layers {
            let (m, k) = (layer.outputs, layer.inputs);
            plan.packed.push(plan.packed_len..plan.packed_len + packed_len(m, k));
            plan.packed_len += packed_len(m, k);
            plan.packed_t.push(plan.packed_t_len..plan.packed_t_len + packed_len(k, m));
            plan.packed_t_len += packed_len(k, m);
            plan.block.push(plan.blocks_len..plan.blocks_len + m * ld);
            plan.blocks_len += m * ld;
            plan.widest = plan.widest.max(m);
            plan.keeps |= el::keeps_derivative(activation, layer.skip_from.is_some());
            plan.norm |= layer.norm.is_some();
        }
        plan
    }

    fn len(&self) -> usize {
        let blocks = 2 + usize::from(self.keeps) + usize::from(self.norm);
        self.packed_len
            + self.packed_t_len
            + blocks * self.blocks_len
            + self.rstd_len()
            + self.widest * self.ld
    }

    fn rstd_len(&self) -> usize {
        if self.norm { self.block.len() * self.ld } else { 0 }
    }

    fn regions<'s, T>(&self, scratch: &'s mut [T]) -> Regions<'s, T> {
        let mut rest = scratch;
        let mut take = |n: usize| rest.split_off_mut(..n).unwrap_or_default();
        Regions {
            packed: take(self.packed_len),
            packed_t: take(self.packed_t_len),
            out: take(self.blocks_len),
            kept: take(if self.keeps { self.blocks_len } else { 0 }),
            hat: take(if self.norm { self.blocks_len } else { 0 }),
            rstd: take(self.rstd_len()),
            delta: take(self.blocks_len),
            dz: take(self.widest * self.ld),
            batch: rest,
        }
    }
}

impl<T: Element> NetworkPotential<T> {
    /// The loss of `network` on `n` rows: `x` is n × inputs, `y` n × outputs, both row-major.
    ///
    /// Runs on the process's current [`Arith`].
    pub fn new(network: &Network, x: &[T], y: &[T], loss: &Loss) -> Self {
        let layers = layers(network);
        let (inputs, outputs) = (network.in_dim, network.out_dim);
        let n = x.len() / inputs;
        debug_assert_eq!(y.len(), n * outputs);
        let plan = Plan::new::<T>(&layers, network.activation);
        let blocks = n.div_ceil(BLOCK) * plan.ld;
        let mut potential = Self {
            layers,
            dim: super::layout::param_count(network),
            activation: network.activation,
            loss: RowLoss::new(loss),
            n,
            x: vec![T::ZERO; blocks * inputs],
            y: vec![T::ZERO; blocks * outputs],
            rows: Vec::with_capacity(n * (inputs + outputs)),
            plan,
            arith: Arith::current(),
        };
        for (x, y) in x.chunks_exact(inputs).zip(y.chunks_exact(outputs)) {
            potential.rows.extend_from_slice(x);
            potential.rows.extend_from_slice(y);
        }
        let ld = potential.plan.ld;
        let blocks =
            potential.x.chunks_exact_mut(inputs * ld).zip(potential.y.chunks_exact_mut(outputs * ld));
        for ((x, y), rows) in blocks.zip(potential.rows.chunks(BLOCK * (inputs + outputs))) {
            for (b, row) in rows.chunks_exact(inputs + outputs).enumerate() {
                scatter(row, (&mut *x, &mut *y), (inputs, ld), b);
            }
        }
        potential
    }

    /// The same potential on another instruction set.
    pub fn with_arith(mut self, arith: Arith) -> Self {
        self.arith = arith;
        self
    }

    /// Floating-point operations of one gradient over all rows: 6·n·Σ in·out, less the first
    /// layer's input gradient, which is not computed.
    pub fn gradient_flops(&self) -> f64 {
        let products: usize = self.layers.iter().map(|l| l.inputs * l.outputs).sum();
        let first = self.layers[0].inputs * self.layers[0].outputs;
        self.n as f64 * (6 * products - 2 * first) as f64
    }

    fn inputs(&self) -> usize {
        self.layers[0].inputs
    }

    fn outputs(&self) -> usize {
        self.layers.last().map_or(0, |l| l.outputs)
    }

    fn shape(&self, features: usize, used: usize) -> Shape {
        Shape { features, rows: used.div_ceil(lanes::<T>()) * lanes::<T>(), ld: self.plan.ld }
    }

    fn pack(&self, w: &[T], parts: &mut Regions<'_, T>, backward: bool) {
        for (l, layer) in self.layers.iter().enumerate() {
            let weights = layer.weights(w);
            let (m, k) = (layer.outputs, layer.inputs);
            pack_rows(weights, m, k, &mut parts.packed[self.plan.packed[l].clone()]);
            if backward && l > 0 {
                pack_transposed(weights, k, m, &mut parts.packed_t[self.plan.packed_t[l].clone()]);
            }
        }
    }

    /// Fills the outputs of all layers for the block `x`; `kept` only where a gradient will follow.
    fn forward(&self, w: &[T], x: &[T], parts: &mut Regions<'_, T>, used: usize, gradient: bool) {
        let plan = &self.plan;
        let last = self.layers.len() - 1;
        for (l, layer) in self.layers.iter().enumerate() {
            let shape = self.shape(layer.outputs, used);
            let (below, here) = parts.out.split_at_mut(plan.block[l].start);
            let out = &mut here[..plan.block[l].len()];
            let input = if l == 0 { x } else { &below[plan.block[l - 1].clone()] };
            let start = layer.bias.map_or(Start::Zero, |b| Start::Bias(&w[b..][..layer.outputs]));
            let packed = &parts.packed[plan.packed[l].clone()];
            matmul(
                self.arith,
                packed,
                (layer.outputs, layer.inputs),
                input,
                out,
                shape.ld,
                shape.rows,
                start,
            );
            if l == last {
                break;
            }
            if let Some(norm) = layer.norm {
                let (scale, shift) = w[norm..][..2 * layer.outputs].split_at(layer.outputs);
                let hat = &mut parts.hat[plan.block[l].clone()];
                let rstd = &mut parts.rstd[l * plan.ld..][..plan.ld];
                el::normalise(self.arith, out, hat, rstd, (scale, shift), shape);
            }
            let keeps = gradient && el::keeps_derivative(self.activation, layer.skip_from.is_some());
            let kept = keeps.then(|| &mut parts.kept[plan.block[l].clone()]);
            el::activate(self.arith, self.activation, out, kept, shape);
            match layer.skip_from {
                Some(0) => el::add(self.arith, x, out, shape),
                Some(h) => el::add(self.arith, &below[plan.block[h - 1].clone()], out, shape),
                None => {}
            }
        }
    }

    /// Adds the block's gradient to `grad`, given that with respect to the output in `delta`.
    fn backward(&self, w: &[T], x: &[T], grad: &mut [T], parts: &mut Regions<'_, T>, used: usize) {
        let (plan, arith) = (&self.plan, self.arith);
        let last = self.layers.len() - 1;
        for (l, layer) in self.layers.iter().enumerate().rev() {
            let (m, k) = (layer.outputs, layer.inputs);
            let shape = self.shape(m, used);
            let block = plan.block[l].clone();
            let (below, here) = parts.delta.split_at_mut(block.start);
            let delta = &here[..block.len()];
            let dz = &mut parts.dz[..block.len()];
            if l == last {
                dz.copy_from_slice(delta);
            } else {
                let kept = el::keeps_derivative(self.activation, layer.skip_from.is_some());
                let kept = kept.then(|| &parts.kept[block.clone()]);
                el::activation_gradient(
                    arith,
                    self.activation,
                    delta,
                    &parts.out[block.clone()],
                    kept,
                    dz,
                    shape,
                );
            }
            if let Some(norm) = layer.norm {
                let rstd = &parts.rstd[l * plan.ld..][..plan.ld];
                let (dscale, dshift) = grad[norm..][..2 * m].split_at_mut(m);
                let scale = &w[norm..][..m];
                el::normalise_gradient(arith, dz, &parts.hat[block], rstd, scale, dscale, dshift, shape);
            }
            if let Some(bias) = layer.bias {
                accumulate_row_sums(arith, dz, &mut grad[bias..][..m], m, shape.ld, shape.rows);
            }
            let input = if l == 0 { x } else { &parts.out[plan.block[l - 1].clone()] };
            let weights = &mut grad[layer.weight..][..m * k];
            accumulate_outer(arith, dz, input, weights, (m, k), shape.ld, shape.rows);
            if l > 0 {
                // Where a residual connection starts below, its share is there already.
                let shared = self.layers[l..].iter().any(|a| a.skip_from == Some(l));
                let start = if shared { Start::Keep } else { Start::Zero };
                let packed = &parts.packed_t[plan.packed_t[l].clone()];
                // The first share of a residual source is its target's whole delta.
                if let Some(h @ 1..) = layer.skip_from {
                    below[plan.block[h - 1].clone()].copy_from_slice(delta);
                }
                let below = &mut below[plan.block[l - 1].clone()];
                matmul(arith, packed, (k, m), dz, below, shape.ld, shape.rows, start);
            }
        }
    }

    /// Copies the chosen rows to the front of a block, eight rows of a feature at a time; the rest of
    /// the last pack, which gets zero weight, becomes 0.
    fn gather(&self, chosen: &[u32], x: &mut [T], y: &mut [T]) {
        let (inputs, ld) = (self.inputs(), self.plan.ld);
        let stride = inputs + self.outputs();
        let row = |r: u32| &self.rows[r as usize * stride..][..stride];
        let (eights, rest) = chosen.as_chunks::<8>();
        for (e, eight) in eights.iter().enumerate() {
            let from = eight.map(row);
            for f in 0..stride {
                let line = if f < inputs { &mut x[f * ld..] } else { &mut y[(f - inputs) * ld..] };
                line[8 * e..8 * e + 8].copy_from_slice(&from.map(|row| row[f]));
            }
        }
        for (b, &r) in (8 * eights.len()..).zip(rest) {
            scatter(row(r), (&mut *x, &mut *y), (inputs, ld), b);
        }
        let padding = chosen.len()..self.shape(1, chosen.len()).rows;
        for line in x.chunks_exact_mut(ld).chain(y.chunks_exact_mut(ld)) {
            line[padding.clone()].fill(T::ZERO);
        }
    }

    /// Loss sum of one block; adds to `grad` where there is one.
    fn block(
        &self,
        w: &[T],
        (x, y): (&[T], &[T]),
        grad: Option<(&mut [T], T)>,
        parts: &mut Regions<'_, T>,
        used: usize,
    ) -> f64 {
        self.forward(w, x, parts, used, grad.is_some());
        let shape = self.shape(self.outputs(), used);
        let out = &parts.out[self.plan.block[self.layers.len() - 1].clone()];
        match grad {
            None => self.loss.sum(self.arith, out, y, None, used, shape),
            Some((grad, weight)) => {
                let delta = &mut parts.delta[self.plan.block[self.layers.len() - 1].clone()];
                let sum = self.loss.sum(self.arith, out, y, Some((delta, weight)), used, shape);
                self.backward(w, x, grad, parts, used);
                sum
            }
        }
    }

    /// A minibatch of more rows than there are: every row of the only block, counted as often as it is
    /// drawn. Returns the loss sum and adds to `grad`.
    fn counted_block(
        &self,
        w: &[T],
        rows: &[u32],
        counts: &mut [T],
        (grad, weight): (&mut [T], T),
        parts: &mut Regions<'_, T>,
    ) -> f64 {
        counts.fill(T::ZERO);
        rows.iter().for_each(|&r| counts[r as usize] += T::ONE);
        self.forward(w, &self.x, parts, self.n, true);
        let shape = self.shape(self.outputs(), self.n);
        let block = self.plan.block[self.layers.len() - 1].clone();
        let (out, delta) = (&parts.out[block.clone()], &mut parts.delta[block]);
        let sum = self.loss.counted_sum(self.arith, out, &self.y, counts, (delta, weight), self.n, shape);
        self.backward(w, &self.x, grad, parts, self.n);
        sum
    }

    fn all_blocks(&self, w: &[T], mut grad: Option<&mut [T]>, scratch: &mut [T]) -> f64 {
        let mut parts = self.plan.regions(scratch);
        self.pack(w, &mut parts, grad.is_some());
        let count = (self.n * self.outputs()) as f64;
        let weight = T::from_f64(1.0 / count);
        let (xs, ys) = (self.inputs() * self.plan.ld, self.outputs() * self.plan.ld);
        let mut total = 0.0;
        for (i, (x, y)) in self.x.chunks_exact(xs).zip(self.y.chunks_exact(ys)).enumerate() {
            let used = BLOCK.min(self.n - i * BLOCK);
            total += self.block(w, (x, y), grad.as_deref_mut().map(|g| (g, weight)), &mut parts, used);
        }
        total / count
    }
}

/// Writes one row of X and Y side by side into row `b` of a feature-major block.
#[inline(always)]
fn scatter<T: Copy>(row: &[T], (x, y): (&mut [T], &mut [T]), (inputs, ld): (usize, usize), b: usize) {
    for (line, &v) in x.chunks_exact_mut(ld).zip(&row[..inputs]) {
        line[b] = v;
    }
    for (line, &v) in y.chunks_exact_mut(ld).zip(&row[inputs..]) {
        line[b] = v;
    }
}

impl<T: Element> Potential<T> for NetworkPotential<T> {
    fn dim(&self) -> usize {
        self.dim
    }

    fn rows(&self) -> usize {
        self.n
    }

    fn scratch_len(&self) -> usize {
        self.plan.len()
    }

    fn batch_scratch_len(&self, _batch: usize) -> usize {
        self.plan.len() + (self.inputs() + self.outputs()) * self.plan.ld
    }

    fn hvp(&self, w: &[T], v: &[T], rows: Option<&[u32]>, hv: &mut [T], scratch: &mut [T]) {
        self.tangent(w, v, rows, hv, scratch);
    }

    fn hvp_scratch_len(&self) -> usize {
        self.tangent_scratch_len()
    }

    fn loss(&self, w: &[T], scratch: &mut [T]) -> f64 {
        self.all_blocks(w, None, scratch)
    }

    fn loss_grad(&self, w: &[T], grad: &mut [T], scratch: &mut [T]) -> f64 {
        grad.fill(T::ZERO);
        self.all_blocks(w, Some(grad), scratch)
    }

    fn batch_loss_grad(&self, w: &[T], rows: &[u32], grad: &mut [T], scratch: &mut [T]) -> f64 {
        grad.fill(T::ZERO);
        let mut parts = self.plan.regions(scratch);
        self.pack(w, &mut parts, true);
        let (inputs, outputs, ld) = (self.inputs(), self.outputs(), self.plan.ld);
        let count = (rows.len() * outputs) as f64;
        let weight = T::from_f64(1.0 / count);
        let batch = std::mem::take(&mut parts.batch);
        if self.n <= BLOCK.min(rows.len()) {
            return self.counted_block(w, rows, &mut batch[..self.n], (grad, weight), &mut parts) / count;
        }
        let (x, y) = batch.split_at_mut(inputs * ld);
        let y = &mut y[..outputs * ld];
        let mut total = 0.0;
        for chosen in rows.chunks(BLOCK) {
            self.gather(chosen, x, y);
            total += self.block(w, (x, y), Some((&mut *grad, weight)), &mut parts, chosen.len());
        }
        total / count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::Real;
    use crate::num::rng::{Key, Purpose, fill_normal, index};
    use crate::target::{Reference, param_count};

    pub(super) fn normals<T: Real>(n: usize, stream: u32) -> Vec<T> {
        let mut x = vec![T::ZERO; n];
        fill_normal(&mut Key::new([3; 32], Purpose::Probe, stream).at(0), &mut x);
        x
    }

    pub(super) fn networks() -> Vec<Network> {
        let mut all = Vec::new();
        for activation in [Activation::Relu, Activation::Tanh, Activation::Gelu, Activation::Identity] {
            for (hidden, bias, layernorm, residual_period) in [
                (vec![], true, false, None),
                (vec![1], false, false, None),
                (vec![4, 4], true, false, None),
                (vec![7, 7, 5, 5], true, true, Some(1)),
                (vec![6, 6, 6, 6, 6], true, false, Some(2)),
                (vec![3, 13, 3, 3], false, true, Some(3)),
                (vec![3, 3], true, false, Some(1)),
            ] {
                all.push(Network {
                    in_dim: 3,
                    hidden,
                    out_dim: 2,
                    activation,
                    bias,
                    layernorm,
                    residual_period,
                });
            }
        }
        all
    }

    pub(super) fn losses() -> [Loss; 2] {
        [Loss::Mse, Loss::TRegression { student_df: 4.0, noise_scale: 0.3 }]
    }

    /// Largest difference of two gradients relative to the largest entry.
    fn distance<T: Real>(got: &[T], expected: &[f64]) -> f64 {
        let scale = expected.iter().fold(1e-300, |m: f64, e| m.max(e.abs()));
        got.iter().zip(expected).fold(0.0, |m: f64, (g, e)| m.max((g.to_f64() - e).abs())) / scale
    }

    fn agrees<T: Element>(tolerance: f64) {
        for (i, network) in networks().iter().enumerate() {
            for loss in losses() {
                for n in [1, 9, 128, 300] {
                    let stream = 10 * i as u32;
                    let (x, y): (Vec<T>, Vec<T>) = (normals(n * 3, stream), normals(n * 2, stream + 1));
                    // Weights of the size of a trained network's: activations stay of order 1, so that
                    // rounding is not amplified from layer to layer.
                    let w: Vec<T> = normals(param_count(network), stream + 2);
                    let w: Vec<T> = w.into_iter().map(|x| x * T::from_f64(0.4)).collect();
                    let wide = |v: &[T]| v.iter().map(|x| x.to_f64()).collect::<Vec<f64>>();
                    let plain = Reference::new(network);
                    let (expected, gradient) = plain.loss_grad(&wide(&w), &wide(&x), &wide(&y), &loss);
                    let mut rng = Key::new([3; 32], Purpose::Probe, stream + 3).at(0);
                    let rows: Vec<u32> = (0..150).map(|_| index(&mut rng, n) as u32).collect();
                    let pick = |m: &[T], k: usize| {
                        rows.iter().flat_map(|&r| wide(&m[r as usize * k..][..k])).collect::<Vec<f64>>()
                    };
                    let (batch_loss, batch_gradient) =
                        plain.loss_grad(&wide(&w), &pick(&x, 3), &pick(&y, 2), &loss);
                    let mut first: Option<(f64, Vec<T>)> = None;
                    for arith in Arith::ALL.into_iter().filter(|a| a.is_available()) {
                        let potential = NetworkPotential::new(network, &x, &y, &loss).with_arith(arith);
                        // Dirty scratch: nothing may be read before it is written.
                        let mut scratch = vec![T::from_f64(f64::NAN); potential.scratch_len()];
                        let mut grad = vec![T::ONE; w.len()];
                        let value = potential.loss_grad(&w, &mut grad, &mut scratch);
                        let at = format!("{network:?} {loss:?} n {n} {arith}");
                        assert!((value - expected).abs() <= tolerance * expected, "{at}: {value} {expected}");
                        assert!(distance(&grad, &gradient) <= tolerance, "{at}: {grad:?} {gradient:?}");
                        assert_eq!(value, potential.loss(&w, &mut scratch), "{at}");
                        let mut scratch =
                            vec![T::from_f64(f64::NAN); potential.batch_scratch_len(rows.len())];
                        let mut batch = vec![T::ONE; w.len()];
                        let value = potential.batch_loss_grad(&w, &rows, &mut batch, &mut scratch);
                        assert!((value - batch_loss).abs() <= tolerance * batch_loss, "{at}");
                        assert!(distance(&batch, &batch_gradient) <= tolerance, "{at}");
                        match &first {
                            None => first = Some((value, grad)),
                            Some(same) => assert!(*same == (value, grad), "{at}: other bits"),
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_pass_agrees_with_its_plain_definition_in_f64() {
        agrees::<f64>(1e-12);
    }

    #[test]
    fn the_pass_agrees_with_its_plain_definition_in_f32() {
        agrees::<f32>(1e-5);
    }
}
