"""What is sampled: `Batch`, and the `Plan` that makes or refills one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from crl import _core

Array: TypeAlias = NDArray[Any]
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Batch(Generic[T]):
    """One batch, of arrays or tensors: B rows, or [K, B] rows where K batches were asked for at once.

    Columns asked for beyond the four are attributes too: `batch.next_observation`. In a batch of segments of L rows,
    what belongs to a row has the axes [B, L], or [K, B, L]; a segment has one goal.
    """

    observation: T
    """[B, *observation]: the row."""
    action: T
    """[B, *action]: the action taken there."""
    goal: T
    """[B, *achieved_goal]: what was achieved `offset` rows later."""
    offset: T
    """[B], int32: rows from the row to its goal, at least 1; 0 for a goal of the strategy "random"."""
    extras: dict[str, T] = field(default_factory=dict)
    """The further columns, by name."""

    def __getattr__(self, name: str) -> T:
        try:
            return self.extras[name]
        except KeyError:
            raise AttributeError(f"this batch has no column {name!r}; ask for it: columns=({name!r},)") from None

    def __getitem__(self, index: Any) -> "Batch[T]":
        """The same part of every column: `batches[3]` of a batch with a leading axis."""
        return Batch(
            self.observation[index],  # type: ignore[index]
            self.action[index],  # type: ignore[index]
            self.goal[index],  # type: ignore[index]
            self.offset[index],  # type: ignore[index]
            {name: array[index] for name, array in self.extras.items()},  # type: ignore[index]
        )

    def items(self) -> Iterator[tuple[str, T]]:
        """Names and columns, the four first."""
        yield from (("observation", self.observation), ("action", self.action))
        yield from (("goal", self.goal), ("offset", self.offset))
        yield from self.extras.items()


@dataclass(frozen=True, slots=True)
class Plan:
    """A request that a buffer understood, and the arrays that it fills."""

    core: _core.Buffer
    request: _core.Request
    columns: tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...]

    @classmethod
    def of(cls, core: _core.Buffer, request: _core.Request) -> "Plan":
        return cls(
            core, request, tuple((name, np.dtype(dtype), tuple(shape)) for name, dtype, shape in request.columns)
        )

    def fill(self, lead: tuple[int, ...], out: Batch[Array] | None = None) -> Batch[Array]:
        """Samples batches of the leading axes `lead`, [B] or [K, B], into new arrays or into those of `out`."""
        if out is None:
            new = self.allocate(lead)
            self.draw(lead, new)
            return self.batch(new)
        arrays: tuple[Array, ...] = (out.observation, out.action, out.goal, out.offset)
        if len(self.columns) > 4:
            arrays += tuple([getattr(out, name) for name, _, _ in self.columns[4:]])
        try:
            self.core.sample(self.request, lead, None, arrays)
        except (TypeError, ValueError):
            self.check(arrays, lead)
            raise
        return out

    def allocate(self, lead: tuple[int, ...]) -> list[Array]:
        """New arrays, one for each column."""
        return [np.empty(lead + shape, dtype) for _, dtype, shape in self.columns]

    def draw(self, lead: tuple[int, ...], arrays: list[Array], first: int | None = None) -> None:
        """Samples into these arrays. `first` is the number of the first batch, if it was reserved."""
        self.core.sample(self.request, lead, first, tuple(arrays))

    def batch(self, columns: Sequence[T]) -> Batch[T]:
        """These columns as a batch."""
        observation, action, goal, offset, *more = columns
        names = (name for name, _, _ in self.columns[4:])
        return Batch(observation, action, goal, offset, dict(zip(names, more, strict=True)))

    def check(self, arrays: Sequence[Array], lead: tuple[int, ...]) -> None:
        """Raises an error that names the first of these arrays which cannot be filled, if there is one."""
        for array, (name, dtype, shape) in zip(arrays, self.columns, strict=True):
            if type(array) is not np.ndarray or array.dtype != dtype or array.shape != (*lead, *shape):
                got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
                raise TypeError(f"out.{name}: expected a {dtype} array of shape {(*lead, *shape)}; got {got}") from None
            if not array.flags.carray:
                raise ValueError(f"out.{name}: expected a writable, aligned and C-contiguous array") from None
