//! How a sweep stands, in a small file that any terminal can read.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{Manager, SweepError, UnitId};
use crate::store::{StoreError, results_path};
use crate::sweep::execute::host_name;
use crate::sweep::writer::Job;

/// Time between two states of the file.
const EVERY: Duration = Duration::from_secs(1);

/// `results/<experiment>.status.json`
pub fn status_path(experiment: &str) -> Result<PathBuf, StoreError> {
    results_path(&format!("{experiment}.status.json"))
}

/// How a sweep stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its name.
    pub experiment: String,
    /// `running`, `done`, `failed` (some runs), `stopped: <why>`, or `error: <why>`.
    pub state: String,
    /// Seconds since 1970 when this was written, and when the sweep began.
    pub updated: f64,
    /// See `updated`.
    pub begun: f64,
    /// Rank 0's host and process.
    pub host: String,
    /// See `host`.
    pub pid: u32,
    /// Units that were left to do at the start.
    pub units: usize,
    /// Of them: ended.
    pub ended: usize,
    /// Seconds that the rest may take, where that is known.
    pub left: Option<f64>,
    /// Runs of the plan.
    pub runs: usize,
    /// Of them: on disk, now or before.
    pub runs_done: usize,
    /// Of them: failed.
    pub runs_failed: usize,
    /// Every slot.
    pub slots: Vec<SlotStatus>,
}

/// How a slot stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlotStatus {
    /// Its rank.
    pub rank: usize,
    /// Its number there.
    pub index: usize,
    /// What it works on.
    pub unit: Option<String>,
    /// Seconds since it began that.
    pub since: f64,
    /// Seconds that it is expected to take in all, where that is known.
    pub expected: Option<f64>,
    /// Seconds since its last checkpoint.
    pub saved: Option<f64>,
    /// Share of the sweep's time that it worked.
    pub utilisation: f64,
    /// It does not answer any more.
    pub lost: bool,
}

fn clock() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

impl Manager<'_> {
    /// Writes the status now and then; not for sweeps of a second.
    pub(super) fn show_status(&mut self, now: Instant) {
        if now.duration_since(self.last_status) >= EVERY {
            self.last_status = now;
            self.write_status("running".to_owned(), now);
        }
    }

    /// The last status of a sweep that had one.
    pub(super) fn last_word(&mut self, error: Option<&SweepError>) {
        let failed = self.count_runs().1 > 0;
        let state = match (&self.stopping, failed) {
            _ if error.is_some() => format!("error: {}", error.map(ToString::to_string).unwrap_or_default()),
            (Some((why, _)), _) => format!("stopped: {why}"),
            (None, true) => "failed".to_owned(),
            (None, false) => "done".to_owned(),
        };
        self.write_status(state, Instant::now());
        if self.flush().is_err() {
            log::warn!("the last status is not on disk");
        }
    }

    fn count_runs(&self) -> (usize, usize) {
        let failed = |r: &&crate::sweep::RunReport| matches!(r.state, crate::sweep::RunState::Failed(_));
        let reports = self.reports.iter().flatten();
        (reports.clone().count(), reports.filter(failed).count())
    }

    /// What is expected of the units that are not over, shared among the slots.
    fn seconds_left(&self) -> f64 {
        let over = self.is_over.iter().enumerate().filter(|(_, over)| !**over);
        let work: f64 = over.map(|(unit, _)| self.graph.cost(unit as UnitId)).sum();
        work / self.board.answering().max(1) as f64
    }

    fn write_status(&mut self, state: String, now: Instant) {
        let status = self.status(state, now);
        match serde_json::to_string_pretty(&status) {
            // A disk that does not keep up gets the newest.
            Ok(new) => match self.backlog.iter_mut().find(|job| matches!(job, Job::Status { .. })) {
                Some(Job::Status { text }) => *text = new,
                _ => self.write(Job::Status { text: new }),
            },
            Err(e) => log::warn!("the status cannot be written: {e}"),
        }
    }

    fn status(&self, state: String, now: Instant) -> Status {
        let whole = now.duration_since(self.begun);
        let since = |then: Instant| now.duration_since(then).as_secs_f64();
        let slots = self.board.seats().iter().map(|seat| {
            let unit = seat.held.front().copied();
            let working = if unit.is_some() { now.duration_since(seat.since) } else { Duration::ZERO };
            SlotStatus {
                rank: seat.slot.rank,
                index: seat.slot.index,
                unit: unit.map(|u| self.graph.kind(u).describe(&self.plan)),
                since: working.as_secs_f64(),
                expected: unit.map(|u| self.graph.cost(u)),
                saved: seat.saved.map(since),
                utilisation: (seat.busy + working).as_secs_f64() / whole.as_secs_f64().max(1e-9),
                lost: seat.lost,
            }
        });
        let (done, failed) = self.count_runs();
        Status {
            experiment: self.plan.name.clone(),
            state,
            updated: clock(),
            begun: clock() - whole.as_secs_f64(),
            host: host_name(),
            pid: std::process::id(),
            units: self.to_do,
            ended: self.executed,
            left: Some(self.seconds_left()),
            runs: self.plan.runs.len(),
            runs_done: done,
            runs_failed: failed,
            slots: slots.collect(),
        }
    }
}
