"""The humanoid: a free field, and mazes. Robot: gymnasium's humanoid.xml."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from crl.envs.spec import EnvSpec
from crl.envs.task import Array, Start, Task

START_HEIGHT, GOAL_HEIGHT = 1.4, 1.25  # m, of the torso
FLOOR, WALL = 1, 2  # contact bits
TIMESTEP, SUBSTEPS = 0.003, 5
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
    START_NOISE = 0.0

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
            action_repeat=SUBSTEPS,
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
            spec.option.timestep = TIMESTEP
            physics.set_contacts(spec.geoms, contype=FLOOR | WALL, conaffinity=0)
            physics.set_contacts([spec.geom("floor")], contype=0, conaffinity=FLOOR)
        return spec

    def control(self, action: Array) -> Array:
        return 0.4 * action

    def start(self, rng: np.random.Generator, count: int) -> Start:
        qpos, qvel = np.zeros((count, 24)), np.zeros((count, 23))
        qpos[:, 2], qpos[:, 3] = START_HEIGHT, 1.0
        goal = self._goal(rng, count)
        qpos[:, :2] += self._origin()
        return Start(qpos, qvel, np.column_stack((goal, np.full(count, GOAL_HEIGHT))))

    def _goal(self, rng: np.random.Generator, count: int) -> Array:
        """x and y of `count` goals."""
        distance, angle = rng.uniform(1.0, 5.0, count), rng.uniform(0.0, 2.0 * np.pi, count)
        return np.stack((distance * np.cos(angle), distance * np.sin(angle)), axis=1)

    def _origin(self) -> Array:
        """Where the torso starts, (1, 2) for all."""
        return np.zeros((1, 2))

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
