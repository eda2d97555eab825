"""Files of a finished sweep, opened by the libraries users have, and their numbers computed again.

LAMBDA_HAT_ROOT names the sweep's root: runs/targets/tgt_*/run_*/ and results/.
"""

import json
import os
import warnings
from pathlib import Path

import arviz as az
import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr

ROOT = Path(os.environ["LAMBDA_HAT_ROOT"])
TARGETS = sorted(ROOT.glob("runs/targets/tgt_*"))
TRACES = sorted(ROOT.glob("runs/targets/tgt_*/run_*/trace.nc"))
ENGINES = ["netcdf4", "h5netcdf"]

# Ours and ArviZ's arithmetic differ in the order of sums and in the normal quantiles of ranks.
RELATIVE = 1e-6

by_run = pytest.mark.parametrize("trace", TRACES, ids=lambda path: path.parent.name)
by_engine = pytest.mark.parametrize("engine", ENGINES)
by_target = pytest.mark.parametrize("target", TARGETS, ids=lambda path: path.name)


def analysis_of(trace):
    return json.loads((trace.parent / "analysis.json").read_text())


def same(ours, theirs):
    """Null with us is NaN there."""
    if ours is None:
        return not np.isfinite(theirs)
    return ours == pytest.approx(theirs, rel=RELATIVE)


def test_the_sweep_left_something_to_check():
    assert TARGETS and TRACES
    assert (ROOT / "results/llc_runs.parquet").exists()
    assert list(ROOT.glob("results/*.h5"))


@by_run
@by_engine
def test_arviz_opens_every_trace(trace, engine):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = az.from_netcdf(trace, engine=engine)
    assert data.groups() == ["posterior", "sample_stats"]
    assert {"llc", "L"} <= set(data.posterior.data_vars)
    assert data.sample_stats.data_vars
    analysis = analysis_of(trace)
    for group in (data.posterior, data.sample_stats):
        for name, variable in group.data_vars.items():
            assert variable.dims == ("chain", "draw"), name
            assert variable.shape == (analysis["n_chains"], analysis["n_draws"]), name


@by_run
@by_engine
def test_xarray_opens_every_trace(trace, engine):
    with xr.open_dataset(trace, group="posterior", engine=engine) as posterior:
        assert np.isfinite(posterior["llc"]).all() and np.isfinite(posterior["L"]).all()


@by_run
def test_arviz_computes_our_diagnostics(trace):
    llc = az.from_netcdf(trace).posterior["llc"]
    analysis = analysis_of(trace)
    assert same(analysis["llc_mean"], float(llc.mean()))
    for key, theirs in {
        "ess_bulk": az.ess(llc, method="bulk"),
        "ess_tail": az.ess(llc, method="tail"),
        "ess_mean": az.ess(llc, method="mean"),
        "r_hat": az.rhat(llc),
        "llc_mcse": az.mcse(llc, method="mean"),
    }.items():
        theirs = float(theirs["llc"])
        assert same(analysis[key], theirs), f"{key}: {analysis[key]} here, {theirs} in ArviZ"


@by_target
def test_numpy_opens_every_array(target):
    files = [path for path in (target / "data.npz", target / "params.npz") if path.exists()]
    assert target / "params.npz" in files
    for path in files:
        with np.load(path, allow_pickle=False) as arrays:
            assert list(arrays)
            for name in arrays:
                array = arrays[name]
                assert array.dtype.kind in "fiuU", f"{path.name} {name}"
                assert array.dtype.kind != "f" or np.isfinite(array).all(), f"{path.name} {name}"


def test_h5py_opens_the_gathered_runs():
    for path in ROOT.glob("results/*.h5"):
        with h5py.File(path) as file:
            assert len(file["runs"])
            for name, run in file["runs"].items():
                assert run.attrs["target_id"] and run.attrs["sampler"]
                assert run["llc"].ndim == 2 and run["llc"].shape == run["L"].shape, name


def test_pandas_reads_one_row_a_run():
    table = pd.read_parquet(ROOT / "results/llc_runs.parquet", engine="pyarrow")
    assert table["run_id"].is_unique
    rows = table.set_index("run_id")
    for trace in TRACES:
        analysis = analysis_of(trace)
        row = rows.loc[analysis["run_id"]]
        shared = set(analysis) & set(rows.columns)
        assert {"llc_mean", "llc_mcse", "ess_bulk", "r_hat", "verdict"} <= shared
        for key in shared:
            value = analysis[key]
            if value is None:
                assert pd.isna(row[key]), key
            elif isinstance(value, (int, float, str)):
                assert row[key] == value, key
