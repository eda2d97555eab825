//! Presets: named YAML files with the usual values, embedded in the program. A directory of the
//! user's with the same layout (`model/ data/ teacher/ sampler/`) adds to them; a file there wins.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use super::error::{Fault, Place, Report, advise};
use super::table::is_name;
use super::tree::{self, Node, Value};

/// The kinds of preset: the directories.
pub(super) const KINDS: [&str; 4] = ["model", "data", "teacher", "sampler"];

macro_rules! embedded {
    ($($kind:literal / $name:literal),* $(,)?) => {
        &[$(($kind, $name, include_str!(concat!("../../config/presets/", $kind, "/", $name, ".yaml")))),*]
    };
}

/// (kind, name, text).
static EMBEDDED: &[(&str, &str, &str)] = embedded![
    "model" / "small",
    "model" / "base",
    "model" / "wide",
    "data" / "small",
    "data" / "base",
    "data" / "large",
    "teacher" / "_null",
    "teacher" / "small",
    "teacher" / "base",
    "sampler" / "hmc",
    "sampler" / "nuts",
    "sampler" / "mala",
    "sampler" / "mclmc",
    "sampler" / "sgld",
    "sampler" / "sghmc",
    "sampler" / "sgnht",
    "sampler" / "vi",
];

/// Names of the embedded presets of a kind.
pub(super) fn embedded_names(kind: &str) -> impl Iterator<Item = &'static str> {
    EMBEDDED.iter().filter(move |(k, ..)| *k == kind).map(|(_, name, _)| *name)
}

/// The text of an embedded preset.
pub(super) fn embedded_text(kind: &str, name: &str) -> Option<&'static str> {
    EMBEDDED.iter().find(|(k, n, _)| *k == kind && *n == name).map(|(.., text)| *text)
}

/// Kind and name.
type Id = (String, String);

/// The presets at hand. Each is read once.
pub(super) struct Presets {
    dir: Option<PathBuf>,
    read: RefCell<BTreeMap<Id, Option<Rc<Node>>>>,
}

impl Presets {
    /// The embedded presets and those of `dir`, which must be a directory.
    pub fn open(dir: Option<&Path>, report: &Report) -> Self {
        if let Some(dir) = dir
            && !dir.is_dir()
        {
            let place = Place::Option(format!("--presets {}", dir.display()).into());
            let fault = Fault::Unreadable(format!(
                "not a directory; name one that holds any of {}",
                KINDS.map(|k| format!("{k}/")).join(", ")
            ));
            report.add(&place, "", fault);
        }
        Presets { dir: dir.map(Path::to_owned), read: RefCell::default() }
    }

    /// The names of a kind's presets.
    fn names(&self, kind: &str) -> Vec<String> {
        let mut names: BTreeSet<String> = embedded_names(kind).map(str::to_owned).collect();
        if let Some(dir) = &self.dir
            && let Ok(files) = std::fs::read_dir(dir.join(kind))
        {
            for file in files.flatten() {
                if let Some(name) = file.file_name().to_str().and_then(|n| n.strip_suffix(".yaml")) {
                    names.insert(name.to_owned());
                }
            }
        }
        names.into_iter().collect()
    }

    /// The preset `name` of `kind`: a mapping, or null. What is wrong with it is reported at its
    /// own place; that there is none, at `place` and `path`, where it was asked for.
    pub fn find(
        &self,
        kind: &str,
        name: &str,
        place: &Place,
        path: &str,
        report: &Report,
    ) -> Option<Rc<Node>> {
        let id = (kind.to_owned(), name.to_owned());
        if let Some(node) = self.read.borrow().get(&id) {
            return node.clone();
        }
        let text = match self.text(kind, name) {
            Ok(Some(found)) => found,
            Ok(None) => {
                let names = self.names(kind);
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let fault = Fault::UnknownName {
                    what: format!("{kind} preset"),
                    found: name.to_owned(),
                    advice: advise(name, &names),
                };
                report.add(place, path, fault);
                return None;
            }
            Err((file, error)) => {
                report.add(&Place::File(file), "", Fault::Unreadable(error.to_string()));
                return None;
            }
        };
        let node = self.parse(&text.1, &text.0, report).map(Rc::new);
        self.read.borrow_mut().insert(id, node.clone());
        node
    }

    fn parse(&self, text: &str, file: &Arc<str>, report: &Report) -> Option<Node> {
        match tree::parse(text, file) {
            Ok(mut node) => {
                tree::expand(&mut node, "", report);
                if matches!(node.value, Value::Map(_) | Value::Null) {
                    return Some(node);
                }
                let fault =
                    Fault::Unexpected { expected: "a mapping".to_owned(), found: node.value.to_string() };
                report.add(&node.place, "", fault);
            }
            Err(error) => report.add(&error.place, error.key, error.fault),
        }
        None
    }

    /// (file label, text), from the user's directory first.
    #[expect(clippy::type_complexity, reason = "used once, named beside it")]
    fn text(&self, kind: &str, name: &str) -> Result<Option<(Arc<str>, String)>, (Arc<str>, std::io::Error)> {
        // Anything else could leave the directory.
        if !is_name(name) {
            return Ok(None);
        }
        if let Some(dir) = &self.dir {
            let path = dir.join(kind).join(format!("{name}.yaml"));
            let label: Arc<str> = path.display().to_string().into();
            match read_bounded(&path) {
                Ok(text) => return Ok(Some((label, text))),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err((label, error)),
            }
        }
        Ok(embedded_text(kind, name).map(|text| (format!("preset {kind}/{name}").into(), text.to_owned())))
    }
}

/// The text of a file, of which no more is read than may be parsed.
pub(super) fn read_bounded(path: &Path) -> std::io::Result<String> {
    // A pipe could keep the program waiting for ever.
    if !std::fs::metadata(path)?.is_file() {
        let text = "not a regular file; name a file of YAML";
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, text));
    }
    let mut bytes = Vec::new();
    let limit = tree::MAX_BYTES as u64 + 1;
    std::fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    String::from_utf8(bytes).map_err(|e| {
        let line = 1 + e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count();
        std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            format!("not UTF-8 text (line {line}); save it as UTF-8"),
        )
    })
}
