"""The pictures of `crl plot` and `crl report`. Colours are Okabe and Ito's, told apart by the colour-blind."""

from __future__ import annotations

import datetime
import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from crl.files import whole
from crl.probes import SUCCESS
from crl.report.curves import Curve
from crl.statistics import Floats

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Without the palette's yellow, which is not seen on white."""
LINES = ("-", "--", "-.", ":")
QUARTERS = ("nearest", "second", "third", "farthest")
SHARES = (
    *("eval/success_rate", "eval/success_rate_far", "eval/success_at_end", "train/categorical_accuracy"),
    *("explore/coverage", "explore/entropy", "explore/hopkins", "explore/nearer_than_start"),
    *SUCCESS,
)
LABELS = {
    "env_steps": "environment steps",
    "updates": "updates",
    "wall_time": "wall time (min)",
    "share": "share of the run",
    "eval/success_rate": "success rate",
    "eval/success_rate_far": "success rate, far goals",
    "eval/success_at_end": "success at the end",
    "eval/time_at_goal": "time at goal (steps)",
    "eval/final_distance": "final distance to the goal",
    "train/critic_loss": "critic loss",
    "train/actor_loss": "actor loss",
    "train/alpha": "temperature",
    "train/entropy": "entropy (nats)",
    "explore/coverage": "share of the ground visited",
    "explore/entropy": "entropy of places, over its largest",
    "explore/hopkins": "Hopkins statistic of places",
    "explore/nearer_than_start": "share nearer than the start, in ψ",
    "explore/goal_axis_rotation": "rotation of the goal axis (degrees)",
    "explore/psi_nearest": "distance to the nearest other ψ",
    "explore/psi_spread": "distance between two ψ",
    **{name: f"success, {quarter} quarter" for name, quarter in zip(SUCCESS, QUARTERS, strict=True)},
}
SCALE = {"wall_time": 1 / 60}
"""What a column is multiplied by, to be in the unit of its label."""
PANEL = (4.6, 3.1)  # inches
MOST_COLUMNS = 3
TITLE_WIDTH = 48  # characters over a panel


def label(name: str) -> str:
    """What an axis is called that shows this column."""
    return LABELS.get(name, name)


def style(number: int) -> dict[str, Any]:
    """How the n-th of several lines is drawn."""
    colour, line = number % len(COLOURS), number // len(COLOURS) % len(LINES)
    return {"color": COLOURS[colour], "linestyle": LINES[line]}


def draw_curves(
    panels: Mapping[str, Mapping[str, Curve]],
    x: str,
    ys: Sequence[str],
    names: Sequence[str],
    *,
    faint: Mapping[str, Mapping[str, Sequence[tuple[Floats, Floats]]]] | None = None,
    columns: int = MOST_COLUMNS,
) -> Any:
    """A panel for each title, a line for each name, in its interval where several runs make it.

    Args:
        panels: {title: {name: curve}}.
        x: the column along which curves are drawn.
        ys: for each panel the column it shows.
        names: all there are, in the order of their looks, so that a name looks alike in every picture.
        faint: {title: {name: curves (x, value)}}: single runs behind the line.
        columns: of panels.

    Returns:
        A matplotlib Figure.
    """
    from matplotlib.ticker import EngFormatter, MaxNLocator

    figure, axes = _figure(len(panels), columns)
    for panel, (title, curves), y in zip(axes, panels.items(), ys, strict=True):
        for name, curve in curves.items():
            look = style(names.index(name))
            for at, values in (faint or {}).get(title, {}).get(name, ()):
                panel.plot(at * SCALE.get(x, 1), values, color=look["color"], linewidth=0.6, alpha=0.45, zorder=1.5)
            _draw_curve(panel, curve, SCALE.get(x, 1), look)
        panel.set(xlabel=label(x), ylabel=label(y))
        panel.set_title("" if title == label(y) else _in_lines(title), fontsize=10)
        if x in ("env_steps", "updates"):
            panel.xaxis.set_major_formatter(EngFormatter(sep="\N{THIN SPACE}"))
            panel.xaxis.set_major_locator(MaxNLocator(6))
        if y in SHARES:
            panel.set_ylim(-0.03, 1.03)
    _legend(figure, [name for name in names if any(name in curves for curves in panels.values())], names)
    return figure


def draw_profiles(
    thresholds: Floats, profiles: Mapping[str, tuple[Floats, NDArray[Any]]], metric: str, names: Sequence[str]
) -> Any:
    """Performance profiles: for each name the share of runs above a threshold, and its interval (2, K)."""
    figure, (panel,) = _figure(1, 1)
    for name, (value, (low, high)) in profiles.items():
        look = style(names.index(name))
        panel.step(thresholds, value, where="post", **look)
        panel.fill_between(thresholds, low, high, step="post", alpha=0.18, color=look["color"], linewidth=0)
    panel.set(xlabel=f"{label(metric)} τ", ylabel="share of runs above τ", ylim=(-0.03, 1.03))
    _legend(figure, list(profiles), names)
    return figure


def draw_estimates(
    panels: Mapping[str, Mapping[str, Sequence[float | None]]],
    names: Sequence[str] = (),
    mark: float | None = None,
) -> Any:
    """Point estimates with intervals, a row for each name: panels of {name: (value, low, high)}.

    Args:
        panels: {title: {name: estimate}}, the same names in all. Where an end is None there is no interval.
        names: all there are, in the order of their looks; without them rows look alike.
        mark: where a line is drawn, such as the value of no difference; shares are then shown from 0 to 1.
    """
    shown = list(next(iter(panels.values())))
    widest = max(map(len, shown))
    figure, axes = _figure(len(panels), len(panels), (2.3, 0.5 + 0.32 * len(shown)), 0.085 * widest)
    for number, (panel, (title, estimates)) in enumerate(zip(axes, panels.items(), strict=True)):
        for row, (name, (value, low, high)) in enumerate(estimates.items()):
            colour = style(names.index(name))["color"] if names else COLOURS[0]
            if low is not None and high is not None:
                panel.barh(row, high - low, left=low, height=0.55, color=colour, alpha=0.3)
            panel.plot([value, value], [row - 0.27, row + 0.27], color=colour, linewidth=2.4, solid_capstyle="butt")
        panel.set(ylim=(len(shown) - 0.5, -0.5))
        panel.set_title(_in_lines(title), fontsize=10)
        panel.set_yticks(range(len(shown)), shown if not number else [""] * len(shown))
        panel.tick_params(axis="y", length=0)
        panel.grid(False, axis="y")
        panel.margins(x=0.12)
        if mark is not None:
            panel.axvline(mark, color="0.4", linewidth=0.9, linestyle="--")
            panel.set_xlim(-0.02, 1.02)
    return figure


def save(figure: Any, *files: Path) -> None:
    """Write the picture to files of any of matplotlib's formats; the same picture is the same bytes."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "crl"}):
        for file in files:
            metadata = {"Date": None} if file.suffix == ".svg" else {}
            if file.suffix == ".pdf":
                metadata = {"CreationDate": datetime.datetime(1970, 1, 1)}  # type: ignore[dict-item]
            with whole(file) as place:
                figure.savefig(place, dpi=150, metadata=metadata)


def save_to(figure: Any, stream: io.BytesIO) -> None:
    """Write the picture as SVG. Its layout is settled then, for pictures that follow."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "crl"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    figure.set_layout_engine("none")


def _figure(count: int, columns: int, size: tuple[float, float] = PANEL, beside: float = 0.0) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(size[0] * columns + beside, size[1] * rows + 0.45), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel in axes[:count]:
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def _in_lines(title: str) -> str:
    """A title in as many lines as it needs, lest it run into the next panel's."""
    return textwrap.fill(title, TITLE_WIDTH)


def _draw_curve(panel: Any, curve: Curve, scale: float, look: Mapping[str, Any]) -> None:
    most = int(curve.runs.max(initial=0))
    for points, runs in curve.stretches():
        at = curve.x[points] * scale
        thin = {"linewidth": 1.0, "alpha": 0.7} if runs < most else {"linewidth": 1.8}
        panel.plot(at, curve.value[points], marker="." if len(curve.x) < 40 else None, **look, **thin)
        if runs > 1:
            panel.fill_between(at, curve.low[points], curve.high[points], alpha=0.18, color=look["color"], linewidth=0)


def _legend(figure: Any, shown: Sequence[str], names: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], linewidth=1.8, label=name, **style(names.index(name))) for name in shown]
    width = figure.get_size_inches()[0]
    columns = max(1, min(len(shown), int(width / (0.6 + 0.085 * max(map(len, shown), default=1)))))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
