"""A residual network as one autograd node: the layers' weights in stacks, forward and backward written out.

Autograd node by node would allocate every activation anew, copy gradients, and spend half of a small layer's time on
bookkeeping. Here an operation writes where its result is needed, and the memory stays for the next pass.

Letters: B rows, D layers in blocks, N = D/4 blocks, W width.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from crl.config import LAYERS_PER_BLOCK

EPSILON = 1e-6
"""LayerNorm's."""


class Weights(NamedTuple):
    """A residual network's parameters, or their gradients."""

    input_weight: Tensor
    """(W, in)"""
    input_bias: Tensor
    """(W,), as the input layer's LayerNorm's below"""
    input_norm_weight: Tensor
    input_norm_bias: Tensor
    weight: Tensor
    """(D, W, W): of each layer, as `F.linear` takes it"""
    bias: Tensor
    """(D, W), as the layers' LayerNorms' below"""
    norm_weight: Tensor
    norm_bias: Tensor
    output_weight: Tensor
    """(out, W)"""
    output_bias: Tensor
    """(out,)"""


def plain(x: Tensor, weights: Weights) -> Tensor:
    """The network in PyTorch's own operations: (..., in) -> (..., out).

    For what needs no gradients, and for autocast, which knows these operations.
    """
    w = weights
    x = _plain_layer(x, w.input_weight, w.input_bias, w.input_norm_weight, w.input_norm_bias)
    h = x
    layers = zip(w.weight.unbind(), w.bias.unbind(), w.norm_weight.unbind(), w.norm_bias.unbind(), strict=True)
    for index, layer in enumerate(layers, 1):
        h = _plain_layer(h, *layer)
        if index % LAYERS_PER_BLOCK == 0:
            x = h = x + h
    return F.linear(x, w.output_weight, w.output_bias)


def _plain_layer(x: Tensor, weight: Tensor, bias: Tensor, norm_weight: Tensor, norm_bias: Tensor) -> Tensor:
    x = F.linear(x, weight, bias)
    return F.silu(F.layer_norm(x, bias.shape, norm_weight, norm_bias, EPSILON))


class Memory:
    """What passes of one network leave behind for the next: buffers, by shape. A copy of the network has its own."""

    def __init__(self) -> None:
        self._spare: dict[tuple[Any, ...], list[Any]] = {}

    def tape(self, rows: int, depth: int, like: Tensor) -> "Tape":
        """A tape for `rows` of a network with `depth` layers of the width and kind of `like` (D, W, W)."""
        key = ("tape", rows, depth, like.shape[-1], like.dtype, like.device)
        return Tape(self, key, self._take(key) or Records(rows, depth, like))

    def like(self, weight: Tensor) -> Tensor:
        """Uninitialised memory for the gradient of `weight`."""
        taken = self._take((weight.shape, weight.dtype, weight.device))
        return torch.empty_like(weight) if taken is None else taken

    def give(self, gradient: Tensor) -> None:
        """Keep the memory of a gradient that nobody will look at again."""
        self.keep((gradient.shape, gradient.dtype, gradient.device), gradient)

    def keep(self, key: tuple[Any, ...], buffer: Any) -> None:
        self._spare.setdefault(key, []).append(buffer)

    def _take(self, key: tuple[Any, ...]) -> Any:
        spare = self._spare.get(key)
        try:
            return spare.pop() if spare else None
        except IndexError:  # another thread was faster
            return None

    def __deepcopy__(self, memo: dict[int, Any]) -> "Memory":
        return Memory()


class Records:
    """What backward needs of one forward pass: for every layer what its LayerNorm saw, the sigmoid, and the swish."""

    def __init__(self, rows: int, depth: int, like: Tensor) -> None:
        width = like.shape[-1]
        self.stream = like.new_empty(depth // LAYERS_PER_BLOCK + 1, rows, width).unbind()
        self.dense = like.new_empty(depth, rows, width).unbind()
        self.sigmoid = like.new_empty(depth, rows, width).unbind()
        self.swish = like.new_empty(depth, rows, width).unbind()
        self.input_dense, self.input_sigmoid = like.new_empty(2, rows, width).unbind()
        self.moments: list[tuple[Tensor, Tensor]] = []
        self.one = like.new_ones(())


class Tape:
    """Records, from forward until nobody can ask for the backward pass any more."""

    def __init__(self, memory: Memory, key: tuple[Any, ...], records: Records) -> None:
        self._memory, self._key, self.records = memory, key, records

    def __del__(self) -> None:
        self._memory.keep(self._key, self.records)


class Residual(torch.autograd.Function):
    """(B, in) -> (B, out). Weights that need no gradient cost none.

    The slope of y = x sigmoid(x) is s + y (1 - s), from what forward kept: two passes over memory, where that of x
    would take another exp.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, memory: Memory, *parameters: Tensor) -> Tensor:
        w = Weights(*parameters)
        depth = len(w.weight)
        tape = memory.tape(len(x), depth, w.weight)
        r = tape.records
        ctx.tape, ctx.memory = tape, memory
        ctx.save_for_backward(x, *parameters)
        r.moments = [
            _layer(
                x,
                w.input_weight.mT,
                w.input_bias,
                w.input_norm_weight,
                w.input_norm_bias,
                r.input_dense,
                r.input_sigmoid,
                r.stream[0],
            )
        ]
        layers = zip(
            w.weight.mT.unbind(),
            w.bias.unbind(),
            w.norm_weight.unbind(),
            w.norm_bias.unbind(),
            r.dense,
            r.sigmoid,
            r.swish,
            strict=True,
        )
        h = r.stream[0]
        for index, layer in enumerate(layers):
            r.moments.append(_layer(h, *layer))
            h = r.swish[index]
            block, place = divmod(index, LAYERS_PER_BLOCK)
            if place == LAYERS_PER_BLOCK - 1:
                h = torch.add(r.stream[block], h, out=r.stream[block + 1])
        return torch.addmm(w.output_bias, h, w.output_weight.mT)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, *parameters = ctx.saved_tensors
        w, r, memory = Weights(*parameters), ctx.tape.records, ctx.memory
        learn = any(ctx.needs_input_grad[2:])
        d = Weights(*(memory.like(p) if learn else p for p in parameters))
        if learn:
            torch.mm(gradient.mT, r.stream[-1], out=d.output_weight)
            torch.sum(gradient, 0, out=d.output_bias)
        g = skipped = gradient @ w.output_weight
        matrices, norms = w.weight.unbind(), list(zip(w.norm_weight.unbind(), w.norm_bias.unbind(), strict=True))
        d_weight, d_bias, d_norms = d.weight.unbind(), d.bias.unbind(), []
        for index in reversed(range(len(matrices))):
            block, place = divmod(index, LAYERS_PER_BLOCK)
            if place == LAYERS_PER_BLOCK - 1:
                skipped = g
            g = torch.lerp(r.sigmoid[index], r.one, r.swish[index]).mul_(g)
            g, *d_norm = _norm_gradient(g, r.dense[index], r.moments[index + 1], norms[index], learn)
            if learn:
                d_norms.append(d_norm)
                torch.sum(g, 0, out=d_bias[index])
                torch.mm(g.mT, r.swish[index - 1] if place else r.stream[block], out=d_weight[index])
            g = g @ matrices[index] if place else torch.addmm(skipped, g, matrices[index])
        g = torch.lerp(r.input_sigmoid, r.one, r.stream[0]).mul_(g)
        norm = w.input_norm_weight, w.input_norm_bias
        g, *d_norm = _norm_gradient(g, r.input_dense, r.moments[0], norm, learn)
        if learn:
            for into, parts in zip((d.norm_weight, d.norm_bias), zip(*reversed(d_norms), strict=True), strict=True):
                torch.stack(parts, out=into)
            d = d._replace(input_norm_weight=d_norm[0], input_norm_bias=d_norm[1])
            torch.sum(g, 0, out=d.input_bias)
            torch.mm(g.mT, x, out=d.input_weight)
        needed = (p if needs else None for p, needs in zip(d, ctx.needs_input_grad[2:], strict=True))
        return (g @ w.input_weight if ctx.needs_input_grad[0] else None, None, *needed)


def _layer(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    dense: Tensor,
    sigmoid: Tensor,
    swish: Tensor,
) -> tuple[Tensor, Tensor]:
    """One layer into the last three arguments; returns what LayerNorm's backward wants: means and 1/deviations."""
    torch.addmm(bias, x, weight, out=dense)
    normed, mean, rstd = torch.native_layer_norm(dense, bias.shape, norm_weight, norm_bias, EPSILON)
    torch.sigmoid(normed, out=sigmoid)
    torch.mul(normed, sigmoid, out=swish)
    return mean, rstd


def _norm_gradient(
    gradient: Tensor, dense: Tensor, moments: tuple[Tensor, Tensor], norm: tuple[Tensor, Tensor], learn: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Through a LayerNorm: the gradient of its input and, if they `learn`, those of its weight and bias."""
    return torch.ops.aten.native_layer_norm_backward(  # type: ignore[no-any-return]
        gradient, dense, norm[0].shape, *moments, *norm, [True, learn, learn]
    )
