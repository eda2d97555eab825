//! A control variate put to use: a column whose mean under the draws' law is known to be 0, and which
//! follows llc, takes away most of the noise of the mean llc.
//!
//! The adjusted draws are llc − c·v with a coefficient c = cov(llc, v)/var(v) that is fitted elsewhere: on
//! the other chains, or, for a single chain, on its other half. A coefficient that knows nothing of the
//! draws it adjusts leaves their mean unbiased (cross-fitting; Oates, Girolami & Chopin 2017 use the
//! same split).

/// The adjusted draws and what they gained.
#[derive(Clone, Debug, PartialEq)]
pub struct Adjusted {
    /// llc − c·v, chain by chain.
    pub chains: Vec<Vec<f64>>,
    /// 1 − variance after/variance before, of draws about their chain's mean: near 1 where v explains
    /// llc, a little below 0 where it explains nothing.
    pub variance_removed: f64,
}

/// Adjusts the draws `llc` by the control variate `control`, chain by chain of the same lengths. `None`
/// where there is nothing to fit on: fewer than 4 draws, a control variate that does not vary, or numbers
/// that are not finite.
pub fn adjust(llc: &[&[f64]], control: &[&[f64]]) -> Option<Adjusted> {
    let same = llc.len() == control.len() && llc.iter().zip(control).all(|(a, b)| a.len() == b.len());
    let draws: usize = llc.iter().map(|c| c.len()).sum();
    if !same || draws < 4 || !llc.iter().chain(control).all(|c| c.iter().all(|x| x.is_finite())) {
        return None;
    }
    // Parts that are fitted on all the others: chains, or the halves of one.
    let parts: Vec<(&[f64], &[f64])> = match (llc, control) {
        ([x], [v]) => {
            let half = x.len() / 2;
            vec![(&x[..half], &v[..half]), (&x[half..], &v[half..])]
        }
        _ => llc.iter().copied().zip(control.iter().copied()).collect(),
    };
    let moments: Vec<(f64, f64)> = parts.iter().map(|(x, v)| (product(x, v), product(v, v))).collect();
    let whole = moments.iter().fold((0.0, 0.0), |sum, m| (sum.0 + m.0, sum.1 + m.1));
    let mut pieces = Vec::with_capacity(parts.len());
    for ((x, v), own) in parts.iter().zip(&moments) {
        let (covariance, variance) = (whole.0 - own.0, whole.1 - own.1);
        if variance <= 0.0 {
            return None;
        }
        let coefficient = covariance / variance;
        pieces.push(x.iter().zip(*v).map(|(x, v)| x - coefficient * v).collect::<Vec<f64>>());
    }
    let before: f64 = parts.iter().map(|(x, _)| product(x, x)).sum();
    let after: f64 = pieces.iter().map(|x| product(x, x)).sum();
    let variance_removed = if before > 0.0 { 1.0 - after / before } else { 0.0 };
    let chains = if llc.len() == 1 { vec![pieces.concat()] } else { pieces };
    Some(Adjusted { chains, variance_removed })
}

/// Σ (x − x̄)(v − v̄)
fn product(x: &[f64], v: &[f64]) -> f64 {
    let n = x.len().max(1) as f64;
    let (mean_x, mean_v) = (x.iter().sum::<f64>() / n, v.iter().sum::<f64>() / n);
    x.iter().zip(v).map(|(x, v)| (x - mean_x) * (v - mean_v)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::rng::{Key, Purpose, fill_normal};
    use crate::stats;

    /// v = χ² − 1 and llc = 2 + ½v + noise.
    fn draws(chain: u32, draws: usize, repetition: u64, noise: f64) -> (Vec<f64>, Vec<f64>) {
        let mut x = vec![0.0; 2 * draws];
        fill_normal(&mut Key::new([6; 32], Purpose::Probe, chain).at(repetition), &mut x);
        let v: Vec<f64> = x[..draws].iter().map(|x| x * x - 1.0).collect();
        (v.iter().zip(&x[draws..]).map(|(v, e)| 2.0 + 0.5 * v + noise * e).collect(), v)
    }

    fn adjusted(chains: u32, length: usize, repetition: u64, noise: f64) -> Adjusted {
        let all: Vec<_> = (0..chains).map(|c| draws(c, length, repetition, noise)).collect();
        let llc: Vec<&[f64]> = all.iter().map(|d| d.0.as_slice()).collect();
        let control: Vec<&[f64]> = all.iter().map(|d| d.1.as_slice()).collect();
        adjust(&llc, &control).unwrap()
    }

    #[test]
    fn a_control_variate_takes_off_what_it_explains() {
        for chains in [1, 4] {
            let exact = adjusted(chains, 100, 0, 0.0);
            assert!((exact.variance_removed - 1.0).abs() < 1e-12);
            assert!(exact.chains.concat().iter().all(|x| (x - 2.0).abs() < 1e-12));
            // ½·var(v)/(½·var(v) + noise²) with var(v) = 2: half of it. Its error: that of a
            // correlation's square, 2ρ(1 − ρ²)/√n = 0.7/√n.
            let half = adjusted(chains, 4000, 1, 0.5f64.sqrt());
            let error = 0.71 / (4000.0 * f64::from(chains)).sqrt();
            assert!((half.variance_removed - 0.5).abs() < 4.0 * error, "{}", half.variance_removed);
            assert_eq!(half.chains.len(), chains as usize);
        }
    }

    /// A coefficient fitted on the same few draws would correlate with their mean and bias it.
    #[test]
    fn adjusted_means_are_unbiased_however_few_the_draws() {
        // llc = v² has a slope that depends on v: the worst case for a fit on the same draws.
        let means: Vec<f64> = (0..20_000)
            .map(|repetition| {
                let all: Vec<_> = (0..2).map(|c| draws(c, 8, 10 + repetition, 0.0).1).collect();
                let squares: Vec<Vec<f64>> = all.iter().map(|v| v.iter().map(|v| v * v).collect()).collect();
                let llc: Vec<&[f64]> = squares.iter().map(Vec::as_slice).collect();
                let control: Vec<&[f64]> = all.iter().map(Vec::as_slice).collect();
                stats::mean(&adjust(&llc, &control).unwrap().chains.concat())
            })
            .collect();
        // E[(χ² − 1)²] = 2.
        let error = stats::sd(&means) / (means.len() as f64).sqrt();
        assert!((stats::mean(&means) - 2.0).abs() < 4.0 * error, "{} ± {error}", stats::mean(&means));
    }

    #[test]
    fn nothing_is_made_of_nothing() {
        let x = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(adjust(&[], &[]), None);
        assert_eq!(adjust(&[&x], &[&[0.0; 4]]), None);
        assert_eq!(adjust(&[&x], &[&[1.0, 2.0, f64::NAN, 0.0]]), None);
        assert_eq!(adjust(&[&x], &[&x[..3]]), None);
        assert_eq!(adjust(&[&x[..1], &x[..1]], &[&x[..1], &x[..1]]), None);
    }
}
