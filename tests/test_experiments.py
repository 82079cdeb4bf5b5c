"""The experiments that are part of the package: sweeps by name, and goals that are told by more numbers than two."""

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner

from crl import envs
from crl.algorithms import OBJECTIVES
from crl.cli import main
from crl.sweep import plan


def shown(*arguments):
    return CliRunner().invoke(main, ["sweep", *arguments])


def test_every_experiment_is_listed_and_its_runs_can_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listed = shown("--list")
    assert listed.exit_code == 0
    assert [line.split()[0] for line in listed.output.splitlines()] == list(plan.experiments())
    assert {"goal-dimension", "actor-goals", "goal-filter", "objectives"} <= set(plan.experiments())
    for name, description in plan.experiments().items():
        assert description in listed.output
        assert plan.read(plan.located(name)).name == name


def test_an_experiment_is_run_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = shown("goal-dimension", "--dry-run")
    assert result.exit_code == 0, result.output
    runs = [line.split("--env-options=")[1] for line in result.output.splitlines() if "--env-options=" in line]
    assert len(runs) == 3 * 2 * 3
    for algorithm in ("crl", "forward_model"):
        for dim in (2, 8, 32):
            assert sum(f"goal_dim={dim} --algorithm={algorithm} " in run for run in runs) == 3


def test_every_objective_is_compared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = shown("objectives", "--dry-run")
    assert result.exit_code == 0, result.output
    for objective in OBJECTIVES:
        assert result.output.count(f"--objective={objective} ") == 3


def test_a_file_goes_before_an_experiment_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "goal-dimension").write_text("train: {env: reacher}\ndescription: mine\n")
    result = shown("goal-dimension", "--dry-run")
    assert "--env=reacher" in result.output
    assert len(result.output.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["goal-dim"],
            "there is no file goal-dim, nor a sweep of that name in the package. Did you mean 'goal-dimension'",
        ),
        (["nothing.yaml"], "nor a sweep of that name in the package. `crl sweep --list` shows those."),
        ([], "give the file of a sweep, or the name of one that `crl sweep --list` shows."),
    ],
)
def test_what_is_not_there_is_refused(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = shown(*arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_a_description_is_text(tmp_path):
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"description": 3, "train": {"env": "reacher"}}))
    result = shown(str(tmp_path / "a.yaml"), "--dry-run")
    assert "description must be text, got 3" in result.output


@pytest.fixture
def pair():
    """The same worlds, told by 2 numbers and by 12."""
    two, twelve = (envs.make("point_nine_rooms", 64, num_threads=1, goal_dim=dim) for dim in (2, 12))
    return two, twelve


def test_goals_of_more_numbers_are_the_same_task(pair):
    histories = []
    for env in pair:
        observation, info = env.reset(seed=3)
        history = [{**observation, **info}]
        for _ in range(20):
            observation, _, _, _, info = env.step((observation["desired_goal"] - observation["observation"])[:, :2])
            history.append({**observation, **info})
        histories.append(history)
    for one, other in zip(*histories, strict=True):
        for key in ("observation", "achieved_goal", "desired_goal"):
            np.testing.assert_array_equal(one[key], other[key][:, :2])
            assert other[key].shape == (64, 12)
        np.testing.assert_array_equal(other["observation"], other["achieved_goal"])
        np.testing.assert_array_equal(one["success"], other["success"])
        np.testing.assert_array_equal(one["distance"], other["distance"])
    assert 0 < histories[0][-1]["success"].mean() < 1


def test_the_further_numbers_are_noise_of_the_place(pair):
    env = pair[1]
    told = np.concatenate([env.reset(seed=seed)[0]["desired_goal"] for seed in range(20)])
    noise = told[:, 2:]
    assert abs(noise).max() <= 1
    np.testing.assert_allclose(noise.mean(axis=0), 0, atol=0.1)
    np.testing.assert_allclose(noise.var(axis=0), 0.5, atol=0.1)
    np.testing.assert_allclose(np.corrcoef(told.T), np.eye(12), atol=0.15)  # with x, with y, with each other


def test_learners_judge_further_numbers_by_the_place():
    spec = envs.spec("point_nine_rooms", goal_dim=5)
    achieved, desired = torch.zeros(2, 5), torch.tensor([[0.6, 0.6, 9, 9, 9], [0.9, 0.9, 0, 0, 0]])
    assert spec.reached(achieved, desired).tolist() == [True, False]


@pytest.mark.parametrize("value", [1, 2.5, True, "many"])
def test_a_dimension_that_cannot_be_is_refused(value):
    with pytest.raises(ValueError, match="goal_dim must be a whole number from 2 to"):
        envs.spec("point_nine_rooms", goal_dim=value)
