"""The learner: an algorithm's networks, one optimizer, and `update`.

Letters: B rows of a batch, O observation, G goal, A action.
"""

import copy
import threading
from collections.abc import Iterable, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from crl import algorithms
from crl.adam import Adam
from crl.algorithms import Given, Rows
from crl.graphs import Captured
from crl.images import random_crops
from crl.layers import by_layer_of
from crl.networks import ResidualMLP
from crl.policy import Array, Config, Networks, Numerics, Policy, Spec, check_same_rows
from crl.ranks import ALONE, Ranks


class Batch(Protocol):
    """Rows to learn from: observation (B, O), action (B, A), goal (B, G), where goal i is a future of row i.

    Algorithms may want more of a row: `Agent.columns`.
    """

    @property
    def observation(self) -> Array: ...
    @property
    def action(self) -> Array: ...
    @property
    def goal(self) -> Array: ...


class Agent:
    """The learner (docs/algorithm.md): `update` learns from a batch, `act` acts.

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
                f"config leaves {', '.join(auto)} to be chosen: pass crl.resolution.resolve(config, ...).config"
            )
        if config.num_action_candidates < 1:
            raise ValueError(f"num_action_candidates must be at least 1, got {config.num_action_candidates}")
        self.spec, self.config, self.device, self._ranks = spec, config, torch.device(device), ranks
        self._numerics = Numerics(self.device, config.precision)
        seeds = torch.Generator().manual_seed(config.seed)
        update_seed, act_seed = torch.randint(2**62, (2,), generator=seeds).tolist()
        # Two streams, so that learning and acting may run in two threads and still be reproducible.
        self._update_generator = torch.Generator(self.device).manual_seed(update_seed)
        self._act_generator = torch.Generator(self.device).manual_seed(act_seed)
        given = Given(spec, config, self._numerics, ranks, seeds, self._update_generator)
        self.algorithm = algorithms.of(config)(given)
        # Adam works element by element, so one for everything is the published three.
        self._parameters = self.algorithm.parameters()
        self._of_actor = list(self.networks.actor.parameters())
        actor = {id(p) for p in (*self._of_actor, self.log_alpha)}
        self._of_critic = [p for p in self._parameters.values() if id(p) not in actor]
        self._residual = [module for module in self.networks.modules() if isinstance(module, ResidualMLP)]
        self._adam = Adam(self._parameters, config.learning_rate, self.algorithm.delayed)
        self._actor_average = [p.detach().clone() for p in self._of_actor if config.actor_ema]
        self._fitted = False
        self._weights_lock = threading.Lock()
        self._policy = Policy(self.networks, spec, config, self._numerics, self._act_generator, ranks=ranks)
        # Collectives stay plain calls: what goes wrong on another rank is an error of one of them.
        self._captured = Captured(
            "updates",
            self.device,
            wanted=config.graphs and ranks.size == 1,
            generators=[self._update_generator],
            lock=self._weights_lock,
        )

        self._watched: list[tuple[str, ResidualMLP]] = []
        if config.block_metrics:
            for part, network in self.networks.named_children():
                name = part.removesuffix("_encoder")
                self._watched += [(name, module) for module in network.modules() if isinstance(module, ResidualMLP)]
        for _, module in self._watched:
            module.watched = []

    @property
    def networks(self) -> Networks:
        """All networks; the actor is `networks.actor`."""
        return self.algorithm.networks

    @property
    def log_alpha(self) -> nn.Parameter:
        """ln of the entropy temperature, 0-d."""
        return self.algorithm.log_alpha

    @property
    def columns(self) -> tuple[str, ...]:
        """What a batch must have beside observation, action and goal, as `TrajectoryBuffer.sample` takes it."""
        return self.algorithm.columns

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One step of all networks on one batch; never waits for the device, but where it is captured.

        All gradients are taken at the present weights, then one Adam step moves them.

        Args:
            batch: observation (B, O), action (B, A), goal (B, G) and `columns`, torch or NumPy.
        Returns:
            the `train/...` metrics as 0-d tensors on the device, measured before the step.
        Raises:
            ValueError: an array of another shape, naming it.
        """
        rows = self._rows(batch)
        return self._captured(self._learn, rows.observation, rows.action, rows.goal, *rows.further.values())

    def _learn(self, observation: Tensor, action: Tensor, goal: Tensor, *further: Tensor) -> dict[str, Tensor]:
        """All of an update that the device does. On a GPU it is captured: `crl.graphs` says what that takes."""
        columns = zip(self.columns, map(self._seen, self.columns, further), strict=True)
        rows = Rows(self._seen("observation", observation), action, self._seen("goal", goal), dict(columns))
        self._forget_gradients()
        metrics = self.algorithm.backward(rows)
        with torch.no_grad():
            for name, module in self._watched:
                metrics |= {f"train/{name}_{k}": v for k, v in module.block_metrics().items()}
            gradients = [p.grad for p in self._parameters.values() if p.grad is not None]
            self._ranks.average([*gradients, *metrics.values()])
            if self._of_critic:
                metrics["train/critic_grad_norm"] = _grad_norm(self._of_critic)
            metrics["train/actor_grad_norm"] = _grad_norm(self._of_actor)
        with self._weights_lock:
            self._adam.step(self.algorithm.skip)
            self.algorithm.after_step()
            if self._actor_average:
                present = [p.detach() for p in self._of_actor]
                torch._foreach_lerp_(self._actor_average, present, 1 - self.config.actor_ema)
        return metrics

    def _rows(self, batch: Batch) -> Rows:
        """The batch on the device, checked. The first one of a run sets how networks see its like."""
        spec = self.spec
        observation = self._numerics.rows("batch.observation", batch.observation, spec.observation_dim)
        action = self._numerics.rows("batch.action", batch.action, spec.action_dim)
        goal = self._numerics.rows("batch.goal", batch.goal, spec.goal_dim)
        further = {name: self._numerics.column(getattr(batch, name)) for name in self.columns}
        check_same_rows(observation=observation, action=action, goal=goal, **further)
        if not self._fitted:
            with self._weights_lock:
                self.networks.inputs.fit(observation, goal, self._ranks.average)
            self._fitted = True
        return Rows(observation, action, goal, further)

    def _seen(self, name: str, rows: Tensor) -> Tensor:
        """A column as the networks learn from it: observations and goals by `crl.inputs`, images cropped at random."""
        net, padding = self.networks, self.config.crop_padding
        seen_as = {"observation": net.inputs.of_observation, "goal": net.inputs.of_goal}.get(name.rpartition("_")[2])
        if seen_as is None:
            return rows
        rows = seen_as(rows)
        if net.image and padding:
            # Of all ranks, so that their generators stay the same.
            shape, generator = (self._ranks.size * len(rows), 3), self._update_generator
            random = self._ranks.own(torch.rand(shape, generator=generator, device=self.device))
            rows = random_crops(rows, net.image, padding, random)
        return rows

    def _forget_gradients(self) -> None:
        for module in self._residual:
            module.recycle_gradients()
        self._adam.zero_grad()

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

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that the next update depends on, as a flat dict of contiguous tensors.

        Weights by layer name, `inputs.` as `crl.inputs` keeps them, `log_alpha`, Adam's moments under `adam.exp_avg.`
        and `adam.exp_avg_sq.`, `adam.steps`, the averaged actor under `actor_ema.` and a target under `target.` where
        there is one, and the states of both random generators (uint8). A copy: later updates leave it as it is.
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
        # Before the first update too, where the run began with the weights of another.
        self._fitted = bool(state["adam.steps"].any()) or self.networks.inputs.fitted
        self._update_generator.set_state(state["generator.update"].cpu())
        self._act_generator.set_state(state["generator.act"].cpu())

    def begin_with(self, state: Mapping[str, Tensor], part: str = "all") -> None:
        """Take over the networks of another agent, and how they see; Adam, temperature and randomness stay new.

        Args:
            state: the other's `state_dict`.
            part: `all`; `encoders`, all networks but the actor; or the `actor`.
        Raises:
            ValueError: networks of other shapes, naming them. Then nothing is changed.
        """

        def taken(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
            actor = {name: x for name, x in tensors.items() if name.startswith(("actor.", "target.actor."))}
            inputs = {name: x for name, x in tensors.items() if name.startswith("inputs.")}
            own = ("actor", "target.actor.", "inputs.", "adam.", "generator.", "log_alpha")
            encoders = {name: x for name, x in tensors.items() if not name.startswith(own)}
            return inputs | (actor if part != "encoders" else {}) | (encoders if part != "actor" else {})

        mine, given = taken(self._state()), taken(state)
        _check_state(mine, given)
        with self._weights_lock, torch.no_grad():
            for name, tensor in mine.items():
                tensor.copy_(given[name])
            for average, present in zip(self._actor_average, self.networks.actor.parameters(), strict=False):
                average.copy_(present)
        self._fitted = True

    def _state(self) -> dict[str, Tensor]:
        actor = [f"actor_ema.{name}" for name, _ in self.networks.actor.named_parameters()]
        target = self.algorithm.target.named_parameters() if self.algorithm.target is not None else ()
        return {
            **by_layer_of(self._parameters.items()),
            **dict(self.networks.named_buffers()),
            **by_layer_of((f"target.{name}", p) for name, p in target),
            **{f"adam.{name}": tensor for name, tensor in self._adam.state().items()},
            **by_layer_of(zip(actor, self._actor_average, strict=False)),
            "generator.update": self._update_generator.get_state(),
            "generator.act": self._act_generator.get_state(),
        }


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
