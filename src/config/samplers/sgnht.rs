//! Keys of sgnht.

use super::super::algo::{Algo, Sgnht};
use super::super::section::Section;
use super::super::table::Key;
use super::definition;
use super::stochastic::{
    ADVICE as OTHER_WORDS, BATCH, EVAL_EVERY, FEWER_STEPS, FRICTION, LESS_WARMUP, lengths, step,
};

const STEP: Key = step("h², h the time of a step; auto: found in warmup.");

definition! {
    "sgnht",
    "The stochastic-gradient Nosé–Hoover thermostat",
    resolve,
    [FEWER_STEPS, LESS_WARMUP, BATCH, STEP, FRICTION, EVAL_EVERY],
    [
        OTHER_WORDS[0], OTHER_WORDS[1], OTHER_WORDS[2], OTHER_WORDS[3], OTHER_WORDS[4], OTHER_WORDS[5],
        ("A", "did you mean friction? (A·h, a step)"),
        ("diffusion", "did you mean friction? (A·h, a step)"),
    ]
}

fn resolve(settings: &Section) -> Option<Algo> {
    let lengths = lengths(settings);
    let (batch_size, step_size) = (settings.size("batch_size"), settings.auto_float("step_size"));
    let friction = settings.float("friction");
    let (steps, warmup, eval_every) = lengths?;
    Some(Algo::Sgnht(Sgnht {
        steps,
        warmup,
        batch_size: batch_size?,
        step_size: step_size?,
        friction: friction?,
        eval_every,
    }))
}
