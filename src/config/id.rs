//! Ids: BLAKE3 of the canonical JSON of what is scientific in a target or run, and of nothing
//! else: no names, paths, workers or output settings.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value, json};

use super::{PosteriorSpec, Problem, SamplerSpec, TargetSpec};

/// Version of the canonical form itself.
const FORMAT: u32 = 1;

/// Keys that were added after ids were first given: left out of the canonical form while they hold
/// the value that older ids imply, so that those ids stay. (`section.key` path below `spec`,
/// `sampler` or `posterior`; value as canonical JSON.)
const INTRODUCED_LATER: &[(&str, &str)] = &[
    ("sampler.algo.sgld.gamma_term", "false"),
    ("sampler.algo.sgld.freeze_precond", "false"),
    ("posterior.l0", "\"w_star\""),
    ("posterior.parameters", "null"),
];

impl Problem {
    /// Raised when the numbers of this kind of target change; part of the id.
    pub fn revision(&self) -> u32 {
        match self {
            Problem::Mlp(_) => 1,
            Problem::Dln(_) => 1,
            Problem::Quadratic(_) => 1,
            Problem::NormalCrossing(_) => 1,
            Problem::External(_) => 1,
        }
    }

    /// The name used in files, ids and messages.
    pub fn name(&self) -> &'static str {
        match self {
            Problem::Mlp(_) => "mlp",
            Problem::Dln(_) => "dln",
            Problem::Quadratic(_) => "quadratic",
            Problem::NormalCrossing(_) => "normal_crossing",
            Problem::External(_) => "external",
        }
    }
}

/// 32 bytes that name a target, a run or a random stream. Text form: 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub [u8; 32]);

impl Id {
    /// The first `digits` (at most 64) hexadecimal digits.
    pub fn short(&self, digits: usize) -> String {
        self.to_string().chars().take(digits).collect()
    }

    /// The id whose text form is `text`: 64 digits, lower or upper case.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
        let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        if digits.len() != 64 {
            return None;
        }
        bytes.try_into().ok().map(Id)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id({self})")
    }
}

/// Text in readable formats (JSON), 32 plain bytes in others.
impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return <[u8; 32]>::deserialize(deserializer).map(Id);
        }
        let text = String::deserialize(deserializer)?;
        Id::from_hex(&text).ok_or_else(|| de::Error::custom("expected an id of 64 hexadecimal digits"))
    }
}

/// JSON in one spelling: keys sorted, no space, strings as `serde_json` escapes them, integers as
/// they are, floats as their shortest digits that read back equal, always with an exponent
/// (`2.5e-1`, `1e0`), −0 as 0. Two values have the same text exactly when they are the same.
pub fn canonical_json(value: &Value) -> String {
    let mut text = String::new();
    write_canonical(value, &mut text);
    text
}

fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Number(number) => match number.as_f64() {
            // `+ 0.0` turns −0 into 0.
            Some(x) if number.is_f64() => text.push_str(&format!("{:e}", x + 0.0)),
            _ => text.push_str(&number.to_string()),
        },
        Value::Array(items) => {
            text.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    text.push(',');
                }
                write_canonical(item, text);
            }
            text.push(']');
        }
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            text.push('{');
            for (i, key) in keys.into_iter().enumerate() {
                if i > 0 {
                    text.push(',');
                }
                write_canonical(&Value::String(key.clone()), text);
                text.push(':');
                write_canonical(&map[key], text);
            }
            text.push('}');
        }
        other => text.push_str(&other.to_string()),
    }
}

/// The id of a target: kind, revision, every key of its specification, and the content of its
/// files. `content` holds the BLAKE3 hash of each external file by role (`data`, `params`); their
/// paths are not part of the id.
pub fn target_id(spec: &TargetSpec, content: &[(&str, [u8; 32])]) -> Id {
    let mut value = to_json(spec);
    if let Some(Value::Object(external)) = value.pointer_mut("/problem/external") {
        external.remove("data");
        external.remove("params");
    }
    let content: Map<String, Value> =
        content.iter().map(|(role, hash)| ((*role).to_owned(), Id(*hash).to_string().into())).collect();
    hash(json!({
        "type": "target",
        "revision": spec.problem.revision(),
        "spec": value,
        "content": content,
    }))
}

/// The id of a run: target, posterior, sampler with its revision, dtype, seed, chains and length. `mask`
/// is the BLAKE3 hash of the file that chooses parameters, where there is one; its path is not part of
/// the id.
pub fn run_id(target: &Id, sampler: &SamplerSpec, posterior: &PosteriorSpec, mask: Option<[u8; 32]>) -> Id {
    hash(run_json("run", target, sampler, posterior, mask))
}

/// What keys a run's random numbers: as [`run_id`] without the number of chains and of draws (for
/// sgld: of steps), so that more chains or more draws continue a run.
pub fn stream_id(
    target: &Id,
    sampler: &SamplerSpec,
    posterior: &PosteriorSpec,
    mask: Option<[u8; 32]>,
) -> Id {
    let mut value = run_json("stream", target, sampler, posterior, mask);
    if let Some(Value::Object(spec)) = value.pointer_mut("/sampler") {
        spec.remove("chains");
        if let Some(Value::Object(algo)) = spec.get_mut("algo").and_then(|a| a.get_mut(sampler.algo.name())) {
            algo.remove(sampler.algo.length_key());
        }
    }
    hash(value)
}

/// The id of a run, or of its stream, whose chains run on a device of that kind: its random numbers are of another
/// generator. Processors of one kind have one id; which it was is in the provenance.
pub fn on_device(id: &Id, kind: &str) -> Id {
    hash(json!({ "type": "device", "device": kind, "of": id.to_string() }))
}

fn run_json(
    kind: &str,
    target: &Id,
    sampler: &SamplerSpec,
    posterior: &PosteriorSpec,
    mask: Option<[u8; 32]>,
) -> Value {
    json!({
        "type": kind,
        "target": target.to_string(),
        "revision": sampler.algo.revision(),
        "sampler": to_json(sampler),
        "posterior": posterior_json(posterior, mask),
    })
}

/// A posterior as JSON, a mask by its content instead of its path.
pub fn posterior_json(posterior: &PosteriorSpec, mask: Option<[u8; 32]>) -> Value {
    let mut value = to_json(posterior);
    if let (Some(mask), Some(place)) = (mask, value.pointer_mut("/parameters/mask")) {
        *place = Id(mask).to_string().into();
    }
    value
}

/// The specification types are plain data: they always have a JSON form.
fn to_json<T: Serialize>(spec: &T) -> Value {
    serde_json::to_value(spec).unwrap_or(Value::Null)
}

fn hash(mut value: Value) -> Id {
    drop_introduction_defaults(&mut value, INTRODUCED_LATER);
    value["format"] = FORMAT.into();
    Id(*blake3::hash(canonical_json(&value).as_bytes()).as_bytes())
}

/// Removes the keys of `table` that hold the value they were introduced with.
fn drop_introduction_defaults(value: &mut Value, table: &[(&str, &str)]) {
    for (path, default) in table {
        let (parent, key) = path.rsplit_once('.').unwrap_or(("", *path));
        let pointer: String = parent.split('.').filter(|p| !p.is_empty()).map(|p| format!("/{p}")).collect();
        if let Some(Value::Object(map)) = value.pointer_mut(&pointer)
            && map.get(key).is_some_and(|v| canonical_json(v) == *default)
        {
            map.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_json_has_one_spelling() {
        let value = json!({"b": [1, 1.0, -0.0, 0.1, 1e-6, 1e300, true, null], "a": {"z": "q\"\u{e4}", "y": u64::MAX}});
        let expected = "{\"a\":{\"y\":18446744073709551615,\"z\":\"q\\\"\u{e4}\"},\"b\":[1,1e0,0e0,1e-1,1e-6,1e300,true,null]}";
        assert_eq!(canonical_json(&value), expected);
    }

    #[test]
    fn canonical_floats_read_back_equal() {
        for x in [0.1 + 0.2, f64::MIN_POSITIVE, f64::MAX, 5e-324, 1.0 / 3.0, -123456.789] {
            assert_eq!(canonical_json(&json!(x)).parse::<f64>().unwrap().to_bits(), x.to_bits());
        }
    }

    #[test]
    fn keys_introduced_later_hide_only_at_their_default() {
        let table = [("sampler.algo.hmc.max_energy", "1e3"), ("new", "null")];
        let base = json!({"sampler": {"algo": {"hmc": {"draws": 1}}}});
        let with = |x: f64| json!({"new": null, "sampler": {"algo": {"hmc": {"draws": 1, "max_energy": x}}}});
        let mut at_default = with(1000.0);
        drop_introduction_defaults(&mut at_default, &table);
        assert_eq!(at_default, base);
        let mut other = with(10.0);
        drop_introduction_defaults(&mut other, &table);
        assert_eq!(other, json!({"sampler": {"algo": {"hmc": {"draws": 1, "max_energy": 10.0}}}}));
    }

    #[test]
    fn ids_travel_as_text_and_as_bytes() {
        let id = Id(std::array::from_fn(|i| (i * 7) as u8));
        let text = serde_json::to_string(&id).unwrap();
        assert_eq!(text, format!("\"{id}\""));
        assert_eq!(serde_json::from_str::<Id>(&text).unwrap(), id);
        let bytes = postcard::to_stdvec(&id).unwrap();
        assert_eq!(bytes, id.0);
        assert_eq!(postcard::from_bytes::<Id>(&bytes).unwrap(), id);
        assert_eq!(id.short(12), &id.to_string()[..12]);
        for bad in ["", "00", &"0".repeat(63), &"g".repeat(64), &"0".repeat(66)] {
            assert_eq!(Id::from_hex(bad), None, "{bad}");
        }
    }
}
