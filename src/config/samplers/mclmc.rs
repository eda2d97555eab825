//! Keys of mclmc.

use super::super::algo::{Algo, Integrator, Mclmc};
use super::super::keys::{MAX_COUNT, MAX_DIM, key};
use super::super::section::Section;
use super::super::table::{Default, Key, Kind, Range};
use super::{DRAWS, FEWEST_DRAWS, TARGET_ACCEPTANCE, UNUSED_TARGET_ACCEPTANCE, definition, refuse_endless};

const THIN: Key = key(
    "thin",
    Kind::Auto(&Kind::Int(1, MAX_DIM)),
    Default::Text("auto"),
    "Steps a kept draw; auto: half of L/step_size. The adjusted variant keeps every trajectory's end.",
);
const L: Key = key(
    "L",
    Kind::Auto(&Kind::Float(Range::POSITIVE)),
    Default::Float(1.0),
    "Distance over which the momentum's direction is forgotten; where adaptation starts. auto: √d.",
);
const STEP: Key = key(
    "step_size",
    Kind::Float(Range::POSITIVE),
    Default::Float(0.1),
    "Length of a step; where adaptation starts.",
);
const NUM_STEPS: Key = key(
    "num_steps",
    Kind::Int(0, MAX_COUNT),
    Default::Int(500),
    "What the frac_tune are fractions of (a phase has at least 100 steps); 0: nothing is adapted.",
);
const FRAC_TUNE1: Key = frac(
    "frac_tune1",
    "Phase 1: the step size, by the energy error's variance or the acceptance; 0: skipped.",
);
const FRAC_TUNE2: Key =
    frac("frac_tune2", "Phase 2: the same, while variances are measured for L and the metric; 0: skipped.");
const FRAC_TUNE3: Key = frac(
    "frac_tune3",
    "Phase 3: L, from the autocorrelation; where trajectories are adjusted, more of the step size instead; 0: skipped.",
);
const ENERGY_VAR: Key = key(
    "desired_energy_var",
    Kind::Float(Range::POSITIVE),
    Default::Float(5e-5),
    "Variance of the energy error a step and dimension.",
);
const TRUST: Key = key(
    "trust_in_estimate",
    Kind::Float(Range::POSITIVE),
    Default::Float(1.0),
    "How broadly energy errors are averaged.",
);
const EFFECTIVE: Key = key(
    "num_effective_samples",
    Kind::Float(Range { low: 1.0, ..Range::ANY }),
    Default::Float(150.0),
    "Memory of that average, in steps.",
);
const PRECONDITIONING: Key = key(
    "diagonal_preconditioning",
    Kind::Bool,
    Default::Bool(false),
    "Scale every coordinate by its standard deviation.",
);
const INTEGRATOR: Key = key(
    "integrator",
    Kind::Choice(&["isokinetic_mclachlan", "isokinetic_velocity_verlet"]),
    Default::Text("isokinetic_mclachlan"),
    "Two gradients a step, or one.",
);
const ADJUSTED: Key = key(
    "adjusted",
    Kind::Auto(&Kind::Bool),
    Default::Text("auto"),
    "Accept or reject trajectories, of mean length 0.6·L; auto: below 10 dimensions.",
);

/// `thin: auto` is at most so much.
const MOST_AUTO_THIN: usize = 10_000;

const fn frac(name: &'static str, doc: &'static str) -> Key {
    key(name, Kind::Float(Range::UNIT), Default::Float(0.1), doc)
}

definition! {
    "mclmc",
    "Microcanonical Langevin",
    resolve,
    [
        DRAWS, THIN, L, STEP, NUM_STEPS, FRAC_TUNE1, FRAC_TUNE2, FRAC_TUNE3, ENERGY_VAR, TRUST, EFFECTIVE,
        PRECONDITIONING, INTEGRATOR, ADJUSTED, TARGET_ACCEPTANCE,
    ],
    [
        ("num_samples", "did you mean draws?"),
        ("warmup", "did you mean num_steps? (with frac_tune1, 2 and 3)"),
        ("num_warmup", "did you mean num_steps? (with frac_tune1, 2 and 3)"),
        ("steps", "did you mean draws? (mclmc keeps a draw every `thin` steps)"),
        ("thinning", "did you mean thin?"),
        ("eval_every", "did you mean thin?"),
    ]
}

fn resolve(settings: &Section) -> Option<Algo> {
    let integrator = settings.text("integrator").map(|name| match name.as_str() {
        "isokinetic_velocity_verlet" => Integrator::IsokineticVelocityVerlet,
        _ => Integrator::IsokineticMclachlan,
    });
    let adjusted = settings.auto_bool("adjusted");
    if adjusted == Some(Some(true)) {
        let idle = ["thin", "desired_energy_var", "trust_in_estimate", "num_effective_samples"];
        settings.refuse_idle(&idle, "with `adjusted: true`");
    } else if adjusted == Some(Some(false)) {
        settings.refuse_idle(&["target_acceptance"], "with `adjusted: false`");
    }
    let fracs = ["frac_tune1", "frac_tune2", "frac_tune3"].map(|name| settings.float(name));
    let num_steps = settings.size("num_steps");
    if num_steps == Some(0) {
        let idle = [
            "frac_tune1",
            "frac_tune2",
            "frac_tune3",
            "desired_energy_var",
            "trust_in_estimate",
            "num_effective_samples",
            "diagonal_preconditioning",
            "target_acceptance",
        ];
        settings.refuse_idle(&idle, "with `num_steps: 0`");
    }
    if fracs[1] == Some(0.0) {
        settings.refuse_idle(
            &["diagonal_preconditioning"],
            "with `frac_tune2: 0`, the phase that measures the scales",
        );
    }
    let (draws, thin, l) = (settings.size("draws"), settings.auto_size("thin"), settings.auto_float("L"));
    let floats = ["step_size", "desired_energy_var", "trust_in_estimate", "num_effective_samples"]
        .map(|name| settings.float(name));
    let (preconditioning, target) =
        (settings.bool("diagonal_preconditioning"), settings.float("target_acceptance"));
    let [step_size, desired_energy_var, trust_in_estimate, num_effective_samples] = floats;
    let (draws, thin) = (draws?, thin?);
    if adjusted != Some(Some(true)) {
        refuse_endless(settings, draws, FEWEST_DRAWS, thin.unwrap_or(MOST_AUTO_THIN));
    }
    Some(Algo::Mclmc(without_idle(Mclmc {
        draws,
        thin,
        l: l?,
        step_size: step_size?,
        num_steps: num_steps?,
        frac_tune1: fracs[0]?,
        frac_tune2: fracs[1]?,
        frac_tune3: fracs[2]?,
        desired_energy_var: desired_energy_var?,
        trust_in_estimate: trust_in_estimate?,
        num_effective_samples: num_effective_samples?,
        diagonal_preconditioning: preconditioning?,
        integrator: integrator?,
        adjusted: adjusted?,
        target_acceptance: target?,
    })))
}

/// The settings, those that are not read as constants, so that they tell no two runs apart.
fn without_idle(spec: Mclmc) -> Mclmc {
    let phases = |fracs: &[f64]| spec.num_steps > 0 && fracs.iter().any(|frac| *frac > 0.0);
    let (adjusted, unadjusted) = (spec.adjusted != Some(false), spec.adjusted != Some(true));
    let adapts = phases(&[spec.frac_tune1, spec.frac_tune2, spec.frac_tune3]);
    let adapts_by_energy = unadjusted && phases(&[spec.frac_tune1, spec.frac_tune2]);
    let unused = UNUSED;
    Mclmc {
        thin: if unadjusted { spec.thin } else { unused.thin },
        num_steps: if adapts { spec.num_steps } else { 0 },
        frac_tune1: if adapts { spec.frac_tune1 } else { unused.frac_tune },
        frac_tune2: if adapts { spec.frac_tune2 } else { unused.frac_tune },
        frac_tune3: if adapts { spec.frac_tune3 } else { unused.frac_tune },
        desired_energy_var: if adapts_by_energy { spec.desired_energy_var } else { unused.energy_var },
        trust_in_estimate: if adapts_by_energy { spec.trust_in_estimate } else { unused.trust },
        num_effective_samples: if adapts_by_energy { spec.num_effective_samples } else { unused.effective },
        diagonal_preconditioning: spec.diagonal_preconditioning && phases(&[spec.frac_tune2]),
        target_acceptance: if adjusted && adapts { spec.target_acceptance } else { UNUSED_TARGET_ACCEPTANCE },
        ..spec
    }
}

struct Unused {
    thin: Option<usize>,
    frac_tune: f64,
    energy_var: f64,
    trust: f64,
    effective: f64,
}

/// The preset's values of today; they are in ids, so they stay when the preset changes.
const UNUSED: Unused = Unused { thin: None, frac_tune: 0.1, energy_var: 5e-5, trust: 1.0, effective: 150.0 };
