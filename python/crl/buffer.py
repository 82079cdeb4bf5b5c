"""The trajectory buffer: rows of many environments in, batches of (row, future row of its trajectory) out.

The work is done in Rust (`crl._core`); this module checks arguments and makes arrays. It needs NumPy; the loader also
needs torch, imported when a loader is made. `docs/buffer.md` explains the buffer with examples.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

from crl import _core
from crl._core import InternalError, SnapshotError
from crl.arguments import integer
from crl.batch import Array, Batch
from crl.columns import ColumnSpec, declared, described, rows, steps
from crl.loader import Loader
from crl.sampling import Goal, Plans, leading

__all__ = ["Batch", "InternalError", "Loader", "SnapshotError", "TrajectoryBuffer", "Writer"]


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
            float64, uint8 and the other integers and bool are welcome. Where `achieved_goal` is None, rows have no such
            column, and goals are whole observations: images are then stored once.
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

    __slots__ = ("_columns", "_core", "_plans")

    def __init__(
        self,
        num_envs: int,
        capacity: int,
        observation: ColumnSpec,
        action: ColumnSpec,
        achieved_goal: ColumnSpec | None,
        *,
        extras: Mapping[str, ColumnSpec] | None = None,
        seed: int = 0,
        nonfinite: str = "error",
        sample_threads: int | None = None,
        path: str | os.PathLike[str] | None = None,
    ) -> None:
        num_envs = integer("num_envs", num_envs, 1)
        capacity = integer("capacity", capacity, 1)
        if nonfinite not in ("error", "allow"):
            raise ValueError(f'nonfinite: expected "error" or "allow"; got {nonfinite!r}')
        columns = declared((observation, action, achieved_goal), extras or {})
        self._take(
            _core.Buffer(
                num_envs,
                capacity,
                [(name, dtype.name, shape) for name, dtype, shape in columns],
                integer("seed", seed, 0, 2**64 - 1),
                nonfinite == "error",
                _threads(sample_threads),
                None if path is None else os.fspath(path),
            )
        )

    def _take(self, core: _core.Buffer) -> None:
        self._core = core
        self._columns = described(core.columns)
        self._plans = Plans(core)

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
        self._add(self._core, (steps(episode_start), self._core.num_envs), columns, episode_start)

    def writer(self, first_env: int, last_env: int) -> "Writer":
        """The exclusive writer of environments `first_env <= env < last_env`, until it is closed or dropped.

        One for each collecting thread. Raises ValueError if there are no such environments, and RuntimeError if any of
        them has a writer already.
        """
        return Writer(self, integer("first_env", first_env, 0), integer("last_env", last_env, 0))

    def _add(
        self, core: _core.Buffer | _core.Writer, lead: tuple[int, ...], columns: dict[str, Any], starts: Any
    ) -> None:
        if len(columns) == len(self._columns):
            try:
                core.add(lead, tuple([columns[name] for name, _, _ in self._columns]), starts)
                return
            except (KeyError, TypeError):  # Not exactly what the rows are made of: convert it, or say what is wrong.
                pass
        core.add(lead, *rows(self._columns, lead, columns, starts))

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
            plan = self._plans.made[gamma, goal, columns, n_step, discount]
        except (KeyError, TypeError):  # A new one, or given by a dict or a list, which cannot be looked up.
            plan = self._plans.rows(gamma, goal, columns, n_step, discount)
        return plan.fill(leading(batch_size, num_batches), out)

    def peek(
        self, batch_size: int, *, gamma: float = 0.99, goal: Goal = "geometric", columns: Sequence[str] = ()
    ) -> Batch[Array]:
        """The batch that `sample` would draw next with these arguments, which it then still draws next.

        So what is in the buffer can be looked at without a change to what is learnt from it. Raises what `sample` does.
        """
        plan, lead = self._plans.rows(gamma, goal, columns, None, 0.99), leading(batch_size, None)
        arrays = plan.allocate(lead)
        plan.draw(lead, arrays, first=self.batches_drawn)
        return plan.batch(arrays)

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
        try:
            plan = self._plans.made[gamma, goal, columns, length, partial, goal_from]
        except (KeyError, TypeError):
            plan = self._plans.segments(gamma, goal, columns, length, partial, goal_from)
        return plan.fill(leading(batch_size, num_batches), out)

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
            plan = self._plans.rows(gamma, goal, columns, n_step, discount)
        else:
            if n_step is not None:
                raise ValueError("n_step: not with length; a segment holds the rewards, ask for them in columns")
            plan = self._plans.segments(gamma, goal, columns, length, partial, goal_from)
        return Loader(plan, batch_size, device, prefetch, num_batches)

    def skip(self, num_batches: int) -> None:
        """Passes over so many batches: what is drawn next is what came after as many calls of `sample`.

        So a buffer that is filled anew with the same rows goes on where the former one was.
        """
        self._core.reserve(integer("num_batches", num_batches, 0))

    @property
    def batches_drawn(self) -> int:
        """Batches that were drawn or skipped: where the sampler is."""
        return self._core.next_batch

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

    def __exit__(self, *error: object) -> None:
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
        lead = (steps(episode_start), self.last_env - self.first_env)
        self._buffer._add(self._core, lead, columns, episode_start)

    def close(self) -> None:
        """Gives the environments back. Closing twice does nothing."""
        self._core.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _threads(sample_threads: int | None) -> int:
    return 0 if sample_threads is None else integer("sample_threads", sample_threads, 1, 1024)
