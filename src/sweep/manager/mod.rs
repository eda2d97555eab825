//! The loop of rank 0: work out of the graph, units to slots, outcomes to the writer.

mod board;
mod gates;
mod grow;
mod hand_out;
mod keepsakes;
mod muster;
mod outcomes;
mod status;

pub use self::muster::{dismiss, part};
pub use self::status::{SlotStatus, Status, status_path};
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, channel};
use std::time::{Duration, Instant};

use self::board::{Board, Seat};
use self::gates::Gates;
use self::keepsakes::Keepsakes;
use self::muster::{meet_ranks, send, send_all};
use super::costs::Model;
use super::graph::SweepGraph;
use super::options::Options;
use super::plan::Plan;
use super::ranks::{Launch, RankPlace};
use super::report::{Interruption, Observer, Progress, RunReport, RunState, Summary};
use super::scheduler::{Action, Event, Scheduler, Slot, UnitId};
use super::slots::{OwnFiles, Report, SlotPool};
use super::source::WorkSource;
use super::survey::{Found, Offer, Survey};
use super::unit::{Failure, ToManager, ToWorker};
use super::watch::Tokens;
use super::worker::{Backoff, PATIENCE, READY};
use super::writer::{ChainPart, Job, Writer, Written};
use super::{INTERRUPTED, MANAGER, Proposer, SweepError, context};
use crate::comm::Comm;
use crate::device::Arith;
use crate::sampler::Adapted;
use crate::store::Store;
use crate::target::Target;

/// How long before the time limit work is stopped, but for a fifth of a short one: checkpoints must be
/// written, and the launcher's clock may be another.
const GRACE: Duration = Duration::from_secs(10);
/// No unit is begun so shortly before work is stopped: it could not reach its first checkpoint.
const LAST_START: Duration = Duration::from_secs(1);
/// How long a stopped sweep waits for the disk.
const DISK_PATIENCE: Duration = Duration::from_secs(20);
/// A loop that has not come round for so long was suspended.
const SUSPENDED: Duration = Duration::from_secs(2);
/// Time between two looks at the slots' clocks, and at the status file.
const LOOK: Duration = Duration::from_millis(200);

/// Runs everything of `plan` that is not in the store yet. Where that fails, the other ranks are
/// told to leave what they are at, so that all ranks meet again.
pub fn run(
    plan: &Arc<Plan>,
    store: &Arc<Store>,
    comm: &mut dyn Comm,
    options: &Options,
    observer: &mut dyn Observer,
) -> Result<Summary, SweepError> {
    run_and_grow(plan, store, comm, options, observer, None)
}

/// The same; runs that `proposer` thinks of join on the way.
pub fn run_and_grow(
    plan: &Arc<Plan>,
    store: &Arc<Store>,
    comm: &mut dyn Comm,
    options: &Options,
    observer: &mut dyn Observer,
    proposer: Option<&mut dyn Proposer>,
) -> Result<Summary, SweepError> {
    let result = conduct(plan, store, comm, options, observer, proposer);
    if result.is_err() {
        send_all(comm, &ToWorker::Abandon)?;
    }
    result
}

fn conduct(
    plan: &Arc<Plan>,
    store: &Arc<Store>,
    comm: &mut dyn Comm,
    options: &Options,
    observer: &mut dyn Observer,
    proposer: Option<&mut dyn Proposer>,
) -> Result<Summary, SweepError> {
    // A rank that takes no messages for so long is gone; everything that was saved is kept.
    comm.set_patience(options.unit_timeout, INTERRUPTED);
    let on_device = plan.runs.iter().any(|run| run.device.is_some());
    let ranks = meet_ranks(comm, options, on_device)?;
    let look = || Survey::of(plan, store, options.retry_failed);
    let survey = look()?;
    let _held = survey.lock_missing(plan, store, proposer.is_some())?;
    // Another sweep may have finished some of it before it let go of its locks.
    let survey = if survey.is_overtaken(plan, store)? { look()? } else { survey };
    let device = options.device.as_ref().map(|device| device.info().arithmetic());
    let launch = Launch { by: comm.describe(), ranks: ranks.clone(), device };
    let mut manager = Manager::new(plan, store, comm, options, observer, survey, launch)?;
    if proposer.is_some() {
        manager.expect_runs();
    }
    manager.graph.expect_slots(ranks.iter().map(|place| place.slots).sum());
    for place in ranks {
        for index in 0..place.slots {
            manager.feed(Event::SlotUp(Slot { rank: place.rank, index }))?;
        }
    }
    manager.run(proposer)
}

enum Inbox {
    Slot(Report),
    Writer(Result<Written, SweepError>),
}

/// What has come in of a run so far.
#[derive(Default)]
struct Gathering {
    adapted: Option<(Arc<Adapted>, f64, String)>,
    chains: Vec<Option<ChainPart>>,
    control: Option<ChainPart>,
    missing: usize,
    over: bool,
    /// Ranks that hold what its chains share.
    holders: BTreeSet<usize>,
    gates: Gates,
}

struct Manager<'a> {
    plan: Arc<Plan>,
    options: &'a Options,
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
    store: &'a Arc<Store>,
    /// Targets that units will still be handed out for.
    targets: Vec<Option<Arc<Target>>>,
    holders: Vec<BTreeSet<usize>>,
    /// Units of each target that were not handed out yet.
    unassigned: Vec<usize>,
    /// Units that were handed out, or found done.
    given: HashSet<UnitId>,
    /// Runs of each target that are not on disk yet.
    waiting: Vec<usize>,
    gathering: Vec<Gathering>,
    reports: Vec<Option<RunReport>>,
    failed_targets: Vec<(usize, Failure)>,
    /// Those that an earlier launch could not build.
    lost_targets: Vec<(usize, Failure)>,
    /// What units are expected to take.
    costs: Model,
    /// Whether something has changed since more runs were last asked for.
    may_grow: bool,
    /// Runs that have ended since.
    untold: Vec<usize>,
    /// Runs of which a chain has come to a gate since.
    at_gate: Vec<usize>,
    /// Runs that joined while the same run was under way, and which that is.
    twins: Vec<(usize, usize)>,
    /// Runs from here on have joined.
    first_joined: usize,
    executed: usize,
    /// Units that were left to do at the start.
    to_do: usize,
    /// Whether a unit has ended for good.
    is_over: Vec<bool>,
    /// How often units were tried before.
    attempts: HashMap<UnitId, u32>,
    /// Checkpoints that units go on from.
    resume: HashMap<UnitId, Vec<u8>>,
    board: Board,
    ranks: Vec<RankPlace>,
    lost: Vec<Slot>,
    tokens: Tokens<Slot>,
    keepsakes: Keepsakes,
    /// Where checkpoints are.
    dirs: Vec<PathBuf>,
    /// Steps of every slot of this rank at the last look.
    steps: Vec<u64>,
    /// When the last slot was lost.
    last_loss: Option<Instant>,
    /// Whether what slots of this rank hold ready has been taken, late in a stop.
    took_held: bool,
    stopping: Option<(String, Instant)>,
    /// When work is stopped for the time limit.
    stop_at: Option<Instant>,
    begun: Instant,
    last_look: Instant,
    last_status: Instant,
}

impl<'a> Manager<'a> {
    fn new(
        plan: &'a Arc<Plan>,
        store: &'a Arc<Store>,
        comm: &'a mut dyn Comm,
        options: &'a Options,
        observer: &'a mut dyn Observer,
        survey: Survey,
        launch: Launch,
    ) -> Result<Self, SweepError> {
        let (sender, inbox) = channel();
        let ranks = launch.ranks.clone();
        let to_me = sender.clone();
        let pool =
            SlotPool::start(options.slots, options.checkpoint_every, options.device.clone(), move |told| {
                let _ = to_me.send(Inbox::Slot(told));
            })?;
        if let Some(dir) = options.checkpoint_dir.clone() {
            pool.write_to(OwnFiles { dir, context: context() });
        }
        let (writer, jobs) =
            Writer::start(Arc::clone(plan), Arc::clone(store), options, launch, move |written| {
                let _ = sender.send(Inbox::Writer(written));
            })?;
        let costs = Model::load(store, Arith::current());
        let graph = SweepGraph::new(plan, &survey, &costs);
        let lost_targets = grow::lost(&survey.targets);
        let dirs: Vec<PathBuf> =
            [store.checkpoints()].into_iter().chain(options.checkpoint_dir.clone()).collect();
        let offers = survey.offers(plan, &dirs)?;
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
        let mut unassigned = vec![0; plan.targets.len()];
        for target in (0..graph.len()).filter_map(|unit| graph.kind(unit as UnitId).target(plan)) {
            unassigned[target] += 1;
        }
        let gathering = plan.runs.iter().map(|run| Gathering::of(run)).collect();
        let now = Instant::now();
        let mut manager = Self {
            to_do: graph.len(),
            is_over: vec![false; graph.len()],
            attempts: HashMap::new(),
            resume: HashMap::new(),
            board: Board::new(&ranks, now),
            ranks,
            lost: Vec::new(),
            tokens: Tokens::new(now),
            keepsakes: Keepsakes::default(),
            dirs,
            steps: vec![0; options.slots],
            last_loss: None,
            took_held: false,
            stopping: None,
            stop_at: options.deadline.map(|end| end - GRACE.min(end.duration_since(now) / 5)),
            begun: now,
            last_look: now,
            last_status: now,
            options,
            holders: vec![BTreeSet::new(); plan.targets.len()],
            unassigned,
            given: HashSet::new(),
            store,
            waiting,
            plan: Arc::clone(plan),
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
            lost_targets,
            costs,
            may_grow: false,
            untold: Vec::new(),
            at_gate: Vec::new(),
            twins: Vec::new(),
            first_joined: 0,
            executed: 0,
        };
        for (kind, offer) in offers {
            if let Some(unit) = manager.graph.unit(kind) {
                manager.offer(unit, offer);
            }
        }
        Ok(manager)
    }

    /// Keeps every target to the end, for runs that are still to come.
    fn expect_runs(&mut self) {
        self.may_grow = true;
        self.first_joined = self.plan.runs.len();
        self.graph.expect_runs();
        for count in self.waiting.iter_mut().chain(&mut self.unassigned) {
            *count += 1;
        }
    }

    fn run(mut self, proposer: Option<&mut dyn Proposer>) -> Result<Summary, SweepError> {
        match self.work(proposer) {
            Ok(()) => self.finish(),
            Err(error) => {
                self.salvage(&error);
                Err(error)
            }
        }
    }

    /// Keeps what has come in, where it is not the disk that failed.
    fn salvage(mut self, error: &SweepError) {
        if !matches!(error, SweepError::Store(_) | SweepError::WriterGone) {
            self.keep();
            self.last_word(Some(error));
            let _ = self.backlog.drain(..).try_for_each(|job| self.jobs.send(job));
            drop(self.jobs);
            self.writer.join();
        }
    }

    fn work(&mut self, mut proposer: Option<&mut dyn Proposer>) -> Result<(), SweepError> {
        self.observer.progress(&Progress::Planned {
            plan: &self.plan,
            units: self.to_do,
            ranks: &self.ranks,
            grows: proposer.is_some(),
        });
        let mut pause = Backoff::new();
        loop {
            self.heed_signals_and_clocks()?;
            if self.may_start() {
                if let Some(proposer) = proposer.as_deref_mut() {
                    self.open_gates(proposer)?;
                    self.tell(proposer)?;
                    self.grow(proposer)?;
                }
                for work in self.graph.ready() {
                    self.feed(Event::Ready(work))?;
                }
            }
            self.flush()?;
            if self.is_finished() {
                break;
            }
            while let Some((rank, bytes)) = self.comm.poll()? {
                pause.reset();
                self.hear(rank, postcard::from_bytes(&bytes)?)?;
            }
            match pause.wait(&self.inbox) {
                Some(Inbox::Slot(report)) => {
                    pause.reset();
                    self.hear_slot(report)?;
                }
                Some(Inbox::Writer(written)) => {
                    pause.reset();
                    self.written(written?)?;
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Whether the loop may end: all is done and on disk, or, of a sweep that was stopped, what came in
    /// in time.
    fn is_finished(&self) -> bool {
        let Some((_, since)) = &self.stopping else {
            let idle = self.graph.is_done() && self.unwritten == 0 && self.board.in_flight() == 0;
            return idle && !self.may_grow;
        };
        let quiet = self.board.in_flight() == 0 || since.elapsed() > PATIENCE;
        quiet && (self.unwritten == 0 || since.elapsed() > DISK_PATIENCE)
    }

    fn hear(&mut self, rank: usize, message: ToManager) -> Result<(), SweepError> {
        let slot = |index| Slot { rank, index };
        match message {
            ToManager::Up { .. } | ToManager::Bye => {}
            ToManager::Sign { slot: index, saved: false } => self.board.sign(slot(index), Instant::now()),
            ToManager::Sign { slot: index, saved: true } => self.board.saved(slot(index), Instant::now()),
            ToManager::Replaced { slot: index } => self.revive(slot(index))?,
            ToManager::Signal { signal } => self.stop(format!("{} on rank {rank}", signal_name(signal)))?,
            ToManager::Waiting { slot: index, bytes } => self.tokens.ask(slot(index), bytes),
            ToManager::Saved { slot: index, unit, state } => self.save(slot(index), unit, state),
            ToManager::Done { slot: index, unit, outcome } => self.settle(slot(index), unit, *outcome)?,
        }
        Ok(())
    }

    fn hear_slot(&mut self, report: Report) -> Result<(), SweepError> {
        let slot = |index| Slot { rank: MANAGER, index };
        match report {
            Report::Saved { slot: index, unit, state } => {
                self.save(slot(index), unit, state);
                self.pool.control.passed_on(index);
                Ok(())
            }
            Report::Written { slot: index } => {
                self.board.saved(slot(index), Instant::now());
                Ok(())
            }
            Report::Done { slot: index, unit, outcome } => self.settle(slot(index), unit, outcome),
        }
    }

    /// Signals, the time limit, checkpoints that wait to be sent, slots that are silent.
    fn heed_signals_and_clocks(&mut self) -> Result<(), SweepError> {
        let signal = self.options.signal.load(Ordering::Relaxed);
        if signal != 0 && self.stopping.is_none() {
            self.stop(signal_name(signal))?;
        }
        let now = Instant::now();
        while let Some(slot) = self.tokens.grant(now) {
            send(self.comm, slot.rank, &ToWorker::Send { slot: slot.index })?;
        }
        if self.keepsakes.are_due(now) || self.stopping.is_some() {
            self.keep();
        }
        let late = self.stopping.as_ref().is_some_and(|(_, since)| since.elapsed() > READY);
        if late && !std::mem::replace(&mut self.took_held, true) {
            for (index, unit, state) in self.pool.control.take_held() {
                self.save(Slot { rank: MANAGER, index }, unit, state);
            }
        }
        if now.duration_since(self.last_look) < LOOK {
            return Ok(());
        }
        // A manager that was itself suspended blames nobody.
        if now.duration_since(self.last_look) > SUSPENDED {
            self.board.excuse(now.duration_since(self.last_look));
        }
        self.last_look = now;
        for index in 0..self.steps.len() {
            let steps = self.pool.control.steps(index);
            if steps != std::mem::replace(&mut self.steps[index], steps) {
                self.board.sign(Slot { rank: MANAGER, index }, now);
            }
        }
        if self.stopping.is_none() && self.stop_at.is_some_and(|end| now >= end) {
            self.stop("the time limit".to_owned())?;
        }
        if self.stopping.is_none() {
            self.look_after_slots()?;
            self.cut_late_runs(now)?;
        }
        self.show_status(now);
        Ok(())
    }

    /// Asks every rank to stop its units and hand over their states.
    fn stop(&mut self, why: String) -> Result<(), SweepError> {
        if self.stopping.is_some() {
            return Ok(());
        }
        self.pool.control.stop();
        send_all(self.comm, &ToWorker::Drain)?;
        self.stopping = Some((why, Instant::now()));
        Ok(())
    }

    fn may_start(&self) -> bool {
        let soon = |end: Instant| Instant::now() + LAST_START >= end;
        self.stopping.is_none() && !self.stop_at.is_some_and(soon)
    }

    fn finish(mut self) -> Result<Summary, SweepError> {
        // The last word itself is written below, by a writer that keeps up.
        let is_written = self.unwritten == 0;
        self.last_word(None);
        send_all(self.comm, &ToWorker::Stop)?;
        let interruption = self.stopping.take().map(|(why, since)| {
            let left = self.is_over.iter().filter(|over| !**over).count();
            let late = |seat: &&Seat| !seat.held.is_empty() && seat.saved.is_none_or(|saved| saved < since);
            Interruption { why, left, late: self.board.seats().iter().filter(late).count() }
        });
        // Threads that do not answer end with the process.
        if interruption.is_none() && self.lost.iter().all(|slot| slot.rank != MANAGER) {
            self.pool.stop();
        }
        drop(self.jobs);
        // A disk that does not keep up is not waited for when the job has to end.
        if is_written || interruption.is_none() {
            self.writer.join();
        }
        let runs = self.reports.into_iter().map(|r| r.unwrap_or_else(RunReport::lost)).collect();
        let (plan, executed, failed_targets) = (self.plan, self.executed, self.failed_targets);
        Ok(Summary { plan, executed, failed_targets, runs, interruption })
    }

    fn feed(&mut self, event: Event) -> Result<(), SweepError> {
        let mut actions = VecDeque::from(self.scheduler.on_event(event));
        while let Some(action) = actions.pop_front() {
            // No slot is lost before the job is.
            let Action::Assign { slot, unit } = action else { continue };
            if self.graph.has_failed(unit) || self.is_over[unit as usize] {
                // Its run has failed while the unit was waiting, or a slot thought lost has done it.
                actions.extend(self.scheduler.on_event(Event::Finished { slot, unit }));
                continue;
            }
            if !self.may_start() {
                // It stays for the next launch; the scheduler hears no more of it.
                continue;
            }
            self.assign(slot, unit)?;
        }
        Ok(())
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
}

/// A signal by its name.
fn signal_name(signal: usize) -> String {
    let known = i32::try_from(signal).ok().and_then(signal_hook::low_level::signal_name);
    known.map_or_else(|| format!("signal {signal}"), str::to_owned)
}
