//! A section as several layers of mappings (preset, overrides, …): the nearest layer that has a
//! key decides, and each layer is checked against the same table.

use super::error::{Fault, Place, Report};
use super::table::{AUTO, Default, Key, Table, check_map, check_value};
use super::tree::{Entry, Node, Value, join};

/// One mapping that contributes keys.
#[derive(Clone, Debug)]
struct Layer<'a> {
    entries: &'a [Entry],
    path: String,
    /// Written for this entry, not by a preset that serves many.
    own: bool,
}

/// A key as the nearest layer gives it.
#[derive(Clone, Debug)]
pub(super) struct Given<'a> {
    pub node: &'a Node,
    /// Where the key stands.
    pub place: &'a Place,
    pub path: String,
    /// Index of the layer, nearer layers having larger ones.
    pub layer: usize,
    own: bool,
}

/// Layers under one table.
#[derive(Debug)]
pub(super) struct Section<'a> {
    table: &'static Table,
    layers: Vec<Layer<'a>>,
    /// Where a missing key is reported.
    place: Place,
    path: String,
    report: &'a Report,
}

impl<'a> Section<'a> {
    /// An empty section; a key that is missing everywhere is reported at `place`, `path`.
    pub fn new(table: &'static Table, place: &Place, path: &str, report: &'a Report) -> Self {
        Section { table, layers: Vec::new(), place: place.clone(), path: path.to_owned(), report }
    }

    /// Adds the nearest layer so far and checks all of it. `null` counts as an empty mapping.
    pub fn check_and_add(&mut self, node: &'a Node, path: &str, own: bool) {
        if let Value::Map(entries) = &node.value {
            check_map(self.table, entries, path, self.report);
            self.add(entries, path, own);
        }
    }

    /// Adds the nearest layer so far, which was checked before (with a table that may be larger).
    pub fn add(&mut self, entries: &'a [Entry], path: &str, own: bool) {
        self.layers.push(Layer { entries, path: path.to_owned(), own });
    }

    /// The key as the nearest layer gives it.
    pub fn given(&self, name: &str) -> Option<Given<'a>> {
        self.layers.iter().enumerate().rev().find_map(|(i, layer)| self.in_layer(name, i, layer))
    }

    /// The key as each layer that has it gives it, nearest first.
    pub fn all(&self, name: &str) -> Vec<Given<'a>> {
        let layers = self.layers.iter().enumerate().rev();
        layers.filter_map(|(i, layer)| self.in_layer(name, i, layer)).collect()
    }

    fn in_layer(&self, name: &str, index: usize, layer: &Layer<'a>) -> Option<Given<'a>> {
        let key = self.table.key(name)?;
        let is_key = |e: &&Entry| e.key == key.name || key.aliases.contains(&e.key.as_str());
        let entry = layer.entries.iter().find(is_key)?;
        Some(Given {
            node: &entry.node,
            place: &entry.place,
            path: join(&layer.path, &entry.key),
            layer: index,
            own: layer.own,
        })
    }

    /// The value of a key, through `read`; its default when absent. `None` when the value is wrong
    /// (reported when its layer was checked) or the key is missing (reported here).
    fn value<T>(
        &self,
        name: &str,
        read: impl Fn(&Value) -> Option<T>,
        default: impl Fn(&Default) -> Option<T>,
    ) -> Option<T> {
        let key = self.key(name)?;
        match self.given(name) {
            // A silent report: errors were told when the layer was added.
            Some(given) if check_value(&key.kind, given.node, "", &Report::default()) => {
                read(&given.node.value)
            }
            Some(_) => None,
            None => {
                if key.default == Default::Required {
                    let fault = Fault::Missing { expected: key.kind.to_string() };
                    self.report.add(&self.place, join(&self.path, name), fault);
                }
                default(&key.default)
            }
        }
    }

    fn key(&self, name: &str) -> Option<&'static Key> {
        let key = self.table.key(name);
        debug_assert!(key.is_some(), "table {} has no key {name}", self.table.name);
        key
    }

    /// The mapping that a key holds, as a section of its own (checked before).
    pub fn inner(&self, name: &str, table: &'static Table) -> Option<Section<'a>> {
        let given = self.given(name)?;
        let mut inner = Section::new(table, &given.node.place, &given.path, self.report);
        inner.add(given.node.entries(), &given.path, given.own);
        Some(inner)
    }

    /// A whole number.
    pub fn int(&self, name: &str) -> Option<u64> {
        self.value(name, Value::whole, |d| match d {
            Default::Int(i) => Some(*i),
            _ => None,
        })
    }

    /// A whole number as a size.
    pub fn size(&self, name: &str) -> Option<usize> {
        self.int(name).and_then(|i| usize::try_from(i).ok())
    }

    /// A number.
    pub fn float(&self, name: &str) -> Option<f64> {
        self.value(name, Value::number, |d| match d {
            Default::Float(x) => Some(*x),
            _ => None,
        })
    }

    /// true or false.
    pub fn bool(&self, name: &str) -> Option<bool> {
        let read = |v: &Value| match v {
            Value::Bool(b) => Some(*b),
            _ => None,
        };
        self.value(name, read, |d| match d {
            Default::Bool(b) => Some(*b),
            _ => None,
        })
    }

    /// A choice, name or text.
    pub fn text(&self, name: &str) -> Option<String> {
        let read = |v: &Value| match v {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        };
        self.value(name, read, |d| match d {
            Default::Text(text) => Some((*text).to_owned()),
            _ => None,
        })
    }

    /// A line of text.
    pub fn line(&self, name: &str) -> Option<String> {
        self.value(name, Value::line, |d| match d {
            Default::Text(text) => Some((*text).to_owned()),
            _ => None,
        })
    }

    /// Lines of text; none when the key is absent.
    pub fn lines(&self, name: &str) -> Vec<String> {
        let read = |v: &Value| match v {
            Value::List(items) => items.iter().map(|n| n.value.line()).collect(),
            Value::Text(text) => Some(text.lines().map(str::to_owned).collect()),
            _ => None,
        };
        self.value(name, read, |_| None).unwrap_or_default()
    }

    /// A number, or `auto`: `Some(None)`.
    pub fn auto_float(&self, name: &str) -> Option<Option<f64>> {
        self.auto(name, Value::number, |d| match d {
            Default::Float(x) => Some(*x),
            _ => None,
        })
    }

    /// A whole number as a size, or `auto`: `Some(None)`.
    pub fn auto_size(&self, name: &str) -> Option<Option<usize>> {
        let size = |i: u64| usize::try_from(i).ok();
        self.auto(
            name,
            |v| v.whole().and_then(size),
            |d| match d {
                Default::Int(i) => size(*i),
                _ => None,
            },
        )
    }

    /// true, false, or `auto`: `Some(None)`.
    pub fn auto_bool(&self, name: &str) -> Option<Option<bool>> {
        let read = |v: &Value| match v {
            Value::Bool(b) => Some(*b),
            _ => None,
        };
        self.auto(name, read, |_| None)
    }

    fn auto<T>(
        &self,
        name: &str,
        read: impl Fn(&Value) -> Option<T>,
        default: impl Fn(&Default) -> Option<T>,
    ) -> Option<Option<T>> {
        self.value(
            name,
            |value| match value {
                Value::Text(text) if text == AUTO => Some(None),
                value => read(value).map(Some),
            },
            |d| match d {
                Default::Text(text) if *text == AUTO => Some(None),
                d => default(d).map(Some),
            },
        )
    }

    /// A list of whole numbers.
    pub fn sizes(&self, name: &str) -> Option<Vec<usize>> {
        let read = |v: &Value| match v {
            Value::List(items) => {
                items.iter().map(|n| n.value.whole().and_then(|i| usize::try_from(i).ok())).collect()
            }
            _ => None,
        };
        self.value(name, read, |_| None)
    }

    /// A list of numbers.
    pub fn floats(&self, name: &str) -> Option<Vec<f64>> {
        let read = |v: &Value| match v {
            Value::List(items) => items.iter().map(|n| n.value.number()).collect(),
            _ => None,
        };
        self.value(name, read, |_| None)
    }

    /// What a key's value must be, in words.
    pub fn expected(&self, name: &str) -> String {
        self.key(name).map(|key| key.kind.to_string()).unwrap_or_default()
    }

    /// True when the key is given and not null.
    pub fn has(&self, name: &str) -> bool {
        self.given(name).is_some_and(|g| g.node.value != Value::Null)
    }

    /// True when the nearest layer that gives the key was written for this entry.
    pub fn own(&self, name: &str) -> bool {
        self.given(name).is_some_and(|g| g.own)
    }

    /// Reports each of the keys that is not given.
    pub fn require(&self, names: &[&str]) {
        for name in names {
            if let (None, Some(key)) = (self.given(name), self.key(name)) {
                let fault = Fault::Missing { expected: key.kind.to_string() };
                self.report.add(&self.place, join(&self.path, name), fault);
            }
        }
    }

    /// Reports values that are each allowed but not together, at the key `name` if it is given and
    /// at the section otherwise.
    pub fn conflict(&self, name: &str, text: impl Into<String>) {
        let fault = Fault::Conflict(text.into());
        match self.given(name) {
            Some(given) => self.report.add(&given.node.place, given.path, fault),
            None => self.report.add(&self.place, join(&self.path, name), fault),
        }
    }

    /// Reports keys that were written for this entry but do nothing beside the present value of
    /// another. A sweep over such a key would compare equal runs.
    pub fn refuse_idle(&self, names: &[&str], because: &str) {
        for name in names {
            if self.own(name) {
                self.conflict(name, format!("has no effect {because}; remove it"));
            }
        }
    }
}
