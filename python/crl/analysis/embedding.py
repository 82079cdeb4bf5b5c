"""Representations on a sheet of paper: t-SNE, and the same moved onto a grid so that nothing hides anything.

Letters: N rows, R representation.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
PERPLEXITY = 30.0


def tsne(rows: Floats, seed: int = 0) -> Floats:
    """Places (N, 2) on a plane of representations (N, R), by t-SNE (van der Maaten & Hinton 2008) from their PCA."""
    from sklearn.manifold import TSNE

    rows = np.asarray(rows, dtype=np.float64)
    perplexity = min(PERPLEXITY, (len(rows) - 1) / 3)
    scale = max(float(np.abs(rows - rows.mean(0)).max()), np.finfo(float).tiny)
    found: Floats = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(
        (rows - rows.mean(0)) / scale
    )
    return found.astype(np.float64)


def rectified(places: Floats) -> NDArray[np.intp]:
    """(N,) for each of `places` (N, 2) a cell of its own of a square grid, row by row: the nearest by the linear
    assignment that moves them least, in the sum of squared distances.

    Raises:
        ValueError: N is no square number.
    """
    from scipy.optimize import linear_sum_assignment

    side = round(len(places) ** 0.5)
    if side**2 != len(places):
        raise ValueError(f"places: expected a square number of them, got {len(places)}")
    low, high = places.min(0), places.max(0)
    unit = (places - low) / np.where(high > low, high - low, 1)
    within = (np.arange(side) + 0.5) / side
    grid = np.stack(np.meshgrid(within, within, indexing="ij"), -1).reshape(-1, 2)
    cost = ((unit[:, None] - grid[None]) ** 2).sum(-1)
    found: NDArray[np.intp] = linear_sum_assignment(cost)[1]
    return found
