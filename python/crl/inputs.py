"""How networks see observations and goals: images less what they have in common, numbers standardised if so wished."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

GREY = 127.5
"""Half of white: every image's backdrop until an agent has seen images, and that of Eysenbach et al. (2022) always."""
LEAST_DEVIATION = 0.05
"""What hardly varies at first is not blown up by more: what nothing has touched yet may move later."""


class Inputs(nn.Module):
    """Maps, the same for all networks of a learner, that its first batch sets (`fit`) and nothing changes after.

    **Images** less the mean image, `backdrop` (G,). What moves before a fixed camera covers few pixels. Beside all the
    others, which are the same in every image, it hardly moves a representation: all lie in one spot off the goals'
    spot, and for hundreds of updates distances between the two say nothing about which goes with which.

    **Numbers** as they are (published) or, with `normalize`, (x - mean) / std, entry by entry. It is the same with
    numbers: a gripper that moves by a few centimetres about a place a metre from the origin hardly moves a
    representation either.

    Args:
        observation_dim, goal_dim: O and G.
        image: height, width and channels where both are images.
        normalize: whether numbers are standardised.
    """

    backdrop: Tensor | None
    observation: Tensor | None
    goal: Tensor | None

    def __init__(
        self, observation_dim: int, goal_dim: int, image: tuple[int, int, int] | None = None, normalize: bool = False
    ) -> None:
        super().__init__()

        def identity(dim: int) -> Tensor | None:
            return torch.stack((torch.zeros(dim), torch.ones(dim))) if normalize and not image else None

        self.register_buffer("backdrop", torch.full((goal_dim,), GREY) if image else None)
        # Mean and standard deviation, (2, O) and (2, G).
        self.register_buffer("observation", identity(observation_dim))
        self.register_buffer("goal", identity(goal_dim))

    @torch.no_grad()
    def fit(self, observation: Tensor, goal: Tensor, average: Callable[[Sequence[Tensor]], object]) -> None:
        """Set the maps from rows as the world shows them, (B, O) and (B, G).

        Args:
            average: replaces tensors by their means over all ranks.
        """
        if self.backdrop is not None:
            self.backdrop.copy_(torch.cat((observation, goal)).mean(0))
            average([self.backdrop])
        for moments, rows in ((self.observation, observation), (self.goal, goal)):
            if moments is not None:
                mean, square = rows.double().mean(0), rows.double().square().mean(0)
                average([mean, square])
                deviation = (square - mean.square()).clamp_min(0).sqrt()
                moments.copy_(torch.stack((mean, deviation.clamp_min(LEAST_DEVIATION))))

    @property
    def fitted(self) -> bool:
        """Whether the maps are other than before `fit`."""
        backdrop = self.backdrop is not None and not bool((self.backdrop == GREY).all())
        moments = (x for x in (self.observation, self.goal) if x is not None)
        return backdrop or any(bool(x[0].any() or (x[1] != 1).any()) for x in moments)

    def of_observation(self, rows: Tensor) -> Tensor:
        """Observations (..., O) as the networks see them."""
        return self._of(self.observation, rows)

    def of_goal(self, rows: Tensor) -> Tensor:
        """Goals, or what was achieved, (..., G) as the networks see them."""
        return self._of(self.goal, rows)

    def goal_of(self, seen: Tensor) -> Tensor:
        """The goals (..., G) that are seen so: the inverse of `of_goal` for numbers."""
        return seen if self.goal is None else torch.addcmul(self.goal[0], seen, self.goal[1])

    def _of(self, moments: Tensor | None, rows: Tensor) -> Tensor:
        if self.backdrop is not None:
            return rows - self.backdrop
        return rows if moments is None else (rows - moments[0]) / moments[1]
