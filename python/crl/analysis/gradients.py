"""Whether learning about one goal, or one state, helps another: angles between the critic's gradients.

Letters: N (state, action, goal), P weights.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crl.analysis.subject import Subject

Floats = NDArray[np.float64]
HELD = 2**27
"""Numbers held at once, half a gigabyte. Of larger networks a part of the gradients at a time, made anew for each."""


def cosines(subject: Subject, observation: Tensor, goal: Tensor, action: Tensor, held: int = HELD) -> Floats:
    """(N, N): cosines between the gradients of Q(s, a, g) with respect to all weights of the critic, row by row.

    0 where a gradient is zero.
    """
    parameters = subject.critic_parameters()
    size, count = sum(p.numel() for p in parameters), len(observation)
    part = max(1, min(size, held // count))
    products = torch.zeros(count, count, dtype=torch.float64)
    for first in range(0, size, part):
        rows = torch.stack(
            [
                _gradient(subject, parameters, observation[n : n + 1], goal[n : n + 1], action[n : n + 1])[
                    first : first + part
                ].cpu()
                for n in range(count)
            ]
        )
        products += (rows @ rows.T).double()
    length = products.diagonal().sqrt()
    length = torch.where(length > 0, length, torch.inf)
    found: Floats = (products / length / length[:, None]).clamp(-1, 1).numpy()
    return found


def _gradient(
    subject: Subject, parameters: list[torch.nn.Parameter], observation: Tensor, goal: Tensor, action: Tensor
) -> Tensor:
    with torch.enable_grad(), subject.agent.algorithm.numerics.network_precision():
        score = subject.score(observation, goal, action).sum()
        found = torch.autograd.grad(score, parameters, allow_unused=True)
    zero = (torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True))
    return torch.cat([g.flatten() for g in zero])


@dataclass(frozen=True)
class Alignment:
    """Mean cosines between gradients of different (state, goal)s."""

    same_goal: float
    """Of two states for one goal."""
    same_state: float
    """Of one state for two goals."""
    neither: float


def alignment(cosine: Floats, num_goals: int) -> Alignment:
    """Of the cosines (N, N) of every goal's states one after another, the same states for each goal."""
    number = np.arange(len(cosine))
    goal, state = np.divmod(number, len(cosine) // num_goals)
    same_goal, same_state = goal[:, None] == goal, state[:, None] == state
    pick = [same_goal & ~same_state, same_state & ~same_goal, ~same_goal & ~same_state]
    return Alignment(*(float(cosine[where].mean()) if where.any() else float("nan") for where in pick))
