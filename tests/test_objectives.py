"""Every objective against the same written again in loops over pairs of complex numbers, and by hand.

The slow implementation takes one number at a time from Python's `cmath`, and its gradient from complex steps: for an
analytic f, Im f(x + ih) / h is f'(x) but for terms of h^2, and no difference is taken that could cancel.
"""

import cmath
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from crl import losses
from crl.bootstrap import NCE_WEIGHTS, c_learning_loss, chance_loss, importance_weights, num_next_goals
from crl.config import TrainConfig
from crl.resolution import resolve

Vector = Sequence[complex]
GAMMA = 0.8
ROWS, DIMENSIONS, CRITICS = 5, 3, 2
CONTRASTIVE = (*losses.CONTRASTIVE_LOSSES, "cpc")


# --- the slow implementation ------------------------------------------------------------------------------------------


def slow_energy(kind: str, x: Vector, y: Vector) -> complex:
    def dot(a: Vector, b: Vector) -> complex:
        return sum((p * q for p, q in zip(a, b, strict=True)), 0j)

    difference = [p - q for p, q in zip(x, y, strict=True)]
    if kind == "norm":
        return -cmath.sqrt(dot(difference, difference))
    if kind == "l2":
        return -dot(difference, difference)
    return dot(x, y) if kind == "dot" else dot(x, y) / cmath.sqrt(dot(x, x) * dot(y, y))


def slow_logsumexp(row: Vector) -> complex:
    return cmath.log(sum(cmath.exp(logit) for logit in row))


def slow_cross_entropy(logit: complex, label: int) -> complex:
    """Of sigma(logit), by the definition."""
    p = 1 / (1 + cmath.exp(-logit))
    return -cmath.log(p) if label else -cmath.log(1 - p)


def slow_contrastive(name: str, logits: Sequence[Vector]) -> complex:
    rows = range(len(logits))
    forward = backward = nce = penalty = 0j
    for i in rows:
        forward += slow_logsumexp(logits[i]) - logits[i][i]
        backward += slow_logsumexp([logits[j][i] for j in rows]) - logits[i][i]
        penalty += slow_logsumexp(logits[i]) ** 2
        for j in rows:
            nce += slow_cross_entropy(logits[i][j], int(i == j)) / len(rows)
    loss = {
        "forward_infonce": forward,
        "backward_infonce": backward,
        "symmetric_infonce": (forward + backward) / 2,
        "binary_nce": nce,
        "cpc": forward,
    }[name]
    weight = {"binary_nce": 0, "cpc": 0.01}.get(name, 0.1)
    return (loss + weight * penalty) / len(rows)


def slow_bootstrapped(name: str, logits: Sequence[Vector], next_logits: Sequence[Sequence[float]]) -> complex:
    """One critic's; `next_logits` are those of all target critics, a row's with the goal of the row after it."""
    total = 0j
    for i, row in enumerate(logits):
        least = min(critic[i] for critic in next_logits)
        sigma = 1 / (1 + math.exp(-least))
        w = min(max(sigma / (1 - sigma), 0), 20)
        own, other = row[i], row[(i + 1) % len(logits)]
        if name == "c_learning":
            total += (1 - GAMMA) * slow_cross_entropy(own, 1) + GAMMA * w * slow_cross_entropy(other, 1)
            total += slow_cross_entropy(other, 0)
        else:
            total += (2 - GAMMA) * slow_cross_entropy(own, 1) + GAMMA * w * slow_cross_entropy(other, 1)
            total += 2 * slow_cross_entropy(other, 0)
    return total / len(logits)


def complex_step_gradient(function: Callable[[np.ndarray], complex], x: np.ndarray) -> np.ndarray:
    gradient = np.empty(x.shape)
    for place in np.ndindex(x.shape):
        moved = x.astype(complex)
        moved[place] += 1e-20j
        gradient[place] = function(moved).imag / 1e-20
    return gradient


# --- held against it --------------------------------------------------------------------------------------------------


def inputs(critics: int) -> tuple[np.ndarray, np.ndarray]:
    """Representations of (state, action) and goal, stacked, [2, critics, rows, dimensions]; target logits."""
    generator = np.random.default_rng(0)
    next_logits = 2 * generator.standard_normal((critics, ROWS))
    next_logits[:, 0] = 4.0, 5.0  # beyond ln 20 = 2.996
    return generator.standard_normal((2, critics, ROWS, DIMENSIONS)), next_logits


def assert_same(
    name: str, fast: Tensor, gradient: Tensor, slow: Callable[[np.ndarray], complex], x: np.ndarray
) -> None:
    assert fast.item() == pytest.approx(slow(x).real, rel=1e-10), name
    np.testing.assert_allclose(gradient.numpy(), complex_step_gradient(slow, x), rtol=1e-10, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("energy", losses.ENERGIES)
@pytest.mark.parametrize("name", CONTRASTIVE)
def test_contrastive_objectives_are_those_of_loops_over_pairs(name: str, energy: str) -> None:
    x = inputs(CRITICS)[0][:, 0]
    representations = torch.from_numpy(x).requires_grad_()
    logits = losses.pairwise_energy(*representations, energy)
    penalty = resolve(TrainConfig(objective=name), device="cpu", num_cores=1).config.logsumexp_penalty
    loss = losses.contrastive_loss(logits, losses.contrastive_loss_of(name))
    loss = loss + penalty * losses.logsumexp_penalty(logits)
    (gradient,) = torch.autograd.grad(loss, representations)

    def slow(x: np.ndarray) -> complex:
        return slow_contrastive(name, [[slow_energy(energy, phi, psi) for psi in x[1]] for phi in x[0]])

    assert_same(name, loss.detach(), gradient, slow, x)


@pytest.mark.parametrize("energy", losses.ENERGIES)
@pytest.mark.parametrize("name", NCE_WEIGHTS)
def test_bootstrapped_objectives_are_those_of_loops(name: str, energy: str) -> None:
    x, next_logits = inputs(CRITICS)
    representations = torch.from_numpy(x).requires_grad_()
    phi, psi = representations
    weights = importance_weights(torch.from_numpy(next_logits))
    positive, negative = (losses.energy(phi, goals, energy) for goals in (psi, psi.roll(-1, 1)))
    loss = c_learning_loss(positive, negative, weights, GAMMA, NCE_WEIGHTS[name])
    (gradient,) = torch.autograd.grad(loss, representations)

    def slow(x: np.ndarray) -> complex:
        critics = [[[slow_energy(energy, phi, psi) for psi in x[1, c]] for phi in x[0, c]] for c in range(CRITICS)]
        return sum(slow_bootstrapped(name, logits, next_logits.tolist()) for logits in critics) / CRITICS

    assert_same(name, loss.detach(), gradient, slow, x)


def test_cosine_over_a_learned_temperature_is_that_of_loops() -> None:
    """The option of 2022: representations of length 1, phi over exp(t), and then their dot product."""
    x = np.append(inputs(CRITICS)[0][:, 0].ravel(), 0.3)
    parameters = torch.from_numpy(x).requires_grad_()
    phi, psi = parameters[:-1].view(2, ROWS, DIMENSIONS)
    log_scale = -parameters[-1]
    loss = losses.contrastive_loss(log_scale.exp() * losses.pairwise_energy(phi, psi, "cosine"))
    (gradient,) = torch.autograd.grad(loss, parameters)

    def slow(x: np.ndarray) -> complex:
        phi, psi = (
            [[entry / cmath.sqrt(sum(e * e for e in row)) for entry in row] for row in part]
            for part in x[:-1].reshape(2, ROWS, DIMENSIONS)
        )
        phi = [[entry / cmath.exp(x[-1]) for entry in row] for row in phi]
        logits = [[slow_energy("dot", row, column) for column in psi] for row in phi]
        return sum(slow_logsumexp(row) - row[i] for i, row in enumerate(logits)) / ROWS

    assert_same("cosine", loss.detach(), gradient, slow, x)


@pytest.mark.parametrize("nce_weight", [0.0, 0.3, 1.0])
def test_c_learning_gradients_match_finite_differences(nce_weight: float) -> None:
    generator = torch.Generator().manual_seed(1)
    positive, negative = (
        torch.randn(CRITICS, ROWS, dtype=torch.float64, generator=generator, requires_grad=True) for _ in range(2)
    )
    weights = torch.linspace(0, 20, ROWS, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda positive, negative: c_learning_loss(positive, negative, weights, 0.9, nce_weight), (positive, negative)
    )


# --- weights, shares and chance ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_are_clipped_odds_of_the_less_hopeful_critic(dtype: torch.dtype) -> None:
    # Odds 1/4, 3, 1; then 25, 20 and infinity, which are clipped; then none.
    least = [math.log(1 / 4), math.log(3), 0.0, math.log(25), math.log(20), 1000.0, -1000.0]
    logits = torch.tensor([least, [logit + 1 for logit in least]], dtype=dtype, requires_grad=True)
    weights = importance_weights(logits)
    assert weights.tolist() == pytest.approx([0.25, 3, 1, 20, 20, 20, 0], rel=1e-6)
    assert weights.max() <= 20
    assert not weights.requires_grad
    torch.testing.assert_close(importance_weights(logits.flip(0)), weights)
    assert importance_weights(logits[:1], limit=2.0).max() == 2


def test_weights_are_constants_of_the_loss() -> None:
    logits = torch.zeros(3, requires_grad=True)
    weights = torch.ones(3, requires_grad=True)
    c_learning_loss(logits, logits, weights, 0.9).backward()
    assert weights.grad is None
    assert logits.grad is not None


@pytest.mark.parametrize("scale", [1e3, 1e30])
def test_extreme_logits_have_finite_losses_and_gradients(scale: float) -> None:
    positive, negative = (torch.tensor([[-scale, scale], [scale, -scale]], requires_grad=True) for _ in range(2))
    loss = c_learning_loss(positive, negative, torch.tensor([0.0, 20.0]), 0.9, 1.0)
    loss.backward()
    for tensor in (loss, positive.grad, negative.grad):
        assert tensor is not None
        assert tensor.isfinite().all()


@pytest.mark.parametrize(
    ("batch_size", "gamma", "expected"),
    [(256, 0.99, 2), (256, 0.9, 23), (11, 0.9, 1), (22, 0.9, 2), (3, 0.5, 1), (7, 0.0, 3), (256, 0.999, 0)],
)
def test_share_of_next_goals_beside_nce(batch_size: int, gamma: float, expected: int) -> None:
    assert num_next_goals(batch_size, gamma, 1.0) == expected
    assert num_next_goals(batch_size, gamma) == batch_size


def test_positives_of_both_kinds_weigh_what_each_objective_alone_gives_them() -> None:
    """(2 - gamma) times the share of next states is C-learning's 1 - gamma, and times that of the others NCE's 1."""
    gamma, batch_size = 0.9, 1100
    share = num_next_goals(batch_size, gamma, 1.0) / batch_size
    assert (2 - gamma) * share == pytest.approx(1 - gamma)
    assert (2 - gamma) * (1 - share) == pytest.approx(1)


@pytest.mark.parametrize("name", NCE_WEIGHTS)
def test_chance_of_a_critic_that_cannot_tell_goals_apart(name: str) -> None:
    """Its logits are 0: there, and only there, the slope of all moving together vanishes."""
    for level in (-0.5, 0.0, 0.5):
        logits = torch.full((4,), level, dtype=torch.float64, requires_grad=True)
        weights = importance_weights(logits[None])
        loss = c_learning_loss(logits, logits, weights, GAMMA, NCE_WEIGHTS[name])
        (slope,) = torch.autograd.grad(loss, logits)
        if level == 0:
            assert loss.item() == pytest.approx(chance_loss(NCE_WEIGHTS[name]))
            assert slope.abs().max() < 1e-12
        else:
            assert slope.sum() * level > 1e-3


def test_a_critic_that_tells_goals_apart_is_below_chance_by_twice_the_divergence() -> None:
    """In expectation: 4 goals, of which the next state has one with probability 0.7."""
    law, prior = np.array([0.7, 0.1, 0.1, 0.1]), np.full(4, 0.25)
    middle = (law + prior) / 2
    divergence = (law * np.log(law / middle) + prior * np.log(prior / middle)).sum() / 2
    logits = torch.from_numpy(np.log(law / prior))
    own, other = torch.tensor([0] * 7 + [1, 2, 3]).repeat(2), torch.arange(20) % 4
    # Without a future, gamma 0, positives are drawn from the law and negatives evenly.
    loss = c_learning_loss(logits[own], logits[other], torch.zeros(20), 0.0)
    assert loss.item() == pytest.approx(chance_loss() - 2 * divergence)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: importance_weights(x[0]), r"next_logits must be \(critics, rows\), got shape \(3,\)"),
        (lambda x: c_learning_loss(x, x[0], x[0], 0.9), r"one shape, .*\(2, 3\), \(3,\) and \(3,\)"),
        (lambda x: c_learning_loss(x, x, x, 0.9), r"weights \(rows,\), got shapes .* and \(2, 3\)"),
        (lambda x: c_learning_loss(x, x, x[0], 1.0), "gamma must be at least 0 and below 1 to bootstrap, got 1.0"),
        (lambda x: c_learning_loss(x, x, x[0], 0.9, -1.0), "nce_weight must be at least 0, got -1.0"),
        (lambda x: num_next_goals(4, -0.1), "gamma must be at least 0"),
        (lambda x: num_next_goals(4, 1.0, 1.0), "gamma must be at least 0 and below 1"),
    ],
)
def test_bad_input_is_named(call: Callable[[Tensor], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(2, 3))
