"""Learning curves of several runs as one: the IQM over those that were there, in its bootstrap interval."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crl import statistics
from crl.report.runs import Run
from crl.statistics import Floats

MOST_POINTS = 200
"""Of a curve: more are not seen."""


@dataclass(frozen=True)
class Curve:
    """One line of a picture; all arrays are [points]."""

    x: Floats
    value: Floats
    low: Floats
    high: Floats
    runs: NDArray[np.int64]
    """How many runs were there: fewer where some began later, or stopped."""

    def stretches(self) -> Iterator[tuple[slice, int]]:
        """Stretches over which the same number of runs was there, and that number. They share their ends."""
        changes = np.flatnonzero(np.diff(self.runs)) + 1
        edges = [0, *changes.tolist(), len(self.x)] if len(self.x) else []
        for start, end in itertools.pairwise(edges):
            yield slice(max(0, start - 1), end), int(self.runs[start])


def combined(runs: Sequence[Run], metric: str, x: str) -> Curve:
    """The IQM of `metric` over runs, where each was measured and between: a curve is straight between its points.

    Along wall time a finished run keeps what it had at its end, while slower ones are still at work. The interval is
    statistics.interval's, runs resampled as whole curves.
    """
    curves, ends = [], []
    for run in runs:
        positions, measured = run.curve(metric, x)
        if len(positions):
            curves.append((positions, measured))
            ends.append(measured[-1] if x == "wall_time" and run.finished else np.nan)
    if not curves:
        nothing = np.empty(0)
        return Curve(nothing, nothing, nothing, nothing, np.empty(0, np.int64))
    at = _thinned(np.unique(np.concatenate([positions for positions, _ in curves])))
    values = np.array([np.interp(at, *curve, left=np.nan, right=end) for curve, end in zip(curves, ends, strict=True)])
    there = ~np.isnan(values)
    result = np.empty((3, len(at)))
    # Every stretch with the same runs in it is one call.
    changes = np.flatnonzero((there[:, 1:] != there[:, :-1]).any(axis=0)) + 1
    for points in np.split(np.arange(len(at)), changes):
        scores = values[there[:, points[0]]][:, points].T[..., None]  # (points, runs, 1 task)
        result[0, points] = statistics.iqm(scores)
        result[1:, points] = statistics.interval(statistics.iqm, scores)
    return Curve(at, result[0], result[1], result[2], there.sum(axis=0))


def over_tasks(tasks: Sequence[Sequence[Run]], metric: str, points: int = 51) -> Curve | None:
    """The IQM of `metric` over runs and tasks by how much of their length runs have had; None where they share none.

    Args:
        tasks: for each task its runs; of the tasks with more, the first ones, as many as of the task with fewest.
        metric: a column.
        points: of the curve.
    """
    count = min(sum(len(run.curve(metric, run.unit)[0]) > 0 for run in runs) for runs in tasks)
    if not count:
        return None
    chosen = [[run for run in runs if len(run.curve(metric, run.unit)[0])][:count] for runs in tasks]
    curves = [[(run.curve(metric, run.unit), run.total or 1) for run in runs] for runs in chosen]
    spans = [(x[0] / total, x[-1] / total) for runs in curves for (x, _), total in runs]
    start, end = max(low for low, _ in spans), min(1.0, min(high for _, high in spans))
    if start > end:
        return None
    at = np.linspace(start, end, points)
    scores = np.array([[np.interp(at * total, x, values) for (x, values), total in runs] for runs in curves])
    scores = scores.transpose(2, 1, 0)  # (points, runs, tasks)
    low, high = statistics.interval(statistics.iqm, scores)
    return Curve(at, statistics.iqm(scores), low, high, np.full(points, count))


def _thinned(at: Floats) -> Floats:
    """At most MOST_POINTS of sorted positions, first and last among them."""
    if len(at) <= MOST_POINTS:
        return at
    kept: Floats = at[np.unique(np.linspace(0, len(at) - 1, MOST_POINTS).round().astype(int))]
    return kept
