"""Pictures of worlds without a screen: EGL, else OSMesa; cameras that suit any task; goals as translucent spheres."""

from __future__ import annotations

import contextlib
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
OBJECTS = [(0.34, 0.71, 0.91, 1.0), (0.80, 0.47, 0.65, 1.0), (0.94, 0.89, 0.26, 1.0)]
FLOOR = 0.72  # grey, where a floor has no pattern
BACKGROUND = 235  # grey, where nothing is
WIDER = 4  # times as wide are floors, so that no edge is seen
CLOSEST = 3.0  # m: the least that a camera which follows a robot sees of its surroundings
AROUND, DOWN = (90.0, 220.0), (40.0, 55.0)  # degrees, of a camera that follows and of one that stays
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
    # Mesa and triton, which torch imports when it first needs it, each bring an LLVM: in that order the second
    # one kills the process, in this order it does not.
    with contextlib.suppress(ImportError):
        importlib.import_module("triton._C.libtriton")
    reasons = []
    for name in (wanted,) if wanted in NAMES else PREFERRED.get(sys.platform, ("glfw",)):
        before = {variable: os.environ.get(variable) for variable in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
        os.environ["MUJOCO_GL"] = name  # by which MuJoCo's own library finds OpenGL's functions
        try:
            module = importlib.import_module(f"mujoco.{name}")
            _probe(module.GLContext)
        except Exception as error:  # a missing library shows as whatever the binding stumbles over
            reasons.append(f"{NAMES[name]} ({_told(error)})")
            _forget(name, before)
        else:
            return NAMES[name], module.GLContext
    raise MissingExtraError(f"nothing here can draw: {', '.join(reasons)}; {INSTALL}.")


def _told(error: Exception) -> str:
    try:
        return str(error).splitlines()[0].rstrip(".")
    except Exception:  # PyOpenGL's errors may not be able to say what they are
        return type(error).__name__


def _probe(context_class: Any) -> None:
    """Raise unless contexts of this class can be drawn in."""
    context = context_class(16, 16)
    try:
        context.make_current()
        mujoco.MjrContext(mujoco.MjModel.from_xml_string("<mujoco/>"), mujoco.mjtFontScale.mjFONTSCALE_100).free()
    finally:
        context.free()


def _forget(name: str, before: dict[str, str | None]) -> None:
    """Let another backend be tried: PyOpenGL binds itself to the first one."""
    for module in [m for m in sys.modules if m.partition(".")[0] == "OpenGL" or m.startswith(f"mujoco.{name}")]:
        del sys.modules[module]
    for variable, value in before.items():
        if value is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = value


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
        self._whole: tuple[Array, Array] | None = None  # the corners of all there is, as it was first seen

    def draw(self, state: Array, goal: Array, world: int = 0) -> Picture:
        """A world in `state`, a row of the batch's, with its goal (goal_dim,); `world` says which model is its own."""
        model = self._models[min(world, len(self._models) - 1)]
        data, scene, maze = self._data, self._scene, getattr(self._task, "maze", None)
        mujoco.mj_setState(model, data, np.asarray(state, dtype=np.float64), STATE)
        for stage in (mujoco.mj_kinematics, mujoco.mj_comPos, mujoco.mj_camlight, mujoco.mj_tendon):
            stage(model, data)
        markers = self._task.goal_markers(np.asarray(goal, dtype=np.float64)[None])[0]
        from_above = maze is not None or self._task.from_above
        if self._whole is None:
            self._whole = _corners(self._task, model, data) if maze is None else _outer_walls(maze)
        camera = self._above() if from_above else self._beside(markers)
        option, everything = mujoco.MjvOption(), mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(model, data, option, None, camera, everything, scene)
        for flag in COSTLY:
            scene.flags[flag] = False
        scene.nlight = 1  # the headlight
        for *place, radius in markers:
            self._add(mujoco.mjtGeom.mjGEOM_SPHERE, [radius] * 3, place, GOAL_COLOUR)
        if from_above:
            half = 0.5 * float(np.max(self._whole[1][:2] - self._whole[0][:2]))
            _see_straight(scene, half)
            if self._root is not None:
                place = [*data.xpos[self._root][:2], 0.02]
                self._add(mujoco.mjtGeom.mjGEOM_CYLINDER, [half / 13, half / 13, 0.01], place, HERE_COLOUR)
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

    def _above(self) -> Any:
        """A camera straight above, so turned that the picture of a maze lies as its text does."""
        assert self._whole is not None
        camera = mujoco.MjvCamera()
        camera.lookat[:] = 0.5 * (self._whole[0] + self._whole[1])
        camera.azimuth, camera.elevation, camera.distance = 180.0, -90.0, 10.0
        return camera

    def _beside(self, markers: Array) -> Any:
        """A camera that follows a robot which moves about, with its goal in sight; otherwise one that sees all."""
        assert self._whole is not None
        camera = mujoco.MjvCamera()
        (low, high), stays = self._whole, 1
        radius = 0.5 * float(np.linalg.norm(high - low))
        if self._root is not None:
            place, reach = markers[:, :3], markers[:, 3:]
            seen = np.concatenate((self._data.xpos[self._root][None], place - reach, place + reach))
            (low, high), stays, radius = (seen.min(axis=0), seen.max(axis=0)), 0, min(0.5 * CLOSEST, radius)
        camera.lookat[:] = 0.5 * (low + high)
        camera.azimuth, camera.elevation = AROUND[stays], -DOWN[stays]
        radius = max(radius, (0.65, 0.5)[stays] * float(np.linalg.norm(high - low)))
        camera.distance = radius / np.tan(np.radians(0.5 * self._models[0].vis.global_.fovy))
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
    model.geom_rgba[floors & (model.geom_matid < 0), :3] = FLOOR
    model.geom_matid[(model.geom_bodyid == 0) & ~floors] = -1  # walls, which may inherit a robot's
    _tell_apart(model)
    return model


def _tell_apart(model: Any) -> None:
    """Give what moves by itself, beside the first, a colour of its own, unless it has one."""
    moving = model.body_rootid[model.geom_bodyid]
    roots = [int(root) for root in np.unique(moving[moving > 0])]
    plain = {tuple(colour) for colour in model.geom_rgba[moving == roots[0]].tolist()} if roots else set()
    for root, colour in zip(roots[1:], OBJECTS * len(roots), strict=False):
        for geom in np.flatnonzero(moving == root):
            if tuple(model.geom_rgba[geom].tolist()) in plain and model.geom_rgba[geom, 3] > 0:
                model.geom_matid[geom], model.geom_rgba[geom] = -1, colour


def _corners(task: Task, model: Any, data: Any) -> tuple[Array, Array]:
    """The lowest and the highest x, y, z of all but floors, and of goals as they are drawn."""
    solid = model.geom_type != mujoco.mjtGeom.mjGEOM_PLANE
    turned = data.geom_xmat[solid].reshape(-1, 3, 3)
    middle = data.geom_xpos[solid] + np.einsum("gij,gj->gi", turned, model.geom_aabb[solid, :3])
    half = np.einsum("gij,gj->gi", np.abs(turned), model.geom_aabb[solid, 3:])
    goals = task.goal_markers(task.start(np.random.default_rng(0), 64).goal).reshape(-1, 4)
    middle, half = np.concatenate((middle, goals[:, :3])), np.concatenate((half, np.tile(goals[:, 3:], 3)))
    return (middle - half).min(axis=0), (middle + half).max(axis=0)


def _outer_walls(maze: Maze) -> tuple[Array, Array]:
    """Corners of a square with a maze in its middle, up to the middle of the outer walls."""
    middle = 0.5 * maze.cell * (np.array([*maze.grid.shape, 1.0]) - 1.0)
    half = np.array([middle.max(), middle.max(), 0.0])
    return middle - half, middle + half


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
