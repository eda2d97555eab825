"""`make bench-compare`: our inner loops beside those of JAX and BlackJAX, in one run.

    compare.py BENCH PROGRAM [WORDS...]

BENCH is the built benches/throughput, PROGRAM the lambda-hat-mpi binary; only rows that hold all
WORDS are measured. Rounds alternate: theirs, ours, theirs, ...; medians of ROUNDS rounds. Both run on
the same cores, at the same priority. Standard library only: the packages compared with live in the
interpreter that runs worker.py.
"""

import datetime
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent
ROUNDS = 7
# Seconds of a round, at least.
LEAST = 0.3
# One thread in the whole of XLA.
SINGLE = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

# What the row is, chains of theirs that run as one vectorised program, least ratio aimed at for one core.
ROWS = [
    ("gradient base f64", 1, 3.0),
    ("gradient base f64", 4, 4.0),
    ("gradient base f32", 1, 1.7),
    ("gradient base f32", 4, 2.8),
    ("gradient small f64", 1, 5.0),
    ("gradient small f64", 4, None),
    ("gradient small f32", 1, 5.0),
    ("hmc base f64", 1, 3.0),
    ("hmc base f64", 4, None),
    ("hmc small f64", 1, 5.0),
    ("hmc small f64", 4, None),
    ("mclmc base f64", 1, 3.0),
    ("mclmc small f64", 1, 5.0),
    ("mclmc small f64", 4, None),
    ("sgld base f64", 1, 2.0),
    ("sgld base f64", 4, None),
    ("sgld base f32", 1, 2.0),
    ("sgld small f64", 1, 5.0),
    ("sgld small f64", 4, None),
    ("training base f64", 1, 2.0),
    ("training small f64", 1, None),
]


class Worker:
    """Their side: one process, in which every row is compiled once."""

    def __init__(self, data, number, cores, expected):
        environment = dict(os.environ, JAX_PLATFORMS="cpu")
        if len(cores) == 1:
            environment["XLA_FLAGS"] = SINGLE
        clock = "cpu" if len(cores) == 1 else "wall"
        self.process = subprocess.Popen(
            [sys.executable, HERE / "worker.py", data, number, str(LEAST), clock],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )  # fmt: skip
        tolerance = {"f32": 1e-4, "f64": 1e-9}[number]
        for shape, values in expected.items():
            for mine, other in zip(values, self.answer()):
                if abs(mine - other) > tolerance * abs(mine):
                    raise SystemExit(f"{shape}: {mine} here and {other} there: not the same loss")

    def end(self):
        self.process.stdin.close()
        self.process.wait()

    def answer(self):
        line = self.process.stdout.readline().split()
        if not line:
            raise SystemExit("the other side ended: its message stands above")
        return tuple(map(float, line))

    def round(self, row, chains):
        what, shape, _ = row.split()
        self.process.stdin.write(f"{what} {shape} {chains}\n")
        self.process.stdin.flush()
        return self.answer()


def ours(bench, row, cores):
    words = [bench, "once", *row.split(), str(len(cores)), str(LEAST)]
    run = subprocess.run(
        words, capture_output=True, text=True, check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )  # fmt: skip
    return float(run.stdout)


def spelled(seconds):
    for limit, factor, unit in [(1e-3, 1e6, "µs"), (1, 1e3, "ms")]:
        if seconds < limit:
            return f"{seconds * factor:.2f} {unit}"
    return f"{seconds:.2f} s"


def processor():
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown processor"


def sweep(program):
    """Median seconds of a whole sweep in fresh directories, with two worker slots."""
    times = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as root:
            began = time.perf_counter()
            command = [program, HERE / "sweep.yaml", "--local", "--workers", "2", "--root", root]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                raise SystemExit(f"the sweep ended with {done.returncode}:\n{done.stderr}")
            times.append(time.perf_counter() - began)
    return median(times)


def main():
    bench, program, words = sys.argv[1], sys.argv[2], sys.argv[3:]
    lines = []

    def say(line=""):
        print(line, flush=True)
        lines.append(line)

    from importlib.metadata import version

    versions = [f"{name} {version(name)}" for name in ["jax", "jaxlib", "blackjax", "optax", "numpy"]]
    cores = sorted(os.sched_getaffinity(0))
    revision = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=HERE)
    say(f"lambda-hat-mpi {revision.stdout.strip()} beside {', '.join(versions)}, Python {platform.python_version()}")
    say(f"{datetime.date.today()}, {processor()}, {len(cores)} cores, load {os.getloadavg()[0]:.1f} at the start")
    say(f"medians of {ROUNDS} rounds that alternate; time of one gradient, draw (10 gradients) or step of one chain")
    say("threads 1: one core, processor time; threads 2: elapsed time, both cores, ours with a chain on each")
    say("ratio: theirs over ours; aim: the least ratio that is asked of one core")
    say()
    head = f"{'row':<20}{'their chains':>13}{'threads':>8}{'ours':>11}{'theirs':>11}{'ratio':>8}{'least – most':>15}{'aim':>6}{'compile':>10}"
    say(head)
    say("─" * len(head))
    with tempfile.TemporaryDirectory() as data:
        expected = {}
        for shape in ["base", "small"]:
            run = subprocess.run([bench, "data", shape, data], capture_output=True, text=True, check=True)
            expected[shape] = tuple(map(float, run.stdout.split()))
        rows = [row for row in ROWS if all(word in row[0].split() for word in words)]
        # On a machine of one core there are no rows of two threads.
        for used in [cores[:1], cores[:2]][: len(cores) if rows else 0]:
            workers = {}
            for row, chains, aim in rows:
                number = row.split()[-1]
                if number not in workers:
                    workers[number] = Worker(data, number, used, expected)
                worker = workers[number]
                _, compiling = worker.round(row, chains)
                theirs, mine = [], []
                for _ in range(ROUNDS):
                    theirs.append(worker.round(row, chains)[0])
                    mine.append(ours(bench, row, used))
                ratios = sorted(t / m for t, m in zip(theirs, mine))
                aimed = f"{aim:g}" if aim and len(used) == 1 else ""
                say(
                    f"{row:<20}{chains:>13}{len(used):>8}{spelled(median(mine)):>11}{spelled(median(theirs)):>11}"
                    f"{median(theirs) / median(mine):>8.2f}{f'{ratios[0]:.1f} – {ratios[-1]:.1f}':>15}{aimed:>6}"
                    f"{spelled(compiling):>10}"
                )
            for worker in workers.values():
                worker.end()
    if not words or "sweep" in words:
        say()
        say(f"four samplers on one small target, everything from cold, 2 workers: {spelled(sweep(program))}")
    if not words:
        # As names of files go: letters and digits, without the marks "(R)" and "(TM)".
        name = "-".join(re.findall(r"[a-z0-9]+", re.sub(r"\((r|tm)\)", "", processor().lower())))
        path = HERE.parent / "results" / f"{datetime.date.today()}-compare-{name}.txt"
        path.write_text("\n".join(lines) + "\n")
        print(f"\nwritten to {path}")


if __name__ == "__main__":
    main()
