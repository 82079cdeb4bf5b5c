"""`crl report`: what runs have shown, as one page."""

from pathlib import Path

import click

from crl.cli import need_extra
from crl.errors import CheckpointError, ConfigError


@click.command("report")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--output", default="report", show_default=True, metavar="DIR", help="Directory for page, PNG and CSV.")
@click.option("--metric", metavar="NAME", help="Score by which runs are compared. [eval/success_rate]")
@click.option("--maps", is_flag=True, help="Also draw where policies go, for a run of each group: loads checkpoints.")
@click.option("--only", default="", metavar="FIGURE", help="Make one figure and its CSV alone, as the page says.")
def command(runs: tuple[str, ...], output: str, metric: str | None, maps: bool, only: str) -> None:
    """Report on the runs in directories RUN, of which those that differ only in the seed are one group.

    DIR/index.html needs no network and no other file: learning curves with 95 % intervals, performance profiles,
    probabilities of improvement, scores beside published ones, wall time and compute, settings. Each figure is there as
    PNG and CSV too, and with the command that makes it. The directory of a sweep stands for all of its runs.

    Example: crl report runs/* --output report
    """
    need_extra("train", "yaml")
    need_extra("plot", "matplotlib", "scipy")
    if maps:
        need_extra("train", "torch", "mujoco", "gymnasium", "safetensors")
    from crl.report import write_report

    written = write_report(runs, Path(output), metric=metric, only=only, draw_map=_draw_map if maps else None)
    click.echo(f"wrote {written}")


def _draw_map(run: Path, stem: Path) -> Path | None:
    """What `crl render RUN --paths` draws; None, with a line that says why, of a run that has nothing to draw."""
    from crl.cli.render import command as render

    try:
        render.main([str(run), "--paths", "--output", str(stem)], standalone_mode=False)
    except (CheckpointError, ConfigError) as error:
        click.echo(f"no map of {run}: {error}", err=True)
        return None
    return stem.with_name(f"{stem.name}_paths.png")
