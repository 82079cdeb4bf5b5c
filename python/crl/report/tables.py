"""What a report says in numbers. A table is made once, and written as CSV and shown on the page."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from crl import statistics
from crl.config import from_mapping
from crl.files import whole
from crl.report.published import published
from crl.report.runs import NOT_COMPARED, Run

Methods = Mapping[str, Mapping[str, Sequence[Run]]]
"""{method: {task: runs that differ in the seed alone}}, as crl.report.runs.by_method makes it."""
SCORES = (
    "eval/success_rate",
    "eval/success_rate_far",
    "eval/success_at_end",
    "eval/time_at_goal",
    "eval/final_distance",
)
LOWER_IS_BETTER = ("eval/final_distance",)
POINTS_OF = ("env", "eval_env", "algorithm", "depth", "seed")
"""Settings beside every point of a curve in its CSV."""
SPEEDS = ("env_steps_per_second", "updates_per_second")
X_AXES = ("env_steps", "updates", "wall_time")


@dataclass
class Table:
    """Columns, and rows of cells: text, numbers, or None where there is nothing to say."""

    columns: Sequence[str]
    rows: list[Sequence[Any]] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """As CSV, numbers in full."""
        with whole(path) as place, place.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(self.columns)
            writer.writerows(self.rows)


def write_points(runs: Sequence[Run], metrics: Sequence[str], path: Path) -> Path:
    """Every measured point in a row of its own."""
    table = Table(["run", *POINTS_OF, *X_AXES, "metric", "value"])
    for run in runs:
        known = [str(run.path), *(run.settings[key] for key in POINTS_OF)]
        for row in run.rows:
            at = [row.get(name, "") for name in X_AXES]
            table.rows += [[*known, *at, metric, row[metric]] for metric in metrics if metric in row]
    table.write(path)
    return path


def counted(members: Sequence[Run], metric: str) -> list[Run]:
    """Those of a group whose scores are compared: the finished runs, or all that were evaluated while none is."""
    scored = [run for run in members if run.score(metric) is not None]
    return [run for run in scored if run.finished] or scored


def scores(members: Sequence[Run], metric: str) -> statistics.Floats:
    """Their scores, (runs, 1 task); of no runs, (0, 1)."""
    found = [run.score(metric) for run in counted(members, metric)]
    return np.array(found, dtype=np.float64).reshape(-1, 1)


def matrix(tasks: Sequence[Sequence[Run]], metric: str) -> statistics.Floats:
    """Scores of all tasks, (runs, tasks): as many runs of each as the task with fewest has, the first ones."""
    found = [scores(members, metric) for members in tasks]
    count = min(map(len, found))
    return np.concatenate([column[:count] for column in found], axis=1)


def results(methods: Methods) -> Table:
    """A row for each task and method, and for what was published: interquartile means with 95 % intervals."""
    runs = [run for tasks in methods.values() for members in tasks.values() for run in members]
    shown = [metric for metric in SCORES if any(metric in row for run in runs for row in run.rows)]
    head = ["task", "method", "runs", "finished"]
    ends = [f"{metric}{suffix}" for metric in shown for suffix in ("", " low", " high")]
    table = Table([*head, *ends, "source", "conditions"])
    for task in dict.fromkeys(task for tasks in methods.values() for task in tasks):
        known: list[Any] = []
        for method, tasks in methods.items():
            if task not in tasks:
                continue
            members = tasks[task]
            cells: list[Any] = []
            for metric in shown:
                measured = scores(members, metric)
                cells += estimate(measured) if len(measured) else [None] * 3
            finished = sum(run.finished for run in members)
            table.rows.append([task, method, len(members), finished, *cells, "these runs", ""])
            known = [figure for figure in published(members[0].settings) if figure not in known] or known
        for figure in known:
            cells = [None] * len(ends)
            if figure.metric in shown:
                at = 3 * shown.index(figure.metric)
                spread = figure.spread
                ends_of = [None, None] if spread is None else [figure.value - spread, figure.value + spread]
                cells[at : at + 3] = [figure.value, *ends_of]
            table.rows.append([task, figure.method, None, None, *cells, figure.source, figure.conditions])
    return table


def estimate(measured: statistics.Floats, statistic: statistics.Statistic = statistics.iqm) -> list[float | None]:
    """A point estimate of scores (runs, tasks), and the ends of its interval; of a single run there is none."""
    ends = statistics.interval(statistic, measured) if len(measured) > 1 else (None, None)
    return [float(statistic(measured)), *(None if end is None else float(end) for end in ends)]


def compute(methods: Methods) -> Table:
    """A row for each run: how far it is, what it took, where."""
    names = ["task", "method", "seed", "run", "state", *X_AXES[:2], "hours", *SPEEDS]
    table = Table([*names, "parameters", "gflop_per_update", "pflop", "device", "threads"])
    for method, tasks in methods.items():
        for task, members in tasks.items():
            parameters, flop = _sizes(members[0])
            for run in members:
                steps, updates, wall = (run.last(column) for column in X_AXES)
                state = "finished" if run.finished else f"{100 * run.share_done:.0f} %"
                known = [task, method, run.settings["seed"], str(run.path), state]
                made = [
                    int(steps),
                    int(updates),
                    wall / 3600,
                    *([steps / wall, updates / wall] if wall else [None] * 2),
                ]
                work = [None, None] if flop is None else [flop / 1e9, flop * updates / 1e15]
                where = [run.settings["device"], run.settings["num_threads"]]
                table.rows.append([*known, *made, parameters, *work, *where])
    return table


def settings(methods: Methods) -> tuple[Table, Table]:
    """The settings that differ, with a column for each group of runs, and what all of them share."""
    groups = {f"{method}, {task}": members[0] for method, tasks in methods.items() for task, members in tasks.items()}
    keys = [key for key in next(iter(groups.values())).settings if key not in (*NOT_COMPARED, "seed")]
    values = {key: [run.settings[key] for run in groups.values()] for key in keys}
    differing = [key for key in keys if len(set(values[key])) > 1]
    apart = Table(["setting", *groups], [[key, *values[key]] for key in differing])
    return apart, Table(["setting", "value"], [[key, values[key][0]] for key in keys if key not in differing])


def _sizes(run: Run) -> tuple[int | None, int | None]:
    """Parameters and FLOP an update as counted by crl.sizes; None where that takes what is not installed."""
    try:
        from crl import envs, sizes

        if run.settings["dataset"] or envs.is_adapted(run.settings["env"]):
            return None, None  # what is not ours may take long to be made
        counted_sizes = sizes.of(from_mapping(run.settings))
    except (ImportError, ValueError):
        return None, None
    return sum(counted_sizes.parameters.values()), counted_sizes.flop
