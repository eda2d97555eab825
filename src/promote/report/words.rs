//! Numbers and reasons as the page says them.

use serde_json::Value;

/// What stands for a number that is missing.
pub(super) const NONE: &str = "–";

/// A number with four significant digits.
pub(super) fn number(value: Option<f64>) -> String {
    let Some(value) = value.filter(|v| v.is_finite()) else { return NONE.into() };
    if value == 0.0 {
        return "0".into();
    }
    match value.abs().log10().floor() as i32 {
        exponent @ -4..=5 => format!("{value:.*}", (3 - exponent).max(0) as usize).replace('-', "−"),
        _ => scientific(value),
    }
}

/// `4.828×10⁶`
fn scientific(value: f64) -> String {
    let text = format!("{value:.3e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let raised = |c: char| match c {
        '-' => '⁻',
        c => c.to_digit(10).and_then(|d| "⁰¹²³⁴⁵⁶⁷⁸⁹".chars().nth(d as usize)).unwrap_or(c),
    };
    format!("{}×10{}", digits.replace('-', "−"), exponent.chars().map(raised).collect::<String>())
}

/// A value with the digits that its error leaves it: two significant ones of the error.
pub(super) fn with_error(value: Option<f64>, error: Option<f64>) -> String {
    match (value, error.filter(|e| e.is_finite() && *e > 0.0)) {
        (Some(value), Some(error)) => {
            let digits = digits_of(error);
            format!("{value:.digits$} ± {error:.digits$}").replace('-', "−")
        }
        (value, _) => number(value),
    }
}

/// Digits after the point that show two significant ones of `error`.
fn digits_of(error: f64) -> usize {
    (1 - error.log10().floor() as i32).clamp(0, 9) as usize
}

/// An interval, with the digits of the estimate's error.
pub(super) fn interval(low: Option<f64>, high: Option<f64>, error: Option<f64>) -> String {
    match (low, high, error.filter(|e| e.is_finite() && *e > 0.0)) {
        (Some(low), Some(high), Some(error)) => {
            let digits = digits_of(error);
            format!("{low:.digits$} … {high:.digits$}").replace('-', "−")
        }
        (Some(low), Some(high), None) => format!("{} … {}", number(Some(low)), number(Some(high))),
        _ => NONE.into(),
    }
}

/// Whole numbers, such as effective sample sizes.
pub(super) fn whole(value: Option<f64>) -> String {
    match value.filter(|v| v.is_finite()) {
        Some(value) if value.abs() < 1e6 => format!("{value:.0}"),
        other => number(other),
    }
}

/// A span of time.
pub(super) fn seconds(value: Option<f64>) -> String {
    match value.filter(|v| v.is_finite()) {
        None => NONE.into(),
        Some(s) if s < 0.1 => format!("{:.0} ms", s * 1e3),
        Some(s) if s < 100.0 => format!("{s:.1} s"),
        Some(s) if s < 6000.0 => format!("{:.0} min", s / 60.0),
        Some(s) if s < 360_000.0 => format!("{:.1} h", s / 3600.0),
        Some(s) => format!("{:.1} days", s / 86_400.0),
    }
}

/// `1 run`, `2 runs`
pub(super) fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// A value of a configuration on one line.
pub(super) fn setting(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "none".into(),
        other => other.to_string(),
    }
}

/// What a reason of a verdict means, for somebody who does not know its words.
pub(super) fn meaning(reason: &str) -> &'static str {
    const MEANINGS: [(&str, &str); 15] = [
        ("R-hat", "the chains have not come to agree: draw more, or look at the trace"),
        ("bulk ESS", "too few independent draws for the mean and its error: draw more"),
        ("tail ESS", "too few independent draws in the tails for the interval: draw more"),
        ("drift", "the estimate still moves from the first half to the second: lengthen the warmup"),
        ("E-BFMI", "momentum is renewed too weakly to reach all energies: tails may be missed"),
        ("divergences", "the integrator failed in places: take smaller steps"),
        (
            "size of the predicted bias",
            "the step is so large that it shifts the estimate: take smaller steps",
        ),
        (
            "error of the control chain",
            "the check with half the step is too noisy to rule out a bias of the step size: draw more",
        ),
        ("no control chain", "whether the step size biases the estimate was not checked"),
        ("control chain", "with half the step the estimate is another: take smaller steps"),
        ("not finite", "some draws are no numbers: the chain left the region where the loss is defined"),
        ("no llc draws", "nothing was drawn"),
        ("chain", "one chain cannot be compared with others: run at least 2"),
        ("diverged", "the integrator failed in places: take smaller steps"),
        ("bias", "how far the method itself is off cannot be told"),
    ];
    MEANINGS.iter().find(|(word, _)| reason.contains(word)).map_or("", |(_, meaning)| meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_they_deserve() {
        assert_eq!(with_error(Some(4.638_12), Some(0.0684)), "4.638 ± 0.068");
        assert_eq!(with_error(Some(-4.6), Some(12.3)), "−5 ± 12");
        assert_eq!(interval(Some(1.2), Some(1.4), Some(0.05)), "1.200 … 1.400");
        let said = [238_734.0, 4.828_4e6, 1.2e-9, 0.0, -2.5].map(|x| number(Some(x)));
        assert_eq!(said, ["238734", "4.828×10⁶", "1.200×10⁻⁹", "0", "−2.500"]);
        assert_eq!([number(None), number(Some(f64::NAN)), whole(None), seconds(None)], [NONE; 4]);
    }
}
