//! The GPU: with a device, losses and gradients against the CPU; without, the message. Feature `cuda` only.
#![cfg(feature = "cuda")]

#[allow(dead_code)]
mod support;

use std::path::{Path, PathBuf};

use lambda_hat::config::{Activation, Loss, Network};
use lambda_hat::device::cuda::Gpu;
use lambda_hat::device::gpu::{Buffer, DeviceError, Kernel, Number, Place};
use lambda_hat::device::{Element, SharedMemory};
use lambda_hat::num::Real;
use lambda_hat::num::rng::{Key, Purpose, fill_normal};
use lambda_hat::target::{DeviceNetwork, NetworkPlan, NetworkPotential, Potential, param_count};

/// The device; `None` where there is none, after a look at what is said then.
fn device() -> Option<Gpu> {
    match Gpu::open(0) {
        Ok(gpu) => {
            println!("{:?}", gpu.info());
            Some(gpu)
        }
        Err(DeviceError::NoDevice) => {
            println!("skipped: {}", DeviceError::NoDevice);
            None
        }
        Err(e) => panic!("{e}"),
    }
}

fn normals<T: Real>(n: usize, stream: u32) -> Vec<T> {
    let mut x = vec![T::ZERO; n];
    fill_normal(&mut Key::new([6; 32], Purpose::Probe, stream).at(0), &mut x);
    x
}

fn agrees<T: Element + Number>(gpu: &Gpu, tolerance: f64) {
    for (hidden, activation, layernorm, residual_period, rows) in [
        (vec![], Activation::Identity, false, None, 10),
        (vec![4, 4], Activation::Tanh, false, None, 100),
        (vec![64, 64], Activation::Relu, false, None, 5000),
        (vec![33, 33, 33], Activation::Gelu, true, Some(1), 700),
        (vec![300, 300], Activation::Relu, false, None, 300),
    ] {
        let network =
            Network { in_dim: 5, hidden, out_dim: 2, activation, bias: true, layernorm, residual_period };
        let (d, chains) = (param_count(&network), 3);
        let (x, y): (Vec<T>, Vec<T>) = (normals(rows * 5, 0), normals(rows * 2, 1));
        let widest = network.hidden.iter().copied().max().unwrap_or(1).max(6) as f64;
        let w: Vec<T> =
            normals::<T>(chains * d, 2).iter().map(|&w| w * T::from_f64(1.0 / widest.sqrt())).collect();
        let there = DeviceNetwork::new(gpu, &network, (&x, &y), &Loss::Mse, chains).expect("fits");
        let there = there.with_gradients().expect("room");
        let on_device = Buffer::of(gpu, &w).expect("room");
        let mut gradients = Buffer::<T>::zeros(gpu, chains * d).expect("room");
        let losses = there.loss_grad(&on_device, chains, &mut gradients).expect("runs");
        let mut grad = vec![T::ZERO; chains * d];
        gradients.read(&mut grad).expect("copied");
        assert_eq!(losses, there.loss(&on_device, chains).expect("runs"));
        // A chain alone has the bits that it has among others.
        let alone = there.loss_grad(&on_device, 1, &mut gradients).expect("runs");
        let mut own = vec![T::ZERO; d];
        gradients.read(&mut own).expect("copied");
        assert!(alone[0] == losses[0] && own == grad[..d]);

        let wide = |v: &[T]| v.iter().map(|x| x.to_f64()).collect::<Vec<f64>>();
        let here = NetworkPotential::new(&network, &wide(&x), &wide(&y), &Loss::Mse);
        let (mut expected, mut scratch) = (vec![0.0; d], vec![0.0; here.scratch_len()]);
        for c in 0..chains {
            let loss = here.loss_grad(&wide(&w[c * d..][..d]), &mut expected, &mut scratch);
            assert!((losses[c] - loss).abs() <= tolerance * loss, "{network:?}: {} {loss}", losses[c]);
            let scale = expected.iter().fold(0.0f64, |m, e| m.max(e.abs()));
            for (g, e) in grad[c * d..][..d].iter().zip(&expected) {
                assert!((g.to_f64() - e).abs() <= tolerance * scale, "{network:?}: {g} {e}");
            }
        }
    }
}

#[test]
fn a_plan_has_the_bytes_that_its_kernels_take() {
    let network = Network {
        in_dim: 2,
        hidden: vec![3],
        out_dim: 1,
        activation: Activation::Relu,
        bias: true,
        layernorm: false,
        residual_period: None,
    };
    let plan = NetworkPlan::new::<f32>(&network, &Loss::Mse, 10, SharedMemory::SM_80).expect("fits");
    let without = [Kernel::Reduce, Kernel::HamiltonianRound, Kernel::MicrocanonicalRound];
    for kernel in Kernel::ALL.into_iter().filter(|kernel| !without.contains(kernel)) {
        assert_eq!(kernel.parameters()[0], plan.to_bytes().len(), "{}", kernel.name());
    }
}

#[test]
fn losses_and_gradients_agree_with_the_cpu() {
    let Some(gpu) = device() else { return };
    agrees::<f64>(&gpu, 1e-12);
    agrees::<f32>(&gpu, 1e-5);
}

/// λ̂ and its error of a sampler on the network, by its manifest's `device`.
fn lambda_of(sampler: &str, root: &Path, device: Option<&str>) -> (f64, f64) {
    let files = support::deterministic_files(root);
    let run = format!("run_{sampler}_");
    let dirs = files.keys().filter(|file| file.contains(&run) && file.ends_with("analysis.json"));
    let read = |path: PathBuf| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON")
    };
    let runs = dirs.map(|file| {
        let dir = root.join(Path::new(file).parent().expect("a directory"));
        (read(dir.join("manifest.json")), read(dir.join("analysis.json")))
    });
    let wanted = |manifest: &serde_json::Value| {
        let label = manifest["target"].as_str().is_some_and(|label| label.starts_with("small/"));
        label && manifest["config"].get("device").and_then(|d| d.as_str()) == device
    };
    let (_, analysis) = runs.into_iter().find(|(manifest, _)| wanted(manifest)).expect("a run");
    let number = |key: &str| analysis[key].as_f64().expect("a number");
    (number("llc_mean"), number("llc_mcse"))
}

#[test]
fn a_sweep_on_a_device_has_its_own_bits_again_and_the_lambda_of_the_cpu() {
    let Some(gpu) = device() else { return };
    let experiment = support::repository("tests/data/sweep/tiny.yaml").display().to_string();
    let long = ["samplers.sgld.overrides.steps=40000", "samplers.hmc.overrides.draws=2000"];
    let (root, again) =
        (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    for (root, device) in [(&root, "cuda"), (&again, "cuda"), (&root, "cpu")] {
        let args = [&experiment, "--local", "--device", device, "--set", long[0], "--set", long[1]];
        let ran = support::lambda_hat(root.path(), &args);
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert_eq!(ran.err.contains(&gpu.info().name), device == "cuda", "{}", ran.err);
    }
    let files = support::deterministic_files(root.path());
    let others = support::deterministic_files(again.path());
    assert!(others.iter().all(|(file, hash)| files.get(file) == Some(hash)));
    for sampler in ["hmc", "sgld"] {
        let of = |device| lambda_of(sampler, root.path(), device);
        let ((there, there_mcse), (here, here_mcse)) = (of(Some("cuda")), of(None));
        println!("{sampler}: λ̂ {there} ± {there_mcse} on the device, {here} ± {here_mcse} on the CPU");
        assert!((there - here).abs() < 4.0 * there_mcse.hypot(here_mcse), "{sampler}");
    }
}

#[test]
fn without_a_driver_the_program_works_on_the_cpu() {
    if device().is_some() {
        return;
    }
    let refused = Gpu::open(0).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(refused.starts_with("no NVIDIA driver or no device here"), "{refused}");
    assert!(matches!(Gpu::list(), Err(DeviceError::NoDevice)));
    let root = tempfile::tempdir().expect("a directory");
    let experiment = support::repository("tests/data/sweep/tiny.yaml").display().to_string();
    let ran = support::lambda_hat(root.path(), &[&experiment, "--local"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
}
