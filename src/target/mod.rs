//! Targets: data, models, the passes that give loss and gradient, training to w*.

mod build;
mod data;
mod device_network;
mod dln;
mod elementwise;
mod error;
mod exact;
mod external;
mod fresh;
mod layout;
mod matrix;
mod network;
mod network_plan;
mod potential;
mod quadrature;
mod reference;
mod restricted;
mod simple;
mod training;

pub use build::{Target, build, build_at};
pub use device_network::{DeviceNetwork, DeviceNetworkError};
pub use error::TargetError;
pub use exact::{
    Exact, FiniteForm, Singularity, deep_linear_singularity, normal_crossing_singularity, quadratic_llc,
    quadratic_singularity,
};
pub use external::{ExternalArrays, Tensor, network_of};
pub use fresh::{Rows, Teacher};
pub use layout::{Layer, layers, param_count};
pub use network::NetworkPotential;
pub use network_plan::{MAX_LAYERS, NetworkPlan, PlanError};
pub use potential::Potential;
pub use reference::{LAYERNORM_EPS, Reference, activate, residual_loss};
pub use restricted::RestrictedPotential;
pub use simple::{NormalCrossingPotential, QuadraticPotential};
pub use training::{StopReason, TrainingOutcome, train};
