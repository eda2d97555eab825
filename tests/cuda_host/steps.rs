//! Random numbers and sampler steps of the kernels.

use std::path::Path;

use lambda_hat::config::{Activation, Loss, Network};
use lambda_hat::device::SharedMemory;
use lambda_hat::target::{NetworkPlan, NetworkPotential, Potential, param_count};

use super::host::{Requests, Wire, host, take_words};
use super::{distance, normals, wide};

pub const KEY: [u32; 2] = [0x0123_4567, 0x89ab_cdef];
pub const PURPOSE: u32 = 17;

#[test]
fn structures_have_the_sizes_that_launches_give_them() {
    let Some(program) = host(false) else { return };
    let mut requests = Requests::default();
    requests.begin::<f32>("sizes", false);
    requests.begin::<f64>("sizes", false);
    let answers = requests.run(&program);
    // What `NetworkPlan::to_bytes` gives, and addresses of 8 bytes, doubles and ints without padding.
    let expected = [
        18 * 4 + 2 * 8 + 24 * 14 * 4,
        7 * 8 + 2 * 4,
        6 * 4 + 6 * 8 + 7 * 8 + 6 * 4,
        4 * 4 + 3 * 8 + 11 * 8 + 5 * 8 + 4 * 4,
        16 * 8,
        // Three sums a thread, and what thread 0 tells the others.
        3 * 64 * 8 + 3 * 8 + 4 * 4,
    ];
    assert_eq!(take_words(&mut &answers[..], 12), [expected, expected].concat());
}

#[test]
fn words_are_those_of_the_published_generator() {
    let Some(program) = host(false) else { return };
    // Random123's known answers for philox4x32 with ten rounds (kat_vectors): counter, key, words.
    let known: [([u32; 4], [u32; 2], [u32; 4]); 3] = [
        ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
        ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
        (
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xa409_3822, 0x299f_31d0],
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
        ),
    ];
    let mut requests = Requests::default();
    requests.begin::<f32>("words", false);
    requests.integers(&[known.len() as i32]);
    for (counter, key, _) in &known {
        requests.words(counter);
        requests.words(key);
    }
    let answers = requests.run(&program);
    let words = take_words(&mut &answers[..], 4 * known.len());
    let expected: Vec<u32> = known.iter().flat_map(|k| k.2).collect();
    assert_eq!(words, expected);
}

/// Normals of a chain's step, whose first block of random words is `first`.
pub fn noise<T: Wire>(program: &Path, chain: u32, step: u64, first: u32, count: usize) -> Vec<T> {
    let mut requests = Requests::default();
    requests.begin::<T>("normals", false);
    requests.words(&[KEY[0], KEY[1], PURPOSE, chain, step as u32, (step >> 32) as u32, first, count as u32]);
    T::take(&mut &requests.run(program)[..], count)
}

#[test]
fn normals_have_the_moments_of_a_normal_and_depend_on_every_part_of_the_key() {
    let Some(program) = host(false) else { return };
    fn check<T: Wire>(program: &Path) {
        let x = wide(&noise::<T>(program, 3, 11, 0, 400_000));
        let n = x.len() as f64;
        let moment = |k: i32| x.iter().map(|v| v.powi(k)).sum::<f64>() / n;
        // Standard errors of the first four moments: sqrt(1/n), sqrt(2/n), sqrt(15/n), sqrt(96/n).
        assert!(moment(1).abs() < 4.0 * (1.0 / n).sqrt());
        assert!((moment(2) - 1.0).abs() < 4.0 * (2.0 / n).sqrt());
        assert!(moment(3).abs() < 4.0 * (15.0 / n).sqrt());
        assert!((moment(4) - 3.0).abs() < 4.0 * (96.0 / n).sqrt());
        let lag: f64 = x.windows(2).map(|w| w[0] * w[1]).sum::<f64>() / n;
        assert!(lag.abs() < 4.0 * (1.0 / n).sqrt());
        let some = |chain, step, first| noise::<T>(program, chain, step, first, 8);
        let base = some(3, 11, 0);
        assert_eq!(wide(&base), x[..8]);
        for other in [some(4, 11, 0), some(3, 12, 0), some(3, 11 + (1 << 32), 0), some(3, 11, 50)] {
            assert!(base.iter().zip(&other).all(|(a, b)| a != b));
        }
    }
    check::<f32>(&program);
    check::<f64>(&program);
}

/// The first blocks of random words of a chain's step.
pub fn words_of(program: &Path, chain: u32, step: u64, blocks: usize) -> Vec<u32> {
    let mut requests = Requests::default();
    requests.begin::<f32>("words", false);
    requests.integers(&[blocks as i32]);
    for block in 0..blocks as u32 {
        requests.words(&[block, step as u32, chain, PURPOSE << 8 | (step >> 32) as u32, KEY[0], KEY[1]]);
    }
    take_words(&mut &requests.run(program)[..], 4 * blocks)
}

/// An index below `n` from two words, by multiplication and shift.
pub fn index_of(pair: &[u32], n: usize) -> u32 {
    ((u128::from(u64::from(pair[0]) << 32 | u64::from(pair[1])) * n as u128) >> 64) as u32
}

/// Rows that a step draws: two of each block of random words.
fn rows_of(program: &Path, chain: u32, step: u64, batch: usize, n: usize) -> Vec<u32> {
    let words = words_of(program, chain, step, batch.div_ceil(2));
    words.chunks(2).map(|pair| index_of(pair, n)).take(batch).collect()
}

/// Settings of a chain of the test.
#[derive(Clone, Copy, Debug)]
enum Sampler {
    /// `frozen_from`: steps after which the moments stand still.
    Sgld {
        precond: i32,
        correction: bool,
        frozen_from: usize,
    },
    Sghmc,
    Sgnht,
}

const STEP: f64 = 1e-3;
const NBETA: f64 = 40.0;
const GAMMA: f64 = 3.0;
const BETAS: (f64, f64) = (0.9, 0.95);
const EPS: f64 = 0.1;
const FRICTION: f64 = 0.3;
pub const FIRST_CHAIN: u32 = 5;
const FIRST_STEP: u64 = (1 << 32) - 2;
const LAUNCHES: usize = 3;
const STEPS: usize = 2;

/// A chain by the formulas of the CPU's samplers in `f64`, on the device's random numbers.
struct Reference<'a> {
    program: &'a Path,
    chain: u32,
    potential: &'a NetworkPotential<f64>,
    centre: Vec<f64>,
    batch: usize,
}

impl Reference<'_> {
    /// Gradient of the minibatch's mean loss at `w`, and the noise.
    fn draw<T: Wire>(&self, t: usize) -> (Vec<u32>, Vec<f64>) {
        let step = FIRST_STEP + t as u64;
        let rows = rows_of(self.program, self.chain, step, self.batch, self.potential.rows());
        let first = self.batch.div_ceil(2) as u32;
        (rows, wide(&noise::<T>(self.program, self.chain, step, first, self.centre.len())))
    }

    fn gradient(&self, w: &[f64], rows: &[u32]) -> Vec<f64> {
        let (mut grad, mut scratch) =
            (vec![0.0; w.len()], vec![0.0; self.potential.batch_scratch_len(self.batch)]);
        self.potential.batch_loss_grad(w, rows, &mut grad, &mut scratch);
        grad
    }

    /// ∇Ũ
    fn force(&self, w: &[f64], rows: &[u32]) -> Vec<f64> {
        let grad = self.gradient(w, rows);
        (0..w.len()).map(|i| GAMMA * (w[i] - self.centre[i]) + NBETA * grad[i]).collect()
    }

    /// The parameters after all steps.
    fn end<T: Wire>(&self, sampler: Sampler) -> Vec<f64> {
        match sampler {
            Sampler::Sgld { precond, correction, frozen_from } => {
                self.sgld::<T>(precond, correction, frozen_from)
            }
            Sampler::Sghmc => self.sghmc::<T>(),
            Sampler::Sgnht => self.sgnht::<T>(),
        }
    }

    fn sgld<T: Wire>(&self, precond: i32, correction: bool, frozen_from: usize) -> Vec<f64> {
        let d = self.centre.len();
        let mut w = self.centre.clone();
        let (mut first, mut second, mut powers) = (vec![0.0; d], vec![1.0; d], (1.0, 1.0));
        for t in 0..LAUNCHES * STEPS {
            let (rows, eta) = self.draw::<T>(t);
            let grad = self.gradient(&w, &rows);
            let moving = t < frozen_from;
            if moving {
                powers = (powers.0 * BETAS.0, powers.1 * BETAS.1);
            }
            let correct = |power: f64| if correction { 1.0 / (1.0 - power) } else { 1.0 };
            for i in 0..d {
                let (mut direction, mut shrink) = (grad[i], 1.0);
                if precond > 0 {
                    if moving {
                        second[i] = BETAS.1 * second[i] + (1.0 - BETAS.1) * grad[i] * grad[i];
                    }
                    shrink = 1.0 / ((second[i] * correct(powers.1)).sqrt() + EPS);
                }
                if precond == 2 {
                    first[i] = BETAS.0 * first[i] + (1.0 - BETAS.0) * grad[i];
                    direction = first[i] * correct(powers.0);
                }
                let drift = shrink * (GAMMA * (w[i] - self.centre[i]) + NBETA * direction);
                w[i] += -0.5 * STEP * drift + (STEP * shrink).sqrt() * eta[i];
            }
        }
        w
    }

    fn sghmc<T: Wire>(&self) -> Vec<f64> {
        let (mut w, mut v) = (self.centre.clone(), vec![0.0; self.centre.len()]);
        for t in 0..LAUNCHES * STEPS {
            let (rows, xi) = self.draw::<T>(t);
            let force = self.force(&w, &rows);
            for i in 0..w.len() {
                v[i] = (1.0 - FRICTION) * v[i] - STEP * force[i] + (2.0 * FRICTION * STEP).sqrt() * xi[i];
                w[i] += v[i];
            }
        }
        w
    }

    /// From a force of 1 everywhere, which the first half kick takes.
    fn sgnht<T: Wire>(&self) -> Vec<f64> {
        let d = self.centre.len();
        let (mut w, mut p, mut force, mut friction) =
            (self.centre.clone(), vec![0.0; d], vec![1.0; d], FRICTION);
        let half = 0.5 * STEP.sqrt();
        let warm =
            |p: &[f64]| 0.5 * FRICTION / 100.0 * (p.iter().map(|p| p * p).sum::<f64>() / d as f64 - 1.0);
        for t in 0..LAUNCHES * STEPS {
            let (rows, xi) = self.draw::<T>(t);
            for i in 0..d {
                p[i] -= half * force[i];
                w[i] += half * p[i];
            }
            friction += warm(&p);
            let spread = (1.0 - (-2.0 * friction).exp()) / friction;
            for i in 0..d {
                p[i] = (-friction).exp() * p[i] + (FRICTION * spread).sqrt() * xi[i];
            }
            friction += warm(&p);
            w.iter_mut().zip(&p).for_each(|(w, p)| *w += half * p);
            force = self.force(&w, &rows);
            p.iter_mut().zip(&force).for_each(|(p, f)| *p -= half * f);
        }
        w
    }
}

fn chains_agree<T: Wire>(program: &Path, tolerance: f64) {
    let network = Network {
        in_dim: 3,
        hidden: vec![6, 5],
        out_dim: 2,
        activation: Activation::Tanh,
        bias: true,
        layernorm: false,
        residual_period: None,
    };
    let (n, d, chains, batch) = (40, param_count(&network), 3, 21);
    let (x, y): (Vec<T>, Vec<T>) = (normals(n * 3, 90), normals(n * 2, 91));
    let centre: Vec<T> = normals(d, 92);
    let potential = NetworkPotential::new(&network, &wide(&x), &wide(&y), &Loss::Mse);
    let plan = NetworkPlan::for_batch::<T>(&network, &Loss::Mse, batch, SharedMemory::SM_80).expect("fits");
    let mut worst = 0.0f64;
    let sglds = [(0, false, 0), (1, true, 100), (2, true, 100), (1, false, 3), (2, true, 4)];
    let sglds =
        sglds.map(|(precond, correction, frozen_from)| Sampler::Sgld { precond, correction, frozen_from });
    for sampler in sglds.into_iter().chain([Sampler::Sghmc, Sampler::Sgnht]) {
        let (kind, begins) = match sampler {
            Sampler::Sgld { .. } => (0, [1.0; 2]),
            Sampler::Sghmc => (1, [0.0; 2]),
            Sampler::Sgnht => (2, [FRICTION, 0.0]),
        };
        let (precond, correction, frozen_from) = match sampler {
            Sampler::Sgld { precond, correction, frozen_from } => (precond, correction, frozen_from),
            _ => (0, false, 0),
        };
        let mut answers = Vec::new();
        for backwards in [false, true] {
            let mut requests = Requests::default();
            requests.begin::<T>("steps", backwards);
            requests.0.extend(plan.to_bytes());
            requests.integers(&[kind, chains, n as i32, LAUNCHES as i32, STEPS as i32]);
            requests.words(&[
                KEY[0],
                KEY[1],
                PURPOSE,
                FIRST_CHAIN,
                FIRST_STEP as u32,
                (FIRST_STEP >> 32) as u32,
            ]);
            requests.pointers(6);
            requests.doubles(&[STEP, NBETA, GAMMA, BETAS.0, BETAS.1, EPS, FRICTION]);
            requests.integers(&[
                d as i32,
                batch as i32,
                n as i32,
                precond,
                i32::from(correction),
                frozen_from as i32,
            ]);
            for array in [&x, &y, &centre, &vec![T::ONE; d]] {
                T::put(array, &mut requests.0);
            }
            requests.doubles(&begins);
            answers.push(requests.run(program));
        }
        assert!(answers[0] == answers[1], "{sampler:?}: other bits with threads the other way");
        let got = T::take(&mut &answers[0][..], chains as usize * d);
        for (c, w) in got.chunks(d).enumerate() {
            let chain = FIRST_CHAIN + c as u32;
            let reference = Reference { program, chain, potential: &potential, centre: wide(&centre), batch };
            let off = distance(w, &reference.end::<T>(sampler));
            assert!(off <= tolerance, "{sampler:?} chain {c}: {off:e}");
            worst = worst.max(off);
        }
    }
    println!("{}: chains on minibatches, largest relative error {worst:.1e}", T::NAME);
}

#[test]
fn chains_on_minibatches_follow_the_formulas_of_the_cpu() {
    let Some(program) = host(false) else { return };
    chains_agree::<f64>(&program, 1e-12);
    chains_agree::<f32>(&program, 1e-5);
}

#[test]
fn chains_on_minibatches_stay_within_their_memory_and_within_the_language() {
    let Some(program) = host(true) else { return };
    chains_agree::<f32>(&program, 1e-5);
}
