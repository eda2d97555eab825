//! Standard normals for whole vectors, after Box & Muller 1958 (Ann. Math. Stat. 29, 610).
//!
//! A pair is r·cos φ and r·sin φ with r = √(−2 ln u), u uniform on (0, 1), φ uniform on the circle. φ is an angle
//! within π/4 of an axis: one random bit says whether cosine and sine change places, another turns the cosine's sign.
//! Nothing branches, so that a loop over pairs compiles to vectors, with the same bits on all instruction sets.

use std::f32::consts::FRAC_PI_4;
use std::f64::consts::FRAC_PI_2;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{Arith, Element, Elementary};

/// Pairs that are made together: first all of one half of their random words, then the other.
const TOGETHER: usize = 64;

/// A number type that pairs of normals can be made of.
pub trait Normal: Elementary {
    /// The random word that the radius comes from; its spare bits belong to the angle.
    type Word: Copy;
    /// Zero.
    const NO_WORD: Self::Word;
    /// The word's bytes, little-endian.
    fn words(bytes: &[u8], words: &mut [Self::Word]);
    /// Two independent standard normals. They are within ±6.66 (`f32`) or ±8.57 (`f64`).
    fn pair(word: Self::Word, turn: u32) -> (Self, Self);
}

/// r·cos φ and r·sin φ of an angle within π/4, with places and sign as the last two bits of `turn` say.
macro_rules! turned {
    ($t:ident, $r:expr, $angle:expr, $turn:expr) => {{
        let (sin, cos) = $angle.sin_cos_lane();
        let cos = $t::from_bits(cos.to_bits() ^ ($turn & 2) << (8 * size_of::<$t>() - 2));
        let (a, b) = ($r * cos, $r * sin);
        if $turn & 1 == 0 { (a, b) } else { (b, a) }
    }};
}

impl Normal for f64 {
    type Word = u64;
    const NO_WORD: u64 = 0;

    #[inline(always)]
    fn words(bytes: &[u8], words: &mut [u64]) {
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
    }

    /// u is an odd multiple of 2⁻⁵³; the angle has 42 bits.
    #[inline(always)]
    fn pair(word: u64, turn: u32) -> (f64, f64) {
        // With the exponent of 1 before them, bits are a number in [1, 2).
        let one = 1.0f64.to_bits();
        let u = f64::from_bits(word >> 12 | one) - (1.0 - 0.5 * f64::EPSILON);
        let turn = u64::from(turn) << 12 | word & 0xfff;
        let angle = (f64::from_bits(turn >> 2 << 10 | one) - 1.5) * FRAC_PI_2;
        turned!(f64, (-2.0 * u.ln_lane()).sqrt(), angle, turn)
    }
}

impl Normal for f32 {
    type Word = u32;
    const NO_WORD: u32 = 0;

    #[inline(always)]
    fn words(bytes: &[u8], words: &mut [u32]) {
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
    }

    /// u is an odd multiple of 2⁻³², rounded; the angle has 30 bits.
    #[inline(always)]
    fn pair(word: u32, turn: u32) -> (f32, f32) {
        // Signed integers of 32 bits are what every instruction set converts.
        let u = ((word >> 1) as i32 as f32 + 0.5) * (1.0 / (1u32 << 31) as f32);
        let angle = (turn as i32 >> 2) as f32 * (FRAC_PI_4 / (1 << 29) as f32);
        turned!(f32, (-2.0 * u.ln_lane()).sqrt(), angle, turn)
    }
}

/// Fills `out` with independent standard normals. Each depends on the generator's place and on how long `out` is.
pub fn fill_normal<T: Element>(rng: &mut ChaCha8Rng, out: &mut [T]) {
    Arith::current().run(
        #[inline(always)]
        || fill(rng, out),
    );
}

#[inline(always)]
fn fill<T: Element>(rng: &mut ChaCha8Rng, out: &mut [T]) {
    let mut bytes = [0; 8 * TOGETHER];
    let (mut words, mut turns) = ([T::NO_WORD; TOGETHER], [0; TOGETHER]);
    let (mut x, mut y) = ([T::ZERO; TOGETHER], [T::ZERO; TOGETHER]);
    for chunk in out.chunks_mut(2 * TOGETHER) {
        let pairs = chunk.len().div_ceil(2);
        let bytes_of_words = &mut bytes[..pairs * size_of::<T::Word>()];
        rng.fill_bytes(bytes_of_words);
        T::words(bytes_of_words, &mut words);
        let bytes_of_turns = &mut bytes[..pairs * size_of::<u32>()];
        rng.fill_bytes(bytes_of_turns);
        f32::words(bytes_of_turns, &mut turns);
        // Whole vectors; pairs beyond the last are of words left over, and go nowhere.
        let whole = pairs.next_multiple_of(8);
        let of = words[..whole].iter().zip(&turns[..whole]);
        for ((x, y), (&word, &turn)) in x[..whole].iter_mut().zip(&mut y[..whole]).zip(of) {
            (*x, *y) = T::pair(word, turn);
        }
        let (first, second) = chunk.split_at_mut(pairs);
        first.copy_from_slice(&x[..pairs]);
        second.copy_from_slice(&y[..second.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::rng::{Key, Purpose};

    fn key(n: u8) -> Key {
        Key::new([n; 32], Purpose::Probe, 0)
    }

    /// Φ
    fn cdf(x: f64) -> f64 {
        0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2)
    }

    /// Counts of 10⁸ draws in cells of 2⁻¹⁴ from −16 to 16.
    fn histogram<T: Element>() -> Vec<u32> {
        let mut cells = vec![0; 32 << 14];
        let mut x = vec![T::ZERO; 100_000];
        for iteration in 0..1000 {
            fill_normal(&mut key(1).at(iteration), &mut x);
            x.iter().for_each(|x| cells[((x.to_f64() + 16.0) * f64::from(1 << 14)) as usize] += 1);
        }
        cells
    }

    /// Kolmogorov & Smirnov: √n·sup|F_n − Φ| is above 1.95 once in a thousand times. Between two edges Φ rises by 2.5·10⁻⁵
    /// at most, a quarter of 1/√n, which the bound does not make use of. Beyond k the count is Poisson's.
    fn check_distribution<T: Element>() {
        let cells = histogram::<T>();
        let n: f64 = cells.iter().map(|&c| f64::from(c)).sum();
        assert_eq!(n, 1e8);
        let edge = |i: usize| i as f64 / f64::from(1 << 14) - 16.0;
        let (mut below, mut worst) = (0.0, 0.0f64);
        for (i, &count) in cells.iter().enumerate() {
            below += f64::from(count);
            worst = worst.max((below / n - cdf(edge(i + 1))).abs());
        }
        assert!(worst * n.sqrt() < 1.95, "{worst}");
        for k in 1..=6 {
            let tails = [16 - k, 16 + k].map(|at| at << 14);
            let counts = [&cells[..tails[0]], &cells[tails[1]..]]
                .map(|c| c.iter().map(|&c| f64::from(c)).sum::<f64>());
            let expected = n * cdf(-(k as f64));
            for count in counts {
                // At 6 it is 0.1 a side: three or more would be seen once in 6000 times.
                let bound = if expected > 1.0 { 4.0 * expected.sqrt() } else { 2.5 };
                assert!((count - expected).abs() < bound, "beyond {k}: {count} of {expected}");
            }
        }
    }

    #[test]
    fn a_hundred_million_of_f64_are_normal() {
        check_distribution::<f64>();
    }

    #[test]
    fn a_hundred_million_of_f32_are_normal() {
        check_distribution::<f32>();
    }

    /// Sums over `n` draws of products of powers that have known means and variances.
    #[test]
    fn moments_are_those_of_independent_normals() {
        fn check<T: Element>() {
            let n = 4_000_000;
            let mut x = vec![T::ZERO; n];
            fill_normal(&mut key(2).at(5), &mut x);
            let x: Vec<f64> = x.iter().map(|x| x.to_f64()).collect();
            let near = |what: &str, values: &mut dyn Iterator<Item = f64>, mean: f64, variance: f64| {
                let (sum, count) = values.fold((0.0, 0.0), |(sum, count), v| (sum + v, count + 1.0));
                let far = (sum / count - mean) / (variance / count).sqrt();
                assert!(far.abs() < 4.0, "{what}: {far} standard errors");
            };
            // E x²ᵏ is (2k − 1)!!.
            let even = [1.0, 1.0, 3.0, 15.0, 105.0, 945.0, 10_395.0];
            for k in 1..=6i32 {
                let mean = if k % 2 == 0 { even[k as usize / 2] } else { 0.0 };
                let variance = even[k as usize] - mean * mean;
                near(&format!("x^{k}"), &mut x.iter().map(|x| x.powi(k)), mean, variance);
            }
            // A pair stands `TOGETHER` apart; words that follow one another stand side by side.
            for lag in [1, 2, 8, 16, TOGETHER, 2 * TOGETHER] {
                let pairs = || x.iter().zip(&x[lag..]);
                near(&format!("lag {lag}"), &mut pairs().map(|(a, b)| a * b), 0.0, 1.0);
                near(&format!("lag {lag}, squares"), &mut pairs().map(|(a, b)| a * a * b * b), 1.0, 8.0);
                near(&format!("lag {lag}, cubes"), &mut pairs().map(|(a, b)| a.powi(3) * b), 0.0, 15.0);
            }
        }
        check::<f64>();
        check::<f32>();
    }

    /// Every word is a pair of finite numbers, on the circle that its radius says.
    #[test]
    fn extreme_words_are_normals() {
        for turn in [0, 1, 2, 3, u32::MAX, 1 << 31, 0x7fff_ffff, 0x1234_5678] {
            for (word, radius) in [(0, 8.57), (u64::MAX, 0.0)] {
                let (x, y) = f64::pair(word, turn);
                assert!((x.hypot(y) - radius).abs() < 5e-3, "{x} {y}");
            }
            for (word, radius) in [(0, 6.66), (u32::MAX, 0.0)] {
                let (x, y) = f32::pair(word, turn);
                assert!((x.hypot(y) - radius).abs() < 5e-3, "{x} {y}");
            }
        }
    }

    #[test]
    fn all_lengths_are_filled_and_leave_the_generator_at_a_place_of_their_own() {
        for n in (0..300).chain([1000]) {
            let mut x = vec![f64::NAN; n];
            let mut rng = key(3).at(0);
            fill_normal(&mut rng, &mut x);
            assert!(x.iter().all(|x| x.is_finite()), "{n}");
            // Three words of 32 bits a pair.
            assert_eq!(rng.get_word_pos(), 3 * n.div_ceil(2) as u128, "{n}");
        }
    }

    #[test]
    fn all_instruction_sets_give_the_same_bits() {
        for n in [1, 45, 128, 9921] {
            let values = |arith: Arith| {
                let (mut wide, mut narrow) = (vec![0.0f64; n], vec![0.0f32; n]);
                arith.run(
                    #[inline(always)]
                    || {
                        fill(&mut key(4).at(1), &mut wide);
                        fill(&mut key(4).at(2), &mut narrow);
                    },
                );
                let narrow: Vec<u32> = narrow.into_iter().map(f32::to_bits).collect();
                (wide.into_iter().map(f64::to_bits).collect::<Vec<u64>>(), narrow)
            };
            for arith in Arith::ALL.into_iter().filter(|a| a.is_available()) {
                assert!(values(arith) == values(Arith::Generic), "{arith}");
            }
        }
    }
}
