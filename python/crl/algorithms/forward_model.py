"""The model-based baseline of Eysenbach et al. (2022): a density of future goals, and an actor that makes them likely.

Letters: B rows of a batch, O observation, G goal, A action, K candidates.
"""

import math

import torch
from torch import Tensor, nn

from crl.algorithms.base import Algorithm, Given, Rows, fixed
from crl.policy import Config, Networks, Spec

LARGEST_LOG_STD = 5.0
"""Standard deviations lie within e^-5 and e^5, in the units of the goal."""


class Model(Networks):
    """The actor, and a Gaussian p(g | s, a) with independent entries."""

    def __init__(self, spec: Spec, config: Config, generator: torch.Generator) -> None:
        super().__init__(spec, config, generator)
        self.model = self.build(spec.observation_dim + spec.action_dim, 2 * spec.goal_dim, generator)

    def score(self, observation: Tensor, goal: Tensor, action: Tensor) -> Tensor:
        """How likely every candidate makes the goal: (N, O), (N, G), (N, K, A) -> (N, K)."""
        n, k, _ = action.shape
        pairs = torch.cat((observation[:, None].expand(n, k, -1), action), -1).flatten(0, 1)
        return log_density(self.model(pairs).float(), goal.repeat_interleave(k, 0)).view(n, k)


class ForwardModel(Algorithm):
    """Of the published baseline the paper says what it learns, and neither its density nor its code.

    Here: L_model = -mean log p(g_i | s_i, a_i), g_i drawn from the future of row i by `goals`, so that p is the
    discounted density of what the trajectory will achieve; L_pi = mean (alpha log pi(a | s, g) - log p(g | s, a)),
    a ~ pi.
    """

    networks: Model

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        self._fixed = fixed(self.networks.model)

    def make_networks(self, generator: torch.Generator) -> Model:
        return Model(self.spec, self.config, generator)

    def backward(self, rows: Rows) -> dict[str, Tensor]:
        noise = self.noise(rows.action)
        goal = self.goals_of_actor(rows.goal, rows.further.get("desired_goal"))
        actor, model = self.both(
            lambda: self.actor_backward(
                rows, goal, noise, lambda action: self._log_density(self._fixed, rows.observation, action, goal)
            ),
            lambda: self._model_backward(rows),
        )
        return {**model, **actor}

    def _model_backward(self, rows: Rows) -> dict[str, Tensor]:
        loss = -self._log_density(self.networks.model, rows.observation, rows.action, rows.goal).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return {"train/critic_loss": loss.detach()}

    def _log_density(self, model: nn.Module, observation: Tensor, action: Tensor, goal: Tensor) -> Tensor:
        with self.numerics.network_precision():
            output = model(torch.cat((observation, action), -1)).float()
        return log_density(output, goal)


def log_density(output: Tensor, goal: Tensor) -> Tensor:
    """ln of the density of goals (B, G) under the Gaussians that a model's output (B, 2 G) says: (B,).

    The first half is the mean, the second half u makes the log standard deviation 5 tanh(u).
    """
    mean, raw = output.chunk(2, -1)
    log_std = LARGEST_LOG_STD * raw.tanh()
    standard = (goal - mean) * (-log_std).exp()
    return (-0.5 * standard.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)
