"""The one interface a robot family implements; the engine (vector_env.py) does the rest."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crl.envs.spec import EnvSpec

Array = NDArray[np.floating[Any]]


class Start(NamedTuple):
    """The first moments of `count` episodes."""

    qpos: Array  # (count, nq)
    qvel: Array  # (count, nv)
    goal: Array  # (count, goal_dim)


class Task(ABC):
    """A model, where its episodes start, what they are to reach, and what is observed.

    Every method works on all worlds at once. An implementation draws randomness only from the generator it is
    given, and imports the simulator only inside `build_model`, so that listing environments stays cheap.
    """

    spec: EnvSpec
    derived: tuple[str, ...] = ()
    """Fields beside the state that `observe` reads, such as `xpos` or `cvel`: the engine keeps those of the stages
    position and velocity current, at the cost of computing them once more a step."""

    differs_by_world: bool = False
    """Whether each world has a model of its own, from `build_worlds`; `start_in` then knows which world it is."""

    from_above: bool = False
    """Whether pictures show all of it from straight above, as they do mazes; others are seen from the side."""

    @property
    def state_spec(self) -> EnvSpec:
        """The sizes of what `observe`, `start` and `distance` deal with: those of `spec`, unless images are shown."""
        return self.spec

    def draw(self, state: Array | None, goal: Array | None) -> NDArray[np.uint8]:
        """Images (num_envs, *spec.image) of states, `observe`'s, or of goals; one of the two is given."""
        raise TypeError(f"{type(self).__name__}: spec.image is set, so draw() must say what an image shows")

    @abstractmethod
    def build_model(self) -> Any:
        """Return the compiled `mujoco.MjModel`; its timestep times `spec.action_repeat` is `spec.dt`."""

    def build_worlds(self, seeds: NDArray[np.uint64]) -> Sequence[Any]:
        """Where worlds differ: a compiled model for each, which its seed alone decides, as large as `build_model`'s.

        Called before the first start, and again when a saved state is of other worlds.
        """
        raise TypeError(f"{type(self).__name__}.differs_by_world needs a build_worlds")

    def control(self, action: Array, batch: Any) -> Array:
        """Controls (num_envs, model.nu) for actions in [-1, 1] in the state of `batch`; by default the actions."""
        return action

    @abstractmethod
    def start(self, rng: np.random.Generator, count: int) -> Start:
        """Draw `count` fresh starts and goals."""

    def start_in(self, rng: np.random.Generator, worlds: NDArray[np.intp]) -> Start:
        """Draw fresh starts and goals in `worlds`, indices (count,); by default, as `start` does in any."""
        return self.start(rng, len(worlds))

    def observe(self, batch: Any) -> Array:
        """Observation (num_envs, observation_dim) of a `mujoco.batch.Batch`; by default positions, then velocities.

        Only state fields and those named in `derived` are current here: MuJoCo leaves others one physics step behind.
        """
        observation: Array = np.concatenate((batch.qpos, batch.qvel), axis=1)
        return observation

    def desired_goal(self, observation: Array, goal: Array) -> Array:
        """(num_envs, goal_dim) what to reach from here, `goal` being what it was; by default it stays."""
        return goal

    def terminated(self, observation: Array) -> NDArray[np.bool_]:
        """(num_envs,) whether the episode ends here for a reason of its own; by default never."""
        return np.zeros(len(observation), dtype=np.bool_)

    def distance(self, achieved_goal: Array, desired_goal: Array) -> Array:
        """(num_envs,) the largest of `spec.errors`; success is a distance below `spec.success_threshold`."""
        return functools.reduce(np.maximum, self.state_spec.errors(achieved_goal - desired_goal))

    def far(self, goal: Array) -> NDArray[np.bool_] | None:
        """(num_envs,) whether each world's goal is a far one, on which success is also told apart; by default None."""
        return None

    def goal_markers(self, goal: Array) -> Array:
        """(count, markers, 4): the spheres, x, y, z and radius in m, that show goals (count, goal_dim) in pictures.

        By default of the radius of success, and a goal of 3, 6 or more entries is one, two or more places, of 2 a
        place on the floor, of 1 a place along x.
        """
        count, dim = goal.shape
        if dim > 3 and dim % 3:
            return np.empty((count, 0, 4))
        markers = np.full((count, max(1, dim // 3), 4), self.spec.success_threshold)
        if dim < 3:
            markers[:, 0, :2] = 0.0
            markers[:, 0, :dim] = goal
        else:
            markers[:, :, :3] = goal.reshape(count, -1, 3)
        return markers
