"""Probes: episodes for goals all along the ways of a maze, so that one sees how far a policy has come.

A run whose goals are all far away has success 0 until it has nearly all of it. Where ever farther probes are reached it
is worth waiting; where they stand still it is not.
"""

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crl import envs
from crl.envs.maze_task import MazeTask
from crl.envs.registry import create
from crl.envs.task import Task
from crl.errors import ConfigError
from crl.evaluation import of_all, play
from crl.ranks import ALONE, Ranks

SUCCESS = ("probe/success_q1", "probe/success_q2", "probe/success_q3", "probe/success_q4")
DISTANCE = ("probe/distance_q1", "probe/distance_q2", "probe/distance_q3", "probe/distance_q4")


@dataclass(frozen=True)
class Probes:
    """Outcome of probes, by quarters of the goals: those that have the shortest way to go come first.

    A quarter that no episode fell into has None.
    """

    success: tuple[float | None, ...]
    """(4,) shares of episodes that reached their goal at least once."""
    distance: tuple[float | None, ...]
    """(4,) lengths of the walk from the start to the goal, from cell to cell, m; means."""

    def metrics(self) -> dict[str, float]:
        """The outcome under its names in metrics.csv."""
        named = [*zip(SUCCESS, self.success, strict=True), *zip(DISTANCE, self.distance, strict=True)]
        return {name: value for name, value in named if value is not None}

    def __str__(self) -> str:
        told = zip(self.success, self.distance, strict=True)
        return ", ".join(f"{success:.2f} at {distance:.0f} m" for success, distance in told if success is not None)


def probe(policy: Any, env: Any, *, seed: int, stop: threading.Event | None = None, ranks: Ranks = ALONE) -> Probes:
    """One episode in each world of `env`, from the starts of its own reset from `seed` to the centres of free cells.

    Sorted by their walk from the start, all free cells but that of the start itself are commanded alike: of N worlds,
    number i has the cell at (i + 1/2) / N of the list, and the quarter is that of the list. The same seed gives the
    same starts and goals.

    Args:
        policy: has `act(observation, goal, deterministic) -> action tensor [N, A]`; its mode acts.
        env: a `crl.envs` VectorEnv of a maze.
        stop: ends the probes when set, from any thread.
        ranks: each runs the episodes of an `env` of its own, and all get the outcome of all.

    Raises:
        Stopped: when `stop` was set before the last episode ended, on any rank.
    """
    env.reset(seed=seed)
    start, goal = env.places
    mazes = getattr(env.task, "mazes", [env.task.maze] * env.num_envs)
    share = (np.arange(env.num_envs) + 0.5) / env.num_envs
    walk = np.empty(env.num_envs)
    for world, maze in enumerate(mazes):
        goal[world, :2], walk[world] = _goal(maze, start[world, :2], share[world])
    observation, _ = env.reset(seed=seed, options={"goal": goal})
    steps_at_goal, _, _ = play(policy, env, observation, stop=stop, ranks=ranks)
    reached, quarter, walk = of_all(ranks, steps_at_goal > 0, (len(SUCCESS) * share).astype(np.intp), walk)

    def means(values: NDArray[Any]) -> tuple[float | None, ...]:
        parts = (values[quarter == number] for number in range(len(SUCCESS)))
        return tuple(float(part.mean()) if len(part) else None for part in parts)

    return Probes(means(reached), means(walk))


def _goal(maze: Any, start: NDArray[Any], share: float) -> tuple[NDArray[Any], float]:
    """The centre (2,) of the free cell at `share` of those sorted by the walk from `start`, and that walk, in m."""
    steps = maze.steps_from(start)
    cells = np.argwhere(steps > 0)
    order = np.argsort(steps[steps > 0], kind="stable")
    cell = cells[order[int(share * len(order))]]
    return cell * maze.cell, float(steps[tuple(cell)] * maze.cell)


def check(name: str, options: dict[str, Any]) -> None:
    """Refuse probes in an environment that has no maze.

    Raises:
        ConfigError: it has none.
    """
    task: Task | None = None if envs.is_adapted(name) else create(name, options)
    if not isinstance(task, MazeTask):
        raise ConfigError(f"probes need to know how long the way to a goal is: leave them out, as {name} is no maze.")
