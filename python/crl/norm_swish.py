"""LayerNorm, then swish, forward and backward, into memory that is there: what a layer does behind its product.

On a CPU in float32 one native loop over the rows does all of it (`rust/kernels`); elsewhere PyTorch's operations do,
which pass over memory once each.

Letters: B rows, W width.
"""

from typing import Any

import numpy as np
import torch

from crl import _core

EPSILON = 1e-6
"""LayerNorm's."""
View = Any
"""A tensor as the functions take it: `crl.native.view`."""
Norm = tuple[View, View]
"""LayerNorm's weight and bias, (W,) each."""
Kept = tuple[View, tuple[View, View], View, View]
"""Of a layer what its LayerNorm saw (B, W), the means and inverse deviations of its rows, (B, 1) each, the sigmoid of
the normalised and the swish, (B, W) each."""


def forward(kept: Kept, norm: Norm) -> None:
    """From the first of `kept` to the others."""
    dense, moments, sigmoid, swish = kept
    if isinstance(dense, np.ndarray):
        _core.norm_swish(dense, norm, EPSILON, moments, sigmoid, swish)
        return
    normed, *found = torch.native_layer_norm(dense, norm[0].shape, *norm, EPSILON)
    torch._foreach_copy_(moments, found)
    torch.sigmoid(normed, out=sigmoid)
    torch.mul(normed, sigmoid, out=swish)


def backward(
    gradient: View, scale: float, kept: Kept, norm: Norm, out: View, learnt: tuple[View, View, View] | None
) -> None:
    """From the gradient of `scale * swish` (B, W) to that of what LayerNorm saw, into `out`.

    The slope of y = x sigmoid(x) is s + y (1 - s), of what `forward` left behind: from x it would take another exp.

    Args:
        learnt: if wanted, what the gradients of LayerNorm's weight, of its bias and of the bias before it are written
            to, (W,) each.
    """
    dense, moments, sigmoid, swish = kept
    if isinstance(dense, np.ndarray):
        _core.norm_swish_backward(gradient, scale, dense, norm[0], moments, sigmoid, swish, out, learnt)
        return
    of_normed = torch.lerp(sigmoid, sigmoid.new_ones(()), swish).mul_(gradient)
    if scale != 1:
        of_normed.mul_(scale)
    wanted = [True, learnt is not None, learnt is not None]
    of_dense, *of_norm = torch.ops.aten.native_layer_norm_backward(
        of_normed, dense, norm[0].shape, *moments, *norm, wanted
    )
    out.copy_(of_dense)
    if learnt is not None:
        torch._foreach_copy_(list(learnt[:2]), of_norm)
        torch.sum(of_dense, 0, out=learnt[2])
