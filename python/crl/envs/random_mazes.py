"""Mazes by seed: another one in every world, to learn what holds in all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crl.envs.ant import AntMaze
from crl.envs.humanoid import HumanoidMaze
from crl.envs.layouts import Maze
from crl.envs.maze_task import MazeTask
from crl.envs.point import PointMaze
from crl.envs.task import Array, Start


def random_maze(rng: np.random.Generator, size: int, loops: float = 0.0, cell: float = 4.0) -> Maze:
    """A maze of `size` by `size` rooms, each one cell, with walls or passages of one cell between them.

    By Wilson's algorithm every maze without loops is as likely as any other. One room is the start, each as likely, and
    every other free cell a goal.

    Args:
        rng: what decides.
        size: rooms along a side, at least 2.
        loops: share of the walls between neighbouring rooms that are then taken away, in 0..1.
        cell: width of a cell in m.

    Raises:
        ValueError: size or loops out of their range.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 2:
        raise ValueError(f"size must be a whole number of rooms, at least 2, got {size!r}")
    if isinstance(loops, bool) or not isinstance(loops, int | float) or not 0 <= loops <= 1:
        raise ValueError(f"loops must be a share in 0..1, got {loops!r}")
    grid = np.full((2 * size + 1, 2 * size + 1), "#")
    for room, neighbour in _spanning_tree(rng, size):
        grid[room[0] + neighbour[0] + 1, room[1] + neighbour[1] + 1] = "G"  # between (2i + 1, 2j + 1) and its like
    grid[1::2, 1::2] = "G"
    between = [(i, j) for i in range(1, 2 * size) for j in range(1, 2 * size) if (i + j) % 2 and grid[i, j] == "#"]
    for index in rng.choice(len(between), round(loops * len(between)), replace=False):
        grid[between[index]] = "G"
    grid[tuple(2 * rng.integers(size, size=2) + 1)] = "R"
    return Maze(tuple("".join(row) for row in grid), cell, name="random")


def _spanning_tree(rng: np.random.Generator, size: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Pairs of neighbouring rooms that passages join: random walks to the tree, their loops erased (Wilson 1996)."""
    passages = []
    inside = {(int(rng.integers(size)), int(rng.integers(size)))}
    for first in np.ndindex(size, size):
        onward: dict[tuple[int, ...], tuple[int, int]] = {}
        room: tuple[int, ...] = first
        while room not in inside:
            a, b = ((1, 0), (-1, 0), (0, 1), (0, -1))[rng.integers(4)]
            if 0 <= room[0] + a < size and 0 <= room[1] + b < size:
                onward[room] = (room[0] + a, room[1] + b)  # a later visit overwrites: the loop is gone
                room = onward[room]
        room = first
        while room not in inside:
            inside.add((room[0], room[1]))
            passages.append(((room[0], room[1]), onward[room]))
            room = onward[room]
    return passages


class RandomMazes(MazeTask):
    """Another maze in every world, for the life of the environment, and a fresh goal in it each episode.

    Before a robot's maze task among the bases; `self.maze` is then of the right size, and no world's.
    """

    differs_by_world = True

    def _vary(self, size: int, loops: float, only_far: bool) -> None:
        """Take over from the maze task that is now made: its options, and the words of its spec."""
        self._size, self._loops, self._only_far = size, loops, only_far
        # Each inner post brings one box at most: the walls of a maze without loops hang together, and one taken away
        # leaves one post alone at most. The border has four, the lower one of them cut where a wall runs into it.
        self._boxes = (size - 1) ** 2 + 4 + (size - 1)
        self.spec = replace(
            self.spec,
            description=self.spec.description.partition(",")[0]
            + f", another random maze of {size} by {size} rooms in every world",
            start=self.spec.start.replace("a start cell", "its world's start cell"),
            goal=self.spec.goal.partition(";")[0]
            + f"; centre of a{' far' if only_far else ''} cell of its world, each as likely",
            source="nobody published it",
        )

    def build_model(self) -> Any:
        return self.build_maze(self.maze, self._boxes)

    def build_worlds(self, seeds: NDArray[np.uint64]) -> Sequence[Any]:
        cell = self.maze.cell
        drawn = [random_maze(np.random.default_rng(seed), self._size, self._loops, cell) for seed in seeds]
        self.mazes = [maze.far_goals() for maze in drawn] if self._only_far else drawn
        goals = [maze.centres("G") for maze in self.mazes]
        self._num_goals = np.array([len(centres) for centres in goals])
        self._goals = np.stack([np.resize(centres, (self._num_goals.max(), 2)) for centres in goals])
        self._starts = np.concatenate([maze.centres("R") for maze in self.mazes])
        return [self.build_maze(maze, self._boxes) for maze in self.mazes]

    def start_in(self, rng: np.random.Generator, worlds: NDArray[np.intp]) -> Start:
        goal = self._goals[worlds, rng.integers(self._num_goals[worlds])]
        return self.start_at(rng, self._starts[worlds], goal)

    def far(self, goal: Array) -> NDArray[np.bool_]:
        places = zip(self.mazes, np.rint(goal[:, :2] / self.maze.cell).astype(int), strict=True)
        return np.array([maze.far[tuple(cell)] for maze, cell in places])


def _template(size: int, loops: float) -> str:
    return random_maze(np.random.default_rng(0), size, loops).text


class AntRandomMaze(RandomMazes, AntMaze):
    """`AntMaze` in random mazes.

    Args:
        name: the environment's name.
        only_far: leave only the far goals of each maze.
        size, loops: of `random_maze`.
    """

    def __init__(
        self,
        name: str = "ant_random_maze",
        only_far: bool = False,
        *,
        size: int = 4,
        loops: float = 0.0,
        episode_length: int = 1000,
        fidelity: str = "fast",
    ) -> None:
        super().__init__(name, "u", layout=_template(size, loops), episode_length=episode_length, fidelity=fidelity)
        self._vary(size, loops, only_far)


class PointRandomMaze(RandomMazes, PointMaze):
    """`PointMaze` in random mazes; the arguments are those of `AntRandomMaze`."""

    def __init__(
        self,
        name: str = "point_random_maze",
        only_far: bool = False,
        *,
        size: int = 4,
        loops: float = 0.0,
        episode_length: int = 1000,
    ) -> None:
        super().__init__(name, "u", layout=_template(size, loops), episode_length=episode_length)
        self._vary(size, loops, only_far)


class HumanoidRandomMaze(RandomMazes, HumanoidMaze):
    """`HumanoidMaze` in random mazes; the arguments are those of `AntRandomMaze`."""

    def __init__(
        self,
        name: str = "humanoid_random_maze",
        only_far: bool = False,
        *,
        size: int = 4,
        loops: float = 0.0,
        episode_length: int = 1000,
        fidelity: str = "fast",
    ) -> None:
        super().__init__(name, "u", layout=_template(size, loops), episode_length=episode_length, fidelity=fidelity)
        self._vary(size, loops, only_far)
