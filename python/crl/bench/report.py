"""What is shown of the figures: tables, files, a picture."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from crl.bench.measure import Result


def show(console: Console, results: Sequence[Result]) -> None:
    """Print a table for each benchmark, workload and number of rows, as wide as it needs to be."""
    groups: dict[tuple[str, str, int], list[Result]] = {}
    for result in results:
        groups.setdefault((result.benchmark, result.workload, result.rows), []).append(result)
    for group in groups.values():
        first = group[0]
        units = list(dict.fromkeys(result.unit for result in group))
        others = list(dict.fromkeys(other for result in group for other in result.ratios))
        console.print(f"\n{first.benchmark}, {first.workload}, {first.rows:,} rows: {', '.join(units)}", style="bold")
        if others:
            console.print(f"in brackets: as a multiple of {', of '.join(others)}")
        shown = table(group)
        needed = Measurement.get(console, console.options.update(width=1000), shown).maximum
        console.width = max(console.width, needed)  # A table that is cut says nothing.
        console.print(shown)


def table(results: Sequence[Result]) -> Table:
    """Results of one benchmark, workload and number of rows: who down, cases across."""
    cases = list(dict.fromkeys(result.case for result in results))
    with_unit = len({result.unit for result in results}) > 1
    shown = Table(box=None, pad_edge=False)
    shown.add_column(no_wrap=True)
    for case in cases:
        shown.add_column(case, justify="right", no_wrap=True)
    found = {(result.who, result.case): result for result in results}
    for who in dict.fromkeys(result.who for result in results):
        shown.add_row(who, *(_cell(found.get((who, case)), with_unit) for case in cases))
    return shown


def _cell(result: Result | None, with_unit: bool) -> str:
    if result is None:
        return ""
    text = f"{result.value:,.3g}" if result.value < 1000 else f"{result.value:,.0f}"
    text += f" {result.unit}" if with_unit else ""
    ratios = ", ".join(f"{ratio:.2f}" for ratio in result.ratios.values())
    return f"{text} ({ratios})" if ratios else text


def write_json(path: Path, machine: dict[str, str], results: Sequence[Result]) -> None:
    """Machine and figures."""
    content = {"machine": machine, "results": [asdict(result) for result in results]}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_csv(path: Path, results: Sequence[Result]) -> None:
    """A row a figure."""
    rows: list[dict[str, Any]] = []
    for result in results:
        row = asdict(result)
        ratios = row.pop("ratios")
        rows.append({**row, **{f"times {other}": ratio for other, ratio in ratios.items()}})
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: f"{x:.6g}" if isinstance(x, float) else x for name, x in row.items()})


def draw(path: Path, results: Sequence[Result]) -> None:
    """A panel for each workload and number of rows: sampled rows a second over the batch size, a line each."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sampled = [result for result in results if result.benchmark == "sample"]
    panels = list(dict.fromkeys((result.workload, result.rows) for result in sampled))
    everybody = list(dict.fromkeys(result.who for result in sampled))
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5 * columns, 4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    lines = {}
    for panel, (workload, count) in zip(axes, panels, strict=False):
        for number, who in enumerate(everybody):
            mine = [x for x in sampled if (x.workload, x.rows, x.who) == (workload, count, who)]
            sizes = [int(x.case.removeprefix("batch ")) for x in mine]
            if mine:
                values = [x.value for x in mine]
                lines[who] = panel.plot(sizes, values, marker="o", color=f"C{number}", label=who)[0]
                panel.fill_between(sizes, [x.low for x in mine], [x.high for x in mine], color=f"C{number}", alpha=0.2)
        panel.set(title=f"{workload}, {count:,} rows", xlabel="batch size", ylabel=sampled[0].unit)
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.grid(alpha=0.3)
    for unused in axes[len(panels) :]:
        unused.remove()
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=3)
    figure.savefig(path, dpi=120)
