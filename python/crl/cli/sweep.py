"""`crl sweep`: many runs from one file."""

import contextlib
import os
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crl.cli import need_extra
from crl.cli.train import stop_on_signals
from crl.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from crl.sweep.backends import Backend
    from crl.sweep.driver import Entry
    from crl.sweep.plan import Sweep

MANY = 10_000
"""Jobs that a cluster may have of us where nobody says how many: all."""
SHOWN_ROWS = 20


@click.command("sweep")
@click.argument("file", required=False)
@click.option("--list", "listed", is_flag=True, help="List the sweeps that are part of the package, and stop.")
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="Runs at a time. [1; on a cluster, all]")
@click.option(
    "--backend",
    type=click.Choice(["local", "submitit", "ray"]),
    default="local",
    show_default=True,
    help="Processes here, jobs of a cluster such as Slurm, or tasks of Ray.",
)
@click.option(
    "--retries",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    metavar="N",
    help="How often a run that failed goes on from its checkpoint.",
)
@click.option("--output", metavar="DIR", help="Directory of the runs, their logs and sweep.csv. [runs/NAME]")
@click.option("--dry-run", is_flag=True, help="Print the commands and stop.")
def command(
    file: str | None,
    listed: bool,
    jobs: int | None,
    backend: str,
    retries: int,
    output: str | None,
    dry_run: bool,
) -> None:
    """Train over the grid of settings and seeds in YAML file FILE, or in the package's own sweep of that name.

    The same command again goes on: finished runs are left alone, others go on from their newest checkpoint. Ctrl-C
    lets all runs save themselves. A run that fails does not stop the others. The whole file is checked before anything
    starts.

    Example: crl sweep depths.yaml --jobs 2
    """
    need_extra("train", "yaml")
    from crl.sweep.plan import experiments, located, read
    from crl.sweep.trial import DONE

    if listed:
        for name, description in experiments().items():
            click.echo(f"{name:16}{description}")
        return
    if file is None:
        raise click.UsageError("give the file of a sweep, or the name of one that `crl sweep --list` shows.")
    path = located(file)
    sweep = read(path, output)
    folder = sweep.trials[0].run_dir.parent
    parallel = jobs or (1 if backend == "local" else MANY)
    threads = max(1, _cores() // parallel) if backend == "local" else None
    if dry_run:
        for trial in sweep.trials:
            done = trial.state() == DONE
            click.echo(f"# done: {trial.name}" if done else shlex.join(["crl", *trial.command(threads)]))
        return
    need_extra("train", "torch", "mujoco", "gymnasium", "safetensors")
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder) as lock:
        with contextlib.suppress(shutil.SameFileError):
            shutil.copyfile(path, folder / "sweep.yaml")
        _run(sweep, _backend(backend, sweep, folder, parallel, threads, lock), retries, folder)


def _run(sweep: "Sweep", backend: "Backend", retries: int, folder: Path) -> None:
    """Mind the runs, show them, and end with the exit code that tells how it went."""
    from crl.sweep.driver import FAILED, Driver
    from crl.sweep.trial import DONE

    with stop_on_signals() as stop, _Status() as status:
        driver = Driver(sweep.trials, backend, retries, folder / "sweep.csv", status.show)
        driver.run(stop)
    for entry in driver.entries:
        if entry.state == FAILED:
            click.echo(f"failed: {entry.trial.name}: {_last_line(entry.trial.log)} ({entry.trial.log})", err=True)
    counts = Counter(entry.state for entry in driver.entries)
    click.echo(f"{', '.join(f'{count} {state}' for state, count in counts.items())}: {folder / 'sweep.csv'}")
    if stop.is_set():
        click.echo("go on with the same command", err=True)
        sys.exit(130)
    if counts[DONE] < len(driver.entries):
        sys.exit(1)
    click.echo(f"see them with: crl report {folder}")


def _backend(name: str, sweep: "Sweep", folder: Path, jobs: int, threads: int | None, lock: int | None) -> "Backend":
    from crl.sweep.backends import Local, Ray, Submitit

    if name == "submitit":
        need_extra("slurm", "submitit")
        return Submitit(folder / "submitit", {"name": sweep.name, **sweep.backends["submitit"]}, jobs)
    if name == "ray":
        need_extra("ray", "ray")
        return Ray(sweep.backends["ray"], jobs)
    return Local(jobs, threads or 1, _gpus() if jobs > 1 else [], lock)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> list[str]:
    """The GPUs that there are for this process, by the names that CUDA_VISIBLE_DEVICES has for them."""
    import torch

    if not torch.cuda.is_available():
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[int | None]:
    """Hold the lock of a sweep's directory, which runs hold too: a sweep that was killed may have left some behind."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield None
        return
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{folder} is at work: a sweep, or runs of one, write into it. Wait, or stop them."
            ) from None
        yield file.fileno()


def _last_line(log: Path) -> str:
    """The last thing that a run has said."""
    with contextlib.suppress(OSError):
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else "it said nothing"
    return "it has no log"


class _Status:
    """A table that is kept up to date on a terminal; elsewhere a line whenever the state of a trial changes."""

    def __init__(self) -> None:
        from rich.live import Live

        from crl.console import plain_console

        console = plain_console()
        self._live = Live(console=console, refresh_per_second=2) if console.is_terminal else None
        self._states: dict[str, str] = {}

    def __enter__(self) -> "_Status":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, entries: Sequence["Entry"]) -> None:
        """Show all trials as they are now."""
        from crl.sweep.driver import WAITING

        if self._live:
            self._live.update(table(entries))
            return
        for entry in entries:
            if self._states.get(entry.trial.name, WAITING) != entry.state:
                self._states[entry.trial.name] = entry.state
                again = f" (attempt {entry.attempts})" if entry.attempts > 1 else ""
                click.echo(f"{entry.state}{again}: {entry.trial.name}")


def table(entries: Sequence["Entry"]) -> "Table":
    """How many are in which state, and a row for each of the first ones: those that run, have failed, and others."""
    from rich.table import Table

    from crl.sweep.driver import FAILED, RUNNING

    counts = Counter(entry.state for entry in entries)
    shown = Table(box=None, pad_edge=False, header_style="bold", caption_justify="left")
    for column in ("trial", "state", "attempt", "steps", "updates", "minutes", "success"):
        shown.add_column(column, justify="left" if column in ("trial", "state") else "right")
    ordered = sorted(
        entries, key=lambda entry: (RUNNING, FAILED).index(entry.state) if entry.state in (RUNNING, FAILED) else 2
    )
    for entry in ordered[:SHOWN_ROWS]:
        steps, updates, wall, success = (
            entry.measured.get(name) for name in ("env_steps", "updates", "wall_time", "eval/success_rate")
        )
        shown.add_row(
            entry.trial.name,
            entry.state,
            str(entry.attempts or ""),
            "" if steps is None else f"{steps:,.0f}",
            "" if updates is None else f"{updates:,.0f}",
            "" if wall is None else f"{wall / 60:.1f}",
            "" if success is None else f"{success:.2f}",
        )
    shown.caption = ", ".join(f"{count} {state}" for state, count in counts.items())
    return shown
