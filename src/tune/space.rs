//! Search spaces: named parameters, some of which count only beside certain values of others.
//!
//! A point holds one number a parameter: the value itself, or the index of a choice; nothing where the
//! parameter does not count. Estimators work in *coordinates* t: the value, or its logarithm where the
//! domain says so. A value on a grid (whole numbers included) stands for the interval of half a step to
//! each side, so that the coordinates of a domain fill an interval without gaps.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use thiserror::Error;

use crate::config::tune::{Dimension, Domain, Scalar, order};
use crate::num::rng::uniform;

/// One number a parameter, in the order of [`Space::dimensions`]; `None` where it does not count.
pub type Point = Vec<Option<f64>>;

/// The parameters that count and their values.
pub type Params = BTreeMap<String, Scalar>;

/// What is wrong with a space or a point of one.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum SpaceError {
    /// A parameter that cannot be searched.
    #[error("parameter {name}: {key}: {why}")]
    Domain {
        /// The parameter.
        name: String,
        /// What of it.
        key: &'static str,
        /// Why, and what to do.
        why: String,
    },
    /// Two parameters of one name.
    #[error("parameter {0} stands there twice; remove one")]
    Twice(String),
    /// Values that are no point of the space.
    #[error("parameter {name}: {why}")]
    Value {
        /// The parameter.
        name: String,
        /// Why.
        why: String,
    },
}

/// A parameter as estimators see it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Axis {
    /// A number.
    Number {
        /// Smallest value.
        low: f64,
        /// Largest value; on the grid where there is one.
        high: f64,
        /// Coordinates are logarithms.
        log: bool,
        /// Distance of the values; 0 for a continuum.
        step: f64,
    },
    /// An index below this number.
    Choice(usize),
}

impl Axis {
    fn of(domain: &Domain) -> Self {
        let last = |low: f64, high: f64, step: f64| {
            // Rounding must not lose a last value that lies on the grid.
            low + libm::floor((high - low) / step * (1.0 + 1e-12)) * step
        };
        match domain {
            Domain::Float { low, high, log, step: None } => {
                Axis::Number { low: *low, high: *high, log: *log, step: 0.0 }
            }
            Domain::Float { low, high, log, step: Some(step) } => {
                Axis::Number { low: *low, high: last(*low, *high, *step).min(*high), log: *log, step: *step }
            }
            Domain::Int { low, high, log, step } => {
                let high = low + (high - low) / step * step;
                Axis::Number { low: *low as f64, high: high as f64, log: *log, step: *step as f64 }
            }
            Domain::Categorical { choices } => Axis::Choice(choices.len()),
        }
    }

    /// Number of values; `None` for a continuum.
    pub fn count(&self) -> Option<u64> {
        match *self {
            Axis::Choice(n) => Some(n as u64),
            Axis::Number { low, high, .. } if low == high => Some(1),
            Axis::Number { step: 0.0, .. } => None,
            Axis::Number { low, high, step, .. } => Some(libm::round((high - low) / step) as u64 + 1),
        }
    }

    /// The coordinate of a value.
    pub fn coordinate(&self, value: f64) -> f64 {
        match self {
            Axis::Number { log: true, .. } => libm::log(value),
            _ => value,
        }
    }

    /// The interval that all coordinates fill.
    pub fn edges(&self) -> (f64, f64) {
        match *self {
            Axis::Number { low, high, step, .. } => {
                (self.coordinate(low - step / 2.0), self.coordinate(high + step / 2.0))
            }
            Axis::Choice(n) => (0.0, n as f64),
        }
    }

    /// The interval of coordinates that `value` stands for; empty in a continuum.
    pub fn cell(&self, value: f64) -> (f64, f64) {
        match *self {
            Axis::Number { step, .. } => {
                (self.coordinate(value - step / 2.0), self.coordinate(value + step / 2.0))
            }
            Axis::Choice(_) => (value, value),
        }
    }

    /// The value nearest to a coordinate.
    pub fn value(&self, coordinate: f64) -> f64 {
        match *self {
            Axis::Number { low, high, log, step } => {
                let x = if log { libm::exp(coordinate) } else { coordinate };
                let x = if step > 0.0 { low + libm::round((x - low) / step) * step } else { x };
                x.clamp(low, high)
            }
            Axis::Choice(_) => coordinate,
        }
    }

    /// The value at a share `u` in [0, 1) of the domain: of the grid's values, the interval of coordinates, or
    /// the choices. Uniform `u` gives uniform values.
    pub fn at(&self, u: f64) -> f64 {
        let nth = |count: u64| libm::floor(u * count as f64).min(count as f64 - 1.0);
        match *self {
            Axis::Choice(n) => nth(n as u64),
            Axis::Number { low, step, log: false, .. } if step > 0.0 => {
                self.value(low + step * nth(self.count().unwrap_or(1)))
            }
            Axis::Number { .. } => {
                let (low, high) = self.edges();
                self.value(low + u * (high - low))
            }
        }
    }
}

/// Conditions of a parameter: parents, and the values that each must have.
type Conditions = Vec<(usize, Vec<f64>)>;

/// A search space.
#[derive(Clone, Debug, PartialEq)]
pub struct Space {
    dimensions: Vec<Dimension>,
    axes: Vec<Axis>,
    /// Of each parameter, its own.
    conditions: Vec<Conditions>,
}

impl Space {
    /// A space of these parameters; those that conditions name are moved before those that name them.
    ///
    /// # Errors
    /// A domain is empty or contradicts itself, a name stands there twice, or conditions name what is not
    /// there or close a circle.
    pub fn new(dimensions: &[Dimension]) -> Result<Self, SpaceError> {
        for (i, dimension) in dimensions.iter().enumerate() {
            if dimensions[..i].iter().any(|other| other.name == dimension.name) {
                return Err(SpaceError::Twice(dimension.name.clone()));
            }
            if let Some((key, why)) = dimension.domain.fault() {
                return Err(SpaceError::Domain { name: dimension.name.clone(), key, why });
            }
        }
        let order = order(dimensions).map_err(|fault| SpaceError::Domain {
            name: dimensions[fault.dimension].name.clone(),
            key: "when",
            why: fault.why,
        })?;
        let dimensions: Vec<Dimension> = order.iter().map(|&i| dimensions[i].clone()).collect();
        let axes: Vec<Axis> = dimensions.iter().map(|d| Axis::of(&d.domain)).collect();
        let mut space = Self { conditions: Vec::new(), dimensions, axes };
        space.conditions = space.dimensions.iter().map(|d| space.conditions_of(d)).collect();
        Ok(space)
    }

    fn conditions_of(&self, dimension: &Dimension) -> Conditions {
        let resolve = |name: &str| self.dimensions.iter().position(|d| d.name == name);
        let mut conditions = Conditions::new();
        for condition in &dimension.when {
            let Some(parent) = resolve(&condition.parent) else { continue };
            let number = |value| self.number(parent, value);
            let mut values: Vec<f64> = condition.values.iter().filter_map(number).collect();
            values.sort_by(f64::total_cmp);
            values.dedup();
            conditions.push((parent, values));
        }
        conditions.sort_by_key(|(parent, _)| *parent);
        conditions
    }

    /// The parameters, parents before children.
    pub fn dimensions(&self) -> &[Dimension] {
        &self.dimensions
    }

    /// The parameters as estimators see them.
    pub fn axes(&self) -> &[Axis] {
        &self.axes
    }

    /// Whether parameter `i` counts beside the values of those before it.
    pub fn counts(&self, i: usize, point: &[Option<f64>]) -> bool {
        self.conditions[i]
            .iter()
            .all(|(parent, values)| point[*parent].is_some_and(|value| values.contains(&value)))
    }

    /// Parameters that count in exactly the same points, together; parents before children.
    pub fn groups(&self) -> Vec<Vec<usize>> {
        let mut known: Vec<Conditions> = Vec::new();
        let mut groups: Vec<(Conditions, Vec<usize>)> = Vec::new();
        for i in 0..self.axes.len() {
            // Its conditions and those of what they name.
            let mut all = self.conditions[i].clone();
            all.extend(self.conditions[i].iter().flat_map(|(parent, _)| known[*parent].clone()));
            all.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
            all.dedup();
            match groups.iter_mut().find(|(conditions, _)| *conditions == all) {
                Some((_, members)) => members.push(i),
                None => groups.push((all.clone(), vec![i])),
            }
            known.push(all);
        }
        groups.into_iter().map(|(_, members)| members).collect()
    }

    /// The point at these shares of the parameters' domains, one each.
    pub fn at(&self, shares: impl IntoIterator<Item = f64>) -> Point {
        let mut point = vec![None; self.axes.len()];
        for ((i, axis), share) in self.axes.iter().enumerate().zip(shares) {
            if self.counts(i, &point) {
                point[i] = Some(axis.at(share));
            }
        }
        point
    }

    /// A point of independent uniform values.
    pub fn random(&self, rng: &mut ChaCha8Rng) -> Point {
        self.at(std::iter::repeat_with(|| uniform(rng)))
    }

    /// The `number`-th of a sequence of points that fill the space evenly, moved by a random amount that `rng`
    /// gives: each is uniform, and the first n of them lie apart (Roberts' sequence: shares
    /// fract(sᵢ + number·φ⁻ⁱ), φ the positive root of φ^(d+1) = φ + 1 in d dimensions; the shift after
    /// Cranley & Patterson 1976).
    pub fn spread(&self, number: u64, rng: &mut ChaCha8Rng) -> Point {
        let d = self.axes.len() as f64;
        let mut phi = 2.0;
        for _ in 0..64 {
            phi = libm::pow(1.0 + phi, 1.0 / (d + 1.0));
        }
        let mut step = 1.0;
        self.at(std::iter::repeat_with(|| {
            step /= phi;
            let x = uniform(rng) + number as f64 * step;
            x - libm::floor(x)
        }))
    }

    /// The number of a value of parameter `i`; `None` where it cannot be its value.
    fn number(&self, i: usize, value: &Scalar) -> Option<f64> {
        match (&self.dimensions[i].domain, value) {
            (Domain::Categorical { choices }, value) => {
                choices.iter().position(|choice| choice.is(value)).map(|k| k as f64)
            }
            (domain, Scalar::Int(k)) if domain.contains(value) => Some(*k as f64),
            (domain, Scalar::Float(x)) if domain.contains(value) => Some(*x),
            _ => None,
        }
    }

    /// The values of a point.
    pub fn params(&self, point: &[Option<f64>]) -> Params {
        let value = |(i, number): (usize, &Option<f64>)| {
            let dimension = &self.dimensions[i];
            let value = match (&dimension.domain, (*number)?) {
                (Domain::Float { .. }, x) => Scalar::Float(x),
                (Domain::Int { .. }, x) => Scalar::Int(x as i64),
                (Domain::Categorical { choices }, k) => choices.get(k as usize)?.clone(),
            };
            Some((dimension.name.clone(), value))
        };
        point.iter().enumerate().filter_map(value).collect()
    }

    /// The point of these values.
    ///
    /// # Errors
    /// A value is missing, superfluous, or none that the parameter can take.
    pub fn point(&self, params: &Params) -> Result<Point, SpaceError> {
        let fault = |name: &str, why: String| Err(SpaceError::Value { name: name.to_owned(), why });
        let mut point: Point = vec![None; self.axes.len()];
        for (i, dimension) in self.dimensions.iter().enumerate() {
            let name = &dimension.name;
            match (self.counts(i, &point), params.get(name)) {
                (true, Some(value)) => match self.number(i, value) {
                    Some(number) => point[i] = Some(number),
                    None => return fault(name, format!("{value} lies outside of the search space")),
                },
                (true, None) => return fault(name, "has no value".to_owned()),
                (false, Some(value)) => {
                    return fault(name, format!("is {value} where it does not count"));
                }
                (false, None) => {}
            }
        }
        match params.keys().find(|name| !self.dimensions.iter().any(|d| d.name == **name)) {
            Some(name) => fault(name, "is no parameter of the search space".to_owned()),
            None => Ok(point),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::tune::Condition;
    use crate::num::rng::{Key, Purpose};

    fn float(name: &str, low: f64, high: f64) -> Dimension {
        let domain = Domain::Float { low, high, log: false, step: None };
        Dimension { name: name.into(), domain, when: vec![] }
    }

    fn int(name: &str, low: i64, high: i64, step: i64, log: bool) -> Dimension {
        Dimension { name: name.into(), domain: Domain::Int { low, high, log, step }, when: vec![] }
    }

    fn choice(name: &str, choices: &[&str]) -> Dimension {
        let choices = choices.iter().map(|c| Scalar::Text((*c).into())).collect();
        Dimension { name: name.into(), domain: Domain::Categorical { choices }, when: vec![] }
    }

    fn when(mut dimension: Dimension, parent: &str, values: &[&str]) -> Dimension {
        let values = values.iter().map(|v| Scalar::Text((*v).into())).collect();
        dimension.when.push(Condition { parent: parent.into(), values });
        dimension
    }

    fn conditional() -> Space {
        // Children first: the order is mended.
        Space::new(&[
            when(int("bins", 2, 32, 1, true), "type", &["spline"]),
            when(choice("type", &["affine", "spline"]), "algo", &["flow"]),
            float("x", -4.0, 4.0),
            choice("algo", &["mfa", "flow", "none"]),
            when(int("m", 1, 16, 3, false), "algo", &["mfa"]),
            when(int("depth", 1, 8, 1, false), "algo", &["flow"]),
            when(float("y", 0.0, 1.0), "algo", &["flow", "mfa"]),
        ])
        .unwrap()
    }

    #[test]
    fn parents_stand_before_children_and_groups_count_together() {
        let space = conditional();
        let names: Vec<&str> = space.dimensions().iter().map(|d| d.name.as_str()).collect();
        assert_eq!(names, ["x", "algo", "type", "bins", "m", "depth", "y"]);
        assert_eq!(space.groups(), [vec![0, 1], vec![2, 5], vec![3], vec![4], vec![6]]);
    }

    #[test]
    fn bad_spaces_are_refused_with_the_parameter_and_the_remedy() {
        let step = |low, high, step| Dimension {
            domain: Domain::Float { low, high, log: false, step: Some(step) },
            ..float("x", 0.0, 1.0)
        };
        let log = |low| Dimension {
            domain: Domain::Float { low, high: 1.0, log: true, step: None },
            ..float("x", 0.0, 1.0)
        };
        let cases: Vec<(Vec<Dimension>, &str)> = vec![
            (vec![float("x", 1.0, 0.0)], "parameter x: low: 1.0 is above `high` (0.0)"),
            (vec![float("x", 0.0, f64::NAN)], "expected finite bounds"),
            (vec![log(0.0)], "needs `low` > 0"),
            (vec![step(0.0, 1.0, 0.0)], "step: expected a number > 0"),
            (vec![step(0.0, 1.0, 1e-300)], "too small"),
            (vec![int("n", 5, 4, 1, false)], "exchange them"),
            (vec![int("n", 0, 4, 1, true)], "needs `low` ≥ 1"),
            (vec![int("n", 1, 4, 2, true)], "excludes `log: true`"),
            (vec![int("n", 1, 4, 0, false)], "≥ 1, found 0"),
            (vec![int("n", i64::MIN, i64::MAX, 1, false)], "in size"),
            (vec![choice("c", &[])], "at least one value"),
            (vec![choice("c", &["a", "b", "a"])], "a stands there twice"),
            (vec![float("x", 0.0, 1.0), float("x", 0.0, 1.0)], "x stands there twice"),
            (vec![when(float("x", 0.0, 1.0), "c", &["a"])], "no parameter is called c"),
            (vec![choice("c", &["a"]), when(float("x", 0.0, 1.0), "c", &["b"])], "b is no value that c"),
            (vec![choice("c", &["a"]), when(float("x", 0.0, 1.0), "c", &[])], "a value of c"),
            (
                vec![when(choice("a", &["1"]), "b", &["1"]), when(choice("b", &["1"]), "a", &["1"])],
                "close a circle",
            ),
        ];
        for (dimensions, expected) in cases {
            let error = Space::new(&dimensions).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn coordinates_of_grids_fill_their_interval() {
        let space = Space::new(&[int("n", 2, 11, 3, false), int("l", 1, 9, 1, true)]).unwrap();
        let [steps, logs] = space.axes() else { panic!("two axes") };
        assert_eq!((steps.count(), steps.edges()), (Some(4), (0.5, 12.5)));
        assert_eq!(logs.edges(), (0.5f64.ln(), 9.5f64.ln()));
        for (axis, values) in [(steps, vec![2.0, 5.0, 8.0, 11.0]), (logs, (1..=9).map(f64::from).collect())] {
            let (mut at, end) = axis.edges();
            for value in values {
                let (low, high) = axis.cell(value);
                assert!((low - at).abs() < 1e-14);
                assert_eq!(axis.value(0.5 * (low + high)), value);
                at = high;
            }
            assert!((at - end).abs() < 1e-14);
        }
        // 1.0 is 10 steps of 0.1 though 0.1 is no binary fraction; 0.95 is not reached.
        let tenth = |high| {
            let domain = Domain::Float { low: 0.0, high, log: false, step: Some(0.1) };
            Axis::of(&domain)
        };
        assert_eq!(tenth(1.0).count(), Some(11));
        assert_eq!(tenth(0.95).count(), Some(10));
    }

    #[test]
    fn random_values_are_uniform_on_grids_and_in_logarithms() {
        let space = Space::new(&[int("n", 1, 4, 1, false), float("x", 1e-6, 1e-2)]).unwrap();
        let log = Axis::Number { low: 1e-6, high: 1e-2, log: true, step: 0.0 };
        let mut rng = Key::new([3; 32], Purpose::Proposal, 0).at(0);
        let (mut counts, mut below) = ([0.0; 4], 0.0);
        let draws = 40_000;
        for _ in 0..draws {
            counts[space.axes()[0].at(uniform(&mut rng)) as usize - 1] += 1.0;
            below += f64::from(u8::from(log.at(uniform(&mut rng)) < 1e-5));
        }
        // Four standard errors of a share p: √(p(1 − p)/n).
        let bar = 4.0 * (0.25f64 * 0.75 / f64::from(draws)).sqrt();
        for share in counts.into_iter().chain([below]).map(|c: f64| c / f64::from(draws)) {
            assert!((share - 0.25).abs() < bar, "{share}");
        }
    }

    #[test]
    fn spread_points_are_uniform_over_shifts_and_lie_apart() {
        let space = Space::new(&[float("x", 0.0, 1.0), float("y", 0.0, 1.0)]).unwrap();
        let shift = |k: u64| Key::new([4; 32], Purpose::Startup, 0).at(k);
        let studies = 2000;
        let below = (0..studies).filter(|k| space.spread(7, &mut shift(*k))[1] < Some(0.3)).count();
        let bar = 4.0 * (0.3f64 * 0.7 / studies as f64).sqrt();
        assert!((below as f64 / studies as f64 - 0.3).abs() < bar, "{below}");
        // Least distances of 16 points on the torus: those of independent ones are 1/(2√16)/4 on average.
        let nearest = |points: &[Point]| {
            let mut least = f64::INFINITY;
            for (i, a) in points.iter().enumerate() {
                for b in &points[..i] {
                    let apart = |k: usize| {
                        let d = (a[k].unwrap() - b[k].unwrap()).abs();
                        d.min(1.0 - d)
                    };
                    least = least.min(apart(0).hypot(apart(1)));
                }
            }
            least
        };
        for k in 0..20 {
            let points: Vec<Point> = (0..16).map(|n| space.spread(n, &mut shift(k))).collect();
            assert!(nearest(&points) > 0.12, "{}", nearest(&points));
        }
    }

    proptest! {
        #[test]
        fn points_and_values_say_the_same(number in 0u64..1000) {
            let space = conditional();
            let point = space.random(&mut Key::new([1; 32], Purpose::Proposal, 0).at(number));
            let params = space.params(&point);
            prop_assert_eq!(space.point(&params).unwrap(), point.clone());
            let flow = params["algo"] == Scalar::Text("flow".into());
            prop_assert_eq!(params.contains_key("depth"), flow);
            let spline = params.get("type") == Some(&Scalar::Text("spline".into()));
            prop_assert_eq!(params.contains_key("bins"), spline);
            // What does not count, is missing or lies outside is refused.
            let mut more = params.clone();
            more.insert("other".into(), Scalar::Int(1));
            prop_assert!(space.point(&more).is_err());
            let mut less = params.clone();
            less.remove("x");
            prop_assert!(space.point(&less).is_err());
            let mut outside = params;
            outside.insert("x".into(), Scalar::Float(5.0));
            prop_assert!(space.point(&outside).is_err());
        }
    }
}
