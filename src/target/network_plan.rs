//! How the network pass of `kernels/` fits a network: shared memory laid out, rows cut into tiles and segments.
//!
//! A plan depends on the network, the number of rows, the precision and the processor's limits, never on how many chains
//! run: so a chain's bits do not depend on what runs beside it. [`NetworkPlan::to_bytes`] is the structure of the same
//! name in `kernels/plan.cuh`.

use thiserror::Error;

use super::layout::{Layer, layers, param_count};
use crate::config::{Activation, Loss, Network};
use crate::device::SharedMemory;
use crate::num::Real;

/// Most layers that a plan has room for, output layer included.
pub const MAX_LAYERS: usize = 24;
/// Threads of a block; fewer where a tile has less work than that.
const THREADS: usize = 256;
/// log₂ of the rows of a tile: what is tried, largest first.
const TILES: [usize; 4] = [7, 6, 5, 4];
/// Segments that a data set is cut into at least, if it is large enough for full tiles.
const SEGMENTS: usize = 32;
/// Tiles of a segment at most: its gradient is written once, and read once by the sum over segments.
const TILES_PER_SEGMENT: usize = 8;
/// Shared memory that the system keeps of every block's.
const RESERVED: usize = 1024;

/// Why a network has no plan.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// More layers than a plan has room for.
    #[error(
        "{layers} layers, but the device's network pass takes at most {MAX_LAYERS}: use the CPU for this target"
    )]
    TooDeep {
        /// Layers of the network.
        layers: usize,
    },
    /// Activations of the smallest tile do not fit.
    #[error(
        "activations of 16 rows take {needed} bytes of shared memory, but a block has {available}: use the CPU for this target"
    )]
    TooWide {
        /// Bytes that the smallest tile takes.
        needed: usize,
        /// Bytes that there are.
        available: usize,
    },
    /// Offsets beyond 2³¹.
    #[error("{dim} parameters are more than the device's network pass counts: use the CPU for this target")]
    TooLarge {
        /// Parameters of the network.
        dim: usize,
    },
}

/// Where a layer's parts stand. Offsets count numbers; `None` is what the layer has not.
#[derive(Clone, Debug, Default)]
struct Place {
    packed: usize,
    packed_ld: usize,
    vectors: usize,
    output: usize,
    kept: Option<usize>,
    hat: Option<usize>,
    rstd: Option<usize>,
}

/// The plan of one network on one kind of processor.
#[derive(Clone, Debug)]
pub struct NetworkPlan {
    layers: Vec<Layer>,
    places: Vec<Place>,
    dim: usize,
    activation: Activation,
    loss: Loss,
    tile_log: usize,
    ld: usize,
    segment: usize,
    threads: usize,
    packed_len: usize,
    weights_shared: bool,
    weights: usize,
    input: usize,
    pending: Option<usize>,
    losses: usize,
    shared_bytes: usize,
}

fn up_to_four(features: usize) -> usize {
    features.next_multiple_of(4)
}

impl NetworkPlan {
    /// The plan for means over `rows` rows.
    pub fn new<T: Real>(
        network: &Network,
        loss: &Loss,
        rows: usize,
        memory: SharedMemory,
    ) -> Result<Self, PlanError> {
        let plan = Self::fitting::<T>(network, loss, rows, memory)?;
        let tile = plan.tile();
        let tiles = (rows / (SEGMENTS * tile)).clamp(1, TILES_PER_SEGMENT);
        Ok(Self { segment: tile * tiles, ..plan })
    }

    /// The plan for minibatches of `batch` rows that one block of threads takes alone.
    pub fn for_batch<T: Real>(
        network: &Network,
        loss: &Loss,
        batch: usize,
        memory: SharedMemory,
    ) -> Result<Self, PlanError> {
        let plan = Self::fitting::<T>(network, loss, batch, memory)?;
        let segment = batch.next_multiple_of(plan.tile());
        Ok(Self { segment, ..plan })
    }

    /// Rows of a tile.
    pub fn tile(&self) -> usize {
        1 << self.tile_log
    }

    /// Rows of a segment, the share of one block of threads.
    pub fn segment(&self) -> usize {
        self.segment
    }

    /// Threads of a block.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Number of parameters d.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Whether the weights stand in shared memory beside the activations; else the packed weights of each chain, so
    /// many numbers as [`packed_len`](Self::packed_len), stand in global memory.
    pub fn weights_are_shared(&self) -> bool {
        self.weights_shared
    }

    /// Numbers of one chain's packed weights.
    pub fn packed_len(&self) -> usize {
        self.packed_len
    }

    /// Shared memory of a block, in bytes.
    pub fn shared_bytes(&self) -> usize {
        self.shared_bytes
    }

    /// The structure that the kernels take.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (half, width) = match self.loss {
            Loss::Mse => (0.0, 0.0),
            Loss::TRegression { student_df, noise_scale } => {
                (0.5 * (student_df + 1.0), student_df * noise_scale * noise_scale)
            }
        };
        let activation = match self.activation {
            Activation::Relu => 0,
            Activation::Tanh => 1,
            Activation::Gelu => 2,
            Activation::Identity => 3,
        };
        let (first, last) = (&self.layers[0], &self.layers[self.layers.len() - 1]);
        let mut bytes = Bytes::default();
        bytes.numbers([self.layers.len(), self.dim, first.inputs, last.outputs]);
        bytes.numbers([activation, usize::from(matches!(self.loss, Loss::TRegression { .. }))]);
        bytes.numbers([self.tile_log, self.ld, self.segment, self.threads, self.packed_len]);
        bytes.numbers([usize::from(self.weights_shared), self.weights, self.input]);
        bytes.optional([self.pending]);
        bytes.numbers([self.losses, self.shared_bytes, 0]);
        bytes.0.extend(half.to_ne_bytes());
        bytes.0.extend(width.to_ne_bytes());
        for (l, (layer, place)) in self.layers.iter().zip(&self.places).enumerate() {
            bytes.numbers([layer.inputs, layer.outputs, layer.weight]);
            bytes.optional([layer.bias, layer.norm, layer.skip_from]);
            let goes_on = self.layers.iter().any(|above| above.skip_from == Some(l + 1));
            bytes.numbers([usize::from(goes_on), place.packed, place.packed_ld, place.vectors, place.output]);
            bytes.optional([place.kept, place.hat, place.rstd]);
        }
        let unused = MAX_LAYERS - self.layers.len();
        bytes.numbers(std::iter::repeat_n(0, 14 * unused));
        bytes.0
    }

    fn fitting<T: Real>(
        network: &Network,
        loss: &Loss,
        rows: usize,
        memory: SharedMemory,
    ) -> Result<Self, PlanError> {
        let count = layers(network).len();
        if count > MAX_LAYERS {
            return Err(PlanError::TooDeep { layers: count });
        }
        let dim = param_count(network);
        // Packed weights take at most eight numbers for one where layers are one wide.
        if dim > 1 << 27 {
            return Err(PlanError::TooLarge { dim });
        }
        // A tile beyond the rows that there are is work for nothing.
        let enough = rows.next_power_of_two().trailing_zeros() as usize;
        let tiles = TILES.into_iter().filter(|&t| t <= enough.max(TILES[3]));
        let pair = memory.multiprocessor / 2 - RESERVED;
        for shared in [true, false] {
            // Two blocks on a multiprocessor hide each other's waiting, if their tiles need not be tiny for it.
            let twice = tiles.clone().filter(|&t| t > TILES[3]).map(|t| (t, pair));
            for (tile, limit) in twice.chain(tiles.clone().map(|t| (t, memory.block))) {
                let plan = Self::laid_out::<T>(network, loss, tile, shared);
                if plan.shared_bytes <= limit {
                    return Ok(plan);
                }
            }
        }
        let needed = Self::laid_out::<T>(network, loss, TILES[3], false).shared_bytes;
        Err(PlanError::TooWide { needed, available: memory.block })
    }

    fn laid_out<T: Real>(network: &Network, loss: &Loss, tile_log: usize, weights_shared: bool) -> Self {
        let layers = layers(network);
        let tile = 1 << tile_log;
        let ld = tile + 4;
        let widest = layers.iter().map(|l| up_to_four(l.outputs)).max().unwrap_or(4);
        let mut places = vec![Place::default(); layers.len()];
        let mut packed_len = 0;
        for (place, layer) in places.iter_mut().zip(&layers) {
            place.packed = packed_len;
            // An odd multiple of four: neighbouring rows lie in other banks.
            place.packed_ld = up_to_four(layer.inputs) | 4;
            place.vectors = packed_len + layer.outputs * place.packed_ld;
            packed_len = place.vectors + 3 * up_to_four(layer.outputs);
        }
        let mut next = if weights_shared { packed_len } else { 0 };
        let mut take = |numbers: usize| {
            let at = next;
            next += numbers;
            at
        };
        let input = take(up_to_four(network.in_dim) * ld);
        for (place, layer) in places.iter_mut().zip(&layers) {
            let block = up_to_four(layer.outputs) * ld;
            place.output = take(block);
            let keeps = layer.hidden
                && match network.activation {
                    Activation::Gelu => true,
                    Activation::Relu | Activation::Tanh => layer.skip_from.is_some(),
                    Activation::Identity => false,
                };
            place.kept = keeps.then(|| take(block));
            if layer.norm.is_some() {
                place.hat = Some(take(block));
                place.rstd = Some(take(tile));
            }
        }
        let along = layers.iter().filter(|l| l.skip_from.is_some_and(|h| h > 0));
        let pending = along.map(|l| up_to_four(l.outputs) * ld).max().map(&mut take);
        let size = size_of::<T>();
        let losses = (next * size).next_multiple_of(16);
        // At one feature by four rows a thread, more threads than that have nothing to do.
        let threads = (widest * tile / 4).next_power_of_two().clamp(64, THREADS);
        Self {
            dim: param_count(network),
            activation: network.activation,
            loss: loss.clone(),
            segment: tile,
            weights: 0,
            shared_bytes: losses + threads * size_of::<f64>(),
            layers,
            places,
            tile_log,
            ld,
            threads,
            packed_len,
            weights_shared,
            input,
            pending,
            losses,
        }
    }
}

/// Integers as the kernels read them.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    /// −1 stands for what is not there. All numbers of a plan are below 2³¹: `fitting` sees to it.
    fn optional(&mut self, numbers: impl IntoIterator<Item = Option<usize>>) {
        for number in numbers {
            self.0.extend(number.map_or(-1, |n| n as i32).to_ne_bytes());
        }
    }

    fn numbers(&mut self, numbers: impl IntoIterator<Item = usize>) {
        self.optional(numbers.into_iter().map(Some));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(in_dim: usize, hidden: &[usize], out_dim: usize) -> Network {
        Network {
            in_dim,
            hidden: hidden.to_vec(),
            out_dim,
            activation: Activation::Relu,
            bias: true,
            layernorm: false,
            residual_period: None,
        }
    }

    #[test]
    fn tiles_and_place_of_the_weights_follow_from_what_fits() {
        let cases = [
            // network, rows, tile, segment, weights in shared memory
            (network(10, &[64, 64], 1), 20_000, 128, 4 * 128, true),
            (network(10, &[64, 64], 1), 1_000, 128, 128, true),
            (network(10, &[64, 64], 1), 100, 128, 128, true),
            (network(2, &[4], 1), 20, 32, 32, true),
            // Weights of 75 KiB leave room for one block alone: its tile is the largest that fits.
            (network(10, &[128, 128], 1), 20_000, 128, 4 * 128, true),
            // 468 KiB of weights; 64 rows of 1052 features take 279 KiB.
            (network(784, &[128, 128], 10), 60_000, 32, 8 * 32, false),
        ];
        for (network, rows, tile, segment, shared) in cases {
            let plan =
                NetworkPlan::new::<f32>(&network, &Loss::Mse, rows, SharedMemory::SM_90).expect("fits");
            assert_eq!(
                (plan.tile(), plan.segment(), plan.weights_are_shared()),
                (tile, segment, shared),
                "{network:?} {rows}: {} bytes",
                plan.shared_bytes()
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_numbers() {
        let deep = network(2, &[4; 24], 1);
        let plan = |network, memory| NetworkPlan::new::<f64>(network, &Loss::Mse, 1000, memory).map(|_| ());
        assert_eq!(plan(&deep, SharedMemory::SM_90), Err(PlanError::TooDeep { layers: 25 }));
        let wide = network(100, &[1000], 1);
        let bytes = (100 + 1000 + 4) * (16 + 4) * 8 + 256 * 8;
        assert!(bytes < SharedMemory::SM_90.block && bytes > SharedMemory::SM_80.block);
        assert_eq!(plan(&wide, SharedMemory::SM_90), Ok(()));
        let refused = PlanError::TooWide { needed: bytes, available: 163 << 10 };
        assert_eq!(plan(&wide, SharedMemory::SM_80), Err(refused));
        let large = network(20_000, &[20_000], 1);
        assert!(matches!(plan(&large, SharedMemory::SM_90), Err(PlanError::TooLarge { .. })));
    }

    #[test]
    fn the_structure_has_its_size_and_sixteen_byte_offsets() {
        let mut network = network(3, &[7, 7, 5, 5], 2);
        (network.layernorm, network.residual_period) = (true, Some(1));
        for loss in [Loss::Mse, Loss::TRegression { student_df: 4.0, noise_scale: 0.3 }] {
            let plan = NetworkPlan::for_batch::<f32>(&network, &loss, 50, SharedMemory::SM_80).expect("fits");
            assert_eq!(plan.segment(), 64);
            assert_eq!(plan.to_bytes().len(), 18 * 4 + 2 * 8 + MAX_LAYERS * 14 * 4);
            for place in &plan.places {
                let offsets =
                    [Some(place.packed), Some(place.packed_ld), Some(place.vectors), Some(place.output)];
                for at in offsets.into_iter().chain([place.kept, place.hat, place.rstd]).flatten() {
                    assert_eq!(at % 4, 0, "{place:?}");
                }
                assert_eq!(place.packed_ld / 4 % 2, 1, "{place:?}");
            }
        }
    }
}
