"""What a camera above a maze sees: small images of a point, as observations and as goals."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from crl.envs.layouts import Maze
from crl.envs.maze_task import MazeTask
from crl.envs.point import PointMaze
from crl.envs.point_rooms import PointRooms
from crl.envs.spec import EnvSpec
from crl.envs.task import Array

SIZE = 64
"""Pixels on a side."""
FLOOR, WALL, POINT, TAIL = (230, 230, 230), (90, 90, 90), (0, 90, 200), (230, 120, 0)
POINT_RADIUS, TAIL_RADIUS = 2.0, 1.5  # pixels
TAIL_TIME = 0.3
"""s. At 3 m/s, fast for a maze, the tail lies a radius and a half behind the point."""


class MazeCamera:
    """Looks down on `maze`, x downwards and y to the right; the longer side of the grid fills an image."""

    image = (SIZE, SIZE, 3)

    def __init__(self, maze: Maze) -> None:
        self._pixels_per_metre = SIZE / (max(maze.grid.shape) * maze.cell)
        self._first_corner = -0.5 * maze.cell  # m: cell 0 has its centre at 0
        cells = np.arange(SIZE) * max(maze.grid.shape) // SIZE
        self._empty = np.full(self.image, WALL, dtype=np.uint8)
        rows, columns = (cells[cells < n] for n in maze.grid.shape)
        self._empty[: len(rows), : len(columns)][maze.grid[np.ix_(rows, columns)] != "#"] = FLOOR

    def __call__(self, position: Array, tail: Array) -> NDArray[np.uint8]:
        """Images (n, 64, 64, 3) of a disc at `position` (n, 2), m, and a smaller one, partly under it, at `tail`."""
        images = np.repeat(self._empty[None], len(position), axis=0)
        self._stamp(images, tail, TAIL_RADIUS, TAIL)
        self._stamp(images, position, POINT_RADIUS, POINT)
        return images

    def _stamp(self, images: NDArray[np.uint8], place: Array, radius: float, colour: tuple[int, int, int]) -> None:
        """Draw a disc with soft edges into each image, so that its shades tell where between pixels it is."""
        reach = np.arange(-np.ceil(radius), np.ceil(radius) + 1).astype(np.intp)
        centre = (place - self._first_corner) * self._pixels_per_metre
        centre = np.clip(centre, reach[-1] + 1, SIZE - reach[-1] - 1)  # what is outside is seen at the edge
        row, column = (np.floor(centre[:, axis, None]).astype(np.intp) + reach for axis in (0, 1))  # (n, window)
        down, right = (np.square(pixel + 0.5 - centre[:, axis, None]) for axis, pixel in ((0, row), (1, column)))
        cover = np.clip(radius + 0.5 - np.sqrt(down[:, :, None] + right[:, None]), 0, 1)[..., None]
        where = (np.arange(len(images))[:, None, None], row[:, :, None], column[:, None])
        images[where] = np.rint(images[where] * (1 - cover) + cover * colour).astype(np.uint8)


class FromAbove(MazeTask):
    """A point in a maze, seen from above: what is observed, achieved and commanded are images.

    An image shows the place and, by a tail, the velocity, if the point has one: the tail lies where the point was
    `TAIL_TIME` ago. Goals are seen at rest. Whether a goal is reached is judged by the place, as without images.
    """

    def _show_images(self) -> None:
        """To be called where all else is made."""
        pixels = math.prod(MazeCamera.image)
        self._camera, self._state_spec = MazeCamera(self.maze), self.spec
        self.spec = replace(
            self.spec,
            observation_dim=pixels,
            goal_dim=pixels,
            goal_indices=(),
            image=MazeCamera.image,
            observation=f"an image from above, {' x '.join(map(str, MazeCamera.image))} bytes",
            goal=self.spec.goal.replace("x, y", "the image with the point there, at rest", 1),
        )

    @property
    def state_spec(self) -> EnvSpec:
        return self._state_spec

    def draw(self, state: Array | None, goal: Array | None) -> NDArray[np.uint8]:
        if state is None:
            assert goal is not None
            return self._camera(goal, goal)
        place, velocity = state[:, :2], state[:, 2:4]
        return self._camera(place, place - TAIL_TIME * velocity if velocity.size else place)


class PointMazeImages(FromAbove, PointMaze):
    """A `PointMaze` seen from above: arguments are the same."""

    def __init__(self, name: str, default: str, *, layout: str = "", episode_length: int = 1000) -> None:
        PointMaze.__init__(self, name, default, layout=layout, episode_length=episode_length)
        self._show_images()


class PointRoomsImages(FromAbove, PointRooms):
    """`PointRooms` seen from above: arguments are the same."""

    def __init__(self, name: str, default: str, *, layout: str = "", episode_length: int = 100) -> None:
        PointRooms.__init__(self, name, default, layout=layout, episode_length=episode_length)
        self._show_images()
