//! Rank 0's writer: the one thread that puts outcomes on disk, so that managing never waits for a
//! disk. It also finishes runs: diagnostics and files are made where they are written.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_bytes::ByteBuf;

use super::costs::Model;
use super::fault::{self, Count};
use super::files::{self, Provenance};
use super::graph::UnitKind;
use super::options::Options;
use super::plan::Plan;
use super::ranks::Launch;
use super::report::RunState;
use super::unit::{Failure, Product};
use super::{SweepError, context, finish};
use crate::config::Id;
use crate::device::Arith;
use crate::sampler::{Adapted, ChainOutcome};
use crate::store::{self, Hash, RUN, Ref, Store, TARGET};
use crate::target::Target;

/// Jobs that may wait; a manager with more keeps them itself.
const QUEUE: usize = 64;
/// What is learnt of units' costs is kept this often.
const SAVE_COSTS: Duration = Duration::from_secs(60);

/// A chain as it came in.
#[derive(Clone, Debug)]
pub struct ChainPart {
    /// Draws, final state, work.
    pub outcome: Arc<ChainOutcome>,
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
    pub warmup: Option<(Arc<Adapted>, f64, String)>,
    /// The chains in order.
    pub chains: Vec<ChainPart>,
    /// The control chain.
    pub control: Option<ChainPart>,
}

/// What the writer is asked to do.
#[derive(Debug)]
pub enum Job {
    /// From now on indices are those of this plan.
    Plan(Arc<Plan>),
    /// Keep a file of unfinished work.
    Keep {
        /// The run or target.
        owner: [u8; 32],
        /// The file.
        file: String,
        /// Its content.
        content: Vec<u8>,
        /// Whether it must survive a power cut.
        durable: bool,
    },
    /// Keep products of finished units until their run is on disk.
    KeepProducts {
        /// The run.
        owner: [u8; 32],
        /// The file.
        file: String,
        /// Each unit's part and product.
        products: Vec<(String, Product)>,
    },
    /// Remove what is kept of the unfinished work of a run.
    LetGo {
        /// The run.
        owner: Id,
    },
    /// Show how the sweep stands.
    Status {
        /// JSON.
        text: String,
    },
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
    /// Unfinished work, or how the sweep stands.
    Kept,
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
        options: &Options,
        launch: Launch,
        report: F,
    ) -> Result<(Self, SyncSender<Job>), SweepError>
    where
        F: Fn(Result<Written, SweepError>) + Send + 'static,
    {
        let (sender, jobs) = sync_channel::<Job>(QUEUE);
        let also = options.checkpoint_dir.clone();
        let thread = std::thread::Builder::new().name("writer".into()).spawn(move || {
            let costs = Model::load(&store, Arith::current());
            let costs_saved = Instant::now();
            let mut desk = Desk { plan, store, launch, also, costs, costs_saved, unsaved: false };
            for job in jobs {
                let job = match job {
                    Job::Plan(plan) => {
                        desk.plan = plan;
                        continue;
                    }
                    job => job,
                };
                desk.observe(&job);
                fault::count(Count::Write);
                let written = desk.write(job);
                fault::count(Count::Write);
                report(written);
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

/// A failure as logs tell it.
fn failure_lines(failure: &Failure) -> Vec<String> {
    let backtrace = failure.backtrace.iter().filter(|text| !text.is_empty());
    [format!("failed: {}", failure.reason)].into_iter().chain(backtrace.cloned()).collect()
}

struct Desk {
    plan: Arc<Plan>,
    store: Arc<Store>,
    launch: Launch,
    /// Where ranks write checkpoints themselves.
    also: Option<PathBuf>,
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
                if self.plan.runs[*index].device.is_some() {
                    told(UnitKind::Chains(*index), parts.chains.iter().map(|part| part.seconds).sum());
                } else {
                    for (chain, part) in parts.chains.iter().enumerate() {
                        told(UnitKind::Chain(*index, chain as u32), part.seconds);
                    }
                }
                if let Some(part) = &parts.control {
                    told(UnitKind::Control(*index), part.seconds);
                }
            }
            _ => return,
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
            Job::Plan(_) => Ok(Written::Kept),
            Job::Keep { owner, file, content, durable } => {
                let dir = self.store.checkpoints();
                store::keep(&dir, (&Hash(owner), &file), &context(), &content, durable)?;
                Ok(Written::Kept)
            }
            Job::KeepProducts { owner, file, products } => {
                let pack = |(part, product): (String, Product)| Ok((part, ByteBuf::from(product.pack()?)));
                let packed = products.into_iter().map(pack).collect::<Result<Vec<_>, SweepError>>()?;
                let content = postcard::to_stdvec(&packed)?;
                store::keep(&self.store.checkpoints(), (&Hash(owner), &file), &context(), &content, false)?;
                Ok(Written::Kept)
            }
            Job::LetGo { owner } => {
                self.let_go(&owner)?;
                Ok(Written::Kept)
            }
            Job::Status { text } => {
                let path = super::status_path(&self.plan.name)?;
                if let Err(e) = self.store.write_volatile(&path, text.as_bytes()) {
                    log::warn!("how the sweep stands is not shown: {e}");
                }
                Ok(Written::Kept)
            }
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
                self.let_go(&planned.id)?;
                Ok(Written::Target { index, seconds })
            }
            Job::TargetFailed { index, failure } => {
                let planned = &self.plan.targets[index];
                let provenance = Provenance::now(&self.launch, 0.0, Vec::new());
                self.store.write_ref(&files::failed_ref(TARGET, &planned.id, &failure, &provenance))?;
                files::log_build(&self.store, planned, &provenance, &failure_lines(&failure))?;
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
        let provenance = provenance.on_device(run.device.and(self.launch.device.clone()));
        let record = files::run_ref(&self.store, run, target, &finished, &provenance)?;
        if let Err(failure) = self.same_as_before(&record)? {
            // The record stays: it is what the run must come out as.
            let state = RunState::Failed(failure);
            return Ok(Written::Run { index, state, seconds: finished.seconds });
        }
        self.store.write_ref(&record)?;
        files::lay_out_run(&self.store, run, target, &record)?;
        files::log_run(&self.store, run, target, &provenance, &finished.log)?;
        self.let_go(&run.id)?;
        let state = RunState::Done(Box::new(finished.analysis));
        Ok(Written::Run { index, state, seconds: finished.seconds })
    }

    fn fail_run(&self, index: usize, mut failure: Failure) -> Result<Written, SweepError> {
        let (run, target) = (&self.plan.runs[index], &self.plan.targets[self.plan.runs[index].target]);
        if failure.backtrace.is_some() {
            let log = files::run_log_path(&self.store, run, target)?;
            failure.reason.push_str(&format!(" (where it happened: {})", log.display()));
        }
        let provenance = Provenance::now(&self.launch, 0.0, Vec::new());
        self.store.write_ref(&files::failed_ref(RUN, &run.id, &failure, &provenance))?;
        files::log_run(&self.store, run, target, &provenance, &failure_lines(&failure))?;
        Ok(Written::Run { index, state: RunState::Failed(failure), seconds: 0.0 })
    }

    /// What is on disk as a whole needs no parts any more.
    fn let_go(&self, id: &Id) -> Result<(), SweepError> {
        for dir in [Some(self.store.checkpoints()), self.also.clone()].into_iter().flatten() {
            store::let_go(&dir, &files::key(id))?;
        }
        Ok(())
    }

    /// What is made again must have the recorded content: same configuration, same bits. (Of what
    /// failed, no content is recorded, but for what a repair has marked to be made again.)
    fn same_as_before(&self, new: &Ref) -> Result<Result<(), Failure>, SweepError> {
        let Some(old) = self.store.read_ref(&new.kind, &new.id)? else { return Ok(Ok(())) };
        for (name, hash) in &old.objects {
            if new.objects.get(name).is_some_and(|h| h != hash) {
                let reason = format!(
                    "made again, {name} has other content than recorded on {}: it was made by another version or \
                     arithmetic. `lambda-hat-mpi artifacts rm {}` forgets the old one",
                    old.when, new.id,
                );
                return Ok(Err(Failure::by_surroundings(reason)));
            }
        }
        Ok(Ok(()))
    }
}
