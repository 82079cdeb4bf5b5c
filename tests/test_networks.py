"""Networks: the golden block, the published sizes and initialisation, signals at every depth, the actor's head."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crl.layers import Dense, by_layer_of
from crl.networks import MLP, Actor, ResidualMLP, build_network, squash
from crl.residual import Records

GOLDEN = np.load(Path(__file__).with_name("golden.npz"))
OBSERVATION, ACTION, GOAL, REPRESENTATION = 29, 8, 2, 64  # the ant


def golden(name: str, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.from_numpy(np.asarray(GOLDEN[name])).to(dtype)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def num_parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


class Layer(nn.Module):
    def __init__(self, in_dim: int, width: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.dense = Dense(in_dim, width, generator)
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.silu(self.norm(self.dense(x)))


class Block(nn.Module):
    def __init__(self, width: int, generator: torch.Generator | None = None, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.layers = nn.Sequential(*(Layer(width, width, generator) for _ in range(4)))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.layers(x)


class ModuleByModule(nn.Module):
    """The residual network as one would write it down, with the names that checkpoints have."""

    def __init__(
        self, in_dim: int, out_dim: int, width: int, depth: int, generator: torch.Generator, scaled: bool = False
    ) -> None:
        super().__init__()
        self.input = Layer(in_dim, width, generator)
        scale = (depth / 4) ** -0.5 if scaled else 1.0
        self.blocks = nn.Sequential(*(Block(width, generator, scale) for _ in range(depth // 4)))
        self.output = Dense(width, out_dim, generator)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.blocks(self.input(x)))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_residual_block_matches_golden(dtype: torch.dtype, tolerance: float) -> None:
    """The block that the stacked network is held against below."""
    block = Block(16).to(dtype)
    with torch.no_grad():
        for i, layer in enumerate(block.layers):
            layer.dense.weight.copy_(golden("block/weight_in_out")[i].T)
            layer.dense.bias.copy_(golden("block/bias")[i])
            layer.norm.weight.copy_(golden("block/ln_scale")[i])
            layer.norm.bias.copy_(golden("block/ln_bias")[i])
    x = golden("block/x", dtype).requires_grad_()
    out = block(x)
    out.square().sum().backward()
    weight_grad = torch.stack([layer.dense.weight.grad.T for layer in block.layers])
    for actual, name in ((out, "out"), (x.grad, "d_x_of_sum_sq"), (weight_grad, "d_weight_of_sum_sq")):
        expected = golden(f"block/{name}")
        assert (actual.double() - expected).abs().max() <= tolerance * expected.abs().max(), name


# The stacked network against its modules one by one


def both_networks(
    depth: int, dtype: torch.dtype = torch.float32, *, scaled: bool = False, recompute: bool = False
) -> tuple[ResidualMLP, ModuleByModule]:
    """The two with the same weights, drawn once each; then biases and norms away from where they start."""
    stacked = ResidualMLP(7, 5, 32, depth, generator=generator(), scaled=scaled, recompute=recompute)
    plain = ModuleByModule(7, 5, 32, depth, generator(), scaled)
    assert stacked.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(tensor, plain.state_dict()[name]) for name, tensor in stacked.state_dict().items())
    noise = generator(1)
    with torch.no_grad():
        for parameter in plain.parameters():
            if parameter.ndim == 1:
                parameter += 0.2 * torch.randn(parameter.shape, generator=noise)
    stacked.load_state_dict(plain.state_dict())
    return stacked.to(dtype), plain.to(dtype)


def gradients(network: nn.Module, x: Tensor, upstream: Tensor) -> dict[str, Tensor]:
    """The output, and the gradients of input and parameters by layer."""
    network.zero_grad()
    x = x.clone().requires_grad_()
    out = network(x)
    out.backward(upstream)
    grads = by_layer_of((name, p.grad) for name, p in network.named_parameters() if p.grad is not None)
    return {"out": out.detach(), "x": x.grad, **{name: grad.clone() for name, grad in grads.items()}}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("depth", [4, 64])
def test_the_stack_is_its_modules_one_by_one(
    depth: int, recompute: bool, scaled: bool, dtype: torch.dtype, tolerance: float
) -> None:
    stacked, plain = both_networks(depth, dtype, scaled=scaled, recompute=recompute)
    for seed in (2, 3):  # the second pass takes the memory of the first
        x, upstream = (torch.randn(16, dim, generator=generator(seed), dtype=dtype) for dim in (7, 5))
        actual, expected = gradients(stacked, x, upstream), gradients(plain, x, upstream)
        assert actual.keys() == expected.keys()
        for name, value in expected.items():
            assert (actual[name] - value).abs().max() <= tolerance * value.abs().max(), name
        with torch.no_grad():
            torch.testing.assert_close(stacked(x), plain(x))
        stacked.recycle_gradients()
        assert all(p.grad is None for p in stacked.parameters())


@pytest.mark.parametrize("options", [{}, {"scaled": True, "recompute": True}])
def test_gradients_match_finite_differences(options: dict[str, bool]) -> None:
    network = ResidualMLP(3, 2, 4, 8, generator=generator(), **options).double()
    x = torch.randn(3, 3, dtype=torch.float64, generator=generator(1), requires_grad=True)
    weights = list(network.weights)

    def out(x: Tensor, *_: Tensor) -> Tensor:
        return network(x)

    assert torch.autograd.gradcheck(out, (x, *weights))


@pytest.mark.parametrize("recompute", [False, True])
def test_passes_may_be_interleaved_repeated_and_dropped(recompute: bool) -> None:
    stacked, plain = both_networks(8, recompute=recompute)
    first, second = (torch.randn(6, 7, generator=generator(seed)) for seed in (2, 3))
    expected = [torch.autograd.grad(plain(x).square().sum(), list(plain.parameters())) for x in (first, second)]
    losses = [stacked(x).square().sum() for x in (first, second)]
    stacked(first)  # a pass that nobody asks the gradient of
    for _ in range(2):
        for loss, grads in zip(losses, expected, strict=True):
            again = torch.autograd.grad(loss, list(stacked.weights), retain_graph=True)
            total = sum(float(g.double().square().sum()) for g in grads)
            assert sum(float(g.double().square().sum()) for g in again) == pytest.approx(total, rel=1e-4)


def test_recomputing_keeps_a_fifth() -> None:
    def kept(recompute: bool) -> int:
        records = Records(16, torch.empty(256, 8, 8), 4 if recompute else 256)
        stacks = (records.stream, records.dense, records.sigmoid, records.swish)
        return sum(tensors[0].untyped_storage().nbytes() for tensors in stacks)

    assert kept(True) < 0.1 * kept(False)


@pytest.mark.parametrize("recompute", [False, True])
def test_bfloat16_has_the_same_gradients_about(recompute: bool) -> None:
    stacked, plain = both_networks(8, recompute=recompute)
    x, upstream = (torch.randn(16, dim, generator=generator(2)) for dim in (7, 5))
    with torch.autocast("cpu", torch.bfloat16):
        x = x.requires_grad_()
        out = stacked(x)
    out.backward(upstream.to(out.dtype))
    grad = stacked.weights.weight.grad
    expected = gradients(plain, x.detach(), upstream)
    assert out.dtype == torch.bfloat16
    assert (out - expected["out"]).norm() < 0.03 * expected["out"].norm()
    norm = torch.stack([v for k, v in expected.items() if k.endswith("dense.weight") and "blocks" in k]).norm()
    assert grad.norm().item() == pytest.approx(norm.item(), rel=0.03)


def test_blocks_tell_their_norms() -> None:
    stacked, plain = both_networks(12)
    x, upstream = (torch.randn(16, dim, generator=generator(2)) for dim in (7, 5))
    stacked.watched = []
    gradients(stacked, x, upstream)
    found = stacked.block_metrics()
    h = plain.input(x)
    expected = gradients(plain, x, upstream)
    for block, place in enumerate(("first", "middle", "last")):
        h = plain.blocks[block](h)
        assert found[f"{place}_stream_norm"].item() == pytest.approx(h.norm(dim=1).mean().item(), rel=1e-4)
        grads = [expected[f"blocks.{block}.layers.{i}.dense.weight"] for i in range(4)]
        assert found[f"{place}_grad_norm"].item() == pytest.approx(torch.stack(grads).norm().item(), rel=1e-4)


def test_gradients_add_up_unless_they_are_forgotten() -> None:
    stacked, _ = both_networks(4)
    x = torch.randn(6, 7, generator=generator(2))
    stacked(x).sum().backward()
    once = [p.grad.clone() for p in stacked.parameters()]
    stacked(x).sum().backward()
    assert all(torch.equal(p.grad, 2 * g) for p, g in zip(stacked.parameters(), once, strict=True))
    stacked.recycle_gradients()
    stacked(x).sum().backward()
    assert all(torch.equal(p.grad, g) for p, g in zip(stacked.parameters(), once, strict=True))


def test_fixed_weights_pass_the_gradient_on_and_get_none() -> None:
    stacked, plain = both_networks(8)
    x, upstream = (torch.randn(6, dim, generator=generator(2)) for dim in (7, 5))
    expected = gradients(plain, x, upstream)
    actual = gradients(stacked.requires_grad_(False), x, upstream)
    assert actual.keys() == {"out", "x"}
    torch.testing.assert_close(actual["x"], expected["x"])
    stacked.output.bias.requires_grad_()
    assert gradients(stacked, x, upstream).keys() == {"out", "x", "output.bias"}


def test_a_second_derivative_is_refused() -> None:
    stacked, _ = both_networks(4)
    x = torch.randn(6, 7, generator=generator(2), requires_grad=True)
    (slope,) = torch.autograd.grad(stacked(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        slope.sum().backward()


def test_a_state_that_does_not_fit_is_refused_by_name() -> None:
    stacked, _ = both_networks(8)
    state = stacked.state_dict()
    name = "blocks.1.layers.2.dense.weight"
    for wrong, message in (
        ({k: v for k, v in state.items() if k != name}, f"Missing key.*{name}"),
        ({**state, "blocks.2.layers.0.dense.weight": state[name]}, "Unexpected key.*blocks.2.layers.0.dense.weight"),
        ({**state, name: torch.zeros(3, 3)}, f"{name}: expected \\(32, 32\\), got \\(3, 3\\)"),
    ):
        with pytest.raises(RuntimeError, match=message):
            stacked.load_state_dict(wrong)


@pytest.mark.parametrize(
    ("depth", "millions"), [(4, 0.85), (8, 1.65), (16, 3.24), (32, 6.42), (64, 12.8), (256, 51.0), (1024, 203.7)]
)
def test_published_parameter_counts(depth: int, millions: float) -> None:
    with torch.device("meta"):  # shapes only
        actor = Actor(OBSERVATION, GOAL, ACTION, 256, depth)
        phi = ResidualMLP(OBSERVATION + ACTION, REPRESENTATION, 256, depth)
        psi = ResidualMLP(GOAL, REPRESENTATION, 256, depth)
    assert round(num_parameters(actor, phi, psi) / 1e6, 2 if millions < 10 else 1) == millions


@pytest.mark.parametrize("depth", [4, 12, 64])
def test_parameter_count_in_closed_form(depth: int) -> None:
    i, o, w = 5, 3, 32
    weights, biases, norms = i * w + depth * w * w + o * w, (1 + depth) * w + o, 2 * w * (1 + depth)
    network = ResidualMLP(i, o, w, depth)
    assert num_parameters(network) == weights + biases + norms
    names = list(network.state_dict())
    assert sum(name.endswith(("dense.weight", "output.weight")) for name in names) == depth + 2
    assert sum(name.endswith("norm.weight") for name in names) == depth + 1


def test_initialisation_is_the_published_one() -> None:
    network = ResidualMLP(37, 64, 256, 4, generator=generator())
    for name, tensor in network.state_dict().items():
        if name.endswith("norm.weight"):
            assert (tensor == 1).all()
        elif tensor.ndim == 1:
            assert (tensor == 0).all()
        else:
            bound = tensor.shape[1] ** -0.5
            assert tensor.abs().max() <= bound
            # Uniform: standard deviation bound / sqrt(3), within 2 % at thousands of draws, and no bias to one side.
            assert tensor.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
            assert abs(tensor.mean().item()) < 0.03 * bound


def test_weights_come_from_the_generator_alone() -> None:
    before = torch.get_rng_state()
    first, same, other = (MLP(3, 2, 8, 2, generator=generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    for a, b, c in zip(first.parameters(), same.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.ndim == 1 or not torch.equal(a, c)


@pytest.mark.parametrize(("depth", "nearest"), [(6, "4 or 8"), (255, "252 or 256"), (1, "4"), (0, "4"), (-4, "4")])
def test_other_depths_are_refused_with_the_nearest_named(depth: int, nearest: str) -> None:
    with pytest.raises(ValueError, match=rf"depth must be a positive multiple of 4.*got {depth};.*: {nearest}"):
        ResidualMLP(3, 2, 8, depth)


@pytest.mark.parametrize("sizes", [{"in_dim": 0}, {"out_dim": -1}, {"width": 0}])
def test_other_sizes_are_refused_by_name(sizes: dict[str, int]) -> None:
    (name,) = sizes
    with pytest.raises(ValueError, match=rf"{name} must be at least 1, got {sizes[name]}"):
        ResidualMLP(**{"in_dim": 3, "out_dim": 2, "width": 8, **sizes})


def test_unknown_network_is_refused() -> None:
    with pytest.raises(ValueError, match=r"network must be one of residual, mlp, .*, got 'resdual'"):
        Actor(3, 2, 1, 8, 4, "resdual")


def test_a_plain_network_has_no_blocks_to_scale_or_recompute() -> None:
    for option in ("scaled", "recompute"):
        with pytest.raises(ValueError, match="of network residual alone, got network 'mlp'"):
            build_network("mlp", 3, 2, 8, 2, **{option: True})


def test_mlp_is_dense_and_swish() -> None:
    network = MLP(3, 2, 8, 2).double()
    x = torch.randn(5, 3, dtype=torch.float64, generator=generator())
    expected = x
    for layer in network.hidden:
        expected = expected @ layer.weight.T + layer.bias
        expected = expected / (1 + (-expected).exp())
    expected = expected @ network.output.weight.T + network.output.bias
    torch.testing.assert_close(network(x), expected)
    assert num_parameters(network) == (3 * 8 + 8) + (8 * 8 + 8) + (8 * 2 + 2)


@pytest.mark.parametrize("depth", [4, 64, 256, 1024])
@pytest.mark.parametrize("scaled", [False, True])
def test_signal_and_gradient_survive_the_depth(depth: int, scaled: bool) -> None:
    """At initialisation outputs and gradients are finite; no block's gradient is a hundredth of another's.

    What blocks add is as long at every depth, so the sum grows at most by their number; scaled, not at all. As is the
    loss, so is its gradient: that of its logarithm is of one size from 4 layers to 1024.
    """
    network = ResidualMLP(29, 64, 64, depth, generator=generator(), scaled=scaled)
    network.watched = []
    loss = network(torch.randn(32, 29, generator=generator(1))).square().mean()
    loss.backward()
    norms = network.weights.weight.grad.norm(dim=(1, 2))
    assert 0.5 < norms.norm() / loss < 8
    assert norms.max() / norms.min() < 100
    first, middle, last = (network.block_metrics()[f"{place}_stream_norm"] for place in ("first", "middle", "last"))
    assert first / 2 < middle < last * 1.5
    assert last / first < (8 if scaled else 1 + depth / 4)


def test_actor_head_matches_golden() -> None:
    mean, raw, noise = (golden(f"policy/{name}") for name in ("mean", "raw_log_std", "noise"))
    actor = Actor(1, 1, 8, 8, 1, "mlp").double()
    actor.network = Fixed(torch.cat((mean, raw), -1))
    observation = goal = torch.zeros(16, 1, dtype=torch.float64)
    torch.testing.assert_close(actor(observation, goal)[1], golden("policy/log_std"))
    action, log_prob = actor.sample(observation, goal, noise)
    torch.testing.assert_close(action, golden("policy/action"))
    torch.testing.assert_close(log_prob, golden("policy/log_prob_exact"))
    torch.testing.assert_close(actor.mode(observation, goal), golden("policy/deterministic_action"))


class Fixed(nn.Module):
    """A network whose output is given."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor) -> Tensor:
        return self.output


def test_actor_bounds_and_shapes() -> None:
    actor = Actor(OBSERVATION, GOAL, ACTION, 32, 4, generator=generator())
    observation, goal = (100 * torch.randn(64, dim, generator=generator(1)) for dim in (OBSERVATION, GOAL))
    mean, log_std = actor(observation, goal)
    assert mean.shape == log_std.shape == (64, ACTION)
    assert ((log_std >= -5) & (log_std <= 2)).all()
    action, log_prob = actor.sample(observation, goal)
    assert action.shape == (64, ACTION)
    assert log_prob.shape == (64,)
    assert (action.abs() <= 1).all()
    assert not torch.equal(action, actor.sample(observation, goal)[0])


def test_saturated_actions_keep_finite_gradients() -> None:
    mean = torch.tensor([[-40.0, 40.0]], requires_grad=True)
    log_std = torch.full((1, 2), 2.0, requires_grad=True)
    action, log_prob = squash(mean, log_std, torch.ones(1, 2))
    assert action.tolist() == [[-1, 1]]
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert mean.grad.tolist() == [[-2, 2]]  # d/dx of -log(1 - tanh^2 x) is 2 tanh x
    assert log_std.grad.isfinite().all()


@pytest.mark.parametrize(
    ("name", "activation", "norm"),
    [("mlp", F.silu, False), ("mlp_relu", F.relu, False), ("mlp_gelu_norm", partial(F.gelu, approximate="tanh"), True)],
)
def test_plain_networks_are_what_they_are_called(name: str, activation: Callable[[Tensor], Tensor], norm: bool) -> None:
    network = build_network(name, 3, 2, 8, 2, torch.Generator().manual_seed(0))
    state, x = network.state_dict(), torch.randn(5, 3)
    h = x
    for layer in range(2):
        h = activation(h @ state[f"hidden.{layer}.weight"].T + state[f"hidden.{layer}.bias"])
        if norm:
            h = (h - h.mean(1, keepdim=True)) / (h.var(1, correction=0, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(network(x), h @ state["output.weight"].T + state["output.bias"])
