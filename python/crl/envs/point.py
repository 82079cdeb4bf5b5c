"""A point mass in the mazes: the smallest world in which goals lie behind corners."""

from __future__ import annotations

from typing import Any

import numpy as np

from crl.envs.layouts import Maze, choose
from crl.envs.maze_task import MazeTask
from crl.envs.spec import EnvSpec
from crl.envs.task import Array, Start

# Nothing moves vertically, so gravity and the floor do not act; walls stop the sphere but do not brake it. Nothing
# else does: with damping, as published none, random actions barely leave the first cells of a maze.
MJCF = """
<mujoco model="point">
  <option timestep="{timestep}" integrator="implicitfast" gravity="0 0 0"><flag island="disable"/></option>
  <default>
    <joint type="slide" armature="1"/>
    <motor gear="5" ctrllimited="true" ctrlrange="-1 1"/>
  </default>
  <worldbody>
    <geom name="floor" type="plane" size="40 40 1" contype="0" conaffinity="0"/>
    <body name="point" pos="0 0 .25">
      <joint name="x" axis="1 0 0"/>
      <joint name="y" axis="0 1 0"/>
      <geom name="point" type="sphere" size=".25" mass=".327" condim="1" priority="1"/>
    </body>
  </worldbody>
  <actuator>
    <motor name="x" joint="x"/>
    <motor name="y" joint="y"/>
  </actuator>
</mujoco>
"""

# m. Published points start exactly at the centre: a deterministic policy then has only as many different episodes
# as the maze has goals, and an evaluation says nothing that an interval could describe.
START_NOISE = 1.0


class PointMaze(MazeTask):
    """Drive a sphere with two force motors to the centre of a goal cell, drawn uniformly.

    Args:
        name: the environment's name.
        default: the layout: a name in `crl.envs.layouts`.
        layout: another one in its place: a name, a text file, or the grid itself as text.
        episode_length: steps.
    """

    def __init__(self, name: str, default: str, *, layout: str = "", episode_length: int = 1000) -> None:
        self.maze = choose(default, layout)
        self.spec = EnvSpec(
            name=name,
            observation_dim=4,
            action_dim=2,
            goal_dim=2,
            goal_indices=(0, 1),
            episode_length=episode_length,
            success_threshold=0.5,
            action_repeat=5,
            dt=0.05,
            description=f"point mass, {self.maze}",
            observation="0:2 position, 2:4 velocity",
            start=f"centre of a start cell, U(±{START_NOISE:g}) m on x and y, at rest",
            goal=f"x, y; {self.maze.goal_rule}",
            source="JaxGCRL envs/simple_maze.py",
        )

    def build_maze(self, maze: Maze, boxes: int = 0) -> Any:
        from crl.envs import physics

        spec = physics.mujoco.MjSpec.from_string(MJCF.format(timestep=self.spec.dt / self.spec.action_repeat))
        return physics.compile_maze(spec, maze, boxes=boxes)

    def start_at(self, rng: np.random.Generator, place: Array, goal: Array) -> Start:
        qpos = place + rng.uniform(-START_NOISE, START_NOISE, place.shape)
        return Start(qpos, np.zeros_like(qpos), goal)
