"""Mazes as text: the published grids, their walls and their goals."""

import numpy as np
import pytest
from scipy.stats import chisquare

from crl.envs.layouts import LAYOUTS, Maze, lasting

PUBLISHED_GOALS = {
    "u": 6, "u_eval": 3, "u_single_eval": 1, "u2": 8, "u2_eval": 4, "u3": 10, "u3_eval": 5, "u3_single_eval": 1,
    "u4": 10, "u4_eval": 4, "u5": 16, "u5_eval": 8, "u5_single_eval": 1, "u6": 14, "u6_eval": 7, "u7": 12,
    "u7_eval": 6, "big": 25, "big_eval": 10, "big_eval_9_goals": 9, "hardest": 45,
}  # fmt: skip


def test_all_published_layouts_are_here():
    assert PUBLISHED_GOALS.keys() == LAYOUTS.keys()


@pytest.mark.parametrize("name", PUBLISHED_GOALS)
def test_number_of_goals(name):
    assert len(Maze.named(name).find("G")) == PUBLISHED_GOALS[name]


@pytest.mark.parametrize("name", [name for name in LAYOUTS if "_eval" in name])
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
        ("####\n#RX#\n####", r"row 1, column 2 \(from 0\) holds 'X'; cells are '#' wall, 'R' start, 'G' goal"),
        ("####\n#RG.\n####", r"border must be wall \('#'\) all round, row 1, column 3 \(from 0\) holds '\.'"),
        ("####\n#.G#\n####", "at least one start cell 'R'"),
        ("####\n#R.#\n####", "at least one goal cell 'G'"),
        (
            "######\n#RG#R#\n######",
            r"the start at row 1, column 4 \(from 0\) cannot be reached .* row 1, column 1\.",
        ),
        ("#####\n#R#G#\n#####", r"the goal at row 1, column 3 \(from 0\) cannot be reached"),
        ("######\n#RG#B#\n######", r"the object at row 1, column 4 \(from 0\) cannot be reached"),
    ],
)
def test_bad_grids_are_explained(text, message):
    with pytest.raises(ValueError, match=message):
        Maze.from_text(text)


def test_a_layout_is_a_name_a_file_or_text(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text(GRID, encoding="utf-8")
    for layout in (path, str(path), GRID):
        assert Maze.load(layout).rows == ("#####", "#R.G#", "#####")
        assert lasting(str(layout)) == "#####\n#R.G#\n#####\n"  # whatever becomes of the file
    assert Maze.load("u_eval", cell=2.0) == Maze.named("u_eval", cell=2.0)
    assert (lasting("u_eval"), lasting("")) == ("u_eval", "")


GRID = """
    #####
    #R.G#

    #####
"""


def test_bad_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"layout 'bigg': there is no such file, nor .* Did you mean 'big'"):
        Maze.load("bigg")
    with pytest.raises(ValueError, match=rf"layout {tmp_path}: cannot be read as text"):
        Maze.load(tmp_path)
    path = tmp_path / "mine.txt"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"mine\.txt: cannot be read as text"):
        Maze.load(path)
    path.write_text(GRID.replace(".", "x"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"mine\.txt: row 1, column 2 \(from 0\) holds 'x'"):
        Maze.load(str(path))


@pytest.mark.parametrize(
    ("name", "goals"),
    [
        ("u_eval_1f2f3f", [(1, 2), (1, 3), (2, 3)]),
        ("u_eval_1f2f3f4f", [(1, 2), (1, 3), (2, 3), (3, 3)]),
        ("u_eval_1f2f3f4f5f", [(1, 2), (1, 3), (2, 3), (3, 2), (3, 3)]),
        ("u_eval_5f6f", [(3, 1), (3, 2)]),
    ],
)
def test_goals_so_many_cells_away(name, goals):
    maze = Maze.named(name)
    assert [tuple(cell) for cell in maze.find("G").tolist()] == goals
    assert maze.find("R").tolist() == [[1, 1]]


@pytest.mark.parametrize(("name", "length"), [("u", 7), ("u2", 9), ("u3", 11), ("u4", 11), ("u5", 17)])
def test_corridors_are_as_long_as_published(name, length):
    path = Maze.named(name).corridor
    assert len(path) == length
    assert (np.abs(np.diff(path, axis=0)).sum(axis=1) == 1).all()


def test_strides_along_the_corridor():
    maze = Maze.named("u_gen_1f4f")
    start, goal = maze.draw(np.random.default_rng(0), 6000)
    order = {tuple(cell * 4.0): i for i, cell in enumerate(maze.corridor)}
    first, last = ([order[tuple(place)] for place in places] for places in (start, goal))
    pairs, counts = np.unique(np.stack((first, last)), axis=1, return_counts=True)
    expected = [(i, i + 1) for i in range(6)] + [(i, i + 4) for i in range(3)]
    assert sorted(zip(*pairs.tolist(), strict=True)) == sorted(expected)
    share = np.where(np.diff(pairs, axis=0)[0] == 1, 1 / 12, 1 / 6)  # each stride half of all, shared by its pairs
    assert chisquare(counts, 6000 * share).pvalue > 1e-4
    with pytest.raises(ValueError, match="its corridor has 7 cells, none 7 from another"):
        Maze.named("u_gen_7f")
    with pytest.raises(ValueError, match="it is no corridor"):
        Maze.named("big_gen_1f")


def test_any_start_with_any_goal():
    maze = Maze.from_text("######\n#R..G#\n#R##G#\n######")
    start, goal = maze.draw(np.random.default_rng(0), 4000)
    _, counts = np.unique(np.concatenate((start, goal), axis=1), axis=0, return_counts=True)
    assert len(counts) == 4
    assert chisquare(counts).pvalue > 1e-4
    assert maze.steps_from_start[2].tolist() == [-1, 0, -1, -1, 4, -1]


@pytest.mark.parametrize("name", ["u", "u4", "big", "hardest", "spiral_11x11", "nine_rooms"])
def test_far_goals_are_those_of_the_evaluation_layout(name):
    near, far = Maze.named(name), Maze.named(f"{name}_eval")
    np.testing.assert_array_equal(near.far, far.grid == "G")
    np.testing.assert_array_equal(far.far, far.grid == "G")
    assert near.far_goals().rows == far.rows


def test_far_goals_of_a_grid_of_ones_own():
    maze = Maze.from_text("#######\n#RGGGG#\n#######")
    assert maze.far_goals().rows == ("#######", "#R..GG#", "#######")
    assert maze.far_goals().far_goals() == maze.far_goals()  # no fewer the second time
    equal = Maze.from_text("#####\n#GRG#\n#####")
    assert equal.far_goals().rows == equal.rows


def test_rooms_are_the_published_grids():
    spiral, rooms = Maze.named("spiral_11x11"), Maze.named("nine_rooms")
    published = (
        "11111111111 10000000000 10111111110 10100000010 10101111010 10101001010 "
        "10101101010 10100001010 10111111010 10000000010 11111111110"
    )
    np.testing.assert_array_equal(
        spiral.grid[:11, :11] == "#", np.array([list(row) for row in published.split()]) == "1"
    )
    assert spiral.find("R").tolist() == [[5, 5]]
    assert spiral.steps_from_start.max() == spiral.steps_from_start[10, 10] == 54
    assert rooms.grid.shape == (17, 17)
    assert rooms.find("R").tolist() == [[1, 1]]
