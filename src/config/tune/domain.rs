//! What a parameter may be: its domain, when it counts at all, and its values.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A value of a parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    /// Nothing, as a choice.
    Null,
    /// true or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A finite number.
    Float(f64),
    /// Text.
    Text(String),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scalar::Null => f.write_str("null"),
            Scalar::Bool(b) => write!(f, "{b}"),
            Scalar::Int(i) => write!(f, "{i}"),
            Scalar::Float(x) => write!(f, "{x:?}"),
            Scalar::Text(text) => f.write_str(text),
        }
    }
}

impl Scalar {
    /// The same value: 1 and 1.0 are.
    pub fn is(&self, other: &Scalar) -> bool {
        match (self, other) {
            (Scalar::Int(a), Scalar::Float(b)) | (Scalar::Float(b), Scalar::Int(a)) => *a as f64 == *b,
            (a, b) => a == b,
        }
    }
}

/// The values that a parameter may take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Domain {
    /// A number in [low, high].
    Float {
        /// Smallest value.
        low: f64,
        /// Largest value.
        high: f64,
        /// Equal ratios count alike; needs low > 0 and no step.
        log: bool,
        /// Only low + k·step; high is lowered to the last of them.
        step: Option<f64>,
    },
    /// A whole number in [low, high].
    Int {
        /// Smallest value.
        low: i64,
        /// Largest value.
        high: i64,
        /// Equal ratios count alike; needs low ≥ 1 and step 1.
        log: bool,
        /// Only low + k·step, step ≥ 1; high is lowered to the last of them.
        step: i64,
    },
    /// One of several values.
    Categorical {
        /// The values, no two the same.
        choices: Vec<Scalar>,
    },
}

/// Whole numbers are handled as `f64`.
const LARGEST_WHOLE: i64 = 1 << 53;

impl Domain {
    /// What is wrong with it: the key at fault and why.
    pub fn fault(&self) -> Option<(&'static str, String)> {
        match self {
            Domain::Float { low, high, log, step } => {
                if !low.is_finite() || !high.is_finite() || !(high - low).is_finite() {
                    return Some(("low", format!("expected finite bounds, found {low:?} and {high:?}")));
                }
                if low > high {
                    return Some(("low", format!("{low:?} is above `high` ({high:?}); exchange them")));
                }
                if *log && *low <= 0.0 {
                    let why = format!("`log: true` needs `low` > 0, found {low:?}; raise it or remove `log`");
                    return Some(("low", why));
                }
                match step {
                    Some(_) if *log => Some(("step", "excludes `log: true`; remove one of them".to_owned())),
                    Some(step) if !step.is_finite() || *step <= 0.0 => {
                        Some(("step", format!("expected a number > 0, found {step:?}")))
                    }
                    Some(step) if (high - low) / step > LARGEST_WHOLE as f64 => {
                        Some(("step", format!("{step:?} is too small for the interval; remove it")))
                    }
                    _ => None,
                }
            }
            Domain::Int { low, high, log, step } => {
                if low > high {
                    return Some(("low", format!("{low} is above `high` ({high}); exchange them")));
                }
                if *low < -LARGEST_WHOLE || *high > LARGEST_WHOLE {
                    return Some((
                        "high",
                        format!("expected whole numbers of at most {LARGEST_WHOLE} in size"),
                    ));
                }
                if *log && *low < 1 {
                    let why = format!("`log: true` needs `low` ≥ 1, found {low}; raise it or remove `log`");
                    return Some(("low", why));
                }
                if *step < 1 {
                    return Some(("step", format!("expected a whole number ≥ 1, found {step}")));
                }
                (*log && *step != 1).then(|| ("step", "excludes `log: true`; remove one of them".to_owned()))
            }
            Domain::Categorical { choices } => {
                if choices.is_empty() {
                    return Some(("choices", "expected at least one value, found none".to_owned()));
                }
                for (i, choice) in choices.iter().enumerate() {
                    if matches!(choice, Scalar::Float(x) if !x.is_finite()) {
                        return Some(("choices", format!("expected finite numbers, found {choice}")));
                    }
                    if choices[..i].iter().any(|other| other.is(choice)) {
                        return Some(("choices", format!("{choice} stands there twice; remove one")));
                    }
                }
                None
            }
        }
    }

    /// Whether the value can come up.
    pub fn contains(&self, value: &Scalar) -> bool {
        match (self, value) {
            (Domain::Float { low, high, .. }, Scalar::Float(x)) => (low..=high).contains(&x),
            (Domain::Float { low, high, .. }, Scalar::Int(i)) => (low..=high).contains(&&(*i as f64)),
            (Domain::Int { low, high, step, .. }, Scalar::Int(i)) => {
                (low..=high).contains(&i) && (i - low) % step == 0
            }
            (Domain::Categorical { choices }, value) => choices.iter().any(|choice| choice.is(value)),
            _ => false,
        }
    }
}

/// A parameter counts only where another has one of some values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    /// Name of the other.
    pub parent: String,
    /// Its values, at least one.
    pub values: Vec<Scalar>,
}

/// A parameter of a search space.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dimension {
    /// The key it sets.
    pub name: String,
    /// What it may be.
    pub domain: Domain,
    /// All must hold for it to count.
    pub when: Vec<Condition>,
}

/// What is wrong with dimensions together.
#[derive(Clone, Debug, PartialEq)]
pub struct DimensionFault {
    /// Index of the dimension.
    pub dimension: usize,
    /// Index of its condition.
    pub condition: usize,
    /// Why.
    pub why: String,
}

/// An order in which every parameter stands behind those its conditions name, otherwise as given.
///
/// # Errors
/// A condition names no parameter, a value that it cannot take, or closes a circle.
pub fn order(dimensions: &[Dimension]) -> Result<Vec<usize>, DimensionFault> {
    for (i, dimension) in dimensions.iter().enumerate() {
        for (c, condition) in dimension.when.iter().enumerate() {
            let fault = |why| Err(DimensionFault { dimension: i, condition: c, why });
            let Some(parent) = dimensions.iter().find(|d| d.name == condition.parent) else {
                let names: Vec<&str> = dimensions.iter().map(|d| d.name.as_str()).collect();
                let why =
                    format!("no parameter is called {}; there are: {}", condition.parent, names.join(", "));
                return fault(why);
            };
            if condition.values.is_empty() {
                return fault(format!("expected a value of {} or a list of some", condition.parent));
            }
            if let Some(value) = condition.values.iter().find(|value| !parent.domain.contains(value)) {
                return fault(format!("{value} is no value that {} can take", condition.parent));
            }
        }
    }
    let mut order: Vec<usize> = Vec::with_capacity(dimensions.len());
    while order.len() < dimensions.len() {
        let stands = |name: &str| order.iter().any(|&i| dimensions[i].name == name);
        let ready = |i: &usize| {
            !order.contains(i) && dimensions[*i].when.iter().all(|condition| stands(&condition.parent))
        };
        match (0..dimensions.len()).find(ready) {
            Some(next) => order.push(next),
            None => {
                let dimension = (0..dimensions.len()).find(|i| !order.contains(i)).unwrap_or(0);
                let why = "the conditions close a circle; remove one".to_owned();
                return Err(DimensionFault { dimension, condition: 0, why });
            }
        }
    }
    Ok(order)
}
