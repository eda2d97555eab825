//! `artifacts export`: an experiment as one file that another machine imports.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use tar::{EntryType, Header};

use super::atomic::write_file;
use super::bundle::{FORMAT, FileLine, INDEX, Index, ObjectLine, RefLine, What};
use super::objects::{Halt, copy_hashed};
use super::refs::{Found, inspect};
use super::{Hash, ObjectState, RUN, Ref, Status, Store, StoreError, TARGET};

/// What was exported.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Exported {
    /// The bundle.
    pub path: PathBuf,
    /// Targets in it.
    pub targets: usize,
    /// Runs in it, failed ones too.
    pub runs: usize,
    /// Objects in it, each once.
    pub objects: usize,
    /// Its size.
    pub bytes: u64,
    /// Members of the experiment that are not in it, and why.
    pub left_out: Vec<(String, String)>,
}

/// Access rights of the entries: a plain file's.
const MODE: u32 = 0o644;

impl Store {
    /// Writes the bundle of an experiment to `out`: its objects, hashed again while they are packed, its
    /// refs, and its manifest. The same store gives the same bytes. Members without a record, or that
    /// are to be made again, are left out.
    ///
    /// # Errors
    /// [`StoreError::Experiment`]; [`StoreError::Unfit`] naming an object that is damaged or missing, and
    /// then there is no bundle; [`StoreError::Io`].
    pub fn export(&self, experiment: &str, out: &Path) -> Result<Exported, StoreError> {
        let members = self.experiment(experiment)?;
        let mut report = Exported { path: out.into(), ..Exported::default() };
        let mut units: Vec<(Ref, Vec<u8>)> = Vec::new();
        for (kind, ids) in [(TARGET, &members.targets), (RUN, &members.runs)] {
            for id in ids {
                match self.portable(kind, id, &units)? {
                    Ok(unit) => units.push(unit),
                    Err(why) => report.left_out.push((super::urn(kind, id), why)),
                }
            }
        }
        report.targets = units.iter().filter(|(unit, _)| unit.kind == TARGET).count();
        report.runs = units.len() - report.targets;
        // Which file of which unit an object is, for messages.
        let mut objects: BTreeMap<Hash, (String, String)> = BTreeMap::new();
        for (unit, _) in &units {
            for (name, hash) in &unit.objects {
                objects.entry(*hash).or_insert_with(|| (name.clone(), unit.urn()));
            }
        }
        report.objects = objects.len();
        let mut lines = Vec::with_capacity(objects.len());
        for (hash, owner) in &objects {
            match fs::metadata(self.object_path(hash)) {
                Ok(about) => lines.push(ObjectLine { blake3: *hash, size: about.len() }),
                Err(_) => return Err(unfit(owner, "missing")),
            }
        }
        let refs = units.iter().map(|(unit, bytes)| RefLine {
            kind: unit.kind.clone(),
            id: unit.id,
            blake3: Hash::of(bytes),
            size: bytes.len() as u64,
        });
        let manifest = &members.manifest;
        let index = Index {
            format: FORMAT,
            experiment: members.name.clone(),
            objects: lines,
            refs: refs.collect(),
            manifest: FileLine { blake3: Hash::of(manifest), size: manifest.len() as u64 },
        };
        let mut text =
            serde_json::to_vec(&index).map_err(|e| StoreError::io("write", out)(io::Error::other(e)))?;
        text.push(b'\n');
        let items = index.items()?;
        let mut damaged = None;
        let mut others = units.iter().map(|(_, bytes)| bytes).chain([manifest]);
        let written = write_file(out, MODE, |file| {
            let mut tar = BufWriter::with_capacity(1 << 16, file);
            entry(&mut tar, INDEX, text.len() as u64, |to| to.write_all(&text))?;
            for item in &items {
                entry(&mut tar, &item.name, item.size, |to| {
                    if item.what != What::Object {
                        return to.write_all(others.next().map_or(&[][..], Vec::as_slice));
                    }
                    let mut object = File::open(self.object_path(&item.blake3))?;
                    match copy_hashed(&mut object, to) {
                        Ok(found) if found == item.blake3 => Ok(()),
                        Ok(_) => {
                            damaged = Some(item.blake3);
                            Err(ErrorKind::InvalidData.into())
                        }
                        Err(Halt::Reading(e) | Halt::Writing(e)) => Err(e),
                    }
                })?;
            }
            // Two empty blocks end a tar file.
            tar.write_all(&[0; 1024])?;
            tar.flush()
        });
        if let Some(hash) = damaged {
            // (Put aside, so that the next sweep makes it anew.)
            let state = match self.check(&hash)? {
                ObjectState::Missing => "missing",
                ObjectState::Intact | ObjectState::Damaged => "damaged",
            };
            return Err(objects.get(&hash).map_or(StoreError::Missing { hash }, |owner| unfit(owner, state)));
        }
        written?;
        report.bytes = fs::metadata(out).map_err(StoreError::io("look at", out))?.len();
        Ok(report)
    }

    /// A unit and the bytes of its ref, or why it is left out; `before` are those that are in.
    fn portable(
        &self,
        kind: &str,
        id: &Hash,
        before: &[(Ref, Vec<u8>)],
    ) -> Result<Result<(Ref, Vec<u8>), String>, StoreError> {
        let path = self.ref_path(kind, id);
        let unit = match inspect(&path, kind, id)? {
            Found::Good(unit) => *unit,
            Found::Nothing => return Ok(Err("it was removed, or never got so far".into())),
            Found::Damaged(why) => return Ok(Err(format!("its record is damaged ({why})"))),
        };
        if unit.status != Status::Done && !unit.objects.is_empty() {
            return Ok(Err("it is to be made again by the next sweep".into()));
        }
        let parent = unit.dir.as_deref().and_then(Path::parent);
        let has_target = || before.iter().any(|(target, _)| target.dir.as_deref() == parent);
        if kind == RUN && unit.status == Status::Done && !has_target() {
            return Ok(Err("its target is left out".into()));
        }
        let bytes = fs::read(&path).map_err(StoreError::io("read", &path))?;
        Ok(Ok((unit, bytes)))
    }
}

fn unfit((name, urn): &(String, String), state: &'static str) -> StoreError {
    StoreError::Unfit { name: name.clone(), urn: urn.clone(), state }
}

/// One entry: its header, its content, and zeros up to the end of a block.
fn entry(
    tar: &mut dyn Write,
    name: &str,
    size: u64,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut header = Header::new_ustar();
    header.set_path(name)?;
    header.set_entry_type(EntryType::Regular);
    header.set_size(size);
    header.set_mode(MODE);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    tar.write_all(header.as_bytes())?;
    let mut counted = Counted { to: tar, left: size };
    fill(&mut counted)?;
    if counted.left > 0 {
        return Err(io::Error::new(ErrorKind::UnexpectedEof, format!("{name} has shrunk")));
    }
    let padding = size.next_multiple_of(512) - size;
    tar.write_all(&[0; 512][..padding as usize])
}

/// Takes as many bytes as were promised.
struct Counted<'a> {
    to: &'a mut dyn Write,
    left: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.left = self
            .left
            .checked_sub(written as u64)
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "an object has grown"))?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
