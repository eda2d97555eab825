//! The network pass: L_n(w) and its gradient for fully connected networks.
//!
//! Rows are taken in blocks small enough for all layers' activations to stay in the second-level
//! cache. A block is feature-major (see [`crate::device`]): rows are the vector axis throughout,
//! so that layers of any width run at full speed and no width needs padding. Rows beyond the data
//! in the last block are computed and given zero weight. Weights for the way back are packed once a
//! pass; gradients are summed over blocks in order, losses within a block by lanes and over blocks
//! in `f64`.

mod plan;
mod tangent;

use plan::{Aligned, Plan, Regions, block_rows};

use super::elementwise::{self as el, RowLoss, Shape};
use super::layout::{Layer, layers};
use super::potential::Potential;
use crate::config::{Activation, Loss, Network};
use crate::device::{
    Arith, Element, End, Product, Rows, Start, Weights, accumulate_outer, accumulate_row_sums, lanes, matmul,
    pack_transposed,
};

/// The empirical loss of a network on a data set.
pub struct NetworkPotential<T: Element> {
    layers: Vec<Layer>,
    dim: usize,
    activation: Activation,
    loss: RowLoss<T>,
    n: usize,
    /// All rows as blocks of inputs and of outputs, feature-major.
    x: Aligned<T>,
    y: Aligned<T>,
    /// Rows of X and Y side by side, for minibatches.
    rows: Vec<T>,
    plan: Plan,
    arith: Arith,
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
        let blocks = n.div_ceil(block_rows::<T>()) * plan.ld;
        let mut potential = Self {
            layers,
            dim: super::layout::param_count(network),
            activation: network.activation,
            loss: RowLoss::new(loss),
            n,
            x: Aligned::zeros(blocks * inputs),
            y: Aligned::zeros(blocks * outputs),
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
        for ((x, y), rows) in blocks.zip(potential.rows.chunks(block_rows::<T>() * (inputs + outputs))) {
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

    /// The weights of all layers but the first, transposed, for the way back.
    fn pack(&self, w: &[T], packed: &mut [T]) {
        for (layer, range) in self.layers.iter().zip(&self.plan.packed).skip(1) {
            pack_transposed(layer.weights(w), layer.inputs, layer.outputs, &mut packed[range.clone()]);
        }
    }

    /// Whether the gradient through the activation of a hidden layer is taken by [`End::Where`] as
    /// that with respect to its output is made. A residual target's is needed as it was.
    fn gated(&self, layer: &Layer) -> bool {
        self.activation == Activation::Relu && layer.skip_from.is_none()
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
            let keeps = gradient && el::keeps_derivative(self.activation, layer.skip_from.is_some());
            let at_once =
                layer.hidden && layer.norm.is_none() && !keeps && self.activation == Activation::Relu;
            let product = Product {
                weights: Weights::Plain(layer.weights(w)),
                size: (layer.outputs, layer.inputs),
                start: layer.bias.map_or(Start::Zero, |b| Start::Bias(&w[b..][..layer.outputs])),
                end: if at_once { End::Relu } else { End::Plain },
            };
            matmul(self.arith, product, input, out, rows_of(shape));
            if l == last {
                break;
            }
            if let Some(norm) = layer.norm {
                let (scale, shift) = w[norm..][..2 * layer.outputs].split_at(layer.outputs);
                let hat = &mut parts.hat[plan.block[l].clone()];
                let rstd = &mut parts.rstd[l * plan.ld..][..plan.ld];
                el::normalise(self.arith, out, hat, rstd, (scale, shift), shape);
            }
            if !at_once {
                let kept = keeps.then(|| &mut parts.kept[plan.block[l].clone()]);
                el::activate(self.arith, self.activation, out, kept, shape);
            }
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
        for (l, layer) in self.layers.iter().enumerate().rev() {
            let (m, k) = (layer.outputs, layer.inputs);
            let shape = self.shape(m, used);
            let rows = rows_of(shape);
            let block = plan.block[l].clone();
            let (below, here) = parts.delta.split_at_mut(block.start);
            let delta = &mut here[..block.len()];
            // The first share of a residual source is its target's whole delta.
            if let Some(h @ 1..) = layer.skip_from {
                below[plan.block[h - 1].clone()].copy_from_slice(delta);
            }
            let dz = if !layer.hidden || self.gated(layer) {
                delta
            } else {
                let kept = el::keeps_derivative(self.activation, layer.skip_from.is_some());
                let kept = kept.then(|| &parts.kept[block.clone()]);
                let dz = &mut parts.dz[..block.len()];
                let out = &parts.out[block.clone()];
                el::activation_gradient(arith, self.activation, delta, out, kept, dz, shape);
                dz
            };
            if let Some(norm) = layer.norm {
                let rstd = &parts.rstd[l * plan.ld..][..plan.ld];
                let (dscale, dshift) = grad[norm..][..2 * m].split_at_mut(m);
                let scale = &w[norm..][..m];
                el::normalise_gradient(arith, dz, &parts.hat[block], rstd, scale, dscale, dshift, shape);
            }
            if let Some(bias) = layer.bias {
                accumulate_row_sums(arith, dz, &mut grad[bias..][..m], m, rows);
            }
            let weights = &mut grad[layer.weight..][..m * k];
            if l == 0 {
                accumulate_outer(arith, dz, x, weights, (m, k), rows);
                break;
            }
            let source = plan.block[l - 1].clone();
            let input = &parts.out[source.clone()];
            accumulate_outer(arith, dz, input, weights, (m, k), rows);
            // Where a residual connection starts below, its share is there already.
            let shared = self.layers[l..].iter().any(|a| a.skip_from == Some(l));
            let product = Product {
                weights: Weights::Packed(&parts.packed[plan.packed[l].clone()]),
                size: (k, m),
                start: if shared { Start::Keep } else { Start::Zero },
                end: if self.gated(&self.layers[l - 1]) { End::Where(input) } else { End::Plain },
            };
            matmul(arith, product, dz, &mut below[source], rows);
        }
    }

    /// Copies the chosen rows to the front of a block, eight rows of a feature at a time; the rest of
    /// the last pack, which gets zero weight, becomes 0.
    #[inline(never)]
    fn gather(&self, chosen: &[u32], x: &mut [T], y: &mut [T]) {
        let (inputs, ld) = (self.inputs(), self.plan.ld);
        let stride = inputs + self.outputs();
        let row = |r: u32| &self.rows[r as usize * stride..][..stride];
        let (eights, rest) = chosen.as_chunks::<8>();
        for (e, eight) in eights.iter().enumerate() {
            let (mut from, mut targets) = ([&self.rows[..0]; 8], [&mut x[8 * e..], &mut y[8 * e..]]);
            for (from, &r) in from.iter_mut().zip(eight) {
                *from = row(r);
            }
            let mut f = 0;
            for (target, features) in targets.iter_mut().zip([inputs, stride - inputs]) {
                for line in target.chunks_mut(ld).take(features) {
                    let mut values = [T::ZERO; 8];
                    for (value, row) in values.iter_mut().zip(&from) {
                        *value = row[f];
                    }
                    line[..8].copy_from_slice(&values);
                    f += 1;
                }
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
        let mut parts = self.plan.regions(scratch, 0);
        if grad.is_some() {
            self.pack(w, parts.packed);
        }
        let count = (self.n * self.outputs()) as f64;
        let weight = T::from_f64(1.0 / count);
        let (xs, ys) = (self.inputs() * self.plan.ld, self.outputs() * self.plan.ld);
        let mut total = 0.0;
        for (i, (x, y)) in self.x.chunks_exact(xs).zip(self.y.chunks_exact(ys)).enumerate() {
            let used = block_rows::<T>().min(self.n - i * block_rows::<T>());
            total += self.block(w, (x, y), grad.as_deref_mut().map(|g| (g, weight)), &mut parts, used);
        }
        total / count
    }
}

fn rows_of(shape: Shape) -> Rows {
    Rows { ld: shape.ld, count: shape.rows }
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
        self.plan.len(0)
    }

    fn batch_scratch_len(&self, _batch: usize) -> usize {
        self.plan.len(self.inputs() + self.outputs())
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
        let mut parts = self.plan.regions(scratch, self.inputs() + self.outputs());
        self.pack(w, parts.packed);
        let (inputs, outputs, ld) = (self.inputs(), self.outputs(), self.plan.ld);
        let count = (rows.len() * outputs) as f64;
        let weight = T::from_f64(1.0 / count);
        let batch = std::mem::take(&mut parts.batch);
        if self.n <= block_rows::<T>().min(rows.len()) {
            return self.counted_block(w, rows, &mut batch[..self.n], (grad, weight), &mut parts) / count;
        }
        let (x, y) = batch.split_at_mut(inputs * ld);
        let mut total = 0.0;
        for chosen in rows.chunks(block_rows::<T>()) {
            self.gather(chosen, x, y);
            total += self.block(w, (x, y), Some((&mut *grad, weight)), &mut parts, chosen.len());
        }
        total / count
    }
}

#[cfg(test)]
mod tests;
