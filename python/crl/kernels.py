"""Triton kernels of the residual network: one layer behind its matrix product, and a stack of blocks as a whole.

Rows do not mix within a layer's kernel, nor within the network: a program takes some rows through everything, and no
program waits for another. Arithmetic is float32 whatever the tensors are; only the operands of products are shorter.
No kernel adds up atomically, so equal inputs give equal bits.

Letters: B rows, L layers in blocks, W width (a power of two), T programs.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from crl.config import LAYERS_PER_BLOCK
from crl.norm_swish import EPSILON

ROWS = 16
"""Rows of a program that takes them through a stack: as few as a matrix unit multiplies at once."""
MOST_PROGRAMS = 256
"""Of a layer's backward pass: as many sums of its weights' gradients are left to be added up."""
_OPTIONS = {"enable_fp_fusion": True}
"""Triton's default, of which 3.9 warns that it will be another."""
_PLACES = tl.constexpr(LAYERS_PER_BLOCK)
_EPSILON = tl.constexpr(EPSILON)


# --- what both kinds of kernels do with a tile of rows (R, W) ---------------------------------------------------------


@triton.jit
def _normalise(dense, WIDTH: tl.constexpr):
    """LayerNorm before its weight and bias, and the inverse deviations (R, 1)."""
    centred = dense - tl.sum(dense, 1, keep_dims=True) / WIDTH
    rstd = tl.rsqrt(tl.sum(centred * centred, 1, keep_dims=True) / WIDTH + _EPSILON)
    return centred * rstd, rstd


@triton.jit
def _activate(dense, norm_weight, norm_bias, WIDTH: tl.constexpr):
    """swish(LayerNorm(dense))."""
    normed, _ = _normalise(dense, WIDTH)
    y = normed * norm_weight + norm_bias
    return y * tl.sigmoid(y)


@triton.jit
def _activate_gradient(gradient, dense, norm_weight, norm_bias, WIDTH: tl.constexpr):
    """Of `_activate`: the gradients of dense, and row by row those of LayerNorm's weight and bias."""
    normed, rstd = _normalise(dense, WIDTH)
    y = normed * norm_weight + norm_bias
    sigmoid = tl.sigmoid(y)
    d_bias = gradient * (sigmoid + y * sigmoid * (1 - sigmoid))
    d_weight = d_bias * normed
    d_normed = d_bias * norm_weight
    mean = tl.sum(d_normed, 1, keep_dims=True) / WIDTH
    slope = tl.sum(d_normed * normed, 1, keep_dims=True) / WIDTH
    return rstd * (d_normed - mean - normed * slope), d_weight, d_bias


@triton.jit
def _product(
    left, right, rows, inside, WIDTH: tl.constexpr, STEP: tl.constexpr, FLIP: tl.constexpr, PRECISION: tl.constexpr
):
    """Rows of `left` (B, W) times the matrix `right` (W, W), or its transpose if FLIP: (R, W) in float32."""
    column, step = tl.arange(0, WIDTH)[None, :], tl.arange(0, STEP)
    total = tl.zeros((rows.shape[0], WIDTH), tl.float32)
    for first in range(0, WIDTH, STEP):
        inner = first + step
        tile = tl.load(left + rows * WIDTH + inner[None, :], mask=inside, other=0.0)
        if FLIP:
            matrix = tl.load(right + column * WIDTH + inner[:, None])
        else:
            matrix = tl.load(right + inner[:, None] * WIDTH + column)
        total = tl.dot(tile, matrix, total, input_precision=PRECISION)
    return total


# --- one layer --------------------------------------------------------------------------------------------------------


@triton.jit
def _layer_forward(
    dense,
    norm_weight,
    norm_bias,
    skip,
    out,
    num_rows,
    scale,
    WIDTH: tl.constexpr,
    TILE: tl.constexpr,
    ADD: tl.constexpr,
):
    row = tl.program_id(0) * TILE + tl.arange(0, TILE)[:, None]
    column = tl.arange(0, WIDTH)[None, :]
    at, inside = row * WIDTH + column, row < num_rows
    x = tl.load(dense + at, mask=inside, other=0.0).to(tl.float32)
    y = _activate(x, tl.load(norm_weight + column), tl.load(norm_bias + column), WIDTH)
    if ADD:
        y = tl.load(skip + at, mask=inside, other=0.0) + scale * y
    tl.store(out + at, y.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["num_rows"])
def _layer_backward(
    gradient,
    dense,
    norm_weight,
    norm_bias,
    d_dense,
    partial,
    partial_stride,
    num_rows,
    scale,
    WIDTH: tl.constexpr,
    TILE: tl.constexpr,
    LEARN: tl.constexpr,
):
    program, programs = tl.program_id(0), tl.num_programs(0)
    column = tl.arange(0, WIDTH)[None, :]
    weight, bias = tl.load(norm_weight + column), tl.load(norm_bias + column)
    sum_dense = tl.zeros((1, WIDTH), tl.float32)
    sum_weight = tl.zeros((1, WIDTH), tl.float32)
    sum_bias = tl.zeros((1, WIDTH), tl.float32)
    for tile in range(program, tl.cdiv(num_rows, TILE), programs):
        row = tile * TILE + tl.arange(0, TILE)[:, None]
        at, inside = row * WIDTH + column, row < num_rows
        x = tl.load(dense + at, mask=inside, other=0.0).to(tl.float32)
        g = tl.load(gradient + at, mask=inside, other=0.0) * scale
        d_x, d_weight, d_bias = _activate_gradient(g, x, weight, bias, WIDTH)
        tl.store(d_dense + at, d_x.to(d_dense.dtype.element_ty), mask=inside)
        sum_dense += tl.sum(d_x, 0, keep_dims=True)
        sum_weight += tl.sum(d_weight, 0, keep_dims=True)
        sum_bias += tl.sum(d_bias, 0, keep_dims=True)
    if LEARN:
        here = partial + program * WIDTH + column
        tl.store(here, sum_dense)
        tl.store(here + partial_stride, sum_weight)
        tl.store(here + 2 * partial_stride, sum_bias)


# --- a stack of blocks ------------------------------------------------------------------------------------------------


@triton.jit(do_not_specialize=["num_rows", "num_blocks"])
def _stack_forward(
    stream,
    weight,
    bias,
    norm_weight,
    norm_bias,
    inputs,
    dense,
    num_rows,
    num_blocks,
    scale,
    WIDTH: tl.constexpr,
    TILE: tl.constexpr,
    STEP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    rows = tl.program_id(0) * TILE + tl.arange(0, TILE)[:, None]
    column = tl.arange(0, WIDTH)[None, :]
    at, inside = rows * WIDTH + column, rows < num_rows
    size = num_rows * WIDTH
    x = tl.load(stream + at, mask=inside, other=0.0)
    for block in range(num_blocks):
        h = x
        for place in range(_PLACES):
            layer = block * _PLACES + place
            mine = inputs + layer * size
            tl.store(mine + at, h.to(inputs.dtype.element_ty), mask=inside)
            tl.debug_barrier()  # The product reads what other threads of this program have written.
            z = _product(mine, weight + layer * WIDTH * WIDTH, rows, inside, WIDTH, STEP, True, PRECISION)
            own = layer * WIDTH + column
            # Backward sees no more of it than is stored, nor does LayerNorm.
            stored = (z + tl.load(bias + own)).to(dense.dtype.element_ty)
            tl.store(dense + layer * size + at, stored, mask=inside)
            h = _activate(stored.to(tl.float32), tl.load(norm_weight + own), tl.load(norm_bias + own), WIDTH)
        x += scale * h
        tl.store(stream + (block + 1) * size + at, x, mask=inside)


@triton.jit(do_not_specialize=["num_rows", "num_blocks"])
def _stack_backward(
    gradient,
    weight,
    norm_weight,
    norm_bias,
    dense,
    d_dense,
    partial,
    partial_stride,
    num_rows,
    num_blocks,
    scale,
    WIDTH: tl.constexpr,
    TILE: tl.constexpr,
    STEP: tl.constexpr,
    PRECISION: tl.constexpr,
    LEARN: tl.constexpr,
):
    program, programs = tl.program_id(0), tl.num_programs(0)
    rows = program * TILE + tl.arange(0, TILE)[:, None]
    column = tl.arange(0, WIDTH)[None, :]
    at, inside = rows * WIDTH + column, rows < num_rows
    size = num_rows * WIDTH
    g = tl.load(gradient + at, mask=inside, other=0.0)
    for back in range(num_blocks):
        skipped = g
        g = g * scale
        for place in range(_PLACES):
            layer = (num_blocks - back) * _PLACES - 1 - place
            own = layer * WIDTH + column
            z = tl.load(dense + layer * size + at, mask=inside, other=0.0).to(tl.float32)
            d_z, d_weight, d_bias = _activate_gradient(
                g, z, tl.load(norm_weight + own), tl.load(norm_bias + own), WIDTH
            )
            if LEARN:
                here = partial + (layer * programs + program) * WIDTH + column
                tl.store(here, tl.sum(d_z, 0, keep_dims=True))
                tl.store(here + partial_stride, tl.sum(d_weight, 0, keep_dims=True))
                tl.store(here + 2 * partial_stride, tl.sum(d_bias, 0, keep_dims=True))
            mine = d_dense + layer * size
            tl.store(mine + at, d_z.to(d_dense.dtype.element_ty), mask=inside)
            tl.debug_barrier()
            g = _product(mine, weight + layer * WIDTH * WIDTH, rows, inside, WIDTH, STEP, False, PRECISION)
        g += skipped
    tl.store(gradient + at, g, mask=inside)


# --- launching --------------------------------------------------------------------------------------------------------


Norm = tuple[Tensor, Tensor]
"""LayerNorm's weight and bias, (W,) in float32; of several layers (L, W)."""


class Tiling(NamedTuple):
    """How a program multiplies: columns of a step of the product, steps under way, warps."""

    step: int
    stages: int
    warps: int


def tiling(width: int, kind: torch.dtype, shared: int) -> Tiling:
    """What fits into the `shared` bytes that a program may have; chosen by counting, not by timing."""
    row = width * kind.itemsize
    step = min(width, max(16, min(64, (1 << 15 if shared > 160_000 else 1 << 14) // row)))
    stages = int(0.9 * shared) // (step * (row + ROWS * kind.itemsize))
    return Tiling(step, max(2, min(4, stages)), max(4, min(16, width // 32)))


def _tiling(like: Tensor) -> Tiling:
    shared = torch.cuda.get_device_properties(like.device).shared_memory_per_block_optin if like.is_cuda else 1 << 17
    return tiling(like.shape[-1], like.dtype, shared)


def _layer_tile(width: int) -> int:
    """Rows of a program that does one layer: about four thousand numbers."""
    return max(1, min(64, 4096 // width))


def layer_programs(num_rows: int, width: int) -> int:
    """T of a layer's backward pass."""
    return min(MOST_PROGRAMS, triton.cdiv(num_rows, _layer_tile(width)))  # type: ignore[no-any-return]


def stack_programs(num_rows: int) -> int:
    """T of a stack's."""
    return triton.cdiv(num_rows, ROWS)  # type: ignore[no-any-return]


def layer_forward(dense: Tensor, norm: Norm, out: Tensor, skip: Tensor | None = None, scale: float = 1.0) -> None:
    """out = swish(LayerNorm(dense)), or skip + scale times that: all (B, W), dense and out float32 or bf16."""
    (rows, width), tile = dense.shape, _layer_tile(dense.shape[1])
    _layer_forward[(triton.cdiv(rows, tile),)](
        *(dense, *norm, skip, out, rows, scale),
        **{"WIDTH": width, "TILE": tile, "ADD": skip is not None, **_OPTIONS},
    )


def layer_backward(
    gradient: Tensor, dense: Tensor, norm: Norm, d_dense: Tensor, partial: Tensor | None, scale: float = 1.0
) -> None:
    """Scale times the gradient (B, W) in float32, through swish and LayerNorm into d_dense (B, W).

    `partial` (3, T, W), strided in its first dimension, gets sums over rows: of d_dense, and what the gradients of
    LayerNorm's weight and bias are made of.
    """
    (rows, width), tile = dense.shape, _layer_tile(dense.shape[1])
    _layer_backward[(layer_programs(rows, width),)](
        *(gradient, dense, *norm, d_dense, partial, partial.stride(0) if partial is not None else 0, rows, scale),
        **{"WIDTH": width, "TILE": tile, "LEARN": partial is not None, **_OPTIONS},
    )


def stack_forward(
    stream: Tensor,
    weight: Tensor,
    bias: Tensor,
    norms: Norm,
    inputs: Tensor,
    dense: Tensor,
    scale: float,
    precision: str,
) -> None:
    """All layers of some blocks, from stream[0].

    Args:
        stream: (L/4 + 1, B, W) in float32: the sums before and behind blocks, of which all but the first are written.
        weight: (L, W, W), float32 or bf16 as `inputs` and `dense` (L, B, W): what layers multiply and what they make of
            it, both written.
        bias, norms: (L, W) in float32.
        scale: of a block's output.
        precision: of float32 products: "ieee" or "tf32".
    """
    _, rows, width = dense.shape
    step, stages, warps = _tiling(weight)
    _stack_forward[(stack_programs(rows),)](
        *(stream, weight, bias, *norms, inputs, dense, rows, len(stream) - 1, scale),
        **{"WIDTH": width, "TILE": ROWS, "STEP": step, "PRECISION": precision},
        **{"num_stages": stages, "num_warps": warps, **_OPTIONS},
    )


def stack_backward(
    gradient: Tensor,
    weight: Tensor,
    norms: Norm,
    dense: Tensor,
    d_dense: Tensor,
    partial: Tensor | None,
    scale: float,
    precision: str,
) -> None:
    """The gradient (B, W) in float32 behind some blocks becomes that before them, in its place.

    Args as of `stack_forward`; d_dense (L, B, W) is written, and partial (3, L, T, W), as of `layer_backward`.
    """
    layers, rows, width = dense.shape
    step, stages, warps = _tiling(weight)
    _stack_backward[(stack_programs(rows),)](
        *(gradient, weight, *norms, dense, d_dense, partial, partial.stride(0) if partial is not None else 0),
        *(rows, layers // LAYERS_PER_BLOCK, scale),
        **{"WIDTH": width, "TILE": ROWS, "STEP": step, "PRECISION": precision, "LEARN": partial is not None},
        **{"num_stages": stages, "num_warps": warps, **_OPTIONS},
    )
