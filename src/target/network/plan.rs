//! Where the blocks of a pass lie in memory.

use std::ops::{Deref, DerefMut, Range};

use crate::config::Activation;
use crate::device::{Element, lanes, packed_len};
use crate::target::elementwise as el;
use crate::target::layout::Layer;

/// Rows of a block: those of a few 64-wide layers fill half of a 512 KiB cache.
pub(super) const fn block_rows<T: Element>() -> usize {
    16 * lanes::<T>()
}

/// Where each layer's part stands in the regions of a scratch slice, and the regions' lengths.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    /// Leading dimension of every block.
    pub ld: usize,
    pub packed: Vec<Range<usize>>,
    /// Blocks of one layer: output, kept derivative, ẑ; the same offsets in each region.
    pub block: Vec<Range<usize>>,
    pub packed_len: usize,
    pub blocks_len: usize,
    pub widest: usize,
    /// Numbers that may have to be left out until blocks start at a cache line.
    slack: usize,
    keeps: bool,
    norm: bool,
}

/// A scratch slice cut into its regions.
pub(super) struct Regions<'s, T> {
    /// Output of each layer.
    pub out: &'s mut [T],
    /// φ' of each layer, where it cannot be told from the output.
    pub kept: &'s mut [T],
    /// ẑ of each layer.
    pub hat: &'s mut [T],
    /// 1/σ of each row, a layer.
    pub rstd: &'s mut [T],
    /// Gradient with respect to each layer's output, or where nothing else needs that to its
    /// pre-activation.
    pub delta: &'s mut [T],
    /// Gradient with respect to one pre-activation.
    pub dz: &'s mut [T],
    /// A gathered block of inputs and outputs.
    pub batch: &'s mut [T],
    /// The weights, transposed.
    pub packed: &'s mut [T],
}

impl Plan {
    pub fn new<T: Element>(layers: &[Layer], activation: Activation) -> Self {
        // An odd number of cache lines keeps neighbouring features out of each other's cache sets.
        let ld = block_rows::<T>() + lanes::<T>();
        let mut plan = Plan { ld, slack: lanes::<T>() - 1, ..Plan::default() };
        for (l, layer) in layers.iter().enumerate() {
            let (m, k) = (layer.outputs, layer.inputs);
            // Nothing goes back through the first layer.
            let packed = if l == 0 { 0 } else { packed_len(k, m) };
            plan.packed.push(plan.packed_len..plan.packed_len + packed);
            plan.packed_len += packed;
            plan.block.push(plan.blocks_len..plan.blocks_len + m * ld);
            plan.blocks_len += m * ld;
            plan.widest = plan.widest.max(m);
            plan.keeps |= el::keeps_derivative(activation, layer.skip_from.is_some());
            plan.norm |= layer.norm.is_some();
        }
        plan
    }

    /// Length of a scratch slice that has room for blocks of `batch` features beside the layers'.
    pub fn len(&self, batch: usize) -> usize {
        let blocks = 2 + usize::from(self.keeps) + usize::from(self.norm);
        let lines = self.rstd_lines() + self.widest + batch;
        self.slack + blocks * self.blocks_len + lines * self.ld + self.packed_len
    }

    fn rstd_lines(&self) -> usize {
        if self.norm { self.block.len() } else { 0 }
    }

    /// Cuts a slice of [`len`](Plan::len) numbers.
    pub fn regions<'s, T>(&self, scratch: &'s mut [T], batch: usize) -> Regions<'s, T> {
        let mut take = self.cutter(scratch);
        Regions {
            out: take(self.blocks_len),
            kept: take(if self.keeps { self.blocks_len } else { 0 }),
            hat: take(if self.norm { self.blocks_len } else { 0 }),
            rstd: take(self.rstd_lines() * self.ld),
            delta: take(self.blocks_len),
            dz: take(self.widest * self.ld),
            batch: take(batch * self.ld),
            packed: take(self.packed_len),
        }
    }

    /// Length of the scratch slice of a Hessian-vector product.
    pub fn tangent_len(&self, blocks: usize, batch: usize) -> usize {
        let lines = 2 * self.block.len() + 2 * self.widest + batch;
        self.slack + blocks * self.blocks_len + lines * self.ld + 2 * self.packed_len
    }

    /// A function that cuts regions off the front of `scratch`, the first at the start of a cache
    /// line. So do all others start there as long as lengths are multiples of `ld`.
    pub fn cutter<'s, T>(&self, scratch: &'s mut [T]) -> impl FnMut(usize) -> &'s mut [T] {
        let start = from_line(scratch).min(self.slack);
        let mut rest = &mut scratch[start..];
        move |n| rest.split_off_mut(..n).unwrap_or_default()
    }
}

/// Number of elements before the first that starts a cache line.
fn from_line<T>(slice: &[T]) -> usize {
    slice.as_ptr().align_offset(64)
}

/// Numbers of which the first starts a cache line: a pack that straddles two takes two loads.
pub(super) struct Aligned<T> {
    numbers: Vec<T>,
    start: usize,
}

impl<T: Element> Aligned<T> {
    pub fn zeros(n: usize) -> Self {
        let slack = lanes::<T>() - 1;
        let mut numbers = vec![T::ZERO; n + slack];
        let start = from_line(&numbers).min(slack);
        numbers.truncate(start + n);
        Self { numbers, start }
    }
}

impl<T> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.numbers[self.start..]
    }
}

impl<T> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.numbers[self.start..]
    }
}
