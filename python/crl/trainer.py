"""The training loop: collect, learn, evaluate, save. Where a run has several ranks, each runs this loop, in step.

A run from a data set is the same loop, but that a round collects nothing, and that it counts updates and not env steps.
"""

import contextlib
import dataclasses
import io
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch
from numpy.typing import NDArray
from rich.console import Console

from crl import checkpoint, datasets, discount, envs, lanes, relabelling, run, sizes
from crl.agent import Agent
from crl.buffer import TrajectoryBuffer
from crl.clock import Clock
from crl.collector import Collector, UniformPolicy
from crl.commands import Commands, farthest
from crl.config import ROWS_TO_LEARN, TrainConfig
from crl.console import Reporter
from crl.datasets import Dataset
from crl.errors import CheckpointError, ConfigError, RankError
from crl.evaluation import Evaluation, Stopped, evaluate, world_seed
from crl.exploration import Exploration
from crl.files import alone
from crl.metrics import MetricsWriter, RunningMean
from crl.probes import probe
from crl.ranks import ALONE, Ranks, join

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
    """`position` at the last evaluation."""
    wall_time: float = 0.0
    gamma: float = 0.0
    """The discount of the goals in the current round."""

    @property
    def position(self) -> int:
        """How far along its schedule: env steps, or updates where a data set makes steps needless."""
        return self.env_steps or self.updates


@dataclass(frozen=True)
class TrainResult:
    """What `train` returns."""

    run_dir: Path
    env_steps: int
    updates: int
    evaluation: Evaluation | None
    """The last evaluation of this session, if it made one."""
    interrupted: bool
    """Whether it was stopped before its end; `resume` goes on."""


def train(
    settings: TrainConfig | None = None,
    *,
    resume: str | Path | None = None,
    reporter: Reporter | None = None,
    stop: threading.Event | None = None,
    **changes: Any,
) -> TrainResult:
    """Train an agent as `settings` says, or go on with the run in directory `resume`.

    Called by every process that torchrun started, it is one run of all of them: docs/distributed.md.

    Args:
        settings: what to run; what is left at AUTO is chosen for environment and device, and shown.
        resume: directory of a run to go on with, instead of `settings`.
        reporter: what shows the run; default: one for standard output.
        stop: when set, from any thread, the run saves itself after the update it is in, and returns.
        changes: with `resume`, other values for the settings in `crl.run.RESUMABLE`.

    Returns:
        TrainResult, also when stopped early.

    Raises:
        ConfigError: on settings that cannot be or cannot fit into the memory, a data set that cannot be learnt from, a
            run directory that is not empty, or one in which another process trains.
        CheckpointError: when a checkpoint cannot be read or written.
        RankError: another rank failed; it says which, and why.
    """
    if (settings is None) == (resume is None):
        raise ConfigError("train needs either settings or resume, and not both.")
    stop = stop or threading.Event()
    with contextlib.ExitStack() as holding, join(stop) as ranks:
        saved: Path | None = None
        if resume is not None:
            run_dir = Path(resume)

            def newest() -> str:
                if checkpoint.complete(run_dir):  # in what is no run nothing is made, not even a lock
                    holding.enter_context(alone(run_dir))
                return str(checkpoint.latest(run_dir))

            saved = Path(ranks.leads(newest))
            run.check_ranks(saved, ranks)
            resolved = run.resolve(run.reopen(run_dir, changes), ranks)
            _check_fits(resolved.config, ranks)
            dataset = _dataset(resolved.config, ranks)
            ranks.leads(lambda: run.remember(run_dir, resolved.config))
        elif settings is not None:
            resolved = run.resolve(dataclasses.replace(settings, **changes), ranks)
            _check_fits(resolved.config, ranks)
            dataset = _dataset(resolved.config, ranks)
            ranks.together(lambda: run.check_beginning(resolved.config))
            run_dir = Path(ranks.leads(lambda: str(run.create(resolved.config))))
            ranks.leads(lambda: holding.enter_context(alone(run_dir)))
        # Rank 0 speaks for all.
        reporter = reporter or Reporter(Console(file=io.StringIO(), quiet=True) if ranks.rank else None)
        try:
            with (
                reporter.show(resolved, run_dir, saved),
                lanes.threads(resolved.config.num_threads),
                Trainer(resolved.config, run_dir, reporter, stop, saved, ranks, dataset) as trainer,
            ):
                trainer.run()
                return trainer.result()
        except RankError as error:
            way_on = f"; go on with --resume {run_dir}" if checkpoint.complete(run_dir) else ""
            raise RankError(f"{error}{way_on}") from None


class Trainer:
    """One run: everything that is made once, and the loop over it."""

    def __init__(
        self,
        config: TrainConfig,
        run_dir: Path,
        reporter: Reporter,
        stop: threading.Event,
        saved: Path | None,
        ranks: Ranks = ALONE,
        dataset: Dataset | None = None,
    ) -> None:
        self.config, self.run_dir, self.reporter, self.stop, self.ranks = config, run_dir, reporter, stop, ranks
        self.own, self.seed = run.part(config, ranks), ranks.seed(config.seed)
        own, spec = self.own, envs.spec(config.env, **config.env_kwargs)
        self.agent = run.load_agent(saved, own, ranks) if saved else Agent(spec, own, own.device, ranks)
        if not saved:
            run.begin_with(self.agent, own)
        # Beside a learner on the CPU, collecting has cores of its own: the threads of a matrix product wait for each
        # other, so one that shares its core delays all. Beside a learner on a GPU it has all cores.
        self.background = ThreadPoolExecutor(1) if config.asynchronous else None
        shared = config.asynchronous and config.device == "cpu"
        self.collecting_threads = max(1, config.num_threads // 4) if shared else config.num_threads
        if self.background:
            self.background.submit(lanes.use_threads, self.collecting_threads).result()
            torch.set_num_threads(config.num_threads)
        self.eval_env = envs.make(
            config.eval_env,
            own.num_eval_episodes,
            seed=world_seed(self.seed),
            num_threads=config.num_threads,
            **config.eval_env_kwargs,
        )
        # Beside the learner the collector acts with weights of its own, taken over between rounds.
        self.weights = self.agent.policy() if config.asynchronous else None
        self.dataset, self.collector = dataset, None if dataset else self._collector(spec, saved)
        self.buffer: TrajectoryBuffer = dataset.buffer if dataset else self.collector.buffer  # type: ignore[union-attr]
        self.progress, self.means = Progress(), RunningMean()
        self.evaluation: Evaluation | None = None
        # Of rank 0's own rows.
        measured = config.exploration_metrics and ranks.rank == 0
        env = self.collector.env if self.collector else None
        self.exploration = Exploration.of(config, env, self.eval_env, world_seed(config.seed)) if measured else None
        self.clock = Clock(config, spec.episode_length)
        if saved:
            self._load(saved)
        resume_at = (self.progress.env_steps, self.progress.updates) if saved else None
        self.metrics = MetricsWriter(run_dir, resume_at) if ranks.rank == 0 else None
        self._last_row = dataclasses.replace(self.progress)
        self._warned_of_chance = self._told_to_stop = False

    def run(self) -> None:
        """Alternate collecting and learning, or do both at once, until done or stopped."""
        config, progress = self.config, self.progress
        started = time.monotonic() - progress.wall_time
        while not self.stopping() and not self.done:
            if self.evaluation_due:
                self.evaluate()
                if not self.stopping():
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
                progress.gamma = self.discount() if self.ready else 0.0
            self.learn(collecting)
            progress.env_steps += collecting.result() if collecting else 0
            progress.wall_time = time.monotonic() - started
            if not progress.pending_updates:
                self.log()
        progress.wall_time = time.monotonic() - started
        if self.stopping():
            self.save()

    def stopping(self) -> bool:
        """Whether this rank, or another, was told to stop: all stop after the same update."""
        self._told_to_stop = self._told_to_stop or self.ranks.any(self.stop.is_set())
        return self._told_to_stop

    @property
    def ready(self) -> bool:
        """Whether there is enough in the buffer to learn from: the prefill, and rows that have a successor."""
        config = self.config
        return bool(config.dataset) or self.progress.env_steps >= max(
            config.learning_starts, ROWS_TO_LEARN * config.num_envs
        )

    @property
    def time_left(self) -> float | None:
        """Seconds to the end of the run, as measured so far; None before the first round of updates."""
        return self.clock.time_left(self.progress.position, self.progress.pending_updates)

    @property
    def evaluation_due(self) -> bool:
        """Whether an evaluation interval, or the run, is complete and not yet evaluated."""
        position, evaluated_at, interval = self.progress.position, self.progress.evaluated_at, self.config.eval_interval
        complete = position >= self.config.total or position // interval > evaluated_at // interval
        return complete and position > evaluated_at and not self.progress.pending_updates

    @property
    def done(self) -> bool:
        """Whether all steps and updates were made, and the result evaluated."""
        return self.progress.evaluated_at >= self.config.total

    def collect(self) -> int:
        """One round of env steps; returns their number, of all ranks. None with a data set."""
        config = self.config
        if self.collector is None:
            return 0
        if config.prefill == "uniform" and not self.ready:
            self.collector.policy = UniformPolicy(self.agent.spec.action_dim, [self.seed, self.progress.env_steps])
        else:
            self.collector.policy = self.weights or self.agent
        with self.clock.phase("collect", config.unroll_length * config.num_envs):
            return self.collector.collect(config.unroll_length) * self.ranks.size

    def discount(self) -> float:
        """The discount of the coming round's goals; fitted before the first, on what was collected until then."""
        config, progress = self.config, self.progress
        if config.discount == "scheduled":
            return discount.scheduled(config.gamma_start, config.gamma, progress.position / config.total)
        if config.discount == "fixed":
            return config.gamma
        if not progress.gamma:
            images = envs.spec(config.env, **config.env_kwargs).image is not None
            times = self.ranks.together(lambda: min(discount.mixing_time(self.buffer, images), 1e9))
            return discount.fitted(float(np.median(times)), config.gamma)
        return progress.gamma

    def learn(self, collecting: Future[int] | None) -> None:
        """The pending updates of this round, or as many as are made before a stop; beside `collecting`, if given."""
        progress, config = self.progress, self.config
        if not progress.pending_updates:
            return
        loader = relabelling.loader(
            self.buffer,
            self.own.batch_size,
            config.goal_filter,
            self.agent.columns,
            gamma=progress.gamma,
            goal=config.goals,
            device=self.own.device,
            prefetch=0 if config.device == "cpu" else 4,
            num_batches=progress.pending_updates,
        )
        with loader:
            for batch in loader:
                busy = self.collecting_threads if collecting and not collecting.done() else 0
                torch.set_num_threads(max(1, config.num_threads - busy))
                with self.clock.phase("learn", 1):
                    rows = relabelling.chosen(batch, self.own.batch_size, config.goal_filter)
                    self.means.add(self.agent.update(rows))
                progress.updates += 1
                progress.pending_updates -= 1
                self.reporter.tick(progress, self.time_left)
                if self.stopping():
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
            **({"train/gamma": now.gamma} if now.gamma else {}),
            "speed/updates_per_second": (now.updates - last.updates) / seconds,
        }
        if self.collector:
            row["speed/env_steps_per_second"] = (now.env_steps - last.env_steps) / seconds
        self._last_row = dataclasses.replace(now)
        if self.metrics:
            self.metrics.write(row)
        self.reporter.row(row, self.time_left)
        self._warn_of_chance(row)

    def evaluate(self) -> None:
        """Evaluate on worlds of their own, with starts, goals and noise that no other evaluation of the run has.

        If stopped it stays due, and is made from its start when the run goes on.
        """
        config, progress = self.config, self.progress
        self._check_weights()
        seed = int(np.random.SeedSequence([config.seed, progress.position]).generate_state(1)[0])
        policy = self.agent.evaluation_policy(torch.Generator(self.own.device).manual_seed(seed))
        own: dict[str, Any] = {"stop": self.stop, "ranks": self.ranks}
        try:
            with self.clock.phase("evaluate", 1):
                outcome = evaluate(policy, self.eval_env, seed=self.ranks.seed(seed), **own)
                probes = probe(policy, self.eval_env, seed=world_seed(self.seed), **own) if config.probes else None
                measured = self.exploration.measure(self.buffer, policy, progress.position) if self.exploration else {}
        except Stopped:
            return
        self.evaluation, progress.evaluated_at = outcome, progress.position
        counts = {"env_steps": progress.env_steps, "updates": progress.updates, "wall_time": progress.wall_time}
        if self.metrics:
            more = probes.metrics() if probes else {}
            self.metrics.write({**counts, **self.evaluation.metrics(), **more, **measured})
        self.reporter.evaluated(progress, self.evaluation, probes)

    def save(self) -> None:
        """Write a checkpoint from which the run goes on bit for bit (in synchronous mode on CPU)."""
        ranks = self.ranks
        state = {
            "progress": dataclasses.asdict(self.progress),
            "means": self.means.state_dict(),
            "ranks": ranks.size,
        }
        files: dict[str, Callable[[Path], object]] = {}
        if self.collector:
            files[ranks.part("collector.safetensors")] = checkpoint.writer(
                safetensors.numpy.save_file, self.collector.state_dict
            )
            files[ranks.part("buffer.crlb")] = self.buffer.save
        if self.dataset:
            state["dataset"] = self.dataset.state_dict()
        if ranks.rank == 0:  # the same on all ranks
            files["agent.safetensors"] = checkpoint.writer(safetensors.torch.save_file, self.agent.state_dict)
            if self.exploration:
                state_of = self.exploration.state_dict
                files["exploration.safetensors"] = checkpoint.writer(safetensors.numpy.save_file, state_of)
            files["state.json"] = lambda path: path.write_text(json.dumps(state, indent=1), encoding="utf-8")
        with self.clock.phase("save", 1):
            checkpoint.save(self.run_dir, self.progress.position, files, keep=self.config.keep_checkpoints, ranks=ranks)

    def result(self) -> TrainResult:
        """The outcome so far."""
        progress = self.progress
        return TrainResult(self.run_dir, progress.env_steps, progress.updates, self.evaluation, not self.done)

    def _collector(self, spec: envs.EnvSpec, saved: Path | None) -> Collector:
        """What makes experience: worlds, the goals commanded there, and the buffer that is filled."""
        config, own, ranks = self.config, self.own, self.ranks
        env = envs.make(
            config.env, own.num_envs, seed=self.seed, num_threads=self.collecting_threads, **config.env_kwargs
        )
        stores = self.agent.algorithm.stores(own)
        buffer = (
            run.load_buffer(saved, ranks)
            if saved
            else run.new_buffer(spec, own.num_envs, own.buffer_capacity, self.seed, stores)
        )
        single = np.array(ranks.leads(lambda: self._hard_goal().tolist())) if config.command == "single" else None
        commands = Commands(config.command, buffer, single=single, seed=self.seed)
        acting = self.weights or self.agent
        return Collector(env, acting, buffer, seed=self.seed, commands=commands, stores=stores)

    def _hard_goal(self) -> NDArray[Any]:
        """The one to be commanded for the whole run: of those in evaluation, one episode each, the farthest."""
        return farthest(self.eval_env, world_seed(self.config.seed))

    def _load(self, saved: Path) -> None:
        try:
            if self.collector:
                collector = saved / self.ranks.part("collector.safetensors")
                self.collector.load_state_dict(safetensors.numpy.load_file(collector))
            if self.collector and not self.collector.resumable:
                self.reporter.warn(
                    f"the worlds of {self.config.env} have no state that can be saved: new episodes start here, and "
                    "the run is another than an uninterrupted one, though no worse. All else goes on as it was."
                )
            state = checkpoint.read_json(saved / "state.json")
            self.progress = Progress(**state["progress"])
            self.means.load_state_dict(state["means"], self.own.device)
            if self.dataset:
                self.dataset.load_state_dict(state["dataset"])
            # A run of before these metrics has none.
            if self.exploration and (explored := saved / "exploration.safetensors").is_file():
                self.exploration.load_state_dict(safetensors.numpy.load_file(explored))
        except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
            raise CheckpointError(f"{saved} cannot be loaded: {error}") from None

    def _check_weights(self) -> None:
        """Refuse to go on if the ranks, which all make the same updates, have come apart.

        Raises:
            RankError: naming a rank whose weights are others than those of rank 0.
        """
        if self.ranks.size == 1:
            return
        with torch.no_grad():
            # Sums of the weights' bits as integers: exact in any order.
            weights = (*self.agent.networks.state_dict().values(), self.agent.log_alpha)
            mine = torch.stack([weight.view(torch.int32).sum(dtype=torch.int64) for weight in weights])
        sums = self.ranks.together(mine.tolist)
        for rank, theirs in enumerate(sums):
            if theirs != sums[0]:
                raise RankError(
                    f"rank {rank} has other weights than rank 0 after {self.progress.updates} updates, though all make "
                    "the same: its hardware, or its versions of crl and PyTorch, may differ or fail"
                )

    def _warn_of_chance(self, row: dict[str, float]) -> None:
        loss, chance = row.get("train/contrastive_loss"), self.agent.algorithm.chance_loss(self.config.batch_size)
        if self._warned_of_chance or self.progress.updates < CHANCE_UPDATES or loss is None or chance is None:
            return
        if loss > (1 - CHANCE_MARGIN) * chance:
            self._warned_of_chance = True
            self.reporter.warn(
                f"the critic sits at chance: contrastive loss {loss:.2f} after "
                f"{self.progress.updates} updates, chance is {chance:.2f}. Goals about "
                f"{1 / (1 - min(self.progress.gamma, 0.9999)):.0f} steps ahead tell nothing about the present here: "
                f"the discount (--gamma {self.progress.gamma:g}) does not fit this environment; try a lower one, or "
                "--discount fitted."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.background:
            self.background.shutdown()
        if self.metrics:
            self.metrics.close()
        if self.collector:
            self.collector.env.close()
        self.eval_env.close()


def _check_fits(config: TrainConfig, ranks: Ranks) -> None:
    try:
        sizes.check_fits(run.part(config, ranks))
    except ConfigError as error:
        of_each = f"each of {ranks.size} processes, with as small a part of the settings: " if ranks.size > 1 else ""
        raise ConfigError(f"{of_each}{error}") from None


def _dataset(config: TrainConfig, ranks: Ranks) -> Dataset | None:
    """What a run from a data set learns from: all of it on each rank, which draw other rows."""
    if not config.dataset:
        return None
    spec = envs.spec(config.env, **config.env_kwargs)
    read: list[Dataset] = []
    ranks.together(lambda: read.append(datasets.read(config, spec, ranks.seed(config.seed))))
    return read[0]
