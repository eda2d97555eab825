//! Whether a search space holds any settings at all that its method takes.

use std::collections::BTreeMap;

use super::{Dimension, Domain, Scalar, order};

/// Most settings that are tried.
const MOST: usize = 1 << 14;

/// Tries the ends, the middle (not where that makes too many), the choices, and the values that conditions name, of all
/// parameters together. What the first was refused for, where all are; `None` where some are taken, and where there are
/// too many to tell.
pub(super) fn refused_throughout<E>(
    dimensions: &[Dimension],
    takes: impl Fn(&BTreeMap<String, Scalar>) -> Result<(), E>,
) -> Option<E> {
    let order = order(dimensions).ok()?;
    let values = |with_middles| -> Vec<Vec<Scalar>> {
        order.iter().map(|&i| values(&dimensions[i], dimensions, with_middles)).collect()
    };
    let count = |values: &[Vec<Scalar>]| {
        let product = values.iter().try_fold(1_usize, |product, v| product.checked_mul(v.len()));
        product.filter(|count| *count <= MOST)
    };
    let (all, ends) = (values(true), values(false));
    let (count, values) = count(&all).map(|n| (n, &all)).or_else(|| Some((count(&ends)?, &ends)))?;
    let mut first = None;
    for mut place in 0..count {
        let mut params = BTreeMap::new();
        for (&i, values) in order.iter().zip(values) {
            let value = values[place % values.len()].clone();
            place /= values.len();
            let dimension = &dimensions[i];
            let counts = dimension.when.iter().all(|condition| {
                let parent = params.get(&condition.parent);
                parent.is_some_and(|parent: &Scalar| condition.values.iter().any(|v| v.is(parent)))
            });
            if counts {
                params.insert(dimension.name.clone(), value);
            }
        }
        match takes(&params) {
            Ok(()) => return None,
            Err(why) => first = first.or(Some(why)),
        }
    }
    first
}

fn values(dimension: &Dimension, all: &[Dimension], with_middle: bool) -> Vec<Scalar> {
    let mut found = match dimension.domain {
        Domain::Float { low, high, log, .. } => {
            let middle = if log { libm::sqrt(low) * libm::sqrt(high) } else { low + (high - low) / 2.0 };
            [low, middle.clamp(low, high), high].map(Scalar::Float).to_vec()
        }
        Domain::Int { low, high, step, .. } => {
            let steps = (high - low) / step;
            [low, low + steps / 2 * step, low + steps * step].map(Scalar::Int).to_vec()
        }
        Domain::Categorical { ref choices } => return choices.clone(),
    };
    if !with_middle {
        found.remove(1);
    }
    let conditions = all.iter().flat_map(|d| &d.when).filter(|condition| condition.parent == dimension.name);
    for value in conditions.flat_map(|condition| &condition.values) {
        if !found.iter().any(|known| known.is(value)) {
            found.push(value.clone());
        }
    }
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::super::Condition;
    use super::*;

    fn int(name: &str, low: i64, high: i64) -> Dimension {
        let domain = Domain::Int { low, high, log: false, step: 1 };
        Dimension { name: name.to_owned(), domain, when: Vec::new() }
    }

    #[test]
    fn a_space_is_refused_only_where_all_of_it_is() {
        let number = |params: &BTreeMap<String, Scalar>, name: &str| match params.get(name) {
            Some(Scalar::Int(i)) => Some(*i),
            _ => None,
        };
        let ordered = |params: &BTreeMap<String, Scalar>| match (number(params, "a"), number(params, "b")) {
            (Some(a), Some(b)) if a < b => Ok(()),
            (a, b) => Err(format!("{a:?} {b:?}")),
        };
        assert_eq!(refused_throughout(&[int("a", 5, 9), int("b", 1, 6)], ordered), None);
        let why = refused_throughout(&[int("a", 6, 9), int("b", 1, 6)], ordered);
        assert_eq!(why.as_deref(), Some("Some(6) Some(1)"));
        // What does not count is not set.
        let mut child = int("b", 1, 6);
        child.when.push(Condition { parent: "a".to_owned(), values: vec![Scalar::Int(9)] });
        assert_eq!(
            refused_throughout(&[child.clone(), int("a", 6, 9)], ordered).as_deref(),
            Some("Some(6) None")
        );
        child.domain = Domain::Int { low: 1, high: 10, log: false, step: 1 };
        assert_eq!(refused_throughout(&[child, int("a", 6, 9)], ordered), None);
        // A condition may name what is neither end nor middle.
        let mut child = int("b", 8, 9);
        child.when.push(Condition { parent: "a".to_owned(), values: vec![Scalar::Int(7)] });
        assert_eq!(refused_throughout(&[int("a", 1, 9), child], ordered), None);
        // Too many to tell, and as many as can be told by their ends.
        let many: Vec<Dimension> = (0..9).map(|i| int(&format!("x{i}"), 0, 9)).collect();
        assert_eq!(refused_throughout(&many, |_| Err(())), Some(()));
        let more: Vec<Dimension> = (0..15).map(|i| int(&format!("x{i}"), 0, 9)).collect();
        assert_eq!(refused_throughout(&more, |_| Err(())), None);
    }
}
