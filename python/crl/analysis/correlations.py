"""Rank correlations and intervals. Letters: G goals, P places, B bootstrap samples."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]
SAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % percentile bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def spearman(x: Floats, y: Floats) -> Floats:
    """Spearman's rank correlation along the last axis, (..., P), (..., P) -> (...), ties by their mean rank.

    0 where one of the two is constant: it then orders nothing.
    """
    x, y = (rankdata(values, axis=-1) for values in np.broadcast_arrays(x, y))
    x, y = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    scale = np.sqrt((x**2).sum(-1) * (y**2).sum(-1))
    found: Floats = (x * y).sum(-1) / np.where(scale == 0, 1, scale)
    return found


def block_spearman(x: Floats, y: Floats, blocks: NDArray[np.intp], seed: int = 0) -> list[Estimate]:
    """`spearman` of rows of x and y, (n, P) each; intervals from a bootstrap of whole `blocks`, their numbers (P,).

    Values at neighbouring places are nearly the same: single places drawn anew would make an interval far too narrow.
    """
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(blocks == block) for block in np.unique(blocks)]
    samples = []
    for _ in range(SAMPLES):
        drawn = np.concatenate([members[k] for k in rng.integers(len(members), size=len(members))])
        samples.append(spearman(x[:, drawn], y[:, drawn]))
    rows = zip(spearman(x, y).tolist(), np.array(samples).T, strict=True)
    return [_estimate(value, found) for value, found in rows]


def mean(values: Floats, seed: int = 0) -> Estimate:
    """The mean of `values` (n,), its interval from a bootstrap of them."""
    values = np.asarray(values, dtype=np.float64)
    rows = np.random.default_rng(seed).integers(len(values), size=(SAMPLES, len(values)))
    return _estimate(float(values.mean()), values[rows].mean(-1))


def blocks_of(places: Floats, side: float) -> NDArray[np.intp]:
    """(P,): the number of the square of `side` m, from the origin on, that each of `places` (P, 2) lies in."""
    squares = np.floor(places / side).astype(np.intp)
    return np.unique(squares, axis=0, return_inverse=True)[1].ravel()


def _estimate(value: float, samples: Floats) -> Estimate:
    low, high = np.percentile(samples, (2.5, 97.5))
    return Estimate(value, float(low), float(high))
