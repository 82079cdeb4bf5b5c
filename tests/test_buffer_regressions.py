"""The sampling bugs of other buffers, one test each, by project and number.

Each check holds for our buffer and for a slow one, and fails for the slow one with the bug planted in it: so it would
have found that bug.
"""

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from buffer_oracle import EXTRA, Oracle, SlowBuffer, check, columns, make

import crl

Make = Callable[[int, int], Any]


def planted(bug: type[SlowBuffer]) -> Callable[[Callable[[Make], None]], Callable[[str], None]]:
    """Makes a test of a check, run with our buffer, with the slow one, and with the one that has the bug."""

    def decorate(holds: Callable[[Make], None]) -> Callable[[str], None]:
        @pytest.mark.parametrize("buffer", ["crl", "slow", "planted"])
        def test(buffer: str) -> None:
            if buffer == "planted":
                with pytest.raises((AssertionError, IndexError)):
                    holds(bug)
            else:
                holds(make if buffer == "crl" else SlowBuffer)

        test.__doc__ = holds.__doc__
        return test

    return decorate


def fill(buffer: Any, steps: int, starts: Callable[[int], bool] = lambda t: t == 0, first: int = 0) -> None:
    """Adds rows `first..first + steps` to every env."""
    envs = np.arange(buffer.num_envs)
    for t in range(first, first + steps):
        buffer.add(**columns(envs, t), episode_start=np.full(len(envs), starts(t)))


def watched(buffer: Any, steps: int, starts: Callable[[int], bool] = lambda t: t == 0, first: int = 0) -> Oracle:
    """As `fill`; returns the oracle that saw the same from row 0."""
    fill(buffer, steps, starts, first)
    oracle = Oracle(buffer.num_envs, buffer.capacity)
    for t in range(first + steps):
        for env in range(buffer.num_envs):
            oracle.add(env, starts(t))
    return oracle


def load(buffer: Any) -> Any:
    """The buffer, saved and loaded."""
    with TemporaryDirectory() as folder:
        buffer.save(Path(folder) / "b")
        return type(buffer).load(Path(folder) / "b")


def rows_of(buffer: Any, size: int = 400) -> set[int]:
    return set(buffer.sample(size, columns=EXTRA).row.tolist())


def goals_of(buffer: Any, size: int = 400) -> set[int]:
    return set(buffer.sample(size, gamma=1.0).goal.ravel().astype(int).tolist())


# --- Stable-Baselines3 -----------------------------------------------------------------------------------------------


class LastStateIsLost(SlowBuffer):
    def follows(self, env, i):
        return self.last(env, i) > i + 1

    def offset(self, later, gamma):
        return super().offset(later - 1, gamma)


@planted(LastStateIsLost)
def test_stable_baselines3_847_848_the_last_state_of_an_episode_is_sampled(make):
    buffer = make(1, 20)
    fill(buffer, 10, lambda t: t % 5 == 0)
    assert {4, 9} <= goals_of(buffer)
    assert {3, 8} <= rows_of(buffer)


class IndexIsThatOfAllTime(SlowBuffer):
    written = 0

    def append(self, env, row):
        super().append(env, row)
        self.written += env == 0

    def draw(self):
        while True:
            i = int(self.rng.integers(self.written))
            if self.rows[0][i] and self.follows(0, i):
                return 0, i


@planted(IndexIsThatOfAllTime)
def test_stable_baselines3_234_236_a_full_ring_has_no_index_error(make):
    buffer = make(2, 14)
    for t in range(40):  # At each fill around the wrap.
        oracle = watched(buffer, 1, lambda t: t % 5 == 0, first=t)
        if oracle.futures():
            check(buffer.sample(50, columns=EXTRA), oracle.futures())


class LoadForgetsTrajectories(SlowBuffer):
    @classmethod
    def load(cls, path):
        loaded = super().load(path)
        for row in (row for rows in loaded.rows for row in rows):
            row["trajectory"] = 1
        return loaded


@planted(LoadForgetsTrajectories)
def test_stable_baselines3_1542_1543_trajectories_are_right_after_loading(make):
    buffer = make(2, 24)
    oracle = watched(buffer, 17, lambda t: t % 5 == 0)
    loaded = load(buffer)
    assert loaded.num_trajectories == buffer.num_trajectories == oracle.trajectories()
    check(loaded.sample(200, columns=EXTRA), oracle.futures())
    oracle = watched(loaded, 8, lambda t: t % 5 == 0, first=17)  # And they go on where they were.
    check(loaded.sample(200, columns=EXTRA), oracle.futures())
    assert loaded.num_trajectories == oracle.trajectories()


class CapacityShrinks(SlowBuffer):
    def __init__(self, num_envs, capacity):
        super().__init__(num_envs, capacity)
        self.length //= num_envs

    capacity = property(lambda self: self.num_envs**2 * self.length)


@planted(CapacityShrinks)
def test_stable_baselines3_654_950_the_capacity_is_kept_with_many_envs(make):
    for envs, asked, kept in ((3, 30, 30), (3, 32, 30), (7, 70, 70)):
        buffer = make(envs, asked)
        fill(buffer, 40)
        assert buffer.capacity == len(buffer) == kept


# --- tianshou, TorchRL, chainerrl ------------------------------------------------------------------------------------


class FutureIgnoresTheWrap(SlowBuffer):
    written = 0

    def append(self, env, row):
        super().append(env, row)
        self.written += env == 0

    def goal(self, env, i, offset):
        """As if the ring's slot 0 held the oldest row."""
        head = self.written % self.length if self.written > self.length else 0
        slot = min((i + head) % self.length + offset, self.length - 1)
        return self.rows[env][(slot - head) % self.length]


@planted(FutureIgnoresTheWrap)
def test_tianshou_811_the_future_index_is_right_after_the_wrap(make):
    buffer = make(1, 10)
    oracle = watched(buffer, 27, lambda t: t == 12)
    assert oracle.futures() == {t: 26 - t for t in range(17, 26)}
    batch = buffer.sample(400, gamma=1.0, columns=EXTRA)
    check(batch, oracle.futures())
    assert set(batch.row.tolist()) == set(range(17, 26))


class TrajectoriesRunOn(SlowBuffer):
    def last(self, env, i):
        return len(self.rows[env]) - 1


@planted(TrajectoriesRunOn)
def test_torchrl_2205_3120_nothing_crosses_a_trajectory(make):
    buffer = make(3, 300)
    oracle = watched(buffer, 100, lambda t: t % 7 == 0)
    check(buffer.sample(400, gamma=1.0, columns=EXTRA), oracle.futures())


def cost(call: Callable[[], Any]) -> float:
    """CPU seconds of this thread, at best: what the machine does besides is not counted."""
    times = []
    for _ in range(15):
        begun = time.thread_time()
        call()
        times.append(time.thread_time() - begun)
    return min(times)


class EveryRowIsListed(SlowBuffer):
    def draw(self):
        listed = [(env, i) for env, rows in enumerate(self.rows) for i in range(len(rows)) if self.follows(env, i)]
        return listed[int(self.rng.integers(len(listed)))]


@planted(EveryRowIsListed)
def test_torchrl_2669_a_batch_costs_the_same_however_many_rows_there_are(make):
    few, many = make(1, 20), make(1, 2000)
    for buffer in (few, many):
        fill(buffer, buffer.capacity, lambda t: t % 10 == 0)
    assert cost(lambda: many.sample(4)) < 10 * cost(lambda: few.sample(4))


class GoalsOfTheNeighbour(SlowBuffer):
    def goal(self, env, i, offset):
        return super().goal((env + 1) % self.num_envs, i, offset)


@planted(GoalsOfTheNeighbour)
def test_chainerrl_442_rows_of_envs_are_never_mixed(make):
    buffer = make(7, 70)
    fill(buffer, 25, lambda t: t % 4 == 0)
    batch = buffer.sample(400, columns=EXTRA)
    assert (batch.goal[:, 0] // 100_000 == batch.row // 100_000).all()
    assert (batch.observation[:, 0] == batch.row).all()


# --- Flashbax, OGBench -----------------------------------------------------------------------------------------------


class FullAddsNothing(SlowBuffer):
    def append(self, env, row):
        if len(self.rows[env]) < self.length:
            super().append(env, row)


@planted(FullAddsNothing)
def test_flashbax_66_an_exactly_full_buffer_goes_on(make):
    buffer = make(2, 20)
    fill(buffer, 10)
    assert rows_of(buffer) == {*range(9), *range(100_000, 100_009)}
    fill(buffer, 1, first=10)
    assert len(buffer) == 20
    assert rows_of(buffer) == {*range(1, 10), *range(100_001, 100_010)}


class LoadShrinks(SlowBuffer):
    @classmethod
    def load(cls, path):
        loaded = super().load(path)
        loaded.length //= 2
        loaded.rows = [rows[-loaded.length :] for rows in loaded.rows]
        return loaded


@planted(LoadShrinks)
def test_flashbax_15_the_buffer_keeps_its_size_when_loaded(make):
    buffer = make(2, 20)
    fill(buffer, 35, lambda t: t % 9 == 0)
    loaded = load(buffer)
    assert len(loaded) == loaded.capacity == 20
    assert rows_of(loaded) == rows_of(buffer)


class StopsOneShort(SlowBuffer):
    def append(self, env, row):
        super().append(env, row)
        self.rows[env] = self.rows[env][-(self.length - 1) :]


@planted(StopsOneShort)
def test_ogbench_the_buffer_is_filled_to_its_last_row(make):
    buffer = make(1, 12)
    for t in range(30):
        fill(buffer, 1, first=t)
        assert len(buffer) == min(t + 1, 12)
    assert rows_of(buffer) == set(range(18, 29))


class OffsetsAreClamped(SlowBuffer):
    def offset(self, later, gamma):
        return min(int(self.rng.geometric(1 - gamma)), later)


@planted(OffsetsAreClamped)
def test_ogbench_offsets_are_truncated_not_clamped(make):
    """contrastive-rl does the same: mass piles up on the last state."""
    buffer = make(1, 11)
    fill(buffer, 11)
    batch = buffer.sample(4000, columns=EXTRA)
    last = batch.offset[batch.row == 0]
    expected = 0.99**10 / sum(0.99**k for k in range(1, 11))
    assert abs((last == 10).mean() - expected) < 0.05  # Clamped: 0.91 rather than 0.095.


# --- JaxGCRL and scaling-crl -----------------------------------------------------------------------------------------


class WindowsStraddle(SlowBuffer):
    def last(self, env, i):
        return min(i + 10, len(self.rows[env]) - 1)


@planted(WindowsStraddle)
def test_jaxgcrl_windows_never_straddle_episodes(make):
    buffer = make(2, 100)
    oracle = watched(buffer, 60, lambda t: t % 13 == 0)
    check(buffer.sample(400, gamma=1.0, columns=EXTRA), oracle.futures())


class NewestIsLeftOut(SlowBuffer):
    def last(self, env, i):
        return min(super().last(env, i), max(len(self.rows[env]) - 2, i))


@planted(NewestIsLeftOut)
def test_jaxgcrl_the_newest_row_is_reached(make):
    buffer = make(1, 50)
    for t in range(1, 60):
        fill(buffer, 1, lambda t: t % 10 == 0, first=t)
        if t % 10 and t > 1:
            assert t in goals_of(buffer, 200)


class ZerosAreRows(SlowBuffer):
    def __init__(self, num_envs, capacity):
        super().__init__(num_envs, capacity)
        zero = {name: np.zeros_like(column[0]) for name, column in columns(np.arange(1), 0).items()}
        self.rows = [[zero | {"trajectory": 0} for _ in range(self.length)] for _ in range(num_envs)]


@planted(ZerosAreRows)
def test_jaxgcrl_no_row_is_sampled_that_was_not_written(make):
    buffer = make(2, 2000)
    fill(buffer, 4, first=3)  # No written row is 0, and the prefill is shorter than an episode.
    batch = buffer.sample(400, columns=EXTRA)
    assert set(batch.row.tolist()) == {3, 4, 5, 100_003, 100_004, 100_005}
    assert (batch.goal[:, 0] % 100_000 > 3).all()
    assert buffer.num_trajectories == 2


class LastIsItsOwnGoal(SlowBuffer):
    def follows(self, env, i):
        return True

    def offset(self, later, gamma):
        return super().offset(later, gamma) if later else 0


@planted(LastIsItsOwnGoal)
def test_jaxgcrl_no_state_is_its_own_goal(make):
    buffer = make(1, 50)
    fill(buffer, 20, lambda t: t % 10 == 0)
    batch = buffer.sample(400)
    assert (batch.offset > 0).all()
    assert (batch.goal[:, 0] != batch.observation[:, 0]).all()


class AMatrixOfTheTrajectory(SlowBuffer):
    def last(self, env, i):
        t = np.arange(len(self.rows[env]), dtype=float)
        weights = 0.99 ** np.abs(t - t[:, None])
        return super().last(env, i) if weights[i, i] else i


@planted(AMatrixOfTheTrajectory)
def test_jaxgcrl_relabelling_does_not_cost_the_square_of_the_length(make):
    short, long = make(1, 10), make(1, 1000)
    for buffer in (short, long):
        fill(buffer, buffer.capacity)
    assert cost(lambda: long.sample(1)) < 20 * cost(lambda: short.sample(1))


class InsertMovesEverything(SlowBuffer):
    def append(self, env, row):
        self.rows[env] = [dict(old) for old in self.rows[env][-(self.length - 1) :]] + [row]


@planted(InsertMovesEverything)
def test_jaxgcrl_adding_does_not_move_what_is_stored(make):
    small, large = make(1, 10), make(1, 1000)
    for buffer in (small, large):
        fill(buffer, buffer.capacity)
    row = columns(np.arange(1), 0) | {"episode_start": np.zeros(1, bool)}
    assert cost(lambda: [large.add(**row) for _ in range(10)]) < 10 * cost(
        lambda: [small.add(**row) for _ in range(10)]
    )


# --- Gymnasium's autoreset -------------------------------------------------------------------------------------------


class StartsAreIgnored(SlowBuffer):
    def add(self, *, episode_start, **columns):
        super().add(episode_start=np.zeros_like(episode_start), **columns)


@planted(StartsAreIgnored)
def test_cleanrl_499_the_reset_row_does_not_follow_the_terminal_one(make):
    """Three episodes of 4 rows, the last of which each holds the final observation: it stays a goal."""
    buffer = make(1, 50)
    fill(buffer, 12, lambda t: t % 4 == 0)
    batch = buffer.sample(400, gamma=1.0, columns=EXTRA)
    assert set(batch.row.tolist()) == {0, 1, 2, 4, 5, 6, 8, 9, 10}
    assert {3, 7, 11} <= set(batch.goal.ravel().astype(int).tolist())
    assert (batch.row // 4 == batch.goal[:, 0] // 4).all()


def test_capacity_that_is_no_buffer_is_refused():
    """Stable-Baselines3 #654, #950: rather than shrunk."""
    assert make(3, 10).capacity == 9
    with pytest.raises(ValueError, match=r"capacity: .*2 to .* rows for each of the 6 envs; got 10, 1 for each"):
        crl.TrajectoryBuffer(6, 10, (), (), ())
