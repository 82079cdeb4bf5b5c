"""Contrastive RL (Eysenbach et al. 2022; Wang et al. 2025): representations in which nearness means reachability.

Letters: B rows of a batch, O observation, G goal, A action, K candidates, R representation.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from crl import losses
from crl.algorithms.base import Algorithm, Given, Rows, fixed, over_critics
from crl.policy import Config, Networks, Spec


class Encoders(Networks):
    """The actor, phi(s, a) and psi(g); with two critics, a second pair of encoders."""

    def __init__(self, spec: Spec, config: Config, generator: torch.Generator) -> None:
        super().__init__(spec, config, generator)
        o, g, a, r = spec.observation_dim, spec.goal_dim, spec.action_dim, config.representation_dim
        self._energy, self._critic_value = config.energy, config.critic_value
        self.state_action_encoder, self.goal_encoder = (self.build(n, r, generator) for n in (o + a, g))
        second = nn.ModuleList(self.build(n, r, generator) for n in (o + a, g) if config.num_critics == 2)
        self.second = second or None
        self.log_scale = nn.Parameter(torch.zeros(())) if config.energy_scale == "learned" else None
        self._scale = r**-0.5 if config.energy_scale == "dimension" else 1.0

    @property
    def critics(self) -> list[tuple[nn.Module, nn.Module]]:
        """phi and psi of every critic."""
        first = self.state_action_encoder, self.goal_encoder
        return [first] if self.second is None else [first, (self.second[0], self.second[1])]

    @property
    def scale(self) -> float | Tensor:
        """By which energies are multiplied."""
        return self._scale if self.log_scale is None else self.log_scale.exp()

    @property
    def fixed_scale(self) -> float | Tensor:
        """The same, for losses from which it does not learn."""
        return self._scale if self.log_scale is None else self.log_scale.detach().exp()

    def energies(self, observation: Tensor, action: Tensor, goal: Tensor) -> list[Tensor]:
        """Of each critic the scaled energy of every row: (B, O), (B, A), (B, G) -> (B,)."""
        pairs = torch.cat((observation, action), -1)
        encoded = ((phi(pairs).float(), psi(goal).float()) for phi, psi in self.critics)
        return [self.scale * losses.energy(phi, psi, self._energy) for phi, psi in encoded]

    def score(self, observation: Tensor, goal: Tensor, action: Tensor) -> Tensor:
        """The critics' energy of every candidate: (N, O), (N, G), (N, K, A) -> (N, K)."""
        n, k, _ = action.shape
        pairs = torch.cat((observation[:, None].expand(n, k, -1), action), -1).flatten(0, 1)
        encoded = [(phi(pairs).float().view(n, k, -1), psi(goal).float()[:, None]) for phi, psi in self.critics]
        return over_critics([losses.energy(phi, psi, self._energy) for phi, psi in encoded], self._critic_value)

    def represent_goal(self, goal: Tensor) -> Tensor:
        psi: Tensor = self.goal_encoder(goal)
        return psi


class Contrastive(Algorithm):
    """InfoNCE forward, backward or symmetric, CPC or binary NCE; an actor that maximises the energy.

    All gradients are taken at the present weights: just the published order (actor and temperature against the
    current critic, then the critic), as the critic's loss does not involve the actor.
    """

    networks: Encoders

    def __init__(self, given: Given) -> None:
        losses.check_energy(given.config.energy)
        super().__init__(given)
        self._fixed = [fixed(state_action_encoder) for state_action_encoder, _ in self.networks.critics]

    def make_networks(self, generator: torch.Generator) -> Encoders:
        return Encoders(self.spec, self.config, generator)

    def chance_loss(self, batch_size: int) -> float | None:
        kind = losses.contrastive_loss_of(self.config.objective)
        return losses.chance_loss(kind, batch_size)

    def backward(self, rows: Rows) -> dict[str, Tensor]:
        net, noise = self.networks, self.noise(rows.action)
        with self.numerics.network_precision():
            psis = [goal_encoder(rows.goal).float() for _, goal_encoder in net.critics]
        commanded = rows.further.get("desired_goal")
        actor_goal = self.goals_of_actor(rows.goal, commanded)
        with self.numerics.network_precision():
            of_commanded = [None if commanded is None else encoder(commanded).float() for _, encoder in net.critics]
        actor_psis = [
            self.goals_of_actor(psi.detach(), None if c is None else c.detach())
            for psi, c in zip(psis, of_commanded, strict=True)
        ]
        waiting = None if commanded is None else 1 - self._commanded_reached(rows.goal, commanded)
        # On a CPU each takes one half of the threads: neither needs what the other makes.
        actor, critic = self.both(
            lambda: self.actor_backward(rows, actor_goal, noise, self._value(rows.observation, actor_psis)),
            lambda: self._critic_backward(rows, psis, of_commanded, waiting),
        )
        return {**critic, **actor} if waiting is None else {**critic, **actor, "train/commanded_reached": 1 - waiting}

    @torch.no_grad()
    def _commanded_reached(self, goal: Tensor, commanded: Tensor) -> Tensor:
        """Whether some row of the batch of all ranks has a goal that reaches what was commanded when it was collected:
        1 or 0, float32, 0-d."""
        achieved, wanted = map(self.networks.inputs.goal_of, (goal, commanded))
        return self.ranks.gather(self.spec.reached(achieved, wanted).float()).amax()

    def _value(self, observation: Tensor, psis: list[Tensor]) -> Callable[[Tensor], Tensor]:
        def value(action: Tensor) -> Tensor:
            pairs = torch.cat((observation, action), -1)
            with self.numerics.network_precision():
                phis = [encoder(pairs).float() for encoder in self._fixed]
            energies = [losses.energy(phi, psi, self.config.energy) for phi, psi in zip(phis, psis, strict=True)]
            return self.networks.fixed_scale * over_critics(energies, self.config.critic_value)

        return value

    def _critic_backward(
        self, rows: Rows, psis: list[Tensor], commanded: list[Tensor | None], waiting: Tensor | None
    ) -> dict[str, Tensor]:
        config, ranks = self.config, self.ranks
        pairs, first = torch.cat((rows.observation, rows.action), -1), ranks.rank * len(rows.action)
        gather, kind = ranks.gather if ranks.size > 1 else None, losses.contrastive_loss_of(config.objective)
        total, contrastive = torch.zeros((), device=pairs.device), torch.zeros((), device=pairs.device)
        for (state_action_encoder, _), psi, of_commanded in zip(self.networks.critics, psis, commanded, strict=True):
            with self.numerics.network_precision():
                phi = state_action_encoder(pairs).float()
            # This rank's rows of the logits of all: each row with every goal.
            logits = self.networks.scale * losses.pairwise_energy(phi, ranks.gather(psi), config.energy)
            logsumexp = logits.logsumexp(1)
            loss = losses.contrastive_loss(logits, kind, logsumexp, first, gather)
            contrastive = contrastive + loss
            total = total + loss + config.logsumexp_penalty * losses.logsumexp_penalty(logits, logsumexp)
            if config.commanded_negatives and of_commanded is not None and waiting is not None:
                energy = self.networks.fixed_scale * losses.energy(phi, of_commanded, config.energy)
                total = total + config.commanded_negatives * waiting * energy.mean()
        total.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            count = len(psis)
            return {
                "train/critic_loss": total / count,
                "train/contrastive_loss": contrastive / count,
                **losses.logit_statistics(logits, logsumexp, first),
                "train/representation_norm_state_action": torch.linalg.vector_norm(phi, dim=-1).mean(),
                "train/representation_norm_goal": torch.linalg.vector_norm(psi, dim=-1).mean(),
            }
