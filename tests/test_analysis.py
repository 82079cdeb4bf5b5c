"""What `crl analyze` computes: each number against a second way to it."""

import dataclasses
import heapq
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Quiet
from scipy import stats

from crl import envs, networks
from crl.analysis import correlations, embedding, geodesics, gradients, probe, reachability, similarity, spectra, states
from crl.analysis import subject as subjects
from crl.analysis.subject import Subject
from crl.config import TrainConfig
from crl.envs.layouts import Maze
from crl.trainer import train

Tiny = Callable[..., TrainConfig]


# --- shortest paths ---------------------------------------------------------------------------------------------------


def path(maze: Maze, goal: tuple[float, float], place: tuple[float, float]) -> float:
    return float(geodesics.distances(maze, np.array([goal]), np.array([place]))[0, 0])


def test_paths_bend_at_the_corners_of_walls() -> None:
    """The u-maze's wall ends at its corners (6, 10) and (10, 10), m: the way round it touches both."""
    maze = Maze.named("u")
    assert path(maze, (4, 8), (4, 4)) == pytest.approx(4)
    assert path(maze, (12, 4), (12, 4)) == 0
    assert path(maze, (12, 4), (4, 4)) == pytest.approx(math.hypot(2, 6) + 4 + math.hypot(2, 6))
    assert path(maze, (8, 12), (4, 4)) == pytest.approx(math.hypot(2, 6) + math.hypot(2, 2))


def test_paths_touch_walls_and_never_cross_them() -> None:
    maze = Maze.from_text("#####\n#R#G#\n#.#.#\n#...#\n#####", cell=2.0)
    assert path(maze, (2, 6), (2, 2)) == pytest.approx(2 * math.hypot(3, 1) + 2)
    assert path(maze, (3, 6), (3, 2)) == pytest.approx(2 * math.hypot(2, 1) + 2)  # along one side, seams and all


def test_no_path_squeezes_between_walls_that_touch_at_a_corner() -> None:
    maze = Maze.from_text("######\n#R.#.#\n#.#.G#\n#....#\n######", cell=1.0)
    assert path(maze, (2, 3), (1, 2)) == pytest.approx(2 + 2 * math.hypot(0.5, 0.5))  # around three corners of one cell


def by_cells(maze: Maze, goal: tuple[float, float], place: tuple[float, float], fine: int) -> float:
    """Dijkstra over `fine` points along a cell, 16 ways from each: at most 2.8 % too long, never too short."""
    steps = [(a, b) for a in range(-2, 3) for b in range(-2, 3) if math.gcd(a, b) == 1]
    low, spacing = -0.5 * maze.cell, maze.cell / fine

    def free(i: int, j: int) -> bool:
        cell = (i // fine, j // fine)
        return 0 <= cell[0] < maze.grid.shape[0] and 0 <= cell[1] < maze.grid.shape[1] and maze.grid[cell] != "#"

    def at(where: tuple[float, float]) -> tuple[int, int]:
        return round((where[0] - low) / spacing - 0.5), round((where[1] - low) / spacing - 0.5)

    best, queue = {at(place): 0.0}, [(0.0, at(place))]
    while queue:
        length, (i, j) = heapq.heappop(queue)
        if (i, j) == at(goal):
            return length * spacing
        for a, b in steps:
            # A knight's step passes two points on its way.
            between = [(i + round(a * t), j + round(b * t)) for t in (0.25, 0.5, 0.75, 1.0)]
            if not (free(i + a, j) or free(i, j + b)):
                continue
            new = length + math.hypot(a, b)
            if new < best.get((i + a, j + b), math.inf) and all(free(*point) for point in between):
                best[i + a, j + b] = new
                heapq.heappush(queue, (new, (i + a, j + b)))
    return math.inf


@pytest.mark.parametrize("name", ["u4", "big"])
def test_paths_are_those_of_a_search_over_fine_squares(name: str) -> None:
    maze, rng = Maze.named(name), np.random.default_rng(0)
    cells = np.argwhere(maze.grid != "#") * maze.cell
    for goal, place in rng.permutation(cells)[:6].reshape(3, 2, 2):
        exact, searched = path(maze, tuple(goal), tuple(place)), by_cells(maze, tuple(goal), tuple(place), 9)
        # The search keeps half a square away from walls, so it goes round corners a little wider.
        assert exact <= searched * (1 + 1e-9)
        assert searched <= 1.06 * exact


# --- statistics -------------------------------------------------------------------------------------------------------


def test_spearman_is_scipy_s_row_by_row() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(5, size=(2, 3, 40)).astype(float)  # with ties
    expected = [stats.spearmanr(a, b).statistic for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(correlations.spearman(x, y), expected, atol=1e-12)
    assert correlations.spearman(np.ones(9), np.arange(9.0)) == 0


def test_blocks_widen_the_interval_of_what_repeats_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of 20 values 25 times over says no more than once."""
    monkeypatch.setattr(correlations, "SAMPLES", 300)
    rng = np.random.default_rng(1)
    x = rng.normal(size=20)
    y = x + 2 * rng.normal(size=20)
    once = correlations.block_spearman(x[None], y[None], np.arange(20))[0]
    often, blocks = [np.repeat(values, 25)[None] for values in (x, y)], np.repeat(np.arange(20), 25)
    by_blocks, by_places = (
        correlations.block_spearman(*often, blocks)[0],
        correlations.block_spearman(*often, np.arange(500))[0],
    )
    assert by_blocks.high - by_blocks.low == pytest.approx(once.high - once.low, rel=0.15)
    assert by_places.high - by_places.low < 0.4 * (once.high - once.low)


def test_blocks_are_squares() -> None:
    places = np.array([[0.1, 0.1], [0.9, 0.2], [1.1, 0.1], [0.1, 1.9]])
    first, second, third, fourth = correlations.blocks_of(places, 1.0)
    assert first == second
    assert len({first, third, fourth}) == 3


# --- representations --------------------------------------------------------------------------------------------------


def test_effective_rank_of_known_spectra() -> None:
    assert spectra.effective_rank(np.ones(7)) == pytest.approx(7)
    assert spectra.effective_rank(np.array([3.0, 0, 0])) == pytest.approx(1)
    assert spectra.effective_rank(np.array([2.0, 1, 1])) == pytest.approx(math.exp(1.5 * math.log(2)))
    assert spectra.rank_within(np.ones(50)) == 50
    assert spectra.rank_within(np.array([99.5, 0.25, 0.25])) == 1
    assert spectra.rank_within(np.zeros(3)) == spectra.effective_rank(np.zeros(3)) == 0


def test_singular_values_are_the_spread_of_the_rows() -> None:
    """Of n rows along two axes, off the origin: their standard deviations."""
    along = np.array([[1.0, 0], [-1, 0], [0, 3], [0, -3]]) + 5
    np.testing.assert_allclose(spectra.singular_values(along), [math.sqrt(18 / 4), math.sqrt(2 / 4)])


def test_split_of_a_circle() -> None:
    """Unit vectors at known angles from the goal, in a plane: c is the cosine, zeta the sine, along one axis."""
    angle = np.linspace(-2, 2, 9)
    psi = 3 * np.stack((np.cos(angle), np.sin(angle), np.zeros(9)), -1)
    split = similarity.split(psi, np.array([0.5, 0, 0]))
    np.testing.assert_allclose(split.c, np.cos(angle), atol=1e-12)
    np.testing.assert_allclose(split.rest, np.abs(np.sin(angle)), atol=1e-7)
    np.testing.assert_allclose(np.abs(split.zeta[:, 0]), np.abs(np.sin(angle)), atol=1e-12)
    np.testing.assert_allclose(split.explained, [1, 0], atol=1e-12)


def test_rectification_is_a_permutation_that_leaves_a_grid_as_it_is() -> None:
    rng = np.random.default_rng(0)
    places = rng.normal(size=(49, 2))
    assert sorted(embedding.rectified(places)) == list(range(49))
    grid = np.stack(np.meshgrid(np.arange(5.0), 10 * np.arange(5.0), indexing="ij"), -1).reshape(-1, 2)
    order = rng.permutation(25)
    np.testing.assert_array_equal(embedding.rectified(grid[order]), order)
    with pytest.raises(ValueError, match="square number of them, got 48"):
        embedding.rectified(places[:48])


def test_tsne_keeps_clusters_apart() -> None:
    middle = np.repeat(10 * np.eye(3), 20, axis=0)
    places = embedding.tsne(middle + np.random.default_rng(0).normal(size=middle.shape)).reshape(3, 20, 2)
    centres = places.mean(1)
    spread = np.linalg.norm(places - centres[:, None], axis=-1).max()
    gaps = [np.linalg.norm(centres[a] - centres[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert min(gaps) > 2 * spread


# --- probe ------------------------------------------------------------------------------------------------------------


def test_probe_finds_what_is_linear_and_nothing_in_noise() -> None:
    rng = np.random.default_rng(0)
    features, noise = rng.normal(size=(2, 300, 8))
    target, folds = 5 + features @ np.arange(8.0), np.arange(300) % 5
    assert probe.r2(probe.predict(features, target, folds), target) > 0.9999
    assert probe.r2(probe.predict(noise, target, folds), target) < 0.05
    assert probe.r2(np.full(300, target.mean()), target) == pytest.approx(0)


def test_probe_never_sees_what_it_predicts() -> None:
    """Targets of one fold that are far off show in the errors of that fold alone, and not as having been fitted."""
    features, folds = np.eye(40), np.arange(40) % 4
    target = np.where(folds == 2, 1000.0, 0.0)
    predicted = probe.predict(features, target, folds)
    assert np.abs(predicted[folds == 2]).max() < 1e-6


# --- agents -----------------------------------------------------------------------------------------------------------


def untrained(algorithm: str = "crl", env: str = "point_maze", **changes: Any) -> Subject:
    """A small agent."""
    from crl.agent import Agent
    from crl.resolution import resolve

    sizes = {"depth": 4, "width": 8} | ({"representation_dim": 6} if algorithm == "crl" else {})
    settings = TrainConfig(env=env, algorithm=algorithm, device="cpu", **sizes, **changes)
    settings = resolve(settings, device="cpu", num_cores=1).config
    spec = envs.spec(env)
    agent = Agent(spec, settings)
    return Subject("it", settings, spec, agent, agent.evaluation_policy())


def rows(subject: Subject, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    spec, draw = subject.spec, torch.Generator().manual_seed(0)
    return tuple(torch.randn(count, n, generator=draw) for n in (spec.observation_dim, spec.goal_dim, spec.action_dim))


@pytest.mark.parametrize("algorithm", ["crl", "td3"])
def test_cosines_are_those_of_one_gradient_at_a_time(algorithm: str) -> None:
    subject = untrained(algorithm)
    o, g, a = rows(subject, 5)
    weights = [p for name, p in subject.networks.named_parameters() if not name.startswith("actor.")]
    expected = np.empty((5, 5))
    single = []
    for n in range(5):
        subject.networks.zero_grad()
        subject.networks.score(o[n : n + 1], g[n : n + 1], a[n : n + 1, None]).sum().backward()
        single.append(
            torch.cat([torch.zeros(p.numel()) if p.grad is None else p.grad.flatten().clone() for p in weights])
        )
    for i, one in enumerate(single):
        for j, other in enumerate(single):
            expected[i, j] = torch.nn.functional.cosine_similarity(one.double(), other.double(), dim=0)
    found = gradients.cosines(subject, o, g, a)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(gradients.cosines(subject, o, g, a, held=100), found, atol=1e-5)  # in many parts
    np.testing.assert_allclose(found.diagonal(), 1, atol=1e-5)


def test_alignment_sorts_pairs_by_what_they_share() -> None:
    """Two goals, two states: (g0 s0), (g0 s1), (g1 s0), (g1 s1)."""
    cosine = np.array([[1, 0.5, 0.2, -0.1], [0.5, 1, -0.3, 0.4], [0.2, -0.3, 1, 0.7], [-0.1, 0.4, 0.7, 1]])
    found = gradients.alignment(cosine, 2)
    assert found.same_goal == pytest.approx(0.6)
    assert found.same_state == pytest.approx(0.3)
    assert found.neither == pytest.approx(-0.2)


@pytest.mark.parametrize("algorithm", ["crl", "td3", "sac", "forward_model", "gcbc"])
def test_features_are_what_the_last_layer_reads(algorithm: str) -> None:
    subject = untrained(algorithm)
    o, g, a = rows(subject, 7)
    net: Any = subject.networks
    found = torch.tensor(subject.features(o, g, a))
    with torch.no_grad():
        if algorithm == "crl":
            psi = torch.tensor(subject.goal_features(g))
            energy = -torch.linalg.vector_norm(found - psi, dim=-1)
            torch.testing.assert_close(energy, net.score(o, g, a[:, None])[:, 0].double(), atol=1e-5, rtol=1e-5)
            return
        head, told = {
            "td3": lambda: (net.critics[0].output, net.critics[0](torch.cat((o, g, a), -1))),
            "sac": lambda: (net.critics[0].output, net.critics[0](torch.cat((o, g, a), -1))),
            "forward_model": lambda: (net.model.output, net.model(torch.cat((o, a), -1))),
            "gcbc": lambda: (net.actor.network.output, net.actor.network(torch.cat((o, g), -1))),
        }[algorithm]()
        torch.testing.assert_close(head(found.float()), told, atol=1e-5, rtol=1e-5)


def test_values_are_of_the_policy_s_own_action() -> None:
    subject = untrained()
    o, g, _ = rows(subject, 6)
    action = subject.policy.act(o, g, deterministic=True)
    with torch.no_grad():
        expected = subject.networks.score(o, g, action[:, None])[:, 0]
    np.testing.assert_allclose(subject.value(o, g), expected.numpy(), atol=1e-6)


def test_fresh_weights_differ_by_seed_alone() -> None:
    subject = untrained()
    o, g, a = rows(subject, 4)
    first, again, other = (subject.untrained(seed).features(o, g, a) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


# --- states -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["point_maze", "ant_u_maze"])
def test_ground_is_what_a_robot_observes_there(name: str) -> None:
    env = envs.make(name, 1, num_threads=1)
    shown, _ = env.reset(seed=3)
    ground = states.ground(env)
    assert ground is not None
    assert len(ground.places) == 7 * 64  # of the seven free cells
    np.testing.assert_allclose(ground.observation[:, :2], ground.places)
    np.testing.assert_array_equal(
        ground.observation[:, 2:], np.repeat(shown["observation"][:, 2:], len(ground.places), 0)
    )
    cells = np.rint(ground.places / ground.maze.cell).astype(int)
    assert (ground.maze.grid[tuple(cells.T)] != "#").all()
    np.testing.assert_allclose(ground.goals(np.array([[12.0, 4.0]])), [[12, 4]])


def test_ground_of_images_shows_the_point_where_it_is() -> None:
    env = envs.make("point_u_maze_image", 1, num_threads=1)
    env.reset(seed=0)
    ground = states.ground(env)
    assert ground is not None
    assert ground.observation.shape == (len(ground.places), env.env_spec.observation_dim)
    seen = env.task.draw(np.hstack((ground.places[100:101], np.zeros((1, 2)))), None)
    np.testing.assert_array_equal(ground.observation[100], seen.ravel())


@pytest.mark.parametrize("name", ["reacher", "ant_ball_maze"])
def test_no_ground_where_goals_are_no_places_of_the_robot(name: str) -> None:
    env = envs.make(name, 1, num_threads=1)
    env.reset(seed=0)
    assert states.ground(env) is None


def test_walks_end_where_goals_are_reached() -> None:
    class Ballistic:
        """Heads for its goal at full force."""

        spec = envs.spec("point_maze")

        def action(self, observation: np.ndarray, goal: np.ndarray) -> torch.Tensor:
            return torch.tensor(np.sign(goal - observation[:, :2]), dtype=torch.float32)

    env = envs.make("point_maze", 8, num_threads=1, episode_length=200)
    walked = states.walk(Ballistic(), env, seed=0)  # type: ignore[arg-type]
    some_reach = np.isfinite(walked.time_left)
    assert some_reach.any()
    dt = Ballistic.spec.dt
    for episode in np.unique(walked.episode):
        left = walked.time_left[walked.episode == episode]
        if np.isfinite(left).any():  # counts down to the step that reaches it
            np.testing.assert_allclose(left, dt * np.arange(len(left), 0, -1))
            assert walked.distance[walked.episode == episode][-1] < Ballistic.spec.success_threshold
        else:
            assert len(left) == 200
    short = walked.some(40, seed=0)
    assert short.observation.shape == (40, 4)
    share = np.bincount(short.episode, minlength=8)
    assert share.max() <= 4 * max(1, share.min()), "long episodes do not crowd out short ones"


def test_a_run_is_loaded_with_the_weights_it_saved(tiny: Tiny, tmp_path: Path) -> None:
    result = train(tiny(), reporter=Quiet())
    subject, name, options = subjects.load(tmp_path / "run", "cpu")
    assert (subject.label, name, options) == ("crl, depth 4, seed 0", "point_short", {})
    assert isinstance(subject.networks.actor, networks.Actor)
    assert result.run_dir == tmp_path / "run"
    fresh = subject.untrained(subject.settings.seed)
    o, g, a = rows(subject, 3)
    assert not np.allclose(subject.features(o, g, a), fresh.features(o, g, a)), "as it was trained, not as it began"


def test_the_path_itself_orders_places_as_the_path_does_in_sight_and_out_of_it() -> None:
    env = envs.make("point_maze", 1, num_threads=1)
    env.reset(seed=0)
    ground = states.ground(env)
    assert ground is not None
    goals = np.array([[12.0, 4.0], [4.0, 4.0]])
    maps = reachability.measure(ground, goals, [])
    exact = dataclasses.replace(maps, values={"exact": -maps.path, "backwards": maps.path})
    everywhere, hidden = exact.over_goals(), exact.out_of_sight()
    for found in (everywhere, hidden):
        assert found["exact"].value == pytest.approx(1)
        assert found["backwards"].value == pytest.approx(-1)
    straight = everywhere[reachability.EUCLIDEAN].value
    assert exact.beyond_euclidean()["exact"].value == pytest.approx(1 - straight)
    # In the other corridor, further along is nearer as the crow flies, and further to go.
    assert hidden[reachability.EUCLIDEAN].value < 0 < straight


def test_margins_pair_trained_with_untrained_weights() -> None:
    def made(name: str, kind: str, r2: list[float], ranks: list[float]) -> probe.Probe:
        scores = np.array(r2), np.array(ranks)
        return probe.Probe(name, kind, 8, correlations.mean(scores[0]), correlations.mean(scores[1]), scores)

    kinds = [made("it", kind, [0.9, 0.7], [0.8, 0.8]) for kind in ("places", "cells")]
    fresh = made("it, untrained", "cells", [0.5, -0.3], [0.2, 0.4])
    found = probe.margins([*kinds, fresh, made(probe.PLAIN, "cells", [0, 0], [0, 0])])
    assert list(found) == [("it", "cells")]
    assert [estimate.value for estimate in found["it", "cells"]] == pytest.approx([0.7, 0.5])
