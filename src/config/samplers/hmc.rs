//! Keys of hmc.

use super::super::algo::{Algo, Hmc};
use super::super::keys::{MAX_DIM, key};
use super::super::section::Section;
use super::super::table::{Default, Key, Kind, Range};
use super::{DRAWS, SHARED_WARMUP, TARGET_ACCEPTANCE, UNUSED_TARGET_ACCEPTANCE, definition};

pub(super) const STEP: Key = key(
    "step_size",
    Kind::Float(Range::POSITIVE),
    Default::Float(0.01),
    "Starting value of the step-size adaptation.",
);
const INTEGRATION_STEPS: Key = key(
    "num_integration_steps",
    Kind::Int(1, MAX_DIM),
    Default::Int(10),
    "Mean number of leapfrog steps an iteration.",
);

definition! {
    "hmc",
    "Hamiltonian Monte Carlo",
    resolve,
    [DRAWS, SHARED_WARMUP, INTEGRATION_STEPS, STEP, TARGET_ACCEPTANCE],
    [
        ("num_samples", "did you mean draws?"),
        ("num_draws", "did you mean draws?"),
        ("num_warmup", "did you mean warmup?"),
        ("max_tree_depth", "did you mean num_integration_steps? (nuts has max_tree_depth)"),
        ("num_steps", "did you mean num_integration_steps?"),
        ("steps", "did you mean draws?"),
        ("target_accept", "did you mean target_acceptance?"),
    ]
}

fn resolve(settings: &Section) -> Option<Algo> {
    let (draws, warmup) = (settings.size("draws"), settings.size("warmup"));
    let (steps, step_size) = (settings.size("num_integration_steps"), settings.float("step_size"));
    let target_acceptance = settings.float("target_acceptance");
    let (warmup, target_acceptance) = (warmup?, target_acceptance?);
    Some(Algo::Hmc(Hmc {
        draws: draws?,
        warmup,
        num_integration_steps: steps?,
        step_size: step_size?,
        target_acceptance: if warmup == 0 { UNUSED_TARGET_ACCEPTANCE } else { target_acceptance },
    }))
}
