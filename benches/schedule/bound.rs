//! What no schedule can beat.

use lambda_hat::sweep::{Plan, SweepGraph, UnitKind};

/// Lower bounds on a sweep's makespan, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// max(total work / ranks, longest chain path): the bar.
    pub plain: f64,
    /// At least as large: work that cannot begin before time θ, because of what comes before it, takes
    /// θ + work / ranks; likewise from the end. The largest over all θ.
    pub sharp: f64,
}

/// Bounds from what each unit really took.
pub fn of(plan: &Plan, graph: &SweepGraph, took: &[f64], ranks: usize) -> Bounds {
    let units = graph.len();
    let (mut head, mut tail) = (vec![0.0_f64; units], vec![0.0_f64; units]);
    let before = |unit: u32| before(plan, graph, unit);
    for unit in 0..units {
        if let Some(first) = before(unit as u32) {
            head[unit] = head[first] + took[first];
        }
    }
    for unit in (0..units).rev() {
        if let Some(first) = before(unit as u32) {
            tail[first] = tail[first].max(took[unit] + tail[unit]);
        }
    }
    let ranks = ranks as f64;
    let total: f64 = took.iter().sum();
    let path = (0..units).map(|u| head[u] + took[u]).fold(0.0, f64::max);
    let plain = path.max(total / ranks);
    Bounds { plain, sharp: plain.max(late(&head, took, ranks)).max(late(&tail, took, ranks)) }
}

fn late(offset: &[f64], took: &[f64], ranks: f64) -> f64 {
    let mut order: Vec<usize> = (0..took.len()).collect();
    order.sort_by(|&a, &b| offset[b].total_cmp(&offset[a]));
    let (mut work, mut bound) = (0.0, 0.0_f64);
    for unit in order {
        work += took[unit];
        bound = bound.max(offset[unit] + work / ranks);
    }
    bound
}

/// The unit that another waits for.
fn before(plan: &Plan, graph: &SweepGraph, unit: u32) -> Option<usize> {
    match graph.kind(unit) {
        UnitKind::Build(_) => None,
        UnitKind::Warmup(run) => graph.build(plan.runs[run].target).map(|u| u as usize),
        UnitKind::Chains(_) => Some(unit as usize - 1),
        UnitKind::Chain(_, chain) => Some(unit as usize - 1 - chain as usize),
        UnitKind::Control(run) => Some(unit as usize - 1 - plan.runs[run].chain_units()),
    }
}
