"""One optimizer for all weights."""

from collections.abc import Collection, Mapping

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

    Args:
        parameters: what moves, by name. One without a gradient stays where it is, and its steps are not counted.
        learning_rate: of all.
        delayed: names of those that `step` can leave out.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], learning_rate: float, delayed: Collection[str] = ()
    ) -> None:
        self._names, self._parameters = list(parameters), list(parameters.values())
        self._learning_rate = learning_rate
        self._few = sum(p.numel() for p in self._parameters) < FEW
        self._exp_avg = [torch.zeros_like(p) for p in self._parameters]
        self._exp_avg_sq = [torch.zeros_like(p) for p in self._parameters]
        # A count for every layer, though all of a stack move together: so it is stored.
        layers = [len(by_layer_of([item])) for item in parameters.items()]
        self._steps = torch.zeros(sum(layers), device=self._parameters[0].device)
        self._counts = torch.split(self._steps, layers)
        self._count = [counts[0] for counts in self._counts]
        self._punctual = [i for i, name in enumerate(self._names) if name not in delayed]
        self._delayed = [i for i, name in enumerate(self._names) if name in delayed]

    def zero_grad(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, skip: Tensor | None = None) -> None:
        """Move every parameter by its gradient.

        Args:
            skip: float32, 0-d: 1 leaves the `delayed` where they are, 0 moves them too. The host never reads it.
        """
        if self._few:
            lanes.alone(lambda: self._step(skip))
        else:
            self._step(skip)

    def _step(self, skip: Tensor | None) -> None:
        self._move(self._punctual, None)
        self._move(self._delayed, skip)

    def _move(self, group: list[int], skip: Tensor | None) -> None:
        moving = [(i, gradient) for i in group if (gradient := self._parameters[i].grad) is not None]
        if not moving:
            return
        counts = [self._counts[i] for i, _ in moving]
        if skip is None:
            torch._foreach_add_(counts, 1.0)
        else:  # by name, as the function would take the tensor for a number and wait for it
            torch.ops.aten._foreach_add_.Tensor(counts, 1 - skip)
        torch._fused_adam_(
            [self._parameters[i] for i, _ in moving],
            [gradient for _, gradient in moving],
            [self._exp_avg[i] for i, _ in moving],
            [self._exp_avg_sq[i] for i, _ in moving],
            [],
            [self._count[i] for i, _ in moving],
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self._learning_rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
            found_inf=skip,
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
