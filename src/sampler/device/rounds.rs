//! Samplers whose chains need the gradient over all rows: a round is one such gradient a chain, and what the sampler makes
//! of it (`kernels/rounds.cuh`).
//!
//! Where there are few chains, a round is a launch of the gradient, its rows spread over many blocks of threads, one of the
//! sum over segments, and one of the sampler's own kernel. Where there are many, or rows are few, a block of threads takes
//! a chain and all its rows, and makes many rounds a launch. The bits are the same.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::drive::{self, Chain, Group, OnDevice, Pace};
use super::{DeviceTarget, Setting};
use crate::device::Element;
use crate::device::gpu::{Buffer, DeviceError, Kernel, Launch, Number, Parameter, Place};
use crate::sampler::chain::Iterations;
use crate::sampler::leapfrog;
use crate::sampler::{ChainOutcome, SamplerError};
use crate::target::DeviceNetwork;

/// Rounds between two looks at the device at most.
const MOST_ROUNDS: usize = 256;
/// Rounds of one launch at most, so that whoever watches is not kept waiting.
const MOST_ROUNDS_A_LAUNCH: usize = 32;
/// From so many chains on a block a chain keeps the device busy: two for each multiprocessor of an H100.
const MANY_CHAINS: usize = 264;

/// Numbers of `Flight` of `kernels/rounds.cuh`, and which of them are looked at here.
const FLIGHT: usize = 16;
const ITERATION: usize = 0;
const FGE: usize = 1;
const FGE_BURN_IN: usize = 2;
const ENERGY: usize = 3;
const LOSS: usize = 4;
const DIVERGED: usize = 13;
const WILD: usize = 14;
/// Numbers of a draw.
pub const ROW: usize = 6;
/// Bytes of a block's shared memory beside its sums, three doubles a thread.
const VERDICT: usize = 3 * 8 + 4 * 4;

/// Where a chain is between two rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Walk<T> {
    w: Vec<T>,
    /// ∇U(w)
    grad: Vec<T>,
    /// Where its path is, with momentum or direction.
    q: Vec<T>,
    p: Vec<T>,
    flight: [f64; FLIGHT],
}

/// A vector of it.
type Part<T> = fn(&mut Walk<T>) -> &mut Vec<T>;

impl<T> Walk<T> {
    fn fge(&self) -> f64 {
        self.flight[FGE]
    }

    /// A chain that is done: its state, its direction, and whether its last step was taken back.
    pub fn end(self) -> (leapfrog::State<T>, Vec<T>, bool) {
        let Self { w, grad, p, flight, .. } = self;
        let at = leapfrog::State { w, grad, energy: flight[ENERGY], loss: flight[LOSS], fge: flight[FGE] };
        (at, p, flight[DIVERGED] != 0.0)
    }
}

/// Numbers by which a sampler's rounds go.
#[derive(Debug)]
pub struct Course<T> {
    pub iterations: Iterations,
    /// Iterations of a draw.
    pub thin: u64,
    pub step_size: f64,
    /// L, over which a direction is forgotten.
    pub length: f64,
    /// Mean number of steps of a path, or gradients of a step.
    pub steps: usize,
    /// Diagonal of M⁻¹, or σ.
    pub scale: Vec<T>,
}

/// What sets one sampler of this kind apart from others.
pub trait Sampler<T> {
    /// Its round, and many of them in one launch.
    const KERNELS: [Kernel; 2];

    fn course(&self) -> &Course<T>;

    /// Columns of its trace.
    fn columns(&self) -> usize;

    /// A draw in the order of the columns, from what its kernel writes.
    fn draw(&self, llc: f64, row: &[f64; ROW]) -> Vec<f64>;

    /// The state of the CPU's kernel (postcard).
    fn final_state(&self, walk: Walk<T>) -> Result<Vec<u8>, postcard::Error>;
}

/// A sampler of this kind on a target.
pub struct Method<'a, T, S> {
    sampler: S,
    setting: Setting<'a, T>,
}

impl<'a, T, S: Sampler<T>> Method<'a, T, S> {
    pub fn new(sampler: S, setting: Setting<'a, T>) -> Self {
        Self { sampler, setting }
    }
}

impl<T: Element + Number, S: Sampler<T>> OnDevice for Method<'_, T, S> {
    type State = Walk<T>;

    fn iterations(&self) -> Iterations {
        self.sampler.course().iterations
    }

    fn columns(&self) -> usize {
        self.sampler.columns()
    }

    fn start(&self) -> Walk<T> {
        let centre = self.setting.target.centre;
        let zeros = vec![T::ZERO; centre.len()];
        Walk { w: centre.to_vec(), grad: zeros.clone(), q: centre.to_vec(), p: zeros, flight: [0.0; FLIGHT] }
    }

    fn outcome(&self, Chain { state, trace }: Chain<Walk<T>>) -> Result<ChainOutcome, SamplerError> {
        let fge_warmup = state.flight[FGE_BURN_IN];
        let fge_sampling = state.fge() - fge_warmup;
        Ok(ChainOutcome { final_state: self.sampler.final_state(state)?, trace, fge_warmup, fge_sampling })
    }

    fn open<'a>(
        &'a self,
        place: &'a dyn Place,
        group: &Group<Walk<T>>,
    ) -> Result<Box<dyn drive::Live<Walk<T>> + 'a>, SamplerError> {
        let DeviceTarget { network, loss, data, centre, .. } = *self.setting.target;
        let (chains, d) = (group.chains.len(), centre.len());
        let there = DeviceNetwork::new(place, network, data, loss, chains)?.with_gradients()?;
        let gathered = |of: &dyn Fn(&Walk<T>) -> &[T]| -> Vec<T> {
            group.chains.iter().flat_map(|chain| of(&chain.state)).copied().collect()
        };
        let flight: Vec<f64> = group.chains.iter().flat_map(|chain| chain.state.flight).collect();
        let thin = self.sampler.course().thin;
        // A chain makes an iteration a round at most.
        let most_draws = MOST_ROUNDS.div_ceil(usize::try_from(thin).unwrap_or(usize::MAX));
        Ok(Box::new(Live {
            method: self,
            place,
            many: there.plan().weights_are_shared() && (there.segments() == 1 || chains >= MANY_CHAINS),
            there,
            chains,
            centre: Buffer::of(place, centre)?,
            scale: Buffer::of(place, &self.sampler.course().scale)?,
            grad: Buffer::zeros(place, chains * d)?,
            mean: Buffer::zeros(place, chains)?,
            w: Buffer::of(place, &gathered(&|walk| &walk.w))?,
            slope: Buffer::of(place, &gathered(&|walk| &walk.grad))?,
            q: Buffer::of(place, &gathered(&|walk| &walk.q))?,
            p: Buffer::of(place, &gathered(&|walk| &walk.p))?,
            flight: Buffer::of(place, &flight)?,
            drawn: Buffer::zeros(place, chains)?,
            rows: Buffer::zeros(place, most_draws * chains * ROW)?,
        }))
    }
}

/// A group of chains in the device's memory.
struct Live<'a, T: Element + Number, S> {
    method: &'a Method<'a, T, S>,
    place: &'a dyn Place,
    there: DeviceNetwork<'a, T>,
    /// Whether a launch makes many rounds.
    many: bool,
    chains: usize,
    centre: Buffer<'a, T>,
    scale: Buffer<'a, T>,
    /// ∇L(q), then ∇U(q), and L(q).
    grad: Buffer<'a, T>,
    mean: Buffer<'a, f64>,
    w: Buffer<'a, T>,
    slope: Buffer<'a, T>,
    q: Buffer<'a, T>,
    p: Buffer<'a, T>,
    flight: Buffer<'a, f64>,
    /// Draws since the last look, a chain.
    drawn: Buffer<'a, u32>,
    /// Those draws × chains × their numbers.
    rows: Buffer<'a, f64>,
}

impl<T: Element + Number, S: Sampler<T>> drive::Live<Walk<T>> for Live<'_, T, S> {
    fn advance(&mut self, group: &mut Group<Walk<T>>, pace: &mut Pace) -> Result<(), SamplerError> {
        let begun = Instant::now();
        self.queue(group.first, pace.now())?;
        let flights = self.flight.front(self.chains * FLIGHT)?;
        let drawn = self.drawn.front(self.chains)?;
        let most = drawn.iter().copied().max().unwrap_or(0) as usize;
        let rows = self.rows.front(most * self.chains * ROW)?;
        if most > 0 {
            self.drawn.write(&vec![0; self.chains])?;
        }
        let Setting { target, l0, .. } = self.method.setting;
        if let Some(wild) = flights.chunks(FLIGHT).find(|flight| flight[WILD] != 0.0) {
            return Err(SamplerError::Centre { loss: wild[LOSS] });
        }
        for (k, rows) in rows.chunks(self.chains * ROW).enumerate() {
            let chains = group.chains.iter_mut().zip(rows.as_chunks().0).zip(&drawn);
            for ((chain, row), _) in chains.filter(|(_, drawn)| k < **drawn as usize) {
                let llc = target.nbeta * (row[0] - l0);
                chain.trace.push(&self.method.sampler.draw(llc, row));
            }
        }
        let done = flights.chunks(FLIGHT).map(|flight| flight[ITERATION] as u64).min();
        group.iteration = done.unwrap_or(group.iteration);
        pace.learn(begun.elapsed(), MOST_ROUNDS);
        Ok(())
    }

    fn fetch(&self, group: &mut Group<Walk<T>>) -> Result<(), SamplerError> {
        let d = self.centre.len();
        let flights = self.flight.front(self.chains * FLIGHT)?;
        for (chain, flight) in group.chains.iter_mut().zip(flights.as_chunks().0) {
            chain.state.flight = *flight;
        }
        let parts: [(&Buffer<'_, T>, Part<T>); 4] = [
            (&self.w, |walk| &mut walk.w),
            (&self.slope, |walk| &mut walk.grad),
            (&self.q, |walk| &mut walk.q),
            (&self.p, |walk| &mut walk.p),
        ];
        for (buffer, part) in parts {
            let all = buffer.front(self.chains * d)?;
            for (chain, own) in group.chains.iter_mut().zip(all.chunks(d)) {
                part(&mut chain.state).copy_from_slice(own);
            }
        }
        Ok(())
    }
}

impl<T: Element + Number, S: Sampler<T>> Live<'_, T, S> {
    /// Launches so many rounds.
    fn queue(&mut self, first: u32, rounds: usize) -> Result<(), DeviceError> {
        let arguments = self.arguments(first);
        let [round, many] = S::KERNELS;
        let threads = self.there.plan().threads();
        let shared_bytes = 3 * threads * size_of::<f64>() + VERDICT;
        let (double, grid) = (size_of::<T>() == size_of::<f64>(), (1, self.chains));
        if !self.many {
            for _ in 0..rounds {
                self.there.loss_grad_into(&self.q, self.chains, &mut self.grad, (&self.mean, 0))?;
                let parameters = std::slice::from_ref(&arguments);
                self.place.launch(&Launch {
                    kernel: round,
                    double,
                    grid,
                    threads,
                    shared_bytes,
                    parameters,
                })?;
            }
            return Ok(());
        }
        let plan = self.there.plan();
        let (structure, net) = (Parameter::bytes(&plan.to_bytes()), self.there.arguments(&self.q));
        let shared_bytes = shared_bytes.max(plan.shared_bytes());
        for made in (0..rounds).step_by(MOST_ROUNDS_A_LAUNCH) {
            let share = Parameter::int(MOST_ROUNDS_A_LAUNCH.min(rounds - made));
            let parameters = &[structure.clone(), net.clone(), arguments.clone(), share];
            self.place.launch(&Launch { kernel: many, double, grid, threads, shared_bytes, parameters })?;
        }
        Ok(())
    }

    fn arguments(&self, first: u32) -> Parameter {
        let Setting { target, l0, stream } = self.method.setting;
        let Course { iterations, thin, step_size, length, steps, .. } = *self.method.sampler.course();
        let [key0, key1] = stream.key();
        Parameter::default()
            .and_word(key0)
            .and_word(key1)
            .and_word(stream.purpose())
            .and_word(first)
            .and_long(iterations.total)
            .and_long(iterations.burn_in)
            .and_long(thin)
            .and_array(&self.centre)
            .and_array(&self.scale)
            .and_array(&self.grad)
            .and_array(&self.mean)
            .and_array(&self.w)
            .and_array(&self.slope)
            .and_array(&self.q)
            .and_array(&self.p)
            .and_array(&self.flight)
            .and_array(&self.drawn)
            .and_array(&self.rows)
            .and_double(step_size)
            .and_double(length)
            .and_double(target.nbeta)
            .and_double(target.gamma)
            .and_double(l0)
            .and_int(self.centre.len())
            .and_int(self.chains)
            .and_int(steps)
            .and_int(0)
    }
}
