//! The language of the key tables: what a key may hold, its default and its meaning.
//!
//! Validation, the JSON schema and the key documentation all read the same tables
//! ([`keys`](mod@super::keys)), so that none can promise what another refuses.

use std::fmt;

use super::error::{Fault, Report, advise, nearest};
use super::tree::{Entry, Node, Value, join};

/// What a user writes for a value that the program is to find.
pub(super) const AUTO: &str = "auto";

/// A section of a configuration: the keys that a mapping may hold.
#[derive(Debug)]
pub(super) struct Table {
    /// Name in the documentation and in the schema's `$defs`.
    pub name: &'static str,
    /// What the section describes.
    pub doc: &'static str,
    pub keys: &'static [Key],
    /// Keys that belong elsewhere or had other names, and what to write instead.
    pub advice: &'static [(&'static str, &'static str)],
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub name: &'static str,
    pub kind: Kind,
    pub default: Default,
    pub doc: &'static str,
    /// Other spellings, read without notice.
    pub aliases: &'static [&'static str],
}

/// The types of value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// true or false.
    Bool,
    /// A whole number (`1e3` and `1000.0` are whole).
    Int(u64, u64),
    /// A finite number.
    Float(Range),
    /// One of the names.
    Choice(&'static [&'static str]),
    /// A name that becomes part of a path.
    Name,
    /// Any text; the words say what it is.
    Text(&'static str),
    /// One line of text, or a whole number that stands for its digits; the words say what it is.
    Line(&'static str),
    /// A list of such lines.
    Lines(&'static str),
    /// Text of any number of lines, or a list of lines.
    Raw(&'static str),
    /// A list of whole numbers within bounds, of at least so many.
    Ints(u64, u64, usize),
    /// A list of numbers, of at least one.
    Floats(Range),
    /// A list of plain values, of at least one.
    Scalars,
    /// A mapping whose keys are names; the words say what it is.
    Mapping(&'static str),
    /// A mapping.
    Map(&'static Table),
    /// The name of a preset of that kind, or a mapping with its keys.
    Preset(&'static str, &'static Table),
    /// A list of entries, each of one of the tables.
    Entries(&'static [&'static Table]),
    /// `null`, or the inner kind.
    Maybe(&'static Kind),
    /// `auto`, or the inner kind.
    Auto(&'static Kind),
}

/// What stands when a key is absent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Default {
    /// Nothing: the key must be given.
    Required,
    /// Nothing; the words say what happens then.
    Absent(&'static str),
    Bool(bool),
    Int(u64),
    Float(f64),
    Text(&'static str),
}

/// An interval of finite numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Range {
    pub low: f64,
    pub low_open: bool,
    pub high: f64,
    pub high_open: bool,
}

impl Range {
    pub const ANY: Range =
        Range { low: f64::NEG_INFINITY, low_open: true, high: f64::INFINITY, high_open: true };
    pub const POSITIVE: Range = Range { low: 0.0, ..Range::ANY };
    pub const NON_NEGATIVE: Range = Range { low_open: false, ..Range::POSITIVE };
    pub const AT_LEAST_ONE: Range = Range { low: 1.0, ..Range::NON_NEGATIVE };
    pub const ABOVE_TWO: Range = Range { low: 2.0, ..Range::ANY };
    pub const OPEN_UNIT: Range = Range { high: 1.0, ..Range::POSITIVE };
    pub const BELOW_ONE: Range = Range { high: 1.0, ..Range::NON_NEGATIVE };
    pub const UNIT: Range = Range { high_open: false, ..Range::BELOW_ONE };

    /// True for finite numbers inside.
    pub fn contains(&self, x: f64) -> bool {
        let above = if self.low_open { x > self.low } else { x >= self.low };
        let below = if self.high_open { x < self.high } else { x <= self.high };
        x.is_finite() && above && below
    }
}

/// ` > 0`, ` ≥ 0 and < 1`, or nothing.
impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let low = self.low.is_finite().then(|| {
            let sign = if self.low_open { ">" } else { "≥" };
            format!(" {sign} {}", Short(self.low))
        });
        let high = self.high.is_finite().then(|| {
            let sign = if self.high_open { "<" } else { "≤" };
            format!(" {sign} {}", Short(self.high))
        });
        f.write_str(&[low, high].into_iter().flatten().collect::<Vec<_>>().join(" and"))
    }
}

/// A number without a hundred zeros.
struct Short(f64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = self.0 == 0.0 || (1e-4..1e9).contains(&self.0.abs());
        if plain { write!(f, "{}", self.0) } else { write!(f, "{:e}", self.0) }
    }
}

/// What a value must be, as it appears after "expected".
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Bool => f.write_str("true or false"),
            Kind::Int(low, high) => write!(f, "a whole number{}", Bounds(*low, *high)),
            Kind::Float(range) => write!(f, "a number{range}"),
            Kind::Choice(names) => write!(f, "one of {}", names.join(", ")),
            Kind::Name => f.write_str("a name of 1 to 64 letters, digits, `.`, `_` or `-`"),
            Kind::Text(what) => f.write_str(what),
            Kind::Line(what) => write!(f, "{what}, on one line"),
            Kind::Lines(what) => write!(f, "a list of {what}, each on one line"),
            Kind::Raw(what) => write!(f, "{what}: text or a list of lines"),
            Kind::Ints(low, high, least) => {
                let some = if *least > 0 { format!(" (at least {least})") } else { String::new() };
                write!(f, "a list of whole numbers{}{some}", Bounds(*low, *high))
            }
            Kind::Floats(range) => write!(f, "a list of numbers{range} (at least 1)"),
            Kind::Scalars => f.write_str("a list of values (at least 1)"),
            Kind::Mapping(what) => f.write_str(what),
            Kind::Map(table) => {
                let some: Vec<&str> = table.keys.iter().take(4).map(|k| k.name).collect();
                let more = if table.keys.len() > 4 { ", …" } else { "" };
                write!(f, "a mapping with keys {}{more}", some.join(", "))
            }
            Kind::Preset(what, _) => write!(f, "the name of a {what} preset or a mapping"),
            Kind::Entries(_) => f.write_str("a list of at least one entry"),
            Kind::Maybe(inner) => write!(f, "{inner}, or null"),
            Kind::Auto(inner) => write!(f, "{inner}, or auto"),
        }
    }
}

/// Bounds of whole numbers; an upper bound that only machines care for is not worth a word.
struct Bounds(u64, u64);

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            (low, u64::MAX) => write!(f, " ≥ {low}"),
            (low, high) => write!(f, " from {low} to {high}"),
        }
    }
}

/// True for names that may become part of a path: `[A-Za-z0-9._-]{1,64}`, and not only dots.
pub(super) fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && text.bytes().any(|b| b != b'.')
}

/// True for text that stays on its line wherever it is printed.
fn is_line(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_control() || "\u{2028}\u{2029}".contains(c))
}

impl Value {
    /// The value as a line of text: text, or the digits of a whole number.
    pub fn line(&self) -> Option<String> {
        match self {
            Value::Text(text) => Some(text.clone()),
            Value::Int(i) => Some(i.to_string()),
            _ => None,
        }
    }

    /// The value as a whole number: integers, and floats without fraction below 2⁵³.
    pub fn whole(&self) -> Option<u64> {
        match *self {
            Value::Int(i) => u64::try_from(i).ok(),
            Value::Float(x) if x.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(&x) => {
                Some(x as u64)
            }
            _ => None,
        }
    }

    /// The value as a number.
    pub fn number(&self) -> Option<f64> {
        match *self {
            Value::Int(i) => Some(i as f64),
            // So that −0 and 0 name the same thing.
            Value::Float(x) => Some(if x == 0.0 { 0.0 } else { x }),
            _ => None,
        }
    }
}

/// Checks a value's type and range, reports what is wrong, and says whether all is well. Entries
/// of [`Kind::Entries`] are only checked to be a list of some: which table an entry follows
/// depends on its content.
pub(super) fn check_value(kind: &Kind, node: &Node, path: &str, report: &Report) -> bool {
    let ok = match (kind, &node.value) {
        (Kind::Maybe(_), Value::Null) => true,
        (Kind::Maybe(inner), _) => return check_value(inner, node, path, report),
        (Kind::Auto(_), Value::Text(text)) if text == AUTO => true,
        (Kind::Auto(inner), value) if matches_kind(inner, value) => true,
        (Kind::Bool | Kind::Int(..) | Kind::Float(_), value) => matches_kind(kind, value),
        (Kind::Choice(names), Value::Text(text)) if !names.contains(&text.as_str()) => {
            let fault = Fault::UnknownName {
                what: "choice".to_owned(),
                found: text.clone(),
                advice: advise(text, names),
            };
            report.add(&node.place, path, fault);
            return false;
        }
        (Kind::Choice(_), value) => matches!(value, Value::Text(_)),
        (Kind::Name, value) => matches!(value, Value::Text(text) if is_name(text)),
        (Kind::Text(_), value) => matches!(value, Value::Text(text) if !text.is_empty()),
        (Kind::Line(_), Value::Text(text)) => is_line(text),
        (Kind::Line(_), value) => value.whole().is_some() && matches!(value, Value::Int(_)),
        (Kind::Raw(_), Value::Text(text)) => text.chars().all(|c| !c.is_control() || "\n\t".contains(c)),
        (Kind::Lines(what) | Kind::Raw(what), Value::List(items)) => {
            return check_items(&Kind::Line(what), items, path, report);
        }
        (Kind::Ints(low, high, least), Value::List(items)) if items.len() >= *least => {
            return check_items(&Kind::Int(*low, *high), items, path, report);
        }
        (Kind::Floats(range), Value::List(items)) if !items.is_empty() => {
            return check_items(&Kind::Float(*range), items, path, report);
        }
        (Kind::Scalars, Value::List(items)) => {
            !items.is_empty() && !items.iter().any(|n| matches!(n.value, Value::List(_) | Value::Map(_)))
        }
        (Kind::Mapping(_), value) => matches!(value, Value::Map(_) | Value::Null),
        (Kind::Preset(..), Value::Text(_)) => true,
        (Kind::Map(table) | Kind::Preset(_, table), Value::Map(entries)) => {
            return check_map(table, entries, path, report);
        }
        (Kind::Map(_), Value::Null) => true,
        (Kind::Entries(_), Value::List(items)) => !items.is_empty(),
        (
            Kind::Auto(_)
            | Kind::Lines(_)
            | Kind::Raw(_)
            | Kind::Ints(..)
            | Kind::Floats(_)
            | Kind::Scalars
            | Kind::Map(_)
            | Kind::Preset(..)
            | Kind::Entries(_),
            _,
        ) => false,
    };
    if !ok {
        let quoted = matches!(kind, Kind::Name | Kind::Text(_) | Kind::Line(_) | Kind::Choice(_))
            && !matches!(node.value, Value::Text(_) | Value::List(_) | Value::Map(_) | Value::Null);
        let remedy = if quoted { " (put it in quotes to make it text)" } else { "" };
        let fault =
            Fault::Unexpected { expected: kind.to_string(), found: format!("{}{remedy}", node.value) };
        report.add(&node.place, path, fault);
    }
    ok
}

/// Whether a plain value is of its kind and in its range.
fn matches_kind(kind: &Kind, value: &Value) -> bool {
    match kind {
        Kind::Bool => matches!(value, Value::Bool(_)),
        Kind::Int(low, high) => value.whole().is_some_and(|i| (*low..=*high).contains(&i)),
        Kind::Float(range) => value.number().is_some_and(|x| range.contains(x)),
        _ => false,
    }
}

fn check_items(kind: &Kind, items: &[Node], path: &str, report: &Report) -> bool {
    let mut ok = true;
    for (i, item) in items.iter().enumerate() {
        ok &= check_value(kind, item, &format!("{path}[{i}]"), report);
    }
    ok
}

/// Checks every key and value of a mapping against its table.
pub(super) fn check_map(table: &Table, entries: &[Entry], path: &str, report: &Report) -> bool {
    let mut ok = true;
    for (i, entry) in entries.iter().enumerate() {
        let path = join(path, &entry.key);
        let Some(key) = table.key(&entry.key) else {
            let advice = table.advise(&entry.key);
            report.add(&entry.place, path, Fault::UnknownKey { advice });
            ok = false;
            continue;
        };
        if let Some(first) =
            entries[..i].iter().find(|e| table.key(&e.key).is_some_and(|k| k.name == key.name))
        {
            report.add(&entry.place, path, Fault::GivenTwice { first: first.place.clone() });
            ok = false;
            continue;
        }
        ok &= check_value(&key.kind, &entry.node, &path, report);
    }
    ok
}

impl Table {
    /// The key of that name or alias.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|k| k.name == name || k.aliases.contains(&name))
    }

    /// What to write instead of an unknown key.
    pub fn advise(&self, found: &str) -> String {
        if let Some((_, advice)) = self.advice.iter().find(|(name, _)| *name == found) {
            return (*advice).to_owned();
        }
        match nearest(found, self.keys.iter().map(|k| k.name)) {
            Some(name) => format!("did you mean {name}?"),
            None => {
                let all: Vec<&str> = self.keys.iter().map(|k| k.name).collect();
                format!("the keys of {} are: {}", self.name, all.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_one_path_component() {
        let long = "x".repeat(65);
        for (text, expected) in [
            ("dev", true),
            ("a.b-c_D9", true),
            ("", false),
            (".", false),
            ("..", false),
            ("a/b", false),
            ("a b", false),
            ("ä", false),
            (&long[..64], true),
            (&long, false),
        ] {
            assert_eq!(is_name(text), expected, "{text}");
        }
    }

    #[test]
    fn ranges_hold_what_they_say() {
        let cases = [
            (Range::ANY, "", -1e300, f64::INFINITY),
            (Range::POSITIVE, " > 0", 1e-300, 0.0),
            (Range::NON_NEGATIVE, " ≥ 0", 0.0, -1e-300),
            (Range::AT_LEAST_ONE, " ≥ 1", 1.0, 0.999),
            (Range::OPEN_UNIT, " > 0 and < 1", 0.5, 1.0),
            (Range::BELOW_ONE, " ≥ 0 and < 1", 0.0, 1.0),
            (Range::UNIT, " ≥ 0 and ≤ 1", 1.0, f64::NAN),
        ];
        for (range, text, inside, outside) in cases {
            assert_eq!(range.to_string(), text);
            assert!(range.contains(inside), "{range}");
            assert!(!range.contains(outside), "{range}");
        }
    }

    #[test]
    fn whole_numbers_may_be_written_as_floats() {
        assert_eq!(Value::Float(1e3).whole(), Some(1000));
        assert_eq!(Value::Int(7).whole(), Some(7));
        assert_eq!(Value::Float(0.5).whole(), None);
        assert_eq!(Value::Float(1e300).whole(), None);
        assert_eq!(Value::Float(f64::NAN).whole(), None);
        assert_eq!(Value::Int(-1).whole(), None);
    }
}
