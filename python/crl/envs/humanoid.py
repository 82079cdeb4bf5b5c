"""The humanoid: a free field, and mazes. Robot: gymnasium's humanoid.xml."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crl.envs.layouts import Maze, choose
from crl.envs.maze_task import MazeTask
from crl.envs.spec import EnvSpec
from crl.envs.task import Array, Start, Task

START_HEIGHT, GOAL_HEIGHT = 1.4, 1.25  # m, of the torso
# `fast` is chosen by what a setting costs (CPU µs per env step, one thread) and by how far the torso is, after 20 steps
# of the same random actions, from where RK4 at .0005 s brings it (median, mm):
#   RK4, PGS, parts touch each other (gymnasium's)   .003 s    190    .9
#   implicitfast, Newton, parts touch each other     .003 s     67   3.3
#   implicitfast, Newton (the default)               .003 s     65   2.6
#   implicitfast, Newton                             .005 s     41   3.6
# Under random actions all of them fall after 24 steps. The last would be faster still, but at another timestep than
# that of publications and peers. Walls add 20 %; letting only some parts touch them saves nothing.
CELL = 2.0  # m, of the mazes
# On every position (quaternion included, then normalised) and velocity of a start in a maze; gymnasium's. Published
# starts are always the same: a deterministic policy then has only as many different episodes as the maze has goals.
MAZE_NOISE = 0.01
# Where each block of the observation starts. The published model holds the target as a 12th link with two slides, the
# last of each block: a goal in the state. Here there is no such body, and its entries are 0.
QVEL, CINERT, CVEL, QFRC_ACTUATOR, END = 26, 51, 171, 243, 268


class Humanoid(Task):
    """Walk to a point 1 to 5 m away in a free field; the base of every humanoid environment.

    The observation keeps its published 268 entries, but those of the target (24:26 its x and y, 49:51 their
    velocities, 161:171, 237:243 and 266:268 the rest of it) are always 0: the published state holds the commanded
    goal there, and a critic can read it whatever goal it is asked about.

    Args:
        name: the environment's name.
        episode_length: steps.
        fidelity: `fast` integrates with implicitfast, solves with Newton and lets every part touch floor and walls,
            but no other part; `gymnasium` keeps gymnasium's own settings (RK4, PGS, every part touches everything).
    """

    derived = ("cinert", "cvel")

    def __init__(self, name: str = "humanoid", *, episode_length: int = 1000, fidelity: str = "fast") -> None:
        if fidelity not in ("fast", "gymnasium"):
            raise ValueError(f"fidelity must be 'fast' or 'gymnasium', got {fidelity!r}")
        self.fidelity = fidelity
        self.spec = EnvSpec(
            name=name,
            observation_dim=END,
            action_dim=17,
            goal_dim=3,
            goal_indices=(0, 1, 2),
            episode_length=episode_length,
            success_threshold=0.5,
            action_repeat=5,
            dt=0.015,
            description="humanoid, goal 1 to 5 m away in any direction",
            observation="0:3 torso position, 3:7 quaternion (w, x, y, z), 7:24 joint angles, 26:49 velocities, "
            "51:161 inertia and 171:237 velocity of 11 links about the centre of mass, 243:266 torques of the motors; "
            "the rest, published entries of the target, is 0",
            start="the origin, upright, torso z 1.4 m, at rest; always the same",
            goal="torso x, y, z; 1 to 5 m from the origin (uniform in distance), any angle, z 1.25 m",
            terminates="torso z outside [1, 2] m",
            source="JaxGCRL envs/humanoid.py",
        )

    def build_model(self) -> Any:
        return self._robot().compile()

    def _robot(self) -> Any:
        """The humanoid's `MjSpec`, contacts and integrator set."""
        from crl.envs import physics

        spec = physics.load_asset("humanoid.xml")
        spec.compiler.fusestatic = True  # a foot and its shin are one link, as published
        physics.set_options(spec, self.fidelity)
        if self.fidelity == "fast":
            spec.option.solver = physics.mujoco.mjtSolver.mjSOL_NEWTON
            physics.set_contacts(spec.geoms, contype=physics.FLOOR | physics.WALL, conaffinity=0)
            physics.set_contacts([spec.geom("floor")], contype=0, conaffinity=physics.FLOOR)
        return spec

    def control(self, action: Array, batch: Any) -> Array:
        return 0.4 * action

    def start(self, rng: np.random.Generator, count: int) -> Start:
        qpos, qvel = _upright(count)
        distance, angle = rng.uniform(1.0, 5.0, count), rng.uniform(0.0, 2.0 * np.pi, count)
        return Start(qpos, qvel, _raised(distance * np.cos(angle), distance * np.sin(angle)))

    def observe(self, batch: Any) -> Array:
        model, count = batch.model, len(batch.qpos)
        observation = np.zeros((count, END), dtype=np.float32)
        observation[:, :24] = batch.qpos
        observation[:, QVEL : QVEL + 23] = batch.qvel
        observation[:, CINERT : CINERT + 110] = batch.cinert[:, 1:].reshape(count, 110)  # the first is the world
        observation[:, CVEL : CVEL + 66] = batch.cvel[:, 1:].reshape(count, 66)
        joint = model.actuator_trnid[:, 0]
        observation[:, QFRC_ACTUATOR + model.jnt_dofadr[joint]] = model.actuator_gear[:, 0] * batch.ctrl
        return observation

    def terminated(self, observation: Array) -> NDArray[np.bool_]:
        height = observation[:, 2]
        return (height < 1.0) | (height > 2.0)


class HumanoidMaze(MazeTask, Humanoid):
    """Walk through a maze to the centre of a goal cell, drawn uniformly.

    Cells are 2 m wide and walls 1 m high and smooth.

    Args:
        name: the environment's name.
        default: the layout: a name in `crl.envs.layouts`.
        layout: another one in its place: a name, a text file, or the grid itself as text.
        episode_length: steps.
        fidelity: as for `Humanoid`.
    """

    def __init__(
        self, name: str, default: str, *, layout: str = "", episode_length: int = 1000, fidelity: str = "fast"
    ) -> None:
        super().__init__(name, episode_length=episode_length, fidelity=fidelity)
        self.maze = choose(default, layout, CELL)
        self.spec = replace(
            self.spec,
            description=f"humanoid, {self.maze}",
            start="centre of a start cell, upright, torso z 1.4 m; U(±.01) on every position and velocity",
            goal=f"torso x, y, z; {self.maze.goal_rule}, z {GOAL_HEIGHT:g} m",
            source="JaxGCRL envs/humanoid_maze.py",
        )

    def build_maze(self, maze: Maze, boxes: int = 0) -> Any:
        from crl.envs import physics

        return physics.compile_maze(self._robot(), maze, self.fidelity, boxes)

    def start_at(self, rng: np.random.Generator, place: Array, goal: Array) -> Start:
        qpos, qvel = _upright(len(goal))
        qpos[:, :2] = place
        qpos += rng.uniform(-MAZE_NOISE, MAZE_NOISE, qpos.shape)
        qpos[:, 3:7] /= np.linalg.norm(qpos[:, 3:7], axis=1, keepdims=True)
        qvel += rng.uniform(-MAZE_NOISE, MAZE_NOISE, qvel.shape)
        return Start(qpos, qvel, _raised(*goal.T))

    def far(self, goal: Array) -> NDArray[np.bool_] | None:
        return super().far(goal[:, :2])


def _upright(count: int) -> tuple[Array, Array]:
    """qpos (count, 24) and qvel (count, 23) of the published start, at the origin."""
    qpos = np.zeros((count, 24))
    qpos[:, 2], qpos[:, 3] = START_HEIGHT, 1.0
    return qpos, np.zeros((count, 23))


def _raised(x: Array, y: Array) -> Array:
    """Goals (count, 3) over these points."""
    return np.stack((x, y, np.full(len(x), GOAL_HEIGHT)), axis=1)
