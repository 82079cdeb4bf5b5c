"""Networks for the kernels of `crl.kernels`, and their gradients by these and in PyTorch's own operations."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from crl import fused, residual
from crl.fused import Plan
from crl.networks import ResidualMLP
from crl.residual import DEFAULTS, Memory, Settings, Weights

Found = dict[str, Tensor]
"""The output and all gradients, by name."""


@dataclass(frozen=True)
class Case:
    """7 inputs and 5 outputs."""

    rows: int
    width: int
    depth: int
    settings: Settings = DEFAULTS
    device: str = "cpu"

    def weights(self) -> Weights:
        """Those of a fresh network; biases and norms away from where they start."""
        generator = torch.Generator().manual_seed(self.depth)
        weights = ResidualMLP(7, 5, self.width, self.depth, generator=generator).weights
        moved = (
            p if "bias" not in name and "norm" not in name else p + 0.2 * torch.randn(p.shape, generator=generator)
            for name, p in weights._asdict().items()
        )
        return Weights(*(p.detach().to(self.device) for p in moved))

    def ends(self, seed: int = 0) -> tuple[Tensor, Tensor]:
        """An input, and a gradient of the output."""
        generator = torch.Generator().manual_seed(seed)
        x, upstream = (torch.randn(self.rows, dim, generator=generator).to(self.device) for dim in (7, 5))
        return x, upstream

    def plain(self, dtype: torch.dtype = torch.float64) -> Found:
        return self._gradients(dtype, lambda x, w: residual.plain(x, w, self.settings._replace(recompute=False)))

    def fused(self, plan: Plan) -> Found:
        return self._gradients(torch.float32, lambda x, w: fused.network(x, w, Memory(), self.settings, None, plan))

    def _gradients(self, dtype: torch.dtype, network: Callable[[Tensor, Weights], Tensor]) -> Found:
        x, upstream = (end.to(dtype) for end in self.ends())
        inputs = [end.requires_grad_() for end in (x, *(w.to(dtype) for w in self.weights()))]
        out = network(inputs[0], Weights(*inputs[1:]))
        gradients = torch.autograd.grad((out * upstream).sum(), inputs)
        return dict(zip(("out", "x", *Weights._fields), (out.detach(), *gradients), strict=True))


def difference(actual: Found, expected: Found) -> float:
    """The greatest of all tensors, as 2-norms, relative to what was expected."""
    assert actual.keys() == expected.keys()
    return max(((actual[name] - value).norm() / value.norm()).item() for name, value in expected.items())
