"""A network whose features and weights stay on unit spheres, after SimbaV2.

Letters: B rows, D layers in blocks, L = D/2 steps on the sphere, W width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crl.config import check_depth
from crl.layers import Dense, Stacked, check_sizes

SHIFT = 3.0
"""The entry put behind every input, so that its length is not lost on the sphere; as published."""
LAYERS_PER_STEP = 2


class Stack(Stacked):
    """The layers of all steps: of a step, the scale of the first is s, of the second alpha, as it is learned."""

    def __init__(self, width: int, depth: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.dense_weight = nn.Parameter(_random_rows(depth, width, width, generator=generator))
        starts = torch.tensor([math.sqrt(2 / width), math.sqrt(1 / width)]).repeat(depth // LAYERS_PER_STEP)
        self.step_scale = nn.Parameter(starts[:, None].repeat(1, width))


class Embedding(nn.Module):
    """The parameters of the input layer."""

    def __init__(self, in_dim: int, width: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(_random_rows(width, in_dim, generator=generator))
        self.scale = nn.Parameter(torch.full((width,), math.sqrt(2 / width)))


class HypersphericalMLP(nn.Module):
    """SimbaV2's network (Lee et al. 2025, "Hyperspherical Normalization for Scalable Deep RL"), a linear output behind.

    With u(x) = x / |x|, row by row:

        x_0 = u(s_0 * W_0 u([x, 3]))
        f(x) = u(W_2 relu(s * W_1 x))
        x <- u(x + alpha * (f(x) - x)),   L steps, each with W_1, W_2, s and alpha of its own
        output = V sqrt(W) x + b

    s and alpha are vectors of W entries, learned. s begins at sqrt(2/W); alpha is a learned number times sqrt(W)/(L+1)
    and begins at 1/(L+1), the number at 1/sqrt(W), so that Adam moves it as fast as weights. Every row of W_0, W_1, W_2
    has length 1: whoever steps an optimizer calls `project` behind. Its moments are as they were.

    As published but: W_1 and W_2 are W by W (published: 4 W by W, W by 4 W), so that `depth` counts dense layers and
    weights as in the residual network: a block of four is two steps. Rows begin as random directions, not as an
    orthogonal matrix, which would have to be factorised layer by layer. sqrt(W) gives the features entries of about 1,
    as LayerNorm's have; V and b are free, where the publication has another scaled layer before. Inputs are not
    standardised by running statistics. Its categorical critic, reward scaling and learning rate schedule are no part of
    a network.

    Args:
        in_dim, out_dim: (..., in_dim) -> (..., out_dim).
        depth: a positive multiple of 4; there are depth + 2 dense layers in all.
        generator: source of the initial weights; torch's global one if None.
    Raises:
        ValueError: a size below 1, or a depth that is no multiple of 4.
    """

    def __init__(
        self, in_dim: int, out_dim: int, width: int = 256, depth: int = 4, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        check_sizes(in_dim=in_dim, out_dim=out_dim, width=width)
        check_depth(depth)
        self.input = Embedding(in_dim + 1, width, generator)
        self.blocks = Stack(width, depth, generator)
        self.output = Dense(width, out_dim, generator)
        self._root = math.sqrt(width)
        self._alpha = self._root / (depth // LAYERS_PER_STEP + 1)
        self.project()

    @torch.no_grad()
    def project(self) -> None:
        """Give every row of the weights on spheres the length 1 again."""
        for weight in (self.input.weight, self.blocks.dense_weight):
            weight.div_(torch.linalg.vector_norm(weight, dim=-1, keepdim=True).clamp_min_(1e-12))

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self._root * self.features(x)[-1])  # type: ignore[no-any-return]

    def features(self, x: Tensor) -> list[Tensor]:
        """(..., in_dim) -> where the rows are on the sphere, before the first step and behind each: L + 1 (..., W).

        In the weights' precision, whatever matrix products are computed in.
        """
        kind = self.input.weight.dtype

        def unit(rows: Tensor) -> Tensor:
            return F.normalize(rows.to(kind), dim=-1)

        x = unit(torch.cat((x, x.new_full((*x.shape[:-1], 1), SHIFT)), -1))
        found = [unit(self.input.scale * F.linear(x, self.input.weight))]
        weights, scales = self.blocks.dense_weight.unbind(), self.blocks.step_scale.unbind()
        for first in range(0, len(weights), LAYERS_PER_STEP):
            hidden = F.relu(scales[first] * F.linear(found[-1], weights[first]))
            target = unit(F.linear(hidden, weights[first + 1]))
            found.append(unit(torch.lerp(found[-1], target, self._alpha * scales[first + 1])))
        return found


def _random_rows(*shape: int, generator: torch.Generator | None) -> Tensor:
    """Of every direction, normally distributed."""
    return torch.randn(*shape, generator=generator)
