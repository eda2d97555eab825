//! YAML text as a tree in which every key and value knows where it was written.
//!
//! The text is parsed within bounds on size, depth, aliases and events, so that no file, however
//! hostile, costs more than a moment. Keys with dots (`data.noise_scale: 0.05`) become nested
//! mappings here, so that nothing after this file knows of them.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::options::{AliasLimits, DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_yaml::{Location, Options, Spanned};

use super::error::{ConfigError, Fault, Place, Report};

/// Largest file that is read, in bytes.
pub(super) const MAX_BYTES: usize = 1 << 20;
/// Deepest nesting; the deepest meaningful key lies 5 down.
const MAX_DEPTH: usize = 24;
/// Most parser events (about two a scalar).
const MAX_EVENTS: usize = 200_000;
/// Most aliases, and most events that they may expand to.
const MAX_ALIASES: usize = 1_000;
/// Most segments of a dotted key.
const MAX_SEGMENTS: usize = 8;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub value: Value,
    pub place: Place,
}

/// A YAML value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key of a mapping, where it stands, and its value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub key: String,
    pub place: Place,
    pub node: Node,
}

impl Node {
    /// The entries of a mapping; none for other values.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The value under `key` of a mapping.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|e| e.key == key).map(|e| &e.node)
    }

    /// The text of a text value.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Gives the node and everything in it the place `place`.
    pub fn relocate(&mut self, place: &Place) {
        self.place = place.clone();
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|n| n.relocate(place)),
            Value::Map(entries) => {
                for entry in entries {
                    entry.place = place.clone();
                    entry.node.relocate(place);
                }
            }
            _ => {}
        }
    }
}

/// As it appears in messages: type and value, long texts cut.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("nothing (null)"),
            Value::Bool(b) => write!(f, "{b}"),
            Value::Int(i) => write!(f, "{i}"),
            Value::Float(x) => write!(f, "{x:?}"),
            Value::Text(s) if s.chars().count() > 40 => {
                write!(f, "the text \"{}…\"", s.chars().take(40).collect::<String>().escape_debug())
            }
            Value::Text(s) => write!(f, "the text \"{}\"", s.escape_debug()),
            Value::List(items) => write!(f, "a list of {}", items.len()),
            Value::Map(_) => f.write_str("a mapping"),
        }
    }
}

/// The tree as the deserialiser yields it: positions without the file.
struct Raw(Spanned<RawValue>);

enum RawValue {
    Scalar(Value),
    List(Vec<Raw>),
    Map(Vec<(Spanned<String>, Raw)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::deserialize(deserializer).map(Raw)
    }
}

impl<'de> Deserialize<'de> for RawValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = RawValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<RawValue, E> {
        Ok(RawValue::Scalar(Value::Null))
    }

    fn visit_bool<E>(self, v: bool) -> Result<RawValue, E> {
        Ok(RawValue::Scalar(Value::Bool(v)))
    }

    fn visit_i64<E>(self, v: i64) -> Result<RawValue, E> {
        Ok(RawValue::Scalar(Value::Int(v.into())))
    }

    fn visit_u64<E>(self, v: u64) -> Result<RawValue, E> {
        Ok(RawValue::Scalar(Value::Int(v.into())))
    }

    fn visit_f64<E>(self, v: f64) -> Result<RawValue, E> {
        Ok(RawValue::Scalar(Value::Float(v)))
    }

    fn visit_str<E>(self, v: &str) -> Result<RawValue, E> {
        Ok(RawValue::Scalar(Value::Text(v.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<RawValue, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(RawValue::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawValue, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(RawValue::Map(entries))
    }
}

/// Parses one YAML document (YAML 1.2 booleans; anchors, aliases and merge keys work). Empty text
/// is `Null`. Keys given twice stay in the tree: [`expand`] reports them all.
pub(super) fn parse(text: &str, file: &Arc<str>) -> Result<Node, Box<ConfigError>> {
    let refuse =
        |place, why| Err(Box::new(ConfigError { place, key: String::new(), fault: Fault::Syntax(why) }));
    if text.len() > MAX_BYTES {
        let why = format!("the file is longer than {MAX_BYTES} bytes; split the sweep into several files");
        return refuse(Place::File(file.clone()), why);
    }
    if text.trim().is_empty() {
        return Ok(Node { value: Value::Null, place: place(file, &Location::UNKNOWN) });
    }
    match serde_yaml::from_str_with_options::<Raw>(text, bounds()) {
        Ok(raw) => Ok(locate(raw, file)),
        Err(error) => {
            let at = error.location().map_or_else(|| Place::File(file.clone()), |l| place(file, &l));
            refuse(at, one_line(error.without_snippet()))
        }
    }
}

fn bounds() -> Options {
    serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_depth: MAX_DEPTH,
            max_events: MAX_EVENTS,
            max_nodes: MAX_EVENTS,
            max_aliases: MAX_ALIASES,
            max_anchors: MAX_ALIASES,
            max_recorded_anchor_events: MAX_EVENTS,
            max_documents: 1,
        },
        alias_limits: AliasLimits::default(),
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        with_snippet: false,
    }
}

/// The parser's message on one line, without the position that [`Place`] already says.
fn one_line(error: &serde_yaml::Error) -> String {
    use serde_yaml::budget::BudgetBreach;
    if let serde_yaml::Error::Budget { breach, .. } = error {
        return match breach {
            BudgetBreach::Documents { .. } => "more than one document; remove what follows `---`".to_owned(),
            BudgetBreach::Depth { .. } => format!("nested more than {MAX_DEPTH} deep"),
            _ => "too many values, anchors or aliases; split the sweep into several files".to_owned(),
        };
    }
    let text = error.to_string();
    let text = text.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    match text.find(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

fn place(file: &Arc<str>, location: &Location) -> Place {
    Place::At { file: file.clone(), line: location.line().max(1), column: location.column().max(1) }
}

fn locate(raw: Raw, file: &Arc<str>) -> Node {
    let place_here = place(file, &raw.0.referenced);
    let value = match raw.0.value {
        RawValue::Scalar(value) => value,
        RawValue::List(items) => Value::List(items.into_iter().map(|r| locate(r, file)).collect()),
        RawValue::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, node)| Entry {
                    place: place(file, &key.referenced),
                    key: key.value,
                    node: locate(node, file),
                })
                .collect(),
        ),
    };
    Node { value, place: place_here }
}

/// Turns dotted keys into nested mappings and reports keys given twice, everywhere below `node`.
/// `path` is the key path of `node`.
pub(super) fn expand(node: &mut Node, path: &str, report: &Report) {
    match &mut node.value {
        Value::List(items) => {
            for (i, item) in items.iter_mut().enumerate() {
                expand(item, &format!("{path}[{i}]"), report);
            }
        }
        Value::Map(entries) => {
            let mut merged: Vec<Entry> = Vec::with_capacity(entries.len());
            for entry in std::mem::take(entries) {
                insert(&mut merged, nest(entry), path, report);
            }
            for entry in &mut merged {
                expand(&mut entry.node, &join(path, &entry.key), report);
            }
            *entries = merged;
        }
        _ => {}
    }
}

/// `a.b: v` as `a: {b: v}`. Keys with empty or too many segments stay, and are unknown keys later.
fn nest(entry: Entry) -> Entry {
    let segments: Vec<&str> = entry.key.split('.').collect();
    if segments.len() == 1 || segments.len() > MAX_SEGMENTS || segments.contains(&"") {
        return entry;
    }
    let place = entry.place.clone();
    let wrap = |node: Node, key: &str| Entry { key: key.to_owned(), place: place.clone(), node };
    let inner = |entry: Entry| Node { value: Value::Map(vec![entry]), place: place.clone() };
    let mut keys = segments.iter().rev();
    let last = keys.next().copied().unwrap_or_default();
    keys.fold(wrap(entry.node, last), |nested, key| wrap(inner(nested), key))
}

/// Adds an entry; mappings under one key that a dotted spelling made are merged.
fn insert(entries: &mut Vec<Entry>, new: Entry, path: &str, report: &Report) {
    // Inside a mapping that a dotted key made, every place is the key's own.
    let dotted = |e: &Entry| e.node.place == e.place;
    let Some(old) = entries.iter_mut().find(|e| e.key == new.key) else {
        entries.push(new);
        return;
    };
    let path = join(path, &new.key);
    let mergeable = dotted(old) || dotted(&new);
    match (&mut old.node.value, new.node.value) {
        (Value::Map(into), Value::Map(from)) if mergeable => {
            for entry in from {
                insert(into, entry, &path, report);
            }
        }
        _ => report.add(&new.place, path, Fault::GivenTwice { first: old.place.clone() }),
    }
}

/// `path.key`, or `key` at the top.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> Node {
        parse(text, &"f.yaml".into()).unwrap()
    }

    fn at(line: u64, column: u64) -> Place {
        Place::At { file: "f.yaml".into(), line, column }
    }

    #[test]
    fn keys_and_values_know_their_places() {
        let root = tree("a: 1\nb:\n  - x\n  - {c: 2.5}\n");
        assert_eq!(root.entries()[0].place, at(1, 1));
        assert_eq!(root.get("a").unwrap().place, at(1, 4));
        let Value::List(items) = &root.get("b").unwrap().value else { panic!("not a list") };
        assert_eq!(items[0], Node { value: Value::Text("x".into()), place: at(3, 5) });
        assert_eq!(items[1].entries()[0].place, at(4, 6));
        assert_eq!(items[1].get("c").unwrap(), &Node { value: Value::Float(2.5), place: at(4, 9) });
    }

    #[test]
    fn scalars_follow_yaml_1_2() {
        let cases: [(&str, Value); 14] = [
            ("1e-6", Value::Float(1e-6)),
            ("1e3", Value::Float(1000.0)),
            ("1000.0", Value::Float(1000.0)),
            ("-3", Value::Int(-3)),
            ("18446744073709551615", Value::Int(u64::MAX.into())),
            ("true", Value::Bool(true)),
            ("no", Value::Text("no".into())),
            ("none", Value::Text("none".into())),
            ("~", Value::Null),
            ("\"5\"", Value::Text("5".into())),
            ("1_over_log_n", Value::Text("1_over_log_n".into())),
            (".inf", Value::Float(f64::INFINITY)),
            ("007", Value::Text("007".into())),
            ("f64", Value::Text("f64".into())),
        ];
        for (text, expected) in cases {
            assert_eq!(tree(&format!("a: {text}")).get("a").unwrap().value, expected, "{text}");
        }
        assert!(matches!(tree("a: .nan").get("a").unwrap().value, Value::Float(x) if x.is_nan()));
    }

    #[test]
    fn anchors_aliases_and_merge_keys_work() {
        let root = tree("a: &x {k: 1}\nb: *x\nc: {<<: *x, l: 2}\n");
        assert_eq!(root.get("b").unwrap().get("k").unwrap().value, Value::Int(1));
        assert_eq!(root.get("c").unwrap().get("k").unwrap().value, Value::Int(1));
        assert_eq!(root.get("c").unwrap().get("l").unwrap().value, Value::Int(2));
    }

    #[test]
    fn dotted_keys_nest_and_merge() {
        let mut root = tree("data.noise: 1\ndata: {n: 2}\ndata.x.y: 3\n");
        let report = Report::default();
        expand(&mut root, "", &report);
        assert!(report.is_empty());
        let data = root.get("data").unwrap();
        assert_eq!(data.get("noise").unwrap().value, Value::Int(1));
        assert_eq!(data.get("n").unwrap().value, Value::Int(2));
        assert_eq!(data.get("x").unwrap().get("y").unwrap().place, at(3, 11));
    }

    #[test]
    fn keys_given_twice_are_all_reported() {
        let mut root = tree("a: 1\na: 2\nb: {c: 1, c: 2}\nd.e: 1\nd: {e: 2}\nf: {g: 1}\nf: {h: 1}\n");
        let report = Report::default();
        expand(&mut root, "", &report);
        let keys: Vec<String> = report.into_errors().0.into_iter().map(|e| e.key).collect();
        assert_eq!(keys, ["a", "b.c", "d.e", "f"]);
    }

    #[test]
    fn hostile_texts_are_refused_quickly() {
        let deep = "[".repeat(100_000);
        let nested = format!("{}1{}", "[".repeat(40), "]".repeat(40));
        let long = "a: b\n".repeat(MAX_BYTES);
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..12 {
            let refs = vec![format!("*a{}", i - 1); 9].join(", ");
            laughs += &format!("a{i}: &a{i} [{refs}]\n");
        }
        for text in [&deep, &nested, &long, &laughs, "a: 1\n---\nb: 2\n", "a: [1, 2\nb: 3", "a:\n\tb: 1"] {
            let start = std::time::Instant::now();
            let error = parse(text, &"f.yaml".into()).unwrap_err();
            assert!(matches!(error.fault, Fault::Syntax(_)), "{error}");
            assert!(start.elapsed().as_secs_f64() < 2.0);
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }
}
