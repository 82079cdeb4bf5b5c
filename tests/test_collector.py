"""What the collector stores, on worlds whose every observation says which world, episode and moment it is."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from crl.collector import Collector, UniformPolicy

LENGTHS = (3, 1, 4)
"""Steps of an episode in each of three worlds."""


class CountingEnv:
    """Worlds under NEXT_STEP autoreset that show 100 * episode + moment, plus 1e4 * world; world 1 terminates."""

    env_spec = SimpleNamespace(image=None)

    def __init__(self) -> None:
        self.num_envs = len(LENGTHS)
        self.world = np.arange(self.num_envs)
        self.length = np.array(LENGTHS)
        self.episode = self.moment = self.done = np.zeros(0)
        self.actions: list[np.ndarray[Any, Any]] = []
        self.seeds: list[int | None] = []

    def _shown(self) -> dict[str, np.ndarray[Any, Any]]:
        value = (1e4 * self.world + 100 * self.episode + self.moment)[:, None].astype(np.float32)
        goal = (1e4 * self.world + 100 * self.episode + 50)[:, None].astype(np.float32)
        observation = np.asfortranarray(np.hstack([value, -value]))  # no env promises C order
        return {"observation": observation, "achieved_goal": value, "desired_goal": goal}

    def reset(self, *, seed: int | None = None) -> tuple[Any, Any]:
        self.seeds.append(seed)
        self.episode, self.moment = np.zeros(self.num_envs), np.zeros(self.num_envs)
        self.done = np.zeros(self.num_envs, dtype=bool)
        return self._shown(), {}

    def step(self, action: np.ndarray[Any, Any]) -> tuple[Any, Any, Any, Any, Any]:
        self.actions.append(action)
        self.episode = self.episode + self.done
        self.moment = np.where(self.done, 0, self.moment + 1)
        self.done = self.moment == self.length
        of_itself = self.world == 1
        return self._shown(), np.zeros(self.num_envs), self.done & of_itself, self.done & ~of_itself, {}

    def state_dict(self) -> dict[str, np.ndarray[Any, Any]]:
        return {"episode": self.episode.copy(), "moment": self.moment.copy(), "done": self.done.copy()}

    def load_state_dict(self, state: dict[str, np.ndarray[Any, Any]]) -> None:
        self.episode, self.moment, self.done = state["episode"], state["moment"], state["done"]


class Rows:
    """A buffer that keeps the rows as they came."""

    def __init__(self) -> None:
        self.rows: list[dict[str, np.ndarray[Any, Any]]] = []

    def add(self, **row: np.ndarray[Any, Any]) -> None:
        self.rows.append({name: np.array(array) for name, array in row.items()})

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        """Column `name` of all rows, [rows, worlds, ...]."""
        return np.stack([row[name] for row in self.rows])


class Policy:
    """Acts by what it sees, 2 * observation + goal, so that each row's action tells what it was made from."""

    def act(self, observation: Any, goal: Any, deterministic: bool = False) -> torch.Tensor:
        assert not deterministic
        return torch.from_numpy(2 * observation[:, :1] + goal)


def collect(steps: int) -> tuple[Collector, CountingEnv, Rows]:
    env, rows = CountingEnv(), Rows()
    collector = Collector(env, Policy(), rows, seed=5)
    assert collector.collect(steps) == steps * env.num_envs
    return collector, env, rows


def test_every_moment_is_one_row_with_the_action_taken_there() -> None:
    _, env, rows = collect(11)
    assert env.seeds == [5]
    # World 0: episodes of 3 steps have 4 moments, the terminal one included; world 1: 2; world 2: 5.
    expected = {
        0: [0, 1, 2, 3, 100, 101, 102, 103, 200, 201, 202],
        1: [0, 1, 100, 101, 200, 201, 300, 301, 400, 401, 500],
        2: [0, 1, 2, 3, 4, 100, 101, 102, 103, 104, 200],
    }
    for world, moments in expected.items():
        shown = 1e4 * world + np.array(moments)
        np.testing.assert_array_equal(rows["achieved_goal"][:, world, 0], shown)
        np.testing.assert_array_equal(rows["observation"][:, world], np.stack([shown, -shown], axis=1))
        np.testing.assert_array_equal(rows["episode_start"][:, world], np.array(moments) % 100 == 0)
    np.testing.assert_array_equal(rows["action"], np.stack(env.actions))
    goal = 1e4 * env.world + 100 * ((rows["achieved_goal"][:, :, 0] % 1e4) // 100) + 50
    np.testing.assert_array_equal(rows["action"][:, :, 0], 2 * rows["achieved_goal"][:, :, 0] + goal)


def test_rounds_join_without_a_seam() -> None:
    whole = collect(12)[2]
    env, rows = CountingEnv(), Rows()
    collector = Collector(env, Policy(), rows, seed=5)
    for steps in (1, 4, 2, 5):
        collector.collect(steps)
    for name in ("observation", "action", "achieved_goal", "episode_start"):
        np.testing.assert_array_equal(rows[name], whole[name])


@pytest.mark.parametrize("cut", range(7))
def test_it_goes_on_from_its_state_wherever_an_episode_is(tmp_path: Path, cut: int) -> None:
    whole = collect(12)[2]
    collector, _, _ = collect(cut)
    safetensors.numpy.save_file(collector.state_dict(), tmp_path / "collector.safetensors")
    rest = Rows()
    restored = Collector(CountingEnv(), Policy(), rest, seed=99)
    restored.load_state_dict(safetensors.numpy.load_file(tmp_path / "collector.safetensors"))
    restored.collect(12 - cut)
    for name in ("observation", "action", "achieved_goal", "episode_start"):
        np.testing.assert_array_equal(rest[name], whole[name][cut:])


def test_no_goal_comes_from_another_episode_or_world() -> None:
    crl = pytest.importorskip("crl.buffer")
    env = CountingEnv()
    buffer = crl.TrajectoryBuffer(
        num_envs=3, capacity=3 * 17, observation=(2,), action=(1,), achieved_goal=(1,), seed=0
    )  # 17 rows a world: overwritten twice, and not a multiple of any episode
    collector = Collector(env, Policy(), buffer, seed=5)
    for _ in range(8):
        collector.collect(5)
        for kind in ("geometric", "uniform", "final", "next"):
            batch = buffer.sample(500, gamma=0.9, goal=kind)
            now, goal = batch.observation[:, 0], batch.goal[:, 0]
            np.testing.assert_array_equal(now // 100, goal // 100)  # world and episode
            np.testing.assert_array_equal(goal - now, batch.offset)
            assert (batch.offset >= 1).all()
            world = (now // 1e4).astype(int)
            assert (goal % 100 <= np.array(LENGTHS)[world]).all()
    # Terminal observations are goals, never states.
    assert ((now % 100) < np.array(LENGTHS)[world]).all()
    assert ((goal % 100) == np.array(LENGTHS)[world]).any()


def test_uniform_actions_fill_the_box_and_follow_their_seed() -> None:
    observation = np.zeros((4000, 3), dtype=np.float32)
    actions = UniformPolicy(2, [1, 2]).act(observation, observation)
    assert actions.shape == (4000, 2)
    assert actions.dtype == torch.float32
    assert actions.abs().max() <= 1
    assert torch.histc(actions, bins=4, min=-1, max=1).min() > 4000 * 2 / 4 * 0.9
    assert torch.equal(actions, UniformPolicy(2, [1, 2]).act(observation, observation))
    assert not torch.equal(actions, UniformPolicy(2, [1, 3]).act(observation, observation))
