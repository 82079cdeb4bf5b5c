"""`crl bench`: how fast it is here, beside others."""

from pathlib import Path

import click

from crl.cli import need_extra
from crl.errors import ConfigError

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
@click.option("--plot", metavar="FILE", help="Picture of the sampling speeds: png, pdf or svg.")
@click.option("--markdown", metavar="FILE", help="All tables; what FILE says before those of an earlier run stays.")
@click.option("--json", "json_file", metavar="FILE", help="All figures, with machine and versions.")
@click.option("--csv", "csv_file", metavar="FILE", help="All figures, a row each.")
def buffer(
    workloads: tuple[str, ...],
    rows: tuple[int, ...],
    batch_sizes: tuple[int, ...],
    parts: tuple[str, ...],
    peers: bool,
    quick: bool,
    plot: str | None,
    markdown: str | None,
    json_file: str | None,
    csv_file: str | None,
) -> None:
    """Measure the trajectory buffer beside NumPy and, where they are installed, Numba and other libraries.

    Everybody takes turns in one process and, where it can be told, with one thread. Figures are medians over the
    rounds, in rows per second of processor time; in brackets the speed as a multiple of another's in the same rounds.

    Example: crl bench buffer --quick --plot speed.png
    """
    if plot is not None and Path(plot).suffix not in PICTURES:
        raise ConfigError(f"--plot must end in {', '.join(PICTURES)}, got {plot!r}.")
    if plot is not None and parts and "sample" not in parts:
        raise ConfigError("--plot shows sampling speeds: add --only sample, or leave --only out.")
    if plot is not None:
        need_extra("plot", "matplotlib")
    for file in (plot, markdown, json_file, csv_file):
        if file is not None and not Path(file).absolute().parent.is_dir():
            raise ConfigError(f"{file} cannot be written: there is no such directory.")
    from crl.bench import report, suite
    from crl.bench.machine import machine_facts
    from crl.bench.workloads import WORKLOADS
    from crl.console import plain_console

    console = plain_console()
    machine = machine_facts()
    for key, value in machine.items():
        console.print(f"{key}: {value}")
    found = []
    for results in suite.run(
        parts or suite.PARTS,
        workloads or tuple(WORKLOADS),
        rows or ((10**5,) if quick else (10**5, 10**6, 10**7)),
        batch_sizes or (256, 1024, 8192),
        with_peers=peers,
        quick=quick,
        say=lambda line: click.echo(line, err=True),
    ):
        found += results
        report.show(console, results)
    if markdown is not None:
        report.write_markdown(Path(markdown), machine, found)
    if json_file is not None:
        report.write_json(Path(json_file), machine, found)
    if csv_file is not None:
        report.write_csv(Path(csv_file), found)
    if plot is not None:
        report.draw(Path(plot), found)
