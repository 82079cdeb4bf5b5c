"""A two-link arm in a plane. Robot: gymnasium's reacher.xml."""

from __future__ import annotations

from typing import Any

import numpy as np

from crl.envs.spec import EnvSpec
from crl.envs.task import Array, Start, Task

FIRST_LINK, SECOND_LINK, HEIGHT = 0.1, 0.11, 0.01  # m; the second one up to the fingertip


class Reacher(Task):
    """Bring the fingertip to a point within .2 m of the base.

    Args:
        episode_length: steps.
        fidelity: `fast` integrates with implicitfast; `gymnasium` keeps gymnasium's RK4.
    """

    def __init__(self, *, episode_length: int = 1000, fidelity: str = "fast") -> None:
        if fidelity not in ("fast", "gymnasium"):
            raise ValueError(f"fidelity must be 'fast' or 'gymnasium', got {fidelity!r}")
        self.fidelity = fidelity
        self.spec = EnvSpec(
            name="reacher",
            observation_dim=10,
            action_dim=2,
            goal_dim=3,
            goal_indices=(4, 5, 6),
            episode_length=episode_length,
            success_threshold=0.05,
            action_repeat=2,
            dt=0.02,
            description="two-link arm, fingertip to a point within .2 m",
            observation="0:2 cosines and 2:4 sines of both joint angles; 4:7 fingertip position, 7:10 its velocity",
            start="angles U(±.1) rad, speeds U(±.005) rad/s",
            goal="fingertip x, y, z; radius .2·U(0, 1) m around the base, any angle: dense near the base",
            source="JaxGCRL envs/reacher.py",
        )

    def build_model(self) -> Any:
        from crl.envs import physics

        spec = physics.load_asset("reacher.xml")
        spec.delete(spec.body("target"))  # the goal is no part of the state
        physics.set_options(spec, self.fidelity)
        return spec.compile()

    def start(self, rng: np.random.Generator, count: int) -> Start:
        qpos = rng.uniform(-0.1, 0.1, (count, 2))
        qvel = rng.uniform(-0.005, 0.005, (count, 2))
        radius, angle = 0.2 * rng.uniform(size=count), rng.uniform(0.0, 2.0 * np.pi, count)
        goal = np.stack((radius * np.cos(angle), radius * np.sin(angle), np.full(count, HEIGHT)), axis=1)
        return Start(qpos, qvel, goal)

    def observe(self, batch: Any) -> Array:
        # Forward kinematics in closed form: exact, current, and no extra pass of the engine.
        angle, speed = batch.qpos, batch.qvel
        absolute, turning = np.cumsum(angle, axis=1), np.cumsum(speed, axis=1)
        along_x = (FIRST_LINK, SECOND_LINK) * np.cos(absolute)
        along_y = (FIRST_LINK, SECOND_LINK) * np.sin(absolute)
        observation = np.empty((len(angle), 10))
        observation[:, 0:2] = np.cos(angle)
        observation[:, 2:4] = np.sin(angle)
        observation[:, 4] = along_x.sum(axis=1)
        observation[:, 5] = along_y.sum(axis=1)
        observation[:, 6] = HEIGHT
        observation[:, 7] = -(along_y * turning).sum(axis=1)
        observation[:, 8] = (along_x * turning).sum(axis=1)
        observation[:, 9] = 0.0
        return observation
