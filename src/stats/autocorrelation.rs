//! Autocovariance at all lags in O(n log n), by a Fourier transform of our own.
//!
//! A library transform picks its vector instructions by the machine it runs on, and with them its
//! last bits; these sixty lines give the same bits everywhere, and are no bottleneck.

use std::f64::consts::PI;

use super::moments::mean;
use crate::device::{Arith, accumulate_lagged};

/// Autocorrelation ρ_t = c_t/c_0 at lags t = 0 … n − 1, with c_t = (1/n) Σ_i (x_i − x̄)(x_{i+t} − x̄).
/// NaN throughout if `x` does not vary or is not finite; empty of nothing.
pub fn autocorrelation(x: &[f64]) -> Vec<f64> {
    let mut c = mean_autocovariance(std::iter::once(x), x.len());
    let c0 = c.first().copied().unwrap_or(f64::NAN);
    for value in &mut c {
        *value /= c0;
    }
    c
}

/// The mean over `rows`, each `n` long, of their biased autocovariances at lags 0 … n − 1.
pub(super) fn mean_autocovariance<'a>(rows: impl Iterator<Item = &'a [f64]>, n: usize) -> Vec<f64> {
    if n == 0 {
        return Vec::new();
    }
    // Zeros behind the draws keep the circular correlation from wrapping onto itself.
    let size = (2 * n).next_power_of_two();
    let transform = Transform::new(size);
    let mut power = vec![Complex::default(); size];
    let mut spectrum = power.clone();
    let mut count = 0;
    for row in rows {
        debug_assert_eq!(row.len(), n);
        let centre = mean(row);
        spectrum.fill(Complex::default());
        for (z, x) in spectrum.iter_mut().zip(row) {
            z.re = x - centre;
        }
        transform.forward(&mut spectrum);
        for (p, z) in power.iter_mut().zip(&spectrum) {
            p.re += z.re * z.re + z.im * z.im;
        }
        count += 1;
    }
    // The power spectrum is real and even: its forward transform is its inverse, up to the size.
    transform.forward(&mut power);
    let scale = 1.0 / (size as f64 * n as f64 * f64::from(count));
    power.iter().take(n).map(|z| z.re * scale).collect()
}

/// The same for `count` rows that `fill` writes centred, two at a time: z = x + iy has the
/// autocovariance of x plus that of y as its real part. Half the work, other last bits.
pub(super) fn paired_autocovariance(count: usize, n: usize, fill: impl Fn(usize, &mut [f64])) -> Vec<f64> {
    if n == 0 || count == 0 {
        return Vec::new();
    }
    let size = (2 * n).next_power_of_two();
    let transform = Transform::new(size);
    let mut power = vec![0.0; size];
    let mut spectrum = vec![Complex::default(); size];
    let (mut x, mut y) = (vec![0.0; n], vec![0.0; n]);
    for first in (0..count).step_by(2) {
        fill(first, &mut x);
        if first + 1 < count {
            fill(first + 1, &mut y)
        } else {
            y.fill(0.0)
        }
        spectrum.fill(Complex::default());
        for (z, (&re, &im)) in spectrum.iter_mut().zip(x.iter().zip(&y)) {
            *z = Complex { re, im };
        }
        transform.forward(&mut spectrum);
        for (p, z) in power.iter_mut().zip(&spectrum) {
            *p += z.re * z.re + z.im * z.im;
        }
    }
    for (z, p) in spectrum.iter_mut().zip(power) {
        *z = Complex { re: p, im: 0.0 };
    }
    transform.forward(&mut spectrum);
    let scale = 1.0 / (size as f64 * n as f64 * count as f64);
    spectrum.iter().take(n).map(|z| z.re * scale).collect()
}

/// ρ_0 … ρ_`longest` of [`autocorrelation`], by direct sums where that is quicker; fewer for a
/// shorter `x`.
pub fn autocorrelation_to(x: &[f64], longest: usize) -> Vec<f64> {
    /// A transform costs about as much as so many lags.
    const QUICK: usize = 160;
    let lags = x.len().min(longest + 1);
    if longest >= QUICK {
        let mut all = autocorrelation(x);
        all.truncate(lags);
        return all;
    }
    let centre = mean(x);
    let centred: Vec<f64> = x.iter().map(|v| v - centre).collect();
    let mut sums = vec![0.0; lags];
    accumulate_lagged(Arith::current(), &centred, 0, &mut sums);
    let zero = sums.first().copied().unwrap_or(f64::NAN);
    sums.iter().map(|s| s / zero).collect()
}

#[derive(Clone, Copy, Default)]
struct Complex {
    re: f64,
    im: f64,
}

/// Radix-2 transform, decimation in time (Cooley & Tukey, Math. Comp. 19:297, 1965).
struct Transform {
    /// exp(−2πik/size), k below size/2.
    roots: Vec<Complex>,
}

impl Transform {
    /// For `size` a power of two, at least 2.
    fn new(size: usize) -> Self {
        debug_assert!(size.is_power_of_two() && size >= 2);
        let root = |k: usize| {
            let (sin, cos) = libm::sincos(-2.0 * PI * k as f64 / size as f64);
            Complex { re: cos, im: sin }
        };
        Self { roots: (0..size / 2).map(root).collect() }
    }

    /// Z_k = Σ_j z_j exp(−2πijk/size), in place.
    fn forward(&self, z: &mut [Complex]) {
        let size = z.len();
        let unused_bits = usize::BITS - size.trailing_zeros();
        for i in 0..size {
            let j = i.reverse_bits() >> unused_bits;
            if i < j {
                z.swap(i, j);
            }
        }
        let mut half = 1;
        while half < size {
            let stride = size / (2 * half);
            for block in z.chunks_exact_mut(2 * half) {
                let (low, high) = block.split_at_mut(half);
                for ((a, b), w) in low.iter_mut().zip(high).zip(self.roots.iter().step_by(stride)) {
                    let turned = Complex { re: w.re * b.re - w.im * b.im, im: w.re * b.im + w.im * b.re };
                    *b = Complex { re: a.re - turned.re, im: a.im - turned.im };
                    *a = Complex { re: a.re + turned.re, im: a.im + turned.im };
                }
            }
            half *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::rng::{Key, Purpose, fill_normal};

    fn direct(x: &[f64]) -> Vec<f64> {
        let (n, centre) = (x.len(), mean(x));
        let cov =
            |t: usize| (0..n - t).map(|i| (x[i] - centre) * (x[i + t] - centre)).sum::<f64>() / n as f64;
        (0..n).map(|t| cov(t) / cov(0)).collect()
    }

    #[test]
    fn transform_agrees_with_the_direct_sums() {
        for n in [2usize, 3, 4, 5, 31, 32, 33, 1000] {
            let mut x = vec![0.0f64; n];
            fill_normal(&mut Key::new([1; 32], Purpose::Probe, 0).at(n as u64), &mut x);
            for (t, (fast, slow)) in autocorrelation(&x).iter().zip(direct(&x)).enumerate() {
                // Rounding of the transform: a few ε log2(n) relative to lag 0.
                assert!(
                    (fast - slow).abs() < 100.0 * f64::EPSILON,
                    "n = {n}, lag {t}: {fast} against {slow}"
                );
            }
        }
    }

    #[test]
    fn an_autoregression_has_the_autocorrelation_phi_to_the_t() {
        let (n, phi) = (200_000, 0.8);
        let mut x = vec![0.0f64; n];
        fill_normal(&mut Key::new([2; 32], Purpose::Probe, 0).at(0), &mut x);
        for i in 1..n {
            x[i] += phi * x[i - 1];
        }
        let rho = autocorrelation(&x);
        // Bartlett 1946: at large lags the variance of an estimate tends to (1+φ²)/(1−φ²)/n, and is
        // smaller before.
        let error = ((1.0 + phi * phi) / (1.0 - phi * phi) / n as f64).sqrt();
        for (t, r) in rho.iter().enumerate().take(60) {
            assert!((r - phi.powi(t as i32)).abs() < 4.0 * error, "lag {t}: {r}");
        }
    }

    #[test]
    fn a_hundred_thousand_draws_need_no_quadratic_time() {
        // Direct sums would take 5·10⁹ products here; Parseval and the zero mean tie all lags:
        // c_0 + 2 Σ c_t = 0.
        let x: Vec<f64> = (0..100_000).map(|i| f64::from(i % 17)).collect();
        let rho = autocorrelation(&x);
        let tied = rho[0] + 2.0 * rho[1..].iter().sum::<f64>();
        assert!(tied.abs() < 1e-9, "{tied}");
    }

    #[test]
    fn quicker_ways_give_the_same_numbers() {
        let (rows, n) = (5, 777);
        let mut x = vec![vec![0.0f64; n]; rows];
        for (c, row) in (0..).zip(&mut x) {
            fill_normal(&mut Key::new([3; 32], Purpose::Probe, c).at(0), row);
        }
        let all = mean_autocovariance(x.iter().map(Vec::as_slice), n);
        let centred = |r: usize, out: &mut [f64]| {
            let centre = mean(&x[r]);
            out.iter_mut().zip(&x[r]).for_each(|(o, v)| *o = v - centre);
        };
        let paired = paired_autocovariance(rows, n, centred);
        let mut direct = vec![0.0; n];
        let mut row = vec![0.0; n];
        for r in 0..rows {
            centred(r, &mut row);
            accumulate_lagged(Arith::current(), &row, 0, &mut direct);
        }
        for t in 0..n {
            // Rounding: a few ε of lag 0 a transform, ε √n a direct sum.
            assert!((paired[t] - all[t]).abs() < 100.0 * f64::EPSILON, "paired, lag {t}");
            assert!((direct[t] / (rows * n) as f64 - all[t]).abs() < 100.0 * f64::EPSILON, "direct, lag {t}");
        }
        for longest in [0, 1, 40, 159, 160, 800] {
            let (some, all) = (autocorrelation_to(&x[0], longest), autocorrelation(&x[0]));
            assert_eq!(some.len(), n.min(longest + 1));
            assert!(some.iter().zip(&all).all(|(a, b)| (a - b).abs() < 100.0 * f64::EPSILON), "{longest}");
        }
        assert!(autocorrelation_to(&[], 3).is_empty());
        assert!(autocorrelation_to(&[1.0, 1.0], 3).iter().all(|r| r.is_nan()));
    }

    #[test]
    fn degenerate_input_gives_nan_or_nothing() {
        assert!(autocorrelation(&[]).is_empty());
        for x in [&[1.0][..], &[2.0, 2.0, 2.0, 2.0], &[1.0, f64::NAN, 0.0], &[1.0, f64::INFINITY]] {
            let rho = autocorrelation(x);
            assert_eq!(rho.len(), x.len());
            assert!(rho.iter().all(|r| r.is_nan()), "{rho:?}");
        }
    }
}
