"""`make bench-five-percent`: time and work until λ̂ is known within 5 %, on the preset target base/base.

    five_percent.py PROGRAM

PROGRAM is the lambda-hat-mpi binary: hmc and mclmc as their presets are, sgld with its `step_size: auto`. Beside it,
BlackJAX with the settings of the tool that these presets come from: HMC after 200 steps of window adaptation, MCLMC
after 500 steps of its own, SGLD at its customary step of 1e-6, four chains as one program, on the same data from the same
w*. The two sides run at the same time, each with one thread on a core of its own; seconds are of processor time.

A run is *there* after the first number of draws, the same in all four chains, that brings the Monte-Carlo standard error of
their mean to 5 % of it, with R-hat at most 1.1. Both sides' draws are judged by the same functions (BlackJAX's). Time is that
of warmup and draws so far, of all chains, and of our control chain, half as long; compilation is left out. Work is in full
gradients (FGE); a loss alone counts a third.
"""

import datetime
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

HERE = Path(__file__).parent
CHAINS = 4
WITHIN = 0.05
MOST_R_HAT = 1.1
# Draws a chain below which standard errors mean nothing.
FEWEST = 20
# Seconds of draws after which the other side is given up.
PATIENCE = 240
TARGET = "targets: [{ model: base, data: base, teacher: _null, seed: 42 }]\n"
LOSS_COST = 1 / 3


def judged(draws):
    """Mean, standard error and R-hat of draws by chain."""
    from blackjax.diagnostics import effective_sample_size, potential_scale_reduction

    draws = np.asarray(draws, float)
    error = draws.std(ddof=1) / math.sqrt(float(effective_sample_size(draws)))
    half = draws.shape[1] // 2
    halves = np.concatenate([draws[:, :half], draws[:, -half:]])
    return float(draws.mean()), error, float(potential_scale_reduction(halves))


def there(draws):
    """The first number of draws a chain with which λ̂ is within the bar, and how it then stands."""
    n = FEWEST
    while n <= draws.shape[1]:
        mean, error, r_hat = judged(draws[:, :n])
        if error <= WITHIN * abs(mean) and r_hat <= MOST_R_HAT:
            return n, mean, error
        n = max(n + 1, n * 21 // 20)
    return None


# Our side.


def sweep(program, root, name, samplers, core=None):
    path = Path(root) / f"{name}.yaml"
    path.write_text(f"experiment: {name}\n{TARGET}samplers:\n{samplers}")
    pin = None if core is None else (lambda: os.sched_setaffinity(0, {core}))
    command = [program, path, "--local", "--workers", "1", "--root", root, "-q"]
    return subprocess.Popen(command, preexec_fn=pin, stdout=subprocess.DEVNULL)


OURS = """\
  - { name: hmc, overrides: { draws: 40 } }
  - { name: mclmc, overrides: { draws: 24 } }
  - { name: sgld, overrides: { steps: 40000, warmup: 4000 } }
"""


def ours(root, processor_seconds):
    """A row for each finished run below `root`."""
    rows = list(measured(root))
    # Units are timed by the clock; the process as a whole has had this share of it.
    share = processor_seconds / sum(row.pop("all") for row in rows)
    for row in rows:
        row["seconds"] *= share
        row["warmup"] *= share
    return rows


def measured(root):
    for folder in sorted(Path(root).glob("runs/targets/tgt_*/run_*")):
        manifest = json.loads((folder / "manifest.json").read_text())
        timing = json.loads((folder / "timing.json").read_text())
        seconds = {unit["unit"]: unit["seconds"] for unit in timing["units"]}
        analysis = json.loads((folder / "analysis.json").read_text())
        with h5py.File(folder / "trace.nc") as trace:
            draws = trace["posterior/llc"][:]
            work = trace["sample_stats/cumulative_fge"][:]
        if draws.shape[1] < FEWEST:
            # The run that the target was built for.
            continue
        found = there(draws)
        n = found[0] if found else draws.shape[1]
        chains = [seconds[f"chain {chain}"] for chain in range(CHAINS)]
        share = [fge[n - 1] / fge[-1] for fge in work]
        # The warmup, the same for any number of draws. The control chain, half as long as a chain, is in it.
        before = seconds.get("warmup", 0.0)
        control = seconds.get("control", 0.0) * share[0]
        fge = {"chains": sum(float(fge[n - 1]) for fge in work)}
        fge["others"] = analysis["fge_warmup"] + analysis["fge_sampling"] - sum(float(fge[-1]) for fge in work)
        yield {
            "sampler": manifest["sampler"], "draws": n, "found": found,
            "seconds": before + control + sum(s * part for s, part in zip(chains, share)),
            "fge": fge["chains"] + fge["others"], "whole": judged(draws), "warmup": before, "all": sum(seconds.values()),
        }  # fmt: skip


# Their side, in a process of its own for each sampler.


def theirs(target, what, number):
    import jax

    jax.config.update("jax_enable_x64", number == "f64")
    import blackjax
    import jax.numpy as jnp

    meta = json.loads((target / "meta.json").read_text())
    dtype = {"f32": "float32", "f64": "float64"}[number]
    with np.load(target / "data.npz") as data, np.load(target / "params.npz") as params:
        x, y, centre = (jnp.asarray(a.astype(dtype)) for a in (data["X"], data["Y"], params["flat"]))
        shapes = json.loads(str(params["layer_shapes"]))
    n, nbeta = x.shape[0], x.shape[0] / math.log(x.shape[0])

    def loss(w, x, y):
        at = 0
        for i in range(0, len(shapes), 2):
            outputs, inputs = shapes[i]
            weight = w[at : at + inputs * outputs].reshape(outputs, inputs)
            at += inputs * outputs
            x = x @ weight.T + w[at : at + outputs]
            at += outputs
            if i + 2 < len(shapes):
                x = jnp.maximum(x, 0)
        return jnp.mean((x - y) ** 2)

    def log_density(w):
        away = w - centre
        return -(nbeta * loss(w, x, y) + 0.5 * jnp.dot(away, away))

    def compiled(function, *arguments):
        return jax.jit(function).lower(*arguments).compile()

    def timed(program, *arguments):
        began = time.process_time()
        result = jax.block_until_ready(program(*arguments))
        return result, time.process_time() - began

    full = jax.jit(lambda w: loss(w, x, y))
    l0 = float(full(centre))
    if abs(l0 / meta["l0"] - 1) > {"f32": 1e-4, "f64": 1e-9}[number]:
        raise SystemExit(f"{l0} here and {meta['l0']} there: not the same loss")
    keys = jax.random.split(jax.random.key(11), CHAINS + 1)

    if what == "hmc":
        warmup = blackjax.window_adaptation(
            blackjax.hmc, log_density, initial_step_size=0.01, target_acceptance_rate=0.9, num_integration_steps=10,
            adaptation_info_fn=lambda *_: None,
        )  # fmt: skip
        adapt = compiled(lambda key: warmup.run(key, centre, num_steps=200)[0], keys[0])
        (state, parameters), before = timed(adapt, keys[0])
        kernel = blackjax.hmc(log_density, **parameters)
        fge_before, fge_a_draw, block = 200 * 10.0, 10.0, 1
        states = jax.tree.map(lambda leaf: jnp.stack([leaf] * CHAINS), state)
    elif what == "mclmc":
        from blackjax.adaptation.mclmc_adaptation import MCLMCAdaptationState

        build = blackjax.mcmc.mclmc.build_kernel()
        first = MCLMCAdaptationState(L=1.0, step_size=0.1, inverse_mass_matrix=jnp.ones_like(centre))
        state = blackjax.mcmc.mclmc.init(centre, log_density, keys[0])

        def tune(state, key):
            return blackjax.mclmc_find_L_and_step_size(
                build, 500, state, key, log_density, params=first, frac_tune1=0.1, frac_tune2=0.1, frac_tune3=0.1,
                desired_energy_var=5e-5, trust_in_estimate=1.0, num_effective_samples=150, diagonal_preconditioning=False,
            )[:2]  # fmt: skip

        adapt = compiled(tune, state, keys[0])
        (state, parameters), before = timed(adapt, state, keys[0])
        kernel = blackjax.mclmc(log_density, L=parameters.L, step_size=parameters.step_size)
        fge_before, fge_a_draw, block = 150 * 2.0, 2.0, 5
        states = jax.tree.map(lambda leaf: jnp.stack([leaf] * CHAINS), state)
    else:
        slope = jax.grad(lambda w, rows: loss(w, x[rows], y[rows]))
        sampler = blackjax.sgld(lambda w, rows: -(nbeta * slope(w, rows) + (w - centre)))
        eval_every, before, fge_before, block = 50, 0.0, 0.0, 4
        fge_a_draw = eval_every * 256 / n + LOSS_COST
        states = jnp.stack([centre] * CHAINS)

    def draw(state, key):
        if what != "sgld":
            state, _ = kernel.step(key, state)
            # Its log density gives the loss without another pass.
            away = state.position - centre
            return state, -(state.logdensity + 0.5 * jnp.dot(away, away)) / nbeta

        def step(w, key):
            rows_key, noise_key = jax.random.split(key)
            rows = jax.random.randint(rows_key, (256,), 0, n)
            return sampler.step(noise_key, w, rows, 1e-6), None

        w, _ = jax.lax.scan(step, state, jax.random.split(key, eval_every))
        return w, loss(w, x, y)

    def several(state, key):
        return jax.lax.scan(draw, state, jax.random.split(key, block))

    advance = compiled(jax.vmap(several), states, keys[1:])
    draws, seconds, found = np.zeros((CHAINS, 0)), 0.0, None
    while found is None and seconds < PATIENCE:
        count = draws.shape[1]
        at = jax.vmap(lambda key: jax.random.fold_in(key, count))(keys[1:])
        (states, losses), spent = timed(advance, states, at)
        seconds += spent
        draws = np.concatenate([draws, nbeta * (np.asarray(losses, float) - l0)], axis=1)
        if not np.isfinite(draws).all():
            break
        if draws.shape[1] >= FEWEST:
            now = judged(draws)
            if now[1] <= WITHIN * abs(now[0]) and now[2] <= MOST_R_HAT:
                found = (draws.shape[1], *now[:2])
    n_draws = draws.shape[1]
    row = {
        "sampler": what, "draws": n_draws, "found": found, "seconds": before + seconds, "warmup": before,
        "fge": fge_before + CHAINS * n_draws * fge_a_draw, "whole": judged(draws),
    }  # fmt: skip
    print(json.dumps(row))


def main():
    program = Path(sys.argv[1]).resolve()
    sys.path.insert(0, str(HERE))
    from compare import SINGLE, processor

    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("two cores are needed, one for each side")
    with tempfile.TemporaryDirectory() as fresh:
        root = os.environ.get("FIVE_PERCENT_ROOT", fresh)
        # The target, by the cheapest run that there is.
        if sweep(program, root, "build", "  - { name: sgld, overrides: { steps: 100, warmup: 0, step_size: 1e-7 } }\n").wait():
            raise SystemExit("the target could not be built")
        target = next(Path(root).glob("runs/targets/tgt_*"))
        mine = sweep(program, root, "ours", OURS, cores[0])
        rows = []
        for what, number in [("hmc", "f64"), ("mclmc", "f64"), ("sgld", "f32")]:
            words = [sys.executable, __file__, "theirs", target, what, number]
            environment = dict(os.environ, JAX_PLATFORMS="cpu", XLA_FLAGS=SINGLE)
            pin = lambda: os.sched_setaffinity(0, {cores[1]})
            run = subprocess.run(words, stdout=subprocess.PIPE, text=True, env=environment, preexec_fn=pin)
            if run.returncode:
                mine.kill()
                raise SystemExit(f"{what} of the other side failed")
            rows.append(("BlackJAX", json.loads(run.stdout)))
            print(run.stdout, end="", file=sys.stderr, flush=True)
        _, status, used = os.wait4(mine.pid, 0)
        if os.waitstatus_to_exitcode(status) != 0:
            raise SystemExit("our sweep failed")
        rows += [("lambda-hat-mpi", row) for row in ours(root, used.ru_utime + used.ru_stime)]
    lines = [
        f"time to a λ̂ within {WITHIN:.0%} (MCSE) on base/base, {CHAINS} chains, one thread; {processor()}",
        f"{datetime.date.today()}; not reached: what there was in the end",
        "",
        f"{'program':<15}{'sampler':<8}{'draws':>7}{'FGE':>9}{'seconds':>9}{'warmup':>8}{'λ̂':>10}{'± there':>9}"
        f"{'whole run':>18}{'R-hat':>7}",
    ]
    lines.append("─" * 99)
    for side, row in sorted(rows, key=lambda r: r[1]["sampler"]):
        found = row["found"] or (None, *row["whole"][:2])
        lines.append(
            f"{side:<15}{row['sampler']:<8}{row['draws']:>7}{row['fge']:>9.0f}{row['seconds']:>9.1f}{row['warmup']:>8.1f}"
            f"{found[1]:>9.1f}{found[2]:>9.1f}{row['whole'][0]:>10.1f} ± {row['whole'][1]:<5.1f}{row['whole'][2]:>7.3f}"
            + ("" if row["found"] else "  not reached")
        )
    print("\n".join(lines))


if __name__ == "__main__":
    if sys.argv[1] == "theirs":
        theirs(Path(sys.argv[2]), *sys.argv[3:])
    else:
        main()
