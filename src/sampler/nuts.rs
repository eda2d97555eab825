//! The no-U-turn sampler: multinomial sampling from a trajectory that doubles until it turns back.
//!
//! Hoffman & Gelman 2014 with the refinements of Betancourt 2017 ("A conceptual introduction to
//! Hamiltonian Monte Carlo", appendix A): states of a trajectory are drawn by their weights e^(−H),
//! with a bias toward the newer half between doublings; the generalised criterion of a turn, with
//! ρ the sum of momenta, is also checked across the halves of every subtree, as in Stan since 2.21.
//! The step is drawn anew each iteration, ε·U(0.2, 1), as in `hmc`.

use super::chain::{Iterations, Kernel, Scratch};
use super::leapfrog::{Leapfrog, SHORTEST, State, Trajectory, burn_in, control_draws, has_diverged, layout};
use super::posterior::{Energy, Posterior};
use super::windowed::{self, Schedule};
use super::{Adapted, Method, Role, SamplerError, Work};
use crate::config::Nuts;
use crate::device::Element;
use crate::num::rng::{Key, Purpose, uniform};
use crate::resume::Desk;
use crate::trace::Column;
use rand_chacha::ChaCha8Rng;

/// Leapfrog steps of a typical trajectory, for expected work.
const TYPICAL_STEPS: f64 = 15.0;
/// Vectors of a subtree's level: ρ and momenta at the inner ends of its halves, the later proposal.
const PER_LEVEL: usize = 6;
/// Vectors of the whole trajectory: both ends (w, p, ∇U), the sample (w, ∇U), the subtree's proposal
/// (w, ∇U), ρ of both halves, and momenta at the subtree's ends and the halves' inner ends.
const OF_TRAJECTORY: usize = 16;

/// NUTS ready to run one chain.
#[derive(Debug)]
pub struct NutsKernel<T> {
    leapfrog: Leapfrog<T>,
    depth: usize,
    iterations: Iterations,
}

/// A phase-space point that integration moves.
struct Point<T> {
    w: Vec<T>,
    p: Vec<T>,
    grad: Vec<T>,
}

/// A candidate for the next draw.
struct Proposal<T> {
    w: Vec<T>,
    grad: Vec<T>,
    energy: Energy,
    /// Total energy with its momentum.
    total: f64,
}

impl<T: Element> Proposal<T> {
    fn copy(&mut self, z: &Point<T>, energy: Energy, total: f64) {
        self.w.copy_from_slice(&z.w);
        self.grad.copy_from_slice(&z.grad);
        (self.energy, self.total) = (energy, total);
    }
}

/// What holds for the whole of one trajectory.
struct Tree<'a, T: Element> {
    leapfrog: &'a Leapfrog<T>,
    posterior: &'a Posterior<'a, T>,
    step: f64,
    start: f64,
    rng: ChaCha8Rng,
    /// Levels of vectors for subtrees, and the potential's scratch.
    levels: &'a mut [Vec<T>],
    scratch: &'a mut [T],
    acceptance: f64,
    steps: usize,
    diverged: bool,
}

/// Momenta at the ends of a subtree, in the order of integration, and their sum.
struct Ends<'b, T> {
    begin: &'b mut [T],
    end: &'b mut [T],
    rho: &'b mut [T],
}

impl<T: Element> Tree<'_, T> {
    /// Whether the ends' velocities still point along ρ.
    fn goes_on(&self, begin: &[T], end: &[T], rho: impl Fn(usize) -> f64) -> bool {
        let (mut first, mut last) = (0.0, 0.0);
        for (i, m) in self.leapfrog.inverse_mass.iter().enumerate() {
            let along = m.to_f64() * rho(i);
            first += begin[i].to_f64() * along;
            last += end[i].to_f64() * along;
        }
        first > 0.0 && last > 0.0
    }

    /// Extends the trajectory from `z` by 2^depth steps; the log of the subtree's weight, or `None`
    /// where it turned or diverged.
    fn grow(
        &mut self,
        depth: usize,
        z: &mut Point<T>,
        proposal: &mut Proposal<T>,
        ends: Ends<'_, T>,
    ) -> Option<f64> {
        let Ends { begin, end, rho } = ends;
        if depth == 0 {
            let path = (&mut z.w[..], &mut z.p[..], &mut z.grad[..]);
            let (energy, _) = self.leapfrog.integrate(self.posterior, path, self.step, 1, self.scratch);
            let total = energy.potential + self.leapfrog.kinetic(&z.p);
            self.steps += 1;
            let error = total - self.start;
            if has_diverged(error) {
                self.diverged = true;
                return None;
            }
            self.acceptance += libm::exp(-error).min(1.0);
            proposal.copy(z, energy, total);
            begin.copy_from_slice(&z.p);
            end.copy_from_slice(&z.p);
            rho.copy_from_slice(&z.p);
            return Some(-error);
        }
        // A level's vectors are taken out while it works and put back: nothing is allocated.
        let level = PER_LEVEL * (depth - 1);
        let take = |levels: &mut [Vec<T>], i: usize| std::mem::take(&mut levels[level + i]);
        let [mut inner_end, mut inner_begin, mut rho_first, mut rho_last, w, grad] =
            std::array::from_fn(|i| take(self.levels, i));
        let mut later =
            Proposal { w, grad, energy: Energy { potential: f64::NAN, loss: f64::NAN }, total: f64::NAN };
        let mut result = None;
        let first = Ends { begin: &mut *begin, end: &mut inner_end, rho: &mut rho_first };
        if let Some(weight_first) = self.grow(depth - 1, z, proposal, first) {
            let last = Ends { begin: &mut inner_begin, end: &mut *end, rho: &mut rho_last };
            if let Some(weight_last) = self.grow(depth - 1, z, &mut later, last) {
                let weight = log_sum(weight_first, weight_last);
                if libm::log(uniform(&mut self.rng)) < weight_last - weight {
                    std::mem::swap(proposal, &mut later);
                }
                let at = |v: &[T], i: usize| v[i].to_f64();
                let goes_on = self.goes_on(begin, end, |i| at(&rho_first, i) + at(&rho_last, i))
                    && self.goes_on(begin, &inner_begin, |i| at(&rho_first, i) + at(&inner_begin, i))
                    && self.goes_on(&inner_end, end, |i| at(&rho_last, i) + at(&inner_end, i));
                for ((r, &a), &b) in rho.iter_mut().zip(&rho_first).zip(&rho_last) {
                    *r = a + b;
                }
                result = goes_on.then_some(weight);
            }
        }
        for (i, v) in
            [inner_end, inner_begin, rho_first, rho_last, later.w, later.grad].into_iter().enumerate()
        {
            self.levels[level + i] = v;
        }
        result
    }
}

fn log_sum(a: f64, b: f64) -> f64 {
    let high = a.max(b);
    high + libm::log1p(libm::exp(a.min(b) - high))
}

/// One draw.
fn transition<T: Element>(
    leapfrog: &Leapfrog<T>,
    max_depth: usize,
    posterior: &Posterior<'_, T>,
    state: &mut State<T>,
    iteration: u64,
    key: &Key,
    scratch: &mut Scratch<T>,
) -> Trajectory {
    let mut rng = key.at(iteration);
    let step = leapfrog.step_size * (SHORTEST + (1.0 - SHORTEST) * uniform(&mut rng));
    leapfrog.draw_momentum(&mut rng, &mut scratch.p);
    let start = state.energy + leapfrog.kinetic(&scratch.p);
    let (own, levels) = scratch.extra.split_at_mut(OF_TRAJECTORY);
    let mut vectors = own.iter_mut();
    let mut take = |from: &[T]| {
        let mut v = vectors.next().map(std::mem::take).unwrap_or_default();
        v.copy_from_slice(from);
        v
    };
    let p = &scratch.p;
    let mut ahead = Point { w: take(&state.w), p: take(p), grad: take(&state.grad) };
    let mut behind = Point { w: take(&state.w), p: take(p), grad: take(&state.grad) };
    let energy = Energy { potential: state.energy, loss: state.loss };
    let mut sample = Proposal { w: take(&state.w), grad: take(&state.grad), energy, total: start };
    let mut fresh = Proposal { w: take(&state.w), grad: take(&state.grad), energy, total: start };
    let (mut rho, mut rho_fresh) = (take(p), take(p));
    // Momenta at the inner ends of the two halves and at the ends of the fresh one.
    let (mut joint_old, mut begin, mut end) = (take(p), take(p), take(p));
    let mut outer_old = take(p);
    let mut tree = Tree {
        leapfrog,
        posterior,
        step,
        start,
        rng,
        levels,
        scratch: &mut scratch.potential,
        acceptance: 0.0,
        steps: 0,
        diverged: false,
    };
    let mut weight = 0.0;
    for depth in 0..max_depth {
        let forward = uniform(&mut tree.rng) < 0.5;
        tree.step = if forward { step } else { -step };
        let (z, other) = if forward { (&mut ahead, &behind) } else { (&mut behind, &ahead) };
        joint_old.copy_from_slice(&z.p);
        outer_old.copy_from_slice(&other.p);
        let ends = Ends { begin: &mut begin, end: &mut end, rho: &mut rho_fresh };
        let Some(weight_fresh) = tree.grow(depth, z, &mut fresh, ends) else { break };
        if libm::log(uniform(&mut tree.rng)) < weight_fresh - weight {
            std::mem::swap(&mut sample, &mut fresh);
        }
        weight = log_sum(weight, weight_fresh);
        let at = |v: &[T], i: usize| v[i].to_f64();
        let goes_on = tree.goes_on(&outer_old, &end, |i| at(&rho, i) + at(&rho_fresh, i))
            && tree.goes_on(&outer_old, &begin, |i| at(&rho, i) + at(&begin, i))
            && tree.goes_on(&joint_old, &end, |i| at(&rho_fresh, i) + at(&joint_old, i));
        rho.iter_mut().zip(&rho_fresh).for_each(|(r, &f)| *r += f);
        if !goes_on {
            break;
        }
    }
    let Tree { acceptance, steps, diverged, .. } = tree;
    state.fge += steps as f64;
    state.w.copy_from_slice(&sample.w);
    state.grad.copy_from_slice(&sample.grad);
    (state.energy, state.loss) = (sample.energy.potential, sample.energy.loss);
    let all = [
        ahead.w,
        ahead.p,
        ahead.grad,
        behind.w,
        behind.p,
        behind.grad,
        sample.w,
        sample.grad,
        fresh.w,
        fresh.grad,
        rho,
        rho_fresh,
        joint_old,
        begin,
        end,
        outer_old,
    ];
    for (place, v) in own.iter_mut().zip(all) {
        *place = v;
    }
    Trajectory { acceptance: acceptance / steps as f64, energy: sample.total, diverged, steps }
}

/// Vectors that trajectories of that depth need.
fn vectors(depth: usize) -> usize {
    OF_TRAJECTORY + PER_LEVEL * depth
}

impl<T: Element> Kernel<T> for NutsKernel<T> {
    type State = State<T>;

    fn layout(&self) -> Vec<Column> {
        layout()
    }

    fn iterations(&self) -> Iterations {
        self.iterations
    }

    fn extra(&self, dim: usize) -> Vec<usize> {
        vec![dim; vectors(self.depth)]
    }

    fn start(
        &self,
        posterior: &Posterior<'_, T>,
        scratch: &mut Scratch<T>,
    ) -> Result<State<T>, SamplerError> {
        State::start(posterior, scratch)
    }

    fn step(
        &self,
        posterior: &Posterior<'_, T>,
        state: &mut State<T>,
        iteration: u64,
        key: &Key,
        scratch: &mut Scratch<T>,
        row: &mut [f64],
    ) -> Result<bool, SamplerError> {
        let t = transition(&self.leapfrog, self.depth, posterior, state, iteration, key, scratch);
        t.fill(posterior, state, row);
        Ok(true)
    }

    fn fge(&self, state: &State<T>) -> f64 {
        state.fge
    }

    fn stride(&self) -> u64 {
        1
    }
}

impl Method for Nuts {
    type Kernel<T: Element> = NutsKernel<T>;

    fn layout(&self) -> Vec<Column> {
        layout()
    }

    fn is_exact(&self, _dim: usize) -> bool {
        true
    }

    fn bias_at_half_step(&self) -> Option<f64> {
        Some(0.0)
    }

    fn work(&self, _rows: usize, _dim: usize) -> Work {
        let burn_in = burn_in(self.warmup) as f64;
        Work {
            warmup: TYPICAL_STEPS * self.warmup as f64,
            chain: TYPICAL_STEPS * (burn_in + self.draws as f64),
            control: 2.0 * TYPICAL_STEPS * (burn_in + control_draws(self.draws) as f64),
        }
    }

    fn warmup<T: Element>(
        &self,
        posterior: &Posterior<'_, T>,
        id: [u8; 32],
        desk: &mut Desk<'_>,
    ) -> Result<Adapted, SamplerError> {
        let key = Key::new(id, Purpose::Warmup, 0);
        let schedule = Schedule {
            warmup: self.warmup,
            step_size: self.step_size,
            target_acceptance: self.target_acceptance,
            points: None,
        };
        let mut scratch = Scratch::plain(posterior);
        scratch.extra = vec![vec![T::ZERO; posterior.dim()]; vectors(self.max_tree_depth)];
        let depth = self.max_tree_depth;
        let walk = |leapfrog: &_, state: &mut _, iteration, scratch: &mut _| {
            transition(leapfrog, depth, posterior, state, iteration, &key, scratch)
        };
        windowed::warmup(schedule, posterior, &key, &mut scratch, desk, walk).map(|(adapted, _)| adapted)
    }

    /// The control chain takes half the step, and trees one level deeper.
    fn kernel<T: Element>(&self, _: &Posterior<'_, T>, adapted: &Adapted, role: Role) -> NutsKernel<T> {
        let (shrink, deeper, draws) = match role {
            Role::Main => (1.0, 0, self.draws),
            Role::Control => (0.5, 1, control_draws(self.draws)),
        };
        NutsKernel {
            leapfrog: Leapfrog::adapted(adapted, shrink),
            depth: self.max_tree_depth + deeper,
            iterations: Iterations::dropping(burn_in(self.warmup), draws),
        }
    }
}
