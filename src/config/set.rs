//! `--set a.b=c`: values from the command line, put into the tree before anything is checked.
//!
//! Entries of a list are named by index (`targets.0.seed`, `targets[0].seed`) or, for samplers, by
//! name (`samplers.hmc.overrides.draws`, which means every entry of that name).

use std::sync::Arc;

use super::error::{Fault, Place, Report, advise};
use super::tree::{self, Entry, Node, Value, join};

/// Applies one `path=value` to the tree.
pub(super) fn apply(root: &mut Node, text: &str, report: &Report) {
    let place = Place::Option(format!("--set {text}").into());
    let Some((path, value)) = text.split_once('=') else {
        let fault = Fault::NoSuchPath("expected key=value, such as posterior.gamma=2".to_owned());
        return report.add(&place, "", fault);
    };
    let Some(segments) = segments(path) else {
        let fault = Fault::NoSuchPath("the path before `=` has an empty part".to_owned());
        return report.add(&place, path, fault);
    };
    let label: Arc<str> = place.to_string().into();
    let mut value = match tree::parse(value, &label) {
        Ok(value) => value,
        Err(error) => return report.add(&place, path, error.fault),
    };
    tree::expand(&mut value, path, report);
    value.relocate(&place);
    put(root, &segments, "", value, report);
}

/// `a.b[0].c` and `a.b.0.c` as parts.
fn segments(path: &str) -> Option<Vec<String>> {
    let plain = path.trim().replace('[', ".").replace(']', "");
    let parts: Vec<String> = plain.split('.').map(str::to_owned).collect();
    parts.iter().all(|p| !p.is_empty()).then_some(parts)
}

/// Puts `value` at `segments` below `node`, whose path is `path`. Mappings on the way are made
/// where there are none; lists are not.
fn put(node: &mut Node, segments: &[String], path: &str, value: Node, report: &Report) {
    let Some((first, rest)) = segments.split_first() else {
        *node = value;
        return;
    };
    match &mut node.value {
        Value::List(items) => {
            let chosen = choose(items, first);
            if chosen.is_empty() {
                return report.add(&value.place, path, Fault::NoSuchPath(no_entry(items, first, path)));
            }
            for i in chosen {
                put(&mut items[i], rest, &format!("{path}[{i}]"), value.clone(), report);
            }
        }
        Value::Map(entries) => {
            let key_path = join(path, first);
            match entries.iter_mut().find(|e| e.key == *first) {
                Some(entry) => {
                    if rest.is_empty() {
                        entry.place = value.place.clone();
                    }
                    put(&mut entry.node, rest, &key_path, value, report);
                }
                None => {
                    let place = value.place.clone();
                    let mut inner = Node { value: Value::Null, place: place.clone() };
                    put(&mut inner, rest, &key_path, value, report);
                    entries.push(Entry { key: first.clone(), place, node: inner });
                }
            }
        }
        Value::Null => {
            *node = Node { value: Value::Map(Vec::new()), place: value.place.clone() };
            put(node, segments, path, value, report);
        }
        other => {
            let fault = Fault::NoSuchPath(format!(
                "nothing can be set below it: it is {other}, not a mapping (a preset's values are set under `overrides`)"
            ));
            report.add(&value.place, path, fault);
        }
    }
}

/// The items meant by an index or by the value of their `name`.
fn choose(items: &[Node], segment: &str) -> Vec<usize> {
    if let Ok(index) = segment.parse::<usize>() {
        return if index < items.len() { vec![index] } else { Vec::new() };
    }
    let named = |n: &Node| n.get("name").and_then(Node::text) == Some(segment);
    (0..items.len()).filter(|&i| named(&items[i])).collect()
}

fn no_entry(items: &[Node], segment: &str, path: &str) -> String {
    let count = match items.len() {
        0 => "the list is empty".to_owned(),
        n => format!("{path} has the entries 0 to {}", n - 1),
    };
    let names: Vec<&str> = items.iter().filter_map(|n| n.get("name").and_then(Node::text)).collect();
    if names.is_empty() {
        format!("no entry `{segment}`: {count}")
    } else {
        format!("no entry `{segment}`: {count}, by name {}", advise(segment, &names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> Node {
        let text = "posterior: {gamma: 1}\ntargets: [{model: small}]\nsamplers: [{name: hmc}, {name: sgld}, {name: hmc}]\nempty:\n";
        tree::parse(text, &"f.yaml".into()).unwrap()
    }

    #[test]
    fn values_land_where_the_path_says() {
        let cases: [(&str, &[&str], Value); 7] = [
            ("posterior.gamma=2.5", &["posterior", "gamma"], Value::Float(2.5)),
            ("posterior.beta0=1e-3", &["posterior", "beta0"], Value::Float(1e-3)),
            ("experiment=x", &["experiment"], Value::Text("x".into())),
            ("targets.0.seed=7", &["targets", "0", "seed"], Value::Int(7)),
            (
                "targets[0].overrides.data.n_data=9",
                &["targets", "0", "overrides", "data", "n_data"],
                Value::Int(9),
            ),
            ("samplers.sgld.overrides.steps=10", &["samplers", "1", "overrides", "steps"], Value::Int(10)),
            ("empty.a=null", &["empty", "a"], Value::Null),
        ];
        for (text, path, expected) in cases {
            let (mut root, report) = (root(), Report::default());
            apply(&mut root, text, &report);
            assert!(report.is_empty(), "{text}");
            let mut node = &root;
            for part in path {
                node = match &node.value {
                    Value::List(items) => &items[part.parse::<usize>().unwrap()],
                    _ => node.get(part).unwrap(),
                };
            }
            assert_eq!(node.value, expected, "{text}");
            assert_eq!(node.place.to_string(), format!("--set {text}"));
        }
    }

    #[test]
    fn a_name_means_every_entry_of_that_name() {
        let (mut root, report) = (root(), Report::default());
        apply(&mut root, "samplers.hmc.seed=3", &report);
        let Value::List(items) = &root.get("samplers").unwrap().value else { panic!("not a list") };
        let seeds: Vec<bool> = items.iter().map(|n| n.get("seed").is_some()).collect();
        assert_eq!(seeds, [true, false, true]);
    }

    #[test]
    fn paths_to_nowhere_are_errors() {
        for text in
            ["gamma", "a..b=1", "targets.3.seed=1", "samplers.hmm.seed=1", "targets.0.model.depth=3", "a=[1"]
        {
            let (mut root, report) = (root(), Report::default());
            apply(&mut root, text, &report);
            let errors = report.into_errors();
            assert_eq!(errors.0.len(), 1, "{text}");
            assert!(errors.to_string().starts_with(&format!("--set {text}: ")), "{errors}");
        }
    }
}
