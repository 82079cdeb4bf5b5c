"""What SAC and TD3 have in common: sparse rewards, hindsight goals, critics of state, goal and action, bootstrapping.

Letters: B rows of a batch, O observation, G goal, A action, K candidates.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from crl.algorithms.base import Algorithm, Given, Rows, fixed, over_critics
from crl.policy import Config, Networks, Spec


class Critics(Networks):
    """The actor and one or two critics Q(s, g, a)."""

    def __init__(self, spec: Spec, config: Config, generator: torch.Generator) -> None:
        super().__init__(spec, config, generator)
        entries = spec.observation_dim + spec.goal_dim + spec.action_dim
        self._critic_value = config.critic_value
        self.critics = nn.ModuleList(self.build(entries, 1, generator) for _ in range(config.num_critics))

    def score(self, observation: Tensor, goal: Tensor, action: Tensor) -> Tensor:
        """What the critics say together of every candidate: (N, O), (N, G), (N, K, A) -> (N, K)."""
        n, k, _ = action.shape
        told = torch.cat((observation, goal), -1)[:, None].expand(n, k, -1)
        rows = torch.cat((told, action), -1).flatten(0, 1)
        return over_critics([critic(rows).float().view(n, k) for critic in self.critics], self._critic_value)


@dataclass(frozen=True)
class Transitions:
    """Rows, the goal that each is for, and what came of them."""

    observation: Tensor
    """(B, O)"""
    action: Tensor
    """(B, A)"""
    goal: Tensor
    """(B, G)"""
    reward: Tensor
    """(B,): 1 where the next row is at the goal, else 0."""
    discount: Tensor
    """(B,): gamma, or 0 where the episode ended of itself. Time limits end no return."""
    next_observation: Tensor
    """(B, O)"""


class TemporalDifference(Algorithm):
    """Hindsight experience replay (Andrychowicz et al. 2017) under an actor and critics that bootstrap.

    The reward is 1 for every step that ends at the goal, and the episode goes on: Q is the discounted number of steps
    to be spent there. The first `commanded_share` of a batch, whose rows are independent draws, keep the goal that was
    commanded while collecting; the others take the one drawn with them, which their trajectory achieved later.
    """

    networks: Critics

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        stored = ("desired_goal",) * ("desired_goal" in self.stores(self.config))
        self.columns = ("next_observation", "next_achieved_goal", "next_terminal", *stored)
        self._fixed = [fixed(critic) for critic in self.networks.critics]

    @classmethod
    def stores(cls, config: Config) -> tuple[str, ...]:
        return ("terminal", "desired_goal") if config.commanded_share else ("terminal",)

    def make_networks(self, generator: torch.Generator) -> Critics:
        return Critics(self.spec, self.config, generator)

    def transitions(self, rows: Rows) -> Transitions:
        """What a batch says, commanded goals and rewards included."""
        goal, further = rows.goal, rows.further
        if kept := round(self.config.commanded_share * len(goal)):
            goal = torch.cat((further["desired_goal"][:kept], goal[kept:]))
        achieved, wanted = map(self.networks.inputs.goal_of, (further["next_achieved_goal"], goal))
        reward = self.spec.reached(achieved, wanted).float()
        discount = self.config.gamma * (1 - further["next_terminal"])
        return Transitions(rows.observation, rows.action, goal, reward, discount, further["next_observation"])

    def values(self, critics: Iterable[nn.Module], observation: Tensor, goal: Tensor, action: Tensor) -> list[Tensor]:
        """What each critic says of each row, (B,)."""
        rows = torch.cat((observation, goal, action), -1)
        with self.numerics.network_precision():
            return [critic(rows).float().squeeze(-1) for critic in critics]

    def value(self, batch: Transitions, kind: str) -> Callable[[Tensor], Tensor]:
        """Of actions (B, A): what the critics say, by `kind` min, mean or first, whose weights learn nothing there."""
        critics = self._fixed[:1] if kind == "first" else self._fixed

        def value(action: Tensor) -> Tensor:
            return over_critics(self.values(critics, batch.observation, batch.goal, action), kind)

        return value

    def critic_backward(self, batch: Transitions, target: Tensor) -> dict[str, Tensor]:
        """The gradients of half the mean squared error of every critic against `target` (B,).

        Returns:
            metrics: critic_loss, q_mean, reward_mean.
        """
        q = torch.stack(self.values(self.networks.critics, batch.observation, batch.goal, batch.action))
        loss = 0.5 * (q - target).square().mean(1).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return {
            "train/critic_loss": loss.detach() / len(q),
            "train/q_mean": q.detach().mean(),
            "train/reward_mean": batch.reward.mean(),
        }
