"""What the buffer stores and samples, against a slow oracle; and what it refuses."""

import numpy as np
import pytest
from buffer_oracle import EXTRA, Oracle, columns, make

import crl


def fill(buffer, steps, starts=lambda t: t == 0, first=0):
    """Adds rows `first..first + steps` to every env; returns the oracle that saw the same from row 0."""
    envs = np.arange(buffer.num_envs)
    for t in range(first, first + steps):
        buffer.add(**columns(envs, t), episode_start=np.full(len(envs), bool(starts(t))))
    oracle = Oracle(buffer.num_envs, buffer.capacity)
    for t in range(first + steps):
        for env in envs:
            oracle.add(env, bool(starts(t)))
    return oracle


def rows_of(buffer, size=4000, **options):
    return set(buffer.sample(size, columns=EXTRA, **options).row.tolist())


def test_columns_of_every_dtype_and_shape_come_back():
    dtypes = [
        "bool",
        "uint8",
        "int8",
        "uint16",
        "int16",
        "uint32",
        "int32",
        "uint64",
        "int64",
        "float16",
        "float32",
        "float64",
    ]
    extras = {f"c_{name}_{i}": (shape, name) for name in dtypes for i, shape in enumerate([(), 3, (2, 5), (1, 1)])}
    buffer = crl.TrajectoryBuffer(2, 8, ((4, 4, 3), "uint8"), ((), np.int64), 2, extras=extras)
    rng = np.random.default_rng(0)
    shapes = {"observation": ((4, 4, 3), "uint8"), "action": ((), "int64"), "achieved_goal": ((2,), "float32")}
    shapes |= {
        name: (np.empty(np.atleast_1d(s).astype(int) if s != () else ()).shape, d) for name, (s, d) in extras.items()
    }
    stored = [
        {n: rng.integers(0, 2 if d == "bool" else 100, (2, *s)).astype(d) for n, (s, d) in shapes.items()}
        for _ in range(4)
    ]
    for t, row in enumerate(stored):
        buffer.add(**row, episode_start=np.full(2, t == 0))
    batch = buffer.sample(50, goal="next", columns=[*extras, *(f"next_{name}" for name in shapes)])
    for i in range(50):
        found = [
            (env, t)
            for t in range(3)
            for env in range(2)
            if all((getattr(batch, n)[i] == stored[t][n][env]).all() for n in shapes if n != "achieved_goal")
        ]
        assert found
        env, t = found[0]
        for name in shapes:
            value = getattr(batch, f"next_{name}")[i]
            assert value.dtype == shapes[name][1]
            assert (value == stored[t + 1][name][env]).all()
        assert (batch.goal[i] == stored[t + 1]["achieved_goal"][env]).all()


def test_a_random_goal_is_any_stored_row_with_offset_0():
    buffer = make(2, 20)
    fill(buffer, 10, lambda t: t % 5 == 0)
    batch = buffer.sample(20_000, goal="random", columns=("goal_row",))
    assert (batch.offset == 0).all()
    assert (batch.goal[:, 0] == batch.goal_row).all()
    values, counts = np.unique(batch.goal_row, return_counts=True)
    assert values.tolist() == [*range(10), *range(100_000, 100_010)]
    assert abs(counts - 1000).max() < 150


def test_a_mixture_keeps_its_weights():
    buffer = make(2, 200)
    fill(buffer, 100)
    offset = buffer.sample(40_000, goal={"next": 0.25, "random": 0.75}).offset
    assert set(offset.tolist()) == {0, 1}
    assert abs((offset == 1).mean() - 0.25) < 0.015


def test_few_eligible_rows_among_many_are_found_and_drawn_alike():
    buffer = make(64, 64 * 100)
    fill(buffer, 100, lambda t: t not in (50, 90))  # Two eligible rows an env, the rest single-row trajectories.
    values, counts = np.unique(buffer.sample(20_000, columns=EXTRA).row, return_counts=True)
    assert len(values) == 128
    assert abs(counts - 156).max() < 70


def test_rows_are_drawn_uniformly_however_unequal_the_fill():
    buffer = make(4, 400)
    for env, steps in ((0, 100), (1, 30), (3, 2)):
        with buffer.writer(env, env + 1) as writer:
            t = np.arange(steps)[:, None]
            writer.add_rollout(**columns(np.array([env]), t), episode_start=t == 0)
    row = buffer.sample(130_000, columns=EXTRA).row
    values, counts = np.unique(row, return_counts=True)
    assert len(values) == 99 + 29 + 1
    expected = 130_000 / 129
    assert ((counts - expected) ** 2 / expected).sum() < 200  # 128 degrees of freedom: p ~ 5e-5.


def test_a_trajectory_longer_than_the_ring_stays_usable_from_its_oldest_row():
    buffer = make(1, 8)
    oracle = fill(buffer, 100)
    assert oracle.futures() == {t: 99 - t for t in range(92, 99)}
    assert rows_of(buffer) == set(range(92, 99))
    assert buffer.num_trajectories == 1


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"num_envs": 0}, ValueError, "num_envs: expected 1"),
        ({"num_envs": 2.0}, TypeError, "num_envs: expected an integer"),
        ({"capacity": 3}, ValueError, "capacity: "),
        ({"num_envs": 10**6, "capacity": 10**15}, MemoryError, "capacity: .* GiB"),
        ({"observation": (0,)}, ValueError, "observation shape: expected 1"),
        ({"observation": (2**40, 2**40)}, ValueError, "observation: expected a shape"),
        ({"observation": ((3,), "complex64")}, ValueError, "dtype: expected one of"),
        ({"observation": ((3,), "nonsense")}, TypeError, "observation: expected a dtype"),
        ({"observation": ((3,), ">f4")}, TypeError, "byte order"),
        ({"observation": "abc"}, TypeError, "observation: expected a shape"),
        ({"extras": {"goal": ()}}, ValueError, "'goal' is taken"),
        ({"extras": {"next_a": ()}}, ValueError, "next_"),
        ({"seed": -1}, ValueError, "seed: expected 0"),
        ({"nonfinite": "warn"}, ValueError, "nonfinite"),
        ({"sample_threads": 0}, ValueError, "sample_threads"),
    ],
)
def test_the_constructor_refuses(options, error, match):
    arguments = {"num_envs": 2, "capacity": 20, "observation": (3,), "action": (2,), "achieved_goal": (1,)}
    with pytest.raises(error, match=match):
        crl.TrajectoryBuffer(**(arguments | options))


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"observation": np.zeros((2, 4), "f4")}, ValueError, r"observation: expected shape \(2, 3\); got \(2, 4\)"),
        ({"observation": np.zeros((3, 3), "f4")}, ValueError, r"observation: expected shape \(2, 3\)"),
        ({"observation": np.zeros((2, 3), "c8")}, TypeError, "observation: expected float32"),
        ({"observation": np.full((2, 3), None)}, TypeError, "observation: expected float32"),
        ({"observation": np.array([[0, 0, 0], [0, np.nan, 0]])}, ValueError, "observation: .*NaN or infinity in env 1"),
        ({"action": np.full((2, 2), 1e300)}, ValueError, "action: .*NaN or infinity in env 0"),
        ({"row": np.zeros(2)}, TypeError, "row: expected int64"),
        ({"row": np.full(2, 2**63, "u8")}, ValueError, "row: expected integers"),
        ({"episode_start": np.zeros(2)}, TypeError, "episode_start: expected bool"),
        ({"episode_start": np.zeros(3, bool)}, ValueError, "episode_start: expected shape"),
        ({"reward": np.zeros(2)}, TypeError, "unknown reward"),
        ({"action": ...}, TypeError, "missing action"),
    ],
)
def test_add_refuses_and_adds_nothing(change, error, match):
    buffer = make(2, 20)
    arguments = {**columns(np.arange(2), 0), "episode_start": np.ones(2, bool), **change}
    arguments = {name: value for name, value in arguments.items() if value is not ...}
    with pytest.raises(error, match=match):
        buffer.add(**arguments)
    assert buffer.rows_written == 0


def test_add_takes_what_converts_safely():
    buffer = make(2, 20, nonfinite="allow")
    row = columns(np.arange(2), 0)
    strided = np.repeat(row["observation"], 2, 1)[:, ::2]
    swapped = row["action"].astype(">f8")
    for observation in (row["observation"].tolist(), strided, row["observation"][:, ::-1], np.float16([[1] * 3] * 2)):
        buffer.add(
            observation=observation,
            action=swapped,
            achieved_goal=[[np.inf], [0]],
            row=[1, 2],
            episode_start=[False] * 2,
        )
    assert len(buffer) == 8


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"gamma": 0.0}, ValueError, r"gamma: expected a number in \(0, 1\]"),
        ({"gamma": 1.01}, ValueError, "gamma"),
        ({"gamma": float("nan")}, ValueError, "gamma"),
        ({"gamma": "0.9"}, TypeError, "gamma"),
        ({"goal": "later"}, ValueError, "goal: expected one of .*geometric"),
        ({"goal": {"next": -1}}, ValueError, "weights"),
        ({"goal": {}}, ValueError, "at least one weight"),
        ({"goal": 3}, TypeError, "goal"),
        ({"columns": ("nothing",)}, ValueError, 'columns: expected one of .*got "nothing"'),
        ({"columns": "row"}, TypeError, "columns: expected a sequence"),
        ({"columns": ("row", "row")}, ValueError, "each once"),
        ({"num_batches": 0}, ValueError, "num_batches"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"batch_size": 2.5}, TypeError, "batch_size"),
    ],
)
def test_sample_refuses(options, error, match):
    buffer = make(2, 20)
    fill(buffer, 5)
    with pytest.raises(error, match=match):
        buffer.sample(**({"batch_size": 4} | options))


def test_out_is_checked_before_it_is_written():
    buffer = make(2, 20)
    fill(buffer, 5)
    good = buffer.sample(4)
    with pytest.raises(TypeError, match=r"out.observation: expected a float32 array of shape \(5, 3\)"):
        buffer.sample(5, out=good)
    good.goal = good.goal.astype("f8")
    with pytest.raises(TypeError, match=r"out\.goal"):
        buffer.sample(4, out=good)
    frozen = buffer.sample(4)
    frozen.action.flags.writeable = False
    with pytest.raises(ValueError, match=r"out\.action: expected a writable"):
        buffer.sample(4, out=frozen)
    with pytest.raises(AttributeError, match="ask for it"):
        buffer.sample(4, columns=("row",), out=buffer.sample(4))


def test_an_empty_buffer_says_so():
    with pytest.raises(ValueError, match="empty"):
        make(2, 20).sample(4)


def test_writers_are_exclusive_and_give_back():
    buffer = make(4, 40)
    row = lambda envs: {**columns(envs, 0), "episode_start": np.ones(len(envs), bool)}  # noqa: E731
    writer = buffer.writer(1, 3)
    for first, last in ((0, 2), (2, 4), (1, 3), (0, 4)):
        with pytest.raises(RuntimeError, match="have a writer already"):
            buffer.writer(first, last)
    with pytest.raises(RuntimeError, match=r"writers hold envs \[1, 3\)"):
        buffer.add(**row(np.arange(4)))
    with buffer.writer(3, 4) as other:
        other.add(**row(np.array([3])))
    with pytest.raises(RuntimeError, match="closed"):
        other.add(**row(np.array([3])))
    writer.close()
    writer.close()
    buffer.add(**row(np.arange(4)))
    dropped = buffer.writer(0, 4)
    del dropped
    buffer.add(**row(np.arange(4)))
    for first, last in ((0, 0), (3, 2), (0, 5)):
        with pytest.raises(ValueError, match="first_env"):
            buffer.writer(first, last)
    assert buffer.rows_written == 9
