"""Run a `crl train` command until it has learnt a little, stop it as Ctrl-C does, and check what it left behind.

    train_briefly.py [--seconds S] [--rounds N] [--max-gib G] -- crl train --env ant_maze --depth 256

The command must print its run directory, make updates, exit with 130 (interrupted, state saved) when it gets SIGINT,
and leave finite metrics and a checkpoint that counts more updates than the one it started from.
"""

import argparse
import csv
import json
import math
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

DEADLINE = 1200.0
"""Seconds after which a command that has not learnt is given up."""


def saved_updates(run_dir: Path) -> int:
    """Updates counted by the newest checkpoint of a run, 0 when there is none."""
    checkpoints = sorted(run_dir.glob("checkpoints/step_*/state.json"), key=lambda path: int(path.parent.name[5:]))
    return json.loads(checkpoints[-1].read_text())["progress"]["updates"] if checkpoints else 0


def learning_rounds(run_dir: Path) -> list[dict[str, float]]:
    """The rows of metrics.csv that measure learning."""
    path = run_dir / "metrics.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = [{name: float(cell) for name, cell in row.items() if cell} for row in csv.DictReader(file)]
    return [row for row in rows if "train/critic_loss" in row]


class Watched:
    """A training process whose output is passed on and read along."""

    def __init__(self, command: list[str]) -> None:
        self.started = time.monotonic()
        self.run_dir: Path | None = None
        self.updates_before = self.updates = 0
        self.first_update: float | None = None
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            print(line, end="", flush=True)
            if match := re.match(r"run directory: (.+)", line):
                directory = Path(match[1])
                self.updates_before = saved_updates(directory)
                self.run_dir = directory
            if match := re.search(r"([\d,]+) updates \|", line):
                self.updates = int(match[1].replace(",", ""))
                if self.first_update is None and self.updates > self.updates_before:
                    self.first_update = time.monotonic() - self.started

    def has_learnt(self, seconds: float, rounds: int) -> bool:
        """Whether it ran for `seconds`, made an update, and has `rounds` rows that measure learning."""
        return (
            self.run_dir is not None
            and self.first_update is not None
            and time.monotonic() - self.started >= seconds
            and len(learning_rounds(self.run_dir)) >= rounds
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.0, help="train at least so long")
    parser.add_argument("--rounds", type=int, default=0, help="rows of metrics.csv that must measure learning")
    parser.add_argument("--max-gib", type=float, default=math.inf, help="peak memory that is too much")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()

    watched = Watched(options.command)
    while not watched.has_learnt(options.seconds, options.rounds):
        if watched.process.poll() is not None:
            sys.exit(f"FAILED: the command ended by itself with exit code {watched.process.returncode}")
        if time.monotonic() - watched.started > DEADLINE:
            watched.process.kill()
            sys.exit(f"FAILED: it had not learnt after {DEADLINE:.0f} s")
        time.sleep(0.2)
    watched.process.send_signal(signal.SIGINT)
    stopped = time.monotonic()
    code = watched.process.wait(timeout=120)
    saving = time.monotonic() - stopped

    assert watched.run_dir is not None
    assert code == 130, f"exit code {code} after an interrupt, expected 130"
    updates = saved_updates(watched.run_dir)
    assert updates > watched.updates_before, f"{updates} updates saved, {watched.updates_before} before"
    for row in learning_rounds(watched.run_dir):
        strange = {name: value for name, value in row.items() if not math.isfinite(value)}
        assert not strange, f"not finite at step {row['env_steps']:.0f}: {strange}"
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # Linux counts KiB
    assert peak <= options.max_gib, f"peak memory {peak:.2f} GiB, allowed {options.max_gib:g} GiB"
    print(
        f"OK {watched.run_dir}: first update seen after {watched.first_update:.0f} s, "
        f"{updates - watched.updates_before} updates, peak memory {peak:.2f} GiB, "
        f"saved and exited 130 within {saving:.1f} s"
    )


if __name__ == "__main__":
    main()
