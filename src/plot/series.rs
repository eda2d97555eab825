//! Draws made ready for drawing: thinned without losing extremes, smoothed, averaged.

use super::scale::{extent, is_drawable};
use crate::stats;

/// Draws of which the quartiles for a bandwidth are taken.
const QUARTILE_SAMPLE: usize = 8192;
/// Points of a density's grid.
const GRID: usize = 256;

/// How many draws cannot be drawn (NaN, infinite, beyond 10³⁰⁰), and how many there are.
pub(super) fn count_undrawable(chains: &[&[f64]]) -> (usize, usize) {
    let bad = chains.iter().flat_map(|c| c.iter()).filter(|x| !is_drawable(**x)).count();
    (bad, chains.iter().map(|c| c.len()).sum())
}

/// Points (draw, value), draws counted from 1: all of them, or of each of `buckets` stretches of
/// equal length its lowest and highest value and a gap where it has undrawable ones, in order.
pub(super) fn thin(x: &[f64], buckets: usize) -> Vec<(f64, f64)> {
    let point = |i: usize| (i as f64 + 1.0, if is_drawable(x[i]) { x[i] } else { f64::NAN });
    if x.len() <= 3 * buckets {
        return (0..x.len()).map(point).collect();
    }
    let mut out = Vec::with_capacity(3 * buckets);
    for b in 0..buckets {
        let (from, to) = (b * x.len() / buckets, (b + 1) * x.len() / buckets);
        let (mut low, mut high, mut gap) = (None, None, None);
        for i in from..to {
            if !is_drawable(x[i]) {
                gap = Some(i);
                continue;
            }
            if low.is_none_or(|j: usize| x[i] < x[j]) {
                low = Some(i);
            }
            if high.is_none_or(|j: usize| x[i] > x[j]) {
                high = Some(i);
            }
        }
        let mut kept: Vec<usize> = [low, high, gap].into_iter().flatten().collect();
        kept.sort_unstable();
        kept.dedup();
        out.extend(kept.into_iter().map(point));
    }
    out
}

/// A smooth density of the drawable values: points (value, density) on an even grid.
///
/// A Gaussian kernel of bandwidth h = 0.9·min(sd, IQR/1.34)·n^(−1/5) (Silverman 1986, equation 3.31),
/// on values counted into the grid; quartiles are those of at most 8,192 evenly spaced draws.
/// `None` where the values have no spread.
pub(super) fn density<'a>(values: impl Iterator<Item = &'a f64> + Clone) -> Option<Vec<(f64, f64)>> {
    let values = values.copied().filter(|&x| is_drawable(x));
    let (lo, hi) = extent(values.clone())?;
    let n = values.clone().count();
    let size = lo.abs().max(hi.abs());
    if n < 2 || hi - lo <= 1e-7 * size || hi - lo < 1e-290 {
        return None;
    }
    // In units of the range, so that squares of huge or tiny values exist, and lose few digits.
    let (unit, inverse) = (hi - lo, 1.0 / (hi - lo));
    let scaled = values.map(|x| (x - lo) * inverse);
    let (mut sums, mut squares) = ([0.0; 4], [0.0; 4]);
    for (k, x) in scaled.clone().enumerate() {
        sums[k % 4] += x;
        squares[k % 4] += x * x;
    }
    let mean = sums.iter().sum::<f64>() / n as f64;
    let sd = (squares.iter().sum::<f64>() / n as f64 - mean * mean).max(0.0).sqrt();
    let sample: Vec<f64> = scaled.clone().step_by(n.div_ceil(QUARTILE_SAMPLE)).collect();
    let iqr = stats::quantile(&sample, 0.75) - stats::quantile(&sample, 0.25);
    let spread = if iqr > 0.0 { sd.min(iqr / 1.34) } else { sd };
    // No narrower than two cells: the grid could not show it.
    let h = (0.9 * spread * libm::pow(n as f64, -0.2)).max(2.0 / GRID as f64);

    let (from, to) = (-3.0 * h, 1.0 + 3.0 * h);
    let cell = (to - from) / (GRID - 1) as f64;
    let cells = 1.0 / cell;
    let mut counts = [0.0_f64; GRID];
    for x in scaled {
        let at = (x - from) * cells;
        let i = (at as usize).min(GRID - 2);
        let part = at - i as f64;
        counts[i] += 1.0 - part;
        counts[i + 1] += part;
    }
    let reach = (4.0 * h / cell) as usize + 1;
    let norm = 1.0 / (n as f64 * h * (2.0 * std::f64::consts::PI).sqrt());
    let kernel: Vec<f64> = (0..=reach)
        .map(|k| {
            let z = k as f64 * cell / h;
            libm::exp(-0.5 * z * z) * norm
        })
        .collect();
    let at = |i: usize| {
        let (first, last) = (i.saturating_sub(reach), (i + reach).min(GRID - 1));
        (first..=last).map(|j| counts[j] * kernel[i.abs_diff(j)]).sum::<f64>() / unit
    };
    Some((0..GRID).map(|i| (lo + (from + cell * i as f64) * unit, at(i))).collect())
}

/// Mean and standard deviation of the first draws of all chains.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Moments {
    /// Draws a chain that went in.
    pub draws: usize,
    /// Drawable values among them, all chains.
    pub count: usize,
    /// Their mean; NaN of none.
    pub mean: f64,
    /// Their standard deviation (n − 1); NaN of fewer than two.
    pub sd: f64,
}

/// Running moments over all chains together, after each number of draws in `at` (ascending).
pub(super) fn running(chains: &[&[f64]], at: &[usize]) -> Vec<Moments> {
    let first = chains.iter().flat_map(|c| c.iter()).copied().find(|&x| is_drawable(x)).unwrap_or(0.0);
    let (mut count, mut sum, mut squares, mut done) = (0usize, 0.0, 0.0, 0);
    let mut out = Vec::with_capacity(at.len());
    for &draws in at {
        for chain in chains {
            let to = draws.min(chain.len());
            for &x in chain.get(done.min(to)..to).unwrap_or_default() {
                if is_drawable(x) {
                    // Off the first value, so that squares keep their digits.
                    let off = x - first;
                    count += 1;
                    sum += off;
                    squares += off * off;
                }
            }
        }
        done = draws;
        let n = count as f64;
        let variance = (squares - sum * sum / n) / (n - 1.0);
        out.push(Moments { draws, count, mean: first + sum / n, sd: variance.max(0.0).sqrt() });
    }
    for m in &mut out {
        if m.count < 2 {
            m.sd = f64::NAN;
        }
    }
    out
}

/// `count` numbers of draws from 1 to `draws`, evenly spaced, ascending.
pub(super) fn even_grid(draws: usize, count: usize) -> Vec<usize> {
    let count = count.min(draws);
    (1..=count).map(|i| (i * draws).div_ceil(count)).collect()
}

/// Likewise with even ratios.
pub(super) fn log_grid(from: usize, draws: usize, count: usize) -> Vec<usize> {
    let (a, b) = (libm::log(from.max(1) as f64), libm::log(draws.max(1) as f64));
    let mut grid: Vec<usize> = (0..count)
        .map(|i| libm::round(libm::exp(a + (b - a) * i as f64 / (count.max(2) - 1) as f64)) as usize)
        .map(|k| k.clamp(1, draws.max(1)))
        .collect();
    grid.dedup();
    grid
}

/// Draws a chain that stand for one independent draw: N/ESS, at least 1 where ESS is unknown.
///
/// ESS is the one given, else that of the draws.
pub(super) fn autocorrelation_time(chains: &[&[f64]], ess: Option<f64>) -> f64 {
    let total: usize = chains.iter().map(|c| c.len()).sum();
    let ess = ess.unwrap_or_else(|| stats::ess_mean(chains));
    let time = total as f64 / ess;
    if time.is_finite() && time > 0.0 { time } else { 1.0 }
}

/// Autocorrelation at the given lags, from deviations about the mean of the drawable values; pairs
/// with an undrawable one are left out. NaN where there is no variance.
///
/// ρ(k) = Σ (x_i − x̄)(x_{i+k} − x̄) / Σ (x_i − x̄)², the estimate with divisor n of Vehtari et al. 2021.
pub(super) fn autocorrelation(x: &[f64], lags: &[usize]) -> Vec<f64> {
    let finite = x.iter().copied().filter(|&v| is_drawable(v));
    let Some((lo, hi)) = extent(finite.clone()) else {
        return vec![f64::NAN; lags.len()];
    };
    let unit = hi - lo;
    if unit <= 1e-14 * lo.abs().max(hi.abs()) {
        return vec![f64::NAN; lags.len()];
    }
    let n = finite.clone().count();
    let mean = finite.map(|v| (v - lo) / unit).sum::<f64>() / n as f64;
    let off: Vec<f64> =
        x.iter().map(|&v| if is_drawable(v) { (v - lo) / unit - mean } else { 0.0 }).collect();
    let variance = dot(&off, &off);
    let at = |&k: &usize| off.get(k..).map_or(f64::NAN, |late| dot(&off[..late.len()], late) / variance);
    lags.iter().map(at).collect()
}

/// Σ aᵢ·bᵢ in eight sums, which the processor takes side by side.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (a8, a_rest) = a.as_chunks::<8>();
    let (b8, b_rest) = b.as_chunks::<8>();
    for (x, y) in a8.iter().zip(b8) {
        for i in 0..8 {
            sums[i] += x[i] * y[i];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum();
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(n: usize) -> Vec<f64> {
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        (0..n).map(|_| next() + next() + next()).collect()
    }

    #[test]
    fn thinning_keeps_extremes_and_gaps() {
        let mut x = noise(100_000);
        x[12_345] = 99.0;
        x[77_777] = -99.0;
        x[50_000] = f64::NAN;
        let points = thin(&x, 500);
        assert!(points.len() <= 1500);
        assert!(points.contains(&(12_346.0, 99.0)) && points.contains(&(77_778.0, -99.0)));
        assert_eq!(points.iter().filter(|p| p.1.is_nan()).count(), 1);
        assert!(points.is_sorted_by(|a, b| a.0 < b.0));
        assert_eq!(thin(&x[..10], 500).len(), 10);
    }

    #[test]
    fn densities_integrate_to_one() {
        for scale in [1.0, 1e-250, 1e250] {
            let x: Vec<f64> = noise(3000).iter().map(|v| v * scale).collect();
            let d = density(x.iter()).unwrap();
            let area: f64 = d.windows(2).map(|p| (p[1].0 - p[0].0) * (p[0].1 + p[1].1) / 2.0).sum();
            // Three bandwidths beyond the data hold all but 0.3 % of each outermost kernel.
            assert!((area - 1.0).abs() < 1e-3, "{area}");
        }
        assert!(density([1.0; 9].iter()).is_none());
    }

    #[test]
    fn running_moments_end_at_those_of_all_draws() {
        let x = noise(500);
        let chains = [&x[..250], &x[250..]];
        let last = running(&chains, &even_grid(250, 40)).pop().unwrap();
        assert_eq!((last.draws, last.count), (250, 500));
        assert!((last.mean - stats::mean(&x)).abs() < 1e-12);
        assert!((last.sd - stats::sd(&x)).abs() < 1e-12);
    }

    #[test]
    fn autocorrelations_are_those_of_stats() {
        let x = noise(300);
        let lags: Vec<usize> = (0..50).collect();
        for (ours, theirs) in autocorrelation(&x, &lags).iter().zip(stats::autocorrelation(&x)) {
            assert!((ours - theirs).abs() < 1e-12);
        }
    }

    #[test]
    fn grids_ascend_to_the_end() {
        for draws in [1, 2, 7, 1000, 100_000] {
            for grid in [even_grid(draws, 100), log_grid(1, draws, 100)] {
                assert_eq!(grid.last(), Some(&draws));
                assert!(grid.is_sorted_by(|a, b| a < b) && grid.len() <= 100);
            }
        }
    }
}
