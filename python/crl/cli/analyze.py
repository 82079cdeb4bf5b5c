"""`crl analyze`: what the networks of runs have learnt of their world."""

import json
import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crl.cli import need_extra
from crl.errors import ConfigError, nearest
from crl.files import write_text

if TYPE_CHECKING:
    from crl.analysis.study import Section
    from crl.analysis.subject import Subject

ANALYSES = ("maps", "similarity", "tsne", "probe", "gradients", "spectra")


def _only(ctx: click.Context, parameter: click.Parameter, value: str | None) -> list[str]:
    chosen = [name.strip() for name in value.split(",")] if value else list(ANALYSES)
    for name in chosen:
        if name not in ANALYSES:
            raise ConfigError(f"--only: expected some of {','.join(ANALYSES)}, got {name!r}.{nearest(name, ANALYSES)}")
    return chosen


def _places(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> list[list[float]]:
    places = []
    for value in values:
        try:
            x, y = (float(part) for part in value.split(","))
        except ValueError:
            raise ConfigError(f"--goal: expected x and y in m, such as 12,4, got {value!r}.") from None
        places.append([x, y])
    return places


@click.command("analyze")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--output", default="analysis", show_default=True, metavar="DIR", help="Directory for what is found.")
@click.option("--only", metavar="NAME,...", callback=_only, help=f"Some of {', '.join(ANALYSES)}. [all]")
@click.option(
    "--goal",
    "goals",
    multiple=True,
    metavar="X,Y",
    callback=_places,
    help="A goal in a maze, x and y in m; may be repeated. [centres of its free cells]",
)
@click.option("--env", metavar="NAME", help="World to look at. [the one the runs trained in]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of episodes and all that is drawn.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
def command(
    runs: tuple[str, ...],
    output: str,
    only: list[str],
    goals: list[list[float]],
    env: str | None,
    seed: int,
    device: str,
) -> None:
    """Look into the newest networks of the runs in directories RUN, side by side.

    Writes to DIR: index.html, which has everything and needs nothing else; the pictures; all numbers as CSV and
    numbers.json. Runs may differ in all but their world: depths, seeds, algorithms.

    \b
    maps        the critic's values over a maze, beside shortest path and Euclidean distance
    similarity  psi of all places along psi of a goal and across, principal axes
    tsne        phi(s, a) along episodes, as t-SNE and on a grid
    probe       the shortest path from features by a line, trained against untrained
    gradients   cosines of the critic's gradients across goals and states
    spectra     singular values and effective rank of phi and psi

    Example: crl analyze runs/depth4 runs/depth16 --output looks --only maps,probe
    """
    need_extra("train", "torch", "mujoco", "gymnasium", "safetensors", "yaml")
    need_extra("plot", "matplotlib", "scipy", "sklearn")
    import numpy as np

    from crl import envs
    from crl.analysis import study
    from crl.evaluation import world_seed

    subjects, name, options = _load(runs, device, env)
    directory = Path(output)
    directory.mkdir(parents=True, exist_ok=True)
    worlds = envs.make(
        name, study.WORLDS, seed=world_seed(seed), num_threads=subjects[0].settings.num_threads, **options
    )
    sections, notes, numbers = [], [], {}
    try:
        looked = study.Study(subjects, worlds, np.array(goals) if goals else None, directory, seed)
        for chosen in only:
            try:
                section = study.ANALYSES[chosen](looked)
            except study.Skipped as reason:
                notes.append(f"{chosen} left out: {reason}.")
                click.echo(notes[-1])
                continue
            sections.append(section)
            numbers[chosen] = section.table
            click.echo(f"wrote {', '.join(str(picture) for picture in section.pictures)}")
            for row in section.table:
                click.echo("  " + _line(row))
    finally:
        worlds.close()
    typed = ["crl", "analyze", *runs, *(["--only", ",".join(only)] if len(only) < len(ANALYSES) else [])]
    typed += [part for x, y in goals for part in ("--goal", f"{x:g},{y:g}")] + (["--env", env] if env else [])
    about = {"command": shlex.join([*typed, "--seed", str(seed)]), "env": name, "notes": notes}
    write_text(directory / "numbers.json", json.dumps({**about, **numbers}, indent=1))
    _write_page(directory, name, [subject.label for subject in subjects], str(about["command"]), sections, notes)
    click.echo(f"wrote {directory / 'index.html'}, numbers.json and the tables beside it")


def _load(runs: tuple[str, ...], device: str, env: str | None) -> tuple[list["Subject"], str, dict[str, Any]]:
    """The runs under labels that tell them apart, and the one world they are looked at in."""
    import dataclasses

    from crl.analysis.subject import load

    loaded = [load(Path(run), device, env) for run in runs]
    worlds = [(name, options) for _, name, options in loaded]
    for run, world in zip(runs, worlds, strict=True):
        if world != worlds[0]:
            raise ConfigError(
                f"the runs are of different worlds: {runs[0]} of {worlds[0][0]}, {run} of {world[0]}, or with other "
                "options; name one that suits all by --env."
            )
    subjects = [subject for subject, _, _ in loaded]
    seen = Counter(subject.label for subject in subjects)
    told = [
        dataclasses.replace(subject, label=subject.label + (f", {Path(run).name}" if seen[subject.label] > 1 else ""))
        for run, subject in zip(runs, subjects, strict=True)
    ]
    if len({subject.label for subject in told}) < len(told):
        raise ConfigError(f"RUN...: expected different runs under different names, got {' '.join(runs)}.")
    return told, *worlds[0]


def _write_page(
    directory: Path, world: str, labels: list[str], typed: str, sections: list["Section"], notes: list[str]
) -> None:
    """Everything in one file that needs no other."""
    from crl.report.page import page, paragraph, picture, table
    from crl.report.tables import Table

    parts = []
    for section in sections:
        content = paragraph(section.text)
        if section.table:
            content += table(Table(list(section.table[0]), [list(row.values()) for row in section.table]))
        for path in section.pictures:
            content += picture(path.read_bytes(), "image/png", path.stem, typed, [path.name])
        parts.append((section.title, content))
    if notes:
        parts.append(("Left out", "".join(map(paragraph, notes))))
    whole = page(f"What was learnt of {world}", "; ".join(labels), parts)
    write_text(directory / "index.html", whole)


def _line(row: dict[str, Any]) -> str:
    """A row of a table in words: estimates with their intervals."""
    told = []
    for name, value in row.items():
        if value is None or (name.endswith((" low", " high")) and name.rpartition(" ")[0] in row):
            continue
        if isinstance(value, float):
            value = f"{value:.3f}"
            if row.get(f"{name} low") is not None:
                value += f" [{row[f'{name} low']:.3f}, {row[f'{name} high']:.3f}]"
        told.append(f"{name.replace('_', ' ')} {value}")
    return ", ".join(told)
