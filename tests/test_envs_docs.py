"""docs/environments.md says what the environments say of themselves; `python docs/environments.py` writes it."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import crl.envs as envs
from crl.envs.registry import create

SCRIPT = Path(__file__).parents[1] / "docs" / "environments.py"
loaded = importlib.util.spec_from_file_location("environments_page", SCRIPT)
page = importlib.util.module_from_spec(loaded)
loaded.loader.exec_module(page)
TEXT = page.PAGE.read_text(encoding="utf-8")
FIRST = [names[0] for names in page.families()]


def test_the_page_is_what_the_generator_writes():
    assert page.written(TEXT) == TEXT, "run: python docs/environments.py --pictures"
    assert {name for _, name, _ in page.MARKED.findall(TEXT)} == {"worlds", "layouts"}


def test_a_change_to_an_environment_would_be_noticed(monkeypatch):
    monkeypatch.setattr(page.envs, "names", lambda: envs.registry.names()[:1])
    assert page.written(TEXT) != TEXT


def test_every_environment_is_in_one_family():
    together = [name for names in page.families() for name in names]
    assert sorted(together) == sorted(envs.names())


def test_every_family_has_its_picture_and_they_are_small():
    assert {path.stem for path in page.IMAGES.glob("*.jpg")} == set(FIRST)
    assert sum(path.stat().st_size for path in page.IMAGES.iterdir()) < 1.5e6


@pytest.mark.parametrize("name", FIRST)
def test_every_environment_says_all(name):
    spec = envs.spec(name)
    for field in ("description", "observation", "start", "goal", "success", "terminates", "source"):
        assert getattr(spec, field), f"{name}: EnvSpec.{field} is empty"
    assert list(spec.facts()) == [
        "observation", "action", "goal", "success", "start", "episode", "ends early", "follows",
    ]  # fmt: skip


@pytest.mark.parametrize("name", FIRST)
def test_those_that_end_early_say_so(name):
    task = create(name, {})
    ends = task.terminated(np.full((1, task.state_spec.observation_dim), 5.0))
    assert bool(ends[0]) == (task.spec.terminates != "never")


def test_the_text_needs_no_simulator():
    program = f"import sys, runpy; runpy.run_path({os.fspath(SCRIPT)!r}); print({{'mujoco', 'PIL'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
