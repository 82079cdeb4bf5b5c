"""Pictures: what is drawn where, by which backend, and what `crl render` writes."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import TINY, Quiet
from PIL import Image, ImageDraw

from crl import envs, rendering
from crl.cli import main
from crl.collector import UniformPolicy
from crl.config import TrainConfig
from crl.envs.point import PointMaze
from crl.envs.registry import create
from crl.errors import MissingExtraError
from crl.paths import draw_paths
from crl.recording import (
    BORDER,
    FRAMES_PER_SECOND,
    SHEET_COLUMNS,
    Recording,
    _tile,
    contact_sheet,
    frames,
    record,
    write_video,
)
from crl.rendering import Scene
from crl.trainer import train

try:
    rendering.backend()
    NO_GL = ""
except MissingExtraError as error:
    NO_GL = str(error)
needs_gl = pytest.mark.skipif(bool(NO_GL), reason=NO_GL)
needs_av = pytest.mark.skipif(importlib.util.find_spec("av") is None, reason="av, of the extra video, is not installed")


def recorded(name: str, worlds: int = 2, steps: int = 5, seed: int = 3, **options: Any) -> Recording:
    env = envs.make(name, worlds, num_threads=1, **options)
    return record(UniformPolicy(env.env_spec.action_dim, (seed,)), env, seed=seed, steps=steps)


def greenest(picture: np.ndarray) -> tuple[int, int]:
    """Row and column of the middle of what is greener than anything else."""
    green = picture[..., 1].astype(int) - picture[..., [0, 2]].max(axis=-1)
    rows, columns = np.nonzero(green > 30)
    return round(rows.mean()), round(columns.mean())


def test_labels_of_a_small_tile_do_not_lie_on_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a tile too narrow for both, the time at which the goal was reached stays, and the distance goes."""
    drawn: list[tuple[float, float, str]] = []
    real = ImageDraw.ImageDraw.text

    def text(self: ImageDraw.ImageDraw, xy: tuple[float, float], told: str, **how: Any) -> None:
        drawn.append((xy[0], xy[0] + self.textlength(told, font=how["font"]), told))
        real(self, xy, told, **how)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    episode = recorded("point_u_maze")
    episode.success[:] = True
    words = {}
    for size in (110, 150, 300):
        drawn.clear()
        _tile(episode, SimpleNamespace(draw=lambda *_, size=size: np.zeros((size, size, 3), np.uint8)), 3, 0)
        (left, right, told), (begins, ends, words[size]) = sorted(drawn)
        assert 0 <= left <= right < begins < ends <= size + 2 * BORDER
        assert ("to go" in told, " s" in told) == (size == 300, size > 110)
    assert all(word.startswith("reached 0.") for word in words.values())


# --- episodes ---------------------------------------------------------------------------------------------------------


def test_a_recording_keeps_every_moment_and_then_stands_still() -> None:
    episode = recorded("ant", worlds=6, steps=80)
    steps, worlds = episode.success.shape
    assert (steps, worlds) == (81, 6)
    ended = episode.length < 80
    assert ended.any(), "random ants fall"
    for world in np.flatnonzero(ended):
        last = episode.length[world]
        for column in (episode.state, episode.achieved, episode.distance):
            assert (column[last:, world] == column[last, world]).all()
        height = episode.state[last, world, 3]  # time, then x, y, z
        assert not 0.2 < height < 1.0
    assert (np.diff(episode.state[: episode.length.min(), :, 0], axis=0) > 0).all()


def test_recordings_repeat_by_seed() -> None:
    first, again, other = (recorded("point_maze", seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.state, again.state)
    assert not np.array_equal(first.state, other.state)


def test_success_counts_from_the_first_step_and_is_kept() -> None:
    class There(PointMaze):
        """Starts at its goal."""

        def start(self, rng: np.random.Generator, count: int) -> envs.Start:
            start = super().start(rng, count)
            return start._replace(qpos=start.goal)

    env = envs.VectorEnv(There("there", "u"), 1)
    episode = record(UniformPolicy(2, (0,)), env, seed=0, steps=400)
    assert not episode.success[0, 0]
    assert episode.success[1, 0]
    assert not episode.success[-1, 0], "it has left"
    assert episode.reached[1:, 0].all()


# --- pictures ---------------------------------------------------------------------------------------------------------


@needs_gl
@pytest.mark.parametrize("goal", [(4.0, 8.0), (12.0, 4.0)])
def test_mazes_lie_as_their_text_and_goals_are_where_they_are(goal: tuple[float, float]) -> None:
    env = envs.make("point_u_maze", 1)
    env.reset(options={"goal": goal})
    with Scene(env.task, [env.model], 160) as scene:
        row, column = greenest(scene.draw(env.batch.state[0], env._goal[0]))
    # From the middle of one outer wall to that of the other: 16 m in 160 pixels, x downwards, y to the right.
    assert (row, column) == pytest.approx((10 * goal[0], 10 * goal[1]), abs=2)


@needs_gl
@pytest.mark.parametrize("name", ["ant", "reacher"])
def test_a_robot_is_in_sight_with_its_goal_wherever_it_is(name: str) -> None:
    env = envs.make(name, 2)
    env.reset(seed=1)
    with Scene(env.task, [env.model], 120) as scene:
        first, second = (scene.draw(env.batch.state[world], env._goal[world]) for world in range(2))
        assert all(10 < place < 110 for picture in (first, second) for place in greenest(picture))
        assert (first != second).any()
        np.testing.assert_array_equal(first, scene.draw(env.batch.state[0], env._goal[0]))


def test_goal_markers_by_dimension() -> None:
    class Axis(PointMaze):
        def __init__(self, dim: int) -> None:
            super().__init__("axis", "u")
            object.__setattr__(self.spec, "goal_dim", dim)

    goal = np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
    assert Axis(1).goal_markers(goal[:, :1]).tolist() == [[[1.0, 0.0, 0.5, 0.5]]]
    assert Axis(2).goal_markers(goal[:, :2]).tolist() == [[[1.0, 2.0, 0.5, 0.5]]]
    assert Axis(3).goal_markers(goal[:, :3]).tolist() == [[[1.0, 2.0, 3.0, 0.5]]]
    assert Axis(4).goal_markers(goal[:, :4]).shape == (1, 0, 4)
    assert Axis(6).goal_markers(goal).tolist() == [[[1.0, 2.0, 3.0, 0.5], [4.0, 5.0, 6.0, 0.5]]]


@pytest.mark.parametrize("name", sorted({type(create(name, {})): name for name in envs.names()}.values(), key=str))
def test_every_family_shows_its_goal(name: str) -> None:
    task = create(name, {})
    goal = task.start(np.random.default_rng(0), 5).goal
    markers = task.goal_markers(goal)
    assert markers.shape[0] == 5
    assert markers.shape[1:] >= (1, 4)
    assert ((markers[..., 3] > 0) & (markers[..., 3] <= 2)).all(), "the last column is radii"


@needs_gl
def test_frames_and_sheet() -> None:
    episode = recorded("point_maze", worlds=3, steps=7)
    episode.success[4, 1] = True
    with Scene(episode.task, episode.models, 64) as scene:
        film = list(frames(episode, scene, 3))
        sheet = contact_sheet(episode, scene)
    assert len(film) == 4, "steps 0, 3, 6 and the last"
    height, width = 64 + 6 + 18, 64 + 6
    assert {frame.shape for frame in film} == {(2 * height, 2 * width, 3)}
    assert sheet.shape == (3 * height, SHEET_COLUMNS * width, 3)
    framed = [frame[20, width + 1].tolist() == [0, 135, 98] for frame in film]
    assert framed == [False, False, True, True]


@needs_gl
def test_worlds_with_a_model_each_are_drawn_with_it() -> None:
    episode = recorded("point_random_maze", worlds=2, steps=1)
    with Scene(episode.task, episode.models, 64) as scene:
        first, second = (scene.draw(episode.state[0, 0], episode.goal[0, 0], world) for world in range(2))
    assert (first != second).mean() > 0.05


@needs_gl
@needs_av
def test_a_video_plays(tmp_path: Path) -> None:
    import av

    def pictures() -> Iterator[np.ndarray]:
        for level in (0, 120, 240):
            yield np.full((32, 48, 3), level, dtype=np.uint8)

    assert write_video(tmp_path / "film.mp4", pictures()) == 3
    with av.open(str(tmp_path / "film.mp4")) as film:
        shown = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
        assert film.streams.video[0].average_rate == FRAMES_PER_SECOND
    assert [picture.shape for picture in shown] == [(32, 48, 3)] * 3
    assert [picture.mean() for picture in shown] == pytest.approx([0, 120, 240], abs=8)


# --- backends ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let backends fail, as they do where their library is missing; nothing is chosen yet."""
    monkeypatch.setattr(rendering, "backend", rendering.functools.cache(rendering.backend.__wrapped__))
    found = rendering.importlib.import_module
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("MUJOCO_GL", "")
    monkeypatch.setattr(rendering, "_probe", lambda context: None)

    def arrange(*names: str) -> None:
        def load(name: str) -> Any:
            if name in names:
                raise ImportError(f"no {name}.\nand more")
            return type("module", (), {"GLContext": object}) if name.startswith("mujoco.") else found(name)

        monkeypatch.setattr(rendering.importlib, "import_module", load)

    return arrange


def test_egl_comes_first_then_osmesa(broken: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    broken()
    assert rendering.backend()[0] == "EGL"
    assert os.environ["MUJOCO_GL"] == "egl"
    rendering.backend.cache_clear()
    monkeypatch.setenv("MUJOCO_GL", "")
    broken("mujoco.egl")
    assert rendering.backend()[0] == "OSMesa"


def test_what_mujoco_gl_asks_for_is_taken(broken: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    broken()
    assert rendering.backend()[0] == "OSMesa"


def test_where_nothing_draws_one_line_says_why_and_what_to_install(broken: Callable[..., None]) -> None:
    broken("mujoco.egl", "mujoco.osmesa")
    with pytest.raises(MissingExtraError) as caught:
        rendering.backend()
    told = str(caught.value)
    assert "\n" not in told
    assert os.environ["MUJOCO_GL"] == "", "as it was"
    for part in ("EGL (no mujoco.egl)", "OSMesa (no mujoco.osmesa)", "libegl1", "libosmesa6"):
        assert part in told


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def crl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, arguments, prog_name="crl")


@needs_gl
def test_render_without_a_run(crl: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "av" else found(name))
    shown = crl("render", "--env", "reacher", "--random", "--episodes", "2", "--steps", "3", "--size", "64")
    assert shown.exit_code == 0, shown.output
    assert f"rendering with {rendering.backend()[0]}" in shown.output
    assert 'no video: av is not installed: pip install "crl[video]"' in shown.output
    with Image.open("reacher.png") as sheet:
        assert sheet.size == (SHEET_COLUMNS * 70, 2 * 88)
    assert not Path("reacher.mp4").exists()


def test_paths_need_no_gl(crl: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "backend", lambda: pytest.fail("OpenGL was asked for"))
    arguments = ("--random", "--paths", "--episodes", "3", "--steps", "20", "--output", "pictures/maze")
    shown = crl("render", "--env", "point_maze", *arguments)
    assert shown.exit_code == 0, shown.output
    with Image.open("pictures/maze_paths.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 50


def test_worlds_with_a_maze_each_get_a_panel_each(tmp_path: Path) -> None:
    def height(worlds: int) -> int:
        draw_paths(recorded("point_random_maze", worlds, steps=3), tmp_path / "paths.png")
        with Image.open(tmp_path / "paths.png") as picture:
            return picture.height

    assert height(4) > 1.7 * height(2)


def test_options_of_the_environment_are_shown(crl: Callable[..., Result]) -> None:
    few = ("--random", "--paths", "--episodes", "1", "--steps", "20", "--env-options", "episode_length=4")
    shown = crl("render", "--env", "point_random_maze", *few)
    assert "within 4 steps" in shown.output, shown.output


def test_a_run_is_shown_beside_its_buffer(
    tiny: Callable[..., TrainConfig], crl: Callable[..., Result], tmp_path: Path
) -> None:
    train(tiny(), reporter=Quiet())
    shown = crl("render", "run", "--paths", "--episodes", "2", "--device", "cpu")
    assert shown.exit_code == 0, shown.output
    (picture,) = (tmp_path / "run" / "videos").iterdir()
    assert picture.name == f"{TINY['env']}-step_400_paths.png"
    one = crl("render", "run", "--paths", "--random", "--episodes", "2", "--device", "cpu")
    assert one.exit_code == 0, one.output
    with Image.open(picture) as both, Image.open(picture.with_name(f"{TINY['env']}-random_paths.png")) as single:
        assert both.width > single.width, "where the random policy has been is in no buffer"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ((), ("directory of a run", "--random")),
        (("--env", "ant"), ("--random",)),
        (("--env", "ant_mase", "--random"), ("ant_maze",)),
        (("--env", "point_random_maze", "--random", "--env-options", "syze=2"), ("'syze'", "'size'")),
        (("nowhere",), ("nowhere", "no such directory")),
    ],
)
def test_mistakes_are_one_line(crl: Callable[..., Result], arguments: tuple[str, ...], parts: tuple[str, ...]) -> None:
    shown = crl("render", *arguments)
    assert shown.exit_code in (1, 2)
    assert isinstance(shown.exception, SystemExit)
    assert all(part in shown.stderr for part in parts), shown.stderr


@needs_gl
def test_torch_may_need_triton_after_something_was_drawn():
    """Both bring an LLVM, and a process that loads them in the wrong order dies."""
    pytest.importorskip("triton")
    program = "import crl.rendering; crl.rendering.backend(); import triton; import torch._dynamo"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
