//! Keys of nuts.

use super::super::algo::{Algo, Nuts};
use super::super::keys::key;
use super::super::section::Section;
use super::super::table::{Default, Key, Kind};
use super::hmc::STEP;
use super::{DRAWS, SHARED_WARMUP, TARGET_ACCEPTANCE, UNUSED_TARGET_ACCEPTANCE, definition};

const MAX_TREE_DEPTH: Key = key(
    "max_tree_depth",
    Kind::Int(1, 20),
    Default::Int(10),
    "A trajectory has at most 2 to this power − 1 leapfrog steps.",
);

const WARMUP: Key = Key { default: Default::Int(500), ..SHARED_WARMUP };

definition! {
    "nuts",
    "The no-U-turn sampler",
    resolve,
    [DRAWS, WARMUP, STEP, TARGET_ACCEPTANCE, MAX_TREE_DEPTH],
    [
        ("num_samples", "did you mean draws?"),
        ("num_draws", "did you mean draws?"),
        ("num_warmup", "did you mean warmup?"),
        ("max_treedepth", "did you mean max_tree_depth?"),
        ("num_integration_steps", "nuts finds the length of its trajectories; see max_tree_depth"),
        ("steps", "did you mean draws?"),
        ("target_accept", "did you mean target_acceptance?"),
    ]
}

fn resolve(settings: &Section) -> Option<Algo> {
    let (draws, warmup, depth) =
        (settings.size("draws"), settings.size("warmup"), settings.size("max_tree_depth"));
    let (step_size, target_acceptance) = (settings.float("step_size"), settings.float("target_acceptance"));
    let (warmup, target_acceptance) = (warmup?, target_acceptance?);
    Some(Algo::Nuts(Nuts {
        draws: draws?,
        warmup,
        step_size: step_size?,
        target_acceptance: if warmup == 0 { UNUSED_TARGET_ACCEPTANCE } else { target_acceptance },
        max_tree_depth: depth?,
    }))
}
