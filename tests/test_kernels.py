"""The kernels for GPUs: their logic by Triton's interpreter, whether they compile, whether a GPU gets them right."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from crl.networks import ResidualMLP
from crl.residual import DEFAULTS, Memory, Settings, Weights

pytest.importorskip("triton", reason="the kernels are written in Triton")

from fused_cases import Case, difference
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from crl import fused, kernels, residual
from crl.fused import Plan

MULTIPROCESSORS = 132


@contextmanager
def products_in(precision: str) -> Iterator[None]:
    """Those of float32 matrices on a GPU, here a setting of the process."""
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = precision
    try:
        yield
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


def test_by_the_interpreter() -> None:
    """tests/interpreted_kernels.py, in a process whose Triton interprets."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/interpreted_kernels.py"]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[1]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr


# When they serve


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What `plan` asks of a GPU."""
    found = SimpleNamespace(multi_processor_count=MULTIPROCESSORS, capability=(9, 0), autocast=None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: found)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: found.capability)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: found.autocast is not None)
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda device: found.autocast)
    return found


def plan(rows: int = 512, width: int = 256, settings: Settings = DEFAULTS, **changes: Any) -> Plan | None:
    x = {"is_cuda": True, "ndim": 2, "shape": (rows, 7), "dtype": torch.float32, "device": "cuda", **changes}
    weights = ResidualMLP(7, 5, 4, 4).weights._replace(weight=torch.empty(4, width, width, device="meta"))
    return fused.plan(SimpleNamespace(**x), weights, settings)  # type: ignore[arg-type]


def test_they_serve_where_they_can(gpu: SimpleNamespace) -> None:
    assert plan() == Plan(torch.float32, "ieee", stacked=False)
    assert plan(is_cuda=False) is None
    assert plan(ndim=3, shape=(2, 3, 7)) is None
    assert plan(rows=0) is None
    assert plan(width=192) is None
    assert plan(width=8) is None
    assert plan(dtype=torch.float64) is None
    assert plan(settings=Settings(kernels=False)) is None
    gpu.capability = (7, 5)
    assert plan() is None


def test_a_stack_is_one_kernel_while_each_multiprocessor_has_but_one_tile_of_rows(gpu: SimpleNamespace) -> None:
    most = kernels.ROWS * MULTIPROCESSORS
    assert [plan(rows, 128).stacked for rows in (1, most, most + 1)] == [True, True, False]
    assert [plan(width=width).stacked for width in (16, 128, 256)] == [True, True, False]
    gpu.autocast = torch.bfloat16
    assert [plan(width=width).stacked for width in (16, 512, 1024)] == [True, True, False]


def test_precision_is_that_of_the_process(gpu: SimpleNamespace) -> None:
    with products_in("tf32"):
        assert plan() == Plan(torch.float32, "tf32", True)
    gpu.autocast = torch.bfloat16
    assert plan() == Plan(torch.bfloat16, "ieee", True)
    gpu.autocast = torch.float16
    assert plan() is None


@pytest.mark.parametrize(("value", "there"), [(None, True), ("1", True), ("0", False)])
def test_an_environment_variable_leaves_them_out(
    value: str | None, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CRL_KERNELS", raising=False)
    if value is not None:
        monkeypatch.setenv("CRL_KERNELS", value)
    assert residual._fused.__wrapped__() is (fused if there else None)


# Whether they compile, which needs no GPU


SHARED = {80: 166_912, 89: 101_376, 90: 232_448, 120: 101_376}
"""Bytes that a program may have, by compute capability."""


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "width"), [(90, 16), (90, 256), (90, 512), (80, 512), (89, 512), (120, 512)])
@pytest.mark.parametrize(("kind", "precision"), [("fp32", "ieee"), ("fp32", "tf32"), ("bf16", "ieee")])
def test_they_compile_and_fit(architecture: int, width: int, kind: str, precision: str) -> None:
    shared = SHARED[architecture]
    tiling = kernels.tiling(width, torch.bfloat16 if kind == "bf16" else torch.float32, shared)
    stack = {"TILE": kernels.ROWS, "STEP": tiling.step, "PRECISION": precision}
    layer = {"TILE": kernels._layer_tile(width)}
    short = dict.fromkeys(("weight", "inputs", "dense", "d_dense"), f"*{kind}")
    numbers = {**dict.fromkeys(("num_rows", "num_blocks", "partial_stride"), "i32"), "scale": "fp32"}
    for kernel, constants in (
        (kernels._stack_forward, stack),
        (kernels._stack_backward, {**stack, "LEARN": True}),
        (kernels._layer_forward, {**layer, "ADD": True}),
        (kernels._layer_backward, {**layer, "LEARN": True}),
    ):
        constants = {"WIDTH": width, **constants}
        types = {
            **dict.fromkeys(kernel.arg_names, "*fp32"),
            **short,
            **numbers,
            **dict.fromkeys(constants, "constexpr"),
        }
        signature = {name: types[name] for name in kernel.arg_names}
        options: dict[str, Any] = {"enable_fp_fusion": True}
        if kernel in (kernels._stack_forward, kernels._stack_backward):
            options |= {"num_stages": tiling.stages, "num_warps": tiling.warps}
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
        compiled = compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
        assert compiled.metadata.shared <= shared, kernel


# On a GPU

PRECISIONS = {
    "float32": (Plan(), 1e-5),
    "tf32": (Plan(precision="tf32"), 5e-3),
    "bf16": (Plan(torch.bfloat16), 2e-2),
}
"""And how far the output and all gradients may be from those in float64, as 2-norms: several times what the same
arithmetic, imitated on a CPU, is off at these depths (8e-7, 1.5e-3, 1e-2)."""
SETTINGS = {"all": DEFAULTS, "recomputed": Settings(recompute=True), "scaled": Settings(scale=0.25)}


@pytest.fixture
def precision(request: pytest.FixtureRequest) -> Iterator[tuple[Plan, float]]:
    """The plan of a precision, and its tolerance; the library's products have it too."""
    found, tolerance = PRECISIONS[request.param]
    with products_in(found.precision):
        yield found, tolerance


PRECISION = pytest.mark.parametrize("precision", PRECISIONS, indirect=True)
WAYS = pytest.mark.parametrize("stacked", [True, False], ids=["stacked", "layer by layer"])


@pytest.mark.gpu
@WAYS
@PRECISION
@pytest.mark.parametrize("depth", [4, 64, 256])
@pytest.mark.parametrize("settings", SETTINGS)
def test_gradients_on_a_gpu(settings: str, depth: int, precision: tuple[Plan, float], stacked: bool) -> None:
    plan, tolerance = precision
    case = Case(rows=500, width=256, depth=depth, settings=SETTINGS[settings], device="cuda")
    assert difference(case.fused(plan._replace(stacked=stacked)), case.plain()) < tolerance


@pytest.mark.gpu
@PRECISION
@pytest.mark.parametrize("width", [16, 32, 64, 128, 256, 512, 1024])
def test_widths_on_a_gpu(width: int, precision: tuple[Plan, float]) -> None:
    plan, tolerance = precision
    case = Case(rows=70, width=width, depth=8, device="cuda")
    plan = plan._replace(stacked=width <= 512)
    assert difference(case.fused(plan), case.plain()) < tolerance


@pytest.mark.gpu
@WAYS
@PRECISION
@pytest.mark.parametrize("depth", [4, 64, 256])
def test_a_captured_pass_repeats_itself_bit_for_bit(depth: int, precision: tuple[Plan, float], stacked: bool) -> None:
    """Forward and backward in one CUDA graph, replayed on other inputs than it was captured with."""
    plan = precision[0]._replace(stacked=stacked)
    case, memory = Case(rows=100, width=128, depth=depth, device="cuda"), Memory()
    weights = Weights(*(w.requires_grad_() for w in case.weights()))
    ends = [end.clone() for end in case.ends()]

    def passes() -> list[torch.Tensor]:
        x, upstream = ends
        out = fused.network(x, weights, memory, DEFAULTS, None, plan)
        return [out.detach(), *torch.autograd.grad((out * upstream).sum(), weights)]

    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        passes()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = passes()
    for seed in (1, 2):
        for end, value in zip(ends, case.ends(seed), strict=True):
            end.copy_(value)
        graph.replay()
        assert all(map(torch.equal, captured, passes()))


@pytest.mark.gpu
@PRECISION
def test_acting_is_the_forward_pass(precision: tuple[Plan, float]) -> None:
    plan, _ = precision
    case = Case(rows=100, width=128, depth=64, device="cuda")
    x, weights = case.ends()[0], case.weights()
    learning = fused.network(x, weights, Memory(), DEFAULTS, None, plan)
    with torch.no_grad():
        assert torch.equal(fused.network(x, weights, Memory(), DEFAULTS, None, plan), learning)


@pytest.mark.gpu
def test_a_network_on_a_gpu_uses_them(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    forward = fused._forward
    monkeypatch.setattr(fused, "_forward", lambda *arguments: used.append(arguments[-1]) or forward(*arguments))
    network, x = ResidualMLP(7, 5, 64, 4).cuda(), torch.randn(20, 7, device="cuda")
    network(x).sum().backward()
    with torch.autocast("cuda", torch.bfloat16):
        network(x).sum().backward()
    assert [plan.kind for plan in used] == [torch.float32, torch.bfloat16]
    assert {p.grad.dtype for p in network.parameters()} == {torch.float32}
