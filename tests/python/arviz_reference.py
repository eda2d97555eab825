"""What ArviZ says of traces: python arviz_reference.py TRACES.npz > TABLE.tsv

TRACES.npz holds arrays of shape (chain, draw). A line a trace, in the order of their names: the name, then
the statistics of the heading, with all digits; `nan` where ArviZ has no answer.
"""

import sys
import warnings

import numpy as np

warnings.simplefilter("ignore")
import arviz as az  # noqa: E402

np.seterr(all="ignore")

QUANTILES = (0.05, 0.25, 0.5, 0.9)


def statistics(x):
    yield "ess_mean", az.ess(x, method="mean")
    yield "ess_bulk", az.ess(x, method="bulk")
    yield "ess_tail", az.ess(x, method="tail")
    yield "ess_sd", az.ess(x, method="sd")
    yield "r_hat", az.rhat(x, method="rank")
    yield "mcse_mean", az.mcse(x, method="mean")
    yield "mcse_sd", az.mcse(x, method="sd")
    for q in QUANTILES:
        yield f"ess_q{q}", az.ess(x, method="quantile", prob=q)
        yield f"mcse_q{q}", az.mcse(x, method="quantile", prob=q)
    # A chain of one draw has no energy that changes, and ArviZ no answer.
    yield "e_bfmi", az.bfmi(x[0])[0] if x.shape[1] > 1 else np.nan


def main(path):
    traces = np.load(path, allow_pickle=False)
    for index, name in enumerate(sorted(traces.files)):
        row = dict(statistics(traces[name]))
        if index == 0:
            print("\t".join(["trace", *row]))
        print("\t".join([name, *(repr(float(value)) for value in row.values())]))


if __name__ == "__main__":
    main(sys.argv[1])
