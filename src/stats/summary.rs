//! All statistics of one quantity, together.

use super::convergence::{
    error_of_quantile, error_of_sd, ess_bulk, ess_mean, ess_quantile, ess_sd, mcse_mean, mcse_quantile,
    mcse_sd, r_hat,
};
use super::moments::{mean, quantile, sd, sorted_quantile};
use super::quick::{Halves, Sorted};
use super::table::Table;

/// From so many draws on the quick ways are taken.
pub(super) const MANY: usize = 1 << 20;

/// What is known of one quantity from its draws; NaN where undefined.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Mean over all draws of all chains.
    pub mean: f64,
    /// Their standard deviation.
    pub sd: f64,
    /// [`r_hat`](super::r_hat)
    pub r_hat: f64,
    /// [`ess_mean`](super::ess_mean)
    pub ess_mean: f64,
    /// [`ess_bulk`](super::ess_bulk)
    pub ess_bulk: f64,
    /// [`ess_tail`](super::ess_tail)
    pub ess_tail: f64,
    /// [`ess_sd`](super::ess_sd)
    pub ess_sd: f64,
    /// [`mcse_mean`](super::mcse_mean)
    pub mcse_mean: f64,
    /// [`mcse_sd`](super::mcse_sd)
    pub mcse_sd: f64,
    /// The quantiles asked for, in order.
    pub quantiles: Vec<QuantileSummary>,
}

/// One quantile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantileSummary {
    /// Which, in [0, 1].
    pub q: f64,
    /// [`quantile`](super::quantile)
    pub value: f64,
    /// [`ess_quantile`](super::ess_quantile)
    pub ess: f64,
    /// [`mcse_quantile`](super::mcse_quantile)
    pub mcse: f64,
}

/// Summaries of several quantities of one trace, on at most `threads` threads (which move no bit).
///
/// Below about a million draws every number has the bits of the function it is named after. Above,
/// sums are taken in another order, one sort serves all quantities that rise with each other (llc
/// and L), and the numbers agree to rounding.
pub fn summarise(quantities: &[Vec<&[f64]>], quantiles: &[f64], threads: usize) -> Vec<Summary> {
    let mut like = None;
    let mut out = Vec::new();
    for chains in quantities {
        let draws: usize = chains.iter().map(|c| c.len()).sum();
        if draws < MANY || Table::gather_check(chains, 1).is_none() || u32::try_from(draws).is_err() {
            out.push(of_few(chains, quantiles));
            continue;
        }
        let sorted = Sorted::new(chains, like.as_ref());
        out.push(of_many(chains, quantiles, &sorted, threads));
        like = Some(sorted);
    }
    out
}

fn of_few(chains: &[&[f64]], quantiles: &[f64]) -> Summary {
    let all = chains.concat();
    let of = |&q: &f64| QuantileSummary {
        q,
        value: quantile(&all, q),
        ess: ess_quantile(chains, q),
        mcse: mcse_quantile(chains, q),
    };
    Summary {
        mean: mean(&all),
        sd: sd(&all),
        r_hat: r_hat(chains),
        ess_mean: ess_mean(chains),
        ess_bulk: ess_bulk(chains),
        ess_tail: super::ess_tail(chains),
        ess_sd: ess_sd(chains),
        mcse_mean: mcse_mean(chains),
        mcse_sd: mcse_sd(chains),
        quantiles: quantiles.iter().map(of).collect(),
    }
}

fn of_many(chains: &[&[f64]], quantiles: &[f64], sorted: &Sorted, threads: usize) -> Summary {
    let halves = Halves::new(chains);
    let all = chains.concat();
    let (centre, spread) = (mean(&all), sd(&all));
    drop(all);
    let square = |x: f64| (x - centre) * (x - centre);
    let below = |q: f64| {
        let threshold = sorted_quantile(&sorted.values, q);
        halves.size_of(|x| f64::from(x <= threshold))
    };
    let ranked = || {
        let (bulk, folded) = sorted.scores(&halves);
        let (size, plain) = (halves.size_of_values(&bulk), halves.reduction_of(&bulk));
        drop(bulk);
        let folded = halves.reduction_of(&folded());
        vec![size, if folded > plain || plain.is_nan() { folded } else { plain }]
    };
    let of_sd = || {
        let squares: Vec<f64> = chains.iter().flat_map(|c| c.iter()).map(|&x| square(x)).collect();
        let size = halves.size_of(square);
        vec![size, error_of_sd(&squares, size)]
    };
    // The tails need two quantiles, asked for or not.
    let mut needed = vec![0.05, 0.95];
    needed.extend(quantiles.iter().filter(|q| ![0.05, 0.95].contains(*q)));
    let mut tasks: Vec<Task<'_>> = vec![Box::new(ranked), Box::new(of_sd)];
    tasks.push(Box::new(|| vec![halves.size_of(|x| x)]));
    let below = &below;
    tasks.extend(needed.iter().map(|&q| -> Task<'_> { Box::new(move || vec![below(q)]) }));
    let answers = in_parallel(tasks, threads);
    let (ess_mean, sizes) = (answers[2][0], &answers[3..]);
    let size_below = |q: f64| needed.iter().position(|n| *n == q).map_or(f64::NAN, |i| sizes[i][0]);
    let (low, high) = (sizes[0][0], sizes[1][0]);
    let of = |&q: &f64| QuantileSummary {
        q,
        value: sorted_quantile(&sorted.values, q),
        ess: size_below(q),
        mcse: error_of_quantile(&sorted.values, q, size_below(q)),
    };
    Summary {
        mean: centre,
        sd: spread,
        r_hat: if chains.len() < 2 { f64::NAN } else { answers[0][1] },
        ess_mean,
        ess_bulk: answers[0][0],
        ess_tail: if high < low { high } else { low },
        ess_sd: answers[1][0],
        mcse_mean: spread / ess_mean.sqrt(),
        mcse_sd: answers[1][1],
        quantiles: quantiles.iter().map(of).collect(),
    }
}

type Task<'a> = Box<dyn FnOnce() -> Vec<f64> + Send + 'a>;

/// The answers of `tasks` in their order, worked out on at most `threads` threads.
pub(crate) fn in_parallel<'a, T: Send>(
    tasks: Vec<Box<dyn FnOnce() -> T + Send + 'a>>,
    threads: usize,
) -> Vec<T> {
    use std::sync::Mutex;
    let count = tasks.len();
    let queue = Mutex::new(tasks.into_iter().enumerate());
    let answers = Mutex::new(Vec::with_capacity(count));
    // A panic of a task goes on to the caller when the scope ends.
    let next = || queue.lock().ok().and_then(|mut queue| queue.next());
    let work = || {
        while let Some((index, task)) = next() {
            let answer = task();
            if let Ok(mut answers) = answers.lock() {
                answers.push((index, answer));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(count) {
            // Where no thread can be had, the others do its work.
            let _ = std::thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    let mut answers = answers.into_inner().unwrap_or_default();
    answers.sort_by_key(|(index, _)| *index);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::num::rng::{Key, Purpose, fill_normal};

    /// Autoregressions with a spread of levels.
    fn trace(chains: u32, draws: usize, phi: f64) -> Vec<Vec<f64>> {
        let one = |c| {
            let mut x = vec![0.0f64; draws];
            fill_normal(&mut Key::new([9; 32], Purpose::Probe, c).at(0), &mut x);
            for i in 1..draws {
                x[i] += phi * x[i - 1];
            }
            // Rounded: ties at every turn.
            x.iter().map(|v| (v * 1e4).round() / 1e4 + 1e-3 * f64::from(c)).collect()
        };
        (0..chains).map(one).collect()
    }

    #[test]
    fn the_quick_ways_agree_with_the_plain_ones() {
        let quantiles = [0.05, 0.25, 0.5, 0.95];
        for (chains, draws, phi) in [(3, 5001, 0.5), (2, 4000, 0.999), (1, 3001, -0.7), (4, 2000, 0.0)] {
            let x = trace(chains, draws, phi);
            let y: Vec<Vec<f64>> = x.iter().map(|c| c.iter().map(|v| 25.0 * (v - 0.5)).collect()).collect();
            let mut like = None;
            for quantity in [&x, &y] {
                let rows: Vec<&[f64]> = quantity.iter().map(Vec::as_slice).collect();
                let sorted = Sorted::new(&rows, like.as_ref());
                let quick = of_many(&rows, &quantiles, &sorted, 3);
                let plain = of_few(&rows, &quantiles);
                let numbers = |s: &Summary| {
                    let mut all = vec![s.mean, s.sd, s.r_hat, s.ess_mean, s.ess_bulk, s.ess_tail];
                    all.extend([s.ess_sd, s.mcse_mean, s.mcse_sd]);
                    all.extend(s.quantiles.iter().flat_map(|q| [q.q, q.value, q.ess, q.mcse]));
                    all
                };
                for (i, (a, b)) in numbers(&quick).iter().zip(numbers(&plain)).enumerate() {
                    let same = (a - b).abs() <= 1e-9 * b.abs() || a.is_nan() && b.is_nan();
                    assert!(same, "{chains} × {draws}, φ = {phi}, number {i}: {a:e} against {b:e}");
                }
                like = Some(sorted);
            }
        }
    }

    #[test]
    fn tasks_answer_in_order_on_any_number_of_threads() {
        for threads in [0, 1, 2, 50] {
            let tasks =
                (0..9).map(|i| -> Box<dyn FnOnce() -> i32 + Send> { Box::new(move || i * i) }).collect();
            assert_eq!(in_parallel(tasks, threads), [0, 1, 4, 9, 16, 25, 36, 49, 64]);
        }
    }
}
