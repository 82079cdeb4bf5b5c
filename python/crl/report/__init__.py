"""`crl report`: what runs have shown, as one page with pictures and tables, and each of these as a file of its own."""

from __future__ import annotations

import datetime
import io
import itertools
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from crl import statistics
from crl.errors import CheckpointError, ConfigError, nearest
from crl.report import figures, page, tables
from crl.report.curves import Curve, combined, over_tasks
from crl.report.runs import Run, by_method, directories, load
from crl.report.tables import LOWER_IS_BETTER, SCORES, Methods, Table

CURVES = ("eval/success_rate", "eval/success_rate_far", "eval/success_at_end", "eval/time_at_goal", "train/critic_loss")
"""Curves that a report shows where runs have measured them."""
MEDIA_BUDGET = 6_000_000
"""Bytes of maps and videos on the page; what is beyond is named instead."""
THRESHOLDS = 101
"""Of a performance profile."""
EXPLAINED = (
    "Each run is scored by the mean of its evaluations in the last tenth of its length. Runs that differ in nothing "
    "but the seed are one group; of a group that has finished runs, those alone are scored. Numbers are interquartile "
    "means (IQM) over seeds, and over seeds and tasks where tasks are put together; with them are 95 % percentile "
    "intervals of the stratified bootstrap (2,000 resamples of the runs within each task, a fixed seed). They say what "
    "other seeds would give, and with three seeds they say it roughly; with one seed there is none. Definitions: "
    "Agarwal et al. 2021, Deep RL at the Edge of the Statistical Precipice; docs/experiments.md has the formulas."
)


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

    def command(self, figure: str) -> str:
        """What makes this figure and its CSV again."""
        metric = [] if self.metric == SCORES[0] else ["--metric", self.metric]
        return shlex.join(["crl", "report", *self.paths, *metric, "--only", figure, "--output", str(self.output)])

    def finish(self, name: str, figure: Any, data: Table, caption: str, command: str = "") -> str:
        """Write PNG and CSV of a figure; returns its HTML."""
        files = [f"{name}.png", f"{name}.csv"]
        drawn = io.BytesIO()
        figures.save_to(figure, drawn)
        figures.save(figure, self.output / files[0])
        data.write(self.output / files[1])
        return page.picture(drawn.getvalue(), "image/svg+xml", caption, command or self.command(name), files)


def write_report(
    paths: Sequence[str],
    output: Path,
    *,
    metric: str | None = None,
    only: str = "",
    draw_map: Callable[[Path, Path], Path | None] | None = None,
) -> Path:
    """Write the report on runs into directory `output`; returns the page, or with `only` the picture.

    Args:
        paths: run directories, or directories of runs as `crl sweep` makes them.
        output: made where it is not there; files of the same names in it are replaced.
        metric: by which runs are compared, one of tables.SCORES. [the first that was measured]
        only: one of FIGURES, to make that one alone.
        draw_map: draws where the policy of a run goes, (run, stem of the file) -> file, for a run of each group.

    Raises:
        CheckpointError: a path is no run, no run can be read, or none has measured the metric.
        ConfigError: an unknown metric or figure, or one that these runs have no need of.
    """
    if metric is not None and metric not in SCORES:
        raise ConfigError(f"--metric must be one of {', '.join(SCORES)}, got {metric!r}.{nearest(metric, SCORES)}")
    if only and only not in FIGURES:
        raise ConfigError(f"--only must be one of {', '.join(FIGURES)}, got {only!r}.{nearest(only, FIGURES)}")
    runs, unread = _loaded(directories(map(Path, paths)))
    if not runs:
        raise CheckpointError(unread[0])
    measured = [name for name in SCORES if any(name in row for run in runs for row in run.rows)]
    if metric is not None and metric not in measured:
        raise CheckpointError(f"none of the runs has measured {metric} yet.")
    output.mkdir(parents=True, exist_ok=True)
    chosen = metric or (measured[0] if measured else SCORES[0])
    report = Report(paths, runs, unread, by_method(runs), output, chosen, only)
    if only:
        if not FIGURES[only](report):
            raise ConfigError(
                f"--only {only}: there is nothing to draw of {_count(runs, 'run')} of {_count(report.tasks, 'task')}."
            )
        return output / f"{only}.png"
    index = output / "index.html"
    title = f"{' · '.join(report.tasks)}" if len(report.tasks) < 4 else f"{len(report.tasks)} tasks"
    index.write_text(page.page(title, _subtitle(report), _sections(report, draw_map)), encoding="utf-8")
    return index


def _loaded(paths: Iterable[Path]) -> tuple[list[Run], list[str]]:
    """The runs that can be read, and why others cannot: one damaged run does not keep the others from being seen."""
    runs, unread = [], []
    for path in paths:
        try:
            runs.append(load(path))
        except CheckpointError as error:
            unread.append(str(error))
    return runs, unread


def _subtitle(report: Report) -> str:
    groups = sum(len(tasks) for tasks in report.methods.values())
    parts = [f"{_count(report.runs, 'run')} in {groups} group{'s' * (groups != 1)}"]
    unfinished = sum(not run.finished for run in report.runs)
    parts += [f"{unfinished} not finished"] * bool(unfinished)
    parts.append(f"{datetime.datetime.now().astimezone():%d %B %Y, %H:%M %Z}")
    return (
        "; ".join(parts) + f". Made by: {shlex.join(['crl', 'report', *report.paths, '--output', str(report.output)])}"
    )


def _sections(report: Report, draw_map: Callable[[Path, Path], Path | None] | None) -> list[tuple[str, str]]:
    unread = "".join(page.paragraph(f"Left out: {reason}") for reason in report.unread)
    found = [
        ("Results", unread + _results(report)),
        ("Learning curves", _curves(report) + _over_tasks(report)),
        ("Comparison", _aggregates(report) + page.side_by_side([_profile(report), _improvement(report)])),
        ("Wall time and compute", _wall_time(report) + _compute(report)),
        ("Maps and videos", _media(report, draw_map)),
        ("Settings", _settings(report)),
        ("How it was computed", page.paragraph(EXPLAINED)),
    ]
    return [(heading, content) for heading, content in found if content]


# --- the figures ------------------------------------------------------------------------------------------------------


def _curves(report: Report) -> str:
    x = "updates" if any(run.settings["dataset"] for run in report.runs) else "env_steps"
    shown = [name for name in CURVES if any(name in row for run in report.runs for row in run.rows)]
    if not shown:
        return page.paragraph("No run has been evaluated yet.")
    drawn = [_curve_figure(report, f"curves_{name.rpartition('/')[2]}", name, x) for name in shown]
    return "".join(drawn) if len(report.tasks) > 1 else page.side_by_side(drawn)


def _wall_time(report: Report) -> str:
    if not any(report.metric in row for run in report.runs for row in run.rows):
        return ""
    return _curve_figure(report, "wall_time", report.metric, "wall_time")


def _curve_figure(report: Report, name: str, metric: str, x: str) -> str:
    panels: dict[str, dict[str, Curve]] = {}
    faint: dict[str, dict[str, list[Any]]] = {}
    for task, (method, members) in _groups(report):
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
    if any(len(members) > 1 for _, (_, members) in _groups(report)):
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


def _over_tasks(report: Report) -> str:
    """One curve for all tasks that every method has."""
    tasks = _common_tasks(report)
    if len(tasks) < 2:
        return ""
    curves = {
        method: curve
        for method, groups in report.methods.items()
        if (curve := over_tasks([groups[task] for task in tasks], report.metric)) is not None
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


def _aggregates(report: Report) -> str:
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


def _profile(report: Report) -> str:
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


def _improvement(report: Report) -> str:
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
    "over_tasks": _over_tasks,
    "aggregates": _aggregates,
    "profile": _profile,
    "improvement": _improvement,
}
"""Those that `--only` makes, by name; curves are `crl plot`'s."""


# --- tables and media -------------------------------------------------------------------------------------------------


def _results(report: Report) -> str:
    found = tables.results(report.methods)
    found.write(report.output / "results.csv")
    tables.write_points(report.runs, [*SCORES, *CURVES[-1:]], report.output / "points.csv")
    at = found.columns.index("source")
    other = [row[at] != "these runs" for row in found.rows]
    if any(other):
        text = page.table(found, other=other) + page.paragraph(
            "Rows in italics are published figures with their standard errors. They are of other physics, schedules or "
            "budgets, as their rows say: not to be taken for a result of these runs, nor for their limit.",
            "quiet",
        )
    else:
        text = page.table(Table(found.columns[:at], [row[:at] for row in found.rows]))
        text += page.paragraph("No published figures are known here for these tasks.", "quiet")
    return text + _files("results.csv", "points.csv")


def _compute(report: Report) -> str:
    found = tables.compute(report.methods)
    found.write(report.output / "compute.csv")
    note = (
        "Hours are of training and its evaluations, pauses left out; speeds are means over the whole run. FLOP are "
        "counted, not measured: those of the matrix products of updates (see crl plan). A run that is not finished, "
        "whether it goes on or not, has its share in place of its state."
    )
    return page.table(found) + page.paragraph(note, "quiet") + _files("compute.csv")


def _settings(report: Report) -> str:
    apart, shared = tables.settings(report.methods)
    apart.write(report.output / "settings.csv")
    differing = page.table(apart) if apart.rows else page.paragraph("The runs differ in nothing but the seed.")
    return differing + page.folded("Settings that all runs share", page.table(shared)) + _files("settings.csv")


def _media(report: Report, draw_map: Callable[[Path, Path], Path | None] | None) -> str:
    """For each group, of the first run that has any: the newest map, contact sheet and video."""
    shown: list[str] = []
    left_out: list[str] = []
    budget = MEDIA_BUDGET
    for task, (method, members) in _groups(report):
        stem = report.output / f"map_{len(shown) + len(left_out)}"
        drawn = draw_map(members[0].path, stem) if draw_map else None
        found = [*([drawn] if drawn else []), *_newest(members, with_map=drawn is None)]
        for file in found:
            run = next((run for run in members if run.path in file.parents), members[0])
            what = ["--paths"] if file.stem.endswith("_paths") else []
            command = shlex.join(["crl", "render", str(run.path), *what])
            size = file.stat().st_size
            if size > budget:
                left_out.append(f"{file} ({size / 1e6:.1f} MB)")
                continue
            budget -= size
            caption = f"{method}, {task}: {file.name}, of the run {run.path}, seed {run.settings['seed']}."
            shown.append(page.picture(file.read_bytes(), page.image_type(file), caption, command))
    text = page.side_by_side(shown) if shown else ""
    if left_out:
        text += page.paragraph(f"Too large for this page: {', '.join(left_out)}.", "quiet")
    if not text:
        text = page.paragraph(
            "None of the runs has any: crl render RUN makes them, and crl report --maps draws where policies go.",
            "quiet",
        )
    return text


def _newest(members: Sequence[Run], with_map: bool) -> list[Path]:
    for run in members:
        files = [file for file in (run.path / "videos").glob("*") if file.suffix in (".png", ".mp4")]
        maps = [file for file in files if file.stem.endswith("_paths")] if with_map else []
        sheets = [file for file in files if file.suffix == ".png" and not file.stem.endswith("_paths")]
        videos = [file for file in files if file.suffix == ".mp4"]
        kinds = [kind for kind in (maps, sheets, videos) if kind]
        if kinds:
            return [max(kind, key=lambda file: (file.stat().st_mtime, file.name)) for kind in kinds]
    return []


# --- what several of them need ----------------------------------------------------------------------------------------


def _groups(report: Report) -> list[tuple[str, tuple[str, Sequence[Run]]]]:
    """(task, (method, runs)) by task."""
    return [
        (task, (method, tasks[task]))
        for task in report.tasks
        for method, tasks in report.methods.items()
        if task in tasks
    ]


def _common_tasks(report: Report) -> list[str]:
    """Those of which every method has a scored run: methods are compared on the same ones."""
    return [
        task
        for task in report.tasks
        if all(task in tasks and len(tables.scores(tasks[task], report.metric)) for tasks in report.methods.values())
    ]


def _scored(report: Report) -> dict[str, statistics.Floats]:
    """For each method its scores on the common tasks, (runs, tasks)."""
    tasks = _common_tasks(report)
    return {
        method: tables.matrix([groups[task] for task in tasks], report.metric)
        for method, groups in report.methods.items()
        if tasks
    }


def _left_out(report: Report) -> str:
    """What a comparison is not of, in words."""
    tasks, notes = _common_tasks(report), []
    if others := [task for task in report.tasks if task not in tasks]:
        notes.append(f"Compared on {_list(tasks)} alone: not all methods have scored runs of {_list(others)}.")
    for method, groups in report.methods.items():
        counts = {task: len(tables.scores(groups[task], report.metric)) for task in tasks}
        if len(set(counts.values())) > 1:
            fewest = min(counts.values())
            notes.append(
                f"{method} has more runs of some tasks than of others; compared are the first {fewest} of each."
            )
        unfinished = [task for task in tasks if not any(run.finished for run in groups[task])]
        if unfinished:
            notes.append(f"No run of {method} has finished {_list(unfinished)}: its scores are those so far.")
    if report.metric not in figures.SHARES and len(tasks) > 1:
        notes.append(f"{figures.label(report.metric).capitalize()} is not the same unit on all tasks.")
    return "".join(page.paragraph(note) for note in notes)


def _of_tasks(report: Report) -> str:
    tasks = _common_tasks(report)
    return f"on {tasks[0]}" if len(tasks) == 1 else f"on {len(tasks)} tasks"


def _files(*names: str) -> str:
    beside = " · ".join(f'<a href="{name}">{name}</a>' for name in names)
    return f'<p class="quiet">Files: {beside}</p>\n'


def _list(items: Sequence[str]) -> str:
    return ", ".join(items) or "nothing"


def _count(items: Sequence[Any], what: str) -> str:
    return f"{len(items)} {what}{'s' * (len(items) != 1)}"
