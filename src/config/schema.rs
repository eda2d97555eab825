//! The JSON Schema (draft 2020-12) of an experiment file, made from the key tables, so that
//! editors complete keys and mark mistakes. What only resolution can know (presets that exist,
//! relations between keys) is not in it.

use serde_json::{Map, Value, json};

use super::keys::{EXPERIMENT, SEARCH, TUNE_FILE, all_tables, tune_tables};
use super::preset::embedded_names;
use super::samplers::DEFINITIONS;
use super::table::{AUTO, Default, Key, Kind, Range, Table};

/// The schema of an experiment file, as checked in at `config/schema.json`.
pub fn json_schema() -> Value {
    let mut schema = table_schema(&EXPERIMENT);
    let defs: Map<String, Value> = all_tables()
        .filter(|t| t.name != EXPERIMENT.name)
        .map(|t| (t.name.to_owned(), table_schema(t)))
        .collect();
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "lambda-hat-mpi experiment".into();
    schema["$defs"] = defs.into();
    schema
}

/// The schema of a tune file, as checked in at `config/tune/schema.json`.
pub fn tune_json_schema() -> Value {
    let mut schema = table_schema(&TUNE_FILE);
    let tables = all_tables().filter(|t| t.name != EXPERIMENT.name).chain(tune_tables());
    let mut defs: Map<String, Value> =
        tables.filter(|t| t.name != TUNE_FILE.name).map(|t| (t.name.to_owned(), table_schema(t))).collect();
    let forms: Vec<Value> = SEARCH.iter().map(|t| reference(t)).collect();
    defs.insert("search_parameter".to_owned(), json!({"anyOf": forms}));
    let parameter = json!({"$ref": "#/$defs/search_parameter"});
    let methods: Map<String, Value> = DEFINITIONS
        .iter()
        .map(|d| {
            let keys = d.settings.keys.iter().flat_map(|k| k.aliases.iter().chain([&k.name]));
            let properties: Map<String, Value> =
                keys.map(|name| ((*name).to_owned(), parameter.clone())).collect();
            (d.name.to_owned(), json!({"type": "object", "properties": properties}))
        })
        .collect();
    let space = json!({"type": "object", "properties": methods, "additionalProperties": false});
    schema["properties"]["search_space"] = space;
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "lambda-hat-mpi tune file".into();
    schema["$defs"] = defs.into();
    schema
}

fn table_schema(table: &Table) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for key in table.keys {
        properties.insert(key.name.to_owned(), key_schema(key));
        for alias in key.aliases {
            let mut schema = key_schema(key);
            schema["description"] = format!("Same as {}.", key.name).into();
            properties.insert((*alias).to_owned(), schema);
        }
        if key.default == Default::Required {
            required.push(key.name);
        }
    }
    let sections: Vec<&str> =
        table.keys.iter().filter(|k| matches!(k.kind, Kind::Map(_))).map(|k| k.name).collect();
    let mut schema = json!({
        "type": "object",
        "description": table.doc,
        "properties": properties,
        "additionalProperties": false,
    });
    // A layer need not hold every key; only entries of a list and the file itself must.
    if table.keys.iter().any(|k| matches!(k.name, "problem" | "name" | "targets")) && !required.is_empty() {
        schema["required"] = required.into();
    }
    if !sections.is_empty() {
        // `data.noise_scale: 0.05` for `data: {noise_scale: 0.05}`.
        let mut dotted = Map::new();
        dotted.insert(format!("^({})\\.", sections.join("|")), json!(true));
        schema["patternProperties"] = dotted.into();
    }
    schema
}

fn key_schema(key: &Key) -> Value {
    let mut schema = kind_schema(&key.kind);
    schema["description"] = key.doc.into();
    match key.default {
        Default::Bool(b) => schema["default"] = b.into(),
        Default::Int(i) => schema["default"] = i.into(),
        Default::Float(x) => schema["default"] = x.into(),
        Default::Text(text) => schema["default"] = text.into(),
        Default::Required | Default::Absent(_) => {}
    }
    schema
}

fn reference(table: &Table) -> Value {
    json!({ "$ref": format!("#/$defs/{}", table.name) })
}

fn kind_schema(kind: &Kind) -> Value {
    match kind {
        Kind::Bool => json!({"type": "boolean"}),
        Kind::Int(low, high) => int_schema(*low, *high),
        Kind::Float(range) => float_schema(range),
        Kind::Choice(names) => json!({"enum": names}),
        Kind::Name => json!({"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"}),
        Kind::Text(_) => json!({"type": "string", "minLength": 1}),
        Kind::Line(_) => json!({"type": ["string", "integer"], "minLength": 1}),
        Kind::Lines(_) => json!({"type": "array", "items": {"type": ["string", "integer"]}}),
        Kind::Raw(_) => json!({"type": ["string", "array"]}),
        Kind::Ints(low, high, least) => {
            json!({"type": "array", "items": int_schema(*low, *high), "minItems": least})
        }
        Kind::Floats(range) => json!({"type": "array", "items": float_schema(range), "minItems": 1}),
        Kind::Scalars => json!({"type": "array", "minItems": 1}),
        Kind::Mapping(_) => json!({"type": ["object", "null"]}),
        Kind::Map(table) => json!({"anyOf": [reference(table), {"type": "null"}]}),
        Kind::Preset(kind, table) => {
            let names: Vec<&str> = embedded_names(kind).collect();
            json!({"anyOf": [{"type": "string", "examples": names}, reference(table)]})
        }
        Kind::Entries(tables) => {
            let entries: Vec<Value> = tables.iter().map(|t| reference(t)).collect();
            json!({"type": "array", "minItems": 1, "items": {"anyOf": entries}})
        }
        Kind::Maybe(inner) => json!({"anyOf": [kind_schema(inner), {"type": "null"}]}),
        Kind::Auto(inner) => json!({"anyOf": [kind_schema(inner), {"const": AUTO}]}),
    }
}

fn int_schema(low: u64, high: u64) -> Value {
    match high {
        u64::MAX => json!({"type": "integer", "minimum": low}),
        _ => json!({"type": "integer", "minimum": low, "maximum": high}),
    }
}

fn float_schema(range: &Range) -> Value {
    let mut schema = json!({"type": "number"});
    if range.low.is_finite() {
        schema[if range.low_open { "exclusiveMinimum" } else { "minimum" }] = range.low.into();
    }
    if range.high.is_finite() {
        schema[if range.high_open { "exclusiveMaximum" } else { "maximum" }] = range.high.into();
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_is_defined() {
        fn walk(value: &Value, schema: &Value) {
            match value {
                Value::Object(map) => {
                    if let Some(Value::String(target)) = map.get("$ref") {
                        let pointer = target.strip_prefix('#').unwrap();
                        assert!(schema.pointer(pointer).is_some(), "{target}");
                    }
                    map.values().for_each(|v| walk(v, schema));
                }
                Value::Array(items) => items.iter().for_each(|v| walk(v, schema)),
                _ => {}
            }
        }
        for schema in [json_schema(), tune_json_schema()] {
            walk(&schema, &schema);
        }
    }
}
