"""Long random walks through every environment: `make walk` makes a million steps in each."""

import os

import numpy as np
import pytest

from crl import TrajectoryBuffer, envs
from crl.collector import Collector, UniformPolicy

STEPS = int(float(os.environ.get("STEPS", "1e5")))
WORLDS, ROWS = 64, 64


class Counting(Collector):
    """Stores with each moment how many steps of its episode were made, by the environment's own account."""

    def __init__(self, env, policy, buffer):
        super().__init__(env, policy, buffer, seed=0)
        self.elapsed, self.ended = np.zeros(env.num_envs, np.int32), np.zeros(env.num_envs, bool)
        step = env.step

        def counting(action):
            answer = step(action)
            self.elapsed = np.where(self.ended, 0, self.elapsed + 1).astype(np.int32)
            self.ended = answer[2] | answer[3]
            return answer

        env.step = counting

    def _rows(self, *moment):
        return {**super()._rows(*moment), "elapsed": self.elapsed}


@pytest.mark.slow
@pytest.mark.timeout(0)  # some take minutes a million steps
@pytest.mark.parametrize("name", envs.names())
def test_random_steps_stay_finite_and_no_row_is_followed_by_a_reset(name):
    env = envs.make(name, WORLDS, seed=0)
    spec = env.env_spec
    buffer = TrajectoryBuffer(
        num_envs=WORLDS,
        capacity=WORLDS * ROWS,
        observation=((spec.observation_dim,), np.uint8 if spec.image else np.float32),
        action=(spec.action_dim,),
        achieved_goal=None if spec.image else (spec.goal_dim,),
        extras={"elapsed": ((), np.int32)},
    )
    collector = Counting(env, UniformPolicy(spec.action_dim, [0]), buffer)
    looked_at = 2_000 if spec.image else 8 * WORLDS * ROWS  # an image is 12 kB
    begun = 0
    for _ in range(-(-STEPS // (WORLDS * ROWS))):
        collector.collect(ROWS)  # as much as fits: rows are looked at before the next take their place
        batch = buffer.sample(looked_at, gamma=0.9, columns=("elapsed", "next_elapsed", "goal_elapsed"))
        assert np.isfinite(batch.observation).all()
        assert np.isfinite(batch.goal).all()
        np.testing.assert_array_equal(batch.next_elapsed, batch.elapsed + 1)
        np.testing.assert_array_equal(batch.goal_elapsed, batch.elapsed + batch.offset)
        begun += int((batch.elapsed == 0).sum())
    assert begun
    assert env.diverged_total == 0
