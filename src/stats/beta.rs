//! The beta distribution, for errors of quantiles.

/// The `p`-quantile of the beta distribution with parameters `a` and `b`, both at least 1: the x in
/// [0, 1] with I_x(a, b) = p. Newton's steps on the regularised incomplete beta function, kept inside
/// a shrinking bracket. NaN for p outside [0, 1] or a parameter below 1.
///
/// Relative error about 10⁻¹² for parameters up to 10³, where ln Γ is not the limit; 10⁻⁸ of the
/// distribution's width for parameters of 10⁷.
pub(super) fn beta_quantile(p: f64, a: f64, b: f64) -> f64 {
    const STEPS: usize = 200;
    if !((0.0..=1.0).contains(&p) && a >= 1.0 && b >= 1.0 && (a + b).is_finite()) {
        return f64::NAN;
    }
    if p == 0.0 || p == 1.0 {
        return p;
    }
    let constant = ln_inverse_beta(a, b);
    let (mut low, mut high) = (0.0, 1.0);
    let mut x = a / (a + b);
    for _ in 0..STEPS {
        let excess = regularised(x, a, b, constant) - p;
        if excess == 0.0 {
            return x;
        }
        if excess > 0.0 {
            high = x
        } else {
            low = x
        }
        let density = libm::exp(constant + (a - 1.0) * libm::log(x) + (b - 1.0) * libm::log1p(-x));
        let newton = x - excess / density;
        let next = if newton > low && newton < high { newton } else { (low + high) / 2.0 };
        if (next - x).abs() <= f64::EPSILON * x {
            return next;
        }
        x = next;
    }
    x
}

/// ln 1/B(a, b) = ln Γ(a + b) − ln Γ(a) − ln Γ(b).
fn ln_inverse_beta(a: f64, b: f64) -> f64 {
    libm::lgamma(a + b) - libm::lgamma(a) - libm::lgamma(b)
}

/// I_x(a, b) by its continued fraction (Abramowitz & Stegun 26.5.8), on the side where it converges
/// fast, evaluated from the front by the modified method of Lentz (Thompson & Barnett, J. Comput.
/// Phys. 64:490, 1986). `constant` is ln 1/B(a, b).
fn regularised(x: f64, a: f64, b: f64, constant: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return if x <= 0.0 { 0.0 } else { 1.0 };
    }
    let front = libm::exp(constant + a * libm::log(x) + b * libm::log1p(-x));
    if x < (a + 1.0) / (a + b + 2.0) {
        front * fraction(x, a, b) / a
    } else {
        1.0 - front * fraction(1.0 - x, b, a) / b
    }
}

/// 1/(1 + d₁/(1 + d₂/(1 + …))) with the coefficients of 26.5.8.
fn fraction(x: f64, a: f64, b: f64) -> f64 {
    /// In place of a partial denominator that vanishes.
    const TINY: f64 = 1e-300;
    let guarded = |v: f64| if v.abs() < TINY { TINY } else { v };
    // Terms needed grow like the square root of the larger parameter.
    let most = 200 + (20.0 * a.max(b).sqrt()) as usize;
    let mut upper = 1.0;
    let mut lower = 1.0 / guarded(1.0 - (a + b) * x / (a + 1.0));
    let mut value = lower;
    for m in 1..=most {
        let m = m as f64;
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        for d in [even, odd] {
            lower = 1.0 / guarded(1.0 + d * lower);
            upper = guarded(1.0 + d / upper);
            value *= lower * upper;
        }
        if (lower * upper - 1.0).abs() < f64::EPSILON {
            break;
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_have_their_closed_forms() {
        for p in [1e-6, 0.158_655_3, 0.5, 0.841_344_7, 0.999] {
            for a in [1.0, 2.0, 7.5, 1234.5] {
                // Beta(a, 1) has the distribution function xᵃ, Beta(1, b) its mirror image.
                let (left, right) = (beta_quantile(p, a, 1.0), beta_quantile(1.0 - p, 1.0, a));
                assert!((left / p.powf(1.0 / a) - 1.0).abs() < 1e-12, "a = {a}, p = {p}: {left}");
                assert!((1.0 - right - p.powf(1.0 / a)).abs() < 1e-11, "b = {a}, p = {p}: {right}");
            }
            // Beta(2, 2): 3x² − 2x³.
            let x = beta_quantile(p, 2.0, 2.0);
            assert!((3.0 * x * x - 2.0 * x * x * x - p).abs() < 1e-14, "p = {p}: {x}");
        }
        assert!((beta_quantile(0.5, 3e6, 3e6) - 0.5).abs() < 1e-11);
    }

    #[test]
    fn large_parameters_approach_the_normal_law() {
        // Mean q, variance q(1 − q)/(a + b + 1), skewness of order 1/√(a + b).
        for size in [1e4_f64, 1e6, 1e7] {
            for q in [0.05, 0.5, 0.9] {
                let (a, b) = (size * q + 1.0, size * (1.0 - q) + 1.0);
                let sd = (a * b / (a + b) / (a + b) / (a + b + 1.0)).sqrt();
                let z = (beta_quantile(0.841_344_746_068_543, a, b) - a / (a + b)) / sd;
                let skewness = 2.0 * (b - a) * (a + b + 1.0).sqrt() / ((a + b + 2.0) * (a * b).sqrt());
                // Cornish and Fisher: the next term is (z² − 1)·skewness/6 = 0 at z = 1, and then 1/size.
                assert!((z - 1.0).abs() < skewness * skewness + 10.0 / size + 1e-6, "{size}, {q}: {z}");
            }
        }
    }

    #[test]
    fn what_is_no_distribution_is_nan() {
        for (p, a, b) in [(-0.1, 1.0, 1.0), (0.5, 0.5, 1.0), (f64::NAN, 1.0, 1.0), (0.5, f64::NAN, 1.0)] {
            assert!(beta_quantile(p, a, b).is_nan());
        }
        assert_eq!((beta_quantile(0.0, 2.0, 3.0), beta_quantile(1.0, 2.0, 3.0)), (0.0, 1.0));
    }
}
