//! Agreement with numbers that an independent implementation computed (tests/data/golden).

#[path = "support/specs.rs"]
mod specs;

use std::collections::BTreeMap;

use lambda_hat::config::{
    Activation, Algo, Dtype, External, Hmc, Loss, Mala, Mclmc, Network, Nuts, Problem, SamplerSpec,
    TargetSpec, infer_width,
};
use lambda_hat::device::Element;
use lambda_hat::io::npz::{self, Array};
use lambda_hat::resume::Desk;
use lambda_hat::sampler::{Posterior, Role, run_chain, warmup};
use lambda_hat::stats;
use lambda_hat::target::{ExternalArrays, NetworkPotential, Potential, Reference, Tensor, build};

fn stored(file: &str) -> BTreeMap<String, Array> {
    let path = format!("{}/tests/data/golden/{file}.npz", env!("CARGO_MANIFEST_DIR"));
    npz::read(&std::fs::read(path).expect("the file")).expect("an npz")
}

fn numbers(arrays: &BTreeMap<String, Array>, name: &str) -> Vec<f64> {
    arrays[name].values.to_f64().expect("numbers")
}

fn network(in_dim: usize, hidden: Vec<usize>) -> Network {
    Network {
        in_dim,
        hidden,
        out_dim: 1,
        activation: Activation::Relu,
        bias: true,
        layernorm: false,
        residual_period: None,
    }
}

/// File, inputs, depth and `target_params` of the presets it came from.
const FILES: [(&str, usize, usize, u64); 2] = [("small42", 4, 2, 50), ("base43_n2000", 32, 3, 10_000)];

fn relative_distance<T: Element>(a: &[T], b: &[f64]) -> f64 {
    let distance: f64 = a.iter().zip(b).map(|(a, b)| (a.to_f64() - b).powi(2)).sum();
    (distance / b.iter().map(|b| b * b).sum::<f64>()).sqrt()
}

#[test]
fn widths_are_inferred_as_stored() {
    for (file, in_dim, depth, params) in FILES {
        let arrays = stored(file);
        let widths: Vec<usize> = numbers(&arrays, "widths").into_iter().map(|w| w as usize).collect();
        assert_eq!(widths, vec![infer_width(in_dim, 1, depth, params); depth], "{file}");
    }
}

#[test]
fn losses_and_gradients_are_as_stored() {
    fn check<T: Element>(tolerance: f64) {
        for (file, in_dim, depth, params) in FILES {
            let arrays = stored(file);
            let network = network(in_dim, vec![infer_width(in_dim, 1, depth, params); depth]);
            let cast = |name| numbers(&arrays, name).into_iter().map(T::from_f64).collect::<Vec<T>>();
            let (x, y, points) = (cast("X"), cast("Y"), cast("points"));
            let potential = NetworkPotential::new(&network, &x, &y, &Loss::Mse);
            let d = potential.dim();
            let mut scratch = vec![T::ZERO; potential.scratch_len()];
            let mut grad = vec![T::ZERO; d];
            let (losses, grads) = (numbers(&arrays, "loss_f64"), numbers(&arrays, "grad_loss_f64"));
            for ((w, loss), expected) in points.chunks(d).zip(&losses).zip(grads.chunks(d)) {
                let value = potential.loss_grad(w, &mut grad, &mut scratch);
                assert!(
                    (value / loss - 1.0).abs() <= tolerance,
                    "{file} {}: loss {value}, stored {loss}",
                    T::NAME
                );
                let off = relative_distance(&grad, expected);
                assert!(off <= tolerance, "{file} {}: gradient off by {off:e}", T::NAME);
                let plain = potential.loss(w, &mut scratch);
                assert_eq!(plain, value);
            }
        }
    }
    check::<f64>(1e-12);
    check::<f32>(1e-5);
}

#[test]
fn the_plain_definition_is_as_stored() {
    for (file, in_dim, depth, params) in FILES {
        let arrays = stored(file);
        let network = network(in_dim, vec![infer_width(in_dim, 1, depth, params); depth]);
        let (x, y, points) = (numbers(&arrays, "X"), numbers(&arrays, "Y"), numbers(&arrays, "points"));
        let plain = Reference::new(&network);
        let (losses, grads) = (numbers(&arrays, "loss_f64"), numbers(&arrays, "grad_loss_f64"));
        let d = plain.dim();
        for ((w, loss), expected) in points.chunks(d).zip(&losses).zip(grads.chunks(d)) {
            let (value, grad) = plain.loss_grad(w, &x, &y, &Loss::Mse);
            assert!((value / loss - 1.0).abs() <= 1e-12, "{file}: loss {value}, stored {loss}");
            assert!(relative_distance(&grad, expected) <= 1e-12, "{file}");
        }
    }
}

/// λ̂ of the stored posterior: HMC here against a long HMC run of the other implementation
/// (effective sample size 40,680), within 4 joint standard errors.
#[test]
fn samplers_agree_with_a_long_run_of_another_implementation() {
    let arrays = stored("small42");
    let tensor = |name: &str| Tensor { shape: arrays[name].shape.clone(), values: numbers(&arrays, name) };
    let npz::Values::Str(shapes) = &arrays["layer_shapes"].values else { panic!("layer_shapes are JSON") };
    let external = ExternalArrays {
        data: BTreeMap::from(["X", "Y"].map(|n| (n.to_owned(), tensor(n)))),
        params: BTreeMap::from([("flat".to_owned(), tensor("flat"))]),
        layer_shapes: Some(shapes.clone()),
    };
    let problem = External {
        data: "data.npz".into(),
        params: "params.npz".into(),
        activation: Activation::Relu,
        loss: Loss::Mse,
    };
    let spec = TargetSpec { problem: Problem::External(problem), seed: 42, dtype: Dtype::F64 };
    let target = build(&spec, [7; 32], Some(&external)).expect("builds");
    let l0 = numbers(&arrays, "L0_f64")[0];
    assert!((target.l0 / l0 - 1.0).abs() < 1e-12, "{} {l0}", target.l0);

    let (n, beta, gamma) = (target.n_data as f64, numbers(&arrays, "beta")[0], numbers(&arrays, "gamma")[0]);
    assert!((beta - 1.0 / n.ln()).abs() < 1e-15);
    let (potential, centre) = (target.potential::<f64>(), target.centre::<f64>());
    let posterior = Posterior::new(potential.as_ref(), &centre, n * beta, gamma).expect("finite");
    // The stored draws subtract L0 as f32 arithmetic gave it: a shift of nβ·(L0_f32 − L0_f64).
    let shift = n * beta * (numbers(&arrays, "L0_f32")[0] - l0);
    let (theirs, error) = (numbers(&arrays, "hmc_llc_mean")[0] + shift, numbers(&arrays, "hmc_llc_sem")[0]);
    let hmc = Hmc { draws: 10_000, warmup: 1000, num_integration_steps: 10, ..specs::hmc(1) };
    let nuts = Nuts { draws: 2000, warmup: 1000, step_size: 0.01, max_tree_depth: 8, ..specs::nuts(1) };
    let mala = Mala { draws: 10_000, warmup: 2000, thin: 100, step_size: None, ..specs::mala(1) };
    let mclmc = Mclmc { draws: 10_000, thin: None, num_steps: 5000, ..specs::mclmc(1, None) };
    for algo in [Algo::Hmc(hmc), Algo::Nuts(nuts), Algo::Mala(mala), Algo::Mclmc(mclmc)] {
        let sampler = SamplerSpec { algo, seed: 1, chains: 4, dtype: Dtype::F64 };
        let name = sampler.algo.name();
        let adapted = warmup(&sampler, &posterior, [7; 32], &mut Desk::unwatched()).expect("adapts");
        let llc: Vec<Vec<f64>> = (0..4)
            .map(|chain| {
                let run = run_chain(
                    &sampler,
                    &posterior,
                    &adapted,
                    [7; 32],
                    chain,
                    Role::Main,
                    &mut Desk::unwatched(),
                );
                run.expect("runs").trace.values.swap_remove(0)
            })
            .collect();
        let chains: Vec<&[f64]> = llc.iter().map(Vec::as_slice).collect();
        let (mean, mcse) = (stats::mean(&llc.concat()), stats::mcse_mean(&chains));
        // What mclmc's step adds is predicted; the others are exact.
        let mean = mean - adapted.bias.unwrap_or(0.0);
        let joint = mcse.hypot(error);
        assert!((mean - theirs).abs() <= 4.0 * joint, "{name}: {mean} ± {mcse} against {theirs} ± {error}");
        assert!(stats::r_hat(&chains) < 1.01, "{name}: R-hat {}", stats::r_hat(&chains));
    }
}
