"""How networks see what the world shows: standardised, the world's units and origin no longer matter."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from test_agent import Config, Spec
from test_baselines import Transition, make_transitions
from torch import Tensor

from crl.agent import Agent
from crl.inputs import LEAST_DEVIATION, Inputs
from crl.ranks import Ranks

ALGORITHMS = ("crl", "c_learning", "sac", "td3", "gcbc", "forward_model")
TWINS = {"num_critics": 2, "critic_value": "min"}


def alone(tensors: Sequence[Tensor]) -> None:
    assert tensors


def learner(kind: str, spec: Any = None, **settings: Any) -> Agent:
    if kind == "c_learning":
        settings = {"objective": kind, "energy": "dot", "logsumexp_penalty": 0.0, **TWINS, **settings}
    elif kind in ("sac", "td3"):
        settings = {"algorithm": kind, **TWINS, **settings}
    else:
        settings = {"algorithm": kind, **settings}
    return Agent(spec or Spec(), Config(critic_depth=4, normalize_observations=True, **settings))


@pytest.mark.parametrize("seed", range(3))
def test_entries_have_mean_0_and_deviation_1(seed: int) -> None:
    rng = np.random.default_rng(seed)
    observation = rng.normal(rng.normal(0, 30, 4), rng.uniform(0.1, 9, 4), (500, 4)).astype(np.float32)
    goal = rng.normal(-2, 3, (500, 2)).astype(np.float32)
    inputs = Inputs(4, 2, normalize=True)
    inputs.fit(torch.tensor(observation), torch.tensor(goal), alone)
    expected = (observation - observation.mean(0, dtype=np.float64)) / observation.std(0, dtype=np.float64)
    np.testing.assert_allclose(inputs.of_observation(torch.tensor(observation)), expected, atol=1e-4)
    seen = inputs.of_goal(torch.tensor(goal))
    np.testing.assert_allclose(seen, (goal - goal.mean(0)) / goal.std(0), atol=1e-4)
    np.testing.assert_allclose(inputs.goal_of(seen), goal, atol=1e-5)


def test_what_hardly_varies_is_not_blown_up() -> None:
    inputs = Inputs(2, 1, normalize=True)
    inputs.fit(torch.tensor([[7.0, 0.99], [7.0, 1.01]]), torch.zeros(2, 1), alone)
    seen = inputs.of_observation(torch.tensor([[7.0, 1.05], [8.0, 1.0]]))
    torch.testing.assert_close(seen, torch.tensor([[0.0, 1.0], [1 / LEAST_DEVIATION, 0.0]]), atol=1e-5, rtol=0)


def test_numbers_are_seen_as_they_are_unless_asked() -> None:
    inputs, rows = Inputs(3, 2), torch.randn(5, 3)
    inputs.fit(rows, rows[:, :2], alone)
    assert torch.equal(inputs.of_observation(rows), rows)
    assert torch.equal(inputs.of_goal(rows[:, :2]), rows[:, :2])
    assert torch.equal(inputs.goal_of(rows[:, :2]), rows[:, :2])
    assert not inputs.state_dict()


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", ALGORITHMS)
def test_the_unit_of_the_world_and_its_origin_do_not_matter(kind: str) -> None:
    """Two learners of one world, the second of which is told centimetres from another origin: the same updates."""

    @dataclasses.dataclass(frozen=True)
    class Moved(Spec):
        def reached(self, achieved: Tensor, desired: Tensor) -> Tensor:
            return super().reached((achieved - 40) / 100, (desired - 40) / 100)  # type: ignore[no-any-return,misc]

    def moved(batch: Transition) -> Transition:
        metres = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
        of_places = {name: 100 * x + 40 for name, x in metres.items() if name.endswith(("observation", "goal"))}
        return Transition(**{**metres, **of_places})

    first, second = learner(kind), learner(kind, Moved())
    for seed in range(4):
        batch = make_transitions(seed, rows=32)
        mine, theirs = first.update(batch), second.update(moved(batch))
        for name, value in mine.items():
            torch.testing.assert_close(theirs[name], value, rtol=2e-3, atol=2e-4, msg=lambda m, n=name: f"{n}: {m}")
    observation, goal = batch.observation[:6], batch.goal[:6]
    mine, theirs = (
        of.act(o, g, deterministic=True)
        for of, o, g in ((first, observation, goal), (second, 100 * observation + 40, 100 * goal + 40))
    )
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-3)


def test_rewards_are_of_what_the_world_shows() -> None:
    """Whatever the networks see, a success is one within the environment's own distance."""
    batch = make_transitions(rows=64)
    plain = Agent(Spec(), Config(algorithm="sac", critic_depth=4, **TWINS))
    assert plain.update(batch)["train/reward_mean"] == learner("sac").update(batch)["train/reward_mean"] > 0


@pytest.mark.usefixtures("one_thread")
def test_the_first_batch_decides_also_after_resuming() -> None:
    agent, again = learner("crl"), learner("crl", seed=5)
    agent.update(make_transitions(0))
    decided = {name: x for name, x in agent.state_dict().items() if name.startswith("inputs.")}
    assert set(decided) == {"inputs.observation", "inputs.goal"}
    again.load_state_dict(agent.state_dict())
    for each in (agent, again):
        each.update(make_transitions(1, size=3.0))
    state = again.state_dict()
    assert all(torch.equal(state[name], x) for name, x in decided.items())
    assert all(torch.equal(state[name], x) for name, x in agent.state_dict().items())


def test_several_processes_see_alike() -> None:
    """Moments of the whole batch, from those of its halves."""
    rows = torch.randn(64, 3) * torch.tensor([1.0, 5.0, 0.3]) + 7
    halves = rows[:32], rows[32:]
    sent: list[list[Tensor]] = []

    class Half(Ranks):
        size = 2

        def average(self, tensors: Sequence[Tensor]) -> None:
            sent.append([x.clone() for x in tensors])

    for half in halves:
        Inputs(3, 3, normalize=True).fit(half, half, Half().average)

    def averaged(tensors: Sequence[Tensor]) -> None:
        for i, tensor in enumerate(tensors):
            tensor.copy_((sent[0][i] + sent[2][i]) / 2)

    whole, both = Inputs(3, 3, normalize=True), Inputs(3, 3, normalize=True)
    whole.fit(rows, rows, alone)
    both.fit(halves[0], halves[0], averaged)
    torch.testing.assert_close(both.observation, whole.observation)
