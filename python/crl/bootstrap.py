"""Losses of critics that bootstrap, C-learning alone or with NCE: pure functions of tensors.

Letters: B rows of a batch, C critics. A contrastive loss (`crl.losses`) compares every (state, action) with every goal
of the batch, and knows of the future what the trajectory showed. Here each row has two goals, a positive and a
negative, and what lies beyond the next state is the word of target critics. The equations, their sources and what the
logits are at the optimum stand in docs/algorithms.md.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch.nn.functional as F
from torch import Tensor

MAX_WEIGHT = 20.0
"""Importance weights are clipped here (Eysenbach et al. 2022)."""

NCE_WEIGHTS: Mapping[str, float] = MappingProxyType({"c_learning": 0.0, "nce_c_learning": 1.0})
"""The published objectives that bootstrap, and how much NCE each has: `nce_weight` of the functions here."""


def importance_weights(next_logits: Tensor, limit: float = MAX_WEIGHT) -> Tensor:
    """w = clip(sigma(l) / (1 - sigma(l)), 0, limit) of the least of the target critics' logits l; a constant.

    sigma / (1 - sigma) is exp(l), the critics' estimate of p(g | s', a') / p(g), and computed as such: there is no
    1 - sigma that could vanish.

    Args:
        next_logits: (C, B), those of target critics at (s', a', g): the state after the row, the row's negative goal,
            and an action of the policy for that goal.
    Returns:
        (B,), without gradient.
    Raises:
        ValueError: another number of axes.
    """
    if next_logits.ndim != 2:
        raise ValueError(f"next_logits must be (critics, rows), got shape {tuple(next_logits.shape)}")
    return next_logits.detach().amin(0).exp().clamp(max=limit)


def c_learning_loss(
    positive: Tensor, negative: Tensor, weights: Tensor, gamma: float, nce_weight: float = 0.0
) -> Tensor:
    """C-learning (Eysenbach et al. 2021), alone or, with `nce_weight` 1, with contrastive NCE (2022, appendix).

    The mean over rows and critics of

        (1 - gamma + m) BCE(l+, 1) + gamma w BCE(l-, 1) + (1 + m) BCE(l-, 0),   m = `nce_weight`,

    the sum of C-learning's (1 - gamma) BCE(l+, 1) + gamma w BCE(l-, 1) + BCE(l-, 0), whose positives are next states,
    and m times NCE's BCE(l+, 1) + BCE(l-, 0), whose positives are future states. For both sums to come out, positives
    are next states in (1 - gamma) / (1 - gamma + m) of the rows (`num_next_goals`), and future states in the others.
    Each row has one negative, as each weight takes an action of its own: there is no product over all pairs.

    Args:
        positive: (B,) or (C, B), logits of (s, a) with the row's own goal.
        negative: the same of (s, a) with another row's; published: of the row after it, the first after the last.
        weights: (B,), `importance_weights` for these negatives; taken as constants.
        gamma: discount, in [0, 1).
    Returns:
        scalar.
    Raises:
        ValueError: shapes that differ, or a number out of range.
    """
    _check(gamma, nce_weight)
    if positive.shape != negative.shape or weights.shape != positive.shape[-1:]:
        raise ValueError(
            "positive and negative must have one shape, (rows,) or (critics, rows), and weights (rows,), got shapes "
            f"{tuple(positive.shape)}, {tuple(negative.shape)} and {tuple(weights.shape)}"
        )
    # BCE(l, 1) = -log sigma(l), BCE(l, 0) = -log sigma(-l).
    attract = (1 - gamma + nce_weight) * F.logsigmoid(positive) + gamma * weights.detach() * F.logsigmoid(negative)
    return -(attract + (1 + nce_weight) * F.logsigmoid(-negative)).mean()


def num_next_goals(batch_size: int, gamma: float, nce_weight: float = 0.0) -> int:
    """floor(B (1 - gamma) / (1 - gamma + nce_weight)): rows whose positive is the next state's goal; the first ones.

    All without NCE. With it the floor, as published, leaves fewer than there should be: of 256 at gamma 0.99, 2 and not
    2.53.

    Raises ValueError where a number is out of range.
    """
    _check(gamma, nce_weight)
    # 1 - 0.9 is a little less than 0.1: a share that is whole must not lose a row by that.
    return math.floor(batch_size * (1 - gamma) / (1 - gamma + nce_weight) + 1e-9)


def chance_loss(nce_weight: float = 0.0) -> float:
    """`c_learning_loss` of the best critic that cannot tell one goal from another: 2 (1 + nce_weight) ln 2.

    Its logits are ln 1 = 0 and its weights 1. At the optimum the loss is lower by twice (1 + nce_weight) the
    Jensen-Shannon divergence of p(g | s, a) and p(g).
    """
    return 2 * (1 + nce_weight) * math.log(2)


def _check(gamma: float, nce_weight: float) -> None:
    if not 0 <= gamma < 1:
        raise ValueError(f"gamma must be at least 0 and below 1 to bootstrap, got {gamma}")
    if nce_weight < 0:
        raise ValueError(f"nce_weight must be at least 0, got {nce_weight}")
