//! SGLD on a device: the launches of `sgld_steps`, and of the losses between them.

use std::time::{Duration, Instant};

use super::{Chain, DeviceTarget, Group, Stream};
use crate::config::{Precond, Sgld};
use crate::device::Element;
use crate::device::gpu::{Buffer, DeviceError, Kernel, Launch, Number, Parameter, Place};
use crate::sampler::chain::Iterations;
use crate::sampler::sgld::{State, lengths};
use crate::sampler::stochastic::{LOSS_COST, Lengths, batch_cost, layout, step_of};
use crate::sampler::{Adapted, SamplerError};
use crate::target::{DeviceNetwork, NetworkPlan};
use crate::trace::ChainTrace;

/// Steps of one launch at most, so that whoever watches is not kept waiting.
const MOST_STEPS: u64 = 64;
/// Launches between two looks at the device at most.
const MOST_LAUNCHES: usize = 256;
/// How long the device is left alone: longer than what a look costs, shorter than anybody waits.
const LEFT_ALONE: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(80)];

/// How many launches are made between two looks at the device. No bit depends on it.
#[derive(Debug)]
pub struct Pace(usize);

impl Default for Pace {
    fn default() -> Self {
        Self(1)
    }
}

impl Pace {
    fn learn(&mut self, took: Duration) {
        if took < LEFT_ALONE[0] {
            self.0 = (2 * self.0).min(MOST_LAUNCHES);
        } else if took > LEFT_ALONE[1] {
            self.0 = (self.0 / 2).max(1);
        }
    }
}

/// SGLD on a target: what launches are made of.
pub struct Method<'a, T> {
    spec: &'a Sgld,
    target: &'a DeviceTarget<'a, T>,
    step_size: f64,
    stream: Stream,
}

/// A group of chains in the device's memory.
pub struct Live<'a, T: Element + Number> {
    method: &'a Method<'a, T>,
    place: &'a dyn Place,
    there: DeviceNetwork<'a, T>,
    plan: NetworkPlan,
    chains: usize,
    centre: Buffer<'a, T>,
    w: Buffer<'a, T>,
    grad: Buffer<'a, T>,
    first: Buffer<'a, T>,
    second: Buffer<'a, T>,
    powers: Buffer<'a, f64>,
    rows: Buffer<'a, u32>,
    /// Launches × chains: mean losses of the last minibatches.
    batch_losses: Buffer<'a, f64>,
    /// Launches × chains: L_n, where a draw follows the launch.
    losses: Buffer<'a, f64>,
}

impl<'a, T: Element + Number> Method<'a, T> {
    pub fn new(spec: &'a Sgld, target: &'a DeviceTarget<'a, T>, adapted: &Adapted, stream: Stream) -> Self {
        Self { spec, target, step_size: step_of(stream.role, adapted.step_size), stream }
    }

    fn lengths(&self) -> Lengths {
        lengths(self.spec)
    }

    pub fn iterations(&self) -> Iterations {
        self.lengths().iterations()
    }

    pub fn start(&self) -> State<T> {
        State::at(self.target.centre, self.spec)
    }

    pub fn empty_trace(&self) -> ChainTrace {
        ChainTrace::with_capacity(layout().len(), self.iterations().draws)
    }

    fn step_cost(&self) -> f64 {
        batch_cost(self.spec.batch_size, self.target.data.0.len() / self.target.network.in_dim)
    }

    /// Work after so many iterations and draws.
    fn fge(&self, iterations: u64, draws: usize) -> f64 {
        iterations as f64 * self.step_cost() + draws as f64 * LOSS_COST
    }

    /// Work of a whole chain: of its burn-in, and of its draws.
    pub fn work(&self, trace: &ChainTrace) -> (f64, f64) {
        let Iterations { burn_in, total, .. } = self.iterations();
        let warmup = self.fge(burn_in, 0);
        (warmup, self.fge(total, trace.draws()) - warmup)
    }

    /// Brings a group to the device.
    pub fn open(&'a self, place: &'a dyn Place, group: &Group<T>) -> Result<Live<'a, T>, SamplerError> {
        let DeviceTarget { network, loss, data, centre, .. } = *self.target;
        let (chains, d) = (group.chains.len(), centre.len());
        let batch = self.spec.batch_size;
        let plan = NetworkPlan::for_batch::<T>(network, loss, batch, place.info().shared)
            .map_err(crate::target::DeviceNetworkError::from)?;
        let gathered = |of: &dyn Fn(&State<T>) -> &[T]| -> Vec<T> {
            group.chains.iter().flat_map(|chain| of(&chain.state)).copied().collect()
        };
        let powers: Vec<f64> =
            group.chains.iter().flat_map(|c| [c.state.powers.0, c.state.powers.1]).collect();
        Ok(Live {
            method: self,
            place,
            there: DeviceNetwork::new(place, network, data, loss, chains)?,
            plan,
            chains,
            centre: Buffer::of(place, centre)?,
            w: Buffer::of(place, &gathered(&|state| &state.w))?,
            grad: Buffer::zeros(place, chains * d)?,
            first: Buffer::of(place, &gathered(&|state| &state.first))?,
            second: Buffer::of(place, &gathered(&|state| &state.second))?,
            powers: Buffer::of(place, &powers)?,
            rows: Buffer::zeros(place, chains * batch)?,
            batch_losses: Buffer::zeros(place, MOST_LAUNCHES * chains)?,
            losses: Buffer::zeros(place, MOST_LAUNCHES * chains)?,
        })
    }
}

impl<T: Element + Number> Live<'_, T> {
    /// Makes some launches, then looks at what they gave: draws go into the chains' traces.
    pub fn advance(&self, group: &mut Group<T>, l0: f64, pace: &mut Pace) -> Result<(), SamplerError> {
        let begun = Instant::now();
        let Iterations { total, .. } = self.method.iterations();
        let mut iteration = group.iteration;
        let mut ends = Vec::with_capacity(pace.0);
        while iteration < total && ends.len() < pace.0 {
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
        let launches = batch_losses.chunks(self.chains).zip(losses.chunks(self.chains));
        for (&end, (batch_losses, losses)) in ends.iter().zip(launches) {
            let draws = group.chains[0].trace.draws() + 1;
            let fge = self.method.fge(end, draws);
            for ((chain, &batch_loss), &loss) in group.chains.iter_mut().zip(batch_losses).zip(losses) {
                self.finite(end, batch_loss)?;
                if self.is_draw(end) {
                    self.finite(end, loss)?;
                    let llc = self.method.target.nbeta * (loss - l0);
                    chain.trace.push(&[llc, loss, batch_loss, fge]);
                }
            }
        }
        group.iteration = iteration;
        pace.learn(begun.elapsed());
        Ok(())
    }

    /// Takes the chains' states from the device.
    pub fn fetch(&self, group: &mut Group<T>) -> Result<(), SamplerError> {
        let d = self.centre.len();
        let w = self.w.front(self.chains * d)?;
        let [first, second] = [&self.first, &self.second].map(|moments| moments.front(moments.len()));
        let (first, second) = (first?, second?);
        let powers = self.powers.front(2 * self.chains)?;
        for (c, Chain { state, trace }) in group.chains.iter_mut().enumerate() {
            state.w.copy_from_slice(&w[c * d..][..d]);
            for (own, all) in [(&mut state.first, &first), (&mut state.second, &second)] {
                let len = own.len();
                own.copy_from_slice(&all[c * len..][..len]);
            }
            state.powers = (powers[2 * c], powers[2 * c + 1]);
            state.fge = self.method.fge(group.iteration, trace.draws());
        }
        Ok(())
    }

    /// A launch ends where a draw is due, and before anybody waits too long.
    fn end_of_launch(&self, iteration: u64) -> u64 {
        let Sgld { eval_every, .. } = *self.method.spec;
        let Iterations { total, .. } = self.method.iterations();
        let draw = (iteration / eval_every + 1) * eval_every;
        draw.min(total).min(iteration + MOST_STEPS)
    }

    fn is_draw(&self, end: u64) -> bool {
        self.method.lengths().keeps(end - 1)
    }

    fn finite(&self, end: u64, loss: f64) -> Result<(), SamplerError> {
        let (step, step_size) = (end - 1, self.method.step_size);
        if loss.is_finite() { Ok(()) } else { Err(SamplerError::Overflow { step, step_size, loss }) }
    }

    /// Launches the steps of `range`; the last minibatches' losses go to row `row`.
    fn steps(&self, first: u32, range: std::ops::Range<u64>, row: usize) -> Result<(), DeviceError> {
        let Method { spec, target, step_size, stream } = *self.method;
        let ([key0, key1], (x, y)) = (stream.key(), self.there.data());
        let net = Parameter::array(x)
            .and_array(y)
            .and_array(&self.w)
            .and_none()
            .and_array(&self.rows)
            .and_int(spec.batch_size)
            .and_int(1)
            .and_array(&self.grad)
            .and_array_at(&self.batch_losses, row * self.chains);
        let frozen_from = if spec.freeze_precond {
            spec.warmup.saturating_sub(range.start).min(i32::MAX as u64) as usize
        } else {
            i32::MAX as usize
        };
        let precond = match spec.precond {
            Precond::None => 0,
            Precond::Rmsprop => 1,
            Precond::Adam => 2,
        };
        let sgld = Parameter::default()
            .and_word(key0)
            .and_word(key1)
            .and_word(stream.purpose())
            .and_word(first)
            .and_long(range.start)
            .and_array(&self.centre)
            .and_array(&self.w)
            .and_array(&self.first)
            .and_array(&self.second)
            .and_array(&self.powers)
            .and_array(&self.rows)
            .and_double(step_size)
            .and_double(target.nbeta)
            .and_double(target.gamma)
            .and_double(spec.beta1)
            .and_double(spec.beta2)
            .and_double(spec.eps)
            .and_int(self.centre.len())
            .and_int(spec.batch_size)
            .and_int(self.there.rows())
            .and_int(precond)
            .and_int(usize::from(spec.bias_correction))
            .and_int(frozen_from);
        let steps = Parameter::int((range.end - range.start) as usize);
        self.place.launch(&Launch {
            kernel: Kernel::SgldSteps,
            double: size_of::<T>() == size_of::<f64>(),
            grid: (1, self.chains),
            threads: self.plan.threads(),
            shared_bytes: self.plan.shared_bytes(),
            parameters: &[Parameter::bytes(&self.plan.to_bytes()), net, sgld, steps],
        })
    }
}
