"""`crl analyze` from end to end."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from conftest import Quiet

from crl.analysis import probe, study
from crl.cli import main
from crl.cli.analyze import ANALYSES
from crl.config import TrainConfig
from crl.trainer import train

Tiny = Callable[..., TrainConfig]
BRIEF: dict[str, Any] = {"total_env_steps": 80, "eval_interval": 80}


@pytest.fixture
def crl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Call `crl` in an empty directory, with fewer samples than one would want."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("crl.analysis.correlations.SAMPLES", 20)
    monkeypatch.setattr("crl.analysis.states.FINEST", 3)
    for name, value in {"WORLDS": 4, "SHEET": 49, "ROWS": 60, "MOST_GOALS": 3, "SHOWN_GOALS": 2, "FRESH": 1}.items():
        monkeypatch.setattr(study, name, value)
    return lambda *arguments: CliRunner().invoke(main, arguments, prog_name="crl")


def test_the_command_knows_every_analysis() -> None:
    assert tuple(study.ANALYSES) == ANALYSES


def test_two_runs_side_by_side(tiny: Tiny, crl: Callable[..., Result], tmp_path: Path) -> None:
    train(tiny("one", **BRIEF), reporter=Quiet())
    train(tiny("two", **BRIEF, algorithm="td3", representation_dim=64), reporter=Quiet())
    shown = crl("analyze", "one", "two", "--output", "found", "--goal", "12,4", "--goal", "4,12")
    assert shown.exit_code == 0, shown.output
    found = tmp_path / "found"
    page = (found / "index.html").read_text(encoding="utf-8")
    pictures = [*(f"{name}.png" for name in ("maps", "similarity", "probe", "gradients", "spectra"))]
    for name in (*pictures, "tsne_1.png", "tsne_2.png"):
        assert (found / name).stat().st_size > 1000
    assert page.count("data:image/png;base64,") == 7
    assert not re.search(r'(src|href)="(?!data:|#)[^"]*/', page), "it needs nothing else"
    numbers = json.loads((found / "numbers.json").read_text())
    assert numbers["command"] == "crl analyze one two --goal 12,4 --goal 4,12 --seed 0"
    assert set(ANALYSES) <= set(numbers)
    orders = [row["order"] for row in numbers["maps"]]
    assert orders == ["Euclidean distance", "crl, depth 4, seed 0", "td3, depth 4, seed 0"]
    for row in numbers["maps"]:
        assert -1 <= row["spearman low"] <= row["spearman"] <= row["spearman high"] <= 1
    probed = {row["features"] for row in numbers["probe"]}
    assert {"crl, depth 4, seed 0, untrained", "td3, depth 4, seed 0", probe.PLAIN} <= probed
    assert {row["run"] for row in numbers["similarity"]} == {"crl, depth 4, seed 0"}, "td3 has no psi"
    with (found / "maps.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 2 * 7 * 9  # goals, free cells, places in each


def test_a_world_without_a_maze(tiny: Tiny, crl: Callable[..., Result], tmp_path: Path) -> None:
    train(tiny(**BRIEF, env="reacher", env_options="episode_length=25"), reporter=Quiet())
    shown = crl("analyze", "run")
    assert shown.exit_code == 0, shown.output
    for name in ("maps", "probe"):
        assert f"{name} left out: there is no maze here in which the robot is to be somewhere." in shown.output
    assert {path.name for path in (tmp_path / "analysis").glob("*.png")} == {
        *("similarity.png", "tsne_1.png", "gradients.png", "spectra.png")
    }


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["--only", "maps,prove"],
            "--only: expected some of maps,similarity,tsne,probe,gradients,spectra, got 'prove'.",
        ),
        (["--goal", "12"], "--goal: expected x and y in m, such as 12,4, got '12'."),
        (["--goal", "8,8"], "--goal 8,8 lies in a wall or outside of the maze"),
        (["--goal", "400,8"], "--goal 400,8 lies in a wall or outside of the maze"),
    ],
)
def test_mistakes_get_one_line(arguments: list[str], told: str, tiny: Tiny, crl: Callable[..., Result]) -> None:
    train(tiny(**BRIEF), reporter=Quiet())
    shown = crl("analyze", "run", *arguments)
    assert shown.exit_code == 2
    assert told in " ".join(shown.output.split())


def test_runs_of_different_worlds_are_refused(tiny: Tiny, crl: Callable[..., Result]) -> None:
    train(tiny("one", **BRIEF), reporter=Quiet())
    train(tiny("two", **BRIEF, env="reacher"), reporter=Quiet())
    shown = crl("analyze", "one", "two")
    assert shown.exit_code == 2
    assert "the runs are of different worlds: one of point_short, two of reacher" in " ".join(shown.output.split())
