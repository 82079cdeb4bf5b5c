"""Goals to collect for: the environment's, one for the whole run, achieved ones, or either."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from crl import TrajectoryBuffer, envs
from crl.collector import Collector
from crl.commands import Commands, farthest

WORLDS = 8


class Noting:
    """A policy that moves at random and keeps the goals it was told."""

    def __init__(self) -> None:
        self.told: list[NDArray[Any]] = []
        self._random = np.random.default_rng(0)

    def act(self, observation: NDArray[Any], goal: NDArray[Any]) -> torch.Tensor:
        self.told.append(goal.copy())
        return torch.from_numpy(self._random.uniform(-1, 1, (len(goal), 2)).astype(np.float32))


def collecting(kind: str, **options: Any) -> tuple[Collector, Noting, TrajectoryBuffer]:
    env = envs.make("point_u_maze", WORLDS, seed=0)
    env.reset(seed=0)
    buffer = TrajectoryBuffer(
        num_envs=WORLDS, capacity=WORLDS * 4000, observation=(4,), action=(2,), achieved_goal=(2,)
    )
    policy = Noting()
    return Collector(env, policy, buffer, seed=0, commands=Commands(kind, buffer, **options)), policy, buffer


def episodes(policy: Noting, buffer: TrajectoryBuffer, length: int = 1001) -> list[NDArray[Any]]:
    """The goals told in each of the whole episodes, (length, WORLDS, 2) an episode."""
    told = np.stack(policy.told)
    return [told[first : first + length] for first in range(0, len(told) - length + 1, length)]


def test_the_environments_goals_are_those_it_shows() -> None:
    collector, policy, _ = collecting("env")
    shown = collector._observation["desired_goal"].copy()
    collector.collect(2)
    np.testing.assert_array_equal(policy.told[0], shown)


def test_a_single_goal_is_told_in_every_world_and_step() -> None:
    goal = np.array([3.0, 4.0], np.float32)
    collector, policy, _ = collecting("single", single=goal)
    collector.collect(1100)
    assert (np.stack(policy.told) == goal).all()


def test_replayed_goals_were_achieved_and_stay_for_an_episode() -> None:
    collector, policy, buffer = collecting("replay")
    collector.collect(2 * 1001)
    first, second = episodes(policy, buffer)
    env_goals = {tuple(goal) for goal in first[0]}
    achieved = {tuple(row) for row in buffer.sample(200_000, goal="random", columns=("achieved_goal",)).achieved_goal}
    for world in range(WORLDS):
        assert len({tuple(goal) for goal in second[:, world]}) == 1
        assert tuple(second[0, world]) in achieved - env_goals
    # Until there is something in the buffer, the environment's.
    assert len({tuple(goal) for goal in first.reshape(-1, 2)}) == len(env_goals)


def test_a_mixture_is_of_both() -> None:
    collector, policy, buffer = collecting("mixture")
    collector.collect(4 * 1001)
    corners = {tuple(goal) for goal in episodes(policy, buffer)[0][0]}
    told = [tuple(goal) for episode in episodes(policy, buffer)[1:] for goal in episode[0]]
    of_env = sum(goal in corners or all(abs(x / 4 - round(x / 4)) < 1e-6 for x in goal) for goal in told)
    assert 0.2 * len(told) < of_env < 0.8 * len(told)


@pytest.mark.parametrize("kind", ["replay", "mixture", "single"])
def test_collecting_goes_on_bit_for_bit(kind: str, tmp_path: Any) -> None:
    def make() -> tuple[Collector, Noting, TrajectoryBuffer]:
        return collecting(kind, single=np.ones(2, np.float32))

    collector, policy, buffer = make()
    collector.collect(1500)
    buffer.save(tmp_path / "buffer.crlb")
    state = {name: array.copy() for name, array in collector.state_dict().items()}
    random = policy._random.bit_generator.state
    collector.collect(700)
    expected = np.stack(policy.told[1500:])

    again, noting, _ = make()
    again.buffer = again._commands._buffer = TrajectoryBuffer.load(tmp_path / "buffer.crlb")
    again.load_state_dict(state)
    noting._random.bit_generator.state = random
    again.collect(700)
    np.testing.assert_array_equal(np.stack(noting.told), expected)


def test_the_hard_goal_is_the_farthest_of_an_evaluation() -> None:
    env = envs.make("point_u_maze", 32, seed=1)
    shown, _ = env.reset(seed=5)
    distance = np.linalg.norm(shown["achieved_goal"] - shown["desired_goal"], axis=1)
    np.testing.assert_array_equal(farthest(env, 5), shown["desired_goal"][distance.argmax()])


@pytest.mark.parametrize("kind", ["single", "replay", "mixture"])
def test_a_run_collects_for_them_and_resumes(kind: str, tiny: Callable[..., Any]) -> None:
    from test_trainer import run

    result = run(tiny(env="point_u_maze", command=kind))
    assert result.updates > 0
