//! From a specification to a target: data, a centre w*, its loss, and what is known exactly.

use serde::{Deserialize, Serialize};

use super::data::{add_noise, draw_inputs, initial_parameters, round_to, teach};
use super::dln;
use super::error::TargetError;
use super::exact::{Exact, FiniteForm, Singularity, normal_crossing_singularity, quadratic_singularity};
use super::external::{ExternalArrays, read_arrays};
use super::fresh::teacher_of;
use super::layout::param_count;
use super::network::NetworkPotential;
use super::potential::Potential;
use super::simple::{NormalCrossingPotential, QuadraticPotential};
use super::training::{TrainingOutcome, train};
use crate::config::{
    Activation, Dln, Dtype, External, Loss, Mlp, Network, NormalCrossing, Problem, Quadratic, TargetSpec,
};
use crate::device::Element;
use crate::num::Real;
use crate::num::rng::Purpose;
use crate::resume::Desk;

/// Most numbers that one array of a target may hold (8 GiB in 64-bit precision). Row indices are 32
/// bits wide, so that rows stay below 2³² too.
const MAX_VALUES: u128 = 1 << 30;

/// A target, complete: all that samplers, tables and files need. Travels between ranks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// What was asked for.
    pub spec: TargetSpec,
    /// X, n × inputs, row-major, already rounded to the build's precision; empty for targets without
    /// rows.
    #[serde(with = "crate::wire::floats")]
    pub x: Vec<f64>,
    /// Y, n × outputs, likewise.
    #[serde(with = "crate::wire::floats")]
    pub y: Vec<f64>,
    /// n, which for targets without rows enters β = β0/ln n only.
    pub n_data: usize,
    /// Inputs; 0 for targets without rows.
    pub in_dim: usize,
    /// Outputs; 0 for targets without rows.
    pub out_dim: usize,
    /// The network, where there is one.
    pub network: Option<Network>,
    /// The centre w* in the flat order, already rounded.
    #[serde(with = "crate::wire::floats")]
    pub w_star: Vec<f64>,
    /// L0 = L_n(w*), by the build's arithmetic and precision.
    pub l0: f64,
    /// How training went, where there was training.
    pub training: Option<TrainingOutcome>,
    /// What is known exactly.
    pub exact: Exact,
}

/// Builds a target. Every random number is a pure function of `id`; `external` is needed by external
/// problems only.
///
/// # Errors
/// [`TargetError`]: values out of range, sizes out of bounds, arrays that do not fit, training that
/// diverged.
pub fn build(
    spec: &TargetSpec,
    id: [u8; 32],
    external: Option<&ExternalArrays>,
) -> Result<Target, TargetError> {
    build_at(spec, id, external, &mut Desk::unwatched())
}

/// [`build`], saving its work at `desk`.
pub fn build_at(
    spec: &TargetSpec,
    id: [u8; 32],
    external: Option<&ExternalArrays>,
    desk: &mut Desk<'_>,
) -> Result<Target, TargetError> {
    let mut target = match &spec.problem {
        Problem::Mlp(problem) => build_mlp(spec, problem, id, desk)?,
        Problem::Dln(problem) => build_dln(spec, problem, id)?,
        Problem::Quadratic(problem) => build_quadratic(spec, problem)?,
        Problem::NormalCrossing(problem) => build_normal_crossing(spec, problem)?,
        Problem::External(problem) => build_external(spec, problem, external)?,
    };
    round_to(spec.dtype, &mut target.w_star);
    let (loss, dtype) = match spec.dtype {
        Dtype::F32 => (loss_at_centre::<f32>(&target), f32::NAME),
        Dtype::F64 => (loss_at_centre::<f64>(&target), f64::NAME),
    };
    if !loss.is_finite() {
        return Err(TargetError::BadCentre { loss, dtype });
    }
    target.l0 = loss;
    Ok(target)
}

impl Target {
    /// Number of parameters d.
    pub fn dim(&self) -> usize {
        self.w_star.len()
    }

    /// L_n in the arithmetic of `T`.
    pub fn potential<T: Element>(&self) -> Box<dyn Potential<T>> {
        match (&self.spec.problem, &self.network) {
            (Problem::Quadratic(problem), _) => Box::new(QuadraticPotential::new(&problem.eigenvalues)),
            (Problem::NormalCrossing(problem), _) => {
                Box::new(NormalCrossingPotential::new(&problem.exponents))
            }
            (problem, network) => {
                let loss = problem.loss();
                // Built targets of the other kinds have a network.
                let none = linear_network(self.in_dim, self.out_dim);
                let network = network.as_ref().unwrap_or(&none);
                let (x, y) = self.data::<T>();
                Box::new(NetworkPotential::new(network, &x, &y, loss))
            }
        }
    }

    /// X and Y in the arithmetic of `T`.
    pub fn data<T: Real>(&self) -> (Vec<T>, Vec<T>) {
        (cast(&self.x), cast(&self.y))
    }

    /// w* in the arithmetic of `T`.
    pub fn centre<T: Real>(&self) -> Vec<T> {
        cast(&self.w_star)
    }

    /// Whether L may be singular at w*: false for quadratic targets alone.
    pub fn possibly_singular(&self) -> bool {
        !matches!(self.spec.problem, Problem::Quadratic(_))
    }
}

fn cast<T: Real>(values: &[f64]) -> Vec<T> {
    values.iter().map(|&v| T::from_f64(v)).collect()
}

fn loss_at_centre<T: Element>(target: &Target) -> f64 {
    let potential = target.potential::<T>();
    let mut scratch = vec![T::ZERO; potential.scratch_len()];
    potential.loss(&target.centre::<T>(), &mut scratch)
}

fn linear_network(in_dim: usize, out_dim: usize) -> Network {
    Network {
        in_dim,
        hidden: Vec::new(),
        out_dim,
        activation: Activation::Identity,
        bias: false,
        layernorm: false,
        residual_period: None,
    }
}

/// Refuses `rows × cols` numbers that no memory will hold.
pub(super) fn check_size(
    what: &'static str,
    rows: usize,
    cols: usize,
    remedy: &'static str,
) -> Result<(), TargetError> {
    let count = rows as u128 * cols as u128;
    if count > MAX_VALUES {
        return Err(TargetError::TooLarge { what, count, limit: MAX_VALUES, remedy });
    }
    Ok(())
}

fn check_rows(n: usize, network: &Network) -> Result<(), TargetError> {
    if n == 0 {
        return Err(TargetError::range("n_data", n, "at least 1"));
    }
    check_size("X", n, network.in_dim, "n_data or the number of inputs")?;
    check_size("Y", n, network.out_dim, "n_data or the number of outputs")
}

/// `field` names the network in messages.
fn check_network(field: &'static str, network: &Network) -> Result<(), TargetError> {
    let mut widths = vec![network.in_dim];
    widths.extend(&network.hidden);
    widths.push(network.out_dim);
    if widths.contains(&0) {
        return Err(TargetError::range(field, format!("of widths {widths:?}"), "of positive widths"));
    }
    if network.residual_period == Some(0) {
        return Err(TargetError::range("residual_period", 0, "at least 1, or absent"));
    }
    let count: u128 = widths.windows(2).map(|w| w[1] as u128 * (w[0] as u128 + 3)).sum();
    if count > MAX_VALUES {
        let remedy = "the widths of its layers";
        return Err(TargetError::TooLarge { what: field, count, limit: MAX_VALUES, remedy });
    }
    Ok(())
}

/// Refuses a student or a teacher that no memory will hold, and a teacher of other inputs or outputs.
pub(super) fn check_networks(problem: &Mlp) -> Result<(), TargetError> {
    let (student, (teacher, _)) = (&problem.model, teacher_of(problem));
    check_network("model", student)?;
    check_network("teacher", teacher)?;
    if (teacher.in_dim, teacher.out_dim) != (student.in_dim, student.out_dim) {
        let found = format!("of {} inputs and {} outputs", teacher.in_dim, teacher.out_dim);
        let expected = format!("of the model's {} inputs and {} outputs", student.in_dim, student.out_dim);
        return Err(TargetError::range("teacher", found, expected));
    }
    Ok(())
}

fn check_loss(loss: &Loss) -> Result<(), TargetError> {
    if let &Loss::TRegression { student_df, noise_scale } = loss {
        for (field, value) in [("loss.student_df", student_df), ("loss.noise_scale", noise_scale)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(TargetError::range(field, value, "a positive number"));
            }
        }
    }
    Ok(())
}

fn build_mlp(
    spec: &TargetSpec,
    problem: &Mlp,
    id: [u8; 32],
    desk: &mut Desk<'_>,
) -> Result<Target, TargetError> {
    let (student, data) = (&problem.model, &problem.data);
    check_networks(problem)?;
    check_rows(data.n_data, student)?;
    check_loss(&problem.loss)?;
    let (teacher, dropout) = teacher_of(problem);
    let mut x = draw_inputs(&data.x, data.n_data, student.in_dim, id)?;
    // Rounded before the teacher sees them, so that the stored Y belongs to the stored X.
    round_to(spec.dtype, &mut x);
    let truth = initial_parameters(teacher, problem.init, id, Purpose::Teacher);
    let mut y = teach(teacher, &truth, dropout, &x, id)?;
    add_noise(&data.noise, data.noise_scale, &x, student.in_dim, &mut y, student.out_dim, id)?;
    round_to(spec.dtype, &mut y);
    let mut target = Target {
        spec: spec.clone(),
        x,
        y,
        n_data: data.n_data,
        in_dim: student.in_dim,
        out_dim: student.out_dim,
        network: Some(student.clone()),
        w_star: initial_parameters(student, problem.init, id, Purpose::Init),
        l0: f64::NAN,
        training: None,
        exact: Exact::default(),
    };
    let outcome = match spec.dtype {
        Dtype::F32 => train_target::<f32>(&mut target, problem, id, desk)?,
        Dtype::F64 => train_target::<f64>(&mut target, problem, id, desk)?,
    };
    target.training = Some(outcome);
    Ok(target)
}

fn train_target<T: Element>(
    target: &mut Target,
    problem: &Mlp,
    id: [u8; 32],
    desk: &mut Desk<'_>,
) -> Result<TrainingOutcome, TargetError> {
    let mut w = target.centre::<T>();
    let outcome = train(target.potential::<T>().as_ref(), &problem.training, id, &mut w, desk)?;
    target.w_star = w.into_iter().map(T::to_f64).collect();
    Ok(outcome)
}

fn build_dln(spec: &TargetSpec, problem: &Dln, id: [u8; 32]) -> Result<Target, TargetError> {
    dln::validate(problem)?;
    let network = dln::network(problem);
    check_network("widths", &network)?;
    check_rows(problem.n_data, &network)?;
    let truth = dln::true_network(problem, id)?;
    let w_star = truth.flat();
    let mut x = dln::draw_inputs(problem, id);
    round_to(spec.dtype, &mut x);
    let mut y = teach(&network, &w_star, 0.0, &x, id)?;
    round_to(spec.dtype, &mut y);
    Ok(Target {
        spec: spec.clone(),
        x,
        y,
        n_data: problem.n_data,
        in_dim: network.in_dim,
        out_dim: network.out_dim,
        network: Some(network),
        w_star,
        l0: f64::NAN,
        training: None,
        exact: truth.exact,
    })
}

/// A target given by a formula.
fn without_rows(
    spec: &TargetSpec,
    n_data: usize,
    w_star: Vec<f64>,
    singularity: Singularity,
    finite: FiniteForm,
) -> Target {
    Target {
        spec: spec.clone(),
        x: Vec::new(),
        y: Vec::new(),
        n_data,
        in_dim: 0,
        out_dim: 0,
        network: None,
        w_star,
        l0: f64::NAN,
        training: None,
        exact: Exact::certain(singularity, finite),
    }
}

fn build_quadratic(spec: &TargetSpec, problem: &Quadratic) -> Result<Target, TargetError> {
    let (eigenvalues, offset) = (&problem.eigenvalues, &problem.offset);
    if eigenvalues.is_empty() {
        return Err(TargetError::range("eigenvalues", "[]", "a list of at least 1 number"));
    }
    if let Some(h) = eigenvalues.iter().find(|h| !(**h >= 0.0 && h.is_finite())) {
        return Err(TargetError::range("eigenvalues", format!("a list with {h}"), "of numbers at least 0"));
    }
    if offset.len() != eigenvalues.len() || offset.iter().any(|o| !o.is_finite()) {
        let found = format!("a list of {} numbers", offset.len());
        let expected = format!("as many finite numbers as eigenvalues ({})", eigenvalues.len());
        return Err(TargetError::range("offset", found, expected));
    }
    let mut centre = offset.clone();
    round_to(spec.dtype, &mut centre);
    let finite = FiniteForm::Quadratic { eigenvalues: eigenvalues.clone(), offset: centre };
    let singularity = quadratic_singularity(eigenvalues);
    Ok(without_rows(spec, problem.n_data, offset.clone(), singularity, finite))
}

fn build_normal_crossing(spec: &TargetSpec, problem: &NormalCrossing) -> Result<Target, TargetError> {
    let exponents = &problem.exponents;
    let singularity = normal_crossing_singularity(exponents).ok_or_else(|| {
        TargetError::range("exponents", format!("{exponents:?}"), "a list of at least 1 positive integer")
    })?;
    let finite = FiniteForm::NormalCrossing { exponents: exponents.clone() };
    Ok(without_rows(spec, problem.n_data, vec![0.0; exponents.len()], singularity, finite))
}

fn build_external(
    spec: &TargetSpec,
    problem: &External,
    arrays: Option<&ExternalArrays>,
) -> Result<Target, TargetError> {
    check_loss(&problem.loss)?;
    let read = read_arrays(arrays.ok_or(TargetError::MissingArrays)?, problem.activation)?;
    check_network("params", &read.network)?;
    check_rows(read.rows, &read.network)?;
    debug_assert_eq!(read.w_star.len(), param_count(&read.network));
    let (mut x, mut y) = (read.x, read.y);
    round_to(spec.dtype, &mut x);
    round_to(spec.dtype, &mut y);
    Ok(Target {
        spec: spec.clone(),
        x,
        y,
        n_data: read.rows,
        in_dim: read.network.in_dim,
        out_dim: read.network.out_dim,
        network: Some(read.network),
        w_star: read.w_star,
        l0: f64::NAN,
        training: None,
        exact: Exact::default(),
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::external::Tensor;
    use super::*;
    use crate::config::{Data, Init, Inputs, Noise, Optimizer, Point, Teacher, Training};
    use crate::io::npz;

    const ID: [u8; 32] = [21; 32];

    fn student() -> Network {
        Network {
            in_dim: 3,
            hidden: vec![4, 4],
            out_dim: 2,
            activation: Activation::Tanh,
            bias: true,
            layernorm: false,
            residual_period: None,
        }
    }

    fn mlp() -> Mlp {
        Mlp {
            model: student(),
            init: Init::He,
            data: Data { n_data: 60, x: Inputs::GaussIso, noise: Noise::Gauss, noise_scale: 0.1 },
            teacher: None,
            training: Training {
                optimizer: Optimizer::Adam,
                lr: 0.01,
                steps: 400,
                batch_size: None,
                early_stop_tol: 1e-6,
                weight_decay: 0.0,
                momentum: 0.0,
            },
            loss: Loss::Mse,
        }
    }

    fn spec(problem: Problem, dtype: Dtype) -> TargetSpec {
        TargetSpec { problem, seed: 42, dtype }
    }

    fn dln(rank: usize, point: Point) -> Dln {
        Dln { widths: vec![3, 2, 4], rank, point, whiten: true, n_data: 50 }
    }

    fn problems() -> Vec<Problem> {
        let heavy = Data {
            n_data: 40,
            x: Inputs::HeavyTail { df: 4.0 },
            noise: Noise::StudentT { df: 3.0 },
            noise_scale: 0.1,
        };
        let teacher =
            Teacher { network: Network { hidden: vec![5], layernorm: true, ..student() }, dropout: 0.2 };
        let robust = Loss::TRegression { student_df: 4.0, noise_scale: 0.2 };
        vec![
            Problem::Mlp(mlp()),
            Problem::Mlp(Mlp { data: heavy, teacher: Some(teacher), loss: robust, ..mlp() }),
            Problem::Dln(dln(1, Point::Minimal)),
            Problem::Quadratic(Quadratic {
                eigenvalues: vec![1.0, 0.1],
                offset: vec![0.0, 2.0],
                n_data: 100,
            }),
            Problem::NormalCrossing(NormalCrossing { exponents: vec![1, 2], n_data: 100 }),
        ]
    }

    #[test]
    fn every_problem_builds_travels_and_repeats_itself() {
        for problem in problems() {
            for dtype in [Dtype::F32, Dtype::F64] {
                let spec = spec(problem.clone(), dtype);
                let target = build(&spec, ID, None).unwrap();
                assert_eq!(build(&spec, ID, None).unwrap(), target);
                let bytes = postcard::to_allocvec(&target).unwrap();
                assert_eq!(postcard::from_bytes::<Target>(&bytes).unwrap(), target);
                assert_eq!(target.dim(), target.potential::<f64>().dim());
                assert_eq!(target.x.len(), target.in_dim * target.potential::<f64>().rows());
                let is_f32 = |v: &f64| f64::from(*v as f32) == *v;
                let mut values = target.x.iter().chain(&target.y).chain(&target.w_star);
                let rounded = values.all(is_f32);
                assert!(rounded || dtype == Dtype::F64);
                let potential = target.potential::<f64>();
                let l0 = potential.loss(&target.centre(), &mut vec![0.0; potential.scratch_len()]);
                let tolerance = if dtype == Dtype::F32 { 1e-5 * l0 + 1e-12 } else { 0.0 };
                assert!((l0 - target.l0).abs() <= tolerance, "{l0} {}", target.l0);
            }
        }
    }

    #[test]
    fn training_ends_near_the_noise_and_is_recorded() {
        let problem = Mlp { training: Training { steps: 4_000, ..mlp().training }, ..mlp() };
        let target = build(&spec(Problem::Mlp(problem), Dtype::F64), ID, None).unwrap();
        let training = target.training.as_ref().unwrap();
        assert_eq!(training.best_loss, target.l0);
        assert!(training.history[0].1 > 10.0 * target.l0);
        // 120 residuals of variance 0.01 and 46 parameters: L0 below the noise.
        assert!(target.l0 < 0.02, "{}", target.l0);
        assert!(target.possibly_singular());
    }

    #[test]
    fn no_steps_leave_the_initial_parameters() {
        let training = Training { steps: 0, ..mlp().training };
        let target = build(&spec(Problem::Mlp(Mlp { training, ..mlp() }), Dtype::F64), ID, None).unwrap();
        assert_eq!(target.w_star, initial_parameters(&student(), Init::He, ID, Purpose::Init));
    }

    #[test]
    fn a_deep_linear_network_sits_at_zero_loss() {
        for (rank, point) in [(0, Point::Minimal), (1, Point::Minimal), (2, Point::Full), (1, Point::Random)]
        {
            let target = build(&spec(Problem::Dln(dln(rank, point)), Dtype::F64), ID, None).unwrap();
            assert!(target.l0 <= 1e-24, "{:e}", target.l0);
            assert!(target.exact.lambda.is_some());
            // 32-bit data and parameters: squares of rounding errors of about 1e-7.
            let single = build(&spec(Problem::Dln(dln(rank, point)), Dtype::F32), ID, None).unwrap();
            assert!(single.l0 < 1e-12, "{:e}", single.l0);
        }
    }

    #[test]
    fn formulas_carry_their_exact_values() {
        let built: Vec<Target> =
            problems()[3..].iter().map(|p| build(&spec(p.clone(), Dtype::F64), ID, None).unwrap()).collect();
        let [quadratic, crossing] = &built[..] else { panic!() };
        assert_eq!(quadratic.l0, 0.5 * 0.1 * 4.0);
        assert_eq!((quadratic.exact.lambda, quadratic.possibly_singular()), (Some(1.0), false));
        let (a, b) = (10.0 / 11.0, 0.5 - 4.0 * (1.0 - 0.25));
        assert!((quadratic.exact.llc(10.0, 1.0).unwrap() - 0.5 * (a + b)).abs() < 1e-12);
        assert_eq!((crossing.l0, crossing.exact.lambda), (0.0, Some(0.25)));
        assert_eq!((crossing.exact.multiplicity, crossing.possibly_singular()), (Some(1), true));
    }

    fn stored(name: &str) -> Tensor {
        let path = format!("{}/tests/data/golden/small42.npz", env!("CARGO_MANIFEST_DIR"));
        let array = npz::read(&std::fs::read(path).unwrap()).unwrap().remove(name).unwrap();
        Tensor { values: array.values.to_f64().unwrap(), shape: array.shape }
    }

    #[test]
    fn an_external_network_has_its_stored_loss() {
        let named = |names: &[&str]| names.iter().map(|n| (n.to_string(), stored(n))).collect();
        let arrays = ExternalArrays {
            data: named(&["X", "Y"]),
            params: named(&["flat"]),
            layer_shapes: Some("[[4, 4], [4], [4, 4], [4], [1, 4], [1]]".into()),
        };
        let problem = Problem::External(External {
            data: PathBuf::new(),
            params: PathBuf::new(),
            activation: Activation::Relu,
            loss: Loss::Mse,
        });
        for (dtype, name, tolerance) in [(Dtype::F64, "L0_f64", 1e-12), (Dtype::F32, "L0_f32", 1e-5)] {
            let target = build(&spec(problem.clone(), dtype), ID, Some(&arrays)).unwrap();
            let truth = stored(name).values[0];
            assert!((target.l0 / truth - 1.0).abs() < tolerance, "{} is not {truth}", target.l0);
            assert_eq!((target.dim(), target.n_data), (45, 100));
        }
        let missing = build(&spec(problem, Dtype::F64), ID, None).unwrap_err();
        assert_eq!(missing, TargetError::MissingArrays);
    }

    #[test]
    fn what_cannot_be_built_is_refused_by_field() {
        let data = |n_data, noise_scale| Data { n_data, noise_scale, ..mlp().data };
        let with_model = |model| Problem::Mlp(Mlp { model, ..mlp() });
        let teacher = Teacher { network: Network { in_dim: 9, ..student() }, dropout: 0.0 };
        let crossing = |exponents| Problem::NormalCrossing(NormalCrossing { exponents, n_data: 3 });
        let quadratic =
            |eigenvalues, offset| Problem::Quadratic(Quadratic { eigenvalues, offset, n_data: 3 });
        let robust = |student_df| Loss::TRegression { student_df, noise_scale: 1.0 };
        let cases = [
            (Problem::Mlp(Mlp { data: data(0, 0.1), ..mlp() }), "n_data is 0"),
            (Problem::Mlp(Mlp { data: data(usize::MAX, 0.1), ..mlp() }), "reduce n_data"),
            (Problem::Mlp(Mlp { data: data(9, f64::NAN), ..mlp() }), "data.noise_scale is NaN"),
            (Problem::Mlp(Mlp { loss: robust(0.0), ..mlp() }), "loss.student_df is 0"),
            (Problem::Mlp(Mlp { teacher: Some(teacher), ..mlp() }), "teacher is of 9 inputs"),
            (with_model(Network { hidden: vec![4, 0], ..student() }), "model is of widths [3, 4, 0, 2]"),
            (with_model(Network { hidden: vec![usize::MAX], ..student() }), "reduce the widths"),
            (with_model(Network { residual_period: Some(0), ..student() }), "residual_period is 0"),
            (
                Problem::Mlp(Mlp { training: Training { lr: 0.0, ..mlp().training }, ..mlp() }),
                "training.lr is 0",
            ),
            (Problem::Dln(Dln { rank: 5, ..dln(1, Point::Minimal) }), "rank is 5"),
            (Problem::Dln(Dln { n_data: 1 << 60, ..dln(1, Point::Minimal) }), "reduce n_data"),
            (quadratic(vec![], vec![]), "eigenvalues is []"),
            (quadratic(vec![-1.0], vec![0.0]), "eigenvalues is a list with -1"),
            (quadratic(vec![1.0], vec![]), "offset is a list of 0 numbers"),
            (crossing(vec![]), "exponents is []"),
            (crossing(vec![1, 0]), "exponents is [1, 0]"),
        ];
        for (problem, expected) in cases {
            let error = build(&spec(problem, Dtype::F64), ID, None).unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} does not say {expected:?}");
        }
        let wild = build(&spec(quadratic(vec![1e300], vec![1e300]), Dtype::F64), ID, None);
        assert_eq!(wild.unwrap_err(), TargetError::BadCentre { loss: f64::INFINITY, dtype: "f64" });
    }
}
