"""One optimizer for all weights."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.adam import adam


class Adam:
    """Adam (Kingma and Ba 2015) with its published constants, as PyTorch's one fused kernel.

    Not `torch.optim.Adam`: its first use imports PyTorch's compiler, 4 s that every start would pay, and it creates its
    state only at the first step, so that a fresh agent's checkpoint would have other keys than a trained one's.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], learning_rate: float) -> None:
        self._names, self._parameters = list(parameters), list(parameters.values())
        self._learning_rate = learning_rate
        self._exp_avg = [torch.zeros_like(p) for p in self._parameters]
        self._exp_avg_sq = [torch.zeros_like(p) for p in self._parameters]
        # The kernel wants a count for every parameter, though all are the same.
        self._steps = torch.zeros(len(self._names), device=self._parameters[0].device)

    def zero_grad(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    def step(self) -> None:
        """Move every parameter by its gradient."""
        adam(
            self._parameters,  # type: ignore[arg-type]
            [p.grad for p in self._parameters],  # type: ignore[misc]
            self._exp_avg,
            self._exp_avg_sq,
            [],
            list(self._steps.unbind()),
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self._learning_rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )

    def state(self) -> dict[str, Tensor]:
        """The moments by parameter name, and the numbers of steps made."""
        return {
            **{f"exp_avg.{name}": tensor for name, tensor in zip(self._names, self._exp_avg, strict=True)},
            **{f"exp_avg_sq.{name}": tensor for name, tensor in zip(self._names, self._exp_avg_sq, strict=True)},
            "steps": self._steps,
        }
