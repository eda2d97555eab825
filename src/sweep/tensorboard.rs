//! What a run of vi shows in TensorBoard: made of its stored files alone, so that a run which is done
//! gets it too.

use std::path::PathBuf;

use super::plan::PlannedRun;
use super::{SweepError, files};
use crate::config::{Algo, Vi};
use crate::io::netcdf;
use crate::io::tensorboard::{Scalar, write_events};
use crate::sampler::vi_curves;
use crate::store::{Ref, Store};

/// An event file of a run and its name in the run's directory; `None` where none is asked for.
///
/// The curves `chain_<i>/elbo` and `chain_<i>/elbo_error` have a point every `eval_every` steps of the
/// optimisation. Behind them, a step a draw, stand the columns of the trace.
pub fn events(
    store: &Store,
    run: &PlannedRun,
    record: &Ref,
) -> Result<Option<(PathBuf, Vec<u8>)>, SweepError> {
    match &run.sampler.algo {
        Algo::Vi(settings) if run.tensorboard => {
            let name = format!("tensorboard/events.out.tfevents.0.{}", run.id.short(8));
            Ok(Some((name.into(), of_vi(store, settings, record)?)))
        }
        _ => Ok(None),
    }
}

fn of_vi(store: &Store, settings: &Vi, record: &Ref) -> Result<Vec<u8>, SweepError> {
    let states: Vec<Vec<u8>> = postcard::from_bytes(&files::object(store, record, "state.bin")?)?;
    let (trace, _) = netcdf::read_trace(&files::object(store, record, "trace.nc")?)?;
    let mut curves: Vec<(String, Vec<(u64, f64)>)> = Vec::new();
    for (chain, (state, draws)) in states.iter().zip(&trace.chains).enumerate() {
        let mut add = |name: &str, points| curves.push((format!("chain_{chain}/{name}"), points));
        for (name, points) in vi_curves(settings, state)? {
            add(name, points);
        }
        for (column, values) in trace.layout.iter().zip(&draws.values) {
            add(&column.name, (settings.steps..).zip(values.iter().copied()).collect());
        }
    }
    let points = curves
        .iter()
        .flat_map(|(tag, points)| points.iter().map(move |&(step, value)| Scalar { tag, step, value }));
    Ok(write_events(points))
}
