"""Batches of a `TrajectoryBuffer` as torch tensors, sampled ahead in a background thread.

For a GPU, rows go from the buffer straight into pinned host memory, from there by an asynchronous copy on a stream of
its own, and the consumer's stream waits for that copy alone: neither Python nor the device waits for the other.
"""

import queue
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import torch

    from crl.batch import Batch, Plan

    Tensors: TypeAlias = Batch[torch.Tensor]

_ENDLESS = 2**40
"""Batches of an iteration that names no number: of the 2**64 there are, reserved and given back."""


class Loader:
    """Yields `Batch`es of tensors on one device, in the order and with the content that `sample` calls would give.

    Made by `TrajectoryBuffer.loader`. Iterating yields `num_batches` batches, or batches for ever; `take(n)` yields n,
    and may be called again and again: one loader, with its pinned memory, serves a whole training run.

    The numbers of an iteration's batches are reserved when it is made, and those not delivered are given back when
    it ends early, if nobody has taken later ones: what is sampled next never depends on how far the thread had run
    ahead. So while nobody writes, batches are those of `sample`, bit for bit.

    Args:
        device: "cpu", "cuda" or any torch device. Tensors are the consumer's own: nothing refills them.
        prefetch: batches that may wait ready. 0 samples in the consumer's thread.

    A loader runs one iteration at a time: a new one ends the one before. Errors of the thread are raised where the
    batch was expected. `close()`, the end of a `with` block, or leaving the loop stops the thread.
    """

    def __init__(
        self,
        plan: "Plan",
        batch_size: int,
        device: Any,
        prefetch: int,
        num_batches: int | None,
    ) -> None:
        try:
            import torch
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            raise ImportError('TrajectoryBuffer.loader needs torch: pip install "crl[train]"') from None
        for name, value, least in (("batch_size", batch_size, 1), ("prefetch", prefetch, 0)):
            _at_least(name, value, least)
        if num_batches is not None:
            _at_least("num_batches", num_batches, 0)
        self.device = torch.device(device)
        self.num_batches = num_batches
        self._batch_size = batch_size
        self._plan = plan
        self._prefetch = prefetch
        self._running: weakref.ref[Generator[Tensors]] | None = None
        self._closed = False
        self._stage: _Stage = _PinnedStage(self, max(prefetch, 1)) if self.device.type == "cuda" else _HostStage(self)

    def __iter__(self) -> "Iterator[Tensors]":
        return self.take(_ENDLESS if self.num_batches is None else self.num_batches)

    def take(self, num_batches: int) -> "Iterator[Tensors]":
        """The next `num_batches` batches. Ends the iteration before."""
        _at_least("num_batches", num_batches, 0)
        if self._closed:
            raise RuntimeError("this loader is closed; make another one")
        self._stop()
        first = self._plan.core.reserve(num_batches)
        running = self._deliver(first, first + num_batches)
        self._running = weakref.ref(running)
        return running

    def _deliver(self, first: int, end: int) -> "Generator[Tensors]":
        unused = first
        send = self._stage.send
        source = self._prefetched(first, end) if self._prefetch else map(send, range(first, end))
        try:
            for receive in source:
                unused += 1
                yield receive()
        finally:
            if isinstance(source, Generator):
                source.close()
            self._plan.core.give_back(unused, end)

    def _prefetched(self, first: int, end: int) -> "Generator[Callable[[], Tensors]]":
        ready: queue.SimpleQueue[Callable[[], Tensors] | BaseException | None] = queue.SimpleQueue()
        room = threading.Semaphore(self._prefetch)
        stopped = threading.Event()

        def produce() -> None:
            try:
                for number in range(first, end):
                    room.acquire()
                    if stopped.is_set():
                        return
                    ready.put(self._stage.send(number))
                ready.put(None)
            except BaseException as error:  # The consumer raises it, whatever it is.
                ready.put(error)

        thread = threading.Thread(target=produce, name="crl-loader", daemon=True)
        thread.start()
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                room.release()
                yield item
        finally:
            stopped.set()
            room.release()
            thread.join()

    def _stop(self) -> None:
        running = None if self._running is None else self._running()
        if running is not None:
            running.close()
        self._running = None

    def close(self) -> None:
        """Stops the thread and frees the pinned memory. Closing twice does nothing."""
        self._closed = True
        self._stop()
        self._stage.free()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _HostStage:
    """Fresh host tensors for each batch."""

    def __init__(self, loader: Loader) -> None:
        import torch

        self._plan, self._lead = loader._plan, (loader._batch_size,)
        self._device = loader.device
        self._tensor = torch.from_numpy

    def send(self, number: int) -> "Callable[[], Tensors]":
        """Samples batch `number`; the result is called by the consumer, in its own thread."""
        batch = self._plan.fill(self._lead, None, number)
        tensors = [self._tensor(array).to(self._device) for _, array in batch.items()]
        return lambda: self._plan.batch(tensors)

    def free(self) -> None:
        """Nothing is kept."""


class _PinnedStage:
    """A ring of pinned host memory, and a stream that copies from it to the device."""

    def __init__(self, loader: Loader, slots: int) -> None:
        import torch

        self._cuda = torch.cuda
        self._device = loader.device
        self._plan, self._lead = loader._plan, (loader._batch_size,)
        self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        like = [torch.from_numpy(np.empty((*self._lead, *shape), dtype)) for _, dtype, shape in self._plan.columns]
        self._ring = [[torch.empty_like(tensor, pin_memory=True) for tensor in like] for _ in range(slots)]
        self._arrays = [self._plan.batch([tensor.numpy() for tensor in pinned]) for pinned in self._ring]
        self._copied: list[torch.cuda.Event | None] = [None] * slots
        self._next = 0

    def send(self, number: int) -> "Callable[[], Tensors]":
        """Samples batch `number` and starts its copy; the result makes the consumer's stream wait for it."""
        slot, self._next = self._next, (self._next + 1) % len(self._ring)
        if (copied := self._copied[slot]) is not None:
            copied.synchronize()  # The copy of the slot's last batch must have left it.
        self._plan.fill(self._lead, self._arrays[slot], number)
        with self._cuda.stream(self._stream):
            tensors = [pinned.to(self._device, non_blocking=True) for pinned in self._ring[slot]]
            event = self._copied[slot] = self._cuda.Event()  # type: ignore[no-untyped-call]
            event.record(self._stream)

        def receive() -> "Tensors":
            consumer = self._cuda.current_stream(self._device)
            consumer.wait_event(event)
            for tensor in tensors:
                # Allocated on the side stream: its memory must not be reused there while the consumer reads it.
                tensor.record_stream(consumer)
            return self._plan.batch(tensors)

        return receive

    def free(self) -> None:
        """Lets the pinned memory go once its copies are done."""
        self._stream.synchronize()
        self._ring, self._arrays = [], []


_Stage: TypeAlias = _HostStage | _PinnedStage


def _at_least(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: expected an integer; got {value!r}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least}; got {value}")
