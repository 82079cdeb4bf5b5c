"""Statistics of scores, against loops over runs, closed forms, SciPy, and (`pytest -m peers`) rliable."""

import inspect
import itertools

import numpy as np
import pytest
import scipy.stats

from crl import statistics

SHAPES = [(1, 1), (1, 4), (2, 1), (3, 2), (5, 4), (10, 7)]
POINTS = [statistics.iqm, statistics.mean, statistics.median, statistics.optimality_gap]


def made(shape, seed=0):
    """Scores, with ties and some above 1."""
    return np.round(np.random.default_rng(seed).gamma(2.0, 0.3, size=shape), 1)


def slow_iqm(scores):
    ordered = sorted(scores.flatten().tolist())
    cut = int(0.25 * len(ordered))
    kept = ordered[cut : len(ordered) - cut]
    return sum(kept) / len(kept)


def slow_median(scores):
    of_tasks = sorted(sum(column) / len(column) for column in scores.T.tolist())
    middle = len(of_tasks) // 2
    return of_tasks[middle] if len(of_tasks) % 2 else (of_tasks[middle - 1] + of_tasks[middle]) / 2


def slow_improvement(x, y):
    shares = []
    for task in range(x.shape[1]):
        pairs = list(itertools.product(x[:, task], y[:, task]))
        shares.append(sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs))
    return sum(shares) / len(shares)


@pytest.mark.parametrize("shape", SHAPES)
def test_aggregates_are_those_of_loops(shape):
    scores, others = made(shape), made((4, shape[1]), seed=1)
    assert statistics.iqm(scores) == pytest.approx(slow_iqm(scores), abs=1e-12)
    assert statistics.median(scores) == pytest.approx(slow_median(scores), abs=1e-12)
    assert statistics.mean(scores) == pytest.approx(sum(scores.flatten()) / scores.size, abs=1e-12)
    gap = sum(1 - min(score, 1) for score in scores.flatten()) / scores.size
    assert statistics.optimality_gap(scores) == pytest.approx(gap, abs=1e-12)
    assert statistics.probability_of_improvement(scores, others) == pytest.approx(slow_improvement(scores, others))
    limits = np.linspace(0, 2, 21)
    shares = [sum(score > limit for score in scores.flatten()) / scores.size for limit in limits]
    np.testing.assert_allclose(statistics.profile(scores, limits), shares, atol=1e-12)


@pytest.mark.parametrize("statistic", [*POINTS, lambda scores: statistics.profile(scores, [0.2, 0.5])])
def test_axes_in_front_are_kept(statistic):
    scores = made((6, 2, 3, 4))
    every = [[statistic(scores[i, j]) for j in range(2)] for i in range(6)]
    np.testing.assert_allclose(statistic(scores), every, atol=1e-12)


def test_improvement_of_equals_and_of_the_better():
    scores = made((5, 3))
    assert statistics.probability_of_improvement(scores, scores) == pytest.approx(0.5)
    assert statistics.probability_of_improvement(scores + 9, scores) == 1
    both = statistics.probability_of_improvement(scores, made((4, 3), 1)) + statistics.probability_of_improvement(
        made((4, 3), 1), scores
    )
    assert both == pytest.approx(1)


@pytest.mark.parametrize("statistic", POINTS)
def test_interval_is_that_of_a_loop_over_resamples(statistic):
    scores = made((4, 3))
    rows = statistics.stratified_indices(np.random.default_rng(5), scores.shape, 300)
    values = [statistic(np.stack([scores[row[:, task], task] for task in range(3)], axis=1)) for row in rows]
    expected = np.percentile(values, [2.5, 97.5])
    found = statistics.interval(statistic, scores, resamples=300, seed=5)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_runs_are_drawn_within_their_task():
    scores = 100.0 * np.arange(3) + np.arange(5)[:, None]  # run n of task m: 100 m + n
    rows = statistics.stratified_indices(np.random.default_rng(0), scores.shape, 1000)
    counts = np.bincount(rows.reshape(-1), minlength=5)
    assert scipy.stats.chisquare(counts).pvalue > 1e-4
    low, high = statistics.interval(lambda drawn: drawn.min(axis=-2).min(axis=-1), scores)
    assert (low, high) == (0, 2)  # never of another task
    assert not np.array_equal(rows[:, :, 0], rows[:, :, 1])  # each task by itself


def test_interval_agrees_with_scipy_s_bootstrap():
    """Which draws its own resamples: the same up to what 20,000 of them leave open."""
    scores = np.random.default_rng(1).normal(size=(6, 3))
    theirs = scipy.stats.bootstrap(
        tuple(scores.T),
        lambda *tasks, axis: np.mean([task.mean(axis=axis) for task in tasks], axis=0),
        n_resamples=20_000,
        method="percentile",
        random_state=0,
    ).confidence_interval
    ours = statistics.interval(statistics.mean, scores, resamples=20_000)
    np.testing.assert_allclose(ours, [theirs.low, theirs.high], atol=0.03 * (theirs.high - theirs.low))


def test_the_same_seed_gives_the_same_interval_in_any_pieces(monkeypatch):
    scores = made((3, 20, 4, 2))  # curves: the same resamples at each of their points
    whole = statistics.interval(statistics.iqm, scores, resamples=300)
    monkeypatch.setattr(statistics, "_CHUNK", 7 * scores.size)
    np.testing.assert_array_equal(statistics.interval(statistics.iqm, scores, resamples=300), whole)
    other = statistics.interval(statistics.iqm, scores, resamples=300, seed=1)
    assert not np.array_equal(other, whole)
    one = statistics.interval(statistics.iqm, scores[1, 1], resamples=300)
    np.testing.assert_array_equal(one, whole[:, 1, 1])


def test_one_run_says_nothing_of_others():
    scores = made((1, 3))
    low, high = statistics.interval(statistics.iqm, scores)
    assert low == high == statistics.iqm(scores)


def test_an_interval_holds_the_truth_about_as_often_as_it_says():
    """Normal scores: the percentile bootstrap of few runs is somewhat narrow, as is known."""
    random, held = np.random.default_rng(0), 0
    for _ in range(200):
        low, high = statistics.interval(statistics.mean, random.normal(size=(10, 3)), resamples=400)
        held += low <= 0 <= high
    assert 0.87 < held / 200 < 0.99


@pytest.mark.parametrize(
    ("scores", "words"),
    [([1.0, 2.0], "runs, tasks"), (np.empty((0, 2)), "one of each"), ([[1.0, np.nan]], "must be finite")],
)
def test_scores_that_are_none_are_refused(scores, words):
    for statistic in POINTS:
        with pytest.raises(ValueError, match=words):
            statistic(scores)
    with pytest.raises(ValueError, match=words):
        statistics.interval(statistics.iqm, scores)


def test_wrong_arguments_are_refused():
    scores = made((3, 2))
    with pytest.raises(ValueError, match="must have the 2 tasks of scores, got 3"):
        statistics.probability_of_improvement(scores, made((3, 3)))
    with pytest.raises(ValueError, match="confidence must lie between 0 and 1, got 95"):
        statistics.interval(statistics.iqm, scores, confidence=95)
    with pytest.raises(ValueError, match="resamples must be at least 1, got 0"):
        statistics.interval(statistics.iqm, scores, resamples=0)


# --- beside rliable ---------------------------------------------------------------------------------------------------

AGGREGATES = {
    "aggregate_iqm": statistics.iqm,
    "aggregate_mean": statistics.mean,
    "aggregate_median": statistics.median,
    "aggregate_optimality_gap": statistics.optimality_gap,
}


@pytest.fixture
def rliable(monkeypatch):
    """Its two modules. It gives its bootstraps a `random_state`, which newer releases of arch call `seed`."""
    pytest.importorskip("rliable")
    from arch.bootstrap import IIDBootstrap
    from rliable import library, metrics

    made = IIDBootstrap.__init__
    if "random_state" not in inspect.signature(made).parameters:

        def named(self, *args, random_state=None, **rest):
            made(self, *args, **{"seed": random_state, **rest})

        monkeypatch.setattr(IIDBootstrap, "__init__", named)
    return library, metrics


@pytest.fixture
def same_indices(monkeypatch):
    """rliable takes each resample from NumPy's global generator: give it ours instead, one after the other."""

    def give(seed, resamples, *shapes):
        random = np.random.default_rng(seed)
        drawn = [statistics.stratified_indices(random, shape, resamples) for shape in shapes]
        in_turn = iter([rows[number] for number in range(resamples) for rows in drawn])

        def choice(count, shape, replace):
            rows = next(in_turn)
            assert (rows.shape, replace) == (shape, True)
            assert rows.max() < count
            return rows

        monkeypatch.setattr(np.random, "choice", choice)

    return give


@pytest.mark.peers
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", AGGREGATES)
def test_aggregates_are_rliable_s(rliable, same_indices, name, shape):
    library, metrics = rliable
    scores = made(shape)
    theirs = getattr(metrics, name)
    same_indices(3, 500, shape)
    points, intervals = library.get_interval_estimates({"a": scores}, lambda x: np.array([theirs(x)]), reps=500)
    assert AGGREGATES[name](scores) == pytest.approx(points["a"][0], abs=1e-12)
    ours = statistics.interval(AGGREGATES[name], scores, resamples=500, seed=3)
    np.testing.assert_allclose(ours, intervals["a"][:, 0], rtol=0, atol=1e-6)


@pytest.mark.peers
@pytest.mark.parametrize("shape", SHAPES)
def test_profiles_are_rliable_s(rliable, same_indices, shape):
    library, _ = rliable
    scores, limits = made(shape), np.linspace(0, 2, 41)
    same_indices(0, 200, shape)
    profiles, intervals = library.create_performance_profile({"a": scores}, limits, reps=200)
    np.testing.assert_allclose(statistics.profile(scores, limits), profiles["a"], rtol=0, atol=1e-12)
    ours = statistics.interval(lambda drawn: statistics.profile(drawn, limits), scores, resamples=200)
    np.testing.assert_allclose(ours, intervals["a"], rtol=0, atol=1e-6)


@pytest.mark.peers
@pytest.mark.parametrize(("runs", "others", "tasks"), [(3, 3, 1), (3, 5, 4), (10, 2, 6)])
def test_probability_of_improvement_is_rliable_s(rliable, same_indices, runs, others, tasks):
    library, metrics = rliable
    pair = made((runs, tasks)), made((others, tasks), seed=1)
    same_indices(0, 200, pair[0].shape, pair[1].shape)
    points, intervals = library.get_interval_estimates({"a": pair}, metrics.probability_of_improvement, reps=200)
    assert statistics.probability_of_improvement(*pair) == pytest.approx(float(points["a"]), abs=1e-12)
    ours = statistics.interval(statistics.probability_of_improvement, *pair, resamples=200)
    np.testing.assert_allclose(ours, intervals["a"].reshape(2), rtol=0, atol=1e-6)
