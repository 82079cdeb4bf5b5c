"""C-learning (Eysenbach et al. 2021), alone or with NCE (2022): what lies beyond the next state is a target's word.

Letters: B rows of a batch, C critics, O observation, G goal, A action, R representation.
"""

import torch
from torch import Tensor

from crl import bootstrap, losses
from crl.algorithms.base import Given, Rows, follower
from crl.algorithms.contrastive import Contrastive, Encoders
from crl.networks import squash


class CLearning(Contrastive):
    """Positives are what the next state achieves or, of NCE's share of the rows, future goals; the negative of a row is
    the positive of the row after it. The actor is that of contrastive RL, for future goals.
    """

    target: Encoders

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        self._nce_weight = bootstrap.NCE_WEIGHTS[self.config.objective]
        self._next_goal = "next_observation" if getattr(self.spec, "image", None) else "next_achieved_goal"
        self.columns = tuple(dict.fromkeys(("next_observation", self._next_goal, *self.columns)))
        self.followed, self.target = self.networks, follower(self.networks)

    def chance_loss(self, batch_size: int) -> float | None:
        return bootstrap.chance_loss(self._nce_weight)

    def backward(self, rows: Rows) -> dict[str, Tensor]:
        noise, next_noise = self.noise(rows.action), self.noise(rows.action)
        goals = self._positives(rows)
        weights = self._weights(rows.further["next_observation"], self.of_next_row(goals), next_noise)
        actor_goal = self.goals_of_actor(rows.goal, rows.further.get("desired_goal"))
        with self.numerics.network_precision(), torch.no_grad():
            actor_psis = [goal_encoder(actor_goal).float() for _, goal_encoder in self.networks.critics]
        actor, critic = self.both(
            lambda: self.actor_backward(rows, actor_goal, noise, self._value(rows.observation, actor_psis)),
            lambda: self._bootstrap_backward(rows, goals, weights),
        )
        return {**critic, **actor}

    def _positives(self, rows: Rows) -> Tensor:
        """(B, G): in the first rows of the batch of all ranks what the next state achieves, then future goals."""
        count, ranks = len(rows.goal), self.ranks
        next_goals = bootstrap.num_next_goals(ranks.size * count, self.config.gamma, self._nce_weight)
        mine = min(max(next_goals - ranks.rank * count, 0), count)
        return torch.cat((rows.further[self._next_goal][:mine], rows.goal[mine:]))

    @torch.no_grad()
    def _weights(self, next_observation: Tensor, goal: Tensor, noise: Tensor) -> Tensor:
        """(B,): importance weights of goals that the policy goes on to from the next state."""
        with self.numerics.network_precision():
            mean, log_std = self.networks.actor(next_observation, goal)
            action, _ = squash(mean, log_std, noise)
            logits = torch.stack(self.target.energies(next_observation, action, goal))
        return bootstrap.importance_weights(logits)

    def _bootstrap_backward(self, rows: Rows, goals: Tensor, weights: Tensor) -> dict[str, Tensor]:
        net, config = self.networks, self.config
        pairs = torch.cat((rows.observation, rows.action), -1)
        positive, negative = [], []
        for state_action_encoder, goal_encoder in net.critics:
            with self.numerics.network_precision():
                phi, psi = state_action_encoder(pairs).float(), goal_encoder(goals).float()
            positive.append(net.scale * losses.energy(phi, psi, config.energy))
            negative.append(net.scale * losses.energy(phi, self.of_next_row(psi), config.energy))
        own, others = torch.stack(positive), torch.stack(negative)
        loss = bootstrap.c_learning_loss(own, others, weights, config.gamma, self._nce_weight)
        # A sum over critics, so that each learns as if it were alone.
        (len(own) * loss).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            return {
                "train/critic_loss": loss,
                "train/contrastive_loss": loss,
                "train/categorical_accuracy": (own > others).float().mean(),
                "train/logits_pos": own.mean(),
                "train/logits_neg": others.mean(),
                "train/importance_weight": weights.mean(),
                "train/representation_norm_state_action": torch.linalg.vector_norm(phi, dim=-1).mean(),
                "train/representation_norm_goal": torch.linalg.vector_norm(psi, dim=-1).mean(),
            }
