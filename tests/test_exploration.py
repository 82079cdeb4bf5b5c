"""What evaluations say of exploration: each number against a slow way to find it; runs that are the same with it."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import TINY, Quiet
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from crl import TrajectoryBuffer, checkpoint, envs, losses, resolution
from crl.cli import main
from crl.config import TrainConfig
from crl.envs.layouts import Maze
from crl.errors import CheckpointError, ConfigError
from crl.exploration import (
    PER_SIDE,
    Exploration,
    Squares,
    evenness,
    goal_axes,
    hopkins,
    nearest,
    rotation,
    share_nearer,
)
from crl.metrics import METRICS, read_metrics
from crl.probes import probe
from crl.run import EVALUABLE, reopen
from crl.trainer import TrainResult, train

Tiny = Callable[..., TrainConfig]
Array = NDArray[Any]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


# --- squares ----------------------------------------------------------------------------------------------------------


def test_a_maze_is_counted_in_quarters_of_its_free_cells(rng: np.random.Generator) -> None:
    maze = Maze.named("u")
    squares = Squares.of_mazes([maze])
    assert squares.free.sum() == 4 * (maze.grid != "#").sum()
    anywhere = rng.uniform(-6, 4 * max(maze.grid.shape) + 2, (2000, 3))  # the third entry is no place
    places, numbers = squares.places(anywhere)
    expected = []
    for x, y, _ in anywhere:
        i, j = math.floor(x / 4 + 0.5), math.floor(y / 4 + 0.5)
        rows, columns = maze.grid.shape
        if 0 <= i < rows and 0 <= j < columns and maze.grid[i, j] != "#":
            expected.append((x, y, 2 * columns * math.floor(x / 2 + 1) + math.floor(y / 2 + 1)))
    np.testing.assert_allclose(places, np.array(expected)[:, :2])
    assert numbers.tolist() == [int(number) for _, _, number in expected]


def test_mazes_of_several_worlds_are_one_ground() -> None:
    one, two = Maze(("####", "#RG#", "#.##", "####")), Maze(("####", "#R##", "#.G#", "####"))
    free = Squares.of_mazes([one, two]).free[::2, ::2]
    assert (free == np.array([[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]])).all()


def test_without_a_maze_the_box_of_starts_and_goals_is_counted() -> None:
    squares = Squares.around(np.array([[5.0, -1.0, 2.0, 9.0], [5.0, 3.0, 2.0, 1.0], [5.0, 0.0, 2.0, 5.0]]))
    assert squares is not None
    assert squares.axes == (1, 3)  # the others never change
    places, numbers = squares.places(
        np.array([[0, -1, 0, 1], [0, 2.999, 0, 8.999], [0, 3.1, 0, 5], [0, -0.74, 0, 1.6]], dtype=np.float32)
    )
    np.testing.assert_allclose(places, [[-1, 1], [2.999, 8.999], [-0.74, 1.6]], atol=1e-6)
    assert numbers.tolist() == [0, PER_SIDE**2 - 1, PER_SIDE + 1]
    row = Squares.around(np.array([[1.0, 2.0], [1.0, 4.0]]))
    assert row is not None
    assert (row.axes, row.free.shape) == ((1,), (PER_SIDE,))
    assert row.places(np.array([[0.0, 3.99]]))[1].tolist() == [PER_SIDE - 1]
    assert Squares.around(np.ones((3, 2))) is None


def test_places_drawn_are_even_over_the_free_squares_and_nowhere_else() -> None:
    squares = Squares.of_mazes([Maze.named("u")])
    drawn = squares.draw(np.random.default_rng(0), 28_000)
    places, numbers = squares.places(drawn)
    assert len(places) == len(drawn)
    counts = np.bincount(numbers, minlength=squares.free.size)[squares.free.ravel()]
    assert len(counts) == 28
    assert np.abs(counts - 1000).max() < 5 * math.sqrt(1000)
    within = (drawn - squares.low) / squares.width % 1
    assert np.abs(np.histogram(within, 10, (0, 1))[0] - 5600).max() < 5 * math.sqrt(5600)


# --- statistics -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("visits", "expected"),
    [
        ([5, 5, 5], 1.0),
        ([0, 9, 0], 0.0),
        ([1, 1, 2, 0], 1.5 * math.log(2) / math.log(4)),
        ([3], 1.0),
    ],
)
def test_entropy_of_known_histograms(visits: list[int], expected: float) -> None:
    assert evenness(np.array(visits)) == pytest.approx(expected, abs=1e-12)


def test_nearest_neighbours_are_those_of_a_double_loop(rng: np.random.Generator) -> None:
    points, others = rng.normal(100, 3, (40, 5)), rng.normal(100, 3, (25, 5))
    to_others = [min(math.dist(p, q) for q in others) for p in points]
    to_each_other = [min(math.dist(p, q) for j, q in enumerate(points) if i != j) for i, p in enumerate(points)]
    np.testing.assert_allclose(nearest(torch.from_numpy(points), torch.from_numpy(others)), to_others, rtol=1e-9)
    np.testing.assert_allclose(nearest(torch.from_numpy(points)), to_each_other, rtol=1e-9)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_hopkins_is_its_formula(dim: int, rng: np.random.Generator) -> None:
    points, uniform = rng.random((60, dim)), rng.random((6, dim))
    chosen = rng.choice(60, 6, replace=False)
    u = sum(min(math.dist(p, q) for q in points) ** dim for p in uniform)
    w = sum(min(math.dist(points[i], q) for j, q in enumerate(points) if j != i) ** dim for i in chosen)
    assert hopkins(points, uniform, chosen) == pytest.approx(u / (u + w), rel=1e-9)


def test_hopkins_of_even_points_heaps_and_a_lattice() -> None:
    rng = np.random.default_rng(1)

    def of(make: Callable[[], Array]) -> Array:
        found = []
        for _ in range(200):
            points = make()
            found.append(hopkins(points, rng.random((40, 2)), rng.choice(len(points), 40, replace=False)))
        return np.array(found)

    even = of(lambda: rng.random((800, 2)))
    # Beta(40, 40) has the mean 1/2 and the deviation 0.0556; probes near the border have farther to go.
    assert even.mean() == pytest.approx(0.5, abs=0.03)
    assert even.std() == pytest.approx(0.5 / math.sqrt(81), rel=0.2)
    assert of(lambda: rng.normal(0.5, 0.02, (800, 2))).min() > 0.95
    lattice = (np.stack(np.meshgrid(np.arange(28), np.arange(28)), -1).reshape(-1, 2) + 0.5) / 28
    assert of(lambda: lattice).max() < 0.3


@pytest.mark.parametrize("energy", losses.ENERGIES)
def test_share_nearer_than_the_start_is_that_of_a_double_loop(energy: str, rng: np.random.Generator) -> None:
    psi, start, goal = (torch.from_numpy(rng.normal(size=(count, 4))) for count in (30, 9, 9))
    nearer = [
        float(losses.energy(row[None], goal[i : i + 1], energy)) > float(losses.energy(start[i], goal[i], energy))
        for row in psi
        for i in range(9)
    ]
    assert share_nearer(psi, start, goal, energy) == pytest.approx(np.mean(nearer))
    assert 0 < np.mean(nearer) < 1


@given(st.floats(0, 179), st.floats(-5, 5), st.sampled_from(losses.ENERGIES))
def test_the_rotation_of_a_known_axis(degrees: float, moved: float, energy: str) -> None:
    turn = torch.from_numpy(Rotation.from_euler("z", degrees, degrees=True).as_matrix())
    goal = torch.tensor([[2.0, 0, 0], [0, 3.0, 0]], dtype=torch.float64)  # at right angles to the axis of the turn
    psi = torch.tensor([[0.5, -1, 0.5], [-0.5, 1, -0.5]], dtype=torch.float64)
    before, after = goal_axes(psi, goal, energy), goal_axes(psi @ turn.T, goal @ turn.T, energy)
    assert rotation(after, before) == pytest.approx(degrees, abs=1e-6)
    if energy in ("norm", "l2"):  # which look at differences alone: an offset of all is no rotation
        assert rotation(goal_axes(psi + moved, goal + moved, energy), before) == pytest.approx(0, abs=1e-6)


def test_small_rotations_are_not_lost() -> None:
    axis = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    turned = torch.tensor([[math.cos(1e-9), math.sin(1e-9)]], dtype=torch.float64)
    assert rotation(turned, axis) == pytest.approx(math.degrees(1e-9), rel=1e-6)


# --- a buffer measured ------------------------------------------------------------------------------------------------


class Identity:
    """A policy whose psi is the goal itself, times `factor`."""

    def __init__(self, factor: float | None = 1.0) -> None:
        self.factor = factor

    def goal_representation(self, goal: Array) -> torch.Tensor | None:
        return None if self.factor is None else self.factor * torch.from_numpy(np.asarray(goal, dtype=np.float32))


def buffer_of(places: Array) -> TrajectoryBuffer:
    buffer = TrajectoryBuffer(
        num_envs=1, capacity=len(places), observation=((1,), np.float32), action=(1,), achieved_goal=(2,)
    )
    add(buffer, places)
    return buffer


def add(buffer: TrajectoryBuffer, places: Array) -> None:
    count = len(places)
    buffer.add_rollout(
        observation=np.zeros((count, 1, 1), np.float32),
        action=np.zeros((count, 1, 1), np.float32),
        achieved_goal=places[:, None].astype(np.float32),
        episode_start=np.zeros((count, 1), bool),
    )


MAZE = Maze(("#####", "#R.G#", "#####"), cell=2.0)
START, GOAL = np.float32([[2, 2]]), np.float32([[2, 6]])


def exploration(**changes: Any) -> Exploration:
    return Exploration(
        **{"squares": Squares.of_mazes([MAZE]), "start": START, "goal": GOAL, "energy": "norm", "seed": 3, **changes}
    )


def test_a_buffer_is_measured(rng: np.random.Generator) -> None:
    west, east = rng.uniform([1, 1], [3, 3], (500, 2)), rng.uniform([1, 5], [3, 7], (500, 2))
    explored, buffer = exploration(), buffer_of(west)
    first = explored.measure(buffer, Identity(), 1)  # type: ignore[arg-type]
    assert first["explore/coverage"] == 4 / 12
    assert first["explore/entropy"] == pytest.approx(math.log(4) / math.log(12), abs=0.01)
    assert first["explore/hopkins"] > 0.9  # all in one cell of three
    # Nearer to the goal than the start is: y above a circle around the goal through the start.
    assert first["explore/nearer_than_start"] == pytest.approx(np.mean(np.hypot(*(west - GOAL).T) < 4), abs=0.02)
    assert first["explore/psi_spread"] == pytest.approx(math.sqrt(2 * west.var(0).sum()), rel=0.02)
    assert first["explore/psi_nearest"] == pytest.approx(float(nearest(torch.from_numpy(west)).mean()), rel=0.1)
    assert "explore/goal_axis_rotation" not in first
    # What was overwritten has been visited all the same, and is in the buffer no more.
    add(buffer, east)
    second = explored.measure(buffer, Identity(2.0), 2)  # type: ignore[arg-type]
    assert second["explore/coverage"] == 8 / 12
    assert second["explore/entropy"] == pytest.approx(math.log(4) / math.log(12), abs=0.01)
    assert second["explore/nearer_than_start"] == 1
    assert second["explore/goal_axis_rotation"] > 90  # the goal lay east of the mean, and is in the midst of it now
    assert set(second) <= set(METRICS)


def test_measuring_changes_nothing_and_goes_on_from_what_was_saved(rng: np.random.Generator) -> None:
    places = rng.uniform([1, 1], [3, 7], (400, 2))
    buffer, explored = buffer_of(places), exploration()
    explored.measure(buffer, Identity(), 1)  # type: ignore[arg-type]
    state = explored.state_dict()
    drawn, ahead = buffer.batches_drawn, buffer.peek(50, goal="random")
    found = explored.measure(buffer, Identity(3.0), 2)  # type: ignore[arg-type]
    assert buffer.batches_drawn == drawn
    assert (buffer.sample(50, goal="random").goal == ahead.goal).all()
    other = exploration()
    other.load_state_dict(state)
    again = other.measure(buffer_of(places), Identity(3.0), 2)  # type: ignore[arg-type]
    assert again == found
    with pytest.raises(ValueError, match=r"visited: expected \(256,\) squares, got \(60,\)"):
        exploration(squares=Squares.around(np.eye(2))).load_state_dict(state)


def test_what_means_nothing_is_left_out(rng: np.random.Generator) -> None:
    buffer = buffer_of(rng.uniform([1, 1], [3, 7], (400, 2)))
    without_psi = exploration().measure(buffer, Identity(None), 1)  # type: ignore[arg-type]
    assert set(without_psi) == {"explore/coverage", "explore/entropy", "explore/hopkins"}
    without_places = exploration(squares=None).measure(buffer, Identity(), 1)  # type: ignore[arg-type]
    assert without_places.keys() & without_psi.keys() == set()
    assert "explore/psi_nearest" in without_places
    one_place = exploration().measure(buffer_of(np.ones((400, 2)) * 2), Identity(), 1)  # type: ignore[arg-type]
    assert one_place == {"explore/coverage": 1 / 12, "explore/entropy": 0.0}
    outside = exploration().measure(buffer_of(np.ones((400, 2)) * 90), Identity(), 1)  # type: ignore[arg-type]
    assert outside == {"explore/coverage": 0.0}
    few = buffer_of(np.zeros((400, 2)))
    assert exploration().measure(few, Identity(), 1)
    empty = TrajectoryBuffer(num_envs=1, capacity=9, observation=((1,), np.float32), action=(1,), achieved_goal=(2,))
    assert exploration().measure(empty, Identity(), 1) == {}  # type: ignore[arg-type]


# --- runs -------------------------------------------------------------------------------------------------------------


def run(settings: TrainConfig, reporter: Quiet | None = None) -> TrainResult:
    reporter = reporter or Quiet()
    return train(settings, reporter=reporter, stop=reporter.stop)


def evaluations(directory: Path) -> list[dict[str, float]]:
    return [row for row in read_metrics(directory / "metrics.csv") if "eval/success_rate" in row]


def untimed(rows: list[dict[str, float]], *left_out: str) -> list[dict[str, float]]:
    timed = ("wall_time", "speed/", *left_out)
    return [{name: value for name, value in row.items() if not name.startswith(timed)} for row in rows]


def files(directory: Path) -> Mapping[str, bytes]:
    return {path.name: path.read_bytes() for path in checkpoint.latest(directory).iterdir() if path.suffix != ".json"}


def test_a_run_that_is_measured_is_the_same_as_one_that_is_not(tiny: Tiny) -> None:
    measured, bare = run(tiny("measured", probes=True)).run_dir, run(tiny("bare", exploration_metrics=False)).run_dir
    rows, others = (read_metrics(path / "metrics.csv") for path in (measured, bare))
    assert untimed(rows, "explore/", "probe/") == untimed(others)
    of_measured = dict(files(measured))
    del of_measured["exploration.safetensors"]
    assert of_measured == files(bare)
    assert not [name for row in others for name in row if name.startswith(("explore/", "probe/"))]
    first, last = evaluations(measured)
    wanted = {name for name in METRICS if name.startswith(("explore/", "probe/"))}
    assert wanted - first.keys() == {"explore/goal_axis_rotation"}
    assert wanted <= last.keys()
    assert last["explore/coverage"] >= first["explore/coverage"] > 0
    assert 0 < last["explore/goal_axis_rotation"] < 180


def test_stopped_and_resumed_it_measures_the_same(tiny: Tiny) -> None:
    straight = run(tiny("straight", probes=True)).run_dir
    reporter = Quiet()
    reporter.stop_when = lambda progress: progress.updates == 30
    stopped = run(tiny("stopped", probes=True), reporter)
    assert stopped.interrupted
    train(resume=stopped.run_dir, reporter=Quiet())
    assert untimed(evaluations(stopped.run_dir)) == untimed(evaluations(straight))
    assert files(stopped.run_dir) == files(straight)


def test_a_run_of_before_these_metrics_goes_on(tiny: Tiny) -> None:
    done = run(tiny(total_env_steps=200)).run_dir
    saved = checkpoint.latest(done)
    manifest = json.loads((saved / "MANIFEST.json").read_text())
    del manifest["files"]["exploration.safetensors"]
    (saved / "exploration.safetensors").unlink()
    (saved / "MANIFEST.json").write_text(json.dumps(manifest))
    train(resume=done, total_env_steps=400, reporter=Quiet())
    last = evaluations(done)[-1]
    assert "explore/coverage" in last
    assert "explore/goal_axis_rotation" not in last  # nobody knows how it lay before


def test_runs_that_have_no_psi_or_no_maze_or_two_threads(tiny: Tiny) -> None:
    cloned = evaluations(run(tiny("cloned", algorithm="gcbc", representation_dim=None)).run_dir)[-1]
    assert {name for name in cloned if name.startswith("explore/")} == {
        "explore/coverage",
        "explore/entropy",
        "explore/hopkins",
    }
    beside = evaluations(run(tiny("beside", asynchronous=True)).run_dir)[-1]
    assert beside["explore/goal_axis_rotation"] > 0
    reacher = evaluations(run(tiny("reacher", env="reacher", total_env_steps=200)).run_dir)[-1]
    assert 0 < reacher["explore/coverage"] <= 1


def test_images_are_no_places(rng: np.random.Generator) -> None:
    name = "point_nine_rooms_image"
    env = envs.make(name, 2, seed=0)
    explored = Exploration.of(TrainConfig(env=name, energy="norm"), env, env, seed=1)
    shown, _ = env.reset(seed=2)
    buffer = TrajectoryBuffer(
        num_envs=1, capacity=50, observation=(shown["observation"].shape[1:], np.uint8), action=(2,), achieved_goal=None
    )
    images = rng.integers(256, size=(50, 1, shown["observation"].shape[1]), dtype=np.uint8)
    starts = np.zeros((50, 1), dtype=bool)
    buffer.add_rollout(observation=images, action=np.zeros((50, 1, 2), np.float32), episode_start=starts)
    found = explored.measure(buffer, Identity(), 1)  # type: ignore[arg-type]
    assert set(found) == {f"explore/{name}" for name in ("psi_nearest", "psi_spread", "nearer_than_start")}
    env.close()


def test_worlds_that_differ_are_one_ground() -> None:
    settings = TrainConfig(env="point_random_maze", energy="norm")
    env = envs.make("point_random_maze", 3, seed=0)
    squares = Exploration.of(settings, env, env, seed=1)._squares
    assert squares is not None
    free = np.any([maze.grid != "#" for maze in env.task.mazes], axis=0)
    assert squares.free.sum() == 4 * free.sum() > max(4 * (maze.grid != "#").sum() for maze in env.task.mazes)
    # Of a data set nobody knows what the mazes were: the box of starts and goals is left.
    boxed = Exploration.of(settings, None, env, seed=1)._squares
    assert boxed is not None
    assert boxed.free.shape == (PER_SIDE, PER_SIDE)
    env.close()


# --- probes -----------------------------------------------------------------------------------------------------------


class Corridor:
    """Worlds of a straight corridor whose episodes last a step and reach what is at most `reach` m away."""

    num_envs = 10

    def __init__(self, reach: float) -> None:
        self.task = SimpleNamespace(maze=Maze(("#" * 13, "#R" + "." * 9 + "G#", "#" * 13), cell=2.0))
        self.reach, self.commanded = reach, np.zeros((self.num_envs, 3))
        self.seeds: list[int] = []

    @property
    def places(self) -> tuple[Array, Array]:
        start = np.tile([2.1, 1.9, 0.5], (self.num_envs, 1))
        return start, np.tile([2.0, 22.0, 0.7], (self.num_envs, 1))

    def reset(self, *, seed: int, options: dict[str, Any] | None = None) -> tuple[dict[str, Array], dict[str, Array]]:
        self.seeds.append(seed)
        if options:
            self.commanded = options["goal"]
        return {"observation": self.commanded, "desired_goal": self.commanded}, {}

    def step(self, action: Array) -> tuple[Any, ...]:
        done = np.ones(self.num_envs, dtype=bool)
        distance = self.commanded[:, 1] - 2
        info = {"success": distance <= self.reach, "distance": distance}
        return {"observation": self.commanded, "desired_goal": self.commanded}, distance, ~done, done, info


class Still:
    def act(self, observation: Array, goal: Array, deterministic: bool) -> torch.Tensor:
        assert deterministic
        return torch.zeros(len(goal), 2)


@pytest.mark.parametrize(
    ("reach", "success"), [(0, (0, 0, 0, 0)), (4, (1, 0, 0, 0)), (8, (1, 2 / 3, 0, 0)), (18, (1, 1, 1, 2 / 3))]
)
def test_probes_tell_success_by_distance(reach: float, success: tuple[float, ...]) -> None:
    env = Corridor(reach)
    outcome = probe(Still(), env, seed=4)
    # The ten free cells but the start, each once, nearest first; the rest of the goal is as it was drawn.
    np.testing.assert_array_equal(env.commanded[:, 0], 2)
    np.testing.assert_array_equal(env.commanded[:, 1], 2 + 2 * np.arange(1, 11))
    np.testing.assert_array_equal(env.commanded[:, 2], 0.7)
    assert env.seeds == [4, 4]
    assert outcome.success == pytest.approx(success)
    assert outcome.distance == pytest.approx((3, 8, 13, 18))
    metrics = outcome.metrics()
    assert set(metrics) == {name for name in METRICS if name.startswith("probe/")}
    assert metrics["probe/success_q2"] == success[1]
    assert metrics["probe/distance_q4"] == 18
    assert str(outcome).startswith(f"{success[0]:.2f} at 3 m, ")


def test_a_quarter_without_episodes_has_no_numbers() -> None:
    env = Corridor(8)
    env.num_envs = 2
    outcome = probe(Still(), env, seed=0)
    assert outcome.success == (None, 1.0, None, 0.0)
    assert set(outcome.metrics()) == {f"probe/{what}_q{n}" for what in ("success", "distance") for n in (2, 4)}


@pytest.mark.parametrize("env", ["point_u_maze", "point_random_maze", "point_nine_rooms_image"])
def test_probes_in_real_mazes_are_the_walks_of_a_search(env: str) -> None:
    worlds = envs.make(env, 8, seed=0, **({} if "image" in env else {"episode_length": 3}))
    policy = Still()
    outcome = probe(policy, worlds, seed=11)
    walks = []
    worlds.reset(seed=11)
    mazes = getattr(worlds.task, "mazes", [worlds.task.maze] * 8)
    for world, maze in enumerate(mazes):
        start = tuple(np.rint(worlds.places[0][world, :2] / maze.cell).astype(int))
        reached, frontier = {start: 0}, [start]
        for cell in frontier:  # a queue
            for a, b in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                beside = (cell[0] + a, cell[1] + b)
                if maze.grid[beside] != "#" and beside not in reached:
                    reached[beside] = reached[cell] + 1
                    frontier.append(beside)
        lengths = sorted(reached.values())[1:]
        walks.append(maze.cell * lengths[int((world + 0.5) / 8 * len(lengths))])
    assert outcome.distance == pytest.approx([np.mean(walks[2 * q : 2 * q + 2]) for q in range(4)])
    assert outcome.success[-1] == 0
    worlds.close()


def test_probes_are_refused_where_nobody_knows_the_way() -> None:
    with pytest.raises(ConfigError, match=r"probes need to know how long the way .* reacher is no maze"):
        resolution.resolve(TrainConfig(**{**TINY, "env": "reacher"}, probes=True), device="cpu", num_cores=1)
    maze = dataclasses.replace(TrainConfig(env="point_maze"), probes=True)
    assert resolution.resolve(maze, device="cpu", num_cores=1).config.probes


def test_crl_eval_probes_a_run(tiny: Tiny) -> None:
    def crl(*arguments: str) -> str:
        result = CliRunner().invoke(main, arguments, prog_name="crl")
        assert result.exit_code == 0, result.output
        return result.output

    done = run(tiny(total_env_steps=200, probes=True)).run_dir
    printed = json.loads(crl("eval", str(done), "--json", "--probes", "--num-eval-episodes", "8"))
    assert printed["probes"].keys() == {"success", "distance"}
    # One episode in each of eight worlds: of the six free cells 4 to 24 m away, near ones first.
    assert printed["probes"]["distance"] == pytest.approx([6, 10, 18, 22])
    assert crl("eval", str(done), "--probes").startswith("probes          0.")
    # Another world may have no maze: then it is evaluated all the same.
    assert reopen(done, {}, EVALUABLE).probes
    assert not reopen(done, {"eval_env": "ant"}, EVALUABLE).probes


def test_a_checkpoint_of_other_squares_is_refused(tiny: Tiny) -> None:
    done = run(tiny(total_env_steps=200)).run_dir
    path = done / "config.yaml"
    path.write_text(path.read_text().replace("layout: ''", "layout: big"))
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        train(resume=done, total_env_steps=400, reporter=Quiet())
