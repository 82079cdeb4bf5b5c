"""Segments: consecutive rows of one trajectory, all drawn alike, with one goal each; padded where that is asked for."""

import threading
import time

import numpy as np
import pytest
from buffer_oracle import Oracle, columns, make
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

COLUMNS = ("row", "next_row", "next_observation", "goal_row")


def rollout(num_envs, length, steps, starts, **options):
    """A buffer and its oracle after `steps` rows in every env; `starts` is [steps, num_envs] or a period."""
    envs = np.arange(num_envs)
    if isinstance(starts, int):
        starts = np.arange(steps)[:, None] % starts == 0 * envs
    buffer, oracle = make(num_envs, num_envs * length, **options), Oracle(num_envs, num_envs * length)
    buffer.add_rollout(**columns(envs, np.arange(steps)[:, None] + 0 * envs), episode_start=starts)
    for t in range(steps):
        for env in envs:
            oracle.add(int(env), bool(starts[t, env]))
    return buffer, oracle


def check(batch, oracle, length, *, partial, goal_from, goal="geometric"):
    """Every segment is whole, within one trajectory, and its goal where it should be."""
    futures = oracle.futures()
    mask = batch.mask if partial else np.ones_like(batch.row, bool)
    assert mask.dtype == bool
    assert mask[:, 0].all()
    row = batch.row[:, :1] + np.arange(length)
    expected = np.where(mask, row, 0)
    assert (batch.row == expected).all()
    for name in ("observation", "action"):
        assert (getattr(batch, name) == expected[..., None]).all(), name
    assert (batch.next_row == np.where(mask, row + 1, 0)).all()
    assert (batch.next_observation == np.where(mask, row + 1, 0)[..., None]).all()
    for first, there, offset, goal_row in zip(row[:, 0].tolist(), mask, batch.offset, batch.goal_row, strict=True):
        rows = min(length, futures[first]) if partial else length
        assert there.tolist() == [True] * rows + [False] * (length - rows)
        base = first + (rows - 1 if goal_from == "last" else 0)
        assert rows <= futures[first], "beyond the trajectory"
        if goal == "random":
            assert offset == 0
        else:
            assert goal_row == base + offset
            assert 1 <= offset <= futures[base]
            assert goal != "final" or offset == futures[base]
            assert goal != "next" or offset == 1
    assert (batch.goal[:, 0] == batch.goal_row).all()


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_random_programs_agree_with_the_oracle(data):
    num_envs, length = data.draw(st.integers(1, 4)), data.draw(st.integers(2, 30))
    steps = data.draw(st.integers(1, 70))
    chance = data.draw(st.sampled_from([0.0, 0.05, 0.3, 1.0]))
    starts = np.random.default_rng(data.draw(st.integers(0, 2**32))).random((steps, num_envs)) < chance
    buffer, oracle = rollout(num_envs, length, steps, starts, seed=data.draw(st.integers(0, 99)))
    wanted, partial = data.draw(st.integers(1, length - 1)), data.draw(st.booleans())
    options = {
        "partial": partial,
        "goal_from": data.draw(st.sampled_from(["first", "last"])),
        "goal": data.draw(st.sampled_from(["geometric", "uniform", "final", "next", "random"])),
    }
    longest = max(oracle.futures().values(), default=0)
    if longest < (1 if partial else wanted):
        match = rf"length: expected at most {longest}, .* has {longest + 1} rows" if longest else "successor"
        with pytest.raises(ValueError, match=match):
            buffer.sample_segments(8, wanted, columns=COLUMNS, **options)
    else:
        check(buffer.sample_segments(64, wanted, columns=COLUMNS, **options), oracle, wanted, **options)


def p_value(buffer, eligible, draws, *arguments, **options):
    """Of the first rows of that many segments, if all eligible rows are drawn alike."""
    counts = np.zeros(len(eligible), np.int64)
    out = buffer.sample_segments(10_000, *arguments, columns=("row",), **options)
    for _ in range(draws // 10_000):
        first = out.row[:, 0]
        index = np.searchsorted(eligible, first)
        assert (np.asarray(eligible)[index] == first).all()
        counts += np.bincount(index, minlength=len(eligible))
        buffer.sample_segments(10_000, *arguments, columns=("row",), out=out, **options)
    return stats.chisquare(counts).pvalue


@pytest.mark.parametrize("length", [1, 2, 5, 12])
@pytest.mark.parametrize("partial", [False, True])
def test_all_segments_are_drawn_alike(length, partial):
    """Over open, closed and wrapped trajectories of unequal length; at 12 most draws come from the list of rows."""
    starts = np.random.default_rng(3).random((97, 3)) < 0.12
    buffer, oracle = rollout(3, 40, 97, starts)
    eligible = sorted(row for row, later in oracle.futures().items() if later >= (1 if partial else length))
    assert len(eligible) > 5
    assert p_value(buffer, eligible, 500_000, length, partial=partial) > 1e-4


def test_one_segment_among_many_rows_is_found():
    buffer, _ = rollout(50, 101, 101, 101)
    with buffer.writer(7, 8) as writer:
        writer.add(**columns(np.array([7]), 101), episode_start=[False])
    batch = buffer.sample_segments(500, 100, columns=("row",))
    assert set(batch.row[:, 0].tolist()) == {100_000 * env for env in range(50) if env != 7} | {700_001}


@pytest.mark.parametrize(("goal_from", "length", "horizon"), [("first", 10, 10), ("last", 6, 5)])
def test_goals_follow_the_law_from_their_row(goal_from, length, horizon):
    """Of a trajectory of 11 rows, the segment that begins with its first row."""
    buffer, _ = rollout(1, 11, 11, 11)
    batch = buffer.sample_segments(100_000, length, gamma=0.8, goal_from=goal_from, columns=("row",))
    offset = batch.offset[batch.row[:, 0] == 0]
    pmf = 0.8 ** np.arange(1, horizon + 1)
    assert stats.chisquare(np.bincount(offset)[1:], pmf / pmf.sum() * len(offset)).pvalue > 1e-4


def test_num_batches_is_as_many_calls_and_out_is_filled_in_place():
    (one, _), (many, _) = (rollout(3, 100, 120, 17) for _ in range(2))
    batches = many.sample_segments(9, 20, partial=True, num_batches=3, columns=COLUMNS)
    assert batches.observation.shape == (3, 9, 20, 3)
    assert batches.goal.shape == (3, 9, 1)
    assert batches.mask.shape == (3, 9, 20)
    out = one.sample_segments(9, 20, partial=True, columns=COLUMNS)
    for k in range(3):
        if k:
            assert one.sample_segments(9, 20, partial=True, columns=COLUMNS, out=out) is out
        for name, array in batches[k].items():
            assert (array == getattr(out, name)).all(), name


def test_rows_and_segments_share_the_numbers_of_batches():
    (one, _), (other, _) = (rollout(2, 100, 90, 30) for _ in range(2))
    one.sample(5)
    other.sample_segments(7, 4)
    assert (one.sample_segments(8, 3).observation == other.sample_segments(8, 3).observation).all()


@pytest.mark.parametrize("threads", [2, 8])
def test_the_same_seed_gives_the_same_segments_at_any_number_of_threads(threads):
    (one, _), (many, _) = (rollout(4, 500, 700, 77, seed=5, sample_threads=n) for n in (1, threads))
    options = {"partial": True, "goal": {"geometric": 1, "random": 1}, "num_batches": 4}
    a, b = (buffer.sample_segments(2000, 50, **options) for buffer in (one, many))
    assert a.observation.nbytes > 4 << 20  # Large enough to be shared.
    for (name, x), (_, y) in zip(a.items(), b.items(), strict=True):
        assert (x == y).all(), name


def test_segments_of_every_dtype_cross_the_end_of_the_ring():
    extras = {name: ((2,), name) for name in ("bool", "uint8", "float16", "int16", "float64")}
    buffer = make(1, 10, extras=extras | {"row": ((), "int64")})
    t = np.arange(17)[:, None]
    rows = columns(np.arange(1), t) | {name: np.repeat(t % 2, 2, -1)[:, None].astype(name) for name in extras}
    buffer.add_rollout(**rows, episode_start=t == 0)
    batch = buffer.sample_segments(50, 9, columns=("row", *extras))
    assert (batch.row == np.arange(7, 16)).all()  # Slots 7, 8, 9, 0, 1, …
    for name in extras:
        assert getattr(batch, name).dtype == name
        assert (getattr(batch, name) == (batch.row % 2)[..., None]).all()


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"length": 0}, ValueError, "length: expected 1"),
        ({"length": 2.0}, TypeError, "length: expected an integer"),
        ({"length": 40}, ValueError, "length: expected 1 to 39; got 40: each environment keeps 40 rows"),
        ({"length": 12}, ValueError, "length: expected at most 9, .* has 10 rows"),
        ({"goal_from": "middle"}, ValueError, 'goal_from: expected "first" or "last"; got "middle"'),
        ({"goal_from": 3}, TypeError, "goal_from: expected str"),
        ({"partial": 2}, TypeError, "partial: expected bool"),
        ({"columns": ("n_step_return",)}, ValueError, "columns: expected one of"),
        ({"columns": ("row", "row")}, ValueError, "each once"),
        ({"gamma": 0}, ValueError, "gamma"),
        ({"num_batches": 0}, ValueError, "num_batches"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"out": 3}, AttributeError, "observation"),
    ],
)
def test_bad_arguments_are_refused(options, error, match):
    buffer, _ = rollout(2, 40, 30, 10)
    with pytest.raises(error, match=match):
        buffer.sample_segments(**({"batch_size": 4, "length": 3} | options))


def test_an_empty_buffer_and_one_of_single_rows_say_so():
    with pytest.raises(ValueError, match="empty"):
        make(2, 20).sample_segments(4, 2)
    buffer, _ = rollout(2, 10, 5, 1)
    for partial in (False, True):
        with pytest.raises(ValueError, match="none of the 10 stored rows has a successor"):
            buffer.sample_segments(4, 2, partial=partial)


def test_out_of_another_length_is_refused():
    buffer, _ = rollout(2, 40, 30, 10)
    with pytest.raises(TypeError, match=r"out\.observation: expected a float32 array of shape \(4, 5, 3\)"):
        buffer.sample_segments(4, 5, out=buffer.sample_segments(4, 6))


def test_no_torn_segment_under_writers():
    """A writer laps small rings while two threads sample: a segment's rows follow each other in one trajectory."""
    buffer = make(4, 4 * 64)
    envs = np.arange(4)
    first = np.arange(60)[:, None] + 0 * envs
    buffer.add_rollout(**columns(envs, first), episode_start=first % 25 == 0)
    stop, errors, sampled = threading.Event(), [], [0]

    def write():
        for t in range(60, 90_000, 5):  # Values stay below 2**24: exact in float32.
            if stop.is_set():
                return
            steps = np.arange(t, t + 5)[:, None] + 0 * envs
            buffer.add_rollout(**columns(envs, steps), episode_start=steps % 25 == 0)

    def sample():
        try:
            while not stop.is_set():
                batch = buffer.sample_segments(200, 20, columns=COLUMNS)
                row = batch.row
                assert (row == row[:, :1] + np.arange(20)).all(), "torn"
                assert (batch.observation == row[..., None]).all(), "torn"
                assert (batch.next_row == row + 1).all(), "torn"
                assert (row[:, 0] % 100_000 // 25 == batch.goal_row % 100_000 // 25).all(), "foreign trajectory"
                assert (batch.goal_row == row[:, -1] + batch.offset).all(), "wrong goal"
                sampled[0] += len(row)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for work in (write, sample, sample)]
    for thread in threads:
        thread.start()
    time.sleep(2)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert not errors, errors[0]
    assert sampled[0] > 1000
    assert buffer.rows_written > 8 * 64  # The rings were lapped.
