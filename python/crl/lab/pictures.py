"""A study in pictures: maps of c, the goal axis against ζ, curves, and a film of all three."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crl.files import whole
from crl.lab.analysis import over_time, room_shares, success
from crl.lab.rooms import World
from crl.lab.study import Floats, Ints, Record

# Of Okabe and Ito's palette: told apart by the colour-blind, and in print.
ROOMS, DOOR = ("#0072B2", "#E69F00", "#009E73", "#CC79A7"), "#8c8c8c"
TRAIL, WALL = "#D55E00", "#4D4D4D"
MARKERS = ("o", "^", "s", "D")
COLOURS = "viridis"  # no grey in it, which walls are
SHARES = (0.0, 0.1, 0.2, 0.3, 0.5, 1.0)
"""Of all episodes: when maps are shown."""
PANEL = 2.7  # inches
FRAMES_A_MOMENT = 3


def draw_maps(path: Path, records: Sequence[Record], seed: int = 0) -> None:
    """Write maps of c with the latest episode, a row a record."""
    figure, panels = _rows(records, len(records), 2.45)
    for row, record in zip(panels, records, strict=True):
        for at, moment in enumerate(_shown(record)):
            drawn = _draw_map(row[at], record.world, record.c[seed, moment], record.path[seed, moment])
            figure.colorbar(drawn, ax=row[at], shrink=0.8)
            row[at].set_title(_title(record, moment, at == 0), fontsize=10)
    figure.suptitle(
        f"{_whose(records, seed)}: c(s) = ψ(s)·ψ(g), each map on its own scale, and the latest episode from the start "
        "(square) towards the goal (star)"
    )
    _save(figure, path)


def draw_goal_axis(path: Path, records: Sequence[Record], seed: int = 0) -> None:
    """Write c against each of the first two principal components of ζ, two rows a record."""
    figure, panels = _rows(records, 2 * len(records), 2.6)
    for number, record in enumerate(records):
        c, zeta = over_time(record, seed)
        for component, row in enumerate(panels[2 * number : 2 * number + 2]):
            for at, moment in enumerate(_shown(record)):
                _draw_axis(row[at], record.world, c[moment], zeta[moment], component)
                row[at].set_title("" if component else _title(record, moment, at == 0), fontsize=10)
                row[at].label_outer(remove_inner_ticks=True)
                row[at].set_xlabel(f"ζ, {('1st', '2nd')[component]} principal component", fontsize=9)
    figure.suptitle(f"{_whose(records, seed)}: the goal axis, c, against ζ = ψ - c ψ(g)")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), markerscale=1.6)
    _save(figure, path)


def draw_curves(path: Path, records: Sequence[Record]) -> None:
    """Write success of every seed, visits of rooms and c by room, a column a record."""
    figure = _figure(5.2 * len(records), 8.4)
    panels = figure.subplots(3, len(records), squeeze=False, sharex="col")
    for column, record in zip(panels.T, records, strict=True):
        world, average = record.world, success(record)
        every = max(1, average.shape[1] // 2000)
        episodes = np.arange(average.shape[1])[::every]
        for seed, curve in enumerate(average[:, ::every]):
            column[0].plot(episodes, curve, color="#56B4E9", linewidth=0.7, label="" if seed else "a seed")
        column[0].plot(episodes, average.mean(0)[::every], color="black", linewidth=2, label="mean")
        column[0].set(title=f"{record.settings.init} initialisation", ylabel="success (moving average)", ylim=(0, 1.02))
        shares = room_shares(record)
        for room, name in enumerate(world.rooms):
            _band(column[1], record.episode[1:], shares[:, 1:, room], ROOMS[room], name)
            _band(column[2], record.episode, record.c[..., world.room == room].mean(-1), ROOMS[room], name)
        _band(column[2], record.episode, record.c[..., world.start], "black", "start")
        column[1].set(ylabel="share of steps", ylim=(0, 1.02))
        column[2].set(ylabel="mean c of a room's cells", xlabel="episodes", ylim=(-1.02, 1.02))
        for panel in column:
            panel.grid(alpha=0.3)
            panel.legend(fontsize=8)
    seeds = f"{len(records[0].c)} seeds" if len(records[0].c) > 1 else "one seed"
    figure.suptitle(f"{records[0].world.name}, {seeds}; lines are means, bands the middle half of the seeds")
    _save(figure, path)


def film(record: Record, seed: int = 0) -> Iterator[NDArray[np.uint8]]:
    """Frames (H, W, 3) of one seed, `FRAMES_A_MOMENT` a moment: the map, the goal axis against ζ, the curves so far."""
    world, shares = record.world, room_shares(record)[seed]
    average = np.append(0, success(record)[seed])[record.episode]
    c, zeta = over_time(record, seed)
    figure = _figure(13.5, 4.5)
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.15, 1, 1.25))
    curves = [right.plot([], [], color="black", linewidth=2.5, label="success")[0]]
    for room, name in enumerate(world.rooms):
        curves += right.plot([], [], color=ROOMS[room], linewidth=1.5, label=f"visits: {name}")
    right.set(xlim=(0, record.episode[-1]), ylim=(0, 1.02), xlabel="episodes")
    right.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=8)
    right.grid(alpha=0.3)
    figure.suptitle(f"{record.settings}, seed {record.settings.first_seed + seed}")
    bar = figure.colorbar(_draw_map(left, world, c[0], record.path[seed, 0]), ax=left, shrink=0.8)
    bar.set_label("c(s) = ψ(s)·ψ(g)")
    for moment, played in enumerate(record.episode):
        for panel in (left, middle):
            panel.clear()
        bar.update_normal(_draw_map(left, world, c[moment], record.path[seed, moment]))
        left.set_title(f"{played:,} episodes")
        _draw_axis(middle, world, c[moment], zeta[moment])
        for curve, values in zip(curves, [average, *shares.T], strict=True):
            curve.set_data(record.episode[: moment + 1], values[: moment + 1])
        figure.canvas.draw()
        figure.set_layout_engine("none")  # found with the first frame; to find it takes longer than to draw
        frame = np.asarray(figure.canvas.buffer_rgba())[..., :3]
        even = np.ascontiguousarray(frame[: len(frame) // 2 * 2, : frame.shape[1] // 2 * 2])
        for _ in range(FRAMES_A_MOMENT):
            yield even


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: Path) -> None:
    with whole(path) as place:
        figure.savefig(place, dpi=110)


def _draw_map(panel: Any, world: World, c: Floats, path: NDArray[np.int16]) -> Any:
    """c in the cells, (S,), and an episode's states, (T + 1,), as a line that does not hide where it turned back."""
    image = np.full(world.grid.shape, np.nan, np.float32)
    image[tuple(world.cells.T)] = c
    panel.set_facecolor(WALL)
    middle = float(np.nanmean(image))
    spread = max(float(np.nanmax(image) - np.nanmin(image)), 0.01)
    low, high = (np.nanmin(image), np.nanmax(image)) if spread > 0.01 else (middle - 0.005, min(middle + 0.005, 1))
    drawn = panel.imshow(image, cmap=COLOURS, vmin=low, vmax=high)
    turn = 2.4 * np.arange(len(path))
    places = world.cells[path] + 0.18 * np.stack((np.sin(turn), np.cos(turn)), 1)
    panel.plot(places[:, 1], places[:, 0], color="white", linewidth=2.0, alpha=0.8)
    panel.plot(places[:, 1], places[:, 0], color=TRAIL, linewidth=1.0)
    for state, marker, size in ((world.start, "s", 6), (world.goal, "*", 11)):
        i, j = world.cells[state]
        panel.plot(j, i, marker=marker, markersize=size, color="white", markeredgecolor="black", linestyle="none")
    panel.set(xticks=[], yticks=[])
    return drawn


def _draw_axis(panel: Any, world: World, c: Floats, zeta: Floats, component: int = 0) -> None:
    """c (S,) against one of ζ's principal components, (S, 2): all within the unit circle."""
    circle = np.linspace(0, 2 * np.pi, 200)
    panel.plot(np.cos(circle), np.sin(circle), color="#c4c4c9", linewidth=1)
    for room in range(-1, len(world.rooms)):
        inside = np.flatnonzero(world.room == room)
        style = {"color": DOOR, "marker": "."} if room < 0 else {"color": ROOMS[room], "marker": MARKERS[room]}
        name = "between rooms" if room < 0 else world.rooms[room]
        if len(inside):
            panel.plot(zeta[inside, component], c[inside], linestyle="none", markersize=3.5, label=name, **style)
    panel.plot(0, 1, marker="*", markersize=11, color="white", markeredgecolor="black", linestyle="none", label="ψ(g)")
    panel.set(aspect="equal", xlim=(-1.08, 1.08), ylim=(-1.08, 1.12), xlabel="ζ, 1st principal component", ylabel="c")


def _band(panel: Any, x: Ints, values: Floats, colour: str, label: str) -> None:
    """The mean of (K, n) in a band of the middle half."""
    panel.plot(x, values.mean(0), color=colour, linewidth=1.8, label=label)
    panel.fill_between(x, *np.quantile(values, (0.25, 0.75), axis=0), color=colour, alpha=0.2, linewidth=0)


def _rows(records: Sequence[Record], rows: int, height: float) -> tuple[Any, Any]:
    """A figure and its panels (rows, moments shown); rows are `height` inches."""
    columns = len(_shown(records[0]))
    figure = _figure(PANEL * columns, height * rows + 0.6)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _shown(record: Record) -> Ints:
    """Moments that pictures show."""
    return np.unique(np.rint(np.array(SHARES) * (record.moments - 1)).astype(np.int64))


def _title(record: Record, moment: int, first: bool) -> str:
    played = f"{record.episode[moment]:,} episodes"
    return f"{record.settings.init}: {played}" if first else played


def _whose(records: Sequence[Record], seed: int) -> str:
    return f"{records[0].world.name}, seed {records[0].settings.first_seed + seed}"
