//! Samplers and training allocate nothing in their steady loop: a run of twice the length
//! allocates exactly as often.

#[path = "support/specs.rs"]
mod specs;

use lambda_hat::config::{Activation, Loss, Network, Optimizer, Training};
use lambda_hat::num::rng::{Key, Purpose, fill_normal};
use lambda_hat::resume::Desk;
use lambda_hat::sampler::{Adapted, ChainRun, Kernel, Method, Posterior, Role, Scratch};
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
fn of_chain<M: Method>(method: &M, adapted: &Adapted, posterior: &Posterior<'_, f32>) -> u64 {
    let kernel = &method.kernel(posterior, adapted, Role::Main);
    let key = Key::new([9; 32], Purpose::Chain, 1);
    allocation_counter::measure(|| {
        let mut scratch = Scratch::of(kernel, posterior);
        let mut row = vec![0.0; kernel.layout().len()];
        let mut run = ChainRun::start(kernel, posterior, &mut scratch).expect("starts");
        run.advance(kernel, posterior, &key, &mut scratch, &mut row, &mut Desk::unwatched()).expect("runs");
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
    let metric =
        Adapted { step_size: 0.01, inverse_mass: vec![1.0; d], length: Some(0.1), ..Adapted::default() };
    assert!(of_chain(&specs::hmc(50), &metric, &posterior) > 0, "the counter counts");
    let mut same = Vec::new();
    let mut twice = |name: String, one: u64, two: u64| same.push((name, one, two));
    for adjusted in [true, false] {
        let of = |draws| of_chain(&specs::mclmc(draws, Some(adjusted)), &metric, &posterior);
        twice(format!("mclmc {adjusted}"), of(50), of(100));
    }
    let of = |draws| of_chain(&specs::hmc(draws), &metric, &posterior);
    twice("hmc".into(), of(50), of(100));
    let of = |draws| of_chain(&specs::nuts(draws), &metric, &posterior);
    twice("nuts".into(), of(50), of(100));
    let of = |draws| of_chain(&specs::mala(draws), &metric, &posterior);
    twice("mala".into(), of(50), of(100));
    let step = Adapted { step_size: 1e-4, ..Adapted::default() };
    for (one, two) in specs::sglds(100).iter().zip(&specs::sglds(200)) {
        twice(format!("{one:?}"), of_chain(one, &step, &posterior), of_chain(two, &step, &posterior));
    }
    let of = |steps| of_chain(&specs::sghmc(steps), &step, &posterior);
    twice("sghmc".into(), of(100), of(200));
    let of = |steps| of_chain(&specs::sgnht(steps), &step, &posterior);
    twice("sgnht".into(), of(100), of(200));
    let short = specs::vis(50, 30).into_iter().zip(specs::vis(100, 60));
    for (one, two) in short {
        let adapted = one.warmup(&posterior, [5; 32], &mut Desk::unwatched()).expect("adapts");
        let of = |spec| of_chain(spec, &adapted, &posterior);
        twice(format!("{one:?}"), of(&one), of(&two));
    }
    for (name, one, two) in same {
        assert_eq!(one, two, "{name}");
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
                train(&potential, &training, [1; 32], &mut w, &mut Desk::unwatched()).expect("trains");
            })
            .count_total
        };
        // Both lengths are below the length of the loss history, whose buffer is made at the start.
        assert_eq!(count(200), count(400), "batch {batch_size:?}");
    }
}
