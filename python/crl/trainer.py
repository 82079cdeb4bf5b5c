"""The training loop: collect, learn, evaluate, save."""

import contextlib
import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch

from crl import checkpoint, envs, losses, relabelling, run, sizes
from crl.agent import Agent
from crl.clock import Clock
from crl.collector import Collector, UniformPolicy
from crl.config import ROWS_TO_LEARN, TrainConfig
from crl.console import Reporter
from crl.errors import CheckpointError, ConfigError
from crl.evaluation import Evaluation, Stopped, evaluate, world_seed
from crl.metrics import MetricsWriter, RunningMean

CHANCE_MARGIN = 0.1
"""A contrastive loss within this share of chance after CHANCE_UPDATES updates earns a warning."""
CHANCE_UPDATES = 2000


@dataclass
class Progress:
    """How far a run is. Saved with every checkpoint."""

    env_steps: int = 0
    updates: int = 0
    pending_updates: int = 0
    """Updates of the current round still to make."""
    evaluated_at: int = 0
    """Env steps at the last evaluation."""
    wall_time: float = 0.0


@dataclass(frozen=True)
class TrainResult:
    """What `train` returns."""

    run_dir: Path
    env_steps: int
    updates: int
    evaluation: Evaluation | None
    """The last evaluation of this session, if it made one."""
    interrupted: bool
    """Whether it was stopped before total_env_steps; `resume` goes on."""


def train(
    settings: TrainConfig | None = None,
    *,
    resume: str | Path | None = None,
    reporter: Reporter | None = None,
    stop: threading.Event | None = None,
    **changes: Any,
) -> TrainResult:
    """Train an agent as `settings` says, or go on with the run in directory `resume`.

    Args:
        settings: what to run; what is left at AUTO is chosen for environment and device, and shown.
        resume: directory of a run to go on with, instead of `settings`.
        reporter: what shows the run; default: one for standard output.
        stop: when set, from any thread, the run saves itself after the update it is in, and returns.
        changes: with `resume`, other values for the settings in `crl.run.RESUMABLE`.

    Returns:
        TrainResult, also when stopped early.

    Raises:
        ConfigError: on settings that cannot be or cannot fit into the memory, or a run directory that is not empty.
        CheckpointError: when a checkpoint cannot be read or written.
    """
    if (settings is None) == (resume is None):
        raise ConfigError("train needs either settings or resume, and not both.")
    if resume is not None:
        run_dir = Path(resume)
        saved: Path | None = checkpoint.latest(run_dir)
        resolved = run.resolve(run.reopen(run_dir, changes))
        sizes.check_fits(resolved.config)
        run.remember(run_dir, resolved.config)
    elif settings is not None:
        saved, resolved = None, run.resolve(dataclasses.replace(settings, **changes))
        sizes.check_fits(resolved.config)
        run_dir = run.create(resolved.config)
    reporter = reporter or Reporter()
    with (
        reporter.show(resolved, run_dir, saved),
        _threads(resolved.config.num_threads),
        Trainer(resolved.config, run_dir, reporter, stop or threading.Event(), saved) as trainer,
    ):
        trainer.run()
        return trainer.result()


class Trainer:
    """One run: everything that is made once, and the loop over it."""

    def __init__(
        self, config: TrainConfig, run_dir: Path, reporter: Reporter, stop: threading.Event, saved: Path | None
    ) -> None:
        self.config, self.run_dir, self.reporter, self.stop = config, run_dir, reporter, stop
        spec = envs.spec(config.env, **config.env_kwargs)
        self.agent = run.load_agent(saved, config) if saved else Agent(spec, config, device=config.device)
        # Beside a learner on the CPU, collecting has cores of its own: the threads of a matrix product wait for each
        # other, so one that shares its core delays all. Beside a learner on a GPU it has all cores.
        self.background = ThreadPoolExecutor(1) if config.asynchronous else None
        shared = config.asynchronous and config.device == "cpu"
        self.collecting_threads = max(1, config.num_threads // 4) if shared else config.num_threads
        if self.background:
            self.background.submit(_use_threads, self.collecting_threads).result()
            torch.set_num_threads(config.num_threads)
        self.env = envs.make(
            config.env,
            config.num_envs,
            seed=config.seed,
            num_threads=self.collecting_threads,
            **config.env_kwargs,
        )
        self.eval_env = envs.make(
            config.eval_env,
            config.num_eval_episodes,
            seed=world_seed(config.seed),
            num_threads=config.num_threads,
            **config.eval_env_kwargs,
        )
        self.buffer = (
            run.load_buffer(saved)
            if saved
            else run.new_buffer(spec, config.num_envs, config.buffer_capacity, config.seed)
        )
        # Beside the learner the collector acts with weights of its own, taken over between rounds.
        self.weights = self.agent.policy() if config.asynchronous else None
        self.collector = Collector(self.env, self.weights or self.agent, self.buffer, seed=config.seed)
        self.progress, self.means = Progress(), RunningMean()
        self.evaluation: Evaluation | None = None
        self.clock = Clock(config, spec.episode_length)
        if saved:
            self._load(saved)
        self.metrics = MetricsWriter(run_dir, (self.progress.env_steps, self.progress.updates) if saved else None)
        self._last_row = dataclasses.replace(self.progress)
        self._warned_of_chance = False

    def run(self) -> None:
        """Alternate collecting and learning, or do both at once, until done or stopped."""
        config, progress = self.config, self.progress
        started = time.monotonic() - progress.wall_time
        while not self.stop.is_set() and not self.done:
            if self.evaluation_due:
                self.evaluate()
                if not self.stop.is_set():
                    self.save()
                continue
            collecting = None
            if not progress.pending_updates:
                if self.background and self.weights and self.ready:
                    self.weights.refresh()
                    collecting = self.background.submit(self.collect)
                else:
                    progress.env_steps += self.collect()
                progress.pending_updates = config.updates_per_collect if self.ready else 0
            self.learn(collecting)
            progress.env_steps += collecting.result() if collecting else 0
            progress.wall_time = time.monotonic() - started
            if not progress.pending_updates:
                self.log()
        progress.wall_time = time.monotonic() - started
        if self.stop.is_set():
            self.save()

    @property
    def ready(self) -> bool:
        """Whether there is enough in the buffer to learn from: the prefill, and rows that have a successor."""
        return self.progress.env_steps >= max(self.config.learning_starts, ROWS_TO_LEARN * self.config.num_envs)

    @property
    def time_left(self) -> float | None:
        """Seconds to the end of the run, as measured so far; None before the first round of updates."""
        return self.clock.time_left(self.progress.env_steps, self.progress.pending_updates)

    @property
    def evaluation_due(self) -> bool:
        """Whether an evaluation interval, or the run, is complete and not yet evaluated."""
        steps, evaluated_at, interval = self.progress.env_steps, self.progress.evaluated_at, self.config.eval_interval
        complete = steps >= self.config.total_env_steps or steps // interval > evaluated_at // interval
        return complete and steps > evaluated_at and not self.progress.pending_updates

    @property
    def done(self) -> bool:
        """Whether all steps and updates were made, and the result evaluated."""
        return self.progress.evaluated_at >= self.config.total_env_steps

    def collect(self) -> int:
        """One round of env steps; returns their number."""
        config = self.config
        if config.prefill == "uniform" and not self.ready:
            self.collector.policy = UniformPolicy(self.agent.spec.action_dim, [config.seed, self.progress.env_steps])
        else:
            self.collector.policy = self.weights or self.agent
        with self.clock.phase("collect", config.unroll_length * config.num_envs):
            return self.collector.collect(config.unroll_length)

    def learn(self, collecting: Future[int] | None) -> None:
        """The pending updates of this round, or as many as are made before a stop; beside `collecting`, if given."""
        progress, config = self.progress, self.config
        loader = relabelling.loader(
            self.buffer,
            config.batch_size,
            config.goal_filter,
            gamma=config.gamma,
            goal=config.goals,
            device=config.device,
            prefetch=0 if config.device == "cpu" else 4,
            num_batches=progress.pending_updates,
        )
        with loader:
            for batch in loader:
                busy = self.collecting_threads if collecting and not collecting.done() else 0
                torch.set_num_threads(max(1, config.num_threads - busy))
                with self.clock.phase("learn", 1):
                    rows = relabelling.chosen(batch, config.batch_size, config.goal_filter)
                    self.means.add(self.agent.update(rows))
                progress.updates += 1
                progress.pending_updates -= 1
                self.reporter.tick(progress, self.time_left)
                if self.stop.is_set():
                    break
        with self.clock.phase("learn", 0):  # what the device still has to do of these updates
            self.means.wait()

    def log(self) -> None:
        """Write this round's row and show it."""
        now, last = self.progress, self._last_row
        seconds = max(now.wall_time - last.wall_time, 1e-9)
        row = {
            "env_steps": now.env_steps,
            "updates": now.updates,
            "wall_time": now.wall_time,
            **self.means.compute(),
            "speed/env_steps_per_second": (now.env_steps - last.env_steps) / seconds,
            "speed/updates_per_second": (now.updates - last.updates) / seconds,
        }
        self._last_row = dataclasses.replace(now)
        self.metrics.write(row)
        self.reporter.row(row, self.time_left)
        self._warn_of_chance(row)

    def evaluate(self) -> None:
        """Evaluate on worlds of their own, with starts, goals and noise that no other evaluation of the run has.

        If stopped it stays due, and is made from its start when the run goes on.
        """
        config, progress = self.config, self.progress
        seed = int(np.random.SeedSequence([config.seed, progress.env_steps]).generate_state(1)[0])
        policy = self.agent.evaluation_policy(torch.Generator(config.device).manual_seed(seed))
        try:
            with self.clock.phase("evaluate", 1):
                self.evaluation = evaluate(policy, self.eval_env, seed=seed, stop=self.stop)
        except Stopped:
            return
        progress.evaluated_at = progress.env_steps
        counts = {"env_steps": progress.env_steps, "updates": progress.updates, "wall_time": progress.wall_time}
        self.metrics.write({**counts, **self.evaluation.metrics()})
        self.reporter.evaluated(progress, self.evaluation)

    def save(self) -> None:
        """Write a checkpoint from which the run goes on bit for bit (in synchronous mode on CPU)."""
        state = {"progress": dataclasses.asdict(self.progress), "means": self.means.state_dict()}
        with self.clock.phase("save", 1):
            checkpoint.save(
                self.run_dir,
                self.progress.env_steps,
                {
                    "agent.safetensors": _writer(safetensors.torch.save_file, self.agent.state_dict),
                    "collector.safetensors": _writer(safetensors.numpy.save_file, self.collector.state_dict),
                    "buffer.crlb": self.buffer.save,
                    "state.json": lambda path: path.write_text(json.dumps(state, indent=1), encoding="utf-8"),
                },
                keep=self.config.keep_checkpoints,
            )

    def result(self) -> TrainResult:
        """The outcome so far."""
        progress = self.progress
        return TrainResult(self.run_dir, progress.env_steps, progress.updates, self.evaluation, not self.done)

    def _load(self, saved: Path) -> None:
        try:
            self.collector.load_state_dict(safetensors.numpy.load_file(saved / "collector.safetensors"))
            if not self.collector.resumable:
                self.reporter.warn(
                    f"the worlds of {self.config.env} have no state that can be saved: new episodes start here, and "
                    "the run is another than an uninterrupted one, though no worse. All else goes on as it was."
                )
            state = checkpoint.read_json(saved / "state.json")
            self.progress = Progress(**state["progress"])
            self.means.load_state_dict(state["means"], self.config.device)
        except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
            raise CheckpointError(f"{saved} cannot be loaded: {error}") from None

    def _warn_of_chance(self, row: dict[str, float]) -> None:
        if self._warned_of_chance or self.progress.updates < CHANCE_UPDATES or "train/contrastive_loss" not in row:
            return
        chance = losses.chance_loss(self.config.contrastive_loss, self.config.batch_size)
        if row["train/contrastive_loss"] > (1 - CHANCE_MARGIN) * chance:
            self._warned_of_chance = True
            self.reporter.warn(
                f"the critic sits at chance: contrastive loss {row['train/contrastive_loss']:.2f} after "
                f"{self.progress.updates} updates, chance is {chance:.2f}. Goals about "
                f"{1 / (1 - min(self.config.gamma, 0.9999)):.0f} steps ahead tell nothing about the present here: "
                f"the discount (--gamma {self.config.gamma:g}) does not fit this environment; try a lower one."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.background:
            self.background.shutdown()
        self.metrics.close()
        self.env.close()
        self.eval_env.close()


def _writer(save_file: Callable[[Any, Path], None], state: Callable[[], Any]) -> Callable[[Path], None]:
    """A function that saves what `state` returns; safetensors has an error of its own for a full disk."""

    def write(path: Path) -> None:
        try:
            save_file(state(), path)
        except safetensors.SafetensorError as error:
            raise OSError(str(error)) from None

    return write


def _use_threads(count: int) -> None:
    """Let PyTorch use `count` threads for work of this thread."""
    torch.get_num_threads()  # Only now is this thread known to PyTorch: it would begin with the number of the others.
    torch.set_num_threads(count)


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let PyTorch use `count` threads, and put it back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
