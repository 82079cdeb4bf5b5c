"""TD3 (Fujimoto et al. 2018): a deterministic actor, the smaller of two critics, smoothed targets, a delayed actor."""

import torch
from torch import Tensor, nn

from crl.algorithms.base import TARGET_RATE, Given, Rows, follower, over_critics
from crl.algorithms.td import Critics, TemporalDifference, Transitions
from crl.policy import Config, Spec

SMOOTHING, LARGEST_SMOOTHING = 0.2, 0.5
"""Standard deviation of the noise on the target's actions, and where it is cut off, as published."""


class Deterministic(Critics):
    """Networks whose actions are the mode of the actor; collecting adds noise."""

    def __init__(self, spec: Spec, config: Config, generator: torch.Generator) -> None:
        super().__init__(spec, config, generator)
        self._exploration_noise = config.exploration_noise
        self.skip: Tensor
        self.register_buffer("skip", torch.ones(()))

    def explore(self, mean: Tensor, log_std: Tensor, noise: Tensor) -> Tensor:
        return (torch.tanh(mean) + self._exploration_noise * noise).clamp(-1, 1)


class TD3(TemporalDifference):
    """Twin delayed deterministic policy gradient, on sparse rewards and hindsight goals.

    y = r + gamma min Q'(s', g, clip(pi'(s', g) + clip(0.2 noise, +-0.5), +-1)), L_Q = 1/2 mean (Q(s, g, a) - y)^2 of
    each critic, L_pi = -mean Q_1(s, g, pi(s, g)). The actor and all targets, which follow by 0.005, move in every
    second update. The actor's gradient is computed in the others too, and not used: an update is the same operations
    every time, and its metrics are of every batch.
    """

    networks: Deterministic
    target: nn.ModuleDict

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        net = self.networks
        self.followed = nn.ModuleDict({"actor": net.actor, "critics": net.critics})
        self.target = follower(self.followed)
        self.delayed = tuple(f"actor.{name}" for name, _ in net.actor.named_parameters())
        self.skip = net.skip

    def make_networks(self, generator: torch.Generator) -> Deterministic:
        return Deterministic(self.spec, self.config, generator)

    def backward(self, rows: Rows) -> dict[str, Tensor]:
        batch, noise = self.transitions(rows), self.noise(rows.action)
        actor, critic = self.both(
            lambda: self._actor_backward(batch),
            lambda: self.critic_backward(batch, self._smoothed_target(batch, noise)),
        )
        return {**critic, **actor}

    def _actor_backward(self, batch: Transitions) -> dict[str, Tensor]:
        with self.numerics.network_precision():
            action = self.networks.actor.mode(batch.observation, batch.goal)
        loss = -self.value(batch, "first")(action).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return {"train/actor_loss": loss.detach()}

    @torch.no_grad()
    def _smoothed_target(self, batch: Transitions, noise: Tensor) -> Tensor:
        with self.numerics.network_precision():
            mean, _ = self.target["actor"](batch.next_observation, batch.goal)
        smoothing = (SMOOTHING * noise).clamp(-LARGEST_SMOOTHING, LARGEST_SMOOTHING)
        action = (torch.tanh(mean) + smoothing).clamp(-1, 1)
        q = self.values(self.target["critics"].children(), batch.next_observation, batch.goal, action)
        return batch.reward + batch.discount * over_critics(q, self.config.critic_value)

    @torch.no_grad()
    def move_target(self, target: nn.Module) -> None:
        rate = TARGET_RATE * (1 - self.networks.skip)
        for theirs, present in zip(target.parameters(), self.followed.parameters(), strict=True):
            theirs.lerp_(present, rate)
        self.networks.skip.copy_(1 - self.networks.skip)
