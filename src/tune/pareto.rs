//! Fronts of points with two values, both minimised.

/// Whether `a` is nowhere worse than `b` and somewhere better.
fn dominates(a: [f64; 2], b: [f64; 2]) -> bool {
    a[0] <= b[0] && a[1] <= b[1] && a != b
}

/// The rank of each point: 0 where no point dominates it, else one more than the largest rank of those
/// that do. O(n log n): in the order of both values a point belongs to the first front whose last point
/// does not dominate it, and the fronts' last points fall in the second value (Jensen 2003).
pub fn ranks(points: &[[f64; 2]]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(|&a, &b| {
        points[a][0].total_cmp(&points[b][0]).then(points[a][1].total_cmp(&points[b][1])).then(a.cmp(&b))
    });
    let mut ranks = vec![0; points.len()];
    let mut last: Vec<[f64; 2]> = Vec::new();
    for i in order {
        let front = last.partition_point(|&end| dominates(end, points[i]));
        match last.get_mut(front) {
            Some(end) => *end = points[i],
            None => last.push(points[i]),
        }
        ranks[i] = front;
    }
    ranks
}

/// The best `count` of the points: whole fronts by rank, and of the first front that does not fit the
/// points that together cover most area up to 1.1 times its worst values, chosen one after the other, each
/// for what it adds (at least 1 − 1/e of the most that is possible: Guerreiro, Fonseca & Paquete 2016).
/// Indices in ascending order.
pub fn best(points: &[[f64; 2]], count: usize) -> Vec<usize> {
    let ranks = ranks(points);
    let mut chosen: Vec<usize> = Vec::with_capacity(count);
    for rank in 0.. {
        let front: Vec<usize> = (0..points.len()).filter(|&i| ranks[i] == rank).collect();
        if front.is_empty() || chosen.len() >= count {
            break;
        }
        if chosen.len() + front.len() <= count {
            chosen.extend(front);
        } else {
            let values: Vec<[f64; 2]> = front.iter().map(|&i| points[i]).collect();
            chosen.extend(spread(&values, count - chosen.len()).into_iter().map(|i| front[i]));
        }
    }
    chosen.sort_unstable();
    chosen
}

/// `count` of the points of one front by the area they cover.
fn spread(front: &[[f64; 2]], count: usize) -> Vec<usize> {
    let corner = [0, 1].map(|k| {
        let worst = front.iter().map(|p| p[k]).fold(f64::NEG_INFINITY, f64::max);
        // Beyond the worst on either side of 0.
        let beyond = (1.1 * worst).max(0.9 * worst);
        if beyond == 0.0 { 1e-12 } else { beyond }
    });
    // Chosen points in the order of the first value; what a point adds is the rectangle between its
    // neighbours there.
    let mut chosen: Vec<usize> = Vec::with_capacity(count);
    let mut left: Vec<usize> = (0..front.len()).collect();
    while chosen.len() < count {
        let adds = |i: usize| {
            let p = front[i];
            let at = chosen.partition_point(|&j| front[j][0] < p[0]);
            let right = chosen.get(at).map_or(corner[0], |&j| front[j][0]);
            let above = at.checked_sub(1).map_or(corner[1], |before| front[chosen[before]][1]);
            (right - p[0]).max(0.0) * (above - p[1]).max(0.0)
        };
        let best = left.iter().enumerate().map(|(k, &i)| (adds(i), k)).fold(
            None,
            |best: Option<(f64, usize)>, next| match best {
                Some(best) if best.0 >= next.0 => Some(best),
                _ => Some(next),
            },
        );
        let Some((_, k)) = best else { break };
        let i = left.remove(k);
        let at = chosen.partition_point(|&j| front[j][0] < front[i][0]);
        chosen.insert(at, i);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn area(points: &[[f64; 2]], corner: [f64; 2]) -> f64 {
        let mut points = points.to_vec();
        points.sort_by(|a, b| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1])));
        let (mut sum, mut above) = (0.0, corner[1]);
        for p in points {
            if p[1] < above {
                sum += (corner[0] - p[0]) * (above - p[1]);
                above = p[1];
            }
        }
        sum
    }

    #[test]
    fn a_front_that_does_not_fit_is_spread_over() {
        // A straight front: its middle covers most, then what remains is widest at the ends.
        let front: Vec<[f64; 2]> = (0..=10).map(|i| [f64::from(i), f64::from(10 - i)]).collect();
        assert!([4, 5, 6].contains(&best(&front, 1)[0]), "{:?}", best(&front, 1));
        let three = best(&front, 3);
        assert!(three[0] <= 3 && three[2] >= 7, "{three:?}");
        assert_eq!(best(&front, 11), (0..11).collect::<Vec<_>>());
        assert!(best(&[], 3).is_empty());
        // Equal points dominate each other no more than themselves.
        assert_eq!(ranks(&[[1.0, 1.0], [1.0, 1.0], [1.0, 2.0], [2.0, 1.0], [0.0, 3.0]]), [0, 0, 1, 1, 0]);
    }

    proptest! {
        #[test]
        fn ranks_are_those_of_the_definition(
            points in proptest::collection::vec((0u8..12, 0u8..12), 0..40)
        ) {
            let points: Vec<[f64; 2]> = points.iter().map(|&(a, b)| [a.into(), b.into()]).collect();
            let found = ranks(&points);
            for (i, p) in points.iter().enumerate() {
                let above = (0..points.len()).filter(|&j| dominates(points[j], *p)).map(|j| found[j] + 1);
                prop_assert_eq!(found[i], above.max().unwrap_or(0));
            }
        }

        #[test]
        fn greedy_area_is_within_its_bound(
            points in proptest::collection::vec((0u8..30, 0u8..30), 3..9), count in 1usize..3
        ) {
            let points: Vec<[f64; 2]> = points.iter().map(|&(a, b)| [a.into(), b.into()]).collect();
            let ranks = ranks(&points);
            let front: Vec<[f64; 2]> =
                (0..points.len()).filter(|&i| ranks[i] == 0).map(|i| points[i]).collect();
            prop_assume!(front.len() > count);
            let corner = [0, 1].map(|k| {
                let worst = front.iter().map(|p| p[k]).fold(0.0, f64::max);
                if worst == 0.0 { 1e-12 } else { 1.1 * worst }
            });
            let of = |chosen: &[usize]| {
                area(&chosen.iter().map(|&i| front[i]).collect::<Vec<_>>(), corner)
            };
            let greedy = of(&spread(&front, count));
            let mut most: f64 = 0.0;
            for i in 0..front.len() {
                for j in 0..front.len() {
                    most = most.max(if count == 1 { of(&[i]) } else { of(&[i, j]) });
                }
            }
            prop_assert!(greedy >= (1.0 - (-1.0f64).exp()) * most, "{} of {}", greedy, most);
        }
    }
}
