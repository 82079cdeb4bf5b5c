"""Mazes as text: `#` wall, `R` start cell, `G` goal cell, `B` cell of an object, `.` free cell.

Cell (i, j), row i and column j, has its centre at x = i * cell, y = j * cell.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crl.envs.grids import LAYOUTS, ROOMS
from crl.errors import nearest

__all__ = ["CELLS", "LAYOUTS", "ROOMS", "Maze", "choose", "is_layout", "lasting"]

Places = NDArray[np.floating[Any]]

CELLS = {"#": "wall", "R": "start", "G": "goal", "B": "object", ".": "free"}
_DISTANCES = re.compile(r"(?P<base>\w+)_(?P<kind>eval|gen)_(?P<distances>(?:[1-9]\d*f)+)")


@dataclass(frozen=True)
class Maze:
    """A rectangular grid of cells, closed all round.

    Args:
        rows: the grid, one string a row.
        cell: width of a cell in m.
        far_rows: the same grid with `G` at far goals alone; by default those whose walk from the start is longer
            than the median goal's.
        strides: where given, episodes lead from any cell of a corridor to one so many cells on; each stride is as
            likely, and for it each pair of cells.
        name: for descriptions and errors.

    Raises:
        ValueError: the grid is ragged, holds another symbol, is open at its border, has no `R` or no `G`, or a
            start, goal or object cannot be reached from the others; or no two cells are a stride apart.
    """

    rows: tuple[str, ...]
    cell: float = 4.0
    far_rows: tuple[str, ...] = ()
    strides: tuple[int, ...] = ()
    name: str = field(default="your own", compare=False)

    @classmethod
    def load(cls, layout: str | os.PathLike[str], cell: float = 4.0) -> Maze:
        """A maze from a layout's name, a text file, or the text itself (of more than one line).

        Raises:
            ValueError: there is neither such a layout nor such a file, or it holds no sound grid.
        """
        if isinstance(layout, str):
            if "\n" in layout.strip():
                return cls.from_text(layout, cell)
            if is_layout(layout):
                return cls.named(layout, cell)
        path = Path(layout)
        if not path.exists():
            hint = nearest(str(layout), _named_layouts())
            raise ValueError(f"layout {os.fspath(layout)!r}: there is no such file, nor a layout of that name.{hint}")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"layout {path}: cannot be read as text: {error}") from None
        return cls.from_text(text, cell, name=str(path))

    @classmethod
    def from_text(cls, text: str, cell: float = 4.0, name: str = "your own") -> Maze:
        """Read a grid from text; blank lines and the space around each row do not count."""
        return cls(_rows(text), cell, name=name)

    @classmethod
    def named(cls, name: str, cell: float = 4.0) -> Maze:
        """A published layout, or one made from it by rule, `u` being any:

        - `u_eval`: its far goals (see `far_goals`), where nobody published that.
        - `u_eval_5f6f`: goals wherever the walk from the start is 5 or 6 cells.
        - `u_gen_1f2f`: from anywhere in the corridor, 1 or 2 cells on.

        Raises:
            ValueError: there is no such layout.
        """
        if match := _DISTANCES.fullmatch(name):
            maze = cls.named(match["base"], cell)
            distances = tuple(int(number) for number in match["distances"].split("f")[:-1])
            if match["kind"] == "gen":
                return replace(maze, strides=distances, far_rows=(), name=name)
            goals = np.isin(maze.steps_from_start, distances)
            grid = np.where(goals, "G", np.where(maze.grid == "G", ".", maze.grid))
            return replace(maze, rows=_joined(grid), far_rows=_joined(np.where(maze.far, "G", ".")), name=name)
        text = LAYOUTS.get(name) or ROOMS.get(name)
        base = name.removesuffix("_eval")
        if text is None and base == name:
            raise ValueError(f"there is no layout {name!r}.{nearest(name, _named_layouts())}")
        if text is None:
            return replace(cls.named(base, cell).far_goals(), name=name)
        published = LAYOUTS.get(f"{name.partition('_')[0]}_eval", "")
        return cls(_rows(text), cell, _rows(published), name=name)

    def __post_init__(self) -> None:
        if not self.rows or len({len(row) for row in self.rows}) != 1:
            raise self._error(f"rows must be of one length, got lengths {[len(row) for row in self.rows]}")
        for i, row in enumerate(self.rows):
            for j, symbol in enumerate(row):
                if symbol not in CELLS:
                    known = ", ".join(f"{cell!r} {meaning}" for cell, meaning in CELLS.items())
                    raise self._error(f"row {i}, column {j} (from 0) holds {symbol!r}; cells are {known}")
                border = i in (0, len(self.rows) - 1) or j in (0, len(row) - 1)
                if border and symbol != "#":
                    raise self._error(
                        f"the border must be wall ('#') all round, row {i}, column {j} (from 0) holds {symbol!r}"
                    )
        for symbol in "RG":
            if not len(self.find(symbol)):
                raise self._error(f"at least one {CELLS[symbol]} cell {symbol!r} is needed")
        first = (int(self.find("R")[0, 0]), int(self.find("R")[0, 1]))
        walks = self._walks([first])
        for i, j in np.argwhere(np.isin(self.grid, ["R", "G", "B"])).tolist():
            if walks[i, j] < 0:
                raise self._error(
                    f"the {CELLS[self.rows[i][j]]} at row {i}, column {j} (from 0) cannot be reached from the start "
                    f"at row {first[0]}, column {first[1]}"
                )
        if self.strides and max(self.strides) >= len(self.corridor):
            raise self._error(f"its corridor has {len(self.corridor)} cells, none {max(self.strides)} from another")

    def _error(self, problem: str) -> ValueError:
        return ValueError(f"layout {self.name}: {problem}.")

    def __str__(self) -> str:
        rows, columns = self.grid.shape
        count = len(self.find("G"))
        goals = "" if self.strides else f", {count} goal{'s' * (count > 1)}"
        return f"maze {self.name}, {rows} by {columns} cells of {self.cell:g} m{goals}"

    @property
    def goal_rule(self) -> str:
        """In words, how goals are drawn."""
        if self.strides:
            return f"centre of a cell {' or '.join(map(str, self.strides))} cells on in the corridor, each as likely"
        return "centre of a goal cell, each as likely"

    @property
    def text(self) -> str:
        """The grid, a line a row."""
        return "\n".join(self.rows) + "\n"

    @cached_property
    def grid(self) -> NDArray[np.str_]:
        """The symbols, (rows, columns)."""
        return np.array([list(row) for row in self.rows])

    def find(self, symbol: str) -> NDArray[np.intp]:
        """Cells (n, 2) that hold `symbol`, row by row."""
        return np.argwhere(self.grid == symbol)

    def centres(self, symbol: str) -> NDArray[np.float64]:
        """Their centres (n, 2) in m."""
        return self.find(symbol).astype(np.float64) * self.cell

    @cached_property
    def steps_from_start(self) -> NDArray[np.intp]:
        """Cells on the shortest walk from the nearest start, (rows, columns); -1 where there is none."""
        return self._walks([(int(i), int(j)) for i, j in self.find("R")])

    def steps_from(self, place: Places) -> NDArray[np.intp]:
        """Cells on the shortest walk from the cell of `place`, (2,) in m, (rows, columns); -1 where there is none."""
        i, j = np.clip(np.rint(place / self.cell).astype(np.intp), 0, np.array(self.grid.shape) - 1).tolist()
        return self._walks([(i, j)])

    def _walks(self, frontier: list[tuple[int, int]]) -> NDArray[np.intp]:
        steps = np.full(self.grid.shape, -1, dtype=np.intp)
        length = 0
        while frontier:
            for i, j in frontier:
                steps[i, j] = length
            length += 1
            ring = {(i + a, j + b) for i, j in frontier for a, b in ((1, 0), (-1, 0), (0, 1), (0, -1))}
            frontier = sorted(c for c in ring if self.grid[c] != "#" and steps[c] < 0)
        return steps

    @cached_property
    def corridor(self) -> NDArray[np.intp]:
        """All cells (n, 2) in the order of the walk from the start; ValueError where that forks."""
        steps = self.steps_from_start
        cells = np.argwhere(steps >= 0)
        order = steps[steps >= 0]
        if len(np.unique(order)) < len(order):
            raise self._error("it is no corridor from one start, so there is no one cell that is so many cells on")
        return cells[np.argsort(order)]

    def draw(self, rng: np.random.Generator, count: int) -> tuple[Places, Places]:
        """Starts and goals of `count` episodes, centres (count, 2) in m each: any start with any goal, as likely."""
        if self.strides:
            stride = rng.choice(np.array(self.strides), count)
            first = rng.integers(len(self.corridor) - stride)
            return self.corridor[first] * self.cell, self.corridor[first + stride] * self.cell
        starts, goals = self.centres("R"), self.centres("G")
        return starts[rng.integers(len(starts), size=count)], goals[rng.integers(len(goals), size=count)]

    @cached_property
    def far(self) -> NDArray[np.bool_]:
        """Which cells are far goals, (rows, columns)."""
        goals = self.grid == "G"
        far: NDArray[np.bool_] = goals & (self.steps_from_start > np.median(self.steps_from_start[goals]))
        if self.far_rows:
            far = np.array([list(row) for row in self.far_rows]) == "G"
        return far

    def is_far(self, places: Places) -> NDArray[np.bool_] | None:
        """(count,) whether `places`, (count, 2) in m, lie in cells of far goals; None where goals are strides away."""
        if self.strides:
            return None
        i, j = np.clip(np.rint(places / self.cell).astype(np.intp), 0, np.array(self.grid.shape) - 1).T
        far: NDArray[np.bool_] = self.far[i, j]
        return far

    def far_goals(self) -> Maze:
        """This maze with only its far goals: those published, or whose walk is longer than the median goal's.

        Where all goals are equally far, none is dropped.
        """
        far = self.far & (self.grid == "G")
        rows = _joined(np.where((self.grid == "G") & ~far, ".", self.grid)) if far.any() else self.rows
        return replace(self, rows=rows, far_rows=rows)

    def walls(self) -> list[tuple[int, int, int, int]]:
        """Walls as few rectangles of cells: (first row, last row, first column, last column), ends included.

        Each rectangle grows to the right, then down, from the first wall cell that no other one covers: few boxes
        cost the collision detection less than one box a cell.
        """
        free = self.grid == "#"
        boxes = []
        while free.any():
            top, left = (int(k) for k in np.argwhere(free)[0])
            right, bottom = left, top
            while right + 1 < free.shape[1] and free[top, right + 1]:
                right += 1
            while bottom + 1 < free.shape[0] and free[bottom + 1, left : right + 1].all():
                bottom += 1
            free[top : bottom + 1, left : right + 1] = False
            boxes.append((top, bottom, left, right))
        return boxes


def choose(default: str, layout: str, cell: float = 4.0) -> Maze:
    """The maze of an environment: the layout `default`, unless its user asks for another `layout` (see `Maze.load`).

    Of that one an environment of far goals, whose default ends in `_eval`, leaves only the far goals.
    """
    if not layout:
        return Maze.named(default, cell)
    maze = Maze.load(layout, cell)
    return maze.far_goals() if default.endswith("_eval") else maze


def lasting(layout: str) -> str:
    """What to write down of a `layout` as `Maze.load` takes it: a name stays, a file becomes the grid in it."""
    return layout if not layout or is_layout(layout) else Maze.load(layout).text


def is_layout(name: str) -> bool:
    """Whether `Maze.named` knows the name."""
    match = _DISTANCES.fullmatch(name)
    base = match["base"] if match else name
    return base in LAYOUTS or base.removesuffix("_eval") in {**LAYOUTS, **ROOMS}


def _named_layouts() -> list[str]:
    return [*LAYOUTS, "hardest_eval", *ROOMS, *(f"{name}_eval" for name in ROOMS)]


def _rows(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _joined(grid: NDArray[np.str_]) -> tuple[str, ...]:
    return tuple("".join(row) for row in grid)
