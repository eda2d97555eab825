//! A sweep on many ranks, played by a clock of its own on the program's own graph and scheduler.
//!
//! Rank 0 is one server: it takes messages one at a time, each for what managing a unit costs plus its
//! bytes over the bandwidth, and sends targets and units likewise. Its own slot loses what managing
//! takes. Another rank starts a unit when the message has arrived and the unit before has ended.
//! A build counts as done when the writer has put the target on disk.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::time::Instant;

use lambda_hat::sweep::scheduler::{Action, Event, Scheduler, Slot, UnitId};
use lambda_hat::sweep::{Plan, SweepGraph, UnitKind, WorkSource};

/// What the machinery costs.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// Seconds of rank 0 a unit: its two messages and all that is done about them.
    pub service: f64,
    /// Seconds a message is under way.
    pub latency: f64,
    /// Bytes a second in and out of rank 0.
    pub bandwidth: f64,
    /// Bytes a second onto the disk.
    pub disk: f64,
    /// Seconds that the writer takes for a target however small.
    pub write: f64,
}

/// Bytes of a unit's message: sampler, posterior, and what the warmup found.
const TASK: f64 = 1000.0;
/// Bytes of a chain's outcome: a thousand draws of eight columns.
const CHAIN: f64 = 64e3;

/// How a simulated sweep went.
#[derive(Debug)]
pub struct Played {
    /// Seconds of the sweep.
    pub makespan: f64,
    /// Share of the time in which rank 0 was managing.
    pub managing: f64,
    /// Bytes of targets sent.
    pub sent: f64,
    /// Most bytes of targets and of draws of unfinished runs that rank 0 held at a time.
    pub held: f64,
    /// Events of the scheduler a second of real time, graph included.
    pub events: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Time(f64);

impl Eq for Time {}

impl PartialOrd for Time {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Time {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happens {
    /// A unit reaches a slot of another rank.
    Comes(usize, UnitId),
    /// A slot has computed a unit.
    Ends(usize, UnitId),
    /// Its outcome reaches rank 0.
    Tells(usize, UnitId),
    /// A target is on disk.
    Written(UnitId),
}

struct World<'a> {
    plan: &'a Plan,
    graph: SweepGraph,
    scheduler: Scheduler,
    took: &'a [f64],
    costs: Costs,
    agenda: BinaryHeap<Reverse<(Time, Happens)>>,
    queues: Vec<VecDeque<UnitId>>,
    running: Vec<bool>,
    /// Rank 0 is busy until then.
    busy: f64,
    managed: f64,
    /// What rank 0 had managed when its own unit began.
    managed_before: f64,
    disk: f64,
    holders: HashMap<usize, HashSet<usize>>,
    /// Units of each target that were not handed out yet.
    unassigned: Vec<usize>,
    /// Chains of each run that have not come in yet, the control chain included.
    missing: Vec<usize>,
    /// Chains of each run, likewise.
    chains: Vec<usize>,
    held: f64,
    most_held: f64,
    sent: f64,
    events: usize,
    thinking: f64,
}

/// Plays a sweep on `ranks` ranks of one slot.
pub fn play(plan: &Plan, graph: SweepGraph, took: &[f64], ranks: usize, costs: Costs) -> Played {
    let mut unassigned = vec![0; plan.targets.len()];
    for (run, planned) in plan.runs.iter().enumerate() {
        unassigned[planned.target] += plan.units_of_run(run).count();
    }
    let chains: Vec<usize> =
        plan.runs.iter().map(|run| run.sampler.chains + usize::from(run.control)).collect();
    let mut world = World {
        plan,
        graph,
        scheduler: Scheduler::new(0),
        took,
        costs,
        agenda: BinaryHeap::new(),
        queues: vec![VecDeque::new(); ranks],
        running: vec![false; ranks],
        busy: 0.0,
        managed: 0.0,
        managed_before: 0.0,
        disk: 0.0,
        holders: HashMap::new(),
        unassigned,
        missing: chains.clone(),
        chains,
        held: 0.0,
        most_held: 0.0,
        sent: 0.0,
        events: 0,
        thinking: 0.0,
    };
    world.graph.expect_slots(ranks);
    for rank in 0..ranks {
        world.feed(Event::SlotUp(Slot { rank, index: 0 }));
    }
    world.feed_ready();
    let mut now = 0.0;
    while let Some(Reverse((Time(time), happens))) = world.agenda.pop() {
        now = time;
        world.happens(time, happens);
    }
    let now = now.max(world.busy);
    assert!(world.graph.is_done() && world.scheduler.in_flight() == 0, "the sweep stopped short");
    Played {
        makespan: now,
        managing: world.managed / now,
        sent: world.sent,
        held: world.most_held,
        events: world.events as f64 / world.thinking,
    }
}

impl World<'_> {
    fn happens(&mut self, now: f64, happens: Happens) {
        match happens {
            Happens::Comes(rank, unit) => {
                self.queues[rank].push_back(unit);
                self.start(rank, now);
            }
            Happens::Ends(0, unit) => {
                let lost = self.managed - self.managed_before;
                if lost > 0.0 {
                    // The slot shares its core with the manager.
                    self.managed_before = self.managed;
                    self.at(now + lost, Happens::Ends(0, unit));
                    return;
                }
                self.end(0, unit, now);
            }
            Happens::Ends(rank, unit) => self.end(rank, unit, now),
            Happens::Tells(rank, unit) => {
                let bytes = if rank == 0 { 0.0 } else { self.outcome_bytes(unit) };
                self.manage(now, 0.5 * self.costs.service + bytes / self.costs.bandwidth);
                self.settle(unit);
                self.feed(Event::Finished { slot: Slot { rank, index: 0 }, unit });
                self.feed_ready();
            }
            Happens::Written(unit) => {
                self.manage(now, 0.5 * self.costs.service);
                let start = Instant::now();
                self.graph.settled(unit, true);
                self.thinking += start.elapsed().as_secs_f64();
                self.feed_ready();
            }
        }
    }

    fn at(&mut self, time: f64, happens: Happens) {
        self.agenda.push(Reverse((Time(time), happens)));
    }

    /// Keeps rank 0 busy for some seconds from `now` on, or from when it is free.
    fn manage(&mut self, now: f64, seconds: f64) {
        self.busy = self.busy.max(now) + seconds;
        self.managed += seconds;
    }

    fn start(&mut self, rank: usize, now: f64) {
        if self.running[rank] {
            return;
        }
        if let Some(unit) = self.queues[rank].pop_front() {
            self.running[rank] = true;
            if rank == 0 {
                self.managed_before = self.managed;
            }
            self.at(now + self.took[unit as usize], Happens::Ends(rank, unit));
        }
    }

    fn end(&mut self, rank: usize, unit: UnitId, now: f64) {
        self.running[rank] = false;
        let under_way = if rank == 0 { 0.0 } else { self.costs.latency };
        self.at(now + under_way, Happens::Tells(rank, unit));
        self.start(rank, now);
    }

    fn settle(&mut self, unit: UnitId) {
        let kind = self.graph.kind(unit);
        let start = Instant::now();
        match kind {
            UnitKind::Build(target) => {
                let bytes = self.plan.targets[target].bytes() as f64;
                self.hold(bytes);
                self.disk = self.disk.max(self.busy) + self.costs.write + bytes / self.costs.disk;
                self.at(self.disk, Happens::Written(unit));
            }
            _ => self.graph.settled(unit, true),
        }
        self.thinking += start.elapsed().as_secs_f64();
        if let UnitKind::Chain(run, _) | UnitKind::Control(run) = kind {
            self.hold(CHAIN);
            self.missing[run] -= 1;
            if self.missing[run] == 0 {
                self.held -= CHAIN * self.chains[run] as f64;
            }
        }
    }

    fn hold(&mut self, bytes: f64) {
        self.held += bytes;
        self.most_held = self.most_held.max(self.held);
    }

    fn outcome_bytes(&self, unit: UnitId) -> f64 {
        match self.graph.kind(unit) {
            UnitKind::Build(target) => self.plan.targets[target].bytes() as f64,
            // A metric: a number for each parameter.
            UnitKind::Warmup(run) => 8.0 * self.plan.runs[run].dim as f64,
            UnitKind::Chain(..) | UnitKind::Chains(_) | UnitKind::Control(_) => CHAIN,
        }
    }

    fn feed_ready(&mut self) {
        let start = Instant::now();
        let ready = self.graph.ready();
        self.thinking += start.elapsed().as_secs_f64();
        for work in ready {
            self.feed(Event::Ready(work));
        }
    }

    fn feed(&mut self, event: Event) {
        let start = Instant::now();
        let actions = self.scheduler.on_event(event);
        self.thinking += start.elapsed().as_secs_f64();
        self.events += 1;
        for action in actions {
            let Action::Assign { slot: Slot { rank, .. }, unit } = action else { continue };
            self.send(rank, unit);
        }
    }

    fn send(&mut self, rank: usize, unit: UnitId) {
        let mut seconds = 0.5 * self.costs.service;
        if let Some(target) = self.graph.kind(unit).target(self.plan) {
            self.unassigned[target] -= 1;
            if self.unassigned[target] == 0 {
                self.held -= self.plan.targets[target].bytes() as f64;
            }
        }
        if rank > 0 {
            let mut bytes = TASK;
            if let UnitKind::Chain(run, _) | UnitKind::Control(run) = self.graph.kind(unit) {
                bytes += 8.0 * self.plan.runs[run].dim as f64;
            }
            if let Some(target) = self.graph.kind(unit).target(self.plan)
                && self.holders.entry(target).or_default().insert(rank)
            {
                let target = self.plan.targets[target].bytes() as f64;
                bytes += target;
                self.sent += target;
            }
            seconds += bytes / self.costs.bandwidth;
        }
        self.manage(self.busy, seconds);
        let under_way = if rank == 0 { 0.0 } else { self.costs.latency };
        self.at(self.busy + under_way, Happens::Comes(rank, unit));
    }
}
