"""The scripts in examples/ do what they say; docs/buffer.md shows parts of them."""

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def example(monkeypatch):
    """`example(name)`: the module of that name in examples/."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module


def steps_of(observation, action):
    """Where the point of examples/plane.py is one step later."""
    return np.clip(observation + 0.2 * np.clip(action, -1, 1), -1, 1)


def whole_and_true(buffer, columns=()):
    """Every (row, next row) of a buffer of the plane's is a step of it, and goals are where the point was."""
    batch = buffer.sample(4096, goal="final", columns=("next_observation", "goal_observation", *columns))
    np.testing.assert_allclose(batch.next_observation, steps_of(batch.observation, batch.action), atol=1e-6)
    assert (batch.goal == batch.goal_observation).all()
    assert batch.offset.max() == 20, "the final observation is a goal"
    return batch


def npz_of(path, episodes=30, length=20, seed=0):
    """A file as OGBench's: random walks on the plane."""
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-1, 1, (episodes, length + 1, 2)).astype(np.float32)
    observations = np.empty_like(actions)
    observations[:, 0] = rng.uniform(-1, 1, (episodes, 2))
    for t in range(length):
        observations[:, t + 1] = steps_of(observations[:, t], actions[:, t])
    terminals = np.zeros((episodes, length + 1), np.float32)
    terminals[:, -1] = 1
    arrays = {"observations": observations, "actions": actions, "terminals": terminals}
    np.savez(path, **{name: x.reshape(-1, *x.shape[2:]) for name, x in arrays.items()})


def test_the_plane_is_a_goal_environment(example):
    plane = example("plane").Plane()
    check_env(plane, skip_render_check=True)
    shown, _ = plane.reset(seed=0)
    shown, reward, *_, info = plane.step(plane.action_space.sample())
    assert reward == plane.compute_reward(shown["achieved_goal"], shown["desired_goal"], info)


def test_sac_with_hindsight_goals_learns(example):
    assert example("sac_her").main() > 0.9


def test_an_npz_of_ogbenchs_form(example, tmp_path):
    npz_of(tmp_path / "walks.npz")
    buffer = example("offline_data").from_npz(tmp_path / "walks.npz")
    assert (len(buffer), buffer.num_trajectories) == (30 * 21, 30)
    whole_and_true(buffer)
    first_only = example("offline_data").from_npz(tmp_path / "walks.npz", slice(1))
    assert first_only.sample(8).goal.shape == (8, 1)


def test_a_script_runs_as_documented(tmp_path):
    npz_of(tmp_path / "walks.npz")
    command = [sys.executable, "-W", "error", EXAMPLES / "offline_data.py", tmp_path / "walks.npz"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("TrajectoryBuffer(630 of 630 rows")


@pytest.mark.peers
def test_the_same_rows_as_ogbench_reads(example, tmp_path):
    npz_of(tmp_path / "walks.npz")
    load_dataset = importlib.import_module("ogbench.utils").load_dataset
    theirs = load_dataset(tmp_path / "walks.npz")
    columns = [theirs[name] for name in ("observations", "actions", "next_observations")]
    known = {tuple(row) for row in np.hstack(columns)}
    batch = whole_and_true(example("offline_data").from_npz(tmp_path / "walks.npz"))
    drawn = {tuple(row) for row in np.hstack((batch.observation, batch.action, batch.next_observation))}
    assert drawn <= known
    assert len(drawn) > 0.99 * len(known)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_a_minari_data_set(example, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    minari, plane = importlib.import_module("minari"), example("plane").Plane()
    collector = minari.DataCollector(plane)
    for seed in range(30):
        collector.reset(seed=seed)
        while not collector.step(plane.action_space.sample())[3]:
            pass
    dataset = collector.create_dataset("plane/random-v0")
    buffer = example("offline_data").from_minari(dataset)
    assert (len(buffer), buffer.num_trajectories) == (30 * 21, 30)
    whole_and_true(buffer)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_torchrl_collection(example):
    buffer = example("torchrl_collection").main()
    assert buffer.num_trajectories == 4 * 25
    assert len(buffer) == 2000 + 4 * 25, "a final observation for each trajectory"
    whole_and_true(buffer)


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_stable_baselines3_learns_with_it(example):
    score, model = example("sb3_replay_buffer").main()
    assert score > -12
    buffer = model.replay_buffer
    whole_and_true(buffer.trajectories)
    samples = buffer.sample(500)
    reached = samples.rewards[:, 0] == 0
    ahead = np.linalg.norm(samples.next_observations["achieved_goal"] - samples.observations["desired_goal"], axis=1)
    assert (reached.numpy() == (ahead < 0.15)).all()
    assert not samples.dones.any(), "the plane's episodes are cut, not over"


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_jax_learns(example):
    success, loss = example("jax_contrastive").main()
    assert success > 0.6
    assert loss < 0.8 * np.log(256)
