//! A chain stopped after any iteration and started again from bytes ends with the same bits.

#[path = "support/potentials.rs"]
#[allow(dead_code)]
mod potentials;
#[path = "support/specs.rs"]
mod specs;

use lambda_hat::config::{Activation, Loss, Network, Sgld};
use lambda_hat::device::Element;
use lambda_hat::num::rng::{Key, Purpose, fill_normal};
use lambda_hat::resume::Desk;
use lambda_hat::sampler::{Adapted, ChainRun, Kernel, Method, Posterior, Role, Scratch};
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
    let start = || ChainRun::start(kernel, posterior, &mut Scratch::of(kernel, posterior)).expect("starts");
    let mut whole = start();
    let (mut scratch, mut row) = (Scratch::of(kernel, posterior), vec![0.0; columns]);
    whole.advance(kernel, posterior, &key, &mut scratch, &mut row, &mut Desk::unwatched()).expect("runs");

    let mut bytes = postcard::to_stdvec(&start()).expect("serialises");
    let total = kernel.iterations().total;
    for done in 1..=total {
        let mut run: ChainRun<K::State> = postcard::from_bytes(&bytes).expect("the same type");
        assert_eq!(run.iteration, done - 1);
        let (mut scratch, mut row) = (Scratch::of(kernel, posterior), vec![f64::NAN; columns]);
        run.advance_to(done, kernel, posterior, &key, &mut scratch, &mut row).expect("runs");
        bytes = postcard::to_stdvec(&run).expect("serialises");
    }
    let pieces: ChainRun<K::State> = postcard::from_bytes(&bytes).expect("the same type");
    assert_eq!(postcard::to_stdvec(&whole).expect("serialises"), bytes, "state, trace and work");
    (whole.trace, pieces.trace)
}

/// Both ways give the same `draws` draws, and not all the same one.
fn restarts<T: Element, M: Method>(
    method: &M,
    adapted: &Adapted,
    posterior: &Posterior<'_, T>,
    draws: usize,
) {
    let (whole, pieces) = both(&method.kernel(posterior, adapted, Role::Main), posterior);
    assert_eq!(whole.draws(), draws);
    assert_eq!(whole, pieces);
    let mut llc = whole.values[0].clone();
    llc.dedup();
    assert!(llc.len() > 5, "the chain moves");
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

    let inverse_mass = (0..d).map(|i| 0.5 + i as f64 / d as f64).collect();
    let adapted = Adapted { step_size: 0.05, inverse_mass, length: Some(0.5), ..Adapted::default() };
    restarts(&specs::hmc(20), &adapted, &posterior, 20);
    restarts(&specs::nuts(20), &adapted, &posterior, 20);
    restarts(&specs::mala(20), &adapted, &posterior, 20);
    for adjusted in [true, false] {
        restarts(&specs::mclmc(20, Some(adjusted)), &adapted, &posterior, 20);
    }
    let adapted = Adapted { step_size: 1e-3, ..Adapted::default() };
    let (steps, draws) = (60, 60 / 3 - 6 / 3);
    for spec in specs::sglds(steps) {
        restarts(&Sgld { batch_size: 200, ..spec }, &adapted, &posterior, draws);
    }
    restarts(&specs::sghmc(steps), &adapted, &posterior, draws);
    restarts(&specs::sgnht(steps), &adapted, &posterior, draws);
    for spec in specs::vis(30, 12) {
        let adapted = spec.warmup(&posterior, [5; 32], &mut Desk::unwatched()).expect("adapts");
        restarts(&spec, &adapted, &posterior, 12);
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
