"""The other side of `make bench-compare`: loss, gradient and samplers of JAX, BlackJAX and Optax.

    worker.py DATA NUMBER SECONDS CLOCK

Reads lines `what shape chains` from standard input. The first time that a row is asked for it is
compiled; every answer is one line `seconds-an-item compile-seconds`. An item is what
benches/throughput counts: a gradient, a draw of ten gradients, or a step, of one chain. CLOCK is
`cpu` (processor time of this process) or `wall`. NUMBER is of the whole process, since BlackJAX makes its
noise in the widest type that JAX is told to have.
"""

import functools
import math
import sys
import time
from pathlib import Path

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import optax

SHAPES = {"base": (20_000, [32, 62, 62, 62, 1]), "small": (100, [4, 4, 4, 1])}
LEAPFROG_STEPS = 10
BATCH = 256
EVAL_EVERY = 100


class Case:
    """A network, its data and its starting point, as benches/throughput/case.rs has them."""

    def __init__(self, shape, number, data):
        self.rows, self.widths = SHAPES[shape]
        read = lambda name: np.fromfile(data / f"{shape}.{name}", "<f8").astype(number)
        self.x = jnp.asarray(read("x").reshape(self.rows, self.widths[0]))
        self.y = jnp.asarray(read("y").reshape(self.rows, 1))
        self.w = jnp.asarray(read("w"))
        self.nbeta = self.rows / math.log(self.rows)

    def loss(self, w, x, y):
        at = 0
        for layer, (inputs, outputs) in enumerate(zip(self.widths, self.widths[1:])):
            weight = w[at : at + inputs * outputs].reshape(outputs, inputs)
            at += inputs * outputs
            bias = w[at : at + outputs]
            at += outputs
            x = x @ weight.T + bias
            if layer < len(self.widths) - 2:
                x = jnp.maximum(x, 0)
        return jnp.mean((x - y) ** 2)

    def full(self, w):
        return self.loss(w, self.x, self.y)

    def log_density(self, w):
        away = w - self.w
        return -(self.nbeta * self.full(w) + 0.5 * jnp.dot(away, away))


def repeat(body, count):
    """`count` times `body(carry, key)` inside one program, with what it returns kept as a trace."""

    def run(carry, key):
        return jax.lax.scan(body, carry, jax.random.split(key, count))

    return run


def gradient(case, large):
    grad = jax.grad(case.full)
    # Each gradient needs the one before, so that none is left out. Calls of one gradient each are slower on
    # base in f64 (76 ms for 56 ms).
    body = lambda w, key: (w - 1e-12 * grad(w), None)
    count = 5 if large else 10_000
    return repeat(body, count), (lambda w, key: w), count


def hmc(case, large):
    kernel = blackjax.hmc(case.log_density, 1e-3, jnp.ones_like(case.w), LEAPFROG_STEPS)

    def body(state, key):
        state, info = kernel.step(key, state)
        return state, (state.logdensity, info.acceptance_rate, info.is_divergent)

    count = 1 if large else 500
    return repeat(body, count), (lambda w, key: kernel.init(w)), count


def mclmc(case, large):
    kernel = blackjax.mclmc(case.log_density, L=1.0, step_size=1e-3)

    def body(state, key):
        state, info = kernel.step(key, state)
        return state, (state.logdensity, info.energy_change)

    count = 5 if large else 5000
    return repeat(body, count), (lambda w, key: kernel.init(w, key)), count


def sgld(case, large):
    slope = jax.grad(lambda w, rows: case.loss(w, case.x[rows], case.y[rows]))
    estimator = lambda w, rows: -(case.nbeta * slope(w, rows) + (w - case.w))
    kernel = blackjax.sgld(estimator)

    def step(w, key):
        rows_key, noise_key = jax.random.split(key)
        rows = jax.random.randint(rows_key, (BATCH,), 0, case.rows)
        return kernel.step(noise_key, w, rows, 5e-7), None

    def body(w, key):
        w, _ = repeat(step, EVAL_EVERY)(w, key)
        return w, case.full(w)

    evaluations = 1 if large else 50
    return repeat(body, evaluations), (lambda w, key: w), evaluations * EVAL_EVERY


def training(case, large):
    rule = optax.adam(1e-3)

    def body(state, key):
        w, moments = state
        loss, grad = jax.value_and_grad(case.full)(w)
        updates, moments = rule.update(grad, moments, w)
        return (optax.apply_updates(w, updates), moments), loss

    count = 10 if large else 10_000
    return repeat(body, count), (lambda w, key: (w, rule.init(w))), count


LOOPS = {"gradient": gradient, "hmc": hmc, "mclmc": mclmc, "sgld": sgld, "training": training}


@functools.lru_cache(maxsize=None)
def program(what, shape, number, chains, data):
    """A call that runs one round and is waited for, the items that it makes, seconds to compile."""
    case = Case(shape, number, data)
    run, start, items = LOOPS[what](case, large=shape == "base")
    keys = jax.random.split(jax.random.key(9), chains)
    # A line of its own for each chain, at points that differ.
    points = jnp.stack([case.w * (1 + 1e-6 * chain) for chain in range(chains)])
    if chains == 1:
        points, keys = points[0], keys[0]
    else:
        run, start = jax.vmap(run), jax.vmap(start)
    state = jax.block_until_ready(jax.jit(start)(points, keys))
    began = time.perf_counter()
    compiled = jax.jit(run).lower(state, keys).compile()
    jax.block_until_ready(compiled(state, keys))
    seconds = time.perf_counter() - began
    return (lambda: jax.block_until_ready(compiled(state, keys))), items * chains, seconds


def main():
    data, number, least = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    clock = time.process_time if sys.argv[4] == "cpu" else time.perf_counter
    jax.config.update("jax_enable_x64", number == "f64")
    number = {"f32": "float32", "f64": "float64"}[number]
    for shape in SHAPES:
        case = Case(shape, number, data)
        loss, grad = jax.value_and_grad(case.full)(case.w)
        print(f"{float(loss)!r} {float(jnp.linalg.norm(grad))!r}", flush=True)
    for line in sys.stdin:
        what, shape, chains = line.split()
        call, items, compiling = program(what, shape, number, int(chains), data)
        began, before, calls = time.perf_counter(), clock(), 0
        while calls == 0 or time.perf_counter() - began < least:
            call()
            calls += 1
        print((clock() - before) / (calls * items), compiling, flush=True)


if __name__ == "__main__":
    main()
