"""A slow and obvious buffer, and helpers for the tests of the fast one."""

from typing import Any

import numpy as np

import crl


def make(num_envs: int, capacity: int, **options: Any) -> crl.TrajectoryBuffer:
    """A buffer whose every column identifies its row: see `columns`."""
    options.setdefault("extras", {"row": ((), "int64")})
    return crl.TrajectoryBuffer(num_envs, capacity, (3,), (2,), (1,), **options)


def columns(envs: np.ndarray, t: Any) -> dict[str, np.ndarray]:
    """Columns of rows `t` of `envs`: the value is 100000 * env + t everywhere (exact in float32 below 2**24)."""
    value = 100_000 * np.asarray(envs) + np.asarray(t)
    rows = value[..., None].astype(np.float32)
    return {
        "observation": np.repeat(rows, 3, -1),
        "action": np.repeat(rows, 2, -1),
        "achieved_goal": rows,
        "row": value.astype(np.int64),
    }


class Oracle:
    """For each environment, the list of (t, trajectory), cut to the rows that its ring keeps."""

    def __init__(self, num_envs: int, capacity: int) -> None:
        self.length = capacity // num_envs
        self.rows: list[list[tuple[int, int]]] = [[] for _ in range(num_envs)]
        self.written = [0] * num_envs
        self.begun = [0] * num_envs

    def add(self, env: int, start: bool) -> None:
        self.begun[env] += start or not self.begun[env]
        self.rows[env].append((self.written[env], self.begun[env]))
        self.rows[env] = self.rows[env][-self.length :]
        self.written[env] += 1

    def stored(self) -> int:
        return sum(map(len, self.rows))

    def trajectories(self) -> int:
        return sum(len({trajectory for _, trajectory in rows}) for rows in self.rows)

    def futures(self) -> dict[int, int]:
        """For each eligible row, as its value: how many rows of its trajectory follow."""
        result = {}
        for env, rows in enumerate(self.rows):
            for i, (t, trajectory) in enumerate(rows):
                later = sum(other == trajectory for _, other in rows[i + 1 :])
                if later:
                    result[100_000 * env + t] = later
        return result


def check(batch: Any, futures: dict[int, int]) -> None:
    """Every row of the batch is whole and eligible, and its goal lies `offset` rows later in its trajectory."""
    row = batch.row.astype(np.int64)
    assert (batch.observation == row[..., None]).all()
    assert (batch.action == row[..., None]).all()
    assert (batch.goal[..., 0] == row + batch.offset).all()
    assert (batch.next_observation == row[..., None] + 1).all()
    for value, offset in zip(row.ravel().tolist(), batch.offset.ravel().tolist(), strict=True):
        assert value in futures, f"row {value} is not eligible"
        assert 1 <= offset <= futures[value]


EXTRA = ("row", "next_observation")
