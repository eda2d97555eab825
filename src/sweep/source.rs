use super::scheduler::UnitId;

/// Where a manager's work comes from: a sweep's graph is one source, a tuning study another.
pub trait WorkSource {
    /// Units that have become ready since the last call, with their expected costs.
    fn ready(&mut self) -> Vec<(UnitId, f64)>;

    /// A unit has ended, well or badly.
    fn settled(&mut self, unit: UnitId, success: bool);

    /// Nothing is ready, running or to come.
    fn is_done(&self) -> bool;
}

/// Units with prerequisites: one becomes ready when all of them have succeeded, and is dropped
/// when one of them has failed.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: Vec<Node>,
    fresh: Vec<UnitId>,
    open: usize,
}

#[derive(Debug)]
struct Node {
    cost: f64,
    waits_for: usize,
    dependents: Vec<UnitId>,
    state: State,
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
            self.nodes[before as usize].dependents.push(id);
        }
        self.nodes.push(Node { cost, waits_for: after.len(), dependents: Vec::new(), state: State::Open });
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

    /// Whether the unit has failed or was dropped because one before it failed.
    pub fn has_failed(&self, unit: UnitId) -> bool {
        self.nodes[unit as usize].state == State::Failed
    }

    fn fail(&mut self, unit: UnitId) {
        let mut stack = vec![unit];
        while let Some(unit) = stack.pop() {
            let node = &mut self.nodes[unit as usize];
            if node.state == State::Open {
                node.state = State::Failed;
                self.open -= 1;
                stack.extend(&node.dependents);
            }
        }
    }
}

impl WorkSource for Graph {
    fn ready(&mut self) -> Vec<(UnitId, f64)> {
        let nodes = &self.nodes;
        self.fresh
            .drain(..)
            .filter(|&u| nodes[u as usize].state == State::Open)
            .map(|u| (u, nodes[u as usize].cost))
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
        for dependent in std::mem::take(&mut node.dependents) {
            let node = &mut self.nodes[dependent as usize];
            node.waits_for -= 1;
            if node.waits_for == 0 {
                self.fresh.push(dependent);
            }
        }
    }

    fn is_done(&self) -> bool {
        self.open == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_waits_for_all_before_it_and_falls_with_any() {
        let mut g = Graph::default();
        let build = g.add(1.0, &[]);
        let other = g.add(1.0, &[]);
        let warmup = g.add(2.0, &[build]);
        let chains = [g.add(3.0, &[warmup]), g.add(3.0, &[warmup])];
        let doomed = g.add(4.0, &[build, other]);
        assert_eq!(g.ready(), [(build, 1.0), (other, 1.0)]);
        assert!(g.ready().is_empty());
        g.settled(build, true);
        assert_eq!(g.ready(), [(warmup, 2.0)]);
        g.settled(other, false);
        assert!(g.has_failed(doomed) && !g.has_failed(warmup));
        g.settled(warmup, true);
        assert_eq!(g.ready(), [(chains[0], 3.0), (chains[1], 3.0)]);
        g.settled(chains[0], true);
        assert!(!g.is_done());
        g.settled(chains[1], false);
        assert!(g.is_done());
    }
}
