"""The discount of the goals: given, growing over the run, or fitted to how fast the world forgets.

With P(k) proportional to gamma^k a goal lies 1 / (1 - gamma) steps ahead on average, its horizon. Goals beyond the time
in which the world forgets where it was say nothing about an action: at 0.99 nothing learns to reach with an arm that is
elsewhere every ten steps. Goals much nearer than that leave out what could be learnt.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crl.buffer import TrajectoryBuffer

ROWS, IMAGE_ROWS = 50_000, 1_000
"""Pairs of states drawn at each of `GAMMAS`."""
GAMMAS = (0.5, 0.8, 0.95, 0.99, 0.999)
"""Together they draw pairs of every distance in time about equally often in its logarithm."""
FORGOTTEN = 0.5
"""Of the squared distance between unrelated states; where pairs come to it, half of what there was to know is gone."""
GROWTH = 1.5
"""Of the squared distance, as the time doubles: 2 where goals drift on, 1 where nothing is left to forget."""
LEAST = 20
"""Pairs that a bin of lags needs to be looked at."""


def mixing_time(buffer: TrajectoryBuffer, images: bool = False) -> float:
    """After how many steps half is forgotten: the least k for which achieved goals k steps of an episode apart are

    - in the mean square half as far from each other as those of rows that have nothing to do with each other, and
    - going no farther: those 2k steps apart are less than half as far again from each other.

    For a goal that is forgotten evenly, with autocorrelation exp(-k/m), either holds from k = m ln 2 on: the ratio of
    the second is 1 + exp(-k/m). A goal that drifts off has a ratio of 2 for ever, and where episodes are short and
    begin in one place it meets the first all the same. But a new beginning is no forgetting.

    Every dimension of the goal counts alike, those that never change not at all.

    Args:
        images: whether the buffer holds images, which are their own achieved goals.
    Returns:
        at least 1; inf where goals never change, or nothing is forgotten for as long as episodes were watched.
    """
    rows, columns = (IMAGE_ROWS, ()) if images else (ROWS, ("achieved_goal",))

    def squares(goal: str, gamma: float) -> tuple[NDArray[Any], NDArray[Any]]:
        batch = buffer.sample(rows, goal=goal, gamma=gamma, columns=columns)
        here = batch.observation if images else batch.achieved_goal
        return np.square(batch.goal.astype(np.float64) - here), batch.offset

    unrelated = squares("random", 0.5)[0].mean(0)
    moving = unrelated > 1e-12 * max(unrelated.max(), 1e-300)
    if not unrelated.max() > 0:
        return math.inf
    drawn = [squares("geometric", gamma) for gamma in GAMMAS]
    apart = np.concatenate([(square[:, moving] / unrelated[moving]).mean(1) for square, _ in drawn])
    steps = np.concatenate([offset for _, offset in drawn])
    # Means over lags in bins that grow by a tenth, each lag alone at first.
    edges = np.unique(np.ceil(1.1 ** np.arange(0, math.log(steps.max() + 1, 1.1) + 1)))
    bins = np.digitize(steps, edges) - 1
    count = np.bincount(bins)
    seen = count >= LEAST
    lag, mean = (np.bincount(bins, x)[seen] / count[seen] for x in (steps, apart))
    k = lag[2 * lag <= lag[-1]]
    here, later = mean[: len(k)], np.interp(2 * k, lag, mean)
    # How far both hold, 1 where they do just so: what is compared is linear in the autocorrelation.
    held = np.minimum(here / FORGOTTEN, (GROWTH - later / np.maximum(here, 1e-30)) / (GROWTH - 1) + 1)
    beyond = np.flatnonzero(held >= 1)
    if not len(beyond):
        return math.inf
    last = int(beyond[0])
    if last == 0:
        return float(k[0])
    share = (1 - held[last - 1]) / (held[last] - held[last - 1])
    return float(k[last - 1] + share * (k[last] - k[last - 1]))


def fitted(time: float, most: float) -> float:
    """The discount whose horizon is the mixing `time`, or `most` if that is less.

    A policy that has learnt rests at its goals, and then nothing is ever forgotten: so it is fitted once, before
    learning starts, and never above what was set.
    """
    return min(1 - 1 / max(time, 1.5), most)


def scheduled(start: float, end: float, share: float) -> float:
    """The discount after `share` of the run: its horizon grows evenly in its logarithm over the first half."""
    first, last = (math.log1p(-gamma) for gamma in (start, end))
    return 1 - math.exp(first + min(1.0, 2 * share) * (last - first))
