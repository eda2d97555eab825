//! Small masked networks that turn the first coordinates of a layer into the parameters of the later
//! ones' transforms (Germain et al. 2015), with their reverse pass.
//!
//! Every unit has a degree; a hidden unit sees units of its own degree or less, an output hidden units of
//! a smaller degree only. Coupling (Dinh et al. 2017) is the case of two degrees. Hidden units are tanh;
//! outputs linear, their weights starting at 0.

use rand_chacha::ChaCha8Rng;

use crate::device::fill_normal;

/// One network: the layer widths and which weights exist.
pub struct Conditioner {
    widths: Vec<usize>,
    /// 1 or 0 for every weight, layer by layer, rows by outputs.
    masks: Vec<f64>,
}

/// Which coordinates a coordinate's transform may depend on.
pub enum Order {
    /// On those before it, from the first on or from the last.
    Autoregressive {
        /// From the last on.
        reversed: bool,
    },
    /// Every other coordinate on the rest.
    Coupling {
        /// Whether the odd ones are transformed by the even ones.
        odd: bool,
    },
}

impl Conditioner {
    /// From `inputs` coordinates to `each` parameters for each of them.
    pub fn new(inputs: usize, hidden: &[usize], each: usize, order: &Order) -> Self {
        let degrees: Vec<usize> = (0..inputs)
            .map(|i| match order {
                Order::Autoregressive { reversed: false } => i + 1,
                Order::Autoregressive { reversed: true } => inputs - i,
                Order::Coupling { odd } => 1 + usize::from((i % 2 == 1) == *odd),
            })
            .collect();
        let most = degrees.iter().copied().max().unwrap_or(0).saturating_sub(1);
        let hidden_degree = |j: usize| if most == 0 { 0 } else { 1 + j % most };
        let widths: Vec<usize> =
            std::iter::once(inputs).chain(hidden.iter().copied()).chain([inputs * each]).collect();
        let mut masks = Vec::new();
        for layer in 1..widths.len() {
            for o in 0..widths[layer] {
                for i in 0..widths[layer - 1] {
                    let from = if layer == 1 { degrees[i] } else { hidden_degree(i) };
                    let open = if layer + 1 == widths.len() {
                        from < degrees[o / each]
                    } else {
                        from <= hidden_degree(o)
                    };
                    masks.push(if open { 1.0 } else { 0.0 });
                }
            }
        }
        Self { widths, masks }
    }

    /// Weights and biases.
    pub fn parameters(&self) -> usize {
        self.masks.len() + self.widths[1..].iter().sum::<usize>()
    }

    /// Numbers that a forward pass keeps: inputs, hidden units, outputs.
    pub fn kept(&self) -> usize {
        self.widths.iter().sum()
    }

    /// Widest layer.
    pub fn widest(&self) -> usize {
        self.widths.iter().copied().max().unwrap_or(0)
    }

    /// Where the outputs stand among what is kept.
    pub fn outputs(&self) -> std::ops::Range<usize> {
        let last = self.widths.last().copied().unwrap_or(0);
        self.kept() - last..self.kept()
    }

    /// Hidden weights of variance 1/inputs, everything else 0.
    pub fn start(&self, theta: &mut [f64], rng: &mut ChaCha8Rng) {
        theta.fill(0.0);
        let mut at = 0;
        for pair in self.widths[..self.widths.len() - 1].windows(2) {
            let weights = &mut theta[at..at + pair[0] * pair[1]];
            fill_normal(rng, weights);
            let scale = 1.0 / (pair[0] as f64).sqrt();
            weights.iter_mut().for_each(|w| *w *= scale);
            at += pair[0] * pair[1] + pair[1];
        }
    }

    /// Sizes of steps: 1/√inputs for weights, 1 for biases.
    pub fn units(&self, out: &mut [f64]) {
        let mut at = 0;
        for pair in self.widths.windows(2) {
            let weights = pair[0] * pair[1];
            out[at..at + weights].fill(1.0 / (pair[0] as f64).sqrt());
            out[at + weights..at + weights + pair[1]].fill(1.0);
            at += weights + pair[1];
        }
    }

    /// Fills `kept`, whose first numbers are the inputs.
    pub fn forward(&self, theta: &[f64], kept: &mut [f64]) {
        let (mut at, mut mask_at, mut unit) = (0, 0, 0);
        for (layer, pair) in self.widths.windows(2).enumerate() {
            let (inputs, outputs) = (pair[0], pair[1]);
            let (before, after) = kept[unit..].split_at_mut(inputs);
            let linear = layer + 2 == self.widths.len();
            for (o, out) in after[..outputs].iter_mut().enumerate() {
                let row = at + o * inputs..at + (o + 1) * inputs;
                let masks = &self.masks[mask_at + o * inputs..mask_at + (o + 1) * inputs];
                let mut sum = theta[at + inputs * outputs + o];
                for ((w, m), x) in theta[row].iter().zip(masks).zip(before.iter()) {
                    sum += w * m * x;
                }
                *out = if linear { sum } else { libm::tanh(sum) };
            }
            at += inputs * outputs + outputs;
            mask_at += inputs * outputs;
            unit += inputs;
        }
    }

    /// From the cotangents of the outputs (in `cotangents`, spoilt) adds those of the weights to `out` and
    /// those of the inputs to `by_inputs`. `cotangents` and `room` are as long as the widest layer.
    pub fn backward(
        &self,
        theta: &[f64],
        kept: &[f64],
        cotangents: &mut [f64],
        room: &mut [f64],
        out: &mut [f64],
        by_inputs: &mut [f64],
    ) {
        let (mut at, mut mask_at, mut unit) = (self.parameters(), self.masks.len(), self.kept());
        unit -= self.widths.last().copied().unwrap_or(0);
        for layer in (1..self.widths.len()).rev() {
            let (inputs, outputs) = (self.widths[layer - 1], self.widths[layer]);
            at -= inputs * outputs + outputs;
            mask_at -= inputs * outputs;
            unit -= inputs;
            let before = &kept[unit..unit + inputs];
            if layer + 1 < self.widths.len() {
                let after = &kept[unit + inputs..unit + inputs + outputs];
                cotangents.iter_mut().zip(after).for_each(|(c, y)| *c *= 1.0 - y * y);
            }
            room[..inputs].fill(0.0);
            for o in 0..outputs {
                let c = cotangents[o];
                out[at + inputs * outputs + o] += c;
                let row = at + o * inputs..at + (o + 1) * inputs;
                let masks = &self.masks[mask_at + o * inputs..mask_at + (o + 1) * inputs];
                let sources = before.iter().zip(masks).zip(&theta[row.clone()]);
                for ((out, r), ((x, m), w)) in out[row].iter_mut().zip(&mut *room).zip(sources) {
                    *out += c * m * x;
                    *r += c * m * w;
                }
            }
            cotangents[..inputs].copy_from_slice(&room[..inputs]);
        }
        by_inputs.iter_mut().zip(cotangents.iter()).for_each(|(b, c)| *b += c);
    }
}
