//! Logarithms of normal probabilities that stay accurate in the tails and for narrow intervals.

use std::f64::consts::FRAC_1_SQRT_2;

/// ½ ln 2π
pub(super) const HALF_LN_TWO_PI: f64 = 0.918_938_533_204_672_7;

/// Below this the asymptotic series of the tail has relative error below 1e-16 with its seven terms.
const FAR: f64 = -20.0;
/// Beyond so many standard deviations to both sides lies less than half a unit in the last place of 1.
const WHOLE: f64 = 9.0;
/// An interval narrower than this, in units of its distance from the centre, is one by its midpoint.
const NARROW: f64 = 1e-3;

/// ln Φ(x), Φ the standard normal distribution function.
pub(super) fn log_ndtr(x: f64) -> f64 {
    if x > 1.0 {
        libm::log1p(-0.5 * libm::erfc(x * FRAC_1_SQRT_2))
    } else if x > FAR {
        libm::log(0.5 * libm::erfc(-x * FRAC_1_SQRT_2))
    } else {
        // Φ(x) = φ(x)/|x| · Σ (−1)ᵏ (2k − 1)!! / x²ᵏ (Abramowitz & Stegun 26.2.12).
        let (r, mut term, mut sum) = (1.0 / (x * x), 1.0, 0.0);
        for k in 1..8 {
            term *= -f64::from(2 * k - 1) * r;
            sum += term;
        }
        -0.5 * x * x - HALF_LN_TWO_PI - libm::log(-x) + libm::log1p(sum)
    }
}

/// ln(Φ(b) − Φ(a)) for a ≤ b.
pub(super) fn log_mass(a: f64, b: f64) -> f64 {
    if a < -WHOLE && b > WHOLE {
        return 0.0;
    }
    let (h, m) = (b - a, 0.5 * (a + b));
    if h * m.abs().max(1.0) < NARROW {
        // ∫φ over the interval is h φ(m)(1 + (m² − 1)h²/24 + O(h⁴ m⁴/1920)).
        return -0.5 * m * m - HALF_LN_TWO_PI + libm::log(h) + libm::log1p((m * m - 1.0) * h * h / 24.0);
    }
    if a < 0.0 && b > 0.0 {
        // Both terms are positive: nothing cancels.
        let mass = 0.5 * (libm::erf(b * FRAC_1_SQRT_2) - libm::erf(a * FRAC_1_SQRT_2));
        return if mass < 0.5 {
            libm::log(mass)
        } else {
            let outside = libm::erfc(b * FRAC_1_SQRT_2) + libm::erfc(-a * FRAC_1_SQRT_2);
            libm::log1p(-0.5 * outside)
        };
    }
    let (near, far) = if b <= 0.0 { (b, a) } else { (-a, -b) };
    let (near, far) = (log_ndtr(near), log_ndtr(far));
    near + libm::log(-libm::expm1(far - near))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers come from the series of Φ about 0 in decimal arithmetic of 1500 digits.
    #[test]
    fn logarithms_are_those_of_long_arithmetic() {
        for (x, expected) in TAILS {
            let relative = (log_ndtr(x) - expected) / expected;
            assert!(relative.abs() < 4e-15, "{x}: {relative:e}");
        }
        for (a, b, expected) in MASSES {
            for (a, b) in [(a, b), (-b, -a)] {
                let relative = (log_mass(a, b) - expected) / expected;
                assert!(relative.abs() < 1e-12, "{a} {b}: {relative:e}");
            }
        }
    }

    const TAILS: [(f64, f64); 9] = [
        (3.0, -0.0013508099647481938),
        (0.5, -0.3689464152886564),
        (-0.5, -1.1759117615936185),
        (-5.0, -15.064998393988725),
        (-15.0, -116.1313848457117),
        (-19.75, -198.93588948907095),
        (-20.25, -208.96076728764925),
        (-37.5, -707.6689893175072),
        (-50.0, -1254.8313611394199),
    ];
    const MASSES: [(f64, f64, f64); 10] = [
        (-1.0, 2.0, -0.2001662943244626),
        (0.25, 0.5, -2.377781427757043),
        (-0.001, 0.002, -6.72808202351855),
        (3.0, 3.0009765625, -12.351874983755588),
        (3.0, 3.0001220703125, -14.430034982848076),
        (6.0, 7.0, -20.73806700328247),
        (10.0, 10.125, -53.56094454872744),
        (30.0, 30.0009765625, -457.8650231715558),
        (30.0, 1000.0, -454.3212439563432),
        (-8.0, 8.0, -1.2441921148543576e-15),
    ];
}
