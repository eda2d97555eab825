//! What is wrong with a configuration, and where: one line an error, all errors at once.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use thiserror::Error;

/// Where a value was written. Lines and columns count from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// A position in a file (or a built-in preset).
    At {
        /// The file as the user named it.
        file: Arc<str>,
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: u64,
    },
    /// A file as a whole.
    File(Arc<str>),
    /// A command-line option, as typed: `--set a.b=c`.
    Option(Arc<str>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::At { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Place::File(text) | Place::Option(text) => f.write_str(text),
        }
    }
}

/// The ways in which a configuration can be wrong. Each text says what was expected, what was
/// found, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum Fault {
    /// The file cannot be read.
    #[error("cannot read it: {0}")]
    Unreadable(String),
    /// The text is not YAML, or exceeds a bound on depth, aliases or size.
    #[error("not valid YAML: {0}")]
    Syntax(String),
    /// A key that nothing reads.
    #[error("unknown key; {advice}")]
    UnknownKey {
        /// The nearest key, or where the key belongs.
        advice: String,
    },
    /// A key without default is absent.
    #[error("missing; expected {expected}")]
    Missing {
        /// What must stand there.
        expected: String,
    },
    /// A value of the wrong type or outside its range.
    #[error("expected {expected}, found {found}")]
    Unexpected {
        /// Type and range.
        expected: String,
        /// The value as found.
        found: String,
    },
    /// A name (of a preset, a sampler, a choice) that does not exist.
    #[error("unknown {what} `{found}`; {advice}")]
    UnknownName {
        /// What the name should name.
        what: String,
        /// The name as found.
        found: String,
        /// The nearest name, and all there are.
        advice: String,
    },
    /// A key is given twice.
    #[error("given twice; the first stands at {first}; remove one")]
    GivenTwice {
        /// Where it was given first.
        first: Place,
    },
    /// Two entries describe the same thing.
    #[error("the same {what} as {other} at {first}; remove one or change its seed")]
    Duplicate {
        /// "target" or "run".
        what: &'static str,
        /// Key path of the first.
        other: String,
        /// Where the first stands.
        first: Place,
    },
    /// Values that are each allowed but not together.
    #[error("{0}")]
    Conflict(String),
    /// A `--set` whose path leads nowhere.
    #[error("{0}")]
    NoSuchPath(String),
}

/// One error of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Error)]
pub struct ConfigError {
    /// File, line and column, or the option it came from.
    pub place: Place,
    /// Dotted key path, such as `samplers[1].overrides.step_size`; empty for a whole file.
    pub key: String,
    /// What is wrong.
    pub fault: Fault,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => write!(f, "{}: {}", self.place, self.fault),
            key => write!(f, "{}: {key}: {}", self.place, self.fault),
        }
    }
}

/// All errors of a configuration, in the order of the file; never empty. Its text has one line
/// an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Collects errors while a configuration is read.
#[derive(Debug, Default)]
pub(super) struct Report {
    errors: RefCell<Vec<ConfigError>>,
}

impl Report {
    /// Adds one error.
    pub fn add(&self, place: &Place, key: impl Into<String>, fault: Fault) {
        self.errors.borrow_mut().push(ConfigError { place: place.clone(), key: key.into(), fault });
    }

    /// Adds errors that were found elsewhere.
    pub fn extend(&self, errors: ConfigErrors) {
        self.errors.borrow_mut().extend(errors.0);
    }

    /// True while nothing was added.
    pub fn is_empty(&self) -> bool {
        self.errors.borrow().is_empty()
    }

    /// The errors, each once (several targets may read one faulty preset), in order of place.
    pub fn into_errors(self) -> ConfigErrors {
        let mut errors = self.errors.into_inner();
        errors.sort();
        errors.dedup();
        ConfigErrors(errors)
    }
}

/// `did you mean …?` for the candidate nearest to `found`, when one is near enough to help.
pub(super) fn nearest<'a>(found: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let score = |name: &str| {
        let edits = strsim::normalized_damerau_levenshtein(found, name);
        // A key that is a part of the other (`step` for `step_size`) is near however long the rest.
        let part = found.len() >= 3 && (name.contains(found) || found.contains(name));
        if part { edits.max(0.6) } else { edits }
    };
    candidates
        .into_iter()
        .map(|name| (score(name), name))
        .filter(|(score, _)| *score >= 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// The advice of a [`Fault::UnknownName`] or [`Fault::UnknownKey`]: nearest name and all names.
pub(super) fn advise(found: &str, names: &[&str]) -> String {
    let all = names.join(", ");
    match nearest(found, names.iter().copied()) {
        Some(name) => format!("did you mean {name}? (there are: {all})"),
        None if names.is_empty() => "there are none".to_owned(),
        None => format!("there are: {all}"),
    }
}
