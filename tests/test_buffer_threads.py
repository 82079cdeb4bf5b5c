"""Writers and samplers at once; the GIL; fork."""

import os
import threading
import time

import numpy as np
import pytest
from buffer_oracle import EXTRA, columns, make


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


def test_sampling_releases_the_gil():
    buffer = make(4, 4000, sample_threads=1)
    buffer.add_rollout(
        **columns(np.arange(4), np.arange(1000)[:, None] + 0 * np.arange(4)), episode_start=np.zeros((1000, 4), bool)
    )
    inside, ticks = threading.Event(), [0]

    def tick() -> None:
        while not done.is_set():
            ticks[0] += inside.is_set()
            time.sleep(0)

    done = threading.Event()
    out = buffer.sample(2_000_000)
    counter = threading.Thread(target=tick)
    counter.start()
    inside.set()
    buffer.sample(2_000_000, out=out)  # One call, tens of milliseconds at least.
    inside.clear()
    during = ticks[0]
    done.set()
    counter.join()
    assert during > 100


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


@pytest.mark.filterwarnings("ignore:This process.*fork")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_samples_large_batches():
    """The threads of the parent's pool do not come along: the child makes its own, and does not wait for them."""
    buffer = make(2, 2000, sample_threads=2)
    steps = np.arange(500)[:, None] + 0 * np.arange(2)
    buffer.add_rollout(**columns(np.arange(2), steps), episode_start=steps == 0)
    buffer.sample(200_000)
    child = os.fork()
    if child == 0:
        os._exit(0 if len(buffer.sample(200_000).offset) == 200_000 else 1)
    for _ in range(600):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        time.sleep(0.05)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
        pytest.fail("the child hangs")
    assert status == 0
