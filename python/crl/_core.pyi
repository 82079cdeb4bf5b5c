"""The native part of `crl`: see `crl.buffer`, which checks arguments and calls it."""

import os
from collections.abc import Sequence
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BUILD_PROFILE",
    "Buffer",
    "InternalError",
    "Prefetch",
    "Request",
    "SnapshotError",
    "Writer",
    "distances",
    "distances_backward",
    "gather_limit",
    "norm_swish",
    "norm_swish_backward",
    "panic_for_test",
]

BUILD_PROFILE: Final[str]

class InternalError(RuntimeError):
    """A bug in crl: please report it."""

class SnapshotError(ValueError):
    """A file of a buffer that is not whole, or no such file. The message names the file and the block."""

@final
class Request:
    @property
    def columns(self) -> list[tuple[str, str, list[int]]]: ...

@final
class Prefetch:
    def __new__(cls, slots: int) -> Prefetch: ...
    def take(self) -> int | None: ...
    def is_ready(self) -> bool: ...
    def give_back(self) -> None: ...
    def stop(self) -> None: ...

@final
class Writer:
    def add(self, lead: Sequence[int], columns: tuple[NDArray[Any], ...], starts: NDArray[np.bool_]) -> None: ...
    def close(self) -> None: ...

@final
class Buffer:
    def __new__(
        cls,
        num_envs: int,
        capacity: int,
        columns: Sequence[tuple[str, str, Sequence[int]]],
        seed: int,
        check_finite: bool,
        threads: int,
        path: str | os.PathLike[str] | None,
    ) -> Buffer: ...
    @staticmethod
    def load(path: str | os.PathLike[str], threads: int) -> Buffer: ...
    def save(self, path: str | os.PathLike[str]) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...
    def add(self, lead: Sequence[int], columns: tuple[NDArray[Any], ...], starts: NDArray[np.bool_]) -> None: ...
    def writer(self, first: int, last: int) -> Writer: ...
    def request(
        self,
        gamma: float,
        goals: Sequence[tuple[str, float]],
        columns: Sequence[str],
        n_step: tuple[int, float] | None,
    ) -> Request: ...
    def segment_request(
        self,
        gamma: float,
        goals: Sequence[tuple[str, float]],
        columns: Sequence[str],
        length: int,
        partial: bool,
        goal_from: str,
    ) -> Request: ...
    def sample(
        self,
        request: Request,
        lead: Sequence[int],
        first_batch: int | None,
        arrays: tuple[NDArray[Any], ...],
    ) -> int: ...
    def fill_ahead(
        self,
        prefetch: Prefetch,
        request: Request,
        batch_size: int,
        first: int,
        end: int,
        slots: Sequence[Sequence[NDArray[Any]]],
    ) -> None: ...
    def reserve(self, count: int) -> int: ...
    def give_back(self, unused: int, end: int) -> None: ...
    @property
    def columns(self) -> list[tuple[str, str, list[int]]]: ...
    @property
    def num_envs(self) -> int: ...
    @property
    def capacity(self) -> int: ...
    @property
    def next_batch(self) -> int: ...
    @property
    def rows(self) -> int: ...
    @property
    def rows_written(self) -> int: ...
    @property
    def num_trajectories(self) -> int: ...
    @property
    def nbytes(self) -> int: ...

def gather_limit(
    columns: Sequence[NDArray[Any]],
    indices: Sequence[NDArray[np.uint32]],
    batch_size: int,
    tuned: bool,
    out: Sequence[NDArray[Any]],
) -> None:
    """Copies rows of plain arrays and does nothing else: the yardstick of `Buffer.sample`.

    It asks for rows ahead, into the processor's first cache, or `tuned` into the second, which is faster. Column i is
    [rows, ...], indices[i] says which rows to take, [K * batch_size] uint32, and out[i] is [batch_size, ...]: K
    batches, each over the one before. Raises ValueError if lengths do not fit each other or a row is not there.
    """

def norm_swish(
    dense: NDArray[np.float32],
    norm: tuple[NDArray[np.float32], NDArray[np.float32]],
    epsilon: float,
    moments: tuple[NDArray[np.float32], NDArray[np.float32]],
    sigmoid: NDArray[np.float32],
    swish: NDArray[np.float32],
) -> None:
    """Fills moments, sigmoid and swish. Lengths are checked, shapes are not: see `crl.norm_swish`."""

def norm_swish_backward(
    gradient: NDArray[np.float32],
    scale: float,
    dense: NDArray[np.float32],
    norm_weight: NDArray[np.float32],
    moments: tuple[NDArray[np.float32], NDArray[np.float32]],
    sigmoid: NDArray[np.float32],
    swish: NDArray[np.float32],
    dense_gradient: NDArray[np.float32],
    learnt: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]] | None,
) -> None:
    """Fills `dense_gradient` and, if given, the gradients of the norm's weight and bias and of the dense bias."""

def distances(x: NDArray[np.float32], y: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Fills `out` (n, m) with the Euclidean distances of the rows of x (n, R) from those of y (m, R)."""

def distances_backward(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    distances: NDArray[np.float32],
    gradient: NDArray[np.float32],
    of_x: NDArray[np.float32],
    of_y: NDArray[np.float32],
) -> None:
    """Fills `of_x` (n, R) and `of_y` (m, R) from the gradient of the distances (n, m); slope 0 at distance 0."""

def panic_for_test() -> None: ...
