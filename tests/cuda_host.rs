//! The kernels of `kernels/`, built as plain C++ with the system's compiler and compared with the CPU's own passes.
//!
//! Blocks and threads run as loops, threads forwards and backwards: other bits between the two would be threads that
//! race. A share of the cases runs again under the address and undefined-behaviour sanitizers. Without a C++ compiler
//! the tests are skipped, and say so.

#[path = "cuda_host/chains.rs"]
mod chains;
#[path = "cuda_host/host.rs"]
mod host;
#[path = "cuda_host/rounds.rs"]
mod rounds;
#[path = "cuda_host/steps.rs"]
mod steps;

use std::path::Path;

use host::{Requests, Wire, host};
use lambda_hat::config::{Activation, Loss, Network};
use lambda_hat::device::{Element, SharedMemory};
use lambda_hat::num::Real;
use lambda_hat::num::rng::{Key, Purpose, fill_normal, index};
use lambda_hat::target::{NetworkPlan, NetworkPotential, Potential, param_count};

pub fn normals<T: Real>(n: usize, stream: u32) -> Vec<T> {
    let mut x = vec![T::ZERO; n];
    fill_normal(&mut Key::new([5; 32], Purpose::Probe, stream).at(0), &mut x);
    x
}

pub fn wide<T: Real>(v: &[T]) -> Vec<f64> {
    v.iter().map(|x| x.to_f64()).collect()
}

/// One batch of chains on one network.
#[derive(Clone, Debug)]
struct Case {
    network: Network,
    loss: Loss,
    rows: usize,
    batch: Option<usize>,
    chains: usize,
    memory: SharedMemory,
}

/// Fixed networks that hold every feature, then random ones.
fn cases(random: usize) -> Vec<Case> {
    let mut all = Vec::new();
    let losses = [Loss::Mse, Loss::TRegression { student_df: 4.0, noise_scale: 0.3 }];
    let activations = [Activation::Relu, Activation::Tanh, Activation::Gelu, Activation::Identity];
    let network = |in_dim, hidden: &[usize], out_dim, activation, bias, layernorm, residual_period| Network {
        in_dim,
        hidden: hidden.to_vec(),
        out_dim,
        activation,
        bias,
        layernorm,
        residual_period,
    };
    for (a, activation) in activations.into_iter().enumerate() {
        for (hidden, bias, layernorm, residual_period) in [
            (vec![], true, false, None),
            (vec![1], false, false, None),
            (vec![4, 4], true, false, None),
            (vec![7, 7, 5, 5], true, true, Some(1)),
            (vec![6, 6, 6, 6, 6], true, false, Some(2)),
            (vec![3, 13, 3, 3], false, true, Some(3)),
            (vec![3, 3], true, false, Some(1)),
            (vec![33, 64], true, false, None),
        ] {
            let network = network(3, &hidden, 2, activation, bias, layernorm, residual_period);
            for (loss, rows, batch) in
                [(losses[a % 2].clone(), 300, None), (losses[1 - a % 2].clone(), 9, Some(150))]
            {
                let memory = SharedMemory::SM_90;
                all.push(Case { network: network.clone(), loss, rows, batch, chains: 2, memory });
            }
        }
    }
    // More rows than a segment has, segments of more than one tile, weights in global memory.
    let plain = |hidden: &[usize], activation| network(5, hidden, 1, activation, true, false, None);
    let tight = SharedMemory { block: 80 << 10, multiprocessor: 100 << 10 };
    for (hidden, activation, rows, memory) in [
        (vec![8], Activation::Tanh, 10_000, SharedMemory::SM_80),
        (vec![64, 64], Activation::Relu, 700, SharedMemory::SM_80),
        (vec![90, 70], Activation::Relu, 200, tight),
        (vec![200], Activation::Gelu, 50, tight),
        (vec![200, 100], Activation::Relu, 60, tight),
    ] {
        let case = Case {
            network: plain(&hidden, activation),
            loss: Loss::Mse,
            rows,
            batch: None,
            chains: 1,
            memory,
        };
        all.push(case);
    }
    let mut rng = Key::new([8; 32], Purpose::Probe, 0).at(0);
    for _ in 0..random {
        let mut pick = |from: usize, below: usize| from + index(&mut rng, below - from);
        let hidden: Vec<usize> = (0..pick(0, 4)).map(|_| pick(1, 41)).collect();
        let residual_period = (pick(0, 2) == 1).then(|| pick(1, 3));
        let (bias, layernorm) = (pick(0, 2) == 1, pick(0, 3) == 0);
        let activation = activations[pick(0, 4)];
        let network = network(pick(1, 20), &hidden, pick(1, 6), activation, bias, layernorm, residual_period);
        let batch = (pick(0, 2) == 1).then(|| pick(1, 200));
        let memory = [SharedMemory::SM_80, SharedMemory::SM_90, tight][pick(0, 3)];
        all.push(Case {
            network,
            loss: losses[pick(0, 2)].clone(),
            rows: pick(1, 500),
            batch,
            chains: pick(1, 4),
            memory,
        });
    }
    all
}

/// The arrays of a case: inputs, outputs, every chain's parameters and row numbers.
struct Data<T> {
    x: Vec<T>,
    y: Vec<T>,
    w: Vec<T>,
    list: Vec<u32>,
}

impl Case {
    fn data<T: Real>(&self, stream: u32) -> Data<T> {
        let d = param_count(&self.network);
        // Weights of the size of a trained network's, so that rounding is not amplified from layer to layer.
        let widest = self.network.hidden.iter().copied().max().unwrap_or(1).max(6) as f64;
        let w: Vec<T> = normals(self.chains * d, stream + 2);
        let mut rng = Key::new([5; 32], Purpose::Probe, stream + 3).at(0);
        Data {
            x: normals(self.rows * self.network.in_dim, stream),
            y: normals(self.rows * self.network.out_dim, stream + 1),
            w: w.into_iter().map(|x| x * T::from_f64(widest.sqrt().recip())).collect(),
            list: (0..self.chains * self.batch.unwrap_or(0))
                .map(|_| index(&mut rng, self.rows) as u32)
                .collect(),
        }
    }

    /// Loss and gradient of one chain as the CPU's pass has them.
    fn on_the_cpu<T: Element>(&self, data: &Data<T>, chain: usize) -> (f64, Vec<T>) {
        let potential = NetworkPotential::new(&self.network, &data.x, &data.y, &self.loss);
        let (d, batch) = (potential.dim(), self.batch.unwrap_or(0));
        let mut scratch = vec![T::ZERO; potential.batch_scratch_len(batch).max(potential.scratch_len())];
        let (w, mut grad) = (&data.w[chain * d..][..d], vec![T::ZERO; d]);
        let loss = match self.batch {
            None => potential.loss_grad(w, &mut grad, &mut scratch),
            Some(_) => {
                potential.batch_loss_grad(w, &data.list[chain * batch..][..batch], &mut grad, &mut scratch)
            }
        };
        (loss, grad)
    }

    fn request<T: Wire>(&self, data: &Data<T>, requests: &mut Requests, backwards: bool, gradient: bool) {
        let count = self.batch.unwrap_or(self.rows);
        let plan = NetworkPlan::new::<T>(&self.network, &self.loss, count, self.memory).expect("fits");
        requests.begin::<T>("network", backwards);
        requests.0.extend(plan.to_bytes());
        requests.integers(&[self.chains as i32, self.rows as i32, count as i32]);
        requests.integers(&[i32::from(self.batch.is_some()), i32::from(gradient)]);
        for array in [&data.x, &data.y, &data.w] {
            T::put(array, &mut requests.0);
        }
        requests.words(&data.list);
    }
}

fn as_wide<T: Real>(data: &Data<T>) -> Data<f64> {
    Data { x: wide(&data.x), y: wide(&data.y), w: wide(&data.w), list: data.list.clone() }
}

/// Largest difference relative to the largest entry.
pub fn distance<T: Real>(got: &[T], expected: &[f64]) -> f64 {
    let scale = expected.iter().fold(1e-300, |m: f64, e| m.max(e.abs()));
    let off = |(g, e): (&T, &f64)| (g.to_f64() - e).abs();
    // A value that is no number is as far off as can be.
    got.iter().zip(expected).map(off).fold(0.0, |m: f64, d| if d.is_nan() { f64::INFINITY } else { m.max(d) })
        / scale
}

/// Compares every case with the CPU's pass in `f64` on the same numbers.
fn agrees<T: Wire + Element>(program: &Path, cases: &[Case], tolerance: f64) {
    let mut requests = Requests::default();
    for (i, case) in cases.iter().enumerate() {
        let data = case.data::<T>(10 * i as u32);
        for (backwards, gradient) in [(false, true), (true, true), (false, false)] {
            case.request(&data, &mut requests, backwards, gradient);
        }
    }
    let answers = requests.run(program);
    let mut answers = &answers[..];
    let (mut worst, mut hard) = ((0.0f64, 0.0f64), 0);
    for (i, case) in cases.iter().enumerate() {
        let data = case.data::<T>(10 * i as u32);
        let d = param_count(&case.network);
        let loss = f64::take(&mut answers, case.chains);
        let grad = T::take(&mut answers, case.chains * d);
        let again = (f64::take(&mut answers, case.chains), T::take(&mut answers, case.chains * d));
        assert!(again == (loss.clone(), grad.clone()), "{case:?}: other bits with threads the other way");
        assert!(f64::take(&mut answers, case.chains) == loss, "{case:?}: other loss without a gradient");

        for c in 0..case.chains {
            let (value, expected) = case.on_the_cpu(&as_wide(&data), c);
            let apart =
                |value: f64, loss: f64, grad: &[T]| ((loss - value).abs() / value, distance(grad, &expected));
            let off = apart(value, loss[c], &grad[c * d..][..d]);
            if off.0 > tolerance || off.1 > tolerance {
                // Two normalised features that are nearly equal: rounding is amplified for the CPU's pass as well.
                let (own_loss, own_grad) = case.on_the_cpu(&data, c);
                let own = apart(value, own_loss, &own_grad);
                assert!(
                    off.0 <= tolerance && off.1 <= 4.0 * own.1,
                    "{case:?} chain {c}: {off:?}, the CPU's {own:?}"
                );
                hard += 1;
                continue;
            }
            worst = (worst.0.max(off.0), worst.1.max(off.1));
        }
    }
    assert!(hard <= cases.len() / 50, "{hard} chains of {} cases are beyond {tolerance:e}", cases.len());
    assert!(answers.is_empty());
    println!(
        "{}: {} cases, largest relative error of a loss {:.1e}, of a gradient {:.1e}; {hard} chains beyond",
        T::NAME,
        cases.len(),
        worst.0,
        worst.1
    );
}

#[test]
fn losses_and_gradients_agree_with_the_cpu() {
    let Some(program) = host(false) else { return };
    let cases = cases(60);
    agrees::<f64>(&program, &cases, 1e-12);
    agrees::<f32>(&program, &cases, 1e-5);
}

#[test]
fn kernels_stay_within_their_memory_and_within_the_language() {
    let Some(program) = host(true) else { return };
    // Every third case: all activations and shapes are among them.
    let cases: Vec<Case> = cases(20).into_iter().step_by(3).collect();
    agrees::<f64>(&program, &cases, 1e-12);
    agrees::<f32>(&program, &cases, 1e-5);
}
