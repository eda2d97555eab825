//! Where each layer's parameters lie in the flat vector w.
//!
//! For each hidden layer: W (outputs × inputs, row-major), then b if the network has biases, then
//! scale and shift if it has layer normalisation; at last the output layer's W and b.

use crate::config::Network;

/// One layer: its shape and the offsets of its parameters in w.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Width of what enters.
    pub inputs: usize,
    /// Width of what leaves.
    pub outputs: usize,
    /// Offset of W, `outputs × inputs`, row-major.
    pub weight: usize,
    /// Offset of b, `outputs` long.
    pub bias: Option<usize>,
    /// Offset of the layer normalisation's scale, `outputs` long; the shift follows it at once.
    pub norm: Option<usize>,
    /// The activation a_i (a_0 is x) that is added to this layer's activation.
    pub skip_from: Option<usize>,
    /// Whether an activation follows; false for the output layer alone.
    pub hidden: bool,
}

impl Layer {
    /// This layer's W within w.
    pub fn weights<'w, T>(&self, w: &'w [T]) -> &'w [T] {
        &w[self.weight..][..self.outputs * self.inputs]
    }
}

/// The layers of a network, input first, output layer last.
///
/// Hidden layers are numbered from 1. With `residual_period: Some(p)`, the activation that entered
/// layer l − p + 1 is added to the activation of every layer l divisible by p, provided that both
/// have the same width; otherwise that layer has no skip.
pub fn layers(network: &Network) -> Vec<Layer> {
    let depth = network.hidden.len();
    let width = |l: usize| match l {
        0 => network.in_dim,
        l if l <= depth => network.hidden[l - 1],
        _ => network.out_dim,
    };
    let mut next = 0;
    let mut take = |count: usize| {
        let start = next;
        next += count;
        start
    };
    (1..=depth + 1)
        .map(|l| {
            let (inputs, outputs, hidden) = (width(l - 1), width(l), l <= depth);
            let skip_from = network
                .residual_period
                .filter(|&p| hidden && p > 0 && l % p == 0 && width(l - p) == outputs)
                .map(|p| l - p);
            Layer {
                inputs,
                outputs,
                weight: take(outputs * inputs),
                bias: network.bias.then(|| take(outputs)),
                norm: (network.layernorm && hidden).then(|| take(2 * outputs)),
                skip_from,
                hidden,
            }
        })
        .collect()
}

/// Number of parameters d.
pub fn param_count(network: &Network) -> usize {
    layers(network)
        .iter()
        .map(|l| {
            let vectors = usize::from(l.bias.is_some()) + 2 * usize::from(l.norm.is_some());
            l.outputs * (l.inputs + vectors)
        })
        .sum()
}
