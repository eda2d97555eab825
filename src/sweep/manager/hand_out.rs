//! Units and targets on their way to slots.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::Manager;
use super::muster::send;
use crate::sampler::Role;
use crate::sweep::execute::Loaded;
use crate::sweep::graph::UnitKind;
use crate::sweep::scheduler::{Slot, UnitId};
use crate::sweep::unit::{End, Failure, Order, Outcome, RunShare, Sampling, Task, ToWorker};
use crate::sweep::{MANAGER, SweepError, files};
use crate::target::Target;

impl Manager<'_> {
    pub(super) fn assign(&mut self, slot: Slot, unit: UnitId) -> Result<(), SweepError> {
        let kind = self.graph.kind(unit);
        if let Some(target) = kind.target(&self.plan) {
            if let Err(error) = self.bring(target, slot.rank) {
                return match error {
                    SweepError::Comm(_) | SweepError::Wire(_) => Err(error),
                    // Of this unit alone: others may be at hand where they are needed.
                    error => self.cannot_run(slot, unit, &error),
                };
            }
            self.is_given(unit);
        }
        if let UnitKind::Chain(run, _) | UnitKind::Chains(run) | UnitKind::Control(run) = kind {
            self.share(run, slot.rank)?;
        }
        let task = self.task(kind);
        log::debug!("{} goes to rank {}, slot {}", kind.describe(&self.plan), slot.rank, slot.index);
        let attempt = self.attempts.get(&unit).copied().unwrap_or(0);
        let resume = self.resume.remove(&unit);
        let order = Order { unit, name: kind.name(&self.plan), task: Box::new(task), attempt, resume };
        self.board.give(slot, unit, Instant::now());
        if slot.rank == MANAGER {
            self.pool.give(slot.index, order);
            return Ok(());
        }
        send(self.comm, slot.rank, &ToWorker::Run { slot: slot.index, order })
    }

    /// Counts a unit that needs no target any more: handed out, or found done. After the last of its target,
    /// the target is let go.
    pub(super) fn is_given(&mut self, unit: UnitId) {
        let Some(target) = self.graph.kind(unit).target(&self.plan) else { return };
        if self.given.insert(unit) {
            self.unassigned[target] -= 1;
            if self.unassigned[target] == 0 {
                self.targets[target] = None;
            }
        }
    }

    /// Fails a unit whose target cannot be read back.
    fn cannot_run(&mut self, slot: Slot, unit: UnitId, error: &SweepError) -> Result<(), SweepError> {
        let end = End::Failed(Failure::by_surroundings(error.to_string()));
        self.attempts.insert(unit, u32::MAX);
        self.board.give(slot, unit, Instant::now());
        self.settle(slot, unit, Outcome { end, seconds: 0.0, host: String::new(), attempt: u32::MAX })
    }

    /// Sees to it that a rank holds a target, once. One whose units were all handed out before is read back
    /// from the store: it is on disk before it is sampled.
    fn bring(&mut self, index: usize, rank: usize) -> Result<(), SweepError> {
        if !self.holders[index].insert(rank) {
            return Ok(());
        }
        let target = match &self.targets[index] {
            Some(target) => Target::clone(target),
            None => match files::find_target(self.store, &self.plan.targets[index]) {
                Ok(target) => target,
                Err(error) => {
                    self.holders[index].remove(&rank);
                    return Err(error);
                }
            },
        };
        if rank == MANAGER {
            self.pool.cache.targets.insert(index as u32, Loaded::new(target));
            return Ok(());
        }
        send(self.comm, rank, &ToWorker::Target { index: index as u32, target: Box::new(target) })
    }

    /// Sees to it that a rank holds what the chains of a run share, once.
    fn share(&mut self, run: usize, rank: usize) -> Result<(), SweepError> {
        let gathering = &mut self.gathering[run];
        if !gathering.holders.insert(rank) {
            return Ok(());
        }
        let adapted = gathering.adapted.as_ref().map(|(adapted, ..)| Arc::clone(adapted)).unwrap_or_default();
        let (share, run) = (RunShare { sampling: self.sampling(run), adapted }, run as u32);
        if rank == MANAGER {
            self.pool.cache.shares.insert(run, share);
            return Ok(());
        }
        send(self.comm, rank, &ToWorker::Share { run, share: Box::new(share) })
    }

    /// Of a run that is over, ranks that hold no unit of it let go of what its chains share.
    pub(super) fn unshare(&mut self, run: usize) -> Result<(), SweepError> {
        if !self.gathering[run].over || self.gathering[run].holders.is_empty() {
            return Ok(());
        }
        let busy = self.board.ranks_with(|unit| self.graph.kind(unit).run() == Some(run));
        let holders = std::mem::take(&mut self.gathering[run].holders);
        let (stay, go) = holders.into_iter().partition(|rank| busy.contains(rank));
        self.gathering[run].holders = stay;
        for rank in BTreeSet::<usize>::into_iter(go) {
            if rank == MANAGER {
                self.pool.cache.shares.remove(run as u32);
            } else {
                send(self.comm, rank, &ToWorker::Unshare { run: run as u32 })?;
            }
        }
        Ok(())
    }

    /// One run of a target is over; after the last, nobody needs the target any more.
    pub(super) fn forget(&mut self, index: usize) -> Result<(), SweepError> {
        self.waiting[index] -= 1;
        if self.waiting[index] > 0 {
            return Ok(());
        }
        self.targets[index] = None;
        for rank in std::mem::take(&mut self.holders[index]) {
            if rank == MANAGER {
                self.pool.cache.targets.remove(index as u32);
            } else {
                send(self.comm, rank, &ToWorker::Forget { index: index as u32 })?;
            }
        }
        Ok(())
    }

    fn sampling(&self, run: usize) -> Sampling {
        let run = &self.plan.runs[run];
        Sampling {
            target: run.target as u32,
            sampler: run.sampler.clone(),
            posterior: run.posterior.clone(),
            stream: run.stream.0,
            chosen: run.chosen.as_deref().cloned(),
        }
    }

    fn task(&self, kind: UnitKind) -> Task {
        let chain = |run: usize, chain: u32, role: Role| Task::Chain {
            run: run as u32,
            chain,
            role,
            pauses: self.pauses(run, role),
        };
        let on_device =
            |run: usize, chains: usize, role: Role| Task::OnDevice { run: run as u32, chains, role };
        match kind {
            UnitKind::Build(t) => {
                let target = &self.plan.targets[t];
                Task::Build {
                    id: target.id.0,
                    spec: target.spec.clone(),
                    external: target.external.clone(),
                    bytes: target.bytes(),
                }
            }
            UnitKind::Warmup(r) => Task::Warmup(self.sampling(r)),
            UnitKind::Chain(r, c) => chain(r, c, Role::Main),
            UnitKind::Chains(r) => on_device(r, self.plan.runs[r].sampler.chains, Role::Main),
            // In the same arithmetic as the chains that it checks.
            UnitKind::Control(r) if self.plan.runs[r].device.is_some() => on_device(r, 1, Role::Control),
            UnitKind::Control(r) => chain(r, 0, Role::Control),
        }
    }
}
