//! Exact expectations of nβ·(L − L0) at finite nβ for singular potentials whose integrals come
//! down to one or two dimensions.
//!
//! All integrals run over logarithms of positive variables by the trapezoidal rule. Their
//! integrands are analytic in a strip |Im t| < a around the real line and fall off at both ends, so
//! the rule with step h errs by about e^(−2πa/h) (Trefethen & Weideman 2014, SIAM Review 56:385).

/// Tails are cut where the integrand has fallen by e⁻⁴⁰.
const TAIL: f64 = 40.0;

/// Largest number of grid points of one axis before an answer is refused.
const MAX_POINTS: usize = 20_000;

/// nβ·E[Π wᵢ^(2kᵢ)] under exp(−nβ Π wᵢ^(2kᵢ) − (γ/2)‖w‖²), any number of variables.
///
/// With γ = 1 (else w is scaled) and uᵢ = ln wᵢ^(2kᵢ), which under the localiser alone has a density
/// analytic for |Im u| < kᵢπ/2, the density g of u = Σ uᵢ is a convolution, and the answer is
/// ∫ nβ eᵘ e^(−nβ eᵘ) g du / ∫ e^(−nβ eᵘ) g du. The step 1/4 with a = π/2 errs by e⁻³⁹.
///
/// `None` where the integral does not exist (γ = 0 with two or more variables), for wild arguments,
/// or where exponents are too large for a grid of sane size. For one variable and γ = 0 it is 1/(2k).
pub fn normal_crossing_llc(exponents: &[u32], nbeta: f64, gamma: f64) -> Option<f64> {
    const STEP: f64 = 0.25;
    if !(nbeta > 0.0 && nbeta.is_finite() && gamma >= 0.0 && gamma.is_finite()) || exponents.contains(&0) {
        return None;
    }
    if gamma == 0.0 {
        return match exponents {
            [k] => Some(0.5 / f64::from(*k)),
            _ => None,
        };
    }
    let powers: Vec<f64> = exponents.iter().map(|&k| f64::from(k)).collect();
    let ln_nbeta = libm::log(nbeta) - powers.iter().sum::<f64>() * libm::log(gamma);
    let largest = powers.iter().copied().fold(0.0, f64::max);
    // Above these uᵢ the localiser has cut e^(−w²/2) down to e⁻⁴⁰.
    let tops: Vec<i64> = powers.iter().map(|k| (k * libm::log(2.0 * TAIL) / STEP).ceil() as i64).collect();
    // Below this u the density, which falls as e^(u/2k), has lost e⁻⁴⁰.
    let bottom = ((-ln_nbeta.max(0.0) - 2.0 * largest * TAIL) / STEP).floor();
    let top: i64 = tops.iter().sum();
    if top as f64 - bottom > MAX_POINTS as f64 {
        return None;
    }
    let bottom = bottom as i64;
    // g on the grid points bottom..=its own top, starting with all weight at u = 0.
    let (mut density, mut from) = (vec![1.0], 0_i64);
    for (k, &own_top) in powers.iter().zip(&tops) {
        // Points this low cannot bring the sum back above the bottom.
        let own_from = bottom - (top - own_top);
        let own: Vec<f64> = (own_from..=own_top)
            .map(|j| {
                let t = j as f64 * STEP / (2.0 * k);
                libm::exp(t - 0.5 * libm::exp(2.0 * t))
            })
            .collect();
        let mut sum = vec![0.0; density.len() + own.len() - 1];
        for (i, d) in density.iter().enumerate() {
            sum[i..].iter_mut().zip(&own).for_each(|(s, o)| *s += d * o);
        }
        from += own_from;
        let lost = usize::try_from((bottom - top - from).max(0)).ok()?.min(sum.len());
        density = sum.split_off(lost);
        from += lost as i64;
    }
    let mut mean = Mean::default();
    for (i, g) in density.iter().enumerate() {
        let scaled = libm::exp((from + i as i64) as f64 * STEP + ln_nbeta);
        mean.add(libm::log(*g) - scaled, scaled);
    }
    mean.value()
}

/// ½nβ·E‖BA‖² for B (N × H) and A (H × M) under exp(−½nβ‖BA‖² − (γ/2)(‖A‖² + ‖B‖²)): the deep linear
/// network M-H-N with true map 0 at the origin.
///
/// Given A, the rows of B are Gaussian with precision nβ·AAᵀ + γ, so with the k = min(H, M) singular
/// values s of A (density Π s^|M−H| Πᵢ<ⱼ|sᵢ² − sⱼ²|, Muirhead 1982, Theorem 3.2.17)
///
/// answer = E[(N/2) Σ nβs²/(nβs² + γ)], with weight Π s^|M−H| e^(−γs²/2) (nβs² + γ)^(−N/2) · Πᵢ<ⱼ|sᵢ² − sⱼ²|.
///
/// A and B may change roles, so this is known wherever min(H, M, N) ≤ 2; `None` elsewhere, and for
/// γ = 0.
pub fn two_layer_llc(inputs: usize, hidden: usize, outputs: usize, nbeta: f64, gamma: f64) -> Option<f64> {
    if !(nbeta > 0.0 && nbeta.is_finite() && gamma > 0.0 && gamma.is_finite()) {
        return None;
    }
    let (inputs, outputs) = if inputs <= outputs { (inputs, outputs) } else { (outputs, inputs) };
    let weight = SingularWeight {
        power: inputs.abs_diff(hidden) as f64 + 1.0,
        outputs: outputs as f64,
        // Scaled to γ = 1: both factors by 1/√γ, so nβ by 1/γ².
        nbeta: nbeta / (gamma * gamma),
    };
    match inputs.min(hidden) {
        1 => weight.one_value(),
        2 => weight.two_values(),
        _ => None,
    }
}

/// The weight of one singular value s = e^(u/2): s^power e^(−s²/2) (nβs² + 1)^(−N/2), against du.
struct SingularWeight {
    power: f64,
    outputs: f64,
    nbeta: f64,
}

impl SingularWeight {
    /// ln weight and its part (N/2)·nβs²/(nβs² + 1) of the answer, at u = ln s².
    fn at(&self, u: f64) -> (f64, f64) {
        let square = libm::exp(u);
        let scaled = self.nbeta * square;
        let ln_weight = 0.5 * (self.power * u - square - self.outputs * libm::log1p(scaled));
        (ln_weight, 0.5 * self.outputs * scaled / (1.0 + scaled))
    }

    /// The grid over u: its low end, step and number of points. The weight rises from the left as
    /// e^(power·u/2), may turn at u = −ln nβ, and has fallen by e⁻⁴⁰ where s² = 4·TAIL + 4·power. It is
    /// analytic for |Im u| < π/2, so that the step 1/5 errs by e⁻⁴⁹; a large power or N makes a
    /// Gaussian peak of variance at least 1/max(power, N), where 0.7/√max errs by e⁻⁴⁰.
    fn grid(&self) -> (f64, f64, usize) {
        let low = -libm::log(self.nbeta.max(1.0)) - 2.0 * TAIL / self.power.min(2.0);
        let high = libm::log(4.0 * TAIL + 4.0 * self.power);
        let step = 0.2_f64.min(0.7 / self.power.max(self.outputs).sqrt());
        (low, step, ((high - low) / step) as usize + 1)
    }

    fn one_value(&self) -> Option<f64> {
        let (low, step, points) = self.grid();
        if points > MAX_POINTS {
            return None;
        }
        let mut mean = Mean::default();
        for i in 0..points {
            let (ln_weight, part) = self.at(low + i as f64 * step);
            mean.add(ln_weight, part);
        }
        mean.value()
    }

    /// Two singular values s₁ > s₂ with u₂ = u₁ − v. The gap v > 0 is run through as v = ln(1 + e^q),
    /// which makes the edge v = 0 a falling end: then s₁² − s₂² = e^u₁·e^(q − v) and dv/dq = e^(q − v).
    fn two_values(&self) -> Option<f64> {
        let (low, step, points) = self.grid();
        if points > MAX_POINTS / 8 {
            return None;
        }
        let mut mean = Mean::default();
        for i in 0..points {
            let first = low + i as f64 * step;
            let (ln_first, first_part) = self.at(first);
            let gaps = ((first - low + 0.5 * TAIL) / step) as usize + 1;
            for j in 0..gaps {
                let q = -0.5 * TAIL + j as f64 * step;
                let gap = libm::log1p(libm::exp(q));
                let (ln_second, second_part) = self.at(first - gap);
                mean.add(ln_first + ln_second + first + 2.0 * (q - gap), first_part + second_part);
            }
        }
        mean.value()
    }
}

/// A mean weighted by exponentials, scaled by the largest met so far.
struct Mean {
    peak: f64,
    weight: f64,
    total: f64,
}

impl Default for Mean {
    fn default() -> Self {
        Self { peak: f64::NEG_INFINITY, weight: 0.0, total: 0.0 }
    }
}

impl Mean {
    fn add(&mut self, ln_weight: f64, value: f64) {
        if ln_weight > self.peak {
            let shrink = libm::exp(self.peak - ln_weight);
            self.weight *= shrink;
            self.total *= shrink;
            self.peak = ln_weight;
        }
        // A weight that underflows may meet a value that overflows.
        let weight = libm::exp(ln_weight - self.peak);
        if weight > 0.0 {
            self.weight += weight;
            self.total += weight * value;
        }
    }

    fn value(&self) -> Option<f64> {
        let mean = self.total / self.weight;
        mean.is_finite().then_some(mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// u K₁(u)/K₀(u) from K_ν(u) = ∫₀^∞ e^(−u cosh t) cosh νt dt (DLMF 10.32.9).
    fn bessel_ratio(u: f64) -> f64 {
        let (mut k0, mut k1) = (0.0, 0.0);
        for i in 0..40_000 {
            let t = i as f64 * 1e-3;
            let cosh = libm::cosh(t);
            let weight = if i == 0 { 0.5 } else { 1.0 } * libm::exp(-u * (cosh - 1.0));
            k0 += weight;
            k1 += weight * cosh;
        }
        u * k1 / k0
    }

    #[test]
    fn product_of_two_squares_agrees_with_its_bessel_form() {
        for (nbeta, gamma) in [(0.3, 1.0), (100.0, 1.0), (1e4, 10.0), (1e6, 1.0), (50.0, 1e-3), (1.0, 100.0)]
        {
            let u = gamma * gamma / (8.0 * nbeta);
            let truth = 0.5 + u - bessel_ratio(u);
            let value = normal_crossing_llc(&[1, 1], nbeta, gamma).unwrap();
            // ½ + u cancels against u K₁/K₀ when u is large.
            assert!(
                (value - truth).abs() < 1e-11 * (1.0 + u),
                "nβ {nbeta} γ {gamma}: {value} is not {truth}"
            );
            // The same potential as the network 1-1-1: ½‖BA‖² is half of (w₁w₂)².
            let network = two_layer_llc(1, 1, 1, 2.0 * nbeta, gamma).unwrap();
            assert!((network - value).abs() < 1e-11, "nβ {nbeta} γ {gamma}: {network} is not {value}");
        }
    }

    #[test]
    fn regular_potentials_agree_with_the_quadratic_form() {
        // w²: eigenvalue 2.
        for (nbeta, gamma) in [(1e-3, 1.0), (7.0, 3.0), (1e6, 1e-2)] {
            let truth = nbeta / (2.0 * nbeta + gamma);
            let value = normal_crossing_llc(&[1], nbeta, gamma).unwrap();
            assert!((value / truth - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn without_a_localiser_one_variable_is_exact_and_more_have_no_answer() {
        assert_eq!(normal_crossing_llc(&[3], 10.0, 0.0), Some(1.0 / 6.0));
        assert_eq!(normal_crossing_llc(&[1, 1], 10.0, 0.0), None);
        assert_eq!(normal_crossing_llc(&[2], f64::NAN, 1.0), None);
        assert_eq!(two_layer_llc(2, 2, 2, 10.0, 0.0), None);
    }

    #[test]
    fn three_variables_agree_with_plain_quadrature() {
        // Integrating out w₃ from exp(−nβ (w₁²w₂w₃)² …) leaves weight (2nβ w₁⁴w₂² + γ)^(−½).
        let (nbeta, gamma, step) = (40.0, 2.0, 0.05);
        let (mut weight, mut total) = (0.0, 0.0);
        for i in -600..100 {
            for j in -600..100 {
                let (s, t) = (i as f64 * step, j as f64 * step);
                let (x, y) = (libm::exp(s), libm::exp(t));
                let stiff = 2.0 * nbeta * x * x * x * x * y * y;
                let density = libm::exp(s + t - 0.5 * gamma * (x * x + y * y)) / (stiff + gamma).sqrt();
                weight += density;
                total += density * 0.5 * stiff / (stiff + gamma);
            }
        }
        let value = normal_crossing_llc(&[2, 1, 1], nbeta, gamma).unwrap();
        assert!((value - total / weight).abs() < 1e-10, "{value} is not {}", total / weight);
    }

    #[test]
    fn reversed_and_wide_networks_have_the_same_answer() {
        // Either factor may be integrated out: 2-1-5 by the singular value of a 1 × 2 or a 5 × 1 matrix.
        for (m, h, n) in [(2, 1, 5), (2, 3, 4), (40, 2, 3)] {
            assert_eq!(two_layer_llc(m, h, n, 30.0, 1.5), two_layer_llc(n, h, m, 30.0, 1.5));
        }
        let direct =
            |m: f64, n: f64| SingularWeight { power: m, outputs: n, nbeta: 30.0 }.one_value().unwrap();
        for (m, n) in [(2.0, 5.0), (1.0, 900.0), (300.0, 400.0)] {
            assert!((direct(m, n) / direct(n, m) - 1.0).abs() < 1e-9, "{m} {n}");
        }
        // Two singular values where H = 2 and both others are larger: Gaussian either way.
        let direct =
            |m: f64, n: f64| SingularWeight { power: m - 1.0, outputs: n, nbeta: 30.0 }.two_values().unwrap();
        for (m, n) in [(2.0, 5.0), (3.0, 6.0), (2.0, 40.0)] {
            assert!((direct(m, n) / direct(n, m) - 1.0).abs() < 1e-9, "{m}-2-{n}");
        }
    }
}
