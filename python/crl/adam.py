"""One optimizer for all weights."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from crl import lanes
from crl.layers import by_layer_of

FEW = 1 << 21
"""Weights that one thread moves sooner than several: two took 0.9 ms for the 0.85 million of depth 4, one 0.4."""


class Adam:
    """Adam (Kingma and Ba 2015) with its published constants, as PyTorch's one fused kernel.

    Not `torch.optim.Adam`: its first use imports PyTorch's compiler, 4 s that every start would pay, and it creates its
    state only at the first step, so that a fresh agent's checkpoint would have other keys than a trained one's.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], learning_rate: float) -> None:
        self._names, self._parameters = list(parameters), list(parameters.values())
        self._learning_rate = learning_rate
        self._few = sum(p.numel() for p in self._parameters) < FEW
        self._exp_avg = [torch.zeros_like(p) for p in self._parameters]
        self._exp_avg_sq = [torch.zeros_like(p) for p in self._parameters]
        # A count for every layer, though all are the same: so it is stored.
        self._steps = torch.zeros(len(by_layer_of(parameters.items())), device=self._parameters[0].device)

    def zero_grad(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter by its gradient."""
        if self._few:
            lanes.alone(self._step)
        else:
            self._step()

    def _step(self) -> None:
        self._steps += 1
        torch._fused_adam_(
            [*self._parameters],
            [p.grad for p in self._parameters if p.grad is not None],
            self._exp_avg,
            self._exp_avg_sq,
            [],
            [self._steps[0]] * len(self._parameters),
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self._learning_rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )

    def state(self) -> dict[str, Tensor]:
        """The moments by the names parameters are stored by, and the numbers of steps made."""
        return {
            **{f"exp_avg.{name}": tensor for name, tensor in self._by_layer(self._exp_avg).items()},
            **{f"exp_avg_sq.{name}": tensor for name, tensor in self._by_layer(self._exp_avg_sq).items()},
            "steps": self._steps,
        }

    def _by_layer(self, moments: list[Tensor]) -> dict[str, Tensor]:
        return by_layer_of(zip(self._names, moments, strict=True))
