//! What the samplers on minibatches share: gradients of random rows, and draws that evaluate the
//! full loss every so many steps.

use rand_chacha::ChaCha8Rng;

use super::chain::{Iterations, Scratch};
use super::posterior::Posterior;
use super::{Role, SamplerError, Work};
use crate::device::Element;
use crate::num::rng::fill_index;
use crate::trace::{Column, Kind};

/// Work of a loss without gradient, in gradients.
pub const LOSS_COST: f64 = 1.0 / 3.0;

/// When draws are kept, and at which step size: what messages and work follow from.
#[derive(Clone, Copy, Debug)]
pub struct Lengths {
    pub steps: u64,
    pub warmup: u64,
    pub eval_every: u64,
}

impl Lengths {
    /// Whether a draw follows the step.
    pub fn keeps(&self, iteration: u64) -> bool {
        (iteration + 1).is_multiple_of(self.eval_every) && iteration >= self.warmup
    }

    /// The same as iterations of a chain.
    pub fn iterations(&self) -> Iterations {
        Iterations::every(self.eval_every, self.warmup, self.steps)
    }

    /// Expected work of a chain whose steps cost `step` each; `warmup` is the calibration's.
    pub fn work(&self, step: f64, warmup: f64) -> Work {
        let draws = self.iterations().draws as f64;
        let chain = self.steps as f64 * step + LOSS_COST * draws;
        Work { warmup, chain, control: chain }
    }
}

/// The step of a chain: the control chain's is half as large.
pub fn step_of(role: Role, step_size: f64) -> f64 {
    match role {
        Role::Main => step_size,
        Role::Control => 0.5 * step_size,
    }
}

/// The cost of a minibatch gradient on a target with `rows` rows.
pub fn batch_cost(batch: usize, rows: usize) -> f64 {
    if rows == 0 { 1.0 } else { batch as f64 / rows as f64 }
}

/// Draws the rows of a minibatch into the scratch.
pub fn draw_rows<T: Element>(posterior: &Posterior<'_, T>, rng: &mut ChaCha8Rng, scratch: &mut Scratch<T>) {
    fill_index(rng, posterior.potential().rows(), &mut scratch.rows);
}

/// The mean loss over the scratch's rows and its gradient, into `scratch.grad`.
///
/// # Errors
/// [`SamplerError::Overflow`] where the loss is not finite.
pub fn gradient<T: Element>(
    posterior: &Posterior<'_, T>,
    w: &[T],
    (step, step_size): (u64, f64),
    scratch: &mut Scratch<T>,
) -> Result<f64, SamplerError> {
    let Scratch { rows, grad, potential, .. } = scratch;
    let loss = posterior.potential().batch_loss_grad(w, rows, grad, potential);
    if loss.is_finite() { Ok(loss) } else { Err(SamplerError::Overflow { step, step_size, loss }) }
}

/// The draw at `w`, in the order of [`layout`]; its work is added to `fge`.
pub fn fill<T: Element>(
    posterior: &Posterior<'_, T>,
    (w, batch_loss, fge): (&[T], f64, &mut f64),
    (step, step_size): (u64, f64),
    scratch: &mut Scratch<T>,
    row: &mut [f64],
) -> Result<(), SamplerError> {
    let loss = posterior.potential().loss(w, &mut scratch.potential);
    if !loss.is_finite() {
        return Err(SamplerError::Overflow { step, step_size, loss });
    }
    *fge += LOSS_COST;
    row.copy_from_slice(&[posterior.llc(loss), loss, batch_loss, *fge]);
    Ok(())
}

/// Columns of the trace. `batch_loss` is the loss of the last minibatch before the draw.
pub fn layout() -> Vec<Column> {
    vec![
        Column::posterior("llc"),
        Column::posterior("L"),
        Column::stat("batch_loss", Kind::Float),
        Column::stat("cumulative_fge", Kind::Float),
    ]
}
