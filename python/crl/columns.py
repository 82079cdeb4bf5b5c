"""The columns of a row: how they are declared, and how arrays become rows of them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from crl.arguments import integer
from crl.batch import Array

Shape: TypeAlias = int | Sequence[int]
ColumnSpec: TypeAlias = Shape | tuple[Shape, DTypeLike]
Column: TypeAlias = tuple[str, np.dtype[Any], tuple[int, ...]]
"""Name, dtype, shape of one row."""

_STANDARD = ("observation", "action", "achieved_goal")
_RESERVED = ("goal", "offset", "mask", "extras", "items", "episode_start")
_PREFIXES = ("next_", "goal_", "n_step_", "_")


# --- declared ------------------------------------------------------------------------------------------------------


def declared(standard: Sequence[ColumnSpec | None], extras: Mapping[str, ColumnSpec]) -> list[Column]:
    """The columns of a buffer: observation, action and achieved_goal, then the extras; a None is left out.

    Raises ValueError, TypeError."""
    for name in extras:
        _check_extra(name)
    specs = dict(zip(_STANDARD, standard, strict=True)) | dict(extras)
    return [_column(name, spec) for name, spec in specs.items() if spec is not None]


def described(columns: Iterable[tuple[str, str, Sequence[int]]]) -> tuple[Column, ...]:
    """Columns as `crl._core` describes them."""
    return tuple((name, np.dtype(dtype), tuple(shape)) for name, dtype, shape in columns)


def _column(name: str, spec: ColumnSpec) -> Column:
    """The column given as shape or as (shape, dtype)."""
    shape: Any = spec
    dtype: np.dtype[Any] = np.dtype(np.float32)
    if isinstance(spec, tuple) and len(spec) == 2 and not isinstance(spec[1], int | np.integer):
        shape = spec[0]
        try:
            dtype = np.dtype(spec[1])
        except TypeError:
            raise TypeError(f"{name}: expected a dtype; got {spec[1]!r}") from None
        if not dtype.isnative:
            raise TypeError(f"{name}: expected a dtype of this machine's byte order; got {dtype}")
    axes = (shape,) if isinstance(shape, int | np.integer) else shape
    if not isinstance(axes, Sequence) or isinstance(axes, str):
        raise TypeError(f"{name}: expected a shape or (shape, dtype); got {spec!r}")
    return name, dtype, tuple(integer(f"{name} shape", n, 1) for n in axes)


def _check_extra(name: str) -> None:
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"extras: expected names that are identifiers; got {name!r}")
    if name in _STANDARD or name in _RESERVED or name.startswith(_PREFIXES):
        prefixes = ", ".join(_PREFIXES)
        raise ValueError(f"extras: {name!r} is taken, or begins with one of {prefixes}; choose another name")


# --- arrays --------------------------------------------------------------------------------------------------------


def rows(
    columns: Sequence[Column], lead: tuple[int, ...], values: Mapping[str, Any], starts: Any
) -> tuple[tuple[Array, ...], Array]:
    """Rows with the leading axes `lead` and their starts, as arrays that `crl._core` takes.

    Raises:
        ValueError: wrong shape, integers that do not fit. TypeError: a missing or unknown column, another kind of
        numbers.
    """
    if len(values) != len(columns) or any(name not in values for name, _, _ in columns):
        raise TypeError(_wrong_columns([name for name, _, _ in columns], values))
    arrays = []
    for name, dtype, shape in columns:
        array = values[name]
        if type(array) is not np.ndarray or array.dtype != dtype or not array.flags.carray:
            array = _convert(name, array, dtype)
        if array.shape != lead + shape:
            raise ValueError(f"{name}: expected shape {lead + shape}; got {array.shape}")
        arrays.append(array)
    starts = _flags(starts)
    if starts.shape != lead:
        raise ValueError(f"episode_start: expected shape {lead}; got {starts.shape}")
    return tuple(arrays), starts


def steps(episode_start: Any) -> int:
    """The steps of a rollout: its starts are [steps, envs]. Raises ValueError."""
    shape = _array("episode_start", episode_start).shape
    if len(shape) != 2:
        raise ValueError(f"episode_start: expected shape [steps, envs]; got {shape}")
    return int(shape[0])


def _wrong_columns(expected: list[str], got: Mapping[str, Any]) -> str:
    missing = [name for name in expected if name not in got]
    unknown = [name for name in got if name not in expected]
    parts = [f"missing {', '.join(missing)}"] * bool(missing) + [f"unknown {', '.join(unknown)}"] * bool(unknown)
    return f"add: expected the columns {', '.join(expected)}; {'; '.join(parts)}"


def _array(name: str, value: Any) -> Array:
    try:
        return np.asarray(value)
    except ValueError as error:  # Rows of unequal length.
        raise ValueError(f"{name}: expected an array; got what NumPy makes none of: {error}") from None


def _convert(name: str, value: Any, dtype: np.dtype[Any]) -> Array:
    """`value` as an aligned C-contiguous array of `dtype`, if that keeps its kind."""
    array = _array(name, value)
    if array.dtype != dtype:
        if array.dtype.kind in "iu" and dtype.kind in "iu":
            info = np.iinfo(dtype)
            if array.size and not (info.min <= int(array.min()) and int(array.max()) <= info.max):
                raise ValueError(f"{name}: expected integers from {info.min} to {info.max} ({dtype}); got others")
        elif not np.can_cast(array.dtype, dtype, "same_kind"):
            raise TypeError(f"{name}: expected {dtype} or what converts to it; got {array.dtype}")
        with np.errstate(over="ignore"):  # A float64 beyond float32 becomes infinite, and the core checks for that.
            array = array.astype(dtype)
    return np.require(array, requirements=["C", "A"])


def _flags(value: Any) -> Array:
    array = _array("episode_start", value)
    if array.dtype != np.bool_:
        raise TypeError(f"episode_start: expected bool; got {array.dtype}")
    return np.ascontiguousarray(array).reshape(array.shape)
