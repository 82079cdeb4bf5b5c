"""Minding a sweep: start, look, retry, stop, and say how it is."""

from __future__ import annotations

import csv
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from crl.files import whole
from crl.sweep.backends import Backend, Job
from crl.sweep.trial import DONE, Trial

WAITING, RUNNING, FAILED, STOPPED = "waiting", "running", "failed", "stopped"
WRONG_USAGE, INTERRUPTED = 2, 130
"""Exit codes of `crl train` after which it is not tried again: nothing would change, and somebody wanted it so."""
LOOK = 2.0
"""Seconds between looks at what running trials have measured."""
SHOWN = ("env_steps", "updates", "wall_time", "eval/success_rate")


@dataclass
class Entry:
    """A trial as the sweep sees it."""

    trial: Trial
    state: str = WAITING
    attempts: int = 0
    measured: dict[str, float] = field(default_factory=dict)

    @property
    def open(self) -> bool:
        """Whether there is something to do yet."""
        return self.state in (WAITING, RUNNING)


class Driver:
    """Runs the trials of a sweep that are not done.

    Args:
        trials: all of them.
        backend: starts them.
        retries: how often a trial that failed is started again, from its checkpoint.
        index: sweep.csv, written whenever a state changes.
        show: told of all entries now and then.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        backend: Backend,
        retries: int,
        index: Path,
        show: Callable[[Sequence[Entry]], object] = lambda entries: None,
    ) -> None:
        self.entries = [Entry(trial) for trial in trials]
        self._backend, self._retries, self._index, self._show = backend, retries, index, show
        self._jobs: dict[str, Job] = {}
        self._looked = 0.0
        for entry in self.entries:
            if entry.trial.state() == DONE:
                entry.state = DONE

    def run(self, stop: threading.Event) -> None:
        """Until every trial is done or has failed; or, once `stop` is set, until what runs has saved itself."""
        told = False
        self._report()
        try:
            while any(entry.state == RUNNING or (entry.open and not stop.is_set()) for entry in self.entries):
                if stop.is_set() and not told:
                    told = True
                    self._stop()
                changed = self._start() if not stop.is_set() else False
                changed |= self._poll(stop.is_set())
                if changed or time.monotonic() - self._looked > LOOK:
                    self._report()
                if not changed:
                    # Once it is set, waiting for it would not wait.
                    time.sleep(self._backend.interval) if told else stop.wait(self._backend.interval)
        finally:
            self._stop()  # of what runs still, there is some only if this loop was broken off
            for entry in self.entries:
                if entry.open:
                    entry.state = STOPPED if entry.attempts else WAITING
            self._report()

    def _start(self) -> bool:
        """Fill the free slots; whether any was."""
        started = False
        for entry in self.entries:
            if len(self._jobs) >= self._backend.slots:
                break
            if entry.state == WAITING:
                entry.attempts += 1
                entry.state, started = RUNNING, True
                try:
                    self._jobs[entry.trial.name] = self._backend.start(entry.trial)
                except OSError as error:
                    entry.state = FAILED
                    with entry.trial.log.open("a") as log:
                        log.write(f"{error}\n")
        return started

    def _poll(self, stopping: bool) -> bool:
        """Take in what has ended; whether any has."""
        ended = False
        for entry in self.entries:
            if entry.state != RUNNING or (code := self._jobs[entry.trial.name].poll()) is None:
                continue
            ended = True
            del self._jobs[entry.trial.name]
            if entry.trial.state() == DONE:
                entry.state = DONE
            elif stopping or code == INTERRUPTED:
                entry.state = STOPPED
            elif code == WRONG_USAGE or entry.attempts > self._retries:
                entry.state = FAILED
            else:
                entry.state = WAITING
        return ended

    def _stop(self) -> None:
        for job in self._jobs.values():
            job.stop()

    def _report(self) -> None:
        self._looked = time.monotonic()
        for entry in self.entries:
            if entry.state == RUNNING or not entry.measured:
                entry.measured = entry.trial.measured() or entry.measured
        write_index(self.entries, self._index)
        self._show(self.entries)


def write_index(entries: Sequence[Entry], path: Path) -> None:
    """All trials as CSV, a row each. A kill leaves the file as it was, or as it is now."""
    varied = list(dict.fromkeys(key for entry in entries for key in entry.trial.varied))
    with whole(path) as place, place.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["trial", "state", "attempts", *varied, *SHOWN, "run_dir", "log"])
        for entry in entries:
            trial = entry.trial
            settings = [trial.settings.get(key, "") for key in varied]
            measured = [entry.measured.get(name, "") for name in SHOWN]
            places = [str(trial.run_dir), str(trial.log)]
            writer.writerow([trial.name, entry.state, entry.attempts, *settings, *measured, *places])
