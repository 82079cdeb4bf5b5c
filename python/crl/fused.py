"""The residual network on a GPU by the kernels of `crl.kernels`: when they serve, and the network as one autograd node.

Layers are taken in chunks. Of a chunk forward writes, layer by layer, what the layer multiplies and what it makes of it
(`inputs` and `dense`; all else is made again from these), and backward the gradients of `dense`; the weights' gradients
are then one batched product. A chunk is one kernel where few rows pass it, else a product and a kernel for each layer.

Input and output layer are always in float32: their products are small, and what they make is looked at closely.

Letters: as in `crl.residual`; C layers of a chunk, T programs of a kernel.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from crl import kernels
from crl.config import LAYERS_PER_BLOCK
from crl.residual import Memory, Settings, Weights, row_norms

CHUNK = 32
"""Layers of which gradients are kept beside each other, and that are computed again together; a multiple of 4."""
WIDTHS = tuple(2**power for power in range(4, 13))
"""That the kernels take."""
WIDEST_STACK = {"ieee": 128, "tf32": 512, "bf16": 512}
"""That a kernel takes through many layers, by precision: a program has a few such rows in registers. No matrix unit
makes float32 products, and the 128 multipliers of one multiprocessor need 8192 cycles for a layer of width 256."""


class Plan(NamedTuple):
    """How the kernels compute a network."""

    kind: torch.dtype = torch.float32
    """Of the operands of the products in blocks, float32 or bfloat16; they are added up in float32."""
    precision: str = "ieee"
    """Of products of float32, "ieee" or "tf32"."""
    stacked: bool = True
    """Whether a chunk is one kernel."""


def plan(x: Tensor, weights: Weights, settings: Settings) -> Plan | None:
    """The one place that says whether the kernels serve, and which: None where they do not.

    A kernel of a whole stack gives a multiprocessor 16 rows to take through all layers. It should pay while every 16
    rows have a multiprocessor of their own, as then more rows cost nothing, and while that one multiplies no longer
    than a layer's kernels take to start; beyond, the library's products use the whole GPU better. This rule is
    reasoned, and has not been measured on a GPU.
    """
    rows, width = x.shape[0], weights.weight.shape[-1]
    if not x.is_cuda or x.ndim != 2 or not settings.kernels or weights.weight.dtype != torch.float32:
        return None
    # Offsets within a chunk are 32 bits.
    if width not in WIDTHS or not 0 < rows * width * CHUNK < 2**31:
        return None
    if torch.cuda.get_device_capability(x.device) < (8, 0):
        return None
    kind = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
    if kind not in (torch.float32, torch.bfloat16):
        return None
    precision = "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee"
    widest = WIDEST_STACK["bf16" if kind == torch.bfloat16 else precision]
    multiprocessors = torch.cuda.get_device_properties(x.device).multi_processor_count
    return Plan(kind, precision, width <= widest and kernels.stack_programs(rows) <= multiprocessors)


def network(
    x: Tensor, weights: Weights, memory: Memory, settings: Settings, watched: list[Tensor] | None, plan: Plan
) -> Tensor:
    """(B, in) -> (B, out) in float32, whatever autocast says."""
    if torch.is_grad_enabled():
        return Fused.apply(x, memory, settings, watched, plan, *weights)  # type: ignore[no-any-return]
    with torch.autocast(x.device.type, enabled=False):
        kept = Kept(len(x), weights.weight, plan.kind, blocks=0, layers=0, inputs=0)
        return _forward(x.float(), weights, kept, settings, plan)


class Kept:
    """What a forward pass writes: of as many blocks and layers as are named, but at least of a chunk."""

    def __init__(self, rows: int, like: Tensor, kind: torch.dtype, *, blocks: int, layers: int, inputs: int) -> None:
        depth, width = like.shape[:2]
        chunk = min(CHUNK, depth)
        self.input_dense = like.new_empty(rows, width)
        self.stream = like.new_empty(max(blocks, chunk // LAYERS_PER_BLOCK) + 1, rows, width)
        """The sums before and behind blocks, in float32."""
        self.dense, self.inputs = (like.new_empty(max(n, chunk), rows, width, dtype=kind) for n in (layers, inputs))
        self.first = 0
        """The first layer of the chunk computed last."""

    def of(self, first: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Stream, inputs and dense of `count` layers from `first` on."""
        block = first // LAYERS_PER_BLOCK % (len(self.stream) - 1)
        inputs, dense = (kept[first % len(kept) :][:count] for kept in (self.inputs, self.dense))
        return self.stream[block : block + count // LAYERS_PER_BLOCK + 1], inputs, dense


class Layers(NamedTuple):
    """The weights of a chunk."""

    weight: Tensor
    """(C, W, W), as the plan's kind"""
    bias: Tensor
    """(C, W), as each of LayerNorm's two"""
    norm: kernels.Norm


class Fused(torch.autograd.Function):
    """(B, in) -> (B, out). Weights that need no gradient cost none."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        memory: Memory,
        settings: Settings,
        watched: list[Tensor] | None,
        plan: Plan,
        *parameters: Tensor,
    ) -> Tensor:
        w = Weights(*parameters)
        depth = len(w.weight)
        layers = 0 if settings.recompute else depth
        inputs = layers if any(ctx.needs_input_grad[5:]) else 0
        ctx.memory, ctx.settings, ctx.plan = memory, settings, plan
        ctx.kept = Kept(len(x), w.weight, plan.kind, blocks=depth // LAYERS_PER_BLOCK, layers=layers, inputs=inputs)
        ctx.save_for_backward(x, *parameters)
        with torch.autocast(x.device.type, enabled=False):
            out = _forward(x.float(), w, ctx.kept, settings, plan)
        if watched is not None:
            watched[:] = row_norms(ctx.kept.stream.unbind())
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, *parameters = ctx.saved_tensors
        w, kept, memory, settings, plan = Weights(*parameters), ctx.kept, ctx.memory, ctx.settings, ctx.plan
        learn = any(ctx.needs_input_grad[5:])
        d = Weights(*(memory.like(p) if learn else p for p in parameters))
        rows, (depth, width) = len(x), w.weight.shape[:2]
        g = gradient @ w.output_weight
        if learn:
            torch.mm(gradient.mT, kept.stream[-1], out=d.output_weight)
            torch.sum(gradient, 0, out=d.output_bias)
        programs = kernels.stack_programs(rows) if plan.stacked else kernels.layer_programs(rows, width)
        d_dense = torch.empty_like(kept.dense[: min(CHUNK, depth)])
        partial = g.new_empty(3, len(d_dense), programs, width) if learn else None
        for first, count in reversed(_chunks(depth)):
            stream, inputs, dense = kept.of(first, count)
            layers = _layers(w, first, count, plan)
            if settings.recompute and kept.first != first:
                _chunk_forward(stream, inputs, dense, layers, settings.scale, plan)
                kept.first = first
            sums = partial[:, :count] if partial is not None else None
            g = _chunk_backward(g, dense, layers, d_dense[:count], sums, settings.scale, plan)
            if sums is not None:
                product(d_dense[:count].mT, inputs, out=d.weight[first : first + count])
                for parts, stack in zip(sums, (d.bias, d.norm_weight, d.norm_bias), strict=True):
                    torch.sum(parts, 1, out=stack[first : first + count])
        d_input, sums = torch.empty_like(g), None
        if learn:
            sums = g.new_empty(3, kernels.layer_programs(rows, width), width)
        kernels.layer_backward(g, kept.input_dense, (w.input_norm_weight, w.input_norm_bias), d_input, sums)
        if sums is not None:
            for parts, into in zip(sums, (d.input_bias, d.input_norm_weight, d.input_norm_bias), strict=True):
                torch.sum(parts, 0, out=into)
            torch.mm(d_input.mT, x.float(), out=d.input_weight)
        needed = (p if needs else None for p, needs in zip(d, ctx.needs_input_grad[5:], strict=True))
        d_x = (d_input @ w.input_weight).to(x.dtype) if ctx.needs_input_grad[0] else None
        return (d_x, None, None, None, None, *needed)


def _forward(x: Tensor, w: Weights, kept: Kept, settings: Settings, plan: Plan) -> Tensor:
    torch.addmm(w.input_bias, x, w.input_weight.mT, out=kept.input_dense)
    stream = kept.stream
    kernels.layer_forward(kept.input_dense, (w.input_norm_weight, w.input_norm_bias), stream[0])
    for first, count in _chunks(len(w.weight)):
        if first and len(kept.stream) <= len(w.weight) // LAYERS_PER_BLOCK:  # Nobody will look back.
            kept.stream[0].copy_(stream[-1])
        stream, inputs, dense = kept.of(first, count)
        _chunk_forward(stream, inputs, dense, _layers(w, first, count, plan), settings.scale, plan)
        kept.first = first
    return torch.addmm(w.output_bias, stream[-1], w.output_weight.mT)


def _chunks(depth: int) -> list[tuple[int, int]]:
    """The first layer of each chunk, and how many it has."""
    return [(first, min(CHUNK, depth - first)) for first in range(0, depth, CHUNK)]


def _layers(w: Weights, first: int, count: int, plan: Plan) -> Layers:
    of = slice(first, first + count)
    return Layers(w.weight[of].to(plan.kind), w.bias[of], (w.norm_weight[of], w.norm_bias[of]))


def _chunk_forward(stream: Tensor, inputs: Tensor, dense: Tensor, layers: Layers, scale: float, plan: Plan) -> None:
    """From the stream's first (B, W) all the rest of it, the inputs and dense."""
    weight, bias, norms = layers
    if plan.stacked:
        kernels.stack_forward(stream, weight, bias, norms, inputs, dense, scale, plan.precision)
        return
    bias = bias.to(plan.kind)
    for layer, out in enumerate(dense):
        block, place = divmod(layer, LAYERS_PER_BLOCK)
        if place == 0:
            inputs[layer].copy_(stream[block])
        torch.addmm(bias[layer], inputs[layer], weight[layer].mT, out=out)
        norm = norms[0][layer], norms[1][layer]
        if place < LAYERS_PER_BLOCK - 1:
            kernels.layer_forward(out, norm, inputs[layer + 1])
        else:
            kernels.layer_forward(out, norm, stream[block + 1], stream[block], scale)


def _chunk_backward(
    g: Tensor, dense: Tensor, layers: Layers, d_dense: Tensor, sums: Tensor | None, scale: float, plan: Plan
) -> Tensor:
    """The gradient (B, W) before the chunk from that behind it, whose memory may be used; d_dense and `sums`."""
    weight, _, norms = layers
    if plan.stacked:
        kernels.stack_backward(g, weight, norms, dense, d_dense, sums, scale, plan.precision)
        return g
    for layer in reversed(range(len(dense))):
        place = layer % LAYERS_PER_BLOCK
        last = place == LAYERS_PER_BLOCK - 1
        if last:
            skipped = g
        own = sums[:, layer] if sums is not None else None
        norm = norms[0][layer], norms[1][layer]
        kernels.layer_backward(g, dense[layer], norm, d_dense[layer], own, scale if last else 1.0)
        g = product(d_dense[layer], weight[layer], out=torch.empty_like(g))
        if place == 0:
            g = skipped.add_(g)
    return g


def product(left: Tensor, right: Tensor, out: Tensor) -> Tensor:
    """Products of matrices in float32, also of such in bf16."""
    multiply = torch.bmm if left.ndim == 3 else torch.mm
    if left.dtype == out.dtype:
        return multiply(left, right, out=out)
    return multiply(left, right, out_dtype=out.dtype, out=out)
