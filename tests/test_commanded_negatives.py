"""Goals that were commanded as further negatives: the loss by loops, its optimum, the update, whole runs, refusals."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Quiet
from test_agent import Batch, Config, Spec, make_batch
from test_resume import resume, start
from torch import Tensor

from crl import checkpoint, losses, resolution
from crl.agent import Agent
from crl.config import TrainConfig
from crl.errors import ConfigError

KINDS = ("forward_infonce", "binary_nce")


@dataclass
class Commanded(Batch):
    desired_goal: Tensor


def batch(seed: int = 0, rows: int = 16) -> Commanded:
    plain = make_batch(seed, rows)
    generator = torch.Generator().manual_seed(50 + seed)
    return Commanded(plain.observation, plain.action, plain.goal, torch.randn(rows, 2, generator=generator))


def loss_of(kind: str, logits: Tensor, commanded: Tensor, weight: float) -> Tensor:
    logsumexp, further = losses.with_commanded(kind, logits, commanded, weight)
    return losses.contrastive_loss(logits, kind, logsumexp) + further


@pytest.mark.parametrize("weight", [0.1, 1.0, 2.5])
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_that_of_a_loop_over_pairs(kind: str, weight: float) -> None:
    rng = np.random.default_rng(3)
    logits, commanded = rng.normal(0, 2, (6, 6)), rng.normal(0, 2, 6)
    total = 0.0
    for i in range(6):
        if kind == "forward_infonce":
            terms = [math.exp(x) for x in logits[i]] + [6 * weight * math.exp(commanded[i])]
            total -= math.log(math.exp(logits[i, i]) / sum(terms)) / 6
        else:
            for j in range(6):
                p = 1 / (1 + math.exp(-logits[i, j]))
                total -= math.log(p if i == j else 1 - p) / 36
            total -= weight * math.log(1 - 1 / (1 + math.exp(-commanded[i]))) / 6
    made = loss_of(kind, torch.tensor(logits), torch.tensor(commanded), weight)
    assert made.item() == pytest.approx(total, abs=1e-12)
    inputs = (torch.tensor(logits, requires_grad=True), torch.tensor(commanded, requires_grad=True))
    assert torch.autograd.gradcheck(lambda x, y: loss_of(kind, x, y, weight), inputs)


@pytest.mark.parametrize("kind", KINDS)
def test_as_many_negatives_as_if_they_were_in_the_batch(kind: str) -> None:
    """A weight of 1/B is one goal more: as in the loss of a wider matrix, whose last column has no positive."""
    torch.manual_seed(0)
    logits, commanded = torch.randn(5, 5, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    wide = torch.cat((logits, commanded[:, None]), 1)
    made = loss_of(kind, logits, commanded, 1 / 5)
    if kind == "forward_infonce":
        assert made == pytest.approx((wide.logsumexp(1) - logits.diagonal()).mean().item())
    else:
        positive = torch.zeros_like(wide)
        positive[:, :5] = torch.eye(5, dtype=torch.float64)
        pairs = torch.nn.functional.binary_cross_entropy_with_logits(wide, positive, reduction="sum")
        assert made == pytest.approx(pairs.item() / 25)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weight", [0.25, 1.0])
def test_chance_is_the_best_of_equal_logits(kind: str, weight: float) -> None:
    best = min(
        loss_of(kind, torch.full((8, 8), x), torch.full((8,), x), weight).item()
        for x in torch.linspace(-6, 2, 801, dtype=torch.float64)
    )
    assert best == pytest.approx(losses.chance_loss(kind, 8, weight), abs=1e-4)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("critics", [1, 2])
@pytest.mark.parametrize("objective", ["forward_infonce", "cpc", "binary_nce"])
def test_the_update_is_the_equation(objective: str, critics: int) -> None:
    settings: dict[str, Any] = {"objective": objective, "num_critics": critics, "critic_value": "mean", "energy": "dot"}
    agent = Agent(Spec(), Config(critic_depth=4, commanded_negatives=0.3, logsumexp_penalty=0.02, **settings))
    rows = batch()
    pairs = torch.cat((rows.observation, rows.action), 1)
    expected = []
    kind = losses.contrastive_loss_of(objective)
    with torch.no_grad():
        for phi, psi in agent.networks.critics:  # type: ignore[attr-defined]
            logits = (phi(pairs) @ psi(rows.goal).T).double()
            others = (phi(pairs) * psi(rows.desired_goal).roll(-1, 0)).sum(1).double()
            logsumexp, _ = losses.with_commanded(kind, logits, others, 0.3)
            expected.append(loss_of(kind, logits, others, 0.3) + 0.02 * logsumexp.square().mean())
    assert agent.columns == ("desired_goal",)
    made = agent.update(rows)["train/critic_loss"]
    assert made.item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)


@pytest.mark.usefixtures("one_thread")
def test_where_it_has_been_a_goal_that_is_commanded_and_never_reached_comes_to_be_far() -> None:
    def energy(weight: float) -> float:
        agent = Agent(Spec(), Config(critic_depth=4, commanded_negatives=weight, learning_rate=3e-3))
        goal = torch.tensor([[1.5, 1.5]])
        for seed in range(60):
            plain = make_batch(seed, 32)
            given = (plain.observation, plain.action, plain.goal)
            agent.update(Commanded(*given, goal.expand(32, 2)) if weight else plain)
        rows = make_batch(99, 64)
        with torch.no_grad():
            score = agent.networks.score(rows.observation, goal.expand(64, 2), rows.action[:, None])
        return score.mean().item()

    assert energy(0.5) < energy(0.0) - 1


def test_a_run_resumes_bit_for_bit(tiny: Callable[..., TrainConfig]) -> None:
    settings = {"commanded_negatives": 0.1, "actor_goals": "commanded", "command": "single"}
    whole = start(tiny("whole", **settings))
    reporter = Quiet()
    reporter.stop_when = lambda progress: progress.updates == 19
    again = resume(start(tiny("part", **settings), reporter).run_dir)
    saved = [checkpoint.latest(each.run_dir) / "agent.safetensors" for each in (whole, again)]  # type: ignore[arg-type]
    assert saved[0].read_bytes() == saved[1].read_bytes()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "backward_infonce"}, "commanded_negatives is of objectives .*forward_infonce, cpc, binary_nce"),
        ({"objective": "c_learning", "energy": "dot"}, r"commanded_negatives is of objectives"),
        ({"algorithm": "sac"}, r"commanded_negatives is not read by algorithm sac"),
        ({"env": "point_spiral_11x11_image"}, r"commanded_negatives is not of images"),
        ({"dataset": "rows.safetensors"}, r"commanded_negatives cannot be had with a data set"),
    ],
)
def test_refused(settings: dict[str, Any], message: str) -> None:
    given = {"env": "point_u_maze", "commanded_negatives": 0.1, **settings}
    with pytest.raises(ConfigError, match=message):
        resolution.resolve(TrainConfig(**given), device="cpu", num_cores=1)


@pytest.mark.parametrize(
    "settings", [{"env": "point_spiral_11x11_image"}, {"env": "ant", "dataset": "rows.safetensors"}]
)
def test_goals_of_the_actor_as_commanded_are_refused_alike(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"actor_goals commanded (is not of images|cannot be had with a data set)"):
        resolution.resolve(TrainConfig(actor_goals="commanded", **settings), device="cpu", num_cores=1)
