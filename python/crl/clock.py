"""How long the phases of a run take, and how long the rest of it will."""

import contextlib
import math
import time
from collections.abc import Iterator

from crl.config import TrainConfig


class Clock:
    """Measures the phases of a run, and tells from them how long the rest will take."""

    def __init__(self, config: TrainConfig, episode_length: int) -> None:
        self._config, self._episode_length = config, episode_length
        self._seconds = dict.fromkeys(("collect", "learn", "evaluate", "save"), 0.0)
        self._units = dict.fromkeys(self._seconds, 0)

    @contextlib.contextmanager
    def phase(self, name: str, units: int) -> Iterator[None]:
        """Measure a phase that does `units` of work: env steps, updates, evaluations, checkpoints."""
        started = time.monotonic()
        yield
        self._seconds[name] += time.monotonic() - started
        self._units[name] += units

    def _cost(self, name: str, unknown: float = 0.0) -> float:
        return self._seconds[name] / self._units[name] if self._units[name] else unknown

    def time_left(self, position: int, pending_updates: int) -> float | None:
        """Seconds to the end of the run at the measured cost of each phase; None before an update was measured.

        Args:
            position: env steps so far; with a data set, updates.
            pending_updates: of the present round.
        """
        config = self._config
        if not self._units["learn"]:
            return None
        left = max(0, config.total - position)
        evaluations = math.ceil(left / config.eval_interval)
        if config.dataset:
            return self._cost("learn") * left + evaluations * (self._cost("evaluate") + self._cost("save"))
        rounds = math.ceil(left / (config.unroll_length * config.num_envs))
        # Until one was measured, an evaluation is taken to cost what collecting as many steps does.
        evaluation = self._cost("collect") * config.num_eval_episodes * self._episode_length
        collect, learn = self._cost("collect") * left, self._cost("learn") * rounds * config.updates_per_collect
        return (
            (max(collect, learn) if config.asynchronous else collect + learn)
            + self._cost("learn") * pending_updates
            + evaluations * (self._cost("evaluate", evaluation) + self._cost("save"))
        )
