"""Run directories: made once, never overwritten, reopened to go on or to evaluate."""

import datetime
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from crl import checkpoint, config, envs
from crl.agent import Agent
from crl.buffer import TrajectoryBuffer
from crl.config import Resolved, TrainConfig
from crl.envs import EnvSpec
from crl.errors import CheckpointError, ConfigError
from crl.evaluation import Evaluation, evaluate, world_seed
from crl.policy import Policy

RESUMABLE = ("total_env_steps", "eval_interval", "device", "num_threads", "keep_checkpoints")
"""Settings that may change when a run goes on."""
EVALUABLE = ("eval_env", "layout", "env_options", "num_eval_episodes", "num_action_candidates", "device", "num_threads")
"""Settings that may change when a run is evaluated."""


def resolve(settings: TrainConfig) -> Resolved:
    """`settings` without AUTO, for this machine.

    Raises:
        ConfigError: on settings that cannot be, or a device that is not there.
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
    return config.resolve(settings, device=device, num_cores=len(os.sched_getaffinity(0)))


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
    return config.from_mapping({**values, **changes})


def remember(run_dir: Path, settings: TrainConfig) -> None:
    """Let config.yaml say what the run goes on with."""
    config.write(settings, run_dir / "config.yaml")


def load_agent(saved: Path, settings: TrainConfig) -> Agent:
    """The agent in checkpoint `saved` of a run with `settings`.

    Raises:
        CheckpointError: when the checkpoint does not hold such an agent.
    """
    agent = Agent(envs.spec(settings.env, **settings.env_kwargs), settings, device=settings.device)
    try:
        agent.load_state_dict(safetensors.torch.load_file(saved / "agent.safetensors", device=settings.device))
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{saved / 'agent.safetensors'} cannot be loaded: {error}") from None
    return agent


def new_buffer(spec: EnvSpec, num_envs: int, capacity: int, seed: int = 0) -> TrajectoryBuffer:
    """An empty replay buffer for what `num_envs` worlds of `spec` show. Images are their own achieved goals."""
    return TrajectoryBuffer(
        num_envs=num_envs,
        capacity=capacity,
        observation=((spec.observation_dim,), np.uint8 if spec.image else np.float32),
        action=(spec.action_dim,),
        achieved_goal=None if spec.image else (spec.goal_dim,),
        seed=seed,
    )


def load_buffer(saved: Path) -> TrajectoryBuffer:
    """The replay buffer in checkpoint `saved`.

    Raises:
        CheckpointError: when it cannot be read.
    """
    try:
        return TrajectoryBuffer.load(saved / "buffer.crlb")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{saved / 'buffer.crlb'} cannot be loaded: {error}") from None


def evaluate_run(run_dir: str | Path, *, seed: int = 0, deterministic: bool = True, **changes: Any) -> Evaluation:
    """Evaluate the newest checkpoint of a run on worlds of their own.

    Args:
        run_dir: the run's directory.
        seed: of starts and goals.
        deterministic: act by the mode of the policy instead of a sample.
        changes: other values for the settings in EVALUABLE.

    Raises:
        ConfigError: on a change to another setting, or an environment with other dimensions.
        CheckpointError: when the run or its checkpoint cannot be read.
    """
    policy, settings, _ = load_policy(run_dir, **changes)
    env = envs.make(
        settings.eval_env,
        settings.num_eval_episodes,
        seed=world_seed(seed),
        num_threads=settings.num_threads,
        **settings.eval_env_kwargs,
    )
    try:
        return evaluate(policy, env, seed=seed, deterministic=deterministic)
    finally:
        env.close()


def load_policy(run_dir: str | Path, **changes: Any) -> tuple[Policy, TrainConfig, Path]:
    """The policy in the newest checkpoint of a run, the run's settings with `changes`, and that checkpoint.

    Raises:
        ConfigError: on a change to a setting that is not in EVALUABLE, an environment with other dimensions, or a
            layout for one that is not the run's.
        CheckpointError: when the run or its checkpoint cannot be read.
    """
    saved = checkpoint.latest(Path(run_dir))
    settings = resolve(reopen(Path(run_dir), {"device": "auto", **changes}, EVALUABLE)).config
    if "layout" in changes and not settings.layout_is_evaluated:
        raise ConfigError(f"layout is of {settings.env} and its far goals; it says nothing about {settings.eval_env}.")
    return load_agent(saved, settings).evaluation_policy(), settings, saved
