"""Data sets: what `crl collect` writes is what happened, a run from one is whole and repeatable, and what is refused.

Minari and OGBench are stood in for by modules of their layout; tests marked `peers` read the real ones' files.
"""

import importlib
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import scripted_goals
import short_crl
from click.testing import CliRunner, Result
from conftest import TINY, Quiet
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from test_cli import one_line
from test_collector import CountingEnv
from test_trainer import rows, weights

from crl import checkpoint, datasets, envs, forecast, resolution, run, sizes
from crl.cli import main
from crl.clock import Clock
from crl.collector import Collector, UniformPolicy
from crl.config import COLLECTING, TrainConfig
from crl.datasets import Columns, Recorder
from crl.errors import CheckpointError, ConfigError, MissingExtraError
from crl.trainer import TrainResult, train

SIZES = {**{name: value for name, value in TINY.items() if name not in COLLECTING}, "total_updates": 40}
SIZES |= {"eval_interval": 20}
"""Rounds of 4 updates, evaluations at 20 and 40."""
Crl = Callable[..., Result]
Offline = Callable[..., TrainConfig]


@pytest.fixture
def walks(short_world: None, tmp_path: Path) -> Path:
    """A data set of 600 uniform steps in 4 worlds of `point_short`."""
    path = tmp_path / "walks.safetensors"
    datasets.write(path, walked(), env=short_crl.NAME, env_options={})
    return path


def walked() -> Columns:
    env = envs.make(short_crl.NAME, 4, seed=0)
    return datasets.collect(env, UniformPolicy(2, (0,)), 600, seed=0)


@pytest.fixture
def crl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Crl:
    """Call `crl` in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # the signals are pytest's here
    return lambda *arguments: CliRunner().invoke(main, arguments, prog_name="crl")


@pytest.fixture
def offline(walks: Path, tmp_path: Path) -> Offline:
    """`offline(name, **changes)`: settings of a run from `walks` in directory `name`."""
    return lambda name="run", **changes: TrainConfig(
        **{**SIZES, "dataset": str(walks), **changes}, run_dir=str(tmp_path / name)
    )


def learnt(settings: TrainConfig, reporter: Quiet | None = None) -> TrainResult:
    reporter = reporter or Quiet()
    return train(settings, reporter=reporter, stop=reporter.stop)


# --- collecting -------------------------------------------------------------------------------------------------------


def test_what_is_collected_is_what_happened(walks: Path) -> None:
    columns = safetensors.numpy.load_file(walks)
    assert {name: column.shape for name, column in columns.items()} == {
        "observation": (600, 4), "action": (600, 2), "achieved_goal": (600, 2), "episode_start": (600,)
    }  # fmt: skip
    # World after world, each of 150 rows: episodes of 25 steps have 26, the last observation included.
    starts = columns["episode_start"].reshape(4, 150)
    assert (starts == (np.arange(150) % 26 == 0)).all()
    env, policy = envs.make(short_crl.NAME, 4, seed=0), UniformPolicy(2, (0,))
    shown, _ = env.reset(seed=0)
    for t in range(60):
        action = policy.act(shown["observation"], shown["desired_goal"]).numpy()
        for name, value in (("observation", shown["observation"]), ("action", action)):
            np.testing.assert_array_equal(columns[name].reshape(4, 150, -1)[:, t], value)
        np.testing.assert_array_equal(columns["achieved_goal"].reshape(4, 150, 2)[:, t], shown["achieved_goal"])
        shown = env.step(action)[0]


def test_as_many_steps_in_every_world_and_none_too_few() -> None:
    made: list[int] = []
    columns = datasets.collect(CountingEnv(), UniformPolicy(1, (0,)), 10, seed=3, told=made.append)
    assert made == [3, 3, 3, 3]  # of three worlds
    worlds = columns["observation"][:, 0] // 1e4
    assert worlds.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert (columns["achieved_goal"][:, 0] % 100).tolist() == [0, 1, 2, 3, 0, 1, 0, 1, 0, 1, 2, 3]


def test_worlds_that_reset_in_the_last_step_keep_their_last_observation() -> None:
    """Under SAME_STEP a step that ends an episode is two rows of its world, and of no other."""
    made = SyncVectorEnv([scripted_goals.Scripted] * 3, autoreset_mode=AutoresetMode.SAME_STEP)
    env = envs.wrap(made, episode_length=50)
    recorder = Recorder(3)
    Collector(env, UniformPolicy(2, (0,)), recorder, seed=0).collect(8)
    columns = recorder.columns()
    world, episode, moment = columns["observation"].T
    assert len(set(world)) == 3
    starts = columns["episode_start"]
    assert (starts == (moment == 0)).all()
    same = ~starts[1:]
    assert (np.diff(world)[same] == 0).all()
    assert (np.diff(episode)[same] == 0).all()
    assert (np.diff(moment)[same] == 1).all()
    ends = moment[:-1][starts[1:]]
    assert set(ends[:3]) == {3.0, 1.0, 4.0}  # all observations of the first three episodes


# --- a run from a file ------------------------------------------------------------------------------------------------


def test_the_buffer_holds_the_rows_of_the_file(offline: Offline, walks: Path) -> None:
    settings = resolved(offline())
    spec = envs.spec(short_crl.NAME)
    buffer = datasets.read(settings, spec, 5).buffer
    columns = safetensors.numpy.load_file(walks)
    assert (len(buffer), buffer.num_trajectories) == (600, columns["episode_start"].sum())
    batch = buffer.sample(2000, goal="next", columns=("next_observation", "achieved_goal"))
    number = {tuple(row): i for i, row in enumerate(columns["observation"])}
    at = np.array([number[tuple(row)] for row in batch.observation])
    np.testing.assert_array_equal(batch.action, columns["action"][at])
    np.testing.assert_array_equal(batch.next_observation, columns["observation"][at + 1])
    np.testing.assert_array_equal(batch.goal, columns["achieved_goal"][at + 1])
    assert not columns["episode_start"][at + 1].any()
    other = datasets.read(settings, spec, 6).buffer
    assert (other.sample(8).observation != datasets.read(settings, spec, 5).buffer.sample(8).observation).any()


def test_skipping_is_having_drawn(offline: Offline) -> None:
    one, other = (datasets.read(resolved(offline()), envs.spec(short_crl.NAME), 0).buffer for _ in range(2))
    for _ in range(3):
        one.sample(16)
    other.skip(3)
    np.testing.assert_array_equal(one.sample(16).observation, other.sample(16).observation)
    with pytest.raises(ValueError, match="num_batches"):
        other.skip(-1)


def test_a_run_from_a_file(offline: Offline) -> None:
    reporter = Quiet()
    result = learnt(offline(), reporter)
    assert (result.env_steps, result.updates, result.interrupted) == (0, 40, False)
    found = rows(result.run_dir)
    counts = [(row["env_steps"], row["updates"], "eval/success_rate" in row) for row in found]
    rounds = [(0, 4 * n, False) for n in range(1, 11)]
    assert counts == [*rounds[:5], (0, 20, True), *rounds[5:], (0, 40, True)]
    assert "speed/env_steps_per_second" not in config_free(result.run_dir)[0]
    saved = checkpoint.complete(result.run_dir)
    assert [path.name for path in saved] == ["step_20", "step_40"]
    assert {path.name for path in saved[-1].iterdir()} == {
        *("agent.safetensors", "exploration.safetensors", "state.json", "MANIFEST.json")
    }
    told = reporter.text()
    assert "4/40 updates | critic " in told
    assert "eval at 20 updates: success " in told
    assert "steps" not in told.split("run directory")[1]
    events = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    accumulator = events.EventAccumulator(str(result.run_dir)).Reload()
    assert [event.step for event in accumulator.Scalars("train/critic_loss")] == list(range(4, 41, 4))
    assert run.evaluate_run(result.run_dir).num_episodes == 4


def config_free(directory: Path) -> list[dict[str, float]]:
    from crl.metrics import read_metrics

    return read_metrics(directory / "metrics.csv")


def test_it_learns_what_follows_upon_what(offline: Offline) -> None:
    """The critic tells each row's own goal from those of others: chance is ln 16."""
    sized = {"total_updates": 100, "eval_interval": 100, "updates_per_collect": 50, "num_eval_episodes": 1}
    result = learnt(offline(learning_rate=3e-3, **sized))
    assert rows(result.run_dir)[-2]["train/contrastive_loss"] < 0.85 * np.log(16)


@pytest.mark.parametrize("settings", [{}, {"goal_filter": 0.1}], ids=["", "filtered"])
def test_stopped_and_resumed_is_as_if_never_stopped(offline: Offline, settings: dict[str, Any]) -> None:
    learnt(offline("straight", **settings))
    reporter = Quiet()
    reporter.stop_when = lambda progress: progress.updates % 9 == 0
    done, parts = learnt(offline("parts", **settings), reporter), 1
    while done.interrupted:
        assert done.updates == 9 * parts
        reporter.stop.clear()
        done, parts = train(resume=done.run_dir, reporter=reporter, stop=reporter.stop), parts + 1
    assert parts == 5
    straight = offline("straight").run_dir
    assert rows(straight) == rows(done.run_dir)
    assert weights(straight) == weights(done.run_dir)


def test_another_seed_is_another_run_and_a_longer_one_goes_on(offline: Offline) -> None:
    learnt(offline("one"))
    learnt(offline("other", seed=1))
    assert weights(offline("one").run_dir) != weights(offline("other").run_dir)
    learnt(offline("long", total_updates=60))
    longer = train(resume=offline("one").run_dir, total_updates=60, reporter=Quiet())
    assert longer.updates == 60
    assert weights(longer.run_dir) == weights(offline("long").run_dir)


def test_going_on_asks_for_the_same_rows_wherever_they_are(offline: Offline, walks: Path, tmp_path: Path) -> None:
    learnt(offline())
    moved = tmp_path / "elsewhere.safetensors"
    shutil.move(walks, moved)
    with pytest.raises(ConfigError, match=r"walks\.safetensors: there is no such file"):
        train(resume=tmp_path / "run", total_updates=44, reporter=Quiet())
    assert train(resume=tmp_path / "run", total_updates=44, dataset=str(moved), reporter=Quiet()).updates == 44
    columns = safetensors.numpy.load_file(moved)
    columns["action"][7, 0] *= 0.5
    datasets.write(tmp_path / "others.safetensors", columns)
    with pytest.raises(CheckpointError, match=r"others\.safetensors does not have the rows with which the run began"):
        train(resume=tmp_path / "run", dataset=str(tmp_path / "others.safetensors"), reporter=Quiet())


def test_a_run_from_worlds_does_not_become_one_from_a_file(tiny: Callable[..., TrainConfig], walks: Path) -> None:
    train(tiny("online", total_env_steps=80), reporter=Quiet())
    with pytest.raises(ConfigError, match="nothing is collected: leave total_env_steps, num_envs"):
        train(resume=tiny("online").run_dir, dataset=str(walks), reporter=Quiet())


# --- what it takes ----------------------------------------------------------------------------------------------------


def resolved(settings: TrainConfig) -> TrainConfig:
    return resolution.resolve(settings, device="cpu", num_cores=1).config


def test_what_a_run_takes_is_counted(offline: Offline, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = resolved(offline())
    counted = sizes.of(settings)
    buffer = datasets.read(settings, envs.spec(short_crl.NAME), 0).buffer
    assert counted.host == {"buffer": buffer.nbytes}
    assert counted.passing["data set, as it is read"] == 600 * (4 * (4 + 2 + 2) + 1)
    assert counted.checkpoint == counted.passing["a checkpoint's copy"]  # rows are not saved
    monkeypatch.setattr(sizes, "free_memory", lambda: buffer.nbytes)
    with pytest.raises(ConfigError, match=r"the run needs .* of RAM"):
        learnt(offline("other"))


def test_how_long_it_will_be(offline: Offline) -> None:
    settings = resolved(offline(total_updates=42))
    made = forecast._forecast(settings, update=0.1, act=0.02, depths=(4,), step=0.03, worlds=0)
    assert made.evaluation == pytest.approx(25 * 0.05)
    assert made.total == pytest.approx(44 * 0.1 + 3 * made.evaluation)  # eleven rounds; at 20, 40 and 44
    assert (made.collect, made.round) == (0, pytest.approx(0.4))
    clock = Clock(settings, 25)
    assert clock.time_left(0, 4) is None
    for phase, units, seconds in (("learn", 10, 1.0), ("evaluate", 1, 3.0), ("save", 1, 0.5)):
        clock._units[phase], clock._seconds[phase] = units, seconds
    assert clock.time_left(10, 2) == pytest.approx(32 * 0.1 + 2 * 3.5)
    assert clock.time_left(60, 0) == 0


# --- the command line -------------------------------------------------------------------------------------------------

OPTIONS = [f"--{name.replace('_', '-')}={value}" for name, value in SIZES.items()]


def test_collect_train_collect_again(crl: Crl, short_world: None, tmp_path: Path) -> None:
    first = crl("collect", "--env", short_crl.NAME, "--steps", "4e2", "--num-envs", "4", "--output", "walks")
    assert first.exit_code == 0, first.output
    assert first.output == "walks: 400 rows in 16 trajectories of point_short, uniform actions\n"
    made = crl("train", *OPTIONS, "--dataset", "walks", "--run-dir", "run")
    assert made.exit_code == 0, made.output
    assert "done: 40 updates in run" in made.output
    for policy, step in (("stochastic", 20), ("deterministic", 40)):
        arguments = ("--policy", policy, "--checkpoint", str(step), "--steps", "100", "--num-envs", "2")
        for name in ("once", "again"):
            done = crl("collect", "run", *arguments, "--output", f"{policy}-{name}")
            assert done.exit_code == 0, done.output
        assert f"of point_short, run step_{step}, {policy}" in done.output
        assert (tmp_path / f"{policy}-once").read_bytes() == (tmp_path / f"{policy}-again").read_bytes()
    settings, saved = run.load_policy("run", 40)[1:]
    policy = run.load_policy("run", 40)[0]
    columns = safetensors.numpy.load_file("deterministic-once")
    env = envs.make(short_crl.NAME, 2, seed=0)
    shown, _ = env.reset(seed=0)
    action = policy.act(shown["observation"], shown["desired_goal"], deterministic=True).numpy()
    np.testing.assert_array_equal(columns["action"][[0, 50]], action)
    told = datasets.File("deterministic-once").metadata
    assert told == {
        "format": 1, "env": "point_short", "env_options": {}, "policy": "run step_40, deterministic", "worlds": 2,
        "seed": 0,
    }  # fmt: skip
    assert (settings.env, saved.name) == ("point_short", "step_40")
    planned = crl("plan", *OPTIONS, "--dataset", "walks", "--no-measure")
    assert planned.exit_code == 0, planned.output
    assert "data set, as it is read" in planned.output
    assert crl("plot", "run", "--metric", "train/critic_loss").exit_code == 0
    table = (tmp_path / "curves.csv").read_text().splitlines()
    assert len(table) == 11
    one_line(crl("collect", "run", "--checkpoint", "30", "--steps", "100", "--output", "x"), 1, "step_30", "step_20")
    one_line(crl("collect", "run", "--steps", "100", "--output", "walks"), 2, "walks is there already")


def test_layouts_and_options_go_with_the_data(crl: Crl, tmp_path: Path) -> None:
    made = crl(
        "collect", "--env", "point_maze", "--layout", "big", "--steps", "8", "--num-envs", "2", "--output", "big"
    )
    assert made.exit_code == 0, made.output
    learning = ["train", "--env", "point_maze", "--dataset", "big", "--device", "cpu"]
    one_line(crl(*learning), 2, "big is of point_u_maze with the options {'layout': 'big'}", "--layout")
    one_line(
        crl(*learning[:2], "ant_maze", *learning[3:]), 2, "is of point_u_maze, and env is ant_u_maze", "--env point"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["big"]
    config_of_run = TrainConfig(env="point_maze", layout="big", dataset="big")
    spec = envs.spec("point_maze", layout="big")
    assert len(datasets.read(resolved(config_of_run), spec, 0).buffer) == 8


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["either the directory of a run, or --env NAME"]),
        (["run", "--env", "point_maze"], ["either the directory of a run, or --env NAME"]),
        (["run", "--layout", "big"], ["go with --env"]),
        (["--env", "point_maze", "--policy", "deterministic"], ["of a run: give its directory"]),
        (["--env", "point_maze", "--checkpoint", "3"], ["of a run: give its directory"]),
        (["--env", "point_mase"], ["point_maze"]),
        (["--env", "point_maze", "--layout", "bgi"], ["bgi"]),
        (["--env", "point_maze", "--env-options", "size"], ["NAME=VALUE"]),
        (["--env", "point_maze", "--num-envs", "99"], ["at least 198, two in each of 99 worlds, got 100"]),
        (["--env", "point_maze", "--policy", "unifrom"], ["uniform"]),
    ],
)
def test_a_mistake_is_one_line_and_makes_nothing(
    crl: Crl,
    tmp_path: Path,
    arguments: list[str],
    parts: list[str],
) -> None:
    given = arguments if "--output" in arguments else [*arguments, "--output", "walks"]
    one_line(crl("collect", *given, "--steps", "100"), 2, *parts)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(crl: Crl, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    made = crl("collect", "--env", "point_maze", "--steps", "8", "--num-envs", "2", "--output", "file/walks")
    one_line(made, 2, "file/walks cannot be written")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# --- what is refused --------------------------------------------------------------------------------------------------


def test_names_of_no_data_set(walks: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("not a table")
    safetensors.numpy.save_file({"x": np.zeros(3)}, tmp_path / "weights")
    safetensors.numpy.save_file({"x": np.zeros(3)}, tmp_path / "list", {datasets.METADATA: "[1]"})
    safetensors.numpy.save_file({"x": np.zeros(3)}, tmp_path / "text", {datasets.METADATA: "x"})
    for name, message in (
        ("d4rl:pointmaze", "must be a file, minari:ID or ogbench:NAME; there is no file 'd4rl:pointmaze'"),
        (str(tmp_path / "nowhere"), "nowhere: there is no such file; `crl collect` writes one"),
        (str(tmp_path), "cannot be read as a file of `crl collect`"),
        (str(tmp_path / "list"), "list cannot be read as a file of `crl collect`"),
        (str(tmp_path / "text"), "text cannot be read as a file of `crl collect`"),
        (str(tmp_path / "notes"), "notes cannot be read as a file of `crl collect`"),
        (str(tmp_path / "weights"), "weights is a safetensors file of data set format None, expected 1: write it with"),
    ):
        with pytest.raises(ConfigError) as error:
            datasets.find(name)
        assert message in str(error.value)
        assert "\n" not in str(error.value)


def changed(name: str, column: Any) -> Callable[[Columns], Columns]:
    return lambda columns: {**columns, name: column(columns[name]) if callable(column) else column}


def without(name: str) -> Callable[[Columns], Columns]:
    return lambda columns: {other: column for other, column in columns.items() if other != name}


def put(value: float) -> Callable[[Any], Any]:
    def put_at_17(column: Any) -> Any:
        column[17, 0] = value
        return column

    return put_at_17


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("achieved_goal"), "has no column achieved_goal: expected observation, action, achieved_goal"),
        (without("action"), "has no column action"),
        (without("episode_start"), "has no column episode_start"),
        (
            changed("observation", lambda x: x[:, :3]),
            "observation has shape (600, 3), but env point_short asks for (600",
        ),
        (changed("action", lambda x: x[:-1]), "action has shape (599, 2), but env point_short asks for (600, 2)"),
        (changed("achieved_goal", lambda x: x[:, 0]), "choose the environment that it was collected in (--env)"),
        (changed("reward", np.zeros(600, np.float32)), "has a column reward that env point_short has not"),
        (changed("observation", put(np.nan)), "cannot be learnt from: observation"),
        (changed("achieved_goal", put(np.inf)), "cannot be learnt from: achieved_goal"),
        (changed("action", put(np.nan)), "cannot be learnt from: action"),
        (changed("action", put(-1.5)), "actions lie in [-1, 1] here, and it has one of size 1.5"),
        (changed("episode_start", lambda x: x | True), "600 rows and no two of one trajectory"),
        (changed("episode_start", lambda x: x.astype(np.float32)), "episode_start: expected bool"),
        (lambda columns: {name: column[:0] for name, column in columns.items()}, "0 rows and no two of one trajectory"),
    ],
)
def test_columns_that_do_not_fit(
    short_world: None, offline: Offline, tmp_path: Path, change: Callable[[Columns], Columns], message: str
) -> None:
    datasets.write(tmp_path / "broken", change(walked()))
    with pytest.raises(ConfigError) as error:
        learnt(offline(dataset=str(tmp_path / "broken")))
    assert message in str(error.value)
    assert "broken" in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_file_cut_short_is_refused_and_a_kill_leaves_none(walks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = walks.with_name("short")
    short.write_bytes(walks.read_bytes()[:-1])
    with pytest.raises(ConfigError, match="short cannot be read"):
        datasets.find(str(short))
    before = set(walks.parent.iterdir())

    def full(*_: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="other cannot be written: No space left"):
        datasets.write(walks.with_name("other"), safetensors.numpy.load_file(walks))
    assert set(walks.parent.iterdir()) == before


# --- Minari -----------------------------------------------------------------------------------------------------------


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("minari", "ogbench"):
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.delitem(sys.modules, f"{name}.utils", raising=False)
        with pytest.raises(MissingExtraError, match=rf"{name}:x needs {name}.*, which is not installed: pip install"):
            datasets.find(f"{name}:x")


LOW, HIGH = np.array([-2.0, 0.0]), np.array([2.0, 1.0])


@pytest.fixture
def minari(monkeypatch: pytest.MonkeyPatch, short_world: None) -> SimpleNamespace:
    """Stands in for the package: one data set, of which `episodes` are given, with 5 and 8 actions at first."""
    rng = np.random.default_rng(0)

    def episode(number: int, length: int) -> SimpleNamespace:
        place = rng.normal(size=(length + 1, 4))
        return SimpleNamespace(
            id=number,
            observations={"observation": place, "achieved_goal": place[:, :2], "desired_goal": place[:, 2:]},
            actions=rng.uniform(LOW, HIGH, (length, 2)),
            rewards=np.zeros(length),
            terminations=np.zeros(length, bool),
            truncations=np.arange(length) == length - 1,
            infos={},
        )

    held = SimpleNamespace(episodes=[episode(0, 5), episode(1, 8)])
    package: Any = ModuleType("minari")

    def load_dataset(dataset_id: str, download: bool = False) -> SimpleNamespace:
        if dataset_id != "point/short-v0" or not download:
            raise FileNotFoundError(f"Dataset {dataset_id} not found")
        return SimpleNamespace(
            total_steps=sum(len(e.actions) for e in held.episodes),
            total_episodes=len(held.episodes),
            action_space=SimpleNamespace(low=LOW, high=HIGH),
            iterate_episodes=lambda: iter(held.episodes),
        )

    package.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "minari", package)
    return held


def of(name: str) -> tuple[datasets.Source, Columns]:
    source = datasets.find(name)
    return source, source.columns(TrainConfig(env=short_crl.NAME, dataset=name), envs.spec(short_crl.NAME))


def test_minari_s_episodes_with_their_last_observation(minari: SimpleNamespace, offline: Offline) -> None:
    source, columns = of("minari:point/short-v0")
    assert source.num_rows == 6 + 9 == len(columns["episode_start"])
    assert np.flatnonzero(columns["episode_start"]).tolist() == [0, 6]
    first, second = minari.episodes
    shown = np.concatenate((first.observations["observation"], second.observations["observation"]))
    np.testing.assert_array_equal(columns["observation"], shown.astype(np.float32))
    np.testing.assert_array_equal(columns["achieved_goal"], shown[:, :2].astype(np.float32))
    scaled = (second.actions - [0, 0.5]) / [2, 0.5]
    np.testing.assert_allclose(columns["action"][6:14], scaled, atol=1e-6)
    assert np.abs(columns["action"]).max() <= 1
    assert learnt(offline(dataset="minari:point/short-v0", total_updates=4)).updates == 4


def test_minari_s_that_are_of_no_use(minari: SimpleNamespace) -> None:
    with pytest.raises(ConfigError, match="minari:point/nowhere-v0 cannot be had: Dataset point/nowhere-v0 not found"):
        datasets.find("minari:point/nowhere-v0")
    minari.episodes[1].observations["achieved_goal"] = np.zeros((8, 2))
    with pytest.raises(ConfigError, match="expected 9 rows of achieved_goal for 8 actions in episode 1, got 8"):
        of("minari:point/short-v0")
    minari.episodes[0].observations = np.zeros((6, 4))
    with pytest.raises(ConfigError, match="is of no goal environment"):
        of("minari:point/short-v0")


# --- OGBench ----------------------------------------------------------------------------------------------------------


def npz(path: Path, **changes: Any) -> dict[str, Any]:
    """A file as OGBench's: three trajectories of 21 rows, the last of each marked; returns what is in it."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "observations": rng.normal(size=(63, 4)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (63, 2)).astype(np.float32),
        "terminals": (np.arange(63) % 21 == 20).astype(np.float32),
        "qpos": rng.normal(size=(63, 2)),
        "qvel": rng.normal(size=(63, 2)),
        **changes,
    }
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return arrays


@pytest.fixture
def ogbench(monkeypatch: pytest.MonkeyPatch, short_world: None, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Stands in for the package: `ogbench(**changes)` puts a file where it has them."""
    package, utils, relabel = (ModuleType(name) for name in ("ogbench", "ogbench.utils", "ogbench.relabel_utils"))

    def add_oracle_reps(name: str, env: Any, dataset: dict[str, Any]) -> None:
        assert env is None  # of a maze none is needed
        dataset["oracle_reps"] = dataset["qpos"][:, :2].astype(np.float32)

    utils.DEFAULT_DATASET_DIR = str(tmp_path / "data")  # type: ignore[attr-defined]
    utils.download_datasets = lambda names, directory: None  # type: ignore[attr-defined]
    relabel.add_oracle_reps = add_oracle_reps  # type: ignore[attr-defined]
    for module in (package, utils, relabel):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    (tmp_path / "data").mkdir()
    return lambda **changes: npz(tmp_path / "data" / "pointmaze-short-v0.npz", **changes)


def test_ogbench_s_rows_and_goals(ogbench: Callable[..., dict[str, Any]], offline: Offline) -> None:
    arrays = ogbench()
    source, columns = of("ogbench:pointmaze-short-v0")
    assert source.num_rows == 63
    np.testing.assert_array_equal(columns["observation"], arrays["observations"])
    np.testing.assert_array_equal(columns["action"], arrays["actions"])
    np.testing.assert_array_equal(columns["achieved_goal"], arrays["qpos"].astype(np.float32))
    assert np.flatnonzero(columns["episode_start"]).tolist() == [0, 21, 42]
    whole = SimpleNamespace(observation_dim=4, goal_dim=4)
    goal = source.columns(TrainConfig(), whole)["achieved_goal"]  # type: ignore[arg-type]
    np.testing.assert_array_equal(goal, arrays["observations"])
    assert learnt(offline(dataset="ogbench:pointmaze-short-v0", total_updates=4)).updates == 4


def test_ogbench_s_that_are_of_no_use(ogbench: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(ConfigError, match=r"ogbench:pointmaze-short-v0 cannot be had: .*No such file"):
        datasets.find("ogbench:pointmaze-short-v0")
    ogbench(terminals=None)
    with pytest.raises(ConfigError, match="has no column terminals"):
        datasets.find("ogbench:pointmaze-short-v0")
    ogbench(qpos=None)
    with pytest.raises(ConfigError, match="has no column qpos, of which the goals of env are made"):
        of("ogbench:pointmaze-short-v0")


# --- the packages themselves ------------------------------------------------------------------------------------------


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_a_data_set_that_minari_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    minari = importlib.import_module("minari")
    collector = minari.DataCollector(scripted_goals.Scripted())
    for seed in range(3):
        collector.reset(seed=seed)
        while not any(collector.step(collector.env.action_space.sample())[2:4]):
            pass
    collector.create_dataset("scripted/random-v0")
    collector.close()  # its temporary directory
    settings = TrainConfig(env=scripted_goals.NAME, dataset="minari:scripted/random-v0")
    read = datasets.read(resolved(settings), envs.spec(scripted_goals.NAME), 0)
    assert len(read.buffer) == datasets.find(settings.dataset).num_rows == 3 * 4
    batch = read.buffer.sample(64, goal="final", columns=("next_observation", "achieved_goal"))
    np.testing.assert_array_equal(batch.next_observation[:, 2], batch.achieved_goal[:, 0] + 1)
    assert (batch.goal == 3).all()


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_a_file_that_ogbench_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    name = "pointmaze-medium-navigate-v0"
    env = f"ogbench:{name}"
    directory = tmp_path / ".ogbench" / "data"
    directory.mkdir(parents=True)
    place = np.random.default_rng(1).normal(size=(63, 2))
    for file in (name, f"{name}-val"):
        npz(directory / f"{file}.npz", observations=place.astype(np.float32), qpos=place)
    spec = envs.spec(env)
    assert (spec.observation_dim, spec.goal_dim) == (2, 2)
    read = datasets.read(resolved(TrainConfig(env=env, dataset=env)), spec, 0)
    assert (len(read.buffer), read.buffer.num_trajectories) == (63, 3)
    theirs = importlib.import_module("ogbench.utils").load_dataset(directory / f"{name}.npz")
    known = {tuple(row) for row in np.hstack((theirs["observations"], theirs["next_observations"]))}
    batch = read.buffer.sample(256, columns=("next_observation",))
    assert {tuple(row) for row in np.hstack((batch.observation, batch.next_observation))} <= known


def test_a_data_set_by_hand(tmp_path: Path) -> None:
    """One that says nothing of an environment fits every one of its sizes."""
    datasets.write(tmp_path / "walks", walked_by_hand(), source="a robot")
    told = datasets.File(str(tmp_path / "walks")).metadata
    assert told == {"format": 1, "source": "a robot"}
    settings = resolved(TrainConfig(env="point_maze", dataset=str(tmp_path / "walks")))
    assert len(datasets.read(settings, envs.spec("point_maze"), 0).buffer) == 6


def walked_by_hand() -> Columns:
    place = np.zeros((6, 4), np.float32)
    start = np.arange(6) % 3 == 0
    return {"observation": place, "action": place[:, :2], "achieved_goal": place[:, :2], "episode_start": start}
