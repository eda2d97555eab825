//! The job of one process.

use std::collections::VecDeque;

use super::{Comm, CommError};

/// A job of one process: what it sends to itself waits in a queue.
#[derive(Debug, Default)]
pub struct SoloComm {
    queue: VecDeque<Vec<u8>>,
}

impl SoloComm {
    /// The only rank.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Comm for SoloComm {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn send(&mut self, to: usize, bytes: &[u8]) -> Result<(), CommError> {
        if to != 0 {
            return Err(CommError::NoSuchRank { to, size: 1 });
        }
        self.queue.push_back(bytes.to_vec());
        Ok(())
    }

    fn poll(&mut self) -> Result<Option<(usize, Vec<u8>)>, CommError> {
        Ok(self.queue.pop_front().map(|bytes| (0, bytes)))
    }

    fn barrier(&mut self) {}

    fn abort(&mut self, code: i32) -> ! {
        std::process::exit(code)
    }

    fn describe(&self) -> String {
        "single process".into()
    }

    fn node_local(&self) -> (usize, usize) {
        (0, 1)
    }
}
