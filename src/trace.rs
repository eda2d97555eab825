//! Draws of chains as named columns: the one shape that samplers fill and everything else reads.

use serde::{Deserialize, Serialize};

/// The InferenceData group a column belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Group {
    /// Quantities whose posterior is of interest (`llc`, `L`).
    Posterior,
    /// What the sampler says of its own work (`acceptance_rate`, `energy`, …).
    SampleStats,
}

/// How a column's numbers are to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// 64-bit floating point.
    Float,
    /// Whole numbers.
    Int,
    /// 0 or 1.
    Bool,
}

/// One column's name, place and kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Name in files and tables.
    pub name: String,
    /// InferenceData group.
    pub group: Group,
    /// Stored as.
    pub kind: Kind,
}

impl Column {
    /// A column of the posterior group.
    pub fn posterior(name: &str) -> Self {
        Self { name: name.into(), group: Group::Posterior, kind: Kind::Float }
    }

    /// A column of the sample_stats group.
    pub fn stat(name: &str, kind: Kind) -> Self {
        Self { name: name.into(), group: Group::SampleStats, kind }
    }
}

/// One chain's draws: `values[column][draw]`, columns in the order of the trace's layout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ChainTrace {
    /// `values[column][draw]`
    #[serde(with = "crate::wire::columns")]
    pub values: Vec<Vec<f64>>,
}

impl ChainTrace {
    /// An empty chain of `columns` columns with room for `draws` draws, of at most a million: a
    /// chain that means to make more takes memory as it makes them.
    pub fn with_capacity(columns: usize, draws: usize) -> Self {
        let draws = draws.min(1 << 20);
        Self { values: (0..columns).map(|_| Vec::with_capacity(draws)).collect() }
    }

    /// Appends one draw; `row` has one number a column.
    pub fn push(&mut self, row: &[f64]) {
        debug_assert_eq!(row.len(), self.values.len());
        for (column, &x) in self.values.iter_mut().zip(row) {
            column.push(x);
        }
    }

    /// Number of draws.
    pub fn draws(&self) -> usize {
        self.values.first().map_or(0, Vec::len)
    }
}

/// All chains of a run under one layout; every chain has the same number of draws.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// The columns, in order.
    pub layout: Vec<Column>,
    /// The chains, in order of their index.
    pub chains: Vec<ChainTrace>,
}

impl Trace {
    /// Position of a column in the layout.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.layout.iter().position(|c| c.name == name)
    }

    /// One slice of draws a chain, for the named column.
    pub fn column(&self, name: &str) -> Option<Vec<&[f64]>> {
        let i = self.index_of(name)?;
        Some(self.chains.iter().map(|c| c.values[i].as_slice()).collect())
    }

    /// Number of draws a chain.
    pub fn draws(&self) -> usize {
        self.chains.first().map_or(0, ChainTrace::draws)
    }
}
