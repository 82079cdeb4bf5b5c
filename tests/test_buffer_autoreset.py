"""Gymnasium's three autoreset modes: what examples/autoreset.py stores is what happened, and the same in each."""

import importlib
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import crl

LENGTHS = [[3, 1, 4], [1, 1, 2], [5]]
"""Steps of the episodes of each environment, over and over."""
EPISODES = 8
"""Compared; in each mode there are more."""


class Scripted(gymnasium.Env):
    """Shows (environment, episode, step); a list of what happened tells (shown, action, shown next, whether last)."""

    def __init__(self, number):
        place = Box(-np.inf, np.inf, (3,), np.float32)
        self.observation_space = Dict(observation=place, achieved_goal=place)
        self.action_space = Box(-np.inf, np.inf, (1,), np.float32)
        self.number, self.episode, self.happened = number, -1, []

    def reset(self, *, seed=None, options=None):
        self.episode, self.steps = self.episode + 1, 0
        return self._show(), {}

    def step(self, action):
        before = self._show()
        self.steps += 1
        over = self.steps == LENGTHS[self.number][self.episode % len(LENGTHS[self.number])]
        self.happened.append((*map(tuple, (before["observation"], action, self._show()["observation"])), over))
        return self._show(), 0.0, over and self.episode % 2 == 0, over and self.episode % 2 == 1, {}

    def _show(self):
        place = np.array([self.number, self.episode, self.steps], np.float32)
        return {"observation": place, "achieved_goal": place.copy()}


def collected(monkeypatch, mode, fed_as=None):
    """A buffer filled from scripted environments in one mode, and all that happened in their first episodes."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "examples"))
    envs = SyncVectorEnv([lambda i=i: Scripted(i) for i in range(len(LENGTHS))], autoreset_mode=mode)
    if fed_as is not None:
        envs.metadata = {**envs.metadata, "autoreset_mode": fed_as}
    buffer = crl.TrajectoryBuffer(len(LENGTHS), 3000, observation=(3,), action=(1,), achieved_goal=(3,))

    def act(shown):
        return shown @ np.float32([[100], [10], [1]]) + 1

    importlib.import_module("autoreset").collect(envs, buffer, act, steps=60)
    return buffer, [step for env in envs.envs for step in env.happened if step[0][1] < EPISODES]


def check(buffer, happened):
    """Every step that was taken is drawn, and nothing else; the last row of a trajectory is the final observation."""
    batch = buffer.sample(40_000, goal="final", columns=("next_observation",))
    known = batch.observation[:, 1] < EPISODES
    columns = (batch.observation, batch.action, batch.next_observation, batch.goal)
    drawn = {tuple(map(tuple, row)) for row in zip(*(column[known].tolist() for column in columns), strict=True)}
    finals = {(shown[0], shown[1]): shown for _, _, shown, over in happened if over}
    assert drawn == {(shown, action, after, finals[shown[:2]]) for shown, action, after, _ in happened}
    return drawn


def test_every_mode_stores_what_happened_and_all_the_same(monkeypatch):
    one, two, three = (check(*collected(monkeypatch, mode)) for mode in AutoresetMode)
    assert one == two == three
    assert len(one) == sum(sum((lengths * EPISODES)[:EPISODES]) for lengths in LENGTHS)


@pytest.mark.parametrize("fed_as", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_a_mode_that_is_fed_as_another_is_noticed(monkeypatch, fed_as):
    """As if it reset a step later, the row of the reset is learnt from; as if it did not, the final row is lost."""
    with pytest.raises(AssertionError):
        check(*collected(monkeypatch, AutoresetMode.SAME_STEP, fed_as))


def test_the_script_stores_final_observations(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "examples"))
    for buffer in importlib.import_module("autoreset").main().values():
        assert (len(buffer), buffer.num_trajectories) == (4 * 3 * 21, 4 * 3)
        assert buffer.sample(1000, goal="final").offset.max() == 20
