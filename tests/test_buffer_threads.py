"""Writers and samplers at once; the GIL; processes that are forked and spawned."""

import contextlib
import os
import re
import sys
import sysconfig
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from buffer_oracle import EXTRA, columns, make

import crl


def test_no_torn_and_no_foreign_row_under_writers():
    """Two writers lap small rings while three threads sample: every value of a row must tell the same row."""
    buffer = make(8, 8 * 64)
    envs = np.arange(8)
    buffer.add(**columns(envs, 0), episode_start=np.ones(8, bool))
    buffer.add(**columns(envs, 1), episode_start=np.zeros(8, bool))
    stop, errors, sampled = threading.Event(), [], [0]

    def write(first: int, last: int) -> None:
        mine = np.arange(first, last)
        with buffer.writer(first, last) as writer:
            for t in range(2, 90_000, 10):  # Values stay below 2**24: exact in float32.
                if stop.is_set():
                    break
                steps = np.arange(t, t + 10)[:, None] + 0 * mine
                writer.add_rollout(**columns(mine, steps), episode_start=steps % 25 == 0)

    def sample() -> None:
        try:
            while not stop.is_set():
                batch = buffer.sample(2000, columns=EXTRA, goal={"geometric": 1, "uniform": 1})
                row = batch.row
                assert (batch.observation == row[:, None]).all(), "torn"
                assert (batch.action == row[:, None]).all(), "torn"
                assert (batch.next_observation == row[:, None] + 1).all(), "wrong successor"
                assert (batch.goal[:, 0] == row + batch.offset).all(), "wrong goal"
                assert (row % 100_000 // 25 == (row + batch.offset) % 100_000 // 25).all(), "foreign trajectory"
                sampled[0] += len(row)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(i, i + 4)) for i in (0, 4)]
    threads += [threading.Thread(target=sample) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(3)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert not errors, errors[0]
    assert sampled[0] > 10_000
    assert buffer.rows_written > 16 * 64  # The rings were lapped.


def large():
    """Calls that take a while, by name, on a buffer and a file of its own."""
    buffer = make(64, 64 * 1000, sample_threads=1)
    steps = np.arange(1000)[:, None] + 0 * np.arange(64)
    rollout = {**columns(np.arange(64), steps), "episode_start": steps == 0}
    buffer.add_rollout(**rollout)
    out = buffer.sample(100_000)

    def write(path: Path) -> None:
        with buffer.writer(0, 64) as writer:
            writer.add_rollout(**rollout)

    return {
        "sample": lambda path: buffer.sample(100_000, out=out),
        "add_rollout": lambda path: buffer.add_rollout(**rollout),
        "writer": write,
        "save": buffer.save,
        "load": lambda path: crl.TrajectoryBuffer.load(path) if path.exists() else buffer.save(path),
    }


@pytest.mark.parametrize("name", ["sample", "add_rollout", "writer", "save", "load"])
def test_a_long_call_releases_the_gil(name, tmp_path):
    """While the interpreter takes the lock from nobody, another thread moves only where a call gives it up."""
    call = large()[name]
    ticks, done = [0], threading.Event()

    def tick() -> None:
        while not done.is_set():
            ticks[0] += 1
            time.sleep(0)  # Gives the lock back by itself.

    ticker = threading.Thread(target=tick)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000.0)
    try:
        ticker.start()
        moved = 0
        for _ in range(200):  # How often it is its turn is up to the system: once is proof.
            before = ticks[0]
            call(tmp_path / "buffer")
            moved += ticks[0] > before
            if moved >= 3:
                break
        before = ticks[0]
        for _ in range(100_000):
            pass
        assert ticks[0] == before, "the lock is taken from a thread that does not give it up: nothing is shown"
        assert moved >= 3
    finally:
        done.set()
        sys.setswitchinterval(interval)
        ticker.join()


def test_eight_threads_add_sample_and_save(tmp_path):
    """With and without an interpreter lock; importing the extension does not bring it back."""
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        assert not sys._is_gil_enabled()
    buffer = make(4, 4 * 500)
    steps = np.arange(10)[:, None]
    buffer.add_rollout(**columns(np.arange(4), steps + 0 * np.arange(4)), episode_start=(steps + 0 * np.arange(4)) == 0)
    errors, rounds = [], 30

    def write(env: int) -> None:
        with buffer.writer(env, env + 1) as writer:
            for i in range(1, 1 + rounds):
                writer.add_rollout(**columns(np.array([env]), 10 * i + steps), episode_start=steps == 0)

    def sample(number: int) -> None:
        out = buffer.sample(500, columns=EXTRA)
        for _ in range(rounds):
            batch = buffer.sample(500, columns=EXTRA, out=out)
            assert (batch.goal[:, 0] == batch.row + batch.offset).all()
            assert (batch.row % 100_000 // 10 == (batch.row + batch.offset) % 100_000 // 10).all()

    def save(number: int) -> None:
        for _ in range(3):
            with contextlib.suppress(RuntimeError):  # The ring is small enough to be overwritten meanwhile.
                buffer.save(tmp_path / "b")

    def caught(work, number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    work = [*((write, env) for env in range(4)), *((sample, i) for i in range(3)), (save, 0)]
    threads = [threading.Thread(target=caught, args=one) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not errors, errors[0]
    assert buffer.rows_written == 4 * 10 * (1 + rounds)


def test_two_threads_adding_get_a_clear_error_or_take_turns():
    buffer = make(512, 512 * 100)
    envs = np.arange(512)
    row = columns(envs, np.zeros((50, 1), int) + 0 * envs)
    messages = []

    def add() -> None:
        for _ in range(20):
            try:
                buffer.add_rollout(**row, episode_start=np.zeros((50, 512), bool))
            except RuntimeError as error:
                messages.append(str(error))

    threads = [threading.Thread(target=add) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all("another thread is adding" in message for message in messages)
    assert buffer.rows_written == (40 - len(messages)) * 50 * 512


# --- processes -------------------------------------------------------------------------------------------------------

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
may_fork = pytest.mark.filterwarnings("ignore:This process.*fork")


REFUSED = 4
"""The exit status of a child whose `add` was refused."""


def filled():
    """A buffer whose pool of threads is running."""
    buffer = make(2, 2000, sample_threads=2)
    steps = np.arange(500)[:, None] + 0 * np.arange(2)
    buffer.add_rollout(**columns(np.arange(2), steps), episode_start=steps == 0)
    buffer.sample(200_000)
    return buffer


def end_of(child: int, seconds: float = 60.0) -> int:
    """The exit status of a process; it is killed, and the test fails, if it hangs."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        time.sleep(0.002)
    os.kill(child, 9)
    os.waitpid(child, 0)
    pytest.fail("the child hangs")


@forks
@may_fork
@pytest.mark.parametrize("times", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_forked_child_samples_and_writes_while_the_parent_samples(times):
    """The threads of the parent's pool do not come along, nor the one that may hold its lock: nobody waits for them."""
    buffer = filled()
    stop = threading.Event()

    def keep_sampling() -> None:
        out = buffer.sample(160_000)
        while not stop.is_set():
            buffer.sample(160_000, out=out)  # Shared by the pool.

    sampler = threading.Thread(target=keep_sampling)
    sampler.start()
    row = {**columns(np.arange(2), 500), "episode_start": np.zeros(2, bool)}
    try:
        for _ in range(times):
            child = os.fork()
            if child == 0:
                try:
                    buffer.add(**row)
                    batch = buffer.sample(160_000, columns=EXTRA)
                    os._exit(0 if (batch.goal[:, 0] == batch.row + batch.offset).all() and len(buffer) == 1002 else 1)
                finally:
                    os._exit(2)
            assert end_of(child) == 0
    finally:
        stop.set()
        sampler.join()
    assert len(buffer) == 1000  # What the children added is theirs.


@forks
@may_fork
@pytest.mark.parametrize("times", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_child_that_is_forked_while_its_parent_adds_is_refused_at_most(times):
    """What was being written stays so in the child, which says so; whatever else it does, it does not wait."""
    buffer, stop = filled(), threading.Event()
    steps = np.arange(200)[:, None] + 0 * np.arange(2)

    def keep_adding() -> None:
        while not stop.is_set():
            buffer.add_rollout(**columns(np.arange(2), steps), episode_start=steps == 0)
            with buffer.writer(0, 1):
                pass

    adder = threading.Thread(target=keep_adding)
    adder.start()
    row = {**columns(np.arange(2), 500), "episode_start": np.ones(2, bool)}
    ends = []
    try:
        for _ in range(times):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    batch = buffer.sample(1000, columns=EXTRA)
                    assert (batch.goal[:, 0] == batch.row + batch.offset).all()
                    buffer.add(**row)
                    code = 0
                except RuntimeError as error:
                    code = REFUSED if re.match("add: (another thread is adding|writers hold)", str(error)) else 1
                finally:
                    os._exit(code)
            ends.append(os.waitstatus_to_exitcode(end_of(child)))
    finally:
        stop.set()
        adder.join()
    assert set(ends) <= {0, REFUSED}


class FromBuffer:
    """A data set of batches, for torch's DataLoader: of a buffer that came along or a file."""

    def __init__(self, source) -> None:
        self.source = source

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int):
        if isinstance(self.source, Path):
            self.source = crl.TrajectoryBuffer.load(self.source)
        return self.source.sample(160_000 if index % 4 == 0 else 100).goal


@may_fork
@pytest.mark.parametrize("start", [pytest.param("fork", marks=forks), pytest.param("spawn", marks=pytest.mark.slow)])
def test_two_workers_of_a_torch_data_loader(start, tmp_path):
    data = pytest.importorskip("torch").utils.data
    buffer = filled()
    buffer.save(tmp_path / "b")
    source = FromBuffer(buffer if start == "fork" else tmp_path / "b")
    loader = data.DataLoader(source, batch_size=None, num_workers=2, multiprocessing_context=start, timeout=100)
    assert [len(goal) for goal in loader] == [160_000, 100, 100, 100] * 3
    assert len(buffer.sample(200_000).offset) == 200_000
