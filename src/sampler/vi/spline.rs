//! Increasing maps of one number with parameters: affine, and rational-quadratic splines.

/// Bound on the logarithm of an affine map's slope.
const STEEPEST: f64 = 2.0;

/// Parameters of an affine map.
pub const AFFINE: usize = 2;

/// y = x·e^α + t with α bounded by ±2, from raw parameters (t, α's); returns y and ln y' = α.
pub fn affine(raw: &[f64], x: f64) -> (f64, f64) {
    let alpha = STEEPEST * libm::tanh(raw[1] / STEEPEST);
    (x * libm::exp(alpha) + raw[0], alpha)
}

/// From the cotangents of y and ln y' those of the parameters, into `by_raw`, and of x.
pub fn affine_back(raw: &[f64], x: f64, (by_y, by_log): (f64, f64), by_raw: &mut [f64]) -> f64 {
    let tanh = libm::tanh(raw[1] / STEEPEST);
    let slope = libm::exp(STEEPEST * tanh);
    by_raw[0] = by_y;
    by_raw[1] = (by_y * x * slope + by_log) * (1.0 - tanh * tanh);
    by_y * slope
}

/// Bins of a spline.
const BINS: usize = 8;
/// Splines act on [−REACH, REACH]; outside they are the identity.
const REACH: f64 = 4.0;
/// Smallest share of a bin, and smallest slope at a knot.
const NARROWEST: f64 = 1e-3;
const FLATTEST: f64 = 1e-3;
/// Parameters of a spline: widths, heights, slopes at the inner knots.
pub const SPLINE: usize = 3 * BINS - 1;

/// The bin that holds x, with its place, size and slopes.
struct Bin {
    k: usize,
    left: f64,
    width: f64,
    bottom: f64,
    height: f64,
    slopes: [f64; 2],
}

/// Shares of the bins: softmax, none below the narrowest.
fn shares(raw: &[f64]) -> [f64; BINS] {
    let largest = raw.iter().fold(f64::NEG_INFINITY, |m: f64, r| m.max(*r));
    let mut shares = [0.0; BINS];
    shares.iter_mut().zip(raw).for_each(|(s, r)| *s = libm::exp(r - largest));
    let sum: f64 = shares.iter().sum();
    shares.map(|s| NARROWEST + (1.0 - BINS as f64 * NARROWEST) * s / sum)
}

/// Slope at a knot, 1 where the raw parameter is 0.
fn slope(raw: f64) -> f64 {
    let shifted = raw + libm::log(libm::expm1(1.0 - FLATTEST));
    let softplus = if shifted > 30.0 { shifted } else { libm::log1p(libm::exp(shifted)) };
    FLATTEST + softplus
}

fn slope_derivative(raw: f64) -> f64 {
    let shifted = raw + libm::log(libm::expm1(1.0 - FLATTEST));
    1.0 / (1.0 + libm::exp(-shifted))
}

fn find(raw: &[f64], x: f64) -> Bin {
    let (widths, heights) = (shares(&raw[..BINS]), shares(&raw[BINS..2 * BINS]));
    let (mut left, mut bottom, mut k) = (-REACH, -REACH, 0);
    while k + 1 < BINS && x >= left + 2.0 * REACH * widths[k] {
        left += 2.0 * REACH * widths[k];
        bottom += 2.0 * REACH * heights[k];
        k += 1;
    }
    let knot = |j: usize| if j == 0 || j == BINS { 1.0 } else { slope(raw[2 * BINS + j - 1]) };
    Bin {
        k,
        left,
        width: 2.0 * REACH * widths[k],
        bottom,
        height: 2.0 * REACH * heights[k],
        slopes: [knot(k), knot(k + 1)],
    }
}

/// Whether a spline is the identity at x; NaN passes through it too.
fn is_outside(x: f64) -> bool {
    x.abs() >= REACH || x.is_nan()
}

/// Monotone rational-quadratic spline (Gregory & Delbourgo 1982; Durkan et al. 2019): returns y and ln y'.
pub fn spline(raw: &[f64], x: f64) -> (f64, f64) {
    if is_outside(x) {
        return (x, 0.0);
    }
    let Bin { left, width, bottom, height, slopes: [d0, d1], .. } = find(raw, x);
    let (xi, s) = ((x - left) / width, height / width);
    let theta = xi * (1.0 - xi);
    let numerator = s * xi * xi + d0 * theta;
    let denominator = s + (d1 + d0 - 2.0 * s) * theta;
    let q = d1 * xi * xi + 2.0 * s * theta + d0 * (1.0 - xi) * (1.0 - xi);
    (bottom + height * numerator / denominator, libm::log(s * s * q / (denominator * denominator)))
}

/// From the cotangents of y and ln y' those of the parameters, into `by_raw`, and of x.
pub fn spline_back(raw: &[f64], x: f64, (by_y, by_log): (f64, f64), by_raw: &mut [f64]) -> f64 {
    by_raw.fill(0.0);
    if is_outside(x) {
        return by_y;
    }
    let Bin { k, left, width, height, slopes: [d0, d1], .. } = find(raw, x);
    let (xi, s) = ((x - left) / width, height / width);
    let (theta, turn) = (xi * (1.0 - xi), 1.0 - 2.0 * xi);
    let n = s * xi * xi + d0 * theta;
    let d = s + (d1 + d0 - 2.0 * s) * theta;
    let q = d1 * xi * xi + 2.0 * s * theta + d0 * (1.0 - xi) * (1.0 - xi);
    // Derivatives of numerator, denominator and q by one of ξ, s, d0, d1, made one of y and ln y'.
    let through = |n_by: f64, d_by: f64, q_by: f64| {
        by_y * height * (n_by * d - n * d_by) / (d * d) + by_log * (q_by / q - 2.0 * d_by / d)
    };
    let by_xi = through(
        2.0 * s * xi + d0 * turn,
        (d1 + d0 - 2.0 * s) * turn,
        2.0 * d1 * xi + 2.0 * s * turn - 2.0 * d0 * (1.0 - xi),
    );
    let by_s = through(xi * xi, 1.0 - 2.0 * theta, 2.0 * theta) + 2.0 * by_log / s;
    let by_d0 = through(theta, theta, (1.0 - xi) * (1.0 - xi));
    let by_d1 = through(0.0, theta, xi * xi);
    let by_left = -by_xi / width;
    let by_width = -(by_xi * xi + by_s * s) / width;
    let by_height = by_y * n / d + by_s / width;
    let mut spread = |offset: usize, by_size: f64, by_start: f64| {
        let shares = shares(&raw[offset..offset + BINS]);
        let scale = 2.0 * REACH * (1.0 - BINS as f64 * NARROWEST);
        let by_share = |j: usize| {
            scale
                * if j < k {
                    by_start
                } else if j == k {
                    by_size
                } else {
                    0.0
                }
        };
        let soft = |j: usize| (shares[j] - NARROWEST) / (1.0 - BINS as f64 * NARROWEST);
        let mean: f64 = (0..BINS).map(|j| by_share(j) * soft(j)).sum();
        (0..BINS).for_each(|j| by_raw[offset + j] = soft(j) * (by_share(j) - mean));
    };
    spread(0, by_width, by_left);
    spread(BINS, by_height, by_y);
    for (knot, by) in [(k, by_d0), (k + 1, by_d1)] {
        if (1..BINS).contains(&knot) {
            let at = 2 * BINS + knot - 1;
            by_raw[at] += by * slope_derivative(raw[at]);
        }
    }
    by_xi / width
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::rng::{Key, Purpose, fill_normal};

    #[test]
    fn splines_start_as_the_identity() {
        for x in [-9.0, -4.0, -3.99, -0.3, 0.0, 1.7, 4.0, 5.0] {
            let (y, log) = spline(&[0.0; SPLINE], x);
            assert!((y - x).abs() < 1e-14 && log.abs() < 1e-14, "{x}: {y} {log}");
        }
    }

    #[test]
    fn maps_increase_and_their_derivatives_are_differences() {
        type Forward = fn(&[f64], f64) -> (f64, f64);
        type Back = fn(&[f64], f64, (f64, f64), &mut [f64]) -> f64;
        for (count, forward, back) in
            [(AFFINE, affine as Forward, affine_back as Back), (SPLINE, spline, spline_back)]
        {
            let mut raw = vec![0.0; count];
            fill_normal(&mut Key::new([3; 32], Purpose::Probe, 0).at(0), &mut raw);
            let h = 1e-6;
            for x in [-3.7, -2.1, -0.4, 0.9, 3.3, 6.0] {
                let (ahead, behind) = (forward(&raw, x + h), forward(&raw, x - h));
                let slope = (ahead.0 - behind.0) / (2.0 * h);
                assert!(slope > 0.0 && (slope.ln() - forward(&raw, x).1).abs() < 1e-7);
                let weights = (0.7, -1.3);
                let value = |(y, log): (f64, f64)| weights.0 * y + weights.1 * log;
                let mut by_raw = vec![f64::NAN; count];
                let by_x = back(&raw, x, weights, &mut by_raw);
                assert!((by_x - (value(ahead) - value(behind)) / (2.0 * h)).abs() < 1e-7, "{x}");
                for i in 0..count {
                    let at = |step: f64| {
                        let mut raw = raw.clone();
                        raw[i] += step;
                        value(forward(&raw, x))
                    };
                    let exact = (at(h) - at(-h)) / (2.0 * h);
                    assert!((by_raw[i] - exact).abs() < 1e-7, "{x} {i}: {} {exact}", by_raw[i]);
                }
            }
        }
    }
}
