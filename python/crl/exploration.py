"""Where a run has been, and how its representation of goals lies about that: what evaluations say of exploration.

Places are the first two entries of achieved goals, in the goal's own units. Letters: N rows, G goal, R representation,
P pairs of a start and a goal, D dimensions of a place, C squares.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crl import envs, losses
from crl.buffer import TrajectoryBuffer
from crl.config import ROWS_TO_LEARN, TrainConfig
from crl.envs.layouts import Maze
from crl.envs.maze_task import MazeTask
from crl.envs.registry import create
from crl.policy import Policy

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]

ROWS, IMAGE_ROWS = 16_384, 1_024
"""Drawn from the buffer at an evaluation."""
ENCODED = 2_048
"""Of these, pass psi and are searched for neighbours."""
PER_CELL = 2
"""Squares along the side of a maze's cell: as fine as any robot gets about in it."""
PER_SIDE = 16
"""Squares along the side of the box that starts and goals lie in, where there is no maze."""
LEAST = 20
"""Points below which nothing is said of how they lie."""


@dataclass(frozen=True)
class Squares:
    """A grid in which places are counted: square i along a dimension is [low + i width, low + (i + 1) width)."""

    low: Floats
    """(D,)"""
    width: Floats
    """(D,)"""
    free: Bools
    """(n, ...), an axis a dimension: which squares count."""
    axes: tuple[int, ...]
    """(D,) the entries of an achieved goal that are the place."""

    @classmethod
    def of_mazes(cls, mazes: list[Maze]) -> Self:
        """Quarters of the cells that are free, in some maze where worlds have one each."""
        free = np.any([maze.grid != "#" for maze in mazes], axis=0)
        cell = mazes[0].cell
        fine = free.repeat(PER_CELL, axis=0).repeat(PER_CELL, axis=1)
        return cls(np.full(2, -cell / 2), np.full(2, cell / PER_CELL), fine, (0, 1))

    @classmethod
    def around(cls, places: Floats) -> Self | None:
        """`PER_SIDE` by `PER_SIDE` squares of the smallest box around `places` (N, G), along the first two entries that
        are not the same in all; one alone makes a row of squares. None where all are the same.
        """
        low, high = places.min(0).astype(np.float64), places.max(0).astype(np.float64)
        axes = np.flatnonzero(high > low)[:2]
        if not len(axes):
            return None
        width = (high - low)[axes] / PER_SIDE
        free = np.ones((PER_SIDE,) * len(axes), dtype=np.bool_)
        return cls(low[axes], width, free, tuple(axes.tolist()))

    def places(self, achieved: Floats) -> tuple[Floats, NDArray[np.intp]]:
        """Of achieved goals (N, G) those in squares that count: their places (n, D), and numbers of squares (n,)."""
        place = achieved[:, list(self.axes)].astype(np.float64)
        square = np.floor((place - self.low) / self.width).astype(np.intp)
        within: Bools = np.all((square >= 0) & (square < self.free.shape), axis=1)
        place, square = place[within], square[within]
        counted = self.free[tuple(square.T)]
        return place[counted], np.ravel_multi_index(tuple(square[counted].T), self.free.shape)

    def draw(self, rng: np.random.Generator, count: int) -> Floats:
        """Places (count, D), even over the squares that count."""
        squares = np.argwhere(self.free)[rng.integers(self.free.sum(), size=count)]
        drawn: Floats = self.low + (squares + rng.random(squares.shape)) * self.width
        return drawn


def evenness(visits: NDArray[np.integer[Any]]) -> float:
    """Shannon's entropy of where visits (C,) fall, over ln C, the most it can be: 1 where all squares have as many, 0
    where one has all. 1 for a single square.
    """
    share = visits[visits > 0] / visits.sum()
    return float(-(share * np.log(share)).sum() / math.log(len(visits))) if len(visits) > 1 else 1.0


def nearest(points: Tensor, others: Tensor | None = None) -> Tensor:
    """(N,) Euclidean distances from `points` (N, D), float64, to the nearest of `others` (M, D), or of each other."""
    # By a matrix product: in float64 it loses nothing that matters.
    apart = torch.cdist(points, points if others is None else others)
    return (apart.fill_diagonal_(math.inf) if others is None else apart).amin(1)


def hopkins(points: Floats, uniform: Floats, chosen: NDArray[np.intp]) -> float:
    """The Hopkins statistic: u / (u + w), where u sums to the power of D the distances from `uniform` (m, D), drawn
    evenly over the window, to the nearest of `points` (N, D), and w those from m `chosen` points to the nearest other.

    0.5 is the mean for points that are themselves drawn evenly, whose statistic has the law Beta(m, m); 1 is one heap
    and 0 a lattice (Hopkins & Skellam 1954; the power: Cross & Jain 1982, Wright 2022). m should be a tenth of N or
    less, and points differ from each other.
    """
    dim = points.shape[1]
    every, anywhere = torch.from_numpy(points), torch.from_numpy(uniform)
    to_other = torch.cdist(every[chosen], every)
    to_other[torch.arange(len(chosen)), torch.from_numpy(chosen)] = math.inf
    u, w = (float((distance**dim).sum()) for distance in (nearest(anywhere, every), to_other.amin(1)))
    return u / (u + w)


def share_nearer(psi: Tensor, of_start: Tensor, of_goal: Tensor, energy: str) -> float:
    """The share of pairs of a row, psi (N, R), and an episode's start and goal, (P, R) each, in which the row has the
    higher energy with the goal: in which it is the nearer of the two, as the critic's energy judges it.
    """
    here = losses.pairwise_energy(psi, of_goal, energy)
    return float((here > losses.energy(of_start, of_goal, energy)).double().mean())


def goal_axes(psi: Tensor, of_goal: Tensor, energy: str) -> Tensor:
    """(P, R) the unit vectors along psi(g), (P, R). The energies `norm` and `l2` know differences alone: with them the
    origin is the mean of psi (N, R) over what was visited.
    """
    return torch.nn.functional.normalize(of_goal - psi.mean(0) if energy in ("norm", "l2") else of_goal, dim=-1)


def rotation(axes: Tensor, before: Tensor) -> float:
    """Degrees between unit vectors (P, R) and those before, mean over P. By the chord, exact for small angles too."""
    chord = torch.linalg.vector_norm(axes - before, dim=-1)
    return float(torch.rad2deg(2 * torch.asin((chord / 2).clamp(max=1))).mean())


class Exploration:
    """What evaluations of a run say of its exploration: the metrics `explore/...`.

    Randomness is of the run's seed and of how far it is, and the buffer's sampler stays where it is: a run that is
    measured is the same as one that is not.

    Args:
        squares: where places are counted; None where there is nothing to count.
        start: (P, G) achieved goals at the starts of the episodes of an evaluation.
        goal: (P, G) what these are for.
        energy: of the critic, by which nearness is judged.
        seed: of the points with which places are compared.
    """

    def __init__(self, squares: Squares | None, start: Floats, goal: Floats, energy: str, seed: int) -> None:
        self._squares, self._start, self._goal, self._energy, self._seed = squares, start, goal, energy, seed
        self._visited = np.zeros(0 if squares is None else squares.free.size, dtype=np.bool_)
        self._axes: Tensor | None = None

    @classmethod
    def of(cls, config: TrainConfig, env: Any, eval_env: Any, seed: int) -> Self:
        """That of a run.

        Args:
            env: the vector environment that collects, whose maze is the ground; None with a data set.
            eval_env: one of whose episodes starts and goals are; it is reset.
            seed: of these.
        """
        shown, _ = eval_env.reset(seed=seed)
        start, goal = shown["achieved_goal"].copy(), shown["desired_goal"].copy()
        squares = None
        if not eval_env.env_spec.image:
            mazes = _mazes(config, env)
            squares = Squares.of_mazes(mazes) if mazes else Squares.around(np.concatenate((start, goal)))
        return cls(squares, start, goal, config.energy, config.seed)

    def measure(self, buffer: TrajectoryBuffer, policy: Policy, position: int) -> dict[str, float]:
        """The metrics, of the rows that are in the buffer now and a copy of the present weights.

        Those that mean nothing here are left out: of psi where the algorithm has none, of places where achieved goals
        are images, of change at the first call, all of them where the buffer is still too empty to learn from.

        Args:
            position: how far the run is, env steps or updates.
        """
        if len(buffer) < ROWS_TO_LEARN * buffer.num_envs:
            return {}
        achieved = buffer.peek(ROWS if self._start.dtype != np.uint8 else IMAGE_ROWS, goal="random").goal
        return {
            **self._of_places(achieved, np.random.default_rng([self._seed, position])),
            **self._of_psi(achieved, policy),
        }

    def _of_places(self, achieved: Floats, rng: np.random.Generator) -> dict[str, float]:
        if self._squares is None:
            return {}
        squares, counted = self._squares, self._squares.free.ravel()
        places, square = squares.places(achieved)
        visits = np.bincount(square, minlength=len(counted))
        self._visited |= visits > 0
        metrics = {"explore/coverage": float(self._visited[counted].mean())}
        if len(places):
            metrics["explore/entropy"] = evenness(visits[counted])
        # A row may be drawn twice, and a robot at rest may be where it was.
        different = np.unique(places[:ENCODED], axis=0)
        if len(different) >= LEAST:
            count = len(different) // 10
            chosen = rng.choice(len(different), count, replace=False)
            metrics["explore/hopkins"] = hopkins(different, squares.draw(rng, count), chosen)
        return metrics

    def _of_psi(self, achieved: Floats, policy: Policy) -> dict[str, float]:
        different = np.unique(achieved[:ENCODED], axis=0)
        encoded = [policy.goal_representation(goals) for goals in (different, self._start, self._goal)]
        if any(psi is None for psi in encoded) or len(different) < LEAST:
            return {}
        psi, of_start, of_goal = (torch.as_tensor(rows).double().cpu() for rows in encoded)
        apart = psi - psi.mean(0)
        metrics = {
            "explore/psi_nearest": float(nearest(apart).mean()),
            # Of two rows drawn apart from each other the squared distance is on average twice the variance.
            "explore/psi_spread": math.sqrt(2 * float(apart.square().sum(1).mean())),
            "explore/nearer_than_start": share_nearer(psi, of_start, of_goal, self._energy),
        }
        before, self._axes = self._axes, goal_axes(psi, of_goal, self._energy)
        if before is not None:
            metrics["explore/goal_axis_rotation"] = rotation(self._axes, before)
        return metrics

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """What the next call compares with."""
        axes = {} if self._axes is None else {"goal_axes": self._axes.numpy().copy()}
        return {"visited": self._visited.copy(), **axes}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: it is of other squares.
        """
        if state["visited"].shape != self._visited.shape:
            raise ValueError(f"visited: expected {self._visited.shape} squares, got {state['visited'].shape}")
        self._visited = state["visited"].copy()
        self._axes = torch.from_numpy(state["goal_axes"].copy()) if "goal_axes" in state else None


def _mazes(config: TrainConfig, env: Any) -> list[Maze]:
    """The mazes that `env` collects in, or that a data set's environment has; none where it is no maze, or where nobody
    knows what they looked like.
    """
    if envs.is_adapted(config.env):
        return []
    task = env.task if env is not None else create(config.env, config.env_kwargs)
    if not isinstance(task, MazeTask):
        return []
    if task.differs_by_world:
        return list(getattr(task, "mazes", []))
    return [task.maze]
