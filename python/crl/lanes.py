"""Two things at once on a CPU: each on its own share of the threads.

The threads of a matrix product of 256 rows wait for each other at every operation; two networks that do not depend on
each other need not, and each finds its activations in the cache of its own core.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

First = TypeVar("First")
Second = TypeVar("Second")
_this_thread = threading.local()


def free() -> bool:
    """Whether `both` would take two lanes: PyTorch has two threads or more here, and this is not a lane itself."""
    return torch.get_num_threads() > 1 and not getattr(_this_thread, "is_lane", False)


def both(first: Callable[[], First], second: Callable[[], Second]) -> tuple[First, Second]:
    """The results of both: at once where `free()`, or else one after the other.

    The calling thread runs `second`. Grad mode, autocast and the like are those of a new thread in `first`.
    """
    if not free():
        return first(), second()
    threads = torch.get_num_threads()
    running = _helper().submit(_with_threads, threads // 2, first)
    try:
        result = _with_threads(threads - threads // 2, second)
        return running.result(), result
    finally:
        running.exception()  # waits: nothing of `first` goes on behind an error of `second`
        torch.set_num_threads(threads)


def alone(function: Callable[[], First]) -> First:
    """The result of a function by the calling thread alone: waking others costs more than a small one takes."""
    threads = torch.get_num_threads()
    if threads < 2:
        return function()
    torch.set_num_threads(1)
    try:
        return function()
    finally:
        torch.set_num_threads(threads)


def use_threads(count: int) -> None:
    """Let PyTorch use `count` threads for work of this thread."""
    torch.get_num_threads()  # Only now is this thread known to PyTorch: it would begin with the number of the others.
    torch.set_num_threads(count)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Let PyTorch use `count` threads, and put it back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _with_threads(threads: int, function: Callable[[], First]) -> First:
    if torch.get_num_threads() != threads:  # asking also makes this thread known to PyTorch, which setting needs
        torch.set_num_threads(threads)
    _this_thread.is_lane = True
    try:
        return function()
    finally:
        _this_thread.is_lane = False


@cache
def _helper() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="crl-lane")
