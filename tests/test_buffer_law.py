"""The law of the offset and of the rows, at ten million draws."""

from pathlib import Path

import numpy as np
import pytest
from buffer_oracle import Oracle, columns, make
from scipy import stats

import crl

GOLDEN = Path(__file__).parent / "golden.npz"
DRAWS = 10_000_000


def offsets(gamma: float, horizon: int, draws: int) -> np.ndarray:
    """Offsets of the first row of a trajectory of horizon + 1 rows; draws of the others are thrown away."""
    buffer = crl.TrajectoryBuffer(1, horizon + 1, (), (), (), extras={"later": ((), "int32")}, seed=1)
    t = np.arange(horizon + 1)[:, None]
    zero = np.zeros((horizon + 1, 1), np.float32)
    buffer.add_rollout(
        observation=zero, action=zero, achieved_goal=zero, later=(horizon - t).astype(np.int32), episode_start=t == 0
    )
    counts = np.zeros(horizon + 1, np.int64)
    out = buffer.sample(500_000, gamma=gamma, columns=("later",))
    while True:
        kept = out.offset[out.later == horizon]
        counts += np.bincount(kept, minlength=horizon + 1)
        if counts.sum() >= draws:
            return counts[1:]
        buffer.sample(500_000, gamma=gamma, columns=("later",), out=out)


def chi_square(counts: np.ndarray, pmf: np.ndarray) -> float:
    """The p-value; cells that expect fewer than 10 draws are taken together."""
    expected = pmf * counts.sum()
    small = expected < 10
    groups = [np.append(x[~small], x[small].sum()) for x in (counts, expected)]
    seen, expected = (group[:-1] if not small.any() else group for group in groups)
    return 1.0 if len(seen) < 2 else float(stats.chisquare(seen, expected * seen.sum() / expected.sum()).pvalue)


@pytest.mark.parametrize("gamma", [0.9, 0.99, 0.999])
@pytest.mark.parametrize("horizon", [1, 2, 10])
def test_short_horizons_follow_the_law(gamma, horizon):
    with np.load(GOLDEN) as golden:
        pmf, mean = golden[f"geom/{gamma}/{horizon}/pmf"], float(golden[f"geom/{gamma}/{horizon}/mean"])
    counts = offsets(gamma, horizon, 1_000_000)
    assert chi_square(counts, pmf) > 1e-4
    assert counts @ np.arange(1, horizon + 1) / counts.sum() == pytest.approx(mean, rel=0.002)


@pytest.mark.parametrize("gamma", [0.9, 0.99, 0.999])
@pytest.mark.parametrize("length", [1, 2, 10, 1000])
def test_all_horizons_of_a_trajectory_together(gamma, length):
    """Rows drawn uniformly from a trajectory of length + 1: the offset is a known mixture over the horizons."""
    buffer = crl.TrajectoryBuffer(1, length + 1, (), (), (), seed=2)
    zero = np.zeros((length + 1, 1), np.float32)
    start = np.arange(length + 1)[:, None] == 0
    buffer.add_rollout(observation=zero, action=zero, achieved_goal=zero, episode_start=start)
    power = gamma ** np.arange(1, length + 1)
    pmf = np.zeros(length)
    for horizon in range(1, length + 1):
        pmf[:horizon] += power[:horizon] / power[:horizon].sum() / length
    counts = np.zeros(length + 1, np.int64)
    out = buffer.sample(500_000, gamma=gamma)
    for _ in range(DRAWS // 500_000):
        counts += np.bincount(out.offset, minlength=length + 1)
        buffer.sample(500_000, gamma=gamma, out=out)
    assert chi_square(counts[1:], pmf) > 1e-4


@pytest.mark.parametrize("gamma", [1.0, 1 - 1e-12])
def test_no_discount_is_uniform(gamma):
    assert chi_square(offsets(gamma, 10, 200_000), np.full(10, 0.1)) > 1e-4


def test_rows_are_uniform_over_ten_million_draws():
    buffer = make(5, 5 * 40)
    envs = np.arange(5)
    rng = np.random.default_rng(0)
    starts = rng.random((97, 5)) < 0.15
    oracle = Oracle(5, 200)
    buffer.add_rollout(**columns(envs, np.arange(97)[:, None] + 0 * envs), episode_start=starts)
    for t in range(97):
        for env in range(5):
            oracle.add(env, bool(starts[t, env]))
    eligible = sorted(oracle.futures())
    counts = np.zeros(len(eligible), np.int64)
    out = buffer.sample(500_000, columns=("row",))
    for _ in range(DRAWS // 500_000):
        index = np.searchsorted(eligible, out.row)
        assert (np.asarray(eligible)[index] == out.row).all()
        counts += np.bincount(index, minlength=len(eligible))
        buffer.sample(500_000, columns=("row",), out=out)
    assert chi_square(counts, np.full(len(eligible), 1 / len(eligible))) > 1e-4
