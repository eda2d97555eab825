use crate::num::Real;

/// An empirical loss L_n(w), its gradient, and nothing of how they come about: all that samplers
/// and training know of a target.
///
/// Methods take the parameters as a flat slice of length [`dim`](Potential::dim) and a scratch
/// slice of length [`scratch_len`](Potential::scratch_len) that the caller owns; none of them
/// allocates. Losses come back as `f64` whatever the arithmetic, so that differences of losses
/// are not rounded twice. Values may be infinite or NaN where w is wild; the caller decides.
pub trait Potential<T: Real>: Send + Sync {
    /// Number of parameters d.
    fn dim(&self) -> usize;

    /// Rows n of the data set; 0 for a target without rows.
    fn rows(&self) -> usize;

    /// Length of the scratch slice for full-data calls.
    fn scratch_len(&self) -> usize;

    /// Length of the scratch slice for minibatches of `batch` rows.
    fn batch_scratch_len(&self, batch: usize) -> usize;

    /// L_n(w).
    fn loss(&self, w: &[T], scratch: &mut [T]) -> f64;

    /// L_n(w); `grad` (length d) is overwritten with ∇L_n(w).
    fn loss_grad(&self, w: &[T], grad: &mut [T], scratch: &mut [T]) -> f64;

    /// The mean loss over the given rows (indices below n, repeats allowed) and its gradient.
    /// A target without rows ignores `rows` and answers as [`loss_grad`](Potential::loss_grad).
    fn batch_loss_grad(&self, w: &[T], rows: &[u32], grad: &mut [T], scratch: &mut [T]) -> f64;

    /// The Hessian of the mean loss times `v` (length d), into `hv`, by forward-over-reverse
    /// differentiation: exact to rounding. `rows` chooses a minibatch (as in
    /// [`batch_loss_grad`](Potential::batch_loss_grad)); `None` takes all rows. `scratch` has length
    /// [`hvp_scratch_len`](Potential::hvp_scratch_len). Costs 2 gradients.
    fn hvp(&self, w: &[T], v: &[T], rows: Option<&[u32]>, hv: &mut [T], scratch: &mut [T]);

    /// Length of the scratch slice of [`hvp`](Potential::hvp).
    fn hvp_scratch_len(&self) -> usize;

    /// Work of one `batch_loss_grad` over `batch` rows in units of a full gradient: b/n, or 1 for
    /// a target without rows.
    fn batch_cost(&self, batch: usize) -> f64 {
        if self.rows() == 0 { 1.0 } else { batch as f64 / self.rows() as f64 }
    }
}
