//! Real numbers, random streams, and small numeric helpers: the ground everything stands on.

mod real;
pub mod rng;

pub use real::Real;
