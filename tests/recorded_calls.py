"""CUDA graphs without CUDA: what a call does to tensors, recorded and done again on the same memory."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from crl import graphs, native

WAITING = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal", "aten::is_nonzero")
"""Operations that make the host wait for the value of a device tensor."""


def record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let whatever is captured be recorded here, by PyTorch's operations alone: it sees no others, nor would a GPU."""
    monkeypatch.setattr(graphs, "backend", lambda device: Recorder())
    monkeypatch.setattr(native, "serves", lambda tensor: False)


class Recorder:
    """A `crl.graphs.Backend` for one thread of a CPU. As on a GPU, capturing computes nothing that lasts."""

    def __init__(self) -> None:
        self.captures = 0

    def warm_up(self, call: Callable[[], Any]) -> Any:
        return call()

    def capture(self, call: Callable[[], Tensor], generators: Iterable[torch.Generator]) -> "Recorded":
        self.captures += 1
        generators = tuple(generators)
        states = [generator.get_state() for generator in generators]
        recorded = Recorded(generators)
        try:
            with recorded:
                recorded.output = call()
        finally:
            recorded.undo()
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)
        recorded.output.fill_(torch.nan)  # nothing was computed yet
        return recorded


class Recorded(TorchDispatchMode):
    """Records the operations of a call, then makes them again: same tensors in, same tensors out."""

    output: Tensor

    def __init__(self, generators: Iterable[torch.Generator]) -> None:
        super().__init__()
        self._generators = generators
        self._operations: list[tuple[Any, Any, Any, Any]] = []
        self._before: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._schema.name in WAITING:
            raise RuntimeError(f"operation not permitted when recording: {func} waits for the device")
        source = kwargs.get("generator")
        known = source is not None and source._cdata in {generator._cdata for generator in self._generators}
        if torch.Tag.nondeterministic_seeded in func.tags and not known:
            raise RuntimeError(f"{func} draws from a generator that is not registered")
        given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
        for argument in func._schema.arguments:
            if argument.is_write or (argument.alias_info and argument.alias_info.is_write):
                self._before += [
                    (t, t.detach().clone()) for t in tree_leaves(given.get(argument.name)) if t is not None
                ]
        result = func(*args, **kwargs)
        self._operations.append((func, args, kwargs, result))
        return result

    @torch.no_grad()
    def undo(self) -> None:
        for tensor, before in reversed(self._before):
            tensor.copy_(before)
        self._before.clear()

    @torch.no_grad()
    def __call__(self) -> None:
        for func, args, kwargs, result in self._operations:
            schema = func._schema
            if not schema.is_mutable and any(returned.alias_info for returned in schema.returns):
                continue  # a view of what it was a view of
            again = func(*args, **kwargs)
            if not schema.is_mutable:
                for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                    if old is not None:
                        old.copy_(new)
