"""The law of the offset and of the rows: a million draws each, ten million where slow tests are asked for."""

from pathlib import Path

import numpy as np
import pytest
from buffer_oracle import Oracle, columns, make
from scipy import stats

import crl

GOLDEN = Path(__file__).parent / "golden.npz"
DRAWS = [1_000_000, pytest.param(10_000_000, marks=pytest.mark.slow)]


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


@pytest.mark.parametrize("draws", DRAWS)
@pytest.mark.parametrize("gamma", [0.9, 0.99, 0.999])
@pytest.mark.parametrize("horizon", [1, 2, 10])
def test_short_horizons_follow_the_law(gamma, horizon, draws):
    with np.load(GOLDEN) as golden:
        pmf, mean = golden[f"geom/{gamma}/{horizon}/pmf"], float(golden[f"geom/{gamma}/{horizon}/mean"])
    counts = offsets(gamma, horizon, draws)
    assert chi_square(counts, pmf) > 1e-4
    assert counts @ np.arange(1, horizon + 1) / counts.sum() == pytest.approx(mean, rel=0.002)


@pytest.mark.parametrize("draws", DRAWS)
@pytest.mark.parametrize("gamma", [0.9, 0.99, 0.999])
@pytest.mark.parametrize("length", [1, 2, 10, 1000])
def test_all_horizons_of_a_trajectory_together(gamma, length, draws):
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
    for _ in range(draws // 500_000):
        counts += np.bincount(out.offset, minlength=length + 1)
        buffer.sample(500_000, gamma=gamma, out=out)
    assert chi_square(counts[1:], pmf) > 1e-4


@pytest.mark.parametrize("gamma", [1.0, 1 - 1e-12])
def test_no_discount_is_uniform(gamma):
    assert chi_square(offsets(gamma, 10, 200_000), np.full(10, 0.1)) > 1e-4


# --- rows and goals together, for every strategy ---------------------------------------------------------------------

ENVS, LENGTH, SPAN = 5, 40, 128
"""Of the buffers below; rows are numbered below SPAN."""

SCENES = {
    # Rows that are written to each env, and which of them begin trajectories.
    "open": (25, lambda t, env: t == 0),
    "closed": (39, lambda t, env: t % 8 == 0),
    "wrapped": (97, lambda t, env: t % (11 + env) == 0),
    "one row short of the ring": (LENGTH - 1, lambda t, env: t == 0),
    "exactly full": (LENGTH, lambda t, env: t == 0),
    "one row overwritten": (LENGTH + 1, lambda t, env: t == 0),
    "single rows between": (60, lambda t, env: t % 10 in (0, 1, 2)),
    "unequal fill": (None, lambda t, env: t % 9 == 0),
}
STRATEGIES = ["geometric", "uniform", "final", "next", "random", {"geometric": 0.5, "random": 0.25, "next": 0.25}]


def scene(name):
    """The buffer and its oracle."""
    steps, starts = SCENES[name]
    buffer, oracle = make(ENVS, ENVS * LENGTH, seed=11), Oracle(ENVS, ENVS * LENGTH)
    for env in range(ENVS):
        t = np.arange(steps or 3 + 12 * env)[:, None]
        begins = np.array([[starts(int(row), env)] for row in t[:, 0]])
        with buffer.writer(env, env + 1) as writer:
            writer.add_rollout(**columns(np.array([env]), t), episode_start=begins)
        for begin in begins[:, 0].tolist():
            oracle.add(env, begin)
    return buffer, oracle


def cell(value):
    """A row as a number below ENVS * SPAN."""
    return value // 100_000 * SPAN + value % 100_000


def expected(oracle, goal, gamma):
    """P(row, goal row): [ENVS * SPAN, ENVS * SPAN]."""
    table = np.zeros((ENVS * SPAN, ENVS * SPAN))
    weights = {goal: 1.0} if isinstance(goal, str) else goal
    stored = [cell(100_000 * env + t) for env, rows in enumerate(oracle.rows) for t, _ in rows]
    for row, later in oracle.futures().items():
        k = np.arange(1, later + 1)
        laws = {"geometric": gamma**k, "uniform": k > 0, "final": k == later, "next": k == 1}
        for name, weight in weights.items():
            if name == "random":
                table[cell(row), stored] += weight / len(stored)
            else:
                table[cell(row), cell(row) + k] += weight * laws[name] / laws[name].sum()
    return table / table.sum()


@pytest.mark.parametrize("draws", DRAWS)
@pytest.mark.parametrize("goal", STRATEGIES, ids=lambda goal: goal if isinstance(goal, str) else "mixture")
@pytest.mark.parametrize("name", SCENES)
def test_rows_and_goals_follow_the_law(name, goal, draws):
    buffer, oracle = scene(name)
    table = expected(oracle, goal, 0.95)
    counts = np.zeros(table.size, np.int64)
    options = {"gamma": 0.95, "goal": goal, "columns": ("row", "goal_row")}
    out = buffer.sample(500_000, **options)
    for _ in range(draws // 500_000):
        assert ((out.offset == 0) | (out.offset == out.goal_row - out.row)).all()
        counts += np.bincount(cell(out.row) * (ENVS * SPAN) + cell(out.goal_row), minlength=table.size)
        buffer.sample(500_000, **options, out=out)
    counts = counts.reshape(table.shape)
    assert not counts[table == 0].any()
    assert chi_square(counts[table > 0], table[table > 0]) > 1e-4
    # Sums over many cells show a small bias sooner: rows, goals, and offsets.
    for axis in (0, 1):
        seen, law = counts.sum(axis), table.sum(axis)
        assert chi_square(seen[law > 0], law[law > 0]) > 1e-4
    seen, law = (np.array([np.trace(x, k) for k in range(LENGTH)]) for x in (counts, table))
    if law.sum() > 0.99:
        assert chi_square(seen[law > 0], law[law > 0] / law.sum()) > 1e-4


@pytest.mark.parametrize("wrong", ["gamma", "clamped", "a row never drawn", "a row drawn twice as often"])
def test_a_wrong_law_is_noticed(wrong):
    """What the test above would say of a million draws from another law."""
    _, oracle = scene("closed")
    table = expected(oracle, "geometric", 0.95)
    other = expected(oracle, "geometric", 0.9) if wrong == "gamma" else table.copy()
    rows = np.flatnonzero(table.sum(1))
    if wrong == "clamped":
        for row, later in oracle.futures().items():
            other[cell(row), cell(row) + later] += other[cell(row)].sum() * 0.95**later / (1 - 0.95**later)
            other[cell(row)] *= table[cell(row)].sum() / other[cell(row)].sum()
    elif wrong == "a row never drawn":
        other[rows[0]] = 0
    elif wrong == "a row drawn twice as often":
        other[rows[0]] *= 2
    other /= other.sum()
    counts = np.random.default_rng(0).multinomial(1_000_000, other.ravel()).reshape(table.shape)
    assert chi_square(counts[table > 0], table[table > 0]) < 1e-10
    right = np.random.default_rng(0).multinomial(1_000_000, table.ravel()).reshape(table.shape)
    assert chi_square(right[table > 0], table[table > 0]) > 1e-4
