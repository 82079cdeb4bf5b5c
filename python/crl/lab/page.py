"""A study as one HTML file that needs nothing else: maps over time, the goal axis, curves, and sliders that explain."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crl.files import write_text
from crl.lab.analysis import over_time, room_shares, statistics, success
from crl.lab.study import Record

STEPS = 32767
"""Coordinates from -1 to 1 are written as whole numbers from -STEPS to STEPS."""


def write_page(path: Path, records: Sequence[Record], command: str) -> None:
    """Write the page about `records`, of one world, made by `command`."""
    world = records[0].world
    data = {
        "command": command,
        "temperature": records[0].settings.temperature,
        "world": {
            "name": world.name,
            "shape": world.grid.shape,
            "cells": world.cells.tolist(),
            "room": world.room.tolist(),
            "rooms": world.rooms,
            "start": world.start,
            "goal": world.goal,
        },
        "studies": [_study(record) for record in records],
    }
    template = files("crl.lab").joinpath("page.html").read_text(encoding="utf-8")
    # "<" would end the script if data said "</script>"; JSON may write it as an escape.
    written = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    write_text(path, template.replace("/*DATA*/null", written))


def _study(record: Record) -> dict[str, Any]:
    average, shares = success(record), np.nan_to_num(room_shares(record))
    played = record.episode
    seeds = []
    for seed in range(len(average)):
        c, zeta = over_time(record, seed)
        seeds.append(
            {
                "c": _packed(c),
                "zeta": _packed(zeta),
                "path": _base64(record.path[seed].astype("<u2")),
                "success": [0.0, *np.round(average[seed, played[1:] - 1].astype(float), 3).tolist()],
                "rooms": np.round(shares[seed].astype(float), 3).tolist(),
            }
        )
    return {
        "name": str(record.settings),
        "first": record.settings.first_seed,
        "episodes": played.tolist(),
        "length": record.path.shape[-1],
        "seeds": seeds,
        "statistics": [
            [statistic.meaning, *(_number(value) for value in statistic.interval()), len(statistic.known)]
            for statistic in statistics(record)
        ],
    }


def _packed(values: NDArray[np.floating[Any]]) -> str:
    return _base64(np.rint(STEPS * np.clip(values, -1, 1)).astype("<i2"))


def _base64(values: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def _number(value: float) -> str:
    return "none" if np.isnan(value) else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
