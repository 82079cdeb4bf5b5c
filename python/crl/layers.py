"""What networks are made of: dense layers, and stacks of layers with names for each of them in checkpoints."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from crl.config import LAYERS_PER_BLOCK


class Dense(nn.Linear):
    """A linear layer with weights uniform in +-1/sqrt(in_dim), drawn from `generator`, and biases in +-`bias`."""

    def __init__(self, in_dim: int, out_dim: int, generator: torch.Generator | None = None, bias: float = 0.0) -> None:
        super().__init__(in_dim, out_dim)
        bound = 1 / math.sqrt(in_dim)
        nn.init.uniform_(self.weight, -bound, bound, generator=generator)
        if bias:
            nn.init.uniform_(self.bias, -bias, bias, generator=generator)
        else:
            nn.init.zeros_(self.bias)

    def reset_parameters(self) -> None:
        """Leave out PyTorch's own initialisation, which would draw from the global generator."""


class Stacked(nn.Module):
    """Layers of blocks, each kind of parameter as one tensor, (layers, ...).

    `state_dict` has them layer by layer, as `0.layers.3.dense.weight`: block 0, its layer 3.
    """

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        for name, parameter in self.named_parameters():
            destination.update(by_layer(prefix + name, parameter if keep_vars else parameter.detach()))

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        mine = by_layer_of(self.named_parameters(prefix.removesuffix(".")))
        missing_keys += [name for name in mine if name not in state_dict]
        unexpected_keys += [name for name in state_dict if name.startswith(prefix) and name not in mine]
        with torch.no_grad():
            for name in mine.keys() & state_dict.keys():
                if mine[name].shape == state_dict[name].shape:
                    mine[name].copy_(state_dict[name])
                else:
                    error_msgs.append(
                        f"{name}: expected {tuple(mine[name].shape)}, got {tuple(state_dict[name].shape)}"
                    )


_LAYER_NAMES = {
    "dense_weight": "dense.weight",
    "dense_bias": "dense.bias",
    "norm_weight": "norm.weight",
    "norm_bias": "norm.bias",
    "step_scale": "scale",
}


def by_layer(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """Parameter `name`, or something of its shape, under the names it is stored by: a stack's layers one by one."""
    prefix, _, kind = name.rpartition(".")
    if kind not in _LAYER_NAMES:
        return {name: tensor}
    start = f"{prefix}." if prefix else ""
    return {
        f"{start}{index // LAYERS_PER_BLOCK}.layers.{index % LAYERS_PER_BLOCK}.{_LAYER_NAMES[kind]}": layer
        for index, layer in enumerate(tensor.unbind())
    }


def by_layer_of(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """`by_layer` of each."""
    return {name: layer for whole in tensors for name, layer in by_layer(*whole).items()}


def check_sizes(**sizes: int) -> None:
    """Refuse sizes below 1, naming the first."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")
