"""Run directories: made once, never overwritten, reopened to go on or to evaluate."""

import contextlib
import dataclasses
import datetime
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from crl import checkpoint, config, envs, probes, resolution
from crl.agent import Agent
from crl.buffer import TrajectoryBuffer
from crl.config import TrainConfig
from crl.envs import EnvSpec, perturbations
from crl.envs.perturbations import Perturbation
from crl.errors import CheckpointError, ConfigError
from crl.evaluation import Evaluation, evaluate, world_seed
from crl.policy import Policy
from crl.probes import Probes, probe
from crl.ranks import ALONE, Ranks
from crl.resolution import Resolved

RESUMABLE = (
    *("total_env_steps", "total_updates", "eval_interval", "device", "num_threads", "keep_checkpoints", "dataset"),
)
"""Settings that may change when a run goes on; of a data set the place, not the rows."""
EVALUABLE = ("eval_env", "layout", "env_options", "num_eval_episodes", "num_action_candidates", "device", "num_threads")
"""Settings that may change when a run is evaluated."""
DIVIDED = ("num_envs", "batch_size", "num_eval_episodes")
"""Settings of which each of several processes has an equal part."""


def resolve(settings: TrainConfig, ranks: Ranks = ALONE) -> Resolved:
    """`settings` without AUTO, for this machine, and for all of its processes: sizes are of the whole run.

    Raises:
        ConfigError: on settings that cannot be, that do not divide among the processes, or a device that is not there.
    """
    if settings.device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    else:
        device = settings.device
        if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
            raise ConfigError(f"device must be auto, cpu, cuda or cuda:N, got {device!r}.")
        count = torch.cuda.device_count()
        if device != "cpu" and int(device.partition(":")[2] or 0) >= count:
            raise ConfigError(f"device {device} is asked for, but PyTorch sees {count} CUDA devices; use --device cpu.")
    ranks.together(lambda: ranks.device(device))
    num_cores = max(1, len(os.sched_getaffinity(0)) // ranks.neighbours)
    resolved = resolution.resolve(settings, device=device, num_cores=num_cores)
    sizes = _divided(resolved.config)
    if uneven := [f"{name} is {size}" for name, size in sizes.items() if size % ranks.size]:
        raise ConfigError(
            f"{', '.join(uneven)}: expected multiples of {ranks.size}, the number of processes, each of which has an "
            f"equal part; choose others, for example {ranks.size * (sizes[uneven[0].split()[0]] // ranks.size or 1)}."
        )
    return resolved


def part(settings: TrainConfig, ranks: Ranks) -> TrainConfig:
    """Of resolved `settings`, what this rank has: its worlds, its rows, its device. As many rows a world as ever."""
    if ranks.size == 1:
        return settings
    own: dict[str, Any] = {name: size // ranks.size for name, size in _divided(settings).items()}
    if not settings.dataset:
        own["buffer_capacity"] = settings.buffer_capacity // settings.num_envs * own["num_envs"]
        own["total_env_steps"] = max(1, settings.total_env_steps // ranks.size)
    return dataclasses.replace(settings, **own, device=ranks.device(settings.device))


def _divided(settings: TrainConfig) -> dict[str, int]:
    """The sizes of the whole run that its processes share; one from a data set has no worlds to collect in."""
    sizes = {name: getattr(settings, name) for name in DIVIDED}
    return {name: size for name, size in sizes.items() if size is not None}


def create(settings: TrainConfig) -> Path:
    """Make the directory of a new run and write its config.yaml.

    Raises:
        ConfigError: when the directory has something in it or cannot be written; nothing is overwritten.
    """
    if settings.run_dir:
        run_dir = Path(settings.run_dir)
    else:
        date = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        name = re.sub(r"[^\w.-]", "-", settings.env)  # not every file system takes "gymnasium:FetchReach-v4"
        run_dir = Path("runs") / f"{name}-d{settings.depth}-s{settings.seed}-{date}"
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        if any(run_dir.iterdir()):
            raise ConfigError(f"run directory {run_dir} is not empty: choose another, or use --resume {run_dir}.")
        config.write(settings, run_dir / "config.yaml")
    except OSError as error:
        raise ConfigError(f"run directory {run_dir} cannot be written: {error}.") from None
    return run_dir


def reopen(run_dir: Path, changes: dict[str, Any], changeable: tuple[str, ...] = RESUMABLE) -> TrainConfig:
    """The config of an existing run, with `changes` to the `changeable` settings.

    Raises:
        ConfigError: on a change to another setting.
        CheckpointError: when the run's config cannot be read.
    """
    for name in changes:
        if name not in changeable:
            raise ConfigError(f"{config.file_key(name)} of a run cannot change; these can: {', '.join(changeable)}.")
    try:
        values = config.read_settings(run_dir / "config.yaml")
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    if "eval_env" in changes:  # which may be no maze to probe
        values["probes"] = False
    return config.from_mapping({**values, **changes})


def remember(run_dir: Path, settings: TrainConfig) -> None:
    """Let config.yaml say what the run goes on with."""
    config.write(settings, run_dir / "config.yaml")


def check_ranks(saved: Path, ranks: Ranks) -> None:
    """Refuse checkpoint `saved` of a run of another number of processes: worlds and buffers are of each.

    Raises:
        CheckpointError: it is of another number of processes, or cannot be read.
    """
    try:
        size = checkpoint.read_json(saved / "state.json").get("ranks", 1)
    except (OSError, TypeError, ValueError) as error:
        raise CheckpointError(f"{saved} cannot be loaded: {error}") from None
    if size != ranks.size:
        torchrun = f"torchrun --nproc-per-node {size} -m " if size != 1 else ""
        raise CheckpointError(
            f"{saved} cannot be loaded: it is of {size} process{'es' * (size != 1)}, this run has {ranks.size}; "
            f"go on with as many: {torchrun}crl train --resume {saved.parents[1]}"
        )


def load_agent(saved: Path, settings: TrainConfig, ranks: Ranks = ALONE) -> Agent:
    """The agent in checkpoint `saved` of a run with `settings`.

    Raises:
        CheckpointError: when the checkpoint does not hold such an agent.
    """
    agent = Agent(envs.spec(settings.env, **settings.env_kwargs), settings, settings.device, ranks)
    try:
        agent.load_state_dict(safetensors.torch.load_file(saved / "agent.safetensors", device=settings.device))
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{saved / 'agent.safetensors'} cannot be loaded: {error}") from None
    return agent


def check_beginning(settings: TrainConfig) -> None:
    """Raise what `begin_with` would, before anything is written."""
    if settings.init_from:
        begin_with(Agent(envs.spec(settings.env, **settings.env_kwargs), settings, settings.device), settings)


def begin_with(agent: Agent, settings: TrainConfig) -> None:
    """Let `agent` begin with the weights of the run that `settings.init_from` names, if one does.

    Raises:
        CheckpointError: that run cannot be read.
        ConfigError: its networks have other shapes.
    """
    if not settings.init_from:
        return
    saved = checkpoint.latest(Path(settings.init_from)) / "agent.safetensors"
    try:
        agent.begin_with(safetensors.torch.load_file(saved, device=settings.device), settings.init)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{saved} cannot be loaded: {error}") from None
    except ValueError as error:
        raise ConfigError(
            f"init_from {settings.init_from}: its networks do not fit these ({error}): give the depth, width and other "
            "settings of networks that it has, an environment of its dimensions, or take less of it (--init)."
        ) from None


def new_buffer(
    spec: EnvSpec, num_envs: int, capacity: int, seed: int = 0, stores: Sequence[str] = ()
) -> TrajectoryBuffer:
    """An empty replay buffer for what `num_envs` worlds of `spec` show. Images are their own achieved goals.

    Args:
        stores: further columns, of `desired_goal` and `terminal`: see `crl.collector.Collector`.
    """
    further = {"desired_goal": ((spec.goal_dim,), np.float32), "terminal": ((), np.bool_)}
    return TrajectoryBuffer(
        num_envs=num_envs,
        capacity=capacity,
        observation=((spec.observation_dim,), np.uint8 if spec.image else np.float32),
        action=(spec.action_dim,),
        achieved_goal=None if spec.image else (spec.goal_dim,),
        extras={name: further[name] for name in stores},
        seed=seed,
    )


def load_buffer(saved: Path, ranks: Ranks = ALONE) -> TrajectoryBuffer:
    """The replay buffer in checkpoint `saved`; the part of this rank.

    Raises:
        CheckpointError: when it cannot be read.
    """
    path = saved / ranks.part("buffer.crlb")
    try:
        return TrajectoryBuffer.load(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be loaded: {error}") from None


def evaluate_run(
    run_dir: str | Path,
    *,
    seed: int = 0,
    deterministic: bool = True,
    perturbation: Perturbation | None = None,
    **changes: Any,
) -> Evaluation:
    """Evaluate the newest checkpoint of a run on worlds of their own.

    Args:
        run_dir: the run's directory.
        seed: of starts and goals.
        deterministic: act by the mode of the policy instead of a sample.
        perturbation: of the worlds, whose starts (before they are shifted) and goals stay what they are without.
        changes: other values for the settings in EVALUABLE.

    Raises:
        ConfigError: on a change to another setting, an environment with other dimensions, or a perturbation of what it
            does not have.
        CheckpointError: when the run or its checkpoint cannot be read.
    """
    with _evaluating(run_dir, seed, perturbation, changes) as (policy, env):
        return evaluate(policy, env, seed=seed, deterministic=deterministic)


def probe_run(
    run_dir: str | Path, *, seed: int = 0, perturbation: Perturbation | None = None, **changes: Any
) -> Probes:
    """Probe the newest checkpoint of a run: success for goals all along the ways of a maze.

    Arguments and errors are those of `evaluate_run`; and ConfigError where the environment is no maze.
    """
    with _evaluating(run_dir, seed, perturbation, changes) as (policy, env):
        settings = _evaluated(Path(run_dir), changes)
        probes.check(settings.eval_env, settings.eval_env_kwargs)
        return probe(policy, env, seed=seed)


@contextlib.contextmanager
def _evaluating(
    run_dir: str | Path, seed: int, perturbation: Perturbation | None, changes: dict[str, Any]
) -> Iterator[tuple[Policy, Any]]:
    """The newest policy of a run, and the worlds that it is evaluated in."""
    policy, settings, _ = load_policy(run_dir, **changes)
    make = envs.make if perturbation is None else partial(perturbations.make, perturbation=perturbation)
    env = make(
        settings.eval_env,
        settings.num_eval_episodes,
        seed=world_seed(seed),
        num_threads=settings.num_threads,
        **settings.eval_env_kwargs,
    )
    try:
        yield policy, env
    finally:
        env.close()


def check_perturbations(run_dir: str | Path, several: Iterable[Perturbation], **changes: Any) -> None:
    """Raise what `evaluate_run` would of each perturbation, without its episodes."""
    settings = _evaluated(Path(run_dir), changes)
    for perturbation in several:
        perturbations.check(settings.eval_env, perturbation, **settings.eval_env_kwargs)


def load_policy(run_dir: str | Path, step: int | None = None, **changes: Any) -> tuple[Policy, TrainConfig, Path]:
    """The policy in a checkpoint of a run, the run's settings with `changes`, and that checkpoint.

    Args:
        run_dir: the run's directory.
        step: of the checkpoint `step_N`; None: the newest.
        changes: other values for the settings in EVALUABLE.

    Raises:
        ConfigError: on a change to a setting that is not in EVALUABLE, an environment with other dimensions, or a
            layout for one that is not the run's.
        CheckpointError: when the run or its checkpoint cannot be read.
    """
    saved = checkpoint.latest(Path(run_dir)) if step is None else checkpoint.at(Path(run_dir), step)
    settings = _evaluated(Path(run_dir), changes)
    return load_agent(saved, settings).evaluation_policy(), settings, saved


def _evaluated(run_dir: Path, changes: dict[str, Any]) -> TrainConfig:
    """The settings with which a run is evaluated."""
    settings = resolve(reopen(run_dir, {"device": "auto", **changes}, EVALUABLE)).config
    if "layout" in changes and not settings.layout_is_evaluated:
        raise ConfigError(f"layout is of {settings.env} and its far goals; it says nothing about {settings.eval_env}.")
    return settings
