"""Every way of computing an update's losses and gradients gives the same, on inputs that are new in every run.

Against float64 in PyTorch's own operations: two encoders, the critic's loss, the gradients of all their weights. The
tolerances are in TOLERANCES; CRL_EQUALITY_SEED repeats a run.
"""

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from recorded_calls import record
from torch import Tensor

from crl import losses
from crl.compiled import compiled
from crl.errors import ConfigError
from crl.graphs import WARM_UP, Captured
from crl.networks import ResidualMLP
from crl.residual import plain

SEED = int(os.environ.get("CRL_EQUALITY_SEED") or int.from_bytes(os.urandom(4)))
SIZES = {"rows": 24, "observation": 9, "goal": 3, "width": 32, "representation": 8}
DEPTHS = [4, 16, pytest.param(64, marks=pytest.mark.slow), pytest.param(256, marks=pytest.mark.slow)]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
TOLERANCES = {"float32": (2e-6, 1e-5), "tf32": (1e-2, 0.05), "bf16": (0.03, 0.2)}
"""Relative errors of the loss, and of the 2-norm of each parameter's gradient."""

Encoders = tuple[ResidualMLP, ResidualMLP]
Result = dict[str, Tensor]


def inputs(device: str, number: int = 0) -> tuple[Tensor, Tensor]:
    """Rows of phi and of psi."""
    generator = torch.Generator().manual_seed(SEED + number)
    shapes = (SIZES["rows"], SIZES["observation"]), (SIZES["rows"], SIZES["goal"])
    phi, psi = (torch.randn(shape, generator=generator).to(device) for shape in shapes)
    return phi, psi


def encoders(depth: int, device: str, **options: Any) -> Encoders:
    """phi and psi, of the same weights whatever the options, with biases and norms away from where they start."""
    generator = torch.Generator().manual_seed(SEED)
    sizes = SIZES["representation"], SIZES["width"], depth
    pair = tuple(ResidualMLP(SIZES[n], *sizes, generator=generator, **options) for n in ("observation", "goal"))
    with torch.no_grad():
        for network in pair:
            for name, parameter in network.named_parameters():
                if "bias" in name or "norm" in name:
                    parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return tuple(network.to(device) for network in pair)  # type: ignore[return-value]


def forget(networks: Encoders) -> None:
    for network in networks:
        network.recycle_gradients()


def critic(phi: Tensor, psi: Tensor) -> Tensor:
    logits = losses.pairwise_energy(phi, psi)
    return losses.contrastive_loss(logits) + 0.1 * losses.logsumexp_penalty(logits)


def gradients(networks: Encoders) -> Result:
    return {
        f"{which}.{name}": parameter.grad.clone()
        for which, network in zip(("phi", "psi"), networks, strict=True)
        for name, parameter in network.named_parameters()
    }


def passes(networks: Encoders, rows: tuple[Tensor, ...], precision: str = "float32") -> Result:
    """The loss and all gradients, as the learner computes them."""
    forget(networks)
    with torch.autocast(rows[0].device.type, torch.bfloat16, enabled=precision == "bf16"):
        phi, psi = (network(x) for network, x in zip(networks, rows, strict=True))
    loss = critic(phi.float(), psi.float())
    loss.backward()
    return {"loss": loss.detach(), **gradients(networks)}


def exact(depth: int, rows: tuple[Tensor, ...]) -> Result:
    """The same in float64, in PyTorch's own operations."""
    networks = tuple(network.double() for network in encoders(depth, "cpu"))
    loss = critic(*(plain(x.double().cpu(), n.weights) for n, x in zip(networks, rows, strict=True)))
    loss.backward()
    return {"loss": loss.detach(), **gradients(networks)}  # type: ignore[arg-type]


def errors(found: Result, expected: Result) -> dict[str, float]:
    """Relative error of each, by 2-norms."""
    assert found.keys() == expected.keys()
    return {name: float((found[name].cpu().double() - value).norm() / value.norm()) for name, value in expected.items()}


def check(found: Result, expected: Result, precision: str = "float32") -> None:
    for_loss, for_gradients = TOLERANCES[precision]
    wrong = errors(found, expected)
    loss = wrong.pop("loss")
    worst = max(wrong, key=lambda name: wrong[name])
    told = f"CRL_EQUALITY_SEED={SEED}: the loss is off by {loss:.1e}, the gradient of {worst} by {wrong[worst]:.1e}"
    assert loss <= for_loss, told
    assert wrong[worst] <= for_gradients, told


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("options", [{}, {"recompute": True}], ids=["written-out", "recomputed"])
def test_written_out_passes(depth: int, device: str, options: dict[str, bool]) -> None:
    networks = encoders(depth, device, **options)
    for network in networks:
        network.settings = network.settings._replace(kernels=False)
    for number in range(2):  # the second finds the memory of the first
        rows = inputs(device, number)
        check(passes(networks, rows), exact(depth, rows))


@pytest.mark.gpu
@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("options", [{}, {"recompute": True}], ids=["kept", "recomputed"])
def test_kernels(depth: int, options: dict[str, bool]) -> None:
    networks = encoders(depth, "cuda", **options)
    for number in range(2):
        rows = inputs("cuda", number)
        check(passes(networks, rows), exact(depth, rows))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("options", [{}, {"recompute": True}], ids=["kept", "recomputed"])
def test_bf16(depth: int, device: str, options: dict[str, bool]) -> None:
    rows = inputs(device)
    check(passes(encoders(depth, device, **options), rows, "bf16"), exact(depth, rows), "bf16")


@pytest.mark.gpu
@pytest.mark.parametrize("depth", DEPTHS)
def test_tf32(depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32")
    rows = inputs("cuda")
    check(passes(encoders(depth, "cuda"), rows), exact(depth, rows), "tf32")


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_graphed(depth: int, device: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if device == "cpu":
        record(monkeypatch)
    networks, captured = encoders(depth, device), Captured("tests", torch.device(device))

    def step(*rows: Tensor) -> dict[str, Tensor]:
        return {"loss": passes(networks, rows, precision)["loss"]}

    for number in range(WARM_UP + 2):
        rows = inputs(device, number)
        found = captured(step, *rows)
        if number >= WARM_UP:
            check({**found, **gradients(networks)}, exact(depth, rows), precision)


# PyTorch's compiler looks at the gradients of whatever it is given.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("depth", [4, 64, 256])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("options", [{}, {"recompute": True}], ids=["kept", "recomputed"])
def test_compiled(depth: int, device: str, precision: str, options: dict[str, bool]) -> None:
    rows = inputs(device)
    check(passes(encoders(depth, device, compile=True, **options), rows, precision), exact(depth, rows), precision)


@pytest.mark.parametrize("options", [{}, {"recompute": True}], ids=["kept", "recomputed"])
def test_a_block_that_learns_is_what_is_compiled(options: dict[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*arguments: Any) -> Tensor:
            calls.append(function)
            return function(*arguments)

        return call

    monkeypatch.setattr("crl.residual.compiled", compiled)
    networks, rows = encoders(16, "cpu", compile=True, **options), inputs("cpu")
    with torch.no_grad():
        acted = networks[0](rows[0])
    assert not calls
    torch.testing.assert_close(acted, encoders(16, "cpu")[0](rows[0]).detach())
    check(passes(networks, rows), exact(16, rows))
    assert len(calls) == 2 * 16 // 4 * (1 + options.get("recompute", 0))
    assert len(set(calls)) == 1


def test_what_cannot_be_compiled_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(*arguments: Any) -> Tensor:
        raise type("BackendCompilerFailed", (RuntimeError,), {"__module__": "torch._dynamo.exc"})("no C++\nand more")

    def wrong_shapes(*arguments: Any) -> Tensor:
        raise RuntimeError("shapes")

    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    with pytest.raises(ConfigError, match=r"compile: PyTorch cannot compile here \(no C\+\+\): leave it out"):
        compiled(no_compiler)(torch.ones(1))
    with pytest.raises(RuntimeError, match="shapes"):
        compiled(wrong_shapes)(torch.ones(1))
