"""docs/gallery.md: its pictures are there, its commands can draw them, and the runs they are drawn from load."""

import importlib.util
import sys
from pathlib import Path

import click
import pytest

from crl import checkpoint
from crl.cli import main
from crl.report.runs import load
from crl.run import load_policy

SCRIPT = Path(__file__).parents[1] / "docs" / "gallery.py"
loaded = importlib.util.spec_from_file_location("gallery_page", SCRIPT)
gallery = importlib.util.module_from_spec(loaded)
sys.modules[loaded.name] = gallery
loaded.loader.exec_module(gallery)
PICTURES = gallery.pictures()
RUNS = sorted((gallery.FOLDER / "runs").iterdir())


def test_the_page_shows_the_pictures_that_are_there():
    page = gallery.PAGE.read_text(encoding="utf-8")
    shown = [picture.name for picture in PICTURES]
    assert len(shown) == page.count("](gallery/"), "each picture has a title and, below it, its command"
    assert sorted(shown) == sorted(path.stem for path in gallery.FOLDER.glob("*.png"))


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_its_command_can_be_called_and_names_its_file(picture):
    program, verb, *arguments = gallery.words(picture.command)
    assert program == "crl"
    command = main.get_command(click.Context(main), verb)
    if isinstance(command, click.Group):
        command = command.get_command(click.Context(command), arguments.pop(0))
    values = command.make_context(verb, list(arguments)).params
    named = [word for word in arguments if word.startswith("runs/")]
    assert all((gallery.FOLDER / word).is_dir() for word in named)
    assert picture.made.startswith(values["output"])


def test_every_run_is_drawn_and_only_those():
    named = {word for picture in PICTURES for word in gallery.words(picture.command) if word.startswith("runs/")}
    assert named == {f"runs/{run.name}" for run in RUNS}


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_runs_load(run):
    assert load(run).finished
    if (run / "checkpoints").exists():
        load_policy(run)
        (saved,) = checkpoint.complete(run)
        assert {path.name for path in saved.iterdir()} == {"agent.safetensors", "state.json", checkpoint.MANIFEST}


def test_all_of_it_is_small():
    sizes = {path: path.stat().st_size for path in gallery.FOLDER.rglob("*") if path.is_file()}
    assert sum(size for path, size in sizes.items() if path.suffix == ".png") < 3e6
    assert sum(size for path, size in sizes.items() if path.suffix != ".png") < 5e6
