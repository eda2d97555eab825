//! Experiments: YAML to validated, typed specifications.
//!
//! The way of a file: `tree` parses it into values that know their lines, `set` puts in what
//! the command line says, `table` checks every key and value against the tables of `keys`,
//! `section` layers presets and overrides, and `targets`, `samplers` and `posterior` make
//! the typed specification of it. All errors are collected; one is enough to refuse the file.

mod algo;
mod card;
mod error;
mod id;
mod keys;
mod network;
mod path_text;
mod posterior;
mod preset;
mod reference;
mod resolve;
mod samplers;
mod schema;
mod section;
mod set;
mod spec;
mod table;
mod targets;
mod tree;
pub mod tune;
mod vi;
mod written;

#[cfg(test)]
mod tests;

pub use algo::*;
pub use card::{
    Device, LocalCard, SlurmCard, UnknownDevice, is_card_setting, load_local_card, load_slurm_card,
};
pub use error::{ConfigError, ConfigErrors, Fault, Place};
pub use id::{Id, canonical_json, on_device, posterior_json, run_id, stream_id, target_id};
pub use keys::{KeyDoc, card_keys, keys, tune_keys};
pub use network::infer_width;
pub use reference::configuration_reference;
pub use resolve::{LoadOptions, load, parse};
pub use samplers::sampler_names;
pub use schema::{json_schema, tune_json_schema};
pub use spec::*;
pub use vi::*;
pub use written::{written, yaml};
