"""`crl bench`: how fast it is here, beside others."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crl.cli import need_extra
from crl.errors import ConfigError

if TYPE_CHECKING:
    from crl.bench.measure import Result

PICTURES = (".png", ".pdf", ".svg")


@click.group("bench")
def command() -> None:
    """Measure speed on this machine, beside others where they are installed."""


class _Count(click.ParamType[int]):
    """A positive whole number, also as 1e6 or 1_000_000."""

    name = "number"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            number = float(str(value))
        except ValueError:
            number = 0.0
        if number < 1 or number != int(number):
            self.fail(f"expected a positive whole number; got {value!r}", param, ctx)
        return int(number)


def _outputs(function: Callable[..., None]) -> Callable[..., None]:
    """The options for files."""
    for option in (
        click.option("--csv", "csv_file", metavar="FILE", help="All figures, a row each."),
        click.option("--json", "json_file", metavar="FILE", help="All figures, with machine and versions."),
        click.option("--markdown", metavar="FILE", help="All tables; what FILE says before an earlier run's stays."),
        click.option("--plot", metavar="FILE", help="Picture of the speeds: png, pdf or svg."),
    ):
        function = option(function)
    return function


@command.command("buffer")
@click.option(
    "--workload",
    "workloads",
    multiple=True,
    type=click.Choice(("ant", "humanoid", "image")),
    help="Rows of observation, action and goal: 29, 8, 2; 268, 17, 3; 64 x 64 x 3 bytes, 8, 2. May be repeated. [all]",
)
@click.option(
    "--rows", multiple=True, type=_Count(), help="Rows stored; may be repeated. [1e5, 1e6, 1e7; with --quick 1e5]"
)
@click.option(
    "--batch-size", "batch_sizes", multiple=True, type=_Count(), help="Rows of a batch; repeat. [256, 1024, 8192]"
)
@click.option(
    "--only",
    "parts",
    multiple=True,
    type=click.Choice(("sample", "add", "threads", "mixed", "snapshot")),
    help="Sampling, adding, two threads, a writer beside samplers, files; may be repeated. [all]",
)
@click.option("--peers/--no-peers", default=True, show_default=True, help="Other libraries, where installed.")
@click.option("--quick", is_flag=True, help="Fewer rounds and only 1e5 rows: half a minute.")
@_outputs
def buffer(
    workloads: tuple[str, ...],
    rows: tuple[int, ...],
    batch_sizes: tuple[int, ...],
    parts: tuple[str, ...],
    peers: bool,
    quick: bool,
    **files: str | None,
) -> None:
    """Measure the trajectory buffer beside NumPy and, where they are installed, Numba and other libraries.

    Everybody takes turns in one process and, where it can be told, with one thread. Figures are medians over the
    rounds, in rows per second of processor time; in brackets the speed as a multiple of another's in the same rounds.

    Example: crl bench buffer --quick --plot speed.png
    """
    _check_files(files)
    if files["plot"] is not None and parts and "sample" not in parts:
        raise ConfigError("--plot shows sampling speeds: add --only sample, or leave --only out.")
    from crl.bench import suite
    from crl.bench.workloads import WORKLOADS

    found = suite.run(
        parts or suite.PARTS,
        workloads or tuple(WORKLOADS),
        rows or ((10**5,) if quick else (10**5, 10**6, 10**7)),
        batch_sizes or (256, 1024, 8192),
        with_peers=peers,
        quick=quick,
        say=_say,
    )
    _report(found, files, "crl bench buffer", "sample", "batch")


@command.command("learner")
@click.option(
    "--depth", "depths", multiple=True, type=_Count(), help="Repeat for several. [4, 16, 64, 256, 1024; --quick 4, 16]"
)
@click.option("--width", "widths", multiple=True, type=_Count(), help="Units of a layer; may be repeated. [256]")
@click.option("--batch-size", "batch_sizes", multiple=True, type=_Count(), help="Rows of a batch; repeat. [256]")
@click.option(
    "--device", "devices", multiple=True, metavar="NAME", help="cpu, cuda or cuda:N; repeat. [CUDA if there is one]"
)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=click.Choice(("float32", "tf32", "bf16")),
    help="Of matrix products; may be repeated. [float32]",
)
@click.option(
    "--only",
    "parts",
    multiple=True,
    type=click.Choice(("update", "phases", "memory")),
    help="Speed, shares of an update, memory and the time to the first; may be repeated. [all]",
)
@click.option("--peers/--no-peers", default=True, show_default=True, help="JAX, where installed.")
@click.option("--busy", type=click.IntRange(min=0), default=0, help="Processes that each spin on a core meanwhile. [0]")
@click.option("--quick", is_flag=True, help="Fewer rounds, and only depths 4 and 16: a minute.")
@_outputs
def learner(
    depths: tuple[int, ...],
    widths: tuple[int, ...],
    batch_sizes: tuple[int, ...],
    devices: tuple[str, ...],
    precisions: tuple[str, ...],
    parts: tuple[str, ...],
    peers: bool,
    busy: int,
    quick: bool,
    **files: str | None,
) -> None:
    """Measure an update of actor, temperature and critic, of the ant's sizes, beside what it could be.

    In turns in one process: ours, the same in PyTorch's own modules, and in JAX; and the matrix products that the
    machine can make. Losses are compared before. Figures are medians over the rounds; in brackets the speed as a
    multiple of another's in the same rounds.

    Example: crl bench learner --quick --depth 64
    """
    _check_files(files)
    if files["plot"] is not None and parts and "update" not in parts:
        raise ConfigError("--plot shows updates a second: add --only update, or leave --only out.")
    need_extra("train", "torch", "mujoco", "gymnasium", "safetensors", "yaml")
    from crl.bench import learner as suite

    groups = [
        [suite.settings(depth, *of_all) for depth in depths or ((4, 16) if quick else suite.DEPTHS)]
        for of_all in itertools.product(
            widths or (256,), batch_sizes or (256,), devices or ("auto",), precisions or ("float32",)
        )
    ]
    found = suite.run(parts or suite.PARTS, groups, with_peers=peers, quick=quick, say=_say, busy=busy)
    _report(found, files, "crl bench learner", "update", "depth")


def _say(line: str) -> None:
    click.echo(line, err=True)


def _check_files(files: dict[str, str | None]) -> None:
    plot = files["plot"]
    if plot is not None and Path(plot).suffix not in PICTURES:
        raise ConfigError(f"--plot must end in {', '.join(PICTURES)}, got {plot!r}.")
    if plot is not None:
        need_extra("plot", "matplotlib")
    for file in files.values():
        if file is not None and not Path(file).absolute().parent.is_dir():
            raise ConfigError(f"{file} cannot be written: there is no such directory.")


def _report(
    found: Iterator["list[Result]"], files: dict[str, str | None], command: str, plotted: str, axis: str
) -> None:
    """Show the figures as they come, and write those files that are asked for; the picture is of one benchmark."""
    from crl.bench import report
    from crl.bench.machine import machine_facts
    from crl.console import plain_console

    console = plain_console()
    machine = machine_facts()
    for key, value in machine.items():
        console.print(f"{key}: {value}")
    all_found = []
    for results in found:
        all_found += results
        report.show(console, results)
    plot, markdown, json_file, csv_file = (files[name] for name in ("plot", "markdown", "json_file", "csv_file"))
    if markdown is not None:
        report.write_markdown(Path(markdown), machine, all_found, command)
    if json_file is not None:
        report.write_json(Path(json_file), machine, all_found)
    if csv_file is not None:
        report.write_csv(Path(csv_file), all_found)
    if plot is not None:
        report.draw(Path(plot), all_found, plotted, axis)
