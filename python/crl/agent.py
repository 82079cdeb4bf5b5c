"""The learner: three networks, one temperature, one optimizer, and `update`.

Letters: B rows of a batch, O observation, G goal, A action, R representation.
"""

import copy
import math
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from crl import losses
from crl.adam import Adam
from crl.lanes import First, Second, both
from crl.networks import ResidualMLP, by_layer_of, squash
from crl.policy import Array, Config, Networks, Numerics, Policy, Spec, check_same_rows
from crl.ranks import ALONE, Ranks


class Batch(Protocol):
    """Rows to learn from: observation (B, O), action (B, A), goal (B, G), where goal i is a future of row i."""

    @property
    def observation(self) -> Array: ...
    @property
    def action(self) -> Array: ...
    @property
    def goal(self) -> Array: ...


class Agent:
    """Contrastive RL's learner (docs/algorithm.md): `update` learns from a batch, `act` acts.

    Args:
        spec: observation_dim, goal_dim, action_dim.
        config: a resolved `crl.TrainConfig`, or anything with the attributes of `Config`.
        device: of weights, updates and actions. The same seed gives the same weights on every device.
        ranks: the processes of the run. Each has B/N rows of the batch, and all make the update of the whole batch.
    Raises:
        ValueError: a size, depth, kind or precision that does not exist, or a setting not chosen yet.
    """

    def __init__(self, spec: Spec, config: Config, device: str | torch.device = "cpu", ranks: Ranks = ALONE) -> None:
        names = (name for name, kind in vars(Config).items() if isinstance(kind, property))
        if auto := [name for name in names if getattr(config, name) is None]:
            raise ValueError(
                f"config leaves {', '.join(auto)} to be chosen: pass crl.config.resolve(config, ...).config"
            )
        losses.check_energy(config.energy)
        losses.check_contrastive_loss(config.contrastive_loss)
        if config.num_action_candidates < 1:
            raise ValueError(f"num_action_candidates must be at least 1, got {config.num_action_candidates}")
        self.spec, self.config, self.device, self._ranks = spec, config, torch.device(device), ranks
        self._numerics = Numerics(self.device, config.precision)
        seeds = torch.Generator().manual_seed(config.seed)
        update_seed, act_seed = torch.randint(2**62, (2,), generator=seeds).tolist()
        # Two streams, so that learning and acting may run in two threads and still be reproducible.
        self._update_generator = torch.Generator(self.device).manual_seed(update_seed)
        self._act_generator = torch.Generator(self.device).manual_seed(act_seed)
        self.networks = Networks(spec, config, seeds).to(self.device)
        self.log_alpha = nn.Parameter(torch.tensor(math.log(config.initial_alpha), device=self.device))
        self.target_entropy = -config.target_entropy_scale * spec.action_dim
        # Adam works element by element, so one for everything is the published three.
        self._adam = Adam(self._named_parameters(), config.learning_rate)
        self._fixed_encoder = _fixed(self.networks.state_action_encoder)
        self._actor_average = [p.detach().clone() for p in self.networks.actor.parameters() if config.actor_ema]
        self._seen_images = False
        self._weights_lock = threading.Lock()
        self._policy = Policy(self.networks, spec, config, self._numerics, self._act_generator, ranks=ranks)

        self._watched: list[tuple[str, ResidualMLP]] = []
        if config.block_metrics:
            parts = {"actor": self.networks.actor, "state_action": self.networks.state_action_encoder}
            for name, part in {**parts, "goal": self.networks.goal_encoder}.items():
                self._watched += [(name, module) for module in part.modules() if isinstance(module, ResidualMLP)]
        for _, module in self._watched:
            module.watched = []

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One step of actor, temperature and critic on one batch; never waits for the device.

        All gradients are taken at the present weights, then one Adam step moves them: just the published order
        (actor and temperature against the current critic, then the critic), as the critic's loss does not
        involve the actor.

        Args:
            batch: observation (B, O), action (B, A), goal (B, G), torch or NumPy.
        Returns:
            the `train/...` metrics as 0-d tensors on the device, measured before the step.
        Raises:
            ValueError: an array of another shape, naming it.
        """
        config, spec, net, ranks = self.config, self.spec, self.networks, self._ranks
        observation = self._numerics.rows("batch.observation", batch.observation, spec.observation_dim)
        action = self._numerics.rows("batch.action", batch.action, spec.action_dim)
        goal = self._numerics.rows("batch.goal", batch.goal, spec.goal_dim)
        check_same_rows(observation=observation, action=action, goal=goal)
        if net.backdrop is not None:
            if not self._seen_images:
                with self._weights_lock:
                    net.backdrop.copy_(torch.cat((observation, goal)).mean(0))
                    ranks.average([net.backdrop])
                self._seen_images = True
            observation, goal = net.before_backdrop(observation), net.before_backdrop(goal)
        # The noise of all ranks, so that their generators stay the same.
        shape = (ranks.size * len(action), spec.action_dim)
        noise = ranks.own(torch.randn(shape, generator=self._update_generator, device=self.device))
        first = ranks.rank * len(action)
        alpha = self.log_alpha.detach().exp()
        self._forget_gradients()

        with self._numerics.network_precision():
            psi = net.goal_encoder(goal).float()
        actor_goal, actor_psi = self._for_actor(goal), self._for_actor(psi.detach())

        def actor_step() -> tuple[Tensor, Tensor, Tensor]:
            with self._numerics.network_precision():
                mean, log_std = net.actor(observation, actor_goal)
            sampled_action, log_prob = squash(mean, log_std, noise)
            with self._numerics.network_precision():
                phi = self._fixed_encoder(torch.cat((observation, sampled_action), -1)).float()
            actor_loss = losses.actor_loss(log_prob, losses.energy(phi, actor_psi, config.energy), alpha)
            alpha_loss = losses.temperature_loss(self.log_alpha, log_prob, self.target_entropy)
            torch.autograd.backward((actor_loss, alpha_loss))
            return actor_loss.detach(), alpha_loss.detach(), log_prob.detach()

        def critic_step() -> tuple[Tensor, ...]:
            with self._numerics.network_precision():
                phi = net.state_action_encoder(torch.cat((observation, action), -1)).float()
            # This rank's rows of the logits of all: each row with every goal.
            logits = losses.pairwise_energy(phi, ranks.gather(psi), config.energy, first)
            logsumexp = logits.logsumexp(1)
            gather = ranks.gather if ranks.size > 1 else None
            contrastive_loss = losses.contrastive_loss(logits, config.contrastive_loss, logsumexp, first, gather)
            critic_loss = contrastive_loss + config.logsumexp_penalty * losses.logsumexp_penalty(logits, logsumexp)
            critic_loss.backward()  # type: ignore[no-untyped-call]
            return tuple(x.detach() for x in (critic_loss, contrastive_loss, logits, logsumexp, phi))

        # On a CPU each takes one half of the threads: neither needs what the other makes.
        (actor_loss, alpha_loss, log_prob), (critic_loss, contrastive_loss, logits, logsumexp, phi) = self._both(
            actor_step, critic_step
        )
        with torch.no_grad():
            metrics = {
                "train/critic_loss": critic_loss,
                "train/contrastive_loss": contrastive_loss,
                "train/actor_loss": actor_loss,
                "train/alpha": alpha,
                "train/alpha_loss": alpha_loss,
                "train/entropy": -log_prob.mean(),
                **losses.logit_statistics(logits, logsumexp, first),
                "train/representation_norm_state_action": torch.linalg.vector_norm(phi, dim=-1).mean(),
                "train/representation_norm_goal": torch.linalg.vector_norm(psi, dim=-1).mean(),
                **{f"train/{name}_{k}": v for name, module in self._watched for k, v in module.block_metrics().items()},
            }
            gradients = [p.grad for p in self._named_parameters().values() if p.grad is not None]
            ranks.average([*gradients, *metrics.values()])
            metrics["train/critic_grad_norm"] = _grad_norm(net.critic_parameters())
            metrics["train/actor_grad_norm"] = _grad_norm(net.actor.parameters())
        with self._weights_lock:
            self._adam.step()
            if self._actor_average:
                present = [p.detach() for p in net.actor.parameters()]
                torch._foreach_lerp_(self._actor_average, present, 1 - config.actor_ema)
        return metrics

    def _both(self, first: Callable[[], First], second: Callable[[], Second]) -> tuple[First, Second]:
        return both(first, second) if self.device.type == "cpu" else (first(), second())

    def _forget_gradients(self) -> None:
        for module in self.networks.modules():
            if isinstance(module, ResidualMLP):
                module.recycle_gradients()
        self._adam.zero_grad()

    def _for_actor(self, rows: Tensor) -> Tensor:
        """Goals, or their representations, (B, ...) as the actor's loss pairs them with the batch's observations.

        `future`: each its own; `random`: each the next row's; `mixture`: the first half the next row's. Rows of a
        batch are independent draws, so the next row's goal is a goal of the whole buffer. The halves and the next row
        are of the batch of all ranks, rank by rank.
        """
        if self.config.actor_goals == "future":
            return rows
        rows = self._ranks.gather(rows)
        moved = len(rows) // 2 if self.config.actor_goals == "mixture" else len(rows)
        return self._ranks.own(torch.cat((rows[:moved].roll(-1, 0), rows[moved:])))

    def act(self, observation: Array, goal: Array, deterministic: bool = False) -> Tensor:
        """The actions of the present weights: see `Policy.act`."""
        return self._policy.act(observation, goal, deterministic)

    def policy(self, generator: torch.Generator | None = None) -> Policy:
        """A copy of the present weights to act on while this agent goes on learning, in another thread if wished.

        Args:
            generator: source of its noise, on the agent's device. None: the agent's own acting generator, whose
                position is part of `state_dict`; give evaluation one of its own to leave collecting undisturbed.
        """
        with self._weights_lock:
            networks = copy.deepcopy(self.networks).requires_grad_(False)
        generator = generator or self._act_generator
        return Policy(networks, self.spec, self.config, self._numerics, generator, self._copy_weights_to, self._ranks)

    def evaluation_policy(self, generator: torch.Generator | None = None) -> Policy:
        """A copy to judge, never refreshed, whose actor is the moving average of the weights where `actor_ema` is set.

        The average is over the last 1 / (1 - actor_ema) updates, about. Late in training the mode of the present actor
        may swing from one update to the next between actions of almost equal value; that of the average does not.
        """
        with self._weights_lock, torch.no_grad():
            networks = copy.deepcopy(self.networks).requires_grad_(False)
            for mine, theirs in zip(self._actor_average, networks.actor.parameters(), strict=False):
                theirs.copy_(mine)
        generator = generator or self._act_generator
        return Policy(networks, self.spec, self.config, self._numerics, generator, ranks=self._ranks)

    def _copy_weights_to(self, networks: Networks) -> None:
        with self._weights_lock, torch.no_grad():
            for mine, theirs in zip(self.networks.state_dict().values(), networks.state_dict().values(), strict=True):
                theirs.copy_(mine, non_blocking=True)

    def _named_parameters(self) -> dict[str, nn.Parameter]:
        return {**dict(self.networks.named_parameters()), "log_alpha": self.log_alpha}

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that the next update depends on, as a flat dict of contiguous tensors.

        Weights by layer name, `backdrop` where there are images, `log_alpha`, Adam's moments under `adam.exp_avg.` and
        `adam.exp_avg_sq.`, `adam.steps`, the averaged actor under `actor_ema.` where there is one, and the states of
        both random generators (uint8). A copy: later updates leave it as it is.
        """
        with self._weights_lock:
            return {name: tensor.detach().clone().contiguous() for name, tensor in self._state().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state`, bit for bit. Nothing is changed unless all of it fits.

        Raises:
            ValueError: keys missing or unknown, or a tensor of another shape or dtype; names them.
        """
        mine = self._state()
        _check_state(mine, state)
        with self._weights_lock, torch.no_grad():
            for name, tensor in mine.items():
                tensor.copy_(state[name])
        self._seen_images = bool(state["adam.steps"].any())
        self._update_generator.set_state(state["generator.update"].cpu())
        self._act_generator.set_state(state["generator.act"].cpu())

    def _state(self) -> dict[str, Tensor]:
        actor = [f"actor_ema.{name}" for name, _ in self.networks.actor.named_parameters()]
        return {
            **by_layer_of(self._named_parameters().items()),
            **dict(self.networks.named_buffers()),
            **{f"adam.{name}": tensor for name, tensor in self._adam.state().items()},
            **by_layer_of(zip(actor, self._actor_average, strict=False)),
            "generator.update": self._update_generator.get_state(),
            "generator.act": self._act_generator.get_state(),
        }


def _fixed(module: nn.Module) -> nn.Module:
    """A second module on the same weights, that passes gradients through to its input and none to the weights."""
    shared: dict[int, Any] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in module.parameters()}
    shared |= {id(m.memory): m.memory for m in module.modules() if isinstance(m, ResidualMLP)}
    return copy.deepcopy(module, shared)


def _grad_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The 2-norm of all gradients as one vector."""
    return nn.utils.get_total_norm(p.grad for p in parameters if p.grad is not None)


def _check_state(mine: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    problems = [f"missing {name}" for name in mine if name not in given]
    problems += [f"unknown {name}" for name in given if name not in mine]
    for name in mine.keys() & given.keys():
        expected, got = mine[name], given[name]
        if (expected.shape, expected.dtype) != (got.shape, got.dtype):
            problems.append(
                f"{name}: expected {tuple(expected.shape)} {expected.dtype}, got {tuple(got.shape)} {got.dtype}"
            )
    if problems:
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise ValueError("state does not fit this agent: " + "; ".join(sorted(problems)[:5]) + more)
