//! Bundles: all that an experiment needs in one tar file, and the check of one that comes from elsewhere.
//!
//! A bundle is an uncompressed tar file (ustar) of regular files in this order and no other:
//!
//! ```text
//! bundle.json                        what follows: names, sizes, BLAKE3 hashes
//! objects/<64 hex>                   sorted; the name is the hash of the content
//! refs/<target|run>/<64 hex>.json    sorted, targets first, byte for byte as in store/refs/
//! results/<experiment>.manifest.json
//! ```
//!
//! Whoever reads one believes nothing of it: [`walk`] demands exactly the entries that `bundle.json`
//! lists, in order, with the sizes listed, and no name is ever made a path. Names of files are derived
//! from checked hashes alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tar::EntryType;

use super::experiment::Experiment;
use super::objects::{Halt, copy_hashed};
use super::refs::{Found, understand};
use super::{Hash, RUN, Ref, Status, StoreError, TARGET, check_name, experiment_manifest, size};

/// Version of the form.
pub(super) const FORMAT: u64 = 1;
/// The first entry.
pub(super) const INDEX: &str = "bundle.json";
/// Bytes of a tar file's blocks.
const BLOCK: u64 = 512;
/// Largest index and manifest.
const MOST_INDEX: u64 = 256 << 20;
/// Largest ref; those of runs with hundreds of chains have some hundred kilobytes.
const MOST_REF: u64 = 16 << 20;
/// Largest object: twice what a target may hold in numbers.
const MOST_OBJECT: u64 = 256 << 30;

/// The content of `bundle.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Index {
    pub(super) format: u64,
    pub(super) experiment: String,
    pub(super) objects: Vec<ObjectLine>,
    pub(super) refs: Vec<RefLine>,
    pub(super) manifest: FileLine,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ObjectLine {
    pub(super) blake3: Hash,
    pub(super) size: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RefLine {
    pub(super) kind: String,
    pub(super) id: Hash,
    pub(super) blake3: Hash,
    pub(super) size: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileLine {
    pub(super) blake3: Hash,
    pub(super) size: u64,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum What {
    Object,
    Ref { kind: String, id: Hash },
    Manifest,
}

/// One entry that must be there.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) name: String,
    pub(super) what: What,
    pub(super) size: u64,
    pub(super) blake3: Hash,
}

impl Index {
    /// All entries after the index, in order.
    pub(super) fn items(&self) -> Result<Vec<Item>, StoreError> {
        let mut items = Vec::with_capacity(self.objects.len() + self.refs.len() + 1);
        items.extend(self.objects.iter().map(|o| Item {
            name: format!("objects/{}", o.blake3),
            what: What::Object,
            size: o.size,
            blake3: o.blake3,
        }));
        items.extend(self.refs.iter().map(|r| Item {
            name: format!("refs/{}/{}.json", r.kind, r.id),
            what: What::Ref { kind: r.kind.clone(), id: r.id },
            size: r.size,
            blake3: r.blake3,
        }));
        items.push(Item {
            name: experiment_manifest(&self.experiment)?.display().to_string(),
            what: What::Manifest,
            size: self.manifest.size,
            blake3: self.manifest.blake3,
        });
        Ok(items)
    }

    /// Is it one that `export` could have written? Else the entry that is not, and why.
    fn check(&self) -> Result<(), (String, String)> {
        let whole = |why: String| (INDEX.to_owned(), why);
        if self.format != FORMAT {
            return Err(whole(format!("it has format {}, and this version reads {FORMAT}", self.format)));
        }
        check_name(&self.experiment).map_err(|e| whole(e.to_string()))?;
        if !self.objects.is_sorted_by(|a, b| a.blake3 < b.blake3) {
            return Err(whole("its objects are not sorted, or one comes twice".into()));
        }
        if let Some(r) = self.refs.iter().find(|r| ![TARGET, RUN].contains(&r.kind.as_str())) {
            return Err(whole(format!("a ref of kind {:?}; there are target and run", r.kind)));
        }
        // Targets first: a run is laid out in its target's directory.
        let place = |r: &RefLine| (r.kind != TARGET, r.id);
        if !self.refs.is_sorted_by(|a, b| place(a) < place(b)) {
            return Err(whole("its refs are not sorted, or one comes twice".into()));
        }
        for item in self.items().map_err(|e| whole(e.to_string()))? {
            let most = match item.what {
                What::Object => MOST_OBJECT,
                What::Ref { .. } => MOST_REF,
                What::Manifest => MOST_INDEX,
            };
            if item.size > most {
                let why = format!("{} are more than the {} that are taken", size(item.size), size(most));
                return Err((item.name, why));
            }
        }
        Ok(())
    }
}

/// Bytes of a tar file with an entry of each size.
fn length_of(sizes: impl Iterator<Item = u64>) -> u64 {
    let blocks = |size: u64| size.div_ceil(BLOCK).saturating_add(1);
    sizes.map(blocks).fold(2, u64::saturating_add).saturating_mul(BLOCK)
}

/// The content of `bundle.json` and its hash.
type Opened = (Index, Hash);

/// Reads a bundle from its beginning to its end and shows every entry after the index to `visit`, which
/// may read its content. `known` is the hash that `bundle.json` must have, where it was read before.
///
/// # Errors
/// [`StoreError::Bundle`] for whatever is not exactly as the index says, [`StoreError::Io`], and what
/// `visit` gives.
pub(super) fn walk(
    path: &Path,
    known: Option<&Hash>,
    visit: &mut dyn FnMut(&Item, &mut dyn Read) -> Result<(), StoreError>,
) -> Result<Opened, StoreError> {
    let file = File::open(path).map_err(StoreError::io("read", path))?;
    let about = file.metadata().map_err(StoreError::io("read", path))?;
    let bad = |entry: &str, why: String| StoreError::Bundle { path: path.into(), entry: entry.into(), why };
    if !about.is_file() {
        return Err(bad("the file", "is no regular file, which can be read twice".into()));
    }
    let length = about.len();
    let mut archive = tar::Archive::new(BufReader::new(file));
    // Raw: headers as they stand. Extended ones, which would rename what follows, are entries of their
    // own type then, and refused.
    let entries = archive.entries().map_err(StoreError::io("read", path))?.raw(true);
    let mut opened: Option<(Opened, Vec<Item>)> = None;
    let mut seen = 0;
    let mut index_size = 0;
    for entry in entries {
        let at = format!("entry {}", seen + 1);
        let mut entry = entry.map_err(|e| bad(&at, cut_short(&e)))?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let told = |why: String| bad(&format!("entry {name:?}"), why);
        let kind = entry.header().entry_type();
        if kind != EntryType::Regular {
            return Err(told(format!("is {}; a bundle holds regular files alone", in_words(kind))));
        }
        let bytes = entry.size();
        if bytes > length.saturating_sub(entry.raw_file_position()) {
            let why = format!("should have {}, more than the file has left: it was cut short", size(bytes));
            return Err(told(why));
        }
        let Some((_, items)) = &opened else {
            if name != INDEX {
                return Err(told(format!("stands first, where {INDEX} should be")));
            }
            if bytes > MOST_INDEX {
                return Err(told(format!(
                    "{} are more than the {} that are taken",
                    size(bytes),
                    size(MOST_INDEX)
                )));
            }
            let content = read_all(&mut entry, bytes).map_err(|e| told(cut_short(&e)))?;
            let hash = Hash::of(&content);
            if known.is_some_and(|known| *known != hash) {
                return Err(told("has changed since it was checked".into()));
            }
            let index: Index = serde_json::from_slice(&content).map_err(|e| told(e.to_string()))?;
            index.check().map_err(|(entry, why)| bad(&format!("entry {entry:?}"), why))?;
            let items = index.items()?;
            opened = Some(((index, hash), items));
            index_size = bytes;
            seen += 1;
            continue;
        };
        let Some(item) = items.get(seen - 1).filter(|item| item.name == name) else {
            return Err(told(unexpected(&name, items, seen - 1)));
        };
        if bytes != item.size {
            return Err(told(format!("has {bytes} bytes, and {INDEX} says {}", item.size)));
        }
        visit(item, &mut entry)?;
        seen += 1;
    }
    let Some((opened, items)) = opened else {
        return Err(bad("the file", "holds no entries: it is empty, or no bundle".into()));
    };
    if let Some(item) = items.get(seen - 1) {
        return Err(bad(&format!("entry {:?}", item.name), "is missing: the file was cut short".into()));
    }
    let due = length_of(items.iter().map(|item| item.size).chain([index_size]));
    if length != due {
        return Err(bad(
            "the file",
            format!("has {length} bytes, and its entries take {due}: it was cut short or added to"),
        ));
    }
    Ok(opened)
}

/// Why an entry stands where another should.
fn unexpected(name: &str, items: &[Item], at: usize) -> String {
    let path = Path::new(name);
    let due = items.get(at).map_or_else(|| "the end".to_owned(), |item| item.name.clone());
    if path.is_absolute() {
        "is an absolute path".into()
    } else if path.components().any(|c| !matches!(c, std::path::Component::Normal(_))) {
        "leaves the bundle by `.` or `..`".into()
    } else if name == INDEX || items[..at.min(items.len())].iter().any(|item| item.name == name) {
        "comes twice".into()
    } else if items.iter().any(|item| item.name == name) {
        format!("stands where {due} should: entries are missing or out of order")
    } else {
        format!("is not listed in {INDEX}, which has {due} there")
    }
}

fn in_words(kind: EntryType) -> String {
    match kind {
        EntryType::Symlink => "a symbolic link".into(),
        EntryType::Link => "a hard link".into(),
        EntryType::Directory => "a directory".into(),
        EntryType::Char | EntryType::Block => "a device".into(),
        EntryType::Fifo => "a named pipe".into(),
        EntryType::XHeader | EntryType::XGlobalHeader | EntryType::GNULongName | EntryType::GNULongLink => {
            "an extended header".into()
        }
        other => format!("of type {:?}", char::from(other.as_byte())),
    }
}

fn cut_short(error: &io::Error) -> String {
    format!("cannot be read ({error}): the file was cut short or damaged, or is no tar file")
}

fn read_all(from: &mut dyn Read, bytes: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    from.read_to_end(&mut content)?;
    if content.len() as u64 == bytes { Ok(content) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// A bundle that was read whole and found right: every hash, every ref, every name.
#[derive(Debug)]
pub struct Bundle {
    pub(super) path: PathBuf,
    /// The hash of its index, which the second reading must find again.
    pub(super) hash: Hash,
    pub(super) index: Index,
    /// In order, with the bytes of their files.
    pub(super) refs: Vec<(Ref, Vec<u8>)>,
    pub(super) experiment: Experiment,
}

impl Bundle {
    /// Reads and checks the bundle at `path`. Nothing is written.
    ///
    /// # Errors
    /// [`StoreError::Bundle`] naming the entry and what is wrong with it; [`StoreError::Io`] where the
    /// file cannot be read.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let mut refs = Vec::new();
        let mut manifest = Vec::new();
        let (index, hash) = walk(path, None, &mut |item, content| {
            let told = |why: String| StoreError::Bundle {
                path: path.into(),
                entry: format!("entry {:?}", item.name),
                why,
            };
            let mut kept = Vec::new();
            let mut sink = io::sink();
            let to: &mut dyn io::Write = if item.what == What::Object { &mut sink } else { &mut kept };
            let found = copy_hashed(content, to).map_err(|halt| match halt {
                Halt::Reading(e) | Halt::Writing(e) => told(cut_short(&e)),
            })?;
            if found != item.blake3 {
                return Err(told(format!("has the hash {found}, and {} was promised", item.blake3)));
            }
            match &item.what {
                What::Object => {}
                What::Manifest => manifest = kept,
                What::Ref { kind, id } => match understand(&kept, Path::new(&item.name), kind, id) {
                    Ok(Found::Good(unit)) => refs.push((*unit, kept)),
                    Ok(Found::Damaged(why)) => return Err(told(why)),
                    Ok(Found::Nothing) => return Err(told("is empty".into())),
                    Err(e) => return Err(told(e.to_string())),
                },
            }
            Ok(())
        })?;
        let bad = |entry: String, why: String| StoreError::Bundle { path: path.into(), entry, why };
        let place = experiment_manifest(&index.experiment)?.display().to_string();
        let experiment = Experiment::parse(manifest).map_err(|why| bad(place.clone(), why))?;
        if experiment.name != index.experiment {
            return Err(bad(place, format!("is the manifest of {:?}", experiment.name)));
        }
        let bundle = Self { path: path.into(), hash, index, refs, experiment };
        bundle.check().map_err(|(entry, why)| bad(entry, why))?;
        Ok(bundle)
    }

    /// Shows every object that a ref names: the file's name and its content. What the store
    /// cannot judge is judged so before anything is written.
    ///
    /// # Errors
    /// [`StoreError::Bundle`] with what `judge` says of an object, and as [`open`](Self::open).
    pub fn judge(&self, judge: impl Fn(&str, &[u8]) -> Result<(), String>) -> Result<(), StoreError> {
        let mut names: BTreeMap<Hash, BTreeSet<&str>> = BTreeMap::new();
        for (unit, _) in &self.refs {
            for (name, hash) in &unit.objects {
                names.entry(*hash).or_default().insert(name.as_str());
            }
        }
        walk(&self.path, Some(&self.hash), &mut |item, content| {
            let Some(called) = names.get(&item.blake3).filter(|_| item.what == What::Object) else {
                return Ok(());
            };
            let told = |why: String| StoreError::Bundle {
                path: self.path.clone(),
                entry: format!("entry {:?}", item.name),
                why,
            };
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes).map_err(|e| told(cut_short(&e)))?;
            called.iter().try_for_each(|name| judge(name, &bytes)).map_err(told)
        })?;
        Ok(())
    }

    /// The experiment's name.
    pub fn experiment(&self) -> &str {
        &self.experiment.name
    }

    /// Objects that refs name and the bundle does not hold, with one that names each.
    pub(super) fn foreign(&self) -> BTreeMap<Hash, String> {
        let own: BTreeSet<&Hash> = self.index.objects.iter().map(|object| &object.blake3).collect();
        let named =
            self.refs.iter().flat_map(|(unit, _)| unit.objects.values().map(|hash| (*hash, unit.urn())));
        named.filter(|(hash, _)| !own.contains(hash)).collect()
    }

    /// Do the parts agree with each other? Else the entry that does not, and why.
    fn check(&self) -> Result<(), (String, String)> {
        let named: BTreeSet<&Hash> = self.refs.iter().flat_map(|(unit, _)| unit.objects.values()).collect();
        if let Some(object) = self.index.objects.iter().find(|object| !named.contains(&object.blake3)) {
            return Err((format!("objects/{}", object.blake3), "is named by no ref".into()));
        }
        let (mut targets, mut dirs) = (BTreeSet::new(), BTreeSet::new());
        for (unit, _) in &self.refs {
            let told = |why: &str| Err((format!("refs/{}/{}.json", unit.kind, unit.id), why.to_owned()));
            if !self.experiment.holds(unit) {
                return told("is no member of the experiment");
            }
            if unit.status != Status::Done && !unit.objects.is_empty() {
                return told("is of a unit that is to be made again, which is not exported");
            }
            let Some(dir) = &unit.dir else {
                if unit.status == Status::Done {
                    return told("has no directory");
                }
                continue;
            };
            let parts: Vec<&str> = dir.iter().filter_map(|part| part.to_str()).collect();
            let id = unit.id.to_string();
            let fits = match (unit.kind.as_str(), parts.as_slice()) {
                (TARGET, ["runs", "targets", own]) => is_prefix(own.strip_prefix("tgt_"), &id, 12),
                (RUN, ["runs", "targets", target, own]) => {
                    let own = own.strip_prefix("run_").and_then(|own| own.rsplit_once('_'));
                    targets.contains(*target) && is_prefix(own.map(|(_, digits)| digits), &id, 8)
                }
                _ => false,
            };
            if !fits {
                return told("has a directory that is not its own, or not in that of a target of the bundle");
            }
            if !dirs.insert(dir.clone()) {
                return told("has the directory of another ref");
            }
            if unit.kind == TARGET {
                targets.insert(parts[2].to_owned());
            }
            // Names that are the tree's own.
            if unit.objects.keys().any(|name| name.starts_with("run_") || name.starts_with('_')) {
                return told("names a file that would lie among listings or runs");
            }
        }
        Ok(())
    }
}

fn is_prefix(digits: Option<&str>, id: &str, least: usize) -> bool {
    digits.is_some_and(|digits| digits.len() >= least && id.starts_with(digits))
}

#[cfg(test)]
mod tests;
