//! SGLD on a device: the launches of `sgld_steps`, and of the losses between them.

use std::time::Instant;

use super::drive::{self, Chain, Group, OnDevice, Pace};
use super::{DeviceTarget, Setting};
use crate::config::{Precond, Sgld};
use crate::device::Element;
use crate::device::gpu::{Buffer, DeviceError, Kernel, Launch, Number, Parameter, Place};
use crate::sampler::chain::Iterations;
use crate::sampler::sgld::{State, lengths};
use crate::sampler::stochastic::{LOSS_COST, Lengths, batch_cost, layout, step_of};
use crate::sampler::{Adapted, ChainOutcome, SamplerError};
use crate::target::{DeviceNetwork, NetworkPlan};

/// Steps of one launch at most, so that whoever watches is not kept waiting.
const MOST_STEPS: u64 = 64;
/// Launches between two looks at the device at most.
const MOST_LAUNCHES: usize = 256;

/// SGLD on a target: what launches are made of.
pub struct Method<'a, T> {
    spec: &'a Sgld,
    setting: Setting<'a, T>,
    step_size: f64,
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
    pub fn new(spec: &'a Sgld, adapted: &Adapted, setting: Setting<'a, T>) -> Self {
        Self { spec, step_size: step_of(setting.stream.role, adapted.step_size), setting }
    }

    fn lengths(&self) -> Lengths {
        lengths(self.spec)
    }

    fn step_cost(&self) -> f64 {
        let target = self.setting.target;
        batch_cost(self.spec.batch_size, target.data.0.len() / target.network.in_dim)
    }

    /// Work after so many iterations and draws.
    fn fge(&self, iterations: u64, draws: usize) -> f64 {
        iterations as f64 * self.step_cost() + draws as f64 * LOSS_COST
    }
}

impl<T: Element + Number> OnDevice for Method<'_, T> {
    type State = State<T>;

    fn iterations(&self) -> Iterations {
        self.lengths().iterations()
    }

    fn columns(&self) -> usize {
        layout().len()
    }

    fn start(&self) -> State<T> {
        State::at(self.setting.target.centre, self.spec)
    }

    fn outcome(&self, Chain { state, trace }: Chain<State<T>>) -> Result<ChainOutcome, SamplerError> {
        let Iterations { burn_in, total, .. } = self.iterations();
        let fge_warmup = self.fge(burn_in, 0);
        let fge_sampling = self.fge(total, trace.draws()) - fge_warmup;
        Ok(ChainOutcome { final_state: postcard::to_stdvec(&state)?, trace, fge_warmup, fge_sampling })
    }

    fn open<'a>(
        &'a self,
        place: &'a dyn Place,
        group: &Group<State<T>>,
    ) -> Result<Box<dyn drive::Live<State<T>> + 'a>, SamplerError> {
        let DeviceTarget { network, loss, data, centre, .. } = *self.setting.target;
        let (chains, d) = (group.chains.len(), centre.len());
        let batch = self.spec.batch_size;
        let plan = NetworkPlan::for_batch::<T>(network, loss, batch, place.info().shared)
            .map_err(crate::target::DeviceNetworkError::from)?;
        let gathered = |of: &dyn Fn(&State<T>) -> &[T]| -> Vec<T> {
            group.chains.iter().flat_map(|chain| of(&chain.state)).copied().collect()
        };
        let powers: Vec<f64> =
            group.chains.iter().flat_map(|c| [c.state.powers.0, c.state.powers.1]).collect();
        Ok(Box::new(Live {
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
        }))
    }
}

impl<T: Element + Number> drive::Live<State<T>> for Live<'_, T> {
    fn advance(&mut self, group: &mut Group<State<T>>, pace: &mut Pace) -> Result<(), SamplerError> {
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

    fn fetch(&self, group: &mut Group<State<T>>) -> Result<(), SamplerError> {
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
}

impl<T: Element + Number> Live<'_, T> {
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
        let Method { spec, setting: Setting { target, stream, .. }, step_size } = *self.method;
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
