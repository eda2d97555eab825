//! A sweep's units and what each waits for.

use super::plan::Plan;
use super::scheduler::UnitId;
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
}

impl UnitKind {
    /// The name of its files.
    pub fn name(self, plan: &Plan) -> UnitName {
        let (owner, part) = match self {
            UnitKind::Build(t) => (plan.targets[t].id, "build".to_owned()),
            UnitKind::Warmup(r) => (plan.runs[r].id, "warmup".to_owned()),
            UnitKind::Chain(r, c) => (plan.runs[r].id, format!("chain-{c}")),
            UnitKind::Control(r) => (plan.runs[r].id, "control".to_owned()),
        };
        UnitName { owner: owner.0, part }
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

/// The units that are left to do.
#[derive(Debug)]
pub struct SweepGraph {
    graph: Graph,
    kinds: Vec<UnitKind>,
    /// Units of each run.
    of_run: Vec<Vec<UnitId>>,
    /// Whether some unit will sample the target.
    sampled: Vec<bool>,
    builds: Vec<Option<UnitId>>,
}

impl SweepGraph {
    /// The units of everything that the survey did not find.
    pub fn new(plan: &Plan, survey: &Survey) -> Self {
        let mut sweep = Self {
            graph: Graph::default(),
            kinds: Vec::new(),
            of_run: vec![Vec::new(); plan.runs.len()],
            sampled: vec![false; plan.targets.len()],
            builds: Vec::new(),
        };
        let builds: Vec<Option<UnitId>> = survey
            .targets
            .iter()
            .zip(&plan.targets)
            .enumerate()
            .map(|(t, (found, target))| {
                matches!(found, Found::Missing)
                    .then(|| sweep.add(UnitKind::Build(t), target.build_fge * target.gradient_flops, &[]))
            })
            .collect();
        for (r, (found, run)) in survey.runs.iter().zip(&plan.runs).enumerate() {
            if !matches!(found, Found::Missing) || matches!(survey.targets[run.target], Found::Failed(_)) {
                continue;
            }
            sweep.sampled[run.target] = true;
            let flops = plan.targets[run.target].gradient_flops;
            let after: Vec<UnitId> = builds[run.target].into_iter().collect();
            let warmup = sweep.add(UnitKind::Warmup(r), run.fge.warmup * flops, &after);
            sweep.of_run[r].push(warmup);
            let after = [warmup];
            for chain in 0..run.sampler.chains as u32 {
                let unit = sweep.add(UnitKind::Chain(r, chain), run.fge.chain * flops, &after);
                sweep.of_run[r].push(unit);
            }
            if run.control {
                let unit = sweep.add(UnitKind::Control(r), run.fge.control * flops, &after);
                sweep.of_run[r].push(unit);
            }
        }
        sweep.builds = builds;
        sweep
    }

    /// The unit that builds a target, where there is one.
    pub fn build(&self, target: usize) -> Option<UnitId> {
        self.builds[target]
    }

    /// The unit of a kind, where it is left to do.
    pub fn unit(&self, kind: UnitKind) -> Option<UnitId> {
        let run = match kind {
            UnitKind::Build(t) => return self.build(t),
            UnitKind::Warmup(r) | UnitKind::Chain(r, _) | UnitKind::Control(r) => r,
        };
        self.of_run[run].iter().copied().find(|&u| self.kinds[u as usize] == kind)
    }

    /// A unit's expected cost.
    pub fn cost(&self, unit: UnitId) -> f64 {
        self.graph.cost(unit)
    }

    fn add(&mut self, kind: UnitKind, cost: f64, after: &[UnitId]) -> UnitId {
        self.kinds.push(kind);
        self.graph.add(cost, after)
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
        for &unit in &self.of_run[run] {
            self.graph.settled(unit, false);
        }
    }
}

impl WorkSource for SweepGraph {
    fn ready(&mut self) -> Vec<(UnitId, f64)> {
        self.graph.ready()
    }

    fn settled(&mut self, unit: UnitId, success: bool) {
        self.graph.settled(unit, success);
    }

    fn is_done(&self) -> bool {
        self.graph.is_done()
    }
}
