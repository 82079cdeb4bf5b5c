"""The physics of the installed MuJoCo is what it was, and a release in which it is not is named."""

import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from crl import envs
from crl.cli import main
from crl.envs import canary
from crl.envs.physics import mujoco
from crl.envs.reacher import Reacher


def test_every_environment_does_as_it_did() -> None:
    report = canary.check()
    assert not report.changes, str(report)
    assert not report.unknown, f"run: make canary ({report.unknown})"
    assert report.compared == len(envs.names())


def test_a_summary_repeats_bit_for_bit() -> None:
    assert canary.summary("ant") == canary.summary("ant")


def test_tolerances_are_narrow() -> None:
    """Else nothing would ever be noticed."""
    for version, summaries in json.loads(canary.KNOWN.read_text(encoding="utf-8")).items():
        for name, numbers in summaries.items():
            for number, (value, tolerance) in numbers.items():
                share = 0.15 if number == "contacts" else 0.01  # one contact more is 1 of a few
                assert tolerance < max(share * abs(value), 1e-4), (version, name, number)
            assert numbers["diverged"][0] == 0.0
            assert numbers["speed"][0] > 0.01, "something moves"


@pytest.mark.parametrize(
    ("change", "numbers"),
    [
        (lambda model: model.opt.gravity.__imul__(1.001), {"position", "speed", "height"}),
        (lambda model: model.geom_friction.__imul__(0.99), {"position", "speed"}),
        (lambda model: model.geom_solref.__imul__(1.01), {"position", "height"}),
        (lambda model: model.body_mass.__imul__(1.0001), {"mass"}),
        (lambda model: model.geom_contype.__imul__(0), {"contacts", "height"}),
        (lambda model: setattr(model.opt, "timestep", 0.5), {"diverged"}),
    ],
)
def test_a_change_of_the_physics_is_named(
    change: Callable[[Any], None], numbers: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    build = envs.make("ant", 1).task.build_model

    def changed(_: Any) -> Any:
        model = build()
        change(model)
        return model

    monkeypatch.setattr("crl.envs.ant.Ant.build_model", changed)
    report = canary.check(["ant"])
    assert numbers <= {change.number for change in report.changes}
    for found in report.changes:
        assert str(found).startswith(f"ant: {found.number} is ")
    assert f"MuJoCo {mujoco.__version__}" in str(report)


def test_another_release_is_compared_with_the_nearest_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"3.17.0": {"reacher": canary.measured("reacher")}, "5.1.0": {}}
    monkeypatch.setattr(mujoco, "__version__", "3.18.1")
    report = canary.check(["reacher"], known)
    assert (report.version, report.reference) == ("3.18.1", "3.17.0")
    assert not report.changes
    assert "MuJoCo 3.18.1 (unknown here; compared with 3.17.0, the nearest): 1 of 1" in str(report)
    known["3.17.0"]["reacher"]["speed"][0] *= 1.005
    assert not canary.check(["reacher"], known).changes, "half a percent may be the release's own"
    known["3.17.0"]["reacher"]["speed"][0] *= 1.01
    assert [change.number for change in canary.check(["reacher"], known).changes] == ["speed"]


@pytest.mark.parametrize(
    ("version", "reference"),
    [("3.17.0", "3.17.0"), ("3.18.2", "3.17.0"), ("4.0.1", "4.1.0"), ("4.2.0.dev3", "4.1.0"), ("9.0.0", "4.1.0")],
)
def test_nearest_release(version: str, reference: str) -> None:
    assert canary.nearest(version, ["3.17.0", "4.1.0"]) == reference


def test_summaries_of_other_releases_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "canary.json"
    monkeypatch.setattr("crl.envs.names", lambda: ["point_u_maze"])
    monkeypatch.setattr(mujoco, "__version__", "3.99.0")
    canary.write(path)
    first = json.loads(path.read_text(encoding="utf-8"))
    monkeypatch.setattr(mujoco, "__version__", "4.1.0")
    canary.write(path)
    both = json.loads(path.read_text(encoding="utf-8"))
    assert both == {**first, "4.1.0": first["3.99.0"]}


# --- crl doctor -------------------------------------------------------------------------------------------------------


def test_doctor_says_what_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crl.envs.names", lambda: ["reacher"])
    shown = CliRunner().invoke(main, ["doctor"])
    assert shown.exit_code == 0, shown.output
    for part in ("python", f"mujoco {mujoco.__version__}", "torch", "cuda", "drawing", "1 of 1 environments do as"):
        assert part in shown.output


def test_doctor_fails_where_the_physics_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crl.envs.names", lambda: ["reacher", "point_u_maze"])
    start = Reacher.start
    monkeypatch.setattr(Reacher, "start", lambda *args: start(*args)._replace(qvel=start(*args).qvel + 1))
    shown = CliRunner().invoke(main, ["doctor"])
    assert shown.exit_code == 1
    assert "1 of 2 environments do as they did" in shown.output
    assert "reacher: speed is" in shown.output
    assert "point_u_maze:" not in shown.output


def test_doctor_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = importlib.metadata.version

    def version(name: str) -> str:
        if name in ("av", "mujoco"):
            raise importlib.metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr("importlib.metadata.version", version)
    shown = CliRunner().invoke(main, ["doctor"])
    assert shown.exit_code == 0, shown.output
    assert 'no av: pip install "crl[video]"' in shown.output
    assert 'no mujoco: pip install "crl[train]"' in shown.output
    assert "physics" not in shown.output
