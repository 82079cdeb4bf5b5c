"""SAC (Haarnoja et al. 2018): an actor of high value and entropy, critics that count both."""

import dataclasses

import torch
from torch import Tensor, nn

from crl.algorithms.base import Given, Rows, follower, over_critics
from crl.algorithms.td import TemporalDifference, Transitions
from crl.networks import squash


class SAC(TemporalDifference):
    """Soft actor-critic with an adaptive temperature, on sparse rewards and hindsight goals.

    y = r + gamma (Q'(s', g, a') - alpha log pi(a' | s', g)), a' ~ pi, with Q' of the targets, which follow by 0.005 an
    update; L_Q = 1/2 mean (Q(s, g, a) - y)^2 of each critic; L_pi = mean (alpha log pi(a | s, g) - Q(s, g, a)), a ~ pi.
    Where there are two critics, Q and Q' are their smaller one (`critic_value`).
    """

    target: nn.ModuleList

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        self.followed = self.networks.critics
        self.target = follower(self.networks.critics)

    def backward(self, rows: Rows) -> dict[str, Tensor]:
        batch, kind = self.transitions(rows), self.config.critic_value
        noise, next_noise = self.noise(rows.action), self.noise(rows.action)
        rows = dataclasses.replace(rows, goal=batch.goal)
        actor, critic = self.both(
            lambda: self.actor_backward(rows, batch.goal, noise, self.value(batch, kind)),
            lambda: self.critic_backward(batch, self._soft_target(batch, next_noise)),
        )
        return {**critic, **actor}

    @torch.no_grad()
    def _soft_target(self, batch: Transitions, noise: Tensor) -> Tensor:
        with self.numerics.network_precision():
            mean, log_std = self.networks.actor(batch.next_observation, batch.goal)
        action, log_prob = squash(mean, log_std, noise)
        q = self.values(self.target, batch.next_observation, batch.goal, action)
        soft = over_critics(q, self.config.critic_value) - self.log_alpha.exp() * log_prob
        return batch.reward + batch.discount * soft
