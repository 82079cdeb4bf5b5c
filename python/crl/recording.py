"""Episodes kept for looking at: rolled out once, then drawn as a video and a contact sheet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from crl.envs.layouts import Maze
from crl.envs.task import Task
from crl.files import whole
from crl.rendering import Picture, Scene

FRAMES_PER_SECOND = 25
SHEET_COLUMNS = 6
BORDER, LABEL, FONT_SIZE = 3, 18, 12  # pixels
INK, PAPER, FRAME, SUCCESS = (40, 40, 40), (255, 255, 255), (205, 205, 205), (0, 135, 98)


@dataclass(frozen=True)
class Recording:
    """One episode in each of N worlds: T + 1 moments, the first that of the reset.

    A world whose episode has ended stays as it was then.
    """

    task: Task
    models: list[Any]
    """One a world."""
    state: NDArray[np.float64]
    """(T + 1, N, S) rows of `mujoco.batch.Batch.state`."""
    achieved: NDArray[np.float32]
    """(T + 1, N, G), G being the `goal_dim` of the task's `state_spec`."""
    goal: NDArray[np.float32]
    """(T + 1, N, G)"""
    distance: NDArray[np.float32]
    """(T + 1, N)"""
    success: NDArray[np.bool_]
    """(T + 1, N): at the goal. Never at the reset, as in an evaluation."""
    length: NDArray[np.int64]
    """(N,) the last step of each episode."""

    @property
    def mazes(self) -> list[Maze]:
        """Of worlds that have one each; of all, if they share one; none where there is no maze."""
        shared = getattr(self.task, "maze", None)
        of_worlds: list[Maze] = getattr(self.task, "mazes", [shared] if shared is not None else [])
        return of_worlds

    @property
    def reached(self) -> NDArray[np.bool_]:
        """(T + 1, N): has been at the goal."""
        reached: NDArray[np.bool_] = np.logical_or.accumulate(self.success, axis=0)
        return reached


def record(policy: Any, env: Any, *, seed: int, steps: int, deterministic: bool = True) -> Recording:
    """Run one episode of at most `steps` steps in each world of a `crl.envs` VectorEnv, reset from `seed`.

    `policy` has `act(observation, goal, deterministic) -> action tensor (N, A)`.
    """
    shown, info = env.reset(seed=seed)
    models = [env.batch.get_model(world) for world in range(env.num_envs)]
    running, length = np.ones(env.num_envs, dtype=np.bool_), np.zeros(env.num_envs, dtype=np.int64)
    moments = [_moment(env, info)]
    moments[0]["success"][:] = False
    for _ in range(steps):
        action = policy.act(shown["observation"], shown["desired_goal"], deterministic=deterministic)
        shown, _, terminated, truncated, info = env.step(action.cpu().numpy())
        now, before = _moment(env, info), moments[-1]
        for column, values in now.items():
            values[~running] = before[column][~running]
        moments.append(now)
        length += running
        running &= ~(terminated | truncated)
        if not running.any():
            break
    columns = {column: np.stack([moment[column] for moment in moments]) for column in moments[0]}
    return Recording(env.task, models, length=length, **columns)


def _moment(env: Any, info: dict[str, Any]) -> dict[str, NDArray[Any]]:
    achieved, goal = env.places
    return {
        "state": env.batch.state.copy(),
        "achieved": achieved,
        "goal": goal,
        "distance": info["distance"],
        "success": info["success"],
    }


def frames(recording: Recording, scene: Scene, every: int) -> Iterator[Picture]:
    """All episodes side by side, one picture every `every` steps, the last step included."""
    last, worlds = len(recording.state) - 1, recording.state.shape[1]
    for moment in (*range(0, last, every), last):
        yield _grid([_tile(recording, scene, moment, world) for world in range(worlds)], _columns(worlds))


def contact_sheet(recording: Recording, scene: Scene) -> Picture:
    """An episode a row, each at evenly spaced moments of its own, from its first to its last."""
    tiles = [
        _tile(recording, scene, int(moment), world)
        for world, length in enumerate(recording.length)
        for moment in np.linspace(0, length, SHEET_COLUMNS).round()
    ]
    return _grid(tiles, SHEET_COLUMNS)


def _columns(worlds: int) -> int:
    return int(np.ceil(np.sqrt(worlds)))


def _tile(recording: Recording, scene: Scene, moment: int, world: int) -> Picture:
    """One world at one moment under a line that says when and how far; framed once it has been at its goal."""
    picture = scene.draw(recording.state[moment, world], recording.goal[moment, world], world)
    size, length, dt = len(picture), int(recording.length[world]), recording.task.spec.dt
    digits = 1 if dt * recording.length.max() > 10 else 2
    at_goal = np.flatnonzero(recording.success[: moment + 1, world])
    tile = Image.new("RGB", (size + 2 * BORDER, size + 2 * BORDER + LABEL), SUCCESS if len(at_goal) else FRAME)
    if moment > length:
        picture = (0.5 * picture + 0.5 * 255).astype(np.uint8)
    tile.paste(Image.fromarray(picture), (BORDER, BORDER + LABEL))
    draw, font = ImageDraw.Draw(tile), ImageFont.load_default(FONT_SIZE)
    draw.rectangle((0, 0, tile.width, LABEL - 1), fill=PAPER)
    now = f"{min(moment, length) * dt:.{digits}f} s" + (", ended" if moment > length else "")
    left = f"{now}   {recording.distance[moment, world]:.2f} to go"
    if len(at_goal):
        told = f"reached {at_goal[0] * dt:.{digits}f} s"
        start = tile.width - BORDER - draw.textlength(told, font=font)
        # A small tile has no place for all of it.
        fits = (text for text in (left, now) if BORDER + draw.textlength(f"{text} ", font=font) < start)
        left = next(fits, "")
        draw.text((start, 2), told, fill=SUCCESS, font=font)
    draw.text((BORDER, 2), left, fill=INK, font=font)
    return np.asarray(tile)


def _grid(tiles: Sequence[Picture], columns: int) -> Picture:
    """Tiles of one size row by row, an even number of pixels each way, as video codecs want."""
    height, width, _ = tiles[0].shape
    rows = -(-len(tiles) // columns)
    grid = np.full((rows * height + rows * height % 2, columns * width + columns * width % 2, 3), 255, dtype=np.uint8)
    for number, tile in enumerate(tiles):
        top, left = number // columns * height, number % columns * width
        grid[top : top + height, left : left + width] = tile
    return grid


def write_picture(path: Path, picture: Picture) -> None:
    """Write a PNG."""
    with whole(path) as place:
        Image.fromarray(picture).save(place)


def write_video(path: Path, pictures: Iterable[Picture]) -> int:
    """Write an mp4 (H.264) of `FRAMES_PER_SECOND`; returns how many frames it has."""
    import av

    count = 0
    with whole(path) as place, av.open(str(place), "w") as file:
        stream = file.add_stream("libx264", rate=FRAMES_PER_SECOND, options={"crf": "22", "preset": "veryfast"})
        stream.pix_fmt = "yuv420p"
        for count, picture in enumerate(pictures, 1):
            if count == 1:
                stream.height, stream.width = picture.shape[:2]
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())
    return count
