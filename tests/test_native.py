"""What the native loops of `rust/kernels` compute, and what is done without them, against PyTorch in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from crl import _core, norm_swish
from crl.native import serves, view
from crl.norm_swish import EPSILON


def layer(rows: int, width: int, seed: int) -> tuple[list[Tensor], Tensor]:
    """What a LayerNorm sees, its weight and bias; and the gradient of its swish."""
    generator = torch.Generator().manual_seed(seed)
    sizes = (rows, width), (width,), (width,), (rows, width)
    *given, gradient = (2 * torch.randn(size, generator=generator) for size in sizes)
    return given, gradient


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (3, 2), (5, 31), (7, 256), (256, 64), (2, 1000)])
@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize("look", [view, lambda tensor: tensor], ids=["native", "pytorch"])
def test_norm_swish_is_layer_norm_then_swish(rows: int, width: int, scale: float, look: object) -> None:
    assert callable(look)
    given, gradient = layer(rows, width, seed=rows * width)
    exact = [tensor.double().requires_grad_() for tensor in given]
    expected = F.silu(F.layer_norm(exact[0], (width,), exact[1], exact[2], EPSILON))
    (scale * expected).backward(gradient.double())

    dense, *norm = map(look, given)
    empty = lambda *size: look(torch.full(size, torch.nan))  # noqa: E731
    moments = empty(rows, 1), empty(rows, 1)
    kept = dense, moments, empty(rows, width), empty(rows, width)
    norm_swish.forward(kept, (norm[0], norm[1]))
    torch.testing.assert_close(torch.as_tensor(kept[3]).double(), expected.detach(), rtol=1e-5, atol=2e-5)
    out, learnt = empty(rows, width), (empty(width), empty(width), empty(width))
    for wanted in (learnt, None):
        norm_swish.backward(look(gradient), scale, kept, (norm[0], norm[1]), out, wanted)
        of_dense = exact[0].grad
        assert of_dense is not None
        size = float(of_dense.abs().max()) + 1
        torch.testing.assert_close(torch.as_tensor(out).double(), of_dense, rtol=1e-4, atol=2e-5 * size)
    for got, parameter in zip(learnt[:2], exact[1:], strict=True):
        torch.testing.assert_close(torch.as_tensor(got).double(), parameter.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.as_tensor(learnt[2]), torch.as_tensor(out).sum(0), rtol=1e-4, atol=1e-4 * size)


def test_natives_take_float32_of_a_cpu_alone() -> None:
    assert serves(torch.zeros(2))
    assert not serves(torch.zeros(2, dtype=torch.float64))
    assert not serves(torch.zeros(2, device="meta"))
    shared = torch.zeros(3, requires_grad=True)
    view(shared)[1] = 5
    assert shared.tolist() == [0, 5, 0]


def test_arrays_that_do_not_fit_are_refused_and_nothing_is_written() -> None:
    x, y, out = torch.zeros(2, 3).numpy(), torch.zeros(4, 3).numpy(), torch.full((2, 5), 7.0)
    with pytest.raises(ValueError, match="distances has 10 entries, expected 8"):
        _core.distances(x, y, out.numpy())
    with pytest.raises(TypeError, match="C-contiguous"):
        _core.distances(x, torch.zeros(3, 4).T.numpy(), out[:, :4].contiguous().numpy())
    assert (out == 7).all()
