//! From numbers to places on an axis, and the ticks that say so.

/// Values beyond this are drawn as if they were not finite: twice their difference must exist.
pub(super) const LARGEST: f64 = 1e300;
/// Values below this count as 0: powers of ten near them lose digits.
const SMALLEST: f64 = 1e-290;
/// Differences below this share of the values are no range: a tick would need nine digits.
const LEAST_RANGE: f64 = 1e-7;

/// Whether a value can be placed on an axis.
pub(super) fn is_drawable(x: f64) -> bool {
    x.abs() <= LARGEST
}

/// Whether a logarithmic axis can place a value.
pub(super) fn is_positive(x: f64) -> bool {
    is_drawable(x) && x > SMALLEST
}

/// A range of values along an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    pub lo: f64,
    pub hi: f64,
    pub log: bool,
}

/// One labelled tick.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tick {
    pub value: f64,
    pub label: String,
}

/// The ticks of an axis.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Ticks {
    pub major: Vec<Tick>,
    pub minor: Vec<f64>,
    /// `×10ⁿ`, where labels are to be multiplied by it.
    pub factor: Option<String>,
}

impl Scale {
    /// From `lo` to `hi` as they are.
    pub fn linear(lo: f64, hi: f64) -> Self {
        let (lo, hi) = widen(lo, hi);
        Self { lo, hi, log: false }
    }

    /// Around all drawable values, `margin` of the range wider on both sides; [0, 1] where there is none.
    pub fn around(values: impl Iterator<Item = f64>, margin: f64) -> Self {
        let (lo, hi) = extent(values.filter(|&x| is_drawable(x))).unwrap_or((0.0, 1.0));
        let (lo, hi) = widen(lo, hi);
        let pad = (hi - lo) * margin;
        Self { lo: lo - pad, hi: hi + pad, log: false }
    }

    /// Logarithmic around all positive values; [1, 10] where there is none.
    pub fn log_around(values: impl Iterator<Item = f64>, margin: f64) -> Self {
        let (lo, hi) = extent(values.filter(|&x| is_positive(x))).unwrap_or((1.0, 10.0));
        let (a, b) = (libm::log10(lo), libm::log10(hi));
        let pad = if b - a < 0.02 { 0.3 } else { (b - a) * margin };
        let (a, b) = ((a - pad).max(-300.0), (b + pad).min(300.1));
        Self { lo: libm::pow(10.0, a), hi: libm::pow(10.0, b), log: true }
    }

    /// Where `x` is, 0 at `lo` and 1 at `hi`; NaN for what cannot be placed.
    pub fn place(&self, x: f64) -> f64 {
        // An axis, and with it a tick, may reach a little beyond the largest value.
        if x.is_nan() || x.abs() > 1.5 * LARGEST {
            return f64::NAN;
        }
        if !self.log {
            return (x - self.lo) / (self.hi - self.lo);
        }
        if x <= 0.0 {
            return f64::NAN;
        }
        let (a, b) = (libm::log10(self.lo), libm::log10(self.hi));
        (libm::log10(x) - a) / (b - a)
    }

    /// About `count` ticks at 1, 2 or 5 times a power of ten.
    pub fn ticks(&self, count: usize) -> Ticks {
        if self.log { log_ticks(self.lo, self.hi, count) } else { linear_ticks(self.lo, self.hi, count) }
    }
}

/// Smallest and largest, `None` of nothing.
pub(super) fn extent(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |range, x| match range {
        None => Some((x, x)),
        Some((lo, hi)) => Some((lo.min(x), hi.max(x))),
    })
}

/// A range that ticks can be put on: ordered, and not narrower than its values' digits allow.
fn widen(lo: f64, hi: f64) -> (f64, f64) {
    let limit = |x: f64| if is_drawable(x) { x } else { LARGEST.copysign(x) };
    let (lo, hi) = (limit(lo.min(hi)), limit(lo.max(hi)));
    let size = lo.abs().max(hi.abs());
    if size < SMALLEST {
        return (-1.0, 1.0);
    }
    if hi - lo > LEAST_RANGE * size {
        return (lo, hi);
    }
    let (middle, pad) = (lo + (hi - lo) / 2.0, 0.05 * size);
    (middle - pad, middle + pad)
}

/// 10ⁿ, rounded correctly.
fn power_of_ten(n: i32) -> f64 {
    format!("1e{n}").parse().unwrap_or(f64::NAN)
}

fn exponent(x: f64) -> i32 {
    libm::floor(libm::log10(x) + 1e-9) as i32
}

fn linear_ticks(lo: f64, hi: f64, count: usize) -> Ticks {
    let raw = (hi - lo) / count.max(1) as f64;
    if !(raw.is_finite() && raw > 0.0) {
        return Ticks::default();
    }
    let mut e = exponent(raw);
    let m = match raw / power_of_ten(e) {
        r if r < 1.5 => 1,
        r if r < 3.5 => 2,
        r if r < 7.5 => 5,
        _ => {
            e += 1;
            1
        }
    };
    let step = f64::from(m) * power_of_ten(e);
    let (first, last) = (libm::ceil(lo / step - 1e-9) as i64, libm::floor(hi / step + 1e-9) as i64);
    let last = last.min(first.saturating_add(40));
    let largest = first.unsigned_abs().max(last.unsigned_abs()) as f64 * step;
    let top = if largest > 0.0 { exponent(largest) } else { 0 };
    let factor = if top >= 6 || top <= -4 { top } else { 0 };
    let major = (first..=last)
        .map(|k| Tick { value: k as f64 * step, label: decimal(k * i64::from(m), e - factor) })
        .collect();
    Ticks { major, minor: Vec::new(), factor: (factor != 0).then(|| format!("×10{}", superscript(factor))) }
}

fn log_ticks(lo: f64, hi: f64, count: usize) -> Ticks {
    let decades = libm::log10(hi) - libm::log10(lo);
    let inside = |x: f64| x >= lo * (1.0 - 1e-9) && x <= hi * (1.0 + 1e-9);
    let (first, last) = (exponent(lo), exponent(hi) + 1);
    if decades < 1.5 {
        // Every third of a decade, or as on a linear axis where not even two of those are inside.
        let mut major = Vec::new();
        for (e, m) in (first..=last).flat_map(|e| [1, 2, 5].map(|m| (e, m))) {
            let value = f64::from(m) * power_of_ten(e);
            if inside(value) {
                let label = if (-4..6).contains(&e) { decimal(m.into(), e) } else { scientific(m, e) };
                major.push(Tick { value, label });
            }
        }
        return if major.len() < 2 {
            linear_ticks(lo, hi, count)
        } else {
            Ticks { major, ..Ticks::default() }
        };
    }
    let stride = (decades / count.max(2) as f64).ceil().max(1.0) as i32;
    let plain = first >= -3 && last <= 5;
    let mut ticks = Ticks::default();
    for e in first..=last {
        let value = power_of_ten(e);
        if inside(value) && e.rem_euclid(stride) == 0 {
            ticks.major.push(Tick { value, label: if plain { decimal(1, e) } else { scientific(1, e) } });
        }
        if stride == 1 {
            ticks.minor.extend((2..10).map(|m| f64::from(m) * value).filter(|&x| inside(x)));
        }
    }
    ticks
}

/// m·10ⁿ as text: `2×10⁻³`, `10⁻³`.
fn scientific(m: i32, n: i32) -> String {
    if m == 1 { format!("10{}", superscript(n)) } else { format!("{m}×10{}", superscript(n)) }
}

/// `digits`·10ⁿ written out, with commas in thousands.
fn decimal(digits: i64, n: i32) -> String {
    let sign = if digits < 0 { "−" } else { "" };
    if digits == 0 {
        return "0".into();
    }
    let mut text = digits.unsigned_abs().to_string();
    let mut fraction = String::new();
    if n >= 0 {
        text.extend(std::iter::repeat_n('0', n as usize));
    } else {
        let places = n.unsigned_abs() as usize;
        while text.len() <= places {
            text.insert(0, '0');
        }
        fraction = text.split_off(text.len() - places);
    }
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{}{point}{fraction}", thousands(&text))
}

fn thousands(digits: &str) -> String {
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// A whole number with commas.
pub(super) fn whole(n: usize) -> String {
    thousands(&n.to_string())
}

/// `n` in raised digits.
fn superscript(n: i32) -> String {
    const RAISED: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    let digits = n.unsigned_abs().to_string();
    let sign = if n < 0 { "⁻" } else { "" };
    let raised = digits.bytes().map(|d| RAISED[usize::from(d - b'0')]);
    sign.chars().chain(raised).collect()
}

/// `x` to `figures` significant figures, as a reader would write it: `0.0123`, `12,300`, `1.2×10⁻⁷`.
pub(super) fn figures(x: f64, figures: usize) -> String {
    if !x.is_finite() {
        return if x.is_nan() {
            "undefined".into()
        } else if x > 0.0 {
            "∞".into()
        } else {
            "−∞".into()
        };
    }
    if x == 0.0 {
        return "0".into();
    }
    let text = format!("{:.*e}", figures.max(1) - 1, x.abs());
    let (mantissa, e) = text.split_once('e').unwrap_or((&text, "0"));
    let e: i32 = e.parse().unwrap_or(0);
    let sign = if x < 0.0 { "−" } else { "" };
    if (-4..6).contains(&e) {
        let places = (figures as i32 - 1 - e).max(0) as usize;
        let text = format!("{:.*}", places, x.abs());
        let (before, after) = text.split_once('.').unwrap_or((&text, ""));
        let point = if after.is_empty() { "" } else { "." };
        format!("{sign}{}{point}{after}", thousands(before))
    } else {
        format!("{sign}{mantissa}×10{}", superscript(e))
    }
}

/// `mean ± error`, both to the second figure of the error.
pub fn with_error(mean: f64, error: f64) -> String {
    if !(mean.is_finite() && error.is_finite() && error > 0.0 && mean != 0.0) {
        return format!("{} ± {}", figures(mean, 4), figures(error, 2));
    }
    let spread = exponent(mean.abs()) - exponent(error);
    let digits = (spread + 2).clamp(2, 8) as usize;
    format!("{} ± {}", figures(mean, digits), figures(error, 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(ticks: &Ticks) -> Vec<&str> {
        ticks.major.iter().map(|t| t.label.as_str()).collect()
    }

    #[test]
    fn ticks_are_round_numbers() {
        for (lo, hi, count, expected, factor) in [
            (0.0, 1000.0, 5, "0 200 400 600 800 1,000", None),
            (-1.2, 1.3, 5, "−1.0 −0.5 0 0.5 1.0", None),
            (11.98, 12.07, 4, "11.98 12.00 12.02 12.04 12.06", None),
            (0.0, 3e7, 4, "0 1 2 3", Some("×10⁷")),
            (-2e-7, 9e-7, 4, "−2 0 2 4 6 8", Some("×10⁻⁷")),
            (1.0e300, 9.0e300, 4, "2 4 6 8", Some("×10³⁰⁰")),
        ] {
            let ticks = Scale { lo, hi, log: false }.ticks(count);
            assert_eq!(labels(&ticks).join(" "), expected, "{lo} to {hi}");
            assert_eq!(ticks.factor.as_deref(), factor);
        }
    }

    #[test]
    fn log_ticks_are_decades_or_their_thirds() {
        for (lo, hi, expected) in [
            (1.0, 1000.0, "1 10 100 1,000"),
            (150.0, 3000.0, "200 500 1,000 2,000"),
            (1e-9, 1e3, "10⁻⁸ 10⁻⁶ 10⁻⁴ 10⁻² 10⁰ 10²"),
            (1.1e7, 6e7, "2×10⁷ 5×10⁷"),
            (3.1, 3.9, "3.1 3.2 3.3 3.4 3.5 3.6 3.7 3.8 3.9"),
        ] {
            let ticks = Scale { lo, hi, log: true }.ticks(6);
            assert_eq!(labels(&ticks).join(" "), expected, "{lo} to {hi}");
        }
    }

    #[test]
    fn ranges_without_extent_are_opened() {
        assert_eq!(Scale::around([3.0, 3.0].into_iter(), 0.0), Scale::linear(2.85, 3.15));
        assert_eq!(Scale::around([0.0].into_iter(), 0.0), Scale::linear(-1.0, 1.0));
        assert_eq!(Scale::around([f64::NAN, f64::INFINITY].into_iter(), 0.0), Scale::linear(0.0, 1.0));
        assert_eq!(Scale::around([-1e300, 1e300].into_iter(), 0.0).place(0.0), 0.5);
        assert!(Scale::log_around([-1.0, 10.0].into_iter(), 0.0).place(-1.0).is_nan());
    }

    #[test]
    fn numbers_read_as_written() {
        for (x, n, expected) in [
            (0.012345, 3, "0.0123"),
            (12345.6, 3, "12,346"),
            (-1.5e-7, 2, "−1.5×10⁻⁷"),
            (9.9996, 4, "10.00"),
            (f64::NAN, 3, "undefined"),
        ] {
            assert_eq!(figures(x, n), expected);
        }
        assert_eq!(with_error(12.3456, 0.0123), "12.346 ± 0.012");
        assert_eq!(with_error(0.5, 2.0), "0.50 ± 2.0");
    }
}
