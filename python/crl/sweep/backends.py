"""Where the runs of a sweep go: processes of this machine, jobs of a cluster through submitit, or tasks of Ray.

All run the command `crl train`, which saves itself when told to stop, and goes on from there when started again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from crl.errors import ConfigError
from crl.sweep.trial import DONE, Trial

PROGRAM = (sys.executable, "-m", "crl")
"""What a trial's command is given to."""


class Job(Protocol):
    """One attempt at a trial."""

    def poll(self) -> int | None:
        """Its exit code, as of `crl train`; None while it runs."""

    def stop(self) -> None:
        """Tell it to save itself and stop, at once if told again. Does not wait."""


class Backend(Protocol):
    """Starts attempts."""

    slots: int
    """How many run, or wait in a queue, at a time."""
    interval: float
    """Seconds between looks at them."""

    def start(self, trial: Trial) -> Job:
        """Begin with the trial, or go on with it."""


class Local:
    """Processes of this machine, each with an equal part of its cores and, where there are some, a GPU.

    Args:
        jobs: processes at a time.
        threads: of each.
        gpus: names of devices, as in CUDA_VISIBLE_DEVICES; jobs take them in turn. None leaves them all to each.
        lock: an open file that processes keep open as long as they run.
        program: what a trial's command is given to.
    """

    interval = 0.2

    def __init__(
        self, jobs: int, threads: int, gpus: Sequence[str], lock: int | None = None, program: Sequence[str] = PROGRAM
    ) -> None:
        self.slots, self._threads, self._gpus, self._lock, self._program = jobs, threads, gpus, lock, program
        self._jobs: list[LocalJob | None] = [None] * jobs

    def start(self, trial: Trial) -> LocalJob:
        """In the first place that is free, and with its GPU."""
        place = next(n for n, job in enumerate(self._jobs) if job is None or job.poll() is not None)
        variables = {"CUDA_VISIBLE_DEVICES": self._gpus[place % len(self._gpus)]} if self._gpus else {}
        process = _start(
            trial,
            self._program,
            self._threads,
            env={**os.environ, **variables},
            pass_fds=(self._lock,) * bool(self._lock),
        )
        self._jobs[place] = job = LocalJob(process)
        return job


class LocalJob:
    """A process in a session of its own: Ctrl-C in the terminal reaches it through the sweep alone, and once."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """Interrupt it."""
        self._process.send_signal(signal.SIGINT)


class Attempt:
    """What a cluster is given to run: the trial's command, wherever the trial then is."""

    def __init__(self, trial: Trial, program: Sequence[str] = PROGRAM) -> None:
        self._trial, self._program = trial, tuple(program)
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Run it; the exit code of `crl train`."""
        if self._trial.state() == DONE:
            return 0
        self._process = _start(self._trial, self._program)
        try:
            return self._process.wait()
        except KeyboardInterrupt:
            return self._save()

    def checkpoint(self) -> Any:
        """For submitit, when the time of a job is up or it has to make room: save, and come again to go on."""
        from submitit.helpers import DelayedSubmission

        self._save()
        return DelayedSubmission(Attempt(self._trial, self._program))

    def _save(self) -> int:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        return self._process.wait()


class Submitit:
    """Jobs of Slurm, or of what else submitit knows.

    Args:
        folder: for submitit's own files; every machine must see it, and the runs.
        options: of submitit's executor, such as timeout_min, slurm_partition, gpus_per_node; `cluster` chooses it.
        jobs: in the queue or running at a time.
        program: what a trial's command is given to.

    Raises:
        ConfigError: submitit has no such option.
    """

    interval = 2.0

    def __init__(self, folder: Path, options: Mapping[str, Any], jobs: int, program: Sequence[str] = PROGRAM) -> None:
        import submitit

        self.slots, self._program = jobs, program
        if options.get("cluster") == "local":
            self.interval = 0.2
        try:
            self._executor = submitit.AutoExecutor(folder=folder, cluster=options.get("cluster"))
            self._executor.update_parameters(**{key: value for key, value in options.items() if key != "cluster"})
        except (NameError, ValueError, TypeError, RuntimeError, AssertionError) as error:
            raise ConfigError(f"submitit: {' '.join(str(error).split())}") from None

    def start(self, trial: Trial) -> SubmititJob:
        """Into the queue."""
        return SubmititJob(self._executor.submit(Attempt(trial, self._program)))


class SubmititJob:
    """A job of submitit's."""

    def __init__(self, job: Any) -> None:
        self._job = job

    def poll(self) -> int | None:
        """Its exit code; None while it waits or runs."""
        if not self._job.done():
            return None
        try:
            return int(self._job.result())
        except Exception:  # whatever the cluster did to it: the job's own log has it
            return 1

    def stop(self) -> None:
        """Cancel it: `crl train` saves itself on the signal that comes with it."""
        self._job.cancel(check=False)


class Ray:
    """Tasks of Ray.

    Args:
        options: of `ray.remote`, such as num_cpus and num_gpus; `address` is the cluster's.
        jobs: at a time.
        program: what a trial's command is given to.
    """

    interval = 1.0

    def __init__(self, options: Mapping[str, Any], jobs: int, program: Sequence[str] = PROGRAM) -> None:
        import ray

        self.slots, self._ray, self._program = jobs, ray, program
        ray.init(address=options.get("address"), ignore_reinit_error=True, log_to_driver=False)
        resources = {key: value for key, value in options.items() if key != "address"}
        # Retries are the sweep's, which counts them.
        self._task = ray.remote(max_retries=0, **resources)(_run_attempt)

    def start(self, trial: Trial) -> RayJob:
        """As a task."""
        return RayJob(self._ray, self._task.remote(Attempt(trial, self._program)))


class RayJob:
    """A task of Ray's."""

    def __init__(self, ray: Any, reference: Any) -> None:
        self._ray, self._reference = ray, reference

    def poll(self) -> int | None:
        """Its exit code; None while it waits or runs."""
        ready, _ = self._ray.wait([self._reference], timeout=0)
        if not ready:
            return None
        try:
            return int(self._ray.get(self._reference))
        except Exception:  # its machine is gone, it was cancelled before it began, ...
            return 1

    def stop(self) -> None:
        """Interrupt it: the task passes that on to `crl train`."""
        self._ray.cancel(self._reference, force=False)


def _run_attempt(attempt: Attempt) -> int:
    return attempt()


def _start(trial: Trial, program: Sequence[str], threads: int | None = None, **options: Any) -> subprocess.Popen[bytes]:
    """The trial's command as a process that adds to the trial's log."""
    trial.clear()
    trial.log.parent.mkdir(parents=True, exist_ok=True)
    with trial.log.open("ab") as log:
        return subprocess.Popen(
            [*program, *trial.command(threads)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **options,
        )
