//! `artifacts import`: a bundle of another store becomes part of this one.

use serde::Serialize;

use super::bundle::{Bundle, What, walk};
use super::experiment::Experiment;
use super::objects::Streamed;
use super::{ObjectState, Ref, Status, Store, StoreError, experiment_manifest};

/// What was imported.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Imported {
    /// The experiment.
    pub experiment: String,
    /// URNs of targets and runs that are new here.
    pub new: Vec<String>,
    /// URNs of those that were here already, with the same content.
    pub kept: Vec<String>,
    /// Objects that were written.
    pub objects: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that were here already.
    pub shared: usize,
}

/// What becomes of a ref.
enum Fate {
    New,
    Kept,
}

impl Store {
    /// Makes a checked bundle part of this store: its objects are written, hashed once more on the way,
    /// then its refs, then its manifest; files are laid out in `runs/` (but for `internal` ones), and the
    /// listings are rebuilt. Interrupted, it is simply done again.
    ///
    /// A ref that is here with the same status and objects stays as it is, and one that was to be made again
    /// gives way to one that is done; an experiment's manifest may grow.
    ///
    /// # Errors
    /// [`StoreError::NeedsExclusive`]; [`StoreError::Conflict`] where a unit, a directory or a manifest is here
    /// with other content, and [`StoreError::Bundle`] where a ref names an object that neither has: nothing is
    /// written then. [`StoreError::Bundle`] for a file that has changed since it was checked;
    /// [`StoreError::Io`].
    pub fn import(&self, bundle: &Bundle, internal: &[&str]) -> Result<Imported, StoreError> {
        self.need_exclusive()?;
        let path = &bundle.path;
        for (hash, urn) in bundle.foreign() {
            if self.check(&hash)? != ObjectState::Intact {
                let why = format!("names the object {hash}, which neither the bundle nor this store has");
                return Err(StoreError::Bundle { path: path.clone(), entry: urn, why });
            }
        }
        let fates = self.fates(bundle)?;
        let mut report = Imported { experiment: bundle.experiment.name.clone(), ..Imported::default() };
        walk(path, Some(&bundle.hash), &mut |item, content| {
            if item.what != What::Object {
                return Ok(());
            }
            match self.put_stream(&item.blake3, item.size, content)? {
                Streamed::There => report.shared += 1,
                Streamed::Written => {
                    report.objects += 1;
                    report.bytes += item.size;
                }
                Streamed::Unfit(why) => {
                    let why = format!("has changed since it was checked: {why}");
                    return Err(StoreError::Bundle { path: path.clone(), entry: item.name.clone(), why });
                }
            }
            Ok(())
        })?;
        for ((unit, bytes), fate) in bundle.refs.iter().zip(&fates.units) {
            match fate {
                Fate::Kept => report.kept.push(unit.urn()),
                Fate::New => {
                    self.write_ref_bytes(&unit.kind, &unit.id, bytes)?;
                    report.new.push(unit.urn());
                }
            }
        }
        if fates.manifest {
            let place = experiment_manifest(&bundle.experiment.name)?;
            self.write_file(&place, &bundle.experiment.manifest)?;
        }
        for (unit, _) in &bundle.refs {
            if unit.status == Status::Done {
                self.lay_out(unit, internal)?;
            }
        }
        self.rebuild_catalog()?;
        Ok(report)
    }

    /// What is to become of every ref, and whether the manifest is to be written; or all that stands
    /// against it.
    fn fates(&self, bundle: &Bundle) -> Result<Fates, StoreError> {
        let here = self.all_refs()?;
        let mut against = Vec::new();
        let mut units = Vec::with_capacity(bundle.refs.len());
        for (unit, _) in &bundle.refs {
            let taken = |other: &&Ref| {
                other.dir.is_some()
                    && other.dir == unit.dir
                    && (&other.kind, other.id) != (&unit.kind, unit.id)
            };
            if let Some(other) = here.iter().find(taken) {
                against.push(format!(
                    "{} has the directory of {}: import into another --root",
                    other.urn(),
                    unit.urn()
                ));
            }
            let same = here.iter().find(|other| (&other.kind, other.id) == (&unit.kind, unit.id));
            units.push(match same {
                None => Fate::New,
                Some(old) if old.objects == unit.objects && old.status == unit.status && old.dir == unit.dir => {
                    Fate::Kept
                }
                Some(old) if is_pending(old) && old.objects.iter().all(|(n, h)| unit.objects.get(n) == Some(h)) => {
                    Fate::New
                }
                Some(old) => {
                    against.push(format!(
                        "{} is here with other content, of {} (`lambda-hat-mpi artifacts rm {}` forgets it, another \
                         --root keeps both)",
                        unit.urn(),
                        old.when,
                        unit.id
                    ));
                    Fate::Kept
                }
            });
        }
        let place = experiment_manifest(&bundle.experiment.name)?;
        let old = self.read_file(&place)?;
        let manifest = match old.map(Experiment::parse) {
            None => true,
            // What is no manifest is rubbish that the next sweep would replace.
            Some(Err(_)) => true,
            Some(Ok(old)) if old.covers(&bundle.experiment) => false,
            Some(Ok(old)) if bundle.experiment.covers(&old) => true,
            Some(Ok(_)) => {
                against.push(format!(
                    "{} names other runs (move it away, or import into another --root)",
                    self.at(&place).display()
                ));
                false
            }
        };
        if against.is_empty() {
            return Ok(Fates { units, manifest });
        }
        Err(StoreError::Conflict { path: bundle.path.clone(), what: against })
    }
}

struct Fates {
    units: Vec<Fate>,
    manifest: bool,
}

/// Is it one that the next sweep would make again?
fn is_pending(unit: &Ref) -> bool {
    matches!(unit.status, Status::Failed { settled: false, .. })
}
