"""`crl lab`: small worlds in which exploration can be watched."""

import itertools
import shlex
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crl.cli import need_extra
from crl.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from crl.lab.study import Record, Study

WORLDS = ("four-rooms", "four-rooms-20", "spiral", "impossible", "box")
"""Those of `crl.lab.rooms`; here, so that help needs no NumPy."""
RECENT = 300
"""Episodes of which a line tells: the moving average of success remembers no more."""
BAR = 24  # characters


@click.group("lab")
def command() -> None:
    """Watch exploration emerge in small worlds, look inside, and measure what is claimed about it."""


@command.command("four-rooms")
@click.option("--world", type=click.Choice(WORLDS), default="four-rooms", show_default=True, help="Where.")
@click.option(
    "--init",
    "inits",
    multiple=True,
    type=click.Choice(("symmetric", "random", "distance")),
    help="How representations begin: near the goal's, anywhere, or further the further away. [symmetric and random]",
)
@click.option("--dimension", type=int, default=16, show_default=True, help="Entries of a representation.")
@click.option(
    "--loss",
    type=click.Choice(("backward", "forward", "both")),
    default="backward",
    show_default=True,
    help="InfoNCE: softmax over anchors, over later states, or the mean of both.",
)
@click.option(
    "--goal-command",
    type=click.Choice(("single", "random-vector", "redrawn-vector")),
    default="single",
    show_default=True,
    help="What is commanded all the time: the goal's representation, or one random vector that is no state's, or every "
    "few episodes another.",
)
@click.option("--temperature", type=float, default=0.1, show_default=True, help="Of the softmax that draws moves.")
@click.option("--spread", type=float, default=0.2, show_default=True, help="How far from the goal's they begin.")
@click.option("--second-goal", default="", metavar="ROW,COLUMN",
              help="Command the mean of the goal's representation and of this cell's. [one goal]")  # fmt: skip
@click.option("--orthogonal", default="", metavar="ROOM,...",
              help="Rooms that begin at right angles to the goal's representation. [none]")  # fmt: skip
@click.option("--forced", default="", metavar="ROOM=C,...",
              help="Rooms whose c the policy takes for this, whatever is learnt. [none]")  # fmt: skip
@click.option("--neural", is_flag=True, help="Two networks of one-hot rows and columns in place of a table.")
@click.option("--seeds", type=int, default=10, show_default=True, help="Learners beside each other.")
@click.option("--first-seed", type=int, default=0, show_default=True, help="Seed of the first; the others follow.")
@click.option("--episodes", type=int, default=50_000, show_default=True, help="Of each learner, of 100 steps.")
@click.option("--video/--no-video", default=True, show_default=True, help="An mp4 of the first seed (extra `video`).")
@click.option(
    "--output", metavar="DIR", help="Directory for arrays, tables, pictures and the page; new or empty. [lab/WORLD]"
)
def four_rooms(
    world: str,
    inits: tuple[str, ...],
    dimension: int,
    loss: str,
    goal_command: str,
    temperature: float,
    spread: float,
    second_goal: str,
    orthogonal: str,
    forced: str,
    neural: bool,
    seeds: int,
    first_seed: int,
    episodes: int,
    video: bool,
    output: str | None,
) -> None:
    """Single-goal contrastive RL without a reward, in a world of cells: does it find the goal, and how?

    Shows success, visits and c(s) = ψ(s)·ψ(g) as it goes on; then writes index.html, a page to play with that needs no
    network, statistics.csv, curves.csv, the arrays (.npz) and, with matplotlib (extra `plot`), pictures. Ctrl-C ends
    the study early and writes what there is.

    Example: crl lab four-rooms --seeds 3 --episodes 20000
    """
    from crl.lab.study import Settings, Study

    settings = [
        Settings(
            world=world,
            init=init,
            dimension=dimension,
            loss=loss,
            goal_command=goal_command,
            temperature=temperature,
            spread=spread,
            second_goal=second_goal,
            orthogonal=orthogonal,
            forced=forced,
            neural=neural,
            seeds=seeds,
            episodes=episodes,
            first_seed=first_seed,
        )
        for init in dict.fromkeys(inits) or ("symmetric", "random")
    ]
    if neural:
        need_extra("train", "torch")
    place = Path(output or Path("lab", world + ("-neural" if neural else "")))
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise ConfigError(f"--output {place} is not empty: name another directory, or remove it.")
    place.mkdir(parents=True, exist_ok=True)
    records, stopped = [], False
    for one in settings:
        study = Study(one)
        stopped = _watch(study)
        if study.record.moments > 1:
            records.append(study.record.so_far())
        if stopped:
            break
    if records:
        _write(place, records, video and not stopped)
    if stopped:
        raise KeyboardInterrupt


def _watch(study: "Study") -> bool:
    """Play all rounds, showing how it goes; returns whether a person stopped them."""
    from rich.live import Live

    from crl.console import SECONDS_BETWEEN_LINES, plain_console

    console = plain_console()
    began = shown = time.monotonic()
    console.print(f"{study.settings}, {study.settings.seeds} seeds, {study.settings.episodes:,} episodes")
    with Live(_table(study, 0.0), console=console, auto_refresh=False, transient=True) as live:
        try:
            while not study.done:
                study.round()
                now = time.monotonic()
                if now - shown > (0.25 if console.is_terminal else SECONDS_BETWEEN_LINES):
                    shown = now
                    if console.is_terminal:
                        live.update(_table(study, now - began), refresh=True)
                    else:
                        console.print(_line(study, now - began))
        except KeyboardInterrupt:
            console.print(f"stopped after {study.record.rounds_done} updates")
            return True
    console.print(_line(study, time.monotonic() - began))
    return False


def _recent(study: "Study") -> dict[str, str]:
    """How the study stands: means over seeds."""
    import numpy as np

    from crl.lab.analysis import moving_average
    from crl.lab.study import ROUND

    record, world, done = study.record, study.world, study.record.rounds_done
    if not done:
        return {}
    now = moving_average(record.time_at_goal[:, max(0, ROUND * done - RECENT) : ROUND * done] > 0)[:, -1]
    steps = record.time_in_room[:, max(0, done - RECENT // ROUND) : done].sum((0, 1), dtype=np.int64)
    c = (study.learner.psi() @ study.learner.command()[..., None])[..., 0].mean(0)
    cells = {
        "start": c[world.start],
        **{room: c[world.room == number].mean() for number, room in enumerate(world.rooms)},
    }
    return {
        "success": f"{now.mean():.2f}, {(now > 0.9).sum()} of {len(now)} seeds above 0.9",
        "visits": ", ".join(
            f"{room} {share:.0%}" for room, share in zip(world.rooms, steps / max(steps.sum(), 1), strict=True)
        ),
        "c": ", ".join(f"{name} {value:.2f}" for name, value in cells.items()),
    }


def _line(study: "Study", seconds: float) -> str:
    from crl.console import duration
    from crl.lab.study import ROUND

    done, all_rounds = study.record.rounds_done, study.settings.rounds
    left = seconds * (all_rounds - done) / max(done, 1)
    parts = [f"{ROUND * done:,}/{ROUND * all_rounds:,} episodes"]
    parts += [f"{name}: {value}" for name, value in _recent(study).items()]
    return " | ".join([*parts, f"{duration(left)} left" if done < all_rounds else f"took {duration(seconds)}"])


def _table(study: "Study", seconds: float) -> "Table":
    """The same as a table with a bar, for a terminal."""
    from rich.table import Table

    from crl.console import duration
    from crl.lab.study import ROUND

    done, all_rounds = study.record.rounds_done, study.settings.rounds
    table = Table(box=None, pad_edge=False, show_header=False)
    filled = BAR * done // all_rounds
    left = f", {duration(seconds * (all_rounds - done) / done)} left" if done else ""
    table.add_row("episodes", f"{'█' * filled}{'░' * (BAR - filled)} {ROUND * done:,}/{ROUND * all_rounds:,}{left}")
    for name, value in _recent(study).items():
        table.add_row(name, value)
    return table


def _write(place: Path, records: "list[Record]", video: bool) -> None:
    """All files, each named when it is there."""
    from crl.lab.analysis import count_found, write_curves, write_statistics
    from crl.lab.page import write_page

    for record in records:
        count, low, high = count_found(record)
        of = len(record.time_at_goal)
        click.echo(f"{record.settings}: {count} of {of} seeds found the goal [{low:.2f}, {high:.2f}]")
    for record in records:
        record.save(place / f"{record.settings.init}.npz")
    write_statistics(place / "statistics.csv", records)
    write_curves(place / "curves.csv", records)
    write_page(place / "index.html", records, shlex.join(_command(records)))
    written = [*(f"{record.settings.init}.npz" for record in records), "statistics.csv", "curves.csv", "index.html"]
    if find_spec("matplotlib") is None:
        click.echo('no pictures: matplotlib is not installed: pip install "crl[plot]"')
    else:
        from crl.lab import pictures

        pictures.draw_maps(place / "maps.png", records)
        pictures.draw_goal_axis(place / "goal_axis.png", records)
        pictures.draw_curves(place / "curves.png", records)
        written += ["maps.png", "goal_axis.png", "curves.png"]
        if video:
            written += _films(place, records)
    click.echo(f"wrote {', '.join(written)} in {place}")


def _films(place: Path, records: "list[Record]") -> Iterator[str]:
    """The mp4 of each record's first seed; their names."""
    if missing := [name for name in ("av", "mujoco") if find_spec(name) is None]:
        click.echo(f'no video: {", ".join(missing)} is not installed: pip install "crl[video]"')
        return
    from crl.lab.pictures import film
    from crl.recording import write_video

    for record in records:
        name = f"{record.settings.init}.mp4"
        write_video(place / name, film(record))
        yield name


def _command(records: "list[Record]") -> list[str]:
    """The command that makes these records."""
    import dataclasses

    from crl.lab.study import Settings

    settings, words = records[0].settings, ["crl", "lab", "four-rooms"]
    for field in dataclasses.fields(Settings):
        value = getattr(settings, field.name)
        option = f"--{field.name.replace('_', '-')}"
        if field.name == "init":
            words += itertools.chain.from_iterable(("--init", record.settings.init) for record in records)
        elif value != field.default:
            words += [option] if value is True else [option, str(value)]
    return words
