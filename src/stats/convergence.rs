//! Effective sample sizes, Monte-Carlo error, R-hat, E-BFMI.

use super::autocorrelation::mean_autocovariance;
use super::beta::beta_quantile;
use super::moments::{mean, median, quantile, sd, sum, variance};
use super::rank::normal_scores;
use super::table::Table;

/// Effective sample size for the mean: split chains, values as they are
/// (`az.ess(method="mean")`). Chains that do not vary at all count in full, as in ArviZ.
pub fn ess_mean(chains: &[&[f64]]) -> f64 {
    Table::gather(chains, 1).map_or(f64::NAN, |table| effective_size(&table.split()))
}

/// Effective sample size in the bulk: split chains, rank-normalised (`az.ess(method="bulk")`).
pub fn ess_bulk(chains: &[&[f64]]) -> f64 {
    Table::gather(chains, 1).map_or(f64::NAN, |table| effective_size(&table.split().map(normal_scores)))
}

/// Effective sample size in the tails: the smaller of those for the 5 % and 95 % quantiles
/// (`az.ess(method="tail")`).
pub fn ess_tail(chains: &[&[f64]]) -> f64 {
    let (low, high) = (ess_quantile(chains, 0.05), ess_quantile(chains, 0.95));
    // Not f64::min, which would hide an undefined side.
    if high < low { high } else { low }
}

/// Effective sample size for the `q`-quantile: that of the indicator of lying at or below it
/// (`az.ess(method="quantile", prob=q)`). `q` in [0, 1].
pub fn ess_quantile(chains: &[&[f64]], q: f64) -> f64 {
    if !(0.0..=1.0).contains(&q) {
        return f64::NAN;
    }
    Table::gather(chains, 1).map_or(f64::NAN, |table| {
        let threshold = quantile(table.values(), q);
        let at_or_below = |x: &[f64]| x.iter().map(|&v| f64::from(v <= threshold)).collect();
        effective_size(&table.map(at_or_below).split())
    })
}

/// Effective sample size for the standard deviation: that of (x − x̄)², x̄ over all chains
/// (`az.ess(method="sd")`).
pub fn ess_sd(chains: &[&[f64]]) -> f64 {
    Table::gather(chains, 1).map_or(f64::NAN, |table| effective_size(&table.map(squares).split()))
}

/// Monte-Carlo standard error of the mean over all chains, sd/√[`ess_mean`]
/// (`az.mcse(method="mean")`).
pub fn mcse_mean(chains: &[&[f64]]) -> f64 {
    Table::gather(chains, 1)
        .map_or(f64::NAN, |table| sd(table.values()) / effective_size(&table.split()).sqrt())
}

/// Monte-Carlo standard error of the standard deviation over all chains (`az.mcse(method="sd")`):
/// with s = (x − x̄)² it is √((mean s² − (mean s)²) / ([`ess_sd`] · 4 · mean s)). NaN where nothing varies.
pub fn mcse_sd(chains: &[&[f64]]) -> f64 {
    Table::gather(chains, 1).map_or(f64::NAN, |table| {
        let squares = squares(table.values());
        let variance = mean(&squares);
        let fourth: Vec<f64> = squares.iter().map(|s| s * s).collect();
        ((mean(&fourth) - variance * variance) / ess_sd(chains) / variance / 4.0).sqrt()
    })
}

/// (x − x̄)², x̄ the mean of all.
fn squares(x: &[f64]) -> Vec<f64> {
    let centre = mean(x);
    x.iter().map(|v| (v - centre) * (v - centre)).collect()
}

/// Monte-Carlo standard error of the `q`-quantile over all chains (`az.mcse(method="quantile",
/// prob=q)`): half the distance between the order statistics at the two ends of the central 68.27 %
/// of Beta(S q + 1, S (1 − q) + 1), S = [`ess_quantile`] (Vehtari et al., section 4.4). `q` in [0, 1].
pub fn mcse_quantile(chains: &[&[f64]], q: f64) -> f64 {
    if !(0.0..=1.0).contains(&q) {
        return f64::NAN;
    }
    Table::gather(chains, 1).map_or(f64::NAN, |table| {
        let mut sorted = table.values().to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        error_of_quantile(&sorted, q, ess_quantile(chains, q))
    })
}

/// The same from draws in ascending order.
pub(super) fn error_of_quantile(sorted: &[f64], q: f64, ess: f64) -> f64 {
    /// Φ(∓1), to the digits that ArviZ has.
    const ENDS: [f64; 2] = [0.158_655_3, 0.841_344_7];
    let last = (sorted.len() - 1) as f64;
    let [low, high] = ENDS.map(|p| {
        let share = beta_quantile(p, ess * q + 1.0, ess * (1.0 - q) + 1.0);
        share * sorted.len() as f64 - 1.0
    });
    (sorted[high.min(last).ceil() as usize] - sorted[low.max(0.0).floor() as usize]) / 2.0
}

/// Rank-normalised split R-hat: the larger of that of the values and that of their distances from
/// the median (`az.rhat(method="rank")`). NaN for a single chain. Infinite, or beyond 10⁷ by
/// rounding, where chains differ but none of them moves.
pub fn r_hat(chains: &[&[f64]]) -> f64 {
    Table::gather(chains, 2).map_or(f64::NAN, |table| {
        let halves = table.split();
        let centre = median(halves.values());
        let distances = |x: &[f64]| x.iter().map(|v| (v - centre).abs()).collect();
        let bulk = scale_reduction(&halves.map(normal_scores));
        let folded = scale_reduction(&halves.map(distances).map(normal_scores));
        // Where infinities leave the distances undefined, the values alone decide, as in ArviZ.
        if folded > bulk { folded } else { bulk }
    })
}

/// Energy-based fraction of missing information of one chain,
/// mean (E_i − E_{i−1})² / var E (Betancourt, arXiv:1604.00695; `az.bfmi`). About 2 for
/// independent energies, below 0.3 where momenta change the energy too little. NaN below two
/// draws or where the energy does not vary.
pub fn e_bfmi(energy: &[f64]) -> f64 {
    let squares: Vec<f64> = energy.windows(2).map(|w| (w[1] - w[0]) * (w[1] - w[0])).collect();
    mean(&squares) / variance(energy)
}

/// √(V̂/W) of Gelman & Rubin (1992) in the form of Vehtari et al., equations 1–4.
fn scale_reduction(table: &Table) -> f64 {
    let means: Vec<f64> = table.rows().map(mean).collect();
    let variances: Vec<f64> = table.rows().map(variance).collect();
    reduction(table.draws(), &means, &variances)
}

/// The same from the means and variances of sequences of `n` draws.
pub(super) fn reduction(n: usize, means: &[f64], variances: &[f64]) -> f64 {
    let n = n as f64;
    let (between, within) = (n * variance(means), mean(variances));
    ((between / within + n - 1.0) / n).sqrt()
}

/// Below this range draws count as constant: ArviZ's threshold (NumPy's `finfo.resolution`).
pub(super) const RESOLUTION: f64 = 1e-15;

/// S = MN/τ of Vehtari et al., equations 10–13, for M sequences of N draws, with ρ_t combined over
/// the sequences and τ cut by Geyer's initial monotone sequence. τ is at least 1/log₁₀(MN), which
/// bounds the gain that anti-correlation can claim.
fn effective_size(table: &Table) -> f64 {
    let (n, count) = (table.draws(), table.values().len() as f64);
    let (low, high) =
        table.values().iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &x| (l.min(x), h.max(x)));
    if high - low < RESOLUTION && table.values().iter().all(|x| !x.is_nan()) {
        return count;
    }
    if !(high - low).is_finite() {
        return f64::NAN;
    }
    let covariance = mean_autocovariance(table.rows(), n);
    let length = n as f64;
    let within = covariance[0] * length / (length - 1.0);
    let mut total = within * (length - 1.0) / length;
    if table.rows().len() > 1 {
        let means: Vec<f64> = table.rows().map(mean).collect();
        total += variance(&means);
    }
    let rho = |t: usize| 1.0 - (within - covariance[t]) / total;
    size_of(count, autocorrelation_time(n, n, rho).unwrap_or(f64::NAN))
}

/// `count`/τ, τ at least 1/log₁₀ `count`.
pub(super) fn size_of(count: f64, tau: f64) -> f64 {
    let least = 1.0 / libm::log10(count);
    if tau.is_nan() { f64::NAN } else { count / tau.max(least) }
}

/// τ = −1 + 2 Σ ρ_t over Geyer's (1992) initial monotone positive sequence of pairs
/// (ρ_{2k}, ρ_{2k+1}), plus the first term of the pair that ends it where that is positive (ArviZ
/// and Stan). `n` is at least 2. `None` where that takes lags from `known` on.
pub(super) fn autocorrelation_time(n: usize, known: usize, rho: impl Fn(usize) -> f64) -> Option<f64> {
    if known < 2 {
        return None;
    }
    let mut kept = vec![1.0, rho(1)];
    let (mut even, mut odd) = (kept[0], kept[1]);
    let mut t = 1;
    while t + 3 < n && even + odd > 0.0 {
        if t + 2 >= known {
            return None;
        }
        (even, odd) = (rho(t + 1), rho(t + 2));
        // A pair that ends the sequence is not part of it.
        let positive = even + odd >= 0.0;
        kept.extend(if positive { [even, odd] } else { [0.0, 0.0] });
        t += 2;
    }
    // `kept` now ends at lag t; its last pair starts at t − 1 and is summed apart.
    let last = t - 1;
    if even > 0.0 {
        kept[last] = even;
    }
    for pair in (2..last).step_by(2) {
        let before = kept[pair - 2] + kept[pair - 1];
        if kept[pair] + kept[pair + 1] > before {
            kept[pair] = before / 2.0;
            kept[pair + 1] = before / 2.0;
        }
    }
    if kept.iter().any(|r| r.is_nan()) {
        return Some(f64::NAN);
    }
    Some(-1.0 + 2.0 * sum(&kept[..last]) + kept[last])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::rng::{Key, Purpose, fill_normal};

    /// `chains` autoregressions x_t = φ x_{t−1} + e_t from their stationary law.
    fn autoregressions(phi: f64, chains: u32, draws: usize) -> Vec<Vec<f64>> {
        let one = |c| {
            let mut x = vec![0.0f64; draws];
            fill_normal(&mut Key::new([5; 32], Purpose::Probe, c).at(0), &mut x);
            x[0] /= (1.0 - phi * phi).sqrt();
            for i in 1..draws {
                x[i] += phi * x[i - 1];
            }
            x
        };
        (0..chains).map(one).collect()
    }

    fn rows(chains: &[Vec<f64>]) -> Vec<&[f64]> {
        chains.iter().map(Vec::as_slice).collect()
    }

    #[test]
    fn autoregressions_have_their_closed_form_sizes_and_errors() {
        let (chains, draws) = (4, 50_000);
        let count = f64::from(chains) * draws as f64;
        for phi in [-0.5, 0.0, 0.5, 0.9] {
            let trace = autoregressions(phi, chains, draws);
            let trace = rows(&trace);
            // τ = (1+φ)/(1−φ) for the mean; for squares φ² takes φ's place. An estimate of τ from a
            // window of W lags has relative variance about 2(2W+1)/count (Sokal 1997, eq. 3.19); the
            // monotone sequence stops within some 10 τ.
            for (ess, phi) in [(ess_mean(&trace), phi), (ess_bulk(&trace), phi), (ess_sd(&trace), phi * phi)]
            {
                let tau = (1.0 + phi) / (1.0 - phi);
                let error = (2.0 * (20.0 * tau.max(1.0) + 1.0) / count).sqrt();
                assert!((ess * tau / count - 1.0).abs() < 4.0 * error, "φ = {phi}: {ess}");
            }
            let tau = (1.0 + phi) / (1.0 - phi);
            let error = (2.0 * (20.0 * tau.max(1.0) + 1.0) / count).sqrt();
            let exact = (tau / (1.0 - phi * phi) / count).sqrt();
            assert!((mcse_mean(&trace) / exact - 1.0).abs() < 4.0 * error, "φ = {phi}");
            // R-hat² − 1 is (τ χ² − 1)/N with χ² a mean square of order 1, N the length of a half.
            assert!((r_hat(&trace) - 1.0).abs() < 4.0 * tau.max(1.0) / draws as f64, "φ = {phi}");
            // Successive differences of an autoregression have 2(1 − φ) of its variance; the variance
            // of an estimated variance is 2 (1+φ²)/(1−φ²)/N relative.
            let error = (2.0 * (1.0 + phi * phi) / (1.0 - phi * phi) / draws as f64).sqrt();
            assert!((e_bfmi(trace[0]) / (2.0 * (1.0 - phi)) - 1.0).abs() < 4.0 * error, "φ = {phi}");
        }
    }

    #[test]
    fn undefined_input_is_nan_and_not_a_panic() {
        let (good, short, nan) =
            (&[1.0, 3.0, 2.0, 5.0, 4.0][..], &[1.0, 2.0, 3.0][..], &[1.0, f64::NAN, 2.0, 3.0][..]);
        let sets: [&[&[f64]]; 6] =
            [&[], &[&[]], &[short, short], &[nan, nan], &[good, short], &[&good[..4], nan]];
        for chains in sets {
            for (name, statistic) in [
                ("ess_mean", ess_mean as fn(&[&[f64]]) -> f64),
                ("ess_bulk", ess_bulk),
                ("ess_tail", ess_tail),
                ("ess_sd", ess_sd),
                ("mcse_mean", mcse_mean),
                ("mcse_sd", mcse_sd),
                ("mcse_quantile", |chains| mcse_quantile(chains, 0.5)),
                ("r_hat", r_hat),
            ] {
                assert!(statistic(chains).is_nan(), "{name} of {chains:?}");
            }
        }
        assert!(r_hat(&[good]).is_nan());
        assert!(ess_quantile(&[good, good], 1.5).is_nan());
        assert!(e_bfmi(&[]).is_nan() && e_bfmi(&[1.0]).is_nan() && e_bfmi(&[1.0, 1.0]).is_nan());
    }
}
