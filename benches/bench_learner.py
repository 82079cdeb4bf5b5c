"""How long is one update, and how much of that is its matrix products?

    pytest benches/bench_learner.py

One update = actor, temperature and critic, batch 256, width 256, sizes of the ant. `extra_info` holds the floor: the
time of the update's matrix products alone at the speed of a 256^3 product measured in turns with the updates, so that
other work on the machine falls on both. The peer is the same update in the plainest PyTorch.
"""

import time
from dataclasses import dataclass
from statistics import median

import pytest
import torch
from torch import Tensor

from crl import envs, losses
from crl.agent import Agent
from crl.config import TrainConfig
from crl.networks import ResidualMLP
from crl.resolution import resolve

BATCH, WIDTH = 256, 256
DEEP = [pytest.param(depth, marks=pytest.mark.large) for depth in (16, 64)]  # Left out by `make bench-smoke`.
DEPTHS = (4, *DEEP, pytest.param(256, marks=pytest.mark.slow))


@dataclass
class Batch:
    observation: Tensor
    action: Tensor
    goal: Tensor


def make(depth):
    generator = torch.Generator().manual_seed(0)
    batch = Batch(*(torch.randn(BATCH, dim, generator=generator) for dim in (29, 8, 2)))
    # The published loss; the ant's recipe, made for few updates, has the actor's goals otherwise.
    settings = TrainConfig(env="ant", depth=depth, width=WIDTH, actor_goals="future", initial_alpha=1.0)
    return Agent(envs.spec("ant"), resolve(settings, device="cpu", num_cores=1).config), batch


def flop(depth):
    """Of one update's matrix products: actor forward and backward, phi(s, a~) forward and to its input, phi and psi
    forward and backward. A product of a layer is one unit forward, one to its input, one to its weights."""
    hidden = depth * WIDTH**2
    actor = (29 + 2) * WIDTH * 2 + (hidden + WIDTH * 16) * 3  # the first layer needs no gradient of its input
    sampled = (29 + 8) * WIDTH * 2 + (hidden + WIDTH * 64) * 2
    phi = (29 + 8) * WIDTH * 2 + (hidden + WIDTH * 64) * 3
    psi = 2 * WIDTH * 2 + (hidden + WIDTH * 64) * 3
    return 2 * BATCH * (actor + sampled + phi + psi)


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def bench_in_turns(benchmark, depth, update):
    """Benchmark `update`; beside it, in turns, the speed of 256^3 products."""
    x, y = (torch.randn(256, 256) for _ in range(2))
    products = []

    def setup():
        products.append(seconds(lambda: [x @ y for _ in range(20)]) / 20)

    update()
    benchmark.pedantic(update, setup=setup, rounds=max(5, 200 // depth), warmup_rounds=1)
    speed = 2 * 256**3 / median(products)
    benchmark.extra_info["floor_ms"] = round(1e3 * flop(depth) / speed, 2)
    benchmark.extra_info["gflop_per_second"] = round(speed / 1e9, 1)
    benchmark.extra_info["threads"] = torch.get_num_threads()
    if benchmark.stats:  # none when benchmarks are disabled
        benchmark.extra_info["share_of_floor"] = round(flop(depth) / speed / benchmark.stats.stats.median, 2)


@pytest.mark.parametrize("depth", DEPTHS)
def test_update(benchmark, depth):
    agent, batch = make(depth)
    bench_in_turns(benchmark, depth, lambda: agent.update(batch))


@pytest.mark.parametrize("depth", DEPTHS)
def test_plain_pytorch_update(benchmark, depth):
    """The peer: broadcast distances, the goal represented twice, three optimizers, gradients thrown away."""
    agent, batch = make(depth)
    net, log_alpha = agent.networks, agent.log_alpha
    critic = [*net.state_action_encoder.parameters(), *net.goal_encoder.parameters()]
    actor_optimizer = torch.optim.Adam(net.actor.parameters(), 3e-4)
    alpha_optimizer = torch.optim.Adam([log_alpha], 3e-4)
    critic_optimizer = torch.optim.Adam(critic, 3e-4)

    def step(optimizer, loss):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def update():
        o, a, g = batch.observation, batch.action, batch.goal
        action, log_prob = net.actor.sample(o, g)
        phi, psi = net.state_action_encoder(torch.cat((o, action), 1)), net.goal_encoder(g)
        step(actor_optimizer, (log_alpha.exp().detach() * log_prob + (phi - psi).norm(dim=1)).mean())
        step(alpha_optimizer, losses.temperature_loss(log_alpha, log_prob, -4.0))
        phi, psi = net.state_action_encoder(torch.cat((o, a), 1)), net.goal_encoder(g)
        logits = -(((phi[:, None] - psi) ** 2).sum(2) + 1e-6).sqrt()
        step(critic_optimizer, losses.contrastive_loss(logits) + 0.1 * losses.logsumexp_penalty(logits))

    bench_in_turns(benchmark, depth, update)


@pytest.mark.parametrize("rows", [1, 64, 512])
@pytest.mark.parametrize("depth", [4, DEEP[-1]])
def test_act(benchmark, depth, rows):
    agent, batch = make(depth)
    observation, goal = (x.repeat(2, 1)[:rows].numpy() for x in (batch.observation, batch.goal))
    agent.act(observation, goal)
    benchmark(agent.act, observation, goal)


@pytest.mark.gpu
@pytest.mark.parametrize("captured", [False, True], ids=["launched", "captured"])
@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
@pytest.mark.parametrize("depth", DEPTHS)
def test_kernels(benchmark, depth, precision, captured):
    """Forward and backward of one network by the kernels of `crl.fused`; in turns with them, by PyTorch's operations.

    `captured`: each a CUDA graph, so that nobody waits for Python. `times_as_fast` is the ratio of the medians.
    """
    torch.backends.cuda.matmul.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    x = torch.randn(2 * BATCH, 37, device="cuda")

    def passes(kernels):
        network = ResidualMLP(37, 64, WIDTH, depth, generator=torch.Generator().manual_seed(0)).cuda()
        network.settings = network.settings._replace(kernels=kernels)

        def once():
            network.recycle_gradients()
            with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
                out = network(x)
            out.float().square().sum().backward()

        call = in_a_graph(once) if captured else once

        def twenty():
            for _ in range(20):
                call()
            torch.cuda.synchronize()

        twenty()
        return twenty

    fused, plain = passes(True), passes(False)
    others = []
    benchmark.pedantic(fused, setup=lambda: others.append(seconds(plain)), rounds=20, warmup_rounds=1)
    if benchmark.stats:
        benchmark.extra_info["times_as_fast"] = round(median(others) / benchmark.stats.stats.median, 2)


def in_a_graph(function):
    """`function` as a CUDA graph, after it was called once."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        function()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay
