"""The 2D navigation of 2022, as physics: a point that goes where its action says, a metre a step at most."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from crl.envs.layouts import Maze, choose
from crl.envs.maze_task import MazeTask
from crl.envs.spec import EnvSpec, of_places
from crl.envs.task import Array, Start

# Motors against a damper: the velocity follows the action within a tenth of a step. As the published point moves by ten
# substeps, blocked ones left out, so does this one; walls stop the sphere and do not brake it along them.
MJCF = """
<mujoco model="point">
  <option timestep=".1" integrator="implicitfast" gravity="0 0 0"><flag island="disable"/></option>
  <default>
    <joint type="slide" damping="10"/>
    <motor gear="10" ctrllimited="true" ctrlrange="-1 1"/>
  </default>
  <worldbody>
    <geom name="floor" type="plane" size="40 40 1" contype="0" conaffinity="0"/>
    <body name="point" pos="0 0 .2">
      <joint name="x" axis="1 0 0"/>
      <joint name="y" axis="0 1 0"/>
      <geom name="point" type="sphere" size=".2" mass="1" condim="1" priority="1" solref=".2 1"/>
    </body>
  </worldbody>
  <actuator>
    <motor name="x" joint="x"/>
    <motor name="y" joint="y"/>
  </actuator>
</mujoco>
"""
SPREAD = 0.3  # m: as far from its cell's centre as the sphere fits, less a fingertip
WAVE_NUMBER = 300.0  # rad/m, standard deviation: waves of centimetres, noise to whoever moves by decimetres
MOST_NUMBERS = 10_000


def of_first_two(difference: Any) -> tuple[Any, ...]:
    """The distance between two places, of which more is said than x and y: (N, goal_dim) -> one error (N,)."""
    return of_places(difference[:, :2])


class PointRooms(MazeTask):
    """Move a point through rooms of cells of 1 m to a place anywhere in them.

    Args:
        name: the environment's name.
        default: the layout: a name in `crl.envs.layouts`. If it is one of far goals, `…_eval…`, episodes start in the
            start cell, and goals lie in goal cells; otherwise both lie in any cell that is no wall.
        layout: another one in its place: a name, a text file, or the grid itself as text.
        episode_length: steps.
        goal_dim: numbers that say a place, of observations and goals alike: x, y and, beyond two, sines of them whose
            waves are so short that they are noise, the same in every world: there, and of no use. The task stays what
            it is, success is judged by x and y.
    """

    def __init__(
        self, name: str, default: str, *, layout: str = "", episode_length: int = 100, goal_dim: int = 2
    ) -> None:
        if type(goal_dim) is not int or not 2 <= goal_dim <= MOST_NUMBERS:
            raise ValueError(f"{name}: goal_dim must be a whole number from 2 to {MOST_NUMBERS}, got {goal_dim!r}")
        self._waves = np.random.default_rng(0).normal(size=(goal_dim - 2, 3)) * [WAVE_NUMBER, WAVE_NUMBER, np.pi]
        self.maze = choose(default, layout, cell=1.0)
        self._anywhere = "_eval" not in default
        more = " and sines of them" if goal_dim > 2 else ""
        around = f"U(±{SPREAD:g}) m on x and y"
        self.spec = EnvSpec(
            name=name,
            observation_dim=goal_dim,
            action_dim=2,
            goal_dim=goal_dim,
            goal_indices=tuple(range(goal_dim)),
            episode_length=episode_length,
            success_threshold=1.0,
            action_repeat=10,
            dt=1.0,
            errors=of_places if goal_dim == 2 else of_first_two,
            description=f"point that moves by its action, {self.maze}",
            observation="0:2 position; cell (0, 0) has its centre at the origin, published half a metre further"
            + (f"; 2:{goal_dim} sines of it, as good as noise" if goal_dim > 2 else ""),
            start=f"{'any cell' if self._anywhere else 'centre of a start cell'}, {around}, at rest",
            goal=f"x, y{more}; {'any cell' if self._anywhere else 'centre of a goal cell'}, {around}, "
            "outside of success",
            success="within 1 m, as far as the other side of a wall (2022: 2 m, reaching through it)",
            source="contrastive_rl point_env.py; here a sphere of .2 m, without the noise of 1 cm on actions",
        )

    def build_maze(self, maze: Maze, boxes: int = 0) -> Any:
        from crl.envs import physics

        return physics.compile_maze(physics.mujoco.MjSpec.from_string(MJCF), maze, boxes=boxes)

    def observe(self, batch: Any) -> Array:
        return self._told(batch.qpos)

    def _told(self, place: Array) -> Array:
        """Places (count, 2) as observations and goals say them, (count, goal_dim)."""
        *wave_vectors, phases = self._waves.T
        return np.concatenate((place, np.sin(place @ np.stack(wave_vectors) + phases)), axis=1)

    def start(self, rng: np.random.Generator, count: int) -> Start:
        start, goal = self._draw(rng, count)
        while (near := self.distance(start, goal) <= self.spec.success_threshold).any():
            start[near], goal[near] = self._draw(rng, int(near.sum()))
        return Start(start, np.zeros_like(start), self._told(goal))

    def start_at(self, rng: np.random.Generator, place: Array, goal: Array) -> Start:
        start = place + rng.uniform(-SPREAD, SPREAD, place.shape)
        return Start(start, np.zeros_like(start), goal + rng.uniform(-SPREAD, SPREAD, goal.shape))

    def _draw(self, rng: np.random.Generator, count: int) -> tuple[Array, Array]:
        """Starts and goals (count, 2) that may lie near each other."""
        if not self._anywhere:
            drawn = self.start_at(rng, *self.maze.draw(rng, count))
            return drawn.qpos, drawn.goal
        cells = np.argwhere(self.maze.grid != "#")
        places = cells[rng.integers(len(cells), size=(2, count))] + rng.uniform(-SPREAD, SPREAD, (2, count, 2))
        return places[0], places[1]

    def far(self, goal: Array) -> NDArray[np.bool_] | None:
        return None if self._anywhere else super().far(goal[:, :2])

    def goal_markers(self, goal: Array) -> Array:
        return super().goal_markers(goal[:, :2])
