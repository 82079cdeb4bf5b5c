"""Shortest paths in a maze, exactly: taut strings, straight from one corner of a wall to the next.

Letters: G goals, P places, C corners.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import shortest_path

from crl.envs.layouts import Maze

Floats = NDArray[np.float64]
SLACK = 1e-9
"""Share of a cell by which walls are taken to be smaller, so that a path may touch them."""


def distances(maze: Maze, goals: Floats, places: Floats) -> Floats:
    """Lengths (G, P), m, of the shortest paths of a point from `places` (P, 2) to `goals` (G, 2) around the walls.

    A shortest path bends at corners of walls alone, so it is found among the straight lines between those that see
    each other (Lozano-Pérez & Wesley 1979). Infinite where there is none. No path leads between two walls that touch at
    a corner. The body has no width: one of radius r goes round each corner by up to r times the angle longer.
    """
    goals, places = np.asarray(goals, dtype=np.float64), np.asarray(places, dtype=np.float64)
    solid, bends = _obstacles(maze)
    among = np.concatenate((goals, bends))
    seen = _straight(among, among, solid)
    np.fill_diagonal(seen, np.inf)  # no edge to itself
    from_goals = shortest_path(np.where(np.isfinite(seen), seen, 0), method="D", indices=np.arange(len(goals)))
    from_bends = from_goals[:, len(goals) :]
    found = _straight(goals, places, solid)
    for bend, leg in zip(from_bends.T, _straight(bends, places, solid), strict=True):
        np.minimum(found, bend[:, None] + leg, out=found)
    return found


def _obstacles(maze: Maze) -> tuple[Floats, Floats]:
    """Rectangles (n, 4) that block the way, (low x, low y, high x, high y), and corners (C, 2) to go around, m.

    Runs of wall cells, along rows and along columns: the seam between two cells of one is inside one of the other.
    """
    wall = maze.grid == "#"
    boxes = [(i, first, i + 1, last) for i, row in enumerate(wall) for first, last in _runs(row)]
    boxes += [(first, j, last, j + 1) for j, column in enumerate(wall.T) for first, last in _runs(column)]
    around = np.stack((wall[:-1, :-1], wall[:-1, 1:], wall[1:, :-1], wall[1:, 1:]))  # of every inner corner of cells
    bends: Floats = np.argwhere(around.sum(0) == 1).astype(np.float64) + 1
    touching = (around[0] == around[3]) & (around[1] == around[2]) & (around[0] != around[1])
    shrunk = np.array(boxes, dtype=np.float64) + SLACK * np.array([1, 1, -1, -1])
    pinched = np.argwhere(touching)[:, [0, 1, 0, 1]] + 1.0 + 2 * SLACK * np.array([-1, -1, 1, 1])
    solid: Floats = (np.concatenate((shrunk, pinched)) - 0.5) * maze.cell
    return solid, (bends - 0.5) * maze.cell


def _runs(cells: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Where walls begin and end in a row of cells, ends excluded."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], cells, [False])).astype(np.int8)))
    return [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]


def _straight(a: Floats, b: Floats, boxes: Floats) -> Floats:
    """Lengths (n, m) of the straight lines from `a` (n, 2) to `b` (m, 2), infinite where one enters a box."""
    start, step = a[:, None], b[None] - a[:, None]
    length: Floats = np.sqrt((step**2).sum(-1))
    with np.errstate(divide="ignore", invalid="ignore"):
        for box in boxes:
            times = np.stack(((box[:2] - start) / step, (box[2:] - start) / step))  # (2, n, m, axis)
            enter, leave = times.min(0).max(-1), times.max(0).min(-1)
            length[(enter < leave) & (leave > 0) & (enter < 1)] = np.inf
    return length
