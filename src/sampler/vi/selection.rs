//! `M: auto` and `r: auto`: short optimisations over a small grid, compared by their ELBO. First r, with
//! one component; then M. Among ELBOs that are as good within their errors the smallest wins.

use super::mixture::draws_of_each;
use super::optimiser::shorter;
use super::{LOSS_COST, kernel};
use crate::config::{Approximation, Mfa, Vi};
use crate::device::Element;
use crate::num::rng::{Key, Purpose};
use crate::resume::Desk;
use crate::sampler::chain::{ChainRun, Kernel, Scratch};
use crate::sampler::{Adapted, Method, Posterior, Role, SamplerError};
use crate::stats;

/// Candidates for M, and for r (those above d are left out).
const COMPONENTS: [usize; 4] = [1, 2, 4, 8];
const RANKS: [usize; 5] = [1, 2, 4, 8, 16];
/// The largest of each.
pub const MOST_COMPONENTS: usize = COMPONENTS[COMPONENTS.len() - 1];
pub const MOST_FACTORS: usize = RANKS[RANKS.len() - 1];
/// Assumed of an M that is yet to be found, where work is estimated.
pub const TYPICAL: usize = 2;
/// Differences of the ELBO in nats that are not worth a larger family.
const WORTH: f64 = 0.05;
/// Joint standard errors that a larger family must win by.
const MARGIN: f64 = 2.0;

fn ranks(dim: usize) -> impl Iterator<Item = usize> {
    RANKS.into_iter().enumerate().filter(move |(i, r)| *i == 0 || *r <= dim).map(|(_, r)| r)
}

/// Expected work.
pub fn work(settings: &Vi, mfa: &Mfa, rows: usize, dim: usize) -> f64 {
    let short = shorter(settings);
    let steps = short.steps as f64 * kernel::gradient_cost(settings, rows);
    let trial = |components: usize| {
        steps * (components * draws_of_each(components)) as f64
            + LOSS_COST * (short.draws + 2 * settings.eval_samples) as f64
            + kernel::start_cost()
    };
    let free = |auto: bool| if auto && mfa.r_per_component.is_none() { 1.0 } else { 0.0 };
    let by_rank = ranks(dim).count() as f64 * trial(mfa.components.unwrap_or(1));
    let by_components: f64 = COMPONENTS.into_iter().map(trial).sum();
    free(mfa.rank.is_none()) * by_rank + free(mfa.components.is_none()) * by_components
}

/// Chooses what `mfa` leaves open; what it costs is added to `adapted.fge`.
pub fn choose<T: Element>(
    settings: &Vi,
    mfa: &Mfa,
    posterior: &Posterior<'_, T>,
    id: [u8; 32],
    adapted: &mut Adapted,
    desk: &mut Desk<'_>,
) -> Result<(), SamplerError> {
    if mfa.r_per_component.is_some() {
        return Ok(());
    }
    let mut stream = 0;
    let mut trial = |components: usize, rank: usize, adapted: &mut Adapted| {
        stream += 1;
        let mfa = Mfa { components: Some(components), rank: Some(rank), ..mfa.clone() };
        let settings = Vi { approximation: Approximation::Mfa(mfa), ..shorter(settings) };
        let key = Key::new(id, Purpose::Warmup, stream);
        let (mean, error, fge): (f64, f64, f64) =
            desk.stage(|desk| elbo(&settings, posterior, &key, adapted, desk))?;
        adapted.fge += fge;
        Ok((mean, error))
    };
    if mfa.rank.is_none() {
        let components = mfa.components.unwrap_or(1);
        let candidates: Vec<usize> = ranks(posterior.dim()).collect();
        adapted.rank = Some(smallest_of_the_best(&candidates, |r| trial(components, r, adapted))?);
    }
    if mfa.components.is_none() {
        let rank = mfa.rank.or(adapted.rank).unwrap_or(1);
        adapted.components = Some(smallest_of_the_best(&COMPONENTS, |m| trial(m, rank, adapted))?);
    }
    Ok(())
}

/// ELBO, its standard error and the work of a short optimisation.
fn elbo<T: Element>(
    settings: &Vi,
    posterior: &Posterior<'_, T>,
    key: &Key,
    adapted: &Adapted,
    desk: &mut Desk<'_>,
) -> Result<(f64, f64, f64), SamplerError> {
    let kernel = Method::kernel(settings, posterior, adapted, Role::Main);
    let mut scratch = Scratch::of(&kernel, posterior);
    let mut row = vec![0.0; Method::layout(settings).len()];
    let mut run = match desk.part()? {
        Some(run) => run,
        None => ChainRun::start(&kernel, posterior, &mut scratch)?,
    };
    run.advance(&kernel, posterior, key, &mut scratch, &mut row, desk)?;
    let fge = Kernel::<T>::fge(&kernel, &run.state);
    let [_, _, log_q, log_target, ..] = run.trace.values.as_slice() else { return Ok((f64::NAN, 0.0, fge)) };
    let elbo: Vec<f64> = log_target.iter().zip(log_q).map(|(p, q)| p - q).collect();
    Ok((stats::mean(&elbo), stats::sd(&elbo) / (elbo.len() as f64).sqrt(), fge))
}

/// The first of the candidates, ordered by size, whose ELBO no larger one beats by a margin. A
/// candidate that fails counts as worse than any; an error where all do.
fn smallest_of_the_best(
    candidates: &[usize],
    mut elbo: impl FnMut(usize) -> Result<(f64, f64), SamplerError>,
) -> Result<usize, SamplerError> {
    let mut results = Vec::new();
    let mut failure = None;
    for &candidate in candidates {
        match elbo(candidate) {
            Ok((mean, error)) if mean.is_finite() => results.push((candidate, mean, error)),
            Ok(_) => {}
            Err(SamplerError::Interrupted(asked)) => return Err(asked.into()),
            Err(error) => failure = Some(error),
        }
    }
    let best = results.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1));
    match (best, failure) {
        (Some((_, highest, error)), _) => {
            let good = |r: &&(usize, f64, f64)| {
                highest - r.1 <= WORTH.max(MARGIN * (error * error + r.2 * r.2).sqrt())
            };
            Ok(results.iter().find(good).map_or(candidates[0], |r| r.0))
        }
        (None, Some(failure)) => Err(failure),
        (None, None) => Ok(candidates[0]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_family_must_be_worth_it() {
        let choose = |elbos: [(f64, f64); 3]| {
            let mut it = elbos.into_iter();
            smallest_of_the_best(&[1, 2, 4], |_| Ok(it.next().unwrap())).unwrap()
        };
        assert_eq!(choose([(-3.0, 0.001), (-1.0, 0.001), (-0.98, 0.001)]), 2);
        assert_eq!(choose([(-1.3, 0.3), (-1.0, 0.3), (-1.1, 0.3)]), 1);
        assert_eq!(choose([(f64::NAN, 0.0), (-5.0, 0.1), (-1.0, 0.1)]), 4);
    }
}
