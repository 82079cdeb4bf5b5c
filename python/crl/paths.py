"""Mazes from above: where episodes went, and where a run has been."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crl.envs.layouts import Maze
from crl.files import whole
from crl.recording import Recording

# Of Okabe and Ito's palette: told apart by the colour-blind, and in print.
REACHED, MISSED, GOAL = "#0072B2", "#D55E00", "#CC79A7"
WALL = "#4D4D4D"
SQUARES_PER_CELL = 8
PANEL = 5.0  # inches


def draw_paths(recording: Recording, picture: Path, *, visited: NDArray[np.float32] | None = None) -> None:
    """Write the achieved goals of all episodes as paths, coloured by whether they reached their goal.

    Args:
        recording: of a task whose achieved goal is a place: its first two entries are x and y, m. Worlds that have
            a maze each get a panel each.
        picture: the file, png, pdf or svg.
        visited: (rows, G) achieved goals drawn from a buffer: a further panel shows how often it holds which place.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    worlds, mazes = range(len(recording.length)), recording.mazes
    shared = len(mazes) < 2
    grounds = [(mazes[0] if mazes else None, worlds)] if shared else [(mazes[world], [world]) for world in worlds]
    columns = int(np.ceil(np.sqrt(len(grounds)))) if visited is None else 2
    rows = -(-len(grounds) // columns)
    figure = Figure(figsize=(PANEL * columns + 0.8 * (visited is not None), PANEL * rows + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel, (maze, shown) in zip(panels, grounds, strict=False):
        draw_ground(panel, maze)
        _draw_trails(panel, recording, shown, maze is not None)
    for spare in panels[len(grounds) + (visited is not None) :]:
        spare.remove()
    if visited is not None:
        draw_ground(panels[-1], grounds[0][0])
        _draw_density(figure, panels[-1], visited, grounds[0][0])
    reached = int(recording.reached[-1].sum())
    figure.suptitle(f"{recording.task.spec.name}: {reached} of {len(worlds)} episodes reached their goal")
    known = {
        label: handle for panel in figure.axes for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    legend = figure.legend(list(known.values()), list(known), loc="outside lower center", ncols=5 if columns > 1 else 3)
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1.0)
    with whole(picture) as place:
        figure.savefig(place, dpi=120 if shared else 70)


def draw_ground(panel: Any, maze: Maze | None, *, marks: bool = True) -> None:
    """Walls and, with `marks`, start and goals, lying as the maze's text does: x downwards, y to the right."""
    from matplotlib.patches import Rectangle

    panel.set_aspect("equal")
    if maze is None:
        panel.set(xlabel="x (m)", ylabel="y (m)")
        return
    cell, (rows, columns) = maze.cell, maze.grid.shape
    panel.set(xlabel="y (m)", ylabel="x (m)", xlim=(0, (columns - 1) * cell), ylim=((rows - 1) * cell, 0))
    panel.set(xticks=cell * np.arange(columns), yticks=cell * np.arange(rows))
    for top, bottom, left, right in maze.walls():
        corner = ((left - 0.5) * cell, (top - 0.5) * cell)
        size = ((right - left + 1) * cell, (bottom - top + 1) * cell)
        panel.add_patch(Rectangle(corner, *size, color=WALL, linewidth=0))
    if not marks:
        return
    start, goals = maze.centres("R"), maze.centres("G")
    far = maze.is_far(goals)
    far = np.zeros(len(goals), dtype=np.bool_) if far is None else far
    ring: dict[str, Any] = {"marker": "o", "markerfacecolor": "none", "markeredgecolor": GOAL, "markersize": 9}
    for places, label, style in (
        (start, "start", {"marker": "s", "color": "black", "markersize": 7}),
        (goals[~far], "goal", {**ring, "markeredgewidth": 1}),
        (goals[far], "far goal", {**ring, "markeredgewidth": 3}),
    ):
        if len(places):
            panel.plot(places[:, 1], places[:, 0], label=label, linestyle="none", zorder=4, **style)


def _draw_trails(panel: Any, recording: Recording, worlds: Sequence[int], in_maze: bool) -> None:
    across, down = (1, 0) if in_maze else (0, 1)
    alpha = max(0.25, min(0.9, 8 / len(recording.length)))
    for world in worlds:
        length = recording.length[world]
        path = recording.achieved[: length + 1, world]
        reached = bool(recording.reached[-1, world])
        colour, label = (REACHED, "reached its goal") if reached else (MISSED, "did not")
        panel.plot(path[:, across], path[:, down], color=colour, linewidth=1.0, alpha=alpha, label=label, zorder=2)
        panel.plot(*path[-1, [across, down]], marker="o" if reached else "x", color=colour, markersize=4, zorder=3)
        if len(worlds) == 1 or not in_maze:
            goal = recording.goal[length, world, [across, down]]
            panel.plot(*goal, marker="*", color=GOAL, markersize=12, label="its goal", linestyle="none", zorder=4)


def _draw_density(figure: Any, panel: Any, visited: NDArray[np.float32], maze: Maze | None) -> None:
    from matplotlib.colors import LogNorm

    low, high = visited[:, :2].min(axis=0), visited[:, :2].max(axis=0)
    width = maze.cell / SQUARES_PER_CELL if maze is not None else float(np.max(high - low)) / 60
    edges = [width * np.arange(np.floor(a / width), np.ceil(b / width) + 1) for a, b in zip(low, high, strict=True)]
    count, x, y = np.histogram2d(visited[:, 0], visited[:, 1], bins=edges)
    share = np.ma.masked_equal(100 * count / len(visited), 0)
    across, down, share = (y, x, share) if maze is not None else (x, y, share.T)
    drawn = panel.pcolormesh(across, down, share, norm=LogNorm(), cmap="viridis", rasterized=True)
    figure.colorbar(drawn, ax=panel, shrink=0.8, label=f"% of the buffer's rows in {width:.2g} m squares")
    panel.set_title("visited while learning")
