//! tanh, GELU, exp, logarithms, sine and cosine for loops over many numbers.
//!
//! No branches, no tables, no calls: under [`Arith::run`](crate::device::Arith::run) a loop over a slice
//! compiles to vector instructions, and since every step is one rounded operation or a move of bits, all
//! instruction sets give the same bits. Bounds are in units of the last place of the exact value,
//! measured by the tests below; NaN comes out as NaN.
//!
//! eˣ is 2ⁿ·eʳ with r = x − n·ln 2, |r| ≤ ½ ln 2 (Tang 1989, ACM TOMS 15); ln follows fdlibm's `log1p` (Sun
//! Microsystems 1993) with a scaling that is exact for small x. The normal distribution's lower tail is
//! Φ(−u) = e^(−u²/2)·P(t), t = (u − 5)/(u + 5), after Schonfelder 1978 (Math. Comp. 32). Coefficients interpolate
//! at Chebyshev nodes, computed with 60 digits.

/// A number type with these functions.
pub trait Elementary: Copy {
    /// eˣ for |x| ≤ 700 (`f64`) or 87 (`f32`), within 1 ulp.
    fn exp_lane(self) -> Self;
    /// Hyperbolic tangent, within 3 ulp.
    fn tanh_lane(self) -> Self;
    /// ln(1 + x) for x ≥ 0, ∞ included, within 2 ulp.
    fn ln_1p_lane(self) -> Self;
    /// ln x for normal x below 2¹⁰²² (`f64`) or 2¹²⁶ (`f32`), within 2 ulp.
    fn ln_lane(self) -> Self;
    /// sin x within 1 ulp and cos x within 1.5 for |x| ≤ π/4: x² is rounded (¼), 1 − x²/2 (½) and the sum (½).
    fn sin_cos_lane(self) -> (Self, Self);
    /// x Φ(x) within 16 ulp, and its derivative Φ(x) + x φ(x) within 2 ulp of 1 (Hendrycks & Gimpel 2016,
    /// eq. 1). Where x > −2 the roundings of t, of the last step of P and of 1 − Φ(−u) add up to 8 ulp at most.
    /// Below −37.5 (`f32`: −13) Φ(x) and φ(x) are taken for 0; NaN for −∞.
    fn gelu_lane(self) -> (Self, Self);
}

/// (eʳ − 1 − r)/r² on |r| ≤ ½ ln 2, by powers of r.
const EXPM1_F64: [f64; 11] = [
    0.5,
    0.1666666666666667,
    0.04166666666666667,
    0.008333333333326136,
    0.0013888888888883748,
    0.00019841269874820627,
    2.4801587325547743e-05,
    2.7557255400206422e-06,
    2.75572736431103e-07,
    2.5105217004720745e-08,
    2.0914686968086876e-09,
];

/// The same for `f32`.
const EXPM1_F32: [f32; 6] = [0.5, 0.16666667, 0.041666467, 0.0083333105, 0.001393365, 1.9890991e-04];

/// (ln((1 + s)/(1 − s)) − 2s)/s³ by powers of s², for 1 + s over 1 − s within √½ and √2.
const LN_F64: [f64; 7] = [
    0.666666666666667,
    0.3999999999989889,
    0.28571428626253836,
    0.22222211089379496,
    0.1818289243253687,
    0.15331611722055008,
    0.14617807153417325,
];

/// The same for `f32`.
const LN_F32: [f32; 4] = [0.6666667, 0.40000123, 0.2855078, 0.23331614];

/// (sin x − x)/x³ by powers of x², for |x| ≤ π/4.
const SIN_F64: [f64; 6] = [
    -0.16666666666666666,
    0.008333333333330948,
    -0.00019841269836758574,
    2.755731610255244e-06,
    -2.5051131845003624e-08,
    1.5918129294866608e-10,
];

/// The same for `f32`.
const SIN_F32: [f32; 3] = [-0.16666665, 0.008332748, -1.958789e-04];

/// (cos x − 1 + x²/2)/x⁴ by powers of x², for |x| ≤ π/4.
const COS_F64: [f64; 6] = [
    0.041666666666666664,
    -0.0013888888888887398,
    2.480158729876569e-05,
    -2.7557317271729793e-07,
    2.08761462684032e-09,
    -1.1382632425521717e-11,
];

/// The same for `f32`.
const COS_F32: [f32; 3] = [0.041666664, -0.0013888303, 2.4547942e-05];

/// P, by powers of t, up to u = 37.5.
const TAIL_F64: [f64; 24] = [
    0.07691930497500629,
    -0.143457555264012,
    0.11606881188600321,
    -0.08088387726412631,
    0.04785535228417471,
    -0.023413900487728706,
    0.008991370550485496,
    -0.0023788443561406376,
    0.00021955073887069564,
    0.0001342768388824342,
    -6.04274918499575e-05,
    9.613279980396006e-07,
    6.6444635395936935e-06,
    -1.270141640414735e-06,
    -6.752087027730236e-07,
    2.4346540579004224e-07,
    7.73686915057667e-08,
    -3.928042081911513e-08,
    -1.132474651733513e-08,
    5.7122765994970334e-09,
    2.06240727291277e-09,
    -5.223786466001486e-10,
    -3.0547794697701043e-10,
    -2.971375852555363e-11,
];

/// The same for `f32`, up to u = 13.
const TAIL_F32: [f32; 12] = [
    0.0769193,
    -0.14345756,
    0.11606881,
    -0.08088383,
    0.047855403,
    -0.023414543,
    0.008990217,
    -0.0023758472,
    2.28025e-04,
    1.3422551e-04,
    -7.874494e-05,
    -1.9431227e-05,
];

/// Σ cᵢxⁱ
macro_rules! polynomial {
    ($x:expr, $c:expr) => {{
        let (last, rest) = ($c[$c.len() - 1], &$c[..$c.len() - 1]);
        rest.iter().rev().fold(last, |sum, &c| sum.mul_add($x, c))
    }};
}

macro_rules! elementary {
    (
        $t:ident, $bits:ident, mantissa $mantissa:literal, bias $bias:literal,
        magic $magic:literal, ln2 $ln2_high:literal + $ln2_low:literal,
        saturated $saturated:literal, gone $gone:literal, density $density:literal,
        $reduced:ident, $expm1:ident, $log:ident, $ln:ident, $sin:ident, $cos:ident, $tail:ident
    ) => {
        /// (2ⁿ, eʳ − 1) with x = n·ln 2 + r.
        #[inline(always)]
        fn $reduced(x: $t) -> ($t, $t) {
            // Adding a number whose last place is 1 rounds to an integer, and leaves it in the last bits.
            let shifted = x.mul_add(std::$t::consts::LOG2_E, $magic);
            let n = shifted - $magic;
            let power = $t::from_bits(shifted.to_bits().wrapping_add($bias) << $mantissa);
            let r = n.mul_add(-$ln2_low, n.mul_add(-$ln2_high, x));
            (power, (r * r).mul_add(polynomial!(r, $expm1), r))
        }

        /// k·ln 2 + ln(1 + f) for 1 + f within √½ and √2.
        #[inline(always)]
        fn $log(k: $t, f: $t) -> $t {
            let s = f / (2.0 + f);
            let half = 0.5 * f * f;
            let curved = s * (s * s).mul_add(polynomial!(s * s, $ln), half);
            k.mul_add($ln2_high, f - (half - k.mul_add($ln2_low, curved)))
        }

        impl Elementary for $t {
            #[inline(always)]
            fn exp_lane(self) -> Self {
                let (power, rest) = $reduced(self);
                power.mul_add(rest, power)
            }

            #[inline(always)]
            fn tanh_lane(self) -> Self {
                let size = self.abs();
                let size = if size > $saturated { $saturated } else { size };
                // With E = e^(2|x|) − 1, which keeps its relative accuracy: E/(E + 2).
                let (power, rest) = $reduced(size + size);
                let grown = power.mul_add(rest, power - 1.0);
                (grown / (grown + 2.0)).copysign(self)
            }

            #[inline(always)]
            fn ln_1p_lane(self) -> Self {
                // 1 + x is 2ᵏ(1 + f) with 1 + f within √½ and √2; the two halves of 2⁻ᵏ are normal numbers.
                let k = (1.0 + self).to_bits().wrapping_sub(std::$t::consts::FRAC_1_SQRT_2.to_bits())
                    >> $mantissa;
                let first = $t::from_bits(($bias as $bits).wrapping_sub(k >> 1) << $mantissa);
                let second = $t::from_bits(($bias as $bits).wrapping_sub(k - (k >> 1)) << $mantissa);
                let f = (self * first).mul_add(second, first * second - 1.0);
                let k = $t::from_bits(($magic as $t).to_bits().wrapping_add(k)) - $magic;
                let log = $log(k, f);
                if self <= $t::MAX { log } else { self }
            }

            #[inline(always)]
            fn ln_lane(self) -> Self {
                // x is 2ᵏ(1 + f); k with the bias added is no negative number.
                let least = std::$t::consts::FRAC_1_SQRT_2.to_bits() - (($bias as $bits) << $mantissa);
                let k = self.to_bits().wrapping_sub(least) >> $mantissa;
                let f = self * $t::from_bits((2 * ($bias as $bits)).wrapping_sub(k) << $mantissa) - 1.0;
                let k = $t::from_bits(($magic as $t).to_bits().wrapping_add(k)) - ($magic + $bias as $t);
                $log(k, f)
            }

            #[inline(always)]
            fn sin_cos_lane(self) -> (Self, Self) {
                let square = self * self;
                let sin = (self * square).mul_add(polynomial!(square, $sin), self);
                let cos =
                    (square * square).mul_add(polynomial!(square, $cos), (-0.5 as $t).mul_add(square, 1.0));
                (sin, cos)
            }

            #[inline(always)]
            fn gelu_lane(self) -> (Self, Self) {
                let size = self.abs();
                let u = if size > $gone { $gone } else { size };
                let square = u * u;
                let lost = u.mul_add(u, -square);
                let bell = (-0.5 * square).exp_lane();
                let bell = bell.mul_add(-0.5 * lost, bell);
                let bell = if size > $gone { 0.0 } else { bell };
                let t = (u - 5.0) / (u + 5.0);
                let tail = bell * polynomial!(t, $tail);
                let cdf = if self < 0.0 { tail } else { 1.0 - tail };
                (self * cdf, self.mul_add(bell * $density, cdf))
            }
        }
    };
}

elementary!(
    f64, u64, mantissa 52, bias 1023, magic 6_755_399_441_055_744.0,
    ln2 0.693_147_180_485_539_1 + 7.440_617_110_012_397e-11, saturated 20.0, gone 37.5, density 0.398_942_280_401_432_7,
    reduced_f64, EXPM1_F64, log_f64, LN_F64, SIN_F64, COS_F64, TAIL_F64
);
elementary!(
    f32, u32, mantissa 23, bias 127, magic 12_582_912.0,
    ln2 0.693_115_23 + 3.194_618_5e-5, saturated 10.0, gone 13.0, density 0.398_942_3,
    reduced_f32, EXPM1_F32, log_f32, LN_F32, SIN_F32, COS_F32, TAIL_F32
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Arith;
    use crate::num::rng::{Key, Purpose, uniform};

    /// `function x value`: bits of f64, the values rounded from 60 digits.
    const TABLE: &str = include_str!("../../tests/data/elementary.txt");
    const FUNCTIONS: [&str; 8] = ["exp", "tanh", "ln_1p", "ln", "sin", "cos", "gelu", "slope"];

    fn of<T: Elementary>(function: &str, x: T) -> T {
        match function {
            "exp" => x.exp_lane(),
            "tanh" => x.tanh_lane(),
            "ln_1p" => x.ln_1p_lane(),
            "ln" => x.ln_lane(),
            "sin" => x.sin_cos_lane().0,
            "cos" => x.sin_cos_lane().1,
            "gelu" => x.gelu_lane().0,
            _ => x.gelu_lane().1,
        }
    }

    /// Bounds in ulp as the trait states them; the slope's unit is an ulp of 1.
    fn bound(function: &str, x: f64) -> f64 {
        match function {
            "exp" | "sin" => 1.0,
            "cos" => 1.5,
            "tanh" => 3.0,
            "gelu" if x <= -2.0 => 16.0,
            "gelu" => 8.0,
            _ => 2.0,
        }
    }

    /// How far `value` is from `exact` in last places of a type with `digits` bits.
    fn ulps(function: &str, value: f64, exact: f64, digits: i32) -> f64 {
        let size = if function == "slope" { 1.0 } else { exact.abs() };
        (value - exact).abs() / libm::ldexp(1.0, libm::ilogb(size) + 1 - digits)
    }

    #[test]
    fn values_are_those_of_sixty_digits() {
        let mut lines = 0;
        for line in TABLE.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [x, exact] =
                [1, 2].map(|i| f64::from_bits(u64::from_str_radix(words[i], 16).expect("bits in base 16")));
            // What the table's own rounding adds.
            let far = ulps(words[0], of(words[0], x), exact, 53) - 0.5;
            assert!(far <= bound(words[0], x), "{} {x}: {far} ulp", words[0]);
            lines += 1;
        }
        assert_eq!(lines, 80 * FUNCTIONS.len());
    }

    fn plain(function: &str, x: f64) -> f64 {
        let cdf = || 0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2);
        match function {
            "exp" => libm::exp(x),
            "tanh" => libm::tanh(x),
            "ln_1p" => libm::log1p(x),
            "ln" => libm::log(x),
            "sin" => libm::sin(x),
            "cos" => libm::cos(x),
            "gelu" => x * cdf(),
            _ => cdf() + x * 0.398_942_280_401_432_7 * libm::exp(-0.5 * x * x),
        }
    }

    /// Fills `x` with arguments of every size that a function takes.
    fn draw(function: &str, x: &mut [f64], iteration: u64) {
        let mut rng = Key::new([8; 32], Purpose::Probe, 0).at(iteration);
        for (i, x) in x.iter_mut().enumerate() {
            let u = 2.0 * uniform(&mut rng) - 1.0;
            let small = libm::exp2(-40.0 * uniform(&mut rng)) * u;
            *x = match (function, i % 2) {
                ("exp", 0) => 700.0 * u,
                ("ln_1p", 0) => libm::exp2(500.0 * (u + 1.0)),
                ("ln_1p", _) => 4.0 * small.abs(),
                ("ln", 0) => libm::exp2(120.0 * u),
                ("ln", _) => 1.0 + 0.5 * small,
                ("sin" | "cos", 0) => std::f64::consts::FRAC_PI_4 * u,
                ("sin" | "cos", _) => std::f64::consts::FRAC_PI_4 * small,
                (_, 0) => 6.0 * u,
                _ => 4.0 * small,
            };
        }
    }

    /// The bounds of libm are below 1 ulp, 2 for tanh. The reference of GELU rounds its argument twice, by
    /// 2⁻⁵² of it at most, which x² times that of the value follows from; a value has up to 2 ulp to 2⁻⁵².
    #[test]
    fn values_are_those_of_libm() {
        let mut x = vec![0.0; 4096];
        let mut values = x.clone();
        for function in FUNCTIONS {
            for round in 0..2500 {
                draw(function, &mut x, round);
                Arith::current().run(
                    #[inline(always)]
                    || values.iter_mut().zip(&x).for_each(|(v, &x)| *v = of(function, x)),
                );
                for (&x, &value) in x.iter().zip(&values) {
                    let slack = if function == "gelu" { 6.0 + 2.0 * x * x } else { 2.0 };
                    let far = ulps(function, value, plain(function, x), 53);
                    assert!(far <= bound(function, x) + slack, "{function} {x}: {far} ulp");
                }
            }
        }
    }

    /// Every `stride`-th `f32` that a function takes, against libm in `f64`.
    fn check_f32(stride: u32) {
        for function in FUNCTIONS {
            let (low, high): (f32, f32) = match function {
                "exp" => (-87.0, 87.0),
                "tanh" => (-20.0, 20.0),
                "ln_1p" => (0.0, f32::MAX),
                "ln" => (0.0, f32::MAX / 4.0),
                "sin" | "cos" => (-std::f32::consts::FRAC_PI_4, std::f32::consts::FRAC_PI_4),
                _ => (-13.0, 13.0),
            };
            for (from, sign) in [(high, 1.0f32), (low.abs(), -1.0)] {
                let mut bits = if function == "ln" { f32::MIN_POSITIVE.to_bits() } else { 1 };
                while bits <= from.to_bits() {
                    let x = sign * f32::from_bits(bits);
                    let exact = plain(function, f64::from(x));
                    let far = ulps(function, f64::from(of(function, x)), exact, 24);
                    let normal = function == "slope" || exact.abs() >= f64::from(f32::MIN_POSITIVE);
                    assert!(!normal || far <= bound(function, f64::from(x)), "{function} {x}: {far} ulp");
                    bits += stride;
                }
            }
        }
    }

    #[test]
    fn values_of_f32_are_those_of_f64() {
        check_f32(1009);
    }

    #[test]
    #[ignore = "takes minutes: every f32"]
    fn all_values_of_f32_are_those_of_f64() {
        check_f32(1);
    }

    #[test]
    fn special_values_come_out_as_they_should() {
        fn check<T: Elementary + crate::num::Real>() {
            let [zero, infinite, nan] = [0.0, f64::INFINITY, f64::NAN].map(T::from_f64);
            let text = |x: T| x.to_string();
            for function in FUNCTIONS {
                assert_eq!(text(of(function, nan)), "NaN", "{function}");
            }
            assert_eq!(text(zero.exp_lane()), "1");
            assert_eq!(text((-zero).tanh_lane()), "-0");
            assert_eq!(text(infinite.tanh_lane()), "1");
            assert_eq!(text((-infinite).tanh_lane()), "-1");
            assert_eq!(text(zero.ln_1p_lane()), "0");
            assert_eq!(text(infinite.ln_1p_lane()), "inf");
            assert_eq!(text(zero.gelu_lane().1), "0.5");
            assert_eq!(text(T::from_f64(1e30).gelu_lane().1), "1");
            assert_eq!(text(T::from_f64(-1e30).gelu_lane().0), "-0");
            assert_eq!(text(infinite.gelu_lane().0), "inf");
        }
        check::<f32>();
        check::<f64>();
        let least = f64::from_bits(1);
        assert_eq!((least.tanh_lane(), least.ln_1p_lane()), (least, least));
        assert_eq!(f64::MAX.ln_1p_lane(), libm::log1p(f64::MAX));
    }

    #[test]
    fn all_instruction_sets_give_the_same_bits() {
        let mut x = vec![0.0; 1000];
        for function in FUNCTIONS {
            draw(function, &mut x, 0);
            let values = |arith: Arith| {
                let (mut wide, mut narrow) = (vec![0u64; x.len()], vec![0u32; x.len()]);
                arith.run(
                    #[inline(always)]
                    || {
                        for ((w, n), &x) in wide.iter_mut().zip(&mut narrow).zip(&x) {
                            (*w, *n) = (of(function, x).to_bits(), of(function, x as f32).to_bits());
                        }
                    },
                );
                (wide, narrow)
            };
            for arith in Arith::ALL.into_iter().filter(|a| a.is_available()) {
                assert!(values(arith) == values(Arith::Generic), "{arith}: {function}");
            }
        }
    }
}
