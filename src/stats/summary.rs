//! All statistics of one quantity, together.

use super::convergence::{
    error_of_quantile, ess_bulk, ess_mean, ess_quantile, ess_sd, mcse_mean, mcse_quantile, mcse_sd, r_hat,
};
use super::moments::{mean, quantile, sd, sorted_quantile};
use super::quick::{Folded, Halves, Sorted, in_order, pooled};
use super::table::Table;

/// From so many draws on the quick ways are taken.
const MANY: usize = 1 << 20;

/// What is known of one quantity from its draws; NaN where undefined.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Mean over all draws of all chains.
    pub mean: f64,
    /// Their standard deviation.
    pub sd: f64,
    /// [`r_hat`]
    pub r_hat: f64,
    /// [`ess_mean`]
    pub ess_mean: f64,
    /// [`ess_bulk`]
    pub ess_bulk: f64,
    /// [`ess_tail`](super::ess_tail)
    pub ess_tail: f64,
    /// [`ess_sd`]
    pub ess_sd: f64,
    /// [`mcse_mean`]
    pub mcse_mean: f64,
    /// [`mcse_sd`]
    pub mcse_sd: f64,
    /// The quantiles asked for, in order.
    pub quantiles: Vec<QuantileSummary>,
}

/// One quantile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantileSummary {
    /// Which, in [0, 1].
    pub q: f64,
    /// [`quantile`]
    pub value: f64,
    /// [`ess_quantile`]
    pub ess: f64,
    /// [`mcse_quantile`]
    pub mcse: f64,
}

/// Summaries of several quantities of one trace, on at most `threads` threads (which move no bit).
///
/// Below about a million draws every number has the bits of the function it is named after. Above,
/// sums are taken in another order, what depends on ranks is worked out once for quantities that rise
/// with each other (llc and L), and the numbers agree to rounding.
pub fn summarise(quantities: &[Vec<&[f64]>], quantiles: &[f64], threads: usize) -> Vec<Summary> {
    summarise_ordered(quantities, quantiles, threads, None)
}

/// [`summarise`] where the order of the first quantity's draws is known, or may be.
pub(crate) fn summarise_ordered(
    quantities: &[Vec<&[f64]>],
    quantiles: &[f64],
    threads: usize,
    first: Option<Order>,
) -> Vec<Summary> {
    let mut order = first;
    let mut before: Option<Ranked> = None;
    let mut out = Vec::new();
    for (k, chains) in quantities.iter().enumerate() {
        if !are_many(chains) {
            order = None;
            out.push(of_few(chains, quantiles));
            continue;
        }
        let known = order.take().unwrap_or_else(|| Order { sorted: Sorted::new(chains), bulk: None });
        let next = quantities.get(k + 1).filter(|next| are_many(next)).map(Vec::as_slice);
        let (summary, ranked, values) = of_many(chains, known, quantiles, before.take(), next, threads);
        let sorted = values.and_then(|values| Sorted::like(&ranked.sorted, values));
        order = sorted.map(|sorted| Order { sorted, bulk: None });
        out.push(summary);
        before = Some(ranked);
    }
    out
}

/// The draws of a quantity in ascending order, and what follows at once, found while there is nothing else to do
/// yet.
pub(crate) struct Order {
    sorted: Sorted,
    bulk: Option<Bulk>,
}

/// The scores of draws, summed up.
#[derive(Clone, Copy)]
struct Bulk {
    ess: f64,
    /// √(V̂/W)
    reduction: f64,
}

impl Bulk {
    fn of(sorted: &Sorted, halves: &Halves<'_>) -> Self {
        let scores = sorted.scores(halves);
        Self { ess: halves.size_of_values(&scores), reduction: halves.reduction_of(&scores) }
    }
}

impl Order {
    /// `None` where a summary needs none.
    pub(crate) fn of(chains: &[&[f64]]) -> Option<Self> {
        are_many(chains).then(|| Self::found(chains))
    }

    fn found(chains: &[&[f64]]) -> Self {
        let sorted = Sorted::new(chains);
        Self { bulk: Some(Bulk::of(&sorted, &Halves::new(chains))), sorted }
    }
}

/// Whether the quick ways are taken.
fn are_many(chains: &[&[f64]]) -> bool {
    let draws: usize = chains.iter().map(|c| c.len()).sum();
    draws >= MANY && u32::try_from(draws).is_ok() && Table::gather_check(chains, 1).is_some()
}

/// What depends on the ranks of draws alone.
struct Ranked {
    sorted: Sorted,
    bulk: Bulk,
    folded: Folded,
    below: Vec<Below>,
}

/// The share of draws at or below a quantile.
#[derive(Clone, Copy)]
struct Below {
    q: f64,
    count: usize,
    ess: f64,
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

/// With it comes what serves the quantity that is summarised after this one: the values of `next` in the order of
/// these.
fn of_many(
    chains: &[&[f64]],
    Order { sorted, bulk: known }: Order,
    quantiles: &[f64],
    before: Option<Ranked>,
    next: Option<&[&[f64]]>,
    threads: usize,
) -> (Summary, Ranked, Option<Vec<f64>>) {
    let halves = Halves::new(chains);
    let (before, like) = match before.filter(|b| sorted.ranks_like(&b.sorted)) {
        Some(Ranked { bulk, folded, below, .. }) => (Some((bulk, below)), Some(folded)),
        None => (None, None),
    };
    let before = before.as_ref();
    let count = sorted.values.len() as f64;
    let (centre, squares) = pooled(chains, |x| x * x);
    let spread = (squares / (count - 1.0)).sqrt();
    // The tails need two quantiles, asked for or not.
    let mut needed = vec![0.05, 0.95];
    needed.extend(quantiles.iter().filter(|q| ![0.05, 0.95].contains(*q)));

    let of_sd = || {
        let (_, fourth) = pooled(chains, |x| x * x * x * x);
        let ess = halves.size_of(|x| (x - centre) * (x - centre));
        let variance = squares / count;
        vec![ess, ((fourth / count - variance * variance) / ess / variance / 4.0).sqrt()]
    };
    let bulk = || {
        let bulk = before.map(|(bulk, _)| *bulk).or(known).unwrap_or_else(|| Bulk::of(&sorted, &halves));
        vec![bulk.ess, bulk.reduction]
    };
    let mut folds = None;
    let folded = || {
        folds = Some(sorted.folded(&halves, like));
        Vec::new()
    };
    let below = |q: f64| {
        let threshold = sorted_quantile(&sorted.values, q);
        let count = sorted.values.partition_point(|x| *x <= threshold);
        let known = before.and_then(|(_, below)| below.iter().find(|b| b.q == q && b.count == count));
        let ess = known.map_or_else(|| halves.size_of(|x| f64::from(x <= threshold)), |b| b.ess);
        vec![count as f64, ess]
    };
    let mut tasks: Vec<Task<'_>> = vec![Box::new(bulk), Box::new(folded), Box::new(of_sd)];
    tasks.push(Box::new(|| vec![halves.size_of(|x| x)]));
    let same_shape = |next: &[&[f64]]| next.len() == chains.len() && next[0].len() == chains[0].len();
    let next = next.filter(|next| same_shape(next));
    tasks.push(Box::new(|| next.map(|next| in_order(next, &sorted.order)).unwrap_or_default()));
    let each = &below;
    tasks.extend(needed.iter().map(|&q| -> Task<'_> { Box::new(move || each(q)) }));
    let mut answers = in_parallel(tasks, threads);
    let values = next.map(|_| std::mem::take(&mut answers[4]));
    let (ess_mean, ess_sd) = (answers[3][0], answers[2][0]);
    let below: Vec<Below> = needed
        .iter()
        .zip(&answers[5..])
        .map(|(&q, a)| Below { q, count: a[0] as usize, ess: a[1] })
        .collect();
    let of = |&q: &f64| {
        let ess = below.iter().find(|b| b.q == q).map_or(f64::NAN, |b| b.ess);
        let (value, mcse) = (sorted_quantile(&sorted.values, q), error_of_quantile(&sorted.values, q, ess));
        QuantileSummary { q, value, ess, mcse }
    };
    let (low, high) = (below[0].ess, below[1].ess);
    let bulk = Bulk { ess: answers[0][0], reduction: answers[0][1] };
    // Its task has run.
    let folds = folds.unwrap_or_else(|| sorted.folded(&halves, None));
    let folded = folds.reduction;
    let summary = Summary {
        mean: centre,
        sd: spread,
        r_hat: match chains.len() {
            1 => f64::NAN,
            _ if folded > bulk.reduction => folded,
            _ => bulk.reduction,
        },
        ess_mean,
        ess_bulk: bulk.ess,
        ess_tail: if high < low { high } else { low },
        ess_sd,
        mcse_mean: spread / ess_mean.sqrt(),
        mcse_sd: answers[2][1],
        quantiles: quantiles.iter().map(of).collect(),
    };
    (summary, Ranked { sorted, bulk, folded: folds, below }, values)
}

type Task<'a> = Turn<'a, Vec<f64>>;

/// A task of [`in_parallel`].
pub(crate) type Turn<'a, T> = Box<dyn FnOnce() -> T + Send + 'a>;

/// The answers of `tasks` in their order, worked out on at most `threads` threads, begun in order.
pub(crate) fn in_parallel<T: Send>(tasks: Vec<Turn<'_, T>>, threads: usize) -> Vec<T> {
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
    fn trace(chains: u32, draws: usize, phi: f64, grain: f64) -> Vec<Vec<f64>> {
        let one = |c| {
            let mut x = vec![0.0f64; draws];
            fill_normal(&mut Key::new([9; 32], Purpose::Probe, c).at(0), &mut x);
            for i in 1..draws {
                x[i] += phi * x[i - 1];
            }
            // Of a coarse grain: ties at every turn.
            x.iter().map(|v| (v / grain).round() * grain + 1e-3 * f64::from(c)).collect()
        };
        (0..chains).map(one).collect()
    }

    #[test]
    fn the_quick_ways_agree_with_the_plain_ones() {
        let quantiles = [0.05, 0.25, 0.5, 0.95];
        let shapes = [(3, 5001, 0.5), (2, 4000, 0.999), (1, 3001, -0.7), (4, 2000, 0.0)];
        for ((chains, draws, phi), grain) in shapes.iter().flat_map(|s| [(*s, 1e-4), (*s, 1e-12)]) {
            let x = trace(chains, draws, phi, grain);
            let y: Vec<Vec<f64>> = x.iter().map(|c| c.iter().map(|v| 25.0 * (v - 0.5)).collect()).collect();
            let (mut before, mut place) = (None, None);
            let mut sorted: Option<Sorted> = None;
            let next: Vec<&[f64]> = y.iter().map(Vec::as_slice).collect();
            for quantity in [&x, &y] {
                let rows: Vec<&[f64]> = quantity.iter().map(Vec::as_slice).collect();
                let known = sorted.take().map(|sorted| Order { sorted, bulk: None });
                let known = known.unwrap_or_else(|| Order::found(&rows));
                let (quick, ranked, values) =
                    of_many(&rows, known, &quantiles, before.take(), Some(&next), 3);
                sorted = values.and_then(|values| Sorted::like(&ranked.sorted, values));
                assert!(sorted.is_some(), "y rises with x");
                // y rises in a straight line, and its distances are rounded otherwise.
                assert!(
                    grain > 1e-6 || place.is_none_or(|place| ranked.folded.address() == place),
                    "{chains} × {draws}"
                );
                place = Some(ranked.folded.address());
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
                before = Some(ranked);
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
