"""Contrastive reinforcement learning: right, fast and pleasant.

`crl.TrajectoryBuffer` needs NumPy alone; everything else is imported when it is first used, and needs `crl[train]`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from crl.errors import CheckpointError, ConfigError, MissingExtraError

if TYPE_CHECKING:
    from crl import envs, losses, networks
    from crl.agent import Agent
    from crl.buffer import Batch, InternalError, Loader, SnapshotError, TrajectoryBuffer
    from crl.config import TrainConfig
    from crl.run import evaluate_run
    from crl.trainer import TrainResult, train

__all__ = [
    "Agent",
    "Batch",
    "CheckpointError",
    "ConfigError",
    "InternalError",
    "Loader",
    "MissingExtraError",
    "SnapshotError",
    "TrainConfig",
    "TrainResult",
    "TrajectoryBuffer",
    "envs",
    "evaluate_run",
    "losses",
    "networks",
    "train",
]

_HOMES = {
    "Agent": "crl.agent",
    "Batch": "crl.buffer",
    "InternalError": "crl.buffer",
    "Loader": "crl.buffer",
    "SnapshotError": "crl.buffer",
    "TrainConfig": "crl.config",
    "TrainResult": "crl.trainer",
    "TrajectoryBuffer": "crl.buffer",
    "evaluate_run": "crl.run",
    "train": "crl.trainer",
}
_MODULES = ("envs", "losses", "networks")


def __getattr__(name: str) -> Any:
    if name not in _HOMES and name not in _MODULES:
        raise AttributeError(f"module 'crl' has no attribute {name!r}")
    try:
        value: Any = importlib.import_module(_HOMES.get(name, f"crl.{name}"))
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("crl"):
            raise
        raise MissingExtraError(f'crl.{name} needs {error.name}: pip install "crl[train]"') from None
    value = getattr(value, name) if name in _HOMES else value
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
