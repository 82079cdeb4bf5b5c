"""One batch by several threads, writing while others sample, and files."""

import os
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from crl.bench.measure import ROUNDS, Result, in_turns, rates
from crl.bench.samplers import Ours
from crl.bench.workloads import EPISODE, GAMMA, History
from crl.buffer import TrajectoryBuffer

SAMPLERS = (0, 1, 4)
BATCH = 1024
PLAIN = "bare columns, NumPy"
COPY = "a copy, NumPy"
LARGE = 65_536
"""Rows of a batch that threads share."""


def threads(history: History, quick: bool) -> list[Result]:
    """A large batch by one thread and by two: time that passes, whoever's.

    Two callers that share nothing, each with half the batch, tell what the machine's memory has to give to two threads.
    """

    def sampling(buffer: TrajectoryBuffer, batch_size: int = LARGE) -> Callable[[], Any]:
        batch = buffer.sample(batch_size, gamma=GAMMA)
        return lambda: buffer.sample(batch_size, gamma=GAMMA, out=batch)

    mine, theirs = (sampling(history.buffer, LARGE // 2) for _ in range(2))
    with ThreadPoolExecutor(1) as other:

        def apart() -> None:
            half = other.submit(theirs)
            mine()
            half.result()

        calls = {
            "one thread": sampling(history.buffer),
            "two threads": sampling(history.filled(threads=2)),
            "two callers": apart,
        }
        timings = in_turns(calls, rounds=3 if quick else ROUNDS)
    return rates(
        timings,
        LARGE / 1e6,
        clock="wall",
        beside=("one thread",),
        benchmark="threads",
        workload=history.workload.name,
        rows=history.rows,
        case=f"batch {LARGE}",
        unit="million rows / s",
    )


def mixed(history: History, quick: bool) -> list[Result]:
    """One writer that adds a step of all environments without a pause: alone, beside one sampler, and beside four.

    What the scheduler does to anybody is told by a plain copy of the same step, to memory that no sampler reads.
    """
    columns = {name: column[0] for name, column in history.rollout(1, 2).items()}
    elsewhere = {name: np.empty((EPISODE, *column.shape), column.dtype) for name, column in columns.items()}

    def add(call: int) -> None:
        columns["episode_start"][:] = call % EPISODE == 0
        history.buffer.add(**columns)

    def copy(call: int) -> None:
        for name, column in columns.items():
            elsewhere[name][call % EPISODE] = column

    results = []
    for samplers in SAMPLERS:
        for write, what in ((add, "an add"), (copy, COPY)):
            latencies, sampled, seconds = _together(history.buffer, write, samplers, 0.5 if quick else 3.0)
            median, tail = np.percentile(latencies, (50, 99.9)).tolist()
            figures = [(f"{what}, median", 1e6 * median, "µs"), (f"{what}, 99.9 %", 1e6 * tail, "µs")]
            if write is add:
                added = history.num_envs * len(latencies)
                figures += [("rows added", added / seconds / 1e6, "million rows / s")]
                figures += [("rows sampled", sampled / seconds / 1e6, "million rows / s")] * bool(samplers)
            for who, value, unit in figures:
                case = f"{samplers} samplers" if samplers != 1 else "1 sampler"
                where = ("mixed", history.workload.name, history.rows, case, who)
                results.append(Result(*where, value, unit, value, value, {}))
    return results


def _together(
    buffer: TrajectoryBuffer, write: Callable[[int], None], samplers: int, seconds: float
) -> tuple[list[float], int, float]:
    """Seconds of each write, rows sampled in all, and seconds that it took."""
    stop = threading.Event()
    latencies: list[float] = []
    sampled = [0] * samplers
    failures: list[BaseException] = []

    def write_on() -> None:
        while not stop.is_set():
            begun = time.perf_counter()
            write(len(latencies))
            latencies.append(time.perf_counter() - begun)

    def sample(number: int) -> None:
        out = buffer.sample(BATCH)
        while not stop.is_set():
            buffer.sample(BATCH, out=out)
            sampled[number] += BATCH

    def attempt(work: Callable[..., None], *arguments: int) -> None:
        try:
            work(*arguments)
        except BaseException as error:
            failures.append(error)
            stop.set()

    threads = [threading.Thread(target=attempt, args=(sample, number)) for number in range(samplers)]
    threads.append(threading.Thread(target=attempt, args=(write_on,)))
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    stop.wait(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return latencies, sum(sampled), time.perf_counter() - begun


def snapshot(history: History, quick: bool) -> list[Result]:
    """Saving and loading; beside it NumPy writing the bare columns, flushed to the disk too, and reading them.

    Files lie where temporary files do. What is read was just written, so it comes from memory where that is free.
    """
    buffer, columns = history.buffer, history.flat()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        saved, plain = Path(folder) / "buffer.crlb", Path(folder) / "columns"

        def write() -> None:
            with plain.open("wb") as file:
                for column in columns:
                    column.tofile(file)
                file.flush()
                os.fsync(file.fileno())

        def load() -> None:
            TrajectoryBuffer.load(saved, sample_threads=1)

        def read() -> None:
            np.fromfile(plain, np.uint8)

        megabytes = history.rows * history.workload.row_bytes / 1e6
        told: dict[str, Any] = {"workload": history.workload.name, "rows": history.rows, "unit": "MB of columns / s"}
        for case, ours, plainly in (("save", lambda: buffer.save(saved), write), ("load", load, read)):
            timings = in_turns({Ours.name: ours, PLAIN: plainly}, turn=0, rounds=1 if quick else 5)
            beside = (PLAIN,)
            results += rates(timings, megabytes, clock="wall", beside=beside, benchmark="snapshot", case=case, **told)
    return results
