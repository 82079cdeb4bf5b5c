"""The kernels by Triton's interpreter, on a CPU, against PyTorch's own operations.

    TRITON_INTERPRET=1 pytest tests/interpreted_kernels.py

`tests/test_kernels.py` runs this file in a process of its own, as the variable must be set before Triton is imported.
"""

import os
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fused_cases import Case, difference
from triton.runtime import interpreter

from crl import fused, kernels, residual
from crl.fused import Plan
from crl.residual import EPSILON, Memory, Settings, Weights

assert os.environ.get("TRITON_INTERPRET") == "1", "set TRITON_INTERPRET=1"

WAYS = pytest.mark.parametrize("plan", [Plan(), Plan(stacked=False)], ids=["stacked", "layer by layer"])
HALVED = Settings(scale=0.5)
RECOMPUTED = Settings(scale=0.5, recompute=True)
CASES = {
    "one tile": Case(rows=16, width=32, depth=4),
    "one and a bit": Case(rows=21, width=16, depth=4, settings=HALVED),
    "wide": Case(rows=5, width=128, depth=4),
    "several chunks": Case(rows=3, width=16, depth=16),
    "recomputed": Case(rows=3, width=16, depth=16, settings=RECOMPUTED),
}


def close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 2e-6) -> bool:
    return bool((actual - expected).norm() <= tolerance * expected.norm())


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little of everything, and still several chunks, several steps of a product, several tiles of a program."""
    monkeypatch.setattr(fused, "CHUNK", 12)
    monkeypatch.setattr(kernels, "tiling", lambda *_: kernels.Tiling(16, 2, 4))
    monkeypatch.setattr(kernels, "MOST_PROGRAMS", 2)


@pytest.fixture(autouse=True)
def bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of bf16: the interpreter would multiply their bits as integers, and PyTorch has no float32 sums here."""
    create_dot, product = interpreter.InterpreterBuilder.create_dot, fused.product

    def dot(self: Any, left: Any, right: Any, *more: Any) -> Any:
        return create_dot(self, *(widened(x) if x.dtype.scalar.is_bf16() else x for x in (left, right)), *more)

    def widened(x: Any) -> Any:
        return interpreter.TensorHandle((x.data.astype(np.uint32) << 16).view(np.float32), interpreter.tl.float32)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", dot)
    monkeypatch.setattr(fused, "product", lambda x, y, out: product(x.float(), y.float(), out))


@WAYS
@pytest.mark.parametrize("name", CASES)
def test_gradients(name: str, plan: Plan) -> None:
    case = CASES[name]
    assert difference(case.fused(plan), case.plain()) < 2e-6


@WAYS
def test_bfloat16_has_the_same_gradients_about(plan: Plan) -> None:
    case = CASES["one and a bit"]
    found = difference(case.fused(plan._replace(kind=torch.bfloat16)), case.plain())
    assert 1e-4 < found < 0.03


@WAYS
def test_nothing_is_kept_where_no_gradients_are_asked(plan: Plan) -> None:
    case = CASES["several chunks"]
    x, weights = case.ends()[0], case.weights()
    with torch.no_grad():
        actual = fused.network(x, weights, Memory(), HALVED, None, plan)
        assert close(actual, residual.plain(x, weights, HALVED))


def test_passes_may_be_interleaved_and_repeated() -> None:
    case, memory = CASES["recomputed"], Memory()
    weights = Weights(*(w.requires_grad_() for w in case.weights()))
    ends = [case.ends(seed) for seed in range(2)]
    outs = [fused.network(x, weights, memory, case.settings, None, Plan()) for x, _ in ends]
    expected = [torch.autograd.grad((residual.plain(x, weights, HALVED) * up).sum(), weights) for x, up in ends]
    for _ in range(2):
        for out, (_, up), gradients in zip(outs, ends, expected, strict=True):
            actual = torch.autograd.grad((out * up).sum(), weights, retain_graph=True)
            assert all(map(close, actual, gradients))


@WAYS
def test_fixed_weights_pass_the_gradient_on_and_get_none(plan: Plan) -> None:
    case = CASES["several chunks"]
    (x, upstream), weights = case.ends(), case.weights()
    out = fused.network(x.requires_grad_(), weights, Memory(), case.settings, None, plan)
    (actual,) = torch.autograd.grad((out * upstream).sum(), x)
    (expected,) = torch.autograd.grad((residual.plain(x, weights, case.settings) * upstream).sum(), x)
    assert close(actual, expected)


def test_blocks_tell_their_norms() -> None:
    case = CASES["recomputed"]
    found: list[torch.Tensor] = []
    expected: list[torch.Tensor] = []
    fused.network(case.ends()[0], case.weights(), Memory(), case.settings, found, Plan())
    residual.plain(case.ends()[0], case.weights(), HALVED, expected)
    assert all(map(close, found, expected))


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_one_layer(kind: torch.dtype) -> None:
    """Skip + 0.5 swish(LayerNorm(dense)), of more tiles than there are programs, and the sums over rows."""
    rows, width = 5 * 64 + 3, 16
    generator = torch.Generator().manual_seed(0)
    dense, skip, gradient = (torch.randn(rows, width, generator=generator) for _ in range(3))
    weight, bias = (torch.randn(width, generator=generator).requires_grad_() for _ in range(2))
    dense = dense.to(kind)
    wide = dense.float().requires_grad_()
    expected = skip + 0.5 * F.silu(F.layer_norm(wide, (width,), weight, bias, EPSILON))
    (expected * gradient).sum().backward()

    out, d_dense = torch.empty_like(skip), torch.empty_like(dense)
    kernels.layer_forward(dense, (weight, bias), out, skip, 0.5)
    assert close(out, expected)
    programs = kernels.layer_programs(rows, width)
    sums = torch.full((3, programs, width), torch.nan)
    kernels.layer_backward(gradient, dense, (weight, bias), d_dense, sums, 0.5)
    assert programs == 2
    assert close(d_dense.float(), wide.grad, 1e-6 if kind == torch.float32 else 1e-2)
    for found, parts in zip(sums.sum(1), (wide.grad.sum(0), weight.grad, bias.grad), strict=True):
        assert close(found, parts)
