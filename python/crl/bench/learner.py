"""What `crl bench learner` runs: updates beside the matrix products they are made of and others' updates, their phases,
and what an update takes in memory and until the first one is made.
"""

import dataclasses
import gc
import importlib
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from crl import sizes
from crl.adam import Adam
from crl.batch import Batch
from crl.bench.learner_peers import CONTENDERS, Contender, Ours, Problem, TunedTorch, unable
from crl.bench.measure import ROUNDS, Result, Timing, in_turns, rates
from crl.bench.suite import SHARE_OF_MEMORY, Say
from crl.bench.workloads import WORKLOADS, History
from crl.config import TrainConfig
from crl.memory import forget_peak, free_device_memory, free_memory, peak_resident_memory, resident_memory
from crl.run import resolve

PARTS = ("update", "phases", "memory")
DEPTHS = (4, 16, 64, 256, 1024)
SMALL = 256
"""Rows and columns of the small matrix product: those of a layer at the published width and 256 rows."""
LARGE = {"cpu": 2048, "cuda": 8192}
TOLERANCE = {"float32": 1e-4, "tf32": 1e-2, "bf16": 1e-2}
"""How far, relatively, anybody's losses may be from ours at equal weights."""
AFTER_A_STEP = 10
"""How many times as far after one update, whose steps are of one size wherever a gradient is almost zero."""
PHASES = ("sample", "copy", "actor", "critic", "optimizer")
SPIN = """
import os
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(10**6):
        pass
"""
"""A process that keeps a core busy, until its parent is gone."""


def settings(depth: int, width: int, batch_size: int, device: str, precision: str) -> TrainConfig:
    """The published update, of the ant's sizes."""
    return resolve(
        TrainConfig(
            env="ant",
            depth=depth,
            width=width,
            batch_size=batch_size,
            device=device,
            precision=precision,
            network="residual",
            actor_goals="future",
            initial_alpha=1.0,
            actor_ema=0.0,
            target_entropy_scale=0.5,
            learning_rate=3e-4,
        )
    ).config


def run(
    parts: Sequence[str],
    configs: Sequence[Sequence[TrainConfig]],
    *,
    with_peers: bool,
    quick: bool,
    say: Say,
    busy: int = 0,
) -> Iterator[list[Result]]:
    """Everything asked for: a list of figures for each part of a group of settings that differ in their depth alone.

    All beside so many other processes that keep a core `busy` each.

    What does not fit into the memory, and who cannot take part, is left out, and `say` is told.
    """
    for group in configs:
        fitting = [config for config in group if _fits(config, say)]
        for part, measure in (("update", update), ("phases", phases), ("memory", memory)):
            results = []
            for config in fitting if part in parts else ():
                say(f"{part}: {_told(config)}")
                chosen = contenders(config, with_peers, say) if part != "phases" else [Ours.name]
                with neighbours(busy):
                    found = measure(config, chosen, quick, say)
                beside = f", beside {busy} busy" if busy else ""
                results += [replace(result, workload=result.workload + beside) for result in found]
            if results:
                yield results


@contextmanager
def neighbours(busy: int) -> Iterator[None]:
    """So many other processes of the same priority that compute without a pause."""
    with ExitStack() as stack:
        for _ in range(busy):
            process = stack.enter_context(subprocess.Popen([sys.executable, "-I", "-S", "-c", SPIN]))
            stack.callback(process.kill)
        yield


def _told(config: TrainConfig) -> str:
    return f"depth {config.critic_depth}, width {config.width}, {config.batch_size} rows"


def _headings(config: TrainConfig, benchmark: str) -> dict[str, Any]:
    workload = f"width {config.width}, {config.device}, {config.precision}"
    return {"benchmark": benchmark, "workload": workload, "rows": config.batch_size, "case": f"depth {config.depth}"}


def _fits(config: TrainConfig, say: Say) -> bool:
    free = free_memory() if config.device == "cpu" else free_device_memory(config.device)
    need = len(CONTENDERS) * sizes.of(config).on_device
    if need > SHARE_OF_MEMORY * free:
        say(f"left out: {_told(config)}: takes {sizes.readable(need)}, {sizes.readable(free)} are free")
    return need <= SHARE_OF_MEMORY * free


def contenders(config: TrainConfig, with_peers: bool, say: Say) -> list[str]:
    """The names of those who take part: we, PyTorch's own modules, and JAX if others are wanted and it is there."""
    chosen = [Ours.name, TunedTorch.name]
    for name, who in CONTENDERS.items():
        if name in chosen or not with_peers:
            continue
        if reason := unable(who, config):
            say(f"left out: {name}, {_told(config)}: {reason}")
        else:
            chosen.append(name)
    return chosen


# --- updates ----------------------------------------------------------------------------------------------------------


def update(config: TrainConfig, chosen: Sequence[str], quick: bool, say: Say) -> list[Result]:
    """Updates a second, and in turns with them matrix products: operations a second, as counted for our update."""
    problem = Problem(config)
    made = {name: CONTENDERS[name](problem) for name in chosen}
    check(made, config.precision)
    # On a GPU several updates are under way before anybody waits, as in a run.
    count = 1 if config.device == "cpu" else 20

    def updates(who: Contender) -> Callable[[], None]:
        def call() -> None:
            for _ in range(count):
                who.update()
            who.wait()

        return call

    large = LARGE["cpu" if config.device == "cpu" else "cuda"] // (4 if quick else 1)
    limits = {f"matrix product {size}³": _product(size, config) for size in (SMALL, large)}
    calls = {**{name: updates(who) for name, who in made.items()}, **limits}
    work = sizes.of(config).flop
    few = quick or (config.device == "cpu" and work > 5e10)  # an update takes seconds
    timings = in_turns(calls, rounds=3 if few else ROUNDS)
    own = {name: timings[name].of_one(count) for name in made}
    others = tuple(name for name in made if name != Ours.name)
    headings = _headings(config, "update")
    results = rates(own, 1, clock="wall", beside=others, unit="updates / s", **headings)
    operations = {name: (work, timing) for name, timing in own.items()}
    for name, size in zip(limits, (SMALL, large), strict=True):
        operations[name] = (2 * size**3, timings[name].of_one(_products(size)))
    return results + _speeds(operations, tuple(limits), _headings(config, "operations"))


def _products(size: int) -> int:
    """How many are a turn's work: as many operations as twenty small ones, or one product."""
    return max(1, 20 * SMALL**3 // size**3)


def _product(size: int, config: TrainConfig) -> Callable[[], None]:
    """Products of square matrices, in the precision of the networks."""
    kind = torch.bfloat16 if config.precision == "bf16" else torch.float32
    x, y = (torch.randn(size, size, device=config.device, dtype=kind) for _ in range(2))
    out = torch.empty_like(x)

    def call() -> None:
        for _ in range(_products(size)):
            torch.mm(x, y, out=out)
        if config.device != "cpu":
            torch.cuda.synchronize(config.device)

    return call


def _speeds(
    operations: dict[str, tuple[int, Timing]], beside: tuple[str, ...], headings: dict[str, Any]
) -> list[Result]:
    """GFLOP a second, and as a multiple of those of `beside` in the same rounds."""
    speeds = {name: work / np.array(timing.wall) / 1e9 for name, (work, timing) in operations.items()}
    results = []
    for who, mine in speeds.items():
        low, median, high = np.percentile(mine, (25, 50, 75)).tolist()
        ratios = {other: float(np.median(mine / speeds[other])) for other in beside}
        results.append(Result(who=who, value=median, unit="GFLOP / s", low=low, high=high, ratios=ratios, **headings))
    return results


def check(made: dict[str, Contender], precision: str) -> None:
    """Raise RuntimeError unless everybody's losses are those of the first, at equal weights and after one update."""
    tolerance = TOLERANCE[precision]
    for number in range(2):
        losses = {name: [float(loss) for loss in who.update(number)] for name, who in made.items()}
        expected = next(iter(losses.values()))
        for name, found in losses.items():
            if not np.allclose(found, expected, rtol=tolerance * (AFTER_A_STEP if number else 1)):
                raise RuntimeError(f"{name}: losses of critic and actor are {found}, expected {expected}")


# --- phases -----------------------------------------------------------------------------------------------------------


def phases(config: TrainConfig, chosen: Sequence[str], quick: bool, say: Say) -> list[Result]:
    """Shares of the median times of sampling a batch and learning from it, all waited for at each border.

    The borders within an update are seen from outside: the end of its first backward pass, the actor's, and the
    beginning of the optimizer's step. Psi of the goals, which both losses use, is made first and counts as the actor's;
    the metrics count as the critic's. Where an update is not made so, its phases are left out. A captured update has no
    borders to be seen: here it is made by plain calls.
    """
    agent = Problem(dataclasses.replace(config, graphs=False)).agent
    buffer = History(WORKLOADS["ant"], 10_000 if quick else 100_000).buffer
    batch = buffer.sample(config.batch_size)
    marks: list[float] = []

    def mark() -> None:
        if config.device != "cpu":
            torch.cuda.synchronize(config.device)
        marks.append(time.perf_counter())

    rounds = []
    warming = 3
    for _ in range(warming + (3 if quick else ROUNDS)):
        marks.clear()
        mark()
        buffer.sample(config.batch_size, out=batch)
        mark()
        o, a, g, k = (torch.from_numpy(array).to(config.device) for _, array in batch.items())
        tensors = Batch(o, a, g, k)
        mark()
        with _borders(mark) as passes:
            agent.update(tensors)
        mark()
        if len(passes) != 2 or len(marks) != 1 + len(PHASES):
            say(f"left out: phases, {_told(config)}: this update is not two backward passes and a step of Adam")
            return []
        rounds.append(np.diff(marks))
    seconds = np.percentile(rounds[warming:], (25, 50, 75), axis=0)
    low, median, high = (100 * seconds / seconds[1].sum()).tolist()
    headings = {**_headings(config, "phases"), "unit": "% of the time", "ratios": {}}
    return [
        Result(who=who, value=middle, low=below, high=above, **headings)
        for who, below, middle, above in zip(PHASES, low, median, high, strict=True)
    ]


@contextmanager
def _borders(mark: Callable[[], None]) -> Iterator[list[None]]:
    """Mark the end of the first backward pass inside and the beginning of Adam's step; gives a list of all passes.

    On one thread: two would take the actor's side and the critic's at the same time.
    """
    backward, step, passes = torch.autograd.backward, Adam.step, list[None]()

    def marked_backward(*arguments: Any, **more: Any) -> None:
        backward(*arguments, **more)
        passes.append(None)
        if len(passes) == 1:
            mark()

    def marked_step(self: Adam, skip: torch.Tensor | None = None) -> None:
        mark()
        step(self, skip)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with patch.object(torch.autograd, "backward", marked_backward), patch.object(Adam, "step", marked_step):
        try:
            yield passes
        finally:
            torch.set_num_threads(threads)


# --- memory -----------------------------------------------------------------------------------------------------------


def memory(config: TrainConfig, chosen: Sequence[str], quick: bool, say: Say) -> list[Result]:
    """The most memory that somebody takes, and seconds from nothing to the end of the first update.

    Each in a process of its own, as memory that was given back is seldom given back to the system. Libraries are
    imported before. On a GPU it is the memory of its allocator, else what the process has in RAM.
    """
    results = []
    for name in chosen:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as child:
            try:
                seconds, taken = child.submit(_first_updates, name, config).result()
            except BrokenProcessPool:
                say(f"left out: {name}, {_told(config)}: its process was ended, as when memory runs out")
                continue
        for benchmark, value, unit in (("memory", taken / 1e6, "MB"), ("start", seconds, "s to the first update")):
            headings = {**_headings(config, benchmark), "unit": unit, "ratios": {}}
            results.append(Result(who=name, value=value, low=value, high=value, **headings))
    return results


def _first_updates(name: str, config: TrainConfig) -> tuple[float, int]:
    """Seconds until the first update is done, and bytes that three take at most."""
    importlib.import_module(CONTENDERS[name].module)
    on_gpu = config.device != "cpu"
    before, problem = resident_memory(), Problem(config)
    if name != Ours.name:
        _ = problem.noises  # Made before the clock starts, as are the weights: our agent is no part of the others.
    started = time.perf_counter()
    who = CONTENDERS[name](problem)
    made = time.perf_counter() - started
    del problem
    gc.collect()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(config.device)
    forget_peak()
    started = time.perf_counter()
    who.update()
    who.wait()
    first = time.perf_counter() - started
    for _ in range(2):
        who.update()
    who.wait()
    return made + first, who.peak_device_memory() if on_gpu else peak_resident_memory() - before
