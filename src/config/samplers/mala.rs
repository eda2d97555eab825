//! Keys of mala.

use super::super::algo::{Algo, Mala};
use super::super::keys::{MAX_DIM, key};
use super::super::section::Section;
use super::super::table::{Default, Key, Kind, Range};
use super::{
    DRAWS, FEWEST_DRAWS, SHARED_WARMUP, TARGET_ACCEPTANCE, UNUSED_TARGET_ACCEPTANCE, definition,
    refuse_endless,
};

const STEP: Key = key(
    "step_size",
    Kind::Auto(&Kind::Float(Range::POSITIVE)),
    Default::Text("auto"),
    "ε of the proposal w − (ε/2)∇U + √ε ξ; auto: adapted together with a metric. √ε is drawn anew each step, times U(0.2, 1).",
);
const THIN: Key = key("thin", Kind::Int(1, MAX_DIM), Default::Int(10), "Steps a kept draw.");

const WARMUP: Key = Key { default: Default::Int(1000), ..SHARED_WARMUP };

definition! {
    "mala",
    "The Metropolis-adjusted Langevin algorithm",
    resolve,
    [DRAWS, WARMUP, THIN, STEP, TARGET_ACCEPTANCE],
    [
        ("num_samples", "did you mean draws?"),
        ("num_draws", "did you mean draws?"),
        ("num_warmup", "did you mean warmup?"),
        ("thinning", "did you mean thin?"),
        ("eval_every", "did you mean thin?"),
        ("steps", "did you mean draws? (mala keeps a draw every `thin` steps)"),
        ("target_accept", "did you mean target_acceptance?"),
    ]
}

fn resolve(settings: &Section) -> Option<Algo> {
    let (draws, warmup, thin) = (settings.size("draws"), settings.size("warmup"), settings.size("thin"));
    let (step_size, target_acceptance) =
        (settings.auto_float("step_size"), settings.float("target_acceptance"));
    let (step_size, warmup, target_acceptance) = (step_size?, warmup?, target_acceptance?);
    if step_size.is_some() {
        settings.refuse_idle(&["target_acceptance"], "with a given step_size");
    }
    let adapts = step_size.is_none() && warmup > 0;
    let (draws, thin) = (draws?, thin?);
    refuse_endless(settings, draws, (warmup / 2).max(FEWEST_DRAWS), thin);
    Some(Algo::Mala(Mala {
        draws,
        warmup,
        thin,
        step_size,
        target_acceptance: if adapts { target_acceptance } else { UNUSED_TARGET_ACCEPTANCE },
    }))
}
