//! Keys of vi.

use super::super::algo::Algo;
use super::super::keys::{MAX_BATCH, MAX_COUNT, key};
use super::super::section::Section;
use super::super::table::{Default, Key, Kind, Range};
use super::super::vi::{Approximation, FactorFamily, FlowType, LatentFlow, LrSchedule, Mfa, Vi, Whitening};
use super::definition;

const DRAWS: Key = key(
    "draws",
    Kind::Int(1, MAX_COUNT),
    Default::Int(1000),
    "Kept draws a chain, made from its approximation after the optimisation.",
);
const ALGO: Key = key(
    "algo",
    Kind::Choice(&["mfa", "flow"]),
    Default::Text("mfa"),
    "The family of approximations: a mixture of factor analysers, or a flow in a few directions.",
);
const STEPS: Key = key(
    "steps",
    Kind::Int(1, MAX_COUNT),
    Default::Int(5000),
    "Steps of each chain's optimisation; all of them are its burn-in.",
);
const BATCH: Key = Key {
    aliases: &["batch"],
    ..key(
        "batch_size",
        Kind::Int(1, MAX_BATCH),
        Default::Int(256),
        "Rows a gradient, drawn with replacement; where n is not larger, the full gradient.",
    )
};
const LR: Key = key(
    "lr",
    Kind::Float(Range::POSITIVE),
    Default::Float(0.01),
    "Step size of Adam in whitened coordinates.",
);
const LR_SCHEDULE: Key = key(
    "lr_schedule",
    Kind::Maybe(&Kind::Choice(&["cosine", "linear_decay"])),
    Default::Absent("constant for the first half of the steps, then falling linearly to 0"),
    "How `lr` falls to 0 after its warmup.",
);
const LR_WARMUP: Key = key(
    "lr_warmup_frac",
    Kind::Float(Range::BELOW_ONE),
    Default::Float(0.05),
    "Share of the steps over which `lr` rises from 0.",
);
const CLIP: Key = key(
    "clip_global_norm",
    Kind::Maybe(&Kind::Float(Range::POSITIVE)),
    Default::Float(5.0),
    "Largest norm of a gradient in whitened coordinates, divided by the root of their number.",
);
const EVAL_EVERY: Key = key(
    "eval_every",
    Kind::Int(1, MAX_COUNT),
    Default::Int(50),
    "Steps over which the ELBO is averaged; an optimisation that ends below its first average fails.",
);
const EVAL_SAMPLES: Key = key(
    "eval_samples",
    Kind::Int(2, MAX_COUNT),
    Default::Int(64),
    "Draws of an ELBO on the full data: last iterate against mean iterate, and M and r auto.",
);
const WHITENING: Key = key(
    "whitening_mode",
    Kind::Choice(&["none", "rmsprop", "adam"]),
    Default::Text("none"),
    "mfa: scale of coordinates in the optimisation, by the curvature at w* or a running second moment of the gradient.",
);
const WHITENING_DECAY: Key = key(
    "whitening_decay",
    Kind::Float(Range::BELOW_ONE),
    Default::Float(0.99),
    "Decay of that second moment.",
);
const M: Key = key(
    "M",
    Kind::Auto(&Kind::Int(1, 1024)),
    Default::Int(8),
    "mfa: components; auto: chosen by ELBO in the shared warmup.",
);
const R: Key = key(
    "r",
    Kind::Auto(&Kind::Int(0, 1024)),
    Default::Int(2),
    "mfa: factors a component (at most d are used; 0: a diagonal); auto: chosen by ELBO in the shared warmup.",
);
const RANKS: Key = key(
    "r_per_component",
    Kind::Maybe(&Kind::Ints(0, 1024, 1)),
    Default::Absent("`r` each"),
    "mfa: factors of each component, in the place of M and r.",
);
const FAMILY: Key = key(
    "family",
    Kind::Choice(&["covariance", "precision"]),
    Default::Text("precision"),
    "mfa: what the factors are added to, a diagonal covariance or a diagonal precision.",
);
const TEMPERATURE: Key = key(
    "alpha_temperature",
    Kind::Float(Range::POSITIVE),
    Default::Float(1.0),
    "mfa: the weights are softmax(logits/temperature).",
);
const DIRICHLET: Key = key(
    "alpha_dirichlet_prior",
    Kind::Maybe(&Kind::Float(Range::POSITIVE)),
    Default::Absent("none"),
    "mfa: α of a Dirichlet prior on the weights; adds (α − 1)·Σ ln π_m to the objective.",
);
const ENTROPY: Key = key(
    "entropy_bonus",
    Kind::Float(Range::NON_NEGATIVE),
    Default::Float(0.0),
    "mfa: how much of the entropy of the weights is added to the objective.",
);
const D_LATENT: Key = key(
    "d_latent",
    Kind::Int(1, 1024),
    Default::Int(8),
    "flow: directions that the flow acts in (at most d): the stiffest of the Hessian at w*, then random ones.",
);
const SIGMA_PERP: Key = key(
    "sigma_perp",
    Kind::Auto(&Kind::Float(Range::POSITIVE)),
    Default::Text("auto"),
    "flow: standard deviation of all other directions, in units of 1/√(nβh + γ); auto: learned, and with it the scale of every coordinate.",
);
const DEPTH: Key = key("flow_depth", Kind::Int(1, 64), Default::Int(4), "flow: layers.");
const HIDDEN: Key = key(
    "flow_hidden",
    Kind::Ints(1, 4096, 1),
    Default::Absent("[64, 64]"),
    "flow: widths of the hidden layers of each layer's network.",
);
const FLOW_TYPE: Key = key(
    "flow_type",
    Kind::Choice(&["realnvp", "maf", "nsf_ar"]),
    Default::Text("realnvp"),
    "flow: affine coupling, masked autoregressive affine, or masked autoregressive splines.",
);

const TENSORBOARD: Key = key(
    super::TENSORBOARD_KEY,
    Kind::Bool,
    Default::Bool(false),
    "Write the ELBO on the way and the draws as TensorBoard events beside the run's files; changes no number.",
);

definition! {
    "vi",
    "Variational inference",
    resolve,
    [
        DRAWS, ALGO, STEPS, BATCH, LR, LR_SCHEDULE, LR_WARMUP, CLIP, EVAL_EVERY, EVAL_SAMPLES, WHITENING,
        WHITENING_DECAY, M, R, RANKS, FAMILY, TEMPERATURE, DIRICHLET, ENTROPY, D_LATENT, SIGMA_PERP, DEPTH,
        HIDDEN, FLOW_TYPE, TENSORBOARD,
    ],
    [
        ("num_samples", "did you mean draws?"),
        ("num_steps", "did you mean steps?"),
        ("warmup", "did you mean steps? (all of the optimisation is burn-in)"),
        ("step_size", "did you mean lr?"),
        ("learning_rate", "did you mean lr?"),
        ("components", "did you mean M?"),
        ("rank", "did you mean r?"),
    ]
}

/// Widths of networks where none are given.
const WIDTHS: [usize; 2] = [64, 64];

fn resolve(settings: &Section) -> Option<Algo> {
    let (draws, steps, batch_size) =
        (settings.size("draws"), settings.int("steps"), settings.size("batch_size"));
    let (lr, lr_warmup_frac) = (settings.float("lr"), settings.float("lr_warmup_frac"));
    let (eval_every, eval_samples) = (settings.int("eval_every"), settings.size("eval_samples"));
    let lr_schedule = maybe(settings, "lr_schedule", || {
        settings.text("lr_schedule").map(|name| match name.as_str() {
            "cosine" => LrSchedule::Cosine,
            _ => LrSchedule::LinearDecay,
        })
    });
    // Absent it holds its default, null is none.
    let clip_global_norm = match settings.given("clip_global_norm") {
        Some(_) => maybe(settings, "clip_global_norm", || settings.float("clip_global_norm")),
        None => settings.float("clip_global_norm").map(Some),
    };
    let algo = settings.text("algo")?;
    let approximation = if algo == "flow" { flow(settings) } else { mfa(settings) };
    let whitening = if algo == "flow" { Some(UNUSED_WHITENING) } else { whitening(settings) };
    let (whitening_mode, whitening_decay) = whitening?;
    Some(Algo::Vi(Vi {
        draws: draws?,
        steps: steps?,
        batch_size: batch_size?,
        lr: lr?,
        lr_schedule: lr_schedule?,
        lr_warmup_frac: lr_warmup_frac?,
        clip_global_norm: clip_global_norm?,
        eval_every: eval_every?,
        eval_samples: eval_samples?,
        whitening_mode,
        whitening_decay,
        approximation: approximation?,
    }))
}

/// The value of a key that may be null or absent: `Some(None)`.
fn maybe<T>(settings: &Section, name: &str, read: impl Fn() -> Option<T>) -> Option<Option<T>> {
    if settings.has(name) { read().map(Some) } else { Some(None) }
}

/// What stands in the specification where the scale is not a running one; it is in ids, so it stays when
/// the defaults change.
const UNUSED_WHITENING: (Whitening, f64) = (Whitening::None, 0.99);

fn whitening(settings: &Section) -> Option<(Whitening, f64)> {
    let mode = match settings.text("whitening_mode")?.as_str() {
        "rmsprop" => Whitening::Rmsprop,
        "adam" => Whitening::Adam,
        _ => {
            settings.refuse_idle(&["whitening_decay"], "with `whitening_mode: none`");
            return Some(UNUSED_WHITENING);
        }
    };
    Some((mode, settings.float("whitening_decay")?))
}

fn mfa(settings: &Section) -> Option<Approximation> {
    settings.refuse_idle(
        &["d_latent", "sigma_perp", "flow_depth", "flow_hidden", "flow_type"],
        "with `algo: mfa`",
    );
    let ranks = maybe(settings, "r_per_component", || settings.sizes("r_per_component"));
    let (components, rank) = (settings.auto_size("M"), settings.auto_size("r"));
    let family = settings.text("family").map(|name| match name.as_str() {
        "covariance" => FactorFamily::Covariance,
        _ => FactorFamily::Precision,
    });
    let temperature = settings.float("alpha_temperature");
    let prior = maybe(settings, "alpha_dirichlet_prior", || settings.float("alpha_dirichlet_prior"));
    let entropy_bonus = settings.float("entropy_bonus");
    let r_per_component = ranks?;
    let (components, rank) = match &r_per_component {
        // The list says both; the specification then holds what it amounts to.
        Some(ranks) => {
            settings.refuse_idle(&["M", "r"], "with `r_per_component`");
            (Some(ranks.len()), Some(ranks.iter().copied().max().unwrap_or(0)))
        }
        None => (components?, rank?),
    };
    let weights = (temperature?, prior?, entropy_bonus?);
    let (alpha_temperature, alpha_dirichlet_prior, entropy_bonus) = if components == Some(1) {
        settings.refuse_idle(
            &["alpha_temperature", "alpha_dirichlet_prior", "entropy_bonus"],
            "with one component",
        );
        UNUSED_WEIGHTS
    } else {
        weights
    };
    Some(Approximation::Mfa(Mfa {
        components,
        rank,
        // A list of equal numbers says what M and r say.
        r_per_component: r_per_component.filter(|ranks| ranks.iter().any(|r| Some(*r) != rank)),
        family: family?,
        alpha_temperature,
        alpha_dirichlet_prior,
        entropy_bonus,
    }))
}

/// Temperature, Dirichlet prior and entropy bonus in the specification of a single component, whose weight
/// is 1; in ids, as [`UNUSED_WHITENING`].
const UNUSED_WEIGHTS: (f64, Option<f64>, f64) = (1.0, None, 0.0);

fn flow(settings: &Section) -> Option<Approximation> {
    settings.refuse_idle(
        &[
            "M",
            "r",
            "r_per_component",
            "family",
            "alpha_temperature",
            "alpha_dirichlet_prior",
            "entropy_bonus",
            "whitening_mode",
            "whitening_decay",
        ],
        "with `algo: flow`",
    );
    let flow_hidden = match settings.given("flow_hidden") {
        Some(_) => settings.sizes("flow_hidden"),
        None => Some(WIDTHS.to_vec()),
    };
    let flow_type = settings.text("flow_type").map(|name| match name.as_str() {
        "maf" => FlowType::Maf,
        "nsf_ar" => FlowType::NsfAr,
        _ => FlowType::Realnvp,
    });
    let (d_latent, sigma_perp) = (settings.size("d_latent"), settings.auto_float("sigma_perp"));
    Some(Approximation::Flow(LatentFlow {
        d_latent: d_latent?,
        sigma_perp: sigma_perp?,
        flow_depth: settings.size("flow_depth")?,
        flow_hidden: flow_hidden?,
        flow_type: flow_type?,
    }))
}
