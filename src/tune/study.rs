//! One study: trials of one method on one problem, as a pure state machine.
//!
//! Trials are numbered in the order of their proposals. With a batch of B, at most B are in flight, and
//! proposal k is made from the outcomes of exactly the trials 0 … k − B, whatever else has ended by then;
//! those from k − B + 1 to k − 1 are its *liars*, points that are known without an outcome. Outcomes that
//! come early are held until all smaller numbers have theirs. So proposals, and the order of
//! [`Event`]s, are the same for any order of arrival.
//!
//! Trials are deterministic: one with the parameters of an earlier one is its *twin* and is settled with
//! the earlier one's outcome instead of being run.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;

use super::grid::{self, grid, shuffle};
use super::pareto;
use super::pruner::{Past, Rule, Step, rule};
use super::space::{Params, Point, Space, SpaceError};
use super::tpe::{self, Seen};
use crate::config::tune::{StudySpec, TuneSampler};
use crate::num::rng::{Key, Purpose};
use crate::store::Hash;

/// How a trial ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// With these values, one an objective.
    Complete(Vec<f64>),
    /// Given up by its rule.
    Pruned,
    /// It failed; the reason in words.
    Failed(String),
}

/// What a trial came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// Intermediate values, by ascending step.
    pub steps: Vec<Step>,
    /// What else is known of it, such as its work: becomes the trial's user attributes.
    pub notes: BTreeMap<String, serde_json::Value>,
}

impl Outcome {
    /// An outcome of these values.
    pub fn complete(values: &[f64]) -> Self {
        Self { end: End::Complete(values.to_vec()), steps: Vec::new(), notes: BTreeMap::new() }
    }

    /// A failure.
    pub fn failed(reason: impl Into<String>) -> Self {
        Self { end: End::Failed(reason.into()), steps: Vec::new(), notes: BTreeMap::new() }
    }

    /// The value that stands for it in tables: of a trial that was given up its last one on the way.
    pub fn value(&self) -> Option<f64> {
        match &self.end {
            End::Complete(values) => values.first().copied(),
            End::Pruned => self.steps.last().map(|(_, value)| *value),
            End::Failed(_) => None,
        }
    }

    /// As it is recorded: values that are no numbers make a failure, and intermediate ones are left out.
    fn checked(mut self, values: usize) -> Self {
        self.steps.retain(|(_, value)| value.is_finite());
        self.steps.sort_by_key(|(step, _)| *step);
        self.steps.dedup_by_key(|(step, _)| *step);
        if let End::Complete(found) = &self.end {
            if found.len() != values {
                let reason = format!("{} values for {values} objectives", found.len());
                self.end = End::Failed(reason);
            } else if let Some(value) = found.iter().find(|v| !v.is_finite()) {
                self.end = End::Failed(format!("the objective is {value}"));
            }
        }
        self
    }
}

/// A trial of a study.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// Its number, from 0.
    pub number: usize,
    /// `r_` and 12 hex digits: the same for the same parameters.
    pub id: String,
    /// Its parameters.
    pub params: Params,
    /// The earlier trial of the same parameters.
    pub twin: Option<usize>,
    /// What it came to, as far as told.
    pub outcome: Option<Outcome>,
    point: Point,
    /// Its outcome stands in the journal.
    recorded: bool,
}

impl Trial {
    /// Its parameters as a point of the space.
    pub fn point(&self) -> &[Option<f64>] {
        &self.point
    }
}

/// A trial to be run.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// Its number.
    pub number: usize,
    /// Its id.
    pub id: String,
    /// Its parameters.
    pub params: Params,
    /// Numbers of the trials whose points were known without an outcome.
    pub liars: Vec<usize>,
    /// When it is to be given up.
    pub rule: Rule,
}

/// What happened, in an order that does not depend on that of arrival; for the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// This trial was proposed.
    Proposed(usize),
    /// This trial and all before it have their outcomes.
    Settled(usize),
}

/// What a study cannot do.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum StudyError {
    /// The search space.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// A grid of too many points.
    #[error("the grid has more than {} points; lower `points` or leave parameters out", grid::LARGEST)]
    Grid,
    /// An outcome for a trial that was not handed out.
    #[error("trial {0} was never proposed")]
    Unknown(usize),
    /// An outcome for a trial that has one.
    #[error("trial {0} has its outcome already")]
    Told(usize),
    /// A trial on record that is none of this study's.
    #[error("trial {number} on record is not this study's: {why}")]
    Foreign {
        /// Its number.
        number: usize,
        /// Why.
        why: String,
    },
}

/// A trial on record, from which a study is taken up again.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// Its parameters.
    pub params: Params,
    /// Its outcome, if it had one.
    pub outcome: Option<Outcome>,
}

/// The id of the trial with these parameters in the study `name`.
pub fn trial_id(name: &str, params: &Params) -> String {
    let text = serde_json::json!([name, params]).to_string();
    format!("r_{}", Hash::of(text.as_bytes()).short(12))
}

/// A study.
#[derive(Clone, Debug)]
pub struct Study {
    name: String,
    space: Space,
    spec: StudySpec,
    id: Hash,
    grid: Vec<Point>,
    trials: Vec<Trial>,
    /// The first trial of each point.
    tried: HashMap<Vec<u64>, usize>,
    /// Trials 0 … settled − 1 have outcomes that proposals may know.
    settled: usize,
    /// Proposed, to be run, and not yet handed out.
    ready: VecDeque<usize>,
    events: Vec<Event>,
}

fn bits(point: &[Option<f64>]) -> Vec<u64> {
    // A bit pattern that no finite number has stands for nothing.
    point.iter().map(|value| value.map_or(u64::MAX, f64::to_bits)).collect()
}

impl Study {
    /// The study `name` (problem and method: `p_<12>:<method>`) of this space.
    ///
    /// # Errors
    /// A grid of more than [`grid::LARGEST`] points.
    pub fn new(name: &str, space: Space, spec: &StudySpec) -> Result<Self, StudyError> {
        Self::resume(name, space, spec, &[])
    }

    /// The study as it was when these trials, in the order of their numbers, stood on record. Those without
    /// an outcome are handed out again.
    ///
    /// # Errors
    /// As [`Study::new`], and a trial on record with parameters that are no point of the space.
    pub fn resume(
        name: &str,
        space: Space,
        spec: &StudySpec,
        recorded: &[Recorded],
    ) -> Result<Self, StudyError> {
        let id = Hash::of(made_with(name, &space, spec).to_string().as_bytes());
        let mut study = Self {
            name: name.to_owned(),
            id,
            grid: Vec::new(),
            trials: Vec::new(),
            tried: HashMap::new(),
            settled: 0,
            ready: VecDeque::new(),
            events: Vec::new(),
            spec: spec.clone(),
            space,
        };
        if let TuneSampler::Grid { points } = spec.sampler {
            study.grid = grid(&study.space, points).ok_or(StudyError::Grid)?;
            if study.grid.len() > spec.max_trials {
                let mut rng = study.key(Purpose::Grid).at(0);
                shuffle(&mut study.grid, &mut rng);
            }
        }
        for (number, trial) in recorded.iter().enumerate() {
            let foreign = |e: SpaceError| StudyError::Foreign { number, why: e.to_string() };
            let point = study.space.point(&trial.params).map_err(foreign)?;
            study.add(point);
            if let (Some(outcome), Some(added)) = (&trial.outcome, study.trials.last_mut()) {
                added.outcome = Some(outcome.clone());
                added.recorded = true;
            }
        }
        study.ready.retain(|&number| study.trials[number].outcome.is_none());
        study.events.clear();
        study.advance();
        Ok(study)
    }

    fn key(&self, purpose: Purpose) -> Key {
        Key::new(self.id.0, purpose, 0)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Hash of all that its proposals depend on.
    pub fn id(&self) -> Hash {
        self.id
    }

    /// All that its proposals depend on but its name, for people: parameters are found by their names.
    pub fn settings(&self) -> Value {
        let mut settings = made_with(&self.name, &self.space, &self.spec);
        if let Value::Object(fields) = &mut settings {
            fields.remove("name");
            fields.remove("space");
            let by_name = self.space.dimensions().iter().map(|d| (d.name.clone(), json!(d)));
            fields.insert("search_space".to_owned(), Value::Object(by_name.collect()));
        }
        settings
    }

    /// Its search space.
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// What it was made with.
    pub fn spec(&self) -> &StudySpec {
        &self.spec
    }

    /// All trials proposed so far.
    pub fn trials(&self) -> &[Trial] {
        &self.trials
    }

    /// The next trial to be run; `None` while others must end first, and after the last.
    pub fn ask(&mut self) -> Option<Proposal> {
        let number = self.ready.pop_front()?;
        let known = self.known(number);
        let past: Vec<Past<'_>> = self.trials[..known]
            .iter()
            .filter_map(|trial| {
                let outcome = trial.outcome.as_ref()?;
                let complete = matches!(outcome.end, End::Complete(_));
                Some(Past { number: trial.number, complete, steps: &outcome.steps })
            })
            .collect();
        let trial = &self.trials[number];
        Some(Proposal {
            number,
            id: trial.id.clone(),
            params: trial.params.clone(),
            liars: (known..number).collect(),
            rule: rule(&self.spec.pruner, self.id.0, number, &past),
        })
    }

    /// Takes a trial's outcome. Values that are no numbers are recorded as a failure.
    ///
    /// # Errors
    /// The trial was never proposed, or has its outcome already.
    pub fn tell(&mut self, number: usize, outcome: Outcome) -> Result<(), StudyError> {
        let values = self.spec.objective.values();
        let trial = self.trials.get_mut(number).ok_or(StudyError::Unknown(number))?;
        if trial.outcome.is_some() {
            return Err(StudyError::Told(number));
        }
        trial.outcome = Some(outcome.checked(values));
        self.ready.retain(|&waiting| waiting != number);
        self.advance();
        Ok(())
    }

    /// What happened since the last call.
    pub fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Whether every trial has its outcome.
    pub fn is_done(&self) -> bool {
        self.settled == self.last()
    }

    /// Trials 0 … this − 1 have their outcomes.
    pub fn settled(&self) -> usize {
        self.settled
    }

    /// The completed trial with the least value, the earlier of equals; of studies with one objective.
    pub fn best(&self) -> Option<&Trial> {
        let complete = self.complete().filter(|(_, values)| values.len() == 1);
        complete.min_by(|a, b| a.1[0].total_cmp(&b.1[0])).map(|(trial, _)| trial)
    }

    /// The completed trials that no other dominates, by number; of studies with two objectives.
    pub fn front(&self) -> Vec<&Trial> {
        let complete: Vec<(&Trial, &[f64])> = self.complete().filter(|(_, v)| v.len() == 2).collect();
        let points: Vec<[f64; 2]> = complete.iter().map(|(_, v)| [v[0], v[1]]).collect();
        let ranks = pareto::ranks(&points);
        complete.iter().zip(ranks).filter(|(_, rank)| *rank == 0).map(|((trial, _), _)| *trial).collect()
    }

    fn complete(&self) -> impl Iterator<Item = (&Trial, &[f64])> {
        self.trials[..self.settled].iter().filter_map(|trial| match &trial.outcome {
            Some(Outcome { end: End::Complete(values), .. }) => Some((trial, values.as_slice())),
            _ => None,
        })
    }

    /// Number of trials there will be.
    pub fn last(&self) -> usize {
        let most = match self.spec.sampler {
            TuneSampler::Grid { .. } => self.grid.len().min(self.spec.max_trials),
            _ => self.spec.max_trials,
        };
        most.max(self.trials.len())
    }

    /// Number of outcomes that proposal `number` is made from.
    fn known(&self, number: usize) -> usize {
        (number + 1).saturating_sub(self.spec.batch_size.max(1))
    }

    /// Proposes what may be, and settles one trial after the other.
    fn advance(&mut self) {
        loop {
            while self.trials.len() < self.last() && self.known(self.trials.len()) <= self.settled {
                let point = self.propose(self.trials.len());
                self.add(point);
            }
            let Some(trial) = self.trials.get(self.settled) else { return };
            if let (None, Some(twin)) = (&trial.outcome, trial.twin) {
                // Settled long ago: its number is smaller.
                let outcome = self.trials[twin].outcome.clone();
                self.trials[self.settled].outcome = outcome;
            }
            let trial = &mut self.trials[self.settled];
            if trial.outcome.is_none() {
                return;
            }
            if !trial.recorded {
                self.events.push(Event::Settled(self.settled));
                trial.recorded = true;
            }
            self.settled += 1;
        }
    }

    fn add(&mut self, point: Point) {
        let number = self.trials.len();
        let params = self.space.params(&point);
        let first = *self.tried.entry(bits(&point)).or_insert(number);
        let twin = (first != number).then_some(first);
        if twin.is_none() {
            self.ready.push_back(number);
        }
        let id = trial_id(&self.name, &params);
        self.trials.push(Trial { number, id, params, twin, outcome: None, point, recorded: false });
        self.events.push(Event::Proposed(number));
    }

    fn propose(&self, number: usize) -> Point {
        let mut rng = self.key(Purpose::Proposal).at(number as u64);
        let is_new = |point: &[Option<f64>]| !self.tried.contains_key(&bits(point));
        match &self.spec.sampler {
            TuneSampler::Grid { .. } => self.grid[number].clone(),
            TuneSampler::Random => tpe::fresh(&self.space, &mut rng, &is_new),
            TuneSampler::Tpe(settings) => {
                let known = self.known(number);
                let seen: Vec<Seen<'_>> = self.trials[..number]
                    .iter()
                    .map(|trial| {
                        let outcome = trial.outcome.as_ref().filter(|_| trial.number < known);
                        let end = match outcome.map(|o| (&o.end, o.steps.last())) {
                            None => tpe::End::Pending,
                            Some((End::Complete(values), _)) => tpe::End::Complete(values),
                            Some((End::Pruned, last)) => tpe::End::Pruned(last.copied()),
                            Some((End::Failed(_), _)) => tpe::End::Failed,
                        };
                        Seen { point: &trial.point, end }
                    })
                    .collect();
                let start = self.key(Purpose::Startup).at(0);
                tpe::propose(&self.space, &seen, settings, (number as u64, &mut rng), &start, &is_new)
            }
        }
    }
}

/// What proposals and outcomes depend on; the number of trials is not among it, so that a study can be
/// made longer.
fn made_with(name: &str, space: &Space, spec: &StudySpec) -> Value {
    json!({
        "name": name,
        "space": space.dimensions(),
        "sampler": spec.sampler,
        "seed": spec.seed,
        "batch_size": spec.batch_size,
        "pruner": spec.pruner,
        "objective": spec.objective,
    })
}

#[cfg(test)]
mod tests;
