//! Whole chains by way of launches, on the kernels built for the host: the same code that drives a GPU.

use std::cell::RefCell;
use std::path::Path;

use lambda_hat::config::{
    Activation, Algo, Dtype, Hmc, Integrator, Loss, Mala, Mclmc, Network, Precond, SamplerSpec, Sghmc, Sgld,
    Sgnht,
};
use lambda_hat::device::gpu::{Buffer, DeviceError, HostKernels, Number, Place, RankDevice};
use lambda_hat::device::{Element, SharedMemory};
use lambda_hat::num::Real;
use lambda_hat::resume::{Desk, Flow, Progress, Watch};
use lambda_hat::sampler::{
    Adapted, ChainOutcome, DeviceTarget, Posterior, Role, SamplerError, Stream, layout, run_chain,
    run_chains_on_device, stays_on_cpu,
};
use lambda_hat::stats::{mcse_mean, mean};
use lambda_hat::target::{
    DeviceNetwork, DeviceNetworkError, NetworkPlan, NetworkPotential, Potential, param_count,
};

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

/// A sampler, and what its warmup would have found.
#[derive(Clone, Debug)]
struct Case {
    algo: Algo,
    adapted: Adapted,
}

impl Case {
    fn spec<T: Real>(&self) -> SamplerSpec {
        let dtype = if T::NAME == "f32" { Dtype::F32 } else { Dtype::F64 };
        SamplerSpec { algo: self.algo.clone(), seed: 1, chains: 5, dtype }
    }
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

fn of_sgld(sgld: Sgld) -> Case {
    let adapted = Adapted { step_size: sgld.step_size.expect("given"), ..Adapted::default() };
    Case { algo: Algo::Sgld(sgld), adapted }
}

fn sghmc(steps: u64, eval_every: u64) -> Case {
    let (batch_size, step_size, friction) = (21, Some(2e-3), 0.2);
    let sghmc = Sghmc { steps, warmup: steps / 10, batch_size, step_size, friction, eval_every };
    Case { algo: Algo::Sghmc(sghmc), adapted: Adapted { step_size: 2e-3, ..Adapted::default() } }
}

fn sgnht(steps: u64, eval_every: u64) -> Case {
    let (batch_size, step_size, friction) = (21, Some(2e-3), 0.2);
    let sgnht = Sgnht { steps, warmup: steps / 10, batch_size, step_size, friction, eval_every };
    Case { algo: Algo::Sgnht(sgnht), adapted: Adapted { step_size: 2e-3, ..Adapted::default() } }
}

/// M⁻¹ of `d` coordinates, or σ²: around the posterior's own variances.
fn variances(d: usize) -> Vec<f64> {
    (0..d).map(|i| 0.02 + 0.01 * (i % 3) as f64).collect()
}

fn hmc(draws: usize, d: usize) -> Case {
    let hmc = Hmc { draws, warmup: 0, num_integration_steps: 4, step_size: 0.6, target_acceptance: 0.8 };
    let adapted = Adapted { step_size: 0.6, inverse_mass: variances(d), ..Adapted::default() };
    Case { algo: Algo::Hmc(hmc), adapted }
}

fn mala(draws: usize, d: usize) -> Case {
    let mala = Mala { draws, warmup: 0, thin: 3, step_size: Some(0.4), target_acceptance: 0.8 };
    let adapted = Adapted { step_size: 0.4, inverse_mass: variances(d), ..Adapted::default() };
    Case { algo: Algo::Mala(mala), adapted }
}

fn mclmc(draws: usize, d: usize, integrator: Integrator) -> Case {
    let mclmc = Mclmc {
        draws,
        thin: Some(2),
        l: Some(2.0),
        step_size: 1.0,
        num_steps: 0,
        frac_tune1: 0.1,
        frac_tune2: 0.1,
        frac_tune3: 0.1,
        desired_energy_var: 5e-5,
        trust_in_estimate: 1.0,
        num_effective_samples: 150.0,
        diagonal_preconditioning: false,
        integrator,
        adjusted: Some(false),
        target_acceptance: 0.9,
    };
    let adapted =
        Adapted { step_size: 0.4, inverse_mass: variances(d), length: Some(2.0), ..Adapted::default() };
    Case { algo: Algo::Mclmc(mclmc), adapted }
}

fn run<T: Element + Number>(
    place: &dyn Place,
    case: &Case,
    problem: &Problem<T>,
    chains: usize,
    desk: &mut Desk<'_>,
) -> Result<Vec<ChainOutcome>, SamplerError> {
    let stream = Stream { id: STREAM, role: Role::Main };
    let which = (stream, chains);
    run_chains_on_device(place, &case.spec::<T>(), &problem.on_device(), &case.adapted, which, desk)
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
fn in_pieces<T: Element + Number>(program: &Path, case: &Case, problem: &Problem<T>) -> Vec<ChainOutcome> {
    let kept = RefCell::new(Vec::new());
    let (mut looks, mut checkpoint) = (0, None::<Vec<u8>>);
    loop {
        let mut desk = Desk::new(StopAtOnce(&kept), checkpoint.as_deref()).expect("a checkpoint");
        let place = open(HostKernels::new(program.to_owned()));
        match run(place.as_ref(), case, problem, 5, &mut desk) {
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

/// A case, the draws of a chain, and what so many chains take of the device's memory, in numbers and bytes each, beside
/// their data.
struct Bits {
    case: Case,
    draws: usize,
    chain: (usize, usize),
}

/// Cases on a network of `d` parameters whose data make one segment.
fn bits(d: usize) -> Vec<Bits> {
    let sglds = [Precond::None, Precond::Rmsprop, Precond::Adam].map(|precond| Bits {
        case: of_sgld(sgld(precond)),
        draws: 130 / 3 - 10 / 3,
        chain: (d * (2 + 2), 4 * 21 + 2 * 8 * 256 + 8 * 6),
    });
    let of_momenta = [sghmc(130, 3), sgnht(130, 3)].map(|case| Bits {
        case,
        draws: 130 / 3 - 13 / 3,
        chain: (d * (2 + 2), 4 * 21 + 2 * 8 * 256 + 8 * 6),
    });
    // Five vectors, a segment's gradient; the draws of 256 rounds, 16 numbers of its flight, three losses.
    let of_rounds = |case, draws, thin: usize| Bits {
        case,
        draws,
        chain: (d * (5 + 1), 256usize.div_ceil(thin) * 6 * 8 + 19 * 8 + 4),
    };
    let verlet = Integrator::IsokineticVelocityVerlet;
    sglds
        .into_iter()
        .chain(of_momenta)
        .chain([
            of_rounds(hmc(40, d), 40, 1),
            of_rounds(mala(35, d), 35, 3),
            of_rounds(mclmc(35, d, Integrator::IsokineticMclachlan), 35, 2),
            of_rounds(mclmc(33, d, verlet), 33, 2),
        ])
        .collect()
}

fn bits_are_the_same<T: Element + Number>(program: &Path) {
    let problem = Problem::<T>::new(&[6, 5], 40);
    let d = problem.centre.len();
    for Bits { case, draws, chain } in bits(d) {
        let plain = HostKernels::new(program.to_owned());
        let on = |kernels: HostKernels, chains| {
            run(open(kernels).as_ref(), &case, &problem, chains, &mut Desk::unwatched()).expect("runs")
        };
        let whole = on(plain.clone(), 5);
        assert_eq!(whole.len(), 5);
        for outcome in &whole {
            assert_eq!(outcome.trace.draws(), draws);
            let mut llc = outcome.trace.values[0].clone();
            llc.dedup();
            assert!(llc.len() > draws / 2, "the chain moves: {case:?} {}", llc.len());
        }
        assert_ne!(whole[0].trace, whole[1].trace);
        assert!(on(plain.clone(), 1)[0] == whole[0], "{case:?}: other bits alone");
        assert!(on(HostKernels { backwards: true, ..plain.clone() }, 5) == whole, "{case:?}: threads race");
        assert!(in_pieces(program, &case, &problem) == whole, "{case:?}: other bits after kills");
        // Room for two chains and their data, not for three.
        let of_chains = |n: usize| n * (size_of::<T>() * chain.0 + chain.1) + 2048;
        let memory = of_chains(2) + (40 * 5 + 2 * d) * size_of::<T>();
        assert!(on(HostKernels { memory, ..plain.clone() }, 5) == whole, "{case:?}: other bits in turns");
        let none = HostKernels { memory: 64, ..plain.clone() };
        let refused = run(open(none).as_ref(), &case, &problem, 5, &mut Desk::unwatched());
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
    let problem = Problem::<f32>::new(&[6, 5], 40);
    for Bits { case, .. } in bits(problem.centre.len()) {
        let place = open(HostKernels::new(program.clone()));
        let ran = run(place.as_ref(), &case, &problem, 2, &mut Desk::unwatched());
        assert_eq!(ran.expect("runs").len(), 2);
    }
}

/// Weights in global memory: bits, and that steps see the weights as they are now. With one row the last minibatch's loss
/// is that of all rows one step before, which is as good as no step away.
#[test]
fn chains_whose_weights_are_in_global_memory_see_their_own() {
    let Some(program) = host(false) else { return };
    let problem = Problem::<f64>::new(&[180, 100], 1);
    let d = problem.centre.len();
    let plan = NetworkPlan::for_batch::<f64>(&problem.network, &Loss::Mse, 21, SharedMemory::SM_80);
    assert!(!plan.expect("fits").weights_are_shared());
    let step_size = 1e-6;
    let short =
        Sgld { steps: 40, warmup: 1, eval_every: 10, step_size: Some(step_size), ..sgld(Precond::None) };
    let with_step = |case: Case| Case { adapted: Adapted { step_size, ..case.adapted }, ..case };
    for case in [of_sgld(short), with_step(sghmc(40, 10)), with_step(sgnht(40, 10)), mala(1, d)] {
        let on = |backwards, chains| {
            let place = open(HostKernels { backwards, ..HostKernels::new(program.clone()) });
            run(place.as_ref(), &case, &problem, chains, &mut Desk::unwatched()).expect("runs")
        };
        let whole = on(false, 2);
        assert!(on(true, 2) == whole && on(false, 1)[0] == whole[0], "{case:?}");
        assert_ne!(whole[0].trace, whole[1].trace);
        let [losses, last] = [1, 2].map(|column| &whole[0].trace.values[column]);
        if !matches!(case.algo, Algo::Mala(_)) {
            let moved = losses.iter().fold(0.0, |m: f64, l| m.max((l - losses[0]).abs()));
            for (loss, last) in losses.iter().zip(last) {
                assert!((loss - last).abs() < 0.3 * moved, "{case:?}: {loss} {last} {moved}");
            }
        }
    }
}

/// From many chains on a block of threads makes many rounds of a chain, over all its segments.
#[test]
fn many_chains_have_the_bits_of_few() {
    let Some(program) = host(false) else { return };
    let problem = Problem::<f32>::new(&[2], 140);
    let d = problem.centre.len();
    let plan = NetworkPlan::new::<f32>(&problem.network, &Loss::Mse, 140, SharedMemory::SM_80).expect("fits");
    assert_eq!(140usize.div_ceil(plan.segment()), 2, "segments");
    for case in [mala(2, d), mclmc(2, d, Integrator::IsokineticVelocityVerlet)] {
        let of = |chains| {
            let place = open(HostKernels::new(program.clone()));
            run(place.as_ref(), &case, &problem, chains, &mut Desk::unwatched()).expect("runs")
        };
        let many = of(264);
        assert_eq!(many.len(), 264);
        assert!(many[..3] == of(3), "{case:?}");
    }
}

/// The first draws by the CPU's formulas are in `steps.rs` and `rounds.rs`; here λ̂ of long chains.
fn lambda_agrees<T: Element + Number>(program: &Path, case: &Case) {
    let problem = Problem::<T>::new(&[2], 60);
    let place = open(HostKernels::new(program.to_owned()));
    let there = run(place.as_ref(), case, &problem, 5, &mut Desk::unwatched()).expect("runs");

    let potential = NetworkPotential::new(&problem.network, &problem.x, &problem.y, &Loss::Mse);
    let posterior = Posterior::new(&potential, &problem.centre, NBETA, GAMMA).expect("finite");
    let here: Vec<ChainOutcome> = (0..5)
        .map(|chain| {
            let (spec, mut desk) = (case.spec::<T>(), Desk::unwatched());
            run_chain(&spec, &posterior, &case.adapted, STREAM, chain, Role::Main, &mut desk).expect("runs")
        })
        .collect();
    let of_column = |outcomes: &[ChainOutcome], column: usize| {
        let chains: Vec<&[f64]> = outcomes.iter().map(|o| o.trace.values[column].as_slice()).collect();
        (mean(&chains.concat()), mcse_mean(&chains))
    };
    let layout = layout(&case.spec::<T>());
    for (column, name) in layout.iter().map(|column| column.name.as_str()).enumerate() {
        let ((there, there_mcse), (here, here_mcse)) = (of_column(&there, column), of_column(&here, column));
        println!(
            "{} {} {name}: {there:.5} ± {there_mcse:.5} by launches, {here:.5} ± {here_mcse:.5} by the CPU",
            T::NAME,
            case.algo.name()
        );
        match name {
            "llc" => {
                assert!(there_mcse < 0.05 * there.abs() && here_mcse < 0.05 * here.abs(), "{case:?}");
                assert!((there - here).abs() < 4.0 * there_mcse.hypot(here_mcse), "{case:?}");
            }
            // Work adds up, and is compared below.
            "cumulative_fge" => {}
            _ if there_mcse > 0.0 || here_mcse > 0.0 => {
                assert!((there - here).abs() < 4.0 * there_mcse.hypot(here_mcse), "{case:?} {name}");
            }
            _ => assert_eq!(there, here, "{case:?} {name}"),
        }
    }
    // The same columns, and work that is the same but for the lengths of paths.
    let fge = layout.iter().position(|column| column.name == "cumulative_fge").expect("a column");
    let paths = matches!(case.algo, Algo::Hmc(_));
    let (there, here) = (&there[0], &here[0]);
    assert_eq!(there.trace.values.len(), here.trace.values.len());
    assert_eq!(there.trace.draws(), here.trace.draws());
    for (a, b) in [
        (there.fge_warmup, here.fge_warmup),
        (there.fge_sampling, here.fge_sampling),
        (there.trace.values[fge][7], here.trace.values[fge][7]),
    ] {
        // Of a hundred paths at least, each uniform on 1 … 2L − 1: 4σ of two such sums are below a third.
        let allowed = if paths { 0.33 } else { 1e-9 };
        assert!((a - b).abs() < allowed * b, "{case:?} {a} {b}");
    }
    assert_ne!(there.trace, here.trace);
    assert_eq!(there.final_state.len(), here.final_state.len(), "the state of the CPU's kernel");
}

#[test]
fn lambda_agrees_with_the_samplers_of_the_cpu() {
    let Some(program) = host(false) else { return };
    let long = |precond| {
        of_sgld(Sgld {
            steps: 40_000,
            warmup: 2_000,
            batch_size: 30,
            step_size: Some(if precond == Precond::None { 4e-3 } else { 1e-3 }),
            eval_every: 20,
            freeze_precond: false,
            ..sgld(precond)
        })
    };
    lambda_agrees::<f64>(&program, &long(Precond::None));
    lambda_agrees::<f32>(&program, &long(Precond::Rmsprop));
    lambda_agrees::<f32>(&program, &long(Precond::Adam));
    lambda_agrees::<f64>(&program, &sghmc(40_000, 20));
    lambda_agrees::<f32>(&program, &sgnht(40_000, 20));
    let d = param_count(&network(&[2]));
    lambda_agrees::<f64>(&program, &hmc(1500, d));
    lambda_agrees::<f32>(&program, &mala(2000, d));
    lambda_agrees::<f64>(&program, &mclmc(3000, d, Integrator::IsokineticMclachlan));
    lambda_agrees::<f32>(&program, &mclmc(3000, d, Integrator::IsokineticVelocityVerlet));
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
    let ran = run(open(gone).as_ref(), &of_sgld(sgld(Precond::None)), &problem, 2, &mut Desk::unwatched());
    assert!(matches!(ran, Err(SamplerError::Device(DeviceNetworkError::Device(DeviceError::Failed { .. })))));
    let nowhere = RankDevice::of_host(HostKernels::new("/nonexistent/kernels".into())).open().map(drop);
    assert!(nowhere.unwrap_err().to_string().contains("/nonexistent/kernels"));
    let _ = program;
}

#[test]
fn what_has_no_kernel_stays_on_the_cpu_and_why() {
    let small = network(&[4]);
    let memory = SharedMemory::SM_80;
    let plain = sgld(Precond::None);
    let of = |case: &Case, network: Option<&Network>, rows| {
        stays_on_cpu(&case.spec::<f32>(), network.map(|n| (n, &Loss::Mse)), rows, memory)
    };
    let why = |sgld: &Sgld, network: Option<&Network>, rows| of(&of_sgld(sgld.clone()), network, rows);
    assert_eq!(why(&plain, Some(&small), 100), None);
    let told = |why: Option<String>| why.unwrap_or_default();
    assert!(told(why(&plain, None, 0)).contains("no network"));
    let slope = Sgld { gamma_term: true, ..plain.clone() };
    assert!(told(why(&slope, Some(&small), 100)).contains("gamma_term"));
    assert!(told(why(&plain, Some(&network(&[4; 30])), 100)).contains("layers"));
    // Weights in global memory do as well; activations must fit.
    assert_eq!(why(&plain, Some(&network(&[300, 300])), 100), None);
    assert!(told(why(&plain, Some(&network(&[4000])), 100)).contains("shared memory"));
    let d = param_count(&small);
    let with = |case: Case, change: &dyn Fn(&mut Mclmc)| match case {
        Case { algo: Algo::Mclmc(mut mclmc), adapted } => {
            change(&mut mclmc);
            Case { algo: Algo::Mclmc(mclmc), adapted }
        }
        case => case,
    };
    let unadjusted = mclmc(1, d, Integrator::IsokineticMclachlan);
    for case in [hmc(1, d), mala(1, d), unadjusted.clone(), sghmc(10, 1), sgnht(10, 1)] {
        assert_eq!(of(&case, Some(&small), 100), None);
        assert_eq!(of(&case, Some(&network(&[300, 300])), 100), None);
        assert!(told(of(&case, Some(&network(&[4; 30])), 100)).contains("layers"));
        assert!(told(of(&case, None, 0)).contains("no network"));
    }
    let adjusted = with(unadjusted.clone(), &|mclmc| mclmc.adjusted = Some(true));
    assert!(told(of(&adjusted, Some(&small), 100)).contains("adjusted trajectories"));
    let auto = with(unadjusted.clone(), &|mclmc| mclmc.adjusted = None);
    assert_eq!(of(&auto, Some(&small), 100), None);
    let tiny = Network { in_dim: 1, out_dim: 1, bias: false, ..network(&[]) };
    assert!(told(of(&auto, Some(&tiny), 100)).contains("adjusted trajectories"));
    assert!(told(of(&unadjusted, Some(&tiny), 100)).contains("2 parameters"));
}
