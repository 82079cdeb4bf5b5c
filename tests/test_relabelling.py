"""Which of the rows drawn are kept, against a loop that says the same slowly."""

import numpy as np
import pytest
import torch

from crl import TrajectoryBuffer
from crl.relabelling import DRAWS, SHARE, chosen, loader

ROWS, DISTANCE = 40, 0.5


def buffer_where(moved):
    """Two trajectories of a thing that stays where it is but for the steps `moved`; observations count rows."""
    buffer = TrajectoryBuffer(num_envs=2, capacity=400, observation=(1,), action=(1,), achieved_goal=(2,), seed=0)
    place = np.zeros((2, 2), np.float32)
    for t in range(200):
        place += 1.0 * (t in moved)
        start = np.full(2, t == 0)
        row = np.full((2, 1), t, np.float32)
        buffer.add(observation=row, action=row, achieved_goal=place, episode_start=start)
    return buffer


def by_hand(batch):
    """Indices of the rows kept."""
    far = [i for i in range(len(batch.goal)) if np.linalg.norm(batch.goal[i] - batch.achieved_goal[i]) > DISTANCE]
    first = far[: int(SHARE * ROWS)]
    others = [i for i in range(len(batch.goal)) if i not in first]
    return sorted(first + others[: ROWS - len(first)])


@pytest.mark.parametrize("moved", [(), (100,), range(0, 200, 3)], ids=["never", "once", "often"])
def test_rows_whose_goal_is_elsewhere_come_first_in_the_order_drawn(moved):
    with loader(buffer_where(moved), ROWS, DISTANCE, gamma=0.9, num_batches=5) as batches:
        for batch in batches:
            assert len(batch.goal) == DRAWS * ROWS
            kept = chosen(batch, ROWS, DISTANCE)
            expected = by_hand(batch)
            assert len(expected) == ROWS
            for name, column in kept.items():
                torch.testing.assert_close(column, dict(batch.items())[name][expected], rtol=0, atol=0)


def test_without_a_filter_batches_are_as_drawn():
    with loader(buffer_where((100,)), ROWS, 0.0, gamma=0.9, num_batches=1) as batches:
        (batch,) = batches
    assert len(batch.goal) == ROWS
    assert chosen(batch, ROWS, 0.0) is batch
