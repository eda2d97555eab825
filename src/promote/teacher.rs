//! A target's student against its teacher: losses, fits, and pairs of predictions for a scatter.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{FoundTarget, Trouble};
use crate::config::{Id, Loss, Network, Problem, TargetSpec};
use crate::io::npz::{self, Array, Values};
use crate::target::{NetworkPotential, Potential, Reference, TargetError, Teacher, param_count};

/// Pairs of predictions that are kept of training rows, and of fresh ones.
const MOST_PAIRS: usize = 2_000;
/// Fresh rows: as many as training has, within these bounds.
const FRESH: (usize, usize) = (1_000, 10_000);

/// Units in a layer of a teacher that is believed: what is worked out for a block of rows is as wide.
const MOST_UNITS: usize = 1 << 20;

/// `diagnostics/target.json`: how student and teacher fit training rows and fresh ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetDiagnosis {
    /// Name of the loss L.
    pub loss: String,
    /// The rows that the student was trained on.
    pub train: RowSet,
    /// Rows of the same distribution that it never saw.
    pub test: RowSet,
}

/// Fits on one set of rows, in 64-bit arithmetic. Null is what is not finite or undefined.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowSet {
    /// Rows.
    pub rows: usize,
    /// L of the student (on training rows L0, up to the precision of the build).
    pub student_loss: Option<f64>,
    /// L of the teacher's outputs without noise and dropout: what noise leaves of the best fit.
    pub teacher_loss: Option<f64>,
    /// 1 − Σ(y − f)²/Σ(y − ȳ)² of the student f, over rows and outputs, ȳ the mean of each output.
    pub student_r2: Option<f64>,
    /// The same of the teacher.
    pub teacher_r2: Option<f64>,
    /// The same of the student with the teacher's outputs in place of y: 1 where it has found it.
    pub student_r2_of_teacher: Option<f64>,
}

/// A target's rows and parameters: all that a comparison needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rows {
    /// Resolved configuration of the target.
    pub spec: TargetSpec,
    /// Its id.
    pub id: [u8; 32],
    /// Rows × inputs.
    pub x: Vec<f64>,
    /// Rows × outputs.
    pub y: Vec<f64>,
    /// Parameters.
    pub w: Vec<f64>,
}

impl Rows {
    /// [`compare_with_teacher`] of these.
    ///
    /// # Errors
    /// As there.
    pub fn compare(&self) -> Result<Option<(TargetDiagnosis, Vec<u8>)>, String> {
        compare_with_teacher(&self.spec, self.id, &self.x, &self.y, &self.w)
    }
}

impl FoundTarget {
    /// Whether it has a teacher to be compared with.
    pub fn has_teacher(&self) -> bool {
        self.id().is_ok() && matches!(self.meta.config.problem, Problem::Mlp(_))
    }

    fn id(&self) -> Result<Id, Trouble> {
        Id::from_hex(&self.meta.target_id)
            .ok_or_else(|| Trouble::new(&self.dir, "meta.json", "is damaged (target_id has not 64 digits)"))
    }

    /// Rows and parameters, from `data.npz` and `params.npz`.
    ///
    /// # Errors
    /// The [`Trouble`] with one of them, or with the id in `meta.json`.
    pub fn rows(&self) -> Result<Rows, Trouble> {
        let id = self.id()?.0;
        let (mut data, mut params) = (self.arrays("data.npz")?, self.arrays("params.npz")?);
        let taken = |arrays: &mut BTreeMap<String, Array>, file: &str, name: &str| {
            let values = arrays.remove(name).and_then(|array| array.values.to_f64());
            values.ok_or_else(|| Trouble::new(&self.dir, file, format!("lacks the array {name}")))
        };
        Ok(Rows {
            spec: self.meta.config.clone(),
            id,
            x: taken(&mut data, "data.npz", "X")?,
            y: taken(&mut data, "data.npz", "Y")?,
            w: taken(&mut params, "params.npz", "flat")?,
        })
    }
}

/// Compares student and teacher. `x` (rows × inputs) and `y` (rows × outputs) are the training rows, `w`
/// the student's parameters, `id` the target's. `None` for a problem without a teacher.
///
/// With it come the bytes of `diagnostics/predictions.npz`: `train_student`, `train_teacher`, `train_y`
/// and the same for `test`, each rows × outputs, of the first 2,000 rows at most.
///
/// # Errors
/// A sentence, where the arrays do not fit the specification.
pub fn compare_with_teacher(
    spec: &TargetSpec,
    id: [u8; 32],
    x: &[f64],
    y: &[f64],
    w: &[f64],
) -> Result<Option<(TargetDiagnosis, Vec<u8>)>, String> {
    let Problem::Mlp(problem) = &spec.problem else { return Ok(None) };
    // The configuration is a file's: nothing of its sizes is made before they are those of the arrays.
    let unfit =
        |e: TargetError| format!("does not fit the configuration in meta.json ({e}): is that damaged?");
    Teacher::check(problem).map_err(unfit)?;
    let student = &problem.model;
    let rows = x.len() / student.in_dim;
    let needed = [rows * student.in_dim, rows.saturating_mul(student.out_dim), param_count(student)];
    let found = [x.len(), y.len(), w.len()];
    if found != needed || rows == 0 {
        return Err(format!(
            "X, Y and flat have {found:?} values where the configuration in meta.json needs {needed:?}: the files \
             belong to different targets; copy the directory again"
        ));
    }
    // A teacher of its own shape has no array to be measured by.
    let of_its_own = problem.teacher.iter().flat_map(|teacher| &teacher.network.hidden);
    let widest = of_its_own.max().copied().unwrap_or(0);
    if widest > MOST_UNITS {
        return Err(format!(
            "does not fit the configuration in meta.json (a layer of the teacher has {widest} units, more than \
             {MOST_UNITS}): is that damaged?"
        ));
    }
    let Some(teacher) = Teacher::of(spec, id) else { return Ok(None) };
    let fresh_count = rows.clamp(FRESH.0, FRESH.1);
    let fresh = teacher.fresh_rows(fresh_count).map_err(unfit)?;
    let mut arrays = Vec::new();
    let mut sets = Vec::new();
    for (name, x, y) in [("train", x, y), ("test", &fresh.x, &fresh.y)] {
        let taught = teacher.outputs(x).map_err(|e| e.to_string())?;
        sets.push(row_set(student, &teacher, &problem.loss, w, [x, y, &taught]));
        let kept = (y.len() / student.out_dim).min(MOST_PAIRS);
        let reference = Reference::new(student);
        let inputs = x.chunks_exact(student.in_dim).take(kept);
        let guessed: Vec<f64> = inputs.flat_map(|row| reference.forward(w, row, None)).collect();
        let shape = vec![kept, student.out_dim];
        let values = kept * student.out_dim;
        for (what, numbers) in
            [("student", &guessed[..]), ("teacher", &taught[..values]), ("y", &y[..values])]
        {
            let array = Array { shape: shape.clone(), values: Values::F64(numbers.to_vec()) };
            arrays.push((format!("{name}_{what}"), array));
        }
    }
    let named: Vec<(&str, Array)> = arrays.iter().map(|(n, a)| (n.as_str(), a.clone())).collect();
    let predictions = npz::write(&named).map_err(|e| e.to_string())?;
    let loss = name_of(&problem.loss);
    let [train, test] = sets.try_into().map_err(|_| "two sets of rows were expected".to_owned())?;
    Ok(Some((TargetDiagnosis { loss: loss.into(), train, test }, predictions)))
}

/// A loss as files and figures name it.
pub(super) fn name_of(loss: &Loss) -> &'static str {
    match loss {
        Loss::Mse => "mse",
        Loss::TRegression { .. } => "t_regression",
    }
}

fn row_set(
    student: &Network,
    teacher: &Teacher,
    loss: &Loss,
    w: &[f64],
    [x, y, taught]: [&[f64]; 3],
) -> RowSet {
    let mean_loss = |network: &Network, w: &[f64], y: &[f64], loss: &Loss| {
        let potential = NetworkPotential::<f64>::new(network, x, y, loss);
        let mut scratch = vec![0.0; potential.scratch_len()];
        potential.loss(w, &mut scratch)
    };
    let r2 = |network: &Network, w: &[f64], y: &[f64]| {
        let residual = mean_loss(network, w, y, &Loss::Mse) * y.len() as f64;
        finite(1.0 - residual / squares_about_mean(y, network.out_dim))
    };
    RowSet {
        rows: y.len() / student.out_dim,
        student_loss: finite(mean_loss(student, w, y, loss)),
        teacher_loss: finite(mean_loss(&teacher.network, &teacher.w, y, loss)),
        student_r2: r2(student, w, y),
        teacher_r2: r2(&teacher.network, &teacher.w, y),
        student_r2_of_teacher: r2(student, w, taught),
    }
}

/// Σ(y − ȳ)² over rows and outputs, ȳ each output's mean.
fn squares_about_mean(y: &[f64], outputs: usize) -> f64 {
    let of_output = |k: usize| {
        let column: Vec<f64> = y.iter().skip(k).step_by(outputs).copied().collect();
        let mean = crate::stats::mean(&column);
        column.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>()
    };
    (0..outputs).map(of_output).sum()
}

fn finite(x: f64) -> Option<f64> {
    x.is_finite().then_some(x)
}
