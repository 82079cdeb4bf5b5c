"""How fast a run will be, from a short measurement on this machine."""

import dataclasses
import itertools
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch

from crl import envs, sizes
from crl.agent import Agent
from crl.batch import Array, Batch
from crl.config import ROWS_TO_LEARN, TrainConfig
from crl.memory import resident_memory

SECONDS = 1.0
"""Measured of each thing, about."""
PATIENCE = 4.0
"""Seconds that an update and those to warm up may take together, or shallower networks are measured instead."""
FEWEST = 3
"""Calls timed, however long they take."""
SHALLOW = 8
"""The depth to begin with."""


@dataclass(frozen=True)
class Forecast:
    """Seconds of what a run does again and again."""

    update: float
    act: float
    """One action in each of the worlds; with a data set, in those of the evaluation."""
    step: float
    """One step of all worlds."""
    worlds: int
    """Bytes of RAM that the worlds take in this process, those of evaluation too."""
    depths: tuple[int, ...]
    """At which networks were measured. Where none is the run's own, update and act are extrapolated."""
    collect: float
    """One round of env steps; 0 with a data set."""
    round: float
    """Collecting and learning, one beside the other with `--async`."""
    evaluation: float
    """One of them, taken to cost what collecting as many env steps does."""
    total: float
    """The whole run, evaluations included; writing checkpoints is left out."""
    updates_per_second: float
    env_steps_per_second: float


def measure(config: TrainConfig) -> Forecast:
    """Measure a few updates on random rows and about a second of the real worlds, in that order.

    Where the networks are so deep that this would take long, two shallower ones are measured, and a line is drawn
    through them: seconds over the FLOPs of an update, which grow with the depth.

    Args:
        config: resolved, of a run that fits into the memory.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(config.num_threads)
    try:
        update, act, depths = _learner(config)
        step, worlds = _worlds(config)
    finally:
        torch.set_num_threads(before)
    return _forecast(config, update, act, depths, step, worlds)


def _forecast(
    config: TrainConfig, update: float, act: float, depths: tuple[int, ...], step: float, worlds: int
) -> Forecast:
    """The run as `Trainer.run` goes through it: rounds, the first of which only prefill, and evaluations."""
    episode = envs.spec(config.eval_env, **config.eval_env_kwargs).episode_length
    evaluation = (1 + config.probes) * episode * config.num_eval_episodes * (step + act) / _num_worlds(config)
    evaluations = -(-config.total // config.eval_interval)
    learn = config.updates_per_collect * update
    if config.dataset:
        collect, both = 0.0, learn
        working = -(-config.total_updates // config.updates_per_collect) * learn
    else:
        collect = config.unroll_length * (step + act)
        both = max(collect, learn) if config.asynchronous else collect + learn
        round_steps = config.num_envs * config.unroll_length
        rounds = -(-config.total_env_steps // round_steps)
        prefill = -(-max(config.learning_starts, ROWS_TO_LEARN * config.num_envs) // round_steps) - 1
        working = prefill * collect + (rounds - prefill) * both
    return Forecast(
        update=update,
        act=act,
        step=step,
        worlds=worlds,
        depths=depths,
        collect=collect,
        round=both,
        evaluation=evaluation,
        total=working + evaluations * evaluation,
        updates_per_second=1 / update,
        env_steps_per_second=_num_worlds(config) / (step + act),
    )


def _num_worlds(config: TrainConfig) -> int:
    """Those that collect; with a data set, those of an evaluation, as there are no others."""
    return config.num_eval_episodes if config.dataset else config.num_envs


def _learner(config: TrainConfig) -> tuple[float, float, tuple[int, ...]]:
    """Seconds of an update and of acting, and the depths at which they were measured."""
    deepest = max(config.actor_depth, config.critic_depth)
    if deepest <= SHALLOW:
        return *_time_learner(config), (deepest,)
    shallow = _at_depth(config, SHALLOW)
    first = _time_learner(shallow)
    expected = first[0] / sizes.of(shallow).flop  # seconds of an operation
    calls = 1 + FEWEST
    if calls * expected * sizes.of(config).flop <= PATIENCE:
        return *_time_learner(config), (deepest,)
    depth = deepest // 8 * 4
    while depth > 2 * SHALLOW and calls * expected * sizes.of(_at_depth(config, depth)).flop > PATIENCE / 2:
        depth -= 4
    depth = min(max(depth, 2 * SHALLOW), deepest)
    deeper = _at_depth(config, depth)
    second = _time_learner(deeper)
    x = [sizes.of(settings).flop for settings in (shallow, deeper, config)]
    update, act = (max(b, b + (b - a) / (x[1] - x[0]) * (x[2] - x[1])) for a, b in zip(first, second, strict=True))
    return update, act, (SHALLOW, depth)


def _at_depth(config: TrainConfig, depth: int) -> TrainConfig:
    """The same run with no network deeper than `depth`."""
    actor, critic = min(config.actor_depth, depth), min(config.critic_depth, depth)
    return dataclasses.replace(config, actor_depth=actor, critic_depth=critic)


def _time_learner(config: TrainConfig) -> tuple[float, float]:
    """Seconds of an update and of acting in all worlds."""
    spec = envs.spec(config.env, **config.env_kwargs)
    agent = Agent(spec, config, config.device)
    random = np.random.default_rng(0)

    def rows(count: int, dim: int) -> Array:
        return random.standard_normal((count, dim), dtype=np.float32)

    def given(dim: int) -> torch.Tensor:
        return torch.from_numpy(rows(config.batch_size, dim)).to(config.device)

    o, a, g = spec.observation_dim, spec.action_dim, spec.goal_dim
    dims = {"next_observation": o, "next_achieved_goal": g, "desired_goal": g}
    further = {name: given(dims.get(name, 1)) for name in agent.columns}
    further |= {name: torch.zeros(config.batch_size, device=config.device) for name in further if name not in dims}
    batch = Batch(given(o), given(a), given(g), torch.ones(config.batch_size), further)
    observation, goal = rows(_num_worlds(config), o), rows(_num_worlds(config), g)
    update = _seconds(lambda: agent.update(batch), config.device)
    return update, _seconds(lambda: agent.act(observation, goal).cpu(), config.device)


def _worlds(config: TrainConfig) -> tuple[float, int]:
    """Seconds of a step of all worlds, uniform actions taken, and bytes that all worlds of the run take."""
    before, count = resident_memory(), _num_worlds(config)
    env = envs.make(config.env, count, seed=config.seed, num_threads=config.num_threads, **config.env_kwargs)
    with closing(env):
        env.reset(seed=config.seed)
        dim = envs.spec(config.env, **config.env_kwargs).action_dim
        uniform = np.random.default_rng(0).uniform(-1, 1, (64, count, dim)).astype(np.float32)
        actions = itertools.cycle(uniform)
        step = _seconds(lambda: env.step(next(actions)), "cpu", most=10**6)
        taken = max(0, resident_memory() - before)
    return step, taken if config.dataset else taken * (count + config.num_eval_episodes) // count


def _seconds(call: Callable[[], object], device: str, most: int = 200) -> float:
    """The median time of a call, of those that fit into `SECONDS` after one to warm up."""

    def wait() -> None:
        if device != "cpu":
            torch.cuda.synchronize(device)

    call()
    wait()
    times: list[float] = []
    while len(times) < FEWEST or (sum(times) < SECONDS and len(times) < most):
        started = time.perf_counter()
        call()
        wait()
        times.append(time.perf_counter() - started)
    return median(times)
