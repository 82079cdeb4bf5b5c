"""Random programs of every public call against the slow oracle, and against a twin that is never saved.

The twin has other threads and is given the same calls: its batches are the same, bit for bit, before and after loading.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from buffer_oracle import Oracle, columns, make
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import crl

STRATEGIES = ("geometric", "uniform", "final", "next", "random")
COLUMNS = ("row", "next_row", "next_observation", "next_action", "goal_row", "goal_observation", "goal_action")

goals = st.one_of(
    st.sampled_from(STRATEGIES),
    st.dictionaries(st.sampled_from(STRATEGIES), st.sampled_from([0.5, 1, 3.0]), min_size=1),
)


class BufferMachine(RuleBasedStateMachine):
    @initialize(
        num_envs=st.integers(1, 5), length=st.integers(2, 12), over=st.integers(0, 4), seed=st.integers(0, 2**64 - 1)
    )
    def begin(self, num_envs, length, over, seed):
        capacity = num_envs * length + min(over, num_envs - 1)
        self.buffer = make(num_envs, capacity, seed=seed, sample_threads=1)
        self.twin = make(num_envs, capacity, seed=seed, sample_threads=3)
        self.oracle = Oracle(num_envs, capacity)
        self.writers = {}
        self.out = {}

    # --- writing ---------------------------------------------------------------------------------------------------

    def rows(self, first, last, starts):
        """Columns of the next rows of some envs, [steps, envs]."""
        t = np.array(self.oracle.written[first:last]) + np.arange(len(starts))[:, None]
        return {**columns(np.arange(first, last), t), "episode_start": starts}

    def note(self, first, starts):
        for step in starts:
            for env, start in enumerate(step.tolist(), first):
                self.oracle.add(env, start)

    def starts(self, data, steps, envs):
        likely = data.draw(st.sampled_from([0.0, 0.1, 0.4, 1.0]))
        return np.random.default_rng(data.draw(st.integers(0, 99))).random((steps, envs)) < likely

    @precondition(lambda self: not self.writers)
    @rule(data=st.data(), steps=st.integers(0, 9))
    def add(self, data, steps):
        starts = self.starts(data, steps, self.buffer.num_envs)
        rows = self.rows(0, self.buffer.num_envs, starts)
        for buffer in (self.buffer, self.twin):
            if steps == 1:
                buffer.add(**{name: column[0] for name, column in rows.items()})
            else:
                buffer.add_rollout(**rows)
        self.note(0, starts)

    @rule(data=st.data())
    def open_or_close_a_writer(self, data):
        first = data.draw(st.integers(0, self.buffer.num_envs - 1))
        last = data.draw(st.integers(first + 1, self.buffer.num_envs))
        if (first, last) in self.writers:
            for writer in self.writers.pop((first, last)):
                writer.close()
        elif any(first < b and a < last for a, b in self.writers):
            with pytest.raises(RuntimeError, match="overlap"):
                self.buffer.writer(first, last)
        else:
            self.writers[first, last] = [buffer.writer(first, last) for buffer in (self.buffer, self.twin)]

    @precondition(lambda self: self.writers)
    @rule(data=st.data(), steps=st.integers(1, 9))
    def write_a_range(self, data, steps):
        first, last = data.draw(st.sampled_from(sorted(self.writers)))
        starts = self.starts(data, steps, last - first)
        rows = self.rows(first, last, starts)
        for writer in self.writers[first, last]:
            writer.add_rollout(**rows)
        self.note(first, starts)
        with pytest.raises(RuntimeError, match="writers hold envs"):
            self.buffer.add_rollout(**self.rows(0, self.buffer.num_envs, np.zeros((1, self.buffer.num_envs), bool)))

    @rule()
    def add_a_row_that_is_not_finite(self):
        rows = self.rows(0, self.buffer.num_envs, np.zeros((2, self.buffer.num_envs), bool))
        rows["action"][1, -1, 1] = np.nan
        with pytest.raises((ValueError, RuntimeError), match="NaN" if not self.writers else "writers hold"):
            self.buffer.add_rollout(**rows)

    # --- files -----------------------------------------------------------------------------------------------------

    @rule()
    def save_and_load(self):
        for writers in self.writers.values():
            for writer in writers:
                writer.close()
        self.writers.clear()
        with TemporaryDirectory() as folder:
            path = Path(folder) / "buffer"
            self.buffer.save(path)
            self.buffer = crl.TrajectoryBuffer.load(path, sample_threads=1)

    # --- sampling --------------------------------------------------------------------------------------------------

    @rule(goal=goals, gamma=st.sampled_from([1e-3, 0.5, 0.99, 1.0]), num_batches=st.sampled_from([None, 1, 3]))
    def sample(self, goal, gamma, num_batches):
        options = {"goal": goal, "gamma": gamma, "num_batches": num_batches, "columns": COLUMNS}
        futures = self.oracle.futures()
        if not futures:
            for buffer in (self.buffer, self.twin):
                with pytest.raises(ValueError, match="successor" if len(buffer) else "empty"):
                    buffer.sample(20, **options)
            return
        batch = self.out[num_batches] = self.buffer.sample(20, **options, out=self.out.get(num_batches))
        for (name, one), (_, other) in zip(batch.items(), self.twin.sample(20, **options).items(), strict=True):
            assert (one == other).all(), name
        row, goal_row, offset = batch.row, batch.goal_row, batch.offset
        for value, later in ((batch.observation, row), (batch.action, row), (batch.goal, goal_row)):
            assert (value == later[..., None]).all()
        for value in (batch.next_observation, batch.next_action):
            assert (value == batch.next_row[..., None]).all()
        for value in (batch.goal_observation, batch.goal_action):
            assert (value == goal_row[..., None]).all()
        assert (batch.next_row == row + 1).all()
        names = {goal} if isinstance(goal, str) else set(goal)
        stored = {100_000 * env + t for env, rows in enumerate(self.oracle.rows) for t, _ in rows}
        for r, g, k in zip(row.ravel().tolist(), goal_row.ravel().tolist(), offset.ravel().tolist(), strict=True):
            assert r in futures
            if k == 0:
                assert "random" in names
                assert g in stored
            else:
                assert g == r + k
                possible = {
                    "geometric": k <= futures[r],
                    "uniform": k <= futures[r],
                    "final": k == futures[r],
                    "next": k == 1,
                }
                assert any(possible.get(name) for name in names)

    # --- what is in it ---------------------------------------------------------------------------------------------

    @invariant()
    def counts_are_right(self):
        if hasattr(self, "oracle"):
            assert len(self.buffer) == self.oracle.stored()
            assert self.buffer.rows_written == sum(self.oracle.written)
            assert self.buffer.num_trajectories == self.oracle.trajectories()


TestBuffer = BufferMachine.TestCase
TestBuffer.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


class TestBufferAtLength(BufferMachine.TestCase):
    """The same, for minutes."""

    pytestmark = pytest.mark.slow
    settings = settings(max_examples=3000, stateful_step_count=60, deadline=None)
