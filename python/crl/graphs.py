"""Calls captured as CUDA graphs: one launch by the host where a call launches thousands of kernels.

The first `WARM_UP` calls with arguments of some shape are made as they are: libraries and kernels are loaded, and
buffers that outlive a call find their place. The next is captured, which computes nothing, and replayed, as are all
behind it. A replay does on the device what the captured call would have done, with the memory that it would have used.
So what is computed must follow from the arguments, from tensors that are changed in place (weights, moments, counts of
steps) and from registered generators; numbers, branches and lists of the host stay as they were.
"""

import threading
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result", Tensor, dict[str, Tensor])

WARM_UP = 2
"""The second call finds what the first leaves behind, gradients and activations, and so does every later one."""
KEPT = 4
"""Shapes whose graphs are kept, those used last; each has memory of its own."""


class Backend(Protocol):
    """Who captures: `CudaGraphs`, or in tests something that needs no GPU."""

    def warm_up(self, call: Callable[[], Result]) -> Result:
        """The call's result, the call made where it will be captured."""

    def capture(self, call: Callable[[], Tensor], generators: Iterable[torch.Generator]) -> "Replay":
        """The call without its effects: those are of each replay.

        Raises:
            RuntimeError: the call does what cannot be captured, or there is not enough memory.
        """


class Replay(Protocol):
    """A captured call, to be made again."""

    output: Tensor
    """What each replay writes anew."""

    def __call__(self) -> None: ...


class Captured:
    """Calls of one function, on CUDA captured and replayed, elsewhere plain: `captured(function, *arguments)`.

    Results are the caller's own. Arguments are copied into the memory that the graph reads. The function itself is not
    kept, so that its owner, who has this object, is freed as soon as nobody uses it.

    Args:
        name: of the calls, for people.
        device: where they compute.
        wanted: False makes every call plain.
        generators: sources of the function's random numbers, on the device. Replays draw what plain calls would, and
            leave the generators' states where these would.
        lock: held while a replay is launched; the function takes it by itself where it needs it. So who holds it sees
            the weights as they are between calls.
    """

    def __init__(
        self,
        name: str,
        device: torch.device,
        *,
        wanted: bool = True,
        generators: Iterable[torch.Generator] = (),
        lock: AbstractContextManager[Any] | None = None,
    ) -> None:
        self._name, self._generators = name, tuple(generators)
        self._lock = lock or threading.Lock()
        self._backend = backend(device) if wanted else None
        self._seen: dict[Any, int | _Graph] = {}
        """By shapes, the last used last: how many calls there were, then their graph."""

    def __call__(self, function: Callable[..., Result], *arguments: Tensor) -> Result:
        """`function(*arguments)`: a tensor, or a dict of 0-d tensors of one dtype."""
        if self._backend is None:
            return function(*arguments)
        key = tuple((argument.shape, argument.dtype) for argument in arguments)
        graph = self._seen.pop(key, 0)
        if isinstance(graph, int) and graph >= WARM_UP:
            graph = self._capture(self._backend, function, arguments) or 0
        if self._backend is None:
            return function(*arguments)
        self._seen[key] = graph + 1 if isinstance(graph, int) else graph
        if len(self._seen) > KEPT:
            del self._seen[next(iter(self._seen))]
        if isinstance(graph, int):
            return self._backend.warm_up(lambda: function(*arguments))
        with self._lock:
            return graph(arguments)  # type: ignore[return-value]

    def _capture(
        self, backend: Backend, function: Callable[..., Result], arguments: tuple[Tensor, ...]
    ) -> "_Graph | None":
        try:
            return _Graph(backend, function, arguments, self._generators)
        except RuntimeError as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
        self._backend = None
        self._seen.clear()
        warnings.warn(
            f"CUDA graphs are off for {self._name}, which is slower, as it could not be captured: {reason} "
            "(--no-graphs leaves them off from the start)",
            RuntimeWarning,
            stacklevel=3,
        )
        return None


class _Graph:
    """One captured call: the memory of its arguments, and its replay."""

    def __init__(
        self,
        backend: Backend,
        function: Callable[..., Result],
        arguments: tuple[Tensor, ...],
        generators: Iterable[torch.Generator],
    ) -> None:
        self._arguments = [argument.detach().clone() for argument in arguments]
        self._names: list[str] | None = None

        def call() -> Tensor:
            result: Tensor | dict[str, Tensor] = function(*self._arguments)
            if isinstance(result, Tensor):
                return result
            self._names = list(result)
            return torch.stack(list(result.values()))  # one copy hands out all

        self._replay = backend.capture(call, generators)

    def __call__(self, arguments: tuple[Tensor, ...]) -> Tensor | dict[str, Tensor]:
        torch._foreach_copy_(self._arguments, arguments)
        self._replay()
        output = self._replay.output.clone()
        return output if self._names is None else dict(zip(self._names, output.unbind(), strict=True))


def backend(device: torch.device) -> Backend | None:
    """Who captures on `device`; None where calls stay plain."""
    return CudaGraphs(device) if device.type == "cuda" else None


class CudaGraphs:
    """Captures what a thread does on a stream of its own, while other threads go on."""

    _one_at_a_time = threading.Lock()
    """PyTorch captures one graph at a time in a process."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def warm_up(self, call: Callable[[], Result]) -> Result:
        # On the stream of the capture: buffers, libraries' workspaces and autograd's nodes belong to streams.
        outside = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(outside)
        with torch.cuda.stream(self._stream):
            result = call()
        outside.wait_stream(self._stream)
        return result

    def capture(self, call: Callable[[], Tensor], generators: Iterable[torch.Generator]) -> Replay:
        graph = torch.cuda.CUDAGraph()
        for generator in generators:
            graph.register_generator_state(generator)
        # thread_local: other threads may do what a capture must not, such as wait for their actions.
        capturing = torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local")
        with self._one_at_a_time, torch.cuda.device(self._device), capturing:
            output = call()
        return _CudaReplay(graph, output)


class _CudaReplay:
    def __init__(self, graph: torch.cuda.CUDAGraph, output: Tensor) -> None:
        self._graph, self.output = graph, output

    def __call__(self) -> None:
        self._graph.replay()
