"""The page of a report: one HTML file that needs nothing else, not even a network. All text is escaped."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

from crl.report.tables import Table

_PAGE = Template(
    """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>
body { font: 15px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; color: #1a1a1a; background: #fff;
  max-width: 74rem; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem;
  border-bottom: 1px solid #bbb; padding-bottom: .2rem; }
p { max-width: 60rem; margin: .5rem 0; } .quiet { color: #555; font-size: .9em; }
nav a { margin-right: 1.1em; } a { color: #00588a; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; margin: .6rem 0; }
th, td { padding: .22rem .5rem; text-align: left; border-bottom: 1px solid #ddd; vertical-align: top; }
th { border-bottom: 1.5px solid #555; font-weight: 600; vertical-align: bottom; }
td.number, th.number { text-align: right; } td.number { white-space: nowrap; }
td.number span { color: #555; display: block; font-size: .85em; }
tr.other td { color: #444; font-style: italic; background: #f6f6f6; }
figure { margin: 1rem 0 1.6rem; } figure img, figure video { max-width: 100%; height: auto; }
figcaption { font-size: .9rem; color: #333; max-width: 60rem; }
pre { font: .8rem/1.4 ui-monospace, "DejaVu Sans Mono", monospace; background: #f3f3f3; padding: .45rem .6rem;
  margin: .35rem 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.side { display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: flex-start; }
.side figure { max-width: 34rem; margin-top: .5rem; }
@media print { body { max-width: none; padding: 0; font-size: 11px; } nav { display: none; }
  .scroll { overflow: visible; } table { font-size: 7.5px; } th, td { padding: 1px 3px; }
  figure, table, tr { break-inside: avoid; } details > * { display: block; } a { color: inherit; } }
</style>
</head>
<body>
<h1>$title</h1>
<p class="quiet">$subtitle</p>
<nav>$links</nav>
$body
</body>
</html>
"""
)

HEADINGS = {
    "env_steps": "env steps",
    "env_steps_per_second": "steps/s",
    "updates_per_second": "updates/s",
    "gflop_per_update": "GFLOP/update",
    "pflop": "PFLOP",
}
"""What columns are called that have longer names in files."""


def page(title: str, subtitle: str, sections: Sequence[tuple[str, str]]) -> str:
    """The whole file, of sections (heading, HTML)."""
    links = " ".join(f'<a href="#s{n}">{escape(heading)}</a>' for n, (heading, _) in enumerate(sections))
    body = "\n".join(
        f'<section id="s{n}"><h2>{escape(heading)}</h2>\n{content}</section>'
        for n, (heading, content) in enumerate(sections)
    )
    return _PAGE.substitute(title=escape(title), subtitle=escape(subtitle), links=links, body=body)


def escape(text: Any) -> str:
    """Text as HTML that shows it."""
    return html.escape(str(text), quote=True)


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{kind}">{escape(text)}</p>\n' if kind else f"<p>{escape(text)}</p>\n"


def picture(data: bytes, kind: str, caption: str, command: str, files: Sequence[str] = ()) -> str:
    """A figure with the image or video in it, what it shows, its files beside the page, and what makes it.

    Args:
        data: of the file.
        kind: its MIME type.
        caption: what is seen.
        command: makes the figure again.
        files: names of files beside the page.
    """
    source = f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
    shown = (
        f'<video controls muted loop src="{source}"></video>'
        if kind.startswith("video/")
        else f'<img alt="{escape(caption)}" src="{source}">'
    )
    beside = " · ".join(f'<a href="{escape(name)}">{escape(name)}</a>' for name in files)
    return (
        f"<figure>{shown}\n<figcaption>{escape(caption)}"
        + (f" Files: {beside}." if beside else "")
        + f"<pre>{escape(command)}</pre></figcaption></figure>\n"
    )


def side_by_side(figures: Sequence[str]) -> str:
    """Figures in rows, as many in one as fit."""
    return f'<div class="side">{"".join(figures)}</div>\n'


def folded(summary: str, content: str) -> str:
    """What is shown when asked for."""
    return f"<details><summary>{escape(summary)}</summary>\n{content}</details>\n"


def table(rows: Table, *, other: Sequence[bool] = ()) -> str:
    """A table; numbers to three figures. A column followed by its ` low` and ` high` is one cell, value and interval.

    Args:
        rows: what it says.
        other: rows that are set apart, as they are not of the runs.
    """
    columns = list(rows.columns)
    ends = {name for name in columns if f"{name} low" in columns}
    shown = [name for name in columns if not any(name in (f"{end} low", f"{end} high") for end in ends)]
    numeric = {
        name: all(_is_number(row[columns.index(name)]) or row[columns.index(name)] is None for row in rows.rows)
        for name in shown
    }
    head = "".join(f"<th{_kind(numeric[name])}>{escape(_heading(name))}</th>" for name in shown)
    lines = []
    for number, row in enumerate(rows.rows):
        cells = []
        for name in shown:
            at = columns.index(name)
            text = escape(_measured(row[at]) if name in ends else _cell(row[at]))
            if name in ends and row[at + 1] is not None:
                text += f" <span>[{_measured(row[at + 1])}, {_measured(row[at + 2])}]</span>"
            cells.append(f"<td{_kind(numeric[name])}>{text}</td>")
        mark = ' class="other"' if other and other[number] else ""
        lines.append(f"<tr{mark}>{''.join(cells)}</tr>")
    joined = "\n".join(lines)
    return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>{joined}</tbody>\n</table></div>\n'


def image_type(path: Path) -> str:
    """The MIME type of a picture or video by its name."""
    return {".png": "image/png", ".svg": "image/svg+xml", ".mp4": "video/mp4"}[path.suffix]


def _heading(name: str) -> str:
    return HEADINGS.get(name) or (name.rpartition("/")[2].replace("_", " ") if name.startswith("eval/") else name)


def _kind(numeric: bool) -> str:
    return ' class="number"' if numeric else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _measured(value: Any) -> str:
    """A number to three figures, zeros at its end included."""
    return f"{value:#.3g}".rstrip(".") if _is_number(value) and abs(value) < 1000 else _cell(value)


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "\N{EN DASH}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)
