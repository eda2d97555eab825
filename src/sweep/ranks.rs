//! What each rank of a job got: said at its start, and kept with what it makes.

use std::fmt;

use serde::Serialize;

/// The place of one rank.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct RankPlace {
    /// Its number in the job.
    pub rank: usize,
    /// Its machine.
    pub host: String,
    /// Its number on that machine.
    pub node_rank: usize,
    /// Its GPU: name, memory, PCI address, arithmetic; `cpu` where it uses none.
    pub device: String,
    /// The instruction set that they use.
    pub arithmetic: &'static str,
    /// Units that run at a time.
    pub slots: usize,
}

impl RankPlace {
    /// A rank whose arithmetic is still to be agreed on.
    pub fn new(rank: usize, host: String, node_rank: usize, slots: usize) -> Self {
        Self { rank, host, node_rank, device: "cpu".to_owned(), arithmetic: "", slots }
    }

    /// The same with a device, where there is one.
    pub fn with_device(self, device: Option<String>) -> Self {
        Self { device: device.unwrap_or(self.device), ..self }
    }

    /// Whether it has a device beside the CPU.
    pub fn has_device(&self) -> bool {
        self.device != "cpu"
    }
}

impl fmt::Display for RankPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rank, host, node_rank, device, arithmetic, slots } = self;
        let some = if *slots == 1 { "slot" } else { "slots" };
        write!(
            f,
            "rank {rank} on {host}, node-local rank {node_rank}: {device}, {arithmetic}, {slots} {some}"
        )
    }
}

/// How a job was launched.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Library and size, for people.
    pub by: String,
    /// Its ranks, in order.
    pub ranks: Vec<RankPlace>,
    /// Arithmetic of their devices, where they use them.
    pub device: Option<String>,
}

impl Launch {
    /// The ranks on `hosts`: those that may have done a piece of work that was done there.
    pub fn on(&self, hosts: &[String]) -> Vec<RankPlace> {
        self.ranks.iter().filter(|place| hosts.contains(&place.host)).cloned().collect()
    }
}
