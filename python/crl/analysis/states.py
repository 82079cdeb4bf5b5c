"""States to look at: all over a maze, and along fresh episodes.

Letters: P places, N rows, T steps, W worlds, O observation, G goal, A action.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crl.analysis.subject import Subject
from crl.envs.layouts import Maze
from crl.envs.maze_task import MazeTask
from crl.envs.task import Task
from crl.errors import ConfigError

Floats = NDArray[np.float64]
FINEST = 8
"""Places along the side of a maze's cell, unless there would be more than `MOST` in all."""
MOST = 4096


@dataclass(frozen=True)
class Ground:
    """Places all over a maze, evenly spaced, none in a wall, each with what is observed of a robot at rest there."""

    task: Task
    maze: Maze
    spacing: float
    """m, between neighbours along x and along y."""
    places: Floats
    """(P, 2): x and y, m."""
    observation: NDArray[Any]
    """(P, O)"""
    drawn_goal: NDArray[np.float32]
    """(G,) of `task.state_spec`: what is no place in it is the same in every goal."""

    def goals(self, places: Floats) -> NDArray[Any]:
        """What is commanded to reach `places` (n, 2): (n, G)."""
        goal = np.tile(self.drawn_goal, (len(places), 1))
        goal[:, :2] = places
        return self.task.draw(None, goal).reshape(len(goal), -1) if self.task.spec.image else goal

    def check(self, goals: Floats) -> None:
        """Refuse `goals` (n, 2) in a wall or outside of the maze.

        Raises:
            ConfigError: one is; it is named.
        """
        for x, y in goals:
            cell = np.rint(np.array([x, y]) / self.maze.cell).astype(np.intp)
            inside = ((cell >= 0) & (cell < self.maze.grid.shape)).all()
            if not inside or self.maze.grid[tuple(cell)] == "#":
                raise ConfigError(
                    f"--goal {x:g},{y:g} lies in a wall or outside of the maze: expected x and y in m of a free place, "
                    f"such as {' or '.join(f'{a:g},{b:g}' for a, b in self.maze.centres('G')[:2])}."
                )


def ground(env: Any) -> Ground | None:
    """The ground of a `crl.envs` VectorEnv that has been reset; None where there is no maze, or the goal is not where
    the robot is.

    The robot is at rest and in the posture of a fresh start everywhere. Of environments that have a maze in each world,
    the maze of the first.
    """
    task = getattr(env, "task", None)
    if not isinstance(task, MazeTask) or tuple(task.state_spec.goal_indices[:2]) != (0, 1):
        return None
    maze = getattr(task, "mazes", [task.maze])[0]
    free = np.argwhere(maze.grid != "#")
    fine = max(1, min(FINEST, int(np.sqrt(MOST / len(free)))))
    within = (np.arange(fine) + 0.5) / fine - 0.5
    inside = np.stack(np.meshgrid(within, within, indexing="ij"), -1).reshape(-1, 2)
    places = ((free[:, None] + inside) * maze.cell).reshape(-1, 2)
    state = np.repeat(task.observe(env.batch)[:1], len(places), axis=0).astype(np.float32)
    state[:, :2] = places
    shown = task.draw(state, None).reshape(len(places), -1) if task.spec.image else state
    return Ground(task, maze, maze.cell / fine, places, shown, env.places[1][0])


@dataclass(frozen=True)
class Walk:
    """Rows of fresh episodes, each until its goal is reached."""

    observation: NDArray[Any]
    """(N, O)"""
    goal: NDArray[Any]
    """(N, G), as commanded"""
    achieved: NDArray[Any]
    """(N, G)"""
    action: NDArray[np.float32]
    """(N, A)"""
    distance: Floats
    """(N,) to the goal, as the environment measures it"""
    time_left: Floats
    """(N,) s until the goal is first reached; NaN where it never is"""
    target: Floats
    """(N, G) the goal, as a state also where images are shown"""
    place: Floats
    """(N, G) what was achieved, as a state also where images are shown: in a maze x and y, m, come first"""

    episode: NDArray[np.intp]
    """(N,) the number of the episode"""

    def some(self, count: int, seed: int) -> "Walk":
        """`count` of the rows, drawn without replacement: as many of a short episode as of a long one, in most of which
        a robot may stand still, as far as the short ones go.
        """
        likely = 1 / np.bincount(self.episode)[self.episode]
        # The largest of u^(1/weight) are a weighted draw without replacement (Efraimidis & Spirakis 2006).
        rows = np.argsort(np.log(np.random.default_rng(seed).random(len(likely))) / likely)[::-1][:count]
        return Walk(*(getattr(self, field.name)[rows] for field in fields(self)))


def walk(subject: Subject, env: Any, seed: int) -> Walk:
    """One episode in each world of a vector environment, reset from `seed`, by the mode of the policy."""
    shown, _ = env.reset(seed=seed)
    running = np.ones(env.num_envs, dtype=np.bool_)
    moments: list[tuple[Any, ...]] = []
    reached = np.full(env.num_envs, np.nan)
    while running.any():
        action = subject.action(shown["observation"], shown["desired_goal"]).cpu().numpy()
        places, targets = env.places if hasattr(env, "places") else (shown["achieved_goal"], shown["desired_goal"])
        before, was_running = shown, running.copy()
        shown, _, terminated, truncated, info = env.step(action)
        columns = (before["observation"], before["desired_goal"], before["achieved_goal"], action, targets, places)
        moments.append((was_running, *columns, info["distance"]))
        now = running & info["success"]
        reached[now] = len(moments)
        running &= ~(terminated | truncated | info["success"])
    kept, *stacked = (np.stack(column) for column in zip(*moments, strict=True))
    observation, goal, achieved, actions, target, place, distance = (column[kept] for column in stacked)
    step, world = np.nonzero(kept)
    time_left = ((reached[world] - step) * subject.spec.dt).astype(np.float64)
    distance, target, place = (column.astype(np.float64) for column in (distance, target, place))
    return Walk(observation, goal, achieved, actions, distance, time_left, target, place, world)
