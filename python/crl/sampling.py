"""What becomes of the arguments of `sample` and `loader`: a `Plan`, made once, that makes and refills batches."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np

from crl import _core
from crl.arguments import integer, number
from crl.batch import Array, Batch
from crl.columns import Column, described

Goal: TypeAlias = str | Mapping[str, float]
_Weights: TypeAlias = tuple[tuple[str, float], ...]
"""Strategies with their weights."""
T = TypeVar("T")

_MOST_PLANS = 64
"""Plans kept by a buffer: a discount that changes all the time must not fill the memory."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A request that a buffer understood, and the arrays that it fills."""

    core: _core.Buffer
    request: _core.Request
    columns: tuple[Column, ...]

    @classmethod
    def of(cls, core: _core.Buffer, request: _core.Request) -> "Plan":
        return cls(core, request, described(request.columns))

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


class Plans:
    """The plans of one buffer, each made when its arguments are first seen."""

    __slots__ = ("_core", "made")

    def __init__(self, core: _core.Buffer) -> None:
        self._core = core
        self.made: dict[Any, Plan] = {}
        """By arguments, in the order of `rows` or of `segments`."""

    def rows(self, gamma: float, goal: Goal, columns: Sequence[str], n_step: int | None, discount: float) -> Plan:
        """The plan of `TrajectoryBuffer.sample`."""
        return self._find(self._rows, gamma, goal, columns, n_step, discount)

    def segments(
        self, gamma: float, goal: Goal, columns: Sequence[str], length: int, partial: bool, goal_from: str
    ) -> Plan:
        """The plan of `TrajectoryBuffer.sample_segments`."""
        return self._find(self._segments, gamma, goal, columns, length, partial, goal_from)

    def _find(
        self, make: Callable[..., _core.Request], gamma: float, goal: Goal, columns: Sequence[str], *more: Any
    ) -> Plan:
        weights = _weights(goal)
        key = (gamma, goal if type(goal) is str else weights, tuple(columns), *more)
        try:
            return self.made[key]
        except (KeyError, TypeError):
            plan = Plan.of(self._core, make(number("gamma", gamma), weights, _names(columns), *more))
            if len(self.made) >= _MOST_PLANS:
                self.made.clear()
            self.made[key] = plan
            return plan

    def _rows(
        self, gamma: float, goal: _Weights, columns: list[str], n_step: int | None, discount: float
    ) -> _core.Request:
        ahead = None
        if n_step is not None:
            ahead = (integer("n_step", n_step, 1, 2**31 - 1), number("discount", discount))
            if not any(name.startswith("n_step_") for name in columns):
                more = tuple(columns[4:])
                raise ValueError(f'n_step: ask for what it is to tell: columns=("n_step_return", ...); got {more}')
        return self._core.request(gamma, goal, columns, ahead)

    def _segments(
        self, gamma: float, goal: _Weights, columns: list[str], length: int, partial: bool, goal_from: str
    ) -> _core.Request:
        length = integer("length", length, 1, 2**31 - 1)
        for name, value, kind in (("partial", partial, bool), ("goal_from", goal_from, str)):
            if not isinstance(value, kind):
                raise TypeError(f"{name}: expected {kind.__name__}; got {value!r}")
        if partial and "mask" not in columns:
            columns.append("mask")
        return self._core.segment_request(gamma, goal, columns, length, partial, goal_from)


def leading(batch_size: int, num_batches: int | None) -> tuple[int, ...]:
    """The leading axes of a batch: [B], or [K, B]. Raises ValueError, TypeError."""
    if type(batch_size) is not int or batch_size < 1:
        batch_size = integer("batch_size", batch_size, 1)
    return (batch_size,) if num_batches is None else (integer("num_batches", num_batches, 1), batch_size)


def _names(columns: Sequence[str]) -> list[str]:
    """The names of all columns of a batch."""
    if isinstance(columns, str):
        raise TypeError(f"columns: expected a sequence of names; got the string {columns!r}")
    names = ["observation", "action", "goal", "offset", *columns]
    if len(set(names)) < len(names):
        raise ValueError(f"columns: expected names other than the four of every batch, each once; got {columns}")
    return names


def _weights(goal: Goal) -> _Weights:
    if isinstance(goal, str):
        return ((goal, 1.0),)
    if not isinstance(goal, Mapping):
        raise TypeError(f"goal: expected the name of a strategy, or a dict of names with weights; got {goal!r}")
    for name, weight in goal.items():
        if not isinstance(name, str) or isinstance(weight, bool) or not isinstance(weight, int | float | np.number):
            raise TypeError(f"goal: expected names with weights; got {name!r}: {weight!r}")
    return tuple((name, float(weight)) for name, weight in goal.items())
