"""`crl plot`: the curves of runs, as a picture and as a table."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from crl.cli import need_extra
from crl.errors import CheckpointError, ConfigError, nearest
from crl.metrics import METRICS

DEFAULT_METRICS = ("eval/success_rate", "eval/success_at_end", "eval/time_at_goal", "train/critic_loss")
X_AXES = ("env_steps", "updates", "wall_time")


@click.command("plot")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    help=f"A column of metrics.csv, a panel each; may be repeated. [{', '.join(DEFAULT_METRICS)}]",
)
@click.option("--x", type=click.Choice(X_AXES), help="Horizontal axis. [env_steps; from a data set, updates]")
@click.option(
    "--group",
    is_flag=True,
    help="Runs that differ in nothing but the seed: their interquartile mean, in its 95 % bootstrap interval; a panel "
    "for each task.",
)
@click.option("--output", default="curves.png", show_default=True, metavar="FILE", help="Picture: png, pdf or svg.")
@click.option("--csv", "table", metavar="FILE", help="Table of the points. [the picture's name, with .csv]")
def command(
    runs: tuple[str, ...], metrics: tuple[str, ...], x: str | None, group: bool, output: str, table: str | None
) -> None:
    """Plot the curves of the runs in directories RUN, each named by the settings in which they differ.

    The directory of a sweep stands for all of its runs.

    Example: crl plot runs/* --group --output curves.png
    """
    for metric in metrics:
        if metric not in METRICS:
            raise ConfigError(f"--metric {metric!r} is not a column of metrics.csv.{nearest(metric, METRICS)}")
    picture = Path(output)
    if picture.suffix not in (".png", ".pdf", ".svg"):
        raise ConfigError(f"--output must end in .png, .pdf or .svg, got {output!r}.")
    need_extra("train", "yaml")
    need_extra("plot", "matplotlib", "scipy")
    from crl.report.curves import combined
    from crl.report.figures import draw_curves, label, save
    from crl.report.runs import Run, apart, by_method, directories, load, seeds
    from crl.report.tables import write_points

    loaded = [load(run) for run in directories(map(Path, runs))]
    wanted = metrics or DEFAULT_METRICS
    measured = [metric for metric in wanted if any(metric in row for run in loaded for row in run.rows)]
    missing = [metric for metric in wanted if metric not in measured]
    if missing and (metrics or not measured):
        raise CheckpointError(f"none of the runs has measured {', '.join(missing)} yet.")
    along = x or ("updates" if any(run.settings["dataset"] for run in loaded) else "env_steps")
    methods: Mapping[str, Mapping[str, Sequence[Run]]] = by_method(loaded)
    methods = {f"{name} ({seeds(tasks.values())})": tasks for name, tasks in methods.items()}
    if not group:
        methods = {name: {"": members} for name, members in apart(loaded).items()}
    tasks = list(dict.fromkeys(task for found in methods.values() for task in found))
    panels = {
        label(metric) + f", {task}" * (len(tasks) > 1): {
            name: combined(found[task], metric, along) for name, found in methods.items() if task in found
        }
        for metric in measured
        for task in tasks
    }
    ys = [metric for metric in measured for _ in tasks]
    columns = len(tasks) if 1 < len(tasks) < 4 else 2
    picture.parent.mkdir(parents=True, exist_ok=True)
    save(draw_curves(panels, along, ys, list(methods), columns=columns), picture)
    written = write_points(loaded, measured, Path(table) if table else picture.with_suffix(".csv"))
    click.echo(f"{picture} and {written}: {', '.join(measured)} of {len(loaded)} runs")
