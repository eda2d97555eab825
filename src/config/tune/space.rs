//! Search spaces of methods, checked against the keys that the samplers read.

use super::super::error::{Fault, Report};
use super::super::keys::SEARCH;
use super::super::samplers::DEFINITIONS;
use super::super::section::Section;
use super::super::table::{Key, Kind, check_map, check_value};
use super::super::targets::table_of;
use super::super::tree::{Entry, Node, Value, join};
use super::{Condition, Dimension, Domain, Scalar, order};

/// Keys that older files call otherwise.
const ALIASES: [(&str, &str); 4] = [
    ("eta0", "step_size"),
    ("batch", "batch_size"),
    ("precond_type", "precond"),
    ("target_accept", "target_acceptance"),
];

/// Settings that say what is estimated, not how.
const OF_THE_PROBLEM: [&str; 4] = ["gamma", "beta0", "beta_mode", "prior_radius"];

/// A value as the tree of a file has it.
pub(super) fn value(scalar: &Scalar) -> Value {
    match scalar {
        Scalar::Null => Value::Null,
        Scalar::Bool(b) => Value::Bool(*b),
        Scalar::Int(i) => Value::Int((*i).into()),
        Scalar::Float(x) => Value::Float(*x),
        Scalar::Text(text) => Value::Text(text.clone()),
    }
}

fn scalar(value: &Value) -> Option<Scalar> {
    match value {
        Value::Null => Some(Scalar::Null),
        Value::Bool(b) => Some(Scalar::Bool(*b)),
        Value::Int(i) => i64::try_from(*i).ok().map(Scalar::Int),
        Value::Float(x) => Some(Scalar::Float(*x)),
        Value::Text(text) => Some(Scalar::Text(text.clone())),
        Value::List(_) | Value::Map(_) => None,
    }
}

/// The parameters of a method. `None` where one has errors (reported).
pub(super) fn dimensions(
    method: &str,
    node: &Node,
    path: &str,
    notices: &mut Vec<String>,
    report: &Report,
) -> Option<Vec<Dimension>> {
    let definition = DEFINITIONS.into_iter().find(|d| d.name == method)?;
    if !matches!(node.value, Value::Map(_)) || node.entries().is_empty() {
        let expected = format!("a mapping of parameters of {method}");
        let empty = matches!(node.value, Value::Map(_));
        let found = if empty { "an empty one".to_owned() } else { node.value.to_string() };
        report.add(&node.place, path, Fault::Unexpected { expected, found });
        return None;
    }
    let mut complete = true;
    let mut found: Vec<(Dimension, &Entry)> = Vec::new();
    for entry in node.entries() {
        let path = join(path, &entry.key);
        if OF_THE_PROBLEM.contains(&entry.key.as_str()) {
            let why = "changes the target being matched; set it under `posterior`, not in a search space";
            report.add(&entry.place, path, Fault::Conflict(why.to_owned()));
            complete = false;
            continue;
        }
        let alias = ALIASES.iter().find(|(alias, _)| *alias == entry.key).map(|(_, name)| *name);
        let key = definition.settings.key(alias.unwrap_or(&entry.key));
        let Some(key) = key else {
            report.add(
                &entry.place,
                path,
                Fault::UnknownKey { advice: definition.settings.advise(&entry.key) },
            );
            complete = false;
            continue;
        };
        if key.name != entry.key {
            notices.push(format!("search_space.{method}.{} is read as {}", entry.key, key.name));
        }
        if let Some((_, first)) = found.iter().find(|(dimension, _)| dimension.name == key.name) {
            report.add(&entry.place, path, Fault::GivenTwice { first: first.place.clone() });
            complete = false;
            continue;
        }
        match dimension(key, &entry.node, &path, report) {
            Some(dimension) => found.push((dimension, entry)),
            None => complete = false,
        }
    }
    if !complete {
        return None;
    }
    let (dimensions, entries): (Vec<Dimension>, Vec<&Entry>) = found.into_iter().unzip();
    match order(&dimensions) {
        Ok(_) => Some(dimensions),
        Err(fault) => {
            let entry = entries[fault.dimension];
            let when = entry.node.get("when");
            let place = when
                .and_then(|w| w.entries().get(fault.condition))
                .map_or(&entry.place, |condition| &condition.place);
            let path = join(&join(path, &entry.key), "when");
            report.add(place, path, Fault::Conflict(fault.why));
            None
        }
    }
}

/// One parameter, which sets `key`.
fn dimension(key: &Key, node: &Node, path: &str, report: &Report) -> Option<Dimension> {
    let tag = if node.get("dist").is_none() && node.get("type").is_some() { "type" } else { "dist" };
    let table = table_of(&SEARCH, tag, "distribution", node, path, report)?;
    let ok = check_map(table, node.entries(), path, report);
    let mut section = Section::new(table, &node.place, path, report);
    section.add(node.entries(), path, true);
    let domain = match table.name {
        "search_categorical" => {
            section.require(&["choices"]);
            let Value::List(items) = &section.given("choices")?.node.value else { return None };
            Domain::Categorical { choices: items.iter().map(|n| scalar(&n.value)).collect::<Option<_>>()? }
        }
        "search_int" => {
            let whole = |name: &str| section.int(name).and_then(|i| i64::try_from(i).ok());
            let (low, high, log, step) = (whole("low"), whole("high"), section.bool("log"), whole("step"));
            Domain::Int { low: low?, high: high?, log: log?, step: step? }
        }
        _ => {
            let (low, high, log) = (section.float("low"), section.float("high"), section.bool("log"));
            let step = if section.has("step") { Some(section.float("step")?) } else { None };
            Domain::Float { low: low?, high: high?, log: log?, step }
        }
    };
    if !ok {
        return None;
    }
    if let Some((name, why)) = domain.fault() {
        section.conflict(name, why);
        return None;
    }
    let when = match node.get("when") {
        Some(when) => conditions(when, &join(path, "when"), report)?,
        None => Vec::new(),
    };
    within(key, &domain, node, path, report).then(|| Dimension { name: key.name.to_owned(), domain, when })
}

/// Whether the sampler takes the ends of the domain, and what lies between.
fn within(key: &Key, domain: &Domain, node: &Node, path: &str, report: &Report) -> bool {
    let inner = match key.kind {
        Kind::Auto(inner) | Kind::Maybe(inner) => *inner,
        kind => kind,
    };
    match domain {
        Domain::Categorical { .. } => match node.get("choices").map(|n| &n.value) {
            Some(Value::List(items)) => {
                let mut ok = true;
                for (i, item) in items.iter().enumerate() {
                    ok &= check_value(&key.kind, item, &format!("{path}.choices[{i}]"), report);
                }
                ok
            }
            _ => false,
        },
        Domain::Float { .. } if matches!(inner, Kind::Int(..)) => {
            let why = format!("{} is a whole number; write `dist: int`", key.name);
            let place = node.get("dist").or(node.get("type")).map_or(&node.place, |n| &n.place);
            report.add(place, path, Fault::Conflict(why));
            false
        }
        _ => {
            let mut ok = true;
            for end in ["low", "high"] {
                if let Some(node) = node.get(end) {
                    ok &= check_value(&key.kind, node, &join(path, end), report);
                }
            }
            ok
        }
    }
}

/// `when: {other: value, another: [values]}`.
fn conditions(node: &Node, path: &str, report: &Report) -> Option<Vec<Condition>> {
    let condition = |entry: &Entry| {
        let values = match &entry.node.value {
            Value::List(items) => items.iter().map(|n| scalar(&n.value)).collect::<Option<Vec<_>>>(),
            value => scalar(value).map(|value| vec![value]),
        };
        if values.is_none() {
            let expected = "a value or a list of values".to_owned();
            let fault = Fault::Unexpected { expected, found: entry.node.value.to_string() };
            report.add(&entry.node.place, join(path, &entry.key), fault);
        }
        Some(Condition { parent: canonical(&entry.key), values: values? })
    };
    node.entries().iter().map(condition).collect()
}

/// The name that a parameter is known by.
fn canonical(name: &str) -> String {
    ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, real)| real).to_owned()
}
