//! What every sampler is, and the driver that turns one into a chain.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Posterior, SamplerError};
use crate::device::Element;
use crate::num::rng::Key;
use crate::resume::{Desk, Progress};
use crate::trace::{ChainTrace, Column};

/// Buffers that a kernel works in; nothing in them outlives an iteration.
#[derive(Debug, Default)]
pub struct Scratch<T> {
    /// A point.
    pub w: Vec<T>,
    /// A gradient.
    pub grad: Vec<T>,
    /// A momentum, or noise.
    pub p: Vec<T>,
    /// Rows of a minibatch.
    pub rows: Vec<u32>,
    /// Vectors that only this kernel needs (see [`Kernel::extra`]).
    pub extra: Vec<Vec<T>>,
    /// Vectors in double precision that only this kernel needs (see [`Kernel::work`]).
    pub work: Vec<Vec<f64>>,
    /// The potential's own, long enough for every call on it.
    pub potential: Vec<T>,
}

impl<T: Element> Scratch<T> {
    /// Buffers for a kernel on a posterior.
    pub fn of<K: Kernel<T>>(kernel: &K, posterior: &Posterior<'_, T>) -> Self {
        let extra = kernel.extra(posterior.dim()).into_iter().map(|n| vec![T::ZERO; n]).collect();
        let work = kernel.work(posterior.dim()).into_iter().map(|n| vec![0.0; n]).collect();
        Self { extra, work, ..Self::batched(posterior, kernel.batch()) }
    }

    /// Buffers for full gradients.
    pub fn plain(posterior: &Posterior<'_, T>) -> Self {
        Self::batched(posterior, 0)
    }

    /// Buffers for full gradients and minibatches of `batch` rows.
    pub fn batched(posterior: &Posterior<'_, T>, batch: usize) -> Self {
        let d = posterior.dim();
        let potential = posterior.potential();
        let len = potential.scratch_len().max(potential.hvp_scratch_len());
        let len = len.max(if batch > 0 { potential.batch_scratch_len(batch) } else { 0 });
        Self {
            w: vec![T::ZERO; d],
            grad: vec![T::ZERO; d],
            p: vec![T::ZERO; d],
            rows: vec![0; if potential.rows() > 0 { batch } else { 0 }],
            extra: Vec::new(),
            work: Vec::new(),
            potential: vec![T::ZERO; len],
        }
    }
}

/// A Markov kernel: serialisable state plus a step whose random numbers are a pure function of
/// (key, iteration).
pub trait Kernel<T: Element> {
    /// Everything a restart needs, and no generator.
    type State: Serialize + DeserializeOwned + Clone;

    /// Names and places of the numbers of a draw.
    fn layout(&self) -> Vec<Column>;

    /// Rows of a minibatch; 0 where only full gradients are used.
    fn batch(&self) -> usize {
        0
    }

    /// Lengths of the vectors of [`Scratch::extra`] on a posterior of dimension `dim`.
    fn extra(&self, _dim: usize) -> Vec<usize> {
        Vec::new()
    }

    /// Lengths of the vectors of [`Scratch::work`] on a posterior of dimension `dim`.
    fn work(&self, _dim: usize) -> Vec<usize> {
        Vec::new()
    }

    /// Iterations in all, and how many of them belong to the burn-in.
    fn iterations(&self) -> Iterations;

    /// The state at w*.
    fn start(
        &self,
        posterior: &Posterior<'_, T>,
        scratch: &mut Scratch<T>,
    ) -> Result<Self::State, SamplerError>;

    /// One iteration. Where it ends in a draw, `row` is filled (one number a column) and the answer
    /// is true. Allocates nothing.
    fn step(
        &self,
        posterior: &Posterior<'_, T>,
        state: &mut Self::State,
        iteration: u64,
        key: &Key,
        scratch: &mut Scratch<T>,
        row: &mut [f64],
    ) -> Result<bool, SamplerError>;

    /// Work so far in full gradients.
    fn fge(&self, state: &Self::State) -> f64;

    /// Iterations between two looks up from the work.
    fn stride(&self) -> u64 {
        64
    }
}

/// Length of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Iterations {
    /// Dropped at the start.
    pub burn_in: u64,
    /// In all.
    pub total: u64,
    /// Draws kept.
    pub draws: usize,
}

impl Iterations {
    /// `draws` iterations, each a draw, after `burn_in` that are dropped.
    pub fn dropping(burn_in: usize, draws: usize) -> Self {
        Self { burn_in: burn_in as u64, total: (burn_in + draws) as u64, draws }
    }

    /// The same with `thin` iterations in the place of each.
    pub fn thinned(self, thin: usize) -> Self {
        let thin = thin as u64;
        Self { burn_in: self.burn_in * thin, total: self.total * thin, ..self }
    }

    /// `steps` iterations, of which `warmup` are dropped; every `every`-th of the rest is a draw.
    pub fn every(every: u64, warmup: u64, steps: u64) -> Self {
        Self { burn_in: warmup, total: steps, draws: (steps / every - warmup / every) as usize }
    }
}

/// A chain on its way: serialise it, and [`advance`](ChainRun::advance) goes on from there with the
/// same bits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChainRun<S> {
    /// The kernel's state.
    pub state: S,
    /// Iterations done.
    pub iteration: u64,
    /// Draws kept so far.
    pub trace: ChainTrace,
    /// Work of the burn-in.
    pub fge_warmup: f64,
}

impl<S> ChainRun<S> {
    /// A chain at w*.
    pub fn start<T: Element, K: Kernel<T, State = S>>(
        kernel: &K,
        posterior: &Posterior<'_, T>,
        scratch: &mut Scratch<T>,
    ) -> Result<Self, SamplerError> {
        let state = kernel.start(posterior, scratch)?;
        let trace = ChainTrace::with_capacity(kernel.layout().len(), kernel.iterations().draws);
        let fge_warmup = kernel.fge(&state);
        Ok(Self { state, iteration: 0, trace, fge_warmup })
    }

    /// Runs to the end, with a look up from the work every [`stride`](Kernel::stride) iterations.
    ///
    /// # Errors
    /// Those of the kernel, and where the work was asked to stop.
    pub fn advance<T: Element, K: Kernel<T, State = S>>(
        &mut self,
        kernel: &K,
        posterior: &Posterior<'_, T>,
        key: &Key,
        scratch: &mut Scratch<T>,
        row: &mut [f64],
        desk: &mut Desk<'_>,
    ) -> Result<(), SamplerError>
    where
        S: Serialize,
    {
        self.advance_to_draw(usize::MAX, kernel, posterior, key, scratch, row, desk)
    }

    /// [`advance`](Self::advance) to the place right after draw number `draws` (counted from 1), or to the end.
    ///
    /// # Errors
    /// As [`advance`](Self::advance).
    #[expect(clippy::too_many_arguments, reason = "one more than `advance`")]
    pub fn advance_to_draw<T: Element, K: Kernel<T, State = S>>(
        &mut self,
        draws: usize,
        kernel: &K,
        posterior: &Posterior<'_, T>,
        key: &Key,
        scratch: &mut Scratch<T>,
        row: &mut [f64],
        desk: &mut Desk<'_>,
    ) -> Result<(), SamplerError>
    where
        S: Serialize,
    {
        let (total, stride) = (kernel.iterations().total, kernel.stride());
        while self.iteration < total && self.trace.draws() < draws {
            let stop = total.min((self.iteration / stride + 1) * stride);
            self.run_on((stop, draws), kernel, posterior, key, scratch, row)?;
            desk.pulse(Progress { iteration: self.iteration, total }, self)?;
        }
        Ok(())
    }

    /// Runs until `iteration` iterations are done (at most the chain's length).
    pub fn advance_to<T: Element, K: Kernel<T, State = S>>(
        &mut self,
        iteration: u64,
        kernel: &K,
        posterior: &Posterior<'_, T>,
        key: &Key,
        scratch: &mut Scratch<T>,
        row: &mut [f64],
    ) -> Result<(), SamplerError> {
        self.run_on((iteration, usize::MAX), kernel, posterior, key, scratch, row)
    }

    /// Until `iteration` iterations are done or `draws` draws are kept.
    fn run_on<T: Element, K: Kernel<T, State = S>>(
        &mut self,
        (iteration, draws): (u64, usize),
        kernel: &K,
        posterior: &Posterior<'_, T>,
        key: &Key,
        scratch: &mut Scratch<T>,
        row: &mut [f64],
    ) -> Result<(), SamplerError> {
        let Iterations { burn_in, total, .. } = kernel.iterations();
        while self.iteration < iteration.min(total) && self.trace.draws() < draws {
            let kept = kernel.step(posterior, &mut self.state, self.iteration, key, scratch, row)?;
            self.iteration += 1;
            if self.iteration == burn_in {
                self.fge_warmup = kernel.fge(&self.state);
            }
            if kept && self.iteration > burn_in {
                self.trace.push(row);
            }
        }
        Ok(())
    }
}
