"""The figures of a report, each as its HTML; PNG and CSV are written on the way."""

from __future__ import annotations

import io
import itertools
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from crl import statistics
from crl.report import figures, page, tables
from crl.report.curves import Curve, combined, over_tasks
from crl.report.runs import Run
from crl.report.tables import LOWER_IS_BETTER, SCORES, Methods, Table

CURVES = ("eval/success_rate", "eval/success_rate_far", "eval/success_at_end", "eval/time_at_goal", "train/critic_loss")
"""Curves that a report shows where runs have measured them."""
THRESHOLDS = 101
"""Of a performance profile."""


@dataclass(frozen=True)
class Report:
    """What is reported on, and where it goes."""

    paths: Sequence[str]
    """As they were asked for, for the commands."""
    runs: Sequence[Run]
    unread: Sequence[str]
    """Why other runs are not among them."""
    methods: Methods
    output: Path
    metric: str
    """By which runs are compared."""
    only: str = ""
    """A single figure to make, without the page."""

    @property
    def tasks(self) -> list[str]:
        """All of them, in order of coming."""
        return list(dict.fromkeys(task for tasks in self.methods.values() for task in tasks))

    def command(self, *options: str) -> str:
        """The command that makes this report; with options, a part of it."""
        metric = [] if self.metric == SCORES[0] else ["--metric", self.metric]
        return shlex.join(["crl", "report", *self.paths, *metric, *options, "--output", str(self.output)])

    def finish(self, name: str, figure: Any, data: Table, caption: str, command: str = "") -> str:
        """Write PNG and CSV of a figure; returns its HTML."""
        files = [f"{name}.png", f"{name}.csv"]
        drawn = io.BytesIO()
        figures.save_to(figure, drawn)
        figures.save(figure, self.output / files[0])
        data.write(self.output / files[1])
        return page.picture(drawn.getvalue(), "image/svg+xml", caption, command or self.command("--only", name), files)


def curves(report: Report) -> str:
    x = "updates" if any(run.settings["dataset"] for run in report.runs) else "env_steps"
    shown = [name for name in CURVES if any(name in row for run in report.runs for row in run.rows)]
    if not shown:
        return page.paragraph("No run has been evaluated yet.")
    drawn = [_curve_figure(report, f"curves_{name.rpartition('/')[2]}", name, x) for name in shown]
    return "".join(drawn) if len(report.tasks) > 1 else page.side_by_side(drawn)


def wall_time(report: Report) -> str:
    if not any(report.metric in row for run in report.runs for row in run.rows):
        return ""
    return _curve_figure(report, "wall_time", report.metric, "wall_time")


def _curve_figure(report: Report, name: str, metric: str, x: str) -> str:
    panels: dict[str, dict[str, Curve]] = {}
    faint: dict[str, dict[str, list[Any]]] = {}
    for task, (method, members) in groups(report):
        curve = combined(members, metric, x)
        if len(curve.x):
            panels.setdefault(task, {})[method] = curve
            faint.setdefault(task, {})[method] = [run.curve(metric, x) for run in members] if len(members) > 1 else []
    if not panels:
        return ""
    figure = figures.draw_curves(panels, x, [metric] * len(panels), list(report.methods), faint=faint)
    data = Table(["task", "method", x, metric, "low", "high", "runs"])
    for task, curves in panels.items():
        for method, curve in curves.items():
            data.rows += [
                [task, method, *point]
                for point in zip(curve.x, curve.value, curve.low, curve.high, curve.runs.tolist(), strict=True)
            ]
    caption = f"{figures.label(metric).capitalize()} by {figures.label(x)}"
    if any(len(members) > 1 for _, (_, members) in groups(report)):
        caption += ": IQM over seeds in its 95 % bootstrap interval; thin lines are single runs"
    if any(len(set(curve.runs.tolist())) > 1 for curves in panels.values() for curve in curves.values()):
        caption += ". Where some runs have stopped, or not begun, the line is thinner and of the others"
    caption += "."
    along = ["--x", x] if x == "wall_time" else []
    # `crl plot` is not for runs that cannot be read.
    paths = [str(run.path) for run in report.runs] if report.unread else report.paths
    command = ["crl", "plot", *paths, "--group", "--metric", metric, *along]
    return report.finish(
        name, figure, data, caption, shlex.join([*command, "--output", str(report.output / f"{name}.png")])
    )


def all_tasks(report: Report) -> str:
    """One curve for all tasks that every method has."""
    tasks = common_tasks(report)
    if len(tasks) < 2:
        return ""
    curves = {
        method: curve
        for method, found in report.methods.items()
        if (curve := over_tasks([found[task] for task in tasks], report.metric)) is not None
    }
    if not curves:
        return ""
    figure = figures.draw_curves({"": curves}, "share", [report.metric], list(report.methods))
    data = Table(["method", "share", report.metric, "low", "high", "runs"])
    for method, curve in curves.items():
        points = zip(curve.x, curve.value, curve.low, curve.high, curve.runs.tolist(), strict=True)
        data.rows += [[method, *point] for point in points]
    caption = f"{figures.label(report.metric).capitalize()} on {_list(tasks)} together: IQM over seeds and tasks."
    return report.finish("over_tasks", figure, data, caption)


def aggregates(report: Report) -> str:
    scored = _scored(report)
    if not scored:
        return ""
    statistic: dict[str, statistics.Statistic] = {
        "IQM": statistics.iqm,
        "median over tasks": statistics.median,
        "mean": statistics.mean,
    }
    if report.metric in figures.SHARES:
        statistic["optimality gap"] = statistics.optimality_gap
    panels = {
        name: {method: tables.estimate(measured, function) for method, measured in scored.items()}
        for name, function in statistic.items()
    }
    figure = figures.draw_estimates(panels, list(report.methods))
    data = Table(["statistic", "method", "value", "low", "high", "runs", "tasks"])
    data.rows += [
        [name, method, *estimate, *scored[method].shape]
        for name, estimates in panels.items()
        for method, estimate in estimates.items()
    ]
    gap = " The optimality gap is what is missing to 1; less is better." if len(statistic) == 4 else ""
    caption = f"Score ({figures.label(report.metric)}) {_of_tasks(report)}, with 95 % intervals over seeds.{gap}"
    return _left_out(report) + report.finish("aggregates", figure, data, caption)


def profile(report: Report) -> str:
    scored = _scored(report)
    if not scored:
        return ""
    every = np.concatenate([measured.reshape(-1) for measured in scored.values()])
    shares = report.metric in figures.SHARES
    low, high = (0.0, 1.0) if shares else (min(0.0, float(every.min())), float(every.max()) or 1.0)
    thresholds = np.linspace(low, high, THRESHOLDS)
    function = partial(statistics.profile, thresholds=thresholds)
    profiles = {
        method: (function(measured), statistics.interval(function, measured)) for method, measured in scored.items()
    }
    figure = figures.draw_profiles(thresholds, profiles, report.metric, list(report.methods))
    data = Table(["method", "threshold", "share above", "low", "high"])
    for method, (share, ends) in profiles.items():
        data.rows += [[method, *point] for point in zip(thresholds, share, *ends, strict=True)]
    caption = f"Performance profiles: the share of runs {_of_tasks(report)} that score above τ, with 95 % intervals."
    return report.finish("profile", figure, data, caption)


def improvement(report: Report) -> str:
    scored = _scored(report)
    if len(scored) < 2:
        return ""
    sign = -1 if report.metric in LOWER_IS_BETTER else 1
    estimates: dict[str, list[float | None]] = {}
    for (other, y), (one, x) in itertools.combinations(scored.items(), 2):  # the first named is what others are held to
        chance = float(statistics.probability_of_improvement(sign * x, sign * y))
        ends = statistics.interval(statistics.probability_of_improvement, sign * x, sign * y)
        several = max(len(x), len(y)) > 1
        estimates[f"{one}  over  {other}"] = [chance, *map(float, ends)] if several else [chance, None, None]
    figure = figures.draw_estimates({"P(X better than Y)": estimates}, mark=0.5)
    data = Table(["X over Y", "probability", "low", "high"], [[name, *found] for name, found in estimates.items()])
    caption = (
        f"Probability of improvement: the chance that a run of X scores better than one of Y {_of_tasks(report)}, "
        "a tie counting half, with 95 % intervals. Beyond the dashed line, X is better more often than not."
    )
    return report.finish("improvement", figure, data, caption)


FIGURES: Mapping[str, Callable[[Report], str]] = {
    "over_tasks": all_tasks,
    "aggregates": aggregates,
    "profile": profile,
    "improvement": improvement,
}
"""Those that `--only` makes, by name; curves are `crl plot`'s."""


# --- what several of them need


def groups(report: Report) -> list[tuple[str, tuple[str, Sequence[Run]]]]:
    """(task, (method, runs)) by task."""
    return [
        (task, (method, tasks[task]))
        for task in report.tasks
        for method, tasks in report.methods.items()
        if task in tasks
    ]


def common_tasks(report: Report) -> list[str]:
    """Those of which every method has a scored run: methods are compared on the same ones."""
    return [
        task
        for task in report.tasks
        if all(task in tasks and len(tables.scores(tasks[task], report.metric)) for tasks in report.methods.values())
    ]


def _scored(report: Report) -> dict[str, statistics.Floats]:
    """For each method its scores on the common tasks, (runs, tasks)."""
    tasks = common_tasks(report)
    return {
        method: tables.matrix([found[task] for task in tasks], report.metric)
        for method, found in report.methods.items()
        if tasks
    }


def _left_out(report: Report) -> str:
    """What a comparison is not of, in words."""
    tasks, notes = common_tasks(report), []
    if others := [task for task in report.tasks if task not in tasks]:
        notes.append(f"Compared on {_list(tasks)} alone: not all methods have scored runs of {_list(others)}.")
    for method, found in report.methods.items():
        counts = {task: len(tables.scores(found[task], report.metric)) for task in tasks}
        if len(set(counts.values())) > 1:
            fewest = min(counts.values())
            notes.append(
                f"{method} has more runs of some tasks than of others; compared are the first {fewest} of each."
            )
        unfinished = [task for task in tasks if not any(run.finished for run in found[task])]
        if unfinished:
            notes.append(f"No run of {method} has finished {_list(unfinished)}: its scores are those so far.")
    if report.metric not in figures.SHARES and len(tasks) > 1:
        notes.append(f"{figures.label(report.metric).capitalize()} is not the same unit on all tasks.")
    return "".join(page.paragraph(note) for note in notes)


def _of_tasks(report: Report) -> str:
    tasks = common_tasks(report)
    return f"on {tasks[0]}" if len(tasks) == 1 else f"on {len(tasks)} tasks"


def _list(items: Sequence[str]) -> str:
    return ", ".join(items) or "nothing"
