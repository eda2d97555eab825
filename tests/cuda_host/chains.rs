//! Whole chains by way of launches, on the kernels built for the host: the same code that drives a GPU.

use std::cell::RefCell;
use std::path::Path;

use lambda_hat::config::{Activation, Algo, Dtype, Loss, Network, Precond, SamplerSpec, Sgld};
use lambda_hat::device::Element;
use lambda_hat::device::gpu::{Buffer, DeviceError, HostKernels, Number, Place, RankDevice};
use lambda_hat::num::Real;
use lambda_hat::resume::{Desk, Flow, Progress, Watch};
use lambda_hat::sampler::{
    Adapted, ChainOutcome, DeviceTarget, Posterior, Role, SamplerError, Stream, run_chain,
    run_chains_on_device, stays_on_cpu,
};
use lambda_hat::stats::{mcse_mean, mean};
use lambda_hat::target::{DeviceNetwork, DeviceNetworkError, NetworkPotential, Potential, param_count};

use super::host::host;
use super::{distance, normals, wide};

const STREAM: [u8; 32] = [7; 32];

fn open(kernels: HostKernels) -> Box<dyn Place> {
    RankDevice::of_host(kernels).open().expect("the program starts")
}

fn network(hidden: &[usize]) -> Network {
    Network {
        in_dim: 3,
        hidden: hidden.to_vec(),
        out_dim: 2,
        activation: Activation::Tanh,
        bias: true,
        layernorm: false,
        residual_period: None,
    }
}

/// A network at a minimum that is none of its own: Y is noise around what w* gives.
struct Problem<T> {
    network: Network,
    x: Vec<T>,
    y: Vec<T>,
    centre: Vec<T>,
}

impl<T: Element> Problem<T> {
    fn new(hidden: &[usize], rows: usize) -> Self {
        let network = network(hidden);
        let d = param_count(&network);
        let centre = normals::<T>(d, 72).iter().map(|&w| w * T::from_f64(0.5)).collect();
        Self { network, x: normals(rows * 3, 70), y: normals(rows * 2, 71), centre }
    }

    fn on_device(&self) -> DeviceTarget<'_, T> {
        DeviceTarget {
            network: &self.network,
            loss: &Loss::Mse,
            data: (&self.x, &self.y),
            centre: &self.centre,
            nbeta: NBETA,
            gamma: GAMMA,
            l0: None,
        }
    }
}

const NBETA: f64 = 30.0;
const GAMMA: f64 = 20.0;

fn spec<T: Real>(sgld: Sgld) -> SamplerSpec {
    let dtype = if T::NAME == "f32" { Dtype::F32 } else { Dtype::F64 };
    SamplerSpec { algo: Algo::Sgld(sgld), seed: 1, chains: 5, dtype }
}

fn sgld(precond: Precond) -> Sgld {
    Sgld {
        steps: 130,
        warmup: 10,
        batch_size: 21,
        step_size: Some(1e-3),
        eval_every: 3,
        precond,
        beta1: 0.9,
        beta2: 0.95,
        eps: 0.1,
        bias_correction: true,
        gamma_term: false,
        freeze_precond: precond == Precond::Rmsprop,
    }
}

fn run<T: Element + Number>(
    place: &dyn Place,
    sgld: &Sgld,
    problem: &Problem<T>,
    chains: usize,
    desk: &mut Desk<'_>,
) -> Result<Vec<ChainOutcome>, SamplerError> {
    let adapted = Adapted { step_size: sgld.step_size.expect("given"), ..Adapted::default() };
    let stream = Stream { id: STREAM, role: Role::Main };
    let which = (stream, chains);
    run_chains_on_device(place, &spec::<T>(sgld.clone()), &problem.on_device(), &adapted, which, desk)
        .map(|(outcomes, _)| outcomes)
}

/// Stops at the first look.
struct StopAtOnce<'a>(&'a RefCell<Vec<u8>>);

impl Watch for StopAtOnce<'_> {
    fn flow(&mut self, _: Progress) -> Flow {
        Flow::Stop
    }
    fn keep(&mut self, checkpoint: Vec<u8>) {
        *self.0.borrow_mut() = checkpoint;
    }
}

/// Killed at every look, and begun again with nothing but the checkpoint, on a device opened anew.
fn in_pieces<T: Element + Number>(program: &Path, sgld: &Sgld, problem: &Problem<T>) -> Vec<ChainOutcome> {
    let kept = RefCell::new(Vec::new());
    let (mut looks, mut checkpoint) = (0, None::<Vec<u8>>);
    loop {
        let mut desk = Desk::new(StopAtOnce(&kept), checkpoint.as_deref()).expect("a checkpoint");
        let place = open(HostKernels::new(program.to_owned()));
        match run(place.as_ref(), sgld, problem, 5, &mut desk) {
            Ok(outcomes) => {
                assert!(looks > 20, "{looks} looks");
                return outcomes;
            }
            Err(SamplerError::Interrupted(_)) => checkpoint = Some(kept.take()),
            Err(e) => panic!("{e}"),
        }
        looks += 1;
    }
}

fn bits_are_the_same<T: Element + Number>(program: &Path) {
    let problem = Problem::<T>::new(&[6, 5], 40);
    for precond in [Precond::None, Precond::Rmsprop, Precond::Adam] {
        let sgld = sgld(precond);
        let plain = HostKernels::new(program.to_owned());
        let on = |kernels: HostKernels, chains| {
            run(open(kernels).as_ref(), &sgld, &problem, chains, &mut Desk::unwatched()).expect("runs")
        };
        let whole = on(plain.clone(), 5);
        assert_eq!(whole.len(), 5);
        for outcome in &whole {
            assert_eq!(outcome.trace.draws(), 130 / 3 - 10 / 3);
            let mut llc = outcome.trace.values[0].clone();
            llc.dedup();
            assert!(llc.len() > 30, "the chain moves");
        }
        assert_ne!(whole[0].trace, whole[1].trace);
        assert!(on(plain.clone(), 1)[0] == whole[0], "{precond:?}: other bits alone");
        assert!(
            on(HostKernels { backwards: true, ..plain.clone() }, 5) == whole,
            "{precond:?}: threads race"
        );
        assert!(in_pieces(program, &sgld, &problem) == whole, "{precond:?}: other bits after kills");
        // Room for two chains and their data.
        let d = problem.centre.len();
        let of_chains =
            |n: usize| n * size_of::<T>() * d * (2 + 2) + n * 4 * 21 + 2 * 8 * 256 * n + 8 * n * 6 + 2048;
        let memory = of_chains(2) + (40 * 5 + d) * size_of::<T>();
        assert!(on(HostKernels { memory, ..plain.clone() }, 5) == whole, "{precond:?}: other bits in turns");
        let none = HostKernels { memory: 64, ..plain.clone() };
        let refused = run(open(none).as_ref(), &sgld, &problem, 5, &mut Desk::unwatched());
        let no_room = |e: &SamplerError| {
            matches!(e, SamplerError::Device(DeviceNetworkError::Device(DeviceError::OutOfMemory { .. })))
        };
        assert!(refused.as_ref().is_err_and(no_room), "{refused:?}");
    }
}

#[test]
fn chains_have_the_same_bits_alone_among_others_in_turns_and_after_kills() {
    let Some(program) = host(false) else { return };
    bits_are_the_same::<f64>(&program);
    bits_are_the_same::<f32>(&program);
}

#[test]
fn launches_stay_within_the_memory_that_was_allocated() {
    let Some(program) = host(true) else { return };
    // What goes beyond a buffer ends the program, and so the run.
    for precond in [Precond::None, Precond::Adam] {
        let problem = Problem::<f32>::new(&[6, 5], 40);
        let place = open(HostKernels::new(program.clone()));
        let ran = run(place.as_ref(), &sgld(precond), &problem, 2, &mut Desk::unwatched());
        assert_eq!(ran.expect("runs").len(), 2);
    }
}

/// The first draws by the CPU's formulas are in `steps.rs`; here λ̂ of long chains.
fn lambda_agrees<T: Element + Number>(program: &Path, precond: Precond) {
    let problem = Problem::<T>::new(&[2], 60);
    let settings = Sgld {
        steps: 40_000,
        warmup: 2_000,
        batch_size: 30,
        step_size: Some(if precond == Precond::None { 4e-3 } else { 1e-3 }),
        eval_every: 20,
        freeze_precond: false,
        ..sgld(precond)
    };
    let place = open(HostKernels::new(program.to_owned()));
    let there = run(place.as_ref(), &settings, &problem, 5, &mut Desk::unwatched()).expect("runs");

    let potential = NetworkPotential::new(&problem.network, &problem.x, &problem.y, &Loss::Mse);
    let posterior = Posterior::new(&potential, &problem.centre, NBETA, GAMMA).expect("finite");
    let adapted = Adapted { step_size: settings.step_size.expect("given"), ..Adapted::default() };
    let here: Vec<ChainOutcome> = (0..5)
        .map(|chain| {
            let (spec, mut desk) = (spec::<T>(settings.clone()), Desk::unwatched());
            run_chain(&spec, &posterior, &adapted, STREAM, chain, Role::Main, &mut desk).expect("runs")
        })
        .collect();
    let estimate = |outcomes: &[ChainOutcome]| {
        let chains: Vec<&[f64]> = outcomes.iter().map(|o| o.trace.values[0].as_slice()).collect();
        (mean(&chains.concat()), mcse_mean(&chains))
    };
    let ((there_llc, there_mcse), (here_llc, here_mcse)) = (estimate(&there), estimate(&here));
    println!(
        "{} {precond:?}: {there_llc:.4} ± {there_mcse:.4} by launches, {here_llc:.4} ± {here_mcse:.4} by the CPU",
        T::NAME
    );
    assert!(there_mcse < 0.05 * there_llc.abs() && here_mcse < 0.05 * here_llc.abs());
    assert!((there_llc - here_llc).abs() < 4.0 * there_mcse.hypot(here_mcse), "{precond:?}");
    // The same columns, and the same work.
    let (there, here) = (&there[0], &here[0]);
    assert_eq!(there.trace.values.len(), here.trace.values.len());
    assert_eq!(there.trace.draws(), here.trace.draws());
    for (a, b) in [
        (there.fge_warmup, here.fge_warmup),
        (there.fge_sampling, here.fge_sampling),
        (there.trace.values[3][7], here.trace.values[3][7]),
    ] {
        assert!((a - b).abs() < 1e-9 * b, "{a} {b}");
    }
    assert_ne!(there.trace, here.trace);
}

#[test]
fn lambda_agrees_with_the_samplers_of_the_cpu() {
    let Some(program) = host(false) else { return };
    lambda_agrees::<f64>(&program, Precond::None);
    lambda_agrees::<f32>(&program, Precond::Rmsprop);
    lambda_agrees::<f32>(&program, Precond::Adam);
}

fn network_agrees<T: Element + Number>(program: &Path, tolerance: f64) {
    let place = open(HostKernels::new(program.to_owned()));
    // Of the last, the weights stand in global memory.
    for hidden in [&[][..], &[7, 5], &[300, 150]] {
        let problem = Problem::<T>::new(hidden, 90);
        let (d, chains) = (problem.centre.len(), 2);
        let w: Vec<T> = normals::<T>(chains * d, 73).iter().map(|&w| w * T::from_f64(0.1)).collect();
        let there =
            DeviceNetwork::new(place.as_ref(), &problem.network, (&problem.x, &problem.y), &Loss::Mse, 3)
                .and_then(|there| Ok(there.with_gradients()?))
                .expect("fits");
        let on_device = Buffer::of(place.as_ref(), &w).expect("room");
        let mut gradients = Buffer::<T>::zeros(place.as_ref(), chains * d).expect("room");
        let losses = there.loss_grad(&on_device, chains, &mut gradients).expect("runs");
        assert_eq!(losses, there.loss(&on_device, chains).expect("runs"));
        let grad = gradients.front(chains * d).expect("copied");
        let here = NetworkPotential::new(&problem.network, &wide(&problem.x), &wide(&problem.y), &Loss::Mse);
        let (mut expected, mut scratch) = (vec![0.0; d], vec![0.0; here.scratch_len()]);
        for c in 0..chains {
            let loss = here.loss_grad(&wide(&w[c * d..][..d]), &mut expected, &mut scratch);
            assert!((losses[c] - loss).abs() <= tolerance * loss, "{hidden:?}");
            assert!(distance(&grad[c * d..][..d], &expected) <= tolerance, "{hidden:?}");
        }
        assert!(matches!(there.loss(&on_device, 3), Err(DeviceError::Length { what: "parameters", .. })));
    }
}

#[test]
fn networks_by_way_of_launches_agree_with_the_cpu() {
    let Some(program) = host(false) else { return };
    network_agrees::<f64>(&program, 1e-12);
    network_agrees::<f32>(&program, 1e-5);
}

#[test]
fn a_launch_that_fails_is_an_error_of_the_device() {
    let Some(program) = host(false) else { return };
    let problem = Problem::<f64>::new(&[2], 20);
    // A program that ends before it answers.
    let gone = HostKernels::new("true".into());
    let ran = run(open(gone).as_ref(), &sgld(Precond::None), &problem, 2, &mut Desk::unwatched());
    assert!(matches!(ran, Err(SamplerError::Device(DeviceNetworkError::Device(DeviceError::Failed { .. })))));
    let nowhere = RankDevice::of_host(HostKernels::new("/nonexistent/kernels".into())).open().map(drop);
    assert!(nowhere.unwrap_err().to_string().contains("/nonexistent/kernels"));
    let _ = program;
}

#[test]
fn what_has_no_kernel_stays_on_the_cpu_and_why() {
    let small = network(&[4]);
    let memory = lambda_hat::device::SharedMemory::SM_80;
    let plain = sgld(Precond::None);
    let why = |sgld: &Sgld, network: Option<&Network>, rows| {
        stays_on_cpu(&spec::<f32>(sgld.clone()), network.map(|n| (n, &Loss::Mse)), rows, memory)
    };
    assert_eq!(why(&plain, Some(&small), 100), None);
    let told = |why: Option<String>| why.unwrap_or_default();
    assert!(told(why(&plain, None, 0)).contains("no network"));
    let slope = Sgld { gamma_term: true, ..plain.clone() };
    assert!(told(why(&slope, Some(&small), 100)).contains("gamma_term"));
    assert!(told(why(&plain, Some(&network(&[4; 30])), 100)).contains("layers"));
    assert!(told(why(&plain, Some(&network(&[300, 300])), 100)).contains("shared memory"));
}
