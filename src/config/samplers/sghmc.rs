//! Keys of sghmc.

use super::super::algo::{Algo, Sghmc};
use super::super::section::Section;
use super::super::table::Key;
use super::definition;
use super::stochastic::{
    ADVICE as OTHER_WORDS, BATCH, EVAL_EVERY, FEWER_STEPS, FRICTION, LESS_WARMUP, lengths, step,
};

const STEP: Key = step("η of v ← (1 − α)v − η∇U + √(2αη) ξ, α the friction; auto: found in warmup.");

definition! {
    "sghmc",
    "Stochastic-gradient Hamiltonian Monte Carlo",
    resolve,
    [FEWER_STEPS, LESS_WARMUP, BATCH, STEP, FRICTION, EVAL_EVERY],
    [
        OTHER_WORDS[0], OTHER_WORDS[1], OTHER_WORDS[2], OTHER_WORDS[3], OTHER_WORDS[4], OTHER_WORDS[5],
        ("alpha", "did you mean friction?"),
        ("momentum_decay", "did you mean friction?"),
    ]
}

fn resolve(settings: &Section) -> Option<Algo> {
    let lengths = lengths(settings);
    let (batch_size, step_size) = (settings.size("batch_size"), settings.auto_float("step_size"));
    let friction = settings.float("friction");
    let (steps, warmup, eval_every) = lengths?;
    Some(Algo::Sghmc(Sghmc {
        steps,
        warmup,
        batch_size: batch_size?,
        step_size: step_size?,
        friction: friction?,
        eval_every,
    }))
}
