//! Rank 0's writer: the one thread that puts outcomes on disk, so that managing never waits for a
//! disk. It also finishes runs: diagnostics and files are made where they are written.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::costs::Model;
use super::files::{self, Provenance};
use super::graph::UnitKind;
use super::plan::Plan;
use super::report::RunState;
use super::unit::Failure;
use super::{SweepError, finish};
use crate::device::Arith;
use crate::sampler::{Adapted, ChainOutcome};
use crate::store::{RUN, Ref, Status, Store, TARGET};
use crate::target::Target;

/// Jobs that may wait; a manager with more keeps them itself.
const QUEUE: usize = 64;
/// What is learnt of units' costs is kept this often.
const SAVE_COSTS: Duration = Duration::from_secs(60);

/// A chain as it came in.
#[derive(Clone, Debug)]
pub struct ChainPart {
    /// Draws, final state, work.
    pub outcome: ChainOutcome,
    /// L(w*) in the sampler's arithmetic.
    pub l0: f64,
    /// Wall seconds.
    pub seconds: f64,
    /// Where it ran.
    pub host: String,
}

/// Everything a run is finished from.
#[derive(Clone, Debug)]
pub struct RunParts {
    /// The shared warmup with its seconds and host.
    pub warmup: Option<(Adapted, f64, String)>,
    /// The chains in order.
    pub chains: Vec<ChainPart>,
    /// The control chain.
    pub control: Option<ChainPart>,
}

/// What the writer is asked to do.
#[derive(Debug)]
pub enum Job {
    /// Store a target.
    Target {
        /// Its index in the plan.
        index: usize,
        /// The target.
        target: Arc<Target>,
        /// Wall seconds of the build.
        seconds: f64,
        /// Where it was built.
        host: String,
    },
    /// Record that a target could not be built.
    TargetFailed {
        /// Its index in the plan.
        index: usize,
        /// Why.
        failure: Failure,
    },
    /// Finish and store a run.
    Run {
        /// Its index in the plan.
        index: usize,
        /// What came in.
        parts: Box<RunParts>,
    },
    /// Record that a run failed.
    RunFailed {
        /// Its index in the plan.
        index: usize,
        /// Why.
        failure: Failure,
    },
}

/// What the writer has done.
#[derive(Debug)]
pub enum Written {
    /// A target is on disk.
    Target {
        /// Its index in the plan.
        index: usize,
        /// Wall seconds of the build.
        seconds: f64,
    },
    /// A target's failure is on disk.
    TargetFailed {
        /// Its index in the plan.
        index: usize,
        /// Why it failed.
        failure: Failure,
    },
    /// A run's results or failure are on disk.
    Run {
        /// Its index in the plan.
        index: usize,
        /// How it ended.
        state: RunState,
        /// Wall seconds of all its units together.
        seconds: f64,
    },
}

/// The writer's thread.
pub struct Writer(JoinHandle<()>);

impl Writer {
    /// Starts the thread; each job's end, or the error that ends the sweep, goes to `report`.
    pub fn start<F>(
        plan: Arc<Plan>,
        store: Arc<Store>,
        launch: String,
        report: F,
    ) -> Result<(Self, SyncSender<Job>), SweepError>
    where
        F: Fn(Result<Written, SweepError>) + Send + 'static,
    {
        let (sender, jobs) = sync_channel::<Job>(QUEUE);
        let thread = std::thread::Builder::new().name("writer".into()).spawn(move || {
            let costs = Model::load(&store, Arith::current());
            let mut desk = Desk { plan, store, launch, costs, costs_saved: Instant::now(), unsaved: false };
            for job in jobs {
                desk.observe(&job);
                report(desk.write(job));
                desk.save_costs(SAVE_COSTS);
            }
            desk.save_costs(Duration::ZERO);
        })?;
        Ok((Self(thread), sender))
    }

    /// Waits until everything queued is written. The queue's sender must be gone.
    pub fn join(self) {
        let _ = self.0.join();
    }
}

struct Desk {
    plan: Arc<Plan>,
    store: Arc<Store>,
    launch: String,
    costs: Model,
    costs_saved: Instant,
    unsaved: bool,
}

impl Desk {
    /// Learns how long units take.
    fn observe(&mut self, job: &Job) {
        let mut told = |kind: UnitKind, seconds: f64| kind.observe(&self.plan, &mut self.costs, seconds);
        match job {
            Job::Target { index, seconds, .. } => told(UnitKind::Build(*index), *seconds),
            Job::Run { index, parts } => {
                if let Some((_, seconds, _)) = &parts.warmup {
                    told(UnitKind::Warmup(*index), *seconds);
                }
                for (chain, part) in parts.chains.iter().enumerate() {
                    told(UnitKind::Chain(*index, chain as u32), part.seconds);
                }
                if let Some(part) = &parts.control {
                    told(UnitKind::Control(*index), part.seconds);
                }
            }
            Job::TargetFailed { .. } | Job::RunFailed { .. } => return,
        }
        self.unsaved = true;
    }

    /// Keeps what was learnt, now and then. It is a hint: a disk that refuses it is no failure.
    fn save_costs(&mut self, every: Duration) {
        if self.unsaved && self.costs_saved.elapsed() >= every {
            (self.unsaved, self.costs_saved) = (false, Instant::now());
            if let Err(error) = self.costs.save(&self.store) {
                log::warn!("how long units took is not kept: {error}");
            }
        }
    }

    fn write(&self, job: Job) -> Result<Written, SweepError> {
        match job {
            Job::Target { index, target, seconds, host } => {
                let planned = &self.plan.targets[index];
                let provenance = Provenance::now(&self.launch, seconds, vec![host]);
                let record = files::target_ref(&self.store, planned, &target, &provenance)?;
                if let Err(failure) = self.same_as_before(&record)? {
                    return Ok(Written::TargetFailed { index, failure });
                }
                self.store.write_ref(&record)?;
                files::lay_out_target(&self.store, planned, &record)?;
                let line = format!("built in {seconds:.3} s, L0 = {:e}", target.l0);
                files::log_build(&self.store, planned, &provenance, &[line])?;
                Ok(Written::Target { index, seconds })
            }
            Job::TargetFailed { index, failure } => {
                let planned = &self.plan.targets[index];
                let provenance = Provenance::now(&self.launch, 0.0, Vec::new());
                self.store.write_ref(&files::failed_ref(TARGET, &planned.id, &failure, &provenance))?;
                files::log_build(
                    &self.store,
                    planned,
                    &provenance,
                    &[format!("failed: {}", failure.reason)],
                )?;
                Ok(Written::TargetFailed { index, failure })
            }
            Job::Run { index, parts } => self.finish_run(index, *parts),
            Job::RunFailed { index, failure } => self.fail_run(index, failure),
        }
    }

    fn finish_run(&self, index: usize, parts: RunParts) -> Result<Written, SweepError> {
        let (run, target) = (&self.plan.runs[index], &self.plan.targets[self.plan.runs[index].target]);
        let exact = files::exact_of(&self.store, target)?;
        let finished = finish::assemble(run, target, &exact, parts)?;
        let provenance = Provenance::now(&self.launch, finished.seconds, finished.hosts.clone());
        let record = files::run_ref(&self.store, run, target, &finished, &provenance)?;
        if let Err(failure) = self.same_as_before(&record)? {
            // The record stays: it is what the run must come out as.
            let state = RunState::Failed(failure);
            return Ok(Written::Run { index, state, seconds: finished.seconds });
        }
        self.store.write_ref(&record)?;
        files::lay_out_run(&self.store, run, target, &record)?;
        files::log_run(&self.store, run, target, &provenance, &finished.log)?;
        let state = RunState::Done(Box::new(finished.analysis));
        Ok(Written::Run { index, state, seconds: finished.seconds })
    }

    fn fail_run(&self, index: usize, failure: Failure) -> Result<Written, SweepError> {
        let (run, target) = (&self.plan.runs[index], &self.plan.targets[self.plan.runs[index].target]);
        let provenance = Provenance::now(&self.launch, 0.0, Vec::new());
        self.store.write_ref(&files::failed_ref(RUN, &run.id, &failure, &provenance))?;
        files::log_run(&self.store, run, target, &provenance, &[format!("failed: {}", failure.reason)])?;
        Ok(Written::Run { index, state: RunState::Failed(failure), seconds: 0.0 })
    }

    /// What is made again must have the recorded content: same configuration, same bits.
    fn same_as_before(&self, new: &Ref) -> Result<Result<(), Failure>, SweepError> {
        let Some(old) = self.store.read_ref(&new.kind, &new.id)? else { return Ok(Ok(())) };
        if !matches!(old.status, Status::Done) {
            return Ok(Ok(()));
        }
        for (name, hash) in &old.objects {
            if new.objects.get(name).is_some_and(|h| h != hash) {
                let reason = format!(
                    "made again, {name} has other content than recorded on {}: it was made by another version or \
                     arithmetic. `lambda-hat-mpi artifacts rm {}` forgets the old one",
                    old.when, new.id,
                );
                return Ok(Err(Failure { reason, settled: false }));
            }
        }
        Ok(Ok(()))
    }
}
