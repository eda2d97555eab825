//! Rows of the inner loops: gradients, HMC draws, SGLD steps, on one core.

use std::hint::black_box;

use lambda_hat::config::{Hmc, Precond, Sgld};
use lambda_hat::device::Element;
use lambda_hat::num::rng::{Key, Purpose, index};
use lambda_hat::sampler::{Adapted, ChainRun, Kernel, Method, Posterior, Role, Scratch};
use lambda_hat::target::Potential;

use super::case::Shape;
use super::measure::{Work, print_rate, rate};

/// Integration steps of a draw.
const STEPS: usize = 10;
/// Rows of a minibatch.
const BATCH: usize = 256;
/// SGLD steps between two full losses.
const EVAL_EVERY: u64 = 100;

pub fn gradient<T: Element>(shape: &Shape) {
    let (potential, w) = shape.case::<T>();
    let mut scratch = vec![T::ZERO; potential.scratch_len()];
    let mut grad = vec![T::ZERO; w.len()];
    let rate = rate::<T>(|| {
        black_box(potential.loss_grad(black_box(&w), &mut grad, &mut scratch));
        Work { items: 1.0, flops: potential.gradient_flops() }
    });
    print_rate(&title::<T>("gradient", shape), "grad/s", &rate);
}

/// Gradients of minibatches that were drawn before.
pub fn batch<T: Element>(shape: &Shape) {
    let (potential, w) = shape.case::<T>();
    let mut scratch = vec![T::ZERO; potential.batch_scratch_len(BATCH)];
    let mut grad = vec![T::ZERO; w.len()];
    let mut rng = Key::new([9; 32], Purpose::Chain, 0).at(0);
    let rows: Vec<u32> = (0..64 * BATCH).map(|_| index(&mut rng, shape.rows) as u32).collect();
    let mut batches = rows.chunks_exact(BATCH).cycle();
    let flops = potential.gradient_flops() * BATCH as f64 / shape.rows as f64;
    let rate = rate::<T>(|| {
        let rows = batches.next().expect("a cycle has no end");
        black_box(potential.batch_loss_grad(black_box(&w), rows, &mut grad, &mut scratch));
        Work { items: 1.0, flops }
    });
    print_rate(&title::<T>("batch", shape), "grad/s", &rate);
}

/// Hessian-vector products along one direction.
pub fn product<T: Element>(shape: &Shape) {
    let (potential, w) = shape.case::<T>();
    let mut scratch = vec![T::ZERO; potential.hvp_scratch_len()];
    let (mut hv, v) = (w.clone(), w.clone());
    let rate = rate::<T>(|| {
        potential.hvp(black_box(&w), &v, None, &mut hv, &mut scratch);
        black_box(&hv);
        Work { items: 1.0, flops: potential.hvp_flops() }
    });
    print_rate(&title::<T>("HVP", shape), "HVP/s", &rate);
}

/// The same chain again and again. Trajectories have random lengths of mean [`STEPS`]; a draw is
/// counted for every [`STEPS`] gradients, so that a short chain's luck is not in the figure.
pub fn hmc<T: Element>(shape: &Shape) {
    let (potential, w) = shape.case::<T>();
    let draws = if shape.rows > 1000 { 2 } else { 1000 };
    let spec =
        Hmc { draws, warmup: 0, num_integration_steps: STEPS, step_size: 1e-3, target_acceptance: 0.9 };
    let adapted = Adapted { step_size: 1e-3, inverse_mass: vec![1.0; w.len()], ..Adapted::default() };
    let posterior = Posterior::new(&potential, &w, shape.nbeta(), 1.0).expect("a finite loss");
    let kernel = spec.kernel::<T>(&posterior, &adapted, Role::Main);
    let rate = rate::<T>(|| {
        let fge = chain(&kernel, &posterior);
        Work { items: fge / STEPS as f64, flops: fge * potential.gradient_flops() }
    });
    print_rate(&title::<T>("HMC", shape), "draws/s", &rate);
}

pub fn sgld<T: Element>(shape: &Shape) {
    let (potential, w) = shape.case::<T>();
    let steps = if shape.rows > 1000 { EVAL_EVERY } else { 50 * EVAL_EVERY };
    let spec = Sgld {
        steps,
        warmup: 0,
        batch_size: BATCH,
        step_size: Some(1e-6),
        eval_every: EVAL_EVERY,
        precond: Precond::None,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        bias_correction: true,
        gamma_term: false,
        freeze_precond: false,
    };
    let posterior = Posterior::new(&potential, &w, shape.nbeta(), 1.0).expect("a finite loss");
    let adapted = Adapted { step_size: 1e-6, ..Adapted::default() };
    let kernel = spec.kernel::<T>(&posterior, &adapted, Role::Main);
    let a_step = potential.gradient_flops() * BATCH as f64 / shape.rows as f64;
    let flops = steps as f64 * a_step + (steps / EVAL_EVERY) as f64 * shape.loss_flops();
    let rate = rate::<T>(|| {
        black_box(chain(&kernel, &posterior));
        Work { items: steps as f64, flops }
    });
    print_rate(&title::<T>("SGLD", shape), "steps/s", &rate);
}

/// Runs a whole chain and returns its work in full gradients.
fn chain<T: Element, K: Kernel<T>>(kernel: &K, posterior: &Posterior<'_, T>) -> f64 {
    let key = Key::new([9; 32], Purpose::Chain, 0);
    let mut scratch = Scratch::of(kernel, posterior);
    let mut row = vec![0.0; kernel.layout().len()];
    let mut run = ChainRun::start(kernel, posterior, &mut scratch).expect("a finite loss");
    run.advance_to(u64::MAX, kernel, posterior, &key, &mut scratch, &mut row).expect("a small step");
    kernel.fge(&run.state)
}

fn title<T: Element>(what: &str, shape: &Shape) -> String {
    format!("{what} {} n {} {}", shape.name, shape.rows, T::NAME)
}
