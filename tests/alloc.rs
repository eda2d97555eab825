//! Samplers and training allocate nothing in their steady loop: a run of twice the length
//! allocates exactly as often.

use lambda_hat::config::{Activation, Hmc, Loss, Network, Optimizer, Precond, Sgld, Training};
use lambda_hat::num::rng::{Key, Purpose, fill_normal};
use lambda_hat::sampler::{Adapted, ChainRun, Flow, HmcKernel, Kernel, Posterior, Role, Scratch, SgldKernel};
use lambda_hat::target::{NetworkPotential, param_count, train};

fn normals(n: usize, stream: u32) -> Vec<f32> {
    let mut x = vec![0.0; n];
    fill_normal(&mut Key::new([2; 32], Purpose::Probe, stream).at(0), &mut x);
    x
}

fn network() -> Network {
    Network {
        in_dim: 5,
        hidden: vec![8, 8],
        out_dim: 2,
        activation: Activation::Gelu,
        bias: true,
        layernorm: true,
        residual_period: Some(1),
    }
}

/// Allocations of a whole chain.
fn of_chain<K: Kernel<f32>>(kernel: &K, posterior: &Posterior<'_, f32>) -> u64 {
    let key = Key::new([9; 32], Purpose::Chain, 1);
    allocation_counter::measure(|| {
        let mut scratch = Scratch::new(posterior, kernel.batch());
        let mut row = vec![0.0; kernel.layout().len()];
        let mut run = ChainRun::start(kernel, posterior, &mut scratch).expect("starts");
        run.advance(kernel, posterior, &key, &mut scratch, &mut row, &mut |_| Flow::Continue).expect("runs");
    })
    .count_total
}

#[test]
fn chains_allocate_at_their_start_only() {
    let network = network();
    let potential = NetworkPotential::new(&network, &normals(5 * 300, 0), &normals(2 * 300, 1), &Loss::Mse);
    let centre: Vec<f32> = normals(param_count(&network), 2).into_iter().map(|w| 0.3 * w).collect();
    let posterior = Posterior::new(&potential, &centre, 30.0, 1.0).expect("finite");
    let d = centre.len();
    let hmc = |draws| {
        let spec =
            Hmc { draws, warmup: 0, num_integration_steps: 3, step_size: 0.01, target_acceptance: 0.9 };
        let adapted = Adapted { step_size: 0.01, inverse_mass: vec![1.0; d], ..Adapted::default() };
        of_chain(&HmcKernel::new(&spec, &adapted, Role::Main), &posterior)
    };
    assert!(hmc(50) > 0, "the counter counts");
    assert_eq!(hmc(50), hmc(100));
    for precond in [Precond::None, Precond::Rmsprop, Precond::Adam] {
        let sgld = |steps| {
            let spec = Sgld {
                steps,
                warmup: 10,
                batch_size: 40,
                step_size: 1e-4,
                eval_every: 5,
                precond,
                beta1: 0.9,
                beta2: 0.99,
                eps: 1e-8,
                bias_correction: true,
            };
            of_chain(&SgldKernel::new(&spec, &posterior), &posterior)
        };
        assert_eq!(sgld(100), sgld(200), "{precond:?}");
    }
}

#[test]
fn training_allocates_at_its_start_only() {
    let network = network();
    let potential = NetworkPotential::new(&network, &normals(5 * 300, 0), &normals(2 * 300, 1), &Loss::Mse);
    let start: Vec<f32> = normals(param_count(&network), 2).into_iter().map(|w| 0.3 * w).collect();
    for batch_size in [None, Some(64)] {
        let count = |steps| {
            let training = Training {
                optimizer: Optimizer::Adamw,
                lr: 1e-4,
                steps,
                batch_size,
                early_stop_tol: 0.0,
                weight_decay: 0.01,
                momentum: 0.0,
            };
            let mut w = start.clone();
            allocation_counter::measure(|| {
                train(&potential, &training, [1; 32], &mut w).expect("trains");
            })
            .count_total
        };
        // Both lengths are below the length of the loss history, whose buffer is made at the start.
        assert_eq!(count(200), count(400), "batch {batch_size:?}");
    }
}
