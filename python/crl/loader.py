"""Batches of a `TrajectoryBuffer` as tensors, or arrays, sampled ahead in the background.

A thread that does not need the interpreter fills a ring of host memory, in one call into Rust for all batches. For a
GPU that memory is pinned; from there rows go by asynchronous copies on a stream of their own, started ahead, and the
consumer's stream waits for the copy that it needs alone: neither Python nor the device waits for the other.
"""

import atexit
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias

from crl import _core
from crl.arguments import integer
from crl.batch import Array, Batch
from crl.sampling import Plan

if TYPE_CHECKING:
    import torch

_ENDLESS = 2**40
"""Batches of an iteration that names no number: of the 2**64 there are, reserved and given back."""


class Loader:
    """Yields `Batch`es of tensors on one device, in the order and with the content that `sample` calls would give.

    Made by `TrajectoryBuffer.loader`. Iterating yields `num_batches` batches, or batches for ever; `take(n)` yields n,
    and may be called again and again: one loader, with its pinned memory, serves a whole training run.

    The numbers of an iteration's batches are reserved when it is made, and those not delivered are given back when
    it ends early, if nobody has taken later ones: what is sampled next never depends on how far the thread had run
    ahead. So while nobody writes, batches are those of `sample`, bit for bit. While somebody writes, a batch holds
    rows that were stored when it was filled, up to `prefetch` batches before it is delivered.

    Args:
        device: "cpu", "cuda" or any torch device; None for NumPy arrays, without torch. Whatever is yielded is the
            consumer's own: nothing refills it.
        prefetch: batches filled ahead. 0 samples in the consumer's thread.

    A loader runs one iteration at a time: a new one ends the one before. Errors of the thread are raised, as they are,
    where the batch was expected, after all batches before it. Leaving the loop, an exception in its body, `close()` or
    the end of a `with` block, the end of the iterator's life and the interpreter's exit all stop the thread. In a
    forked child an iteration of the parent raises RuntimeError; one that is begun there works.
    """

    def __init__(self, plan: Plan, batch_size: int, device: Any, prefetch: int, num_batches: int | None) -> None:
        self.num_batches = None if num_batches is None else integer("num_batches", num_batches, 0)
        self._plan = plan
        self._batch_size = integer("batch_size", batch_size, 1)
        self._prefetch = integer("prefetch", prefetch, 0)
        self.device = None if device is None else _torch().device(device)
        self._running: weakref.ref[Generator[Batch[Any]]] | None = None
        self._closed = False
        cuda = self.device is not None and self.device.type == "cuda"
        self._stage: _Stage = (_PinnedStage if cuda else _HostStage)(
            plan, (self._batch_size,), self.device, self._prefetch
        )

    def __iter__(self) -> Iterator[Batch[Any]]:
        return self.take(_ENDLESS if self.num_batches is None else self.num_batches)

    def take(self, num_batches: int) -> Iterator[Batch[Any]]:
        """The next `num_batches` batches. Ends the iteration before."""
        num_batches = integer("num_batches", num_batches, 0)
        if self._closed:
            raise RuntimeError("this loader is closed; make another one")
        self._stop()
        first = self._plan.core.reserve(num_batches)
        running = self._deliver(first, first + num_batches)
        self._running = weakref.ref(running)
        return running

    def _deliver(self, first: int, end: int) -> Generator[Batch[Any]]:
        unused = first
        source = self._prefetched(first, end) if self._prefetch else map(self._stage.sample, range(first, end))
        try:
            for receive in source:
                unused += 1
                yield receive()
        finally:
            if isinstance(source, Generator):
                source.close()
            self._plan.core.give_back(unused, end)

    def _prefetched(self, first: int, end: int) -> Generator["_Receive"]:
        stage, slots = self._stage, self._prefetch
        turns = _core.Prefetch(slots)
        failure: list[BaseException] = []
        thread = _filler(self._plan, self._batch_size, turns, (first, end), stage.slots, failure)

        def stop() -> None:
            turns.stop()
            thread.join()

        thread.start()
        atexit.register(stop)  # A thread that outlives the interpreter could never be waited for.
        sent: deque[_Receive] = deque()
        copies: deque[_Copy] = deque()  # Of the slots that were taken and not given back.

        def give_back() -> None:
            while copies and copies[0].query():
                copies.popleft()
                turns.give_back()

        try:
            while True:
                # What is full is sent on its way early; to wait is worth it only for the batch that is due.
                while len(sent) < stage.ahead and (not sent or turns.is_ready()):
                    if len(copies) == slots:
                        copies[0].synchronize()
                    give_back()
                    if (slot := turns.take()) is None:
                        break
                    receive, copy = stage.send(slot)
                    sent.append(receive)
                    copies.append(copy)
                    give_back()
                if not sent:
                    break
                yield sent.popleft()
            thread.join()
            if failure:
                raise failure[0]
        finally:
            stop()
            atexit.unregister(stop)

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

    def __exit__(self, *error: object) -> None:
        self.close()


def _filler(
    plan: Plan,
    batch_size: int,
    turns: _core.Prefetch,
    numbers: tuple[int, int],
    slots: list[list[Array]],
    failure: list[BaseException],
) -> threading.Thread:
    """The thread that fills; it holds on to nothing of the loader's, so that a forgotten loader can end it."""

    def fill() -> None:
        try:
            plan.core.fill_ahead(turns, plan.request, batch_size, *numbers, slots)
        except BaseException as error:  # The consumer raises it, whatever it is.
            failure.append(error)
            turns.stop()

    return threading.Thread(target=fill, name="crl-loader", daemon=True)


_Receive: TypeAlias = Callable[[], Batch[Any]]
"""Called by the consumer, in its own thread, for a batch that is on its way."""


class _Copy(Protocol):
    """A copy out of a slot: `torch.cuda.Event`, or `_Done`."""

    def query(self) -> bool: ...
    def synchronize(self) -> None: ...


class _Done:
    """A copy that was made at once."""

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        pass


class _Stage(Protocol):
    """Host memory that is filled, and the way from there to the consumer."""

    slots: list[list[Array]]
    ahead: int
    """Batches that may be under way from slots to the consumer."""

    def send(self, slot: int) -> tuple[_Receive, _Copy]:
        """Starts the copy of a slot."""
        ...

    def sample(self, number: int) -> _Receive:
        """Samples batch `number` in this thread, and starts its copy."""
        ...

    def free(self) -> None:
        """Lets the memory go."""
        ...


class _HostStage:
    """Host memory; what is sent is a copy."""

    def __init__(self, plan: Plan, lead: tuple[int, ...], device: "torch.device | None", slots: int) -> None:
        self.slots = [plan.allocate(lead) for _ in range(slots)]
        self.ahead = 1
        self._plan, self._lead, self._device = plan, lead, device

    def send(self, slot: int) -> tuple[_Receive, _Copy]:
        batch = self._own([array.copy() for array in self.slots[slot]])
        return lambda: batch, _Done()

    def sample(self, number: int) -> _Receive:
        arrays = self._plan.allocate(self._lead)
        self._plan.draw(self._lead, arrays, number)
        batch = self._own(arrays)
        return lambda: batch

    def _own(self, arrays: list[Array]) -> Batch[Any]:
        if self._device is None:
            return self._plan.batch(arrays)
        return self._plan.batch([_torch().from_numpy(array).to(self._device) for array in arrays])

    def free(self) -> None:
        self.slots = []


class _PinnedStage:
    """Pinned host memory, and a stream that copies from it to the device."""

    def __init__(self, plan: Plan, lead: tuple[int, ...], device: Any, slots: int) -> None:
        torch = _torch()
        self._cuda, self._device, self._plan, self._lead = torch.cuda, device, plan, lead
        self._stream = torch.cuda.Stream(device)
        like = [torch.from_numpy(array) for array in plan.allocate(lead)]
        self._pinned = [[torch.empty_like(tensor, pin_memory=True) for tensor in like] for _ in range(max(slots, 1))]
        self.slots = [[tensor.numpy() for tensor in pinned] for pinned in self._pinned]
        self.ahead = max(slots, 1)
        self._sampled: _Copy = _Done()

    def send(self, slot: int) -> tuple[_Receive, _Copy]:
        with self._cuda.stream(self._stream):
            tensors = [pinned.to(self._device, non_blocking=True) for pinned in self._pinned[slot]]
            copied = self._cuda.Event()
            copied.record(self._stream)

        def receive() -> Batch[Any]:
            consumer = self._cuda.current_stream(self._device)
            consumer.wait_event(copied)
            for tensor in tensors:
                # Allocated on the side stream: its memory must not be reused there while the consumer reads it.
                tensor.record_stream(consumer)
            return self._plan.batch(tensors)

        return receive, copied

    def sample(self, number: int) -> _Receive:
        self._sampled.synchronize()  # The copy of the batch before must have left the slot.
        self._plan.draw(self._lead, self.slots[0], number)
        receive, self._sampled = self.send(0)
        return receive

    def free(self) -> None:
        self._stream.synchronize()
        self._pinned, self.slots = [], []


def _torch() -> Any:
    try:
        import torch
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(
            'TrajectoryBuffer.loader needs torch for tensors: pip install "crl[train]"; device=None gives arrays'
        ) from None
    return torch
