//! Local Learning Coefficient (LLC, λ̂) estimates of trained models, in bulk.
//!
//! The library behind the program `lambda-hat-mpi`. A module imports only
//! from modules above its own in the table of ARCHITECTURE.md.

pub mod cli;
pub mod comm;
pub mod config;
pub mod device;
pub mod diagnostics;
pub mod io;
pub mod launch;
pub mod num;
pub mod plot;
pub mod promote;
pub mod resume;
pub mod sampler;
pub mod stats;
pub mod store;
pub mod sweep;
pub mod target;
pub mod trace;
pub mod tune;
pub mod wire;

/// The version of the program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from; `+changes` where the tree had uncommitted ones.
pub const GIT_SHA: &str = env!("LAMBDA_HAT_GIT_SHA");
