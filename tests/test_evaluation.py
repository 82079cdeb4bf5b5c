"""The evaluation protocol on episodes whose outcome is known, and the interval against SciPy."""

import threading
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from crl.evaluation import Evaluation, Stopped, evaluate, wilson_interval


class ScriptedEnv:
    """Worlds whose distances to the goal are given, step by step; an episode ends where its list does.

    After its end a world goes on as under autoreset, with successes that must not count.
    """

    def __init__(self, distances: list[list[float]], *, terminated: tuple[int, ...] = ()) -> None:
        self.distances, self.terminated = distances, terminated
        self.num_envs, self.t = len(distances), 0
        self.seeds: list[int | None] = []
        self.far: list[bool] | None = None
        self.actions: list[np.ndarray[Any, Any]] = []

    def _shown(self) -> dict[str, np.ndarray[Any, Any]]:
        moment = np.full((self.num_envs, 1), self.t, dtype=np.float32)
        return {"observation": moment, "achieved_goal": moment, "desired_goal": moment + 100}

    def reset(self, *, seed: int | None = None) -> tuple[Any, Any]:
        self.seeds.append(seed)
        self.t = 0
        return self._shown(), {} if self.far is None else {"far": np.array(self.far)}

    def step(self, action: np.ndarray[Any, Any]) -> tuple[Any, Any, Any, Any, Any]:
        self.actions.append(action)
        distance = np.array([d[self.t] if self.t < len(d) else 0.0 for d in self.distances])
        self.t += 1
        ended = np.array([self.t == len(d) for d in self.distances])
        of_itself = np.array([world in self.terminated for world in range(self.num_envs)])
        info = {"success": distance < 0.5, "distance": distance}
        return self._shown(), distance, ended & of_itself, ended & ~of_itself, info


class ScriptedPolicy:
    """Acts by the observation, so that the test sees which one it was given."""

    def __init__(self) -> None:
        self.deterministic: set[bool] = set()

    def act(self, observation: Any, goal: Any, deterministic: bool = False) -> torch.Tensor:
        self.deterministic.add(deterministic)
        return torch.from_numpy(observation + goal)


def run(distances: list[list[float]], **options: Any) -> Evaluation:
    return evaluate(ScriptedPolicy(), ScriptedEnv(distances, **options), seed=0)


def test_outcome_of_four_known_episodes() -> None:
    outcome = run(
        [
            [1.0, 0.1, 0.1, 2.0],  # at the goal twice, then gone
            [1.0, 1.0, 1.0, 0.2],  # at the goal in the last step
            [9.0, 9.0, 9.0, 5.0],  # never
            [0.4, 0.3, 0.2, 0.1],  # always
        ]
    )
    assert outcome.num_episodes == 4
    assert outcome.success_rate == 3 / 4
    assert outcome.success_at_end == 2 / 4
    assert outcome.time_at_goal == (2 + 1 + 0 + 4) / 4
    assert outcome.final_distance == pytest.approx((2.0 + 0.2 + 5.0 + 0.1) / 4)
    assert outcome.success_interval == wilson_interval(3, 4)


def test_far_goals_are_told_apart() -> None:
    env = ScriptedEnv([[0.1], [9.0], [0.1], [9.0], [9.0]])
    env.far = [False, False, True, True, True]
    outcome = evaluate(ScriptedPolicy(), env, seed=0)
    assert (outcome.success_rate, outcome.success_rate_far, outcome.num_episodes_far) == (2 / 5, 1 / 3, 3)
    assert outcome.success_interval_far == wilson_interval(1, 3)
    low, high = wilson_interval(1, 3)
    assert {name: value for name, value in outcome.metrics().items() if "far" in name} == {
        "eval/success_rate_far": 1 / 3,
        "eval/success_rate_far_low": low,
        "eval/success_rate_far_high": high,
    }
    env.far = [False] * 5
    assert evaluate(ScriptedPolicy(), env, seed=0).success_rate_far is None  # none was drawn
    env.far = None
    assert not [name for name in evaluate(ScriptedPolicy(), env, seed=0).metrics() if "far" in name]


def test_an_episode_that_ended_early_counts_no_further() -> None:
    # Worlds 0 and 1 end after two steps, one of itself and one by truncation; what they then do would be success.
    outcome = run([[3.0, 2.0], [0.1, 7.0], [4.0, 4.0, 4.0, 0.3, 0.3]], terminated=(0,))
    assert outcome.success_rate == 2 / 3
    assert outcome.success_at_end == 1 / 3
    assert outcome.time_at_goal == (0 + 1 + 2) / 3
    assert outcome.final_distance == pytest.approx((2.0 + 7.0 + 0.3) / 3)


def test_the_step_that_ends_an_episode_counts() -> None:
    outcome = run([[0.1]])
    assert (outcome.success_rate, outcome.success_at_end, outcome.time_at_goal) == (1.0, 1.0, 1.0)


def test_the_policy_sees_each_moment_once_and_the_commanded_goal() -> None:
    env, policy = ScriptedEnv([[1.0] * 3] * 2), ScriptedPolicy()
    evaluate(policy, env, seed=7)
    assert env.seeds == [7]
    assert policy.deterministic == {True}
    np.testing.assert_array_equal(np.stack(env.actions)[:, :, 0], [[100, 100], [102, 102], [104, 104]])
    evaluate(policy, env, seed=7, deterministic=False)
    assert policy.deterministic == {True, False}


def test_a_stopped_evaluation_has_no_outcome() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        evaluate(ScriptedPolicy(), ScriptedEnv([[1.0]]), seed=0, stop=stop)


def test_metrics_have_their_names() -> None:
    metrics = run([[0.1, 1.0]]).metrics()
    low, high = wilson_interval(1, 1)
    assert metrics == {
        "eval/success_rate": 1.0,
        "eval/success_rate_low": low,
        "eval/success_rate_high": high,
        "eval/success_at_end": 0.0,
        "eval/time_at_goal": 1.0,
        "eval/final_distance": 1.0,
    }


@given(
    st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.8, 0.95, 0.99])
)
def test_interval_is_wilson_s(outcome: tuple[int, int], confidence: float) -> None:
    expected = binomtest(*outcome).proportion_ci(confidence, method="wilson")
    assert wilson_interval(*outcome, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("trials", [1, 4, 128])
def test_interval_at_the_edges(trials: int) -> None:
    low, high = wilson_interval(0, trials)
    assert low == 0
    assert 0 < high < 1
    assert wilson_interval(trials, trials) == pytest.approx((1 - high, 1 - low))
