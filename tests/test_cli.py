"""The command line: help, exit codes, one-line errors, signals, `crl eval`, `crl envs` and `crl plot`."""

import csv
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import short_crl
from click.testing import CliRunner, Result
from conftest import TINY_OPTIONS, Quiet

from crl import checkpoint, config, envs, resolution
from crl.cli import VERBS, main
from crl.config import SETTINGS, TrainConfig, file_key
from crl.trainer import train

Tiny = Callable[..., TrainConfig]


@pytest.fixture
def crl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Call `crl` in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # the signals are pytest's here
    return lambda *arguments: CliRunner().invoke(main, arguments, prog_name="crl")


def one_line(result: Result, code: int, *parts: str) -> None:
    """The outcome of a mistake: an exit code and one line that says `parts`."""
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1, result.stderr
    assert "Traceback" not in result.output
    for part in parts:
        assert part in errors[0]


@pytest.fixture
def done(tiny: Tiny, tmp_path: Path) -> Path:
    """The directory of a finished run."""
    train(tiny(), reporter=Quiet())
    return tmp_path / "run"


# --- help -------------------------------------------------------------------------------------------------------------


def test_help_names_every_verb(crl: Callable[..., Result]) -> None:
    shown = crl("--help")
    assert shown.exit_code == 0
    for verb, sentence in VERBS.items():
        assert f"  {verb}" in shown.output
        assert sentence in shown.output
        assert crl(verb, "--help").exit_code == 0


def test_train_s_help_shows_every_setting_once_under_its_group(crl: Callable[..., Result]) -> None:
    sections: dict[str, str] = {}
    for line in crl("train", "--help").output.splitlines():
        if line.endswith(":") and not line.startswith(" "):
            sections[current := line[:-1]] = ""
        elif sections:
            sections[current] += line + "\n"
    for name, setting in SETTINGS.items():
        option = "--" + file_key(name).replace("_", "-")
        lines = [(group, line.split()) for group, text in sections.items() for line in text.splitlines()]
        starts = [group for group, words in lines if words[:1] == [option]]
        if name == "asynchronous":
            starts = [group for group, text in sections.items() if "--async / --sync" in text]
        assert starts == [setting.metadata["group"]], name
    for option in ("--config", "--resume", "--dry-run"):
        assert option in sections["Run"]


def test_the_base_install_helps_without_the_extras(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "for name in ('torch', 'mujoco', 'gymnasium', 'safetensors', 'yaml', 'matplotlib', 'PIL'):\n"
        "    sys.modules[name] = None\n"
        "from crl.cli import main; main()"
    )
    helps = [[verb, "--help"] for verb in VERBS]
    for arguments in (*helps, ["envs"], ["envs", "ant_maze"]):
        done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["trian"], ["no command 'trian'", "'train'"]),
        (["train", "--dept", "4"], ["--dept", "--depth"]),
        (["train", "--env", "ant_mase"], ["'ant_mase'", "'ant_maze'"]),
        (["train", "--eval-env", "ant_mase"], ["ant_maze"]),
        (["train", "--preset", "papr"], ["papr", "paper"]),
        (["train", "--precision", "fp8"], ["fp8", "bf16"]),
        (["train", "--depth", "255"], ["depth must be a positive multiple of 4", "got 255", "252 or 256"]),
        (["train", "--depth", "deep"], ["--depth", "deep"]),
        (["train", "--gamma", "1.1"], ["gamma must be at most 1, got 1.1"]),
        (["train", "--num-envs", "0"], ["num_envs must be at least 1, got 0"]),
        (["train", "--device", "gpu"], ["device must be auto, cpu, cuda or cuda:N, got 'gpu'"]),
        (["train", "--config", "nowhere.yaml"], ["nowhere.yaml cannot be read"]),
        (["train", "--resume", "run", "--config", "x.yaml"], ["leave --config out"]),
        (["train", "more"], ["more"]),
        (["eval"], ["RUN"]),
        (["envs", "ant_mase"], ["ant_maze"]),
        (["plot"], ["RUN"]),
        (["plot", "run", "--metric", "eval/sucess_rate"], ["eval/success_rate"]),
        (["plot", "run", "--output", "curves.xls"], ["must end in .png, .pdf or .svg"]),
    ],
)
def test_a_mistake_is_one_line_and_makes_nothing(
    crl: Callable[..., Result], tmp_path: Path, arguments: list[str], parts: list[str]
) -> None:
    one_line(crl(*arguments), 2, *parts)
    assert list(tmp_path.iterdir()) == []


def test_a_key_typed_wrong_in_the_file(crl: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("env: reacher\nbatchsize: 3\n")
    one_line(crl("train", "--config", "settings.yaml"), 2, "settings.yaml", "'batchsize'", "'batch_size'")


def test_a_missing_extra_is_named_with_the_command_that_installs_it(
    crl: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    hidden = {"torch", "mujoco", "matplotlib", "scipy"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name in hidden else find(name, *more))
    one_line(crl("train"), 2, 'torch, mujoco is not installed: pip install "crl[train]"')
    one_line(crl("eval", "run"), 2, 'pip install "crl[train]"')
    one_line(crl("plot", "run"), 2, 'matplotlib, scipy is not installed: pip install "crl[plot]"')
    assert list(tmp_path.iterdir()) == []


def test_a_directory_in_use_or_unwritable(crl: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes.txt").write_text("mine")
    one_line(crl("train", "--run-dir", "used"), 2, "used is not empty")
    one_line(crl("train", "--run-dir", "used/notes.txt/run"), 2, "cannot be written")
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["notes.txt"]


def test_what_is_no_run(crl: Callable[..., Result]) -> None:
    for arguments in (["train", "--resume", "nowhere"], ["eval", "nowhere"], ["plot", "nowhere"]):
        one_line(crl(*arguments), 1, "nowhere", "no such directory")


def test_a_damaged_checkpoint_is_one_line_that_names_the_file(crl: Callable[..., Result], done: Path) -> None:
    saved = checkpoint.latest(done)
    for path in sorted(saved.iterdir()):
        whole = path.read_bytes()
        middle = len(whole) // 2
        for damaged in (whole[:middle] + bytes([whole[middle] ^ 0x80]) + whole[middle + 1 :], whole[:-1], b""):
            path.write_bytes(damaged)
            for arguments in (["train", "--resume", str(done)], ["eval", str(done)]):
                one_line(crl(*arguments), 1, "step_400 is damaged", path.name)
        path.write_bytes(whole)
    (saved / "MANIFEST.json").unlink()
    (done / "checkpoints" / "step_200" / "MANIFEST.json").unlink()
    one_line(crl("eval", str(done)), 1, "no complete checkpoint yet")


# --- doing it ---------------------------------------------------------------------------------------------------------


def test_dry_run_shows_the_settings_and_makes_nothing(crl: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("learning_rate: 1e-3\ndepth: 8\nasync: true\n")
    shown = crl("train", "--config", "settings.yaml", "--depth", "16", "--env", "reacher", "--dry-run")
    assert shown.exit_code == 0, shown.output
    told = {line.split()[0]: line.split()[1:] for line in shown.output.splitlines()}
    assert told["depth"] == ["16", "set"]  # the option beats the file
    assert told["learning_rate"] == ["0.001", "set"]
    assert told["async"] == ["True", "set"]
    assert told["gamma"] == ["0.8", "recipe", "reacher"]
    assert told.keys() >= {file_key(name) for name in SETTINGS}
    assert [path.name for path in tmp_path.iterdir()] == ["settings.yaml"]


def test_train_then_go_on_then_evaluate(crl: Callable[..., Result], short_world: None, tmp_path: Path) -> None:
    first = crl("train", *TINY_OPTIONS, "--run-dir", "run")
    assert first.exit_code == 0, first.output
    assert "done: 400 steps, 40 updates in run" in first.output
    assert "\x1b" not in first.output  # not a terminal: plain lines
    shown = crl("train", "--resume", "run", "--total-env-steps", "600", "--dry-run")
    assert "total_env_steps" in shown.output
    more = crl("train", "--resume", "run", "--total-env-steps", "600")
    assert more.exit_code == 0, more.output
    assert "done: 600 steps, 60 updates in run" in more.output
    one_line(crl("train", "--resume", "run", "--seed", "3"), 2, "seed of a run cannot change")
    assert config.read_settings(tmp_path / "run" / "config.yaml")["total_env_steps"] == 600


def test_eval(crl: Callable[..., Result], done: Path) -> None:
    printed = crl("eval", str(done), "--json", "--num-eval-episodes", "3", "--seed", "5")
    assert printed.exit_code == 0, printed.output
    outcome = json.loads(printed.output)
    assert outcome["num_episodes"] == 3
    assert outcome.keys() == {
        "num_episodes", "success_rate", "success_interval", "success_at_end", "time_at_goal", "final_distance",
        "num_episodes_far", "success_rate_far", "success_interval_far",
    }  # fmt: skip
    assert crl("eval", str(done), "--json", "--num-eval-episodes", "3", "--seed", "5").output == printed.output
    text = crl("eval", str(done), "--num-action-candidates", "2", "--stochastic").output
    assert [line.split()[0] for line in text.splitlines()] == [
        "success_rate", "of", "success_at_end", "time_at_goal", "final_distance", "episodes"
    ]  # fmt: skip
    one_line(crl("eval", str(done), "--env", "ant_maze"), 2, "ant_u_maze")
    one_line(crl("eval", str(done), "--env", "point_mase"), 2, "point_maze")


def test_envs_lists_all_and_describes_one(crl: Callable[..., Result]) -> None:
    listed = crl("envs").output
    assert [line.split()[0] for line in listed.splitlines()[1:]] == envs.names()
    described = crl("envs", "ant_maze").output
    assert described.startswith("ant_u_maze\n")
    spec = envs.spec("ant_maze")
    together = " ".join(described.split())
    for heading, text in spec.facts().items():
        assert f"{heading} {' '.join(text.split())}" in together


# --- plot -------------------------------------------------------------------------------------------------------------


def test_plot_draws_and_tabulates(crl: Callable[..., Result], tiny: Tiny, tmp_path: Path) -> None:
    for seed in (0, 1):
        train(tiny(f"seed{seed}", seed=seed), reporter=Quiet())
    train(tiny("wide", width=24), reporter=Quiet())
    drawn = crl("plot", "seed0", "seed1", "wide", "--group", "--output", "all.svg")
    assert drawn.exit_code == 0, drawn.output
    assert (tmp_path / "all.svg").read_text().startswith("<?xml")
    with (tmp_path / "all.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert {row["run"] for row in table} == {"seed0", "seed1", "wide"}
    losses = [row for row in table if row["metric"] == "train/critic_loss" and row["run"] == "seed1"]
    assert [int(float(row["env_steps"])) for row in losses] == list(range(40, 401, 40))
    assert all(float(row["wall_time"]) > 0 and row["seed"] == "1" for row in losses)
    other = crl("plot", "seed0", "--metric", "train/alpha", "--x", "wall_time", "--csv", "t.csv")
    assert other.exit_code == 0, other.output
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "t.csv").open(newline="") as file:
        assert {row["metric"] for row in csv.DictReader(file)} == {"train/alpha"}


def test_plot_names_runs_by_what_differs(tiny: Tiny, tmp_path: Path) -> None:
    from crl.report.runs import Run, apart

    def made(name: str, **changes: Any) -> Run:
        settings = resolution.resolve(tiny(name, **changes), device="cpu", num_cores=1).config
        return Run(Path(name), config.to_mapping(settings), [])

    runs = [made("a", depth=4), made("b", depth=4, seed=1), made("c", depth=8)]
    assert list(apart(runs)) == ["depth 4, seed 0", "depth 4, seed 1", "depth 8, seed 0"]
    assert list(apart([runs[0], made("again", depth=4)])) == ["a", "again"]  # nothing differs: their directories


def test_plot_of_a_run_that_has_measured_nothing_yet(crl: Callable[..., Result], done: Path) -> None:
    path = done / "metrics.csv"
    header = path.read_text().splitlines()[0]
    path.write_text(header + "\n")
    one_line(crl("plot", "run"), 1, "has measured eval/success_rate")
    path.write_text(header + "\nabc,1\n")
    one_line(crl("plot", "run"), 1, "metrics.csv cannot be read")


# --- signals, in a process of its own ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_second_interrupt_stops_at_once_and_the_run_can_go_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ["train", *TINY_OPTIONS, "--total-env-steps=100000", "--unroll-length=200", f"--run-dir={run}"]
    with subprocess.Popen(
        [sys.executable, short_crl.__file__, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not checkpoint.complete(run):
            assert process.poll() is None
            time.sleep(0.01)
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.02)
        _, errors = process.communicate(timeout=60)
    assert process.returncode in (1, 130)  # 130 where the first one was through already
    assert "Traceback" not in errors
    checkpoint.latest(run)  # whole


@pytest.mark.parametrize("as_module", [False, True])
def test_the_installed_command(tmp_path: Path, as_module: bool) -> None:
    script = shutil.which("crl", path=Path(sys.executable).parent) or shutil.which("crl")
    assert script
    command = [sys.executable, "-m", "crl"] if as_module else [script]
    done = subprocess.run([*command, "train", "--depth", "255"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "252 or 256" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
