//! The teacher of a teacher–student target, and rows that training never saw.

use super::build::{check_networks, check_size};
use super::data::{add_noise, draw_more_inputs, initial_parameters, round_to, teach};
use super::error::TargetError;
use crate::config::{Dtype, Mlp, Network, Problem, TargetSpec};
use crate::num::rng::Purpose;

/// The network that made a target's outputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Teacher {
    /// Its shape.
    pub network: Network,
    /// Its parameters, flat.
    pub w: Vec<f64>,
    /// Share of its hidden units that were dropped in each row.
    pub dropout: f64,
    problem: Mlp,
    dtype: Dtype,
    id: [u8; 32],
}

/// Rows of a target's distribution.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    /// Inputs, rows × inputs.
    pub x: Vec<f64>,
    /// Outputs with dropout and noise, rows × outputs, as training rows have them.
    pub y: Vec<f64>,
}

/// Shape and dropout of a problem's teacher: its own, or else the student's shape without dropout.
pub(super) fn teacher_of(problem: &Mlp) -> (&Network, f64) {
    match &problem.teacher {
        Some(teacher) => (&teacher.network, teacher.dropout),
        None => (&problem.model, 0.0),
    }
}

impl Teacher {
    /// Refuses a problem whose networks no memory will hold, which [`Teacher::of`] does not: for specifications that
    /// nobody vouches for.
    ///
    /// # Errors
    /// [`TargetError`], as [`build`](super::build()) has it.
    pub fn check(problem: &Mlp) -> Result<(), TargetError> {
        check_networks(problem)
    }

    /// The teacher of the target `spec` with this id; `None` for problems without one.
    pub fn of(spec: &TargetSpec, id: [u8; 32]) -> Option<Self> {
        let Problem::Mlp(problem) = &spec.problem else { return None };
        let (network, dropout) = teacher_of(problem);
        let w = initial_parameters(network, problem.init, id, Purpose::Teacher);
        let (network, problem) = (network.clone(), problem.clone());
        Some(Self { network, w, dropout, problem, dtype: spec.dtype, id })
    }

    /// The teacher's outputs for the rows of `x`, with neither dropout nor noise: rows × outputs.
    ///
    /// # Errors
    /// [`TargetError::OutOfRange`] for a dropout outside its range.
    pub fn outputs(&self, x: &[f64]) -> Result<Vec<f64>, TargetError> {
        teach(&self.network, &self.w, 0.0, x, self.id)
    }

    /// `rows` fresh rows: the same distribution (the same mixture, manifold, dropout, noise), other
    /// streams. They are a pure function of the target's id, and a row does not depend on how many there
    /// are.
    ///
    /// # Errors
    /// [`TargetError`] for a specification whose target could not be built either.
    pub fn fresh_rows(&self, rows: usize) -> Result<Rows, TargetError> {
        let (data, in_dim, out_dim) = (&self.problem.data, self.network.in_dim, self.network.out_dim);
        check_size("X", rows, in_dim, "the number of inputs")?;
        check_size("Y", rows, out_dim, "the number of outputs")?;
        let own = self.fresh_id();
        let mut x = draw_more_inputs(&data.x, rows, in_dim, self.id, own)?;
        round_to(self.dtype, &mut x);
        let mut y = teach(&self.network, &self.w, self.dropout, &x, own)?;
        add_noise(&data.noise, data.noise_scale, &x, in_dim, &mut y, out_dim, own)?;
        round_to(self.dtype, &mut y);
        Ok(Rows { x, y })
    }

    /// The identity whose streams fresh rows come from.
    fn fresh_id(&self) -> [u8; 32] {
        // The context is part of the format: with another, test rows are other rows.
        let mut hasher = blake3::Hasher::new_derive_key("lambda-hat-mpi 2026 fresh rows of a target");
        hasher.update(&self.id);
        *hasher.finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        Activation, Data, Init, Inputs, Loss, Noise, Optimizer, Teacher as Taught, Training,
    };
    use crate::target::build;

    const ID: [u8; 32] = [11; 32];

    fn spec(x: Inputs, dropout: f64, noise_scale: f64) -> TargetSpec {
        let model = Network {
            in_dim: 3,
            hidden: vec![4],
            out_dim: 2,
            activation: Activation::Tanh,
            bias: true,
            layernorm: false,
            residual_period: None,
        };
        let training = Training {
            optimizer: Optimizer::Adam,
            lr: 1e-3,
            steps: 5,
            batch_size: None,
            early_stop_tol: 0.0,
            weight_decay: 0.0,
            momentum: 0.0,
        };
        TargetSpec {
            problem: Problem::Mlp(Mlp {
                teacher: Some(Taught { network: model.clone(), dropout }),
                model,
                init: Init::He,
                data: Data { n_data: 50, x, noise: Noise::Gauss, noise_scale },
                training,
                loss: Loss::Mse,
            }),
            seed: 1,
            dtype: Dtype::F64,
        }
    }

    #[test]
    fn training_outputs_without_noise_are_the_teachers() {
        let spec = spec(Inputs::GaussIso, 0.0, 0.0);
        let target = build(&spec, ID, None).unwrap();
        let teacher = Teacher::of(&spec, ID).unwrap();
        assert_eq!(teacher.outputs(&target.x).unwrap(), target.y);
    }

    #[test]
    fn fresh_rows_are_new_rows_of_the_same_distribution() {
        // Two components so far apart that the sign tells them: the means must be those of training.
        let spec = spec(Inputs::Mixture { components: 2, spread: 1e3 }, 0.25, 0.1);
        let target = build(&spec, ID, None).unwrap();
        let teacher = Teacher::of(&spec, ID).unwrap();
        let fresh = teacher.fresh_rows(400).unwrap();
        assert_eq!((fresh.x.len(), fresh.y.len()), (1200, 800));
        for row in fresh.x.chunks(3) {
            let distance = |other: &[f64]| row.iter().zip(other).map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
            let nearest = target.x.chunks(3).map(distance).fold(f64::INFINITY, f64::min);
            // Two rows of one component are √(2·3) apart on average; of two, about 10³.
            assert!(nearest > 0.0 && nearest < 100.0, "{nearest}");
        }
        assert_eq!(teacher.fresh_rows(10).unwrap().x, fresh.x[..30]);
        assert_ne!(Teacher::of(&spec, [12; 32]).unwrap().fresh_rows(10).unwrap().x, fresh.x[..30]);
    }

    #[test]
    fn noise_on_fresh_rows_has_its_scale() {
        let spec = spec(Inputs::GaussIso, 0.0, 0.5);
        let teacher = Teacher::of(&spec, ID).unwrap();
        let fresh = teacher.fresh_rows(5000).unwrap();
        let truth = teacher.outputs(&fresh.x).unwrap();
        let square = fresh.y.iter().zip(&truth).map(|(y, f)| (y - f) * (y - f)).sum::<f64>() / 1e4;
        // A variance of 10⁴ normals: √(2/10⁴) relative.
        assert!((square / 0.25 - 1.0).abs() < 4.0 * (2e-4f64).sqrt(), "{square}");
    }
}
