"""What `crl bench buffer` runs: sampling, adding, two threads, both at once, and files."""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from crl.bench.load import COPY, mixed, snapshot, threads
from crl.bench.measure import ROUNDS, Result, in_turns, rates, warm
from crl.bench.peers import PEERS, Peer, installed
from crl.bench.samplers import GatherLimit, NumbaSampler, NumpySampler, Ours, OursWithNext, Sampler, TunedLimit
from crl.bench.workloads import EPISODE, WORKLOADS, Array, History, Workload, empty_buffer
from crl.memory import free_memory

PARTS = ("sample", "add", "threads", "mixed", "snapshot")
PEER_ROWS = 1_000_000
"""Rows up to which libraries are compared: filling them with more takes minutes."""
SHARE_OF_MEMORY = 0.7
"""Of the free memory, what a comparison may take."""
COPIES = 1 + 2 * Ours.memory
"""Of the columns, without any library's: the history's and two buffers', or ours and the limit's."""
BESIDE = (GatherLimit.name, TunedLimit.name, NumpySampler.name)
RING_BYTES = 2**29
"""Of a ring that rows are added to, at most, or else two calls' rows."""
SPEED = "million rows / CPU s"

Say = Callable[[str], None]


def own_samplers() -> list[type[Sampler]]:
    """The limits, ours, and what NumPy and, where installed, Numba make of it."""
    numba: list[type[Sampler]] = [NumbaSampler] if installed(NumbaSampler) else []
    return [GatherLimit, TunedLimit, Ours, OursWithNext, NumpySampler, *numba]


def run(
    parts: Sequence[str],
    workloads: Sequence[str],
    rows: Sequence[int],
    batch_sizes: Sequence[int],
    *,
    with_peers: bool,
    quick: bool,
    say: Say,
) -> Iterator[list[Result]]:
    """Everything asked for: a list of figures for each part of a workload, as they come.

    What does not fit into the memory, and who is not installed, is left out, and `say` is told.
    """
    rounds = 3 if quick else ROUNDS
    for name in workloads:
        workload = WORKLOADS[name]
        fitting = [count for count in rows if _fits(workload, count, say)]
        if "sample" in parts:
            for count in fitting:
                chosen = contenders(workload, count, with_peers, say)
                yield sample(workload, count, batch_sizes, chosen, rounds=rounds, say=say)
        if "add" in parts:
            say(f"{name}: adding")
            yield add(workload, rounds=rounds)
        for part, measure in (("threads", threads), ("mixed", mixed), ("snapshot", snapshot)):
            if part in parts and fitting:
                say(f"{name}, {fitting[0]:,} rows: {part}")
                yield measure(History(workload, fitting[0]), quick)


def _fits(workload: Workload, rows: int, say: Say) -> bool:
    need, free = COPIES * workload.row_bytes * rows, free_memory()
    if need > SHARE_OF_MEMORY * free:
        say(f"left out: {workload.name}, {rows:,} rows: takes {need / 1e9:.0f} GB, {free / 1e9:.0f} GB are free")
    return need <= SHARE_OF_MEMORY * free


def contenders(workload: Workload, rows: int, with_peers: bool, say: Say) -> list[type[Sampler]]:
    """Who samples, as memory allows."""
    chosen = own_samplers()
    budget = SHARE_OF_MEMORY * free_memory() - COPIES * workload.row_bytes * rows
    for peer in PEERS if with_peers else ():
        need = peer.memory * workload.row_bytes * rows
        if not installed(peer):
            reason = "not installed"
        elif rows > PEER_ROWS:
            reason = f"takes minutes to hold more than {PEER_ROWS:,}"
        elif np.dtype(workload.dtype) == np.uint8 and not peer.images:
            reason = "its goals are a part of the observation"
        elif need > budget:
            reason = f"takes {need / 1e9:.0f} GB more"
        else:
            budget -= need
            chosen.append(peer)
            continue
        say(f"left out: {workload.name}, {rows:,} rows, {peer.name}: {reason}")
    return chosen


def sample(
    workload: Workload,
    rows: int,
    batch_sizes: Sequence[int],
    chosen: Sequence[type[Sampler]],
    *,
    rounds: int = ROUNDS,
    say: Say,
) -> list[Result]:
    """Ready batches, everybody in turns; and how fast each library took the rows in."""
    history = History(workload, rows)
    told: dict[str, Any] = {"workload": workload.name, "rows": history.rows, "unit": SPEED}
    samplers: dict[str, Sampler] = {}
    results: list[Result] = []
    for make in chosen:
        say(f"{workload.name}, {history.rows:,} rows: filling {make.name}")
        sampler = samplers[make.name] = make(history)
        if isinstance(sampler, Peer):
            speed = sampler.added / 1e6
            spread: dict[str, Any] = {"value": speed, "low": speed, "high": speed, "ratios": {}}
            results.append(Result(benchmark="add", case="as it takes them", who=make.name, **spread, **told))
    for sampler in samplers.values():
        largest = max(batch_sizes)
        warm(sampler.prepare(largest), 2 * history.rows // largest, seconds=1)
    for batch_size in batch_sizes:
        say(f"{workload.name}, {history.rows:,} rows: batches of {batch_size}")
        calls = {name: sampler.prepare(batch_size) for name, sampler in samplers.items()}
        for name, draw in calls.items():
            check(name, draw(), batch_size)
        timings = in_turns(calls, rounds=rounds)
        timings = {name: timing.of_one(samplers[name].batches) for name, timing in timings.items()}
        case = f"batch {batch_size}"
        results += rates(timings, batch_size / 1e6, beside=BESIDE, benchmark="sample", case=case, **told)
    return results


def check(name: str, batch: tuple[Any, Any, Any], batch_size: int) -> None:
    """Raise RuntimeError unless there are `batch_size` rows and each one's goal is less than a trajectory ahead."""
    observation, action, goal = (np.asarray(x).reshape(len(x), -1) for x in batch)
    ahead = goal[:, 0] - action[:, 0]
    if len(observation) != batch_size or not ((ahead >= 0) & (ahead < EPISODE)).all():
        raise RuntimeError(
            f"{name}: {len(observation)} rows for {batch_size}, goals {ahead.min():g} to {ahead.max():g} ahead"
        )


def add(workload: Workload, *, rounds: int = ROUNDS) -> list[Result]:
    """Rows into a full ring: single steps of 256 environments, and rollouts of 62 steps of 512.

    Beside it a copy alone: NumPy's assignment into arrays laid out as what comes in.
    """
    return [result for lead in ((256,), (62, 512)) for result in _add(workload, lead, rounds)]


def _add(workload: Workload, lead: tuple[int, ...], rounds: int) -> list[Result]:
    call, copy, capacity = adding(workload, lead)
    return rates(
        in_turns({Ours.name: call, COPY: copy}, rounds=rounds),
        math.prod(lead) / 1e6,
        beside=(COPY,),
        benchmark="add",
        workload=workload.name,
        rows=capacity,
        case=f"add_rollout {lead[0]} x {lead[1]}" if len(lead) > 1 else f"add {lead[0]}",
        unit=SPEED,
    )


def adding(workload: Workload, lead: tuple[int, ...]) -> tuple[Callable[[], None], Callable[[], None], int]:
    """Adding rows of shape `lead`, [envs] or [steps, envs], to a full ring; copying them alone; rows of the ring."""
    *rollout, num_envs = lead
    steps = math.prod(rollout)
    calls = max(2, min(1000, RING_BYTES // (workload.row_bytes * num_envs)) // steps)
    capacity = calls * steps * num_envs
    rng = np.random.default_rng(0)
    columns: dict[str, Array] = {
        "observation": rng.integers(0, 255, (*lead, *workload.observation), np.uint8).astype(workload.dtype),
        "action": rng.random((*lead, workload.action), np.float32),
        "achieved_goal": rng.random((*lead, workload.goal), np.float32),
    }
    buffer = empty_buffer(workload, num_envs, capacity)
    add = buffer.add_rollout if rollout else buffer.add
    call = functools.partial(add, **columns, episode_start=np.zeros(lead, np.bool_))
    ring = {name: np.empty((calls, *column.shape), column.dtype) for name, column in columns.items()}
    turns = itertools.cycle(range(calls))

    def copy() -> None:
        turn = next(turns)
        for name, column in columns.items():
            ring[name][turn] = column

    for _ in range(calls):  # Memory is taken as rows come in; measured is what comes after.
        call()
        copy()
    return call, copy, capacity
