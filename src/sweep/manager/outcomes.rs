//! What the manager makes of what comes in: units that ended, checkpoints, what the writer has written.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::keepsakes::File;
use super::muster::send;
use super::{Manager, Offer};
use crate::sweep::graph::UnitKind;
use crate::sweep::report::{Progress, RunReport};
use crate::sweep::scheduler::{Event, Slot, UnitId};
use crate::sweep::source::WorkSource;
use crate::sweep::survey::checkpoint;
use crate::sweep::unit::{End, Failure, Outcome, Output, Product, ToWorker};
use crate::sweep::writer::{ChainPart, Job, RunParts, Written};
use crate::sweep::{MANAGER, SweepError};

/// How long a rank may take to put a new thread in the place of one that does not answer.
const RANK_PATIENCE: Duration = Duration::from_secs(5);

impl Manager<'_> {
    /// A slot has ended a unit.
    pub(super) fn settle(&mut self, slot: Slot, unit: UnitId, outcome: Outcome) -> Result<(), SweepError> {
        self.board.take(slot, unit, Instant::now());
        // A slot that was given up for lost may answer after all; the same bits come in once.
        let again = !self.is_over[unit as usize] && self.end(slot, unit, outcome)?;
        if let Some(run) = self.graph.kind(unit).run() {
            self.unshare(run)?;
        }
        self.feed(Event::Finished { slot, unit })?;
        if again { self.retry(unit, slot) } else { Ok(()) }
    }

    /// A unit has ended; whether it is to be tried again.
    fn end(&mut self, slot: Slot, unit: UnitId, outcome: Outcome) -> Result<bool, SweepError> {
        let kind = self.graph.kind(unit);
        let plan = Arc::clone(&self.plan);
        // Only where it is said: there may be thousands a second.
        let what = || kind.describe(&plan);
        let host = &outcome.host;
        match &outcome.end {
            End::Interrupted => {
                log::info!("{} stopped on the way", what());
                return Ok(false);
            }
            // A slot that was given up has woken up and failed: another is at it.
            End::Failed(_) if outcome.attempt < self.attempts.get(&unit).copied().unwrap_or(0) => {
                return Ok(false);
            }
            // The next launch tries again.
            End::Failed(failure) if !failure.settled && self.stopping.is_some() => return Ok(false),
            End::Failed(failure) if !failure.settled && self.may_retry(unit) => {
                log::warn!("{} failed on rank {}: {}; it is tried again", what(), slot.rank, failure.reason);
                return Ok(true);
            }
            End::Paused(_) => {
                log::debug!("{} waits", what());
                if let End::Paused(pause) = outcome.end {
                    self.wait(unit, pause, outcome.seconds);
                }
                return Ok(false);
            }
            End::Done(_) => log::info!("{} done on {host} in {:.3} s", what(), outcome.seconds),
            End::Failed(_) => log::info!("{} failed on {host} in {:.3} s", what(), outcome.seconds),
        }
        self.is_over[unit as usize] = true;
        self.executed += 1;
        match outcome.end {
            End::Done(output) => {
                if let Output::Adapted(a) = &output {
                    log::info!("  step size {:e}, {:.1} FGE", a.step_size, a.fge);
                }
                let product = Product { output, seconds: outcome.seconds, host: outcome.host };
                if self.is_worth_keeping(kind) {
                    self.keepsakes.add(kind.name(&self.plan), product.clone(), Instant::now());
                }
                self.take(kind, product);
                // A target may be sampled once it is on disk: made again, it must be the recorded one.
                if !matches!(kind, UnitKind::Build(_)) {
                    self.graph.settled(unit, true);
                }
            }
            End::Failed(failure) => {
                self.graph.settled(unit, false);
                match kind {
                    UnitKind::Chain(run, _) | UnitKind::Control(run)
                        if failure.settled && run >= self.first_joined =>
                    {
                        self.fail_in_order(kind, failure);
                    }
                    _ => self.fail(kind, failure),
                }
            }
            End::Interrupted | End::Paused(_) => {}
        }
        self.observer.progress(&Progress::Unit { done: self.executed, total: self.to_do });
        Ok(false)
    }

    /// Whether an outcome must not be lost before its run is on disk: all but a run's last.
    fn is_worth_keeping(&self, kind: UnitKind) -> bool {
        let last = |run: usize| self.gathering[run].missing == 1 || self.gathering[run].over;
        match kind {
            UnitKind::Build(_) => false,
            UnitKind::Warmup(_) => true,
            UnitKind::Chain(run, _) | UnitKind::Chains(run) | UnitKind::Control(run) => !last(run),
        }
    }

    /// Has the writer keep the products that wait.
    pub(super) fn keep(&mut self) {
        for File { owner, name: file, products } in self.keepsakes.take() {
            self.write(Job::KeepProducts { owner, file, products });
        }
    }

    fn may_retry(&self, unit: UnitId) -> bool {
        self.attempts.get(&unit).copied().unwrap_or(0) < self.options.retries
    }

    /// Has a unit run again, elsewhere where there is an elsewhere.
    pub(super) fn retry(&mut self, unit: UnitId, avoid: Slot) -> Result<(), SweepError> {
        let attempts = self.attempts.entry(unit).or_insert(0);
        *attempts += 1;
        // From where it was; should that be what it stumbles over, then from the start.
        if *attempts == 1 {
            self.go_on_from_disk(unit);
        }
        self.feed(Event::Retry { unit, avoid })
    }

    fn go_on_from_disk(&mut self, unit: UnitId) {
        if let Some(state) = checkpoint(&self.dirs, &self.graph.kind(unit).name(&self.plan)) {
            self.resume.insert(unit, state);
        }
    }

    /// A slot that was lost has a new thread.
    pub(super) fn revive(&mut self, slot: Slot) -> Result<(), SweepError> {
        self.board.revive(slot, Instant::now());
        self.feed(Event::SlotUp(slot))
    }

    /// Slots that have given no sign for too long are given up, and their units run elsewhere.
    pub(super) fn look_after_slots(&mut self) -> Result<(), SweepError> {
        let Some(patience) = self.options.unit_timeout else { return Ok(()) };
        for (slot, units) in self.board.newly_lost(Instant::now(), patience) {
            log::warn!(
                "slot {} of rank {} has given no sign for {} s (--unit-timeout) and is given up",
                slot.index,
                slot.rank,
                patience.as_secs_f64()
            );
            self.lost.push(slot);
            self.last_loss = Some(Instant::now());
            self.feed(Event::SlotDown(slot))?;
            for (place, unit) in units.into_iter().enumerate() {
                if place > 0 {
                    // It had not begun.
                    self.go_on_from_disk(unit);
                    self.feed(Event::Retry { unit, avoid: slot })?;
                } else if self.may_retry(unit) {
                    self.retry(unit, slot)?;
                } else {
                    let reason = format!(
                        "no step within {1} s on rank {0}, nor before that elsewhere; a longer --unit-timeout \
                         may help",
                        slot.rank,
                        patience.as_secs_f64()
                    );
                    let end = End::Failed(Failure::by_surroundings(reason));
                    self.attempts.insert(unit, u32::MAX);
                    let (seconds, host, attempt) = (0.0, String::new(), u32::MAX);
                    self.end(slot, unit, Outcome { end, seconds, host, attempt })?;
                }
            }
            if slot.rank == MANAGER {
                self.pool.replace(slot.index)?;
                self.revive(slot)?;
            } else {
                // A rank that is only slow answers; one that is gone does not.
                send(self.comm, slot.rank, &ToWorker::Replace { slot: slot.index })?;
            }
        }
        let patient = self.last_loss.is_some_and(|last| last.elapsed() < RANK_PATIENCE);
        if self.board.answering() == 0 && !patient && !self.graph.is_done() {
            return Err(SweepError::NoSlots);
        }
        Ok(())
    }

    /// What an earlier launch has left of a unit.
    pub(super) fn offer(&mut self, unit: UnitId, offer: Offer) {
        let kind = self.graph.kind(unit);
        match offer {
            Offer::Part(state) => {
                self.resume.insert(unit, state);
            }
            Offer::Done(product) => {
                self.is_over[unit as usize] = true;
                self.to_do -= 1;
                self.is_given(unit);
                self.take(kind, product);
                self.graph.found(unit);
            }
        }
    }

    fn take(&mut self, kind: UnitKind, Product { output, seconds, host }: Product) {
        match (kind, output) {
            (UnitKind::Build(index), Output::Target(target)) => {
                let target = Arc::new(*target);
                self.targets[index] = self.graph.needs_target(index).then(|| Arc::clone(&target));
                self.write(Job::Target { index, target, seconds, host });
            }
            (UnitKind::Warmup(run), Output::Adapted(adapted)) => {
                self.gathering[run].adapted = Some((adapted, seconds, host));
                self.conclude(run);
            }
            (UnitKind::Chain(run, chain), Output::Chain { outcome, l0 }) => {
                self.gathering[run].chains[chain as usize] = Some(ChainPart { outcome, l0, seconds, host });
                self.count_chain(run);
            }
            (UnitKind::Chains(run), Output::Chains { outcomes, l0 }) => {
                // Their seconds are each an equal share.
                let seconds = seconds / outcomes.len().max(1) as f64;
                let part = |outcome| Some(ChainPart { outcome, l0, seconds, host: host.clone() });
                self.gathering[run].chains = outcomes.into_iter().map(part).collect();
                self.count_chain(run);
            }
            (UnitKind::Control(run), Output::Chain { outcome, l0 }) => {
                self.gathering[run].control = Some(ChainPart { outcome, l0, seconds, host });
                self.count_chain(run);
            }
            (kind, _) => {
                let reason = "a slot answered with another kind of result: this is a bug, please report it";
                self.fail(kind, Failure::by_surroundings(reason));
            }
        }
    }

    fn count_chain(&mut self, run: usize) {
        self.gathering[run].missing -= 1;
        self.conclude(run);
        self.conclude_failure(run);
    }

    /// Writes a run once everything of it is there.
    fn conclude(&mut self, run: usize) {
        let gathering = &mut self.gathering[run];
        if gathering.missing > 0 || gathering.over || gathering.adapted.is_none() {
            return;
        }
        gathering.over = true;
        self.keepsakes.forget(self.plan.runs[run].id.0);
        let gathering = &mut self.gathering[run];
        let parts = RunParts {
            warmup: gathering.adapted.take(),
            chains: std::mem::take(&mut gathering.chains).into_iter().flatten().collect(),
            control: gathering.control.take(),
        };
        self.write(Job::Run { index: run, parts: Box::new(parts) });
    }

    /// Fails the run of a unit, or the target of a build.
    fn fail(&mut self, kind: UnitKind, failure: Failure) {
        match kind {
            UnitKind::Build(t) => self.write(Job::TargetFailed { index: t, failure }),
            UnitKind::Warmup(r) | UnitKind::Chain(r, _) | UnitKind::Chains(r) | UnitKind::Control(r) => {
                self.fail_runs(vec![r], &failure);
            }
        }
    }

    pub(super) fn fail_runs(&mut self, runs: Vec<usize>, failure: &Failure) {
        for run in runs {
            self.graph.drop_run(run);
            if !std::mem::replace(&mut self.gathering[run].over, true) && self.reports[run].is_none() {
                self.write(Job::RunFailed { index: run, failure: failure.clone() });
            }
        }
    }

    /// A slot has handed over a checkpoint.
    pub(super) fn save(&mut self, slot: Slot, unit: UnitId, state: Vec<u8>) {
        self.board.saved(slot, Instant::now());
        if self.is_over[unit as usize] {
            return;
        }
        let name = self.graph.kind(unit).name(&self.plan);
        let file = name.checkpoint();
        let same = |job: &&mut Job| matches!(job, Job::Keep { owner, file: f, .. } if *owner == name.owner && *f == file);
        // A disk that does not keep up gets the newest.
        match self.backlog.iter_mut().find(same) {
            Some(Job::Keep { content, .. }) => *content = state,
            _ => self.write(Job::Keep { owner: name.owner, file, content: state, durable: true }),
        }
    }

    pub(super) fn written(&mut self, written: Written) -> Result<(), SweepError> {
        self.unwritten -= 1;
        match written {
            Written::Kept => {}
            Written::Target { index, seconds } => {
                if let Some(build) = self.graph.build(index) {
                    self.graph.settled(build, true);
                }
                self.observer.progress(&Progress::Target { plan: &self.plan, index, seconds });
            }
            Written::TargetFailed { index, failure } => {
                if let Some(build) = self.graph.build(index) {
                    self.graph.settled(build, false);
                }
                let runs = (0..self.plan.runs.len()).filter(|&r| self.plan.runs[r].target == index).collect();
                self.fail_runs(runs, &failure);
                self.failed_targets.push((index, failure.clone()));
                self.observer.progress(&Progress::TargetFailed {
                    plan: &self.plan,
                    index,
                    failure: &failure,
                });
            }
            Written::Run { index, state, seconds } => {
                let report = RunReport { state, executed: true, seconds };
                self.observer.progress(&Progress::Run { plan: &self.plan, index, report: &report });
                self.reports[index] = Some(report);
                self.untold.push(index);
                self.unshare(index)?;
                self.forget(self.plan.runs[index].target)?;
            }
        }
        Ok(())
    }
}
