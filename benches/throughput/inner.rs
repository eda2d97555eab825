//! The inner loops that rows measure: gradients, Hessian-vector products, draws of HMC, steps of MCLMC, SGLD and training.

use std::hint::black_box;

use lambda_hat::config::{Hmc, Integrator, Mclmc, Optimizer, Precond, Sgld, Training};
use lambda_hat::device::Element;
use lambda_hat::num::rng::{Key, Purpose, index};
use lambda_hat::resume::Desk;
use lambda_hat::sampler::{Adapted, ChainRun, Kernel, Method, Posterior, Role, Scratch};
use lambda_hat::target::{Potential, train};

use super::case::Shape;
use super::measure::Work;

/// Integration steps of an HMC draw.
const STEPS: usize = 10;
/// Rows of a minibatch.
const BATCH: usize = 256;
/// SGLD steps between two full losses.
const EVAL_EVERY: u64 = 100;

/// What is measured, as rows spell it.
pub const LOOPS: [&str; 7] = ["gradient", "batch", "hvp", "hmc", "mclmc", "sgld", "training"];

/// Who measures: it is handed a call to repeat.
pub type Meter<'m> = &'m mut dyn FnMut(&mut dyn FnMut() -> Work);

/// Hands the loop named `what` to `meter`, which may call it as often as it likes.
pub fn with_loop<T: Element>(what: &str, shape: &Shape, meter: Meter<'_>) {
    match what {
        "gradient" => gradient::<T>(shape, meter),
        "batch" => batch::<T>(shape, meter),
        "hvp" => product::<T>(shape, meter),
        "hmc" => hmc::<T>(shape, meter),
        "mclmc" => mclmc::<T>(shape, meter),
        "training" => training::<T>(shape, meter),
        _ => sgld::<T>(shape, meter),
    }
}

/// Title of a row, and what it counts.
pub fn title<T: Element>(what: &str, shape: &Shape) -> (String, &'static str) {
    let (name, unit) = match what {
        "gradient" => ("gradient", "grad/s"),
        "batch" => ("batch", "grad/s"),
        "hvp" => ("HVP", "HVP/s"),
        "hmc" => ("HMC", "draws/s"),
        "mclmc" => ("MCLMC", "steps/s"),
        "training" => ("training", "steps/s"),
        _ => ("SGLD", "steps/s"),
    };
    (format!("{name} {} n {} {}", shape.name, shape.rows, T::NAME), unit)
}

fn gradient<T: Element>(shape: &Shape, meter: Meter<'_>) {
    let (potential, w) = shape.case::<T>();
    let mut scratch = vec![T::ZERO; potential.scratch_len()];
    let mut grad = vec![T::ZERO; w.len()];
    meter(&mut || {
        black_box(potential.loss_grad(black_box(&w), &mut grad, &mut scratch));
        Work { items: 1.0, flops: potential.gradient_flops() }
    });
}

/// Gradients of minibatches that were drawn before.
fn batch<T: Element>(shape: &Shape, meter: Meter<'_>) {
    let (potential, w) = shape.case::<T>();
    let mut scratch = vec![T::ZERO; potential.batch_scratch_len(BATCH)];
    let mut grad = vec![T::ZERO; w.len()];
    let mut rng = Key::new([9; 32], Purpose::Chain, 0).at(0);
    let rows: Vec<u32> = (0..64 * BATCH).map(|_| index(&mut rng, shape.rows) as u32).collect();
    let mut batches = rows.chunks_exact(BATCH).cycle();
    let flops = potential.gradient_flops() * BATCH as f64 / shape.rows as f64;
    meter(&mut || {
        let rows = batches.next().expect("a cycle has no end");
        black_box(potential.batch_loss_grad(black_box(&w), rows, &mut grad, &mut scratch));
        Work { items: 1.0, flops }
    });
}

/// Hessian-vector products along one direction.
fn product<T: Element>(shape: &Shape, meter: Meter<'_>) {
    let (potential, w) = shape.case::<T>();
    let mut scratch = vec![T::ZERO; potential.hvp_scratch_len()];
    let (mut hv, v) = (w.clone(), w.clone());
    meter(&mut || {
        potential.hvp(black_box(&w), &v, None, &mut hv, &mut scratch);
        black_box(&hv);
        Work { items: 1.0, flops: potential.hvp_flops() }
    });
}

/// The start of the same chain again and again. Trajectories have random lengths of mean [`STEPS`]; a
/// draw is counted for every [`STEPS`] gradients, so that a short chain's luck is not in the figure.
fn hmc<T: Element>(shape: &Shape, meter: Meter<'_>) {
    let (potential, w) = shape.case::<T>();
    let draws = if shape.rows > 1000 { 2 } else { 1000 };
    let spec =
        Hmc { draws, warmup: 0, num_integration_steps: STEPS, step_size: 1e-3, target_acceptance: 0.9 };
    let adapted = Adapted { step_size: 1e-3, inverse_mass: vec![1.0; w.len()], ..Adapted::default() };
    let posterior = Posterior::new(&potential, &w, shape.nbeta(), 1.0).expect("a finite loss");
    let kernel = spec.kernel::<T>(&posterior, &adapted, Role::Main);
    meter(&mut || {
        let fge = chain(&kernel, &posterior, draws as u64);
        Work { items: fge / STEPS as f64, flops: fge * potential.gradient_flops() }
    });
}

/// Unadjusted steps of two gradients each.
fn mclmc<T: Element>(shape: &Shape, meter: Meter<'_>) {
    let (potential, w) = shape.case::<T>();
    let steps = if shape.rows > 1000 { 5 } else { 5000 };
    let spec = Mclmc {
        draws: 1000,
        thin: Some(8),
        l: Some(1.0),
        step_size: 1e-3,
        num_steps: 0,
        frac_tune1: 0.1,
        frac_tune2: 0.1,
        frac_tune3: 0.1,
        desired_energy_var: 5e-4,
        trust_in_estimate: 1.5,
        num_effective_samples: 150.0,
        diagonal_preconditioning: false,
        integrator: Integrator::IsokineticMclachlan,
        adjusted: Some(false),
        target_acceptance: 0.9,
    };
    let adapted = Adapted {
        step_size: 1e-3,
        length: Some(1.0),
        inverse_mass: vec![1.0; w.len()],
        ..Adapted::default()
    };
    let posterior = Posterior::new(&potential, &w, shape.nbeta(), 1.0).expect("a finite loss");
    let kernel = spec.kernel::<T>(&posterior, &adapted, Role::Main);
    meter(&mut || {
        let fge = chain(&kernel, &posterior, steps);
        Work { items: steps as f64, flops: fge * potential.gradient_flops() }
    });
}

fn sgld<T: Element>(shape: &Shape, meter: Meter<'_>) {
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
    meter(&mut || {
        black_box(chain(&kernel, &posterior, steps));
        Work { items: steps as f64, flops }
    });
}

/// Steps of Adam on all rows.
fn training<T: Element>(shape: &Shape, meter: Meter<'_>) {
    let (potential, start) = shape.case::<T>();
    let steps = if shape.rows > 1000 { 10 } else { 10_000 };
    let settings = Training {
        optimizer: Optimizer::Adam,
        lr: 1e-3,
        steps,
        batch_size: None,
        early_stop_tol: 0.0,
        weight_decay: 0.0,
        momentum: 0.0,
    };
    // After its steps, training asks for the loss once.
    let flops = steps as f64 * potential.gradient_flops() + shape.loss_flops();
    meter(&mut || {
        let mut w = start.clone();
        let done = train(&potential, &settings, [9; 32], &mut w, &mut Desk::unwatched());
        black_box(done.expect("a modest learning rate"));
        Work { items: steps as f64, flops }
    });
}

/// Runs the first iterations of a chain and returns their work in full gradients.
fn chain<T: Element, K: Kernel<T>>(kernel: &K, posterior: &Posterior<'_, T>, iterations: u64) -> f64 {
    let key = Key::new([9; 32], Purpose::Chain, 0);
    let mut scratch = Scratch::of(kernel, posterior);
    let mut row = vec![0.0; kernel.layout().len()];
    let mut run = ChainRun::start(kernel, posterior, &mut scratch).expect("a finite loss");
    run.advance_to(iterations, kernel, posterior, &key, &mut scratch, &mut row).expect("a small step");
    kernel.fge(&run.state)
}
