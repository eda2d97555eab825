//! What all samplers share on a device: groups of chains that run together, looks, checkpoints, fewer chains at a time.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::super::chain::Iterations;
use super::super::{ChainOutcome, SamplerError};
use crate::device::gpu::{DeviceError, Place};
use crate::resume::{Desk, Progress};
use crate::target::DeviceNetworkError;
use crate::trace::ChainTrace;

/// Chains that one launch takes at most: a grid's second side.
const MOST_CHAINS: usize = 65_535;
/// How long the device is left alone: longer than what a look costs, shorter than anybody waits.
const LEFT_ALONE: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(80)];

/// A sampler on a device: what its launches are made of.
pub trait OnDevice {
    /// Everything a restart of a chain needs.
    type State: Serialize + DeserializeOwned;

    /// Length of a chain.
    fn iterations(&self) -> Iterations;

    /// Columns of the trace.
    fn columns(&self) -> usize;

    /// A chain at w*.
    fn start(&self) -> Self::State;

    /// Brings a group to the device.
    fn open<'a>(
        &'a self,
        place: &'a dyn Place,
        group: &Group<Self::State>,
    ) -> Result<Box<dyn Live<Self::State> + 'a>, SamplerError>;

    /// A chain that is done.
    fn outcome(&self, chain: Chain<Self::State>) -> Result<ChainOutcome, SamplerError>;
}

/// A group of chains in the device's memory.
pub trait Live<S> {
    /// Makes some launches, then looks at what they gave: draws go into the chains' traces.
    fn advance(&mut self, group: &mut Group<S>, pace: &mut Pace) -> Result<(), SamplerError>;

    /// Takes the chains' states from the device.
    fn fetch(&self, group: &mut Group<S>) -> Result<(), SamplerError>;
}

/// How much is queued between two looks at the device. No bit depends on it.
#[derive(Debug)]
pub struct Pace(usize);

impl Default for Pace {
    fn default() -> Self {
        Self(1)
    }
}

impl Pace {
    /// Launches, or rounds of them.
    pub fn now(&self) -> usize {
        self.0
    }

    /// After a look that took so long; `most` may be queued.
    pub fn learn(&mut self, took: Duration, most: usize) {
        if took < LEFT_ALONE[0] {
            self.0 = (2 * self.0).min(most);
        } else if took > LEFT_ALONE[1] {
            self.0 = (self.0 / 2).max(1);
        }
    }
}

/// A run on its way: serialise it, and it goes on from there with the same bits.
#[derive(Debug, Serialize, Deserialize)]
struct Saved<S> {
    /// On what it was begun.
    arithmetic: String,
    /// In order of their chains.
    groups: Vec<Group<S>>,
}

/// Neighbouring chains that run together.
#[derive(Debug, Serialize, Deserialize)]
pub struct Group<S> {
    /// Number of the first.
    pub first: u32,
    /// Iterations that all of them have done.
    pub iteration: u64,
    pub chains: Vec<Chain<S>>,
}

/// One of them. Its state is that of the last look at the device.
#[derive(Debug, Serialize, Deserialize)]
pub struct Chain<S> {
    pub state: S,
    pub trace: ChainTrace,
}

impl<S> Saved<S> {
    fn start(method: &impl OnDevice<State = S>, chains: usize, arithmetic: String) -> Self {
        let draws = method.iterations().draws;
        let chain =
            |_| Chain { state: method.start(), trace: ChainTrace::with_capacity(method.columns(), draws) };
        let group = |first: usize| Group {
            first: first as u32,
            iteration: 0,
            chains: (first..chains.min(first + MOST_CHAINS)).map(chain).collect(),
        };
        Self { groups: (0..chains).step_by(MOST_CHAINS).map(group).collect(), arithmetic }
    }

    fn progress(&self, total: u64) -> Progress {
        let sum = |of: &dyn Fn(&Group<S>) -> u64| {
            self.groups.iter().map(|group| of(group) * group.chains.len() as u64).sum()
        };
        Progress { iteration: sum(&|group| group.iteration), total: sum(&|_| total) }
    }

    /// Cuts a group in two.
    fn halve(&mut self, at: usize) {
        let group = &mut self.groups[at];
        let chains = group.chains.split_off(group.chains.len().div_ceil(2));
        let first = group.first + group.chains.len() as u32;
        let half = Group { first, iteration: group.iteration, chains };
        self.groups.insert(at + 1, half);
    }
}

/// Runs chains `0 .. chains` from w*, or from where `desk` has them, to their end.
pub fn drive<M: OnDevice>(
    place: &dyn Place,
    method: &M,
    chains: usize,
    desk: &mut Desk<'_>,
) -> Result<Vec<ChainOutcome>, SamplerError> {
    let Iterations { total, .. } = method.iterations();
    let arithmetic = place.info().arithmetic();
    let mut saved = match desk.part::<Saved<M::State>>()? {
        Some(saved) if saved.arithmetic == arithmetic => saved,
        before => {
            if let Some(Saved { arithmetic: other, .. }) = before {
                log::warn!("a checkpoint from {other} does not go on on {arithmetic}: the chains start over");
            }
            Saved::start(method, chains, arithmetic)
        }
    };
    while let Some(at) = saved.groups.iter().position(|group| group.iteration < total) {
        let together = saved.groups[at].chains.len();
        let mut live = match method.open(place, &saved.groups[at]) {
            Err(SamplerError::Device(DeviceNetworkError::Device(DeviceError::OutOfMemory { bytes })))
                if together > 1 =>
            {
                saved.halve(at);
                let fewer = saved.groups[at].chains.len();
                log::warn!(
                    "{}: no room for {bytes} bytes of {together} chains in the device's memory; {fewer} run at a time",
                    place.info().name
                );
                continue;
            }
            opened => opened?,
        };
        let mut pace = Pace::default();
        while saved.groups[at].iteration < total {
            live.advance(&mut saved.groups[at], &mut pace)?;
            desk.pulse_with(saved.progress(total), || {
                live.fetch(&mut saved.groups[at])?;
                Ok::<_, SamplerError>(postcard::to_stdvec(&saved)?)
            })?;
        }
        live.fetch(&mut saved.groups[at])?;
    }
    saved.groups.into_iter().flat_map(|group| group.chains).map(|chain| method.outcome(chain)).collect()
}
