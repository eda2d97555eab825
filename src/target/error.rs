use thiserror::Error;

/// Why a target could not be built.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum TargetError {
    /// Not by its numbers: the build was asked to stop, or its state cannot be stored.
    #[error(transparent)]
    Interrupted(#[from] crate::resume::Interruption),
    /// A number outside its range.
    #[error("{field} is {value}; it must be {expected}")]
    OutOfRange {
        /// The field as configurations spell it.
        field: &'static str,
        /// What it is.
        value: String,
        /// What it should be.
        expected: String,
    },
    /// More memory than a target may take.
    #[error("{what} would hold {count} numbers, more than {limit}; reduce {remedy}")]
    TooLarge {
        /// What would be too large.
        what: &'static str,
        /// Numbers it would hold.
        count: u128,
        /// Numbers it may hold.
        limit: u128,
        /// The fields to reduce.
        remedy: &'static str,
    },
    /// Training met a loss that is infinite or not a number.
    #[error("training: the loss is {loss:?} at step {step}; reduce training.lr ({lr:?})")]
    Diverged {
        /// The step.
        step: u64,
        /// The loss there.
        loss: f64,
        /// The learning rate.
        lr: f64,
    },
    /// The finished target's loss is infinite or not a number.
    #[error("the loss at w* is {loss} in {dtype}; check the size of the data and of the parameters")]
    BadCentre {
        /// L0.
        loss: f64,
        /// Precision of the build.
        dtype: &'static str,
    },
    /// A random deep linear network whose ranks could not be told apart from rounding.
    #[error(
        "dln: layers {first} to {last} have numerical rank {found} where {expected} was made; \
         choose another seed"
    )]
    UnclearRank {
        /// First layer of the product, from 1.
        first: usize,
        /// Last layer of the product.
        last: usize,
        /// Rank found.
        found: usize,
        /// Rank meant.
        expected: usize,
    },
    /// The problem is external and its arrays were not handed over.
    #[error("external: the arrays of data and params are missing; read both files before building")]
    MissingArrays,
    /// An array that must be there is not.
    #[error("{file}: there is no array {name:?}; {remedy}")]
    MissingArray {
        /// `data` or `params`.
        file: &'static str,
        /// The array.
        name: String,
        /// What to write instead.
        remedy: &'static str,
    },
    /// An array of the wrong shape.
    #[error("{file}: array {name:?} has shape {found:?}; {expected}")]
    BadShape {
        /// `data` or `params`.
        file: &'static str,
        /// The array.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape it should have.
        expected: String,
    },
    /// An array with an infinite value or a NaN.
    #[error("{file}: array {name:?} holds {value} at flat position {position}; remove such rows or values")]
    NotFinite {
        /// `data` or `params`.
        file: &'static str,
        /// The array.
        name: String,
        /// The value.
        value: f64,
        /// Its position.
        position: usize,
    },
    /// `layer_shapes` could not be used.
    #[error("params: layer_shapes is {text:?}: {why}; write JSON such as [[4, 2], [4], [1, 4], [1]]")]
    BadLayerShapes {
        /// The text as it stands.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// Two descriptions of the same parameters.
    #[error("params: both W0 and flat are there; keep one of them")]
    TwoParameterSets,
}

impl TargetError {
    pub(super) fn range(field: &'static str, value: impl ToString, expected: impl Into<String>) -> Self {
        Self::OutOfRange { field, value: value.to_string(), expected: expected.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_messages_have_no_rows_of_zeros() {
        let text = TargetError::Diverged { step: 1, loss: 2.5e280, lr: 1e300 }.to_string();
        assert_eq!(text, "training: the loss is 2.5e280 at step 1; reduce training.lr (1e300)");
    }
}
