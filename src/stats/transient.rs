//! Drift, running means, and how much of a trace its start still marks.

use super::moments::mean;
use super::quick::{Halves, pooled};
use super::table::Table;

/// |z| above which a drift counts: one in 370 by chance.
pub const DRIFT_LIMIT: f64 = 3.0;

/// Mean over `count` draws, their variance, and draws over effective draws for the mean.
struct Segment {
    count: f64,
    mean: f64,
    variance: f64,
    tau: f64,
}

impl Segment {
    fn new(chains: &[&[f64]]) -> Self {
        let undefined = Self { count: 0.0, mean: f64::NAN, variance: f64::NAN, tau: f64::NAN };
        if Table::gather_check(chains, 1).is_none() {
            return undefined;
        }
        let first = chains[0][0];
        let count = (chains.len() * chains[0].len()) as f64;
        if chains.iter().all(|c| c.iter().all(|x| *x == first)) {
            // Sums of many equal numbers are rounded; their mean is not.
            return Self { count, mean: first, variance: 0.0, tau: 1.0 };
        }
        let (mean, squares) = pooled(chains, |x| x * x);
        let tau = count / Halves::new(chains).size_of(|x| x);
        Self { count, mean, variance: squares / (count - 1.0), tau }
    }
}

/// The first tenth of every chain, and the last half; `None` for chains of unequal length.
fn ends(chains: &[&[f64]]) -> Option<[Segment; 2]> {
    let draws = chains.first().map_or(0, |c| c.len());
    if chains.iter().any(|c| c.len() != draws) {
        return None;
    }
    let early: Vec<&[f64]> = chains.iter().map(|c| &c[..draws / 10]).collect();
    let late: Vec<&[f64]> = chains.iter().map(|c| &c[draws - draws / 2..]).collect();
    Some([Segment::new(&early), Segment::new(&late)])
}

fn in_errors(difference: f64, variance: f64) -> f64 {
    if difference == 0.0 && variance == 0.0 { 0.0 } else { difference / variance.sqrt() }
}

/// Geweke's z: the mean of the first tenth of every chain less that of the last half, over
/// √(MCSE² + MCSE²) of the two (Geweke 1992, in Bayesian Statistics 4, p. 169, with his shares).
///
/// The variance of each mean is sd²/ESS of its segment, ESS by Geyer's initial monotone sequence over
/// split chains; the original takes a windowed spectral density at 0, which estimates the same sum of
/// autocovariances. Nearly standard normal where the chains are stationary. 0 or ±∞ where nothing
/// varies; NaN below 40 draws a chain, or where a segment has a NaN.
pub fn geweke(chains: &[&[f64]]) -> f64 {
    ends(chains).map_or(f64::NAN, |ends| geweke_of(&ends))
}

fn geweke_of([a, b]: &[Segment; 2]) -> f64 {
    in_errors(a.mean - b.mean, a.variance * a.tau / a.count + b.variance * b.tau / b.count)
}

/// Geweke's difference over the error that the *last half* alone lets expect of it,
/// √(s²τ(1/n_a + 1/n_b)) with its variance s² and autocorrelation time τ, n_a and n_b the draws of the
/// first tenth and of the last half. Equal to [`geweke`] in expectation where the chains are stationary.
/// A transient inflates variance and τ of the first tenth, and so hides from [`geweke`]; not from this.
pub fn drift_from_end(chains: &[&[f64]]) -> f64 {
    ends(chains).map_or(f64::NAN, |ends| drift_of(&ends))
}

fn drift_of([a, b]: &[Segment; 2]) -> f64 {
    let error = if a.mean.is_nan() { f64::NAN } else { b.variance * b.tau * (1.0 / a.count + 1.0 / b.count) };
    in_errors(a.mean - b.mean, error)
}

/// One point of [`running_mean`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RunningPoint {
    /// Draws of each chain that it is over.
    pub draws: usize,
    /// Their mean.
    pub mean: f64,
    /// Its standard error sd/√(draws·chains/τ), sd that of these draws.
    pub mcse: f64,
}

/// The mean over the first k draws of all chains, at about `points` values of k, evenly spaced, the last
/// of them all draws. `tau` is draws over effective draws of the whole trace, which for every k the
/// error is taken from: the τ of a short prefix is not known to any use.
pub fn running_mean(chains: &[&[f64]], tau: f64, points: usize) -> Vec<RunningPoint> {
    let draws = chains.iter().map(|c| c.len()).min().unwrap_or(0);
    let Some(origin) = chains.first().and_then(|c| c.first()).copied() else { return Vec::new() };
    let points = points.clamp(1, draws.max(1));
    let mut out = Vec::with_capacity(points);
    // Sums of x − origin, so that an offset takes no digits from the variance.
    let (mut total, mut squares, mut done) = (0.0, 0.0, 0);
    for point in 1..=points {
        let k = (point as u128 * draws as u128 / points as u128) as usize;
        for chain in chains {
            for x in &chain[done..k] {
                total += x - origin;
                squares += (x - origin) * (x - origin);
            }
        }
        done = k;
        let count = (k * chains.len()) as f64;
        let variance = (squares - total * total / count).max(0.0) / (count - 1.0);
        out.push(RunningPoint {
            draws: k,
            mean: origin + total / count,
            mcse: (variance * tau / count).sqrt(),
        });
    }
    out
}

/// Draws in a batch of [`mser5`].
const BATCH: usize = 5;

/// Where MSER-5 cuts a trace (White, Simulation 69:323, 1997; White, Cobb & Spratt, Winter Simulation
/// Conference 2000): with Z the means of batches of five draws, averaged over the chains, the number
/// of draws d before the batch that minimises Σ_{j ≥ d}(Z_j − Z̄_d)² / (m − d)², the squared
/// half-width of an interval for the mean of what is left, over cuts up to the half.
///
/// `None` below ten batches, for chains of unequal length, and for what is not finite. Of a stationary
/// trace it cuts little, but not nothing.
pub fn mser5(chains: &[&[f64]]) -> Option<usize> {
    const LEAST: usize = 10;
    let draws = chains.first()?.len();
    let batches = draws / BATCH;
    if batches < LEAST || chains.iter().any(|c| c.len() != draws) {
        return None;
    }
    let weight = 1.0 / (BATCH * chains.len()) as f64;
    let mut z = vec![0.0; batches];
    for chain in chains {
        for (z, batch) in z.iter_mut().zip(chain.chunks_exact(BATCH)) {
            *z += batch.iter().sum::<f64>() * weight;
        }
    }
    let centre = mean(&z);
    if !centre.is_finite() {
        return None;
    }
    let (mut best, mut least) = (0, f64::INFINITY);
    let (mut total, mut squares) = (0.0, 0.0);
    for (cut, value) in z.iter().enumerate().rev() {
        let x = value - centre;
        total += x;
        squares += x * x;
        let left = (batches - cut) as f64;
        let width = (squares - total * total / left).max(0.0) / (left * left);
        // The smallest cut of equal ones.
        if cut <= batches / 2 && width <= least {
            (best, least) = (cut, width);
        }
    }
    Some(best * BATCH)
}

/// What a trace says of the warmup before it.
#[derive(Clone, Debug, PartialEq)]
pub struct BurnIn {
    /// Draws that [`mser5`] cuts.
    pub mser5: Option<usize>,
    /// [`drift_from_end`] of all draws.
    pub z: f64,
    /// Draws at the start of each chain that should have been warmup too: 0 where |z| of all draws is
    /// at most [`DRIFT_LIMIT`]; else the smallest cut, of at least `mser5`, after which it is. `None`
    /// where no cut up to the half does it (the chains still drift), or too little is known.
    pub needed: Option<usize>,
    /// (cut, z after it) for the cuts that were tried.
    pub tried: Vec<(usize, f64)>,
}

/// Tells how many draws at the start of the chains still belong to warmup; see [`BurnIn`].
///
/// MSER-5 places the cut well but makes some cut of most traces; [`drift_from_end`] tells whether one is
/// called for. Cuts that are tried: what MSER-5 says and 1, 2, 3, 5, 7, 10, 15, 20, 25, 30, 40, 50 % of the draws.
pub fn burn_in(chains: &[&[f64]]) -> BurnIn {
    burn_in_after(chains, drift_from_end(chains))
}

/// [`geweke`] and [`burn_in`] together, for half the work.
pub fn geweke_and_burn_in(chains: &[&[f64]]) -> (f64, BurnIn) {
    let (geweke, drift) =
        ends(chains).map_or((f64::NAN, f64::NAN), |ends| (geweke_of(&ends), drift_of(&ends)));
    (geweke, burn_in_after(chains, drift))
}

/// [`burn_in`] where `z`, the [`drift_from_end`] of all draws, is known.
fn burn_in_after(chains: &[&[f64]], z: f64) -> BurnIn {
    const PERCENT: [usize; 12] = [1, 2, 3, 5, 7, 10, 15, 20, 25, 30, 40, 50];
    let draws = chains.iter().map(|c| c.len()).min().unwrap_or(0);
    let mser5 = mser5(chains);
    let mut tried = vec![(0, z)];
    let mut needed = (z.abs() <= DRIFT_LIMIT).then_some(0);
    if let (None, Some(first)) = (needed, mser5) {
        let mut cuts: Vec<usize> =
            PERCENT.iter().map(|p| p * draws / 100).filter(|cut| *cut > first).collect();
        cuts.insert(0, first);
        for cut in cuts.into_iter().filter(|cut| *cut > 0) {
            let rest: Vec<&[f64]> = chains.iter().map(|c| &c[cut..]).collect();
            let z = drift_from_end(&rest);
            tried.push((cut, z));
            if z.abs() <= DRIFT_LIMIT {
                needed = Some(cut);
                break;
            }
        }
    }
    BurnIn { mser5, z, needed, tried }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::rng::{Key, Purpose, fill_normal};

    /// Stationary autoregressions with `height`·exp(−i/`decay`) added.
    fn decaying(seed: u8, chains: u32, draws: usize, phi: f64, height: f64, decay: f64) -> Vec<Vec<f64>> {
        let one = |c| {
            let mut x = vec![0.0f64; draws];
            fill_normal(&mut Key::new([seed; 32], Purpose::Probe, c).at(0), &mut x);
            x[0] /= (1.0 - phi * phi).sqrt();
            for i in 1..draws {
                x[i] += phi * x[i - 1];
            }
            x.iter().enumerate().map(|(i, v)| v + height * (-(i as f64) / decay).exp()).collect()
        };
        (0..chains).map(one).collect()
    }

    fn rows(chains: &[Vec<f64>]) -> Vec<&[f64]> {
        chains.iter().map(Vec::as_slice).collect()
    }

    #[test]
    fn stationary_chains_drift_no_more_than_a_normal_variate() {
        for drift in [geweke, drift_from_end] {
            let z: Vec<f64> =
                (0..200).map(|seed| drift(&rows(&decaying(seed, 4, 2000, 0.5, 0.0, 1.0)))).collect();
            // Mean square of 200 normals: 1 ± 0.1; estimated variances of short segments make it larger, by
            // the variance of ESS over 4 × 200 draws, about 4 (2W + 1)/800 with a window W below 20.
            let square = z.iter().map(|z| z * z).sum::<f64>() / 200.0;
            assert!((square - 1.0).abs() < 4.0 * 0.1 + 0.2, "{square}");
            // Beyond 3: 0.0027 by chance, and so 0.5 expected of 200.
            assert!(z.iter().filter(|z| z.abs() > DRIFT_LIMIT).count() <= 4, "{z:?}");
            let mean = z.iter().sum::<f64>() / 200.0;
            assert!(mean.abs() < 4.0 / 200f64.sqrt(), "{mean}");
        }
    }

    #[test]
    fn the_warmup_that_a_known_transient_needs_is_found() {
        for (seed, draws, phi, height, decay) in
            [(1, 4000, 0.0, 10.0, 100.0), (2, 4000, 0.8, 30.0, 50.0), (3, 20_000, 0.5, 5.0, 1000.0)]
        {
            let trace = decaying(seed, 4, draws, phi, height, decay);
            let found = burn_in(&rows(&trace));
            assert!(found.z > DRIFT_LIMIT, "{found:?}");
            let needed = found.needed.expect("there is a cut") as f64;
            // Before the first decay time is over the transient is at height/e, many sd; where it is a
            // hundredth of the draws' sd, cutting more gains nothing: MSER and the grid of cuts, which
            // is coarse by a factor 1.5, may go that far.
            let sd = 1.0 / (1.0 - phi * phi).sqrt();
            let gone = decay * (height / (0.01 * sd)).ln();
            assert!(needed > decay && needed < 1.5 * gone, "{needed} outside {decay} to {gone}: {found:?}");
            let rest: Vec<&[f64]> = trace.iter().map(|c| &c[needed as usize..]).collect();
            assert!(drift_from_end(&rest).abs() <= DRIFT_LIMIT);
        }
    }

    #[test]
    fn stationary_traces_need_no_more_and_endless_drift_has_no_remedy() {
        let none = burn_in(&rows(&decaying(4, 4, 3000, 0.7, 0.0, 1.0)));
        assert_eq!(none.needed, Some(0), "{none:?}");
        let mut trace = decaying(5, 4, 3000, 0.0, 0.0, 1.0);
        trace.iter_mut().for_each(|c| c.iter_mut().enumerate().for_each(|(i, x)| *x += 0.01 * i as f64));
        let endless = burn_in(&rows(&trace));
        assert_eq!(endless.needed, None, "{endless:?}");
        assert!(endless.tried.len() > 1 && endless.tried.iter().all(|(_, z)| z.abs() > DRIFT_LIMIT));
    }

    #[test]
    fn mser_minimises_what_it_says() {
        let trace = decaying(6, 3, 403, 0.3, 4.0, 30.0);
        let m = 403 / 5;
        let z: Vec<f64> = (0..m)
            .map(|j| trace.iter().map(|c| c[5 * j..5 * j + 5].iter().sum::<f64>()).sum::<f64>() / 15.0)
            .collect();
        let width = |d: usize| {
            let rest = &z[d..];
            let centre = rest.iter().sum::<f64>() / rest.len() as f64;
            rest.iter().map(|x| (x - centre).powi(2)).sum::<f64>() / (rest.len() as f64).powi(2)
        };
        let best = (0..=m / 2).min_by(|a, b| width(*a).total_cmp(&width(*b))).unwrap();
        assert_eq!(mser5(&rows(&trace)), Some(5 * best));
        assert_eq!(mser5(&[&[0.0; 49]]), None);
        assert_eq!(mser5(&[&[f64::NAN; 100]]), None);
        assert_eq!(mser5(&[&[1.0; 100]]), Some(0));
    }

    #[test]
    fn running_means_are_means_of_prefixes() {
        let trace = decaying(7, 2, 999, 0.0, 0.0, 1.0);
        let trace: Vec<Vec<f64>> = trace.iter().map(|c| c.iter().map(|x| x + 1e6).collect()).collect();
        let points = running_mean(&rows(&trace), 2.0, 200);
        assert_eq!((points.len(), points[199].draws), (200, 999));
        for point in points.iter().skip(1) {
            let prefix: Vec<f64> = trace.iter().flat_map(|c| &c[..point.draws]).copied().collect();
            assert!((point.mean - mean(&prefix)).abs() < 1e-9);
            let mcse = super::super::sd(&prefix) * (2.0 / prefix.len() as f64).sqrt();
            assert!((point.mcse / mcse - 1.0).abs() < 1e-9, "{point:?} against {mcse}");
        }
        assert_eq!(running_mean(&rows(&trace), 2.0, 5000).len(), 999);
        assert!(running_mean(&[], 1.0, 10).is_empty() && running_mean(&[&[]], 1.0, 10).is_empty());
    }

    #[test]
    fn drift_of_little_is_undefined() {
        for drift in [geweke, drift_from_end] {
            assert!(drift(&[]).is_nan() && drift(&[&[0.5; 39]]).is_nan());
            assert_eq!(drift(&[&[0.1; 40]]), 0.0);
        }
        let mut late = vec![1.0; 100];
        late[..50].fill(0.0);
        assert_eq!(geweke(&[&late]), f64::NEG_INFINITY);
        late[99] = f64::NAN;
        assert!(geweke(&[&late]).is_nan());
        assert_eq!(burn_in(&[&late]).needed, None);
    }
}
