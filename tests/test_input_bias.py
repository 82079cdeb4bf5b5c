"""Biases of the first layer: where they are, and what LayerNorm cannot tell without them."""

from typing import Any

import pytest
import torch
from test_agent import Config, Spec
from torch import nn

from crl import resolution
from crl.agent import Agent
from crl.config import TrainConfig
from crl.errors import ConfigError
from crl.networks import NETWORKS, build_network

WITH_BIASES = [name for name in NETWORKS if name != "hyperspherical"]


def biases(network: nn.Module) -> list[torch.Tensor]:
    """Of all dense layers, the first one's first."""
    return [x for name, x in network.named_parameters() if name.endswith("bias") and "norm" not in name]


@pytest.mark.parametrize("network", WITH_BIASES)
def test_the_first_layers_biases_are_drawn_and_no_others(network: str) -> None:
    first, *others = biases(build_network(network, 3, 4, 4096, 4, torch.Generator().manual_seed(0), input_bias=1.5))
    assert first.abs().max() <= 1.5
    assert first.mean().item() == pytest.approx(0, abs=0.05)
    assert first.std().item() == pytest.approx(1.5 / 3**0.5, rel=0.05)  # of the uniform law
    assert others
    assert not any(x.any() for x in others)


@pytest.mark.parametrize("network", WITH_BIASES)
def test_none_are_drawn_for_zero(network: str) -> None:
    made = [
        build_network(network, 3, 4, 16, 4, torch.Generator().manual_seed(0), **options)
        for options in ({}, {"input_bias": 0.0})
    ]
    assert not any(x.any() for x in biases(made[0]))
    assert all(torch.equal(a, b) for a, b in zip(*(each.parameters() for each in made), strict=True))


@torch.no_grad()
def test_a_new_residual_network_tells_lengths_by_them_alone() -> None:
    x = torch.randn(32, 2)
    blind, seeing = (
        build_network("residual", 2, 8, 64, 4, torch.Generator().manual_seed(0), input_bias=bias) for bias in (0.0, 1.0)
    )
    torch.testing.assert_close(blind(3 * x), blind(x), rtol=1e-3, atol=1e-3)
    assert (seeing(3 * x) - seeing(x)).norm() > 0.1 * seeing(x).norm()


@pytest.mark.parametrize(
    ("algorithm", "count"), [("crl", 3), ("sac", 3), ("td3", 3), ("gcbc", 1), ("forward_model", 2)]
)
def test_all_networks_of_an_agent_have_them(algorithm: str, count: int) -> None:
    critics: dict[str, Any] = {"num_critics": 2, "critic_value": "min"} if algorithm in ("sac", "td3") else {}
    agent = Agent(Spec(), Config(algorithm=algorithm, critic_depth=4, input_bias=2.0, **critics))
    first = [x for name, x in agent.networks.named_parameters() if name.endswith("input.dense.bias")]
    assert len(first) == count
    assert all(x.abs().max() > 1 for x in first)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"env": "ant", "network": "hyperspherical", "input_bias": 1.0}, "must be 0 with network hyperspherical"),
        ({"env": "point_spiral_11x11_image", "input_bias": 1.0}, "input_bias is for numbers, and "),
        ({"env": "ant", "input_bias": -1.0}, "input_bias must be at least 0"),
    ],
)
def test_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolution.resolve(TrainConfig(**settings), device="cpu", num_cores=1)
    if settings.get("network") == "hyperspherical":
        with pytest.raises(ValueError, match="has no biases"):
            build_network("hyperspherical", 2, 2, 8, 4, input_bias=1.0)
