"""Mazes from above: where episodes went, and where a run has been."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crl.envs.layouts import Maze
from crl.recording import Recording

# Of Okabe and Ito's palette: told apart by the colour-blind, and in print.
REACHED, MISSED, GOAL = "#0072B2", "#D55E00", "#CC79A7"
WALL = "#4D4D4D"
BINS_PER_CELL = 8
PANEL = 5.0  # inches


def draw_paths(recording: Recording, picture: Path, *, visited: NDArray[np.float32] | None = None) -> None:
    """Write the achieved goals of all episodes as paths, coloured by whether they reached their goal.

    Args:
        recording: of a task whose achieved goal is a place: its first two entries are x and y, m.
        picture: the file, png, pdf or svg.
        visited: (rows, G) achieved goals drawn from a buffer: a second panel shows how often it holds which place.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    maze: Maze | None = getattr(recording.task, "maze", None)
    panels = 1 if visited is None else 2
    figure = Figure(figsize=(PANEL * panels + 0.8 * (panels > 1), PANEL + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for panel in axes:
        _ground(panel, recording, maze)
    _trails(axes[0], recording)
    reached = int(recording.reached[-1].sum())
    figure.suptitle(recording.task.spec.name)
    axes[0].set_title(f"{reached} of {len(recording.length)} episodes reached their goal")
    if visited is not None:
        low, high = visited[:, :2].min(axis=0), visited[:, :2].max(axis=0)
        width = maze.cell / BINS_PER_CELL if maze is not None else float(np.max(high - low)) / 60
        bins = [width * np.arange(np.floor(a / width), np.ceil(b / width) + 1) for a, b in zip(low, high, strict=True)]
        count, x, y = np.histogram2d(visited[:, 0], visited[:, 1], bins=bins)
        share = np.ma.masked_equal(100 * count / len(visited), 0)
        across, down, share = (y, x, share) if maze is not None else (x, y, share.T)
        drawn = axes[1].pcolormesh(across, down, share, norm=LogNorm(), cmap="viridis", rasterized=True)
        figure.colorbar(drawn, ax=axes[1], shrink=0.8, label=f"% of the buffer's rows in {width:.2g} m squares")
        axes[1].set_title("visited while learning")
    handles, labels = axes[0].get_legend_handles_labels()
    legend = figure.legend(
        *zip(*((handle, label) for label, handle in dict(zip(labels, handles, strict=True)).items()), strict=True),
        loc="outside lower center",
        ncols=5,
    )
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1.0)
    figure.savefig(picture, dpi=120)


def _ground(panel: Any, recording: Recording, maze: Maze | None) -> None:
    """Walls, start and goals, lying as the maze's text does: x downwards, y to the right."""
    from matplotlib.patches import Rectangle

    panel.set_aspect("equal")
    if maze is None:
        panel.set(xlabel="x (m)", ylabel="y (m)")
        return
    cell, (rows, columns) = maze.cell, maze.grid.shape
    panel.set(xlabel="y (m)", ylabel="x (m)")
    panel.set_xlim(0, (columns - 1) * cell)
    panel.set_ylim((rows - 1) * cell, 0)
    panel.set(xticks=cell * np.arange(columns), yticks=cell * np.arange(rows))
    for top, bottom, left, right in maze.walls():
        corner = ((left - 0.5) * cell, (top - 0.5) * cell)
        size = ((right - left + 1) * cell, (bottom - top + 1) * cell)
        panel.add_patch(Rectangle(corner, *size, color=WALL, linewidth=0))
    start, goals = maze.centres("R"), maze.centres("G")
    only_far = "_eval" in recording.task.spec.name
    far = goals if only_far else maze.far_goals().centres("G")
    near = np.array([goal for goal in goals.tolist() if goal not in far.tolist()]).reshape(-1, 2)
    style: dict[str, Any] = {"linestyle": "none", "zorder": 4}
    panel.plot(start[:, 1], start[:, 0], marker="s", color="black", markersize=7, label="start", **style)
    ring = {"markerfacecolor": "none", "markeredgecolor": GOAL, "markersize": 9, **style}
    if len(near):
        panel.plot(near[:, 1], near[:, 0], marker="o", label="goal", **ring)
    panel.plot(far[:, 1], far[:, 0], marker="o", markeredgewidth=3, label="far goal", **ring)


def _trails(panel: Any, recording: Recording) -> None:
    across, down = (1, 0) if getattr(recording.task, "maze", None) is not None else (0, 1)
    alpha = max(0.25, min(0.9, 8 / len(recording.length)))
    for world, length in enumerate(recording.length):
        path = recording.achieved[: length + 1, world]
        reached = bool(recording.reached[-1, world])
        colour, label = (REACHED, "reached its goal") if reached else (MISSED, "did not")
        panel.plot(path[:, across], path[:, down], color=colour, linewidth=1.0, alpha=alpha, label=label, zorder=2)
        panel.plot(*path[-1, [across, down]], marker="o" if reached else "x", color=colour, markersize=4, zorder=3)
        if across == 0:
            goal = recording.goal[length, world]
            panel.plot(goal[0], goal[1], marker="o", markerfacecolor="none", color=GOAL, label="goal", linestyle="none")
