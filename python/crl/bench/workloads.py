"""What is stored: the sizes of three kinds of rows, and histories made of them."""

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from crl.buffer import TrajectoryBuffer

EPISODE = 1000
"""Rows of a trajectory."""
GAMMA = 0.99
STEPS = 4000
"""Rows that an environment keeps, until there are `MOST_ENVS` environments."""
MOST_ENVS = 256
CHUNK = 250
"""Steps of a rollout when a history is filled in; a divisor of `EPISODE`."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Workload:
    """The columns of a row."""

    name: str
    observation: tuple[int, ...]
    dtype: DTypeLike
    action: int
    goal: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one row's columns."""
        return math.prod(self.observation) * np.dtype(self.dtype).itemsize + 4 * (self.action + self.goal)


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("ant", (29,), np.float32, 8, 2),
        Workload("humanoid", (268,), np.float32, 17, 3),
        Workload("image", (64, 64, 3), np.uint8, 8, 2),
    )
}


class History:
    """Rows of many environments in plain arrays, [envs, steps, ...]: what every sampler is filled with or reads.

    All trajectories have `EPISODE` rows; `rows` is rounded down to whole ones, and is at least one of them. The first
    entry of action and goal is the row's number in its environment, so that a sampler can be checked, and observations
    of floats begin with the goal, as an ant's do. The rest is noise that repeats after `CHUNK` steps: what is copied
    makes no difference to how fast it is copied.
    """

    def __init__(self, workload: Workload, rows: int) -> None:
        self.workload = workload
        self.num_envs = max(1, min(MOST_ENVS, rows // STEPS))
        self.steps = max(1, rows // self.num_envs // EPISODE) * EPISODE
        rng = np.random.default_rng(0)
        noise = (self.num_envs, CHUNK)
        if np.dtype(workload.dtype) == np.uint8:
            block: Array = np.frombuffer(rng.bytes(math.prod((*noise, *workload.observation))), np.uint8)
            block = block.reshape(*noise, *workload.observation)
        else:
            block = rng.random((*noise, *workload.observation), np.float32)
        self.observation = self._repeat(block)
        self.action = self._repeat(rng.random((*noise, workload.action), np.float32))
        self.goal = self._repeat(rng.random((*noise, workload.goal), np.float32))
        self.action[..., 0] = self.goal[..., 0] = np.arange(self.steps)
        if self.observation.dtype == np.float32:
            self.observation[..., : workload.goal] = self.goal

    def _repeat(self, block: Array) -> Array:
        whole = np.empty((self.num_envs, self.steps, *block.shape[2:]), block.dtype)
        for first in range(0, self.steps, CHUNK):
            part = whole[:, first : first + CHUNK]
            part[:] = block
        return whole

    @property
    def rows(self) -> int:
        """Rows of all environments."""
        return self.num_envs * self.steps

    def flat(self) -> tuple[Array, Array, Array]:
        """Observation, action and goal, each [rows, numbers of a row], without a copy."""
        return tuple(x.reshape(self.rows, -1) for x in (self.observation, self.action, self.goal))  # type: ignore[return-value]

    def starts(self, first: int, last: int) -> NDArray[np.bool_]:
        """`episode_start` of the steps `first <= step < last`: [steps, envs]."""
        return np.repeat(np.arange(first, last)[:, None] % EPISODE == 0, self.num_envs, axis=1)

    def rollout(self, first: int, last: int) -> dict[str, Array]:
        """The arguments of `add_rollout` for the steps `first <= step < last`."""
        columns = {"observation": self.observation, "action": self.action, "achieved_goal": self.goal}
        parts = {name: np.ascontiguousarray(x[:, first:last].swapaxes(0, 1)) for name, x in columns.items()}
        return {**parts, "episode_start": self.starts(first, last)}

    @functools.cached_property
    def buffer(self) -> TrajectoryBuffer:
        """A `TrajectoryBuffer` that holds all of it, and samples with one thread."""
        return self.filled(threads=1)

    def filled(self, threads: int) -> TrajectoryBuffer:
        """A new `TrajectoryBuffer` that holds all of it, and shares large batches among `threads`."""
        buffer = empty_buffer(self.workload, self.num_envs, self.rows, threads)
        for first in range(0, self.steps, CHUNK):
            buffer.add_rollout(**self.rollout(first, first + CHUNK))
        return buffer


def empty_buffer(workload: Workload, num_envs: int, capacity: int, threads: int = 1) -> TrajectoryBuffer:
    """A buffer for rows of `workload` that shares large batches among `threads`."""
    observation = (workload.observation, workload.dtype)
    return TrajectoryBuffer(num_envs, capacity, observation, workload.action, workload.goal, sample_threads=threads)
