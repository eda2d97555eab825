use super::*;
use crate::num::Real;
use crate::num::rng::{Key, Purpose, fill_normal, index};
use crate::target::{Reference, param_count};

pub(super) fn normals<T: Real>(n: usize, stream: u32) -> Vec<T> {
    let mut x = vec![T::ZERO; n];
    fill_normal(&mut Key::new([3; 32], Purpose::Probe, stream).at(0), &mut x);
    x
}

pub(super) fn networks() -> Vec<Network> {
    let mut all = Vec::new();
    for activation in [Activation::Relu, Activation::Tanh, Activation::Gelu, Activation::Identity] {
        for (hidden, bias, layernorm, residual_period) in [
            (vec![], true, false, None),
            (vec![1], false, false, None),
            (vec![4, 4], true, false, None),
            (vec![7, 7, 5, 5], true, true, Some(1)),
            (vec![6, 6, 6, 6, 6], true, false, Some(2)),
            (vec![3, 13, 3, 3], false, true, Some(3)),
            (vec![3, 3], true, false, Some(1)),
        ] {
            all.push(Network { in_dim: 3, hidden, out_dim: 2, activation, bias, layernorm, residual_period });
        }
    }
    all
}

pub(super) fn losses() -> [Loss; 2] {
    [Loss::Mse, Loss::TRegression { student_df: 4.0, noise_scale: 0.3 }]
}

/// Largest difference of two gradients relative to the largest entry.
fn distance<T: Real>(got: &[T], expected: &[f64]) -> f64 {
    let scale = expected.iter().fold(1e-300, |m: f64, e| m.max(e.abs()));
    got.iter().zip(expected).fold(0.0, |m: f64, (g, e)| m.max((g.to_f64() - e).abs())) / scale
}

fn agrees<T: Element>(tolerance: f64) {
    for (i, network) in networks().iter().enumerate() {
        for loss in losses() {
            for n in [1, 9, 128, 300] {
                let stream = 10 * i as u32;
                let (x, y): (Vec<T>, Vec<T>) = (normals(n * 3, stream), normals(n * 2, stream + 1));
                // Weights of the size of a trained network's: activations stay of order 1, so that
                // rounding is not amplified from layer to layer.
                let w: Vec<T> = normals(param_count(network), stream + 2);
                let w: Vec<T> = w.into_iter().map(|x| x * T::from_f64(0.4)).collect();
                let wide = |v: &[T]| v.iter().map(|x| x.to_f64()).collect::<Vec<f64>>();
                let plain = Reference::new(network);
                let (expected, gradient) = plain.loss_grad(&wide(&w), &wide(&x), &wide(&y), &loss);
                let mut rng = Key::new([3; 32], Purpose::Probe, stream + 3).at(0);
                let rows: Vec<u32> = (0..150).map(|_| index(&mut rng, n) as u32).collect();
                let pick = |m: &[T], k: usize| {
                    rows.iter().flat_map(|&r| wide(&m[r as usize * k..][..k])).collect::<Vec<f64>>()
                };
                let (batch_loss, batch_gradient) =
                    plain.loss_grad(&wide(&w), &pick(&x, 3), &pick(&y, 2), &loss);
                let mut first: Option<(f64, Vec<T>)> = None;
                for arith in Arith::ALL.into_iter().filter(|a| a.is_available()) {
                    let potential = NetworkPotential::new(network, &x, &y, &loss).with_arith(arith);
                    // Dirty scratch: nothing may be read before it is written.
                    let mut scratch = vec![T::from_f64(f64::NAN); potential.scratch_len()];
                    let mut grad = vec![T::ONE; w.len()];
                    let value = potential.loss_grad(&w, &mut grad, &mut scratch);
                    let at = format!("{network:?} {loss:?} n {n} {arith}");
                    assert!((value - expected).abs() <= tolerance * expected, "{at}: {value} {expected}");
                    assert!(distance(&grad, &gradient) <= tolerance, "{at}: {grad:?} {gradient:?}");
                    assert_eq!(value, potential.loss(&w, &mut scratch), "{at}");
                    let mut scratch = vec![T::from_f64(f64::NAN); potential.batch_scratch_len(rows.len())];
                    let mut batch = vec![T::ONE; w.len()];
                    let value = potential.batch_loss_grad(&w, &rows, &mut batch, &mut scratch);
                    assert!((value - batch_loss).abs() <= tolerance * batch_loss, "{at}");
                    assert!(distance(&batch, &batch_gradient) <= tolerance, "{at}");
                    match &first {
                        None => first = Some((value, grad)),
                        Some(same) => assert!(*same == (value, grad), "{at}: other bits"),
                    }
                }
            }
        }
    }
}

#[test]
fn the_pass_agrees_with_its_plain_definition_in_f64() {
    agrees::<f64>(1e-12);
}

#[test]
fn the_pass_agrees_with_its_plain_definition_in_f32() {
    agrees::<f32>(1e-5);
}
