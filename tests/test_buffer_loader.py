"""The loader: the batches of `sample`, in order, filled ahead; and a clean end, whatever ends it."""

import gc
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from buffer_oracle import columns, make

torch = pytest.importorskip("torch")


def filled():
    buffer = make(3, 300, seed=4, extras={"row": ((), "int64"), "reward": ()})
    steps = np.arange(100)[:, None] + 0 * np.arange(3)
    buffer.add_rollout(**columns(np.arange(3), steps), reward=steps, episode_start=steps % 20 == 0)
    return buffer


def loader_threads():
    return [thread for thread in threading.enumerate() if thread.name == "crl-loader"]


def same(batch, other):
    for (name, one), (_, two) in zip(batch.items(), other.items(), strict=True):
        assert (np.asarray(one.cpu() if isinstance(one, torch.Tensor) else one) == two).all(), name


DEVICES = ["cpu", None, pytest.param("cuda", marks=pytest.mark.gpu)]
PREFETCH = [0, 1, 4]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("prefetch", PREFETCH)
def test_batches_are_those_of_sample_in_order(prefetch, device):
    one, other = filled(), filled()
    with one.loader(16, columns=("row",), prefetch=prefetch, num_batches=9, device=device) as loader:
        batches = list(loader) + list(loader.take(3))
    assert len(batches) == 12
    for batch in batches:
        for _, column in batch.items():
            assert type(column) is np.ndarray if device is None else column.device.type == device
        same(batch, other.sample(16, columns=("row",)))
    assert (one.sample(5).goal == other.sample(5).goal).all()
    assert not loader_threads()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("prefetch", PREFETCH)
def test_segments_and_returns_come_through_it(prefetch, device):
    one, other = filled(), filled()
    segments = {"length": 15, "partial": True, "goal_from": "first", "columns": ("reward",)}
    returns = {"n_step": 3, "discount": 0.9, "columns": ("n_step_return", "n_step_observation")}
    for batch in one.loader(8, prefetch=prefetch, device=device, num_batches=3, **segments):
        same(batch, other.sample_segments(8, **segments))
    for batch in one.loader(8, prefetch=prefetch, device=device, num_batches=3, **returns):
        same(batch, other.sample(8, **returns))


@pytest.mark.parametrize("prefetch", PREFETCH)
def test_what_was_yielded_is_not_refilled(prefetch):
    batches = list(filled().loader(16, prefetch=prefetch, num_batches=20, device=None))
    other = filled()
    for batch in batches:
        same(batch, other.sample(16))


@pytest.mark.parametrize("bound", [None, 10])
@pytest.mark.parametrize("prefetch", [0, 4])
def test_leaving_early_gives_back_what_was_not_delivered(prefetch, bound):
    one, other = filled(), filled()
    for i, _ in enumerate(one.loader(16, prefetch=prefetch, num_batches=bound)):
        if i == 2:
            break
    other.sample(16, num_batches=3)
    assert (one.sample(16).observation == other.sample(16).observation).all()
    assert not loader_threads()


def test_an_exception_in_the_body_ends_the_thread():
    one, other = filled(), filled()

    def train():
        with one.loader(16) as loader:
            for _ in loader:
                raise ArithmeticError

    with pytest.raises(ArithmeticError):
        train()
    assert not loader_threads()
    other.sample(16)
    assert (one.sample(16).observation == other.sample(16).observation).all()


def test_a_forgotten_iterator_ends_its_thread():
    running = iter(filled().loader(16))
    next(running)
    assert len(loader_threads()) == 1
    del running
    gc.collect()
    assert not loader_threads()


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("device", ["cpu", None])
def test_errors_reach_the_consumer(prefetch, device):
    buffer = make(2, 20)
    with pytest.raises(ValueError, match="empty"):
        next(iter(buffer.loader(4, prefetch=prefetch, device=device)))
    assert not loader_threads()
    assert buffer._core.next_batch == 0


def test_an_error_comes_as_it_is_after_the_batches_before_it():
    loader = filled().loader(16, prefetch=3, device=None)
    loader._stage.slots[2].pop()  # An array too few.
    running = iter(loader)
    next(running), next(running)
    with pytest.raises(ValueError, match="out: expected arrays of"):
        next(running)
    assert not loader_threads()


def test_an_error_before_the_first_batch_comes_too():
    loader = filled().loader(16, prefetch=3, device=None)
    for array in loader._stage.slots[1]:
        array.flags.writeable = False
    with pytest.raises(TypeError, match="not writeable"):
        next(iter(loader))
    assert not loader_threads()


def test_the_thread_runs_ahead_and_no_further():
    one, other = filled(), filled()
    running = iter(one.loader(16, prefetch=3, device=None))
    next(running)
    time.sleep(0.2)
    envs = np.arange(3)
    t = np.arange(100, 200)[:, None] + 0 * envs
    one.add_rollout(**columns(envs, t), reward=t, episode_start=t % 20 == 0)  # Everything is overwritten.
    other.sample(16)
    for _ in range(3):
        same(next(running), other.sample(16))
    batch = next(running)
    assert (batch.observation[:, 0] % 100_000 >= 100).all()


class LateCopy:
    """A copy to a device that takes as long as the test wants."""

    def __init__(self):
        self.done = self.waited = False

    def query(self):
        return self.done

    def synchronize(self):
        self.waited = not self.done
        self.done = True


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_no_slot_is_refilled_before_its_copy_is_done(slots):
    """What the GPU's copies rely on, with copies that read the slot only when they are done."""
    one, other = filled(), filled()
    loader = one.loader(16, prefetch=slots, num_batches=12, device=None)
    stage, copies = loader._stage, []
    stage.ahead = slots

    def send(slot):
        arrays, copy = stage.slots[slot], LateCopy()
        expected = [array.copy() for array in arrays]
        copies.append((arrays, expected, copy))
        return lambda: loader._plan.batch(expected), copy

    stage.send = send
    for i, batch in enumerate(loader):
        same(batch, other.sample(16))
        time.sleep(0.01)  # The thread has the time to do wrong.
        for arrays, expected, copy in copies:
            if not copy.done:
                assert all((a == b).all() for a, b in zip(arrays, expected, strict=True))
        if i % 6 == 5:
            for *_, copy in copies:
                copy.done = True
    assert len(copies) == 12
    assert any(copy.waited for *_, copy in copies)


def test_a_new_iteration_ends_the_one_before_and_close_ends_all():
    loader = filled().loader(16)
    first = iter(loader)
    next(first)
    second = iter(loader)
    next(second)
    assert list(first) == []
    assert len(loader_threads()) == 1
    loader.close()
    loader.close()
    assert list(second) == []
    assert not loader_threads()
    with pytest.raises(RuntimeError, match="closed"):
        loader.take(1)


def test_iterations_in_several_threads_share_one_buffer():
    buffer, batches, errors = filled(), [], []

    def consume():
        try:
            for batch in buffer.loader(32, num_batches=50, prefetch=2, device=None, columns=("row",)):
                assert (batch.observation == batch.row[:, None]).all()
                batches.append(batch)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=consume) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors, errors[0]
    assert len(batches) == 150
    assert buffer._core.next_batch == 150


PROGRAM = """
import numpy as np, crl, os, sys
buffer = crl.TrajectoryBuffer(2, 200, 3, 2, 1)
t = np.arange(50)[:, None] + 0 * np.arange(2)
ones = lambda n: np.ones((50, 2, n), np.float32)
buffer.add_rollout(observation=ones(3), action=ones(2), achieved_goal=ones(1), episode_start=t == 0)
loader = buffer.loader(16, device=None)
running = iter(loader)
next(running)
"""
ENDS = {
    "the end of the program": "",
    "sys.exit": "sys.exit(0)",
    "an exception": "sys.excepthook = lambda *_: print('done'); 1 / 0",
    "os._exit": "os._exit(0)",
    "a cycle": "running.__class__; cycle = [loader, running]; cycle.append(cycle); del loader, running",
    "no torch": "assert 'torch' not in sys.modules",
}


@pytest.mark.parametrize("end", ENDS)
def test_the_interpreter_exits_while_a_loader_runs(end):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM + ENDS[end]], capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    assert done.returncode == (1 if end == "an exception" else 0)


@pytest.mark.filterwarnings("ignore:This process.*fork")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_is_told_and_may_begin_anew():
    buffer, other = filled(), filled()
    running = iter(buffer.loader(16, device=None))
    next(running)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            next(running)
        except RuntimeError as error:
            fresh = len(list(buffer.loader(16, device=None, num_batches=5))) == 5
            code = 0 if "forked" in str(error) and fresh else 2
        finally:
            os._exit(code)
    deadline = time.monotonic() + 30
    while not (status := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            pytest.fail("the child hangs")
        time.sleep(0.02)
    assert status[1] == 0
    other.sample(16)
    same(next(running), other.sample(16))  # The parent goes on.


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"prefetch": -1}, "prefetch"),
        ({"num_batches": -1}, "num_batches"),
        ({"gamma": 2.0}, "gamma"),
        ({"batch_size": 0}, "batch_size"),
        ({"partial": True}, "give their length"),
        ({"goal_from": "first"}, "give their length"),
        ({"length": 5, "n_step": 2}, "n_step: not with length"),
        ({"length": 1000}, "length: expected 1 to 99"),
        ({"n_step": 2}, "n_step: ask for"),
    ],
)
def test_bad_arguments_are_refused_when_it_is_made(options, match):
    with pytest.raises(ValueError, match=match):
        filled().loader(**({"batch_size": 4} | options))


def test_tensors_need_torch_and_arrays_do_not(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="device=None gives arrays"):
        filled().loader(4)
    assert len(next(iter(filled().loader(4, device=None))).offset) == 4
