"""The trajectory buffer: rows of many environments in, batches of (row, future row of its trajectory) out.

The work is done in Rust (`crl._core`); this module checks arguments and makes arrays. It needs NumPy; the loader also
needs torch, imported when a loader is made. `docs/buffer.md` explains the buffer with examples.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from crl import _core
from crl._core import InternalError, SnapshotError
from crl.batch import Array, Batch, Plan
from crl.loader import Loader

__all__ = ["Batch", "InternalError", "Loader", "SnapshotError", "TrajectoryBuffer", "Writer"]

Shape: TypeAlias = int | Sequence[int]
ColumnSpec: TypeAlias = Shape | tuple[Shape, DTypeLike]
Goal: TypeAlias = str | Mapping[str, float]

_STANDARD = ("observation", "action", "achieved_goal")
_RESERVED = ("goal", "offset", "mask", "extras", "items", "episode_start")
_PREFIXES = ("next_", "goal_", "n_step_", "_")


class TrajectoryBuffer:
    """A lock-free ring of rows for each of `num_envs` environments.

    A row is what an environment showed at one moment and the action taken there; a trajectory is a run of rows of
    one environment between two starts. Sampling draws rows uniformly among all stored rows that a later one of the
    same trajectory follows, and with each a goal: what was achieved k rows later, P(k) ∝ gamma^k on 1..H, where H
    rows follow. Exact, truncated and not clamped.

    Args:
        num_envs: environments.
        capacity: rows in all; each environment keeps `capacity // num_envs`, at least 2, and then the oldest row
            makes room for the newest. Memory is taken as rows come in.
        observation, action, achieved_goal: shape of one row, or (shape, dtype). The default dtype is float32; float16,
            float64, uint8 and the other integers and bool are welcome.
        extras: further columns of a row, by name.
        seed: of the sampler, 0 to 2**64 - 1. Batch k is a function of the seed, k and the rows, whatever the number
            of threads.
        nonfinite: "error" refuses NaN and infinity in `add`; "allow" stores them.
        sample_threads: threads that share a large `sample`; all cores by default. Small ones are never shared.
        path: a file for the rows, which may be larger than the memory; its space is reserved at once. A file that is
            there goes on where it ended, the sampler's position included, also after its process was killed; the
            other arguments must be those that it was made with. `docs/buffer.md` says what outlives what.

    Any number of threads may sample while others write. `add` is for one thread at a time; threads that write side by
    side take a `writer` each.

    Raises:
        ValueError, TypeError: an argument is not what is said here, or not what the file was made with.
        MemoryError: the rows do not fit into memory. OSError: they do not fit onto the disk, or the file cannot be
        used. RuntimeError: another buffer has the file open. SnapshotError: it is not the file of a buffer, or it was
        being written when its machine stopped.
    """

    __slots__ = ("_check", "_columns", "_core", "_plans")

    def __init__(
        self,
        num_envs: int,
        capacity: int,
        observation: ColumnSpec,
        action: ColumnSpec,
        achieved_goal: ColumnSpec,
        *,
        extras: Mapping[str, ColumnSpec] | None = None,
        seed: int = 0,
        nonfinite: str = "error",
        sample_threads: int | None = None,
        path: str | os.PathLike[str] | None = None,
    ) -> None:
        num_envs = _integer("num_envs", num_envs, 1)
        capacity = _integer("capacity", capacity, 1)
        if nonfinite not in ("error", "allow"):
            raise ValueError(f'nonfinite: expected "error" or "allow"; got {nonfinite!r}')
        specs = dict(zip(_STANDARD, (observation, action, achieved_goal), strict=True))
        for name, spec in (extras or {}).items():
            _check_extra(name)
            specs[name] = spec
        columns = [(name, *_column(name, spec)) for name, spec in specs.items()]
        self._take(
            _core.Buffer(
                num_envs,
                capacity,
                [(name, dtype.name, shape) for name, shape, dtype in columns],
                _integer("seed", seed, 0, 2**64 - 1),
                nonfinite == "error",
                _threads(sample_threads),
                None if path is None else os.fspath(path),
            )
        )

    def _take(self, core: _core.Buffer) -> None:
        self._core = core
        self._columns = tuple((name, np.dtype(dtype), tuple(shape)) for name, dtype, shape in core.columns)
        self._check = core.check_finite
        self._plans: dict[Any, Plan] = {}

    # --- writing ---------------------------------------------------------------------------------------------------

    def add(self, *, episode_start: Any, **columns: Any) -> None:
        """Appends one row to every environment.

        Args:
            observation, action, achieved_goal, and every extra: [num_envs, ...] arrays. Arrays of the column's dtype
                are read without a copy; other numbers are converted where that keeps their kind (float64 to float32,
                integers that fit), and refused where it does not.
            episode_start: [num_envs] bool, true where the row is the first of a trajectory. The first row ever added
                to an environment always is.

        Raises:
            ValueError: wrong shape, integers that do not fit, NaN or infinity. TypeError: a missing or unknown
                column, a dtype of another kind. RuntimeError: a writer or another thread is writing some of the
                environments. Nothing is added then.
        """
        self._add(self._core, (self._core.num_envs,), columns, episode_start)

    def add_rollout(self, *, episode_start: Any, **columns: Any) -> None:
        """Appends T rows to every environment: as `add`, with arrays of [T, num_envs, ...] and the same errors."""
        self._add(self._core, (_steps(episode_start), self._core.num_envs), columns, episode_start)

    def writer(self, first_env: int, last_env: int) -> "Writer":
        """The exclusive writer of environments `first_env <= env < last_env`, until it is closed or dropped.

        One for each collecting thread. Raises ValueError if there are no such environments, and RuntimeError if any of
        them has a writer already.
        """
        return Writer(self, _integer("first_env", first_env, 0), _integer("last_env", last_env, 0))

    def _add(
        self, core: _core.Buffer | _core.Writer, lead: tuple[int, ...], columns: dict[str, Any], starts: Any
    ) -> None:
        if len(columns) == len(self._columns):
            try:
                core.add(lead, tuple([columns[name] for name, _, _ in self._columns]), starts)
                return
            except (KeyError, TypeError):  # Not exactly what the rows are made of: convert it, or say what is wrong.
                pass
        core.add(lead, *self._rows(lead, columns, starts))

    def _rows(self, lead: tuple[int, ...], columns: dict[str, Any], starts: Any) -> tuple[tuple[Array, ...], Array]:
        if len(columns) != len(self._columns) or any(name not in columns for name, _, _ in self._columns):
            raise TypeError(_wrong_columns([name for name, _, _ in self._columns], columns))
        arrays = []
        for name, dtype, shape in self._columns:
            array = columns[name]
            if type(array) is not np.ndarray or array.dtype != dtype or not array.flags.carray:
                array = _convert(name, array, dtype, self._check)
            if array.shape != lead + shape:
                raise ValueError(f"{name}: expected shape {lead + shape}; got {array.shape}")
            arrays.append(array)
        starts = _flags(starts)
        if starts.shape != lead:
            raise ValueError(f"episode_start: expected shape {lead}; got {starts.shape}")
        return tuple(arrays), starts

    # --- sampling --------------------------------------------------------------------------------------------------

    def sample(
        self,
        batch_size: int,
        *,
        gamma: float = 0.99,
        goal: Goal = "geometric",
        n_step: int | None = None,
        discount: float = 0.99,
        num_batches: int | None = None,
        columns: Sequence[str] = (),
        out: Batch[Array] | None = None,
    ) -> Batch[Array]:
        """Draws a batch of rows with their goals.

        Args:
            batch_size: rows, B.
            gamma: the discount of "geometric", in (0, 1]; 1 is uniform.
            goal: "geometric"; "uniform", any later row of the trajectory; "final", its last; "next", the next row;
                "random", any stored row of any trajectory, with offset 0; or a dict of these with weights, drawn anew
                for each row.
            n_step: rows to look ahead, for the columns whose names begin with n_step_.
            discount: of the rewards of those rows, in [0, 1].
            num_batches: K batches at once, the same that K calls would give: one leading axis more.
            columns: further columns: "next_" or "goal_" before any stored column for its value at the next or at
                the goal row; the name of an extra, or "achieved_goal", for its value at the row. With `n_step`, over
                the m rows from this one on, m = `n_step` or less where the trajectory ends or the extra "terminated"
                is true before: "n_step_return", the discounted sum of the extra "reward"; "n_step_offset", m, int32;
                "n_step_" before any stored column for its value m rows later; "n_step_discount", what the value of
                that row counts: discount**m, or 0 after a terminated row.
            out: a batch to fill in place of a new one. Nothing is allocated.

        Returns:
            `Batch` of arrays [B, ...] or [K, B, ...]; `out` if given.

        Raises:
            ValueError: nothing to draw from, a bad argument, `out` not C-contiguous. TypeError: an argument of another
            type, `out` with the wrong shapes or dtypes. RuntimeError: writers overwrite rows faster than they can be
            copied.
        """
        try:
            plan = self._plans[gamma, goal, columns, n_step, discount]
        except (KeyError, TypeError):  # A new one, or given by a dict or a list, which cannot be looked up.
            plan = self._plan(self._row_plan, gamma, goal, columns, n_step, discount)
        return plan.fill(_lead(batch_size, num_batches), out)

    def sample_segments(
        self,
        batch_size: int,
        length: int,
        *,
        partial: bool = False,
        gamma: float = 0.99,
        goal: Goal = "geometric",
        goal_from: str = "last",
        num_batches: int | None = None,
        columns: Sequence[str] = (),
        out: Batch[Array] | None = None,
    ) -> Batch[Array]:
        """Draws segments: `length` consecutive rows of one trajectory, each segment with one goal.

        Every row of a segment has a successor in its trajectory, as every row that `sample` draws: a trajectory of
        N stored rows has N - length segments, and all segments of all trajectories are drawn alike.

        Args:
            batch_size: segments, B.
            length: rows of a segment, L.
            partial: also segments that are shorter, since their trajectory ends. Then every row that has a successor is
                the first row of a segment, all drawn alike. What is missing at the end of a segment is zeros, and
                the column `mask` tells: [B, L] bool, true where there is a row.
            gamma, goal: the law of the goal, as in `sample`.
            goal_from: the row of the segment in whose future the goal lies, and from which `offset` counts. "last": the
                goal lies beyond the segment, in the future of all its rows. "first": it may be reached within.
            num_batches: K batches at once, the same that K calls would give: one leading axis more.
            columns: further columns, as in `sample` but for those of `n_step`: with a value for every row, [B, L, ...];
                those that begin with "goal_" have one for the segment, [B, ...].
            out: a batch to fill in place of a new one. Nothing is allocated.

        Returns:
            `Batch` with observation [B, L, ...], action [B, L, ...], goal [B, ...] and offset [B], or all of these
            with K before; `out` if given.

        Raises:
            ValueError: no trajectory is long enough (the message tells the longest), nothing to draw from, a bad
            argument. TypeError: `out` has the wrong shapes or dtypes. RuntimeError: writers overwrite rows faster than
            they can be copied.
        """
        plan = self._plan(self._segment_plan, gamma, goal, columns, length, partial, goal_from)
        return plan.fill(_lead(batch_size, num_batches), out)

    def _plan(self, make: Callable[..., Plan], gamma: float, goal: Goal, columns: Sequence[str], *more: Any) -> Plan:
        key = (gamma, goal if type(goal) is str else _weights(goal), tuple(columns), *more)
        try:
            return self._plans[key]
        except (KeyError, TypeError):
            plan = make(gamma, goal, columns, *more)
            if len(self._plans) >= 64:  # A discount that changes all the time must not fill the memory.
                self._plans.clear()
            self._plans[key] = plan
            return plan

    def _row_plan(self, gamma: float, goal: Goal, columns: Sequence[str], n_step: int | None, discount: float) -> Plan:
        names, gamma = _names(columns), _number("gamma", gamma)
        ahead = None
        if n_step is not None:
            ahead = (_integer("n_step", n_step, 1, 2**31 - 1), _number("discount", discount))
            if not any(name.startswith("n_step_") for name in names):
                raise ValueError(f'n_step: ask for what it is to tell: columns=("n_step_return", ...); got {columns}')
        return Plan.of(self._core, self._core.request(gamma, _weights(goal), names, ahead))

    def _segment_plan(
        self, gamma: float, goal: Goal, columns: Sequence[str], length: int, partial: bool, goal_from: str
    ) -> Plan:
        names, gamma, length = _names(columns), _number("gamma", gamma), _integer("length", length, 1, 2**31 - 1)
        for name, value, kind in (("partial", partial, bool), ("goal_from", goal_from, str)):
            if not isinstance(value, kind):
                raise TypeError(f"{name}: expected {kind.__name__}; got {value!r}")
        if partial and "mask" not in names:
            names.append("mask")
        request = self._core.segment_request(gamma, _weights(goal), names, length, partial, goal_from)
        return Plan.of(self._core, request)

    def loader(
        self,
        batch_size: int,
        *,
        gamma: float = 0.99,
        goal: Goal = "geometric",
        n_step: int | None = None,
        discount: float = 0.99,
        length: int | None = None,
        partial: bool = False,
        goal_from: str = "last",
        columns: Sequence[str] = (),
        device: Any = "cpu",
        prefetch: int = 4,
        num_batches: int | None = None,
    ) -> Loader:
        """Batches of torch tensors on `device`, sampled ahead in the background: see `crl.loader.Loader`.

        They are those of `sample`; with `length`, those of `sample_segments`, which `partial` and `goal_from` are of.
        Raises what these raise, for arguments at once, and ImportError where tensors are wanted without torch.
        """
        if length is None:
            if partial or goal_from != "last":
                raise ValueError("partial, goal_from: these are of segments; give their length")
            plan = self._plan(self._row_plan, gamma, goal, columns, n_step, discount)
        else:
            if n_step is not None:
                raise ValueError("n_step: not with length; a segment holds the rewards, ask for them in columns")
            plan = self._plan(self._segment_plan, gamma, goal, columns, length, partial, goal_from)
        return Loader(plan, batch_size, device, prefetch, num_batches)

    # --- what is in it ---------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Rows stored."""
        return self._core.rows

    @property
    def num_envs(self) -> int:
        """Environments."""
        return self._core.num_envs

    @property
    def capacity(self) -> int:
        """Rows that can be stored: `num_envs` times the rows that one environment keeps."""
        return self._core.capacity

    @property
    def num_trajectories(self) -> int:
        """Trajectories of which at least one row is stored."""
        return self._core.num_trajectories

    @property
    def rows_written(self) -> int:
        """Rows ever added."""
        return self._core.rows_written

    @property
    def nbytes(self) -> int:
        """Bytes that the full buffer takes, in memory or in its file."""
        return self._core.nbytes

    def __repr__(self) -> str:
        columns = ", ".join(f"{name}={dtype}{list(shape)}" for name, dtype, shape in self._columns)
        return f"TrajectoryBuffer({len(self)} of {self.capacity} rows, {self.num_envs} envs, {columns})"

    # --- files -----------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Saves rows, trajectories, seed and the sampler's position. The file appears whole or not at all.

        Writers may go on, and never wait. What they add meanwhile is not saved, nor is what they overwrite before it
        was copied: the file holds the newest rows of each environment at the moment of the call.

        Raises OSError, or RuntimeError if a writer overwrites a whole ring before it was copied.
        """
        self._core.save(os.fspath(path))

    def flush(self) -> None:
        """With `path=`: returns when everything added before the call is on the disk. Writers may go on meanwhile.

        Until rows are added again, the file then outlives a power failure. It outlives its process without this call.
        Raises OSError.
        """
        self._core.flush()

    def close(self) -> None:
        """Ends all use of the buffer; with `path=`, flushes the file and lets others open it. Raises OSError.

        A buffer that is dropped or used as a context manager is closed too. Closing twice does nothing.
        """
        self._core.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, sample_threads: int | None = None) -> Self:
        """Reads a saved buffer; it goes on as the saved one would have.

        Raises SnapshotError (a ValueError) naming file and block if the file is not whole or was altered.
        """
        buffer = cls.__new__(cls)
        buffer._take(_core.Buffer.load(os.fspath(path), _threads(sample_threads)))
        return buffer

    def __reduce__(self) -> Any:
        raise TypeError("a TrajectoryBuffer cannot be pickled; use save(path) and TrajectoryBuffer.load(path)")


class Writer:
    """The exclusive writer of a range of environments, from `TrajectoryBuffer.writer`; a context manager.

    For one thread. Others may sample, or write other environments, at the same time.
    """

    __slots__ = ("_buffer", "_core", "first_env", "last_env")

    def __init__(self, buffer: TrajectoryBuffer, first_env: int, last_env: int) -> None:
        self._core = buffer._core.writer(first_env, last_env)
        self._buffer = buffer
        self.first_env = first_env
        self.last_env = last_env

    def add(self, *, episode_start: Any, **columns: Any) -> None:
        """As `TrajectoryBuffer.add`, with arrays of [last_env - first_env, ...]."""
        self._buffer._add(self._core, (self.last_env - self.first_env,), columns, episode_start)

    def add_rollout(self, *, episode_start: Any, **columns: Any) -> None:
        """As `TrajectoryBuffer.add_rollout`, with arrays of [T, last_env - first_env, ...]."""
        lead = (_steps(episode_start), self.last_env - self.first_env)
        self._buffer._add(self._core, lead, columns, episode_start)

    def close(self) -> None:
        """Gives the environments back. Closing twice does nothing."""
        self._core.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# --- arguments -----------------------------------------------------------------------------------------------------


def _integer(name: str, value: Any, least: int, most: int = 2**63 - 1) -> int:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: expected an integer; got {value!r}")
    if not least <= value <= most:
        raise ValueError(f"{name}: expected {least} to {most}; got {value}")
    return int(value)


def _lead(batch_size: int, num_batches: int | None) -> tuple[int, ...]:
    """The leading axes of a batch: [B], or [K, B]."""
    if type(batch_size) is not int or batch_size < 1:
        batch_size = _integer("batch_size", batch_size, 1)
    return (batch_size,) if num_batches is None else (_integer("num_batches", num_batches, 1), batch_size)


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{name}: expected a number; got {value!r}")
    return float(value)


def _names(columns: Sequence[str]) -> list[str]:
    """The names of all columns of a batch."""
    if isinstance(columns, str):
        raise TypeError(f"columns: expected a sequence of names; got the string {columns!r}")
    names = ["observation", "action", "goal", "offset", *columns]
    if len(set(names)) < len(names):
        raise ValueError(f"columns: expected names other than the four of every batch, each once; got {columns}")
    return names


def _threads(sample_threads: int | None) -> int:
    return 0 if sample_threads is None else _integer("sample_threads", sample_threads, 1, 1024)


def _column(name: str, spec: ColumnSpec) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of a column given as shape or as (shape, dtype)."""
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
    return tuple(_integer(f"{name} shape", n, 1) for n in axes), dtype


def _check_extra(name: str) -> None:
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"extras: expected names that are identifiers; got {name!r}")
    if name in _STANDARD or name in _RESERVED or name.startswith(_PREFIXES):
        prefixes = ", ".join(_PREFIXES)
        raise ValueError(f"extras: {name!r} is taken, or begins with one of {prefixes}; choose another name")


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


def _convert(name: str, value: Any, dtype: np.dtype[Any], check_finite: bool) -> Array:
    """`value` as an aligned C-contiguous array of `dtype`, if that keeps its kind."""
    array = _array(name, value)
    if array.dtype != dtype:
        if array.dtype.kind in "iu" and dtype.kind in "iu":
            info = np.iinfo(dtype)
            if array.size and not (info.min <= int(array.min()) and int(array.max()) <= info.max):
                raise ValueError(f"{name}: expected integers from {info.min} to {info.max} ({dtype}); got others")
        elif not np.can_cast(array.dtype, dtype, "same_kind"):
            raise TypeError(f"{name}: expected {dtype} or what converts to it; got {array.dtype}")
        with np.errstate(over="ignore"):  # A float64 beyond float32 becomes infinite, and that is checked for.
            array = array.astype(dtype)
    return np.require(array, requirements=["C", "A"])


def _flags(value: Any) -> Array:
    array = _array("episode_start", value)
    if array.dtype != np.bool_:
        raise TypeError(f"episode_start: expected bool; got {array.dtype}")
    return np.ascontiguousarray(array).reshape(array.shape)


def _steps(episode_start: Any) -> int:
    shape = _array("episode_start", episode_start).shape
    if len(shape) != 2:
        raise ValueError(f"episode_start: expected shape [steps, envs]; got {shape}")
    return int(shape[0])


def _weights(goal: Goal) -> tuple[tuple[str, float], ...]:
    if isinstance(goal, str):
        return ((goal, 1.0),)
    if not isinstance(goal, Mapping):
        raise TypeError(f"goal: expected the name of a strategy, or a dict of names with weights; got {goal!r}")
    for name, weight in goal.items():
        if not isinstance(name, str) or isinstance(weight, bool) or not isinstance(weight, int | float | np.number):
            raise TypeError(f"goal: expected names with weights; got {name!r}: {weight!r}")
    return tuple((name, float(weight)) for name, weight in goal.items())
