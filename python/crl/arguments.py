"""Numbers given as arguments: taken as Python's own, or refused with the name of the argument."""

from typing import Any

import numpy as np

_MOST = 2**63 - 1


def integer(name: str, value: Any, least: int, most: int = _MOST) -> int:
    """`value` as an int from `least` to `most`. Raises TypeError or ValueError."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: expected an integer; got {value!r}")
    if not least <= value <= most:
        bounds = f"{least} or more" if value < least and most == _MOST else f"{least} to {most}"
        raise ValueError(f"{name}: expected {bounds}; got {value}")
    return int(value)


def number(name: str, value: Any) -> float:
    """`value` as a float. Raises TypeError."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{name}: expected a number; got {value!r}")
    return float(value)
