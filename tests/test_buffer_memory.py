"""What a batch costs in memory: nothing, where it is drawn into the arrays of another.

`rust/replay/tests/allocations.rs` counts what the core itself asks for, which Python does not see.
"""

import gc
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from buffer_oracle import columns, make

RETURNS = {"n_step": 3, "columns": ("n_step_return", "n_step_observation", "n_step_discount")}
SEGMENTS = {"length": 5, "partial": True, "columns": ("next_observation",)}
CALLS = {
    "rows": lambda buffer, size, out: buffer.sample(size, out=out),
    "a mixture, by a dict": lambda buffer, size, out: buffer.sample(size, goal={"uniform": 1, "random": 1}, out=out),
    "many batches": lambda buffer, size, out: buffer.sample(size // 8, num_batches=8, out=out),
    "returns": lambda buffer, size, out: buffer.sample(size, **RETURNS, out=out),
    "segments": lambda buffer, size, out: buffer.sample_segments(size, **SEGMENTS, out=out),
}
BATCH = 4096


def filled():
    buffer = make(4, 4 * 1000, extras={"reward": (), "row": ((), "int64")}, sample_threads=1)
    steps = np.arange(1000)[:, None] + 0 * np.arange(4)
    buffer.add_rollout(**columns(np.arange(4), steps), reward=steps, episode_start=steps % 50 == 0)
    return buffer


def peak_of(call, times):
    """Bytes that Python and NumPy held at most, beyond what they held before, over so many calls."""
    call()
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in range(times):
            call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def resident():
    """Bytes of this process that are in memory."""
    return 4096 * int(Path("/proc/self/statm").read_text().split()[1])


@pytest.mark.parametrize("name", CALLS)
def test_a_batch_that_is_refilled_takes_no_memory(name):
    buffer, call = filled(), CALLS[name]
    peaks = []
    for size in (64, BATCH):
        out = call(buffer, size, None)
        peaks.append(peak_of(lambda size=size, out=out: call(buffer, size, out), 20))
    # The call itself takes names, tuples and numbers, of which the interpreter keeps some. A column would show.
    assert max(peaks) < BATCH * 4
    assert peak_of(lambda: call(buffer, BATCH, None), 2) > BATCH * 4, "a new batch is noticed"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("name", CALLS)
def test_a_process_that_refills_batches_does_not_grow(name):
    buffer, call = filled(), CALLS[name]
    out = call(buffer, BATCH, None)
    for _ in range(20):
        call(buffer, BATCH, out)
    before = resident()
    for _ in range(200):
        call(buffer, BATCH, out)
    # A batch is a quarter of a megabyte and more: one that is kept, of two hundred, would show.
    assert resident() - before < 64 * 1024


@pytest.mark.parametrize("prefetch", [0, 3])
def test_a_loader_keeps_its_slots_and_a_consumer_one_batch(prefetch):
    buffer = filled()
    loader = buffer.loader(BATCH, device=None, prefetch=prefetch)
    slots = [array.ctypes.data for slot in loader._stage.slots for array in slot]
    batch = sum(column.nbytes for _, column in next(iter(loader)).items())

    def take():
        for _ in loader.take(5):
            pass

    # The one that the consumer has, the next one, and on the way no other.
    assert peak_of(take, 20) < 2.5 * batch
    assert [array.ctypes.data for slot in loader._stage.slots for array in slot] == slots
    loader.close()


def test_adding_takes_no_memory():
    buffer, steps = filled(), np.arange(2000)[:, None] + 0 * np.arange(4)
    rows = {**columns(np.arange(4), steps), "reward": steps.astype(np.float32), "episode_start": steps == 0}
    assert peak_of(lambda: buffer.add_rollout(**rows), 20) < rows["episode_start"].nbytes
