"""The published evaluation: fresh worlds, one episode each, the deterministic actor."""

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crl.ranks import ALONE, Ranks


@dataclass(frozen=True)
class Evaluation:
    """Outcome of `num_episodes` episodes."""

    num_episodes: int
    success_rate: float
    """Share of episodes that reached the goal at least once."""
    success_interval: tuple[float, float]
    """95 % Wilson score interval of success_rate."""
    success_at_end: float
    """Share of episodes at the goal in their last step."""
    time_at_goal: float
    """Steps of an episode at the goal, mean over episodes."""
    final_distance: float
    """Distance to the goal in the last step, mean over episodes."""
    num_episodes_far: int = 0
    """Episodes whose goal was a far one, where the environment knows such goals (a maze does)."""
    success_rate_far: float | None = None
    """Share of these that reached the goal at least once; None where there were none."""
    success_interval_far: tuple[float, float] | None = None
    """95 % Wilson score interval of success_rate_far."""

    def metrics(self) -> dict[str, float]:
        """The outcome under its names in metrics.csv."""
        far = {}
        if self.success_rate_far is not None and self.success_interval_far is not None:
            far = {
                "eval/success_rate_far": self.success_rate_far,
                "eval/success_rate_far_low": self.success_interval_far[0],
                "eval/success_rate_far_high": self.success_interval_far[1],
            }
        return {
            "eval/success_rate": self.success_rate,
            "eval/success_rate_low": self.success_interval[0],
            "eval/success_rate_high": self.success_interval[1],
            "eval/success_at_end": self.success_at_end,
            "eval/time_at_goal": self.time_at_goal,
            "eval/final_distance": self.final_distance,
            **far,
        }


class Stopped(Exception):
    """An evaluation was stopped before its end; it has no outcome."""


def evaluate(
    policy: Any,
    env: Any,
    *,
    seed: int,
    deterministic: bool = True,
    stop: threading.Event | None = None,
    ranks: Ranks = ALONE,
) -> Evaluation:
    """Run one episode in each world of vector environment `env`, reset from `seed`.

    A world whose episode has ended is not counted further, whatever it does until the others end. Episodes whose drawn
    goal is far are counted among all, and once more by themselves: both figures for the cost of one.

    Args:
        policy: has `act(observation, goal, deterministic) -> action tensor [N, A]`.
        env: a `crl.envs` VectorEnv, whose info gives `success` and `distance` [N] after each step, and perhaps `far`
            [N] after reset.
        seed: of the starts and goals.
        deterministic: take the mode of the action distribution (published) instead of a sample.
        stop: ends the evaluation when set, from any thread.
        ranks: each runs the episodes of an `env` of its own, and all get the outcome of all episodes.

    Raises:
        Stopped: when `stop` was set before the last episode ended, on any rank.
    """
    observation, info = env.reset(seed=seed)
    far = info.get("far", np.zeros(env.num_envs, dtype=bool))
    own = play(policy, env, observation, deterministic=deterministic, stop=stop, ranks=ranks)
    steps_at_goal, success_at_end, final_distance, far = of_all(ranks, *own, far)
    num_episodes, num_far = len(far), int(far.sum())
    reached, reached_far = int((steps_at_goal > 0).sum()), int((steps_at_goal[far] > 0).sum())
    return Evaluation(
        num_episodes=num_episodes,
        success_rate=reached / num_episodes,
        success_interval=wilson_interval(reached, num_episodes),
        success_at_end=float(success_at_end.mean()),
        time_at_goal=float(steps_at_goal.mean()),
        final_distance=float(final_distance.mean()),
        num_episodes_far=num_far,
        success_rate_far=reached_far / num_far if num_far else None,
        success_interval_far=wilson_interval(reached_far, num_far) if num_far else None,
    )


def play(
    policy: Any,
    env: Any,
    observation: Mapping[str, NDArray[Any]],
    *,
    deterministic: bool = True,
    stop: threading.Event | None = None,
    ranks: Ranks = ALONE,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """One episode in each world of `env`, whose reset has just shown `observation`.

    Returns:
        of each world, (num_envs,): steps at the goal, whether it was there in its last step, and how far off.

    Raises:
        Stopped: when `stop` was set before the last episode ended, on any rank.
    """
    running = np.ones(env.num_envs, dtype=bool)
    steps_at_goal = np.zeros(env.num_envs, dtype=np.int64)
    success_at_end = np.zeros(env.num_envs, dtype=bool)
    final_distance = np.zeros(env.num_envs)
    while running.any():
        if stop is not None and stop.is_set():
            break
        action = policy.act(observation["observation"], observation["desired_goal"], deterministic=deterministic)
        observation, _, terminated, truncated, info = env.step(action.cpu().numpy())
        steps_at_goal += running & info["success"]
        success_at_end = np.where(running, info["success"], success_at_end)
        final_distance = np.where(running, info["distance"], final_distance)
        running &= ~(terminated | truncated)
    if ranks.any(bool(running.any())):
        raise Stopped
    return steps_at_goal, success_at_end, final_distance


def of_all(ranks: Ranks, *own: NDArray[Any]) -> list[NDArray[Any]]:
    """Arrays (N,) of this rank's episodes -> of those of all, rank by rank."""
    parts = ranks.together(lambda: [values.tolist() for values in own])
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def world_seed(seed: int) -> int:
    """The seed with which to make the worlds of an evaluation.

    Where mazes are random, they are then others than those that training with `seed` sees.
    """
    return int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a binomial proportion (Wilson 1927, without continuity correction)."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate = successes / trials
    centre = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(rate * (1 - rate) / trials + (z / (2 * trials)) ** 2)
    return max(0.0, centre - half), min(1.0, centre + half)
