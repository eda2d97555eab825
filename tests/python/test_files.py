"""Files of a finished sweep, opened by the libraries users have, and their numbers computed again.

LAMBDA_HAT_ROOT names the sweep's root: runs/targets/tgt_*/run_*/, results/ and, made by
`artifacts tb` and `artifacts export`, tb/ and tiny.tar.
"""

import json
import os
import re
import warnings
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import arviz as az
import h5py
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import polars as pl
import pytest
import xarray as xr
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

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


CONFIGURED = ["sampler.", "posterior.", "target."]


def test_settings_that_vary_are_columns_and_csv_and_parquet_agree():
    table = pd.read_parquet(ROOT / "results/llc_runs.parquet", engine="pyarrow")
    columns = [name for name in table if any(name.startswith(part) for part in CONFIGURED)]
    assert {"target.problem", "sampler.step_size"} <= set(columns), columns
    for _, row in table.iterrows():
        settings = json.loads(row["settings"])["sampler"]["algo"][row["sampler"]]
        assert row["sampler.step_size"] == settings["step_size"]
    for name in columns:
        assert table[name].nunique(dropna=False) > 1, name
    text = pd.read_csv(ROOT / "results/llc_runs.csv")
    assert list(text) == list(table) and len(text) == len(table)
    for name in table:
        for ours, theirs in zip(text[name], table[name], strict=True):
            # An empty text and a null are one in CSV.
            empty = pd.isna(ours) and (pd.isna(theirs) or theirs == "")
            assert empty or ours == theirs, f"{name}: {ours!r} in CSV, {theirs!r} in Parquet"


def test_polars_reads_what_pandas_reads():
    for path, read in [("llc_runs.parquet", pl.read_parquet), ("llc_runs.csv", pl.read_csv)]:
        table = read(ROOT / "results" / path)
        assert table.height == len(TRACES)
        pandas = pd.read_parquet(ROOT / "results/llc_runs.parquet")
        assert table.columns == list(pandas)
        assert table["llc_mean"].to_list() == pandas["llc_mean"].tolist()
        assert table["llc_mean"].dtype == pl.Float64 and table["n_draws"].dtype == pl.Int64


def events_of(path):
    accumulator = EventAccumulator(str(path), size_guidance={"scalars": 0}).Reload()
    return {tag: accumulator.Scalars(tag) for tag in accumulator.Tags()["scalars"]}


@by_run
def test_tensorboard_reads_the_curves_of_a_run(trace):
    analysis = analysis_of(trace)
    (folder,) = ROOT.glob(f"tb/*/*_{analysis['sampler']}_{analysis['run_id'][:8]}")
    curves = events_of(folder)
    assert {"llc/running_mean", "llc/draw_mean", "fge/cumulative", "step_size"} <= set(curves)
    with xr.open_dataset(trace, group="posterior") as posterior, xr.open_dataset(
        trace, group="sample_stats"
    ) as stats:
        work = stats["cumulative_fge"].sum("chain").to_numpy()
        sums = posterior["llc"].mean("chain").to_numpy().cumsum()
        means = sums / np.arange(1, len(sums) + 1)
    running = curves["llc/running_mean"]
    # Event files hold 32 bits of a number.
    assert running[-1].value == pytest.approx(analysis["llc_mean"], rel=1e-6)
    assert [event.step for event in running] == np.floor(work).astype(int).tolist()
    assert [event.value for event in running] == pytest.approx(means.tolist(), rel=1e-6)
    assert [event.value for event in curves["fge/cumulative"]] == pytest.approx(work.tolist(), rel=1e-6)
    assert curves["step_size"][0].value == pytest.approx(analysis["step_size"], rel=1e-6)
    # Times end when the run was recorded as done, and last as long as it took.
    provenance = json.loads((trace.parent / "manifest.json").read_text())["provenance"]
    end = pd.Timestamp(provenance["when"]).timestamp()
    assert running[-1].wall_time == end
    assert end - running[0].wall_time == pytest.approx(provenance["seconds"], abs=1e-3)


@by_target
def test_tensorboard_reads_the_training_loss_of_a_trained_target(target):
    meta = json.loads((target / "meta.json").read_text())
    folders = list(ROOT.glob(f"tb/*/*_tgt_{meta['target_id'][:8]}"))
    if meta["training"] is None:
        assert folders == []
        return
    loss = events_of(folders[0])["training/loss"]
    assert [event.step for event in loss] == [step for step, _ in meta["training"]["history"]]
    assert [event.value for event in loss] == pytest.approx([x for _, x in meta["training"]["history"]], rel=1e-6)


@by_run
@pytest.mark.parametrize("plot", [az.plot_trace, az.plot_rank, az.plot_energy], ids=lambda plot: plot.__name__)
def test_arviz_draws_a_trace(trace, plot):
    data = az.from_netcdf(trace)
    if plot is az.plot_energy:
        # Samplers with an energy have it under the name that ArviZ looks for; others have none.
        assert ("energy" in data.sample_stats) == (analysis_of(trace)["e_bfmi"] is not None)
        if "energy" not in data.sample_stats:
            return
        plot(data)
    else:
        plot(data, var_names=["llc"])
    figure = plt.gcf()
    figure.canvas.draw()
    assert figure.axes and any(axes.has_data() for axes in figure.axes)
    plt.close("all")


def examples():
    """The Python of docs/formats.md: the first block is the beginning of all others."""
    text = (Path(__file__).parents[2] / "docs/formats.md").read_text()
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(1, len(examples())))
def test_the_examples_of_the_documentation_run(number, monkeypatch):
    monkeypatch.chdir(ROOT)
    names = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error", SyntaxWarning)
        exec(compile(examples()[0] + examples()[number], f"docs/formats.md, example {number}", "exec"), names)
    plt.close("all")


def test_the_documentation_has_an_example_of_every_file():
    text = "".join(examples())
    for name in [
        "trace.nc", "analysis.json", "timing.json", "manifest.json", "meta.json", "data.npz", "params.npz",
        "results/tiny.h5", "llc_runs.parquet", "llc_runs.csv", "tiny.manifest.json", "tb/tiny", "tiny.tar",
        "_catalog.jsonl", "_runs.jsonl", "tiny.status.json",
    ]:
        assert name in text, name
