"""Who makes the same update: `crl`, PyTorch's own modules with what is known to be fast, and jitted JAX.

Each starts from the weights of one agent, and gives the losses of its updates, so that they can be compared before they
are timed. The others leave out `crl`'s metrics and draw no noise. JAX is imported by name: no type checker needs it.
"""

import importlib
import importlib.util
import math
import os
from abc import abstractmethod
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crl import envs
from crl.agent import Agent
from crl.batch import Batch
from crl.config import TrainConfig

LEARNING_RATE, PENALTY = 3e-4, 0.1
NETWORKS = ("actor.network", "state_action_encoder", "goal_encoder")
"""Beginnings of the names of an agent's weights."""


class Problem:
    """What everybody learns from, and where they begin: observation (B, O), action and noise (B, A), goal (B, G)."""

    def __init__(self, config: TrainConfig) -> None:
        self.config, self.spec = config, envs.spec(config.env)
        generator = torch.Generator().manual_seed(0)
        self.observation, self.action, self.goal = (
            torch.randn(config.batch_size, dim, generator=generator).to(config.device)
            for dim in (self.spec.observation_dim, self.spec.action_dim, self.spec.goal_dim)
        )

    @cached_property
    def agent(self) -> Agent:
        """The agent whose updates are compared with."""
        return Agent(self.spec, self.config, self.config.device)

    @cached_property
    def state(self) -> dict[str, Tensor]:
        """The agent's weights by layer, as they were when they were first asked for."""
        return self.agent.state_dict()

    @cached_property
    def noises(self) -> list[Tensor]:
        """What the agent draws for its next two updates."""
        drawn = torch.Generator(self.config.device)
        drawn.set_state(self.state["generator.update"])
        return [torch.randn(self.action.shape, generator=drawn, device=self.config.device) for _ in range(2)]


class Contender:
    """Makes updates of the problem's networks, of weights of its own that begin as the agent's."""

    name: str
    module = "torch"
    deepest = 1 << 30
    """Depth up to which it is compared."""

    @abstractmethod
    def __init__(self, problem: Problem) -> None: ...

    @abstractmethod
    def update(self, noise: int = 0) -> tuple[Any, Any]:
        """One update with the noise of this number. Critic and actor loss, for which nobody has waited yet."""

    @abstractmethod
    def wait(self) -> None:
        """Return when the device has done all updates."""

    @abstractmethod
    def peak_device_memory(self) -> int:
        """The most bytes of a GPU that were in use at one time."""


class _Torch(Contender):
    """Waits for PyTorch's work, and knows its memory."""

    def __init__(self, problem: Problem) -> None:
        self._device = problem.config.device

    def wait(self) -> None:
        if self._device != "cpu":
            torch.cuda.synchronize(self._device)

    def peak_device_memory(self) -> int:
        return torch.cuda.max_memory_allocated(self._device)


class Ours(_Torch):
    """`Agent.update`, which draws its own noise."""

    name = "crl"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._agent = problem.agent
        unused = torch.ones(len(problem.goal))
        self._batch = Batch(problem.observation, problem.action, problem.goal, unused)

    def update(self, noise: int = 0) -> tuple[Any, Any]:
        metrics = self._agent.update(self._batch)
        return metrics["train/critic_loss"], metrics["train/actor_loss"]


class _Layer(nn.Module):
    def __init__(self, in_dim: int, width: int) -> None:
        super().__init__()
        self.dense, self.norm = nn.Linear(in_dim, width), nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.norm(self.dense(x)))


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(_Layer(width, width) for _ in range(4)))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)  # type: ignore[no-any-return]


class _Network(nn.Module):
    def __init__(self, in_dim: int, out_dim: int, width: int, depth: int) -> None:
        super().__init__()
        self.input = _Layer(in_dim, width)
        self.blocks = nn.Sequential(*(_Block(width) for _ in range(depth // 4)))
        self.output = nn.Linear(width, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.blocks(self.input(x)))  # type: ignore[no-any-return]


class TunedTorch(_Torch):
    """Plain modules, one fused Adam, distances by `cdist`, and psi computed once for both losses."""

    name = "PyTorch, tuned"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        config, state = problem.config, problem.state
        self._bf16 = config.precision == "bf16"
        self._rows = problem.observation, problem.action, problem.goal
        self._noises = problem.noises
        o, a, g = (x.shape[1] for x in self._rows)
        r, width, critic_depth = config.representation_dim, config.width, config.critic_depth
        self._actor = _Network(o + g, 2 * a, width, config.actor_depth)
        self._phi, self._psi = (_Network(entries, r, width, critic_depth) for entries in (o + a, g))
        networks = (self._actor, self._phi, self._psi)
        for network, prefix in zip(networks, NETWORKS, strict=True):
            network.load_state_dict({name: state[f"{prefix}.{name}"] for name in network.state_dict()})
            network.to(config.device)
        self._log_alpha = nn.Parameter(state["log_alpha"].clone())
        weights = [self._log_alpha, *(p for network in networks for p in network.parameters())]
        self._optimizer = torch.optim.Adam(weights, LEARNING_RATE, fused=True)

    def update(self, noise: int = 0) -> tuple[Any, Any]:
        (observation, action, goal), drawn = self._rows, self._noises[noise]
        alpha = self._log_alpha.exp()
        self._optimizer.zero_grad()
        with self._precision():
            psi = self._psi(goal).float()
            mean, raw = self._actor(torch.cat((observation, goal), 1)).float().chunk(2, 1)
        log_std = -5 + 3.5 * (raw.tanh() + 1)
        x = mean + log_std.exp() * drawn
        density = -0.5 * drawn.square() - log_std - 0.5 * math.log(2 * math.pi)
        log_prob = (density - 2 * (math.log(2) - x - F.softplus(-2 * x))).sum(1)
        self._phi.requires_grad_(False)
        with self._precision():
            sampled = self._phi(torch.cat((observation, x.tanh()), 1)).float()
        self._phi.requires_grad_(True)
        actor_loss = (alpha.detach() * log_prob + torch.linalg.vector_norm(sampled - psi.detach(), dim=1)).mean()
        target = -0.5 * action.shape[1]
        (actor_loss + alpha * (-log_prob.detach() - target).mean()).backward()
        with self._precision():
            phi = self._phi(torch.cat((observation, action), 1)).float()
        logits = -torch.cdist(phi, psi, compute_mode="donot_use_mm_for_euclid_dist")
        lse = logits.logsumexp(1)
        critic_loss = (lse - logits.diagonal()).mean() + PENALTY * lse.square().mean()
        critic_loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return critic_loss.detach(), actor_loss.detach()

    def _precision(self) -> torch.autocast:
        return torch.autocast(torch.device(self._device).type, torch.bfloat16, enabled=self._bf16)


class Jax(Contender):
    """The equations of docs/algorithm.md in jitted JAX, with `lax.scan` over the residual blocks.

    Programs without a loop over the blocks take minutes to compile; this one takes as long at every depth.
    """

    name = "JAX, scan"
    module = "jax"
    scan = True

    def __init__(self, problem: Problem) -> None:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # The device's memory is everybody's.
        self._jax = importlib.import_module("jax")
        self._jnp = self._jax.numpy
        config, state = problem.config, problem.state
        # Without `highest`, JAX multiplies in TF32 on a GPU.
        self._matmul = {"float32": "highest", "tf32": "tensorfloat32", "bf16": "highest"}[config.precision]
        self._dtype = self._jnp.bfloat16 if config.precision == "bf16" else self._jnp.float32
        kind = "gpu" if config.device != "cpu" else "cpu"
        device = self._device = self._jax.devices(kind)[0]

        def place(tree: Any) -> Any:
            return self._jax.tree.map(lambda x: self._jnp.array(x, copy=True, device=device), tree)

        depths = (config.actor_depth, config.critic_depth, config.critic_depth)
        networks = {name: self._network(state, name, depth // 4) for name, depth in zip(NETWORKS, depths, strict=True)}
        weights = {**networks, "log_alpha": state["log_alpha"].cpu().numpy()}
        zeros = self._jax.tree.map(np.zeros_like, weights)
        self._state = place((weights, zeros, zeros, np.float32(0)))
        self._rows = place([x.cpu().numpy() for x in (problem.observation, problem.action, problem.goal)])
        self._noises = [place(noise.cpu().numpy()) for noise in problem.noises]
        # The state is the program's to overwrite, as with every optimizer in place.
        self._step = self._jax.jit(self._make_step(-0.5 * problem.spec.action_dim), donate_argnums=0)
        self._losses: tuple[Any, Any] = (0.0, 0.0)

    def _network(self, state: dict[str, Tensor], prefix: str, blocks: int) -> Any:
        """Weights [in, out] by layer; of the blocks a tree each, or for a scan one whose arrays have them all."""

        def layer(name: str) -> dict[str, Any]:
            part = {end: state[f"{prefix}.{name}.{end}"].cpu().numpy() for end in _ENDS}
            return {**part, "dense.weight": part["dense.weight"].T}

        output = (state[f"{prefix}.output.{end}"].cpu().numpy() for end in ("weight", "bias"))
        each = [[layer(f"blocks.{block}.layers.{number}") for number in range(4)] for block in range(blocks)]
        stacked = self._jax.tree.map(lambda *layers: np.stack(layers), *each)
        weight, bias = output
        return {"input": layer("input"), "blocks": stacked if self.scan else each, "output": (weight.T, bias)}

    def _make_step(self, target_entropy: float) -> Callable[..., Any]:
        jax, jnp, lax, dtype = self._jax, self._jnp, self._jax.lax, self._dtype

        def dense(x: Any, weight: Any, bias: Any) -> Any:
            return (x.astype(dtype) @ weight.astype(dtype)).astype(jnp.float32) + bias

        def layer(x: Any, p: Any) -> Any:
            x = dense(x, p["dense.weight"], p["dense.bias"])
            x = x - x.mean(-1, keepdims=True)
            x = x * lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6)
            return jax.nn.silu(x * p["norm.weight"] + p["norm.bias"])

        def block(x: Any, layers: Any) -> Any:
            y = x
            for p in layers:
                y = layer(y, p)
            return x + y

        def network(p: Any, *inputs: Any) -> Any:
            x = layer(jnp.concatenate(inputs, -1), p["input"])
            if self.scan:
                x, _ = lax.scan(lambda x, layers: (block(x, layers), None), x, p["blocks"])
            else:
                for layers in p["blocks"]:
                    x = block(x, layers)
            return dense(x, *p["output"])

        def loss(weights: Any, rows: Any, noise: Any) -> Any:
            observation, action, goal = rows
            actor, phi, psi = (partial(network, weights[name]) for name in NETWORKS)
            represented = psi(goal)
            mean, raw = jnp.split(actor(observation, goal), 2, -1)
            log_std = -5 + 3.5 * (jnp.tanh(raw) + 1)
            x = mean + jnp.exp(log_std) * noise
            density = -0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi)
            log_prob = (density - 2 * (math.log(2) - x - jax.nn.softplus(-2 * x))).sum(-1)
            frozen = lax.stop_gradient(weights[NETWORKS[1]])
            difference = network(frozen, observation, jnp.tanh(x)) - lax.stop_gradient(represented)
            alpha = jnp.exp(weights["log_alpha"])
            distance = jnp.sqrt((difference**2).sum(-1))
            actor_loss = (lax.stop_gradient(alpha) * log_prob + distance).mean()
            alpha_loss = alpha * (-lax.stop_gradient(log_prob) - target_entropy).mean()
            pairs = phi(observation, action)[:, None] - represented
            logits = -jnp.sqrt((pairs**2).sum(-1))
            lse = jax.nn.logsumexp(logits, axis=1)
            critic_loss = (lse - jnp.diagonal(logits)).mean() + PENALTY * (lse**2).mean()
            return actor_loss + alpha_loss + critic_loss, (critic_loss, actor_loss)

        def step(state: Any, rows: Any, noise: Any) -> Any:
            weights, first, second, count = state
            (_, losses), gradients = jax.value_and_grad(loss, has_aux=True)(weights, rows, noise)
            count = count + 1
            first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradients)
            second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradients)
            rate, spread = LEARNING_RATE / (1 - 0.9**count), 1 - 0.999**count
            weights = jax.tree.map(lambda w, m, v: w - rate * m / (jnp.sqrt(v / spread) + 1e-8), weights, first, second)
            return (weights, first, second, count), losses

        return step

    def update(self, noise: int = 0) -> tuple[Any, Any]:
        with self._jax.default_matmul_precision(self._matmul):
            self._state, self._losses = self._step(self._state, self._rows, self._noises[noise])
        return self._losses

    def wait(self) -> None:
        self._jax.block_until_ready(self._state)

    def peak_device_memory(self) -> int:
        return int(self._device.memory_stats()["peak_bytes_in_use"])


class JaxUnrolled(Jax):
    """The same without a loop over the blocks, as the published code compiles it."""

    name = "JAX, unrolled"
    deepest = 16
    scan = False


_ENDS = ("dense.weight", "dense.bias", "norm.weight", "norm.bias")
CONTENDERS: dict[str, type[Contender]] = {who.name: who for who in (Ours, TunedTorch, Jax, JaxUnrolled)}


def unable(who: type[Contender], config: TrainConfig) -> str | None:
    """Why this one cannot be compared, if it cannot."""
    if importlib.util.find_spec(who.module) is None:
        return "not installed"
    if max(config.actor_depth, config.critic_depth) > who.deepest:
        return f"takes minutes to compile beyond depth {who.deepest}"
    if who.module == "jax" and config.device != "cpu":
        jax = importlib.import_module("jax")
        if jax.default_backend() != "gpu":
            return "this JAX has no GPU"
    return None
