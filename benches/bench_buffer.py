"""How fast the buffer samples, beside a good NumPy sampler in the same run: `pytest benches/bench_buffer.py`.

Workload A is an ant's (observation 29, action 8, goal 2; 256 envs x 4000 rows), B a humanoid's (268, 17, 3;
256 x 1000), both with trajectories of 1000 rows and one thread. `rows_per_cpu_second` counts processor time, so a
busy neighbour matters less; compare the two of one group.
"""

import time

import numpy as np
import pytest

import crl

WORKLOADS = {"A": (256, 4000, 29, 8, 2), "B": (256, 1000, 268, 17, 3)}
BATCHES = (256, 1024, 8192)
EPISODE = 1000
GAMMA = 0.99


class NumpySampler:
    """Flat arrays, `take` into memory that is kept, SFC64, one logarithm a row: the same law as ours."""

    def __init__(self, envs: int, steps: int, *widths: int) -> None:
        self.rng = np.random.Generator(np.random.SFC64(0))
        self.columns = [self.rng.random((envs * steps, width), np.float32) for width in widths]
        self.episodes = envs * steps // EPISODE
        self.mass = 1 - GAMMA ** np.arange(EPISODE)

    def allocate(self, batch_size: int) -> list[np.ndarray]:
        return [np.empty((batch_size, column.shape[1]), np.float32) for column in self.columns] + [
            np.empty(batch_size, np.int32)
        ]

    def sample(self, batch_size: int, out: list[np.ndarray]) -> None:
        episode, t = np.divmod(self.rng.integers(0, self.episodes * (EPISODE - 1), batch_size), EPISODE - 1)
        row = episode * EPISODE + t
        mass = self.mass[EPISODE - 1 - t]
        out[3][:] = 1 + np.log1p(-self.rng.random(batch_size) * mass) * (1 / np.log(GAMMA))
        for column, index, memory in zip(self.columns, (row, row, row + out[3]), out, strict=False):
            column.take(index, 0, memory, "clip")


def ours(envs: int, steps: int, *widths: int) -> crl.TrajectoryBuffer:
    buffer = crl.TrajectoryBuffer(envs, envs * steps, *((width,) for width in widths), sample_threads=1)
    rng = np.random.default_rng(0)
    names = ("observation", "action", "achieved_goal")
    rollout = {name: rng.random((100, envs, width), np.float32) for name, width in zip(names, widths, strict=True)}
    for first in range(0, steps, 100):
        starts = np.zeros((100, envs), bool)
        starts[0] = first % EPISODE == 0
        buffer.add_rollout(**rollout, episode_start=starts)
    return buffer


@pytest.fixture(scope="module", params=WORKLOADS)
def samplers(request):
    return {"crl": ours(*WORKLOADS[request.param]), "numpy": NumpySampler(*WORKLOADS[request.param])}


@pytest.mark.parametrize("batch_size", BATCHES)
@pytest.mark.parametrize("who", ["crl", "numpy"])
def test_sample(benchmark, samplers, who, batch_size):
    sampler = samplers[who]
    out = sampler.sample(batch_size) if who == "crl" else sampler.allocate(batch_size)
    calls = max(1, 65_536 // batch_size)

    def run() -> None:
        for _ in range(calls):
            sampler.sample(batch_size, out=out)

    begun = time.process_time()
    rounds = 15
    benchmark.pedantic(run, rounds=rounds, warmup_rounds=1)
    rows = (rounds + 1) * calls * batch_size
    benchmark.group = f"sample {batch_size}"
    benchmark.extra_info["rows_per_cpu_second"] = round(rows / (time.process_time() - begun))


@pytest.mark.parametrize("rollout", [1, 62])
def test_add(benchmark, rollout):
    buffer = ours(*WORKLOADS["A"])
    shape = (rollout, 256) if rollout > 1 else (256,)
    names = ("observation", "action", "achieved_goal")
    columns = {name: np.ones((*shape, width), np.float32) for name, width in zip(names, (29, 8, 2), strict=True)}
    add = buffer.add_rollout if rollout > 1 else buffer.add
    benchmark.pedantic(
        lambda: add(**columns, episode_start=np.zeros(shape, bool)), rounds=50, iterations=5, warmup_rounds=2
    )
    benchmark.group = f"add {rollout} x 256 rows"
