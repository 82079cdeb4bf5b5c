"""A goal environment that tells which world, episode and moment it shows, and keeps a list of what happened."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

LENGTHS = (3, 1, 4, 2)
"""Steps of the episodes, over and over; every other one terminates, the others are truncated."""
LOW, HIGH = np.array([-2.0, 0.0]), np.array([4.0, 1.0])


class Scripted(gymnasium.Env):
    """Shows (world, episode, moment); the goal is moment 3. World and first goal come from the seed."""

    metadata = {"render_modes": []}  # noqa: RUF012
    dt = 0.5

    def __init__(self, tells: str = "is_success", picture: bool = False) -> None:
        place = Box(-np.inf, np.inf, (8, 8) if picture else (3,), np.float64)
        goal = Box(-np.inf, np.inf, (1,), np.float64)
        self.observation_space = Dict(observation=place, achieved_goal=goal, desired_goal=goal)
        self.action_space = Box(LOW, HIGH, dtype=np.float64)
        self.tells, self.world, self.episode = tells, -1.0, -1
        self.happened: list[tuple[Any, ...]] = []

    def _shown(self) -> dict[str, Any]:
        place = np.array([self.world, self.episode, self.moment], dtype=np.float64)
        return {"observation": place, "achieved_goal": place[2:], "desired_goal": np.array([3.0])}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        super().reset(seed=seed)
        if seed is not None:
            self.world, self.episode = float(self.np_random.integers(10_000)), -1
        self.episode, self.moment = self.episode + 1, 0
        return self._shown(), {"resets": True}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        before = self._shown()["observation"]
        self.moment += 1
        over = self.moment >= LENGTHS[self.episode % len(LENGTHS)]
        self.happened.append((*map(tuple, (before, action, self._shown()["observation"])), over))
        told = {self.tells: self.moment == 3} if self.tells else {}
        return self._shown(), 7.0, over and self.episode % 2 == 0, over and self.episode % 2 == 1, told


class ScriptedImages(Scripted):
    """The same as images of 2 by 2 pixels: the first bytes are world (of 256), episode and moment."""

    def __init__(self, tells: str = "is_success", told: str = "distance", alike: bool = True) -> None:
        super().__init__(tells)
        self.told, self.alike = told, alike
        image = Box(0, 255, (2, 2, 3), np.uint8)
        self.observation_space = Dict(observation=image, achieved_goal=image, desired_goal=image)

    def _images(self, numbers: dict[str, Any]) -> dict[str, Any]:
        place = numbers["observation"]
        shown, goal = np.zeros((2, 2, 2, 3), np.uint8)
        shown[0, 0], goal[0, 0, 2] = place % 256, 3
        return {"observation": shown, "achieved_goal": shown + np.uint8(not self.alike), "desired_goal": goal}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        numbers, info = super().reset(seed=seed)
        return self._images(numbers), {**info, self.told: 3.0}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        numbers, *rest, info = super().step(action)
        return self._images(numbers), *rest, {**info, self.told: abs(3.0 - self.moment)}


gymnasium.register("Scripted-v0", Scripted, max_episode_steps=50)
gymnasium.register("ScriptedImages-v0", ScriptedImages, max_episode_steps=50)
gymnasium.register("ScriptedForever-v0", Scripted)
NAME = "gymnasium:scripted_goals:Scripted-v0"
