"""Several processes, one run: `torch.distributed` behind the methods of `Ranks`.

NCCL carries what lies on GPUs, gloo all else. Beside the collectives a thread of each rank beats in a key-value store
and listens there: to a rank that says why it failed, and to one that fell silent. So a rank that dies is named, and
nobody waits for it, be it in a collective that cannot be interrupted.
"""

import functools
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, Store  # torch.distributed's own, which it does not export to types
from torch.distributed.rendezvous import rendezvous

from crl.errors import CheckpointError, ConfigError, RankError
from crl.ranks import Ranks

JOINED_WITHIN = timedelta(minutes=5)
DONE_WITHIN = timedelta(minutes=10)
"""How long a rank may keep others waiting: longer than an evaluation or a checkpoint may take one more than another."""
BEAT = 0.5
"""Seconds between heartbeats."""
SILENT_BEATS = 4
"""Beats missed by a rank that is the one that ended, once a connection is broken."""
DEAD_BEATS = 240
"""Beats missed by a rank that has ended though no connection broke: a machine gone. Long, as a library may hold the
interpreter for a while."""
GRACE = 10.0
"""Seconds for this rank to come to its next collective, and end there, once another has failed."""
BUCKET = 2**24
"""Elements of a buffer in which small tensors are averaged together: 64 MB."""

_TOLD = {kind.__name__: kind for kind in (ConfigError, CheckpointError, OSError)}
"""Errors that are of the run rather than of a rank."""
_groups = itertools.count()


class Group(Ranks):
    """One of the processes that torchrun started.

    Args:
        stop: set when another rank has failed.

    Raises:
        ConfigError: torchrun's environment variables are there in part only.
        RankError: the others cannot be reached. From every method: another rank failed; it says which, and why.
    """

    def __init__(self, stop: threading.Event) -> None:
        environment = os.environ
        self._stop, self._closed = stop, threading.Event()
        self._failure, self._all_know = "", False
        try:
            self.rank, self.size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
            self.local_rank = int(environment.get("LOCAL_RANK", self.rank))
            self.neighbours = int(environment.get("LOCAL_WORLD_SIZE", self.size))
            # One group after another may meet in the same store, each under a prefix of its own.
            store = PrefixStore(f"crl/{next(_groups)}", _store())
            store.set(f"beat/{self.rank}", "0")
            nccl = torch.cuda.is_available() and dist.is_nccl_available()
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if nccl else "gloo",
                store=store,
                rank=self.rank,
                world_size=self.size,
                timeout=DONE_WITHIN,
            )
        except (KeyError, ValueError) as error:
            raise ConfigError(
                f"WORLD_SIZE says that this is one of {environment['WORLD_SIZE']} processes, but RANK, MASTER_ADDR and "
                f"MASTER_PORT do not say which ({error}): start them by torchrun, or unset WORLD_SIZE."
            ) from None
        except RuntimeError as error:
            raise RankError(f"rank {self.rank} cannot reach the other ranks: {_first_line(error)}") from None
        self._interruptible, self._missed = not nccl, [0] * self.size
        self._store = store.clone()  # one call at a time passes through a store, and those of gloo may wait
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    # --- tensors ------------------------------------------------------------------------------------------------------

    def gather(self, rows: Tensor) -> Tensor:
        return _Gather.apply(rows, self)  # type: ignore[no-any-return]

    def own(self, rows: Tensor) -> Tensor:
        return rows.chunk(self.size)[self.rank]

    @torch.no_grad()
    def average(self, tensors: Sequence[Tensor]) -> None:
        for bucket in _buckets(tensors):
            alone = len(bucket) == 1 and bucket[0].is_contiguous()
            flat = bucket[0].view(-1) if alone else torch.cat([tensor.reshape(-1) for tensor in bucket])
            self._call(dist.all_reduce, flat)
            flat /= self.size
            if not alone:
                parts = flat.split_with_sizes([tensor.numel() for tensor in bucket])
                torch._foreach_copy_(
                    bucket, [part.view(tensor.shape) for part, tensor in zip(parts, bucket, strict=True)]
                )

    # --- decisions ----------------------------------------------------------------------------------------------------

    def any(self, flag: bool) -> bool:
        seen = torch.tensor([flag], dtype=torch.uint8)
        self._call(dist.all_reduce, seen, dist.ReduceOp.MAX)
        return bool(seen)

    def together(self, step: Callable[[], Any]) -> list[Any]:
        told: dict[str, Any]
        try:
            told = {"value": step()}
        except tuple(_TOLD.values()) as error:
            kind = next(name for name, known in _TOLD.items() if isinstance(error, known))
            told = {"error": kind, "text": str(error)}
        outcomes = self._share(json.dumps(told).encode())
        for outcome in outcomes:
            if "error" in outcome:
                self._all_know = True
                raise _TOLD[outcome["error"]](outcome["text"])
        return [outcome["value"] for outcome in outcomes]

    def _share(self, text: bytes) -> list[Any]:
        """The JSON that each rank gave."""
        mine = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        lengths = torch.empty(self.size, dtype=torch.int64)
        self._call(dist.all_gather_into_tensor, lengths, torch.tensor([len(mine)]))
        padded = torch.zeros(int(lengths.max()), dtype=torch.uint8)
        padded[: len(mine)] = mine
        given = torch.empty(self.size * len(padded), dtype=torch.uint8)
        self._call(dist.all_gather_into_tensor, given, padded)
        rows = given.view(self.size, -1).numpy()
        return [json.loads(row[:length].tobytes()) for row, length in zip(rows, lengths.tolist(), strict=True)]

    def seed(self, seed: int) -> int:
        # Spawned, not [seed, rank]: the worlds of evaluation are made from [seed, 1].
        return int(np.random.SeedSequence(seed, spawn_key=(self.rank,)).generate_state(1)[0]) if self.rank else seed

    def device(self, name: str) -> str:
        if name == "cpu":
            return name
        if name != "cuda":
            raise ConfigError(f"device must be auto, cpu or cuda on several processes, got {name!r}: each has its own.")
        if self.local_rank >= (count := torch.cuda.device_count()):
            raise ConfigError(
                f"rank {self.rank} is process {self.local_rank} of its machine and needs GPU {self.local_rank}, but "
                f"PyTorch sees {count} CUDA devices there: start at most so many, or use --device cpu."
            )
        torch.cuda.set_device(self.local_rank)
        return f"cuda:{self.local_rank}"

    # --- failures -----------------------------------------------------------------------------------------------------

    def _call(self, collective: Callable[..., object], *arguments: Any) -> None:
        if self._failure:
            raise RankError(self._failure)
        try:
            collective(*arguments)
        except RuntimeError as error:
            raise RankError(self._cause(error)) from None

    def _cause(self, error: RuntimeError) -> str:
        """Why a collective failed: what a rank said, or which one fell silent; else what gloo or NCCL say."""
        for _ in range(4 * SILENT_BEATS):
            if self._failure:
                return self._failure
            if silent := [rank for rank, missed in enumerate(self._missed) if missed >= SILENT_BEATS]:
                return self._say(f"rank {silent[0]} ended without a word (killed, perhaps, as memory ran out)")
            time.sleep(BEAT / 2)
        return self._say(f"rank {self.rank} lost the others: {_first_line(error)}")

    def _say(self, failure: str) -> str:
        """Tell all what failed; what was told first holds."""
        try:
            self._failure = self._store.compare_set("failure", "", failure).decode()
        except RuntimeError:  # the store is gone with rank 0
            self._failure = self._failure or failure
        return self._failure

    def _watch(self) -> None:
        """Beat and listen; once a rank has failed, let this one come to an end, or end it."""
        last = [b"0"] * self.size
        for number in itertools.count(1):
            if self._closed.wait(BEAT):
                return
            try:
                self._store.set(f"beat/{self.rank}", str(number))
                beats = self._store.multi_get([f"beat/{rank}" for rank in range(self.size)])
                if self._store.check(["failure"]):
                    self._failure = self._store.get("failure").decode()
            except RuntimeError:
                silent = [rank for rank, missed in enumerate(self._missed) if missed]
                self._failure = self._failure or (
                    f"rank {silent[0] if silent else 0}, or torchrun, ended without a word (killed?)"
                )
            else:
                beaten = [new != old for new, old in zip(beats, last, strict=True)]
                self._missed = [0 if beat else count + 1 for beat, count in zip(beaten, self._missed, strict=True)]
                last = beats
                if max(self._missed) > DEAD_BEATS:
                    self._say(f"rank {self._missed.index(max(self._missed))} has not been heard of for a while")
            if self._failure:
                break
        self._stop.set()
        if not self._closed.wait(GRACE):
            # The main thread is in something that does not end, a collective of NCCL or a long step.
            print(f"Error: {self._failure}; rank {self.rank} ends too.", file=sys.stderr, flush=True)
            os._exit(1)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.together(lambda: None)  # the store may be rank 0's: it leaves when all are done
            elif not (self._all_know or isinstance(error, RankError)):
                self._say(f"rank {self.rank} failed: {type(error).__name__}: {_first_line(error)}")
        finally:
            if error is not None and not self._all_know:
                time.sleep(2 * BEAT)  # until all have heard of it, as the store, too, may go with this process
            self._closed.set()
            self._watcher.join()
            if error is None or self._interruptible:
                dist.destroy_process_group()


class _Gather(torch.autograd.Function):
    """All ranks' rows. Each rank's loss has a gradient for them; those of one rank's rows are summed there."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: Group) -> Tensor:
        ctx.group = group
        gathered = rows.new_empty((group.size * len(rows), *rows.shape[1:]))
        group._call(dist.all_gather_into_tensor, gathered, rows.contiguous())
        return gathered

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        own = gradient.new_empty((len(gradient) // ctx.group.size, *gradient.shape[1:]))
        ctx.group._call(dist.reduce_scatter_tensor, own, gradient.contiguous())
        return own, None


@functools.cache
def _store() -> Store:
    """The key-value store of all ranks: torchrun's, or that of rank 0. One for the life of the process."""
    store: Store = next(rendezvous("env://", timeout=JOINED_WITHIN))[0]
    return store


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """`tensors` in their order, in lists of at most BUCKET elements, or one tensor."""
    bucket: list[Tensor] = []
    room = BUCKET
    for tensor in tensors:
        if bucket and tensor.numel() > room:
            yield bucket
            bucket, room = [], BUCKET
        bucket.append(tensor)
        room -= tensor.numel()
    if bucket:
        yield bucket


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
