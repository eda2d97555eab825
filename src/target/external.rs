//! The user's own data and trained parameters: named arrays in, a checked network out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::TargetError;
use crate::config::{Activation, Network, Problem};

/// One array in row-major order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tensor {
    /// Length of each axis; empty for a scalar.
    pub shape: Vec<usize>,
    /// As many values as the product of `shape`.
    #[serde(with = "crate::wire::floats")]
    pub values: Vec<f64>,
}

/// What the two files of an external target hold. Arrays that no target needs are ignored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExternalArrays {
    /// X (n, in) and Y (n, out); a Y of shape (n) counts as (n, 1), and so does such an X.
    pub data: BTreeMap<String, Tensor>,
    /// W0, b0, W1, b1, … (W is out × in; either every layer has a bias or none has), or `flat`.
    pub params: BTreeMap<String, Tensor>,
    /// Shapes of the layers in `flat`, as JSON: `[[out, in], [out], …]`.
    pub layer_shapes: Option<String>,
}

/// Checked arrays.
#[derive(Clone, Debug, PartialEq)]
pub struct ExternalProblem {
    /// n × in
    pub x: Vec<f64>,
    /// n × out
    pub y: Vec<f64>,
    /// n
    pub rows: usize,
    /// Sizes as the parameters' shapes say.
    pub network: Network,
    /// The parameters in the flat order.
    pub w_star: Vec<f64>,
}

/// The network that a problem with rows is sampled as, and its number of rows: what a plan's costs
/// follow from, before anything is built. `None` for problems without rows.
///
/// # Errors
/// What is wrong with the arrays of an external problem.
pub fn network_of(
    problem: &Problem,
    external: Option<&ExternalArrays>,
) -> Result<Option<(Network, usize)>, TargetError> {
    Ok(match problem {
        Problem::Mlp(mlp) => Some((mlp.model.clone(), mlp.data.n_data)),
        Problem::Dln(dln) => Some((super::dln::network(dln), dln.n_data)),
        Problem::External(spec) => {
            let empty = ExternalArrays::default();
            let checked = read_arrays(external.unwrap_or(&empty), spec.activation)?;
            Some((checked.network, checked.rows))
        }
        Problem::Quadratic(_) | Problem::NormalCrossing(_) => None,
    })
}

/// Checks the arrays against each other and infers the network.
///
/// # Errors
/// Which array is missing, of the wrong shape or not finite, and what it should be.
pub fn read_arrays(arrays: &ExternalArrays, activation: Activation) -> Result<ExternalProblem, TargetError> {
    let (layers, w_star) = parameters(arrays)?;
    let bias = layers.first().is_some_and(|l| l.bias);
    let widths: Vec<usize> = layers.iter().map(|l| l.outputs).collect();
    let (in_dim, (&out_dim, hidden)) = match (layers.first(), widths.split_last()) {
        (Some(first), Some(split)) => (first.inputs, split),
        _ => return Err(missing("params", "W0", "write W0, b0, W1, b1, … or flat with layer_shapes")),
    };
    let (rows, x) = matrix(&arrays.data, "X", in_dim, "in, as W0 says")?;
    let (y_rows, y) = matrix(&arrays.data, "Y", out_dim, "out, as the last W says")?;
    if rows == 0 || rows != y_rows {
        return Err(TargetError::BadShape {
            file: "data",
            name: "Y".into(),
            found: vec![y_rows, out_dim],
            expected: format!("X has {rows} rows; both need the same number, at least 1"),
        });
    }
    let network = Network {
        in_dim,
        hidden: hidden.to_vec(),
        out_dim,
        activation,
        bias,
        layernorm: false,
        residual_period: None,
    };
    Ok(ExternalProblem { x, y, rows, network, w_star })
}

/// The shape of one layer.
struct LayerShape {
    inputs: usize,
    outputs: usize,
    bias: bool,
}

fn missing(file: &'static str, name: &str, remedy: &'static str) -> TargetError {
    TargetError::MissingArray { file, name: name.into(), remedy }
}

fn bad_shape(file: &'static str, name: &str, found: &[usize], expected: String) -> TargetError {
    TargetError::BadShape { file, name: name.into(), found: found.to_vec(), expected }
}

/// The array of that name, whole and finite.
fn finite<'a>(
    arrays: &'a BTreeMap<String, Tensor>,
    file: &'static str,
    name: &str,
    remedy: &'static str,
) -> Result<&'a Tensor, TargetError> {
    let tensor = arrays.get(name).ok_or_else(|| missing(file, name, remedy))?;
    let size = tensor.shape.iter().try_fold(1usize, |size, &axis| size.checked_mul(axis));
    if size != Some(tensor.values.len()) {
        let expected = format!("but {} values were read", tensor.values.len());
        return Err(bad_shape(file, name, &tensor.shape, expected));
    }
    match tensor.values.iter().position(|v| !v.is_finite()) {
        Some(position) => {
            let value = tensor.values[position];
            Err(TargetError::NotFinite { file, name: name.into(), value, position })
        }
        None => Ok(tensor),
    }
}

/// A matrix of the data with `cols` columns, a vector counting as one column.
fn matrix(
    data: &BTreeMap<String, Tensor>,
    name: &str,
    cols: usize,
    which: &str,
) -> Result<(usize, Vec<f64>), TargetError> {
    let tensor = finite(data, "data", name, "the data file holds X (n, in) and Y (n, out)")?;
    let (rows, found) = match tensor.shape[..] {
        [rows] => (rows, 1),
        [rows, found] => (rows, found),
        _ => (0, 0),
    };
    if found != cols {
        return Err(bad_shape("data", name, &tensor.shape, format!("it must be (n, {cols}) ({which})")));
    }
    Ok((rows, tensor.values.clone()))
}

fn parameters(arrays: &ExternalArrays) -> Result<(Vec<LayerShape>, Vec<f64>), TargetError> {
    let params = &arrays.params;
    match (params.contains_key("W0"), params.contains_key("flat")) {
        (true, true) => Err(TargetError::TwoParameterSets),
        (true, false) => named_layers(params),
        (false, _) => flat_layers(arrays),
    }
}

/// W0, b0, W1, b1, … up to the first W that is not there.
fn named_layers(params: &BTreeMap<String, Tensor>) -> Result<(Vec<LayerShape>, Vec<f64>), TargetError> {
    let remedy = "either every layer has a bias b0, b1, … or none has";
    let has_bias = params.contains_key("b0");
    let (mut layers, mut flat) = (Vec::<LayerShape>::new(), Vec::new());
    let mut l = 0;
    while params.contains_key(&format!("W{l}")) {
        let (weight, bias) = (format!("W{l}"), format!("b{l}"));
        let w = finite(params, "params", &weight, "")?;
        let inputs = layers.last().map(|l| l.outputs);
        let &[rows, cols] = &w.shape[..] else {
            return Err(bad_shape("params", &weight, &w.shape, "it must be (out, in)".into()));
        };
        if rows == 0 || cols == 0 || inputs.is_some_and(|i| i != cols) {
            let expected = match inputs {
                Some(i) => format!("it must be (out, {i}), as W{} has {i} rows", l - 1),
                None => "it must be (out, in), both at least 1".into(),
            };
            return Err(bad_shape("params", &weight, &w.shape, expected));
        }
        flat.extend_from_slice(&w.values);
        if has_bias != params.contains_key(&bias) {
            let absent = if has_bias { bias } else { "b0".into() };
            return Err(missing("params", &absent, remedy));
        }
        if has_bias {
            let b = finite(params, "params", &bias, remedy)?;
            if b.shape != [rows] {
                return Err(bad_shape(
                    "params",
                    &bias,
                    &b.shape,
                    format!("it must be ({rows}), as {weight} has {rows} rows"),
                ));
            }
            flat.extend_from_slice(&b.values);
        }
        layers.push(LayerShape { inputs: cols, outputs: rows, bias: has_bias });
        l += 1;
    }
    // W2 without W1 is a slip, not the end.
    let beyond = params.keys().find(|name| {
        let number = name.strip_prefix('W').or_else(|| name.strip_prefix('b'));
        number.and_then(|n| n.parse::<usize>().ok()).is_some_and(|n| n >= l)
    });
    match beyond {
        Some(_) => Err(missing("params", &format!("W{l}"), "layers are numbered from 0 without gaps")),
        None => Ok((layers, flat)),
    }
}

/// `flat`, cut by `layer_shapes`.
fn flat_layers(arrays: &ExternalArrays) -> Result<(Vec<LayerShape>, Vec<f64>), TargetError> {
    let flat = finite(&arrays.params, "params", "flat", "write W0, b0, W1, b1, … or flat with layer_shapes")?;
    let text = arrays.layer_shapes.as_deref().ok_or_else(|| {
        missing("params", "layer_shapes", "flat needs it: JSON such as [[4, 2], [4], [1, 4], [1]]")
    })?;
    let bad = |why: String| TargetError::BadLayerShapes { text: text.chars().take(200).collect(), why };
    let shapes: Vec<Vec<usize>> = serde_json::from_str(text).map_err(|e| bad(e.to_string()))?;
    let bias = shapes.get(1).is_some_and(|s| s.len() == 1);
    let per_layer = 1 + usize::from(bias);
    let mut layers = Vec::<LayerShape>::new();
    for shapes in shapes.chunks(per_layer) {
        let l = layers.len();
        let inputs = layers.last().map(|l| l.outputs);
        let (outputs, cols) = match (shapes, bias) {
            ([weight], false) => two(weight),
            ([weight, b], true) if b.len() == 1 && two(weight).is_some_and(|w| w.0 == b[0]) => two(weight),
            _ => None,
        }
        .filter(|&(o, i)| o > 0 && i > 0 && o <= flat.values.len() && i <= flat.values.len())
        .ok_or_else(|| bad(format!("layer {l} is not [out, in]{}", if bias { ", [out]" } else { "" })))?;
        if inputs.is_some_and(|i| i != cols) {
            return Err(bad(format!("layer {l} takes {cols} inputs but the one before gives {inputs:?}")));
        }
        layers.push(LayerShape { inputs: cols, outputs, bias });
    }
    let count: u128 =
        layers.iter().map(|l| l.outputs as u128 * (l.inputs + usize::from(l.bias)) as u128).sum();
    if layers.is_empty() || count != flat.values.len() as u128 {
        return Err(bad(format!("it describes {count} parameters, but flat holds {}", flat.values.len())));
    }
    Ok((layers, flat.values.clone()))
}

fn two(shape: &[usize]) -> Option<(usize, usize)> {
    match *shape {
        [outputs, inputs] => Some((outputs, inputs)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(shape: &[usize]) -> Tensor {
        let values = (0..shape.iter().product::<usize>()).map(|v| v as f64).collect();
        Tensor { shape: shape.to_vec(), values }
    }

    fn arrays(
        data: &[(&str, &[usize])],
        params: &[(&str, &[usize])],
        shapes: Option<&str>,
    ) -> ExternalArrays {
        let named = |list: &[(&str, &[usize])]| {
            list.iter().map(|(name, shape)| (name.to_string(), tensor(shape))).collect()
        };
        ExternalArrays { data: named(data), params: named(params), layer_shapes: shapes.map(str::to_owned) }
    }

    const DATA: &[(&str, &[usize])] = &[("X", &[5, 2]), ("Y", &[5]), ("Z", &[9])];
    const BIASED: &[(&str, &[usize])] = &[("W0", &[3, 2]), ("b0", &[3]), ("W1", &[1, 3]), ("b1", &[1])];

    #[test]
    fn both_ways_of_writing_parameters_give_the_same_network() {
        let named = read_arrays(&arrays(DATA, BIASED, None), Activation::Tanh).unwrap();
        let network = Network {
            in_dim: 2,
            hidden: vec![3],
            out_dim: 1,
            activation: Activation::Tanh,
            bias: true,
            layernorm: false,
            residual_period: None,
        };
        assert_eq!((named.rows, &named.network), (5, &network));
        assert_eq!(named.w_star, [0., 1., 2., 3., 4., 5., 0., 1., 2., 0., 1., 2., 0.]);
        let mut flat = arrays(DATA, &[("flat", &[13])], Some("[[3, 2], [3], [1, 3], [1]]"));
        flat.params.get_mut("flat").unwrap().values = named.w_star.clone();
        assert_eq!(read_arrays(&flat, Activation::Tanh).unwrap(), named);
        let unbiased = arrays(DATA, &[("flat", &[9])], Some("[[3,2],[1,3]]"));
        let unbiased = read_arrays(&unbiased, Activation::Tanh).unwrap();
        assert_eq!(unbiased.network, Network { bias: false, ..network });
        let linear = read_arrays(&arrays(DATA, &[("W0", &[1, 2])], None), Activation::Relu).unwrap();
        assert!(linear.network.hidden.is_empty() && !linear.network.bias);
    }

    #[test]
    fn every_slip_is_named() {
        type Arrays = &'static [(&'static str, &'static [usize])];
        let cases: &[(Arrays, Arrays, Option<&str>, &str)] = &[
            (DATA, &[], None, "no array \"flat\""),
            (&[("Y", &[5])], BIASED, None, "no array \"X\""),
            (&[("X", &[5, 3]), ("Y", &[5])], BIASED, None, "\"X\" has shape [5, 3]; it must be (n, 2)"),
            (&[("X", &[5, 2]), ("Y", &[5, 2])], BIASED, None, "it must be (n, 1)"),
            (&[("X", &[5, 2]), ("Y", &[4])], BIASED, None, "X has 5 rows"),
            (&[("X", &[0, 2]), ("Y", &[0])], BIASED, None, "at least 1"),
            (DATA, &[("W0", &[3, 2]), ("W1", &[1, 4])], None, "it must be (out, 3), as W0 has 3 rows"),
            (DATA, &[("W0", &[6])], None, "\"W0\" has shape [6]"),
            (DATA, &[("W0", &[0, 2])], None, "both at least 1"),
            (DATA, &[("W0", &[3, 2]), ("b0", &[3]), ("W1", &[1, 3])], None, "no array \"b1\""),
            (DATA, &[("W0", &[3, 2]), ("W1", &[1, 3]), ("b1", &[1])], None, "no array \"b0\""),
            (DATA, &[("W0", &[3, 2]), ("b0", &[2])], None, "it must be (3)"),
            (DATA, &[("W0", &[3, 2]), ("W2", &[1, 3])], None, "no array \"W1\""),
            (DATA, &[("W0", &[3, 2]), ("flat", &[6])], None, "keep one"),
            (DATA, &[("flat", &[6])], None, "no array \"layer_shapes\""),
            (DATA, &[("flat", &[6])], Some("3x2"), "layer_shapes is \"3x2\""),
            (DATA, &[("flat", &[6])], Some("[]"), "it describes 0 parameters"),
            (DATA, &[("flat", &[6])], Some("[[3,2],[1,3]]"), "it describes 9 parameters"),
            (DATA, &[("flat", &[9])], Some("[[3,2],[3],[1,3]]"), "layer 1 is not [out, in], [out]"),
            (DATA, &[("flat", &[9])], Some("[[3,2],[2]]"), "layer 0 is not"),
            (DATA, &[("flat", &[9])], Some("[[3,2],[1,2]]"), "layer 1 takes 2 inputs"),
            (DATA, &[("flat", &[9])], Some("[[18446744073709551615,2]]"), "layer 0 is not"),
            (DATA, &[("flat", &[9])], Some("[[-1,2]]"), "layer_shapes"),
        ];
        for (data, params, shapes, expected) in cases {
            let error =
                read_arrays(&arrays(data, params, *shapes), Activation::Relu).unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} does not say {expected:?}");
        }
        let mut nan = arrays(DATA, BIASED, None);
        nan.data.get_mut("X").unwrap().values[3] = f64::NAN;
        let error = read_arrays(&nan, Activation::Relu).unwrap_err().to_string();
        assert!(error.contains("\"X\" holds NaN at flat position 3"), "{error}");
        let mut short = arrays(DATA, BIASED, None);
        short.data.get_mut("X").unwrap().values.pop();
        let error = read_arrays(&short, Activation::Relu).unwrap_err().to_string();
        assert!(error.contains("9 values were read"), "{error}");
    }
}
