//! Which parameters a run samples.

use super::plan::PlannedTarget;
use super::{SweepError, files};
use crate::config::{Parameters, PosteriorSpec};
use crate::io::npz;
use crate::target::layers;

/// A run's parameters by their places in w, ascending, and the hash of the file that chose them.
pub type Chosen = (Option<Vec<u32>>, Option<[u8; 32]>);

/// What a posterior chooses on a target; `None`: all parameters.
pub fn parameters(posterior: &PosteriorSpec, target: &PlannedTarget) -> Result<Chosen, SweepError> {
    let told = |why: String| SweepError::Parameters {
        place: target.place.clone(),
        label: target.label.clone(),
        why,
    };
    match &posterior.parameters {
        None => Ok((None, None)),
        Some(Parameters::Layers(wanted)) => {
            let Some(network) = &target.network else {
                return Err(told("this target has no layers; choose its parameters with `mask`".to_owned()));
            };
            let starts: Vec<usize> = layers(network).iter().map(|l| l.weight).collect();
            let mut chosen = Vec::new();
            for &layer in wanted {
                let Some(&start) = starts.get(layer) else {
                    let last = starts.len() - 1;
                    return Err(told(format!("layer {layer} does not exist; the layers are 0 to {last}")));
                };
                let end = starts.get(layer + 1).copied().unwrap_or(target.dim);
                chosen.extend((start..end).map(|i| i as u32));
            }
            Ok((Some(chosen), None))
        }
        Some(Parameters::Mask(path)) => {
            let about = |why: String| told(format!("{}: {why}", path.display()));
            let bytes = files::read_bounded(path).map_err(about)?;
            let arrays = npz::read(&bytes).map_err(|e| about(e.to_string()))?;
            let mask = arrays.get("mask").and_then(|a| a.values.to_f64());
            let mask = mask.ok_or_else(|| about("expected an array `mask` of numbers".to_owned()))?;
            if mask.len() != target.dim {
                return Err(about(format!("`mask` has {} entries, the target {}", mask.len(), target.dim)));
            }
            if mask.iter().any(|m| !m.is_finite()) {
                return Err(about("`mask` holds numbers that are not finite".to_owned()));
            }
            let places = mask.iter().enumerate().filter(|(_, m)| **m != 0.0).map(|(i, _)| i as u32);
            let chosen: Vec<u32> = places.collect();
            if chosen.is_empty() {
                return Err(about("`mask` chooses nothing".to_owned()));
            }
            Ok((Some(chosen), Some(*blake3::hash(&bytes).as_bytes())))
        }
    }
}
