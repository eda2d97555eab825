//! A sweep's units and what each waits for.

use std::ops::Range;

use super::costs::{Kind, Model, Step};
use super::plan::{Plan, PlannedRun, PlannedTarget};
use super::scheduler::{UnitId, Work};
use super::source::{Graph, WorkSource};
use super::survey::{Found, Survey};
use super::unit::UnitName;

/// What a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitKind {
    /// Make a target.
    Build(usize),
    /// Adapt a run's sampler.
    Warmup(usize),
    /// One chain of a run.
    Chain(usize, u32),
    /// All chains of a run, on a device.
    Chains(usize),
    /// A run's control chain.
    Control(usize),
}

impl UnitKind {
    /// The target that must be at hand where the unit runs.
    pub fn target(self, plan: &Plan) -> Option<usize> {
        match self {
            UnitKind::Build(_) => None,
            _ => self.run().map(|r| plan.runs[r].target),
        }
    }

    /// The name of its files.
    pub fn name(self, plan: &Plan) -> UnitName {
        let (owner, part) = match self {
            UnitKind::Build(t) => (plan.targets[t].id, "build".to_owned()),
            UnitKind::Warmup(r) => (plan.runs[r].id, "warmup".to_owned()),
            UnitKind::Chain(r, c) => (plan.runs[r].id, format!("chain-{c}")),
            UnitKind::Chains(r) => (plan.runs[r].id, "chains".to_owned()),
            UnitKind::Control(r) => (plan.runs[r].id, "control".to_owned()),
        };
        UnitName { owner: owner.0, part }
    }

    /// What costs are learnt of: the kind, its work in full gradients, and a gradient's flops.
    fn work(self, plan: &Plan) -> (Kind<'_>, f64, f64) {
        let target = |t: usize| &plan.targets[t];
        let of = |r: usize, step: Step, fge: f64| {
            let run = &plan.runs[r];
            let on_device = run.device.is_some() && step == Step::Chain;
            let kind = Kind { step, of: run.sampler.algo.name(), dtype: run.sampler.dtype, on_device };
            (kind, fge, target(run.target).gradient_flops)
        };
        match self {
            UnitKind::Build(t) => {
                let PlannedTarget { spec, build_fge, gradient_flops, .. } = target(t);
                let kind =
                    Kind { step: Step::Build, of: spec.problem.name(), dtype: spec.dtype, on_device: false };
                (kind, *build_fge, *gradient_flops)
            }
            UnitKind::Warmup(r) => of(r, Step::Warmup, plan.runs[r].fge.warmup),
            UnitKind::Chain(r, _) => of(r, Step::Chain, plan.runs[r].fge.chain),
            UnitKind::Chains(r) => {
                of(r, Step::Chain, plan.runs[r].fge.chain * plan.runs[r].sampler.chains as f64)
            }
            UnitKind::Control(r) => of(r, Step::Chain, plan.runs[r].fge.control),
        }
    }

    /// Seconds that it is expected to take.
    pub fn expected_seconds(self, plan: &Plan, model: &Model) -> f64 {
        let (kind, fge, flops) = self.work(plan);
        model.expected(kind, fge, flops)
    }

    /// Teaches a model how long it took.
    pub fn observe(self, plan: &Plan, model: &mut Model, seconds: f64) {
        let (kind, fge, flops) = self.work(plan);
        model.observe(kind, fge, flops, seconds);
    }

    /// The run that it belongs to.
    pub fn run(self) -> Option<usize> {
        match self {
            UnitKind::Build(_) => None,
            UnitKind::Warmup(run)
            | UnitKind::Chain(run, _)
            | UnitKind::Chains(run)
            | UnitKind::Control(run) => Some(run),
        }
    }

    /// In words, for the log.
    pub fn describe(self, plan: &Plan) -> String {
        let run = |r: usize| {
            let target = &plan.targets[plan.runs[r].target];
            format!("{} on tgt_{}", plan.sampler_name(r), target.id.short(12))
        };
        match self {
            UnitKind::Build(t) => format!("build of tgt_{}", plan.targets[t].id.short(12)),
            UnitKind::Warmup(r) => format!("warmup of {}", run(r)),
            UnitKind::Chain(r, c) => format!("chain {c} of {}", run(r)),
            UnitKind::Chains(r) => format!("the chains of {}", run(r)),
            UnitKind::Control(r) => format!("control chain of {}", run(r)),
        }
    }
}

impl Plan {
    /// The units of a run: its warmup, then what waits for that.
    pub fn units_of_run(&self, run: usize) -> impl Iterator<Item = UnitKind> + use<> {
        let PlannedRun { sampler, control, device, .. } = &*self.runs[run];
        let each = if device.is_some() { 0 } else { sampler.chains as u32 };
        let chains = (0..each).map(move |chain| UnitKind::Chain(run, chain));
        let first = [UnitKind::Warmup(run)].into_iter().chain(device.map(|_| UnitKind::Chains(run)));
        first.chain(chains).chain(control.then_some(UnitKind::Control(run)))
    }
}

/// The units that are left to do.
#[derive(Debug)]
pub struct SweepGraph {
    graph: Graph,
    kinds: Vec<UnitKind>,
    /// The warmup of each run; its chains and control chain follow.
    of_run: Vec<Range<UnitId>>,
    target_of: Vec<u32>,
    /// Whether some unit will sample the target.
    sampled: Vec<bool>,
    builds: Vec<Option<UnitId>>,
    window: Window,
}

/// Which targets are begun. Rank 0 holds a target from its build to its last run, so that builds are
/// held back while there is work enough without them. Where many bytes of targets are open already,
/// less is enough. Held builds come out in the order of their priority.
#[derive(Debug)]
struct Window {
    slots: usize,
    most_bytes: u64,
    held: Vec<Work>,
    sorted: bool,
    /// Units that have come out and are not over.
    runnable: usize,
    is_out: Vec<bool>,
    /// Units of each run that are not over.
    left_of_run: Vec<u32>,
    /// Runs of each target that are not over.
    left_of_target: Vec<u32>,
    bytes: Vec<u64>,
    open_bytes: u64,
    /// Units of each target, its build included.
    units_of_target: Vec<u32>,
    /// Units of targets whose build is held back.
    held_units: usize,
}

impl Window {
    /// Builds come out while fewer units a slot can run: enough for slots to hold one ahead.
    const PER_SLOT: usize = 8;
    /// Bytes of targets that are open at a time, unless slots would be idle for it.
    const MOST_BYTES: u64 = 256 << 20;
    /// Beyond these bytes builds come out while fewer units a slot are open, those that wait for others
    /// included.
    const OPEN_PER_SLOT: usize = 1;

    fn of(plan: &Plan) -> Self {
        Self {
            slots: usize::MAX,
            most_bytes: Self::MOST_BYTES,
            held: Vec::new(),
            sorted: true,
            runnable: 0,
            is_out: Vec::new(),
            left_of_run: vec![0; plan.runs.len()],
            left_of_target: vec![0; plan.targets.len()],
            bytes: plan.targets.iter().map(PlannedTarget::bytes).collect(),
            open_bytes: 0,
            units_of_target: vec![1; plan.targets.len()],
            held_units: 0,
        }
    }

    fn hold(&mut self, build: Work, target: usize) {
        self.held_units += self.units_of_target[target] as usize;
        self.held.push(build);
        self.sorted = false;
    }

    /// Takes the next build that may come out, while `left` units of the sweep are not over.
    fn pop(&mut self, left: usize, target_of: impl Fn(UnitId) -> usize) -> Option<Work> {
        if !self.sorted {
            let slots = self.slots as f64;
            let priority = |w: &Work| w.cost + w.path.max(w.dependent / slots);
            self.held.sort_by(|a, b| priority(a).total_cmp(&priority(b)).then(b.unit.cmp(&a.unit)));
            self.sorted = true;
        }
        let target = target_of(self.held.last()?.unit);
        let open = left.saturating_sub(self.held_units);
        let small = self.open_bytes + self.bytes[target] <= self.most_bytes;
        let wanted = if small {
            self.runnable < self.slots.saturating_mul(Self::PER_SLOT)
        } else {
            open < self.slots.saturating_mul(Self::OPEN_PER_SLOT)
        };
        if !wanted {
            return None;
        }
        self.open_bytes += self.bytes[target];
        self.held_units -= self.units_of_target[target] as usize;
        self.held.pop()
    }

    fn comes_out(&mut self, unit: UnitId) {
        self.is_out[unit as usize] = true;
        self.runnable += 1;
    }

    /// Whether it had come out and was not over before.
    fn unit_is_over(&mut self, unit: UnitId) -> bool {
        let was_out = std::mem::replace(&mut self.is_out[unit as usize], false);
        self.runnable -= usize::from(was_out);
        was_out
    }

    /// Some units of a run are over.
    fn run_goes_on(&mut self, run: usize, target: usize, units: u32) {
        let left = &mut self.left_of_run[run];
        if *left == 0 {
            return;
        }
        *left = left.saturating_sub(units);
        if *left == 0 {
            self.left_of_target[target] -= 1;
            if self.left_of_target[target] == 0 {
                self.open_bytes -= self.bytes[target];
            }
        }
    }
}

impl PlannedTarget {
    /// Bytes of its data and parameters, about.
    pub fn bytes(&self) -> u64 {
        let row = self.network.as_ref().map_or(0, |n| n.in_dim + n.out_dim);
        8 * (self.rows * row + self.dim) as u64
    }
}

impl SweepGraph {
    /// The units of everything that the survey did not find.
    pub(super) fn new(plan: &Plan, survey: &Survey, model: &Model) -> Self {
        let build = |t: usize| matches!(survey.targets[t], Found::Missing);
        let sample = |r: usize| {
            matches!(survey.runs[r], Found::Missing)
                && !matches!(survey.targets[plan.runs[r].target], Found::Failed(_))
        };
        Self::of(plan, model, build, sample)
    }

    /// The units of a plan of which nothing is done yet.
    pub fn whole(plan: &Plan, model: &Model) -> Self {
        Self::of(plan, model, |_| true, |_| true)
    }

    fn of(plan: &Plan, model: &Model, build: impl Fn(usize) -> bool, sample: impl Fn(usize) -> bool) -> Self {
        let mut sweep = Self {
            graph: Graph::default(),
            kinds: Vec::new(),
            of_run: Vec::with_capacity(plan.runs.len()),
            target_of: plan.runs.iter().map(|run| run.target as u32).collect(),
            sampled: vec![false; plan.targets.len()],
            builds: Vec::with_capacity(plan.targets.len()),
            window: Window::of(plan),
        };
        for t in (0..plan.targets.len()).filter(|&t| build(t)) {
            sweep.builds.resize(t, None);
            let unit = sweep.add(plan, model, UnitKind::Build(t), &[]);
            sweep.builds.push(Some(unit));
        }
        sweep.builds.resize(plan.targets.len(), None);
        for (r, run) in plan.runs.iter().enumerate() {
            let first = sweep.kinds.len() as UnitId;
            if sample(r) {
                sweep.sampled[run.target] = true;
                let build = sweep.builds[run.target];
                for kind in plan.units_of_run(r) {
                    match kind {
                        UnitKind::Warmup(_) => sweep.add(plan, model, kind, build.as_slice()),
                        _ => sweep.add(plan, model, kind, &[first]),
                    };
                }
            }
            let units = first..sweep.kinds.len() as UnitId;
            sweep.window.left_of_run[r] = units.len() as u32;
            sweep.window.left_of_target[run.target] += u32::from(!units.is_empty());
            sweep.window.units_of_target[run.target] += units.len() as u32;
            sweep.of_run.push(units);
        }
        sweep.window.is_out = vec![false; sweep.kinds.len()];
        // Targets that are there already are open from the start.
        let open = (0..plan.targets.len()).filter(|&t| sweep.sampled[t] && sweep.builds[t].is_none());
        sweep.window.open_bytes = open.map(|t| sweep.window.bytes[t]).sum();
        sweep
    }

    /// Every target will be sampled, by runs that are still to come.
    pub(super) fn expect_runs(&mut self) {
        self.sampled.fill(true);
        for left in &mut self.window.left_of_target {
            // Open to the end.
            *left += 1;
        }
    }

    /// Whether every target is there or has failed.
    pub(super) fn builds_are_over(&self) -> bool {
        self.builds.iter().flatten().all(|&unit| self.graph.is_over(unit))
    }

    /// Adds the units of the last run of `plan`, whose target is there.
    pub(super) fn add_run(&mut self, plan: &Plan, model: &Model, run: usize) {
        let planned = &plan.runs[run];
        let first = self.kinds.len() as UnitId;
        for kind in plan.units_of_run(run) {
            let after = [first];
            self.add(plan, model, kind, if kind == UnitKind::Warmup(run) { &[] } else { &after });
        }
        self.take_in(planned.target, first..self.kinds.len() as UnitId);
    }

    /// Adds a run of which nothing is to be done.
    pub(super) fn add_nothing(&mut self, plan: &Plan, run: usize) {
        let next = self.kinds.len() as UnitId;
        self.take_in(plan.runs[run].target, next..next);
    }

    fn take_in(&mut self, target: usize, units: Range<UnitId>) {
        self.target_of.push(target as u32);
        self.window.left_of_run.push(units.len() as u32);
        self.window.left_of_target[target] += u32::from(!units.is_empty());
        self.window.is_out.resize(self.kinds.len(), false);
        self.of_run.push(units);
    }

    /// Builds are held back while there is work enough for so many slots.
    pub fn expect_slots(&mut self, slots: usize) {
        self.window.slots = slots.max(1);
        self.window.sorted = false;
    }

    /// The unit that builds a target, where there is one.
    pub fn build(&self, target: usize) -> Option<UnitId> {
        self.builds[target]
    }

    /// The unit of a kind, where it is left to do.
    pub fn unit(&self, kind: UnitKind) -> Option<UnitId> {
        let run = match (kind, kind.run()) {
            (UnitKind::Build(t), _) => return self.build(t),
            (_, run) => run?,
        };
        self.of_run[run].clone().find(|&u| self.kinds[u as usize] == kind)
    }

    /// The units of a run that were left to do.
    pub fn units(&self, run: usize) -> Range<UnitId> {
        self.of_run[run].clone()
    }

    /// A unit that an earlier launch has done.
    pub fn found(&mut self, unit: UnitId) {
        if let Some(run) = self.kinds[unit as usize].run() {
            self.window.run_goes_on(run, self.target_of[run] as usize, 1);
        }
        self.graph.settled(unit, true);
    }

    /// A unit's expected seconds.
    pub fn cost(&self, unit: UnitId) -> f64 {
        self.graph.cost(unit)
    }

    fn add(&mut self, plan: &Plan, model: &Model, kind: UnitKind, after: &[UnitId]) -> UnitId {
        self.kinds.push(kind);
        self.graph.add(kind.expected_seconds(plan, model), after)
    }

    /// What a unit is.
    pub fn kind(&self, unit: UnitId) -> UnitKind {
        self.kinds[unit as usize]
    }

    /// Number of units that were left to do at the start.
    pub fn len(&self) -> usize {
        self.graph.len()
    }

    /// Whether nothing was left to do at the start.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether some unit will sample the target.
    pub fn needs_target(&self, target: usize) -> bool {
        self.sampled[target]
    }

    /// Whether a unit was dropped.
    pub fn has_failed(&self, unit: UnitId) -> bool {
        self.graph.has_failed(unit)
    }

    /// Drops what is left of a run. Units that slots hold already end as they may.
    pub fn drop_run(&mut self, run: usize) {
        for unit in self.of_run[run].clone() {
            self.window.unit_is_over(unit);
            self.graph.settled(unit, false);
        }
        self.window.run_goes_on(run, self.target_of[run] as usize, u32::MAX);
    }
}

impl WorkSource for SweepGraph {
    fn ready(&mut self) -> Vec<Work> {
        let mut ready = self.graph.ready();
        let (kinds, runs, window) = (&self.kinds, &self.target_of, &mut self.window);
        let target_of = |unit: UnitId| match kinds[unit as usize] {
            UnitKind::Build(target) => target,
            UnitKind::Warmup(run)
            | UnitKind::Chain(run, _)
            | UnitKind::Chains(run)
            | UnitKind::Control(run) => runs[run] as usize,
        };
        ready.retain_mut(|work| {
            let target = target_of(work.unit);
            let Some(run) = kinds[work.unit as usize].run() else {
                window.hold(*work, target);
                return false;
            };
            work.run = Some(run as u32);
            work.target = Some(target as u32);
            window.comes_out(work.unit);
            true
        });
        while let Some(build) = window.pop(self.graph.open(), target_of) {
            window.comes_out(build.unit);
            ready.push(build);
        }
        ready
    }

    fn settled(&mut self, unit: UnitId, success: bool) {
        let counts = self.window.unit_is_over(unit);
        match self.kinds[unit as usize] {
            // A target that nothing samples, or that nothing can sample any more.
            UnitKind::Build(t) if counts && !self.sampled[t] => {
                self.window.open_bytes -= self.window.bytes[t]
            }
            UnitKind::Build(_) => {}
            UnitKind::Warmup(run) | UnitKind::Chain(run, _) | UnitKind::Control(run) if counts => {
                self.window.run_goes_on(run, self.target_of[run] as usize, 1);
            }
            _ => {}
        }
        self.graph.settled(unit, success);
    }

    fn is_done(&self) -> bool {
        self.graph.is_done()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LoadOptions, parse};
    use crate::device::Arith;

    fn graph(targets: usize) -> SweepGraph {
        let mut text = String::from("targets:\n");
        for seed in 0..targets {
            text.push_str(&format!("  - {{ model: small, data: small, teacher: _null, seed: {seed} }}\n"));
        }
        text.push_str("samplers: [{ name: hmc, overrides: { chains: 2 } }, { name: nuts }]\n");
        let plan = Plan::new(&parse(&text, "x.yaml", &LoadOptions::default()).unwrap()).unwrap();
        SweepGraph::whole(&plan, &Model::new(Arith::current()))
    }

    fn builds(g: &SweepGraph, ready: &[Work]) -> usize {
        ready.iter().filter(|w| matches!(g.kind(w.unit), UnitKind::Build(_))).count()
    }

    #[test]
    fn targets_are_begun_while_there_is_room_and_work_is_short() {
        let mut g = graph(40);
        g.expect_slots(2);
        let ready = g.ready();
        assert_eq!(builds(&g, &ready), 2 * Window::PER_SLOT);
        assert!(g.ready().is_empty());
        g.settled(ready[0].unit, true);
        let next = g.ready();
        assert_eq!((next.len(), builds(&g, &next)), (2, 0), "its warmups are work enough");
    }

    #[test]
    fn few_bytes_of_targets_are_open_at_a_time_and_every_target_is_closed() {
        let mut g = graph(6);
        g.expect_slots(1);
        g.window.most_bytes = 1;
        let mut open = g.ready();
        let (one, mut most) = (g.window.open_bytes, 0);
        assert_eq!((open.len(), builds(&g, &open)), (1, 1));
        while let Some(work) = open.pop() {
            match g.kind(work.unit) {
                // The second run of every target fails, and one whole target: that ends them as well.
                UnitKind::Warmup(run) if run % 2 == 1 => {
                    g.settled(work.unit, false);
                    g.drop_run(run);
                }
                UnitKind::Build(3) => {
                    g.settled(work.unit, false);
                    g.drop_run(6);
                    g.drop_run(7);
                }
                _ => g.settled(work.unit, true),
            }
            open.extend(g.ready());
            most = most.max(g.window.open_bytes);
        }
        assert!(g.is_done());
        assert!(most <= 2 * one, "{most} bytes of targets that have {one} each");
        let Window { runnable, open_bytes, held_units, .. } = g.window;
        assert_eq!((runnable, open_bytes, held_units), (0, 0, 0));
    }
}
