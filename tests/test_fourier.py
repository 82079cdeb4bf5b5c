"""Fourier features of what networks see: the formula, what they make learnable, and where they are stored."""

from typing import Any

import numpy as np
import pytest
import torch
from conftest import Quiet
from test_agent import Config, Spec, make_batch
from test_baselines import make_transitions
from test_resume import resume, start
from torch import nn

from crl import checkpoint, resolution
from crl.agent import Agent
from crl.config import TrainConfig
from crl.errors import ConfigError
from crl.networks import NETWORKS, FourierFeatures, build_network


def test_the_formula() -> None:
    x = torch.randn(7, 3)
    made = FourierFeatures(nn.Identity(), 3, 5, 2.0, torch.Generator().manual_seed(1))
    frequencies = made.frequencies.double().numpy()
    phase = x.double().numpy() @ frequencies
    np.testing.assert_allclose(made(x), np.concatenate((x, np.sin(phase), np.cos(phase)), 1), atol=1e-5)
    many = FourierFeatures(nn.Identity(), 100, 100, 2.0, torch.Generator().manual_seed(1)).frequencies
    assert many.mean().item() == pytest.approx(0, abs=0.1)
    assert many.std().item() == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_takes_them(network: str) -> None:
    made = build_network(network, 6, 4, 16, 4, torch.Generator().manual_seed(0), fourier=(8, 1.0))
    plain = build_network(network, 6, 4, 16, 4, torch.Generator().manual_seed(0))
    assert made(torch.randn(5, 6)).shape == plain(torch.randn(5, 6)).shape
    assert not any("frequencies" in name for name, _ in made.named_parameters())


def test_what_changes_within_a_tenth_is_learnt_where_it_was_not() -> None:
    """A wave of ten radians per unit over a square, from 512 points: squared error after 300 steps of Adam."""

    def error(fourier: tuple[int, float]) -> float:
        generator = torch.Generator().manual_seed(0)
        network = build_network("residual", 2, 1, 32, 4, generator, fourier=fourier)
        x = 4 * torch.rand(512, 2, generator=generator)
        y = torch.sin(10 * x[:, :1]) * torch.cos(7 * x[:, 1:])
        adam = torch.optim.Adam(network.parameters(), lr=3e-3)
        for _ in range(300):
            adam.zero_grad()
            loss = (network(x) - y).square().mean()
            loss.backward()
            adam.step()
        return loss.item()

    assert error((64, 6.0)) < 0.2 * error((0, 1.0))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("algorithm", ["crl", "sac", "gcbc", "forward_model"])
def test_they_are_stored_with_the_weights(algorithm: str) -> None:
    settings: dict[str, Any] = {"algorithm": algorithm, "critic_depth": 4, "fourier_features": 8}
    settings |= {"num_critics": 2, "critic_value": "min"} if algorithm == "sac" else {}
    agent, other = Agent(Spec(), Config(**settings)), Agent(Spec(), Config(**settings, seed=5))
    agent.update(make_transitions())
    other.load_state_dict(agent.state_dict())
    first, second = (each.update(make_transitions(1)) for each in (agent, other))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(
        agent.act(make_batch().observation, make_batch().goal, True),
        other.act(make_batch().observation, make_batch().goal, True),
    )


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("objective", ["forward_infonce", "c_learning"])
def test_a_run_for_commanded_goals_resumes_bit_for_bit(tiny: Any, objective: str) -> None:
    critics = {"energy": "dot", "num_critics": 2} if objective == "c_learning" else {}
    settings = {
        "fourier_features": 8,
        "actor_goals": "commanded",
        "command": "single",
        "objective": objective,
        **critics,
    }
    whole = start(tiny("whole", **settings))
    reporter = Quiet()
    reporter.stop_when = lambda progress: progress.updates == 19
    part = start(tiny("part", **settings), reporter)
    again = resume(part.run_dir)
    saved = [checkpoint.latest(each.run_dir) / "agent.safetensors" for each in (whole, again)]  # type: ignore[arg-type]
    assert saved[0].read_bytes() == saved[1].read_bytes()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"env": "point_spiral_11x11_image", "fourier_features": 8},
            "fourier_features are of numbers, and ",
        ),
        ({"env": "ant", "fourier_scale": 2.0}, "fourier_scale is of Fourier features: give their number too, got 2"),
        ({"env": "ant", "fourier_scale": 0.0}, "fourier_scale must be greater than 0"),
    ],
)
def test_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolution.resolve(TrainConfig(**settings), device="cpu", num_cores=1)
