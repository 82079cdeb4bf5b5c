"""The loader: the batches of `sample`, in order, and a clean end."""

import threading

import numpy as np
import pytest
from buffer_oracle import columns, make

torch = pytest.importorskip("torch")


def filled():
    buffer = make(3, 300, seed=4)
    steps = np.arange(100)[:, None] + 0 * np.arange(3)
    buffer.add_rollout(**columns(np.arange(3), steps), episode_start=steps % 20 == 0)
    return buffer


def loader_threads():
    return [thread for thread in threading.enumerate() if thread.name == "crl-loader"]


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_batches_are_those_of_sample_in_order(prefetch, device):
    one, other = filled(), filled()
    with one.loader(16, columns=("row",), prefetch=prefetch, num_batches=9, device=device) as loader:
        batches = list(loader) + list(loader.take(3))
    assert len(batches) == 12
    for batch in batches:
        for (name, tensor), (_, array) in zip(batch.items(), other.sample(16, columns=("row",)).items(), strict=True):
            assert tensor.device.type == device
            assert (tensor.cpu().numpy() == array).all(), name
    assert (one.sample(5).goal == other.sample(5).goal).all()
    assert not loader_threads()


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


@pytest.mark.parametrize("prefetch", [0, 2])
def test_errors_reach_the_consumer(prefetch):
    buffer = make(2, 20)
    with pytest.raises(ValueError, match="empty"):
        next(iter(buffer.loader(4, prefetch=prefetch)))
    assert not loader_threads()


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


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"prefetch": -1}, "prefetch"),
        ({"num_batches": -1}, "num_batches"),
        ({"gamma": 2.0}, "gamma"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_bad_arguments_are_refused_when_it_is_made(options, match):
    with pytest.raises(ValueError, match=match):
        filled().loader(**({"batch_size": 4} | options))
