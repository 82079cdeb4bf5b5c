"""A point on a plane, to be moved onto a goal: a Gymnasium environment of the kind that HER needs."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

WITHIN = 0.15


def reached(achieved_goal, desired_goal):
    """Goals [..., 2] -> [...] bool."""
    return np.linalg.norm(achieved_goal - desired_goal, axis=-1) < WITHIN


class Plane(gymnasium.Env):
    """Observation and achieved goal: the position. An action moves it by at most 0.2; an episode has 20 steps."""

    def __init__(self):
        place = Box(-1, 1, (2,), np.float32)
        self.observation_space = Dict(observation=place, achieved_goal=place, desired_goal=place)
        self.action_space = Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.goal = self.np_random.uniform(-1, 1, (2, 2)).astype(np.float32)
        self.steps = 0
        return self._show(), {}

    def step(self, action):
        self.place = np.clip(self.place + 0.2 * np.clip(action, -1, 1), -1, 1).astype(np.float32)
        self.steps += 1
        is_success = bool(reached(self.place, self.goal))
        return self._show(), float(is_success) - 1, False, self.steps == 20, {"is_success": is_success}

    def compute_reward(self, achieved_goal, desired_goal, info):
        """0 at the goal, -1 elsewhere: goals [..., 2] -> [...]."""
        return reached(achieved_goal, desired_goal).astype(np.float32) - 1

    def _show(self):
        place = self.place.copy()
        return {"observation": place, "achieved_goal": place.copy(), "desired_goal": self.goal.copy()}
