//! What is set otherwise now than when a study was made.

use std::collections::BTreeSet;

use serde_json::Value;

/// Differences that are shown.
const MOST: usize = 4;

/// The settings that differ, as ` (key: was there, is now; …)`; empty where what they were is not on record.
pub(super) fn differences(then: Option<&Value>, now: &Value) -> String {
    let Some(then) = then else { return String::new() };
    let mut found = Vec::new();
    compare(then, now, "", &mut found);
    let more = found.len().saturating_sub(MOST);
    found.truncate(MOST);
    if more > 0 {
        found.push(format!("{more} more"));
    }
    format!(" ({})", found.join("; "))
}

fn compare(then: &Value, now: &Value, path: &str, found: &mut Vec<String>) {
    match (then, now) {
        _ if then == now => {}
        // Of one kind: what is in it. `{"tpe": …}` and `"random"` are two.
        (Value::Object(was), Value::Object(is)) if !is_kind(then) || was.keys().eq(is.keys()) => {
            let keys: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let of = |fields: &serde_json::Map<String, Value>| fields.get(key).cloned();
                compare(&of(was).unwrap_or_default(), &of(is).unwrap_or_default(), &path, found);
            }
        }
        _ => found.push(format!("{path}: {} there, {} now", show(then), show(now))),
    }
}

/// Whether a value is one of several kinds with its own settings.
fn is_kind(value: &Value) -> bool {
    value.as_object().is_some_and(|fields| fields.len() == 1 && fields.values().all(Value::is_object))
}

fn show(value: &Value) -> String {
    match value {
        Value::Null => "not set".to_owned(),
        Value::String(text) => text.clone(),
        Value::Object(fields) if is_kind(value) => fields.keys().cloned().collect::<Vec<_>>().join(", "),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    #[test]
    fn settings_that_differ_are_told_by_their_paths() {
        let then =
            json!({"seed": 1, "pruner": {"median": {"n": 5}}, "sampler": {"tpe": {"a": 1, "b": 2}}, "x": 3});
        let now = json!({"seed": 2, "pruner": "none", "sampler": {"tpe": {"a": 1, "b": 4}}});
        let told = " (pruner: median there, none now; sampler.tpe.b: 2 there, 4 now; seed: 1 there, 2 now; \
                    x: 3 there, not set now)";
        assert_eq!(differences(Some(&then), &now), told);
        assert_eq!(differences(None, &now), "");
        let many: BTreeMap<String, u8> = (b'a'..b'h').map(|c| (char::from(c).to_string(), c)).collect();
        assert!(differences(Some(&json!(many)), &json!({})).ends_with("; 3 more)"));
    }
}
