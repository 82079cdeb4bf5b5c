"""Mazes as text: the published grids, their walls and their goals."""

import numpy as np
import pytest

from crl.envs.layouts import LAYOUTS, Maze

PUBLISHED_GOALS = {
    "u": 6, "u_eval": 3, "u_single_eval": 1, "u2": 8, "u2_eval": 4, "u3": 10, "u3_eval": 5, "u3_single_eval": 1,
    "u4": 10, "u4_eval": 4, "u5": 16, "u5_eval": 8, "u5_single_eval": 1, "u6": 14, "u6_eval": 7, "u7": 12,
    "u7_eval": 6, "big": 25, "big_eval": 10, "hardest": 45,
}  # fmt: skip


def test_all_published_layouts_are_here():
    assert PUBLISHED_GOALS.keys() == LAYOUTS.keys()


@pytest.mark.parametrize("name", PUBLISHED_GOALS)
def test_number_of_goals(name):
    assert len(Maze.named(name).find("G")) == PUBLISHED_GOALS[name]


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name.endswith("_eval")])
def test_evaluation_layouts_share_walls_and_start_with_training(name):
    far, near = Maze.named(name), Maze.named(name.partition("_")[0])
    np.testing.assert_array_equal(far.grid == "#", near.grid == "#")
    np.testing.assert_array_equal(far.find("R"), near.find("R"))
    assert set(map(tuple, far.find("G").tolist())) < set(map(tuple, near.find("G").tolist()))


def test_cell_coordinates():
    maze = Maze.named("u")
    assert maze.centres("R").tolist() == [[4, 4]]
    assert maze.centres("G").tolist() == [[4, 8], [4, 12], [8, 12], [12, 4], [12, 8], [12, 12]]
    assert Maze.named("u", cell=2.0).centres("R").tolist() == [[2, 2]]


def test_walking_distances():
    maze = Maze.named("u")
    assert [int(maze.steps_from_start[i, j]) for i, j in maze.find("G")] == [1, 2, 3, 6, 5, 4]
    assert maze.steps_from_start[0, 0] == -1


def test_hardest_eval_is_the_farther_half():
    near, far = Maze.named("hardest"), Maze.named("hardest_eval")
    lengths = near.steps_from_start[near.grid == "G"]
    kept = near.steps_from_start[far.grid == "G"]
    assert np.median(lengths) == 10
    assert len(kept) == (lengths > 10).sum() == 21
    assert kept.min() == 11
    assert (far.grid == "#").sum() == (near.grid == "#").sum()


@pytest.mark.parametrize("name", [*LAYOUTS, "hardest_eval"])
def test_wall_boxes_tile_the_wall_cells(name):
    maze = Maze.named(name)
    covered = np.zeros(maze.grid.shape, dtype=int)
    boxes = maze.walls()
    for top, bottom, left, right in boxes:
        covered[top : bottom + 1, left : right + 1] += 1
    np.testing.assert_array_equal(covered, maze.grid == "#")  # each exactly once
    assert len(boxes) < (maze.grid == "#").sum() / 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "one length"),
        ("####\n#RG#\n###", r"one length, got lengths \[4, 4, 3\]"),
        ("####\n#RX#\n####", r"got \['X'\]"),
        ("####\n#RG.\n####", "border"),
        ("#####\n#RRG#\n#####", "exactly one start cell 'R' is needed, got 2"),
        ("####\n#.G#\n####", "got 0"),
        ("####\n#R.#\n####", "at least one goal"),
        ("#####\n#R#G#\n#####", "the goal at row 1, column 3 cannot be reached"),
        ("######\n#RG#B#\n######", "the object at row 1, column 4 cannot be reached"),
    ],
)
def test_bad_grids_are_explained(text, message):
    with pytest.raises(ValueError, match=message):
        Maze.from_text(text)
