"""Journals of studies, read by Optuna.

LAMBDA_HAT_STUDIES names the file in which the Rust test `optuna_reads_the_journals` wrote what to expect.
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
import warnings
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

FILE = Path(os.environ["LAMBDA_HAT_STUDIES"])
EXPECTED = json.loads(FILE.read_text())
ONE, TWO = "p_0123456789ab:sgld", "p_0123456789ab:two"


def load(name):
    storage = JournalStorage(JournalFileBackend(EXPECTED[name]["path"]))
    return optuna.load_study(study_name=name, storage=storage)


@pytest.mark.parametrize("name", [ONE, TWO])
def test_trials_are_those_of_the_study(name):
    study = load(name)
    assert study.user_attrs["method"] == "sgld"
    assert len(study.directions) == (2 if name == TWO else 1)
    trials = study.trials
    assert len(trials) == len(EXPECTED[name]["trials"])
    for trial, expected in zip(trials, EXPECTED[name]["trials"]):
        assert trial.state.name == expected["state"]
        assert trial.params == expected["params"]
        assert set(trial.distributions) == set(trial.params)
        assert trial.user_attrs["trial_id"] == expected["id"]
        assert trial.user_attrs.get("reason") == expected["reason"]
        assert trial.intermediate_values == {step: value for step, value in expected["steps"]}
        assert trial.values == expected["values"]
        if trial.state.is_finished():
            assert trial.duration.total_seconds() >= 0
        for key, distribution in trial.distributions.items():
            assert distribution._contains(distribution.to_internal_repr(trial.params[key]))


def test_distributions_are_those_of_the_space():
    trial = next(t for t in load(ONE).trials if "beta1" in t.params)
    d = optuna.distributions
    assert trial.distributions == {
        "step_size": d.FloatDistribution(1e-6, 0.1, log=True),
        "decay": d.FloatDistribution(0, 1, step=0.125),
        "steps": d.IntDistribution(5000, 20000, step=1000),
        "rank": d.IntDistribution(1, 64, log=True),
        "precond": d.CategoricalDistribution(["adam", "rmsprop", None, True]),
        "beta1": d.FloatDistribution(0.5, 0.99),
    }


def test_the_best_and_the_front_are_the_same():
    assert load(ONE).best_trial.number == EXPECTED[ONE]["best"]
    assert sorted(t.number for t in load(TWO).best_trials) == EXPECTED[TWO]["front"]


def test_frames_and_figures_are_made():
    frame = load(ONE).trials_dataframe()
    assert len(frame) == len(EXPECTED[ONE]["trials"])
    assert {"params_step_size", "state", "duration", "user_attrs_fge", "user_attrs_reason"} <= set(frame.columns)
    view = optuna.visualization
    figures = [
        view.plot_optimization_history,
        view.plot_intermediate_values,
        view.plot_parallel_coordinate,
        view.plot_slice,
        view.plot_edf,
        view.plot_timeline,
        view.plot_rank,
        view.plot_contour,
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for figure in figures:
            assert figure(load(ONE)).data, figure.__name__
        assert view.plot_pareto_front(load(TWO)).data


def test_importance_names_the_same_parameter_first():
    # Optuna leaves out parameters that are not in every trial.
    theirs = optuna.importance.get_param_importances(load(ONE))
    ours = EXPECTED[ONE]["importance"]
    assert next(iter(theirs)) == ours[0][0] == "step_size"


def test_optuna_goes_on_with_a_copy_and_exports_it(tmp_path):
    study = load(ONE)
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    optuna.copy_study(
        from_study_name=ONE,
        from_storage=study._storage,
        to_storage=url,
    )
    copied = optuna.load_study(study_name=ONE, storage=url)
    assert [t.params for t in copied.trials] == [t.params for t in study.trials]
    assert copied.best_value == study.best_value


def test_the_dashboard_starts():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = "from optuna_dashboard._cli import main; main()"
    command = [sys.executable, "-c", code, EXPECTED[ONE]["path"], "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies", timeout=5) as answer:
                    studies = json.load(answer)["study_summaries"]
                break
            except OSError:
                assert server.poll() is None, "it ended"
                time.sleep(0.1)
        assert [s["study_name"] for s in studies] == [ONE]
    finally:
        server.kill()
        server.wait()
