"""Worlds of cells: five moves, no noise, one start and one goal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from crl.envs.grids import ROOMS

MOVES = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))
"""(rows down, columns right) of the actions stay, down, up, right, left."""
NEAR = 1
"""An episode succeeds in a cell at most so many steps from the goal, walls not counted (Manhattan distance)."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class World:
    """A grid whose free cells are states, numbered row by row; a step into a wall or over the edge is none.

    Args:
        name: for titles.
        rows: the grid, one string a row: `#` wall, `R` start, `G` goal, any other symbol a free cell.
        room_names: symbols of rooms by their names; none: see `room`.
        plan: the grid again, each cell with the symbol of its room; cells of no room hold another.
    """

    name: str
    rows: tuple[str, ...]
    room_names: Mapping[str, str] = field(default_factory=dict)
    plan: tuple[str, ...] = ()

    @cached_property
    def grid(self) -> NDArray[np.str_]:
        """The symbols (H, W)."""
        return np.array([list(row) for row in self.rows])

    @cached_property
    def cells(self) -> Ints:
        """(S, 2) row and column of every state."""
        return np.argwhere(self.grid != "#")

    @cached_property
    def number(self) -> Ints:
        """(H, W) the state in each cell, -1 in walls."""
        number = np.full(self.grid.shape, -1, dtype=np.int64)
        number[tuple(self.cells.T)] = np.arange(len(self.cells))
        return number

    def state(self, row: int, column: int) -> int:
        """The state in a free cell."""
        return int(self.number[row, column])

    @cached_property
    def start(self) -> int:
        """The state where episodes begin."""
        return self.state(*map(int, np.argwhere(self.grid == "R")[0]))

    @cached_property
    def goal(self) -> int:
        """The state that is commanded."""
        return self.state(*map(int, np.argwhere(self.grid == "G")[0]))

    @cached_property
    def next_state(self) -> Ints:
        """(S, 5) where each move leads."""
        there = self.cells[:, None] + np.array(MOVES)
        inside = ((there >= 0) & (there < self.grid.shape)).all(-1)
        clipped = np.clip(there, 0, np.array(self.grid.shape) - 1)
        free = inside & (self.grid[clipped[..., 0], clipped[..., 1]] != "#")
        return np.where(free, self.number[clipped[..., 0], clipped[..., 1]], np.arange(len(self.cells))[:, None])

    @cached_property
    def near_goal(self) -> NDArray[np.bool_]:
        """(S,) where an episode succeeds."""
        return self.near(self.goal)

    def near(self, state: int) -> NDArray[np.bool_]:
        """(S,) which states are so near to one that an episode would succeed."""
        near: NDArray[np.bool_] = np.abs(self.cells - self.cells[state]).sum(1) <= NEAR
        return near

    @cached_property
    def rooms(self) -> tuple[str, ...]:
        """Names of the rooms in the order of the walk from the start."""
        return tuple(self.room_names) or tuple(f"{part} quarter of the way" for part in ("1st", "2nd", "3rd", "4th"))

    @cached_property
    def room(self) -> Ints:
        """(S,) the room of each state by its place in `rooms`, -1 in none: in a door, or unreachable.

        A world without a plan is cut by the length of the walk from the start: quarters of that to the goal, the last
        with all that lies further.
        """
        if self.plan:
            symbols = list(self.room_names.values())
            return np.array(
                [symbols.index(self.plan[i][j]) if self.plan[i][j] in symbols else -1 for i, j in self.cells]
            )
        steps = self.steps_from_start
        return np.where(steps < 0, -1, np.minimum(4 * steps // (steps[self.goal] + 1), 3))

    @cached_property
    def steps_from_start(self) -> Ints:
        """(S,) moves on the shortest way from the start; -1 where there is none."""
        steps = np.full(len(self.cells), -1)
        frontier, length = np.array([self.start]), 0
        while len(frontier):
            steps[frontier] = length
            ahead = np.unique(self.next_state[frontier])
            frontier, length = ahead[steps[ahead] < 0], length + 1
        return steps


def four_rooms(size: int = 10) -> World:
    """Four rooms in `size` by `size` cells: walls across the middle, a door of two cells in each half of a wall."""
    at, middle, quarter = np.arange(size), size // 2, size // 4
    wall = at == middle
    door = np.isin(at, [quarter, quarter + 1, 3 * size // 4, 3 * size // 4 + 1])
    grid = np.where((wall[:, None] & ~door) | (wall & ~door[:, None]), "#", ".")
    grid[0, 0], grid[-1, -1] = "R", "G"
    half = np.where(wall, -10, at > middle)
    plan = np.select([2 * half[:, None] + half == k for k in range(4)], list("SULG"), ".")
    names = {"start room": "S", "upper right": "U", "lower left": "L", "goal room": "G"}
    return World(f"four rooms, {size} by {size}", _joined(grid), names, _joined(plan))


def spiral() -> World:
    """A corridor that winds outwards in 11 by 11 cells, walls included: the point's spiral in `crl.envs`."""
    rows = [row[:-1].replace("G", ".") for row in ROOMS["spiral_11x11"].split()[:-1]]
    return World("spiral, 11 by 11", (*rows[:-1], rows[-1][:-1] + "G"))


def impossible() -> World:
    """A maze of 27 by 27 cells of dead ends and long detours; corridors are three cells wide."""
    text = """
        R#.......
        .#.#####.
        .#....#..
        .####.#.#
        .#....#..
        .#.#####.
        ...#...#G
        .#.#.#.##
        .#...#.#."""
    grid = np.array([list(row) for row in text.split()])
    wide = np.where(grid == "#", "#", ".").repeat(3, 0).repeat(3, 1)
    goal = 3 * np.argwhere(grid == "G")[0] + 1
    wide[0, 0], wide[*goal] = "R", "G"
    return World("impossible, 27 by 27", _joined(wide))


def box() -> World:
    """An empty box of 5 by 5 cells."""
    return World("box, 5 by 5", ("R....", *3 * (".....",), "....G"))


WORLDS: dict[str, Callable[[], World]] = {
    "four-rooms": four_rooms,
    "four-rooms-20": lambda: four_rooms(20),
    "spiral": spiral,
    "impossible": impossible,
    "box": box,
}
"""By the names they have on the command line: those of Bastankhah et al. (2025)."""


def _joined(grid: NDArray[np.str_]) -> tuple[str, ...]:
    return tuple("".join(row) for row in grid)
