"""Does collecting beside learning pay, and does it hold the ratio of env steps to updates?

    pytest benches/bench_train.py

Whole runs of `crl train` with and without `--async`, in turns, from the first round of updates to the last; evaluation
is left out. The ant with the sizes for CPU. `extra_info` holds seconds a round of both, and the env steps per update
that were asked and made.
"""

import csv
import itertools
import subprocess
import sys
from statistics import median

import pytest

ENVS, UNROLL, UPDATES = 64, 62, 60
ROUND = ENVS * UNROLL
LARGE = [pytest.param(*size, marks=pytest.mark.large) for size in ((4, 256, 12, 3), (16, 256, 8, 3))]


@pytest.fixture
def run(tmp_path):
    """`run(asynchronous, depth, width, rounds)`: seconds a round and env steps per update, once both were at work."""
    names = itertools.count()

    def run(asynchronous, depth, width, rounds):
        run_dir = tmp_path / f"run{next(names)}"
        settings = {
            "env": "ant",
            "depth": depth,
            "width": width,
            "num-envs": ENVS,
            "unroll-length": UNROLL,
            "updates-per-collect": UPDATES,
            "learning-starts": 3 * ROUND,
            "total-env-steps": (3 + rounds) * ROUND,
            "eval-interval": 10**9,
            "num-eval-episodes": 1,
            "run-dir": run_dir,
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        command = [sys.executable, "-m", "crl", "train", *options, "--async" if asynchronous else "--sync"]
        subprocess.run(command, check=True, capture_output=True)
        with open(run_dir / "metrics.csv", newline="") as file:
            rows = [
                [float(row[name]) for name in ("wall_time", "env_steps", "updates")] for row in csv.DictReader(file)
            ]
        learning = [row for row in rows if row[2]][:-1]  # The last row waits for the evaluation.
        (started, steps, updates), (ended, last_steps, last_updates) = learning[0], learning[-1]
        return (ended - started) / (len(learning) - 1), (last_steps - steps) / (last_updates - updates)

    return run


@pytest.mark.parametrize(("depth", "width", "rounds", "turns"), [(4, 32, 4, 1), *LARGE])
def test_async(benchmark, run, depth, width, rounds, turns):
    size = (depth, width, rounds)
    alone = []
    made = []
    benchmark.pedantic(
        lambda: made.append(run(True, *size)), setup=lambda: alone.append(run(False, *size)[0]), rounds=turns
    )
    both = median(seconds for seconds, _ in made)
    benchmark.extra_info["seconds_a_round"] = {"async": round(both, 3), "sync": round(median(alone), 3)}
    benchmark.extra_info["speedup"] = round(median(alone) / both, 2)
    benchmark.extra_info["env_steps_per_update"] = {
        "asked": round(ROUND / UPDATES, 2),
        "made": [round(ratio, 2) for _, ratio in made],
    }
