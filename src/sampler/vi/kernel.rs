//! The chain: optimise q, then draw from it.

use serde::{Deserialize, Serialize};

use super::flow::LiftedFlow;
use super::guide::{Guide, Local};
use super::hessian::{Hessian, dot, hessian_product};
use super::mixture::Mixture;
use super::optimiser::Ascent;
use super::{LOSS_COST, layout};
use crate::config::{Approximation, Vi};
use crate::device::Element;
use crate::num::rng::{Key, fill_index, uniform};
use crate::sampler::chain::{Iterations, Kernel, Scratch};
use crate::sampler::curvature::HVP_COST;
use crate::sampler::{Adapted, Posterior, SamplerError};
use crate::trace::Column;

/// Iterations of a stream beyond any chain's: draws that are none of the trace.
const ASIDE: u64 = 1 << 39;
/// Widths tried at the start, each half the one before: at a singular w* the Hessian says nothing of how
/// far the posterior reaches.
const WIDTHS: u64 = 12;
/// Draws that each is judged by.
const WIDTH_DRAWS: usize = 8;
/// Joint standard errors by which the ELBO may fall on the way, and from the start to the end.
const FALL: f64 = 6.0;
/// Fewest values of which an average has a standard error worth so many of them.
const JUDGED: u64 = 16;

/// VI ready to run one chain.
pub struct ViKernel {
    settings: Vi,
    guide: Box<dyn Guide + Send + Sync>,
    hessian: Hessian,
    nbeta: f64,
    gamma: f64,
    /// Scale of each coordinate by the curvature.
    base: Vec<f64>,
    /// Rows a minibatch, 0 for full gradients.
    batch: usize,
    gradient_cost: f64,
}

/// Where a chain is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    ascent: Ascent,
    /// ELBO values since the last average.
    window: Average,
    /// Mean and squared standard error of each `eval_every` steps' ELBO, as they were drawn.
    history: Vec<(f64, f64)>,
    /// The ELBO before the first step, and its squared standard error.
    first: (f64, f64),
    /// Mean of the control variate's quadratic under q.
    control_mean: f64,
    fge: f64,
}

/// A running mean (Welford 1962).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Average {
    count: u64,
    mean: f64,
    /// Sum of squared deviations.
    square: f64,
}

impl Average {
    fn add(&mut self, x: f64) {
        self.count += 1;
        let off = x - self.mean;
        self.mean += off / self.count as f64;
        self.square += off * (x - self.mean);
    }

    /// Mean and squared standard error (0 for a single value).
    fn summary(&self) -> (f64, f64) {
        let n = self.count.max(1) as f64;
        (self.mean, self.square / (n * (n - 1.0).max(1.0)))
    }
}

/// Mean and squared standard error of the values of neighbouring averages, so many in each.
fn pooled(averages: &[(f64, f64)], values: u64) -> (f64, f64) {
    let (n, all) = (values as f64, averages.len() as f64 * values as f64);
    let mean = averages.iter().map(|(mean, _)| mean).sum::<f64>() / averages.len() as f64;
    let square: f64 =
        averages.iter().map(|(m, error)| error * n * (n - 1.0) + n * (m - mean) * (m - mean)).sum();
    (mean, square / (all * (all - 1.0)))
}

impl State {
    /// The averages of the ELBO on the way, each over `eval_every` steps.
    pub fn elbo_history(&self) -> impl Iterator<Item = f64> {
        self.history.iter().map(|(mean, _)| *mean)
    }

    /// The standard errors of these averages.
    fn elbo_errors(&self) -> impl Iterator<Item = f64> {
        self.history.iter().map(|(_, square)| square.sqrt())
    }
}

/// A curve's name and its points, (step, value) each.
pub type Curve = (&'static str, Vec<(u64, f64)>);

/// What a stored chain recorded on its way.
pub fn curves(settings: &Vi, state: &[u8]) -> Result<[Curve; 2], postcard::Error> {
    let state: State = postcard::from_bytes(state)?;
    let at = |values: Vec<f64>| {
        values.into_iter().enumerate().map(|(i, x)| ((i as u64 + 1) * settings.eval_every, x)).collect()
    };
    Ok([("elbo", at(state.elbo_history().collect())), ("elbo_error", at(state.elbo_errors().collect()))])
}

/// Work of one gradient on a target of `rows` rows.
pub fn gradient_cost(settings: &Vi, rows: usize) -> f64 {
    if rows > settings.batch_size { settings.batch_size as f64 / rows as f64 } else { 1.0 }
}

/// Work of the search for a width, all widths tried.
pub fn start_cost() -> f64 {
    LOSS_COST * (WIDTHS * WIDTH_DRAWS as u64 + JUDGED) as f64
}

/// Places of some of the kernel's own buffers (δ, ∇ ln π, its squares, scales of coordinates, gradient by
/// φ, units of φ, ln π − ln q by stratum); the guide's follow.
const DELTA: usize = 0;
const SQUARES: usize = 2;
const GRADIENT: usize = 4;
const DIFFERENCES: usize = 6;
const OWN: usize = 7;

impl ViKernel {
    /// The kernel for a posterior; `adapted` is of this sampler's warmup.
    pub fn new<T: Element>(settings: &Vi, posterior: &Posterior<'_, T>, adapted: &Adapted) -> Self {
        let d = posterior.dim();
        let guide: Box<dyn Guide + Send + Sync> = match &settings.approximation {
            Approximation::Mfa(mfa) => {
                let components = mfa.components.or(adapted.components).unwrap_or(1);
                let rank = mfa.rank.or(adapted.rank).unwrap_or(1);
                Box::new(Mixture::new(d, mfa, components, rank))
            }
            Approximation::Flow(flow) => {
                let lift = adapted.lift.as_deref().cloned().unwrap_or_default();
                Box::new(LiftedFlow::new(lift, flow))
            }
        };
        Self::with_guide(settings, posterior, adapted, guide)
    }

    fn with_guide<T: Element>(
        settings: &Vi,
        posterior: &Posterior<'_, T>,
        adapted: &Adapted,
        guide: Box<dyn Guide + Send + Sync>,
    ) -> Self {
        let d = posterior.dim();
        let flat = || Hessian { residual: vec![0.0; d], gradient: vec![0.0; d], ..Hessian::default() };
        let hessian = adapted.hessian.as_deref().cloned().unwrap_or_else(flat);
        let (nbeta, gamma) = (posterior.nbeta(), posterior.gamma());
        let base = Local { nbeta, gamma, hessian: &hessian }.scales();
        let rows = posterior.potential().rows();
        let batch = if rows > settings.batch_size { settings.batch_size } else { 0 };
        let gradient_cost = gradient_cost(settings, rows);
        Self { settings: settings.clone(), guide, hessian, nbeta, gamma, base, batch, gradient_cost }
    }

    fn local(&self) -> Local<'_> {
        Local { nbeta: self.nbeta, gamma: self.gamma, hessian: &self.hessian }
    }

    fn broken(&self, step: u64, reason: impl Into<String>) -> SamplerError {
        SamplerError::Approximation { step, lr: self.settings.lr, reason: reason.into() }
    }

    fn prepare(&self, phi: &[f64], work: &mut [Vec<f64>], step: u64) -> Result<(), SamplerError> {
        self.guide.prepare(phi, work).map_err(|unfit| self.broken(step, unfit.to_string()))
    }

    /// ln π at w* + δ and, into `target`, its gradient; the minibatch is in `scratch.rows`.
    fn target_grad<T: Element>(
        &self,
        posterior: &Posterior<'_, T>,
        delta: &[f64],
        target: &mut [f64],
        scratch: &mut Scratch<T>,
    ) -> f64 {
        place(posterior, delta, &mut scratch.w);
        let Scratch { w, grad, rows, potential, .. } = scratch;
        let loss = if self.batch > 0 {
            posterior.potential().batch_loss_grad(w, rows, grad, potential)
        } else {
            posterior.potential().loss_grad(w, grad, potential)
        };
        for ((target, g), delta) in target.iter_mut().zip(grad.iter()).zip(delta) {
            *target = -(self.nbeta * g.to_f64() + self.gamma * delta);
        }
        self.log_target(posterior, loss, delta)
    }

    fn log_target<T: Element>(&self, posterior: &Posterior<'_, T>, loss: f64, delta: &[f64]) -> f64 {
        -posterior.llc(loss) - 0.5 * self.gamma * dot(delta, delta)
    }

    /// The parameters at w*, and then the width at which the ELBO is highest.
    fn begin<T: Element>(
        &self,
        posterior: &Posterior<'_, T>,
        state: &mut State,
        key: &Key,
        work: &mut [Vec<f64>],
        scratch: &mut Scratch<T>,
    ) -> Result<(), SamplerError> {
        let mut fge = 0.0;
        let mut product = |v: &[f64], out: &mut [f64]| {
            fge += HVP_COST;
            hessian_product(posterior, v, out, scratch);
        };
        let ascent = &mut state.ascent;
        self.guide.start(&mut ascent.phi, &self.local(), &mut key.at(ASIDE), &mut product);
        state.fge += fge;
        state.ascent.start_whitening(&self.settings, &self.base);
        state.first.0 = f64::NEG_INFINITY;
        // Halvings since the best width.
        let mut since = 0;
        for width in 0..WIDTHS {
            if width > 0 {
                self.guide.widen(&mut state.ascent.phi, 0.5);
                since += 1;
            }
            let elbo = self.elbo(posterior, state, (key, ASIDE + 1), WIDTH_DRAWS, work, scratch)?;
            if elbo.0 > state.first.0 {
                (state.first, since) = (elbo, 0);
            } else if elbo.0.is_finite() && state.first.0.is_finite() {
                // A start that is right needs no narrower ones: the first fall ends the search.
                break;
            }
        }
        if !state.first.0.is_finite() {
            return Err(self.broken(0, "the loss is not finite anywhere around w*"));
        }
        self.guide.widen(&mut state.ascent.phi, libm::pow(2.0, f64::from(since)));
        // The highest of several is too high, and of few: the end is compared with fresh draws.
        let fresh = self.elbo(posterior, state, (key, ASIDE + 3), JUDGED as usize, work, scratch)?;
        state.first = if fresh.0.is_finite() { fresh } else { (f64::NEG_INFINITY, 0.0) };
        Ok(())
    }

    /// The mean of ln π − ln q over draws, on the full data, and its squared standard error.
    fn elbo<T: Element>(
        &self,
        posterior: &Posterior<'_, T>,
        state: &mut State,
        (key, iteration): (&Key, u64),
        draws: usize,
        work: &mut [Vec<f64>],
        scratch: &mut Scratch<T>,
    ) -> Result<(f64, f64), SamplerError> {
        let (own, guides) = work.split_at_mut(OWN);
        let phi = &state.ascent.phi;
        self.prepare(phi, guides, 0)?;
        let mut rng = key.at(iteration);
        let mut average = Average::default();
        for _ in 0..draws {
            let stratum = self.guide.pick(guides, uniform(&mut rng));
            let log_q = self.guide.draw(phi, guides, stratum, &mut rng, &mut own[DELTA]);
            place(posterior, &own[DELTA], &mut scratch.w);
            let loss = posterior.potential().loss(&scratch.w, &mut scratch.potential);
            average.add(self.log_target(posterior, loss, &own[DELTA]) - log_q);
        }
        state.fge += LOSS_COST * draws as f64;
        Ok(average.summary())
    }

    /// One step of the optimisation; returns an unbiased estimate of the ELBO before it.
    fn optimise<T: Element>(
        &self,
        posterior: &Posterior<'_, T>,
        state: &mut State,
        iteration: u64,
        key: &Key,
        work: &mut [Vec<f64>],
        scratch: &mut Scratch<T>,
    ) -> Result<f64, SamplerError> {
        let (own, guides) = work.split_at_mut(OWN);
        let (strata, repeats) = (self.guide.strata(), self.guide.draws_a_step());
        self.prepare(&state.ascent.phi, guides, iteration)?;
        let mut rng = key.at(iteration);
        if self.batch > 0 {
            // One minibatch for all draws: what they share cancels between the components.
            fill_index(&mut rng, posterior.potential().rows(), &mut scratch.rows);
        }
        own[GRADIENT].fill(0.0);
        own[SQUARES].fill(0.0);
        let mut elbo = 0.0;
        for stratum in 0..strata {
            let weight = self.guide.weight(guides, stratum);
            let factor = weight / repeats as f64;
            own[DIFFERENCES][stratum] = 0.0;
            for _ in 0..repeats {
                let phi = &state.ascent.phi;
                let log_q = self.guide.draw(phi, guides, stratum, &mut rng, &mut own[DELTA]);
                let [delta, target, squares, _, gradient, ..] = &mut *own else { unreachable_buffers() };
                let log_target = self.target_grad(posterior, delta, target, scratch);
                state.fge += self.gradient_cost;
                if !log_target.is_finite() {
                    return Err(self.broken(iteration, format!("ln π of a draw became {log_target}")));
                }
                own_squares(state.ascent.whitens(), squares, target, factor);
                self.guide.pull(phi, guides, stratum, delta, target, factor, gradient);
                own[DIFFERENCES][stratum] += (log_target - log_q) / repeats as f64;
            }
            elbo += weight * own[DIFFERENCES][stratum];
        }
        let [_, _, squares, scales, gradient, units, differences] = own else { unreachable_buffers() };
        self.guide.weigh(guides, differences, gradient);
        if !(elbo.is_finite() && gradient.iter().all(|g| g.is_finite())) {
            return Err(self.broken(iteration, format!("the ELBO or its gradient became {elbo}")));
        }
        if state.ascent.whitens() {
            state.ascent.whiten(&self.settings, squares, &self.base, scales);
        } else {
            scales.copy_from_slice(&self.base);
        }
        self.guide.units(scales, units);
        state.ascent.climb(&self.settings, iteration, gradient, units);
        Ok(elbo)
    }

    /// Averages ELBO values; at the end, whether they rose.
    fn record(&self, state: &mut State, iteration: u64, elbo: f64) -> Result<(), SamplerError> {
        state.window.add(elbo);
        if (iteration + 1).is_multiple_of(self.settings.eval_every) {
            state.history.push(std::mem::take(&mut state.window).summary());
        }
        if iteration + 1 < self.settings.steps {
            return Ok(());
        }
        let values = self.settings.eval_every;
        let windows = JUDGED.div_ceil(values) as usize;
        let history = &state.history;
        if history.len() < 2 * windows {
            return Ok(());
        }
        let [first, last] = [&history[..windows], &history[history.len() - windows..]];
        self.refuse_fall(iteration, pooled(first, values), pooled(last, values))
    }

    /// An optimisation that ends lower than it began has not optimised.
    fn refuse_fall(&self, step: u64, first: (f64, f64), last: (f64, f64)) -> Result<(), SamplerError> {
        let margin = FALL * (first.1 + last.1).sqrt() + f64::EPSILON.sqrt() * first.0.abs();
        if last.0 >= first.0 - margin {
            return Ok(());
        }
        Err(self.broken(step, format!("the ELBO fell from {} to {}", first.0, last.0)))
    }

    /// After the last step: takes the mean iterate where its ELBO is no lower.
    fn settle<T: Element>(
        &self,
        posterior: &Posterior<'_, T>,
        state: &mut State,
        key: &Key,
        work: &mut [Vec<f64>],
        scratch: &mut Scratch<T>,
    ) -> Result<(), SamplerError> {
        let (stream, draws) = ((key, ASIDE + 2), self.settings.eval_samples);
        let last = self.elbo(posterior, state, stream, draws, work, scratch)?;
        state.ascent.swap_average();
        let mean = self.elbo(posterior, state, stream, draws, work, scratch);
        let end = match mean {
            Ok(mean) if mean.0 >= last.0 => mean,
            _ => {
                state.ascent.swap_average();
                last
            }
        };
        if draws as u64 >= JUDGED {
            self.refuse_fall(self.settings.steps, state.first, end)?;
        }
        state.ascent.finish();
        let guides = &mut work[OWN..];
        self.prepare(&state.ascent.phi, guides, self.settings.steps)?;
        state.control_mean = self.guide.quadratic_mean(&state.ascent.phi, guides, &self.local());
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "those of a step, and the buffers it lends")]
    fn sample<T: Element>(
        &self,
        posterior: &Posterior<'_, T>,
        state: &mut State,
        iteration: u64,
        key: &Key,
        work: &mut [Vec<f64>],
        scratch: &mut Scratch<T>,
        row: &mut [f64],
    ) -> Result<(), SamplerError> {
        let (own, guides) = work.split_at_mut(OWN);
        let phi = &state.ascent.phi;
        self.prepare(phi, guides, iteration)?;
        let mut rng = key.at(iteration);
        let stratum = self.guide.pick(guides, uniform(&mut rng));
        let delta = &mut own[DELTA];
        let log_q = self.guide.draw(phi, guides, stratum, &mut rng, delta);
        place(posterior, delta, &mut scratch.w);
        let loss = posterior.potential().loss(&scratch.w, &mut scratch.potential);
        if !(loss.is_finite() && log_q.is_finite()) {
            let reason = format!("a draw has loss {loss} and ln q {log_q}");
            return Err(self.broken(iteration, reason));
        }
        state.fge += LOSS_COST;
        let control = self.guide.quadratic(phi, guides, &self.local(), delta) - state.control_mean;
        let log_target = self.log_target(posterior, loss, delta);
        row.copy_from_slice(&[posterior.llc(loss), loss, log_q, log_target, control, state.fge]);
        Ok(())
    }
}

/// The lengths are those of [`Kernel::work`]: seven and the guide's.
fn unreachable_buffers() -> ! {
    unreachable!("scratch is of another kernel")
}

fn own_squares(needed: bool, squares: &mut [f64], target: &[f64], factor: f64) {
    if needed {
        squares.iter_mut().zip(target).for_each(|(s, g)| *s += factor * g * g);
    }
}

/// w = w* + δ.
fn place<T: Element>(posterior: &Posterior<'_, T>, delta: &[f64], w: &mut [T]) {
    for ((w, c), delta) in w.iter_mut().zip(posterior.centre()).zip(delta) {
        *w = T::from_f64(c.to_f64() + delta);
    }
}

impl<T: Element> Kernel<T> for ViKernel {
    type State = State;

    fn layout(&self) -> Vec<Column> {
        layout()
    }

    fn batch(&self) -> usize {
        self.batch
    }

    fn work(&self, d: usize) -> Vec<usize> {
        let parameters = self.guide.parameters();
        let own = [d, d, d, d, parameters, parameters, self.guide.strata()];
        own.into_iter().chain(self.guide.lengths()).collect()
    }

    fn iterations(&self) -> Iterations {
        let steps = self.settings.steps;
        let draws = self.settings.draws;
        Iterations { burn_in: steps, total: steps + draws as u64, draws }
    }

    fn start(&self, posterior: &Posterior<'_, T>, _: &mut Scratch<T>) -> Result<State, SamplerError> {
        let windows = self.settings.steps / self.settings.eval_every;
        Ok(State {
            ascent: Ascent::new(&self.settings, self.guide.parameters(), posterior.dim()),
            window: Average::default(),
            history: Vec::with_capacity(windows.min(1 << 20) as usize),
            first: (0.0, 0.0),
            control_mean: 0.0,
            fge: 0.0,
        })
    }

    fn step(
        &self,
        posterior: &Posterior<'_, T>,
        state: &mut State,
        iteration: u64,
        key: &Key,
        scratch: &mut Scratch<T>,
        row: &mut [f64],
    ) -> Result<bool, SamplerError> {
        // Lent out for the step, so that the target's buffers stay free.
        let mut work = std::mem::take(&mut scratch.work);
        let done = self.advance(posterior, state, iteration, key, &mut work, scratch, row);
        scratch.work = work;
        done
    }

    fn fge(&self, state: &State) -> f64 {
        state.fge
    }
}

impl ViKernel {
    #[expect(clippy::too_many_arguments, reason = "those of a step, and the buffers it lends")]
    fn advance<T: Element>(
        &self,
        posterior: &Posterior<'_, T>,
        state: &mut State,
        iteration: u64,
        key: &Key,
        work: &mut [Vec<f64>],
        scratch: &mut Scratch<T>,
        row: &mut [f64],
    ) -> Result<bool, SamplerError> {
        if iteration >= self.settings.steps {
            self.sample(posterior, state, iteration, key, work, scratch, row)?;
            return Ok(true);
        }
        if iteration == 0 {
            self.begin(posterior, state, key, work, scratch)?;
        }
        let elbo = self.optimise(posterior, state, iteration, key, work, scratch)?;
        self.record(state, iteration, elbo)?;
        if iteration + 1 == self.settings.steps {
            self.settle(posterior, state, key, work, scratch)?;
        }
        Ok(false)
    }
}
