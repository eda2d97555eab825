"""Writes arviz.tsv: what ArviZ 0.23.4 and NumPy say of traces that both sides make from a formula.

    pip install arviz==0.23.4 && python make_reference.py > arviz.tsv

A trace is a pure function of its line's first six fields (kind, chains, draws, seed, a, b), by
integer arithmetic and correctly rounded + - * / alone, so that the Rust test makes the same bits.
The field `checksum` is the plain sum of the draws, chain after chain, to catch a difference.
"""

import sys
import warnings

import numpy as np

warnings.simplefilter("ignore")
import arviz as az  # noqa: E402
from scipy.stats.mstats import mquantiles  # noqa: E402

assert az.__version__ == "0.23.4", az.__version__
np.seterr(all="ignore")

MASK = (1 << 64) - 1


class SplitMix64:
    """Steele, Lea, Flood 2014."""

    def __init__(self, seed):
        self.state = seed

    def uniform(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return ((z ^ (z >> 31)) >> 11) * 2.0**-53

    def bell(self):
        """Irwin-Hall: twelve uniforms less six, nearly a standard normal."""
        total = 0.0
        for _ in range(12):
            total += self.uniform()
        return total - 6.0


def chain(kind, c, draws, a, b, rng):
    x, out = 0.0, []
    for i in range(draws):
        e = rng.bell()
        u = 1.0 - rng.uniform()  # in (0, 1]
        half = i >= draws // 2
        if kind == "constant":
            x = a
        elif kind == "stuck":
            x = a + b * c
        elif kind == "scaled":  # iid, location a, scale b
            x = a + b * e
        elif kind == "ar1":
            x = a * x + e
        elif kind == "squared_ar1":
            if i == 0:
                state = 0.0
            state = a * state + e
            x = state * state
        elif kind == "ar2":
            if i == 0:
                before = 0.0
            before, x = x, a * x + b * before + e
        elif kind == "alternating":  # +1, -1, … and noise
            x = (1.0 if i % 2 == 0 else -1.0) + b * e
        elif kind == "periodic":
            x = float(i % int(a)) + b * e
        elif kind == "cauchy":  # tails like 1/x²
            x = (1.0 / u - 1.0) * (1.0 if e > 0.0 else -1.0)
        elif kind == "pareto":  # tails ever heavier
            x = 1.0 / u / u / u
        elif kind == "trend":
            x = a * i + e
        elif kind == "step":
            x = (a if half else 0.0) + b * e
        elif kind == "shifted_last":  # the other chains agree
            x = e + (a if c == b else 0.0)
        elif kind == "scaled_first":
            x = e * (a if c == 0 else 1.0)
        elif kind == "stuck_first":
            x = a if c == 0 else e
        elif kind == "rounded":  # many ties
            x = float(int(a * e))
        elif kind == "rejecting":  # stays with probability a
            x = e if i == 0 or u > a else x
        elif kind == "spike":
            x = 1.0 if i == int(a) else 0.0
        elif kind == "spike_first":
            x = 1.0 if i == int(a) and c == 0 else 0.0
        elif kind == "bimodal":  # leaves its mode with probability a
            if i == 0:
                mode = 1.0 if c % 2 == 0 else -1.0
            if u < a:
                mode = -mode
            x = b * mode + e
        elif kind == "binary":
            x = 1.0 if u < a else 0.0
        elif kind == "poisoned":  # one draw of the last-but-b chain is a
            x = a if i == draws // 3 and c == b else e
        elif kind == "inner_noise":  # constant up to rounding noise
            x = a + b * (1.0 if e > 0.0 else 0.0)
        else:
            raise ValueError(kind)
        out.append(x)
    return out


def trace(kind, chains, draws, seed, a, b):
    rng = SplitMix64(seed)
    return np.array([chain(kind, c, draws, a, b, rng) for c in range(chains)])


def quantile(x, q):
    if np.isinf(x).any() and not np.isnan(x).any():
        # np.quantile takes inf - inf between equal infinities; ArviZ calls this one, equal otherwise.
        return mquantiles(x.ravel(), q, alphap=1, betap=1)[0]
    return np.quantile(x, q)


def shown(x):
    return repr(float(x))


def reference(kind, chains, draws, seed, a, b):
    x = trace(kind, chains, draws, seed, a, b)
    checksum = 0.0
    for value in x.ravel().tolist():
        checksum += value
    rho = az.autocorr(x[0])
    fields = [
        checksum,
        x.mean(),
        x.std(ddof=1) if x.size > 1 else np.nan,
        quantile(x, 0.05),
        quantile(x, 0.5),
        quantile(x, 0.9),
        az.ess(x, method="mean"),
        az.ess(x, method="bulk"),
        az.ess(x, method="tail"),
        az.ess(x, method="quantile", prob=0.3),
        az.ess(x, method="sd"),
        az.rhat(x, method="rank"),
        az.mcse(x, method="mean"),
        az.bfmi(x[0])[0] if draws > 1 else np.nan,
        rho[1] if draws > 1 else np.nan,
        rho[draws // 3],
        az.mcse(x, method="sd"),
        az.mcse(x, method="quantile", prob=0.05),
        az.mcse(x, method="quantile", prob=0.5),
        az.mcse(x, method="quantile", prob=0.9),
    ]
    name = [kind, str(chains), str(draws), str(seed), shown(a), shown(b)]
    return "\t".join(name + [shown(f) for f in fields])


HEAD = (
    "kind chains draws seed a b checksum mean sd q05 q50 q90 ess_mean ess_bulk ess_tail ess_q30 "
    "ess_sd r_hat mcse_mean e_bfmi rho_1 rho_third mcse_sd mcse_q05 mcse_q50 mcse_q90"
)

inf, nan = float("inf"), float("nan")


def cases():
    # Every way of being short, odd or few.
    for draws in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 15, 16, 17, 31):
        for chains in (1, 2, 4):
            yield "scaled", chains, draws, 1.0, 2.0
    for draws in (100, 101, 999, 1000, 2048):
        for chains in (1, 2, 3, 4, 8, 9):
            yield "ar1", chains, draws, 0.5, 0.0
    # Correlation of both signs, up to never moving.
    for phi in (-0.999, -0.99, -0.9, -0.6, -0.3, 0.0, 0.1, 0.3, 0.7, 0.9, 0.99, 0.999, 1.0):
        for chains in (1, 4):
            yield "ar1", chains, 500, phi, 0.0
        yield "squared_ar1", 4, 501, phi, 0.0
    # Nothing moves, or hardly.
    for value in (0.0, 1.0, 0.1, -3.7, 1e300, inf, -inf, nan):
        yield "constant", 4, 100, value, 0.0
        yield "constant", 1, 25, value, 0.0
    for a, b in ((0.0, 1.0), (0.1, 0.7), (1e6, 1e-3)):
        yield "stuck", 4, 100, a, b
        yield "stuck", 2, 51, a, b
    for a, b in ((0.0, 1e-15), (0.0, 1e-16), (1.0, 1e-15), (1.0, 1e-14), (1e6, 1e-9)):
        yield "inner_noise", 4, 100, a, b
    # Scales and offsets.
    for a, b in ((1e10, 1.0), (-1e7, 1e-2), (0.0, 1e-8), (0.0, 1e-12), (0.0, 1e-20), (0.0, 1e100), (0.0, 1e160)):
        yield "scaled", 4, 200, a, b
    # Patterns.
    for noise in (0.0, 0.01, 1.0):
        for draws in (50, 101, 400):
            yield "alternating", 4, draws, 0.0, noise
            yield "periodic", 4, draws, 3.0, noise
            yield "periodic", 1, draws, 7.0, noise
    # Tails.
    for chains in (1, 4):
        for draws in (40, 1000):
            yield "cauchy", chains, draws, 0.0, 0.0
            yield "pareto", chains, draws, 0.0, 0.0
    # Chains that disagree, with each other or with themselves.
    for a in (0.01, 1e-3, 1.0):
        yield "trend", 4, 300, a, 0.0
        yield "trend", 1, 300, a, 0.0
    for a, b in ((1.0, 1.0), (5.0, 0.0), (100.0, 0.1)):
        yield "step", 4, 300, a, b
        yield "step", 1, 77, a, b
    for a in (0.1, 1.0, 10.0):
        yield "shifted_last", 4, 250, a, 3.0
        yield "shifted_last", 2, 250, a, 1.0
    for a in (0.0, 0.1, 10.0, 1e6):
        yield "scaled_first", 4, 250, a, 0.0
        yield "stuck_first", 4, 250, a, 0.0
    for a, b in ((0.0, 3.0), (0.01, 3.0), (0.2, 1.0)):
        yield "bimodal", 4, 400, a, b
        yield "bimodal", 1, 400, a, b
    # Ties.
    for a in (0.3, 1.0, 4.0):
        yield "rounded", 4, 300, a, 0.0
        yield "rounded", 1, 64, a, 0.0
    for a in (0.5, 0.9, 0.99):
        yield "rejecting", 4, 600, a, 0.0
        yield "rejecting", 1, 600, a, 0.0
    for a in (0.01, 0.05, 0.5, 0.97):
        yield "binary", 4, 300, a, 0.0
    for a in (0.0, 50.0, 99.0):
        yield "spike", 4, 100, a, 0.0
        yield "spike", 1, 100, a, 0.0
        yield "spike_first", 4, 100, a, 0.0
    # Not numbers.
    for a in (nan, inf, -inf):
        yield "poisoned", 4, 120, a, 2.0
        yield "poisoned", 1, 120, a, 0.0
    # Oscillations; the first ones have a second pair of autocorrelations above the first pair.
    for a, b in ((-1.15, -0.95), (-1.1, -0.9), (0.5, -0.95), (1.6, -0.7), (0.0, 0.9)):
        yield "ar2", 1, 61, a, b
        yield "ar2", 1, 200, a, b
        yield "ar2", 4, 200, a, b



if __name__ == "__main__":
    print(HEAD.replace(" ", "\t"))
    for seed, case in enumerate(cases(), start=1):
        kind, chains, draws, a, b = case
        print(reference(kind, chains, draws, seed, a, b), file=sys.stdout)
