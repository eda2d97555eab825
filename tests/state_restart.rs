//! A chain stopped after any iteration and started again from bytes ends with the same bits.

#[path = "support/potentials.rs"]
#[allow(dead_code)]
mod potentials;

use lambda_hat::config::{Activation, Hmc, Loss, Network, Precond, Sgld};
use lambda_hat::device::Element;
use lambda_hat::num::rng::{Key, Purpose, fill_normal};
use lambda_hat::sampler::{Adapted, ChainRun, Flow, HmcKernel, Kernel, Posterior, Role, Scratch, SgldKernel};
use lambda_hat::target::{NetworkPotential, param_count};
use lambda_hat::trace::ChainTrace;

fn normals<T: Element>(n: usize, stream: u32) -> Vec<T> {
    let mut x = vec![T::ZERO; n];
    fill_normal(&mut Key::new([2; 32], Purpose::Probe, stream).at(0), &mut x);
    x
}

/// The chain run in one go, and with everything but bytes thrown away after every iteration.
fn both<T: Element, K: Kernel<T>>(kernel: &K, posterior: &Posterior<'_, T>) -> (ChainTrace, ChainTrace) {
    let key = Key::new([9; 32], Purpose::Chain, 1);
    let columns = kernel.layout().len();
    let start =
        || ChainRun::start(kernel, posterior, &mut Scratch::new(posterior, kernel.batch())).expect("starts");
    let mut whole = start();
    let (mut scratch, mut row) = (Scratch::new(posterior, kernel.batch()), vec![0.0; columns]);
    whole.advance(kernel, posterior, &key, &mut scratch, &mut row, &mut |_| Flow::Continue).expect("runs");

    let mut bytes = postcard::to_stdvec(&start()).expect("serialises");
    let total = kernel.iterations().total;
    for done in 1..=total {
        let mut run: ChainRun<K::State> = postcard::from_bytes(&bytes).expect("the same type");
        assert_eq!(run.iteration, done - 1);
        let (mut scratch, mut row) = (Scratch::new(posterior, kernel.batch()), vec![f64::NAN; columns]);
        run.advance_to(done, kernel, posterior, &key, &mut scratch, &mut row).expect("runs");
        bytes = postcard::to_stdvec(&run).expect("serialises");
    }
    let pieces: ChainRun<K::State> = postcard::from_bytes(&bytes).expect("the same type");
    assert_eq!(postcard::to_stdvec(&whole).expect("serialises"), bytes, "state, trace and work");
    (whole.trace, pieces.trace)
}

fn check<T: Element>() {
    let network = Network {
        in_dim: 3,
        hidden: vec![4, 4],
        out_dim: 1,
        activation: Activation::Tanh,
        bias: true,
        layernorm: false,
        residual_period: None,
    };
    let (x, y): (Vec<T>, Vec<T>) = (normals(3 * 150, 0), normals(150, 1));
    let potential = NetworkPotential::new(&network, &x, &y, &Loss::Mse);
    let d = param_count(&network);
    let centre: Vec<T> = normals::<T>(d, 2).into_iter().map(|w| w * T::from_f64(0.3)).collect();
    let posterior = Posterior::new(&potential, &centre, 30.0, 1.0).expect("finite");

    let hmc = Hmc { draws: 20, warmup: 0, num_integration_steps: 4, step_size: 0.05, target_acceptance: 0.9 };
    let inverse_mass = (0..d).map(|i| 0.5 + i as f64 / d as f64).collect();
    let adapted = Adapted { step_size: 0.05, inverse_mass, ..Adapted::default() };
    let (whole, pieces) = both(&HmcKernel::new(&hmc, &adapted, Role::Main), &posterior);
    assert_eq!(whole.draws(), 20);
    assert_eq!(whole, pieces);
    let mut llc = whole.values[0].clone();
    llc.dedup();
    assert!(llc.len() > 5, "the chain moves");

    for precond in [Precond::None, Precond::Rmsprop, Precond::Adam] {
        let spec = Sgld {
            steps: 60,
            warmup: 20,
            batch_size: 200,
            step_size: 1e-3,
            eval_every: 3,
            precond,
            beta1: 0.9,
            beta2: 0.99,
            eps: 1e-8,
            bias_correction: true,
        };
        let (whole, pieces) = both(&SgldKernel::new(&spec, &posterior), &posterior);
        assert_eq!(whole.draws(), 60 / 3 - 20 / 3, "{precond:?}");
        assert_eq!(whole, pieces, "{precond:?}");
    }
}

#[test]
fn restarting_after_every_iteration_changes_nothing_in_f64() {
    check::<f64>();
}

#[test]
fn restarting_after_every_iteration_changes_nothing_in_f32() {
    check::<f32>();
}
