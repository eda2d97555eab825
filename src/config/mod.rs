//! Experiments: YAML to validated, typed specifications.

mod spec;

pub use spec::*;
