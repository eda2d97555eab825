//! When an estimate is to be believed, and the reasons when it is not.

use serde::{Deserialize, Serialize};

/// Whether a run's estimate may be taken as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every check passed.
    Ok,
    /// Some check failed or could not be made; the reasons say which.
    Check,
}

impl Verdict {
    /// `"ok"` or `"check"`, as files and tables spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Check => "check",
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// Fewest chains that can disagree.
const MIN_CHAINS: usize = 2;
/// Largest R-hat, smallest bulk and tail ESS: Vehtari et al. 2021, section 4.
pub(super) const MAX_R_HAT: f64 = 1.01;
pub(super) const MIN_ESS: f64 = 400.0;
/// Smallest E-BFMI: Betancourt 2016 and Stan's practice.
pub(super) const MIN_E_BFMI: f64 = 0.3;
/// Largest share of divergent draws.
pub const MAX_DIVERGENT: f64 = 1e-3;
/// Where drift between halves, in joint standard errors, begins.
const DRIFT_Z: f64 = 3.0;
/// A predicted bias must stay below this share of the estimate, or below its standard error.
const MAX_RELATIVE_BIAS: f64 = 0.02;
/// Largest distance to the control chain in joint standard errors.
const MAX_CONTROL_Z: f64 = 3.0;

/// The same for a sampler with a step-size bias, where the control chain is all that shows it on a
/// singular posterior: one `ok` in twenty is given up for it.
const MAX_BIASED_CONTROL_Z: f64 = 2.0;
/// A control chain that is to show the step's bias must agree to within this share of the estimate: a
/// bias of 5 %, of which half is left at half the step, is then two of its errors away.
const MAX_CONTROL_ERROR: f64 = 0.0125;

/// What the verdict rests on. NaN stands for what could not be computed.
#[derive(Clone, Debug)]
pub(super) struct Evidence {
    pub chains: usize,
    /// Draws of all chains together, and how many of them are NaN or infinite.
    pub draws: usize,
    pub not_finite: usize,
    pub mean: f64,
    pub mcse: f64,
    pub r_hat: f64,
    pub ess_bulk: f64,
    pub ess_tail: f64,
    /// Smallest over the chains; `None` for a sampler without an energy.
    pub e_bfmi: Option<f64>,
    /// `None` for a sampler that cannot diverge.
    pub divergences: Option<u64>,
    /// Difference of the halves' means in joint standard errors.
    pub drift_z: f64,
    /// Predicted bias of the mean; `None` where nobody knows.
    pub bias: Option<f64>,
    pub unknown_bias: &'static str,
    pub control: Control,
}

/// The short chain at half the step.
#[derive(Clone, Copy, Debug)]
pub(super) enum Control {
    NotNeeded,
    Missing,
    Ran {
        mean: f64,
        mcse: f64,
        /// Whether its error must be small enough to tell a bias that matters.
        must_be_precise: bool,
    },
}

/// Everything that speaks against the estimate, a short sentence each; none means `ok`.
///
/// Comparisons are written so that NaN fails them.
pub(super) fn objections(e: &Evidence) -> Vec<String> {
    let mut said = Vec::new();
    let mut object = |holds: bool, reason: &dyn Fn() -> String| {
        if !holds {
            said.push(reason());
        }
    };
    object(e.chains >= MIN_CHAINS, &|| {
        format!("{} chain{} < {MIN_CHAINS}", e.chains, if e.chains == 1 { "" } else { "s" })
    });
    if e.draws == 0 {
        object(false, &|| "no llc draws".into());
    } else if e.not_finite > 0 {
        object(false, &|| format!("llc is not finite in {} of {} draws", e.not_finite, e.draws));
    } else {
        if e.chains >= MIN_CHAINS {
            object(e.r_hat <= MAX_R_HAT, &|| compare("R-hat", e.r_hat, ">", MAX_R_HAT));
        }
        object(e.ess_bulk >= MIN_ESS, &|| compare("bulk ESS", e.ess_bulk, "<", MIN_ESS));
        object(e.ess_tail >= MIN_ESS, &|| compare("tail ESS", e.ess_tail, "<", MIN_ESS));
        let drift_z = e.drift_z.abs();
        object(drift_z < DRIFT_Z, &|| compare("drift between halves: z", drift_z, ">=", DRIFT_Z));
    }
    if let Some(e_bfmi) = e.e_bfmi {
        object(e_bfmi >= MIN_E_BFMI, &|| compare("E-BFMI", e_bfmi, "<", MIN_E_BFMI));
    }
    if let Some(divergences) = e.divergences {
        object(divergences as f64 <= MAX_DIVERGENT * e.draws as f64, &|| {
            format!("{divergences} divergences in {} draws > {} %", e.draws, 100.0 * MAX_DIVERGENT)
        });
    }
    match e.bias {
        None => object(false, &|| e.unknown_bias.into()),
        Some(bias) if bias != 0.0 => {
            let allowed = e.mcse.max(MAX_RELATIVE_BIAS * e.mean.abs());
            object(bias.abs() < allowed, &|| {
                compare("size of the predicted bias", bias.abs(), ">=", allowed)
            });
        }
        Some(_) => {}
    }
    match e.control {
        Control::NotNeeded => {}
        Control::Missing => object(false, &|| "no control chain at half the step".into()),
        Control::Ran { mean, mcse, must_be_precise } => {
            let joint = (mcse * mcse + e.mcse * e.mcse).sqrt();
            let z = (mean - e.mean).abs() / joint;
            let most = if must_be_precise { MAX_BIASED_CONTROL_Z } else { MAX_CONTROL_Z };
            object(z <= most, &|| {
                let what = format!("control chain at half the step has llc {}: z", shown(mean));
                compare(&what, z, ">", most)
            });
            let limit = MAX_CONTROL_ERROR * e.mean.abs();
            object(!must_be_precise || z > most || joint <= limit, &|| {
                compare("error of the control chain at half the step", joint, ">", limit)
            });
        }
    }
    said
}

/// "R-hat 1.034 > 1.01", or "R-hat undefined".
fn compare(what: &str, value: f64, relation: &str, limit: f64) -> String {
    if value.is_nan() {
        format!("{what} undefined")
    } else {
        format!("{what} {} {relation} {}", shown(value), shown(limit))
    }
}

/// Four significant digits.
fn shown(x: f64) -> String {
    let rounded = format!("{x:.3e}").parse().unwrap_or(x);
    if rounded != 0.0 && !(1e-4..1e7).contains(&f64::abs(rounded)) {
        format!("{rounded:e}")
    } else {
        format!("{rounded}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Evidence {
        Evidence {
            chains: 4,
            draws: 4000,
            not_finite: 0,
            mean: 2.0,
            mcse: 0.01,
            r_hat: 1.002,
            ess_bulk: 2000.0,
            ess_tail: 1500.0,
            e_bfmi: Some(1.1),
            divergences: Some(0),
            drift_z: 0.7,
            bias: Some(0.0),
            unknown_bias: "step-size bias not assessed",
            control: Control::Ran { mean: 2.02, mcse: 0.03, must_be_precise: false },
        }
    }

    #[test]
    fn good_evidence_meets_no_objection() {
        assert!(objections(&good()).is_empty());
        let plain = Evidence { e_bfmi: None, divergences: None, control: Control::NotNeeded, ..good() };
        assert!(objections(&plain).is_empty());
    }

    #[test]
    fn every_clause_holds_at_its_limit_and_objects_beyond() {
        type Change = fn(&mut Evidence);
        let at = |change: Change| {
            let mut evidence = good();
            change(&mut evidence);
            objections(&evidence)
        };
        let limits: [Change; 10] = [
            |e| e.chains = 2,
            |e| e.r_hat = 1.01,
            |e| e.ess_bulk = 400.0,
            |e| e.ess_tail = 400.0,
            |e| e.e_bfmi = Some(0.3),
            |e| e.divergences = Some(4),
            |e| e.drift_z = -2.999,
            |e| e.bias = Some(-0.0399),
            // Where the standard error is the larger allowance.
            |e| (e.mcse, e.bias) = (0.1, Some(0.0999)),
            |e| {
                (e.mcse, e.control) = (0.03, Control::Ran { mean: 2.149, mcse: 0.04, must_be_precise: false })
            },
        ];
        for (i, limit) in limits.into_iter().enumerate() {
            assert_eq!(at(limit), Vec::<String>::new(), "clause {i}");
        }
        let beyond: [(Change, &str); 22] = [
            (|e| e.chains = 1, "1 chain < 2"),
            (|e| (e.chains, e.draws, e.divergences) = (0, 0, None), "0 chains < 2; no llc draws"),
            (|e| e.not_finite = 3, "llc is not finite in 3 of 4000 draws"),
            (|e| e.r_hat = 1.034, "R-hat 1.034 > 1.01"),
            (|e| e.r_hat = f64::INFINITY, "R-hat inf > 1.01"),
            (|e| e.r_hat = f64::NAN, "R-hat undefined"),
            (|e| e.ess_bulk = 212.34, "bulk ESS 212.3 < 400"),
            (|e| e.ess_tail = 399.0, "tail ESS 399 < 400"),
            (|e| e.ess_tail = f64::NAN, "tail ESS undefined"),
            (|e| e.e_bfmi = Some(0.2), "E-BFMI 0.2 < 0.3"),
            (|e| e.e_bfmi = Some(f64::NAN), "E-BFMI undefined"),
            (|e| e.divergences = Some(5), "5 divergences in 4000 draws > 0.1 %"),
            (|e| e.drift_z = 3.0, "drift between halves: z 3 >= 3"),
            (|e| e.drift_z = -4.567_89, "drift between halves: z 4.568 >= 3"),
            (|e| e.drift_z = f64::NAN, "drift between halves: z undefined"),
            (|e| e.bias = Some(-0.05), "size of the predicted bias 0.05 >= 0.04"),
            (|e| e.bias = Some(f64::NAN), "size of the predicted bias undefined"),
            (|e| e.bias = None, "step-size bias not assessed"),
            (|e| e.control = Control::Missing, "no control chain at half the step"),
            (
                |e| {
                    (e.mcse, e.control) =
                        (0.03, Control::Ran { mean: 2.2, mcse: 0.04, must_be_precise: false })
                },
                "control chain at half the step has llc 2.2: z 4 > 3",
            ),
            (
                |e| e.control = Control::Ran { mean: 2.02, mcse: 0.03, must_be_precise: true },
                "error of the control chain at half the step 0.03162 > 0.025",
            ),
            (
                |e| e.control = Control::Ran { mean: f64::NAN, mcse: 0.04, must_be_precise: false },
                "control chain at half the step has llc NaN: z undefined",
            ),
        ];
        for (change, reason) in beyond {
            assert_eq!(at(change).join("; "), reason);
        }
    }

    #[test]
    fn numbers_are_shown_in_four_digits() {
        for (x, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (1.010_44, "1.01"),
            (-0.031_256, "-0.03126"),
            (123_456.0, "123500"),
            (1.234_56e-9, "1.235e-9"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(shown(x), text);
        }
    }
}
