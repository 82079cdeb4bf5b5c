"""The residual network, the plain ones, and the tanh-Gaussian head of the actor.

Letters: B rows, O observation, G goal, A action, R representation, W width.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crl import residual
from crl.config import LAYERS_PER_BLOCK, check_depth
from crl.errors import nearest
from crl.hyperspherical import HypersphericalMLP
from crl.images import Vision
from crl.layers import Dense, Stacked, check_sizes
from crl.losses import tanh_gaussian_log_prob
from crl.norm_swish import EPSILON
from crl.residual import Memory, Settings, Weights, middle

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0
PLACES = ("first", "middle", "last")
"""Blocks that are measured."""


class Layer(nn.Module):
    """The parameters of Dense -> LayerNorm -> swish: (B, in_dim) -> (B, W)."""

    def __init__(self, in_dim: int, width: int, generator: torch.Generator | None = None, bias: float = 0.0) -> None:
        super().__init__()
        self.dense = Dense(in_dim, width, generator, bias)
        self.norm = nn.LayerNorm(width, eps=EPSILON)


class Stack(Stacked):
    """The layers of all residual blocks."""

    def __init__(self, width: int, depth: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.dense_weight = nn.Parameter(torch.empty(depth, width, width))
        self.dense_bias = nn.Parameter(torch.zeros(depth, width))
        self.norm_weight = nn.Parameter(torch.ones(depth, width))
        self.norm_bias = nn.Parameter(torch.zeros(depth, width))
        bound = 1 / math.sqrt(width)
        nn.init.uniform_(self.dense_weight, -bound, bound, generator=generator)


class ResidualMLP(nn.Module):
    """An input layer, depth/4 residual blocks, a linear output ("1000 Layer Networks for Self-Supervised RL").

    `depth` counts the dense layers inside blocks, as the publication does; there are depth + 2 in all. A block is
    x + four layers of x, and nothing follows the addition. The output is neither normalised nor activated.

    Differentiable once. A gradient of weights that was seen by nobody else may be handed back by `recycle_gradients`.

    Args:
        in_dim, out_dim: (B, in_dim) -> (B, out_dim).
        depth: a positive multiple of 4.
        input_bias: the biases of the input layer are drawn from U(-b, b). All others, and published ones, begin at 0.
            Of W x alone LayerNorm keeps the direction, so where x has two or three entries, places that lie in one
            direction from the origin would look alike until biases are learnt.
        generator: source of the initial weights; torch's global one if None.
        scaled: a block adds its output times 1/sqrt(number of blocks), so that the sum does not grow with the depth.
        recompute: backward computes the insides of blocks again instead of keeping them: a fifth of the activations'
            memory for a third more work.
        compile: blocks that learn are compiled by `torch.compile`: one of them, at the first pass.
    Raises:
        ValueError: a size below 1, or a depth that is no multiple of 4.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        width: int = 256,
        depth: int = 4,
        *,
        input_bias: float = 0.0,
        generator: torch.Generator | None = None,
        scaled: bool = False,
        recompute: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(in_dim=in_dim, out_dim=out_dim, width=width)
        check_depth(depth)
        self.settings = Settings(math.sqrt(LAYERS_PER_BLOCK / depth) if scaled else 1.0, recompute, compile=compile)
        self.watched: list[Tensor] | None = None
        """Set to a list: filled by each forward pass that may need a gradient; see `block_metrics`."""
        self.input = Layer(in_dim, width, generator, input_bias)
        self.blocks = Stack(width, depth, generator)
        self.output = Dense(width, out_dim, generator)
        self.memory = Memory()

    @property
    def weights(self) -> Weights:
        """All parameters, in the order of the network's layers."""
        first, blocks, last = self.input, self.blocks, self.output
        return Weights(
            *(first.dense.weight, first.dense.bias, first.norm.weight, first.norm.bias),
            *(blocks.dense_weight, blocks.dense_bias, blocks.norm_weight, blocks.norm_bias),
            *(last.weight, last.bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        watched = self.watched if torch.is_grad_enabled() else None
        return residual.network(x, self.weights, self.memory, self.settings, watched)

    def block_metrics(self) -> dict[str, Tensor]:
        """How the first, the middle and the last block do, 0-d: `first_stream_norm`, ..., `first_grad_norm`, ...

        The mean length of the rows behind the block in the last forward pass, and the 2-norm of the gradient of its
        dense weights.
        """
        gradient = self.blocks.dense_weight.grad
        assert self.watched, "set watched to a list, then pass forward"
        assert gradient is not None, "pass backward first"
        blocks = middle(len(gradient) // LAYERS_PER_BLOCK)
        norms = [gradient[b * LAYERS_PER_BLOCK : (b + 1) * LAYERS_PER_BLOCK].norm() for b in blocks]
        return {
            **{f"{place}_stream_norm": norm for place, norm in zip(PLACES, self.watched, strict=True)},
            **{f"{place}_grad_norm": norm for place, norm in zip(PLACES, norms, strict=True)},
        }

    def recycle_gradients(self) -> None:
        """Forget the gradients, as `zero_grad` does, and let the next backward pass write into their memory."""
        for parameter in self.weights:
            if parameter.grad is not None:
                self.memory.give(parameter.grad)
                parameter.grad = None


class MLP(nn.Module):
    """`depth` x (Dense -> activation), then a linear output: the network of JaxGCRL's default agent.

    Args and shapes as `ResidualMLP`; any depth from 1 on.
    """

    activation = staticmethod(F.silu)

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        width: int = 256,
        depth: int = 2,
        *,
        input_bias: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_sizes(in_dim=in_dim, out_dim=out_dim, width=width, depth=depth)
        layers = [(in_dim, input_bias)] + [(width, 0.0)] * (depth - 1)
        self.hidden = nn.ModuleList(Dense(size, width, generator, bias) for size, bias in layers)
        self.output = Dense(width, out_dim, generator)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.hidden:
            x = self.activation(layer(x))
        return self.output(x)  # type: ignore[no-any-return]


class ReluMLP(MLP):
    """That with ReLU: the network of Eysenbach et al. (2022) and of single-goal CRL."""

    activation = staticmethod(F.relu)


class NormedMLP(MLP):
    """`depth` x (Dense -> GELU -> LayerNorm), then a linear output: the network of OGBench's agents."""

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        width: int = 512,
        depth: int = 3,
        *,
        input_bias: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(in_dim, out_dim, width, depth, input_bias=input_bias, generator=generator)
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=EPSILON) for _ in self.hidden)

    def forward(self, x: Tensor) -> Tensor:
        for layer, norm in zip(self.hidden, self.norms, strict=True):
            x = norm(F.gelu(layer(x), approximate="tanh"))
        return self.output(x)  # type: ignore[no-any-return]


NETWORKS: dict[str, type[ResidualMLP] | type[MLP] | type[HypersphericalMLP]] = {
    "residual": ResidualMLP,
    "mlp": MLP,
    "mlp_relu": ReluMLP,
    "mlp_gelu_norm": NormedMLP,
    "hyperspherical": HypersphericalMLP,
}


class FourierFeatures(nn.Module):
    """Random Fourier features (Rahimi and Recht 2007; Tancik et al. 2020) beside the input, before `network`.

    x -> (x, sin(x B), cos(x B)), with the entries of B from N(0, scale^2), drawn once and never learnt. A network is
    smooth in its input: it takes what lies near for alike, where a wall may be between. Of these features it can make
    functions that change within 1/scale.

    Args:
        network: takes in_dim + 2 count entries.
        in_dim: entries of x.
        count: frequencies.
        scale: their standard deviation, radians per unit of x.
    """

    def __init__(
        self, network: nn.Module, in_dim: int, count: int, scale: float, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.frequencies: Tensor
        self.register_buffer("frequencies", scale * torch.randn(in_dim, count, generator=generator))
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        # In float32 also where the network is in bfloat16: a phase of ten radians would be off by hundredths.
        with torch.autocast(x.device.type, enabled=False):
            phase = x.float() @ self.frequencies
            features = torch.cat((x, phase.sin().to(x.dtype), phase.cos().to(x.dtype)), -1)
        return self.network(features)  # type: ignore[no-any-return]


def build_network(
    network: str,
    in_dim: int,
    out_dim: int,
    width: int,
    depth: int,
    generator: torch.Generator | None = None,
    *,
    image: tuple[int, int, int] | None = None,
    images: int = 1,
    encoder: str = "published",
    fourier: tuple[int, float] = (0, 1.0),
    input_bias: float = 0.0,
    **options: bool,
) -> nn.Module:
    """The network of `NETWORKS` called `network`, behind convolutions if its input begins with images.

    `image`, `images` and `encoder` are those of `crl.images.Vision`, `fourier` number and scale of `FourierFeatures`,
    `input_bias` that of all but hyperspherical networks, `options` those of `ResidualMLP`, which others do not have.
    """
    if network not in NETWORKS:
        raise ValueError(f"network must be one of {', '.join(NETWORKS)}, got {network!r}.{nearest(network, NETWORKS)}")

    if network != "residual" and any(options.values()):
        raise ValueError(f"residual_scale, recompute, compile: of network residual alone, got network {network!r}")
    if network == "hyperspherical" and input_bias:
        raise ValueError("input_bias: a network on the hypersphere has no biases")

    def build(entries: int) -> nn.Module:
        chosen: dict[str, Any] = {name: True for name, given in options.items() if given}
        if input_bias:
            chosen["input_bias"] = input_bias
        return NETWORKS[network](entries, out_dim, width, depth, generator=generator, **chosen)

    count, scale = fourier
    if image:
        return Vision(image, images, in_dim, build, encoder, generator)
    return FourierFeatures(build(in_dim + 2 * count), in_dim, count, scale, generator) if count else build(in_dim)


class Actor(nn.Module):
    """A tanh-Gaussian policy: one network of observation and goal, whose output is split into mean and log std.

    The log standard deviation is -5 + 3.5 (tanh(u) + 1), so within [-5, 2]. `image` is the shape of observation and
    goal where they are images, seen by `encoder`; `options` are those of `build_network`.
    """

    def __init__(
        self,
        observation_dim: int,
        goal_dim: int,
        action_dim: int,
        width: int = 256,
        depth: int = 4,
        network: str = "residual",
        *,
        image: tuple[int, int, int] | None = None,
        encoder: str = "published",
        fourier: tuple[int, float] = (0, 1.0),
        input_bias: float = 0.0,
        generator: torch.Generator | None = None,
        **options: bool,
    ) -> None:
        super().__init__()
        check_sizes(observation_dim=observation_dim, goal_dim=goal_dim, action_dim=action_dim)
        self.action_dim = action_dim
        entries = observation_dim + goal_dim
        sizes = entries, 2 * action_dim, width, depth
        self.network = build_network(
            network,
            *sizes,
            generator,
            image=image,
            images=2,
            encoder=encoder,
            fourier=fourier,
            input_bias=input_bias,
            **options,
        )

    def forward(self, observation: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
        """(B, O), (B, G) -> mean and log std of the Gaussian before the tanh, (B, A) each.

        Both are at least float32, whatever the network computed in: a log-probability in bf16 would be noise.
        """
        output = self.network(torch.cat((observation, goal), -1))
        if output.dtype in (torch.bfloat16, torch.float16):
            output = output.float()
        mean, raw = output.chunk(2, -1)
        return mean, LOG_STD_MIN + 0.5 * (LOG_STD_MAX - LOG_STD_MIN) * (raw.tanh() + 1)

    def sample(self, observation: Tensor, goal: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, O), (B, G), noise (B, A) -> action (B, A) in [-1, 1] and its log-probability (B,), both reparameterised.

        `noise` is standard normal; drawn from torch's global generator if None.
        """
        mean, log_std = self(observation, goal)
        return squash(mean, log_std, torch.randn_like(mean) if noise is None else noise)

    def mode(self, observation: Tensor, goal: Tensor) -> Tensor:
        """(B, O), (B, G) -> the deterministic action tanh(mean), (B, A)."""
        mean, _ = self(observation, goal)
        return torch.tanh(mean)


def squash(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """The action tanh(mean + exp(log_std) noise) (..., A) and its log-probability (...)."""
    pre_tanh = mean + log_std.exp() * noise
    return torch.tanh(pre_tanh), tanh_gaussian_log_prob(pre_tanh, log_std, noise)
