//! Which parameters a run samples.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use super::plan::PlannedTarget;
use super::{SweepError, files};
use crate::config::{Parameters, PosteriorSpec};
use crate::io::npz;
use crate::target::layers;

/// A run's parameters by their places in w, ascending, and the hash of the file that chose them.
pub type Chosen = (Option<Vec<u32>>, Option<[u8; 32]>);

/// The mask files of a sweep, each read once: many runs may name one.
#[derive(Default)]
pub struct Masks(BTreeMap<PathBuf, Mask>);

/// What a file says: the places that it chooses, of how many, and the hash of the file.
struct Mask {
    places: Vec<u32>,
    of: usize,
    hash: [u8; 32],
}

impl Masks {
    fn get(&mut self, path: &Path) -> Result<&Mask, String> {
        Ok(match self.0.entry(path.to_owned()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(Mask::read(path)?),
        })
    }
}

impl Mask {
    fn read(path: &Path) -> Result<Self, String> {
        let bytes = files::read_bounded(path)?;
        let arrays = npz::read(&bytes).map_err(|e| e.to_string())?;
        let mask = arrays.get("mask").and_then(|a| a.values.to_f64());
        let mask = mask.ok_or("expected an array `mask` of numbers")?;
        if mask.iter().any(|m| !m.is_finite()) {
            return Err("`mask` holds numbers that are not finite".to_owned());
        }
        let places = mask.iter().enumerate().filter(|(_, m)| **m != 0.0).map(|(i, _)| i as u32);
        Ok(Self { places: places.collect(), of: mask.len(), hash: *blake3::hash(&bytes).as_bytes() })
    }
}

/// What a posterior chooses on a target; `None`: all parameters.
pub fn parameters(
    posterior: &PosteriorSpec,
    target: &PlannedTarget,
    masks: &mut Masks,
) -> Result<Chosen, SweepError> {
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
            let mask = masks.get(path).map_err(about)?;
            if mask.of != target.dim {
                return Err(about(format!("`mask` has {} entries, the target {}", mask.of, target.dim)));
            }
            if mask.places.is_empty() {
                return Err(about("`mask` chooses nothing".to_owned()));
            }
            Ok((Some(mask.places.clone()), Some(mask.hash)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::npz::{Array, Values};

    #[test]
    fn a_mask_is_read_once_a_sweep() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("mask.npz");
        let mask = Array { shape: vec![3], values: Values::F64(vec![1.0, 0.0, 2.0]) };
        std::fs::write(&path, npz::write(&[("mask", mask)]).expect("npz")).expect("written");
        let mut masks = Masks::default();
        let first = masks.get(&path).expect("a mask").hash;
        // Gone, it is still what every run of the sweep samples by.
        std::fs::remove_file(&path).expect("removed");
        let again = masks.get(&path).expect("the same mask");
        assert_eq!((again.hash, &again.places[..], again.of), (first, &[0, 2][..], 3));
        assert!(masks.get(&dir.path().join("other.npz")).is_err());
    }
}
