//! Sums, means, variances, quantiles.

/// Σx by pairwise summation (error O(ε log n); Higham, SIAM J. Sci. Comput. 14:783, 1993).
///
/// Blocks of at most 128 in eight interleaved partial sums: the order NumPy uses, so that means
/// agree with it to the last bit. That matters where draws have a large offset or do not move.
pub fn sum(x: &[f64]) -> f64 {
    const LANES: usize = 8;
    const BLOCK: usize = 128;
    if x.len() > BLOCK {
        let half = x.len() / 2;
        let (left, right) = x.split_at(half - half % LANES);
        return sum(left) + sum(right);
    }
    let mut groups = x.chunks_exact(LANES);
    let mut lane = [0.0; LANES];
    for group in &mut groups {
        for (total, value) in lane.iter_mut().zip(group) {
            *total += value;
        }
    }
    let whole = ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
    groups.remainder().iter().fold(whole, |total, value| total + value)
}

/// Arithmetic mean; NaN of nothing.
pub fn mean(x: &[f64]) -> f64 {
    sum(x) / x.len() as f64
}

/// Unbiased variance Σ(x − x̄)² / (n − 1); NaN below two values.
pub fn variance(x: &[f64]) -> f64 {
    if x.len() < 2 {
        return f64::NAN;
    }
    let centre = mean(x);
    let squares: Vec<f64> = x.iter().map(|v| (v - centre) * (v - centre)).collect();
    sum(&squares) / (x.len() - 1) as f64
}

/// Standard deviation with n − 1 in the denominator; NaN below two values.
pub fn sd(x: &[f64]) -> f64 {
    variance(x).sqrt()
}

/// The `q`-quantile by linear interpolation between order statistics (type 7 of Hyndman & Fan,
/// Am. Stat. 50:361, 1996: NumPy's and R's default). `q` in [0, 1]; NaN if any draw is NaN, if
/// there is none, or if `q` is out of range.
pub fn quantile(x: &[f64], q: f64) -> f64 {
    if x.is_empty() || !(0.0..=1.0).contains(&q) || x.iter().any(|v| v.is_nan()) {
        return f64::NAN;
    }
    let mut sorted = x.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted_quantile(&sorted, q)
}

/// [`quantile`] of draws already in ascending order, at least one, none NaN.
///
/// Written with the operations of SciPy's `mquantiles`, which ArviZ calls: where the quantile
/// falls on tied draws its last bit decides on which side of it they lie.
pub(super) fn sorted_quantile(sorted: &[f64], q: f64) -> f64 {
    let n = sorted.len();
    if n == 1 {
        return sorted[0];
    }
    let position = n as f64 * q + (1.0 - q);
    let below = position.clamp(1.0, (n - 1) as f64).floor();
    let weight = (position - below).clamp(0.0, 1.0);
    let k = below as usize;
    (1.0 - weight) * sorted[k - 1] + weight * sorted[k]
}

/// The median: the middle order statistic, or the mean of the middle two. NaN of NaN or nothing.
pub fn median(x: &[f64]) -> f64 {
    if x.is_empty() || x.iter().any(|v| v.is_nan()) {
        return f64::NAN;
    }
    let mut sorted = x.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 }
}

/// The 97.5 % quantile of Student's t, the half-width of a 95 % interval in standard errors.
///
/// Degrees of freedom are rounded down (towards the wider interval) and taken as at least 1.
/// Exact for 1 and 2; above, the expansion of Abramowitz & Stegun 26.7.5, within 0.2 % from 3
/// degrees on and 2·10⁻⁵ from 8 on. NaN of NaN.
pub fn t_quantile_975(degrees: f64) -> f64 {
    /// Φ⁻¹(0.975)
    const Z: f64 = 1.959_963_984_540_054;
    if degrees.is_nan() {
        return f64::NAN;
    }
    let nu = degrees.floor();
    if nu <= 1.0 {
        return 12.706_204_736_174_694;
    }
    if nu == 2.0 {
        return 4.302_652_729_749_462;
    }
    let z2 = Z * Z;
    let terms = [
        Z,
        Z * (z2 + 1.0) / 4.0,
        Z * ((5.0 * z2 + 16.0) * z2 + 3.0) / 96.0,
        Z * (((3.0 * z2 + 19.0) * z2 + 17.0) * z2 - 15.0) / 384.0,
        Z * ((((79.0 * z2 + 776.0) * z2 + 1482.0) * z2 - 1920.0) * z2 - 945.0) / 92_160.0,
    ];
    terms.iter().rev().fold(0.0, |value, term| value / nu + term)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_keep_small_terms_beside_large_ones() {
        // Σ of 10⁶ tenths: naive summation is off by 1e-6; pairwise by at most ε log2(n) n/10.
        let x = vec![0.1; 1_000_000];
        assert!((sum(&x) - 1e5).abs() < 20.0 * f64::EPSILON * 1e5);
        assert_eq!(sum(&[]), 0.0);
    }

    #[test]
    fn moments_of_one_to_n_are_the_closed_forms() {
        for n in [2usize, 3, 7, 8, 9, 128, 129, 1000] {
            let x: Vec<f64> = (1..=n).map(|i| i as f64).collect();
            let n = n as f64;
            assert_eq!(mean(&x), (n + 1.0) / 2.0);
            assert!((variance(&x) / (n * (n + 1.0) / 12.0) - 1.0).abs() < 1e-14);
            assert_eq!(median(&x), (n + 1.0) / 2.0);
            assert!((quantile(&x, 0.3) - (1.0 + 0.3 * (n - 1.0))).abs() < 1e-12 * n);
            assert_eq!((quantile(&x, 0.0), quantile(&x, 1.0)), (1.0, n));
        }
    }

    #[test]
    fn what_is_undefined_is_nan() {
        let nan = f64::NAN;
        for value in [
            mean(&[]),
            sd(&[]),
            sd(&[1.0]),
            median(&[]),
            median(&[1.0, nan]),
            quantile(&[], 0.5),
            quantile(&[1.0, nan], 0.5),
            quantile(&[1.0], -0.1),
            quantile(&[1.0], nan),
            t_quantile_975(nan),
        ] {
            assert!(value.is_nan(), "{value}");
        }
        assert_eq!(quantile(&[4.0], 0.7), 4.0);
    }

    #[test]
    fn t_quantiles_agree_with_tables() {
        // scipy.stats.t.ppf(0.975, ν); the allowance is the expansion's stated error.
        for (nu, exact, allowed) in [
            (0.3, 12.706_204_736_174_694, 1e-12),
            (2.9, 4.302_652_729_749_462, 1e-12),
            (3.0, 3.182_446_305_283_707_8, 2e-3),
            (4.0, 2.776_445_105_197_793_4, 2e-3),
            (8.0, 2.306_004_135_204_166, 2e-5),
            (30.5, 2.042_272_456_301_237_8, 1e-7),
            (399.0, 1.965_927_295_920_882, 1e-9),
            (f64::INFINITY, 1.959_963_984_540_054, 1e-15),
        ] {
            let t = t_quantile_975(nu);
            assert!((t / exact - 1.0).abs() < allowed, "ν = {nu}: {t} against {exact}");
        }
    }
}
