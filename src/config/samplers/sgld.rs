//! Keys of sgld.

use super::super::algo::{Algo, Precond, Sgld};
use super::super::keys::key;
use super::super::section::Section;
use super::super::table::{Default, Key, Kind, Range};
use super::definition;
use super::stochastic::{ADVICE as OTHER_WORDS, BATCH, EVAL_EVERY, STEPS, WARMUP, lengths, step};

const STEP: Key = step("ε of w ← w − (ε/2)∇U + √ε ξ; auto: found in warmup.");
const PRECOND: Key =
    key("precond", Kind::Choice(&["none", "rmsprop", "adam"]), Default::Text("none"), "Preconditioner.");
const BETA1: Key =
    key("beta1", Kind::Float(Range::BELOW_ONE), Default::Float(0.9), "adam: decay of the first moment.");
const BETA2: Key = key(
    "beta2",
    Kind::Float(Range::BELOW_ONE),
    Default::Float(0.999),
    "rmsprop, adam: decay of the second moment.",
);
const EPS: Key = key(
    "eps",
    Kind::Float(Range { high: 1.0, high_open: false, ..Range::POSITIVE }),
    Default::Float(1e-8),
    "rmsprop, adam: added to the root of the second moment.",
);
const BIAS_CORRECTION: Key =
    key("bias_correction", Kind::Bool, Default::Bool(true), "rmsprop, adam: divide the moments by 1 − βᵗ.");
const GAMMA_TERM: Key = key(
    "gamma_term",
    Kind::Bool,
    Default::Bool(false),
    "rmsprop: add the drift that a preconditioner which depends on w calls for (a Hessian-vector product a step).",
);
const FREEZE: Key = key(
    "freeze_precond",
    Kind::Bool,
    Default::Bool(false),
    "rmsprop: keep the preconditioner of the end of the burn-in from there on.",
);

definition! {
    "sgld",
    "Stochastic-gradient Langevin dynamics",
    resolve,
    [
        STEPS, WARMUP, BATCH, STEP, EVAL_EVERY, PRECOND, BETA1, BETA2, EPS, BIAS_CORRECTION, GAMMA_TERM, FREEZE,
    ],
    [
        OTHER_WORDS[0], OTHER_WORDS[1], OTHER_WORDS[2], OTHER_WORDS[3], OTHER_WORDS[4], OTHER_WORDS[5],
        ("max_tree_depth", "did you mean steps? (nuts alone builds trees)"),
        ("preconditioner", "did you mean precond?"),
    ]
}

fn resolve(settings: &Section) -> Option<Algo> {
    let lengths = lengths(settings);
    let (batch_size, step_size) = (settings.size("batch_size"), settings.auto_float("step_size"));
    let precond = settings.text("precond").map(|name| match name.as_str() {
        "rmsprop" => Precond::Rmsprop,
        "adam" => Precond::Adam,
        _ => Precond::None,
    });
    let moments = precond.and_then(|p| moments(settings, p));
    let corrections = precond.and_then(|p| corrections(settings, p));
    let (steps, warmup, eval_every) = lengths?;
    let (beta1, beta2, eps, bias_correction) = moments?;
    let (gamma_term, freeze_precond) = corrections?;
    let step_size = step_size?;
    if step_size.is_none() && precond != Some(Precond::None) {
        let text = "needs a number as `step_size`: auto, which predicts the bias, cannot for a moving preconditioner";
        settings.conflict("precond", text);
        return None;
    }
    Some(Algo::Sgld(Sgld {
        steps,
        warmup,
        batch_size: batch_size?,
        step_size,
        eval_every,
        precond: precond?,
        beta1,
        beta2,
        eps,
        bias_correction,
        gamma_term,
        freeze_precond,
    }))
}

/// β1, β2, ε and bias correction. Those that the preconditioner does not read are refused in the
/// entry, and are the defaults in the specification so that they tell no two runs apart.
fn moments(settings: &Section, precond: Precond) -> Option<(f64, f64, f64, bool)> {
    let because = |name| format!("with `precond: {name}`");
    let beta1 = match precond {
        Precond::None => {
            settings.refuse_idle(&["beta1", "beta2", "eps", "bias_correction"], &because("none"));
            return Some(UNUSED_MOMENTS);
        }
        Precond::Rmsprop => {
            settings.refuse_idle(&["beta1"], &because("rmsprop"));
            Some(UNUSED_MOMENTS.0)
        }
        Precond::Adam => settings.float("beta1"),
    };
    let (beta2, eps) = (settings.float("beta2"), settings.float("eps"));
    let bias_correction = settings.bool("bias_correction");
    Some((beta1?, beta2?, eps?, bias_correction?))
}

/// The defaults of today; they are in ids, so they stay when the defaults change.
const UNUSED_MOMENTS: (f64, f64, f64, bool) = (0.9, 0.999, 1e-8, true);

/// `gamma_term` and `freeze_precond`, which are rmsprop's and exclude each other.
fn corrections(settings: &Section, precond: Precond) -> Option<(bool, bool)> {
    let (gamma_term, freeze) = (settings.bool("gamma_term")?, settings.bool("freeze_precond")?);
    if precond != Precond::Rmsprop {
        settings.refuse_idle(&["gamma_term", "freeze_precond"], "without `precond: rmsprop`");
        return Some((false, false));
    }
    if freeze && settings.int("warmup") == Some(0) {
        settings.conflict(
            "freeze_precond",
            "needs a `warmup` of at least 1, in which the preconditioner is found",
        );
        return None;
    }
    if gamma_term && freeze {
        settings
            .conflict("freeze_precond", "a frozen preconditioner needs no `gamma_term`; give one of them");
        return None;
    }
    Some((gamma_term, freeze))
}
