//! Deep linear networks at a true parameter: inputs, the true parameters w*, and what is certain of λ
//! there.

use ndarray::{Array2, Axis};

use super::error::TargetError;
use super::exact::{Exact, FiniteForm, Singularity, deep_linear_singularity};
use super::matrix::{column_space, orthonormalise_rows, product, random_orthonormal};
use crate::config::{Activation, Dln, Network, Point};
use crate::num::rng::{Key, Purpose, fill_normal, index, uniform};

/// Singular values of every layer lie between this and its inverse, so that no layer comes near a
/// rank that it does not have.
const SMALLEST_SINGULAR_VALUE: f64 = 0.8;

/// A deep linear network at a true parameter.
#[derive(Clone, Debug)]
pub struct TrueNetwork {
    /// W_1, …, W_L, outputs × inputs.
    pub layers: Vec<Array2<f64>>,
    /// What is certain of λ at these parameters.
    pub exact: Exact,
}

impl TrueNetwork {
    /// The parameters in the flat order.
    pub fn flat(&self) -> Vec<f64> {
        self.layers.iter().flat_map(|w| w.iter().copied()).collect()
    }
}

/// The network that the widths describe.
pub fn network(problem: &Dln) -> Network {
    let widths = &problem.widths;
    Network {
        in_dim: widths.first().copied().unwrap_or(0),
        hidden: widths.get(1..widths.len().max(2) - 1).unwrap_or_default().to_vec(),
        out_dim: widths.last().copied().unwrap_or(0),
        activation: Activation::Identity,
        bias: false,
        layernorm: false,
        residual_period: None,
    }
}

/// Checks widths, rank and rows before anything is allocated.
///
/// # Errors
/// [`TargetError::OutOfRange`] with the field.
pub fn validate(problem: &Dln) -> Result<(), TargetError> {
    let widths = &problem.widths;
    let smallest = widths.iter().copied().min().unwrap_or(0);
    if widths.len() < 2 || smallest == 0 {
        let expected = "a list of at least 2 positive widths, inputs first";
        return Err(TargetError::range("widths", format!("{widths:?}"), expected));
    }
    if problem.rank > smallest {
        let expected = format!("at most the smallest width ({smallest})");
        return Err(TargetError::range("rank", problem.rank, expected));
    }
    if problem.point == Point::Full && problem.rank != smallest {
        let expected =
            format!("the smallest width ({smallest}) for point: full (else choose point: minimal)");
        return Err(TargetError::range("rank", problem.rank, expected));
    }
    if problem.n_data < widths[0] {
        let expected = format!("at least the number of inputs ({}), or λ is not known", widths[0]);
        return Err(TargetError::range("n_data", problem.n_data, expected));
    }
    Ok(())
}

/// X, n × H₀: standard normals, orthonormalised to XᵀX = n·I when `whiten` is set.
pub fn draw_inputs(problem: &Dln, id: [u8; 32]) -> Vec<f64> {
    let (n, inputs) = (problem.n_data, problem.widths[0]);
    let key = Key::new(id, Purpose::Inputs, 0);
    let mut x = Array2::zeros((n, inputs));
    for (i, mut row) in x.rows_mut().into_iter().enumerate() {
        if let Some(row) = row.as_slice_mut() {
            fill_normal(&mut key.at(i as u64), row);
        }
    }
    if problem.whiten {
        let mut columns = x.t().as_standard_layout().into_owned();
        orthonormalise_rows(&mut columns);
        columns *= (n as f64).sqrt();
        x = columns.reversed_axes();
    }
    x.iter().copied().collect()
}

/// True parameters of the kind that `problem.point` says; `problem` must be valid.
///
/// * `minimal`: W_s = Q_s G_s Q_{s−1}ᵀ with Q_s of r orthonormal columns and G_s (r × r) regular, so
///   that every partial product has rank exactly r.
/// * `full`: generic layers of full rank; their product then has rank r = min H.
/// * `random`: generic layers of ranks drawn uniformly from r to the layer's smaller width, one layer
///   set to r. λ is certain for one or two layers (Aoyagi & Watanabe 2005 after splitting off the
///   regular part) and where all ranks are r; for more layers there is the bound
///   max(formula, ½·rank J), J the Jacobian of the product.
///
/// # Errors
/// [`TargetError::UnclearRank`] when a product's numerical rank is not the one meant.
pub fn true_network(problem: &Dln, id: [u8; 32]) -> Result<TrueNetwork, TargetError> {
    let key = Key::new(id, Purpose::Centre, 0);
    let widths = &problem.widths;
    let ranks = match problem.point {
        Point::Minimal => vec![problem.rank; widths.len() - 1],
        Point::Full => widths.windows(2).map(|w| w[0].min(w[1])).collect(),
        Point::Random => {
            let mut rng = key.at(0);
            let mut ranks: Vec<usize> = widths
                .windows(2)
                .map(|w| problem.rank + index(&mut rng, w[0].min(w[1]) - problem.rank + 1))
                .collect();
            let lowest = index(&mut rng, ranks.len());
            ranks[lowest] = problem.rank;
            ranks
        }
    };
    // Bases of what leaves layer s and enters layer s + 1, the same one at a minimal-rank point.
    let mut layers = Vec::with_capacity(ranks.len());
    let mut shared = None;
    for (s, &layer_rank) in ranks.iter().enumerate() {
        let mut rng = key.at(s as u64 + 1);
        let right = match shared.take() {
            Some(basis) => basis,
            None => random_orthonormal(&mut rng, widths[s], layer_rank),
        };
        let left = random_orthonormal(&mut rng, widths[s + 1], layer_rank);
        let mut core = random_orthonormal(&mut rng, layer_rank, layer_rank);
        for mut column in core.axis_iter_mut(Axis(1)) {
            let span = 1.0 / SMALLEST_SINGULAR_VALUE - SMALLEST_SINGULAR_VALUE;
            column *= SMALLEST_SINGULAR_VALUE + span * uniform(&mut rng);
        }
        let right_t = right.t().as_standard_layout().into_owned();
        layers.push(product(&product(&left, &core), &right_t));
        if problem.point == Point::Minimal {
            shared = Some(left);
        }
    }
    verify_ranks(&layers, &ranks)?;
    Ok(TrueNetwork { exact: exact_at(problem, &ranks), layers })
}

/// Products that start or end the network must have the smallest of their layers' ranks: at
/// minimal-rank points by construction, for generic layers almost surely. Only these products enter
/// the bounds. The column space is carried from layer to layer, so that depth does not blur ranks.
fn verify_ranks(layers: &[Array2<f64>], ranks: &[usize]) -> Result<(), TargetError> {
    let count = layers.len();
    let walk = |order: &mut dyn Iterator<Item = (usize, Array2<f64>)>, start: usize| {
        let (mut space, mut expected) = (None, usize::MAX);
        for (s, layer) in order {
            let image = match &space {
                None => layer,
                Some(space) => product(&layer, space),
            };
            expected = expected.min(ranks[s]);
            let found = column_space(&image);
            let rank = found.as_ref().map_or(0, |f| f.ncols());
            if rank != expected || found.is_none() {
                let (first, last) = (start.min(s) + 1, start.max(s) + 1);
                return Err(TargetError::UnclearRank { first, last, found: rank, expected });
            }
            space = found;
        }
        Ok(())
    };
    walk(&mut layers.iter().cloned().enumerate(), 0)?;
    let transposed = layers.iter().map(|w| w.t().as_standard_layout().into_owned());
    walk(&mut transposed.enumerate().rev(), count - 1)
}

/// What is certain at generic layers of these ranks.
fn exact_at(problem: &Dln, ranks: &[usize]) -> Exact {
    let widths = &problem.widths;
    let formula = deep_linear_singularity(widths, problem.rank);
    // Generic layers that all have rank r make a minimal-rank point; and where r is the smallest
    // width the product is a submersion onto matrices of rank ≤ r, at every true parameter.
    let certain = problem.point != Point::Random
        || ranks.iter().all(|&r| r == problem.rank)
        || widths.contains(&problem.rank);
    let local = match *ranks {
        _ if certain => formula,
        [first, second] => two_layer_singularity(widths, problem.rank, first, second),
        _ => None,
    };
    let global_lambda = formula.map(|f| f.lambda);
    match local {
        Some(singularity) => {
            let origin = ranks.iter().all(|&r| r == 0);
            Exact { global_lambda, ..Exact::certain(singularity, finite_form(problem, origin)) }
        }
        None => {
            let jacobian = 0.5 * jacobian_rank(widths, ranks) as f64;
            Exact {
                lower_bound: Some(global_lambda.map_or(jacobian, |l| l.max(jacobian))),
                global_lambda,
                ..Exact::default()
            }
        }
    }
}

/// Closed forms hold for inputs with XᵀX = n·I.
fn finite_form(problem: &Dln, origin: bool) -> FiniteForm {
    match problem.widths[..] {
        _ if !problem.whiten => FiniteForm::Unknown,
        [inputs, outputs] => FiniteForm::OneMatrix { parameters: inputs * outputs, outputs },
        _ if !origin => FiniteForm::Unknown,
        // A chain of scalars is Π wᵢ².
        ref widths if widths.iter().all(|&h| h == 1) => {
            FiniteForm::NormalCrossing { exponents: vec![1; widths.len() - 1] }
        }
        [inputs, hidden, outputs] => FiniteForm::TwoLayers { inputs, hidden, outputs },
        _ => FiniteForm::Unknown,
    }
}

/// λ and m of M-H-N at layers of ranks ra (H × M) and rb (N × H) whose product has rank r:
/// λ = ½(N·ra + M·rb − ra·rb) + λ of the network (M − ra)-(H − ra − rb + r)-(N − rb) with true map 0.
fn two_layer_singularity(widths: &[usize], r: usize, ra: usize, rb: usize) -> Option<Singularity> {
    let &[m, h, n] = widths else { return None };
    let inner = (h + r).checked_sub(ra + rb)?;
    let rest = deep_linear_singularity(&[m.checked_sub(ra)?, inner, n.checked_sub(rb)?], 0)?;
    let regular = (n * ra + m * rb - ra * rb) as f64 / 2.0;
    Some(Singularity { lambda: regular + rest.lambda, multiplicity: rest.multiplicity })
}

/// rank J = Σ_s u_s v_s − Σ_{s<L} u_s v_{s+1} with u_s = rank(W_L … W_{s+1}), v_s = rank(W_{s−1} … W_1).
fn jacobian_rank(widths: &[usize], ranks: &[usize]) -> usize {
    let layers = ranks.len();
    let lowest = |ranks: &[usize], none: usize| ranks.iter().copied().min().unwrap_or(none);
    let u = |s: usize| lowest(&ranks[s..], widths[layers]);
    let v = |s: usize| lowest(&ranks[..s - 1], widths[0]);
    let gained: usize = (1..=layers).map(|s| u(s) * v(s)).sum();
    let shared: usize = (1..layers).map(|s| u(s) * v(s + 1)).sum();
    gained - shared
}

#[cfg(test)]
mod tests {
    use super::super::reference::Reference;
    use super::*;
    use crate::config::Loss;

    const ID: [u8; 32] = [8; 32];

    fn problem(widths: &[usize], rank: usize, point: Point) -> Dln {
        Dln { widths: widths.to_vec(), rank, point, whiten: true, n_data: 3 * widths[0] + 7 }
    }

    #[test]
    fn whitened_inputs_are_so_exactly() {
        let problem = Dln { n_data: 1_000, ..problem(&[12, 3], 1, Point::Minimal) };
        let x = Array2::from_shape_vec((1_000, 12), draw_inputs(&problem, ID)).unwrap();
        let gram = x.t().dot(&x) / 1_000.0;
        let error = (gram - Array2::<f64>::eye(12)).iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        assert!(error < 1e-12, "{error:e}");
    }

    #[test]
    fn the_centre_is_a_true_parameter_of_the_rank_that_is_asked_for() {
        let cases = [
            (vec![3, 4], 2, Point::Minimal),
            (vec![5, 3, 5], 2, Point::Minimal),
            (vec![2, 3, 2], 0, Point::Minimal),
            (vec![6; 31], 2, Point::Minimal),
            (vec![4, 2, 5, 3], 2, Point::Full),
            (vec![7; 21], 7, Point::Full),
            (vec![6, 5, 7, 6, 5], 2, Point::Random),
            (vec![6, 5, 7], 1, Point::Random),
        ];
        for (widths, rank, point) in cases {
            let problem = problem(&widths, rank, point);
            validate(&problem).unwrap();
            let found = true_network(&problem, ID).unwrap();
            let whole = found.layers.iter().skip(1).fold(found.layers[0].clone(), |p, w| w.dot(&p));
            assert_eq!(column_space(&whole).unwrap().ncols(), rank, "{problem:?}");
            if point == Point::Minimal {
                for w in &found.layers {
                    assert_eq!(column_space(w).unwrap().ncols(), rank);
                }
            }
            let x = draw_inputs(&problem, ID);
            let x_matrix = Array2::from_shape_vec((problem.n_data, widths[0]), x.clone()).unwrap();
            let y: Vec<f64> = x_matrix.dot(&whole.t()).iter().copied().collect();
            let scale = 1.0 + y.iter().map(|y| y * y).sum::<f64>() / y.len() as f64;
            let loss = Reference::new(&network(&problem)).loss(&found.flat(), &x, &y, &Loss::Mse);
            assert!(loss <= 1e-24 * scale, "{problem:?}: {loss:e}");
        }
    }

    #[test]
    fn what_is_certain_depends_on_the_point() {
        let exact =
            |widths: &[usize], rank, point| true_network(&problem(widths, rank, point), ID).unwrap().exact;
        let minimal = exact(&[5, 3, 5], 2, Point::Minimal);
        assert_eq!((minimal.lambda, minimal.multiplicity), (Some(9.5), Some(2)));
        assert_eq!(minimal.llc(100.0, 1.0), None);
        let full = exact(&[5, 3, 5], 3, Point::Full);
        assert_eq!((full.lambda, full.multiplicity), (Some(10.5), Some(1)));
        let origin = exact(&[2, 3, 2], 0, Point::Minimal);
        // ½‖BA‖² at nβ = 10 is ‖BA‖²/2 at the same nβ: two outputs.
        assert!((origin.llc(10.0, 1.0).unwrap() - 1.493_472_76).abs() < 1e-8);
        assert!(exact(&[1, 1, 1, 1], 0, Point::Minimal).llc(10.0, 1.0).is_some());
        assert!(exact(&[3, 4], 1, Point::Random).llc(10.0, 1.0).is_some());
        let unwhitened = Dln { whiten: false, ..problem(&[2, 3, 2], 0, Point::Minimal) };
        assert_eq!(true_network(&unwhitened, ID).unwrap().exact.llc(10.0, 1.0), None);
    }

    /// Rank of the Jacobian of W ↦ W_L … W_1, whose columns are (left column)·(right row).
    fn numerical_jacobian_rank(layers: &[Array2<f64>]) -> usize {
        let identity = |n| Array2::<f64>::eye(n);
        let (inputs, outputs) = (layers[0].ncols(), layers[layers.len() - 1].nrows());
        let mut columns = Vec::new();
        for s in 0..layers.len() {
            let right = layers[..s].iter().fold(identity(inputs), |p, w| w.dot(&p));
            let left = layers[s + 1..].iter().rev().fold(identity(outputs), |p, w| p.dot(w));
            for a in left.columns() {
                for b in right.rows() {
                    columns.extend(a.iter().flat_map(|a| b.iter().map(move |b| a * b)));
                }
            }
        }
        let rows = inputs * outputs;
        let transposed = Array2::from_shape_vec((columns.len() / rows, rows), columns).unwrap();
        column_space(&transposed).unwrap().ncols()
    }

    #[test]
    fn random_points_have_bounds_that_hold() {
        let mut above_formula = 0;
        for seed in 0..20 {
            for widths in [vec![4, 3, 5], vec![4, 6, 3, 5]] {
                let problem = problem(&widths, 1, Point::Random);
                let found = true_network(&problem, [seed; 32]).unwrap();
                let formula = deep_linear_singularity(&widths, 1).unwrap().lambda;
                let jacobian = 0.5 * numerical_jacobian_rank(&found.layers) as f64;
                let lower = found.exact.lower_bound.unwrap();
                assert_eq!(found.exact.global_lambda, Some(formula));
                match found.exact.lambda {
                    Some(lambda) => assert!(lambda >= formula.max(jacobian) && lower == lambda),
                    None => assert_eq!(lower, formula.max(jacobian)),
                }
                above_formula += usize::from(lower > formula);
            }
        }
        assert!(above_formula > 0, "no random point is above the formula: nothing was tried");
    }

    #[test]
    fn two_layers_split_into_a_regular_part_and_a_rest() {
        // At ra = rb = r the point has minimal rank; at ra = H = full hidden rank there is no rest.
        for (m, h, n) in [(5, 3, 5), (4, 4, 4), (2, 6, 3)] {
            let smallest: usize = m.min(h).min(n);
            for r in 0..=smallest {
                assert_eq!(
                    two_layer_singularity(&[m, h, n], r, r, r),
                    deep_linear_singularity(&[m, h, n], r)
                );
            }
        }
        // 1-1-1 at A ≠ 0 = B: L = (ab)²  is regular there, λ = 1/2, m = 1.
        let regular = Singularity { lambda: 0.5, multiplicity: 1 };
        assert_eq!(two_layer_singularity(&[1, 1, 1], 0, 1, 0), Some(regular));
    }

    #[test]
    fn impossible_problems_are_refused_by_field() {
        let refuse = |problem: Dln| validate(&problem).unwrap_err().to_string();
        assert!(refuse(problem(&[3], 0, Point::Minimal)).starts_with("widths is [3]"));
        assert!(refuse(problem(&[3, 0, 2], 0, Point::Minimal)).starts_with("widths"));
        assert!(refuse(problem(&[3, 2], 3, Point::Minimal)).starts_with("rank is 3"));
        assert!(refuse(problem(&[3, 2, 3], 1, Point::Full)).contains("point: minimal"));
        let few = Dln { n_data: 2, ..problem(&[3, 2], 1, Point::Minimal) };
        assert!(refuse(few).starts_with("n_data is 2"));
    }
}
