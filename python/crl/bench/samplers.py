"""Who is compared, as far as it needs no library for reinforcement learning: ours, and what one would write oneself.

All draw rows uniformly and goals from the truncated geometric law. A sampler is made of a `History`; `prepare` gives a
function that makes one batch and returns its observations, actions and goals, as arrays or tensors.
"""

import importlib
import itertools
import mmap
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from crl._core import gather_limit
from crl.bench.workloads import EPISODE, GAMMA, Array, History

BEFOREHAND = 2**20
"""Rows that the limit draws beforehand and goes through in turns: too many for the caches to know them."""

Draw = Callable[[], tuple[Any, Any, Any]]


class Sampler(ABC):
    """What is measured."""

    name: ClassVar[str]
    module: ClassVar[str]
    """What must be importable."""
    memory: ClassVar[float]
    """Bytes it takes, as a multiple of the history's; none if it reads the history itself."""
    images: ClassVar[bool] = True
    """Whether its goals may be no part of the observation, as they are none of an image."""

    batches: ClassVar[int] = 1
    """Batches that one call makes."""

    @abstractmethod
    def __init__(self, history: History) -> None: ...

    @abstractmethod
    def prepare(self, batch_size: int) -> Draw: ...


class Ours(Sampler):
    """`crl.TrajectoryBuffer`, one thread, into memory that is kept."""

    name = "crl"
    module = "numpy"
    memory = 1.35

    def __init__(self, history: History) -> None:
        self.buffer = history.buffer

    def prepare(self, batch_size: int) -> Draw:
        batch = self.buffer.sample(batch_size, gamma=GAMMA)
        sample = self.buffer.sample

        def draw() -> tuple[Array, Array, Array]:
            sample(batch_size, gamma=GAMMA, out=batch)
            return batch.observation, batch.action, batch.goal

        return draw


class OursWithNext(Ours):
    """The same, with the next observation, which the libraries for HER deliver too."""

    name = "crl, next_observation too"

    def prepare(self, batch_size: int) -> Draw:
        columns = ("next_observation",)
        batch = self.buffer.sample(batch_size, gamma=GAMMA, columns=columns)
        sample = self.buffer.sample

        def draw() -> tuple[Array, Array, Array]:
            sample(batch_size, gamma=GAMMA, columns=columns, out=batch)
            return batch.observation, batch.action, batch.goal

        return draw


class NumpySampler(Sampler):
    """As good as it gets in NumPy: flat arrays, `take` into memory that is kept, SFC64, one logarithm a row."""

    name = "NumPy"
    module = "numpy"
    memory = 0.0

    def __init__(self, history: History) -> None:
        self.rng = np.random.Generator(np.random.SFC64(0))
        self.columns = history.flat()
        self.episodes = history.rows // EPISODE
        self.mass = 1 - GAMMA ** np.arange(EPISODE)

    def rows(self, batch_size: int, offset: Array) -> tuple[Array, Array]:
        """Fills `offset`; numbers of the rows and of their goals' rows, each [batch_size]."""
        episode, t = np.divmod(self.rng.integers(0, self.episodes * (EPISODE - 1), batch_size), EPISODE - 1)
        row = episode * EPISODE + t
        mass = self.mass[EPISODE - 1 - t]
        offset[:] = 1 + np.log1p(-self.rng.random(batch_size) * mass) * (1 / np.log(GAMMA))
        return row, row + offset

    def prepare(self, batch_size: int) -> Draw:
        offset = np.empty(batch_size, np.int32)
        observation, action, goal = (np.empty((batch_size, x.shape[1]), x.dtype) for x in self.columns)

        def draw() -> tuple[Array, Array, Array]:
            row, goal_row = self.rows(batch_size, offset)
            for column, index, memory in zip(
                self.columns, (row, row, goal_row), (observation, action, goal), strict=True
            ):
                column.take(index, 0, memory, "clip")
            return observation, action, goal

        return draw


class GatherLimit(Sampler):
    """What memory allows a plain loop: rows and goals drawn beforehand, ordinary pages, many batches a call."""

    name = "limit, a plain loop"
    module = "numpy"
    memory = 1.0
    batches = 16
    tuned: ClassVar[bool] = False

    def __init__(self, history: History) -> None:
        self.columns = self.place(history.flat())
        drawn = NumpySampler(history).rows(BEFOREHAND, np.empty(BEFOREHAND, np.int32))
        self.row, self.goal_row = (rows.astype(np.uint32) for rows in drawn)

    def place(self, columns: tuple[Array, ...]) -> tuple[Array, ...]:
        """The columns, where they are to be gathered from."""
        return tuple(_in_ordinary_pages(column) for column in columns)

    def prepare(self, batch_size: int) -> Draw:
        observation, action, goal = (np.empty((batch_size, x.shape[1]), x.dtype) for x in self.columns)
        count = self.batches * batch_size
        turns = itertools.cycle(range(0, max(1, BEFOREHAND - count + 1), count))

        def draw() -> tuple[Array, Array, Array]:
            turn = next(turns)
            row, goal_row = self.row[turn : turn + count], self.goal_row[turn : turn + count]
            gather_limit(self.columns, (row, row, goal_row), batch_size, self.tuned, (observation, action, goal))
            return observation, action, goal

        return draw


def _in_ordinary_pages(column: Array) -> Array:
    """A copy in memory of its own that the system does not put into huge pages, as it does for NumPy."""
    memory = mmap.mmap(-1, column.nbytes)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    copy = np.frombuffer(memory, column.dtype).reshape(column.shape)
    copy[:] = column
    return copy


class TunedLimit(GatherLimit):
    """The same with all that we know: huge pages, if the system gives them; prefetches into the second-level cache."""

    name = "limit, a tuned loop"
    memory = 0.0
    tuned = True

    def place(self, columns: tuple[Array, ...]) -> tuple[Array, ...]:
        return columns


class NumbaSampler(Sampler):
    """The same loop compiled by Numba: draw a block of rows, then copy them."""

    name = "Numba"
    module = "numba"
    memory = 0.0

    def __init__(self, history: History) -> None:
        self.columns = history.flat()
        self.episodes = history.rows // EPISODE
        self.mass = 1 - GAMMA ** np.arange(EPISODE)
        self.fill = importlib.import_module("numba").njit(_fill)

    def prepare(self, batch_size: int) -> Draw:
        out = tuple(np.empty((batch_size, x.shape[1]), x.dtype) for x in self.columns)
        row, goal_row = np.empty(batch_size, np.int64), np.empty(batch_size, np.int64)

        def draw() -> tuple[Array, Array, Array]:
            self.fill(*self.columns, *out, row, goal_row, self.episodes, self.mass, 1 / np.log(GAMMA))
            return out  # type: ignore[return-value]

        return draw


def _fill(
    observation: Array,
    action: Array,
    goal: Array,
    observation_out: Array,
    action_out: Array,
    goal_out: Array,
    row: Array,
    goal_row: Array,
    episodes: int,
    mass: Array,
    scale: float,
) -> None:
    """What Numba compiles."""
    last = len(mass) - 1
    for i in range(len(row)):
        drawn = np.random.randint(0, episodes * last)  # noqa: NPY002  Numba's own generator has this name.
        t = drawn % last
        row[i] = drawn // last * (last + 1) + t
        goal_row[i] = row[i] + 1 + int(np.log1p(-np.random.random() * mass[last - t]) * scale)  # noqa: NPY002
    for i in range(len(row)):
        observation_out[i] = observation[row[i]]
        action_out[i] = action[row[i]]
        goal_out[i] = goal[goal_row[i]]
