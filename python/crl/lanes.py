"""Two things at once on a CPU: each on its own share of the threads.

The threads of a matrix product of 256 rows wait for each other at every operation; two networks that do not depend on
each other need not, and each finds its activations in the cache of its own core.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

First = TypeVar("First")
Second = TypeVar("Second")


def both(first: Callable[[], First], second: Callable[[], Second]) -> tuple[First, Second]:
    """The results of both: one after the other, or at once if PyTorch has two threads or more in this thread.

    The calling thread runs `second`. Grad mode, autocast and the like are those of a new thread in `first`.
    """
    threads = torch.get_num_threads()
    if threads < 2:
        return first(), second()
    running = _helper().submit(_with_threads, threads // 2, first)
    try:
        result = _with_threads(threads - threads // 2, second)
        return running.result(), result
    finally:
        running.exception()  # waits: nothing of `first` goes on behind an error of `second`
        torch.set_num_threads(threads)


def _with_threads(threads: int, function: Callable[[], First]) -> First:
    if torch.get_num_threads() != threads:  # asking also makes this thread known to PyTorch, which setting needs
        torch.set_num_threads(threads)
    return function()


@cache
def _helper() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="crl-lane")
