//! What is there already: finished work is never redone, damaged work is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_bytes::ByteBuf;

use super::files;
use super::graph::UnitKind;
use super::plan::{Plan, PlannedRun};
use super::unit::{Failure, Product, UnitName};
use super::{SweepError, context};
use crate::config::Id;
use crate::diagnostics::Analysis;
use crate::store::{self, Guard, Hash, Kept, ObjectState, RUN, Ref, Status, Store, TARGET};
use crate::target::Target;

/// Locks held at most.
const MOST_LOCKS: usize = 256;

/// The state of a target or run before a sweep.
#[derive(Debug)]
pub enum Found<T> {
    /// Done and intact, with its content where it will be needed.
    Done(Option<T>),
    /// Failed by its numbers before, and would again.
    Failed(Failure),
    /// To be done.
    Missing,
}

/// The state of everything in a plan.
#[derive(Debug)]
pub struct Survey {
    /// A target each.
    pub targets: Vec<Found<Target>>,
    /// A run each.
    pub runs: Vec<Found<Box<Analysis>>>,
}

/// What an earlier launch has left of a unit.
#[derive(Debug)]
pub enum Offer {
    /// A checkpoint.
    Part(Vec<u8>),
    /// What it produced.
    Done(Product),
}

impl Survey {
    /// Reads what the store has of a plan, re-hashing it, and lays the `runs/` tree out again where
    /// files are gone.
    pub fn of(plan: &Plan, store: &Store, retry_failed: bool) -> Result<Self, SweepError> {
        let mut targets = Vec::with_capacity(plan.targets.len());
        for planned in plan.targets.iter() {
            let found = match intact(store, TARGET, &planned.id, retry_failed)? {
                Found::Done(Some(record)) => {
                    files::lay_out_target(store, planned, &record)?;
                    Found::Done(Some(files::read_target(store, planned, &record)?))
                }
                Found::Done(None) | Found::Missing => Found::Missing,
                Found::Failed(failure) => Found::Failed(failure),
            };
            targets.push(found);
        }
        let mut runs = Vec::with_capacity(plan.runs.len());
        for run in &plan.runs {
            runs.push(match &targets[run.target] {
                Found::Failed(failure) => Found::Failed(failure.clone()),
                _ => find_run(plan, run, store, retry_failed)?,
            });
        }
        Ok(Self { targets, runs })
    }

    /// What earlier launches have left of the units that are missing; of those that are not, it is removed.
    /// To be asked under the locks.
    pub fn offers(&self, plan: &Plan, dirs: &[PathBuf]) -> Result<Vec<(UnitKind, Offer)>, SweepError> {
        let mut offers = Vec::new();
        for (t, found) in self.targets.iter().enumerate() {
            offers.extend(match found {
                Found::Missing => left_of(dirs, &plan.targets[t].id, &[UnitKind::Build(t)], plan),
                _ => let_go(dirs, &plan.targets[t].id)?,
            });
        }
        for (r, found) in self.runs.iter().enumerate() {
            offers.extend(offers_of_run(plan, dirs, r, found)?);
        }
        Ok(offers)
    }

    /// Whether something that was missing has been recorded as done since.
    pub fn is_overtaken(&self, plan: &Plan, store: &Store) -> Result<bool, SweepError> {
        let runs = self.runs.iter().zip(&plan.runs).filter(|(found, _)| matches!(found, Found::Missing));
        for (_, run) in runs {
            // (Hashes again only what was damaged or has come since.)
            if let Found::Done(_) = intact(store, RUN, &run.id, false)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Locks the targets that something is to be done on, so that two sweeps on one root do not do
    /// the same.
    ///
    /// A lock is an open file, of which a process has about a thousand: of very many targets the
    /// first by id are locked, which still keeps a sweep from being started twice.
    /// With `all`, every target is locked: runs on it are still to come.
    pub fn lock_missing(&self, plan: &Plan, store: &Store, all: bool) -> Result<Vec<Guard>, SweepError> {
        let runs = self.runs.iter().zip(&plan.runs).filter(|(found, _)| matches!(found, Found::Missing));
        let targets =
            self.targets.iter().zip(plan.targets.iter()).filter(|(found, _)| matches!(found, Found::Missing));
        let ids: BTreeSet<Id> = runs
            .map(|(_, run)| plan.targets[run.target].id)
            .chain(targets.map(|(_, target)| target.id))
            .chain(plan.targets.iter().filter(|_| all).map(|target| target.id))
            .collect();
        let locks = ids.iter().take(MOST_LOCKS).map(|id| store.lock_unit(TARGET, &files::key(id)));
        Ok(locks.collect::<Result<_, _>>()?)
    }
}

/// What the store has of a run.
pub fn find_run(
    plan: &Plan,
    run: &PlannedRun,
    store: &Store,
    retry_failed: bool,
) -> Result<Found<Box<Analysis>>, SweepError> {
    Ok(match intact(store, RUN, &run.id, retry_failed)? {
        Found::Done(Some(record)) => match files::read_analysis(store, &record) {
            Ok(analysis) => {
                files::lay_out_run(store, run, &plan.targets[run.target], &record)?;
                Found::Done(Some(Box::new(analysis)))
            }
            Err(SweepError::Json(e)) => {
                log::warn!(
                    "run {}: analysis.json cannot be read ({e}); it will be made again",
                    run.id.short(12)
                );
                Found::Missing
            }
            Err(e) => return Err(e),
        },
        Found::Failed(failure) => Found::Failed(failure),
        _ => Found::Missing,
    })
}

/// [`Survey::offers`] of one run.
pub fn offers_of_run(
    plan: &Plan,
    dirs: &[PathBuf],
    run: usize,
    found: &Found<Box<Analysis>>,
) -> Result<Vec<(UnitKind, Offer)>, SweepError> {
    let planned = &plan.runs[run];
    match found {
        Found::Missing => Ok(left_of(dirs, &planned.id, &plan.units_of_run(run).collect::<Vec<_>>(), plan)),
        _ => let_go(dirs, &planned.id),
    }
}

/// Removes what a launch that was killed has left of units whose run or target is on disk.
fn let_go(dirs: &[PathBuf], id: &Id) -> Result<Vec<(UnitKind, Offer)>, SweepError> {
    for dir in dirs {
        store::let_go(dir, &files::key(id))?;
    }
    Ok(Vec::new())
}

/// What earlier launches have left of the units of a run or target: of each the product, else the newest
/// checkpoint.
fn left_of(dirs: &[PathBuf], id: &Id, kinds: &[UnitKind], plan: &Plan) -> Vec<(UnitKind, Offer)> {
    let mut files = Vec::new();
    for dir in dirs {
        files.extend(store::kept(dir, &files::key(id), &context()));
    }
    let mut done = BTreeMap::new();
    for kept in files.iter().filter(|kept| kept.name.ends_with(".done")) {
        match postcard::from_bytes::<Vec<(String, ByteBuf)>>(&kept.content) {
            Ok(units) => done.extend(units),
            Err(e) => log::warn!("{} of {}: {e}; its work is done again", kept.name, id.short(12)),
        }
    }
    let mut offers = Vec::new();
    for &kind in kinds.iter().filter(|_| !files.is_empty()) {
        let name = kind.name(plan);
        let product = done.get(&name.part).and_then(|product| postcard::from_bytes(product).ok());
        if let Some(product) = product {
            offers.push((kind, Offer::Done(product)));
        } else if let Some(state) = newest(&files, &name) {
            offers.push((kind, Offer::Part(state)));
        }
    }
    offers
}

/// The newest checkpoint of a unit.
fn newest(files: &[Kept], name: &UnitName) -> Option<Vec<u8>> {
    let parts = files.iter().filter(|kept| kept.name == name.checkpoint());
    parts.max_by_key(|kept| kept.modified).map(|kept| kept.content.clone())
}

/// The newest checkpoint of a unit on disk.
pub fn checkpoint(dirs: &[PathBuf], name: &UnitName) -> Option<Vec<u8>> {
    let kept = |dir: &PathBuf| store::kept(dir, &Hash(name.owner), &context());
    newest(&dirs.iter().flat_map(kept).collect::<Vec<_>>(), name)
}

/// The record of something done, if all its objects are there and intact.
fn intact(store: &Store, kind: &str, id: &Id, retry_failed: bool) -> Result<Found<Ref>, SweepError> {
    let Some(record) = store.read_ref(kind, &files::key(id))? else { return Ok(Found::Missing) };
    match &record.status {
        Status::Failed { reason, settled: true } if !retry_failed => {
            return Ok(Found::Failed(Failure::by_numbers(reason.clone())));
        }
        Status::Failed { .. } => return Ok(Found::Missing),
        Status::Done => {}
    }
    let mut whole = true;
    for (name, hash) in &record.objects {
        match store.check(hash)? {
            ObjectState::Intact => {}
            ObjectState::Missing => {
                log::warn!(
                    "{kind} {}: {name} is missing from the store; it will be made again",
                    id.short(12)
                );
                whole = false;
            }
            ObjectState::Damaged => {
                log::warn!(
                    "{kind} {}: {name} is damaged and was put aside; it will be made again",
                    id.short(12)
                );
                whole = false;
            }
        }
    }
    Ok(if whole { Found::Done(Some(record)) } else { Found::Missing })
}
