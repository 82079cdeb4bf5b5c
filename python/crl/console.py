"""What a person at the terminal sees: the settings, one live line, plain lines when there is no terminal."""

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

SECONDS_BETWEEN_LINES = 10.0


class Reporter:
    """Shows a run. On a terminal one line is kept up to date; elsewhere lines are printed now and then.

    Args:
        console: where to write; default: standard output.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or plain_console()
        self._live: Live | None = None
        self._row: dict[str, float] = {}
        self._success = ""
        self._total, self._unit = 0, "steps"
        self._last_line = 0.0

    @contextlib.contextmanager
    def show(self, resolved: Any, run_dir: Path, saved: Path | None) -> Iterator[None]:
        """Show the resolved configuration, with the reason for each value, where the run lives, then its progress."""
        settings_table(self.console, resolved)
        self.console.print(f"run directory: {run_dir}")
        if saved is not None:
            self.console.print(f"going on from: {saved}")
        self._total, self._unit = resolved.config.total, "updates" if resolved.config.dataset else "steps"
        self._last_line = time.monotonic()
        if self.console.is_terminal:
            first = Text("learning" if resolved.config.dataset else "collecting")
            self._live = Live(first, console=self.console, refresh_per_second=4, transient=True)
            self._live.start()
        try:
            yield
        finally:
            if self._live is not None:
                self._live.stop()
                self._live = None

    def tick(self, progress: Any, time_left: float | None) -> None:
        """Called after every update; cheap."""
        if self._live is not None:
            self._live.update(Text(self._line(progress.env_steps, progress.updates, time_left)))
        elif time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._print_line(progress.env_steps, progress.updates, time_left)

    def row(self, row: Mapping[str, float], time_left: float | None) -> None:
        """Show a row of metrics.csv."""
        first = "train/critic_loss" not in self._row and "train/critic_loss" in row
        self._row = dict(row)
        steps, updates = int(row["env_steps"]), int(row["updates"])
        if self._live is not None:
            self._live.update(Text(self._line(steps, updates, time_left)))
        elif first or time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._print_line(steps, updates, time_left)

    def evaluated(self, progress: Any, evaluation: Any, probes: Any = None) -> None:
        """Print the outcome of an evaluation, and of probes if any were made; it stays on screen."""
        low, high = evaluation.success_interval
        self._success = f"success {evaluation.success_rate:.2f} [{low:.2f}, {high:.2f}]"
        if evaluation.success_rate_far is not None:
            self._success += f", of far goals {evaluation.success_rate_far:.2f}"
        self.console.print(
            f"eval at {progress.position:,} {self._unit}: {self._success}, at end {evaluation.success_at_end:.2f}, "
            f"time at goal {evaluation.time_at_goal:.1f}, final distance {evaluation.final_distance:.3f} "
            f"({evaluation.num_episodes} episodes)"
        )
        if probes is not None:
            self.console.print(f"probes: success {probes}")

    def warn(self, text: str) -> None:
        """Print a warning; it stays on screen."""
        self.console.print(f"warning: {text}", style="yellow")

    def _print_line(self, env_steps: int, updates: int, time_left: float | None) -> None:
        self._last_line = time.monotonic()
        self.console.print(self._line(env_steps, updates, time_left))

    def _line(self, env_steps: int, updates: int, time_left: float | None) -> str:
        made = [f"{env_steps:,}/{self._total:,} steps", f"{updates:,} updates"]
        parts = made if self._unit == "steps" else [f"{updates:,}/{self._total:,} updates"]
        parts += [self._success] if self._success else []
        if "train/critic_loss" in self._row:
            parts.append(f"critic {self._row['train/critic_loss']:.3f}")
        if "train/categorical_accuracy" in self._row:
            parts.append(f"accuracy {self._row['train/categorical_accuracy']:.2f}")
        if "train/actor_loss" in self._row:
            parts.append(f"actor {self._row['train/actor_loss']:.2f}")
        if "speed/env_steps_per_second" in self._row:
            parts += [f"{self._row['speed/env_steps_per_second']:,.0f} steps/s"]
        if self._row:
            parts += [f"{self._row['speed/updates_per_second']:.1f} updates/s"]
        parts += [f"{duration(time_left)} left"] if time_left is not None else []
        return " | ".join(parts)


def plain_console() -> Console:
    """Standard output, taking text as it is: no guessing at what to colour, where to break lines, what is markup."""
    return Console(file=sys.stdout, highlight=False, soft_wrap=True, markup=False, emoji=False)


def print_table(console: Console, table: Table) -> None:
    """Print `table` as wide as it needs to be: one that is cut says nothing."""
    needed = Measurement.get(console, console.options.update(width=1000), table).maximum
    console.width = max(console.width, needed)
    console.print(table)


def settings_table(console: Console, resolved: Any) -> None:
    """Print every setting of a crl.resolution.Resolved with its value and where it comes from."""
    from crl.config import to_mapping

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("setting", "value", "from"):
        table.add_column(column)
    for (key, value), source in zip(to_mapping(resolved.config).items(), resolved.sources.values(), strict=True):
        table.add_row(key, f"{value:,}" if type(value) is int and key != "seed" else str(value), source)
    console.print(table)


def duration(seconds: float) -> str:
    """`seconds` in words: 45 s, 12 min, 3 h 20 min."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60:,} h {minutes % 60:02d} min"
