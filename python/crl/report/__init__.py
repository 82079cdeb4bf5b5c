"""`crl report`: what runs have shown, as one page with pictures and tables, and each of these as a file of its own."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from crl.errors import CheckpointError, ConfigError, nearest
from crl.files import write_text
from crl.report import page, sections, tables
from crl.report.runs import Run, by_method, directories, load
from crl.report.sections import CURVES, FIGURES, Report, groups
from crl.report.tables import SCORES, Table

__all__ = ["FIGURES", "Report", "write_report"]

MEDIA_BUDGET = 6_000_000
"""Bytes of maps and videos on the page; what is beyond is named instead."""
EXPLAINED = (
    "Each run is scored by the mean of its evaluations in the last tenth of its length. Runs that differ in nothing "
    "but the seed are one group; of a group that has finished runs, those alone are scored. Numbers are interquartile "
    "means (IQM) over seeds, and over seeds and tasks where tasks are put together; with them are 95 % percentile "
    "intervals of the stratified bootstrap (2,000 resamples of the runs within each task, a fixed seed). They say what "
    "other seeds would give, and with three seeds they say it roughly; with one seed there is none. Definitions: "
    "Agarwal et al. 2021, Deep RL at the Edge of the Statistical Precipice; docs/experiments.md has the formulas."
)


DrawMap = Callable[[Path, Path], Path | None]


def write_report(
    paths: Sequence[str],
    output: Path,
    *,
    metric: str | None = None,
    only: str = "",
    draw_map: DrawMap | None = None,
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
    write_text(index, page.page(title, _subtitle(report, maps=draw_map is not None), _content(report, draw_map)))
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


def _subtitle(report: Report, maps: bool) -> str:
    parts = [f"{_count(report.runs, 'run')} in {_count(groups(report), 'group')}"]
    unfinished = sum(not run.finished for run in report.runs)
    parts += [f"{unfinished} not finished"] * bool(unfinished)
    parts.append(f"{datetime.datetime.now().astimezone():%d %B %Y, %H:%M %Z}")
    return (
        "; ".join(parts) + f". Made by: {shlex.join(['crl', 'report', *report.paths, '--output', str(report.output)])}"
    )


def _content(report: Report, draw_map: DrawMap | None) -> list[tuple[str, str]]:
    unread = "".join(page.paragraph(f"Left out: {reason}") for reason in report.unread)
    found = [
        ("Results", unread + _results(report)),
        ("Learning curves", sections.curves(report) + sections.all_tasks(report)),
        (
            "Comparison",
            sections.aggregates(report) + page.side_by_side([sections.profile(report), sections.improvement(report)]),
        ),
        ("Wall time and compute", sections.wall_time(report) + _compute(report)),
        ("Maps and videos", _media(report, draw_map)),
        ("Settings", _settings(report)),
        ("How it was computed", page.paragraph(EXPLAINED)),
    ]
    return [(heading, content) for heading, content in found if content]


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


def _media(report: Report, draw_map: DrawMap | None) -> str:
    """For each group, of the first run that has any: the newest map, contact sheet and video."""
    shown: list[str] = []
    left_out: list[str] = []
    budget = MEDIA_BUDGET
    for task, (method, members) in groups(report):
        stem = report.output / f"map_{len(shown) + len(left_out)}"
        drawn = draw_map(members[0].path, stem) if draw_map else None
        found = [*([drawn] if drawn else []), *_newest(members, with_map=drawn is None)]
        for file in found:
            run = next((run for run in members if run.path in file.parents), members[0])
            what, options = _shown(file)
            options += ["--output", str(stem)] if file == drawn else []
            command = shlex.join(["crl", "render", str(run.path), *options])
            size = file.stat().st_size
            if size > budget:
                left_out.append(f"{file} ({size / 1e6:.1f} MB)")
                continue
            budget -= size
            caption = f"{what} {method} on {task}, seed {run.settings['seed']}: {file.name}."
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


def _shown(file: Path) -> tuple[str, list[str]]:
    """What a picture or video shows, and the options of `crl render` that make it."""
    if file.stem.endswith("_paths"):
        return "Where the policy goes, and where it has been while learning:", ["--paths"]
    return ("Episodes, seen at a few moments:" if file.suffix == ".png" else "Episodes:"), []


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


def _files(*names: str) -> str:
    beside = " · ".join(f'<a href="{name}">{name}</a>' for name in names)
    return f'<p class="quiet">Files: {beside}</p>\n'


def _count(items: Sequence[Any], what: str) -> str:
    return f"{len(items)} {what}{'s' * (len(items) != 1)}"
