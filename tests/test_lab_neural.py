"""The laboratory's networks: how they begin, what they prefer, and that they learn."""

import numpy as np
import pytest
import torch

from crl.lab import analysis
from crl.lab.neural import SPREAD, Networks, begin
from crl.lab.rooms import MOVES, WORLDS
from crl.lab.study import Settings, Study, policy, roll_out
from crl.networks import ReluMLP

BOX = WORLDS["box"]()


def networks(**settings: object) -> tuple[Networks, list[np.random.Generator]]:
    chosen = Settings(world="box", neural=True, **settings)  # type: ignore[arg-type]
    generators = [np.random.default_rng(seed) for seed in range(chosen.seeds)]
    return Networks(BOX, chosen, generators), generators


def test_encoders_begin_where_they_are_told_to() -> None:
    seeds = torch.Generator().manual_seed(0)
    inputs, vector = torch.eye(12), torch.nn.functional.normalize(torch.ones(8), dim=0)
    for told in (None, vector):
        encoder = ReluMLP(12, 8, generator=seeds)
        with torch.no_grad():
            before = encoder(inputs)
            begin(encoder, inputs, told)
            after = encoder(inputs)
        away = before - before.mean(0)
        if told is None:
            torch.testing.assert_close(after, away, atol=1e-5, rtol=0)
        else:
            scale = SPREAD / away.square().sum(1).mean().sqrt()
            torch.testing.assert_close(after, vector + scale * away, atol=1e-5, rtol=0)


def test_near_goal_and_random_beginnings() -> None:
    others = np.arange(len(BOX.cells)) != BOX.goal
    for init, low, high in (("symmetric", 0.97, 1.0), ("random", -0.5, 0.5)):
        learner, _ = networks(init=init, seeds=2)
        c = np.einsum("ksr,kr->ks", learner.psi(), learner.command())
        np.testing.assert_allclose(c[:, BOX.goal], 1, rtol=1e-5)
        assert low < c[:, others].mean() < high
    learner, _ = networks(goal_command="random-vector", seeds=1)
    c = (learner.psi() @ learner.command()[..., None])[0, :, 0]
    assert 0.97 < c[BOX.goal] < 0.99999  # near the vector, as all states are; the goal is not what is commanded


def test_energies_are_cosines_of_one_hot_rows_columns_and_moves() -> None:
    learner, _ = networks(init="random", seeds=1)
    seed, energies = learner._seeds[0], learner.energies()[0]
    state, move = BOX.state(3, 1), 4
    pair, goal = torch.zeros(5 + 5 + len(MOVES)), torch.zeros(5 + 5)
    pair[[3, 5 + 1, 10 + move]] = 1
    goal[[4, 5 + 4]] = 1
    with torch.no_grad():
        expected = torch.cosine_similarity(seed.phi(pair), seed.psi(goal), dim=0)
    assert energies[state, move] == pytest.approx(expected.item(), abs=1e-5)


def test_updates_tell_pairs_apart() -> None:
    """After updates on one round φ of a state and a move agrees better with what followed than with what did not."""
    learner, generators = networks(init="random", seeds=1)
    states, moves = roll_out(BOX, policy(np.zeros_like(learner.energies()), 0.1), generators)
    for _ in range(60):
        learner.update(states, moves, generators)
    with torch.no_grad():
        seed = learner._seeds[0]
        phi = torch.nn.functional.normalize(seed.phi(learner._pairs), dim=-1)
        psi = torch.nn.functional.normalize(seed.psi(learner._states), dim=-1)
    agreement = (phi @ psi.T).numpy().reshape(25, 5, 25)
    pairs = states[..., :-1].ravel(), moves.ravel()
    assert agreement[*pairs, states[..., 1:].ravel()].mean() > agreement[pairs].mean() + 0.1


def test_a_seed_does_not_depend_on_the_others() -> None:
    def psi(**settings: int) -> np.ndarray:
        study = Study(Settings(world="box", neural=True, episodes=15, **settings), moments=2)  # type: ignore[arg-type]
        while not study.done:
            study.round()
        return study.record.psi[:, -1]

    np.testing.assert_allclose(psi(seeds=1, first_seed=1)[0], psi(seeds=2)[1], atol=1e-5)


@pytest.mark.slow
def test_networks_find_the_goal_of_the_box() -> None:
    study = Study(Settings(world="box", neural=True, seeds=2, episodes=1500))
    while not study.done:
        study.round()
    assert analysis.count_found(study.record)[0] == 2
