"""A commanded goal that is pushed away until it is reached: the update, its end, whole runs, refusals."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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
    """None of whose goals is near what was commanded."""
    plain = make_batch(seed, rows)
    generator = torch.Generator().manual_seed(50 + seed)
    return Commanded(plain.observation, plain.action, plain.goal, 6 + torch.randn(rows, 2, generator=generator))


def energies(agent: Agent, rows: Commanded, goal: Tensor) -> list[Tensor]:
    """Of each critic that of every row with every goal, by differences in float64."""
    pairs = torch.cat((rows.observation, rows.action), 1)
    with torch.no_grad():
        return [
            -(phi(pairs).double()[:, None] - psi(goal).double()[None]).norm(dim=-1)
            for phi, psi in agent.networks.critics  # type: ignore[attr-defined]
        ]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("critics", [1, 2])
@pytest.mark.parametrize("objective", ["forward_infonce", "backward_infonce", "symmetric_infonce", "cpc", "binary_nce"])
def test_the_update_is_the_equation(objective: str, critics: int) -> None:
    settings: dict[str, Any] = {"objective": objective, "num_critics": critics, "critic_value": "mean"}
    agent = Agent(Spec(), Config(critic_depth=4, commanded_negatives=0.3, logsumexp_penalty=0.02, **settings))
    rows = batch()
    kind, expected = losses.contrastive_loss_of(objective), 0.0
    both = zip(energies(agent, rows, rows.goal), energies(agent, rows, rows.desired_goal), strict=True)
    for logits, of_commanded in both:
        expected += losses.contrastive_loss(logits, kind).item()
        expected += (
            sum(0.02 * row.logsumexp(0).item() ** 2 + 0.3 * of_commanded[i, i].item() for i, row in enumerate(logits))
            / 16
        )
    assert agent.columns == ("desired_goal",)
    made = agent.update(rows)
    assert made["train/critic_loss"].item() == pytest.approx(expected / critics, rel=1e-5)
    assert made["train/commanded_reached"] == 0


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("normalize", [False, True])
def test_it_rests_in_a_batch_of_which_a_row_reached_what_was_commanded(normalize: bool) -> None:
    """Such an update is that of an agent that knows nothing of commanded goals."""
    settings: dict[str, Any] = {"critic_depth": 4, "normalize_observations": normalize}
    agent, plain = Agent(Spec(), Config(commanded_negatives=0.3, **settings)), Agent(Spec(), Config(**settings))
    near = batch(1)
    near.desired_goal[5] = near.goal[5] + 0.3  # 0.42 from it, of 0.5
    assert agent.update(near)["train/commanded_reached"] == 1
    plain.update(make_batch(1, 16))
    for one, other in zip(agent.networks.parameters(), plain.networks.parameters(), strict=True):
        assert torch.equal(one, other)
    agent.update(batch(2))
    plain.update(make_batch(2, 16))
    moved = [
        not torch.equal(*both) for both in zip(agent.networks.parameters(), plain.networks.parameters(), strict=True)
    ]
    assert any(moved)


@pytest.mark.usefixtures("one_thread")
def test_near_is_not_reached() -> None:
    agent = Agent(Spec(), Config(critic_depth=4, commanded_negatives=0.3))
    far = batch(1)
    far.desired_goal[:] = far.goal + 0.4  # 0.57
    assert agent.update(far)["train/commanded_reached"] == 0


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("settings", [{}, {"energy": "cosine", "energy_scale": "learned"}])
def test_where_it_has_been_a_goal_that_is_commanded_and_never_reached_comes_to_be_far(settings: dict[str, Any]) -> None:
    def energy(weight: float) -> float:
        agent = Agent(Spec(), Config(critic_depth=4, commanded_negatives=weight, learning_rate=3e-3, **settings))
        goal = torch.tensor([[9.0, 9.0]])
        for seed in range(60):
            plain = make_batch(seed, 32)
            given = (plain.observation, plain.action, plain.goal)
            agent.update(Commanded(*given, goal.expand(32, 2)) if weight else plain)
        rows = make_batch(99, 64)
        with torch.no_grad():
            score = agent.networks.score(rows.observation, goal.expand(64, 2), rows.action[:, None])
        return score.mean().item()

    assert energy(0.5) < energy(0.0) - (0.3 if settings else 3)


@pytest.mark.usefixtures("one_thread")
def test_a_learnt_scale_does_not_learn_from_it() -> None:
    """Else it would grow without end, as every energy with the commanded goal is negative in time."""
    gradients = []
    for weight in (0.0, 5.0):
        agent = Agent(
            Spec(), Config(critic_depth=4, energy="cosine", energy_scale="learned", commanded_negatives=weight)
        )
        agent.update(batch() if weight else make_batch(0, 16))
        # Not the scale itself: Adam's first step is as long for any gradient.
        gradients.append(agent.networks.log_scale.grad.item())  # type: ignore[attr-defined,operator,union-attr]
    assert gradients[0] == gradients[1] != 0


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
        ({"objective": "c_learning", "energy": "dot"}, "commanded_negatives is of objectives .* got c_learning"),
        ({"energy": "dot"}, "commanded_negatives is of energies norm and cosine, got dot"),
        ({"command": "env"}, "commanded_negatives is of one goal .* command is env: use --command single"),
        ({"algorithm": "sac"}, r"commanded_negatives is not read by algorithm sac"),
        ({"env": "point_spiral_11x11_image"}, r"commanded_negatives is not of images"),
    ],
)
def test_refused(settings: dict[str, Any], message: str) -> None:
    given = {"env": "point_u_maze", "command": "single", "commanded_negatives": 0.1, **settings}
    with pytest.raises(ConfigError, match=message):
        resolution.resolve(TrainConfig(**given), device="cpu", num_cores=1)


@pytest.mark.parametrize(
    "settings", [{"env": "point_spiral_11x11_image"}, {"env": "ant", "dataset": "rows.safetensors"}]
)
def test_goals_of_the_actor_as_commanded_are_refused_alike(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"actor_goals commanded (is not of images|cannot be had with a data set)"):
        resolution.resolve(TrainConfig(actor_goals="commanded", **settings), device="cpu", num_cores=1)
