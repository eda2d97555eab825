"""What Optuna's TPESampler reaches on the functions of `make bench-tune`.

    python benches/tune/optuna_reference.py OUT.json [SEEDS [VARIANT ...]]

Writes, a variant and a function, the value of the best trial after 100 trials for each seed, and for each
function some points with their values, by which the Rust copies of the functions are checked. A function is
noisy where its entry has a standard deviation: the sampler then sees value + noise, and what is written is
the noise-free value at the trial that looked best. A file that is there already is gone on with.
"""

import json
import math
import os
import random
import sys
import time

TRIALS = 100
BATCH = 8


def floats(trial, n, low, high):
    return [trial.suggest_float(f"x{i}", low, high) for i in range(n)]


def sphere(trial):
    return sum(x * x for x in floats(trial, 5, -5.12, 5.12))


def rosenbrock(trial):
    x = floats(trial, 4, -5.0, 10.0)
    return sum(100.0 * (x[i + 1] - x[i] ** 2) ** 2 + (1.0 - x[i]) ** 2 for i in range(3))


def ackley(trial):
    x = floats(trial, 5, -32.768, 32.768)
    root = math.sqrt(sum(v * v for v in x) / len(x))
    waves = sum(math.cos(2.0 * math.pi * v) for v in x) / len(x)
    return -20.0 * math.exp(-0.2 * root) - math.exp(waves) + 20.0 + math.e


def rastrigin(trial):
    x = floats(trial, 4, -5.12, 5.12)
    return sum(v * v - 10.0 * math.cos(2.0 * math.pi * v) + 10.0 for v in x)


def branin(trial):
    x, y = trial.suggest_float("x0", -5.0, 10.0), trial.suggest_float("x1", 0.0, 15.0)
    a = y - 5.1 / (4.0 * math.pi**2) * x * x + 5.0 / math.pi * x - 6.0
    return a * a + 10.0 * (1.0 - 1.0 / (8.0 * math.pi)) * math.cos(x) + 10.0


ALPHA = [1.0, 1.2, 3.0, 3.2]
A3 = [[3.0, 10.0, 30.0], [0.1, 10.0, 35.0], [3.0, 10.0, 30.0], [0.1, 10.0, 35.0]]
P3 = [[0.3689, 0.1170, 0.2673], [0.4699, 0.4387, 0.7470], [0.1091, 0.8732, 0.5547], [0.0381, 0.5743, 0.8828]]
A6 = [
    [10.0, 3.0, 17.0, 3.5, 1.7, 8.0],
    [0.05, 10.0, 17.0, 0.1, 8.0, 14.0],
    [3.0, 3.5, 1.7, 10.0, 17.0, 8.0],
    [17.0, 8.0, 0.05, 10.0, 0.1, 14.0],
]
P6 = [
    [0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886],
    [0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991],
    [0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650],
    [0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381],
]


def hartmann(x, a, p):
    inner = [sum(a[i][j] * (x[j] - p[i][j]) ** 2 for j in range(len(x))) for i in range(4)]
    return -sum(ALPHA[i] * math.exp(-inner[i]) for i in range(4))


def hartmann3(trial):
    return hartmann(floats(trial, 3, 0.0, 1.0), A3, P3)


def hartmann6(trial):
    return hartmann(floats(trial, 6, 0.0, 1.0), A6, P6)


def logs(trial):
    lr = trial.suggest_float("lr", 1e-6, 1e-1, log=True)
    decay = trial.suggest_float("decay", 1e-8, 1e-1, log=True)
    width = trial.suggest_int("width", 4, 4096, log=True)
    a, b, c = math.log10(lr) + 3.0, math.log10(decay) + 5.0, math.log2(width) - 7.0
    return a * a + 0.25 * b * b + 0.1 * c * c + 0.3 * a * b


def steps(trial):
    x = trial.suggest_float("x", -5.0, 5.0, step=0.25)
    y = trial.suggest_float("y", 0.0, 1.0, step=0.05)
    n = trial.suggest_int("n", 1, 40)
    m = trial.suggest_int("m", 0, 1000, step=50)
    return (x - 1.5) ** 2 + 20.0 * (y - 0.35) ** 2 + 0.02 * (n - 13) ** 2 + ((m - 650) / 200.0) ** 2


RMS = {"none": 1.2, "rmsprop": 0.1, "adam": 0.4}
ROWS = {"32": 0.9, "64": 0.2, "128": 0.0, "256": 0.5}


def mixed(trial):
    step = trial.suggest_float("step_size", 1e-6, 1e-1, log=True)
    rows = trial.suggest_categorical("batch_size", list(ROWS))
    precond = trial.suggest_categorical("precond", list(RMS))
    n = trial.suggest_int("steps", 5000, 20000, step=1000)
    best = {"none": -4.5, "rmsprop": -3.0, "adam": -2.5}[precond]
    return (math.log10(step) - best) ** 2 + ROWS[rows] + RMS[precond] + 2000.0 / n


def choices(trial):
    k = [int(trial.suggest_categorical(f"c{i}", ["0", "1", "2", "3", "4"])) for i in range(6)]
    cost = sum(abs(k[i] - (2 * i + 1) % 5) for i in range(6))
    return cost + (0.0 if k[0] + k[1] == 4 else 1.5)


def conditional(trial):
    kind = trial.suggest_categorical("kind", ["linear", "tree", "net"])
    if kind == "linear":
        c = trial.suggest_float("c", 1e-4, 1e4, log=True)
        return 1.0 + 0.2 * (math.log10(c) - 1.0) ** 2
    if kind == "tree":
        depth = trial.suggest_int("depth", 1, 32)
        rate = trial.suggest_float("rate", 0.0, 1.0)
        return 0.6 + 0.01 * (depth - 9) ** 2 + 2.0 * (rate - 0.3) ** 2
    lr = trial.suggest_float("lr", 1e-5, 1.0, log=True)
    layers = trial.suggest_int("layers", 1, 6)
    drop = trial.suggest_float("drop", 0.0, 0.9)
    return 0.2 * (math.log10(lr) + 2.5) ** 2 + 0.15 * abs(layers - 3) + 1.5 * (drop - 0.25) ** 2


def nested(trial):
    x = trial.suggest_float("x", -4.0, 4.0)
    flow = trial.suggest_categorical("algo", ["mfa", "flow"])
    if flow == "mfa":
        m = trial.suggest_int("m", 1, 16)
        return 0.5 + 0.3 * (x - 1.0) ** 2 + 0.05 * abs(m - 8)
    depth = trial.suggest_int("depth", 1, 8)
    kind = trial.suggest_categorical("type", ["affine", "spline"])
    if kind == "affine":
        return 0.4 + 0.3 * (x + 1.0) ** 2 + 0.1 * abs(depth - 4)
    bins = trial.suggest_int("bins", 2, 32, log=True)
    return 0.3 * (x + 2.0) ** 2 + 0.1 * abs(depth - 6) + 0.2 * (math.log2(bins) - 3.0) ** 2


# name: function, standard deviation of the noise
FUNCTIONS = {
    "sphere": (sphere, 0.0),
    "rosenbrock": (rosenbrock, 0.0),
    "ackley": (ackley, 0.0),
    "rastrigin": (rastrigin, 0.0),
    "branin": (branin, 0.0),
    "hartmann3": (hartmann3, 0.0),
    "hartmann6": (hartmann6, 0.0),
    "logs": (logs, 0.0),
    "steps": (steps, 0.0),
    "mixed": (mixed, 0.0),
    "choices": (choices, 0.0),
    "conditional": (conditional, 0.0),
    "nested": (nested, 0.0),
    "noisy_sphere": (sphere, 4.0),
    "noisy_branin": (branin, 5.0),
    "noisy_mixed": (mixed, 0.5),
}

VARIANTS = {
    "multivariate": {"multivariate": True, "group": True, "constant_liar": False},
    "univariate": {"multivariate": False, "constant_liar": False},
    "batch": {"multivariate": True, "group": True, "constant_liar": True},
}


def study_best(optuna, variant, name, seed):
    function, sd = FUNCTIONS[name]
    sampler = optuna.samplers.TPESampler(seed=seed, **VARIANTS[variant])
    study = optuna.create_study(sampler=sampler)
    noise = random.Random(seed)
    size = BATCH if variant == "batch" else 1
    best, true = math.inf, math.inf
    number = 0
    pending = []
    while number < TRIALS or pending:
        while number < TRIALS and len(pending) < size:
            trial = study.ask()
            pending.append((trial, function(trial)))
            number += 1
        trial, value = pending.pop(0)
        seen = value + sd * noise.gauss(0.0, 1.0)
        study.tell(trial, seen)
        if seen < best:
            best, true = seen, value
    return true


class Fixed:
    """Stands for a trial and notes what it was asked."""

    def __init__(self, rng):
        self.rng, self.params = rng, {}

    def note(self, name, value):
        self.params[name] = value
        return value

    def suggest_float(self, name, low, high, log=False, step=None):
        if step is not None:
            return self.note(name, low + step * self.rng.randint(0, round((high - low) / step)))
        if log:
            return self.note(name, math.exp(self.rng.uniform(math.log(low), math.log(high))))
        return self.note(name, self.rng.uniform(low, high))

    def suggest_int(self, name, low, high, log=False, step=1):
        return self.note(name, low + step * self.rng.randint(0, (high - low) // step))

    def suggest_categorical(self, name, choices):
        return self.note(name, self.rng.choice(choices))


def points(name):
    rng = random.Random(name)
    rows = []
    for _ in range(5):
        trial = Fixed(rng)
        value = FUNCTIONS[name][0](trial)
        rows.append({"params": trial.params, "value": value})
    return rows


def main():
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    import warnings

    warnings.simplefilter("ignore")
    path = sys.argv[1]
    seeds = int(sys.argv[2]) if len(sys.argv) > 2 else 50
    variants = sys.argv[3:] or list(VARIANTS)
    result = {"optuna": optuna.__version__, "trials": TRIALS, "batch": BATCH, "seconds": 0.0, "best": {}}
    if os.path.exists(path):
        with open(path) as file:
            result = json.load(file)
    result["points"] = {name: points(name) for name in FUNCTIONS}
    for seed in range(seeds):
        for variant in variants:
            for name in FUNCTIONS:
                best = result["best"].setdefault(variant, {}).setdefault(name, [])
                if len(best) > seed:
                    continue
                start = time.process_time()
                best.append(float(f"{study_best(optuna, variant, name, seed):.9g}"))
                result["seconds"] += time.process_time() - start
        with open(path + ".part", "w") as file:
            json.dump(result, file, indent=1)
        os.replace(path + ".part", path)


if __name__ == "__main__":
    main()
