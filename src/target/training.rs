//! Training to w*: adam, adamw and sgd on any potential.

use serde::{Deserialize, Serialize};

use super::error::TargetError;
use super::potential::Potential;
use crate::config::{Optimizer, Training};
use crate::device::Arith;
use crate::num::Real;
use crate::num::rng::{Key, Purpose, fill_index};
use crate::resume::{Desk, Progress};

/// Decay of Adam's first moment.
const BETA1: f64 = 0.9;
/// Decay of Adam's second moment.
const BETA2: f64 = 0.999;
/// Added to the root of Adam's second moment.
const EPS: f64 = 1e-8;
/// Every step of the start is in the history, then about a thousand more.
const HISTORY_START: u64 = 32;
const HISTORY_POINTS: u64 = 960;
/// Progress is judged this many times a window of the early stop.
const LOOKS: u64 = 10;

/// Why training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// All steps were made.
    Steps,
    /// The best loss had stopped to improve.
    EarlyStop,
    /// The loss was exactly zero.
    ZeroLoss,
}

/// How training went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingOutcome {
    /// Steps made.
    pub steps: u64,
    /// Why it ended.
    pub reason: StopReason,
    /// The step after which the kept parameters were met (0: the initial ones).
    pub best_step: u64,
    /// Their loss over all rows.
    pub best_loss: f64,
    /// (step, loss over all rows), at most about a thousand points.
    pub history: Vec<(u64, f64)>,
}

/// Minimises `potential` from `w`, which ends as the best parameters met at an evaluation over all
/// rows: with full batches every step is one; with minibatches there is one every
/// max(steps/1000, min(n/batch, window/10)) steps, so that evaluations do not outweigh the steps.
///
/// Minibatch indices are a pure function of (id, step). Works in `T`, allocates before the first
/// step only.
///
/// # Errors
/// [`TargetError::Diverged`] when a loss is infinite or NaN, [`TargetError::OutOfRange`] for a batch of
/// no rows or a learning rate that is not a positive number.
pub fn train<T: Real>(
    potential: &dyn Potential<T>,
    settings: &Training,
    id: [u8; 32],
    w: &mut [T],
    desk: &mut Desk<'_>,
) -> Result<TrainingOutcome, TargetError> {
    if settings.batch_size == Some(0) {
        return Err(TargetError::range("training.batch_size", 0, "at least 1"));
    }
    if !(settings.lr > 0.0 && settings.lr.is_finite()) {
        return Err(TargetError::range("training.lr", settings.lr, "a positive number"));
    }
    // A batch of all rows is still drawn with replacement; a target without rows has no batches.
    let batch = settings.batch_size.filter(|_| potential.rows() > 0);
    let window = (settings.steps / 10).max(100);
    let every = batch.map_or(1, |b| {
        let balanced = (potential.rows() / b.max(1)) as u64;
        (settings.steps / 1000).max(balanced.min(window / LOOKS)).max(1)
    });
    let key = Key::new(id, Purpose::Training, 0);
    let mut rows = vec![0u32; batch.unwrap_or(0)];
    let mut grad = vec![T::ZERO; w.len()];
    let scratch_len = potential.scratch_len().max(batch.map_or(0, |b| potential.batch_scratch_len(b)));
    let mut scratch = vec![T::ZERO; scratch_len];
    let mut at = match desk.part()? {
        Some(state) => state,
        None => Course::start(settings, window, w),
    };
    while at.step < settings.steps {
        let step = at.step;
        let full = batch.is_none();
        let loss = if full {
            Some(potential.loss_grad(&at.w, &mut grad, &mut scratch))
        } else {
            (step % every == 0).then(|| potential.loss(&at.w, &mut scratch))
        };
        if let Some(loss) = loss
            && let Some(reason) = at.record.see(settings, step, loss, &at.w)?
        {
            return Ok(at.record.finish(step, reason, w));
        }
        if !full {
            let mut rng = key.at(step);
            fill_index(&mut rng, potential.rows(), &mut rows);
            let loss = potential.batch_loss_grad(&at.w, &rows, &mut grad, &mut scratch);
            if !loss.is_finite() {
                return Err(TargetError::Diverged { step, loss, lr: settings.lr });
            }
        }
        at.update.apply(settings, &mut at.w, &grad);
        at.step += 1;
        desk.pulse(Progress { iteration: at.step, total: settings.steps }, &at)?;
    }
    let loss = potential.loss(&at.w, &mut scratch);
    at.record.note(settings, settings.steps, loss, &at.w)?;
    Ok(at.record.finish(settings.steps, StopReason::Steps, w))
}

/// Training on its way: what a restart needs.
#[derive(Serialize, Deserialize)]
struct Course<T> {
    step: u64,
    w: Vec<T>,
    update: Update<T>,
    record: Record<T>,
}

impl<T: Real> Course<T> {
    fn start(settings: &Training, window: u64, w: &[T]) -> Self {
        let (update, record) = (Update::new(settings, w.len()), Record::new(window, w));
        Self { step: 0, w: w.to_vec(), update, record }
    }
}

/// An optimiser's moments.
#[derive(Serialize, Deserialize)]
struct Update<T> {
    first: Vec<T>,
    second: Vec<T>,
    /// β1ᵗ and β2ᵗ.
    decayed: (f64, f64),
}

impl<T: Real> Update<T> {
    fn new(settings: &Training, dim: usize) -> Self {
        let second = if settings.optimizer == Optimizer::Sgd { 0 } else { dim };
        Self { first: vec![T::ZERO; dim], second: vec![T::ZERO; second], decayed: (1.0, 1.0) }
    }

    /// One step, compiled for the instruction set at hand: fused multiply–adds are function calls elsewhere.
    fn apply(&mut self, settings: &Training, w: &mut [T], grad: &[T]) {
        Arith::current().run(
            #[inline(always)]
            || self.step(settings, w, grad),
        );
    }

    #[inline(always)]
    fn step(&mut self, settings: &Training, w: &mut [T], grad: &[T]) {
        let lr = settings.lr;
        if settings.optimizer == Optimizer::Sgd {
            let (lr, momentum) = (T::from_f64(lr), T::from_f64(settings.momentum));
            for ((w, &g), v) in w.iter_mut().zip(grad).zip(&mut self.first) {
                *v = momentum.mul_add(*v, g);
                *w -= lr * *v;
            }
            return;
        }
        self.decayed = (self.decayed.0 * BETA1, self.decayed.1 * BETA2);
        let rate = T::from_f64(lr / (1.0 - self.decayed.0));
        let correction = T::from_f64(1.0 / (1.0 - self.decayed.1));
        let decay = match settings.optimizer {
            Optimizer::Adamw => T::from_f64(1.0 - lr * settings.weight_decay),
            Optimizer::Adam | Optimizer::Sgd => T::ONE,
        };
        let (beta1, beta2, eps) = (T::from_f64(BETA1), T::from_f64(BETA2), T::from_f64(EPS));
        let (rest1, rest2) = (T::from_f64(1.0 - BETA1), T::from_f64(1.0 - BETA2));
        for (((w, &g), m), v) in w.iter_mut().zip(grad).zip(&mut self.first).zip(&mut self.second) {
            *m = beta1.mul_add(*m, rest1 * g);
            *v = beta2.mul_add(*v, rest2 * g * g);
            *w = decay * *w - rate * *m / ((*v * correction).sqrt() + eps);
        }
    }
}

/// The best parameters so far, the history, and the judge of the early stop.
#[derive(Serialize, Deserialize)]
struct Record<T> {
    best: Vec<T>,
    best_loss: f64,
    best_step: u64,
    /// The newest evaluation; it ends the history.
    last: (u64, f64),
    history: Vec<(u64, f64)>,
    next_entry: u64,
    /// Steps between two looks at the progress.
    look_every: u64,
    next_look: u64,
    /// Best loss at the last looks, newest last; one window long when full.
    looks: [f64; LOOKS as usize + 1],
}

impl<T: Real> Record<T> {
    fn new(window: u64, w: &[T]) -> Self {
        Self {
            best: w.to_vec(),
            best_loss: f64::INFINITY,
            best_step: 0,
            last: (0, f64::INFINITY),
            history: Vec::with_capacity((HISTORY_START + HISTORY_POINTS) as usize + 2),
            next_entry: 0,
            look_every: window.div_ceil(LOOKS),
            next_look: 0,
            looks: [f64::INFINITY; LOOKS as usize + 1],
        }
    }

    /// Takes note of the loss at `w`, and says whether and why to stop.
    fn see(
        &mut self,
        settings: &Training,
        step: u64,
        loss: f64,
        w: &[T],
    ) -> Result<Option<StopReason>, TargetError> {
        self.note(settings, step, loss, w)?;
        if step >= self.next_entry {
            self.history.push((step, loss));
            let stride = settings.steps.div_ceil(HISTORY_POINTS);
            self.next_entry = if step < HISTORY_START { step + 1 } else { step + stride };
        }
        if loss == 0.0 {
            return Ok(Some(StopReason::ZeroLoss));
        }
        if step >= self.next_look {
            self.next_look = step + self.look_every;
            self.looks.rotate_left(1);
            self.looks[LOOKS as usize] = self.best_loss;
            let improved = 1.0 - self.best_loss / self.looks[0];
            let tol = settings.early_stop_tol;
            if tol > 0.0 && self.looks[0].is_finite() && improved < tol {
                return Ok(Some(StopReason::EarlyStop));
            }
        }
        Ok(None)
    }

    /// Keeps `w` if it is the best so far.
    fn note(&mut self, settings: &Training, step: u64, loss: f64, w: &[T]) -> Result<(), TargetError> {
        if !loss.is_finite() {
            return Err(TargetError::Diverged { step, loss, lr: settings.lr });
        }
        self.last = (step, loss);
        if loss < self.best_loss {
            self.best.copy_from_slice(w);
            (self.best_loss, self.best_step) = (loss, step);
        }
        Ok(())
    }

    fn finish(mut self, steps: u64, reason: StopReason, w: &mut [T]) -> TrainingOutcome {
        if self.history.last().is_none_or(|&(step, _)| step < self.last.0) {
            self.history.push(self.last);
        }
        w.copy_from_slice(&self.best);
        TrainingOutcome {
            steps,
            reason,
            best_step: self.best_step,
            best_loss: self.best_loss,
            history: self.history,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::network::NetworkPotential;
    use super::super::simple::QuadraticPotential;
    use super::*;
    use crate::config::{Activation, Loss, Network};
    use crate::num::rng::fill_normal;

    const ID: [u8; 32] = [5; 32];

    fn settings(optimizer: Optimizer) -> Training {
        Training {
            optimizer,
            lr: 0.05,
            steps: 2_000,
            batch_size: None,
            early_stop_tol: 0.0,
            weight_decay: 0.0,
            momentum: 0.0,
        }
    }

    fn train_quadratic(settings: &Training) -> (Vec<f64>, TrainingOutcome) {
        let mut w = vec![1.0, -2.0];
        let outcome =
            train(&QuadraticPotential::new(&[1.0, 3.0]), settings, ID, &mut w, &mut Desk::unwatched())
                .unwrap();
        (w, outcome)
    }

    /// A linear model on rows that it can fit exactly.
    fn linear() -> NetworkPotential<f64> {
        let network = Network {
            in_dim: 2,
            hidden: vec![],
            out_dim: 1,
            activation: Activation::Identity,
            bias: true,
            layernorm: false,
            residual_period: None,
        };
        let mut x = vec![0.0; 2 * 50];
        fill_normal(&mut Key::new(ID, Purpose::Inputs, 0).at(0), &mut x);
        let y: Vec<f64> = x.chunks(2).map(|x| 3.0 * x[0] - x[1] + 0.5).collect();
        NetworkPotential::new(&network, &x, &y, &Loss::Mse)
    }

    #[test]
    fn every_optimizer_finds_the_minimum_of_a_quadratic() {
        for optimizer in [Optimizer::Adam, Optimizer::Adamw, Optimizer::Sgd] {
            let momentum = 0.5;
            let (w, outcome) = train_quadratic(&Training { momentum, ..settings(optimizer) });
            assert!(outcome.best_loss < 1e-12 && w.iter().all(|w| w.abs() < 1e-6), "{optimizer:?} {w:?}");
            assert_eq!(outcome.history[0], (0, 0.5 + 6.0));
            assert!(outcome.history.len() <= 1_000);
        }
    }

    #[test]
    fn first_steps_are_those_of_the_papers() {
        let after = |steps: u64, settings: Training| train_quadratic(&Training { steps, ..settings }).0;
        let close = |a: Vec<f64>, b: [f64; 2]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-7);
        // Gradient (1, -6). Adam's first step is lr·sign(g); adamw shrinks w by lr·weight_decay first.
        assert!(close(after(1, settings(Optimizer::Adam)), [0.95, -1.95]));
        let decayed = Training { weight_decay: 0.1, ..settings(Optimizer::Adamw) };
        assert!(close(after(1, decayed), [0.995 - 0.05, -1.99 + 0.05]));
        // Heavy ball: v₁ = g₁, v₂ = m·v₁ + g₂. w₁ = (0.95, -1.7); v₂ = (0.5 + 0.95, -3 - 5.1).
        let ball = Training { momentum: 0.5, ..settings(Optimizer::Sgd) };
        assert!(close(after(1, ball.clone()), [0.95, -1.7]));
        assert!(close(after(2, ball), [0.95 - 0.05 * 1.45, -1.7 + 0.05 * 8.1]));
    }

    #[test]
    fn minibatches_are_deterministic_by_id_and_fit_the_rows() {
        let settings = Training { batch_size: Some(8), ..settings(Optimizer::Adam) };
        let run = |id| {
            let mut w = vec![0.0; 3];
            let outcome = train(&linear(), &settings, id, &mut w, &mut Desk::unwatched()).unwrap();
            (w, outcome)
        };
        let (w, outcome) = run(ID);
        assert_eq!((w.clone(), outcome.clone()), run(ID));
        assert_ne!(w, run([6; 32]).0);
        assert!(outcome.best_loss < 1e-8, "{outcome:?}");
        for (w, truth) in w.iter().zip([3.0, -1.0, 0.5]) {
            assert!((w - truth).abs() < 1e-3);
        }
        let mut scratch = vec![0.0; linear().scratch_len()];
        assert_eq!(linear().loss(&w, &mut scratch), outcome.best_loss);
    }

    #[test]
    fn the_best_parameters_are_kept_when_later_ones_are_worse() {
        // A step that overshoots: w ← -1.05 w each step.
        let settings = Training { lr: 2.05 / 3.0, steps: 5, ..settings(Optimizer::Sgd) };
        let mut w = vec![0.0, 1.0];
        let outcome =
            train(&QuadraticPotential::new(&[1.0, 3.0]), &settings, ID, &mut w, &mut Desk::unwatched())
                .unwrap();
        assert_eq!((outcome.best_step, outcome.best_loss, w), (0, 1.5, vec![0.0, 1.0]));
        assert_eq!(outcome.history.len(), 6);
    }

    #[test]
    fn training_stops_when_the_best_loss_stops_to_improve() {
        // A loss halved every 10 steps (factor 0.9659² a step) improves by 1 − 2⁻¹⁰ in the window of
        // 100 steps: never below a tolerance of 0.9, always below one of 0.9999.
        let lr = 1.0 - 0.5_f64.powf(1.0 / 20.0);
        let run = |early_stop_tol: f64| {
            let settings = Training { lr, steps: 400, early_stop_tol, ..settings(Optimizer::Sgd) };
            let mut w = vec![1.0];
            train(&QuadraticPotential::new(&[1.0]), &settings, ID, &mut w, &mut Desk::unwatched()).unwrap()
        };
        let (patient, hasty) = (run(0.9), run(0.9999));
        assert_eq!((patient.reason, patient.steps), (StopReason::Steps, 400));
        assert_eq!((hasty.reason, hasty.steps), (StopReason::EarlyStop, 100));
        assert_eq!(hasty.history.last(), Some(&(100, hasty.best_loss)));
    }

    #[test]
    fn a_loss_that_is_no_number_is_an_error() {
        let settings = Training { lr: 1e9, ..settings(Optimizer::Sgd) };
        let mut w = vec![1.0f32];
        let error = train(&QuadraticPotential::new(&[1.0]), &settings, ID, &mut w, &mut Desk::unwatched())
            .unwrap_err();
        assert!(matches!(error, TargetError::Diverged { step: 1..10, .. }), "{error}");
    }

    #[test]
    fn steps_allocate_nothing() {
        let count = |steps: u64| {
            let settings = Training { steps, batch_size: Some(4), ..settings(Optimizer::Adam) };
            allocation_counter::measure(|| {
                train(&QuadraticPotential::new(&[1.0]), &settings, ID, &mut [1.0f64], &mut Desk::unwatched())
                    .unwrap();
            })
            .count_total
        };
        assert_eq!(count(10), count(3_000));
    }
}
