"""The network on the hypersphere: its equations, unit lengths after every update, signals at every depth, learning."""

import math
from typing import Any

import pytest
import torch
from test_agent import differing, make_agent, make_batch
from torch import Tensor

from crl import losses
from crl.config import TrainConfig
from crl.errors import ConfigError
from crl.hyperspherical import HypersphericalMLP
from crl.networks import build_network
from crl.run import resolve

SPHERICAL: dict[str, Any] = {"network": "hyperspherical"}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spheres(module: torch.nn.Module) -> dict[str, Tensor]:
    """The weights that lie on spheres, by layer."""
    return {name: w for name, w in module.state_dict().items() if "weight" in name and "output" not in name}


def lengths(module: torch.nn.Module) -> Tensor:
    return torch.cat([weight.norm(dim=1) for weight in spheres(module).values()])


def unit(x: Tensor) -> Tensor:
    return x / x.square().sum(-1, keepdim=True).sqrt()


def test_it_is_the_published_network() -> None:
    """Output and gradients against the equations, layer by layer by the names that checkpoints have."""
    i, o, w, depth = 3, 2, 16, 8
    network = HypersphericalMLP(i, o, w, depth, generator=generator()).double()
    x = torch.randn(5, i, dtype=torch.float64, generator=generator(1))
    names = [f"blocks.{n // 4}.layers.{n % 4}" for n in range(depth)]
    state = {name: p.clone().requires_grad_() for name, p in network.state_dict().items()}
    ends = {f"{name}.{end}" for name in names for end in ("dense.weight", "scale")}
    assert state.keys() == {"input.weight", "input.scale", "output.weight", "output.bias", *ends}

    shifted = torch.cat((x, torch.full((5, 1), 3.0, dtype=x.dtype)), 1)
    h = unit(state["input.scale"] * (unit(shifted) @ state["input.weight"].T))
    for first, second in zip(names[::2], names[1::2], strict=True):
        hidden = state[f"{first}.scale"] * (h @ state[f"{first}.dense.weight"].T)
        f = unit(hidden.clamp_min(0) @ state[f"{second}.dense.weight"].T)
        alpha = state[f"{second}.scale"] * math.sqrt(w) / (depth / 2 + 1)
        assert torch.allclose(alpha, torch.full_like(alpha, 1 / 5))
        h = unit((1 - alpha) * h + alpha * f)
    expected = math.sqrt(w) * h @ state["output.weight"].T + state["output.bias"]

    out = network(x)
    torch.testing.assert_close(out, expected)
    upstream = torch.randn(5, o, dtype=x.dtype, generator=generator(2))
    out.backward(upstream)
    expected.backward(upstream)
    slopes = network.blocks.dense_weight.grad
    for n, name in enumerate(names):
        torch.testing.assert_close(slopes[n], state[f"{name}.dense.weight"].grad)
    torch.testing.assert_close(network.input.scale.grad, state["input.scale"].grad)


@pytest.mark.parametrize("depth", [4, 64, pytest.param(1024, marks=pytest.mark.slow)])
def test_signal_and_gradient_are_bounded_at_every_depth(depth: int) -> None:
    network = HypersphericalMLP(29, 64, 32, depth, generator=generator())
    x = torch.randn(32, 29, generator=generator(1))
    for rows in network.features(x):
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(32))
    out = network(x)
    assert 0.2 < out.square().mean().sqrt() < 2
    out.square().mean().backward()
    norms = network.blocks.dense_weight.grad.norm(dim=(1, 2)) * (depth / 2 + 1)  # alpha has the share of a step
    assert 0.05 < norms.min() <= norms.max() < 1
    assert 0.01 < network.input.weight.grad.norm() < 1


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_rows_have_length_one_after_every_update(precision: str) -> None:
    agent = make_agent(**SPHERICAL, precision=precision)
    for step in range(4):
        before = agent.state_dict()
        for network in (agent.networks.actor, agent.networks.state_action_encoder, agent.networks.goal_encoder):
            torch.testing.assert_close(lengths(network), torch.ones_like(lengths(network)))
        metrics = agent.update(make_batch(step))
        assert all(value.isfinite() for value in metrics.values())
        assert {name for name in before if not name.startswith("generator")} <= differing(before, agent.state_dict())


def test_the_step_is_adams_and_then_back_to_the_sphere() -> None:
    """Nothing but the lengths of rows is changed behind Adam: neither its moments nor what is not on a sphere."""
    agent = make_agent(**SPHERICAL, learning_rate=0.1)
    before, seen = agent.state_dict(), {}
    after_step = agent.algorithm.after_step

    def recorded() -> None:
        seen.update({name: tensor.clone() for name, tensor in agent._state().items()})
        after_step()

    agent.algorithm.after_step = recorded
    agent.update(make_batch())
    after = agent.state_dict()
    on_spheres = spheres(agent.networks)
    assert differing(seen, after) == on_spheres.keys()
    for name in on_spheres:
        assert (seen[name].norm(dim=1) - 1).abs().max() > 0.01, name
        torch.testing.assert_close(after[name], unit(seen[name]))
        assert not torch.equal(before[name], after[name])


def test_a_row_of_zeros_stays_finite() -> None:
    network = HypersphericalMLP(3, 2, 8, 4, generator=generator())
    with torch.no_grad():
        network.blocks.dense_weight[:, 0] = 0
        network.blocks.dense_weight[1] = 0
    network.project()
    out = network(torch.zeros(2, 3))
    out.sum().backward()
    assert out.isfinite().all()
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_bfloat16_is_about_the_same() -> None:
    network = HypersphericalMLP(7, 5, 64, 16, generator=generator())
    x = torch.randn(32, 7, generator=generator(1))
    expected = network(x)
    with torch.autocast("cpu", torch.bfloat16):
        features, out = network.features(x), network(x)
    assert all(rows.dtype == torch.float32 for rows in features)
    torch.testing.assert_close(features[-1].norm(dim=1), torch.ones(32))
    assert (out - expected).norm() < 0.02 * expected.norm()


def test_critic_and_actor_learn() -> None:
    """What the residual network's do in test_agent.py."""
    agent = make_agent(**SPHERICAL, learning_rate=3e-3, critic_depth=4)
    test = make_batch(10_000, 256)

    def distance() -> float:
        reached = test.observation[:, :2] + agent.act(test.observation, test.goal, deterministic=True)[:, :2]
        return (reached - test.goal).norm(dim=1).mean().item()

    before = distance()
    for step in range(200):
        metrics = agent.update(make_batch(step, 64))
    assert metrics["train/critic_loss"] < 0.6 * losses.chance_loss("forward_infonce", 64)
    assert metrics["train/categorical_accuracy"] > 0.3
    assert distance() < 0.5 * before


def test_a_loaded_agent_continues_bit_for_bit() -> None:
    agent, other = make_agent(**SPHERICAL), make_agent(**SPHERICAL, seed=5)
    for step in range(3):
        agent.update(make_batch(step))
    other.load_state_dict(agent.state_dict())
    assert not differing(agent.state_dict(), other.state_dict())
    for step in range(3, 6):
        metrics = [learner.update(make_batch(step)) for learner in (agent, other)]
        assert not differing(*metrics)
    assert not differing(agent.state_dict(), other.state_dict())


def test_what_it_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match=r"depth must be a positive multiple of 4.*got 6"):
        HypersphericalMLP(3, 2, 8, 6)
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        HypersphericalMLP(3, 2, 0)
    for option in ("scaled", "recompute"):
        with pytest.raises(ValueError, match=r"of network residual alone, got.* 'hyperspherical'"):
            build_network("hyperspherical", 3, 2, 8, 4, **{option: True})
    for settings in ({"residual_scale": "depth"}, {"recompute": True}, {"block_metrics": True}, {"depth": 6}):
        with pytest.raises(ConfigError, match=r"of the residual network|positive multiple of 4"):
            resolve(TrainConfig(env="ant", **SPHERICAL, **settings))
