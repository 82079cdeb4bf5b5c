"""The laboratory of small worlds: the learner against slow ones, the worlds by hand, statistics on made-up data."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from crl import losses
from crl.cli import lab as verb
from crl.cli import main
from crl.errors import CheckpointError, ConfigError
from crl.lab import analysis, pictures, tabular
from crl.lab.page import write_page
from crl.lab.rooms import WORLDS, World, four_rooms
from crl.lab.study import (
    GAMMA,
    HORIZON,
    KEPT,
    LOSSES,
    PAIRS,
    ROUND,
    Record,
    Settings,
    Study,
    best_moves,
    policy,
    roll_out,
)


def studied(**settings: object) -> Record:
    study = Study(Settings(**{"seeds": 2, "episodes": 40, **settings}), moments=5)  # type: ignore[arg-type]
    while not study.done:
        study.round()
    return study.record


# --- worlds -----------------------------------------------------------------------------------------------------------


def test_four_rooms_are_as_published() -> None:
    """Row and column 5 are walls but for cells 2, 3, 7 and 8."""
    world = four_rooms()
    for i in range(10):
        for j in range(10):
            wall = (i == 5 and j not in (2, 3, 7, 8)) or (j == 5 and i not in (2, 3, 7, 8))
            assert (world.grid[i, j] == "#") == wall, (i, j)
    assert world.cells[world.start].tolist() == [0, 0]
    assert world.cells[world.goal].tolist() == [9, 9]
    assert world.cells[world.near_goal].tolist() == [[8, 9], [9, 8], [9, 9]]
    counts = {name: int((world.room == number).sum()) for number, name in enumerate(world.rooms)}
    assert counts == {"start room": 25, "upper right": 20, "lower left": 20, "goal room": 16}
    assert (world.room == -1).sum() == 8  # the doors


@pytest.mark.parametrize(
    ("cell", "led"),
    [
        ((0, 0), [(0, 0), (1, 0), (0, 0), (0, 1), (0, 0)]),  # a corner: up and left lead nowhere
        ((4, 0), [(4, 0), (4, 0), (3, 0), (4, 1), (4, 0)]),  # above a wall
        ((4, 2), [(4, 2), (5, 2), (3, 2), (4, 3), (4, 1)]),  # above a door
        ((5, 3), [(5, 3), (6, 3), (4, 3), (5, 3), (5, 2)]),  # in a door, a wall to its right
        ((7, 5), [(7, 5), (8, 5), (7, 5), (7, 6), (7, 4)]),  # in a door, a wall above
        ((9, 9), [(9, 9), (9, 9), (8, 9), (9, 9), (9, 8)]),
    ],
)
def test_moves_walked_by_hand(cell: tuple[int, int], led: list[tuple[int, int]]) -> None:
    """Stay, down, up, right, left."""
    world = four_rooms()
    assert [tuple(there) for there in world.cells[world.next_state[world.state(*cell)]]] == led


@pytest.mark.parametrize(
    ("name", "states", "steps"),
    [
        ("four-rooms", 89, 18),
        ("four-rooms-20", 369, 38),
        ("spiral", 55, 54),
        ("impossible", 432, 92),
        ("box", 25, 8),
    ],
)
def test_the_goal_is_so_many_steps_away(name: str, states: int, steps: int) -> None:
    world = WORLDS[name]()
    assert len(world.cells) == states
    assert world.steps_from_start[world.goal] == steps
    assert set(world.room.tolist()) - {-1} == set(range(len(world.rooms)))
    assert world.room[world.start] == 0
    assert world.room[world.goal] == len(world.rooms) - 1


def test_the_command_line_offers_every_world() -> None:
    assert list(WORLDS) == list(verb.WORLDS)


# --- playing ----------------------------------------------------------------------------------------------------------


def test_episodes_follow_the_world_and_the_policy() -> None:
    """Two policies side by side: always right, and down or stay at 3 to 1."""
    world = four_rooms()
    probabilities = np.zeros((2, len(world.cells), 5), np.float32)
    probabilities[0, :, 3] = 1
    probabilities[1, :, [0, 1]] = np.array([0.25, 0.75])[:, None]
    generators = [np.random.default_rng(seed) for seed in range(2)]
    states, moves = roll_out(world, probabilities, generators)
    assert states.shape == (2, ROUND, HORIZON + 1)
    assert (states[:, :, 0] == world.start).all()
    np.testing.assert_array_equal(states[..., 1:], world.next_state[states[..., :-1], moves])
    assert (world.cells[states[0, :, -1]] == [0, 4]).all()  # the wall of column 5
    assert (world.cells[states[1, :, -1]] == [4, 0]).all()
    assert (moves[0] == 3).all()
    assert 0.68 < (moves[1] == 1).mean() < 0.82


def test_policy_is_the_softmax_and_best_moves_its_mode() -> None:
    energies = np.random.default_rng(0).normal(size=(3, 25, 5)).astype(np.float32)
    expected = torch.softmax(torch.from_numpy(energies) / 0.3, -1)
    np.testing.assert_allclose(policy(energies, 0.3), expected, rtol=1e-4, atol=1e-7)
    world = WORLDS["box"]()
    path = best_moves(world, energies)
    for k in range(3):
        state = world.start
        for t in range(HORIZON):
            state = int(world.next_state[state, energies[k, state].argmax()])
            assert path[k, t + 1] == state


def test_a_seed_does_not_depend_on_the_others() -> None:
    alone, among = studied(seeds=1, first_seed=4), studied(seeds=3, first_seed=3)
    np.testing.assert_allclose(alone.psi[0], among.psi[1], atol=1e-6)
    np.testing.assert_array_equal(alone.time_at_goal[0], among.time_at_goal[1])
    assert not np.array_equal(among.path[0], among.path[1])


# --- learning ---------------------------------------------------------------------------------------------------------


def slow_descent(psi: np.ndarray, anchor: np.ndarray, future: np.ndarray, loss: str) -> np.ndarray:
    """The published update, pair by pair."""
    a, f, step = psi[anchor], psi[future], np.zeros_like(psi)
    logits = np.exp(a @ f.T)
    shares = {"backward": logits / logits.sum(0), "forward": logits / logits.sum(1, keepdims=True)}
    p = shares[loss] if loss in shares else (shares["backward"] + shares["forward"]) / 2
    for j in range(len(anchor)):
        for k in range(len(anchor)):
            step[anchor[j]] += ((j == k) - p[j, k]) * f[k]
            step[future[k]] += ((j == k) - p[j, k]) * a[j]
    return step


@pytest.mark.parametrize("loss", LOSSES)
def test_the_update_is_the_gradient_of_summed_infonce(loss: str) -> None:
    """Against a loop and against autograd of `crl.losses`, both in float64."""
    generator = np.random.default_rng(1)
    psi = generator.normal(size=(2, 11, 6))
    psi /= np.linalg.norm(psi, axis=-1, keepdims=True)
    anchor, future = generator.integers(10, size=(2, 2, PAIRS))  # state 10 is in no pair
    found = tabular.descent(psi.astype(np.float32), anchor, future, loss)
    for k in range(2):
        np.testing.assert_allclose(found[k], slow_descent(psi[k], anchor[k], future[k], loss), atol=2e-4)
        table = torch.tensor(psi[k], requires_grad=True)
        logits = losses.pairwise_energy(table[anchor[k]], table[future[k]], "dot")
        (PAIRS * losses.contrastive_loss(logits, LOSSES[loss])).backward()  # type: ignore[no-untyped-call]
        assert table.grad is not None
        np.testing.assert_allclose(found[k], -table.grad.numpy(), atol=2e-4)
    assert (found[:, 10] == 0).all()


def test_an_update_moves_rows_and_keeps_them_of_length_one() -> None:
    world, settings = four_rooms(), Settings(seeds=2)
    generators = [np.random.default_rng(seed) for seed in range(2)]
    table = tabular.Table(world, settings, generators)
    before = table.psi().copy()
    states, moves = roll_out(world, policy(table.energies(), 0.1), generators)
    table.update(states, moves, generators)
    np.testing.assert_allclose(np.linalg.norm(table.psi(), axis=-1), 1, rtol=1e-5)
    for k in range(2):
        moved = np.linalg.norm(table.psi()[k] - before[k], axis=-1) > 1e-5
        assert moved.any()
        assert set(np.flatnonzero(moved)) <= set(states[k].ravel())
    np.testing.assert_array_equal(table.command(), table.psi()[:, world.goal])
    c = np.einsum("ksr,kr->ks", table.psi(), table.command())
    np.testing.assert_allclose(table.energies(), c[:, world.next_state], rtol=1e-5)


def test_pairs_are_of_one_episode_and_their_distance_of_the_law() -> None:
    """Episodes count up from 1000 times their number, so a pair tells where it is from."""
    kept = 30
    episodes = np.arange(kept)[:, None] * 1000 + np.arange(HORIZON + 1)
    generators = [np.random.default_rng(0)]
    draws = [tabular.draw_pairs(episodes[None].astype(np.int16), generators) for _ in range(400)]
    anchor, future = (np.concatenate([draw[i][0] for draw in draws]) for i in range(2))
    assert (anchor // 1000 == future // 1000).all()
    assert set(anchor // 1000) == set(range(kept))
    step, ahead = anchor % 1000, future - anchor
    assert step.min() == 0
    assert step.max() == HORIZON - 1
    assert (ahead >= 1).all()
    expected = sum((GAMMA ** np.arange(1, most + 1) @ np.arange(1, most + 1)) / (GAMMA ** np.arange(1, most + 1)).sum()
                   for most in HORIZON - np.arange(HORIZON)) / HORIZON  # fmt: skip
    assert ahead.mean() == pytest.approx(expected, rel=0.02)


def test_only_the_latest_episodes_are_kept() -> None:
    world = WORLDS["box"]()
    generators = [np.random.default_rng(0)]
    table = tabular.Table(world, Settings(world="box", seeds=1), generators)
    states, moves = roll_out(world, policy(table.energies(), 0.1), generators)
    for number in range(KEPT // ROUND + 1):
        table.update(np.full_like(states, number % 25), moves, generators)
    assert set(table._episodes[0, :, 0]) == set(range(25))
    assert (table._episodes[0, :ROUND] == KEPT // ROUND % 25).all()
    assert (table._episodes[0, ROUND : 2 * ROUND] == 1).all()


@pytest.mark.parametrize("command", ["single", "random-vector"])
def test_initial_tables(command: str) -> None:
    world = four_rooms()
    far = world.state(0, 0)

    def c(init: str) -> np.ndarray:
        settings = Settings(init=init, goal_command=command, dimension=64)
        table, vector = tabular.initial(world, settings, np.random.default_rng(0))
        np.testing.assert_allclose(np.linalg.norm(table, axis=1), 1, rtol=1e-5)
        cosine: np.ndarray = table @ vector
        assert (cosine[world.goal] > 0.9999) == (command == "single")
        return cosine

    others = np.arange(len(world.cells)) != world.goal
    assert c("symmetric")[others].min() > 0.97
    assert abs(c("random")[others].mean()) < 0.05
    assert c("distance")[others & (np.arange(len(world.cells)) != far)].min() > 0.9
    assert c("distance")[far] < 0.6


def test_of_two_goals_the_mean_is_served() -> None:
    """By hand: energies are of the mean itself, what is recorded of its direction."""
    world = four_rooms()
    table = tabular.Table(world, Settings(init="random", second_goal="9,6"), [np.random.default_rng(0)])
    psi = table.psi()[0].astype(np.float64)
    mean = (psi[world.state(9, 9)] + psi[world.state(9, 6)]) / 2
    assert np.linalg.norm(mean) < 0.95
    for state in (world.state(0, 0), world.state(8, 7)):
        for move, there in enumerate(world.next_state[state]):
            assert table.energies()[0, state, move] == pytest.approx(psi[there] @ mean, abs=1e-6)
    np.testing.assert_allclose(table.command()[0], mean / np.linalg.norm(mean), atol=1e-6)


def test_rooms_begin_at_right_angles_and_others_near() -> None:
    world = four_rooms()
    plain, _ = tabular.initial(world, Settings(), np.random.default_rng(0))
    table, vector = tabular.initial(world, Settings(orthogonal="upper-right,goal-room"), np.random.default_rng(0))
    c = table @ vector
    for state, (i, j) in enumerate(world.cells.tolist()):
        if (i < 5 and j > 5) or (i > 5 and j > 5 and state != world.goal):
            assert abs(c[state]) < 1e-6, (i, j)
        else:
            np.testing.assert_array_equal(table[state], plain[state])
    np.testing.assert_allclose(np.linalg.norm(table, axis=1), 1, rtol=1e-5)
    far, _ = tabular.initial(world, Settings(spread=1.0), np.random.default_rng(0))
    assert (far @ vector)[world.start] < (plain @ vector)[world.start]


def test_a_forced_room_is_seen_by_the_policy_alone() -> None:
    world = four_rooms()
    free, forced = (
        tabular.Table(world, Settings(forced=told), [np.random.default_rng(0)]) for told in ("", "upper-right=-1")
    )
    np.testing.assert_array_equal(free.psi(), forced.psi())
    leads_there = np.array([[i < 5 and j > 5 for i, j in world.cells[there]] for there in world.next_state])
    assert leads_there.any()
    np.testing.assert_array_equal(forced.energies()[0][leads_there], -1)
    np.testing.assert_array_equal(forced.energies()[0][~leads_there], free.energies()[0][~leads_there])


def test_a_vector_is_drawn_anew_with_every_update() -> None:
    study = Study(Settings(goal_command="redrawn-vector", seeds=2, episodes=15), moments=4)
    while not study.done:
        study.round()
    vectors = study.record.command
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1, rtol=1e-5)
    between = np.einsum("kmr,knr->kmn", vectors, vectors)
    assert (between[:, ~np.eye(4, dtype=bool)] < 0.9).all()


def test_steps_of_the_last_tenth_are_counted_by_room_and_goal() -> None:
    record = studied(second_goal="9,6", episodes=40)
    world, visits = record.world, record.visits[:, -1].astype(float)
    found = {statistic.name: statistic.values for statistic in analysis.statistics(record)}
    near = [[abs(i - 9) + abs(j - 6) <= 1 for i, j in world.cells.tolist()]] * 2
    np.testing.assert_allclose(found["steps_at_second_goal"], np.where(near, visits, 0).sum(1) / (10 * HORIZON))
    upper_right = [[i < 5 and j > 5 for i, j in world.cells.tolist()]] * 2
    np.testing.assert_allclose(found["steps_in_room_1"], np.where(upper_right, visits, 0).sum(1) / (10 * HORIZON))


def test_settings_refuse_what_cannot_be() -> None:
    for settings, told in (
        ({"world": "four-room"}, "world must be one of .* 'four-rooms'"),
        ({"init": "uniform"}, "init must be one of symmetric, random, distance, got 'uniform'"),
        ({"loss": "backwards"}, "Did you mean 'backward'"),
        ({"dimension": 1}, "dimension must be at least 2, got 1"),
        ({"episodes": 4}, "episodes must be at least 5, got 4"),
        ({"neural": True, "init": "distance"}, "init distance: of tables alone; leave it out, or --neural"),
        ({"neural": True, "spread": 0.5, "forced": "upper-right=1"}, "spread, forced: of tables alone"),
        ({"temperature": 0.0}, "must be above 0, got 0 and 0.2"),
        (
            {"second_goal": "5,5"},
            "expected row and column of a free cell of four rooms, 10 by 10, such as 9,6, got '5,5'",
        ),
        ({"second_goal": "9,-1"}, "free cell"),
        ({"second_goal": "9,10"}, "free cell"),
        ({"second_goal": "9"}, "free cell"),
        ({"second_goal": "9,6", "goal_command": "random-vector"}, "second_goal needs goal_command single"),
        ({"orthogonal": "upper-left"}, "expected rooms among start-room, upper-right, .*, got 'upper-left'"),
        ({"forced": "goal-room"}, "a cosine, such as upper-right=-1, got 'goal-room'"),
        ({"forced": "goal-room=2"}, "a cosine"),
    ):
        with pytest.raises(ConfigError, match=told):
            Settings(**settings)  # type: ignore[arg-type]


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_a_record_counts_every_visit() -> None:
    record = studied(world="box", episodes=100)
    world = record.world
    assert record.episode.tolist() == [0, 25, 50, 75, 100]
    assert record.visits.sum((1, 2)).tolist() == [100 * HORIZON] * 2
    rooms = np.stack([record.visits[..., world.room == room].sum((1, 2)) for room in range(4)], -1)
    np.testing.assert_array_equal(record.time_in_room.sum(1, dtype=np.int64), rooms)
    np.testing.assert_array_equal(record.time_at_goal.sum(1), record.visits[..., world.near_goal].sum((1, 2)))
    np.testing.assert_array_equal(record.first_visit >= 0, record.visits.any(1))
    for k, first in enumerate((record.time_at_goal > 0).argmax(1)):
        assert record.first_visit[k, world.near_goal].min() == first


def test_a_record_is_saved_whole(tmp_path: Path) -> None:
    record = studied()
    record.save(tmp_path / "record.npz")
    again = Record.load(tmp_path / "record.npz")
    assert again.settings == record.settings
    assert (again.rounds_done, again.moments) == (8, 5)
    np.testing.assert_array_equal(again.psi, record.psi)
    (tmp_path / "notes.npz").write_text("mine")
    np.savez(tmp_path / "other.npz", psi=np.zeros(3))
    for name in ("notes.npz", "other.npz", "nowhere.npz"):
        with pytest.raises(CheckpointError, match=f"{name} is not a record"):
            Record.load(tmp_path / name)


def test_a_study_cut_short_is_that_of_fewer_episodes() -> None:
    study = Study(Settings(world="box", seeds=1, episodes=40), moments=9)
    for _ in range(4):
        study.round()
    short, whole = study.record.so_far(), Study(Settings(world="box", seeds=1, episodes=20), moments=5)
    while not whole.done:
        whole.round()
    for name in ("episode", "time_at_goal", "time_in_room", "visits", "first_visit", "psi", "path", "greedy_path"):
        np.testing.assert_array_equal(getattr(short, name), getattr(whole.record, name), err_msg=name)


# --- statistics -------------------------------------------------------------------------------------------------------


def test_moving_average_and_when_it_passes() -> None:
    ones = analysis.moving_average(np.ones((1, 300)))
    np.testing.assert_allclose(ones[0], 1 - 0.98 ** np.arange(1, 301), rtol=1e-4)
    # 1 - 0.98^n exceeds 0.9 first at n = 114: ln 0.1 / ln 0.98 is 113.97.
    assert analysis.first_above(ones, 0.9).tolist() == [113]
    assert analysis.first_above(np.zeros((2, 5), np.float32), 0.5).tolist() == [-1, -1]


def test_rank_correlation_by_counting() -> None:
    """A rank is the number of smaller values, and half of the equal ones: many ties here."""
    x, y = np.random.default_rng(0).integers(8, size=(2, 50))
    y = x + 2 * y
    ranks = [[sum(other < v for other in z) + sum(other == v for other in z) / 2 for v in z] for z in (x, y)]
    assert analysis.rank_correlation(x, y) == pytest.approx(np.corrcoef(ranks)[0, 1])
    assert np.isnan(analysis.rank_correlation(x, np.ones(50)))


def test_decomposition_and_its_directions() -> None:
    """ζ made of two directions, one three times as long as the other: those are found."""
    generator = np.random.default_rng(0)
    axes, _ = np.linalg.qr(generator.normal(size=(8, 8)))
    goal, first, second = axes[:3]
    c, angle = generator.uniform(-1, 1, 40), generator.uniform(0, 7, 40)
    side = 3 * np.cos(angle)[:, None] * first + np.sin(angle)[:, None] * second
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    psi = c[:, None] * goal + np.sqrt(1 - c[:, None] ** 2) * side
    found, zeta = analysis.decomposition(psi, goal)
    np.testing.assert_allclose(found, c, atol=1e-12)
    np.testing.assert_allclose(zeta @ goal, 0, atol=1e-12)
    np.testing.assert_allclose(found**2 + (zeta**2).sum(1), 1)
    directions = analysis.principal_directions(zeta)
    assert abs(directions[0] @ first) > 0.95
    np.testing.assert_allclose(directions @ directions.T, np.eye(2), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(zeta @ directions.T, axis=1), np.linalg.norm(zeta, axis=1))


def made_up() -> Record:
    """Two seeds of a corridor of six cells. One reaches the goal in episode 10 and ever after; the other never does."""
    record = Study(Settings(world="box", seeds=2, dimension=2, episodes=1000), moments=11).record
    world, states = record.world, len(record.world.cells)
    record.rounds_done, record.moments = 200, 11
    record.time_at_goal[0, 10:] = 7
    record.first_visit[:] = 3 * world.steps_from_start
    record.first_visit[0, world.near_goal] = 10
    record.first_visit[1, world.steps_from_start > 5] = -1
    c = np.ones((2, 11, states))
    # Seed 0: visited states fall to 0.5 at once, and the path, the left column and the last row, rises again at last.
    on = (world.cells[:, 1] == 0) | (world.cells[:, 0] == 4)
    c[0, 1:] = 0.5
    c[0, 10, on] = 0.75
    c[:, :, world.goal] = 1
    record.command[..., 0] = 1
    record.psi[..., 0], record.psi[..., 1] = c, np.sqrt(1 - c**2)
    record.psi_at_first[0, :, 0] = np.where(world.steps_from_start < 3, 0.9, 1)
    record.visits[:, 1:] = 9 - world.steps_from_start
    walk = [*world.number[:, 0], *world.number[4, 1:]]
    record.path[0, -1] = [*walk, *[world.goal] * (HORIZON + 1 - len(walk))]
    record.greedy_path[0, -1] = world.goal
    return record


def test_statistics_of_made_up_records() -> None:
    record = made_up()
    values = {statistic.name: statistic.values for statistic in analysis.statistics(record)}
    # 34 successes in a row bring the average above 0.5, 114 above 0.9 (0.98^34 = 0.503, 0.98^35 = 0.493).
    for name, expected in (
        ("first_reached", [10, np.nan]),
        ("half_found", [10 + 34, np.nan]),
        ("found", [10 + 113, np.nan]),
        ("greedy_at_end", [1, 0]),
        ("first_in_room_0", [0, 0]),
    ):
        np.testing.assert_allclose(values[name], expected, err_msg=name)
    assert values["distance_order"][1] == pytest.approx(1)
    assert values["distance_order"][0] < 1  # its goal was reached sooner than three episodes a step
    # Visited before episode 10: the cells up to three steps away, 1 + 2 + 3 at 0.9 and 4 at 1.
    np.testing.assert_allclose(values["fall_before_first"][0], -0.6 / 10, atol=1e-6)
    np.testing.assert_allclose(values["unvisited_above_visited"][0], 0.06, atol=1e-6)
    # Seed 1 never comes there: c is 1 everywhere to the end.
    np.testing.assert_allclose([values["fall_before_first"][1], values["unvisited_above_visited"][1]], 0, atol=1e-6)
    goal = record.world.goal
    visits = record.visits[0, :2].sum(0)
    np.testing.assert_allclose(values["fall_before_half"][0], -0.5 * (1 - visits[goal] / visits.sum()), atol=1e-6)
    np.testing.assert_allclose(values["rise_on_path"], [0.25, np.nan], atol=1e-6)
    np.testing.assert_allclose(values["rise_off_path"], [0, np.nan], atol=1e-6)
    np.testing.assert_allclose(values["rise_on_less_off"], [0.25, np.nan], atol=1e-6)
    np.testing.assert_allclose(values["rise_on_path_since_lowest"], [0.25, np.nan], atol=1e-6)
    np.testing.assert_allclose(values["rise_off_path_since_lowest"], [0, np.nan], atol=1e-6)
    assert analysis.count_found(record)[0] == 1


def test_what_is_seldom_visited_is_held_against_what_is_often_visited() -> None:
    """c = 1 - visits / 10, visits being 9 less the steps from the start.

    Of 24 cells, the goal left out, four are a fifth: visited least 2, 2, 3 and 3 times, most 9, 8, 8 and 7 times.
    """
    record = made_up()
    record.psi[0, 1, :, 0] = 1 - record.visits[0, 1] / 10
    values = {statistic.name: statistic.values for statistic in analysis.statistics(record)}
    np.testing.assert_allclose(values["least_above_most"], [(8 - 2.5) / 10, np.nan], atol=1e-6)
    np.testing.assert_allclose(values["visits_against_c"], [-1, np.nan], atol=1e-6)


def test_intervals_hold_the_mean_and_narrow_with_seeds() -> None:
    few = analysis.Statistic("x", np.array([1.0, 2.0, 3.0, np.nan]), "")
    mean, low, high = few.interval()
    assert mean == 2
    assert 1 <= low < 1.6
    assert 2.4 < high <= 3
    many = analysis.Statistic("x", np.tile([1.0, 2.0, 3.0], 100), "").interval()
    # 1.96 standard errors: 1.96 sqrt(2 / 3 / 300).
    np.testing.assert_allclose(many, (2, 2 - 0.0924, 2 + 0.0924), atol=0.01)
    assert np.isnan(analysis.Statistic("x", np.array([np.nan]), "").interval()).all()


# --- the page and the command line ------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Collects what a page refers to, and checks that what is opened is closed."""

    VOID = ("meta", "input", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []
        self.script = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "action", "data", "srcset"):
                self.references.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"]:
            self.script += data


def test_the_page_is_whole_and_needs_nothing_else(tmp_path: Path) -> None:
    record = studied(world="box")
    write_page(tmp_path / "index.html", [record], "crl lab four-rooms --x '</script>'")
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not page.open
    assert not page.references
    assert not re.search(r"https?:|//\w+\.|@import|url\(|fetch\(|XMLHttpRequest|import\(", text)
    assert len(set(page.ids)) == len(page.ids)
    assert set(re.findall(r'\$\("(\w+)"\)', page.script)) <= set(page.ids)
    found = re.search(r"^const DATA = (.*);$", page.script, re.MULTILINE)
    assert found
    data = json.loads(found[1])
    assert data["command"].endswith("'</script>'")
    study = data["studies"][0]
    assert study["episodes"] == record.episode.tolist()
    import base64

    c = np.frombuffer(base64.b64decode(study["seeds"][1]["c"]), "<i2").reshape(record.c[1].shape) / 32767
    np.testing.assert_allclose(c, record.c[1], atol=2e-5)


@pytest.fixture
def crl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, ["lab", "four-rooms", *arguments])


def test_the_command_writes_all_it_says(
    crl: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "SHARES", (0.0, 1.0))  # two columns are drawn as six are
    done = crl("--world", "box", "--init", "distance", "--seeds", "2", "--episodes", "20", "--no-video")
    assert done.exit_code == 0, done.output
    assert "distance initialisation, table of 16: 0 of 2 seeds found the goal" in done.output
    place = tmp_path / "lab" / "box"
    named = re.search(r"wrote (.*) in ", done.output)
    assert named
    assert sorted(named[1].split(", ")) == sorted(path.name for path in place.iterdir())
    assert {"distance.npz", "maps.png", "goal_axis.png", "curves.png"} <= set(named[1].split(", "))
    assert "crl lab four-rooms --world box --init distance --seeds 2 --episodes 20" in (place / "index.html").read_text(
        encoding="utf-8"
    )
    statistics = (place / "statistics.csv").read_text(encoding="utf-8")
    assert statistics.count("box, 5 by 5: distance initialisation") == len(analysis.statistics(made_up()))
    again = crl("--world", "box")
    assert again.exit_code == 2
    assert "is not empty" in again.output


def test_a_stopped_study_writes_what_there_is(
    crl: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play = Study.round

    def stop_at_last(self: Study) -> None:
        if self.record.rounds_done == 6:
            raise KeyboardInterrupt
        play(self)

    monkeypatch.setattr(Study, "round", stop_at_last)
    monkeypatch.setattr(verb, "find_spec", lambda name: None)
    stopped = crl("--world", "box", "--seeds", "1", "--episodes", "50", "--output", "here")
    assert stopped.exit_code == 130, stopped.output
    assert 'no pictures: matplotlib is not installed: pip install "crl[plot]"' in stopped.output
    assert Record.load(tmp_path / "here" / "symmetric.npz").episode[-1] == 30
    assert not (tmp_path / "here" / "random.npz").exists()


@pytest.mark.slow
def test_the_command_s_film(crl: Callable[..., Result], tmp_path: Path) -> None:
    import av

    done = crl("--world", "box", "--init", "symmetric", "--seeds", "1", "--episodes", "20", "--output", "here")
    assert done.exit_code == 0, done.output
    with av.open(str(tmp_path / "here" / "symmetric.mp4")) as film:
        frames = list(film.decode(video=0))
    assert len(frames) == 3 * 5


def test_worlds_of_one_s_own() -> None:
    world = World("a corridor", ("R..G",))
    assert world.next_state[0].tolist() == [0, 0, 0, 1, 0]
    assert world.room.tolist() == [0, 1, 2, 3]
