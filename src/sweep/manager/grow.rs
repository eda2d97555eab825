//! Runs that join the plan on the way.

use std::sync::Arc;

use super::gates::Gates;
use super::{Gathering, Manager};
use crate::sweep::plan::PlannedRun;
use crate::sweep::report::{RunReport, RunState};
use crate::sweep::survey::{self, Found};
use crate::sweep::unit::Failure;
use crate::sweep::writer::Job;
use crate::sweep::{Proposer, SweepError};

impl Gathering {
    /// Nothing has come in yet.
    pub(super) fn of(run: &PlannedRun) -> Self {
        Self {
            chains: vec![None; run.sampler.chains],
            missing: run.chain_units() + usize::from(run.control),
            gates: Gates::of(run.sampler.chains),
            ..Self::default()
        }
    }
}

impl Manager<'_> {
    /// Tells of the runs that have ended since.
    pub(super) fn tell(&mut self, proposer: &mut dyn Proposer) -> Result<(), SweepError> {
        for index in std::mem::take(&mut self.untold) {
            let Some(report) = self.reports[index].clone() else { continue };
            if index >= self.first_joined {
                proposer.ended(&self.plan, index, &report)?;
            }
            let report = RunReport { executed: false, ..report };
            let twins: Vec<usize> =
                self.twins.extract_if(.., |(_, of)| *of == index).map(|(i, _)| i).collect();
            for index in twins {
                proposer.ended(&self.plan, index, &report)?;
                self.reports[index] = Some(report.clone());
            }
            self.may_grow = true;
        }
        Ok(())
    }

    /// Asks for more runs, where something has changed since that was last done and every target is there
    /// or has failed.
    pub(super) fn grow(&mut self, proposer: &mut dyn Proposer) -> Result<(), SweepError> {
        if !self.may_grow || !self.graph.builds_are_over() {
            return Ok(());
        }
        self.may_grow = false;
        loop {
            let proposed = proposer.propose(&self.plan)?;
            if proposed.is_empty() {
                return Ok(());
            }
            let first = self.plan.runs.len();
            self.plan = Arc::new(self.plan.with(proposed));
            // Not counted: the writer says nothing to it.
            self.backlog.push_back(Job::Plan(Arc::clone(&self.plan)));
            for index in first..self.plan.runs.len() {
                if let Some(report) = self.join(index)? {
                    proposer.ended(&self.plan, index, &report)?;
                    self.reports[index] = Some(report);
                }
            }
        }
    }

    /// Takes in the next run of the plan; its report, where there is nothing to be done.
    fn join(&mut self, index: usize) -> Result<Option<RunReport>, SweepError> {
        let plan = Arc::clone(&self.plan);
        let run = &plan.runs[index];
        let mut lost = self.failed_targets.iter().chain(&self.lost_targets);
        let found = match lost.find(|(target, _)| *target == run.target) {
            Some((_, failure)) => Found::Failed(failure.clone()),
            None => survey::find_run(&plan, run, self.store, self.options.retry_failed)?,
        };
        self.gathering.push(Gathering::of(run));
        self.reports.push(None);
        if let Some(twin) = plan.runs[..index].iter().position(|other| other.id == run.id) {
            self.graph.add_nothing(&plan, index);
            if self.reports[twin].is_none() {
                self.twins.push((index, twin));
            }
            return Ok(self.reports[twin].clone().map(|report| RunReport { executed: false, ..report }));
        }
        let told = |state| Ok(Some(RunReport::found(state)));
        match found {
            Found::Done(Some(analysis)) => {
                self.graph.add_nothing(&plan, index);
                told(RunState::Done(analysis))
            }
            Found::Failed(failure) => {
                self.graph.add_nothing(&plan, index);
                told(RunState::Failed(failure))
            }
            Found::Done(None) | Found::Missing => {
                self.graph.add_run(&plan, &self.costs, index);
                self.is_over.resize(self.graph.len(), false);
                self.waiting[run.target] += 1;
                self.unassigned[run.target] += run.units();
                self.to_do += run.units();
                for (kind, offer) in survey::offers_of_run(&plan, &self.dirs, index, &Found::Missing)? {
                    if let Some(unit) = self.graph.unit(kind) {
                        self.offer(unit, offer);
                    }
                }
                Ok(None)
            }
        }
    }
}

/// Targets that an earlier launch could not build, and why.
pub(super) fn lost(found: &[Found<crate::target::Target>]) -> Vec<(usize, Failure)> {
    let failed = |(index, found): (usize, &Found<_>)| match found {
        Found::Failed(failure) => Some((index, failure.clone())),
        _ => None,
    };
    found.iter().enumerate().filter_map(failed).collect()
}
