//! Targets: data, models, the passes that give loss and gradient, training to w*.

mod elementwise;
mod layout;
mod network;
mod potential;
mod reference;

pub use layout::param_count;
pub use network::NetworkPotential;
pub use potential::Potential;
pub use reference::Reference;
