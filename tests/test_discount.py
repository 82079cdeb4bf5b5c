"""The discount fitted to data whose memory is known in closed form, and the one that grows."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from test_trainer import run

from crl import TrajectoryBuffer, discount
from crl.config import TrainConfig
from crl.errors import ConfigError
from crl.metrics import read_metrics
from crl.resolution import resolve

WORLDS, ROWS = 64, 1000


def remembering(time: float, *, constant: bool = False, images: bool = False) -> TrajectoryBuffer:
    """Goals that are forgotten evenly: x' = r x + noise, r = exp(-1 / time), begun in the stationary law."""
    worlds, rows, random = WORLDS, ROWS, np.random.default_rng(0)
    r = math.exp(-1 / time)
    x = np.empty((rows, worlds, 2), np.float32)
    x[0] = random.standard_normal((worlds, 2))
    for row in range(1, rows):
        x[row] = r * x[row - 1] + math.sqrt(1 - r * r) * random.standard_normal((worlds, 2))
    x[:, :, 1] *= 100  # another unit
    goal = np.concatenate((x, np.full((rows, worlds, 1), 7.0, np.float32)), 2) if constant else x
    return holding(goal, images=images)


def wandering(episode: int) -> TrajectoryBuffer:
    """Goals that drift off at random, in episodes that all begin in one place."""
    noise = np.random.default_rng(0).standard_normal((ROWS // episode, episode, WORLDS, 2))
    noise[:, 0] = 0
    return holding(noise.cumsum(1).reshape(-1, WORLDS, 2).astype(np.float32), episode)


def holding(goal: NDArray[np.float32], episode: int = ROWS, *, images: bool = False) -> TrajectoryBuffer:
    """A buffer of `goal`, (rows, worlds, G)."""
    rows, worlds, _ = goal.shape
    shape = {"achieved_goal": None, "observation": (goal.shape[2],)} if images else {"observation": (1,)}
    columns = {"achieved_goal": (goal.shape[2],), **shape}
    buffer = TrajectoryBuffer(num_envs=worlds, capacity=worlds * rows, action=(1,), **columns)
    start = np.zeros((rows, worlds), bool)
    start[::episode] = True
    blank = np.zeros((rows, worlds, 1), np.float32)
    goals = {"observation": goal} if images else {"observation": blank, "achieved_goal": goal}
    buffer.add_rollout(action=blank, episode_start=start, **goals)
    return buffer


@pytest.mark.parametrize("time", [3.0, 10.0, 60.0])
@pytest.mark.parametrize("constant", [False, True])
def test_the_mixing_time_is_that_of_a_process_that_forgets_evenly(time: float, constant: bool) -> None:
    assert discount.mixing_time(remembering(time, constant=constant)) == pytest.approx(time * math.log(2), rel=0.08)


@pytest.mark.parametrize("episode", [40, 200])
def test_a_new_beginning_is_no_forgetting(episode: int) -> None:
    # Rows of any two episodes lie nearer to each other than the two ends of one.
    assert discount.mixing_time(wandering(episode)) == math.inf


def test_images_are_their_own_goals() -> None:
    found = discount.mixing_time(remembering(10.0, images=True), images=True)
    assert found == pytest.approx(10 * math.log(2), rel=0.25)


def test_what_is_forgotten_at_once_what_lasts_and_what_never_changes() -> None:
    assert discount.mixing_time(remembering(0.01)) == 1
    assert discount.mixing_time(remembering(1e6)) == math.inf
    still = TrajectoryBuffer(num_envs=1, capacity=10, observation=(1,), action=(1,), achieved_goal=(1,))
    for row in range(5):
        one = np.ones((1, 1), np.float32)
        still.add(observation=one, action=one, achieved_goal=one, episode_start=np.array([row == 0]))
    assert discount.mixing_time(still) == math.inf


def test_the_horizon_is_the_mixing_time_and_never_above_what_was_set() -> None:
    assert discount.fitted(5.0, 0.99) == pytest.approx(0.8)
    assert discount.fitted(math.inf, 0.99) == discount.fitted(1000, 0.99) == 0.99
    assert 0 < discount.fitted(1.0, 0.99) < 0.5


def test_a_growing_horizon() -> None:
    assert discount.scheduled(0.9, 0.99, 0.0) == pytest.approx(0.9)
    assert discount.scheduled(0.9, 0.99, 0.25) == pytest.approx(1 - 1 / math.sqrt(10 * 100))
    for share in (0.5, 0.7, 1.0):
        assert discount.scheduled(0.9, 0.99, share) == pytest.approx(0.99)


def gammas(settings: TrainConfig) -> list[float]:
    found = read_metrics(run(settings).run_dir / "metrics.csv")
    return [row["train/gamma"] for row in found if "train/gamma" in row]


def test_a_run_fits_once_and_keeps_it(tiny: Callable[..., TrainConfig]) -> None:
    found = gammas(tiny(env="reacher", discount="fitted", learning_starts=200))
    assert len(found) > 2
    assert len(set(found)) == 1
    assert 0 < found[0] < 0.99


def test_a_run_lets_it_grow(tiny: Callable[..., TrainConfig]) -> None:
    found = gammas(tiny(env="reacher", discount="scheduled", gamma=0.95, gamma_start=0.5))
    assert found == sorted(found)
    assert 0.5 <= found[0] < found[-1] == pytest.approx(0.95)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"discount": "fitted", "algorithm": "sac"}, "must be fixed where the loss has gamma in it"),
        ({"discount": "scheduled", "objective": "c_learning", "energy": "dot"}, "must be fixed where"),
        ({"discount": "fitted", "goals": "uniform"}, "of goals geometric alone"),
        ({"discount": "scheduled", "gamma": 0.5}, "grows from gamma_start to a gamma below 1, got 0.9 and 0.5"),
    ],
)
def test_a_discount_that_cannot_move_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(TrainConfig(**settings), device="cpu", num_cores=1)


def test_a_recipes_discount_does_not_bound_a_fitted_one() -> None:
    found = resolve(TrainConfig(env="reacher", discount="fitted"), device="cpu", num_cores=1)
    assert (found.config.gamma, found.sources["gamma"]) == (0.99, "to fit the discount")


def test_it_is_fitted_to_uniform_actions() -> None:
    assert resolve(TrainConfig(discount="fitted"), device="cpu", num_cores=1).config.prefill == "uniform"
