"""Goals that the policy is told to reach while it collects: those of the environment, or others."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from crl.buffer import TrajectoryBuffer
from crl.config import ROWS_TO_LEARN

Array = NDArray[Any]


class Commands:
    """Decides at the start of every episode what goal it is for. What is learnt from never knows.

    `env`: what the environment shows. `single`: one goal for the whole run (Liu et al. 2024). `replay`: what some
    stored row achieved. `mixture`: each episode `env` or `replay`, by a fair coin.

    Args:
        kind: one of the four.
        buffer: where `replay` draws from, once there is something in it; until then goals are the environment's.
        single: (G,), the goal of `single`.
        seed: of the coin.
    """

    def __init__(self, kind: str, buffer: TrajectoryBuffer, *, single: Array | None = None, seed: int = 0) -> None:
        self._kind, self._buffer, self._single, self._seed = kind, buffer, single, seed
        self._goal: Array | None = None
        self._replayed = np.zeros(0, dtype=bool)

    def goals(self, shown: Array, begun: NDArray[np.bool_]) -> Array:
        """The goals (N, G) to act for, where the environment shows `shown` and episodes have `begun` (N,)."""
        if self._kind == "env":
            return shown
        if self._goal is None:
            self._goal, self._replayed = shown.copy(), np.zeros(len(shown), dtype=bool)
        if self._kind == "single":
            self._goal[:] = self._single
            return self._goal
        if begun.any():
            self._replayed[begun] = self._chosen(int(begun.sum()))
            replayed = begun & self._replayed
            if replayed.any():
                self._goal[replayed] = self._buffer.sample(int(replayed.sum()), goal="random").goal
        # What the environment shows may move with the world.
        np.copyto(self._goal, shown, where=~self._replayed[:, None])
        return self._goal

    def _chosen(self, count: int) -> NDArray[np.bool_]:
        """Which of so many episodes are for a goal of the buffer."""
        if self._buffer.rows_written < ROWS_TO_LEARN * self._buffer.num_envs:
            return np.zeros(count, dtype=bool)
        if self._kind == "replay":
            return np.ones(count, dtype=bool)
        coin = np.random.default_rng([self._seed, self._buffer.rows_written])
        return coin.random(count) < 0.5

    def state_dict(self) -> dict[str, Array]:
        """What the present episodes are for."""
        return {} if self._goal is None else {"goal": self._goal.copy(), "replayed": self._replayed.copy()}

    def load_state_dict(self, state: dict[str, Array]) -> None:
        """Restore what `state_dict` returned."""
        if state:
            self._goal, self._replayed = state["goal"].copy(), state["replayed"].copy()


def farthest(env: Any, seed: int) -> Array:
    """The goal (G,) that lies farthest from where its episode starts, of one episode in every world of `env`."""
    shown, info = env.reset(seed=seed)
    goal: Array = shown["desired_goal"][int(np.argmax(info["distance"]))]
    return goal
