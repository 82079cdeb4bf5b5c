"""How it is measured: all in turns, round after round, so that other work on the machine falls on everybody alike."""

import gc
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

TURN = 0.02
"""Seconds of a turn, at least one call."""
ROUNDS = 9


@dataclass(frozen=True)
class Timing:
    """Seconds a call, one entry a round."""

    wall: list[float]
    cpu: list[float]
    """Processor time of all threads of this process."""

    def of_one(self, batches: int) -> "Timing":
        """Seconds a batch, where a call makes `batches`."""
        return Timing([x / batches for x in self.wall], [x / batches for x in self.cpu])


@dataclass(frozen=True)
class Result:
    """One figure: the median over the rounds."""

    benchmark: str
    """sample, add, threads, mixed or snapshot."""
    workload: str
    rows: int
    case: str
    who: str
    value: float
    unit: str
    low: float
    """The lower quartile of the rounds."""
    high: float
    """The upper quartile."""
    ratios: Mapping[str, float]
    """Its speed as a multiple of another's, by that one's name: the medians over the rounds."""


def in_turns(calls: Mapping[str, Callable[[], Any]], *, turn: float = TURN, rounds: int = ROUNDS) -> dict[str, Timing]:
    """Time each call in `rounds` turns of about `turn` seconds, everybody once before anybody again."""
    repeats = {name: _repeats(call, turn) for name, call in calls.items()}
    timings = {name: Timing([], []) for name in calls}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, call in calls.items():
                wall, cpu = _seconds(call, repeats[name])
                timings[name].wall.append(wall)
                timings[name].cpu.append(cpu)
    finally:
        if collecting:
            gc.enable()
    return timings


def warm(call: Callable[[], Any], calls: int, seconds: float) -> None:
    """Make `calls` calls, or as many as `seconds` allow: systems put memory aside that lay idle while others filled."""
    end = time.perf_counter() + seconds
    for _ in range(calls):
        if time.perf_counter() > end:
            break
        call()


def _repeats(call: Callable[[], Any], turn: float) -> int:
    """Calls that take about `turn` seconds. Warms up as well."""
    call()
    repeats = 1
    while (seconds := _seconds(call, repeats)[0] * repeats) < turn / 4:
        repeats *= 4
    return max(1, round(repeats * turn / seconds))


def _seconds(call: Callable[[], Any], repeats: int) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in itertools.repeat(None, repeats):
        call()
    return (time.perf_counter() - wall) / repeats, (time.process_time() - cpu) / repeats


def rates(
    timings: Mapping[str, Timing],
    amount: float,
    *,
    clock: str = "cpu",
    beside: Sequence[str] = (),
    **told: Any,
) -> list[Result]:
    """A figure for each timing: `amount` a second, in the unit and under the headings `told`.

    Args:
        clock: "cpu" or "wall".
        beside: those whose speed the others' is given as a multiple of, where they took part.
    """
    seconds = {name: np.array(getattr(timing, clock)) for name, timing in timings.items()}
    results = []
    for who, mine in seconds.items():
        low, median, high = np.percentile(amount / mine, (25, 50, 75)).tolist()
        ratios = {other: float(np.median(seconds[other] / mine)) for other in beside if other in seconds}
        results.append(Result(who=who, value=median, low=low, high=high, ratios=ratios, **told))
    return results
