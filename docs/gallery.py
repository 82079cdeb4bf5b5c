"""Draws the pictures of docs/gallery.md anew, by the commands that stand there, from the runs in docs/gallery/runs.

python docs/gallery.py                    all of them: minutes; needs OpenGL, as `crl render` does
python docs/gallery.py NAME...            those, docs/gallery/NAME.png, alone
python docs/gallery.py --keep RUN NAME    finished run RUN as docs/gallery/runs/NAME: settings, metrics, newest weights
python docs/gallery.py --curves RUN NAME  the same without weights
"""

from __future__ import annotations

import dataclasses
import glob
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from crl import checkpoint, config
from crl import run as runs

PAGE = Path(__file__).with_suffix(".md")
FOLDER = Path(__file__).with_suffix("")
PICTURE = re.compile(r'!\[[^]]*\]\(gallery/(?P<name>\w+)\.png "(?P<made>[^"]+)"\)[^`]*```sh\n(?P<command>.*)\n```')
"""On the page: a picture, as its title the file that the command below it writes."""


@dataclasses.dataclass(frozen=True)
class Picture:
    """One of the page."""

    name: str
    made: str
    command: str

    @property
    def file(self) -> Path:
        return FOLDER / f"{self.name}.png"


def pictures() -> list[Picture]:
    """Those that the page shows."""
    return [Picture(**found.groupdict()) for found in PICTURE.finditer(PAGE.read_text(encoding="utf-8"))]


def words(command: str) -> list[str]:
    """The words of `command` as a shell in docs/gallery gives them to it."""
    return [
        found
        for word in shlex.split(command)
        for found in (sorted(glob.glob(word, root_dir=FOLDER)) if "*" in word else [word])
    ]


def draw(wanted: Sequence[Picture]) -> None:
    """Call each of their commands once, in a directory in which runs/ are the gallery's, and take what it made."""
    with tempfile.TemporaryDirectory() as scratch:
        os.symlink(FOLDER / "runs", Path(scratch, "runs"))
        for command in dict.fromkeys(picture.command for picture in wanted):
            print(f"$ {command}", flush=True)
            subprocess.run([sys.executable, "-m", *words(command)], cwd=scratch, check=True)
            for picture in wanted:
                if picture.command == command:
                    shutil.copyfile(Path(scratch, picture.made), picture.file)


def keep(run: Path, name: str, weights: bool = True) -> None:
    """Keep what pictures need of a finished run: no buffer, no worlds, no earlier checkpoint."""
    place = FOLDER / "runs" / name
    place.mkdir(parents=True)
    settings = runs.resolve(runs.reopen(run, {})).config  # what is younger than the run is filled too
    config.write(dataclasses.replace(settings, run_dir=f"runs/{name}"), place / "config.yaml")
    shutil.copyfile(run / "metrics.csv", place / "metrics.csv")
    if weights:
        saved = checkpoint.latest(run)
        needed = {file: saved / file for file in ("agent.safetensors", "state.json")}
        files = {file: lambda target, source=source: shutil.copyfile(source, target) for file, source in needed.items()}
        checkpoint.save(place, int(saved.name.removeprefix("step_")), files, keep=1)


def main(arguments: Sequence[str]) -> None:
    if arguments[:1] in (["--keep"], ["--curves"]):
        keep(Path(arguments[1]), arguments[2], weights=arguments[0] == "--keep")
        return
    draw([picture for picture in pictures() if not arguments or picture.name in arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
