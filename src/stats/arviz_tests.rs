//! Agreement with ArviZ 0.23.4 and NumPy on the traces of `tests/data/stats/arviz.tsv`.
//!
//! The script beside that file makes each trace from a formula and stores ArviZ's answers; here
//! the same formula makes the same bits again.

use super::*;

const REFERENCE: &str = include_str!("../../tests/data/stats/arviz.tsv");

/// The generator of Steele, Lea & Flood 2014, as in the script.
struct SplitMix64(u64);

impl SplitMix64 {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 * (-53f64).exp2()
    }

    fn bell(&mut self) -> f64 {
        (0..12).fold(0.0, |total, _| total + self.uniform()) - 6.0
    }
}

fn chain(kind: &str, c: usize, draws: usize, a: f64, b: f64, rng: &mut SplitMix64) -> Vec<f64> {
    let (mut x, mut state) = (0.0f64, 0.0f64);
    let mut mode = if c.is_multiple_of(2) { 1.0 } else { -1.0 };
    let next = |i: usize| {
        let e = rng.bell();
        let u = 1.0 - rng.uniform();
        let is_chain = |index: f64| c as f64 == index;
        let is_draw = |index: f64| i as f64 == index;
        x = match kind {
            "constant" => a,
            "stuck" => a + b * c as f64,
            "scaled" => a + b * e,
            "ar1" => a * x + e,
            "squared_ar1" => {
                state = a * state + e;
                state * state
            }
            "ar2" => {
                let next = a * x + b * state + e;
                state = x;
                next
            }
            "alternating" => (if i.is_multiple_of(2) { 1.0 } else { -1.0 }) + b * e,
            "periodic" => (i % a as usize) as f64 + b * e,
            "cauchy" => (1.0 / u - 1.0) * (if e > 0.0 { 1.0 } else { -1.0 }),
            "pareto" => 1.0 / u / u / u,
            "trend" => a * i as f64 + e,
            "step" => (if i >= draws / 2 { a } else { 0.0 }) + b * e,
            "shifted_last" => e + (if is_chain(b) { a } else { 0.0 }),
            "scaled_first" => e * (if c == 0 { a } else { 1.0 }),
            "stuck_first" => {
                if c == 0 {
                    a
                } else {
                    e
                }
            }
            "rounded" => (a * e).trunc(),
            "rejecting" => {
                if i == 0 || u > a {
                    e
                } else {
                    x
                }
            }
            "spike" => f64::from(is_draw(a)),
            "spike_first" => f64::from(is_draw(a) && c == 0),
            "bimodal" => {
                if u < a {
                    mode = -mode;
                }
                b * mode + e
            }
            "binary" => f64::from(u < a),
            "poisoned" => {
                if i == draws / 3 && is_chain(b) {
                    a
                } else {
                    e
                }
            }
            "inner_noise" => a + b * f64::from(e > 0.0),
            other => panic!("the reference file names an unknown kind of trace: {other}"),
        };
        x
    };
    (0..draws).map(next).collect()
}

/// Of `mcse_sd`: as [`agrees`], or apart by what rounding makes of mean s² − (mean s)², which cancels
/// where all draws are at nearly one distance from the mean.
fn agrees_but_for_cancellation(ours: f64, theirs: f64, spread: f64, size: f64) -> bool {
    let noise = 16.0 * f64::EPSILON * spread * spread / (4.0 * size);
    let square = |x: f64| if x.is_nan() { 0.0 } else { x * x };
    agrees(ours, theirs, 0.0) || (square(ours) - square(theirs)).abs() <= noise
}

/// Equal to 1e-8 of the larger of the value and its natural `scale`, or both undefined.
fn agrees(ours: f64, theirs: f64, scale: f64) -> bool {
    const TOLERANCE: f64 = 1e-8;
    if theirs.is_nan() || ours.is_nan() {
        return theirs.is_nan() && ours.is_nan();
    }
    ours == theirs || (ours - theirs).abs() <= TOLERANCE * theirs.abs().max(scale)
}

#[test]
fn every_statistic_equals_arviz() {
    let mut lines = REFERENCE.lines();
    let names: Vec<&str> = lines.next().unwrap().split('\t').skip(7).collect();
    let mut wrong = Vec::new();
    let mut count = 0;
    for line in lines {
        let fields: Vec<&str> = line.split('\t').collect();
        let number = |i: usize| fields[i].parse::<f64>().unwrap();
        let (chains, draws) = (number(1) as usize, number(2) as usize);
        let mut rng = SplitMix64(number(3) as u64);
        let trace: Vec<Vec<f64>> =
            (0..chains).map(|c| chain(fields[0], c, draws, number(4), number(5), &mut rng)).collect();
        let rows: Vec<&[f64]> = trace.iter().map(Vec::as_slice).collect();
        let all = trace.concat();
        let checksum: f64 = all.iter().fold(0.0, |total, x| total + x);
        assert!(
            checksum == number(6) || checksum.is_nan() && number(6).is_nan(),
            "the trace differs from the script's: {line}"
        );

        let rho = autocorrelation(&trace[0]);
        let spread = sd(&all);
        let scale = if spread.is_finite() { spread } else { 0.0 };
        // Means and quantiles may be near 0 against the spread; correlations are of order 1.
        let ours = [
            (mean(&all), scale),
            (spread, 0.0),
            (quantile(&all, 0.05), scale),
            (quantile(&all, 0.5), scale),
            (quantile(&all, 0.9), scale),
            (ess_mean(&rows), 0.0),
            (ess_bulk(&rows), 0.0),
            (ess_tail(&rows), 0.0),
            (ess_quantile(&rows, 0.3), 0.0),
            (ess_sd(&rows), 0.0),
            (r_hat(&rows), 0.0),
            (mcse_mean(&rows), 0.0),
            (e_bfmi(&trace[0]), 0.0),
            (rho.get(1).copied().unwrap_or(f64::NAN), 1.0),
            (rho[draws / 3], 1.0),
            (mcse_sd(&rows), 0.0),
            (mcse_quantile(&rows, 0.05), 0.0),
            (mcse_quantile(&rows, 0.5), 0.0),
            (mcse_quantile(&rows, 0.9), 0.0),
        ];
        for ((name, (value, scale)), i) in names.iter().zip(ours).zip(7..) {
            let theirs = number(i);
            // Chains that differ while none moves: the within-chain variance of the scores is zero
            // or what rounding left, and R-hat is infinite or beyond any use.
            let meaningless = *name == "r_hat" && value > 1e7 && theirs > 1e7;
            let cancels =
                *name == "mcse_sd" && agrees_but_for_cancellation(value, theirs, spread, ess_sd(&rows));
            if !meaningless && !cancels && !agrees(value, theirs, scale) {
                wrong.push(format!("{name} {value:e} against {theirs:e}: {}", fields[..6].join(" ")));
            }
        }
        count += 1;
    }
    assert!(count >= 260, "{count} traces");
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
