"""Two lanes: what is divided between them is the same as the whole, and a lane is not divided again."""

from collections.abc import Callable, Iterator

import pytest
import torch
from test_networks import both_networks, generator, gradients

from crl import lanes


@pytest.fixture(autouse=True)
def threads() -> Iterator[Callable[[int], None]]:
    """`torch.set_num_threads`, put back after the test."""
    count = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(count)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_halves_of_the_rows_are_the_whole(threads: Callable[[int], None], rows: int, recompute: bool) -> None:
    stacked, plain = both_networks(8, recompute=recompute)
    stacked.watched = []
    x, upstream = (torch.randn(rows, dim, generator=generator(2)) for dim in (7, 5))
    norms = {}
    for count in (2, 1, 2):  # each takes the memory of the one before
        threads(count)
        actual, expected = gradients(stacked, x, upstream), gradients(plain, x, upstream)
        for name, value in expected.items():
            torch.testing.assert_close(actual[name], value, rtol=1e-4, atol=1e-4)
        norms[count] = [float(norm) for norm in stacked.watched]
    assert norms[1] == pytest.approx(norms[2])


def test_a_lane_is_not_divided_again(threads: Callable[[int], None]) -> None:
    threads(4)

    def inside() -> tuple[int, tuple[bool, bool]]:
        return torch.get_num_threads(), lanes.both(lanes.free, lanes.free)

    assert lanes.free()
    assert lanes.both(inside, inside) == ((2, (False, False)), (2, (False, False)))
    assert lanes.free()
    assert torch.get_num_threads() == 4
    threads(1)
    assert not lanes.free()


def test_one_thread_for_what_is_small(threads: Callable[[int], None]) -> None:
    threads(3)
    assert lanes.alone(torch.get_num_threads) == 1
    with pytest.raises(ZeroDivisionError):
        lanes.alone(lambda: 1 // 0)
    assert torch.get_num_threads() == 3
