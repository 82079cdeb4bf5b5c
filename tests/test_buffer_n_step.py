"""n-step returns against a slow oracle: sums of stored rewards, bootstrapped where the trajectory goes on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import crl

COLUMNS = ("row", "n_step_return", "n_step_discount", "n_step_offset", "n_step_observation", "n_step_row")


def make(num_envs, capacity, *, reward="float32", terminated=True, seed=0):
    extras = {"row": ((), "int64"), "reward": ((), reward)}
    extras |= {"terminated": ((), "bool")} if terminated else {}
    return crl.TrajectoryBuffer(num_envs, capacity, (2,), 1, 1, extras=extras, seed=seed)


def expected(reward, terminated, last, t, n, discount, dtype):
    """Row t of a trajectory whose last row is `last`: the return, the discount of what follows, and how many rows."""
    total, weight, m = 0.0, 1.0, 0
    while m < n and t + m < last:
        total += weight * float(reward[t + m])
        weight *= discount
        m += 1
        if terminated[t + m - 1]:
            return dtype(total), dtype(0), m
    return dtype(total), dtype(weight), m


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 9),
    discount=st.sampled_from([0.0, 0.5, 0.99, 1.0]),
    reward=st.sampled_from(["float32", "float64", "float16", "int32", "bool", "uint64"]),
    chance=st.sampled_from([0.0, 0.1, 0.5]),
    ends=st.sampled_from([0.0, 0.2]),
    steps=st.integers(2, 70),
    with_terminated=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_returns_are_those_of_the_oracle(n, discount, reward, chance, ends, steps, with_terminated, seed):
    """Trajectories of every length, also terminated ones that go on, in rings that wrap."""
    rng = np.random.default_rng(seed)
    envs = np.arange(2)
    rows = np.arange(steps)[:, None] + 1000 * envs
    start = rng.random((steps, 2)) < chance
    rewards = rng.normal(size=(steps, 2)) * 10
    rewards = (np.abs(rewards) if np.dtype(reward).kind in "bu" else rewards).astype(reward)
    terminated = (rng.random((steps, 2)) < ends) & with_terminated
    buffer = make(2, 2 * 40, reward=reward, terminated=with_terminated)
    buffer.add_rollout(
        observation=np.repeat(rows[..., None], 2, -1).astype("f4"),
        action=np.zeros((steps, 2, 1), "f4"),
        achieved_goal=rows[..., None].astype("f4"),
        row=rows,
        reward=rewards,
        episode_start=start,
        **({"terminated": terminated} if with_terminated else {}),
    )
    try:
        batch = buffer.sample(200, n_step=n, discount=discount, columns=COLUMNS)
    except ValueError:
        assert start[max(1, steps - 39) :].all()  # No row has a successor.
        return
    dtype = np.float64 if reward == "float64" else np.float32
    assert batch.n_step_return.dtype == batch.n_step_discount.dtype == dtype
    assert batch.n_step_offset.dtype == np.int32
    for i, row in enumerate(batch.row.tolist()):
        env, t = divmod(row, 1000)
        later = np.flatnonzero(start[t + 1 :, env])
        last = t + later[0] if later.size else steps - 1
        value, weight, m = expected(rewards[:, env], terminated[:, env], last, t, n, discount, dtype)
        assert batch.n_step_return[i] == value
        assert batch.n_step_discount[i] == weight
        assert batch.n_step_offset[i] == m
        assert (batch.n_step_observation[i] == row + m).all()
        assert batch.n_step_row[i] == row + m


def filled(**options):
    buffer = make(1, 100, **options)
    t = np.arange(12)[:, None]
    more = {"terminated": t == 7} if options.get("terminated", True) else {}
    zero = np.zeros((12, 1, 2), "f4")
    buffer.add_rollout(
        observation=zero,
        action=zero[..., :1],
        achieved_goal=zero[..., :1],
        row=t,
        reward=2.0**t,
        episode_start=(t == 0) | (t == 9),
        **more,
    )
    return buffer


def test_by_hand():
    """Rewards 1, 2, 4, …; row 7 terminates, row 8 holds the final observation; rows 9, 10, 11 are cut short at 11."""
    batch = filled().sample(500, n_step=3, discount=0.5, columns=COLUMNS)
    told = {
        row: (value, weight, m)
        for row, value, weight, m in zip(
            batch.row.tolist(),
            batch.n_step_return.tolist(),
            batch.n_step_discount.tolist(),
            batch.n_step_offset.tolist(),
            strict=True,
        )
    }
    assert told[0] == (1 + 0.5 * 2 + 0.25 * 4, 0.125, 3)
    assert told[5] == (32 + 32 + 32, 0.0, 3)  # Row 7 is the third.
    assert told[6] == (64 + 64, 0.0, 2)
    assert told[7] == (128, 0.0, 1)
    assert told[9] == (512 + 512, 0.25, 2)  # Bootstrapped from row 11: a time limit is no termination.
    assert told[10] == (1024, 0.5, 1)
    assert set(told) == {0, 1, 2, 3, 4, 5, 6, 7, 9, 10}


def test_one_step_is_the_reward_and_the_next_row():
    batch = filled().sample(300, n_step=1, columns=(*COLUMNS, "reward", "next_row"))
    assert (batch.n_step_return == batch.reward).all()
    assert (batch.n_step_row == batch.next_row).all()
    assert set(batch.n_step_discount.tolist()) == {0.0, np.float32(0.99)}


def test_goals_are_drawn_as_without():
    plain = filled().sample(100, goal={"geometric": 1, "random": 1})
    ahead = filled().sample(100, goal={"geometric": 1, "random": 1}, n_step=3, columns=("n_step_return",))
    for (name, one), (_, other) in zip(plain.items(), list(ahead.items())[:4], strict=True):
        assert (one == other).all(), name


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"columns": ("n_step_return",)}, ValueError, "n_step_return needs n_step"),
        ({"n_step": 3}, ValueError, "n_step: ask for what it is to tell"),
        ({"n_step": 3, "columns": ("row",)}, ValueError, "n_step: ask"),
        ({"n_step": 0, "columns": ("n_step_return",)}, ValueError, "n_step: expected 1"),
        ({"n_step": 2.0, "columns": ("n_step_return",)}, TypeError, "n_step: expected an integer"),
        ({"n_step": 3, "discount": 1.5, "columns": ("n_step_return",)}, ValueError, r"discount: .* \[0, 1\]; got 1.5"),
        ({"n_step": 3, "discount": float("nan"), "columns": ("n_step_return",)}, ValueError, "discount"),
        ({"n_step": 3, "discount": "1", "columns": ("n_step_return",)}, TypeError, "discount: expected a number"),
        ({"n_step": 3, "columns": ("n_step_nothing",)}, ValueError, 'after n_step_ expected .*got "nothing"'),
    ],
)
def test_bad_arguments_are_refused(options, error, match):
    with pytest.raises(error, match=match):
        filled().sample(4, **options)


@pytest.mark.parametrize(
    ("extras", "match"),
    [
        ({}, r'n_step_return needs an extra "reward" of shape \(\)'),
        ({"reward": ((3,), "f4")}, r'"reward" of shape \(\)'),
        ({"reward": (), "terminated": ((), "f4")}, r'"terminated" must have the shape \(\) and the dtype bool'),
        ({"reward": (), "terminated": ((1,), "bool")}, '"terminated" must have'),
    ],
)
def test_the_columns_that_returns_are_made_of(extras, match):
    buffer = crl.TrajectoryBuffer(1, 10, 1, 1, 1, extras=extras)
    with pytest.raises(ValueError, match=match):
        buffer.sample(4, n_step=2, columns=("n_step_return",))


def test_rows_ahead_need_no_rewards():
    buffer = crl.TrajectoryBuffer(1, 10, (), 1, 1)
    t = np.arange(5)[:, None]
    buffer.add_rollout(observation=t, action=t[..., None], achieved_goal=t[..., None], episode_start=t == 0)
    batch = buffer.sample(50, n_step=3, columns=("n_step_observation", "n_step_offset"))
    assert (batch.n_step_observation == np.minimum(batch.observation + 3, 4)).all()
    assert (batch.n_step_offset == batch.n_step_observation - batch.observation).all()
