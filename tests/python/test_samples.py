"""Small files of known content, one a format, opened by the libraries users have.

LAMBDA_HAT_SAMPLES names the folder that the Rust test `python_reads_every_format` wrote.
"""

import os
import warnings
from pathlib import Path

import arviz as az
import h5py
import netCDF4
import numpy as np
import pandas as pd
import pytest
import xarray as xr

FOLDER = Path(os.environ["LAMBDA_HAT_SAMPLES"])
ENGINES = ["netcdf4", "h5netcdf"]


def numbers(chains, draws):
    c, d = np.meshgrid(np.arange(chains), np.arange(draws), indexing="ij")
    return (c * 37 + d * 11) % 101


def check_posterior(posterior, chains, draws):
    x = numbers(chains, draws)
    assert set(posterior.data_vars) == {"llc", "L"}
    assert posterior["llc"].dims == ("chain", "draw")
    assert posterior["llc"].dtype == np.float64
    assert np.array_equal(posterior["llc"], x / 8)
    assert np.array_equal(posterior["L"], -x)
    for name, length in [("chain", chains), ("draw", draws)]:
        assert posterior[name].dtype == np.int64
        assert np.array_equal(posterior[name], np.arange(length))


def check_stats(stats, chains, draws):
    assert set(stats.data_vars) == {"energy", "n_steps", "diverging"}
    assert stats["energy"].isnull().all()
    assert stats["n_steps"].dtype == np.int64
    assert np.array_equal(stats["n_steps"], numbers(chains, draws))
    assert stats["diverging"].dtype == bool
    assert np.array_equal(stats["diverging"], np.tile(np.arange(draws) % 5 == 0, (chains, 1)))


@pytest.mark.parametrize("engine", ENGINES)
def test_arviz_opens_the_trace(engine):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = az.from_netcdf(FOLDER / "trace.nc", engine=engine)
    assert data.groups() == ["posterior", "sample_stats"]
    check_posterior(data.posterior, 4, 200)
    check_stats(data.sample_stats, 4, 200)
    assert data.attrs["run_id"] == "0123"
    assert data.attrs["config"] == '{"λ": 1}'
    assert data.attrs["empty"] == ""
    assert data.attrs["beta"] == 0.25
    assert data.attrs["seed"] == 12345
    assert np.isfinite(az.summary(data, var_names=["llc"])["mean"]).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_arviz_opens_the_control_chain(engine):
    data = az.InferenceData.from_netcdf(FOLDER / "trace.nc", engine=engine, base_group="control")
    check_posterior(data.posterior, 1, 50)
    check_stats(data.sample_stats, 1, 50)


@pytest.mark.parametrize("engine", ENGINES)
def test_xarray_opens_every_group(engine):
    with xr.open_dataset(FOLDER / "trace.nc", group="posterior", engine=engine) as posterior:
        check_posterior(posterior, 4, 200)
    with xr.open_dataset(FOLDER / "trace.nc", group="sample_stats", engine=engine) as stats:
        check_stats(stats, 4, 200)


def test_netcdf_sees_dimensions_and_order():
    with netCDF4.Dataset(FOLDER / "trace.nc") as data:
        assert data.data_model == "NETCDF4"
        group = data["posterior"]
        assert list(group.variables) == ["chain", "draw", "llc", "L"]
        assert {name: len(d) for name, d in group.dimensions.items()} == {"chain": 4, "draw": 200}
        assert list(data.ncattrs()) == ["run_id", "config", "empty", "beta", "seed", *(f"a{i}" for i in range(20))]


def test_netcdf_can_add_to_the_trace(tmp_path):
    copy = tmp_path / "trace.nc"
    copy.write_bytes((FOLDER / "trace.nc").read_bytes())
    with netCDF4.Dataset(copy, "a") as data:
        data["posterior"].createVariable("twice", "f8", ("chain", "draw"))[:] = 2.0
    with xr.open_dataset(copy, group="posterior") as posterior:
        assert (posterior["twice"] == 2.0).all()


def test_dimension_scales_are_attached_both_ways():
    with h5py.File(FOLDER / "trace.nc") as file:
        llc = file["posterior/llc"]
        assert [llc.dims[i][0].name for i in range(2)] == ["/posterior/chain", "/posterior/draw"]
        assert llc.chunks == llc.shape == (4, 200) and llc.shuffle and llc.compression == "gzip"
        references = file["posterior/draw"].attrs["REFERENCE_LIST"]
        assert [(file[r["dataset"]].name, int(r["dimension"])) for r in references] == [
            ("/posterior/llc", 1),
            ("/posterior/L", 1),
        ]


def test_h5py_opens_the_gathered_runs():
    with h5py.File(FOLDER / "gathered.h5") as file:
        assert set(file["runs"]) == {f"hmc_{i}" for i in range(20)}
        run = file["runs/hmc_17"]
        assert run.attrs["target_id"] == "tgt_1" and run.attrs["sampler"] == "hmc"
        assert run.attrs["llc_mean"] == 17.0
        assert np.array_equal(run["llc"], numbers(4, 200) / 8)
        assert run["n_steps"].dtype == np.int64


def test_numpy_opens_the_arrays():
    with np.load(FOLDER / "data.npz", allow_pickle=False) as data:
        assert list(data) == ["X", "Y", "widths", "mask", "spec", "empty"]
        for name, expected in {
            "X": np.arange(6.0).reshape(2, 3),
            "Y": np.array([0.5, -0.5], "f4"),
            "widths": np.array([4, -2, 1]),
            "mask": np.array([[0, 255]], "u1"),
            "spec": np.array('{"λ": [1, 2.5]}'),
            "empty": np.array(""),
        }.items():
            assert data[name].dtype == expected.dtype, name
            assert data[name].shape == expected.shape, name
            assert np.array_equal(data[name], expected), name


def test_pandas_opens_the_table():
    table = pd.read_parquet(FOLDER / "llc_runs.parquet", engine="pyarrow")
    assert list(table) == ["run_id", "llc_mean", "n_draws", "ok"]
    assert table["run_id"][0] == "hmc_1" and table["llc_mean"][0] == 1.5
    assert table["n_draws"][1] == 200 and bool(table["ok"][0]) is True
    assert table.isna().to_numpy().tolist() == [[False, False, True, False], [True, True, False, True]]
