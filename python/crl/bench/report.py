"""What is shown of the figures: tables, files, a picture."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from crl.bench.measure import Result
from crl.console import print_table
from crl.files import whole, write_text

MARKERS = "osD^vPX*<>"
"""Of the lines of a picture: with their colours, enough to tell ten apart in black and white."""


def show(console: Console, results: Sequence[Result]) -> None:
    """Print a table for each benchmark, workload and number of rows, as wide as it needs to be."""
    for group in _groups(results):
        console.print(f"\n{_title(group)}", style="bold")
        if others := _others(group):
            console.print(f"in brackets: as a multiple of {', of '.join(others)}")
        print_table(console, table(group))


def _groups(results: Sequence[Result]) -> list[list[Result]]:
    """Results by benchmark, workload and number of rows."""
    groups: dict[tuple[str, str, int], list[Result]] = {}
    for result in results:
        groups.setdefault((result.benchmark, result.workload, result.rows), []).append(result)
    return list(groups.values())


def _title(group: Sequence[Result]) -> str:
    units = ", ".join(dict.fromkeys(result.unit for result in group))
    return f"{group[0].benchmark}, {group[0].workload}, {group[0].rows:,} rows: {units}"


def _others(group: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(other for result in group for other in result.ratios))


def _lines(group: Sequence[Result]) -> list[list[str]]:
    """Results of one benchmark, workload and number of rows: who down, cases across."""
    cases = list(dict.fromkeys(result.case for result in group))
    with_unit = len({result.unit for result in group}) > 1
    found = {(result.who, result.case): result for result in group}
    everybody = dict.fromkeys(result.who for result in group)
    return [
        ["", *cases],
        *([who, *(_cell(found.get((who, case)), with_unit) for case in cases)] for who in everybody),
    ]


def table(group: Sequence[Result]) -> Table:
    """Results of one benchmark, workload and number of rows: who down, cases across."""
    head, *lines = _lines(group)
    shown = Table(box=None, pad_edge=False)
    for number, case in enumerate(head):
        shown.add_column(case, justify="right" if number else "left", no_wrap=True)
    for line in lines:
        shown.add_row(*line)
    return shown


def _cell(result: Result | None, with_unit: bool) -> str:
    if result is None:
        return ""
    text = f"{result.value:,.3g}" if result.value < 1000 else f"{result.value:,.0f}"
    text += f" {result.unit}" if with_unit else ""
    ratios = ", ".join(f"{ratio:.2f}" for ratio in result.ratios.values())
    return f"{text} ({ratios})" if ratios else text


def measured(command: str) -> str:
    """The line behind which `command` writes."""
    return f"<!-- measured: what follows is written by `{command} --markdown` -->"


def write_markdown(path: Path, machine: dict[str, str], results: Sequence[Result], command: str) -> None:
    """Machine and tables of `command`, after what a file that is there says before them."""
    mark = measured(command)
    lines = [mark, "", *(f"- {key}: {value}" for key, value in machine.items())]
    for group in _groups(results):
        lines += ["", f"## {_title(group)}", ""]
        if others := _others(group):
            lines += [f"In brackets: as a multiple of {', of '.join(others)}.", ""]
        head, *body = ["| " + " | ".join(cells) + " |" for cells in _lines(group)]
        lines += [head, "|---" * head.count(" | ") + "|---|", *body]
    before = path.read_text(encoding="utf-8").partition(mark)[0] if path.exists() else ""
    write_text(path, before + "\n".join(lines) + "\n")


def write_json(path: Path, machine: dict[str, str], results: Sequence[Result]) -> None:
    """Machine and figures."""
    content = {"machine": machine, "results": [asdict(result) for result in results]}
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def write_csv(path: Path, results: Sequence[Result]) -> None:
    """A row a figure."""
    rows: list[dict[str, Any]] = []
    for result in results:
        row = asdict(result)
        ratios = row.pop("ratios")
        rows.append({**row, **{f"times {other}": ratio for other, ratio in ratios.items()}})
    names = list(dict.fromkeys(name for row in rows for name in row))
    with whole(path) as place, place.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: f"{x:.6g}" if isinstance(x, float) else x for name, x in row.items()})


def draw(path: Path, results: Sequence[Result], benchmark: str, axis: str) -> None:
    """A panel for each workload and number of rows: the speeds of one benchmark over its cases, a line each.

    Args:
        axis: what a case says before its number: "batch" or "depth".
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from crl.report.figures import style

    speeds = [result for result in results if result.benchmark == benchmark]
    panels = list(dict.fromkeys((result.workload, result.rows) for result in speeds))
    everybody = list(dict.fromkeys(result.who for result in speeds))
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5 * columns, 4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    lines = {}
    for panel, (workload, count) in zip(axes, panels, strict=False):
        for number, who in enumerate(everybody):
            mine = [x for x in speeds if (x.workload, x.rows, x.who) == (workload, count, who)]
            sizes = [int(x.case.removeprefix(f"{axis} ")) for x in mine]
            if mine:
                values = [x.value for x in mine]
                look = style(number)
                lines[who] = panel.plot(sizes, values, marker=MARKERS[number % len(MARKERS)], label=who, **look)[0]
                low, high = [x.low for x in mine], [x.high for x in mine]
                panel.fill_between(sizes, low, high, color=look["color"], alpha=0.18, linewidth=0)
        panel.set(
            title=f"{workload}, {count:,} rows", xlabel="batch size" if axis == "batch" else axis, ylabel=speeds[0].unit
        )
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.grid(alpha=0.3)
    for unused in axes[len(panels) :]:
        unused.remove()
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=3)
    with whole(path) as place:
        figure.savefig(place, dpi=120)
