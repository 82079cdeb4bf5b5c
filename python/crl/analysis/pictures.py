"""The pictures of `crl analyze`. Colours are perceptually even and told apart by the colour-blind."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crl.analysis.correlations import Estimate
from crl.analysis.probe import HELD_OUT, PLAIN, Probe
from crl.analysis.reachability import EUCLIDEAN, Maps
from crl.analysis.similarity import Split
from crl.analysis.states import Ground
from crl.files import whole
from crl.paths import GOAL, draw_ground

Floats = NDArray[np.float64]
PANEL = 2.9  # inches
NEAR_FAR = "viridis_r"  # near is bright
SIGNED = "PuOr_r"  # orange above zero
BANDS = 20
"""Colours of a map, each of as many places: what is seen is their order, which alone is compared, on any scale."""
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")  # Okabe and Ito's
DPI = 90
LOWEST = -1.0
"""Where bars of R² are cut off; the number beside each is not."""


def figure(rows: int, columns: int, width: float = PANEL, height: float = PANEL) -> tuple[Any, NDArray[Any]]:
    """A figure with panels (rows, columns) of so many inches each."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(made)
    panels = made.subplots(rows, columns, squeeze=False)
    for panel in panels.flat:
        panel.tick_params(labelsize=7)
        panel.xaxis.label.set_size(8)
        panel.yaxis.label.set_size(8)
    return made, panels


def bar(drawn: Any, painted: Any, panels: Any, label: str, **how: Any) -> Any:
    """A colour bar beside `panels`, as small in print as their axes."""
    made = drawn.colorbar(painted, ax=panels, **how)
    made.set_label(label, size=8)
    made.ax.tick_params(labelsize=7)
    return made


def draw_maps(maps: Maps, found: dict[str, list[Estimate]], shown: Sequence[int], picture: Path) -> None:
    """A goal a row: the shortest path, the Euclidean distance, and what each critic says, in `BANDS` of equal area.

    Args:
        found: the correlations of the maps.
        shown: which goals.
    """
    columns = {"shortest path": maps.path, **maps.orders}
    drawn, panels = figure(len(shown), len(columns), PANEL, 0.88 * PANEL)
    for row, number in enumerate(shown):
        for panel, (name, order) in zip(panels[row], columns.items(), strict=True):
            values = order[number]
            in_metres = name in ("shortest path", EUCLIDEAN)
            painted = draw_values(panel, maps.ground, values, NEAR_FAR, bands=True)
            beside = bar(drawn, painted, panel, "distance (m)" if in_metres else "minus critic", shrink=0.75)
            beside.set_ticks(ends := painted.norm.boundaries[:: BANDS // 4], labels=[f"{end:.3g}" for end in ends])
            beside.minorticks_off()
            panel.plot(*maps.goals[number, ::-1], marker="*", color=GOAL, markeredgecolor="white", markersize=13)
            told = "" if name == "shortest path" else f"\nSpearman {found[name][number].value:.3f}"
            panel.set_title(f"{name}{told}", fontsize=9)
    drawn.suptitle(
        "How far each place is from the goal (star): dark is far; every colour covers equal area", fontsize=11
    )
    _save(drawn, picture)


def draw_values(
    panel: Any, ground: Ground, values: Floats, colours: str, *, bands: bool = False, limit: float | None = None
) -> Any:
    """Values (P,) of the places of a ground as squares between its walls; returns what a colour bar needs.

    Colours reach from -limit to limit, or are those of the values' own range: with `bands`, each of equally many.
    """
    from matplotlib.colors import Normalize

    maze, spacing = ground.maze, ground.spacing
    low = -0.5 * maze.cell
    shape = np.rint(np.array(maze.grid.shape) * maze.cell / spacing).astype(np.intp)
    i, j = np.rint((ground.places - low) / spacing - 0.5).astype(np.intp).T
    image = np.full(shape, np.nan)
    image[i, j] = values
    shown = np.ma.masked_invalid(image)
    x, y = (low + spacing * np.arange(count + 1) for count in shape)
    norm = _equal_shares(values) if bands else Normalize(limit and -limit, limit)
    painted = panel.pcolormesh(y, x, shown, cmap=colours, norm=norm, rasterized=True)
    draw_ground(panel, maze, marks=False)
    return painted


def _equal_shares(values: Floats) -> Any:
    """Colours that change at the values' quantiles; those that fall together are moved apart by a trifle."""
    from matplotlib.colors import BoundaryNorm

    ends = np.quantile(values[np.isfinite(values)], np.linspace(0, 1, BANDS + 1))
    trifle = max(float(np.ptp(ends)), 1e-6) * 1e-9
    return BoundaryNorm(ends + trifle * np.arange(len(ends)), 256)


def draw_split(
    splits: dict[str, list[Split]], goals: Sequence[str], ground: Ground | None, places: Floats | None, picture: Path
) -> None:
    """For every subject and goal: c over the maze, if there is one, and all states in the plane of c and zeta.

    Args:
        splits: by subject, of each goal.
        goals: what they are called.
        places: (n, 2) where the goals are, m.
    """
    each = 3 if ground is not None else 2
    lines = [(label, number) for label in splits for number in range(len(goals))]
    drawn, panels = figure(len(lines), each, PANEL, 0.88 * PANEL)
    for row, (label, number) in zip(panels, lines, strict=True):
        split = splits[label][number]
        limits = {"vmin": -1.0, "vmax": 1.0}
        if ground is not None and places is not None:
            painted = draw_values(row[0], ground, split.c, SIGNED, limit=1.0)
            row[0].plot(*places[number, ::-1], marker="*", color=GOAL, markeredgecolor="white", markersize=13)
            row[0].set_title(f"{label}\ngoal {goals[number]}", fontsize=9)
        circle, plane = row[-2:]
        painted = circle.scatter(split.c, split.rest, c=split.c, s=7, cmap=SIGNED, edgecolors="grey", lw=0.15, **limits)
        angle = np.linspace(0, np.pi, 100)
        circle.plot(np.cos(angle), np.sin(angle), color="grey", linewidth=0.6, zorder=0)
        circle.set(xlabel="c, along ψ(goal)", ylabel="‖ζ‖, across", xlim=(-1.08, 1.08), ylim=(-0.05, 1.08))
        circle.plot(1, 0, marker="*", color=GOAL, markersize=13, markeredgecolor="white")
        first, second = 100 * split.explained
        plane.scatter(*split.zeta.T, c=split.c, s=7, cmap=SIGNED, edgecolors="grey", lw=0.15, **limits)
        plane.plot(0, 0, marker="*", color=GOAL, markersize=13, markeredgecolor="white")
        plane.set(xlabel=f"ζ, first axis ({first:.0f} %)", ylabel=f"ζ, second axis ({second:.0f} %)", aspect="equal")
        if ground is None:
            circle.set_title(f"{label}\ngoal {goals[number]}", fontsize=9)
        bar(drawn, painted, row[-1], "c = cos(ψ(s), ψ(goal))", shrink=0.8)
    _save(drawn, picture)


def draw_embedding(
    title: str, places: Floats, cells: NDArray[np.intp], colours: dict[str, Floats], picture: Path
) -> None:
    """Above t-SNE, below the same rows on the grid, once for each of the `colours` (N,), NaN drawn grey."""
    side = round(len(places) ** 0.5)
    drawn, panels = figure(2, len(colours), PANEL + 0.7, PANEL)
    for column, (name, values) in zip(panels.T, colours.items(), strict=True):
        known = np.isfinite(values)
        column[0].scatter(*places[~known].T, color="lightgrey", s=6)
        painted = column[0].scatter(*places[known].T, c=values[known], s=6, cmap="viridis_r")
        column[0].set(xticks=[], yticks=[], xlabel="t-SNE 1", ylabel="t-SNE 2")
        column[0].set_title(name, fontsize=9)
        grid = np.full(side * side, np.nan)
        grid[cells] = values
        column[1].set_facecolor("lightgrey")
        column[1].imshow(
            np.ma.masked_invalid(grid.reshape(side, side)).T, origin="lower", cmap="viridis_r", interpolation="nearest"
        )
        column[1].set(xticks=[], yticks=[], xlabel="the same, moved onto a grid")
        if known.any():
            bar(drawn, painted, list(column), name, shrink=0.6)
    whole = all(np.isfinite(values).all() for values in colours.values())
    drawn.suptitle(title + ("" if whole else "; grey: never"), fontsize=10)
    _save(drawn, picture)


def draw_probes(probes: Sequence[Probe], picture: Path) -> None:
    """R2 of every source of features, a panel for each way of holding out."""
    drawn, panels = figure(1, len(HELD_OUT), 5.0, 1.2 + 0.34 * len(probes) / len(HELD_OUT))
    for panel, (kind, told) in zip(panels[0], HELD_OUT.items(), strict=True):
        shown = [probe for probe in reversed(probes) if probe.held_out == kind]
        for line, probe in enumerate(shown):
            trained = "untrained" not in probe.features and probe.features != PLAIN
            low, value, high = (max(x, LOWEST) for x in (probe.r2.low, probe.r2.value, probe.r2.high))
            error = [[value - low], [high - value]]
            colour = LINES[0] if trained else "#BBBBBB"
            panel.barh(line, value, xerr=error, color=colour, height=0.7, error_kw={"linewidth": 1})
            cut = "← " if probe.r2.value < LOWEST else ""
            panel.text(1.04, line, f"{cut}{probe.r2.value:.2f}", va="center", fontsize=8)
        named = [f"{probe.features} ({probe.width})" for probe in shown] if panel is panels[0, 0] else []
        panel.set_yticks(range(len(named)), named, fontsize=8)
        panel.set(xlabel="R² of the shortest path's length, held out", xlim=(LOWEST, 1.45))
        panel.axvline(0, color="black", linewidth=0.6)
        panel.set_title(f"held out: {told}", fontsize=9)
        panel.grid(axis="x", alpha=0.3)
    _save(drawn, picture)


def draw_cosines(cosines: dict[str, Floats], goals: Sequence[str], picture: Path) -> None:
    """The matrix of every subject, states of a goal one after another, the nearest first."""
    drawn, panels = figure(1, len(cosines), 4.3, 4.0)
    for panel, (label, cosine) in zip(panels[0], cosines.items(), strict=True):
        each = len(cosine) // len(goals)
        painted = panel.imshow(cosine, cmap=SIGNED, vmin=-1, vmax=1, interpolation="nearest")
        for line in each * np.arange(1, len(goals)) - 0.5:
            panel.axhline(line, color="black", linewidth=0.5)
            panel.axvline(line, color="black", linewidth=0.5)
        middle = each * np.arange(len(goals)) + (each - 1) / 2
        panel.set_xticks(middle, goals, rotation=45, ha="right", fontsize=7)
        panel.set_yticks(middle, goals, fontsize=7)
        panel.set_title(label, fontsize=9)
        panel.set(xlabel="goal; within one, states", ylabel="goal; within one, states")
    bar(drawn, painted, list(panels[0]), "cosine of the critic's gradients", shrink=0.7)
    _save(drawn, picture)


def draw_spectra(spectra: dict[str, dict[str, tuple[Floats, float]]], picture: Path) -> None:
    """Singular values over the largest, a panel a representation, a line a source, with its effective rank.

    Args:
        spectra: by representation, then by source: singular values and their effective rank.
    """
    drawn, panels = figure(1, len(spectra), 4.4, 3.4)
    for panel, (name, lines) in zip(panels[0], spectra.items(), strict=True):
        for number, (label, (values, rank)) in enumerate(lines.items()):
            shown = values[values > 1e-6 * values[0]] / values[0]
            dashed = "--" if "untrained" in label else "-"
            colour = LINES[number // 2 % len(LINES)]
            panel.plot(np.arange(1, len(shown) + 1), shown, dashed, color=colour, label=f"{label}: {rank:.1f}")
        panel.set(xlabel="number of the singular value", ylabel="singular value over the largest", yscale="log")
        panel.set_title(name, fontsize=9)
        panel.legend(fontsize=7, title="effective rank of", title_fontsize=7)
        panel.grid(alpha=0.3)
    _save(drawn, picture)


def _save(drawn: Any, picture: Path) -> None:
    with whole(picture) as place:
        drawn.savefig(place, dpi=DPI)
