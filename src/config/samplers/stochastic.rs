//! Keys that the samplers on minibatches share.

use super::super::keys::{MAX_BATCH, MAX_STEPS, key};
use super::super::section::Section;
use super::super::table::{Default, Key, Kind, Range};

pub(super) const STEPS: Key =
    key("steps", Kind::Int(1, MAX_STEPS), Default::Int(781_250), "Steps a chain, warmup included.");
pub(super) const WARMUP: Key = key(
    "warmup",
    Kind::Int(0, MAX_STEPS),
    Default::Int(50_000),
    "Steps dropped at the start of each chain, fewer than `steps`.",
);
pub(super) const BATCH: Key = Key {
    aliases: &["batch"],
    ..key(
        "batch_size",
        Kind::Int(1, MAX_BATCH),
        Default::Int(256),
        "Rows a gradient, drawn with replacement (may exceed n).",
    )
};
pub(super) const EVAL_EVERY: Key = key(
    "eval_every",
    Kind::Int(1, MAX_STEPS),
    Default::Int(100),
    "A draw is kept, and the full loss evaluated, every so many steps.",
);
pub(super) const FRICTION: Key = key(
    "friction",
    Kind::Float(Range { high: 1.0, high_open: false, ..Range::POSITIVE }),
    Default::Float(0.1),
    "Share of the momentum that a step takes away.",
);

/// Those that move faster a step need fewer.
pub(super) const FEWER_STEPS: Key = Key { default: Default::Int(200_000), ..STEPS };
pub(super) const LESS_WARMUP: Key = Key { default: Default::Int(20_000), ..WARMUP };

/// `step_size`, a number or auto; `doc` says what it is the size of.
pub(super) const fn step(doc: &'static str) -> Key {
    key("step_size", Kind::Auto(&Kind::Float(Range::POSITIVE)), Default::Text("auto"), doc)
}

/// Words of other programs, and ours.
pub(super) const ADVICE: [(&str, &str); 6] = [
    ("draws", "did you mean steps? (a draw is kept every eval_every steps)"),
    ("num_samples", "did you mean steps? (a draw is kept every eval_every steps)"),
    ("num_steps", "did you mean steps?"),
    ("num_warmup", "did you mean warmup?"),
    ("lr", "did you mean step_size?"),
    ("learning_rate", "did you mean step_size?"),
];

/// Steps, warmup and steps a draw, which must leave a draw.
pub(super) fn lengths(settings: &Section) -> Option<(u64, u64, u64)> {
    let (steps, warmup, eval_every) =
        (settings.int("steps"), settings.int("warmup"), settings.int("eval_every"));
    let (steps, warmup, eval_every) = (steps?, warmup?, eval_every?);
    if warmup >= steps {
        settings.conflict("warmup", format!("expected fewer than `steps` ({steps}), found {warmup}"));
        return None;
    }
    if steps - warmup < eval_every {
        settings.conflict(
            "eval_every",
            format!(
                "no draw would be kept: expected at most steps − warmup ({}), found {eval_every}",
                steps - warmup
            ),
        );
        return None;
    }
    Some((steps, warmup, eval_every))
}
