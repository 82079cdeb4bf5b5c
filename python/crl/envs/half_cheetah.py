"""The half-cheetah, a runner in a plane. Robot: gymnasium's half_cheetah.xml."""

from __future__ import annotations

from typing import Any

import numpy as np

from crl.envs.spec import EnvSpec
from crl.envs.task import Start, Task

# kg/m³. It gives the robot 14 kg, which the asset asks for in a way that MuJoCo is about to drop.
DENSITY = 660.88495


class HalfCheetah(Task):
    """Run to x = 5 m and stay there.

    There is one fidelity: gymnasium's own settings (Euler at .01 s) are fast, and implicitfast gives the same.
    The robot weighs 14 kg, as gymnasium's; the published one 13.4, since its target counts towards its total.

    Args:
        episode_length: steps.
    """

    GOAL = 5.0

    def __init__(self, *, episode_length: int = 1000) -> None:
        self.spec = EnvSpec(
            name="half_cheetah",
            observation_dim=18,
            action_dim=6,
            goal_dim=1,
            goal_indices=(0,),
            episode_length=episode_length,
            success_threshold=0.5,
            action_repeat=5,
            dt=0.05,
            description="half-cheetah in a vertical plane, goal 5 m ahead",
            observation="0:3 x, height (from its start) and pitch of the torso; 3:9 angles of hind thigh, shin, foot, "
            "then the front ones; 9:18 velocities",
            start="the origin; U(±.1) on every position, .1·N(0, 1) on every velocity",
            goal=f"torso x; always {self.GOAL:g} m",
            source="JaxGCRL envs/half_cheetah.py",
        )

    def build_model(self) -> Any:
        from crl.envs import physics

        spec = physics.load_asset("half_cheetah.xml")
        spec.compiler.settotalmass = -1
        for geom in spec.geoms:
            geom.density = DENSITY
        return spec.compile()

    def start(self, rng: np.random.Generator, count: int) -> Start:
        qpos = rng.uniform(-0.1, 0.1, (count, 9))
        qvel = 0.1 * rng.standard_normal((count, 9))
        return Start(qpos, qvel, np.full((count, 1), self.GOAL))
