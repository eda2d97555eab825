//! Which trials count as good.

use crate::tune::pareto;

use super::{End, Seen};

/// Share of ended trials that are good.
const SHARE: f64 = 0.1;
/// With one objective, at most so many are.
const MOST: usize = 25;

/// Indices of good and bad trials, each ascending.
///
/// Of n trials that were completed or pruned, n_good = ⌈0.1 n⌉ are good, with one objective at most 25: the
/// completed ones with the least value, then pruned ones that came farthest, by their last value. With two
/// objectives they are the best by [`pareto::best`]. All others are bad, failed ones among them, and with
/// `liar` those that have not ended.
pub(super) fn split(seen: &[Seen<'_>], liar: bool) -> (Vec<usize>, Vec<usize>) {
    let mut complete: Vec<(usize, &[f64])> = Vec::new();
    let mut pruned: Vec<(usize, Option<(u64, f64)>)> = Vec::new();
    for (i, trial) in seen.iter().enumerate() {
        match trial.end {
            End::Complete(values) => complete.push((i, values)),
            End::Pruned(last) => pruned.push((i, last)),
            End::Failed | End::Pending => {}
        }
    }
    let two = complete.first().is_some_and(|(_, values)| values.len() == 2);
    let share = libm::ceil(SHARE * (complete.len() + pruned.len()) as f64) as usize;
    let count = if two { share } else { share.min(MOST) };
    let mut good: Vec<usize> = Vec::with_capacity(count);
    if two {
        let points: Vec<[f64; 2]> = complete.iter().map(|(_, values)| [values[0], values[1]]).collect();
        good.extend(pareto::best(&points, count).into_iter().map(|k| complete[k].0));
    } else {
        if (1..complete.len()).contains(&count) {
            let better =
                |a: &(usize, &[f64]), b: &(usize, &[f64])| a.1[0].total_cmp(&b.1[0]).then(a.0.cmp(&b.0));
            complete.select_nth_unstable_by(count - 1, better);
        }
        good.extend(complete.iter().take(count).map(|(i, _)| *i));
    }
    pruned.sort_by(|a, b| {
        let key = |last: &Option<(u64, f64)>| last.map(|(step, value)| (std::cmp::Reverse(step), value));
        match (key(&a.1), key(&b.1)) {
            (Some(a), Some(b)) => a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)),
            (a, b) => b.is_some().cmp(&a.is_some()),
        }
        .then(a.0.cmp(&b.0))
    });
    good.extend(pruned.iter().take(count - good.len().min(count)).map(|(i, _)| *i));
    good.sort_unstable();
    let counts = |i: &usize| liar || seen[*i].end != End::Pending;
    let bad = (0..seen.len()).filter(|i| good.binary_search(i).is_err() && counts(i)).collect();
    (good, bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen<'a>(ends: &[End<'a>]) -> Vec<Seen<'a>> {
        ends.iter().map(|end| Seen { point: &[], end: *end }).collect()
    }

    #[test]
    fn the_best_tenth_is_good_and_at_most_25_are() {
        let values: Vec<[f64; 1]> = (0..400).map(|i| [f64::from((i * 37) % 400)]).collect();
        for (n, expected) in [(1, 1), (10, 1), (11, 2), (250, 25), (400, 25)] {
            let ends: Vec<End> = values[..n].iter().map(|v| End::Complete(v)).collect();
            let (good, bad) = split(&seen(&ends), true);
            assert_eq!((good.len(), bad.len()), (expected, n - expected));
            let worst = good.iter().map(|&i| values[i][0]).fold(0.0, f64::max);
            assert!(bad.iter().all(|&i| values[i][0] > worst));
        }
    }

    #[test]
    fn pruned_trials_follow_by_how_far_they_came_and_failed_ones_are_bad() {
        let (one, two) = ([1.0], [2.0]);
        let mut ends = vec![
            End::Failed,
            End::Pruned(None),
            End::Pruned(Some((3, 9.0))),
            End::Pruned(Some((5, 8.0))),
            End::Pruned(Some((5, 7.0))),
            End::Complete(&two),
            End::Pending,
            End::Complete(&one),
        ];
        // 16 pruned or complete: two good.
        ends.extend([End::Pruned(Some((1, 0.0))); 10]);
        assert_eq!(split(&seen(&ends), true).0, [5, 7]);
        assert!(split(&seen(&ends), true).1.contains(&6));
        assert!(!split(&seen(&ends), false).1.contains(&6));
        ends.extend([End::Pruned(Some((1, 0.0))); 20]);
        assert_eq!(split(&seen(&ends), true).0, [3, 4, 5, 7]);
        assert!(split(&seen(&ends), true).1.contains(&0));
    }

    #[test]
    fn two_objectives_split_by_fronts() {
        let values: Vec<[f64; 2]> = (0..30).map(|i| [f64::from(i), f64::from(i % 3)]).collect();
        let ends: Vec<End> = values.iter().map(|v| End::Complete(v)).collect();
        assert_eq!(split(&seen(&ends), true).0, [0, 1, 3]);
    }
}
