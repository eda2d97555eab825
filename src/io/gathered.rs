//! All runs of an experiment in one plain HDF5 file, for h5py, Julia or MATLAB.

use super::hdf::{self, Attr};
use super::{IoError, check_names};
use crate::trace::Trace;

/// One run's part of the file.
pub struct GatheredRun<'a> {
    /// Names the run's group, `[A-Za-z0-9._-]{1,64}`.
    pub run_id: &'a str,
    /// Written as the group's attribute `target_id`.
    pub target_id: &'a str,
    /// Written as the group's attribute `sampler`.
    pub sampler: &'a str,
    /// The draws.
    pub trace: &'a Trace,
    /// Further attributes of the group: estimate, error, verdict …
    pub attrs: Vec<(String, Attr)>,
}

/// The bytes of an HDF5 file with one group `/runs/<run_id>` a run, in the given order. A group
/// holds one dataset a column, of shape (chain, draw), chunked by whole chains, shuffled and deflated,
/// and the attributes `target_id`, `sampler` and those given. No runs give an empty `/runs`.
///
/// # Errors
/// As [`write_trace`](super::netcdf::write_trace), and [`IoError::Name`] for a run given twice.
pub fn write_gathered(runs: &[GatheredRun]) -> Result<Vec<u8>, IoError> {
    check_names("run", runs.iter().map(|run| run.run_id))?;
    for run in runs {
        hdf::check(run.trace)?;
    }
    hdf::build(|file| {
        let all = hdf::new_group(file, "runs")?;
        for run in runs {
            let group = hdf::new_group(&all, run.run_id)?;
            let (target_id, sampler) = (Attr::Str(run.target_id.into()), Attr::Str(run.sampler.into()));
            let named = [("target_id", &target_id), ("sampler", &sampler)];
            let given = run.attrs.iter().map(|(name, attr)| (name.as_str(), attr));
            hdf::write_attrs(&group, named.into_iter().chain(given))?;
            for index in 0..run.trace.layout.len() {
                hdf::new_column(&group, run.trace, index)?;
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::super::ffi;
    use super::*;
    use crate::trace::{ChainTrace, Column, Kind};

    fn trace(draws: usize) -> Trace {
        let layout = vec![Column::posterior("llc"), Column::stat("diverging", Kind::Bool)];
        let chain = |c: usize| ChainTrace {
            values: vec![(0..draws).map(|d| (10 * c + d) as f64).collect(), vec![1.0; draws]],
        };
        Trace { layout, chains: (0..2).map(chain).collect() }
    }

    fn run<'a>(run_id: &'a str, trace: &'a Trace) -> GatheredRun<'a> {
        let attrs = vec![("llc_mean".into(), Attr::F64(1.5)), ("n_draws".into(), Attr::I64(3))];
        GatheredRun { run_id, target_id: "tgt", sampler: "hmc", trace, attrs }
    }

    #[test]
    fn every_run_is_a_group_of_datasets_and_attributes() {
        let (a, b) = (trace(3), trace(4));
        let bytes = write_gathered(&[run("hmc_2", &a), run("hmc_10", &b)]).unwrap();
        ffi::with_image(&bytes, |file| {
            let runs = file.group("runs").unwrap();
            assert_eq!(runs.len(), 2);
            let llc: Vec<f64> = runs.dataset("hmc_10/llc").unwrap().read_raw().unwrap();
            assert_eq!(llc, [0., 1., 2., 3., 10., 11., 12., 13.]);
            assert_eq!(runs.dataset("hmc_2/diverging").unwrap().shape(), [2, 3]);
            let group = runs.group("hmc_2").unwrap();
            assert_eq!(group.attr("llc_mean").unwrap().read_scalar::<f64>().unwrap(), 1.5);
            assert_eq!(group.attr("n_draws").unwrap().read_scalar::<i64>().unwrap(), 3);
            let sampler: hdf5::types::VarLenUnicode = group.attr("sampler").unwrap().read_scalar().unwrap();
            assert_eq!(sampler.as_str(), "hmc");
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn bad_names_and_clashes_are_refused() {
        let trace = trace(1);
        let cases = [
            (vec![run("a", &trace), run("a", &trace)], "'a' comes twice"),
            (vec![run("..", &trace)], "place"),
            (vec![run("a/b", &trace)], "'a/b' holds"),
            (
                vec![GatheredRun { attrs: vec![("sampler".into(), Attr::I64(1))], ..run("a", &trace) }],
                "'sampler'",
            ),
        ];
        for (runs, expected) in cases {
            let text = write_gathered(&runs).expect_err(expected).to_string();
            assert!(text.contains(expected), "'{text}' lacks '{expected}'");
        }
    }
}
