"""What the tests of training share: a world with short episodes, and settings of a run that takes a second or two."""

import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import short_crl
from rich.console import Console

from crl.config import TrainConfig
from crl.console import Reporter
from crl.envs import registry

TINY: dict[str, Any] = {
    "env": short_crl.NAME,
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

TINY_OPTIONS = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]


@pytest.fixture
def short_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of `TINY` is there."""
    monkeypatch.setitem(registry._factories, short_crl.NAME, short_crl.make)


@pytest.fixture
def tiny(short_world: None, tmp_path: Path) -> Callable[..., TrainConfig]:
    """`tiny(name, **changes)`: settings of a run of `TINY` in directory `name`."""
    return lambda name="run", **changes: TrainConfig(**{**TINY, **changes}, run_dir=str(tmp_path / name))


class Quiet(Reporter):
    """Writes to memory, and sets `stop` when `stop_when` says so of the progress, asked after every update."""

    def __init__(self) -> None:
        super().__init__(Console(file=io.StringIO(), soft_wrap=True, markup=False, emoji=False))
        self.stop = threading.Event()
        self.stop_when: Callable[[Any], bool] = lambda progress: False

    def tick(self, progress: Any, time_left: float | None) -> None:
        super().tick(progress, time_left)
        if self.stop_when(progress):
            self.stop.set()

    def text(self) -> str:
        """What a person would have seen."""
        written = self.console.file
        assert isinstance(written, io.StringIO)
        return written.getvalue()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """PyTorch on one thread: modes, hooks and recorders see what this thread does, and no second one beside it."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
