"""`crl plan`: what is counted is what a real run takes, and what cannot fit is refused with what would."""

import dataclasses
import json
import re
import shlex
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import TINY_OPTIONS
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from crl import envs, forecast, run, sizes
from crl.agent import Agent
from crl.batch import Batch
from crl.cli import main
from crl.config import TrainConfig
from crl.errors import ConfigError
from crl.memory import free_memory
from crl.networks import ResidualMLP
from crl.residual import Records
from crl.trainer import train

IMAGES = {"env": "point_u_maze_image", "width": 16, "batch_size": 8}
CASES: dict[str, dict[str, Any]] = {
    "depth 4": {"depth": 4},
    "depth 32": {"depth": 32},
    "recomputed": {"depth": 32, "recompute": True},
    "shallow actor": {"depth": 32, "actor_depth": 8},
    "shallow critic": {"depth": 4, "actor_depth": 32},
    "plain": {"network": "mlp", "depth": 3},
    "OGBench's": {"network": "mlp_gelu_norm", "depth": 3},
    "on the hypersphere": {"network": "hyperspherical", "depth": 8},
    "dot": {"depth": 4, "energy": "dot", "batch_size": 128},
    "commanded": {"depth": 4, "commanded_negatives": 0.1, "command": "single"},
    "commanded to the actor": {"depth": 4, "actor_goals": "commanded"},
    "sac": {"depth": 8, "algorithm": "sac"},
    "sac, no HER": {"algorithm": "sac", "commanded_share": 1.0, "num_critics": 1},
    "td3": {"depth": 8, "algorithm": "td3", "commanded_share": 0.0},
    "gcbc": {"depth": 8, "algorithm": "gcbc"},
    "forward model": {"depth": 8, "algorithm": "forward_model"},
    "images": {"depth": 4, **IMAGES},
    "plain, images": {"network": "mlp", "depth": 2, **IMAGES},
    "images, recomputed": {"depth": 32, "recompute": True, **IMAGES},
    "fourier features": {"depth": 4, "fourier_features": 32},
    "residual encoder": {"depth": 4, "image_encoder": "residual", **IMAGES},
}


def resolved(**settings: Any) -> TrainConfig:
    small = {"env": "ant", "width": 48, "batch_size": 64, "num_threads": 1, "device": "cpu"}
    return run.resolve(TrainConfig(**{**small, **settings})).config


def learner(config: TrainConfig) -> tuple[Agent, Batch[torch.Tensor]]:
    spec, rows = envs.spec(config.env, **config.env_kwargs), config.batch_size
    dims = (spec.observation_dim, spec.action_dim, spec.goal_dim)
    agent, further = Agent(spec, config), {"next_observation": spec.observation_dim, "next_terminal": 1}
    columns = {name: torch.rand(rows, further.get(name, spec.goal_dim)) for name in agent.columns}
    if "next_terminal" in columns:
        columns["next_terminal"] = columns["next_terminal"][:, 0]
    return agent, Batch(*(torch.rand(rows, dim) for dim in dims), torch.ones(rows), columns)


# --- what is counted --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_parameters_are_those_of_the_agent(case: str) -> None:
    config = resolved(**CASES[case])
    networks = learner(config)[0].networks
    counted = sizes.of(config)
    names = {"state_action_encoder": "phi", "goal_encoder": "psi"}
    taken = {names.get(n, n): sum(p.numel() for p in network.parameters()) for n, network in networks.named_children()}
    assert taken.pop("inputs") == 0
    assert counted.parameters == taken


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("case", CASES)
def test_flop_are_those_of_an_update(case: str) -> None:
    config = resolved(**CASES[case])
    agent, batch = learner(config)
    with FlopCounterMode(display=False) as counter:
        agent.update(batch)
    assert sizes.of(config).flop == pytest.approx(counter.get_total_flops(), rel=0.02)


class Kept:
    """The most bytes that autograd has kept at one time, weights aside: each piece of memory once."""

    def __init__(self, agent: Agent) -> None:
        self.now = self.peak = 0
        self._weights = {p.untyped_storage().data_ptr() for p in agent.networks.parameters()}
        self._uses: Counter[int] = Counter()

    def pack(self, tensor: torch.Tensor) -> "Use":
        return Use(self, tensor)

    def count(self, memory: torch.UntypedStorage, change: int) -> None:
        place = memory.data_ptr()
        if place not in self._weights:
            before = self._uses[place] > 0
            self._uses[place] += change
            self.now += memory.nbytes() * ((self._uses[place] > 0) - before)
            self.peak = max(self.peak, self.now)


class Use:
    def __init__(self, kept: Kept, tensor: torch.Tensor) -> None:
        self.kept, self.tensor = kept, tensor.detach()
        kept.count(self.tensor.untyped_storage(), 1)

    def __del__(self) -> None:
        self.kept.count(self.tensor.untyped_storage(), -1)


def taped(agent: Agent) -> int:
    """Bytes that the residual networks keep of their activations beside autograd."""
    networks = [module for module in agent.networks.modules() if isinstance(module, ResidualMLP)]
    spare = [buffer for network in networks for buffers in network.memory._spare.values() for buffer in buffers]
    records = [buffer for buffer in spare if isinstance(buffer, Records)]
    assert bool(records) == bool(networks)
    tensors = [(r.stream[0], r.dense[0], r.sigmoid[0], r.swish[0], r.input_dense, r.gradients[0]) for r in records]
    return sum(tensor.untyped_storage().nbytes() for record in tensors for tensor in record)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("case", CASES)
def test_activations_are_those_that_autograd_keeps(case: str) -> None:
    """Within a quarter, the batch included: what is kept besides, of energies and densities, is not all counted."""
    config = resolved(**CASES[case])
    agent, batch = learner(config)
    kept = Kept(agent)
    with saved_tensors_hooks(kept.pack, lambda use: use.tensor):
        agent.update(batch)
    counted = sizes.of(config).passing["activations of an update"]
    given = sum(column.nbytes for name, column in batch.items() if name != "offset")
    assert 0.8 < counted / (kept.peak + taped(agent) + given) < 1.25
    assert kept.now == 0


@pytest.mark.parametrize("settings", [{"num_envs": 7}, {"num_envs": 3, **IMAGES}])
def test_the_buffer_is_as_large_as_it_says(settings: dict[str, Any]) -> None:
    capacity = 1000
    config = resolved(**settings, buffer_capacity=capacity, total_env_steps=100_000)
    buffer = run.new_buffer(envs.spec(config.env), config.num_envs, capacity)
    assert sizes.of(config).host["buffer"] == buffer.nbytes
    short = dataclasses.replace(config, total_env_steps=100, unroll_length=10)  # rounded up to whole rounds
    rows = -(-100 // (config.num_envs * 10)) * 10 * config.num_envs
    assert sizes.of(short).host["buffer"] == run.new_buffer(envs.spec(config.env), config.num_envs, rows).nbytes


@pytest.mark.parametrize(
    "settings",
    [{}, {"actor_ema": 0.9}, {"algorithm": "sac"}, {"algorithm": "td3"}, {"objective": "c_learning", "energy": "dot"}],
)
def test_a_checkpoint_is_as_large_as_its_files(tmp_path: Path, settings: dict[str, Any]) -> None:
    config = resolved(depth=8, buffer_capacity=10_000, num_envs=10, **settings)
    agent, _ = learner(config)
    stores = agent.algorithm.stores(config)
    buffer = run.new_buffer(agent.spec, 10, config.buffer_capacity, stores=stores)
    dims = {"observation": 29, "action": 8, "achieved_goal": 2, "desired_goal": 2}
    zeros: dict[str, Any] = {
        name: np.zeros((1000, 10, dim), np.float32) for name, dim in dims.items() if name in (*list(dims)[:3], *stores)
    }
    if "terminal" in stores:
        zeros["terminal"] = np.zeros((1000, 10), bool)
    buffer.add_rollout(**zeros, episode_start=np.zeros((1000, 10), bool))
    buffer.save(tmp_path / "buffer.crlb")
    files = (tmp_path / "buffer.crlb").stat().st_size + sum(x.nbytes for x in agent.state_dict().values())
    assert sizes.of(config).checkpoint == pytest.approx(files, rel=0.01)


def test_what_a_gpu_holds_is_counted_apart() -> None:
    config = resolved(depth=8)
    here, there = sizes.of(config), sizes.of(dataclasses.replace(config, device="cuda"))
    assert there.needs.keys() == {"RAM", "VRAM"}
    assert here.needs.keys() == {"RAM"}
    assert there.needs["VRAM"] > there.on_device - sum(there.lasting.values()) > 0
    assert there.needs["RAM"] < here.needs["RAM"]
    alone, beside = (sizes.of(dataclasses.replace(config, asynchronous=both)) for both in (False, True))
    assert beside.on_device - alone.on_device == 4 * sum(alone.parameters.values())


@pytest.mark.gpu
def test_a_gpu_holds_what_is_counted() -> None:
    config = resolved(env="ant", depth=64, width=256, batch_size=256, device="cuda")
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    agent = Agent(envs.spec(config.env), config, "cuda")
    rows = (torch.rand(config.batch_size, dim, device="cuda") for dim in (29, 8, 2))
    batch = Batch(*rows, torch.ones(config.batch_size))
    for _ in range(3):
        agent.update(batch)
    taken = torch.cuda.max_memory_allocated() - before
    assert sizes.of(config).on_device == pytest.approx(taken, rel=0.3)
    assert 0 < sizes.free(sizes.of(config))["VRAM"] < torch.cuda.get_device_properties(0).total_memory


# --- what cannot fit --------------------------------------------------------------------------------------------------


def refused(config: TrainConfig) -> str:
    with pytest.raises(ConfigError) as error:
        sizes.check_fits(config)
    return str(error.value)


def proposals(message: str) -> list[dict[str, int]]:
    words = message.partition("would fit with ")[2].rstrip(".")
    ways = (shlex.split(way) for way in words.split(", or with "))
    return [
        {name[2:].replace("-", "_"): int(value) for name, value in zip(way[::2], way[1::2], strict=True)}
        for way in ways
    ]


@pytest.mark.parametrize(
    ("settings", "free", "named"),
    [
        ({"buffer_capacity": 2_000_000}, 200e6, [{"buffer_capacity"}]),
        ({"depth": 256, "buffer_capacity": 10_000}, 20e6, [{"depth"}]),
        ({"depth": 256, "actor_depth": 8, "buffer_capacity": 10_000}, 20e6, [{"critic_depth"}]),
        ({"batch_size": 100_000, "buffer_capacity": 10_000}, 200e6, [{"batch_size"}]),
        ({"batch_size": 1_000, "buffer_capacity": 100_000, "depth": 64}, 60e6, [{"batch_size"}, {"depth"}]),
        (
            {"batch_size": 100_000, "buffer_capacity": 2_000_000, "depth": 256},
            20e6,
            [{"buffer_capacity", "batch_size", "depth"}],
        ),
    ],
)
def test_what_would_fit_is_computed(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], free: float, named: list[set[str]]
) -> None:
    """What is proposed fits, and what is a fifth larger would not within the same share of the memory."""
    monkeypatch.setattr(sizes, "free_memory", lambda: int(free))
    config = resolved(**settings)
    message = refused(config)
    assert f"and {sizes.readable(free)} are free" in message
    assert [set(way) for way in proposals(message)] == named
    for way in proposals(message):
        sizes.check_fits(resolved(**{**settings, **way}))
        larger = {name: -(-value * 6 // 5 // 4) * 4 for name, value in way.items()}
        assert sizes.of(resolved(**{**settings, **larger})).needs["RAM"] > sizes.SHARE * free


def test_where_nothing_would_fit_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "free_memory", lambda: 1000)
    assert refused(resolved()).endswith("No smaller one would fit either.")


def test_training_is_refused_before_anything_is_made(
    tiny: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"needs .* TB of RAM.*--buffer-capacity"):
        train(tiny(buffer_capacity=10**12, total_env_steps=10**12))
    assert list(tmp_path.iterdir()) == []
    train(tiny())
    monkeypatch.setattr(sizes, "free_memory", lambda: 1000)
    with pytest.raises(ConfigError, match="1 kB are free"):
        train(resume=tmp_path / "run", total_env_steps=800)


@pytest.mark.parametrize(
    ("groups", "files", "limit", "used", "idle"),
    [
        ("0::/mine/inner\n", "sys/fs/cgroup/mine", "memory.max", "memory.current", "inactive_file"),
        (
            "9:cpu:/\n4:memory:/mine/inner\n0::/\n",
            "sys/fs/cgroup/memory/mine/inner",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        ),
    ],
)
def test_control_groups_limit_what_is_free(
    tmp_path: Path, groups: str, files: str, limit: str, used: str, idle: str
) -> None:
    def write(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    assert free_memory(tmp_path) > 10**15  # nothing is known
    write("proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:    5000 kB\n")
    write("proc/self/cgroup", groups)
    assert free_memory(tmp_path) == 5000 * 1024
    write(f"{files}/{limit}", "2000000\n")
    write(f"{files}/{used}", "1500000\n")
    write(f"{files}/memory.stat", f"anon 5\n{idle} 200000\nother 7\n")
    assert free_memory(tmp_path) == 700_000
    write(f"{files}/{limit}", "max\n" if limit == "memory.max" else f"{2**63 - 4096}\n")
    assert free_memory(tmp_path) == 5000 * 1024


# --- what is measured -------------------------------------------------------------------------------------------------


def test_hours_are_those_of_the_rounds() -> None:
    """By hand: rounds of 8 x 10 env steps, 1,000 in all, 100 to prefill, an evaluation each 500."""
    config = resolved(
        env="point_maze",
        num_envs=8,
        unroll_length=10,
        updates_per_collect=5,
        total_env_steps=1000,
        learning_starts=100,
        eval_interval=500,
        num_eval_episodes=16,
    )
    episode = envs.spec("point_maze").episode_length
    made = forecast._forecast(config, update=0.1, act=0.02, depths=(4,), step=0.03, worlds=0)
    assert made.collect == pytest.approx(10 * 0.05)
    assert made.round == pytest.approx(0.5 + 0.5)
    assert made.evaluation == pytest.approx(episode * 2 * 0.05)
    assert made.total == pytest.approx(13 * 0.5 + 12 * 0.5 + 2 * made.evaluation)  # the first round of 13 only prefills
    assert made.updates_per_second == pytest.approx(10)
    assert made.env_steps_per_second == pytest.approx(8 / 0.05)
    both = dataclasses.replace(config, asynchronous=True)
    assert forecast._forecast(both, 0.1, 0.02, (4,), 0.03, 0).round == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("deep", "per_layer", "measured"),
    [(8, 1e-3, {8}), (64, 1e-3, {8, 64}), (1024, 0.1e-3, {8, 1024}), (1024, 10e-3, {8, 48})],
)
def test_deep_networks_are_extrapolated_where_they_would_take_long(
    monkeypatch: pytest.MonkeyPatch, deep: int, per_layer: float, measured: set[int]
) -> None:
    """With an update of 5 ms and so many a layer: measured as deep as patience allows, and the line is exact."""
    depths = []

    def timed(config: TrainConfig) -> tuple[float, float]:
        depths.append(config.critic_depth)
        return 5e-3 + per_layer * config.critic_depth, 1e-3 + 1e-5 * config.actor_depth

    monkeypatch.setattr(forecast, "_time_learner", timed)
    config = resolved(env="ant", depth=deep, width=256)
    update, act, told = forecast._learner(config)
    assert set(depths) == measured
    assert set(told) == (measured if deep not in measured else {deep})
    assert update == pytest.approx(5e-3 + per_layer * deep)
    assert act == pytest.approx(1e-3 + 1e-5 * deep)


def test_the_command(short_world: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "SECONDS", 0.02)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["plan", *TINY_OPTIONS, "--json", "plan.json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    told = {line.split("  ")[0]: line for line in done.stdout.splitlines()}
    assert {"run", "parameters", "an update", "RAM", "a checkpoint", "a round", "the whole run"} <= told.keys()
    assert "extrapolated" not in done.stdout
    found = json.loads((tmp_path / "plan.json").read_text())
    assert found["settings"]["depth"] == 4
    assert found["counted"]["needs"]["RAM"] > found["counted"]["host"]["buffer"] > 0
    measured = found["measured"]
    assert measured["depths"] == [4]
    assert all(measured[name] > 0 for name in ("update", "act", "step", "collect", "evaluation"))
    assert measured["total"] > 10 * measured["round"]
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_the_command_counts_without_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "measure", lambda config: pytest.fail("measured"))
    words = "plan --env ant_maze --depth 1024 --device cpu --no-measure"
    done = CliRunner().invoke(main, words.split(), catch_exceptions=False)
    assert re.search(r"^parameters +204 M +actor 67.9 M, phi 67.9 M, psi 67.9 M *$", done.stdout, re.MULTILINE)
    assert "a second" not in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--depth 6", "nearest: 4 or 8"),
        ("--env ant_mase", "ant_maze"),
        ("--json none/plan.json", "no such directory"),
        ("--env ant --buffer-capacity 1e12 --total-env-steps 1e12", "It would fit with --buffer-capacity"),
    ],
)
def test_mistakes_are_one_line(words: str, message: str) -> None:
    done = CliRunner().invoke(main, ["plan", "--device", "cpu", *words.split()])
    assert done.exit_code == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert message in errors[0]
