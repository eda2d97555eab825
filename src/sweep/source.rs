//! Where work comes from, and the graph of what waits for what.

use super::scheduler::{UnitId, Work};

/// Where a manager's work comes from: a sweep's graph is one source, a tuning study another.
pub trait WorkSource {
    /// Units that have become ready since the last call, with what is expected of them.
    fn ready(&mut self) -> Vec<Work>;

    /// A unit has ended, well or badly.
    fn settled(&mut self, unit: UnitId, success: bool);

    /// Nothing is ready, running or to come.
    fn is_done(&self) -> bool;
}

/// Units with prerequisites: one becomes ready when all of them have succeeded, and is dropped
/// when one of them has failed. 40 bytes a unit and 8 a prerequisite.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: Vec<Node>,
    edges: Vec<Edge>,
    fresh: Vec<UnitId>,
    open: usize,
    /// Nodes whose `path` and `dependent` are known.
    levelled: usize,
}

/// Ends a list of edges.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Node {
    cost: f64,
    path: f64,
    dependent: f64,
    waits_for: u32,
    /// Head of the list of edges to what depends on it.
    edge: u32,
    state: State,
}

#[derive(Debug)]
struct Edge {
    to: UnitId,
    next: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Succeeded,
    Failed,
}

impl Graph {
    /// Adds a unit whose prerequisites are already there, and returns its number.
    pub fn add(&mut self, cost: f64, after: &[UnitId]) -> UnitId {
        let id = self.nodes.len() as UnitId;
        for &before in after {
            let node = &mut self.nodes[before as usize];
            self.edges.push(Edge { to: id, next: node.edge });
            node.edge = self.edges.len() as u32 - 1;
        }
        self.nodes.push(Node {
            cost,
            path: 0.0,
            dependent: 0.0,
            waits_for: after.len() as u32,
            edge: NONE,
            state: State::Open,
        });
        self.open += 1;
        if after.is_empty() {
            self.fresh.push(id);
        }
        id
    }

    /// A unit's expected cost.
    pub fn cost(&self, unit: UnitId) -> f64 {
        self.nodes[unit as usize].cost
    }

    /// Number of units ever added.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Number of units that are not over.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Whether the unit has ended, well or badly.
    pub fn is_over(&self, unit: UnitId) -> bool {
        self.nodes[unit as usize].state != State::Open
    }

    /// Whether the unit has failed or was dropped because one before it failed.
    pub fn has_failed(&self, unit: UnitId) -> bool {
        self.nodes[unit as usize].state == State::Failed
    }

    /// The longest path and the sum of what depends on each unit. A unit that depends on another in
    /// two ways counts twice in the sum, which a sweep has none of.
    fn level(&mut self) {
        if self.levelled == self.nodes.len() {
            return;
        }
        self.levelled = self.nodes.len();
        // Units come after what they depend on.
        for unit in (0..self.nodes.len()).rev() {
            let (mut path, mut dependent) = (0.0_f64, 0.0);
            let mut edge = self.nodes[unit].edge;
            while let Some(&Edge { to, next }) = self.edges.get(edge as usize) {
                let node = &self.nodes[to as usize];
                path = path.max(node.cost + node.path);
                dependent += node.cost + node.dependent;
                edge = next;
            }
            let node = &mut self.nodes[unit];
            (node.path, node.dependent) = (path, dependent);
        }
    }

    fn fail(&mut self, unit: UnitId) {
        let mut stack = vec![unit];
        while let Some(unit) = stack.pop() {
            let node = &mut self.nodes[unit as usize];
            if node.state != State::Open {
                continue;
            }
            node.state = State::Failed;
            self.open -= 1;
            let mut edge = node.edge;
            while let Some(&Edge { to, next }) = self.edges.get(edge as usize) {
                stack.push(to);
                edge = next;
            }
        }
    }
}

impl WorkSource for Graph {
    fn ready(&mut self) -> Vec<Work> {
        if self.fresh.is_empty() {
            return Vec::new();
        }
        self.level();
        let nodes = &self.nodes;
        // Lists of edges are last come, first served.
        self.fresh.sort_unstable();
        self.fresh
            .drain(..)
            .filter(|&u| nodes[u as usize].state == State::Open)
            .map(|unit| {
                let Node { cost, path, dependent, .. } = nodes[unit as usize];
                Work { unit, cost, path, dependent, run: None, target: None }
            })
            .collect()
    }

    fn settled(&mut self, unit: UnitId, success: bool) {
        if !success {
            self.fail(unit);
            return;
        }
        let node = &mut self.nodes[unit as usize];
        if node.state != State::Open {
            return;
        }
        node.state = State::Succeeded;
        self.open -= 1;
        let mut edge = node.edge;
        while let Some(&Edge { to, next }) = self.edges.get(edge as usize) {
            let node = &mut self.nodes[to as usize];
            node.waits_for -= 1;
            if node.waits_for == 0 {
                self.fresh.push(to);
            }
            edge = next;
        }
    }

    fn is_done(&self) -> bool {
        self.open == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(ready: &[Work]) -> Vec<UnitId> {
        ready.iter().map(|w| w.unit).collect()
    }

    #[test]
    fn a_unit_waits_for_all_before_it_and_falls_with_any() {
        let mut g = Graph::default();
        let build = g.add(1.0, &[]);
        let other = g.add(1.0, &[]);
        let warmup = g.add(2.0, &[build]);
        let chains = [g.add(3.0, &[warmup]), g.add(3.0, &[warmup])];
        let doomed = g.add(4.0, &[build, other]);
        assert_eq!(units(&g.ready()), [build, other]);
        assert!(g.ready().is_empty());
        g.settled(build, true);
        assert_eq!(units(&g.ready()), [warmup]);
        g.settled(other, false);
        assert!(g.has_failed(doomed) && !g.has_failed(warmup));
        g.settled(warmup, true);
        assert_eq!(units(&g.ready()), chains);
        g.settled(chains[0], true);
        assert!(!g.is_done());
        g.settled(chains[1], false);
        assert!(g.is_done());
    }

    #[test]
    fn a_unit_knows_the_longest_path_and_the_sum_of_what_depends_on_it() {
        let mut g = Graph::default();
        let build = g.add(1.0, &[]);
        for cost in [5.0, 2.0] {
            let warmup = g.add(cost, &[build]);
            g.add(3.0, &[warmup]);
            g.add(4.0, &[warmup]);
        }
        let work = g.ready()[0];
        assert_eq!((work.unit, work.cost, work.path, work.dependent), (build, 1.0, 9.0, 21.0));
        g.settled(build, true);
        let levels: Vec<_> = g.ready().iter().map(|w| (w.cost, w.path, w.dependent)).collect();
        assert_eq!(levels, [(5.0, 4.0, 7.0), (2.0, 4.0, 7.0)]);
    }
}
