"""Scores of several runs on several tasks: aggregates, and how sure they are.

Everywhere `scores` is (..., runs, tasks): run n of task m, N runs and M tasks; runs of different tasks have nothing in
common but their number. Axes in front are kept, so that a whole curve is one call. What is computed, and the names, are
those of Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice"; their package
rliable gives the same numbers (`pytest -m peers tests/test_statistics.py`). docs/experiments.md has the formulas.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000
"""Of a bootstrap: the ends of an interval then vary by a few hundredths of its width between seeds."""
CONFIDENCE = 0.95
_CHUNK = 1 << 21
"""Resampled scores at a time."""

Floats = NDArray[np.float64]
Statistic = Callable[..., Floats]


def iqm(scores: ArrayLike) -> Floats:
    """Interquartile mean: the mean of all runs of all tasks but the lowest and the highest quarter; (...)."""
    array = checked(scores)
    trimmed: Floats = scipy.stats.trim_mean(array.reshape(*array.shape[:-2], -1), 0.25, axis=-1)
    return np.asarray(trimmed)


def mean(scores: ArrayLike) -> Floats:
    """Mean over runs and tasks; (...)."""
    return np.asarray(checked(scores).mean(axis=(-2, -1)))


def median(scores: ArrayLike) -> Floats:
    """Median over tasks of the mean over runs; (...)."""
    return np.asarray(np.median(checked(scores).mean(axis=-2), axis=-1))


def optimality_gap(scores: ArrayLike, target: float = 1.0) -> Floats:
    """How far scores fall short of `target`, those beyond it counting as `target`: target - mean min(score, target)."""
    return np.asarray(target - np.minimum(checked(scores), target).mean(axis=(-2, -1)))


def profile(scores: ArrayLike, thresholds: ArrayLike) -> Floats:
    """Performance profile: for each threshold the share of runs, of all tasks, that score above it; (..., K).

    Args:
        scores: (..., runs, tasks).
        thresholds: (K,).
    """
    array, limits = checked(scores), np.asarray(thresholds, dtype=np.float64)
    ordered = np.sort(array.reshape(-1, array.shape[-2] * array.shape[-1]), axis=-1)
    below = np.array([np.searchsorted(row, limits, side="right") for row in ordered])
    return np.asarray((1 - below / ordered.shape[-1]).reshape(*array.shape[:-2], len(limits)))


def probability_of_improvement(scores: ArrayLike, others: ArrayLike) -> Floats:
    """Mean over tasks of the chance that a run of `scores` beats one of `others`, a tie counting half; (...).

    On each task that is the Mann-Whitney U statistic over the number of pairs.

    Args:
        scores: (..., runs, tasks).
        others: (..., other runs, tasks), of the same tasks in the same order.

    Raises:
        ValueError: they have different numbers of tasks.
    """
    x, y = checked(scores), checked(others)
    if x.shape[-1] != y.shape[-1]:
        raise ValueError(f"others must have the {x.shape[-1]} tasks of scores, got {y.shape[-1]}.")
    x, y = x[..., :, None, :], y[..., None, :, :]
    return np.asarray((x > y).mean(axis=(-3, -2, -1)) + 0.5 * (x == y).mean(axis=(-3, -2, -1)))


def stratified_indices(random: np.random.Generator, shape: Sequence[int], resamples: int) -> NDArray[np.int64]:
    """For each resample and task as many runs as there are, drawn with replacement: (resamples, runs, tasks)."""
    return random.integers(shape[-2], size=(resamples, *shape[-2:]))


def interval(
    statistic: Statistic,
    *scores: ArrayLike,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Floats:
    """The percentile interval of `statistic` by the stratified bootstrap: low and high ends, (2, ...).

    Runs are drawn anew with replacement within each task, and never tasks: the interval says what other seeds on the
    same tasks would give. (`scipy.stats.bootstrap` draws alike, and refuses a task with a single run.)

    Args:
        statistic: one of this module, or a function like them: (..., runs, tasks) -> (...) or (..., K).
        scores: as many arrays as `statistic` takes, each (..., runs, tasks) and resampled by itself.
        resamples: how many times.
        confidence: share of resamples within the interval.
        seed: the same one gives the same interval.

    Raises:
        ValueError: no runs or tasks, a score that is no number, or a share or a count that cannot be.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}.")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}.")
    random, arrays = np.random.default_rng(seed), [checked(array) for array in scores]
    drawn = [stratified_indices(random, array.shape, resamples) for array in arrays]
    step = max(1, _CHUNK // max(array.size for array in arrays))
    values = [
        statistic(*(_taken(array, rows[start : start + step]) for array, rows in zip(arrays, drawn, strict=True)))
        for start in range(0, resamples, step)
    ]
    tail = 50 * (1 - confidence)
    ends: Floats = np.percentile(np.concatenate(values), [tail, 100 - tail], axis=0)
    return ends


def checked(scores: ArrayLike) -> Floats:
    """`scores` as float64; raises ValueError unless it is (..., runs, tasks) of finite numbers, one at least."""
    array: Floats = np.asarray(scores, dtype=np.float64)
    if array.ndim < 2 or 0 in array.shape:
        raise ValueError(f"scores must be (..., runs, tasks) with one of each at least, got shape {array.shape}.")
    if not np.isfinite(array).all():
        raise ValueError("scores must be finite numbers: leave runs out that have none.")
    return array


def _taken(array: Floats, rows: NDArray[Any]) -> Floats:
    """Of each task the given runs: (..., runs, tasks) by (resamples, runs, tasks) -> (resamples, ..., runs, tasks)."""
    return np.moveaxis(array[..., rows, np.arange(array.shape[-1])], -3, 0)
