"""Pictures of worlds without a screen: EGL, else OSMesa; cameras that suit any task; goals as translucent spheres."""

from __future__ import annotations

import copy
import functools
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crl.envs.layouts import Maze
from crl.envs.physics import mujoco
from crl.envs.task import Array, Task
from crl.errors import MissingExtraError

Picture = NDArray[np.uint8]  # (height, width, 3)

NAMES = {"egl": "EGL", "osmesa": "OSMesa", "glfw": "GLFW", "cgl": "CGL"}
PREFERRED = {"linux": ("egl", "osmesa"), "darwin": ("cgl", "glfw")}
INSTALL = "install a driver: `apt-get install libegl1 libgl1-mesa-dri`, or `apt-get install libosmesa6`"
GOAL_COLOUR = (0.0, 0.62, 0.45, 0.5)
HERE_COLOUR = (0.9, 0.6, 0.0, 0.5)  # a disc under whoever is small in a large maze
BACKGROUND = 235  # grey, where nothing is
WIDER = 4  # times as wide are floors, so that no edge is seen
CLOSEST = 3.0  # m: the least that a camera which follows a robot sees of its surroundings
DOWN = 40.0  # degrees below the horizon, from where all but mazes are seen
COSTLY = [  # five sixths of what a picture takes in software
    mujoco.mjtRndFlag.mjRND_SHADOW,
    mujoco.mjtRndFlag.mjRND_REFLECTION,
    mujoco.mjtRndFlag.mjRND_SKYBOX,
]
STATE = mujoco.mjtState.mjSTATE_INTEGRATION  # what a row of `mujoco.batch.Batch.state` holds


@functools.cache
def backend() -> tuple[str, Any]:
    """What draws here, by name, and its class of OpenGL contexts: EGL, else OSMesa, or what MUJOCO_GL asks for.

    Chosen when first needed. MuJoCo itself settles on one when it is imported, without a look at whether it works.

    Raises:
        MissingExtraError: none works; it says why, and what to install.
    """
    wanted = os.environ.get("MUJOCO_GL", "").lower().strip()
    reasons = []
    for name in (wanted,) if wanted in NAMES else PREFERRED.get(sys.platform, ("glfw",)):
        platform = os.environ.get("PYOPENGL_PLATFORM")
        try:
            module = importlib.import_module(f"mujoco.{name}")
            context = module.GLContext(16, 16)
            context.make_current()
            context.free()
        except Exception as error:  # a missing library shows as whatever the binding stumbles over
            reasons.append(f"{NAMES[name]} ({_told(error)})")
            _forget(name, platform)
        else:
            return NAMES[name], module.GLContext
    raise MissingExtraError(f"nothing here can draw: {', '.join(reasons)}; {INSTALL}.")


def _told(error: Exception) -> str:
    try:
        return str(error).splitlines()[0].rstrip(".")
    except Exception:  # PyOpenGL's errors may not be able to say what they are
        return type(error).__name__


def _forget(name: str, platform: str | None) -> None:
    """Let another backend be tried: PyOpenGL binds itself to the first one."""
    for module in [m for m in sys.modules if m.partition(".")[0] == "OpenGL" or m.startswith(f"mujoco.{name}")]:
        del sys.modules[module]
    if platform is None:
        os.environ.pop("PYOPENGL_PLATFORM", None)


class Scene:
    """Draws worlds of one task, one at a time.

    Args:
        task: says where its goals are drawn.
        models: the compiled `mujoco.MjModel`, of all worlds or one each.
        size: pixels, width and height.

    Raises:
        MissingExtraError: nothing here can draw.
    """

    def __init__(self, task: Task, models: Sequence[Any], size: int) -> None:
        self._task = task
        self._models = [_subdued(model, size) for model in models]
        model = self._models[0]
        self._picture = np.empty((size, size, 3), dtype=np.uint8)
        self._depth = np.empty((size, size), dtype=np.float32)
        self._view = mujoco.MjrRect(0, 0, size, size)
        self.backend, context = backend()
        self._context = context(size, size)
        self._context.make_current()
        self._renderer = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._renderer)
        self._scene = mujoco.MjvScene(model, maxgeom=5000)
        self._data = mujoco.MjData(model)
        self._root = _root(model)
        self._solid = np.flatnonzero(model.geom_type != mujoco.mjtGeom.mjGEOM_PLANE)

    def draw(self, state: Array, goal: Array, world: int = 0) -> Picture:
        """A world in `state`, a row of the batch's, with its goal (goal_dim,); `world` says which model is its own."""
        model = self._models[min(world, len(self._models) - 1)]
        data, scene, maze = self._data, self._scene, getattr(self._task, "maze", None)
        mujoco.mj_setState(model, data, np.asarray(state, dtype=np.float64), STATE)
        for stage in (mujoco.mj_kinematics, mujoco.mj_comPos, mujoco.mj_camlight, mujoco.mj_tendon):
            stage(model, data)
        markers = self._task.goal_markers(np.asarray(goal, dtype=np.float64)[None])[0]
        camera = self._above(maze) if maze is not None else self._beside(markers)
        option, everything = mujoco.MjvOption(), mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(model, data, option, None, camera, everything, scene)
        for flag in COSTLY:
            scene.flags[flag] = False
        scene.nlight = 1  # the headlight
        for place in markers:
            self._add(mujoco.mjtGeom.mjGEOM_SPHERE, [self._task.spec.success_threshold] * 3, place, GOAL_COLOUR)
        if maze is not None:
            _see_straight(scene, 0.5 * (max(maze.grid.shape) - 1) * maze.cell)  # up to the middle of the outer walls
            if self._root is not None:
                place = [*data.xpos[self._root][:2], 0.02]
                self._add(mujoco.mjtGeom.mjGEOM_CYLINDER, [maze.cell / 6, maze.cell / 6, 0.01], place, HERE_COLOUR)
        self._context.make_current()
        mujoco.mjr_render(self._view, scene, self._renderer)
        mujoco.mjr_readPixels(self._picture, self._depth, self._view, self._renderer)
        self._picture[self._depth == 1.0] = BACKGROUND
        return np.flipud(self._picture).copy()

    def _add(self, kind: Any, size: Any, place: Any, colour: tuple[float, ...]) -> None:
        geom = self._scene.geoms[self._scene.ngeom]
        mujoco.mjv_initGeom(
            geom, kind, np.asarray(size), np.asarray(place), np.eye(3).flatten(), np.asarray(colour, np.float32)
        )
        self._scene.ngeom += 1

    def _above(self, maze: Maze) -> Any:
        """A camera straight above a maze, so turned that the picture lies as the maze's text does."""
        camera = mujoco.MjvCamera()
        rows, columns = maze.grid.shape
        camera.lookat[:] = 0.5 * (rows - 1) * maze.cell, 0.5 * (columns - 1) * maze.cell, 0.0
        camera.azimuth, camera.elevation, camera.distance = 180.0, -90.0, 2 * maze.cell
        return camera

    def _beside(self, markers: Array) -> Any:
        """A camera that follows a robot which moves about, with its goal in sight; otherwise one that sees all."""
        camera = mujoco.MjvCamera()
        camera.azimuth, camera.elevation = (90.0, -DOWN) if self._root is not None else (120.0, -DOWN)
        if self._root is not None:
            seen = np.concatenate((self._data.xpos[self._root][None], markers))
            low, high = seen.min(axis=0), seen.max(axis=0)
            extent = max(CLOSEST, 1.3 * float(np.linalg.norm(high - low)))
        else:
            reach = self._models[0].geom_rbound[self._solid, None]
            low, high = ((self._data.geom_xpos[self._solid] + sign * reach) for sign in (-1, 1))
            low, high = low.min(axis=0), high.max(axis=0)
            extent = 0.6 * float(np.linalg.norm(high - low))
        camera.lookat[:] = 0.5 * (low + high)
        camera.distance = 0.5 * extent / np.tan(np.radians(0.5 * self._models[0].vis.global_.fovy))
        return camera

    def close(self) -> None:
        """Let go of the OpenGL context."""
        self._renderer.free()
        self._context.free()

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _subdued(model: Any, size: int) -> Any:
    """A copy of a model that can be drawn in `size` pixels, lit evenly, its floors' patterns no more than a hint."""
    model = copy.copy(model)
    model.vis.global_.offwidth = model.vis.global_.offheight = size
    light = model.vis.headlight
    light.ambient[:], light.diffuse[:], light.specular[:] = 0.5, 0.5, 0.0
    floors = model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE
    model.geom_size[floors, :2] *= WIDER
    materials = np.unique(model.geom_matid[floors & (model.geom_matid >= 0)])
    model.mat_texrepeat[materials] *= np.where(model.mat_texuniform[materials, None], 1, WIDER)
    for texture in {int(t) for t in model.mat_texid[materials].flat if t >= 0}:
        first = model.tex_adr[texture]
        last = first + model.tex_height[texture] * model.tex_width[texture] * model.tex_nchannel[texture]
        model.tex_data[first:last] = 190 + model.tex_data[first:last] // 8
    return model


def _see_straight(scene: Any, half: float) -> None:
    """Parallel rays, `half` m to each side: walls then hide nothing of what stands between them."""
    for eye in scene.camera:
        eye.orthographic = 1
        eye.frustum_center, eye.frustum_width = 0.0, half
        eye.frustum_bottom, eye.frustum_top = -half, half


def _root(model: Any) -> int | None:
    """The body of a robot that moves about, if there is one: its first joint is free, or a slide from the world."""
    first = model.jnt_type[0]
    moving = first in (int(mujoco.mjtJoint.mjJNT_FREE), int(mujoco.mjtJoint.mjJNT_SLIDE))
    body = int(model.jnt_bodyid[0])
    return body if moving and model.body_parentid[body] == 0 else None
