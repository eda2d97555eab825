//! Throughput of what the program exists for, next to what this core can do: `make bench`.

use std::hint::black_box;
use std::time::Instant;

use lambda_hat::config::{Activation, Loss, Network};
use lambda_hat::device::{Arith, Element, fma_peak};
use lambda_hat::num::Real;
use lambda_hat::num::rng::{Key, Purpose, fill_normal};
use lambda_hat::target::{NetworkPotential, Potential, param_count};

fn normals<T: Real>(n: usize, stream: u32) -> Vec<T> {
    let mut x = vec![T::ZERO; n];
    fill_normal(&mut Key::new([5; 32], Purpose::Probe, stream).at(0), &mut x);
    x
}

/// Median seconds of one call, over `rounds` rounds of about 50 ms each.
fn median_seconds(rounds: usize, mut call: impl FnMut()) -> f64 {
    let start = Instant::now();
    call();
    let calls = (0.05 / start.elapsed().as_secs_f64()).ceil().clamp(1.0, 1e6) as usize;
    let mut times: Vec<f64> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..calls {
                call();
            }
            start.elapsed().as_secs_f64() / calls as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[rounds / 2]
}

fn gradient<T: Element>(name: &str, network: &Network, n: usize) {
    let (x, y): (Vec<T>, Vec<T>) = (normals(n * network.in_dim, 0), normals(n * network.out_dim, 1));
    let w: Vec<T> = normals::<T>(param_count(network), 2).into_iter().map(|v| v * T::from_f64(0.1)).collect();
    let potential = NetworkPotential::new(network, &x, &y, &Loss::Mse);
    let mut scratch = vec![T::ZERO; potential.scratch_len()];
    let mut grad = vec![T::ZERO; w.len()];
    let peak = fma_peak::<T>(Arith::current(), 5);
    let seconds = median_seconds(7, || {
        black_box(potential.loss_grad(&w, &mut grad, &mut scratch));
    });
    let loss = median_seconds(7, || {
        black_box(potential.loss(&w, &mut scratch));
    });
    let again = fma_peak::<T>(Arith::current(), 5).max(peak);
    println!(
        "{name:<22} {:<4} {:>12.1} grad/s {:>10.2} us {:>8.2} GFLOP/s {:>6.1} % of {:.1} GFLOP/s peak   loss {:>10.2} us",
        T::NAME,
        1.0 / seconds,
        seconds * 1e6,
        potential.gradient_flops() / seconds / 1e9,
        100.0 * potential.gradient_flops() / seconds / again,
        again / 1e9,
        loss * 1e6,
    );
}

fn main() {
    let net = |in_dim, hidden: Vec<usize>| Network {
        in_dim,
        hidden,
        out_dim: 1,
        activation: Activation::Relu,
        bias: true,
        layernorm: false,
        residual_period: None,
    };
    let (base, small) = (net(32, vec![62; 3]), net(4, vec![4, 4]));
    println!("arithmetic: {}", Arith::current());
    gradient::<f64>("base (n 20000)", &base, 20_000);
    gradient::<f32>("base (n 20000)", &base, 20_000);
    gradient::<f64>("small (n 100)", &small, 100);
    gradient::<f32>("small (n 100)", &small, 100);
}
