//! Settings as a preset of the user's.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::error::{ConfigErrors, Place, Report};
use super::super::preset::Presets;
use super::super::tree::{Node, Value};
use super::{Scalar, space};

/// The text of a sampler preset, a line a key: the preset `method` with these settings over it. In a directory
/// `DIR/sampler/<method>.yaml`, `--presets DIR` finds it.
///
/// # Errors
/// A preset that cannot be read.
pub fn preset_text(
    method: &str,
    settings: &BTreeMap<String, Scalar>,
    presets: Option<&Path>,
) -> Result<String, ConfigErrors> {
    let report = Report::default();
    let presets = Presets::open(presets, &report);
    let place = Place::Option(format!("preset of {method}").into());
    let base = presets.find("sampler", method, &place, "name", &report);
    if !report.is_empty() {
        return Err(report.into_errors());
    }
    let mut lines: Vec<(String, String)> = Vec::new();
    for entry in base.iter().flat_map(|node| node.entries()) {
        lines.push((entry.key.clone(), yaml(&entry.node.value)));
    }
    for (key, value) in settings {
        let text = yaml(&space::value(value));
        match lines.iter_mut().find(|(known, _)| known == key) {
            Some(line) => line.1 = text,
            None => lines.push((key.clone(), text)),
        }
    }
    Ok(lines.into_iter().map(|(key, value)| format!("{key}: {value}\n")).collect())
}

/// A value on one line.
fn yaml(value: &Value) -> String {
    let nodes = |items: &[Node]| items.iter().map(|n| yaml(&n.value)).collect::<Vec<_>>().join(", ");
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Int(i) => i.to_string(),
        Value::Float(x) => format!("{x:?}"),
        // JSON's quotes are YAML's.
        Value::Text(text) => serde_json::Value::from(text.as_str()).to_string(),
        Value::List(items) => format!("[{}]", nodes(items)),
        Value::Map(entries) => {
            let entry = |e: &super::super::tree::Entry| format!("{}: {}", e.key, yaml(&e.node.value));
            format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
    }
}
