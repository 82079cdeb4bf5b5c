"""What the tests of training share: settings of a run that takes a second or two."""

from pathlib import Path
from typing import Any

import pytest

from crl.config import TrainConfig

TINY: dict[str, Any] = {
    "env": "point_maze",
    "depth": 4,
    "width": 16,
    "representation_dim": 8,
    "batch_size": 16,
    "num_envs": 4,
    "unroll_length": 10,
    "updates_per_collect": 4,
    "learning_starts": 40,
    "buffer_capacity": 400,
    "total_env_steps": 400,
    "eval_interval": 200,
    "num_eval_episodes": 4,
    "num_threads": 1,
    "device": "cpu",
}
"""10 rounds of 40 env steps, each followed by 4 updates; evaluations at 200 and 400."""


@pytest.fixture
def tiny(tmp_path: Path) -> TrainConfig:
    """A run of `TINY` in an empty directory."""
    return TrainConfig(**TINY, run_dir=str(tmp_path / "run"))
