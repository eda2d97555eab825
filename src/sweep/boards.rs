//! TensorBoard's view of a finished experiment: event files under `tb/<experiment>/`, made of what is stored.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::describe::{detail, members};
use super::{SweepError, files};
use crate::config::{Algo, SamplerSpec};
use crate::io::netcdf;
use crate::io::tensorboard::{Scalar, write_events_at};
use crate::sampler::vi_curves;
use crate::store::{Ref, Status, Store, TARGET};
use crate::trace::Trace;

/// Points of a curve at most; of longer ones every k-th is shown, and the last.
const POINTS: usize = 1000;
/// Letters of a label in a directory's name.
const LABEL: usize = 40;

/// What was written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Boards {
    /// What TensorBoard is to be shown, relative to the root.
    pub dir: PathBuf,
    /// Event files of targets.
    pub targets: usize,
    /// Event files of runs.
    pub runs: usize,
    /// URNs of members without a curve: failed, removed, or damaged, and why.
    pub left_out: Vec<(String, String)>,
}

/// A curve: its name and its points (step, value), in order.
type Curve = (String, Vec<(u64, f64)>);

/// Writes `tb/<experiment>/<label>_<id>/events.out.tfevents.0.<8 hex>` for every finished target with a
/// training history and every finished run of an experiment. The same records give the same bytes.
///
/// Curves of a target: `training/loss`, a step each. Of a run: `llc/running_mean`, the mean llc over all draws
/// of all chains so far, and `llc/draw_mean`, that over the chains at one draw, both at the work (FGE, rounded
/// down) that all chains had done for their draws; `fge/cumulative`, that work at each draw; `step_size`; of
/// vi also `chain_<i>/elbo` and `chain_<i>/elbo_error` at steps of the optimisation.
///
/// Wall times are spread evenly over the seconds that the unit took, up to the time at which it was recorded
/// as done.
///
/// # Errors
/// [`SweepError::Store`]: no such experiment, a disk that refuses.
pub fn write_boards(store: &Store, experiment: &str) -> Result<Boards, SweepError> {
    let experiment = store.experiment(experiment)?;
    let dir = Path::new("tb").join(&experiment.name);
    let mut boards = Boards { dir: dir.clone(), ..Boards::default() };
    let mut present = BTreeSet::new();
    for record in members(store, &experiment)? {
        present.insert((record.kind.clone(), record.id));
        let curves = match &record.status {
            Status::Failed { reason, .. } => Err(reason.clone()),
            Status::Done if record.kind == TARGET => of_target(store, &record).map_err(|e| e.to_string()),
            Status::Done => of_run(store, &record).map_err(|e| e.to_string()),
        };
        let curves = match curves {
            Ok(curves) if curves.iter().all(|(_, points)| points.is_empty()) => continue,
            Ok(curves) => curves,
            Err(why) => {
                boards.left_out.push((record.urn(), why));
                continue;
            }
        };
        let name = format!("events.out.tfevents.0.{}", record.id.short(8));
        store.write_file(&dir.join(directory(&record)).join(name), &events(&record, &curves))?;
        *(if record.kind == TARGET { &mut boards.targets } else { &mut boards.runs }) += 1;
    }
    Ok(boards)
}

/// The name of a unit's directory: its label in letters fit for paths, and digits of its id.
fn directory(record: &Ref) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let label: String = detail(record, "label").chars().map(letter).take(LABEL).collect();
    let label = label.trim_start_matches('.');
    let label = if label.is_empty() { "target" } else { label };
    match record.kind.as_str() {
        TARGET => format!("{label}_tgt_{}", record.id.short(8)),
        _ => {
            let sampler: String = detail(record, "sampler").chars().map(letter).take(LABEL).collect();
            format!("{label}_{sampler}_{}", record.id.short(8))
        }
    }
}

fn of_target(store: &Store, record: &Ref) -> Result<Vec<Curve>, SweepError> {
    let history = files::built(store, record)?.training.map(|training| training.history);
    Ok(history.map(|points| ("training/loss".to_owned(), points)).into_iter().collect())
}

fn of_run(store: &Store, record: &Ref) -> Result<Vec<Curve>, SweepError> {
    let (trace, _) = netcdf::read_trace(&files::object(store, record, "trace.nc")?)?;
    let mut curves = of_trace(&trace);
    let analysis = files::read_analysis(store, record)?;
    if let Some(step_size) = analysis.step_size {
        let last = (trace.draws() as u64).saturating_sub(1);
        curves.push(("step_size".to_owned(), vec![(0, step_size), (last, step_size)]));
    }
    let sampler: SamplerSpec = serde_json::from_value(record.config["sampler"].clone())?;
    if let Algo::Vi(settings) = &sampler.algo {
        let states: Vec<Vec<u8>> = postcard::from_bytes(&files::object(store, record, "state.bin")?)?;
        for (chain, state) in states.iter().enumerate() {
            let named = |(name, points)| (format!("chain_{chain}/{name}"), points);
            curves.extend(vi_curves(settings, state)?.into_iter().map(named));
        }
    }
    Ok(curves)
}

fn of_trace(trace: &Trace) -> Vec<Curve> {
    let (Some(llc), Some(work)) = (trace.column("llc"), trace.column("cumulative_fge")) else {
        return Vec::new();
    };
    let (chains, draws) = (llc.len() as f64, trace.draws());
    let at = |columns: &[&[f64]], draw: usize| columns.iter().map(|column| column[draw]).sum::<f64>();
    let mut curves =
        ["llc/running_mean", "llc/draw_mean", "fge/cumulative"].map(|name| (name.to_owned(), Vec::new()));
    let stride = draws.div_ceil(POINTS).max(1);
    let mut sum = 0.0;
    for draw in 0..draws {
        let here = at(&llc, draw);
        sum += here;
        if draw % stride == 0 || draw + 1 == draws {
            let fge = at(&work, draw);
            // (A work that is no number cannot be: the sampler counts it. It would be 0.)
            curves[0].1.push((fge as u64, sum / (chains * (draw + 1) as f64)));
            curves[1].1.push((fge as u64, here / chains));
            curves[2].1.push((draw as u64, fge));
        }
    }
    curves.into()
}

fn events(record: &Ref, curves: &[Curve]) -> Vec<u8> {
    let end = record.when.parse::<jiff::Timestamp>().map_or(0.0, |when| when.as_millisecond() as f64 / 1e3);
    let took = record.details["provenance"]["seconds"].as_f64().filter(|s| s.is_finite()).unwrap_or(0.0);
    let begin = end - took.max(0.0);
    let points = curves.iter().flat_map(|(tag, points)| {
        let last = points.len().saturating_sub(1).max(1) as f64;
        points.iter().enumerate().map(move |(i, &(step, value))| {
            let time = begin + (end - begin) * (i as f64 / last).min(1.0);
            (time, Scalar { tag, step, value })
        })
    });
    write_events_at(begin, points)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{ChainTrace, Column, Kind};

    #[test]
    fn running_means_are_over_chains_and_draws_and_long_curves_are_thinned() {
        let layout = vec![Column::posterior("llc"), Column::stat("cumulative_fge", Kind::Float)];
        let chain = |shift: f64, draws: usize| ChainTrace {
            values: vec![
                (0..draws).map(|d| shift + d as f64).collect(),
                (0..draws).map(|d| 2.5 * (d + 1) as f64).collect(),
            ],
        };
        let trace =
            |draws| Trace { layout: layout.clone(), chains: vec![chain(0.0, draws), chain(2.0, draws)] };
        let curves = of_trace(&trace(3));
        assert_eq!(curves[0], ("llc/running_mean".to_owned(), vec![(5, 1.0), (10, 1.5), (15, 2.0)]));
        assert_eq!(curves[1].1, [(5, 1.0), (10, 2.0), (15, 3.0)]);
        assert_eq!(curves[2].1, [(0, 5.0), (1, 10.0), (2, 15.0)]);
        let long = of_trace(&trace(4001));
        assert_eq!(long[0].1.len(), 4001usize.div_ceil(5));
        assert_eq!(long[0].1.last().unwrap().1, 2001.0);
    }
}
