"""The documentation is true: its Python runs, its commands parse, its settings files are valid, its links lead on."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from crl import config, envs, resolution
from crl.cli import VERBS, main
from crl.envs.layouts import Maze
from crl.presets import PRESETS
from crl.sweep.plan import read

ROOT = Path(__file__).parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
}
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language):
    """(page, number, text) of every block of the documentation fenced as `language`."""
    return [
        pytest.param(text, id=f"{page}-{number}")
        for page, content in PAGES.items()
        for number, (found, text) in enumerate(BLOCK.findall(content))
        if found == language
    ]


def commands():
    """Every line of a shell block that calls crl, continuation lines joined, comments cut."""
    found = []
    for page, content in PAGES.items():
        for language, text in BLOCK.findall(content):
            for line in text.replace("\\\n", " ").splitlines() if language == "sh" else ():
                for part in re.split(r"&&|\|", line):
                    words = shlex.split(part, comments=True)
                    if words[:1] == ["crl"]:
                        found.append(pytest.param(words[1:], id=f"{page}: {' '.join(words)}"))
    return found


EXCERPT = re.compile(r"# from (examples/\w+\.py)\n")
"""The first line of a Python block that is a part of a script, which a test of its own runs."""


@pytest.mark.parametrize("text", blocks("python"))
def test_excerpts_stand_in_their_scripts(text):
    excerpt = EXCERPT.match(text)
    if excerpt:
        assert text[excerpt.end() :] in (ROOT / excerpt[1]).read_text(encoding="utf-8")


PYTHON_PAGES = [page for page, content in PAGES.items() if "```python\n" in content]


@pytest.mark.parametrize("page", PYTHON_PAGES)
def test_python_runs(page, tmp_path):
    """All Python blocks of a page but excerpts, in order, as one program in an empty directory."""
    found = [text for language, text in BLOCK.findall(PAGES[page]) if language == "python"]
    program = "\n".join(text for text in found if not EXCERPT.match(text))
    environment = {**os.environ, "MPLBACKEND": "Agg"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", commands())
def test_command_parses(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my_maze.txt").write_text("\n".join(Maze.named("u").rows))
    if words in (["--help"], ["--version"]):
        return
    verb, *arguments = words
    assert verb in VERBS
    command = main.get_command(click.Context(main), verb)
    if "--help" in arguments:
        return
    values = command.make_context(verb, arguments).params
    if verb == "train":
        settings = {name: value for name, value in values.items() if name in config.SETTINGS and value is not None}
        resolution.resolve(config.TrainConfig(**settings), device="cpu", num_cores=2)
    elif values.get("env") is not None:
        envs.spec(values["env"])


@pytest.mark.parametrize("text", blocks("yaml"))
def test_settings_file_is_valid(text, tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    if "grid:" in text:
        assert read(path, tmp_path / "runs").trials
        return
    resolution.resolve(config.from_mapping(config.read_settings(path)), device="cpu", num_cores=2)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", PAGES[page]):
        assert (ROOT / page).parent.joinpath(target).exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_fences_say_their_language(page):
    """A block without a language, or with a misspelt one, would escape the tests of this file."""
    opened = re.findall(r"^```(.*)$", PAGES[page], re.MULTILINE)[::2]
    assert set(opened) <= {"sh", "python", "yaml", "text", "csv", "rust"}


def test_readme_begins_with_its_two_commands():
    shell = [text.strip() for language, text in BLOCK.findall(PAGES["README.md"]) if language == "sh"]
    assert shell[0] == 'python3 -m pip install ".[train]" && crl train --env ant_maze --depth 256'
    assert shell[1] == 'python3 -m pip install ".[test]" && python3 -m pytest'
    first_screen = "\n".join(PAGES["README.md"].splitlines()[:40])
    assert shell[0] in first_screen
    assert shell[1] in first_screen


def test_readme_names_every_verb_and_preset():
    for verb in VERBS:
        assert f"`crl {verb}" in PAGES["README.md"], verb
    for preset in PRESETS:
        assert f"`{preset}`" in PAGES["README.md"], preset


def test_architecture_names_every_module_and_none_that_is_gone():
    page = PAGES["docs/architecture.md"]
    package = ROOT / "python" / "crl"
    modules = {path.relative_to(package).as_posix() for path in package.glob("*.py")} - {"__init__.py"}
    folders = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    library = (ROOT / "rust" / "replay" / "src" / "lib.rs").read_text(encoding="utf-8")
    # A module under an attribute, #[cfg(test)] or #[cfg(loom)], is a test.
    core = {f"{name}.rs" for name in re.findall(r"(?<!\]\n)^(?:pub )?mod (\w+);", library, re.MULTILINE)}
    missing = {name for name in modules | folders | core if f"`{name}`" not in page}
    assert not missing
    named = set(re.findall(r"`([\w/]+\.(?:py|rs))`", page))
    sources = (ROOT / "rust" / crate / "src" for crate in ("replay", "kernels", "python"))
    places = (package, *sources, ROOT)
    gone = {name for name in named if not any((place / name).is_file() for place in places)}
    assert not gone


def test_contributing_names_make_targets_that_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)`", "".join(PAGES.values())))
    assert named <= targets
    documented = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    assert documented - {"help"} <= named, "CONTRIBUTING.md says what each target is for"
