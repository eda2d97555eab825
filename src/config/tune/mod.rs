//! Tune files: problems, methods, search spaces, and how studies over them are carried out.

mod best;
mod domain;
mod probe;
mod read;
mod space;
mod spec;

pub use best::preset_text;
pub use domain::{Condition, Dimension, DimensionFault, Domain, Scalar, order};
pub use read::{Problem, TuneExperiment, load_tune, parse_tune, trial_sampler};
pub use spec::{
    Bandwidth, Budget, Cost, MethodSpace, Objective, Pruner, StudySpec, TpeSettings, TuneSampler, Units,
};
