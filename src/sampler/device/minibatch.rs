//! Samplers on minibatches: a block of threads takes a chain and its minibatch, and makes many steps a launch
//! (`kernels/persistent.cuh`); the loss over all rows is taken between launches, where a draw is due.

use std::time::Instant;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::drive::{self, Chain, Group, OnDevice, Pace};
use super::{DeviceTarget, Setting};
use crate::device::Element;
use crate::device::gpu::{Buffer, DeviceError, Kernel, Launch, Number, Parameter, Place};
use crate::sampler::chain::Iterations;
use crate::sampler::stochastic::{LOSS_COST, Lengths, batch_cost, layout};
use crate::sampler::{ChainOutcome, SamplerError};
use crate::target::{DeviceNetwork, DeviceNetworkError, NetworkPlan};

/// Steps of one launch at most, so that whoever watches is not kept waiting.
const MOST_STEPS: u64 = 64;
/// Launches between two looks at the device at most.
const MOST_LAUNCHES: usize = 256;

/// The arrays of a chain's state. `first` and `second` may be empty.
pub struct Parts<V> {
    pub w: V,
    pub first: V,
    pub second: V,
    pub numbers: [f64; 2],
}

/// Numbers by which a sampler's steps go; what a sampler has not is 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct Numbers {
    pub step_size: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub friction: f64,
    pub precond: usize,
    pub bias_correction: bool,
    /// The moments stand still from this iteration on.
    pub frozen_from: Option<u64>,
}

/// What sets one sampler of this kind apart from others.
pub trait Sampler<T> {
    /// A chain's state: that of the CPU's kernel.
    type State: Serialize + DeserializeOwned;

    /// Its steps, with weights in shared memory and in global memory.
    const KERNELS: [Kernel; 2];
    /// Work of its start, in gradients.
    const START: f64;

    fn lengths(&self) -> Lengths;

    fn batch_size(&self) -> usize;

    fn numbers(&self) -> Numbers;

    fn start(&self, centre: &[T]) -> Self::State;

    /// The state's arrays, for the device.
    fn parts<'s>(&self, state: &'s Self::State) -> Parts<&'s [T]>;

    /// Takes them from the device, with the work so far in gradients.
    fn take(&self, state: &mut Self::State, parts: &Parts<&[T]>, fge: f64);
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

    /// Work after so many iterations and draws.
    fn fge(&self, iterations: u64, draws: usize) -> f64 {
        let target = self.setting.target;
        let step = batch_cost(self.sampler.batch_size(), target.data.0.len() / target.network.in_dim);
        S::START + iterations as f64 * step + draws as f64 * LOSS_COST
    }
}

impl<T: Element + Number, S: Sampler<T>> OnDevice for Method<'_, T, S> {
    type State = S::State;

    fn iterations(&self) -> Iterations {
        self.sampler.lengths().iterations()
    }

    fn columns(&self) -> usize {
        layout().len()
    }

    fn start(&self) -> S::State {
        self.sampler.start(self.setting.target.centre)
    }

    fn outcome(&self, Chain { state, trace }: Chain<S::State>) -> Result<ChainOutcome, SamplerError> {
        let Iterations { burn_in, total, .. } = self.iterations();
        let fge_warmup = self.fge(burn_in, 0);
        let fge_sampling = self.fge(total, trace.draws()) - fge_warmup;
        Ok(ChainOutcome { final_state: postcard::to_stdvec(&state)?, trace, fge_warmup, fge_sampling })
    }

    fn open<'a>(
        &'a self,
        place: &'a dyn Place,
        group: &Group<S::State>,
    ) -> Result<Box<dyn drive::Live<S::State> + 'a>, SamplerError> {
        let DeviceTarget { network, loss, data, centre, .. } = *self.setting.target;
        let (chains, d) = (group.chains.len(), centre.len());
        let batch = self.sampler.batch_size();
        let plan = NetworkPlan::for_batch::<T>(network, loss, batch, place.info().shared)
            .map_err(DeviceNetworkError::from)?;
        let parts: Vec<Parts<&[T]>> =
            group.chains.iter().map(|chain| self.sampler.parts(&chain.state)).collect();
        let gathered = |of: &dyn Fn(&Parts<&[T]>) -> Vec<T>| {
            Buffer::of(place, &parts.iter().flat_map(of).collect::<Vec<T>>())
        };
        let numbers: Vec<f64> = parts.iter().flat_map(|parts| parts.numbers).collect();
        let packed = if plan.weights_are_shared() { 0 } else { chains * plan.packed_len() };
        Ok(Box::new(Live {
            method: self,
            place,
            there: DeviceNetwork::new(place, network, data, loss, chains)?,
            chains,
            centre: Buffer::of(place, centre)?,
            w: gathered(&|parts| parts.w.to_vec())?,
            grad: Buffer::zeros(place, chains * d)?,
            packed: Buffer::zeros(place, packed)?,
            first: gathered(&|parts| parts.first.to_vec())?,
            second: gathered(&|parts| parts.second.to_vec())?,
            numbers: Buffer::of(place, &numbers)?,
            rows: Buffer::zeros(place, chains * batch)?,
            batch_losses: Buffer::zeros(place, MOST_LAUNCHES * chains)?,
            losses: Buffer::zeros(place, MOST_LAUNCHES * chains)?,
            plan,
        }))
    }
}

/// A group of chains in the device's memory.
struct Live<'a, T: Element + Number, S> {
    method: &'a Method<'a, T, S>,
    place: &'a dyn Place,
    there: DeviceNetwork<'a, T>,
    plan: NetworkPlan,
    chains: usize,
    centre: Buffer<'a, T>,
    w: Buffer<'a, T>,
    grad: Buffer<'a, T>,
    /// The chains' packed weights, where they are not in shared memory.
    packed: Buffer<'a, T>,
    first: Buffer<'a, T>,
    second: Buffer<'a, T>,
    numbers: Buffer<'a, f64>,
    rows: Buffer<'a, u32>,
    /// Launches × chains: mean losses of the last minibatches.
    batch_losses: Buffer<'a, f64>,
    /// Launches × chains: L_n, where a draw follows the launch.
    losses: Buffer<'a, f64>,
}

impl<T: Element + Number, S: Sampler<T>> drive::Live<S::State> for Live<'_, T, S> {
    fn advance(&mut self, group: &mut Group<S::State>, pace: &mut Pace) -> Result<(), SamplerError> {
        let begun = Instant::now();
        let Iterations { total, .. } = self.method.iterations();
        let mut iteration = group.iteration;
        let mut ends = Vec::with_capacity(pace.now());
        while iteration < total && ends.len() < pace.now() {
            let end = self.end_of_launch(iteration);
            self.steps(group.first, iteration..end, ends.len())?;
            if self.is_draw(end) {
                self.there.loss_into(&self.w, self.chains, (&self.losses, ends.len() * self.chains))?;
            }
            ends.push(end);
            iteration = end;
        }
        let batch_losses = self.batch_losses.front(ends.len() * self.chains)?;
        let losses = self.losses.front(ends.len() * self.chains)?;
        let Setting { target, l0, .. } = self.method.setting;
        let launches = batch_losses.chunks(self.chains).zip(losses.chunks(self.chains));
        for (&end, (batch_losses, losses)) in ends.iter().zip(launches) {
            let draws = group.chains[0].trace.draws() + 1;
            let fge = self.method.fge(end, draws);
            for ((chain, &batch_loss), &loss) in group.chains.iter_mut().zip(batch_losses).zip(losses) {
                self.finite(end, batch_loss)?;
                if self.is_draw(end) {
                    self.finite(end, loss)?;
                    let llc = target.nbeta * (loss - l0);
                    chain.trace.push(&[llc, loss, batch_loss, fge]);
                }
            }
        }
        group.iteration = iteration;
        pace.learn(begun.elapsed(), MOST_LAUNCHES);
        Ok(())
    }

    fn fetch(&self, group: &mut Group<S::State>) -> Result<(), SamplerError> {
        let [w, first, second] =
            [&self.w, &self.first, &self.second].map(|buffer| buffer.front(buffer.len()));
        let (w, first, second) = (w?, first?, second?);
        let numbers = self.numbers.front(2 * self.chains)?;
        for (c, Chain { state, trace }) in group.chains.iter_mut().enumerate() {
            let own = |all: &'_ [T]| c * (all.len() / self.chains)..(c + 1) * (all.len() / self.chains);
            let parts = Parts {
                w: &w[own(&w)],
                first: &first[own(&first)],
                second: &second[own(&second)],
                numbers: [numbers[2 * c], numbers[2 * c + 1]],
            };
            self.method.sampler.take(state, &parts, self.method.fge(group.iteration, trace.draws()));
        }
        Ok(())
    }
}

impl<T: Element + Number, S: Sampler<T>> Live<'_, T, S> {
    /// A launch ends where a draw is due, and before anybody waits too long.
    fn end_of_launch(&self, iteration: u64) -> u64 {
        let Lengths { eval_every, .. } = self.method.sampler.lengths();
        let Iterations { total, .. } = self.method.iterations();
        let draw = (iteration / eval_every + 1) * eval_every;
        draw.min(total).min(iteration + MOST_STEPS)
    }

    fn is_draw(&self, end: u64) -> bool {
        self.method.sampler.lengths().keeps(end - 1)
    }

    fn finite(&self, end: u64, loss: f64) -> Result<(), SamplerError> {
        let (step, step_size) = (end - 1, self.method.sampler.numbers().step_size);
        if loss.is_finite() { Ok(()) } else { Err(SamplerError::Overflow { step, step_size, loss }) }
    }

    /// Launches the steps of `range`; the last minibatches' losses go to row `row`.
    fn steps(&self, first: u32, range: std::ops::Range<u64>, row: usize) -> Result<(), DeviceError> {
        let Method { sampler, setting: Setting { target, stream, .. } } = self.method;
        let ([key0, key1], (x, y)) = (stream.key(), self.there.data());
        let batch = sampler.batch_size();
        let net = Parameter::array(x)
            .and_array(y)
            .and_array(&self.w)
            .and_array(&self.packed)
            .and_array(&self.rows)
            .and_int(batch)
            .and_int(1)
            .and_array(&self.grad)
            .and_array_at(&self.batch_losses, row * self.chains);
        let numbers = sampler.numbers();
        let frozen_from = numbers
            .frozen_from
            .map_or(i32::MAX as u64, |from| from.saturating_sub(range.start).min(i32::MAX as u64));
        let arguments = Parameter::default()
            .and_word(key0)
            .and_word(key1)
            .and_word(stream.purpose())
            .and_word(first)
            .and_long(range.start)
            .and_array(&self.centre)
            .and_array(&self.w)
            .and_array(&self.first)
            .and_array(&self.second)
            .and_array(&self.numbers)
            .and_array(&self.rows)
            .and_double(numbers.step_size)
            .and_double(target.nbeta)
            .and_double(target.gamma)
            .and_double(numbers.beta1)
            .and_double(numbers.beta2)
            .and_double(numbers.eps)
            .and_double(numbers.friction)
            .and_int(self.centre.len())
            .and_int(batch)
            .and_int(self.there.rows())
            .and_int(numbers.precond)
            .and_int(usize::from(numbers.bias_correction))
            .and_int(frozen_from as usize);
        let steps = Parameter::int((range.end - range.start) as usize);
        let [shared, wide] = S::KERNELS;
        self.place.launch(&Launch {
            kernel: if self.plan.weights_are_shared() { shared } else { wide },
            double: size_of::<T>() == size_of::<f64>(),
            grid: (1, self.chains),
            threads: self.plan.threads(),
            shared_bytes: self.plan.shared_bytes(),
            parameters: &[
                Parameter::bytes(&self.plan.to_bytes()),
                net,
                arguments,
                Parameter::array(&self.packed),
                steps,
            ],
        })
    }
}
