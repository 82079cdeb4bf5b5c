"""Filtered relabelling: goals at which something has changed."""

from typing import Any

import torch

from crl.batch import Batch
from crl.buffer import TrajectoryBuffer
from crl.loader import Loader

DRAWS = 8
"""Rows drawn for each that is kept."""
SHARE = 0.75
"""Of a batch, at most, are rows whose goal lies farther than the filter. The rest stays as it was drawn, so that critic
and actor also know of the states where nothing has moved yet, the first of every episode among them."""


def loader(
    buffer: TrajectoryBuffer, batch_size: int, goal_filter: float, columns: tuple[str, ...] = (), **options: Any
) -> Loader:
    """`buffer.loader`, with rows to choose from where there is a `goal_filter`."""
    if not goal_filter:
        return buffer.loader(batch_size, columns=columns, **options)
    needed = tuple(dict.fromkeys((*columns, "achieved_goal")))
    return buffer.loader(DRAWS * batch_size, columns=needed, **options)


def chosen(batch: Batch[torch.Tensor], batch_size: int, goal_filter: float) -> Batch[torch.Tensor]:
    """Of a batch of that loader `batch_size` rows, in the order drawn, preferring goals farther than `goal_filter`.

    An object that is moved seldom is nearly always at the same place when its goal is drawn as before: its goals tell
    trajectories apart, and nothing about actions. Of the rows drawn, those whose goal lies farther from what they
    achieved (Euclidean) come first, up to `SHARE` of the batch. The device is not waited for.

    Args:
        batch: at least `batch_size` rows, with the column `achieved_goal` (N, G).
        batch_size: rows to return.
        goal_filter: in the units of the goal; 0 returns the batch as it is.
    """
    if not goal_filter:
        return batch
    far = (batch.goal - batch.achieved_goal).norm(dim=-1) > goal_filter
    preferred = far & (far.cumsum(0) <= SHARE * batch_size)
    rows = (~preferred).to(torch.int8).argsort(stable=True)[:batch_size].sort().values
    return batch[rows]
