"""One run of a sweep. How far it is stands in its directory alone, so that nothing is lost with the sweep."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crl import checkpoint
from crl.config import read_settings
from crl.errors import CheckpointError, ConfigError
from crl.metrics import read_metrics

NEW, STOPPED, BROKEN, DONE = "new", "stopped", "broken", "done"
"""Of what is in a directory: nothing; a run with a checkpoint; one that has none; one that was evaluated at its end."""


@dataclass(frozen=True)
class Trial:
    """A run that a sweep asks for. It can be sent to other machines that share the directory."""

    name: str
    settings: Mapping[str, Any]
    """Those of the file, by file keys, seed included; `crl train` finds the others."""
    varied: tuple[str, ...]
    """The keys among them in which trials differ."""
    run_dir: Path

    @property
    def log(self) -> Path:
        """Where it says what it says, of all attempts."""
        return self.run_dir.parent / "logs" / f"{self.name}.log"

    def state(self) -> str:
        """NEW, STOPPED, BROKEN or DONE."""
        if not self.run_dir.is_dir() or not any(self.run_dir.iterdir()):
            return NEW
        saved = checkpoint.complete(self.run_dir)
        if not saved:
            return BROKEN
        try:
            evaluated_at = int(checkpoint.read_json(saved[-1] / "state.json")["progress"]["evaluated_at"])
            return DONE if evaluated_at >= self.total() else STOPPED
        except (OSError, ValueError, KeyError, TypeError):
            return STOPPED  # `crl train --resume` says what is wrong with it

    def total(self) -> int:
        """How long it is to be, as the sweep says or else the run itself: env steps, or updates with a data set."""
        key = "total_updates" if self.settings.get("dataset") else "total_env_steps"
        return int(self.settings.get(key) or self.made_with()[key])

    def made_with(self) -> dict[str, Any]:
        """The settings that the run has; raises ConfigError when they cannot be read."""
        return read_settings(self.run_dir / "config.yaml")

    def command(self, threads: int | None = None) -> list[str]:
        """The arguments of `crl` that start it, or go on with it from its newest checkpoint.

        Args:
            threads: for a new run whose settings do not say; one that goes on keeps its own, whose sums would change.
        """
        if checkpoint.complete(self.run_dir):
            from crl.run import RESUMABLE

            made = self.made_with()
            wanted = {key: value for key, value in self.settings.items() if key in RESUMABLE and made[key] != value}
            return ["train", "--resume", str(self.run_dir), *_options(wanted)]
        more = {} if threads is None or self.settings.get("num_threads") else {"num_threads": threads}
        return ["train", *_options({**self.settings, **more}), "--run-dir", str(self.run_dir)]

    def clear(self) -> None:
        """Move what an attempt left that came to no checkpoint to `failed/`: `crl train` wants an empty directory."""
        if self.state() != BROKEN:
            return
        aside = self.run_dir.parent / "failed"
        aside.mkdir(exist_ok=True)
        number = 1
        while (place := aside / f"{self.name}-{number}").exists():
            number += 1
        os.rename(self.run_dir, place)

    def measured(self) -> dict[str, float]:
        """The last value of every metric so far; none where there is no row yet, or one is just being written."""
        try:
            rows = read_metrics(self.run_dir / "metrics.csv")
        except CheckpointError:
            return {}
        return {name: value for row in rows for name, value in row.items()}


def conflict(trial: Trial, resolved: Mapping[str, Any]) -> str:
    """What the trial's directory has that the sweep would have otherwise, in words; "" where they agree.

    Args:
        trial: whose directory may hold a run already.
        resolved: all its settings, by file keys.
    """
    if trial.state() in (NEW, BROKEN):
        return ""
    from crl.run import RESUMABLE

    try:
        made = trial.made_with()
    except ConfigError as error:
        return str(error)
    for key in trial.settings:
        if key not in RESUMABLE and made.get(key) != resolved[key]:
            return f"{trial.run_dir} was made with {key} {made.get(key)!r}, and the sweep says {resolved[key]!r}"
    return ""


def _options(settings: Mapping[str, Any]) -> list[str]:
    options = []
    for key, value in settings.items():
        name = key.replace("_", "-")
        if isinstance(value, bool):
            options.append(f"--{name}" if value else "--sync" if key == "async" else f"--no-{name}")
        elif value is not None:
            options.append(f"--{name}={value}")
    return options
