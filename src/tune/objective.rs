//! What a trial is worth: the values that a study minimises.

use thiserror::Error;

use crate::config::tune::{Cost, Objective, Units};

/// An estimate and its Monte Carlo standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// λ̂
    pub llc: f64,
    /// Its standard error, ≥ 0.
    pub mcse: f64,
}

/// The estimate of a trial's first part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// What it had cost so far, in the objective's unit.
    pub cost: f64,
    /// λ̂ of the draws so far.
    pub llc: f64,
}

/// What a trial found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured<'a> {
    /// Its estimate.
    pub estimate: Estimate,
    /// Its work in full-data gradient evaluations, > 0.
    pub fge: f64,
    /// Its seconds, > 0.
    pub seconds: f64,
    /// Estimates on the way, by ascending cost; may be empty.
    pub way: &'a [Progress],
}

/// Why a trial has no value.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ObjectiveError {
    /// The reference is 0.
    #[error("the reference λ is 0, and an error has no relative size; use the objective `abs`")]
    NoRelativeSize,
    /// No standard error to measure by.
    #[error("neither trial nor reference has a standard error; use `units: llc`")]
    NoStandardError,
}

/// The values of a trial by name, each with its unit.
pub fn names(objective: &Objective) -> Vec<&'static str> {
    let error = |units: Units| match units {
        Units::Llc => "|λ̂ − λ_ref|",
        Units::StandardErrors => "|λ̂ − λ_ref| (standard errors)",
    };
    match *objective {
        Objective::Abs { units } => vec![error(units)],
        Objective::Huber { units: Units::Llc, .. } => vec!["Huber loss of λ̂ − λ_ref"],
        Objective::Huber { .. } => vec!["Huber loss of λ̂ − λ_ref (standard errors)"],
        Objective::Relative => vec!["|λ̂ − λ_ref| / |λ_ref|"],
        Objective::WorkToAccuracy { cost: Cost::Fge, .. } => vec!["FGE to accuracy"],
        Objective::WorkToAccuracy { cost: Cost::Seconds, .. } => vec!["s to accuracy"],
        Objective::Pareto { units, cost: Cost::Fge } => vec![error(units), "work (FGE)"],
        Objective::Pareto { units, cost: Cost::Seconds } => vec![error(units), "time (s)"],
    }
}

/// The values of a trial, one an objective, all to be minimised; e = λ̂ − λ_ref, s = 1 or √(MCSE² + MCSE_ref²).
///
/// * `abs`: |e|/s. `huber`: h(e/s), h(x) = x²/2 up to δ, then δ(|x| − δ/2). `relative`: |e|/|λ_ref|.
/// * `work_to_accuracy`: with a = accuracy·|λ_ref|, the least cost from which on all estimates on the way and
///   the last lie within a. Where the last does not: the trial's cost times (|e|/a)², the work that would
///   do if the error fell like its root.
/// * `pareto`: |e|/s, and the cost.
///
/// # Errors
/// λ_ref is 0 or s is 0 where they divide.
pub fn values(
    objective: &Objective,
    trial: &Measured<'_>,
    reference: Estimate,
) -> Result<Vec<f64>, ObjectiveError> {
    let error = (trial.estimate.llc - reference.llc).abs();
    let in_units = |units: Units| match units {
        Units::Llc => Ok(error),
        Units::StandardErrors => match libm::hypot(trial.estimate.mcse, reference.mcse) {
            s if s > 0.0 => Ok(error / s),
            _ => Err(ObjectiveError::NoStandardError),
        },
    };
    let size = || match reference.llc.abs() {
        0.0 => Err(ObjectiveError::NoRelativeSize),
        size => Ok(size),
    };
    let cost_of = |cost: Cost| match cost {
        Cost::Fge => trial.fge,
        Cost::Seconds => trial.seconds,
    };
    Ok(match *objective {
        Objective::Abs { units } => vec![in_units(units)?],
        Objective::Huber { delta, units } => {
            let x = in_units(units)?;
            vec![if x <= delta { 0.5 * x * x } else { delta * (x - 0.5 * delta) }]
        }
        Objective::Relative => vec![error / size()?],
        Objective::WorkToAccuracy { accuracy, cost } => {
            let bar = accuracy * size()?;
            let total = cost_of(cost);
            if error > bar {
                return Ok(vec![total * (error / bar) * (error / bar)]);
            }
            let outside = |p: &Progress| (p.llc - reference.llc).abs() > bar || p.llc.is_nan();
            let from = trial.way.iter().rposition(outside).map_or(0, |last| last + 1);
            vec![trial.way.get(from).map_or(total, |p| p.cost)]
        }
        Objective::Pareto { units, cost } => vec![in_units(units)?, cost_of(cost)],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_objective_has_the_value_of_its_formula() {
        let reference = Estimate { llc: 2.0, mcse: 0.3 };
        let estimate = Estimate { llc: 2.5, mcse: 0.4 };
        let way = [
            Progress { cost: 10.0, llc: 2.05 },
            Progress { cost: 20.0, llc: 3.0 },
            Progress { cost: 30.0, llc: 1.7 },
            Progress { cost: 40.0, llc: 2.4 },
        ];
        let trial = Measured { estimate, fge: 50.0, seconds: 4.0, way: &way };
        let of = |objective| values(&objective, &trial, reference).unwrap();
        let (llc, errors, fge) = (Units::Llc, Units::StandardErrors, Cost::Fge);
        assert_eq!(of(Objective::Abs { units: llc }), [0.5]);
        assert_eq!(of(Objective::Abs { units: errors }), [1.0]);
        assert_eq!(of(Objective::Huber { delta: 0.4, units: llc }), [0.4 * 0.3]);
        assert_eq!(of(Objective::Huber { delta: 2.0, units: errors }), [0.5]);
        assert_eq!(of(Objective::Relative), [0.25]);
        assert_eq!(of(Objective::Pareto { units: llc, cost: Cost::Seconds }), [0.5, 4.0]);
        // Within 0.6 from the third on; within 0.25 not at the end: (0.5/0.25)² times the work.
        assert_eq!(of(Objective::WorkToAccuracy { accuracy: 0.3, cost: fge }), [30.0]);
        assert_eq!(of(Objective::WorkToAccuracy { accuracy: 0.125, cost: fge }), [200.0]);
        assert_eq!(of(Objective::WorkToAccuracy { accuracy: 0.9, cost: fge }), [10.0]);
        let blind = Measured { way: &[], ..trial };
        let accuracy = Objective::WorkToAccuracy { accuracy: 0.3, cost: fge };
        assert_eq!(values(&accuracy, &blind, reference), Ok(vec![50.0]));
        let nothing = Estimate { llc: 0.0, mcse: 0.3 };
        assert_eq!(values(&Objective::Relative, &trial, nothing), Err(ObjectiveError::NoRelativeSize));
        let sure = Measured { estimate: Estimate { llc: 2.5, mcse: 0.0 }, ..trial };
        assert_eq!(
            values(&Objective::Abs { units: errors }, &sure, Estimate { llc: 2.0, mcse: 0.0 }),
            Err(ObjectiveError::NoStandardError)
        );
    }
}
