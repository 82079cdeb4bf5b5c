"""Runs as they are compared: read from their directories, grouped by what they try, named by what tells them apart."""

from __future__ import annotations

import functools
import itertools
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crl.config import from_mapping, read_settings, to_mapping
from crl.errors import CheckpointError, ConfigError
from crl.metrics import read_metrics
from crl.presets import DEFAULTS, RECIPES

NOT_COMPARED = ("run_dir", "device", "num_threads", "keep_checkpoints")
"""Settings in which runs of the same experiment may differ."""
TASK = ("eval_env", "layout", "env_options")
"""Settings that say what is to be solved: scores are compared within a task."""
OF_TASKS = frozenset(
    ("env", *TASK, "total_env_steps", "total_updates", "eval_interval", "num_eval_episodes", "gamma", "dataset")
).union(*RECIPES.values())
"""Settings that may differ between tasks, as recipes have it, and still be one method."""
FIRST = ("algorithm", "depth", "width", "network", "objective", "energy", "batch_size", "gamma", "preset")
"""Settings that a name is made of where they do."""
LONGEST_NAME = 60
LAST_SHARE = 0.1
"""Of a run's length, over which its last evaluations are averaged to its score."""


@dataclass(frozen=True)
class Run:
    """What one run measured, and under which settings."""

    path: Path
    settings: Mapping[str, Any]
    rows: Sequence[Mapping[str, float]]

    def curve(self, metric: str, x: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The points at which `metric` was measured: x and value, each [points]."""
        points = [(row[x], row[metric]) for row in self.rows if metric in row and x in row]
        columns = np.array(points, dtype=np.float64).reshape(-1, 2)
        return columns[:, 0], columns[:, 1]

    @property
    def unit(self) -> str:
        """What its length is counted in: env_steps, or with a data set updates."""
        return "updates" if self.settings["dataset"] else "env_steps"

    @property
    def total(self) -> int:
        """Its length as it was set."""
        return int(self.settings["total_updates" if self.settings["dataset"] else "total_env_steps"] or 0)

    def last(self, column: str) -> float:
        """The last value of a column that only grows; 0 before the first row."""
        return next((row[column] for row in reversed(self.rows) if column in row), 0.0)

    @property
    def share_done(self) -> float:
        """How much of its length it has, at most 1. The last round may carry it a little beyond."""
        return min(1.0, self.last(self.unit) / self.total) if self.total else 0.0

    @property
    def finished(self) -> bool:
        """Whether it was evaluated at its end."""
        ends = [row[self.unit] for row in self.rows if "eval/success_rate" in row and self.unit in row]
        return bool(ends) and ends[-1] >= self.total

    def score(self, metric: str) -> float | None:
        """Mean of `metric` over the evaluations in the last LAST_SHARE of what was run; None without one."""
        at, values = self.curve(metric, self.unit)
        return float(values[at >= (1 - LAST_SHARE) * at[-1]].mean()) if len(at) else None


def directories(paths: Iterable[Path]) -> list[Path]:
    """The run directories that `paths` are, or hold: a sweep's directory stands for its runs.

    Raises:
        CheckpointError: when a path is neither.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            raise CheckpointError(f"{path} cannot be read: no such directory.")
        children = [] if is_run(path) else [child for child in path.iterdir() if child.is_dir() and is_run(child)]
        inside = sorted(children, key=_numbers_as_such)
        if not inside and not is_run(path):
            raise CheckpointError(f"{path} is no run, and has none in it: there is no config.yaml.")
        found += inside or [path]
    return list(dict.fromkeys(found))


def _numbers_as_such(path: Path) -> list[str | int]:
    """What to sort by, so that 8 comes before 32: words and numbers in turn."""
    return [int(part) if number % 2 else part for number, part in enumerate(re.split("([0-9]+)", path.name))]


def is_run(path: Path) -> bool:
    """Whether a run was made in this directory."""
    return (path / "config.yaml").is_file()


def load(path: Path) -> Run:
    """The run in directory `path`; raises CheckpointError when it is none."""
    if not path.is_dir():
        raise CheckpointError(f"{path} cannot be read: no such directory.")
    try:
        written = read_settings(path / "config.yaml")
        settings = to_mapping(from_mapping(written))
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    older = {key: value for key, value in DEFAULTS.items() if key not in written}  # than these settings
    return Run(path, {**settings, **older}, read_metrics(path / "metrics.csv"))


def apart(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Each run under a name of its own."""
    keys = [key for key in runs[0].settings if key not in NOT_COMPARED]
    told = names(runs, keys, lambda one, other: True) or [str(run.path) for run in runs]
    return {name: [run] for name, run in zip(told, runs, strict=True)}


def seeds(groups: Iterable[Sequence[Run]]) -> str:
    """How many runs groups have, in words."""
    counts = sorted({len(runs) for runs in groups})
    many = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{many} {'seed' if counts == [1] else 'seeds'}"


def by_method(runs: Sequence[Run]) -> dict[str, dict[str, list[Run]]]:
    """What is compared: {method: {task: runs that differ in the seed alone}}, tasks and methods in order of coming.

    A method is what tells groups of one task apart, and its name says that much. Across tasks, groups are of one method
    where the same name suits them; what recipes set task by task (OF_TASKS) does not count there.
    """
    groups = same_but_seed(runs)
    first = [members[0] for members in groups]
    tasks = task_names(first)

    def must_differ(one: int, other: int) -> bool:
        differing = {key for key in first[0].settings if first[one].settings[key] != first[other].settings[key]}
        return tasks[one] == tasks[other] or bool(differing - OF_TASKS - set(NOT_COMPARED) - {"seed"})

    ignored = (*NOT_COMPARED, *TASK, "seed")
    told = names(first, [key for key in first[0].settings if key not in ignored], must_differ)
    if told is None:
        told = [str(run.path) for run in first]
    alone = [f"{run.settings['algorithm']}, depth {run.settings['depth']}" for run in first]
    told = [name or whole for name, whole in zip(told, alone, strict=True)]
    found: dict[str, dict[str, list[Run]]] = {}
    for name, task, members in zip(told, tasks, groups, strict=True):
        found.setdefault(name, {})[task] = members
    return found


def same_but_seed(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs in groups that differ in nothing but the seed."""
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        known = tuple(run.settings[key] for key in run.settings if key not in (*NOT_COMPARED, "seed"))
        groups.setdefault(known, []).append(run)
    return list(groups.values())


def task_names(runs: Sequence[Run]) -> list[str]:
    """What each run is evaluated on: the environment, with what else it takes to tell two tasks apart."""
    layouts = list(dict.fromkeys(run.settings["layout"] for run in runs if "\n" in str(run.settings["layout"])))
    told = []
    for run in runs:
        env, layout, options = (run.settings[key] for key in TASK)
        drawn = f"layout {layouts.index(layout) + 1}" if layout in layouts else layout
        told.append(", ".join(filter(None, (env or run.settings["env"], drawn, options))))
    return told


def names(runs: Sequence[Run], keys: Sequence[str], must_differ: Any) -> list[str] | None:
    """The fewest settings among `keys` by which all runs that must differ do, as text; None where that is too much.

    Args:
        runs: one or more.
        keys: settings a name may be made of.
        must_differ: says of two runs, by their numbers, whether one name for both is wrong.
    """
    differing = [key for key in keys if len({run.settings[key] for run in runs}) > 1]
    ordered = sorted(differing, key=lambda key: FIRST.index(key) if key in FIRST else len(FIRST))
    pairs = [pair for pair in itertools.combinations(range(len(runs)), 2) if must_differ(*pair)]
    # As bits of a number, since combinations are many: the pairs that a key tells apart.
    told_apart = {
        key: sum(1 << n for n, (a, b) in enumerate(pairs) if runs[a].settings[key] != runs[b].settings[key])
        for key in ordered
    }
    for count in range(min(len(ordered), 4) + 1):
        for chosen in itertools.combinations(ordered, count):
            if functools.reduce(operator.or_, (told_apart[key] for key in chosen), 0) == (1 << len(pairs)) - 1:
                told = [", ".join(f"{key} {run.settings[key]}" for key in chosen) for run in runs]
                return told if all(len(text) <= LONGEST_NAME for text in told) else None
    return None
