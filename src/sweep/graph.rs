//! A sweep's units and what each waits for.

use std::ops::Range;

use super::costs::{Kind, Model, Step};
use super::plan::{Plan, PlannedRun, PlannedTarget};
use super::scheduler::{UnitId, Work};
use super::source::{Graph, WorkSource};
use super::survey::{Found, Survey};

/// What a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitKind {
    /// Make a target.
    Build(usize),
    /// Adapt a run's sampler.
    Warmup(usize),
    /// One chain of a run.
    Chain(usize, u32),
    /// A run's control chain.
    Control(usize),
}

impl UnitKind {
    /// The target that must be at hand where the unit runs.
    pub fn target(self, plan: &Plan) -> Option<usize> {
        match self {
            UnitKind::Build(_) => None,
            UnitKind::Warmup(r) | UnitKind::Chain(r, _) | UnitKind::Control(r) => Some(plan.runs[r].target),
        }
    }

    /// What costs are learnt of: the kind, its work in full gradients, and a gradient's flops.
    fn work(self, plan: &Plan) -> (Kind<'_>, f64, f64) {
        let target = |t: usize| &plan.targets[t];
        let of = |r: usize, step: Step, fge: f64| {
            let run = &plan.runs[r];
            let kind = Kind { step, of: run.sampler.algo.name(), dtype: run.sampler.dtype };
            (kind, fge, target(run.target).gradient_flops)
        };
        match self {
            UnitKind::Build(t) => {
                let PlannedTarget { spec, build_fge, gradient_flops, .. } = target(t);
                let kind = Kind { step: Step::Build, of: spec.problem.name(), dtype: spec.dtype };
                (kind, *build_fge, *gradient_flops)
            }
            UnitKind::Warmup(r) => of(r, Step::Warmup, plan.runs[r].fge.warmup),
            UnitKind::Chain(r, _) => of(r, Step::Chain, plan.runs[r].fge.chain),
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
            UnitKind::Control(r) => format!("control chain of {}", run(r)),
        }
    }
}

impl Plan {
    /// The units of a run: its warmup, then what waits for that.
    pub fn units_of_run(&self, run: usize) -> impl Iterator<Item = UnitKind> + use<> {
        let PlannedRun { sampler, control, .. } = &self.runs[run];
        let chains = (0..sampler.chains as u32).map(move |chain| UnitKind::Chain(run, chain));
        [UnitKind::Warmup(run)].into_iter().chain(chains).chain(control.then_some(UnitKind::Control(run)))
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
            sweep.of_run.push(first..sweep.kinds.len() as UnitId);
        }
        sweep
    }

    /// The unit that builds a target, where there is one.
    pub fn build(&self, target: usize) -> Option<UnitId> {
        self.builds[target]
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
            self.graph.settled(unit, false);
        }
    }
}

impl WorkSource for SweepGraph {
    fn ready(&mut self) -> Vec<Work> {
        let mut ready = self.graph.ready();
        for work in &mut ready {
            let run = match self.kinds[work.unit as usize] {
                UnitKind::Build(_) => continue,
                UnitKind::Warmup(run) | UnitKind::Chain(run, _) | UnitKind::Control(run) => run,
            };
            work.run = Some(run as u32);
            work.target = Some(self.target_of[run]);
        }
        ready
    }

    fn settled(&mut self, unit: UnitId, success: bool) {
        self.graph.settled(unit, success);
    }

    fn is_done(&self) -> bool {
        self.graph.is_done()
    }
}
