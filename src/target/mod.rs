//! Targets: data, models, the passes that give loss and gradient, training to w*.

mod potential;

pub use potential::Potential;
