"""The learner: one update against plain formulas, determinism, acting, state, and learning on a synthetic problem."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from crl import losses
from crl.agent import Agent
from crl.graphs import WARM_UP
from crl.lanes import both
from crl.networks import NETWORKS


@dataclass(frozen=True)
class Spec:
    observation_dim: int = 5
    goal_dim: int = 2
    action_dim: int = 3

    def reached(self, achieved_goal: Any, desired_goal: Any) -> Any:
        return (achieved_goal - desired_goal).norm(dim=1) < 0.5


@dataclass(frozen=True)
class Config:
    seed: int = 0
    actor_depth: int = 4
    critic_depth: int = 8
    width: int = 32
    representation_dim: int = 16
    network: str = "residual"
    normalize_observations: bool = False
    input_bias: float = 0.0
    fourier_features: int = 0
    fourier_scale: float = 1.0
    image_encoder: str = "published"
    crop_padding: int = 0
    residual_scale: str = "1"
    recompute: bool = False
    compile: bool = False
    graphs: bool = True
    block_metrics: bool = False
    algorithm: str = "crl"
    num_critics: int = 1
    critic_value: str = "mean"
    energy: str = "norm"
    energy_scale: str = "1"
    objective: str = "forward_infonce"
    commanded_negatives: float = 0.0
    logsumexp_penalty: float = 0.1
    gamma: float = 0.99
    commanded_share: float = 0.0
    exploration_noise: float = 0.1
    learning_rate: float = 3e-4
    actor_goals: str = "future"
    bc_coefficient: float = 0.0
    bc_form: str = "mixture"
    initial_alpha: float = 1.0
    actor_ema: float = 0.0
    target_entropy_scale: float = 0.5
    precision: str = "float32"
    num_action_candidates: int = 1


@dataclass
class Batch:
    observation: Tensor
    action: Tensor
    goal: Tensor


METRICS = {
    "train/critic_loss",
    "train/contrastive_loss",
    "train/actor_loss",
    "train/alpha",
    "train/alpha_loss",
    "train/entropy",
    "train/categorical_accuracy",
    "train/logits_pos",
    "train/logits_neg",
    "train/logsumexp",
    "train/critic_grad_norm",
    "train/actor_grad_norm",
    "train/representation_norm_state_action",
    "train/representation_norm_goal",
}


def make_agent(device: str = "cpu", **settings: Any) -> Agent:
    return Agent(Spec(), Config(**settings), device)


def make_batch(seed: int = 0, rows: int = 16, device: str = "cpu") -> Batch:
    """Rows whose goal is a function of state and action, so that there is something to learn."""
    generator = torch.Generator().manual_seed(seed)
    observation = torch.randn(rows, 5, generator=generator)
    action = torch.rand(rows, 3, generator=generator) * 2 - 1
    goal = observation[:, :2] + action[:, :2]
    return Batch(observation.to(device), action.to(device), goal.to(device))


def differing(first: dict[str, Tensor], second: dict[str, Tensor]) -> set[str]:
    assert first.keys() == second.keys()
    return {name for name in first if not torch.equal(first[name], second[name])}


def test_update_is_the_published_step() -> None:
    """Metrics, and every weight after two updates, against plain autograd and Adam written out."""
    agent, reference = make_agent(), make_agent()
    moments: dict[str, list[Tensor]] = {}
    for step in (1, 2):
        batch = make_batch(step)
        expected, grads = plain_gradients(reference, batch)
        for name, parameter in reference._parameters.items():
            m, v = moments.setdefault(name, [torch.zeros_like(parameter), torch.zeros_like(parameter)])
            m.mul_(0.9).add_(0.1 * grads[name])
            v.mul_(0.999).add_(0.001 * grads[name] ** 2)
            with torch.no_grad():
                parameter -= 3e-4 * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
        metrics = agent.update(batch)
        assert metrics.keys() == METRICS
        for name, value in expected.items():
            assert metrics[name].item() == pytest.approx(value.item(), rel=1e-4, abs=1e-5), name
        for name, parameter in agent._parameters.items():
            torch.testing.assert_close(parameter, reference._parameters[name], rtol=1e-4, atol=2e-6)


def plain_gradients(agent: Agent, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The published losses and gradients, each by an autograd call of its own, in the published order."""
    net, o, g = agent.networks, batch.observation, batch.goal
    noise = torch.randn(batch.action.shape, generator=agent._update_generator)
    action, log_prob = net.actor.sample(o, g, noise)
    alpha = agent.log_alpha.exp()
    q = -((net.state_action_encoder(torch.cat((o, action), 1)) - net.goal_encoder(g)) ** 2).sum(1).sqrt()
    actor_loss = (alpha.detach() * log_prob - q).mean()
    alpha_loss = alpha * (-log_prob.detach() + 0.5 * 3).mean()
    phi, psi = net.state_action_encoder(torch.cat((o, batch.action), 1)), net.goal_encoder(g)
    logits = -((phi[:, None] - psi) ** 2).sum(2).sqrt()
    lse = logits.exp().sum(1).log()
    critic_loss = (lse - logits.diagonal()).mean() + 0.1 * (lse**2).mean()
    grads = {}
    for loss, prefixes in (
        (actor_loss, ("actor",)),
        (alpha_loss, ("log_alpha",)),
        (critic_loss, ("state_action_encoder", "goal_encoder")),
    ):
        named = {name: p for name, p in agent._parameters.items() if name.startswith(prefixes)}
        grads.update(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))

    def norm(prefix: str) -> Tensor:
        return torch.cat([v.flatten() for name, v in grads.items() if prefix in name]).norm()

    off_diagonal = ~torch.eye(len(logits), dtype=torch.bool)
    return {
        "train/critic_loss": critic_loss,
        "train/actor_loss": actor_loss,
        "train/alpha": alpha,
        "train/alpha_loss": alpha_loss,
        "train/entropy": -log_prob.mean(),
        "train/categorical_accuracy": (logits.argmax(1) == torch.arange(len(logits))).float().mean(),
        "train/logits_pos": logits.diagonal().mean(),
        "train/logits_neg": logits[off_diagonal].mean(),
        "train/logsumexp": lse.mean(),
        "train/critic_grad_norm": norm("encoder"),
        "train/actor_grad_norm": norm("actor"),
        "train/representation_norm_state_action": phi.norm(dim=1).mean(),
        "train/representation_norm_goal": psi.norm(dim=1).mean(),
    }, grads


@pytest.mark.parametrize("energy", losses.ENERGIES)
@pytest.mark.parametrize("objective", [*losses.CONTRASTIVE_LOSSES, "cpc"])
@pytest.mark.parametrize("network", NETWORKS)
def test_every_objective_trains(network: str, objective: str, energy: str) -> None:
    agent = make_agent(network=network, objective=objective, energy=energy, width=16, critic_depth=4)
    before = agent.state_dict()
    metrics = agent.update(make_batch())
    assert all(value.isfinite() and value.ndim == 0 and not value.requires_grad for value in metrics.values())
    moved = differing(before, agent.state_dict())
    assert {name for name in before if not name.startswith("generator")} <= moved
    assert "generator.update" in moved
    assert "generator.act" not in moved


def test_recomputed_updates_are_the_same_and_scaled_ones_are_not() -> None:
    plain, recomputed, scaled = make_agent(), make_agent(recompute=True), make_agent(residual_scale="depth")
    for step in range(2):
        losses = [agent.update(make_batch(step))["train/critic_loss"] for agent in (plain, recomputed, scaled)]
        assert losses[0] == losses[1] != losses[2]
    assert not differing(plain.state_dict(), recomputed.state_dict())


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_block_metrics_are_of_all_three_networks(precision: str) -> None:
    metrics = make_agent(block_metrics=True, precision=precision).update(make_batch())
    extra = {name: value for name, value in metrics.items() if name not in METRICS}
    networks, places = ("actor", "state_action", "goal"), ("first", "middle", "last")
    assert extra.keys() == {
        f"train/{n}_{p}_{kind}_norm" for n in networks for p in places for kind in ("stream", "grad")
    }
    assert all(value.isfinite() and value > 0 and value.dtype == torch.float32 for value in extra.values())


def test_one_row_is_a_batch() -> None:
    metrics = make_agent().update(make_batch(rows=1))
    assert all(value.isfinite() for value in metrics.values())
    assert metrics["train/logits_neg"] == 0


def test_critic_learns_and_shuffled_goals_stay_at_chance() -> None:
    rows, chance = 64, losses.chance_loss("forward_infonce", 64)
    agent, blind = (make_agent(learning_rate=3e-3, critic_depth=4) for _ in range(2))
    for step in range(150):
        batch = make_batch(step, rows)
        first = agent.update(batch)
        shuffled = torch.randperm(rows, generator=torch.Generator().manual_seed(step))
        control = blind.update(replace(batch, goal=batch.goal[shuffled]))
    assert first["train/critic_loss"] < 0.6 * chance
    assert first["train/categorical_accuracy"] > 0.3
    assert control["train/critic_loss"] > 0.95 * chance
    assert control["train/categorical_accuracy"] < 0.15


def test_actor_learns_to_reach_and_temperature_holds_entropy() -> None:
    agent = make_agent(learning_rate=3e-3, critic_depth=4)
    for step in range(300):
        metrics = agent.update(make_batch(step, 64))
    test = make_batch(10_000, 256)
    reached = test.observation[:, :2] + agent.act(test.observation, test.goal, deterministic=True)[:, :2]
    untrained = make_agent(seed=1).act(test.observation, test.goal, deterministic=True)[:, :2]
    distance, random_distance = (
        (r - test.goal).norm(dim=1).mean() for r in (reached, test.observation[:, :2] + untrained)
    )
    assert distance < 0.5 * random_distance
    assert metrics["train/entropy"].item() == pytest.approx(-1.5, abs=1.0)


def test_same_seed_same_run_other_seed_other_run() -> None:
    global_state = torch.get_rng_state()
    first, same, other = make_agent(), make_agent(), make_agent(seed=1)
    for step in range(3):
        metrics = [agent.update(make_batch(step)) for agent in (first, same, other)]
    assert not differing(metrics[0], metrics[1])
    assert not differing(first.state_dict(), same.state_dict())
    weights = {name for name in first.state_dict() if name.endswith("dense.weight")}
    assert weights <= differing(first.state_dict(), other.state_dict())
    first.act(torch.zeros(2, 5), torch.zeros(2, 2))
    assert torch.equal(torch.get_rng_state(), global_state)


@pytest.fixture
def use_threads() -> Iterator[Callable[[int], None]]:
    """`torch.set_num_threads`, put back after the test."""
    threads = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(threads)


def test_two_threads_take_a_side_each_and_learn_the_same(use_threads: Callable[[int], None]) -> None:
    states = {}
    for count in (1, 2, 3):
        use_threads(count)
        agent = make_agent()
        for step in range(3):
            agent.update(make_batch(step))
        states[count] = agent.state_dict()
        assert torch.get_num_threads() == count
    for count in (2, 3):  # another number of threads may add in another order
        for name, tensor in states[1].items():
            torch.testing.assert_close(states[count][name], tensor, rtol=1e-4, atol=1e-5)


def test_an_error_on_either_side_is_raised_once_both_have_stopped(use_threads: Callable[[int], None]) -> None:
    finished = threading.Event()

    def fail() -> None:
        raise ArithmeticError("this side")

    def work() -> None:
        time.sleep(0.05)
        finished.set()

    for count in (1, 2):
        use_threads(count)
        for first, second in ((work, fail), (fail, work)):
            finished.clear()
            with pytest.raises(ArithmeticError, match="this side"):
                both(first, second)
            assert finished.is_set() or count == 1
            assert torch.get_num_threads() == count
        assert both(lambda: 1, lambda: 2) == (1, 2)


def test_numpy_noncontiguous_and_float64_batches_are_the_same_batch() -> None:
    batch = make_batch()
    as_numpy = Batch(*(x.double().numpy()[::-1][::-1] for x in (batch.observation, batch.action, batch.goal)))
    strided = Batch(*(x.T.contiguous().T for x in (batch.observation, batch.action, batch.goal)))
    states = []
    for given in (batch, as_numpy, strided):
        agent = make_agent()
        agent.update(given)
        states.append(agent.state_dict())
    assert not differing(states[0], states[1])
    for name, tensor in states[2].items():  # another layout may add in another order
        torch.testing.assert_close(tensor, states[0][name])


class NoHostSync(TorchDispatchMode):
    """Fails on every operation that would make the host wait for the value of a device tensor."""

    WAITING = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal", "aten::is_nonzero")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func._schema.name not in self.WAITING, f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_update_and_act_never_wait_for_the_device(precision: str, use_threads: Callable[[int], None]) -> None:
    agent = make_agent(precision=precision, num_action_candidates=4)
    use_threads(1)  # the mode watches this thread alone
    with NoHostSync():
        agent.update(make_batch())
        metrics = agent.update(make_batch())
        agent.act(*observations())
        with pytest.raises(AssertionError, match="waits for the device"):
            metrics["train/critic_loss"].item()


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_cuda_update_and_act_never_wait(precision: str) -> None:
    agent = make_agent("cuda", precision=precision, num_action_candidates=4)
    batches = [make_batch(step, 64, "cuda") for step in range(3)]
    for _ in range(WARM_UP + 1):  # to capture waits
        agent.update(batches[0])
        agent.act(batches[0].observation, batches[0].goal)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches:
            metrics = agent.update(batch)
            agent.act(batch.observation, batch.goal)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(value.device.type == "cuda" and value.isfinite() for value in metrics.values())


@pytest.mark.gpu
def test_cuda_follows_the_cpu() -> None:
    cpu, cuda = make_agent(), make_agent("cuda")
    initial = cpu.state_dict()
    assert all(torch.equal(initial[name], p.cpu()) for name, p in cuda._parameters.items())
    cpu_loss, cuda_loss = (
        agent.update(make_batch(0, 64, agent.device.type))["train/critic_loss"] for agent in (cpu, cuda)
    )
    assert cuda_loss.item() == pytest.approx(cpu_loss.item(), rel=1e-5)
    again = make_agent("cuda")
    again.load_state_dict(cuda.state_dict())
    assert not differing(cuda.update(make_batch(1, 64, "cuda")), again.update(make_batch(1, 64, "cuda")))


def test_bf16_follows_float32() -> None:
    full, half = make_agent(), make_agent(precision="bf16")
    for step in range(20):
        expected, got = full.update(make_batch(step, 64)), half.update(make_batch(step, 64))
    assert got["train/critic_loss"].item() == pytest.approx(expected["train/critic_loss"].item(), rel=0.01)
    assert got["train/critic_loss"] != expected["train/critic_loss"]
    assert {p.dtype for p in half._parameters.values()} == {torch.float32}
    assert {value.dtype for value in got.values()} == {torch.float32}
    assert half.act(torch.zeros(2, 5), torch.zeros(2, 2)).dtype == torch.float32


# Acting


def observations(rows: int = 32) -> tuple[Tensor, Tensor]:
    batch = make_batch(99, rows)
    return batch.observation, batch.goal


@pytest.mark.parametrize("candidates", [1, 4])
def test_actions_are_fresh_bounded_and_reproducible(candidates: int) -> None:
    first, same = (make_agent(num_action_candidates=candidates) for _ in range(2))
    observation, goal = observations()
    actions = [first.act(observation, goal) for _ in range(2)]
    assert actions[0].shape == (32, 3)
    assert (actions[0].abs() <= 1).all()
    assert not torch.equal(actions[0], actions[1])
    assert torch.equal(actions[0], same.act(observation.numpy(), goal.numpy().astype(np.float64)))


def test_deterministic_action_is_the_mode() -> None:
    agent = make_agent()
    observation, goal = observations()
    action = agent.act(observation, goal, deterministic=True)
    assert torch.equal(action, agent.act(observation, goal, deterministic=True))
    torch.testing.assert_close(action, agent.networks.actor.mode(observation, goal).detach())


@pytest.mark.parametrize("energy", losses.ENERGIES)
@pytest.mark.parametrize("deterministic", [False, True])
def test_best_of_k_is_what_brute_force_finds(deterministic: bool, energy: str) -> None:
    agent = make_agent(num_action_candidates=8, energy=energy)
    observation, goal = observations(6)
    generator = torch.Generator()
    generator.set_state(agent.state_dict()["generator.act"])
    chosen = agent.act(observation, goal, deterministic)
    noise = torch.randn(6, 8, 3, generator=generator)
    net = agent.networks
    with torch.no_grad():
        for row in range(6):
            o, g = observation[row : row + 1], goal[row : row + 1]
            candidates = [net.actor.sample(o, g, noise[row, k : k + 1])[0] for k in range(8)]
            psi = net.goal_encoder(g)
            scores = [losses.energy(net.state_action_encoder(torch.cat((o, a), 1)), psi, energy) for a in candidates]
            best = candidates[int(torch.stack(scores).argmax())]
            torch.testing.assert_close(chosen[row : row + 1], best)


def test_a_policy_keeps_its_weights_until_refreshed() -> None:
    agent = make_agent()
    observation, goal = observations()
    policy = agent.policy()
    old = agent.act(observation, goal, deterministic=True)
    for step in range(3):
        agent.update(make_batch(step))
    new = agent.act(observation, goal, deterministic=True)
    assert not torch.equal(old, new)
    assert torch.equal(policy.act(observation, goal, deterministic=True), old)
    policy.refresh()
    assert torch.equal(policy.act(observation, goal, deterministic=True), new)


def test_a_policy_with_a_generator_of_its_own_leaves_the_agents_stream_alone() -> None:
    agent = make_agent(num_action_candidates=2)
    before = agent.state_dict()
    agent.policy(torch.Generator().manual_seed(7)).act(*observations(), deterministic=True)
    assert not differing(before, agent.state_dict())
    agent.policy().act(*observations())
    assert differing(before, agent.state_dict()) == {"generator.act"}


def test_acting_and_learning_in_two_threads_are_each_reproducible() -> None:
    alone, shared = make_agent(num_action_candidates=2), make_agent(num_action_candidates=2)
    policy = shared.policy()
    observation, goal = observations()
    actions: list[Tensor] = []
    collector = threading.Thread(target=lambda: actions.extend(policy.act(observation, goal) for _ in range(20)))
    collector.start()
    for step in range(10):
        shared.update(make_batch(step))
    collector.join()
    frozen = alone.policy()
    expected = [frozen.act(observation, goal) for _ in range(20)]
    for step in range(10):
        alone.update(make_batch(step))
    assert all(torch.equal(a, e) for a, e in zip(actions, expected, strict=True))
    assert not differing(alone.state_dict(), shared.state_dict())


def test_refresh_beside_updates_never_mixes_two_steps() -> None:
    agent = make_agent()
    policy = agent.policy()
    seen: set[bytes] = {fingerprint(policy._networks)}
    stop = threading.Event()

    def collect() -> None:
        while not stop.is_set():
            policy.refresh()
            seen.add(fingerprint(policy._networks))

    collector = threading.Thread(target=collect)
    collector.start()
    steps = {fingerprint(agent.networks)}
    for step in range(20):
        agent.update(make_batch(step))
        steps.add(fingerprint(agent.networks))
    stop.set()
    collector.join()
    assert seen <= steps


def fingerprint(networks: torch.nn.Module) -> bytes:
    return b"".join(p.detach().numpy().tobytes() for p in networks.parameters())


# State


def test_state_is_flat_owned_and_survives_safetensors() -> None:
    agent = make_agent()
    agent.update(make_batch())
    state = agent.state_dict()
    assert all(isinstance(name, str) and tensor.is_contiguous() for name, tensor in state.items())
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)
    assert state["actor.network.blocks.0.layers.3.dense.weight"].shape == (32, 32)
    assert state["state_action_encoder.output.bias"].shape == (16,)
    assert (state["adam.steps"] == 1).all()
    assert not differing(state, safetensors.torch.load(safetensors.torch.save(state)))
    kept = {name: tensor.clone() for name, tensor in state.items()}
    agent.update(make_batch(1))
    assert not differing(state, kept)


@pytest.mark.parametrize("updates_before", [0, 3])
def test_a_loaded_agent_continues_bit_for_bit(updates_before: int) -> None:
    original, resumed = make_agent(), make_agent(seed=5)
    for step in range(updates_before):
        original.update(make_batch(step))
        original.act(*observations())
    resumed.load_state_dict(safetensors.torch.load(safetensors.torch.save(original.state_dict())))
    for step in range(3, 6):
        assert not differing(original.update(make_batch(step)), resumed.update(make_batch(step)))
        assert torch.equal(original.act(*observations()), resumed.act(*observations()))
    assert not differing(original.state_dict(), resumed.state_dict())


def test_a_checkpoint_from_before_layers_were_stacked_goes_on() -> None:
    agent = make_agent(width=4, representation_dim=4, critic_depth=8, actor_ema=0.9)
    agent.load_state_dict(safetensors.torch.load_file(Path(__file__).with_name("agent_before_stacks.safetensors")))
    for step, (critic_loss, actor_loss) in ((3, (2.7580914, 4.0333376)), (4, (2.7884803, 4.8606501))):
        metrics = agent.update(make_batch(step))
        assert metrics["train/critic_loss"].item() == pytest.approx(critic_loss, rel=1e-5)
        assert metrics["train/actor_loss"].item() == pytest.approx(actor_loss, rel=1e-5)


def test_the_state_names_every_layer_and_its_moments() -> None:
    state = make_agent().state_dict()
    weights = {name for name in state if not name.startswith(("adam.", "generator."))}
    assert len(weights) == 3 * (4 + 2) + 4 * (4 + 8 + 8) + 1
    for moment in ("exp_avg", "exp_avg_sq"):
        assert {name.removeprefix(f"adam.{moment}.") for name in state if name.startswith(f"adam.{moment}.")} == weights
    assert state["adam.steps"].shape == (len(weights),)


def test_a_state_that_does_not_fit_is_refused_and_changes_nothing() -> None:
    agent = make_agent()
    before = agent.state_dict()
    other = make_agent(seed=1).state_dict()
    cases = [
        ({k: v for k, v in other.items() if k != "log_alpha"}, "missing log_alpha"),
        ({**other, "extra": torch.zeros(1)}, "unknown extra"),
        ({**other, "log_alpha": torch.zeros(2)}, r"log_alpha: expected \(\) torch.float32, got \(2,\) torch.float32"),
        ({**other, "adam.steps": before["adam.steps"].long()}, "adam.steps: expected .* got .* torch.int64"),
        (make_agent(width=16).state_dict(), r"expected \(32,\) torch.float32, got \(16,\).*more"),
        (make_agent(critic_depth=4).state_dict(), "missing .*blocks.1"),
    ]
    for state, message in cases:
        with pytest.raises(ValueError, match=message):
            agent.load_state_dict(state)
    assert not differing(before, agent.state_dict())


# Bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"actor_depth": 6}, "depth must be a positive multiple of 4"),
        ({"energy": "nrom"}, "energy must be one of .*'norm'"),
        ({"objective": "infonce"}, "objective must be one of"),
        ({"precision": "fp16"}, "precision must be one of float32, tf32, bf16, got 'fp16'"),
        ({"network": "cnn"}, "network must be one of residual, mlp"),
        ({"num_action_candidates": 0}, "num_action_candidates must be at least 1, got 0"),
        ({"width": 0}, "width must be at least 1, got 0"),
        (
            {"width": None, "initial_alpha": None},
            "config leaves width, initial_alpha to be chosen: pass crl.resolution.resol",
        ),
    ],
)
def test_impossible_settings_are_refused_at_once(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_agent(**settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observation": torch.zeros(16, 4)}, r"batch.observation must have shape \(rows, 5\), got \(16, 4\)"),
        ({"action": torch.zeros(3)}, r"batch.action must have shape \(rows, 3\), got \(3,\)"),
        ({"goal": torch.zeros(15, 2)}, "rows differ: observation has 16, action has 16, goal has 15"),
    ],
)
def test_a_bad_batch_is_refused_by_name(changes: dict[str, Tensor], message: str) -> None:
    agent = make_agent()
    before = agent.state_dict()
    with pytest.raises(ValueError, match=message):
        agent.update(replace(make_batch(), **changes))
    assert not differing(before, agent.state_dict())
    with pytest.raises(ValueError, match=r"goal must have shape \(rows, 2\), got \(16, 3\)"):
        agent.act(torch.zeros(16, 5), torch.zeros(16, 3))


def test_the_temperature_starts_at_one_and_aims_at_half_a_nat_per_action() -> None:
    agent = make_agent()
    assert agent.update(make_batch())["train/alpha"] == 1
    assert agent.algorithm.target_entropy == -1.5
    assert math.isclose(make_agent(target_entropy_scale=1.0).algorithm.target_entropy, -3)


@pytest.mark.parametrize(("actor_goals", "moved"), [("future", 0), ("mixture", 4), ("random", 8)])
def test_the_actor_learns_for_its_own_goals_for_those_of_other_rows_or_half_and_half(
    actor_goals: str, moved: int
) -> None:
    agent = make_agent(actor_goals=actor_goals)
    rows = torch.arange(8.0)[:, None]
    paired = agent.algorithm.goals_of_actor(rows)[:, 0]
    own = paired == rows[:, 0]
    assert own.sum() == 8 - moved
    assert sorted(paired.tolist()) == rows[:, 0].tolist()


def test_half_of_the_actors_goals_may_be_those_commanded() -> None:
    agent = make_agent(actor_goals="commanded")
    own, commanded = torch.arange(8.0)[:, None], 100 + torch.arange(8.0)[:, None]
    paired = agent.algorithm.goals_of_actor(own, commanded)[:, 0]
    assert sorted(paired[:4].tolist()) == [0, 1, 2, 3]
    assert not (paired[:4] == own[:4, 0]).any()
    assert torch.equal(paired[4:], commanded[4:, 0])


def test_the_actors_goals_change_its_loss_and_not_the_critics() -> None:
    future, shuffled = (make_agent(actor_goals=kind).update(make_batch()) for kind in ("future", "random"))
    assert future["train/critic_loss"] == shuffled["train/critic_loss"]
    assert future["train/actor_loss"] != shuffled["train/actor_loss"]


def test_the_temperature_starts_where_it_is_told() -> None:
    assert make_agent(initial_alpha=0.1).update(make_batch())["train/alpha"].item() == pytest.approx(0.1)


def test_the_averaged_actor_is_the_moving_average_of_the_weights_and_what_evaluation_acts_by() -> None:
    decay = 0.9
    agent = make_agent(actor_ema=decay)
    expected = [p.detach().double() for p in agent.networks.actor.parameters()]
    for _ in range(5):
        agent.update(make_batch())
        present = [p.detach().double() for p in agent.networks.actor.parameters()]
        expected = [decay * e + (1 - decay) * p for e, p in zip(expected, present, strict=True)]
    policy = agent.evaluation_policy()
    for got, want in zip(policy._networks.actor.parameters(), expected, strict=True):
        torch.testing.assert_close(got.detach().double(), want, rtol=1e-5, atol=1e-7)
    encoders = (networks.goal_encoder.parameters() for networks in (policy._networks, agent.networks))
    critic = zip(*encoders, strict=True)
    assert all(torch.equal(theirs, mine) for theirs, mine in critic)

    again = make_agent(actor_ema=decay)
    again.load_state_dict(agent.state_dict())
    resumed = again.evaluation_policy()._networks.actor.parameters()
    assert all(torch.equal(a, b) for a, b in zip(resumed, policy._networks.actor.parameters(), strict=True))


def test_without_an_average_evaluation_acts_by_the_present_actor() -> None:
    agent = make_agent()
    agent.update(make_batch())
    pairs = zip(agent.evaluation_policy()._networks.parameters(), agent.networks.parameters(), strict=True)
    assert all(torch.equal(theirs, mine) for theirs, mine in pairs)
    assert not any(name.startswith("actor_ema") for name in agent.state_dict())
