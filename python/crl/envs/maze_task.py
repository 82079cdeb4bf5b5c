"""What any robot needs to be put into a maze."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crl.envs.layouts import Maze
from crl.envs.task import Array, Start, Task


class MazeTask(Task):
    """A robot in `maze`, which is to reach the centre of a goal cell; before the robot's own `Task` among the bases."""

    maze: Maze

    @abstractmethod
    def build_maze(self, maze: Maze, boxes: int = 0) -> Any:
        """The compiled model of the robot in `maze`, whose walls are filled up to `boxes` (`physics.compile_maze`)."""

    @abstractmethod
    def start_at(self, rng: np.random.Generator, place: Array, goal: Array) -> Start:
        """Starts around `place` (count, 2), m, for `goal` (count, 2)."""

    def build_model(self) -> Any:
        return self.build_maze(self.maze)

    def start(self, rng: np.random.Generator, count: int) -> Start:
        return self.start_at(rng, *self.maze.draw(rng, count))

    def far(self, goal: Array) -> NDArray[np.bool_] | None:
        return self.maze.is_far(goal)
