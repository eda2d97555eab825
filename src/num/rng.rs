//! Random streams: every number is a pure function of (id, purpose, chain, iteration).
//!
//! A [`Key`] names a stream; [`Key::at`] opens the stream's generator at an iteration. No generator
//! outlives its iteration, so a restart needs no generator state and the number of ranks, threads
//! or checkpoints cannot move a bit.
//!
//! The generator is ChaCha with 8 rounds (Bernstein 2008; Aumasson, "Too Much Crypto", 2019, on
//! why 8 rounds are ample). Layout of its 320 bits of input: the 256-bit key is the id; the 64-bit
//! nonce is `purpose << 32 | chain`; the 64-bit block counter is `iteration << 24`, which leaves
//! 2²⁴ blocks of 16 words (2²⁸ words) to one iteration and 2⁴⁰ iterations to a stream.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::Real;

/// What a stream is used for. Numbers are part of the format: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Purpose {
    /// Parameters of the teacher network.
    Teacher = 1,
    /// Inputs X.
    Inputs = 2,
    /// Noise added to the outputs.
    Noise = 3,
    /// Initial parameters of the student.
    Init = 4,
    /// Minibatches of training.
    Training = 5,
    /// The centre w* of exact problems.
    Centre = 6,
    /// Shared warmup of a run.
    Warmup = 16,
    /// A chain's own iterations.
    Chain = 17,
    /// The control chain at half the step.
    Control = 18,
    /// Probing the potential (power iterations, gradient noise).
    Probe = 19,
    /// Proposals of a study; the iteration is the trial's number.
    Proposal = 32,
    /// The shift of a study's first points.
    Startup = 36,
    /// The bracket of a trial.
    Bracket = 33,
    /// The order of a grid.
    Grid = 34,
    /// Trees that say which parameters matter.
    Forest = 35,
}

/// Names one random stream: 32 bytes of identity, a purpose and a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    id: [u8; 32],
    purpose: Purpose,
    chain: u32,
}

impl Key {
    /// The stream of `id` for `purpose` and `chain`.
    pub fn new(id: [u8; 32], purpose: Purpose, chain: u32) -> Self {
        Self { id, purpose, chain }
    }

    /// The generator at the start of `iteration` (below 2⁴⁰).
    pub fn at(&self, iteration: u64) -> ChaCha8Rng {
        debug_assert!(iteration < 1 << 40);
        let mut rng = ChaCha8Rng::from_seed(self.id);
        rng.set_stream((self.purpose as u64) << 32 | u64::from(self.chain));
        rng.set_word_pos(u128::from(iteration) << 28);
        rng
    }
}

/// Fills `out` with standard normals, one after the other (ziggurat); samplers take the faster
/// `device::fill_normal`, whose numbers are others.
pub fn fill_normal<T: Real>(rng: &mut ChaCha8Rng, out: &mut [T]) {
    for x in out {
        *x = T::standard_normal(rng);
    }
}

/// A uniform variate in [0, 1) with 53 random bits.
pub fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    rand::Rng::next_u64(rng).wrapping_shr(11) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// A uniform index in `0..n` (Lemire 2019, multiply–shift without rejection: the bias is below
/// n / 2⁶⁴). `n` must be positive.
pub fn index(rng: &mut ChaCha8Rng, n: usize) -> usize {
    ((u128::from(rand::Rng::next_u64(rng)) * n as u128) >> 64) as usize
}

/// Fills `out` with what as many calls of [`index`] give; several times as fast.
pub fn fill_index(rng: &mut ChaCha8Rng, n: usize, out: &mut [u32]) {
    let mut bytes = [0; 512];
    for chunk in out.chunks_mut(bytes.len() / 8) {
        let bytes = &mut bytes[..8 * chunk.len()];
        rand::Rng::fill_bytes(rng, bytes);
        for (i, word) in chunk.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *i = ((u128::from(u64::from_le_bytes(*word)) * n as u128) >> 64) as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_depend_on_every_part_of_the_key_and_on_nothing_else() {
        let first = |id: u8, purpose, chain, iteration| {
            uniform(&mut Key::new([id; 32], purpose, chain).at(iteration))
        };
        let base = first(1, Purpose::Chain, 0, 0);
        assert_eq!(base, first(1, Purpose::Chain, 0, 0));
        for other in [
            first(2, Purpose::Chain, 0, 0),
            first(1, Purpose::Warmup, 0, 0),
            first(1, Purpose::Chain, 1, 0),
            first(1, Purpose::Chain, 0, 1),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn normals_have_the_moments_of_a_normal() {
        let mut x = vec![0.0f64; 400_000];
        fill_normal(&mut Key::new([7; 32], Purpose::Probe, 3).at(11), &mut x);
        let n = x.len() as f64;
        let moment = |k: i32| x.iter().map(|v| v.powi(k)).sum::<f64>() / n;
        // Standard errors of the first four moments: sqrt(1/n), sqrt(2/n), sqrt(15/n), sqrt(96/n).
        assert!(moment(1).abs() < 4.0 * (1.0 / n).sqrt());
        assert!((moment(2) - 1.0).abs() < 4.0 * (2.0 / n).sqrt());
        assert!(moment(3).abs() < 4.0 * (15.0 / n).sqrt());
        assert!((moment(4) - 3.0).abs() < 4.0 * (96.0 / n).sqrt());
    }

    #[test]
    fn many_indices_are_those_drawn_one_by_one() {
        for (count, n) in [(1, 5), (64, 100), (300, 20_000)] {
            let key = Key::new([4; 32], Purpose::Probe, 1);
            let (mut rng, mut other) = (key.at(3), key.at(3));
            let mut all = vec![0; count];
            fill_index(&mut rng, n, &mut all);
            let singles: Vec<u32> = (0..count).map(|_| index(&mut other, n) as u32).collect();
            assert_eq!(all, singles);
            assert_eq!(uniform(&mut rng), uniform(&mut other), "both stand at the same place");
        }
    }

    #[test]
    fn indices_are_uniform() {
        let mut rng = Key::new([9; 32], Purpose::Probe, 0).at(0);
        let (cells, draws) = (7, 70_000);
        let mut count = vec![0.0f64; cells];
        for _ in 0..draws {
            count[index(&mut rng, cells)] += 1.0;
        }
        let expected = draws as f64 / cells as f64;
        let chi2: f64 = count.iter().map(|c| (c - expected).powi(2) / expected).sum();
        assert!(chi2 < 22.5, "chi-squared with 6 degrees of freedom is above its 99.9 % quantile: {chi2}");
    }
}
