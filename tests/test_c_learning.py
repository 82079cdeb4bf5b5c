"""C-learning in the learner: which rows are told what, and by whom."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from test_agent import Batch as Rows
from test_agent import make_agent, make_batch
from torch import Tensor

from crl.agent import Agent
from crl.algorithms import CLearning
from crl.networks import squash

GAMMA = 0.75  # of 16 rows 16 are of next states in C-learning, and 3 where NCE is added
SETTINGS: dict[str, Any] = {"energy": "dot", "num_critics": 2, "critic_value": "min", "gamma": GAMMA, "critic_depth": 4}


@dataclass
class Batch(Rows):
    next_observation: Tensor
    next_achieved_goal: Tensor


def batch(seed: int = 0, rows: int = 16) -> Batch:
    """The toy of test_agent.py: the goal lies an action away, half of it a step away."""
    plain = make_batch(seed, rows)
    half = (plain.observation[:, :2] + plain.goal) / 2
    following = torch.cat((half, plain.observation[:, 2:]), 1)
    return Batch(plain.observation, plain.action, plain.goal, following, half)


def c_learner(objective: str = "c_learning", **settings: Any) -> Agent:
    return make_agent(objective=objective, **{**SETTINGS, **settings})


@pytest.mark.parametrize(("objective", "next_goals", "nce"), [("c_learning", 16, 0.0), ("nce_c_learning", 3, 1.0)])
def test_the_update_is_the_equation(objective: str, next_goals: int, nce: float) -> None:
    agent, rows = c_learner(objective), batch()
    agent.update(batch(1))  # so that the target lags behind
    net, target = agent.networks, agent.algorithm.target
    assert isinstance(agent.algorithm, CLearning)
    assert target is not None
    generator = agent._update_generator.clone_state()
    noises = [torch.randn(rows.action.shape, generator=generator) for _ in range(2)]
    goals = torch.cat((rows.next_achieved_goal[:next_goals], rows.goal[next_goals:]))
    others = torch.cat((goals[1:], goals[:1]))
    pairs = torch.cat((rows.observation, rows.action), 1)
    with torch.no_grad():
        next_action, _ = squash(*net.actor(rows.next_observation, others), noises[1])
        next_pairs = torch.cat((rows.next_observation, next_action), 1)
        beyond = [(phi(next_pairs) * psi(others)).sum(1) for phi, psi in target.critics]  # type: ignore[attr-defined]
        odds = torch.sigmoid(torch.minimum(*beyond).double())
        weight = (odds / (1 - odds)).clamp(max=20)
        total = torch.zeros((), dtype=torch.float64)
        for phi, psi in net.critics:  # type: ignore[attr-defined]
            own = torch.sigmoid((phi(pairs) * psi(goals)).sum(1).double())
            other = torch.sigmoid((phi(pairs) * psi(others)).sum(1).double())
            part = (1 - GAMMA + nce) * own.log() + GAMMA * weight * other.log() + (1 + nce) * (1 - other).log()
            total -= part.mean() / 2
    metrics = agent.update(rows)
    assert metrics["train/critic_loss"].item() == pytest.approx(total.item(), rel=1e-4)
    assert metrics["train/importance_weight"].item() == pytest.approx(weight.mean().item(), rel=1e-4)


def test_the_target_follows_slowly_and_is_stored() -> None:
    agent = c_learner()
    before = {name: tensor for name, tensor in agent.state_dict().items() if name.startswith("target.")}
    weights = agent.state_dict()
    for name, tensor in before.items():
        torch.testing.assert_close(tensor, weights[name.removeprefix("target.")])
    agent.update(batch())
    after = agent.state_dict()
    for name, tensor in before.items():
        expected = torch.lerp(tensor, after[name.removeprefix("target.")], 0.005)
        torch.testing.assert_close(after[name], expected)
    again = c_learner(seed=5)
    again.load_state_dict(after)
    for learner in (agent, again):
        learner.update(batch(2))
    for name, tensor in agent.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


@pytest.mark.parametrize("objective", ["c_learning", "nce_c_learning"])
def test_it_tells_reached_goals_from_others(objective: str) -> None:
    agent = c_learner(objective, learning_rate=3e-3)
    for step in range(120):
        metrics = agent.update(batch(step, 64))
    assert metrics["train/categorical_accuracy"] > 0.8
    assert metrics["train/logits_pos"] > metrics["train/logits_neg"] + 1
    assert all(value.isfinite() for value in metrics.values())


def test_a_run_learns_by_it(tiny: Any) -> None:
    from test_trainer import run

    result = run(tiny(env="point_u_maze", objective="nce_c_learning", energy="dot", num_critics=2))
    assert result.updates == 40
