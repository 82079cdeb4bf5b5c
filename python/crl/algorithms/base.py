"""What algorithms have in common: rows to learn from, an actor that seeks high values, targets that follow slowly.

Letters: B rows of a batch, O observation, G goal, A action.
"""

import abc
import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from crl import losses
from crl.hyperspherical import HypersphericalMLP
from crl.lanes import First, Second, both
from crl.networks import ResidualMLP, squash
from crl.policy import Config, Networks, Numerics, Spec
from crl.ranks import Ranks

TARGET_RATE = 0.005
"""Share of the way that targets follow in an update: tau of Eysenbach et al. (2022), and of SAC and TD3."""
Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Rows:
    """A batch as float32 tensors on the device, observations and goals as the networks see them (`crl.inputs`)."""

    observation: Tensor
    """(B, O)"""
    action: Tensor
    """(B, A)"""
    goal: Tensor
    """(B, G)"""
    further: Mapping[str, Tensor]
    """The algorithm's `columns`, by name."""


@dataclass(frozen=True)
class Given:
    """What an algorithm is made of."""

    spec: Spec
    """Sizes of the environment."""
    config: Config
    """A resolved `crl.TrainConfig`, or anything with the attributes of `crl.policy.Config`."""
    numerics: Numerics
    """Device and precision."""
    ranks: Ranks
    """The processes of the run; a batch is this rank's part."""
    seeds: torch.Generator
    """Source of the initial weights."""
    generator: torch.Generator
    """Source of the noise in updates, on the device."""


class Algorithm(abc.ABC):
    """The networks of one algorithm, and `backward`, which states its losses.

    Whoever owns it (`crl.Agent`) makes rows of a batch, calls `backward`, averages gradients over ranks, lets Adam
    step, and calls `after_step`.

    """

    columns: tuple[str, ...] = ()
    """What it needs of a batch beside observation, action and goal: names as `TrajectoryBuffer.sample` takes them."""
    networks: Networks
    target: nn.Module | None = None
    """A `follower` of `followed`, for losses that bootstrap; stored with the weights."""
    followed: nn.Module
    delayed: tuple[str, ...] = ()
    """Names of parameters that do not move in every update."""
    skip: Tensor | None = None
    """float32, 0-d: 1 in updates in which the `delayed` stay where they are, else 0."""

    @classmethod
    def stores(cls, config: Config) -> tuple[str, ...]:
        """Further columns that the buffer has to keep of a row, of those of `run.new_buffer`."""
        wanted = config.actor_goals == "commanded" or config.commanded_negatives
        return ("desired_goal",) if wanted else ()

    def __init__(self, given: Given) -> None:
        self.spec, self.config, self.numerics, self.ranks = given.spec, given.config, given.numerics, given.ranks
        self._generator = given.generator
        self.columns = self.stores(self.config)
        self.networks = self.make_networks(given.seeds).to(self.numerics.device)
        self._projected = [module for module in self.networks.modules() if isinstance(module, HypersphericalMLP)]
        start = math.log(self.config.initial_alpha) if self.config.initial_alpha else -math.inf
        self.log_alpha = nn.Parameter(torch.tensor(start, device=self.numerics.device))
        self.target_entropy = -self.config.target_entropy_scale * self.spec.action_dim

    @abc.abstractmethod
    def make_networks(self, generator: torch.Generator) -> Networks:
        """The networks, with weights drawn from `generator`."""

    @abc.abstractmethod
    def backward(self, rows: Rows) -> dict[str, Tensor]:
        """Add the gradients of all losses at the present weights.

        On a GPU the operations of an early call are those of all later ones (`crl.graphs`): they may depend on tensors
        and settings, and not on numbers that the host counts.

        Returns:
            metrics, 0-d on the device: means over this rank's rows.
        """

    def chance_loss(self, batch_size: int) -> float | None:
        """train/contrastive_loss of a critic that cannot tell one goal from another; None where there is no such loss.

        Args:
            batch_size: rows of the batch of all ranks.
        """
        return None

    def after_step(self) -> None:
        """What follows Adam's step; called under the lock that keeps others from reading the weights."""
        for module in self._projected:
            module.project()
        if self.target is not None:
            self.move_target(self.target)

    def move_target(self, target: nn.Module) -> None:
        """Let `target` follow."""
        follow(target, self.followed, TARGET_RATE)

    def parameters(self) -> dict[str, nn.Parameter]:
        """All that learns, by name."""
        return {**dict(self.networks.named_parameters()), "log_alpha": self.log_alpha}

    def noise(self, actions: Tensor) -> Tensor:
        """Standard normal numbers shaped as `actions` (B, A): of all ranks, so that their generators stay the same."""
        shape = (self.ranks.size * len(actions), *actions.shape[1:])
        return self.ranks.own(torch.randn(shape, generator=self._generator, device=self.numerics.device))

    def both(self, first: Callable[[], First], second: Callable[[], Second]) -> tuple[First, Second]:
        """The results of two computations that do not need each other: on a CPU at once, on half the threads each."""
        return both(first, second) if self.numerics.device.type == "cpu" else (first(), second())

    def goals_of_actor(self, own: Tensor, commanded: Tensor | None = None) -> Tensor:
        """Goals, or their representations, (B, ...) as the actor's loss pairs them with the batch's observations.

        `future`: each its own; `random`: each the next row's; `mixture`: the first half the next row's; `commanded`:
        the same, and the second half what was commanded when they were collected. Rows of a batch are independent
        draws, so the next row's goal is a goal of the whole buffer. The halves and the next row are of the batch of all
        ranks, rank by rank.

        Args:
            own: (B, ...), of the rows themselves.
            commanded: (B, ...), the same of the commanded goals, which `commanded` takes.
        """
        kind = self.config.actor_goals
        if kind == "future":
            return own
        own = self.ranks.gather(own)
        moved = len(own) if kind == "random" else len(own) // 2
        rest = self.ranks.gather(commanded) if kind == "commanded" and commanded is not None else own
        return self.ranks.own(torch.cat((own[:moved].roll(-1, 0), rest[moved:])))

    def of_next_row(self, rows: Tensor) -> Tensor:
        """Of every row (B, ...) that of the row after it, over the batch of all ranks; the first after the last."""
        return self.ranks.own(self.ranks.gather(rows).roll(-1, 0))

    def actor_backward(
        self, rows: Rows, goal: Tensor, noise: Tensor, value: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """The gradients of a tanh-Gaussian actor that seeks actions of high `value`, and of its temperature.

        Args:
            goal: (B, G), what it acts for in each row.
            noise: (B, A), standard normal.
            value: of the actions sampled, (B, A) -> (B,).
        Returns:
            metrics: actor_loss, alpha, alpha_loss, entropy and, with a `bc_coefficient`, bc_loss.
        """
        config = self.config
        alpha = self.log_alpha.detach().exp()
        with self.numerics.network_precision():
            mean, log_std = self.networks.actor(rows.observation, goal)
        action, log_prob = squash(mean, log_std, noise)
        q = value(action)
        metrics = {}
        if config.bc_coefficient:
            bc_loss = -losses.tanh_gaussian_log_prob_of(rows.action, mean, log_std).mean()
            actor_loss = losses.regularised_actor_loss(
                log_prob, q, alpha, bc_loss, config.bc_coefficient, config.bc_form
            )
            metrics["train/bc_loss"] = bc_loss.detach()
        else:
            actor_loss = losses.actor_loss(log_prob, q, alpha)
        alpha_loss = losses.temperature_loss(self.log_alpha, log_prob, self.target_entropy)
        torch.autograd.backward((actor_loss, alpha_loss))
        return {
            "train/actor_loss": actor_loss.detach(),
            "train/alpha": alpha,
            "train/alpha_loss": alpha_loss.detach(),
            "train/entropy": -log_prob.detach().mean(),
            **metrics,
        }


def over_critics(values: list[Tensor], kind: str) -> Tensor:
    """What critics say together, each of the same shape: their `mean` or their `min`."""
    if len(values) == 1:
        return values[0]
    stacked = torch.stack(values)
    return stacked.amin(0) if kind == "min" else stacked.mean(0)


def fixed(module: Module) -> Module:
    """A second module on the same weights, that passes gradients through to its input and none to the weights."""
    shared: dict[int, Any] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in module.parameters()}
    shared |= {id(m.memory): m.memory for m in module.modules() if isinstance(m, ResidualMLP)}
    shared |= {id(buffer): buffer for buffer in module.buffers()}
    return copy.deepcopy(module, shared)


def follower(module: Module) -> Module:
    """A copy of a module's weights, beside the same buffers, that learns nothing by itself; `follow` moves it."""
    return copy.deepcopy(module, {id(buffer): buffer for buffer in module.buffers()}).requires_grad_(False)


@torch.no_grad()
def follow(target: nn.Module, module: nn.Module, rate: float) -> None:
    """Move a `follower` by `rate` of the way to its module: the exponential average of its weights."""
    torch._foreach_lerp_([*target.parameters()], [p.detach() for p in module.parameters()], rate)
