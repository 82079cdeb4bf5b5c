"""docs/environments.md says what the code does."""

import re
from pathlib import Path

import numpy as np
import pytest

import crl.envs as envs
from crl.envs.layouts import LAYOUTS, Maze

PAGE = (Path(__file__).parents[1] / "docs" / "environments.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("| ").split("|")] for line in PAGE.splitlines() if line.startswith("| `")]


def test_layout_table():
    expected = []
    for name in (*LAYOUTS, "hardest_eval"):
        maze = Maze.named(name)
        walks = maze.steps_from_start[maze.grid == "G"]
        base, _, suffix = name.partition("_")
        rows, columns = maze.grid.shape
        expected.append(
            [
                f"`{base}_maze{'_' * bool(suffix)}{suffix}`",
                f"{rows} by {columns}",
                str(len(walks)),
                f"{walks.min()} to {walks.max()}",
            ]
        )
    assert [row for row in ROWS if "_maze" in row[0] and " by " in row[1]] == expected


@pytest.mark.parametrize("name", envs.names())
def test_every_environment_is_on_the_page_with_its_sizes(name):
    spec = envs.spec(name)
    family = re.sub(r"^(ant|point)_\w+_maze\w*$", r"\1_…_maze…", name)
    row = next(row for row in ROWS if f"`{family}`" in row[0] and len(row) == 8)
    assert row[1:3] == [str(spec.observation_dim), str(spec.action_dim)]
    assert row[3].startswith(f"{spec.goal_dim}:")
    assert f"({', '.join(map(str, spec.goal_indices))})" in row[3].replace("entries ", "")
    assert row[4:6] == [f"within {spec.success_threshold:g} m".replace("0.", "."), f"{spec.dt:g} s".replace("0.", ".")]
    ends = envs.make(name, 1).task.terminated(np.full((1, spec.observation_dim), 5.0))
    assert bool(ends[0]) == (row[6] != "never")
