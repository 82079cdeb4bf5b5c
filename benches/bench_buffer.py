"""How fast the buffer samples, takes rows in and saves, beside others: `pytest benches/bench_buffer.py`.

The workloads, the samplers and what is done with them are those of `crl bench buffer` (`crl.bench`), which takes turns
and prints shares; compare within a group here. `rows_per_cpu_second` counts processor time, so a busy neighbour
matters less. Libraries join in with `-m ""`, where they are installed.
"""

import functools
import math
import time

import pytest

from crl.bench import load, suite
from crl.bench.peers import PEERS, installed
from crl.bench.workloads import WORKLOADS, History

large = functools.partial(pytest.param, marks=pytest.mark.large)
SIZES = [
    ("ant", 10_000),
    large("ant", 100_000),
    large("ant", 1_000_000),
    large("ant", 10_000_000),
    ("humanoid", 10_000),
    large("humanoid", 100_000),
    large("humanoid", 1_000_000),
    ("image", 1_000),
    large("image", 100_000),
]
OTHERS = [pytest.param(peer, id=peer.name, marks=pytest.mark.peers) for peer in PEERS]
LOADS = {"threads": load.threads, "mixed": load.mixed, "snapshot": load.snapshot}
SAMPLERS = [pytest.param(sampler, id=sampler.name) for sampler in suite.own_samplers()] + OTHERS


@functools.lru_cache(maxsize=1)
def history(workload, rows):
    return History(WORKLOADS[workload], rows)


@pytest.fixture(scope="module")
def filled(sampler, workload, rows):
    """The sampler with the rows in it. Fixtures of a module group its tests, so only one is alive."""
    if sampler in PEERS and (not installed(sampler) or rows > suite.PEER_ROWS):
        pytest.skip("not installed, or takes too long to fill")
    if workload == "image" and not sampler.images:
        pytest.skip("holds no goals beside images")
    return sampler(history(workload, rows))


@pytest.mark.parametrize(("workload", "rows"), SIZES, scope="module")
@pytest.mark.parametrize("sampler", SAMPLERS, scope="module")
@pytest.mark.parametrize("batch_size", [256, 1024, large(8192)])
def test_sample(benchmark, workload, rows, sampler, filled, batch_size):
    draw = filled.prepare(batch_size)
    suite.check(sampler.name, draw(), batch_size)
    calls = 1 if sampler in PEERS or sampler.batches > 1 else 2**13 // batch_size

    def run():
        for _ in range(calls):
            draw()

    rounds = 15
    benchmark.group = f"sample {workload}, {rows:,} rows, batch {batch_size}"
    begun = time.process_time()
    benchmark.pedantic(run, rounds=rounds, warmup_rounds=1)
    drawn = (rounds + 1) * calls * sampler.batches * batch_size
    benchmark.extra_info["rows_per_cpu_second"] = round(drawn / (time.process_time() - begun))


@pytest.mark.parametrize("workload", ["ant", large("humanoid"), large("image")])
@pytest.mark.parametrize("lead", [(256,), (62, 512)], ids=["add 256", "add_rollout 62 x 512"])
def test_add(benchmark, workload, lead):
    add, _, _ = suite.adding(WORKLOADS[workload], lead)
    benchmark.group = f"add, {workload}"
    benchmark.extra_info["rows_a_call"] = math.prod(lead)
    benchmark(add)


@pytest.mark.parametrize(("part", "rows"), [(part, 10_000) for part in LOADS] + [large(part, 10**6) for part in LOADS])
def test_load(benchmark, part, rows):
    """Two threads, four samplers beside a writer, and files: what they measure is in `extra_info`."""
    measure = LOADS[part]
    results = benchmark.pedantic(lambda: measure(History(WORKLOADS["ant"], rows), rows < 10**6), rounds=1)
    for result in results:
        benchmark.extra_info[f"{result.case}: {result.who}"] = f"{result.value:.3g} {result.unit}"
