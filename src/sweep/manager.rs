//! The loop of rank 0: work out of the graph, units to slots, outcomes to the writer.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel};

use super::costs::Model;
use super::graph::{SweepGraph, UnitKind};
use super::plan::Plan;
use super::report::{Observer, Progress, RunReport, RunState, Summary};
use super::scheduler::{Action, Event, Scheduler, Slot, UnitId};
use super::slots::{Done, SlotPool};
use super::source::WorkSource;
use super::survey::{Found, Survey};
use super::unit::{Failure, Outcome, Output, Sampling, Task, ToManager, ToWorker};
use super::worker::Backoff;
use super::writer::{ChainPart, Job, RunParts, Writer, Written};
use super::{MANAGER, SweepError};
use crate::comm::Comm;
use crate::device::Arith;
use crate::sampler::{Adapted, Role};
use crate::store::Store;
use crate::target::Target;

/// How a sweep is to be run; nothing here changes a result.
#[derive(Clone, Debug)]
pub struct Options {
    /// Slots on this rank.
    pub slots: usize,
    /// Arithmetic asked for; otherwise the best that every rank has.
    pub arith: Option<Arith>,
    /// Run again what failed by its numbers.
    pub retry_failed: bool,
}

/// Runs everything of `plan` that is not in the store yet. Where that fails, the other ranks are
/// told to leave what they are at, so that all ranks meet again.
pub fn run(
    plan: &Arc<Plan>,
    store: &Arc<Store>,
    comm: &mut dyn Comm,
    options: &Options,
    observer: &mut dyn Observer,
) -> Result<Summary, SweepError> {
    let result = conduct(plan, store, comm, options, observer);
    if result.is_err() {
        send_all(comm, &ToWorker::Abandon)?;
    }
    result
}

fn send_all(comm: &mut dyn Comm, message: &ToWorker) -> Result<(), SweepError> {
    let bytes = postcard::to_stdvec(message)?;
    for rank in 1..comm.size() {
        comm.send(rank, &bytes)?;
    }
    Ok(())
}

fn conduct(
    plan: &Arc<Plan>,
    store: &Arc<Store>,
    comm: &mut dyn Comm,
    options: &Options,
    observer: &mut dyn Observer,
) -> Result<Summary, SweepError> {
    let (sender, inbox) = channel();
    let ranks = meet_ranks(comm, options)?;
    let survey = Survey::of(plan, store, options.retry_failed)?;
    let _held = survey.lock_missing(plan, store)?;
    let mut manager = Manager::new(plan, store, comm, options, observer, survey, (sender, inbox))?;
    manager.graph.expect_slots(ranks.iter().map(|(_, slots)| slots).sum());
    for (rank, slots) in ranks {
        for index in 0..slots {
            manager.feed(Event::SlotUp(Slot { rank, index }))?;
        }
    }
    manager.run()
}

/// Waits for every rank, fixes the arithmetic, and returns the slots that each rank offers.
fn meet_ranks(comm: &mut dyn Comm, options: &Options) -> Result<Vec<(usize, usize)>, SweepError> {
    let mut ranks = vec![(MANAGER, options.slots)];
    let mut common = Arith::best();
    let mut pause = Backoff::new();
    let (_quiet, nothing) = channel::<()>();
    while ranks.len() < comm.size() {
        match comm.poll()? {
            Some((rank, bytes)) => {
                if let ToManager::Up { arith, slots, host } = postcard::from_bytes(&bytes)? {
                    log::info!("rank {rank} on {host}: {slots} slots, {arith}");
                    common = common.min(arith.parse()?);
                    ranks.push((rank, slots));
                }
            }
            None => {
                pause.wait(&nothing);
            }
        }
    }
    let arith = match options.arith {
        Some(asked) if asked > common => return Err(SweepError::Arith { asked, common }),
        Some(asked) => asked,
        None => common,
    };
    arith.set_current()?;
    send_all(comm, &ToWorker::Start { arith: arith.name().to_owned() })?;
    ranks.sort_unstable();
    Ok(ranks)
}

enum Inbox {
    Slot(Done),
    Writer(Result<Written, SweepError>),
}

/// What has come in of a run so far.
#[derive(Default)]
struct Gathering {
    adapted: Option<(Adapted, f64, String)>,
    chains: Vec<Option<ChainPart>>,
    control: Option<ChainPart>,
    missing: usize,
    over: bool,
}

struct Manager<'a> {
    plan: &'a Arc<Plan>,
    comm: &'a mut dyn Comm,
    observer: &'a mut dyn Observer,
    pool: SlotPool,
    inbox: Receiver<Inbox>,
    writer: Writer,
    jobs: SyncSender<Job>,
    backlog: VecDeque<Job>,
    unwritten: usize,
    scheduler: Scheduler,
    graph: SweepGraph,
    targets: Vec<Option<Arc<Target>>>,
    holders: Vec<BTreeSet<usize>>,
    /// Runs of each target that are not on disk yet.
    waiting: Vec<usize>,
    gathering: Vec<Gathering>,
    reports: Vec<Option<RunReport>>,
    failed_targets: Vec<(usize, Failure)>,
    executed: usize,
}

impl<'a> Manager<'a> {
    fn new(
        plan: &'a Arc<Plan>,
        store: &Arc<Store>,
        comm: &'a mut dyn Comm,
        options: &Options,
        observer: &'a mut dyn Observer,
        survey: Survey,
        (sender, inbox): (Sender<Inbox>, Receiver<Inbox>),
    ) -> Result<Self, SweepError> {
        let to_me = sender.clone();
        let pool = SlotPool::start(options.slots, move |done| {
            let _ = to_me.send(Inbox::Slot(done));
        })?;
        let (writer, jobs) =
            Writer::start(Arc::clone(plan), Arc::clone(store), comm.describe(), move |written| {
                let _ = sender.send(Inbox::Writer(written));
            })?;
        let graph = SweepGraph::new(plan, &survey, &Model::load(store, Arith::current()));
        let mut targets = Vec::with_capacity(plan.targets.len());
        for (index, found) in survey.targets.into_iter().enumerate() {
            targets.push(match found {
                Found::Done(target) if graph.needs_target(index) => target.map(Arc::new),
                _ => None,
            });
        }
        let mut reports: Vec<Option<RunReport>> = plan.runs.iter().map(|_| None).collect();
        for (report, found) in reports.iter_mut().zip(survey.runs) {
            *report = match found {
                Found::Done(analysis) => analysis.map(|a| RunReport::found(RunState::Done(a))),
                Found::Failed(failure) => Some(RunReport::found(RunState::Failed(failure))),
                Found::Missing => None,
            };
        }
        let mut waiting = vec![0; plan.targets.len()];
        for (run, report) in plan.runs.iter().zip(&reports) {
            waiting[run.target] += usize::from(report.is_none());
        }
        let gathering = plan
            .runs
            .iter()
            .map(|run| Gathering {
                chains: vec![None; run.sampler.chains],
                missing: run.sampler.chains + usize::from(run.control),
                ..Gathering::default()
            })
            .collect();
        Ok(Self {
            holders: vec![BTreeSet::new(); plan.targets.len()],
            waiting,
            plan,
            comm,
            observer,
            pool,
            inbox,
            writer,
            jobs,
            backlog: VecDeque::new(),
            unwritten: 0,
            scheduler: Scheduler::new(MANAGER),
            graph,
            targets,
            gathering,
            reports,
            failed_targets: Vec::new(),
            executed: 0,
        })
    }

    fn run(mut self) -> Result<Summary, SweepError> {
        self.observer.progress(&Progress::Planned { plan: self.plan, units: self.graph.len() });
        let mut pause = Backoff::new();
        loop {
            for work in self.graph.ready() {
                self.feed(Event::Ready(work))?;
            }
            self.flush()?;
            if self.graph.is_done() && self.unwritten == 0 && self.scheduler.in_flight() == 0 {
                break;
            }
            while let Some((rank, bytes)) = self.comm.poll()? {
                pause.reset();
                if let ToManager::Done { slot, unit, outcome } = postcard::from_bytes(&bytes)? {
                    self.settle(Slot { rank, index: slot }, unit, *outcome)?;
                }
            }
            match pause.wait(&self.inbox) {
                Some(Inbox::Slot(Done { slot, unit, outcome })) => {
                    pause.reset();
                    self.settle(Slot { rank: MANAGER, index: slot }, unit, outcome)?;
                }
                Some(Inbox::Writer(written)) => self.written(written?)?,
                None => {}
            }
        }
        self.finish()
    }

    fn finish(self) -> Result<Summary, SweepError> {
        send_all(self.comm, &ToWorker::Stop)?;
        self.pool.stop();
        drop(self.jobs);
        self.writer.join();
        let runs = self.reports.into_iter().map(|r| r.unwrap_or_else(RunReport::lost)).collect();
        Ok(Summary { executed: self.executed, failed_targets: self.failed_targets, runs })
    }

    fn feed(&mut self, event: Event) -> Result<(), SweepError> {
        let mut actions = VecDeque::from(self.scheduler.on_event(event));
        while let Some(action) = actions.pop_front() {
            // No slot is lost before the job is.
            let Action::Assign { slot, unit } = action else { continue };
            if self.graph.has_failed(unit) {
                // Its run has failed while the unit was waiting.
                actions.extend(self.scheduler.on_event(Event::Finished { slot, unit }));
                continue;
            }
            self.assign(slot, unit)?;
        }
        Ok(())
    }

    fn assign(&mut self, slot: Slot, unit: UnitId) -> Result<(), SweepError> {
        let kind = self.graph.kind(unit);
        if let Some(target) = kind.target(self.plan) {
            self.bring(target, slot.rank)?;
        }
        let task = self.task(kind);
        log::debug!("{} goes to rank {}, slot {}", kind.describe(self.plan), slot.rank, slot.index);
        if slot.rank == MANAGER {
            self.pool.give(slot.index, unit, task);
        } else {
            let message = ToWorker::Run { slot: slot.index, unit, task: Box::new(task) };
            self.comm.send(slot.rank, &postcard::to_stdvec(&message)?)?;
        }
        Ok(())
    }

    /// Sees to it that a rank holds a target, once.
    fn bring(&mut self, index: usize, rank: usize) -> Result<(), SweepError> {
        let Some(target) = &self.targets[index] else { return Ok(()) };
        if !self.holders[index].insert(rank) {
            return Ok(());
        }
        if rank == MANAGER {
            self.pool.cache.insert(index as u32, Target::clone(target));
        } else {
            let message = ToWorker::Target { index: index as u32, target: Box::new(Target::clone(target)) };
            self.comm.send(rank, &postcard::to_stdvec(&message)?)?;
        }
        Ok(())
    }

    /// One run of a target is over; after the last, nobody needs the target any more.
    fn forget(&mut self, index: usize) -> Result<(), SweepError> {
        self.waiting[index] -= 1;
        if self.waiting[index] > 0 {
            return Ok(());
        }
        self.targets[index] = None;
        for rank in std::mem::take(&mut self.holders[index]) {
            if rank == MANAGER {
                self.pool.cache.remove(index as u32);
            } else {
                self.comm.send(rank, &postcard::to_stdvec(&ToWorker::Forget { index: index as u32 })?)?;
            }
        }
        Ok(())
    }

    fn task(&self, kind: UnitKind) -> Task {
        let sampling = |run: usize| {
            let run = &self.plan.runs[run];
            Sampling {
                target: run.target as u32,
                sampler: run.sampler.clone(),
                posterior: run.posterior.clone(),
                stream: run.stream.0,
                chosen: run.chosen.as_deref().cloned(),
            }
        };
        let chain = |run: usize, chain: u32, role: Role| Task::Chain {
            sampling: sampling(run),
            adapted: self.gathering[run].adapted.as_ref().map(|(a, ..)| a.clone()).unwrap_or_default(),
            chain,
            role,
        };
        match kind {
            UnitKind::Build(t) => {
                let target = &self.plan.targets[t];
                Task::Build { id: target.id.0, spec: target.spec.clone(), external: target.external.clone() }
            }
            UnitKind::Warmup(r) => Task::Warmup(sampling(r)),
            UnitKind::Chain(r, c) => chain(r, c, Role::Main),
            UnitKind::Control(r) => chain(r, 0, Role::Control),
        }
    }

    fn settle(&mut self, slot: Slot, unit: UnitId, outcome: Outcome) -> Result<(), SweepError> {
        self.executed += 1;
        let kind = self.graph.kind(unit);
        let Outcome { result, seconds, host } = outcome;
        let how = if result.is_ok() { "done" } else { "failed" };
        log::info!("{} {how} on {host} in {seconds:.3} s", kind.describe(self.plan));
        if let Ok(Output::Adapted(a)) = &result {
            log::info!("  step size {:e}, {:.1} FGE", a.step_size, a.fge);
        }
        match result {
            Ok(output) => {
                self.take(kind, output, seconds, host);
                // A target may be sampled once it is on disk: made again, it must be the recorded one.
                if !matches!(kind, UnitKind::Build(_)) {
                    self.graph.settled(unit, true);
                }
            }
            Err(failure) => {
                self.graph.settled(unit, false);
                self.fail(kind, failure);
            }
        }
        self.observer.progress(&Progress::Unit { done: self.executed, total: self.graph.len() });
        self.feed(Event::Finished { slot, unit })
    }

    fn take(&mut self, kind: UnitKind, output: Output, seconds: f64, host: String) {
        match (kind, output) {
            (UnitKind::Build(index), Output::Target(target)) => {
                let target = Arc::new(*target);
                self.targets[index] = self.graph.needs_target(index).then(|| Arc::clone(&target));
                self.write(Job::Target { index, target, seconds, host });
            }
            (UnitKind::Warmup(run), Output::Adapted(adapted)) => {
                self.gathering[run].adapted = Some((adapted, seconds, host));
            }
            (UnitKind::Chain(run, chain), Output::Chain { outcome, l0 }) => {
                self.gathering[run].chains[chain as usize] = Some(ChainPart { outcome, l0, seconds, host });
                self.count_chain(run);
            }
            (UnitKind::Control(run), Output::Chain { outcome, l0 }) => {
                self.gathering[run].control = Some(ChainPart { outcome, l0, seconds, host });
                self.count_chain(run);
            }
            (kind, _) => {
                let reason =
                    "a slot answered with another kind of result: this is a bug, please report it".into();
                self.fail(kind, Failure { reason, settled: false });
            }
        }
    }

    fn count_chain(&mut self, run: usize) {
        let gathering = &mut self.gathering[run];
        gathering.missing -= 1;
        if gathering.missing > 0 || gathering.over {
            return;
        }
        gathering.over = true;
        let parts = RunParts {
            warmup: gathering.adapted.take(),
            chains: std::mem::take(&mut gathering.chains).into_iter().flatten().collect(),
            control: gathering.control.take(),
        };
        self.write(Job::Run { index: run, parts: Box::new(parts) });
    }

    /// Fails the run of a unit, or the target of a build.
    fn fail(&mut self, kind: UnitKind, failure: Failure) {
        let runs: Vec<usize> = match kind {
            UnitKind::Build(t) => {
                self.write(Job::TargetFailed { index: t, failure });
                return;
            }
            UnitKind::Warmup(r) | UnitKind::Chain(r, _) | UnitKind::Control(r) => vec![r],
        };
        self.fail_runs(runs, &failure);
    }

    fn fail_runs(&mut self, runs: Vec<usize>, failure: &Failure) {
        for run in runs {
            self.graph.drop_run(run);
            if !std::mem::replace(&mut self.gathering[run].over, true) && self.reports[run].is_none() {
                self.write(Job::RunFailed { index: run, failure: failure.clone() });
            }
        }
    }

    fn write(&mut self, job: Job) {
        self.unwritten += 1;
        self.backlog.push_back(job);
    }

    /// Hands the writer what fits into its queue, without waiting.
    fn flush(&mut self) -> Result<(), SweepError> {
        while let Some(job) = self.backlog.pop_front() {
            match self.jobs.try_send(job) {
                Ok(()) => {}
                Err(TrySendError::Full(job)) => {
                    self.backlog.push_front(job);
                    break;
                }
                Err(TrySendError::Disconnected(_)) => return Err(SweepError::WriterGone),
            }
        }
        Ok(())
    }

    fn written(&mut self, written: Written) -> Result<(), SweepError> {
        self.unwritten -= 1;
        match written {
            Written::Target { index, seconds } => {
                if let Some(build) = self.graph.build(index) {
                    self.graph.settled(build, true);
                }
                self.observer.progress(&Progress::Target { plan: self.plan, index, seconds });
            }
            Written::TargetFailed { index, failure } => {
                if let Some(build) = self.graph.build(index) {
                    self.graph.settled(build, false);
                }
                let runs = (0..self.plan.runs.len()).filter(|&r| self.plan.runs[r].target == index).collect();
                self.fail_runs(runs, &failure);
                self.failed_targets.push((index, failure.clone()));
                self.observer.progress(&Progress::TargetFailed { plan: self.plan, index, failure: &failure });
            }
            Written::Run { index, state, seconds } => {
                let report = RunReport { state, executed: true, seconds };
                self.observer.progress(&Progress::Run { plan: self.plan, index, report: &report });
                self.reports[index] = Some(report);
                self.forget(self.plan.runs[index].target)?;
            }
        }
        Ok(())
    }
}

/// Sends the other ranks home without work: they report, and are told to stop.
pub fn dismiss(comm: &mut dyn Comm) -> Result<(), SweepError> {
    let stop = postcard::to_stdvec(&ToWorker::Stop)?;
    let mut pause = Backoff::new();
    let (_quiet, nothing) = channel::<()>();
    let mut left = comm.size() - 1;
    while left > 0 {
        match comm.poll()? {
            Some((rank, _)) => {
                comm.send(rank, &stop)?;
                left -= 1;
            }
            None => {
                pause.wait(&nothing);
            }
        }
    }
    Ok(())
}
