"""In how many directions representations lie. Letters: N rows, R representation."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def singular_values(rows: Floats) -> Floats:
    """Those of representations (N, R) less their mean, over the root of N, largest first: (min(N, R),)."""
    rows = np.asarray(rows, dtype=np.float64)
    values: Floats = np.linalg.svd(rows - rows.mean(0), compute_uv=False) / np.sqrt(len(rows))
    return values


def effective_rank(values: Floats) -> float:
    """exp of the entropy of singular `values` over their sum (Roy & Vetterli 2007): n where n are alike, else fewer."""
    share = values / max(float(values.sum()), np.finfo(float).tiny)
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum())) if len(share) else 0.0


def rank_within(values: Floats, left: float = 0.01) -> int:
    """How many of the largest singular `values` have all but `left` of their sum (Kumar et al. 2021, 0.01)."""
    total = float(values.sum())
    return int(np.searchsorted(np.cumsum(values), (1 - left) * total - 1e-12 * total) + 1) if total > 0 else 0
