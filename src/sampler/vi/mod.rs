//! Variational inference: a density q(w) out of a family is fitted to the posterior by maximising
//!
//! ELBO = E_q[ln π(w)] − E_q[ln q(w)],  ln π(w) = −U(w) = −nβ(L_n(w) − L0) − (γ/2)‖w − w*‖²,
//!
//! which is below ln ∫exp(−U) by the divergence KL(q ‖ posterior) (Jordan et al. 1999; Kingma & Welling
//! 2014 for reparameterised gradients). A chain optimises its own q: that is its burn-in; then each
//! iteration draws w ~ q and evaluates the full loss. λ̂ is the mean of llc under q, which is not the
//! posterior unless the family contains it: chains that agree say nothing about that error.
//! `log_target` − `log_q` of the draws is the logarithm of their importance weights.
//!
//! | | |
//! |---|---|
//! | `mixture` | mixture of factor analysers, by covariance or precision |
//! | `flow` | a normalising flow in a few directions, Gaussian noise in the others |
//! | `conditioner`, `spline` | what its layers are made of |
//! | `lift` | those directions |
//! | `hessian` | the Hessian at w*: starting point, scales, control variate |
//! | `optimiser` | Adam in whitened coordinates |
//! | `selection` | M and r by ELBO |

mod conditioner;
mod dense;
mod flow;
mod guide;
mod hessian;
mod kernel;
mod lift;
mod mixture;
mod optimiser;
mod selection;
mod spline;
#[cfg(test)]
mod tests;

pub use hessian::Hessian;
pub use kernel::{Curve, ViKernel, curves};
pub use lift::Lift;

use super::{Adapted, Method, Posterior, Role, SamplerError, Scratch, Work};
use crate::config::{Approximation, Mfa, Vi};
use crate::device::Element;
use crate::num::rng::{Key, Purpose};
use crate::resume::Desk;
use crate::trace::{Column, Kind};

use super::stochastic::LOSS_COST;

/// Numbers that a chain's state may hold: 16 GiB of f64.
const MOST_NUMBERS: f64 = (1u64 << 31) as f64;
/// φ, its mean iterate and Adam's two moments, its gradient and units.
const COPIES: f64 = 6.0;

/// The rank of each component; those to be chosen by ELBO at their largest.
fn mixture_ranks(mfa: &Mfa) -> impl Iterator<Item = usize> {
    let alike = mfa.components.unwrap_or(selection::MOST_COMPONENTS);
    let rank = mfa.rank.unwrap_or(selection::MOST_FACTORS);
    let ranks = mfa.r_per_component.clone();
    let count = ranks.as_ref().map_or(alike, Vec::len);
    (0..count).map(move |m| ranks.as_ref().map_or(rank, |ranks| ranks[m]))
}

impl Method for Vi {
    type Kernel<T: Element> = ViKernel;

    fn layout(&self) -> Vec<Column> {
        layout()
    }

    fn unknown_bias(&self) -> &'static str {
        "the variational family's own bias is not known"
    }

    /// There is no step to halve.
    fn bias_at_half_step(&self) -> Option<f64> {
        None
    }

    fn work(&self, rows: usize, dim: usize) -> Work {
        let hessian = hessian::work(dim);
        let (selection, draws_a_step) = match &self.approximation {
            Approximation::Mfa(mfa) => {
                let components = match &mfa.r_per_component {
                    Some(ranks) => ranks.len(),
                    None => mfa.components.unwrap_or(selection::TYPICAL),
                };
                (selection::work(self, mfa, rows, dim), components * mixture::draws_of_each(components))
            }
            Approximation::Flow(flow) => (lift::work(dim, flow.d_latent), flow::DRAWS_A_STEP),
        };
        let optimisation = self.steps as f64 * draws_a_step as f64 * kernel::gradient_cost(self, rows);
        let choice = 2.0 * LOSS_COST * self.eval_samples as f64 + kernel::start_cost();
        Work {
            warmup: hessian + selection,
            chain: optimisation + choice + LOSS_COST * self.draws as f64,
            control: 0.0,
        }
    }

    fn oversized(&self, dim: usize) -> Option<(&'static str, String)> {
        let (key, numbers, what) = match &self.approximation {
            Approximation::Mfa(mfa) => {
                let ranks = mixture_ranks(mfa).map(|r| r.min(dim) as f64);
                let numbers = ranks.map(|r| 1.0 + dim as f64 * (2.0 + r)).sum();
                let (key, advice) = match &mfa.r_per_component {
                    Some(_) => ("r_per_component", "shorten the list, or lower its ranks"),
                    None => ("M", "lower M or r"),
                };
                let what = format!(
                    "{} components of rank up to {} on {dim}",
                    mixture_ranks(mfa).count(),
                    mixture_ranks(mfa).max().unwrap_or(0)
                );
                (key, numbers, (what, advice))
            }
            Approximation::Flow(flow) => {
                let (layers, frame) =
                    (flow::layer_numbers(flow, dim), flow.d_latent.min(dim) as f64 * dim as f64);
                if frame > layers {
                    let what = format!("{} directions in {dim}", flow.d_latent);
                    ("d_latent", frame + layers, (what, "lower d_latent"))
                } else {
                    let what = format!(
                        "{} layers of hidden widths {:?} on {dim}",
                        flow.flow_depth, flow.flow_hidden
                    );
                    ("flow_hidden", frame + layers, (what, "lower flow_hidden or flow_depth"))
                }
            }
        };
        let (what, advice) = what;
        let numbers = COPIES * numbers;
        (numbers > MOST_NUMBERS).then(|| {
            let most = MOST_NUMBERS as u64;
            (key, format!("{what} parameters make a chain's state of {numbers:.1e} numbers, more than {most}; {advice}"))
        })
    }

    fn warmup<T: Element>(
        &self,
        posterior: &Posterior<'_, T>,
        id: [u8; 32],
        desk: &mut Desk<'_>,
    ) -> Result<Adapted, SamplerError> {
        let mut scratch = Scratch::plain(posterior);
        let probe = Key::new(id, Purpose::Probe, 0);
        let (hessian, fge) = Hessian::measure(posterior, &probe, &mut scratch, desk)?;
        let mut adapted = Adapted { fge, hessian: Some(Box::new(hessian)), ..Adapted::default() };
        match &self.approximation {
            Approximation::Mfa(mfa) => selection::choose(self, mfa, posterior, id, &mut adapted, desk)?,
            Approximation::Flow(flow) => {
                let key = Key::new(id, Purpose::Probe, 1);
                let hessian = adapted.hessian.get_or_insert_default();
                let (lift, fge) =
                    desk.stage(|_| Lift::measure(posterior, hessian, flow.d_latent, &key, &mut scratch))?;
                adapted.lift = Some(Box::new(lift));
                adapted.fge += fge;
            }
        }
        Ok(adapted)
    }

    fn kernel<T: Element>(&self, posterior: &Posterior<'_, T>, adapted: &Adapted, _: Role) -> ViKernel {
        ViKernel::new(self, posterior, adapted)
    }
}

/// Columns of a VI trace. `control_variate` has mean 0 under q.
pub fn layout() -> Vec<Column> {
    vec![
        Column::posterior("llc"),
        Column::posterior("L"),
        Column::stat("log_q", Kind::Float),
        Column::stat("log_target", Kind::Float),
        Column::stat("control_variate", Kind::Float),
        Column::stat("cumulative_fge", Kind::Float),
    ]
}
