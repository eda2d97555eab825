//! Tune files: problems, methods, search spaces, and how studies over them are carried out.

mod domain;
mod spec;

pub use domain::{Condition, Dimension, DimensionFault, Domain, Scalar, order};
pub use spec::{
    Bandwidth, Budget, Cost, MethodSpace, Objective, Pruner, StudySpec, TpeSettings, TuneSampler, Units,
};
