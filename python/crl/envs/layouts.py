"""Mazes as text: `#` wall, `R` start cell, `G` goal cell, `B` cell of an object, `.` free cell.

Cell (i, j), row i and column j, has its centre at x = i * cell, y = j * cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

LAYOUTS: dict[str, str] = {
    "u": """
        #####
        #RGG#
        ###G#
        #GGG#
        #####""",
    "u_eval": """
        #####
        #R..#
        ###.#
        #GGG#
        #####""",
    "u_single_eval": """
        #####
        #R..#
        ###.#
        #G..#
        #####""",
    "u2": """
        ######
        #RGGG#
        ####G#
        #GGGG#
        ######""",
    "u2_eval": """
        ######
        #R...#
        ####.#
        #GGGG#
        ######""",
    "u3": """
        #######
        #RGGGG#
        #####G#
        #GGGGG#
        #######""",
    "u3_eval": """
        #######
        #R....#
        #####.#
        #GGGGG#
        #######""",
    "u3_single_eval": """
        #######
        #R....#
        #####.#
        #G....#
        #######""",
    "u4": """
        #####
        #GGG#
        #R#G#
        ###G#
        #G#G#
        #GGG#
        #####""",
    "u4_eval": """
        #####
        #...#
        #R#.#
        ###.#
        #G#.#
        #GGG#
        #####""",
    "u5": """
        ########
        #GGGGGG#
        #R####G#
        ######G#
        #G####G#
        #GGGGGG#
        ########""",
    "u5_eval": """
        ########
        #......#
        #R####.#
        ######.#
        #G####G#
        #GGGGGG#
        ########""",
    "u5_single_eval": """
        ########
        #......#
        #R####.#
        ######.#
        #G####.#
        #......#
        ########""",
    "u6": """
        #######
        #GGGGG#
        #R###G#
        #####G#
        #G###G#
        #GGGGG#
        #######""",
    "u6_eval": """
        #######
        #.....#
        #R###.#
        #####.#
        #G###G#
        #GGGGG#
        #######""",
    "u7": """
        ######
        #GGGG#
        #R##G#
        ####G#
        #G##G#
        #GGGG#
        ######""",
    "u7_eval": """
        ######
        #....#
        #R##.#
        ####.#
        #G##G#
        #GGGG#
        ######""",
    "big": """
        ########
        #RG##GG#
        #GG#GGG#
        ##GGG###
        #GG#GGG#
        #G#GG#G#
        #GGG#GG#
        ########""",
    "big_eval": """
        ########
        #R.##GG#
        #..#.GG#
        ##...###
        #..#...#
        #.#G.#G#
        #.GG#GG#
        ########""",
    "hardest": """
        ############
        #RGGG#GGGGG#
        #G##G#G#G#G#
        #GGGGGG#GGG#
        #G####G###G#
        #GG#G#GGGGG#
        ##G#G#G#G###
        #GG#GGG#GGG#
        ############""",
}


@dataclass(frozen=True)
class Maze:
    """A rectangular grid of cells, closed all round, with one start cell.

    Args:
        rows: the grid, one string a row.
        cell: width of a cell in m.

    Raises:
        ValueError: the grid is ragged, holds another symbol, is open at its border, has not exactly one `R`, has
            no `G`, or a goal or an object cannot be reached from the start.
    """

    rows: tuple[str, ...]
    cell: float = 4.0

    @classmethod
    def from_text(cls, text: str, cell: float = 4.0) -> Maze:
        """Read a grid from text; blank lines and the space around each row do not count."""
        return cls(tuple(line.strip() for line in text.splitlines() if line.strip()), cell)

    @classmethod
    def named(cls, name: str, cell: float = 4.0) -> Maze:
        """A layout of `LAYOUTS`, or `hardest_eval` (see `far_goals`)."""
        if name == "hardest_eval":
            return cls.named("hardest", cell).far_goals()
        return cls.from_text(LAYOUTS[name], cell)

    def __post_init__(self) -> None:
        if not self.rows or len({len(row) for row in self.rows}) != 1:
            raise ValueError(f"maze: rows must be of one length, got lengths {[len(row) for row in self.rows]}")
        if strange := set("".join(self.rows)) - set("#RGB."):
            raise ValueError(f"maze: cells must be '#', 'R', 'G', 'B' or '.', got {sorted(strange)}")
        border = self.rows[0] + self.rows[-1] + "".join(row[0] + row[-1] for row in self.rows)
        if set(border) != {"#"}:
            raise ValueError("maze: the border must be walls ('#') all round")
        if len(self.find("R")) != 1:
            raise ValueError(f"maze: exactly one start cell 'R' is needed, got {len(self.find('R'))}")
        if not len(self.find("G")):
            raise ValueError("maze: at least one goal cell 'G' is needed")
        for symbol, thing in (("G", "goal"), ("B", "object")):
            for i, j in self.find(symbol).tolist():
                if self.steps_from_start[i, j] < 0:
                    raise ValueError(f"maze: the {thing} at row {i}, column {j} cannot be reached from 'R'")

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
        """Cells on the shortest walk from the start, (rows, columns); -1 where there is none."""
        steps = np.full(self.grid.shape, -1, dtype=np.intp)
        frontier = [(int(i), int(j)) for i, j in self.find("R")]
        length = 0
        while frontier:
            for i, j in frontier:
                steps[i, j] = length
            length += 1
            ring = {(i + a, j + b) for i, j in frontier for a, b in ((1, 0), (-1, 0), (0, 1), (0, -1))}
            frontier = sorted(c for c in ring if self.grid[c] != "#" and steps[c] < 0)
        return steps

    def far_goals(self) -> Maze:
        """This maze with only the goals whose walk from the start is longer than the median goal's."""
        lengths = self.steps_from_start[self.grid == "G"]
        near = (self.grid == "G") & (self.steps_from_start <= np.median(lengths))
        return Maze(tuple("".join(row) for row in np.where(near, ".", self.grid)), self.cell)

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
