//! Rounds of chains on gradients over all rows, launched one by one and compared with the formulas of the CPU's samplers.

use std::path::Path;

use lambda_hat::config::{Activation, Loss, Network};
use lambda_hat::device::Element;
use lambda_hat::device::gpu::{Buffer, HostKernels, Kernel, Launch, Number, Parameter, Place, RankDevice};
use lambda_hat::num::Real;
use lambda_hat::target::{DeviceNetwork, NetworkPotential, Potential, param_count};

use super::host::{Wire, host};
use super::steps::{FIRST_CHAIN, KEY, PURPOSE, index_of, noise, words_of};
use super::{distance, normals, wide};

const NBETA: f64 = 40.0;
const GAMMA: f64 = 30.0;
const L0: f64 = 0.25;
const CHAINS: usize = 3;
const HAMILTONIAN: [Kernel; 2] = [Kernel::HamiltonianRound, Kernel::HamiltonianRounds];
const MICROCANONICAL: [Kernel; 2] = [Kernel::MicrocanonicalRound, Kernel::MicrocanonicalRounds];

/// Numbers that rounds go by.
#[derive(Clone, Copy, Debug)]
struct Course {
    total: u64,
    burn_in: u64,
    thin: u64,
    step_size: f64,
    length: f64,
    steps: usize,
}

struct Problem<T> {
    network: Network,
    x: Vec<T>,
    y: Vec<T>,
    centre: Vec<T>,
    scale: Vec<T>,
}

impl<T: Real> Problem<T> {
    /// Two segments of rows.
    fn new() -> Self {
        let network = Network {
            in_dim: 3,
            hidden: vec![6, 5],
            out_dim: 2,
            activation: Activation::Tanh,
            bias: true,
            layernorm: false,
            residual_period: None,
        };
        let d = param_count(&network);
        let scale = (0..d).map(|i| T::from_f64(0.02 + 0.01 * (i % 3) as f64)).collect();
        Self { x: normals(140 * 3, 60), y: normals(140 * 2, 61), centre: normals(d, 62), scale, network }
    }
}

/// What chains left: states, directions, draws of each chain.
#[derive(Clone, Debug, PartialEq)]
struct Made<T> {
    w: Vec<T>,
    slope: Vec<T>,
    p: Vec<T>,
    rows: Vec<Vec<[f64; 6]>>,
    flight: Vec<f64>,
}

/// So many rounds from w*, by one launch each of their parts or `together` in one.
fn made<T: Element + Number>(
    place: &dyn Place,
    problem: &Problem<T>,
    (kernels, course): ([Kernel; 2], Course),
    (rounds, together): (usize, bool),
) -> Made<T> {
    let (d, most) = (problem.centre.len(), (course.total / course.thin) as usize);
    let there = DeviceNetwork::new(place, &problem.network, (&problem.x, &problem.y), &Loss::Mse, CHAINS)
        .and_then(|there| Ok(there.with_gradients()?))
        .expect("fits");
    assert_eq!(there.segments(), 2);
    let of = |array: &[T]| Buffer::of(place, array).expect("room");
    let zeros = |len| Buffer::<T>::zeros(place, len).expect("room");
    let starts = problem.centre.repeat(CHAINS);
    let (centre, scale) = (of(&problem.centre), of(&problem.scale));
    let (w, q, slope, p) = (of(&starts), of(&starts), zeros(CHAINS * d), zeros(CHAINS * d));
    let mut grad = zeros(CHAINS * d);
    let mean = Buffer::<f64>::zeros(place, CHAINS).expect("room");
    let flight = Buffer::<f64>::zeros(place, 16 * CHAINS).expect("room");
    let drawn = Buffer::<u32>::zeros(place, CHAINS).expect("room");
    let rows = Buffer::<f64>::zeros(place, most * CHAINS * 6).expect("room");
    let arguments = Parameter::default()
        .and_word(KEY[0])
        .and_word(KEY[1])
        .and_word(PURPOSE)
        .and_word(FIRST_CHAIN)
        .and_long(course.total)
        .and_long(course.burn_in)
        .and_long(course.thin)
        .and_array(&centre)
        .and_array(&scale)
        .and_array(&grad)
        .and_array(&mean)
        .and_array(&w)
        .and_array(&slope)
        .and_array(&q)
        .and_array(&p)
        .and_array(&flight)
        .and_array(&drawn)
        .and_array(&rows)
        .and_double(course.step_size)
        .and_double(course.length)
        .and_double(NBETA)
        .and_double(GAMMA)
        .and_double(L0)
        .and_int(d)
        .and_int(CHAINS)
        .and_int(course.steps)
        .and_int(0);
    let threads = there.plan().threads();
    let round_bytes = 3 * threads * 8 + 40;
    let launch = |kernel, shared_bytes, parameters: &[Parameter]| {
        let double = T::NAME == "f64";
        let grid = (1, CHAINS);
        place.launch(&Launch { kernel, double, grid, threads, shared_bytes, parameters }).expect("runs");
    };
    if together {
        let plan = Parameter::bytes(&there.plan().to_bytes());
        let bytes = round_bytes.max(there.plan().shared_bytes());
        launch(kernels[1], bytes, &[plan, there.arguments(&q), arguments, Parameter::int(rounds)]);
    } else {
        for _ in 0..rounds {
            there.loss_grad_into(&q, CHAINS, &mut grad, (&mean, 0)).expect("runs");
            launch(kernels[0], round_bytes, std::slice::from_ref(&arguments));
        }
    }
    let drawn = drawn.front(CHAINS).expect("copied");
    let rows = rows.front(most * CHAINS * 6).expect("copied");
    let of_chain = |c: usize| {
        (0..drawn[c] as usize).map(|k| *rows[(k * CHAINS + c) * 6..].first_chunk().expect("a row")).collect()
    };
    let front = |buffer: &Buffer<'_, T>| buffer.front(CHAINS * d).expect("copied");
    Made {
        w: front(&w),
        slope: front(&slope),
        p: front(&p),
        rows: (0..CHAINS).map(of_chain).collect(),
        flight: flight.front(16 * CHAINS).expect("copied"),
    }
}

/// A chain by the formulas, in `f64`, on the device's random numbers.
struct Reference<'a> {
    program: &'a Path,
    chain: u32,
    potential: NetworkPotential<f64>,
    centre: Vec<f64>,
    scale: Vec<f64>,
    course: Course,
}

/// Where it is: w, U(w), L(w), ∇U(w).
#[derive(Clone)]
struct Point {
    w: Vec<f64>,
    energy: f64,
    loss: f64,
    slope: Vec<f64>,
}

impl Reference<'_> {
    fn at(&self, w: Vec<f64>) -> Point {
        let mut slope = vec![0.0; w.len()];
        let mut scratch = vec![0.0; self.potential.scratch_len()];
        let loss = self.potential.loss_grad(&w, &mut slope, &mut scratch);
        let off: Vec<f64> = w.iter().zip(&self.centre).map(|(w, c)| w - c).collect();
        slope.iter_mut().zip(&off).for_each(|(g, off)| *g = NBETA * *g + GAMMA * off);
        let energy = NBETA * (loss - L0) + 0.5 * GAMMA * off.iter().map(|o| o * o).sum::<f64>();
        Point { w, energy, loss, slope }
    }

    fn noise<T: Wire>(&self, iteration: u64, first: u32) -> Vec<f64> {
        wide(&noise::<T>(self.program, self.chain, iteration, first, self.centre.len()))
    }

    /// Draws, the last point, gradients, and the least margin by which an acceptance was decided.
    fn hamiltonian<T: Wire>(&self) -> (Vec<[f64; 6]>, Point, f64) {
        let Course { total, burn_in, thin, step_size, steps, .. } = self.course;
        let mut point = self.at(self.centre.clone());
        let (mut rows, mut fge, mut margin) = (Vec::new(), 1.0, f64::INFINITY);
        let (mut acceptances, mut diverged) = (0.0, 0.0);
        for iteration in 0..total {
            let words = words_of(self.program, self.chain, iteration, 2);
            let uniform = |high: u32, low: u32| {
                (((u64::from(high) << 32 | u64::from(low)) >> 11) as f64 + 0.5) * 2f64.powi(-53)
            };
            let step = step_size * (0.2 + 0.8 * uniform(words[0], words[1]));
            let count = 1 + index_of(&words[2..4], 2 * steps - 1);
            let mut p: Vec<f64> =
                self.noise::<T>(iteration, 2).iter().zip(&self.scale).map(|(z, m)| z / m.sqrt()).collect();
            let kinetic = |p: &[f64]| 0.5 * p.iter().zip(&self.scale).map(|(p, m)| p * p * m).sum::<f64>();
            let before = point.energy + kinetic(&p);
            let (mut end, mut taken) = (point.clone(), 0.0);
            for _ in 0..count {
                p.iter_mut().zip(&end.slope).for_each(|(p, g)| *p -= 0.5 * step * g);
                let w = end.w.iter().zip(&p).zip(&self.scale).map(|((w, p), m)| w + step * m * p).collect();
                end = self.at(w);
                p.iter_mut().zip(&end.slope).for_each(|(p, g)| *p -= 0.5 * step * g);
                taken += 1.0;
                if !end.energy.is_finite() {
                    break;
                }
            }
            fge += taken;
            let after = end.energy + kinetic(&p);
            let error = after - before;
            let wild = !error.is_finite() || error > 1000.0;
            let acceptance = if wild { 0.0 } else { (-error).exp().min(1.0) };
            let threshold = uniform(words[4], words[5]);
            margin = margin.min((threshold - acceptance).abs());
            let moves = threshold < acceptance;
            if moves {
                point = end;
            }
            acceptances += acceptance;
            diverged = f64::max(diverged, f64::from(u8::from(wild)));
            if (iteration + 1) % thin == 0 {
                let energy = if moves { after } else { before };
                if iteration >= burn_in {
                    rows.push([point.loss, acceptances / thin as f64, energy, diverged, taken, fge]);
                }
                (acceptances, diverged) = (0.0, 0.0);
            }
        }
        (rows, point, margin)
    }

    /// Turns `u` over a path of that length; the change of kinetic energy.
    fn turn(&self, u: &mut [f64], slope: &[f64], length: f64) -> f64 {
        let force: Vec<f64> = slope.iter().zip(&self.scale).map(|(g, s)| g * s).collect();
        let norm = force.iter().map(|f| f * f).sum::<f64>().sqrt();
        let dims = (u.len() - 1) as f64;
        // u̇ = (e − u(u·e))·|σ∇U|/(d − 1) with e = −σ∇U/|σ∇U|: u turns in the plane of the two by a hyperbolic angle δ,
        // and the momentum's length grows by cosh δ + (u·e) sinh δ (Robnik et al. 2023, eq. 10).
        let along = -u.iter().zip(&force).map(|(u, f)| u * f).sum::<f64>() / norm;
        let delta = length * norm / dims;
        let grows = delta.cosh() + along * delta.sinh();
        for (u, f) in u.iter_mut().zip(&force) {
            *u = (*u - f / norm * (delta.sinh() + along * (delta.cosh() - 1.0))) / grows;
        }
        dims * grows.ln()
    }

    fn microcanonical<T: Wire>(&self) -> (Vec<[f64; 6]>, Point, Vec<f64>) {
        let Course { total, burn_in, thin, step_size: step, length, steps } = self.course;
        let d = self.centre.len();
        let blocks = (d.div_ceil(4) * if T::WIDTH == 4 { 1 } else { 2 }) as u32;
        let (edge, drift) = if steps == 1 { (0.5, 1.0) } else { (0.193_183_327_503_783_6, 0.5) };
        let normalised = |u: Vec<f64>| {
            let norm = u.iter().map(|u| u * u).sum::<f64>().sqrt();
            u.iter().map(|u| u / norm).collect::<Vec<f64>>()
        };
        let mut point = self.at(self.centre.clone());
        let (mut rows, mut fge, mut errors, mut fresh) = (Vec::new(), 1.0, 0.0, true);
        let mut u = vec![0.0; d];
        for iteration in 0..total {
            if fresh {
                u = normalised(self.noise::<T>(iteration, 0));
            }
            let mut end = point.clone();
            let mut kinetic = self.turn(&mut u, &end.slope, edge * step);
            for stage in 0..steps {
                let w = end
                    .w
                    .iter()
                    .zip(&u)
                    .zip(&self.scale)
                    .map(|((w, u), s)| w + drift * step * s * u)
                    .collect();
                end = self.at(w);
                let kick = if stage + 1 < steps { 1.0 - 2.0 * edge } else { edge };
                kinetic += self.turn(&mut u, &end.slope, kick * step);
                fge += 1.0;
            }
            let error = kinetic + end.energy - point.energy;
            errors += error;
            fresh = !error.is_finite() || error.abs() > 1000.0;
            if !fresh {
                point = end;
                let nu = ((2.0 * step / length).exp_m1() / d as f64).sqrt();
                let z = self.noise::<T>(iteration, blocks);
                let forgets = step > 30.0 * length;
                let part = |(u, z): (&f64, &f64)| if forgets { *z } else { u + nu * z };
                u = normalised(u.iter().zip(&z).map(part).collect());
            }
            if (iteration + 1) % thin == 0 {
                if iteration >= burn_in {
                    let diverged = f64::from(u8::from(errors.abs() > 1000.0));
                    rows.push([point.loss, errors, diverged, fge, 0.0, 0.0]);
                }
                errors = 0.0;
            }
        }
        (rows, point, u)
    }
}

fn agrees<T: Wire + Element + Number>(program: &Path, tolerance: f64) {
    let problem = Problem::<T>::new();
    let place = |backwards| {
        let kernels = HostKernels { backwards, ..HostKernels::new(program.to_owned()) };
        RankDevice::of_host(kernels).open().expect("the program starts")
    };
    let (x, y) = (wide(&problem.x), wide(&problem.y));
    let course = Course { total: 6, burn_in: 2, thin: 1, step_size: 0.3, length: 0.0, steps: 3 };
    let isokinetic = Course { total: 9, burn_in: 3, thin: 3, step_size: 0.5, length: 2.0, steps: 2 };
    let mut worst = 0.0f64;
    for (kernels, course) in [
        (HAMILTONIAN, course),
        // MALA: paths of one step, several to a draw.
        (HAMILTONIAN, Course { thin: 3, total: 9, burn_in: 3, steps: 1, ..course }),
        // Much longer steps.
        (HAMILTONIAN, Course { step_size: 2.5, ..course }),
        (MICROCANONICAL, isokinetic),
        (MICROCANONICAL, Course { steps: 1, thin: 1, ..isokinetic }),
        // All of the direction is forgotten.
        (MICROCANONICAL, Course { length: 0.01, ..isokinetic }),
        // Steps that are taken back.
        (MICROCANONICAL, Course { step_size: 400.0, length: 1e4, thin: 1, ..isokinetic }),
    ] {
        let rounds = (course.total as usize) * 2 * course.steps + 1;
        let all = made(place(false).as_ref(), &problem, (kernels, course), (rounds, false));
        for (backwards, together) in [(true, false), (false, true), (true, true)] {
            let other = made(place(backwards).as_ref(), &problem, (kernels, course), (rounds, together));
            assert!(
                other.flight == all.flight && other == all,
                "{course:?} {backwards} {together}: other bits"
            );
        }
        let d = problem.centre.len();
        for c in 0..CHAINS {
            let reference = Reference {
                program,
                chain: FIRST_CHAIN + c as u32,
                potential: NetworkPotential::new(&problem.network, &x, &y, &Loss::Mse),
                centre: wide(&problem.centre),
                scale: wide(&problem.scale),
                course,
            };
            let (rows, point, direction) = if kernels == HAMILTONIAN {
                let (rows, point, margin) = reference.hamiltonian::<T>();
                assert!(margin > 1e-3, "{course:?}: a decision too close to call, {margin}: other numbers");
                (rows, point, None)
            } else {
                let (rows, point, direction) = reference.microcanonical::<T>();
                (rows, point, Some(direction))
            };
            let own = |all: &[T]| all[c * d..][..d].to_vec();
            let mut off = distance(&own(&all.w), &point.w).max(distance(&own(&all.slope), &point.slope));
            if let Some(direction) = direction {
                off = off.max(distance(&own(&all.p), &direction));
            }
            assert_eq!(all.rows[c].len(), rows.len());
            // Energies are sums of d terms that partly cancel.
            let size = 1.0
                + rows.iter().flatten().fold(0.0, |m: f64, x| if x.is_finite() { m.max(x.abs()) } else { m });
            for (got, expected) in all.rows[c].iter().flatten().zip(rows.iter().flatten()) {
                off = off.max((got - expected).abs() / size);
            }
            assert!(off <= tolerance, "{course:?} chain {c}: {off:e}\n{:?}\n{rows:?}", all.rows[c]);
            worst = worst.max(off);
            let flight = &all.flight[16 * c..];
            assert_eq!((flight[0], flight[14]), (course.total as f64, 0.0));
        }
    }
    println!("{}: rounds of chains, largest relative error {worst:.1e}", T::NAME);
}

#[test]
fn rounds_follow_the_formulas_of_the_cpu() {
    let Some(program) = host(false) else { return };
    agrees::<f64>(&program, 1e-12);
    agrees::<f32>(&program, 1e-5);
}

#[test]
fn rounds_stay_within_their_memory_and_within_the_language() {
    let Some(program) = host(true) else { return };
    agrees::<f32>(&program, 1e-5);
}

#[test]
fn a_path_that_leaves_the_numbers_ends_there_and_one_that_starts_so_is_told() {
    let Some(program) = host(false) else { return };
    let place = RankDevice::of_host(HostKernels::new(program)).open().expect("the program starts");
    let mut problem = Problem::<f64>::new();
    let far = Course { total: 5, burn_in: 0, thin: 1, step_size: 1e300, length: 1e3, steps: 2 };
    for kernels in [HAMILTONIAN, MICROCANONICAL] {
        let all = made(place.as_ref(), &problem, (kernels, far), (6, false));
        assert!(all.w == problem.centre.repeat(CHAINS), "{kernels:?}");
        for (c, rows) in all.rows.iter().enumerate() {
            assert_eq!(rows.len(), 5, "one gradient each");
            assert!(rows.iter().all(|row| row.contains(&1.0)), "{rows:?}");
            assert_eq!((all.flight[16 * c], all.flight[16 * c + 1]), (5.0, 6.0));
        }
    }
    problem.x[5] = f64::NAN;
    for kernels in [HAMILTONIAN, MICROCANONICAL] {
        let all = made(place.as_ref(), &problem, (kernels, far), (1, false));
        assert!((0..CHAINS).all(|c| all.flight[16 * c + 14] == 1.0), "{kernels:?}");
    }
}
