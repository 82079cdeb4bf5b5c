"""A residual network as one autograd node: the layers' weights in stacks, forward and backward written out.

Autograd node by node would allocate every activation anew, copy gradients, and spend half of a small layer's time on
bookkeeping. Here an operation writes where its result is needed, and the memory stays for the next pass.

Letters: B rows, D layers in blocks, N = D/4 blocks, W width.
"""

import copy
import functools
import importlib.util
import os
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from crl import lanes, norm_swish
from crl.compiled import compiled
from crl.config import LAYERS_PER_BLOCK
from crl.native import view
from crl.norm_swish import EPSILON


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


class Settings(NamedTuple):
    """How a residual network computes."""

    scale: float = 1.0
    """By which a block's output is multiplied before it is added."""
    recompute: bool = False
    """Keep only what blocks begin with, and compute their insides again in the backward pass."""
    kernels: bool = True
    """On a GPU use the kernels of `crl.fused` where they serve."""
    compile: bool = False
    """Where gradients are wanted, leave blocks to `torch.compile` instead of to what is written out here or there."""


DEFAULTS = Settings()


def middle(blocks: int) -> tuple[int, int, int]:
    """The first, the middle and the last of so many blocks."""
    return 0, (blocks - 1) // 2, blocks - 1


def row_norms(stream: Sequence[Tensor]) -> list[Tensor]:
    """Mean length of the rows behind the first, the middle and the last block, of the sums before and behind each."""
    return [torch.linalg.vector_norm(stream[block + 1].float(), dim=-1).mean() for block in middle(len(stream) - 1)]


def network(
    x: Tensor, weights: Weights, memory: "Memory", settings: Settings = DEFAULTS, watched: list[Tensor] | None = None
) -> Tensor:
    """The network, in whichever way is best for where it is and what is asked: (..., in) -> (..., out)."""
    compiling = settings.compile and torch.is_grad_enabled()
    if x.is_cuda and not compiling and (fused := _fused()) and (plan := fused.plan(x, weights, settings)):
        return fused.network(x, weights, memory, settings, watched, plan)  # type: ignore[no-any-return]
    if compiling or x.ndim != 2 or not torch.is_grad_enabled() or torch.is_autocast_enabled(x.device.type):
        return plain(x, weights, settings, watched)
    return Residual.apply(x, memory, settings, watched, *weights)  # type: ignore[no-any-return]


@functools.cache
def _fused() -> ModuleType | None:
    """The module, where Triton is installed (PyTorch brings it for CUDA on Linux) and CRL_KERNELS=0 is not set."""
    wanted = os.environ.get("CRL_KERNELS") != "0" and importlib.util.find_spec("triton")
    return importlib.import_module("crl.fused") if wanted else None


def plain(x: Tensor, weights: Weights, settings: Settings = DEFAULTS, watched: list[Tensor] | None = None) -> Tensor:
    """The network in PyTorch's own operations: (..., in) -> (..., out).

    For what needs no gradients, for autocast, which knows these operations, and for `torch.compile`.
    """
    w, learning = weights, torch.is_grad_enabled()
    one = compiled(_plain_block) if settings.compile and learning else _plain_block
    x = _plain_layer(x, w.input_weight, w.input_bias, w.input_norm_weight, w.input_norm_bias)
    stacks = (w.weight.unbind(), w.bias.unbind(), w.norm_weight.unbind(), w.norm_bias.unbind())
    layers = list(zip(*stacks, strict=True))
    stream = [x.detach()]
    for first in range(0, len(layers), LAYERS_PER_BLOCK):
        block = layers[first : first + LAYERS_PER_BLOCK]
        if settings.recompute and learning:
            x = checkpoint(one, x, settings.scale, block, use_reentrant=False, preserve_rng_state=False)
        else:
            x = one(x, settings.scale, block)
        if watched is not None:
            stream.append(x.detach())
    if watched is not None:
        watched[:] = row_norms(stream)
    return F.linear(x, w.output_weight, w.output_bias)


def _plain_block(x: Tensor, scale: float, layers: Sequence[tuple[Tensor, ...]]) -> Tensor:
    h = x
    for layer in layers:
        h = _plain_layer(h, *layer)
    return torch.add(x, h, alpha=scale)


def _plain_layer(x: Tensor, weight: Tensor, bias: Tensor, norm_weight: Tensor, norm_bias: Tensor) -> Tensor:
    x = F.linear(x, weight, bias)
    return F.silu(F.layer_norm(x, bias.shape, norm_weight, norm_bias, EPSILON))


class Memory:
    """What passes of one network leave behind for the next: buffers, by shape. A copy of the network has its own."""

    def __init__(self) -> None:
        self._spare: dict[tuple[Any, ...], list[Any]] = {}

    def tape(self, rows: int, like: Tensor, kept: int) -> "Tape":
        """A tape for `rows` of a network whose layers are `like` (D, W, W), that has room for `kept` layers."""
        key = ("tape", rows, like.shape, kept, like.dtype, like.device)
        return Tape(self, key, self._take(key) or Records(rows, like, kept))

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
    """What backward needs of one forward pass: the sums between blocks; of the layers what their LayerNorm saw, the
    sigmoid, and the swish, of all or of those of the block at hand."""

    def __init__(self, rows: int, like: Tensor, kept: int) -> None:
        depth, width = like.shape[:2]
        self.stream = like.new_empty(depth // LAYERS_PER_BLOCK + 1, rows, width).unbind()
        self.dense, self.sigmoid, self.swish = (like.new_empty(kept, rows, width).unbind() for _ in range(3))
        self.input_dense, self.input_sigmoid = like.new_empty(2, rows, width).unbind()
        # Not as LayerNorm gives them: what is small and stays would lie in the gaps that the large and passing leave,
        # the next of which then needs new memory, a fifth more in all.
        self.input_moments, *self.moments = (m.unbind() for m in like.new_empty(kept + 1, 2, rows, 1))
        self.gradients = like.new_empty(3, rows, width).unbind()
        """Room for backward: of what a block's end, its input and its present layer want."""
        self.block = -1
        """The last one computed."""
        self._halves: tuple[Records, Records] | None = None
        self._look()

    def _look(self) -> None:
        def kept(dense: Tensor, moments: tuple[Tensor, ...], sigmoid: Tensor, swish: Tensor) -> norm_swish.Kept:
            return view(dense), (view(moments[0]), view(moments[1])), view(sigmoid), view(swish)

        self.kept = [*map(kept, self.dense, self.moments, self.sigmoid, self.swish)]
        self.input_kept = kept(self.input_dense, self.input_moments, self.input_sigmoid, self.stream[0])

    def halves(self) -> tuple["Records", "Records"]:
        """Those of the first half of the rows and of the others, in the same memory."""
        if self._halves is None:
            self._halves = copy.copy(self), copy.copy(self)
            of_layers, of_input = ("dense", "sigmoid", "swish", "moments"), ("dense", "sigmoid", "moments")
            for name in ("stream", *of_layers, *(f"input_{name}" for name in of_input)):
                for half, part in zip(self._halves, _split(getattr(self, name)), strict=True):
                    setattr(half, name, part)
            for half in self._halves:
                half._look()
        return self._halves

    def first(self, block: int) -> int:
        """Where the layers of a block are."""
        return block * LAYERS_PER_BLOCK % len(self.dense)


def _split(tensors: Any) -> tuple[Any, Any]:
    """The first half of the rows and the others, of a tensor or of each in a tuple of them."""
    halves = tensors.tensor_split(2) if isinstance(tensors, Tensor) else zip(*map(_split, tensors), strict=True)
    first, second = halves
    return first, second


class Tape:
    """Records, from forward until nobody can ask for the backward pass any more."""

    def __init__(self, memory: Memory, key: tuple[Any, ...], records: Records) -> None:
        self._memory, self._key, self.records = memory, key, records

    def __del__(self) -> None:
        self._memory.keep(self._key, self.records)


class Residual(torch.autograd.Function):
    """(B, in) -> (B, out). Weights that need no gradient cost none."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, memory: Memory, settings: Settings, watched: list[Tensor] | None, *parameters: Tensor
    ) -> Tensor:
        w = Weights(*parameters)
        depth = len(w.weight)
        tape = memory.tape(len(x), w.weight, LAYERS_PER_BLOCK if settings.recompute else depth)
        r = tape.records
        ctx.tape, ctx.memory, ctx.settings = tape, memory, settings
        ctx.save_for_backward(x, *parameters)
        first = _Layer(w.input_weight.mT, w.input_bias, (view(w.input_norm_weight), view(w.input_norm_bias)))
        layers, out = _layers(w), x.new_empty(len(x), len(w.output_bias))

        @torch.no_grad()  # In another thread too.
        def layer_by_layer(x: Tensor, r: Records, out: Tensor) -> None:
            _layer(x, first, r.input_dense, r.input_kept)
            for block in range(depth // LAYERS_PER_BLOCK):
                h = _block(r, block, layers)
                torch.add(r.stream[block], h, alpha=settings.scale, out=r.stream[block + 1])
            torch.addmm(w.output_bias, r.stream[-1], w.output_weight.mT, out=out)

        if x.device.type == "cpu" and len(x) > 1 and lanes.free():
            one, other = zip(x.tensor_split(2), r.halves(), out.tensor_split(2), strict=True)
            lanes.both(lambda: layer_by_layer(*one), lambda: layer_by_layer(*other))
            r.block = depth // LAYERS_PER_BLOCK - 1
        else:
            layer_by_layer(x, r, out)
        if watched is not None:
            watched[:] = row_norms(r.stream)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, *parameters = ctx.saved_tensors
        w, r, memory, settings = Weights(*parameters), ctx.tape.records, ctx.memory, ctx.settings
        learn = any(ctx.needs_input_grad[4:])
        d = Weights(*(memory.like(p) if learn else p for p in parameters))
        if learn:
            torch.mm(gradient.mT, r.stream[-1], out=d.output_weight)
            torch.sum(gradient, 0, out=d.output_bias)
        # A block's end waits in the first for what comes through the block, and may not be written over before.
        ends, spare, inner = r.gradients
        torch.mm(gradient, w.output_weight, out=ends)
        layers, matrices, d_weight = _layers(w), w.weight.unbind(), d.weight.unbind()
        d_layers = list(zip(*(view(whole) for whole in (d.norm_weight, d.norm_bias, d.bias)), strict=True))
        of_ends, of_spare, of_inner = map(view, r.gradients)
        of_g = of_ends
        for index in reversed(range(len(matrices))):
            block, place = divmod(index, LAYERS_PER_BLOCK)
            kept, last = r.first(block) + place, place == LAYERS_PER_BLOCK - 1
            if last and settings.recompute and r.block != block:
                _block(r, block, layers)
            scale, learnt = settings.scale if last else 1.0, d_layers[index] if learn else None
            norm_swish.backward(of_g, scale, r.kept[kept], layers[index].norm, of_inner, learnt)
            if learn:
                torch.mm(inner.mT, r.swish[kept - 1] if place else r.stream[block], out=d_weight[index])
            if place:
                torch.mm(inner, matrices[index], out=spare)
            else:
                torch.addmm(ends, inner, matrices[index], out=ends)
            of_g = of_spare if place else of_ends
        norm = view(w.input_norm_weight), view(w.input_norm_bias)
        learnt = (view(d.input_norm_weight), view(d.input_norm_bias), view(d.input_bias)) if learn else None
        norm_swish.backward(of_ends, 1.0, r.input_kept, norm, of_inner, learnt)
        if learn:
            torch.mm(inner.mT, x, out=d.input_weight)
        needed = (p if needs else None for p, needs in zip(d, ctx.needs_input_grad[4:], strict=True))
        return (inner @ w.input_weight if ctx.needs_input_grad[0] else None, None, None, None, *needed)


class _Layer(NamedTuple):
    """A layer's parameters."""

    weight: Tensor
    """As a product takes it."""
    bias: Tensor
    norm: norm_swish.Norm


def _layers(w: Weights) -> list[_Layer]:
    """Those in blocks."""
    norms = zip(view(w.norm_weight), view(w.norm_bias), strict=True)
    return [*map(_Layer, w.weight.mT.unbind(), w.bias.unbind(), norms)]


def _block(r: Records, block: int, layers: list[_Layer]) -> Tensor:
    """The four layers of a block, from and into the records; returns the output of the last."""
    h, first = r.stream[block], r.first(block)
    for kept in range(first, first + LAYERS_PER_BLOCK):
        _layer(h, layers[block * LAYERS_PER_BLOCK + kept - first], r.dense[kept], r.kept[kept])
        h = r.swish[kept]
    r.block = block
    return h


def _layer(x: Tensor, layer: _Layer, dense: Tensor, kept: norm_swish.Kept) -> None:
    """One layer, into the last two arguments."""
    torch.addmm(layer.bias, x, layer.weight, out=dense)
    norm_swish.forward(kept, layer.norm)
