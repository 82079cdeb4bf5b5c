"""`crl plot`: the curves of runs, as a picture and as a table."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from crl.cli import need_extra
from crl.config import from_mapping, read_settings, to_mapping
from crl.errors import CheckpointError, ConfigError, nearest
from crl.metrics import METRICS, read_metrics

DEFAULT_METRICS = ("eval/success_rate", "eval/success_at_end", "eval/time_at_goal", "train/critic_loss")
SHARES = ("eval/success_rate", "eval/success_rate_far", "eval/success_at_end", "train/categorical_accuracy")
X_AXES = {"env_steps": "environment steps", "updates": "updates", "wall_time": "wall time, s"}
NOT_COMPARED = ("run_dir", "device", "num_threads", "keep_checkpoints")
"""Settings in which runs of the same experiment may differ."""
FOLLOWS = {"eval_env": "env", "actor_depth": "depth", "critic_depth": "depth"}
"""Settings that need no mention where they equal the other one."""
LONGEST_NAME = 60


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


@click.command("plot")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    help=f"A column of metrics.csv, a panel each; may be repeated. [{', '.join(DEFAULT_METRICS)}]",
)
@click.option("--x", type=click.Choice(list(X_AXES)), help="Horizontal axis. [env_steps; from a data set, updates]")
@click.option("--group", is_flag=True, help="Runs that differ in nothing but the seed: their mean, in a min-max band.")
@click.option("--output", default="curves.png", show_default=True, metavar="FILE", help="Picture: png, pdf or svg.")
@click.option("--csv", "table", metavar="FILE", help="Table of the points. [the picture's name, with .csv]")
def command(
    runs: tuple[str, ...], metrics: tuple[str, ...], x: str | None, group: bool, output: str, table: str | None
) -> None:
    """Plot the curves of the runs in directories RUN, each named by the settings in which they differ.

    Example: crl plot runs/* --group --output curves.png
    """
    for metric in metrics:
        if metric not in METRICS:
            raise ConfigError(f"--metric {metric!r} is not a column of metrics.csv.{nearest(metric, METRICS)}")
    picture = Path(output)
    if picture.suffix not in (".png", ".pdf", ".svg"):
        raise ConfigError(f"--output must end in .png, .pdf or .svg, got {output!r}.")
    need_extra("train", "yaml")
    need_extra("plot", "matplotlib")
    loaded = [load(Path(run)) for run in runs]
    wanted = metrics or DEFAULT_METRICS
    measured = [metric for metric in wanted if any(metric in row for run in loaded for row in run.rows)]
    missing = [metric for metric in wanted if metric not in measured]
    if missing and (metrics or not measured):
        raise CheckpointError(f"none of the runs has measured {', '.join(missing)} yet.")
    x = x or ("updates" if any(run.settings["dataset"] for run in loaded) else "env_steps")
    draw(grouped(loaded) if group else apart(loaded), measured, x, picture)
    written = write_table(loaded, measured, Path(table) if table else picture.with_suffix(".csv"))
    click.echo(f"{picture} and {written}: {', '.join(measured)} of {len(loaded)} runs")


def load(path: Path) -> Run:
    """The run in directory `path`; raises CheckpointError when it is none."""
    if not path.is_dir():
        raise CheckpointError(f"{path} cannot be plotted: no such directory.")
    try:
        settings = to_mapping(from_mapping(read_settings(path / "config.yaml")))
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    return Run(path, settings, read_metrics(path / "metrics.csv"))


def apart(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Each run under a name of its own."""
    return {name: [run] for name, run in zip(names(runs, NOT_COMPARED), runs, strict=True)}


def grouped(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs that differ in nothing but the seed, under one name."""
    ignored = (*NOT_COMPARED, "seed")
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(tuple(run.settings[key] for key in run.settings if key not in ignored), []).append(run)
    first = [members[0] for members in groups.values()]
    known = [f"{first[0].settings['env']}, depth {first[0].settings['depth']}"] if len(first) == 1 else None
    return {
        f"{name} ({len(members)} {'seed' if len(members) == 1 else 'seeds'})": members
        for name, members in zip(known or names(first, ignored), groups.values(), strict=True)
    }


def names(runs: Sequence[Run], ignored: Sequence[str]) -> list[str]:
    """The settings in which the runs differ or, where that says nothing or too much, their directories."""
    compared = [
        key
        for key in runs[0].settings
        if key not in ignored and not all(run.settings[key] == run.settings.get(FOLLOWS.get(key, "")) for run in runs)
    ]
    differing = [key for key in compared if len({run.settings[key] for run in runs}) > 1]
    told = [", ".join(f"{key} {run.settings[key]}" for key in differing) for run in runs]
    clear = len(set(told)) == len(told) and all(0 < len(text) <= LONGEST_NAME for text in told)
    return told if clear else [str(run.path) for run in runs]


def draw(named: Mapping[str, Sequence[Run]], metrics: Sequence[str], x: str, picture: Path) -> None:
    """One panel a metric, one line a name; several runs under one name are a mean in a band from min to max."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(2, len(metrics))
    rows = -(-len(metrics) // columns)
    figure = Figure(figsize=(6 * columns, 3.5 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel, metric in zip(panels, metrics, strict=False):
        for name, runs in named.items():
            at, mean, low, high = band([run.curve(metric, x) for run in runs])
            (line,) = panel.plot(at, mean, label=name, marker="." if len(at) < 50 else None)
            if len(runs) > 1:
                panel.fill_between(at, low, high, alpha=0.2, color=line.get_color(), linewidth=0)
        panel.set(title=metric, xlabel=X_AXES[x])
        if metric in SHARES:
            panel.set_ylim(-0.03, 1.03)
        panel.grid(alpha=0.3)
    for unused in panels[len(metrics) :]:
        unused.remove()
    handles, _ = panels[0].get_legend_handles_labels()
    figure.legend(handles, list(named), loc="outside lower center", ncols=2)
    figure.savefig(picture, dpi=120)


def band(curves: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> tuple[NDArray[np.float64], ...]:
    """Mean, min and max of curves (x, value) where all of them are known: x, mean, min, max, each [points].

    A curve is taken to be straight between its points.
    """
    measured = [curve for curve in curves if len(curve[0])]
    if not measured:
        return tuple(np.empty((4, 0)))
    start, end = max(x[0] for x, _ in measured), min(x[-1] for x, _ in measured)
    at = np.unique(np.concatenate([x for x, _ in measured]))
    at = at[(at >= start) & (at <= end)]
    values = np.array([np.interp(at, x, value) for x, value in measured])
    return at, values.mean(axis=0), values.min(axis=0), values.max(axis=0)


def write_table(runs: Sequence[Run], metrics: Sequence[str], path: Path) -> Path:
    """Every measured point in a row of its own."""
    told = ("env", "eval_env", "depth", "seed")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["run", *told, *X_AXES, "metric", "value"])
        for run in runs:
            known = [str(run.path), *(run.settings[key] for key in told)]
            for row in run.rows:
                at = [row.get(name, "") for name in X_AXES]
                writer.writerows([*known, *at, metric, row[metric]] for metric in metrics if metric in row)
    return path
