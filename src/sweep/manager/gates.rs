//! Runs that wait at gates until the proposer has looked at them, and runs that are given up.
//!
//! All chains of a run wait at its next gate. The proposer is shown the draws up to there, which are the same
//! however often the job was killed and whoever drew them; chains that an earlier launch has taken further wait
//! where they are. The control chain waits before its first step until the last gate is passed.

use std::collections::BTreeMap;
use std::time::Instant;

use super::Manager;
use super::muster::send;
use crate::sampler::{self, Pause, Role};
use crate::sweep::graph::UnitKind;
use crate::sweep::plan::Plan;
use crate::sweep::report::{Cut, Progress, RunReport, RunState};
use crate::sweep::scheduler::{Event, UnitId};
use crate::sweep::unit::{Failure, ToWorker};
use crate::sweep::writer::Job;
use crate::sweep::{MANAGER, Partial, Proposer, SweepError};

/// A chain that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    unit: UnitId,
    /// Its column `llc` so far.
    llc: Vec<f64>,
    fge: f64,
    seconds: f64,
    /// It has not been told to go on.
    here: bool,
}

/// What the gates of a run have seen.
#[derive(Debug, Default)]
pub(super) struct Gates {
    /// Gates that were passed.
    passed: usize,
    /// Every chain where it waited last.
    chains: Vec<Option<Waiting>>,
    /// The control chain, before its first step.
    control: Option<Waiting>,
    /// Chains that failed by their numbers, and why; the control chain comes last.
    failed: BTreeMap<usize, Failure>,
}

impl Gates {
    pub(super) fn of(chains: usize) -> Self {
        Self { chains: (0..chains).map(|_| None).collect(), ..Self::default() }
    }
}

/// Draws, work and seconds of each chain of a run that has draws up to a gate.
type Seen<'a> = Vec<(&'a [f64], f64, f64)>;

impl Manager<'_> {
    /// Where a chain is to wait.
    pub(super) fn pauses(&self, run: usize, role: Role) -> Vec<usize> {
        let gates = &self.plan.runs[run].gates;
        let ahead = &gates[self.gathering[run].gates.passed.min(gates.len())..];
        match role {
            Role::Main => ahead.to_vec(),
            Role::Control if ahead.is_empty() => Vec::new(),
            Role::Control => vec![0],
        }
    }

    /// A chain has come to a gate.
    pub(super) fn wait(&mut self, unit: UnitId, pause: Pause, seconds: f64) {
        let kind = self.graph.kind(unit);
        let (UnitKind::Chain(run, _) | UnitKind::Control(run)) = kind else { return };
        if self.gathering[run].over {
            return;
        }
        let name = kind.name(&self.plan);
        let file = name.checkpoint();
        let content = pause.state.clone();
        self.write(Job::Keep { owner: name.owner, file, content, durable: false });
        self.resume.insert(unit, pause.state);
        let waiting = Some(Waiting { unit, llc: pause.llc, fge: pause.fge, seconds, here: true });
        let gates = &mut self.gathering[run].gates;
        match kind {
            UnitKind::Chain(_, chain) => gates.chains[chain as usize] = waiting,
            _ => gates.control = waiting,
        }
        if !self.at_gate.contains(&run) {
            self.at_gate.push(run);
        }
        self.conclude_failure(run);
    }

    /// A chain of a run that has joined has failed by its numbers. The run fails once all others have ended or wait,
    /// for the reason of the first: not of whichever was faster.
    pub(super) fn fail_in_order(&mut self, kind: UnitKind, failure: Failure) {
        let (run, place) = match kind {
            UnitKind::Chain(run, chain) => (run, chain as usize),
            UnitKind::Control(run) => (run, usize::MAX),
            // Runs that join are on the CPU.
            UnitKind::Build(_) | UnitKind::Warmup(_) | UnitKind::Chains(_) => return,
        };
        self.gathering[run].gates.failed.entry(place).or_insert(failure);
        self.conclude_failure(run);
    }

    /// Fails a run of which a chain has failed, where no other is on its way.
    pub(super) fn conclude_failure(&mut self, run: usize) {
        let gathering = &self.gathering[run];
        let Some(failure) = gathering.gates.failed.values().next() else { return };
        let is_open = |(chain, waiting): (usize, &Option<Waiting>)| {
            let is_done = gathering.chains.get(chain).is_some_and(Option::is_some);
            let is_here = waiting.as_ref().is_some_and(|waiting| waiting.here);
            !is_done && !is_here && !gathering.gates.failed.contains_key(&chain)
        };
        if !gathering.over && !gathering.gates.chains.iter().enumerate().any(is_open) {
            let failure = failure.clone();
            self.fail_runs(vec![run], &failure);
        }
    }

    /// Asks about every run of which all chains have come to a gate.
    pub(super) fn open_gates(&mut self, proposer: &mut dyn Proposer) -> Result<(), SweepError> {
        for run in std::mem::take(&mut self.at_gate) {
            if self.gathering[run].over {
                continue;
            }
            let plan = std::sync::Arc::clone(&self.plan);
            let gates = &plan.runs[run].gates;
            while let Some(&draws) = gates.get(self.gathering[run].gates.passed) {
                let Some(seen) = self.seen(&plan, run, draws) else { break };
                let warmup = self.gathering[run].adapted.as_ref();
                let (fge, seconds) =
                    warmup.map_or((0.0, 0.0), |(adapted, seconds, _)| (adapted.fge, *seconds));
                let partial = Partial {
                    gate: self.gathering[run].gates.passed,
                    llc: seen.iter().map(|(llc, ..)| *llc).collect(),
                    fge: seen.iter().fold(fge, |sum, (_, fge, _)| sum + fge),
                    seconds: seen.iter().fold(seconds, |sum, (.., seconds)| sum + seconds),
                };
                let seconds = partial.seconds;
                if !proposer.passes(&plan, run, &partial)? {
                    self.cut(run, Cut::AtGate(draws), seconds)?;
                    break;
                }
                self.gathering[run].gates.passed += 1;
            }
            if !self.gathering[run].over {
                self.go_on(run)?;
            }
        }
        Ok(())
    }

    /// The first `draws` draws of every chain; `None` while some have fewer.
    fn seen(&self, plan: &Plan, run: usize, draws: usize) -> Option<Seen<'_>> {
        let gathering = &self.gathering[run];
        let column = sampler::layout(&plan.runs[run].sampler).iter().position(|c| c.name == "llc")?;
        let of = |chain: usize| -> Option<(&[f64], f64, f64)> {
            if let Some(part) = gathering.chains.get(chain)?.as_ref() {
                let work = part.outcome.fge_warmup + part.outcome.fge_sampling;
                return Some((part.outcome.trace.values[column].get(..draws)?, work, part.seconds));
            }
            let waiting = gathering.gates.chains[chain].as_ref()?;
            Some((waiting.llc.get(..draws)?, waiting.fge, waiting.seconds))
        };
        (0..gathering.gates.chains.len()).map(of).collect()
    }

    /// Sends chains on that wait at a gate which is open now.
    fn go_on(&mut self, run: usize) -> Result<(), SweepError> {
        let gates = &self.plan.runs[run].gates;
        let next = gates.get(self.gathering[run].gates.passed).copied();
        let state = &mut self.gathering[run].gates;
        let mut units = Vec::new();
        let chains = state.chains.iter_mut().flatten().filter(|w| next.is_none_or(|next| w.llc.len() < next));
        for waiting in chains.chain(state.control.as_mut().filter(|_| next.is_none())) {
            if std::mem::replace(&mut waiting.here, false) {
                units.push(waiting.unit);
            }
        }
        for unit in units {
            self.feed(Event::Resume { unit })?;
        }
        Ok(())
    }

    /// Gives a run up: no more of it is done, and it is on no record.
    fn cut(&mut self, run: usize, why: Cut, seconds: f64) -> Result<(), SweepError> {
        let id = self.plan.runs[run].id;
        self.gathering[run].over = true;
        for unit in self.graph.units(run) {
            if !std::mem::replace(&mut self.is_over[unit as usize], true) {
                self.executed += 1;
            }
            self.resume.remove(&unit);
        }
        self.graph.drop_run(run);
        self.keepsakes.forget(id.0);
        self.write(Job::LetGo { owner: id });
        let held = self.board.seats().iter().flat_map(|seat| seat.held.iter().map(|&unit| (seat.slot, unit)));
        let held: Vec<_> = held.filter(|(_, unit)| self.graph.kind(*unit).run() == Some(run)).collect();
        for (slot, unit) in held {
            match slot.rank {
                MANAGER => self.pool.control.cancel(slot.index, unit),
                rank => send(self.comm, rank, &ToWorker::Cancel { slot: slot.index, unit })?,
            }
        }
        let report = RunReport { state: RunState::Cut(why), executed: true, seconds };
        self.observer.progress(&Progress::Run { plan: &self.plan, index: run, report: &report });
        self.observer.progress(&Progress::Unit { done: self.executed, total: self.to_do });
        self.reports[run] = Some(report);
        if let Cut::Late(_) = why {
            self.untold.push(run);
        }
        self.may_grow = true;
        self.unshare(run)?;
        self.forget(self.plan.runs[run].target)
    }

    /// Gives up runs that have taken longer than they may.
    pub(super) fn cut_late_runs(&mut self, now: Instant) -> Result<(), SweepError> {
        let of_unit = |unit: UnitId| self.graph.kind(unit).run();
        let limited = |&run: &usize| {
            self.plan.runs[run].most_seconds.is_some()
                && !self.gathering[run].over
                && self.reports[run].is_none()
        };
        let mut late = Vec::new();
        for run in (0..self.plan.runs.len()).filter(limited) {
            let gathering = &self.gathering[run];
            let mut spent = gathering.adapted.as_ref().map_or(0.0, |(_, seconds, _)| *seconds);
            for (chain, waiting) in gathering.chains.iter().zip(&gathering.gates.chains) {
                let waited = waiting.as_ref().map_or(0.0, |w| w.seconds);
                spent += chain.as_ref().map_or(waited, |part| part.seconds);
            }
            spent += gathering.control.as_ref().map_or(0.0, |part| part.seconds);
            for seat in self.board.seats() {
                if seat.held.front().is_some_and(|&unit| of_unit(unit) == Some(run)) {
                    spent += now.saturating_duration_since(seat.since).as_secs_f64();
                }
            }
            if self.plan.runs[run].most_seconds.is_some_and(|most| spent > most) {
                late.push((run, spent));
            }
        }
        for (run, spent) in late {
            self.cut(run, Cut::Late(spent), spent)?;
        }
        Ok(())
    }
}
