"""A slow and obvious buffer, and helpers for the tests of the fast one."""

import bisect
import copy
import operator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

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


class SlowBuffer:
    """What `make` makes, as lists of rows: slow and obvious, in steps that a planted bug can replace."""

    files: ClassVar[dict[Path, "SlowBuffer"]] = {}

    def __init__(self, num_envs: int, capacity: int) -> None:
        self.num_envs, self.length = num_envs, capacity // num_envs
        self.rows: list[list[dict[str, Any]]] = [[] for _ in range(num_envs)]
        self.begun = [0] * num_envs
        self.rng = np.random.default_rng(0)

    @property
    def capacity(self) -> int:
        return self.num_envs * self.length

    @property
    def num_trajectories(self) -> int:
        return sum(len({row["trajectory"] for row in rows}) for rows in self.rows)

    def __len__(self) -> int:
        return sum(map(len, self.rows))

    def add(self, *, episode_start: np.ndarray, **columns: np.ndarray) -> None:
        for env in range(self.num_envs):
            self.begun[env] += bool(episode_start[env]) or not self.begun[env]
            row = {name: column[env] for name, column in columns.items()}
            self.append(env, row | {"trajectory": self.begun[env]})

    def append(self, env: int, row: dict[str, Any]) -> None:
        self.rows[env].append(row)
        if len(self.rows[env]) > self.length:
            del self.rows[env][0]

    def last(self, env: int, i: int) -> int:
        """The last stored row of the trajectory of row i, counted from the oldest one."""
        of = operator.itemgetter("trajectory")
        return bisect.bisect_right(self.rows[env], of(self.rows[env][i]), key=of) - 1

    def follows(self, env: int, i: int) -> bool:
        """Whether row i can be drawn."""
        return self.last(env, i) > i

    def draw(self) -> tuple[int, int]:
        """A uniform row among those that can be drawn."""
        for _ in range(10_000):
            env, i = int(self.rng.integers(self.num_envs)), int(self.rng.integers(self.length))
            if i < len(self.rows[env]) and self.follows(env, i):
                return env, i
        raise IndexError("nothing can be drawn")

    def offset(self, later: int, gamma: float) -> int:
        reached = np.cumsum(gamma ** np.arange(1, later + 1))
        return int(np.searchsorted(reached, self.rng.random() * reached[-1], side="right")) + 1

    def goal(self, env: int, i: int, offset: int) -> dict[str, Any]:
        return self.rows[env][i + offset]

    def sample(self, batch_size: int, *, gamma: float = 0.99, columns: tuple[str, ...] = ()) -> SimpleNamespace:
        batch: dict[str, list[Any]] = {}
        for _ in range(batch_size):
            env, i = self.draw()
            offset = self.offset(self.last(env, i) - i, gamma)
            row, after = self.rows[env][i], self.rows[env][min(i + 1, len(self.rows[env]) - 1)]
            values = row | {"next_observation": after["observation"], "offset": offset}
            for name, value in (values | {"goal": self.goal(env, i, offset)["achieved_goal"]}).items():
                batch.setdefault(name, []).append(value)
        return SimpleNamespace(**{name: np.array(values) for name, values in batch.items()})

    def save(self, path: Path) -> None:
        self.files[path] = copy.deepcopy(self)

    @classmethod
    def load(cls, path: Path) -> "SlowBuffer":
        return copy.deepcopy(cls.files[path])
