"""What critics' logits are: log-ratios of discounted occupancies, in worlds where those are known in closed form."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import spearmanr
from tabular import FOUR_ROOMS, LARGER_FOUR_ROOMS, World, learn, ring, rooms

import crl
from crl import losses
from crl.bootstrap import NCE_WEIGHTS, c_learning_loss, importance_weights
from crl.config import TrainConfig
from crl.resolution import resolve

GAMMA = 0.9
CONTRASTIVE = (*losses.CONTRASTIVE_LOSSES, "cpc")
Table = NDArray[np.float64]


@pytest.fixture(scope="module")
def chain() -> tuple[World, crl.TrajectoryBuffer]:
    world = ring(4)
    return world, world.walk(num_envs=256, length=2000, seed=0)


@pytest.fixture(scope="module")
def four_rooms() -> tuple[World, crl.TrajectoryBuffer]:
    world = rooms(FOUR_ROOMS)
    return world, world.walk(num_envs=256, length=2000, seed=0)


def test_the_buffer_draws_goals_from_the_occupancy(chain: tuple[World, crl.TrajectoryBuffer]) -> None:
    world, buffer = chain
    batch = buffer.sample(1_000_000, gamma=GAMMA)
    counts = np.zeros((8, 4))
    np.add.at(counts, (batch.observation * 2 + batch.action, batch.goal), 1)
    np.testing.assert_allclose(counts / counts.sum(1, keepdims=True), world.occupancy(GAMMA), rtol=0.03)
    np.testing.assert_allclose(counts.sum(0) / counts.sum(), world.stationary(), rtol=0.02)
    by_powers, reached = np.zeros((8, 4)), world.transition.reshape(8, 4)
    for k in range(1, 400):
        by_powers += (1 - GAMMA) * GAMMA ** (k - 1) * reached
        reached = reached @ world.transition.mean(1)
    np.testing.assert_allclose(world.occupancy(GAMMA), by_powers)


# --- C-learning on a chain --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "policy"), [*((name, "uniform") for name in NCE_WEIGHTS), ("c_learning", "seeking")])
def test_bootstrapped_objectives_in_expectation_have_the_occupancy_as_fixed_point(name: str, policy: str) -> None:
    """The loss in expectation over every row there could be, so that nothing but the equations decides.

    A policy that seeks its goal makes another occupancy for each goal: the weights must take the action for the
    negative goal. (With NCE only the policy that made the future states will do.)
    """
    world, gamma = ring(4), 0.8
    nce_weight = NCE_WEIGHTS[name]
    s, a = 4, 2
    transition = torch.from_numpy(world.transition).view(s * a, s)
    act = torch.full((s, a, s), 0.5, dtype=torch.float64)  # P(a | s, g)
    if policy == "seeking":
        ahead = (torch.arange(s) - torch.arange(s)[:, None]) % s
        act[:, 0] = torch.where((ahead == 1) | (ahead == 2), 0.9, 0.2)
        act[:, 1] = 1 - act[:, 0]
    goal_law = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    # p(g | s, a) under the policy for g, goal by goal.
    occupancy = torch.empty(s * a, s, dtype=torch.float64)
    for g in range(s):
        steps = torch.einsum("sat,sa->st", transition.view(s, a, s), act[..., g])
        resolvent = torch.linalg.inv(torch.eye(s, dtype=torch.float64) - gamma * steps)
        occupancy[:, g] = (1 - gamma) * transition @ resolvent[:, g]

    share = (1 - gamma) / (1 - gamma + nce_weight)
    positives = share * transition + (1 - share) * occupancy
    # Rows (x, g+, g-) with their probabilities; weights are linear in the loss, so those of (x, g-) may be averaged.
    joint = torch.einsum("xp,g->xpg", positives, goal_law) / (s * a)
    pair, positive, negative = torch.meshgrid(*map(torch.arange, joint.shape), indexing="ij")
    table = torch.zeros(s * a, s, dtype=torch.float64, requires_grad=True)
    for _ in range(400):
        next_weights = importance_weights(table.reshape(1, -1)).view(s, a, s)
        weights = torch.einsum("xt,tbg,tbg->xg", transition, act, next_weights)[pair, negative]
        own, other = table[pair, positive].flatten(), table[pair, negative].flatten()
        loss = c_learning_loss(own, other, weights.flatten(), gamma, nce_weight)
        # The loss is a mean over rows: in expectation each counts by its probability.
        d_own, d_other = (slope * joint.numel() * joint.flatten() for slope in torch.autograd.grad(loss, (own, other)))
        (gradient,) = torch.autograd.grad(own @ d_own + other @ d_other, table)
        with torch.no_grad():
            table -= 1.5 * s * a / goal_law / (1 + nce_weight) * gradient
    torch.testing.assert_close(table.detach().exp(), occupancy / goal_law, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", NCE_WEIGHTS)
def test_bootstrapped_objectives_learn_the_ratio_on_a_chain(
    name: str, chain: tuple[World, crl.TrajectoryBuffer]
) -> None:
    world, buffer = chain
    # Of 2200 rows a whole number, 200, has next states beside NCE.
    found = learn(world, buffer, name, GAMMA, steps=1500, batch_size=2200, learning_rate=1.0)
    np.testing.assert_allclose(np.exp(found), np.exp(world.log_ratio(GAMMA)), rtol=0.05)


# --- every objective in four rooms ------------------------------------------------------------------------------------


def without_offset(name: str, found: Table, world: World, batch_size: int) -> Table:
    """Logits as estimates of log p(g | s, a) / p(g), the offset that the objective leaves free settled.

    p(g) times the ratio sums to 1 over goals, and p(s, a) times it over pairs. So a free offset for each pair
    (forward) or for each goal (backward) is the one that makes it so. Symmetric InfoNCE leaves one number free, which
    no rank depends on, and binary_nce none: its offset is known.
    """
    goals = world.stationary()
    pairs = np.repeat(goals, 4)[:, None] / 4
    match name:
        case "forward_infonce" | "cpc":
            return found - logsumexp(found, b=goals, axis=1, keepdims=True)
        case "backward_infonce":
            return found - logsumexp(found, b=pairs, axis=0, keepdims=True)
        case "symmetric_infonce":
            return found - logsumexp(found, b=pairs * goals)
        case "binary_nce":
            return found + np.log(batch_size - 1)
        case _:
            return found


def published_penalty(name: str) -> float:
    if name in NCE_WEIGHTS:
        return 0.0
    penalty = resolve(TrainConfig(objective=name), device="cpu", num_cores=1).config.logsumexp_penalty
    assert penalty is not None
    return penalty


def assert_recovered(name: str, found: Table, world: World, batch_size: int) -> None:
    settled, exact = without_offset(name, found, world, batch_size), world.log_ratio(GAMMA)
    assert spearmanr(settled.ravel(), exact.ravel()).statistic >= 0.95
    # Ranks say nothing of the offset that is claimed, nor of the scale. Cells count by how often they are positives.
    seen = np.repeat(world.stationary(), 4)[:, None] * world.occupancy(GAMMA)
    slope, level = np.polyfit(exact.ravel(), settled.ravel(), 1, w=np.sqrt(seen.ravel()))
    assert slope == pytest.approx(1, abs=0.15)
    assert level == pytest.approx(0, abs=0.15)


@pytest.mark.parametrize("name", [*CONTRASTIVE, *NCE_WEIGHTS])
def test_every_objective_recovers_the_log_ratio_in_four_rooms(
    name: str, four_rooms: tuple[World, crl.TrajectoryBuffer]
) -> None:
    world, buffer = four_rooms
    batch_size, rate = (1100, 0.5) if name in NCE_WEIGHTS else (128, 0.1)
    options = {"steps": 1000, "batch_size": batch_size, "learning_rate": rate}
    found = learn(world, buffer, name, GAMMA, penalty=published_penalty(name), **options)
    assert_recovered(name, found, world, batch_size)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CONTRASTIVE, *NCE_WEIGHTS])
def test_every_objective_recovers_the_log_ratio_in_larger_rooms(name: str) -> None:
    world = rooms(LARGER_FOUR_ROOMS)
    buffer = world.walk(num_envs=512, length=4000, seed=0)
    batch_size, rate = (4400, 0.5) if name in NCE_WEIGHTS else (256, 0.05)
    options = {"steps": 3000, "batch_size": batch_size, "learning_rate": rate}
    found = learn(world, buffer, name, GAMMA, penalty=published_penalty(name), **options)
    assert_recovered(name, found, world, batch_size)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["forward_infonce", "backward_infonce"])
def test_without_penalty_infonce_leaves_an_offset_free(
    name: str, four_rooms: tuple[World, crl.TrajectoryBuffer]
) -> None:
    """So ranks across rows (forward) or columns (backward) say nothing before the offset is settled."""
    world, buffer = four_rooms
    found = learn(world, buffer, name, GAMMA, steps=1000, batch_size=128, learning_rate=0.1)
    assert spearmanr(found.ravel(), world.log_ratio(GAMMA).ravel()).statistic < 0.85
    assert_recovered(name, found, world, 128)
