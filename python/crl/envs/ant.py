"""The ant: a free field, and mazes. Robot: gymnasium's ant.xml."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crl.envs.layouts import Maze, choose
from crl.envs.maze_task import MazeTask
from crl.envs.spec import EnvSpec
from crl.envs.task import Array, Start, Task

# z .55, upright; hip, ankle of each leg in turn.
INITIAL_QPOS = np.array([0, 0, 0.55, 1, 0, 0, 0, 0, 1, 0, -1, 0, -1, 0, 1], dtype=np.float64)
FEET = ("left_ankle_geom", "right_ankle_geom", "third_ankle_geom", "fourth_ankle_geom")
START_NOISE = "z .55 m, ankles bent by 1 rad; U(±.1) on every position, .1·N(0, 1) on every velocity"
# s. MuJoCo's .02 is the stability limit at this timestep: feet then push off with energy from nowhere, and random
# actions throw the ant out of [.2, 1.0] m after 35 steps instead of the 63 to 66 of finer timesteps and of RK4;
# .03 gives 57 at the same cost.
CONTACT_TIME = 0.03


class Ant(Task):
    """Walk to a point 10 m away in a free field; the base of every ant environment.

    Args:
        name: the environment's name.
        random_start: also draw the start, at 10 m from the goal in a random direction; otherwise the origin.
        episode_length: steps.
        fidelity: `fast` integrates with implicitfast and lets feet touch the floor, feet and torso the walls;
            `gymnasium` keeps gymnasium's own settings (RK4, every part touches everything).
    """

    GOAL_RADIUS = 10.0

    def __init__(
        self,
        name: str = "ant",
        random_start: bool = False,
        *,
        episode_length: int = 1000,
        fidelity: str = "fast",
    ) -> None:
        if fidelity not in ("fast", "gymnasium"):
            raise ValueError(f"fidelity must be 'fast' or 'gymnasium', got {fidelity!r}")
        self.fidelity = fidelity
        self.random_start = random_start
        self.spec = EnvSpec(
            name=name,
            observation_dim=29,
            action_dim=8,
            goal_dim=2,
            goal_indices=(0, 1),
            episode_length=episode_length,
            success_threshold=0.5,
            action_repeat=5,
            dt=0.05,
            description="ant, goal 10 m away in any direction" + (", random start" if random_start else ""),
            observation="0:3 position, 3:7 quaternion (w, x, y, z), 7:15 hip and ankle of each leg; 15:29 velocities",
            start=f"{'10 m from the goal in any direction' if random_start else 'the origin'}; {START_NOISE}",
            goal="torso x, y; on the circle of 10 m around the origin",
            terminates="torso z outside [.2, 1.0] m",
            source="JaxGCRL envs/ant.py",
        )

    def build_model(self) -> Any:
        return self._robot().compile()

    def _robot(self) -> Any:
        """The ant's `MjSpec`, contacts and integrator set."""
        from crl.envs import physics

        spec = physics.load_asset("ant.xml")
        physics.set_options(spec, self.fidelity)
        if self.fidelity == "fast":
            # Torso and legs do not carry the ant, as published: one that lies on its back sinks and terminates.
            physics.set_contacts(spec.geoms, contype=0, conaffinity=0)
            physics.set_contacts([spec.geom("floor")], contype=0, conaffinity=physics.FLOOR)
            feet = [spec.geom(foot) for foot in FEET]
            physics.set_contacts(feet, contype=physics.FLOOR | physics.WALL, conaffinity=0)
            physics.set_contacts([spec.geom("torso_geom")], contype=physics.WALL, conaffinity=0)
            for geom in spec.geoms:
                geom.solref = [CONTACT_TIME, 1.0]
        return spec

    def start(self, rng: np.random.Generator, count: int) -> Start:
        qpos, qvel = _standing(rng, count)
        goal = self._goal(rng, count)
        qpos[:, :2] += self._origin(rng, goal)
        return Start(qpos, qvel, goal)

    def _goal(self, rng: np.random.Generator, count: int) -> Array:
        return self.GOAL_RADIUS * _directions(rng, count)

    def _origin(self, rng: np.random.Generator, goal: Array) -> Array:
        """Where the torso starts, before the reset noise; (count, 2), or (1, 2) for all."""
        if self.random_start:
            return goal + self.GOAL_RADIUS * _directions(rng, len(goal))
        return np.zeros((1, 2))

    def terminated(self, observation: Array) -> NDArray[np.bool_]:
        height = observation[:, 2]
        return (height < 0.2) | (height > 1.0)


class AntMaze(MazeTask, Ant):
    """Walk through a maze to the centre of a goal cell, drawn uniformly.

    Args:
        name: the environment's name.
        default: the layout: a name in `crl.envs.layouts`.
        layout: another one in its place: a name, a text file, or the grid itself as text.
    """

    def __init__(
        self, name: str, default: str, *, layout: str = "", episode_length: int = 1000, fidelity: str = "fast"
    ) -> None:
        super().__init__(name, episode_length=episode_length, fidelity=fidelity)
        self.maze = choose(default, layout)
        self.spec = replace(
            self.spec,
            description=f"ant, {self.maze}",
            start=f"centre of a start cell; {START_NOISE}",
            goal=f"torso x, y; {self.maze.goal_rule}",
            source="scaling-crl envs/ant_maze.py",
        )

    def build_maze(self, maze: Maze, boxes: int = 0) -> Any:
        from crl.envs import physics

        return physics.compile_maze(self._robot(), maze, self.fidelity, boxes)

    def start_at(self, rng: np.random.Generator, place: Array, goal: Array) -> Start:
        qpos, qvel = _standing(rng, len(goal))
        qpos[:, :2] += place
        return Start(qpos, qvel, goal)


def _standing(rng: np.random.Generator, count: int) -> tuple[Array, Array]:
    """qpos (count, 15) and qvel (count, 14) at the origin, with the reset noise."""
    qpos = INITIAL_QPOS + rng.uniform(-0.1, 0.1, (count, 15))
    qpos[:, 3:7] /= np.linalg.norm(qpos[:, 3:7], axis=1, keepdims=True)
    return qpos, 0.1 * rng.standard_normal((count, 14))


def _directions(rng: np.random.Generator, count: int) -> Array:
    """Unit vectors (count, 2), uniform in angle."""
    angle = rng.uniform(0.0, 2.0 * np.pi, count)
    return np.stack((np.cos(angle), np.sin(angle)), axis=1)
