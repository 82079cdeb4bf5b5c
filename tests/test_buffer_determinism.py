"""Batch k is a function of the seed, k and the rows: at any number of threads, after loading, and on every machine.

`python tests/test_buffer_determinism.py` writes the golden file anew, where a change of the draws is meant.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from buffer_oracle import columns, make

import crl

GOLDEN = Path(__file__).parent / "golden_draws.json"
GOALS = ["geometric", "uniform", "final", "next", "random", {"geometric": 0.5, "random": 0.25, "final": 0.25}]
NAMES = [goal if isinstance(goal, str) else "mixture" for goal in GOALS]


def wrapped(**options):
    """4 envs with 1000 rows each, of which the last 900 are stored; trajectories of 77 rows."""
    buffer = make(4, 3600, **options)
    t = np.arange(1000)[:, None] + 0 * np.arange(4)
    buffer.add_rollout(**columns(np.arange(4), t), episode_start=t % 77 == 0)
    return buffer


def assert_equal(one, other):
    for (name, x), (_, y) in zip(one.items(), other.items(), strict=True):
        assert (x == y).all(), name


def draws():
    """The first 64 draws of each strategy: rows and goal rows."""
    found = {}
    for name, goal in zip(NAMES, GOALS, strict=True):
        batch = wrapped(seed=2026).sample(64, gamma=0.97, goal=goal, columns=("row", "goal_row"))
        found[name] = {"row": batch.row.tolist(), "goal": batch.goal_row.tolist()}
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_first_draws_are_the_golden_ones(name):
    assert draws()[name] == json.loads(GOLDEN.read_text(encoding="utf-8"))[name]


@pytest.mark.parametrize("goal", GOALS, ids=NAMES)
@pytest.mark.parametrize("threads", [2, 8])
def test_the_number_of_threads_changes_nothing(threads, goal):
    one, many = wrapped(seed=5, sample_threads=1), wrapped(seed=5, sample_threads=threads)
    size = 50_001  # With num_batches large enough to be shared, and batches begin within a thread's part.
    assert 4 * size * (12 + 8 + 4 + 4) > 4 << 20
    assert_equal(one.sample(size, goal=goal, num_batches=4), many.sample(size, goal=goal, num_batches=4))
    assert_equal(one.sample(100, goal=goal), many.sample(100, goal=goal))


def test_other_seeds_give_other_batches():
    batches = [wrapped(seed=seed).sample(100).observation for seed in (5, 6, 5 + 2**32, 5 + 2**63)]
    assert len({batch.tobytes() for batch in batches}) == 4


def test_a_buffer_loaded_within_a_trajectory_goes_on_alike(tmp_path):
    buffer = wrapped(seed=7)
    buffer.sample(33, num_batches=3)
    buffer.save(tmp_path / "b")
    loaded = crl.TrajectoryBuffer.load(tmp_path / "b")
    for t in range(1000, 1100):
        for one in (buffer, loaded):
            one.add(**columns(np.arange(4), t), episode_start=np.full(4, t % 77 == 0))
        assert_equal(buffer.sample(33), loaded.sample(33))


def test_a_refilled_batch_is_the_same_memory_and_the_same_draws():
    one, many = wrapped(), wrapped()
    batches = many.sample(17, num_batches=4)
    out = one.sample(17)
    held = out.observation
    for k in range(4):
        if k:
            assert one.sample(17, out=out) is out
        assert out.observation is held
        assert_equal(batches[k], out)


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(draws()) + "\n", encoding="utf-8")
